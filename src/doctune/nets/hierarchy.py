"""Long documents: an encoder reads each chunk, a small net pools the chunk vectors into one label per document.

Shapes: B documents, C chunks of all of them together, N chunks of the longest one, T tokens, D hidden, L labels.

Chunks travel flat, (C, T), in document order, with `chunk_counts` (B,); there is no chunk that does not exist. The
encoder sees them in passes of a few chunks of similar length. In training each pass but the last is computed again in
the backward pass instead of being kept, so that memory does not grow with the length of the documents, and dropout
draws the same numbers both times. transformers' own activation checkpointing of the encoder's layers
(`net.base_model.gradient_checkpointing_enable`) can be added, for when not even one pass fits; it computes once more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from doctune.errors import ArtifactError
from doctune.files import write_json, written_whole
from doctune.labels import Labels
from doctune.nets import parameters
from doctune.nets.adapter_files import load_encoder, save_transformer
from doctune.nets.encoder_weights import pretrained_encoder, read_weights, text_vectors

SCHEMA = 1
SETTINGS_FILE = "hierarchy.json"
WEIGHTS_FILE = "hierarchy.safetensors"
POOLINGS = ("attention", "mean", "max", "transformer")
VECTORS = ("cls", "mean")
# Ilse et al. (2018) use 128 on vectors of 512.
_ATTENTION_WIDTH = 128


@dataclass(frozen=True)
class HierarchySettings:
    """How chunk vectors are made and pooled.

    Args:
        max_chunks: chunks per document at most.
        pooling: attention: a weighted mean with learned weights. mean, max: over the chunks. transformer: attention
            after `num_layers` transformer layers in which the chunks see each other.
        vector: what stands for a chunk. cls: the last hidden state of its first token. mean: that of its tokens on
            average.
        positions: add a learned vector to each chunk that says which one it is.
        num_layers: layers of the transformer pooling; the others have none.
        dropout: of the pooled vector and inside the transformer pooling.

    Raises:
        ValueError: no such pooling or vector.
    """

    max_chunks: int
    pooling: str = "attention"
    vector: str = "cls"
    positions: bool = True
    num_layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r} is not a choice: {', '.join(POOLINGS)}.")
        if self.vector not in VECTORS:
            raise ValueError(f"vector={self.vector!r} is not a choice: {', '.join(VECTORS)}.")


class HierarchicalOutput(NamedTuple):
    """What a forward gives.

    `attention` (C,) says how much each chunk counts in its document, with sum 1 per document: the learned weights; for
    mean the same for all; for max the share of the dimensions in which the chunk is the largest. `vectors` (C, D) are
    the encoder's, to be stored for `forward_vectors`. Neither carries gradients.
    """

    logits: Tensor
    attention: Tensor
    vectors: Tensor


class HierarchicalClassifier(nn.Module):
    """A classifier of documents that are longer than its encoder's window.

    It is what `doctune.nets.parameters` and `keep_encoder_in_eval` take: the encoder is its `base_model`, all else is
    the head. An encoder's pooler is dropped, since nothing reads it.

    Args:
        encoder: from `AutoModel`.
        labels: what the head tells apart; also written into the encoder's config.
        settings: how chunk vectors are made and pooled.
        chunks_per_pass: chunks that the encoder reads at once; memory grows with it, the results do not depend on it.
    """

    def __init__(
        self, encoder: PreTrainedModel, labels: Labels, settings: HierarchySettings, *, chunks_per_pass: int = 8
    ) -> None:
        super().__init__()
        if chunks_per_pass < 1:
            raise ValueError(f"chunks_per_pass={chunks_per_pass}: the encoder must read at least one chunk at once.")
        self.config = encoder.config
        self.config.num_labels = len(labels)
        self.config.id2label = labels.id2label
        self.config.label2id = {name: index for index, name in labels.id2label.items()}
        self.labels = labels
        self.settings = settings
        self.chunks_per_pass = chunks_per_pass
        if hasattr(encoder, "pooler"):
            encoder.pooler = None  # type: ignore[assignment]  # what encoders have that were made without one
        self.encoder = encoder
        width = int(encoder.config.hidden_size)
        self.positions = nn.Embedding(settings.max_chunks, width) if settings.positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)  # as BERT's
        self.pooling = _pooling(settings, width, int(encoder.config.num_attention_heads))
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(width, len(labels))
        # from_pretrained returns the encoder in evaluation mode, and it would stay so for the whole run.
        self.train()

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder, under the name that transformers gives it."""
        return self.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, chunk_counts: Tensor) -> HierarchicalOutput:
        """Classify documents.

        Args:
            input_ids: (C, T), the chunks of all documents, those of a document together and in order; padded at the
                end to any common length.
            attention_mask: (C, T).
            chunk_counts: (B,), how many of the chunks are each document's.

        Raises:
            ValueError: the counts do not fit the chunks or the settings, or a chunk does not start with a token.
        """
        _refuse_unfit(chunk_counts, len(input_ids), self.settings)
        return self._classified(self._chunk_vectors(input_ids, attention_mask), chunk_counts)

    def forward_vectors(self, vectors: Tensor, chunk_counts: Tensor) -> HierarchicalOutput:
        """The same from stored chunk vectors (C, D): what `forward` gives while the encoder stays as it is.

        Raises:
            ValueError: the counts do not fit the vectors or the settings.
        """
        _refuse_unfit(chunk_counts, len(vectors), self.settings)
        return self._classified(vectors, chunk_counts)

    def _classified(self, vectors: Tensor, chunk_counts: Tensor) -> HierarchicalOutput:
        is_real = _places(chunk_counts)  # (B, N)
        padded = vectors.new_zeros(*is_real.shape, vectors.shape[1])
        padded[is_real] = vectors  # (B, N, D): vectors are padded, which costs next to nothing; tokens are not
        logits, attention = self.pool(padded, is_real)
        return HierarchicalOutput(logits, attention[is_real].detach(), vectors.detach())

    def pool(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, L) and how much each chunk counts (B, N), from vectors (B, N, D) of which some are real (B, N)."""
        if self.positions is not None:
            vectors = vectors + self.positions.weight[: is_real.shape[1]]
        pooled, attention = self.pooling(vectors, is_real)  # (B, D), (B, N)
        return self.head(self.dropout(pooled)), attention

    def _chunk_vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if not bool(attention_mask[:, 0].all()):
            raise ValueError("A chunk starts with padding: chunks must have a token each and be padded at their end.")
        lengths: list[int] = attention_mask.sum(dim=1).tolist()
        plan = passes(lengths, self.chunks_per_pass)
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.encoder.parameters())
        found = []
        for number, places in enumerate(plan):
            longest = max(lengths[place] for place in places)
            inputs = input_ids[places, :longest], attention_mask[places, :longest]
            # The backward pass begins with the last one: to compute that again would save no memory.
            if learns and number < len(plan) - 1:
                found.append(checkpoint(self.encode, *inputs, use_reentrant=False))
            else:
                found.append(self.encode(*inputs))
        order = torch.tensor([place for places in plan for place in places], device=input_ids.device)
        return torch.cat(found)[order.argsort()]

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors (C, D) of chunks (C, T) that the encoder reads at once."""
        return text_vectors(self.encoder, input_ids, attention_mask, self.settings.vector)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder for `AutoModel.from_pretrained`, or its adapter for peft, and beside it the rest."""
        folder = Path(folder)
        save_transformer(self.encoder, folder)
        with written_whole(folder / WEIGHTS_FILE) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self._rest().items()}, temporary)
        settings = {"schema": SCHEMA, **asdict(self.settings), "labels": list(self.labels.names)}
        write_json(folder / SETTINGS_FILE, settings | {"num_labels": len(self.labels)})

    @classmethod
    def from_folder(cls, folder: str | Path, *, chunks_per_pass: int = 8) -> HierarchicalClassifier:
        """What `save_pretrained` wrote, in evaluation mode.

        Raises:
            ArtifactError: a file is missing, damaged or does not fit the others.
        """
        folder = Path(folder)
        labels, settings = _read_settings(folder / SETTINGS_FILE)
        net = cls(load_encoder(folder), labels, settings, chunks_per_pass=chunks_per_pass)
        rest, expected = read_weights(folder / WEIGHTS_FILE), net._rest()
        if {name: tensor.shape for name, tensor in rest.items()} != {n: t.shape for n, t in expected.items()}:
            raise ArtifactError(
                f"{folder / WEIGHTS_FILE} does not hold the weights that {SETTINGS_FILE} describes. "
                "Both are written together: copy the whole folder again."
            )
        net.load_state_dict(rest, strict=False)
        return net.eval()

    def _rest(self) -> dict[str, Tensor]:
        """The weights of everything but the encoder."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}


