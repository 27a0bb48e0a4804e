"""Words of a lexicon in a sense that is no person's role, told by the text around them: they make a reversal doubtful.

The rules know English and the words of gender.yaml; a lexicon without these words gives no doubts. They look only at
what was replaced, and search the whole text only where such a word stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

Edit = tuple[int, int, str, str, float]
FEMALE = frozenset("she her hers herself".split())
MALE = frozenset("he him his himself".split())
PERSON = FEMALE | MALE
RANKS = frozenset("king queen prince princess emperor empress duke duchess baron baroness count countess lady".split())
SEXES = frozenset("male males female females".split())
ACTORS = frozenset("actor actors".split())
# Said of men and of anyone: beside a woman it is no man's, so that its counterpart would not fit her either.
GENERIC = frozenset("actor actors hero heroes comedian comedians priest priests landlord monk emeritus alumnus fellow master".split())
CALLED = frozenset(
    "mother father mom mum dad mama papa mommy daddy grandma grandpa granny grandmother grandfather auntie momma".split()
)
TITLES = frozenset(
    "king queen prince princess emperor empress duke duchess baron baroness count countess sir madam dame lady lord mr mrs "
    "ms miss tsar tsarina czar czarina archduke archduchess marquess marquis marquise viscount viscountess earl sultan "
    "señor señora maharaja maharani brother sister aunt uncle monsieur madame".split()
)
GROUPS_OF_PEOPLE = frozenset("women men girls boys ladies gentlemen womens mens".split())
SHIP = re.compile(
    r"\b(?:[Ss]hips?|[Bb]oats?|[Vv]essel|[Ss]hipyard|[Ss]ail(?:ed|ing|s)|aboard|keel|hull|tonnage|[Yy]acht|[Ff]erry|"
    r"tugs?|[Bb]rig|[Bb]arque|sloop|[Cc]ruiser|corvette|battleships?|lifeboat|locomotive|cargo|propeller|displacement|"
    r"shakedown|decommissioned|scrapped|wreck|torpedo(?:ed)?|was (?:launched|laid down|commissioned|converted)|"
    r"laid up|Lloyd's List|convoy|, master|(?:quarter)?deck|\d+ guns|pounders?|paid off|broadside|gunboat|man-of-war|masts?|mainsail|rigging|stern|sank|knots)\b"
)
ANIMAL = re.compile(
    r"\b(?:species|genus|larvae?|pupae|eggs?|plumage|wingspan|forewings?|mating|antlers?|spawn\w*|dorsal|abdomen|nests?|"
    r"breed(?:ing)?|butterfl\w+|moths?|birds?|insects?|spiders?|fish(?:es)?|mammals?|rats?|mice|dogs?|cats?|wolves|apes?|"
    r"chimpanzees?|elephants?|lions?|tigers?|bears?|deer|cattle|pups?|offspring|flowers?|plants?|pollen|connectors?|thorax|"
    r"antennae|hormones?|chromosomes?|genes?|sexual|primates?|frogs?|lizards?|snakes?|crabs?|bees?|ants?|cows?|horses?|lemurs?|monkeys?|genitalia|hindwings?|wings|scent|mates?)\b"
)
STAGE = re.compile(
    r"\b(?:[Ff]ilms?|[Mm]ovies?|[Tt]heat(?:re|er)|cast|drama\w*|[Tt]elevision|TV|series|Hollywood|Bollywood|Broadway|"
    r"actress\w*|screen|studios?|episodes?|sitcom|comed\w+|starr\w+)\b"
)
_BEFORE = re.compile(r"(?:^|[\s(\"“‘])([^\W\d_][\w'’.-]*) $")
_AFTER = re.compile(r" (?:the )?([^\W\d_][\w’'-]*)")
_RUN = re.compile(r"(?: (?:of (?:the )?)?[A-Z][\w'’-]*){1,8}")
_AFTER_RANK = re.compile(r"(?! (?:of|and|[A-ZÀ-Þ]))")
_TITLE = re.compile(r"[\"“]([A-Z][^\"“”\n]{2,70}[^\"“”\n.,!?:;])[\"”]")
_QUOTED_SUBJECT = re.compile(
    r"[\"“][A-Z][\w'’]+(?: [A-Z][\w'’]+)?[\"”](?:['’]s)? (?:was|is|had|has|master|sailed|arrived|left|reached|returned|under|"
    r"came|made|captured|captain|could|and her|put|took|went|then|also|again)\b"
)
_SMALL = frozenset("a an and at by for from in of on or the to with".split())
_GAME = re.compile(r"\b(?:[Cc]hess|[Cc]heckmate|[Pp]awns?|[Ss]hogi|castling|trumps|playing cards?|poker|jack of)\b")
_CROWNED = re.compile(r"(?:crowned|elected|won|title of|titled|as|reigning|former) $")
_STABLE = re.compile(r"\b(?:stables?|horses?|carriage)\b")
_QUOTES = frozenset('"“”‘’')
_SONS = re.compile(r"\b[A-Z]\w+,? (?:and|&) sons\b(?! of [a-z])")
_SUBJECT = re.compile(r" (?:is|was|has|had|were|died|\w+ed)\b|['’]s ")


def doubts(text: str, edits: Sequence[Edit], things: frozenset[str], places: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where `text` may use a word of `edits` in another sense; edits with the rule "name" are given names.

    `things`: capitalised words that end names of bodies and things. `places`: that are no given names or surnames.
    """
    first: dict[str, tuple[int, int]] = {}
    alone = not any(text[edit[0] : edit[1]].lower() in PERSON for edit in edits)
    for start, end, _, rule, _ in edits:
        surface = text[start:end]
        word = surface.lower()
        if rule == "name":
            continue
        first.setdefault(word, (start, end))
        if surface[0].isupper() and (len(surface) == 1 or not surface.isupper()) and _is_name(text, start, end, word, things):
            yield start, end
        if word == "miss" and _CROWNED.search(text, max(0, start - 14), start):
            yield start, end
        if word == "miss" and (after := _AFTER.match(text, end + text.startswith(".", end))) and after[1] in places:
            yield start, end  # Miss North Dakota
        if word in RANKS and surface[0].isupper() and alone and _AFTER_RANK.match(text, end):
            yield start, end  # "The Duke's liquid-cooled engine"
        if surface[0].isupper() and start and text[start - 1] in _QUOTES and text[end : end + 1] in _QUOTES:
            yield start, end  # "Mother" was released in May
        if word in TITLES and start and text[start - 1] in _QUOTES:
            run = _RUN.match(text, end)
            if run and text[run.end() : run.end() + 1] in _QUOTES:  # a ship, a song
                yield start, end
    words = first.keys()
    if edits and alone and SHIP.search(text):
        yield edits[0][:2]  # "took Dolly Varden on a voyage"
    if '"' in text or "“" in text:
        for title in _TITLE.finditer(text):
            if _is_title(title[1]):
                yield from ((start, end) for start, end, *_ in edits if title.start() < start < title.end())
    if ("king" in words or "queen" in words) and _GAME.search(text):
        yield first["king" if "king" in words else "queen"]
    if "groom" in words and _STABLE.search(text):
        yield first["groom"]
    if "sons" in words and (firm := _SONS.search(text)):
        yield firm.span()
    if not FEMALE.isdisjoint(words) and (SHIP.search(text) or _QUOTED_SUBJECT.search(text)):
        yield first[min(FEMALE & words)]
    if not SEXES.isdisjoint(words) and ANIMAL.search(text):
        yield first[min(SEXES & words)]
    if not ACTORS.isdisjoint(words) and not STAGE.search(text):
        yield first[min(ACTORS & words)]
    generic = [word for word in words if word in GENERIC or (len(word) > 5 and word.endswith(("man", "men")))]
    generic = [word for word in generic if not word.endswith(("woman", "women"))]
    if generic and not FEMALE.isdisjoint(words) and MALE.isdisjoint(words):
        yield first[min(generic)]  # "she was elected chairman"


