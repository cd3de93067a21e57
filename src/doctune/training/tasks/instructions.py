"""Conversations that a causal language model learns to answer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lightning import Callback, LightningModule

from doctune.corpus.division import fingerprint
from doctune.corpus.instruction_corpus import (
    InstructionCorpus,
    InstructionParts,
    Reading,
    describe_instructions,
    prepare_instructions,
)
from doctune.corpus.instructions import InstructionFile, read_instructions
from doctune.corpus.token_baselines import unigram_losses
from doctune.errors import ConfigError
from doctune.files import write_json
from doctune.inference.artifact import GENERATION, Artifact
from doctune.inference.generation import Sampling, complete
from doctune.labels import Labels
from doctune.nets.causal import causal_lm, packs_apart
from doctune.nets.chat import padding_id, template_of
from doctune.nets.encoder import max_window
from doctune.scoring.generation import merge_scores, score_completions, score_losses, summarise_completions
from doctune.text.chat import Message
from doctune.text.extract import ExtractSettings
from doctune.training import build
from doctune.training import config as schema
from doctune.training.build import Encoder
from doctune.training.callbacks.completions import CompletionWriter, JudgedConversations
from doctune.training.callbacks.learning import Chance
from doctune.training.data.instructions import InstructionDataModule, InstructionFacts
from doctune.training.modules.causal_lm import CausalLMModule
from doctune.training.record import RunRecord
from doctune.training.sources import split_settings
from doctune.training.tasks.task import Task, save_encoder

log = logging.getLogger(__name__)

JUDGED = ("val", "test")
UNTRAINED, UNIGRAM = "untrained", "unigram"
# The log names every other row; these are in the account, and can be nearly all of a file.
_LEFT_OUT_BY_CHOICE = ("not_sampled", "not_in_split")


class Instructions(Task):
    """Answer as in the training conversations.

    Args:
        corpus: conversations with their parts and tokens.
        source: the language model, about to be built.
        data: how much is generated, and how long.
        batch_size: prompts that are answered together.
    """

    name = GENERATION
    scores = ("perplexity",)

    def __init__(
        self, corpus: InstructionCorpus, source: Encoder, data: schema.InstructionsConfig, batch_size: int
    ) -> None:
        self.corpus = corpus
        self.source = source
        self._data = data
        self._batch_size = batch_size
        self._template = template_of(source.tokenizer)
        self._judged = {part: _judged(corpus, part) for part in JUDGED}
        self._untrained: dict[str, float] = {}

    def judge_baselines(self, run: Path) -> None:
        """The frequencies of the tokens of training completions."""
        losses = unigram_losses(self.corpus.tokens, {part: self.corpus.sequences(part) for part in ("train", *JUDGED)})
        scores = {part: score_losses(*losses[part]) for part in JUDGED}
        write_json(run / "data" / "baselines.json", {UNIGRAM: scores})

    def datamodule(self, config: schema.Config) -> InstructionDataModule:
        """Batches of token sequences."""
        return InstructionDataModule(
            self.corpus,
            pad_id=padding_id(self.source.tokenizer),
            row_length=config.data.max_length if self._data.packing else None,
            plan=build.batch_plan(config.trainer),
            seed=config.seed,
            num_workers=build.num_workers(config.data),
        )

    def facts(self, datamodule: InstructionDataModule) -> InstructionFacts:
        """Counts of conversations and tokens."""
        return datamodule.facts()

    def module(self, config: schema.Config, datamodule: InstructionDataModule, precision: str) -> CausalLMModule:
        """The language model.

        Raises:
            ConfigError: packing is asked for, and the architecture does not keep packed sequences apart.
        """
        assert self.source.weights is not None, "a decoder is pretrained"
        quantised = config.finetune.strategy == "qlora"
        net = causal_lm(self.source.config, self.source.weights, as_stored=quantised)
        if self._data.packing and not packs_apart(net, net.config.vocab_size):
            raise ConfigError(
                f"data.packing=true: a {net.config.model_type} does not keep sequences in one row apart, so each would "
                "see those before it. Leave it out: batches are of similar lengths anyway."
            )
        build.prepare_net(net, config)
        steps = datamodule.facts().steps_per_epoch
        optimisation = build.optimisation(config, steps, precision)
        return CausalLMModule(net, optimisation, label_smoothing=config.loss.label_smoothing)

    def chance(self, datamodule: InstructionDataModule) -> Chance:
        """What the model reaches before it is trained."""
        val = self._untrained["val"]
        words = "the model before training"
        return Chance(
            uniform_loss=val,
            choices="the number of tokens",
            train_loss=self._untrained["train"],
            prior=words,
            name=UNTRAINED,
            levels={"loss": val, "perplexity": math.exp(val)},
            words=dict.fromkeys(("loss", "perplexity"), words),
            remedy="more conversations",
            pairing="the completions belong to the prompts",
            has_learnt_before=True,
        )

    def before_training(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: CausalLMModule,
        datamodule: InstructionDataModule,
        record: RunRecord,
    ) -> None:
        """Judge the model as it is before it learns, once."""
        file = run / "data" / "baselines.json"
        baselines = json.loads(file.read_text(encoding="utf-8"))
        if UNTRAINED not in baselines:
            log.info("The model as it is before training is judged on the validation and test conversations.")
            record.update(learnt_tokens=dict(datamodule.facts().num_learnt))
            baselines[UNTRAINED] = self._judge_untrained(config, run, precision, module, datamodule)
            write_json(file, baselines)
        self._untrained = {part: scores["loss"] for part, scores in baselines[UNTRAINED].items()}

    def _judge_untrained(
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: CausalLMModule,
        datamodule: InstructionDataModule,
    ) -> dict[str, Any]:
        """Scores of both judged parts, and the loss of the training sample."""
        writer = self._writer(run, f"{UNTRAINED}_")
        trainer = build.reader(config, precision, writer)
        trainer.validate(module, datamodule=datamodule, verbose=False)
        train_loss = float(trainer.callback_metrics["train_eval/loss"])
        trainer.test(module, datamodule=datamodule, verbose=False)
        module.train()  # as it was: evaluation leaves it in the other mode
        scores = {part: _score_file(run / "predictions" / f"{UNTRAINED}_{part}.parquet") for part in JUDGED}
        return scores | {"train": {"loss": train_loss}}

    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """Losses of every judged conversation, and answers to some."""
        return [self._writer(run, "")]

    def export(self, config: schema.Config, module: CausalLMModule, folder: Path, record: RunRecord) -> None:
        """A stock language model with its tokenizer."""
        save_encoder(self.source, module, max_window(self.source.config), folder)
        Artifact(folder, self.name, Labels(()), config.data.max_length, ExtractSettings()).save()

    def hints(self, run: Path) -> Mapping[str, str]:
        """Prompt it."""
        return {f"doctune generate {run} --prompt 'What …?'": "ask it something"}

    def _writer(self, run: Path, prefix: str) -> CompletionWriter:
        return CompletionWriter(
            lambda part: run / "predictions" / f"{prefix}{part}.parquet",
            self._judged,
            self._answers,
            self._data.generate,
        )

    def _answers(self, module: LightningModule, prompts: Sequence[Sequence[Message]]) -> list[str]:
        shown = [self._template(messages, for_answer=True) for messages in prompts]
        net: Any = module.net
        found = complete(
            net,
            self.source.tokenizer,
            shown,
            Sampling(self._data.max_new_tokens),
            self._batch_size,
            max_window(self.source.config),
        )
        return [each.text for each in found]


def prepare(config: schema.Config, run: Path, record: RunRecord) -> Instructions:
    """Conversations and language model; what cannot work fails here, in the order of how quickly it can be found out.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    source, corpus = read_corpus(config)
    record.check_data(str(corpus.source), fingerprint(corpus.documents))
    corpus.write(run / "data")
    for sentence in notes(corpus):
        record.note(sentence)
    return Instructions(corpus, source, instructions(config.data), config.trainer.device_batch_size())


