"""Make the README's pictures of a finished run: `make pictures`, or `make pictures RUN=outputs/<date>/<time>`.

Needs a chromium. The report is a file; TensorBoard is served to the browser of this machine only, on a free port.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from PIL import Image

from doctune.errors import ArtifactError
from doctune.reports.locate import find_run, run_folders

FOLDER = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEEDED = ("report/index.html", "tensorboard")
# Pixels: the report down to its curves; the three charts that training lays out for TensorBoard, side by side.
REPORT_SIZE, TENSORBOARD_SIZE = (1200, 1200), (1480, 640)
CHARTS = "custom_scalars"
COLOURS = 128
MAX_BYTES = 200_000
PATIENCE_S = 60
# Of the page's own clock: it runs ahead while nothing is loading.
DRAWING_MS = 20_000


def main(given: str | None = None) -> None:
    """Make both pictures and say where they are.

    Raises:
        ArtifactError: there is no finished run with a report and curves.
        RuntimeError: there is no browser, or a picture cannot be made.
    """
    run = _finished_run(given)
    _photograph((run / "report/index.html").resolve().as_uri(), FOLDER / "report.png", REPORT_SIZE)
    with _tensorboard(run) as address:
        page = f"{address}/#{CHARTS}&_smoothingWeight=0"
        _photograph(page, FOLDER / "tensorboard.png", TENSORBOARD_SIZE)
    print(f"From {run}: {FOLDER / 'report.png'}, {FOLDER / 'tensorboard.png'}")


def _finished_run(given: str | None) -> Path:
    runs = [find_run(given)] if given else run_folders()
    finished = next((run for run in runs if all((run / name).exists() for name in NEEDED)), None)
    if finished is None:
        raise ArtifactError(f"{given or 'No run under outputs/ and multirun/'} has no {' and '.join(NEEDED)}.")
    return finished


@contextmanager
def _tensorboard(run: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows this run alone; its page names no folder of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with TemporaryDirectory() as folder:
        logs = Path(folder, "runs")
        logs.mkdir()
        (logs / run.resolve().name).symlink_to((run / "tensorboard").resolve())
        command = ["-m", "tensorboard.main", "--logdir", logs.name, "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, *command, "--load_fast", "false"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for_charts(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for_charts(address: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        try:
            with urlopen(f"{address}/data/plugins_listing", timeout=PATIENCE_S) as answer:
                if json.load(answer)[CHARTS]["enabled"]:
                    return
        except OSError:
            pass  # it is starting
        time.sleep(0.5)
    raise RuntimeError(f"TensorBoard has no {CHARTS} of this run after {PATIENCE_S} seconds.")


def _photograph(page: str, path: Path, size: tuple[int, int]) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError(f"There is no browser here: install one of {', '.join(BROWSERS)}.")
    with TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        options = [
            "--headless=new",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={DRAWING_MS}",
            f"--screenshot={shot}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # chromium refuses to be root's within it
        ]
        made = subprocess.run([browser, *options, page], capture_output=True, text=True, timeout=5 * PATIENCE_S)
        if not shot.exists():
            raise RuntimeError(f"{browser} made no picture of {page}: {made.stderr[-500:]}")
        picture = Image.open(shot).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise RuntimeError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