def _is_name(text: str, start: int, end: int, word: str, things: frozenset[str]) -> bool:
    """Whether a capitalised word is, or is part of, a name: "Thomas Henchman", "UN Women", "the Maharani Cup"."""
    before = _BEFORE.search(text, max(0, start - 30), start)
    previous = before[1] if before else ""
    inside = text[start - 1 : start] == " " and (text[start - 2].isalnum() or text[start - 2] == ",")
    if word in PERSON:  # God's
        return inside and previous.islower() and text[start:end] not in ("Her",)
    run = _RUN.match(text, end)
    if run and things and run[0].rpartition(" ")[2] in things and word not in GROUPS_OF_PEOPLE:
        return True
    if word in TITLES:
        return False
    possessive = text[end : end + 1] in ("'", "’") or word in ("womens", "mens")
    if word in GROUPS_OF_PEOPLE and possessive:  # Women's World Cup
        return False
    if inside and previous[:1].isupper() and len(previous) > 1 and not text[start - 2] == ",":
        return word not in CALLED
    if inside:
        return word not in CALLED and run is None
    return word not in CALLED and word.endswith(("man", "lady")) and _SUBJECT.match(text, end) is not None


def _is_title(quoted: str) -> bool:
    """Most of the words begin with capitals: a work, not speech."""
    words = [word for word in quoted.split() if word not in _SMALL]
    return len(words) > 1 and sum(word[0].isupper() for word in words) > 0.7 * len(words)
