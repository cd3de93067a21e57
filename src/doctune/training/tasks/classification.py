"""Files by their content: one label each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from doctune.corpus.baselines import MAX_CHARS, judge_baselines
from doctune.corpus.division import advice_on_folds
from doctune.corpus.file_corpus import Corpus, describe_account
from doctune.errors import ConfigError
from doctune.inference.artifact import Artifact
from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.losses import DocumentLoss, class_weights
from doctune.reports.records import read_predictions
from doctune.scoring.calibration import fit_temperature
from doctune.scoring.chance import chance_levels, uniform_loss
from doctune.training import build, sources
from doctune.training import config as schema
from doctune.training.build import Encoder
from doctune.training.callbacks.class_dashboard import EpochConfusions, WorstMistakes
from doctune.training.callbacks.learning import Chance
from doctune.training.callbacks.predictions import PredictionWriter
from doctune.training.data.file_content import Facts, FileContentDataModule
from doctune.training.features import encoder_outputs, head_reads_stored_rows
from doctune.training.forest import grow_forest
from doctune.training.modules.classification import ClassificationModule
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task, save_encoder

log = logging.getLogger(__name__)


class FileContent(Task):
    """Classify files by their content.

    Args:
        corpus: the documents with their parts.
        source: the encoder, about to be built.
        f1_weights: of the labels in `f1_mix`, in id order; None: it is not measured.
    """

    name = "classification"

    def __init__(self, corpus: Corpus, source: Encoder, f1_weights: tuple[float, ...] | None = None) -> None:
        self.corpus = corpus
        self.source = source
        self.f1_weights = f1_weights
        self.scores = ("f1_macro", "accuracy") if f1_weights is None else ("f1_macro", "accuracy", "f1_mix")

    def judge_baselines(self, run: Path) -> None:
        """The majority class, and TF-IDF with a linear SVM."""
        judge_baselines(self.corpus, run)

    def datamodule(self, config: schema.Config) -> FileContentDataModule:
        """Batches of token ids."""
        data = config.data
        return FileContentDataModule(
            self.corpus,
            self.source.backend,
            pad_id=int(self.source.tokenizer.pad_token_id),
            cache=Path(data.cache_dir),
            max_length=data.max_length,
            plan=build.batch_plan(config.trainer),
            seed=config.seed,
            sampling=(data.sampling.method, data.sampling.strength),
            views=build.random_views(data.augment, self.source),
            windows=data.augment.windows_to_read(),
            num_workers=build.num_workers(data),
        )

    def facts(self, datamodule: FileContentDataModule) -> Facts:
        """Labels and counts."""
        return datamodule.facts()

    def module(self, config: schema.Config, datamodule: FileContentDataModule, precision: str) -> ClassificationModule:
        """The classifier."""
        facts = datamodule.facts()
        net = classifier(self.source.config, facts.labels, self.source.weights)
        build.prepare_net(net, config)
        plan = build.optimisation(config, facts.steps_per_epoch, precision)
        loss = document_loss(config.loss, facts)
        releases = config.finetune.strategy == "gradual"
        return ClassificationModule(net, loss, plan, releases_layers=releases, f1_weights=self.f1_weights)

    def chance(self, datamodule: Any) -> Chance:
        """What an untrained model and the class shares reach."""
        return chance(self.facts(datamodule), self.f1_weights)

    def class_weights(self, module: ClassificationModule) -> Tensor:
        """Those of the loss."""
        return module.loss.weights

    def before_training(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: ClassificationModule,
        datamodule: FileContentDataModule,
        record: RunRecord,
    ) -> None:
        """The forest is grown; a frozen encoder reads each document once: most heads read its first token only."""
        grow_forest(config, self.corpus, run, MAX_CHARS)
        if config.finetune.strategy != "head" or not config.finetune.cache_encoder:
            return
        if head_reads_stored_rows(module, datamodule):
            datamodule.read_from(encoder_outputs(config, precision, module, datamodule))
            return
        record.note(
            "The head of this architecture reads more than the first token, so the frozen encoder computes all "
            "documents again in each epoch."
        )

    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """Labels and probabilities of every judged document."""
        judged = {part: self.corpus.part(part) for part in ("val", "test")}
        return [PredictionWriter(run / "predictions", self.corpus.labels, judged)]

    def dashboard(self, logger: TensorBoardLogger) -> list[Callback]:
        """Confusions, precision-recall curves, worst mistakes."""
        labels, judged = self.corpus.labels, self.corpus.part("test")
        return [EpochConfusions(logger, labels), WorstMistakes(logger, labels, judged, self.corpus.texts)]

    def export(self, config: schema.Config, module: ClassificationModule, folder: Path, record: RunRecord) -> None:
        """A stock sequence classifier."""
        save_encoder(self.source, module, config.data.max_length, folder)
        settings = sources.extract_settings(sources.file_content(config.data))
        temperature = fitted_temperature(folder.parent, self.corpus.labels, record)
        Artifact(
            folder, self.name, self.corpus.labels, config.data.max_length, settings, temperature=temperature
        ).save()

    def hints(self, run: Path) -> Mapping[str, str]:
        """Label new files."""
        return {f"doctune predict {run} FILE_OR_FOLDER": "label new files"}


def prepare(config: schema.Config, run: Path, record: RunRecord) -> FileContent:
    """The task with its documents and its encoder.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    corpus, source = prepare_documents(config, run, record)
    return FileContent(corpus, source, f1_weights(config.metric, corpus.labels))


