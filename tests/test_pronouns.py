"""her → him or his, his → her or hers: hand-written cases, accuracy on annotated text, the data files, and learning."""

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from counterfactuals.learn import pronouns as learn
from counterfactuals.text import pronouns
from counterfactuals.text.document import Document, doubts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.pronouns import TEMPLATES, decide
from counterfactuals.text.reverse import reverse

GENDER = load_lexicon("gender")

CASES = r"""
I saw her| yesterday. → him
I saw her|. → him
I saw her| → him
I saw her|! → him
He gave her| his book. → him
He told her| that it rained. → him
They made her| happy. → him
They made her| a cake. → him
We heard her| laugh. → him
Let her| go! → him
They brought her| back to the house. → him
She asked for her| right away. → him
He called her| "Anna" and left. → him
It is for him or her| to say. → him
We met him and her|. → him
Ask her| and I will come. → him
It was her| book. → his
It was her| "friend". → his
Her| mother left. → his
Her| laptop crashed lol → his
She lost her| very first job. → his
He held her| right hand. → his
It was her| newly painted house. → his
It was her| only family. → his
He thanked her and her| mother. → his
his or her| book → his
his/her| book → his
It is his| / her book. → her
Give it to her|/him. → him
THEY TOOK HER| MONEY. → his
THEY TOOK HER| TO THE STATION. → him
We met *her| mother* there. → his
We met *her*| there. → him
She put on her|\nold coat. → his
They thanked her|.\nMother came. → him
She said it’s her| brother’s. → his
He didn’t see her|; she left. → him
He read his| book. → her
His| in-laws came. → her
He read his| The Tempest aloud. → her
He played in his| "band". → her
his| or her book → her
HIS| CAR IS HERE. → her
The book is his|. → hers
The book was his|, not mine. → hers
A friend of his| was there. → hers
A friend of his| → hers
The choice is his|! → hers
My car is faster than his| → hers
it is his| 😀 → hers
that one was his| lol → hers
It is his|; → hers
It was her|. → him
He said "that was his|" and left. → hers
it's her| :) → him
She handed her| intern a folder. → his
She asked her| therapist whether he had time. → his
The nurse paid her| roommate in cash. → his
He saw her| doctor yesterday. → his
She reminded her| trainee to lock up. → his
They made her| captain. → him
They appointed her| treasurer of the club. → him
He gave her| a folder. → him
I wished her| happy birthday. → him
We wished her| good luck. → him
She wished her| sister luck. → his
I wish her| hair was longer. → his
They offered her| money. → him
He told her| stories about the war. → him
We gave her| medicine twice a day. → him
They brought her| soup. → him
She lost her| keys. → his
She asked her| mother for money. → his
That gives him or her| time. → him
Ask him/her| questions. → him
Every student brings his or her| book. → his
Each writes her| or his name. → his
Is this his| or hers? → hers
his| & hers towels → hers
the his and her| rings → his
Theirs, hers or his|, who knows. → hers
i told her| she was late → him
love her| sm → him
text her| rn → him
ppl hate her| bc she won → him
omg her| outfit → his
"""


def marked(case: str) -> tuple[str, str, int, int, str]:
    """The pronoun in lower case, the text, its start and end, the answer."""
    before, expected = case.replace("\\n", "\n").rsplit(" → ", 1)
    end = before.index("|")
    end -= before[end - 1] == "*"
    text = before.replace("|", "")
    return text[end - 3 : end].lower(), text, end - 3, end, expected


def decided(word: str, text: str, start: int) -> tuple[str, float]:
    document = Document(text, GENDER)
    return decide(word, document, document.token_at(start))


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_cases(case: str):
    word, text, start, _, expected = marked(case)
    counterpart, probability = decided(word, text, start)
    assert counterpart == expected
    assert 0.5 <= probability <= 1


def test_only_its_two_words():
    with pytest.raises(ValueError, match="no rule for 'him'"):
        decided("him", "him", 0)


def test_little_confidence_is_a_doubt(monkeypatch: pytest.MonkeyPatch):
    for probability, kind in ((0.96, []), (0.9, ["likely"]), (0.7, ["unsure"]), (0.55, ["open"])):
        monkeypatch.setattr(pronouns, "decide", lambda *_, p=probability: ("his", p))
        reversal = reverse("HER book", GENDER)
        assert reversal.reversed == "HIS book" and reversal.spans[0].confidence == probability
        reasons = [f"pronoun:{reason}" for reason in kind]
        assert [flag.kind for flag in reversal.flags] == ["pronoun"] * len(kind)
        assert all(doubts()[reason] <= flag.doubt for reason, flag in zip(reasons, reversal.flags, strict=True))


@pytest.mark.parametrize(
    "text", ["her", "her\x00", "\n\n her \n\n", "*her*", "_her_", "’her’", "https://x/her?y=1", "1her\u3000😀"]
)
def test_any_surroundings(text: str):
    start = text.index("her")
    assert decided("her", text, start)[0] in ("him", "his")


