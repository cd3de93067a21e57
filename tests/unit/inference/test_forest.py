import hashlib
import subprocess
import sys

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from doctune.corpus.baselines import count_tokens
from doctune.errors import ArtifactError, ConfigError, DataError
from doctune.inference.forest import (
    FOREST_FILE,
    MAX_BYTES,
    ForestSettings,
    fit_forest,
    load_forest,
    max_leaf_nodes,
)
from doctune.labels import Labels

LABELS = Labels(("header", "python", "recipe"))
PYTHON = ["def f(x):\n    return x", "import os\nclass A:\n    pass", "def g(self): return self.value"]
HEADERS = ["#define MAX 3\nint f(int);", "#include <stdio.h>\nvoid g();", "#ifndef H_\n#define H_\n#endif"]
TEXTS, IDS = [*PYTHON, *HEADERS], [1, 1, 1, 0, 0, 0]
SMALL = ForestSettings(trees=20, max_features=500, seed=3)


@pytest.fixture(scope="module")
def forest():
    return fit_forest(TEXTS, IDS, LABELS, SMALL)


@pytest.fixture
def stored(forest, tmp_path):
    """The state of a stored forest, a function that stores a changed one, and what loading it says."""
    forest.save(tmp_path / FOREST_FILE)
    state = skops.io.load(tmp_path / FOREST_FILE, trusted=["sklearn.tree._tree.Tree"])

    def refusal(**changes):
        skops.io.dump(state | changes, tmp_path / FOREST_FILE)
        with pytest.raises(ArtifactError) as caught:
            load_forest(tmp_path, LABELS)
        return str(caught.value).replace(str(tmp_path), "model")

    return state, refusal


def test_it_tells_python_from_headers(forest):
    answers = forest.predict(["def h(y): return y", "#define MIN 1"])
    assert [answer.label for answer in answers] == ["python", "header"]
    for answer in answers:
        assert answer.score == max(answer.probabilities) > 0.5
        assert sum(answer.probabilities) == pytest.approx(1)


def test_a_label_without_a_training_text_has_probability_0(forest):
    assert forest.probabilities(TEXTS)[:, 2].tolist() == [0] * 6


def test_texts_without_tokens_and_no_texts_are_taken(forest):
    assert forest.probabilities(["", " "]).shape == (2, 3)
    assert forest.probabilities([]).shape == (0, 3)
    assert forest.predict([]) == []


def test_it_equals_scikit_learns_own_pipeline():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 12)) for _ in range(60)]
    ids = rng.integers(0, 3, 60).tolist()
    found = fit_forest(texts[:40], ids[:40], LABELS, ForestSettings(trees=7, max_features=2**17, seed=5))
    train, test = count_tokens(texts[:40], 4000), count_tokens(texts[40:], 4000)
    tfidf = TfidfTransformer(sublinear_tf=True).fit(train)
    leaves = max_leaf_nodes(7, 3)
    theirs = RandomForestClassifier(7, random_state=5, max_leaf_nodes=leaves).fit(tfidf.transform(train), ids[:40])
    assert np.abs(found.probabilities(texts[40:]) - theirs.predict_proba(tfidf.transform(test))).max() < 1e-12


def test_features_are_those_of_most_documents():
    texts = ["common rare1", "common rare2", "common other", "common other"]
    found = fit_forest(texts, [0, 0, 1, 1], LABELS, ForestSettings(trees=5, max_features=1))
    # "common" is all that it knows, so all texts are alike.
    assert len({tuple(row) for row in found.probabilities(texts).tolist()}) == 1


def test_it_reads_only_the_beginning():
    settings = ForestSettings(trees=20, max_chars=18)
    short = fit_forest(TEXTS, IDS, LABELS, settings).probabilities(["def f(x): return x"])
    long = fit_forest(TEXTS, IDS, LABELS, settings).probabilities(["def f(x): return x" + " #define MAX" * 50])
    assert short.tolist() == long.tolist()


def test_the_same_seed_gives_the_same_trees_and_another_one_others(tmp_path):
    def digest(seed):
        path = tmp_path / str(seed)
        fit_forest(TEXTS, IDS, LABELS, ForestSettings(trees=5, seed=seed)).save(path)
        state = skops.io.load(path, trusted=["sklearn.tree._tree.Tree"])
        trees = [tree.tree_.__getstate__() for tree in state["forest"].estimators_]
        return hashlib.sha256(b"".join(t["nodes"].tobytes() + t["values"].tobytes() for t in trees)).hexdigest()

    assert digest(1) == digest(1) != digest(2)


