"""A made-up run folder: the files that training writes, with numbers that a test chooses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.baselines import Baseline, majority, score_baselines, write_predictions
from doctune.labels import Labels
from doctune.scoring.squad import bootstrap_intervals, score_answers, summarise

ENVIRONMENT = {
    "versions": {"doctune": "0.1.0"},
    "git": {"commit": "0123456789abcdef0123", "dirty": True},
    "hardware": {"processor": "Processor X", "cores": 2, "gpus": []},
    "seed": 0,
    "command": "train.py data=ifmos",
    "precision": "32-true",
    "model": {"name": "mini", "architecture": "distilbert", "total": 4_500_000, "trainable": 1_000},
    "started_at": "2026-11-01T10:00:00+00:00",
    "finished_at": "2026-11-01T10:04:00+00:00",
    "training_seconds": 192.4,
    "best_checkpoint": "checkpoints/best.ckpt",
    "monitor": {"metric": "val/f1_macro", "mode": "max"},
    "stopped": "early_stopping",
    "notes": ["Precision 16-mixed was asked for, but a CPU has none: 32 is used."],
}
HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.5, "val_f1_macro": 0.4, "padding_share": 0.1},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 0.9, "val_accuracy": 0.8, "val_f1_macro": 0.7, "padding_share": 0.2},
    {"epoch": 3, "train_loss": 0.5, "val_loss": 1.1, "val_accuracy": 0.7, "val_f1_macro": 0.6, "padding_share": 0.3},
]


def made_up_labels(truth, num_labels, wrong_every):
    """Predictions that miss every `wrong_every`-th document by one label; 0 misses none."""
    places = np.arange(len(truth))
    is_wrong = places % wrong_every == wrong_every - 1 if wrong_every else np.zeros(len(truth), bool)
    return np.where(is_wrong, (truth + 1) % num_labels, truth)


def write_part(run, part, names, truth, predicted):
    chances = np.full((len(truth), len(names)), 0.1 / len(names), np.float32)
    chances[np.arange(len(truth)), predicted] += 0.9
    table = pa.table(
        {
            "id": pa.array([f"{part}-{row}" for row in range(len(truth))], pa.string()),
            "path": pa.array([f"/files/{row}.txt" for row in range(len(truth))], pa.string()),
            "truth": pa.array([names[index] for index in truth], pa.string()),
            "prediction": pa.array([names[index] for index in predicted], pa.string()),
            "probabilities": pa.array(list(chances), pa.list_(pa.float32())),
        }
    )
    (run / "predictions").mkdir(exist_ok=True)
    pq.write_table(table, run / "predictions" / f"{part}.parquet")


def write_made_up_run(
    run: Path, names=("a", "b", "c"), documents=120, wrong_every=10, svm_wrong_every=4, history=None, **environment
) -> Path:
    """Documents of all labels in turn; the model misses every 10th, the SVM every 4th."""
    (run / "data").mkdir(parents=True)
    truth = np.arange(documents) % len(names)
    for part in ("val", "test"):
        write_part(run, part, names, truth, made_up_labels(truth, len(names), wrong_every))
    svm = made_up_labels(truth, len(names), svm_wrong_every)
    baselines = [majority(truth, documents, documents, len(names)), Baseline("tfidf_svm", svm, svm)]
    write_predictions(
        baselines,
        [f"test-{row}" for row in range(documents)],
        Labels(tuple(names)),
        run / "predictions/baselines_test.parquet",
    )
    audit = {
        "rows": 3 * documents + 5,
        "parts": {"train": documents, "val": documents, "test": documents, "left_out": 5},
        "left_out_reasons": {"empty": 3, "damaged": 2},
        "class_counts": {"train": {name: 10 + place for place, name in enumerate(names)}},
        "duplicate_groups": 4,
    }
    files = {
        "data/labels.json": list(names),
        "data/audit.json": audit,
        "data/baselines.json": score_baselines(baselines, truth, truth, len(names)),
        "training_history.json": HISTORY if history is None else history,
        "environment.json": ENVIRONMENT | environment,
    }
    for name, value in files.items():
        (run / name).write_text(json.dumps(value), encoding="utf-8")
    return run


@pytest.fixture
def make_run(tmp_path):
    """Write a made-up run into a fresh folder; see `write_made_up_run`."""

    def make(name="run", **settings):
        return write_made_up_run(tmp_path / "outputs" / "2026-11-01" / name, **settings)

    return make


class Reader(HTMLParser):
    """What an HTML page holds: its tags, its texts; fails where a tag is closed that is not the open one."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read_html():
    """`Reader`: HTML in; tags, tags left open and texts out."""
    return Reader


