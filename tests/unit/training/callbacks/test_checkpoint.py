import re

import torch

from doctune.training.callbacks.checkpoint import NamedCheckpoint


def make(folder):
    return NamedCheckpoint(folder, prefix="checkpoint", monitor="val/f1_macro", mode="max", save_top_k=2)


def test_names_say_when_which_epoch_and_how_good(tmp_path):
    metrics = {"epoch": torch.tensor(0), "val/loss": torch.tensor(1.23456)}
    name = make(tmp_path).format_checkpoint_name(metrics)
    assert re.fullmatch(rf"{tmp_path}/checkpoint_\d{{8}}_\d{{6}}_epoch001_loss1\.2346\.ckpt", name)


def test_a_second_file_of_that_name_gets_a_version(tmp_path):
    name = make(tmp_path).format_checkpoint_name({"epoch": 11, "val/loss": 0.5}, ver=1)
    assert name.endswith("_epoch012_loss0.5000-v1.ckpt")


def test_last_keeps_its_name(tmp_path):
    assert make(tmp_path).format_checkpoint_name({}, filename="last") == str(tmp_path / "last.ckpt")