def test_looks_only_nearby():
    """The same answer whatever stands far away, and no time spent there."""
    near = (
        "and then she said that I saw her yesterday at noon in the garden with all of them and some of the other people"
    )
    far = " ".join(["\n" * 1000 + "word"] * 1000)
    start = near.index("her yesterday")
    at = len(far) + 1 + start
    assert decided("her", near, start) == decided("her", f"{far} {near} {far}", at)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "pronouns.py"
    spec = importlib.util.spec_from_file_location("pronoun_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_accuracy(shared_data: Path, benchmark: ModuleType):
    """Name → cases, at least this share right, at least this mean of the shares of both answers."""
    least = {
        "EWT her": (236, 0.97, 0.97),
        "WinoBias her": (885, 0.98, 0.98),
        "Winogender her": (31, 0.96, 0.96),
        "EWT him, his masked": (720, 0.965, 0.965),
        "GAP him, his masked": (4341, 0.975, 0.97),
        "EWT his": (417, 0.99, 0.85),
    }
    sets = benchmark.data_sets(shared_data)
    for name, (count, share, balanced) in least.items():
        assert len(sets[name]) == count
        measured = benchmark.accuracy(sets[name], benchmark.ours)
        assert measured >= (share, 0) and measured[1] >= balanced, (name, measured)
    bands, error = benchmark.calibration([case for cases in sets.values() for case in cases])
    assert error < 0.02
    assert [right for *_, right in bands] == sorted(right for *_, right in bands)  # surer is right more often


def test_data_file():
    """Small, readable, with its provenance, and nothing in it that is not used."""
    assert pronouns.FILE.stat().st_size <= 540_000
    data = json.loads(pronouns.FILE.read_text(encoding="utf-8"))
    assert set(data) == {"about", "provenance", "classes", "models"}
    assert {"sources", "note", "texts", "characters", "command", "date", "seed", "held_out"} == set(data["provenance"])
    assert data["provenance"]["note"] and data["provenance"]["command"]
    assert set(data["models"]) == {"her", "his"}
    names = set(data["classes"])
    for model in data["models"].values():
        assert set(model) == {"bias", "weights"} and tuple(model["weights"]) == TEMPLATES
        assert all(key in names or key[0] in "~@" for keys in model["weights"]["xc"].values() for key in keys.split())
    for form, held in data["provenance"]["held_out"]["her"].items():
        assert form == "trained_on" or held["right"] > 0.94


PLAIN = """
She handed her {} a folder. She gave her {} the keys. Anna thanked her {} for the flowers. He spoke to her {} about it.
She met her {} at noon. They asked her {} for help. She told her {} that it was late. She offered her {} a seat.
She sent her {} an email. She waited for her {} outside. She taught her {} French. The nurse paid her {} in cash.
"""
NOT_LISTED = """
podcaster screenwriter harpist illusionist beekeeper glazier fundraiser lacemaker fortuneteller stuntman copyeditor
optometrist lodger blacksmith clairvoyant hypnotist florist cobbler zookeeper lifeguard embalmer upholsterer sommelier
"""


def test_persons_are_owned():
    """ "asked her intern": every noun that pronouns.yaml lists for persons alone, and most of the others."""
    sentences = [sentence + "." for sentence in " ".join(PLAIN.split()).split(". ")]
    listed = pronouns.words().persons
    assert not listed & set(NOT_LISTED.split())
    for nouns, least in ((sorted(listed)[::20], 1.0), (NOT_LISTED.split(), 0.8)):
        right = []
        for noun in nouns:
            for sentence in sentences:
                text = sentence.format(noun)
                right.append(decided("her", text, text.index(f"her {noun}"))[0] == "his")
        assert sum(right) >= least * len(right)


def test_whose_the_subject_is():
    """The same words: he made another's bed or hers some tea; she made her own."""
    owns = {}
    for subject in ("He", "She"):
        text = f"{subject} made her coffee."
        counterpart, probability = decided("her", text, text.index("her"))
        owns[subject] = probability if counterpart == "his" else 1 - probability
    assert owns["He"] < owns["She"] - 0.1


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Texts of a small grammar, in which nouns follow owners and adverbs follow objects."""
    pick = random.Random(0).choice
    nouns = ["book", "hat", "house", "dog", "car", "pen"]
    lines = []
    for _ in range(1500):
        own, alone, late = pick(
            [("his", "him", "his"), ("my", "me", "mine"), ("our", "us", "ours"), ("their", "them", "theirs")]
        )
        lines.append(
            f"We saw {own} {pick(nouns)} there. We saw {alone} {pick(['today', 'again', 'there'])}. "
            f"The {pick(nouns)} is {'hers' if late == 'his' else late}. They found the {pick(nouns)} again today."
        )
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def test_learns_from_plain_text(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {"num_words": 40, "num_classes": 8, "num_contexts": 400, "num_weights": 300}
    data = learn.learn([str(corpus)], note="made for the test", seed=1, **options)
    assert data == learn.learn([str(corpus)], note="made for the test", seed=1, **options)
    assert data["provenance"]["texts"] == 1500
    assert data["provenance"]["held_out"]["her"]["him"]["right"] == 1
    weights = [
        key for table in data["models"]["her"]["weights"].values() for keys in table.values() for key in keys.split()
    ]
    assert 10 < len(weights) <= 300

    learn.write(data, tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text(encoding="utf-8")) == data
    monkeypatch.setattr(pronouns, "FILE", tmp_path / "new.json")
    for case in ("We saw her| dog there. → his", "We saw her| again. → him", "The hat is his|. → hers"):
        word, text, start, _, expected = marked(case)
        assert decided(word, text, start)[0] == expected


def test_refuses_text_without_pronouns(tmp_path: Path):
    (tmp_path / "none.txt").write_text("Nothing to see.", encoding="utf-8")
    with pytest.raises(ValueError, match="learn_pronouns: no him or me or us or them, or no his or my or our or their"):
        learn.learn([str(tmp_path / "none.txt")])
