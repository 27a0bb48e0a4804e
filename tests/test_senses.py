"""Words in a sense that is no person's role: what stays, what is doubted, and what is neither."""

import re

import pytest

from counterfactuals.text import pronouns, senses, words
from counterfactuals.text.document import Document, doubts
from counterfactuals.text.lexicon import load_lexicon

GENDER = load_lexicon("gender")


def found(text: str, lexicon=GENDER) -> Document:
    """The mentions of words, without those of given names."""
    document = Document(text, lexicon)
    for rule in (words.find, pronouns.choose, senses.doubt):
        rule(document)
    return document


def turned(text: str) -> str:
    """Every mention replaced, whatever its doubt."""
    document, done = found(text), text
    for mention in reversed(document.mentions):
        if mention.target is not None:
            done = done[: mention.start] + mention.target + done[mention.end :]
    return done


LEFT = """
Man, he is tall. → Man, she is tall.
Man up. Hey man, thanks, man. Oh boy! Boy, was I wrong.
Sailors man the pumps, and we went to man the guns.
Hi guys, and sorry guys. Hey dude!
The firm hires to groom Case, and the cat grooms itself.
The founding fathers; the Church Fathers; Mother Nature; Mother Mary.
the nature of man; early man; Man is free.
He joined the League of Women Voters. → She joined the League of Women Voters.
She wrote for the Ladies Home Journal. → He wrote for the Ladies Home Journal.
The Women's March; the Young Men's Christian Association; the Woman's Missionary Society.
He drank in the Prince of Wales pub. → She drank in the Prince of Wales pub.
He lived in King Street. → She lived in King Street.
They met in King's Cross, at the Queen's Bench and for the Empress's Cup.
It was Father's Day.
"Heroes" was released in May.
They saw "Wonder Woman", and then “Invisible Man” and *The Lion King*.
The Boys & Girls Clubs of Indianapolis and the Big Sisters program were there.
We read about the Sons of Liberty and Warner Brothers.
It was sold to the firm of Paul Henchman in June.
HMS Empress sank.
She was elected chairman. → He was elected chairman.
She is professor emeritus. → He is professor emeritus.
From "abba", meaning "father", it comes.
a male connector; the plug is female
White may drop a pawn between the king and the bishop.
The grooms held the horses.
Oh god, thank god, and praise god. Our Father which is in heaven.
"Boy that was hard." Uh, uh boy, it came out fine. Too often, man has not been good. I am a man and a brother.
The prime actors of this trade; the fall guy; P _ Z _ Ms. yeah; Master of Arts
He went to Sir Winston Churchill School. → She went to Sir Winston Churchill School.
her fellow-subjects, my dear fellow Poles → his fellow-subjects, my dear fellow Poles
his dear fellow-citizens → her dear fellow-citizens
Raymond Anthony Papa swam. The "PRIDE MAN FESTIVAL 2005" was shown. The Maharani of Tonk Cup.
A chick hatched from the egg.
sister companies, sister-city links, a daughter cell, a mother tongue
forsaken of God and man
And boy was it hot. Thanks a lot, and boy, does that hurt!
He had a f–king day. → She had a f–king day.
The heavy chaps; Honest to grandma! The Big Sisters and the Little Brothers.
The male of this species is larger than the female.
his fellow student, a fellow of Merton, a Ross fellow → her fellow student, a fellow of Merton, a Ross fellow
her fellow-lodger, her fellows; her master's degree → his fellow-lodger, his fellows; his master's degree
a sister shop; a bachelor's degree, two queen beds, a guy wire, to guy the poles, cowboy boots, a queen ant
The "Latino/a" vote, Latino voters and Gran Canaria.
Heavenly Father; God the Father; the Son of Man
They keep the labour in labour markets.
"""
TURNED = """
Man, 45, held after wife's death. → Woman, 45, held after husband's death.
Boy, come here. → Girl, come here.
She gave the old man the keys. → He gave the old woman the keys.
a kind of man; a god of war; this dude → a kind of woman; a goddess of war; this chick
These guys are a bride and a groom. → These gals are a groom and a bride.
Guy at bar: Hi. Girl at bar: No. → Gal at bar: Hi. Boy at bar: No.
Man Kills Wife in Texas Store → Woman Kills Husband in Texas Store
the Women's World Cup, the men's singles, a women's team → the Men's World Cup, the women's singles, a men's team
He and Mrs. Smith of Boston University came. → She and Mr. Smith of Boston University came.
the Chairman of the Finance Committee → the Chairwoman of the Finance Committee
Queen Helena and the King of Spain; Vice Chairman Day → King Helena and the Queen of Spain; Vice Chairwoman Day
I told Mother that Dad left. "Yes, Sir," he said. → I told Father that Mom left. "Yes, Madam," she said.
She wondered what they were which the old man saw. → He wondered what they were which the old woman saw.
Isn't he there? She was a woman. Never mind that man. → Isn't she there? He was a man. Never mind that woman.
He is one of the founding fathers of it. → She is one of the founding mothers of it.
That fellow rolls; a merry fellow, that sort of fellow! → That lass rolls; a merry lass, that sort of lass!
another fellow I met → another lass I met
The king my master saw the little Duke. → The queen my mistress saw the little Duchess.
Master Rolfe came. The poor blubbering fellow meant it. → Mistress Rolfe came. The poor blubbering lass meant it.
Sir James Hall and Mr Hall; that man has a plan → Dame James Hall and Ms Hall; that woman has a plan
Yes, my lady. Mr. President; Madam Chief Justice → Yes, my lord. Madam President; Mr. Chief Justice
Robins (née Gerrish); her maiden name → Robins (né Gerrish); his birth name
her ladyship's waiting-maid; Yes, ma'amselle. → his lordship's valet; Yes, monsieur.
the city's god → the city's goddess
Barbara A. Carter, Chairman Goodwill Foundation → Barbara A. Carter, Chairwoman Goodwill Foundation
Dear Sir or Madam, ladies and gentlemen → Dear Madam or Sir, gentlemen and ladies
The policeman saw her. He met Her Majesty. → The policewoman saw him. She met His Majesty.
The actress and the actors of the film met. → The actor and the actresses of the film met.
Mr. and Mrs. Smith; Mrs & Mr Day; Mr/Mrs Roe → Mrs. and Mr. Smith; Mr & Mrs Day; Mrs/Mr Roe
My bf, my MIL and FIL, my BF and our gf → My gf, my FIL and MIL, my GF and our bf
Ma said so to my pa. Hey sis, thanks bro. → Pa said so to my ma. Hey bro, thanks sis.
He is Latino. A Latina nurse met a Latino man. → She is Latina. A Latino nurse met a Latina woman.
{"gender": "F", "title": "Ms", "text": "She left."} → {"gender": "M", "title": "Mr", "text": "He left."}
{"sex": "Female", "relation": "Mother"} → {"sex": "Male", "relation": "Father"}
Sex: M. He is 30. → Sex: F. She is 30.
45F, reports that she fell. I (25f) met him (27M). → 45M, reports that he fell. I (25m) met her (27F).
She is a 45F, reports pain. Today a 67M with pain: he → He is a 45M, reports pain. Today a 67F with pain: she
The 32-year-old M and a 45 y/o F. → The 32-year-old F and a 45 y/o M.
I'm fine; an "F" grade; it was 45F outside; $45M, 6 m. → I'm fine; an "F" grade; it was 45F outside; $45M, 6 m.
"""
DOUBTED = """
sense:ship: The ship was lost; <she> sank off Brest.
sense:ship: <She> was armed with 104 guns.
sense:perhaps_ship: The ship sailed at noon, and then <she> came back.
sense:ship: <She> wrecked on Tuskar Rock in 1812.
sense:perhaps_ship: The "Phoenix" was back with <her> crew.
sense:animal: The young leave their <mothers> after weaning.
sense:capital: The League of <Women> Voters told the women.
sense:capital: My aunt knew <Ma> Bogart.
sense:rare: He bowed, and the <master> said so.
sense:rare: George Peters, <mum>.
sense:rare: The government is the main <landlord>.
sex_bound:role: <'E>'s a good lad.
sex_bound:role: A <Big Sister> helps girls.
sex_bound:role: <M. le> Juge saw him.
sense:animal: As a two-year-old <she> won once.
sense:country: Nature <herself> is kind.
sense:country: England and <her> colonies.
sense:animal: The <female> lays around 400 eggs.
sense:animal: The filly was sold, and then <she> won.
sense:religion: They asked God for <his> help.
sense:religion: Jesus called the <Father> as a <son> does.
sense:capital: They thanked them, and <He> heard them.
sense:capital: Tina and <Her> Pony played there for years.
sense:capital: He was reading Understanding <Women> on the way.
sense:capital: They were fond of the <Watchmen> of old.
sense:capital: We lived in <Norseman> for years.
sense:rare: The <actors> in this network are banks and states.
sense:rare: They met <Miss> Ohio. I was crowned <Miss> Malaika.
sense:rare: The <Duke> is a motorcycle with two cylinders.
sense:rare: An experienced <groom> was there.
sense:capital: We read about <Mama> Cash.
sense:capital: Bert & <His> Orchestra played.
sense:rare: They invited twenty people from the <fraternity>.
sex_bound:body: She was <pregnant> when he came.
sex_bound:body: She was <in labour> when her husband arrived.
sex_bound:body: <Her> period was late.
sex_bound:role: The <geisha> said her <diva> was late.
sex_bound:body: He stroked the <beard>.
sex_bound:body: Her white hair and <whiskers> shook.
"""
TRUSTED = """
He was elected chairman.
The actress and the actors of the film met, and he won.
She was baptised in France, and then she went home.
The nurse said that she saw the ship with her sister.
There were 100 males and 112 females in 40 households.
He told her about the Women's World Cup.
Ne'er was she late. He said she saw him. "She came," he said. "Her mother told him."
The male students sang.
"""


