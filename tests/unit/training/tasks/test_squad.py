"""Questions and their encoder."""

import pytest

from doctune.errors import ConfigError
from doctune.training.tasks.squad import encoder


def test_a_head_without_dropout_refuses_one(compose, tiny_encoder):
    overrides = ("data=squad", "model=minilm", "model.head_dropout=0.2")
    config = compose(
        *overrides,
        f"model.path={tiny_encoder('bert')}",
        "data.max_length=64",
        "data.max_question_length=16",
        "data.doc_stride=16",
    )
    with pytest.raises(ConfigError) as refused:
        encoder(config, None)
    assert str(refused.value) == (
        "model.head_dropout=0.2: a bert reader has no dropout before its head. Leave it out; model.dropout is that of "
        "the encoder."
    )


def test_a_distilbert_reader_has_the_dropout_that_is_asked_for(compose, tiny_encoder):
    overrides = ("data=squad", "model=distilbert", "model.head_dropout=0.2")
    config = compose(
        *overrides,
        f"model.path={tiny_encoder('distilbert')}",
        "data.max_length=64",
        "data.max_question_length=16",
        "data.doc_stride=16",
    )
    assert encoder(config, None).config.qa_dropout == 0.2
