import json

import numpy as np
import pytest
import torch

from doctune.corpus.division import SplitSettings
from doctune.corpus.instruction_corpus import InstructionParts, Reading, prepare_instructions
from doctune.corpus.instructions import read_instructions
from doctune.nets.chat import template_of
from doctune.training.data.batches import BatchPlan
from doctune.training.data.instructions import InstructionDataModule
from doctune.training.data.packing import pack


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, chat_tokenizer):
    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        {"question": f"What is the sum of {n} and {n + 1}?", "answer": " ".join(["Five."] * (n % 5 + 1))}
        for n in range(30)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = chat_tokenizer()
    return prepare_instructions(
        InstructionParts((read_instructions(folder / "t.jsonl"),)),
        Reading(tokenizer.backend_tokenizer, template_of(tokenizer), 120),
        split=SplitSettings(val=0.2, test=0.2), cache=folder, duplicate_threshold=1,
    )  # fmt: skip


def datamodule(corpus, *, row_length=None, micro=2, accumulation=2):
    return InstructionDataModule(corpus, pad_id=1, row_length=row_length, plan=BatchPlan(micro, accumulation), seed=3)


def test_packs_hold_every_sequence_once_and_no_row_is_too_long():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    rows = pack(lengths, 100, seed=1)
    assert sorted(place for row in rows for place in row) == [*range(500)]
    sizes = [int(lengths[list(row)].sum()) for row in rows]
    assert max(sizes) <= 100
    assert lengths.sum() / (100 * len(rows)) > 0.9
    assert pack(lengths, 100, seed=1) == rows
    assert pack(lengths, 100, seed=2) != rows


def test_the_scales_of_an_effective_batch_are_those_of_the_mean_over_its_tokens(corpus):
    steps, step = [], []
    for batch in datamodule(corpus).train_dataloader():
        step.append(batch)
        if batch["ends_step"]:
            steps.append(step)
            step = []
    assert len(steps) == datamodule(corpus).facts().steps_per_epoch == 5
    for micros in steps:
        tokens = sum(batch["losses"] for batch in micros)
        # Lightning divides by the accumulation, 2, also where the last step has fewer micro-batches.
        assert [batch["scale"] / 2 for batch in micros] == pytest.approx([1 / tokens] * len(micros))


def test_a_batch_has_labels_for_completions_only(corpus):
    (batch,) = [datamodule(corpus, micro=100).val_dataloader()[0].dataset[0]]
    assert batch["losses"] == int((batch["labels"] != -100).sum()) == datamodule(corpus).facts().num_learnt["val"]
    assert batch["tokens"] == int(batch["attention_mask"].sum())
    seen = batch["labels"] != -100
    assert torch.equal(batch["labels"][seen], batch["input_ids"][seen])
    assert (batch["attention_mask"][seen] == 1).all()


def test_packed_rows_show_the_same_tokens_with_positions_that_begin_anew(corpus):
    packed, plain = datamodule(corpus, row_length=120), datamodule(corpus)
    assert packed.facts().rows_per_epoch < plain.facts().rows_per_epoch == 18
    assert packed.facts().num_learnt == plain.facts().num_learnt
    batches = [*packed.train_dataloader()]
    assert sum(batch["losses"] for batch in batches) == plain.facts().num_learnt["train"]
    starts = sum(int(((batch["position_ids"] == 0) & (batch["input_ids"] == 0)).sum()) for batch in batches)
    assert starts == 18  # each sequence begins with <s>, id 0
    assert all("attention_mask" not in batch and batch["cells"] == batch["input_ids"].numel() for batch in batches)
    assert "attention_mask" in packed.val_dataloader()[0].dataset[0]


def test_the_training_sample_has_as_many_sequences_as_validation(corpus):
    assert sum(len(batch["index"]) for batch in datamodule(corpus).val_dataloader()[1]) == 6
    packed = datamodule(corpus, row_length=120)
    sample = [*packed.val_dataloader()[1]]
    sequences = sum(int((batch["input_ids"] == 0).sum()) for batch in sample)
    assert 6 <= sequences < 6 + 4
