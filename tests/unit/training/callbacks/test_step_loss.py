from types import SimpleNamespace

import pytest
import torch

from doctune.training.callbacks.step_loss import StepLoss


def logged_of(*micro_batches):
    """What is logged of micro-batches: (sum of losses, documents, scale, whether the step ends)."""
    logged = []
    module = SimpleNamespace(log=lambda name, value, **_: logged.append((name, float(value))))
    callback = StepLoss()
    for objective, documents, scale, ends_step in micro_batches:
        batch = {"index": torch.zeros(documents), "scale": scale, "ends_step": ends_step}
        callback.on_train_batch_end(None, module, {"objective": torch.tensor(objective)}, batch, 0)
    return logged


def test_a_step_has_the_mean_loss_of_its_documents_however_it_is_cut():
    expected = [("train/loss_step", pytest.approx(2.0)), ("train/loss_step", pytest.approx(0.5))]
    assert logged_of((8.0, 4, 0.25, True), (1.0, 2, 0.5, True)) == expected
    assert logged_of((7.0, 3, 0.5, False), (1.0, 1, 0.5, True), (0.5, 1, 1.0, False), (0.5, 1, 1.0, True)) == expected


def test_a_stand_in_counts_nothing():
    assert logged_of((6.0, 3, 0.5, False), (9.0, 1, 0.0, True)) == [("train/loss_step", pytest.approx(2.0))]
