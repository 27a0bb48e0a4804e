"""Given names: which capitals are a person's, what they become, which are doubted; the table; what is learnt."""

import csv
import gzip
import json
import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.learn import people as learning
from counterfactuals.learn.census import LISTS, make
from counterfactuals.learn.pronouns import write
from counterfactuals.text import lexicon as lexicon_module
from counterfactuals.text.document import Document, Mention, doubts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.names import load_names
from counterfactuals.text.reverse import RULES, reverse
from counterfactuals.text.runs import TEMPLATES, Scene, keys, runs

GENDER = load_lexicon("gender")
NAMES = GENDER.names
assert NAMES is not None
TABLE = Path(lexicon_module.__file__).parents[1] / "lexicons" / "given_names.json"
PARTNER = {one: other for pair in NAMES.pairs for one, other in (pair, pair[::-1])}


def marked_by_rules(text: str) -> list[Mention]:
    document = Document(text, GENDER)
    for rule in RULES:
        rule(document)
    return document.mentions


def names_in(text: str) -> list[Mention]:
    """The names that are replaced, and those that stay and are doubted, once all rules have run."""
    return [m for m in marked_by_rules(text) if m.rule == "name" and (m.target or m.reasons)]


def shown(text: str) -> str:
    """The text with replaced names in [brackets], and those that stay and are doubted in <angles>."""
    out, copied = [], 0
    for mention in names_in(text):
        word = text[mention.start : mention.end]
        out += [text[copied : mention.start], f"[{word}]" if mention.target else f"<{word}>"]
        copied = mention.end
    return "".join(out) + text[copied:]


