import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from doctune.nets.losses import DocumentLoss
from doctune.nets.task_losses import (
    LOG_VARIANCE_BOUND,
    FixedBalance,
    LabelSetLoss,
    LossSums,
    TargetLosses,
    UncertaintyBalance,
    binary_cross_entropy_sum,
    binary_focal_sum,
    plain_sums,
    positive_weights,
)

# Of eight texts, some know the tags (multi-label, 3 labels), some the kind (single-label, 2 labels).
TAGS = torch.tensor([[1, 0, 1], [0, 0, 0], [-1] * 3, [1, 1, 0], [-1] * 3, [0, 1, 0], [-1] * 3, [-1] * 3])
KINDS = torch.tensor([0, -1, 1, 1, -1, 0, 1, -1])
WEIGHTS = torch.tensor([1.0, 2.5, 0.5])


def logits(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, size, generator=generator, dtype=torch.float64, requires_grad=True) for size in (3, 2)]


def make_losses(gamma=None):
    name = "cross_entropy" if gamma is None else "focal"
    single = DocumentLoss(name, torch.tensor([0.5, 2.0]), gamma=gamma)
    return TargetLosses([LabelSetLoss(name, WEIGHTS, gamma=gamma), single]).double()


def naive_multi(scores, targets, weights, gamma):
    """Text by text and label by label, as the papers write it."""
    total = 0.0
    for row, wanted in zip(scores, targets, strict=True):
        for label, applies in enumerate(wanted.tolist()):
            p = 1 / (1 + torch.exp(-row[label]))
            right, weight = (p, weights[label]) if applies else (1 - p, 1.0)
            total = total - weight * (1 - right) ** gamma * torch.log(right)
    return total


def naive_single(scores, targets, weights, gamma):
    total = 0.0
    for row, wanted in zip(scores, targets.tolist(), strict=True):
        p = (torch.exp(row) / torch.exp(row).sum())[wanted]
        total = total - weights[wanted] * (1 - p) ** gamma * torch.log(p)
    return total


@pytest.mark.parametrize("gamma", [None, 0.0, 2.0])
def test_sums_and_gradients_are_those_of_the_naive_computation_over_known_targets(gamma):
    found, expected = logits(), logits()
    sums = make_losses(gamma)(found, [TAGS, KINDS])
    tags, kinds = TAGS[:, 0] >= 0, KINDS >= 0
    naive = [
        naive_multi(expected[0][tags], TAGS[tags], WEIGHTS, gamma or 0.0),
        naive_single(expected[1][kinds], KINDS[kinds], [0.5, 2.0], gamma or 0.0),
    ]
    assert sums.counts.tolist() == [4, 5]
    assert sums.totals.tolist() == pytest.approx([each.item() for each in naive], rel=1e-9)
    (sums.totals @ torch.tensor([1.0, 3.0], dtype=torch.float64)).backward()
    (naive[0] + 3 * naive[1]).backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad.nan_to_num(0.0), rtol=1e-9, atol=1e-12)
    assert found[0].grad[~tags].abs().sum() == found[1].grad[~kinds].abs().sum() == 0


