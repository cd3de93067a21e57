"""Questions that are answered by a span of a text."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
from lightning import Callback

from doctune.corpus.answer_baselines import JUDGED, add_baselines, judge_cheap_answers
from doctune.corpus.division import fingerprint
from doctune.corpus.question_lengths import analyse_lengths, describe_lengths
from doctune.corpus.questions import QuestionCorpus
from doctune.decode.answers import SpanSettings
from doctune.errors import ConfigError
from doctune.inference.artifact import Artifact, ReadingSettings
from doctune.inference.profile import MAX_QUESTIONS, profile_reader
from doctune.labels import Labels
from doctune.nets.assemble import reader
from doctune.scoring.squad import Version
from doctune.text.extract import ExtractSettings
from doctune.training import build, questions
from doctune.training import config as schema
from doctune.training.build import Encoder
from doctune.training.callbacks.answers import AnswerWriter
from doctune.training.callbacks.learning import Chance
from doctune.training.data.squad import SquadDataModule, SquadFacts, TokenFacts
from doctune.training.modules.question_answering import QuestionAnsweringModule
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task, save_encoder

log = logging.getLogger(__name__)


class QuestionAnswering(Task):
    """Answer questions from texts."""

    name = "question_answering"
    scores = ("f1", "exact_match")

    def __init__(self, corpus: QuestionCorpus, source: Encoder) -> None:
        self.corpus = corpus
        self.source = source
        self.version: Version = "2.0" if corpus.is_v2 else "1.1"
        self._judged = {part: corpus.part(part) for part in JUDGED}
        self._levels: dict[str, float] = {}

    def judge_baselines(self, run: Path) -> None:
        """Counted words, and for SQuAD 2.0 silence."""
        judge_cheap_answers(self.corpus, self.version, run)

    def datamodule(self, config: schema.Config) -> SquadDataModule:
        """Batches of windows."""
        data = questions.squad(config.data)
        tokenizer = self.source.tokenizer
        return SquadDataModule(
            self.corpus,
            self.source.backend,
            TokenFacts(
                pad_id=int(tokenizer.pad_token_id),
                cls_id=tokenizer.cls_token_id,
                has_types="token_type_ids" in tokenizer.model_input_names,
                pads_left=self.source.pads_left,
            ),
            cache=Path(data.cache_dir),
            settings=questions.window_settings(data, question_first=not self.source.pads_left),
            empty_windows=data.empty_windows,
            plan=build.batch_plan(config.trainer),
            seed=config.seed,
            views=build.random_views(data.augment, self.source),
            num_workers=build.num_workers(data),
        )

    def facts(self, datamodule: SquadDataModule) -> SquadFacts:
        """Counts of questions and windows."""
        return datamodule.facts()

    def module(self, config: schema.Config, datamodule: SquadDataModule, precision: str) -> QuestionAnsweringModule:
        """The reader."""
        facts = datamodule.facts()
        net = reader(self.source.config, self.source.weights)
        build.prepare_net(net, config)
        return QuestionAnsweringModule(
            net,
            build.optimisation(config, facts.steps_per_epoch, precision),
            num_questions=(facts.num_questions["val"], facts.num_questions["test"]),
            version=self.version,
            spans=SpanSettings(max_answer_length=questions.squad(config.data).max_answer_length),
            label_smoothing=config.loss.label_smoothing,
            releases_layers=config.finetune.strategy == "gradual",
        )

    def chance(self, datamodule: SquadDataModule) -> Chance:
        """What choosing blindly and counting words reach."""
        blind = datamodule.facts().uniform_loss
        return Chance(
            uniform_loss=blind,
            choices="the number of places to choose from",
            train_loss=blind,
            prior="choosing places blindly",
            name="lexical",
            levels=self._levels | {"loss": blind},
            words=dict.fromkeys(self.scores, "the rarest words of the sentence most like the question")
            | {"loss": "choosing places blindly"},
            remedy="a model that has seen more text (model=minilm)",
        )

    def before_training(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: QuestionAnsweringModule,
        datamodule: SquadDataModule,
        record: RunRecord,
    ) -> None:
        """Judge the model as it is before it learns, once."""
        baselines = json.loads((run / "data" / "baselines.json").read_text(encoding="utf-8"))
        self._levels = {name: baselines["lexical"]["val"][name] for name in self.scores}
        if "length_analysis" not in record.facts:
            self._describe(config, datamodule, record)
        if "untrained" not in baselines:
            log.info("The model as it is before training answers the validation and test questions.")
            self._judge_untrained(config, run, precision, module, datamodule)

    def _describe(self, config: schema.Config, datamodule: SquadDataModule, record: RunRecord) -> None:
        settings = questions.window_settings(questions.squad(config.data))
        train = self.corpus.part("train")
        lengths = analyse_lengths(self.source.backend, train, datamodule.tokens("train"), settings)
        log.info("%s", describe_lengths(lengths, settings))
        record.update(version=self.version, windows=dict(datamodule.facts().num_windows), length_analysis=lengths)

    def _judge_untrained(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: QuestionAnsweringModule,
        datamodule: SquadDataModule,
    ) -> None:
        folder = run / "predictions" / "untrained"
        writer = AnswerWriter(folder, self._judged, self.version, remember=lambda threshold: None)
        trainer = build.reader(config, precision, writer)
        trainer.validate(module, datamodule=datamodule, verbose=False)
        trainer.test(module, datamodule=datamodule, verbose=False)
        answers = {
            part: pq.read_table(folder / f"{part}.parquet", columns=["prediction"])["prediction"].to_pylist()
            for part in JUDGED
        }
        shutil.rmtree(folder)
        module.train()  # as it was: evaluation leaves it in the other mode
        add_baselines(run, self._judged, {"untrained": answers}, self.version)

    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """Answers to every judged question."""

        def remember(threshold: float | None) -> None:
            record.update(no_answer_threshold=threshold)

        return [AnswerWriter(run / "predictions", self._judged, self.version, remember)]

    def export(self, config: schema.Config, module: QuestionAnsweringModule, folder: Path, record: RunRecord) -> None:
        """A stock reader."""
        save_encoder(self.source, module, config.data.max_length, folder)
        windows = questions.window_settings(questions.squad(config.data), question_first=not self.source.pads_left)
        reading = ReadingSettings(windows, module.spans, record.facts["no_answer_threshold"])
        Artifact(folder, self.name, Labels(()), config.data.max_length, ExtractSettings(), reading).save()
        asked = [(question.text, question.context) for question in self._judged["test"][:MAX_QUESTIONS]]
        record.update(inference=profile_reader(folder, asked))

    def hints(self, run: Path) -> Mapping[str, str]:
        """Ask it."""
        return {f"doctune ask {run} --document FILE --question 'Who …?'": "ask it something"}


def prepare(config: schema.Config, run: Path, record: RunRecord) -> QuestionAnswering:
    """Questions and encoder; what cannot work fails here, in the order of how quickly it can be found out.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    data = questions.squad(config.data)
    source = _pretrained(config)
    corpus = questions.corpus(data, config.split)
    record.check_data(str(corpus.source), fingerprint(corpus.documents))
    corpus.write(run / "data")
    return QuestionAnswering(corpus, source or encoder(config, corpus))