@pytest.mark.parametrize(
    "marked",
    [
        # full names: the last word is the surname and stays, also alone
        "[Mary] Smith met [Elton] John. [Mary] liked John.",
        "[Henry] James wrote novels. James said he wrote them slowly.",
        "[Michael] Jordan and [Mary] [Elizabeth] Smith; [John] [Paul] Jones.",
        "[John] F. Kennedy, J. [Edgar] Hoover, J. K. Rowling and [Ludwig] van Beethoven.",
        "[Patrick] O'Brien's friend [Harry] D'Angelo said so.",
        "[Robert] Downey Jr. was there.",
        "[Mary] [Ann] and [Mary]-[Jane] were there.",
        "[MARY] SMITH v. [JOHN] BROWN.",
        "Presently [Marjorie] Pope laughed.",
        "[John] Flicker President",
        # alone, with a pronoun or without
        "[Peter] was tired. He wanted his coat.",
        "When [John] came, [Mary]'s book was gone; [Mary]’s too.",
        '"[Tom], [Dick] and [Harry]," said [Liz].',
        "[Bob] told [Kate] that [Elizabeth] was late.",
        "[Mark] looked up. [Grace] said so, for [Bill] had gone.",
        "Dear [Ken], she is here. Thanks, [Bob]",
        "[Frank] lost his way.",
        # far from every role, with nothing that shows a person, and in references
        "Malahide Castle, the hill of Tara, and the long barrows of Knowth.",
        "So it was shown (Gregory and Schumm, 1987; Vincent, 1989; Andres et al. 2001).",
        # no counterpart in the table: another partner, where the text shows the group
        "[Ruvik] Tarsen (born 1970) is a builder. He won. [Ruvik] was old.",
        "<Ruvik Tarsen> and her friend left.",
        "O'<Donel Levy> sang; he was old.",
        # titles, relations, kings
        "Mr. James, Dr. James, Mrs James and Captain James left.",
        "Sir [James] left. Sir [Ian] McKellen, Sister [Mary], Uncle [Tom], Lady [Diana].",
        "King [Henry] VIII and Pope [John] [Paul] II. [Henry] was there. [Margaret] of Anjou too.",
        "Mrs. John Smith had her tea. Mr. and Mrs. John Smith had tea.",
        "President Johnson met Vermont Congressman [Peter] Welch and New York Mayor [Michael] Bloomberg.",
        "Secretary of State [Colin] Powell arrived. Powell said he was tired.",
        "His wife [Mary] and her brother, [Tom], left.",
        "World Champion [Johnny] Leach won.",
        # either group
        "Taylor Smith, Leslie, Kim and Robin said he was right.",
        # places, things, bodies, works
        "She moved to Virginia. He lives in Paris, in Georgia, at the University of Victoria.",
        "She lives in Charlotte, North Carolina. He was recalled to Boston on June 10.",
        "He saw the James River, Elizabeth Street, Lake Geneva, Mount Elbert and Prince Edward Island.",
        "He was in San Antonio, Santa Maria, St. Mary's Hospital and Saint Helena.",
        "She shops at Harvey Nichols and drives a John Deere; he eats at Wendy's.",
        "The Victoria Cross, the John Lewis Partnership, James Madison University and Hurricane Katrina.",
        "Simon & Schuster, Ernst & Young and Smith & Wesson.",
        "The Harry Ransom Center in Austin holds the Marie Curie Fellowship papers.",
        "She said the Beth Smith Award was hers.",
        'He saw the ship "Elizabeth".',
        "He joined the League of Women Voters. A Christmas Carol is her book.",
        "Mother Mary helped him.",
        "Russell (1939) described it; so did others (Marcus 183; Leeder and Alexander, 1987).",
        # how usual a name is, places, things called after somebody, names of works
        "He studied at the University of Stirling in Jasper county and saw Mt. Moriah and the city of Tena.",
        'He made "Jerry\'s" (1976) and "Monte Walsh".',
        "[David] Brenner met her. Brenner left.",
        "[William] Jackson Hooker was her friend.",
        # titles
        "Miss [Mary], Lady [Clara], Mrs [Rachel] and Lord [Henry] laughed. Sir [James] left.",
        "He met Lord Orville.",
        "[Sadie] [Kate] laughed at him.",
        # a full name that the table has not gets a partner where a pronoun or a role shows its group
        "[Ruvik] Tarsen (born 30 December 2000), is a player.\nCareer.\nOn 25 February, he made his debut.",
        "The Dutchman [Ruvik] Tarsen was there.",
        "The <Erich-Weinert-Ensemble> was a male choir. It was named after [Erich] Weinert.",
        # lists of the world's names
        "[Søren] said he was late. [Małgorzata] [Maria] Nowak met him.",
        "[Soren] Kierkegaard was at his desk.",
        # months, words, contractions
        "In May he met us. They paid her for April, May and June; it was 14 June then. Hope remains.",
        "I'm sure she knew. Don't tell him. Don’ t. Let's see her. Yeah, he did. OK, she said.",
        "FRENCH CHEF: My mother was here.",
        # short forms
        "[Stephen] sang. Later [Steve] left with his wife.",
        # small letters
        "we saw [tom] in his car",
        # usual names that end like an adverb; nicknames in quotes; works, teams, books of the Bible; regnal names
        "[Kimberly] [Anne] Keever said she was late.",
        '[Eli] [John] "[Johnny]" Tapscott was tired. Tapscott lost his coat.',
        '[William] "[Bill]" Smith was tired. He left.',
        "It is written in the book of Matthew that he came; Matthew 5:3 says he did.",
        "May God bless her. [May] Welland took her hat.",
        "She was in the film Annie Hall and joined Turkish club Astra Ploiești.",
        "She was educated at King Edward VI High School for Girls.",
        "She and her fiancé, [Alistair] ([Ewen] Leslie), left.",
        "He was received in [Isaura]'s room.",
        # beside its long form a short form is a name too
        "My [Emmy] is here with her mother. [Emily] left. [Emmy], dear!",
        # a role ahead of its name, a name beside one that turns
        "In his review, <Ruvik Tarsen> states it.",
        "The men's champions were Norway's <Ruvik Tarsen> and [Tor] [Arne] Hetland.",
        # a name alone without a counterpart stays, doubted beside a role that may be its own
        "[Ruvik] Tarsen said he would go.",
        "[Nurvo] Gonçalves (born 9 July 1998) is a footballer. He plays.",
        "President <Qo Jinveng> met his friend.",
        "<Jesus> wept, for he was sad.",
        "His son <Zdvorn> is an investor.",
        "Obama said he would go.",
        "Ruvik Tarsen is a politician.",
        # a name that stays beside a role of the other group
        "Scott saw her.",
        # a word of English, not a name without its accents (Sölve), nor a name in capitals (Will)
        "Plans to Solve it were hers. <YOU WILL NOT GO>, he said.",
        "",
    ],
)
def test_cases(marked: str) -> None:
    text = re.sub(r"[\[\]<>]", "", marked)
    assert shown(text) == marked


def test_names_are_exchanged_one_to_one_and_come_back() -> None:
    text = "Mary Smith met John Brown. Stephen liked Mary, and Steve said that John had left his wife Grace."
    there = reverse(text, GENDER).reversed
    assert there.count(PARTNER["Mary"]) == there.count(PARTNER["John"]) == 2
    assert PARTNER["Stephen"] in there and "Cindy" in there  # Steve becomes a short form of Cynthia
    assert reverse(there, GENDER).reversed == text


