import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from doctune.corpus.division import SplitSettings
from doctune.corpus.labelled_rows import LabelledFile, RowSettings, read_labelled_rows
from doctune.corpus.tables import TableLayout
from doctune.corpus.target_baselines import judge_target_baselines, label_prior, score_label_sets, tfidf_logistic
from doctune.corpus.target_corpus import PartFiles, prepare_targets
from doctune.corpus.targets import LabelledText, TargetColumn, read_label_names
from doctune.errors import DataError

JOY, ANGER = "what a lovely day", "this is awful !"
TEXTS = [JOY, ANGER, f"{JOY} {ANGER}", "well then"] * 6
TRUTH = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 6, bool)


def test_the_prior_is_the_share_of_the_training_texts():
    found = label_prior(TRUTH, 1, 2)
    assert (found.name, found.val.tolist(), found.test.tolist()) == (
        "label_prior",
        [[0.5, 0.5, 0.0]],
        [[0.5, 0.5, 0.0]] * 2,
    )


def test_logistic_regressions_tell_labels_by_their_words():
    found = tfidf_logistic(TEXTS, TRUTH, ["A LOVELY evening"], ["this is awful ! a lovely day", "then"])
    assert (found.name, found.val.shape, found.test.shape) == ("tfidf_logistic", (1, 3), (2, 3))
    assert (found.val > 0.5).tolist() == [[True, False, False]]
    assert (found.test > 0.5).tolist() == [[True, True, False], [False, False, False]]


def test_a_label_that_all_training_texts_have_or_none_is_certain():
    truth = np.stack([np.ones(24, bool), np.zeros(24, bool), TRUTH[:, 0]], axis=1)
    found = tfidf_logistic(TEXTS, truth, [JOY], [ANGER])
    assert found.val[0, :2].tolist() == found.test[0, :2].tolist() == [1.0, 0.0]


def test_logistic_regressions_are_deterministic():
    first, second = (tfidf_logistic(TEXTS, TRUTH, TEXTS, []) for _ in range(2))
    assert first.val.tolist() == second.val.tolist()
    assert first.test.shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: label_prior(np.zeros((0, 2), bool), 1, 1),
            "A baseline needs training texts that know its target, and there are none.",
        ),
        (
            lambda: tfidf_logistic([], np.zeros((0, 2), bool), [], []),
            "A baseline needs training texts that know its target, and there are none.",
        ),
        (
            lambda: tfidf_logistic(["one", "two"], np.ones((2, 1), bool), [], []),
            "The TF-IDF baseline found no word that stands in two of the training texts.",
        ),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused(call, message):
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value) == message


def test_scores_of_label_sets_carry_intervals():
    found = score_label_sets(TRUTH, TRUTH)
    assert (found["texts"], found["f1_micro"], found["ci95"]["f1_micro"]) == (24, 1.0, [1.0, 1.0])
    assert found["f1_macro"] == pytest.approx(2 / 3)
    json.dumps(found, allow_nan=False)


@pytest.fixture
def corpus(tmp_path):
    """Texts with tags and a kind, of which every fifth lacks the one or the other."""
    rows = []
    for n in range(80):
        glad, cross = n % 2 == 0, n % 4 < 2
        text = f"{JOY if glad else ''} {ANGER if cross else ''} number{n} of many"
        tags = tuple(name for name, applies in (("cross", cross), ("glad", glad)) if applies)
        known = {"tags": tags, "kind": ("day" if glad else "other",)}
        known.pop("tags" if n % 5 == 1 else "kind" if n % 5 == 3 else "", None)
        rows.append(LabelledText(f"r{n}", text, known, f"a.csv:{n + 2}"))
    return prepare_targets(
        PartFiles((LabelledFile(tmp_path / "a.csv", tuple(rows), ()),)),
        (TargetColumn("tags", "multi"), TargetColumn("kind")),
        split=SplitSettings(val=0.25, test=0.25),
        cache=tmp_path,
        duplicate_threshold=1.0,
    )


def test_each_target_is_judged_on_the_texts_that_know_it(corpus, tmp_path):
    judge_target_baselines(corpus, tmp_path)
    scores = json.loads((tmp_path / "data" / "baselines.json").read_text())
    assert {target: list(found) for target, found in scores.items()} == {
        "tags": ["label_prior", "tfidf_logistic"],
        "kind": ["majority", "tfidf_svm"],
    }
    knows_tags = sum("tags" in text.targets for text in corpus.part("test"))
    knows_kind = sum("kind" in text.targets for text in corpus.part("test"))
    assert scores["tags"]["tfidf_logistic"]["test"]["texts"] == knows_tags < len(corpus.part("test"))
    assert scores["kind"]["tfidf_svm"]["test"]["documents"] == knows_kind < len(corpus.part("test"))
    assert scores["tags"]["tfidf_logistic"]["test"]["f1_macro"] == 1.0
    assert scores["kind"]["tfidf_svm"]["test"]["f1_macro"] == 1.0
    assert scores["tags"]["label_prior"]["test"]["recall_macro"] == 1.0


def test_predictions_of_all_test_texts_are_written_as_label_names(corpus, tmp_path):
    judge_target_baselines(corpus, tmp_path)
    table = pq.read_table(tmp_path / "predictions" / "baselines_test.parquet").to_pydict()
    assert list(table) == ["id", "tags/label_prior", "tags/tfidf_logistic", "kind/majority", "kind/tfidf_svm"]
    assert table["id"] == [text.id for text in corpus.part("test")]
    for text, tags, kind in zip(
        corpus.part("test"), table["tags/tfidf_logistic"], table["kind/tfidf_svm"], strict=True
    ):
        assert tuple(tags) == text.targets.get("tags", tuple(tags))
        assert tuple(kind) == text.targets.get("kind", tuple(kind))
    assert set(map(tuple, table["tags/label_prior"])) == {("cross", "glad")}


@pytest.mark.slow
def test_logistic_regressions_reach_the_known_score_on_goemotions(real_data, tmp_path):
    folder = real_data / "goemotions"
    if not folder.is_dir():
        pytest.skip("no GoEmotions here: DOCTUNE_DATA must name a folder that has goemotions/")
    names = read_label_names(folder / "labels.txt")
    emotion = TargetColumn("emotion", "multi", "ids", ",", names, "labels.txt")
    settings = RowSettings((emotion,), "text", "id", TableLayout(("text", "ids", "id")))
    learning, judging = (read_labelled_rows(folder / f"{name}.tsv", settings) for name in ("train", "dev"))
    corpus = prepare_targets(
        PartFiles((learning,), test=(judging,)),
        (emotion,),
        split=SplitSettings(val=0.1),
        cache=tmp_path,
        duplicate_threshold=1.0,
    )
    judge_target_baselines(corpus, tmp_path)
    test = json.loads((tmp_path / "data" / "baselines.json").read_text())["emotion"]["tfidf_logistic"]["test"]
    assert test["texts"] == 5426
    assert test["f1_macro"] == pytest.approx(0.467, abs=0.01)
