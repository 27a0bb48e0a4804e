import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens import pairs as pairs_module
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import PairSet, build_pairs, build_part, make_pairs
from counterfactuals.tokens.shards import fingerprint_of
from tests.conftest import TINY_TEXTS

REVERSER = Reverser(load_lexicon("gender"))
TEXTS = [f"{text} {n} {other}" for n, text in enumerate(TINY_TEXTS * 10) for other in TINY_TEXTS]


DOUBTED = [  # the last two with reasons for doubt
    "The nurse said that she would finish her shift, and then she told the men.",
    "Nobody saw the bridge and the river.",
    "The king was pregnant, and his wife saw her.",
    "Russell lost his way to Victoria, where he gave birth to a girl.",
]


@dataclass
class Listed:
    texts: list
    fingerprint: str = "x"
    share: float | None = None

    def __iter__(self):
        for n, text in enumerate(self.texts, 1):
            self.share = n / len(self.texts)
            yield text


@pytest.fixture
def build(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "SHARD_CHARACTERS", 7_000)

    def build(
        texts=TEXTS, directory=tmp_path, *, reverser=REVERSER, tokenizer=tiny_tokenizer, max_length=48, **options
    ):
        texts = Listed(texts) if isinstance(texts, list) else texts
        return build_pairs(texts, reverser, tokenizer, directory, max_length=max_length, **options)

    return build


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("input_ids", "cf_input_ids", "cf_index", "cue", "doubt")
    )


def test_a_pair_set_holds_what_the_stream_gives(build, tiny_tokenizer):
    made = list(make_pairs(TEXTS, REVERSER, tiny_tokenizer, max_length=48))
    stored = build()
    assert stored.meta["shards"] > 5 and len(stored) == len(made)
    assert all(same(stored[i], made[i]) for i in range(len(made)))
    assert stored[0].input_ids.dtype == stored[0].cf_index.dtype == np.int32
    assert stored.has_cf.tolist() == [pair.reversed for pair in made]
    assert stored.lengths.tolist() == [len(pair.input_ids) for pair in made]
    with pytest.raises(IndexError):
        stored[len(stored)]


def test_a_single_text_is_not_taken_for_its_letters(tiny_tokenizer):
    with pytest.raises(TypeError, match="several texts"):
        next(make_pairs(TEXTS[0], REVERSER, tiny_tokenizer, max_length=48))


def test_sequences_with_too_much_doubt_lose_their_counterfactual(build, tiny_tokenizer):
    """Without building again; as in the stream, and for the lengths from which batches are planned."""
    texts = [f"{text}\n{other}" for n, text in enumerate(DOUBTED) for other in DOUBTED]
    every = build(texts)
    doubts = sorted({pair.doubt for pair in every if pair.reversed})
    for most in (0.0, doubts[0], doubts[-2], 1.0):
        some = build(texts, max_doubt=most)
        assert some.folder == every.folder and len(some) == len(every)
        for i in range(len(some)):
            assert same(some[i], every[i].within(most))
        assert some.has_cf.tolist() == [pair.reversed for pair in some]
        assert some.cf_lengths.tolist() == [len(pair.cf_input_ids) * pair.reversed for pair in some]
        assert some.size()["with_counterfactual"] == np.mean([p.reversed and p.doubt <= most for p in every])
        assert some.meta["fingerprint"] != every.meta["fingerprint"]
    assert (
        build(texts, max_doubt=doubts[0]).has_cf.sum() < build(texts, max_doubt=1.0).has_cf.sum() == every.has_cf.sum()
    )


def test_any_order_of_reading_gives_the_same_pairs_and_few_shards_are_mapped(build, monkeypatch):
    monkeypatch.setattr(PairSet, "MAPPED", 3)
    stored = build()
    shards, files_of = stored.meta["shards"], f"{stored.folder}/"
    made = [stored[i] for i in range(len(stored))]
    for i in np.random.default_rng(0).permutation(len(stored))[:600]:
        assert same(stored[i], made[i])
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if files_of in line}
    assert shards > 5 and 1 <= len(mapped) <= 3