def test_a_stored_forest_answers_alike_and_holds_no_pickle(forest, tmp_path):
    forest.save(tmp_path / FOREST_FILE)
    loaded = load_forest(tmp_path, LABELS)
    assert loaded.probabilities(TEXTS).tolist() == forest.probabilities(TEXTS).tolist()
    assert skops.io.get_untrusted_types(file=tmp_path / FOREST_FILE) == ["sklearn.tree._tree.Tree"]


def test_nodes_of_all_trees_stay_below_the_bound():
    for trees, labels in [(200, 33), (500, 1000), (100, 2)]:
        nodes = 2 * max_leaf_nodes(trees, labels)
        assert 0.9 * MAX_BYTES < trees * nodes * (labels * 8 + 64) <= MAX_BYTES
    assert max_leaf_nodes(10**6, 10**6) == 2


def test_trees_have_no_more_leaves_than_the_bound(monkeypatch):
    monkeypatch.setattr("doctune.inference.forest.MAX_BYTES", 3 * 6 * (3 * 8 + 64))
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)]
    found = fit_forest(texts, rng.integers(0, 3, 60).tolist(), LABELS, ForestSettings(trees=3))
    assert [tree.get_n_leaves() for tree in found._forest.estimators_] == [3, 3, 3]


@pytest.mark.parametrize(("texts", "ids"), [([], []), (TEXTS, [0])])
def test_texts_and_labels_that_do_not_fit_are_refused(texts, ids):
    with pytest.raises(DataError, match=f"The forest got {len(texts)} training texts and {len(ids)} labels."):
        fit_forest(texts, ids, LABELS, SMALL)


def test_a_missing_forest_says_how_to_grow_one(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        load_forest(tmp_path, LABELS)
    assert str(caught.value) == (
        f"{tmp_path / FOREST_FILE}: there is no forest. `python train.py … cascade.forest=true` grows one beside the "
        "model."
    )


def test_a_forest_with_other_labels_than_its_model_is_refused(forest, tmp_path):
    forest.save(tmp_path / FOREST_FILE)
    with pytest.raises(ArtifactError) as caught:
        load_forest(tmp_path, Labels(("x", "y", "z")))
    assert str(caught.value) == (
        f"{tmp_path / FOREST_FILE} has other labels than the model beside it: it belongs to another run. Train both "
        "together with cascade.forest=true."
    )


class Foreign:
    """A type that no forest has."""


def test_a_file_with_another_type_is_refused_before_anything_in_it_runs(stored):
    _, refusal = stored
    assert refusal(forest=Foreign()) == (
        f"model/forest.skops is refused: it holds {Foreign.__module__}.Foreign, which no forest of doctune has. Only "
        "what `python train.py … cascade.forest=true` wrote is loaded."
    )


def test_a_file_that_is_not_what_doctune_writes_is_refused(stored):
    state, refusal = stored
    again = "Grow it again with cascade.forest=true."
    assert refusal(more=1) == f"model/forest.skops is refused: it is not what doctune writes. {again}"
    assert refusal(schema=2).startswith("model/forest.skops is refused: it has schema 2, and this version of doctune")
    assert refusal(forest=LogisticRegression()).startswith(
        "model/forest.skops is refused: its forest is a LogisticRegression."
    )
    hashes = "model/forest.skops is refused: its features are not the hashes of tokens."
    assert refusal(columns=state["columns"] + 2**17).startswith(hashes)
    assert refusal(idf=state["idf"][:-1]).startswith(hashes)
    assert refusal(labels=["header"]).startswith("model/forest.skops is refused: its classes are not its labels.")


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 10**6), ("feature", -7)]
)
def test_a_tree_that_points_outside_itself_is_refused(stored, field, value):
    state, refusal = stored
    tree = state["forest"].estimators_[0].tree_
    values = tree.__getstate__()
    values["nodes"] = values["nodes"].copy()
    values["nodes"][field][0] = value
    tree.__setstate__(values)
    assert refusal().startswith("model/forest.skops is refused: a tree points outside itself.")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / FOREST_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read as a forest: "):
        load_forest(tmp_path, LABELS)


def test_without_skops_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ConfigError, match=r"A forest needs skops.*: pip install 'doctune\[cascade\]'."):
        fit_forest(TEXTS, IDS, LABELS, SMALL)


def test_importing_it_loads_neither_scikit_learn_nor_torch():
    program = (
        "import doctune.inference.cascade, sys\n"
        "print(*[name for name in ('sklearn', 'skops', 'torch', 'lightning', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
