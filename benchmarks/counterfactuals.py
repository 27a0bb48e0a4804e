"""Time and memory of building counterfactual pairs, against tokenising alone and against simpler swaps, in one run.

    python benchmarks/counterfactuals.py [--source FILE --tokenizer DIR --megabytes 32 --workers 1 2 --repeats 3]

The text is the first `megabytes` of the source, in a file of its own. `build` reads, reverses, tokenises, aligns and
writes; `tokenise` reads and tokenises the same file with the same tokenizer (`encode_batch`, the ids as arrays) on as
many processes, started in the same way (spawn). Every measurement is a process of its own, the kinds take turns, and
the median counts. The time of starting processes and loading, measured on a corpus of one line, is taken off on both
sides and printed. Seconds of CPU tell more where other jobs share the cores; `cores_worth`, how many times faster two
processes of plain Python are than one after the other, tells what can be had of two. Peak memory: the resident set of
the parent and, as many times as there are, of the largest worker.
The last line is JSON; ratios below 1 mean that ours is faster, `vs_…` are our reversal's MB/s over theirs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes are what runs in parallel, on both sides

import numpy as np

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens import pairs
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.tokenizer import load_tokenizer

OPENWEBTEXT = 40e9  # bytes
POLICY = "skip"  # as the command `build` does by default


def build(source: str, tokenizer: str, workers: int, folder: Path) -> dict[str, Any]:
    made = pairs.build_pairs(
        Corpus(source),
        Reverser(load_lexicon("gender"), policy=POLICY),
        load_tokenizer(tokenizer),
        folder,
        max_length=1024,
        workers=workers,
    )
    disk = sum(file.stat().st_size for file in made.folder.iterdir())
    return {"disk": disk, **{key: made.meta["counts"][key] for key in ("pairs", "reversed_share", "aligned_share")}}


def tokenise(source: str, tokenizer: str, workers: int, folder: Path) -> dict[str, Any]:
    backend = load_tokenizer(tokenizer).backend_tokenizer
    texts = iter(Corpus(source))
    batches = iter(lambda: list(itertools.islice(texts, pairs.BATCH)), [])
    if workers == 1:
        return {"tokens": sum(_ids(backend, batch) for batch in batches)}
    with multiprocessing.get_context("spawn").Pool(workers, _set_backend, (backend.to_str(),)) as pool:
        return {"tokens": sum(pool.imap(_worker_ids, batches, chunksize=4))}


def _ids(backend: Any, texts: list[str]) -> int:
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return sum(len(ids) for ids in [np.array(encoding.ids, dtype=np.int32) for encoding in encodings])


def _set_backend(content: str) -> None:
    from tokenizers import Tokenizer

    global _backend
    _backend = Tokenizer.from_str(content)


def _worker_ids(texts: list[str]) -> int:
    return _ids(_backend, texts)


KINDS: dict[str, Callable[[str, str, int, Path], dict[str, Any]]] = {"build": build, "tokenise": tokenise}


def measure(kind: str, source: str, tokenizer: str, workers: int) -> dict[str, Any]:
    """Run one kind in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, source, tokenizer, str(workers)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def measured(kind: str, source: str, tokenizer: str, workers: int) -> dict[str, Any]:
    """The child: what is loaded once is loaded before the clock starts."""
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder, "warm.txt")
        warm.write_text("She told him.\n", encoding="utf-8")
        KINDS[kind](str(warm), tokenizer, 1, Path(folder, "warm"))
        clocks = [_clocks()]
        KINDS[kind](str(warm), tokenizer, workers, Path(folder, "idle"))
        clocks.append(_clocks())
        facts = KINDS[kind](source, tokenizer, workers, Path(folder, "out"))
        clocks.append(_clocks())
        (start, start_cpu), (seconds, cpu) = np.diff(clocks, axis=0)
    own, workers_peak = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = own + (workers_peak * workers if workers > 1 else 0)
    facts |= {"seconds": float(seconds - start), "cpu": float(cpu - start_cpu), "start": float(start)}
    return facts | {"peak_mb": peak / 1024}


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and of CPU with that of workers that have ended."""
    return time.perf_counter(), sum(os.times()[:4])


def _cpu_seconds(function: Callable[[], Any]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def cores_worth(processes: int) -> float:
    """How many times faster that many processes of plain Python are than one after the other."""
    loop = [sys.executable, "-c", "for n in range(10_000_000): n * n"]
    began = time.perf_counter()
    subprocess.run(loop, check=True)
    alone = time.perf_counter() - began
    began = time.perf_counter()
    for process in [subprocess.Popen(loop) for _ in range(processes)]:
        process.wait()
    return processes * alone / (time.perf_counter() - began)


def by_words(table: dict[str, str]) -> Callable[[str], str]:
    """As public counterfactual augmentation does: split at blanks, look each word up, join."""

    def swap(text: str) -> str:
        words = []
        for word in text.split(" "):
            core = word.strip('.,;:!?"()')
            new = table.get(core.lower())
            if new is not None:
                new = new.capitalize() if core[0].isupper() else new
                word = word.replace(core, new)
            words.append(word)
        return " ".join(words)

    return swap


def by_regex(table: dict[str, str]) -> Callable[[str], str]:
    """Every token of letters through a dictionary."""
    token = re.compile(r"\w+")

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        new = table.get(word.lower())
        if new is None:
            return word
        return new.capitalize() if word[0].isupper() else new

    return lambda text: token.sub(swap, text)


def reversal_speeds(source: str, megabytes: float, repeats: int) -> dict[str, float]:
    """MB of UTF-8 per second of CPU of each way to reverse, one process; they take turns."""
    texts = list(first(Corpus(source), megabytes))
    size = sum(len(text.encode()) for text in texts) / 1e6
    lexicon = load_lexicon("gender")
    table = {word: rule.targets[0] for word, rule in lexicon.rules.items() if rule.targets}
    reverser, all_reversed = Reverser(lexicon, policy=POLICY), Reverser(lexicon)
    ways: dict[str, Callable[[list[str]], Any]] = {
        "reversal": lambda texts: deque(reverser.many(texts), maxlen=0),  # as a build does
        "all_reversed": lambda texts: deque(all_reversed.many(texts), maxlen=0),  # doubtful passages too
        "loop": lambda texts: deque(map(by_words(table), texts), maxlen=0),
        "regex_dict": lambda texts: deque(map(by_regex(table), texts), maxlen=0),
    }
    for way in ways.values():
        way(texts[:1])
    gc.collect()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(_cpu_seconds(partial(way, texts)))
    return {name: size / statistics.median(found) for name, found in times.items()}


def first(texts: Corpus, megabytes: float) -> Iterator[str]:
    """Texts up to that size in UTF-8; the corpus begins again where it is shorter."""
    size = 0
    for text in itertools.chain.from_iterable(itertools.repeat(texts)):
        yield text
        size += len(text.encode())
        if size >= megabytes * 1e6:
            return


def write(path: Path, texts: Iterator[str]) -> int:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return path.stat().st_size


def main() -> None:
    data = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default=str(data), help="where the two below are by default (../shared/data)")
    parser.add_argument("--source", help="corpus (default: wikipedia_articles.jsonl.gz of data_dir)")
    parser.add_argument("--tokenizer", help="folder or tokenizer.json (default: gpt2_tokenizer of data_dir)")
    parser.add_argument("--megabytes", type=float, default=32, help="size of the largest corpus (default: 32)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes to compare at (default: 1 2)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind (default: 3)")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, source, tokenizer, workers = arguments.measure
        print(json.dumps(measured(kind, source, tokenizer, int(workers))))
        return
    source = arguments.source or str(Path(arguments.data_dir, "wikipedia_articles.jsonl.gz"))
    tokenizer = arguments.tokenizer or str(Path(arguments.data_dir, "gpt2_tokenizer", "tokenizer.json"))
    report(source, tokenizer, arguments.megabytes, arguments.workers, arguments.repeats)


def report(source: str, tokenizer: str, megabytes: float, workers: list[int], repeats: int) -> None:
    facts: dict[str, Any] = {"cores": os.cpu_count(), "megabytes": megabytes, "repeats": repeats}
    facts["cores_worth"] = {number: cores_worth(number) for number in workers if number > 1}
    folder = Path(tempfile.mkdtemp())
    try:
        files, sizes = {}, {}
        for times in (1, 4, 16):
            files[times] = folder / f"{times}.jsonl"
            sizes[times] = write(files[times], first(Corpus(source), megabytes * times / 16)) / 1e6

        print(f"build against tokenise, {sizes[16]:.0f} MB, medians of {repeats}", flush=True)
        whole: dict[int, dict[str, Any]] = {}
        for number in workers:
            runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
            for kind in list(KINDS) * repeats:
                runs[kind].append(measure(kind, str(files[16]), tokenizer, number))
            middle, cpu, start = (
                {kind: statistics.median(run[key] for run in found) for kind, found in runs.items()}
                for key in ("seconds", "cpu", "start")
            )
            whole[number] = runs["build"][0] | {"seconds": middle["build"]}
            whole[number]["ratio"] = middle["build"] / middle["tokenise"]
            whole[number]["cpu_ratio"] = cpu["build"] / cpu["tokenise"]
            print(
                f"  {number} workers: build {middle['build']:6.1f} s, tokenise {middle['tokenise']:6.1f} s, "
                f"ratio {whole[number]['ratio']:.2f}; CPU {cpu['build']:.1f} s, {cpu['tokenise']:.1f} s, "
                f"{whole[number]['cpu_ratio']:.2f}; peak {whole[number]['peak_mb']:,.0f} MB; "
                f"started in {start['build']:.1f} s, {start['tokenise']:.1f} s",
                flush=True,
            )

        print("build by size, 1 worker", flush=True)
        linear = {}
        for times in (1, 4, 16):
            found = [measure("build", str(files[times]), tokenizer, 1) for _ in range(repeats)]
            seconds = statistics.median(run["seconds"] for run in found)
            linear[times] = {"ms_per_mb": 1000 * seconds / sizes[times], "peak_mb": found[0]["peak_mb"]}
            print(
                f"  {times:2}×, {sizes[times]:6.1f} MB: {linear[times]['ms_per_mb']:6.1f} ms/MB, "
                f"peak {linear[times]['peak_mb']:,.0f} MB",
                flush=True,
            )

        speeds = reversal_speeds(source, min(megabytes, 8), repeats)
        print("reversal: " + ", ".join(f"{name} {speed:.1f} MB/s" for name, speed in speeds.items()), flush=True)

        print("OpenWebText (40 GB), by the rate above", flush=True)
        disk = OPENWEBTEXT / 1e9 * whole[workers[0]]["disk"] / (sizes[16] * 1e6)
        for number in workers:
            hours = OPENWEBTEXT / 1e6 / sizes[16] * whole[number]["seconds"] / 3600
            whole[number]["openwebtext_hours"] = hours
            print(f"  {number} workers: {hours:.1f} h, {disk:.0f} GB on disk", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    facts |= {
        "pairs_over_tokenising": max(found["ratio"] for found in whole.values()),
        "pairs_over_tokenising_by_workers": {number: found["ratio"] for number, found in whole.items()},
        "cpu_over_tokenising_by_workers": {number: found["cpu_ratio"] for number, found in whole.items()},
        "reversal_mb_per_s": speeds["reversal"],
        "all_reversed_mb_per_s": speeds["all_reversed"],
        "vs_loop": speeds["reversal"] / speeds["loop"],
        "vs_regex_dict": speeds["reversal"] / speeds["regex_dict"],
        "build_ms_per_mb": {times: found["ms_per_mb"] for times, found in linear.items()},
        "build_peak_mb": {times: found["peak_mb"] for times, found in linear.items()},
        "openwebtext_hours": {number: found["openwebtext_hours"] for number, found in whole.items()},
        "openwebtext_gb": disk,
        "reversed_share": whole[workers[0]]["reversed_share"],
        "aligned_share": whole[workers[0]]["aligned_share"],
    }
    print(json.dumps(_rounded(facts)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(x) for key, x in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
