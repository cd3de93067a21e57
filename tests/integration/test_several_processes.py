"""Two processes on a CPU train as one does: the same curve, the same weights, the same files, each sample once."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback

from doctune.errors import ConfigError, DataError, TrainingError
from doctune.training.run import train

ROOT = Path(__file__).parents[2]
# 44 training documents: seven steps of 6, each in three micro-batches of two processes, and one of 2. Dropout would
# draw other numbers in other processes.
RECIPE = (
    "optim.lr=4e-3",
    "optim.head_lr_multiplier=1",
    "schedule.warmup_ratio=0.3",
    "model.dropout=0",
    "model.head_dropout=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.effective_batch_size=6",
    "trainer.log_every_n_steps=1",
    "callbacks.early_stopping.enabled=false",
    "callbacks.gap.stop=false",
)
CLASSES = ("split.val=0.12", "split.test=0.14")
TOGETHER = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.micro_batch_size=1")
# Sums in another order differ in the last digits of a float, which the steps carry on.
TOLERANCE = 2e-5
WEIGHTS_TOLERANCE = 5e-4
# Softmax does not see them: of their gradients, zero but for rounding, AdamW makes steps of full length.
UNSEEN = ("k_lin.bias", "key.bias", "qa_outputs.bias")


@pytest.fixture(scope="module")
def files(manifest_of_files, tmp_path_factory):
    return (f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}", *CLASSES)


@pytest.fixture(scope="module")
def start(compose, tiny, tmp_path_factory):
    """A function: overrides -> the folder of a run that has ended well."""

    def run(*overrides):
        folder = tmp_path_factory.mktemp("run")
        small = [each for each in tiny if "data=squad" not in overrides or not each.startswith("data.duplicate_")]
        train(compose(*small, *RECIPE, *overrides), folder)
        return folder

    return run


@pytest.fixture(scope="module")
def alone(start, files):
    return start(*files)


@pytest.fixture(scope="module")
def together(start, files):
    return start(*files, *TOGETHER)


@pytest.fixture(scope="module")
def sharded(start, files):
    return start(*files, "trainer=fsdp", "trainer.accelerator=cpu")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def metrics(run):
    """Step -> the logged numbers."""
    with (run / "metrics.csv").open() as stream:
        return {int(row.pop("step")): {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)}


def last_checkpoint(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def assert_same_numbers(ours, theirs, tolerance=TOLERANCE):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=tolerance, rel=tolerance), name


def assert_same_training(run, other):
    ours, theirs = metrics(run), metrics(other)
    assert ours.keys() == theirs.keys()
    for step, row in theirs.items():
        assert_same_numbers(ours[step], row)
    weights, expected = (last_checkpoint(each)["state_dict"] for each in (run, other))
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        if not name.endswith(UNSEEN):
            assert torch.allclose(weights[name], weight, atol=WEIGHTS_TOLERANCE), name


def assert_same_predictions(run, other):
    for part in ("val", "test"):
        ours, theirs = (pq.read_table(each / f"predictions/{part}.parquet") for each in (run, other))
        assert ours["id"].to_pylist() == theirs["id"].to_pylist()
        assert len({*ours["id"].to_pylist()}) == len(ours)
        for name in set(theirs.column_names) - {"score", "null_score", "n_best", "probability"}:
            for row, expected in zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True):
                values = expected if isinstance(expected, list) else [expected]
                is_numbers = any(isinstance(each, float) for each in values)
                assert row == (pytest.approx(expected, abs=1e-4, rel=1e-5) if is_numbers else expected), name


def test_two_processes_have_the_losses_and_weights_of_one(alone, together):
    assert len([row for row in metrics(together).values() if "train/loss_step" in row]) == 32
    assert_same_training(together, alone)


def test_each_judged_document_is_predicted_once_and_scores_are_those_of_one_process(alone, together):
    assert_same_predictions(together, alone)
    ours, theirs = (read(run / "report/report.json")["test"] for run in (together, alone))
    assert theirs["f1_macro"] > 0.5
    assert [ours[name] for name in ("documents", "f1_macro", "accuracy")] == [
        theirs[name] for name in ("documents", "f1_macro", "accuracy")
    ]


def test_the_history_counts_the_documents_of_all_processes(alone, together):
    ours, theirs = (read(run / "training_history.json") for run in (together, alone))
    for epoch, expected in zip(ours, theirs, strict=True):
        names = {"epoch", "step", "train_loss", "train_eval_loss", "val_loss", "gap", "val_f1_macro"}
        assert_same_numbers({name: epoch[name] for name in names}, {name: expected[name] for name in names})


def test_two_processes_write_the_files_of_one(alone, together):
    def names(run):
        found = (str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        return sorted(name for name in found if not name.startswith(("checkpoints/checkpoint_", "tensorboard/")))

    assert names(together) == names(alone)
    assert len([*together.glob("checkpoints/checkpoint_*")]) == 1
    assert len([*together.glob("tensorboard/events*")]) == len([*alone.glob("tensorboard/events*")])
    status = read(together / "status.json")
    assert (status["phase"], status["pid"], status["step"]) == ("finished", os.getpid(), 32)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_nothing_is_left_of_the_processes(strategy, request):
    request.getfixturevalue({"ddp": "together", "fsdp": "sharded"}[strategy])
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()


def test_processes_that_share_the_model_have_the_losses_and_weights_of_one(alone, sharded):
    assert_same_training(sharded, alone)
    assert_same_predictions(sharded, alone)


class Strike(Callback):
    """At the end of an optimiser step something happens in one of the processes."""

    def __init__(self, act, rank, step):
        self.act, self.rank, self.step = act, rank, step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.global_rank, trainer.global_step, batch["ends_step"]) == (self.rank, self.step, True):
            getattr(self, self.act)(trainer)

    def interrupt(self, trainer):
        """As a user does, who knows the process that was started."""
        os.kill(os.getppid() if trainer.world_size > 1 else os.getpid(), signal.SIGTERM)
        time.sleep(1)  # it goes round by the parent

    def fail(self, trainer):
        raise ValueError("a library has a bug")


class Cramped(Callback):
    """One document at a time is all that the second process has room for."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and len(batch["index"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def striking(act, rank, step):
    """An override that brings a `Strike`."""
    return f"trainer.extra_callbacks=[{{_target_: {__name__}.Strike, act: {act}, rank: {rank}, step: {step}}}]"


