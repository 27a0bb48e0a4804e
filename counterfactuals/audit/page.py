"""The page of an audit: the counts over all texts, and the HTML. Layout, style and filters: page.html."""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from counterfactuals.text.reverse import Reversal, Reverser, Span

THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # of doubt, the points of the curve
MAX_TEXTS = 3_000_000  # characters of HTML for all texts, either side
MAX_ROWS = 1_000  # of a table
GAP, CONTEXT = 600, 200  # an unchanged stretch longer than GAP is cut down to CONTEXT on either side
MARK = 200  # characters of HTML around a marked word

Sampled = tuple[str, Reversal]  # id, reversal
Piece = tuple[str, str, str, str]  # class ("" for plain text, from, to, flag or cut), text, title, label


@dataclass
class Tally:
    """Counts over all texts read, sampled or not. Words are in lower case, but names.

    left: texts of which a passage with a role was left. doubts: passages with a role by their doubt.
    """

    texts: int = 0
    characters: int = 0
    reversed: int = 0
    units: int = 0  # that were reversed, of which the sample is drawn
    flagged: int = 0
    left: int = 0
    doubts: Counter[float] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    words: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (word, target, rule)
    flags: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, word)
    examples: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)  # … → where it was first seen

    def add(self, reversal: Reversal) -> None:
        self.texts += 1
        self.characters += len(reversal.text)
        self.reversed += bool(reversal.spans)
        self.flagged += bool(reversal.flags)
        roles = [passage for passage in reversal.passages if passage.doubt or passage.reversed]
        self.left += any(not passage.reversed for passage in roles)
        self.doubts.update(round(passage.doubt, 3) for passage in roles)
        for span in reversal.spans:
            self.rules[span.rule] += 1
            before, after = _words(reversal, span)
            self.words[before, after, span.rule] += 1
        for flag in reversal.flags:
            key = flag.kind, _plain(reversal.text[flag.start : flag.end], flag.kind)
            self.flags[key] += 1
            if key not in self.examples:
                self.examples[key] = _around(reversal.text, flag.start, flag.end)

    def curve(self) -> list[tuple[float, float, float]]:
        """For each threshold: the share of passages with a role that have no more doubt, and their mean doubt."""
        rows = []
        for most in THRESHOLDS:
            kept = {doubt: count for doubt, count in self.doubts.items() if doubt <= most}
            number = sum(kept.values())
            expected = sum(doubt * count for doubt, count in kept.items()) / max(number, 1)
            rows.append((most, number / max(self.doubts.total(), 1), expected))
        return rows

    def __str__(self) -> str:
        kinds = Counter[str]()
        for (kind, _), count in self.flags.items():
            kinds[kind] += count
        by_kind = "".join(f", {kind} {count:,}" for kind, count in sorted(kinds.items()))
        by_rule = ", ".join(f"{rule} {count:,}" for rule, count in self.rules.most_common())
        lines = [
            f"{self.texts:,} texts ({self.characters:,} characters), {self.reversed:,} reversed, {self.flagged:,} "
            f"flagged{by_kind}, {self.left:,} left in part or whole; {self.rules.total():,} words replaced: {by_rule}",
            f"{self.doubts.total():,} passages with a role; policy, share it reverses, share of these that is wrong:",
        ]
        return "\n".join(
            lines + [f"  {most:4.2f}  {share:6.1%}  {wrong:5.1%} expected" for most, share, wrong in self.curve()]
        )


