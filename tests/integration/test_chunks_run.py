"""Long documents from files to predictions, with a tiny model."""

import csv
import json
import os
import random
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback

from doctune.cli.main import main
from doctune.corpus import chunk_tokens
from doctune.decode.classification import probabilities
from doctune.errors import ConfigError
from doctune.inference.engine import load
from doctune.text.extract import extract
from doctune.training import build, first_chunk
from doctune.training.prepare import prepare
from doctune.training.run import train

WORDS = [f"{first}{second}" for first in "bcdfghjklm" for second in ("an", "elu", "iro", "osta")]
TELLING = {"fruit": "apple", "stone": "granite", "tree": "willow"}
# 24 training documents: 3 steps of two micro-batches an epoch. Dropout is on.
RECIPE = (
    "data=chunks",
    "data.max_length=24",
    "data.max_chunks=4",
    "deterministic=true",
    "optim.lr=4e-3",
    "split.val=0.2",
    "split.test=0.2",
    "trainer.max_epochs=2",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.log_every_n_steps=1",
    "metric.class_weights={fruit: 3, stone: 3, tree: 4}",
    "monitor.metric=val/f1_mix",
    "logger=csv",
)


def write_documents(folder, per_class=14):
    """Texts of 20 to 160 words, of which a single one, anywhere, tells the class; and their manifest."""
    folder.mkdir(parents=True)
    rng, rows = random.Random(0), []
    for label, telling in TELLING.items():
        for number in range(per_class):
            words = rng.choices(WORDS, k=rng.randint(20, 160))
            words[rng.randrange(len(words))] = telling
            path = folder / f"{label}{number:02d}.txt"
            path.write_text(" ".join(words), encoding="utf-8")
            rows.append((path, label))
    return write_manifest(folder, rows)


def write_manifest(folder, rows):
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return write_documents(tmp_path_factory.mktemp("long") / "files")


@pytest.fixture(scope="module")
def prepared(documents, tmp_path_factory):
    return (f"data.manifest={documents}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}")


@pytest.fixture
def configure(compose, tiny, prepared):
    return lambda *overrides: compose(*tiny, *prepared, *RECIPE, *overrides)


@pytest.fixture(scope="module")
def whole_run(compose, tiny, prepared, tmp_path_factory):
    """The run that was never killed; never changed by a test."""
    run = tmp_path_factory.mktemp("whole")
    train(compose(*tiny, *prepared, *RECIPE), run)
    return run


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_folder_has_what_a_classifier_has_and_the_attention(whole_run):
    names = {str(path.relative_to(whole_run)) for path in whole_run.rglob("*") if path.is_file()}
    assert {
        "model/config.json",
        "model/model.safetensors",
        "model/hierarchy.json",
        "model/hierarchy.safetensors",
        "model/tokenizer.json",
        "model/doctune.json",
        "predictions/val.parquet",
        "predictions/test.parquet",
        "predictions/val_attention.parquet",
        "predictions/test_attention.parquet",
        "predictions/baselines_test.parquet",
        "report/index.html",
        "report/report.json",
    } <= names
    assert not [name for name in names if name.endswith(".part") or name.startswith("first_chunk")]
    environment = read_json(whole_run / "environment.json")
    assert environment["task"] == "classification"
    assert environment["baseline_seconds"] > 0
    assert {"chunk_length": 24, "max_chunks": 4, "keep": "head", "pooling": "attention", "vector": "cls"}.items() <= (
        environment["hierarchy"].items()
    )


def test_three_baselines_stand_beside_the_scores(whole_run):
    baselines = read_json(whole_run / "data/baselines.json")
    assert list(baselines) == ["majority", "tfidf_svm", "first_chunk"]
    rows = pq.read_table(whole_run / "predictions/baselines_test.parquet").to_pydict()
    truth = pq.read_table(whole_run / "predictions/test.parquet").to_pydict()
    assert rows["id"] == truth["id"]
    right = np.mean([given == true for given, true in zip(rows["first_chunk"], truth["truth"], strict=True)])
    assert baselines["first_chunk"]["test"]["accuracy"] == pytest.approx(right)
    assert read_json(whole_run / "report/report.json")["baselines"] == baselines
    assert "first chunk only" in (whole_run / "report/summary.txt").read_text(encoding="utf-8")


def test_the_mix_that_was_monitored_is_that_of_the_reported_f1(whole_run):
    report, environment = read_json(whole_run / "report/report.json"), read_json(whole_run / "environment.json")
    rows = pq.read_table(whole_run / "predictions/val.parquet").to_pylist()
    shares = {"fruit": 0.3, "stone": 0.3, "tree": 0.4}
    f1 = {}
    for label in shares:
        hits = sum(row["truth"] == row["prediction"] == label for row in rows)
        met = sum((row["truth"] == label) + (row["prediction"] == label) for row in rows)
        f1[label] = 2 * hits / met if met else 0.0
    assert environment["best_score"] == pytest.approx(sum(shares[label] * f1[label] for label in shares), abs=1e-6)
    assert environment["monitor"]["metric"] == "val/f1_mix"
    with (whole_run / "metrics.csv").open() as stream:
        (tested,) = [float(row["test/f1_mix"]) for row in csv.DictReader(stream) if row.get("test/f1_mix")]
    assert tested == pytest.approx(sum(shares[row["label"]] * row["f1"] for row in report["per_class"]), abs=1e-6)


