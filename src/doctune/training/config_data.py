"""The data part of a run's configuration: what every key of each kind of data set means, its unit and its default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from doctune.errors import ConfigError


@dataclass
class ExtractConfig:
    """Limits for reading one file, kept in a worker process."""

    timeout_s: float = 30.0
    memory_mb: int = 2048
    workers: int | None = None
    """Worker processes; None: one per core. Results never depend on it."""
    pdf_backend: str = "pymupdf"
    """pymupdf (AGPL or commercial) or pypdfium2 (BSD / Apache)."""
    scrub: bool = False
    """Replace e-mail addresses, phone and card numbers, IBANs, IP addresses and keys before text is stored."""


@dataclass
class SamplingConfig:
    """How often an epoch shows the documents of each class; class weights are computed from what it shows."""

    method: str = "none"
    """none: every document once; oversample: rare classes more often; undersample: common classes less often."""
    strength: float = 1.0
    """A class of n documents is shown n^(1 - strength) × reference^strength times, the reference being the largest
    class (oversample) or the smallest (undersample): 1 makes all equal, 0.5 goes half the way."""


@dataclass
class AugmentConfig:
    """Random views of training documents; validation and test always see the head window as it is."""

    random_window: float = 0.0
    """The probability that a document shows one of its leading windows instead of the first; 0 to 1."""
    windows: int = 4
    """How many leading windows of a long document are read for it."""
    token_dropout: float = 0.0
    """The probability that a token is hidden behind the mask token; 0 to 1."""

    def windows_to_read(self) -> int:
        """Windows of each document that training may see."""
        return self.windows if self.random_window else 1


@dataclass
class DataConfig:
    """What every data set has."""

    kind: str = MISSING
    """Which datamodule reads it."""
    max_length: int = 512
    """Window length in tokens, special tokens included; must not exceed what the encoder can read."""
    cache_dir: str = ".doctune"
    """Where extracted texts and tokens are kept and shared between runs."""
    prune_unused_days: float | None = None
    """`doctune prepare` removes cache entries that no run has used for so many days; None keeps all."""
    num_workers: int | None = None
    """Processes that prepare batches; None: chosen from the machine. Results never depend on it."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class FileContentConfig(DataConfig):
    """Files with one label each, listed in a manifest."""

    kind: str = "file_content"
    manifest: str = MISSING
    """CSV, TSV, JSONL or Parquet with a path and a label per row; an SQLite database; or a folder per class."""
    query: str | None = None
    """The SELECT that gives path, label and (optionally) confidence; needed by, and only for, an SQLite database."""
    root: str | None = None
    """The folder that relative paths start from; None: the manifest's own folder."""
    path_column: str = "path"
    text_column: str = "text"
    """Read where there is no column of paths: the texts themselves."""
    label_column: str = "label"
    confidence_column: str = "confidence"
    """Rows without this column count as confidence 1."""
    min_confidence: float = 0.0
    """Rows below it are left out and counted; 0 to 1."""
    max_documents: int | None = None
    """Use a sample of about so many rows, each class in proportion, to try something out; None: all."""
    max_unusable: float = 0.2
    """The largest share of rows that may be unusable (damaged, vanished, …) before the run refuses to start."""
    duplicate_threshold: float = 0.8
    """Texts whose word shingles are at least so similar (Jaccard) are never on two sides of a split; 1: copies only."""
    extract: ExtractConfig = field(default_factory=ExtractConfig)


@dataclass
class ChunksConfig(FileContentConfig):
    """Files that are longer than an encoder's window, with one label each: read whole, in chunks of `max_length`."""

    kind: str = "chunks"
    chunk_stride: int = 0
    """Tokens that neighbouring chunks share; at most `max_length` - 3, since a chunk has two special tokens."""
    max_chunks: int = 20
    """Chunks read of a document at most; longer ones are counted and said."""
    keep: str = "head"
    """Which chunks of a longer one: head, the first; spread, evenly over it, the first and the last among them;
    head_tail, half from its beginning and half from its end."""
    pooling: str = "attention"
    """How chunk vectors become one: attention, a weighted mean with learned weights; mean; max; transformer, attention
    after a layer in which the chunks see each other."""
    chunk_vector: str = "cls"
    """What stands for a chunk: cls, its first token's output; mean, that of all its tokens on average."""
    chunk_positions: bool = True
    """Add a learned vector to each chunk that says which one it is."""
    chunks_per_pass: int = 8
    """Chunks that the encoder reads at once. Memory while training grows with it, not with the documents' length;
    results do not depend on it."""


@dataclass
class SquadConfig(DataConfig):
    """Questions about texts, in the form of SQuAD 1.1 or 2.0."""

    kind: str = "squad"
    path: str = MISSING
    """SQuAD's JSON, a folder of Parquet files, or a data set's name on the hub, such as rajpurkar/squad."""
    test_path: str | None = None
    """The same for the questions that judge. None: the validation part of a data set that has one, else a part of
    `path`, by article."""
    doc_stride: int = 128
    """Tokens of the context that neighbouring windows share."""
    max_question_length: int = 64
    """A longer question is cut after so many tokens."""
    max_answer_length: int = 30
    """Tokens of the longest answer that is given."""
    empty_windows: float = 1.0
    """The share of training windows without the answer to their question that is shown; 0 to 1."""
    max_questions: int | None = None
    """Train on a sample of so many questions, to try something out; None: all."""
    max_judge_questions: int | None = None
    """The same for the validation part and the test part, each."""