@pytest.mark.parametrize("interrupted", ["alone", "together"])
def test_an_interrupted_run_goes_on_with_another_number_of_processes(
    interrupted, alone, files, compose, tiny, tmp_path
):
    strike = striking("interrupt", 0, 10)
    configs = {
        "alone": compose(*tiny, *RECIPE, *files, strike),
        "together": compose(*tiny, *RECIPE, *files, *TOGETHER, "trainer.micro_batch_size=null", strike),
    }
    with pytest.raises(KeyboardInterrupt):
        train(configs.pop(interrupted), tmp_path)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves Ctrl-C turned off
    assert read(tmp_path / "status.json")["phase"] == "interrupted"
    assert [path.name[-16:] for path in tmp_path.glob("checkpoints/step_*")] == ["step0000010.ckpt"]
    assert not multiprocessing.active_children()
    (other,) = configs.values()
    train(other, tmp_path)
    assert_same_training(tmp_path, alone)
    assert_same_predictions(tmp_path, alone)


def test_one_process_that_fails_ends_the_run(files, compose, tiny, tmp_path):
    config = compose(*tiny, *RECIPE, *files, *TOGETHER, striking("fail", 1, 2))
    with pytest.raises(TrainingError) as raised:
        train(config, tmp_path)
    assert str(raised.value) == (
        "Process 2 of 2 failed: ValueError: a library has a bug The others were ended. What was saved before is "
        "whole: go on with resume=RUN."
    )
    assert read(tmp_path / "status.json")["phase"] == "failed"
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_makes_all_begin_again_with_less(alone, start, files):
    cramped = f"trainer.extra_callbacks=[{{_target_: {__name__}.Cramped}}]"
    run = start(*files, *TOGETHER, "trainer.micro_batch_size=null", cramped)
    assert_same_training(run, alone)
    facts = read(run / "environment.json")
    assert facts["micro_batch_size"] == 1
    assert (
        "Memory ran out with 3 documents per forward pass: going on with 1, from the last checkpoint. The effective "
        "batch stays 6."
    ) in facts["notes"]


def test_a_part_with_fewer_documents_than_processes_is_refused(files, compose, tiny, tmp_path):
    config = compose(*tiny, *RECIPE, *files, *TOGETHER, "trainer.devices=8", "trainer.effective_batch_size=8")
    with pytest.raises(DataError) as raised:
        train(config, tmp_path)
    assert str(raised.value) == (
        "The validation part has 6 of what the model reads at a time, and trainer.devices=8 processes need one each: "
        "ask for fewer of them, or for a larger part (split.val, split.test)."
    )


