"""The span of a context that answers a question.

Shapes: B windows, T tokens, Q questions of a part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import PreTrainedModel

from doctune.corpus.squad import Question
from doctune.decode.answers import SpanSettings, WindowSpans
from doctune.decode.spans import best_spans
from doctune.nets.losses import span_losses
from doctune.scoring.squad import Version, exact_match_and_f1
from doctune.training.modules.finetuned import Batch, FineTunedModule
from doctune.training.optim import Optimisation

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

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[WindowSpans]]:
        """The best `spans` of each window; the second loader is the sample of training windows, for their loss."""
        if dataloader_idx == 0:
            return self._judge(batch, "val", self.val_loss, self.val_metrics)
        start, end = self(batch)
        _add(self.train_eval_loss, self._losses(start, end, batch), batch)
        return {"spans": []}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[WindowSpans]]:
        """The best `spans` of each window; logs `test/loss`, `test/exact_match` and `test/f1`."""
        return self._judge(batch, "test", self.test_loss, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the questions, too."""
        super().on_validation_epoch_end()
        self.log_dict({f"val/{name}": value for name, value in self.val_metrics.compute().items()}, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        self.test_metrics.reset()

    def on_test_epoch_end(self) -> None:
        """Log the scores of the questions."""
        self.log_dict({f"test/{name}": value for name, value in self.test_metrics.compute().items()}, prog_bar=True)

    def _losses(self, start: Tensor, end: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        return span_losses(
            start, end, batch["starts"], batch["ends"], batch["context"], batch["cls"], label_smoothing=label_smoothing
        )

    def _judge(
        self, batch: Batch, stage: str, mean_loss: MeanMetric, scores: AnswerScores
    ) -> dict[str, list[WindowSpans]]:
        start, end = self(batch)
        _add(mean_loss, self._losses(start, end, batch), batch)
        spans = best_spans(start, end, batch["context"], batch["cls"], self.spans).in_context(batch["places"])
        scores.update(spans, batch["question"], batch["questions"])
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, add_dataloader_idx=False)
        return {"spans": spans}


class AnswerScores(Metric):
    """Exact match and F1 over questions whose windows come in any order, in any batch, on any process.

    Only the best answer of each question so far is kept, as its place and its scores: memory is 28 bytes a question.
    Of equally good ones it is the first in the context, as in `merge_spans`, so that no order matters.

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

    def update(self, windows: Sequence[WindowSpans], places: Tensor, questions: Iterable[Question]) -> None:
        """Take in the spans of B windows of these questions, whose places (B,) are in 0 … Q - 1."""
        where = places.tolist()
        known = dict(zip(where, self.kept[where].tolist(), strict=True))
        for window, place, question in zip(windows, where, questions, strict=True):
            best, start, end, exact, f1, null, _ = known[place]
            score, begin, stop = _best_span(window)
            if math.isfinite(score) and (-score, begin, stop) < (-best, start, end):
                best, start, end = score, begin, stop
                exact, f1 = exact_match_and_f1(question.context[begin:stop], question.answers, self._rules)
            silent = exact_match_and_f1("", question.answers, self._rules)[1] if self._rules == "2.0" else 0.0
            known[place] = [best, start, end, exact, f1, min(null, window.null_score), silent]
        self.kept[[*known]] = torch.tensor([*known.values()], dtype=self.kept.dtype, device=self.kept.device)

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


def _best_span(window: WindowSpans) -> tuple[float, int, int]:
    """Score, start and end of the best span; of equally good ones that of the first."""
    scores = [score if math.isfinite(score) else -math.inf for score in window.scores.tolist()]
    best = max(scores, default=-math.inf)
    places = [(int(window.starts[n]), int(window.ends[n])) for n, score in enumerate(scores) if score == best]
    return best, *min(places, default=(-1, -1))


def _add(mean_loss: MeanMetric, losses: Tensor, batch: Batch) -> None:
    """Losses (B,) of windows whose answer is known."""
    known = batch["starts"] >= 0
    if known.any():
        mean_loss.update(losses[known].mean(), weight=int(known.sum()))
