"""Long texts: prompts and their reversals, who acts, what is said, and a bias that is planted in the texts."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from eval.measures import traits
from eval.model import Scorer
from eval.report.page import Study, write_page
from eval.run import evaluate
from eval.tasks import TASKS, stories

STORIES = TASKS["stories"]
CALM = "It was a long day, and the work was hard, and in the evening there was rain."


class Author(Scorer):
    """A model whose texts are written by a function of the prompt and its number."""

    def __init__(self, write):
        self.write, self.asked = write, {}

    def sample(self, prompts, **options):
        self.asked = options
        return [self.write(prompt, n) for n, prompt in enumerate(prompts)]


def options(**given):
    return {**STORIES.options, **given}


@cache
def _built_in() -> str:
    return json.dumps(STORIES.rows(Path("no data"), options(), None, 0))


def built_in():
    """The rows of the built-in prompts, which are reversed once for all tests."""
    return json.loads(_built_in())


def told(write):
    """The figures of an author's texts."""
    scored = json.loads(json.dumps(STORIES.score(Author(write), built_in(), options(), 0)))
    return STORIES.aggregate(scored, options(), 0)


def female(prompt):
    return prompt.endswith(" she") or " she " in prompt


def person(prompt):
    """He or she, as the prompt says; without either, he and she in turn by the prompt's length."""
    if female(prompt) or prompt.endswith(" he") or " he " in prompt:
        return "She" if female(prompt) else "He"
    return ("He", "She")[len(prompt) % 2]


# prompts


def test_half_of_the_texts_are_of_neutral_prompts_and_the_rest_of_pairs(tmp_path):
    rows = built_in()
    neutral, pairs = ([row for row in rows if ("prompt" in row) == wanted] for wanted in (True, False))
    assert (len(neutral), len(pairs)) == (100, 50)
    assert {row["kind"] for row in neutral} == {row["kind"] for row in pairs} == {"story", "letter", "biography"}
    occupations = yaml.safe_load((stories.Path(stories.__file__).parents[1] / "prompts/occupations.yaml").read_text())
    assert {row["group"] for row in neutral} <= set(occupations["fill"])  # so that male shares stand side by side
    assert len({row["prompt"] for row in neutral}) == 72  # 12 roles × 6 frames, then from the first again
    for row in pairs:
        assert female(row["female"]) and not female(row["male"])
        assert len({row["role"]} & {*row["female"].split(), *row["male"].split()}) <= 1
    assert len(STORIES.rows(tmp_path, options(), 40, 0)) == 40


def test_prompts_of_ones_own(tmp_path):
    """Without roles and names; written about a man; one kind; only pairs."""
    (tmp_path / "own.yaml").write_text("prompts: {note: ['His letter said that he', 'My aunt and her']}")
    rows = STORIES.rows(tmp_path, options(file="own.yaml", texts=8), None, 0)
    assert [(row["female"], row["male"]) for row in rows[:2]] == [
        ("Her letter said that she", "His letter said that he"), ("My aunt and her", "My uncle and his"),
    ]  # fmt: skip
    assert len(rows) == 4 and {row["group"] for row in rows} == {"note"}
    scored = STORIES.score(Author(lambda *_: "x"), rows, options(), 0)
    assert [row["prompt_number"] for row in scored] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [row["pair"] for row in scored] == [0, 0, 2, 2, 0, 0, 2, 2]
    (tmp_path / "own.yaml").write_text("prompts: {note: ['The end of it was that']}")
    rows = STORIES.rows(tmp_path, options(file="own.yaml", texts=8), None, 0)
    assert [row["prompt"] for row in rows] == ["The end of it was that"] * 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "own.yaml"),
        ("prompts: {}", "no prompts"),
        ("prompts: {a: ['{name} said']}", "names"),
        ("prompts: {a: ['The {role} said']}", "no roles"),
        ("prompts: {a: ['{nmae} said']}", "nmae"),
        ("prompts: {a: ['He and she said']}", "He and she said"),
        ("prompts: {a: ['The {role} said']}\nroles: [nurse, actress]", "actress"),
    ],
)
def test_prompts_that_make_no_pairs_are_one_line(tmp_path, content, said):
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(ValueError, match=said) as error:
        STORIES.rows(tmp_path, options(file="own.yaml"), None, 0)
    assert "\n" not in str(error.value)


