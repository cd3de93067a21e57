"""`doctune evaluate` judges the exported model on the files themselves, and never drops one in silence."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from doctune.cli.main import main
from doctune.inference.artifact import load_artifact
from doctune.inference.engine import load
from doctune.reports.evaluation import build_evaluation, choose
from doctune.reports.evaluation_answers import ask_file
from doctune.reports.evaluation_answers import build_evaluation as build_answers
from doctune.reports.evaluation_source import evaluate_manifest, evaluate_part, manifest_name

CONTEXT = "The weather was fine. We met Maria Keller at noon. She was well."


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the run; its documents lie where they lay."""
    ignored = shutil.ignore_patterns("checkpoints", "tensorboard", "report")
    return shutil.copytree(finished_run, tmp_path / "run", ignore=ignored)


@pytest.fixture(scope="module")
def engine(finished_run):
    return load(finished_run)


def own_files(run, change):
    """Let the test part of a run name other files: `change` maps a path to the one to read."""
    path = run / "predictions" / "test.parquet"
    table = pq.read_table(path)
    paths = [str(change(name)) for name in table["path"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("path"), "path", [paths]), path)
    return paths


def new_files(folder, rows):
    folder.mkdir()
    for name, text in rows.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


RECIPE = "Take 31 eggs and 32 spoons of sugar. Bake the dough for 31 minutes. Serve warm.\n" * 3
PROGRAM = "def compute_77(value):\n    return value * 77\n\nprint(compute_77(80))\n"


# --- a run's own part --------------------------------------------------------------------------------------------


