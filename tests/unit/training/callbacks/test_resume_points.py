"""Checkpoints between two optimiser steps, and the progress that they say."""

import os
import re
import signal
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from doctune.training.callbacks.resume_points import ResumePoints, newest, recount, settle

ON_CPU = SimpleNamespace(device=torch.device("cpu"))

PROGRESS, VALIDATION = "epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"
# 10 documents in effective batches of 4: two steps of 4 and one of 2.
BY_TWO, BY_ONE = {"per_step": 2, "per_epoch": 5}, {"per_step": 4, "per_epoch": 10}


def counters(ready, started, processed, completed):
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def all_at(count):
    return counters(count, count, count, count)


def state(*current, epochs=0, per_epoch=5, is_last_batch=False):
    """The counters of a fit loop in some epoch: (ready, started, processed, completed) of its micro-batches."""
    return {
        PROGRESS: {
            "current": counters(*current),
            "total": counters(*(epochs * per_epoch + count for count in current)),
            "is_last_batch": is_last_batch,
        },
        VALIDATION: {"current": all_at(epochs and 3), "total": all_at(3 * epochs), "is_last_batch": epochs > 0},
    }


def settled(fit_loop, accumulation=2):
    settle(fit_loop, accumulation)
    return fit_loop


@pytest.mark.parametrize("epochs", [0, 3])
@pytest.mark.parametrize(
    ("current", "is_last_batch", "done"),
    [
        ((3, 2, 2, 2), False, 2),  # saved before the first micro-batch of a step
        ((5, 4, 4, 4), True, 4),  # saved before the last step, which has one micro-batch
        ((4, 4, 3, 3), False, 2),  # memory ran out in the second micro-batch of a step
        ((3, 3, 2, 2), False, 2),  # memory ran out in the first one
        ((5, 5, 4, 4), True, 4),  # memory ran out in the last one
    ],
)
def test_within_training_so_many_steps_are_done_and_nothing_is_begun(current, is_last_batch, done, epochs):
    expected = state(done, done, done, done, epochs=epochs)
    assert settled(state(*current, epochs=epochs, is_last_batch=is_last_batch)) == expected


@pytest.mark.parametrize("epochs", [0, 3])
def test_in_validation_all_of_training_is_done_and_nothing_of_the_validation(epochs):
    fit_loop = state(5, 5, 5, 5, epochs=epochs, is_last_batch=True)
    fit_loop[VALIDATION]["current"] = counters(3, 3, 2, 2)
    expected = deepcopy(fit_loop)
    expected[VALIDATION] |= {"current": counters(1, 1, 0, 0), "total": counters(1, 1, 0, 0)}
    assert settled(fit_loop) == expected


@pytest.mark.parametrize("epochs", [0, 3])
@pytest.mark.parametrize(
    ("before", "now", "done", "expected"),
    [
        (BY_TWO, BY_ONE, 0, 0),
        (BY_TWO, BY_ONE, 2, 4),
        (BY_TWO, BY_ONE, 4, 8),
        (BY_TWO, BY_ONE, 5, 10),  # the uneven last step, too
        (BY_ONE, BY_TWO, 8, 4),
        (BY_ONE, BY_TWO, 10, 5),
        ({"per_step": 1, "per_epoch": 3}, BY_ONE, 2, 8),
        ({"per_step": 1, "per_epoch": 3}, BY_ONE, 3, 10),
    ],
)
def test_smaller_micro_batches_are_more_for_the_same_steps(before, now, done, expected, epochs):
    fit_loop = state(done, done, done, done, epochs=epochs, per_epoch=before["per_epoch"])
    recount(fit_loop, before, now)
    assert fit_loop[PROGRESS]["current"] == all_at(expected)
    assert fit_loop[PROGRESS]["total"] == all_at(epochs * now["per_epoch"] + expected)


@pytest.fixture
def checkpoint(tmp_path):
    """A file that says after which step it was saved; the later it is made, the older its time."""
    made = []

    def make(name, step):
        made.append(name)
        torch.save({"global_step": step, "state_dict": {"weight": torch.ones(3)}}, tmp_path / name)
        os.utime(tmp_path / name, (1000 - len(made), 1000 - len(made)))
        return tmp_path / name

    return make


