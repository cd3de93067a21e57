"""`load("outputs/…")`: labels for texts and files, answers to questions, from an exported `model/` folder alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doctune.decode.classification import predictions
from doctune.decode.multi_task import TargetPrediction, multi_task_predictions
from doctune.documents import Answer, Document, FilePrediction, Prediction
from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact, load_artifact
from doctune.inference.classifiers import ChunkClassifier, Classifier, TargetClassifier, WindowClassifier
from doctune.inference.nets import Net, choose_backend, open_nets
from doctune.inference.reader import Reader
from doctune.labels import Labels
from doctune.text.groups import Item, bounded_groups

CLASSIFIERS = ("classification", "hierarchical_classification")
# What is read ahead and sorted by length together: bounds memory and keeps padding low. Of long texts it is fewer, so
# that a run over them shows its results, and keeps them, as it goes.
_TEXTS_AT_ONCE = 512
_CHARS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class FileTargets:
    """What a model says of every target of one file, in their order: () where it has no text, for the document's
    reason."""

    document: Document
    predictions: tuple[TargetPrediction, ...]


class Engine:
    """A trained model, ready to use.

    Attributes:
        artifact: settings of the model folder.
        backend: what computes: "int8" and "onnx" are ONNX Runtime with quantised and with full weights.

    Args:
        artifact: settings of the model folder.
        nets: its nets by name, see `nets.open_nets`.
        backend: what they are computed by.
        batch_size: windows or chunks per forward pass at most; of long ones it takes fewer.

    Raises:
        ArtifactError: the folder's tokenizer cannot be loaded.
    """

    def __init__(self, artifact: Artifact, nets: Mapping[str, Net], backend: str, batch_size: int = 16) -> None:
        self.artifact = artifact
        self.backend = backend
        self._classifier: Classifier | None = None
        self._reader: Reader | None = None
        self._targets: TargetClassifier | None = None
        if artifact.task == "classification":
            self._classifier = WindowClassifier(artifact, nets["model"], batch_size)
        elif artifact.task == "hierarchical_classification":
            self._classifier = ChunkClassifier(artifact, nets, batch_size)
        elif artifact.task == "multi_task":
            self._targets = TargetClassifier(artifact, nets["model"], batch_size)
        else:
            self._reader = Reader(artifact, nets["model"], batch_size)

    @property
    def labels(self) -> Labels:
        """What the model tells apart.

        Raises:
            ArtifactError: the model is no classifier.
        """
        self._needs_classifier()
        return self.artifact.labels

    def predict(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """One prediction per text, in order; reads ahead a bounded number of texts.

        Raises:
            ArtifactError: the model is no classifier.
        """
        return self._predictions(self._needs_classifier(), texts)

    def _predictions(self, classifier: Classifier, texts: Iterable[str]) -> Iterator[Prediction]:
        for group in _together(texts, len):
            yield from predictions(classifier.logits(group) / self.artifact.temperature, self.artifact.labels)

    def predict_files(self, paths: Iterable[str | Path]) -> Iterator[FilePrediction]:
        """One record per file, in the order given; folders are walked in name order, links in them are not followed.

        A file that cannot be read has a document with the reason, and no prediction.

        Raises:
            ArtifactError: the model is no classifier.
            DataError: there is no such file or folder.
        """
        from doctune.text.sandbox import extract_files
        from doctune.text.walk import walk_files

        self._needs_classifier()
        files = walk_files([Path(path) for path in paths])
        return self.predict_documents(extract_files(files, self.artifact.extract))

    def predict_documents(self, documents: Iterable[Document]) -> Iterator[FilePrediction]:
        """One record per document, in order; those without text have no prediction.

        Raises:
            ArtifactError: the model is no classifier.
        """
        for group in _together(documents, lambda document: len(document.text)):
            found = self.predict([document.text for document in group if document.status == "ok"])
            for document in group:
                yield FilePrediction(document, next(found) if document.status == "ok" else None)

    def predict_targets(self, texts: Iterable[str]) -> Iterator[tuple[TargetPrediction, ...]]:
        """What the model says of every target of each text, in order; reads ahead a bounded number of texts.

        Raises:
            ArtifactError: the model does not tell several targets.
        """
        if self._targets is None:
            raise ArtifactError(
                f"{self.artifact.folder} was trained for {self.artifact.task}; several targets need a run with "
                "data=emotions or other data of kind multi_task."
            )
        return self._target_predictions(self._targets, texts)

    def _target_predictions(
        self, classifier: TargetClassifier, texts: Iterable[str]
    ) -> Iterator[tuple[TargetPrediction, ...]]:
        targets = self.artifact.targets
        thresholds = {each.spec.name: each.thresholds for each in targets if each.thresholds is not None}
        for group in _together(texts, len):
            yield from multi_task_predictions([each.spec for each in targets], classifier.logits(group), thresholds)

    def predict_target_documents(self, documents: Iterable[Document]) -> Iterator[FileTargets]:
        """One record per document, in order; those without text have no predictions.

        Raises:
            ArtifactError: the model does not tell several targets.
        """
        for group in _together(documents, lambda document: len(document.text)):
            found = self.predict_targets([document.text for document in group if document.status == "ok"])
            for document in group:
                yield FileTargets(document, next(found) if document.status == "ok" else ())

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the net gives for each text, (N, L) in order, before the temperature.

        Raises:
            ArtifactError: the model is no classifier.
        """
        return self._needs_classifier().logits(texts)

    def ask(self, question: str, text: str, n_best: int = 1, threshold: float | None = None) -> list[Answer]:
        """The best answers to one question from one text, see `answer_all`."""
        return self.answer_all([question], [Document("", "ok", "", "text", text)], n_best, threshold)[0]

    def answer_all(
        self, questions: Sequence[str], documents: Iterable[Document], n_best: int = 1, threshold: float | None = None
    ) -> list[list[Answer]]:
        """The best answers to each question from all documents together, see `Reader.answer_all`.

        Raises:
            ArtifactError: the model is no reader.
        """
        if self._reader is None:
            raise ArtifactError(
                f"{self.artifact.folder} was trained for {self.artifact.task}; questions need a reader, which a run "
                "with data=squad trains."
            )
        return self._reader.answer_all(questions, documents, n_best, threshold)

    def _needs_classifier(self) -> Classifier:
        if self._classifier is None:
            if self.artifact.targets:
                names = ", ".join(target.spec.name for target in self.artifact.targets)
                raise ArtifactError(
                    f"{self.artifact.folder} tells several targets ({names}), where a classifier with one head is "
                    "needed. What it tells: `doctune predict`, `Engine.predict_targets`."
                )
            raise ArtifactError(
                f"{self.artifact.folder} was trained for {self.artifact.task}; labels need a classifier, which a run "
                "with data=ifmos or data=chunks trains."
            )
        return self._classifier


def _together(items: Iterable[Item], num_chars: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Neighbouring items that are read ahead together, in order."""
    return bounded_groups(items, num_chars, max_items=_TEXTS_AT_ONCE, max_chars=_CHARS_AT_ONCE)


def load(run: str | Path, *, backend: str | None = None, batch_size: int = 16) -> Engine:
    """The model of a run folder or of a `model/` folder, ready to use.

    Args:
        run: the folder.
        backend: "int8", "onnx" or "torch"; None takes the first of them for which the folder has a net.
        batch_size: windows or chunks per forward pass at most; of long ones it takes fewer.

    Raises:
        ArtifactError: there is no usable model, or none for this backend.
    """
    artifact = load_artifact(Path(run))
    backend = choose_backend(artifact, backend)
    return Engine(artifact, open_nets(artifact, backend), backend, batch_size)
