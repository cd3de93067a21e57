"""What is evaluated: a part of a run, predicted again from its files, or new labelled files; and what to choose by.

Shapes: N documents, L labels.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from doctune.corpus.duplicates import DEFAULT_THRESHOLD
from doctune.corpus.manifest import Manifest, read_manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.decode.classification import probabilities
from doctune.errors import ArtifactError, DataError, DoctuneError
from doctune.inference.judged import (
    JudgedDocument,
    JudgedFiles,
    LabelledFile,
    Unjudged,
    content_id,
    is_content_of,
    judge_files,
    read_as_trained,
)
from doctune.labels import Labels
from doctune.reports.numbers import counted
from doctune.reports.records import Predictions, read_predictions, read_table
from doctune.reports.verdict import PART_WORDS

if TYPE_CHECKING:
    from doctune.corpus.store import TextStore
    from doctune.inference.engine import Engine

LABELS_SHOWN = 20
GONE = ("gone", "changed")


@dataclass(frozen=True)
class Copies:
    """Which documents `(N,)` have a near-copy among the others, and which one in training; None: it is not known."""

    has_copy: NDArray[np.bool_] | None = None
    in_training: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Evaluated:
    """Documents with their labels, and what the exported model says of them.

    Attributes:
        name: "test", "val", or the name of the manifest; that of the folder, too.
        source: the run's part or the manifest, in words.
        part: of the run, None for a manifest.
        backend: what computed the probabilities; "stored" where they are those of the run's files.
        documents: those that were judged, N of them.
        truth: label ids, (N,).
        probabilities: before the temperature, (N, L).
        unjudged: all other files.
        copies: near-duplicates.
        agreement: how many labels equal those that the run stored; None for a manifest and stored ones.
        notes: what a reader must know of all that.
    """

    name: str
    source: str
    part: str | None
    backend: str
    labels: Labels
    documents: tuple[JudgedDocument, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    unjudged: tuple[Unjudged, ...]
    copies: Copies
    agreement: int | None
    notes: tuple[str, ...]


def evaluate_part(engine: Engine, run: Path, part: str) -> Evaluated:
    """The documents of a run's part, predicted again from their files; from stored probabilities where all are gone.

    Raises:
        ArtifactError: the run has no such part, or a file of it cannot be read.
    """
    labels = engine.artifact.labels
    stored = stored_part(run, part, labels)
    files = _files_of(stored, labels, _confidences(run))
    with _empty_store(engine) as store:
        judged = judge_files(engine, files, store)
    missing = [each for each in judged.unjudged if each.status in GONE]
    if len(missing) == len(files):
        return _from_stored(run, part, labels, stored, files)
    _require_documents(judged, f"the {PART_WORDS[part]} part of {run}")
    chances = _chances(judged.logits, judged.documents)
    same = int((chances.argmax(axis=1) == stored.predicted[judged.places]).sum())
    return Evaluated(
        name=part,
        source=f"the {PART_WORDS[part]} part of the run",
        part=part,
        backend=engine.backend,
        labels=labels,
        documents=judged.documents,
        truth=stored.truth[judged.places],
        probabilities=chances,
        unjudged=judged.unjudged,
        copies=_copies_in_run(run, [stored.ids[place] for place in judged.places]),
        agreement=same,
        notes=(*_missing_note(missing, len(files)), *_agreement_note(same, len(judged.documents))),
    )


def evaluate_manifest(
    engine: Engine, run: Path | None, source: Path, columns: ManifestColumns | None = None
) -> Evaluated:
    """New labelled files: a manifest of any kind, or a folder with a folder per class.

    Args:
        engine: a classifier.
        run: its run folder, whose training documents are compared; None where only the model is there.
        source: the manifest.
        columns: the names of its columns; by default path, label and confidence.

    Raises:
        DataError: the manifest cannot be read, has labels that the model does not know, or none of its files has text.
    """
    labels = engine.artifact.labels
    with _empty_store(engine) as store:
        manifest = read_manifest(source, columns=columns, min_classes=1, texts=store.cache / "rows")
        _refuse_unknown(manifest, labels)
        has_confidence = any(row.confidence < 1 for row in manifest.rows)
        files = [
            LabelledFile(row.path, row.label, confidence=row.confidence if has_confidence else None)
            for row in manifest.rows
        ]
        judged = judge_files(engine, files, store)
        _require_documents(judged, source)
        copies, notes = _copies_of(judged, run, store, engine)
    rejected = tuple(Unjudged(bad.path, bad.label, "rejected", bad.reason) for bad in manifest.rejected)
    return Evaluated(
        name=manifest_name(source),
        source=str(source),
        part=None,
        backend=engine.backend,
        labels=labels,
        documents=judged.documents,
        truth=np.asarray(labels.encode([document.label for document in judged.documents]), np.int64),
        probabilities=_chances(judged.logits, judged.documents),
        unjudged=(*judged.unjudged, *rejected),
        copies=copies,
        agreement=None,
        notes=tuple(notes),
    )


def manifest_name(source: Path) -> str:
    """What an evaluation on a file or folder is called: its name, told apart from the parts of a run."""
    name = source.resolve().stem
    return f"{name}-manifest" if name in PART_WORDS else name


def stored_part(run: Path, part: str, labels: Labels) -> Predictions:
    """What a run stored of a part.

    Raises:
        ArtifactError: it has no documents of it, or its file is missing or damaged.
    """
    path = run / "predictions" / f"{part}.parquet"
    found = read_predictions(path, labels) if path.is_file() else None
    if found is None:
        others = [
            other for other in PART_WORDS if other != part and (run / "predictions" / f"{other}.parquet").is_file()
        ]
        instead = f"--split {others[0]}, or new labelled files with --manifest" if others else "--manifest FILE"
        raise ArtifactError(f"{run} has no {PART_WORDS[part]} documents ({path} holds none). Use {instead}.")
    return found


# --- a run's own part --------------------------------------------------------------------------------------------


def _files_of(stored: Predictions, labels: Labels, confidences: Mapping[str, float]) -> list[LabelledFile]:
    rows = zip(stored.ids, stored.paths, stored.truth.tolist(), strict=True)
    return [LabelledFile(Path(path), labels.names[truth], name, confidences.get(path)) for name, path, truth in rows]


def _from_stored(run: Path, part: str, labels: Labels, stored: Predictions, files: Sequence[LabelledFile]) -> Evaluated:
    """The stored probabilities: the model itself is not judged."""
    documents = tuple(
        JudgedDocument(
            str(file.path), file.label, "", None, file.path.suffix.lstrip(".").lower(), "", "", file.confidence
        )
        for file in files
    )
    note = (
        f"None of the {len(files):,} files is there any more as the run read it, so the probabilities are those that "
        "the run stored: what is scored is the training loop's model, not the exported one."
    )
    return Evaluated(
        name=part,
        source=f"the {PART_WORDS[part]} part of the run",
        part=part,
        backend="stored",
        labels=labels,
        documents=documents,
        truth=stored.truth,
        probabilities=_known(stored.probabilities.astype(np.float64), documents),
        unjudged=(),
        copies=_copies_in_run(run, stored.ids),
        agreement=None,
        notes=(note,),
    )


def _missing_note(missing: Sequence[Unjudged], total: int) -> list[str]:
    if not missing:
        return []
    counts = Counter(each.status for each in missing)
    words = " and ".join(f"{counts[status]:,} {status}" for status in GONE if counts[status])
    return [f"Of the {counted(total, 'file')} of this part {words} since the run: they are not judged."]


def _agreement_note(same: int, total: int) -> list[str]:
    if same == total:
        return []
    return [f"{total - same:,} of {total:,} labels differ from those that the run stored."]


def _copies_in_run(run: Path, ids: Sequence[str]) -> Copies:
    """Near-duplicates as the run grouped its documents; nothing where it did not write its split."""
    path = run / "data" / "splits.parquet"
    if not path.is_file():
        return Copies()
    rows = read_table(path, ("id", "group", "part")).select(("id", "group", "part")).to_pydict()
    group_of = dict(zip(rows["id"], rows["group"], strict=True))
    members = Counter(rows["group"])
    trained = {group for group, part in zip(rows["group"], rows["part"], strict=True) if part == "train"}
    groups = [group_of.get(name) for name in ids]
    return Copies(
        np.array([group is not None and members[group] > 1 for group in groups]),
        np.array([group in trained for group in groups]),
    )


def _confidences(run: Path) -> dict[str, float]:
    """How sure the run's manifest was of each label, by path; nothing where it is gone or says nothing."""
    data = _data_config(run)
    if not data.get("manifest"):
        return {}
    names = {name: data.get(f"{name}_column") or name for name in ("path", "label", "confidence")}
    root = Path(data["root"]) if data.get("root") else None
    try:
        manifest = read_manifest(
            Path(data["manifest"]), columns=ManifestColumns(**names), root=root, query=data.get("query"), min_classes=1
        )
    except DoctuneError:  # the manifest has changed or gone; its confidences are an extra
        return {}
    if all(row.confidence == 1 for row in manifest.rows):
        return {}
    return {str(row.path): row.confidence for row in manifest.rows}


