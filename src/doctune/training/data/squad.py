"""Questions with their contexts -> batches of windows.

Shapes: Q questions of a part, W windows of them, B windows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from doctune.corpus.question_tokens import NO_ANSWER, UNKNOWN, QuestionTokens, tokenise_questions
from doctune.corpus.questions import QuestionCorpus
from doctune.corpus.squad import Question
from doctune.text.questions import QuestionWindow, WindowSettings
from doctune.training.data.batched import PARTS, Batch, BatchedDataModule
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.views import RandomViews

# What cross entropy passes over.
IGNORED = -100


@dataclass(frozen=True)
class TokenFacts:
    """What a tokenizer does beside cutting: its special ids, whether the encoder wants token types, where it pads."""

    pad_id: int
    cls_id: int | None
    has_types: bool
    pads_left: bool = False


@dataclass(frozen=True)
class SquadFacts:
    """What the data tells the module and the guards.

    `num_questions` are those of each part; `uniform_loss` is the loss of choosing among the positions of a training
    window blindly.
    """

    num_questions: Mapping[str, int]
    num_windows: Mapping[str, int]
    uniform_loss: float
    steps_per_epoch: int

    @property
    def examples_per_epoch(self) -> int:
        """Windows that an epoch shows."""
        return self.num_windows["train"]


class QuestionsOfBatch:
    """The question of each window, (B,): no list, tuple or dataclass, in which Lightning would look for tensors."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = tuple(questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self._questions)


