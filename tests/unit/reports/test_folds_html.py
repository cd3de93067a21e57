"""The page of a k-fold multirun: what stands in it, for complete and for other folds, and that names stay text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from doctune.reports import folds_page
from doctune.reports.folds import FILES
from doctune.reports.folds_html import page
from doctune.reports.suspects import Suspect

NAMES = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "precision_weighted", "recall_macro",
         "recall_weighted", "log_loss")  # fmt: skip
SCORES = {
    "documents": 90,
    **dict.fromkeys(NAMES, 0.75),
    "f1_macro": 0.625,
    "top_k_accuracy": {"3": 0.875},
    "ci95": {name: [0.5, 0.8125] for name in NAMES},
}
PICTURES = {"val_loss.png": "<svg id='one'></svg>", "scores.png": "<svg id='two'></svg>"}
SUSPECT = Suspect("/files/<i>&.txt", "a<b>", "c", 0.0123, 0.9, 1)


def fold(number, status="finished"):
    return {
        "fold": number,
        "best_val_loss": 0.25,
        "final_val_loss": 0.5,
        "monitor": 0.875,
        "status": status,
        "path": f"fold-{number}",
        "test": {"f1_macro": 0.125} if status == "finished" else None,
    }


RESULTS = {
    "metric": "val/f1_macro",
    "test_metric": "f1_macro",
    "num_folds": 2,
    "folds": [fold(0), fold(1)],
    "mean": 0.8,
    "std": 0.1,
    "min": 0.7,
    "max": 0.9,
    "best_fold": 1,
    "missing": [],
    "oof": SCORES,
    "per_class": [
        {"label": "good", "precision": 1.0, "recall": 0.5, "f1": 0.75, "support": 40, "predicted": 20},
        {"label": "absent", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "predicted": 1},
        {"label": "<bad>", "precision": 0.25, "recall": 0.25, "f1": 0.25, "support": 50, "predicted": 69},
    ],
}
INCOMPLETE = RESULTS | {"folds": [fold(0), fold(1, "failed")], "missing": [1]}
NOTHING = RESULTS | {
    "folds": [fold(1, "training")],
    "missing": [0, 1],
    "mean": None,
    "std": None,
    "oof": None,
    "per_class": [],
}


@pytest.fixture
def shown(tmp_path, read_html):
    """A page as its sections' words, after its tags were checked."""

    def show(results=RESULTS, suspects=(SUSPECT,), pictures=PICTURES, files=FILES):
        text = page(results, suspects, tmp_path / "multirun/d/t", pictures, files)
        read = read_html(text)
        assert read.open == []
        parts = re.findall(r'<section id="(\w+)">(.*?)</section>', text, flags=re.DOTALL)
        return text, {name: " ".join(re.sub(r"<[^>]+>", " ", body).split()) for name, body in parts}

    return show


def test_the_page_needs_nothing_but_itself(shown, read_html):
    text, sections = shown()
    assert list(sections) == ["result", "folds", "pooled", "classes", "curves", "labels", "files"]
    assert "<title>Folds of multirun/d/t</title>" in text
    assert "script-src 'none'" in text
    tags = read_html(text)
    assert not {"script", "img", "iframe"} & {tag for tag, _ in tags.tags}
    assert [link["href"] for link in tags.named("a")] == [*(f"#{name}" for name in sections), *FILES]
    assert text.count("http") == text.count("http-equiv")


def test_the_result_is_mean_and_deviation_in_a_card(shown):
    text, sections = shown()
    assert sections["result"] == (
        "Result complete val/f1_macro 0.800 ± 0.100 (mean ± standard deviation of the folds, whose training documents "
        "overlap; min 0.700, max 0.900); 2 of 2 folds finished. Best fold: 1 (fold-1)."
    )
    assert '<article class="verdict success">' in text


def test_missing_folds_are_in_the_card_below_and_in_the_table(shown, tmp_path):
    text, sections = shown(INCOMPLETE, None)
    place = tmp_path / "multirun/d/t"
    assert sections["result"].startswith("Result incomplete val/f1_macro 0.800")
    assert sections["result"].endswith(
        "1 fold without a finished run: 1 (failed). Finished folds are skipped when the multirun goes on in its "
        f"folder. Start the same multirun again with hydra.sweep.dir={place} or, where multirun.yaml is in it: "
        f"python train.py resume={place}"
    )
    assert sections["folds"] == (
        "Folds fold status best val loss final val loss val/f1_macro test macro F1 "
        "0 finished 0.250 0.500 0.875 0.125 1 failed 0.250 0.500 0.875 –"
    )
    assert '<article class="verdict warning">' in text


