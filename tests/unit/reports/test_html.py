from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.reports.html import REPORT_FILES, Pictures, page
from doctune.reports.records import read_run
from doctune.reports.run import FILES, build_report, write_report

PICTURES = Pictures("<svg></svg>", "<svg></svg>", "data:image/png;base64,AAAA")
SECTIONS = [
    "verdict",
    "notes",
    "curves",
    "gap",
    "classes",
    "confusions",
    "mistakes",
    "data",
    "throughput",
    "configuration",
    "environment",
    "files",
    "methods",
]
EPOCHS = [
    {"epoch": 1, "train_eval_loss": 1.45, "val_loss": 1.5, "gap": 0.05, "gap_status": "good", "val_f1_macro": 0.4},
    {
        "epoch": 2,
        "train_eval_loss": 0.3,
        "val_loss": 0.9,
        "gap": 0.6,
        "gap_status": "critical",
        "val_f1_macro": 0.7,
        "seconds": 61.2,
        "tokens_per_s": 14000.4,
        "padding_share": 0.1234,
        "lr": 0.00025,
    },
    {"epoch": 3, "val_loss": 1.1, "val_f1_macro": 0.6},
]


def page_of(run):
    records = read_run(run)
    return page(build_report(records), records, PICTURES, "The methods.")


def sections_of(text):
    """The words of every section, blanks made one."""
    parts = re.findall(r'<section id="(\w+)">(.*?)</section>', text, flags=re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]+>", " ", body).split()) for name, body in parts}


def rewrite(file, **columns):
    pq.write_table(pa.table(pq.read_table(file).to_pydict() | columns), file)


def write_hydra(run):
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text("data:\n  manifest: /a<b>.csv\nseed: 0\n")
    (run / ".hydra/overrides.yaml").write_text("- data.manifest=/a<b>.csv\n")


