"""What integration tests share: a table of texts with several targets."""

import json

import pytest

WORDS = {"recipe": "bake the dough with sugar", "ledger": "invoice paid in euro", "program": "return the value of"}


def write_targets_table(path, count=60):
    """Texts with a kind (one label each), tags (any number) and now and then a mood, which most of them lack."""
    kinds = list(WORDS)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            kind = kinds[number % 3]
            tags = [tag for tag, every in (("even", 2), ("third", 3)) if number % every == 0]
            said = " ".join(f"{tag} item" for tag in tags)
            row = {
                "id": f"t{number:03d}",
                "text": f"{WORDS[kind]} {said} w{number}x w{number}y",
                "kind": kind,
                "tags": tags,
            }
            if number % 4 == 0:
                row["mood"] = "good" if number % 8 == 0 else "bad"
            stream.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="session")
def targets_table(tmp_path_factory):
    """The path of such a table."""
    return write_targets_table(tmp_path_factory.mktemp("targets") / "texts.jsonl")


@pytest.fixture(scope="session")
def targets_data(targets_table, tmp_path_factory):
    """Overrides that learn its targets."""
    cache = tmp_path_factory.mktemp("cache")
    return (
        "data=emotions",
        "~data.targets.sentiment",
        "~data.targets.ekman",
        "~data.targets.emotion",
        "+data.targets.kind={kind: single}",
        "+data.targets.tags={kind: multi}",
        "+data.targets.mood={kind: single}",
        f"data.train=[{targets_table}]",
        "data.test=[]",
        "data.header=null",
        f"data.cache_dir={cache}",
    )
