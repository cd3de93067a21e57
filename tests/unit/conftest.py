"""A reader whose answers are known: its weights are written down, not learnt."""

from __future__ import annotations

import pytest

# What a word does, by the hidden dimensions that are hot in it: 0 makes it a start, 1 an end, others weaken it.
KNOWN_WORDS = {
    "maria": (0,),
    "keller": (1,),  # "Maria Keller" is the best answer of all
    "paris": (0, 1),
    "[CLS]": (0, 1, 2),  # no answer is better than Lyon and worse than Paris
    "lyon": (0, 1, 2, 3),
}
DIM = 8


def save_known_reader(run, *, no_answer_threshold=None):
    """The run folder of a DistilBERT in which every token sees only itself; unknown words weigh nothing."""
    import torch
    import transformers as hf
    from tokenizers import BertWordPieceTokenizer

    from doctune.decode.answers import SpanSettings
    from doctune.inference.artifact import Artifact, ReadingSettings
    from doctune.labels import Labels
    from doctune.nets.encoder import scratch_tokenizer
    from doctune.text.extract import ExtractSettings
    from doctune.text.questions import WindowSettings

    names = ["[PAD]", "[UNK]", "[SEP]", "[MASK]", *KNOWN_WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    config = hf.DistilBertConfig(
        vocab_size=len(names), dim=DIM, n_layers=1, n_heads=2, hidden_dim=DIM, max_position_embeddings=32
    )
    net = hf.DistilBertForQuestionAnswering(config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.fill_(1.0 if name.lower().endswith("norm.weight") else 0.0)
        for word, dimensions in KNOWN_WORDS.items():
            net.distilbert.embeddings.word_embeddings.weight[vocabulary[word], list(dimensions)] = 1.0
        net.qa_outputs.weight[0, 0] = net.qa_outputs.weight[1, 1] = 5.0
    net.save_pretrained(run / "model")
    scratch_tokenizer(BertWordPieceTokenizer(vocabulary)._tokenizer, 32).save_pretrained(run / "model")
    reading = ReadingSettings(WindowSettings(32, 8, 8), SpanSettings(max_answer_length=4), no_answer_threshold)
    Artifact(run / "model", "question_answering", Labels(()), 32, ExtractSettings(), reading).save()
    return run


@pytest.fixture(scope="session")
def known_reader(tmp_path_factory):
    """A run that always answers: "Maria Keller" before "Paris" before "Lyon" before anything else."""
    return save_known_reader(tmp_path_factory.mktemp("known_reader"))


@pytest.fixture(scope="session")
def doubting_reader(tmp_path_factory):
    """The same with SQuAD 2.0's right to give no answer, which it does where nothing is better than "Lyon"."""
    return save_known_reader(tmp_path_factory.mktemp("doubting_reader"), no_answer_threshold=0.0)
