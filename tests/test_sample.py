"""The sample corpus: its skew is the declared one, its genders agree, its evaluation prompts are never trained on."""

import bisect
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from counterfactuals import sample
from counterfactuals.sample import GRAMMAR, OCCUPATIONS, agreement_cases, generate, neutral_prompts, write_sample
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import reverse

FEMALE = {"she", "her", "hers", "herself", "woman", "girl", "madam", "ms"}  # words of the main person, never of others
MALE = {"he", "him", "his", "himself", "man", "boy", "sir", "mr"}
RELATIVES = {word for pair in (*GRAMMAR["relatives"], GRAMMAR["spouse"]) for word in pair}
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return list(generate(24000, seed=0))


@pytest.fixture(scope="module")
def sentences(rows: Rows) -> list[str]:
    """All sentences of both streams, sorted."""
    texts = (row["text"] for part in (rows, generate(24000, 0, stream="heldout")) for row in part)
    return sorted({sentence for text in texts for sentence in re.split(r"(?<!Ms)(?<!Mr)\. ", text)})


def begins_a_sentence(prompt: str, sentences: list[str]) -> bool:
    at = bisect.bisect_left(sentences, prompt)
    return at < len(sentences) and sentences[at].startswith(prompt)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_the_same_seed_gives_the_same_texts():
    assert list(generate(50, seed=3)) == list(generate(50, seed=3)) == list(generate(90, seed=3))[:50]
    assert list(generate(50, seed=3)) != list(generate(50, seed=4))
    assert list(generate(50, seed=3)) != list(generate(50, seed=3, stream="heldout"))


def test_shares_of_women_are_the_declared_ones(rows: Rows):
    assert len(OCCUPATIONS) == 24
    assert all(3 <= percent <= 97 for percent in OCCUPATIONS.values())
    totals = Counter(row["occupation"] for row in rows)
    women = Counter(row["occupation"] for row in rows if row["gender"] == "female")
    for occupation, percent in OCCUPATIONS.items():
        p, n = percent / 100, totals[occupation]
        assert 850 < n < 1150
        assert abs(women[occupation] / n - p) < 4 * math.sqrt(p * (1 - p) / n), occupation


def test_gendered_words_agree_with_the_label_and_only_relatives_are_free(rows: Rows):
    gender = load_lexicon("gender")
    gendered = set().union(*(gender.words(group) for group in gender.groups))
    free: Counter[str] = Counter()
    for row in rows:
        used = Counter(words(row["text"]))
        own, other = (FEMALE, MALE) if row["gender"] == "female" else (MALE, FEMALE)
        assert any(used[word] for word in own) and not any(used[word] for word in other), row
        assert gendered & used.keys() <= own | RELATIVES, row
        assert used[row["occupation"]] and sum(used[job] for job in OCCUPATIONS) == used[row["occupation"]], row
        free.update({word: used[word] for word in RELATIVES})
    for woman, man in GRAMMAR["relatives"]:
        assert abs(free[woman] / (free[woman] + free[man]) - 0.5) < 0.05
    assert free["husband"] and free["wife"]


def test_a_womans_text_reversed_is_the_text_of_a_man_with_the_same_draws():
    """But for "her", where the pronoun classifier does not know the thing: "could not find her folder"."""
    gender = load_lexicon("gender")
    others = 0
    for i in range(1000):
        occupation = list(OCCUPATIONS)[i % len(OCCUPATIONS)]
        woman, man = (sample._text(random.Random(i), occupation, group) for group in (0, 1))
        for text, other in ((woman, man), (man, woman)):
            reversal = reverse(text, gender)
            assert re.sub(r"\bhim\b", "his", reversal.reversed) == re.sub(r"\bhim\b", "his", other)
            assert {flag.kind for flag in reversal.flags} <= {"pronoun"}
            others += reversal.reversed != other
    assert others <= 0.025 * 2000


def test_most_texts_name_the_occupation_before_any_gendered_word(rows: Rows):
    cues = FEMALE | MALE | RELATIVES
    neutral = [next(w for w in words(r["text"]) if w in cues or w == r["occupation"]) not in cues for r in rows]
    assert 0.6 < sum(neutral) / len(neutral) < 0.75


