"""Explains a document's label or answer with the weights of a model folder, which torch must compute.

The baseline (Sundararajan et al. 2017, section 3) is the same text with padding in place of every token that is not a
special one: as long, and without a word.

Shapes: S steps, C chunks of a document, T tokens, K scores, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from textwrap import shorten
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from doctune.decode.classification import predictions, probabilities
from doctune.decode.multi_task import TargetPrediction, target_predictions, target_probabilities
from doctune.documents import Answer, Document, Prediction
from doctune.inference.artifact import Artifact, TargetSettings, load_tokenizer
from doctune.inference.attribution import TokenAttributions, attribute
from doctune.inference.explanation import Attribution, ChunkWeight, Explanation, Passage, Piece, passage
from doctune.inference.graphs import TorchNet, graphs
from doctune.inference.reader import Reader
from doctune.labels import Labels
from doctune.text.chunks import Chunk, chunk
from doctune.text.questions import QuestionWindow

NO_ANSWER = (
    "The model gives no answer here: that there is none is likely enough. Explained is the best one that it held back."
)
_OPENING_CHARS = 80

# Scores (K,) -> what becomes of them among their rivals, (K,).
Chances = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Wanted:
    """What is to be explained, and how closely.

    Attributes:
        label: None takes the predicted one.
        target: of a model that tells several; None takes its first one.
        question: for a reader.
        steps: of the integral, to begin with.
        top_chunks: so many chunks of a long document are explained token by token, those that count most.
    """

    label: str | None = None
    target: str | None = None
    question: str | None = None
    steps: int = 50
    top_chunks: int = 3


class Explainer(Protocol):
    """Explains one document after the other."""

    def explain(self, document: Document) -> Explanation | None:
        """Why the document has its label or answer; None where its text has no token that could be the reason."""


def load_explainer(artifact: Artifact, wanted: Wanted) -> Explainer:
    """The explainer for a model's task.

    Raises:
        ArtifactError: the folder's weights or tokenizer cannot be loaded.
    """
    if artifact.targets:
        return TargetExplainer(artifact, wanted)
    if artifact.task == "question_answering":
        return AnswerExplainer(artifact, wanted)
    if artifact.task == "hierarchical_classification":
        return ChunkExplainer(artifact, wanted)
    return LabelExplainer(artifact, wanted)


@dataclass(frozen=True)
class _Place:
    """A token that has a place in the text: its number in the window, and its characters."""

    token: int
    start: int
    end: int


class LabelExplainer:
    """Explains the label of a text that is read in one window."""

    def __init__(self, artifact: Artifact, wanted: Wanted) -> None:
        self._artifact = artifact
        self._wanted = wanted
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        (graph,) = graphs(artifact)
        self._net = _frozen(graph.module)

    def explain(self, document: Document) -> Explanation | None:
        """See `Explainer`."""
        ids, places = self._window(document.text)
        if not places:
            return None
        with torch.no_grad():
            outcome, predicted = self._outcome(self._scores(ids.unsqueeze(0)))
        label = self._wanted.label or predicted
        index = self._labels.names.index(label)
        baseline = _baseline(ids, places, self._special.pad)
        found = attribute(self._scores, _word_embeddings(self._net), ids, baseline, index, steps=self._wanted.steps)
        read = (_passage("text", document.text, places, found),)
        attribution = _attribution(self._scalar(label), found, index, self._chances, read)
        return _explanation(document, outcome, label, (attribution,))

    def _scores(self, ids: Tensor) -> Tensor:
        """Logits (S, L) of windows (S, T)."""
        logits: Tensor = self._net(ids, torch.ones_like(ids))
        return logits

    @property
    def _labels(self) -> Labels:
        return self._artifact.labels

    def _outcome(self, logits: Tensor) -> tuple[Prediction | TargetPrediction, str]:
        """What the logits (1, L) say, and the label that is explained unless another one is wanted."""
        prediction = _prediction(logits, self._artifact)
        return prediction, prediction.label

    def _scalar(self, label: str) -> str:
        return _logit_words(label)

    def _chances(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities(scores / self._artifact.temperature)

    def _window(self, text: str) -> tuple[Tensor, list[_Place]]:
        """The window that prediction reads, see `doctune.text.windows`: ids (T,), and the tokens that have a place."""
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._artifact.max_length)
        encoding = self._tokenizer.encode(text)
        is_text = [not special for special in encoding.special_tokens_mask]
        places = [_Place(token, *encoding.offsets[token]) for token in np.flatnonzero(is_text).tolist()]
        return torch.tensor(encoding.ids), places


class TargetExplainer(LabelExplainer):
    """Explains a label of one target of a model that tells several."""

    def __init__(self, artifact: Artifact, wanted: Wanted) -> None:
        super().__init__(artifact, wanted)
        names = [target.spec.name for target in artifact.targets]
        self._head = 0 if wanted.target is None else names.index(wanted.target)

    def _scores(self, ids: Tensor) -> Tensor:
        logits: tuple[Tensor, ...] = self._net(ids, torch.ones_like(ids))
        return logits[self._head]

    @property
    def _target(self) -> TargetSettings:
        return self._artifact.targets[self._head]

    @property
    def _labels(self) -> Labels:
        return self._target.spec.labels

    def _outcome(self, logits: Tensor) -> tuple[TargetPrediction, str]:
        """Where no label applies the most probable one is explained."""
        (prediction,) = target_predictions(self._target.spec, logits.double().numpy(), self._target.thresholds)
        most_probable = self._labels.names[int(np.argmax(prediction.probabilities))]
        return prediction, prediction.labels[0] if prediction.labels else most_probable

    def _scalar(self, label: str) -> str:
        return f"{_logit_words(label)} of the target {self._target.spec.name!r}"

    def _chances(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return target_probabilities(self._target.spec, scores)


class ChunkExplainer:
    """Explains the label of a long document: how much each chunk counts, then what its tokens add.

    What is explained inside a chunk is the document's logit, the vectors of the other chunks held fixed.
    """

    def __init__(self, artifact: Artifact, wanted: Wanted) -> None:
        assert artifact.chunks is not None, "only a classifier of long documents comes here"
        self._artifact = artifact
        self._settings = artifact.chunks
        self._wanted = wanted
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        nets = {graph.name: _frozen(graph.module) for graph in graphs(artifact)}
        self._encoder, self._pooling = nets["encoder"], nets["pooling"]

    def explain(self, document: Document) -> Explanation | None:
        """See `Explainer`."""
        (cut_up,) = chunk(self._tokenizer, [document.text], **asdict(self._settings))
        if cut_up.chunks[0].end == 0:
            return None
        with torch.no_grad():
            vectors = torch.cat([self._encode(torch.tensor([each.ids])) for each in cut_up.chunks])  # (C, D)
            logits, weights = self._pool(vectors.unsqueeze(0))
        prediction = _prediction(logits, self._artifact)
        label = self._wanted.label or prediction.label
        ranked = _ranked(cut_up.chunks, weights[0].tolist(), document.text)
        explained = [
            self._in_chunk(document.text, cut_up.chunks, each.number - 1, vectors, label)
            for each in ranked[: self._wanted.top_chunks]
        ]
        return _explanation(document, prediction, label, tuple(explained), chunks=ranked)

    def _in_chunk(self, text: str, chunks: Sequence[Chunk], number: int, vectors: Tensor, label: str) -> Attribution:
        ids = torch.tensor(chunks[number].ids)
        places = chunk_places(self._tokenizer, text, chunks[number])

        def scores(ids: Tensor) -> Tensor:
            """Logits (S, L) of the document with this chunk as (S, T)."""
            document = vectors.repeat(len(ids), 1, 1)  # (S, C, D)
            document[:, number] = self._encode(ids)
            return self._pool(document)[0]

        found = attribute(
            scores,
            _word_embeddings(self._encoder),
            ids,
            _baseline(ids, places, self._special.pad),
            self._artifact.labels.names.index(label),
            steps=self._wanted.steps,
        )
        read = (_passage(f"chunk {number + 1}", text, places, found),)
        scalar = f"{_logit_words(label)} from chunk {number + 1}, the other chunks held fixed"
        index, temperature = self._artifact.labels.names.index(label), self._artifact.temperature
        return _attribution(scalar, found, index, lambda scores: probabilities(scores / temperature), read)

    def _encode(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self._encoder(ids, torch.ones_like(ids))
        return vectors

    def _pool(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (S, L) and weights (S, C) of documents (S, C, D)."""
        pooled: tuple[Tensor, Tensor] = self._pooling(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))
        return pooled


