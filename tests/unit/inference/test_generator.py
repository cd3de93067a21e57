"""A tuned language model writes what transformers would write, prompt by prompt."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from doctune.errors import ArtifactError, ConfigError
from doctune.inference.artifact import GENERATION, Artifact, load_artifact
from doctune.inference.engine import load
from doctune.inference.generation import Sampling, complete, end_tokens
from doctune.inference.generator import load_generator
from doctune.labels import Labels
from doctune.text.extract import ExtractSettings

PROMPTS = ["Is it late?", "What is the sum of two and three?", "Hm?", "Be brief. " * 4, "x"]


@pytest.fixture(scope="module")
def writer(tiny_mistral, tmp_path_factory):
    """A model folder whose answers differ from prompt to prompt, and now and then end."""
    folder = tmp_path_factory.mktemp("writer") / "model"
    shutil.copytree(tiny_mistral, folder)
    net = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) if parameter.ndim > 1 else 0)
    net.save_pretrained(folder)
    Artifact(folder, GENERATION, Labels(()), 64, ExtractSettings()).save()
    return folder


def one_by_one(folder, prompts, count):
    """What transformers generates for each prompt alone, greedily."""
    net, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        out = net.generate(ids, do_sample=False, max_new_tokens=count, eos_token_id=1, pad_token_id=1)
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


def test_batched_prompts_get_what_each_would_get_alone(writer):
    generator = load_generator(writer, batch_size=3)
    found = generator.generate(PROMPTS, Sampling(20))
    assert [each.text for each in found] == one_by_one(writer, PROMPTS, 20)
    assert len({each.text for each in found}) == len(PROMPTS)


def test_an_answer_ends_with_its_end_token_or_at_the_limit(writer):
    net, tokenizer = AutoModelForCausalLM.from_pretrained(writer), AutoTokenizer.from_pretrained(writer)
    free = complete(net, tokenizer, ["What is"], Sampling(6))[0]
    assert (free.num_tokens, free.is_ended) == (6, False)
    ids = tokenizer("What is", return_tensors="pt")["input_ids"]
    third = net.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=1)[0, -1].item()
    net.generation_config.eos_token_id = [1, third]  # as models name the end of a turn beside that of a text
    assert end_tokens(net, tokenizer) == sorted({1, third})
    ended = complete(net, tokenizer, ["What is"], Sampling(6))[0]
    assert ended.is_ended
    assert ended.num_tokens <= 3


def test_a_completion_ends_where_the_window_does(writer):
    net, tokenizer = AutoModelForCausalLM.from_pretrained(writer), AutoTokenizer.from_pretrained(writer)
    length = len(tokenizer("What is")["input_ids"])
    assert complete(net, tokenizer, ["What is"], Sampling(9), window=length + 2)[0].num_tokens == 2
    assert complete(net, tokenizer, ["What is"], Sampling(9), window=length)[0].text == ""
    assert complete(net, tokenizer, [], Sampling(9)) == []


def test_a_temperature_draws_and_nothing_else_does(writer):
    generator = load_generator(writer)
    greedy = {generator.generate(["Hm?"], Sampling(12))[0].text for _ in range(2)}
    drawn = {generator.generate(["Hm?"], Sampling(12, temperature=5.0))[0].text for _ in range(3)}
    assert (len(greedy), len(drawn)) == (1, 3)


def test_a_prompt_without_room_for_an_answer_is_refused(writer):
    with pytest.raises(ConfigError) as caught:
        load_generator(writer).generate(["late " * 100], Sampling(20))
    assert str(caught.value).endswith(
        "tokens, and with 20 new ones the model reads at most 128. Shorten the prompt, or ask for fewer new tokens."
    )


def test_a_model_that_writes_is_not_asked_for_labels_and_one_that_labels_not_for_text(writer, tiny_model):
    with pytest.raises(ArtifactError) as caught:
        load(writer)
    assert str(caught.value) == (
        f"{writer} was tuned on instructions, so it writes text, and neither labels nor answers from documents, and is "
        f"not exported to ONNX: doctune generate {writer} --prompt TEXT."
    )
    with pytest.raises(ArtifactError) as caught:
        load_generator(tiny_model())
    assert str(caught.value) == (
        f"{tiny_model()} was trained for classification; text is written by a language model, which a run with "
        "data=instructions tunes."
    )
    assert load_artifact(writer).task == GENERATION
