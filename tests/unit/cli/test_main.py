import pytest

from doctune import __version__
from doctune.cli.main import COMMANDS, HYDRA_COMMANDS, main


def test_a_mistyped_command_gets_a_suggestion(capsys):
    assert main(["predcit", "x"]) == 2
    assert "there is no command 'predcit'. Did you mean `doctune predict`?" in capsys.readouterr().err


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in [*COMMANDS, *HYDRA_COMMANDS])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  doctune {name}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"doctune {__version__}\n"
