"""A checkpoint is there whole or not at all."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from doctune.errors import TrainingError
from doctune.training import checkpoint_io
from doctune.training.checkpoint_io import WholeCheckpointIO, checkpoint_bytes, disk_full_message, is_disk_full


@pytest.fixture
def old(tmp_path):
    """A checkpoint that is there already."""
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)
    return path


def failing(monkeypatch, error):
    """Let torch.save write some bytes, then fail."""

    def save(checkpoint, stream):
        stream.write(b"half a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", save)


def test_what_was_saved_is_read_again_and_nothing_lies_beside_it(old):
    WholeCheckpointIO().save_checkpoint({"step": 2, "weights": torch.arange(3)}, str(old))
    found = torch.load(old, weights_only=True)
    assert (found["step"], found["weights"].tolist()) == (2, [0, 1, 2])
    assert os.listdir(old.parent) == ["last.ckpt"]


def test_the_folder_is_made(tmp_path):
    WholeCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "a" / "b" / "last.ckpt")
    assert (tmp_path / "a" / "b" / "last.ckpt").is_file()


def test_the_bytes_have_reached_the_disk_before_the_old_file_goes(old, monkeypatch):
    seen = []

    def fsync(number):
        seen.append((os.fstat(number).st_size > 0, torch.load(old, weights_only=True)["step"]))

    monkeypatch.setattr(checkpoint_io.os, "fsync", fsync)
    WholeCheckpointIO().save_checkpoint({"step": 2}, old)
    assert seen == [(True, 1)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_how_to_go_on(old, monkeypatch, number):
    failing(monkeypatch, OSError(number, "full"))
    monkeypatch.setattr(checkpoint_io.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_234_567_890))
    with pytest.raises(TrainingError) as full:
        WholeCheckpointIO().save_checkpoint({"step": 2}, old)
    assert str(full.value) == (
        f"The disk is full: last.ckpt could not be written to {old.parent} (1,235 MB free). What was saved before is "
        "whole. Make room, then go on with resume=RUN."
    )
    assert torch.load(old, weights_only=True) == {"step": 1}
    assert os.listdir(old.parent) == ["last.ckpt"]


def test_a_full_disk_that_torch_hides_behind_its_own_error_is_seen(old, monkeypatch):
    hidden = RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 64 vs 0")
    hidden.__context__ = OSError(errno.ENOSPC, "No space left on device")
    failing(monkeypatch, hidden)
    with pytest.raises(TrainingError, match=r"^The disk is full: last\.ckpt "):
        WholeCheckpointIO().save_checkpoint({"step": 2}, old)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_torch_says_on_a_device_that_is_really_full_is_understood(size):
    def save():
        with open("/dev/full", "wb") as stream:
            torch.save({"weights": torch.zeros(size)}, stream)

    with pytest.raises((OSError, RuntimeError)) as full:
        save()
    assert is_disk_full(full.value)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "damaged"), RuntimeError("broken"), KeyboardInterrupt()])
def test_a_damaged_write_leaves_the_old_file_and_stays_what_it_is(old, monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error)) as failed:
        WholeCheckpointIO().save_checkpoint({"step": 2}, old)
    assert failed.value is error
    assert torch.load(old, weights_only=True) == {"step": 1}
    assert os.listdir(old.parent) == ["last.ckpt"]


def test_other_errors_are_no_full_disk():
    assert not is_disk_full(OSError(errno.EACCES, "not allowed"))
    assert not is_disk_full(None)


def test_a_folder_that_could_not_be_made_is_named_too(tmp_path):
    message = disk_full_message(tmp_path / "checkpoints" / "last.ckpt")
    assert message.startswith(f"The disk is full: last.ckpt could not be written to {tmp_path / 'checkpoints'} (")


def test_weights_and_two_moments_of_those_that_learn_take_four_bytes_each():
    assert checkpoint_bytes(saved=1000, trainable=100) == 4800
