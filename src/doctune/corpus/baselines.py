"""What a cheap model scores on the same split: the majority class, and TF-IDF with a linear SVM.

A transformer that does not beat these has learnt nothing worth its cost, so they are made to be hard to beat: the
features keep punctuation, capitals and the parts of identifiers (`snake_case` is three tokens), because those tell
file types apart, and the classes are weighted, because macro F1 is what runs are judged by.

Shapes: N documents of a part, L labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doctune.errors import DataError
from doctune.files import write_json, written_whole
from doctune.scoring.classification import STATISTICS, Ids, confusion_matrix, score
from doctune.scoring.intervals import bootstrap_intervals
from doctune.text.groups import bounded_groups

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from doctune.corpus.file_corpus import Corpus
    from doctune.labels import Labels

# Raise it when the same documents may get other predictions.
_VERSION = 1
MAX_CHARS = 4000
NUM_FEATURES = 2**17
BATCH_DOCUMENTS, BATCH_CHARS = 1024, 8 * 1024 * 1024
TOKENS = r"[^\W\d_]+|\d+|[^\w\s]|_"  # letters, digits, and every punctuation mark by itself

# ALPHA is the SVM's L2 penalty: C = 1 / (ALPHA x N), so 20 at 5,000 documents. Chosen, with the averaging and the class
# weights, on files found on one machine (24 file types, 57 Python packages, 20 header folders). Mean macro F1 of six
# splits with classes thinned out to unequal sizes: 0.869 (0.828 without averaging; 0.824 with a balanced LinearSVC at
# C=1, which also needs a second copy of the features); of five with nearly equal classes: 0.940 (0.941; 0.934).
ALPHA = 1e-5
SEEN_DOCUMENTS = 100_000  # documents that the SVM's passes add up to; 5,000 documents are passed 20 times
PASSES = (5, 500)


@dataclass(frozen=True)
class Baseline:
    """The label ids that a cheap model predicts for the validation and test documents, `(N,)` each."""

    name: str
    val: NDArray[np.int64]
    test: NDArray[np.int64]


def judge_baselines(corpus: Corpus, run: Path, *, max_chars: int | None = MAX_CHARS) -> None:
    """Fit both baselines on the training texts of a corpus and write what they score on its other parts.

    Writes `data/baselines.json` (see `score_baselines`) and `predictions/baselines_test.parquet` (columns id, majority,
    tfidf_svm: label names), from which the report judges the difference document by document. What the SVM says is kept
    in the cache: the next run on the same documents need not fit it again.

    Args:
        corpus: documents with their parts and labels.
        run: the run's folder.
        max_chars: characters of each text that the SVM reads; None: all of it.
    """
    from doctune.corpus.store import mark_used  # it needs pyarrow, and who predicts with a forest needs neither

    train, val, test = (corpus.part(part) for part in ("train", "val", "test"))
    train_ids = corpus.label_ids(train)
    folder = corpus.store.cache / "baselines" / _key(corpus, max_chars)
    kept = folder / "tfidf_svm.npz"
    if not kept.exists():
        svm = tfidf_svm(corpus.texts(train), train_ids, corpus.texts(val), corpus.texts(test), max_chars=max_chars)
        with written_whole(kept) as temporary, temporary.open("wb") as stream:
            np.savez(stream, val=svm.val, test=svm.test)
    mark_used(folder)
    with np.load(kept) as saved:
        svm = Baseline("tfidf_svm", saved["val"], saved["test"])
    add_baselines(corpus, run, [majority(train_ids, len(val), len(test), len(corpus.labels)), svm])


def _key(corpus: Corpus, max_chars: int | None) -> str:
    """All that the SVM's predictions depend on."""
    texts = f"{corpus.store.folder.name} {corpus.fingerprint} {max_chars}"
    return hashlib.sha256(f"{_VERSION} {version('scikit-learn')} {texts}".encode()).hexdigest()[:16]


def add_baselines(corpus: Corpus, run: Path, baselines: Sequence[Baseline]) -> None:
    """Write baselines beside those that stand in the run's folder already; scores last, as the sign that all is there.

    Args:
        corpus: documents with their parts and labels.
        run: the run's folder.
        baselines: what they predict for the corpus's validation and test documents.
    """
    val, test = (corpus.part(part) for part in ("val", "test"))
    val_ids, test_ids = corpus.label_ids(val), corpus.label_ids(test)
    file = run / "data" / "baselines.json"
    judged = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    ids = [document.id for document in test]
    write_predictions(baselines, ids, corpus.labels, run / "predictions" / "baselines_test.parquet")
    write_json(file, judged | score_baselines(baselines, val_ids, test_ids, len(corpus.labels)))


def majority(train_ids: Ids, num_val: int, num_test: int, num_labels: int) -> Baseline:
    """Predict the most frequent training label for everything; of equally frequent labels the lowest id.

    Raises:
        DataError: there is no training document.
    """
    _require_documents(train_ids)
    most_frequent = int(np.bincount(train_ids, minlength=num_labels).argmax())
    return Baseline("majority", np.full(num_val, most_frequent), np.full(num_test, most_frequent))


