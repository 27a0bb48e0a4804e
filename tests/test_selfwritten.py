"""Texts that a teacher writes itself, and `evenhand debias`, on a tiny random model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import evenhand
import train_distill
from configs import selfwritten
from configs.build import reverser_of
from configs.load import load
from configs.schema import Loss
from counterfactuals.prompts import kind, prompts
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.tokens.pairs import make_pairs
from debias.ops import VocabularyRoles
from tests.runs import fresh
from tests.test_ops import HE, NURSE, SHE, TOKENS


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture
def settings(tiny_gpt2, few_words, tmp_path, monkeypatch):
    monkeypatch.setattr(selfwritten, "BATCH", 8)
    return [
        *(f"teacher.model={tiny_gpt2}", f"counterfactual.lexicon={few_words}", f"output_dir={tmp_path / 'run'}"),
        *("data.source=self", "data.max_texts=24", "data.max_length=64", "train.epochs=1", "student.layers=all"),
    ]


def config_of(settings):
    return load(None, settings)[1][""]


def texts_of(settings) -> list[str]:
    config = config_of(settings)
    path = selfwritten.own_texts(config, config.teacher.model, reverser_of(config))
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_texts_go_on_from_their_prompts(settings, few_words):
    texts = texts_of(settings)
    asked = prompts(load_lexicon(str(few_words)), 24, 0, cued_every=3)
    assert all(text.startswith(prompt) and len(text) > len(prompt) for text, prompt in zip(texts, asked, strict=True))


def test_a_killed_writing_goes_on_with_the_same_texts(settings, tmp_path, monkeypatch):
    whole = texts_of([*settings, f"output_dir={tmp_path / 'whole'}"])
    calls = []

    def dies(self, ids, **options):
        calls.append(len(ids))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, ids, **options)

    original = selfwritten_scorer().sample_ids
    monkeypatch.setattr(selfwritten_scorer(), "sample_ids", dies)
    with pytest.raises(KeyboardInterrupt):
        texts_of(settings)
    (partial,) = (tmp_path / "run" / "self").glob("*.partial")
    partial.write_text(partial.read_text() + '{"text": "torn', encoding="utf-8")
    assert texts_of(settings) == whole and calls == [8, 8, 8, 8]
    assert texts_of(settings) == whole and len(calls) == 4  # read, not written again


def test_the_most_uneven_texts_of_each_kind_are_chosen(settings, monkeypatch):
    written, original = [], selfwritten._written
    monkeypatch.setattr(selfwritten, "_written", lambda *a: (written.extend(rows) or rows for rows in original(*a)))
    choosing = ["data.choose_from=2", "loss.op=exp_mean", "loss.vocabulary=reversed", "counterfactual.max_doubt=0"]
    choosing += ["data.cued_every=4"]
    kept = texts_of([*settings, *choosing])
    assert (len(written), len(kept)) == (48, 24)
    for name, room in (("neutral", 18), ("name", 5), ("word", 1)):
        rows = [row for i, row in enumerate(written) if kind(i, 4) == name]
        rows.sort(key=lambda row: -row["uneven"])
        assert rows[0]["uneven"] > rows[-1]["uneven"]
        assert {row["text"] for row in rows} & set(kept) == {row["text"] for row in rows[:room]}
    texts_of([*settings, *choosing, f"output_dir={settings[2].partition('=')[2]}_again"])
    assert written[:48] == written[48:]
    texts_of([*settings, *choosing, "loss.op=max"])
    assert len(written) == 144  # another op may choose others


def test_how_uneven_a_text_is_by_hand():
    """P(she) .6, P(he) .2, even: .4 each. √mass · KL(½, ½ ‖ ¾, ¼). In the last two a role does not end it."""
    probs = torch.full((9,), 1e-12)
    probs[[SHE, HE, NURSE]] = torch.tensor([0.6, 0.2, 0.2])
    once = math.sqrt(0.8) * math.log(4 / 3) / 2
    ids, ends = [[NURSE], [NURSE], [NURSE, NURSE], [NURSE], [NURSE]], [{HE, 8}, {HE, 8}, {HE, 8}, {8}, {8}]
    watch = selfwritten._Uneven(Loss(op="exp_mean"), VocabularyRoles.build(TOKENS), ids, ends, 4)
    for tokens in ([NURSE, HE, NURSE, HE, 8], [NURSE, NURSE, NURSE, HE, NURSE], [NURSE, 8, NURSE, HE, NURSE]):
        watch(probs.log().expand(5, 9), torch.tensor(tokens), [0, 1, 2, 3, 4])
    assert watch.found == pytest.approx([3 * once, once, 2 * once, 3 * once, once], rel=1e-5)


def selfwritten_scorer():
    from eval.model import Scorer

    return Scorer


def test_other_seeds_and_lengths_are_other_texts(settings):
    texts = texts_of(settings)
    assert texts_of([*settings, "seed=1"]) != texts and texts_of([*settings, "data.max_length=60"]) != texts


def test_a_dry_run_with_a_random_student_writes_no_texts(settings, tmp_path, capsys):
    random = [*settings[:-1], "student={init: random, config: {n_layer: 1, n_embd: 16, n_head: 2}}"]
    assert train_distill.main([*random, "--dry_run"]) == 0
    assert "24 sequences" in capsys.readouterr().out and not (tmp_path / "run" / "self").exists()


def test_debias_leaves_a_model_a_card_and_a_page(tiny_gpt2, few_words, tmp_path, capsys):
    out = tmp_path / "fair"
    command = ["debias", str(tiny_gpt2), "--output_dir", str(out), "--lexicon", str(few_words), "--tokens", "6000"]
    command += ["data.max_length=64", "train.precision=no", "train.cpu_threads=1", "eval.tasks.perplexity.max_texts=20"]
    assert evenhand.main([*command, "--dry_run"]) == 0
    assert "93 sequences" in capsys.readouterr().out and not (out / "self").exists()
    assert evenhand.main(command) == 0
    assert {path.name for path in out.iterdir()} >= {"model", "report.html", "results.json", "self", "run.json"}
    assert "counterfactual role reversal" in (out / "model" / "README.md").read_text(encoding="utf-8")
    labels = [row["model"] for row in json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]]
    assert labels == ["teacher", "student"]  # before and after
    capsys.readouterr()
    assert evenhand.main(command) == 0
    assert "complete in" in capsys.readouterr().out


def test_debias_learns_from_reversals_but_leaves_given_names(tiny_tokenizer):
    config = load("configs/debias.yaml")[1][""]
    reverser = reverser_of(config)
    told = reverser("Mary said that her brother was a king.")
    assert (told.reversed, told.cue) == ("Mary said that his sister was a queen.", 0)
    (pair,) = make_pairs(["The nurse said that she was late."], reverser, tiny_tokenizer, max_length=64)
    assert pair.within(config.counterfactual.max_doubt).reversed and pair.cue < 0


def test_a_bound_gives_the_number_of_texts(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(selfwritten, "seconds_a_text", lambda config: 0.25)
    for bound, expected in (({"tokens": 6400}, 100), ({"minutes": 1.0}, 240)):
        config = config_of(settings)
        selfwritten.set_num_texts(config, {"": config}, **bound)
        assert config.data.max_texts == expected
    config = config_of([*settings, "train.epochs=2", "train.batch_size=8", "train.micro_batch_size=8"])
    selfwritten.set_num_texts(config, {"": config}, tokens=6400)
    assert config.data.max_texts == 50  # each is seen twice
    with pytest.raises(ValueError, match="fewer than a step has"):
        selfwritten.set_num_texts(*load(None, settings), tokens=64)
    texts_of([*settings, "data.max_texts=9"])
    selfwritten.set_num_texts(config, {"": config}, minutes=1.0)
    assert config.data.max_texts == 9  # the writing has begun
    with pytest.raises(ValueError, match="was begun for 9; give the former number"):
        selfwritten.set_num_texts(config, {"": config}, tokens=6400)


def test_runs_of_one_command_have_one_number_of_texts(settings, monkeypatch):
    """That of the dearest run, so that the same command finds the same number again."""
    monkeypatch.setattr(selfwritten, "seconds_a_text", lambda config: 0.25 * config.data.choose_from)
    choosing = "data: {choose_from: 2}, loss: {op: exp_mean, vocabulary: reversed}"
    whole, runs = load(None, [*settings, f"runs={{plain: {{}}, chosen: {{{choosing}}}}}"])
    selfwritten.set_num_texts(whole, runs, minutes=1.0)
    assert [config.data.max_texts for config in (whole, *runs.values())] == [120, 120, 120]


def test_minutes_are_refused_on_several_ranks(settings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="several ranks would measure different speeds; say how much with --tokens"):
        selfwritten.set_num_texts(*load(None, settings), minutes=1.0)


def test_mistakes_show_before_the_speed_is_measured(settings, monkeypatch, capsys):
    monkeypatch.setattr(selfwritten, "seconds_a_text", lambda config: 0 / 0)
    assert train_distill.main([*settings, "--minutes", "1", "eval.tasks={bolt: {}}"]) == 2
    assert "bolt" in capsys.readouterr().err


def test_the_speed_of_this_machine_is_measured(settings):
    assert 0 < selfwritten.seconds_a_text(config_of([*settings, "train.batch_size=2", "train.micro_batch_size=2"])) < 5


def test_the_speed_of_an_earlier_runs_model_is_measured(settings, tiny_gpt2, tmp_path):
    _, runs = load(None, [*settings, "runs={first: {}, second: {teacher: {model: run:first}}}"])
    shutil.copytree(tiny_gpt2, tmp_path / "run" / "first" / "model")
    assert selfwritten.seconds_a_text(runs["second"]) > 0


def test_the_time_for_texts_that_are_not_chosen_and_for_counterfactuals_counts(settings, monkeypatch):
    monkeypatch.setattr(selfwritten, "_seconds", lambda work: 1.0)  # so two for two texts, teacher and student
    combining = ["train.micro_batch_size=2", "loss.op=max", "loss.vocabulary=reversed"]

    def seconds(*more: str) -> float:
        return selfwritten.seconds_a_text(config_of([*settings, *combining, *more]))

    alone = seconds("counterfactual.max_doubt=0")
    assert seconds("counterfactual.max_doubt=0", "data.choose_from=4") - 1 == pytest.approx(4 * (alone - 1))
    assert seconds() - alone == pytest.approx(selfwritten.WITH_COUNTERFACTUAL / 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("teacher.model=null", "data.source: self needs teacher.model"),
        ("data.prompts=none.txt", "data.prompts none.txt: no such file"),
        ("data.prompts=told.txt", "data.prompts told.txt: 'The {role} said she' names a group"),
        ("data.prompts=slot.txt", "data.prompts slot.txt: '{word} said' names a group"),
        ("data.prompts=wrong.txt", "data.prompts wrong.txt: prompt 'The {role.x} said': its slots can be"),
        ("data.prompts=latin.txt", "data.prompts latin.txt: 'utf-8' codec can't decode"),
        ("data.max_length=8", "data.max_length 8: a prompt has"),
        (
            "data.choose_from=2",
            "data.choose_from: needs data.source self and loss.vocabulary reversed; else set it to 1",
        ),
        ("data.source=sample data.prompts=x", "data.prompts: matters only with data.source self"),
        ("loss.amplify=1.2 loss.vocabulary=reversed counterfactual.stop_at_cue=false", "loss.amplify: needs counter"),
        ("data.source=sample data.cued_every=6", "data.cued_every: matters only with data.source self"),
    ],
)
def test_mistakes_are_one_clear_line(change, says, settings, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("slot.txt").write_text("{word} said\n", encoding="utf-8")
    Path("latin.txt").write_bytes(b"The caf\xe9 said")
    Path("wrong.txt").write_text("The {role.x} said\n", encoding="utf-8")
    Path("told.txt").write_text("The {role} said that\nThe {role} said she\n", encoding="utf-8")
    assert train_distill.main([*settings, *change.split()]) == 2
    message = capsys.readouterr().err
    assert says in message and "Traceback" not in message
    assert not [path for path in Path(tmp_path / "run").rglob("*") if path.suffix in (".jsonl", ".partial")]
