"""Explanations are of the label or answer that the model gives, add up, and point at the right characters."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import BertWordPieceTokenizer

from doctune.documents import Document
from doctune.inference.artifact import Artifact, load_artifact, load_tokenizer
from doctune.inference.engine import load
from doctune.inference.explainer import NO_ANSWER, Wanted, chunk_places, load_explainer
from doctune.labels import Labels
from doctune.nets.encoder import scratch_tokenizer
from doctune.nets.hierarchy import HierarchicalClassifier, HierarchySettings
from doctune.text.chunks import chunk
from doctune.text.extract import ExtractSettings

TEXT = (
    "Take two eggs and sugar.\n2026-01-03;invoice 13;9.00;EUR\ndef compute(value):\n    return value * 3\nNaïve 🙂 end."
)
KINDS = ["distilbert", "bert", "roberta"]
# What words add to "recipe" times the tokens of the text; the others add nothing.
WORTH = {"eggs": 2.0, "sug": 1.5, "##ar": -0.5, "invoice": -3.0}


def document(text=TEXT, reason=""):
    return Document("a.txt", "ok", reason, "text", text)


@pytest.fixture(params=KINDS)
def random_classifier(request, tiny_model):
    return load_artifact(tiny_model("classification", request.param))


def save_linear_classifier(folder):
    """A BERT that is linear in its word embeddings: attention is uniform, layer norms only center, tanh stays small."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", *WORTH]
    config = hf.BertConfig(
        vocab_size=len(names), hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=16, layer_norm_eps=1e12, num_labels=2,
    )  # fmt: skip
    net = hf.BertForSequenceClassification(config)
    layer = net.bert.encoder.layer[0]
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.fill_(1e6 if name.endswith("LayerNorm.weight") else 0.0)
        for name, worth in WORTH.items():
            net.bert.embeddings.word_embeddings.weight[names.index(name), 0] = worth
            net.bert.embeddings.word_embeddings.weight[names.index(name), 1] = -worth  # centered already
        layer.attention.self.value.weight.copy_(torch.eye(4))
        layer.attention.output.dense.weight.copy_(torch.eye(4))
        net.bert.pooler.dense.weight.copy_(1e-3 * torch.eye(4))
        net.classifier.weight[0, 0] = 1e3
    net.save_pretrained(folder)
    vocabulary = {name: number for number, name in enumerate(names)}
    scratch_tokenizer(BertWordPieceTokenizer(vocabulary)._tokenizer, 16).save_pretrained(folder)
    artifact = Artifact(folder, "classification", Labels(("recipe", "other")), 16, ExtractSettings())
    artifact.save()
    return artifact


def test_a_linear_model_is_explained_by_its_weights(tmp_path):
    explainer = load_explainer(save_linear_classifier(tmp_path), Wanted(label="recipe"))
    (found,) = explainer.explain(document("Two eggs, sugar; invoice")).attributions
    (read,) = found.passages
    num_tokens = 9  # [CLS] two eggs , sug ##ar ; invoice [SEP]
    expected = {"Two": 0.0, "eggs": 2.0, ",": 0.0, "sugar": 1.0, ";": 0.0, "invoice": -3.0}
    assert [read.characters(word) for word in read.words] == list(expected)
    assert [word.attribution * num_tokens for word in read.words] == pytest.approx([*expected.values()], abs=1e-4)
    assert [read.characters(token) for token in read.tokens][3:5] == ["sug", "ar"]
    assert found.completeness.score == pytest.approx(0.0, abs=1e-4)
    assert found.completeness.baseline_score == pytest.approx(0.0, abs=1e-4)
    assert found.scalar == "logit of the label 'recipe'"


def test_attributions_add_up_to_the_logit(random_classifier):
    explanation = load_explainer(random_classifier, Wanted()).explain(document())
    (found,) = explanation.attributions
    check = found.completeness
    assert check.holds
    assert abs(check.difference) > 1e-3
    (logits,) = load(random_classifier.folder, backend="torch").logits([TEXT])
    assert check.score == pytest.approx(float(logits.max()), abs=1e-5)
    (read,) = found.passages
    assert math.fsum(token.attribution for token in read.tokens) == pytest.approx(check.total)
    assert math.fsum(word.attribution for word in read.words) == pytest.approx(check.total)


