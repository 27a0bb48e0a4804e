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
import math
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from counterfactuals.audit.page import Sampled, Tally, least_sure, page, visible
from counterfactuals.files import write_whole
from counterfactuals.provenance import versions
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.corpus import units

COLUMNS = ("id", "verdict", "kind", "reason", "sha256", "rules", "min_confidence", "flags", "before", "after")
TEXTS = ("before", "after")
PAPER = (22, 500)  # wrong, read: Gupta et al. 2022
MAX_CELL = 32_000  # characters; spreadsheets hold 32,767


def audit(
    texts: Iterable[str],
    reverser: Reverser,
    out: str | Path,
    *,
    sample: int = 500,
    seed: int = 0,
    max_texts: int | None = None,
    paragraphs: bool = False,
    source: str = "",
    progress: Callable[[int], None] = lambda num_texts: None,
) -> Tally:
    """Reverse `texts` in one pass, in constant memory; write `out`/audit.html and audit.csv with a uniform sample.

    `paragraphs` takes each line of a text as a text; an id is then t7p3, text 7, line 3. `max_texts` bounds the texts
    read, before they are split. ValueError where fewer than `sample` texts were reversed, where `out` cannot be written
    and where its audit.csv holds marks.
    """
    out = Path(out)
    if sample < 1:
        raise ValueError(f"sample: {sample} is not a number of texts; at least 1")
    _check_out(out)
    tally = Tally()
    named = units(itertools.islice(texts, max_texts), paragraphs)
    drawn = draw(named, reverser, tally, sample=sample, seed=seed, progress=progress)
    if not tally.reversed:
        raise ValueError(
            f"audit: none of the {tally.texts:,} texts of {source or 'the source'} was reversed; "
            "is it English, and do lexicon, direction and policy fit it?"
        )
    if tally.reversed < sample:
        raise ValueError(
            f"sample: {sample:,} asked, but only {tally.reversed:,} of {tally.texts:,} texts were reversed; "
            "ask for fewer or give more text"
        )
    facts = {
        "Source": source or "not named",
        "Unit": "paragraph" if paragraphs else "text",
        "Texts read at most": f"{max_texts:,}" if max_texts else "all",
        "Sample": f"{sample:,} of {tally.reversed:,} reversed, seed {seed}",
        "Lexicon": f"{reverser.lexicon.name} {reverser.lexicon.version}, {reverser.lexicon.fingerprint[:16]}",
        "Direction": reverser.direction,
        "Policy": reverser.policy,
        "Protected": ", ".join(reverser.protected) or "nothing",
        **versions(),
    }
    table, html = _csv(COLUMNS, map(_row, drawn)), page(tally, drawn, reverser, facts)
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
    sample: int,
    seed: int,
    progress: Callable[[int], None] = lambda num_texts: None,
) -> list[Sampled]:
    """A uniform sample of the (id, text) whose text was reversed, in their order; all are counted in `tally`."""
    drawn: list[tuple[int, Sampled]] = []
    random_ = random.Random(seed)
    for number, (name, text) in enumerate(named, 1):
        reversal = reverser(text)
        tally.add(reversal, reverser.policy)
        if reversal.spans:  # algorithm R: the i-th is kept with probability sample / i
            place = tally.reversed - 1 if tally.reversed <= sample else random_.randrange(tally.reversed)
            if place < sample:
                drawn[place : place + 1] = [(number, (name, reversal))]
        if number % 1000 == 0:
            progress(number)
    return [unit for _, unit in sorted(drawn, key=lambda numbered: numbered[0])]


def _check_out(out: Path) -> None:
    """Refuse before the pass what would fail after it."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"out {out}: {there} is not a folder that can be written into")
    marks = out / "audit.csv"
    if marks.exists() and any(row.get("verdict", "").strip() for _, row in _read(marks)):
        raise ValueError(f"out {out}: its audit.csv holds marks, which would be lost; name another folder")


# ---------------------------------------------------------------- marks


@dataclass(frozen=True)
class Score:
    """What the marks say: `rate` = wrong / n with its 95 % Wilson interval; errors by kind, most frequent first."""

    n: int
    wrong: int
    kinds: dict[str, int]

    @property
    def rate(self) -> float:
        return self.wrong / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.wrong, self.n)

    def __str__(self) -> str:
        lines = [_rate_line("these marks", self.wrong, self.n), _rate_line("the paper", *PAPER)]
        width = max(map(len, self.kinds), default=0)
        return "\n".join(lines + [f"  {kind:<{width}}  {count}" for kind, count in self.kinds.items()])


def score(marks: str | Path) -> Score:
    """The error rate of a marked CSV, with its texts or stripped of them.

    ValueError, naming the row as a spreadsheet counts it, for a row without a verdict, a verdict that is neither ok nor
    wrong, a wrong one without its kind, or an id that stands twice.
    """
    kinds: Counter[str] = Counter()
    seen: dict[str, int] = {}
    empty: list[int] = []
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
    if empty:
        raise ValueError(
            f"{marks}, row {empty[0]}: no verdict; {len(empty)} of {len(seen)} rows are still to be marked"
        )
    if not seen:
        raise ValueError(f"{marks}: no row to score")
    return Score(len(seen), kinds.total(), dict(kinds.most_common()))


def strip(marks: str | Path, out: str | Path) -> None:
    """Copy a marked CSV without its texts: what may be kept where their licence forbids copies."""
    rows = [row for _, row in _read(Path(marks))]
    columns = [column for column in COLUMNS if column not in TEXTS]
    write_whole(Path(out), _csv(columns, ([row.get(column) or "" for column in columns] for row in rows)))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share, by default at 95 %; n > 0."""
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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
        _cell(reversal.text),
        _cell(reversal.reversed),
    ]


def _cell(text: str) -> str:
    text = visible(text)
    if len(text) > MAX_CELL:
        text = f"{text[:MAX_CELL]} … [{len(text) - MAX_CELL:,} characters more]"
    return "'" + text if re.match(r"'*[=+\-@\t\n＝＋－＠]", text) else text
