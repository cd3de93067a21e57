import copy
import json

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.nets import hierarchy
from doctune.nets.encoder import Dropouts, pretrained_config, set_dropouts
from doctune.nets.frozen import keep_encoder_in_eval
from doctune.nets.hierarchy import (
    HierarchicalClassifier,
    HierarchySettings,
    computed_tokens,
    hierarchical_classifier,
    parameter_groups,
    passes,
)
from doctune.nets.parameters import encoder_layers, freeze, parameter_counts, release

LABELS = Labels(("x", "y", "z"))
# Documents as the lengths of their chunks.
DOCUMENTS = ([12, 12, 12, 7], [5], [12, 3])
LENGTHS = [length for document in DOCUMENTS for length in document]
COUNTS = torch.tensor([len(document) for document in DOCUMENTS])
TARGETS = torch.tensor([0, 1, 2])
POOLINGS = ["attention", "mean", "max", "transformer"]


def make_chunks(lengths=LENGTHS):
    """Random chunks of these lengths: ids (C, T) and mask (C, T)."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    return ids * mask, mask


IDS, MASK = make_chunks()


@pytest.fixture
def make(tiny_encoder):
    """A function: settings -> a classifier that tells chunks well apart, without dropout unless asked for."""

    def build(kind="distilbert", dropout=0.0, chunks_per_pass=8, **settings):
        folder = str(tiny_encoder(kind))
        config = pretrained_config(folder)
        set_dropouts(config, Dropouts(encoder=dropout))
        torch.manual_seed(0)
        settings = HierarchySettings(**{"max_chunks": 6, "dropout": dropout, "num_layers": 2} | settings)
        net = hierarchical_classifier(config, LABELS, folder, settings, chunks_per_pass=chunks_per_pass)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(4 if parameter.ndim > 1 else 1)
        return net

    return build


def gradients(net, logits):
    net.zero_grad()
    F.cross_entropy(logits, TARGETS).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def padded_logits(net):
    """The straightforward computation: every document padded to max_chunks, everything encoded at once."""
    size, width = net.settings.max_chunks, IDS.shape[1]
    ids = torch.zeros(len(COUNTS), size, width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    mask[:, :, 0] = 1  # softmax over nothing is not a number
    start = 0
    for document, count in enumerate(COUNTS.tolist()):
        ids[document, :count], mask[document, :count] = IDS[start : start + count], MASK[start : start + count]
        start += count
    hidden = net.encoder(input_ids=ids.view(-1, width), attention_mask=mask.view(-1, width)).last_hidden_state
    if net.settings.vector == "cls":
        vectors = hidden[:, 0]
    else:
        vectors = torch.stack(
            [row[: int(m.sum())].mean(dim=0) for row, m in zip(hidden, mask.view(-1, width), strict=True)]
        )
    vectors = vectors.view(len(COUNTS), size, -1)
    return torch.stack(
        [net.head(pooled(net, vectors[place, :count])) for place, count in enumerate(COUNTS.tolist())]
    )  # (B, L)


def pooled(net, vectors):
    """One document's vectors (n, D) -> (D,)."""
    if net.positions is not None:
        vectors = vectors + net.positions.weight[: len(vectors)]
    kind, pooling = net.settings.pooling, net.pooling
    if kind == "mean":
        return vectors.mean(dim=0)
    if kind == "max":
        return vectors.max(dim=0).values
    if kind == "transformer":
        for layer in pooling.layers:
            vectors = layer(vectors.unsqueeze(0)).squeeze(0)
        vectors, pooling = pooling.norm(vectors), pooling.attention
    scores = pooling.score(torch.tanh(pooling.value(vectors)) * torch.sigmoid(pooling.gate(vectors)))  # (n, 1)
    return (scores.softmax(dim=0) * vectors).sum(dim=0)