def test_a_shard_that_is_gone_is_one_line(build):
    stored = build()
    (stored.folder / "00001.safetensors").unlink()
    with pytest.raises(ValueError, match="shard 1 cannot be read any more"):
        list(stored)


def test_few_bytes_a_pair_stay_in_memory(build, monkeypatch):
    monkeypatch.setattr(pairs_module, "SHARD_CHARACTERS", 200_000)
    sizes = []
    for count in (2_000, 10_000):
        folder = build(Listed(["He ran."] * count, f"{count}"), max_length=32).folder
        tracemalloc.start()
        stored = PairSet(folder)
        stored[count - 1], stored[0]
        del stored.meta  # of shards, not of pairs
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert 5 <= (sizes[1] - sizes[0]) / 8_000 < 6.5


def test_the_number_of_workers_changes_no_byte(build, tmp_path):
    one, two = build(directory=tmp_path / "1"), build(directory=tmp_path / "2", workers=2)
    assert files(one.folder) == files(two.folder)


def test_counts(build):
    counts = build().meta["counts"]
    assert counts["texts"] == len(TEXTS) and counts["characters"] == sum(map(len, TEXTS))
    assert counts["reversed_texts"] == sum(bool(REVERSER(text).spans) for text in TEXTS)
    assert sum(counts["spans"].values()) == sum(len(REVERSER(text).spans) for text in TEXTS)
    assert 0.9 < counts["aligned_share"] <= 1 and 0 < counts["reversed_share"] <= 1


def test_nothing_is_built_twice(build):
    first = build()
    before = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    assert len(build(Listed(["read again"]))) == len(first)
    assert len(build(directory=first.folder)) == len(first)
    assert before == {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}


def test_a_killed_build_goes_on_with_the_shards_it_has(build, tmp_path, monkeypatch):
    class Dies(Listed):
        def __iter__(self):
            yield from self.texts[:230]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(Dies(TEXTS), tmp_path / "a")
    (partial,) = (tmp_path / "a").iterdir()
    assert partial.suffix == ".partial" and not (partial / "meta.json").exists()
    kept = files(partial)
    assert len(kept) > 2
    (partial / "00001.safetensors").write_bytes(kept["00001.safetensors"][:100])  # torn: to be built again
    made = []
    work = pairs_module._Work.__call__
    monkeypatch.setattr(
        pairs_module._Work, "__call__", lambda self, number, texts: made.append(number) or work(self, number, texts)
    )
    seen = []
    stored = build(TEXTS, tmp_path / "a", progress=seen.append)
    assert made == [1, *range(len(kept), stored.meta["shards"])]
    assert [p.texts for p in seen] == sorted(p.texts for p in seen) and seen[-1].texts == len(TEXTS)
    assert seen[0].characters_per_second == 0 and seen[-1].characters_per_second > 0 and seen[-1].share == 1.0
    assert files(stored.folder) == files(build(directory=tmp_path / "b").folder)


def test_shards_of_another_corpus_are_not_taken_over(build, tmp_path):
    whole = build()
    partial = whole.folder.with_name(whole.folder.name + ".partial")
    whole.folder.rename(partial)
    (partial / "meta.json").unlink()
    changed = [text.upper() + "!" for text in TEXTS]  # as if the source had changed under the same fingerprint
    stored = build(changed)
    assert stored.meta["counts"]["characters"] == sum(map(len, changed))


def test_a_full_disk_is_one_line_and_leaves_no_half_shard(build, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if "00002" in path.name:
            write(path, content[:50])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match=r"00002\.safetensors: cannot be written \(No space left on device\)"):
        build()
    (partial,) = tmp_path.iterdir()
    assert sorted(files(partial)) == ["00000.safetensors", "00001.safetensors"]
    monkeypatch.undo()


