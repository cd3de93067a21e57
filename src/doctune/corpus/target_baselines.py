"""What cheap models score on several targets: the most frequent label or labels, and linear models of TF-IDF features.

A single-label target has the baselines of `baselines`: the majority class and a linear SVM. A multi-label one has

- label_prior: each label is as probable as it is frequent in training, whatever the text says;
- tfidf_logistic: a balanced logistic regression for each label against the rest (D. D. Lewis et al., "RCV1", JMLR 5,
  2004, on text and one-against-rest linear models).

Both choose their thresholds as a net does, on the validation part, so the test part is untouched and their validation
scores flatter them. label_prior then predicts every label for all texts, which is what macro F1 rewards most of those
who do not read.

Shapes: N texts of a part, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.baselines import TOKENS, majority, score_baselines, tfidf_svm
from doctune.corpus.target_corpus import TargetCorpus
from doctune.corpus.targets import TargetSpec, is_known
from doctune.errors import DataError
from doctune.files import write_json, written_whole
from doctune.scoring.multilabel import LabelSets, Thresholds, bootstrap_intervals, score, tune_thresholds

# The inverse of the L2 penalty, and the class weights, by macro F1 over the 28 labels of GoEmotions on halves of a
# tenth of its train.tsv, thresholds chosen on the other half: 0.434 balanced at C = 1 or 5; 0.409 and 0.420 at C = 1
# and 5 without balancing (0.420 and 0.439 with a threshold of its own for every label, however rare). Capitals and
# single words alone scored no higher.
C = 1.0


@dataclass(frozen=True)
class LabelSetBaseline:
    """What a cheap model says of a multi-label target: probabilities (N, L) of the validation and the test texts."""

    name: str
    val: NDArray[np.float64]
    test: NDArray[np.float64]


def judge_target_baselines(corpus: TargetCorpus, run: Path) -> None:
    """Fit the baselines of each target on the training texts and write what they score on the other parts.

    Writes `data/baselines.json`: {target: {baseline: {"val": scores, "test": scores}}}, with `ci95` in each, and
    `predictions/baselines_test.parquet`: the ids, and for each target and baseline a column "target/baseline" of lists
    of label names. Texts that do not know a target are not scored on it.

    Raises:
        DataError: no training text knows a target.
    """
    scores: dict[str, Any] = {}
    columns: dict[str, list[list[str]]] = {}
    for target in corpus.targets:
        judged = _judge_label_sets(corpus, target) if target.is_multi else _judge_single(corpus, target)
        for name, (found, predicted) in judged.items():
            scores.setdefault(target.name, {})[name] = found
            columns[f"{target.name}/{name}"] = predicted
    ids = [text.id for text in corpus.part("test")]
    _write_predictions(ids, columns, run / "predictions" / "baselines_test.parquet")
    write_json(run / "data" / "baselines.json", scores)


def label_prior(train_truth: LabelSets, num_val: int, num_test: int) -> LabelSetBaseline:
    """Each label's share of the training texts, (N, L), as its probability in every text.

    Raises:
        DataError: there is no training text.
    """
    _require_texts(train_truth)
    shares = train_truth.mean(axis=0)
    return LabelSetBaseline("label_prior", np.tile(shares, (num_val, 1)), np.tile(shares, (num_test, 1)))


def tfidf_logistic(
    train_texts: Sequence[str], train_truth: LabelSets, val_texts: Sequence[str], test_texts: Sequence[str]
) -> LabelSetBaseline:
    """A logistic regression for each label on TF-IDF features of words, punctuation marks and pairs of them.

    Words are in lower case and stand in two training texts at least; a term frequency counts by its logarithm. A label
    that all training texts have, or none, is as probable as it is there.

    Args:
        train_texts: in the order of `train_truth`.
        train_truth: (N, L).
        val_texts: the validation texts.
        test_texts: the test texts.

    Raises:
        DataError: there is no training text, or none has a word that another one has.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    _require_texts(train_truth)
    vectorizer = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    try:
        train = vectorizer.fit_transform(train_texts)
    except ValueError as error:
        raise DataError("The TF-IDF baseline found no word that stands in two of the training texts.") from error
    fits = [_fit(train, applies) for applies in np.asarray(train_truth, dtype=bool).T]

    def probabilities(texts: Sequence[str]) -> NDArray[np.float64]:
        if not texts:  # scikit-learn takes no empty table
            return np.empty((0, len(fits)))
        features = vectorizer.transform(texts)
        return np.stack([fit(features) for fit in fits], axis=1)

    return LabelSetBaseline("tfidf_logistic", probabilities(val_texts), probabilities(test_texts))


