from itertools import chain

import numpy as np
import pytest

from doctune.training.data.batches import BatchPlan, LengthAwareBatches, in_length_order, repeats_before
from doctune.training.data.sampling import ClassSampling

LENGTHS = np.random.default_rng(0).integers(3, 128, size=1003)


def epoch(batches, number):
    batches.set_epoch(number)
    return [*batches]


@pytest.mark.parametrize(("micro", "accumulation"), [(8, 1), (2, 4), (3, 2), (1003, 1), (2000, 1)])
def test_every_document_comes_once_an_epoch(micro, accumulation):
    batches = LengthAwareBatches(LENGTHS, BatchPlan(micro, accumulation), seed=1)
    found = epoch(batches, 0)
    assert sorted(index for batch in found for index in batch.indices) == list(range(1003))
    assert len(found) == len(batches)
    assert batches.num_steps() == -(-len(batches) // accumulation)


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again, other = (LengthAwareBatches(LENGTHS, BatchPlan(8, 1), seed=s) for s in (1, 1, 2))
    assert epoch(first, 3) == epoch(again, 3)
    assert epoch(first, 3) != epoch(first, 4)
    assert epoch(first, 3) != epoch(other, 3)


def test_micro_batches_divide_the_same_effective_batches():
    whole = epoch(LengthAwareBatches(LENGTHS, BatchPlan(8, 1), seed=1), 0)
    parts = epoch(LengthAwareBatches(LENGTHS, BatchPlan(2, 4), seed=1), 0)
    joined = [sum((batch.indices for batch in parts[start : start + 4]), ()) for start in range(0, len(parts), 4)]
    assert joined == [batch.indices for batch in whole]


def test_scales_make_the_mean_over_the_effective_batch_also_where_it_is_smaller():
    batches = epoch(LengthAwareBatches(LENGTHS, BatchPlan(2, 4), seed=1), 0)
    # Lightning divides by the accumulation: scale / 4 must be 1 / (documents of the effective batch), 8 or the last 3.
    assert {batch.scale / 4 for batch in batches[:-2]} == {1 / 8}
    assert [(len(batch.indices), batch.scale / 4) for batch in batches[-2:]] == [(2, 1 / 3), (1, 1 / 3)]


def test_batches_hold_documents_of_similar_length():
    def padding(batches):
        cells = sum(len(batch.indices) * LENGTHS[list(batch.indices)].max() for batch in batches)
        return 1 - LENGTHS.sum() / cells

    assert padding(epoch(LengthAwareBatches(LENGTHS, BatchPlan(8, 1), seed=1), 0)) < 0.05


def test_lightning_finds_the_epoch_setter():
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    batches = LengthAwareBatches(LENGTHS, BatchPlan(8, 1), seed=1)
    _set_sampler_epoch(DataLoader(range(1003), batch_sampler=batches), 7)
    assert batches.epoch == 7


def test_evaluation_starts_with_the_longest():
    batches = in_length_order([5, 9, 7, 1], 3)
    assert [batch.indices for batch in batches] == [(1, 2, 0), (3,)]
    assert [batch.indices for batch in batches.among(np.array([10, 20, 30, 40]))] == [(20, 30, 10), (40,)]
    with pytest.raises(IndexError):
        batches[2]


def test_the_last_micro_batch_of_a_step_says_so():
    batches = epoch(LengthAwareBatches(LENGTHS, BatchPlan(2, 4), seed=1), 0)
    assert [number for number, batch in enumerate(batches) if batch.ends_step] == [*range(3, 500, 4), 501]


def test_a_resumed_epoch_goes_on_where_it_was():
    batches = LengthAwareBatches(LENGTHS, BatchPlan(2, 4), seed=1)
    whole = epoch(batches, 2)
    batches.skip_once(7)
    assert epoch(batches, 2) == whole[7:]
    assert epoch(batches, 2) == whole


@pytest.mark.parametrize("num_documents", [24, 25, 30, 1])
def test_ranks_share_each_effective_batch(num_documents):
    lengths = LENGTHS[:num_documents]
    alone = epoch(LengthAwareBatches(lengths, BatchPlan(8, 1), seed=1), 3)
    shares = [epoch(LengthAwareBatches(lengths, BatchPlan(2, 2, rank, 2), seed=1), 3) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])
    steps = [[], []]
    for rank, share in enumerate(shares):
        step = []
        for micro in share:
            step += micro.indices if micro.scale else ()
            if micro.ends_step:
                steps[rank].append(step)
                step = []
    assert [sorted(a + b) for a, b in zip(*steps, strict=True)] == [sorted(batch.indices) for batch in alone]


