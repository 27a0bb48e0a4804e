"""Audit: a uniform sample in one pass, a page that hostile text cannot break, marks that are checked and scored."""

import base64
import csv
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.audit.page import Tally, page, visible
from counterfactuals.audit.round_trip import round_trip
from counterfactuals.audit.sample import COLUMNS, TEXTS, audit, draw, score, strip, wilson
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Flag, Passage, Reversal, Reverser, Span
from counterfactuals.tokens.corpus import read_texts

HOSTILE = [
    "<script>alert(1)</script> she said \"hi\" & 'bye' <img src=x onerror=alert(2)>",
    "</p></div></article></mark> she is pregnant</body></html>",
    "a NUL \x00, a bell \x07 and \x1b[31m: she",
    "she \u202e reversed \u2066 text \u200f",
    "half a pair \ud800 she",
    "$source ${texts} $$ she",
    "two lines\r\nof she, \"quotes\", 'ticks' and ;semicolons; ",
    "=1+she",
    "'=she",
    "\t=she",
    "\ue0003\ue000 she " + "z" * 1000,
    "שלום she 🎉",
]


class Swap:
    """A stand-in for Reverser: she → he by pair, her → him by pronoun (80 % sure), pregnant and Mary are flagged."""

    direction, protected = "both", ()
    lexicon = load_lexicon("gender")

    def __init__(self, policy: str = "reverse") -> None:
        self.policy = policy

    def __call__(self, text: str) -> Reversal:
        """A line is a passage; its doubt is .25 where something is flagged, .05 else."""
        pieces: list[str] = []
        spans: list[Span] = []
        flags: list[Flag] = []
        copied = shift = 0
        for match in re.finditer(r"\b(?:she|her|pregnant|Mary)\b", text):
            start, end = match.span()
            if match[0] in ("pregnant", "Mary"):
                flags.append(Flag(start, end, "sex_bound" if match[0] == "pregnant" else "name", "cue", 0.25))
                continue
            target, rule, confidence = ("he", "pair", 1.0) if match[0] == "she" else ("him", "pronoun", 0.8)
            spans.append(Span(start, end, start + shift, start + shift + len(target), rule, confidence))
            pieces += (text[copied:start], target)
            copied, shift = end, shift + len(target) - (end - start)
        bounds = [0, *(n + 1 for n, letter in enumerate(text) if letter == "\n"), len(text) + 1]
        passages = []
        for start, end in itertools.pairwise(bounds):
            turned = any(start <= span.start < end for span in spans)
            flagged = any(start <= flag.start < end for flag in flags)
            doubt = (0.25 if flagged else 0.05) if turned else 0.0
            left = flagged and self.policy == "skip"
            reasons = ("base", "sex_bound:cue") if turned and flagged else ("base",) * turned
            passages.append(Passage(start, min(end, len(text)), doubt, turned and not left, reasons))
        if flags and self.policy == "skip":  # of one passage
            return Reversal(text, text, (), tuple(flags), (), tuple(passages))
        return Reversal(text, "".join(pieces) + text[copied:], tuple(spans), tuple(flags), (), tuple(passages))


SWAP: Any = Swap()


