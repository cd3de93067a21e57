import itertools
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

from doctune.corpus.squad import Question
from doctune.decode.answers import SpanSettings, WindowSpans, joined, merge_spans
from doctune.nets.assemble import reader
from doctune.nets.encoder import pretrained_config
from doctune.scoring.squad import score_answers, summarise
from doctune.training.callbacks.answers import AnswerWriter
from doctune.training.data.squad import QuestionsOfBatch
from doctune.training.modules.question_answering import AnswerScores, QuestionAnsweringModule
from doctune.training.optim import Optimisation

PLAN = Optimisation(1e-3, 2.0, 0.01, "linear", warmup_steps=2, total_steps=10)
CONTEXT = "one two three four five six"
PLACES = [(0, 3), (4, 7), (8, 13), (14, 18), (19, 23), (24, 27)]


def ask(name, *answers):
    return Question(name, "an article", CONTEXT, "which?", answers, None, not answers)


# --- the module --------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tiny_encoder):
    folder = str(tiny_encoder("bert"))
    torch.manual_seed(0)
    net = reader(pretrained_config(folder), folder)
    made = QuestionAnsweringModule(
        net, PLAN, num_questions=(8, 8), version="1.1", spans=SpanSettings(max_answer_length=4), label_smoothing=0.1
    )
    made.log = made.log_dict = lambda *_, **__: None
    return made


def batch(size, scale):
    """Windows of a question of two tokens and a context of six, and their answers; the last token is padding."""
    torch.manual_seed(1)
    mask = torch.ones(size, 11, dtype=torch.long)
    mask[:, -1] = 0
    places = torch.full((size, 11, 2), -1)
    places[:, 3:9] = torch.tensor(PLACES)
    starts = 3 + torch.arange(size) % 5
    return {
        "input_ids": torch.randint(5, 60, (size, 11)),
        "token_type_ids": torch.zeros(size, 11, dtype=torch.long),
        "attention_mask": mask,
        "context": places[:, :, 0] >= 0,
        "places": places,
        "starts": starts.masked_fill(torch.arange(size) == 5, 0),
        "ends": (starts + 1).masked_fill(torch.arange(size) == 5, 0),
        "cls": torch.zeros(size, dtype=torch.long),
        "question": torch.arange(size),
        "index": torch.arange(size),
        "questions": QuestionsOfBatch([ask(str(number), "two three") for number in range(size)]),
        "scale": scale,
    }


def part(whole, rows, scale):
    cut = {key: value[rows] for key, value in whole.items() if isinstance(value, torch.Tensor)}
    return cut | {"questions": QuestionsOfBatch([*whole["questions"]][rows]), "scale": scale}


def cut(value, length):
    """A column of a batch whose longest window has so many tokens."""
    return value[:, :length] if isinstance(value, torch.Tensor) and value.dim() > 1 else value


