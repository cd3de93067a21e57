import json
import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from doctune.corpus.targets import TargetSpec
from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.nets.adapter_files import load_transformer, save_net
from doctune.nets.adapters import AdapterSettings, adapt
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config
from doctune.nets.hierarchy import HierarchicalClassifier, HierarchySettings, hierarchical_classifier
from doctune.nets.multi_task import MultiTaskClassifier, MultiTaskSettings, multi_task_classifier
from doctune.nets.quantised import Quantisation

LABELS = Labels(("x", "y", "z"))
QUANTISATIONS = {"lora": None, "qlora": Quantisation()}
IDS = torch.tensor([[5, 7, 9, 11, 13, 8], [6, 8, 10, 12, 14, 9]])
MASK = torch.ones_like(IDS)


def adapted(net, strategy="lora"):
    """The net with adapters that say something."""
    adapt(net, AdapterSettings(4, 8, 0.1, quantisation=QUANTISATIONS[strategy]))
    torch.manual_seed(2)
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return net.eval()


def make_classifier(folder, strategy="lora"):
    return adapted(classifier(pretrained_config(str(folder)), LABELS, str(folder)), strategy)


def logits(net):
    with torch.inference_mode():
        return net(input_ids=IDS, attention_mask=MASK).logits


@pytest.fixture
def base(tiny_encoder, tmp_path):
    """A BERT that the test may change."""
    return shutil.copytree(tiny_encoder("bert", width=64), tmp_path / "base")


@pytest.fixture
def saved(base, tmp_path):
    """The folder of an adapter of it."""
    save_net(make_classifier(base), tmp_path / "model")
    return tmp_path / "model"


def load(folder):
    return load_transformer(folder, hf.AutoModelForSequenceClassification)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("strategy", QUANTISATIONS)
def test_what_is_saved_is_loaded_bit_for_bit(tiny_encoder, tmp_path, kind, strategy):
    net = make_classifier(tiny_encoder(kind, width=64), strategy)
    save_net(net, tmp_path)
    found = load(tmp_path)
    assert not found.training
    assert torch.equal(logits(found), logits(net))
    save_net(found, tmp_path / "again")
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == {
        p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()
    }


