import logging

import pytest

from doctune.errors import ArtifactError, ConfigError
from doctune.nets.encoder import Dropouts, max_window, pretrained_config, pretrained_tokenizer, set_dropouts


def test_the_hub_out_of_reach_names_the_model_and_three_ways_on():
    with pytest.raises(ArtifactError) as caught:
        pretrained_config("distilbert/distilbert-base-uncased")
    message = str(caught.value)
    assert "'distilbert/distilbert-base-uncased' is not on this machine and the hub was not reachable" in message
    for way in ("model.path=/path/to/model", "model=minilm", "model=distilbert_mini"):
        assert way in message


def test_the_hub_is_asked_in_one_line_and_its_attempts_are_not_shown(monkeypatch, caplog):
    def attempt(path):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s [Retry 5/5].")
        logging.getLogger("httpx").info("HTTP Request: HEAD")
        raise OSError("We couldn't connect to the hub.")

    monkeypatch.setattr("doctune.nets.encoder.AutoConfig.from_pretrained", attempt)
    monkeypatch.setattr("doctune.nets.encoder.constants.HF_HUB_OFFLINE", False)
    levels = [logging.getLogger(name).level for name in ("huggingface_hub", "httpx")]
    with caplog.at_level(logging.INFO), pytest.raises(ArtifactError, match="We couldn't connect to the hub"):
        pretrained_config("distilbert/distilbert-base-uncased")
    assert caplog.messages == [
        "Asking the hub for distilbert/distilbert-base-uncased; where it cannot be reached, this takes about half a "
        "minute."
    ]
    assert [logging.getLogger(name).level for name in ("huggingface_hub", "httpx")] == levels


def test_a_local_folder_is_not_asked_of_the_hub(tiny_encoder, caplog):
    with caplog.at_level(logging.INFO):
        pretrained_config(str(tiny_encoder("bert")))
    assert not [message for message in caplog.messages if "hub" in message]


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(path):
    with pytest.raises(ArtifactError, match=f"model.path={path}: there is no such folder"):
        pretrained_config(path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="the folder holds no model that transformers can read"):
        pretrained_config(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_named(tiny_encoder, tmp_path):
    (tmp_path / "config.json").write_text((tiny_encoder("bert") / "config.json").read_text())
    with pytest.raises(ArtifactError, match=r"has no tokenizer: none of tokenizer\.json, vocab\.txt"):
        pretrained_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "encoder_names", "head_name"),
    [
        ("bert", ["hidden_dropout_prob", "attention_probs_dropout_prob"], "classifier_dropout"),
        ("roberta", ["hidden_dropout_prob", "attention_probs_dropout_prob"], "classifier_dropout"),
        ("distilbert", ["dropout", "attention_dropout"], "seq_classif_dropout"),
    ],
)
def test_dropouts_reach_the_names_of_each_architecture(tiny_encoder, kind, encoder_names, head_name):
    config = pretrained_config(str(tiny_encoder(kind)))
    before = getattr(config, head_name)
    set_dropouts(config, Dropouts(encoder=0.4))
    assert [getattr(config, name) for name in encoder_names] == [0.4, 0.4]
    assert getattr(config, head_name) == before
    set_dropouts(config, Dropouts(head=0.7))
    assert getattr(config, head_name) == 0.7
    set_dropouts(config, Dropouts(encoder=0.3, attention=0.0))
    assert [getattr(config, name) for name in encoder_names] == [0.3, 0.0]


def test_an_architecture_without_such_dropout_refuses_the_knob():
    from transformers import MambaConfig

    with pytest.raises(ConfigError, match=r"model\.dropout=0\.2: a mamba encoder has no such dropout"):
        set_dropouts(MambaConfig(), Dropouts(encoder=0.2))


def test_robertas_window_is_two_shorter_than_its_table(tiny_encoder):
    assert max_window(pretrained_config(str(tiny_encoder("roberta")))) == 64
    assert max_window(pretrained_config(str(tiny_encoder("bert")))) == 64
