import numpy as np
import pytest
import torch

from doctune.corpus.division import LabelledDocument
from doctune.corpus.duplicates import DuplicateGroups
from doctune.corpus.target_corpus import TargetCorpus
from doctune.corpus.targets import LabelledText, TargetSpec
from doctune.labels import Labels
from doctune.text.vocabulary import learn_wordpiece
from doctune.training.data.batched import PARTS
from doctune.training.data.batches import BatchPlan
from doctune.training.data.multi_task import MultiTaskDataModule

KIND = TargetSpec("kind", "single", Labels(("x", "y")))
TAGS = TargetSpec("tags", "multi", Labels(("a", "b", "c")))
# What eight texts know: of `kind` six, of `tags` five.
TRUTHS = [
    {"kind": ("x",), "tags": ("a",)},
    {"kind": ("y",)},
    {"kind": ("x",), "tags": ()},
    {"tags": ("a", "c")},
    {"kind": ("y",), "tags": ("b",)},
    {"kind": ("x",)},
    {"kind": ("y",)},
    {"tags": ("c",)},
]


def corpus_of(parts):
    """A corpus of texts of rising length, from what is known of the texts of each part."""
    texts, documents = [], []
    for part, truths in parts.items():
        for number, known in enumerate(truths):
            name = f"{part}{number}"
            texts.append(LabelledText(name, "one " * (number + 1), known, f"{part}.csv:{number + 2}"))
            documents.append(LabelledDocument(name, name, "", name, part, name, name))
    none = DuplicateGroups((), (), ())
    return TargetCorpus("train.csv", (KIND, TAGS), tuple(texts), tuple(documents), none, (), {})


@pytest.fixture
def make(tmp_path):
    """A function: a plan -> a datamodule of the eight texts as training part, and two others to choose and judge."""

    def build(plan):
        corpus = corpus_of({"train": TRUTHS, "val": TRUTHS[:2], "test": TRUTHS[3:5]})
        tokenizer = learn_wordpiece(["one two"] * 3, 100)
        module = MultiTaskDataModule(corpus, tokenizer, pad_id=0, cache=tmp_path, max_length=16, plan=plan, seed=1)
        module.setup()
        return module

    return build


def test_facts_count_what_each_part_knows(make):
    facts = make(BatchPlan(3)).facts()
    assert facts.targets == (KIND, TAGS)
    assert [(each.labels, each.known) for each in facts.counts["train"]] == [((3, 3), 6), ((2, 1, 2), 5)]
    assert [(each.labels, each.known) for each in facts.counts["val"]] == [((1, 1), 2), ((1, 0, 0), 1)]
    assert (facts.num_train, facts.steps_per_epoch, facts.examples_per_epoch) == (8, 3, 8)


def test_a_batch_has_the_truth_of_each_target_and_says_what_is_missing(make):
    (batch,) = make(BatchPlan(8)).test_dataloader()
    order = batch["index"].argsort()
    assert batch["targets"][0][order].tolist() == [-1, 1]
    assert batch["targets"][1][order].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["tokens"] == batch["attention_mask"].sum()


def test_the_scale_of_a_target_counts_the_texts_of_the_whole_effective_batch_that_know_it(make):
    (whole,) = make(BatchPlan(8)).train_dataloader()
    assert whole["target_scales"].tolist() == pytest.approx([1 / 6, 1 / 5])
    parts = [*make(BatchPlan(2, 4)).train_dataloader()]
    assert len(parts) == 4
    for part in parts:
        assert part["target_scales"].tolist() == pytest.approx([4 / 6, 4 / 5])


def test_a_target_that_no_text_of_an_effective_batch_knows_has_scale_zero(make):
    for batch in make(BatchPlan(1)).train_dataloader():
        known = [float((truth[0] if truth.ndim == 1 else truth[0, 0]) >= 0) for truth in batch["targets"]]
        assert batch["target_scales"].tolist() == known


def test_the_ranks_share_out_the_scales_of_an_effective_batch(make):
    module = make(BatchPlan(4, num_ranks=2))
    (batch,) = module.train_dataloader()
    assert batch["target_scales"].tolist() == pytest.approx([2 / 6, 2 / 5])


def test_stored_vectors_take_the_place_of_token_ids(make):
    module = make(BatchPlan(4))
    vectors = {part: np.random.rand(len(module.lengths(part)), 5).astype(np.float32) for part in PARTS}
    module.read_from(vectors)
    for batch in module.train_dataloader():
        assert torch.equal(batch["vectors"], torch.from_numpy(vectors["train"])[batch["index"]])
        assert "input_ids" not in batch
