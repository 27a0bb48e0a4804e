"""Given names: pairs, context, consistency, and what cannot be reversed."""

import csv
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.learn.census import make
from counterfactuals.text import names as module
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.names import load_names
from counterfactuals.text.persons import Mark

TABLE = Path(module.__file__).parent / "lexicons" / "given_names.json"
NAMES = load_names(TABLE)
PARTNER = {**dict(NAMES.pairs), **{male: female for female, male in NAMES.pairs}}
GENDER = load_lexicon("gender")
GROUP = {word: number for number, group in enumerate(GENDER.groups) for word in GENDER.words(group)}


def marks_of(text: str) -> list[Mark]:
    words = re.finditer(r"(?<![\w@])[A-Za-z]+(?!\w)", text)
    return [(m.start(), m.end(), GROUP[m.group().lower()]) for m in words if m.group().lower() in GROUP]


def shown(text: str) -> str:
    """The text with reversed names in [brackets] and flagged ones in <angles>; targets are checked."""
    out, copied = [], 0
    for found in NAMES.find(text, marks_of(text)):
        word = text[found.start : found.end]
        if found.target is not None:
            assert PARTNER[word if word in PARTNER else word.capitalize()].lower() == found.target.lower()
            assert found.target.isupper() == (word.isupper() and len(word) > 1)
        out += [text[copied : found.start], f"[{word}]" if found.target else f"<{word}>"]
        copied = found.end
    return "".join(out) + text[copied:]


@pytest.mark.parametrize(
    "marked",
    [
        # full names: the last word is the surname and stays, also alone
        "[Mary] Smith met [Elton] John. [Mary] liked John.",
        "[Henry] James wrote novels. James wrote them slowly.",
        "[Michael] Jordan and [Mary] [Elizabeth] Smith; [John] [Paul] Jones.",
        "[John] F. Kennedy, J. [Edgar] Hoover, J. K. Rowling and [Ludwig] van Beethoven.",
        "[Patrick] O'Brien's friend [Harry] D'Angelo said so.",
        "[Robert] Downey Jr. was there.",
        "[Mary] [Ann] and [Mary]-[Jane] were there.",
        "[MARY] SMITH v. [JOHN] DOE.",
        "[Marie] [Antoinette] was queen; [Lisa] Antoinette was not.",
        "Lord and Lady Clifford saw Lady [Diana] and Lady John Smith.",
        # alone
        "When [John] came, [Mary]'s book was gone; [Mary]’s too.",
        '"[Tom], [Dick] and [Harry]," said [Liz].',
        "[Bob] told [Kate] that [Elizabeth] was late.",
        "[Mark] looked up. [Grace] said so, for [Bill] had gone.",
        # titles, kings
        "Mr. James, Dr. James, Mrs James and Captain James left.",
        "Sir [James] left. Sir [Ian] McKellen, Sister [Mary], Uncle [Tom], Lady [Diana].",
        "King [Henry] VIII and Pope [John] [Paul] II. [Henry] was there. [Margaret] of Anjou too.",
        "Mrs. John Smith had her tea.",
        "President Johnson met Vermont Congressman [Peter] Welch and New York Mayor [Michael] Bloomberg.",
        "Lord Nelson and King [Peter].",
        # either group
        "Taylor Smith, Leslie, Kim and Robin said he was right.",
        "Andrea Pirlo (born 1979) is an Italian footballer. He played for his team.",
        # places
        "She moved to Virginia. He lives in Paris, in Georgia, at the University of Victoria.",
        "She lives in Charlotte, North Carolina. Elizabeth, New Jersey is near.",
        "He saw the James River, Elizabeth Street, Lake Geneva, Mount Elbert and Prince Edward Island.",
        "San Antonio, Santa Maria, St. John, St. Mary's and Saint Helena are places, she said.",
        "[Virginia] Woolf wrote. [Virginia] was ill. She moved to Virginia.",
        "[Charlotte] Smith lives in Charlotte.",
        # things and bodies
        "She shops at Harvey Nichols and drives a John Deere; he eats at Wendy's.",
        "The Victoria Cross, the John Lewis Partnership, James Madison University and Hurricane Katrina.",
        "Simon & Schuster, Ernst & Young and Smith & Wesson.",
        "The Harry Ransom Center in Austin holds the Marie Curie Fellowship papers.",
        "She said the Beth Smith Award was hers.",
        'The ship "Elizabeth" sank, too. Michael et al. found an Oscar nominee.',
        # words
        "In May he met us. April came. June was hot. Mark my words. Grace under pressure. Hope remains. Bills pass.",
        "[Will] Smith, [Mark] Twain, [Grace] Kelly and [Rose] Byrne met on 5 May.",
        "Christian churches and Roman law, he said.",
        # no counterpart: flagged, where roles show
        "<Barack Obama> said he would go.",
        "<Nuno Gonçalves> (born 9 July 1998) is a footballer. He plays.",
        "President <Xi Jinping> met his friend.",
        "<Jesus> wept, for he was sad. <Aristotle> taught his pupil.",
        "His son <Zdeněk Bakala> is an investor.",
        "<Zdeněk Bakala>, who won it, is a man.",
        "Barack Obama (born 1961) is a politician.",
        "In Buenos Aires he met the Criminal Code. Sustainable Development Goals, he said.",
        # odd
        "",
        "Mary-like, john, mcMary and @Mary.",
    ],
)
def test_cases(marked: str) -> None:
    text = re.sub(r"[\[\]<>]", "", marked).replace("@Mary", "")
    assert shown(text) == marked.replace("@Mary", "")