def test_a_dead_worker_is_one_line(build, tmp_path):
    class Kills(Listed):
        def __iter__(self):

            for n, text in enumerate(self.texts):
                if n == 300:
                    for child in multiprocessing.active_children():
                        os.kill(child.pid, signal.SIGKILL)
                yield text

    with pytest.raises(ValueError, match=r"a worker process died .* run again to go on"):
        build(Kills(TEXTS * 4), workers=2)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]


SCRIPT = """
from tests.test_pairs import *
from counterfactuals.tokens.tokenizer import train_bpe

if __name__ == "__main__":
    pairs_module.SHARD_CHARACTERS = 20_000
    options = {"max_length": 48, "workers": 2, "progress": lambda p: print(p, flush=True)}
    build_pairs(Listed(TEXTS * 120), REVERSER, train_bpe(TINY_TEXTS, 400), sys.argv[1], **options)
"""


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_and_the_build_goes_on(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    root = Path(__file__).resolve().parents[1]
    options = {"env": os.environ | {"PYTHONPATH": str(root)}, "stdout": subprocess.PIPE, "start_new_session": True}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "sets")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    (partial,) = (tmp_path / "sets").iterdir()
    kept = {file.name: file.stat().st_mtime_ns for file in partial.iterdir()}
    assert kept and all(name.endswith(".safetensors") and not name.startswith(".") for name in kept)
    time.sleep(0.1)
    assert subprocess.run(command, check=False, timeout=120, **options).returncode == 0
    (folder,) = (tmp_path / "sets").iterdir()
    assert kept.items() <= {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}.items()


def test_ctrl_c_gives_up_the_shards_under_way(build, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "SHARD_CHARACTERS", 4_000_000)  # seconds of work each
    parts = pairs_module.fingerprint_parts("x", REVERSER, tiny_tokenizer, 48)
    folder = tmp_path / f"pairs-{fingerprint_of(parts)[:16]}.partial"
    folder.mkdir()

    class Interrupted(Listed):
        def __iter__(self):
            yield from self.texts  # a shard for each worker
            workers.extend(multiprocessing.active_children())
            (folder / f".00000.safetensors.{workers[0].pid}").write_text("half")
            workers.append(time.perf_counter())
            raise KeyboardInterrupt

    workers: list = []
    texts = ["She told her husband that he could keep his mother\u2019s book. " * 4000] * 34
    with pytest.raises(KeyboardInterrupt):
        build(Interrupted(texts), workers=2)
    assert len(workers) == 3 and time.perf_counter() - workers[-1] < 2
    assert not multiprocessing.active_children() and not list(folder.iterdir())


def test_long_texts_are_cut_at_a_line_or_a_word_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(pairs_module, "LONGEST", 10)
    for text, parts in [
        ("short", ["short"]),
        ("one\ntwo\nthree four", ["one\ntwo\n", "three four"]),
        ("one two three four", ["one two", " three", " four"]),
        ("a" * 25, ["a" * 10, "a" * 10, "a" * 5]),
        (" " + "a" * 12, [" " + "a" * 9, "aaa"]),
        ("\n" + "a" * 12, ["\n", "a" * 10, "aa"]),
        ("a\n\nb\nc and so on", ["a\n\n", "b\n", "c and so", " on"]),
    ]:
        assert list(pairs_module._parts([text])) == parts
    batches = list(pairs_module._batches(["x" * 15] * 5))
    assert [len(batch) for batch in batches] == [3, 2]


def test_a_pair_set_of_something_else_is_refused_by_name(build):
    folder = build(TEXTS[:20]).folder
    for change, what in [
        ({"texts": Listed(TEXTS[:20], fingerprint="y")}, "another corpus;"),
        ({"reverser": replace(REVERSER, policy="keep_names")}, "another lexicon, names or policy;"),
        ({"max_length": 32}, "another max_length;"),
        ({"texts": Listed(TEXTS[:20], fingerprint="y"), "max_length": 32}, "another corpus, another max_length;"),
    ]:
        with pytest.raises(ValueError, match=f"made with {what} name another folder"):
            build(**{"texts": TEXTS[:20], "directory": folder} | change)


