"""What TensorBoard is given: counts that give torch's own curves, text that stays text, norms only where logged."""

import html
import re

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from tensorboard.plugin_util import markdown_to_safe_html
from torch.utils.data import DataLoader
from torch.utils.tensorboard.summary import compute_curve

from doctune.scoring.classification import confusion_matrix
from doctune.training.callbacks.class_dashboard import INTERVALS, ValidationCounts, confusion_picture
from doctune.training.callbacks.dashboard import GradientNorm, escaped, hyperparameters

NUM_LABELS = 4


@pytest.fixture(scope="module")
def judged():
    """Probabilities (60, 4) and truth (60,); label 3 never occurs, and some probabilities are 0 and 1."""
    chances = np.random.default_rng(0).dirichlet(np.full(NUM_LABELS, 0.3), 60).astype(np.float32)
    chances[0], chances[1] = (1, 0, 0, 0), (0, 0, 1, 0)
    return chances, np.random.default_rng(1).choice(3, 60, p=[0.2, 0.5, 0.3])


@pytest.fixture(scope="module")
def counts(judged):
    chances, truth = judged
    counts = ValidationCounts(NUM_LABELS)
    for start in range(0, 60, 7):
        counts.add(chances[start : start + 7], truth[start : start + 7])
    return counts


def test_counting_in_batches_gives_the_confusion_matrix(judged, counts):
    chances, truth = judged
    assert (counts.confusion == confusion_matrix(truth, chances.argmax(axis=1), NUM_LABELS)).all()


@pytest.mark.parametrize("label", range(NUM_LABELS))
def test_a_label_has_the_curve_that_torch_would_draw(label, judged, counts):
    chances, truth = judged
    expected = compute_curve(truth == label, chances[:, label], INTERVALS)
    assert counts.curve(label) == pytest.approx(expected)


def test_the_micro_average_is_torchs_curve_of_all_decisions(judged, counts):
    chances, truth = judged
    is_truth = truth[:, None] == np.arange(NUM_LABELS)
    assert counts.curve() == pytest.approx(compute_curve(is_truth.ravel(), chances.ravel(), INTERVALS))


def test_what_is_no_number_does_not_stop_a_run():
    counts = ValidationCounts(2)
    counts.add(np.array([[np.nan, np.nan], [1.0000001, 0.0]], np.float32), np.array([1, 0]))
    assert counts.everywhere.sum() == 4
    assert counts.curve(0)[0, -1] == 1


def test_the_most_frequent_labels_are_those_with_documents(counts):
    assert counts.most_frequent(20) == [0, 1, 2]
    assert counts.most_frequent(2) == [1, 2]


def test_the_picture_is_drawn_in_colours_and_not_too_large():
    picture = confusion_picture(np.eye(34, dtype=np.int64), [f"label {n} 文" for n in range(34)], "Validation, epoch 1")
    height, width, channels = picture.shape
    assert (picture.dtype, channels) == (np.uint8, 3)
    assert 300 < height < 1000
    assert 300 < width < 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert('x')</script> & &lt;b&gt;",
        "a | b \\| c",
        "**bold** _em_ `code` ~~gone~~ # head [link](http://x) ![i](y) <http://z>",
        "![](javascript:1) <img src=x onerror=y> $x$ {y} ^1 !!! \"quoted\" 'q' @me",
        "1. ordered - item + item * item --- ===",
        "|---|---|",
    ],
)
def test_a_cell_shows_its_text_and_nothing_else(text):
    page = markdown_to_safe_html(f"| one | two |\n|---|---|\n| {escaped(text)} | end |")
    cells = re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [text, "end"]
    assert {*re.findall(r"<(\w+)", page)} == {"table", "thead", "tbody", "tr", "th", "td"}


def test_white_space_and_what_cannot_be_shown_become_spaces():
    assert escaped("a\n\n| b\tc\x00d\u202ee\udcffé") == "a &#124; b c d e é"


def test_hyperparameters_are_plain_and_without_what_is_not_set(compose):
    values = hyperparameters(compose("optim.lr=3e-4", "data.manifest=x", "model.head_dropout=0.3"))
    assert {type(value) for value in values.values()} <= {str, int, float}
    assert (values["optim.lr"], values["model.head_dropout"], values["seed"]) == (3e-4, 0.3, 42)
    assert values["model.name"] == "distilbert_mini"
    assert "finetune.layers" not in values


class Slope(LightningModule):
    """Two weights whose gradients are 3 and 4 times the step's number."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (self.global_step + 1) * (3 * self.a + 4 * self.b).sum()

    def on_train_batch_end(self, *_):
        self.seen.append(self.trainer.callback_metrics.get("train/grad_norm"))

    def configure_optimizers(self):
        return torch.optim.SGD([{"params": [self.a, self.frozen]}, {"params": [self.b]}], lr=0.1)

    def train_dataloader(self):
        return DataLoader([0.0] * 12)


def test_the_norm_is_that_before_clipping_at_logged_steps(tmp_path):
    module = Slope()
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=2, gradient_clip_val=1.0,
        log_every_n_steps=2, callbacks=[GradientNorm()],
    )  # fmt: skip
    trainer.fit(module)
    # Steps 2, 4 and 6 are logged; each ends with every second batch, whose two losses are averaged.
    norms = [None if value is None else float(value) for value in module.seen]
    assert norms == [None, None, None, 10, 10, 10, 10, 20, 20, 20, 20, 30]
