"""The `model/` folder: weights and tokenizer in Hugging Face format, and in `doctune.json` what they need besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from doctune import __version__
from doctune.corpus.targets import TargetSpec
from doctune.decode.answers import SpanSettings
from doctune.errors import ArtifactError
from doctune.files import write_json
from doctune.labels import Labels
from doctune.text.chunks import ChunkSettings
from doctune.text.extract import ExtractSettings
from doctune.text.questions import WindowSettings

SCHEMA = 1
SETTINGS_FILE = "doctune.json"
# The task of language models: they write text, and are not run as functions of arrays.
GENERATION = "instruction_tuning"


@dataclass(frozen=True)
class ReadingSettings:
    """How a reader cuts contexts and chooses answers.

    `no_answer_threshold`: no answer is given where the score of none is so much above the best span's; None always
    answers.
    """

    windows: WindowSettings
    spans: SpanSettings
    no_answer_threshold: float | None = None


@dataclass(frozen=True)
class TargetSettings:
    """What a head tells apart.

    `thresholds`: for targets with any number of labels per text, the probability from which on each label applies, in
    label order, chosen on validation data; None: 0.5 for all.
    """

    spec: TargetSpec
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Artifact:
    """What inference needs besides weights and tokenizer.

    `reading` is for readers, labels are for classifiers, `chunks` for those of long documents. `temperature` divides
    the logits of a classifier before they become probabilities (Guo et al. 2017): chosen on validation data. `targets`
    are those of a model with several heads, in their order, which has no labels of its own.
    """

    folder: Path
    task: str
    labels: Labels
    max_length: int
    extract: ExtractSettings
    reading: ReadingSettings | None = None
    chunks: ChunkSettings | None = None
    temperature: float = 1.0
    targets: tuple[TargetSettings, ...] = ()

    def save(self) -> None:
        """Write `doctune.json` into the folder."""
        settings = {
            "schema": SCHEMA,
            "doctune_version": __version__,
            "task": self.task,
            "labels": list(self.labels.names),
            "max_length": self.max_length,
            "extract": asdict(self.extract),
            "temperature": self.temperature,
        }
        if self.reading is not None:
            settings["reading"] = asdict(self.reading)
        if self.chunks is not None:
            settings["chunks"] = asdict(self.chunks)
        if self.targets:
            settings["targets"] = [_target_settings(target) for target in self.targets]
        write_json(self.folder / SETTINGS_FILE, settings)


def model_folder(run: Path) -> Path:
    """The model folder of a run, or `run` itself where it is one.

    Raises:
        ArtifactError: neither.
    """
    for folder in (run, run / "model"):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    if not run.exists():
        raise ArtifactError(f"{run}: there is no such run folder. Finished runs are under outputs/ and multirun/.")
    raise ArtifactError(
        f"{run} holds no exported model: {SETTINGS_FILE} is neither there nor in its model/ folder. "
        "Give the folder of a finished run, or its model/ folder."
    )


def load_artifact(run: Path) -> Artifact:
    """Read `doctune.json` of a run or a model folder.

    Raises:
        ArtifactError: it is missing, damaged, or of a newer schema.
    """
    folder = model_folder(run)
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        return _from_settings(folder, settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / SETTINGS_FILE} cannot be used: {type(error).__name__}: {error}.") from error


def refuse_writer(artifact: Artifact) -> None:
    """Refuse a language model where labels or answers are wanted.

    Raises:
        ArtifactError: it is one.
    """
    if artifact.task == GENERATION:
        raise ArtifactError(
            f"{artifact.folder} was tuned on instructions, so it writes text, and neither labels nor answers from "
            f"documents, and is not exported to ONNX: doctune generate {artifact.folder} --prompt TEXT."
        )


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the token that fills up a batch and of the one that can stand for no answer, None without one."""

    pad: int
    cls: int | None


def load_tokenizer(folder: Path) -> tuple[Tokenizer, SpecialTokens]:
    """The tokenizer of a model folder, and the ids of its special tokens, which its own file does not name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust library raises plain Exception
        raise ArtifactError(f"{folder / 'tokenizer.json'} cannot be loaded: {error}.") from error
    path = folder / "tokenizer_config.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        pad, cls = (_token_id(tokenizer, names.get(kind)) for kind in ("pad_token", "cls_token"))
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be used: {type(error).__name__}: {error}.") from error
    return tokenizer, SpecialTokens(pad or 0, cls)


def _token_id(tokenizer: Tokenizer, token: str | Mapping[str, str] | None) -> int | None:
    """The id of a token, which older files write as a record."""
    content = token["content"] if isinstance(token, Mapping) else token
    return None if content is None else tokenizer.token_to_id(content)


def _from_settings(folder: Path, settings: Mapping[str, Any]) -> Artifact:
    if settings["schema"] > SCHEMA:
        raise ArtifactError(
            f"{folder / SETTINGS_FILE} has schema {settings['schema']}; doctune {__version__} knows up to {SCHEMA}. "
            "Update doctune: pip install -U doctune."
        )
    return Artifact(
        folder=folder,
        task=settings["task"],
        labels=Labels(tuple(settings["labels"])),
        max_length=int(settings["max_length"]),
        extract=ExtractSettings(**settings["extract"]),
        reading=_reading(settings["reading"]) if "reading" in settings else None,
        chunks=ChunkSettings(**settings["chunks"]) if "chunks" in settings else None,
        temperature=float(settings.get("temperature", 1.0)),
        targets=tuple(_target(each) for each in settings.get("targets", ())),
    )


def _target_settings(target: TargetSettings) -> dict[str, Any]:
    spec, thresholds = target.spec, target.thresholds
    named = {"name": spec.name, "kind": spec.kind, "labels": list(spec.labels.names)}
    return named if thresholds is None else named | {"thresholds": list(thresholds)}


def _target(settings: Mapping[str, Any]) -> TargetSettings:
    spec = TargetSpec(settings["name"], settings["kind"], Labels(tuple(settings["labels"])))
    thresholds = settings.get("thresholds")
    return TargetSettings(spec, None if thresholds is None else tuple(map(float, thresholds)))


def _reading(settings: Mapping[str, Any]) -> ReadingSettings:
    windows, spans = WindowSettings(**settings["windows"]), settings["spans"]
    limits = SpanSettings(spans["max_answer_length"], spans["n_best"])
    return ReadingSettings(windows, limits, settings["no_answer_threshold"])
