"""Words of a lexicon in a sense that is no person's role, told by the text around them: they make a reversal doubtful.

The rules know English and the words of gender.yaml; a lexicon without these words gives no doubts. They look only at
what was replaced, and search the whole text only where such a word stands in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

Edit = tuple[int, int, str, str, float]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FEMALE = _words("she her hers herself")
MALE = _words("he him his himself")
PERSON = FEMALE | MALE
NOT_SUBJECTS = _words("him his her hers")
RANKS = _words("king queen prince princess emperor empress duke duchess baron baroness count countess lady")
TITLES = RANKS | _words(
    "sir madam dame lord mr mrs ms miss tsar tsarina czar czarina archduke archduchess marquess marquis marquise "
    "viscount viscountess earl sultan señor señora maharaja maharani brother sister aunt uncle monsieur madame"
)
CALLED = _words(  # by their children: "I told Mother"
    "mother father mom mum dad mama papa mommy daddy grandma grandpa granny grandmother grandfather auntie momma"
)
PEOPLE = _words("women men girls boys ladies gentlemen womens mens")
# Said of men and of anyone: beside a woman it is no man's, so that its counterpart would not fit her either.
GENERIC = _words("actor actors hero heroes comedian comedians landlord monk emeritus alumnus master")


def _whole(alternatives: str) -> re.Pattern[str]:
    r"""Finds what `\b(?:alternatives)\b` does, twice as fast: their first letters are looked for first."""
    rests: dict[str, list[str]] = {}
    for one in re.split(r"\|(?![^(]*\))", alternatives):
        first, rest = re.fullmatch(r"(\w|\[[^]]+\])(.*)", one).groups()  # type: ignore[union-attr]
        rests.setdefault(first, []).append(rest)
    grouped = "|".join(f"{first}(?:{'|'.join(found)})" for first, found in rests.items())
    letters = "".join(first.strip("[]") for first in rests)
    return re.compile(rf"[{letters}](?<!\w.)(?<=(?=(?:{grouped})\b).)")


def _in_quotes(rest: str) -> dict[str, re.Pattern[str]]:
    """By the least usual opening quote in a text: one sign alone is found several times faster than either of two."""
    return {'"': re.compile(f'"{rest}'), "“": re.compile(f'["“]{rest}')}


_SHIPS = """
ship ships Ship Ships boat boats Boat Boats vessel Vessel shipyard Shipyard sailed sailing sails Sailed Sailing Sails
aboard keel hull tonnage yacht Yacht ferry Ferry tug tugs brig Brig barque Barque sloop cruiser Cruiser corvette
battleship battleships lifeboat locomotive cargo propeller displacement shakedown decommissioned scrapped wreck torpedo
torpedoed convoy deck quarterdeck pounder pounders broadside gunboat crew captured mast masts mainsail rigging stern
sank knots foremast mizzen mizzenmast shrouds captors outfitted man-of-war
was_launched was_laid_down was_commissioned was_converted laid_up paid_off carrying_slaves
Official_No official_number Lloyd's_List Register_of_Shipping letter_of_marque fitting_out
"""
_SHIP_PHRASES = [phrase.replace("_", " ") for phrase in _SHIPS.split()]
_SHIP = _whole("|".join([*map(re.escape, _SHIP_PHRASES), r"master(?<=\b, master)", r"[\d]\d* guns"]))
# Of ships, and seldom of people: enough where nothing but "she" and "her" shows a role. Words of people's work (navy,
# captain, aircraft, engine, repaired) are not among them: women in it must not lose their counterparts more than men.
_SAILING = re.compile(
    r"\b(?:scuttled|hulk(?:ed)?|\w+-masted|tow(?:ed|ing)|sunk|sinking|sinks?|founder(?:ed|ing)|wreck(?:s|ed|age)|"
    r"aground|tons|gross|flotillas?|convoys|freighters?|docked|[Pp]orts?|harbou?r|Harbou?r|boilers?|refit(?:ted)?|"
    r"starboard|aft|bow|bilge|draught|ballast|collided|rammed|cargoes|[Vv]oyages?|laden|sighted|chartered|flagship|"
    r"trawlers?|whalers?|whaling|convicts|bound for|lengthened|armament|Lloyd|[Ss]hipbuild(?:ing|ers?)|privateers?|"
    r"moored|anchor(?:ed|age)?|rudder|lifeboats?|pilothouse|cylinders?|Kedgeree|St Helena|Gravesend|Downs|"
    r"[Hh]omeward|sailings|cruises?|berth(?:s|ed)?|liner|landfall|locomotives?)\b"
)
_BEASTS = """
two-year-old two-year-olds three-year-old three-year-olds four-year-old four-year-olds yearling yearlings unplaced
racecourse best_horse Best_horse tusk tusks hooves foal foaled sired furlong furlongs paws litter kennel kennels Kennel
Kennels ridden zoo
"""
_BEAST_PHRASES = [phrase.replace("_", " ") for phrase in _BEASTS.split()]
_BEAST = _whole("|".join(map(re.escape, _BEAST_PHRASES)))
SIGNS = ((*_SHIP_PHRASES, "master", "guns"), _BEAST_PHRASES)  # where _SHIP or _BEAST matches, one of these stands
_SHIP_SIGN, _BEAST_SIGN = 1, 2
_QUOTED_SUBJECT = _in_quotes(  # "Sovereign" was at Kedgeree
    r"[A-Z][\w'’]+(?: [A-Z][\w'’]+)?[\"”](?:['’]s)? (?:was|is|had|has|master|sailed|arrived|left|reached|returned|"
    r"under|came|made|captured|captain|could|and her|put|took|went|then|also|again|began|sails|operated|entered)\b"
)
_ANIMAL = _whole(
    r"species|genus|larvae?|pupae|eggs?|plumage|wingspan|forewings?|hindwings?|wings|mating|mates?|antlers?|"
    r"spawn\w*|dorsal|abdomen|nests?|breed(?:ing)?|butterfl\w+|moths?|birds?|insects?|spiders?|fish(?:es)?|mammals?|"
    r"rats?|mice|dogs?|cats?|wolves|apes?|chimpanzees?|elephants?|lions?|tigers?|bears?|deer|cattle|pups?|offspring|"
    r"flowers?|plants?|pollen|connectors?|thorax|antennae|hormones?|chromosomes?|genes?|genitalia|scent|sexual|"
    r"primates?|monkeys?|lemurs?|holotypes?|catkins|specimens?|cloaca|gonads?|reproductive|infertility|fertile|"
    r"aggregations?|swarms?|predators?|prey|[A-Z]\. [a-z]{4,}|frogs?|lizards?|snakes?|crabs?|bees?|ants?|cows?|"
    r"horses?"
)
_PEOPLE = re.compile(  # whom "male" and "female" are said of
    r"\b(?:[Pp]eople|[Pp]ersons?|[Pp]opulation|[Rr]esidents?|[Hh]ouseholds?|[Cc]ensus|[Ss]tudents?|[Pp]upils?|"
    r"[Pp]layers?|[Aa]thletes?|voices?|vocals?|leads?|children|child|[Mm]embers?|[Ww]orkers?|[Cc]itizens?|"
    r"[Vv]oters?|friends?|victims?|[Ss]chools?|[Cc]ollege|prison\w*|inmates?|patients?|soldiers?|roles?|cast|teams?|"
    r"[Cc]hampion\w*|[Cc]ompetition|slaves?|servants?|employees|doctors?|teachers?|colleagues|audiences?|person|"
    r"adults?|actors?|judges?|protagonists?|relatives|contestants?|\w{3,}(?:ists?|ians?)|(?:sing|danc|lead|swimm|"
    r"wrestl|box|runn|perform|writ|mini)(?:er|ster)s?)\b"
)
_STAGE = _whole(
    r"[Ff]ilms?|[Mm]ovies?|[Tt]heat(?:re|er)|cast|drama\w*|[Tt]elevision|TV|series|Hollywood|Bollywood|Broadway|"
    r"actress\w*|screen|studios?|episodes?|sitcom|comed\w+|starr\w+"
)
_GAME = _whole(r"[Cc]hess|[Cc]heckmate|[Pp]awns?|[Ss]hogi|castling|trumps|playing cards?|poker|jack of")
_NUCLEAR = _whole(r"isotopes?|uranium|thorium|radium|radioactive|nuclides?|radionuclides?|half-life|mitosis")
_ROPE = re.compile(r"\bguy[ -](?:wires?|lines?|ropes?|anchors?|cables?|stays?)\b|\bto guy\b")
_DEITY = _whole(r"Hindu|[Tt]emples?|deit(?:y|ies)|devot\w+|avatars?|worship\w*|shrines?|puja|incarnations?")
_GRAMMAR = _whole(
    r"nouns?|verbs?|prefix(?:es|ing)?|suffix(?:es)?|declensions?|conjugations?|plural|singular|adjectives?|pronouns?"
)
_STABLE = _whole(r"stables?|horses?|carriage")
_FIRM = re.compile(r"\b[A-Z]\w+,? (?:and|&) sons\b(?! of [a-z])")
# Without a name or place after them too often offices, games, gods, bodies, works or beliefs: "divine right of kings".
ODD = (RANKS - {"lady"}) | _words(
    "kings queens princes princesses emperors empresses dukes duchesses earl earls barons counts countesses sultan "
    "sultans lord lords god gods goddess goddesses abbot abbots abbess abbesses patriarch patriarchs patriarchal "
    "matriarch matriarchal fraternity fraternities sorority sororities heroes heroines wizard wizards witch witches "
    "bachelor bachelors cowboy cowboys playboy playboys groom danseuse"
)
# Where no other word and no name shows a person, these are too often no person's.
VAGUE = ODD | _words("lady hero heroine male female")
# Words, what in the text speaks of another sense of theirs (True) or of their own (False).
SENSES = (
    (_words("male males female females"), _ANIMAL, True),
    (_words("actor actors"), _STAGE, False),
    (_words("king queen"), _GAME, True),
    (_words("groom"), _STABLE, True),
    (_words("masculine feminine"), _GRAMMAR, True),
    (_words("sons"), _FIRM, True),
    (_words("daughter daughters"), _NUCLEAR, True),
    (_words("guy"), _ROPE, True),
    (_words("lord lady"), _DEITY, True),
)
_SAID = frozenset().union(*(said for said, _, _ in SENSES))

_SEVERAL = re.compile(  # capitals in a row, as names have them
    r"(?!(?:On|In|At|By|To|From|For|With|During|After|Before|Since|Until|The|An?|As|When|While|Every|Last|Next) )"
    r"\b[A-ZÀ-Þ][\w’'-]+ (?:(?:of|the|de|and) )?[A-ZÀ-Þ]\w"
)
_BEFORE = re.compile(r"(?:^|[\s(\"“‘])([^\W\d_][\w'’.-]*) $")
_NAME_AND = re.compile(r"[A-Z][\w'’-]+ and $")
_HER_GRACE = re.compile(r" (?![A-Z])| (?:Majest|Royal|Highness|Excellenc|Hono|Grace|Ladyship|Serene|Imperial|Worship)")
_MANKIND = re.compile(r"\b(?:of|that|by|to|about|from|between|for|in|upon|on|than|when|makes?|made|early|modern) $")
_MANKIND_AFTER = re.compile(r" (?:and|or) (?:wife|wom[ae]n)\b")
_MAN_IS = re.compile(r" (?:is|was|has|had|can|must|may|shall|lives?|needs?|should|will|would)\b")
_AFTER = re.compile(r"\.? (?:the )?([^\W\d_][\w’'-]*)")
_RUN = re.compile(r"(?: (?:of (?:the )?)?[A-Z][\w'’-]*){1,8}")
_HOLDER = re.compile(r" [A-ZÀ-Þ][a-zà-ÿ]")
_RANKED = re.compile(r" (?:of (?:the )?)?[A-ZÀ-Þ][a-zà-ÿ]")
_NO_HOLDER = re.compile(r"(?! (?:of|and|[A-ZÀ-Þ]))")
_DID = re.compile(r" \(?(?:19|20)\d\d\b| et al\b|, (?:19|20)\d\d\b| (?:is|was|has|had|were|died|\w+ed)\b|['’]s ")
_CROWNED = re.compile(r"(?:crowned|elected|won|title of|titled|as|reigning|former) $")
_NTH_EARL = re.compile(r"\d(?:st|nd|rd|th) Earl\b(?! of )")
_WORK = re.compile(  # "The Trials of Ted Haggard is a documentary film made by": how a text about a work begins
    r"([^.\n]{2,80}?) (?:is|was) (?:an?|the) (?:(?!of |for |on |in |at )[\w'’&;-]+ ){0,6}?(?:albums?|EP|mixtape|song|"
    r"single|tour|film|documentary|novel|book|series|sitcom|franchise|game|play|musical|opera|exhibition|painting|"
    r"sculpture|comic|manga|magazine|podcast)"
    r"(?=[.,;]| (?:by|directed|from|that|which|based|written|produced|created|made|starring|released)\b)"
)
_QUOTED = _in_quotes(r"([A-Z][^\"“”\n]{2,70}[^\"“”\n.,!?:;])[!?.,]?[\"”]")
_LONGEST_QUOTED = 75
_LOUD = re.compile(r" [A-Z]{3}")
_KIN = _words("sister sisters mother daughter brother")
_KIN_OF = re.compile(  # "a sister society": no one's sister
    r"[ -](?:societ(?:y|ies)|(?:\w+-)?compan(?:y|ies)|part(?:y|ies)|unions?|boards?|institut(?:e|es|ion|ions)|"
    r"ministr(?:y|ies)|(?:news)?papers?|programmes?|programs?|schools?|ships?|boats?|vessels?|cit(?:y|ies)|groups?|"
    r"houses?|plants?|projects?|centres?|centers?|stations?|journals?|pages?|(?:web)?sites?|bands?|clubs?|teams?|"
    r"models?|aircraft|products?|lines?|titles?|books?|volumes?|albums?|novels?|parish(?:es)?|trusts?|banks?|firms?|"
    r"brands?|lodges?|chapters?|states?|propert(?:y|ies)|facilit(?:y|ies)|plan(?:t|et)s?|rocks?|trees?|lands?|log|"
    r"\w{3,}(?:[ai]tions?|[ai]sations?|izations?))\b"
)
_COMPOUNDED = _KIN | {"he", "man", "woman"}  # see _is_other_word
_MADE = re.compile(r"-[a-z]+(?:ed|able|ing)\b")
_FIRST_PERSON = re.compile(r"\b(?:I|[Mm]y|[Mm]e|[Ww]e|[Oo]ur|us)\b|[\"“”]")
_LOUD_GLUED = re.compile(r"[A-Z\d]-$")
_HONOUR = re.compile(r"n(?<!\w.)amed? (?:[\w.’'-]+ ){0,8}(?:in (?:his|her) (?:memory|hono)|after (?:him|her)\b)")
_HONOURS = (" memory", " hono", "after h")  # one of them stands where it matches
_NICKNAME = re.compile(r" [A-ZÀ-Þ]\w")  # Ann "Liz" Lee
_QUOTES = frozenset('"“”‘’')
_SMALL = _words("a an and at by for from in of on or the to with")


def doubts(
    text: str,
    edits: Sequence[Edit],
    things: frozenset[str],
    places: frozenset[str],
    *,
    signs: int = -1,
    complete: bool = True,
    again: bool = False,
) -> Iterator[tuple[int, int]]:
    """Where `text` may use a word of `edits` in another sense; edits with the rule "name" are given names.

    `edits`: sorted. `things`: capitalised words that end names of bodies and things. `places`: that are no given names
    or surnames. `signs`: bits of the kinds of SIGNS that may be in the text. `complete`: whether the given names are
    among `edits`. `again`: these edits without the given names gave no doubt, and only what those change is looked at.
    """
    first: dict[str, tuple[int, int]] = {}
    spoken: list[tuple[int, int, str]] = []
    for start, end, _, rule, _ in edits:
        if rule != "name":
            word = text[start:end].lower()
            spoken.append((start, end, word))
            first.setdefault(word, (start, end))
    words = first.keys()
    personal = not PERSON.isdisjoint(words)
    if signs & _SHIP_SIGN and edits and not personal and not (again and words) and _SHIP.search(text):
        yield edits[0][:2]  # "took Dolly Varden on a voyage"
    if complete and words and len(spoken) == len(edits):
        yield from _vague(text, first, spoken[0][0])
    quote = "“" if "“" in text else '"' if '"' in text else ""
    if quote and edits and not (again and len(spoken) == len(edits)):
        starts = [edit[0] for edit in edits]
        begin = text.rfind("\n", 0, starts[0]) + 1  # _QUOTED holds none
        for quoted in _QUOTED[quote].finditer(text, begin, starts[-1] + _LONGEST_QUOTED):
            start, end = quoted.span()
            near = bisect_right(starts, start)
            if near == len(starts) or starts[near] >= end:
                continue
            inside = edits[near : bisect_left(starts, end)]
            if _is_title(quoted[1]) and (" " in quoted[1] or not _NICKNAME.match(text, quoted.end())):
                yield from (edit[:2] for edit in inside)
    if edits and edits[0][0] < 80 and (work := _WORK.match(text)):
        yield from (edit[:2] for edit in edits if edit[0] < work.end(1))
    if again or not words:
        return
    for start, end, word in spoken:
        if word in ODD and not (text[start].isupper() and _RANKED.match(text, end)):
            yield start, end
        if (word in _COMPOUNDED or text[end : end + 1] in _QUOTES) and _is_other_word(text, start, end, word):
            yield start, end
        if text[start].isupper() and _is_no_role(text, start, end, word, things, places, personal=personal):
            yield start, end
    if personal:
        if "name" in text and any(sign in text for sign in _HONOURS) and _HONOUR.search(text):
            yield min(first.values())  # the Ann Lee Bridge … in her honour
        female = not FEMALE.isdisjoint(words)
        if female and signs & _SHIP_SIGN and _SHIP.search(text):
            yield first[min(FEMALE & words)]
        if female and quote and _QUOTED_SUBJECT[quote].search(text):
            yield first[min(FEMALE & words)]
        if signs & _BEAST_SIGN and _BEAST.search(text):
            yield first[min(PERSON & words)]
        if female and MALE.isdisjoint(words):  # "she was elected chairman"
            yield from (first[word] for word in words if _is_generic(word))
    if "Earl" in text and (earl := _NTH_EARL.search(text)):  # stays beside a sister
        yield earl.span()
    if not _SAID.isdisjoint(words):
        for said, sense, other in SENSES:
            if not said.isdisjoint(words) and (sense.search(text) is not None) == other:
                yield first[min(said & words)]


def _is_other_word(text: str, start: int, end: int, word: str) -> bool:
    """Whether what stands right beside a word makes it part of another, or a word that is spoken of."""
    if word == "he" and text[end + 1 : end + 2].isdigit():  # "he 2017 Cup": the
        return True
    if word in _KIN and _KIN_OF.match(text, end):
        return True
    if word in ("man", "woman") and _MADE.match(text, end):  # man-induced
        return True
    if word == "man" and not _MANKIND_AFTER.match(text, end):  # "the nature of man", "Man is free"
        of = _MANKIND.search(text, max(0, start - 9), start)
        if of or (text[start : start + 2] == "Ma" and _MAN_IS.match(text, end)):
            return True
    if text[end : end + 1] not in _QUOTES:
        return False
    before = text[start - 1 : start]
    return (before == "-" and word in ("man", "men")) or (before in _QUOTES and text[start].islower())  # "gwitu-men"


def _vague(text: str, first: dict[str, tuple[int, int]], begin: int) -> Iterator[tuple[int, int]]:
    """The `first` words of a role, from `begin` on, where no name is replaced and they hardly show a person."""
    words = first.keys()
    held = any(text[start].isupper() and _HOLDER.match(text, end) for start, end in first.values())  # Lord Denning
    if (
        (words <= FEMALE and _SAILING.search(text))  # "She wrecked on Tuskar Rock"
        or (words <= NOT_SUBJECTS and _SEVERAL.search(text, 0, begin))  # "Lance Mountain kept wicket. His"
        or (words <= VAGUE and not held and not (words <= {"male", "female"} and _PEOPLE.search(text)))
    ):
        yield next(iter(first.values()))


def _is_no_role(
    text: str, start: int, end: int, word: str, things: frozenset[str], places: frozenset[str], *, personal: bool
) -> bool:
    """Whether a capitalised word names a ship, a work, a body, a rank that nobody holds, a contest or a surname."""
    opens_quote = start > 0 and text[start - 1] in _QUOTES
    if opens_quote and text[end : end + 1] in _QUOTES:  # "Mother" was released in May
        return True
    if opens_quote and word in TITLES:
        run = _RUN.match(text, end)
        if run and text[run.end() : run.end() + 1] in _QUOTES:  # "Queen Victoria"
            return True
    if word == "lady" and not personal and _NO_HOLDER.match(text, end):  # the First Lady; other ranks are ODD then
        return True
    if word == "miss":  # Miss North Dakota
        after = _AFTER.match(text, end)
        if _CROWNED.search(text, max(0, start - 14), start) or (after and after[1] in places):
            return True
    if end - start > 1 and text[start:end].isupper():  # PRIDE MAN FESTIVAL, ETH-LAD
        if _LOUD_GLUED.search(text, max(0, start - 2), start):
            return True
        return _LOUD.match(text, end) is not None and not text.isupper() and word not in PERSON
    return _is_in_name(text, start, end, word, things)


def _is_in_name(text: str, start: int, end: int, word: str, things: frozenset[str]) -> bool:
    """ "Thomas Henchman", "UN Women", "the Maharani Cup", "Freedman was"; God's "He"."""
    comma = text[start - 2 : start - 1] == ","
    inside = text[start - 1 : start] == " " and (comma or text[start - 2 : start - 1].isalnum())
    if word in PERSON and not inside:
        return text.endswith(("& ", "&amp; "), 0, start)  # "Bert Day & His Orchestra"
    before = _BEFORE.search(text, max(0, start - 30), start)
    previous = before[1] if before else ""
    if word in PERSON:
        if previous == "and" and _NAME_AND.search(text, max(0, start - 30), start):  # "Tina and Her Pony"
            return True
        return previous.islower() and (word != "her" or _HER_GRACE.match(text, end) is None)
    run = _RUN.match(text, end)
    if run and run[0].rpartition(" ")[2] in things and word not in PEOPLE:
        return True
    if word in CALLED and not _HOLDER.match(text, end) and not inside:  # "Papa won", a swimmer
        return _FIRST_PERSON.search(text) is None
    if word in CALLED and inside and not comma and previous[:1].isupper():  # "Raymond Anthony Papa"
        return not _HOLDER.match(text, end)
    if word in TITLES or word in CALLED:
        return False
    if word in PEOPLE and (text[end : end + 1] in ("'", "’") or word in ("womens", "mens")):  # Women's World Cup
        return False
    if not inside:
        return word.endswith(("man", "lady")) and _DID.match(text, end) is not None
    return run is None or (len(previous) > 1 and previous[0].isupper() and not comma)


def _is_generic(word: str) -> bool:
    compound = len(word) > 5 and word.endswith(("man", "men")) and not word.endswith(("woman", "women"))
    return compound or word in GENERIC


def _is_title(quoted: str) -> bool:
    """Most of the words begin with capitals: a work, not speech; "Roseanne"."""
    words = [word for word in quoted.split() if word not in _SMALL]
    return sum(word[0].isupper() for word in words) > 0.7 * len(words)
