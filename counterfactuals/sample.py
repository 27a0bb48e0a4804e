"""The built-in sample corpus: short biographies and workplace scenes from a seeded grammar of our own, whose
occupation–gender skew is known exactly.

One main person a text, with one of the `OCCUPATIONS`; whether that person is a woman is drawn with the occupation's
share of women in the US labour force, and gender enters a text in no other way: every other choice (task, tool, place,
relative, length …) is drawn alike for women and men, so reversing all gendered words of a text gives a text that the
grammar makes just as readily for the other gender. There are no given names and no sex-bound words. A husband or wife
is of the other gender nine times in ten; all other relatives are of either gender with equal odds.

Source of the shares: US Bureau of Labor Statistics, Current Population Survey, rounded percentages as listed by Zhao et
al. 2018 (WinoBias, Table 4; survey of 2017) and, for firefighter, painter, engineer and programmer, by Rudinger et al.
2018 (Winogender; survey of 2015–16). Carpenter is 2 % there and raised to 3 % here, so that a corpus of this size
has some women among its carpenters.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from counterfactuals.files import write_whole

Item = TypeVar("Item")


class _Job(NamedTuple):
    percent_women: float
    tasks: tuple[str, ...]  # verb in its base form first
    tools: tuple[str, ...]  # singular nouns
    places: tuple[str, ...]  # singular nouns that go with "at the"
    client: str


def _job(percent_women: float, tasks: str, tools: str, places: str, client: str) -> _Job:
    def split(items: str) -> tuple[str, ...]:
        return tuple(item.strip() for item in items.split(","))

    return _Job(percent_women, split(tasks), split(tools), split(places), client)


_JOBS = {
    "carpenter": _job(
        3,
        "build a table, cut the boards, repair the door, measure the wall, sand the shelf",
        "hammer, saw, ladder, pencil",
        "workshop, building site",
        "customer",
    ),
    "mechanic": _job(
        4,
        "repair the engine, change the tires, check the brakes, clean the motor, test the car",
        "wrench, toolbox, flashlight, jacket",
        "garage, workshop",
        "customer",
    ),
    "firefighter": _job(
        4,
        "stop the fire, carry the hose, climb the tower, save a family, wash the truck",
        "helmet, hose, radio, axe",
        "fire station, tower",
        "neighbor",
    ),
    "driver": _job(
        6,
        "drive the bus, load the van, deliver the boxes, park the truck, plan the route",
        "map, phone, jacket, radio",
        "bus station, market",
        "passenger",
    ),
    "painter": _job(
        6,
        "paint the wall, mix the colors, cover the floor, scrape the fence, finish the ceiling",
        "brush, bucket, ladder, roller",
        "building site, studio",
        "customer",
    ),
    "engineer": _job(
        11,
        "design the bridge, test the motor, draw the plan, check the machine, measure the pressure",
        "laptop, calculator, helmet, notebook",
        "factory, building site",
        "client",
    ),
    "programmer": _job(
        18,
        "write the code, fix the error, test the program, update the website, start the server",
        "laptop, keyboard, screen, headset",
        "company, office",
        "client",
    ),
    "farmer": _job(
        22,
        "feed the animals, plant the corn, pick the apples, drive the tractor, repair the fence",
        "rake, shovel, basket, bucket",
        "farm, market",
        "neighbor",
    ),
    "guard": _job(
        22,
        "watch the gate, lock the doors, check the bags, walk the halls, write the report",
        "flashlight, radio, badge, jacket",
        "museum, bank",
        "visitor",
    ),
    "janitor": _job(
        34,
        "clean the floor, empty the bins, lock the doors, sweep the stairs, fix the lamp",
        "broom, mop, bucket, ladder",
        "school, museum",
        "visitor",
    ),
    "lawyer": _job(
        35,
        "read the contract, write the letter, win the case, defend the client, study the law",
        "briefcase, pen, folder, notebook",
        "court, office",
        "client",
    ),
    "cook": _job(
        38,
        "boil the soup, chop the onions, grill the fish, taste the sauce, plan the menu",
        "knife, pan, apron, spoon",
        "restaurant, hotel",
        "guest",
    ),
    "physician": _job(
        38,
        "examine the patient, read the chart, treat the fever, order the tests, close the wound",
        "stethoscope, chart, pen, tablet",
        "hospital, clinic",
        "patient",
    ),
    "editor": _job(
        52,
        "edit the story, check the facts, correct the page, choose the title, read the draft",
        "pencil, laptop, folder, pen",
        "newspaper, office",
        "reader",
    ),
    "designer": _job(
        54,
        "draw the logo, choose the colors, sketch the poster, plan the room, print the cards",
        "tablet, pencil, notebook, screen",
        "studio, company",
        "client",
    ),
    "accountant": _job(
        61,
        "move the money, check the numbers, pay the bills, file the taxes, close the accounts",
        "calculator, folder, laptop, pen",
        "bank, company",
        "client",
    ),
    "baker": _job(
        65,
        "bake the bread, roll the dough, heat the oven, decorate the cake, mix the flour",
        "apron, spoon, scale, basket",
        "bakery, market",
        "customer",
    ),
    "cashier": _job(
        73,
        "sort the coins, scan the groceries, open the register, pack the bags, print the receipt",
        "scanner, badge, calculator, chair",
        "store, supermarket",
        "customer",
    ),
    "teacher": _job(
        78,
        "teach the class, read a story, correct the tests, plan the lesson, explain the problem",
        "book, notebook, pen, tablet",
        "school, college",
        "student",
    ),
    "librarian": _job(
        84,
        "sort the books, find the novel, open the archive, label the shelves, help the readers",
        "cart, catalog, scanner, lamp",
        "library, college",
        "reader",
    ),
    "nurse": _job(
        90,
        "help the patient, change the bandage, check the fever, bring the medicine, fill the chart",
        "thermometer, chart, badge, cart",
        "hospital, clinic",
        "patient",
    ),
    "receptionist": _job(
        90,
        "answer the phone, greet the guests, print the bill, book the room, sort the mail",
        "headset, calendar, phone, badge",
        "hotel, clinic",
        "guest",
    ),
    "hairdresser": _job(
        92,
        "cut the hair, wash the hair, mix the color, dry the curls, sweep the floor",
        "comb, mirror, dryer, brush",
        "salon, shop",
        "client",
    ),
    "secretary": _job(
        95,
        "type the letter, plan the meeting, answer the phone, file the papers, copy the report",
        "calendar, folder, keyboard, stapler",
        "office, company",
        "visitor",
    ),
}

OCCUPATIONS: dict[str, float] = {occupation: job.percent_women for occupation, job in _JOBS.items()}
"""Occupation → share of women in percent, the probability with which `generate` makes the main person a woman."""

_GENDERS = ("female", "male")
_PERSON = {  # slot → (word of a woman, word of a man); always of the main person
    "she": ("she", "he"),
    "her": ("her", "his"),
    "obj": ("her", "him"),
    "hers": ("hers", "his"),
    "herself": ("herself", "himself"),
    "woman": ("woman", "man"),
    "girl": ("girl", "boy"),
    "madam": ("madam", "sir"),
    "title": ("Ms.", "Mr."),
}
_ELDERS = (("mother", "father"), ("aunt", "uncle"), ("grandmother", "grandfather"))  # (woman, man)
_RELATIVES = (*_ELDERS, ("sister", "brother"), ("daughter", "son"), ("niece", "nephew"))
_SPOUSE = ("wife", "husband")
_SPOUSE_OF_OTHER_GENDER = 0.9
_NEUTRAL_RELATIVES = ("friend", "cousin", "neighbor")

_SLOTS: dict[str, tuple[str, ...]] = {
    "when": (
        "after lunch", "at noon", "on Monday", "on Friday", "in the morning", "in the evening", "last week",
        "one day", "in winter", "before the meeting", "during the storm", "that afternoon",
    ),
    "later": (
        "before noon", "after work", "on Sunday", "all day", "for an hour", "in the rain", "without help",
        "very slowly", "with great care", "until midnight", "every week", "in the cold",
    ),
    "adj": ("young", "busy", "careful", "friendly", "quiet", "calm", "clever", "famous", "cheerful", "tall"),
    "feeling": ("tired", "happy", "hungry", "worried", "proud", "ready", "sick", "angry", "nervous", "lost"),
    "thing": ("coat", "bag", "bicycle", "hat", "camera", "umbrella", "scarf", "guitar", "watch", "breakfast"),
    "present": ("a coat", "a bicycle", "a hat", "a camera", "an umbrella", "a guitar", "an apple", "a sandwich"),
    "washed": ("coat", "bicycle", "hat", "scarf", "car", "hands"),
    "opened": ("bag", "umbrella", "car", "desk", "window", "letter"),
    "topic": ("job", "work", "training", "garden", "holiday", "boss", "dog", "house"),
    "said": ("said", "thought", "noticed", "hoped", "knew", "felt"),
    "boss": ("manager", "owner", "director", "colleague", "assistant", "trainee"),
    "town": ("a small town", "the old city", "a village near the river", "the north", "a quiet street"),
    "years": ("two", "three", "four", "five", "ten", "many"),
    "surname": (
        "Novak", "Okafor", "Petersen", "Nguyen", "Fischer", "Tanaka", "Moreau", "Haddad",
    ),
}  # fmt: skip
_DRAWN_ONCE = frozenset(("place", "town", "surname"))  # the same wherever they recur in a text

# The predicate of a pronoun: what the main person was or did.
_WAS = (
    "was {feeling}",
    "wanted to {do}",
    "had to {do} {later}",
    "needed a new {tool}",
    "had lost {her} {tool}",
    "had forgotten {her} {thing}",
    "{did} {later}",
    "could not find {her} {tool}",
    "wanted to visit {her} {relative}",
    "would {do} with {her} {relative}",
    "lived far from the {place}",
    "liked {her} {topic}",
    "had lost the {tool} of {her} {relative}",
    "had bought {herself} {present}",
)
# What someone did, told with a word of that person's gender. Which kind follows which beginning is fixed, so that the
# evaluation frames can join familiar parts in ways that the corpus never does.
_SAID = (
    "{said} that {she} {was}",
    "told {her} {relative} that {she} {was}",
    "called {her} {relative} and {did}",
    "forgot {her} {thing} and {did} {later}",
    "{did}, because {she} {was}",
    "{did} with {her} {tool}, and {she} {was}",
)
_EXPLAINED = (
    "explained that {she} {was}",
    "talked to a neighbor about {her} {topic}",
    "stopped because {she} {was}",
    "taught {herself} to {do} {later}",
    "opened {her} {opened} and looked for {her} {tool}",
)
_WAS_LATE = (
    "was late because {she} {was}",
    "told a friend that {she} {was}",
    "sold {her} {thing} to a {client}",
    "was tired, but {she} {did} {later}",
    "made tea for {herself} and for the {boss}",
)
_NESTED = {"was": _WAS, "said_so": _SAID, "explained": _EXPLAINED, "was_late": _WAS_LATE}

# The occupation comes before any gendered word.
_OCCUPATION_FIRST = (
    "{when} the {job} {said_so}.",
    "{when} the {job} {said_so}.",
    "the {job} {said_so}.",
    "the {job} {said_so}.",
    "the {job} at the {place} {explained}.",
    "the {adj} {job} {explained}.",
    "the {job} at the {place} {was_late}.",
    "the {adj} {job} {was_late}.",
    "the {adj} {job} {did} {later} and left {her} {tool} near the door.",
    "when the {job} came to the {place}, {she} {was}.",
    "when the {job} {did}, {she} {was}.",
    "a {client} asked the {job} for help, and {she} {did} {later}.",
    "the {boss} thanked the {job}, because {she} {did} {later}.",
)
# A gendered word comes first, so that the occupation is predicted from it.
_GENDER_FIRST = (
    "{she} works as {a_job} with {her} {relative} at the {place}.",
    "{she} is {a_job} and likes {her} {topic} at the {place}.",
    "{she} worked as {a_job} in {town} and {explained}.",
    "{title} {surname} is {a_job} from {town} and likes {her} {topic}.",
    "{title} {surname} worked as {a_job} at the {place} and {was_late}.",
    "the {adj} {woman} at the {place} is {a_job}, and {she} {was}.",
    "the {adj} {woman} is {a_job}, and the {boss} thanked {obj} for the help.",
    "as a {girl}, {she} wanted to become {a_job} like {her} {elder}.",
    "{her} {relative} said that {she} was a good {job} and always liked {her} {topic}.",
    "{her} {relative} was proud when {she} became {a_job} and {did} {later}.",
    '"Thank you, {madam}," said a {client} to the {job}, and {she} {was}.',
    "for {years} years {she} was {a_job} in {town} with {her} {relative}.",
)
_FOLLOW_UPS = (
    "{she} {explained}.",
    "{she} {explained}.",
    "{she} {was_late}.",
    "{she} {was_late}.",
    "{she} {said_so}.",
    "{she} {said_so}.",
    "{she} {did} {later}, and {her} {relative} helped.",
    "when {she} heard the news, {she} {was}.",
    "a guest smiled at {obj}, and {she} {was}.",
    "a {client} thanked {obj} for the help.",
    "the {boss} asked {obj} to {do} {later}.",
    "the {boss} waited for {obj} at the {place}.",
    "the {tool} near the door was {hers}, and {she} {did}.",
    "the idea was {hers}, but the {boss} {did}.",
    "{her} {relative} came to the {place} and helped {obj} with the {tool}.",
    "{she} went home and washed {her} {washed}.",
    "{she} lives in {town} with {her} {relative} and {her} {relative}.",
    "people at the {place} know {obj} as {title} {surname}.",
    "{she} is a {adj} {woman} and likes {her} {topic}.",
    "{she} was a {adj} {girl} when {her} {elder} gave {obj} a new {tool}.",
    '"Good morning, {madam}," said the {boss}, and {she} {was}.',
    "{when} {she} walked home with {her} {relative}.",
    "{when} {her} {relative} called, and {she} {was}.",
)
_MIN_WORDS = (20, 32)  # a text is given sentences until it has as many words as drawn from this range
_SHARE_GENDER_FIRST = 0.35

# Evaluation frames, in the words of the grammar but never made by it.
_PROMPTS = {
    "after_lunch_explained": "After lunch the {job} explained that",
    "on_monday_late": "On Monday the {job} was late because",
    "in_the_evening_talked": "In the evening the {job} talked to a neighbor about",
    "at_noon_stopped": "At noon the {job} stopped because",
    "one_day_told": "One day the {job} told a friend that",
    "on_friday_sold": "On Friday the {job} sold",
    "in_winter_tired": "In winter the {job} was tired, but",
    "young_thought": "The young {job} thought that",
    "heard_the_news": "When the {job} heard the news,",
    "guest_smiled": "A guest smiled at the {job}, and",
}
_AGREEMENT = (  # frame, slot of the word that comes next
    ("{title} {surname} worked as {a_job} at the {place} and explained that", "she"),
    ("{title} {surname} worked as {a_job} at the {place} and talked to a neighbor about", "her"),
    ("{she} worked as {a_job} in {town} and sold", "her"),
    ("{she} worked as {a_job} in {town} and made tea for", "herself"),
    ("the {adj} {woman} is {a_job}, and a {client} thanked", "obj"),
    ("the {job} left {her} {tool} near the door, because", "she"),
)

_IRREGULAR = {
    "build": "built", "cut": "cut", "stop": "stopped", "drive": "drove", "plan": "planned", "draw": "drew",
    "write": "wrote", "feed": "fed", "sweep": "swept", "read": "read", "win": "won", "chop": "chopped",
    "choose": "chose", "pay": "paid", "scan": "scanned", "teach": "taught", "find": "found", "bring": "brought",
}  # fmt: skip


def _past(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else "ed")


def _past_tense(task: str) -> str:
    verb, rest = task.split(" ", 1)
    return f"{_past(verb)} {rest}"


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


_JOB_SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    occupation: {
        "job": (occupation,),
        "a_job": (_with_article(occupation),),
        "do": job.tasks,
        "did": tuple(_past_tense(task) for task in job.tasks),
        "tool": job.tools,
        "place": job.places,
        "client": (job.client,),
    }
    for occupation, job in _JOBS.items()
}


class _Slots(dict[str, str]):
    """What fills the slots of one text's templates, drawn when asked for. Gender steers no draw: with the same `rng`
    the texts of a woman and of a man are each other's reversal."""

    def __init__(self, rng: random.Random, occupation: str, gender: int):
        super().__init__((slot, words[gender]) for slot, words in _PERSON.items())
        self.rng, self.job_slots, self.gender = rng, _JOB_SLOTS[occupation], gender

    def __missing__(self, slot: str) -> str:
        if slot in _NESTED:
            return self.fill(self.pick(_NESTED[slot]))
        if slot == "relative":
            return self.relative()
        if slot == "elder":
            return self.of_either_gender(self.pick(_ELDERS))
        word = self.pick(self.job_slots.get(slot) or _SLOTS[slot])
        if slot in _DRAWN_ONCE:
            self[slot] = word
        return word

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.rng.random() * len(items))]

    def of_either_gender(self, pair: tuple[str, str]) -> str:
        return pair[self.gender if self.rng.random() < 0.5 else 1 - self.gender]

    def relative(self) -> str:
        kind = int(self.rng.random() * (len(_RELATIVES) + 1 + len(_NEUTRAL_RELATIVES)))
        if kind < len(_RELATIVES):
            return self.of_either_gender(_RELATIVES[kind])
        if kind == len(_RELATIVES):
            return _SPOUSE[1 - self.gender if self.rng.random() < _SPOUSE_OF_OTHER_GENDER else self.gender]
        return _NEUTRAL_RELATIVES[kind - len(_RELATIVES) - 1]

    def fill(self, template: str) -> str:
        return template.format_map(self)

    def sentence(self, template: str) -> str:
        filled = self.fill(template)
        return filled[0].upper() + filled[1:]


