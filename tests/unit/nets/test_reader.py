import pytest
import torch
from transformers import AutoModel, ViTConfig

from doctune.errors import ArtifactError
from doctune.nets.assemble import reader
from doctune.nets.encoder import pretrained_config


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_reader_starts_in_training_mode_with_the_pretrained_weights(tiny_encoder, kind):
    folder = str(tiny_encoder(kind))
    net = reader(pretrained_config(folder), folder)
    assert all(module.training for module in net.modules())
    pretrained = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    assert torch.equal(net.get_input_embeddings().weight, pretrained)
    output = net(input_ids=torch.tensor([[2, 5, 3], [2, 6, 3]]))
    assert output.start_logits.shape == output.end_logits.shape == (2, 3)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_no_weights_means_random_ones(tiny_encoder):
    config = pretrained_config(str(tiny_encoder("distilbert")))
    first, second = (reader(config, None).get_input_embeddings().weight for _ in range(2))
    assert not torch.equal(first, second)


def test_an_architecture_that_cannot_read_is_named():
    with pytest.raises(ArtifactError) as caught:
        reader(ViTConfig(), None)
    assert str(caught.value) == "transformers has no AutoModelForQuestionAnswering for a vit encoder."


def test_missing_weights_are_named(tiny_encoder, tmp_path):
    config = pretrained_config(str(tiny_encoder("bert")))
    config.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=f"The weights of {tmp_path} cannot be loaded"):
        reader(config, str(tmp_path))