@dataclass
class TargetConfig:
    """One of several targets: a column of its own, or groups of another target's labels."""

    kind: str = "single"
    """single: one label per text; multi: any number of them, also none."""
    column: str | None = None
    """The column of its labels; None: the one that has the target's name."""
    separator: str = ","
    """For multi: what stands between the labels of a text value; JSON lists need none."""
    names: str | None = None
    """A text file whose line n, from 0, names label id n, where the column has ids; None: it has names."""
    source: str | None = None
    """The target that this one follows from, instead of a column of its own."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """With `source`: each label of this target, and the labels of the source that it stands for."""
    mixed: str | None = None
    """With `source`, for single: the label of texts whose labels belong to several groups; None: their target is
    missing."""
    weight: float = 1.0
    """With loss.balance=fixed: what its mean loss is multiplied by."""


@dataclass
class MultiTaskConfig(DataConfig):
    """Texts with several targets, each with one label per text or with any number of them."""

    kind: str = "multi_task"
    train: list[str] = MISSING
    """CSV, TSV, JSONL or Parquet with a text and its labels per row."""
    val: list[str] = field(default_factory=list)
    """The same for the texts that choose; without them, a part of `train`."""
    test: list[str] = field(default_factory=list)
    """The same for the texts that judge; without them, a part of `train`."""
    # Hydra can give a typed dictionary no new keys from the command line; `typed_targets` checks the entries.
    targets: dict[str, Any] = field(default_factory=dict)
    """What is learnt, in the order of the heads: a name for each, with the keys of `TargetConfig`."""
    text_column: str = "text"
    id_column: str | None = None
    """None: ids are made from the texts."""
    header: list[str] | None = None
    """The columns of CSV and TSV without a header; None: their first line names them."""
    quoted: bool = True
    """Whether a field of CSV and TSV may stand in double quotes; false: they are characters like any other."""
    stratify: str | None = None
    """The target that has its labels in every part in proportion; None: the first one."""
    vector: str = "mean"
    """What the heads read of a text. mean: its tokens' last states on average; cls: that of its first token."""
    max_train: int | None = None
    """Train on a sample of so many texts, to try something out; None: all."""
    max_unusable: float = 0.2
    """The largest share of rows that may be unusable before the run refuses to start."""
    duplicate_threshold: float = 0.8
    """Texts whose word shingles are at least so similar (Jaccard) are never on two sides of a split; 1: copies only."""

    def typed_targets(self) -> dict[str, TargetConfig]:
        """The targets by name.

        Raises:
            ConfigError: there is no such key, or its value has the wrong type.
        """
        return {name: _typed_target(name, values) for name, values in self.targets.items()}


@dataclass
class InstructionsConfig(DataConfig):
    """Conversations that a causal language model learns to answer, one to a line."""

    kind: str = "instructions"
    train: list[str] = MISSING
    """JSONL (or Parquet) with, per row, prompt and completion; instruction, output and input if there is one; question
    and answer; or messages."""
    val: list[str] = field(default_factory=list)
    """The same for the conversations that choose; without them, a part of `train`."""
    test: list[str] = field(default_factory=list)
    """The same for the conversations that judge; without them, a part of `train`."""
    too_long: str = "leave_out"
    """A conversation of more than `max_length` tokens. leave_out: it is not used; truncate: its end is cut off. Either
    way it is counted."""
    packing: bool = False
    """Put several training conversations into one row of up to `max_length` tokens; none sees another. The effective
    batch then counts rows."""
    max_train: int | None = None
    """Train on a sample of so many conversations, to try something out; None: all."""
    max_unusable: float = 0.2
    """The largest share of rows that may be unusable before the run refuses to start."""
    duplicate_threshold: float = 0.8
    """Conversations whose word shingles are at least so similar (Jaccard; the system's words aside) are never on two
    sides of a split; 1: copies only."""
    generate: int = 50
    """How many validation and how many test prompts the model answers, greedily, before training and after it; 0: none,
    and only losses are judged."""
    max_new_tokens: int = 256
    """Tokens of the longest answer that is generated."""


def _typed_target(name: str, values: Any) -> TargetConfig:
    key = f"data.targets.{name}"
    known = [each.name for each in fields(TargetConfig)]
    if not isinstance(values, dict):
        raise ConfigError(f"{key}={values} must be keys with values, such as {{kind: multi, column: {name}}}.")
    if unknown := [each for each in values if each not in known]:
        raise ConfigError(f"There is no key {key}.{unknown[0]}; a target has {', '.join(known)}.")
    try:
        return cast(TargetConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TargetConfig), values)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {str(error).splitlines()[0]}") from error
