from pathlib import Path

import numpy as np
import pytest
import torch

from doctune.corpus.tokens import tokenise
from doctune.text.vocabulary import learn_wordpiece
from doctune.training import build, sources
from doctune.training.data.batched import PARTS
from doctune.training.data.batches import BatchPlan, LengthAwareBatches, MicroBatch
from doctune.training.data.file_content import TokenDataset
from doctune.training.data.sampling import ClassSampling
from doctune.training.data.views import RandomViews
from doctune.training.tasks.classification import FileContent

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
        encoder = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")), Path(config.data.cache_dir))
        return FileContent(corpus, encoder).datamodule(config)

    return make


def test_facts_are_there_before_the_module(datamodule):
    facts = datamodule("trainer.effective_batch_size=10", "trainer.micro_batch_size=5").facts()
    assert facts.labels.names == ("ledger", "program", "recipe")
    assert (facts.train_counts, facts.val_counts, facts.shown_counts) == ((16, 16, 16), (2, 2, 2), (16, 16, 16))
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
    val, sample = module.val_dataloader()
    loaders = {"train": module.train_dataloader(), "val": val, "test": module.test_dataloader()}
    for part, loader in loaders.items():
        indices = np.concatenate([batch["index"].numpy() for batch in loader])
        assert sorted(indices.tolist()) == list(range(48 if part == "train" else 6))
    assert len(np.concatenate([batch["index"].numpy() for batch in sample])) == 6


def test_the_gaps_training_sample_is_fixed_and_as_large_as_the_validation_part(datamodule):
    first, again = datamodule(), datamodule("trainer.effective_batch_size=4")
    samples = []
    for module in (first, again):
        module.setup()
        samples.append(sorted(i for batch in module.val_dataloader()[1] for i in batch["index"].tolist()))
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 6


def test_features_take_the_place_of_token_ids(datamodule):
    module = datamodule()
    module.setup()
    features = {part: np.random.rand(len(module.tokens(part)), 1, 5).astype(np.float32) for part in PARTS}
    module.read_from(features)
    for batch in module.train_dataloader():
        assert np.array_equal(batch["features"].numpy(), features["train"][batch["index"].numpy()])
        assert "input_ids" not in batch


def test_training_sees_random_views_and_validation_the_head(datamodule):
    module = datamodule("data.augment.token_dropout=0.5")
    plain = datamodule()
    for each in (module, plain):
        each.setup()
    for ours, theirs in zip(module.val_dataloader()[0], plain.val_dataloader()[0], strict=True):
        assert torch.equal(ours["input_ids"], theirs["input_ids"])
    ours, theirs = next(iter(module.train_dataloader())), next(iter(plain.train_dataloader()))
    assert not torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])


LONG_TEXTS = [" ".join(f"{word}{number}" for number in range(60)) for word in ("one", "two", "three", "four", "five")]


@pytest.fixture
def shown(tmp_path):
    """(document, repeat) -> the view of it, for an epoch of five documents of which the last is shown four times."""
    tokens = tokenise(tmp_path, learn_wordpiece(LONG_TEXTS, 400), 16, "store", list("abcde"), LONG_TEXTS, windows=4)
    sampling = ClassSampling(np.array([0, 0, 0, 0, 1]), (4, 4))

    def show(plan, number, **chances):
        views = RandomViews(**{"random_window": 0.0, "token_dropout": 0.0} | chances, mask_id=4, special_ids=range(5))
        documents = TokenDataset(tokens, [0, 0, 0, 0, 1], pad_id=0, views=views)
        batches = LengthAwareBatches(tokens.lengths(), plan, seed=7, sampling=sampling)
        batches.set_epoch(number)
        found = {}
        for micro in batches:
            batch = documents.__getitems__(micro)
            for place, ids, mask in zip(
                zip(micro.indices, micro.repeats, strict=True), batch["input_ids"], batch["attention_mask"], strict=True
            ):
                assert place not in found
                found[place] = tuple(ids[mask == 1].tolist())
        return found

    return show


def test_a_document_that_an_epoch_shows_again_is_seen_in_other_views(shown):
    places = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (4, 3)]
    hidden = shown(BatchPlan(4), 0, token_dropout=0.5)
    assert sorted(hidden) == places
    assert len({hidden[4, repeat] for repeat in range(4)}) == 4
    windows = {shown(BatchPlan(4), number, random_window=1.0)[4, repeat] for number in range(5) for repeat in range(4)}
    assert len(windows) == 4
    plain = shown(BatchPlan(4), 0)
    assert len({plain[4, repeat] for repeat in range(4)}) == 1


@pytest.mark.parametrize("plan", [BatchPlan(1, 4), BatchPlan(2, 2), BatchPlan(8), BatchPlan(3)])
def test_the_size_of_a_forward_pass_changes_no_view(shown, plan):
    chances = {"random_window": 0.5, "token_dropout": 0.3}
    assert shown(plan, 2, **chances) == shown(BatchPlan(4), 2, **chances)


def test_views_do_not_depend_on_how_the_datamodule_cuts_a_step(datamodule):
    def views(micro):
        module = datamodule(
            "trainer.effective_batch_size=8", f"trainer.micro_batch_size={micro}", "data.augment.token_dropout=0.5",
            "data.augment.random_window=0.5",
        )  # fmt: skip
        module.setup()
        return {
            index: ids[mask == 1].tolist()
            for batch in module.train_dataloader()
            for index, ids, mask in zip(
                batch["index"].tolist(), batch["input_ids"], batch["attention_mask"], strict=True
            )
        }

    assert views(8) == views(2)