class AnswerExplainer:
    """Explains the best answer of a reader: its first and its last token, each by its own logit.

    Of the windows that hold the whole answer it is the one that gives it the highest score.
    """

    def __init__(self, artifact: Artifact, wanted: Wanted) -> None:
        assert wanted.question is not None, "a reader is asked a question"
        self._question = wanted.question.strip()
        self._steps = wanted.steps
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        (graph,) = graphs(artifact)
        self._reader = Reader(artifact, TorchNet(graph))
        self._net = _frozen(graph.module)
        self._takes_types = "token_type_ids" in graph.inputs

    def explain(self, document: Document) -> Explanation | None:
        """See `Explainer`."""
        answer, notes = self._best(document)
        if answer is None:
            return None
        shift, window, span = self._best_window(document.text, answer)
        explained = tuple(
            self._of_token(document.text, answer, shift, window, token, which) for which, token in enumerate(span)
        )
        return _explanation(document, answer, self._question, explained, notes=notes)

    def _of_token(
        self, text: str, answer: Answer, shift: int, window: QuestionWindow, token: int, which: int
    ) -> Attribution:
        """What makes a token the first (`which` is 0) or the last one (1) of the answer."""
        question = self._question_places(window)
        inside = np.flatnonzero(window.places[:, 0] >= 0).tolist()
        context = [_Place(place, *(window.places[place] + shift).tolist()) for place in inside]
        ids = _ids(window)
        found = attribute(
            lambda ids: self._logits(ids, window)[which],
            _word_embeddings(self._net),
            ids,
            _baseline(ids, [*question, *context], self._special.pad),
            token,
            steps=self._steps,
        )
        passages = [_passage("context", text, context, found)]
        if question:
            passages.insert(0, _passage("question", self._question, question, found))
        scalar = f"logit of the {('start', 'end')[which]} of the answer {answer.text!r}"
        return _attribution(scalar, found, token, probabilities, tuple(passages))

    def _best(self, document: Document) -> tuple[Answer | None, tuple[str, ...]]:
        """The best answer, given or not, with what is to be said if it is not; None in a text without words."""
        (given,) = self._reader.answer_all([self._question], [document])
        if given:
            return given[0], ()
        (held_back,) = self._reader.answer_all([self._question], [document], threshold=0.0)
        return (held_back[0], (NO_ANSWER,)) if held_back else (None, ())

    def _best_window(self, text: str, answer: Answer) -> tuple[int, QuestionWindow, tuple[int, int]]:
        """The place in the text from which the window's places count, the window, and the answer's tokens in it."""
        found = [
            (shift, window, span)
            for shift, window in self._reader.windows(self._question, text)
            if (span := window.target(answer.start - shift, answer.end - shift))
        ]
        return max(found, key=lambda each: self._span_score(each[1], each[2]))

    def _span_score(self, window: QuestionWindow, span: tuple[int, int]) -> float:
        with torch.no_grad():
            starts, ends = self._logits(_ids(window).unsqueeze(0), window)
        return float(starts[0, span[0]] + ends[0, span[1]])

    def _logits(self, ids: Tensor, window: QuestionWindow) -> tuple[Tensor, Tensor]:
        """Start and end logits (S, T) of windows (S, T) that differ from this one in their ids at most."""
        inputs = [ids, torch.ones_like(ids)]
        if self._takes_types:
            inputs.append(torch.from_numpy(window.types.astype(np.int64)).expand_as(ids))
        logits: tuple[Tensor, Tensor] = self._net(*inputs)
        return logits

    def _question_places(self, window: QuestionWindow) -> list[_Place]:
        """The tokens of the question in a window, with their characters in the question.

        A question that was cut may end in a token that the whole one does not have; it is left as it is.
        """
        encoding = _encoded(self._tokenizer, self._question)
        outside = np.flatnonzero(window.places[:, 0] < 0)
        first, length = _longest_beginning(window.ids[outside].tolist(), encoding.ids)
        tokens = outside[first : first + length].tolist()
        return [_Place(token, *place) for token, place in zip(tokens, encoding.offsets[:length], strict=True)]


