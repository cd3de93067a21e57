"""Real examples on which nets are compared: the validation part of a run, or files that somebody names.

Shapes: N examples.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from doctune.corpus.targets import TargetSpec
from doctune.errors import ArtifactError, DataError
from doctune.inference.artifact import Artifact
from doctune.inference.engine import Engine
from doctune.labels import Labels
from doctune.scoring import multilabel
from doctune.scoring.classification import confusion_matrix, f1_macro
from doctune.scoring.squad import Version, score_answers
from doctune.text.sandbox import extract_files
from doctune.text.walk import walk_files

# Of a larger validation part a sample is judged.
MAX_EXAMPLES = 2000
# Fewer say nothing.
MIN_EXAMPLES = 5


class Examples(ABC):
    """What can be asked of an engine.

    Attributes:
        source: where they are from, in words.
        score_name: what `score` measures.
    """

    source: str
    score_name: str

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def answers(self, engine: Engine) -> list[str]:
        """The engine's label or answer for each example."""

    @abstractmethod
    def score(self, answers: Sequence[str]) -> float | None:
        """What these answers score, 0 to 1; None where the truth is not known."""

    @abstractmethod
    def spread(self, count: int) -> Self:
        """`count` of them, from the shortest to the longest at equal steps; all where there are fewer."""


@dataclass(frozen=True)
class TextExamples(Examples):
    """Texts, with their labels where they are known."""

    source: str
    labels: Labels
    texts: tuple[str, ...]
    truth: tuple[str, ...] | None = None
    score_name = "macro F1"

    def __len__(self) -> int:
        return len(self.texts)

    def answers(self, engine: Engine) -> list[str]:
        """The labels."""
        return [prediction.label for prediction in engine.predict(self.texts)]

    def score(self, answers: Sequence[str]) -> float | None:
        """Macro F1."""
        if self.truth is None:
            return None
        truth, predicted = (np.asarray(self.labels.encode(names)) for names in (self.truth, answers))
        return float(f1_macro(confusion_matrix(truth, predicted, len(self.labels))))

    def spread(self, count: int) -> TextExamples:
        """From the shortest text to the longest."""
        places = _spread([len(text) for text in self.texts], count)
        truth = self.truth and tuple(self.truth[place] for place in places)
        return replace(self, texts=tuple(self.texts[place] for place in places), truth=truth)


@dataclass(frozen=True)
class QuestionExamples(Examples):
    """Questions with their contexts and reference answers, none for those that cannot be answered."""

    source: str
    questions: tuple[str, ...]
    contexts: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    score_name = "F1"

    def __len__(self) -> int:
        return len(self.questions)

    def answers(self, engine: Engine) -> list[str]:
        """The answers' texts; an empty one for no answer."""
        found = [engine.ask(*pair) for pair in zip(self.questions, self.contexts, strict=True)]
        return [answers[0].text if answers else "" for answers in found]

    def score(self, answers: Sequence[str]) -> float | None:
        """F1 of the official metric."""
        version: Version = "1.1" if all(self.references) else "2.0"
        ids = [str(place) for place in range(len(self))]
        scores = score_answers(
            dict(zip(ids, answers, strict=True)), dict(zip(ids, self.references, strict=True)), version
        )
        return float(np.mean(scores.f1))

    def spread(self, count: int) -> QuestionExamples:
        """From the shortest context to the longest."""
        places = _spread([len(context) for context in self.contexts], count)
        return self._chosen(places)

    def _chosen(self, places: Sequence[int]) -> QuestionExamples:
        return replace(
            self,
            questions=tuple(self.questions[place] for place in places),
            contexts=tuple(self.contexts[place] for place in places),
            references=tuple(self.references[place] for place in places),
        )


@dataclass(frozen=True)
class TargetExamples(Examples):
    """Texts of several targets, with the labels of each that are known; None where a target is missing."""

    source: str
    targets: tuple[TargetSpec, ...]
    texts: tuple[str, ...]
    truth: tuple[tuple[Sequence[str] | None, ...], ...] | None = None
    score_name = "macro F1, the mean of the targets"

    def __len__(self) -> int:
        return len(self.texts)

    def answers(self, engine: Engine) -> list[str]:
        """The labels of all targets, as JSON."""
        return [json.dumps([each.labels for each in found]) for found in engine.predict_targets(self.texts)]

    def score(self, answers: Sequence[str]) -> float | None:
        """The mean of the targets' macro F1."""
        if self.truth is None:
            return None
        predicted = [json.loads(answer) for answer in answers]
        columns = zip(self.targets, zip(*self.truth, strict=True), zip(*predicted, strict=True), strict=True)
        scores = [_target_f1(*column) for column in columns]
        known = [score for score in scores if score is not None]
        return float(np.mean(known)) if known else None

    def spread(self, count: int) -> TargetExamples:
        """From the shortest text to the longest."""
        places = _spread([len(text) for text in self.texts], count)
        truth = self.truth and tuple(self.truth[place] for place in places)
        return replace(self, texts=tuple(self.texts[place] for place in places), truth=truth)


