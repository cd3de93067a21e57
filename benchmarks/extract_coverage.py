"""How many files of a folder give text: doctune, the three plain libraries, kreuzberg and markitdown where installed.

The plain libraries get the files of their formats, kreuzberg and markitdown all but those that are `unsupported` here.

python benchmarks/extract_coverage.py ../shared/data/documents
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import _peers

from doctune.documents import Document
from doctune.text.sandbox import extract_files
from doctune.text.walk import walk_files


def main() -> None:
    """Print the statuses by suffix, then who gets text from how many files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="a folder of real documents")
    paths = [
        path for path in walk_files([parser.parse_args().documents]) if path.name not in ("README.md", "manifest.csv")
    ]
    start = time.perf_counter()
    documents = list(extract_files(paths))
    print(f"{len(paths)} files in {time.perf_counter() - start:.1f} s of wall time, start of the workers included\n")
    _print_statuses(documents)
    print(f"\n{'files with text':24}{sum(document.status == 'ok' for document in documents):>6}  doctune")
    three = [path for path in paths if path.suffix.lower() in (".docx", ".xlsx", ".pdf")]
    by_three = _peers.num_with_text(_peers.three_libraries_text, three)
    print(f"{'':24}{by_three:>6}  python-docx, openpyxl, PyMuPDF (by suffix)")
    common = [path for path in paths if path.suffix.lower() not in (".doc", ".msg")]
    for name, peer in (("kreuzberg", _kreuzberg()), ("markitdown", _markitdown())):
        if peer is not None:
            print(f"{'':24}{_peers.num_with_text(peer, common):>6}  {name}, without .doc and .msg", flush=True)


def _print_statuses(documents: list[Document]) -> None:
    counts = Counter((Path(document.path).suffix.lower(), document.status) for document in documents)
    statuses = sorted({status for _, status in counts})
    print(f"{'':8}" + "".join(f"{status:>13}" for status in statuses))
    for suffix in sorted({suffix for suffix, _ in counts}):
        print(f"{suffix:8}" + "".join(f"{counts[suffix, status] or '':>13}" for status in statuses))
    totals = Counter(document.status for document in documents)
    print(f"{'all':8}" + "".join(f"{totals[status]:>13}" for status in statuses))


def _kreuzberg() -> _peers.Extract | None:
    try:
        import kreuzberg  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return lambda path: str(kreuzberg.extract_file_sync(str(path)).content)


def _markitdown() -> _peers.Extract | None:
    try:
        from markitdown import MarkItDown  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    converter = MarkItDown()
    return lambda path: str(converter.convert_local(str(path)).text_content)


if __name__ == "__main__":
    main()