def test_where_nothing_was_saved_there_is_no_newest_checkpoint(tmp_path):
    for name in ("b.txt", ".last.ckpt.part"):
        (tmp_path / name).touch()
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None


def test_the_newest_checkpoint_is_the_one_with_the_most_steps_inside_whatever_its_time_and_name(tmp_path, checkpoint):
    checkpoint("last.ckpt", 8)
    assert newest(tmp_path) == (tmp_path / "last.ckpt", 8)
    furthest = checkpoint("mini_20200101_000000_epoch001_loss0.1000.ckpt", 100)
    checkpoint("step_20990101_000000_step0000099.ckpt", 99)
    checkpoint("zebra_20990101_000000_epoch009_loss0.1000.ckpt", 12)
    assert newest(tmp_path) == (furthest, 100)


def test_after_the_same_step_the_end_of_the_epoch_is_further_than_its_validation(tmp_path, checkpoint):
    within = checkpoint("step_20990101_000000_step0000006.ckpt", 6)
    assert newest(tmp_path) == (within, 6)
    best = checkpoint("mini_20200101_000000_epoch002_loss0.1000.ckpt", 6)
    assert newest(tmp_path) == (best, 6)
    within.unlink()
    checkpoint("step_20990101_000001_step0000007.ckpt", 7)
    assert newest(tmp_path)[1] == 7


class Steps(LightningModule):
    """Documents as in `LengthAwareBatches`, with ten of them steps of 4, 4 and 2, cut into micro-batches.

    Two batches are for validation; `validated` counts them. `before` is called with the place before each forward pass.
    """

    def __init__(self, micro, before=lambda *place: None, documents=10, effective=4):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.micro, self.before = micro, before
        self.documents, self.effective = documents, effective
        self.validated = 0

    @property
    def accumulation(self):
        return self.effective // self.micro

    def training_step(self, batch, batch_idx):
        self.before("train", self.current_epoch, batch_idx)
        documents, scale = batch
        return ((self.weight - documents) ** 2).sum() * scale

    def validation_step(self, batch, batch_idx):
        self.before("val", self.current_epoch, batch_idx)
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def train_dataloader(self):
        effective = (torch.arange(self.documents) / 10).split(self.effective)
        cut = [(part, self.accumulation / len(batch)) for batch in effective for part in batch.split(self.micro)]
        return DataLoader(Rest(cut, self), batch_size=None)

    def val_dataloader(self):
        return DataLoader([0.0, 1.0], batch_size=None)


class Rest(torch.utils.data.IterableDataset):
    """The batches of an epoch; those that a resumed run has had are skipped once."""

    def __init__(self, batches, module):
        self.batches, self.module = batches, module
        self.is_new = True

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        skip = 0
        if self.is_new and self.module.trainer.fit_loop.restarting:
            skip = self.module.trainer.fit_loop.epoch_loop.batch_progress.current.ready % len(self.batches)
        self.is_new = False
        return iter(self.batches[skip:])


def points(folder, micro=2, every_minutes=None, keep=1, sizes=None):
    sizes = sizes or {2: BY_TWO, 1: BY_ONE}[micro]
    return ResumePoints(
        folder, every_minutes=every_minutes, keep=keep, accumulation=sizes["per_step"],
        micro_batches=sizes["per_epoch"],
    )  # fmt: skip


def fit(module, callback, epochs=3, **settings):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, accumulate_grad_batches=module.accumulation,
        callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, weights_only=True, **settings)
    return trainer


def names(folder):
    return sorted(re.sub(r"step_\d{8}_\d{6}_", "", path.name) for path in folder.iterdir())


def test_a_checkpoint_within_an_epoch_is_named_after_its_step_and_time(tmp_path):
    fit(Steps(2), points(tmp_path, every_minutes=0), epochs=1)
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"step_\d{8}_\d{6}_step0000002\.ckpt", path.name)


