"""How often an epoch shows the documents of each class."""

from collections import Counter

import numpy as np
import pytest

from doctune.training.data.sampling import ClassSampling, epoch_counts

LABELS = np.repeat([0, 1, 2], [100, 16, 4])


@pytest.mark.parametrize(
    ("method", "strength", "shown"),
    [
        ("none", 1.0, (100, 16, 4)),
        ("oversample", 0.0, (100, 16, 4)),
        ("oversample", 0.5, (100, 40, 20)),  # sqrt(16 × 100), sqrt(4 × 100)
        ("oversample", 1.0, (100, 100, 100)),
        ("undersample", 0.0, (100, 16, 4)),
        ("undersample", 0.5, (20, 8, 4)),
        ("undersample", 1.0, (4, 4, 4)),
    ],
)
def test_counts_of_an_epoch(method, strength, shown):
    assert epoch_counts((100, 16, 4), method, strength) == shown


@pytest.mark.parametrize("method", ["oversample", "undersample"])
def test_a_class_without_documents_stays_without_and_is_no_reference(method):
    expected = {"oversample": (9, 0, 9), "undersample": (4, 0, 4)}[method]
    assert epoch_counts((9, 0, 4), method, 1.0) == expected


def test_without_any_document_nothing_is_shown():
    assert epoch_counts((0, 0), "oversample", 1.0) == (0, 0)


def draw(counts, epoch=0):
    return ClassSampling(LABELS, counts).draw(np.random.default_rng((42, epoch)))


@pytest.mark.parametrize("counts", [(100, 40, 20), (100, 100, 100), (20, 8, 4), (100, 16, 4)])
def test_an_epoch_shows_just_so_many_of_each_class(counts):
    drawn = draw(counts)
    assert tuple(np.bincount(LABELS[drawn], minlength=3)) == counts
    assert len(ClassSampling(LABELS, counts)) == len(drawn)


def test_oversampling_shows_each_document_equally_often_give_or_take_one():
    shown = Counter(draw((100, 42, 20)).tolist())
    assert {shown[index] for index in range(100)} == {1}
    assert Counter(shown[index] for index in range(100, 116)) == {2: 6, 3: 10}  # 42 = 16 × 2 + 10
    assert {shown[index] for index in range(116, 120)} == {5}


def test_undersampling_shows_no_document_twice_in_an_epoch():
    drawn = draw((20, 8, 4))
    assert len({*drawn.tolist()}) == 32


def test_undersampling_shows_other_documents_in_other_epochs():
    first, second = ({*draw((20, 8, 4), epoch).tolist()} for epoch in (0, 1))
    assert first != second
    shown = {index for epoch in range(100) for index in draw((20, 8, 4), epoch).tolist()}
    assert shown == {*range(120)}


def test_classes_are_mixed():
    drawn = draw((100, 100, 100))
    assert not np.array_equal(LABELS[drawn], np.sort(LABELS[drawn]))


def test_the_generator_alone_determines_what_is_drawn():
    assert np.array_equal(draw((100, 40, 20)), draw((100, 40, 20)))
    assert not np.array_equal(draw((100, 40, 20)), draw((100, 40, 20), epoch=1))


def test_a_label_without_documents_is_drawn_from_as_if_it_were_not_there():
    sampling = ClassSampling(np.array([0, 2, 2]), (2, 0, 2))
    assert sorted(sampling.draw(np.random.default_rng(0)).tolist()) == [0, 0, 1, 2]