CONTEXT = "The tower stands in Paris. It was built in 1889 by Eiffel."
PARTS = ("train", "val", "test")
READER_ENVIRONMENT = {
    "task": "question_answering",
    "version": "1.1",
    "command": "train.py data=squad",
    "monitor": {"metric": "val/f1", "mode": "max"},
    "no_answer_threshold": None,
    "inference": {"questions_per_s": 123.4, "latency_ms": {"p50": 8.1, "p90": 12.0, "p99": 30.6}, "memory_mb": 1024},
    "windows": {"train": 90, "val": 44, "test": 45},
    "length_analysis": {
        "question": {"p50": 12, "p95": 20, "max": 33},
        "context": {"p50": 150, "p95": 300, "max": 700},
        "windows_per_question": {"1": 30, "2": 10},
    },
}
READER_HISTORY = [
    {"epoch": 1, "train_loss": 3.0, "val_loss": 2.5, "val_exact_match": 0.3, "val_f1": 0.4, "padding_share": 0.1},
    {"epoch": 2, "train_loss": 2.0, "val_loss": 1.9, "val_exact_match": 0.6, "val_f1": 0.7, "padding_share": 0.2},
]


def answered(name, prediction="1889", *, context=CONTEXT, references=("1889",), **columns):
    """One row of a reader's predictions: an answer where it first stands in the context."""
    start = context.find(prediction) if prediction else -1
    place = {"start": start, "end": start + len(prediction)} if start >= 0 else {"start": None, "end": None}
    row = {
        "id": name,
        "article": "Towers",
        "question": "When was it built?",
        "context": context,
        "references": list(references),
        "reference_start": context.index(references[0]) if references else None,
        "prediction": prediction,
        **place,
        "score": 5.0,
        "probability": 0.75,
        "null_score": -3.0,
        "windows": 1,
        "exact_match": 0.0,
        "f1": 0.0,
        "n_best": [{"text": prediction, "start": 0, "end": 1, "score": 5.0, "probability": 0.75}],
    }
    return row | columns


def many_answers(part, questions=40):
    """Every 4th answer is in the wrong place, and the one after it a word too long."""
    said = ["Paris", "in 1889", "1889", "1889"]
    return [answered(f"{part}-{number:02}", said[number % 4]) for number in range(questions)]


ANSWER_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "article", "question", "context"), pa.string()),
        "references": pa.list_(pa.string()),
        "reference_start": pa.int32(),
        "prediction": pa.string(),
        **dict.fromkeys(("start", "end"), pa.int32()),
        **dict.fromkeys(("score", "probability", "null_score"), pa.float32()),
        "windows": pa.int32(),
        **dict.fromkeys(("exact_match", "f1"), pa.float32()),
        "n_best": pa.list_(
            pa.struct(
                {
                    "text": pa.string(),
                    **dict.fromkeys(("start", "end"), pa.int32()),
                    **dict.fromkeys(("score", "probability"), pa.float32()),
                }
            )
        ),
    }
)


def write_answers(path: Path, rows) -> None:
    """A reader's `val.parquet` or `test.parquet`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, ANSWER_SCHEMA)
    place = table.column_names.index("context")
    pq.write_table(table.set_column(place, "context", table["context"].dictionary_encode()), path)


def scored(rows, answer, version):
    """What a baseline that always gives the same answer scores, as `data/baselines.json` has it."""
    references = {row["id"]: row["references"] for row in rows}
    scores = score_answers(dict.fromkeys(references, answer), references, version)
    return summarise(scores).to_dict() | {
        "ci95": {name: list(bounds) for name, bounds in bootstrap_intervals(scores).items()}
    }


def write_made_up_reader_run(run: Path, test=None, val=None, baselines=None, history=None, **environment) -> Path:
    """A reader's run; `baselines` maps each name to its answer to all questions."""
    (run / "data").mkdir(parents=True)
    rows = {"val": many_answers("val") if val is None else val, "test": many_answers("test") if test is None else test}
    for part, answers in rows.items():
        write_answers(run / f"predictions/{part}.parquet", answers)
    baselines = {"lexical": "built in 1889", "untrained": "Eiffel"} if baselines is None else baselines
    ids = [row["id"] for row in rows["test"]]
    said = {name: [answer] * len(ids) for name, answer in baselines.items()}
    pq.write_table(pa.table({"id": ids} | said), run / "predictions/baselines_test.parquet")
    version = environment.get("version", READER_ENVIRONMENT["version"])
    scores = {
        name: {part: scored(answers, answer, version) for part, answers in rows.items()}
        for name, answer in baselines.items()
    }
    counts = {part: len(answers) for part, answers in ({"train": range(80)} | rows).items()}
    account = {
        "rows": sum(counts.values()) + 3,
        "parts": counts | {"left_out": 3},
        "left_out_reasons": {"misaligned_answer": 2, "empty_question": 1},
        "articles": dict.fromkeys(PARTS, 1),
        "contexts": {"train": 7, "val": 5, "test": 6},
        "questions": counts,
        "impossible": dict.fromkeys(PARTS, 0),
        "misaligned": 2,
    }
    files = {
        "data/audit.json": account,
        "data/baselines.json": scores,
        "training_history.json": READER_HISTORY if history is None else history,
        "environment.json": ENVIRONMENT | READER_ENVIRONMENT | environment,
    }
    for name, value in files.items():
        (run / name).write_text(json.dumps(value), encoding="utf-8")
    return run


