"""The page of an audit: the counts over all texts, and the HTML. Layout, style and filters: page.html."""

from __future__ import annotations

import itertools
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

from counterfactuals.text.reverse import Reversal, Reverser, Span

STEP = 5  # percent of confidence a column of the histogram, over [50, 100]
NUM_BINS = 50 // STEP
MAX_TEXTS = 3_000_000  # characters of HTML for all texts, either side
MAX_ROWS = 1_000  # of a table
GAP, CONTEXT = 600, 200  # an unchanged stretch longer than GAP is cut down to CONTEXT on either side

Sampled = tuple[str, Reversal]  # id, reversal
Around = tuple[str, str, str]  # what stands before a word, the word, what stands after it


@dataclass
class Tally:
    """Counts over all texts read, sampled or not. Words are in lower case, but names."""

    texts: int = 0
    characters: int = 0
    reversed: int = 0
    flagged: int = 0
    skipped: int = 0  # flagged texts that the policy left whole
    rules: Counter[str] = field(default_factory=Counter)
    words: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (word, target, rule)
    choices: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # (word, target) → decisions by confidence
    flags: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, word)
    examples: dict[tuple[str, str], Around] = field(default_factory=dict)  # (kind, word) → where it was first seen

    def add(self, reversal: Reversal, policy: str) -> None:
        self.texts += 1
        self.characters += len(reversal.text)
        self.reversed += bool(reversal.spans)
        self.flagged += bool(reversal.flags)
        self.skipped += bool(reversal.flags) and policy == "skip"
        for span in reversal.spans:
            word, target = _words(reversal, span)
            self.rules[span.rule] += 1
            self.words[word, target, span.rule] += 1
            if _is_ambiguous(span):
                bins = self.choices.setdefault((word, target), [0] * NUM_BINS)
                bins[min(int((span.confidence - 0.5) * 2 * NUM_BINS), NUM_BINS - 1)] += 1
        for flag in reversal.flags:
            key = flag.kind, _plain(reversal.text[flag.start : flag.end], flag.kind)
            self.flags[key] += 1
            if key not in self.examples:
                self.examples[key] = _around(reversal.text, flag.start, flag.end)

    def __str__(self) -> str:
        flags = Counter[str]()
        for (kind, _), count in self.flags.items():
            flags[kind] += count
        by_kind = "".join(f", {kind} {count:,}" for kind, count in sorted(flags.items()))
        by_rule = ", ".join(f"{rule} {count:,}" for rule, count in self.rules.most_common())
        return (
            f"{self.texts:,} texts ({self.characters:,} characters), {self.reversed:,} reversed, {self.flagged:,} "
            f"flagged{by_kind}, {self.skipped:,} left whole; {self.rules.total():,} words replaced: {by_rule}"
        )


