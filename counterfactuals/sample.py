"""The built-in sample corpus: short biographies and workplace scenes from a seeded grammar of our own (sample.yaml),
whose occupation–gender skew is known exactly.

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
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml

from counterfactuals.files import write_whole
from counterfactuals.text.lexicon import load_lexicon

Item = TypeVar("Item")

_DATA = Path(__file__).with_suffix(".yaml")
GRAMMAR: dict[str, Any] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
OCCUPATIONS: dict[str, float] = {name: job["percent_women"] for name, job in GRAMMAR["occupations"].items()}
"""Occupation → share of women in percent, the probability with which `generate` makes the main person a woman."""

_GENDERS = ("female", "male")
_SPOUSE_OF_OTHER_GENDER = 0.9
_MIN_WORDS = (20, 32)  # a text is given sentences until it has as many words as drawn from this range
_SHARE_GENDER_FIRST = 0.35
_NAMES = 25  # pairs


def _past_tense(task: str) -> str:
    verb, rest = task.split(" ", 1)
    past = verb + ("d" if verb.endswith("e") else "ed")
    if verb.endswith("y") and verb[-2] not in "aeiou":
        past = verb[:-1] + "ied"
    return f"{GRAMMAR['irregular'].get(verb, past)} {rest}"


def _job_slots(occupation: str, job: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "job": [occupation],
        "a_job": [("an " if occupation[0] in "aeiou" else "a ") + occupation],
        "do": job["tasks"],
        "did": [_past_tense(task) for task in job["tasks"]],
        "tool": job["tools"],
        "place": job["places"],
        "client": [job["client"]],
    }


_JOB_SLOTS = {occupation: _job_slots(occupation, job) for occupation, job in GRAMMAR["occupations"].items()}


class _Slots(dict[str, str]):
    """What fills the slots of one text's templates, drawn when asked for. Gender steers no draw: with the same `rng`
    the texts of a woman and of a man are each other's reversal."""

    def __init__(self, rng: random.Random, occupation: str, gender: int):
        super().__init__((slot, words[gender]) for slot, words in GRAMMAR["person"].items())
        self.rng, self.job_slots, self.gender = rng, _JOB_SLOTS[occupation], gender

    def __missing__(self, slot: str) -> str:
        if slot in GRAMMAR["nested"]:
            return self.fill(self.pick(GRAMMAR["nested"][slot]))
        if slot == "relative":
            return self.relative()
        if slot == "elder":
            return self.of_either_gender(self.pick(GRAMMAR["elders"]))
        word = self.pick(self.job_slots.get(slot) or GRAMMAR["slots"][slot])
        if slot in GRAMMAR["drawn_once"]:
            self[slot] = word
        return word

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.rng.random() * len(items))]

    def of_either_gender(self, pair: Sequence[str]) -> str:
        return pair[self.gender if self.rng.random() < 0.5 else 1 - self.gender]

    def relative(self) -> str:
        gendered, neutral = GRAMMAR["relatives"], GRAMMAR["neutral_relatives"]
        kind = int(self.rng.random() * (len(gendered) + 1 + len(neutral)))
        if kind < len(gendered):
            return self.of_either_gender(gendered[kind])
        if kind == len(gendered):
            other = self.rng.random() < _SPOUSE_OF_OTHER_GENDER
            return GRAMMAR["spouse"][1 - self.gender if other else self.gender]
        return neutral[kind - len(gendered) - 1]

    def fill(self, template: str) -> str:
        return template.format_map(self)

    def sentence(self, template: str) -> str:
        filled = self.fill(template)
        return filled[0].upper() + filled[1:]


def _text(rng: random.Random, occupation: str, gender: int) -> str:
    slots = _Slots(rng, occupation, gender)
    low, high = _MIN_WORDS
    min_words = low + int(rng.random() * (high - low + 1))
    first = "gender_first" if rng.random() < _SHARE_GENDER_FIRST else "occupation_first"
    templates = [slots.pick(GRAMMAR[first])]
    text = slots.sentence(templates[0])
    while text.count(" ") + 1 < min_words:
        template = slots.pick(GRAMMAR["follow_ups"])
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
        occupation: {frame: [prompt.format(job=occupation)] for frame, prompt in GRAMMAR["prompts"].items()}
        for occupation in OCCUPATIONS
    }


