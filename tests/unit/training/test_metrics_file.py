"""metrics.csv: a row per logged step, also where a run was killed and goes on."""

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
    metrics.log_metrics({"b": 3.0}, 2)
    metrics.save()
    assert path.read_text() == "step,epoch,a,b\n0,,,1.0\n1,0,2.0,\n"
    metrics.finalize("success")
    assert path.read_text() == "step,epoch,a,b\n0,,,1.0\n1,0,2.0,\n2,,,3.0\n"


def test_what_is_logged_in_pieces_for_one_step_is_one_row(path):
    logged(path, (3, {"a": 1.0, "epoch": 0}), (3, {"b": 2.0, "epoch": 0}), (3, {"c": 3.0}), (4, {"a": 5.0, "epoch": 1}))
    assert path.read_text() == "step,epoch,a,b,c\n3,0,1.0,2.0,3.0\n4,1,5.0,,\n"


@pytest.mark.parametrize(
    ("second", "rows"),
    [
        ((4, {"b": 2.0, "epoch": 0}), "3,0,1.0,\n4,0,,2.0\n"),  # another step
        ((3, {"b": 2.0, "epoch": 1}), "3,0,1.0,\n3,1,,2.0\n"),  # another epoch
        ((3, {"a": 9.0, "b": 2.0}), "3,0,1.0,\n3,,9.0,2.0\n"),  # no value is lost
        ((3, {"a": 1.0, "b": 2.0}), "3,0,1.0,2.0\n"),
    ],
)
def test_what_does_not_fit_into_a_row_begins_another(path, second, rows):
    logged(path, (3, {"a": 1.0, "epoch": 0}), second)
    assert path.read_text() == "step,epoch,a,b\n" + rows


def test_the_last_row_is_not_in_the_file_until_another_begins_or_the_run_ends(path):
    metrics = MetricsFile(path)
    metrics.log_metrics({"a": 1.0}, 0)
    metrics.save()
    assert not path.exists()
    metrics.log_metrics({"a": 2.0}, 1)
    metrics.save()
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"
    metrics.finalize("success")
    assert path.read_text() == "step,epoch,a\n0,,1.0\n1,,2.0\n"


def test_complete_rows_reach_the_disk_fifty_at_a_time(path):
    metrics = MetricsFile(path)
    for step in range(50):
        metrics.log_metrics({"a": 0.0}, step)
    assert not path.exists()
    metrics.log_metrics({"a": 0.0}, 50)
    assert len(path.read_text().splitlines()) == 51
    assert metrics.state() == {"rows": 50, "open": {"step": 50, "a": 0.0}}


def test_values_come_back_to_the_last_digit(path):
    logged(path, (0, {"a": 0.1 + 0.2, "b": float("nan"), "c": float("inf")}))
    assert path.read_text().splitlines()[1] == "0,,0.30000000000000004,nan,inf"


