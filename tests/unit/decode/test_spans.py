import itertools

import numpy as np
import pytest
import torch

from doctune.decode.answers import SpanSettings
from doctune.decode.spans import WindowLogits, best_spans, joined_logits


def search(start, end, context, cls, settings):
    """The best spans in tokens: characters are tokens here, the last one of a span excluded as it is in Python."""
    tokens = torch.arange(start.shape[1]).repeat(len(start), 1)
    places = torch.stack([tokens, tokens + 1], dim=2)
    return best_spans(WindowLogits(start, end, context, cls, places), settings)


@pytest.fixture
def logits():
    """Start and end logits of five windows of twelve tokens; tokens 3 to 10 are the context, token 0 is no answer."""
    torch.manual_seed(0)
    context = torch.zeros(5, 12, dtype=torch.bool)
    context[:, 3:11] = True
    return torch.randn(5, 12), torch.randn(5, 12), context, torch.zeros(5, dtype=torch.long)


def all_pairs(start, end, context, max_length):
    """Every span of one window by falling score, by looking at all pairs of tokens."""
    tokens = [token for token in range(len(context)) if context[token]]
    pairs = [(i, j) for i, j in itertools.product(tokens, tokens) if 0 <= j - i < max_length]
    return sorted(((float(start[i] + end[j]), i, j) for i, j in pairs), reverse=True)


def found(spans, row):
    firsts, lasts = spans.starts[row].tolist(), (spans.ends[row] - 1).tolist()
    return [*zip(spans.scores[row].tolist(), firsts, lasts, strict=True)]


@pytest.mark.parametrize("max_length", [1, 3, 30])
def test_the_best_spans_are_those_of_all_pairs(logits, max_length):
    start, end, context, cls = logits
    spans = search(start, end, context, cls, SpanSettings(max_length, n_best=6))
    assert spans.scores.shape == (5, 6)
    for row in range(5):
        assert found(spans, row) == all_pairs(start[row], end[row], context[row], max_length)[:6]


def test_the_best_span_may_begin_at_a_poor_start_and_end_at_a_poor_end():
    start, end = torch.zeros(1, 100), torch.zeros(1, 100)
    start[0, 50:], end[0, :50] = 5.0, 5.0  # good starts are behind good ends
    start[0, 20], end[0, 21] = 1.0, 6.0
    context, cls = torch.ones(1, 100, dtype=torch.bool), torch.tensor([0])
    assert found(search(start, end, context, cls, SpanSettings(10, n_best=1)), 0) == [(7.0, 20, 21)]


def test_a_span_is_no_longer_than_allowed():
    start, end = torch.tensor([[0.0, 9.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0, 2.0, 9.0]])
    context, cls = torch.tensor([[False, True, True, True, True]]), torch.tensor([0])
    best = {length: found(search(start, end, context, cls, SpanSettings(length, 1)), 0)[0] for length in range(1, 5)}
    assert best == {1: (9.0, 1, 1), 2: (10.0, 1, 2), 3: (11.0, 1, 3), 4: (18.0, 1, 4)}


def test_ends_before_starts_and_tokens_outside_the_context_are_no_answers():
    start, end = torch.tensor([[99.0, 99.0, 0.0, 5.0]]), torch.tensor([[99.0, 99.0, 5.0, 0.0]])
    context = torch.tensor([[False, False, True, True]])
    spans = search(start, end, context, torch.tensor([0]), SpanSettings(n_best=4))
    assert sorted(found(spans, 0)[:3]) == [(0.0, 2, 3), (5.0, 2, 2), (5.0, 3, 3)]
    assert spans.scores[0, 3] == -torch.inf
    assert spans.null_scores.tolist() == [198.0]


def test_a_window_with_fewer_spans_than_wanted_fills_up_with_minus_infinity():
    context = torch.tensor([[False, False, True], [False, False, False]])
    spans = search(torch.ones(2, 3), torch.ones(2, 3), context, torch.tensor([0, 0]), SpanSettings())
    assert spans.scores.tolist() == [[2.0, *[-torch.inf] * 4], [-torch.inf] * 5]


