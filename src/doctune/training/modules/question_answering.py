"""The span of a context that answers a question.

Shapes: B windows, T tokens, Q questions of a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import PreTrainedModel

from doctune.corpus.squad import Question
from doctune.decode.answers import SpanSettings, WindowSpans, best_of_each
from doctune.decode.spans import WindowLogits, best_spans, joined_logits
from doctune.nets.losses import span_losses
from doctune.scoring.squad import Version, exact_match_and_f1
from doctune.training.modules.finetuned import Batch, FineTunedModule
from doctune.training.optim import Optimisation

_WINDOWS_AT_ONCE = 256
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class QuestionAnsweringModule(FineTunedModule):
    """Trains an extractive reader.

    The loss of a window is the mean cross entropy of its answer's start and end, over the tokens of the context and
    the one that stands for no answer. Validation and test also log `exact_match` and `f1`, 0 to 1, over questions: an
    answer is the best span of all windows of its question.

    Args:
        net: a reader whose forward gives start and end logits.
        optimisation: rates, decay and schedule.
        num_questions: of the parts "val" and "test".
        version: of SQuAD; 2.0 allows no answer.
        spans: what is an answer.
        label_smoothing: of the training loss.
        releases_layers: see `FineTunedModule`.

    Attributes:
        found: the best spans of all windows of this validation or test.
    """

    val_metrics: AnswerScores

    def __init__(
        self,
        net: PreTrainedModel,
        optimisation: Optimisation,
        *,
        num_questions: tuple[int, int],
        version: Version,
        spans: SpanSettings,
        label_smoothing: float = 0.0,
        releases_layers: bool = False,
    ) -> None:
        super().__init__(net, optimisation, releases_layers=releases_layers)
        self.spans = spans
        self.found: list[FoundSpans] = []
        self._waiting: list[tuple[WindowLogits, Batch]] = []
        self.label_smoothing = label_smoothing
        self.save_hyperparameters(
            {
                "net": net.config.to_dict(),
                "optimisation": asdict(optimisation),
                "spans": asdict(spans),
                "label_smoothing": label_smoothing,
                "version": version,
            }
        )
        self.val_metrics = AnswerScores(num_questions[0], version)
        self.test_metrics = AnswerScores(num_questions[1], version)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Start and end logits, (B, T) each."""
        output = self.net(**{name: batch[name] for name in _INPUTS if name in batch})
        return output.start_logits.float(), output.end_logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch, see `FineTunedModule`."""
        start, end = self(batch)
        plain = self._losses(start, end, batch).sum()
        objective = self._losses(start, end, batch, self.label_smoothing).sum() if self.label_smoothing else plain
        return self._trained(objective, plain, batch)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/loss`; the second loader is the sample of training windows, for their loss."""
        if dataloader_idx == 0:
            self._judge(batch, "val", self.val_loss, self.val_metrics)
        else:
            start, end = self(batch)
            _add(self.train_eval_loss, self._losses(start, end, batch), batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `test/loss`."""
        self._judge(batch, "test", self.test_loss, self.test_metrics)

    def on_validation_epoch_start(self) -> None:
        """Forget an earlier validation."""
        super().on_validation_epoch_start()
        self._forget()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the questions, too."""
        super().on_validation_epoch_end()
        self._find(self.val_metrics)
        self.log_dict({f"val/{name}": value for name, value in self.val_metrics.compute().items()}, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        self.test_metrics.reset()
        self._forget()

    def on_test_epoch_end(self) -> None:
        """Log the scores of the questions."""
        self._find(self.test_metrics)
        self.log_dict({f"test/{name}": value for name, value in self.test_metrics.compute().items()}, prog_bar=True)

    def _losses(self, start: Tensor, end: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        return span_losses(
            start, end, batch["starts"], batch["ends"], batch["context"], batch["cls"], label_smoothing=label_smoothing
        )

    def _judge(self, batch: Batch, stage: str, mean_loss: MeanMetric, scores: AnswerScores) -> None:
        start, end = self(batch)
        _add(mean_loss, self._losses(start, end, batch), batch)
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, add_dataloader_idx=False)
        self.take_in(start, end, batch, scores)

    def take_in(self, start: Tensor, end: Tensor, batch: Batch, scores: AnswerScores) -> None:
        """Have the windows of a batch searched for answers, which are added to `scores`.

        Logits (B, T) wait on their device until there are those of 256 windows: what a search costs beside its
        arithmetic, such as waiting for a device, is paid once for all of them.
        """
        logits = WindowLogits(start, end, *(batch[name] for name in ("context", "cls", "places")))
        self._waiting.append((logits, batch))
        if sum(len(each.cls) for each, _ in self._waiting) >= _WINDOWS_AT_ONCE:
            self._find(scores)

    def _find(self, scores: AnswerScores) -> None:
        """Find and judge the best spans of the windows that wait."""
        if not self._waiting:
            return
        logits, batches = zip(*self._waiting, strict=True)
        self._waiting = []
        spans = best_spans(joined_logits(logits), self.spans)
        owners = torch.cat([batch["question"] for batch in batches]).cpu().numpy()
        scores.update(spans, owners, chain.from_iterable(batch["questions"] for batch in batches))
        self.found.append(FoundSpans(spans, owners))

    def _forget(self) -> None:
        self.found, self._waiting = [], []


class FoundSpans(NamedTuple):
    """The best spans of B windows, and whose windows they are: places of questions in the part, (B,)."""

    spans: WindowSpans
    owners: NDArray[np.int64]


class AnswerScores(Metric):
    """Exact match and F1 over questions whose windows come in any order, in any batch, on any process.

    Only the best answer of each question so far is kept, as its place and its scores: memory is 28 bytes a question.
    Of equally good ones it is the first in the context, see `best_of_each`, so that no order matters.

    Args:
        num_questions: Q.
        version: of SQuAD; in 2.0 no answer is given where its score is above that of the best span.
    """

    kept: Tensor

    def __init__(self, num_questions: int, version: Version) -> None:
        super().__init__()
        self._rules = version
        # Of each question: score, start, end, exact match and F1 of the best answer, the lowest score of giving none,
        # and what giving none would be worth.
        nothing = torch.tensor([-torch.inf, torch.inf, torch.inf, 0.0, 0.0, torch.inf, 0.0])
        self.add_state("kept", nothing.repeat(num_questions, 1), dist_reduce_fx=None)

    def update(self, windows: WindowSpans, places: NDArray[np.int64], questions: Iterable[Question]) -> None:
        """Take in the spans of B windows of these questions, whose places (B,) are in 0 … Q - 1."""
        numbers, owners = np.unique(places, return_inverse=True)
        asked = dict(zip(owners.tolist(), questions, strict=True))
        rows = torch.from_numpy(numbers).to(self.kept.device)
        known = self.kept[rows].cpu().numpy()
        best, start, end, *_ = known.T
        found, scores, starts, ends = best_of_each(windows, owners)
        earlier = (starts < start[found]) | ((starts == start[found]) & (ends < end[found]))
        is_better = (scores > best[found]) | ((scores == best[found]) & earlier)
        found, scores, starts, ends = (column[is_better] for column in (found, scores, starts, ends))
        spans = zip([asked[row] for row in found.tolist()], starts.tolist(), ends.tolist(), strict=True)
        judged = [
            exact_match_and_f1(question.context[begin:stop], question.answers, self._rules)
            for question, begin, stop in spans
        ]
        known[found, :5] = np.column_stack([scores, starts, ends, np.reshape(judged, (-1, 2))])
        np.minimum.at(known[:, 5], owners, windows.null_scores)
        if self._rules == "2.0":
            known[[*asked], 6] = [exact_match_and_f1("", each.answers, self._rules)[1] for each in asked.values()]
        self.kept[rows] = torch.from_numpy(known).to(self.kept.device)

    def compute(self) -> Mapping[str, Tensor]:
        """The means over all questions; one without any window counts as not answered."""
        of_ranks = self.kept.view(-1, *self.kept.shape[-2:])
        best, start, end, exact, f1, null, silent = of_ranks.unbind(dim=-1)  # (ranks, Q) each
        leads = torch.ones_like(best, dtype=torch.bool)
        for key in (-best, start, end):
            key = key.masked_fill(~leads, torch.inf)
            leads &= key == key.min(dim=0).values
        rank = leads.int().argmax(dim=0, keepdim=True)
        exact, f1, best = (each.gather(0, rank)[0] for each in (exact, f1, best))
        declined = (null.min(dim=0).values > best) & (self._rules == "2.0")
        none_given, nothing = declined | best.isinf(), silent.max(dim=0).values
        return {
            "exact_match": torch.where(none_given, nothing, exact).mean(),
            "f1": torch.where(none_given, nothing, f1).mean(),
        }


def _add(mean_loss: MeanMetric, losses: Tensor, batch: Batch) -> None:
    """Losses (B,) of windows whose answer is known."""
    mean_loss.update(losses, weight=(batch["starts"] >= 0).to(losses))