@pytest.mark.parametrize("chunks_per_pass", [1, 3, 100])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_and_gradients_are_those_of_the_padded_computation(make, pooling, chunks_per_pass):
    net = make(pooling=pooling, chunks_per_pass=chunks_per_pass)
    logits = net(IDS, MASK, COUNTS).logits
    expected = padded_logits(net)
    assert expected.std(dim=0).min() > 1e-2  # the documents differ, so that equality says something
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    found = gradients(net, logits)
    for name, gradient in gradients(net, expected).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("kind", "vector"), [("bert", "mean"), ("roberta", "cls"), ("distilbert", "mean")])
def test_other_encoders_and_the_mean_of_tokens_are_those_of_the_padded_computation(make, kind, vector):
    net = make(kind, vector=vector, positions=False, chunks_per_pass=2)
    logits = net(IDS, MASK, COUNTS).logits
    expected = padded_logits(net)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    found = gradients(net, logits)
    assert all(gradient is not None for gradient in found.values())  # nothing is left that does not learn
    for name, gradient in gradients(net, expected).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_is_the_same_when_a_pass_is_computed_again(make, monkeypatch):
    net = make(dropout=0.3, chunks_per_pass=2)
    torch.manual_seed(3)
    output = net(IDS, MASK, COUNTS)
    found = gradients(net, output.logits)
    monkeypatch.setattr(hierarchy, "checkpoint", lambda encode, *inputs, use_reentrant: encode(*inputs))
    torch.manual_seed(3)
    expected = net(IDS, MASK, COUNTS)
    assert torch.equal(output.logits, expected.logits)
    for name, gradient in gradients(net, expected.logits).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert not torch.equal(net(IDS, MASK, COUNTS).logits, output.logits)  # there is dropout


def test_only_tokens_that_exist_are_computed(make):
    net = make(chunks_per_pass=3).eval()
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["attention_mask"]), with_kwargs=True)
    wide = [F.pad(each, (0, 20)) for each in (IDS, MASK)]  # the batch may be wider than its longest chunk
    net(*wide, COUNTS)
    assert [tuple(mask.shape) for mask in seen] == [(1, 3), (3, 12), (3, 12)]
    assert sum(len(mask) for mask in seen) == sum(COUNTS)
    assert sum(int(mask.sum()) for mask in seen) == sum(LENGTHS)
    assert computed_tokens(LENGTHS, 3) == sum(mask.numel() for mask in seen)


def test_chunks_of_one_length_need_no_padding():
    assert passes([8, 3, 8, 3, 8, 8], 2) == [[1, 3], [4, 5], [0, 2]]
    assert computed_tokens([8, 3, 8, 3, 8, 8], 2) == 38
    assert computed_tokens([8, 2], 2) == 16


@pytest.mark.parametrize("strategy", ["full", "partial", "head"])
def test_all_passes_but_the_last_are_computed_twice_and_only_where_the_encoder_learns(make, strategy):
    net = make(chunks_per_pass=2)
    freeze(net, strategy, layers=1)
    computed = []
    net.encoder.register_forward_pre_hook(lambda *_: computed.append(1))
    with torch.no_grad():
        net(IDS, MASK, COUNTS)
    assert len(computed) == 4
    gradients(net, net(IDS, MASK, COUNTS).logits)
    assert len(computed) == 4 + (4 if strategy == "head" else 4 + 3)


def kept_for_backward(net, documents):
    """Bytes that a forward in training keeps."""
    ids, mask = make_chunks([12] * sum(documents))
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(ids, mask, torch.tensor(documents))
    return sum(size for pointer, size in kept.items() if pointer not in weights)


