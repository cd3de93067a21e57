"""The aggregate of a k-fold multirun with several targets, on fold folders whose predictions are known."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.folds import write_folds

# Text 37 of 36 that know their kind is wrong: x has F1 40 / 41, y 30 / 31.
KIND = (40 / 41 + 30 / 31) / 2


@pytest.fixture
def make_fold(make_targets_run, judged, tmp_path, monkeypatch):
    """Write fold `number` of three with 40 texts of its own."""
    monkeypatch.chdir(tmp_path)

    def make(number, right=36, *, metric="val/f1_macro", mode="max", **settings):
        history = [
            {"epoch": 1, "val_loss": 2.0, "val_f1_macro": 0.5 + number / 8}
            | {"val_kind_f1_macro": 0.25 + number / 8, "val_tags_f1_macro": 0.75},
            {"epoch": 2, "val_loss": 2.5, "val_f1_macro": 0.25, "val_kind_f1_macro": 0.125, "val_tags_f1_macro": 0.0},
        ]
        config = {
            "split": {"kind": "kfold", "fold": number, "folds": 3},
            "monitor": {"metric": metric, "mode": mode},
        }
        rows = settings.pop("rows", None) or judged(right, prefix=f"{number}-")
        run = make_targets_run(f"folds/fold-{number}", test=rows, history=history, config=config, **settings)
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run

    return make


def written(directory):
    summary = write_folds(directory)
    text = summary.read_text()
    assert max(map(len, text.splitlines())) <= 100
    return json.loads((directory / "kfold/kfold_results.json").read_text()), text


@pytest.fixture
def results(make_fold):
    for number, right in ((0, 36), (1, 36), (2, 40)):
        directory = make_fold(number, right).parent
    return written(directory)


def test_each_target_and_their_mean_have_their_spread_over_the_folds(results):
    found, _ = results
    assert (found["task"], found["metric"], found["test_metric"]) == ("multi_task", "val/f1_macro", "f1_macro")
    assert (found["mean"], found["std"], found["best_fold"], found["missing"]) == (0.625, 0.125, 2, [])
    assert found["combined"]["val"] == {"mean": 0.625, "std": 0.125, "min": 0.5, "max": 0.75}
    assert found["combined"]["test"]["mean"] == pytest.approx((2 * (KIND + 1) / 2 + 1) / 3)
    kind, tags = found["targets"]["kind"], found["targets"]["tags"]
    assert kind["val"] == {"mean": 0.375, "std": 0.125, "min": 0.25, "max": 0.5}
    assert kind["test"] == pytest.approx(
        {"mean": (2 * KIND + 1) / 3, "std": (1 - KIND) / 3**0.5, "min": KIND, "max": 1.0}
    )
    assert tags["test"] == {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0}
    assert found["folds"][0]["test"]["kind/f1_macro"] == pytest.approx(KIND)


def test_all_texts_are_pooled_with_intervals_over_texts(results):
    oof, targets = results[0]["oof"], results[0]["targets"]
    # Two of 108 texts are wrong, both y taken for x.
    kind = (120 / 122 + 92 / 94) / 2
    assert (oof["texts"], oof["targets"]) == (120, 2)
    assert oof["f1_macro"] == pytest.approx((kind + 1) / 2)
    assert (oof["kind/f1_macro"], targets["kind"]["oof"]["f1_macro"]) == pytest.approx((kind, kind))
    low, high = oof["ci95"]["f1_macro"]
    assert 0.9 < low < oof["f1_macro"] < high <= 1
    assert targets["kind"]["oof"]["texts"] == 108
    assert [(row["label"], row["support"], row["predicted"]) for row in targets["kind"]["per_label"]] == [
        ("x", 60, 62), ("y", 48, 46),
    ]  # fmt: skip
    assert (results[0]["per_class"], results[0]["suspect_labels"]) == ([], None)


def test_the_file_of_predictions_has_the_columns_of_its_sources_and_the_fold(make_fold):
    for number in range(3):
        run = make_fold(number)
    written(run.parent)
    table = pq.read_table(run.parent / "kfold/oof.parquet")
    columns = pq.read_table(run / "predictions/test.parquet").column_names
    assert table.column_names == ["id", "path", "fold", *columns[2:]]
    assert table["fold"].to_pylist() == [0] * 40 + [1] * 40 + [2] * 40


def test_the_summary_has_a_line_for_each_target(results):
    text = " ".join(results[1].split())
    assert "fold status best val loss val/f1_macro test macro F1 0 finished 2.000 0.500 " in text
    assert re.search(
        r"POOLED Out-of-fold mean macro F1 0\.991 \(0\.\d{3}–\d\.\d{3}\) on 120 texts, each judged by a model that "
        r"neither trained on it nor was chosen by it; 95 % intervals over texts\. TARGETS macro F1 val, folds test, "
        r"folds out-of-fold mean of all targets 0\.625 ± 0\.125 0\.991 ± 0\.008 0\.991 \(0\.\d{3}–\d\.\d{3}\) kind "
        r"0\.375 ± 0\.125 0\.981 ± 0\.016 0\.981 \(0\.\d{3}–\d\.\d{3}\) tags 0\.750 ± 0\.000 1\.000 ± 0\.000 "
        r"1\.000 \(1\.000–1\.000\)",
        text,
    )
    assert (
        "LABELS Suspect labels are looked for in the predictions of classifiers, which have one target. FILES "
        "index.html, summary.txt, kfold_results.json, oof.parquet, val_loss.png, scores.png"
    ) in text


def test_the_page_has_targets_and_their_labels(make_fold, read_html):
    for number in range(3):
        directory = make_fold(number).parent
    written(directory)
    page = (directory / "kfold/index.html").read_text()
    read = read_html(page)
    assert [each["id"] for each in read.named("section")] == [
        "result", "folds", "pooled", "targets", "curves", "labels", "files",
    ]  # fmt: skip
    assert read.open == []
    section = re.search(r'<section id="targets">(.*?)</section>', page, flags=re.DOTALL)[1]
    words = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert words.startswith("Targets macro F1 val, folds test, folds out-of-fold mean of all targets 0.625 ± 0.125 ")
    assert "kind label F1 precision recall texts y 0.968 1.000 0.938 48 x 0.976 0.952 1.000 60" in words


def test_one_fold_has_no_deviation_and_no_fold_no_targets(make_fold):
    directory = make_fold(0).parent
    found, text = written(directory)
    assert found["combined"]["val"] == {"mean": 0.5, "std": None, "min": 0.5, "max": 0.5}
    assert re.search(r"kind +0\.250 +0\.972 ", text)
    (directory / "fold-0/status.json").write_text('{"phase": "failed"}')
    found, text = written(directory)
    assert "targets" not in found
    assert "No fold has finished, so no text has an out-of-fold prediction yet." in text


def test_a_target_that_only_some_folds_know_is_told_of_from_those(make_fold, judged):
    make_fold(0)
    run = make_fold(1, rows=[row | {"kind/truth": None} for row in judged(36, prefix="1-")])
    found = written(run.parent)[0]
    assert found["targets"]["kind"]["test"] == pytest.approx({"mean": KIND, "std": None, "min": KIND, "max": KIND})
    assert found["targets"]["kind"]["oof"]["texts"] == 36
    assert "kind/f1_macro" not in found["folds"][1]["test"]


def test_a_monitored_target_is_compared_with_its_own_test_score(make_fold):
    make_fold(0, metric="val/kind/f1_macro")
    run = make_fold(1, metric="val/kind/f1_macro")
    found, text = written(run.parent)
    assert (found["test_metric"], found["mean"]) == ("kind/f1_macro", 0.3125)
    assert "Out-of-fold macro F1, kind 0.972 (" in " ".join(text.split())


def test_a_monitored_loss_stands_beside_no_score(make_fold):
    run = make_fold(0, metric="val/loss", mode="min")
    found, _ = written(run.parent)
    assert (found["test_metric"], found["folds"][0]["monitor"]) == ("f1_macro", 2.0)


def test_folds_with_other_targets_are_refused(make_fold):
    make_fold(0)
    run = make_fold(1, labels={"tags": ["a", "b"]})
    with pytest.raises(ArtifactError) as refused:
        write_folds(run.parent)
    assert str(refused.value) == (
        f"{run.parent}: fold-0 and fold-1 have different targets or labels (see their data/labels.json), so their "
        "predictions cannot be pooled. Make the folds from the same tables and data.targets."
    )


def test_a_text_in_two_folds_is_named_by_its_place(make_fold, judged):
    make_fold(0)
    run = make_fold(1, rows=judged(36, prefix="0-"))
    with pytest.raises(ArtifactError, match=r"^f\.csv:0 is in the test part of both fold-0 and fold-1: "):
        write_folds(run.parent)