def test_the_folder_holds_the_adapter_and_the_head_alone(base, saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base.json", "config.json",
    ]  # fmt: skip
    tensors = load_file(saved / "adapter_model.safetensors")
    assert {name for name in tensors if "lora_" not in name} == {
        f"base_model.model.{name}"
        for name in ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias")
    }
    config = json.loads((saved / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (str(base), None, 4)
    assert json.loads((saved / "base.json").read_text())["quantised"] is None


def test_peft_itself_loads_it(base, saved):
    from peft import PeftModel

    stock = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    theirs = PeftModel.from_pretrained(stock, saved).eval()
    assert torch.allclose(logits(theirs), logits(load(saved)), rtol=0, atol=1e-6)


def test_a_causal_language_model_is_saved_without_its_output_embeddings(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = hf.MistralConfig(vocab_size=32, intermediate_size=64, sliding_window=None, **sizes)
    hf.MistralForCausalLM(config).save_pretrained(tmp_path / "base")
    net = adapted(hf.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="float32"), "qlora")
    save_net(net, tmp_path / "model")
    assert all("lora_" in name for name in load_file(tmp_path / "model/adapter_model.safetensors"))
    assert torch.equal(logits(load_transformer(tmp_path / "model", hf.AutoModelForCausalLM)), logits(net))


@pytest.mark.parametrize("strategy", QUANTISATIONS)
def test_nets_of_our_own_are_saved_with_an_adapter_for_an_encoder(base, tmp_path, strategy):
    config = pretrained_config(str(base))
    net = adapted(hierarchical_classifier(config, LABELS, str(base), HierarchySettings(4)), strategy)
    save_net(net, tmp_path / "chunks")
    found = HierarchicalClassifier.from_folder(tmp_path / "chunks")
    counts = torch.tensor([1, 1])
    with torch.inference_mode():
        assert torch.equal(found(IDS, MASK, counts).logits, net(IDS, MASK, counts).logits)
    targets = [TargetSpec("kind", "single", LABELS), TargetSpec("tags", "multi", Labels(("a", "b")))]
    several = adapted(
        multi_task_classifier(pretrained_config(str(base)), targets, str(base), MultiTaskSettings()), strategy
    )
    save_net(several, tmp_path / "several")
    with torch.inference_mode():
        pairs = zip(
            MultiTaskClassifier.from_folder(tmp_path / "several")(IDS, MASK).logits,
            several(IDS, MASK).logits,
            strict=True,
        )
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert not [*tmp_path.rglob("model.safetensors")][1:]  # the base's own


def test_a_base_without_a_pooler_is_no_matter_because_the_pooler_learns(base, tmp_path):
    weights = load_file(base / "model.safetensors")
    save_file({n: t for n, t in weights.items() if "pooler" not in n}, base / "model.safetensors", {"format": "pt"})
    net = make_classifier(base)
    save_net(net, tmp_path / "model")
    assert torch.equal(logits(load(tmp_path / "model")), logits(net))


def test_a_base_that_is_gone_is_said(base, saved):
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(ArtifactError) as refused:
        load(saved)
    assert str(refused.value) == (
        f"{saved} is an adapter of the model in {base}, and there is no such folder. Put that model back, or write "
        f"where it is now as base_model_name_or_path into {saved / 'adapter_config.json'}."
    )
    config = json.loads((saved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base.with_name("elsewhere"))
    (saved / "adapter_config.json").write_text(json.dumps(config))
    load(saved)


def test_another_base_in_its_place_is_noticed(base, saved):
    weights = load_file(base / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ArtifactError,
        match=r"is an adapter of other weights than those in .*base: their SHA-256 is [0-9a-f]{16}…, and it was "
        r"trained on [0-9a-f]{16}…\. Put the model that it was trained on back\.",
    ):
        load(saved)


def test_a_model_of_the_hub_that_cannot_be_reached_is_said(saved):
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "nobody/nothing"}))
    (saved / "base.json").write_text(json.dumps({"schema": 1, "sha256": None, "quantised": None}))
    with pytest.raises(
        ArtifactError,
        match=r"is an adapter of nobody/nothing, which cannot be loaded: .*`doctune export RUN --merge` makes a model",
    ):
        load(saved)


def test_weights_that_do_not_fit_are_refused(saved):
    tensors = load_file(saved / "adapter_model.safetensors")
    tensors.pop("base_model.model.classifier.bias")
    save_file(tensors, saved / "adapter_model.safetensors")
    with pytest.raises(ArtifactError) as refused:
        load(saved)
    assert str(refused.value) == (
        f"{saved / 'adapter_model.safetensors'} does not hold the weights that adapter_config.json describes. "
        "Both are written together: copy the whole folder again."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "adapter_config.json and base.json cannot be used: KeyError: 'schema'."),
        ('{"schema": 2}', "ValueError: it has schema 2, and this doctune knows up to 1."),
    ],
)
def test_a_damaged_or_newer_folder_is_refused(saved, text, sentence):
    (saved / "base.json").write_text(text)
    with pytest.raises(ArtifactError) as refused:
        load(saved)
    assert str(refused.value).endswith(sentence)


@pytest.mark.parametrize(("strategy", "library"), [("lora", "peft"), ("qlora", "bitsandbytes")])
def test_a_missing_library_is_said(base, tmp_path, monkeypatch, strategy, library):
    import importlib.util

    save_net(make_classifier(base, strategy), tmp_path / "model")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find(name))
    with pytest.raises(ArtifactError) as refused:
        load(tmp_path / "model")
    assert str(refused.value) == (
        f"{tmp_path / 'model'} is an adapter, and loading it needs {library}: pip install 'doctune[lora]', or run "
        f"`doctune export {tmp_path / 'model'} --merge` where that is installed."
    )


def test_an_adapter_is_no_base(saved):
    with pytest.raises(ArtifactError) as refused:
        pretrained_config(str(saved))
    assert str(refused.value) == (
        f"model.path={saved} holds an adapter, which is no whole model. Of a run, `doctune export RUN --merge` "
        "makes one: model.path=RUN/model/merged."
    )
