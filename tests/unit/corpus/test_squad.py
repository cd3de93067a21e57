import json
import re
from copy import deepcopy

import pytest

from doctune.corpus.squad import read_squad
from doctune.errors import DataError

CONTEXT = "The mill was built in 1802. It burnt down twice."


def answer(text="1802", start=22):
    return {"text": text, "answer_start": start}


def question(name="q1", text="When was it built?", **fields):
    return {"id": name, "question": text, "answers": [answer()], **fields}


def squad(*questions, context=CONTEXT, title="Mill", version="1.1"):
    return {"version": version, "data": [{"title": title, "paragraphs": [{"context": context, "qas": [*questions]}]}]}


@pytest.fixture
def read(tmp_path):
    """A function: a document, or the bytes of a file -> what is read of it."""

    def write_and_read(content):
        path = tmp_path / "file.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_squad(path)

    return write_and_read


@pytest.fixture
def message(read, tmp_path):
    """A function: a document that cannot be read -> the sentence, without the folder."""

    def refused(content):
        with pytest.raises(DataError) as caught:
            read(content)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def rejections(found):
    return [(row.id, row.article, row.status, row.reason) for row in found.rejected]


# --- questions ---------------------------------------------------------------------------------------------------


def test_all_references_are_kept_and_the_first_is_placed(read):
    found = read(squad(question(answers=[answer(), answer("in 1802", 19), answer()])))
    (only,) = found.questions
    assert (only.id, only.article, only.context, only.text) == ("q1", "Mill", CONTEXT, "When was it built?")
    assert only.answers == ("1802", "in 1802", "1802")
    assert only.context[only.start :].startswith("1802")
    assert (only.is_impossible, only.is_trainable) == (False, True)
    assert (found.version, found.rejected, found.misaligned) == ("1.1", (), {})


def test_questions_of_a_paragraph_share_its_context(read):
    first, second = read(squad(question("a"), question("b"))).questions
    assert first.context is second.context


def test_an_impossible_question_has_no_answers(read):
    plausible = question(answers=[], is_impossible=True, plausible_answers=[answer()])
    found = read(squad(plausible, question("q2", is_impossible=False), version="v2.0"))
    impossible, possible = found.questions
    assert (impossible.answers, impossible.start, impossible.is_impossible, impossible.is_trainable) == (
        (),
        None,
        True,
        True,
    )
    assert (possible.answers, possible.is_impossible) == (("1802",), False)
    assert found.version == "2.0"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([answer("1802", 21)], "at character 21 stands ' 180', not '1802'"),
        ([answer("1802", -26)], "answer_start is -26, but the context has 48 characters"),
        ([answer("1802", 900)], "answer_start is 900, but the context has 48 characters"),
        ([answer("", 3), answer()], "its first answer is empty"),
        ([answer("x" * 99, 0)], f"at character 0 stands {CONTEXT!r}, not '{'x' * 59}…'"),
    ],
)
def test_a_misaligned_answer_can_be_judged_by_its_text_alone(read, answers, reason):
    found = read(squad(question(answers=answers)))
    (only,) = found.questions
    assert only.answers == tuple(each["text"] for each in answers)
    assert (only.start, only.is_trainable) == (None, False)
    assert found.misaligned == {"q1": reason}


def test_offsets_count_characters_not_bytes(read):
    found = read(squad(question(answers=[answer("ü𝄞", 3)]), context="äöß" + "ü𝄞"))
    assert (found.questions[0].start, found.misaligned) == (3, {})


def test_contexts_of_a_hundred_thousand_characters_are_read(read):
    context = "word " * 20_000 + "goal"
    (only,) = read(squad(question(answers=[answer("goal", 100_000)]), context=context)).questions
    assert (len(only.context), only.start) == (100_004, 100_000)


def test_whole_numbers_do_as_ids_and_titles(read):
    (only,) = read(squad(question(7), title=1984)).questions
    assert (only.id, only.article) == ("7", "1984")


def test_an_article_without_a_title_is_named_after_its_first_context(read):
    document = squad(question())
    named = []
    for title in ("", None):
        document["data"][0]["title"] = title
        named.append(read(document).questions[0].article)
    del document["data"][0]["title"]
    named.append(read(document).questions[0].article)
    assert named == ["untitled-03a08567"] * 3