def test_what_is_explained_is_what_is_predicted(random_classifier):
    (predicted,) = load(random_classifier.folder, backend="torch").predict([TEXT])
    explanation = load_explainer(random_classifier, Wanted(steps=2)).explain(document())
    assert explanation.outcome.label == explanation.subject == predicted.label
    assert explanation.outcome.probabilities == pytest.approx(predicted.probabilities, abs=1e-6)
    assert explanation.attributions[0].probability == pytest.approx(predicted.score, abs=1e-6)
    assert (explanation.path, explanation.num_chars) == ("a.txt", len(TEXT))


def test_probabilities_are_calibrated_and_the_explained_logit_is_not(random_classifier):
    plain = load_explainer(random_classifier, Wanted(steps=2)).explain(document())
    soft = load_explainer(replace(random_classifier, temperature=2.0), Wanted(steps=2)).explain(document())
    (logits,) = load(random_classifier.folder, backend="torch").logits([TEXT])
    expected = torch.softmax(torch.tensor(logits) / 2, dim=0).tolist()
    assert soft.outcome.probabilities == pytest.approx(expected, abs=1e-5)
    assert soft.attributions[0].probability == pytest.approx(max(expected), abs=1e-5)
    assert soft.attributions[0].completeness == plain.attributions[0].completeness


def test_any_label_can_be_explained(random_classifier):
    explainer = load_explainer(random_classifier, Wanted(label="invoice", steps=2))
    (found,) = explainer.explain(document()).attributions
    (logits,) = load(random_classifier.folder, backend="torch").logits([TEXT])
    assert found.completeness.score == pytest.approx(float(logits[1]), abs=1e-5)


def test_tokens_have_the_characters_that_they_stand_for(random_classifier):
    text = TEXT * 2
    (found,) = load_explainer(random_classifier, Wanted(steps=1)).explain(document(text)).attributions
    (read,) = found.passages
    tokenizer = hf.AutoTokenizer.from_pretrained(random_classifier.folder)
    expected = tokenizer(text, truncation=True, max_length=random_classifier.max_length, return_offsets_mapping=True)
    places = [tuple(place) for place in expected["offset_mapping"][1:-1]]
    assert [(token.start, token.end) for token in read.tokens] == places
    assert read.text == text[: places[-1][1]] != text
    shown = "".join(read.characters(word) for word in read.words)
    assert "".join(shown.split()) == "".join(read.text.split())


def test_a_text_without_tokens_has_no_explanation(random_classifier, known_reader):
    assert load_explainer(random_classifier, Wanted()).explain(document("")) is None
    reader = load_explainer(load_artifact(known_reader), Wanted(question="Who?"))
    assert reader.explain(document(" \n ")) is None


def test_what_was_wrong_with_a_document_is_noted(random_classifier):
    explanation = load_explainer(random_classifier, Wanted(steps=1)).explain(document(reason="page 2 is missing"))
    assert explanation.notes == ("page 2 is missing",)


@pytest.fixture
def placed_reader(known_reader, tmp_path):
    """The known reader with positions: without, a layer norm turns any length of an embedding into the same."""
    shutil.copytree(known_reader / "model", tmp_path / "model")
    net = hf.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        net.distilbert.embeddings.position_embeddings.weight[:, 5] = 1.0
    net.save_pretrained(tmp_path / "model")
    return load_artifact(tmp_path)


def test_each_end_of_an_answer_is_explained_by_its_own_word_where_tokens_see_only_themselves(placed_reader):
    text = "The weather was fine. We met Maria Keller at noon."
    explanation = load_explainer(placed_reader, Wanted(question="Who did it?")).explain(document(text))
    assert (explanation.outcome.text, explanation.outcome.start) == ("Maria Keller", 29)
    assert explanation.outcome.path == "a.txt"
    assert explanation.notes == ()
    for found, name in zip(explanation.attributions, ("Maria", "Keller"), strict=True):
        question, context = found.passages
        assert {word.attribution for word in question.words} == {0.0}
        adding = {context.characters(word): word.attribution for word in context.words if word.attribution}
        assert [*adding] == [name]
        assert adding[name] == pytest.approx(found.completeness.difference, rel=0.01)
        assert found.completeness.difference > 1
    assert [found.scalar for found in explanation.attributions] == [
        "logit of the start of the answer 'Maria Keller'",
        "logit of the end of the answer 'Maria Keller'",
    ]