def test_the_null_score_is_that_of_the_token_for_no_answer():
    start, end = torch.tensor([[1.0, 2.0, 4.0]] * 2), torch.tensor([[8.0, 16.0, 32.0]] * 2)
    context = torch.tensor([[False, True, False]] * 2)
    spans = search(start, end, context, torch.tensor([0, 2]), SpanSettings())
    assert spans.null_scores.tolist() == [9.0, 36.0]


def test_rows_do_not_depend_on_their_batch(logits):
    start, end, context, cls = logits
    together = search(start, end, context, cls, SpanSettings())
    for row in range(5):
        alone = search(*(each[row : row + 1] for each in (start, end, context, cls)), SpanSettings())
        assert found(alone, 0) == found(together, row)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_finds_the_same_spans(dtype):
    start = torch.tensor([[-8.0, 0.0, 4.0, -60000.0]], dtype=dtype)
    end = torch.tensor([[-8.0, 2.0, 1.0, -60000.0]], dtype=dtype)
    context, cls = torch.tensor([[False, True, True, True]]), torch.tensor([0])
    spans = search(start, end, context, cls, SpanSettings(n_best=3))
    assert found(spans, 0) == [(5.0, 2, 2), (2.0, 1, 1), (1.0, 1, 2)]
    assert spans.null_scores.tolist() == [-16.0]
    large = torch.tensor([[40_000.0, 0.0, 40_000.0, 0.0]]).to(dtype)  # the sum is beyond float16
    spans = search(large, large, context, cls, SpanSettings(n_best=1))
    assert spans.null_scores.tolist() == spans.scores[:, 0].tolist() == [2 * large[0, 0].item()]
    assert spans.scores.dtype == spans.null_scores.dtype == np.float32


def test_spans_become_characters_of_the_context():
    places = [[[-1, -1], [0, 3], [4, 7], [8, 13]], [[-1, -1], [40, 43], [44, 47], [-1, -1]]]
    start = torch.tensor([[0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 7.0, 9.0]])
    end = torch.tensor([[0.0, 0.0, 0.0, 6.0], [0.0, 0.0, 1.0, 9.0]])
    context = torch.tensor(places)[:, :, 0] >= 0
    windows = WindowLogits(start, end, context, torch.tensor([0, 0]), torch.tensor(places))
    spans = [column.tolist() for column in best_spans(windows, SpanSettings(n_best=1))]
    assert spans == [[[11.0], [8.0]], [[0], [44]], [[13], [47]], [0.0, 0.0]]


def test_windows_of_one_token_are_read():
    one = torch.ones(2, 1)
    spans = search(one, one, torch.tensor([[True], [False]]), torch.tensor([0, 0]), SpanSettings())
    assert spans.scores.tolist() == [[2.0, *[-torch.inf] * 4], [-torch.inf] * 5]
    assert spans.starts.tolist() == [[0] * 5] * 2


def test_batches_of_different_lengths_are_searched_as_one():
    torch.manual_seed(0)
    batches = [
        WindowLogits(
            torch.randn(size, length),
            torch.randn(size, length),
            torch.rand(size, length) < 0.8,
            torch.randint(length, (size,)),
            torch.randint(1000, (size, length, 2)),
        )
        for size, length in ((3, 7), (1, 20), (2, 1))
    ]
    together = best_spans(joined_logits(batches), SpanSettings(4, n_best=3))
    apart = [best_spans(batch, SpanSettings(4, n_best=3)) for batch in batches]
    for column, columns in zip(together, zip(*apart, strict=True), strict=True):
        real = np.isfinite(together.scores) if column.ndim == 2 else slice(None)
        assert np.array_equal(column[real], np.concatenate(columns)[real])
    assert np.array_equal(together.scores, np.concatenate([each.scores for each in apart]))
