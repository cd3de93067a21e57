"""The evaluation of a reader: questions asked again, exact match and F1 with intervals, where it goes wrong.

Shapes: N questions.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from doctune import __version__
from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.reports import evaluation_answers_page, evaluation_plots, evaluation_thresholds, facts, plots
from doctune.reports.evaluation_answers_page import summarize
from doctune.reports.evaluation_source import manifest_name
from doctune.reports.evaluation_thresholds import Scored
from doctune.reports.numbers import counted
from doctune.reports.reader import FEW_ARTICLES, score_part
from doctune.reports.reader_records import Answers, GivenAnswer, read_answers, read_version
from doctune.reports.verdict import MIN_DOCUMENTS, PART_WORDS
from doctune.scoring.answer_errors import JudgedAnswer, analyse
from doctune.scoring.squad import Version, score_answers
from doctune.text.sentences import sentence_around

if TYPE_CHECKING:
    from doctune.corpus.squad import Question
    from doctune.documents import Answer
    from doctune.inference.engine import Engine

SCHEMA = 1
WORST_MISTAKES = 20
MAX_SENTENCE = 400  # characters: tables and lists can be one "sentence"
REPORT_FILE, SUMMARY_FILE, ERRORS_FILE = "evaluation_report.json", "evaluation_summary.csv", "errors.csv"
FILES = (REPORT_FILE, SUMMARY_FILE, "index.html", "summary.txt", ERRORS_FILE, "coverage.png")


@dataclass(frozen=True)
class Asked:
    """Questions and what the exported model answers now.

    `source` says in words what they are of, `part` which of the run, None for a file. `unjudged` are rows with
    id, article, status and reason. `agreement` counts the answers that the run stored likewise; None for a file.
    """

    name: str
    source: str
    part: str | None
    backend: str
    version: Version
    answers: Answers
    unjudged: tuple[dict[str, str], ...]
    agreement: int | None


def ask_part(engine: Engine, run: Path, part: str) -> Asked:
    """Ask the questions of a run's part again, each of its own context.

    Raises:
        ArtifactError: the run has no such part, or a file of it cannot be read.
    """
    version = read_version(run)
    stored = stored_answers(run, part, version)
    if stored is None:
        raise ArtifactError(f"{run} has no {PART_WORDS[part]} questions. Use --manifest FILE, a SQuAD file.")
    given = [_again(old, engine.ask(old.judged.question, old.judged.context)) for old in stored.given]
    answers = _scored(given, version)
    same = sum(
        new.judged.prediction == old.judged.prediction for new, old in zip(answers.given, stored.given, strict=True)
    )
    source = f"the {PART_WORDS[part]} part of the run"
    return Asked(part, source, part, engine.backend, version, answers, (), same)


def ask_file(engine: Engine, source: Path) -> Asked:
    """Ask the questions of a file in the official SQuAD layout, each of its own context.

    Raises:
        DataError: it is no such file, or none of its questions can be used.
        ArtifactError: the model is no reader.
    """
    from doctune.corpus.squad import read_squad

    file = read_squad(source)
    windows = _window_counts(engine, file.questions)
    given = [
        _again(_unanswered(question, num_windows), engine.ask(question.text, question.context))
        for question, num_windows in zip(file.questions, windows, strict=True)
    ]
    version: Version = "2.0" if file.version == "2.0" else "1.1"
    unjudged = tuple(
        {"path": bad.id, "label": bad.article, "status": bad.status, "reason": bad.reason} for bad in file.rejected
    )
    return Asked(
        manifest_name(source), str(source), None, engine.backend, version, _scored(given, version), unjudged, None
    )


def stored_answers(run: Path, part: str, version: Version) -> Answers | None:
    """What a run answered to a part's questions; None where it has none.

    Raises:
        ArtifactError: its file is damaged.
    """
    path = run / "predictions" / f"{part}.parquet"
    return read_answers(path, version) if path.is_file() else None


def write_evaluation(found: Asked, validation: Answers | None, run_name: str, precision: float, folder: Path) -> str:
    """Write the evaluation into a folder and return its summary.

    Args:
        found: the questions and their answers.
        validation: the run's stored answers to its validation questions, to choose thresholds on.
        run_name: of the run, as a person knows it.
        precision: the share that must be exactly right among what a threshold keeps.
        folder: where everything goes; files of an earlier evaluation are replaced.
    """
    report = build_evaluation(found, validation, run_name, precision)
    picture = evaluation_plots.coverage(report["coverage"], report["thresholds"], "question")
    plots.save(picture, folder / "coverage.png")
    write_json(folder / REPORT_FILE, report)
    _write_csv(folder / SUMMARY_FILE, _SUMMARY_COLUMNS, summary_rows(report))
    _write_csv(folder / ERRORS_FILE, _ERROR_COLUMNS, _error_rows(found.answers))
    summary = summarize(report)
    write_text(folder / "index.html", evaluation_answers_page.page(report, folder))
    write_text(folder / "summary.txt", summary)
    return summary


def build_evaluation(found: Asked, validation: Answers | None, run_name: str, precision: float) -> dict[str, Any]:
    """The content of `evaluation_report.json`; every value is plain, and a number that is not finite becomes null."""
    judged = _sureness(found.answers)
    chosen = None if validation is None else _sureness(validation)
    left = list(found.unjudged)
    report = {
        "schema": SCHEMA,
        "task": "question_answering",
        "doctune_version": __version__,
        "run": run_name,
        "name": found.name,
        "source": found.source,
        "part": found.part,
        "backend": found.backend,
        "version": found.version,
        "questions": len(found.answers),
        "agreement": found.agreement,
        "unjudged": {
            "files": left,
            "count": len(left),
            "by_status": dict(sorted(Counter(row["status"] for row in left).items())),
        },
        "scores": score_part(found.answers, found.version),
        "coverage": evaluation_thresholds.curve(judged),
        "thresholds": evaluation_thresholds.threshold_rows(precision, chosen, judged),
        "precision": precision,
        "errors": _errors(found.answers),
        "worst_mistakes": _worst_mistakes(found.answers),
        "notes": _notes(found),
        "files": list(FILES),
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


# --- asking ------------------------------------------------------------------------------------------------------


def _unanswered(question: Question, num_windows: int) -> GivenAnswer:
    judged = JudgedAnswer(
        id=question.id,
        question=question.text,
        context=question.context,
        references=question.answers,
        reference_start=question.start,
        prediction="",
        start=None,
        end=None,
        num_windows=num_windows,
        exact_match=0.0,
        f1=0.0,
    )
    return GivenAnswer(judged, question.article, None, None, ())


def _again(old: GivenAnswer, found: Sequence[Answer]) -> GivenAnswer:
    """The same question with a new answer, not scored yet; no answer is an empty text."""
    if not found:
        judged = replace(old.judged, prediction="", start=None, end=None)
        return replace(old, judged=judged, probability=None, null_score=None, n_best=())
    best = found[0]
    judged = replace(old.judged, prediction=best.text, start=best.start, end=best.end)
    return replace(old, judged=judged, probability=best.score, null_score=None, n_best=())


def _scored(given: Sequence[GivenAnswer], version: Version) -> Answers:
    references = {each.judged.id: each.judged.references for each in given}
    scores = score_answers({each.judged.id: each.judged.prediction for each in given}, references, version)
    pairs = zip(given, scores.exact_match.tolist(), scores.f1.tolist(), strict=True)
    return Answers(
        tuple(replace(each, judged=replace(each.judged, exact_match=exact, f1=f1)) for each, exact, f1 in pairs), scores
    )


def _window_counts(engine: Engine, questions: Sequence[Question]) -> list[int]:
    from doctune.inference.artifact import load_tokenizer
    from doctune.text.questions import question_windows

    reading = engine.artifact.reading
    if reading is None:
        return [1] * len(questions)
    pairs = [(question.text, question.context) for question in questions]
    tokenizer, _ = load_tokenizer(engine.artifact.folder)
    return [len(cut) for cut in question_windows(tokenizer, pairs, reading.windows)]


# --- what came of it ---------------------------------------------------------------------------------------------


def _sureness(answers: Answers) -> Scored:
    """Each answer's probability, 0 where none was given, and whether it is exactly right."""
    scores = [each.probability or 0.0 for each in answers.given]
    return Scored(np.array(scores, np.float64), answers.scores.exact_match == 1)


