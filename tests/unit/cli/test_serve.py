"""`doctune serve`: which arguments it takes, and what it says of those that make no sense."""

import os

import pytest

from doctune.cli.main import main
from doctune.errors import ConfigError
from doctune.inference import server
from doctune.inference.server import ServerSettings
from doctune.text.sandbox import Limits


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "example.org"], "host is 'example.org'; LitServe listens on one of: 127.0.0.1, 0.0.0.0, ::."),
        (["--port", "80"], "port is 80; use a number from 1024 to 65535."),
        (["--workers", "0"], "workers is 0; use a number from 1."),
        (["--batch-size", "0"], "batch_size is 0; use a number from 1."),
        (["--max-texts", "0"], "max_texts is 0; use a number from 1."),
        (["--max-chars", "-1"], "max_chars is -1; use a number from 1."),
        (["--max-requests", "0"], "max_requests is 0; use a number from 1."),
        (["--timeout-s", "0"], "timeout_s is 0; use a number above 0."),
        (["--max-body-mb", "nan"], "max_body_mb is nan; use a number above 0."),
        (
            ["--batch-wait-ms", "2000", "--timeout-s", "1"],
            "batch_wait_ms is 2000; use a number from 0, and shorter than timeout_s (1 s).",
        ),
        (["--file-timeout-s", "0"], "timeout_s is 0.0; use a number of seconds above 0."),
        (["--file-memory-mb", "100"], "memory_mb is 100; the PDF library alone needs 256."),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, capsys, options, sentence):
    assert main(["serve", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err == f"doctune: {sentence}\n"


def test_a_folder_without_a_model_is_refused(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no exported model" in capsys.readouterr().err


def test_a_backend_that_is_not_exported_is_refused(tiny_model, capsys):
    folder = tiny_model()
    capsys.readouterr()  # what making it said
    assert main(["serve", str(folder), "--backend", "int8"]) == 2
    sentence = f"doctune: {folder} has no int8 net. Make it with `doctune export {folder} --int8`.\n"
    assert capsys.readouterr().err == sentence


def test_a_system_that_cannot_fork_is_refused(tiny_model, capsys, monkeypatch):
    folder = tiny_model()
    capsys.readouterr()  # what making it said
    monkeypatch.delattr(os, "fork")
    assert main(["serve", str(folder)]) == 2
    assert capsys.readouterr().err == "doctune: doctune serve needs a system that can fork, such as Linux or macOS.\n"


def test_the_arguments_reach_the_server_and_other_hosts_are_warned_of(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(server, "serve", lambda run, settings: given.append((run, settings)) or True)
    options = {
        "--host": "0.0.0.0",
        "--port": 8123,
        "--backend": "onnx",
        "--workers": 2,
        "--batch-size": 4,
        "--batch-wait-ms": 7,
        "--timeout-s": 8,
        "--max-body-mb": 2.5,
        "--max-texts": 9,
        "--max-chars": 10,
        "--max-requests": 11,
        "--file-timeout-s": 12,
        "--file-memory-mb": 300,
    }
    assert main(["serve", str(tmp_path), *(str(part) for pair in options.items() for part in pair)]) == 0
    assert given == [
        (tmp_path, ServerSettings("0.0.0.0", 8123, "onnx", 2, 4, 7, 8, 2.5, 9, 10, 11, Limits(12, 300))),
    ]
    assert capsys.readouterr().err == (
        "doctune: listening on 0.0.0.0, where other machines can reach it: there is no authentication. Put a proxy "
        "that has it in front.\n"
    )


def test_defaults_are_those_of_the_settings_and_listen_on_this_machine_only(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(server, "serve", lambda run, settings: given.append(settings) or True)
    assert main(["serve", str(tmp_path)]) == 0
    assert given == [ServerSettings()]
    assert given[0].host == "127.0.0.1"
    assert capsys.readouterr().err == ""


def test_settings_are_checked_without_the_command():
    with pytest.raises(ConfigError, match=r"^workers is -1; use a number from 1\.$"):
        ServerSettings(workers=-1)
