"""Causal language models: loaded whole, and the loss of the tokens that they are to write.

Shapes: B rows, T tokens, V tokens of the vocabulary, K tokens to write in all rows.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from doctune.errors import ArtifactError

# What cross entropy passes over.
IGNORED = -100
# It has a language model's head, and yet every token sees all others where nothing masks them.
_NO_DECODERS = ("xlnet",)


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether tokens see only what stands before them, by the architecture's name."""
    kind = config.model_type
    return (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and kind not in _NO_DECODERS
    )


def causal_lm(config: PretrainedConfig, weights: str, *, as_stored: bool = False) -> PreTrainedModel:
    """A causal language model in training mode and single precision.

    Args:
        config: its architecture, dropouts already set.
        weights: hub name or folder.
        as_stored: leave the weights in the type that they are stored in, for a net that is to be quantised.

    Raises:
        ArtifactError: the weights cannot be loaded, or are not all there.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            weights, config=config, dtype="auto" if as_stored else "float32", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"The weights of {weights} cannot be loaded: {str(error).splitlines()[0]}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    net: PreTrainedModel = loaded[0]
    report: dict[str, Any] = loaded[1]
    if missing := sorted(report["missing_keys"]):
        raise ArtifactError(
            f"The weights of {weights} lack {len(missing)} of the language model, among them {missing[0]}: it is no "
            "causal language model, or one without its output layer."
        )
    # from_pretrained returns the model in evaluation mode, and Lightning would leave dropout off for the whole run.
    net.train()
    return net


def next_token_losses(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The cross entropy of each token to write, (K,), and the row that it stands in, (K,).

    Args:
        logits: (B, T, V); those of a token say the next one.
        labels: (B, T), the tokens to write, `IGNORED` for all others.
        label_smoothing: of the targets.
    """
    wanted = labels[:, 1:] != IGNORED
    chosen = logits[:, :-1][wanted].float()  # before the copy in single precision, which would be large
    losses = F.cross_entropy(chosen, labels[:, 1:][wanted], reduction="none", label_smoothing=label_smoothing)
    return losses, torch.nonzero(wanted)[:, 0]


def packs_apart(net: PreTrainedModel, vocab_size: int) -> bool:
    """Whether sequences in one row see nothing of each other where only their positions say where they begin.

    A row of two sequences is computed beside the second one alone; evaluation mode is left as it was found. In half
    precision the two may differ by its rounding.
    """
    tokens = torch.arange(1, 9, device=net.device) % vocab_size
    row, alone = tokens[None], tokens[None, 5:]
    positions = torch.cat([torch.arange(5), torch.arange(3)]).to(net.device)[None]
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            packed = net(input_ids=row, position_ids=positions, use_cache=False).logits[:, 5:]
            single = net(input_ids=alone, use_cache=False).logits
    except TypeError:  # it takes no positions
        return False
    finally:
        net.train(was_training)
    tolerance = 1e-3 if single.dtype == torch.float32 else 3e-2
    return bool((packed - single).norm() <= tolerance * single.norm())