def test_damaged_pair_sets_are_refused(build):
    folder = build(TEXTS[:20]).folder
    shard = folder / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a complete pair set"):
        PairSet(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ValueError, match="not a complete pair set"):
        PairSet(folder)


def test_without_a_begin_and_an_end_token_short_texts_are_left_out(build, tiny_tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    assert bare.bos_token_id is None and bare.eos_token_id is None
    pairs = list(make_pairs(["A", "She left him."], REVERSER, bare, max_length=32))
    assert len(pairs) == 1 and pairs[0].reversed
    with pytest.raises(ValueError, match="no text of two tokens or more"):
        build(["A"], tokenizer=bare)
    stored = [build(["A", "She left him."], tokenizer=tokenizer) for tokenizer in (bare, tiny_tokenizer)]
    assert len({s.folder for s in stored}) == 2  # an end token makes another pair set


def test_large_vocabularies_and_lengths_are_stored_whole(tiny_tokenizer, tmp_path):
    big = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
    big.add_tokens([f"<extra {n}>" for n in range(66_000)])
    texts = ["She said <extra 65999> to him. " * 5_000]
    stored = build_pairs(Listed(texts), REVERSER, big, tmp_path, max_length=100_000)
    made = list(make_pairs(texts, REVERSER, big, max_length=100_000))
    assert made[0].input_ids.max() > 1 << 16 and len(made[0].input_ids) > 1 << 15
    assert same(stored[0], made[0])


def test_a_corpus_says_how_far_it_is(tmp_path):
    import gzip
    import json

    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": f"{n} {os.urandom(40).hex()}"}) + "\n" for n in range(3000))
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    corpus = Corpus(str(tmp_path))
    shares = [corpus.share for _ in corpus]
    assert shares == sorted(shares) and 0 < shares[0] < 0.2 and 0.4 < shares[1500] < 0.8 and shares[-1] == 1.0
    assert corpus.fingerprint == Corpus(str(tmp_path)).fingerprint != Corpus(str(tmp_path), max_texts=2).fingerprint
    short = Corpus(str(tmp_path), max_texts=10)
    assert [round(short.share, 1) for _ in short][4] == 0.5 and short.share == 1.0


def test_parts_of_several_machines_join_to_the_bytes_of_one(build, tiny_tokenizer, tmp_path):
    """Each machine in a folder of its own; the shards of all are then copied into one, but for one that was lost."""
    whole = build(directory=tmp_path / "one")
    num_shards = whole.meta["shards"]
    assert num_shards > 5
    joined = tmp_path / "joined" / f"{whole.folder.name}.partial"
    joined.mkdir(parents=True)
    numbers = []
    for number in range(3):
        own = tmp_path / f"machine{number}"
        made_of = (Listed(TEXTS), REVERSER, tiny_tokenizer, own)
        numbers.append(build_part(*made_of, max_length=48, part=(number, 3)))
        for file in (own / joined.name).iterdir():
            file.rename(joined / file.name)
    assert sum(numbers) == num_shards and max(numbers) - min(numbers) <= 1
    assert not (joined / "meta.json").exists()
    (joined / "00002.safetensors").unlink()
    assert files(build(directory=tmp_path / "joined").folder) == files(whole.folder)
    assert build_part(Listed(TEXTS), REVERSER, tiny_tokenizer, tmp_path / "one", max_length=48, part=(0, 3)) == 0
    for part in ((3, 3), (-1, 3)):
        with pytest.raises(ValueError, match="parts of n are numbered"):
            build_part(Listed(TEXTS), REVERSER, tiny_tokenizer, tmp_path, max_length=48, part=part)
