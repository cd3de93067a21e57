"""Encoder + head -> one torch module, stock transformers classes wherever there is one."""

from __future__ import annotations

import logging

from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
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
    model = _load(config, weights) if weights else AutoModelForSequenceClassification.from_config(config)
    # from_pretrained returns the model in evaluation mode, and Lightning would leave dropout off for the whole run.
    return model.train()


def _load(config: PretrainedConfig, weights: str) -> PreTrainedModel:
    # The load report lists the new head as missing, which is what a new head is.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            weights, config=config, dtype="float32", ignore_mismatched_sizes=True
        )
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The weights of {weights} cannot be loaded: {str(error).splitlines()[0]}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