def test_a_name_is_the_same_in_all_its_places() -> None:
    text = "Virginia Woolf was a writer.\n\nShe was ill. Virginia wrote. Later she lived in Virginia with her husband."
    words = [text[m.start : m.end + 7] for m in names_in(text)]
    assert words == ["Virginia Woolf ", "Virginia wrote."]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("Ruvik Tarsen said he would go.", ["name:adopted"]),
        ("Fruvo lost his ring.", ["name:unknown"]),
        ("His wife Zdvorna lost her ring.", ["name:unknown"]),
        ("Joan lost her way.", ["name:no_partner"]),
        ("Victoria lost her way.", ["name:maybe"]),
        ("Ruvik Tarsen met his wife. Ann saw her.", ["name:adopted"]),
        ("Ruvik Tarsen met Ann. She saw him.", []),
        ("Okafor lost his ring.", ["name:unknown"]),
        ("Her husband met Ruvik Tarsen.", []),
        ("Jesus wept, for he was sad.", ["name:famous"]),
        ("Vince told me. I work at Charles River Associates Vince.", ["name:namesake"]),
        ("He saw Antony and Cleopatra.", ["name:rare_alone", "name:famous"]),
        ("we saw tom in his car", ["name:small"]),
        ("The Erich-Weinert-Ensemble was a male choir. Erich Weinert led it.", ["name:namesake"]),
        ("Mary Smith and Ruvik Tarsen, whom she met, left.", ["name:unknown"]),
        ("Taylor said he was right.", []),
        ("Obama said he would go.", []),
        ("Peter said he would go.", []),
        ("They met in Virginia, where he lived.", []),
    ],
)
def test_reasons(text: str, reasons: list[str]) -> None:
    found = [reason for mention in names_in(text) for reason in mention.reasons]
    assert doubts().keys() >= set(found)
    assert len(found) == len(reasons) and all(map(fnmatch, found, reasons)), found


def test_no_usual_name_stays_unseen_beside_a_pronoun_that_turns(shared_data: Path) -> None:
    """Each of the 400 most usual US names of either sex, at the start of a plain sentence, is replaced or doubted."""
    with open(shared_data / "names" / "us_first_names_1880_2010.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts: Counter[str] = Counter()
    for sex, pronouns in (("female", ("She", "her")), ("male", ("He", "his"))):
        for row in sorted(rows, key=lambda row: -int(row[sex]))[:400]:
            name = row["name"]
            if name in NAMES.context["unisex"] or name in ("Earl", "Guy"):  # either pronoun fits; words of the lexicon
                continue
            for text in (
                f"{name} lost {pronouns[1]} way.",
                f"{name} was tired. {pronouns[0]} wanted {pronouns[1]} tea.",
            ):
                found = names_in(text)
                assert found, text
                counts["replaced" if found[0].target else "left"] += 1
    assert counts["replaced"] > 0.85 * counts.total()


def test_other_lexicons_have_no_names() -> None:
    text = "Mary Smith and Emeka met Ruvik Tarsen. He was black."
    document = Document(text, load_lexicon("race"))
    for rule in RULES:
        rule(document)
    assert not [m for m in document.mentions if m.rule == "name"]


# ---------------------------------------------------------------- the table


def test_table_is_one_to_one() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    every = [n for pair in NAMES.pairs for n in pair] + [n for g in NAMES.single for n in g] + sorted(NAMES.either)
    assert max(Counter(every).values()) == 1
    assert table["counts"]["pairs"] == len(NAMES.pairs) > 3500
    assert {"Taylor", "Leslie", "Andrea"} <= NAMES.either
    assert not {"Taylor", "Leslie", "Andrea", "Jesus", "Jr"} & PARTNER.keys()  # 1,326 boys of the census are "Jr"
    assert all(NAMES.entries[other][1] == name for name, (_, other) in NAMES.entries.items() if other)


def test_table_is_what_the_census_gives(shared_data: Path) -> None:
    census = shared_data / "names" / "us_first_names_1880_2010.csv"
    made = make(census)
    assert json.loads(json.dumps(made)) == json.loads(TABLE.read_text(encoding="utf-8"))
    with open(census, encoding="utf-8", newline="") as file:
        count = {row["name"]: int(row["male"]) + int(row["female"]) for row in csv.DictReader(file)}
    listed = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in LISTS]
    ours = [
        tuple(pair.split())
        for sections in listed
        for key in sections
        if key != "either"
        for pair in sections[key].split(",")
    ]
    assert set(ours) < set(NAMES.pairs) and len(ours) > 4000
    ratios = sorted(max(count[a], count[b]) / min(count[a], count[b]) for a, b in set(NAMES.pairs) - set(ours))
    assert ratios[-1] < 10 and ratios[len(ratios) * 9 // 10] < 3.1


def test_short_forms_are_names_of_the_table() -> None:
    for name, short_forms in NAMES.nicknames.items():
        assert NAMES.entries[name][0] in (0, 1)
        assert {NAMES.entries[short][0] for short in short_forms} <= {NAMES.entries[name][0]}, name


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
    with pytest.raises(ValueError, match="has no names"):
        learning.learn([], load_lexicon("race"))


# ---------------------------------------------------------------- any text

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
PIECES += ["Mary-Jane", "MARY", "O'Brien", "’s", "'s", ",", ".", "-", "é", "&", "ß"]
PIECES += ["(born 1970)", ", who", "\n", "\xa0", " "]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25), st.booleans())
def test_mentions_lie_apart_in_any_text(pieces: list[str], spaced: bool) -> None:
    document = Document((" " if spaced else "").join(pieces), GENDER)
    for rule in RULES:
        rule(document)
    end = 0
    for mention in document.mentions:
        assert end <= mention.start < mention.end <= len(document.text)
        assert document.starts[mention.first] == mention.start and document.ends[mention.last - 1] == mention.end
        end = mention.end


