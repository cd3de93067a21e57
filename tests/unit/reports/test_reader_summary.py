from __future__ import annotations

from doctune.reports.reader import build_report
from doctune.reports.reader_records import read_reader_run
from doctune.reports.reader_summary import summarize


def summary_of(run):
    return summarize(build_report(read_reader_run(run)))


def lines_of(run):
    return [" ".join(line.split()) for line in summary_of(run).splitlines()]


def test_the_verdict_comes_first(make_reader_run):
    lines = summary_of(make_reader_run()).splitlines()
    assert lines[0] == "doctune report: outputs/2026-11-01/run"
    assert lines[2].startswith("VERDICT    Better than the baseline: test F1 0.667 (95 % interval 0.")


def test_the_score_stands_beside_the_baselines_with_intervals(make_reader_run):
    lines = lines_of(make_reader_run())
    head = lines.index("SCORES test, 40 questions; 95 % intervals F1 exact match")
    starts = ["this run 0.667 (0.", "lexical baseline 0.500 (0.500–0.500) 0.000", "untrained model 0.000 (0.000–0.000)"]
    assert [line.startswith(start) for line, start in zip(lines[head + 1 :], starts, strict=False)] == [True] * 3
    assert lines[head + 4].startswith("this run, validation 0.667 (0.")
    assert lines[head + 5] == ""


def test_the_judged_metric_comes_first(make_reader_run):
    lines = lines_of(make_reader_run(monitor={"metric": "val/exact_match", "mode": "max"}))
    assert "SCORES test, 40 questions; 95 % intervals exact match F1" in lines


def test_version_2_has_a_line_for_each_half(make_reader_run, answer):
    test = [answer("yes"), answer("no", "", references=())]
    lines = lines_of(make_reader_run(test=test, version="2.0"))
    assert "questions with an answer: 1 1.000 (1.000–1.000) 1.000 (1.000–1.000)" in lines
    assert "questions without one: 1 1.000 (1.000–1.000) 1.000 (1.000–1.000)" in lines
    assert any(line.startswith("never answering 0.500 (") for line in lines)


def test_data_model_training_and_machine_are_told(make_reader_run):
    text = " ".join(summary_of(make_reader_run()).split())
    assert (
        "DATA SQuAD 1.1. 163 rows: 80 train, 40 val, 40 test; 3 left out (2 misaligned_answer, 1 empty_question). "
        "Articles: 1 train, 1 val, 1 test. MODEL mini (distilbert), 4,500,000 parameters, 1,000 of them trained."
    ) in text
    assert "TRAINING 2 epochs (stopped early), best epoch 2 by val/f1, 3 min 12 s, precision 32-true" in text
    assert "MACHINE Processor X; 2 cores. Code: 0123456789ab with changes." in text


def test_the_weakest_groups_are_large_enough_and_part_of_the_whole(make_reader_run, answer):
    test = [
        *(answer(f"when-{number:02}", "Paris" if number % 2 else "1889") for number in range(30)),
        *(answer(f"what-{number:02}", "Paris", question="What year?") for number in range(29)),
    ]
    lines = lines_of(make_reader_run(test=test))
    weakest = lines.index("WEAKEST group F1 exact match questions")
    assert lines[weakest + 1 : weakest + 3] == ["question word: when 0.500 0.500 30", ""]


def test_questions_that_are_all_alike_have_no_weakest_group(make_reader_run):
    assert "WEAKEST" not in summary_of(make_reader_run())


def test_the_kinds_of_error_are_counted(make_reader_run):
    assert "KINDS exact 20 (50.0 %), boundary 10 (25.0 %), wrong type 10 (25.0 %)." in lines_of(make_reader_run())


def test_the_page_keeps_within_60_lines_of_100_columns(make_reader_run, answer):
    words = ("what", "who", "when", "where", "why")
    test = [
        answer(f"q{number:03}", "Paris", question=f"{words[number % 5]}?", references=() if number % 3 else ("1889",))
        for number in range(300)
    ]
    notes = [f"note {place} " + "goes on and on " * 40 for place in range(20)]
    run = make_reader_run("x" * 150, test=test, version="2.0", notes=notes, model={"name": "long name " * 80})
    report = build_report(read_reader_run(run))
    report["account"]["left_out_reasons"] = {f"reason_{place}_{'x' * 60}": place for place in range(30)}
    report["hardware"]["gpus"] = ["an accelerator with a long name"] * 16
    report["stopped"] = "for a long reason " * 40
    report["verdict"] = "A long verdict. " * 60
    lines = summarize(report).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "           - 15 more in report.json" in lines
