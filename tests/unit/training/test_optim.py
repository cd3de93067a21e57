from dataclasses import asdict

import pytest
import torch

from doctune.training.optim import Optimisation, adamw, with_schedule

RATES = {"encoder": 1e-3, "head": 4e-3}


def optimiser():
    groups = [
        {"name": name, "params": [torch.nn.Parameter(torch.ones(2, 2))], "lr": rate, "weight_decay": 0.0}
        for name, rate in RATES.items()
    ]
    return adamw(groups)


def plan(schedule, warmup_steps, total_steps):
    return Optimisation(1e-3, 4.0, 0.0, schedule, warmup_steps=warmup_steps, total_steps=total_steps)


def advance(optimizer, scheduler, num_steps):
    """The rate of each group at each of the next optimiser steps."""
    rates = []
    for _ in range(num_steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        scheduler.step()
    return rates


def rates_of(schedule, warmup_steps, total_steps):
    optimizer = optimiser()
    scheduler = with_schedule(optimizer, plan(schedule, warmup_steps, total_steps))["lr_scheduler"]["scheduler"]
    return advance(optimizer, scheduler, total_steps)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4]),
        # A cosine between 1/25 and 1 in the rise, between 1 and 1/250,000 in the fall.
        ("one_cycle", [0.04, 1, 1 - 0.1464461, 0.500002, 0.1464497, 4e-6]),
    ],
)
def test_rates_of_each_schedule(schedule, shares):
    expected = [[pytest.approx(share * rate, rel=1e-4) for rate in RATES.values()] for share in shares]
    assert rates_of(schedule, warmup_steps=2, total_steps=6) == expected


@pytest.mark.parametrize(
    ("warmup_steps", "total_steps", "peak"),
    [(0, 1, 0), (1, 1, 0), (0, 2, 0), (1, 2, 1), (2, 2, 1), (0, 10, 0), (1, 10, 1), (4, 10, 3), (10, 10, 8)],
)
def test_one_cycle_rises_to_its_peak_and_falls_for_any_number_of_steps(warmup_steps, total_steps, peak):
    rates = [head for _encoder, head in rates_of("one_cycle", warmup_steps, total_steps)]
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert rates.index(max(rates)) == peak
    assert all(0 < rate <= RATES["head"] for rate in rates)


@pytest.mark.parametrize("warmup_steps", [0, 3, 9])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_transformers(schedule, warmup_steps):
    from transformers import get_scheduler  # slow to import

    theirs = get_scheduler(
        "constant_with_warmup" if schedule == "constant" else schedule,
        adamw([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}]),
        num_warmup_steps=warmup_steps,
        num_training_steps=9,
    )
    plan = Optimisation(
        lr=1.0, head_lr_multiplier=1, weight_decay=0, schedule=schedule, warmup_steps=warmup_steps, total_steps=9
    )
    ours = with_schedule(adamw([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}]), plan)
    for _ in range(11):
        assert ours["lr_scheduler"]["scheduler"].get_last_lr() == theirs.get_last_lr()
        theirs.optimizer.step()
        theirs.step()
        ours["optimizer"].step()
        ours["lr_scheduler"]["scheduler"].step()


def test_one_cycle_without_warmup_starts_near_its_peak():
    assert rates_of("one_cycle", 0, 1)[0] == [pytest.approx(0.75 * rate, rel=1e-4) for rate in RATES.values()]
    assert rates_of("one_cycle", 0, 100)[0] == [pytest.approx(rate, rel=1e-3) for rate in RATES.values()]


def test_one_cycle_lowers_the_momentum_while_the_rate_is_high():
    optimizer = optimiser()
    scheduler = with_schedule(optimizer, plan("one_cycle", 2, 6))["lr_scheduler"]["scheduler"]
    momenta = []
    for _ in range(6):
        momenta.append(optimizer.param_groups[0]["betas"][0])
        advance(optimizer, scheduler, 1)
    assert [momenta[0], momenta[1], momenta[-1]] == pytest.approx([0.95, 0.85, 0.95])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle"])
def test_a_resumed_schedule_goes_on_with_the_same_rates(schedule):
    first = optimiser()
    first_scheduler = with_schedule(first, plan(schedule, 3, 10))["lr_scheduler"]["scheduler"]
    advance(first, first_scheduler, 4)
    states = first.state_dict(), first_scheduler.state_dict()
    second = optimiser()
    second_scheduler = with_schedule(second, plan(schedule, 3, 10))["lr_scheduler"]["scheduler"]
    second.load_state_dict(states[0])
    second_scheduler.load_state_dict(states[1])
    assert [g["betas"] for g in second.param_groups] == [g["betas"] for g in first.param_groups]
    assert advance(second, second_scheduler, 6) == advance(first, first_scheduler, 6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle"])
def test_a_run_resumed_with_more_epochs_follows_the_longer_schedule(schedule):
    first = optimiser()
    first_scheduler = with_schedule(first, plan(schedule, 2, 6))["lr_scheduler"]["scheduler"]
    advance(first, first_scheduler, 6)
    second = optimiser()
    second_scheduler = with_schedule(second, plan(schedule, 2, 12))["lr_scheduler"]["scheduler"]
    second.load_state_dict(first.state_dict())
    second_scheduler.load_state_dict(first_scheduler.state_dict())
    advance(second, second_scheduler, 1)
    expected = rates_of(schedule, warmup_steps=2, total_steps=12)[7:]
    assert advance(second, second_scheduler, 5) == [pytest.approx(rates) for rates in expected]


def test_the_schedules_state_is_plain_enough_for_a_checkpoint(tmp_path):
    optimizer = optimiser()
    scheduler = with_schedule(optimizer, plan("one_cycle", 2, 6))["lr_scheduler"]["scheduler"]
    advance(optimizer, scheduler, 3)
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(states, tmp_path / "states.pt")
    assert torch.load(tmp_path / "states.pt", weights_only=True)["scheduler"] == scheduler.state_dict()


def test_an_optimisation_holds_plain_values():
    assert asdict(plan("linear", 2, 6)) == {
        "lr": 1e-3,
        "head_lr_multiplier": 4.0,
        "weight_decay": 0.0,
        "schedule": "linear",
        "warmup_steps": 2,
        "total_steps": 6,
        "layer_decay": None,
        "fused": True,
        "pooling_lr_multiplier": 1.0,
        "paged": False,
    }
