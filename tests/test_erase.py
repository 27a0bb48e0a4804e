"""LEACE against its definition, and a teacher whose states do not tell a text's group."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import train_distill
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.corpus import read_texts
from counterfactuals.tokens.pairs import make_pairs
from counterfactuals.tokens.tokenizer import train_bpe
from counterfactuals.tokens.vocabulary import role_tokens
from debias.erase import erase_groups, group_of_tokens, leace, told_groups
from debias.models import body_of, head_of
from tests.conftest import make_tiny_gpt2
from tests.runs import bitwise, fresh, write_texts


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture
def cloud():
    """Correlated states of width 6 that lie in a space of 5, and the one of three groups that each belongs to."""
    draw = torch.Generator().manual_seed(0)
    group = torch.randint(3, (400,), generator=draw)
    mixing = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    inner = torch.randn(400, 5, generator=draw, dtype=torch.float64)
    inner[:, 0] += group
    inner[:, 1] += 2.0 * (group == 1)
    return inner @ mixing.T + 3, torch.nn.functional.one_hot(group, 3)


def covariance(x, z):
    return (x - x.mean(0)).T @ (z.double() - z.double().mean(0)) / len(x)


def test_erased_states_are_not_correlated_with_the_group(cloud):
    x, z = cloud
    matrix, shift = leace(x, z)
    assert covariance(x, z).abs().max() > 0.1
    erased = x @ matrix.T + shift
    assert covariance(erased, z).abs().max() < 1e-9
    torch.testing.assert_close(erased.mean(0), x.mean(0))
    torch.testing.assert_close(erased @ matrix.T + shift, erased)  # nothing is left to erase


def test_no_smaller_change_erases_the_group(cloud):
    """Affine maps that erase it too: r followed by any map that keeps it erased. None moves the states less."""
    x, z = cloud
    matrix, shift = leace(x, z)
    change = (x @ matrix.T + shift - x).square().sum(1).mean()
    direction = torch.linalg.svd(covariance(x, z))[0][:, :2]  # an orthogonal projection erases it as well
    plain = (x - x.mean(0)) @ (torch.eye(6, dtype=torch.float64) - direction @ direction.T)
    assert covariance(plain, z).abs().max() < 1e-9
    assert change < (plain + x.mean(0) - x).square().sum(1).mean()
    centred = x - x.mean(0)
    for seed in range(5):
        other = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        near = matrix + 1e-3 * other @ matrix  # keeps the covariance at zero
        assert (centred @ near.T - centred).square().sum(1).mean() > change


def test_states_that_tell_nothing_stay_as_they_are(cloud):
    x, _ = cloud
    matrix, shift = leace(torch.cat([x, x]), torch.tensor([0, 1]).repeat_interleave(400)[:, None])
    torch.testing.assert_close(x @ matrix.T + shift, x)


TEXTS = ["The nurse said that she would finish.", "A man came back, and she left.", "The bridge is old."]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts.jsonl", 40)


@pytest.fixture(scope="module")
def teacher(corpus, tmp_path_factory):
    """A tiny model whose tokenizer has she, he, woman and man."""
    texts = [*read_texts(str(corpus)), *TEXTS * 9, *["That he, that she, a woman, a man."] * 9]
    return make_tiny_gpt2(tmp_path_factory.mktemp("teacher"), train_bpe(texts, 700))


@pytest.fixture(scope="module")
def parts(teacher, few_words):
    """Model, tokenizer, its role tokens, pairs."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    reverser = Reverser(load_lexicon(str(few_words)), "both", "reverse", (), 0)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    pairs = list(make_pairs(TEXTS * 2, reverser, tokenizer, max_length=64))
    return model, tokenizer, role_tokens(reverser, tokenizer), pairs


def test_a_places_group_is_that_of_the_last_replaced_word(parts):
    _, tokenizer, tokens, pairs = parts
    group_V = group_of_tokens(tokens, len(tokenizer))
    one = {word: group_V[tokenizer(" " + word)["input_ids"]].tolist() for word in ("she", "he", "woman", "man")}
    assert one == {"she": [0], "he": [1], "woman": [0], "man": [1]}
    place_2T, group_2T = told_groups(pairs[1], group_V)  # A man came back, and she left. | A woman … he left.
    words = [tokenizer.decode(pairs[1].input_ids[: p + 1]).split()[-1] for p in place_2T[0]]
    assert words[0] == "man" and group_2T[0, 0] == 1 and group_2T[0, -1] == 0
    assert (group_2T[0] + group_2T[1] == 1).all()
    assert group_2T[0].tolist() == sorted(group_2T[0], reverse=True)  # man … she
    assert told_groups(pairs[2], group_V)[0].size == 0


