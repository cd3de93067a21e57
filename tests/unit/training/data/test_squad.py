import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from doctune.corpus.question_tokens import tokenise_questions
from doctune.corpus.squad import Question
from doctune.text.questions import WindowSettings
from doctune.text.vocabulary import learn_wordpiece
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.squad import IGNORED, QuestionsOfBatch, SquadDataModule, TokenFacts, WindowDataset
from doctune.training.data.views import RandomViews

NUMBERS = "one two three four five six seven eight nine ten"
TOWNS = "Anna lives in Ulm"
SETTINGS = WindowSettings(9, 2, 4)  # five tokens of context beside a question of one
PLAIN = TokenFacts(pad_id=0, cls_id=2, has_types=False)


def ask(name, text, context, answer):
    start = context.index(answer) if answer else None
    return Question(name, "an article", context, text, (answer,) if answer else (), start, is_impossible=not answer)


QUESTIONS = (
    ask("a", "which", NUMBERS, "two three"),  # three windows, the answer in the first
    ask("b", "where", TOWNS, "Ulm"),
    ask("c", "who", TOWNS, ""),
    replace(ask("d", "where", TOWNS, "Ulm"), start=None),  # judged by its text
)


def learnt():
    return learn_wordpiece([NUMBERS, TOWNS, "which where who"] * 3, 200)


@pytest.fixture(scope="module")
def tokenizer():
    return learnt()


@pytest.fixture
def dataset(tokenizer, tmp_path):
    """A function: what the tokenizer does beside cutting -> all windows of the questions."""

    def make(facts=PLAIN, tokenizer=tokenizer, views=None, windows=None, **settings):
        tokens = tokenise_questions(tmp_path, tokenizer, replace(SETTINGS, **settings), QUESTIONS)
        chosen = np.arange(len(tokens)) if windows is None else np.array(windows)
        return WindowDataset(tokens, chosen, QUESTIONS, facts, views)

    return make


# --- batches -----------------------------------------------------------------------------------------------------


def test_a_batch_says_what_a_reader_needs(dataset, tokenizer):
    batch = dataset(TokenFacts(0, 2, has_types=True)).__getitems__(MicroBatch((0, 3), 0.5, ends_step=False))
    which, one, two, three, four, five, where, anna, lives, inside, ulm = (
        tokenizer.token_to_id(word)
        for word in ["which", "one", "two", "three", "four", "five", "where", "Anna", "lives", "in", "Ulm"]
    )
    assert batch["input_ids"].tolist() == [
        [2, which, 3, one, two, three, four, five, 3],
        [2, where, 3, anna, lives, inside, ulm, 3, 0],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 9, [1] * 8 + [0]]
    assert batch["token_type_ids"].tolist() == [[0] * 3 + [1] * 6, [0] * 3 + [1] * 5 + [0]]
    assert batch["context"].tolist() == [
        [False] * 3 + [True] * 5 + [False],
        [False] * 3 + [True] * 4 + [False] * 2,
    ]
    no = [-1, -1]
    assert batch["places"].tolist() == [
        [no, no, no, [0, 3], [4, 7], [8, 13], [14, 18], [19, 23], no],
        [no, no, no, [0, 4], [5, 10], [11, 13], [14, 17], no, no],
    ]
    assert (batch["starts"].tolist(), batch["ends"].tolist(), batch["cls"].tolist()) == ([4, 6], [5, 6], [0, 0])
    assert (batch["question"].tolist(), batch["index"].tolist()) == ([0, 1], [0, 3])
    assert [question.id for question in batch["questions"]] == ["a", "b"]
    assert (batch["tokens"], batch["scale"], batch["ends_step"]) == (17, 0.5, False)
    assert batch["context"].dtype == torch.bool
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "starts", "ends", "cls")} == {torch.int64}


def test_encoders_without_types_get_none(dataset):
    assert "token_type_ids" not in dataset().__getitems__(MicroBatch((0,), 1.0))


def test_what_a_window_has_no_answer_for_points_to_the_first_token_and_what_nobody_knows_is_ignored(dataset):
    batch = dataset().__getitems__(MicroBatch((1, 2, 4, 5), 1.0))
    assert batch["starts"].tolist() == batch["ends"].tolist() == [0, 0, 0, IGNORED]
    assert [question.id for question in batch["questions"]] == ["a", "a", "c", "d"]