def hierarchical_classifier(
    config: PretrainedConfig,
    labels: Labels,
    weights: str | None,
    settings: HierarchySettings,
    *,
    chunks_per_pass: int = 8,
) -> HierarchicalClassifier:
    """A hierarchical classifier in training mode.

    Args:
        config: the encoder's architecture, dropouts already set.
        labels: what the head tells apart.
        weights: hub name or folder of the pretrained encoder; None starts from random weights.
        settings: how chunk vectors are made and pooled.
        chunks_per_pass: see `HierarchicalClassifier`.

    Raises:
        ArtifactError: the weights cannot be loaded.
    """
    encoder = pretrained_encoder(weights, config) if weights else AutoModel.from_config(config)
    return HierarchicalClassifier(encoder, labels, settings, chunks_per_pass=chunks_per_pass)


def passes(lengths: Sequence[int], chunks_per_pass: int) -> list[list[int]]:
    """Which chunks the encoder reads together: those of similar length, the largest pass last.

    The last pass is the one that training need not compute twice.

    Args:
        lengths: tokens per chunk, (C,).
        chunks_per_pass: at most so many in a pass.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    groups = [order[start : start + chunks_per_pass] for start in range(0, len(order), chunks_per_pass)]
    return groups[::-1]


def computed_tokens(lengths: Sequence[int], chunks_per_pass: int) -> int:
    """How many tokens, padding included, the encoder computes once for such a batch of chunks."""
    return sum(len(places) * max(lengths[place] for place in places) for places in passes(lengths, chunks_per_pass))


def parameter_groups(
    model: HierarchicalClassifier,
    *,
    lr: float,
    pooling_lr_multiplier: float,
    head_lr_multiplier: float,
    weight_decay: float,
    layer_decay: float | None = None,
    include_frozen: bool = False,
) -> list[dict[str, Any]]:
    """Optimiser groups named encoder, pooling (chunk positions included) and head; else as in `nets.parameters`.

    Args:
        pooling_lr_multiplier: the pooling's rate over `lr`.
        head_lr_multiplier: the rate of the last, linear layer over `lr`.
    """
    groups = parameters.parameter_groups(
        model,  # type: ignore[arg-type]  # of a transformers model only base_model is read, and the parameters
        lr=lr,
        head_lr_multiplier=head_lr_multiplier,
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        include_frozen=include_frozen,
    )
    in_head = {id(parameter) for parameter in model.head.parameters()}
    split: list[dict[str, Any]] = []
    for group in groups:
        if not group["name"].startswith("head"):
            split.append(group)
            continue
        pooling = [parameter for parameter in group["params"] if id(parameter) not in in_head]
        name = group["name"].replace("head", "pooling")
        split.append(group | {"name": name, "params": pooling, "lr": lr * pooling_lr_multiplier})
        split.append(group | {"params": [parameter for parameter in group["params"] if id(parameter) in in_head]})
    return [group for group in split if group["params"]]


def _pooling(settings: HierarchySettings, width: int, num_heads: int) -> nn.Module:
    if settings.pooling == "mean":
        return _MeanPooling()
    if settings.pooling == "max":
        return _MaxPooling()
    if settings.pooling == "attention":
        return _AttentionPooling(width)
    return _TransformerPooling(width, num_heads, settings.num_layers, settings.dropout)


# Each pooling takes vectors (B, N, D) and which of them are real (B, N), and gives the pooled vectors (B, D) and how
# much each chunk counts (B, N), in single precision, so that it has sum 1 in a mixed-precision run too.


class _MeanPooling(nn.Module):
    def forward(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        weights = is_real / is_real.sum(dim=1, keepdim=True)
        return _weighted_sum(vectors, weights), weights


class _MaxPooling(nn.Module):
    def forward(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        pooled, winners = vectors.masked_fill(~is_real.unsqueeze(-1), float("-inf")).max(dim=1)  # (B, D), (B, D)
        shares = torch.full(winners.shape, 1 / vectors.shape[2], device=vectors.device)
        return pooled, torch.zeros(is_real.shape, device=vectors.device).scatter_add(1, winners, shares)


class _AttentionPooling(nn.Module):
    """Gated attention (Ilse et al. 2018, equation 9): that of Yang et al. (2016, section 2.2) with a sigmoid gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, _ATTENTION_WIDTH)
        self.gate = nn.Linear(width, _ATTENTION_WIDTH)
        self.score = nn.Linear(_ATTENTION_WIDTH, 1, bias=False)

    def forward(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(torch.tanh(self.value(vectors)) * torch.sigmoid(self.gate(vectors))).squeeze(-1)  # (B, N)
        weights = scores.float().masked_fill(~is_real, float("-inf")).softmax(dim=1)
        return _weighted_sum(vectors, weights), weights


class _TransformerPooling(nn.Module):
    """Layers in which the chunks of a document see each other (Pappagari et al. 2019), then attention over them."""

    def __init__(self, width: int, num_heads: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        # Not nn.TransformerEncoder, whose layers start as copies of each other.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, num_heads, 2 * width, dropout, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.attention = _AttentionPooling(width)

    def forward(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            vectors = layer(vectors, src_key_padding_mask=~is_real)
        pooled: tuple[Tensor, Tensor] = self.attention(self.norm(vectors), is_real)
        return pooled


def _weighted_sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """(B, N, D) and (B, N) -> (B, D)."""
    return (weights.to(vectors.dtype).unsqueeze(1) @ vectors).squeeze(1)


def _places(chunk_counts: Tensor) -> Tensor:
    """Which places (B, N) of a batch that is padded to its longest document hold a chunk."""
    numbers = torch.arange(int(chunk_counts.max()), device=chunk_counts.device)
    return numbers < chunk_counts.unsqueeze(1)


def _refuse_unfit(chunk_counts: Tensor, num_chunks: int, settings: HierarchySettings) -> None:
    counts: list[int] = chunk_counts.tolist()
    if not counts or min(counts) < 1:
        raise ValueError(f"chunk_counts={counts}: every document must have at least one chunk.")
    if sum(counts) != num_chunks:
        raise ValueError(f"chunk_counts={counts}: their sum is {sum(counts)}, but there are {num_chunks} chunks.")
    if max(counts) > settings.max_chunks:
        raise ValueError(f"chunk_counts={counts}: a document may have at most max_chunks={settings.max_chunks} chunks.")


def _read_settings(path: Path) -> tuple[Labels, HierarchySettings]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        schema = read.pop("schema")
        if schema > SCHEMA:
            raise ValueError(f"it has schema {schema}, and this doctune knows up to {SCHEMA}")
        labels = Labels(tuple(read.pop("labels")))
        if read.pop("num_labels") != len(labels):
            raise ValueError(f"num_labels is not the number of its {len(labels)} labels")
        return labels, HierarchySettings(**read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be used: {type(error).__name__}: {error}.") from error
