from __future__ import annotations

import json
import re

import pytest

from doctune.reports.plots import Curves
from doctune.reports.run import write_report
from doctune.reports.target_page import Matrix, Pictures, page
from doctune.reports.target_records import read_targets_run
from doctune.reports.targets import build_report

PICTURES = Pictures(Curves("<svg></svg>", "<svg></svg>"), {"kind": Matrix("confusion_matrix_1.png", "data:,")})
SECTIONS = [
    "verdict",
    "notes",
    "target-1",
    "target-2",
    "curves",
    "gap",
    "data",
    "throughput",
    "configuration",
    "environment",
    "files",
    "methods",
]


def page_of(run, **changes):
    records = read_targets_run(run)
    return page(build_report(records) | changes, records, PICTURES, "The methods.")


def words_of(text, name):
    """The words of a section, blanks made one."""
    section = re.search(rf'<section id="{name}">(.*?)</section>', text, flags=re.DOTALL)[1]
    return " ".join(re.sub(r"<[^>]+>", " ", section).split())


@pytest.fixture
def text(make_targets_run):
    return page_of(make_targets_run())


def test_every_section_is_there_in_order_and_linked(text, read_html):
    read = read_html(text)
    assert [each["id"] for each in read.named("section")] == SECTIONS
    assert [link["href"] for link in read.named("a")][: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert read.open == []


def test_the_overview_has_the_mean_and_a_row_for_each_target(text):
    words = words_of(text, "verdict")
    assert words.startswith(
        "Overview better on 2 of 2 Better than the baseline on 2 of 2 targets. Mean macro F1 0.986 (95 % interval 0."
    )
    assert re.search(
        r"0\.\d{3} to 1\.000\), the strongest baseline of each target 0\.350; difference \+0\.641 \(\+0\.\d{3} to "
        r"\+0\.\d{3}\) on the same texts\.",
        words,
    )
    assert re.search(r" mean 0\.986 \(0\.\d{3}–1\.000\) 0\.350 40 kind 0\.972 \(0\.\d{3}–1\.000\) 0\.300 ", words)
    assert "0.300 majority class better 36 0.80 tags 1.000 (1.000–1.000) 0.400 TF-IDF + logistic regression" in words
    assert words.split("TF-IDF + logistic regression ")[1].startswith("better 40 1.20 Macro F1 on test texts")


@pytest.mark.parametrize(
    ("statuses", "tone", "words"),
    [
        (("better", "worse"), "error", "better on 1 of 2"),
        (("better", "unclear"), "warning", "better on 1 of 2"),
        (("too_few", "no_baseline"), "warning", "better on 0 of 2"),
    ],
)
def test_the_card_has_the_colour_of_what_became_of_the_targets(make_targets_run, statuses, tone, words):
    run = make_targets_run()
    targets = build_report(read_targets_run(run))["targets"]
    for found, status in zip(targets.values(), statuses, strict=True):
        found["comparison"]["status"] = status
    text = page_of(run, targets=targets)
    assert f'<section id="verdict"><h2>Overview</h2>\n<article class="verdict {tone}">' in text
    assert words in words_of(text, "verdict")


def test_a_target_has_its_labels_the_lowest_f1_first(text):
    words = words_of(text, "target-1")
    assert "2 labels, one per text; 36 test texts." in words
    assert "label F1 precision recall texts said in training y 0.968 1.000 0.938 16 15 7 x 0.976 0.952 1.000" in words
    assert "threshold" not in words
    words = words_of(text, "target-2")
    assert "in training threshold a 1.000 1.000 1.000 20 20 7 0.300 b 1.000 1.000 1.000 8 8 7 0.600" in words
    assert "threshold: the probability from which on it is said, chosen on validation texts." in words


def test_labels_of_sets_are_counted_per_text(text):
    words = words_of(text, "target-2")
    # Of 40 texts 20 have a, 8 have b and 4 have both.
    assert "0 16 16 1 20 20 2 4 4 3 0 0 4 or more 0 0" in words
    assert "On average a text has 0.70 labels (in training 0.35) and is given 0.70." in words
    assert "Labels per text" not in words_of(text, "target-1")


def test_confusions_and_mistakes_have_their_texts(text):
    words = words_of(text, "target-1")
    assert "true label taken for times of y x 1 16" in words
    assert "Text t37. said x 70.0 % true y 30.0 % f.csv:37" in words
    assert '<span class="wrong"><bdi>x</bdi>' in text
    assert '<span class="missed"><bdi>y</bdi>' in text
    assert "No text was given a label that does not apply." in words_of(text, "target-2")


def test_missed_labels_stand_beside_what_was_said_instead(make_targets_run, judged):
    words = words_of(page_of(make_targets_run(test=judged(36, wrong_tags=10))), "target-2")
    # Texts 2, 4, 6 and 8 have a alone and are said b, text 0 has both; those that have no tag make no pair.
    assert "missed said instead times of a b 4 20" in words
    assert "Text t1. said b 10.0 % true no label f.csv:1" in words


def test_of_many_labels_of_a_mistake_the_most_probable_are_shown(make_targets_run):
    run = make_targets_run()
    targets = build_report(read_targets_run(run))["targets"]
    targets["kind"]["worst_mistakes"][0]["said"] = [{"label": f"l{n}", "probability": 0.5} for n in range(9)]
    words = words_of(page_of(run, targets=targets), "target-1")
    assert "l5 50.0 % and 3 more true" in words
    assert "l6" not in words


def test_a_target_without_test_texts_says_so(make_targets_run, judged):
    text = page_of(make_targets_run(test=[row | {"kind/truth": None} for row in judged(36)]))
    assert words_of(text, "target-1").startswith("kind 2 labels, one per text. No test text knows it. macro F1")
    words = words_of(text, "verdict")
    assert "kind – – no text – 0.80" in words
    assert "the mean is that of the 1 of 2 targets that have such texts" in words


def test_without_a_test_part_the_page_says_what_flatters(make_targets_run, judged):
    rows = [row | {"kind/truth": None, "tags/truth": None} for row in judged(36)]
    words = words_of(page_of(make_targets_run(test=rows)), "verdict")
    assert "There is no test part: these texts chose the checkpoint." in words
    assert "Macro F1 on validation texts" in words


def test_the_data_account_says_who_knows_which_target(text):
    words = words_of(text, "data")
    assert "groups of near-copies 2 with 5 texts, each kept in one part" in words
    assert "texts with different labels in different rows 1" in words
    assert words.endswith("Texts that know each target target train val test kind 28 36 36 tags 40 36 36")


def test_names_from_the_data_are_escaped_everywhere(make_targets_run):
    run = make_targets_run()
    records = read_targets_run(run)
    found = json.loads(json.dumps(build_report(records)["targets"]["kind"]).replace('"x"', '"<b>x"'))
    found["worst_mistakes"][0]["text"] = "<b>text"
    pictures = Pictures(PICTURES.curves, {"<b>kind": PICTURES.matrices["kind"]})
    text = page(build_report(records) | {"targets": {"<b>kind": found}}, records, pictures, "<b>The methods.")
    assert not re.search("<b>(kind|x|text|The)", text)
    for name in ("kind", "x", "text", "The"):
        assert f"&lt;b&gt;{name}" in text


def test_the_written_page_has_the_picture_of_the_matrix_and_a_link_to_it(make_targets_run):
    run = make_targets_run()
    write_report(run)
    text = (run / "report/index.html").read_text()
    assert 'src="data:image/png;base64,' in text
    assert '<a href="confusion_matrix_1.png">confusion_matrix_1.png</a>: the confusion matrix of kind' in text
    assert '<a href="per_label.csv">per_label.csv</a>: the tables of labels' in text
    assert json.loads((run / "report/report.json").read_text())["targets"]["kind"]["confusion"] == [[20, 0], [1, 15]]