def page(tally: Tally, drawn: list[Sampled], reverser: Reverser, facts: dict[str, str]) -> str:
    """The HTML of an audit. Everything that comes from texts, lexicon or options is escaped."""
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    in_sample = Counter(span.rule for _, reversal in drawn for span in reversal.spans)
    flag_kinds = sorted({flag.kind for _, reversal in drawn for flag in reversal.flags})
    num_words = len(reverser.lexicon.rules)
    seen = len({word.replace("’", "'") for word, _, _ in tally.words} & set(reverser.lexicon.rules))
    budget = min(50_000, MAX_TEXTS // len(drawn))
    return template.substitute(
        source=_html(facts["Source"]),
        figures=_figures(tally, len(drawn)),
        facts="".join(f"<dt>{_html(name)}</dt><dd>{_html(value)}</dd>" for name, value in facts.items()),
        rules="".join(_rule_row(tally, rule, in_sample[rule]) for rule, _ in tally.rules.most_common()),
        coverage=f"{seen:,} of the lexicon’s {num_words:,} words were replaced at least once. "
        "Written for others: how often it took the place of another word, for a pair the way back.",
        **_table("words", _word_rows(tally)),
        bins="".join(f'<th class="n">{50 + i}–{50 + i + STEP} %</th>' for i in range(0, 50, STEP)),
        histogram="".join(_choice_row(choice, bins) for choice, bins in sorted(tally.choices.items()))
        or _empty(NUM_BINS + 2),
        decisions="".join(itertools.islice(_decisions(drawn), MAX_ROWS)) or _empty(4),
        **_table("flags", [_flag_row(tally, *key, count) for key, count in tally.flags.most_common()] or [_empty(4)]),
        rule_options="".join(f"<option>{_html(rule)}</option>" for rule in sorted(in_sample)),
        flag_options="".join(f"<option>{_html(kind)}</option>" for kind in flag_kinds),
        texts="\n".join(_article(name, reversal, budget) for name, reversal in drawn),
    )


def _figures(tally: Tally, num_drawn: int) -> str:
    choices = sum(map(sum, tally.choices.values()))
    unsure = sum(sum(bins[: 40 // STEP]) for bins in tally.choices.values())
    figures = [
        (tally.texts, "texts read"),
        (tally.reversed, f"reversed, {tally.reversed / tally.texts:.1%}"),
        (tally.rules.total(), "words replaced"),
        (choices, f"ambiguous, {unsure:,} of them below 90\u00a0%"),
        (tally.flagged, f"texts flagged, {tally.flagged / tally.texts:.1%}"),
        (tally.skipped, "of these left whole"),
        (num_drawn, "sampled"),
    ]
    return "".join(f"<div><b>{number:,}</b><span>{_html(label)}</span></div>" for number, label in figures)


def _table(name: str, rows: list[str]) -> dict[str, str]:
    more = len(rows) - MAX_ROWS
    note = f"<p><small>{more:,} rarer ones are not shown.</small></p>" if more > 0 else ""
    return {name: "".join(rows[:MAX_ROWS]), f"more_{name}": note}


def _empty(columns: int) -> str:
    return f'<tr><td colspan="{columns}" class="soft">none</td></tr>'


def _rule_row(tally: Tally, rule: str, in_sample: int) -> str:
    share = tally.rules[rule] / tally.rules.total()
    bar = f'<td class="bar"><i style="width:{share:.1%}"></i></td>'
    numbers = (f'<td class="n">{cell}</td>' for cell in (f"{tally.rules[rule]:,}", f"{share:.1%}"))
    return f'<tr><td>{_html(rule)}</td>{"".join(numbers)}{bar}<td class="n">{in_sample:,}</td></tr>'


def _word_rows(tally: Tally) -> list[str]:
    totals: Counter[str] = Counter()
    written: Counter[str] = Counter()
    rules: dict[str, set[str]] = {}
    became: dict[str, Counter[str]] = {}
    for (word, target, rule), count in tally.words.items():
        totals[word] += count
        written[target] += count
        rules.setdefault(word, set()).add(rule)
        became.setdefault(word, Counter())[target] += count
    rows = []
    for word, count in totals.most_common():
        targets = [f"{target} {number:,}" for target, number in became[word].most_common(8)]
        listed = next(iter(became[word])) if len(targets) == 1 else " · ".join(targets)
        rows.append(
            f'<tr><td class="w">{_html(word)}</td><td>{_html(listed)}</td><td class="n">{count:,}</td>'
            f'<td class="n">{written[word]:,}</td><td>{_html(", ".join(sorted(rules[word])))}</td></tr>'
        )
    return rows


def _choice_row(choice: tuple[str, str], bins: list[int]) -> str:
    cells = "".join(f'<td class="n{"" if count else " soft"}">{count:,}</td>' for count in (sum(bins), *bins))
    return f'<tr><td class="w">{_html(" → ".join(choice))}</td>{cells}</tr>'


def _decisions(drawn: list[Sampled]) -> Iterator[str]:
    ambiguous = [(span, name, r) for name, r in drawn for span in r.spans if _is_ambiguous(span)]
    for span, name, reversal in sorted(ambiguous, key=lambda decision: decision[0].confidence):
        choice, where = " → ".join(_words(reversal, span)), _around(reversal.text, span.start, span.end)
        yield (
            f'<tr><td class="n">{span.confidence:.1%}</td><td class="w">{_html(choice)}</td>{_example(*where)}'
            f'<td><a href="#{name}">{name}</a></td></tr>'
        )


def _flag_row(tally: Tally, kind: str, word: str, count: int) -> str:
    return (
        f'<tr><td class="w">{_html(kind)}</td><td class="w">{_html(word)}</td><td class="n">{count:,}</td>'
        f"{_example(*tally.examples[kind, word])}</tr>"
    )


def _example(left: str, word: str, right: str) -> str:
    example = f"{_html(left)}<b>{_html(word)}</b>{_html(right)}"
    return f'<td><span class="example" dir="auto">{example}</span></td>'


def _article(name: str, reversal: Reversal, budget: int) -> str:
    rules = " ".join(sorted({span.rule for span in reversal.spans}))
    flags = " ".join(sorted({flag.kind for flag in reversal.flags}))
    confidence = least_sure(reversal)
    notes = [rules.replace(" ", ", ")]
    notes += [f"least sure {confidence:.1%}"] if confidence < 1 else []
    notes += [f"flags: {flags.replace(' ', ', ')}"] if flags else []
    sides = (
        f'<div><h3>{label}</h3><p dir="auto">{_marked(reversal, side, budget)}</p></div>'
        for side, label in enumerate(("Before", "After"))
    )
    return (
        f'<article id="{name}" data-rules="{_html(rules)}" data-flags="{_html(flags)}" '
        f'data-confidence="{confidence:.3f}"><header><a href="#{name}">{name}</a>'
        f"{''.join(f'<span>{_html(note)}</span>' for note in notes)}</header>"
        f'<div class="sides">{"".join(sides)}</div></article>'
    )


def _marked(reversal: Reversal, side: int, budget: int) -> str:
    """One side of a reversal with its replaced words and flags marked; side 0 is the text, 1 its counterfactual."""
    source = reversal.reversed if side else reversal.text
    marks = []  # offset in the text, start and end on this side, opening tag
    for span in reversal.spans:
        word, target = reversal.text[span.start : span.end], reversal.reversed[span.cf_start : span.cf_end]
        sure = f", {span.confidence:.1%} sure" if _is_ambiguous(span) else ""
        label = span.rule + (f"\u00a0{int(span.confidence * 100)}%" if _is_ambiguous(span) else "")
        title = _html(f"{word} → {target}: {span.rule}{sure}")
        start, end = (span.cf_start, span.cf_end) if side else (span.start, span.end)
        tag = f'<mark class="{"to" if side else "from"}" title="{title}" data-label="{_html(label)}">'
        marks.append((span.start, start, end, tag))
    starts = [span.start for span in reversal.spans]
    for flag in reversal.flags:
        before = bisect(starts, flag.start)  # spans
        shift = reversal.spans[before - 1].cf_end - reversal.spans[before - 1].end if side and before else 0
        kind = _html(flag.kind)
        tag = f'<mark class="flag" title="flag: {kind}" data-label="{kind}">'
        marks.append((flag.start, flag.start + shift, flag.end + shift, tag))
    pieces: list[str] = []
    copied = shown = 0
    for _, start, end, tag in sorted(marks):
        if start < copied:  # a flag inside a replaced word
            continue
        between = _shortened(source[copied:start], bool(pieces), True)
        shown += len(between) + len(tag) + end - start
        if shown > budget:
            break
        pieces += (_html_with_cut(between), tag, _html(source[start:end]), "</mark>")
        copied = end
    else:
        return "".join(pieces) + _html_with_cut(_shortened(source[copied:], bool(pieces), False))
    return "".join(pieces) + _cut(len(source) - copied)


_CUT = "\ue000"  # private use: stands for a cut while a stretch is still text


def _shortened(stretch: str, after_mark: bool, before_mark: bool) -> str:
    stretch = stretch.replace(_CUT, "\ufffd")
    if len(stretch) <= GAP:
        return stretch
    left, right = CONTEXT * after_mark, CONTEXT * before_mark
    return f"{stretch[:left]}{_CUT}{len(stretch) - left - right}{_CUT}{stretch[len(stretch) - right :]}"


def _html_with_cut(stretch: str) -> str:
    parts = stretch.split(_CUT)
    return _html(stretch) if len(parts) == 1 else _html(parts[0]) + _cut(int(parts[1])) + _html(parts[2])


def _cut(number: int) -> str:
    return f'<span class="cut"> … {number:,} characters … </span>'


def _around(text: str, start: int, end: int, reach: int = 60) -> Around:
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


def _html(text: str) -> str:
    return escape(visible(text))
