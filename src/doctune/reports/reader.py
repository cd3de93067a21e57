"""The report of a run that trained a question-answering reader, made from the files in its folder.

Shapes: N questions of a part.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.reports import facts, plots, reader_page
from doctune.reports.methods import describe_methods
from doctune.reports.reader_records import Answers, GivenAnswer, ReaderRecords, read_reader_run
from doctune.reports.reader_summary import summarize
from doctune.reports.records import QUESTION_ANSWERING
from doctune.reports.verdict import ANSWER_METRIC_WORDS, MIN_DOCUMENTS, PART_WORDS, Verdict, judge_scores
from doctune.scoring.answer_errors import JudgedAnswer, KindScore, analyse, error_kind
from doctune.scoring.intervals import Difference, bootstrap_mean_interval
from doctune.scoring.squad import AnswerScores, Version, bootstrap_intervals, score_answers, summarise
from doctune.text.sentences import sentence_around

SCHEMA = 1
METRICS = ("val/f1", "val/exact_match")
WORST_MISTAKES = 20
FEW_ARTICLES = 30  # questions are drawn as if independent, which matters most where few articles stand behind them
MAX_BESIDE = 300  # characters of a sentence on either side of an answer: tables and lists can be one "sentence"
ERROR_COLUMNS = ("id", "question", "references", "prediction", "kind", "exact_match", "f1")
FILES = (
    "index.html",
    "summary.txt",
    "methods.txt",
    "report.json",
    "errors.csv",
    "loss_curves.png",
    "metric_curve.png",
)


def write_report(run: Path) -> Path:
    """Write `report/` of a reader's finished run and return the path of its `summary.txt`.

    Raises:
        ArtifactError: a file of the run is missing or damaged; the message names it.
    """
    records = read_reader_run(run)
    report = build_report(records)
    folder = run / "report"
    write_json(folder / "report.json", report)
    _write_errors(_judged_part(records)[1], folder / "errors.csv")
    levels = facts.baseline_levels(report["baselines"], report["comparison"]["metric"])
    metrics = facts.curve_metrics(records, METRICS)
    curves = plots.write_curves(records.history, metrics, report["best_epoch"], levels, folder)
    methods = describe_methods(report, records.config)
    write_text(folder / "methods.txt", methods + "\n")
    write_text(folder / "index.html", reader_page.page(report, records, curves, methods))
    write_text(folder / "summary.txt", summarize(report))
    return folder / "summary.txt"


def build_report(records: ReaderRecords) -> dict[str, Any]:
    """The content of `report.json`; every value is plain, and a number that is not finite becomes null.

    Raises:
        ArtifactError: neither part has predictions.
    """
    part, answers = _judged_part(records)
    scores = {name: score_part(getattr(records, name), records.version) for name in ("val", "test")}
    baselines = _baselines(records)
    verdict = _judge(records, scores[part] or {}, baselines, part)
    copied = ("windows", "inference", "length_analysis")
    report = {
        "schema": SCHEMA,
        "task": QUESTION_ANSWERING,
        "verdict": verdict.sentence,
        "comparison": verdict.to_dict(),
        "run": facts.run_name(records),
        "part": part,
        **scores,
        "baselines": baselines,
        **facts.training_facts(records, METRICS[0]),
        "version": records.version,
        "no_answer_threshold": records.environment.get("no_answer_threshold"),
        **{name: records.environment.get(name) for name in copied},
        "errors": _errors(answers),
        "worst_mistakes": _worst_mistakes(answers),
        "account": records.audit,
        "notes": [*facts.told(records), *_notes(records, answers, part)],
        "alarms": records.environment.get("alarms") or [],
        "files": list(FILES),
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


def judged_metric(monitor: str) -> str | None:
    """The score of answers that a monitored metric such as `val/f1` names; None where it names none."""
    name = monitor.split("/")[-1]
    return name if name in ANSWER_METRIC_WORDS else None


def score_part(answers: Answers | None, version: Version) -> dict[str, Any] | None:
    """The scores of a part with 95 % intervals; None for a part without questions.

    Version 2.0 has them also for the questions that have an answer, and for those that have none.
    """
    if answers is None:
        return None
    scores = answers.scores
    halves = {"has_answer": scores.has_answer, "no_answer": ~scores.has_answer} if version == "2.0" else {}
    return _scores(scores) | {name: _scores(_of(scores, half)) for name, half in halves.items() if half.any()}


def _scores(scores: AnswerScores) -> dict[str, Any]:
    means = summarise(scores)
    intervals = {name: list(bounds) for name, bounds in bootstrap_intervals(scores).items()}
    return {"exact_match": means.exact_match, "f1": means.f1, "questions": means.questions, "ci95": intervals}


def _of(scores: AnswerScores, chosen: NDArray[np.bool_]) -> AnswerScores:
    """The scores of the chosen questions `(N,)`."""
    return AnswerScores(
        ids=tuple(name for name, is_chosen in zip(scores.ids, chosen, strict=True) if is_chosen),
        exact_match=scores.exact_match[chosen],
        f1=scores.f1[chosen],
        has_answer=scores.has_answer[chosen],
        unanswered=(),
    )


def _judged_part(records: ReaderRecords) -> tuple[str, Answers]:
    if records.test is not None:
        return "test", records.test
    if records.val is not None:
        return "val", records.val
    raise ArtifactError(f"{records.folder}: neither predictions/test.parquet nor val.parquet has a row.")


def _baselines(records: ReaderRecords) -> dict[str, dict[str, Any]]:
    """Those of the run. Version 2.0 has one more, whose score the references alone tell: to answer no question."""
    if records.version == "1.1" or "no_answer" in records.baselines:
        return records.baselines
    parts = {"val": records.val, "test": records.test}
    silent = {name: _scores(_silence(answers)) for name, answers in parts.items() if answers is not None}
    return records.baselines | {"no_answer": silent}


def _silence(answers: Answers) -> AnswerScores:
    return score_answers(dict.fromkeys(answers.scores.ids, ""), answers.references(), "2.0")


def _judge(
    records: ReaderRecords, scores: Mapping[str, Any], baselines: dict[str, dict[str, Any]], part: str
) -> Verdict:
    metric = judged_metric((records.environment.get("monitor") or {}).get("metric", "")) or "f1"

    def difference_to(baseline: str) -> Difference | None:
        return _paired(records, baseline, metric) if part == "test" else None

    return judge_scores(scores, baselines, part, metric, difference_to, noun="question")


def _paired(records: ReaderRecords, baseline: str, metric: str) -> Difference | None:
    """By how much the run scores higher than a baseline on the same test questions.

    A difference of means over the same questions is the mean of their differences, so those are what is resampled.
    """
    test, given = records.test, records.baseline_answers
    if test is None or (baseline not in given and baseline != "no_answer"):
        return None
    said = given.get(baseline, [""] * len(test))
    others = score_answers(dict(zip(test.scores.ids, said, strict=True)), test.references(), records.version)
    differences = getattr(test.scores, metric) - getattr(others, metric)
    low, high = bootstrap_mean_interval(differences)
    return Difference(math.fsum(differences) / len(differences), low, high)


def _errors(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """The scores of every group of questions, and examples of every kind of error."""
    of_id = {answer.judged.id: answer for answer in answers.given}
    found = analyse([answer.judged for answer in answers.given])
    groupings = {
        "by_question_word": found.by_question_word,
        "by_answer_length": found.by_answer_length,
        "by_position": found.by_position,
        "by_num_windows": found.by_num_windows,
    }
    grouped = {name: [asdict(group) for group in groups] for name, groups in groupings.items()}
    return grouped | {"by_kind": [_kind(kind, of_id) for kind in found.by_kind]}


def _kind(kind: KindScore, of_id: Mapping[str, GivenAnswer]) -> dict[str, Any]:
    return asdict(kind) | {"examples": [_example(of_id[name]) for name in kind.examples]}


def _example(answer: GivenAnswer) -> dict[str, Any]:
    """One question with what was answered, and the sentence around the reference, or else around the prediction."""
    judged = answer.judged
    return {
        "id": judged.id,
        "article": answer.article,
        "question": judged.question,
        "references": list(dict.fromkeys(judged.references)),
        "prediction": judged.prediction,
        **_sentence(judged),
    }


def _sentence(answer: JudgedAnswer) -> dict[str, Any]:
    """The sentence, cut where it is long, and where reference and prediction stand in it; nulls without a place."""
    predicted = None if answer.start is None or answer.end is None else (answer.start, answer.end)
    reference = None
    if answer.references and answer.reference_start is not None:
        reference = (answer.reference_start, answer.reference_start + len(answer.references[0]))
    shown = reference or predicted
    if shown is None:
        return {"sentence": None, "reference_at": None, "prediction_at": None}
    low, high, before, after = _excerpt(answer.context, shown[0], min(shown[1], len(answer.context)))
    return {
        "sentence": before + answer.context[low:high] + after,
        "reference_at": _inside(reference, low, high, len(before)),
        "prediction_at": _inside(predicted, low, high, len(before)),
    }


def _excerpt(context: str, start: int, end: int) -> tuple[int, int, str, str]:
    """The characters of the sentence around a place, and the ellipses for what is cut off between words."""
    low, high = sentence_around(context, start, end)
    before = after = ""
    if start - low > MAX_BESIDE:
        low, before = _after_blank(context, start - MAX_BESIDE, start), "… "
    if high - end > MAX_BESIDE:
        high, after = _before_blank(context, end, end + MAX_BESIDE), " …"
    return low, high, before, after


def _after_blank(context: str, low: int, high: int) -> int:
    """The first character after a blank from `low` on; `low` itself where there is none up to `high`."""
    return next((place + 1 for place in range(low, high) if context[place].isspace()), low)


def _before_blank(context: str, low: int, high: int) -> int:
    """The last blank up to `high`; `high` itself where there is none from `low` on."""
    return next((place for place in range(high, low, -1) if context[place].isspace()), high)


def _inside(place: tuple[int, int] | None, low: int, high: int, shift: int) -> list[int] | None:
    """A place of the context in `context[low:high]` with `shift` characters before it; None where it is not there."""
    if place is None or place[1] <= low or place[0] >= high:
        return None
    return [max(place[0], low) - low + shift, min(place[1], high) - low + shift]


def _worst_mistakes(answers: Answers) -> list[dict[str, Any]]:
    """The answers without one right word and with the highest probability; equal ones in the order of the file."""
    wrong = [answer for answer in answers.given if answer.judged.f1 == 0 and answer.judged.exact_match == 0]
    worst = sorted(wrong, key=lambda answer: -_sureness(answer))[:WORST_MISTAKES]
    return [
        _example(answer)
        | {
            "probability": answer.probability,
            "null_score": answer.null_score,
            "n_best": [{name: best[name] for name in ("text", "score", "probability")} for best in answer.n_best],
        }
        for answer in worst
    ]


def _sureness(answer: GivenAnswer) -> float:
    """The probability of an answer; below all where it is not known."""
    probability = answer.probability
    return -1.0 if probability is None or not math.isfinite(probability) else probability


def _notes(records: ReaderRecords, answers: Answers, part: str) -> list[str]:
    """What a reader must know before trusting the numbers."""
    questions, word = len(answers), PART_WORDS[part]
    articles = len({answer.article for answer in answers.given})
    monitored = (records.environment.get("monitor") or {}).get("metric")
    notes = []
    if articles < FEW_ARTICLES:
        about = "one article" if articles == 1 else f"{articles} articles"
        notes.append(
            f"The {questions:,} {word} questions are about {about}. Questions of one article are not independent of "
            "each other, so the intervals are too narrow."
        )
    if answers.scores.exact_match.all():
        notes.append(
            f"No {word} answer was wrong: with {questions:,} of them an error rate of up to "
            f"{min(1.0, 3 / questions):.1%} cannot be excluded (rule of three), whatever the interval says."
        )
    if few := _few(answers.scores, records.version):
        notes.append(f"{few}, too few for their scores to be trusted.")
    if monitored and judged_metric(monitored) is None:
        notes.append(f"No baseline has the monitored {monitored}: the verdict is on F1.")
    return notes


def _few(scores: AnswerScores, version: Version) -> str:
    """That there are few questions, or in version 2.0 few with or without an answer; nothing where there are enough."""
    if len(scores.ids) < MIN_DOCUMENTS:
        return f"There are only {len(scores.ids)} questions"
    with_answer = int(scores.has_answer.sum())
    halves = {"with an answer": with_answer, "without an answer": len(scores.ids) - with_answer}
    small = [f"{count} questions {name}" for name, count in halves.items() if 0 < count < MIN_DOCUMENTS]
    return f"There are only {small[0]}" if version == "2.0" and small else ""


def _write_errors(answers: Answers, path: Path) -> None:
    """Every question that was not answered exactly, in the order of the file."""
    wrong = [answer.judged for answer in answers.given if answer.judged.exact_match < 1]
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ERROR_COLUMNS)
        writer.writerows(_error_rows(wrong))


def _error_rows(answers: Iterable[JudgedAnswer]) -> Iterable[Sequence[object]]:
    for answer in answers:
        references = " | ".join(dict.fromkeys(answer.references))
        kind = error_kind(answer)
        yield answer.id, answer.question, references, answer.prediction, kind, answer.exact_match, round(answer.f1, 6)