def test_an_answer_that_is_held_back_is_explained_with_a_note(doubting_reader):
    explainer = load_explainer(load_artifact(doubting_reader), Wanted(question="Where?"))
    explanation = explainer.explain(document("We met in Lyon."))
    assert explanation.outcome.text == "Lyon"
    assert explanation.notes == (NO_ANSWER,)


@pytest.fixture(params=KINDS)
def random_reader(request, tiny_model):
    return load_artifact(tiny_model("question_answering", request.param))


def test_answers_from_far_down_a_text_are_explained_in_their_window(random_reader):
    text = TEXT * 3
    question = " Which value is it? "
    (best,) = load(random_reader.folder, backend="torch").ask(question, text)
    explanation = load_explainer(random_reader, Wanted(question=question, steps=10)).explain(document(text))
    assert (explanation.outcome.start, explanation.outcome.end) == (best.start, best.end)
    assert explanation.subject == "Which value is it?"
    for found in explanation.attributions:
        asked, context = found.passages
        assert found.completeness.holds
        assert asked.text == "Which value is it?"
        assert context.text == text[context.start : context.start + len(context.text)]
        assert context.start <= best.start < best.end <= context.start + len(context.text) < len(text)
        total = math.fsum(word.attribution for each in found.passages for word in each.words)
        assert total == pytest.approx(found.completeness.total)


def test_a_question_that_was_cut_is_explained_as_far_as_it_was_read(random_reader):
    question = "Which value is it " * 9
    explanation = load_explainer(random_reader, Wanted(question=question, steps=2)).explain(document())
    asked = explanation.attributions[0].passages[0]
    assert 10 <= len(asked.tokens) <= 16
    assert question.startswith(asked.text)


@pytest.mark.parametrize(("target", "label"), [("kind", "y"), ("tags", "b"), ("tags", "c")])
def test_each_label_of_each_target_is_explained(tiny_model, target, label):
    artifact = load_artifact(tiny_model("multi_task"))
    (told,) = load(artifact.folder, backend="torch").predict_targets([TEXT])
    prediction = next(each for each in told if each.target == target)
    labels = next(each.spec.labels for each in artifact.targets if each.spec.name == target)
    explanation = load_explainer(artifact, Wanted(label=label, target=target)).explain(document())
    assert (explanation.subject, explanation.outcome.labels) == (label, prediction.labels)
    (found,) = explanation.attributions
    assert found.scalar == f"logit of the label {label!r} of the target {target!r}"
    assert found.probability == pytest.approx(prediction.probabilities[labels.names.index(label)], abs=1e-5)
    assert found.completeness.holds


def test_the_first_target_is_explained_by_its_label_unless_another_one_is_wanted(tiny_model):
    artifact = load_artifact(tiny_model("multi_task"))
    first = load_explainer(artifact, Wanted(steps=2)).explain(document())
    assert (first.outcome.target, first.subject) == ("kind", first.outcome.labels[0])
    tags = load_explainer(artifact, Wanted(target="tags", steps=2)).explain(document())
    assert (tags.outcome.target, tags.subject) == ("tags", tags.outcome.labels[0])


