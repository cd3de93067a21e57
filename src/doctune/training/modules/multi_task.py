"""Several targets per text.

Shapes: B texts, T tokens, D hidden, K targets, L labels of a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MultilabelF1Score

from doctune.corpus.targets import MISSING, TargetSpec
from doctune.nets.multi_task import MultiTaskClassifier, MultiTaskOutput
from doctune.nets.task_losses import FixedBalance, LossSums, TargetLosses, UncertaintyBalance, plain_sums
from doctune.training.modules.finetuned import Batch, FineTunedModule
from doctune.training.optim import Optimisation


class MultiTaskModule(FineTunedModule):
    """Trains an encoder with a head per target.

    `val/loss`, `test/loss` and `train_eval/loss` are sums over the targets of their plain mean losses. Each target has
    `f1_macro` and, where a text has one label of it, `accuracy`, else `f1_micro`; a label of a probability above 0.5
    applies, since thresholds are chosen when training is over. `val/f1_macro` is the mean of the targets' macro F1, all
    targets alike.

    Args:
        net: encoder and heads.
        losses: what is minimised, in the order of the heads.
        balance: how they become one.
        optimisation: rates, decay and schedule.
        balance_lr: at which learnt weights learn.
        releases_layers: see `FineTunedModule`.
    """

    net: MultiTaskClassifier  # type: ignore[assignment]  # it has what is used of a transformers model
    val_loss: TargetLoss  # type: ignore[assignment]  # per target
    train_eval_loss: TargetLoss  # type: ignore[assignment]
    test_loss: TargetLoss  # type: ignore[assignment]
    val_metrics: TargetMetrics  # type: ignore[assignment]

    def __init__(
        self,
        net: MultiTaskClassifier,
        losses: TargetLosses,
        balance: FixedBalance | UncertaintyBalance,
        optimisation: Optimisation,
        *,
        balance_lr: float,
        releases_layers: bool = False,
    ) -> None:
        super().__init__(net, optimisation, releases_layers=releases_layers)  # type: ignore[arg-type]
        self.losses = losses
        self.balance = balance
        self._balance_lr = balance_lr
        self.save_hyperparameters(
            {
                "net": net.config.to_dict(),
                "heads": asdict(net.settings),
                "targets": [
                    {"name": each.name, "kind": each.kind, "labels": list(each.labels.names)} for each in net.targets
                ],
                "losses": losses.describe(),
                "optimisation": asdict(optimisation),
            }
        )
        num_targets = len(net.targets)
        self.val_loss, self.train_eval_loss = TargetLoss(num_targets), TargetLoss(num_targets)
        self.test_loss = TargetLoss(num_targets)
        self.val_metrics, self.test_metrics = TargetMetrics(net.targets), TargetMetrics(net.targets)

    @property
    def stored(self) -> str:
        """What `predict_step` gives, in words for the cache's key."""
        return f"text {self.net.settings.vector}"

    def forward(self, batch: Batch) -> MultiTaskOutput:
        """Logits (B, L) of each target and vectors (B, D), of token ids (B, T) or of stored vectors."""
        if "vectors" in batch:
            return self.net.forward_vectors(batch["vectors"])
        output: MultiTaskOutput = self.net(batch["input_ids"], batch["attention_mask"])
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch, see `FineTunedModule`; with learnt weights `train/weight/<target>`, too."""
        logits, scales = self._logits(batch), batch["target_scales"]
        objective = self.balance(self.losses(logits, batch["targets"]), scales)
        plain = (plain_sums([each.detach() for each in logits], batch["targets"]).totals * scales).sum()
        if isinstance(self.balance, UncertaintyBalance):
            names = [f"train/weight/{target.name}" for target in self.net.targets]
            self.log_dict(dict(zip(names, self.balance.current_weights(), strict=True)))
        # Both are means over the effective batch's texts already; a stand-in of a rank that has none left adds nothing.
        texts = batch["scale"] or 1.0
        return self._trained(objective / texts, plain / texts, batch)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, tuple[Tensor, ...]]:
        """`logits` (B, L) of each target; of the second loader, the sample of training texts, only the loss is kept."""
        if dataloader_idx == 0:
            return self._judge(batch, self.val_loss, self.val_metrics)
        logits = self._logits(batch)
        self.train_eval_loss.update(plain_sums(logits, batch["targets"]))
        return {"logits": logits}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[Tensor, ...]]:
        """`logits` (B, L) of each target."""
        return self._judge(batch, self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The encoder's vectors, (B, D)."""
        return self(batch).vectors

    def on_validation_epoch_end(self) -> None:
        """Log losses, gap and scores."""
        super().on_validation_epoch_end()
        self._log_scores("val", self.val_loss, self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """Forget an earlier test."""
        self.test_loss.reset()
        self.test_metrics.reset()

    def on_test_epoch_end(self) -> None:
        """Log loss and scores."""
        self._log_scores("test", self.test_loss, self.test_metrics)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: encoder, heads, and the log variances where weights are learnt."""
        groups = super().parameter_groups()
        if isinstance(self.balance, UncertaintyBalance):
            groups.append(self.balance.parameter_group(self._balance_lr))
        return groups

    def _logits(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(each.float() for each in self(batch).logits)

    def _judge(self, batch: Batch, loss: TargetLoss, metrics: TargetMetrics) -> dict[str, tuple[Tensor, ...]]:
        logits = self._logits(batch)
        loss.update(plain_sums(logits, batch["targets"]))
        metrics.update(logits, batch["targets"])
        return {"logits": logits}

    def _log_scores(self, stage: str, loss: TargetLoss, metrics: TargetMetrics) -> None:
        with loss.sync_context():  # of all processes
            means = dict(zip((target.name for target in self.net.targets), loss.means().tolist(), strict=True))
        scores = {f"{stage}/{name}": value for name, value in metrics.compute().items()}
        losses = {f"{stage}/{name}/loss": value for name, value in means.items()}
        self.log_dict({f"{stage}/loss": loss.compute(), **scores}, prog_bar=True)
        self.log_dict(losses)


class TargetLoss(Metric):
    """The sum over targets of their mean losses; a target that no text knows adds nothing.

    Args:
        num_targets: K.
    """

    totals: Tensor
    counts: Tensor

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        for state in ("totals", "counts"):
            self.add_state(state, torch.zeros(num_targets, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: LossSums) -> None:
        """Take in the sums of a batch."""
        self.totals += sums.totals.detach()
        self.counts += sums.counts

    def compute(self) -> Tensor:
        """A scalar."""
        return self.means().sum().float()

    def means(self) -> Tensor:
        """The mean loss of each target, (K,); 0 where no text knows it."""
        return self.totals / self.counts.clamp_min(1)


class Counts(Metric):
    """How many texts knew each of K targets; all processes together."""

    counts: Tensor

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_targets, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, place: int, count: int) -> None:
        """Add texts that know the target at this place."""
        self.counts[place] += count

    def compute(self) -> Tensor:
        """(K,); of one target a scalar, as metrics have it."""
        return self.counts


class TargetMetrics(nn.Module):
    """The scores of each target over the texts that know it, and `f1_macro`, the mean of theirs.

    Args:
        targets: in the order of the heads.
    """

    def __init__(self, targets: Sequence[TargetSpec]) -> None:
        super().__init__()
        self._targets = tuple(targets)
        self._metrics = nn.ModuleList(_metrics(target) for target in targets)
        self._seen = Counts(len(self._targets))

    def update(self, logits: Sequence[Tensor], truths: Sequence[Tensor]) -> None:
        """Take in logits (B, L) and the truth, (B,) or (B, L), of each target."""
        for place, (metrics, scores, truth) in enumerate(zip(self._metrics, logits, truths, strict=True)):
            known = (truth if truth.ndim == 1 else truth[:, 0]) != MISSING
            if known.any():
                self._seen.update(place, int(known.sum()))
                found = scores[known].sigmoid() if truth.ndim == 2 else scores[known]
                metrics.update(found, truth[known])  # type: ignore[operator]

    def compute(self) -> Mapping[str, Tensor]:
        """`<target>/<metric>` of the targets that any text knew, and `f1_macro`."""
        counts = self._seen.compute().reshape(-1).tolist()
        judged = [
            (target.name, metrics.compute())  # type: ignore[operator]
            for target, metrics, seen in zip(self._targets, self._metrics, counts, strict=True)
            if seen
        ]
        scores = {f"{name}/{metric}": value for name, found in judged for metric, value in found.items()}
        return {"f1_macro": torch.stack([found["f1_macro"] for _, found in judged]).mean(), **scores}

    def reset(self) -> None:
        """Forget what was taken in."""
        self._seen.reset()
        for metrics in self._metrics:
            metrics.reset()  # type: ignore[operator]


def _metrics(target: TargetSpec) -> MetricCollection:
    num_labels = len(target.labels)
    if target.is_multi:
        return MetricCollection(
            {
                "f1_macro": MultilabelF1Score(num_labels, average="macro"),
                "f1_micro": MultilabelF1Score(num_labels, average="micro"),
            }
        )
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_labels, average="micro"),
            "f1_macro": MulticlassF1Score(num_labels, average="macro"),
        }
    )