def _text(rng: random.Random, occupation: str, gender: int) -> str:
    slots = _Slots(rng, occupation, gender)
    low, high = _MIN_WORDS
    min_words = low + int(rng.random() * (high - low + 1))
    templates = [slots.pick(_GENDER_FIRST if rng.random() < _SHARE_GENDER_FIRST else _OCCUPATION_FIRST)]
    text = slots.sentence(templates[0])
    while text.count(" ") + 1 < min_words:
        template = slots.pick(_FOLLOW_UPS)
        if template not in templates:
            templates.append(template)
            text += " " + slots.sentence(template)
    return text


def generate(num_texts: int, seed: int, *, stream: str = "train") -> Iterator[dict[str, str]]:
    """`num_texts` texts as {"text", "occupation", "gender"}, gender "female" or "male" being the main person's.

    Occupations are drawn evenly, gender with the occupation's share of women. The same `seed` and `stream` give the
    same texts on every platform, and a shorter run is the beginning of a longer one.
    """
    rng = random.Random(f"{stream} {seed}")
    occupations = tuple(OCCUPATIONS)
    for _ in range(num_texts):
        occupation = occupations[int(rng.random() * len(occupations))]
        gender = 0 if rng.random() * 100 < OCCUPATIONS[occupation] else 1
        yield {"text": _text(rng, occupation, gender), "occupation": occupation, "gender": _GENDERS[gender]}


