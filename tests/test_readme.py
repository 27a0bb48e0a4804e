"""What the README promises is there, and its examples print what they say."""

import re
import subprocess
import sys
from pathlib import Path

import evenhand

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:\w*)\n(.*?)```", README, flags=re.S)


def test_the_first_commands_are_the_two_that_set_everything_up():
    commands = [line.split("#")[0].split() for line in BLOCKS[0].strip().splitlines()]
    assert commands == [["make", "quickstart"], ["make", "test"]]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    assert {"quickstart", "test", "help", "check"} <= set(targets)


def test_every_file_and_link_it_names_exists():
    names = set(re.findall(r"\]\((?!http)([^)#]+)\)", README))
    names |= {f"configs/{name}" for name in re.findall(r"`(\w+\.yaml)`", README)} - {"configs/config.yaml"}
    names |= set(re.findall(r"(?:configs|benchmarks|docs|debias|eval|counterfactuals)/[\w./]+\.\w+", README))
    tree = next(block for block in BLOCKS if block.startswith("evenhand.py"))
    names |= {line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")}
    missing = [name for name in names if not (ROOT / name).exists()]
    assert names and not missing


def test_the_settings_it_shows_are_settings():
    from configs import schema

    shown = set(re.findall(r"(?<![\w.-])((?:teacher|data|train|loss|eval|output_dir)[\w.]*)=", README))
    assert shown and shown <= set(schema.names())


def test_nothing_is_left_to_fill_in():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "@@" not in page.read_text(encoding="utf-8"), page.name


def test_its_example_of_a_reversal_is_what_the_command_prints():
    text, expected = re.search(r"echo '(.*)' \| \S+/evenhand reverse\n(.*)\n", README).groups()
    command = [sys.executable, "-m", "evenhand", "reverse"]
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == expected + "\n"


def test_its_python_imports_work():
    code = next(block for block in BLOCKS if "distillation_loss" in block)
    exec(compile(code, "README.md", "exec"), {})


def test_the_eval_command_lists_its_tasks(capsys):
    assert evenhand.main(["eval", "--list"]) == 0
    assert {"bold", "perplexity", "next_word", "agreement"} <= set(re.findall(r"\w+", capsys.readouterr().out))
