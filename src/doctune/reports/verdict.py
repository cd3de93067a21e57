"""One line that says whether a run was worth it, judged against the stronger of its baselines.

The judgement is made on the monitored metric, where a confusion matrix gives it, else on macro F1. Where the baseline's
label of every test document is known the difference is bootstrapped over the same documents (see
`intervals.paired_difference`); otherwise the two intervals must not overlap, which is the more cautious of the two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from doctune.reports.records import RunRecords
from doctune.scoring.classification import STATISTICS
from doctune.scoring.intervals import Difference, paired_difference

MIN_DOCUMENTS = 30  # below it a bootstrap resembles its few documents more than what they were drawn from

METRIC_WORDS = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "precision_macro": "macro precision",
    "precision_weighted": "weighted precision",
    "recall_macro": "macro recall",
    "recall_weighted": "weighted recall",
    "log_loss": "log loss",
}
PART_WORDS = {"test": "test", "val": "validation"}
BASELINE_WORDS = {"tfidf_svm": "TF-IDF + linear SVM", "majority": "majority class"}
SHORT_BASELINE_WORDS = {"tfidf_svm": "TF-IDF", "majority": "majority"}
CAVEATS = {
    "test": "",
    "val": " There is no test part: these documents chose the checkpoint, so the score flatters.",
}

Status = Literal["better", "worse", "unclear", "too_few", "no_baseline"]


@dataclass(frozen=True)
class Verdict:
    """What came of comparing a run with its strongest baseline, and the sentence that says so.

    `difference`, `low`, `high`: model minus baseline with its 95 % interval; None where documents were not paired.
    """

    status: Status
    sentence: str
    metric: str
    part: str
    documents: int
    baseline: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `report.json`."""
        return asdict(self)


def judge(records: RunRecords, scores: dict[str, Any], part: str, metric: str) -> Verdict:
    """Compare the scores of a part ("test", or "val" where there is no test) with the strongest baseline.

    Args:
        records: the run.
        scores: `ClassificationScores.to_dict()` of the part, with its `ci95`.
        part: which part the scores are of.
        metric: a name of `STATISTICS`.
    """
    documents = scores["documents"]
    own = f"{PART_WORDS[part]} {METRIC_WORDS[metric]} {_with_interval(scores, metric)}"
    name = strongest_baseline(records.baselines, metric, part)
    if name is None:
        sentence = f"No baseline stands beside this score: {own} on {documents:,} documents."
        return Verdict("no_baseline", sentence + CAVEATS[part], metric, part, documents)
    other = records.baselines[name][part]
    beside = f"{own}, {BASELINE_WORDS.get(name, name)} {other[metric]:.3f}"
    if documents < MIN_DOCUMENTS:
        sentence = f"Too few documents to judge ({documents} of at least {MIN_DOCUMENTS}): {beside}."
        return Verdict("too_few", sentence + CAVEATS[part], metric, part, documents, name)
    difference = _paired(records, name, part, metric)
    status = _status_of_difference(difference) if difference else _status_of_intervals(scores, other, metric)
    reason = _paired_words(difference, documents) if difference else _interval_words(other, metric)
    sentence = f"{_opening(status, name)}: {beside}; {reason}."
    bounds = (
        {} if difference is None else {"difference": difference.value, "low": difference.low, "high": difference.high}
    )
    return Verdict(status, sentence + CAVEATS[part], metric, part, documents, name, **bounds)


def strongest_baseline(baselines: dict[str, dict[str, Any]], metric: str, part: str) -> str | None:
    """The baseline with the highest validation score, so that the test part chooses nothing; None without any."""
    judged = {name: scores for name, scores in baselines.items() if metric in (scores.get(part) or {})}
    if not judged:
        return None
    return max(judged, key=lambda name: (judged[name].get("val") or judged[name][part]).get(metric, 0.0))


def judged_metric(monitor: str) -> str | None:
    """The statistic that a monitored metric such as `val/f1_macro` names; None where a baseline cannot have it."""
    name = monitor.split("/")[-1]
    return name if name in STATISTICS else None


def _paired(records: RunRecords, baseline: str, part: str, metric: str) -> Difference | None:
    if part != "test" or records.test is None or baseline not in records.baseline_ids:
        return None
    return paired_difference(
        records.test.truth,
        records.test.predicted,
        records.baseline_ids[baseline],
        len(records.labels),
        STATISTICS[metric],
    )


def _status_of_difference(difference: Difference) -> Status:
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "unclear"


def _status_of_intervals(scores: dict[str, Any], other: dict[str, Any], metric: str) -> Status:
    low, high = scores["ci95"][metric]
    other_low, other_high = _interval(other, metric)
    if low > other_high:
        return "better"
    return "worse" if high < other_low else "unclear"


def _opening(status: Status, baseline: str) -> str:
    if status == "better":
        return "Better than the baseline"
    if status == "worse":
        return "Worse than the baseline"
    return f"Cannot be told apart from the {SHORT_BASELINE_WORDS.get(baseline, baseline)} baseline"


def _paired_words(difference: Difference, documents: int) -> str:
    interval = f"({difference.low:+.3f} to {difference.high:+.3f})"
    return f"difference {difference.value:+.3f} {interval} on the same {documents:,} documents"


def _interval_words(other: dict[str, Any], metric: str) -> str:
    low, high = _interval(other, metric)
    return f"judged by whether the intervals overlap (the baseline's: {low:.3f} to {high:.3f})"


def _with_interval(scores: dict[str, Any], metric: str) -> str:
    low, high = _interval(scores, metric)
    return f"{scores[metric]:.3f} (95 % interval {low:.3f} to {high:.3f})"


def _interval(scores: dict[str, Any], metric: str) -> tuple[float, float]:
    low, high = scores.get("ci95", {}).get(metric) or (scores[metric], scores[metric])
    return low, high