def test_longer_documents_are_said_in_log_and_report(whole_run):
    facts = read_json(whole_run / "environment.json")["hierarchy"]
    assert 0 < facts["truncated"] < facts["documents"] == 42
    sentence = f"{facts['truncated']} of 42 documents are longer than 4 chunks; data.keep=head reads "
    assert any(note.startswith(sentence) for note in read_json(whole_run / "report/report.json")["notes"])


def test_padding_is_that_of_each_pass(whole_run):
    history = read_json(whole_run / "training_history.json")
    assert all(0 <= epoch["padding_share"] < 0.2 for epoch in history)


def test_attention_says_how_much_each_chunk_counted(whole_run):
    for part in ("val", "test"):
        rows = pq.read_table(whole_run / f"predictions/{part}_attention.parquet").to_pylist()
        judged = pq.read_table(whole_run / f"predictions/{part}.parquet").to_pylist()
        assert list(rows[0]) == ["id", "chunk", "weight", "start", "end", "text"]
        assert [*dict.fromkeys(row["id"] for row in rows)] == [row["id"] for row in judged]
        for document in judged:
            own = [row for row in rows if row["id"] == document["id"]]
            text = extract(document["path"]).text
            assert [row["chunk"] for row in own] == [*range(len(own))]
            assert sum(row["weight"] for row in own) == pytest.approx(1, abs=1e-5)
            assert [row["text"] for row in own] == [text[row["start"] : row["end"]][:300] for row in own]
            assert own[0]["start"] == 0


def test_saved_predictions_are_those_of_the_exported_model(whole_run, capsys):
    rows = pq.read_table(whole_run / "predictions/test.parquet").to_pylist()
    engine = load(whole_run)
    texts = [extract(row["path"], engine.artifact.extract).text for row in rows]
    assert [prediction.label for prediction in engine.predict(texts)] == [row["prediction"] for row in rows]
    before = probabilities(engine.logits(texts))  # the temperature is fitted on what is saved
    assert np.allclose(before, [row["probabilities"] for row in rows], atol=1e-5)
    assert main(["predict", str(whole_run), *(row["path"] for row in rows[:3])]) == 0
    answers = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert [answer["label"] for answer in answers] == [row["prediction"] for row in rows[:3]]


def test_a_run_of_long_documents_is_evaluated_like_any_other(whole_run, tmp_path):
    rows = pq.read_table(whole_run / "predictions/test.parquet").to_pylist()
    assert main(["evaluate", str(whole_run), "--out", str(tmp_path / "judged")]) == 0
    report = json.loads((tmp_path / "judged/evaluation_report.json").read_text(encoding="utf-8"))
    assert report["agreement"] == report["documents"] == len(rows)
    right = sum(row["truth"] == row["prediction"] for row in rows)
    assert report["scores"]["accuracy"] == pytest.approx(right / len(rows))