def agreement_cases(seed: int = 0) -> list[dict[str, Any]]:
    """{"prompt", "right": [word], "wrong": [word]}: which gender's word comes next, the prompt telling the gender.

    Six frames that the corpus never has (possessive, subject, object, reflexive) for each occupation, each once for a
    woman and once for a man in otherwise equal words: a model blind to gender, or always of one, scores 0.5.
    """
    cases = []
    for occupation in OCCUPATIONS:
        for frame, slot in GRAMMAR["agreement"]:
            for gender in range(len(_GENDERS)):
                slots = _Slots(random.Random(f"agreement {seed} {occupation} {frame}"), occupation, gender)
                words = GRAMMAR["person"][slot]
                cases.append({"prompt": slots.sentence(frame), "right": [words[gender]], "wrong": [words[1 - gender]]})
    return cases


def name_cases() -> list[dict[str, Any]]:
    """The commonest given names of each gender, and nothing else that tells it."""
    names = load_lexicon("gender").names
    assert names is not None
    return [
        {"prompt": frame.format(name), "right": [pronouns[side]], "wrong": [pronouns[1 - side]]}
        for pair in names.pairs[:_NAMES]
        for side, name in enumerate(pair)
        for frame, *pronouns in GRAMMAR["names"]
    ]


def sex_bound_cases() -> list[dict[str, Any]]:
    """What only one sex can be or have tells the pronoun, whatever the occupation."""
    return [
        {"prompt": f"The {job} {cue}", "right": [right], "wrong": [wrong]}
        for right, wrong in (("she", "he"), ("he", "she"))
        for cue in GRAMMAR["sex_bound"][right]
        for job in GRAMMAR["sex_bound"]["jobs"]
    ]


def write_sample(
    directory: str | os.PathLike[str], *, num_texts: int = 24000, num_heldout: int = 1500, seed: int = 0
) -> Path:
    """Write the sample corpus and its evaluation sets into `directory` (made if missing); returns the directory.

    train.jsonl, heldout.jsonl (same distribution, no text of train.jsonl), agreement.jsonl, names.jsonl,
    sex_bound.jsonl, gendered_prompts.jsonl, bold/profession_prompt.json and, last, sample.json, which names the
    arguments and a fingerprint of the grammar: where it says the same, nothing is written. Each file appears whole or
    not at all.

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
        "version": hashlib.sha256(Path(__file__).read_bytes() + _DATA.read_bytes()).hexdigest()[:16],
    }
    if _is_complete(directory, made_by):
        return directory
    train = list(generate(num_texts, seed))
    seen = {row["text"] for row in train}
    others = (row for row in generate(2 * num_heldout + 1000, seed, stream="heldout") if row["text"] not in seen)
    heldout = list(islice(others, num_heldout))
    if len(heldout) < num_heldout:
        raise ValueError(f"found {len(heldout)} held-out texts that are not in train.jsonl, {num_heldout} wanted")
    (directory / "sample.json").unlink(missing_ok=True)
    for name, content in (
        ("train.jsonl", _lines(train)),
        ("heldout.jsonl", _lines(heldout)),
        ("agreement.jsonl", _lines(agreement_cases(seed))),
        ("names.jsonl", _lines(name_cases())),
        ("sex_bound.jsonl", _lines(sex_bound_cases())),
        ("bold/profession_prompt.json", json.dumps(neutral_prompts(), indent=1) + "\n"),
        ("gendered_prompts.jsonl", _lines([{"prompt": prompt} for prompt in GRAMMAR["gendered_prompts"]])),
        ("sample.json", json.dumps(made_by, indent=1) + "\n"),
    ):
        write_whole(directory / name, content)
    return directory


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = (
    "train.jsonl",
    "heldout.jsonl",
    "agreement.jsonl",
    "names.jsonl",
    "sex_bound.jsonl",
    "bold/profession_prompt.json",
)


def _is_complete(directory: Path, made_by: dict[str, Any]) -> bool:
    try:
        written = json.loads((directory / "sample.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return written == made_by and all((directory / name).is_file() for name in FILES)