def _data_config(run: Path) -> Mapping[str, Any]:
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        return {}
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return (config or {}).get("data") or {}


# --- new labelled files ------------------------------------------------------------------------------------------


def _refuse_unknown(manifest: Manifest, labels: Labels) -> None:
    """A label that the model cannot give would only count as wrong: most often it is written otherwise."""
    unknown = Counter(row.label for row in manifest.rows if row.label not in labels.names)
    if not unknown:
        return
    shown = ", ".join(f"{label!r} ({count:,})" for label, count in unknown.most_common(LABELS_SHOWN))
    more = f" and {len(unknown) - LABELS_SHOWN} more" if len(unknown) > LABELS_SHOWN else ""
    names = ", ".join(labels.names[:LABELS_SHOWN]) + (", …" if len(labels) > LABELS_SHOWN else "")
    raise DataError(
        f"{manifest.source} has {counted(len(unknown), 'label')} that the model cannot give: {shown}{more}. It knows "
        f"{len(labels)}: {names}. Write them as the model does, or take these rows out."
    )


def _require_documents(judged: JudgedFiles, source: Path | str) -> None:
    if not judged.documents:
        counts = Counter(each.status for each in judged.unjudged)
        words = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
        first = judged.unjudged[0]
        raise DataError(
            f"None of the files of {source} can be judged ({words}). The first: {first.path}: {first.reason}."
        )