def test_what_training_keeps_hardly_grows_with_the_chunks(make):
    net = make(chunks_per_pass=2, max_chunks=40)
    one, twenty = kept_for_backward(net, [1, 1]), kept_for_backward(net, [20, 20])
    net.chunks_per_pass = 40
    assert kept_for_backward(net, [20, 20]) > 15 * one
    assert twenty < 2 * one


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_do_not_depend_on_passes_neighbours_or_their_order(make, pooling):
    net = make(pooling=pooling).eval()
    expected = net(IDS, MASK, COUNTS)
    for net.chunks_per_pass in (1, 2, 5):
        output = net(IDS, MASK, COUNTS)
        for found, wanted in zip(output, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    order = [2, 0, 1]
    parts = [torch.arange(len(LENGTHS)).split(COUNTS.tolist())[document] for document in order]
    mixed = net(IDS[torch.cat(parts)], MASK[torch.cat(parts)], COUNTS[order])
    torch.testing.assert_close(mixed.logits, expected.logits[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed.vectors, expected.vectors[torch.cat(parts)], rtol=0, atol=1e-5)
    for place, part in enumerate(parts):
        alone = net(IDS[part], MASK[part], COUNTS[order][place : place + 1])
        torch.testing.assert_close(alone.logits[0], mixed.logits[place], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_one_chunk_beside_twenty(make, pooling):
    net = make(pooling=pooling, max_chunks=20).eval()
    ids, mask = make_chunks([12] * 21)
    output = net(ids, mask, torch.tensor([1, 20]))
    assert output.logits.shape == (2, 3)
    assert output.attention[0] == 1
    assert output.attention[1:].sum() == pytest.approx(1, abs=1e-6)
    alone = net(ids[:1], mask[:1], torch.tensor([1]))
    torch.testing.assert_close(output.logits[:1], alone.logits, rtol=0, atol=1e-5)


def test_attention_has_sum_one_in_each_document(make):
    for pooling in POOLINGS:
        output = make(pooling=pooling).eval()(IDS, MASK, COUNTS)
        sums = [float(part.sum()) for part in output.attention.split(COUNTS.tolist())]
        assert sums == pytest.approx([1, 1, 1], abs=1e-6)
        assert not output.attention.requires_grad
        assert not output.vectors.requires_grad


def test_attention_of_mean_is_even_and_of_max_counts_dimensions(make):
    mean = make(pooling="mean").eval()(IDS, MASK, COUNTS)
    assert mean.attention.tolist() == [0.25] * 4 + [1.0] + [0.5] * 2
    net = make(pooling="max", positions=False).eval()
    vectors = torch.zeros(7, 32)
    vectors[0, :8], vectors[2, 8:] = 1.0, 2.0  # of the first document's 32 dimensions
    vectors[6] = 1.0
    output = net.forward_vectors(vectors, COUNTS)
    assert output.attention.tolist() == [0.25, 0, 0.75, 0, 1, 0, 1]


def test_positions_tell_the_order_of_chunks_apart(make):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([3])
    for positions, is_same in ((True, False), (False, True)):
        net = make(positions=positions, pooling="transformer").eval()
        there, back = (net.forward_vectors(each, counts).logits for each in (vectors, vectors.flip(0)))
        assert torch.allclose(there, back, atol=1e-5) == is_same


@pytest.mark.parametrize("pooling", POOLINGS)
def test_stored_vectors_give_the_same_logits_and_head_gradients(make, pooling):
    net = make(pooling=pooling, dropout=0.2)
    freeze(net, "head")
    net.eval()
    output = net(IDS, MASK, COUNTS)
    stored = net.forward_vectors(output.vectors, COUNTS)
    for found, wanted in zip(stored, output, strict=True):
        assert torch.equal(found, wanted)
    whole, head = gradients(net, output.logits), gradients(net, stored.logits)
    assert {name for name, gradient in head.items() if gradient is None} == {
        name for name, _ in net.named_parameters() if name.startswith("encoder.")
    }
    assert all(torch.equal(head[name], whole[name]) for name in head if head[name] is not None)


def test_mixed_precision_gives_the_same_to_its_precision(make):
    for pooling in POOLINGS:
        net = make(pooling=pooling, chunks_per_pass=2)
        expected = net(IDS, MASK, COUNTS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = net(IDS, MASK, COUNTS)
        F.cross_entropy(output.logits.float(), TARGETS).backward()
        assert net.encoder.embeddings.word_embeddings.weight.grad.isfinite().all()
        assert (output.logits - expected.logits).abs().max() < 0.15 * expected.logits.abs().max()
        assert output.attention[:4].sum() == pytest.approx(1, abs=1e-6)


def test_layers_of_the_transformer_pooling_start_differently(make):
    first, second = make(pooling="transformer").pooling.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_it_starts_in_training_mode_with_the_pretrained_weights(tiny_encoder):
    folder = str(tiny_encoder("bert"))
    net = hierarchical_classifier(pretrained_config(folder), LABELS, folder, HierarchySettings(max_chunks=3))
    assert all(module.training for module in net.modules())
    assert net.config.id2label == {0: "x", 1: "y", 2: "z"}
    pretrained = AutoModel.from_pretrained(folder).state_dict()
    for name, tensor in net.encoder.state_dict().items():
        assert torch.equal(tensor, pretrained[name])
    keep_encoder_in_eval(net)
    assert [name for name, module in net.named_children() if module.training] == [
        "positions",
        "pooling",
        "dropout",
        "head",
    ]


def test_freezing_and_releasing_work_as_on_a_stock_model(make):
    net = make()
    assert len(encoder_layers(net)) == 2
    freeze(net, "gradual")
    assert {name.split(".")[0] for name, each in net.named_parameters() if each.requires_grad} == {
        "positions",
        "pooling",
        "head",
    }
    release(net, 1)
    learning = {name for name, each in net.named_parameters() if each.requires_grad}
    assert {name.split(".layer.")[1][0] for name in learning if name.startswith("encoder")} == {"1"}
    release(net, 3)
    counts = parameter_counts(net)
    assert counts["total"] == counts["trainable"]


def test_encoder_pooling_and_head_learn_at_their_own_rates(make):
    net = make()
    groups = parameter_groups(net, lr=2e-5, pooling_lr_multiplier=1.5, head_lr_multiplier=2.0, weight_decay=0.1)
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "encoder": (2e-5, 0.1),
        "encoder/no_decay": (2e-5, 0.0),
        "pooling": (pytest.approx(3e-5), 0.1),
        "pooling/no_decay": (pytest.approx(3e-5), 0.0),
        "head": (pytest.approx(4e-5), 0.1),
        "head/no_decay": (pytest.approx(4e-5), 0.0),
    }
    names = {id(parameter): name.split(".")[0] for name, parameter in net.named_parameters()}
    owners = {group["name"].split("/")[0]: set() for group in groups}
    for group in groups:
        owners[group["name"].split("/")[0]] |= {names[id(parameter)] for parameter in group["params"]}
    assert owners == {"encoder": {"encoder"}, "pooling": {"positions", "pooling"}, "head": {"head"}}
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(names)


def test_layer_decay_and_frozen_weights_are_passed_on(make):
    net = make(pooling="mean", positions=False)
    freeze(net, "gradual")
    options = {"lr": 1.0, "pooling_lr_multiplier": 1.0, "head_lr_multiplier": 1.0, "weight_decay": 0.1}
    assert {group["name"] for group in parameter_groups(net, **options)} == {"head", "head/no_decay"}
    groups = parameter_groups(net, **options, layer_decay=0.5, include_frozen=True)
    assert {group["name"]: group["lr"] for group in groups if "/no_decay" not in group["name"]} == {
        "encoder/embeddings": 0.25,
        "encoder/layer_00": 0.5,
        "encoder/layer_01": 1.0,
        "head": 1.0,
    }


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_saved_net_comes_back_bit_for_bit(make, tmp_path, kind, pooling):
    net = make(kind, pooling=pooling, vector="mean", dropout=0.2).eval()
    net.save_pretrained(tmp_path)
    again = HierarchicalClassifier.from_folder(tmp_path, chunks_per_pass=net.chunks_per_pass)
    assert (again.settings, again.labels, again.training) == (net.settings, LABELS, False)
    for found, wanted in zip(again(IDS, MASK, COUNTS), net(IDS, MASK, COUNTS), strict=True):
        assert torch.equal(found, wanted)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "hierarchy.json",
        "hierarchy.safetensors",
    }
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    hidden = encoder(input_ids=IDS[:1], attention_mask=MASK[:1]).last_hidden_state
    assert torch.equal(hidden, net.encoder(input_ids=IDS[:1], attention_mask=MASK[:1]).last_hidden_state)


def test_what_is_saved_says_what_it_is(make, tmp_path):
    make().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "hierarchy.json").read_text()) == {
        "schema": 1,
        "max_chunks": 6,
        "pooling": "attention",
        "vector": "cls",
        "positions": True,
        "num_layers": 2,
        "dropout": 0.0,
        "labels": ["x", "y", "z"],
        "num_labels": 3,
    }


