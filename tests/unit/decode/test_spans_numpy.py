"""Without torch the same spans are found."""

import numpy as np
import pytest
import torch

from doctune.decode import spans, spans_numpy
from doctune.decode.answers import SpanSettings


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_length", [1, 4, 30])
@pytest.mark.parametrize("n_best", [1, 5, 50])
def test_both_ways_find_the_same_spans(seed, max_length, n_best):
    torch.manual_seed(seed)
    start, end = torch.randn(6, 17), torch.randn(6, 17)
    start[4, 5] = end[5, 7] = torch.nan  # such tokens are no candidates
    places = torch.full((6, 17, 2), -1)
    for row in range(6):
        inside = torch.arange(3, 3 + 2 * row + 1)  # from a context of one token on
        places[row, inside] = torch.stack([inside * 10, inside * 10 + 7], dim=1)
    cls = torch.tensor([0, 0, 0, 16, 16, 16])
    settings = SpanSettings(max_length, n_best)
    theirs = spans.best_spans(spans.WindowLogits(start, end, places[:, :, 0] >= 0, cls, places), settings)
    ours = spans_numpy.best_spans(start.numpy(), end.numpy(), places.numpy(), cls.numpy(), settings)
    assert ours.scores.tolist() == theirs.scores.tolist()
    real = np.isfinite(theirs.scores)
    assert real.any(axis=1).all()
    assert np.array_equal(ours.starts[real], theirs.starts[real])
    assert np.array_equal(ours.ends[real], theirs.ends[real])
    assert ours.null_scores == pytest.approx(theirs.null_scores)
