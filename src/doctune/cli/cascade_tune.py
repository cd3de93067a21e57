"""Choose the stages of a cascade, their order and their thresholds, and print the frontier of accuracy and latency.

Each stage labels the run's validation documents once: the transformer, the forest of a run with cascade.forest=true,
and any OpenAI-compatible chat endpoint. All orders of all subsets are computed from that, with thresholds on a grid.
Without an aim the most accurate cascade is chosen, the faster one of equals. The choice is judged once, on the test
documents. It is written to cascade.json in the model folder, which `doctune predict RUN … --cascade` reads.

An endpoint gets the beginning of every document that is asked about. Its key is read from the environment variable that
--endpoint-key names, and is written nowhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctune.errors import ConfigError

if TYPE_CHECKING:
    from doctune.inference.artifact import Artifact
    from doctune.inference.cascade import CascadeSettings
    from doctune.inference.cascade_documents import JudgedTexts
    from doctune.inference.cascade_tuning import Judgement, Option, StageRecord
    from doctune.inference.endpoint import EndpointSettings
    from doctune.inference.stages import Stage

EXAMPLE = "doctune cascade-tune outputs/2026-01-31/12-00-00 --max-latency-ms 20"
MAX_DOCUMENTS = 2000
_SHOWN_OPTIONS = 15
_PART_WORDS = {"val": "validation", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune cascade-tune`."""
    add = parser.add_argument
    add("run", metavar="RUN", help="a finished run's folder, or its model/ folder")
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument("--target-accuracy", type=float, metavar="X", help="the fastest that is so accurate, 0 to 1")
    aim.add_argument("--max-latency-ms", type=float, metavar="Y", help="the most accurate that takes no longer")
    add("--stages", metavar="A,B", help="transformer, forest, http (default: all that there are)")
    add("--endpoint-url", metavar="URL", help="of the API, such as https://host/v1")
    add("--endpoint-model", metavar="NAME", help="the model that the endpoint is asked for")
    add("--endpoint-key", metavar="VARIABLE", help="the environment variable that holds the endpoint's key")
    add(
        "--endpoint-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting of the endpoint, such as timeout_s=10 or requests_per_minute=60; may be repeated",
    )
    add("--max-documents", type=int, default=MAX_DOCUMENTS, metavar="N", help="of each part (default: %(default)s)")
    add("--backend", metavar="NAME", help="of the transformer: int8, onnx or torch (default: the first that is there)")
    add("--out", type=Path, metavar="FILE", help="where to write (default: cascade.json in the model folder)")


