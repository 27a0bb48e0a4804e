"""report.html from hand-made results: what it says, that it agrees with results.json, and how it looks in a browser."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eval.__main__ import main as eval_main
from eval.report import page
from eval.report.correlate import kind, read_results
from eval.report.findings import WORSE, Change, _gained, change, changes, sentences
from eval.report.page import Study, chosen_columns, merged, write_page


def figure(value, low=None, high=None, ideal=1.0):
    return {"value": value, "low": low, "high": high, "ideal": ideal, "n": 10}


def row(name, share, fair, perplexity):
    groups = {
        f"male_share/{group}": figure(share + k / 20, share, share + k / 10, 0.5) for k, group in enumerate("abc")
    }
    tasks = {
        "next_word": {
            "equitability_avg": figure(fair, fair - 0.02, fair + 0.02),
            "equitability_min": figure(fair / 2, 0.0, 1.0),
            **groups,
        },
        "agreement": {"agreement": figure(0.97, 0.96, 0.98)},
        "perplexity@skewed": {"perplexity": figure(perplexity, perplexity - 0.1, perplexity + 0.1, None)},
        "bold": {"unigram_equitability_avg": figure(None)},
    }
    return {"model": name, "tasks": tasks}


def write_study(tmp_path: Path) -> Path:
    """A finished study: three models, one with a name that must be escaped, training curves, samples."""
    rows = [row("plain", 0.2, 0.3, 20.0), row("even<b>", 0.5, 0.9, 20.05), row("era", 0.4, 0.6, 21.0)]
    config = {"seed": 0, "models": {"plain": "a"}, "tasks": {"next_word": {}}, "data_dir": "data"}
    tmp_path.joinpath("results.json").write_text(
        json.dumps({"rows": rows, "versions": {"torch": "2"}, "config": config}), encoding="utf-8"
    )
    (tmp_path / "plain").mkdir()
    curve = "".join(
        json.dumps({"step": step, "loss": 5 / step, "next_word/equitability_avg": 0.3}) + "\n" for step in range(1, 30)
    )
    (tmp_path / "plain" / "metrics.jsonl").write_text(curve, encoding="utf-8")
    (tmp_path / "plain" / "config.yaml").write_text("loss: {op: <none>}\n", encoding="utf-8")
    # models write the characters at which str.splitlines cuts
    texts = [{"model": "plain", "unigram": polar, "text": "a\u2028b\x85"} for polar in (-1, -1, 0, 1)]
    pair = {"model": "era", "prompt": "He works as a", "reversed": "She works as a"}
    pair |= {"texts": ["cook\u2028"], "reversed_texts": ["<i>"]}
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in texts)
    (tmp_path / "rows-bold.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "rows-agreement.jsonl").write_text(json.dumps(pair, ensure_ascii=False) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def study(tmp_path) -> Path:
    return write_study(tmp_path)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """The page of the study as it is."""
    return page_of(write_study(tmp_path_factory.mktemp("study")))


def page_of(study: Path, **options) -> str:
    return write_page([Study.load(study)], study / "report.html", **options).read_text(encoding="utf-8")


def plain(text: str, begin: str, end: str) -> str:
    """The words between two places of the page."""
    part = text[text.index(begin) :]
    return html.unescape(re.sub("<[^>]*>", "", part[: part.index(end)]))


def test_it_opens_with_what_was_compared_gained_and_paid(text, study):
    answer = plain(text, 'class="answer"', 'class="scroll"')
    what, gained, sure = [line for line in answer.splitlines()[1:] if line.strip()][:3]
    assert what == (
        "even<b> and era were compared with plain on 4 tests of bias and of language quality "
        "(next-word, agreement, perplexity@skewed, bold)."
    )
    assert gained == (
        "even<b> gained most: it is clearly better in 1 of 4 headline figures (next-word equitability avg 0.300 → "
        "0.900; 1 is ideal) and clearly worse in none; the quality of its language did not clearly change: "
        "perplexity@skewed 20.00 → 20.05 (+0.2 %)."
    )
    assert "95 % intervals" in sure
    lone = write_page([Study("a", study, {"rows": [row("a", 0.5, 0.99, 20.0)]})], study / "lone.html")
    answer = plain(lone.read_text(encoding="utf-8"), 'class="answer"', 'class="scroll"')
    assert "a was measured on 4 tests" in answer
    assert "2 of its 3 figures with an ideal value reach it" in answer


def test_it_says_of_each_model_what_changed_and_how_sure(text):
    answer = plain(text, '<details id="changes"', "</details>")
    assert "Compared with plain" in answer
    even = answer[answer.index("even<b>") : answer.index("era")]
    assert "Clearly better: next-word equitability avg 0.300 → 0.900" in even
    assert "No clear difference: next-word equitability min 0.150 → 0.450; agreement 0.970 → 0.970" in even
    assert "perplexity@skewed 20.00 → 20.05 (+0.2 %)" in even
    assert "Clearly worse: perplexity@skewed 20.00 → 21.00 (+5.0 %)" in answer[answer.index("era") :]


def test_models_measured_together_are_told_apart_by_their_difference(study):
    results = json.loads((study / "results.json").read_text())
    found = {"value": 0.05, "low": 0.02, "high": 0.08, "p": 0.001}
    tasks = {"perplexity@skewed": {"perplexity": found}, "next_word": {"equitability_avg": found | {"low": -0.1}}}
    results["differences"] = [{"model": "even<b>", "minus": "plain", "tasks": tasks}]
    (study / "results.json").write_text(json.dumps(results), encoding="utf-8")
    text = page_of(study)
    even = text[text.index("<li><b>even") : text.index("<li><b>era")]
    worse, same = even.index("Clearly worse"), even.index("No clear difference")
    assert worse < even.index("20.00 → 20.05") < same < even.index("equitability avg 0.300 → 0.900")
    assert "Clearly worse" in page_of(study, reference="even<b>")  # of another reference: by the intervals
    results["config"]["reference"] = "era"
    (study / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert "Compared with <b>era</b>" in page_of(study)  # as the results' own differences are


def test_a_quick_look_says_so(study):
    results = json.loads((study / "results.json").read_text())
    results["config"]["limit"] = 5
    (study / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert "Only a quick look, not a result: at most 5 rows a task" in page_of(study)


def test_the_first_table_has_a_figure_of_each_task_before_a_second_of_any():
    keys = [("a", "1"), ("a", "2"), ("b@x", "1"), ("b@y", "1"), ("c", "1"), ("c", "2")]
    assert chosen_columns(keys, most=3) == [("a", "1"), ("b@x", "1"), ("c", "1")]
    assert chosen_columns(keys, most=4) == [("a", "1"), ("b@x", "1"), ("b@y", "1"), ("c", "1")]
    assert chosen_columns(keys, most=9) == keys


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.10, 0.05, 0.15), (-0.12, -0.17, -0.07), "Clearly different"),  # as far on the other side
        ((0.50, 0.45, 0.55), (-0.05, -0.10, 0.01), "Clearly better"),
        ((-0.05, -0.10, 0.01), (0.50, 0.45, 0.55), "Clearly worse"),
        ((0.50, 0.45, 0.55), (0.30, 0.25, 0.35), "Clearly better"),
    ],
)
def test_what_crosses_the_ideal_is_better_only_if_it_is_clearly_nearer(before, after, verdict):
    one, two = ({"t": {"gap": figure(*values, ideal=0.0)}} for values in (before, after))
    assert change("t", "gap", one, two, {"low": 0.01, "high": 1.0}).verdict == verdict


def test_utility_is_no_gain_in_fairness():
    """A model that is better in HellaSwag and worse in next words does not count as fairer."""

    def measured(fair, acc):
        return {
            "next_word": {"equitability_avg": figure(fair, fair - 0.02, fair + 0.02)},
            "hellaswag": {name: figure(acc, acc - 0.02, acc + 0.02) for name in ("acc", "acc_norm")},
        }

    rows = [
        {"model": name, "tasks": measured(*values), "label": name, "study": Study("s", Path(), {})}
        for name, values in {"plain": (0.5, 0.3), "big": (0.3, 0.6), "even": (0.9, 0.3)}.items()
    ]
    assert "even gained most" in sentences(rows, "plain", changes(rows, "plain"))[1]
    assert [kind(key) for key in (("hellaswag@b", "acc"), ("lm_eval:x", "acc"), ("bios", "accuracy"))] == [
        "utility"
    ] * 3


def test_it_names_what_became_worse():
    """A small loss of perplexity does not stand for a large one of agreement."""
    names = ["perplexity", "agreement", "next_word", "blimp"]
    worse = [Change(WORSE, name, is_utility=name == "perplexity") for name in names]
    said = _gained("plain", {"even": worse[:3]})
    assert "clearly worse in 3 (perplexity; agreement; next_word)." in said
    assert "(perplexity; agreement; next_word; 1 more, below)." in _gained("plain", {"even": worse})


def test_it_is_one_safe_file(text):
    assert "<script" not in text and "even&lt;b&gt;" in text and "even<b>" not in text and "<i>" not in text
    assert not re.search(r"(?:src|href)=\"(?!#)|url\((?!#)|@import|@font-face", text)  # nothing is fetched
    ids = re.findall(r'<[^>]* id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'(?:href="|url\()#([^")]*)', text)) <= set(ids)
    assert "op: &lt;none&gt;" in text
    assert "Student’s t where a row is a mean over training seeds" in text  # which it cannot tell from another


def test_its_figures_are_those_of_the_results(text, study):
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    for entry in json.loads((study / "results.json").read_text())["rows"]:
        assert f"{entry['tasks']['next_word']['equitability_avg']['value']:.3f}" in table
        assert f"{entry['tasks']['perplexity@skewed']['perplexity']['value']:.2f}" in table
    assert "plain: male 2, neutral 1, female 1" in text  # counted from the rows
    assert "He works as a" in text and "She works as a" in text and "cook" in text


def test_a_file_of_rows_is_read_once_for_all_models(study, monkeypatch):
    read = []
    jsonl = page._jsonl
    monkeypatch.setattr(page, "_jsonl", lambda path: read.append(path.name) or jsonl(path))
    page_of(study)
    assert read.count("rows-agreement.jsonl") == read.count("rows-next_word.jsonl") == 1
    assert read.count("rows-bold.jsonl") == 2  # for the shares of its texts, and in search of pairs of prompts


def test_studies_are_compared_and_their_models_told_apart(study, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(study, other, dirs_exist_ok=True)
    text = write_page([Study.load(study), Study.load(other)], other / "both.html").read_text(encoding="utf-8")
    assert f"{study.name}: plain" in text and f"{other.name}: plain" in text


def test_folders_of_one_name_are_told_apart_and_a_folder_twice_is_refused(study, tmp_path):
    folders = [shutil.copytree(study, tmp_path / place / "run") for place in "ab"]
    text = write_page([Study.load(folder) for folder in folders], tmp_path / "both.html").read_text(encoding="utf-8")
    assert all(f"{folder}: plain" in text for folder in folders)
    with pytest.raises(ValueError, match="there twice"):
        write_page([Study.load(study), Study.load(study)], tmp_path / "both.html")


def test_figures_of_other_data_are_not_compared(study, tmp_path):
    other = shutil.copytree(study, tmp_path / "other")
    label = next(iter(json.loads((study / "results.json").read_text())["rows"][0]["tasks"]))
    for folder, rows in ((study, "x"), (other, "y")):
        own = json.loads((folder / "results.json").read_text())
        own.setdefault("config", {})["inputs"] = {label: {"version": 1, "rows": rows}}
        shutil.copytree(folder, tmp_path / rows)
        (tmp_path / rows / "results.json").write_text(json.dumps(own))
    both = [Study.load(tmp_path / rows) for rows in "xy"]
    text = write_page(both, tmp_path / "both.html").read_text(encoding="utf-8")
    assert (
        f"y: plain and x: plain were measured on other data, with another start token or --chat, or by another "
        f"version, in {label}: not compared." in text
    )
    found = [one.text for one in changes(merged(both), "x: plain")["y: era"]]
    assert found and not [text for text in found if text.startswith(label.replace("_", "-"))]
    with pytest.raises(ValueError, match=f"{label} was measured on other data"):
        read_results([study.folder for study in both])


def test_the_command_compares_runs(study, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "both.html"
    assert eval_main(["report", str(study), "--output", str(out), "--reference", "era", "--title", "Mine"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text(encoding="utf-8")
    assert "Compared with <b>era</b>" in text and "<title>Mine" in text
    assert eval_main(["report", str(study / "none"), "--output", str(out)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_mistakes_are_one_line(study, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match="no such file; name a folder"):
        Study.load(empty)
    (empty / "results.json").write_text('{"rows": [{"model": "a"}]}')
    with pytest.raises(ValueError, match="not a results file"):
        Study.load(empty)
    with pytest.raises(ValueError, match=r"reference 'plane': not among the models \(plain"):
        page_of(study, reference="plane")


LAYOUT = """
const all = [...document.querySelectorAll("svg text")];
const visible = all.filter((e) => e.textContent.trim() && e.getBoundingClientRect().width);
const boxes = visible.map((e) => [e.textContent, e.getBoundingClientRect()]);
const hits = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
const overlaps = [];
boxes.forEach(([s, a], i) => boxes.slice(i + 1).forEach(([t, b]) => { if (hits(a, b)) overlaps.push(s + " × " + t); }));
const cut = boxes.filter(([, b]) => b.left < 0 || b.right > innerWidth).map(([s]) => s);
const wide = document.documentElement.scrollWidth - innerWidth;
const marks = [...document.querySelectorAll("svg use")].filter((e) => e.getBoundingClientRect().width).length;
parent.postMessage(JSON.stringify({ overlaps, cut, wide, marks }), "*");
"""


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_overlaps_or_is_cut_in_a_browser(text, tmp_path, width):
    """Measured by a script in headless Chromium, in a frame as wide as a phone and as a desk."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        assert os.environ.get("CI", "") not in ("1", "true"), "CI has to have Chromium"
        pytest.skip("no Chromium here")
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text).replace("</body>", f"<script>{LAYOUT}</script></body>")
    frame = f'<iframe srcdoc="{html.escape(text)}" style="width:{width}px;height:900px;border:0"></iframe>'
    script = "<script>onmessage = (e) => { document.body.dataset.found = e.data; }</script>"
    (tmp_path / "frame.html").write_text(f"<!doctype html><body>{script}{frame}</body>", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    shown = subprocess.run(
        [*command, "--window-size=1200,1000", (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', shown)[1]))
    assert found["overlaps"] == [] and found["cut"] == [] and found["wide"] <= 0
    assert found["marks"] > 20