def test_every_section_is_there_in_order_and_linked(make_run, read_html):
    read = read_html(page_of(make_run()))
    assert [section["id"] for section in read.named("section")] == SECTIONS
    assert [link["href"] for link in read.named("a")][: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert read.open == []


def test_the_verdict_stands_beside_the_baselines(make_run):
    words = sections_of(page_of(make_run()))["verdict"]
    assert words.startswith("Verdict better than the baseline Better than the baseline: test macro F1 0.900 (95 % ")
    rows = re.findall(r"(this run|majority class|TF-IDF \+ linear SVM|this run, validation) (0\.\d{3}) \(0", words)
    assert rows == [
        ("this run", "0.900"),
        ("majority class", "0.167"),
        ("TF-IDF + linear SVM", "0.750"),
        ("this run, validation", "0.900"),
    ]
    assert "Test: log loss " in words


@pytest.mark.parametrize(
    ("settings", "tone"),
    [
        ({}, "success"),
        ({"wrong_every": 2}, "error"),
        ({"wrong_every": 4}, "warning"),
        ({"documents": 12}, "warning"),
    ],
)
def test_the_verdict_has_its_colour(make_run, read_html, settings, tone):
    assert read_html(page_of(make_run(**settings))).named("article")[0]["class"] == f"verdict {tone}"


def test_the_interval_is_drawn_from_0_to_1(make_run, read_html):
    run = make_run(documents=12, wrong_every=2)
    part = build_report(read_run(run))["test"]
    low, high = part["ci95"]["f1_macro"]
    read = read_html(page_of(run))
    assert read.named("i")[0]["style"] == f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    assert read.named("b")[0]["style"] == f"left:{100 * part['f1_macro']:.1f}%"


def test_notes_are_listed_or_said_to_be_absent(make_run):
    words = "Notes Precision 16-mixed was asked for, but a CPU has none: 32 is used."
    assert sections_of(page_of(make_run()))["notes"] == words
    assert sections_of(page_of(make_run("other", notes=[])))["notes"] == "Notes Nothing to warn of at the end."


def test_what_the_guards_took_back_can_be_opened(make_run):
    alarms = [
        {"guard": "a", "epoch": 1, "message": "Worse <now>.", "cleared": 3},
        {"guard": "b", "epoch": 2, "message": "Underfitting.", "cleared": None},
    ]
    text = page_of(make_run(notes=["A note."], alarms=alarms))
    assert sections_of(text)["notes"] == (
        "Notes A note. Underfitting. 1 warning during training Worse &lt;now&gt;. (no longer so in epoch 3)"
    )


def test_the_gap_has_its_history(make_run, read_html):
    text = page_of(make_run(history=EPOCHS))
    words = sections_of(text)["gap"]
    assert words.startswith(
        "Gap At the best epoch: 0.600 critical First critical in epoch 2. "
        "epoch training sample validation gap status "
        "1 1.450 1.500 0.050 good 2 0.300 0.900 0.600 critical 3 – 1.100 – – "
    )
    badges = [span["class"] for span in read_html(text).named("span") if "badge" in span.get("class", "")]
    assert badges == ["badge error", "badge success", "badge error"]


def test_a_gap_that_was_not_measured_is_said(make_run):
    words = sections_of(page_of(make_run()))["gap"]
    assert words == "Gap Not measured: this run kept no loss of training documents in evaluation mode."


def test_a_gap_without_value_at_the_best_epoch_is_said(make_run):
    history = [EPOCHS[0], EPOCHS[1] | {"gap": None, "gap_status": None}]
    assert sections_of(page_of(make_run(history=history)))["gap"].startswith("Gap Not measured at the best epoch. ")


def test_the_classes_are_in_the_order_of_need(make_run):
    run = make_run(names=("a", "b", "c", "d"), documents=6, wrong_every=3)
    rewrite(run / "predictions/test.parquet", truth=list("abcabc"), prediction=list("abaaba"))
    text = page_of(run)
    assert sections_of(text)["classes"].startswith(
        "Test scores per class class F1 precision recall documents predicted in training "
        "c 0.000 0.000 0.000 2 0 12 a 0.667 0.500 1.000 2 4 10 b 1.000 1.000 1.000 2 2 11 d – – – 0 0 13 "
        "The lowest F1 first."
    )
    table = text[text.index('id="classes"') : text.index('id="confusions"')]
    assert '<table class="sortable">' in table
    assert re.findall(r'data-value="([^"]*)"', table)[-6:] == ["", "", "", "0", "0", "13"]


def test_what_was_taken_for_what(make_run):
    text = page_of(make_run(documents=6, wrong_every=3))
    assert sections_of(text)["confusions"].startswith(
        "Confusions true class taken for times of c a 2 2 Confusion matrix"
    )
    assert 'src="data:image/png;base64,AAAA" alt="Confusion matrix of 3 classes"' in text


def test_the_worst_mistakes_come_with_path_and_probabilities(make_run):
    run = make_run(names=("a", "b"), documents=2, wrong_every=0)
    rewrite(
        run / "predictions/test.parquet",
        path=["/far/away.txt", "/near.txt"],
        prediction=["b", "a"],
        probabilities=[[0.25, 0.75], [0.9375, 0.0625]],
    )
    assert sections_of(page_of(run))["mistakes"].endswith(
        "93.8 % a instead of b (6.2 %) /near.txt 75.0 % b instead of a (25.0 %) /far/away.txt"
    )


def test_a_run_without_mistakes_says_so(make_run):
    words = sections_of(page_of(make_run(wrong_every=0)))
    assert words["mistakes"] == "Worst mistakes None."
    assert words["confusions"].startswith("Confusions No document was given a wrong label. Confusion matrix")


def test_the_account_adds_up(make_run):
    assert sections_of(page_of(make_run()))["data"] == (
        "Data account rows of the source 365 groups of near-copies 4 part documents share train 120 32.9 % "
        "val 120 32.9 % test 120 32.9 % left out 5 1.4 % Left out left out because documents share "
        "empty 3 0.8 % damaged 2 0.5 %"
    )


def test_throughput_is_told_per_epoch(make_run):
    words = sections_of(page_of(make_run(history=EPOCHS)))["throughput"]
    assert words == (
        "Throughput training time 3 min 12 s tokens per second 14,000 on average "
        "padding 12.3 % of the cells of all batches epoch time tokens/s padding learning rate "
        "1 – – – – 2 1 min 1 s 14,000 12.3 % 0.00025 3 – – – –"
    )


def test_the_configuration_is_shown_where_there_is_one(make_run):
    run = make_run()
    words = "Configuration Not recorded: this run was not started through Hydra."
    assert sections_of(page_of(run))["configuration"] == words
    write_hydra(run)
    text = page_of(run)
    assert "<h3>Overrides</h3><pre>data.manifest=/a&lt;b&gt;.csv</pre>" in text
    assert "<h3>All keys</h3><pre>data:\n  manifest: /a&lt;b&gt;.csv\nseed: 0\n</pre>" in text


def test_the_environment_is_told(make_run):
    assert sections_of(page_of(make_run()))["environment"] == (
        "Environment command train.py data=ifmos seed 0 commit 0123456789abcdef0123 , with changes that were not "
        "committed precision 32-true accelerators none processor Processor X, 2 cores system – "
        "started 2026-11-01 10:00:00 UTC finished 2026-11-01 10:04:00 UTC parameters 4,500,000, 1,000 trained "
        "best checkpoint checkpoints/best.ckpt doctune 0.1.0"
    )


def test_links_lead_to_files_that_are_there(make_run, read_html):
    run = make_run(best_checkpoint="checkpoints/best loss.ckpt")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best loss.ckpt").touch()
    write_report(run)
    links = [link["href"] for link in read_html((run / "report/index.html").read_text()).named("a")]
    files = [link for link in links if not link.startswith("#")]
    assert "../checkpoints/best%20loss.ckpt" in files
    assert "../predictions/test.parquet" in files
    assert "../train.log" not in files
    assert all((run / "report" / link.replace("%20", " ")).is_file() for link in files)
    assert not any(PurePosixPath(link).is_absolute() for link in files)


def test_every_file_of_a_report_is_linked():
    assert {"index.html", *REPORT_FILES} == set(FILES)


def test_the_paragraph_closes_the_page(make_run):
    assert sections_of(page_of(make_run()))["methods"] == "For a publication The methods."


def test_the_page_needs_nothing_but_itself(make_run, read_html):
    run = make_run(history=EPOCHS)
    write_hydra(run)
    write_report(run)
    text = (run / "report/index.html").read_text()
    read = read_html(text)
    assert read.open == []
    assert {tag for tag, _ in read.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form"})
    sources = [
        attributes[name]
        for _, attributes in read.tags
        for name in ("src", "href", "xlink:href", "srcset", "data")
        if name in attributes
    ]
    assert sources
    assert not [source for source in sources if re.match(r"\w+:|//", source) and not source.startswith("data:")]
    assert set(re.findall(r"url\((.)", text)) == {"#"}  # the clip paths of the curves
    assert "@import" not in text
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)


def test_what_comes_from_documents_stays_text(make_run, read_html):
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    run = make_run(names=(attack, 'b" onclick="c', "عقد \u202eإيجار"), notes=[attack], command=attack)
    environment = json.loads((run / "environment.json").read_text()) | {"best_checkpoint": attack}
    environment["versions"] = {attack: attack}
    (run / "environment.json").write_text(json.dumps(environment))
    audit = json.loads((run / "data/audit.json").read_text()) | {"left_out_reasons": {attack: 1}}
    (run / "data/audit.json").write_text(json.dumps(audit))
    path = run / "predictions/test.parquet"
    rewrite(path, path=["/" + attack + "/long" * 80 for _ in pq.read_table(path)["path"]])
    write_report(run)
    read = read_html((run / "report/index.html").read_text(encoding="utf-8"))
    assert read.open == []
    assert len(read.named("script")) == 1
    assert len(read.named("img")) == 1
    assert not any("onclick" in attributes or "onerror" in attributes for _, attributes in read.tags)
    assert read.text.count(attack) >= 4
    assert "/" + attack + "/long" * 80 in read.text
    assert "عقد ⟨U+202E⟩إيجار" in read.text


def test_a_bare_run_has_a_page_too(make_run, read_html):
    run = make_run(documents=4, history=[{"epoch": 1, "val_loss": 1.0}])
    for name in ("environment.json", "data/audit.json"):
        (run / name).write_text("{}")
    (run / "data/baselines.json").unlink()
    (run / "predictions/baselines_test.parquet").unlink()
    path = run / "predictions/test.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    text = page_of(run)
    words = sections_of(text)
    assert read_html(text).open == []
    assert words["verdict"].startswith("Verdict no baseline No baseline stands beside this score: validation macro F1")
    assert words["classes"].startswith("Validation scores per class ")
    assert words["data"] == "Data account Not recorded."


def test_the_page_of_100_classes_stays_below_a_megabyte(make_run):
    names = tuple(f"category_{place:03d}_of_some_documents" for place in range(100))
    run = make_run(names=names, documents=600, wrong_every=3)
    write_report(run)
    assert (run / "report/index.html").stat().st_size < 1_000_000