def prepare_documents(config: schema.Config, run: Path, record: RunRecord) -> tuple[Corpus, Encoder]:
    """Documents and encoder; what cannot work fails here, in the order of how quickly it can be found out.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    data = sources.file_content(config.data)
    rows = sources.manifest(data)
    source = _pretrained(config)
    log.info("%s: %d rows, %d of them rejected.", rows.source, len(rows.rows) + len(rows.rejected), len(rows.rejected))
    corpus = sources.corpus(data, config.split, rows, config.prepare)
    record.check_data(str(corpus.source), corpus.fingerprint)
    advice = advice_on_folds(len(corpus.documents), sources.split_settings(config.split))
    if advice:
        log.info("%s", advice)
    report = sources.audit(data, corpus)
    corpus.write(run / "data", report)
    for sentence in sources.say_findings(report):
        record.keep(sentence)
    log.info("Documents: %s.", describe_account(corpus))
    f1_weights(config.metric, corpus.labels)  # refused before a vocabulary is learnt from long texts
    return corpus, source or encoder(config, corpus)


def encoder(config: schema.Config, corpus: Corpus) -> Encoder:
    """The encoder that a configuration asks for; one from scratch learns its vocabulary from the training documents.

    Raises:
        DoctuneError: it cannot be had, or not read such windows.
    """
    found = _pretrained(config)
    if found is None:
        assert isinstance(config.model, schema.ScratchConfig), "a model is either pretrained or from scratch"
        found = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")), Path(config.data.cache_dir))
    return found


def _pretrained(config: schema.Config) -> Encoder | None:
    if isinstance(config.model, schema.PretrainedConfig):
        return build.pretrained_encoder(config.model, config.data.max_length)
    return None


def f1_weights(metric: schema.MetricConfig, labels: Labels) -> tuple[float, ...] | None:
    """The weights of `metric.class_weights` in id order; None where there are none.

    Raises:
        ConfigError: they are not those of all labels and of no other.
    """
    weights = metric.weights()
    if not weights:
        return None
    unknown = [name for name in weights if name not in labels.names]
    missing = [name for name in labels.names if name not in weights]
    if unknown or missing:
        said = [f"names {', '.join(unknown)}, which the data does not have"] if unknown else []
        said += [f"lacks {', '.join(missing)}"] if missing else []
        raise ConfigError(
            f"metric.class_weights {' and '.join(said)}: give each label a weight, and no other. The labels are "
            f"{', '.join(labels.names)}."
        )
    return tuple(weights[name] for name in labels.names)


def fitted_temperature(run: Path, labels: Labels, record: RunRecord) -> float:
    """The temperature of the run's validation predictions, which its best weights have made; 1 where there is none."""
    found = read_predictions(run / "predictions" / "val.parquet", labels)
    if found is None:
        return 1.0
    fit = fit_temperature(found.truth, found.probabilities)
    record.update(temperature=asdict(fit))
    if fit.problem:
        log.info("No temperature: %s.", fit.problem)
    else:
        losses = (fit.log_loss_before, fit.log_loss_after)
        log.info("Temperature %.3f: validation log loss %.4f before, %.4f after.", fit.temperature, *losses)
    return fit.temperature


def document_loss(loss: schema.LossConfig, facts: Facts) -> DocumentLoss:
    """What is minimised, with class weights from what an epoch shows."""
    weights = class_weights(loss.class_weights, facts.shown_counts, loss.beta)
    return DocumentLoss(loss.name, weights, label_smoothing=loss.label_smoothing, gamma=loss.gamma)


def chance(facts: Facts, f1_weights: Sequence[float] | None = None) -> Chance:
    """What an untrained model and the class shares reach on this split."""
    levels = chance_levels(facts.train_counts, facts.val_counts, f1_weights)
    most_frequent = dict.fromkeys(levels, "always answering with the most frequent class")
    return Chance(
        uniform_loss=uniform_loss(len(facts.labels)),
        choices="the number of classes",
        train_loss=chance_levels(facts.train_counts, facts.train_counts)["loss"],
        prior="answering with the shares of the classes",
        name="majority",
        levels=levels,
        words=most_frequent | {"loss": "answering with the shares of the classes"},
        remedy="loss.class_weights=none",
    )
