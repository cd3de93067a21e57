import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest

from doctune.corpus import question_tokens
from doctune.corpus.question_tokens import NO_ANSWER, UNKNOWN, QuestionTokens, tokenise_questions
from doctune.corpus.squad import Question, read_squad
from doctune.text.questions import WindowSettings, question_windows
from doctune.text.vocabulary import learn_wordpiece

MILL = "The mill was built in 1802 and the mill burnt down in 1850 and in 1899"
SHORT = "Anna lives in Ulm"
SETTINGS = WindowSettings(14, 2, 4)  # eight tokens of context beside a question of three


def ask(number, text, answer, context=MILL):
    start = context.index(answer) if answer else None
    return Question(f"q{number}", "Mill", context, text, (answer,) if answer else (), start, is_impossible=not answer)


QUESTIONS = (
    ask(1, "When built it", "1802"),
    ask(2, "What burnt down", "the mill"),
    ask(3, "Where lives Anna", "Ulm", SHORT),
    ask(4, "Who lives where", "", SHORT),
    replace(ask(5, "Where lives Anna", "Ulm", SHORT), start=None),  # judged by its text
)


@pytest.fixture(scope="module")
def tokenizer():
    return learn_wordpiece([MILL, SHORT, "When it What Where Who where"] * 3, 200)


@pytest.fixture
def tokens(tokenizer, tmp_path):
    return tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)


def test_windows_come_back_as_they_were_cut(tokens, tokenizer):
    cut = question_windows(tokenizer, [(each.text, each.context) for each in QUESTIONS], SETTINGS)
    windows = [window for each in cut for window in each]
    assert len(tokens) == len(windows) == 9
    for number, window in enumerate(windows):
        found = tokens.window(number)
        for ours, theirs in zip((found.ids, found.types, found.places), vars(window).values(), strict=True):
            assert np.array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    assert tokens.questions.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 4]
    assert tokens.num_windows().tolist() == [3, 3, 1, 1, 1]
    assert tokens.lengths().tolist() == [14, 14, 10, 14, 14, 10, 10, 10, 10]
    assert tokens.num_context_tokens().tolist() == [8, 8, 4, 8, 8, 4, 4, 4, 4]


def test_targets_give_back_the_answers(tokens):
    found = []
    for number, (first, last) in enumerate(tokens.targets.tolist()):
        question, window = QUESTIONS[tokens.questions[number]], tokens.window(number)
        if first >= 0:
            found.append((question.id, question.context[window.places[first, 0] : window.places[last, 1]]))
        else:
            assert first == last
            found.append((question.id, {NO_ANSWER: "none", UNKNOWN: "unknown"}[first]))
    assert found == [
        ("q1", "1802"),
        ("q1", "none"),
        ("q1", "none"),
        ("q2", "none"),  # this window ends within the answer
        ("q2", "the mill"),
        ("q2", "none"),
        ("q3", "Ulm"),
        ("q4", "none"),
        ("q5", "unknown"),
    ]


def test_white_space_around_an_answer_is_no_part_of_it(tokenizer, tmp_path):
    context = f"  {SHORT}\n "
    whole, last = ask(1, "Where", context, context), ask(2, "Where", "Ulm\n ", context)
    tokens = tokenise_questions(tmp_path, tokenizer, SETTINGS, [whole, last])
    assert tokens.targets.tolist() == [[3, 6], [6, 6]]


def test_questions_are_cut_once(tokenizer, tmp_path, monkeypatch):
    first = tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
    monkeypatch.setattr(question_tokens, "question_windows", lambda *_: pytest.fail("cut again"))
    tokenizer.enable_truncation(3)  # state that somebody left behind is no part of the key
    tokenizer.enable_padding()
    again = tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
    assert again.folder == first.folder
    assert again.targets.tolist() == first.targets.tolist()


def test_a_use_is_noted_for_whoever_clears_the_cache(tokens, tokenizer, tmp_path):
    os.utime(tokens.folder, (0, 0))
    tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
    assert tokens.folder.stat().st_mtime > 1e9


