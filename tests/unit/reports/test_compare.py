"""What a comparison of made-up runs says: which runs are meant, what differs, which is better, which gate fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError, ConfigError
from doctune.reports import compare as comparing
from doctune.reports.compare_page import overlaid_curves, page, summarize
from doctune.reports.gates import apply_gates, parse_gate
from doctune.reports.run import write_report


@pytest.fixture
def finish(make_run):
    """A made-up run that has finished and has its report."""

    def make(name, **settings):
        run = make_run(name, **settings)
        write_report(run)
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run

    return make


def compared(*given, gates=()):
    folders, left_out = comparing.find_runs(given)
    runs = comparing.read_compared(folders)
    return comparing.compare(runs, left_out, [parse_gate(gate) for gate in gates])


def rewrite_test(run, change):
    """Change the rows of `predictions/test.parquet`, after the report was made of them."""
    path = run / "predictions/test.parquet"
    rows = change(pq.read_table(path).to_pylist())
    pq.write_table(pq.read_table(path).schema.empty_table().from_pylist(rows, pq.read_schema(path)), path)
    (run / "predictions/baselines_test.parquet").unlink()


# --- which is better ---------------------------------------------------------------------------------------------


def test_a_better_run_is_named_with_its_lead(finish):
    report = compared(finish("wide", wrong_every=4), finish("narrow", wrong_every=12))
    # Of 120 documents the one misses every 4th, the other every 12th: 20 more, all of which the first one misses too.
    assert report["verdict"].startswith("narrow is better than wide: macro F1 +0.165 (+0.1")
    assert report["verdict"].endswith(") on the same 120 documents (McNemar p < 0.001).")
    assert report["best"] == "narrow"
    (against,) = report["comparisons"]
    assert (against["only_best_right"], against["only_other_right"]) == (20, 0)
    assert against["p"] == 2 / 2**20
    assert against["p_holm"] == against["p"]
    assert 0 < against["low"] < against["difference"] < against["high"]
    assert report["comparisons"][0]["status"] == "better"


def test_a_small_lead_cannot_be_told_apart(finish):
    report = compared(finish("a", wrong_every=10), finish("b", wrong_every=9))
    assert report["verdict"].startswith("a and b cannot be told apart: macro F1 +0.011 (-0.0")
    assert " for a on the same 120 documents (McNemar p = 1.000)." in report["verdict"]
    assert report["comparisons"][0]["status"] == "unclear"


def test_runs_with_the_same_answers_are_said_to_have_them(finish):
    report = compared(finish("a"), finish("b"))
    assert report["verdict"] == "a and b cannot be told apart: they label the same 120 documents alike."


def test_few_documents_are_too_few(finish):
    report = compared(finish("a", documents=12, wrong_every=0), finish("b", documents=12, wrong_every=1))
    assert report["verdict"].startswith(
        "a and b cannot be told apart: 12 documents are too few to judge (at least 30); macro F1 +1.000"
    )
    assert report["comparisons"][0]["status"] == "too_few"


def test_better_is_said_only_where_both_tests_find_it(finish):
    # 6 documents more are right, 0 fewer: p = 2/64, which Holm doubles for the second comparison.
    worse = finish("worse", wrong_every=20)
    report = compared(finish("best", wrong_every=0), worse, finish("twin", wrong_every=20))
    first, second = report["comparisons"]
    assert (first["p"], first["p_holm"], second["p_holm"]) == (2 / 64, 4 / 64, 4 / 64)
    assert first["low"] > 0
    assert {first["status"], second["status"]} == {"unclear"}
    assert report["verdict"].startswith("best cannot be told apart from worse and twin: macro F1 +0.05")
    assert report["verdict"].endswith("over worse on the same 120 documents (McNemar p = 0.062 after Holm).")
    assert (
        "Against worse and twin the interval and McNemar's test disagree: better is said only where both find it."
        in report["notes"]
    )


def test_of_several_runs_the_best_is_tested_against_each(finish):
    runs = finish("a", wrong_every=10), finish("b", wrong_every=3), finish("c", wrong_every=9)
    report = compared(*runs)
    assert [(each["best"], each["other"], each["status"]) for each in report["comparisons"]] == [
        ("a", "c", "unclear"),
        ("a", "b", "better"),
    ]
    assert report["verdict"].startswith("a is better than b, but cannot be told apart from c: macro F1 +0.011 (-0.0")
    assert any(note.startswith("a, the best on these documents, is tested against each") for note in report["notes"])


def test_the_metric_that_all_monitored_is_judged(finish):
    monitor = {"metric": "val/accuracy", "mode": "max"}
    a, b = finish("a", wrong_every=4, monitor=monitor), finish("b", wrong_every=12, monitor=monitor)
    assert compared(a, b)["verdict"].startswith("b is better than a: accuracy +0.167 (")
    report = compared(a, finish("c", wrong_every=12))
    assert report["metric"] == "f1_macro"
    assert "The runs monitored different metrics (val/accuracy and val/f1_macro)." in report["notes"]


def test_what_cannot_be_known_is_said(finish):
    assert compared(finish("a", config={"seed": 0}), finish("b", config={"seed": 1}))["notes"] == [
        comparing.NOT_KNOWABLE
    ]


# --- documents in common -----------------------------------------------------------------------------------------


def test_only_shared_documents_are_tested_and_said_to_be_few(finish):
    a, b = finish("a", wrong_every=4), finish("b", wrong_every=12)
    rewrite_test(
        b, lambda rows: [row | {"id": f"other-{place}"} if place >= 60 else row for place, row in enumerate(rows)]
    )
    report = compared(a, b)
    assert report["shared_documents"] == 60
    assert report["notes"][0].startswith(
        "The runs were judged on different splits: they share 60 test documents of 120 (a) and 120 (b)."
    )
    assert report["verdict"].endswith("on the same 60 documents (McNemar p = 0.002).")  # 10 to 0: 2 / 1024


def test_the_order_of_the_files_does_not_matter(finish):
    a, b = finish("a", wrong_every=4), finish("b", wrong_every=12)
    before = compared(a, b)["comparisons"]
    rewrite_test(b, lambda rows: rows[::-1])
    assert compared(a, b)["comparisons"] == before


def test_labels_are_compared_by_name(finish):
    a, b = finish("a", names=("x", "y")), finish("b", names=("x", "y"))
    before = compared(a, b)["comparisons"]
    (b / "data/labels.json").write_text('["y", "x"]')
    assert compared(a, b)["comparisons"] == before


def test_without_shared_documents_there_is_a_table_and_no_test(finish):
    a, b = finish("a"), finish("b")
    rewrite_test(b, lambda rows: [row | {"id": f"b-{row['id']}"} for row in rows])
    report = compared(a, b)
    assert report["verdict"] == (
        "No significance test: the runs have 0 test documents in common, and two are the least; they were judged on "
        "different splits."
    )
    assert report["comparisons"] == []
    assert "test macro F1" in summarize(report)
    assert "TEST AGAINST" not in summarize(report)
    assert "not tested" in page(report, {"a": [], "b": []})


def test_other_true_labels_refuse_the_test(finish):
    a, b = finish("a"), finish("b")
    rewrite_test(b, lambda rows: [row | {"truth": "c"} if row["truth"] == "a" else row for row in rows])
    assert compared(a, b)["verdict"] == (
        "No significance test: 40 of 120 shared test documents have another true label in b than in a."
    )


def test_a_run_without_a_test_part_refuses_the_test(finish):
    a, b = finish("a"), finish("b")
    rewrite_test(b, lambda rows: [])
    assert compared(a, b)["verdict"] == "No significance test: b has no test documents."


# --- settings ----------------------------------------------------------------------------------------------------


def test_only_settings_that_differ_are_shown(finish):
    a = finish("a", config={"optim": {"lr": 0.001, "name": "adamw"}, "seed": 0, "layers": [1, 2]})
    b = finish("b", config={"optim": {"lr": 0.0003, "name": "adamw"}, "seed": 0, "layers": [1], "extra": True})
    report = compared(a, b)
    assert report["settings"] == {"extra": [None, True], "layers": [[1, 2], [1]], "optim.lr": [0.001, 0.0003]}
    shown = summarize(report)
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert rows[rows.index("SETTINGS THAT DIFFER a b") + 1 :][:3] == [
        "extra – true",
        "layers [1, 2] [1]",
        "optim.lr 0.001 0.0003",
    ]


def test_an_older_run_has_its_settings_from_hydra(finish):
    a, b = finish("a", config={"seed": 1}), finish("b")
    (b / ".hydra").mkdir()
    (b / ".hydra/config.yaml").write_text("seed: 2\n")
    assert compared(a, b)["settings"] == {"seed": [1, 2]}


def test_a_run_without_settings_makes_none_differ(finish):
    report = compared(finish("a", config={"seed": 1}), finish("b"))
    assert report["settings"] == {}
    assert "b kept no configuration, so nothing is known of what differs." in report["notes"]
    assert "SETTINGS THAT DIFFER: none" in summarize(report)


# --- which runs --------------------------------------------------------------------------------------------------


def test_a_multirun_folder_stands_for_its_finished_runs(finish):
    for name in ("sweep/10", "sweep/2", "sweep/3"):
        finish(name)
    sweep = finish("sweep/4").parent
    (sweep / "3/status.json").write_text('{"phase": "failed"}')
    (sweep / "4/report/report.json").unlink()
    (sweep / "5/.hydra").mkdir(parents=True)
    report = compared(sweep)
    assert [run["name"] for run in report["runs"]] == ["2", "10"]
    assert report["notes"][0] == (
        f"Left out: {sweep / '3'} (it has not finished (phase: failed)), {sweep / '4'} (it has no report/report.json), "
        f"{sweep / '5'} (it never began)."
    )
    assert [Path(each["folder"]).name for each in report["left_out"]] == ["3", "4", "5"]


def test_one_run_is_not_enough_however_often_it_is_named(finish):
    run = finish("a")
    with pytest.raises(ArtifactError, match=r"needs at least two finished runs, and .* gives 1: name another run or a"):
        comparing.find_runs([run, run, run / "../a"])


def test_a_named_run_that_has_not_finished_is_refused(finish):
    a, b = finish("a"), finish("b")
    (b / "status.json").write_text('{"phase": "training"}')
    with pytest.raises(
        ArtifactError, match=r"b cannot be compared: it has not finished \(phase: training\)\. `doctune st"
    ):
        comparing.find_runs([a, b])


def test_names_are_the_shortest_ends_that_differ():
    paths = [Path("/o/1/12-00/fold-0"), Path("/o/1/13-00/fold-0"), Path("/o/1/13-00/fold-1"), Path("/o/2/12-00/fold-0")]
    assert comparing.shortest_names(paths) == ["1/12-00/fold-0", "13-00/fold-0", "fold-1", "2/12-00/fold-0"]


def test_a_damaged_report_is_named(finish):
    a, b = finish("a"), finish("b")
    (b / "report/report.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"b/report/report.json must hold a JSON object\."):
        compared(a, b)


# --- gates -------------------------------------------------------------------------------------------------------

REPORTS = {
    "a": {
        "test": {"f1_macro": 0.93, "log_loss": None, "top_k_accuracy": {"3": 0.99}},
        "val": {"f1_macro": 0.95},
        "gap": {"value": -0.2},
        "training_seconds": 60.0,
        "parameters": {"total": 4_500_000},
    },
    "b": {"test": None, "val": None, "gap": {"value": None}},
}


@pytest.mark.parametrize(
    ("rule", "passed", "sentence"),
    [
        ("f1_macro>=0.93", True, "a: f1_macro 0.93 is >= 0.93."),
        ("f1_macro > 0.93", False, "a: f1_macro 0.93 is not above 0.93."),
        ("f1_macro<=0.9", False, "a: f1_macro 0.93 is above 0.9."),
        ("val_f1_macro>=0.96", False, "a: val_f1_macro 0.95 is below 0.96."),
        ("gap<0.15", True, "a: gap -0.2 is < 0.15."),
        ("gap_abs<0.15", False, "a: gap_abs 0.2 is not below 0.15."),
        ("seconds<1e2", True, "a: seconds 60 is < 100."),
        ("parameters<=4500000", True, "a: parameters 4500000 is <= 4500000."),
        ("top_3_accuracy>.98", True, "a: top_3_accuracy 0.99 is > 0.98."),
        ("log_loss<1", False, "a: log_loss is not known (–), so log_loss<1 fails."),
    ],
)
def test_a_gate_is_applied_to_a_run(rule, passed, sentence):
    outcome = apply_gates([parse_gate(rule)], REPORTS)[0]
    assert (outcome.run, outcome.passed, outcome.sentence) == ("a", passed, sentence)


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [
        (0.00246107578278, "0.15", "0.002461"),
        (0.89999612345, "0.9", "0.899996"),
        (0.9 - 1e-15, "0.9", "0.9"),
        (1234.5678, "1e6", "1234.6"),
        (99999.97, "1e6", "99999.97"),
        (1234567.0, "1e6", "1234567"),
    ],
)
def test_a_gate_shows_four_digits_and_more_only_beside_its_bound(value, bound, shown):
    outcome = apply_gates([parse_gate(f"seconds<{bound}")], {"a": {"training_seconds": value}})[0]
    assert outcome.value == value
    assert outcome.sentence.startswith(f"a: seconds {shown} is ")


@pytest.mark.parametrize("rule", ["f1_macro>=0", "val_f1_macro>=0", "gap<9", "gap_abs<9", "seconds<9", "parameters<9"])
def test_what_a_run_does_not_have_fails_every_gate(rule):
    outcome = apply_gates([parse_gate(rule)], REPORTS)[1]
    assert (outcome.run, outcome.value, outcome.passed) == ("b", None, False)


@pytest.mark.parametrize("rule", ["gap", "gap=0.1", "gap<", "<0.1", "gap<nan", "gap<0.1<0.2", "gap<0,1", "gap==1", ""])
def test_a_malformed_gate_is_a_sentence(rule):
    with pytest.raises(ConfigError) as raised:
        parse_gate(rule)
    assert str(raised.value) == (
        f"--gate {rule!r} is no rule: write METRIC OP NUMBER with OP one of <, <=, >, >=, in quotes, such as "
        "'gap<0.15' or 'f1_macro>=0.93'."
    )


def test_an_unknown_metric_lists_those_that_there_are():
    with pytest.raises(ConfigError) as raised:
        apply_gates([parse_gate("f1>0.9")], REPORTS)
    assert str(raised.value) == (
        "--gate 'f1>0.9': there is no metric 'f1'. There are documents, accuracy, f1_macro, precision_macro, "
        "recall_macro, f1_weighted, precision_weighted, recall_weighted, log_loss, top_3_accuracy (of the test part; "
        "with val_ before it, of the validation part), and gap, gap_abs, seconds, parameters."
    )


# --- how it looks ------------------------------------------------------------------------------------------------


def test_two_runs_fit_100_columns(finish):
    long = "a-very-long-name-of-a-run-that-goes-on-and-on"
    config = {"a_long_group_of_settings": {"with_a_long_key_in_it": "/a/long/path/to/some/model/of/someone"}}
    report = compared(finish(f"{long}-1", config=config), finish(f"{long}-2", wrong_every=4, config={"seed": 1}))
    assert max(map(len, summarize(report).splitlines())) <= 100


def test_the_text_shows_scores_cost_and_the_test(finish):
    history = [{"epoch": 1, "val_loss": 0.9, "val_f1_macro": 0.7, "gap": 0.123, "gap_status": "good"}]
    report = compared(finish("wide", wrong_every=4), finish("narrow", wrong_every=12, history=history))
    shown = summarize(report).splitlines()
    rows = {head.strip(): " ".join(cells.split()) for head, cells in ((line[:22], line[22:]) for line in shown)}
    assert rows["test accuracy"].startswith("0.750 (0.6")
    assert rows["gap"] == "– 0.123 (good)"
    assert rows["training time"] == "3 min 12 s 3 min 12 s"
    assert rows["best epoch"] == "2 of 3 1 of 1"
    assert rows["parameters"] == "4,500,000 (1,000 trained) 4,500,000 (1,000 trained)"
    assert rows["test documents"] == "120 120"
    (against,) = (line.split() for line in shown if line.startswith("wide"))
    assert " ".join(against).endswith(") 20 : 0 p < 0.001 worse")


def test_the_page_is_whole_and_holds_both_curves(finish, read_html):
    runs = [finish("<b>wide", wrong_every=4), finish("narrow", wrong_every=12)]
    report = compared(*runs, gates=["accuracy>0.8"])
    histories = {run.name: json.loads((run / "training_history.json").read_text()) for run in runs}
    read = read_html(page(report, histories))
    assert read.open == []
    assert [svg["aria-label"] for svg in read.named("svg")] == [
        "Validation loss of the runs",
        "Validation macro F1 of the runs",
    ]
    text = "".join(read.text)
    assert report["verdict"] in text
    assert "failed <b>wide: accuracy 0.75 is not above 0.8." in text
    assert "passed narrow: accuracy 0.9167 is > 0.8." in text
    assert not {"script", "img", "link"} & {tag for tag, _ in read.tags}
    assert report == json.loads(json.dumps(report))


def test_every_run_has_a_curve_of_its_own_look():
    histories = {f"run {place}": [{"epoch": 1, "val_loss": 1.0}, {"epoch": 2, "val_loss": None}] for place in range(20)}
    lines = overlaid_curves(histories, "val_loss", "Validation loss", "nats").axes[0].get_lines()
    assert [line.get_label() for line in lines] == list(histories)
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    np.testing.assert_array_equal(lines[0].get_xydata(), [[1, 1.0]])


def test_scores_are_drawn_on_the_whole_range_and_losses_from_0():
    histories = {"a": [{"epoch": 1, "val_loss": 2.0, "val_f1_macro": 0.9}]}
    assert overlaid_curves(histories, "val_f1_macro", "", "", top=1).axes[0].get_ylim() == (0, 1)
    low, high = overlaid_curves(histories, "val_loss", "", "").axes[0].get_ylim()
    assert low == 0
    assert high > 2


def test_a_key_that_no_run_has_gives_no_picture():
    assert overlaid_curves({"a": [{"epoch": 1}]}, "val_loss", "", "") is None
