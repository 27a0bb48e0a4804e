"""Tables and pictures from hand-made results."""

import io

import pytest
from rich.console import Console

from eval.report import canvas, charts
from eval.report import table as report


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


def test_groups_are_drawn(tmp_path):
    figure = charts.groups(results()["rows"], "bold")
    for name in ("groups.png", "groups.svg"):
        content = canvas.save(figure, tmp_path / "new" / name).read_bytes()
        assert content[:4] == b"\x89PNG" if name.endswith("png") else b"<svg" in content
        assert len(content) > 5000


def drawn_points(figure):
    """(x, y, filled) of every mark."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
    return [(*place, line.get_markerfacecolor() != canvas.PAPER) for line in lines for place in line.get_xydata()]


def test_what_was_counted_over_few_is_hollow_and_over_one_is_not_drawn():
    few = figure(0.9, 0.5, 1.0, 0.5) | {"n": 4, "small": True}
    one = figure(1.0, ideal=0.5) | {"n": 1, "small": True}
    many = figure(0.2, 0.1, 0.3, 0.5) | {"n": 80, "small": False}
    rows = [{"model": "a", "tasks": {"bold": {"male_share/few": few, "male_share/one": one, "male_share/many": many}}}]
    assert [(x, filled) for x, _, filled in drawn_points(charts.groups(rows, "bold"))] == [(0.2, True), (0.9, False)]
    with pytest.raises(ValueError, match="bold: no group has a male_share, counted over more than one"):
        charts.groups([{"model": "a", "tasks": {"bold": {"male_share/one": one}}}], "bold")


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
        assert report.name_of(label, metric) in line
        assert report.shown(row["tasks"][label][metric]) in line


def test_a_table_that_is_piped_is_not_squeezed(capsys):
    row = results()["rows"][0]
    row["tasks"] |= {f"bold@{i}": row["tasks"]["bold"] for i in range(3)}
    report.print_report([row])
    text = capsys.readouterr().out
    assert text.count("model") == 1
    assert max(map(len, text.splitlines())) > 100


@pytest.mark.parametrize("width", [canvas.WIDE, canvas.NARROW])
@pytest.mark.parametrize("names", [("teacher", "even"), tuple(f"a model with a long name{i}" for i in range(5))])
def test_labels_are_not_cut(names, width):
    rows = [{**results()["rows"][i % 2], "model": name} for i, name in enumerate(names)]
    keys = ("perplexity@skewed", "perplexity"), ("bold", "unigram_equitability_avg")
    measures = {"a": [{"value": 0.1, "low": 0, "high": 1, "ideal": 0.0}] * len(rows)}
    lines = {"loss": {name: [(0, 1.0), (10, 0.5)] for name in names}}
    drawn = [
        charts.groups(rows, "bold", width=width, title="Disparity by group" if width == canvas.WIDE else ""),
        charts.tradeoff(charts.spots(rows, *keys), x_name="x", y_name="y", width=width),
        charts.strips(measures, names, width=width),
        charts.curves(lines, "round", width=width),
        charts.shares({name: {"male": 1, "neutral": 2, "female": 3} for name in names}, width=width),
    ]
    for picture in drawn:
        picture.draw_without_rendering()
        box, axes = picture.bbox, picture.axes[0]
        ticks = axes.get_yticklabels() + axes.get_xticklabels() if picture in (drawn[0], drawn[4]) else []
        for label in ticks + axes.texts + picture.texts + picture.legends:
            extent = label.get_window_extent()
            assert box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
        for legend in picture.legends:
            assert len(legend.get_texts()) == len(names)
            assert legend.get_window_extent().y0 >= axes.get_window_extent().y1
            assert legend.get_window_extent().y0 >= axes.title.get_window_extent().y1


def test_what_cannot_be_drawn_is_named():
    rows = results()["rows"]
    with pytest.raises(ValueError, match="next_word: no group has a male_share"):
        charts.groups(rows, "next_word")
    with pytest.raises(ValueError, match=r"no model has both perplexity\.perplexity"):
        charts.spots(rows, ("perplexity", "perplexity"), ("next_word", "equitability_avg"))


def test_report_names_the_limit_and_the_options_that_were_changed(tmp_path):
    tasks = {"bold": {"runs": 2, "top_p": 0.9}, "perplexity@skewed": {"file": "skewed.jsonl", "mode": "auto"}}
    config = {"seed": 0, "limit": 20, "tasks": tasks}
    text = report.write_report({**results(), "config": config}, tmp_path).read_text()
    assert "**Only a quick look, not a result: at most 20 rows a task (--limit 20).**" in text
    assert "* bold with runs=2." in text and "* perplexity@skewed with file=skewed.jsonl." in text
    assert "quick look" not in report.write_report(results(), tmp_path).read_text()


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
