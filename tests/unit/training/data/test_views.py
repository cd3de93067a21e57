"""What an epoch sees of a document."""

import numpy as np
import pytest

from doctune.training.data.views import RandomViews

CLS, SEP, MASK, UNK = 1, 2, 3, 4


class Windows:
    """Documents given as lists of windows; answers as `Tokens` does."""

    def __init__(self, *documents):
        self.documents = documents

    def window(self, index, number):
        return np.array(self.documents[index][number], dtype=np.int32)

    def num_windows(self, index):
        return len(self.documents[index])


def views(random_window=0.0, token_dropout=0.0):
    return RandomViews(random_window, token_dropout, MASK, (CLS, SEP, MASK, UNK))


LONG = [[CLS, 10 * number, SEP] for number in range(1, 6)]


def test_without_chance_a_document_shows_its_first_window_as_it_is():
    seen = {tuple(views().window(Windows(LONG), 0, (42, epoch), 0).tolist()) for epoch in range(20)}
    assert seen == {(CLS, 10, SEP)}


def test_all_windows_of_a_long_document_come_up_over_the_epochs():
    seen = {int(views(random_window=1.0).window(Windows(LONG), 0, (42, epoch), 0)[1]) for epoch in range(40)}
    assert seen == {10, 20, 30, 40, 50}


def test_a_document_of_one_window_shows_it():
    assert views(random_window=1.0).window(Windows([[CLS, 7, SEP]]), 0, (42, 0), 0).tolist() == [CLS, 7, SEP]


def test_another_window_comes_up_with_the_asked_probability():
    two = Windows([[10], [20]])
    seconds = sum(views(random_window=0.5).window(two, 0, (42, epoch), 0)[0] == 20 for epoch in range(4000))
    assert seconds == pytest.approx(1000, abs=80)  # half of the epochs choose, half of those the second window


def test_a_view_depends_on_seed_epoch_document_and_repeat_alone():
    documents = Windows(*[[[*range(100 + 100 * index, 140 + 100 * index)]] for index in range(3)])
    dropping = views(token_dropout=0.5)
    one = {index: dropping.window(documents, index, (42, 1), 0).tolist() for index in (0, 1, 2)}
    np.random.random(1000)  # others draw in between
    other = {index: dropping.window(documents, index, (42, 1), 0).tolist() for index in (2, 0, 1)}
    assert one == other

    def hidden(index, seed, repeat):
        return tuple((dropping.window(documents, index, seed, repeat) == MASK).tolist())

    places = [(0, (42, 1), 0), (1, (42, 1), 0), (0, (42, 2), 0), (0, (43, 1), 0), (0, (42, 1), 1), (0, (42, 1), 2)]
    assert len({hidden(*place) for place in places}) == 6
    assert hidden(0, (42, 1), 2) == hidden(0, (42, 1), 2)


def test_all_windows_of_a_document_that_is_shown_often_come_up_within_an_epoch():
    seen = {int(views(random_window=1.0).window(Windows(LONG), 0, (42, 0), repeat)[1]) for repeat in range(40)}
    assert seen == {10, 20, 30, 40, 50}


def test_special_tokens_are_never_hidden():
    window = [CLS, 10, UNK, 11, SEP]
    assert views(token_dropout=1.0).window(Windows([window]), 0, (42, 0), 0).tolist() == [CLS, MASK, UNK, MASK, SEP]


def test_the_share_of_hidden_tokens_is_what_was_asked():
    window = views(token_dropout=0.1).window(Windows([[*range(10, 10_010)]]), 0, (42, 0), 0)
    hidden = window == MASK
    assert hidden.sum() == 984
    assert window[~hidden].tolist() == (np.arange(10, 10_010)[~hidden]).tolist()


def test_a_view_leaves_the_stored_tokens_and_their_type_alone():
    stored = np.arange(10, 60, dtype=np.int32)

    class Stored(Windows):
        def window(self, index, number):
            return stored

    assert views(token_dropout=1.0).window(Stored([[]]), 0, (42, 0), 0).dtype == np.int32
    assert stored.tolist() == [*range(10, 60)]
