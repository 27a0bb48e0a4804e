"""A study on a GPU that is lent for minutes, on a machine without a network: prepared here, run there in stages.

    python benchmarks/study/gpu.py prepare DATA [--model FILE.gguf] [--wheels 3.12]     # here: runs/gpu/pieces
    python benchmarks/study/gpu.py stage gpt2 --minutes 7 --back FOLDER [key=value …]   # there, until it is complete

prepare makes of DATA (wikipedia_articles.jsonl.gz, novels.jsonl.gz, gpt2_tokenizer/, bold/, wikitext2/) what the
configurations configs/gpu_NAME.yaml read, and splits it into pieces (pieces.py). --wheels: also the packages that a
machine with torch, transformers, accelerate, safetensors, numpy, scipy and matplotlib lacks, for its Python on Linux.

A stage joins the pieces that lie there, says what is missing, and trains and evaluates for at most --minutes; a run
that is not done by then saves a checkpoint. FOLDER gets NAME-results in pieces: figures, logs and settings. What an
unfinished study needs to go on on another machine, models and the newest checkpoint, is left in runs/gpu/back as the
pieces of NAME; put them among that machine's pieces. The same stage there, or here again, goes on.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.study.pieces import join, split

ROOT = Path(__file__).resolve().parents[2]

NEEDED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "scipy", "matplotlib")  # what a machine has
# module: package. What else training and reports import; the rest of setup.cfg is not used by these studies
CARRIED = {"pydantic": "pydantic", "pydantic_core": "pydantic-core", "annotated_types": "annotated-types"}
CARRIED |= {"typing_inspection": "typing-inspection", "rich": "rich", "markdown_it": "markdown-it-py"}
CARRIED |= {"mdurl": "mdurl", "pygments": "pygments", "peft": "peft", "gguf": "gguf"}
LIGER = "liger-kernel==0.8.0"  # benchmarks/gpu.py compares with it; its chunked loss needs nothing but torch
COPIED = ("gpt2_tokenizer/tokenizer.json", "bold/profession_prompt.json", "wikitext2/test.txt")
KEPT_APART = ("pairs", "teacher_cache", "sample")  # made again from the data
USAGE = "gpu.py stage NAME [--minutes N] [--back FOLDER] [--megabytes N] [key.sub=value ...]"
SHORTEST = 80  # characters of a paragraph


def prepare(data: Path, root: Path, model: Path | None, python: str) -> None:
    sources = ("wikipedia_articles.jsonl.gz", "novels.jsonl.gz", *COPIED)
    missing = [name for name in sources if not (data / name).exists()]
    if missing or (model and not model.is_file()):
        raise ValueError(f"{data}, {model}: not there: {', '.join(missing) or model}")
    from benchmarks.paragraphs import HELD_OUT_EVERY, natural_cases, paragraphs, write
    from counterfactuals.sample import name_cases, sex_bound_cases, write_sample
    from counterfactuals.tokens.corpus import Corpus, units

    def training() -> Iterator[str]:
        for name in ("wikipedia_articles", "novels"):
            for unit, text in units(Corpus(str(data / f"{name}.jsonl.gz")), paragraphs=True):
                held_out = name != "novels" and int(unit[1:].split("p")[0]) % HELD_OUT_EVERY == 0
                if len(text) > SHORTEST and not held_out:
                    yield text

    out = root / "data"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with gzip.GzipFile(out / "train.jsonl.gz", "wb", mtime=0) as file:  # the same bytes each time
        file.writelines((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode() for text in training())
    _, held_out = paragraphs(str(data / "wikipedia_articles.jsonl.gz"))
    write(out / "heldout.jsonl", ({"text": text} for text in held_out))
    write(out / "pronouns.jsonl", natural_cases(held_out))
    write(out / "names.jsonl", name_cases())
    write(out / "sex_bound.jsonl", sex_bound_cases())
    write_sample(out / "sample")
    for name in COPIED:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, out / name)
    parts = [out]
    if model:
        (root / "model").mkdir(exist_ok=True)
        shutil.copyfile(model, root / "model" / "smollm2.gguf")
        parts.append(root / "model")
    if python:
        parts.append(wheels(root / "wheels", python))
    for part in parts:
        listed = split(part, root / "pieces")
        print("\n".join(map(str, [listed, *sorted(listed.parent.glob(f"{listed.stem}.[0-9]*"))])))


def wheels(out: Path, python: str) -> Path:
    """The packages of CARRIED in the versions installed here, for that Python on x86-64 Linux."""
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014")]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", f"--dest={out}"]
    command += [f"--python-version={python}", "--implementation=cp", *platforms, LIGER]
    shutil.rmtree(out, ignore_errors=True)
    try:
        subprocess.run([*command, *(f"{name}=={version(name)}" for name in CARRIED.values())], check=True)
    except PackageNotFoundError as error:
        raise ValueError(f"--wheels: {error.name} is not installed here; pip install -e '.[dev]'") from None
    except subprocess.CalledProcessError:
        raise ValueError(f"--wheels {python}: pip could not download them for this Python, see above") from None
    return out


def add_packages(root: Path) -> None:
    """Unpack the carried wheels where something is missing. ValueError for what is missing still, all at once."""
    site, carried = root / "site", sorted((root / "wheels").glob("*.whl"))
    if carried and _missing():
        shutil.rmtree(site, ignore_errors=True)
        for path in carried:
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(site)
        sys.path.insert(0, str(site))
        importlib.invalidate_caches()
        try:
            importlib.import_module("pydantic_core")  # the only one that is compiled
        except ImportError as error:
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise ValueError(
                f"{site}: not for this Python ({error}); carry what `prepare --wheels {python}` makes"
            ) from None
    if missing := _missing():
        raise ValueError(
            f"this Python ({sys.executable}) lacks {', '.join(missing)}: install them, or carry the pieces of wheels "
            "over that `prepare --wheels` makes"
        )


def _missing() -> list[str]:
    return [name for name in (*NEEDED, *CARRIED) if importlib.util.find_spec(name) is None]


def bounded(command: Sequence[str], seconds: float, grace: float = 90, **options: object) -> int:
    """The exit code of a command that is asked to stop (SIGTERM) after so long, and killed if it does not in time."""
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    for how, wait in ((None, seconds), (signal.SIGTERM, grace), (signal.SIGKILL, None)):
        if how is not None:
            process.send_signal(how)
        try:
            return process.wait(wait)
        except subprocess.TimeoutExpired:
            print(f"stage    {wait:.0f} s are over", flush=True)
    raise AssertionError("a killed process ends")


def results_of(study: Path) -> list[Path]:
    """Figures, logs and settings of a study, without models."""
    apart = (*KEPT_APART, "model", "checkpoints", "self", "bad_batches")
    return [path for path in study.rglob("*") if path.is_file() and not {*path.relative_to(study).parts} & {*apart}]


def state_of(study: Path) -> list[Path]:
    """What a study goes on from elsewhere: all but what is made again; of checkpoints, an unfinished run's newest."""
    old = []
    for folder in study.rglob("checkpoints"):
        done = sorted(path.parent for path in folder.glob("step-*/checkpoint.json"))
        old += done if (folder.parent / "run.json").exists() else done[:-1]
    apart = [*old, *(study / name for name in KEPT_APART)]
    files = [path for path in study.rglob("*") if path.is_file() and not path.match("*.partial*")]
    return [path for path in files if not any(folder in path.parents for folder in apart)]


