from __future__ import annotations

import json
import re

import pytest

from doctune.reports.plots import Curves
from doctune.reports.reader import FILES, build_report
from doctune.reports.reader_page import REPORT_FILES, page
from doctune.reports.reader_records import read_reader_run
from doctune.reports.run import write_report

PICTURES = Curves("<svg></svg>", "<svg></svg>")
SECTIONS = [
    "verdict",
    "notes",
    "curves",
    "gap",
    "errors",
    "groups",
    "examples",
    "mistakes",
    "data",
    "lengths",
    "inference",
    "throughput",
    "configuration",
    "environment",
    "files",
    "methods",
]


def page_of(run):
    records = read_reader_run(run)
    return page(build_report(records), records, PICTURES, "The methods.")


def section(text, name):
    return re.search(rf'<section id="{name}">(.*?)</section>', text, flags=re.DOTALL)[1]


def words_of(text, name):
    """The words of a section, blanks made one."""
    return " ".join(re.sub(r"<[^>]+>", " ", section(text, name)).split())


def test_every_section_is_there_in_order_and_linked(make_reader_run, read_html):
    read = read_html(page_of(make_reader_run()))
    assert [each["id"] for each in read.named("section")] == SECTIONS
    assert [link["href"] for link in read.named("a")][: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert read.open == []


def test_the_head_says_what_was_judged(make_reader_run):
    head = re.search(r"<header>(.*?)</header>", page_of(make_reader_run()))[1]
    words = "mini · SQuAD 1.1 · 40 test questions · finished 2026-11-01 10:04:00 UTC"
    assert re.sub(r"<[^>]+>", "", head) == f"Report of outputs/2026-11-01/run{words}"


def test_the_verdict_stands_beside_the_baselines(make_reader_run):
    words = words_of(page_of(make_reader_run()), "verdict")
    assert words.startswith("Verdict better than the baseline Better than the baseline: test F1 0.667 (95 % ")
    assert " F1 (95 %) exact match (95 %) F1 from 0 to 1 this run 0.667 (0." in words
    rows = re.findall(r"(this run|lexical baseline|untrained model|this run, validation) (0\.\d{3}) \(0", words)
    assert rows == [
        ("this run", "0.667"),
        ("lexical baseline", "0.500"),
        ("untrained model", "0.000"),
        ("this run, validation", "0.667"),
    ]


def test_the_interval_is_drawn_from_0_to_1(make_reader_run, read_html):
    run = make_reader_run()
    part = build_report(read_reader_run(run))["test"]
    low, high = part["ci95"]["f1"]
    read = read_html(page_of(run))
    assert read.named("i")[0]["style"] == f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    assert read.named("b")[0]["style"] == "left:66.7%"


def test_few_questions_are_said_to_be_few(make_reader_run, answer):
    words = words_of(page_of(make_reader_run(test=[answer("a")])), "verdict")
    assert words.startswith("Verdict too few questions to judge Too few questions to judge (1 of at least 30): ")


def test_version_2_shows_both_halves_and_the_threshold(make_reader_run, answer):
    test = [answer("yes"), answer("no", "", references=())]
    words = words_of(page_of(make_reader_run(test=test, version="2.0", no_answer_threshold=1.25)), "verdict")
    assert "With and without an answer F1 (95 %) exact match (95 %) F1 from 0 to 1 " in words
    assert "questions with an answer: 1 1.000 (1.000–1.000) 1.000 (1.000–1.000)" in words
    assert "questions without one: 1 1.000 (1.000–1.000) 1.000 (1.000–1.000)" in words
    assert words.endswith(
        "A question was left unanswered where having no answer scored more than 1.250 above the best span. "
        "The threshold was chosen on validation questions."
    )


def test_the_gap_is_that_of_questions(make_reader_run):
    history = [{"epoch": 1, "train_eval_loss": 1.5, "val_loss": 1.75, "gap": 0.25, "gap_status": "moderate"}]
    words = words_of(page_of(make_reader_run(history=history, best_epoch=1)), "gap")
    assert words.startswith("Gap At the best epoch: 0.250 moderate epoch training sample validation gap status ")
    assert "the loss of a fixed sample of training questions, both plain cross entropy" in words


def test_the_kinds_of_error_are_counted(make_reader_run):
    assert words_of(page_of(make_reader_run()), "errors") == (
        "Kinds of error answer questions share F1 exact right, word by word 20 50.0 % 1.000 "
        "boundary overlaps the reference: too short, too long or shifted 10 25.0 % 0.667 "
        "wrong type elsewhere, and of another type: date, number, name, other 10 25.0 % 0.000"
    )


def test_the_groups_are_told_and_small_ones_are_grey(make_reader_run, answer):
    test = [*(answer(f"q{number:02}") for number in range(30)), answer("why", "Paris", question="Why then?")]
    text = page_of(make_reader_run(test=test))
    assert words_of(text, "groups").startswith(
        "Scores by group By question word F1 exact match questions when 1.000 1.000 30 why 0.000 0.000 1 "
        "By words of the answer F1 exact match questions 1 0.968 0.968 31 By place of the answer in its context "
    )
    assert '<td class="name">when</td><td class="wide"><span class="bar" style="width:100.0%">' in text
    assert '<td class="name few">why</td><td class="wide"></td><td class="few">0.000</td>' in text


def test_an_example_has_its_sentence_with_reference_and_prediction_marked(make_reader_run, answer):
    body = section(page_of(make_reader_run(test=[answer("q", "in 1889")])), "examples")
    assert '<span class="asked"><bdi>When was it built?</bdi></span> <span class="soft"><bdi>Towers</bdi>' in body
    assert "<dt>reference</dt><dd><bdi>1889</bdi></dd><dt>prediction</dt><dd><bdi>in 1889</bdi></dd>" in body
    assert (
        '<blockquote><bdi>It was built <mark class="predicted">in </mark><mark class="predicted"><mark>1889</mark>'
        "</mark> by Eiffel.</bdi></blockquote>"
    ) in body


def test_a_faultless_run_has_no_examples(make_reader_run, answer):
    text = page_of(make_reader_run(test=[answer("q")]))
    assert words_of(text, "examples") == "Examples of errors Every answer was exact."
    assert words_of(text, "mistakes") == "Worst mistakes None."


def test_no_answer_is_said_in_words(make_reader_run, answer):
    test = [answer("a", ""), answer("b", "Paris", references=())]
    body = section(page_of(make_reader_run(test=test, version="2.0")), "examples")
    assert '<dt>prediction</dt><dd><span class="soft">no answer</span></dd>' in body
    assert '<dt>reference</dt><dd><span class="soft">no answer</span></dd>' in body


def test_the_worst_mistakes_come_with_what_they_were_chosen_from(make_reader_run, answer):
    best = [
        {"text": text, "start": 0, "end": 1, "score": 1.0, "probability": chance}
        for text, chance in (("Paris", 0.75), ("1889", 0.25))
    ]
    words = words_of(page_of(make_reader_run(test=[answer("q", "Paris", n_best=best)])), "mistakes")
    assert words.endswith(
        "When was it built? Towers reference 1889 prediction Paris (75.0 %) It was built in 1889 by Eiffel. "
        "The 2 best spans Paris (75.0 %) 1889 (25.0 %)"
    )


def test_the_account_adds_up(make_reader_run):
    assert words_of(page_of(make_reader_run()), "data") == (
        "Data account rows of the source 163 answers not where the file says 2 "
        "part questions articles contexts windows train 80 1 7 90 val 40 1 5 44 "
        "test 40 1 6 45 left out 3 – – – Left out left out because questions share misaligned answer 2 1.2 % "
        "empty question 1 0.6 %"
    )


def test_questions_without_an_answer_are_counted_per_part(make_reader_run):
    run = make_reader_run(version="2.0")
    audit = json.loads((run / "data/audit.json").read_text()) | {"impossible": {"train": 9, "val": 0, "test": 0}}
    (run / "data/audit.json").write_text(json.dumps(audit))
    assert "part questions without an answer articles contexts windows train 80 9 1 7 90 " in words_of(
        page_of(run), "data"
    )


def test_lengths_and_inference_are_told(make_reader_run):
    text = page_of(make_reader_run())
    assert words_of(text, "lengths") == (
        "Lengths tokens of the median 95 % have at most longest question 12 20 33 context 150 300 700 "
        "Windows per question windows of the context questions share 1 30 75.0 % 2 10 25.0 %"
    )
    assert words_of(text, "inference") == (
        "Inference questions per second 123 time per question median 8.1 ms · 90 % within 12 ms · 99 % within 31 ms "
        "memory 1,024 MB"
    )


def test_questions_that_were_cut_are_counted(make_reader_run):
    lengths = {"question": {"p50": 12, "p95": 20, "max": 90}, "context": {}, "cut_questions": 2}
    assert words_of(page_of(make_reader_run(length_analysis=lengths)), "lengths") == (
        "Lengths tokens of the median 95 % have at most longest question 12 20 90 "
        "2 questions longer than a window allows, cut off there."
    )


def test_what_was_not_measured_is_said(make_reader_run):
    run = make_reader_run(length_analysis=None, inference=None, windows=None)
    (run / "data/audit.json").write_text("{}")
    text = page_of(run)
    assert words_of(text, "lengths") == "Lengths Not measured."
    assert words_of(text, "inference") == "Inference Not measured."
    assert words_of(text, "data") == "Data account Not recorded."


def test_links_lead_to_files_that_are_there(make_reader_run, read_html):
    run = make_reader_run()
    write_report(run)
    links = [link["href"] for link in read_html((run / "report/index.html").read_text()).named("a")]
    files = [link for link in links if not link.startswith("#")]
    assert "../predictions/test.parquet" in files
    assert all((run / "report" / link).is_file() for link in files)
    assert {"index.html", *REPORT_FILES} == set(FILES)
    words = words_of((run / "report/index.html").read_text(), "files")
    assert "predictions/test.parquet : predictions for the test questions" in words


@pytest.mark.parametrize("place", ["question", "article", "prediction", "references", "context", "id", "n_best"])
def test_what_comes_from_documents_stays_text(make_reader_run, answer, read_html, place):
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    context = f"{attack} stands in Paris since 1889 {attack}"
    columns = {
        "context": answer("q", "Paris", context=context),
        "prediction": answer("q", attack, context=context),
        "references": answer("q", "Paris", context=context, references=(attack,)),
        "n_best": {"n_best": [{"text": attack, "probability": 0.5}]},
    }
    run = make_reader_run(test=[answer("q", "Paris") | columns.get(place, {place: attack})])
    write_report(run)
    read = read_html((run / "report/index.html").read_text(encoding="utf-8"))
    assert read.open == []
    assert (read.named("script"), read.named("img")) == ([], [])
    assert not any("onerror" in attributes for _, attributes in read.tags)
    assert place == "id" or any(attack in text for text in read.text)


def test_names_from_a_run_stay_text(make_reader_run, read_html):
    attack = "<script>alert(1)</script>"
    run = make_reader_run(notes=[attack], command=attack, model={"name": attack})
    audit = json.loads((run / "data/audit.json").read_text()) | {"left_out_reasons": {attack: 1}}
    (run / "data/audit.json").write_text(json.dumps(audit))
    write_report(run)
    read = read_html((run / "report/index.html").read_text(encoding="utf-8"))
    assert (read.open, read.named("script")) == ([], [])
    assert read.text.count(attack) >= 4


def test_text_that_runs_from_the_right_leaves_its_surroundings_alone(make_reader_run, answer):
    context = "بني البرج في باريس. اكتمل في 1889 \u202eهنا."
    run = make_reader_run(test=[answer("q", "باريس", context=context, question="متى اكتمل البرج؟")])
    body = section(page_of(run), "mistakes")
    assert "<bdi>متى اكتمل البرج؟</bdi>" in body
    assert "<dt>prediction</dt><dd><bdi>باريس</bdi> <span" in body
    assert "<blockquote><bdi>اكتمل في <mark>1889</mark> ⟨U+202E⟩هنا.</bdi></blockquote>" in body


def test_the_page_needs_nothing_but_itself(make_reader_run, read_html):
    run = make_reader_run()
    write_report(run)
    text = (run / "report/index.html").read_text()
    read = read_html(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert "script-src 'none'" in read.named("meta")[1]["content"]
    assert set(re.findall(r"url\((.)", text)) == {"#"}  # the clip paths of the curves
    assert len(text) < 200_000
