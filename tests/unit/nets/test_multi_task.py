import copy
import json

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from doctune.corpus.targets import TargetSpec
from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.nets.encoder import Dropouts, pretrained_config, set_dropouts
from doctune.nets.encoder_weights import pretrained_encoder
from doctune.nets.frozen import keep_encoder_in_eval
from doctune.nets.multi_task import MultiTaskClassifier, MultiTaskSettings, multi_task_classifier
from doctune.nets.parameters import freeze, parameter_counts, parameter_groups

TARGETS = (
    TargetSpec("emotion", "multi", Labels(("joy", "anger", "fear", "none"))),
    TargetSpec("senti.ment", "single", Labels(("good", "bad"))),
)
LENGTHS = (12, 5, 9)
IDS = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(12) < torch.tensor(LENGTHS).unsqueeze(1)).long()


@pytest.fixture
def make(tiny_encoder):
    """A function: kind of encoder and settings -> a classifier without dropout unless asked for."""

    def build(kind="distilbert", vector="cls", dropout=0.0, weights=True, seed=0):
        folder = str(tiny_encoder(kind))
        config = pretrained_config(folder)
        set_dropouts(config, Dropouts(encoder=dropout))
        torch.manual_seed(seed)
        settings = MultiTaskSettings(vector, dropout)
        return multi_task_classifier(config, TARGETS, folder if weights else None, settings)

    return build


@pytest.mark.parametrize("vector", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_each_head_reads_the_same_vector_of_each_text(make, kind, vector):
    net = make(kind, vector)
    output = net(IDS, MASK)
    for row, length in enumerate(LENGTHS):
        alone = net.encoder(input_ids=IDS[row : row + 1, :length], attention_mask=torch.ones(1, length))
        hidden = alone.last_hidden_state[0]
        expected = hidden[0] if vector == "cls" else hidden.mean(dim=0)
        torch.testing.assert_close(output.vectors[row], expected, rtol=1e-4, atol=1e-5)
        for head, logits in zip(net.heads, output.logits, strict=True):
            torch.testing.assert_close(logits[row], head(expected), rtol=1e-4, atol=1e-5)
    assert [logits.shape for logits in output.logits] == [(3, 4), (3, 2)]


@pytest.mark.parametrize("vector", ["cls", "mean"])
def test_stored_vectors_give_the_same_logits_and_head_gradients(make, vector):
    net = make(vector=vector)
    freeze(net, "head")
    output = net(IDS, MASK)
    stored = net.forward_vectors(output.vectors)
    assert all(torch.equal(found, wanted) for found, wanted in zip(stored.logits, output.logits, strict=True))
    assert not output.vectors.requires_grad
    F.cross_entropy(stored.logits[1], torch.tensor([0, 1, 0])).backward()
    assert net.heads[1].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in net.encoder.parameters())


def test_it_begins_in_training_mode_with_dropout_in_encoder_and_heads(make):
    net = make(dropout=0.5)
    assert net.training
    assert net.encoder.training
    assert not torch.equal(net(IDS, MASK).logits[0], net(IDS, MASK).logits[0])
    keep_encoder_in_eval(net)
    first, second = net(IDS, MASK), net(IDS, MASK)
    assert torch.equal(first.vectors, second.vectors)
    assert not torch.equal(first.logits[0], second.logits[0])


@pytest.mark.parametrize("strategy", ["full", "partial", "head", "gradual"])
def test_strategies_freeze_the_encoder_and_never_the_heads(make, strategy):
    net = make()
    freeze(net, strategy, layers=1)
    heads = sum(parameter.numel() for parameter in net.heads.parameters())
    assert heads == (32 + 1) * 4 + (32 + 1) * 2
    learns = parameter_counts(net)["trainable"]
    if strategy in ("head", "gradual"):
        assert learns == heads
    elif strategy == "partial":
        last = sum(parameter.numel() for parameter in net.encoder.transformer.layer[1].parameters())
        assert learns == heads + last
    else:
        assert learns == parameter_counts(net)["total"]


def test_all_heads_are_in_the_head_groups(make):
    net = make()
    groups = parameter_groups(net, lr=1.0, head_lr_multiplier=5.0, weight_decay=0.1)
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "encoder": (1.0, 0.1),
        "encoder/no_decay": (1.0, 0.0),
        "head": (5.0, 0.1),
        "head/no_decay": (5.0, 0.0),
    }
    in_heads = {id(parameter) for group in groups if group["name"].startswith("head") for parameter in group["params"]}
    assert in_heads == {id(parameter) for parameter in net.heads.parameters()}