@pytest.fixture
def saved(make, tmp_path):
    make().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hierarchy.json", r"hierarchy\.json cannot be used: "),
        ("hierarchy.safetensors", r"hierarchy\.safetensors cannot be read: "),
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
        HierarchicalClassifier.from_folder(saved)


def test_files_that_do_not_fit_each_other_are_refused(saved):
    path = saved / "hierarchy.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"max_chunks": 9}))
    with pytest.raises(ArtifactError, match=r"does not hold the weights that hierarchy\.json describes"):
        HierarchicalClassifier.from_folder(saved)
    path.write_text(json.dumps(settings | {"schema": 2}))
    with pytest.raises(ArtifactError, match="it has schema 2, and this doctune knows up to 1"):
        HierarchicalClassifier.from_folder(saved)
    path.write_text(json.dumps(settings | {"num_labels": 4}))
    with pytest.raises(ArtifactError, match="num_labels is not the number of its 3 labels"):
        HierarchicalClassifier.from_folder(saved)
    path.write_text(json.dumps(settings | {"pooling": "median"}))
    with pytest.raises(ArtifactError, match="pooling='median' is not a choice: attention, mean, max, transformer"):
        HierarchicalClassifier.from_folder(saved)


def test_an_encoder_that_is_not_all_there_is_refused(saved):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    name = next(name for name in weights if "layer.1" in name)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, saved / "model.safetensors")
    with pytest.raises(ArtifactError, match=rf"lack 1 of the encoder, among them {name}"):
        HierarchicalClassifier.from_folder(saved)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([7, 0], r"chunk_counts=\[7, 0\]: every document must have at least one chunk\."),
        ([], r"chunk_counts=\[\]: every document must have at least one chunk\."),
        ([4, 2], r"chunk_counts=\[4, 2\]: their sum is 6, but there are 7 chunks\."),
        ([7], r"chunk_counts=\[7\]: a document may have at most max_chunks=6 chunks\."),
    ],
)
def test_counts_that_do_not_fit_are_refused(make, counts, message):
    net = make()
    with pytest.raises(ValueError, match=message):
        net(IDS, MASK, torch.tensor(counts, dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        net.forward_vectors(torch.zeros(7, 32), torch.tensor(counts, dtype=torch.long))


def test_chunks_that_start_with_padding_are_refused(make):
    with pytest.raises(ValueError, match="A chunk starts with padding"):
        make()(IDS.flip(1), MASK.flip(1), COUNTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "median"}, "pooling='median' is not a choice: attention, mean, max, transformer."),
        ({"vector": "last"}, "vector='last' is not a choice: cls, mean."),
    ],
)
def test_other_choices_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HierarchySettings(max_chunks=2, **settings)


def test_no_chunk_at_once_is_refused(make):
    with pytest.raises(ValueError, match="chunks_per_pass=0: the encoder must read at least one chunk at once"):
        make(chunks_per_pass=0)


def test_a_net_can_be_copied(make):
    net = make().eval()
    assert torch.equal(copy.deepcopy(net)(IDS, MASK, COUNTS).logits, net(IDS, MASK, COUNTS).logits)
