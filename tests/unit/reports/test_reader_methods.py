from __future__ import annotations

import pytest

from doctune.reports.methods import describe_methods

CONFIG = {
    "model": {"name": "distilbert", "path": "distilbert/distilbert-base-uncased"},
    "data": {"kind": "squad", "max_length": 384, "doc_stride": 128, "max_answer_length": 30},
    "finetune": {"strategy": "full"},
    "loss": {"label_smoothing": 0.0},
    "optim": {"lr": 3e-5, "head_lr_multiplier": 2.0, "weight_decay": 0.01},
    "schedule": {"name": "linear", "warmup_ratio": 0.1},
    "split": {"kind": "holdout", "fold": None},
    "trainer": {"max_epochs": 2, "effective_batch_size": 32, "micro_batch_size": 16},
}


@pytest.fixture
def report():
    """What `reader.build_report` gives, as far as methods are concerned."""
    scores = {"questions": 2080, "f1": 0.771, "exact_match": 0.66, "ci95": {"f1": [0.75, 0.79]}}
    return {
        "task": "question_answering",
        "model": {"name": "distilbert", "architecture": "distilbert", "total": 66_364_418},
        "account": {
            "parts": {"train": 6603, "val": 1, "test": 2080, "left_out": 7},
            "articles": {"train": 30, "val": 1, "test": 8},
        },
        "precision": "bf16-mixed",
        "micro_batch_size": None,
        "hardware": {"gpus": ["NVIDIA H200"]},
        "training_seconds": 192.4,
        "stopped": "max_epochs",
        "epochs": 2,
        "best_epoch": 2,
        "monitor": {"metric": "val/f1", "mode": "max"},
        "part": "test",
        "comparison": {"metric": "f1"},
        "test": scores,
        "val": scores,
        "baselines": {"lexical": {"test": {"f1": 0.188}}, "untrained": {"test": {"f1": 0.1}}},
        "versions": {"doctune": "0.1.0"},
        "seed": 0,
        "version": "1.1",
        "no_answer_threshold": None,
    }


def test_the_paragraph_says_what_a_publication_needs(report):
    assert describe_methods(report, CONFIG) == (
        "The model was distilbert, a span head on a DistilBERT encoder (Sanh et al. 2019), with 66,364,418 "
        "parameters, fine-tuned from distilbert/distilbert-base-uncased. "
        "Each question was read beside its context in windows of 384 tokens, neighbouring ones sharing 128 tokens of "
        "the context. "
        "There were 6,603 questions about 30 articles for training, 1 question about 1 article for validation and "
        "2,080 questions about 8 articles for testing; no context stood in two parts. "
        "The loss was the mean of the cross entropies of the answer's first and last token (Devlin et al. 2019). "
        "It was minimised with AdamW (Loshchilov & Hutter 2019) with a weight decay of 0.01 in batches of 32 windows "
        "(gradients of 2 passes over 16 windows) for at most 2 epochs. "
        "The learning rate rose to 3e-5 (6e-5 for the span head) over the first 10 % of all steps and then fell "
        "linearly to zero. "
        "Training in mixed precision with bfloat16 (Kalamkar et al. 2019) on 1 × NVIDIA H200 took 3 min 12 s. "
        "Training ended after 2 epochs. "
        "The weights of epoch 2, the best by validation F1, were kept. "
        "The answer was the span of at most 30 tokens with the highest score of all windows (Devlin et al. 2019). "
        "Exact match and F1 are those of the SQuAD 1.1 evaluation script (Rajpurkar et al. 2016). "
        "On the 2,080 test questions, F1 was 0.771 (95 % percentile bootstrap interval 0.750 to 0.790; Efron 1979) "
        "and exact match 0.660. "
        "On the same questions the rarest words of the sentence that shares most with the question scored 0.188 and "
        "the same model before training scored 0.100. "
        "We used doctune 0.1.0 with the random seed 0."
    )


def test_questions_may_be_left_unanswered_in_version_2(report):
    text = describe_methods(report | {"version": "2.0", "no_answer_threshold": 1.25}, CONFIG)
    assert (
        "with the highest score of all windows (Devlin et al. 2019); a question was left unanswered where having no "
        "answer scored more than 1.250 above the span, a threshold chosen on validation questions. "
        "Exact match and F1 are those of the SQuAD 2.0 evaluation script (Rajpurkar et al. 2018)."
    ) in text


def test_three_baselines_are_listed(report):
    baselines = report["baselines"] | {"no_answer": {"test": {"f1": 0.5}}}
    text = describe_methods(report | {"baselines": baselines}, CONFIG)
    assert "scored 0.188, the same model before training scored 0.100 and leaving every question unanswered " in text


def test_what_a_run_did_not_record_is_left_out(report):
    bare = report | {
        "model": {},
        "account": {},
        "precision": None,
        "hardware": {},
        "training_seconds": None,
        "best_epoch": None,
        "monitor": {},
        "baselines": {},
        "versions": {},
        "seed": None,
    }
    assert describe_methods(bare, {}) == (
        "Training ended after 2 epochs. "
        "The answer was the span with the highest score of all windows (Devlin et al. 2019). "
        "Exact match and F1 are those of the SQuAD 1.1 evaluation script (Rajpurkar et al. 2016). "
        "On the 2,080 test questions, F1 was 0.771 (95 % percentile bootstrap interval 0.750 to 0.790; Efron 1979) "
        "and exact match 0.660."
    )


def test_without_a_monitored_metric_the_judged_one_chose_the_epoch(report):
    assert "the best by validation F1, were kept." in describe_methods(report | {"monitor": {}}, CONFIG)