def test_an_erased_teacher_has_states_of_one_mean_in_both_groups(parts, teacher):
    _, tokenizer, tokens, pairs = parts
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()

    def means():
        sides = [[], []]
        for pair in pairs:
            for ids, place, group in zip((pair.input_ids, pair.cf_input_ids), *told_groups(pair, group_V)):
                with torch.no_grad():
                    state = body_of(model)(input_ids=torch.tensor(ids)[None]).last_hidden_state[0, place]
                for side in (0, 1):
                    sides[side].append(state[torch.from_numpy(group == side)])
        return [torch.cat(side).mean(0) for side in sides]

    group_V = group_of_tokens(tokens, len(tokenizer))
    female, male = means()
    assert (female - male).norm() > 0.1
    fitted = erase_groups(model, pairs, tokens, most=10)
    told = [told_groups(pair, group_V)[0] for pair in pairs if pair.reversed]
    assert fitted == {"pairs": 4, "states": sum(place_2T.size for place_2T in told)}
    female, male = means()
    assert (female - male).norm() < 1e-3
    head_of(model, "teacher")  # its logits are those of the erased states


def test_texts_without_a_group_are_refused(parts):
    model, _, tokens, pairs = parts
    with pytest.raises(ValueError, match=r"teacher\.erase: no text that names a group"):
        erase_groups(model, [pairs[2]], tokens, most=10)


def settings_of(folder, corpus, teacher, lexicon, *more):
    return [
        *(f"teacher.model={teacher}", f"counterfactual.lexicon={lexicon}", f"data.source={corpus}"),
        *("train.max_steps=4", "train.batch_size=8", "train.micro_batch_size=8", "train.cpu_threads=1"),
        *("student.layers=all", "loss.lm_weight=0", "train.save_every=1", "train.log_every=1"),
        *("data.max_length=64", f"output_dir={folder}", *more),
    ]


def test_a_student_learns_from_the_erased_teacher_and_resumes(corpus, teacher, few_words, tmp_path, monkeypatch):
    from debias import task

    runs = {}
    for name in ("plain", "leace"):
        more = [f"teacher.erase={name.replace('plain', 'none')}"]
        runs[name] = settings_of(tmp_path / name, corpus, teacher, few_words, *more)
        assert train_distill.main(runs[name]) == 0
        fresh()
    losses = {n: json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[0])["kd"] for n in runs}
    assert losses["plain"] < 1e-5 < losses["leace"]  # the student begins as the teacher is, but for what was erased
    facts = json.loads((tmp_path / "leace" / "run.json").read_text())
    assert facts["erased"]["pairs"] > 3 and "erased" not in json.loads((tmp_path / "plain" / "run.json").read_text())

    calls, original = [], task.DistillTask.forward

    def dies(self, *given, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *given, **options)

    monkeypatch.setattr(task.DistillTask, "forward", dies)
    killed = settings_of(tmp_path / "killed", corpus, teacher, few_words, "teacher.erase=leace")
    assert train_distill.main(killed) != 0 and not (tmp_path / "killed" / "run.json").exists()
    fresh()
    assert train_distill.main(killed) == 0
    assert bitwise(tmp_path / "leace", tmp_path / "killed")


@pytest.mark.parametrize(
    "more", ["loss.kd_weight=0", "teacher.cache=auto", "loss.hidden_weight=1", "data.streaming=true"], ids=str
)
def test_what_erasing_does_not_go_with_is_refused(more, teacher, few_words, tmp_path, capsys):
    settings = settings_of(tmp_path / "run", "sample", teacher, few_words, "teacher.erase=leace", "loss.lm_weight=1")
    assert train_distill.main([*settings, more]) == 2
    assert "teacher.erase: " in capsys.readouterr().err


def test_groups_are_numbered_as_the_lexicon_has_them(parts):
    _, tokenizer, tokens, _ = parts
    assert np.bincount(group_of_tokens(tokens, len(tokenizer)) + 1)[1:].min() > 0
