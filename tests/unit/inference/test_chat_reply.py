import math

import pytest

from doctune.inference.chat_reply import read_reply
from doctune.inference.stages import StageAnswer, no_answer
from doctune.labels import Labels

LABELS = Labels(("invoice", "letter", "order form"))


def reply(text, tokens=None, finish_reason="stop"):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    if tokens is not None:
        choice["logprobs"] = {"content": [{"token": token, "logprob": logprob} for token, logprob in tokens]}
    return {"choices": [choice]}


def read(*arguments, **options):
    return read_reply(reply(*arguments, **options), LABELS, assumed_confidence=0.5)


@pytest.mark.parametrize("text", ["letter", "  letter\n", '{"label": "letter"}'])
def test_a_label_alone_has_the_assumed_confidence(text):
    assert read(text) == StageAnswer("letter", 0.5)


def test_the_confidence_of_the_json_counts_before_the_assumed_one():
    assert read('{"label": "order form", "confidence": 0.75}') == StageAnswer("order form", 0.75)
    assert read('{"label": "letter", "confidence": null}') == StageAnswer("letter", 0.5)


def test_probabilities_of_tokens_are_multiplied_and_count_before_all_others():
    answer = read("order form", [("order", math.log(0.8)), (" form", math.log(0.5)), ("<end>", -9.0)])
    assert (answer.label, answer.score) == ("order form", pytest.approx(0.4))


def test_only_the_tokens_of_the_label_count_in_json():
    tokens = [('{"', -1.0), ("label", -1.0), ('": "', -1.0), ("let", math.log(0.9)), ('ter"', math.log(0.5))]
    answer = read('{"label": "letter", "confidence": 0.99}', [*tokens, (', "confidence": 0.99}', -1.0)])
    assert (answer.label, answer.score) == ("letter", pytest.approx(0.45))


@pytest.mark.parametrize(
    "tokens",
    [[], [("other", -0.1)], [("letter", 0.5)], [("letter", None)], [("letter", math.nan)], [(1, -0.1)]],
    ids=["none", "of another text", "above certain", "no number", "not finite", "no text"],
)
def test_probabilities_that_are_none_are_not_used(tokens):
    assert read("letter", tokens) == StageAnswer("letter", 0.5)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, "x", {"content": ["x"]}])
def test_odd_logprobs_are_not_used(logprobs):
    body = reply("letter")
    body["choices"][0]["logprobs"] = logprobs
    assert read_reply(body, LABELS, 0.5) == StageAnswer("letter", 0.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "answered 'foo', which is no label"),
        ("Letter", "answered 'Letter', which is no label"),
        ("letter.", "answered 'letter.', which is no label"),
        ("It is a letter", "answered 'It is a letter', which is no label"),
        ("", "answered '', which is no label"),
        ("x" * 100, f"answered '{'x' * 59}…', which is no label"),
        ('{"label": "foo"}', "answered 'foo', which is no label"),
        ('{"label": ["letter"]}', "answered '[\"letter\"]', which is no label"),
        ('{"label": "letter"', 'answered \'{"label": "letter"\', which is neither a label nor JSON'),
        (
            '{"label": "letter", "why": "x"}',
            'answered \'{"label": "letter", "why": "x"}\', which is JSON with other keys than label and confidence',
        ),
        ("{}", "answered '{}', which is JSON with other keys than label and confidence"),
        ('{"label": "letter", "confidence": 7}', "answered a confidence of '7', which is not between 0 and 1"),
        ('{"label": "letter", "confidence": "0.9"}', "answered a confidence of '0.9', which is not between 0 and 1"),
        ('{"label": "letter", "confidence": true}', "answered a confidence of 'true', which is not between 0 and 1"),
        ('{"label": "letter", "confidence": NaN}', "answered a confidence of 'NaN', which is not between 0 and 1"),
    ],
)
def test_anything_else_is_no_label_and_says_why(text, reason):
    assert read(text) == no_answer(reason)


def test_a_cut_answer_is_none_although_it_looks_like_a_label():
    assert read("letter", finish_reason="length").reason == "its answer did not end by itself (finish_reason 'length')"
    assert read("letter", finish_reason=None).label == "letter"


@pytest.mark.parametrize("body", [None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": ["x"]}, "letter"])
def test_another_body_than_a_chat_completion_is_no_answer(body):
    assert read_reply(body, LABELS, 0.5) == no_answer("answered without choices[0].message.content")


def test_an_answer_without_text_is_no_answer():
    assert read(None).reason == "answered without text"
