import pytest
import torch

from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config

LABELS = Labels(("x", "y", "z"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_classifier_starts_in_training_mode_with_the_pretrained_weights(tiny_encoder, kind):
    from transformers import AutoModel

    folder = str(tiny_encoder(kind))
    net = classifier(pretrained_config(folder), LABELS, folder)
    assert net.training
    assert all(module.training for module in net.modules())
    assert net.config.id2label == {0: "x", 1: "y", 2: "z"}
    pretrained = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    assert torch.equal(net.get_input_embeddings().weight, pretrained)
    assert net(input_ids=torch.tensor([[2, 5, 3]])).logits.shape == (1, 3)


def test_no_weights_means_random_ones(tiny_encoder):
    config = pretrained_config(str(tiny_encoder("distilbert")))
    first, second = (classifier(config, LABELS, None).get_input_embeddings().weight for _ in range(2))
    assert not torch.equal(first, second)


def test_missing_weights_are_named(tiny_encoder, tmp_path):
    config = pretrained_config(str(tiny_encoder("bert")))
    config.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=f"The weights of {tmp_path} cannot be loaded"):
        classifier(config, LABELS, str(tmp_path))
