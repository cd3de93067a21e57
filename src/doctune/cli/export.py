"""Export the model of a finished run to ONNX, so that it runs without torch, or merge its adapter.

The nets are written into the onnx/ folder of the run's model/ folder, from which `doctune predict`, `doctune ask` and
`doctune.load` take them. They are kept only where they agree with torch on real documents: those of the run's
validation part, or the ones named. With --int8 the weights are quantised, too: a quarter of the size and faster; kept
where 99 % of the answers are the same and the score falls by at most 0.5 points.

With --merge, the adapter of a run with finetune=lora or qlora is added to the model below it, and the whole is written
into the merged/ folder of model/: a model that needs neither that one nor peft. Nothing is exported to ONNX then.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from doctune.errors import ConfigError

if TYPE_CHECKING:
    from doctune.inference.artifact import Artifact
    from doctune.inference.export import Exported, ExportReport
    from doctune.inference.merge import Merged

EXAMPLE = "doctune export outputs/2026-01-31/12-00-00 --int8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune export`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--int8", action="store_true", help="quantise the weights, too")
    form.add_argument("--merge", action="store_true", help="merge an adapter into the model below it, instead")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="export the weights of this checkpoint instead, into RUN/exported/<its name>/",
    )
    parser.add_argument(
        "--documents",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="files and folders to compare on, instead of the run's validation part",
    )


def run(args: argparse.Namespace) -> int:
    """Export, and print what it cost and gained."""
    from doctune.inference.artifact import GENERATION, load_artifact, refuse_writer
    from doctune.inference.examples import file_examples, validation_examples, written_examples
    from doctune.inference.export import export
    from doctune.inference.merge import merge_model

    artifact = load_artifact(args.run)
    run = artifact.folder.parent
    if not args.merge:
        refuse_writer(artifact)
    if artifact.task == GENERATION:
        if args.documents:
            raise ConfigError("A language model is compared on the conversations of its run: leave out --documents.")
        written = written_examples(run)
        print(merged_as_text(merge_model(_of_checkpoint(args, artifact), written)))
        return 0
    examples = file_examples(args.documents, artifact) if args.documents else validation_examples(run, artifact)
    chosen = _of_checkpoint(args, artifact)
    if args.merge:
        print(merged_as_text(merge_model(chosen, examples)))
    else:
        print(as_text(export(chosen, examples, int8=args.int8)))
    return 0


def _of_checkpoint(args: argparse.Namespace, artifact: Artifact) -> Artifact:
    """The artifact itself, or that of the checkpoint that is named."""
    if args.checkpoint is None:
        return artifact
    from doctune.inference.checkpoint import model_of_checkpoint

    return model_of_checkpoint(artifact, args.checkpoint, artifact.folder.parent / "exported" / args.checkpoint.stem)


def merged_as_text(merged: Merged) -> str:
    """What came of a merge, for a person."""
    lines = [
        f"Merged and unmerged outputs differ by up to {merged.max_difference:.1e} on {merged.examples} "
        f"({merged.num_compared} compared)."
    ]
    if merged.was_quantised:
        lines.append(
            "The model below the adapter was in four bits: what was written are the weights that these stand for, on "
            "which the adapter was trained, in single precision."
        )
    lines.append(
        f"Written to {merged.folder} ({merged.size_mb:.1f} MB): a model for itself, which `doctune "
        f"{'generate' if merged.is_writer else 'predict'} {merged.folder}` and transformers take."
    )
    return "\n".join(lines)


def as_text(report: ExportReport) -> str:
    """What came of an export, for a person."""
    score = report.score_name if report.nets[0].score is not None else ""
    header = f"{'net':<6} {'MB':>8} {'examples/s':>11} {'largest difference':>19} {'same answer':>12} {score:>9}"
    lines = [header.rstrip(), *(_row(net) for net in report.nets)]
    compared = f"{report.num_compared} for speed and numbers, {report.num_judged} for answers"
    lines.append(f"Compared with torch on {report.examples}: {compared}.")
    lines += [report.refused] if report.refused else []
    lines.append(f"Written to {report.folder / 'onnx'}, from where `doctune predict` and `doctune ask` take it.")
    return "\n".join(lines)


def _row(net: Exported) -> str:
    difference = "" if net.max_difference is None else f"{net.max_difference:.1e}"
    score = "" if net.score is None else f"{net.score:.4f}"
    return (
        f"{net.backend:<6} {net.size_mb:>8.1f} {net.examples_per_s:>11.1f} {difference:>19} {net.agreement:>12.2%} "
        f"{score:>9}"
    ).rstrip()
