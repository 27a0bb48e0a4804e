"""The public face: names that load when they are used, and one command that hands on to the modules."""

import subprocess
import sys
from pathlib import Path

import pytest

import evenhand

ROOT = Path(evenhand.__file__).parent
HEAVY = {"torch", "numpy", "transformers", "accelerate", "datasets", "pydantic", "yaml", "rich", "scipy", "sklearn"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_importing_it_imports_nothing_heavy():
    loaded = python("import sys, evenhand; print(*sys.modules)").split()
    assert "evenhand" in loaded and not HEAVY & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize("name", evenhand.NAMES)
def test_every_name_loads_and_has_help(name):
    found = getattr(evenhand, name)
    assert found.__name__ == name and found.__doc__ and len(found.__doc__) > 20
    assert f"\n    {name} " in evenhand.__doc__ and name in dir(evenhand)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="no 'DistilTask'; did you mean DistillTask"):
        evenhand.DistilTask  # noqa: B018
    assert not hasattr(evenhand, "__wrapped__")


def test_reverse_takes_a_lexicon_and_options():
    assert evenhand.reverse("He gave her his book.").reversed == "She gave him her book."
    for words in (["queen"], "queen"):
        assert evenhand.reverse("The queen thanked him.", protected=words).reversed == "The queen thanked her."
    assert evenhand.reverse("She saw him.", direction="female").reversed == "He saw him."


@pytest.mark.parametrize("name", evenhand.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        evenhand.main([name, "--help"])
    assert stop.value.code == 0 and "usage" in capsys.readouterr().out


def test_the_list_of_commands(capsys):
    assert evenhand.main([]) == evenhand.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in evenhand.COMMANDS)
    assert evenhand.main(["--version"]) == 0 and capsys.readouterr().out.strip()
    assert evenhand.main(["trian"]) == 2
    assert "no command 'trian'; did you mean train?" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("eval.__main__.main", stopped)
    assert evenhand.main(["eval"]) == 130 and capsys.readouterr().err == "interrupted\n"


def test_commands_reach_their_modules(tmp_path, capsys):
    assert evenhand.main(["sample", "--output_dir", str(tmp_path), "--seed", "3"]) == 0
    assert (tmp_path / "train.jsonl").exists()
    assert evenhand.main(["eval", "--list"]) == 0 and "perplexity" in capsys.readouterr().out
    assert evenhand.main(["train", "--print_config", "teacher=x", "train.max_steps=1"]) == 0
    assert "max_steps: 1" in capsys.readouterr().out
    assert evenhand.main(["cache", "teacher=x", "train.max_steps=1"]) == 2
    assert "teacher.cache: no run sets it" in capsys.readouterr().err
