from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.reader import FILES, build_report, judged_metric
from doctune.reports.reader_records import read_reader_run
from doctune.reports.run import write_report

ONE_ARTICLE = (
    "The 40 test questions are about one article. Questions of one article are not independent of each other, so the "
    "intervals are too narrow."
)


def report_of(run):
    return build_report(read_reader_run(run))


def empty_part(run, part):
    path = run / f"predictions/{part}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)


@pytest.fixture
def unanswerable(answer):
    """As many answers as are wanted to questions without one."""
    return lambda count, said="": [answer(f"no-{number:02}", said, references=()) for number in range(count)]


def test_the_task_of_a_run_decides_its_report(make_reader_run):
    run = make_reader_run()
    summary = write_report(run)
    assert summary == run / "report" / "summary.txt"
    assert sorted(path.name for path in (run / "report").iterdir()) == sorted(FILES)
    for name in ("loss_curves.png", "metric_curve.png"):
        assert (run / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_a_task_without_a_report_is_refused(make_reader_run):
    run = make_reader_run(task="translation")
    with pytest.raises(ArtifactError) as caught:
        write_report(run)
    assert str(caught.value) == (
        f"{run / 'environment.json'}: the task 'translation' has no report; known: classification, question_answering, "
        "multi_task, instruction_tuning."
    )


def test_report_json_has_the_agreed_keys(make_reader_run):
    run = make_reader_run()
    write_report(run)
    report = json.loads((run / "report/report.json").read_text())
    assert (report["schema"], report["task"], report["part"]) == (1, "question_answering", "test")
    assert (report["test"]["exact_match"], report["test"]["questions"]) == (0.5, 40)
    assert report["test"]["f1"] == pytest.approx(2 / 3)
    low, high = report["test"]["ci95"]["f1"]
    assert 0.5 < low < 2 / 3 < high < 0.85
    assert report["val"]["f1"] == pytest.approx(2 / 3)
    assert list(report["baselines"]) == ["lexical", "untrained"]
    assert report["gap"] == {"value": None, "status": None, "onset_epoch": None}
    assert (report["epochs"], report["best_epoch"], report["training_seconds"]) == (2, 2, 192.4)
    assert report["padding_share"] == pytest.approx(0.15)
    assert report["windows"] == {"train": 90, "val": 44, "test": 45}
    assert report["inference"]["questions_per_s"] == 123.4
    assert report["length_analysis"]["context"] == {"p50": 150, "p95": 300, "max": 700}
    assert (report["version"], report["no_answer_threshold"]) == ("1.1", None)
    assert report["account"]["misaligned"] == 2
    assert report["run"] == "outputs/2026-11-01/run"
    assert report["files"] == list(FILES)


def test_a_report_written_twice_is_the_same(make_reader_run):
    run = make_reader_run()
    write_report(run)
    first = {name: (run / "report" / name).read_bytes() for name in FILES}
    write_report(run)
    assert {name: (run / "report" / name).read_bytes() for name in FILES} == first


def test_better_than_the_baseline_on_the_same_questions(make_reader_run):
    report = report_of(make_reader_run())
    comparison = report["comparison"]
    low, high = report["test"]["ci95"]["f1"]
    assert report["verdict"] == (
        f"Better than the baseline: test F1 0.667 (95 % interval {low:.3f} to {high:.3f}), lexical baseline 0.500; "
        f"difference +0.167 ({comparison['low']:+.3f} to {comparison['high']:+.3f}) on the same 40 questions."
    )
    assert list(comparison) == [
        "status",
        "sentence",
        "metric",
        "part",
        "questions",
        "baseline",
        "difference",
        "low",
        "high",
    ]
    assert (comparison["status"], comparison["baseline"], comparison["questions"]) == ("better", "lexical", 40)
    assert comparison["difference"] == pytest.approx(1 / 6)
    assert 0 < comparison["low"] < 1 / 6 < comparison["high"]


def test_worse_than_the_baseline_is_said_out_loud(make_reader_run):
    verdict = report_of(make_reader_run(baselines={"untrained": "1889"}))["verdict"]
    assert verdict.startswith("Worse than the baseline: test F1 0.667 (95 % interval 0.")
    assert "untrained model 1.000; difference -0.333 (-0." in verdict


def test_a_small_difference_cannot_be_told_apart(make_reader_run):
    verdict = report_of(make_reader_run(baselines={"untrained": "in 1889"}))["verdict"]
    assert verdict.startswith("Cannot be told apart from the untrained baseline: test F1 0.667 ")
    assert "untrained model 0.667; difference +0.000 (-0." in verdict


def test_the_monitored_metric_is_judged(make_reader_run):
    report = report_of(make_reader_run(monitor={"metric": "val/exact_match", "mode": "max"}))
    assert "test exact match 0.500 (95 % " in report["verdict"]
    assert report["comparison"]["difference"] == 0.5


def test_a_monitored_metric_that_is_no_score_of_answers_falls_back_to_f1_and_says_so(make_reader_run):
    report = report_of(make_reader_run(monitor={"metric": "val/loss", "mode": "min"}))
    assert report["comparison"]["metric"] == "f1"
    assert "No baseline has the monitored val/loss: the verdict is on F1." in report["notes"]
    assert [judged_metric(name) for name in ("val/f1", "exact_match", "val/loss", "")] == [
        "f1",
        "exact_match",
        None,
        None,
    ]


def test_few_questions_give_no_verdict_and_a_note(make_reader_run, answer):
    report = report_of(make_reader_run(test=[answer("a"), answer("b", "Paris")]))
    assert report["verdict"].startswith("Too few questions to judge (2 of at least 30): test F1 0.500 (95 % interval ")
    assert "There are only 2 questions, too few for their scores to be trusted." in report["notes"]


def test_without_paired_answers_the_intervals_must_not_overlap(make_reader_run):
    run = make_reader_run()
    (run / "predictions/baselines_test.parquet").unlink()
    report = report_of(run)
    assert "judged by whether the intervals overlap (the baseline's: 0.500 to 0.500)" in report["verdict"]
    assert report["comparison"]["difference"] is None


def test_without_baselines_the_verdict_says_so(make_reader_run):
    run = make_reader_run()
    (run / "data/baselines.json").unlink()
    verdict = report_of(run)["verdict"]
    assert verdict.startswith("No baseline stands beside this score: test F1 0.667 (95 % interval 0.")
    assert verdict.endswith(" on 40 questions.")


def test_a_run_without_test_questions_is_judged_on_validation_and_says_so(make_reader_run):
    run = make_reader_run()
    empty_part(run, "test")
    report = report_of(run)
    assert (report["part"], report["test"], report["comparison"]["difference"]) == ("val", None, None)
    assert report["verdict"].endswith(
        " There is no test part: these questions chose the checkpoint, so the score flatters."
    )
    write_report(run)


def test_a_run_without_any_answer_is_refused(make_reader_run):
    run = make_reader_run()
    empty_part(run, "test")
    empty_part(run, "val")
    with pytest.raises(ArtifactError, match=r"neither predictions/test.parquet nor val.parquet has a row"):
        write_report(run)


def test_unanswerable_questions_are_scored_apart_and_never_answering_is_a_baseline(
    make_reader_run, answer, unanswerable
):
    test = [*(answer(f"yes-{number:02}") for number in range(30)), *unanswerable(60)]
    report = report_of(make_reader_run(test=test, version="2.0", no_answer_threshold=0.5))
    part = report["test"]
    assert (part["has_answer"]["questions"], part["no_answer"]["questions"]) == (30, 60)
    assert (part["has_answer"]["f1"], part["no_answer"]["f1"]) == (1.0, 1.0)
    assert report["baselines"]["no_answer"]["test"]["f1"] == pytest.approx(2 / 3)
    assert report["baselines"]["no_answer"]["val"]["f1"] == 0.0
    assert report["no_answer_threshold"] == 0.5


def test_never_answering_is_the_baseline_where_it_is_the_strongest(make_reader_run, answer, unanswerable):
    questions = [*(answer(f"yes-{number:02}") for number in range(10)), *unanswerable(30, "Paris")]
    report = report_of(make_reader_run(test=questions, val=questions, version="2.0"))
    assert report["verdict"].startswith("Worse than the baseline: test F1 0.250 (95 % interval 0.")
    assert "never answering 0.750; difference -0.500 (-0." in report["verdict"]
    note = "There are only 10 questions with an answer, too few for their scores to be trusted."
    assert note in report["notes"]


def test_version_1_has_no_halves(make_reader_run):
    report = report_of(make_reader_run())
    assert set(report["test"]) == {"exact_match", "f1", "questions", "ci95"}
    assert "no_answer" not in report["baselines"]


def test_the_errors_are_grouped_in_five_ways(make_reader_run):
    errors = report_of(make_reader_run())["errors"]
    every = {"count": 40, "exact_match": 0.5, "f1": pytest.approx(2 / 3)}
    assert errors["by_question_word"] == [{"group": "when"} | every]
    assert errors["by_answer_length"] == [{"group": "1"} | every]
    assert errors["by_position"] == [{"group": "60-80 %"} | every]
    assert errors["by_num_windows"] == [{"group": "1"} | every]
    assert [(kind["group"], kind["count"], kind["f1"]) for kind in errors["by_kind"]] == [
        ("exact", 20, 1.0),
        ("boundary", 10, pytest.approx(2 / 3)),
        ("wrong type", 10, 0.0),
    ]


def test_an_example_shows_the_sentence_around_the_reference(make_reader_run, answer):
    test = [answer("q", "in 1889", references=("1889", "1889", "year 1889"))]
    assert report_of(make_reader_run(test=test))["errors"]["by_kind"][0]["examples"] == [
        {
            "id": "q",
            "article": "Towers",
            "question": "When was it built?",
            "references": ["1889", "year 1889"],
            "prediction": "in 1889",
            "sentence": "It was built in 1889 by Eiffel.",
            "reference_at": [16, 20],
            "prediction_at": [13, 20],
        }
    ]


def test_a_prediction_in_another_sentence_is_not_marked(make_reader_run, answer):
    example = report_of(make_reader_run(test=[answer("q", "Paris")]))["errors"]["by_kind"][0]["examples"][0]
    assert (example["sentence"], example["prediction_at"]) == ("It was built in 1889 by Eiffel.", None)


def test_without_a_reference_the_sentence_is_that_of_the_prediction(make_reader_run, unanswerable):
    run = make_reader_run(test=unanswerable(1, "Paris"), version="2.0")
    example = report_of(run)["errors"]["by_kind"][0]["examples"][0]
    assert (example["sentence"], example["reference_at"]) == ("The tower stands in Paris.", None)
    assert example["prediction_at"] == [20, 25]


def test_without_any_place_there_is_no_sentence(make_reader_run, answer):
    run = make_reader_run(test=[answer("q", "nowhere", reference_start=None)])
    example = report_of(run)["errors"]["by_kind"][0]["examples"][0]
    assert (example["sentence"], example["reference_at"], example["prediction_at"]) == (None, None, None)


def test_a_long_sentence_is_cut_between_words(make_reader_run, answer):
    context = f"{'word ' * 200}in 1889 {'more ' * 200}end"
    run = make_reader_run(test=[answer("q", "more", context=context)])
    example = report_of(run)["errors"]["by_kind"][0]["examples"][0]
    sentence, (start, end) = example["sentence"], example["reference_at"]
    assert sentence.startswith("… word ")
    assert sentence.endswith(" more …")
    assert sentence[start:end] == "1889"
    assert sentence[slice(*example["prediction_at"])] == "more"
    assert 580 < len(sentence) < 612


def test_the_worst_mistakes_are_those_that_the_model_was_surest_of(make_reader_run, answer):
    chances = {"a": 0.5, "b": float("nan"), "c": 0.75, "d": 0.5}
    test = [
        *(answer(name, "Paris", probability=chance) for name, chance in chances.items()),
        answer("right", probability=1.0),
        answer("half right", "in 1889", probability=1.0),
    ]
    worst = report_of(make_reader_run(test=test))["worst_mistakes"]
    assert [(mistake["id"], mistake["probability"]) for mistake in worst] == [
        ("c", 0.75),
        ("a", 0.5),
        ("d", 0.5),
        ("b", None),
    ]
    assert (worst[0]["null_score"], worst[0]["sentence"]) == (-3.0, "It was built in 1889 by Eiffel.")
    assert worst[0]["n_best"] == [{"text": "Paris", "score": 5.0, "probability": 0.75}]


def test_no_more_than_20_mistakes_are_listed(make_reader_run, answer):
    test = [answer(f"q{number:02}", "Paris") for number in range(40)]
    ids = [mistake["id"] for mistake in report_of(make_reader_run(test=test))["worst_mistakes"]]
    assert ids == [f"q{number:02}" for number in range(20)]


def test_few_articles_are_noted(make_reader_run, answer):
    assert ONE_ARTICLE in report_of(make_reader_run())["notes"]
    several = [answer(f"q{number}", article=f"article {number % 29}") for number in range(40)]
    notes = report_of(make_reader_run("several", test=several))["notes"]
    assert any(note.startswith("The 40 test questions are about 29 articles. ") for note in notes)
    many = [answer(f"q{number}", article=f"article {number % 30}") for number in range(40)]
    assert not any("articles" in note for note in report_of(make_reader_run("many", test=many))["notes"])


def test_a_faultless_score_is_not_taken_for_certainty(make_reader_run, answer):
    report = report_of(make_reader_run(test=[answer(f"q{number}") for number in range(60)]))
    assert report["test"]["ci95"]["f1"] == [1.0, 1.0]
    assert any("an error rate of up to 5.0% cannot be excluded (rule of three)" in note for note in report["notes"])
    assert report["worst_mistakes"] == []


def test_what_guards_said_is_noted_if_it_still_held_at_the_end(make_reader_run):
    alarms = [
        {"guard": "baseline", "epoch": 1, "message": "Worse.", "cleared": 2},
        {"guard": "gap", "epoch": 2, "message": "Critical gap.", "cleared": None},
    ]
    report = report_of(make_reader_run(notes=["A note."], alarms=alarms))
    assert (report["notes"], report["alarms"]) == (["A note.", "Critical gap.", ONE_ARTICLE], alarms)


def test_errors_csv_has_what_was_not_answered_exactly(make_reader_run, answer):
    test = [
        answer("right"),
        answer("long", "in 1889", references=("1889", 'the "year"')),
        answer("wrong", "Paris", question="When,\nexactly?"),
        answer("none", ""),
    ]
    run = make_reader_run(test=test)
    write_report(run)
    with (run / "report/errors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "question", "references", "prediction", "kind", "exact_match", "f1"],
        ["long", "When was it built?", '1889 | the "year"', "in 1889", "boundary", "0.0", "0.666667"],
        ["wrong", "When,\nexactly?", "1889", "Paris", "wrong type", "0.0", "0.0"],
        ["none", "When was it built?", "1889", "", "no answer given", "0.0", "0.0"],
    ]


def test_a_bare_environment_is_enough(make_reader_run):
    run = make_reader_run()
    (run / "environment.json").write_text(json.dumps({"task": "question_answering", "version": "1.1"}))
    (run / "data/audit.json").write_text("{}")
    text = write_report(run).read_text()
    assert "2 epochs, best epoch 2 by" in text
