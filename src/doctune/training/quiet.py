"""What Lightning and transformers say to developers is kept out of users' logs."""

from __future__ import annotations

import logging
import warnings

from transformers.utils import logging as transformers_logging


def quieten_libraries() -> None:
    """Turn off progress bars of downloads, and warnings about what is meant to be so."""
    transformers_logging.disable_progress_bar()
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.fabric.utilities.distributed",
        "matplotlib",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The run folder has Hydra's files in it already, and metrics.csv goes beside them.
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches .* smaller than the logging interval.*")
    # A frozen encoder is meant to be in evaluation mode, and resuming within an epoch is what ResumePoints is for.
    warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size`.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step.*")
    # A process may have had no text that knows a target; the others had some.
    warnings.filterwarnings("ignore", ".*method of metric .* was called before the ``update``.*")
    # What torch 2.13 offers in its place torch 2.7 does not have.
    warnings.filterwarnings("ignore", ".*`broadcast_buffers` is deprecated.*")
    # Metrics know their processes themselves.
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True.*")
