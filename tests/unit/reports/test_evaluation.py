"""An evaluation holds what its documents and probabilities say, and says what it does not know."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from doctune.inference.artifact import Artifact
from doctune.inference.judged import JudgedDocument, Unjudged
from doctune.labels import Labels
from doctune.reports.evaluation import Chosen, build_evaluation, choose, write_evaluation
from doctune.reports.evaluation_slices import sliced_scores
from doctune.reports.evaluation_source import Copies, Evaluated
from doctune.reports.evaluation_summary import copies_words, judged_words, summarize
from doctune.reports.evaluation_thresholds import Scored, threshold_rows, threshold_words
from doctune.scoring.calibration import TemperatureFit, apply_temperature
from doctune.text.extract import ExtractSettings

NAMES = ("a", "b", "c")
UNCHOSEN = Chosen(1.0, False, "there are no validation predictions to fit it on", None, None)


def artifact(folder=Path("run/model"), temperature=1.0, names=NAMES):
    return Artifact(folder, "classification", Labels(names), 32, ExtractSettings(), temperature=temperature)


def document(number, **facts):
    known = {"path": f"/files/{number}.txt", "label": "", "content": "", "characters": 100 + number}
    return JudgedDocument(**known | {"format": "text", "remark": "", "excerpt": f"text {number}"} | facts)


def evaluated(num_documents=60, wrong_every=5, names=NAMES, **facts):
    """Documents of all labels in turn, each a bit less sure than the one before; every 5th is taken for the next."""
    places = np.arange(num_documents)
    truth = places % len(names)
    predicted = np.where(places % wrong_every == wrong_every - 1, (truth + 1) % len(names), truth)
    scores = 0.95 - 0.4 * places / num_documents
    chances = np.repeat((1 - scores)[:, None] / (len(names) - 1), len(names), axis=1)
    chances[places, predicted] = scores
    known = {
        "name": "test",
        "source": "the test part of the run",
        "part": "test",
        "backend": "torch",
        "labels": Labels(tuple(names)),
        "documents": tuple(document(number) for number in range(num_documents)),
        "truth": truth,
        "probabilities": chances,
        "unjudged": (),
        "copies": Copies(),
        "agreement": num_documents,
        "notes": (),
    }
    return Evaluated(**known | facts)


def built(found=None, chosen=UNCHOSEN, temperature=1.0, precision=0.95):
    return build_evaluation(found or evaluated(), chosen, artifact(temperature=temperature), "x/y/run", precision)


# --- scores ------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn():
    found = evaluated()
    scores = built(found)["scores"]
    predicted, is_label = found.probabilities.argmax(axis=1), np.eye(3)[found.truth]
    assert scores["accuracy"] == 0.8
    assert scores["f1_macro"] == pytest.approx(f1_score(found.truth, predicted, average="macro"), abs=1e-9)
    assert scores["roc_auc_macro"] == pytest.approx(roc_auc_score(is_label, found.probabilities), abs=1e-9)
    assert scores["average_precision_macro"] == pytest.approx(
        average_precision_score(is_label, found.probabilities), abs=1e-9
    )
    assert scores["log_loss"] == pytest.approx(log_loss(found.truth, found.probabilities), abs=1e-9)


def test_every_headline_number_has_an_interval_around_it():
    scores = built(evaluated(names=("a", "b", "c", "d")))["scores"]
    headline = [name for name, value in scores.items() if isinstance(value, float)]
    assert {
        "accuracy",
        "f1_macro",
        "f1_weighted",
        "roc_auc_macro",
        "average_precision_macro",
        "log_loss",
        "ece",
    } <= set(headline)
    assert set(scores["ci95"]) == {*headline, "top_3_accuracy"}
    for name in headline:
        low, high = scores["ci95"][name]
        assert low <= scores[name] <= high


def test_scores_are_those_of_the_probabilities_that_predictions_have():
    found = evaluated()
    report = built(found, Chosen(2.0, True, "", None, None), temperature=2.0)
    given = apply_temperature(found.probabilities, 2.0)
    assert report["scores"]["log_loss"] == pytest.approx(log_loss(found.truth, given), abs=1e-9)
    assert report["calibration"]["after"]["log_loss"] == report["scores"]["log_loss"]
    assert report["calibration"]["before"]["log_loss"] == pytest.approx(log_loss(found.truth, found.probabilities))


def test_a_label_without_documents_has_no_areas_and_is_told():
    found = evaluated(names=("a", "b", "c"))
    found = replace(found, truth=np.where(found.truth == 2, 0, found.truth))
    report = built(found)
    assert [row["roc_auc"] is None for row in report["per_class"]] == [False, False, True]
    assert "1 of 3 labels have no document here, so nothing is known of them." in report["notes"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_two_labels_have_no_top_k():
    assert built(evaluated(names=("a", "b")))["scores"]["top_k_accuracy"] == {}


# --- calibration and thresholds ----------------------------------------------------------------------------------


def test_a_temperature_that_is_not_in_the_artifact_is_told():
    fit = TemperatureFit(1.5, 100, 0.9, 0.8)
    report = built(chosen=Chosen(1.5, False, "", fit, None))
    assert report["calibration"]["temperature"] == 1.5
    assert report["notes"][-1] == (
        "The model folder has no temperature; 1.500 was fitted now on validation predictions. Predictions do not use "
        "it: only a run that is trained again stores its own."
    )


def test_why_there_is_no_temperature_is_told():
    assert built()["notes"] == ["No temperature was fitted: there are no validation predictions to fit it on."]


def test_the_temperature_of_an_old_run_is_fitted_on_its_validation_predictions(make_run):
    run = make_run()
    chosen = choose(artifact(run / "model"), run)
    assert chosen.fit is not None
    assert chosen.fit.documents == 120
    assert chosen.temperature == chosen.fit.temperature != 1
    assert not chosen.is_in_artifact
    assert chosen.validation.is_right.mean() == pytest.approx(0.9)


def test_the_artifact_keeps_its_own_temperature(make_run):
    run = make_run()
    chosen = choose(artifact(run / "model", temperature=1.7), run)
    assert chosen.temperature == 1.7
    assert chosen.is_in_artifact
    assert chosen.validation.scores.max() < 0.93  # those of predictions, softened


def test_a_model_folder_alone_has_nothing_to_choose_on():
    assert choose(artifact(), None) == UNCHOSEN


def test_a_threshold_is_chosen_on_validation_data_and_judged_on_the_others():
    validation = Scored(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]))
    judged = Scored(np.array([0.95, 0.85, 0.85, 0.6]), np.array([True, False, True, True]))
    rows = threshold_rows(1.0, validation, judged)
    assert [row["precision"] for row in rows] == [0.9, 0.95, 0.99, 1.0]
    assert rows[-1]["threshold"] == 0.8
    assert rows[-1]["validation"] == {"documents": 2, "coverage": pytest.approx(2 / 3), "accuracy": 1.0}
    assert rows[-1]["judged"]["documents"] == 3
    assert rows[-1]["judged"]["accuracy"] == pytest.approx(2 / 3)
    words = threshold_words(rows, 1.0, "document")
    assert words == (
        "For a precision of 100 % accept scores of at least 0.8000 (chosen on validation data: 100.0 % right, 66.7 % "
        "kept). On the judged documents: 66.7 % right (0.0 % to 100.0 %), 75.0 % kept."
    )


def test_where_all_that_is_kept_is_right_the_rule_of_three_bounds_it():
    validation = Scored(np.array([0.9, 0.5]), np.array([True, False]))
    judged = Scored(np.full(100, 0.95), np.ones(100, bool))
    assert threshold_rows(0.95, validation, judged)[1]["judged"]["ci95"] == [0.97, 1.0]


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (None, "No threshold for a precision of 95 %: there are no validation predictions to choose it on."),
        (
            Scored(np.array([0.9]), np.array([False])),
            "No threshold for a precision of 95 %: none reaches it on validation data.",
        ),
        (
            Scored(np.array([0.99]), np.array([True])),
            "For a precision of 95 % accept scores of at least 0.9900 (chosen on validation data: 100.0 % right, "
            "100.0 % kept). It keeps none of the judged questions.",
        ),
    ],
)
def test_a_threshold_that_is_of_no_use_says_so(validation, words):
    judged = Scored(np.array([0.5]), np.array([True]))
    assert threshold_words(threshold_rows(0.95, validation, judged), 0.95, "question") == words


# --- mistakes and slices -----------------------------------------------------------------------------------------


def test_the_worst_mistakes_come_first_with_their_text():
    worst = built()["worst_mistakes"]
    assert len(worst) == 12
    assert worst[0] == {
        "path": "/files/4.txt",
        "truth": "b",
        "predicted": "c",
        "probability": pytest.approx(0.95 - 0.4 * 4 / 60),
        "truth_probability": pytest.approx((0.05 + 0.4 * 4 / 60) / 2),
        "excerpt": "text 4",
    }


def test_confused_pairs_have_an_example():
    pairs = built()["confused_pairs"]
    assert [(pair["truth"], pair["predicted"], pair["count"], pair["support"]) for pair in pairs] == [
        ("a", "b", 4, 20),
        ("b", "c", 4, 20),
        ("c", "a", 4, 20),
    ]
    assert pairs[0]["example"] == "/files/9.txt"


def test_slices_put_every_document_into_one_group():
    documents = tuple(
        document(
            number,
            format="pdf" if number < 40 else "word",
            remark="page 2 is damaged" if number == 7 else "",
            confidence=0.5 if number % 2 else 0.99,
        )
        for number in range(60)
    )
    found = evaluated(documents=documents, copies=Copies(np.arange(60) < 31))
    slices = sliced_scores(found, found.probabilities.argmax(axis=1))
    named = {name: {group["group"]: group["documents"] for group in groups} for name, groups in slices.items()}
    assert named == {
        "length": {"100 to 115": 16, "116 to 130": 15, "131 to 145": 15, "146 to 159": 14},
        "format": {"pdf": 40, "word": 20},
        "copies": {"alone": 29, "has near-copies": 31},
        "extraction": {"read with a remark": 1, "read without a remark": 59},
        "confidence": {"0 to 0.6": 30, "0.95 to 1": 30},
    }
    assert [group["is_small"] for group in slices["copies"]] == [True, False]


def test_a_slice_has_the_scores_of_its_documents():
    found = evaluated(copies=Copies(np.arange(60) % 5 == 4))  # exactly the wrong ones
    groups = sliced_scores(found, found.probabilities.argmax(axis=1))["copies"]
    assert {group["group"]: group["accuracy"] for group in groups} == {"alone": 1.0, "has near-copies": 0.0}
    assert groups[0]["ci95"]["accuracy"] == [1.0, 1.0]


def test_suffixes_are_pooled_where_they_are_rare():
    documents = tuple(document(number, path=f"/f/{number}{'.PDF' if number < 20 else '.x'}") for number in range(25))
    found = evaluated(25, documents=documents)
    groups = sliced_scores(found, found.probabilities.argmax(axis=1))["suffix"]
    assert {group["group"]: group["documents"] for group in groups} == {".pdf": 20, "rare ones": 5}


def test_the_score_without_near_copies_in_training_stands_beside_that_with_them():
    found = evaluated(copies=Copies(np.ones(60, bool), np.arange(60) % 5 != 4))  # only the wrong ones are new
    report = built(found)
    assert report["training_copies"]["documents"] == 48
    assert report["training_copies"]["with"]["accuracy"] == 0.8
    assert report["training_copies"]["without"]["accuracy"] == 0.0
    assert copies_words(report) == (
        "48 documents of 60 have a near-copy in training. Accuracy 0.800 (0.700–0.900) with them, 0.000 (0.000–0.000) "
        "without."
    )


@pytest.mark.parametrize(
    ("in_training", "words"),
    [
        (None, "It is not known which documents have a near-copy in training."),
        (np.zeros(60, bool), "No document has a near-copy in training."),
        (
            np.ones(60, bool),
            "60 documents of 60 have a near-copy in training: there is no other one, so nothing is known of new "
            "documents.",
        ),
    ],
)
def test_what_is_known_of_near_copies_is_said(in_training, words):
    assert copies_words(built(evaluated(copies=Copies(None, in_training)))) == words


# --- what was not judged, and notes ------------------------------------------------------------------------------


def test_what_was_not_judged_is_counted_and_listed():
    lost = [Unjudged("/f/1", "a", "damaged", "no PDF"), Unjudged("/f/2", "b", "gone", "there is no such file any more")]
    report = built(evaluated(unjudged=tuple(lost)))
    assert report["unjudged"]["files"][0] == {"path": "/f/1", "label": "a", "status": "damaged", "reason": "no PDF"}
    assert report["unjudged"]["accuracy_with_unread"] == 48 / 61  # a file that is gone is no mistake of the model
    assert judged_words(report) == (
        "60 documents of the test part of the run, by the exported model (torch). 60 of 60 labels are those that the "
        "run stored. Not judged: 1 damaged, 1 gone. If the 1 file that could not be read counted as wrong, the "
        "accuracy would be 0.787."
    )


def test_stored_probabilities_are_named():
    report = built(evaluated(backend="stored", agreement=None))
    assert judged_words(report) == "60 documents of the test part of the run, by the probabilities that the run stored."


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        (
            {"part": "val"},
            "These validation documents chose the checkpoint, the temperature and the thresholds: the scores flatter.",
        ),
        ({"num_documents": 12}, "There are only 12 documents, too few for their scores to be trusted."),
        (
            {"wrong_every": 61},
            "No document was wrong: with 60 of them an error rate of up to 5.0% cannot be excluded (rule of three), "
            "whatever the interval says.",
        ),
    ],
)
def test_what_makes_a_score_flatter_is_told(facts, note):
    assert note in built(evaluated(**facts))["notes"]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    validation = Scored(np.linspace(0.5, 1, 50), np.arange(50) > 10)
    documents = tuple(document(number, excerpt="<b>bold</b>") for number in range(60))
    lost = (Unjudged("/f/<1>", "a", "too_large", "it has 1 GB"),)
    found = evaluated(documents=documents, unjudged=lost, copies=Copies(None, np.arange(60) < 20))
    chosen = Chosen(1.5, True, "", TemperatureFit(1.5, 50, 0.9, 0.8), validation)
    folder = tmp_path_factory.mktemp("evaluation")
    return folder, write_evaluation(found, chosen, artifact(temperature=1.5), "x/y/run", 0.95, folder)


def test_everything_is_written(written):
    folder, summary = written
    report = json.loads((folder / "evaluation_report.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == set(report["files"])
    assert (folder / "summary.txt").read_text(encoding="utf-8") == summary == summarize(report)
    assert max(map(len, summary.splitlines())) <= 100


def test_the_summary_is_a_table_of_numbers(written):
    with (written[0] / "evaluation_summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert rows["accuracy"]["value"] == "0.8"
    assert float(rows["accuracy"]["low"]) < 0.8 < float(rows["accuracy"]["high"])
    assert rows["accuracy"]["documents"] == "60"
    assert {"ece_before_temperature", "ece_after_temperature", "log_loss_before_temperature", "f1[a]"} <= set(rows)


def test_the_page_is_whole_and_shows_what_documents_say_as_text(written, read_html):
    html = read_html((written[0] / "index.html").read_text(encoding="utf-8"))
    assert html.open == []
    assert len([image for image in html.named("img") if image["src"].startswith("data:image/png;base64,")]) == 5
    text = " ".join(html.text)
    assert "<b>bold</b>" in text
    assert "too large: it has 1 GB" in text
    links = {link["href"] for link in html.named("a")}
    assert {name for name in links if name.startswith("#")} == {f"#{part['id']}" for part in html.named("section")}