def run(args: argparse.Namespace) -> int:
    """Ask, compute, choose, judge, write."""
    _check(args)
    from doctune.inference.cascade import CASCADE_FILE, classifier_artifact
    from doctune.inference.cascade_documents import read_part
    from doctune.inference.cascade_tuning import choose, frontier, judge
    from doctune.reports.locate import find_run

    folder = find_run(args.run)
    artifact = classifier_artifact(folder)
    endpoint = _endpoint(args)
    stages = _stages(_stage_names(args, artifact, endpoint), artifact, endpoint, args.backend)
    val, test = (read_part(folder, part, artifact.extract, args.max_documents) for part in ("val", "test"))
    records = _ask(stages, val)
    print("\n".join(_stage_lines(records, val)))
    options = frontier(records, val.labels)
    chosen = choose(options, args.target_accuracy, args.max_latency_ms)
    print("\n".join(_frontier_lines(options, chosen, _aim(args))))
    judgements = judge(chosen, _ask(stages, test), test.labels)
    print("\n".join(_judgement_lines(judgements, test)))
    path = args.out or artifact.folder / CASCADE_FILE
    _settings(chosen, endpoint, _tuning(_aim(args), options, chosen, judgements, val, test)).save(path)
    print(f"wrote {path}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.target_accuracy is not None and not 0 < args.target_accuracy <= 1:
        raise ConfigError(f"--target-accuracy {args.target_accuracy:g} must be above 0 and at most 1.")
    if args.max_latency_ms is not None and not args.max_latency_ms > 0:
        raise ConfigError(f"--max-latency-ms {args.max_latency_ms:g} must be larger than 0.")
    if args.max_documents < 1:
        raise ConfigError(f"--max-documents {args.max_documents} must be at least 1.")
    if args.out is not None and args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a folder; name a file in it, such as {args.out / 'cascade.json'}.")


def _endpoint(args: argparse.Namespace) -> EndpointSettings | None:
    """The endpoint that is asked for; None where there is none."""
    from doctune.inference.cascade import endpoint_settings

    given = {"url": args.endpoint_url, "model": args.endpoint_model, "key_variable": args.endpoint_key}
    values = {name: value for name, value in given.items() if value is not None}
    values |= dict(_setting(text) for text in args.endpoint_set)
    wants = "http" in _named(args)
    if not values and not wants:
        return None
    if args.stages is not None and not wants:
        raise ConfigError(f"--stages {args.stages} leaves http out, and options of an endpoint are given: add http.")
    missing = [f"--endpoint-{name}" for name in ("url", "model") if name not in values]
    if missing:
        raise ConfigError(f"The stage http needs {' and '.join(missing)}.")
    return endpoint_settings(values)


def _setting(text: str) -> tuple[str, Any]:
    """A setting from `key=value`, its value JSON or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--endpoint-set {text} must be KEY=VALUE, such as timeout_s=10.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _named(args: argparse.Namespace) -> list[str]:
    return [name.strip() for name in (args.stages or "").split(",") if name.strip()]


def _stage_names(args: argparse.Namespace, artifact: Artifact, endpoint: EndpointSettings | None) -> list[str]:
    """The stages that are named, or all that there are.

    Raises:
        ConfigError: an unknown one, or one twice.
    """
    from doctune.inference.cascade import STAGES
    from doctune.inference.forest import FOREST_FILE

    if args.stages is None:
        has_forest = (artifact.folder / FOREST_FILE).is_file()
        there = {"transformer": True, "forest": has_forest, "http": endpoint is not None}
        return [name for name in STAGES if there[name]]
    names = _named(args)
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names or len(set(names)) < len(names):
        raise ConfigError(
            f"--stages {args.stages} must name each of {', '.join(STAGES)} at most once, and one at least."
        )
    return names


def _stages(
    names: Sequence[str], artifact: Artifact, endpoint: EndpointSettings | None, backend: str | None
) -> list[Stage]:
    from doctune.inference.cascade import open_stage

    return [open_stage(name, artifact, endpoint, backend=backend) for name in names]


def _ask(stages: Sequence[Stage], texts: JudgedTexts) -> list[StageRecord]:
    from doctune.inference.cascade_tuning import record_stage

    records = []
    for stage in stages:
        print(
            f"doctune: {stage.name} labels {len(texts.texts):,} {_PART_WORDS[texts.part]} documents …", file=sys.stderr
        )
        records.append(record_stage(stage, texts.texts))
    return records


def _stage_lines(records: Sequence[StageRecord], val: JudgedTexts) -> list[str]:
    lines = [f"Validation: {val.describe()}", "", f"{'stage':<12} {'answers':>8} {'accuracy':>9} {'ms/document':>12}"]
    for record in records:
        right, answered = record.is_right(val.labels).mean(), int(record.is_answered().sum())
        lines.append(f"{record.name:<12} {answered:>8} {_percent(right):>9} {record.latency_ms:>12.1f}")
        reason = record.commonest_reason()
        if reason:
            lines.append(f"{'':<12} {reason[1]} times without an answer: {reason[0]}")
    return lines


def _frontier_lines(options: Sequence[Option], chosen: Option, aim: str) -> list[str]:
    """The frontier as a table; of a long one, evenly spaced rows, the first, the last and the chosen one among them."""
    lines = ["", "Frontier: no other cascade of these stages is as accurate and as fast.", ""]
    lines.append(f"  {'accuracy':>8} {'ms/document':>12}  stages, thresholds, shares of the documents")
    shown = _evenly(options, chosen)
    for option in shown:
        mark = "*" if option is chosen else " "
        lines.append(f"{mark} {_percent(option.accuracy):>8} {option.latency_ms:>12.1f}  {_describe(option)}")
    if len(shown) < len(options):
        lines.append(f"  ({len(options) - len(shown)} more are in the file)")
    return [*lines, "", f"Chosen (*): {aim}."]


def _evenly(options: Sequence[Option], chosen: Option) -> list[Option]:
    if len(options) <= _SHOWN_OPTIONS:
        return list(options)
    step = (len(options) - 1) / (_SHOWN_OPTIONS - 1)
    places = {round(step * place) for place in range(_SHOWN_OPTIONS)} | {options.index(chosen)}
    return [options[place] for place in sorted(places)]


def _describe(option: Option) -> str:
    thresholds = [f" >= {threshold:.4f}" for threshold in option.thresholds] + [""]
    parts = zip(option.stages, thresholds, option.shares, strict=True)
    return " -> ".join(f"{name}{threshold} ({_percent(share)})" for name, threshold, share in parts)


def _judgement_lines(judgements: Sequence[Judgement], test: JudgedTexts) -> list[str]:
    lines = [
        "",
        f"Thresholds chosen on validation, judged on test: {test.describe()}",
        "Intervals hold 95 % of 1,000 bootstrap resamples; the advantage is the cascade's over the stage alone.",
        "",
        f"{'':<12} {'accuracy':>8}  {'interval':<17} {'ms/document':>12}  advantage in points",
    ]
    for each in judgements:
        interval = f"{_percent(each.ci95[0])} to {_percent(each.ci95[1])}"
        line = f"{each.name:<12} {_percent(each.accuracy):>8}  {interval:<17} {each.latency_ms:>12.1f}"
        if each.advantage is not None and each.advantage_ci95 is not None:
            low, high = each.advantage_ci95
            line += f"  {100 * each.advantage:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        lines.append(line)
    return lines


def _aim(args: argparse.Namespace) -> str:
    if args.target_accuracy is not None:
        return f"the fastest with an accuracy of at least {args.target_accuracy:g}"
    if args.max_latency_ms is not None:
        return f"the most accurate at {args.max_latency_ms:g} ms a document or less"
    return "the most accurate, the faster one of equals"


def _settings(chosen: Option, endpoint: EndpointSettings | None, tuning: dict[str, Any]) -> CascadeSettings:
    from doctune.inference.cascade import CascadeSettings, StageSettings

    thresholds = (*chosen.thresholds, None)
    stages = [
        StageSettings(name, threshold, endpoint if name == "http" else None)
        for name, threshold in zip(chosen.stages, thresholds, strict=True)
    ]
    return CascadeSettings(tuple(stages), tuning)


def _tuning(
    aim: str,
    options: Sequence[Option],
    chosen: Option,
    judgements: Sequence[Judgement],
    val: JudgedTexts,
    test: JudgedTexts,
) -> dict[str, Any]:
    return {
        "aim": aim,
        "validation_documents": len(val.texts),
        "test_documents": len(test.texts),
        "chosen": asdict(chosen),
        "test": [asdict(each) for each in judgements],
        "frontier": [asdict(option) for option in options],
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
