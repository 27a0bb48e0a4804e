"""The gender lexicon against the published lists, and what a broken lexicon file is answered with."""

import json
import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfactuals.text.lexicon import LEXICONS, MAX_BYTES, Rule, load_lexicon, parse_lexicon

GENDER = load_lexicon("gender")

# Pairs of the published lists that the lexicon does not follow, by reason. Order within a pair does not matter.
DROPPED = {
    "misspelt, or singular with plural": """
        adultor:adultress adultors:adultresses barons:barnoesses god:godess gods:godesses heros:heroines
        chairman:chairwomen mentleman:lady seamstress:stailor seamstress:tailors manservants:maidservants
        male_host:hostess""",
    "animals, not persons": """
        bull:cow bulls:cows stallion:mare gelding:mare deer:doe rooster:hen roosters:hens lion:lioness lions:lionesses
        colt:filly colts:fillies""",
    "bodies and hormones: sex-bound, so cues or left alone": """
        androgen:estrogen testosterone:estradiol andrology:obstetrics andropause:menopause penis:clitoris penis:vagina
        prostate:skene_gland prostatic_utricle:uterus prostatic_utricle:womb semen:female_ejaculation sperm:ovum
        cialis:viagra maternity:paternity estrogen:testosterone ovarian_cancer:prostate_cancer""",
    "things, buildings and customs": """
        barbershop:hair_salon beard:toque beards:toques brideprice:dowry monastery:convent baritone:mezzo""",
    "not the same thing for the other sex": """
        gay:lesbian gays:lesbians feminism:masculism effeminate:macho fraternal:sororal governor:governess
        governors:governesses paramour:mistress stud:minx studs:minxes bloke:wench
        blokes:wenches diva:divo""",
    "the word has another partner": """
        guy:girl guys:girls priest:nun priests:nuns sir:miss hubby:wife fella:lady fellas:ladies bachelor:maiden
        ballet_dancer:ballerina catholic_priest:nun fella:granny dude:gal dudes:gals""",
    "its parts are reversed": "ex_boyfriend:ex_girlfriend twin_brother:twin_sister",
    "given names are not words": "john:mary",
    "rare or of many senses": "beau:belle beaus:belles brethren:sistren suitor:suitress",
}


def published_pairs(data: Path) -> set[frozenset[str]]:
    rows = [
        line.split()
        for name in ("generalized_swaps.txt", "extra_gendered_words.txt")
        for line in (data / "winobias" / name).read_text(encoding="utf-8").splitlines()
    ]
    sides = [
        (data / "lexicons" / "gn_glove" / f"{sex}_word_file.txt").read_text(encoding="utf-8").split()
        for sex in ("male", "female")
    ]
    rows += [list(row) for row in zip(*sides, strict=True)]
    rows += json.loads((data / "seat" / "bias_attribute_words.json").read_text(encoding="utf-8"))["gender"]
    for name in ("definitional_pairs", "equalize_pairs"):
        rows += json.loads((data / "lexicons" / "debiaswe" / f"{name}.json").read_text(encoding="utf-8"))
    return {frozenset(word.lower().rstrip(".'") for word in row) for row in rows if len(row) == 2}


def test_every_published_pair_is_in_the_lexicon_or_dropped_for_a_reason(shared_data: Path):
    dropped = {frozenset(pair.split(":")) for pairs in DROPPED.values() for pair in pairs.split()}
    published = published_pairs(shared_data)
    assert len(published) > 220

    def followed(pair: frozenset[str]) -> bool:
        return any(w in GENDER.rules and set(GENDER.rules[w].targets) & (pair - {w}) for w in pair)

    assert {tuple(sorted(p)) for p in published if not followed(p)} == {tuple(sorted(p)) for p in dropped}