def chunk_places(tokenizer: Tokenizer, text: str, piece: Chunk) -> list[_Place]:
    """The tokens of a chunk that are not special ones, with their characters in the text.

    A chunk keeps no places of tokens, so its part of the text is tokenised again: from the blank before it up to the
    one after it, across which no tokenizer of an encoder looks, or else the whole text.

    Raises:
        ValueError: the chunk is not of this text.
    """
    sample = tokenizer.encode("a").special_tokens_mask
    num_before, num_after = sample.index(0), sample[::-1].index(0)
    inside = list(piece.ids[num_before : len(piece.ids) - num_after])
    blank = text.find(" ", piece.end)
    near = (max(0, text.rfind(" ", 0, piece.start)), len(text) if blank < 0 else blank)
    for begin, end in (near, (0, len(text))):
        encoding = _encoded(tokenizer, text[begin:end])
        for first, (start, _) in enumerate(encoding.offsets):
            if begin + start == piece.start and encoding.ids[first : first + len(inside)] == inside:
                places = encoding.offsets[first : first + len(inside)]
                return [
                    _Place(num_before + number, begin + start, begin + end)
                    for number, (start, end) in enumerate(places)
                ]
    raise ValueError(f"the chunk at characters {piece.start} to {piece.end} is not of this text.")


