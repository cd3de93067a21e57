"""TensorBoard's data of a small run, read back."""

import html
import json
import os
import re
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from doctune.training import build
from doctune.training.callbacks import class_dashboard, dashboard
from doctune.training.prepare import prepare
from doctune.training.run import train

EPOCHS = 12
RECIPE = (
    "optim.lr=4e-3", "optim.head_lr_multiplier=1", "schedule.warmup_ratio=0.3", "seed=7", "split.val=0.2",
    "split.test=0.3", "trainer.effective_batch_size=4", "trainer.log_every_n_steps=1",
    "callbacks.early_stopping.enabled=false", "callbacks.gap.stop=false",
)  # fmt: skip
MARKUP = "<script>alert(1)</script> | **bold** [link](http://x) `code` | --- |"


@pytest.fixture(scope="module")
def prepared(manifest_of_files, tmp_path_factory):
    """Four recipes among the others call themselves programs, and bring markup."""
    folder = tmp_path_factory.mktemp("liars")
    rows = [manifest_of_files.read_text(encoding="utf-8")]
    for number in range(4):
        path = folder / f"liar_{number}.txt"
        recipe = f"Take {number} eggs and {number + 1} spoons of sugar. Bake for {number} minutes. Serve warm."
        path.write_text(f"{recipe} {MARKUP * 9}")
        rows.append(f"{path},program,1.0\n")
    (folder / "manifest.csv").write_text("".join(rows), encoding="utf-8")
    return f"data.manifest={folder / 'manifest.csv'}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}"


