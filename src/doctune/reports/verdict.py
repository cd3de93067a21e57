"""One line that says whether a run was worth it, judged against the stronger of its baselines.

The judgement is made on the monitored metric, where a baseline can have it, else on the task's main one: macro F1 of
labels, F1 of answers. Where it is known what the baseline said of every test document or question, the difference is
bootstrapped over the same ones (see `intervals.paired_difference`); otherwise the two intervals must not overlap, which
is the more cautious of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from doctune.reports.records import RunRecords
from doctune.scoring.classification import STATISTICS
from doctune.scoring.intervals import Difference, paired_difference

# Below it a bootstrap resembles its few documents, or questions, more than what they were drawn from.
MIN_DOCUMENTS = 30

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
ANSWER_METRIC_WORDS = {"f1": "F1", "exact_match": "exact match"}
LABEL_SET_METRIC_WORDS = {"f1_micro": "micro F1"}
COMPLETION_METRIC_WORDS = {
    "perplexity": "perplexity",
    "loss": "loss per token",
    "precision": "precision",
    "recall": "recall",
}
ALL_METRIC_WORDS = METRIC_WORDS | ANSWER_METRIC_WORDS | LABEL_SET_METRIC_WORDS | COMPLETION_METRIC_WORDS


def metric_words(name: str) -> str:
    """A score in words; those of a target, such as "emotion/f1_macro", with its name: "macro F1, emotion"."""
    target, _, metric = name.removeprefix("val/").rpartition("/")
    words = ALL_METRIC_WORDS.get(metric, metric)
    return f"{words}, {target}" if target else words


PART_WORDS = {"test": "test", "val": "validation"}
BASELINE_WORDS = {
    "tfidf_svm": "TF-IDF + linear SVM",
    "forest": "TF-IDF + random forest",
    "majority": "majority class",
    "tfidf_logistic": "TF-IDF + logistic regression",
    "label_prior": "label shares",
    "first_chunk": "first chunk only",
    "lexical": "lexical baseline",
    "untrained": "untrained model",
    "unigram": "token frequencies",
    "no_answer": "never answering",
}
SHORT_BASELINE_WORDS = {
    "tfidf_svm": "TF-IDF",
    "tfidf_logistic": "TF-IDF",
    "forest": "random forest",
    "no_answer": "no-answer",
}
CAVEATS = {
    "test": "",
    "val": " There is no test part: these {noun}s chose the checkpoint, so the score flatters.",
}

Status = Literal["better", "worse", "unclear", "too_few", "no_baseline"]


@dataclass(frozen=True)
class Verdict:
    """What came of comparing a run with its strongest baseline, and the sentence that says so.

    `noun` is what was judged ("document"), `count` how many. `difference`, `low`, `high`: model minus baseline with its
    95 % interval; None where what was judged was not paired.
    """

    status: Status
    sentence: str
    metric: str
    part: str
    noun: str
    count: int
    baseline: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `report.json`; the count stands under what was counted, such as `documents`."""
        values = asdict(self)
        counted = f"{values.pop('noun')}s"
        return {counted if name == "count" else name: value for name, value in values.items()}


def judge(records: RunRecords, scores: dict[str, Any], part: str, metric: str) -> Verdict:
    """Compare the scores of a part ("test", or "val" where there is no test) with the strongest baseline.

    Args:
        records: the run.
        scores: `ClassificationScores.to_dict()` of the part, with its `ci95`.
        part: which part the scores are of.
        metric: a name of `STATISTICS`.
    """
    return judge_scores(
        scores, records.baselines, part, metric, lambda name: _paired(records, name, part, metric), noun="document"
    )


def judge_scores(
    scores: Mapping[str, Any],
    baselines: dict[str, dict[str, Any]],
    part: str,
    metric: str,
    difference_to: Callable[[str], Difference | None],
    *,
    noun: str,
) -> Verdict:
    """Compare scores with those of the strongest baseline, whatever the task.

    Args:
        scores: of the part, with their `ci95`; how many were judged stands under the plural of `noun`.
        baselines: name -> part -> scores.
        part: which part the scores are of, "test" or "val".
        metric: a name of `ALL_METRIC_WORDS`.
        difference_to: the difference to a baseline by name over the same ones; None where they cannot be paired.
        noun: what is judged, such as "document".
    """
    count, caveat = scores[f"{noun}s"], CAVEATS[part].format(noun=noun)
    own = f"{PART_WORDS[part]} {ALL_METRIC_WORDS[metric]} {_with_interval(scores, metric)}"
    name = strongest_baseline(baselines, metric, part)
    if name is None:
        sentence = f"No baseline stands beside this score: {own} on {count:,} {noun}s."
        return Verdict("no_baseline", sentence + caveat, metric, part, noun, count)
    other = baselines[name][part]
    beside = f"{own}, {BASELINE_WORDS.get(name, name)} {other[metric]:.3f}"
    if count < MIN_DOCUMENTS:
        sentence = f"Too few {noun}s to judge ({count} of at least {MIN_DOCUMENTS}): {beside}."
        return Verdict("too_few", sentence + caveat, metric, part, noun, count, name)
    difference = difference_to(name)
    status = _status_of_difference(difference) if difference else _status_of_intervals(scores, other, metric)
    reason = _paired_words(difference, count, noun) if difference else _interval_words(other, metric)
    sentence = f"{_opening(status, name)}: {beside}; {reason}."
    bounds = (
        {} if difference is None else {"difference": difference.value, "low": difference.low, "high": difference.high}
    )
    return Verdict(status, sentence + caveat, metric, part, noun, count, name, **bounds)


def targets_headline(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """On how many of several targets a run is better than its baselines, and on how many worse.

    Args:
        judged: target -> what is said of it, with the `Verdict` under `comparison`; empty where no text knows it.
    """
    statuses = [found["comparison"].get("status") for found in judged.values()]
    worse = f", worse on {statuses.count('worse')}" if "worse" in statuses else ""
    return f"Better than the baseline on {statuses.count('better')} of {len(statuses)} targets{worse}."


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


def _status_of_intervals(scores: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> Status:
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


def _paired_words(difference: Difference, count: int, noun: str) -> str:
    interval = f"({difference.low:+.3f} to {difference.high:+.3f})"
    return f"difference {difference.value:+.3f} {interval} on the same {count:,} {noun}s"


def _interval_words(other: Mapping[str, Any], metric: str) -> str:
    low, high = _interval(other, metric)
    return f"judged by whether the intervals overlap (the baseline's: {low:.3f} to {high:.3f})"


def _with_interval(scores: Mapping[str, Any], metric: str) -> str:
    low, high = _interval(scores, metric)
    return f"{scores[metric]:.3f} (95 % interval {low:.3f} to {high:.3f})"


def _interval(scores: Mapping[str, Any], metric: str) -> tuple[float, float]:
    low, high = scores.get("ci95", {}).get(metric) or (scores[metric], scores[metric])
    return low, high