def test_a_worker_process_gets_the_files_not_a_copy(tokens):
    packed = pickle.dumps(tokens)
    assert len(packed) < 400
    again = pickle.loads(packed)
    assert isinstance(again, QuestionTokens)
    assert again.window(4).ids.tolist() == tokens.window(4).ids.tolist()


def test_other_settings_tokenizers_or_questions_are_other_entries(tokenizer, tmp_path):
    other = learn_wordpiece([MILL] * 3, 100)
    first, *rest = QUESTIONS
    for each, settings, questions in (
        (tokenizer, SETTINGS, QUESTIONS),
        (other, SETTINGS, QUESTIONS),
        (tokenizer, replace(SETTINGS, max_length=15), QUESTIONS),
        (tokenizer, replace(SETTINGS, doc_stride=3), QUESTIONS),
        (tokenizer, replace(SETTINGS, max_question_length=5), QUESTIONS),
        (tokenizer, replace(SETTINGS, question_first=False), QUESTIONS),
        (tokenizer, SETTINGS, rest),
        (tokenizer, SETTINGS, [*rest, first]),
        (tokenizer, SETTINGS, [replace(first, text="When"), *rest]),
        (tokenizer, SETTINGS, [replace(first, start=None), *rest]),
        (tokenizer, SETTINGS, [replace(first, answers=("180",)), *rest]),
        (tokenizer, SETTINGS, [replace(first, context=f"{MILL}."), *rest]),
    ):
        tokenise_questions(tmp_path, each, settings, questions)
    assert len(list((tmp_path / "questions").iterdir())) == 12


def test_ids_and_articles_do_not_shape_windows(tokens, tokenizer, tmp_path):
    renamed = [replace(each, id=f"x{each.id}", article="Other") for each in QUESTIONS]
    assert tokenise_questions(tmp_path, tokenizer, SETTINGS, renamed).folder == tokens.folder


def test_questions_are_cut_in_batches_that_change_nothing(tokens, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(question_tokens, "_QUESTIONS_PER_BATCH", 2)
    again = tokenise_questions(tmp_path / "other", tokenizer, SETTINGS, QUESTIONS)
    for file in sorted(tokens.folder.iterdir()):
        assert (again.folder / file.name).read_bytes() == file.read_bytes()


def test_what_breaks_off_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(question_tokens, "_target", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)) == 9


@pytest.mark.parametrize("names", range(7))
def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(names, tokenizer, tmp_path, monkeypatch):
    """The process dies after so many of the six files have got their names."""
    child = os.fork()
    if child == 0:
        rename, renamed = type(tmp_path).replace, []

        def until_killed(self, target):
            if len(renamed) == names:
                os.kill(os.getpid(), signal.SIGKILL)
            renamed.append(target)
            return rename(self, target)

        monkeypatch.setattr(type(tmp_path), "replace", until_killed)
        tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
        os._exit(0)
    os.waitpid(child, 0)
    cuts = []
    monkeypatch.setattr(question_tokens, "question_windows", lambda *given: cuts.append(1) or question_windows(*given))
    tokens = tokenise_questions(tmp_path, tokenizer, SETTINGS, QUESTIONS)
    assert len(cuts) == (names < 6)
    assert tokens.num_windows().tolist() == [3, 3, 1, 1, 1]
    assert tokens.window(8).places[-2].tolist() == [14, 17]


def test_real_answers_are_given_back_by_some_window(real_data, tmp_path):
    path = real_data / "squad" / "dev.json"
    if not path.exists():
        pytest.skip("no SQuAD in the folder of real data")
    questions = read_squad(path).questions[:300]
    tokenizer = learn_wordpiece([question.context for question in questions], 4000)
    tokens = tokenise_questions(tmp_path, tokenizer, WindowSettings(192, 64, 32), questions)
    given_back = set()
    for number, (first, last) in enumerate(tokens.targets.tolist()):
        question, places = questions[tokens.questions[number]], tokens.window(number).places
        if first >= 0:
            shown = question.context[places[first, 0] : places[last, 1]]
            assert question.answers[0] in shown
            assert len(shown) < len(question.answers[0]) + 30  # a token is at most a word
            given_back.add(question.id)
    assert given_back == {question.id for question in questions if question.start is not None}
