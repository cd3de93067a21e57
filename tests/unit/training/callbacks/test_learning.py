"""Each guard on a case that was made for it, and none of them on a healthy run."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from doctune.errors import ConfigError
from doctune.training.alarms import Alarms
from doctune.training.callbacks.learning import Chance, DivergedError, LearningGuards

# Four classes: ln 4 is 1.39.
CHANCE = Chance(
    uniform_loss=math.log(4),
    choices="the number of classes",
    train_loss=1.2,
    prior="answering with the shares of the classes",
    name="majority",
    levels={"f1_macro": 0.2, "accuracy": 0.5, "loss": 1.25},
    words=dict.fromkeys(("f1_macro", "accuracy"), "always answering with the most frequent class")
    | {"loss": "answering with the shares of the classes"},
    remedy="loss.class_weights=none",
)
STEPS = 4
LEARNING = [1.4, 1.3, 1.2, 1.1]
HEALTHY = [1.0, 0.8, 0.6, 0.4]
RISING = [0.3, 0.5, 0.7, 0.8]
DIVERGED = (
    " at a learning rate of 0.1. To try: a lower optim.lr, a longer warmup (schedule.warmup_ratio), a smaller "
    "trainer.gradient_clip_val, or trainer.precision=32."
)


def forward_pass(ends_step, documents=2, scale=0.5):
    return {"index": torch.zeros(documents, dtype=torch.long), "scale": scale, "ends_step": ends_step}


class Scripted(LightningModule):
    """An epoch is four steps of `accumulation` forward passes of two documents.

    The losses of forward passes and of validations are what the test wrote down.
    """

    def __init__(self, losses, train, val, scores, name_of_score="val/f1_macro", accumulation=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.losses, self.train_losses, self.val_losses, self.scores = losses, train, val, scores
        self.name_of_score, self.accumulation = name_of_score, accumulation
        self.met = 0

    def training_step(self, batch, batch_idx):
        loss = self.losses[self.met] if self.met < len(self.losses) else self.losses[-1]
        self.met += 1
        return {"loss": self.weight.sum(), "cross_entropy": torch.tensor(loss * len(batch["index"]))}

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        epoch = self.current_epoch
        self.log_dict({"train_eval/loss": self.train_losses[epoch], "val/loss": self.val_losses[epoch]})
        if self.name_of_score != "val/loss":
            self.log(self.name_of_score, self.scores[epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        step = [forward_pass(number == self.accumulation - 1) for number in range(self.accumulation)]
        return DataLoader(step * STEPS, batch_size=None)

    val_dataloader = train_dataloader


class Run:
    def __init__(self, monitor="val/f1_macro", mode="max", weights=(1.0, 1.0, 1.0, 1.0), explosion=3.0, chance=CHANCE):
        self.alarms = Alarms(lambda every, active: None)
        self.monitor = monitor
        self.guards = LearningGuards(
            chance, torch.tensor(weights), monitor=monitor, mode=mode, explosion=explosion, weight_ratio=50.0,
            alarms=self.alarms,
        )  # fmt: skip

    def fit(self, losses=LEARNING, train=HEALTHY, val=HEALTHY, scores=RISING, epochs=4, callbacks=(), **settings):
        accumulation = settings.get("accumulate_grad_batches", 1)
        self.module = Scripted(losses, train, val, scores, self.monitor, accumulation)
        self.trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
            enable_model_summary=False, enable_checkpointing=bool(callbacks), callbacks=[self.guards, *callbacks],
            **{"log_every_n_steps": 1} | settings,
        )  # fmt: skip
        self.trainer.fit(self.module)
        return self

    @property
    def said(self):
        return {alarm["guard"]: alarm["message"] for alarm in self.alarms.to_list()}

    @property
    def spans(self):
        return {alarm["guard"]: (alarm["epoch"], alarm["cleared"]) for alarm in self.alarms.to_list()}


def test_a_healthy_run_hears_nothing():
    assert Run().fit().said == {}


def test_a_run_in_which_nothing_is_trainable_is_refused():
    guards = Run().guards
    module = Scripted(LEARNING, HEALTHY, HEALTHY, RISING)
    module.requires_grad_(False)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, callbacks=[guards],
    )  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        trainer.fit(module)
    assert str(refused.value) == "Nothing would learn: every weight is frozen. Choose another finetune=."


def test_a_model_that_is_only_judged_may_be_frozen():
    run = Run()
    run.module = Scripted(LEARNING, HEALTHY, HEALTHY, RISING)
    run.module.requires_grad_(False)
    run.guards.setup(None, run.module, "validate")
    assert run.said == {}


def test_extreme_class_weights_are_called_so_before_training():
    run = Run(weights=(40.0, 0.02, 1.0, 0.0)).fit()  # the last class has no training documents
    assert run.said == {
        "class_weights": "The class weights are extreme: the rarest class counts 2,000 times as much as the "
        "commonest, so single documents can unsettle training. To try: loss.class_weights=effective, "
        "data.sampling.method=oversample data.sampling.strength=0.5, or split.small_classes=merge."
    }
    assert run.spans == {"class_weights": (0, None)}


@pytest.mark.parametrize("weights", [(49.0, 1.0, 1.0, 1.0), (49.0, 1.0, 1.0, 0.0)])
def test_class_weights_below_the_ratio_are_not_extreme(weights):
    assert Run(weights=weights).fit().said == {}


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (
            2.5,
            "The first step's loss is 2.50, and a model that knows nothing yet has 1.39 (ln of the number of "
            "classes). The head answers with too much certainty: its weights or the encoder's outputs are unusually "
            "large.",
        ),
        (
            0.5,
            "The first step's loss is 0.50, and a model that knows nothing yet has 1.39 (ln of the number of "
            "classes). The model knows these labels already: was it trained on these documents, or is a class so "
            "common?",
        ),
    ],
)
def test_a_first_loss_far_from_knowing_nothing_is_noted(loss, sentence):
    run = Run().fit(losses=[loss, 1.2])
    assert run.said == {"initial_loss": sentence}
    assert run.spans == {"initial_loss": (1, None)}


@pytest.mark.parametrize("loss", [0.7, 2.07])  # half and one and a half of ln 4 are 0.693 and 2.079
def test_a_first_loss_near_knowing_nothing_is_not(loss):
    assert Run().fit(losses=[loss, 1.0]).said == {}


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "nan"), (math.inf, "inf")])
def test_a_loss_that_is_no_number_ends_the_run_in_its_step(loss, word):
    run = Run()
    with pytest.raises(DivergedError) as ended:
        run.fit(losses=[*LEARNING, 1.0, loss])
    assert str(ended.value) == f"The training loss became {word} in epoch 2, step 6," + DIVERGED
    assert run.module.met == 6


def test_without_a_look_at_each_step_the_message_still_names_the_step():
    run = Run()
    with pytest.raises(DivergedError, match=r"became nan in epoch 1, step 2,"):
        run.fit(losses=[1.4, math.nan, 1.0, 1.0], log_every_n_steps=100)
    assert run.module.met == 4  # found before the validation


@pytest.mark.parametrize("place", [6, 7, 8])  # of the three forward passes of the third step
@pytest.mark.parametrize("often", [1, 100])
def test_of_several_forward_passes_the_message_names_their_step(place, often):
    losses = [1.2] * 12
    losses[place] = math.nan
    with pytest.raises(DivergedError, match=r"became nan in epoch 1, step 3,"):
        Run().fit(losses=losses, log_every_n_steps=often, accumulate_grad_batches=3)


def test_no_checkpoint_of_the_epoch_has_the_broken_weights(tmp_path):
    with pytest.raises(DivergedError):
        Run().fit(
            losses=[*LEARNING, 1.0, math.nan, 1.0],
            log_every_n_steps=100,
            callbacks=[ModelCheckpoint(tmp_path, "{epoch}-{step}", save_top_k=-1, save_last=True)],
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch=0-step=4.ckpt", "last.ckpt"]


def test_no_checkpoint_within_an_epoch_has_the_broken_weights(tmp_path):
    with pytest.raises(DivergedError, match="step 3,"):
        Run().fit(
            losses=[1.4, 1.3, math.nan, 1.0],
            log_every_n_steps=100,
            callbacks=[ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)],
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=1.ckpt", "step=2.ckpt"]


def test_an_exploding_loss_ends_the_run_in_its_step():
    # Smoothed: 1.4 … 1.4, then 1.4 + 0.1 × 18.6 = 3.26, then 3.26 + 0.1 × 16.74 = 4.934, which is above 3 × 1.4.
    run = Run()
    with pytest.raises(DivergedError) as ended:
        run.fit(losses=[1.4, 1.4, 1.4, 20.0, 20.0])
    expected = "The training loss exploded to 4.93, from 1.40 at its lowest in epoch 2, step 5," + DIVERGED
    assert str(ended.value) == expected
    assert run.module.met == 5


def test_a_small_loss_may_become_many_times_larger_below_chance():
    # Smoothed it falls to 0.387 and rises to 0.736, below one and a half of ln 4.
    assert Run(explosion=1.2).fit(losses=[0.7, *[0.1] * 7, *[1.0] * 8]).said == {}


def test_a_single_outlier_is_no_explosion():
    assert Run().fit(losses=[1.4, 1.3, 20.0, *LEARNING]).said == {}


def test_steps_are_smoothed_not_forward_passes():
    whole = Run().fit(losses=[1.4, 1.2, 1.0, 0.8], epochs=1)
    cut = Run().fit(losses=[1.5, 1.3, 1.3, 1.1, 1.1, 0.9, 0.9, 0.7], epochs=1, accumulate_grad_batches=2)
    # 1.4, 1.4 - 0.02 = 1.38, 1.38 - 0.038 = 1.342, 1.342 - 0.0542 = 1.2878
    assert whole.guards.state_dict() == {"smoothed": pytest.approx(1.2878), "lowest": pytest.approx(1.2878)}
    assert cut.guards.state_dict() == {"smoothed": pytest.approx(1.2878), "lowest": pytest.approx(1.2878)}


def test_one_look_at_several_steps_finds_what_one_look_at_each_does():
    losses = [1.4, 1.4, 1.2, 1.0]
    often, rarely = (Run().fit(losses=losses, epochs=1, log_every_n_steps=every) for every in (1, 100))
    assert often.guards.state_dict() == rarely.guards.state_dict()


def feed(guards, *passes):
    """Give the guards forward passes: the mean loss of its documents, and the batch."""
    rate = [SimpleNamespace(param_groups=[{"lr": 0.1}])]
    trainer = SimpleNamespace(current_epoch=0, global_step=0, log_every_n_steps=1, optimizers=rate)
    for loss, batch in passes:
        trainer.global_step += batch["ends_step"]
        outputs = {"cross_entropy": torch.tensor(loss * len(batch["index"]))}
        guards.on_train_batch_end(trainer, None, outputs, batch, 0)
    return guards.state_dict()


UNTOUCHED = {"smoothed": None, "lowest": math.inf}


def test_a_steps_loss_is_the_mean_over_its_documents():
    state = feed(Run().guards, (1.0, forward_pass(False, documents=6)), (1.8, forward_pass(True, documents=2)))
    assert state == {"smoothed": pytest.approx(1.2), "lowest": pytest.approx(1.2)}


@pytest.mark.parametrize("loss", [1.8, math.nan])
def test_a_step_that_was_cut_short_is_not_counted(loss):
    guards = Run().guards
    assert feed(guards, (loss, forward_pass(False))) == UNTOUCHED
    after = feed(Run().guards, (1.2, forward_pass(False)), (1.4, forward_pass(True)), (loss, forward_pass(False)))
    assert after == {"smoothed": pytest.approx(1.3), "lowest": pytest.approx(1.3)}


FLAT = [1.19, 1.19, 1.19, 1.19]  # 0.98 of chance is 1.176


def test_a_flat_loss_is_called_no_learning_after_two_epochs():
    run = Run().fit(train=FLAT, epochs=2)
    assert run.said["no_learning"] == (
        "No learning: after 2 epochs the training loss is 1.19, and answering with the shares of the classes alone "
        "gives 1.20. To try: another optim.lr (ten times higher or lower), finetune=full, longer windows "
        "(data.max_length); or look whether the labels belong to the texts."
    )
    assert run.spans["no_learning"] == (2, None)


def test_a_run_of_one_epoch_is_not_waited_for():
    run = Run().fit(train=FLAT, epochs=1)
    assert run.said["no_learning"].startswith("No learning: after 1 epoch the training loss is 1.19, and answering ")
    assert run.spans["no_learning"] == (1, None)


def test_learning_that_begins_late_takes_it_back():
    assert Run().fit(train=[1.2, 1.2, 1.0, 0.6]).spans == {"no_learning": (2, 3)}


def test_no_better_than_the_majority_is_said_and_taken_back_when_it_recovers():
    run = Run().fit(scores=[0.1, 0.2, 0.3, 0.4])  # 0.2 in single precision is not better than 0.2
    assert run.said == {
        "majority": "No better than the majority baseline in epoch 2: val/f1_macro is 0.2000, and always answering "
        "with the most frequent class gives 0.2000. To try: more epochs, another optim.lr, loss.class_weights=none; "
        "or look whether the labels belong to the texts."
    }
    assert run.spans == {"majority": (1, 3)}


def test_where_less_is_better_the_loss_is_compared_with_that_of_the_shares():
    run = Run("val/loss", "min").fit(val=[1.3, 1.2, 0.5, 0.4])
    assert run.said == {
        "majority": "Worse than the majority baseline in epoch 1: val/loss is 1.3000, and answering with the shares "
        "of the classes gives 1.2500. To try: more epochs, another optim.lr, loss.class_weights=none; or look whether "
        "the labels belong to the texts."
    }
    assert run.spans == {"majority": (1, 2)}


def test_accuracy_is_compared_with_accuracy():
    assert Run("val/accuracy").fit(scores=[0.4, 0.45, 0.49, 0.51]).spans == {"majority": (1, 4)}


HIGH = [1.0, 1.0, 0.9, 0.9]  # above 0.6 × 1.2 = 0.72


def test_losses_that_stay_high_are_called_underfitting_in_the_second_half_only():
    run = Run().fit(train=HIGH, val=[1.1, 1.1, 1.1, 0.95])
    assert run.said == {
        "underfitting": "Underfitting: in epoch 4 of 4 both losses are still high (training 0.90, validation 0.95; "
        "knowing nothing gives 1.20). To try: more trainer.max_epochs, a higher optim.lr, finetune=full, a larger "
        "model=, less dropout."
    }
    assert run.spans == {"underfitting": (3, None)}


def test_one_low_loss_is_no_underfitting():
    assert Run().fit(train=[1.0, 0.8, 0.6, 0.4], val=[1.1] * 4).said == {}


def test_losses_that_fall_at_last_are_no_underfitting_any_more():
    assert Run().fit(train=[1.0, 1.0, 0.9, 0.4], val=[1.1, 1.1, 1.1, 0.6]).spans == {"underfitting": (3, 4)}


def test_a_stand_in_document_is_not_looked_at():
    stand_in = forward_pass(True, documents=1, scale=0.0)
    state = feed(Run().guards, (1.2, forward_pass(False)), (math.nan, stand_in))
    assert state == {"smoothed": pytest.approx(1.2), "lowest": pytest.approx(1.2)}


def test_a_step_of_which_this_process_has_a_stand_in_only_is_not_looked_at():
    assert feed(Run().guards, (math.nan, forward_pass(True, documents=1, scale=0.0))) == UNTOUCHED


def test_a_resumed_run_takes_the_smoothed_loss_up_and_has_no_first_step():
    first = Run().fit(epochs=1)
    # 1.4, 1.4 + 0.1 × -0.1 = 1.39, 1.39 - 0.019 = 1.371, 1.371 - 0.0271 = 1.3439
    assert first.guards.state_dict() == {"smoothed": pytest.approx(1.3439), "lowest": pytest.approx(1.3439)}
    resumed = Run()
    resumed.guards.load_state_dict(first.guards.state_dict())
    resumed.fit(losses=[0.5])
    assert resumed.said == {}


def test_a_model_that_has_learnt_before_is_measured_by_what_it_was():
    before = replace(CHANCE, has_learnt_before=True, prior="the model before training", pairing="both belong together")
    knowing = Run(chance=before).fit(losses=[0.5, 0.4, 0.4, 0.4], train=[1.1] * 4, val=[1.15] * 4)
    assert knowing.said == {}  # for a new head this would be a first loss too low and losses too high
    still = Run(chance=before).fit(train=FLAT, epochs=2)
    assert still.said["no_learning"] == (
        "No learning: after 2 epochs the training loss is 1.19, and the model before training alone gives 1.20. To "
        "try: another optim.lr (ten times higher or lower), finetune=full, longer windows (data.max_length); or look "
        "whether both belong together."
    )
