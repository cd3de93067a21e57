"""Bare encoders from the hub or a folder, what they make of a text, and the weights that lie beside them.

Shapes: B texts, T tokens, D hidden.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from doctune.errors import ArtifactError


def pretrained_encoder(weights: str, config: PretrainedConfig | None = None) -> PreTrainedModel:
    """An encoder without a head, in evaluation mode and single precision.

    Args:
        weights: hub name or folder.
        config: the architecture, dropouts already set; None: the one that comes with the weights.

    Raises:
        ArtifactError: the weights cannot be loaded, or are not all there.
    """
    verbosity = transformers_logging.get_verbosity()
    # The load report would list another head's weights as unexpected, which is what they are.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    options = {} if config is None else {"config": config}
    try:
        encoder, report = AutoModel.from_pretrained(weights, dtype="float32", output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"The weights of {weights} cannot be loaded: {str(error).splitlines()[0]}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    # A pooler may be missing: it is neither used nor saved. Anything else would silently stay random.
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise ArtifactError(f"The weights of {weights} lack {len(missing)} of the encoder, among them {missing[0]}.")
    return encoder


def text_vectors(encoder: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, vector: str) -> Tensor:
    """The vectors (B, D) of texts (B, T).

    Args:
        encoder: without a head.
        input_ids, attention_mask: (B, T).
        vector: "cls": the last hidden state of the first token; "mean": that of the tokens on average.
    """
    hidden: Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    if vector == "cls":
        return hidden[:, 0]
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error
