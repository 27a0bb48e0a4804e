"""Does reversing twice give the text back? Where not, which rule is why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from counterfactuals.text.reverse import Reversal, Reverser, Span

BIJECTIVE = ("pair", "name", "article")  # rules that promise it; the others are many-to-one, or drawn


@dataclass
class RoundTrip:
    """Counts over texts. `lost` counts, for each rule, the texts in which a span of it did not come back.

    `words`: (rule, word, what came back) → spans. A text counts once for every rule that failed in it.
    """

    texts: int = 0
    reversed: int = 0
    exact: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    bijective_lost: int = 0
    words: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def bijective_share(self) -> float:
        """Share of texts in which everything that a one-to-one rule replaced came back; 1 is what they promise."""
        return 1 - self.bijective_lost / self.texts if self.texts else 1.0

    def __str__(self) -> str:
        exact = self.exact / max(self.texts, 1)
        lines = [
            f"{self.texts:,} texts, {self.reversed:,} reversed; {exact:.2%} come back exactly, "
            f"{self.bijective_share:.2%} in everything that a one-to-one rule ({', '.join(BIJECTIVE)}) replaced"
        ]
        for rule, count in self.lost.most_common():
            words = Counter({key[1:]: n for key, n in self.words.items() if key[0] == rule})
            examples = ", ".join(f"{before} → {after} {n}×" for (before, after), n in words.most_common(12))
            lines.append(f"  {rule}: {count:,} texts ({examples})")
        return "\n".join(lines)


def round_trip(texts: Iterable[str], reverser: Reverser) -> RoundTrip:
    """Reverse each text twice and compare."""
    result = RoundTrip()
    for text in texts:
        there = reverser(text)
        back = reverser(there.reversed)
        result.texts += 1
        result.reversed += bool(there.spans)
        if back.reversed == text:
            result.exact += 1
            continue
        lost = list(_lost(there, back))
        result.words.update(lost)
        rules = {rule for rule, _, _ in lost}
        result.lost.update(rules)
        result.bijective_lost += bool(rules & set(BIJECTIVE))
    return result


def _lost(there: Reversal, back: Reversal) -> Iterator[tuple[str, str, str]]:
    """(rule, word, what came back) where that differs, by the rule of the way there, or of the way back alone."""
    answered: set[Span] = set()
    for span in there.spans:
        answers = [answer for answer in back.spans if span.cf_start <= answer.start < span.cf_end]
        answered.update(answers)
        pieces, copied = "", span.cf_start
        for answer in answers:
            pieces += back.text[copied : answer.start] + back.reversed[answer.cf_start : answer.cf_end]
            copied = answer.end
        before, after = there.text[span.start : span.end], pieces + back.text[copied : span.cf_end]
        if before != after:
            yield span.rule, before, after
    for answer in back.spans:
        if answer not in answered:
            yield answer.rule, back.text[answer.start : answer.end], back.reversed[answer.cf_start : answer.cf_end]