def test_a_fold_links_to_its_report_where_there_is_one(shown, tmp_path):
    report = tmp_path / "multirun/d/t/fold-1/report/index.html"
    report.parent.mkdir(parents=True)
    report.write_text("")
    text, _ = shown()
    assert re.findall(r'href="(\.\./[^"]+)"', text) == ["../fold-1/report/index.html"]


def test_pooled_scores_have_their_intervals(shown):
    _, sections = shown()
    assert "macro F1 0.625 (0.500–0.812) weighted F1 0.750 (0.500–0.812)" in sections["pooled"]
    assert sections["pooled"].endswith(
        "log loss 0.750 (0.500–0.812) top-3 accuracy 0.875 On 90 documents, each judged by a model that neither "
        "trained on it nor was chosen by it; intervals over documents. The log loss is in nats."
    )


def test_the_class_with_the_lowest_f1_is_first_and_one_without_documents_last(shown):
    _, sections = shown()
    assert sections["classes"].endswith(
        "&lt;bad&gt; 0.250 0.250 0.250 50 good 0.750 1.000 0.500 40 absent – – – 0 The lowest F1 first."
    )


def test_both_pictures_are_in_the_page(shown):
    text, _ = shown()
    assert "<figure><svg id='one'></svg></figure><figure><svg id='two'></svg></figure>" in text
    assert shown(pictures={})[1]["curves"] == "Curves No fold has been validated yet."


def test_a_suspect_has_its_path_both_labels_and_their_probabilities_as_text(shown):
    text, sections = shown()
    assert sections["labels"] == (
        "Suspect labels document given suggested /files/&lt;i&gt;&amp;.txt a&lt;b&gt; (1.2 %) c (90.0 %) 1 label looks "
        "wrong. Beside each label is the probability that a model gives it that has not seen the document; the least "
        "probable given label first."
    )
    assert '<code><bdi dir="ltr">/files/&lt;i&gt;&amp;.txt</bdi></code>' in text
    assert "<i>&" not in text


def test_of_many_suspects_100_are_shown_and_the_file_has_all(shown):
    text, sections = shown(
        suspects=[replace(SUSPECT, path=f"/files/{number}", rank=number) for number in range(1, 102)]
    )
    assert text.count('<code><bdi dir="ltr">/files/') == 100
    assert "101 labels look wrong." in sections["labels"]
    assert sections["labels"].endswith("These are the first 100; suspect_labels.csv has all.")


def test_why_there_are_no_suspects_is_said(shown, monkeypatch):
    assert shown(suspects=[])[1]["labels"] == (
        "Suspect labels No label looks wrong to the models that have not seen it."
    )
    assert shown(INCOMPLETE, None)[1]["labels"] == (
        "Suspect labels Suspect labels are looked for when all folds have finished."
    )
    monkeypatch.setattr(folds_page, "can_find_suspects", lambda: False)
    assert shown(suspects=None)[1]["labels"] == (
        "Suspect labels Suspect labels were not looked for: cleanlab (Apache-2.0 since 2.8, AGPL-3.0 before) is "
        "missing. pip install 'doctune[labels]'".replace("'", "&#x27;")
    )


def test_without_a_finished_fold_every_section_says_so(shown):
    text, sections = shown(NOTHING, None, {})
    assert '<article class="verdict error">' in text
    assert sections["result"].startswith(
        "Result incomplete 0 of 2 folds finished: there is no score of val/f1_macro yet."
    )
    assert sections["folds"].endswith("0 missing – – – – 1 training 0.250 0.500 0.875 –")
    none = "No fold has finished, so no document has an out-of-fold prediction yet."
    assert (sections["pooled"], sections["classes"]) == (
        f"Out-of-fold scores {none}",
        f"Out-of-fold scores per class {none}",
    )


def test_the_files_are_those_that_there_are(shown):
    files = {name: FILES[name] for name in ("index.html", "summary.txt")}
    assert shown(files=files)[1]["files"] == (
        "Files index.html : the report to look at summary.txt : the same as plain text, for pasting"
    )