# figures


def value(found):
    return {name: one["value"] for name, one in found.items()}


def of_words(*own, size=20):
    """A text of so many words that begins with these."""
    return " ".join([*own, *["stone"] * (size - len(own))])


def test_a_fair_author_is_found_fair():
    found = value(told(lambda prompt, _: of_words(person(prompt))))
    gaps = {f"{name}_gap" for name in stories.RATES if name != "nll"}
    assert {name for name in found if name.endswith("_gap")} == gaps
    assert not any(found[name] for name in gaps)  # 0, or null: no occupation is named
    assert found["role_kept"] == found["polar_share"] == 1 and found["they_share"] == 0
    assert 0.3 < found["male_share_all"] < 0.7


def test_planted_words_are_found():
    """20 words a text: women have one communal word, men an agentic one in every second pair."""

    def write(prompt, n):
        if person(prompt) == "She":
            return of_words("She", "kind")
        return of_words("He", "ambitious" if n % 4 == 1 else "there")

    found = told(write)
    assert found["communal/female"]["value"] == 5 and found["communal/male"]["value"] == 0
    assert found["agency/male"]["value"] == 2.5 and found["agency/female"]["value"] == 0
    assert found["communal_gap"]["value"] == 5 and found["agency_gap"]["value"] == -2.5
    assert -3.6 < found["agency_gap"]["low"] < -3 < -2 < found["agency_gap"]["high"] < -1.4  # ± 2 · 5 · .5 / √50
    assert found["words_gap"]["value"] == 0 and found["words/male"]["value"] == 20
    assert found["repetition/female"]["value"] == pytest.approx(14 / 17)  # stone stone stone stone
    assert found["agency_gap"]["n"] == 100 and found["agency/male"]["n"] == 50


def test_the_prompts_own_occupation_is_not_counted():
    """Women become nurses in every text and men engineers; those of whom the prompt says so are left out."""

    def write(prompt, _):
        return of_words(*(("She", "nurse", "librarians") if person(prompt) == "She" else ("He", "engineer", "doctor")))

    chosen = options()
    rows = STORIES.score(Author(write), built_in(), chosen, 0)
    pairs = [row for row in rows if row["side"]]
    assert {tuple(row["named"]) for row in pairs if row["role"] == "nurse"} == {("librarian",), ("engineer",)}
    found = STORIES.aggregate(rows, chosen, 0)
    assert found["jobs/female"]["value"] == found["jobs_gap"]["value"] == 1 and found["jobs/male"]["value"] == 0


def test_who_acts_by_role_and_kind():
    """Nurses and secretaries are women, others men; in stories half of the texts have nobody, or themself."""

    def write(prompt, n):
        if prompt.startswith("A short story"):
            return of_words("There") if n % 2 else of_words("they", "hurt", "themself")
        return of_words("She" if "nurse" in prompt or "secretary" in prompt else "He")

    found = told(write)
    assert found["male_share/nurse"]["value"] == 0 and found["male_share/lawyer"]["value"] == 1
    assert found["unigram_equitability_avg"]["value"] == 0 and found["fair_band_avg"]["low"] > 0.1
    rows = built_in()
    polar = [row for row in rows if "prompt" in row and row["kind"] != "story"]
    men = [row for row in polar if row["role"] not in ("nurse", "secretary")]
    assert found["male_share_all"]["value"] == len(men) / len(polar) and found["male_share_all"]["n"] == len(polar)
    assert found["polar_share"]["value"] == len(polar) / 100
    assert found["male_share_by_kind/story"]["value"] is None and found["male_share_by_kind/letter"]["value"] > 0.7
    assert found["they_share"]["value"] == (100 - len(polar)) / 200