def test_no_weight_is_left_that_nothing_reads(make):
    for kind in ("distilbert", "bert", "roberta"):
        net = make(kind, "mean")
        sum(logits.sum() for logits in net(IDS, MASK).logits).backward()
        assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_a_saved_net_comes_back_bit_for_bit(make, tmp_path, kind):
    net = make(kind, "mean", dropout=0.2).eval()
    net.save_pretrained(tmp_path)
    again = MultiTaskClassifier.from_folder(tmp_path)
    assert (again.settings, again.targets, again.training) == (net.settings, TARGETS, False)
    for found, wanted in zip(again(IDS, MASK).logits, net(IDS, MASK).logits, strict=True):
        assert torch.equal(found, wanted)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "multi_task.json",
        "multi_task.safetensors",
    }
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    hidden = encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert torch.equal(hidden, net.encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state)


def test_what_is_saved_says_what_it_is(make, tmp_path):
    make(vector="mean").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "multi_task.json").read_text()) == {
        "schema": 1,
        "vector": "mean",
        "dropout": 0.0,
        "targets": [
            {"name": "emotion", "kind": "multi", "labels": ["joy", "anger", "fear", "none"]},
            {"name": "senti.ment", "kind": "single", "labels": ["good", "bad"]},
        ],
    }


def test_without_weights_it_begins_at_random(make):
    name = "encoder.transformer.layer.0.attention.q_lin.weight"
    net, other, pretrained = make(weights=False, seed=7), make(weights=False, seed=8), make(seed=7)
    assert not torch.equal(net.state_dict()[name], other.state_dict()[name])
    assert torch.equal(pretrained.state_dict()[name], make(seed=8).state_dict()[name])
    assert net(IDS, MASK).logits[0].shape == (3, 4)


@pytest.fixture
def saved(make, tmp_path):
    make().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi_task.json", r"multi_task\.json cannot be used: "),
        ("multi_task.safetensors", r"multi_task\.safetensors cannot be read: "),
        ("model.safetensors", r"The weights of .* cannot be loaded: "),
        ("config.json", r"The weights of .* cannot be loaded: "),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named(saved, name, message, damage):
    if damage == "missing":
        (saved / name).unlink()
    else:
        (saved / name).write_bytes((saved / name).read_bytes()[:40])
    with pytest.raises(ArtifactError, match=message):
        MultiTaskClassifier.from_folder(saved)


def test_files_that_do_not_fit_each_other_are_refused(saved):
    path = saved / "multi_task.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"targets": settings["targets"][:1]}))
    with pytest.raises(ArtifactError) as caught:
        MultiTaskClassifier.from_folder(saved)
    assert str(caught.value) == (
        f"{saved / 'multi_task.safetensors'} does not hold the weights that multi_task.json describes. "
        "Both are written together: copy the whole folder again."
    )
    path.write_text(json.dumps(settings | {"schema": 2}))
    with pytest.raises(ArtifactError, match="it has schema 2, and this doctune knows up to 1"):
        MultiTaskClassifier.from_folder(saved)
    path.write_text(json.dumps(settings | {"vector": "last"}))
    with pytest.raises(ArtifactError, match="vector='last' is not a choice: cls, mean"):
        MultiTaskClassifier.from_folder(saved)


def test_an_encoder_that_is_not_all_there_is_refused(saved):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    name = next(name for name in weights if "layer.1" in name)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, saved / "model.safetensors")
    with pytest.raises(ArtifactError, match=rf"lack 1 of the encoder, among them {name}"):
        pretrained_encoder(str(saved))


@pytest.mark.parametrize("targets", [(), (TARGETS[0], TARGETS[0])])
def test_no_target_and_two_of_one_name_are_refused(make, targets):
    encoder = make().encoder
    with pytest.raises(ValueError, match=r"there must be at least one, each with a name of its own\."):
        MultiTaskClassifier(encoder, targets, MultiTaskSettings())


def test_another_vector_is_refused():
    with pytest.raises(ValueError, match=r"vector='max' is not a choice: cls, mean\."):
        MultiTaskSettings("max")


def test_a_net_can_be_copied(make):
    net = make().eval()
    assert torch.equal(copy.deepcopy(net)(IDS, MASK).logits[0], net(IDS, MASK).logits[0])
