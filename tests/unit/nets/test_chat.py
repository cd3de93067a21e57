"""Which tokens a model learns to write, exactly, for each form of conversation and each template."""

import numpy as np
import pytest

from doctune.corpus.instruction_tokens import learnt_tokens, tokenise_conversations
from doctune.errors import ArtifactError
from doctune.nets.chat import padding_id, template_of
from doctune.text.chat import Message, PlainTemplate, TemplateRefusedError, render

PAIR = (Message("user", "Is it late?"), Message("assistant", "Very late — nearly 12 😀."))
TURNS = (
    Message("system", "Be brief."), Message("user", "What is it?"), Message("assistant", "Five."), *PAIR,
)  # fmt: skip


def pieces(tokenizer, messages, cache):
    """What is learnt of each sequence, as text, beside the whole sequence."""
    tokens = tokenise_conversations(cache, tokenizer.backend_tokenizer, 512, [render(messages, template_of(tokenizer))])
    sequences = [tokens.sequence(number) for number in tokens.of(0)]
    return [(tokenizer.decode(each.ids[each.learns]), tokenizer.decode(each.ids)) for each in sequences]


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("plain", PAIR, [("Very late — nearly 12 😀.</s>",
            "### User:\nIs it late?\n\n### Assistant:\nVery late — nearly 12 😀.</s>")]),
        ("chat", PAIR, [("Very late — nearly 12 😀.</s>\n",
            "<s><|user|>\nIs it late?\n<|assistant|>\nVery late — nearly 12 😀.</s>\n")]),
        ("moving", PAIR, [(" Very late — nearly 12 😀.</s>",
            "<s>[INST] Is it late?[/INST] Very late — nearly 12 😀.</s>")]),
        ("plain", TURNS, [("Five.</s>Very late — nearly 12 😀.</s>",
            "### System:\nBe brief.\n\n### User:\nWhat is it?\n\n### Assistant:\nFive.</s>\n\n"
            "### User:\nIs it late?\n\n### Assistant:\nVery late — nearly 12 😀.</s>")]),
        ("chat", TURNS, [("Five.</s>\nVery late — nearly 12 😀.</s>\n",
            "<s><|system|>\nBe brief.\n<|user|>\nWhat is it?\n<|assistant|>\nFive.</s>\n"
            "<|user|>\nIs it late?\n<|assistant|>\nVery late — nearly 12 😀.</s>\n")]),
        ("moving", TURNS, [
            (" Five.</s>", "<s>[INST] Be brief. What is it?[/INST] Five.</s>"),
            (" Very late — nearly 12 😀.</s>",
             "<s>[INST] What is it?[/INST] Five.</s>[INST] Be brief. Is it late?[/INST] Very late — nearly 12 😀.</s>"),
        ]),
    ],
)  # fmt: skip
def test_completions_are_learnt_to_the_token_and_nothing_else(chat_tokenizer, name, messages, expected, tmp_path):
    assert pieces(chat_tokenizer(name), messages, tmp_path) == expected


def test_what_stands_before_a_completion_is_what_a_prompt_shows(chat_tokenizer, tmp_path):
    for name in ("plain", "chat", "moving"):
        tokenizer = chat_tokenizer(name)
        template = template_of(tokenizer)
        prompt = tokenizer(template(PAIR[:1], for_answer=True), add_special_tokens=False)["input_ids"]
        rendered = [render(PAIR, template)]
        sequence = tokenise_conversations(tmp_path, tokenizer.backend_tokenizer, 512, rendered).sequence(0)
        assert sequence.ids[~sequence.learns].tolist()[: len(prompt)] == prompt, name


def test_a_token_that_reaches_into_a_completion_is_learnt_and_the_first_of_all_never():
    assert learnt_tokens([(0, 3), (3, 6), (6, 9), (9, 12)], [(5, 9)]).tolist() == [False, True, True, False]
    assert learnt_tokens([(0, 3), (3, 6)], [(0, 6)]).tolist() == [False, True]


def test_sequences_are_cut_when_they_are_read_and_kept_whole(chat_tokenizer, tmp_path):
    tokenizer = chat_tokenizer()
    rendered = [render(PAIR, template_of(tokenizer)), (), render(TURNS, template_of(tokenizer))]
    whole = tokenise_conversations(tmp_path, tokenizer.backend_tokenizer, 512, rendered)
    cut = tokenise_conversations(tmp_path, tokenizer.backend_tokenizer, 30, rendered)
    assert cut.folder == whole.folder
    assert [len(whole.of(number)) for number in range(3)] == [1, 0, 1]
    assert cut.full_lengths().tolist() == whole.lengths().tolist()
    assert cut.lengths().tolist() == [30, 30]
    for number in range(2):
        sequence = cut.sequence(number)
        assert np.array_equal(sequence.ids, whole.sequence(number).ids[:30])
        assert cut.num_learnt()[number] == sequence.learns.sum()


def test_a_chat_template_says_why_it_refuses(chat_tokenizer):
    template = template_of(chat_tokenizer("moving"))
    with pytest.raises(TemplateRefusedError, match=r"^the chat template refuses it: roles must alternate$"):
        template([Message("user", "a"), Message("user", "b")], for_answer=True)


def test_the_plain_template_begins_as_the_tokenizer_does(chat_tokenizer):
    tokenizer = chat_tokenizer("plain")
    assert template_of(tokenizer) == PlainTemplate("", "</s>")  # it has <s>, and sets it before nothing


def test_a_tokenizer_without_an_end_is_refused_and_one_without_padding_pads_with_the_end(chat_tokenizer):
    tokenizer = chat_tokenizer()
    assert padding_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.pad_token = "."
    assert padding_id(tokenizer) == tokenizer.convert_tokens_to_ids(".")
    tokenizer.eos_token, tokenizer.name_or_path = None, "some/model"
    with pytest.raises(ArtifactError) as caught:
        template_of(tokenizer)
    assert str(caught.value) == (
        "The tokenizer of some/model has no end token (eos_token), so no answer would ever end. Name one in its "
        "tokenizer_config.json."
    )
