import re
import string
from collections import Counter

import pytest

from doctune.corpus.lexical import SentenceCounts, best_span, lexical_answers
from doctune.corpus.squad import Question, read_squad

FILLER = tuple(f"Nothing of note {word} in that quiet place." for word in (f"happened{n}" for n in range(60)))
CONTEXT = "The mill burnt down twice. It was rebuilt by Ada Verne Holt Quill, a smith. The owner sold it in 1850."


def question(text, context=CONTEXT):
    return Question("q", "Mill", context, text, ("-",), None, False)


def test_the_answer_is_a_rare_run_of_the_sentence_that_is_most_like_the_question():
    asked = [question("By whom was it rebuilt?"), question("When was it sold by the owner?")]
    assert lexical_answers(asked, FILLER) == ["Ada Verne Holt", "1850"]


def test_without_a_rare_run_it_is_the_sentence():
    assert lexical_answers([question("Who rebuilt it?")]) == ["It was rebuilt by Ada Verne Holt Quill, a smith."]
    assert lexical_answers([question("mill burnt down twice the", "The mill burnt down twice.")], FILLER) == [
        "The mill burnt down twice."
    ]


def test_of_equal_sentences_the_first_is_taken():
    assert lexical_answers([question("Why?", "One here. Two there.")]) == ["One here."]


def test_a_context_without_words_gives_no_answer():
    assert best_span("Why?", "…", SentenceCounts([])) == ""


def test_words_of_known_contexts_are_counted_once_per_context():
    counts = SentenceCounts(["A mill. A smith.", "A mill burnt."])
    assert counts.weight("a") < counts.weight("mill") < counts.weight("smith") == counts.weight("unknown")
    asked = [question("By whom was it rebuilt?")]
    assert lexical_answers(asked, [*FILLER, *FILLER, CONTEXT]) == lexical_answers(asked, FILLER)


def normalised(text):
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(answer, reference):
    answer, reference = normalised(answer), normalised(reference)
    common = sum((Counter(answer) & Counter(reference)).values())
    return 2 * common / (len(answer) + len(reference)) if common else float(answer == reference)


@pytest.mark.parametrize(("name", "expected_f1", "expected_exact"), [("train", 19.79, 9.19), ("dev", 18.81, 9.57)])
def test_on_real_questions_it_scores_what_its_docstring_says(real_data, name, expected_f1, expected_exact):
    path = real_data / "squad" / f"{name}.json"
    if not path.is_file():
        pytest.skip("no SQuAD among the real data")
    questions = read_squad(path).questions
    answers = lexical_answers(questions)
    pairs = list(zip(answers, questions, strict=True))
    mean_f1 = sum(max(f1(answer, each) for each in q.answers) for answer, q in pairs) / len(pairs)
    exact = sum(any(normalised(answer) == normalised(each) for each in q.answers) for answer, q in pairs) / len(pairs)
    assert (round(100 * mean_f1, 2), round(100 * exact, 2)) == (expected_f1, expected_exact)
