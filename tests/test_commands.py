"""Every command line of the documents, configurations and recipes is one that its parser accepts."""

import argparse
import re
from pathlib import Path

import pytest

import evenhand
from configs import schema

ROOT = Path(__file__).resolve().parents[1]
PLACES = ["README.md", "CONTRIBUTING.md", "Makefile", "docs/*.md", "configs/*.yaml"]
PLACES += ["examples/**/*.py", "examples/**/*.yml", ".github/**/*.yml"]
FACE = {"counterfactuals": "", "debias": "", "eval": "eval ", "federated": "federated ", "privacy": "privacy "}
COMMAND = re.compile(r"(?<!from )(?<!=)\b(?:evenhand|python -m (\w+)|(train_distill\.py)(?= --)) ([a-z-].*)")
END = re.compile(r"`|\s[#|]|;|&&|\)$")


def command_lines():
    """(file, words after `evenhand`, whether it is a command as it would be typed, not one named in a sentence)."""
    for file in sorted(file for place in PLACES for file in ROOT.glob(place)):
        for line in file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            for module, recipe, rest in COMMAND.findall(line):
                if not module or module in FACE:
                    words = "train " * bool(recipe) + FACE.get(module, "") + END.split(rest)[0]
                    yield (
                        str(file.relative_to(ROOT)),
                        re.sub("[\"']", "", words).split(),
                        "`" not in line and " --" in words,
                    )


LINES = list(command_lines())


@pytest.fixture
def parse_only(monkeypatch):
    """Ends a command where its words are parsed; with "lenient" in it, what is required may be missing."""
    options = set()
    known = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, *given):
        for action in self._actions if "lenient" in options else ():
            action.required = False
        return known(self, *given)

    def stop_after(parse):
        def parsed(self, argv):
            raise StopIteration(parse(self, argv))

        return parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
    return options


def test_a_wrong_line_is_refused(parse_only, capsys):
    for words in (["build", "--source", "a", "--output_dir", "b"], ["sample", "--out_dir", "a"], ["reverse", "a.txt"]):
        with pytest.raises(SystemExit):
            evenhand.main(words)
    assert len(LINES) > 60 and {words[0] for _, words, _ in LINES} >= set(evenhand.COMMANDS) - {"round_trip"}


@pytest.mark.parametrize(("file", "words", "whole"), LINES)
def test_a_command_line_is_accepted(file, words, whole, parse_only, capsys):
    if not whole:
        parse_only.add("lenient")
    try:
        code = evenhand.main(words)
    except StopIteration as stop:
        code = 0
        given = vars(stop.value)
        keys = {word.partition("=")[0] for word in given.get("override") or () if not re.search("[$…]", word)}
        assert all(any(f"{name}.".startswith(f"{key}.") for name in schema.names()) for key in keys), keys
        config = given.get("config") or ""
        assert not config.startswith("configs/") or (ROOT / config).is_file() or "NAME" in config
    except SystemExit as stop:  # --help, or a mistake
        code = stop.code
    assert code == 0, capsys.readouterr().err