ROWS = [(step, {"epoch": step // 2, "a": step / 10}) for step in range(6)]


def test_a_restored_file_has_the_complete_rows_and_goes_on_with_the_open_one(path):
    logged(path, *ROWS)
    metrics = MetricsFile(path)
    metrics.restore({"rows": 2, "open": {"step": 2, "epoch": 1, "b": 0.5}})
    assert path.read_text() == "step,epoch,a\n0,0,0.0\n1,0,0.1\n"
    assert metrics.state() == {"rows": 2, "open": {"step": 2, "epoch": 1, "b": 0.5}}
    metrics.log_metrics({"a": 0.2, "epoch": 1}, 2)
    metrics.finalize("success")
    assert path.read_text() == "step,epoch,a,b\n0,0,0.0,\n1,0,0.1,\n2,1,0.2,0.5\n"


def test_a_restored_file_forgets_columns_that_only_later_rows_had(path):
    logged(path, (0, {"a": 1.0}), (1, {"b": 2.0}))
    MetricsFile(path).restore({"rows": 1, "open": {}})
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"


def test_a_state_does_not_change_when_more_is_logged(path):
    metrics = MetricsFile(path)
    metrics.log_metrics({"a": 1.0}, 0)
    state = metrics.state()
    metrics.log_metrics({"b": 2.0}, 0)
    assert state == {"rows": 0, "open": {"step": 0, "a": 1.0}}


# As a run logs: steps, the validation in pieces after the last step of an epoch, metrics that come up later.
LOGGED = [
    (0, {"epoch": 0, "train/loss_step": 1.5}),
    (0, {"lr": 0.1}),
    (1, {"epoch": 0, "train/loss_step": 1.4}),
    (1, {"lr": 0.2}),
    (1, {"epoch": 0, "val/loss": 1.25}),
    (1, {"epoch": 0, "gap": float("nan"), "val/f1_macro": 0.5}),
    (1, {"train/loss": 1.45}),
    (3, {"epoch": 1, "val/loss": 1.125}),  # a step that was not logged itself
    (3, {"epoch": 1, "gap": 0.25}),
    (3, {"train/loss": 1.3}),
    (4, {"epoch": 2, "train/loss_step": 1.1}),
    (4, {"epoch": 2, "train/loss_step": 1.0}),  # the same again with another value
]


def log_all(metrics, pieces):
    for step, values in pieces:
        metrics.log_metrics(values, step)


@pytest.mark.parametrize("rows_per_write", [1, 2, 50])
@pytest.mark.parametrize("ends", ["killed", "ended"])
@pytest.mark.parametrize("lost", [0, 1, 4, 12])
@pytest.mark.parametrize("cut", range(len(LOGGED) + 1))
def test_a_file_that_was_killed_and_resumed_equals_one_that_was_not(
    path, tmp_path, monkeypatch, cut, lost, ends, rows_per_write
):
    logged(tmp_path / "whole.csv", *LOGGED)
    monkeypatch.setattr(metrics_file, "_ROWS_PER_WRITE", rows_per_write)
    killed = MetricsFile(path)
    log_all(killed, LOGGED[:cut])
    state = killed.state()
    log_all(killed, LOGGED[cut : cut + lost])  # what comes after the checkpoint is logged again
    killed.finalize("failed") if ends == "ended" else killed.save()
    resumed = MetricsFile(path)
    resumed.restore(state)
    assert resumed.state() == state
    log_all(resumed, LOGGED[cut:])
    resumed.finalize("success")
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_file_that_was_killed_after_each_piece_equals_one_that_was_not(path, tmp_path):
    logged(tmp_path / "whole.csv", *LOGGED)
    state = MetricsFile(path).state()
    for piece in LOGGED:
        metrics = MetricsFile(path)
        metrics.restore(state)
        log_all(metrics, [piece])
        state = metrics.state()
    metrics.finalize("success")
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("half", ["4", "4,2", "4,2,0.", '4,2,"0', "\n"])
def test_a_half_written_last_line_is_dropped(path, half):
    logged(path, *ROWS[:4])
    expected = path.read_text()
    with path.open("a") as stream:
        stream.write(half)
    MetricsFile(path).restore({"rows": 4, "open": {}})
    assert path.read_text() == expected


def test_a_file_that_is_gone_begins_again(path):
    metrics = MetricsFile(path)
    metrics.restore({"rows": 3, "open": {}})
    metrics.log_metrics({"a": 1.0}, 3)
    metrics.finalize("success")
    assert path.read_text() == "step,epoch,a\n3,,1.0\n"


def test_a_run_that_begins_again_without_a_checkpoint_leaves_no_rows_of_the_lost_one(path):
    logged(path, *ROWS)
    logged(path, (0, {"epoch": 0, "b": 1.0}))
    assert path.read_text() == "step,epoch,b\n0,0,1.0\n"


def test_nothing_logged_writes_nothing(path):
    logged(path)
    assert not path.exists()


@pytest.fixture
def damaged(path, monkeypatch):
    """A file of two rows and one that adds a column, and could not be written."""
    metrics = logged(path, *ROWS[:2])
    metrics.log_metrics({"new": 1.0}, 2)

    def broken(*_, **__):
        raise OSError("damaged")

    with monkeypatch.context() as context:
        context.setattr(metrics_file.csv.DictWriter, "writeheader", broken)
        with pytest.raises(OSError, match="damaged"):
            metrics.finalize("failed")
    return metrics


def test_a_damaged_rewrite_leaves_the_rows_that_were_there(path, damaged):
    assert path.read_text() == "step,epoch,a\n0,0,0.0\n1,0,0.1\n"


def test_after_a_damaged_rewrite_the_next_one_is_whole(path, damaged):
    damaged.finalize("failed")
    assert path.read_text() == "step,epoch,a,new\n0,0,0.0,\n1,0,0.1,\n2,,,1.0\n"


def test_a_checkpoint_knows_what_was_logged_and_a_resumed_run_goes_back_to_it(path, tmp_path):
    metrics = MetricsFile(path)
    metrics.log_metrics({"a": 1.0}, 0)
    metrics.log_metrics({"a": torch.tensor(2.0), "epoch": 0.0}, 1)
    torch.save(MetricsRows(metrics).state_dict(), tmp_path / "checkpoint")
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"  # on the disk before the checkpoint is
    state = torch.load(tmp_path / "checkpoint", weights_only=True)
    assert state == {"rows": 1, "open": {"step": 1, "epoch": 0, "a": 2.0}}
    metrics.log_metrics({"b": 9.0}, 1)
    metrics.finalize("failed")
    resumed = MetricsFile(path)
    MetricsRows(resumed).load_state_dict(state)
    assert path.read_text() == "step,epoch,a\n0,,1.0\n"
    assert MetricsRows(resumed).state_dict() == state
