import numpy as np
import pytest
import torch

from doctune.corpus.tokens import tokenise
from doctune.text.vocabulary import learn_wordpiece
from doctune.training import build, sources
from doctune.training.data.batches import MicroBatch
from doctune.training.data.file_content import TokenDataset

TEXTS = ["one two three", "one", "two two"]


def test_a_batch_is_padded_to_its_longest_window(tmp_path):
    tokenizer = learn_wordpiece(TEXTS * 3, 100)
    tokens = tokenise(tmp_path, tokenizer, 8, "store", list("abc"), TEXTS)
    batch = TokenDataset(tokens, [2, 0, 1], pad_id=0).__getitems__(MicroBatch((2, 1), 0.5))
    two, one = tokenizer.token_to_id("two"), tokenizer.token_to_id("one")
    assert batch["input_ids"].tolist() == [[2, two, two, 3], [2, one, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (batch["labels"].tolist(), batch["index"].tolist(), batch["scale"]) == ([1, 0], [2, 1], 0.5)


@pytest.fixture
def datamodule(compose, tiny, manifest_of_files, tmp_path):
    def make(*overrides: str):
        config = compose(*tiny, f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path}", *overrides)
        data = sources.file_content(config.data)
        corpus = sources.corpus(data, config.split, sources.manifest(data))
        encoder = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")))
        return build.datamodule(config, corpus, encoder)

    return make


def test_facts_are_there_before_the_module(datamodule):
    facts = datamodule("trainer.effective_batch_size=10", "trainer.micro_batch_size=5").facts()
    assert facts.labels.names == ("ledger", "program", "recipe")
    assert facts.class_counts == (16, 16, 16)
    assert facts.steps_per_epoch == 5


def test_batches_do_not_depend_on_the_number_of_workers(datamodule):
    alone, helped = (datamodule(f"data.num_workers={count}") for count in (0, 2))
    for module in (alone, helped):
        module.setup()
    for first, second in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in ("input_ids", "attention_mask", "labels"))
        assert first["scale"] == second["scale"]


def test_every_part_is_read_whole(datamodule):
    module = datamodule()
    module.setup()
    loaders = {"train": module.train_dataloader(), "val": module.val_dataloader(), "test": module.test_dataloader()}
    for part, loader in loaders.items():
        indices = np.concatenate([batch["index"].numpy() for batch in loader])
        assert sorted(indices.tolist()) == list(range(48 if part == "train" else 6))