def test_a_mark_is_never_touched() -> None:
    text = "Martin Luther King and Mary Smith"
    start = text.index("Mary")
    assert [f.start for f in NAMES.find(text, [(start, start + 4, None)])] == [0]


def test_consistent_and_back() -> None:
    text = "Mary Smith met John Brown. John liked Mary."
    there = text
    for found in reversed(NAMES.find(text, [])):
        there = there[: found.start] + (found.target or "") + there[found.end :]
    assert there.count(PARTNER["Mary"]) == there.count(PARTNER["John"]) == 2
    back = there
    for found in reversed(NAMES.find(there, [])):
        back = back[: found.start] + (found.target or "") + back[found.end :]
    assert back == text


def test_table_is_one_to_one() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    every = [n for pair in NAMES.pairs for n in pair] + [n for g in NAMES.single for n in g] + sorted(NAMES.either)
    assert max(Counter(every).values()) == 1
    assert table["counts"]["pairs"] == len(NAMES.pairs) > 3500
    assert {"Taylor", "Leslie", "Andrea"} <= NAMES.either
    assert not {"Taylor", "Leslie", "Andrea", "Jesus", "Jr"} & PARTNER.keys()  # 1,326 boys of the census are "Jr"


def test_table_is_what_the_census_gives(shared_data: Path) -> None:
    census = shared_data / "names" / "us_first_names_1880_2010.csv"
    made = make(census)
    assert json.loads(json.dumps(made)) == json.loads(TABLE.read_text(encoding="utf-8"))
    with open(census, encoding="utf-8", newline="") as file:
        count = {row["name"]: int(row["male"]) + int(row["female"]) for row in csv.DictReader(file)}
    ratios = sorted(max(count[a], count[b]) / min(count[a], count[b]) for a, b in NAMES.pairs)
    assert ratios[-1] < 10 and ratios[len(ratios) * 9 // 10] < 3.1


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        load_names(tmp_path / "none.json")
    wrong = tmp_path / "wrong.json"
    for content in (
        "{",
        "[]",
        '{"pairs": [["A", "B"], ["A", "C"]], "single": {"female": [], "male": []}, "either": []}',
    ):
        wrong.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"wrong\.json"):
            load_names(wrong)
    (tmp_path / "census.csv").write_text("name,boys\nJohn,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="columns"):
        make(tmp_path / "census.csv")


PIECES = [
    "Mary",
    "John",
    "Virginia",
    "Xi",
    "Sir",
    "Mr.",
    "he",
    "her",
    "St.",
    "King",
    "The",
    "in",
    "J.",
    "II",
    "de",
    "Jr.",
]
PIECES += [
    "Mary-Jane",
    "MARY",
    "O'Brien",
    "’s",
    "'s",
    "(born 1970)",
    ", who",
    ".",
    "\n",
    "\xa0",
    " ",
    " ",
    "-",
    "é",
    "&",
    "ß",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25), st.booleans())
def test_offsets(pieces: list[str], spaced: bool) -> None:
    text = (" " if spaced else "").join(pieces)
    marks = marks_of(text)
    end = 0
    for found in NAMES.find(text, marks):
        assert end <= found.start < found.end <= len(text)
        assert all(found.end <= start or stop <= found.start for start, stop, _ in marks)
        end = found.end


def test_time_is_linear_on_odd_text() -> None:
    for piece in (
        "King ",
        "Mary ",
        "A.",
        "A. ",
        "Mary AB ",
        "The ",
        "Mary-",
        "O'",
        "(born ",
        "Mary\xa0",
        "Xi Xo, is a ",
    ):
        NAMES.find(piece * 20_000, [(0, 1, 0)])


def test_bios(shared_data: Path) -> None:
    """Biographies by heuristic gender: the person named in the title is reversed in the right direction."""
    kinds: Counter[str] = Counter()
    given = NAMES.entries.keys() - NAMES.leading.keys()
    with gzip.open(shared_data / "wiki_bios.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            bio = json.loads(line)
            first, text = bio["title"].split()[0], bio["lead"]
            marks = marks_of(text)
            if number % 3 or not text.startswith(first + " ") or first not in given or not marks:
                continue
            found = [f for f in NAMES.find(text, marks) if f.start < len(first)]
            right = found and found[0].group == (bio["gender"] == "m")
            kinds[
                "missed" if not found else "flagged" if found[0].target is None else "right" if right else "wrong"
            ] += 1
    total = kinds.total()
    assert total > 500
    assert kinds["missed"] < 0.02 * total and kinds["wrong"] < 0.01 * total and kinds["flagged"] < 0.1 * total, kinds