def page(tally: Tally, drawn: Sequence[Sampled], reverser: Reverser, facts: dict[str, str]) -> str:
    """The HTML of an audit. Everything that comes from texts, lexicon or options is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    finalize = lambda value: visible(value) if isinstance(value, str) else value  # noqa: E731
    template = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=finalize
    ).get_template("page.html")
    budget = min(50_000, MAX_TEXTS // len(drawn))
    lexicon_words = set(reverser.lexicon.rules)
    return template.render(
        facts=facts,
        tally=tally,
        figures=_figures(tally, len(drawn)),
        curve=tally.curve(),
        in_sample=Counter(span.rule for _, reversal in drawn for span in reversal.spans),
        seen=len({word.replace("’", "'") for word, _, _ in tally.words} & lexicon_words),
        num_words=len(lexicon_words),
        words=_word_rows(tally),
        flag_kinds=sorted({flag.kind for _, reversal in drawn for flag in reversal.flags}),
        max_rows=MAX_ROWS,
        texts=[_article(name, reversal, budget) for name, reversal in drawn],
    )


def _figures(tally: Tally, num_drawn: int) -> list[tuple[int, str]]:
    return [
        (tally.texts, "texts read"),
        (tally.reversed, f"reversed, {tally.reversed / tally.texts:.1%}"),
        (tally.left, f"left in part or whole, {tally.left / tally.texts:.1%}"),
        (tally.flagged, f"flagged, {tally.flagged / tally.texts:.1%}"),
        (tally.doubts.total(), "passages with a role"),
        (tally.rules.total(), "words replaced"),
        (num_drawn, "sampled"),
    ]


def _word_rows(tally: Tally) -> list[tuple[str, str, int, int, str]]:
    """(word, what it became, how often, how often it was written for others, rules), most frequent first."""
    written: Counter[str] = Counter()
    rules: dict[str, set[str]] = {}
    became: dict[str, Counter[str]] = {}
    for (word, target, rule), count in tally.words.items():
        written[target] += count
        rules.setdefault(word, set()).add(rule)
        became.setdefault(word, Counter())[target] += count
    rows = []
    for word, targets in sorted(became.items(), key=lambda item: -item[1].total()):
        listed = " · ".join(f"{target} {number:,}" for target, number in targets.most_common(8))
        listed = next(iter(targets)) if len(targets) == 1 else listed
        rows.append((word, listed, targets.total(), written[word], ", ".join(sorted(rules[word]))))
    return rows


def _article(name: str, reversal: Reversal, budget: int) -> dict[str, Any]:
    rules, flags = (
        sorted(set(kinds)) for kinds in ((s.rule for s in reversal.spans), (f.kind for f in reversal.flags))
    )
    confidence = least_sure(reversal)
    notes = [", ".join(rules), f"doubt {reversal.doubt:.2f}"]
    notes += [f"least sure {confidence:.1%}"] if confidence < 1 else []
    notes += [f"flags: {', '.join(flags)}"] if flags else []
    sides = [(label, _pieces(reversal, side, budget)) for side, label in enumerate(("Before", "After"))]
    return {"name": name, "rules": rules, "flags": flags, "confidence": confidence, "notes": notes, "sides": sides}


def _pieces(reversal: Reversal, side: int, budget: int) -> list[Piece]:
    """One side of a reversal with its replaced words and flags marked; side 0 is the text, 1 its counterfactual."""
    source = reversal.reversed if side else reversal.text
    pieces: list[Piece] = []
    copied = shown = 0
    for start, end, *mark in _marks(reversal, side):
        if start < copied:  # a flag inside a replaced word
            continue
        shown += min(start - copied, GAP) + end - start + MARK
        if shown > budget:
            return [*pieces, _cut(len(source) - copied)]
        pieces += _between(source[copied:start], bool(pieces), True)
        pieces.append((mark[0], source[start:end], mark[1], mark[2]))
        copied = end
    return pieces + _between(source[copied:], bool(pieces), False)


def _marks(reversal: Reversal, side: int) -> list[tuple[int, int, str, str, str]]:
    """(start, end, class, title, label) of what is marked on one side, in order."""
    marks = []
    for span in reversal.spans:
        word, target = reversal.text[span.start : span.end], reversal.reversed[span.cf_start : span.cf_end]
        sure = f", {span.confidence:.1%} sure" if _is_ambiguous(span) else ""
        label = span.rule + (f"\u00a0{int(span.confidence * 100)}%" if sure else "")
        start, end = (span.cf_start, span.cf_end) if side else (span.start, span.end)
        marks.append((start, end, "to" if side else "from", f"{word} → {target}: {span.rule}{sure}", label))
    starts = [span.start for span in reversal.spans]
    for flag in reversal.flags:
        before = bisect(starts, flag.start)  # spans
        shift = reversal.spans[before - 1].cf_end - reversal.spans[before - 1].end if side and before else 0
        marks.append((flag.start + shift, flag.end + shift, "flag", f"flag: {flag.kind}", flag.kind))
    return sorted(marks, key=lambda mark: (mark[0], mark[2] == "flag"))


def _between(stretch: str, after_mark: bool, before_mark: bool) -> list[Piece]:
    if len(stretch) <= GAP:
        return [("", stretch, "", "")]
    left, right = CONTEXT * after_mark, CONTEXT * before_mark
    ends = stretch[:left], stretch[len(stretch) - right :]
    return [("", ends[0], "", ""), _cut(len(stretch) - left - right), ("", ends[1], "", "")]


def _cut(number: int) -> Piece:
    return "cut", f" … {number:,} characters … ", "", ""


def _around(text: str, start: int, end: int, reach: int = 60) -> tuple[str, str, str]:
    """`text[start:end]` and about `reach` characters on either side, cut at blanks where there are any."""
    left, right = text[max(0, start - reach) : start], text[end : end + reach]
    if start > reach:
        left = "… " + left[left.find(" ") + 1 :]
    if end + reach < len(text):
        right = (right[: right.rfind(" ") + 1].rstrip() or right) + " …"
    return left, text[start:end], right


def _is_ambiguous(span: Span) -> bool:
    return span.rule == "pronoun" or span.confidence < 1


def least_sure(reversal: Reversal) -> float:
    return min((span.confidence for span in reversal.spans), default=1.0)


def _words(reversal: Reversal, span: Span) -> tuple[str, str]:
    word, target = reversal.text[span.start : span.end], reversal.reversed[span.cf_start : span.cf_end]
    return _plain(word, span.rule), _plain(target, span.rule)


def _plain(word: str, rule_or_kind: str) -> str:
    return word.capitalize() if rule_or_kind == "name" else word.lower()


_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """Control characters and those that reorder text written out, ⟦U+202E⟧; half a surrogate pair becomes U+FFFD."""

    def written(match: re.Match[str]) -> str:
        code = ord(match[0])
        return "\ufffd" if 0xD800 <= code <= 0xDFFF or code >= 0xFFFE else f"⟦U+{code:04X}⟧"

    return _UNSEEN.sub(written, text.replace("\r\n", "\n"))