@pytest.fixture(scope="module")
def configure(compose, tiny, prepared, tmp_path_factory):
    """Those that call themselves programs are all in the test part: nothing teaches the model to believe them."""
    folder = tmp_path_factory.mktemp("split")
    prepare(compose(*tiny, *prepared, *RECIPE), folder)
    rows = pq.read_table(folder / "data/splits.parquet").to_pylist()
    parts = [{"id": row["id"], "part": "test" if "liar_" in row["path"] else row["part"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(parts), folder / "splits.parquet")
    return lambda *overrides: compose(*tiny, *prepared, *RECIPE, f"split.file={folder / 'splits.parquet'}", *overrides)


@pytest.fixture(scope="module")
def run(configure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(configure(f"trainer.max_epochs={EPOCHS}"), folder)
    return folder


def read(run):
    """All events, none left out."""
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def events(run):
    return read(run)


@pytest.fixture(scope="module")
def history(run):
    return json.loads((run / "training_history.json").read_text())


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def steps(events, tag):
    return [event.step for event in events.Tensors(tag)]


def strings(events, tag):
    return [tensor_util.make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)]


def hparams_of(events):
    """The three parts of what the HParams tab reads."""
    content = events.PluginTagToContent("hparams")
    parts = {tag.split("/")[-1]: HParamsPluginData.FromString(data) for tag, data in content.items()}
    assert {*parts} == {"experiment", "session_start_info", "session_end_info"}
    return parts


def test_it_has_these_tags_and_no_others(events):
    tags = events.Tags()
    assert {*tags["scalars"]} == {
        "epoch", "gap", "train/loss", "train/loss_step", "train/grad_norm", "train/tokens_per_s", "train/padding_share",
        "train_eval/loss", "val/loss", "val/f1_macro", "val/accuracy", "test/loss", "test/f1_macro", "test/accuracy",
        "lr-AdamW/encoder", "lr-AdamW/encoder/no_decay", "lr-AdamW/head", "lr-AdamW/head/no_decay", "best/val/f1_macro",
    }  # fmt: skip
    assert tags["images"] == ["val/confusion_matrix"]
    assert {tag for tag in tags["tensors"] if not tag.startswith("_hparams_")} == {
        "custom_scalars__config__", "test/worst_mistakes/text_summary",
        "val/pr_micro", "val_pr/ledger", "val_pr/program", "val_pr/recipe",
    }  # fmt: skip


def test_there_is_one_run_and_no_run_within_it(run):
    assert {path.name.split(".")[0] for path in (run / "tensorboard").iterdir()} == {"events", "hparams"}


def test_the_layout_finds_each_curve_once(events):
    (written,) = strings(events, "custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(written).category
    found = [
        [tag for pattern in chart.multiline.tag for tag in events.Tags()["scalars"] if re.search(pattern, tag)]
        for chart in category.chart
    ]
    assert found == [["train/loss", "val/loss", "train_eval/loss"], ["gap"], ["val/f1_macro", "val/accuracy"]]


def test_throughput_and_padding_are_those_of_the_history(events, history):
    ends = [epoch["step"] - 1 for epoch in history]
    for name in ("tokens_per_s", "padding_share"):
        values = [pytest.approx(epoch[name]) for epoch in history]
        assert points(events, f"train/{name}") == [*zip(ends, values, strict=True)]


def test_times_are_not_in_metrics_csv_and_the_gradient_norm_is(run, events):
    columns, *rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    assert not {"train/tokens_per_s", "train/padding_share"} & {*columns}
    place = columns.index("train/grad_norm")
    norms = [(int(row[0]), pytest.approx(float(row[place]))) for row in rows if row[place]]
    assert points(events, "train/grad_norm") == norms
    assert len(norms) == json.loads((run / "status.json").read_text())["steps"]


def test_each_epoch_has_its_picture_and_curves(events, history):
    ends = [epoch["step"] - 1 for epoch in history]
    assert len(ends) == EPOCHS
    assert [image.step for image in events.Images("val/confusion_matrix")] == ends
    for tag in ("val/pr_micro", "val_pr/ledger", "val_pr/program", "val_pr/recipe"):
        assert steps(events, tag) == ends


def test_the_last_curve_is_that_of_the_validation_part(events, run):
    documents = pq.read_table(run / "data/splits.parquet").to_pylist()
    num_documents = sum(row["part"] == "val" for row in documents)
    num_programs = sum(row["part"] == "val" and row["label"] == "program" for row in documents)
    hits, alarms, rejections, misses, _, recall = tensor_util.make_ndarray(
        events.Tensors("val_pr/program")[-1].tensor_proto
    )
    assert (hits[0], alarms[0]) == (num_programs, num_documents - num_programs)
    assert ((hits + misses == num_programs) & (hits + alarms + rejections + misses == num_documents)).all()
    assert recall == pytest.approx(hits / num_programs)


def test_hyperparameters_stand_beside_the_final_metrics(events, run, configure):
    parts = hparams_of(events)
    given = parts["session_start_info"].session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in given.items()}
    assert values == dashboard.hyperparameters(configure(f"trainer.max_epochs={EPOCHS}"))
    assert (values["optim.lr"], values["seed"], values["model.name"]) == (4e-3, 7, "distilbert_mini")
    metrics = [metric.name.tag for metric in parts["experiment"].experiment.metric_infos]
    assert metrics == ["test/f1_macro", "test/accuracy", "test/loss", "best/val/f1_macro"]
    report = json.loads((run / "report/report.json").read_text())
    shown = {tag: events.Scalars(tag) for tag in metrics}
    assert {len(values) for values in shown.values()} == {1}
    assert shown["test/f1_macro"][0].value == pytest.approx(report["test"]["f1_macro"], abs=1e-6)
    assert shown["test/accuracy"][0].value == pytest.approx(report["test"]["accuracy"], abs=1e-6)
    assert shown["test/loss"][0].value == pytest.approx(report["test"]["log_loss"], abs=1e-5)
    best = json.loads((run / "environment.json").read_text())["best_score"]
    assert shown["best/val/f1_macro"][0].value == pytest.approx(best)


def test_the_worst_mistakes_are_the_most_confident_wrong_answers(events, run):
    (written,) = strings(events, "test/worst_mistakes/text_summary")
    page = markdown_to_safe_html(written)
    cells = [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", page, re.DOTALL)]
    rows = pq.read_table(run / "predictions/test.parquet").to_pylist()
    wrong = [row for row in rows if row["prediction"] != row["truth"]]
    worst = sorted(wrong, key=lambda row: -max(row["probabilities"]))[:10]
    expected = [[row["path"], row["truth"], row["prediction"]] for row in worst]
    assert [cells[start : start + 3] for start in range(0, len(cells), 5)] == expected
    chances = [float(chance) for chance in cells[3::5]]
    assert chances == pytest.approx([max(row["probabilities"]) for row in worst], abs=6e-4)

    assert sum("liar_" in row["path"] for row in worst) == 4
    liars = [text for path, text in zip(cells[::5], cells[4::5], strict=True) if "liar_" in path]
    assert all(text.replace("<br>", " ").partition("warm. ")[2].startswith(MARKUP) for text in liars)
    assert all(len(text.replace("<br>", " ")) <= 301 and text.endswith("…") for text in liars)
    assert {*re.findall(r"</?(\w+)", page)} == {"table", "thead", "tbody", "tr", "th", "td", "br"}


def test_a_run_without_mistakes_says_so(configure, tmp_path):
    from doctune.labels import Labels

    board = class_dashboard.WorstMistakes(None, Labels(("a",)), [None] * 7, lambda documents: [])
    assert board._mistakes_table() == "No mistakes: all 7 test documents have their right label."


class Kill(Callback):
    """Ends the process after everything about the second epoch is written, and before its checkpoint is."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_that_goes_on_shows_nothing_twice(configure, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        stock = build.stock_callbacks
        patched.setattr(build, "stock_callbacks", lambda config: [*stock(config), Kill()])
        child = os.fork()
        if child == 0:
            try:
                train(configure("trainer.max_epochs=3"), tmp_path)
            finally:
                os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(read(tmp_path).Images("val/confusion_matrix")) == 2
    train(configure("trainer.max_epochs=3"), tmp_path)
    train(configure("trainer.max_epochs=3"), tmp_path)  # finished already: only tested again

    events = read(tmp_path)
    ends = [epoch["step"] - 1 for epoch in json.loads((tmp_path / "training_history.json").read_text())]
    assert [image.step for image in events.Images("val/confusion_matrix")] == ends
    assert [step for step, _ in points(events, "train/tokens_per_s")] == ends
    assert [step for step, _ in points(events, "train/grad_norm")] == [*range(ends[-1] + 1)]
    assert [step for step, _ in points(events, "best/val/f1_macro")] == [ends[-1] + 1]
    assert steps(events, "custom_scalars__config__") == ends[:1]
    # TensorBoard takes back tensors too, where the same step comes again; this reader does not.
    assert sorted({*steps(events, "val/pr_micro")}) == ends
    assert {*steps(events, "test/worst_mistakes/text_summary")} == {ends[-1] + 1}


def test_many_labels_give_a_note_instead_of_a_picture(configure, monkeypatch, tmp_path):
    monkeypatch.setattr(class_dashboard, "DRAWN_LABELS", 2)
    monkeypatch.setattr(class_dashboard, "CLASS_CURVES", 1)
    train(configure("trainer.max_epochs=2"), tmp_path)
    events = read(tmp_path)
    assert events.Tags()["images"] == []
    (note,) = strings(events, "val/confusion_matrix/text_summary")
    assert note.decode().startswith("A matrix of 3 labels cannot be read at this size")
    labels = [
        row["label"] for row in pq.read_table(tmp_path / "data/splits.parquet").to_pylist() if row["part"] == "val"
    ]
    names, counts = np.unique(labels, return_counts=True)
    assert [tag for tag in events.Tags()["tensors"] if tag.startswith("val_pr/")] == [
        f"val_pr/{names[counts.argmax()]}"
    ]


def test_without_tensorboard_only_the_gradient_norm_is_left(configure, tmp_path):
    train(configure("trainer.max_epochs=1", "logger=csv"), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    assert "train/grad_norm" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
