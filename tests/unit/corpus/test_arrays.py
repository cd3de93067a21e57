import numpy as np

from doctune.corpus.arrays import GrowingArray


def test_what_was_added_is_read_in_its_order(tmp_path):
    with GrowingArray(tmp_path / "a.npy", np.int32) as array:
        assert [array.append([1, 2]), array.append([]), array.append(3)] == [2, 2, 3]
    read = np.load(tmp_path / "a.npy")
    assert (read.tolist(), read.dtype) == ([1, 2, 3], np.int32)


def test_rows_of_several_values(tmp_path):
    with GrowingArray(tmp_path / "a.npy", np.int32, (2,)) as array:
        assert [array.append([[1, 2], [3, 4]]), array.append((5, 6))] == [2, 3]
    assert np.load(tmp_path / "a.npy", mmap_mode="r").tolist() == [[1, 2], [3, 4], [5, 6]]


def test_an_array_without_rows_can_be_read(tmp_path):
    with GrowingArray(tmp_path / "a.npy", np.uint8, (2,)):
        pass
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (0, 2)


def test_many_rows_fit_the_header(tmp_path):
    with GrowingArray(tmp_path / "a.npy", np.uint8) as array:
        for _ in range(100):
            length = array.append(np.arange(12_345) % 251)
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert (length, len(read)) == (1_234_500, 1_234_500)
    assert np.array_equal(read[-12_345:], np.arange(12_345) % 251)


def test_an_array_that_broke_off_has_no_rows(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", np.int32)
    array.append([1, 2])
    array.__exit__(OSError, OSError(), None)
    assert np.load(tmp_path / "a.npy").tolist() == []
