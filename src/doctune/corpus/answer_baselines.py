"""What cheap answers score on the same questions, beside those of a run.

Writes `data/baselines.json` (name -> part -> scores with 95 % intervals) and `predictions/baselines_test.parquet` (id
and an answer per baseline), from which the report judges the difference question by question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doctune.corpus.lexical import lexical_answers
from doctune.corpus.questions import QuestionCorpus
from doctune.corpus.squad import Question
from doctune.files import write_json, written_whole
from doctune.scoring.squad import Version, bootstrap_intervals, score_answers, summarise

JUDGED = ("val", "test")


def judge_cheap_answers(corpus: QuestionCorpus, version: Version, run: Path) -> None:
    """Judge the lexical baseline, and for SQuAD 2.0 never giving an answer."""
    known = [question.context for question in corpus.part("train")]
    parts = {part: corpus.part(part) for part in JUDGED}
    answers = {"lexical": {part: lexical_answers(questions, known) for part, questions in parts.items()}}
    if version == "2.0":
        answers["no_answer"] = {part: [""] * len(questions) for part, questions in parts.items()}
    add_baselines(run, parts, answers, version)


def add_baselines(
    run: Path,
    parts: Mapping[str, Sequence[Question]],
    answers: Mapping[str, Mapping[str, Sequence[str]]],
    version: Version,
) -> None:
    """Add baselines (name -> part -> answers) to those that stand in the run's folder already, all of them at once."""
    scores = {
        name: {part: _scores(questions, given[part], version) for part, questions in parts.items()}
        for name, given in answers.items()
    }
    file = run / "data" / "baselines.json"
    judged = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    columns = {name: given["test"] for name, given in answers.items()}
    _add_columns(run / "predictions" / "baselines_test.parquet", parts["test"], columns)
    write_json(file, judged | scores)


def _scores(questions: Sequence[Question], answers: Sequence[str], version: Version) -> dict[str, Any]:
    ids = [question.id for question in questions]
    references = {question.id: question.answers for question in questions}
    scores = score_answers(dict(zip(ids, answers, strict=True)), references, version)
    intervals = {metric: list(bounds) for metric, bounds in bootstrap_intervals(scores).items()}
    return summarise(scores).to_dict() | {"ci95": intervals}


def _add_columns(path: Path, questions: Sequence[Question], answers: Mapping[str, Sequence[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": [question.id for question in questions]}
    if path.exists():
        columns |= pq.read_table(path).to_pydict()
    with written_whole(path) as temporary:
        pq.write_table(pa.table(columns | {name: list(given) for name, given in answers.items()}), temporary)
