"""Old and binary workbooks (xls, xlsb) and OpenDocument spreadsheets (ods) through python-calamine."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused


def read(reading: Reading) -> Iterator[str]:
    """A line per row and tabs between filled cells, the sheet's name above its first row.

    Raises:
        Refused: a password is needed, or the workbook cannot be opened.
    """
    reading.check_size()
    workbook = _open(reading)
    for name in workbook.sheet_names:
        try:
            sheet = workbook.get_sheet_by_name(name)
        except Exception as error:  # calamine raises a kind of its own for every way in which a sheet can be broken
            reading.lose(f"the sheet {name!r}", Refused("damaged", describe(error)))
            continue
        is_named = False
        for row in sheet.iter_rows():
            cells = [shown for value in row if (shown := _shown(value))]
            if cells and not is_named:
                yield f"{name}\n"
                is_named = True
            if cells:
                yield "\t".join(cells) + "\n"


def _open(reading: Reading) -> Any:
    import python_calamine

    reading.file.seek(0)
    try:
        return python_calamine.load_workbook(reading.file)
    except python_calamine.PasswordError as error:
        raise Refused("encrypted", "the workbook needs a password") from error
    except Exception as error:  # a damaged workbook ends in a dozen kinds of exception
        if "password" in str(error).lower():
            raise Refused("encrypted", "the workbook needs a password") from error
        raise Refused("damaged", describe(error)) from error


def _shown(value: object) -> str:
    """A cell as text, in the same form as `excel` gives it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    return " ".join(str(value).split("\n"))
