"""Every example runs as it stands, and the notebook from the first cell to the last."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.runs import fresh

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem != "tiny")
PRINTS = {
    "add_a_lexicon": "The oldest of the workers asked the young man.",
    "add_an_op": "[0.2, 0.2, 0.2, 0.4]",
    "counterfactuals_map": "My father told his daughter a story.",
    "loss_in_your_loop": "step 6:",
    "measure_a_model": "two: equitability 0.",
    "pairs_by_datatrove": "shards, the same bytes as by one machine",
    "your_model": "1 layer(s)",
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_example(path, monkeypatch, tmp_path, capsys):
    if path.stem == "pairs_by_datatrove":
        pytest.importorskip("datatrove")
        monkeypatch.setattr("counterfactuals.tokens.pairs.SHARD_CHARACTERS", 5_000)  # several shards of few texts
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        fresh()
    assert PRINTS[path.stem] in capsys.readouterr().out


def test_the_list_of_examples_is_complete():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in (*SCRIPTS, *EXAMPLES.glob("*.ipynb")):
        assert f"({path.name})" in text
    assert {path.stem for path in SCRIPTS} == set(PRINTS)


@pytest.mark.slow
def test_the_notebook_runs_from_the_first_cell_to_the_last(monkeypatch, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("STEPS", "4")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "story.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "The nurse said that he had lost his keys." in printed
    assert "even     equitability 0." in printed and printed.rstrip().endswith("True")
