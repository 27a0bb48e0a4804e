"""The benchmarks of a step run and end with the figures that are read from them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import script

ROOT = Path(__file__).resolve().parents[1]
SIZES = json.dumps({"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0})
STEP = {"era_over_bare", "plain_over_bare", "cached_over_live", "cache_bytes_per_token"}
FEDERATED = {"federated_min", "central_min", "federated_over_central", "MB_up", "MB_down"}
PRIVATE = {"private_over_plain", "memory_over_plain", "loop_over_private", "opacus_over_private"}
GPU = {"peak_tflops", "tokens_per_second", "plain_tokens_per_second", "share_of_peak", "memory_gb", "chunk_rows"}
GPU |= {"head_and_loss_ms", "dense_head_and_loss_ms", "liger_head_and_loss_ms"}
GPU |= {"era_over_dense_loop", "era_over_liger", "era_over_bare_time"}


@pytest.mark.parametrize(
    ("name", "options", "keys"),
    [
        ("step.py", ["--length", "16", "--repeats", "1", "--sizes", SIZES], STEP),
        pytest.param(
            "federated.py",
            ["--clients", "3", "--rounds", "2", "--per_round", "2", "--texts", "60"],
            FEDERATED,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "privacy.py",
            ["--pairs", "2", "--length", "16", "--repeats", "1", "--sizes", SIZES],
            PRIVATE,
            marks=pytest.mark.slow,
        ),
        ("gpu.py", ["--tiny", "--eager_only", "--pairs", "1", "--length", "32", "--steps", "1"], GPU),
    ],
)
def test_a_benchmark_ends_with_its_figures(name, options, keys, tmp_path):
    code, said = script(f"benchmarks/{name}", *options, output=tmp_path / "said")
    assert code == 0, said[-2000:]
    found = json.loads(said.splitlines()[-1])
    assert set(found) == keys and all(value is None or value > 0 for value in found.values())


@pytest.mark.slow
def test_what_a_cache_loses_falls_with_the_coordinates_it_keeps(tiny_gpt2, tmp_path):
    texts = tmp_path / "texts.jsonl"
    line = "She said that her brother had met the king, and he told his wife that she was right about number {}."
    texts.write_text("".join(json.dumps({"text": line.format(n)}) + "\n" for n in range(8)), encoding="utf-8")
    options = ["--teacher", str(tiny_gpt2), "--sketches", "2,8", "--row_bytes", "40"]
    options += ["--texts", str(texts), "--held_out", str(texts)]
    code, said = script("benchmarks/cache.py", *options, output=tmp_path / "said")
    assert code == 0, said[-2000:]
    rows = [row.split("|")[2:-1] for row in said.splitlines() if row[:3] in ("| 2", "| 8")]
    assert len(rows) == 2 and all(len(row) == 7 for row in rows)
    assert all(float(more) < float(fewer) for fewer, more in zip(*rows))
    found = json.loads(said.splitlines()[-1])
    assert found["bytes"] == 40 and found["kl_max"] == pytest.approx(float(rows[1][2]), rel=0.06)


def test_agreement_cases_are_told_by_one_gender_and_cut_from_articles_held_out(tmp_path):
    about = {
        "She": "{} She studied law and she wrote that her work was hers alone, which nobody had asked her to say.",
        "He": "{} He studied law and he wrote that his work was his alone, which nobody had asked him to say.",
    }
    names = [f"Person{n} was born in a town." for n in range(200)]
    texts = [about["She" if n % 3 else "He"].format(name) for n, name in enumerate(names, 1)]
    texts[79] = "He met her when she and he were young, and nobody knows of anything more to be said."
    texts[199] = "Nobody in the village knew his name, and she who might have known it would not say it to anyone."
    articles = tmp_path / "articles.jsonl"
    articles.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    code, said = script("benchmarks/paragraphs.py", str(articles), str(tmp_path / "out"), output=tmp_path / "said")
    assert code == 0, said[-2000:]
    rows = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (tmp_path / "out").iterdir()
    }
    held_out = {row["text"] for row in rows["heldout"]}
    assert held_out == {texts[n - 1] for n in (40, 80, 120, 160, 200)} and len(rows["train"]) == 195
    assert len(rows["pronouns"]) == 2  # one man only, so one woman; the mixed texts tell nothing
    for row in rows["pronouns"]:
        [text] = [text for text in held_out if text.startswith(row["prompt"] + " ")]
        following = text[len(row["prompt"]) :].split()[0]
        assert following in row["right"] and following not in row["wrong"]
        assert (" She " in row["prompt"]) == ("her" in row["right"])
    for kind, number in (("names", 150), ("sex_bound", 100)):
        rights = [word.lower() for row in rows[kind] for word in row["right"]]
        assert len(rights) == number and rights.count("she") == rights.count("he")


def test_the_pronoun_benchmark_prints_the_table_of_the_documentation(shared_data, tmp_path):
    code, said = script("benchmarks/pronouns.py", "--data_dir", str(shared_data), output=tmp_path / "said")
    assert code == 0, said[-2000:]
    *lines, last = said.splitlines()
    found = json.loads(last)
    assert set(found) == {"accuracy", "calibration_error", "microseconds"} and len(found["accuracy"]) == 9
    assert found["accuracy"]["EWT her"]["n"] == 236 and found["accuracy"]["WinoBias her"]["n"] == 885
    for rules in found["accuracy"].values():
        shares = [share for rule, pair in rules.items() if rule != "n" for share in pair]
        assert len(shares) == 8 and all(0 <= share <= 1 for share in shares)
    assert found["accuracy"]["EWT her"]["ours"][0] > found["accuracy"]["EWT her"]["next word"][0]
    documented = (ROOT / "docs" / "counterfactuals.md").read_text(encoding="utf-8")
    table = lines[: lines.index("")]
    assert len(table) == 2 + 9 and "\n".join(table) in documented
    error = lines[-1].removeprefix("mean distance of the two 0").split(";")[0]
    assert f"stated probability is off by {error} on average" in " ".join(documented.split())


def test_the_pronoun_benchmark_without_its_data_is_one_line(tmp_path):
    code, said = script("benchmarks/pronouns.py", "--data_dir", str(tmp_path / "none"), output=tmp_path / "said")
    assert code == 2 and "--data_dir" in said.splitlines()[-1] and "Traceback" not in said


@pytest.mark.slow
def test_the_benchmark_of_a_build_ends_with_its_figures(tiny_tokenizer, tmp_path, capsys, monkeypatch):
    """Its children are measured in this process here, but for one."""
    spec = importlib.util.spec_from_file_location("build_benchmark", ROOT / "benchmarks" / "counterfactuals.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    tokenizer, source = str(tmp_path / "tokenizer"), tmp_path / "source.txt"
    tiny_tokenizer.save_pretrained(tokenizer)
    line = "She said that her brother had written to his wife, and he told the woman that she was right.\n\n"
    source.write_text(line * 100, encoding="utf-8")
    child = bench.measure("tokenise", str(source), tokenizer, 1)
    assert set(child) == {"tokens", "seconds", "cpu", "start", "peak_mb"} and child["tokens"] > 1000
    here = bench.measured("tokenise", str(source), tokenizer, 1)
    assert here["tokens"] == child["tokens"] and here["seconds"] > 0

    monkeypatch.setattr(bench, "measure", bench.measured)
    bench.report(str(source), tokenizer, 0.4, [1], 1)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"pairs_over_tokenising", "reversal_mb_per_s", "vs_loop", "vs_regex_dict"} <= set(found)
    for key in ("pairs_over_tokenising", "reversal_mb_per_s", "vs_loop", "vs_regex_dict", "openwebtext_gb"):
        assert 0 < found[key] < 1e6, key
    assert 0 < found["aligned_share"] <= 1 == found["reversed_share"]
    assert set(found["build_ms_per_mb"]) == set(found["build_peak_mb"]) == {"1", "4", "16"}


@pytest.mark.slow
def test_a_run_on_a_corpus_larger_than_its_memory_takes_no_more_than_on_a_quarter_of_it():
    """The limit is the system's: what the process held after a small run and 100 MB more."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--megabytes", "160"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["corpus_4x"] > found["limit_4x"] and found["texts_held_4x"] == 0
    assert found["peak_4x"] < found["peak_1x"] + 20
