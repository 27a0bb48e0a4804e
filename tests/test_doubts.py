"""Words in a sense that is no role, and given names that no list has: the text is flagged. What capitals.py learns."""

import json
import re

import pytest

from counterfactuals.__main__ import main
from counterfactuals.learn import people as capitals
from counterfactuals.text import doubts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.names import CAPITALS
from counterfactuals.text.reverse import Reverser

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
sense: <She> wrecked on Tuskar Rock in 1812.
sense: <King> of The Kippax is a fanzine.
sense: They invited twenty people from the <fraternity>.
sense: A study in several centres of <male> growth.
sense: Her "PRIDE <MAN> FESTIVAL 2005" was shown.
sense: The <he> 2017 Cup was played, and his team won.
sense: She led one of its <sister> organisations.
sense: He said that they had to <guy> the poles.
sense: From "abba", meaning "<father>", comes his title.
sense: The Park Street Bridge was named in <her> honour.
sense: As a two-year-old <she> won once.
sense: <Freedman> (1975) asked for more, and she agreed.
sense: The <daughter> is unstable, as uranium is.
sense: The <males> of "L. pulchrissimus" are small.
sex_bound: He likes <camogie> and football.
name: <Ekaterina> Makarova and Elena Vesnina won the title.
name: <Bohumil> Váňa and Adrian Haydon won the title.
name: <Janne> Irene Mark is a vocalist.
name: Tom Snyder wrote it for <Tom> Snyder Productions.
name: His father Abraham came, and the <Abraham> story is old.
name: She plays as a midfielder for <Guillermo> Brown.
name: She defeated Navy, <George> Mason and Fordham.
name: In contrast to Regent and <Carlton> Terraces, it is new.
name: They travelled with <Newton> Adrenaline in May.
name: He saw General <Robert> "Rosie" A. Rosenberg.
name: He married <Chandrika> in 1961.
name: She was born to <Eugene> and Maria Mann.
name: <Christian> Kurts is known for his work.
name: The allegations towards <Kevin> Spacey were his.
name: It was a merger of Day & Co and <Raphael> Zorn.
name: <Alexios> and Johanna von Rauch had ten children.
name: <Gary> Lewis and the Playboys met him.
sense: Bert & <His> Orchestra played.
sense: The Latin is "gwitu-<men>", he said.
sense: <Papa> represented his country in 1992.
sense: They led the city with <Kings> acting like fathers.
sense: It is a <man>-induced change.
sense: The <Lord> Ayyappan temple is his.
sense: Lance Mountain kept wicket for years. <His> only other match was lost.
sense: They believed in the divine right of <kings>, and he did.
sense: He joined the <fraternity> in May.
sense: Tina and <Her> Pony played with him.
name: Wally Masur / Emilio Day beat Omar Fry / <Goran> Ivanišević in May.
name: On her death, a prize was founded in <Louisa> Gregory's name.
sense: It ended the brutality of <man>.
sense: <Man> is free, he wrote.
sense: He was at the <Her> Interactive game.
sense: She tied the <guy> anchors.
sense: The Trials of <Ted> Haggard is a documentary film made by Ann Day.
sense: Melba Liston and <Her> 'Bones is an album by her.
name: His factory was in the care of his second son, <Ludvig> Nobel (1831–1888).
name: Pastor <Ted> was there. Ted Haggard left when he did.
name: Lady <Edward> came with her sister.
name: An attempt by Sheikha <Latifa> ended in her capture.
name: He was using his alias "<Hilda>".
name: It was founded in <Florence>'s home when her daughter came.
name: He read "On Words", <Peter> Day, 2005.
name: The <John> Dorius Jr. House is where Dorius lived with his dog.
name: <Digvijay> Das was educated. He gave his fort away.
name: He ran on <Andrew> Cheng's ticket when Cheng won.
name: They appointed Mr. <William> Mitchell Plant.
name: Maria Day, also known as <Maryna> Falska, was there.
name: <Giovanni> Battista Rezzonico was there with his wife.
name: The pet rabbit <Marlon> Bundo was his.
name: It was said by Secretary-General <Kofi> Annan. Kofi Annan called on his people.
sense: Raymond Anthony <Papa> swam for his country.
name: After the war, <Chalmers> Smith worked in clinics. She died in 1944.
sense: William "<Bill>" R. Taylor was there. He left.
name: Hon. <Lily> was there. She left.
name: Christian <Jonatan> Ortiz (born 1990) was there. He left.
name: They walked to <Glen> Nevis.
sense: His younger brother is Peter Nelson, the <5th Earl>.
sense: She wrote a series called "Day with <Gerson> Borrero." It is his.
sense: They have <sister>-city links, she said.
sense: The prefix of the third person is <masculine>.
sex_bound: All the women had an <IUD>.
sex_bound: Sir John Gleane, 1st <Baronet>.
"""
TRUSTED = """
The actress and the actors of the film met, and he won.
He was elected chairman.
She won in the first round.
The Duke of Kent said he was late.
In 2018 Eubanks made his debut, and the crowd named him.
His first album was made in Los Angeles.
He is a man of honour, and between man and wife there was peace.
He met Her Majesty.
On Monday the physician forgot his watch.
He got the Royal Order of George I and played against Don Bosco FC.
The cleaning lady said she was late.
She was ordained as a Catholic priest.
He told her about the Women's World Cup.
"She came," he said. "Her mother told him."
Mary Smith said that Smith would go. She went to Boston with Mr. Okafor.
Dr. Okafor said he was late.
Alex Smith and Kim Lee said he was right.
I told Mother that she was right.
There were 100 males and 112 females in 40 households.
Lord Denning heard the case.
The male students sang.
They asked Robert Nozick and Mary Smith.
She and her sister were at school with his brother.
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


