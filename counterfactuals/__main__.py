"""Command line of the text side: `evenhand COMMAND --help`, or `python -m counterfactuals COMMAND --help`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from counterfactuals.files import check_folder, explain
from counterfactuals.records import reverse_record
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import POLICIES, Reverser
from counterfactuals.tokens.corpus import Corpus, units

LEAST = {"max_texts": 1, "max_length": 2, "workers": 1, "sample": 1, "seed": 0}  # of options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 after `error: …` on stderr, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    out = getattr(arguments, "output_dir", None) or getattr(arguments, "output", None)
    try:
        _check(arguments)
        arguments.run(arguments)
        out = None
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        _give_up_stdout()
    except (ValueError, OSError) as error:
        message = explain(error, out or "standard output") if isinstance(error, OSError) else str(error)
        print("error:", " ".join(message.split()), file=sys.stderr)
        _give_up_stdout()
        return 2
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        _give_up_stdout()
        return 130
    return 0


def _give_up_stdout() -> None:
    """Python flushes once more at its end: what is left goes nowhere, without a second message."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout is closed, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(arguments: argparse.Namespace) -> None:
    for name, value in vars(arguments).items():
        if isinstance(value, int) and value < LEAST.get(name, value):
            raise ValueError(f"--{name}: must be at least {LEAST[name]}, not {value}")
        values = value if isinstance(value, list) else [value]
        if name != "note" and any(isinstance(item, str) and not item.strip() for item in values):
            raise ValueError(f"--{name}: must not be empty")


def _check_output(file: str) -> None:
    """Refuse before the work what would fail after it."""
    if Path(file).is_dir():
        raise ValueError(f"--output {file}: is a folder; name a file")
    check_folder(Path(file).absolute().parent, "--output")


# ---------------------------------------------------------------- options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="evenhand", description="Counterfactual role reversal of text.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        run: Callable[[argparse.Namespace], None], title: str, more: str = "", *, out: str = "", seed: str = ""
    ) -> argparse.ArgumentParser:
        name = run.__name__.strip("_")
        made = commands.add_parser(name, help=title, description=f"{title[0].upper()}{title[1:]}. {more}")
        made.set_defaults(run=run)
        if out:
            made.add_argument(f"--{out}", required=True, help="what to write; made where it is missing")
        if seed:
            made.add_argument("--seed", type=int, default=0, help=f"of {seed} (default: 0)")
        return made

    reverse = command(_reverse, "reverse the roles in text, a line in, a line out", "UTF-8 from stdin to stdout.")
    fields = "text, reversed, spans, flags, stays, passages, cue, turn, and for a flag or passage its doubt"
    offsets = "offsets in characters, without the line ending"
    reverse.add_argument("--json", action="store_true", help=f"one object a line: {fields}; {offsets}")
    reverse.add_argument("--fields", metavar="A,B", help="a line is a JSON object: reverse these fields, all or none")
    _reverser_options(reverse, policy="reverse")

    title = "prepare the pairs of a corpus: reverse, tokenise, align, write"
    more = "A killed build goes on where it was; training takes the folder as data.pairs_dir."
    build = command(_build, title, more, out="output_dir")
    build.add_argument("--tokenizer", required=True, metavar="NAME", help="folder, tokenizer.json or Hub name")
    build.add_argument("--max_length", type=int, default=1024, help="tokens in a sequence (default: 1024)")
    build.add_argument("--shard", metavar="I/N", help="only part I (from 0) of N; without --shard it joins them")
    build.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    _source_options(build)
    _reverser_options(build, policy="skip")

    more = "Mark the verdicts (ok or wrong, with a kind) in DIR/audit.csv, then give it to --score."
    audit = command(_audit, "see what was replaced: a page, and a sample to mark by hand", more)
    audit.add_argument("--output_dir", metavar="DIR", help="folder for the page and the sample")
    audit.add_argument("--output", metavar="FILE", help="with --strip: the copy")
    audit.add_argument("--sample", type=int, default=500, help="units to draw, all if there are fewer (default: 500)")
    audit.add_argument("--score", metavar="FILE", help="read a marked CSV and print the error rate, by doubt too")
    audit.add_argument("--strip", metavar="FILE", help="copy a marked CSV without the texts, to keep or publish")
    audit.add_argument("--passages", action="store_true", help="the units are passages, as they are reversed or left")
    _source_options(audit, required=False, paragraphs=True)
    _reverser_options(audit, policy="skip")

    round_trip = command(_round_trip, "reverse twice: what does not come back, and by which rule")
    _source_options(round_trip, paragraphs=True)
    _reverser_options(round_trip, policy="reverse")

    for run, what in ((_learn_pronouns, "which of him and his a 'her' is"), (_learn_names, "who is a person")):
        learn = command(run, f"learn from plain text {what}", "Needs no labels.", out="output", seed="what is drawn")
        learn.add_argument("--source", action="append", required=True, help="as for build; repeatable")
        learn.add_argument("--note", default="", help="what the file should say of its sources, such as licences")
    doubts = command(_learn_doubts, "fit how far each reason for doubt is to be believed", out="output")
    doubts.add_argument("--marks", action="append", required=True, metavar="FILE", help="marked CSV; repeatable")
    names = command(_names, "make the table of given names from a census list", out="output")
    names.add_argument("--census", required=True, metavar="FILE", help="CSV with the columns name, male, female")
    command(_sample, "write the built-in sample corpus", out="output_dir", seed="the texts")
    return parser