class Kill(Callback):
    """Ends the process, without a last word, at the n-th time that a hook is called."""

    def __init__(self, hook, count):
        self.left = count
        setattr(self, hook, self.count_down)

    def count_down(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(act):
    """Do something in a forked process that SIGKILL must end."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def assert_same_run(run, whole):
    ours, theirs = (torch.load(each / "checkpoints/last.ckpt", weights_only=True) for each in (run, whole))
    assert ours["global_step"] == theirs["global_step"]
    assert all(torch.equal(ours["state_dict"][name], weight) for name, weight in theirs["state_dict"].items())
    for name in ("metrics.csv", "data/baselines.json"):
        assert (run / name).read_text() == (whole / name).read_text(), name
    for name in ("test", "test_attention", "baselines_test"):
        ours, theirs = (pq.read_table(each / f"predictions/{name}.parquet") for each in (run, whole))
        assert ours == theirs, name


@pytest.mark.parametrize(
    ("hook", "count"),
    [
        pytest.param("on_train_batch_end", 3, id="inside an accumulation window"),
        pytest.param("on_test_batch_end", 1, id="during the final test"),
    ],
)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(
    hook, count, configure, whole_run, monkeypatch, tmp_path, caplog
):
    caplog.set_level("INFO")
    config = configure("callbacks.checkpoint.every_minutes=1e-9")
    stock = build.stock_callbacks
    with monkeypatch.context() as patched:
        patched.setattr(build, "stock_callbacks", lambda config: [*stock(config), Kill(hook, count)])
        killed(lambda: train(config, tmp_path))
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)
    assert "Baseline: the same encoder" not in caplog.text  # the run that was killed had done it


@pytest.mark.parametrize("count", [2, 9])
def test_a_run_killed_while_its_baseline_learns(count, configure, whole_run, monkeypatch, tmp_path):
    seeds = first_chunk.StepSeeds

    class KillingSeeds(seeds):
        def __init__(self, seed):
            super().__init__(seed)
            self.left = count

        def on_train_batch_start(self, *args):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            super().on_train_batch_start(*args)

    with monkeypatch.context() as patched:
        patched.setattr(first_chunk, "StepSeeds", KillingSeeds)
        killed(lambda: train(configure(), tmp_path))
    assert list(read_json(tmp_path / "data/baselines.json")) == ["majority", "tfidf_svm"]
    train(configure(), tmp_path)
    assert_same_run(tmp_path, whole_run)
    assert not (tmp_path / "first_chunk").exists()


def test_when_memory_runs_out_the_baseline_begins_again_in_smaller_pieces(configure, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO")
    make = first_chunk.build.trainer

    def trainer(config, folder, *arguments):
        found = make(config, folder, *arguments)
        if folder.name == "first_chunk" and config.trainer.device_batch_size() > 2:
            found.fit = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))
        return found

    monkeypatch.setattr(first_chunk.build, "trainer", trainer)
    train(configure("trainer.max_epochs=1"), tmp_path)
    assert "Memory ran out: the baseline begins again with 2 documents per forward pass." in caplog.text
    assert "first_chunk" in read_json(tmp_path / "data/baselines.json")


def test_weights_of_other_labels_are_refused(compose, tiny, prepared, tmp_path):
    recipe = [override for override in RECIPE if not override.startswith("metric.")]
    config = compose(*tiny, *prepared, *recipe, "metric.class_weights={fruit: 1, rock: 1, tree: 1}")
    with pytest.raises(ConfigError, match=r"metric\.class_weights names rock, which the data does not have and lacks"):
        train(config, tmp_path)


@pytest.mark.parametrize("vector", ["cls", "mean"])
def test_stored_chunk_vectors_give_the_losses_of_computing_them(
    vector, compose, tiny_encoder, prepared, tmp_path, caplog
):
    caplog.set_level("INFO")
    losses = {}
    for cached in ("true", "false"):
        config = compose(
            *RECIPE,
            *prepared,
            "model=minilm",
            f"model.path={tiny_encoder('bert')}",
            "model.dropout=0",
            "model.head_dropout=0",
            "finetune=head",
            f"finetune.cache_encoder={cached}",
            f"data.chunk_vector={vector}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "data.duplicate_threshold=1",
            "trainer.accelerator=cpu",
            "trainer.precision='32'",
            "trainer.progress=false",
        )
        train(config, tmp_path / cached)
        history = read_json(tmp_path / cached / "training_history.json")
        losses[cached] = [epoch[name] for epoch in history for name in ("train_loss", "val_loss", "train_eval_loss")]
    assert losses["true"] == pytest.approx(losses["false"], abs=1e-5)
    # The chunks of all parts are one entry, which the baseline reads too.
    assert len([*tmp_path.glob("cache/features/*/features.npy")]) == 1
    assert caplog.text.count("The frozen encoder reads all documents once.") == 1
    baselines = [read_json(tmp_path / cached / "data/baselines.json") for cached in ("true", "false")]
    assert baselines[0] == baselines[1]


def test_empty_one_word_and_five_megabyte_documents(compose, tiny, tmp_path):
    manifest = write_documents(tmp_path / "files", per_class=8)
    rows = [tuple(row.values()) for row in csv.DictReader(manifest.open())]
    odd = {"empty": "", "word": "apple", "blank": " \n ", "huge": "apple granite willow banana " * 190_000}
    for name, text in odd.items():
        (tmp_path / "files" / f"{name}.txt").write_text(text)
        rows.append((str(tmp_path / "files" / f"{name}.txt"), "fruit"))
    write_manifest(tmp_path / "files", rows)
    overrides = (f"data.manifest={manifest}", f"data.cache_dir={tmp_path / 'cache'}", "trainer.max_epochs=1")
    train(compose(*tiny, *RECIPE, *overrides), tmp_path / "run")
    with (tmp_path / "run/data/account.csv").open() as stream:
        account = {os.path.basename(row["path"]): row["status"] for row in csv.DictReader(stream)}
    assert {name: account[f"{name}.txt"] for name in odd} == {
        "empty": "empty", "blank": "empty", "word": "ok", "huge": "ok",
    }  # fmt: skip
    facts = read_json(tmp_path / "run/environment.json")["hierarchy"]
    assert facts["documents"] == 26
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "files/huge.txt")]) == 0


def test_prepare_goes_on_where_it_was_killed(configure, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    config = configure(f"data.cache_dir={tmp_path / 'cache'}")

    def die(*_, **__):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patched:
        patched.setattr(chunk_tokens, "chunk", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, tmp_path / "prepared")
    assert caplog.text.count("Reading 42 new files.") == 1
    prepare(config, tmp_path / "prepared")
    assert "Chunks: 42 documents, " in caplog.text
    assert len([*tmp_path.glob("cache/chunks/*/is_estimated.npy")]) == 1
    assert caplog.text.count("new files.") == 1
    with monkeypatch.context() as patched:
        patched.setattr(chunk_tokens, "chunk", die)  # nothing is cut again
        train(config, tmp_path / "run")
    assert read_json(tmp_path / "run/status.json")["phase"] == "finished"