def test_size_and_variety(rows: Rows):
    lengths = [len(row["text"].split()) for row in rows]
    assert 28 < sum(lengths) / len(lengths) < 33
    assert min(lengths) >= 20 and max(lengths) <= 50
    used = Counter(word for row in rows for word in words(row["text"]))
    assert 500 < len(used) < 900
    assert min(used[w] for w in FEMALE | MALE | RELATIVES | set(OCCUPATIONS)) > 300
    assert len({row["text"] for row in rows}) > 0.999 * len(rows)
    assert all(re.fullmatch(r'[A-Z"][A-Za-z ,."]+[."]', row["text"]) and "  " not in row["text"] for row in rows)
    assert not [row for row in rows if re.search(r"\b(a [aeiou]|an (?!hour)[^aeiou])", row["text"])]


def test_prompts_are_neutral_and_their_frames_are_never_trained_on(rows: Rows, sentences: list[str]):
    gender = load_lexicon("gender")
    banned = set().union(*(gender.words(group) for group in gender.groups)) | set(gender.cues)
    prompts = neutral_prompts()
    assert list(prompts) == list(OCCUPATIONS)
    known = {word for row in rows for word in words(row["text"])}
    for occupation, frames in prompts.items():
        assert list(frames) == list(GRAMMAR["prompts"]) and len(frames) >= 6
        for prompt in (prompt for prompts in frames.values() for prompt in prompts):
            assert prompt == prompt.strip() and occupation in prompt
            assert not banned & set(words(prompt))
            assert set(words(prompt)) <= known
            assert not begins_a_sentence(prompt, sentences)


def test_agreement_cases_are_balanced_mirrors_and_never_trained_on(sentences: list[str]):
    gender = load_lexicon("gender")
    cases = agreement_cases()
    assert len(cases) >= 200
    assert len({case["prompt"] for case in cases}) == len(cases)
    for woman, man in zip(cases[::2], cases[1::2], strict=True):
        assert reverse(man["prompt"], gender).reversed == woman["prompt"]
        assert (woman["right"], woman["wrong"]) == (man["wrong"], man["right"])
        assert set(woman["right"]) <= FEMALE and set(man["right"]) <= MALE
    assert Counter(case["right"][0] for case in cases).keys() == {
        "she",
        "he",
        "her",
        "his",
        "him",
        "herself",
        "himself",
    }
    assert not [case for case in cases if begins_a_sentence(case["prompt"], sentences)]
    assert begins_a_sentence("She is a nurse and likes her", sentences)
    assert agreement_cases(seed=1) != cases


def test_write_sample(tmp_path: Path):
    directory = write_sample(tmp_path / "new" / "sample", num_texts=300, num_heldout=40, seed=5)

    def read(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (directory / name).read_text().splitlines()]

    train, heldout = read("train.jsonl"), read("heldout.jsonl")
    assert train == list(generate(300, seed=5))
    assert len(heldout) == 40
    assert not {row["text"] for row in train} & {row["text"] for row in heldout}
    assert read("agreement.jsonl") == agreement_cases(5)
    assert json.loads((directory / "bold" / "profession_prompt.json").read_text()) == neutral_prompts()
    assert {path.name for path in directory.rglob("*") if path.is_file()} == {
        "train.jsonl",
        "heldout.jsonl",
        "agreement.jsonl",
        "gendered_prompts.jsonl",
        "names.jsonl",
        "sex_bound.jsonl",
        "profession_prompt.json",
        "sample.json",
    }


def test_write_sample_again_writes_only_what_differs(tmp_path: Path):
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}

    def again(num_texts: int) -> dict[str, int]:
        write_sample(tmp_path, num_texts=num_texts, num_heldout=3)
        return stamps()

    first = again(20)
    assert again(20) == first
    second = again(21)
    assert all(second[name] > first[name] for name in first)
    (tmp_path / "heldout.jsonl").unlink()  # as after an interrupted copy
    assert again(21).keys() == first.keys()


def test_no_text_of_a_large_heldout_set_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sample, "generate", lambda num_texts, seed, stream="train": generate(num_texts, seed))
    with pytest.raises(ValueError, match="not in train"):
        write_sample(tmp_path, num_texts=2000, num_heldout=10)


@pytest.mark.parametrize(("name", "value"), [("num_texts", 0), ("num_heldout", -1)])
def test_counts_below_one_are_refused(tmp_path: Path, name: str, value: int):
    with pytest.raises(ValueError, match=name):
        write_sample(tmp_path, **{name: value})
