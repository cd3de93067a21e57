"""`python train.py --help`, from the files in `conf/`: each choice with the sentence at its top.

Hydra's own help composes every choice and lists the schemas too, which takes longer and says less.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

_HEAD = """\
{command}: {purpose}

usage: {command} [GROUP=CHOICE …] [KEY=VALUE …] [Hydra options]

examples:
  {command} model=minilm data=ifmos optim.lr=3e-5
  {command} --cfg job                                 every key with its value, nothing is run

choices (* is the default):
"""
_TAIL = """
Keys and what they mean: src/doctune/training/config_schema.py and config_data.py
A sweep: {command} -m optim.lr=1e-5,3e-5
Hydra's own options: {command} --hydra-help
"""
_PURPOSES = {
    "train": "make a run",
    "prepare": "extract, store and split the data of a run without training",
}


def help_text(command: str, shown_as: str, conf: Path) -> str:
    """The help of `train` or `prepare`, whose command line is `shown_as`."""
    head = _HEAD.format(command=shown_as, purpose=_PURPOSES[command])
    return head + "\n".join(_choices(conf)) + "\n" + _TAIL.format(command=shown_as)


def groups(conf: Path) -> list[str]:
    """The names of the groups of choices."""
    return sorted(folder.name for folder in conf.iterdir() if folder.is_dir())


def choices(conf: Path, group: str) -> list[str]:
    """The names of the choices of a group."""
    return sorted(file.stem for file in (conf / group).glob("*.yaml"))


def _choices(conf: Path) -> Iterator[str]:
    defaults = _defaults(conf / "config.yaml")
    for group in groups(conf):
        yield f"  {group}="
        for name in choices(conf, group):
            mark = "*" if defaults.get(group) == name else " "
            yield f"   {mark} {name:<16} {_sentence(conf / group / f'{name}.yaml')}"


def _defaults(config: Path) -> dict[str, str]:
    entries = yaml.safe_load(config.read_text(encoding="utf-8"))["defaults"]
    return {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}


def _sentence(file: Path) -> str:
    """What the first comment says, without the command that does it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = next(line for line in lines if line.startswith("# ") and not line.startswith("# @package"))
    return comment.removeprefix("# ").split(": python train.py")[0]