@pytest.fixture
def make_reader_run(tmp_path):
    """Write a made-up reader's run into a fresh folder; see `write_made_up_reader_run`."""

    def make(name="run", **settings):
        return write_made_up_reader_run(tmp_path / "outputs" / "2026-11-01" / name, **settings)

    return make


@pytest.fixture
def answer():
    """`answered`: one row of a reader's predictions."""
    return answered


TARGET_LABELS = {"kind": ["x", "y"], "tags": ["a", "b"]}
TARGET_ENVIRONMENT = {
    "task": "multi_task",
    "command": "train.py data=emotions",
    "thresholds": {"tags": [0.3, 0.6]},
    "target_weights": {"kind": 0.8, "tags": 1.2},
}
TARGET_HISTORY = [
    {"epoch": epoch, "train_loss": 2.0, "val_loss": 1.5, "train_eval_loss": 1.4, "gap": 0.1, "gap_status": "good"}
    | {"val_f1_macro": 0.6, "val_kind_f1_macro": 0.5, "val_tags_f1_macro": 0.7}
    for epoch in (1, 2)
]


def judged_text(number, said_kind, said_tags, *, prefix="t"):
    """A row of predictions: texts are x and y in turn, every 2nd has tag a, every 5th b; every 10th lacks its kind."""
    tags = [tag for tag, every in (("a", 2), ("b", 5)) if number % every == 0]
    return {
        "id": f"{prefix}{number}",
        "path": f"f.csv:{number}",
        "text": f"Text {prefix}{number}.",
        "kind/truth": None if number % 10 == 9 else ["xy"[number % 2]],
        "kind/prediction": [said_kind],
        "kind/probabilities": [0.7, 0.3] if said_kind == "x" else [0.2, 0.8],
        "tags/truth": tags,
        "tags/prediction": tags if said_tags is None else said_tags,
        "tags/probabilities": [0.9 if tag in tags else 0.1 for tag in "ab"],
    }


def judged_texts(right, *, prefix="t", wrong_tags=0):
    """40 texts: the first `right` have their kind right, the others are said x; the first `wrong_tags` are said b."""
    return [
        judged_text(
            number, "xy"[number % 2] if number < right else "x", ["b"] if number < wrong_tags else None, prefix=prefix
        )
        for number in range(40)
    ]


