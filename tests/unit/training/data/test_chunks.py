from pathlib import Path

import numpy as np
import pytest
import torch

from doctune.corpus.chunk_tokens import DocumentChunks, cut_documents
from doctune.text.chunks import ChunkSettings
from doctune.text.vocabulary import learn_wordpiece
from doctune.training import build, sources
from doctune.training.data.batched import PARTS
from doctune.training.data.batches import MicroBatch
from doctune.training.data.chunks import EVERYTHING, ChunkDataset, VectorDataset
from doctune.training.data.views import RandomViews
from doctune.training.tasks.chunks import LongDocuments

TEXTS = ["one two three", "one", "two two", ""]
SETTINGS = ChunkSettings(chunk_length=4, stride=0, max_chunks=3, keep="head")


@pytest.fixture
def tokenizer():
    return learn_wordpiece(TEXTS * 3, 100)


@pytest.fixture
def chunks(tmp_path, tokenizer):
    tokens = cut_documents(tmp_path, tokenizer, SETTINGS, "store", list("abcd"), TEXTS)
    return DocumentChunks(tokens, np.arange(4))


def test_a_batch_has_the_chunks_of_its_documents_one_after_the_other(chunks, tokenizer):
    batch = ChunkDataset(chunks, [2, 0, 1, 0], 0, 8).__getitems__(MicroBatch((3, 0, 1), 0.5))
    one, two, three = (tokenizer.token_to_id(word) for word in ("one", "two", "three"))
    assert batch["input_ids"].tolist() == [[2, 3, 0, 0], [2, one, two, 3], [2, three, 3, 0], [2, one, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert (batch["chunk_counts"].tolist(), batch["rows"].tolist()) == ([1, 2, 1], [4, 0, 1, 2])
    assert (batch["labels"].tolist(), batch["index"].tolist(), batch["scale"]) == ([0, 2, 0], [3, 0, 1], 0.5)


def test_tokens_and_the_cells_of_each_pass_are_counted(chunks):
    batch = ChunkDataset(chunks, [0] * 4, 0, chunks_per_pass=2).__getitems__(MicroBatch((3, 0, 1), 1.0))
    # Lengths 2, 4, 3, 3 in passes of two: (4, 3) and (3, 2).
    assert (batch["tokens"], batch["cells"]) == (12, 14)
    alone = ChunkDataset(chunks, [0] * 4, 0, chunks_per_pass=1).__getitems__(MicroBatch((3, 0, 1), 1.0))
    assert alone["cells"] == alone["tokens"] == 12


def test_stored_vectors_take_the_place_of_chunks(chunks):
    vectors = np.random.rand(6, 5).astype(np.float32)
    batch = VectorDataset(vectors, chunks, [2, 0, 1, 0]).__getitems__(MicroBatch((2, 0), 1.0))
    assert np.array_equal(batch["vectors"].numpy(), vectors[[3, 0, 1]])
    assert (batch["chunk_counts"].tolist(), batch["tokens"]) == ([1, 2], 4 + 7)
    assert batch["labels"].tolist() == [1, 2]


def test_hidden_tokens_follow_seed_epoch_and_repeat(chunks):
    views = RandomViews(0.0, 0.5, mask_id=4, special_ids=range(5))
    documents = ChunkDataset(chunks, [0] * 4, 0, 8, views)
    shown = MicroBatch((0, 2), 1.0, seed=(1, 0), repeats=(0, 0))
    first, again = (documents.__getitems__(shown)["input_ids"] for _ in range(2))
    others = [documents.__getitems__(shown._replace(seed=(1, epoch)))["input_ids"] for epoch in range(1, 6)]
    plain = documents.__getitems__(shown._replace(seed=None))["input_ids"]
    assert torch.equal(first, again)
    assert any(not torch.equal(first, other) for other in others)
    assert not (plain == 4).any()


@pytest.fixture
def datamodule(compose, tiny, manifest_of_files, tmp_path):
    def make(*overrides: str, first_chunks=None):
        paths = (f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path}")
        config = compose("data=chunks", *tiny, *paths, "data.max_length=16", "data.max_chunks=3", *overrides)
        data = sources.file_content(config.data)
        corpus = sources.corpus(data, config.split, sources.manifest(data))
        encoder = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")), Path(config.data.cache_dir))
        return LongDocuments(corpus, encoder).datamodule(config, first_chunks)

    return make


def test_facts_are_there_before_the_module(datamodule):
    facts = datamodule("trainer.effective_batch_size=10", "trainer.micro_batch_size=5").facts()
    assert facts.labels.names == ("ledger", "program", "recipe")
    assert (facts.train_counts, facts.val_counts, facts.steps_per_epoch) == ((16, 16, 16), (2, 2, 2), 5)


def test_every_part_is_read_whole_and_by_length(datamodule):
    module = datamodule("trainer.effective_batch_size=4")
    module.setup()
    loaders = {"train": module.train_dataloader(), "val": module.val_dataloader()[0], "test": module.test_dataloader()}
    for part, loader in loaders.items():
        indices = np.concatenate([batch["index"].numpy() for batch in loader])
        assert sorted(indices.tolist()) == list(range(48 if part == "train" else 6))
    lengths = [module.lengths("val")[batch["index"].numpy()] for batch in loaders["val"]]
    assert (np.diff(np.concatenate(lengths)) <= 0).all()
    for batch in loaders["train"]:
        assert batch["tokens"] == module.lengths("train")[batch["index"].numpy()].sum() == batch["attention_mask"].sum()


def test_a_frozen_encoder_reads_the_chunks_of_all_documents(datamodule):
    module = datamodule()
    (reading,) = module.readings().values()
    rows = np.concatenate([batch["rows"].numpy() for batch in module.predict_dataloader()[0]])
    assert sorted(rows.tolist()) == list(range(reading.num_rows))
    assert reading.num_rows == sum(module.chunks(part).num_chunks.sum() for part in PARTS)


def test_the_parts_share_what_was_cut_and_read(datamodule):
    module = datamodule()
    vectors = np.random.rand(module.readings()[EVERYTHING].num_rows, 5).astype(np.float32)
    plain = [*module.test_dataloader()]
    module.read_from({EVERYTHING: vectors})
    for batch, before in zip(module.test_dataloader(), plain, strict=True):
        assert np.array_equal(batch["vectors"].numpy(), vectors[before["rows"].numpy()])
        assert torch.equal(batch["chunk_counts"], before["chunk_counts"])


def test_first_chunks_only(datamodule):
    module, whole = datamodule(first_chunks=1), datamodule()
    module.setup()
    whole.setup()
    for batch in module.train_dataloader():
        assert batch["chunk_counts"].tolist() == [1] * len(batch["index"])
    ours, theirs = module.chunks("val"), whole.chunks("val")
    assert [rows[0] for rows in ours] == [rows[0] for rows in theirs]
    assert theirs.num_chunks.sum() > len(theirs)


def test_folds_are_of_documents_and_share_their_chunks(datamodule, tmp_path):
    tests = []
    for fold in range(3):
        module = datamodule("split=kfold", "split.folds=3", f"split.fold={fold}", "model.vocab_size=60")
        tokens = module.tokens()
        rows = {part: {row for each in module.chunks(part) for row in each} for part in PARTS}
        assert len(rows["train"] | rows["val"] | rows["test"]) == sum(map(len, rows.values())) == len(tokens.lengths)
        tests.append(rows["test"])
    assert len(set().union(*tests)) == sum(map(len, tests)) == len(tokens.lengths)


def test_batches_do_not_depend_on_the_number_of_workers(datamodule):
    alone, helped = (datamodule(f"data.num_workers={count}") for count in (0, 2))
    for module in (alone, helped):
        module.setup()
    for first, second in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in ("input_ids", "chunk_counts", "rows", "labels"))