def test_what_is_dropped_is_named_in_the_file():
    text = (LEXICONS / "gender.yaml").read_text(encoding="utf-8")
    comments = " ".join(" ".join(re.findall(r"#(.*)", text)).split())
    for pair in " ".join(DROPPED.values()).split():
        words = pair.replace("_", " ").split(":")
        assert any(form in comments for word in words for form in (word, word.rstrip("es"), word.replace(" ", "-"))), (
            pair
        )


def test_groups_words_and_cues():
    assert (GENDER.name, GENDER.groups) == ("gender", ("female", "male"))
    assert {"she", "her", "hers", "mother", "stepdaughter", "businesswoman", "maternal", "ms"} <= GENDER.words("female")
    assert {"he", "him", "his", "father", "godson", "spokesmen", "fatherhood", "mr"} <= GENDER.words("male")
    assert not GENDER.words("female") & GENDER.words("male")
    assert {"pregnant", "prostate", "ovarian", "menstruation", "maternity", "testicular"} <= GENDER.cues
    assert {"menstruates", "gynaecologist", "obstetrician", "breast-fed", "c-section", "prostatectomy"} <= GENDER.cues
    assert not GENDER.words("male") & {"bull", "cock", "host", "human", "freshman"}
    with pytest.raises(ValueError, match="no group 'neuter'; it has female, male"):
        GENDER.words("neuter")


def test_a_word_becomes_a_word_of_the_other_group_and_one_to_one_words_come_back():
    for word, rule in GENDER.rules.items():
        for target in rule.targets:
            back = GENDER.rules.get(target)
            assert back is None or back.group != rule.group, word
            if rule.kind == "pair" and back and back.kind == "pair":
                assert back.targets == (word,)


def test_components():
    components = GENDER.components()
    assert (("she",), ("he",)) in components
    assert (("her", "hers"), ("him", "his")) in components
    assert (("herself",), ("himself",)) in components
    assert (("mrs", "ms"), ("mr",)) in components
    words = [word for component in components for side in component for word in side]
    assert len(words) == len(set(words))
    assert not {"miss", "count", "god", "hostess", "host"} & set(
        words
    )  # bound to a context, or without a gendered partner
    for component in components:
        assert len(component) == 2 and all(component)
        for group, side in zip(GENDER.groups, component, strict=True):
            assert set(side) <= GENDER.words(group) and list(side) == sorted(side)


def test_components_with_names_and_of_pools():
    lexicon = parse_lexicon(yaml.safe_load(BASE))
    named = replace(lexicon, names=NamesOf((("Mary", "James"), ("Anna", "Carl"))))
    assert named.components() == lexicon.components()
    assert named.components(names=True) == (
        *lexicon.components(),
        (("Mary",), ("James",)),
        (("Anna",), ("Carl",)),
    )
    assert load_lexicon("race").components() == ()


def test_race_has_every_group_in_every_topic_and_no_word_twice():
    race = load_lexicon("race")
    assert len(race.groups) == 4 and len(race.rules) >= 250
    words = [w.lower() for sides in race.pools.values() for side in sides.values() for w in side]
    assert len(words) == len(set(words)) == len(race.rules)
    for topic, sides in race.pools.items():
        assert tuple(sides) == race.groups and all(sides.values()), topic
        assert max(map(len, sides.values())) <= 2 * min(map(len, sides.values())), topic
        for group, side in sides.items():
            assert all(race.rules[w] == Rule(group, (), "pool", topic=topic) for w in side)
    assert {"Latina", "black woman", "O'Brien", "New Mexico", "black", "Washington"} & set(race.rules) == {
        "Latina",
        "black woman",
        "O'Brien",
    }
    assert pickle.loads(pickle.dumps(race)).pools == race.pools