def write_target_rows(path, rows):
    """A `val.parquet` or `test.parquet` of several targets."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    types = {name: pa.list_(pa.string()) for name in columns if name.endswith(("truth", "prediction"))}
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)


def target_scores(f1):
    return {"f1_macro": f1, "f1_micro": f1, "accuracy": f1, "ci95": {"f1_macro": [f1 - 0.05, f1 + 0.05]}}


def write_made_up_targets_run(run: Path, test=None, val=None, history=None, labels=None, **environment) -> Path:
    """A run with a single-label target `kind` and a multi-label one `tags`; `test` and `val` are rows."""
    for folder in ("data", "predictions"):
        (run / folder).mkdir(parents=True)
    rows = {"val": judged_texts(40) if val is None else val, "test": judged_texts(36) if test is None else test}
    for part, judged in rows.items():
        write_target_rows(run / f"predictions/{part}.parquet", judged)
    ids = [row["id"] for row in rows["test"]]
    said = {"id": ids[::-1], "kind/majority": [["x"]] * len(ids), "tags/tfidf_logistic": [["a"]] * len(ids)}
    pq.write_table(pa.table(said), run / "predictions/baselines_test.parquet")
    labels = TARGET_LABELS if labels is None else labels
    kinds = {"kind": "single", "tags": "multi"}
    audit = {
        "rows": 120,
        "parts": {"train": 40, "val": 40, "test": 40, "left_out": 0},
        "targets": {
            name: {
                "kind": kinds[name],
                "missing": {"train": 12 if name == "kind" else 0, "val": 4, "test": 4},
                "label_counts": {"train": dict.fromkeys(names, 7)},
            }
            for name, names in labels.items()
        },
        "duplicate_groups": 2,
        "duplicate_texts": 5,
        "conflicting_texts": 1,
    }
    files = {
        "data/labels.json": labels,
        "data/audit.json": audit,
        "data/baselines.json": {
            "kind": {"majority": {part: target_scores(0.3) for part in ("val", "test")}},
            "tags": {"tfidf_logistic": {part: target_scores(0.4) for part in ("val", "test")}},
        },
        "environment.json": ENVIRONMENT | TARGET_ENVIRONMENT | environment,
        "training_history.json": TARGET_HISTORY if history is None else history,
    }
    for name, content in files.items():
        (run / name).write_text(json.dumps(content))
    return run


@pytest.fixture
def make_targets_run(tmp_path):
    """Write a made-up run with several targets into a fresh folder; see `write_made_up_targets_run`."""

    def make(name="run", **settings):
        return write_made_up_targets_run(tmp_path / "outputs" / "2026-11-01" / name, **settings)

    return make


@pytest.fixture
def judged():
    """`judged_texts`: rows of predictions of several targets."""
    return judged_texts


@pytest.fixture
def save_rows():
    """`write_target_rows`: a path and rows in."""
    return write_target_rows


def judged_conversations(lower=0.0, *, prefix="c", tokens=10, count=40, written="yes"):
    """Conversations with losses of 20 to 24 nats, less what every odd one is `lower`, and what the model wrote."""
    return [
        {
            "id": f"{prefix}{number}", "place": f"t.jsonl:{number + 1}", "prompt": f"Say {number}.", "reference": "yes",
            "loss": 20.0 + number % 5 - (lower if number % 2 else 0.0), "tokens": tokens, "prediction": written,
        }
        for number in range(count)
    ]  # fmt: skip


CONVERSATION_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "place", "prompt", "reference")]
    + [("loss", pa.float64()), ("tokens", pa.int64()), ("prediction", pa.string())]
)


UNTRAINED_SCORES = {"loss": 2.3, "perplexity": 10.0, "ci95": {"loss": [2.2, 2.4], "perplexity": [9.0, 11.0]}}


def write_made_up_instruction_run(run: Path, test=None, history=None, checks=None, **environment) -> Path:
    """A tuned model's run; `test` are rows as of `judged_conversations`; before training losses are 1 higher."""
    for folder in ("data", "predictions"):
        (run / folder).mkdir(parents=True)
    for part, rows in {"val": judged_conversations(), "test": judged_conversations() if test is None else test}.items():
        before = [row | {"loss": row["loss"] + 1, "prediction": None} for row in rows]
        for name, found in ((part, rows), (f"untrained_{part}", before)):
            table = pa.Table.from_pylist(found, CONVERSATION_SCHEMA)
            pq.write_table(table, run / f"predictions/{name}.parquet")
    if checks is None:
        checks = [
            {"step": 5 * number, "epoch": number, "train_loss": 2.0, "val_loss": 2.0 + gap, "gap": gap}
            | {"gap_status": "good", "lr": 1e-3}
            for number, gap in ((1, 0.125), (2, 0.1))
        ]
    if history is None:
        history = [
            {"epoch": row["epoch"], "val_loss": row["val_loss"], "val_perplexity": 8.0, "train_loss": row["train_loss"]}
            | {"gap": row["gap"], "gap_status": row["gap_status"]}
            for row in checks
        ]
    told = {"task": "instruction_tuning", "monitor": {"metric": "val/loss", "mode": "min"}, "best_epoch": 2}
    files = {
        "data/audit.json": {"rows": 100, "parts": {"train": 20, "val": 40, "test": 40, "left_out": 0}, "truncated": 0},
        "data/baselines.json": {"untrained": dict.fromkeys(("val", "test"), UNTRAINED_SCORES)},
        "environment.json": ENVIRONMENT | told | {"best_step": 10} | environment,
        "training_history.json": history,
        "training_metrics.json": checks,
    }
    for name, content in files.items():
        (run / name).write_text(json.dumps(content))
    return run


@pytest.fixture
def make_instruction_run(tmp_path):
    """Write a made-up language model's run into a fresh folder; see `write_made_up_instruction_run`."""

    def make(name="run", **settings):
        return write_made_up_instruction_run(tmp_path / "outputs" / "2026-11-01" / name, **settings)

    return make


@pytest.fixture
def conversation_rows():
    """`judged_conversations`: rows of a part."""
    return judged_conversations