def test_the_most_probable_label_is_explained_where_none_applies(tiny_model):
    artifact = load_artifact(tiny_model("multi_task"))
    (kind, tags) = artifact.targets
    silent = replace(artifact, targets=(kind, replace(tags, thresholds=(1.0, 1.0, 1.0))))
    explanation = load_explainer(silent, Wanted(target="tags", steps=2)).explain(document())
    assert explanation.outcome.labels == ()
    assert explanation.attributions[0].probability == pytest.approx(max(explanation.outcome.probabilities))


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_document_is_explained_by_its_chunks_and_their_words(tiny_model, kind):
    artifact = load_artifact(tiny_model("hierarchical_classification", kind))
    explanation = load_explainer(artifact, Wanted(top_chunks=2)).explain(document(TEXT * 2))
    (logits,) = load(artifact.folder, backend="torch").logits([TEXT * 2])
    weights = [each.weight for each in explanation.chunks]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert sorted(each.number for each in explanation.chunks) == [1, 2, 3, 4, 5, 6]
    assert len(explanation.attributions) == 2
    for found, piece in zip(explanation.attributions, explanation.chunks, strict=False):
        assert found.completeness.score == pytest.approx(float(logits.max()), abs=1e-4)
        assert found.completeness.holds
        (read,) = found.passages
        assert read.name == f"chunk {piece.number}"
        assert found.scalar.endswith(f" from chunk {piece.number}, the other chunks held fixed")
        assert (read.start, read.start + len(read.text)) == (piece.start, piece.end)
        assert read.text.startswith(piece.opening.split()[0])


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "transformer"])
def test_the_other_chunks_are_held_fixed(tiny_model, tmp_path, pooling):
    """So the baseline's score is that of the document with padding in this chunk alone."""
    shutil.copytree(tiny_model("hierarchical_classification"), tmp_path / "model")
    artifact = load_artifact(tmp_path)
    torch.manual_seed(3)
    settings = HierarchySettings(max_chunks=6, pooling=pooling)
    net = HierarchicalClassifier(hf.AutoModel.from_pretrained(artifact.folder), artifact.labels, settings).eval()
    net.save_pretrained(artifact.folder)
    explanation = load_explainer(artifact, Wanted(top_chunks=1)).explain(document(TEXT * 2))
    tokenizer, special = load_tokenizer(artifact.folder)
    (cut,) = chunk(tokenizer, [TEXT * 2], chunk_length=16, stride=4, max_chunks=6)
    ids = torch.tensor([piece.ids for piece in cut.chunks])
    emptied = ids.clone()
    emptied[explanation.chunks[0].number - 1, 1:-1] = special.pad
    index = artifact.labels.names.index(explanation.subject)
    with torch.no_grad():
        whole, without = (
            float(net(each, torch.ones_like(ids), torch.tensor([len(ids)])).logits[0, index]) for each in (ids, emptied)
        )
    check = explanation.attributions[0].completeness
    assert check.score == pytest.approx(whole, abs=1e-4)
    assert check.baseline_score == pytest.approx(without, abs=1e-4)


@pytest.mark.parametrize("keep", ["head", "spread", "head_tail"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_every_chunk_are_found_in_the_text(tiny_encoder, kind, keep):
    tokenizer, _ = load_tokenizer(tiny_encoder(kind))
    texts = [TEXT * 4, TEXT.replace(" ", ""), "🙂" * 40, "  two   eggs " * 20]
    for text in texts:
        tokenizer.no_truncation()
        whole = tokenizer.encode(text, add_special_tokens=False)
        known = {}
        for token, place in zip(whole.ids, whole.offsets, strict=True):
            known.setdefault(place, set()).add(token)
        (cut,) = chunk(tokenizer, [text], chunk_length=16, stride=4, max_chunks=6, keep=keep)
        for piece in cut.chunks:
            places = chunk_places(tokenizer, text, piece)
            assert [place.token for place in places] == [*range(1, len(piece.ids) - 1)]
            assert all(piece.ids[place.token] in known[place.start, place.end] for place in places)


def test_a_chunk_of_another_text_is_refused(tiny_encoder):
    tokenizer, _ = load_tokenizer(tiny_encoder("bert"))
    (cut,) = chunk(tokenizer, ["two eggs"], chunk_length=16, max_chunks=1)
    with pytest.raises(ValueError, match=r"^the chunk at characters 0 to 8 is not of this text\.$"):
        chunk_places(tokenizer, "sugar and eggs", cut.chunks[0])


def test_gradients_leave_the_weights_alone(random_classifier):
    explainer = load_explainer(random_classifier, Wanted(steps=2))
    first = explainer.explain(document()).attributions[0].passages
    again = explainer.explain(document()).attributions[0].passages
    assert np.array_equal([word.attribution for word in first[0].words], [word.attribution for word in again[0].words])
    assert all(parameter.grad is None for parameter in explainer._net.parameters())
