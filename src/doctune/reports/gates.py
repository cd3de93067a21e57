"""Release rules such as `gap<0.15`: read, checked against what runs have, and applied to each run."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from doctune.errors import ConfigError
from doctune.reports.numbers import UNKNOWN
from doctune.reports.reader_summary import HALVES
from doctune.reports.records import CLASSIFICATION, INSTRUCTIONS, MULTI_TASK, QUESTION_ANSWERING
from doctune.reports.verdict import ANSWER_METRIC_WORDS, COMPLETION_METRIC_WORDS
from doctune.scoring.classification import ClassificationScores

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
OPPOSITES = {"<": "not below", "<=": "above", ">": "not above", ">=": "below"}
TRAINING_METRICS = ("gap", "gap_abs", "seconds", "parameters")

_RULE = re.compile(r"\s*((?:[^<>=/]+/)?\w+)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Gate:
    """One rule: a metric, how it is compared, and with what."""

    metric: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.comparison}{_number(self.bound)}"


@dataclass(frozen=True)
class Outcome:
    """What came of one gate for one run; `value` is None where the run does not have the metric, which fails."""

    gate: str
    run: str
    value: float | None
    passed: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def parse_gate(text: str) -> Gate:
    """Read `METRIC OP NUMBER`.

    Raises:
        ConfigError: it is none; the message says what one is.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--gate {text!r} is no rule: write METRIC OP NUMBER with OP one of {', '.join(OPERATORS)}, in quotes, "
            "such as 'gap<0.15' or 'f1_macro>=0.93'."
        )
    return Gate(found[1], found[2], float(found[3]))


def apply_gates(gates: Sequence[Gate], reports: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
    """Apply every gate to every run; `reports` maps the name of a run to its `report.json`.

    Raises:
        ConfigError: a gate names a metric that no run can have; the message lists those that there are.
    """
    values = {name: _values(report) for name, report in reports.items()}
    known = dict.fromkeys(
        [*TRAINING_METRICS, *_score_names(reports), *(metric for run in values.values() for metric in run)]
    )
    for gate in gates:
        if gate.metric not in known:
            scores = [name for name in known if name not in TRAINING_METRICS and not name.startswith("val_")]
            raise ConfigError(
                f"--gate '{gate}': there is no metric {gate.metric!r}. There are {', '.join(scores)} (of the test "
                f"part; with val_ before it, of the validation part), and {', '.join(TRAINING_METRICS)}."
            )
    return [_outcome(gate, name, run.get(gate.metric)) for gate in gates for name, run in values.items()]


def _outcome(gate: Gate, name: str, value: float | None) -> Outcome:
    if value is None:
        return Outcome(
            str(gate), name, None, False, f"{name}: {gate.metric} is not known ({UNKNOWN}), so {gate} fails."
        )
    passed = bool(OPERATORS[gate.comparison](value, gate.bound))
    relation = gate.comparison if passed else OPPOSITES[gate.comparison]
    return Outcome(
        str(gate),
        name,
        value,
        passed,
        f"{name}: {gate.metric} {_beside(value, gate.bound)} is {relation} {_number(gate.bound)}.",
    )


def _beside(value: float, bound: float) -> str:
    """Four digits are enough to read, and a few more where a value would look equal to its bound by rounding."""
    whole = len(f"{abs(value):.0f}")
    fewest = 12 if value.is_integer() else max(4, whole + 1)
    shown = (f"{value:.{digits}g}" for digits in range(fewest, 12))
    return next((text for text in shown if float(text) != bound or value == bound), _number(value))


def _number(value: float) -> str:
    return f"{value:.12g}"


def _score_names(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The scores that runs of these tasks have, whether or not one of them has a part that was scored."""
    tasks = {report.get("task") or CLASSIFICATION for report in reports.values()}
    labels = [field.name for field in fields(ClassificationScores) if field.name != "top_k_accuracy"]
    of_task = {
        CLASSIFICATION: labels,
        QUESTION_ANSWERING: ["questions", *ANSWER_METRIC_WORDS],
        MULTI_TASK: ["f1_macro"],
        INSTRUCTIONS: ["conversations", *COMPLETION_METRIC_WORDS, *ANSWER_METRIC_WORDS],
    }
    names = [name for task, scores in of_task.items() if task in tasks for name in scores]
    return [*names, *(f"val_{name}" for name in names)]


def _values(report: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a run that a gate can name; `top_3_accuracy` is the 3 of `top_k_accuracy`.

    `no_answer_f1` is the F1 of the questions without an answer; likewise the other scores and half. `emotion/f1_macro`
    is the macro F1 of the target emotion.
    """
    gap = (report.get("gap") or {}).get("value")
    values = {
        "gap": gap,
        "gap_abs": None if gap is None else abs(gap),
        "seconds": report.get("training_seconds"),
        "parameters": (report.get("parameters") or {}).get("total"),
    }
    for prefix, part in (("", "test"), ("val_", "val")):
        scores = report.get(part) or {}
        top_k = {f"top_{k}_accuracy": share for k, share in (scores.get("top_k_accuracy") or {}).items()}
        halves = {f"{half}_{name}": value for half in HALVES for name, value in (scores.get(half) or {}).items()}
        of_targets = {
            f"{target}/{name}": value
            for target, found in (report.get("targets") or {}).items()
            for name, value in (found.get(part) or {}).items()
        }
        values |= {f"{prefix}{name}": value for name, value in (scores | top_k | halves | of_targets).items()}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
