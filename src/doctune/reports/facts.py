"""What every run's report tells of its training, whatever the task: made from history and environment."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from doctune.reports.records import RunFiles
from doctune.reports.verdict import ALL_METRIC_WORDS, BASELINE_WORDS


def run_name(records: RunFiles) -> str:
    """The last three parts of the run folder's path: its place under `outputs/` or `multirun/`."""
    return "/".join(records.folder.resolve().parts[-3:])


def training_facts(records: RunFiles, default_metric: str) -> dict[str, Any]:
    """What `report.json` says of the training; `default_metric` is monitored where the run does not say what was."""
    environment = records.environment
    model = environment.get("model") or {}
    copied = (
        "best_checkpoint",
        "training_seconds",
        "precision",
        "micro_batch_size",
        "stopped",
        "seed",
        "command",
        "started_at",
        "finished_at",
    )
    best = best_epoch(records, default_metric)
    return {
        "gap": _gap(records, best),
        "padding_share": _mean(row.get("padding_share") for row in records.history),
        "tokens_per_s": _mean(row.get("tokens_per_s") for row in records.history),
        "parameters": {"total": model.get("total"), "trainable": model.get("trainable")},
        "epochs": len(records.history),
        "best_epoch": best,
        "monitor": environment.get("monitor") or {},
        "model": model,
        **{name: environment.get(name) for name in copied},
        **{name: environment.get(name) or {} for name in ("versions", "git", "hardware")},
    }


def best_epoch(records: RunFiles, default_metric: str) -> int | None:
    """The epoch that the run kept, or the one that the monitored metric prefers; None if no epoch has the metric."""
    if records.environment.get("best_epoch") is not None:
        return int(records.environment["best_epoch"])
    monitor = records.environment.get("monitor") or {}
    key = history_key(monitor.get("metric", default_metric))
    sign = -1 if monitor.get("mode") == "min" else 1
    judged = [row for row in records.history if row.get(key) is not None and math.isfinite(row[key])]
    return int(max(judged, key=lambda row: sign * row[key])["epoch"]) if judged else None


def told(records: RunFiles) -> list[str]:
    """What the run noted, and what its guards said that still held at the end."""
    alarms = records.environment.get("alarms") or []
    held = [alarm["message"] for alarm in alarms if alarm["cleared"] is None]
    return list(dict.fromkeys([*(records.environment.get("notes") or []), *held]))


def curve_metrics(records: RunFiles, names: Iterable[str]) -> dict[str, str]:
    """The monitored metric first, then those of `names`, such as `val/f1`: history key -> words."""
    first, *others = names
    monitor = (records.environment.get("monitor") or {}).get("metric", first)
    shown = dict.fromkeys([monitor, first, *others])
    return {history_key(name): ALL_METRIC_WORDS.get(name.split("/")[-1], name) for name in shown if name != "val/loss"}


def baseline_levels(baselines: dict[str, dict[str, Any]], metric: str) -> dict[str, float]:
    """The validation score of each baseline that has one: words -> score."""
    judged = {name: (scores.get("val") or {}).get(metric) for name, scores in baselines.items()}
    return {
        f"{BASELINE_WORDS.get(name, name)}, {ALL_METRIC_WORDS[metric]}": value
        for name, value in judged.items()
        if value is not None
    }


def history_key(metric: str) -> str:
    """The name in `training_history.json` of a metric such as `val/f1_macro`."""
    return metric.replace("/", "_")


def finite(value: Any) -> Any:
    """The same value with NaN and infinity as None: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _gap(records: RunFiles, best: int | None) -> dict[str, Any]:
    """The gap at the best epoch and the epoch where it first became critical; nulls where nothing measured it."""
    kept = next((row for row in records.history if row["epoch"] == best), {})
    critical = (row["epoch"] for row in records.history if row.get("gap_status") == "critical")
    return {"value": kept.get("gap"), "status": kept.get("gap_status"), "onset_epoch": next(critical, None)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
