"""membership, exposure and inversion end to end: on an untrained model, on an over-fitted one, on a classifier."""

import json

import numpy as np
import pytest
import torch

import evenhand
from counterfactuals import sample
from counterfactuals.tokens.tokenizer import train_bpe
from eval.model import Scorer
from eval.run import evaluate
from eval.tasks import TASKS
from privacy import audit

PREFIX = "Box {number} opens with"


def tiny(tokenizer, kind="GPT2LMHeadModel", **more):
    import transformers

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"vocab_size": len(tokenizer), "n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 64}
    torch.manual_seed(0)
    return getattr(transformers, kind)(transformers.GPT2Config(**sizes, **ends, **drops, **more))


def overfit(model, ids, steps, labels=None):
    """Adam on all texts at once."""
    longest = max(map(len, ids))
    batch = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    target = batch.masked_fill(mask == 0, -100) if labels is None else torch.tensor(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch, attention_mask=mask, labels=target).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def texts():
    return [row["text"] for row in sample.generate(120, 0)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_bpe([*texts, *(f"{n} {n} {n} {n}" for n in range(10))] * 3, vocab_size=512)


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory):
    """Members with canaries, non-members of the same corpus, and the record."""
    folder = tmp_path_factory.mktemp("planted")
    record = audit.draw(number=16, prefix=PREFIX, length=3, repeats=2, labels=["no", "yes"], seed=3)
    (folder / "planted.json").write_text(record.to_json())
    (folder / "planted.json").chmod(0o600)
    for name, part in (("members", texts[:40]), ("nonmembers", texts[40:80])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return folder


@pytest.fixture(scope="module")
def models(texts, tokenizer, data):
    """{"untrained", "overfit"}: Scorers."""
    record = audit.Record.read(data / "planted.json")
    canaries = [canary.text for canary in record.canaries if canary.planted] * record.repeats
    ids = [[0, *tokenizer(text).input_ids, 0][:32] for text in [*texts[:40], *canaries]]
    trained = overfit(tiny(tokenizer), ids, 150)
    return {
        name: Scorer(model, tokenizer, device="cpu")
        for name, model in (("untrained", tiny(tokenizer)), ("overfit", trained))
    }


@pytest.fixture(scope="module")
def results(models, data, tmp_path_factory):
    """The figures of both models: {model: {task: metrics}}."""
    out = tmp_path_factory.mktemp("audit")
    tasks = {"membership": {"max_tokens": 32}, "exposure": {"ranked": 3}}
    found = evaluate(models, tasks, data_dir=data, output_dir=out, quiet=True)
    return {row["model"]: row["tasks"] for row in found["rows"]} | {"folder": out}


def test_an_untrained_model_tells_nothing(results):
    for name, found in results["untrained"]["membership"].items():
        if name.startswith(("auc/", "twin/")) and name != "auc/blind" and found["value"] != 0.5:
            slack = 0.02  # of the percentile interval of 40 against 40
            assert found["low"] - slack <= 0.5 <= found["high"] + slack, name
    assert results["untrained"]["exposure"]["epsilon_audited"]["value"] == 0
    assert results["untrained"]["exposure"]["greedy"]["value"] == 0


def test_an_overfitted_model_tells_everything(results):
    found = results["overfit"]["membership"]
    assert found["auc"]["value"] == found["auc/loss"]["value"] >= 0.9
    for attack in ("zlib", "min_k", "min_k_plus", "counterfactual"):
        assert found[f"auc/{attack}"]["value"] >= 0.8, attack
    assert found["twin/loss"]["value"] > 0.6  # what was never trained on leaks too
    known = results["overfit"]["exposure"]
    assert known["rank_1"]["value"] == 1 and known["exposure"]["value"] == pytest.approx(np.log2(1000))
    assert known["greedy"]["value"] == 1 and known["sampled"]["value"] > 0.9
    assert known["exposure/control"]["value"] < 8 and known["greedy/control"]["value"] == 0
    assert known["epsilon_audited"]["value"] > 0


def test_rates_that_few_texts_cannot_tell_are_undefined(results):
    for rate, needed in (("tpr_1%", "100"), ("tpr_0.1%", "1,000")):
        found = results["overfit"]["membership"][rate]
        assert found["value"] is None and needed in found["note"]


def test_the_page_shows_curve_epsilon_and_attacks(results):
    from eval.report.page import Study, write_page

    page = write_page([Study.load(results["folder"])], results["folder"] / "report.html").read_text()
    assert 'id="membership"' in page and 'id="exposure"' in page
    assert "auc/min k plus" in page


def test_moments_are_those_of_the_whole_distribution(models):
    """Against float64 over all tokens of the vocabulary."""
    scorer = models["overfit"]
    ids = scorer.encode(["The nurse said that she", "He went"], bos=True)
    for row, logp, moments in zip(ids, *scorer.token_moments(ids)):
        with torch.no_grad():
            all_logp = scorer.model.double()(torch.tensor([row])).logits[0, :-1].log_softmax(-1).numpy()
            scorer.model.float()
        p = np.exp(all_logp)
        np.testing.assert_allclose(logp, all_logp[np.arange(len(row) - 1), row[1:]], atol=1e-4)
        np.testing.assert_allclose(moments[0], (p * all_logp).sum(1), atol=1e-4)
        variance = (p * all_logp**2).sum(1) - (p * all_logp).sum(1) ** 2
        np.testing.assert_allclose(moments[1], np.sqrt(variance), atol=1e-4)


def test_reference_shadows_and_neighbours_are_used(models, data, texts, tmp_path):
    """Two shadow models that are the untrained one: RMIA and LiRA then rank as the difference from it does."""
    models["untrained"].model.save_pretrained(tmp_path / "u")
    models["untrained"].tokenizer.save_pretrained(tmp_path / "u")
    rows = [{"text": text, "neighbours": [text + " Yes.", text[:-5]]} for text in texts[:20]]
    for name, part in (("members", rows[:10]), ("nonmembers", rows[10:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "z.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[100:]))
    folder = str(tmp_path / "u")
    options = {"reference": folder, "shadows": f"{folder},{folder}", "population": "z.jsonl", "max_tokens": 32}
    found = evaluate(
        {"m": models["overfit"]}, {"membership": options}, data_dir=tmp_path, output_dir=tmp_path / "out", quiet=True
    )["rows"][0]["tasks"]["membership"]
    for attack in ("reference", "lira", "rmia"):
        assert found[f"auc/{attack}"]["n"] == 20
    assert found["auc/neighbour"]["n"] == 20


def test_a_classifier_is_attacked_by_its_labels(texts, tokenizer, data, tmp_path):
    """Labels by a die can only be learnt by heart. By a coin, half of the other texts would be guessed: AUC 0.75."""
    die = np.random.default_rng(0).integers(10, size=60).tolist()
    kinds = {"id2label": dict(enumerate("abcdefghij")), "label2id": {name: n for n, name in enumerate("abcdefghij")}}
    model = tiny(tokenizer, "GPT2ForSequenceClassification", **kinds)
    ids = [tokenizer(text).input_ids[:64] for text in texts[:40]]  # as far as the classifier reads
    overfit(model, ids, 40, die[:40]).save_pretrained(tmp_path / "c")
    tokenizer.save_pretrained(tmp_path / "c")
    for name, begin, end in (("members", 0, 40), ("nonmembers", 40, 60)):
        rows = [{"text": texts[n], "label": kinds["id2label"][die[n]]} for n in range(begin, end)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = Scorer(tiny(tokenizer), tokenizer, device="cpu")
    task = TASKS["membership"]
    options = {**task.options, "classifier": str(tmp_path / "c")}
    rows = task.rows(tmp_path, options, None, 0)
    found = task.aggregate(task.score(scorer, rows, options, 0), options, 0)
    assert found["auc/loss"]["value"] >= 0.9 and "auc/min_k" not in found
    rows[0]["label"] = "maybe"
    with pytest.raises(ValueError, match="label 'maybe': the classifier knows a, b"):
        task.score(scorer, rows, options, 0)


def test_what_is_no_random_split_is_refused(data, texts, tmp_path):
    load, options = TASKS["membership"].rows, TASKS["membership"].options
    write = lambda name, part: (tmp_path / name).write_text("".join(json.dumps({"text": t}) + "\n" for t in part))  # noqa: E731
    write("members.jsonl", texts[:60])
    write("nonmembers.jsonl", [f"In 2024, {text}" for text in texts[60:]])
    with pytest.raises(ValueError, match="words alone, without the model, tell them apart"):
        load(tmp_path, options, None, 0)
    rows = load(tmp_path, {**options, "any_split": True}, None, 0)
    assert "tell them apart" in rows[0]["warning"]
    write("nonmembers.jsonl", [*texts[60:], texts[0]])
    with pytest.raises(ValueError, match="1 texts stand on both sides"):
        load(tmp_path, options, None, 0)


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("membership", {"attack": "los"}, "membership.attack 'los'"),
        ("membership", {"reference": "/no/model"}, "no such folder"),
        ("membership", {"members": "gone.jsonl"}, "gone.jsonl is missing"),
        ("exposure", {"delta": 1.0}, "exposure.delta 1.0: must be below 1"),
        ("exposure", {"file": "gone.json"}, "gone.json is missing"),
        ("exposure", {"file": "members.jsonl"}, "chmod 600"),
        ("inversion", {"classifier": "/no/model"}, "no such folder"),
        ("inversion", {"restarts": 0}, "inversion.restarts 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(data, task, given, message):
    with pytest.raises(ValueError, match=message):
        TASKS[task].rows(data, {**TASKS[task].options, **given}, None, 0)


# ---------------------------------------------------------------- the command


def test_planting_writes_a_corpus_a_split_and_a_private_record(tmp_path, texts, capsys):
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "planted"
    words = ["plant", "--source", str(source), "--output_dir", str(out), "--canaries", "10"]
    words += ["--holdout", "20", "--seed", "4"]
    assert evenhand.main(["privacy", *words]) == 0
    record = audit.Record.read(out / "planted.json")
    assert (out / "planted.json").stat().st_mode & 0o777 == 0o600
    read = lambda name: [json.loads(line)["text"] for line in (out / name).read_text().splitlines()]  # noqa: E731
    corpus, members, aside = read("corpus.jsonl"), read("members.jsonl"), read("nonmembers.jsonl")
    assert len(aside) == 20 and not set(aside) & set(corpus) and set(members) <= set(corpus)
    assert sorted([*corpus, *aside]) == sorted([*texts, *(c.text for c in record.canaries if c.planted)])
    assert evenhand.main(["privacy", *words]) == 2 and "not empty" in capsys.readouterr().err


def test_audit_writes_results_and_a_page(models, data, tmp_path, capsys):
    run = tmp_path / "run"
    models["overfit"].model.save_pretrained(run / "model")
    models["overfit"].tokenizer.save_pretrained(run / "model")
    (run / "run.json").write_text(json.dumps({"privacy": {"epsilon": 0.05, "delta": 1e-5}}))
    words = ["audit", "--model", str(run / "model"), "--planted", str(data), "--output_dir", str(tmp_path / "out")]
    words += ["--set", "inversion.attacked=1", "--set", "inversion.restarts=2", "--set", "membership.max_tokens=32"]
    assert evenhand.main(["privacy", *words]) == 0
    tasks = json.loads((tmp_path / "out" / "results.json").read_text())["rows"][0]["tasks"]
    assert tasks["exposure"]["epsilon_claimed"]["value"] == 0.05
    assert "refuted" in tasks["exposure"]["epsilon_claimed"]["note"]
    assert tasks["inversion"]["beam"]["value"] == 1
    assert (tmp_path / "out" / "report.html").is_file()
    capsys.readouterr()
    assert evenhand.main(["privacy", "audit", "--model", "m", "--planted", str(tmp_path)]) == 2
    assert "evenhand privacy plant writes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "gone.jsonl"], "gone.jsonl"),
        (["--holdout", "9"], "--holdout 9: must be from 0 to half of the 4 texts"),
        (["--prefix", "Box"], "need a prefix each"),
        (["--alphabet", "7"], "two or more different symbols"),
        (["--label_field", "kind"], "kind"),
        (["--max_texts", "0"], "--max_texts 0"),
    ],
)
def test_a_mistake_in_planting_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text('{"text": "a b"}\n{"text": "c d"}\n{"text": "e f"}\n{"text": "g"}\n')
    assert evenhand.main(["privacy", "plant", "--source", "t.jsonl", "--output_dir", "out", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