def _encoded(tokenizer: Tokenizer, text: str) -> Encoding:
    """All tokens of a text, without special ones."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.encode(text, add_special_tokens=False)


def _longest_beginning(tokens: Sequence[int], wanted: Sequence[int]) -> tuple[int, int]:
    """Where the longest beginning of what is wanted stands in a row of tokens, and how long it is."""
    lengths = [_num_common(tokens[first:], wanted) for first in range(len(tokens))]
    length = max(lengths, default=0)
    return (lengths.index(length), length) if length else (0, 0)


def _num_common(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two rows have in common from their beginnings on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, others, strict=False)))


def _ids(window: QuestionWindow) -> Tensor:
    return torch.from_numpy(window.ids.astype(np.int64))


def _frozen(module: nn.Module) -> nn.Module:
    """The net without gradients of its weights, of which nobody asks."""
    return module.eval().requires_grad_(False)


def _word_embeddings(module: nn.Module) -> nn.Module:
    encoder = next(each for each in module.modules() if isinstance(each, PreTrainedModel))
    layer: nn.Module = encoder.get_input_embeddings()
    return layer


def _baseline(ids: Tensor, places: Sequence[_Place], pad: int) -> Tensor:
    """Ids (T,) with padding in every place of the text."""
    baseline = ids.clone()
    baseline[[place.token for place in places]] = pad
    return baseline


def _prediction(logits: Tensor, artifact: Artifact) -> Prediction:
    """What is predicted from the logits (1, L) of a document."""
    return predictions(logits.double().numpy() / artifact.temperature, artifact.labels)[0]


def _ranked(chunks: Sequence[Chunk], weights: Sequence[float], text: str) -> tuple[ChunkWeight, ...]:
    """The chunks, those that count most first, and of equal ones the earlier."""
    found = [
        ChunkWeight(number, weight, piece.start, piece.end, _opening(text[piece.start : piece.end]))
        for number, (piece, weight) in enumerate(zip(chunks, weights, strict=True), start=1)
    ]
    return tuple(sorted(found, key=lambda each: -each.weight))


def _opening(text: str) -> str:
    """The first words of a text."""
    return shorten(text[: 2 * _OPENING_CHARS], _OPENING_CHARS, placeholder=" …")


def _passage(name: str, text: str, places: Sequence[_Place], found: TokenAttributions) -> Passage:
    tokens = [Piece(place.start, place.end, float(found.values[place.token])) for place in places]
    return passage(name, text, tokens)


def _logit_words(label: str) -> str:
    return f"logit of the label {label!r}"


def _attribution(
    scalar: str, found: TokenAttributions, index: int, chances: Chances, passages: tuple[Passage, ...]
) -> Attribution:
    at_text, at_baseline = (float(chances(scores)[index]) for scores in (found.scores, found.baseline_scores))
    return Attribution(scalar, at_text, at_baseline, found.completeness, passages)


def _explanation(
    document: Document,
    outcome: Prediction | TargetPrediction | Answer,
    subject: str,
    attributions: tuple[Attribution, ...],
    chunks: tuple[ChunkWeight, ...] = (),
    notes: tuple[str, ...] = (),
) -> Explanation:
    if document.reason:
        notes = (document.reason, *notes)
    return Explanation(document.path, len(document.text), outcome, subject, attributions, chunks, notes)
