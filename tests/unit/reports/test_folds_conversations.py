"""The aggregate of a k-fold multirun of tuned language models, on fold folders whose losses are known."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from doctune.reports.folds import write_folds


@pytest.fixture
def make_fold(make_instruction_run, conversation_rows):
    """Write fold `number` of two with 40 conversations of its own; checks give the losses within its only epoch."""

    def make(number, losses, *, lower=0.0, written="yes"):
        checks = [
            {"step": 5 * place, "epoch": 1, "train_loss": 1.0, "val_loss": loss, "gap": loss - 1}
            | {"gap_status": "critical", "lr": 1e-3}
            for place, loss in enumerate(losses, start=1)
        ]
        config = {
            "split": {"kind": "kfold", "fold": number, "folds": 2},
            "monitor": {"metric": "val/loss", "mode": "min"},
        }
        run = make_instruction_run(
            f"folds/fold-{number}",
            test=conversation_rows(lower, prefix=str(number), written=written),
            checks=checks,
            history=[{"epoch": 1, "val_loss": losses[-1], "val_perplexity": 7.0}],
            config=config,
            best_epoch=1,
            best_step=5,
        )
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run.parent

    return make


def test_the_best_check_of_each_fold_counts_wherever_in_the_epoch_it_was(make_fold):
    make_fold(0, [1.5, 2.0])
    folder = make_fold(1, [1.25, 1.75], lower=4.0)
    text = write_folds(folder).read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "final val loss             val/loss  test loss per token" in text
    summary = " ".join(text.split())
    results = json.loads((folder / "kfold/kfold_results.json").read_text())
    assert (results["task"], results["test_metric"], results["best_fold"]) == ("instruction_tuning", "loss", 1)
    assert [row["monitor"] for row in results["folds"]] == [1.5, 1.25]
    assert [row["best_val_loss"] for row in results["folds"]] == [1.5, 1.25]
    assert [row["final_val_loss"] for row in results["folds"]] == [2.0, 1.75]
    assert results["mean"] == 1.375
    assert results["oof"]["conversations"] == 80
    assert results["oof"]["loss"] == pytest.approx(2.1)  # 2.2 and 2.0 per token
    assert "Out-of-fold loss per token 2.100 (" in summary
    assert "80 conversations, each judged by a model that neither trained on it nor was chosen by it" in summary
    page = (folder / "kfold/index.html").read_text()
    assert "a conversation has no label" in page
    oof = pq.read_table(folder / "kfold/oof.parquet")
    assert oof.column_names[:3] == ["id", "place", "fold"]
    assert oof.num_rows == 80


def test_folds_without_completions_have_scores_of_losses_alone(make_fold):
    make_fold(0, [1.5], written=None)
    folder = make_fold(1, [1.25], written=None)
    write_folds(folder)
    page = (folder / "kfold/index.html").read_text()
    assert "perplexity" in page
    assert "exact match" not in page
