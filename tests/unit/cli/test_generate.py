import io
import json
import shutil

import pytest

from doctune.cli.main import main
from doctune.inference.artifact import GENERATION, Artifact
from doctune.labels import Labels
from doctune.text.extract import ExtractSettings


@pytest.fixture(scope="module")
def run(tiny_mistral, tmp_path_factory):
    """A run folder with a language model that knows nothing."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(tiny_mistral, folder / "model")
    Artifact(folder / "model", GENERATION, Labels(()), 64, ExtractSettings()).save()
    (folder / "status.json").write_text("{}")
    return folder


def test_each_prompt_is_answered(run, capsys):
    assert main(["generate", str(run), "--prompt", "Hm?", "--prompt", "Is it?", "--max-new-tokens", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["prompt"], row["tokens"], row["ended"]) for row in rows] == [("Hm?", 3, False), ("Is it?", 3, False)]


def test_a_prompt_comes_from_standard_input_and_a_cut_answer_is_said(run, capsys, monkeypatch):
    main(["generate", str(run), "--prompt", "Hm?", "--max-new-tokens", "3"])
    told = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("Hm?"))
    assert main(["generate", str(run), "--max-new-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == told
    assert captured.err == "doctune: cut after 3 tokens; --max-new-tokens allows more.\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", " "], "The prompt is empty; write what you want to know: --prompt 'What …?'"),
        (["--prompt", "x", "--max-new-tokens", "0"], "--max-new-tokens is 0; ask for at least 1."),
        (["--prompt", "x", "--temperature", "-1"], "--temperature is -1; it must not be negative."),
    ],
)
def test_a_mistake_is_a_sentence(run, capsys, arguments, sentence):
    assert main(["generate", str(run), *arguments]) == 2
    assert capsys.readouterr().err == f"doctune: {sentence}\n"


COMMANDS = {
    "predict": ("{file}",),
    "ask": ("--document", "{file}", "--question", "Who?"),
    "explain": ("{file}",),
    "export": (),
    "serve": ("--port", "8765"),
    "evaluate": (),
    "cascade-tune": (),
}
REFUSALS = {
    "evaluate": "was trained for instruction_tuning; `doctune evaluate` scores classifiers",
    "cascade-tune": "was trained for instruction_tuning; a cascade needs a classifier.",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_language_model_is_not_for_is_refused_in_a_sentence(run, tmp_path, capsys, command):
    file = tmp_path / "note.txt"
    file.write_text("Take two eggs.")
    assert main([command, str(run), *(part.format(file=file) for part in COMMANDS[command])]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    expected = REFUSALS.get(command, "was tuned on instructions, so it writes text, and neither labels nor answers")
    assert expected in said
