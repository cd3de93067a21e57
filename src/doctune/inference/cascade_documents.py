"""The judged documents of a run, read again from their files as inference reads files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.errors import ArtifactError, ConfigError
from doctune.inference.judged import is_content_of
from doctune.text.sandbox import extract_files
from doctune.text.settings import ExtractSettings

_EXAMPLES = 3


@dataclass(frozen=True)
class JudgedTexts:
    """Documents of a part that can still be read: their texts and labels.

    `num_documents` has the part; `asked` of them were looked at. `lost` are paths with the reason why they have no
    text now.
    """

    part: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    num_documents: int
    asked: int
    lost: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """How many documents there are, and why not more."""
        said = f"{len(self.texts):,} documents"
        if self.asked < self.num_documents:
            said += f", from {self.asked:,} of {self.num_documents:,} (--max-documents)"
        if self.lost:
            examples = "; ".join(f"{path}: {reason}" for path, reason in self.lost[:_EXAMPLES])
            said += f"; {len(self.lost):,} can no longer be used, such as {examples}"
        return f"{said}."


def read_part(run: Path, part: str, settings: ExtractSettings, max_documents: int) -> JudgedTexts:
    """The texts of a part, or of so many documents of it, evenly spaced.

    A file that is gone, has changed since the run or gives no text is in `lost`.

    Args:
        run: the run's folder.
        part: "val" or "test".
        settings: of the extraction.
        max_documents: how many are read at most.

    Raises:
        ArtifactError: the run has no such predictions, or none of the documents can be read any more.
    """
    rows = _rows(run / "predictions" / f"{part}.parquet")
    asked = _spaced(rows, max_documents)
    texts, labels, lost = [], [], []
    for row, document in zip(asked, extract_files([row["path"] for row in asked], settings), strict=True):
        problem = document.reason if document.status != "ok" else _change(row)
        if problem:
            lost.append((row["path"], problem))
        else:
            texts.append(document.text)
            labels.append(row["truth"])
    if not texts:
        reason, count = Counter(reason for _, reason in lost).most_common(1)[0]
        raise ArtifactError(
            f"None of the {len(asked)} {part} documents of {run} can be read as it was in the run; most often: "
            f"{reason} ({count}). A cascade is tuned where the run's files are."
        )
    return JudgedTexts(part, tuple(texts), tuple(labels), len(rows), len(asked), tuple(lost))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ConfigError("Tuning a cascade reads Parquet files: pip install pyarrow.") from error
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: a cascade is tuned on the predictions of a finished run.")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=["id", "path", "truth"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not rows:
        raise ArtifactError(f"{path} has no documents, so a cascade cannot be tuned and judged.")
    return rows


def _spaced(rows: Sequence[dict[str, Any]], count: int) -> Sequence[dict[str, Any]]:
    """So many rows, evenly spaced; all where there are no more."""
    if len(rows) <= count:
        return rows
    return [rows[place * len(rows) // count] for place in range(count)]


def _change(row: dict[str, Any]) -> str:
    """What is said of a file that is not what the run was given; "" of one that is."""
    with Path(row["path"]).open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if is_content_of(row["id"], content) else "it has changed since the run"
