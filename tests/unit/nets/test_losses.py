import pytest
import torch
from torch.nn import functional as F

from doctune.nets.losses import class_weights, cross_entropy_sum


def test_balanced_weights_are_total_over_classes_times_count():
    assert class_weights("balanced", [6, 3, 1]).tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert class_weights("none", [6, 3, 1]).tolist() == [1, 1, 1]


def test_the_mean_weight_over_the_training_documents_is_one():
    counts = [7, 2, 11]
    weights = class_weights("balanced", counts)
    assert sum(w * c for w, c in zip(weights.tolist(), counts, strict=True)) / sum(counts) == pytest.approx(1)


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