def read_corpus(config: schema.Config) -> tuple[Encoder, InstructionCorpus]:
    """The language model, about to be built, and the conversations, read by its tokenizer and divided.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    data = instructions(config.data)
    assert isinstance(config.model, schema.CausalConfig), "the configuration was checked"
    source = build.pretrained_decoder(config.model, data.max_length)
    reading = Reading(source.backend, template_of(source.tokenizer), data.max_length, data.too_long)
    corpus = prepare_instructions(
        InstructionParts(*(_files(paths) for paths in (data.train, data.val, data.test))),
        reading,
        split=split_settings(config.split),
        cache=Path(data.cache_dir),
        duplicate_threshold=data.duplicate_threshold,
        max_unusable=data.max_unusable,
        max_train=data.max_train,
    )
    log.info("Conversations: %s.", describe_instructions(corpus))
    for row in corpus.left_out():
        if row.status not in _LEFT_OUT_BY_CHOICE:
            log.info("Left out: %s: %s", row.path, row.reason)
    return source, corpus


def instructions(data: schema.DataConfig) -> schema.InstructionsConfig:
    """The data choice as conversations."""
    if not isinstance(data, schema.InstructionsConfig):
        raise ConfigError(f"data.kind={data.kind} is not a data set of conversations.")
    return data


def notes(corpus: InstructionCorpus) -> list[str]:
    """What a reader of the report must know of the data."""
    reasons = corpus.totals()["left_out_reasons"]
    repeated = sum(reasons.get(f"in_{part}_file", 0) for part in JUDGED)
    found = []
    if repeated:
        found.append(
            f"{repeated:,} conversations stand, as copies or nearly so, in the file of a part that judges them, and "
            "are left out where they would train; data/account.csv names both places."
        )
    if too_long := reasons.get("too_long"):
        found.append(
            f"{too_long:,} conversations are longer than data.max_length and are left out; a larger one reads them, "
            "data.too_long=truncate cuts them."
        )
    if corpus.num_truncated:
        found.append(f"{corpus.num_truncated:,} conversations are cut at data.max_length, where they do not end.")
    return found


def _files(paths: Sequence[str]) -> tuple[InstructionFile, ...]:
    return tuple(read_instructions(Path(path)) for path in paths)


def _judged(corpus: InstructionCorpus, part: str) -> JudgedConversations:
    return JudgedConversations(
        corpus.part(part),
        tuple(document.id for document in corpus.part_documents(part)),
        tuple(len(own) for own in corpus.sequences(part)),
    )


def _score_file(path: Path) -> dict[str, Any]:
    """The scores of a file of `CompletionWriter`."""
    table = pq.read_table(path, columns=["loss", "tokens", "reference", "prediction"]).to_pydict()
    given = [pair for pair in zip(table["prediction"], table["reference"], strict=True) if pair[0] is not None]
    completions = summarise_completions(score_completions(*zip(*given, strict=True))) if given else None
    return merge_scores(score_losses(table["loss"], table["tokens"]), completions)
