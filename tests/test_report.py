"""Tables and pictures from hand-made results."""

import io

import pytest
from rich.console import Console

from eval import report


def figure(value, low=None, high=None, ideal=1.0):
    return {"value": value, "low": low, "high": high, "ideal": ideal, "n": 10}


def results():
    """Two models; some figures are undefined, some lack an interval."""
    rows = []
    for name, share, perplexity in (("teacher", 0.2, 25.1666), ("even", 0.48, 26.0)):
        groups = {
            "male_share/nurse": figure(share, share - 0.1, share + 0.1, 0.5),
            "male_share/metalworking_occupations": figure(1 - share, ideal=0.5),
            "male_share/editor": figure(None, ideal=0.5),
            "ratio/nurse": figure(share / (1 - share)),
            "equitability/nurse": figure(share / (1 - share)),
        }
        rows.append(
            {
                "model": name,
                "tasks": {
                    "perplexity@skewed": {"perplexity": figure(perplexity, 25.0, 27.0, None)},
                    "bold": {
                        "unigram_equitability_avg": figure(0.25, 0.2, 0.3),
                        "unigram_equitability_min": figure(None),
                        "fair_band_avg": figure(0.9, 0.85, 0.95, None),
                        **groups,
                    },
                },
            }
        )
    return {"rows": rows, "versions": {"python": "3"}, "config": {"seed": 0}}


def test_shown():
    assert report.shown(figure(0.32649, 0.3, 0.35)) == "0.326 [0.300, 0.350]"
    assert report.shown(figure(25.1666)) == "25.17"
    assert report.shown(figure(None)) == report.shown(None) == "–"
    assert report.shown({**figure(0.25, 0.01, 0.7), "small": True}) == "0.250 [0.010, 0.700] (n = 10)"


def test_differences_are_shown_with_their_p(tmp_path):
    whole = results()
    apart = {"value": 0.12, "low": 0.02, "high": 0.21, "p": 0.0123}
    tasks = {"bold": {"unigram_equitability_avg": apart, "ratio/nurse": apart}, "perplexity@skewed": {}}
    whole["differences"] = [{"model": "even", "minus": "teacher", "tasks": tasks}]
    text = report.differences(whole)
    assert text.splitlines()[0] == "| minus teacher | bold equitability avg |"
    assert text.splitlines()[2] == "| even | +0.120 [0.020, 0.210], p 0.012 |"
    assert text in report.write_report(whole, tmp_path).read_text()
    assert report.shown_difference({**apart, "value": -0.5, "p": None}) == "-0.500 [0.020, 0.210]"
    assert report.differences(results()) == ""


def test_markdown_has_a_row_for_each_model():
    rows = results()["rows"]
    del rows[1]["tasks"]["bold"]
    lines = report.markdown(rows).splitlines()
    assert report.markdown(rows, [("bold", "fair_band_avg")]).startswith("| model | bold fair band avg |\n")
    assert (
        lines[0]
        == "| model | perplexity@skewed ↓ | bold equitability avg (ideal 1) | bold equitability min (ideal 1) |"
    )
    assert lines[2] == "| teacher | 25.17 [25.00, 27.00] | 0.250 [0.200, 0.300] | – |"
    assert lines[3] == "| even | 26.00 [25.00, 27.00] | – | – |"
    assert (
        report.markdown(rows, [("perplexity@skewed", "perplexity")]).splitlines()[2]
        == "| teacher | 25.17 [25.00, 27.00] |"
    )


def test_table_shows_every_figure():
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(report.table(results()["rows"]))
    text = console.export_text()
    for part in ("teacher", "even", "25.17", "[25.00, 27.00]", "[0.200, 0.300]", "–"):
        assert part in text