def test_a_rank_that_opens_a_sentence():
    assert REVERSER("When King Henry I left, he slept.").reversed.startswith("When Queen Alice I left, she")


def test_a_surname_before_a_number():
    assert REVERSER("He sang with Walter Smith III.").reversed == "She sang with Heather Smith III."


def test_a_country_before_a_name_and_letters_after_it():
    named = REVERSER("It is named after the Prime Minister of Italy Benedetto Cairoli (1825-1889).")
    assert named.reversed == "It is named after the Prime Minister of Italy Belia Cairoli (1825-1889)."
    assert REVERSER("Alfred Price FRHistS (1936 – 2017) wrote.").reversed == "Peggy Price FRHistS (1936 – 2017) wrote."


def test_an_abbreviation_is_no_title():
    assert not REVERSER("It helps patients with MS. The study ended.").spans


def test_brief_or_not_the_same_texts_stay():
    texts = [line.partition(": ")[2].replace("<", "").replace(">", "") for line in DOUBTED.strip().splitlines()]
    reverser = Reverser(load_lexicon("gender"), policy="skip")
    for text, brief in zip(texts, reverser.many(texts, brief=True), strict=True):
        assert (brief.cue, brief.spans) == (reverser(text).cue, ()), text


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
    assert found["firm"] == ["Grandski", "Torvald"]
    assert {"Belmore", "Quintal"} <= set(found["others"]) and "Suddenly" in found["words"]
    assert "Leofric" not in {*found["surnames"], *found["others"], *found["words"]}
    assert found["provenance"]["counts"]["surnames"] == 2 and found["provenance"]["texts"] > 0


def test_learns_which_names_are_only_persons(tmp_path):
    surnames = [
        f"{start}{middle}sk" for start in ("Bor", "Dal", "Fen", "Gor") for middle in ("an", "em", "il", "ot", "ub")
    ]
    lines = [f"Robert {name} met Mary {name}." for name in surnames]
    lines += [f"We met Clyde {word} twice." for word in THINGS]
    lines += [f"Seldom: {word.lower()}. " * 30 + f"We met Clyde {word}." for word in LAST]
    (tmp_path / "b.txt").write_text("\n\n".join(lines))
    found = capitals.learn([str(tmp_path / "b.txt")], NAMES)
    assert set(surnames) <= set(found["firm"]) and not {"Bridge", *LAST} & set(found["firm"])
    assert "Robert" in found["personal"] and "Robert" not in found["mixed"]
    assert "Clyde" in found["mixed"] and "Clyde" not in found["personal"]
    assert set(LAST) <= set(found["words"])


THINGS = ("Bridge", "School", "River", "Street", "Club", "Hall")
THINGS = ("Bridge", "School", "River", "Street", "Club", "Hall")
LAST = ("Furnace", "Lantern", "Harvest")


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


def test_words_by_their_first_letters_are_those_of_the_plain_expression():
    source = r"[Cc]hess|pawns?|fish(?:es)?|spawn\w*|[A-Z]\. [a-z]{4,}|half-life|[\d]\d* guns|master(?<=\b, master)"
    fast, plain = doubts._whole(source), re.compile(rf"\b(?:{source})\b")
    words = [
        "Chess",
        "pawns",
        "fishes",
        "fisher",
        "spawning",
        "P. vulgaris",
        "half-life",
        "20 guns",
        "a, master",
        "life",
    ]
    ends = ["", " ", "x", "é", "-", "_", "\n", ", "]
    texts = [before + word + after for before in ends for word in words for after in ends]
    found = [fast.search(text) is not None for text in texts]
    assert found == [plain.search(text) is not None for text in texts]
    assert 200 < sum(found) < 400
