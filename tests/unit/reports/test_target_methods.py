"""The paragraph on methods of runs with several targets."""

from __future__ import annotations

import pytest

from doctune.reports.methods import describe_methods
from doctune.reports.target_records import read_targets_run
from doctune.reports.targets import build_report

CONFIG = {
    "model": {"name": "mini"},
    "data": {"kind": "multi_task", "max_length": 64, "vector": "mean", "duplicate_threshold": 1},
    "loss": {"label_smoothing": 0.1, "class_weights": "balanced", "balance": "fixed"},
    "optim": {"lr": 2e-5, "head_lr_multiplier": 2.0, "weight_decay": 0.01},
    "schedule": {"name": "linear", "warmup_ratio": 0},
    "trainer": {"max_epochs": 10, "effective_batch_size": 16},
}


@pytest.fixture
def report(make_targets_run):
    return build_report(read_targets_run(make_targets_run()))


def with_loss(**changes):
    return CONFIG | {"loss": CONFIG["loss"] | changes}


def test_the_paragraph_says_heads_losses_thresholds_and_scores(report):
    low, high = report["test"]["ci95"]["f1_macro"]
    kind_low, _ = report["targets"]["kind"]["test"]["ci95"]["f1_macro"]
    text = describe_methods(report, CONFIG)
    assert text.startswith(
        "The model was mini, linear heads on a DistilBERT encoder (Sanh et al. 2019), with 4,500,000 parameters, "
        "trained from random weights. "
        "The 2 targets were kind (2 labels, one per text) and tags (2 labels, any number per text). All heads read the "
        "same vector of a text, the mean of the last hidden states of its tokens (Caruana 1997). "
        "Each text was represented by its first 64 tokens. "
        "40 texts were used for training, 40 for validation and 40 for testing; copies of a text stayed in one part. "
        "The loss of each target was the mean over the texts that know it: of targets with one label per text it was "
        "the cross entropy, with class weights inversely proportional to the class frequencies (King & Zeng 2001) and "
        "label smoothing of 0.1 (Szegedy et al. 2016); of targets with any number of labels it was the mean over the "
        "labels of the binary cross entropy, each label weighted, where it applies, by the training texts without it "
        "over those with it. They were added up with the fixed weights 0.8 (kind) and 1.2 (tags). "
        "Their sum was minimised with AdamW (Loshchilov & Hutter 2019) with a weight decay of 0.01 in batches of 16 "
        "texts for at most 10 epochs. "
        "The learning rate started at 2e-5 (4e-5 for the heads) and then fell linearly to zero. "
    )
    assert (
        "A label of a target with any number of them was said where its probability reached a threshold, chosen on "
        "validation texts for the best F1 of the label; labels with fewer than 10 such texts shared the threshold with "
        "the best macro F1. "
        "On the 40 test texts, macro F1 was 0.986 on average over the targets (95 % percentile bootstrap interval over "
        f"texts {low:.3f} to {high:.3f}; Efron 1979): 0.972 ({kind_low:.3f} to 1.000) for kind and 1.000 (1.000 to "
        "1.000) for tags. "
        "On the same texts the most frequent training label scored 0.300 for kind; balanced logistic regressions on "
        "TF-IDF features (Lewis et al. 2004) scored 0.400 for tags. "
    ) in text


def test_learnt_weights_are_cited_and_given(report):
    text = describe_methods(report, with_loss(balance="uncertainty"))
    assert (
        "They were added up with weights learnt from the homoscedastic uncertainty of each target (Kendall, Gal & "
        "Cipolla 2018), which ended at 0.8 (kind) and 1.2 (tags)."
    ) in text


def test_equal_weights_and_focal_losses_are_said_so(report):
    for found in report["targets"].values():
        found["weight"] = 1.0
    text = describe_methods(report, with_loss(name="focal", gamma=2.0, class_weights="effective", label_smoothing=0))
    assert (
        "one label per text it was the focal loss with a gamma of 2 (Lin et al. 2017), with class weights by the "
        "effective number of samples (Cui et al. 2019); of targets with any number of labels it was the mean over the "
        "labels of the focal loss with a gamma of 2 (Lin et al. 2017), each label weighted, where it applies, by the "
        "effective number of training texts without it over that of those with it (Cui et al. 2019). They were added "
        "up. Their sum"
    ) in text


def test_what_was_not_recorded_is_left_out(report):
    for found in report["targets"].values():
        found["baselines"] = {}
        for row in found["per_label"]:
            row["threshold"] = None
    text = describe_methods(report, {})
    for word in ("loss", "vector", "On the same texts", "threshold", "None"):
        assert word not in text
    assert "The 2 targets were kind" in text