def test_binary_focal_at_gamma_zero_is_binary_cross_entropy():
    scores, targets = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    assert binary_focal_sum(scores, targets, WEIGHTS, 0.0).item() == pytest.approx(
        binary_cross_entropy_sum(scores, targets, WEIGHTS).item(), rel=1e-6
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradients_of_saturated_logits_are_finite(gamma):
    scores = torch.tensor([[90.0, -90.0, 0.0], [-90.0, 90.0, 0.0]], requires_grad=True)
    loss = binary_focal_sum(scores, torch.tensor([[1, 0, 1], [1, 0, 1]]), torch.ones(3), gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[1, 0] == pytest.approx(-1, rel=1e-4)


def test_a_sure_label_counts_less_in_focal():
    scores, targets = torch.tensor([[2.0]]), torch.tensor([[1]])
    p = 1 / (1 + math.exp(-2))
    assert binary_focal_sum(scores, targets, torch.ones(1), 2.0).item() == pytest.approx(-((1 - p) ** 2) * math.log(p))


def test_plain_sums_have_no_weights():
    found = plain_sums(logits(), [TAGS, KINDS])
    scores = logits()
    tags, kinds = TAGS[:, 0] >= 0, KINDS >= 0
    binary = F.binary_cross_entropy_with_logits(scores[0][tags], TAGS[tags].double(), reduction="none")
    assert found.totals[0].item() == pytest.approx(binary.mean(dim=1).sum().item())
    assert found.totals[1].item() == pytest.approx(F.cross_entropy(scores[1][kinds], KINDS[kinds]).item() * 5)
    assert found.counts.tolist() == [4, 5]


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_targets_that_nobody_knows_have_loss_zero_and_gradients_of_zero(gamma):
    scores = logits()
    unknown = [torch.full((8, 3), -1), torch.full((8,), -1)]
    for sums in (make_losses(gamma)(scores, unknown), plain_sums(scores, unknown)):
        assert sums.totals.tolist() == [0, 0]
        assert sums.counts.tolist() == [0, 0]
    for balance in (FixedBalance([1, 1]), UncertaintyBalance(2)):
        objective = balance(make_losses(gamma)(scores, unknown), torch.tensor([0, 0]))
        objective.backward()
        assert objective.item() == 0
        assert all(each.grad.abs().sum() == 0 for each in scores)


@pytest.mark.parametrize("balance", ["fixed", "uncertainty"])
@pytest.mark.parametrize("cuts", [[2, 2, 2, 2], [4, 4], [5, 3], [1, 7]])
def test_any_micro_batches_give_the_gradients_of_the_whole_effective_batch(balance, cuts):
    losses, weigh = make_losses(2.0), FixedBalance([1.0, 0.3]) if balance == "fixed" else UncertaintyBalance(2)
    with torch.no_grad():
        for parameter in weigh.parameters():
            parameter.copy_(torch.tensor([0.7, -0.4]))
    weigh = weigh.double()
    scales = torch.tensor([1 / 4, 1 / 5], dtype=torch.float64)

    def gradients(sizes):
        weigh.zero_grad()
        scores = logits()
        parts = zip(*(each.split(sizes) for each in (*scores, TAGS, KINDS)), strict=True)
        total = 0.0
        for tag_scores, kind_scores, tags, kinds in parts:
            part = weigh(losses([tag_scores, kind_scores], [tags, kinds]), scales)
            part.backward()
            total += part.item()
        return total, [each.grad for each in scores] + [parameter.grad for parameter in weigh.parameters()]

    (whole, expected), (parts, found) = gradients([8]), gradients(cuts)
    assert parts == pytest.approx(whole, rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_fixed_weights_are_those_of_the_mean_losses():
    sums = LossSums(torch.tensor([6.0, 10.0]), torch.tensor([3, 2]))
    assert FixedBalance([1.0, 0.5])(sums, 1 / sums.counts).item() == pytest.approx(1.0 * 2 + 0.5 * 5)
    assert FixedBalance([1.0, 0.5]).current_weights().tolist() == [1.0, 0.5]


def test_uncertainty_is_the_papers_form_for_classification():
    balance = UncertaintyBalance(2)
    with torch.no_grad():
        balance.raw.copy_(torch.tensor([0.8, -0.5]))
    s = [3 * math.tanh(0.8 / 3), 3 * math.tanh(-0.5 / 3)]
    sums = LossSums(torch.tensor([6.0, 10.0]), torch.tensor([3, 2]))
    expected = math.exp(-s[0]) * 2 + s[0] / 2 + math.exp(-s[1]) * 5 + s[1] / 2
    assert balance(sums, 1 / sums.counts).item() == pytest.approx(expected, rel=1e-6)
    assert balance.current_weights().tolist() == pytest.approx([math.exp(-s[0]), math.exp(-s[1])])
    assert UncertaintyBalance(3).current_weights().tolist() == [1, 1, 1]


@pytest.mark.parametrize("loss", [0.1, 0.5, 2.0])
def test_uncertainty_settles_at_one_over_twice_the_loss(loss):
    balance = UncertaintyBalance(1)
    optimizer = torch.optim.Adam([balance.parameter_group(0.05)])
    for _ in range(200):
        optimizer.zero_grad()
        balance(LossSums(torch.tensor([loss]), torch.tensor([1])), torch.tensor([1])).backward()
        optimizer.step()
    assert balance.current_weights().item() == pytest.approx(1 / (2 * loss), rel=0.02)


def test_a_solved_target_does_not_run_away_and_can_come_back():
    balance = UncertaintyBalance(1)
    optimizer = torch.optim.Adam([balance.parameter_group(0.1)])

    def learn(loss):
        for _ in range(300):
            optimizer.zero_grad()
            balance(LossSums(torch.tensor([loss]), torch.tensor([1])), torch.tensor([1])).backward()
            optimizer.step()
        return balance.current_weights().item()

    assert 15 < learn(0.0) <= math.exp(LOG_VARIANCE_BOUND)
    assert learn(0.7) < 1


def test_the_weight_of_a_noisy_task_falls_below_that_of_a_learnable_one():
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    learnable, noise = (inputs[:, 0] > 0).long(), torch.randint(0, 2, (256,))
    body, heads = nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 2)])
    losses = TargetLosses([DocumentLoss("cross_entropy", torch.ones(2)) for _ in range(2)])
    balance = UncertaintyBalance(2)
    optimizer = torch.optim.Adam(
        [{"params": [*body.parameters(), *heads.parameters()], "lr": 1e-2}, balance.parameter_group(1e-2)]
    )
    ratios = []
    for step in range(300):
        optimizer.zero_grad()
        fresh = inputs + 0.1 * torch.randn_like(inputs)  # so that the noise cannot be learnt by heart
        hidden = torch.tanh(body(fresh))
        noise = torch.randint(0, 2, (256,))
        sums = losses([head(hidden) for head in heads], [learnable, noise])
        balance(sums, 1 / sums.counts).backward()
        optimizer.step()
        if step % 100 == 99:
            clear, noisy = balance.current_weights().tolist()
            ratios.append(noisy / clear)
    assert noisy == pytest.approx(1 / (2 * math.log(2)), rel=0.1)
    assert noisy < 1 < clear
    assert ratios == sorted(ratios, reverse=True)