@dataclass(frozen=True)
class WrittenExamples:
    """Prompts with their answers, which a language model writes: its logits are compared, and not what it answers.

    Attributes:
        source: where they are from, in words.
        texts: (N,) pairs.
    """

    source: str
    texts: tuple[tuple[str, str], ...]

    def spread(self, count: int) -> tuple[tuple[str, str], ...]:
        """`count` pairs, from the shortest to the longest at equal steps; all where there are fewer."""
        return tuple(self.texts[place] for place in _spread([sum(map(len, pair)) for pair in self.texts], count))


def _target_f1(
    target: TargetSpec, truth: Sequence[Sequence[str] | None], predicted: Sequence[Sequence[str]]
) -> float | None:
    """Macro F1 over the texts that know a target; None where none does."""
    known = [(wanted, found) for wanted, found in zip(truth, predicted, strict=True) if wanted is not None]
    if not known:
        return None
    sets = (
        np.array([[name in row for name in target.labels.names] for row in rows]) for rows in zip(*known, strict=True)
    )
    return float(multilabel.f1_macro(multilabel.label_counts(*sets)))


def written_examples(run: Path, part: str = "val") -> WrittenExamples:
    """The conversations of a part of a run that tuned a language model.

    Raises:
        ArtifactError: the run has no such part.
    """
    columns, source = _judged(run, part)
    return WrittenExamples(source, tuple(zip(columns["prompt"], columns["reference"], strict=True)))


def validation_examples(run: Path, artifact: Artifact, part: str = "val") -> Examples:
    """The examples of a part of a run, files read again as they lie.

    Raises:
        ArtifactError: the run has no such part.
        DataError: hardly any of its files are there any more.
    """
    columns, source = _judged(run, part)
    if artifact.task == "question_answering":
        references = tuple(tuple(each) for each in columns["references"])
        return QuestionExamples(source, tuple(columns["question"]), tuple(columns["context"]), references)
    if artifact.targets:
        specs = tuple(target.spec for target in artifact.targets)
        truth = tuple(zip(*(columns[f"{spec.name}/truth"] for spec in specs), strict=True))
        return TargetExamples(source, specs, tuple(columns["text"]), truth)
    return _read(source, artifact, [Path(each) for each in columns["path"]], columns["truth"])


def _judged(run: Path, part: str) -> tuple[dict[str, list[Any]], str]:
    """The columns of a sample of a part's rows, and what they are."""
    import pyarrow.parquet as pq

    path = run / "predictions" / f"{part}.parquet"
    if not path.is_file():
        raise ArtifactError(
            f"{path} is not there: without a run there are no real documents to compare on. Name some with "
            "--documents PATH…."
        )
    rows = pq.read_table(path)
    places = sorted(random.Random(0).sample(range(rows.num_rows), min(rows.num_rows, MAX_EXAMPLES)))
    return rows.take(places).to_pydict(), f"the {part} part of {run}"


def file_examples(paths: Sequence[Path], artifact: Artifact) -> Examples:
    """The texts of files and folders, whose labels are not known.

    Raises:
        ArtifactError: the model is a reader.
        DataError: there is no such file or folder, or hardly any has text.
    """
    if artifact.task == "question_answering":
        raise ArtifactError("A reader is compared on the questions of its run: leave out --documents.")
    found = _read("the documents named", artifact, [*walk_files(paths)], None)
    if artifact.targets:
        return TargetExamples(found.source, tuple(target.spec for target in artifact.targets), found.texts)
    return found


def _read(source: str, artifact: Artifact, paths: Sequence[Path], truth: Sequence[str] | None) -> TextExamples:
    documents = list(extract_files(paths, artifact.extract))
    places = [place for place, document in enumerate(documents) if document.status == "ok"]
    if len(places) < MIN_EXAMPLES:
        raise DataError(
            f"Of {len(paths)} files of {source} {len(places)} can be read; at least {MIN_EXAMPLES} real documents are "
            "needed to compare on. Name some with --documents PATH…."
        )
    texts = tuple(documents[place].text for place in places)
    labels = None if truth is None else tuple(truth[place] for place in places)
    return TextExamples(source, artifact.labels, texts, labels)


def _spread(lengths: Sequence[int], count: int) -> list[int]:
    """Which examples are the shortest, the longest and `count - 2` between them at equal steps by rank."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    if len(order) <= count:
        return order
    return [order[round(step)] for step in np.linspace(0, len(order) - 1, count)]
