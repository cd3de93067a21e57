"""The test part of a fold with several targets: texts and what was said of each target.

Shapes: N texts, L labels of a target.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from doctune.corpus.targets import TargetSpec
from doctune.reports.facts import history_key
from doctune.reports.records import existing, read_json, read_table
from doctune.reports.suspects import Suspect
from doctune.reports.target_records import TargetPart, read_part, read_specs
from doctune.reports.target_scores import METRIC, label_rows, score_target, score_together

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TargetsPart:
    """The texts, by id and place, each target with what was said of those that know it, and their files.

    See `JudgedPart`.
    """

    noun: ClassVar[str] = "text"
    said: ClassVar[str] = "prediction"
    metric_words: ClassVar[Mapping[str, str]] = {METRIC: "macro F1"}

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    targets: tuple[tuple[TargetSpec, TargetPart | None], ...]
    files: tuple[Path, ...]

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """That of a run folder; None when it has no rows, or none that knows a target."""
        path = existing(run, "predictions/test.parquet")
        table = read_table(path, ("id", "path"))
        specs = read_specs(run, read_json(run, "data/audit.json", dict))
        targets = tuple((spec, read_part(path, spec)) for spec in specs)
        if all(part is None for _, part in targets):
            return None
        return cls(tuple(table["id"].to_pylist()), tuple(table["path"].to_pylist()), targets, (path,))

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Several as one."""
        specs = [spec for spec, _ in parts[0].targets]
        pooled = [
            (spec, _joined([found for part in parts if (found := part.of(spec.name)) is not None])) for spec in specs
        ]
        return cls(
            ids=tuple(name for part in parts for name in part.ids),
            paths=tuple(path for part in parts for path in part.paths),
            targets=tuple(pooled),
            files=tuple(path for part in parts for path in part.files),
        )

    @classmethod
    def test_metric(cls, metric: str) -> str:
        """The same as the monitored one, such as "emotion/f1_macro", or the mean macro F1 of all targets."""
        return metric.removeprefix("val/") if metric.endswith(f"/{METRIC}") else METRIC

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, name: str) -> TargetPart | None:
        """One target; None where no text knows it."""
        return next((part for spec, part in self.targets if spec.name == name), None)

    def named(self, row: int) -> str:
        """Where the text stands."""
        return self.paths[row]

    def difference(self, other: Self) -> str:
        """That the targets or their labels are others."""
        if [spec for spec, _ in self.targets] == [spec for spec, _ in other.targets]:
            return ""
        return (
            "have different targets or labels (see their data/labels.json), so their predictions cannot be pooled. "
            "Make the folds from the same tables and data.targets."
        )

    def scores(self) -> dict[str, Any]:
        """The mean macro F1 of the report, and beside it that of each target as "<target>/f1_macro"."""
        each = self.target_scores()
        known = [(spec, part) for spec, part in self.targets if part is not None]
        together = score_together(known, each) or {}
        own = {f"{name}/{METRIC}": scores[METRIC] for name, scores in each.items()}
        intervals = {f"{name}/{METRIC}": scores["ci95"][METRIC] for name, scores in each.items()}
        return together | own | {"ci95": together["ci95"] | intervals}

    def target_scores(self) -> dict[str, dict[str, Any]]:
        """The scores of each target that a text knows, by name."""
        found = {spec.name: score_target(spec, part) for spec, part in self.targets}
        return {name: scores for name, scores in found.items() if scores is not None}

    def per_class(self) -> list[dict[str, Any]]:
        """Nothing: the labels stand under their targets, see `spread`."""
        return []

    def suspects(self) -> list[Suspect] | None:
        """None: they are looked for where each text has one label."""
        return None

    def table(self) -> pa.Table:
        """Each text with all that its file tells of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.concat_tables([pq.read_table(path) for path in self.files])


def _joined(parts: Sequence[TargetPart]) -> TargetPart | None:
    """The texts of several parts as those of one; None without any."""
    if not parts:
        return None
    return TargetPart(
        ids=tuple(name for part in parts for name in part.ids),
        paths=tuple(path for part in parts for path in part.paths),
        texts=tuple(text for part in parts for text in part.texts),
        truth=np.concatenate([part.truth for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )


# --- over the folds ----------------------------------------------------------------------------------------------


def spread(
    oof: TargetsPart, rows: Sequence[Mapping[str, Any]], histories: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What `kfold_results.json` says of targets: `combined`, their mean, and `targets`, each of them.

    `val` and `test` are mean, std (ddof 1), min and max of the macro F1 over the folds, the former in the epoch that a
    fold kept, the latter of its test part; null where no fold has one. `oof` are the out-of-fold scores.

    Args:
        oof: the test parts of all finished folds as one.
        rows: those of the finished folds in `folds`.
        histories: the epochs of each of them.
    """
    kept = [_kept_epoch(row, history) for row, history in zip(rows, histories, strict=True)]
    scores = oof.target_scores()

    def over_folds(name: str) -> dict[str, Any]:
        key = f"{name}/{METRIC}" if name else METRIC
        return {
            "val": _summary(epoch.get(history_key(f"val/{key}")) for epoch in kept),
            "test": _summary(row["test"].get(key) for row in rows),
        }

    targets = {
        spec.name: {
            "kind": spec.kind,
            **over_folds(spec.name),
            "oof": scores.get(spec.name),
            "per_label": [] if part is None else label_rows(spec, part),
        }
        for spec, part in oof.targets
    }
    return {"combined": over_folds(""), "targets": targets}


def _kept_epoch(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((epoch for epoch in history if epoch["epoch"] == row["best_epoch"]), {})


def _summary(values: Iterable[float | None]) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "min": min(known),
        "max": max(known),
    }