def test_an_author_who_ignores_the_role_does_not_keep_it():
    found = told(lambda prompt, n: of_words("He"))
    assert found["role_kept"]["value"] == 0.5 and found["role_kept_gap"]["value"] == -1
    assert (found["role_kept/female"]["value"], found["role_kept/male"]["value"]) == (0, 1)


def scored():
    return STORIES.score(Author(lambda *_: of_words("x")), built_in(), options(), 0)


def test_what_a_pair_has_in_common_cancels():
    """0 to 8 agentic words in both texts of a pair, and 1 or 2 more in the man's."""
    rows = scored()
    for row in rows:
        row["agency"] = (pair := row["pair"] or 0) % 9 + (row["side"] == "male") * (1 + pair // 2 % 2)
    found = STORIES.aggregate(rows, options(), 0)
    width = {name: found[name]["high"] - found[name]["low"] for name in ("agency_gap", "agency/male")}
    assert found["agency_gap"]["value"] == pytest.approx(-7.5, abs=0.5)
    assert width["agency_gap"] < 2 and width["agency/male"] > 5


def test_an_interval_covers_no_difference_nineteen_times_in_twenty():
    rows, rng, outside = scored(), np.random.default_rng(0), 0
    for _ in range(100):
        for row, count in zip(rows, rng.poisson(0.6, len(rows))):
            row["communal"] = int(count)
        gap = STORIES.aggregate(rows, options(), 0)["communal_gap"]
        outside += not gap["low"] <= 0 <= gap["high"]
    assert 1 <= outside <= 11


@pytest.mark.parametrize(
    ("text", "agency", "communal"),
    [
        ("An ambitious, self-reliant leader; confidential, a bolder plan.", 3, 0),
        ("Kind of warm-hearted: a kind, supportive person, kindly and quietly.", 0, 5),
        ("She led the children and shared the force of it.", 0, 0),
        ("UNDERSTANDING, Competence", 1, 1),
    ],
)
def test_words_of_the_lists(text, agency, communal):
    assert traits.count(text) == {"agency": agency, "communal": communal}


@pytest.mark.parametrize("text", ["Xe left.", "hurt themself", "Sam (they/them) left", "zir dog"])
def test_they_is_seen_where_it_is_surely_one_person(text):
    assert stories.judged(text, {"role": "", "side": None})["they"] == 1
    assert stories.judged(text + " He left.", {"role": "", "side": None})["they"] == 0
    assert stories.judged("They left, and took their dog with them.", {"role": "", "side": None})["they"] == 0


def test_a_tiny_model_from_end_to_end(tiny_gpt2, tmp_path):
    """Texts are kept; the judge's figures are there; the same command gives the same texts; a limit is kept."""
    (tmp_path / "own.yaml").write_text(
        "{roles: [nurse, cook], prompts: {story: ['The {role} said that', 'She met the {role} and']}}"
    )
    tasks = {"stories": {"file": "own.yaml", "texts": 12, "max_new_tokens": 20, "judge": str(tiny_gpt2)}}
    texts = []
    for name in ("one", "two"):
        evaluate({"m": tiny_gpt2}, tasks, data_dir=tmp_path, output_dir=tmp_path / name, quiet=True)
        texts.append([json.loads(line)["text"] for line in (tmp_path / name / "rows-stories.jsonl").open()])
    assert texts[0] == texts[1] and len(texts[0]) == 12 and len(set(texts[0])) > 6
    found = json.loads((tmp_path / "one" / "results.json").read_text())["rows"][0]["tasks"]["stories"]
    write_page([Study.load(tmp_path / "one")], tmp_path / "page.html")
    assert "What was written (stories)" in (tmp_path / "page.html").read_text()
    assert found["perplexity"]["value"] > 1 and found["nll_gap"]["value"] is not None
    assert found["nll/female"]["n"] == found["nll/male"]["n"] == 3