def test_the_ranks_gradients_average_to_that_of_the_effective_batch():
    losses = np.random.default_rng(1).random(30)
    alone = epoch(LengthAwareBatches(LENGTHS[:30], BatchPlan(8, 1), seed=1), 0)
    expected = [losses[list(batch.indices)].mean() for batch in alone]
    sums = np.zeros((2, len(alone)))
    for rank in (0, 1):
        step = 0
        for micro in LengthAwareBatches(LENGTHS[:30], BatchPlan(2, 2, rank, 2), seed=1):
            sums[rank, step] += losses[list(micro.indices)].sum() * micro.scale / 2  # Lightning: / accumulation
            step += micro.ends_step
    assert sums.mean(axis=0) == pytest.approx(expected)  # DDP: the mean over ranks


def test_an_epoch_shows_what_the_sampling_draws():
    label_ids = np.array([0] * 12 + [1] * 3)
    sampling = ClassSampling(label_ids, (12, 12))
    batches = LengthAwareBatches(LENGTHS[:15], BatchPlan(4, 1), seed=1, sampling=sampling)
    shown = [index for batch in epoch(batches, 0) for index in batch.indices]
    assert (len(batches), batches.num_steps()) == (6, 6)
    assert sorted(shown) == sorted([*range(12)] + [12, 13, 14] * 4)


@pytest.mark.parametrize(
    ("drawn", "repeats"),
    [
        ([], []),
        ([7], [0]),
        ([3, 1, 2], [0, 0, 0]),
        ([2, 0, 2, 2, 0, 5], [0, 0, 1, 2, 1, 0]),
        ([4, 4, 4, 4], [0, 1, 2, 3]),
        ([1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2]),
    ],
)
def test_how_often_a_document_was_drawn_before(drawn, repeats):
    found = repeats_before(np.array(drawn, dtype=np.int64))
    assert (found.tolist(), found.dtype) == (repeats, np.int64)


def test_repeats_are_counted_in_the_order_that_was_drawn():
    drawn = np.random.default_rng(0).integers(0, 40, size=500)
    assert repeats_before(drawn).tolist() == [int((drawn[:place] == drawn[place]).sum()) for place in range(500)]


def places(plan, sampling, number=0):
    """(document, repeat) of an epoch, in order, without stand-ins."""
    batches = epoch(LengthAwareBatches(LENGTHS[:30], plan, seed=1, sampling=sampling), number)
    passes = [zip(micro.indices, micro.repeats, strict=True) for micro in batches if micro.scale]
    return [*chain(*passes)]


def test_without_sampling_no_document_is_shown_again():
    assert sorted(places(BatchPlan(8), None)) == [(index, 0) for index in range(30)]


OVERSAMPLED = ClassSampling(np.array([0] * 24 + [1] * 6), (24, 24))


def test_an_oversampled_document_is_shown_again_with_another_number_each_time():
    twice = [(index, 0) for index in range(24)] + [(index, time) for index in range(24, 30) for time in range(4)]
    assert sorted(places(BatchPlan(8), OVERSAMPLED)) == twice


@pytest.mark.parametrize("plan", [BatchPlan(4, 2), BatchPlan(3, 2), BatchPlan(1, 8), BatchPlan(6)])
def test_the_size_of_a_forward_pass_changes_no_repeat(plan):
    assert places(plan, OVERSAMPLED, 3) == places(BatchPlan(plan.effective), OVERSAMPLED, 3)


def test_ranks_share_the_repeats_too():
    shares = [places(BatchPlan(2, 2, rank, 2), OVERSAMPLED, 3) for rank in (0, 1)]
    assert sorted(chain(*shares)) == sorted(places(BatchPlan(8), OVERSAMPLED, 3))


def test_a_resumed_epoch_has_the_repeats_of_the_whole_one():
    batches = LengthAwareBatches(LENGTHS[:30], BatchPlan(2, 4), seed=1, sampling=OVERSAMPLED)
    whole = epoch(batches, 2)
    batches.skip_once(11)
    assert epoch(batches, 2) == whole[11:]


def test_the_seed_of_views_is_that_of_the_epoch():
    assert {micro.seed for micro in epoch(LengthAwareBatches(LENGTHS[:30], BatchPlan(8), seed=5), 3)} == {(5, 3)}
    assert {(micro.seed, micro.repeats) for micro in in_length_order([5, 9, 7, 1], 3)} == {(None, ())}


def test_each_document_is_judged_by_one_rank_and_no_rank_has_none():
    lengths = [5, 9, 7, 1, 3]
    shares = [[micro.indices for micro in in_length_order(lengths, 2, rank, 3)] for rank in range(3)]
    assert shares == [[(1, 4)], [(2, 3)], [(0,)]]
