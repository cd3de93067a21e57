from doctune.corpus.question_lengths import analyse_lengths, describe_lengths
from doctune.corpus.question_tokens import tokenise_questions
from doctune.corpus.squad import Question
from doctune.text.questions import WindowSettings
from doctune.text.vocabulary import learn_wordpiece

LONG = "one two three four five six seven eight nine ten"
SHORT = "one two"


def test_lengths_count_questions_and_each_context_once(tmp_path):
    texts = ["who", "who what", "who what who what who", "who"]
    questions = [
        Question(str(number), "a", context, text, ("one",), 0, False)
        for number, (text, context) in enumerate(zip(texts, [LONG, SHORT, SHORT, SHORT], strict=True))
    ]
    tokenizer = learn_wordpiece([LONG, "who what"] * 3, 200)
    settings = WindowSettings(9, 2, 3)
    tokens = tokenise_questions(tmp_path, tokenizer, settings, questions)
    found = analyse_lengths(tokenizer, questions, tokens, settings)
    assert found == {
        "question": {"p50": 2, "p95": 5, "max": 5},  # 1, 1, 2, 5
        "context": {"p50": 6, "p95": 10, "max": 10},
        "windows_per_question": {"1": 3, "3": 1},
        "cut_questions": 1,
    }
    assert describe_lengths(found, settings) == (
        "Tokens: questions 2 (median), 95 % up to 5, the longest 5; contexts 6 (median), 95 % up to 10, the longest "
        "10. With windows of 9 that share 2, 75.0% of the questions take one window, the most take 3. "
        "1 question is cut after 3 tokens."
    )


def test_many_cut_questions_are_counted():
    lengths = {"p50": 1, "p95": 1, "max": 1}
    found = {"question": lengths, "context": lengths, "windows_per_question": {"1": 1}, "cut_questions": 1234}
    assert describe_lengths(found, WindowSettings()).endswith(" 1,234 questions are cut after 64 tokens.")


def test_nothing_is_said_of_cut_questions_where_there_are_none():
    found = {
        "question": {"p50": 11, "p95": 18, "max": 1234},
        "context": {"p50": 140, "p95": 250, "max": 4321},
        "windows_per_question": {"2": 1, "10": 1},
        "cut_questions": 0,
    }
    assert describe_lengths(found, WindowSettings()) == (
        "Tokens: questions 11 (median), 95 % up to 18, the longest 1,234; contexts 140 (median), 95 % up to 250, the "
        "longest 4,321. With windows of 384 that share 128, 0.0% of the questions take one window, the most take 10."
    )
