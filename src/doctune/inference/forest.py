"""A random forest over TF-IDF features: the stage of a cascade that needs no encoder.

The features are those of the SVM baseline (`corpus/baselines.py`): hashed counts of tokens and pairs of them, of which
the ones that occur in most training documents are kept. The forest (Breiman 2001) is scikit-learn's; it is stored by
skops, which reads and writes no pickle.

Shapes: N texts, K features, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, BadZipFile

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.baselines import MAX_CHARS, NUM_FEATURES, count_batches, count_tokens
from doctune.errors import ArtifactError, ConfigError, DataError
from doctune.files import written_whole
from doctune.inference.stages import StageAnswer
from doctune.labels import Labels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.ensemble import RandomForestClassifier

FOREST_FILE = "forest.skops"
# Raise it with every change to how baselines.py counts tokens: a stored forest knows features by their hashes.
SCHEMA = 1
# Beside what skops always trusts (numpy arrays, plain containers, scikit-learn's estimators).
TRUSTED_TYPES = ("sklearn.tree._tree.Tree",)
# What all nodes of all trees may take in memory; each has a number per label.
MAX_BYTES = 512 * 1024**2
_NUMBER_BYTES, _NODE_BYTES = 8, 64
_STATE_KEYS = {"schema", "labels", "max_chars", "columns", "idf", "forest"}


@dataclass(frozen=True)
class ForestSettings:
    """How a forest is grown.

    On the validation files of one run (33 file types, 3,187 training files, macro F1): unweighted classes 0.949,
    balanced ones 0.942; 5,000, 20,000 and 50,000 features 0.946, 0.942, 0.945; 100 and 200 trees 0.951 and 0.955.

    Attributes:
        trees: how many; file, memory and time grow with them.
        max_features: token hashes that are kept, those of most documents.
        max_chars: characters that are read of each text; None: all.
        seed: of the trees; the forest depends on nothing else, not on the number of cores.
    """

    trees: int = 200
    max_features: int = 10_000
    max_chars: int | None = MAX_CHARS
    seed: int = 0


class Forest:
    """A grown forest.

    Args:
        labels: those that probabilities are given for.
        max_chars: characters that are read of each text; None: all.
        columns: (K,) which token hashes are the features, rising.
        idf: (K,) their inverse document frequencies.
        forest: scikit-learn's; its classes are label ids.
    """

    name = "forest"

    def __init__(
        self,
        labels: Labels,
        max_chars: int | None,
        columns: NDArray[np.int64],
        idf: NDArray[np.float32],
        forest: RandomForestClassifier,
    ) -> None:
        self.labels = labels
        self._max_chars = max_chars
        self._columns = columns
        self._idf = idf
        self._forest = forest

    def probabilities(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """Probabilities (N, L), in order; labels without a training document have 0. Texts are read in batches."""
        found = [self._batch_probabilities(counts) for counts in count_batches(texts, self._max_chars)]
        return np.concatenate([np.empty((0, len(self.labels))), *found])

    def predict(self, texts: Sequence[str]) -> list[StageAnswer]:
        """One answer per text, in order; of equally probable labels the first."""
        return [
            StageAnswer(self.labels.names[row.argmax()], float(row.max()), tuple(row.tolist()))
            for row in self.probabilities(texts)
        ]

    def save(self, path: Path) -> None:
        """Write the forest without pickle."""
        state = {
            "schema": SCHEMA,
            "labels": list(self.labels.names),
            "max_chars": self._max_chars,
            "columns": self._columns,
            "idf": self._idf,
            "forest": self._forest,
        }
        with written_whole(path) as temporary:
            _skops().dump(state, temporary, compression=ZIP_DEFLATED)

    def _batch_probabilities(self, counts: csr_matrix) -> NDArray[np.float64]:
        features = _tfidf(counts[:, self._columns], self._idf)
        # The trees are asked directly, in order: scikit-learn's own loop costs ten times as much for a single text, and
        # adds up in the order in which its threads finish.
        found = np.zeros((counts.shape[0], len(self.labels)))
        for tree in self._forest.estimators_:
            found[:, self._forest.classes_] += tree.tree_.predict(features)
        return found / len(self._forest.estimators_)


def fit_forest(texts: Iterable[str], label_ids: Sequence[int], labels: Labels, settings: ForestSettings) -> Forest:
    """Grow a forest on training texts, which are read once, in order, and never held.

    Args:
        texts: (N,) texts.
        label_ids: (N,) their labels.
        labels: all that there are.
        settings: how it is grown.

    Raises:
        ConfigError: scikit-learn or skops is not installed.
        DataError: there is no text, or texts and labels differ in number.
    """
    _skops()  # before minutes of growing what could not be stored
    from sklearn.ensemble import RandomForestClassifier

    counts = count_tokens(texts, settings.max_chars)
    if counts.shape[0] == 0 or counts.shape[0] != len(label_ids):
        raise DataError(f"The forest got {counts.shape[0]} training texts and {len(label_ids)} labels.")
    frequencies = np.bincount(counts.indices, minlength=NUM_FEATURES)
    columns = np.sort(np.argsort(-frequencies, kind="stable")[: settings.max_features])
    idf = (np.log((1 + counts.shape[0]) / (1 + frequencies[columns])) + 1).astype(np.float32)
    forest = RandomForestClassifier(
        settings.trees,
        max_leaf_nodes=max_leaf_nodes(settings.trees, len(labels)),
        random_state=settings.seed,
        n_jobs=-1,
    )
    forest.fit(_tfidf(counts[:, columns], idf), np.asarray(label_ids))
    forest.n_jobs = None
    return Forest(labels, settings.max_chars, columns, idf, forest)


def max_leaf_nodes(trees: int, num_labels: int) -> int:
    """The leaves that each tree may have, so that all trees stay below MAX_BYTES; two at least."""
    nodes = MAX_BYTES // (trees * (num_labels * _NUMBER_BYTES + _NODE_BYTES))
    return max(2, nodes // 2)


def load_forest(folder: Path, labels: Labels) -> Forest:
    """The forest of a model folder.

    Args:
        folder: the `model/` folder.
        labels: those of the model beside it.

    Raises:
        ArtifactError: there is none, it holds anything but a forest, or it has other labels.
        ConfigError: scikit-learn or skops is not installed.
    """
    path = folder / FOREST_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{path}: there is no forest. `python train.py … cascade.forest=true` grows one beside the model."
        )
    state = _read_state(path)
    if tuple(state["labels"]) != labels.names:
        raise ArtifactError(
            f"{path} has other labels than the model beside it: it belongs to another run. Train both together with "
            "cascade.forest=true."
        )
    return Forest(labels, state["max_chars"], state["columns"], state["idf"], state["forest"])


def _read_state(path: Path) -> dict[str, Any]:
    """What `Forest.save` wrote, and nothing else."""
    skops = _skops()
    try:
        untrusted = sorted(set(skops.get_untrusted_types(file=path)) - set(TRUSTED_TYPES))
        if untrusted:
            raise ArtifactError(
                f"{path} is refused: it holds {', '.join(untrusted)}, which no forest of doctune has. Only what "
                "`python train.py … cascade.forest=true` wrote is loaded."
            )
        state = skops.load(path, trusted=list(TRUSTED_TYPES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read as a forest: {type(error).__name__}: {error}.") from error
    problem = _state_problem(state)
    if problem:
        raise ArtifactError(f"{path} is refused: {problem}. Grow it again with cascade.forest=true.")
    checked: dict[str, Any] = state
    return checked


def _state_problem(state: Any) -> str | None:
    from sklearn.ensemble import RandomForestClassifier

    if not isinstance(state, dict) or set(state) != _STATE_KEYS:
        return "it is not what doctune writes"
    if state["schema"] != SCHEMA:
        return f"it has schema {state['schema']}, and this version of doctune knows {SCHEMA}"
    forest, columns, idf = state["forest"], state["columns"], state["idf"]
    if not isinstance(forest, RandomForestClassifier):
        return f"its forest is a {type(forest).__name__}"
    if not _are_features(columns, idf):
        return "its features are not the hashes of tokens"
    num_classes = len(forest.classes_)
    if num_classes == 0 or forest.classes_.min() < 0 or forest.classes_.max() >= len(state["labels"]):
        return "its classes are not its labels"
    if not all(_is_sound(tree.tree_, len(columns), num_classes) for tree in forest.estimators_):
        return "a tree points outside itself"
    return None


def _are_features(columns: Any, idf: Any) -> bool:
    if not (isinstance(columns, np.ndarray) and isinstance(idf, np.ndarray) and columns.shape == idf.shape):
        return False
    return bool(columns.ndim == 1 and len(columns) and columns.min() >= 0 and columns.max() < NUM_FEATURES)


def _is_sound(tree: Any, num_features: int, num_classes: int) -> bool:
    """Whether every path ends in a leaf: scikit-learn follows a stored tree without looking where it leads."""
    places = np.arange(tree.node_count)
    inner = tree.children_left != -1
    for children in (tree.children_left[inner], tree.children_right[inner]):
        if not ((children > places[inner]) & (children < tree.node_count)).all():
            return False
    features = tree.feature[inner]
    return bool(
        ((features >= 0) & (features < num_features)).all() and tree.value.shape == (tree.node_count, 1, num_classes)
    )


def _tfidf(counts: csr_matrix, idf: NDArray[np.float32]) -> csr_matrix:
    """Logarithmic counts times inverse document frequency, rows of unit length: (N, K) float32."""
    from scipy.sparse import csr_matrix

    data = (1 + np.log(counts.data)) * idf[counts.indices]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    norms = np.sqrt(np.bincount(rows, weights=data**2, minlength=counts.shape[0]))
    # The trees take 32-bit places only.
    places = counts.indices.astype(np.int32), counts.indptr.astype(np.int32)
    return csr_matrix(((data / norms[rows]).astype(np.float32), *places), shape=counts.shape)


def _skops() -> Any:
    try:
        import sklearn  # noqa: F401  (skops can be there without it)
        import skops.io
    except ModuleNotFoundError as error:
        raise ConfigError(f"A forest needs {error.name}: pip install 'doctune[cascade]'.") from error
    return skops.io