def tfidf_svm(
    train_texts: Iterable[str],
    train_ids: Ids,
    val_texts: Iterable[str],
    test_texts: Iterable[str],
    *,
    seed: int = 0,
    max_chars: int | None = MAX_CHARS,
) -> Baseline:
    """Fit a linear SVM on TF-IDF features of the training texts and predict the others.

    Features are hashed counts of single tokens and pairs (Weinberger et al. 2009), logarithmic term frequency times
    inverse document frequency, of unit length; the SVM (hinge loss, one against rest, balanced classes) is fitted by
    averaged stochastic gradient descent (Xu 2011). Texts are read once, in order, and never held: memory is 8 bytes
    for each of the some 450 distinct features of a document, and twice that while the batches are joined.

    With one class in training, everything is predicted to be that class. A label without training document is never
    predicted. A text without any token has no features and gets the label that the intercepts favour.

    Args:
        train_texts: (N,) texts, in the order of `train_ids`.
        train_ids: (N,) label ids.
        val_texts: the validation texts.
        test_texts: the test texts.
        seed: the order in which the descent meets the documents; the result depends on nothing else.
        max_chars: only the beginning of each text is read. Longer beginnings scored no higher on files (8,000 against
            2,000 characters: within half a point of macro F1), and a classifier sees some 2,000 characters itself.
            None: all of each text, for classifiers of long documents.

    Raises:
        DataError: there is no training document, or texts and ids differ in number.
    """
    _require_documents(train_ids)
    counts = count_tokens(train_texts, max_chars)
    if counts.shape[0] != len(train_ids):
        raise DataError(f"The SVM baseline got {counts.shape[0]} training texts and {len(train_ids)} labels.")
    predict = _fit(counts, np.asarray(train_ids), seed)
    val, test = (_predict_batches(predict, texts, max_chars) for texts in (val_texts, test_texts))
    return Baseline("tfidf_svm", val, test)


def score_baselines(
    baselines: Sequence[Baseline], val_truth: Ids, test_truth: Ids, num_labels: int
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """What `data/baselines.json` holds: {name: {"val": scores, "test": scores}}; None for a part without documents.

    Scores are those of `ClassificationScores` without the soft ones, and `ci95`: {metric: [low, high]} from 1,000
    bootstrap resamples.
    """
    truths = {"val": val_truth, "test": test_truth}
    return {
        baseline.name: {part: _score_part(truth, getattr(baseline, part), num_labels) for part, truth in truths.items()}
        for baseline in baselines
    }


def write_predictions(baselines: Sequence[Baseline], ids: Sequence[str], labels: Labels, path: Path) -> None:
    """Write the baselines' label for every test document, beside those that are there: one row per id, one column per
    baseline."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[str]] = pq.read_table(path).to_pydict() if path.exists() else {}
    columns |= {"id": list(ids)}
    columns |= {baseline.name: [labels.names[index] for index in baseline.test] for baseline in baselines}
    table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def _score_part(truth: Ids, predicted: Ids, num_labels: int) -> dict[str, Any] | None:
    if len(truth) == 0:
        return None
    confusion = confusion_matrix(truth, predicted, num_labels)
    scores = score(truth, predicted, num_labels).to_dict()
    hard = {name: value for name, value in scores.items() if value is not None}
    intervals = bootstrap_intervals(confusion, STATISTICS)
    return hard | {"ci95": {name: list(interval) for name, interval in intervals.items()}}


def _require_documents(train_ids: Ids) -> None:
    if len(train_ids) == 0:
        raise DataError("A baseline needs training documents, and the training part is empty.")


def _fit(counts: csr_matrix, train_ids: Ids, seed: int) -> Callable[[csr_matrix], Ids]:
    """Fit the SVM on token counts `(N, NUM_FEATURES)`; gives the function from other counts to label ids."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import SGDClassifier

    classes = np.unique(train_ids)
    if len(classes) == 1:
        return lambda others: np.full(others.shape[0], classes[0])
    tfidf = TfidfTransformer(sublinear_tf=True).fit(counts)
    passes = int(np.clip(SEEN_DOCUMENTS // len(train_ids), *PASSES))
    svm = SGDClassifier(
        alpha=ALPHA, max_iter=passes, tol=None, class_weight="balanced", average=True, random_state=seed
    )
    svm.fit(tfidf.transform(counts, copy=False), train_ids)
    return lambda others: svm.predict(tfidf.transform(others, copy=False))


def _predict_batches(
    predict: Callable[[csr_matrix], Ids], texts: Iterable[str], max_chars: int | None
) -> NDArray[np.int64]:
    predicted = [predict(counts) for counts in count_batches(texts, max_chars)]
    return np.concatenate([np.empty(0, np.int64), *predicted]).astype(np.int64)


def count_tokens(texts: Iterable[str], max_chars: int | None) -> csr_matrix:
    """The counts of `count_batches` for all texts, `(N, NUM_FEATURES)`."""
    from scipy.sparse import csr_matrix, vstack

    return vstack([csr_matrix((0, NUM_FEATURES), dtype=np.float32), *count_batches(texts, max_chars)], format="csr")


def count_batches(texts: Iterable[str], max_chars: int | None) -> Iterator[csr_matrix]:
    """Hashed counts of single tokens and pairs, `(batch, NUM_FEATURES)` float32; one batch of texts is held."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        lowercase=False,
        token_pattern=TOKENS,
        ngram_range=(1, 2),
        n_features=NUM_FEATURES,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )
    beginnings = (text[:max_chars] for text in texts)
    for batch in bounded_groups(beginnings, len, max_items=BATCH_DOCUMENTS, max_chars=BATCH_CHARS):
        yield hashing.transform(batch)
