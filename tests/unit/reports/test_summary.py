from __future__ import annotations

from doctune.reports.records import read_run
from doctune.reports.run import build_report
from doctune.reports.summary import summarize


def summary_of(run):
    return summarize(build_report(read_run(run)))


def test_the_verdict_comes_first(make_run):
    lines = summary_of(make_run()).splitlines()
    assert lines[0] == "doctune report: outputs/2026-11-01/run"
    assert lines[2].startswith("VERDICT    Better than the baseline: test macro F1 0.900")


def test_the_score_stands_beside_both_baselines_with_intervals(make_run):
    lines = [" ".join(line.split()) for line in summary_of(make_run()).splitlines()]
    own = next(line for line in lines if line.startswith("this run 0.900 (0."))
    assert own.count("(") == 2
    assert any(line.startswith("majority class 0.167 (0.") for line in lines)
    assert any(line.startswith("TF-IDF + linear SVM 0.750 (0.") for line in lines)
    assert any(line.startswith("this run, validation 0.900 (0.") for line in lines)


def test_data_model_training_and_machine_are_told(make_run):
    text = " ".join(summary_of(make_run()).split())
    assert "365 rows: 120 train, 120 val, 120 test; 5 left out (3 empty, 2 damaged)." in text
    assert "3 labels, from 10 (a) to 12 (c) training documents. Groups of copies: 4." in text
    assert "mini (distilbert), 4,500,000 parameters, 1,000 of them trained." in text
    assert "3 epochs (stopped early), best epoch 2 by val/f1_macro, 3 min 12 s, precision 32-true" in text
    assert "padding 20.0 %, seed 0." in text
    assert "Gap between validation and training loss: not measured." in text
    assert "Processor X; 2 cores. Code: 0123456789ab with changes." in text
    assert "- Precision 16-mixed was asked for, but a CPU has none: 32 is used." in text


def test_worst_labels_and_confused_pairs(make_run):
    lines = [" ".join(line.split()) for line in summary_of(make_run(documents=6, wrong_every=3)).splitlines()]
    worst = lines.index("WORST label F1 precision recall documents")
    assert lines[worst + 1 : worst + 4] == ["c 0.000 0.000 0.000 2", "a 0.667 0.500 1.000 2", "b 1.000 1.000 1.000 2"]
    assert "CONFUSED c taken for a: 2 of 2" in lines


def test_a_faultless_run_has_no_confused_pairs(make_run):
    assert "CONFUSED" not in summary_of(make_run(wrong_every=0))


def test_the_page_keeps_within_60_lines_of_100_columns(make_run):
    names = tuple(f"label_{place}_" + "long_name_" * 12 for place in range(45))
    notes = [f"note {place} " + "goes on and on " * 40 for place in range(20)]
    reasons = {f"reason_{place}_{'x' * 60}": place for place in range(30)}
    run = make_run("x" * 150, names=names, documents=900, wrong_every=7, notes=notes)
    report = build_report(read_run(run))
    report["account"]["left_out_reasons"] = reasons
    report["hardware"]["gpus"] = ["an accelerator with a long name"] * 16
    lines = summarize(report).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "           - 14 more in report.json" in lines