def _fit(features: Any, applies: NDArray[np.bool_]) -> Callable[[Any], NDArray[np.float64]]:
    """The function from features to the probabilities (N,) of one label."""
    from sklearn.linear_model import LogisticRegression

    if applies.all() or not applies.any():
        return lambda others: np.full(others.shape[0], float(applies[0]))
    model = LogisticRegression(C=C, class_weight="balanced", solver="liblinear", random_state=0)
    model.fit(features, applies)
    return lambda others: model.predict_proba(others)[:, 1]


def score_label_sets(truth: LabelSets, predicted: LabelSets) -> dict[str, Any]:
    """The scores of `MultilabelScores`, and `ci95`: {metric: [low, high]} from 1,000 bootstrap resamples."""
    intervals = bootstrap_intervals(truth, predicted)
    return score(truth, predicted).to_dict() | {"ci95": {name: list(bounds) for name, bounds in intervals.items()}}


# --- one target of a corpus --------------------------------------------------------------------------------------

Judged = dict[str, tuple[dict[str, Any], list[list[str]]]]  # baseline -> scores by part, labels of each test text


def _judge_label_sets(corpus: TargetCorpus, target: TargetSpec) -> Judged:
    texts, truths, known = _parts(corpus, target)
    train = [text for text, is_in in zip(texts["train"], known["train"], strict=True) if is_in]
    train_truth = truths["train"][known["train"]] == 1
    baselines = [
        label_prior(train_truth, len(texts["val"]), len(texts["test"])),
        tfidf_logistic(train, train_truth, texts["val"], texts["test"]),
    ]
    return {each.name: _judge_label_set(each, target, truths, known) for each in baselines}


def _judge_label_set(
    baseline: LabelSetBaseline,
    target: TargetSpec,
    truths: dict[str, NDArray[np.int64]],
    known: dict[str, NDArray[np.bool_]],
) -> tuple[dict[str, Any], list[list[str]]]:
    thresholds = _thresholds(truths["val"][known["val"]] == 1, baseline.val[known["val"]])
    predicted = {"val": thresholds.apply(baseline.val), "test": thresholds.apply(baseline.test)}
    scores = {
        part: score_label_sets(truths[part][known[part]] == 1, found[known[part]]) if known[part].any() else None
        for part, found in predicted.items()
    }
    names = np.array(target.labels.names)
    return scores, [names[row].tolist() for row in predicted["test"]]


def _thresholds(truth: LabelSets, probabilities: NDArray[np.float64]) -> Thresholds:
    if len(truth):
        return tune_thresholds(truth, probabilities)
    num_labels = truth.shape[1]
    return Thresholds(np.full(num_labels, 0.5), 0.5, np.zeros(num_labels, dtype=bool))


def _judge_single(corpus: TargetCorpus, target: TargetSpec) -> Judged:
    texts, truths, known = _parts(corpus, target)
    train = [text for text, is_in in zip(texts["train"], known["train"], strict=True) if is_in]
    train_ids = truths["train"][known["train"]]
    num_labels = len(target.labels)
    baselines = [
        majority(train_ids, len(texts["val"]), len(texts["test"]), num_labels),
        tfidf_svm(train, train_ids, texts["val"], texts["test"]),
    ]
    judged: Judged = {}
    for baseline in baselines:
        known_only = type(baseline)(baseline.name, baseline.val[known["val"]], baseline.test[known["test"]])
        val, test = (truths[part][known[part]] for part in ("val", "test"))
        scores = score_baselines([known_only], val, test, num_labels)[baseline.name]
        judged[baseline.name] = scores, [[target.labels.names[label]] for label in baseline.test]
    return judged


def _parts(
    corpus: TargetCorpus, target: TargetSpec
) -> tuple[dict[str, list[str]], dict[str, NDArray[np.int64]], dict[str, NDArray[np.bool_]]]:
    """Texts, truth, and which texts know the target, by part."""
    texts = {part: [text.text for text in corpus.part(part)] for part in ("train", "val", "test")}
    truths = {part: corpus.truth(target, part) for part in texts}
    return texts, truths, {part: is_known(truth) for part, truth in truths.items()}


def _write_predictions(ids: Sequence[str], columns: dict[str, list[list[str]]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {name: pa.array(labels, pa.list_(pa.string())) for name, labels in columns.items()}
    table = pa.table({"id": pa.array(ids, pa.string()), **lists})
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def _require_texts(train_truth: LabelSets) -> None:
    if len(train_truth) == 0:
        raise DataError("A baseline needs training texts that know its target, and there are none.")