def _source_options(command: argparse.ArgumentParser, *, required: bool = True, paragraphs: bool = False) -> None:
    add = command.add_argument_group("the texts").add_argument
    kinds = "a jsonl, json, csv, txt or parquet file, packed or not, a folder of them, or a Hub data set"
    add("--source", required=required, help=kinds)
    add("--subset", help="configuration name of a Hub data set")
    add("--split", default="train", help="split of a data set (default: train)")
    fields = "field with the text (default: text) or with messages, or prompt,completion (by the chat template)"
    add("--text_field", default="text", metavar="FIELD", help=fields)
    add("--max_texts", type=int, metavar="N", help="read at most this many")
    if paragraphs:
        add("--paragraphs", action="store_true", help="each line of a text is a unit of its own")


def _reverser_options(command: argparse.ArgumentParser, *, policy: str) -> None:
    add = command.add_argument_group("how roles are reversed").add_argument
    names = f"a number from 0 to 1, or {', '.join(POLICIES)} (words only, no names)"
    add("--policy", default=policy, help=f"leave passages with more doubt than that: {names} (default: {policy})")
    add("--lexicon", default="gender", help="built-in name or .yaml file (default: gender)")
    add("--direction", default="both", metavar="GROUP", help="replace only this group's words (default: both)")
    add("--protect", action="append", default=[], metavar="WORD", help="leave this word or name; repeatable")
    add("--seed", type=int, default=0, help="of choices among many-to-many words (default: 0)")


def _corpus(arguments: argparse.Namespace) -> Corpus:
    names = ("source", "subset", "split", "text_field", "max_texts")
    return Corpus(**{name: getattr(arguments, name) for name in names})


def _reverser(arguments: argparse.Namespace) -> Reverser:
    options = {name: getattr(arguments, name) for name in ("direction", "policy", "seed")}
    return Reverser(load_lexicon(arguments.lexicon), protected=tuple(arguments.protect), **options)


# ---------------------------------------------------------------- commands


def _reverse(arguments: argparse.Namespace) -> None:
    reverser = _reverser(arguments)
    if sys.stdin is None or sys.stdout is None:
        raise ValueError("reverse: standard input or output is closed; it reads the one and writes the other")
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode()
            text = line.removesuffix("\n").removesuffix("\r")
            written = _reversed(text, reverser, arguments)
        except UnicodeDecodeError as error:
            where = f"stdin, line {number}: not UTF-8 (byte {error.start + 1})"
            raise ValueError(f"{where}; convert it, e.g. with iconv") from None
        except (ValueError, RecursionError) as error:
            what = "not JSON, " if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"stdin, line {number}: {what}{error}") from None
        ending = "\n" if arguments.json else line[len(text) :]
        sys.stdout.buffer.write((written + ending).encode(errors="replace"))
        sys.stdout.buffer.flush()


def _reversed(text: str, reverser: Reverser, arguments: argparse.Namespace) -> str:
    """What is written for a line."""
    if arguments.fields:
        fields = arguments.fields.split(",")
        return json.dumps(reverse_record(json.loads(text), fields, reverser), ensure_ascii=False) if text else ""
    reversal = reverser(text)
    if not arguments.json:
        return reversal.reversed
    rows = {name: [row._asdict() for row in getattr(reversal, name)] for name in ("spans", "flags", "passages")}
    return json.dumps(dataclasses.asdict(reversal) | rows | {"cue": reversal.cue}, ensure_ascii=False)


