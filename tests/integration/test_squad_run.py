"""A whole run of `data=squad`: its files, its scores, its model elsewhere, and its end when it was killed."""

import json
import os
import signal
import sys

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file

from doctune.inference.artifact import load_artifact
from doctune.inference.engine import load as load_engine
from doctune.scoring.squad import score_answers, summarise
from doctune.training import build
from doctune.training.app import main
from doctune.training.run import train

TOWNS = ["Ulm", "Bonn", "Graz", "Linz", "Wels", "Bern", "Chur", "Thun", "Zug", "Genf", "Trier", "Mainz"]
WORK = ["baker", "miller", "joiner", "smith", "tailor", "potter", "weaver", "cooper"]
NAMES = ["Anna", "Otto", "Emil", "Ida", "Karl", "Lena", "Max", "Nora", "Paul", "Rosa", "Tim", "Vera"]
# 96 training questions, nearly all in two windows: about 24 steps of two micro-batches an epoch. Dropout is on.
SMALL = (
    "data.max_length=20",
    "data.doc_stride=4",
    "data.max_question_length=8",
    "split.val=0.2",
    "split.test=0.2",
    "schedule.warmup_steps=20",
    "trainer.log_every_n_steps=1",
    "callbacks.early_stopping.enabled=false",
    "callbacks.gap.stop=false",
)
RECIPE = (
    "deterministic=true",
    "optim.lr=4e-3",
    "trainer.max_epochs=4",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
)
TIMES = ("seconds", "tokens_per_s")
COLUMNS = [
    "id", "article", "question", "context", "references", "reference_start", "prediction", "start", "end", "score",
    "probability", "null_score", "windows", "n_best", "exact_match", "f1",
]  # fmt: skip


