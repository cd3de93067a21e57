"""Texts with several targets, learnt by one encoder with a head each.

Shapes: K targets, L labels of a target.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from lightning import Callback
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from doctune.corpus.division import fingerprint
from doctune.corpus.target_baselines import judge_target_baselines
from doctune.corpus.target_corpus import TargetCorpus
from doctune.corpus.targets import TargetSpec
from doctune.inference.artifact import Artifact, TargetSettings
from doctune.labels import Labels
from doctune.nets.losses import DocumentLoss, class_weights
from doctune.nets.multi_task import MultiTaskSettings, multi_task_classifier
from doctune.nets.task_losses import FixedBalance, LabelSetLoss, TargetLosses, UncertaintyBalance, positive_weights
from doctune.scoring import chance as single
from doctune.scoring import multilabel
from doctune.text.extract import ExtractSettings
from doctune.training import build, targets
from doctune.training import config as schema
from doctune.training.build import Encoder
from doctune.training.callbacks.learning import Chance
from doctune.training.callbacks.target_predictions import TargetPredictionWriter, ThresholdsByTarget
from doctune.training.data.multi_task import MultiTaskDataModule, TargetCounts, TargetFacts
from doctune.training.features import encoder_outputs
from doctune.training.modules.multi_task import MultiTaskModule
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task, save_encoder

log = logging.getLogger(__name__)

JUDGED = ("val", "test")
# What a dropout of None means: the encoders' own heads have between 0.1 and 0.2.
HEAD_DROPOUT = 0.1


class MultiTask(Task):
    """Tell several things of a text at once.

    Args:
        corpus: the texts with their parts and targets.
        source: the encoder, about to be built.
        loss: what is minimised of each target.
    """

    name = "multi_task"

    def __init__(self, corpus: TargetCorpus, source: Encoder, loss: schema.LossConfig) -> None:
        self.corpus = corpus
        self.loss = loss
        self.source = source
        self.scores = ("f1_macro", *(f"{target.name}/f1_macro" for target in corpus.targets))

    def judge_baselines(self, run: Path) -> None:
        """Of each target: the most frequent label or labels, and linear models of TF-IDF features."""
        judge_target_baselines(self.corpus, run)

    def datamodule(self, config: schema.Config) -> MultiTaskDataModule:
        """Batches of token ids."""
        data = config.data
        return MultiTaskDataModule(
            self.corpus,
            self.source.backend,
            pad_id=int(self.source.tokenizer.pad_token_id),
            cache=Path(data.cache_dir),
            max_length=data.max_length,
            plan=build.batch_plan(config.trainer),
            seed=config.seed,
            views=build.random_views(data.augment, self.source),
            windows=data.augment.windows_to_read(),
            num_workers=build.num_workers(data),
        )

    def facts(self, datamodule: MultiTaskDataModule) -> TargetFacts:
        """Targets and counts."""
        return datamodule.facts()

    def module(self, config: schema.Config, datamodule: MultiTaskDataModule, precision: str) -> MultiTaskModule:
        """The encoder with a head per target."""
        data, facts = targets.multi_task(config.data), datamodule.facts()
        dropout = config.model.head_dropout
        settings = MultiTaskSettings(data.vector, HEAD_DROPOUT if dropout is None else dropout)
        net = multi_task_classifier(self.source.config, facts.targets, self.source.weights, settings)
        # It has its encoder where stock nets have theirs.
        build.prepare_net(cast(PreTrainedModel, net), config)
        return MultiTaskModule(
            net,
            target_losses(config.loss, facts),
            target_balance(config.loss, data),
            build.optimisation(config, facts.steps_per_epoch, precision),
            balance_lr=config.loss.balance_lr,
            releases_layers=config.finetune.strategy == "gradual",
        )

    def chance(self, datamodule: MultiTaskDataModule) -> Chance:
        """What an untrained model and the shares of the labels reach."""
        return chance(datamodule.facts(), self.loss)

    def class_weights(self, module: MultiTaskModule) -> Tensor:
        """Those of the target whose weights differ most."""
        weights = [cast(Tensor, loss.weights) for loss in module.losses.losses]
        return max(weights, key=lambda each: float(each.max() / each[each > 0].min()))

    def before_training(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: MultiTaskModule,
        datamodule: MultiTaskDataModule,
        record: RunRecord,
    ) -> None:
        """A frozen encoder reads each text once."""
        if config.finetune.strategy == "head" and config.finetune.cache_encoder:
            datamodule.read_from(encoder_outputs(config, precision, module, datamodule))

    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """Labels and probabilities of every target of every judged text."""
        texts = {part: self.corpus.part(part) for part in JUDGED}
        documents = {part: self.corpus.part_documents(part) for part in JUDGED}

        def remember(thresholds: ThresholdsByTarget) -> None:
            record.update(thresholds=thresholds)

        return [TargetPredictionWriter(run / "predictions", self.corpus.targets, texts, documents, remember)]

    def export(self, config: schema.Config, module: MultiTaskModule, folder: Path, record: RunRecord) -> None:
        """The encoder as transformers writes it, the heads beside it, targets and thresholds in `doctune.json`."""
        names = [target.name for target in self.corpus.targets]
        record.update(target_weights=dict(zip(names, module.balance.current_weights().tolist(), strict=True)))
        save_encoder(self.source, module, config.data.max_length, folder)
        thresholds: ThresholdsByTarget = record.facts["thresholds"]
        Artifact(
            folder,
            self.name,
            Labels(()),
            config.data.max_length,
            ExtractSettings(),
            targets=tuple(_settings(target, thresholds) for target in self.corpus.targets),
        ).save()

    def hints(self, run: Path) -> Mapping[str, str]:
        """Label new files."""
        return {f"doctune predict {run} FILE_OR_FOLDER": "label new files"}


def prepare(config: schema.Config, run: Path, record: RunRecord) -> MultiTask:
    """Texts and encoder; what cannot work fails here, in the order of how quickly it can be found out.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    source = _pretrained(config)
    corpus = targets.corpus(targets.multi_task(config.data), config.split)
    record.check_data(str(corpus.source), fingerprint(corpus.documents))
    corpus.write(run / "data")
    for sentence in unjudged_targets(corpus):
        record.note(sentence)
    return MultiTask(corpus, source or _from_scratch(config, corpus), config.loss)


