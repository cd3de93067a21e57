"""Documents -> rows with their labels, by a model alone or by a cascade in which it is one stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctune.documents import Document, FilePrediction, Prediction
from doctune.text.groups import bounded_groups

if TYPE_CHECKING:
    from doctune.inference.cascade import Cascade, CascadeAnswer
    from doctune.inference.engine import Engine
    from doctune.text.extract import ExtractSettings

_DIGITS = 6
LABEL_SEPARATOR = "; "
_DOCUMENTS_AT_ONCE = 256
_CHARS_AT_ONCE = 4_000_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a row of a model says: so many labels, the probabilities of all, no label below a probability."""

    top: int = 1
    probabilities: bool = False
    threshold: float = 0.0


class Labeller(ABC):
    """What gives documents their labels.

    Attributes:
        extract: how documents are to be read for it.
        columns: of its rows, in order, with their types.
        description: what must be the same for a run over many files to be gone on with.
    """

    extract: ExtractSettings
    columns: Mapping[str, type]
    description: Mapping[str, Any]

    @abstractmethod
    def rows(self, documents: Iterable[Document]) -> Iterator[Row]:
        """A row per document, in order; a bounded number of documents is held at a time."""


class ModelLabeller(Labeller):
    """A model alone.

    Raises:
        ArtifactError: it is no classifier.
    """

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._labels = engine.labels
        self.extract = engine.artifact.extract
        self.columns = self._columns()
        self.description = {**_described(engine), **asdict(wanted)}

    def rows(self, documents: Iterable[Document]) -> Iterator[Row]:
        """A row per document, in order."""
        for found in self._engine.predict_documents(documents):
            yield {
                "path": found.document.path,
                "status": found.document.status,
                **self._label_columns(found.prediction),
                "reason": self._reason(found),
            }

    def _columns(self) -> Mapping[str, type]:
        types: dict[str, type] = {"label": str, "score": float}
        ranks = range(2, min(self._wanted.top, len(self._labels)) + 1)
        return {
            **dict.fromkeys(("path", "status"), str),
            **types,
            **{f"{name}_{rank}": kind for rank in ranks for name, kind in types.items()},
            "reason": str,
            **({f"p_{name}": float for name in self._labels.names} if self._wanted.probabilities else {}),
        }

    def _label_columns(self, prediction: Prediction | None) -> Row:
        """The columns that a prediction fills; the label is None where there is none, or it is not sure enough."""
        if prediction is None:
            return {"label": None, "score": None}
        chances, names = prediction.probabilities, self._labels.names
        row: Row = {"label": prediction.label, "score": round(prediction.score, _DIGITS)}
        if prediction.score < self._wanted.threshold:
            row["label"] = None
        order = sorted(range(len(chances)), key=lambda place: (-chances[place], place))
        for rank, place in enumerate(order[1 : self._wanted.top], start=2):
            row |= {f"label_{rank}": names[place], f"score_{rank}": round(chances[place], _DIGITS)}
        if self._wanted.probabilities:
            row |= {f"p_{name}": round(chance, _DIGITS) for name, chance in zip(names, chances, strict=True)}
        return row

    def _reason(self, found: FilePrediction) -> str:
        prediction, threshold = found.prediction, self._wanted.threshold
        if prediction is None or prediction.score >= threshold:
            return found.document.reason
        return _joined(f"unsure: {prediction.label} has {prediction.score:.3f}, below {threshold:g}", found.document)


class TargetLabeller(Labeller):
    """A model that tells several targets: a column for each, with the labels that apply.

    Args:
        engine: the model.
        probabilities: whether every label of every target has a column p_TARGET_LABEL.
    """

    def __init__(self, engine: Engine, probabilities: bool) -> None:
        self._engine = engine
        self._specs = [target.spec for target in engine.artifact.targets]
        self._probabilities = probabilities
        self.extract = engine.artifact.extract
        chances = [f"p_{spec.name}_{label}" for spec in self._specs for label in spec.labels.names]
        self.columns = {
            **dict.fromkeys(("path", "status", *(spec.name for spec in self._specs), "reason"), str),
            **(dict.fromkeys(chances, float) if probabilities else {}),
        }
        self.description = {**_described(engine), "probabilities": probabilities}

    def rows(self, documents: Iterable[Document]) -> Iterator[Row]:
        """A row per document, in order."""
        for found in self._engine.predict_target_documents(documents):
            document, predictions = found.document, found.predictions
            row: Row = {"path": document.path, "status": document.status}
            row |= dict.fromkeys((spec.name for spec in self._specs), None)
            row |= {each.target: LABEL_SEPARATOR.join(each.labels) for each in predictions}
            row["reason"] = document.reason
            if self._probabilities:
                for spec, each in zip(self._specs, predictions, strict=bool(predictions)):
                    named = zip(spec.labels.names, each.probabilities, strict=True)
                    row |= {f"p_{spec.name}_{label}": round(chance, _DIGITS) for label, chance in named}
            yield row


class CascadeLabeller(Labeller):
    """Stages that are tried in order; a row says which one answered, and why the earlier ones did not."""

    columns: Mapping[str, type] = {
        "path": str,
        "status": str,
        "label": str,
        "score": float,
        "stage": str,
        "reason": str,
    }

    def __init__(self, cascade: Cascade, extract: ExtractSettings, folder: Path, configuration: str) -> None:
        self._cascade = cascade
        self.extract = extract
        self.description = {"model": str(folder.resolve()), "cascade": configuration}

    def rows(self, documents: Iterable[Document]) -> Iterator[Row]:
        """A row per document, in order."""
        groups = bounded_groups(
            documents, lambda document: len(document.text), max_items=_DOCUMENTS_AT_ONCE, max_chars=_CHARS_AT_ONCE
        )
        for group in groups:
            answers = self._cascade.predict([document.text for document in group if document.status == "ok"])
            for document in group:
                yield self._row(document, next(answers) if document.status == "ok" else None)

    @staticmethod
    def _row(document: Document, answer: CascadeAnswer | None) -> Row:
        base = {"path": document.path, "status": document.status}
        if answer is None:
            return {**base, "label": None, "score": None, "stage": None, "reason": document.reason}
        score = None if answer.score is None else round(answer.score, _DIGITS)
        reason = _joined(answer.reason, document)
        return {**base, "label": answer.label, "score": score, "stage": answer.stage, "reason": reason}


def _described(engine: Engine) -> dict[str, Any]:
    """Which weights answer."""
    folder = engine.artifact.folder
    written = max(path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file())
    return {"model": str(folder.resolve()), "written": written, "backend": engine.backend}


def _joined(reason: str, document: Document) -> str:
    """A reason, and after it what extraction had to say."""
    return "; ".join(part for part in (reason, document.reason) if part)
