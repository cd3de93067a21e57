"""`doctune cascade-tune` on a finished run of three kinds of file and a stand-in endpoint."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from doctune.cli.main import main
from doctune.inference.artifact import load_artifact
from doctune.inference.cascade import load_cascade
from doctune.inference.forest import FOREST_FILE, ForestSettings, fit_forest


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A run with a forest."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("tuned") / "run")
    with (run / "data/account.csv").open() as stream:
        train = [row for row in csv.DictReader(stream) if row["part"] == "train"]
    labels = load_artifact(run).labels
    texts = [Path(row["path"]).read_text() for row in train]
    ids = labels.encode([row["label"] for row in train])
    fit_forest(texts, ids, labels, ForestSettings(trees=10)).save(run / "model" / FOREST_FILE)
    return run


@pytest.fixture
def said(capsys):
    """A function: arguments -> exit status and what was printed."""

    def call(*arguments):
        code = main(["cascade-tune", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_it_prints_the_frontier_judges_the_choice_and_writes_the_cascade(run, said, tmp_path):
    code, output = said(run, "--out", tmp_path / "mine.json")
    assert code == 0
    lines = output.splitlines()
    assert "Validation: 12 documents." in lines
    assert [line.split()[:2] for line in lines if "100.0 %" in line][:2] == [["transformer", "12"], ["forest", "12"]]
    assert "Frontier: no other cascade of these stages is as accurate and as fast." in lines
    assert "Chosen (*): the most accurate, the faster one of equals." in lines
    assert "Thresholds chosen on validation, judged on test: 12 documents." in lines
    assert any(line.startswith("cascade       100.0 %  100.0 % to 100.0 %") for line in lines)
    assert sum(line.endswith("+0.0 (+0.0 to +0.0)") for line in lines) == 2
    assert f"wrote {tmp_path / 'mine.json'}" in lines
    written = json.loads((tmp_path / "mine.json").read_text())
    assert [stage["threshold"] for stage in written["stages"]] == [None]
    assert written["tuning"]["validation_documents"] == written["tuning"]["test_documents"] == 12
    assert written["tuning"]["chosen"] == written["tuning"]["frontier"][-1]
    assert [each["name"] for each in written["tuning"]["test"]] == ["cascade", "transformer", "forest"]
    (answer,) = load_cascade(run, file=tmp_path / "mine.json").predict(["Take 3 eggs and 4 spoons of sugar."])
    assert answer.label == "recipe"


def test_an_endpoint_is_asked_for_all_documents_and_its_key_is_written_nowhere(
    run, said, stand_in, completion, monkeypatch
):
    monkeypatch.setenv("THE_KEY", "sk-secret")
    server = stand_in(lambda text, number: completion("program" if "def " in text else "no idea"))
    options = ("--endpoint-url", server.url, "--endpoint-model", "m", "--endpoint-key", "THE_KEY")
    code, output = said(run, *options, "--endpoint-set", "timeout_s=7", "--endpoint-set", "logprobs=false")
    assert code == 0
    assert len(server.requests) == 24
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {"Bearer sk-secret"}
    assert {"logprobs" in body for _, _, body in server.requests} == {False}
    assert "8 times without an answer: answered 'no idea', which is no label" in output
    written = (run / "model/cascade.json").read_text()
    assert "sk-secret" not in output + written
    assert all(b"sk-secret" not in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_a_cascade_with_an_endpoint_has_its_settings_but_not_its_key(run, said, stand_in, completion, tmp_path):
    server = stand_in(lambda text, number: completion("program"))
    out = tmp_path / "mine.json"
    options = ("--stages", "http", "--endpoint-url", server.url, "--endpoint-model", "m", "--out", out)
    assert said(run, *options, "--endpoint-set", "prompt=Which of {labels}?\n<document>\n{text}\n</document>")[0] == 0
    (stage,) = json.loads(out.read_text())["stages"]
    assert (stage["name"], stage["endpoint"]["url"], stage["endpoint"]["key_variable"]) == ("http", server.url, None)
    assert server.requests[0][2]["messages"][0]["content"].startswith("Which of ledger\nprogram\nrecipe?")


def test_an_endpoint_that_is_down_is_said_and_left_out(run, said, stand_in, tmp_path):
    server = stand_in(None)
    server.stop()
    options = ("--endpoint-url", server.url, "--endpoint-model", "m", "--endpoint-set", "retries=0")
    code, output = said(run, *options, "--out", tmp_path / "mine.json")
    assert code == 0
    assert "http                0     0.0 %" in output
    assert "http" not in [stage["name"] for stage in json.loads((tmp_path / "mine.json").read_text())["stages"]]


def test_a_sample_of_the_documents_is_evenly_spaced_and_said(run, said, tmp_path):
    code, output = said(run, "--stages", "forest", "--max-documents", 6, "--out", tmp_path / "mine.json")
    assert code == 0
    assert "Validation: 6 documents, from 6 of 12 (--max-documents)." in output
    assert "judged on test: 6 documents, from 6 of 12 (--max-documents)." in output


def test_files_that_are_gone_or_changed_are_said_and_left_out(run, said, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    _move_files(moved, tmp_path / "files", change=2, remove=1)
    code, output = said(moved, "--stages", "forest")
    assert code == 0
    assert "Validation: 9 documents; 3 can no longer be used, such as " in output
    assert "it has changed since the run" in output


def test_a_run_whose_files_are_all_gone_is_refused(run, said, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    _move_files(moved, tmp_path / "files", change=0, remove=12)
    code, output = said(moved, "--stages", "forest")
    assert code == 2
    assert f"None of the 12 val documents of {moved} can be read as it was in the run; most often: " in output
    assert "(12). A cascade is tuned where the run's files are." in output


def test_a_run_without_predictions_is_refused(run, said, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(moved / "predictions")
    assert said(moved, "--stages", "forest") == (
        2,
        f"doctune: {moved / 'predictions/val.parquet'} is missing: a cascade is tuned on the predictions of a finished "
        "run.\n",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--target-accuracy", "1.5"], "--target-accuracy 1.5 must be above 0 and at most 1."),
        (["--max-latency-ms", "0"], "--max-latency-ms 0 must be larger than 0."),
        (["--max-documents", "0"], "--max-documents 0 must be at least 1."),
        (["--out", "."], "--out . is a folder; name a file in it, such as cascade.json."),
        (
            ["--stages", "svm"],
            "--stages svm must name each of transformer, forest, http at most once, and one at least.",
        ),
        (["--stages", ","], "--stages , must name each of transformer, forest, http at most once, and one at least."),
        (["--stages", "forest,forest"], "--stages forest,forest must name each of transformer, forest, http at most"),
        (["--stages", "http"], "The stage http needs --endpoint-url and --endpoint-model."),
        (["--endpoint-url", "http://x/v1"], "The stage http needs --endpoint-model."),
        (
            ["--stages", "forest", "--endpoint-url", "http://x/v1"],
            "--stages forest leaves http out, and options of an endpoint are given: add http.",
        ),
        (["--endpoint-set", "retries"], "--endpoint-set retries must be KEY=VALUE, such as timeout_s=10."),
        (
            ["--endpoint-url", "http://x/v1", "--endpoint-model", "m", "--endpoint-set", "retry=1"],
            "There is no key retry of an endpoint; there are url, model, key_variable, timeout_s, retries,",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_a_sentence(run, said, options, sentence):
    code, output = said(run, *options)
    assert (code, output[: len("doctune: ") + len(sentence)]) == (2, f"doctune: {sentence}")


def test_a_stage_whose_forest_is_missing_is_refused(finished_run, said):
    code, output = said(finished_run, "--stages", "forest")
    assert code == 2
    assert "there is no forest. `python train.py … cascade.forest=true` grows one beside the model." in output


def _move_files(run, folder, *, change, remove):
    """Let the predictions of a run name copies of its files, of which some of each part have changed or are gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in ("val", "test"):
        table = pq.read_table(run / f"predictions/{part}.parquet")
        paths = []
        for number, path in enumerate(table["path"].to_pylist()):
            copy = folder / part / f"{number}.txt"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            if number < change:
                copy.write_text("another text")
            elif number < change + remove:
                copy.unlink()
            paths.append(str(copy))
        table = table.set_column(table.schema.get_field_index("path"), "path", pa.array(paths))
        pq.write_table(table, run / f"predictions/{part}.parquet")
