import pytest
import torch

from doctune.errors import ConfigError
from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config
from doctune.nets.parameters import (
    encoder_layers,
    freeze,
    num_released_layers,
    parameter_counts,
    parameter_groups,
    release,
)


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def net(request, tiny_encoder):
    folder = str(tiny_encoder(request.param))
    return classifier(pretrained_config(folder), Labels(("x", "y")), folder)


def trainable(net):
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


def test_every_trainable_weight_is_in_exactly_one_group(net):
    groups = parameter_groups(net, lr=1e-4, head_lr_multiplier=3.0, weight_decay=0.1)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in net.parameters())
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert rates == {
        "encoder": (1e-4, 0.1),
        "encoder/no_decay": (1e-4, 0.0),
        "head": (pytest.approx(3e-4), 0.1),
        "head/no_decay": (pytest.approx(3e-4), 0.0),
    }


def test_head_leaves_the_encoder_alone(net):
    everything = trainable(net)
    freeze(net, "head")
    assert trainable(net) == {name for name in everything if "classifier" in name}
    assert {group["name"] for group in parameter_groups(net, lr=1, head_lr_multiplier=2, weight_decay=0)} == {
        "head",
        "head/no_decay",
    }


def test_partial_freezes_embeddings_and_the_first_layers(net):
    freeze(net, "partial", layers=1)
    layers = encoder_layers(net)
    assert len(layers) == 2
    assert not any(parameter.requires_grad for parameter in layers[0].parameters())
    assert all(parameter.requires_grad for parameter in layers[1].parameters())
    assert not net.get_input_embeddings().weight.requires_grad


def test_more_layers_than_there_are_is_refused(net):
    with pytest.raises(ConfigError, match=r"finetune\.layers=3: the encoder has 2 layers"):
        freeze(net, "partial", layers=3)


def test_counts(net):
    total = sum(parameter.numel() for parameter in net.parameters())
    assert parameter_counts(net) == {"total": total, "trainable": total}
    freeze(net, "head")
    assert parameter_counts(net)["trainable"] < total / 4


def names_in(net, group):
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in net.named_parameters() if id(parameter) in ids}


def part_of(name):
    """Where a parameter of the three architectures lies, read off its name."""
    if "classifier" in name:
        return "head"
    if "embeddings" in name:
        return "embeddings"
    return "lower" if ".layer.0." in name else "upper"  # a pooler is part of the upper layer's


def test_each_layer_learns_slower_than_the_one_above_it(net):
    groups = parameter_groups(net, lr=1e-4, head_lr_multiplier=3.0, weight_decay=0.1, layer_decay=0.5)
    expected = {"encoder/embeddings": 2.5e-5, "encoder/layer_00": 5e-5, "encoder/layer_01": 1e-4, "head": 3e-4}
    decayed = {name: (pytest.approx(lr), 0.1) for name, lr in expected.items()}
    undecayed = {f"{name}/no_decay": (pytest.approx(lr), 0.0) for name, lr in expected.items()}
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == decayed | undecayed


def test_with_layer_decay_every_weight_is_in_the_group_of_its_place(net):
    groups = parameter_groups(net, lr=1, head_lr_multiplier=1, weight_decay=0, layer_decay=0.9)
    places = {"embeddings": "encoder/embeddings", "lower": "encoder/layer_00", "upper": "encoder/layer_01"}
    found = {name: group["name"].removesuffix("/no_decay") for group in groups for name in names_in(net, group)}
    assert found == {name: places.get(part_of(name), "head") for name, _parameter in net.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(found)


def test_what_an_encoder_has_between_embeddings_and_layers_learns_with_the_embeddings():
    from transformers import ElectraConfig, ElectraForSequenceClassification

    config = ElectraConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    net = ElectraForSequenceClassification(config)
    groups = parameter_groups(net, lr=1, head_lr_multiplier=1, weight_decay=0, layer_decay=0.5)
    embeddings = next(group for group in groups if group["name"] == "encoder/embeddings")
    assert "electra.embeddings_project.weight" in names_in(net, embeddings)


def test_frozen_weights_are_grouped_only_where_asked_for(net):
    freeze(net, "gradual")
    options = {"lr": 1.0, "head_lr_multiplier": 1.0, "weight_decay": 0.1}
    names = {group["name"] for group in parameter_groups(net, **options)}
    assert names == {"head", "head/no_decay"}
    groups = parameter_groups(net, **options, include_frozen=True)
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_gradual_starts_with_the_head_and_releases_a_layer_per_epoch(net):
    freeze(net, "gradual")
    learning = [{part_of(name) for name in trainable(net)}]
    for epoch in range(4):
        release(net, num_released_layers(epoch, num_layers=2))
        learning.append({part_of(name) for name in trainable(net)})
        assert trainable(net) == {name for name, _ in net.named_parameters() if part_of(name) in learning[-1]}
    everything = {"embeddings", "lower", "upper", "head"}
    assert learning == [{"head"}, {"head"}, {"head", "upper"}, everything, everything]


def test_fewer_released_layers_freeze_the_others_again(net):
    release(net, 2)
    release(net, 0)
    assert {part_of(name) for name in trainable(net)} == {"head"}


def test_an_optimiser_leaves_what_is_not_released_alone(net):
    freeze(net, "gradual")
    groups = parameter_groups(net, lr=0.1, head_lr_multiplier=1, weight_decay=0.1, include_frozen=True)
    optimizer = torch.optim.AdamW(groups, fused=True)
    changed = []
    for num_layers in (0, 1):
        release(net, num_layers)
        before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        optimizer.zero_grad()
        net(input_ids=torch.tensor([[2, 5, 3]])).logits[:, 0].sum().backward()
        optimizer.step()
        changed.append({part_of(n) for n, parameter in net.named_parameters() if not torch.equal(parameter, before[n])})
    assert changed == [{"head"}, {"head", "upper"}]
