import itertools

import numpy as np
import pytest
import torch

from doctune.decode.answers import SpanSettings
from doctune.decode.spans import best_spans


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
    return [*zip(spans.scores[row].tolist(), spans.starts[row].tolist(), spans.ends[row].tolist(), strict=True)]


@pytest.mark.parametrize("max_length", [1, 3, 30])
def test_the_best_spans_are_those_of_all_pairs(logits, max_length):
    start, end, context, cls = logits
    spans = best_spans(start, end, context, cls, SpanSettings(max_length, n_best=6, top_k=12))
    assert spans.scores.shape == (5, 6)
    for row in range(5):
        assert found(spans, row) == all_pairs(start[row], end[row], context[row], max_length)[:6]


def test_only_the_best_starts_and_ends_are_looked_at():
    start = torch.tensor([[0.0, 5.0, 4.0, 3.0]])
    end = torch.tensor([[0.0, 1.0, 0.5, 9.0]])
    context, cls = torch.tensor([[False, True, True, True]]), torch.tensor([0])
    spans = best_spans(start, end, context, cls, SpanSettings(30, n_best=5, top_k=2))
    assert found(spans, 0)[:3] == [(14.0, 1, 3), (13.0, 2, 3), (6.0, 1, 1)]
    assert spans.scores[0].tolist()[3:] == [-torch.inf]


def test_a_span_is_no_longer_than_allowed():
    start, end = torch.tensor([[0.0, 9.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0, 2.0, 9.0]])
    context, cls = torch.tensor([[False, True, True, True, True]]), torch.tensor([0])
    best = {
        length: found(best_spans(start, end, context, cls, SpanSettings(length, 1, 5)), 0)[0] for length in range(1, 5)
    }
    assert best == {1: (9.0, 1, 1), 2: (10.0, 1, 2), 3: (11.0, 1, 3), 4: (18.0, 1, 4)}


def test_ends_before_starts_and_tokens_outside_the_context_are_no_answers():
    start, end = torch.tensor([[99.0, 99.0, 0.0, 5.0]]), torch.tensor([[99.0, 99.0, 5.0, 0.0]])
    context = torch.tensor([[False, False, True, True]])
    spans = best_spans(start, end, context, torch.tensor([0]), SpanSettings(n_best=4))
    assert sorted(found(spans, 0)[:3]) == [(0.0, 2, 3), (5.0, 2, 2), (5.0, 3, 3)]
    assert spans.scores[0, 3] == -torch.inf
    assert spans.null_scores.tolist() == [198.0]


def test_a_window_with_fewer_spans_than_wanted_fills_up_with_minus_infinity():
    context = torch.tensor([[False, False, True], [False, False, False]])
    spans = best_spans(torch.ones(2, 3), torch.ones(2, 3), context, torch.tensor([0, 0]), SpanSettings())
    assert spans.scores.tolist() == [[2.0, *[-torch.inf] * 4], [-torch.inf] * 5]


def test_the_null_score_is_that_of_the_token_for_no_answer():
    start, end = torch.tensor([[1.0, 2.0, 4.0]] * 2), torch.tensor([[8.0, 16.0, 32.0]] * 2)
    context = torch.tensor([[False, True, False]] * 2)
    spans = best_spans(start, end, context, torch.tensor([0, 2]), SpanSettings())
    assert spans.null_scores.tolist() == [9.0, 36.0]


def test_rows_do_not_depend_on_their_batch(logits):
    start, end, context, cls = logits
    together = best_spans(start, end, context, cls, SpanSettings())
    for row in range(5):
        alone = best_spans(*(each[row : row + 1] for each in (start, end, context, cls)), SpanSettings())
        assert found(alone, 0) == found(together, row)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_finds_the_same_spans(dtype):
    start = torch.tensor([[-8.0, 0.0, 4.0, -60000.0]], dtype=dtype)
    end = torch.tensor([[-8.0, 2.0, 1.0, -60000.0]], dtype=dtype)
    context, cls = torch.tensor([[False, True, True, True]]), torch.tensor([0])
    spans = best_spans(start, end, context, cls, SpanSettings(n_best=3))
    assert found(spans, 0) == [(5.0, 2, 2), (2.0, 1, 1), (1.0, 1, 2)]
    (window,) = spans.in_context(torch.zeros(1, 4, 2, dtype=torch.long))
    assert (window.scores.tolist(), window.null_score) == ([5.0, 2.0, 1.0], -16.0)


def test_spans_become_characters_of_the_context():
    places = [[[-1, -1], [0, 3], [4, 7], [8, 13]], [[-1, -1], [40, 43], [44, 47], [-1, -1]]]
    start = torch.tensor([[0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 7.0, 9.0]])
    end = torch.tensor([[0.0, 0.0, 0.0, 6.0], [0.0, 0.0, 1.0, 9.0]])
    context = torch.tensor(places)[:, :, 0] >= 0
    spans = best_spans(start, end, context, torch.tensor([0, 0]), SpanSettings(n_best=1))
    for given in (torch.tensor(places), np.array(places)):
        first, second = spans.in_context(given)
        assert (first.scores.tolist(), first.starts.tolist(), first.ends.tolist()) == ([11.0], [0], [13])
        assert (second.scores.tolist(), second.starts.tolist(), second.ends.tolist()) == ([8.0], [44], [47])
        assert (first.null_score, second.null_score) == (0.0, 0.0)


def test_windows_of_one_token_are_read():
    one = torch.ones(2, 1)
    spans = best_spans(one, one, torch.tensor([[True], [False]]), torch.tensor([0, 0]), SpanSettings())
    assert spans.scores.tolist() == [[2.0], [-torch.inf]]
