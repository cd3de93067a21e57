import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest

from doctune.corpus import chunk_tokens
from doctune.corpus.chunk_tokens import (
    ChunkTokens,
    DocumentChunks,
    cut_documents,
    describe_chunks,
    describe_truncation,
)
from doctune.text.chunks import ChunkSettings, chunk
from doctune.text.vocabulary import learn_wordpiece

TEXTS = ["one two three four five six seven eight nine ten", "one", "", "two two three four", "\x07"]
SETTINGS = ChunkSettings(chunk_length=5, stride=0, max_chunks=3, keep="head")


@pytest.fixture(scope="module")
def tokenizer():
    return learn_wordpiece(TEXTS * 3, 100)


@pytest.fixture
def cut(tmp_path, tokenizer):
    """A function: settings and texts -> their chunks, kept in one cache."""

    def make(settings=SETTINGS, texts=TEXTS, contents="abcde", store="store"):
        return cut_documents(tmp_path, tokenizer, settings, store, list(contents), texts)

    return make


@pytest.mark.parametrize(("stride", "keep"), [(0, "head"), (1, "spread"), (2, "head"), (0, "head_tail")])
def test_chunks_come_back_as_they_were_cut(cut, tokenizer, stride, keep):
    settings = replace(SETTINGS, stride=stride, keep=keep)
    tokens = cut(settings)
    everything = DocumentChunks(tokens, np.arange(len(TEXTS)))
    for rows, expected in zip(everything, chunk(tokenizer, TEXTS, **asdict(settings)), strict=True):
        assert [tokens.chunk(row).tolist() for row in rows] == [list(piece.ids) for piece in expected.chunks]
        assert [tokens.spans[row].tolist() for row in rows] == [[piece.start, piece.end] for piece in expected.chunks]


def test_documents_are_counted(cut):
    tokens = cut()
    assert tokens.num_chunks.tolist() == [3, 1, 1, 2, 1]
    # Ten words in chunks of three words are four; three of them are kept.
    assert (tokens.num_available > tokens.num_chunks).tolist() == [True, False, False, False, False]
    assert (tokens.num_truncated(), tokens.num_without_text()) == (1, 2)
    assert describe_chunks(tokens) == "5 documents, 8 chunks (1.6 each); 2 documents have no token."


def test_longer_documents_are_said(cut):
    whole = cut(replace(SETTINGS, keep="spread"))
    assert whole.num_available.tolist() == [4, 1, 1, 2, 1]
    assert describe_truncation(whole, replace(SETTINGS, keep="spread")) == (
        "1 of 5 documents is longer than 3 chunks; data.keep=spread reads 75% of their chunks. To read more: "
        "data.max_chunks."
    )
    one = replace(SETTINGS, max_chunks=1)
    assert describe_truncation(cut(one), one).startswith("2 of 5 documents are longer than 1 chunk; data.keep=head")
    enough = replace(SETTINGS, max_chunks=4)
    assert describe_truncation(cut(enough), enough) is None


def test_some_documents_and_their_first_chunks(cut):
    tokens = cut()
    chosen = DocumentChunks(tokens, np.array([3, 0]))
    assert [*chosen] == [range(5, 7), range(0, 3)]
    assert chosen.lengths().tolist() == [5 + 3, 15]
    first = DocumentChunks(tokens, np.array([3, 0]), max_chunks=1)
    assert [*first] == [range(5, 6), range(0, 1)]
    assert (first.num_chunks.tolist(), first.lengths().tolist()) == ([1, 1], [5, 5])


def test_the_same_corpus_is_cut_once(cut, tokenizer, monkeypatch):
    cut()
    monkeypatch.setattr(chunk_tokens, "chunk", None)
    tokenizer.enable_truncation(3)  # state that somebody left behind is no part of the key
    assert len(cut()) == 5


def test_other_settings_contents_and_stores_are_other_entries(cut, tmp_path):
    cut()
    for field, value in {"chunk_length": 6, "stride": 1, "max_chunks": 2, "keep": "head_tail"}.items():
        cut(replace(SETTINGS, **{field: value}))
    cut(contents="abcdx")
    cut(store="scrubbed")
    assert len([*(tmp_path / "chunks").iterdir()]) == 7


def test_a_cut_that_was_killed_is_done_again(cut, tmp_path, monkeypatch):
    def killed(*_, **__):
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(chunk_tokens, "chunk", killed)
        with pytest.raises(KeyboardInterrupt):
            cut()
    assert not [*tmp_path.rglob("*.npy")]
    assert len(cut()) == 5


def test_a_worker_process_gets_the_files_not_a_copy(cut):
    chunks = DocumentChunks(cut(), np.array([3, 0]))
    packed = pickle.dumps(chunks)
    assert len(packed) < 1000
    assert [*pickle.loads(packed)] == [*chunks]
    assert isinstance(pickle.loads(packed).tokens, ChunkTokens)


def test_a_text_of_five_megabytes_beside_one_word(cut):
    tokens = cut(SETTINGS, [" ".join(["three"] * 900_000), "one"], "ab")
    assert tokens.num_chunks.tolist() == [3, 1]
    assert tokens.is_estimated.tolist() == [True, False]
    assert 250_000 < tokens.num_available[0] < 350_000
    assert describe_truncation(tokens, SETTINGS).startswith("1 of 2 documents is longer than 3 chunks; data.keep=head ")
