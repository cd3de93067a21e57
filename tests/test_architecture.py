"""Promises about the structure: who may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "doctune"
MODULES = sorted(SOURCE.rglob("*.py"))
TRAINING_ONLY = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "torchmetrics"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "misc"}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def inside(path: Path, folder: str) -> bool:
    return path.relative_to(SOURCE).parts[0] == folder


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_training_imports_lightning_and_hydra(path):
    if inside(path, "training"):
        return
    assert not {name for name in imports(path) if name.split(".")[0] in TRAINING_ONLY}
    found = {name for name in imports(path, top_level_only=inside(path, "cli")) if name.startswith("doctune.training")}
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_text_and_corpus_import_no_torch(path):
    if inside(path, "text") or inside(path, "corpus"):
        assert not {name for name in imports(path) if name.split(".")[0] in ("torch", "transformers")}


def test_there_is_no_room_for_leftovers():
    assert not [path for path in MODULES if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import doctune", ("torch", "lightning", "hydra", "numpy")),
        (
            "import doctune.text.extract, doctune.text.sandbox",
            ("torch", "transformers", "lightning", "pymupdf", "docx"),
        ),
        ("import doctune.inference.engine", ("torch", "transformers", "lightning", "hydra", "torchmetrics")),
        ("import doctune.cli.main, doctune.cli.predict, doctune.cli.scan", ("torch", "lightning", "hydra", "pyarrow")),
        ("import doctune.training.app", ("torch", "lightning", "transformers")),
    ],
)
def test_a_clean_interpreter_loads_no_more_than_it_needs(statement, absent):
    program = f"{statement}\nimport sys\nprint(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
