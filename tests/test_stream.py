"""A corpus that is not prepared: the same batches for any number of ranks, exact positions, nothing on disk."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice

import datasets
import numpy as np
import pytest

import train_distill
from configs import schema
from configs.load import load
from counterfactuals.sample import generate
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import make_pairs
from counterfactuals.tokens.stream import PairStream
from tests.runs import bitwise
from tests.test_ranks import ROOT, _fresh_accelerator, close, fork, interrupted, settings  # noqa: F401

REVERSER = Reverser(load_lexicon("gender"))
SAMPLE = [row["text"] for row in islice(generate(200, seed=3), 200)]


class Texts(list):
    fingerprint, share = "texts", None


class Spy:
    """A reverser that notes what it is asked, and works out each text once for the whole module."""

    def __init__(self, seen: list[str]):
        self.seen = seen

    def many(self, texts):
        self.seen += texts
        return map(reversal, texts)


@cache
def reversal(text: str):
    return REVERSER(text)


@pytest.fixture
def stream(tiny_tokenizer):
    def stream(texts=SAMPLE, **changes) -> PairStream:
        options = {"max_length": 32, "buffer": 120, "batch_size": 8, "seed": 0, "augment": True} | changes
        made = PairStream(Texts(texts), REVERSER, tiny_tokenizer, **options)
        made._reverser = Spy([])
        return made

    return stream


def content(pairs: PairStream, chosen) -> list[tuple]:
    return [(pairs[i].input_ids.tobytes(), pairs[i].cf_input_ids.tobytes(), pairs[i].cue) for i in chosen]


def steps(pairs: PairStream, count: int, first: int = 0) -> list[list[tuple]]:
    return [content(pairs, pairs.batch(step)) for step in range(first, count)]


def test_steps_hold_the_pairs_of_the_source_each_once_a_pass_and_shuffled(stream, tiny_tokenizer):
    made = list(make_pairs(SAMPLE, REVERSER, tiny_tokenizer, max_length=32))
    known = {(pair.input_ids.tobytes(), pair.cf_input_ids.tobytes(), pair.cue): n for n, pair in enumerate(made)}
    assert len(known) > 0.9 * len(made) > 300
    s = stream()
    seen, sizes, buffers = [], [], []
    while s.position["texts"] < 129 and s.position["buffer"] < 3:  # within the first pass
        chosen = s.batch(len(sizes))
        seen += [known[pair] for pair in content(s, chosen)]
        sizes.append(int((1 + s.has_cf[chosen]).sum()))
        buffers.append(s.position["buffer"])
    assert all(abs(size - 8) <= 1 for size in sizes) and len(set(buffers)) >= 3
    assert len(set(seen)) >= 0.95 * len(seen)  # a few texts of the sample are alike
    first = [n for n, buffer in zip(seen, np.repeat(buffers, sizes)) if buffer == 0]
    assert seen != sorted(seen) and len(first) > 60
    again = [content(s, s.batch(step)) for step in range(len(sizes), len(sizes) + 100)]  # the source begins anew
    assert s.position["buffer"] > 3 and all(pair in known for batch in again for pair in batch)


def test_sequences_with_too_much_doubt_have_no_counterfactual(stream):
    every, none = stream(), stream(max_doubt=0.0)
    steps(every, 1), steps(none, 1)
    assert every.has_cf.any() and not any(none[i].reversed and none[i].doubt for i in range(len(none._pairs)))
    expected = [every[i].within(0.0).input_ids.tobytes() for i in range(len(every._pairs))]
    assert [none[i].input_ids.tobytes() for i in range(len(none._pairs))] == expected
    assert every.meta["fingerprint"] != none.meta["fingerprint"]


def test_the_same_source_and_seed_give_the_same_steps_and_another_seed_others(stream):
    assert steps(stream(), 40) == steps(stream(), 40)
    assert steps(stream(), 40) != steps(stream(seed=1), 40)


@pytest.mark.parametrize("by_tokens", [False, True])
def test_from_a_saved_position_the_same_steps_follow(stream, by_tokens):
    """Also after passes over the source; what was read before is not reversed again."""
    options = {"by_tokens": by_tokens, "buffer": 40, "max_length": 96}
    undisturbed = steps(stream(**options), 150)
    s = stream(**options)
    for stop in (1, 28, 29, 30, 31, 100, 149):
        for step in range(stop):
            s.batch(step)
        position = json.loads(json.dumps({"stream": s.position}))
        assert stop < 100 or position["stream"]["buffer"] > 2
        other, reversed_texts = stream(**options), []
        other._reverser = Spy(reversed_texts)
        other.seek(position)
        assert steps(other, 150, stop) == undisturbed[stop:]
        assert reversed_texts[0] == SAMPLE[position["stream"]["texts"] % 200]
        s.seek({})


def test_ranks_and_micro_batches_share_out_the_same_batch(stream):
    one, four = stream(batch_size=32), [stream(batch_size=32) for _ in range(4)]
    for step in range(40):
        parts = [s.micro_batches(step, accumulation=2, rank=rank, world=4) for rank, s in enumerate(four)]
        dealt = [pair for rank, s in enumerate(four) for part in parts[rank] for pair in content(s, part)]
        assert sorted(dealt) == sorted(content(one, one.batch(step)))
        count = one.predictions(one.batch(step), augment=True)
        rows = [one[i] for i in one.batch(step)]
        assert count == sum(len(p.input_ids) - 1 + (len(p.cf_input_ids) - 1) * p.reversed for p in rows)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_a_share_of_the_pairs_each_and_have_those_of_one(world, stream, tiny_tokenizer):
    """Ranks as threads. Also from a saved position, and over the end of the source."""
    barrier, given = threading.Barrier(world, timeout=60), [[] for _ in range(world)]

    def run(rank: int, position: dict) -> tuple[list, list[str], dict]:
        def gather(own: list) -> list:
            given[rank] = own
            barrier.wait()
            found = [made for own in given for made in own]
            barrier.wait()
            return found

        s, reversed_texts = stream(buffer=60, rank=rank, world=world, gather=gather), []
        s._reverser = Spy(reversed_texts)
        s.seek(position)
        return steps(s, 200, s.position["first_step"]), reversed_texts, dict(s.position)

    alone = stream(buffer=60)
    expected = steps(alone, 200)
    middle = stream(buffer=60)
    steps(middle, 40)
    for position in ({}, {"stream": middle.position}):
        with ThreadPoolExecutor(world) as pool:
            ranks = list(pool.map(run, range(world), [position] * world))
        read = sum(len(texts) for _, texts, _ in ranks)
        for found, texts, last in ranks:
            assert found == expected[-len(found) :] and last == alone.position
            assert len(texts) < 1.2 * read / world
    assert len(ranks[0][0]) == 200 - middle.position["first_step"] < 200
    assert alone.position["pairs"] > len(list(make_pairs(SAMPLE, REVERSER, tiny_tokenizer, max_length=32)))


def test_a_data_set_of_the_hub_gives_the_steps_of_its_texts(stream, tiny_tokenizer, monkeypatch):
    """Through the library's streaming mode; the Hub itself is not asked."""
    rows = datasets.Dataset.from_dict({"body": SAMPLE}).to_iterable_dataset()

    def load(name, subset, *, split, streaming):
        assert (name, split, streaming) == ("some/set", "train", True)
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = {"max_length": 32, "buffer": 120, "batch_size": 8, "seed": 0, "augment": True}
    s = PairStream(Corpus("some/set", text_field="body"), REVERSER, tiny_tokenizer, **options)
    assert steps(s, 150) == steps(stream(), 150) and s.position["pairs"] > 400
    again = PairStream(Corpus("some/set", text_field="body"), REVERSER, tiny_tokenizer, **options)
    again.seek({"stream": s.position})
    assert steps(again, 150, 149) == steps(stream(), 150)[149:]


