"""The files of a run that tuned a language model, read and checked.

Shapes: N conversations of a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.errors import ArtifactError
from doctune.reports.records import RunFiles, existing, read_files, read_json, read_table
from doctune.scoring.generation import merge_scores, score_completions, score_losses, summarise_completions

COLUMNS = ("id", "place", "prompt", "reference", "loss", "tokens", "prediction")


@dataclass(frozen=True)
class Conversations:
    """What the model made of the conversations of a part, (N,) each, in the order of the file.

    `losses` are sums over the `tokens` of each, in nats; a prediction is None where none was asked for.
    """

    ids: tuple[str, ...]
    places: tuple[str, ...]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    losses: tuple[float, ...]
    tokens: tuple[int, ...]
    predictions: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self) -> dict[str, Any]:
        """Of losses, and of completions where there are any, with 95 % intervals."""
        answered = [place for place, text in enumerate(self.predictions) if text is not None]
        completions = None
        if answered:
            given = [self.predictions[place] or "" for place in answered]
            references = [self.references[place] for place in answered]
            completions = summarise_completions(score_completions(given, references))
        return merge_scores(score_losses(self.losses, self.tokens), completions)


@dataclass(frozen=True)
class InstructionRecords(RunFiles):
    """A run's files, what the model made of both parts before and after training, and its checks."""

    before: dict[str, Conversations]
    after: dict[str, Conversations]
    checks: list[dict[str, Any]]

    @property
    def test(self) -> Conversations | None:
        """Those that judge the trained model; None where there are none."""
        return self.after.get("test")


def read_instruction_run(run: Path) -> InstructionRecords:
    """Read the files of a finished run.

    Raises:
        ArtifactError: a file is missing, damaged, or does not belong to the others; the message names it.
    """
    after = {part: read_conversations(existing(run, f"predictions/{part}.parquet")) for part in ("val", "test")}
    before = {
        part: read_conversations(existing(run, f"predictions/untrained_{part}.parquet")) for part in ("val", "test")
    }
    for part, found in after.items():
        if found.ids != before[part].ids:
            raise ArtifactError(
                f"{run / f'predictions/untrained_{part}.parquet'} does not hold the same conversations as "
                f"{part}.parquet beside it: one of them is stale."
            )
    checks = read_json(run, "training_metrics.json", list)
    return InstructionRecords(**vars(read_files(run)), before=before, after=after, checks=checks)


def read_conversations(path: Path) -> Conversations:
    """A file of conversations.

    Raises:
        ArtifactError: it cannot be read, lacks a column or has no row.
    """
    table = read_table(path, COLUMNS).select(COLUMNS).to_pydict()
    if not table["id"]:
        raise ArtifactError(f"{path} has no row.")
    return Conversations(*(tuple(table[name]) for name in COLUMNS))