def test_those_that_have_come_furthest_are_kept_whatever_their_times(tmp_path):
    for name in ("step_20990101_000000_step0000000.ckpt", "last.ckpt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (2**32, 2**32))
    fit(Steps(1), points(tmp_path, micro=1, every_minutes=0, keep=2), epochs=1)  # saves before steps 2 and 3
    assert names(tmp_path) == ["last.ckpt", "step0000001.ckpt", "step0000002.ckpt"]


def test_of_very_many_steps_the_last_ones_are_kept_too(tmp_path):
    callback = points(tmp_path, every_minutes=0, keep=1)
    for step in (9_999_999, 10_000_000):
        trainer = SimpleNamespace(
            global_step=step,
            checkpoint_callbacks=[],
            save_checkpoint=lambda path, weights_only: path.touch(),
            is_global_zero=True,
        )
        callback.on_train_batch_start(trainer, ON_CPU, None, 2)
        assert names(tmp_path) == [f"step{step}.ckpt"]


def test_without_an_interval_nothing_is_saved_within_an_epoch(tmp_path):
    fit(Steps(2), points(tmp_path))
    assert names(tmp_path) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weight after three epochs that nothing has interrupted."""
    module = Steps(2)
    fit(module, points(tmp_path_factory.mktemp("undisturbed")))
    return module.weight.item()


def at(place, act):
    """Act once, before that (stage, epoch, batch)."""
    left = [act]

    def before(*here):
        if here == place and left:
            left.pop()()

    return before


def run_out_of_memory():
    raise RuntimeError("CUDA error: out of memory")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize(
    ("place", "step"),
    [
        (("train", 0, 0), 1),  # the step is finished first
        (("train", 1, 2), 5),
        (("train", 1, 3), 5),
        (("train", 1, 4), 6),  # in the last step of the epoch: before its validation
        (("val", 1, 0), 6),
    ],
)
def test_a_signal_saves_between_two_steps_and_the_resumed_run_is_the_same(tmp_path, undisturbed, name, place, step):
    handler = signal.getsignal(signal.Signals[name])
    stopped = Steps(2, at(place, lambda: os.kill(os.getpid(), signal.Signals[name])))
    with pytest.raises(SystemExit):
        fit(stopped, points(tmp_path))
    assert names(tmp_path) == [f"step{step:07d}.ckpt"]
    path, reached = newest(tmp_path)
    assert reached == step
    resumed = Steps(2)
    trainer = fit(resumed, points(tmp_path), ckpt_path=path)
    assert (trainer.global_step, resumed.weight.item()) == (9, undisturbed)
    assert signal.getsignal(signal.Signals[name]) is handler


@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (1, 6), (2, 9)])
def test_a_signal_after_the_last_validation_batch_ends_the_run_at_the_checkpoint_of_that_epoch(
    tmp_path, undisturbed, caplog, epoch, step
):
    handler = signal.getsignal(signal.SIGTERM)
    stopped = Steps(2, at(("val", epoch, 1), lambda: os.kill(os.getpid(), signal.SIGTERM)))
    stopped.on_train_epoch_end = lambda: stopped.trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(SystemExit):
        fit(stopped, points(tmp_path))
    assert names(tmp_path) == ["last.ckpt"]
    assert newest(tmp_path) == (tmp_path / "last.ckpt", step)
    assert said(caplog)[-1] == f"SIGTERM: the run stops after step {step}, which is saved."
    assert signal.getsignal(signal.SIGTERM) is handler
    resumed = Steps(2)
    trainer = fit(resumed, points(tmp_path), ckpt_path=tmp_path / "last.ckpt")
    assert (trainer.global_step, resumed.weight.item()) == (9, undisturbed)


def test_a_signal_after_the_last_validation_batch_of_the_last_epoch_raises(tmp_path):
    heard = points(tmp_path)
    trainer = SimpleNamespace(global_step=9)
    heard.on_train_start(trainer, None)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        heard.on_train_end(trainer, ON_CPU)
    heard = points(tmp_path)
    heard.on_train_start(trainer, None)
    heard.on_train_end(trainer, ON_CPU)  # without a signal the run just ends


@pytest.mark.parametrize(
    ("place", "step"),
    [
        (("train", 0, 2), 1),
        (("train", 0, 3), 1),  # what the first micro-batch has added is added again
        (("train", 1, 4), 5),
        (("val", 1, 1), 6),
    ],
)
def test_memory_that_runs_out_loses_no_step_and_smaller_micro_batches_go_on(tmp_path, undisturbed, place, step):
    module, stopped = Steps(2, at(place, run_out_of_memory)), points(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(module, stopped)
    assert names(tmp_path) == [f"step{step:07d}.ckpt"]
    resumed = Steps(1)
    trainer = fit(resumed, points(tmp_path, micro=1), ckpt_path=newest(tmp_path)[0])
    assert trainer.global_step == 9
    assert resumed.weight.item() == pytest.approx(undisturbed, abs=1e-6)
    assert resumed.validated == (6 if place[1] == 0 else 4)  # the validation that was cut short is done again, whole


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
def test_an_epoch_of_fewer_micro_batches_than_are_accumulated_is_saved_in_its_validation(tmp_path, epoch, batch):
    small = {"documents": 3, "effective": 8}
    whole = Steps(2, **small)
    fit(whole, points(tmp_path / "whole", sizes={"per_step": 4, "per_epoch": 2}))
    stopped = Steps(2, at(("val", epoch, batch), run_out_of_memory), **small)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(stopped, points(tmp_path, sizes={"per_step": 4, "per_epoch": 2}))
    assert newest(tmp_path)[1] == epoch + 1
    resumed = Steps(1, **small)
    callback = points(tmp_path, sizes={"per_step": 8, "per_epoch": 3})
    trainer = fit(resumed, callback, ckpt_path=newest(tmp_path)[0])
    assert trainer.global_step == 3
    assert resumed.weight.item() == pytest.approx(whole.weight.item(), abs=1e-6)
    assert resumed.validated == 2 * (3 - epoch)


@pytest.mark.parametrize("batch", [0, 1])
def test_before_the_only_step_of_a_small_epoch_there_is_nothing_to_save(tmp_path, batch):
    stopped = Steps(2, at(("train", 0, batch), run_out_of_memory), documents=3, effective=8)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(stopped, points(tmp_path, sizes={"per_step": 4, "per_epoch": 2}))
    assert names(tmp_path) == []


def test_before_the_first_step_there_is_nothing_to_save(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(Steps(2, at(("train", 0, 1), run_out_of_memory)), points(tmp_path))
    assert names(tmp_path) == []


def test_another_error_saves_nothing(tmp_path):
    def fail():
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        fit(Steps(2, at(("train", 1, 2), fail)), points(tmp_path))
    assert names(tmp_path) == []


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("doctune")]


def test_the_log_says_that_the_signal_was_heard_and_what_was_saved(tmp_path, caplog):
    stopped = Steps(2, at(("train", 1, 2), lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(SystemExit):
        fit(stopped, points(tmp_path))
    assert said(caplog) == [
        "SIGTERM: the run is saved after this step, then it stops. Once more stops it at once.",
        "SIGTERM: the run stops after step 5, which is saved.",
    ]


def test_a_second_signal_does_not_wait(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        fit(Steps(2, at(("train", 1, 2), twice)), points(tmp_path))
    assert names(tmp_path) == []


def test_lightnings_own_checkpoint_between_epochs_is_left_as_it_is(tmp_path):
    module = Steps(2)
    module.on_train_epoch_end = lambda: module.trainer.save_checkpoint(tmp_path / "epoch.ckpt")
    fit(module, points(tmp_path), epochs=1)
    saved = torch.load(tmp_path / "epoch.ckpt", weights_only=True)
    assert saved["micro_batches"] == BY_TWO
    assert saved["loops"]["fit_loop"][PROGRESS]["current"] == all_at(5)
    assert saved["loops"]["fit_loop"][PROGRESS]["is_last_batch"] is True
