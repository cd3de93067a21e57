"""`doctune compare`: exit status, files and sentences, on run folders that are written here."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.cli.main import main

DOCUMENTS = 60


def write_run(run, wrong, gap=0.1):
    """A finished run that has the first `wrong` of 60 documents wrong, and just the files that are read."""
    names = ["a", "b"]
    truth = [names[place % 2] for place in range(DOCUMENTS)]
    told = [names[(place + (place < wrong)) % 2] for place in range(DOCUMENTS)]
    scores = {"documents": DOCUMENTS, "accuracy": 1 - wrong / DOCUMENTS, "f1_macro": 1 - wrong / DOCUMENTS}
    files = {
        "status.json": {"phase": "finished"},
        "data/labels.json": names,
        "data/audit.json": {},
        "training_history.json": [{"epoch": 1, "val_loss": 0.5, "val_f1_macro": 0.9}],
        "environment.json": {"config": {"optim": {"lr": wrong / 1000}}},
        "report/report.json": {"test": scores, "val": scores, "gap": {"value": gap, "status": "good"}},
    }
    table = pa.table(
        {
            "id": [str(place) for place in range(DOCUMENTS)],
            "path": [f"{place}.txt" for place in range(DOCUMENTS)],
            "truth": truth,
            "prediction": told,
            "probabilities": pa.array([[0.5, 0.5]] * DOCUMENTS, pa.list_(pa.float32())),
        }
    )
    for name, value in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps(value))
    (run / "predictions").mkdir()
    for part in ("val", "test"):
        pq.write_table(table, run / f"predictions/{part}.parquet")
    return run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "multirun/0", wrong=3)
    write_run(tmp_path / "multirun/1", wrong=15, gap=0.2)
    return ["multirun"]


@pytest.fixture
def said(capsys):
    def call(*arguments):
        code = main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_the_better_run_is_named(runs, said):
    code, text = said("multirun/0", "multirun/1")
    assert code == 0
    assert "doctune compare: 2 runs, 60 shared test documents\n\n0 is better than 1: macro F1 +0.200 (+0." in text
    assert ["optim.lr", "0.003", "0.015"] in [line.split() for line in text.splitlines()]
    assert said(*runs) == (0, text)


def test_gates_that_all_runs_pass_exit_0(runs, said):
    code, text = said(*runs, "--gate", "gap<0.3", "--gate", "accuracy>=0.75")
    assert code == 0
    assert text.count(": passed: ") == 4
    assert "gate accuracy>=0.75: passed: 1: accuracy 0.75 is >= 0.75.\n" in text


def test_a_gate_that_one_run_fails_exits_1_and_names_it(runs, said):
    code, text = said(*runs, "--gate", "gap<0.15")
    assert code == 1
    assert "gate gap<0.15: passed: 0: gap 0.1 is < 0.15.\n" in text
    assert "gate gap<0.15: FAILED: 1: gap 0.2 is not below 0.15.\n" in text


def test_a_value_that_is_not_known_fails_its_gate(runs, said):
    code, text = said(*runs, "--gate", "seconds<9e9")
    assert code == 1
    assert "gate seconds<9000000000: FAILED: 0: seconds is not known (–), so seconds<9000000000 fails.\n" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gate", "gap~1"], "doctune: --gate 'gap~1' is no rule: write METRIC OP NUMBER"),
        (["--gate", "speed>1"], "doctune: --gate 'speed>1': there is no metric 'speed'. There are documents, accuracy"),
        (["--json", "."], "doctune: --json . is a folder; name a file in it, such as compare.json."),
        (["--html", "multirun"], "doctune: --html multirun is a folder; name a file in it, such as multirun/compare.h"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_2(runs, said, arguments, sentence):
    code, text = said(*runs, *arguments)
    assert code == 2
    assert text.startswith(sentence)


def test_one_run_is_a_sentence_and_exit_2(runs, said):
    assert said("multirun/0") == (
        2,
        "doctune: A comparison needs at least two finished runs, and multirun/0 gives 1: name another run or a "
        "multirun folder.\n",
    )


def test_both_files_are_written_and_said_to_be(runs, said, tmp_path):
    code, text = said(*runs, "--json", "out/compare.json", "--html", "out/compare.html", "--gate", "gap<0.15")
    assert code == 1
    assert text.endswith("wrote out/compare.json\nwrote out/compare.html\n")
    report = json.loads((tmp_path / "out/compare.json").read_text())
    assert report["best"] == "0"
    assert report["settings"] == {"optim.lr": [0.003, 0.015]}
    assert [(gate["run"], gate["value"], gate["passed"]) for gate in report["gates"]] == [
        ("0", 0.1, True),
        ("1", 0.2, False),
    ]
    html = (tmp_path / "out/compare.html").read_text()
    assert html.startswith("<!doctype html>")
    assert html.count("<svg") == 2
