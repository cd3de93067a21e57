"""A cascade: stages are tried in order until one is confident enough; every answer says which one, and why not earlier.

Its configuration is `cascade.json` in the model folder, which `doctune cascade-tune` writes:

    {"schema": 1, "stages": [
        {"name": "forest", "threshold": 0.62},
        {"name": "http", "threshold": 0.8, "endpoint": {"url": "https://host/v1", "model": "…", "key_variable": "KEY"}},
        {"name": "transformer", "threshold": null}]}

A stage is confident of a label whose score is at least its threshold. The last stage's threshold may be null: then a
text of which no stage was confident gets the answer of the last stage that had one, whatever its score. With a number
there the cascade abstains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from doctune.errors import ArtifactError, ConfigError
from doctune.files import write_json
from doctune.inference.artifact import Artifact, load_artifact
from doctune.inference.endpoint import ChatEndpoint, EndpointSettings
from doctune.inference.engine import CLASSIFIERS, Engine, load
from doctune.inference.forest import load_forest
from doctune.inference.stages import Stage, StageAnswer, TransformerStage

CASCADE_FILE = "cascade.json"
SCHEMA = 1
STAGES = ("transformer", "forest", "http")
# Read ahead and passed from stage to stage together.
TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Passed:
    """A stage that passed a text on, and why."""

    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


@dataclass(frozen=True)
class CascadeAnswer:
    """The label of one text and the stage that gave it; both are None where the cascade abstains.

    `probabilities` are in label order, None where the stage gives none. `passed` are the stages that were tried and
    whose answer was not taken, in order.
    """

    label: str | None
    score: float | None
    stage: str | None
    probabilities: tuple[float, ...] | None
    passed: tuple[Passed, ...]

    @property
    def reason(self) -> str:
        """Why the other stages that were tried did not answer, such as "forest: 0.48 below 0.62"."""
        return "; ".join(map(str, self.passed))


@dataclass(frozen=True)
class StageSettings:
    """One stage: `threshold` is the score from which on its label is taken; `endpoint` is for "http" alone."""

    name: str
    threshold: float | None
    endpoint: EndpointSettings | None = None


@dataclass(frozen=True)
class CascadeSettings:
    """The stages in order, and how they were chosen, in plain values; None where a person wrote the file."""

    stages: tuple[StageSettings, ...]
    tuning: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        problems = [*_problems(self.stages)]
        if problems:
            raise ConfigError(f"The cascade cannot be used: {' '.join(problems)}")

    def save(self, path: Path) -> None:
        """Write `cascade.json`."""
        values = {"schema": SCHEMA, "stages": [_plain(stage) for stage in self.stages]}
        write_json(path, values if self.tuning is None else values | {"tuning": self.tuning})


class Cascade:
    """Stages in order, ready to use.

    Args:
        stages: each with its threshold; None, for the last one only: its answer is taken whatever its score.
    """

    def __init__(self, stages: Sequence[tuple[Stage, float | None]]) -> None:
        self._stages = tuple(stages)

    def predict(self, texts: Iterable[str]) -> Iterator[CascadeAnswer]:
        """One answer per text, in order; reads ahead a bounded number of texts."""
        iterator = iter(texts)
        while chunk := list(islice(iterator, TEXTS_AT_ONCE)):
            yield from self._answer(chunk)

    def _answer(self, texts: Sequence[str]) -> list[CascadeAnswer]:
        found: dict[int, CascadeAnswer] = {}
        tried: list[list[tuple[str, StageAnswer, str]]] = [[] for _ in texts]  # stage, its answer, why it was not taken
        for stage, threshold in self._stages:
            left = [place for place in range(len(texts)) if place not in found]
            answers = stage.predict([texts[place] for place in left]) if left else []
            for place, answer in zip(left, answers, strict=True):
                reason = why_passed(answer, threshold)
                if reason is None:
                    found[place] = _taken(stage.name, answer, tried[place])
                else:
                    tried[place].append((stage.name, answer, reason))
        return [found.get(place) or self._without_confidence(tried[place]) for place in range(len(texts))]

    def _without_confidence(self, tried: Sequence[tuple[str, StageAnswer, str]]) -> CascadeAnswer:
        """The answer to a text of which no stage was confident; stages that had none are as if they were not there."""
        answered = [place for place, (_, answer, _) in enumerate(tried) if answer.label is not None]
        if self._stages[-1][1] is not None or not answered:
            return CascadeAnswer(None, None, None, None, tuple(Passed(name, reason) for name, _, reason in tried))
        name, answer, _ = tried[answered[-1]]
        return _taken(name, answer, [*tried[: answered[-1]], *tried[answered[-1] + 1 :]])


def why_passed(answer: StageAnswer, threshold: float | None) -> str | None:
    """Why an answer is not taken; None where it is."""
    if answer.label is None:
        return answer.reason
    if threshold is None or answer.score >= threshold:
        return None
    score, needed = f"{answer.score:.2f}", f"{threshold:.2f}"
    if score == needed:
        score, needed = f"{answer.score:.6f}", f"{threshold:.6f}"
    return f"{score} below {needed}"


def load_cascade(
    run: str | Path,
    *,
    file: Path | None = None,
    engine: Engine | None = None,
    backend: str | None = None,
    batch_size: int = 16,
) -> Cascade:
    """The cascade of a run folder or of a `model/` folder.

    Args:
        run: the folder.
        file: its configuration; None: `cascade.json` in the model folder.
        engine: the run's model where it is loaded already.
        backend, batch_size: of the model where it is not, see `doctune.load`; it is loaded only if a stage needs it.

    Raises:
        ArtifactError: the configuration or what a stage needs is missing or cannot be used.
        ConfigError: the configuration contradicts itself, or a key or a library is missing.
    """
    artifact = engine.artifact if engine is not None else classifier_artifact(run)
    settings = read_settings(file or artifact.folder / CASCADE_FILE)

    stages = [
        (open_stage(wanted.name, artifact, wanted.endpoint, engine, backend, batch_size), wanted.threshold)
        for wanted in settings.stages
    ]
    return Cascade(stages)


def open_stage(
    name: str,
    artifact: Artifact,
    endpoint: EndpointSettings | None = None,
    engine: Engine | None = None,
    backend: str | None = None,
    batch_size: int = 16,
) -> Stage:
    """One stage, ready to use.

    Args:
        name: of STAGES.
        artifact: of the model folder.
        endpoint: for "http" alone.
        engine, backend, batch_size: for "transformer" alone, see `load_cascade`.

    Raises:
        ArtifactError: what it needs is missing or cannot be used.
        ConfigError: a key or a library is missing.
    """
    if name == "http":
        assert endpoint is not None, "the stage http comes with its endpoint"
        return ChatEndpoint(endpoint, artifact.labels)
    if name == "forest":
        return load_forest(artifact.folder, artifact.labels)
    return TransformerStage(engine or load(artifact.folder, backend=backend, batch_size=batch_size))


def classifier_artifact(run: str | Path) -> Artifact:
    """The settings of a run's classifier.

    Raises:
        ArtifactError: there is no model, or one of another task.
    """
    artifact = load_artifact(Path(run))
    if artifact.task not in CLASSIFIERS:
        raise ArtifactError(f"{artifact.folder} was trained for {artifact.task}; a cascade needs a classifier.")
    return artifact


def read_settings(path: Path) -> CascadeSettings:
    """Read `cascade.json`.

    Raises:
        ArtifactError: it is missing, is not JSON, or of a newer schema.
        ConfigError: it contradicts itself.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no cascade. `doctune cascade-tune RUN` makes one.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}.") from error
    try:
        if values["schema"] > SCHEMA:
            raise ArtifactError(f"{path} has schema {values['schema']}; this version of doctune knows up to {SCHEMA}.")
        stages = tuple(_stage_settings(stage) for stage in values["stages"])
        return CascadeSettings(stages, values.get("tuning"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is no cascade ({type(error).__name__}: {error}): it needs a schema and stages, each with a name "
            "and a threshold."
        ) from error


def endpoint_settings(values: Mapping[str, Any]) -> EndpointSettings:
    """An endpoint's settings from plain values.

    Raises:
        ConfigError: a key is unknown or missing, or a value cannot be used.
    """
    _refuse_unknown("an endpoint", values, EndpointSettings)
    missing = [name for name in ("url", "model") if name not in values]
    if missing:
        raise ConfigError(f"The endpoint lacks {' and '.join(missing)}.")
    return EndpointSettings(**values)


def _stage_settings(values: Mapping[str, Any]) -> StageSettings:
    _refuse_unknown("a stage", values, StageSettings)
    endpoint = values.get("endpoint")
    return StageSettings(values["name"], values["threshold"], endpoint and endpoint_settings(endpoint))


def _refuse_unknown(what: str, values: Mapping[str, Any], kind: type) -> None:
    known = [each.name for each in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"There is no key {', '.join(unknown)} of {what}; there are {', '.join(known)}.")


def _problems(stages: Sequence[StageSettings]) -> Iterator[str]:
    names = [stage.name for stage in stages]
    if not stages:
        yield f"it has no stage; name at least one of {', '.join(STAGES)}."
    for name in dict.fromkeys(names):
        if name not in STAGES:
            yield f"there is no stage {name!r}; there are {', '.join(STAGES)}."
        elif names.count(name) > 1:
            yield f"it has the stage {name!r} {names.count(name)} times."
    for place, stage in enumerate(stages):
        yield from _stage_problems(stage, is_last=place == len(stages) - 1)


def _stage_problems(stage: StageSettings, is_last: bool) -> Iterator[str]:
    threshold = stage.threshold
    if threshold is None and not is_last:
        yield f"only the last stage may have the threshold null, and {stage.name!r} is not: give it a number."
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 <= threshold <= 1):
        yield f"the threshold of {stage.name!r} is {threshold!r} and must be a number from 0 to 1."
    if (stage.name == "http") != (stage.endpoint is not None):
        yield (
            "the stage 'http' needs an endpoint with url and model."
            if stage.name == "http"
            else f"the stage {stage.name!r} has no endpoint; only 'http' has one."
        )


def _plain(stage: StageSettings) -> dict[str, Any]:
    values = {"name": stage.name, "threshold": stage.threshold}
    return values if stage.endpoint is None else values | {"endpoint": asdict(stage.endpoint)}


def _taken(name: str, answer: StageAnswer, tried: Sequence[tuple[str, StageAnswer, str]]) -> CascadeAnswer:
    passed = tuple(Passed(stage, reason) for stage, _, reason in tried)
    return CascadeAnswer(answer.label, answer.score, name, answer.probabilities, passed)
