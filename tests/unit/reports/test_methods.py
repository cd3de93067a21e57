from __future__ import annotations

import pytest

from doctune.reports.methods import describe_methods

CONFIG = {
    "model": {"name": "mini", "dropout": None},
    "data": {"kind": "file_content", "max_length": 512, "duplicate_threshold": 0.8},
    "finetune": {"strategy": "full", "layers": None},
    "loss": {"label_smoothing": 0.1, "class_weights": "balanced"},
    "optim": {"lr": 2e-5, "head_lr_multiplier": 2.0, "weight_decay": 0.01},
    "schedule": {"name": "linear", "warmup_ratio": 0.1},
    "split": {"kind": "holdout", "fold": None, "folds": 5, "seed": 42},
    "trainer": {
        "max_epochs": 10,
        "accelerator": "auto",
        "effective_batch_size": 16,
        "micro_batch_size": 4,
        "gradient_clip_val": 1.0,
    },
    "callbacks": {"early_stopping": {"patience": 3}},
}


@pytest.fixture
def report():
    """What `build_report` gives, as far as methods are concerned."""
    scores = {"documents": 384, "f1_macro": 0.9, "ci95": {"f1_macro": [0.85, 0.94]}}
    return {
        "model": {"name": "mini", "architecture": "distilbert", "total": 4_500_000, "trainable": 4_500_000},
        "account": {"parts": {"train": 3066, "val": 383, "test": 384, "left_out": 152}},
        "labels": ["a", "b", "c"],
        "precision": "16-mixed",
        "micro_batch_size": None,
        "hardware": {"gpus": ["NVIDIA H200", "NVIDIA H200"], "processor": "Processor X", "cores": 16},
        "training_seconds": 192.4,
        "stopped": "early_stopping",
        "epochs": 7,
        "best_epoch": 4,
        "monitor": {"metric": "val/f1_macro", "mode": "max"},
        "part": "test",
        "comparison": {"metric": "f1_macro"},
        "test": scores,
        "val": scores,
        "baselines": {"majority": {"test": {"f1_macro": 0.1}}, "tfidf_svm": {"test": {"f1_macro": 0.8}}},
        "versions": {"doctune": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "numpy": "2.4.6", "lightning": None},
        "seed": 0,
    }


def changed(**groups):
    return {name: values | groups.get(name, {}) for name, values in CONFIG.items()}


def test_the_paragraph_says_what_a_publication_needs(report):
    assert describe_methods(report, CONFIG) == (
        "The model was mini, a classification head on a DistilBERT encoder (Sanh et al. 2019), with 4,500,000 "
        "parameters, trained from random weights. "
        "Each document was represented by its first 512 tokens. "
        "3,066 documents of 3 classes were used for training, 383 for validation and 384 for testing; documents whose "
        "sets of word shingles had a Jaccard similarity of at least 0.8 (Broder 1997) stayed in one part. "
        "The loss was cross entropy, with class weights inversely proportional to the class frequencies (King & Zeng "
        "2001) and label smoothing of 0.1 (Szegedy et al. 2016). "
        "It was minimised with AdamW (Loshchilov & Hutter 2019) with a weight decay of 0.01 in batches of 16 documents "
        "(gradients of 4 passes over 4 documents) for at most 10 epochs. "
        "The learning rate rose to 2e-5 (4e-5 for the classification head) over the first 10 % of all steps "
        "and then fell linearly to zero. "
        "Gradients were clipped to a norm of 1 (Pascanu et al. 2013). "
        "Training in mixed precision with 16-bit floats (Micikevicius et al. 2018) on 2 × NVIDIA H200 took 3 min 12 s. "
        "Training was stopped after 7 epochs, when the validation macro F1 had not improved for 3 epochs. "
        "The weights of epoch 4, the best by validation macro F1, were kept. "
        "On the 384 test documents, macro F1 was 0.900 (95 % percentile bootstrap interval 0.850 to 0.940; Efron "
        "1979). "
        "On the same documents the most frequent training label scored 0.100 and a linear support vector machine on "
        "TF-IDF features (Joachims 1998) scored 0.800. "
        "We used doctune 0.1.0, PyTorch 2.13.0 (Paszke et al. 2019) and Python 3.11.7 with the random seed 0 (42 for "
        "the split)."
    )


