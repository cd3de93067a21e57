import math

import pytest
import torch
from torch.nn import functional as F

from doctune.nets.losses import span_losses


@pytest.fixture
def logits():
    """Start and end logits of four windows of six tokens; 2 to 4 are the context, token 0 is no answer."""
    torch.manual_seed(0)
    context = torch.zeros(4, 6, dtype=torch.bool)
    context[:, 2:5] = True
    start, end = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return start, end, context, torch.zeros(4, dtype=torch.long)


ALLOWED = [0, 2, 3, 4]
STARTS, ENDS = torch.tensor([2, 3, 0, 4]), torch.tensor([3, 3, 0, 4])


def over_allowed(logits, targets, **options):
    """PyTorch's own loss over the tokens that can be chosen."""
    places = torch.tensor([ALLOWED.index(target) for target in targets.tolist()])
    return F.cross_entropy(logits[:, ALLOWED], places, reduction="none", **options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_it_is_cross_entropy_over_the_context_and_the_token_for_no_answer(logits, label_smoothing):
    start, end, context, cls = logits
    losses = span_losses(start, end, STARTS, ENDS, context, cls, label_smoothing=label_smoothing)
    options = {"label_smoothing": label_smoothing}
    expected = (over_allowed(start, STARTS, **options) + over_allowed(end, ENDS, **options)) / 2
    assert losses.shape == (4,)
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_choices(label_smoothing):
    context = torch.tensor([[False, False, True, True, True], [False, True, False, False, False]])
    same = torch.full((2, 5), 7.0)
    targets, cls = torch.tensor([2, 0]), torch.tensor([0, 0])
    losses = span_losses(same, same, targets, targets, context, cls, label_smoothing=label_smoothing)
    assert losses.tolist() == pytest.approx([math.log(4), math.log(2)])


def test_a_token_for_no_answer_that_stands_last(logits):
    start, end, context, _ = logits
    moved = span_losses(
        start.roll(-1, 1), end.roll(-1, 1), (STARTS - 1) % 6, (ENDS - 1) % 6, context.roll(-1, 1), torch.full((4,), 5)
    )
    assert torch.allclose(moved, span_losses(start, end, STARTS, ENDS, context, torch.zeros(4, dtype=torch.long)))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_an_answer_at_an_unknown_place_loses_nothing_and_teaches_nothing(logits, label_smoothing):
    start, end, context, cls = logits
    starts, ends = (targets.masked_fill(torch.tensor([False, True, False, False]), -100) for targets in (STARTS, ENDS))
    losses = span_losses(start, end, starts, ends, context, cls, label_smoothing=label_smoothing)
    known = span_losses(start, end, STARTS, ENDS, context, cls, label_smoothing=label_smoothing)
    assert losses.tolist() == [known[0], 0, known[2], known[3]]
    losses.sum().backward()
    assert start.grad[1].abs().max() == 0
    assert start.grad[0].abs().max() > 0


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_are_those_over_the_allowed_tokens_and_zero_elsewhere(logits, label_smoothing):
    start, end, context, cls = logits
    span_losses(start, end, STARTS, ENDS, context, cls, label_smoothing=label_smoothing).sum().backward()
    for values, targets in ((start, STARTS), (end, ENDS)):
        again = values.detach().clone().requires_grad_()
        (over_allowed(again, targets, label_smoothing=label_smoothing).sum() / 2).backward()
        assert torch.allclose(values.grad, again.grad, atol=1e-12)
        assert values.grad[:, [1, 5]].abs().max() == 0


def test_gradients_are_finite_for_saturated_logits():
    start = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]], requires_grad=True)
    context, targets = torch.tensor([[False, True, True]] * 2), torch.tensor([2, 0])
    losses = span_losses(start, start, targets, targets, context, torch.tensor([0, 0]), label_smoothing=0.1)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(start.grad).all()


def test_other_tokens_have_no_say(logits):
    start, end, context, cls = logits
    other = start.detach().clone()
    other[:, [1, 5]] = 1e6
    assert torch.equal(
        span_losses(start, end, STARTS, ENDS, context, cls), span_losses(other, end, STARTS, ENDS, context, cls)
    )
