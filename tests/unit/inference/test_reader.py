"""The reader answers like brute force, wherever the answer stands, and says exactly where that is."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.decode.answers import SpanSettings, WindowSpans
from doctune.documents import Document
from doctune.errors import ArtifactError
from doctune.inference import reader as module
from doctune.inference.artifact import Artifact, ReadingSettings, load_artifact
from doctune.inference.engine import load
from doctune.inference.reader import cut
from doctune.labels import Labels
from doctune.text.extract import ExtractSettings
from doctune.text.questions import WindowSettings

FILLER = "The weather was fine that day. "
QUESTION = "Who did it?"
RANDOM_TEXT = "Take two eggs and sugar.\n\n2026-01-03;invoice 13;9.00;EUR\ndef compute(value): return value * 3\n" * 4
WINDOWS = WindowSettings(max_length=48, doc_stride=12, max_question_length=16)
SPANS = SpanSettings(max_answer_length=6, n_best=5)


def document(text, path=""):
    return Document(path, "ok", "", "text", text)


@pytest.fixture(params=["distilbert", "bert", "roberta"])
def random_reader(request, tiny_encoder, tmp_path):
    """A reader with random weights; the BERT one is trained with token types, as stock BERT tokenizers say."""
    import torch
    import transformers as hf

    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder(request.param), folder)
    if request.param == "bert":
        path = folder / "tokenizer_config.json"
        names = ["input_ids", "token_type_ids", "attention_mask"]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": names}))
    torch.manual_seed(1)
    net = hf.AutoModelForQuestionAnswering.from_pretrained(folder)
    with torch.no_grad():  # so that no two spans are nearly as good as each other, and token types count
        net.qa_outputs.weight.mul_(30)
        if request.param == "bert":
            net.bert.embeddings.token_type_embeddings.weight.mul_(50)
    net.save_pretrained(folder)
    Artifact(
        folder, "question_answering", Labels(()), 48, ExtractSettings(), ReadingSettings(WINDOWS, SPANS, None)
    ).save()
    return folder


def brute_force(folder, question, text):
    """All spans by falling score, the best five of every window, with transformers alone, one window at a time."""
    import torch
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    net = hf.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    windows = tokenizer(
        question, text, truncation="only_second", max_length=48, stride=12, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    scores = {}
    for number, places in enumerate(windows["offset_mapping"]):
        inputs = {name: torch.tensor([windows[name][number]]) for name in tokenizer.model_input_names}
        with torch.inference_mode():
            output = net(**inputs)
        inside = [at for at, sequence in enumerate(windows.sequence_ids(number)) if sequence == 1]
        found = sorted(
            (
                (float(output.start_logits[0, first] + output.end_logits[0, last]), places[first][0], places[last][1])
                for first in inside
                for last in inside
                if first <= last < first + SPANS.max_answer_length
            ),
            reverse=True,
        )
        for score, start, end in found[: SPANS.n_best]:
            if text[start:end].strip():
                scores[start, end] = max(score, scores.get((start, end), -1e9))
    probabilities = torch.tensor([*scores.values()]).softmax(0).tolist()
    ranked = sorted(zip(scores, probabilities, strict=True), key=lambda each: (-each[1], each[0]))
    return [(start, end, probability) for (start, end), probability in ranked]


def test_answers_are_those_of_brute_force(random_reader):
    reader = load(random_reader)
    found = reader.ask("Which value?", RANDOM_TEXT, n_best=4)
    expected = brute_force(random_reader, "Which value?", RANDOM_TEXT)[:4]
    assert [(answer.start, answer.end) for answer in found] == [(start, end) for start, end, _ in expected]
    assert [answer.score for answer in found] == pytest.approx([score for *_, score in expected], abs=1e-4)
    assert [answer.text for answer in found] == [RANDOM_TEXT[answer.start : answer.end] for answer in found]
    assert len([*reader._reader.windows("Which value?", RANDOM_TEXT)]) > 3


def test_how_many_windows_are_read_at_once_changes_nothing(random_reader):
    found = [load(random_reader, batch_size=size).ask("Which value?", RANDOM_TEXT, n_best=5) for size in (1, 3, 100)]
    for other in found[1:]:
        assert [(each.start, each.end) for each in other] == [(each.start, each.end) for each in found[0]]
        assert [each.score for each in other] == pytest.approx([each.score for each in found[0]], abs=1e-4)


def test_an_answer_comes_with_its_place_and_its_sentence(known_reader):
    text = f"{FILLER}It was Maria Keller, they say. {FILLER}"
    (answer,) = load(known_reader).ask(QUESTION, text)
    assert (answer.text, text[answer.start : answer.end]) == ("Maria Keller", "Maria Keller")
    assert answer.sentence == "It was Maria Keller, they say."
    assert text[answer.sentence_start :].startswith(answer.sentence)
    assert 0.9 < answer.score <= 1
    assert (answer.path, answer.page) == ("", None)


@pytest.mark.parametrize("before", [0, 1, 5, 40])
def test_the_answer_is_found_in_whichever_window_it_stands(known_reader, before):
    text = FILLER * before + "Then Maria Keller came. " + FILLER * (40 - before) + "Lyon."
    found = load(known_reader).ask(QUESTION, text, n_best=2)
    assert (found[0].text, found[0].start) == ("Maria Keller", len(FILLER) * before + 5)


def test_a_text_without_words_has_no_answer(known_reader, doubting_reader):
    for run in (known_reader, doubting_reader):
        assert load(run).ask(QUESTION, "") == []
        assert load(run).ask(QUESTION, " \n ") == []


def test_a_text_that_is_cut_has_the_answers_of_one_that_is_not(known_reader, monkeypatch):
    """Wherever the answer stands, at a border too."""
    reader = load(known_reader)
    texts = [f"{'x ' * before}Maria Keller {'y ' * (300 - before)}" for before in range(0, 300, 9)]
    whole = [reader.ask(QUESTION, text)[0] for text in texts]
    monkeypatch.setattr(module, "PIECE_CHARS", 100)
    assert len([*cut(texts[0], 400)]) > 1
    pieces = [reader.ask(QUESTION, text)[0] for text in texts]
    assert [(each.text, each.start) for each in pieces] == [(each.text, each.start) for each in whole]
    assert {each.text for each in whole} == {"Maria Keller"}


def test_a_text_that_fits_is_one_piece():
    text = "word " * (module.PIECE_CHARS // 5)
    assert [*cut(text, 100)] == [(0, text)]


@settings(deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=120), st.integers(5, 40))
def test_every_span_as_long_as_the_overlap_is_whole_in_a_piece(words, overlap):
    text = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_CHARS", 30)
        patch.setattr(module, "_MAX_WORD_CHARS", 10)
        pieces = [*cut(text, overlap)]
    assert all(text[start : start + len(piece)] == piece for start, piece in pieces)
    assert all(len(piece) <= 30 + overlap for _, piece in pieces)
    for start in range(len(text)):
        end = min(len(text), start + overlap)
        assert any(at <= start and end <= at + len(piece) for at, piece in pieces)
    assert all(text[start].isspace() for start, _ in pieces[1:])


def test_a_word_without_end_is_cut_somewhere():
    assert sum(len(piece) for _, piece in cut("x" * 250_000, 1000)) == 250_000 + 2 * 1000


def test_documents_compete_by_the_scores_of_their_spans(known_reader):
    documents = [document(f"We met in {word}. {FILLER}", word) for word in ("Lyon", "Paris", "Maria Keller", "Rome")]
    reader = load(known_reader)
    found = reader.answer_all([QUESTION], documents, n_best=3)[0]
    assert [each.path for each in found[:1]] == ["Maria Keller"]
    both = reader.answer_all([QUESTION], [documents[1], documents[0]], n_best=9)[0]
    assert (both[0].text, both[0].path, both[0].start) == ("Paris", "Paris", 10)
    assert next(each for each in both if each.text == "Lyon").path == "Lyon"
    alone = [reader.ask(QUESTION, each.text, n_best=9)[0].score for each in documents[:2]]
    assert both[0].score < alone[1]
    assert sum(each.score for each in reader.answer_all([QUESTION], documents, n_best=999)[0]) == pytest.approx(1)


def test_equal_places_in_two_documents_are_two_candidates(known_reader):
    found = load(known_reader).answer_all([QUESTION], [document("Paris", "a"), document("Paris", "b")], 9)[0]
    assert [(each.path, each.score) for each in found] == [("a", 0.5), ("b", 0.5)]


def test_documents_are_read_once_for_all_questions(known_reader):
    documents = iter([document("In Paris."), document("With Maria Keller.")])
    found = load(known_reader).answer_all(["Who?", "Where?"], documents)
    assert [each[0].text for each in found] == ["Maria Keller", "Maria Keller"]


def test_an_answer_has_the_page_on_which_it_begins(known_reader):
    pages = [FILLER, "It was Maria Keller. ", FILLER]
    text = "".join(pages)
    paged = Document("a.pdf", "ok", "", "pdf", text, (0, len(pages[0]), len(pages[0] + pages[1])))
    assert load(known_reader).answer_all([QUESTION], [paged])[0][0].page == 2


def test_a_reader_that_may_be_silent_is_where_that_is_likelier(doubting_reader, known_reader):
    doubting = load(doubting_reader)
    assert [each.text for each in doubting.ask(QUESTION, "We met in Paris.")] == ["Paris"]
    assert doubting.ask(QUESTION, "We met in Lyon.") == []
    assert [each.text for each in load(known_reader).ask(QUESTION, "We met in Lyon.")] == ["Lyon"]


def test_silence_is_decided_to_the_last_digit():
    null, best = np.float32(0.1), np.float32(0.3)
    search = module._Search(n_best=1)
    spans = WindowSpans(np.array([[best]]), np.array([[0]]), np.array([[5]]), np.array([null]))
    search.add(document("Paris"), spans)
    difference = float(null) - float(best)
    assert [answer.text for answer in search.answers(difference, None)] == ["Paris"]
    assert search.answers(float(np.nextafter(difference, -np.inf)), None) == []


def test_a_threshold_of_probability_takes_the_place_of_the_one_of_training(doubting_reader, known_reader):
    doubting = load(doubting_reader)
    (given_anyway,) = doubting.ask(QUESTION, "We met in Lyon.", threshold=0.0)
    assert given_anyway.text == "Lyon"
    assert given_anyway.score < 0.5  # that there is none is likelier
    assert doubting.ask(QUESTION, "We met in Lyon.", threshold=given_anyway.score + 0.01) == []
    assert load(known_reader).ask(QUESTION, "Paris or Paris or Paris", threshold=0.5) == []


def test_a_classifier_cannot_be_asked_and_a_reader_predicts_no_labels(known_reader, tiny_model):
    with pytest.raises(ArtifactError, match=r"was trained for classification; questions need a reader, which a run"):
        load(tiny_model()).ask(QUESTION, "text")
    with pytest.raises(ArtifactError, match=r"was trained for question_answering; labels need a classifier, which a"):
        next(load(known_reader).predict(["text"]))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tokenizer.json", r"tokenizer\.json cannot be loaded"),
        ("model.safetensors", r"The model in .* cannot be loaded"),
        ("config.json", r"The model in .* cannot be loaded"),
    ],
)
def test_a_folder_that_lacks_a_part_is_named(known_reader, tmp_path, name, sentence):
    folder = tmp_path / "model"
    shutil.copytree(known_reader / "model", folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=sentence):
        load(folder)


def test_context_first_windows_are_padded_on_the_left(known_reader):
    import numpy as np

    artifact = load_artifact(known_reader)
    engine = load(known_reader)
    reader = engine._reader
    reader._reading = ReadingSettings(WindowSettings(32, 8, 8, question_first=False), artifact.reading.spans)
    rows = [np.array([1, 2, 3]), np.array([4])]
    assert reader._padded(rows, 0).tolist() == [[1, 2, 3], [0, 0, 4]]
    text = FILLER * 3 + "Maria Keller. " + FILLER
    assert engine.ask(QUESTION, text)[0].text == "Maria Keller"