def target_losses(loss: schema.LossConfig, facts: TargetFacts) -> TargetLosses:
    """What is minimised of each target, with weights from the training texts that know it."""
    pairs = zip(facts.targets, facts.counts["train"], strict=True)
    return TargetLosses([_target_loss(loss, target, counts) for target, counts in pairs])


def target_balance(loss: schema.LossConfig, data: schema.MultiTaskConfig) -> FixedBalance | UncertaintyBalance:
    """How the losses become one."""
    typed = data.typed_targets()
    if loss.balance == "uncertainty":
        return UncertaintyBalance(len(typed))
    return FixedBalance([target.weight for target in typed.values()])


def chance(facts: TargetFacts, loss: schema.LossConfig) -> Chance:
    """What an untrained model and the shares of the labels reach on this split: losses are sums over the targets.

    The level that training must leave behind is that of the constant answer which the weighted loss would have: with
    balanced weights that is "perhaps" for every label, however rare, with a plain loss far above that of the shares.
    """
    train, val = facts.counts["train"], facts.counts["val"]
    weights = [cast(Tensor, each.weights).numpy() for each in target_losses(loss, facts).losses]
    train_loss = sum(unread_loss(*each) for each in zip(facts.targets, train, weights, strict=True))
    found = {
        target.name: _levels(target, before, after)
        for target, before, after in zip(facts.targets, train, val, strict=True)
        if after.known
    }
    levels = {f"{name}/f1_macro": each["f1_macro"] for name, each in found.items()}
    levels["f1_macro"] = sum(levels.values()) / len(levels)
    words = dict.fromkeys(levels, "always answering with the most frequent label, or with all labels")
    val_loss = sum(each["loss"] for each in found.values())
    return Chance(
        uniform_loss=sum(single.uniform_loss(2 if each.is_multi else len(each.labels)) for each in facts.targets),
        choices="the number of labels, or of two for each that may apply, added up over the targets",
        train_loss=train_loss,
        prior="answering with the shares of the labels, weighted as they are in the loss,",
        name="majority",
        levels=levels | {"loss": val_loss},
        words=words | {"loss": "answering with the shares of the labels"},
        remedy="loss.class_weights=none",
        weights_remedy="loss.class_weights=effective with a lower loss.beta, or split.small_classes=merge",
    )


def unread_loss(target: TargetSpec, counts: TargetCounts, weights: NDArray[np.floating]) -> float:
    """The plain loss, in nats, of the constant answer with the lowest weighted loss.

    Args:
        counts: of the texts that are judged; one text is added for each answer, so that it stays finite.
        weights: of the labels, (L,), in the loss.
    """
    labels = np.asarray(counts.labels)
    if not target.is_multi:
        answer = weights * (labels + 1)
        return float(-(labels * np.log(answer / answer.sum())).sum() / labels.sum())
    absent = counts.known - labels
    odds = weights * (labels + 1) / (absent + 1)
    return float((labels * np.log1p(1 / odds) + absent * np.log1p(odds)).mean() / counts.known)


def unjudged_targets(corpus: TargetCorpus) -> list[str]:
    """What a reader must know of targets that no validation or test text knows."""
    return [
        f"No {words} text knows the target {target.name!r}, so nothing is {consequence}."
        for target in corpus.targets
        for part, words, consequence in (
            ("val", "validation", "chosen by it: its thresholds are 0.5"),
            ("test", "test", "known of how well it is told"),
        )
        if not any(target.name in text.targets for text in corpus.part(part))
    ]


def _target_loss(loss: schema.LossConfig, target: TargetSpec, counts: TargetCounts) -> DocumentLoss | LabelSetLoss:
    if target.is_multi:
        weights = positive_weights(loss.class_weights, counts.labels, counts.known, loss.beta)
        return LabelSetLoss(loss.name, weights, gamma=loss.gamma)
    weights = class_weights(loss.class_weights, counts.labels, loss.beta)
    return DocumentLoss(loss.name, weights, label_smoothing=loss.label_smoothing, gamma=loss.gamma)


def _levels(target: TargetSpec, train: TargetCounts, judged: TargetCounts) -> dict[str, float]:
    if target.is_multi:
        before, after = np.asarray(train.labels), np.asarray(judged.labels)
        return multilabel.chance_levels(before, train.known, after, judged.known)
    return single.chance_levels(train.labels, judged.labels)


def _settings(target: TargetSpec, thresholds: ThresholdsByTarget) -> TargetSettings:
    chosen = thresholds.get(target.name)
    return TargetSettings(target, None if chosen is None else tuple(chosen))


def _pretrained(config: schema.Config) -> Encoder | None:
    if isinstance(config.model, schema.PretrainedConfig):
        return build.pretrained_encoder(config.model, config.data.max_length)
    return None


def _from_scratch(config: schema.Config, corpus: TargetCorpus) -> Encoder:
    assert isinstance(config.model, schema.ScratchConfig), "a model is either pretrained or from scratch"
    texts: Sequence[str] = [text.text for text in corpus.part("train")]
    return build.scratch_encoder(config.model, texts, Path(config.data.cache_dir))