def test_fingerprint_follows_content_not_comments(tmp_path: Path):
    text = (LEXICONS / "gender.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^names:.*\n", "", text)
    plain = parse_lexicon(yaml.safe_load(text))
    (tmp_path / "same.yaml").write_text("# a comment\n" + text, encoding="utf-8")
    (tmp_path / "windows.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "other.yaml").write_text(text.replace("version: 2", "version: 3"), encoding="utf-8")
    assert load_lexicon(tmp_path / "same.yaml").fingerprint == plain.fingerprint
    assert load_lexicon(tmp_path / "windows.yaml").fingerprint == plain.fingerprint
    assert load_lexicon(str(tmp_path / "other.yaml")).fingerprint != plain.fingerprint
    assert load_lexicon("gender").fingerprint == GENDER.fingerprint


@dataclass(frozen=True)
class NamesOf:
    pairs: tuple[tuple[str, str], ...]
    fingerprint: str = "x"
    weak: frozenset[str] = frozenset()


BASE = """
name: small
version: 1
licence: Apache-2.0
source: this test
groups: [female, male]
pairs: {all: [she he, mother father]}
one_way: {female: [hers his], male: [him her]}
ambiguous: {female: {her: {pronoun: [him, his]}}, male: {his: {pronoun: [her, hers]}}}
only: {lower: [mother]}
fixed: [mother tongue]
cues: [pregnant]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cues:", "cuse:", "top level: unknown key 'cuse'; did you mean cues?"),
        ("source: this test\n", "", "source: missing or empty"),
        ("version: 1", "version: one", "version: expected a whole number, got 'one'"),
        ("[female, male]", "[female]", "groups: expected two or more different names, got female"),
        ("mother father", "mother father, mother dad", "pairs.all: 'mother' stands twice (→ father)"),
        ("mother father", "mother father, he dad", "pairs.all: 'he' already stands for male (→ she)"),
        ("mother father", "mother father, boss boss", "pairs.all: 'boss' stands on both sides of its pair"),
        ("mother father", "mother father dad", "pairs.all: 'mother father dad' is not two words"),
        ("mother father", "Mother father", "pairs.all: 'Mother' is not a word in lower case"),
        ("mother father", "mother father, 1", "pairs.all: 1 is not text"),
        ("[hers his]", "[hers his, mum father, father mum]", "one_way.female: 'father' already stands for male"),
        ("[hers his]", "[hers his, ms she]", "one_way: 'ms' → 'she', but both are female"),
        ("cues: [pregnant]", "cues: [pregnant]\ncues: [prostate]", "line 13: 'cues' stands twice"),
        (
            "{female: [hers his], male: [him her]}",
            "{female: [hers his, mum dad], male: [him her, dad mum]}",
            "is a cycle",
        ),
        ("pronoun: [him, his]", "pronuon: [him, his]", "unknown key 'pronuon'; did you mean pronoun?"),
        ("pronoun: [him, his]", "pronoun: [him]", "expected two words to choose from"),
        ("pronoun: [him, his]", "title: [him, hys]", "ambiguous: 'her' → 'hys', which has no rule of its own"),
        ("pronoun: [him, his]", "pronoun: [hym, hys]", "the pronoun rule knows her: [him, his] and his: [her, hers]"),
        ("{her: {pronoun: [him, his]}}", "{she: {pronoun: [him, his]}}", "not she: [him, his]"),
        ("cues: [pregnant]", "cues: [pregnant]\n[a, b]: c", "line 13: a list or mapping cannot be a key"),
        ("lower: [mother]", "lowest: [mother]", "only: unknown key 'lowest'"),
        (
            "lower: [mother]",
            "lower: [mothr]",
            "only.lower: 'mothr' is not a word of this lexicon; did you mean mother?",
        ),
        ("[mother tongue]", "[mother]", "fixed: 'mother' is a word of this lexicon"),
        ("[pregnant]", "[pregnant, she]", "cues: 'she' is also reversed"),
        ("[pregnant]", "[pregnant, pregnant]", "cues: 'pregnant' stands twice"),
        ("[pregnant]", "[pregnant", "not valid YAML"),
        (
            "{female: [hers his], male: [him her]}",
            "{female: [hers his, mum dad, ma pa], male: [him her, dad ma, pa mum]}",
            "one_way: 'mum' → 'dad' → 'ma' → 'pa' → 'mum' is a cycle",
        ),
        ("version: 1", "version: true", "version: expected a whole number, got True"),
        ("mother father", "mother father, first__lady gentleman", "'first lady' is not a word in lower case, or words"),
        ("{lower: [mother]}", "[lower]", "only: expected a mapping from words, got ['lower']"),
        ("[mother tongue]", "mother tongue", "fixed: expected a list, got 'mother tongue'"),
        ("[female, male]", "[female, male, other]", "pairs: takes exactly two groups, this lexicon has 3"),
        ("[pregnant]", "&a [pregnant]", "line 12: anchors, aliases and tags (& * !) are not read"),
        ("[pregnant]", "*a", "line 12: anchors, aliases and tags"),
        ("[pregnant]", "!!python/object:os.system [pregnant]", "line 12: anchors, aliases and tags"),
        ("[pregnant]", "!!timestamp x", "line 12: anchors, aliases and tags"),
        ("[pregnant]", "[" * 5000, "nested too deeply for a lexicon"),
        ("[pregnant]", "[pregnant\0]", "line 12: a NUL character"),
        ("[pregnant]", "[\x01]", "not valid YAML"),
        ("cues: [pregnant]", "names: missing.json", "missing.json: no such file (the path is relative to the lexicon)"),
        ("cues: [pregnant]", "names: [a]", "names: ['a'] is not text"),
        ("cues:", "pools: {}\ncuse:", "unknown key 'cuse'"),
        (
            "cues: [pregnant]",
            "pools: {a: {female: [x], mole: [y]}}",
            "pools.a: unknown key 'mole'; did you mean male?",
        ),
        ("cues: [pregnant]", "pools: {a: {female: [x]}}", "pools.a.male: missing or empty"),
        ("cues: [pregnant]", "pools: {a: {female: [x], male: []}}", "pools.a.male: missing or empty"),
        (
            "cues: [pregnant]",
            "pools: {a: {female: [x, she], male: [y]}}",
            "'she' already stands in the words of female",
        ),
        ("cues: [pregnant]", "pools: {a: {female: [x], male: [X]}}", "'X' already stands as 'x' in pools.a.female"),
        (
            "cues: [pregnant]",
            "pools: {a: {female: [x], male: [y]}, b: {female: [y], male: [z]}}",
            "pools.b.female: 'y' already stands in pools.a.male",
        ),
        (
            "cues: [pregnant]",
            "pools: {a: {female: ['x  x'], male: [y]}}",
            "'x x' is not a word, or words with one blank",
        ),
        ("cues: [pregnant]", "pools: {a: [x, y]}", "pools.a: expected a mapping from words, got ['x', 'y']"),
    ],
)
def test_a_broken_lexicon_names_the_file_and_the_word(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "small.yaml"
    assert old in BASE
    path.write_text(BASE.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_lexicon(path)
    lines = str(caught.value).splitlines()
    assert message in lines[0] and all(line.startswith(f"{path}: ") for line in lines)


def test_all_problems_are_told_at_once(tmp_path: Path):
    path = tmp_path / "small.yaml"
    shape = BASE.replace("version: 1", "version: one").replace("cues:", "cuse:").replace("mother father", "mother")
    words = BASE.replace("mother father", "mother father, she man").replace("[mother]", "[mothr]")
    words = words.replace("[pregnant]", "[pregnant, she]")
    for content, lines in (
        (shape, ["top level: unknown key 'cuse'", "version: expected", "pairs.all: 'mother' is not two words"]),
        (words, ["pairs.all: 'she' stands twice", "only.lower: 'mothr' is not a word", "cues: 'she' is also"]),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError) as caught:
            load_lexicon(path)
        told = str(caught.value).splitlines()
        assert len(told) == len(lines)
        assert all(line.startswith(f"{path}: {start}") for line, start in zip(told, lines, strict=True)), told


def test_files_that_are_not_text_or_too_large(tmp_path: Path):
    path = tmp_path / "a.yaml"
    for content, message in (
        (b"name: small\nsource: caf\xe9\n", "line 2: not UTF-8 (byte 0xe9); save it as UTF-8"),
        (b"# " + b"a" * MAX_BYTES, "bytes; a lexicon has at most 5000000"),
        (b"", "a lexicon is a mapping with the keys name, version"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            load_lexicon(path)
        assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_pools_of_two_groups_and_pairs_may_stand_together():
    content = yaml.safe_load(BASE) | {"pools": {"names": {"female": ["Ann Lee", "Eve"], "male": ["Bob"]}}}
    lexicon = parse_lexicon(content)
    assert lexicon.pools == {"names": {"female": ("Ann Lee", "Eve"), "male": ("Bob",)}}
    assert lexicon.rules["Ann Lee"] == Rule("female", (), "pool", topic="names")
    assert {"Eve", "she"} <= lexicon.words("female")
    assert lexicon.components() == parse_lexicon(yaml.safe_load(BASE)).components()
    assert parse_lexicon(content | {"pairs": {"x": ["mother father", "first_lady first_man"]}}).rules[
        "first lady"
    ].targets == ("first man",)


TEXT = re.sub(r"(?m)^names:.*\n", "", (LEXICONS / "gender.yaml").read_text(encoding="utf-8"))
ONE_WAY = TEXT[TEXT.index("\none_way:") :][:1200]
SMALL = "".join(re.sub(r", [^,]*$", "", part) + "]\n" for part in (TEXT[:4000], ONE_WAY))  # whole, it takes too long
EDITS = st.tuples(
    st.sampled_from(["delete", "double", "swap", "line_out", "line_twice", "lines_swap", "insert"]),
    st.floats(0, 0.999),
    st.floats(0, 0.999),
    st.one_of(st.sampled_from(list("{}[]:,-#&*!|>'\"%@`?\n\t\0\ufeff\x85<=~")), st.text(max_size=3)),
)


def edited(text: str, edits: list[tuple[str, float, float, str]]) -> str:
    for what, first, second, new in edits:
        parts = text.split("\n") if "line" in what else list(text)
        if len(parts) < 2:
            break
        i, j = int(first * len(parts)), int(second * len(parts))
        if "swap" in what:
            parts[i], parts[j] = parts[j], parts[i]
        elif what in ("delete", "line_out"):
            del parts[i]
        else:
            parts.insert(i, new if what == "insert" else parts[i])
        text = ("\n" if "line" in what else "").join(parts)
    return text


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([SMALL, BASE]), st.lists(EDITS, min_size=1, max_size=4))
def test_any_edit_of_a_lexicon_loads_or_is_answered_in_lines_with_its_path(tmp_path_factory, text, edits):
    path = tmp_path_factory.getbasetemp() / "edited.yaml"
    path.write_bytes(edited(text, edits).encode("utf-8", "surrogatepass"))
    try:
        assert load_lexicon(path).groups
    except ValueError as error:
        assert all(line.startswith(f"{path}: ") for line in str(error).splitlines()), str(error)


def test_a_group_without_words_is_refused():
    content = yaml.safe_load(BASE)
    content |= {
        "pairs": {"none": []},
        "one_way": {"female": ["hostess host"]},
        "ambiguous": {},
        "only": {},
        "fixed": [],
    }
    with pytest.raises(ValueError, match="groups: 'male' has no word"):
        parse_lexicon(content)


def test_an_unknown_name_says_what_exists(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"no lexicon 'gendre'; did you mean gender\?; there is .*gender.*path of a .yaml"
    ):
        load_lexicon("gendre")
    with pytest.raises(ValueError, match="no such file"):
        load_lexicon(tmp_path / "missing.yaml")


@pytest.mark.parametrize("path", sorted(LEXICONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_lexicon_loads_under_its_own_name(path: Path):
    assert load_lexicon(path.stem).name == path.stem