def _copies_of(judged: JudgedFiles, run: Path | None, store: TextStore, engine: Engine) -> tuple[Copies, list[str]]:
    """Near-duplicates among the new documents, and between them and those of training that are still there."""
    from doctune.corpus.grouping import groups_of

    own = [document.content for document in judged.documents]
    ids, trained, notes = _training(run, store, engine)
    groups = groups_of(store, [*own, *trained], DEFAULT_THRESHOLD).near
    members = Counter(groups[: len(own)])
    has_copy = np.array([members[group] > 1 for group in groups[: len(own)]])
    if run is None or not ids:
        return Copies(has_copy), notes
    trained_groups = set(groups[len(own) :])
    in_training = np.array(
        [group in trained_groups or content_id(content) in ids for group, content in zip(groups, own, strict=False)]
    )
    return Copies(has_copy, in_training), notes


def _training(run: Path | None, store: TextStore, engine: Engine) -> tuple[set[str], list[str], list[str]]:
    """The training documents of a run: their ids, the contents of those that are still there, and what to say."""
    path = run / "data" / "splits.parquet" if run else None
    if path is None or not path.is_file():
        said = "There is no data/splits.parquet beside the model, so nothing is known of near-copies in training."
        return set(), [], [said]
    rows = [row for row in read_table(path, ("id", "path", "part")).to_pylist() if row["part"] == "train"]
    entries = store.fill([Path(row["path"]) for row in rows], lambda paths: read_as_trained(paths, engine))
    found = [
        entry.content
        for row, entry in zip(rows, entries, strict=True)
        if entry.content is not None and entry.status == "ok" and is_content_of(row["id"], entry.content)
    ]
    ids = {row["id"].split("-")[0] for row in rows}
    if len(found) == len(rows):
        return ids, found, []
    note = (
        f"Training documents that are gone or changed: {len(rows) - len(found):,} of {len(rows):,}. Of those only "
        "exact copies were looked for, not near-copies."
    )
    return ids, found, [note]


# --- both --------------------------------------------------------------------------------------------------------


@contextmanager
def _empty_store(engine: Engine) -> Iterator[TextStore]:
    """A text store that is gone afterwards: what is judged was read just now, not by some earlier run."""
    from doctune.corpus.store import TextStore

    with tempfile.TemporaryDirectory(prefix="doctune-", ignore_cleanup_errors=True) as folder:
        yield TextStore(Path(folder), engine.artifact.extract.key())


def _chances(logits: NDArray[np.float32], documents: Sequence[JudgedDocument]) -> NDArray[np.float64]:
    return _known(probabilities(logits), documents)


def _known(chances: NDArray[np.float64], documents: Sequence[JudgedDocument]) -> NDArray[np.float64]:
    """The same probabilities.

    Raises:
        ArtifactError: some are no numbers.
    """
    broken = np.flatnonzero(~np.isfinite(chances).all(axis=1))
    if len(broken):
        raise ArtifactError(
            f"The model gives no numbers (NaN) for {counted(len(broken), 'document')}, such as "
            f"{documents[broken[0]].path}: its training has diverged. Train again with a lower optim.lr."
        )
    return chances
