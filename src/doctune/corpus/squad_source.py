"""Where questions come from: the official JSON, a folder of it or of Parquet, or a data set on the Hugging Face hub."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.corpus.squad import RawQuestion, SquadFile, judge_questions, read_squad, untitled
from doctune.errors import ConfigError, DataError

_COLUMNS = ("id", "title", "context", "question", "answers")
_SUFFIXES = (".json", ".parquet")
_PART_OF = {"train": "train", "validation": "judge", "dev": "judge", "val": "judge"}
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]+)?$")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SquadSource:
    """What trains and, where the source has a validation split, what judges."""

    train: SquadFile
    judge: SquadFile | None


def read_squad_source(source: str) -> SquadSource:
    """Read a JSON or Parquet file, a folder of either, or a data set of the hub by its name `owner/name`.

    A folder has files of one kind whose names (or whose folders') begin with `train`, and with `validation`, `dev` or
    `val` where there is a set that judges. In Parquet the columns are those of the hub's SQuAD: id, title, context,
    question and answers, a struct of the lists text and answer_start; a question without answers is impossible.

    Raises:
        DataError: there is nothing of that name here or on the hub, or it has no, or more than one, training set.
        ConfigError: Parquet without pyarrow, or the hub without huggingface_hub installed.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.exists():
        return SquadSource(_read_files([path]), None)
    if _HUB_NAME.fullmatch(source) is None or path.suffix in _SUFFIXES:
        raise DataError(
            f"There is no file and no folder {source}. Name one with data.path=, or a data set of the hub by its owner "
            "and name (data.path=rajpurkar/squad)."
        )
    return _read_folder(_fetched(source))


def _fetched(name: str) -> Path:
    """The folder that the hub's files lie in, from the cache where they are there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError(f"{name} needs huggingface_hub, which `pip install 'doctune[train]'` brings.") from error
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet"]))
    except Exception as error:  # those of the client and of the HTTP library below it have no base in common
        raise DataError(
            f"The data set {name!r} is no path here, and the hub was not reachable or does not have it "
            f"({_first_line(error)}). Two ways on: give the official JSON, or a folder of it or of Parquet files "
            "(data.path=/path/to/train.json), or check the name and the connection and try again."
        ) from error


# --- folders -----------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> SquadSource:
    sets = _sets(folder)
    trains = [files for (part, _), files in sets.items() if part == "train"]
    judges = [files for (part, _), files in sets.items() if part == "judge"]
    if not trains:
        raise DataError(
            f"{folder} has no training set: no .json or .parquet file in it begins with train. "
            "Name the file itself with data.path=."
        )
    for files, what in ((trains, "training"), (judges, "validation")):
        if len(files) > 1:
            found = ", ".join(str(each[0].relative_to(folder)) for each in files)
            raise DataError(f"{folder} has {len(files)} {what} sets: {found}. Name one file or folder with data.path=.")
    return SquadSource(_read_files(trains[0]), _read_files(judges[0]) if judges else None)


def _sets(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The files of a folder in name order, by part and set; the shards of one set are together."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for file in sorted(file for suffix in _SUFFIXES for file in folder.rglob(f"*{suffix}") if file.is_file()):
        part, below = _part_of(file.stem), _part_of(file.parent.name)
        if part:
            found[part, str(file.with_name(_without_shard(file)))].append(file)
        elif below and file.suffix == ".parquet" and file.parent != folder:
            found[below, str(file.parent)].append(file)
    return found


def _part_of(name: str) -> str | None:
    return _PART_OF.get(re.split(r"[-_.]", name.lower())[0])


def _without_shard(file: Path) -> str:
    return f"{_SHARD.sub('', file.stem)}{file.suffix}"


def _read_files(files: Sequence[Path]) -> SquadFile:
    first = files[0]
    if first.suffix != ".parquet":
        return read_squad(first)
    _require_all_shards(files)
    raw = list(_parquet_questions(files))
    has_impossible = any(question.fields["is_impossible"] for question in raw)
    return judge_questions(_path_of(files), "2.0" if has_impossible else "1.1", raw)


def _require_all_shards(files: Sequence[Path]) -> None:
    shard = _SHARD.search(files[0].stem)
    if shard and len(files) != int(shard[2]):
        raise DataError(
            f"{files[0].parent} has {len(files)} of the {int(shard[2])} files of {_without_shard(files[0])}. Fetch the "
            "missing ones; if the folder is of the hub's cache, remove it and try again."
        )


def _path_of(files: Sequence[Path]) -> Path:
    """The file, or what the shards have in common."""
    first = files[0]
    if len(files) == 1:
        return first
    return first.with_name(f"{_SHARD.sub('', first.stem)}-*{first.suffix}") if _part_of(first.stem) else first.parent


# --- Parquet -----------------------------------------------------------------------------------------------------


def _parquet_questions(files: Sequence[Path]) -> Iterator[RawQuestion]:
    """The rows of the shards; equal contexts and titles become one object."""
    same: dict[str, str] = {}
    for file in files:
        for number, row in enumerate(_parquet_rows(file), start=1):
            for name in ("context", "title"):
                if isinstance(row[name], str):
                    row[name] = same.setdefault(row[name], row[name])
            place = f"row {number}" if len(files) == 1 else f"{file.name}, row {number}"
            yield _raw_question(place, row)


def _raw_question(place: str, row: Mapping[str, Any]) -> RawQuestion:
    title, context, answers = row["title"], row["context"], row["answers"]
    if not title:
        title = untitled(context) if isinstance(context, str) else "untitled"
    fields = {name: row[name] for name in ("id", "context", "question")}
    if isinstance(answers, dict):
        texts, starts = answers.get("text") or [], answers.get("answer_start") or []
        if len(texts) != len(starts):
            reason = f"{place} has {len(texts)} answers, but {len(starts)} places where they start"
            return RawQuestion(place, str(title), fields | {"is_impossible": False}, ("wrong_type", reason))
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    return RawQuestion(place, str(title), fields | {"answers": answers, "is_impossible": answers == []})


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{file} needs pyarrow, which `pip install 'doctune[train]'` brings.") from error
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            _require_columns(file, names)
            for batch in table.iter_batches(columns=[name for name in _COLUMNS if name in names]):
                yield from ({"title": None} | row for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {_first_line(error)}.") from error


def _require_columns(file: Path, names: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in names and name != "title"]
    if missing:
        raise DataError(
            f"{file} has no column {' and no column '.join(repr(name) for name in missing)}; it has: "
            f"{', '.join(names)}. The layout is that of rajpurkar/squad on the hub: {', '.join(_COLUMNS)}."
        )


def _first_line(error: BaseException) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return first.rstrip(".")