class Page(HTMLParser):
    """Fails on tags that are not closed in order; keeps attributes and text by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def mark(path: Path, verdicts: list[tuple[str, str]]) -> None:
    """Fill in verdict and kind, as a person would in a spreadsheet."""
    table = rows(path)
    for row, (verdict, kind) in zip(table, verdicts, strict=True):
        row.update(verdict=verdict, kind=kind)
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, table[0].keys())
        writer.writeheader()
        writer.writerows(table)


# ---------------------------------------------------------------- sample and counts


def test_sample_is_the_same_for_a_seed_and_keeps_the_order(tmp_path: Path) -> None:
    texts = [f"she {i}" if i % 2 else f"nobody {i}" for i in range(100)]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        audit(texts, SWAP, tmp_path / name, sample=10, seed=seed)
    first, again, other = ((tmp_path / name / "audit.csv").read_text() for name in "abc")
    assert first == again != other
    assert (tmp_path / "a/audit.html").read_text() == (tmp_path / "b/audit.html").read_text()
    ids = [int(row["id"][1:]) for row in rows(tmp_path / "a/audit.csv")]
    assert ids == sorted(set(ids)) and len(ids) == 10
    assert all(texts[i - 1].startswith("she") for i in ids)


def test_every_position_is_drawn_equally_often() -> None:
    num_texts, sample, draws = 40, 8, 2000
    texts = [(str(i), "she" if i % 2 else "nobody") for i in range(2 * num_texts)]
    counts = dict.fromkeys((name for name, text in texts if text == "she"), 0)
    for seed in range(draws):
        for name, _ in draw(texts, SWAP, Tally(), sample=sample, seed=seed):
            counts[name] += 1
    expected = draws * sample / num_texts
    variance = expected * (1 - sample / num_texts)
    assert sum(counts.values()) == draws * sample
    # Under uniformity this is about chi-squared with 39 degrees of freedom; above 72.1 with probability 0.001.
    assert sum((count - expected) ** 2 / variance for count in counts.values()) * (num_texts - 1) / num_texts < 72.1


def test_counts_of_the_whole_pass_add_up(tmp_path: Path) -> None:
    texts = ["she saw her", "she is pregnant", "nobody", "Mary and her", "she and she"]
    tally = audit(texts * 300, SWAP, tmp_path, sample=3)
    assert (tally.texts, tally.reversed, tally.flagged, tally.left) == (1500, 1200, 600, 0)
    assert tally.characters == 300 * sum(map(len, texts))
    assert tally.rules == {"pair": 1200, "pronoun": 600}
    assert tally.words == {("she", "he", "pair"): 1200, ("her", "him", "pronoun"): 600}
    assert sum(tally.words.values()) == sum(tally.rules.values())
    assert tally.flags == {("sex_bound", "pregnant"): 300, ("name", "Mary"): 300}
    assert tally.doubts == {0.05: 600, 0.25: 600} and tally.units == 1200
    assert "1,500 texts" in str(tally) and "1,200 reversed" in str(tally)


def test_skipped_texts_are_counted_and_not_drawn(tmp_path: Path) -> None:
    reverser: Any = Swap("skip")
    tally = audit(["she is pregnant", "she"], reverser, tmp_path, sample=1)
    assert (tally.reversed, tally.flagged, tally.left) == (1, 1, 1)
    assert [row["id"] for row in rows(tmp_path / "audit.csv")] == ["t2"]


def test_paragraphs_are_units_and_max_texts_counts_texts(tmp_path: Path) -> None:
    texts = ["Title\n\nshe one\nshe two", "she three", "she four"]
    tally = audit(texts, SWAP, tmp_path, sample=3, unit="paragraph", max_texts=2)
    assert tally.texts == 4
    assert [(row["id"], row["before"]) for row in rows(tmp_path / "audit.csv")] == [
        ("t1p3", "she one"),
        ("t1p4", "she two"),
        ("t2p1", "she three"),
    ]


def test_the_curve_says_what_each_policy_reverses_and_how_much_of_it_is_expected_wrong(tmp_path: Path) -> None:
    tally = audit(["she"] * 3 + ["she is pregnant", "nobody"], SWAP, tmp_path, sample=1)
    curve = {most: (share, wrong) for most, share, wrong in tally.curve()}
    assert curve[0.03] == (0, 0) and curve[0.05] == curve[0.2] == (0.75, pytest.approx(0.05))
    assert curve[0.3] == curve[1.0] == (1.0, pytest.approx(0.1))
    assert "4 passages with a role" in str(tally) and "  0.10   75.0%   5.0% expected" in str(tally)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert html.count("<circle") == len(curve) and "0.1: 75.0% reversed, 5.0% expected wrong" in html


def test_passages_are_units_as_they_stand_in_their_texts(tmp_path: Path) -> None:
    texts = ["Title\nshe saw her, and she is pregnant\nnobody\nher and she", "nobody", "she"]
    tally = audit(texts, SWAP, tmp_path, sample=3, unit="passage")
    assert (tally.texts, tally.reversed, tally.units) == (3, 2, 3)
    table = rows(tmp_path / "audit.csv")
    assert [(row["id"], row["before"].strip(), row["after"].strip()) for row in table] == [
        ("t1s2", "she saw her, and she is pregnant", "he saw him, and he is pregnant"),
        ("t1s4", "her and she", "him and he"),
        ("t3s1", "she", "he"),
    ]
    assert [row["doubt"] for row in table] == ["0.2500", "0.0500", "0.0500"]
    assert [row["reasons"] for row in table] == ["base sex_bound:cue", "base", "base"]
    assert [row["flags"] for row in table] == ["sex_bound: pregnant", "", ""]
    sides = re.findall(r'<p dir="auto">.*?</p>', (tmp_path / "audit.html").read_text(encoding="utf-8"), re.DOTALL)
    assert ["".join(Page(side).text) for side in sides[2:4]] == ["her and she", "him and he"]


def test_passages_of_real_texts_are_pieces_of_their_reversals(shared_data: Path) -> None:
    reverser = Reverser(load_lexicon("gender"), policy=0.3)
    texts = list(itertools.islice(read_texts(str(shared_data / "wikipedia_articles.jsonl.gz")), 30))
    drawn = draw(zip("abcdefghijklmnopqrstuvwxyzABCD", texts), reverser, Tally(), passages=True, sample=999, seed=0)
    by_text = dict(zip("abcdefghijklmnopqrstuvwxyzABCD", map(reverser, texts)))
    assert len(drawn) > 20
    for name, unit in drawn:
        whole = by_text[name[0]]
        passage = whole.passages[int(name[2:]) - 1]
        assert unit.text == whole.text[passage.start : passage.end] and unit.reversed in whole.reversed
        words = [(unit.text[s.start : s.end], unit.reversed[s.cf_start : s.cf_end]) for s in unit.spans]
        inside = [s for s in whole.spans if passage.start <= s.start < passage.end]
        assert words == [(whole.text[s.start : s.end], whole.reversed[s.cf_start : s.cf_end]) for s in inside]


def test_memory_does_not_grow_with_the_corpus() -> None:
    import tracemalloc

    def peak(num_texts: int) -> int:
        tracemalloc.start()
        draw(((str(i), f"she knew {i} {'word ' * 100}") for i in range(num_texts)), SWAP, Tally(), sample=5, seed=0)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(100)
    assert peak(8000) < peak(500) + 50_000


# ---------------------------------------------------------------- page


def test_page_of_hostile_texts_is_whole_and_holds_no_foreign_tag(tmp_path: Path) -> None:
    audit(HOSTILE, SWAP, tmp_path, sample=len(HOSTILE), source="<script>alert('source')</script>")
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    parsed = Page(html)
    assert len(parsed.all("script")) == 1 and not parsed.all("img") and not parsed.all("b")[len(HOSTILE) :]
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200f]", html)
    shown = "".join(parsed.text)
    for part in ("<script>alert(1)</script>", "alert('source')", "⟦U+0000⟧", "⟦U+202E⟧", "$source ${texts} $$"):
        assert part in shown


def test_page_needs_no_network_and_allows_only_its_own_script(tmp_path: Path) -> None:
    audit(["she"], SWAP, tmp_path, sample=1)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!#|audit\.csv)|url\(|@import|https?://", html)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html, "page.html: the script changed; put its hash there"


def test_articles_carry_what_the_filters_and_the_csv_need(tmp_path: Path) -> None:
    audit(["she saw her", "she is pregnant, Mary"], SWAP, tmp_path, sample=2)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    articles = Page(html).all("article")
    assert articles == [
        {"id": "t1", "data-rules": "pair pronoun", "data-flags": "", "data-confidence": "0.800"},
        {"id": "t2", "data-rules": "pair", "data-flags": "name sex_bound", "data-confidence": "1.000"},
    ]
    assert [row["id"] for row in rows(tmp_path / "audit.csv")] == ["t1", "t2"]
    for option in ("pair", "pronoun", "name", "sex_bound"):
        assert f"<option>{option}</option>" in html


def test_marked_sides_read_as_the_two_texts(tmp_path: Path) -> None:
    text = "Mary saw her; she is pregnant & she <laughed> at her"
    audit([text], SWAP, tmp_path, sample=1)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    sides = [Page(side) for side in re.findall(r'<p dir="auto">.*?</p>', html)]
    assert ["".join(side.text) for side in sides] == [text, SWAP(text).reversed]
    titles = [attributes["title"] for attributes in sides[1].all("mark")]
    assert titles == [
        "flag: name",
        "her → him: pronoun, 80.0% sure",
        "she → he: pair",
        "flag: sex_bound",
        "she → he: pair",
        "her → him: pronoun, 80.0% sure",
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["she", "her", "pregnant", "Mary"]) | st.text(max_size=12), max_size=20).map(" ".join))
def test_any_text_reads_the_same_on_the_page(text: str) -> None:
    tally, reversal = Tally(), SWAP(text)
    tally.add(reversal)
    html = page(tally, [("t1", reversal)], SWAP, {"Source": text})
    sides = ["".join(Page(side).text) for side in re.findall(r'<p dir="auto">.*?</p>', html, re.DOTALL)]
    assert len(Page(html).all("article")) == 1
    assert sides == [visible(text), visible(reversal.reversed)]


def test_long_texts_are_cut_on_the_page(tmp_path: Path) -> None:
    texts = ["a " * 50_000 + "she" + " b" * 50_000, "she " * 50_000]
    audit(texts, SWAP, tmp_path, sample=2)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert len(html) < 250_000
    assert "… 99,800 characters …" in html
    before = rows(tmp_path / "audit.csv")[0]["before"]
    assert len(before) < 32_767 and before.endswith("… [168,003 characters more]")


def test_control_characters_are_written_out() -> None:
    assert visible("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert visible("\x00\u202e\ud800\r") == "⟦U+0000⟧⟦U+202E⟧\ufffd⟦U+000D⟧"


# ---------------------------------------------------------------- CSV


def test_csv_round_trip(tmp_path: Path) -> None:
    audit(HOSTILE, SWAP, tmp_path, sample=len(HOSTILE))
    assert (tmp_path / "audit.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    table = rows(tmp_path / "audit.csv")
    assert tuple(table[0]) == COLUMNS + TEXTS
    for text, row in zip(HOSTILE, table, strict=True):
        guarded = visible(text)
        guarded = "'" + guarded if re.match(r"'?[=\t]", guarded) else guarded
        assert row["before"] == guarded
        assert row["sha256"] == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        assert row["verdict"] == row["kind"] == row["reason"] == ""
    assert (table[1]["rules"], table[1]["flags"], table[1]["min_confidence"]) == (
        "pair:1",
        "sex_bound: pregnant",
        "1.000",
    )


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", "＝", "'=", "''="])
def test_no_cell_is_a_formula(start: str, tmp_path: Path) -> None:
    audit([f"{start}she"], SWAP, tmp_path, sample=1)
    (row,) = rows(tmp_path / "audit.csv")
    assert (row["before"], row["after"]) == (f"'{start}she", f"'{start}he")


# ---------------------------------------------------------------- marks


def test_wilson_by_hand() -> None:
    assert wilson(22, 500) == pytest.approx((0.029236, 0.065712), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.277533), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((0.722467, 1), abs=1e-5)


def test_score_of_marks_with_and_without_texts(tmp_path: Path) -> None:
    audit(["she = her\nshe"] * 20, SWAP, tmp_path, sample=20)
    marked = tmp_path / "audit.csv"
    mark(marked, [("ok", "")] * 16 + [("wrong", "name"), (" Wrong", "Pronoun "), ("wrong", "name"), ("OK", "")])
    strip(marked, tmp_path / "kept" / "marks.csv")
    kept = (tmp_path / "kept" / "marks.csv").read_text()
    assert "before" not in kept and "she =" not in kept
    for path in (marked, tmp_path / "kept" / "marks.csv"):
        result = score(path)
        assert (result.n, result.wrong, result.rate, result.kinds) == (20, 3, 0.15, {"name": 2, "pronoun": 1})
        assert result.interval == wilson(3, 20)
    assert str(result).splitlines()[:4] == [
        "these marks: 3 of 20 wrong, 15.0% (95 % interval 5.2% to 36.0%)",
        "the paper:   22 of 500 wrong, 4.4% (95 % interval 2.9% to 6.6%)",
        "  name     2",
        "  pronoun  1",
    ]


def test_marks_with_doubts_say_how_much_was_wrong_below_each(tmp_path: Path) -> None:
    audit(["she"] * 8 + ["she is pregnant"] * 2, SWAP, tmp_path, sample=10)
    mark(tmp_path / "audit.csv", [("ok", "")] * 9 + [("wrong", "pregnant")])
    lines = str(score(tmp_path / "audit.csv")).splitlines()
    assert "  0.05   80.0%   5.0% expected,  0.0% measured (0.0% to 32.4%)" in lines
    assert "  1.00  100.0%   9.0% expected, 10.0% measured (1.8% to 40.4%)" in lines
    with pytest.raises(ValueError, match="is the file with the texts"):
        strip(tmp_path / "audit.csv", tmp_path / "audit.csv")
    strip(tmp_path / "audit.csv", tmp_path / "marks.csv")
    assert str(score(tmp_path / "marks.csv")).splitlines() == lines


def test_marks_saved_with_semicolons_are_read(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text("id;verdict;kind;reason\nt1;ok;;fine, really\nt2;wrong;name;\n;;;\n", encoding="utf-8")
    assert (score(path).n, score(path).wrong) == (2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,verdict,kind\nt1,ok,\nt2,,\nt3,,\n", "row 3: no verdict; 2 of 3 rows are still to be marked"),
        ("id,verdict,kind\nt1,good,\n", "row 2 (t1): unknown verdict 'good'; it is ok or wrong"),
        ("id,verdict,kind\nt1,wrong,\n", "row 2 (t1): wrong, but of what kind"),
        ("id,verdict,kind\nt1,ok,\nt1,ok,\n", "row 3 (t1): this id stands in row 2 already"),
        ("id,verdict,kind\n", "no row to score"),
        ("id,verdict,kind,doubt\nt1,ok,,much\n", "row 2 (t1): doubt 'much' is no number"),
        ("", "no column id, verdict, kind in its first row"),
        ("a,b\n1,2\n", "no column id, verdict, kind in its first row"),
    ],
)
def test_bad_marks(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        score(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_marks_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_bytes(b"id,verdict,kind\nt1,ok,caf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        score(tmp_path / "marks.csv")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("texts", "sample", "message"),
    [
        (["nobody"], 5, "no text of the 1 texts of here was reversed"),
        (["she"], 0, "at least 1"),
    ],
)
def test_bad_sample(texts: list[str], sample: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        audit(texts, SWAP, tmp_path / "out", sample=sample, source="here")
    assert not (tmp_path / "out").exists()


def test_a_small_corpus_is_the_whole_sample(tmp_path: Path) -> None:
    tally = audit(["she", "nobody", "she"], SWAP, tmp_path, sample=500)
    assert tally.units == 2 and len((tmp_path / "audit.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert "2 of 2 reversed" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_out_that_cannot_be_written_is_refused_before_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a folder that can be written into"):
        audit(iter(lambda: pytest.fail("a text was read"), 0), SWAP, tmp_path / "file" / "out", sample=1)
    monkeypatch.setattr("counterfactuals.files.os.access", lambda *_: False)
    with pytest.raises(ValueError, match="is not a folder that can be written into"):
        audit(iter(lambda: pytest.fail("a text was read"), 0), SWAP, tmp_path / "out", sample=1)


def test_marks_are_never_overwritten(tmp_path: Path) -> None:
    audit(["she"], SWAP, tmp_path, sample=1)
    audit(["she"], SWAP, tmp_path, sample=1)
    mark(tmp_path / "audit.csv", [("ok", "")])
    with pytest.raises(ValueError, match="holds marks"):
        audit(["she"], SWAP, tmp_path, sample=1)


def test_audit_of_real_text(shared_data: Path, tmp_path: Path) -> None:
    from counterfactuals.tokens.corpus import read_texts

    texts = read_texts(str(shared_data / "wikipedia_articles.jsonl.gz"))
    tally = audit(texts, Reverser(load_lexicon("gender")), tmp_path, sample=50, max_texts=300, unit="paragraph")
    parsed = Page((tmp_path / "audit.html").read_text(encoding="utf-8"))
    assert len(parsed.all("article")) == len(rows(tmp_path / "audit.csv")) == 50
    assert sum(tally.words.values()) == sum(tally.rules.values()) > tally.reversed > 50


KEPT = sorted((Path(__file__).parents[1] / "docs" / "audit").glob("*.csv"))


@pytest.mark.parametrize("marks", KEPT, ids=lambda path: path.stem)
def test_the_kept_marks_say_what_is_written_of_them(marks: Path):
    """Passages that were read, without their text; docs/audit/README.md has a row for each file."""
    found = score(marks)
    text = (Path(__file__).parents[1] / "docs" / "audit" / "README.md").read_text(encoding="utf-8")
    assert f"| `{marks.name}` |" in text and f"| {found.wrong} of {found.n} |" in text
    assert not {"before", "after"} & set(marks.read_text(encoding="utf-8-sig").splitlines()[0].split(","))


def test_a_round_trip_names_what_does_not_come_back_and_why():
    texts = ["Mary saw her brother.", "The hostess said hello.", "Nothing.", "He read his book; it is hers."]
    result = round_trip(texts, Reverser(load_lexicon("gender")))
    assert (result.texts, result.reversed, result.exact) == (4, 3, 3)
    assert result.lost == {"one_way": 1} and result.bijective_share == 1
    assert result.words == {("one_way", "hostess", "host"): 1}
    assert "75.00% come back exactly, 100.00% in everything" in str(result)


def test_what_comes_back_in_part_counts_for_the_rule_that_made_it():
    """ "Countess of" is one word of the lexicon, and "Countess" is another, one to one."""
    result = round_trip(
        ["His aunt met the Earl of Oxford and said that she knew him."], Reverser(load_lexicon("gender"))
    )
    assert result.words == {("one_way", "Earl of", "Count of"): 1}
    assert result.bijective_lost == 0
    left = round_trip(["He met the countess."], Reverser(load_lexicon("gender")))  # "count" is a rank by its capital
    assert left.words == {("pair", "countess", "count"): 1}
    married = round_trip(["She met Mrs. John Crawford."], Reverser(load_lexicon("gender")))
    assert set(married.lost) <= {"one_way", "name"} and married.exact == 0


def test_thousands_of_paragraphs_come_back_where_a_one_to_one_rule_replaced(shared_data: Path):
    articles = read_texts(str(shared_data / "wikipedia_articles.jsonl.gz"))
    paragraphs = (line for text in articles for line in text.split("\n") if line.strip())
    result = round_trip(itertools.islice(paragraphs, 3_000), Reverser(load_lexicon("gender")))
    assert result.texts == 3_000 and result.reversed > 1_000
    assert result.bijective_share >= 0.988  # .991 when this was written; .995 is wanted
