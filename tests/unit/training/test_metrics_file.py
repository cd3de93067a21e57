"""metrics.csv: a row per logged step, also where a run was cut and goes on."""

import pytest
import torch

from doctune.training import metrics_file
from doctune.training.metrics_file import MetricsFile, MetricsRows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def logged(path, *rows):
    """A file of these (step, metrics), as one process leaves it."""
    metrics = MetricsFile(path)
    for step, values in rows:
        metrics.log_metrics(values, step)
    metrics.finalize("success")
    return metrics


def test_a_row_has_step_and_epoch_first_and_the_metrics_in_order(path):
    logged(path, (0, {"train/loss_step": 1.5, "epoch": 0, "lr": 0.25}), (1, {"epoch": 0.0, "lr": torch.tensor(0.5)}))
    assert path.read_text() == "step,epoch,lr,train/loss_step\n0,0,0.25,1.5\n1,0,0.5,\n"


def test_a_metric_that_comes_up_later_gets_a_column_in_all_rows(path):
    metrics = logged(path, (0, {"b": 1.0}))
    assert path.read_text() == "step,epoch,b\n0,,1.0\n"
    metrics.log_metrics({"a": 2.0, "epoch": 0}, 1)
    metrics.save()
    metrics.log_metrics({"b": 3.0}, 2)
    metrics.save()
    assert path.read_text() == "step,epoch,a,b\n0,,,1.0\n1,0,2.0,\n2,,,3.0\n"


def test_rows_reach_the_disk_fifty_at_a_time(path):
    metrics = MetricsFile(path)
    for step in range(49):
        metrics.log_metrics({"a": 0.0}, step)
    assert not path.exists()
    metrics.log_metrics({"a": 0.0}, 49)
    assert len(path.read_text().splitlines()) == 51
    assert metrics.num_rows == 50


def test_values_come_back_to_the_last_digit(path):
    logged(path, (0, {"a": 0.1 + 0.2, "b": float("nan"), "c": float("inf")}))
    assert path.read_text().splitlines()[1] == "0,,0.30000000000000004,nan,inf"


ROWS = [(step, {"epoch": step // 2, "a": step / 10}) for step in range(6)]


def test_cut_to_keeps_the_first_rows(path):
    logged(path, *ROWS)
    metrics = MetricsFile(path)
    metrics.cut_to(2)
    assert path.read_text() == "step,epoch,a\n0,0,0.0\n1,0,0.1\n"
    assert metrics.num_rows == 2


def test_cut_to_forgets_columns_that_only_later_rows_had(path):
    logged(path, (0, {"a": 1.0}), (1, {"b": 2.0}))
    MetricsFile(path).cut_to(1)
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 6])
def test_a_file_that_was_cut_and_continued_equals_one_that_was_not(path, tmp_path, cut):
    rows = [*ROWS[:2], (1, {"val/loss": 0.5, "epoch": 0}), *ROWS[2:4], (3, {"gap": 0.25, "epoch": 1}), *ROWS[4:]]
    logged(tmp_path / "whole.csv", *rows)
    logged(path, *rows[: cut + 2])
    metrics = MetricsFile(path)
    metrics.cut_to(cut)
    for step, values in rows[cut:]:
        metrics.log_metrics(values, step)
    metrics.finalize("success")
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("half", ["4", "4,2", "4,2,0.", '4,2,"0', "\n"])
def test_a_half_written_last_line_is_dropped(path, half):
    logged(path, *ROWS[:4])
    expected = path.read_text()
    with path.open("a") as stream:
        stream.write(half)
    MetricsFile(path).cut_to(4)
    assert path.read_text() == expected


def test_a_file_that_is_gone_begins_again(path):
    metrics = MetricsFile(path)
    metrics.cut_to(3)
    metrics.log_metrics({"a": 1.0}, 3)
    metrics.save()
    assert path.read_text() == "step,epoch,a\n3,,1.0\n"


def test_a_run_that_begins_again_without_a_checkpoint_leaves_no_rows_of_the_lost_one(path):
    logged(path, *ROWS)
    logged(path, (0, {"epoch": 0, "b": 1.0}))
    assert path.read_text() == "step,epoch,b\n0,0,1.0\n"


def test_nothing_logged_writes_nothing(path):
    logged(path)
    assert not path.exists()


def test_a_damaged_rewrite_leaves_the_rows_that_were_there(path, monkeypatch):
    metrics = logged(path, *ROWS[:2])
    before = path.read_text()
    metrics.log_metrics({"new": 1.0}, 2)

    def broken(*_, **__):
        raise OSError("damaged")

    monkeypatch.setattr(metrics_file.csv.DictWriter, "writeheader", broken)
    with pytest.raises(OSError, match="damaged"):
        metrics.save()
    assert path.read_text() == before


def test_a_checkpoint_knows_how_many_rows_there_were_and_a_resumed_run_goes_back_to_them(path):
    metrics = MetricsFile(path)
    metrics.log_metrics({"a": 1.0}, 0)
    state = MetricsRows(metrics).state_dict()
    assert state == {"rows": 1}
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"  # on the disk before the checkpoint is
    metrics.log_metrics({"a": 9.0}, 1)
    metrics.save()
    MetricsRows(MetricsFile(path)).load_state_dict(state)
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"
