"""How good is a reversal? A page to look through, a random sample to mark by hand, and the error rate of the marks.

`audit` writes `audit.html` and `audit.csv`. In the CSV a person fills in, a row each, `verdict` (ok or wrong) and, if
wrong, `kind` (a word or two, counted by `score`) and `reason`. `strip` drops the texts from a marked file where their
licence forbids copies; `sha256` still says which they were.

The CSV is UTF-8 with a byte order mark, as spreadsheets need. A cell that a spreadsheet would run as a formula gets a
leading apostrophe; in the texts, characters that are not seen or that reorder others are written out (⟦U+202E⟧).
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfactuals.audit.page import THRESHOLDS, Sampled, Tally, least_sure, page, visible
from counterfactuals.files import check_folder, write_whole
from counterfactuals.provenance import versions
from counterfactuals.text.reverse import Reversal, Reverser
from counterfactuals.tokens.corpus import units

COLUMNS = ("id", "verdict", "kind", "reason", "sha256", "rules", "min_confidence", "flags", "doubt", "reasons")
TEXTS = ("before", "after")
PAPER = (22, 500)  # wrong, read: Gupta et al. 2022
MAX_CELL = 32_000  # characters; spreadsheets hold 32,767


def audit(
    texts: Iterable[str],
    reverser: Reverser,
    out: str | Path,
    *,
    unit: str = "text",
    sample: int = 500,
    seed: int = 0,
    max_texts: int | None = None,
    source: str = "",
) -> Tally:
    """Reverse `texts` in one pass, in constant memory; write `out`/audit.html and audit.csv with a uniform sample.

    unit: of the sample: a text; a paragraph, t7p3 for line 3 of text 7, each reversed by itself; or a passage, t7s2, as
    it is in its text's reversal. `max_texts` bounds the texts read, before they are split. Where fewer than
    `sample` units were reversed, the sample is all of them. ValueError where none was, where `out` cannot be written
    and where its audit.csv holds marks.
    """
    out = Path(out)
    if sample < 1:
        raise ValueError(f"sample: {sample} is not a number of texts; at least 1")
    check_folder(out, "out")
    marks = out / "audit.csv"
    if marks.exists() and any(row.get("verdict", "").strip() for _, row in _read(marks)):
        raise ValueError(f"out {out}: its audit.csv holds marks, which would be lost; name another folder")
    tally = Tally()
    named = units(itertools.islice(texts, max_texts), unit == "paragraph")
    drawn = draw(named, reverser, tally, passages=unit == "passage", sample=sample, seed=seed)
    if not drawn:
        raise ValueError(
            f"sample: no {unit} of the {tally.texts:,} texts of {source or 'the source'} was reversed. Is it English, "
            "and do lexicon, direction and policy fit it?"
        )
    facts = {
        "Source": source or "not named",
        "Unit": unit,
        "Texts read at most": f"{max_texts:,}" if max_texts else "all",
        "Sample": f"{len(drawn):,} of {tally.units:,} reversed, seed {seed}",
        "Lexicon": f"{reverser.lexicon.name} {reverser.lexicon.version}, {reverser.lexicon.fingerprint[:16]}",
        "Direction": reverser.direction,
        "Policy": str(reverser.policy),
        "Protected": ", ".join(reverser.protected) or "nothing",
        **versions(),
    }
    table, html = _csv(COLUMNS + TEXTS, map(_row, drawn)), page(tally, drawn, reverser, facts)
    write_whole(out / "audit.html", html)
    try:
        write_whole(out / "audit.csv", table)
    except BaseException:  # a full disk, Ctrl-C: both or none
        (out / "audit.html").unlink(missing_ok=True)
        raise
    return tally


def draw(
    named: Iterable[tuple[str, str]],
    reverser: Reverser,
    tally: Tally,
    *,
    passages: bool = False,
    sample: int,
    seed: int,
) -> list[Sampled]:
    """A uniform sample of the (id, text), or of their passages, that were reversed, in order; `tally` counts all."""
    drawn: list[tuple[int, Sampled]] = []
    random_ = random.Random(seed)
    for name, text in named:
        reversal = reverser(text)
        tally.add(reversal)
        for unit in _passages(name, reversal) if passages else [(name, reversal)]:
            if unit[1].spans:  # algorithm R: the i-th is kept with probability sample / i
                tally.units += 1
                place = tally.units - 1 if tally.units <= sample else random_.randrange(tally.units)
                if place < sample:
                    drawn[place : place + 1] = [(tally.units, unit)]
    return [unit for _, unit in sorted(drawn, key=lambda numbered: numbered[0])]


def _passages(name: str, reversal: Reversal) -> Iterator[Sampled]:
    """Each passage of a reversal that was reversed, as a reversal of its own."""
    shift = 0  # how much further on the passage begins on the reversed side
    for number, passage in enumerate(reversal.passages, 1):
        start, end = passage.start, passage.end
        spans, flags = (_inside(rows, start, end) for rows in (reversal.spans, reversal.flags))
        after = spans[-1].cf_end - spans[-1].end if spans else shift
        if passage.reversed:
            places = {"start": start, "end": start, "cf_start": start + shift, "cf_end": start + shift}
            yield (
                f"{name}s{number}",
                Reversal(
                    reversal.text[start:end],
                    reversal.reversed[start + shift : end + after],
                    tuple(_moved(span, places) for span in spans),
                    tuple(_moved(flag, places) for flag in flags),
                    passages=(passage._replace(start=0, end=end - start),),
                ),
            )
        shift = after


def _inside(rows: tuple, start: int, end: int) -> tuple:
    """The spans or flags, which are sorted, that begin in text[start:end]."""
    first, last = (bisect_left(rows, place, key=lambda row: row.start) for place in (start, end))
    return rows[first:last]


def _moved(row: Any, places: dict[str, int]) -> Any:
    return row._replace(**{name: getattr(row, name) - by for name, by in places.items() if hasattr(row, name)})


# ---------------------------------------------------------------- marks


@dataclass(frozen=True)
class Score:
    """What the marks say: `rate` = wrong / n with its 95 % Wilson interval; errors by kind, most frequent first.

    doubts: (doubt, wrong) of each row, where the file says so.
    """

    n: int
    wrong: int
    kinds: dict[str, int]
    doubts: tuple[tuple[float, bool], ...] = ()

    @property
    def rate(self) -> float:
        return self.wrong / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.wrong, self.n)

    def __str__(self) -> str:
        lines = [_rate_line("these marks", self.wrong, self.n), _rate_line("the paper", *PAPER)]
        width = max(map(len, self.kinds), default=0)
        lines += [f"  {kind:<{width}}  {count}" for kind, count in self.kinds.items()]
        if self.doubts:
            lines.append("policy, share of these marks it reverses, share of these that is wrong:")
        for most in THRESHOLDS if self.doubts else ():
            kept = [(doubt, wrong) for doubt, wrong in self.doubts if doubt <= most]
            if kept:
                wrong, expected = sum(wrong for _, wrong in kept), sum(doubt for doubt, _ in kept) / len(kept)
                share, (low, high) = len(kept) / self.n, wilson(wrong, len(kept))
                measured = f"{wrong / len(kept):5.1%} measured ({low:.1%} to {high:.1%})"
                lines.append(f"  {most:4.2f}  {share:6.1%}  {expected:5.1%} expected, {measured}")
        return "\n".join(lines)


def score(marks: str | Path) -> Score:
    """The error rate of a marked CSV, with its texts or stripped of them.

    ValueError, naming the row as a spreadsheet counts it, for a row without a verdict, a verdict that is neither ok nor
    wrong, a wrong one without its kind, or an id that stands twice.
    """
    kinds: Counter[str] = Counter()
    seen: dict[str, int] = {}
    empty: list[int] = []
    doubts: list[tuple[float, bool]] = []
    for number, row in _read(Path(marks)):
        where = f"{marks}, row {number} ({row['id']})"
        verdict, kind = row["verdict"].strip().lower(), " ".join(row["kind"].split()).lower()
        if row["id"] in seen:
            raise ValueError(f"{where}: this id stands in row {seen[row['id']]} already")
        seen[row["id"]] = number
        if not verdict:
            empty.append(number)
        elif verdict not in ("ok", "wrong"):
            raise ValueError(f"{where}: unknown verdict {row['verdict']!r}; it is ok or wrong")
        elif verdict == "wrong":
            if not kind:
                raise ValueError(f"{where}: wrong, but of what kind? Fill in the column kind")
            kinds[kind] += 1
        if row.get("doubt"):
            doubts.append((_number(row["doubt"], where), verdict == "wrong"))
    if empty:
        raise ValueError(
            f"{marks}, row {empty[0]}: no verdict; {len(empty)} of {len(seen)} rows are still to be marked"
        )
    if not seen:
        raise ValueError(f"{marks}: no row to score")
    return Score(len(seen), kinds.total(), dict(kinds.most_common()), tuple(doubts))


def _number(doubt: str, where: str) -> float:
    try:
        return float(doubt.replace(",", "."))  # as some spreadsheets write it
    except ValueError:
        raise ValueError(f"{where}: doubt {doubt!r} is no number") from None


def strip(marks: str | Path, out: str | Path) -> None:
    """Copy a marked CSV without its texts: what may be kept where their licence forbids copies."""
    if Path(marks).resolve() == Path(out).resolve():
        raise ValueError(f"--output {out}: is the file with the texts; name another one")
    rows = [row for _, row in _read(Path(marks))]
    write_whole(Path(out), _csv(COLUMNS, ([row.get(column) or "" for column in COLUMNS] for row in rows)))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The Wilson score interval of a share at 95 %; n > 0."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _rate_line(who: str, wrong: int, n: int) -> str:
    low, high = wilson(wrong, n)
    return f"{who + ':':<13}{wrong} of {n} wrong, {wrong / n:.1%} (95 % interval {low:.1%} to {high:.1%})"


def _read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with their numbers in a spreadsheet, where the header is row 1; blank rows are left out."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)  # some spreadsheets save with ;
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
        missing = [column for column in ("id", "verdict", "kind") if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)} in its first row; is this an audit.csv?")
        return [(number, row) for number, row in enumerate(reader, 2) if row["id"].strip() or row["verdict"].strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start + 1}); save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from None


def _csv(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return "\ufeff" + stream.getvalue()


def _row(unit: Sampled) -> list[str]:
    name, reversal = unit
    rules = Counter(span.rule for span in reversal.spans)
    flags = Counter((flag.kind, reversal.text[flag.start : flag.end]) for flag in reversal.flags)
    return [
        name,
        "",
        "",
        "",
        hashlib.sha256(reversal.text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        " ".join(f"{rule}:{count}" for rule, count in sorted(rules.items())),
        f"{least_sure(reversal):.3f}",
        _cell("; ".join(f"{kind}: {word}" for kind, word in sorted(flags))),
        f"{reversal.doubt:.4f}",
        _counted(reason for passage in reversal.passages if passage.reversed for reason in passage.reasons),
        _cell(reversal.text),
        _cell(reversal.reversed),
    ]


def _cell(text: str) -> str:
    text = visible(text)
    if len(text) > MAX_CELL:
        text = f"{text[:MAX_CELL]} … [{len(text) - MAX_CELL:,} characters more]"
    return "'" + text if re.match(r"'*[=+\-@\t\n＝＋－＠]", text) else text


def _counted(reasons: Iterable[str]) -> str:
    """ "base named*3 name:maybe": each reason once, with how often it stands; read by learn/doubts.py."""
    return " ".join(f"{reason}*{n}" if n > 1 else reason for reason, n in Counter(reasons).items())
