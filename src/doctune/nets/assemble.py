"""Encoder + head -> one torch module, stock transformers classes wherever there is one."""

from __future__ import annotations

import logging
from typing import Any

from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from doctune.errors import ArtifactError
from doctune.labels import Labels

log = logging.getLogger(__name__)


def classifier(config: PretrainedConfig, labels: Labels, weights: str | None) -> PreTrainedModel:
    """A sequence classifier in training mode.

    Args:
        config: the encoder's architecture, dropouts already set.
        labels: what the head tells apart; also written into the config.
        weights: hub name or folder of the pretrained encoder; None starts from random weights.

    Raises:
        ArtifactError: the weights cannot be loaded.
    """
    config.num_labels = len(labels)
    config.id2label = labels.id2label
    config.label2id = {name: index for index, name in labels.id2label.items()}
    config.problem_type = "single_label_classification"
    return _made(AutoModelForSequenceClassification, config, weights)


def reader(config: PretrainedConfig, weights: str | None) -> PreTrainedModel:
    """An extractive reader in training mode: one linear layer gives each token a start and an end logit.

    J. Devlin et al., "BERT", NAACL 2019, section 4.2.

    Args:
        config: the encoder's architecture, dropouts already set.
        weights: hub name or folder of the pretrained encoder; None starts from random weights.

    Raises:
        ArtifactError: the weights cannot be loaded, or transformers has no such head for this architecture.
    """
    config.num_labels = 2
    return _made(AutoModelForQuestionAnswering, config, weights)


def _made(head: Any, config: PretrainedConfig, weights: str | None) -> PreTrainedModel:
    if type(config) not in head._model_mapping:
        raise ArtifactError(f"transformers has no {head.__name__} for a {config.model_type} encoder.")
    model: PreTrainedModel = _load(head, config, weights) if weights else head.from_config(config)
    # from_pretrained returns the model in evaluation mode, and Lightning would leave dropout off for the whole run.
    return model.train()


def _load(head: Any, config: PretrainedConfig, weights: str) -> PreTrainedModel:
    # The load report lists the new head as missing, which is what a new head is.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model: PreTrainedModel = head.from_pretrained(
            weights, config=config, dtype="float32", ignore_mismatched_sizes=True
        )
        return model
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The weights of {weights} cannot be loaded: {str(error).splitlines()[0]}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