def join_all(root: Path) -> None:
    """Whole again what lies there in pieces; packages are added where some are missing."""
    for listed in sorted((root / "pieces").glob("*.json")):
        print(f"joined   {join(listed, root)}", flush=True)
    add_packages(root)


def stage(name: str, root: Path, minutes: float, back: Path, overrides: Sequence[str], megabytes: float) -> int:
    join_all(root)
    study = root / name
    command = [sys.executable, "train_distill.py", "--config", f"configs/gpu_{name}.yaml", f"output_dir={study}"]
    paths = [*(str(path) for path in [root / "site"] if path.exists()), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    code = bounded([*command, *overrides], 60 * minutes, cwd=ROOT, env=environment)
    stopped = code in (0, -signal.SIGTERM, -signal.SIGKILL)
    complete = code == 0 and (study / "results.json").exists()
    if study.exists():
        split(study, back, megabytes, name=f"{name}-results", only=results_of(study))
        if complete:
            shutil.rmtree(root / "back", ignore_errors=True)
        else:
            listed = split(study, root / "back", megabytes, name=name, only=state_of(study))
            print(f"back     to go on elsewhere, carry there: {listed} and the pieces beside it")
    if stopped:
        print(f"stage    {name} is {'complete' if complete else 'not complete: the same stage goes on'}", flush=True)
    return 0 if stopped else code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/gpu"), help="of pieces, data and runs")
    parts = parser.add_subparsers(dest="what", required=True)
    here = parts.add_parser("prepare", help="data, model and packages, in pieces")
    here.add_argument("data", type=Path)
    here.add_argument("--model", type=Path, help="the GGUF file of SmolLM2")
    here.add_argument("--wheels", default="", metavar="X.Y", help="that machine's Python")
    parts.add_parser("join", help="the pieces, and packages into runs/gpu/site; a stage does it by itself")
    there = parts.add_parser("stage", usage=USAGE, help="train and evaluate for some minutes")
    there.add_argument("name", choices=sorted(path.stem[4:] for path in (ROOT / "configs").glob("gpu_*.yaml")))
    there.add_argument("--minutes", type=float, default=7)
    there.add_argument("--back", type=Path, default=Path("runs/gpu/back"), help="folder for the results")
    there.add_argument("--megabytes", type=float, default=15, help="of a piece of the results, at most")
    arguments, overrides = parser.parse_known_args()
    if wrong := [word for word in overrides if arguments.what != "stage" or word.startswith("-") or "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    try:
        if arguments.what == "prepare":
            prepare(arguments.data, arguments.root, arguments.model, arguments.wheels)
            return
        if arguments.what == "join":
            join_all(arguments.root)
            return
        options = (arguments.root, arguments.minutes, arguments.back, overrides, arguments.megabytes)
        sys.exit(stage(arguments.name, *options))
    except (ValueError, OSError) as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main()