def test_content_tells_apart_all_that_a_model_is_shown_and_judged_by(read):
    def content(**changes):
        context = changes.pop("context", CONTEXT)
        return read(squad(question(**changes), context=context)).questions[0].content

    others = [
        content(text="When?"),
        content(context=CONTEXT + " "),
        content(answers=[answer(), answer()]),
        content(answers=[answer("1802", 23)]),
        content(answers=[], is_impossible=True),
    ]
    assert len({content(), *others}) == 6
    assert content(name="other") == content()
    assert re.fullmatch("[0-9a-f]{64}", content())


# --- rejected questions ------------------------------------------------------------------------------------------


WHERE = "article 1, paragraph 1, question 2"


@pytest.mark.parametrize(
    ("bad", "status", "reason"),
    [
        (question("q1"), "duplicate_id", f"{WHERE}: an earlier question has the same id"),
        ({"id": "q2", "answers": []}, "missing_field", f"{WHERE} has no 'question'"),
        ({"id": "q2", "question": "Why?"}, "missing_field", f"{WHERE} has no 'answers'"),
        (question("q2", answers=[{"text": "1802"}]), "missing_field", f"{WHERE}, answer 1 has no 'answer_start'"),
        (question("q2", answers=[{"answer_start": 2}]), "missing_field", f"{WHERE}, answer 1 has no 'text'"),
        (question("q2", text=7), "wrong_type", f"{WHERE}: 'question' is a number where text belongs"),
        (question("q2", answers={}), "wrong_type", f"{WHERE}: 'answers' is an object where a list belongs"),
        (question("q2", answers=["1802"]), "wrong_type", f"{WHERE}, answer 1 is text where an object belongs"),
        (
            question("q2", answers=[answer("1802", "22")]),
            "wrong_type",
            f"{WHERE}, answer 1: 'answer_start' is text where a whole number belongs",
        ),
        (
            question("q2", answers=[answer("1802", True)]),
            "wrong_type",
            f"{WHERE}, answer 1: 'answer_start' is true or false where a whole number belongs",
        ),
        (
            question("q2", is_impossible="no"),
            "wrong_type",
            f"{WHERE}: 'is_impossible' is text where true or false belongs",
        ),
        (question("q2", text=" \n"), "empty_question", f"{WHERE} has an empty 'question'"),
        (question("q2", answers=[]), "no_answer", f"{WHERE} has no answer, and is not marked as impossible"),
        (
            question("q2", answers=[answer(" ", 3)]),
            "no_answer",
            f"{WHERE} has only empty answers, and is not marked as impossible",
        ),
        (
            question("q2", is_impossible=True),
            "contradiction",
            f"{WHERE} is marked as impossible, yet has an answer",
        ),
        (
            question("q2", text="Why \ud800?"),
            "not_text",
            f"{WHERE}: 'question' has half a surrogate pair at character 4, which is no character",
        ),
    ],
)
def test_a_question_that_cannot_be_used_has_a_status_and_a_reason(read, bad, status, reason):
    found = read(squad(question("q1"), bad))
    assert [each.id for each in found.questions] == ["q1"]
    assert rejections(found) == [(bad["id"], "Mill", status, reason)]


@pytest.mark.parametrize(
    ("bad", "status", "reason"),
    [
        ({"question": "Why?", "answers": []}, "missing_field", f"{WHERE} has no 'id'"),
        (question(""), "missing_field", f"{WHERE} has an empty 'id'"),
        (question(True), "wrong_type", f"{WHERE}: 'id' is true or false where text belongs"),
        ("Why?", "wrong_type", f"{WHERE} is text where an object belongs"),
    ],
)
def test_a_question_without_an_id_is_known_by_its_place(read, bad, status, reason):
    assert rejections(read(squad(question("q1"), bad))) == [(WHERE, "Mill", status, reason)]


def test_what_spoils_a_paragraph_is_said_of_each_of_its_questions(read):
    document = squad(question("q1"))
    paragraphs = document["data"][0]["paragraphs"]
    paragraphs += [{"qas": [question("q2"), question("q3")]}, {"context": " ", "qas": [question("q4")]}]
    assert rejections(read(document)) == [
        ("q2", "Mill", "missing_field", "article 1, paragraph 2 has no 'context'"),
        ("q3", "Mill", "missing_field", "article 1, paragraph 2 has no 'context'"),
        ("q4", "Mill", "empty_context", "article 1, paragraph 3 has an empty 'context'"),
    ]