def test_the_command_writes_everything_and_says_where(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    shown, folder = capsys.readouterr().out, run / "evaluation" / "test"
    report = json.loads((folder / "evaluation_report.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == set(report["files"])
    assert shown == (folder / "summary.txt").read_text(encoding="utf-8") + (
        f"\nwrote {folder}: index.html is the report to look at\n"
    )
    assert report["agreement"] == report["documents"] == 12
    assert report["backend"] == "torch"


def test_the_scores_are_those_of_the_stored_predictions(engine, run):
    found = evaluate_part(engine, run, "test")
    rows = pq.read_table(run / "predictions" / "test.parquet").to_pylist()
    assert [document.path for document in found.documents] == [row["path"] for row in rows]
    assert np.allclose(found.probabilities, [row["probabilities"] for row in rows], atol=1e-5)
    assert found.notes == ()


def test_files_that_are_gone_or_have_changed_are_named_and_not_judged(engine, run, tmp_path):
    paths = pq.read_table(run / "predictions" / "test.parquet")["path"].to_pylist()
    (tmp_path / "changed.txt").write_text("something else", encoding="utf-8")
    moved = {paths[0]: tmp_path / "gone.txt", paths[1]: tmp_path / "changed.txt"}
    own_files(run, lambda path: moved.get(path, path))
    found = evaluate_part(engine, run, "test")
    assert [(each.path, each.status, each.reason) for each in found.unjudged] == [
        (str(tmp_path / "gone.txt"), "gone", "there is no such file any more"),
        (str(tmp_path / "changed.txt"), "changed", "its content is not that which the run was given"),
    ]
    assert len(found.documents) == 10
    assert found.agreement == 10
    assert found.notes == ("Of the 12 files of this part 1 gone and 1 changed since the run: they are not judged.",)


def test_without_any_file_the_stored_probabilities_are_used_and_named(engine, run, tmp_path):
    own_files(run, lambda path: tmp_path / "gone.txt")
    found = evaluate_part(engine, run, "test")
    assert found.backend == "stored"
    assert len(found.documents) == 12
    assert found.agreement is None
    assert found.notes == (
        "None of the 12 files is there any more as the run read it, so the probabilities are those that the run "
        "stored: what is scored is the training loop's model, not the exported one.",
    )
    report = build_evaluation(found, choose(engine.artifact, run), engine.artifact, "run", 0.95)
    assert "length" not in report["slices"]


def test_labels_that_differ_from_those_stored_are_counted(engine, run):
    path = run / "predictions" / "test.parquet"
    table = pq.read_table(path)
    said = table["prediction"].to_pylist()
    said[0] = next(name for name in engine.artifact.labels.names if name != said[0])
    pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", [said]), path)
    found = evaluate_part(engine, run, "test")
    assert found.agreement == 11
    assert found.notes == ("1 of 12 labels differ from those that the run stored.",)


def test_a_part_that_the_run_does_not_have_is_refused(run, capsys):
    (run / "predictions" / "test.parquet").unlink()
    assert main(["evaluate", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {run} has no test documents ({run / 'predictions/test.parquet'} holds none). Use --split val, or "
        "new labelled files with --manifest.\n"
    )


# --- new labelled files ------------------------------------------------------------------------------------------


def test_new_files_are_judged_and_those_that_cannot_be_read_listed(engine, run, tmp_path):
    folder = new_files(
        tmp_path / "new", {"recipe/1.txt": RECIPE, "program/2.txt": PROGRAM, "program/empty.txt": "", "stray.txt": "x"}
    )
    found = evaluate_manifest(engine, run, folder)
    assert [document.label for document in found.documents] == ["program", "recipe"]
    assert (found.probabilities.argmax(axis=1) == found.truth).all()
    assert [(each.path.rsplit("/", 1)[-1], each.status) for each in found.unjudged] == [
        ("empty.txt", "empty"),
        ("stray.txt", "rejected"),
    ]
    assert found.copies.in_training.tolist() == [False, False]


def test_copies_of_training_documents_are_found(engine, run, tmp_path):
    split = pq.read_table(run / "data" / "splits.parquet").to_pylist()
    trained = next(row["path"] for row in split if row["part"] == "train" and row["label"] == "recipe")
    folder = new_files(tmp_path / "new", {"recipe/copy.txt": "", "recipe/other.txt": "Quite another text. " * 9})
    shutil.copyfile(trained, folder / "recipe" / "copy.txt")
    found = evaluate_manifest(engine, run, folder)
    assert found.copies.in_training.tolist() == [True, False]
    assert found.copies.has_copy.tolist() == [False, False]


def test_exact_copies_of_training_documents_are_found_where_those_are_gone(engine, run, tmp_path):
    path = run / "data" / "splits.parquet"
    table = pq.read_table(path)
    trained = next(row["path"] for row in table.to_pylist() if row["part"] == "train" and row["label"] == "recipe")
    folder = new_files(tmp_path / "new", {"recipe/copy.txt": "", "recipe/other.txt": "Quite another text. " * 9})
    shutil.copyfile(trained, folder / "recipe" / "copy.txt")
    gone = [["/nowhere/a.txt"] * len(table)]
    pq.write_table(table.set_column(table.column_names.index("path"), "path", gone), path)
    found = evaluate_manifest(engine, run, folder)
    assert found.copies.in_training.tolist() == [True, False]
    assert found.notes == (
        "Training documents that are gone or changed: 36 of 36. Of those only exact copies were looked for, not "
        "near-copies.",
    )


def test_a_model_folder_alone_judges_new_files(run, tmp_path, capsys):
    model = shutil.copytree(run / "model", tmp_path / "alone")
    folder = new_files(tmp_path / "new", {"recipe/1.txt": RECIPE})
    assert main(["evaluate", str(model), "--manifest", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "No threshold for a precision of 95 %: there are no validation predictions" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "evaluation_report.json").read_text(encoding="utf-8"))
    assert report["training_copies"] is None
    assert report["notes"][0] == (
        "There is no data/splits.parquet beside the model, so nothing is known of near-copies in training."
    )


def test_confidences_of_a_manifest_make_a_slice(engine, run, tmp_path):
    folder = new_files(tmp_path / "new", {"1.txt": RECIPE, "2.txt": PROGRAM})
    manifest = tmp_path / "new.csv"
    manifest.write_text("path,label,confidence\nnew/1.txt,recipe,0.5\nnew/2.txt,program,1\n", encoding="utf-8")
    found = evaluate_manifest(engine, run, manifest)
    assert [document.confidence for document in found.documents] == [0.5, 1.0]
    assert folder.is_dir()


def test_a_manifest_may_have_columns_of_other_names(run, tmp_path, capsys):
    new_files(tmp_path / "new", {"1.txt": RECIPE, "2.txt": PROGRAM})
    manifest = tmp_path / "new.csv"
    manifest.write_text("file,kind\nnew/1.txt,recipe\nnew/2.txt,program\n", encoding="utf-8")
    assert main(["evaluate", str(run), "--manifest", str(manifest)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {manifest} has no column 'path' and 'label'; it has: file, kind. Name the right one with "
        "--path-column NAME --label-column NAME, or that of the texts themselves with --text-column NAME.\n"
    )
    options = ("--path-column", "file", "--label-column", "kind")
    assert main(["evaluate", str(run), "--manifest", str(manifest), *options]) == 0
    assert "2 documents" in capsys.readouterr().out
    assert main(["evaluate", str(run), *options]) == 2
    assert capsys.readouterr().err == (
        "doctune: --path-column is for a classifier's --manifest FILE: leave it out, or give such a file.\n"
    )


def test_labels_that_the_model_cannot_give_are_refused(run, tmp_path, capsys):
    folder = new_files(tmp_path / "new", {"Recipe/1.txt": RECIPE, "Recipe/2.txt": RECIPE, "recipe/3.txt": RECIPE})
    assert main(["evaluate", str(run), "--manifest", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {folder} has 1 label that the model cannot give: 'Recipe' (2). It knows 3: ledger, program, recipe. "
        "Write them as the model does, or take these rows out.\n"
    )


def test_a_manifest_without_a_readable_file_is_refused(run, tmp_path, capsys):
    folder = new_files(tmp_path / "new", {"recipe/1.txt": ""})
    assert main(["evaluate", str(run), "--manifest", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"doctune: None of the files of {folder} can be judged (1 empty). The first: ")


def test_a_manifest_never_takes_the_place_of_a_part(tmp_path):
    assert manifest_name(tmp_path / "letters.csv") == "letters"
    assert manifest_name(tmp_path / "test.csv") == "test-manifest"


# --- mistakes by the caller --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["0", "1.5"])
def test_a_precision_is_a_share(run, precision, capsys):
    assert main(["evaluate", str(run), "--precision", precision]) == 2
    assert capsys.readouterr().err == (
        f"doctune: --precision is {precision}; a share is above 0 and at most 1, such as 0.95.\n"
    )


def test_a_model_folder_alone_has_no_documents_of_its_own(run, tmp_path, capsys):
    model = shutil.copytree(run / "model", tmp_path / "alone")
    assert main(["evaluate", str(model)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {model} is a model folder without its run, so it has no documents of its own. Give labelled ones "
        "with --manifest FILE.\n"
    )
    assert main(["evaluate", str(model), "--manifest", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {model} is a model folder without its run: say where to write with --out DIR.\n"
    )


def test_out_is_a_folder(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["evaluate", str(run), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"doctune: --out {tmp_path / 'file'} is a file; name a folder to write into.\n"


def test_a_task_without_labels_or_answers_is_refused(run, capsys):
    settings = json.loads((run / "model" / "doctune.json").read_text(encoding="utf-8"))
    (run / "model" / "doctune.json").write_text(json.dumps(settings | {"task": "causal_lm"}), encoding="utf-8")
    assert main(["evaluate", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {run} was trained for causal_lm; `doctune evaluate` scores classifiers, of data=ifmos and "
        "data=chunks, and readers, of data=squad.\n"
    )


def test_libraries_that_are_missing_are_named(run, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasketch" else found(name))
    assert main(["evaluate", str(run)]) == 2
    assert capsys.readouterr().err == "doctune: doctune evaluate needs datasketch: pip install 'doctune[evaluate]'.\n"


def test_nothing_that_trains_is_loaded(run):
    program = (
        "import sys; from doctune.cli.main import main; "
        f"assert main(['evaluate', {str(run)!r}]) == 0; "
        "print(*[name for name in ('lightning', 'hydra', 'omegaconf', 'torchmetrics', 'sklearn', 'doctune.training') "
        "if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


# --- readers -----------------------------------------------------------------------------------------------------


def squad_file(path, *, version="1.1", **questions):
    """A SQuAD file on one context; question -> its answer, None for none."""
    qas = [
        {
            "id": name,
            "question": "Who did it?",
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)}] if text else [],
            **({"is_impossible": text is None} if version == "2.0" else {}),
        }
        for name, text in questions.items()
    ]
    content = {"version": version, "data": [{"title": "T", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_questions_of_a_squad_file_are_asked_and_scored(known_reader, tmp_path):
    source = squad_file(tmp_path / "dev.json", right="Maria Keller", half="met Maria Keller", wrong="fine")
    found = ask_file(load(known_reader), source)
    assert [answer.judged.prediction for answer in found.answers.given] == ["Maria Keller"] * 3
    report = build_answers(found, None, "run", 0.95)
    assert report["scores"]["exact_match"] == pytest.approx(1 / 3)
    assert report["scores"]["f1"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert [(kind["group"], kind["count"]) for kind in report["errors"]["by_kind"]] == [
        ("exact", 1),
        ("boundary", 1),
        ("wrong type", 1),
    ]
    assert [(each["id"], each["sentence"]) for each in report["worst_mistakes"]] == [
        ("wrong", "We met Maria Keller at noon.")
    ]
    assert report["notes"] == [
        "The 3 questions are about one article. Questions of one article are not independent of each other, so the "
        "intervals are too narrow.",
        "There are only 3 questions, too few for their scores to be trusted.",
    ]


def test_unanswerable_questions_are_scored_by_the_rules_of_their_version(doubting_reader, tmp_path):
    source = squad_file(tmp_path / "dev.json", version="2.0", right="Maria Keller", none=None)
    report = build_answers(ask_file(load(doubting_reader), source), None, "run", 0.95)
    assert report["version"] == "2.0"
    assert report["scores"]["exact_match"] == 0.5  # it answers the question that has no answer
    assert report["scores"]["no_answer"]["exact_match"] == 0.0


def test_the_command_evaluates_readers(known_reader, tmp_path, capsys):
    source = squad_file(tmp_path / "dev.json", right="Maria Keller", broken="")
    out = tmp_path / "out"
    assert main(["evaluate", str(known_reader), "--manifest", str(source), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    report = json.loads((out / "evaluation_report.json").read_text(encoding="utf-8"))
    assert {path.name for path in out.iterdir()} == set(report["files"])
    assert report["unjudged"]["count"] == 1
    assert f"1 question of {source}, by the exported model (torch). Not judged: 1 " in " ".join(shown.split())
    assert (out / "evaluation_summary.csv").read_text(encoding="utf-8") == (
        "metric,value,low,high,questions\nexact_match,1.0,1.0,1.0,1\nf1,1.0,1.0,1.0,1\n"
    )
    assert load_artifact(known_reader).task == "question_answering"
