"""The documentation site: built without a warning; every setting, task and page is in it."""

import html
import re
from pathlib import Path

import pytest
import yaml

from configs import schema

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as mkdocs builds it; a warning (a dead link, a page in no list) ends the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def page(site: Path, name: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", (site / name / "index.html").read_text(encoding="utf-8")))


def test_every_setting_is_on_the_page_of_settings(site):
    text = page(site, "configuration")
    for key, item in schema.names().items():
        meaning = re.split("[|{`]", item.description)[0][:30]
        assert key.rpartition(".")[2] in text and meaning in text, key


def test_the_python_reference_has_docstrings(site):
    text = page(site, "api")
    for name in ("Reverser", "AlignedPair", "distillation_loss", "DistillTask", "Scorer", "write_page"):
        assert name in text
    assert "exact for one-to-one words" in text or "log-probabilities" in text


def test_an_interval_in_a_table_is_one_piece_below_its_figure(site):
    rows = re.findall("<tr>.*?</tr>", (site / "results" / "index.html").read_text(encoding="utf-8"), re.DOTALL)
    (teacher, *_) = [row for row in rows if "<td>teacher</td>" in row and "0.369" in row]
    assert re.search(r">0\.390 <small>\[0\.369, 0\.408\]</small></td>", teacher)
    assert teacher.count("<small>[") == teacher.count("[") > 6


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def leaves(node):
        values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else [node]
        return {node} if isinstance(node, str) else set().union(*map(leaves, values))

    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= leaves(nav)


def test_pictures_of_pages_are_there():
    for path in (ROOT / "docs").glob("*.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / picture).is_file(), (path.name, picture)