def test_targets_and_places_move_with_padding_on_the_left(tmp_path):
    tokenizer = learnt()
    tokenizer.post_processor = TemplateProcessing(  # XLNet's order
        single="$A [SEP] [CLS]", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    tokens = tokenise_questions(tmp_path, tokenizer, replace(SETTINGS, question_first=False), QUESTIONS)
    windows = WindowDataset(tokens, np.arange(len(tokens)), QUESTIONS, TokenFacts(0, 2, True, pads_left=True))
    batch = windows.__getitems__(MicroBatch((0, 3, 4, 5), 1.0))
    assert batch["attention_mask"].tolist() == [[1] * 9, *[[0] + [1] * 8] * 3]
    assert batch["token_type_ids"].tolist() == [[0] * 6 + [1] * 2 + [2], *[[0] * 6 + [1] * 2 + [2]] * 3]
    assert batch["context"].tolist() == [[True] * 5 + [False] * 4, *[[False] + [True] * 4 + [False] * 4] * 3]
    assert batch["cls"].tolist() == [8, 8, 8, 8]
    assert batch["starts"].tolist() == [1, 4, 8, IGNORED]
    assert batch["ends"].tolist() == [2, 4, 8, IGNORED]
    for row, context, answer in ((0, NUMBERS, "two three"), (1, TOWNS, "Ulm")):
        first, last = batch["places"][row, batch["starts"][row], 0], batch["places"][row, batch["ends"][row], 1]
        assert context[first:last] == answer


def test_without_a_token_for_no_answer_the_first_one_stands_for_it(dataset):
    batch = dataset(TokenFacts(0, None, has_types=False)).__getitems__(MicroBatch((3, 4), 1.0))
    assert (batch["cls"].tolist(), batch["starts"].tolist()) == ([0, 0], [6, 0])


def test_the_windows_that_are_shown_keep_their_questions(dataset):
    batch = dataset(windows=[0, 3, 5]).__getitems__(MicroBatch((2, 1), 1.0))
    assert (batch["question"].tolist(), batch["index"].tolist()) == ([3, 1], [2, 1])
    assert len(dataset(windows=[0, 3, 5])) == 3


def test_tokens_are_hidden_in_training_only(dataset, tokenizer):
    views = RandomViews(0.0, 0.5, mask_id=4, special_ids=range(5))
    plain = dataset().__getitems__(MicroBatch((0, 3), 1.0))["input_ids"]
    seeded = MicroBatch((0, 3), 1.0, seed=(7, 0), repeats=(0, 0))
    shown = dataset(views=views).__getitems__(seeded)
    hidden = shown["input_ids"] == 4
    assert hidden.any()
    assert torch.equal(shown["input_ids"][~hidden], plain[~hidden])
    assert not hidden[plain < 5].any()
    assert torch.equal(shown["places"], dataset().__getitems__(seeded)["places"])
    assert torch.equal(dataset(views=views).__getitems__(seeded)["input_ids"], shown["input_ids"])
    evaluated = dataset(views=views).__getitems__(MicroBatch((0, 3), 1.0))
    assert torch.equal(evaluated["input_ids"], plain)
    assert torch.equal(dataset().__getitems__(seeded)["input_ids"], plain)


def test_the_questions_of_a_batch_are_left_alone_by_lightning():
    from lightning.fabric.utilities import move_data_to_device

    questions = QuestionsOfBatch(QUESTIONS)
    moved = move_data_to_device({"questions": questions}, torch.device("cpu"))
    assert moved["questions"] is questions
    assert [*pickle.loads(pickle.dumps(questions))] == [*QUESTIONS]


# --- the datamodule ----------------------------------------------------------------------------------------------


class Corpus:
    """Twelve training questions in two windows each, the first of which has the answer of the even ones only."""

    def __init__(self):
        train = tuple(ask(f"t{n}", "which", f"{NUMBERS} {n}", "two" if n % 2 == 0 else "nine") for n in range(12))
        impossible = ask("t12", "who", NUMBERS, "")
        judged = tuple(ask(f"v{n}", "where", f"{TOWNS} {n}", "Ulm") for n in range(3))
        self.parts = {"train": (*train, impossible), "val": judged, "test": judged[:2]}

    def part(self, name):
        return self.parts[name]


@pytest.fixture
def datamodule(tokenizer, tmp_path):
    def make(empty_windows=1.0, plan=None, seed=3, views=None, num_workers=0):
        return SquadDataModule(
            Corpus(),
            tokenizer,
            PLAIN,
            cache=tmp_path,
            settings=WindowSettings(12, 2, 4),  # eight tokens of context
            empty_windows=empty_windows,
            plan=plan or BatchPlan(4),
            seed=seed,
            views=views,
            num_workers=num_workers,
        )

    return make


def shown_in_training(module):
    """(question, has its answer) of all training windows."""
    module.setup()
    return sorted(
        (int(question), int(start) > 0)
        for batch in module.train_dataloader()
        for question, start in zip(batch["question"], batch["starts"], strict=True)
    )


def test_facts_are_there_before_the_module(datamodule):
    facts = datamodule(plan=BatchPlan(2, 3)).facts()
    assert facts.num_questions == {"train": 13, "val": 3, "test": 2}
    assert facts.num_windows == {"train": 26, "val": 3, "test": 2}
    assert (facts.examples_per_epoch, facts.steps_per_epoch) == (26, 5)
    # Eleven tokens of context are windows of 8 and 5, of which two are in both; ten are windows of 8 and 4.
    choices = [9] * 13 + [6] * 12 + [5]  # the token for no answer is one more
    assert facts.uniform_loss == pytest.approx(sum(map(math.log, choices)) / 26)


def test_all_windows_are_shown_unless_told_otherwise(datamodule):
    assert shown_in_training(datamodule()) == sorted(
        [(n, False) for n in range(12)] + [(n, True) for n in range(12)] + [(12, False)] * 2
    )


def test_windows_without_their_answer_can_be_left_out_but_not_those_of_impossible_questions(datamodule):
    module = datamodule(empty_windows=0.0)
    assert shown_in_training(module) == [*((n, True) for n in range(12)), (12, False), (12, False)]
    facts = module.facts()
    assert (facts.num_windows["train"], facts.num_questions["train"], facts.steps_per_epoch) == (14, 13, 4)
    assert (facts.num_windows["val"], facts.num_windows["test"]) == (3, 2)


def test_a_share_of_the_empty_windows_is_the_same_in_each_epoch_and_run(datamodule):
    shown = shown_in_training(datamodule(empty_windows=0.5))
    assert shown == shown_in_training(datamodule(empty_windows=0.5, plan=BatchPlan(2, 2)))
    assert shown != shown_in_training(datamodule(empty_windows=0.5, seed=4))
    assert 14 < len(shown) < 26
    few = set(shown_in_training(datamodule(empty_windows=0.2)))
    assert few < set(shown)  # a larger share keeps what a smaller one has


def test_every_part_is_read_whole(datamodule):
    module = datamodule()
    module.setup()
    val, sample = module.val_dataloader()
    for loader, expected in (
        (module.train_dataloader(), range(26)),
        (val, range(3)),
        (module.test_dataloader(), range(2)),
    ):
        assert sorted(int(index) for batch in loader for index in batch["index"]) == [*expected]
    assert sum(len(batch["index"]) for batch in sample) == 3


def test_batches_do_not_depend_on_the_number_of_workers(datamodule):
    views = RandomViews(0.0, 0.3, mask_id=4, special_ids=range(5))
    alone, helped = (datamodule(num_workers=count, views=views) for count in (0, 2))
    for module in (alone, helped):
        module.setup()
    names = ("input_ids", "attention_mask", "context", "places", "starts", "ends", "cls", "question", "index")
    pairs = [(alone.train_dataloader(), helped.train_dataloader())]
    pairs += [(alone.test_dataloader(), helped.test_dataloader())]
    for first, second in pairs:
        for ours, theirs in zip(first, second, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in names)
            assert [*ours["questions"]] == [*theirs["questions"]]
            assert (ours["scale"], ours["tokens"]) == (theirs["scale"], theirs["tokens"])


def test_training_hides_tokens_and_validation_does_not(datamodule):
    views = RandomViews(0.0, 0.5, mask_id=4, special_ids=range(5))
    hiding, plain = datamodule(views=views), datamodule()
    for module in (hiding, plain):
        module.setup()
    for ours, theirs in zip(hiding.val_dataloader(), plain.val_dataloader(), strict=True):  # the training sample, too
        assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(ours, theirs, strict=True))
    assert any((batch["input_ids"] == 4).any() for batch in hiding.train_dataloader())
    assert not any((batch["input_ids"] == 4).any() for batch in plain.train_dataloader())


def test_setting_up_again_cuts_nothing_again(datamodule):
    module = datamodule()
    module.setup("fit")
    tokens = module.tokens("val")
    module.setup("validate")
    assert module.tokens("val") is tokens