def expected_losses(module, whole, label_smoothing=0.0):
    """PyTorch's own loss over the first token and the context, (B,)."""
    output = module.net(**{name: whole[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    allowed = [0, *range(3, 9)]
    losses = [
        F.cross_entropy(
            logits[:, allowed],
            torch.tensor([allowed.index(target) for target in targets.tolist()]),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        for logits, targets in ((output.start_logits, whole["starts"]), (output.end_logits, whole["ends"]))
    ]
    return (losses[0] + losses[1]) / 2


def gradients(module, batches, accumulation):
    """What an optimiser step would see: Lightning divides each loss by the accumulation."""
    module.zero_grad()
    for micro in batches:
        (module.training_step(micro, 0)["loss"] / accumulation).backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.net.parameters() if parameter.grad is not None])


def test_four_micro_batches_of_two_equal_one_batch_of_eight(module):
    module.net.eval()  # dropout would draw differently
    whole = batch(8, scale=1 / 8)
    parts = [part(whole, slice(start, start + 2), 4 / 8) for start in (0, 2, 4, 6)]
    once, accumulated = gradients(module, [whole], 1), gradients(module, parts, 4)
    assert torch.allclose(once, accumulated, atol=1e-6)
    assert once.abs().max() > 0


def test_the_training_loss_is_smoothed_and_divided_by_the_windows(module):
    module.net.eval()
    whole = batch(8, scale=1 / 8)
    step = module.training_step(whole, 0)
    smoothed, plain = expected_losses(module, whole, 0.1), expected_losses(module, whole)
    assert step["loss"].item() == pytest.approx(smoothed.mean().item(), rel=1e-5)
    assert step["objective"].item() == pytest.approx(smoothed.sum().item(), rel=1e-5)
    assert step["cross_entropy"].item() == pytest.approx(plain.sum().item(), rel=1e-5)


def test_the_validation_loss_is_plain_and_passes_over_unknown_answers(module):
    module.net.eval()
    whole = batch(8, 1.0)
    plain = expected_losses(module, whole)
    whole["starts"][2] = whole["ends"][2] = -100
    for rows in (slice(0, 3), slice(3, 8)):
        module.validation_step(part(whole, rows, 1.0), 0)
    known = [loss for number, loss in enumerate(plain.tolist()) if number != 2]
    assert module.val_loss.compute().item() == pytest.approx(sum(known) / 7, rel=1e-5)


def test_a_batch_of_unknown_answers_only_changes_no_loss(module):
    module.net.eval()
    whole = batch(4, 1.0)
    whole["starts"][:] = whole["ends"][:] = -100
    module.validation_step(whole, 0)
    module.on_validation_epoch_end()
    assert module.found[0].owners.tolist() == [0, 1, 2, 3]
    assert module.val_loss.weight == 0


def test_the_spans_of_a_window_are_characters_of_its_context(module):
    module.net.eval()
    whole = batch(3, 1.0)
    output = module.net(**{name: whole[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    start, end = output.start_logits, output.end_logits
    module.validation_step(whole, 0)
    module.on_validation_epoch_end()
    ((spans, owners),) = module.found
    assert (spans.scores.shape, owners.tolist()) == ((3, 5), [0, 1, 2])
    for row in range(3):
        tokens = max(
            ((i, j) for i, j in itertools.product(range(3, 9), repeat=2) if 0 <= j - i < 4),
            key=lambda pair: start[row, pair[0]] + end[row, pair[1]],
        )
        found = (spans.starts[row, 0], spans.ends[row, 0])
        assert found == (PLACES[tokens[0] - 3][0], PLACES[tokens[1] - 3][1])
        assert spans.scores[row, 0] == pytest.approx((start[row, tokens[0]] + end[row, tokens[1]]).item(), rel=1e-5)
        assert spans.null_scores[row] == pytest.approx((start[row, 0] + end[row, 0]).item(), rel=1e-5)


def test_an_epoch_logs_losses_gap_and_scores(module):
    module.net.eval()
    logged = {}
    module.log_dict = lambda values, **__: logged.update(values)
    whole = batch(8, 1.0)
    module.validation_step(part(whole, slice(0, 3), 1.0), 0, dataloader_idx=1)
    module.validation_step(whole, 0, 0)
    module.on_validation_epoch_end()
    ((spans, _),) = module.found
    losses = expected_losses(module, whole)
    assert logged["train_eval/loss"].item() == pytest.approx(losses[:3].mean().item(), rel=1e-5)
    assert logged["gap"].item() == pytest.approx((losses.mean() - losses[:3].mean()).item(), abs=1e-5)
    places = zip(spans.starts[:, 0], spans.ends[:, 0], strict=True)
    answers = {str(number): CONTEXT[start:end] for number, (start, end) in enumerate(places)}
    scores = summarise(score_answers(answers, dict.fromkeys(answers, ("two three",))))
    assert logged["val/f1"].item() == pytest.approx(scores.f1, abs=1e-6)
    assert logged["val/exact_match"].item() == pytest.approx(scores.exact_match, abs=1e-6)


def test_a_test_logs_its_own_scores(module):
    module.net.eval()
    logged = {}
    module.log_dict = lambda values, **__: logged.update(values)
    module.test_step(batch(8, 1.0), 0)
    module.on_test_epoch_end()
    assert sorted(logged) == ["test/exact_match", "test/f1"]
    assert [owners.tolist() for _, owners in module.found] == [[*range(8)]]
    module.on_test_epoch_start()
    assert module.found == []
    assert module.test_metrics.kept[:, 0].tolist() == [-torch.inf] * 8
    assert module.val_metrics.kept[:, 0].tolist() == [-torch.inf] * 8


def test_a_validation_that_was_cut_short_leaves_nothing_behind(module):
    module.validation_step(batch(8, 1.0), 0, 0)
    module.on_validation_epoch_start()
    module.on_validation_epoch_end()
    assert module.found == []
    assert module.val_metrics.kept[:, 0].tolist() == [-torch.inf] * 8
    assert module.val_loss.weight == 0


def test_how_many_windows_are_searched_at_once_changes_nothing(module, monkeypatch, tmp_path):
    module.net.eval()
    parts = [part(batch(8, 1.0), slice(first, first + 2), 1.0) for first in (0, 2, 4, 6)]
    parts[1] = {name: cut(value, 9) for name, value in parts[1].items()}
    written = []
    for at_once in (1, 3, 256):
        monkeypatch.setattr("doctune.training.modules.question_answering._WINDOWS_AT_ONCE", at_once)
        module.on_test_epoch_start()
        for number, micro in enumerate(parts):
            module.test_step(micro, number)
        module.on_test_epoch_end()
        questions = [*batch(8, 1.0)["questions"]]
        AnswerWriter(tmp_path, {"test": questions}, "1.1", remember=print).on_test_end(None, module)
        written.append((len(module.found), pq.read_table(tmp_path / "test.parquet").to_pylist()))
    assert [count for count, _ in written] == [4, 2, 1]
    assert written[0][1] == written[1][1] == written[2][1]
    assert [row["windows"] for row in written[0][1]] == [1] * 8


def test_windows_are_searched_when_many_wait(module):
    module.net.eval()
    whole = batch(8, 1.0)
    for count in range(1, 33):
        module.validation_step(whole, 0, 0)
        assert len(module.found) == (count == 32)
    ((spans, owners),) = module.found
    assert (spans.scores.shape, owners.tolist()) == ((256, 5), [*range(8)] * 32)
    assert np.isfinite(module.val_metrics.kept[:, 0]).all()


def test_dropout_is_on_while_training(module):
    whole = batch(4, 1.0)
    first, second = (module(whole)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_encoders_read_token_types_where_a_batch_has_them(module):
    module.net.eval()
    whole = batch(4, 1.0)
    other = whole | {"token_type_ids": torch.ones_like(whole["token_type_ids"])}
    without = {name: value for name, value in whole.items() if name != "token_type_ids"}
    assert not torch.allclose(module(whole)[0], module(other)[0])
    assert torch.equal(module(whole)[0], module(without)[0])  # type 0 is what BERT takes for none


def test_hyperparameters_are_plain(module, tmp_path):
    torch.save(dict(module.hparams), tmp_path / "h.pt")
    loaded = torch.load(tmp_path / "h.pt", weights_only=True)
    assert loaded["spans"] == {"max_answer_length": 4, "n_best": 5}
    assert (loaded["version"], loaded["label_smoothing"], loaded["optimisation"]["total_steps"]) == ("1.1", 0.1, 10)


# --- scores ------------------------------------------------------------------------------------------------------


def make_windows(is_v2, is_tied=False, seed=0):
    """Twenty questions and (place, window) of one to four windows of each; some windows have no span."""
    rng = np.random.default_rng(seed)
    questions, windows = [], []
    for place in range(20):
        impossible = is_v2 and place % 3 == 0
        questions.append(ask(str(place), *(() if impossible else ("two three", "six"))))
        for _ in range(rng.integers(1, 5)):
            pairs = rng.choice(15, size=3, replace=False)  # of the spans of six words
            spans = [(i, j) for i in range(6) for j in range(i, min(i + 3, 6))]
            scores = rng.integers(0, 3, 3) if is_tied else rng.normal(size=3) * 3
            scores = np.where(rng.random(3) < 0.2, -np.inf, scores).astype(np.float32)
            windows.append(
                (
                    place,
                    WindowSpans(
                        np.sort(scores)[None, ::-1],
                        np.array([[PLACES[spans[pair][0]][0] for pair in pairs]]),
                        np.array([[PLACES[spans[pair][1]][1] for pair in pairs]]),
                        np.array([rng.normal() * 2 + 2], np.float32),
                    ),
                )
            )
    return questions, windows


def update(metric, windows, questions, size):
    for first in range(0, len(windows), size):
        rows = windows[first : first + size]
        places = [place for place, _ in rows]
        asked = QuestionsOfBatch(questions[place] for place in places)
        metric.update(joined([spans for _, spans in rows]), np.array(places), asked)


def expected_scores(questions, windows, version):
    """Merged answers, judged by the official rules; without a threshold of its own, no answer needs a higher score."""
    answers = {}
    for place, question in enumerate(questions):
        mine = joined([spans for each, spans in windows if each == place])
        best = merge_spans(mine, 1)
        is_given = best and (version == "1.1" or mine.null_scores.min() <= best[0].score)
        answers[question.id] = CONTEXT[best[0].start : best[0].end] if is_given else ""
    return summarise(score_answers(answers, {each.id: each.answers for each in questions}, version))


def close(found, scores):
    return {name: value.item() for name, value in found.items()} == pytest.approx(
        {"exact_match": scores.exact_match, "f1": scores.f1}, abs=1e-6
    )


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_scores_are_those_of_merged_answers_whatever_the_order_and_the_batches(version, is_tied, size):
    questions, windows = make_windows(version == "2.0", is_tied)
    expected = expected_scores(questions, windows, version)
    assert 0 < expected.exact_match < expected.f1 < 1
    for seed in range(3):
        random.Random(seed).shuffle(windows)
        metric = AnswerScores(len(questions), version)
        update(metric, windows, questions, size)
        assert close(metric.compute(), expected)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_two_processes_score_as_one(version, is_tied):
    questions, windows = make_windows(version == "2.0", is_tied, seed=1)
    random.Random(0).shuffle(windows)
    ranks = [AnswerScores(len(questions), version) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        update(metric, windows[rank::2], questions, 3)
    first, _ = ranks
    for name in first._defaults:  # what torchmetrics gives `compute` after gathering
        setattr(first, name, torch.stack([getattr(metric, name) for metric in ranks]))
    assert close(first.compute(), expected_scores(questions, windows, version))


def span(score, begin, stop, null=0.0):
    return WindowSpans(np.array([[score]], np.float32), np.array([[begin]]), np.array([[stop]]), np.array([null]))


def scores_of(version, questions, *windows):
    metric = AnswerScores(len(questions), version)
    update(metric, windows, questions, 10)
    return {name: value.item() for name, value in metric.compute().items()}


def test_no_answer_is_given_where_its_lowest_score_is_above_the_best_span():
    questions = [ask("a", "one")]
    one, other = (0, span(2.0, 0, 3, null=5.0)), (0, span(-9.0, 4, 7, null=1.9))
    assert scores_of("2.0", questions, one) == {"exact_match": 0, "f1": 0}
    assert scores_of("2.0", questions, one, other) == {"exact_match": 1, "f1": 1}
    assert scores_of("2.0", questions, (0, span(2.0, 0, 3, null=2.0))) == {"exact_match": 1, "f1": 1}
    assert scores_of("1.1", questions, one) == {"exact_match": 1, "f1": 1}


def test_silence_is_right_for_impossible_questions():
    questions = [ask("a"), ask("b")]
    windows = [(0, span(1.0, 0, 3, null=2.0)), (1, span(3.0, 0, 3, null=2.0))]
    assert scores_of("2.0", questions, *windows) == {"exact_match": 0.5, "f1": 0.5}


def test_silence_is_right_where_the_answer_has_no_words_either():
    assert scores_of("2.0", [ask("a", "the")], (0, span(1.0, 0, 3, null=2.0))) == {"exact_match": 1, "f1": 1}


def test_a_question_without_a_span_or_a_window_counts_as_not_answered():
    questions = [ask("a", "one"), ask("b", "one"), ask("c", "one two")]
    windows = [(0, span(-np.inf, -1, -1)), (2, span(1.0, 0, 3))]
    found = scores_of("1.1", questions, *windows)
    assert found == {"exact_match": 0, "f1": pytest.approx(2 / 9)}


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_no_candidate(score):
    spans = [span(score, 4, 7), span(1.0, 0, 3)]
    assert scores_of("1.1", [ask("a", "one")], *((0, each) for each in spans)) == {"exact_match": 1, "f1": 1}


def test_of_equally_good_spans_the_first_in_the_context_counts():
    spans = [span(0.5, 0, 3), span(1.0, 8, 13), span(1.0, 4, 7)]
    assert scores_of("1.1", [ask("a", "two")], *((0, each) for each in spans)) == {"exact_match": 1, "f1": 1}


def test_memory_does_not_grow_with_windows():
    questions, windows = make_windows(is_v2=True)
    metric = AnswerScores(len(questions), "2.0")
    update(metric, windows, questions, 4)
    assert sum(getattr(metric, name).nbytes for name in metric._defaults) == 28 * len(questions)
