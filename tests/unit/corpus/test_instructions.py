import json

import pytest

from doctune.corpus.instructions import read_instructions
from doctune.errors import DataError
from doctune.text.chat import Message

GOOD = {"prompt": "Is it late?", "completion": "Very."}


@pytest.fixture
def read(tmp_path):
    def read_lines(*lines):
        path = tmp_path / "train.jsonl"
        rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(rows), encoding="utf-8")
        return read_instructions(path)

    return read_lines


@pytest.mark.parametrize(
    ("row", "form", "asked"),
    [
        (GOOD, "prompt", "Is it late?"),
        ({"question": "Is it late?", "answer": "Very."}, "question", "Is it late?"),
        ({"instruction": "Translate.", "input": "tard", "output": "Very."}, "instruction", "Translate.\n\ntard"),
        ({"instruction": "Is it late?", "input": " ", "output": "Very."}, "instruction", "Is it late?"),
        ({"instruction": "Is it late?", "input": None, "output": "Very."}, "instruction", "Is it late?"),
        ({"prompt": None, "question": "Is it late?", "answer": "Very."}, "question", "Is it late?"),
    ],
)
def test_the_form_of_each_line_is_found_by_its_keys(read, row, form, asked):
    (example,) = read(row).examples
    assert (example.form, example.place, example.reference) == (form, "train.jsonl:1", "Very.")
    assert example.messages == (Message("user", asked), Message("assistant", "Very."))


def test_a_file_may_mix_forms_and_chats_keep_their_turns(read):
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Late?"), ("assistant", "No.")]
    found = read({"messages": [{"role": role, "content": text} for role, text in turns]}, GOOD)
    assert [example.form for example in found.examples] == ["chat", "prompt"]
    assert found.examples[0].messages == tuple(Message(*turn) for turn in turns)
    assert found.examples[0].spoken == "Hi.\nHello.\nLate?\nNo."


def chat(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


USER, ASSISTANT = ("user", "Hi."), ("assistant", "Hello.")


@pytest.mark.parametrize(
    ("row", "status", "reason"),
    [
        ("not json", "malformed", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ({"prompt": "x"}, "missing_key", "it has 'prompt' and no 'completion'"),
        ({"output": "x", "input": "y"}, "missing_key", "it has 'output' and no 'instruction'"),
        (
            {"text": "x"},
            "missing_key",
            "its keys are 'text'; needed are messages; prompt and completion; instruction and output, with input if "
            "there is one; or question and answer",
        ),
        ({"prompt": " ", "completion": "x"}, "empty", "'prompt' has no text"),
        ({"prompt": "x", "completion": ""}, "empty", "'completion' has no text"),
        ({"question": "x", "answer": 42}, "wrong_type", "'answer' is a number where text belongs"),
        ({"instruction": "x", "input": [1], "output": "y"}, "wrong_type", "'input' is a list where text belongs"),
        (
            {"prompt": "\ud83d", "completion": "x"},
            "malformed",
            "'prompt' holds half of a surrogate pair, which is no character",
        ),
        ({"messages": "x"}, "wrong_type", "'messages' is text where a list belongs"),
        ({"messages": []}, "empty", "'messages' is an empty list"),
        ({"messages": ["x"]}, "wrong_type", "message 1 is text where an object belongs"),
        ({"messages": [{"role": "user"}]}, "missing_key", "message 1 has no 'content'"),
        (chat(USER, ("tool", "x")), "wrong_role", "message 2 has the role 'tool'; known are system, user, assistant"),
        (chat(USER, ("assistant", " ")), "empty", "message 2 (assistant) has no text"),
        (chat(USER), "wrong_turns", "its last turn is the user's; only the assistant's are learnt"),
        (chat(ASSISTANT), "wrong_turns", "nothing is asked before the assistant speaks"),
        (chat(("system", "x"), ASSISTANT), "wrong_turns", "nothing is asked before the assistant speaks"),
        (chat(("system", "x")), "wrong_turns", "nothing is asked before the assistant speaks"),
        (
            chat(USER, ("system", "x"), ASSISTANT),
            "wrong_turns",
            "message 2 is the system's, which only the first may be",
        ),
    ],
)  # fmt: skip
def test_a_rejected_line_is_listed_with_its_number_and_reason(read, row, status, reason):
    found = read(GOOD, row)
    assert len(found.examples) == 1
    (rejected,) = found.rejected
    assert (rejected.place, rejected.status, rejected.reason) == ("train.jsonl:2", status, f"line 2: {reason}")


def test_a_file_without_any_usable_line_is_refused(read, tmp_path):
    with pytest.raises(DataError) as caught:
        read({"prompt": "x"}, {"prompt": "y"})
    assert str(caught.value) == (
        f"None of the 2 rows of {tmp_path / 'train.jsonl'} can be used; the first: line 1: it has 'prompt' and no "
        "'completion'."
    )


def test_real_questions_are_read(real_data):
    found = read_instructions(real_data / "gsm8k/train.jsonl")
    assert (len(found.examples), len(found.rejected)) == (7473, 0)
    assert found.examples[0].reference.endswith("#### 72")
