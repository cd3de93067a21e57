"""Files by their content: one label each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from doctune.corpus.baselines import judge_baselines
from doctune.corpus.division import advice_on_folds
from doctune.corpus.prepare import Corpus, describe_account, fingerprint
from doctune.errors import ConfigError
from doctune.inference.artifact import Artifact
from doctune.nets.assemble import classifier
from doctune.nets.losses import DocumentLoss, class_weights
from doctune.scoring.chance import chance_levels, uniform_loss
from doctune.training import build, sources
from doctune.training import config as schema
from doctune.training.build import Encoder
from doctune.training.callbacks.class_dashboard import EpochConfusions, WorstMistakes
from doctune.training.callbacks.learning import Chance
from doctune.training.callbacks.predictions import PredictionWriter
from doctune.training.data.file_content import Facts, FileContentDataModule
from doctune.training.data.views import RandomViews
from doctune.training.features import encoder_outputs
from doctune.training.modules.classification import ClassificationModule
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task, save_encoder

log = logging.getLogger(__name__)


class FileContent(Task):
    """Classify files by their content."""

    scores = ("f1_macro", "accuracy")

    def __init__(self, corpus: Corpus, source: Encoder) -> None:
        self.corpus = corpus
        self.source = source

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
            views=random_views(data.augment, self.source),
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
        return ClassificationModule(net, loss, plan, releases_layers=config.finetune.strategy == "gradual")

    def chance(self, datamodule: FileContentDataModule) -> Chance:
        """What an untrained model and the class shares reach."""
        return chance(datamodule.facts())

    def class_weights(self, module: ClassificationModule) -> Tensor:
        """Those of the loss."""
        return module.loss.weights

    def read_once(
        self,
        config: schema.Config,
        precision: str,
        module: ClassificationModule,
        datamodule: FileContentDataModule,
        record: RunRecord,
    ) -> None:
        """The first token's output is all that most heads read."""
        features = encoder_outputs(config, precision, module, datamodule)
        if features is not None:
            datamodule.read_from(features)
            return
        record.note(
            "The head of this architecture reads more than the first token, so the frozen encoder computes all "
            "documents again in each epoch."
        )

    def callbacks(self, run: Path) -> list[Callback]:
        """Labels and probabilities of every judged document."""
        judged = {part: self.corpus.part(part) for part in ("val", "test")}
        return [PredictionWriter(run / "predictions", self.corpus.labels, judged)]

    def dashboard(self, logger: TensorBoardLogger) -> list[Callback]:
        """Confusions, precision-recall curves, worst mistakes."""
        labels, judged = self.corpus.labels, self.corpus.part("test")
        return [EpochConfusions(logger, labels), WorstMistakes(logger, labels, judged, self.corpus.texts)]

    def export(self, config: schema.Config, module: ClassificationModule, folder: Path) -> None:
        """A stock sequence classifier."""
        save_encoder(self.source, module, config.data.max_length, folder)
        settings = sources.extract_settings(sources.file_content(config.data))
        Artifact(folder, "classification", self.corpus.labels, config.data.max_length, settings).save()

    def hints(self, run: Path) -> Mapping[str, str]:
        """Label new files."""
        return {f"doctune predict {run} FILE_OR_FOLDER": "label new files"}


def prepare(config: schema.Config, run: Path, record: RunRecord) -> FileContent:
    """Documents and encoder; what cannot work fails here, in the order of how quickly it can be found out.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    data = sources.file_content(config.data)
    rows = sources.manifest(data)
    source = None
    if isinstance(config.model, schema.PretrainedConfig):
        source = build.pretrained_encoder(config.model, data.max_length)
    log.info("%s: %d rows, %d of them rejected.", rows.source, len(rows.rows) + len(rows.rejected), len(rows.rejected))
    corpus = sources.corpus(data, config.split, rows)
    record.check_data(str(corpus.source), fingerprint(corpus.documents))
    advice = advice_on_folds(len(corpus.documents), sources.split_settings(config.split))
    if advice:
        log.info("%s", advice)
    report = sources.audit(data, corpus)
    corpus.write(run / "data", report)
    for sentence in sources.say_findings(report):
        record.keep(sentence)
    log.info("Documents: %s.", describe_account(corpus))
    if source is None:
        assert isinstance(config.model, schema.ScratchConfig), "a model is either pretrained or from scratch"
        source = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")))
    return FileContent(corpus, source)


def random_views(augment: schema.AugmentConfig, source: Encoder) -> RandomViews | None:
    """What training sees of a document; None: its first window as it is.

    Raises:
        ConfigError: tokens are to be hidden, and the tokenizer has nothing to hide them behind.
    """
    if not (augment.random_window or augment.token_dropout):
        return None
    hidden = source.tokenizer.mask_token_id
    if hidden is None and augment.token_dropout:
        raise ConfigError("data.augment.token_dropout needs a tokenizer with a mask token, and this one has none.")
    return RandomViews(augment.random_window, augment.token_dropout, int(hidden or 0), source.tokenizer.all_special_ids)


def document_loss(loss: schema.LossConfig, facts: Facts) -> DocumentLoss:
    """What is minimised, with class weights from what an epoch shows."""
    weights = class_weights(loss.class_weights, facts.shown_counts, loss.beta)
    return DocumentLoss(loss.name, weights, label_smoothing=loss.label_smoothing, gamma=loss.gamma)


def chance(facts: Facts) -> Chance:
    """What an untrained model and the class shares reach on this split."""
    levels = chance_levels(facts.train_counts, facts.val_counts)
    most_frequent = dict.fromkeys(levels, "always answering with the most frequent class")
    return Chance(
        uniform_loss=uniform_loss(len(facts.labels)),
        choices="the number of classes",
        train_loss=chance_levels(facts.train_counts, facts.train_counts)["loss"],
        name="majority",
        levels=levels,
        words=most_frequent | {"loss": "answering with the shares of the classes"},
    )