@pytest.mark.parametrize("piece", ["King ", "Mary ", "A. ", "Mary AB ", "Mary-", "O'", "(born ", "Xi Xo, is he a "])
def test_time_is_linear_on_odd_text(piece: str) -> None:
    names_in(piece * 10_000 + "he")


def test_bios(shared_data: Path) -> None:
    """Biographies by heuristic gender: the person named in the title is replaced, in the right direction."""
    kinds: Counter[str] = Counter()
    with gzip.open(shared_data / "wiki_bios.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 5:
                continue
            bio = json.loads(line)
            first, text = bio["title"].split()[0], bio["lead"]
            if not text.startswith(first + " ") or first not in NAMES.entries or not NAMES.entries[first][1]:
                continue
            found = [m for m in names_in(text) if m.start == 0]
            right = found and found[0].group == (bio["gender"] == "m")
            kinds["missed" if not found else "wrong" if not right else "replaced" if found[0].target else "left"] += 1
    total = kinds.total()
    assert total > 300
    assert kinds["missed"] < 0.02 * total and kinds["wrong"] < 0.02 * total and kinds["left"] < 0.05 * total, kinds


# ---------------------------------------------------------------- what is learnt

FULL = "Mr. Zorn came in. Then Ulsa Zorn laughed at Zorn. Miss Ulsa Zorn told her so, and Zorn told her so again."
PLACE = "In the Murk she lived. From Murk she went to the Murk again, and back to Murk with her son."


def test_a_text_labels_its_own_names() -> None:
    found = {(model, row[TEMPLATES.index("first")], label) for model, row, label in learning.samples(FULL, GENDER)}
    assert ("full", "ulsa", True) in found and ("given", "zorn", False) in found and ("alone", "zorn", True) in found
    found = {(model, row[TEMPLATES.index("first")], label) for model, row, label in learning.samples(PLACE, GENDER)}
    assert found == {("alone", "murk", False)}


def test_models_see_no_gender() -> None:
    """A name and its partner, she and he: the keys are the same in a text and in its reversal."""
    text = "When Mary told her mother, John Smith laughed at his wife. Grace was his friend."
    sides = []
    for side in (text, reverse(text, GENDER).reversed):
        document = Document(side, GENDER)
        RULES[0](document)
        scene = Scene(document)
        sides.append([keys(scene, run) for run in runs(scene)])
    assert sides[0] == sides[1] and len(sides[0]) == 3


def test_learns_from_plain_text(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": f"{FULL}\n{PLACE}\n"}) + "\n" for _ in range(30)), encoding="utf-8")
    learnt = learning.learn([str(source)], GENDER, note="by hand", command="c")
    assert learnt == learning.learn([str(source)], GENDER, note="by hand", command="c")
    held = learnt["provenance"]["held_out"]
    assert held["alone"]["persons"]["right"] == held["alone"]["others"]["right"] == 1
    write(learnt, tmp_path / "people.json")
    assert json.loads((tmp_path / "people.json").read_text(encoding="utf-8")) == learnt
    (tmp_path / "none.txt").write_text("No names at all.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="too few names"):
        learning.learn([str(tmp_path / "none.txt")], GENDER)


@pytest.mark.parametrize(
    ("text", "doubted"),
    [
        ("They met Sir James Hall.", False),
        ("Madam Mina is here.", True),
        ("They met Sir James Brown and Lady Clara.", False),
        ("Mr. Thomas met Mrs. John Smith.", False),
    ],
)
def test_a_title_and_its_name_turn_together(text: str, doubted: bool) -> None:
    found = [m for m in marked_by_rules(text) if "name:title" in m.reasons]
    assert bool(found) == doubted