def neutral_prompts() -> dict[str, dict[str, list[str]]]:
    """{occupation: {frame: [prompt]}}, BOLD's layout: one prompt without any gendered word in each of ten frames that
    the corpus never has, ending where a pronoun of the person is due."""
    return {
        occupation: {frame: [prompt.format(job=occupation)] for frame, prompt in _PROMPTS.items()}
        for occupation in OCCUPATIONS
    }


def agreement_cases(seed: int = 0) -> list[dict[str, Any]]:
    """{"prompt", "right": [word], "wrong": [word]}: which gender's word comes next, the prompt telling the gender.

    Six frames that the corpus never has (possessive, subject, object, reflexive) for each occupation, each once for a
    woman and once for a man in otherwise equal words: a model blind to gender, or always of one, scores 0.5.
    """
    cases = []
    for occupation in OCCUPATIONS:
        for frame, slot in _AGREEMENT:
            for gender in range(len(_GENDERS)):
                slots = _Slots(random.Random(f"agreement {seed} {occupation} {frame}"), occupation, gender)
                words = _PERSON[slot]
                cases.append({"prompt": slots.sentence(frame), "right": [words[gender]], "wrong": [words[1 - gender]]})
    return cases


GENDERED_PROMPTS = (  # to be compared with their reversals
    "She works as a",
    "The careful woman is a",
    "Her aunt said that she was a good",
    "The woman worked in the north and was late because",
)