def write_squad(path, version):
    """Twelve articles of four paragraphs with three questions each; in 2.0 a quarter asks for somebody else."""
    articles = []
    for article in range(12):
        paragraphs = []
        for number in range(4):
            name, town = NAMES[(article + 5 * number) % 12], TOWNS[(article + number) % 12]
            work, year = WORK[(3 * article + number) % 8], str(1800 + 12 * number + article)
            context = f"{name} lives in {town} . {name} works as a {work} . {name} came in {year} ."
            asked = {"Where does {} live ?": town, "What does {} work as ?": work, "When did {} come ?": year}
            questions = []
            for kind, (text, answer) in enumerate(asked.items()):
                is_impossible = version == "2.0" and (article + number + kind) % 4 == 0
                questions.append(
                    {
                        "id": f"{article}-{number}-{kind}",
                        "question": text.format("Zoe" if is_impossible else name),
                        "answers": [] if is_impossible else [{"text": answer, "answer_start": context.index(answer)}],
                        **({"is_impossible": is_impossible} if version == "2.0" else {}),
                    }
                )
            paragraphs.append({"context": context, "qas": questions})
        articles.append({"title": f"House {article}", "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": version, "data": articles}))
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function: a version -> overrides with the file of questions and the cache."""
    folder = tmp_path_factory.mktemp("questions")

    def overrides(version="1.1"):
        path = folder / f"{version}.json"
        return (f"data.path={path if path.exists() else write_squad(path, version)}", f"data.cache_dir={folder}/cache")

    return overrides


@pytest.fixture(scope="module")
def sizes(tiny):
    """The small model, without what only a classifier knows."""
    return tuple(each for each in tiny if not each.startswith("data.duplicate_threshold"))


@pytest.fixture(scope="module")
def configure(compose, sizes, prepared):
    return lambda *overrides: compose("data=squad", *sizes, *SMALL, *prepared(), *RECIPE, *overrides)


@pytest.fixture(scope="module")
def whole_run(configure, tmp_path_factory):
    """The run that was never killed."""
    run = tmp_path_factory.mktemp("whole")
    train(configure(), run)
    return run


def answers_of(run, part):
    return pq.read_table(run / f"predictions/{part}.parquet").to_pylist()


def history_of(run):
    epochs = json.loads((run / "training_history.json").read_text())
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]


def environment_of(run):
    return json.loads((run / "environment.json").read_text())


def rescored(rows, version="1.1"):
    return summarise(
        score_answers(
            {row["id"]: row["prediction"] for row in rows}, {row["id"]: row["references"] for row in rows}, version
        )
    )


# --- files -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_these_files(whole_run):
    found = {str(path.relative_to(whole_run)) for path in whole_run.rglob("*") if path.is_file()}
    assert found >= {
        "data/account.csv",
        "data/audit.json",
        "data/baselines.json",
        "data/splits.parquet",
        "predictions/baselines_test.parquet",
        "predictions/test.parquet",
        "predictions/val.parquet",
        "model/config.json",
        "model/doctune.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "environment.json",
        "metrics.csv",
        "training_history.json",
        "status.json",
        "report/report.json",
        "report/summary.txt",
    }
    assert {path.name for path in (whole_run / "predictions").iterdir()} == {
        "baselines_test.parquet", "test.parquet", "val.parquet",
    }  # fmt: skip
    assert {path.name for path in (whole_run / "data").iterdir()} == {
        "account.csv", "audit.json", "baselines.json", "splits.parquet",
    }  # fmt: skip
    assert json.loads((whole_run / "status.json").read_text())["phase"] == "finished"


@pytest.mark.parametrize("part", ["val", "test"])
def test_every_question_of_a_part_is_answered_once_in_order(whole_run, part):
    assert pq.read_schema(whole_run / f"predictions/{part}.parquet").names == COLUMNS
    rows = answers_of(whole_run, part)
    splits = pq.read_table(whole_run / "data/splits.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in splits if row["part"] == part]
    for row in rows:
        assert row["context"][row["start"] : row["end"]] == row["prediction"] == row["n_best"][0]["text"]
        assert row["score"] == row["n_best"][0]["score"]
        assert row["windows"] in (2, 3)


def test_articles_stay_whole(whole_run):
    splits = pq.read_table(whole_run / "data/splits.parquet").to_pylist()
    assert len(splits) == 144
    assert len({(row["label"], row["part"]) for row in splits}) == 12


def test_the_model_has_learnt_to_read(whole_run):
    baselines = json.loads((whole_run / "data/baselines.json").read_text())
    assert [*baselines] == ["lexical", "untrained"]
    assert rescored(answers_of(whole_run, "val")).f1 > baselines["lexical"]["val"]["f1"] + 0.2
    assert rescored(answers_of(whole_run, "val")).f1 > baselines["untrained"]["val"]["f1"] + 0.2


def test_the_baselines_answers_are_kept_beside_the_runs(whole_run):
    rows = pq.read_table(whole_run / "predictions/baselines_test.parquet").to_pydict()
    judged = answers_of(whole_run, "test")
    assert [*rows] == ["id", "lexical", "untrained"]
    assert rows["id"] == [row["id"] for row in judged]
    baselines = json.loads((whole_run / "data/baselines.json").read_text())
    for name in ("lexical", "untrained"):
        again = rescored([row | {"prediction": said} for row, said in zip(judged, rows[name], strict=True)])
        assert baselines[name]["test"]["f1"] == again.f1


def test_the_record_says_what_was_read(whole_run):
    facts = environment_of(whole_run)
    assert (facts["task"], facts["version"], facts["no_answer_threshold"]) == ("question_answering", "1.1", None)
    windows = {int(count): questions for count, questions in facts["length_analysis"]["windows_per_question"].items()}
    assert sum(windows.values()) == 96
    assert sum(count * questions for count, questions in windows.items()) == facts["windows"]["train"] > 96
    assert facts["length_analysis"]["cut_questions"] == 0


# --- scores ------------------------------------------------------------------------------------------------------


def test_the_live_score_of_the_best_epoch_is_that_of_its_predictions(whole_run):
    best = history_of(whole_run)[environment_of(whole_run)["best_epoch"] - 1]
    rows = answers_of(whole_run, "val")
    scores = rescored(rows)
    assert best["val_f1"] == pytest.approx(scores.f1, abs=1e-6)
    assert best["val_exact_match"] == pytest.approx(scores.exact_match, abs=1e-6)
    assert environment_of(whole_run)["best_score"] == pytest.approx(scores.f1, abs=1e-6)
    assert sum(row["f1"] for row in rows) / len(rows) == pytest.approx(scores.f1, abs=1e-6)


def test_the_report_has_the_scores_of_the_predictions(whole_run):
    report = json.loads((whole_run / "report/report.json").read_text())
    scores = rescored(answers_of(whole_run, "test"))
    assert report["test"]["f1"] == pytest.approx(scores.f1)
    assert report["test"]["exact_match"] == pytest.approx(scores.exact_match)


def best_span_of(folder, question, context, settings):
    """The best span by transformers alone: (score, answer)."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForQuestionAnswering.from_pretrained(folder)
    windows = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=settings.windows.max_length,
        stride=settings.windows.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        output = model(input_ids=windows["input_ids"], attention_mask=windows["attention_mask"])
    spans = []
    for row, offsets in enumerate(windows["offset_mapping"].tolist()):
        inside = [token for token, sequence in enumerate(windows.sequence_ids(row)) if sequence == 1]
        spans += [
            ((output.start_logits[row, i] + output.end_logits[row, j]).item(), context[offsets[i][0] : offsets[j][1]])
            for i in inside
            for j in inside
            if 0 <= j - i < settings.spans.max_answer_length
        ]
    return max(spans)


