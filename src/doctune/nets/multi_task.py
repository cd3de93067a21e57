"""Several targets at once: one encoder reads a text, a linear head per target tells its labels.

R. Caruana, "Multitask learning", Machine Learning 28, 1997 (hard parameter sharing).

Shapes: B texts, T tokens, D hidden, K targets, L labels of a target.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from doctune.corpus.targets import TargetSpec
from doctune.errors import ArtifactError
from doctune.files import write_json, written_whole
from doctune.labels import Labels
from doctune.nets.adapter_files import load_encoder, save_transformer
from doctune.nets.encoder_weights import pretrained_encoder, read_weights, text_vectors

SCHEMA = 1
SETTINGS_FILE = "multi_task.json"
WEIGHTS_FILE = "multi_task.safetensors"
VECTORS = ("cls", "mean")


@dataclass(frozen=True)
class MultiTaskSettings:
    """What the heads read.

    Args:
        vector: what stands for a text. cls: the last hidden state of its first token, as BERT's heads have it. mean:
            that of all its tokens on average, which is what sentence encoders such as MiniLM were trained for.
        dropout: of that vector, drawn for each head anew.

    Raises:
        ValueError: no such vector.
    """

    vector: str = "cls"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.vector not in VECTORS:
            raise ValueError(f"vector={self.vector!r} is not a choice: {', '.join(VECTORS)}.")


class MultiTaskOutput(NamedTuple):
    """What a forward gives: `logits` (B, L) of each target in their order, and `vectors` (B, D).

    The vectors are the encoder's, to be stored for `forward_vectors`, and carry no gradients.
    """

    logits: tuple[Tensor, ...]
    vectors: Tensor


class MultiTaskClassifier(nn.Module):
    """A classifier with a head per target.

    It is what `doctune.nets.parameters` and `keep_encoder_in_eval` take: the encoder is its `base_model`, all else is
    the head. An encoder's pooler is dropped, since nothing reads it.

    Args:
        encoder: from `AutoModel`.
        targets: what the heads tell apart, in order.
        settings: what the heads read.

    Raises:
        ValueError: there is no target, or two have the same name.
    """

    def __init__(self, encoder: PreTrainedModel, targets: Sequence[TargetSpec], settings: MultiTaskSettings) -> None:
        super().__init__()
        names = [target.name for target in targets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"targets={names}: there must be at least one, each with a name of its own.")
        self.config = encoder.config
        self.targets = tuple(targets)
        self.settings = settings
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # type: ignore[assignment]  # what encoders have that were made without one
        self.encoder = encoder
        self.dropout = nn.Dropout(settings.dropout)
        width = int(encoder.config.hidden_size)
        # A list, because names of targets may have characters that names of modules may not.
        self.heads = nn.ModuleList(nn.Linear(width, len(target.labels)) for target in targets)
        # from_pretrained returns the encoder in evaluation mode, and it would stay so for the whole run.
        self.train()

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder, under the name that transformers gives it."""
        return self.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> MultiTaskOutput:
        """Classify texts given as token ids (B, T) and their mask (B, T), padded at the end."""
        return self.forward_vectors(self.encode(input_ids, attention_mask))

    def forward_vectors(self, vectors: Tensor) -> MultiTaskOutput:
        """The same from stored vectors (B, D): what `forward` gives while the encoder stays as it is."""
        logits = tuple(head(self.dropout(vectors)) for head in self.heads)
        return MultiTaskOutput(logits, vectors.detach())

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors (B, D) of texts (B, T)."""
        return text_vectors(self.encoder, input_ids, attention_mask, self.settings.vector)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder for `AutoModel.from_pretrained`, or its adapter for peft, and beside it the heads."""
        folder = Path(folder)
        save_transformer(self.encoder, folder)
        with written_whole(folder / WEIGHTS_FILE) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.heads.state_dict().items()}, temporary)
        targets = [
            {"name": target.name, "kind": target.kind, "labels": list(target.labels.names)} for target in self.targets
        ]
        write_json(folder / SETTINGS_FILE, {"schema": SCHEMA, **asdict(self.settings), "targets": targets})

    @classmethod
    def from_folder(cls, folder: str | Path) -> MultiTaskClassifier:
        """What `save_pretrained` wrote, in evaluation mode.

        Raises:
            ArtifactError: a file is missing, damaged or does not fit the others.
        """
        folder = Path(folder)
        targets, settings = _read_settings(folder / SETTINGS_FILE)
        net = cls(load_encoder(folder), targets, settings)
        heads, expected = read_weights(folder / WEIGHTS_FILE), net.heads.state_dict()
        if {name: tensor.shape for name, tensor in heads.items()} != {n: t.shape for n, t in expected.items()}:
            raise ArtifactError(
                f"{folder / WEIGHTS_FILE} does not hold the weights that {SETTINGS_FILE} describes. "
                "Both are written together: copy the whole folder again."
            )
        net.heads.load_state_dict(heads)
        return net.eval()


def multi_task_classifier(
    config: PretrainedConfig, targets: Sequence[TargetSpec], weights: str | None, settings: MultiTaskSettings
) -> MultiTaskClassifier:
    """A classifier with a head per target, in training mode.

    Args:
        config: the encoder's architecture, dropouts already set.
        targets: what the heads tell apart, in order.
        weights: hub name or folder of the pretrained encoder; None starts from random weights.
        settings: what the heads read.

    Raises:
        ArtifactError: the weights cannot be loaded.
    """
    encoder = pretrained_encoder(weights, config) if weights else AutoModel.from_config(config)
    return MultiTaskClassifier(encoder, targets, settings)


def _read_settings(path: Path) -> tuple[list[TargetSpec], MultiTaskSettings]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        schema = read.pop("schema")
        if schema > SCHEMA:
            raise ValueError(f"it has schema {schema}, and this doctune knows up to {SCHEMA}")
        targets = [
            TargetSpec(each["name"], each["kind"], Labels(tuple(each["labels"]))) for each in read.pop("targets")
        ]
        return targets, MultiTaskSettings(**read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be used: {type(error).__name__}: {error}.") from error