def test_what_a_run_did_not_record_is_left_out(report):
    bare = report | {
        "model": {},
        "account": {},
        "precision": None,
        "hardware": {},
        "training_seconds": None,
        "stopped": None,
        "best_epoch": None,
        "baselines": {},
        "versions": {},
        "seed": None,
    }
    assert describe_methods(bare, {}) == (
        "Training ended after 7 epochs. "
        "On the 384 test documents, macro F1 was 0.900 (95 % percentile bootstrap interval 0.850 to 0.940; Efron 1979)."
    )


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            {"model": {"path": "distilbert/distilbert-base-uncased"}},
            "4,500,000 parameters, fine-tuned from distilbert/distilbert-base-uncased.",
        ),
        ({"model": {"path": "/home/me/models/mine"}}, "parameters, fine-tuned from mine."),
        (
            {"finetune": {"strategy": "head"}},
            "The encoder was frozen, which left 4,500,000 parameters to train.",
        ),
        ({"finetune": {"strategy": "head"}}, "The learning rate rose to 4e-5 over the first 10 %"),
        (
            {"finetune": {"strategy": "partial", "layers": 1}},
            "The embeddings and the first encoder layer were frozen, which left 4,500,000 parameters to train.",
        ),
        ({"finetune": {"strategy": "partial", "layers": 4}}, "and the first 4 encoder layers were frozen, which"),
        ({"data": {"duplicate_threshold": 1}}, "384 for testing; copies of a document stayed in one part."),
        (
            {"split": {"kind": "kfold", "fold": 0}},
            "stayed in one part; the test documents were fold 1 of 5.",
        ),
        ({"loss": {"label_smoothing": 0.0, "class_weights": "none"}}, "The loss was cross entropy. It was"),
        (
            {"finetune": {"strategy": "lora", "rank": 8, "target_modules": ["query", "value"]}},
            "The encoder was frozen, and low-rank adapters of rank 8 beside query, value learnt (Hu et al. 2022), "
            "which left 4,500,000 parameters to train.",
        ),
        (
            {"finetune": {"strategy": "qlora", "rank": 4}},
            "The encoder, in four bits (NF4; Dettmers et al. 2023), was frozen, and low-rank adapters of rank 4 learnt",
        ),
        (
            {"finetune": {"strategy": "gradual"}},
            "The head was trained alone at first, then one more encoder layer in each epoch (Howard & Ruder 2018).",
        ),
        (
            {"loss": {"name": "focal", "gamma": 2.0, "class_weights": "effective", "label_smoothing": 0.0}},
            "The loss was the focal loss with a gamma of 2 (Lin et al. 2017), with class weights by the effective "
            "number of samples (Cui et al. 2019).",
        ),
        (
            {"data": {"sampling": {"method": "oversample"}}},
            "In each epoch documents of rare classes were shown more often.",
        ),
        (
            {"data": {"augment": {"random_window": 0.5, "windows": 4, "token_dropout": 0.1}}},
            "Training showed one of the first 4 windows of a document instead of its first with probability 0.5 and "
            "the mask instead of a token with probability 0.1 (Dai & Le 2015).",
        ),
        (
            {"schedule": {"name": "one_cycle", "warmup_steps": 100}},
            "over the first 100 steps and then fell to nearly zero, in one cycle (Smith & Topin 2019).",
        ),
        (
            {"optim": {"layer_decay": 0.9}},
            "to zero, each encoder layer at 0.9 of the rate of the layer above it (Clark et al. 2020).",
        ),
        ({"trainer": {"micro_batch_size": None}}, "in batches of 16 documents for at most 10 epochs."),
        ({"trainer": {"accelerator": "cpu"}}, "on the processor Processor X (16 cores) took 3 min 12 s."),
        ({"schedule": {"name": "cosine"}}, "and then fell to zero along a cosine (Loshchilov & Hutter 2017)."),
        (
            {"schedule": {"name": "constant", "warmup_ratio": 0.0}, "optim": {"head_lr_multiplier": 1.0}},
            "The learning rate started at 2e-5 and then stayed constant.",
        ),
    ],
)
def test_other_choices_have_other_words(report, groups, sentence):
    assert sentence in describe_methods(report, changed(**groups))


def test_clipping_that_is_off_is_not_mentioned(report):
    assert "clipped" not in describe_methods(report, changed(trainer={"gradient_clip_val": 0.0}))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"stopped": "diverged"}, "Training was stopped after 7 epochs (diverged)."),
        (
            {"stopped": "gap"},
            "Training was stopped after 7 epochs, when the gap between validation and training loss was critical.",
        ),
        ({"micro_batch_size": 2}, "in batches of 16 documents (gradients of 8 passes over 2 documents) for"),
        ({"stopped": "max_epochs"}, "Training ended after 7 epochs."),
        ({"precision": "64-true"}, "Training in precision 64-true on"),
        ({"monitor": {"metric": "val/loss"}}, "The weights of epoch 4, the best by validation loss, were kept."),
        ({"part": "val"}, "On the 384 validation documents, which had also chosen the epoch, macro F1 was 0.900"),
        ({"model": {"name": "m", "architecture": "new"}}, "The model was m, a classification head on a new encoder, "),
        ({"versions": {}}, "It was run with the random seed 0 (42 for the split)."),
    ],
)
def test_other_runs_have_other_words(report, facts, sentence):
    assert sentence in describe_methods(report | facts, CONFIG)
