"""Command line of the audits: `evenhand privacy plant | audit`, or `python -m privacy plant | audit`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import check_folder, write_whole
from privacy import audit

RECORD, MEMBERS, NONMEMBERS, CORPUS = "planted.json", "members.jsonl", "nonmembers.jsonl", "corpus.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 after `error: …` on stderr."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="evenhand privacy", description="Attacks that check what a model gives away.")
    commands = found.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "put canaries into a corpus, each by a coin, and set texts aside"
    add = _command(commands, "plant", run_plant, text)
    add("--source", required=True, metavar="FILE", help="the texts: a jsonl, csv, txt or parquet file, a folder, …")
    add(
        "--output_dir", required=True, type=Path, metavar="DIR", help=f"a new folder: {CORPUS} to train on, {RECORD}, …"
    )
    add("--text_field", default="text", metavar="FIELD")
    add("--label_field", default="", metavar="FIELD", help="of a labelled jsonl: each canary gets a label too")
    add("--max_texts", type=int, metavar="N", help="read at most this many")
    add("--canaries", type=int, default=200, metavar="M", help="how many coins are thrown (200)")
    add("--prefix", default="Box {number} opens with", help='what stands before a secret ("Box {number} opens with")')
    add("--length", type=int, default=4, help="symbols of a secret (4)")
    add("--alphabet", default=" ".join(audit.DIGITS), help="symbols with spaces between (the digits)")
    add("--repeats", type=int, default=1, help="copies of a planted canary (1; the guarantee of a run is for 1)")
    add("--holdout", type=int, default=0, metavar="N", help="set N texts aside at random, for membership (0)")
    add("--seed", type=int, help="of the coins, secrets and choices (default: from the system); keep it secret")
    add = _command(commands, "audit", run_audit, "attack a model with what `plant` left, and write results and a page")
    add("--model", action="append", required=True, metavar="[LABEL=]DIR_OR_NAME", help="repeat it to compare models")
    add("--planted", required=True, type=Path, metavar="DIR", help="the folder that `plant` wrote")
    add("--output_dir", type=Path, default=Path("runs/audit"), metavar="DIR", help="default runs/audit")
    add(
        "--tasks", default="membership,exposure,inversion", metavar="A,B", help="default: membership,exposure,inversion"
    )
    add("--set", action="append", default=[], metavar="TASK.OPTION=VALUE", help="as for evenhand eval")
    add("--batch_size", type=int, default=64, metavar="N")
    add("--device", metavar="NAME", help="cuda if there is one, else cpu")
    add("--seed", type=int, default=0)
    return found


def _command(commands: Any, name: str, run: Any, text: str) -> Any:
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(run=run)
    return made.add_argument


# ---------------------------------------------------------------- plant


def run_plant(arguments: argparse.Namespace) -> int:
    """Write the corpus with canaries, the record (mode 0600) and, with --holdout, members and non-members."""
    folder = arguments.output_dir
    check_folder(folder, "--output_dir")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--output_dir {folder}: not empty; the record of a corpus must not be overwritten")
    rows = _read(arguments)
    labels = sorted({str(row[arguments.label_field]) for row in rows}) if arguments.label_field else []
    settings = {key: getattr(arguments, key) for key in ("prefix", "length", "repeats", "seed")}
    record = audit.draw(number=arguments.canaries, alphabet=arguments.alphabet.split(), labels=labels, **settings)
    kept, aside = _split(rows, arguments.holdout, record.seed + 2)
    mixed = audit.mix(kept, record, text=arguments.text_field, label=arguments.label_field)
    write_whole(folder / CORPUS, _lines(mixed))
    if aside:
        drawn = random.Random(record.seed + 3).sample(kept, min(len(kept), len(aside)))
        for name, part in ((MEMBERS, drawn), (NONMEMBERS, aside)):
            fields = [{"text": row[arguments.text_field], "label": row.get(arguments.label_field)} for row in part]
            write_whole(folder / name, _lines(fields))
    _write_private(folder / RECORD, record.to_json())
    planted = sum(canary.planted for canary in record.canaries)
    print(
        f"{folder / CORPUS}: {len(mixed):,} texts, {planted} of {len(record.canaries)} canaries planted, "
        f"{record.repeats} time(s) each; {len(aside):,} texts set aside. Keep {folder / RECORD} to yourself"
    )
    return 0


def _read(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the source; with labels all fields of a table, else the texts."""
    if arguments.max_texts is not None and arguments.max_texts < 1:
        raise ValueError(f"--max_texts {arguments.max_texts}: must be at least 1")
    if arguments.label_field:
        from eval.data import read_table

        path = Path(arguments.source)
        if not path.is_file():
            raise ValueError(f"--source {path}: no such file; labelled texts are read from a jsonl, tsv or csv file")
        return read_table(path, [arguments.text_field, arguments.label_field])[: arguments.max_texts]
    from counterfactuals.tokens.corpus import Corpus

    texts = iter(Corpus(arguments.source, text_field=arguments.text_field))
    return [{arguments.text_field: text} for text in itertools.islice(texts, arguments.max_texts)]


def _split(rows: list[dict[str, Any]], number: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on, and `number` set aside at random; copies of a text are on one side."""
    if not 0 <= number <= len(rows) // 2:
        raise ValueError(f"--holdout {number}: must be from 0 to half of the {len(rows):,} texts")
    chosen = set(random.Random(seed).sample(range(len(rows)), number))
    aside = [row for i, row in enumerate(rows) if i in chosen]
    seen = {json.dumps(row, sort_keys=True) for row in aside}
    kept = [row for i, row in enumerate(rows) if i not in chosen and json.dumps(row, sort_keys=True) not in seen]
    if number and len(kept) < len(aside):
        raise ValueError(f"--holdout {number}: too many texts of the corpus are copies of each other")
    return kept, aside


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_private(path: Path, content: str) -> None:
    """A new file that only its owner can read, from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)


# ---------------------------------------------------------------- audit


def run_audit(arguments: argparse.Namespace) -> int:
    """Evaluate the models on the tasks whose data `plant` wrote: evenhand eval, with what an audit needs set."""
    from eval.__main__ import main as evaluate

    folder = arguments.planted
    if not (folder / RECORD).is_file():
        raise ValueError(f"--planted {folder}: no {RECORD} in it; evenhand privacy plant writes one")
    audit.Record.read(folder / RECORD)
    names = [name for name in arguments.tasks.split(",") if name]
    if "membership" in names and not (folder / NONMEMBERS).is_file():
        names.remove("membership")
        print(f"membership is left out: {folder} has no {NONMEMBERS}; plant with --holdout N", file=sys.stderr)
    words = [word for model in arguments.model for word in ("--model", model)]
    words += [word for setting in arguments.set for word in ("--set", setting)]
    words += ["--tasks", ",".join(names), "--data_dir", str(folder), "--output_dir", str(arguments.output_dir)]
    words += ["--batch_size", str(arguments.batch_size), "--seed", str(arguments.seed)]
    words += ["--device", arguments.device] if arguments.device else []
    return evaluate(words)


if __name__ == "__main__":
    sys.exit(main())