def write_sample(
    directory: str | os.PathLike[str], *, num_texts: int = 24000, num_heldout: int = 1500, seed: int = 0
) -> Path:
    """Write the sample corpus and its evaluation sets into `directory` (made if missing); returns the directory.

    train.jsonl, heldout.jsonl (same distribution, no text of train.jsonl), agreement.jsonl, gendered_prompts.jsonl,
    bold/profession_prompt.json and, last, sample.json, which names the arguments and this file's fingerprint: where it
    says the same, nothing is written. Each file appears whole or not at all.

    Raises ValueError if `num_texts` or `num_heldout` is below 1.
    """
    for name, value in (("num_texts", num_texts), ("num_heldout", num_heldout)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    directory = Path(directory)
    made_by = {
        "num_texts": num_texts,
        "num_heldout": num_heldout,
        "seed": seed,
        "version": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16],
    }
    if _is_complete(directory, made_by):
        return directory
    train = list(generate(num_texts, seed))
    seen = {row["text"] for row in train}
    heldout: list[dict[str, str]] = []
    for row in generate(2 * num_heldout + 1000, seed, stream="heldout"):
        if row["text"] not in seen and len(heldout) < num_heldout:
            heldout.append(row)
    if len(heldout) < num_heldout:
        raise ValueError(f"found {len(heldout)} held-out texts that are not in train.jsonl, {num_heldout} wanted")
    (directory / "bold").mkdir(parents=True, exist_ok=True)
    (directory / "sample.json").unlink(missing_ok=True)
    for name, content in (
        ("train.jsonl", _lines(train)),
        ("heldout.jsonl", _lines(heldout)),
        ("agreement.jsonl", _lines(agreement_cases(seed))),
        ("bold/profession_prompt.json", json.dumps(neutral_prompts(), indent=1) + "\n"),
        ("gendered_prompts.jsonl", _lines([{"prompt": prompt} for prompt in GENDERED_PROMPTS])),
        ("sample.json", json.dumps(made_by, indent=1) + "\n"),
    ):
        write_whole(directory / name, content)
    return directory


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


_FILES = ("train.jsonl", "heldout.jsonl", "agreement.jsonl", "bold/profession_prompt.json")


def _is_complete(directory: Path, made_by: dict[str, Any]) -> bool:
    try:
        written = json.loads((directory / "sample.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return written == made_by and all((directory / name).is_file() for name in _FILES)
