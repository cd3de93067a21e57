"""Files per second of one core: doctune (4,000 characters) against the plain libraries (whole files), in one run.

Rates are over the files that the peer opens at all, since refusing a file takes no time; texts (doctune : peer) are the
files, of all, that give any. Both take turns, each with all files of a row; a rate is that of the median repeat, and
least and most are the ratios of single repeats.

The documents are read alone, with 25 large files of each kind that the script makes, and as `a large folder`: with as
few large ones as bring the peer down to the rate that it has on 149 to 649 public documents (`PEER_RATES`), which are
larger than those of a collection for tests.

python benchmarks/extract_speed.py ../shared/data/documents
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import _peers

from doctune.text.extract import ExtractSettings
from doctune.text.sandbox import extract_files

_KINDS = {
    ".docx": ("Word", "python-docx", _peers.python_docx_text),
    ".xlsx": ("Excel", "openpyxl", _peers.openpyxl_text),
    ".pdf": ("PDF", "PyMuPDF", _peers.pymupdf_text),
}
# Files per second of one core, measured on 200 Word, 149 Excel, 300 PDF and 649 mixed public documents.
PEER_RATES = {"Word": 110, "Excel": 38, "PDF": 112, "mixed": 82}
WORDS = "the contract of sale and delivery was signed by both parties on the first day of the month".split()  # noqa: SIM905


def main() -> None:
    """Print one row per set of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="a folder of real documents")
    parser.add_argument("--large", type=int, default=25, help="large files of each kind to make")
    args = parser.parse_args()
    real = {suffix: sorted(args.documents.rglob(f"*{suffix}")) for suffix in _KINDS}
    print(f"{'files':36}{'count':>6}{'peer /s':>9}{'doctune /s':>11}{'ratio':>9}{'(least - most)':>17}{'texts':>9}")
    with tempfile.TemporaryDirectory() as folder:
        made = _make_large(Path(folder), args.large)
        for suffix, (kind, library, peer) in _KINDS.items():
            _compare(f"{kind}, real ({library})", real[suffix], peer)
            _compare(f"{kind}, large made", made[suffix], peer, repeats=1)
            _compare(f"{kind}, real and large", real[suffix] + made[suffix], peer, repeats=1)
            found = _large_folder(real[suffix], [[path] for path in made[suffix]], peer, PEER_RATES[kind])
            _compare(f"{kind}, a large folder", found, peer, repeats=5)
        for name, paths in (("real", real[".pdf"]), ("real and large", real[".pdf"] + made[".pdf"])):
            _compare(f"PDF, 25 largest, {name}", _largest(paths, 25), _peers.pymupdf_text, repeats=3)
        mixed = [path for paths in real.values() for path in paths]
        _compare("mixed, real (the three)", mixed, _peers.three_libraries_text)
        by_turns = [list(paths) for paths in zip(*made.values(), strict=True)]
        found = _large_folder(mixed, by_turns, _peers.three_libraries_text, PEER_RATES["mixed"])
        _compare("mixed, a large folder", found, _peers.three_libraries_text, repeats=5)
        everything = mixed + [path for paths in made.values() for path in paths]
        _compare("mixed, real and large", everything, _peers.three_libraries_text, repeats=1)
        _time_sandbox(everything)


def _large_folder(
    real: Sequence[Path], large: Sequence[Sequence[Path]], peer: _peers.Extract, rate: float
) -> list[Path]:
    """The real files and as few of the large ones, group by group, as let the peer read at most `rate` files/s."""
    opened = [path for path in real if _peers.text_or_none(peer, path) is not None]
    ((times,),) = _peers.seconds_per_file([peer], opened, 1)
    num_files, seconds, found = len(times), sum(times), list(real)
    for group in large:
        if num_files <= rate * seconds:
            break
        found += group
        ((times,),) = _peers.seconds_per_file([peer], group, 1)
        num_files, seconds = num_files + len(times), seconds + sum(times)
    return found


def _compare(name: str, paths: Sequence[Path], peer: _peers.Extract, repeats: int = 7) -> None:
    """A row for all files, and one for their largest third where they are timed more than once."""
    theirs, ours = ([_peers.text_or_none(extract, path) for path in paths] for extract in (peer, _peers.doctune_text))
    opened = [path for path, text in zip(paths, theirs, strict=True) if text is not None]
    texts = " : ".join(str(sum(bool(text and text.strip()) for text in of_one)) for of_one in (ours, theirs))
    times = _peers.seconds_per_file([peer, _peers.doctune_text], opened, repeats)
    _print_row(name, times, range(len(opened)), texts)
    if repeats > 1:
        largest = sorted(range(len(opened)), key=lambda place: opened[place].stat().st_size)[-(len(opened) // 3) :]
        _print_row("  the largest third of these", times, largest, "")


def _print_row(name: str, times: list[list[list[float]]], places: Sequence[int], texts: str) -> None:
    """Rates are of the median repeat; each ratio is of one repeat."""
    peer, ours = ([sum(repeat[place] for place in places) for repeat in by_repeat] for by_repeat in times)
    ratios = sorted(theirs / own for theirs, own in zip(peer, ours, strict=True))
    rates = [len(places) / statistics.median(totals) for totals in (peer, ours)]
    spread = f"({ratios[0]:.1f} - {ratios[-1]:.1f})"
    print(f"{name:36}{len(places):>6}{rates[0]:>9.1f}{rates[1]:>11.1f}", end="")
    print(f"{statistics.median(ratios):>7.1f} x{spread:>17}{texts:>9}", flush=True)


def _largest(paths: Sequence[Path], count: int) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_size)[-count:]


def _time_sandbox(paths: Sequence[Path]) -> None:
    """What isolation costs, start of the worker included (wall clock, so disturbed by whatever else runs)."""
    start = time.perf_counter()
    count = sum(1 for _ in extract_files(paths, ExtractSettings(max_chars=4000), workers=1))
    elapsed = time.perf_counter() - start
    print(f"the last set in one worker process: {count / elapsed:.1f} files/s of wall time, start included")


def _make_large(folder: Path, count: int) -> dict[str, list[Path]]:
    """Files of the size of reports and exports: about 100 pages, 5,000 rows, 200 pages."""
    rng = random.Random(0)
    makers = {".docx": _make_word, ".xlsx": _make_excel, ".pdf": _make_pdf}
    made: dict[str, list[Path]] = {}
    for suffix, make in makers.items():
        made[suffix] = [folder / f"{number}{suffix}" for number in range(count)]
        for path in made[suffix]:
            make(path, rng)
    return made


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=60))


def _make_word(path: Path, rng: random.Random) -> None:
    import docx

    document = docx.Document()
    for _ in range(1000):
        document.add_paragraph(_sentence(rng))
    document.save(str(path))


def _make_excel(path: Path, rng: random.Random) -> None:
    import openpyxl

    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Export")
    for number in range(5_000):
        sheet.append([number, rng.random(), rng.choice(WORDS), f"customer {number}", rng.randrange(10_000)])
    workbook.save(path)


def _make_pdf(path: Path, rng: random.Random) -> None:
    import pymupdf

    with pymupdf.open() as document:
        for _ in range(200):
            document.new_page().insert_textbox((50, 50, 550, 800), " ".join(_sentence(rng) for _ in range(8)))
        document.save(path)


if __name__ == "__main__":
    main()