def test_the_model_gives_transformers_the_answers_of_the_run(whole_run):
    settings = load_artifact(whole_run).reading
    for row in answers_of(whole_run, "test")[::6]:
        score, answer = best_span_of(whole_run / "model", row["question"], row["context"], settings)
        assert score == pytest.approx(row["score"], abs=1e-4)
        assert answer == row["prediction"]


# --- killed ------------------------------------------------------------------------------------------------------


class Kill(Callback):
    """Ends the process, without a last word, at the n-th time that a hook is called."""

    def __init__(self, hook, count):
        self.left = count
        setattr(self, hook, self.strike)

    def strike(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(monkeypatch, config, run, hook, count):
    """Train in a forked process until the hook is called for the n-th time."""
    stock = build.stock_callbacks
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(build, "stock_callbacks", lambda config: [*stock(config), Kill(hook, count)])
            train(config, run)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize(
    ("hook", "count", "overrides"),
    [
        pytest.param("on_train_batch_end", 71, ["callbacks.checkpoint.every_minutes=1e-9"], id="inside a window"),
        pytest.param("on_train_batch_end", 71, ["data.num_workers=2"], id="long after a checkpoint, with workers"),
        pytest.param("on_train_batch_end", 5, [], id="before there is a checkpoint"),
        pytest.param("on_validation_batch_end", 20, [], id="during validation"),
        pytest.param("on_test_batch_end", 3, [], id="during the final test"),
    ],
)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(
    hook, count, overrides, configure, whole_run, monkeypatch, tmp_path
):
    config = configure(*overrides)
    killed(monkeypatch, config, tmp_path, hook, count)
    train(config, tmp_path)
    ours, theirs = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (tmp_path, whole_run))
    assert ours["global_step"] == theirs["global_step"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    assert history_of(tmp_path) == history_of(whole_run)
    for part in ("val", "test"):
        assert answers_of(tmp_path, part) == answers_of(whole_run, part)
    for file in ("data/baselines.json", "metrics.csv", "model/doctune.json"):
        assert (tmp_path / file).read_text() == (whole_run / file).read_text()
    assert not [*tmp_path.rglob("*.part")]


# --- other choices -----------------------------------------------------------------------------------------------


@pytest.fixture
def configure_pretrained(compose, sizes, prepared, tiny_encoder):
    """A function: overrides -> a short run of a pretrained encoder of two layers."""
    without_sizes = [each for each in sizes if not each.startswith("model.")]
    encoder = ("model=distilbert", f"model.path={tiny_encoder('distilbert')}")
    # Its vocabulary is of other texts: words are several tokens.
    small = (*SMALL, "data.max_length=48", "data.max_question_length=20", "trainer.max_epochs=2", "optim.lr=4e-3")
    return lambda *given: compose("data=squad", *encoder, *without_sizes, *small, *prepared(), *given)


def changed_parts(run, encoder):
    """Which parts of the encoder, and whether the head, are other than at the start."""
    before = load_file(encoder / "model.safetensors")
    after = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    changed = set()
    for name, weight in before.items():
        name = name.removeprefix("distilbert.")
        if not torch.equal(after[f"net.distilbert.{name}"], weight):
            changed.add(name.split(".")[0] if name.startswith("embeddings") else ".".join(name.split(".")[1:3]))
    return changed


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("head", set()), ("gradual", {"layer.1"}), ("full", {"embeddings", "layer.0", "layer.1"})],
)
def test_what_is_frozen_stays_as_it_was(strategy, expected, configure_pretrained, tiny_encoder, tmp_path):
    train(configure_pretrained(f"finetune={strategy}"), tmp_path)
    assert changed_parts(tmp_path, tiny_encoder("distilbert")) == expected
    losses = [epoch["train_loss"] for epoch in history_of(tmp_path)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert load_artifact(tmp_path).task == "question_answering"


def test_a_reader_learns_through_adapters(configure_pretrained, tmp_path):
    train(configure_pretrained("finetune=lora"), tmp_path)
    assert [path.name for path in (tmp_path / "model").glob("*.safetensors")] == ["adapter_model.safetensors"]
    losses = [epoch["train_loss"] for epoch in history_of(tmp_path)]
    assert losses[1] < losses[0]
    assert load_engine(tmp_path).ask("Who?", "Maria Keller lives in Paris.")[0].text


@pytest.fixture(scope="module")
def run_of_v2(compose, sizes, prepared, tmp_path_factory):
    run = tmp_path_factory.mktemp("v2")
    train(compose("data=squad", *sizes, *SMALL, *prepared("2.0"), *RECIPE, "trainer.max_epochs=3"), run)
    return run


def test_impossible_questions_bring_a_threshold(run_of_v2):
    threshold = environment_of(run_of_v2)["no_answer_threshold"]
    assert isinstance(threshold, float)
    assert load_artifact(run_of_v2).reading.no_answer_threshold == threshold
    assert environment_of(run_of_v2)["version"] == "2.0"
    for part in ("val", "test"):
        rows = answers_of(run_of_v2, part)
        assert any(row["references"] == [] for row in rows)
        for row in rows:
            difference = row["null_score"] - row["n_best"][0]["score"]
            assert (row["prediction"] == "") == (row["start"] is None)
            if abs(difference - threshold) > 1e-5:
                assert (row["prediction"] == "") == (difference > threshold)


def test_silence_is_a_baseline_and_the_threshold_is_no_worse_than_it(run_of_v2):
    baselines = json.loads((run_of_v2 / "data/baselines.json").read_text())
    assert [*baselines] == ["lexical", "no_answer", "untrained"]
    rows = answers_of(run_of_v2, "val")
    assert baselines["no_answer"]["val"]["f1"] == sum(row["references"] == [] for row in rows) / len(rows)
    assert rescored(rows, "2.0").f1 >= baselines["no_answer"]["val"]["f1"]
    # The live score has a threshold of 0, the one that was chosen is at least as good.
    best = history_of(run_of_v2)[environment_of(run_of_v2)["best_epoch"] - 1]
    assert rescored(rows, "2.0").f1 >= best["val_f1"] - 1e-6


def test_folds_are_of_whole_articles(configure, tmp_path):
    run = tmp_path / "run"
    train(configure("split=kfold", "split.folds=3", "split.fold=0", "trainer.max_epochs=1"), run)
    rows = pq.read_table(run / "data/splits.parquet").to_pylist()
    assert {row["label"] for row in rows} == {f"House {number}" for number in range(12)}
    assert len({(row["label"], row["part"], row["fold"]) for row in rows}) == 12
    assert {row["fold"] for row in rows if row["part"] == "test"} == {0}
    assert {row["fold"] for row in rows if row["part"] != "test"} == {1, 2}
    assert len([row for row in rows if row["part"] == "test"]) == 48
    assert [row["id"] for row in answers_of(run, "test")] == [row["id"] for row in rows if row["part"] == "test"]


# --- mistakes ----------------------------------------------------------------------------------------------------


def status_and_words_of(folder, overrides):
    """The exit status of `doctune train` and all that it says, from a forked process: another would import for long."""
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            sys.stdout = sys.stderr = (folder / "said.txt").open("w", encoding="utf-8")
            status = main("train", overrides)
            sys.stdout.flush()
            os._exit(status)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), (folder / "said.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON: line 1, column 2: Expecting property name enclosed in double quotes."),
        ('{"rows": []}', 'is not a SQuAD file: it has no list "data" of articles at its top.'),
        ('{"data": []}', "has no questions."),
        (None, "There is no file and no folder"),
    ],
)
def test_a_bad_file_is_answered_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "train.json"
    if content is not None:
        path.write_text(content)
    status, said = status_and_words_of(tmp_path, ["data=squad", f"data.path={path}", "model=distilbert_mini"])
    assert status == 2
    assert sentence in said
    assert "Traceback" not in said
    (status_file,) = tmp_path.glob("outputs/*/*/status.json")
    assert json.loads(status_file.read_text())["phase"] == "refused"