@pytest.mark.parametrize("line", LEFT.strip().splitlines())
def test_what_is_no_role_stays(line):
    text, _, expected = line.partition(" → ")
    assert turned(text) == (expected or text)


@pytest.mark.parametrize("line", TURNED.strip().splitlines())
def test_what_is_a_role_turns(line):
    text, _, expected = line.partition(" → ")
    assert turned(text) == expected


@pytest.mark.parametrize("line", DOUBTED.strip().splitlines())
def test_what_may_be_none_is_doubted(line):
    reason, _, marked = line.partition(": ")
    expected = re.findall("<(.*?)>", marked)
    document = found(re.sub("[<>]", "", marked))
    got = [document.text[m.start : m.end] for m in document.mentions if reason in m.reasons]
    assert got == expected, [(m.word, m.reasons) for m in document.mentions]
    assert 0 < doubts()[reason] < 1


@pytest.mark.parametrize("line", TRUSTED.strip().splitlines())
def test_what_is_clear_is_not_doubted(line):
    reasons = [reason for mention in found(line).mentions for reason in mention.reasons]
    assert [reason for reason in reasons if not reason.startswith("pronoun")] == []


def test_a_text_about_a_ship_is_doubted_in_all_its_passages():
    text = "The frigate came; she was launched in May." + " It rained all day." * 15 + "\n\nThen she went on to Crete."
    document = found(text)
    first, last = document.mentions
    assert len(document.passages) == 2 and "sense:perhaps_ship" in last.reasons and "sense:ship" in first.reasons


def test_one_ship_in_a_long_story_does_not_doubt_all_of_it():
    text = "The ship came; she was launched in May." + " It rained all day." * 15 + "\n\nThen she met her mother."
    assert "sense:ship" in found(text).mentions[0].reasons
    assert not any("ship" in reason for mention in found(text).mentions[1:] for reason in mention.reasons)


def test_every_reason_of_the_data_has_a_number():
    rules, kinds = senses.load()
    rows = [rule for rows in rules.values() for rule in rows]
    reasons = {rule.doubt for rule in rows if rule.doubt} | {rule.spread for rule in rows if rule.spread}
    assert reasons | {f"sex_bound:{kind}" for kind in kinds.values()} <= doubts().keys()
    assert all(rule.leave + rule.turn + bool(rule.doubt) == 1 for rule in rows)


def test_words_of_the_data_are_words_of_the_lexicon():
    rules, kinds = senses.load()
    assert not rules.keys() - GENDER.rules.keys() - GENDER.cues and not kinds.keys() - GENDER.cues


def test_a_lexicon_of_other_words_has_no_such_doubts():
    document = found("The Black woman was armed with 104 guns.", load_lexicon("race"))
    assert not any(mention.reasons for mention in document.mentions)
