"""`doctune folds DIR`: its page and its exit status."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.cli.main import main


@pytest.fixture
def make_multirun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*phases):
        for number, phase in enumerate(phases):
            run = tmp_path / f"multirun/d/t/fold-{number}"
            (run / "data").mkdir(parents=True)
            (run / "predictions").mkdir()
            split = {"kind": "kfold", "fold": number, "folds": 2}
            config = {"split": split, "monitor": {"metric": "val/f1_macro", "mode": "max"}}
            files = {
                "environment.json": {"config": config},
                "status.json": {"phase": phase},
                "training_history.json": [{"epoch": 1, "val_loss": 0.5, "val_f1_macro": 0.75}],
                "data/labels.json": ["a", "b"],
            }
            for name, value in files.items():
                (run / name).write_text(json.dumps(value))
            columns = {
                "id": [f"{number}-{row}" for row in range(4)],
                "path": [f"/files/{number}-{row}" for row in range(4)],
                "truth": ["a", "b", "a", "b"],
                "prediction": ["a", "b", "a", "b"],
                "probabilities": pa.array([[0.9, 0.1], [0.1, 0.9]] * 2, pa.list_(pa.float32())),
            }
            pq.write_table(pa.table(columns), run / "predictions/test.parquet")
        return "multirun/d/t"

    return make


def test_complete_folds_exit_0_and_the_page_is_printed(make_multirun, capsys):
    directory = make_multirun("finished", "finished")
    assert main(["folds", directory]) == 0
    shown = capsys.readouterr().out
    assert "val/f1_macro 0.750 ± 0.000" in shown
    assert shown.endswith(f"\nwrote {directory}/kfold\n")


@pytest.mark.parametrize("phases", [("finished",), ("finished", "failed"), ("training", "finished")])
def test_missing_and_failed_folds_exit_1_and_say_how_to_go_on(make_multirun, capsys, phases):
    assert main(["folds", make_multirun(*phases)]) == 1
    assert "Start the same multirun again with: hydra.sweep.dir=multirun/d/t\n" in capsys.readouterr().out


def test_a_folder_without_folds_exits_2_with_a_sentence(tmp_path, capsys):
    assert main(["folds", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"doctune: {tmp_path} holds no fold: ")
    assert error.endswith("python train.py sweep=kfold split.folds=5\n")
