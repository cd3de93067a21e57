import pytest

from doctune.errors import ConfigError
from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config
from doctune.nets.parameters import encoder_layers, freeze, parameter_counts, parameter_groups


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