def encoder(config: schema.Config, corpus: QuestionCorpus) -> Encoder:
    """The encoder that a configuration asks for; one from scratch learns its vocabulary from the training questions.

    Raises:
        DoctuneError: it cannot be had, or not read such windows.
    """
    found = _pretrained(config)
    if found is None:
        assert isinstance(config.model, schema.ScratchConfig), "a model is either pretrained or from scratch"
        found = build.scratch_encoder(config.model, _texts(corpus), Path(config.data.cache_dir))
    return found


def _refuse_head_dropout(model: schema.ModelConfig, source: Encoder) -> None:
    """Of the readers in transformers only DistilBERT's has a dropout before its last layer."""
    if model.head_dropout is not None and not hasattr(source.config, "qa_dropout"):
        raise ConfigError(
            f"model.head_dropout={model.head_dropout}: a {source.config.model_type} reader has no dropout before its "
            "head. Leave it out; model.dropout is that of the encoder."
        )


def _pretrained(config: schema.Config) -> Encoder | None:
    if isinstance(config.model, schema.PretrainedConfig):
        source = build.pretrained_encoder(config.model, config.data.max_length)
        _refuse_head_dropout(config.model, source)
        return source
    return None


def _texts(corpus: QuestionCorpus) -> list[str]:
    """All that training questions show, each context once."""
    train = corpus.part("train")
    return [*dict.fromkeys(question.context for question in train), *(question.text for question in train)]
