"""Neighbouring lengths are computed together, and padding is where the model expects it."""

import numpy as np

from doctune.inference.batches import by_length, padded, token_batch

ROWS = [[5, 6, 7], [1], [2, 3], [4], [8, 9, 10, 11]]


def test_every_row_is_in_one_batch_the_shortest_first():
    assert [*by_length(ROWS, 2)] == [[1, 3], [2, 0], [4]]
    assert [*by_length(ROWS, 100)] == [[1, 3, 2, 0, 4]]


def test_a_batch_holds_no_more_tokens_than_it_may_with_its_padding():
    assert [*by_length(ROWS, 100, max_tokens=4)] == [[1, 3], [2], [0], [4]]
    assert [*by_length(ROWS, 100, max_tokens=6)] == [[1, 3, 2], [0], [4]]
    assert [*by_length(ROWS, 1, max_tokens=6)] == [[1], [3], [2], [0], [4]]


def test_a_row_of_more_tokens_is_computed_by_itself():
    assert [*by_length(ROWS, 100, max_tokens=1)] == [[1], [3], [2], [0], [4]]


def test_no_rows_are_no_batches():
    assert [*by_length([], 4)] == []


def test_rows_are_filled_up_at_the_end_or_on_the_left():
    assert padded([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert padded([[1, 2], [3]], 9, left=True).tolist() == [[1, 2], [9, 3]]


def test_rows_of_pairs_stay_pairs():
    found = padded([np.array([[0, 4], [5, 6]]), np.array([[7, 8]])], -1)
    assert found.tolist() == [[[0, 4], [5, 6]], [[7, 8], [-1, -1]]]


def test_a_batch_of_tokens_masks_what_is_padded():
    batch = token_batch([[7], [8, 9]], pad_id=1)
    assert batch["input_ids"].tolist() == [[7, 1], [8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_a_token_that_has_the_padding_id_is_not_masked():
    assert token_batch([[1, 1]], pad_id=1)["attention_mask"].tolist() == [[1, 1]]