@pytest.mark.parametrize("metric", ["male_share", "ratio", "equitability"])
@pytest.mark.parametrize("name", ["groups.png", "groups.svg"])
def test_groups_are_drawn(tmp_path, metric, name):
    path = report.plot_groups(results()["rows"], "bold", tmp_path / "new" / name, metric=metric)
    content = path.read_bytes()
    assert content[:4] == b"\x89PNG" if name.endswith("png") else b"<svg" in content
    assert len(content) > 5000


def test_where_one_table_is_too_wide_there_is_one_for_each_task():
    rows = results()["rows"]
    for width, tables in ((80, 1), (50, 2)):
        console = Console(width=width, record=True, file=io.StringIO())
        report.print_report(rows, console)
        text = console.export_text()
        assert text.count("model") == tables
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        for part in ("@skewed", "[25.00, 27.00]", "[0.200, 0.300]"):
            assert part in text


def test_many_figures_of_one_model_are_a_line_each():
    row = results()["rows"][0]
    row["tasks"] |= {f"bold@{i}": row["tasks"]["bold"] for i in range(9)}
    console = Console(width=80, record=True, file=io.StringIO())
    report.print_report([row], console)
    lines = console.export_text().splitlines()
    columns = report.headlines([row])
    assert len(lines) == len(columns) + 5
    for line, (label, metric) in zip(lines[3:], columns):
        assert report._name(label, metric) in line
        assert report.shown(row["tasks"][label][metric]) in line


def test_a_table_that_is_piped_is_not_squeezed(capsys):
    row = results()["rows"][0]
    row["tasks"] |= {f"bold@{i}": row["tasks"]["bold"] for i in range(3)}
    report.print_report([row])
    text = capsys.readouterr().out
    assert text.count("model") == 1
    assert max(map(len, text.splitlines())) > 100


@pytest.mark.parametrize("names", [("teacher", "even"), tuple(f"a model with a long name{i}" for i in range(5))])
def test_labels_are_not_cut(names, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    original = report._save
    try:
        report._save = lambda figure, path: drawn.append(figure) or original(figure, path)
        rows = [{**results()["rows"][i % 2], "model": name} for i, name in enumerate(names)]
        tradeoff = {"x": ("perplexity@skewed", "perplexity"), "y": ("bold", "unigram_equitability_avg")}
        report.plot_groups(rows, "bold", tmp_path / "groups.png")
        report.plot_tradeoff(rows, tmp_path / "tradeoff.png", **tradeoff)
    finally:
        report._save = original
    for figure in drawn:
        assert isinstance(figure, Figure)
        figure.canvas.draw()
        box, axes = figure.bbox, figure.axes[0]
        assert len(figure.legends[0].get_texts()) == len(names)
        ticks = axes.get_yticklabels() + axes.get_xticklabels() if figure is drawn[0] else []
        for label in ticks + figure.texts + figure.legends:
            extent = label.get_window_extent()
            assert box.x0 <= extent.x0
            assert extent.x1 <= box.x1
            assert box.y0 <= extent.y0
            assert extent.y1 <= box.y1
        assert figure.legends[0].get_window_extent().y0 >= axes.get_window_extent().y1


def test_what_cannot_be_drawn_is_named(tmp_path):
    rows = results()["rows"]
    with pytest.raises(ValueError, match="no figure male_share/GROUP of task 'next_word'"):
        report.plot_groups(rows, "next_word", tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"no model has both perplexity\.perplexity"):
        report.plot_tradeoff(rows, tmp_path / "a.png")


def test_report_embeds_what_it_writes(tmp_path):
    path = report.write_report(results(), tmp_path)
    text = path.read_text()
    for name in ("groups-bold.png", "tradeoff.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).stat().st_size > 5000
    assert "| teacher | 25.17" in text
    assert "a perfectly fair model with as many polar texts would score 0.900 [0.850, 0.950]" in text
    seeds = {**results(), "config": {"seed": 3, "seeds": [3, 4]}}
    assert "\nSeeds 3, 4; " in report.write_report(seeds, tmp_path).read_text()
    assert "Student's t where a row is a mean over training seeds" in path.read_text()