def _build(arguments: argparse.Namespace) -> None:
    from counterfactuals.tokens.pairs import build_pairs, build_part
    from counterfactuals.tokens.tokenizer import load_tokenizer

    check_folder(arguments.output_dir, "--output_dir")
    tokenizer = load_tokenizer(arguments.tokenizer)
    options = {"max_length": arguments.max_length, "workers": arguments.workers, "progress": _log}
    corpus = dataclasses.replace(_corpus(arguments), tokenizer=tokenizer)
    made_of = (corpus, _reverser(arguments), tokenizer, arguments.output_dir)
    if arguments.shard is not None:
        done = build_part(*made_of, part=_part(arguments.shard), **options)
        print(f"{arguments.output_dir}: {done} shards of part {arguments.shard} are there; join all without --shard")
        return
    pairs = build_pairs(*made_of, **options)
    counts = pairs.meta["counts"]
    share = counts["reversed_pairs"] / max(counts["role_pairs"], 1)
    print(
        f"{pairs.folder}: {counts['pairs']:,} sequences of {counts['texts']:,} texts, {counts['role_pairs']:,} with a "
        f"role; {share:.1%} of these have a counterfactual, {counts['aligned_share']:.1%} of its tokens a counterpart"
    )


def _part(text: str) -> tuple[int, int]:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers) or int(numbers[0]) >= int(numbers[1]):
        raise ValueError(f"--shard {text}: must be I/N, such as 0/16 to 15/16")
    return int(numbers[0]), int(numbers[1])


def _log(line: object) -> None:
    print(line, file=sys.stderr, flush=True)


def _audit(arguments: argparse.Namespace) -> None:
    from counterfactuals.audit import sample as audit

    has_output = arguments.output if arguments.strip else arguments.source and arguments.output_dir
    if not arguments.score and not has_output:
        raise ValueError("audit: give --source and --output_dir, or --strip FILE and --output FILE, or --score FILE")
    if arguments.score:
        print(audit.score(arguments.score))
    elif arguments.strip:
        _check_output(arguments.output)
        audit.strip(arguments.strip, arguments.output)
    else:
        unit = "passage" if arguments.passages else "paragraph" if arguments.paragraphs else "text"
        options = {"unit": unit, "sample": arguments.sample, "seed": arguments.seed, "source": arguments.source}
        tally = audit.audit(_corpus(arguments), _reverser(arguments), arguments.output_dir, **options)
        print(f"{tally}\nwritten to {arguments.output_dir}: audit.html, audit.csv")


def _round_trip(arguments: argparse.Namespace) -> None:
    from counterfactuals.audit.round_trip import round_trip

    texts = (text for _, text in units(_corpus(arguments), arguments.paragraphs))
    print(round_trip(itertools.islice(texts, arguments.max_texts), _reverser(arguments)))


def _learn_pronouns(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.pronouns import learn, write

    write(learn(arguments.source, **_made_by(arguments)), Path(arguments.output))


def _learn_names(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.people import learn
    from counterfactuals.learn.pronouns import write

    write(learn(arguments.source, load_lexicon("gender"), **_made_by(arguments)), Path(arguments.output))


def _made_by(arguments: argparse.Namespace) -> dict[str, Any]:
    _check_output(arguments.output)
    sources = " ".join(f"--source {Path(source).name}" for source in arguments.source)
    command = f"python -m counterfactuals {arguments.run.__name__.strip('_')} {sources} --seed {arguments.seed}"
    return {"note": arguments.note, "command": command, "seed": arguments.seed, "log": _log}


def _learn_doubts(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn import doubts
    from counterfactuals.text.document import DOUBTS

    _check_output(arguments.output)
    marked = doubts.read_marks(arguments.marks)
    found = doubts.fit(marked, doubts.known(DOUBTS))
    command = " ".join(["learn_doubts", *(f"--marks {Path(path).name}" for path in arguments.marks)])
    doubts.write(found, marked, Path(arguments.output), f"python -m counterfactuals {command}")
    for row in doubts.calibration(marked, found, [0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.01]):
        print("doubt {from:.2f}–{to:.2f}: {passages:,} passages, {doubt:.1%} expected, {wrong:.1%} wrong".format(**row))


def _names(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.census import make, write

    _check_output(arguments.output)
    table = make(arguments.census)
    write(table, Path(arguments.output))
    print(f"{arguments.output}: {table['counts']}")


def _sample(arguments: argparse.Namespace) -> None:
    from counterfactuals.sample import write_sample

    check_folder(arguments.output_dir, "--output_dir")
    print(write_sample(arguments.output_dir, seed=arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