def test_log_variances_have_a_group_of_their_own_without_decay():
    balance = UncertaintyBalance(2)
    assert balance.parameter_group(0.01) == {
        "name": "balance",
        "params": [balance.raw],
        "lr": 0.01,
        "weight_decay": 0.0,
    }


def test_positive_weights_are_negatives_over_positives_or_their_effective_numbers():
    assert positive_weights("none", [2, 8], 10).tolist() == [1, 1]
    assert positive_weights("balanced", [2, 8], 10).tolist() == [4, 0.25]
    assert positive_weights("effective", [2, 8], 10, beta=0.5).tolist() == pytest.approx(
        [(1 - 0.5**8) / (1 - 0.5**2), (1 - 0.5**2) / (1 - 0.5**8)]
    )
    assert positive_weights("effective", [2, 8], 10, beta=0.0).tolist() == [1, 1]
    nearly_balanced = positive_weights("effective", [2, 8], 10, beta=1 - 1e-9).tolist()
    assert nearly_balanced == pytest.approx([4, 0.25], rel=1e-5)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_labels_that_all_texts_have_or_none_weigh_one(kind):
    assert positive_weights(kind, [0, 10], 10).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: positive_weights("heavy", [1], 2),
            "positive weights 'heavy' are not a choice: none, balanced, effective.",
        ),
        (lambda: LabelSetLoss("hinge", torch.ones(1)), "loss 'hinge' is not a choice: cross_entropy, focal."),
        (
            lambda: LabelSetLoss("focal", torch.ones(1)),
            "loss 'focal' with gamma=None: focal needs a gamma, cross_entropy takes none.",
        ),
        (
            lambda: LabelSetLoss("cross_entropy", torch.ones(1), gamma=2.0),
            "loss 'cross_entropy' with gamma=2.0: focal needs a gamma, cross_entropy takes none.",
        ),
        (lambda: FixedBalance([1.0, -1.0]), "weights=[1.0, -1.0]: none may be negative, and one must be above 0."),
        (lambda: FixedBalance([0.0]), "weights=[0.0]: none may be negative, and one must be above 0."),
    ],
)
def test_other_choices_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        make()
    assert str(caught.value) == message


def test_losses_say_what_they_were_made_of():
    assert make_losses(2.0).describe() == [
        {"name": "focal", "weights": [1.0, 2.5, 0.5], "gamma": 2.0},
        {"name": "focal", "weights": [0.5, 2.0], "label_smoothing": 0.0, "gamma": 2.0},
    ]


def test_only_log_variances_are_saved_with_the_losses():
    assert make_losses().state_dict() == {}
    assert FixedBalance([1.0]).state_dict() == {}
    assert list(UncertaintyBalance(2).state_dict()) == ["raw"]
