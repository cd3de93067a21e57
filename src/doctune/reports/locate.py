"""Which run is meant: the folder that was named, or the newest one under `outputs/` and `multirun/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from doctune.errors import ArtifactError

STATUS_FILE = "status.json"
ROOTS = ("outputs", "multirun")
# outputs/<name>, outputs/<date>/<time> and multirun/<date>/<time>/<job>.
_DEPTHS = ("*", "*/*", "*/*/*")


def find_run(given: str | Path | None) -> Path:
    """The folder of a run, relative where `given` is; every run has a `status.json` from its first moment on.

    Args:
        given: a run folder or its `model/` folder; None for the newest under `outputs/` and `multirun/` of the current
            directory, which is the one that started last, or was taken up again last.

    Raises:
        ArtifactError: there is none, or `given` is none; the message says what was looked for.
    """
    if given is None:
        return _newest()
    folder = Path(given)
    if not folder.exists():
        raise ArtifactError(f"{folder}: there is no such run folder. Runs are under outputs/ and multirun/.")
    above = folder.parent if folder.name else folder.resolve().parent  # "." has no name
    for run in (folder, *([above] if folder.resolve().name == "model" else [])):
        if (run / STATUS_FILE).is_file():
            return run
    inside = sorted({path.parent for depth in _DEPTHS[:2] for path in folder.glob(f"{depth}/{STATUS_FILE}")})
    if inside:
        raise ArtifactError(f"{folder} holds {len(inside)} runs: name one of them, such as {inside[0]}.")
    raise ArtifactError(
        f"{folder} is no run: a run's folder, or the folder above its model/, holds the {STATUS_FILE} that training "
        "writes, and here is none. Runs are under outputs/ and multirun/."
    )


def _newest() -> Path:
    # Of those that started in the same instant, the last one by name, so that two calls give the same.
    found = max(_candidates(), key=lambda run: (_started_at(run), str(run)), default=None)
    if found is None:
        raise ArtifactError(
            f"There is no run under {' or '.join(f'{root}/' for root in ROOTS)} in {Path.cwd()}: no folder there holds "
            f"a {STATUS_FILE}. Make one with `python train.py`, name its folder, or change to the directory where it "
            "was started."
        )
    return found


def _candidates() -> Iterator[Path]:
    for root in ROOTS:
        for depth in _DEPTHS:
            yield from (path.parent for path in Path(root).glob(f"{depth}/{STATUS_FILE}"))


def _started_at(run: Path) -> float:
    """Seconds since 1970; a file that does not say when its run started was last written at about that time."""
    path = run / STATUS_FILE
    try:
        return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["started_at"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return path.stat().st_mtime if path.exists() else 0.0


def run_folders() -> list[Path]:
    """All runs under `outputs/` and `multirun/` of the current directory; the one that started last comes first."""
    return sorted(_candidates(), key=lambda run: (_started_at(run), str(run)), reverse=True)
