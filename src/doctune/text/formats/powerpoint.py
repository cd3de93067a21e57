"""PowerPoint packages through python-pptx: shapes, tables, groups and notes, slide by slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused


def read(reading: Reading) -> Iterator[str]:
    """The text of the slides in order, each followed by its notes.

    Raises:
        Refused: the presentation cannot be opened, or would unpack to too much.
    """
    import pptx

    reading.check_size()
    reading.package.refuse_bomb()
    reading.file.seek(0)
    try:
        presentation = pptx.Presentation(reading.file)
    except Exception as error:  # python-pptx passes on whatever zipfile, lxml or itself came across
        raise Refused("damaged", "python-pptx cannot open the presentation") from error
    for number, slide in enumerate(presentation.slides, start=1):
        try:
            yield from _shapes_text(slide.shapes)
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                yield f"{slide.notes_slide.notes_text_frame.text}\n"
        except (KeyError, ValueError, AttributeError) as error:
            reading.lose(f"the rest of slide {number}", Refused("damaged", describe(error)))


def _shapes_text(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes_text(shape.shapes)
        elif shape.has_text_frame:
            yield f"{shape.text_frame.text}\n"
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                yield "\t".join(" ".join(cell.text.split("\n")) for cell in row.cells if not cell.is_spanned) + "\n"
        elif getattr(shape, "has_chart", False):
            yield from _chart_text(shape.chart)


def _chart_text(chart: Any) -> Iterator[str]:
    if chart.has_title and chart.chart_title.has_text_frame:
        yield f"{chart.chart_title.text_frame.text}\n"
    for plot in chart.plots:
        yield "\t".join(str(category) for category in plot.categories) + "\n"
        yield "\t".join(str(series.name) for series in plot.series) + "\n"
