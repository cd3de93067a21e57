"""The commands' columns of the README's support matrix are true for every kind of model."""

from pathlib import Path

import pytest

from doctune.cli.main import main

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
TASKS = {
    "ifmos": "classification",
    "chunks": "hierarchical_classification",
    "squad": "question_answering",
    "emotions": "multi_task",
}
COMMANDS = {
    "predict": ("{model}", "{file}"),
    "cascade-tune": ("{run}",),
    "evaluate": ("{run}",),
    "ask": ("{model}", "--document", "{file}", "--question", "Who?"),
    "explain": ("{model}", "{file}", "--steps", "2"),
}
REFUSALS = {
    "predict": "labels need a classifier",
    "cascade-tune": "needs a classifier",
    "evaluate": "`doctune evaluate` scores classifiers, of data=ifmos and data=chunks, and readers, of data=squad.",
    "ask": "questions need a reader",
}


def cells():
    """Data, command and the matrix's answer, of the commands that need no more than a model folder to be asked."""
    lines = README.splitlines()
    (header,) = [line for line in lines if line.startswith("| | `finetune=full`")]
    columns = [[name.strip("` ") for name in cell.split(",")] for cell in header.strip("| ").split(" | ")]
    for line in lines:
        if line.startswith("| `data=") and "distilbert_mini" in line:
            what, *answers = line.strip("| ").split(" | ")
            data = what.partition(" with ")[0].strip("`").removeprefix("data=")
            for names, answer in zip(columns, answers, strict=True):
                yield from ((data, name, answer) for name in names if name in COMMANDS)


@pytest.mark.parametrize("form", ["whole", "adapter"])
@pytest.mark.parametrize(("data", "command", "answer"), cells())
def test_the_matrix_says_what_a_command_does(tiny_model, adapted_model, tmp_path, capsys, data, command, answer, form):
    file = tmp_path / "note.txt"
    file.write_text("Take two eggs and sugar.")
    options = ("--question", "What to take?") if (data, command) == ("squad", "explain") else ()
    make = {"whole": tiny_model, "adapter": adapted_model}[form]
    model, run = make(TASKS[data]), tmp_path / "run"
    run.mkdir()
    (run / "status.json").write_text("{}")
    (run / "model").symlink_to(model)
    arguments = [part.format(model=model, run=run, file=file) for part in COMMANDS[command]]
    status = main([command, *arguments, *options])
    said = capsys.readouterr().err
    if answer == "refused":
        assert (status, REFUSALS[command] in said) == (2, True), said
    elif command in ("cascade-tune", "evaluate"):  # this run has no documents
        assert REFUSALS[command] not in said
    else:
        assert status == 0, said


def test_the_matrix_is_read():
    assert len([*cells()]) == len(TASKS) * len(COMMANDS)
