import numpy as np
import pytest

from doctune.training.data.batches import LengthAwareBatches, in_length_order

LENGTHS = np.random.default_rng(0).integers(3, 128, size=1003)


def epoch(batches, number):
    batches.set_epoch(number)
    return [*batches]


@pytest.mark.parametrize(("micro", "accumulation"), [(8, 1), (2, 4), (3, 2), (1003, 1), (2000, 1)])
def test_every_document_comes_once_an_epoch(micro, accumulation):
    batches = LengthAwareBatches(LENGTHS, micro=micro, accumulation=accumulation, seed=1)
    found = epoch(batches, 0)
    assert sorted(index for batch in found for index in batch.indices) == list(range(1003))
    assert len(found) == len(batches)
    assert batches.num_steps() == -(-len(batches) // accumulation)


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again, other = (LengthAwareBatches(LENGTHS, micro=8, accumulation=1, seed=s) for s in (1, 1, 2))
    assert epoch(first, 3) == epoch(again, 3)
    assert epoch(first, 3) != epoch(first, 4)
    assert epoch(first, 3) != epoch(other, 3)


def test_micro_batches_divide_the_same_effective_batches():
    whole = epoch(LengthAwareBatches(LENGTHS, micro=8, accumulation=1, seed=1), 0)
    parts = epoch(LengthAwareBatches(LENGTHS, micro=2, accumulation=4, seed=1), 0)
    joined = [sum((batch.indices for batch in parts[start : start + 4]), ()) for start in range(0, len(parts), 4)]
    assert joined == [batch.indices for batch in whole]


def test_scales_make_the_mean_over_the_effective_batch_also_where_it_is_smaller():
    batches = epoch(LengthAwareBatches(LENGTHS, micro=2, accumulation=4, seed=1), 0)
    # Lightning divides by the accumulation: scale / 4 must be 1 / (documents of the effective batch), 8 or the last 3.
    assert {batch.scale / 4 for batch in batches[:-2]} == {1 / 8}
    assert [(len(batch.indices), batch.scale / 4) for batch in batches[-2:]] == [(2, 1 / 3), (1, 1 / 3)]


def test_batches_hold_documents_of_similar_length():
    def padding(batches):
        cells = sum(len(batch.indices) * LENGTHS[list(batch.indices)].max() for batch in batches)
        return 1 - LENGTHS.sum() / cells

    assert padding(epoch(LengthAwareBatches(LENGTHS, micro=8, accumulation=1, seed=1), 0)) < 0.05


def test_lightning_finds_the_epoch_setter():
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    batches = LengthAwareBatches(LENGTHS, micro=8, accumulation=1, seed=1)
    _set_sampler_epoch(DataLoader(range(1003), batch_sampler=batches), 7)
    assert batches.epoch == 7


def test_evaluation_starts_with_the_longest():
    batches = in_length_order([5, 9, 7, 1], 3)
    assert [batch.indices for batch in batches] == [(1, 2, 0), (3,)]
