"""Words in a sense that is no role, and given names that no list has: the text is flagged. What capitals.py learns."""

import json

import pytest

from counterfactuals import capitals
from counterfactuals.__main__ import main
from counterfactuals.lexicon import load_lexicon
from counterfactuals.names import CAPITALS
from counterfactuals.reverse import Reverser

REVERSER = Reverser(load_lexicon("gender"))
NAMES = load_lexicon("gender").names

DOUBTED = """
sense: <She> was built at Brest and was armed with 104 guns.
sense: The government hired "Phoenix", and then "Phoenix" was back with <her> crew.
sense: The <female> lays around 400 eggs.
sense: The <actors> in this network are banks and states.
sense: She was elected <chairman>.
sense: She is professor <emeritus>.
sense: They thanked God, and <He> heard them.
sense: They met <Miss> Ohio. She waved.
sense: She was crowned <Miss> Malaika.
sense: The <Duke> is a motorcycle with two cylinders.
sense: A stall in the stable and an experienced <groom>.
sense: White may drop a pawn between the <king> and the bishop.
sense: Rothschild and <sons> lent the money.
sense: She read "How <Men> Win" on the way.
sense: "<Mother>" was released in May. He sang it.
sense: He sold it to the firm of Paul <Henchman> in June.
sense: She worked for UN <Women> in Paris.
sense: He won the <Maharani> of Tonk Cup.
sex_bound: Robins (<nee> Gerrish) said she was late.
name: <Alexios> marched on the city. He won.
name: She was the daughter of <Narasamma> and lived long.
name: North Korean leader <Kim Jong-un> said he was glad.
name: <Augusta> ran the shop while he was away.
name: She is the wife of the Minister of Traditional Affairs <Obed Bapela>.
name: <Franck> Decloquement, an expert in trade, gave his view.
name: <Matti> Suur-Hamari competed twice, where he carried the flag.
name: She studied with <Jessie> Jane Elliot for years.
name: Many honour Doubleday: "<Abner> Doubleday Day" is held near his home.
name: <Malik> graduated in May, and he left.
name: He left <Herbert> Morrison technical High School.
name: He played against <Preston> North End.
"""
TRUSTED = """
The actress and the actors of the film met, and he won.
He was elected chairman.
She won in the first round.
The Duke of Kent said he was late.
He told her about the Women's World Cup.
"She came," he said. "Her mother told him."
Mary Smith said that Smith would go. She went to Boston with Mr. Okafor.
Dr. Okafor said he was late.
Alex Smith and Kim Lee said he was right.
I told Mother that she was right.
"""


def flags(text):
    return {(flag.kind, text[flag.start : flag.end]) for flag in REVERSER(text).flags}


@pytest.mark.parametrize("line", DOUBTED.strip().splitlines())
def test_what_may_be_no_role_is_flagged(line):
    kind, _, marked = line.partition(": ")
    word = marked[marked.index("<") + 1 : marked.index(">")]
    found = flags(marked.replace("<", "").replace(">", ""))
    assert [text for flag, text in found if flag == kind and (text in word or text.startswith(word))], found


@pytest.mark.parametrize("line", TRUSTED.strip().splitlines())
def test_what_is_clear_is_not(line):
    assert flags(line) == set()


def test_a_lexicon_of_other_words_has_no_such_doubts():
    assert not Reverser(load_lexicon("race"))("She was armed with 104 guns.").flags


TEXT = (
    "John {0} met Mary {0}. {0} left. The {1} won in {1}. I saw the {1}. Suddenly it rained, and suddenly it stopped."
)


def learnt(folder, text=TEXT):
    lines = [text.format(name, place) for name in ("Torvald", "Grandski") for place in ("Belmore", "Quintal")] * 4
    lines += ["Leofric Torvald and Leofric Grandski left.", "We met John Leofric."] * 9
    (folder / "a.txt").write_text("\n\n".join(lines))
    return capitals.learn([str(folder / "a.txt")], NAMES)


def test_learns_what_capitals_are(tmp_path):
    found = learnt(tmp_path)
    assert set(found["surnames"]) == {"Torvald", "Grandski"}  # "Leofric" opens more names than it closes
    assert {"Belmore", "Quintal"} <= set(found["others"]) and "Suddenly" in found["words"]
    assert "Leofric" not in {*found["surnames"], *found["others"], *found["words"]}
    assert found["provenance"]["counts"]["surnames"] == 2 and found["provenance"]["texts"] > 0


def test_endings_are_those_of_surnames():
    surnames = {f"{stem}vich" for stem in ("Abra", "Bogo", "Dalo", "Ero", "Fedo", "Gira", "Hora", "Iva")}
    found = capitals._endings(surnames | {"Belmore"}, {"Marie", "Ludovich"})
    assert found == {"ich"}  # the shortest
    assert not capitals._endings(surnames, {f"{stem}vich" for stem in ("Lu", "Na", "Pa", "Ra")})


def test_the_command_writes_what_names_reads(tmp_path, capsys, monkeypatch):
    learnt(tmp_path)
    assert main(["learn_names", "--source", str(tmp_path / "a.txt"), "--out", str(tmp_path / "c.json")]) == 0
    table = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert "'surnames': 2" in capsys.readouterr().out
    assert table["provenance"]["command"] == "python -m counterfactuals learn_names --source a.txt"
    shipped = json.loads(CAPITALS.read_text(encoding="utf-8"))
    assert set(table) == set(shipped) and all(isinstance(table[section], str) for section in capitals.SECTIONS)


def test_the_shipped_lists_hold_no_given_name_of_the_table():
    shipped = json.loads(CAPITALS.read_text(encoding="utf-8"))
    common = {name for pair in NAMES.pairs[:500] for name in pair} - NAMES.weak - NAMES.context["commons"]
    for section in ("surnames", "others", "words"):
        assert not common & set(shipped[section].split()), section
    assert set(capitals.SECTIONS) == set(shipped["provenance"]["counts"])