class WindowDataset(Dataset[Batch]):
    """Windows of one part's questions; asked for a `MicroBatch` it gives a padded batch.

    A batch has input_ids, attention_mask, context (B, T), where the context is, places (B, T, 2), the characters of
    each token, starts and ends (B,), the answer's tokens, cls (B,), the token for no answer, question (B,), the
    question's place in the part, the questions themselves, and what `Examples` says. Encoders with token types get
    token_type_ids (B, T).
    """

    def __init__(
        self,
        tokens: QuestionTokens,
        windows: NDArray[np.int64],
        questions: Sequence[Question],
        facts: TokenFacts,
        views: RandomViews | None = None,
    ) -> None:
        self._tokens = tokens
        self._windows = windows
        self._questions = questions
        self._facts = facts
        self._views = views

    def __len__(self) -> int:
        return len(self._windows)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        numbers = self._windows[list(micro.indices)]
        windows = [self._tokens.window(int(number)) for number in numbers]
        owners = self._tokens.questions[numbers]
        ids = [self._shown(window, micro, row) for row, window in enumerate(windows)]
        mask = self._padded([np.ones(len(window.ids), np.int64) for window in windows], 0)
        places = self._padded([window.places for window in windows], -1)
        cls = self._padded([_cls(window, self._facts.cls_id) for window in windows], 0).argmax(axis=1)
        targets = self._targets(numbers, mask, cls)
        batch = {
            "input_ids": self._padded(ids, self._facts.pad_id),
            "attention_mask": mask,
            "context": places[:, :, 0] >= 0,
            "places": places,
            "starts": targets[:, 0],
            "ends": targets[:, 1],
            "cls": cls,
            "question": owners.astype(np.int64),
            "index": np.asarray(micro.indices),
        }
        if self._facts.has_types:
            batch["token_type_ids"] = self._padded([window.types.astype(np.int64) for window in windows], 0)
        return {
            **{name: torch.from_numpy(array) for name, array in batch.items()},
            "questions": QuestionsOfBatch(self._questions[owner] for owner in owners),
            "tokens": int(mask.sum()),
            "scale": micro.scale,
            "ends_step": micro.ends_step,
        }

    def _shown(self, window: QuestionWindow, micro: MicroBatch, row: int) -> NDArray[np.int64]:
        if self._views is None or micro.seed is None:
            return window.ids.astype(np.int64)
        rng = np.random.default_rng((*micro.seed, micro.indices[row], micro.repeats[row]))
        return self._views.hide(window.ids, rng).astype(np.int64)

    def _targets(
        self, numbers: NDArray[np.int64], mask: NDArray[np.int64], cls: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """First and last token of each answer, (B, 2): that of no answer where there is none."""
        found = self._tokens.targets[numbers].astype(np.int64)
        shift = mask.argmax(axis=1)[:, None]  # what is padded on the left
        told = np.where(found == NO_ANSWER, cls[:, None], found + shift)
        return np.where(found == UNKNOWN, IGNORED, told)

    def _padded(self, rows: Sequence[NDArray[np.generic]], fill: int) -> NDArray[np.int64]:
        longest = max(len(row) for row in rows)
        padded = np.full((len(rows), longest, *rows[0].shape[1:]), fill, dtype=np.int64)
        for number, row in enumerate(rows):
            if self._facts.pads_left:
                padded[number, longest - len(row) :] = row
            else:
                padded[number, : len(row)] = row
        return padded


class SquadDataModule(BatchedDataModule):
    """Batches of windows of questions.

    Args:
        corpus: questions with their parts.
        tokenizer: the model's.
        facts: what it does beside cutting.
        cache: where windows are kept.
        settings: how they are cut.
        empty_windows: the share of training windows without the answer to their question that is shown, 0 to 1.
        plan: how an effective batch of windows is cut.
        seed: of the order of training windows, and of which are left out.
        views: what training sees of a window; None: all of it.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        corpus: QuestionCorpus,
        tokenizer: Tokenizer,
        facts: TokenFacts,
        *,
        cache: Path,
        settings: WindowSettings,
        empty_windows: float,
        plan: BatchPlan,
        seed: int,
        views: RandomViews | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(plan=plan, seed=seed, num_workers=num_workers)
        self._questions = {part: corpus.part(part) for part in PARTS}
        self._tokenizer = tokenizer
        self._facts = facts
        self._cache = cache
        self._settings = settings
        self._empty_windows = empty_windows
        self._views = views
        self._tokens: dict[str, QuestionTokens] = {}
        self._windows: dict[str, NDArray[np.int64]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Cut all parts, once."""
        for part in PARTS:
            if part not in self._tokens:
                tokens = tokenise_questions(self._cache, self._tokenizer, self._settings, self._questions[part])
                self._tokens[part], self._windows[part] = tokens, np.arange(len(tokens))
                if part == "train":
                    self._windows[part] = self._shown_windows(tokens)

    def facts(self) -> SquadFacts:
        """What the module must know before it is made."""
        self.setup()
        positions = self._tokens["train"].num_context_tokens()[self._windows["train"]] + 1
        return SquadFacts(
            num_questions={part: len(questions) for part, questions in self._questions.items()},
            num_windows={part: len(windows) for part, windows in self._windows.items()},
            uniform_loss=float(np.log(positions).mean()),
            steps_per_epoch=self._plan.num_steps(len(positions)),
        )

    def tokens(self, part: str) -> QuestionTokens:
        """The windows of a part."""
        self.setup()
        return self._tokens[part]

    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens of each window, (W,)."""
        lengths: NDArray[np.int64] = self._tokens[part].lengths()[self._windows[part]]
        return lengths

    def examples(self, part: str) -> WindowDataset:
        """The windows of a part."""
        views = self._views if part == "train" else None
        return WindowDataset(self._tokens[part], self._windows[part], self._questions[part], self._facts, views)

    def _shown_windows(self, tokens: QuestionTokens) -> NDArray[np.int64]:
        """The windows that train: those with their answer or of impossible questions, and a share of the others."""
        impossible = np.array([question.is_impossible for question in self._questions["train"]])
        empty = (tokens.targets[:, 0] == NO_ANSWER) & ~impossible[tokens.questions]
        chosen = np.random.default_rng(self._seed).random(len(tokens)) < self._empty_windows
        return np.flatnonzero(~empty | chosen)


def _cls(window: QuestionWindow, cls_id: int | None) -> NDArray[np.int64]:
    """1 at the first CLS token, or at the first token where there is none."""
    found = window.ids == cls_id if cls_id is not None else np.arange(len(window.ids)) == 0
    return found.astype(np.int64)
