import math

import pytest
import torch
from torch.nn import functional as F

from doctune.nets.losses import DocumentLoss, class_weights, cross_entropy_sum, focal_sum


def test_balanced_weights_are_total_over_classes_times_count():
    assert class_weights("balanced", [6, 3, 1]).tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert class_weights("none", [6, 3, 1]).tolist() == [1, 1, 1]


def test_effective_weights_are_one_over_the_effective_number_of_samples():
    # With beta 0.5 the effective numbers of 1, 2 and 3 documents are 1, 1.5 and 1.75.
    shares = [1, 1 / 1.5, 1 / 1.75]
    scale = 6 / (1 * shares[0] + 2 * shares[1] + 3 * shares[2])
    assert class_weights("effective", [1, 2, 3], beta=0.5).tolist() == pytest.approx([scale * s for s in shares])


def test_effective_weights_lie_between_none_and_balanced():
    counts = [900, 40, 7]
    assert class_weights("effective", counts, beta=0.0).tolist() == [1, 1, 1]
    nearly_balanced = class_weights("effective", counts, beta=1 - 1e-9).tolist()
    assert nearly_balanced == pytest.approx(class_weights("balanced", counts).tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_the_mean_weight_over_the_training_documents_is_one(kind):
    counts = [7, 2, 11]
    weights = class_weights(kind, counts)
    assert sum(w * c for w, c in zip(weights.tolist(), counts, strict=True)) / sum(counts) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_a_class_without_documents_weighs_nothing_and_changes_no_other_weight(kind):
    assert class_weights(kind, [6, 0, 2]).tolist() == [
        class_weights(kind, [6, 2])[0].item(),
        0,
        class_weights(kind, [6, 2])[1].item(),
    ]
    assert class_weights("none", [6, 0, 2]).tolist() == [1, 1, 1]


def test_unknown_class_weights_are_refused():
    with pytest.raises(ValueError, match=r"class weights 'heavy' are not a choice: none, balanced, effective\."):
        class_weights("heavy", [1])


def test_the_sum_of_parts_is_the_sum_of_the_whole():
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(8, 3), torch.randint(0, 3, (8,)), torch.tensor([0.5, 1.0, 2.0])
    whole = cross_entropy_sum(logits, targets, weights, 0.1)
    parts = sum(cross_entropy_sum(logits[s], targets[s], weights, 0.1) for s in (slice(0, 3), slice(3, 8)))
    assert whole.item() == pytest.approx(parts.item(), rel=1e-6)


def test_without_weights_it_is_plain_cross_entropy():
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert cross_entropy_sum(logits, targets, torch.ones(2)).item() == pytest.approx(
        2 * F.cross_entropy(logits, targets).item()
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_zero_is_cross_entropy(label_smoothing):
    torch.manual_seed(0)
    logits, targets = torch.randn(16, 5, dtype=torch.float64), torch.randint(0, 5, (16,))
    weights = torch.rand(5, dtype=torch.float64)
    focal = focal_sum(logits, targets, weights, 0.0, label_smoothing)
    assert focal.item() == pytest.approx(cross_entropy_sum(logits, targets, weights, label_smoothing).item(), rel=1e-14)


def test_focal_loss_scales_each_document_by_its_doubt():
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
    loss = focal_sum(probabilities.log(), torch.tensor([0, 0]), torch.tensor([2.0, 1.0]), gamma=2.0)
    assert loss.item() == pytest.approx(2 * (0.1**2 * -math.log(0.9) + 0.6**2 * -math.log(0.4)))


def test_focal_loss_with_smoothing_still_pulls_an_overconfident_model_back():
    logits = torch.tensor([[9.0, 0.0]], requires_grad=True)
    focal_sum(logits, torch.tensor([0]), torch.ones(2), 2.0, label_smoothing=0.1).backward()
    assert logits.grad[0, 0] > 0.04


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e4])
def test_focal_loss_is_finite_at_extreme_logits(gamma, scale):
    logits = (scale * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])).requires_grad_()
    loss = focal_sum(logits, torch.tensor([0, 0]), torch.ones(3), gamma, label_smoothing=0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(logits.grad).all()


def test_the_slope_of_the_focal_loss_is_exact():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: focal_sum(x, torch.tensor([0, 1, 2, 1]), weights, 1.5, 0.1), logits)


def test_a_document_loss_is_the_named_sum():
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(8, 3), torch.randint(0, 3, (8,)), torch.tensor([0.5, 1.0, 2.0])
    cross_entropy = DocumentLoss("cross_entropy", weights, label_smoothing=0.1)
    focal = DocumentLoss("focal", weights, label_smoothing=0.1, gamma=1.5)
    assert torch.equal(cross_entropy(logits, targets), cross_entropy_sum(logits, targets, weights, 0.1))
    assert torch.equal(focal(logits, targets), focal_sum(logits, targets, weights, 1.5, 0.1))


def test_the_weights_move_with_the_loss_and_are_not_saved():
    loss = DocumentLoss("focal", torch.ones(3), gamma=2.0)
    assert loss.double().weights.dtype == torch.float64
    assert loss.state_dict() == {}


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"loss 'hinge' is not a choice: cross_entropy, focal\."):
        DocumentLoss("hinge", torch.ones(2))


@pytest.mark.parametrize(("name", "gamma"), [("focal", None), ("cross_entropy", 2.0)])
def test_a_gamma_belongs_to_focal_loss_alone(name, gamma):
    with pytest.raises(ValueError, match=f"loss '{name}' with gamma={gamma}: focal needs a gamma"):
        DocumentLoss(name, torch.ones(2), gamma=gamma)


def test_a_loss_describes_itself_in_plain_values():
    loss = DocumentLoss("focal", torch.tensor([0.5, 2.0]), label_smoothing=0.1, gamma=1.5)
    assert loss.describe() == {"name": "focal", "weights": [0.5, 2.0], "label_smoothing": 0.1, "gamma": 1.5}