def _errors(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """The scores of every group of questions, small ones marked."""
    found = asdict(analyse([each.judged for each in answers.given]))
    return {
        name: [dict(group) | {"is_small": group["count"] < MIN_DOCUMENTS} for group in groups]
        for name, groups in found.items()
    }


def _worst_mistakes(answers: Answers) -> list[dict[str, Any]]:
    """The answers without one right word and with the highest probability; equal ones in the order of the file."""
    wrong = [each for each in answers.given if each.judged.f1 == 0 and each.judged.exact_match == 0]
    worst = sorted(wrong, key=lambda each: -(each.probability or 0.0))[:WORST_MISTAKES]
    return [
        {
            "id": each.judged.id,
            "article": each.article,
            "question": each.judged.question,
            "references": list(dict.fromkeys(each.judged.references)),
            "prediction": each.judged.prediction,
            "probability": each.probability,
            "sentence": _sentence(each.judged),
        }
        for each in worst
    ]


def _sentence(answer: JudgedAnswer) -> str:
    """The sentence around the prediction, cut where it is long; "" where no answer was given."""
    if answer.start is None or answer.end is None:
        return ""
    low, high = sentence_around(answer.context, answer.start, answer.end)
    return answer.context[max(low, answer.start - MAX_SENTENCE // 2) : min(high, answer.end + MAX_SENTENCE // 2)]


def _notes(found: Asked) -> list[str]:
    """What a reader must know before trusting the numbers."""
    questions, articles = len(found.answers), len({each.article for each in found.answers.given})
    notes = []
    if found.part == "val":
        notes.append("These validation questions chose the checkpoint and the thresholds: the scores flatter.")
    if found.agreement is not None and found.agreement < questions:
        different = questions - found.agreement
        notes.append(f"{different:,} of {questions:,} answers differ from those that the run stored.")
    if articles < FEW_ARTICLES:
        about = "one article" if articles == 1 else f"{articles} articles"
        notes.append(
            f"The {counted(questions, 'question')} are about {about}. Questions of one article are not independent of "
            "each other, so the intervals are too narrow."
        )
    if questions < MIN_DOCUMENTS:
        notes.append(f"There are only {counted(questions, 'question')}, too few for their scores to be trusted.")
    return notes


# --- files -------------------------------------------------------------------------------------------------------

_SUMMARY_COLUMNS = ("metric", "value", "low", "high", "questions")
_ERROR_COLUMNS = ("id", "question", "references", "prediction", "exact_match", "f1", "probability")


def summary_rows(report: Mapping[str, Any]) -> list[Sequence[object]]:
    """The rows of `evaluation_summary.csv`; version 2.0 has them for questions with and without an answer, too."""
    parts = {"": report["scores"]} | {
        f"{half}_": report["scores"][half] for half in ("has_answer", "no_answer") if half in report["scores"]
    }
    return [
        (f"{prefix}{metric}", scores[metric], *scores["ci95"][metric], scores["questions"])
        for prefix, scores in parts.items()
        for metric in ("exact_match", "f1")
    ]


def _error_rows(answers: Answers) -> list[Sequence[object]]:
    """Every question that was not answered exactly, in the order of the file."""
    return [
        (
            each.judged.id,
            each.judged.question,
            " | ".join(dict.fromkeys(each.judged.references)),
            each.judged.prediction,
            each.judged.exact_match,
            round(each.judged.f1, 6),
            "" if each.probability is None else round(each.probability, 6),
        )
        for each in answers.given
        if each.judged.exact_match < 1
    ]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