def test_whole_models_moments_are_not_shared(sharded, files, compose, tiny, tmp_path, alone):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    wanted = compose(*tiny, *RECIPE, *files, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.max_epochs=5")
    with pytest.raises(ConfigError) as raised:
        train(wanted, folder)
    assert str(raised.value) == (
        "trainer.strategy=fsdp cannot go on from a checkpoint that whole models have made: resume with "
        "trainer.strategy=ddp or with trainer.devices=1."
    )


def test_a_run_that_shared_the_model_goes_on_in_one_process(sharded, alone, files, compose, tiny, tmp_path):
    """The moments of the optimiser too: else the fifth epoch would be another."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for source, folder in ((sharded, ours), (alone, theirs)):
        shutil.copytree(source, folder)
        train(compose(*tiny, *RECIPE, *files, "trainer.max_epochs=5"), folder)
    assert_same_training(ours, theirs)


def test_a_k_fold_multirun_of_two_processes_has_one_folder_per_fold(tiny, files, tmp_path):
    recipe = [*tiny, *RECIPE, *files[:2], "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *recipe, "sweep=kfold", "split.folds=2", "hydra.sweep.dir=folds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folds"]
    assert sorted(path.name for path in (tmp_path / "folds").glob("[!.]*")) == [
        "fold-0", "fold-1", "kfold", "multirun.yaml"
    ]  # fmt: skip
    for fold in ("fold-0", "fold-1"):
        said = (tmp_path / "folds" / fold / "train.log").read_text()
        assert said.count("Epoch 1/1") == 1
        assert "trainer=ddp shares batches among 2 processes." in said
    folds = read(tmp_path / "folds/kfold/kfold_results.json")
    assert [fold["status"] for fold in folds["folds"]] == ["finished", "finished"]


QUESTIONS = {
    "Where does {} live ?": ["Ulm", "Bonn", "Graz", "Linz"],
    "Who is {} ?": ["baker", "miller", "smith", "potter"],
}


def write_questions(path):
    """Eight articles of three contexts with two questions each."""
    articles = []
    for article in range(8):
        paragraphs = []
        for number in range(3):
            name = ["Anna", "Otto", "Emil", "Ida"][(article + number) % 4]
            town, work = (answers[(article * 3 + number) % 4] for answers in QUESTIONS.values())
            context = f"{name} lives in {town} and came in 18{article}{number} . {name} is a {work} there ."
            asked = zip(QUESTIONS, (town, work), strict=True)
            questions = [
                {
                    "id": f"{article}-{number}-{kind}",
                    "question": text.format(name),
                    "answers": [{"text": answer, "answer_start": context.index(answer)}],
                }
                for kind, (text, answer) in enumerate(asked)
            ]
            paragraphs.append({"context": context, "qas": questions})
        articles.append({"title": f"House {article}", "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return path


@pytest.fixture(scope="module")
def task_data(files, targets_data, tmp_path_factory):
    """A task -> its overrides."""
    folder = tmp_path_factory.mktemp("tasks")
    squad = [
        "data=squad",
        f"data.path={write_questions(folder / 'squad.json')}",
        f"data.cache_dir={folder}",
        "data.max_length=20",
        "data.doc_stride=4",
        "data.max_question_length=8",
        "split.val=0.25",
        "split.test=0.25",
    ]
    chunks = ["data=chunks", *files, "data.max_length=16", "data.max_chunks=3"]
    return {"squad": squad, "chunks": chunks, "multi_task": [*targets_data, "loss.balance=uncertainty"]}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["squad", "chunks", "multi_task"])
def test_every_task_trains_in_two_processes_as_in_one(start_task, task):
    run = start_task(task, *TOGETHER)
    assert_same_training(run, start_task(task))
    assert_same_predictions(run, start_task(task))


@pytest.fixture(scope="module")
def start_task(start, tiny, task_data):
    """A function: a task and overrides -> the folder of a run, which is made once."""
    made = {}

    def run(*wanted):
        if wanted not in made:
            task, *overrides = wanted
            made[wanted] = start(*task_data[task], "trainer.max_epochs=2", *overrides)
        return made[wanted]

    return run


@pytest.mark.slow
def test_a_language_model_trains_in_two_processes_as_in_one(compose, tiny_mistral, tmp_path):
    rows = [{"prompt": f"Say {a} after {b}.", "completion": f"{a}, for it is {b}."} for a in range(8) for b in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = [each for each in RECIPE if "head" not in each]
    data = (
        "model=mistral",
        f"model.path={tiny_mistral}",
        "data=instructions",
        f"data.train=[{tmp_path / 'train.jsonl'}]",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.duplicate_threshold=1",
        "data.max_length=64",
        "data.generate=4",
        "data.max_new_tokens=4",
        "trainer.precision='32'",
        "trainer.progress=false",
        "trainer.check_every_n_steps=3",
        "logger=csv",
    )
    runs = {name: tmp_path / name for name in ("alone", "together")}
    for name, more in (("alone", ()), ("together", TOGETHER)):
        train(compose(*data, *recipe, "trainer.max_epochs=2", *more), runs[name])
    assert_same_training(runs["together"], runs["alone"])
    assert_same_predictions(runs["together"], runs["alone"])
    ours, theirs = (read(run / "training_metrics.json") for run in (runs["together"], runs["alone"]))
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        assert row["gap"] == pytest.approx(expected["gap"], abs=1e-4)
