from itertools import pairwise

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from doctune.text.questions import QuestionWindow, WindowSettings, num_cut_questions, question_windows
from doctune.text.vocabulary import learn_wordpiece

WORDS = "one two three four five six seven eight nine ten"
EMOJI = "Bake 🍳 and 🧑‍🍳 with äöü. "


@pytest.fixture(scope="module")
def wordpiece():
    return learn_wordpiece([WORDS, "who what"] * 3, 200)


@pytest.fixture(scope="module")
def byte_level():
    """A function: whether offsets leave out the blank before a word -> RoBERTa's tokenizer, with its ids 0 and 2."""

    def make(trim_offsets=True):
        tokenizer = ByteLevelBPETokenizer(trim_offsets=trim_offsets)
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer.train_from_iterator([WORDS, f" {WORDS}"] * 3, 400, special_tokens=special)
        tokenizer.post_processor = RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=False
        )
        return tokenizer._tokenizer

    return make


@pytest.fixture(scope="module")
def context_first():
    """XLNet's order: the text, the question, and the token of the whole at the end."""
    tokenizer = learn_wordpiece([WORDS, "who what"] * 3, 200)
    tokenizer.post_processor = TemplateProcessing(
        single="$A [SEP] [CLS]", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    return tokenizer


def cut(tokenizer, question, context, *settings, question_first=True):
    (windows,) = question_windows(tokenizer, [(question, context)], WindowSettings(*settings, question_first))
    return windows


def places_of(window):
    """The places of the context's tokens."""
    return window.places[window.places[:, 0] >= 0].tolist()


def answer_of(window, context, text, occurrence=0):
    """The text that the target of an answer gives back, None where there is no target."""
    start = -1
    for _ in range(occurrence + 1):
        start = context.index(text, start + 1)
    target = window.target(start, start + len(text))
    return target and context[window.places[target[0], 0] : window.places[target[1], 1]]


# --- windows -----------------------------------------------------------------------------------------------------


def test_a_window_has_question_and_context_with_their_places(wordpiece):
    (window,) = cut(wordpiece, "who", "one two", 16, 2, 4)
    who, one, two = (wordpiece.token_to_id(word) for word in ("who", "one", "two"))
    assert window.ids.tolist() == [2, who, 3, one, two, 3]
    assert window.types.tolist() == [0, 0, 0, 1, 1, 1]
    assert window.places.tolist() == [[-1, -1], [-1, -1], [-1, -1], [0, 3], [4, 7], [-1, -1]]
    assert (window.ids.dtype, window.types.dtype, window.places.dtype) == (np.int32, np.uint8, np.int32)


def test_neighbouring_windows_share_as_many_tokens_as_asked(wordpiece):
    windows = cut(wordpiece, "who", WORDS, 9, 2, 4)  # five tokens of context in each
    shown = [[WORDS[begin:end] for begin, end in places_of(window)] for window in windows]
    assert shown == [
        ["one", "two", "three", "four", "five"],
        ["four", "five", "six", "seven", "eight"],
        ["seven", "eight", "nine", "ten"],
    ]


def all_tokenizers(wordpiece, byte_level, context_first):
    return [(wordpiece, True), (byte_level(), True), (byte_level(False), True), (context_first, False)]


@pytest.mark.parametrize("doc_stride", [0, 1, 5])
@pytest.mark.parametrize("number", range(4))
def test_windows_cover_the_context_and_overlap_by_the_stride(number, doc_stride, wordpiece, byte_level, context_first):
    tokenizer, question_first = all_tokenizers(wordpiece, byte_level, context_first)[number]
    context = f"{WORDS} " * 7
    windows = cut(tokenizer, "who", context, 20, doc_stride, 4, question_first=question_first)
    places = [places_of(window) for window in windows]
    assert len(windows) > 3
    assert all(len(window.ids) == 20 for window in windows[:-1])
    assert all(len(window.ids) <= 20 for window in windows)
    for first, second in pairwise(places):
        assert first[len(first) - doc_stride :] == second[:doc_stride]
    joined = places[0] + [place for each in places[1:] for place in each[doc_stride:]]
    tokenizer.no_truncation()
    assert joined == [list(place) for place in tokenizer.encode(context, add_special_tokens=False).offsets]
    shown = {character for begin, end in joined for character in range(begin, end)}
    assert {number for number, letter in enumerate(context) if not letter.isspace()} <= shown


def test_byte_level_pairs_have_two_separators_and_no_types(byte_level):
    (window,) = cut(byte_level(), "one", "two three", 16, 2, 4)
    assert [window.ids[0], *window.ids[2:4], window.ids[-1]] == [0, 2, 2, 2]
    assert window.types.tolist() == [0] * len(window.ids)
    assert window.places.tolist() == [[-1, -1]] * 4 + [*window.places[4:-1].tolist(), [-1, -1]]
    assert places_of(window)[-1][1] == len("two three")


def test_the_context_comes_first_where_the_model_wants_it_so(context_first):
    windows = cut(context_first, "who what", WORDS, 9, 1, 4, question_first=False)
    who, what = (context_first.token_to_id(word) for word in ("who", "what"))
    assert [window.ids[-5:].tolist() for window in windows] == [[3, who, what, 3, 2]] * len(windows)
    assert [window.types[-5:].tolist() for window in windows] == [[0, 1, 1, 1, 2]] * len(windows)
    assert [WORDS[place[0] : place[1]] for place in places_of(windows[0])] == ["one", "two", "three", "four"]
    assert [answer_of(window, WORDS, "four") for window in windows] == ["four", "four", None]


def test_windows_belong_to_their_questions_in_order(wordpiece):
    settings = WindowSettings(9, 2, 4)
    pairs = [("who", WORDS), ("what", "one"), ("who", "")]
    assert [len(windows) for windows in question_windows(wordpiece, pairs, settings)] == [3, 1, 1]
    assert question_windows(wordpiece, [], settings) == []


def test_what_the_tokenizer_did_before_does_not_matter(wordpiece):
    expected = [window.ids.tolist() for window in cut(wordpiece, "who", WORDS, 9, 2, 4)]
    wordpiece.enable_truncation(3)
    wordpiece.enable_padding(length=40)
    assert [window.ids.tolist() for window in cut(wordpiece, "who", WORDS, 9, 2, 4)] == expected


def test_an_empty_context_has_one_window_without_places(wordpiece):
    (window,) = cut(wordpiece, "who", "", 9, 2, 4)
    assert window.ids.tolist() == [2, wordpiece.token_to_id("who"), 3, 3]
    assert places_of(window) == []
    assert window.target(0, 1) is None


def test_a_hundred_thousand_characters_are_covered(wordpiece):
    context = f"{WORDS} " * 2041
    assert len(context) > 100_000
    windows = cut(wordpiece, "who", context, 384, 128, 64)
    assert len(windows) == -(-(20_410 - 128) // (380 - 128))
    assert places_of(windows[0])[0] == [0, 3]
    assert places_of(windows[-1])[-1] == [len(context) - 4, len(context) - 1]
    assert answer_of(windows[-1], context, "ten", occurrence=2040) == "ten"


# --- questions ---------------------------------------------------------------------------------------------------


def test_a_long_question_is_cut_after_so_many_tokens(wordpiece):
    (window,) = cut(wordpiece, "who two three four five", "one", 16, 2, 3)
    ids = [wordpiece.token_to_id(word) for word in ("who", "two", "three", "one")]
    assert window.ids.tolist() == [2, *ids[:3], 3, ids[3], 3]
    (same,) = cut(wordpiece, "who two three", "one", 16, 2, 3)
    assert same.ids.tolist() == window.ids.tolist()


def test_white_space_around_a_question_is_no_part_of_it(wordpiece, byte_level):
    for tokenizer in (wordpiece, byte_level()):
        plain, spaced = (cut(tokenizer, text, "one two", 16, 2, 4)[0] for text in ("two one", " \n two one\t "))
        assert plain.ids.tolist() == spaced.ids.tolist()


def test_a_character_of_several_tokens_is_cut_whole(byte_level):
    tokenizer = byte_level()
    # An emoji is four tokens: five would be one and a quarter, of which all four came back when it is read again.
    (window,) = cut(tokenizer, "🍳🍳🍳", "one", 64, 2, 5)
    (single,) = cut(tokenizer, "🍳", "one", 64, 2, 5)
    assert window.ids.tolist() == single.ids.tolist()
    (none,) = cut(tokenizer, "🍳🍳🍳", "one", 64, 2, 3)
    (empty,) = cut(tokenizer, "", "one", 64, 2, 3)
    assert none.ids.tolist() == empty.ids.tolist()


@pytest.mark.parametrize("text", ["🍳" * 9, "ä🍳" * 9, "one 🍳 two" * 9])
def test_no_question_takes_more_tokens_than_it_may(byte_level, text):
    tokenizer = byte_level()
    for limit in range(1, 12):
        (window,) = cut(tokenizer, text, "one", 64, 2, limit)
        assert np.flatnonzero(window.ids == 2)[0] - 1 <= limit  # what stands before the first separator


def test_questions_that_are_cut_are_counted(wordpiece):
    questions = ["who two three four", " who two three ", "who"]
    assert num_cut_questions(wordpiece, questions, 3) == 1
    assert num_cut_questions(wordpiece, questions, 2) == 2
    assert num_cut_questions(wordpiece, [], 2) == 0


# --- targets -----------------------------------------------------------------------------------------------------


def test_an_answer_is_found_where_it_is_whole(wordpiece):
    windows = cut(wordpiece, "who", WORDS, 9, 2, 4)  # one … five, four … eight, seven … ten
    for text, expected in {
        "one": [True, False, False],
        "four five": [True, True, False],
        "five six": [False, True, False],  # the first window ends within it
        "three four": [True, False, False],  # the second begins within it
        "seven eight": [False, True, True],
        "ten": [False, False, True],
        "two three four five six": [False, False, False],
    }.items():
        assert [answer_of(window, WORDS, text) for window in windows] == [text if whole else None for whole in expected]


def test_targets_count_the_tokens_before_the_context(wordpiece):
    (window,) = cut(wordpiece, "who", "one two three", 16, 2, 4)
    assert window.target(0, 3) == (3, 3)
    assert window.target(4, 13) == (4, 5)


def test_an_answer_within_a_word_gets_the_whole_token(wordpiece):
    (window,) = cut(wordpiece, "who", "one two three", 16, 2, 4)
    assert window.target(5, 6) == (4, 4)
    assert window.target(2, 5) == (3, 4)


def test_characters_without_a_token_have_no_target(wordpiece):
    (window,) = cut(wordpiece, "who", "one   two", 16, 2, 4)
    assert window.target(4, 5) is None
    assert window.target(9, 12) is None


def test_a_blank_that_belongs_to_a_token_does_not_move_the_target(byte_level):
    context = "one two three"
    for trim_offsets in (True, False):
        (window,) = cut(byte_level(trim_offsets), "one", context, 32, 2, 4)
        first, last = window.target(4, 7)
        assert first == last
        assert context[slice(*window.places[first])].strip() == "two"
    assert window.places[first].tolist() == [3, 7]  # offsets that keep the blank


def test_an_answer_of_characters_with_several_tokens_is_given_back(byte_level):
    tokenizer = byte_level()
    (window,) = cut(tokenizer, "one", EMOJI, 64, 2, 4)
    for text in ("🍳", "🧑‍🍳", "äöü", "ö", "and 🧑‍🍳 with"):
        assert answer_of(window, EMOJI, text) == text
    first, last = window.target(5, 6)
    assert last - first == 3  # four bytes, four tokens


@pytest.mark.parametrize("size", range(12, 30))
def test_a_target_gives_back_its_answer_wherever_windows_end(byte_level, size):
    context = EMOJI * 3
    windows = cut(byte_level(), "one", context, size, 4, 1)
    for text in ("Bake 🍳", "🍳", "äöü"):
        found = [answer_of(window, context, text) for window in windows]
        assert {each for each in found if each is not None} <= {text}
        assert size < 20 or text in found


def test_a_window_without_context_has_no_target():
    window = QuestionWindow(np.zeros(3, np.int32), np.zeros(3, np.uint8), np.full((3, 2), -1, np.int32))
    assert window.target(0, 5) is None


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_leave_room():
    assert WindowSettings() == WindowSettings(384, 128, 64, True)
    assert WindowSettings().problem() is None


def test_windows_that_cannot_move_on_are_refused():
    assert WindowSettings(384, 315).problem() is None
    assert WindowSettings(384, 316).problem() == (
        "data.doc_stride=316 leaves windows no room to move on: with data.max_length=384 and questions of up to "
        "data.max_question_length=64 tokens it must be below 316."
    )


def test_windows_without_room_for_a_context_are_refused():
    assert WindowSettings(69, 0).problem() is None
    assert WindowSettings(68, 0).problem() == (
        "data.max_length=68 leaves no room for a context beside questions of up to data.max_question_length=64 tokens: "
        "raise it above 68, or lower data.max_question_length."
    )


def test_the_least_room_is_enough_for_the_longest_question(byte_level):
    settings = WindowSettings(16, 3, 8)
    assert settings.problem() is None
    (windows,) = question_windows(byte_level(), [("one two three " * 9, f"{WORDS} " * 3)], settings)
    assert [len(window.ids) for window in windows[:-1]] == [16] * (len(windows) - 1)
    assert len(places_of(windows[0])) == 4