def test_memory_holds_a_buffer_however_long_the_source(stream):
    class Endless(Texts):
        read = 0

        def __iter__(self):
            while True:
                Endless.read += 1
                yield SAMPLE[Endless.read % 200]

    s = stream()
    s._texts = Endless()
    s.seek({})
    for step in range(200):
        s.batch(step)
        assert 120 <= len(s._pairs) < 120 + 16 * 6
    assert Endless.read > 200


def test_sources_that_hold_nothing_and_steps_out_of_order_are_refused(stream):
    with pytest.raises(ValueError, match="no text in it"):
        stream([]).batch(0)
    s = stream()
    s.batch(100)
    with pytest.raises(ValueError, match="asked for in order"):
        s.batch(0)
    with pytest.raises(ValueError, match=r"data\.shuffle_buffer: \d+ pairs make no batch"):
        stream(buffer=10, batch_size=2000).batch(0)


def test_settings_that_a_stream_cannot_have_are_named():
    wrong = ["data.streaming=true", "data.pairs_dir=x", "tracking.artifacts=true"]
    with pytest.raises(schema.ConfigError) as error:
        load(None, [*wrong, "teacher.model=x", "data.shuffle_buffer=8"])
    for key in ("data.pairs_dir", "train.max_steps", "tracking.artifacts", "data.shuffle_buffer"):
        assert f"{key}:" in str(error.value)


def streaming(settings) -> list[str]:  # noqa: F811
    kept = [setting for setting in settings if not setting.startswith(("data.pairs_dir", "train.max_steps"))]
    return [*kept, "data.streaming=true", "data.shuffle_buffer=20", "train.max_steps=9"]


def test_its_plan_counts_no_disk_for_pairs(settings, tmp_path, capsys):  # noqa: F811
    for options, counted in ((settings, True), (streaming(settings), False)):
        assert train_distill.main([*options, f"output_dir={tmp_path}", "--dry_run"]) == 0
        (disk,) = (line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("disk"))
        assert ("pairs" in disk) == counted and "checkpoints" in disk


def test_a_run_writes_no_pairs_and_goes_on_bitwise_and_two_ranks_give_the_weights_of_one(settings, tmp_path):  # noqa: F811
    options, one, on = streaming(settings), tmp_path / "one", tmp_path / "on"
    assert train_distill.main([*options, f"output_dir={one}"]) == 0
    assert not [path for path in one.rglob("*") if "pairs" in path.name]
    saved = json.loads((one / "checkpoints" / "step-0000006" / "checkpoint.json").read_text(encoding="utf-8"))
    assert saved["stream"]["buffer"] >= 1 and saved["stream"]["texts"] > 0
    interrupted(one, on)
    assert train_distill.main([*options, f"output_dir={on}"]) == 0
    facts = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in (one, on)]
    assert bitwise(one, on) and facts[1]["steps_here"] == 3
    assert facts[0]["pairs"] == facts[1]["pairs"] > 64
    assert facts[0]["with_counterfactual"] == facts[1]["with_counterfactual"]
    fork(options, tmp_path / "two")
    close(one, tmp_path / "two")


@pytest.mark.slow
def test_killed_at_random_moments_a_streaming_run_ends_bitwise_as_undisturbed():
    command = [sys.executable, "tests/kill_many.py", "--kills", "2", "--ranks", "1", "--seed", "5"]
    command += ["train.max_steps=6", "train.save_every=1", "train.batch_size=16", "train.micro_batch_size=4"]
    command += ["data.streaming=true", "data.shuffle_buffer=32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
