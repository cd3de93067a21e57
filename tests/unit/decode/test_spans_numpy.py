"""Without torch the same spans are found."""

import numpy as np
import pytest
import torch

from doctune.decode import spans, spans_numpy
from doctune.decode.answers import SpanSettings


@pytest.mark.parametrize("top_k", [2, 5, 40])
@pytest.mark.parametrize("max_length", [1, 4, 30])
@pytest.mark.parametrize("n_best", [1, 5, 50])
def test_both_ways_find_the_same_spans(top_k, max_length, n_best):
    torch.manual_seed(top_k)
    start, end = torch.randn(6, 17), torch.randn(6, 17)
    places = torch.full((6, 17, 2), -1)
    for row in range(6):
        inside = torch.arange(3, 3 + 2 * row + 1)  # from a context of one token on
        places[row, inside] = torch.stack([inside * 10, inside * 10 + 7], dim=1)
    cls = torch.tensor([0, 0, 0, 16, 16, 16])
    settings = SpanSettings(max_length, n_best, top_k)
    theirs = spans.best_spans(start, end, places[:, :, 0] >= 0, cls, settings).in_context(places)
    ours = spans_numpy.best_spans(start.numpy(), end.numpy(), places.numpy(), cls.numpy(), settings)
    for one, other in zip(ours, theirs, strict=True):
        real = np.isfinite(other.scores)
        assert one.scores[: real.sum()].tolist() == other.scores[real].tolist()
        assert np.array_equal(one.starts[: real.sum()], other.starts[real])
        assert np.array_equal(one.ends[: real.sum()], other.ends[real])
        assert not np.isfinite(one.scores[real.sum() :]).any()
        assert one.null_score == pytest.approx(other.null_score)