def test_what_hides_its_questions_is_one_row(read):
    document = squad(question("q1"))
    document["data"][0]["paragraphs"] += [{"context": CONTEXT}, 5]
    document["data"] += [{"title": "Empty"}, "Mill", {"title": "None", "paragraphs": []}]
    assert rejections(read(document)) == [
        ("article 1, paragraph 2", "Mill", "missing_field", "article 1, paragraph 2 has no 'qas'"),
        ("article 1, paragraph 3", "Mill", "wrong_type", "article 1, paragraph 3 is a number where an object belongs"),
        ("article 2", "", "missing_field", "article 2 has no 'paragraphs'"),
        ("article 3", "", "wrong_type", "article 3 is text where an object belongs"),
    ]


def test_a_title_that_is_no_text_is_said_of_each_question(read):
    document = squad(question("q1"))
    document["data"].append(deepcopy(document["data"][0]) | {"title": ["Mill"]})
    found = rejections(read(document))
    assert [(row[0], *row[2:]) for row in found] == [
        ("q1", "wrong_type", "article 2: 'title' is a list where text belongs")
    ]


# --- the file as a whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "version"),
    [("1.0", "1.1"), ("1.1", "1.1"), ("v1.1", "1.1"), (1.1, "1.1"), ("2.0", "2.0"), ("v2.0", "2.0"), (2, "2.0")],
)
def test_versions_are_those_of_squad(read, written, version):
    assert read(squad(question(), version=written)).version == version


def test_without_a_version_the_questions_tell(read):
    assert read({"data": squad(question())["data"]}).version == "1.1"
    assert read({"data": squad(question(is_impossible=False))["data"]}).version == "2.0"


def test_in_version_2_a_question_without_answers_is_impossible_unless_it_says_otherwise(read):
    found = read(squad(question("a", answers=[]), question("b", answers=[], is_impossible=False), version="2.0"))
    assert [(each.id, each.is_impossible) for each in found.questions] == [("a", True)]
    assert [(row.id, row.status) for row in found.rejected] == [("b", "no_answer")]


def test_a_byte_order_mark_is_no_part_of_the_file(read):
    assert len(read(b"\xef\xbb\xbf" + json.dumps(squad(question())).encode()).questions) == 1


LAYOUT = (
    'file.json is not a SQuAD file: it has no list "data" of articles at its top. The official layout is '
    '{"version": "1.1", "data": [{"title": …, "paragraphs": [{"context": …, "qas": […]}]}]}.'
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"data": [\n  1,,]}', "file.json is not JSON: line 2, column 5: Expecting value."),
        (b"", "file.json is not JSON: line 1, column 1: Expecting value."),
        (b'{"data": "M\xfchle"}', "file.json is not UTF-8 (byte 11: 0xfc); save it as UTF-8."),
        ([], LAYOUT),
        ({"data": {}}, LAYOUT),
        ({"version": "1.1", "data": []}, "file.json has no questions."),
        (
            squad(question(), version="3.1"),
            "file.json has version '3.1'; versions 1.1 and 2.0 of SQuAD can be read. If the layout is the same, write "
            "one of these there.",
        ),
        (
            squad(question(answers=[]), question("b", text="")),
            "None of the 2 questions of file.json can be used; the first: article 1, paragraph 1, question 1 has no "
            "answer, and is not marked as impossible.",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(message, content, sentence):
    assert message(content) == sentence


def test_lists_without_end_are_refused(message):
    assert message(b"[" * 200_000).startswith("file.json is not JSON that can be read: ")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=f"^There is no file of questions at {re.escape(str(tmp_path))}/none.json.$"):
        read_squad(tmp_path / "none.json")
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))} is a folder; name the JSON file of questions"):
        read_squad(tmp_path)


# --- real questions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "questions", "contexts", "articles"), [("train", 6603, 1238, 30), ("dev", 2080, 444, 8)]
)
def test_real_questions_are_all_used(real_data, name, questions, contexts, articles):
    path = real_data / "squad" / f"{name}.json"
    if not path.is_file():
        pytest.skip("no SQuAD among the real data")
    found = read_squad(path)
    assert (len(found.questions), found.rejected, found.misaligned) == (questions, (), {})
    assert len({id(each.context) for each in found.questions}) == contexts
    assert len({each.article for each in found.questions}) == articles
    assert all(each.context.startswith(each.answers[0], each.start) for each in found.questions)
