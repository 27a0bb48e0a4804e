"""Command line of the text side: `python -m counterfactuals <command> --help`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from counterfactuals.files import explain
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import POLICIES, Reversal, Reverser
from counterfactuals.tokens.corpus import Corpus, units


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 after `error: …` on stderr, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    out = getattr(arguments, "out", None)
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m counterfactuals", description="Counterfactual role reversal of text.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser(
        "reverse",
        help="reverse the roles in text, a line in, a line out",
        description="UTF-8 text on stdin, with its roles reversed on stdout, line by line; line endings are kept.",
        epilog='example: echo "She said he knew." | python -m counterfactuals reverse',
    )
    _add_reverser(command, policy="reverse")
    command.add_argument(
        "--json",
        action="store_true",
        help="one object a line: text, reversed, spans (start, end, cf_start, cf_end, rule, confidence), cue, "
        "flags (start, end, kind); offsets in characters, without the line ending",
    )
    command.set_defaults(run=_reverse)

    command = commands.add_parser(
        "build",
        help="prepare the pairs of a corpus: reverse, tokenise, align, write",
        description="Prepare the pairs of a corpus below DIR. A killed build goes on where it was; training takes the "
        "folder as data.pairs_dir, and refuses it if it was made from something else.",
        epilog="example: python -m counterfactuals build --source texts.jsonl.gz --tokenizer gpt2 --out pairs",
    )
    _add_source(command)
    command.add_argument(
        "--tokenizer", required=True, metavar="PATH_OR_NAME", help="folder, tokenizer.json or Hub name"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder in which the pair set is made")
    command.add_argument("--max_length", type=int, default=1024, help="tokens in a sequence (default: 1024)")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    _add_reverser(command, policy="skip")
    command.set_defaults(run=_build)

    command = commands.add_parser(
        "audit",
        help="see what was replaced: a page, and a sample to mark by hand",
        description="Reverse a corpus, draw a sample of the reversed texts and write DIR/audit.html and DIR/audit.csv. "
        "Mark the CSV's verdict column (ok or wrong, with a kind), then give it to --score.",
        epilog="example: python -m counterfactuals audit --source texts.jsonl.gz --out audit --sample 500 --seed 0",
    )
    _add_source(command, required=False, paragraphs=True)
    command.add_argument("--out", metavar="PATH", help="folder to write into; with --strip, the file")
    command.add_argument("--sample", type=int, default=500, help="texts to draw (default: 500)")
    command.add_argument("--score", metavar="FILE", help="read a marked CSV and print the error rate")
    command.add_argument("--strip", metavar="FILE", help="copy a marked CSV without the texts, to keep or publish")
    _add_reverser(command, policy="skip")
    command.set_defaults(run=_audit)

    command = commands.add_parser(
        "round_trip",
        help="reverse twice: what does not come back, and why",
        description="Reverse each text twice and print how many come back, and the words that do not, by rule.",
    )
    _add_source(command, paragraphs=True)
    _add_reverser(command, policy="reverse")
    command.set_defaults(run=_round_trip)

    command = commands.add_parser(
        "learn_pronouns",
        help="learn from plain text which of him and his a 'her' is",
        description="Fit the pronoun classifier on plain text, without labels, and write its data file.",
    )
    command.add_argument("--source", action="append", required=True, metavar="SOURCE", help="as for build; repeatable")
    command.add_argument("--out", required=True, metavar="FILE", help="for example counterfactuals/pronouns.json")
    command.add_argument("--note", default="", help="what the file should say of its sources, such as their licences")
    command.add_argument("--seed", type=int, default=0, help="of the drawn contexts (default: 0)")
    command.set_defaults(run=_learn_pronouns)

    command = commands.add_parser(
        "learn_names",
        help="learn from plain text which capitalised words are surnames, places and other words",
        description="Learn what capitalised words mostly are, without labels, and write the data file by which names "
        "are doubted.",
    )
    command.add_argument("--source", action="append", required=True, metavar="SOURCE", help="as for build; repeatable")
    command.add_argument("--out", required=True, metavar="FILE", help="for example counterfactuals/text/people.json")
    command.add_argument("--note", default="", help="what the file should say of its sources, such as their licences")
    command.set_defaults(run=_learn_names)

    command = commands.add_parser(
        "names",
        help="make the table of given names from a census list",
        description="Pair given names of like frequency and write the table that a lexicon's `names` key points to.",
    )
    command.add_argument("--census", required=True, metavar="FILE", help="CSV with the columns name, male, female")
    command.add_argument("--out", required=True, metavar="FILE", help="for example given_names.json")
    command.set_defaults(run=_names)

    command = commands.add_parser(
        "sample",
        help="write the built-in sample corpus",
        description="Write the built-in sample corpus into a folder; the same seed gives the same files.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder to write into; made where it is missing")
    command.add_argument("--seed", type=int, default=0, help="seed of the text (default: 0)")
    command.set_defaults(run=_sample)
    return parser


def _add_source(command: argparse.ArgumentParser, *, required: bool = True, paragraphs: bool = False) -> None:
    options = command.add_argument_group("the texts")
    options.add_argument(
        "--source", required=required, help="a jsonl(.gz), txt or parquet file, a folder of them, or a Hub data set"
    )
    options.add_argument("--subset", help="configuration name of a Hub data set")
    options.add_argument("--split", default="train", help="split of a Hub data set (default: train)")
    options.add_argument("--text_field", default="text", metavar="FIELD", help="field with the text (default: text)")
    options.add_argument("--max_texts", type=int, metavar="N", help="read at most this many")
    if paragraphs:
        options.add_argument("--paragraphs", action="store_true", help="each line of a text is a unit of its own")


def _corpus(arguments: argparse.Namespace) -> Corpus:
    names = ("source", "subset", "split", "text_field", "max_texts")
    return Corpus(**{name: getattr(arguments, name) for name in names})


def _add_reverser(command: argparse.ArgumentParser, *, policy: str) -> None:
    options = command.add_argument_group("how roles are reversed")
    options.add_argument(
        "--lexicon", default="gender", metavar="NAME_OR_PATH", help="built-in name or .yaml file (default: gender)"
    )
    options.add_argument(
        "--direction", default="both", metavar="GROUP", help="replace only this group's words (default: both)"
    )
    options.add_argument(
        "--policy",
        default=policy,
        choices=POLICIES,
        help="a text that cannot be reversed coherently is reversed all the same, or skipped: left as it is; "
        f"keep_names: words only, no names (default: {policy})",
    )
    options.add_argument(
        "--protect", action="append", default=[], metavar="WORD", help="leave this word, name or phrase; repeatable"
    )
    options.add_argument("--seed", type=int, default=0, help="of choices among many-to-many words (default: 0)")


def _reverser(arguments: argparse.Namespace) -> Reverser:
    return Reverser(
        load_lexicon(arguments.lexicon),
        direction=arguments.direction,
        policy=arguments.policy,
        protected=tuple(arguments.protect),
        seed=arguments.seed,
    )


def _reverse(arguments: argparse.Namespace) -> None:
    reverser = _reverser(arguments)
    if sys.stdin is None or sys.stdout is None:
        raise ValueError("reverse: standard input or output is closed; it reads the one and writes the other")
    out = sys.stdout.buffer
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"stdin, line {number}: not UTF-8 (byte {error.start + 1}); convert it, e.g. with iconv"
            ) from None
        text = line.removesuffix("\n").removesuffix("\r")
        reversal = reverser(text)
        written = _as_json(reversal) + "\n" if arguments.json else reversal.reversed + line[len(text) :]
        out.write(written.encode("utf-8"))
        out.flush()


def _as_json(reversal: Reversal) -> str:
    rows = {"spans": [span._asdict() for span in reversal.spans], "flags": [flag._asdict() for flag in reversal.flags]}
    return json.dumps(dataclasses.asdict(reversal) | rows, ensure_ascii=False)


def _build(arguments: argparse.Namespace) -> None:
    from counterfactuals.tokens.pairs import build_pairs
    from counterfactuals.tokens.tokenizer import load_tokenizer

    _check_out(arguments.out, folder=True)
    pairs = build_pairs(
        _corpus(arguments),
        _reverser(arguments),
        load_tokenizer(arguments.tokenizer),
        arguments.out,
        max_length=arguments.max_length,
        workers=arguments.workers,
        progress=lambda progress: print(progress, file=sys.stderr, flush=True),
    )
    counts = pairs.meta["counts"]
    print(
        f"{pairs.folder}: {counts['pairs']:,} pairs of {counts['texts']:,} texts; {counts['reversed_share']:.1%} of "
        f"the texts have a counterfactual, {counts['aligned_share']:.1%} of their tokens a counterpart"
    )


def _audit(arguments: argparse.Namespace) -> None:
    from counterfactuals.audit import sample as audit

    if arguments.score:
        print(audit.score(arguments.score))
        return
    if not arguments.out or not (arguments.source or arguments.strip):
        raise ValueError("audit: give --source and --out, or --strip FILE and --out, or --score FILE")
    if arguments.strip:
        _check_out(arguments.out)
        audit.strip(arguments.strip, arguments.out)
        return
    tally = audit.audit(
        _corpus(arguments),
        _reverser(arguments),
        arguments.out,
        sample=arguments.sample,
        seed=arguments.seed,
        paragraphs=arguments.paragraphs,
        source=arguments.source,
    )
    print(f"{tally}\nwritten to {arguments.out}: audit.html, audit.csv")


def _round_trip(arguments: argparse.Namespace) -> None:
    from counterfactuals.audit.round_trip import round_trip

    texts = (text for _, text in units(_corpus(arguments), arguments.paragraphs))
    print(round_trip(itertools.islice(texts, arguments.max_texts), _reverser(arguments)))


def _learn_pronouns(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.pronouns import learn, write

    _check_out(arguments.out)
    names = " ".join(f"--source {Path(source).name}" for source in arguments.source)
    command = f"python -m counterfactuals learn_pronouns {names} --seed {arguments.seed}"
    options = {"note": arguments.note, "command": command, "seed": arguments.seed}
    write(learn(arguments.source, **options, log=lambda line: print(line, file=sys.stderr)), Path(arguments.out))


def _learn_names(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.people import learn, write

    _check_out(arguments.out)
    command = " ".join(
        ["python -m counterfactuals learn_names", *(f"--source {Path(s).name}" for s in arguments.source)]
    )
    learnt = learn(arguments.source, load_lexicon("gender"), note=arguments.note, command=command)
    write(learnt, Path(arguments.out))
    print(f"{arguments.out}: {json.dumps(learnt['provenance']['held_out'])}")


def _names(arguments: argparse.Namespace) -> None:
    from counterfactuals.learn.census import make, write

    _check_out(arguments.out)
    table = make(arguments.census)
    write(table, Path(arguments.out))
    print(f"{arguments.out}: {table['counts']}")


LEAST = {"max_texts": 1, "max_length": 2, "workers": 1, "sample": 1, "seed": 0}


def _check(arguments: argparse.Namespace) -> None:
    for name, value in vars(arguments).items():
        if isinstance(value, int) and value < LEAST.get(name, value):
            raise ValueError(f"--{name}: must be at least {LEAST[name]}, not {value}")
        values = value if isinstance(value, list) else [value]
        if name != "note" and any(isinstance(item, str) and not item.strip() for item in values):
            raise ValueError(f"--{name}: must not be empty")


def _check_out(out: str, *, folder: bool = False) -> None:
    """Refuse before the work what would fail after it."""
    path = Path(out).absolute()
    if not folder and path.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    there = next(p for p in ([path] if folder else []) + [*path.parents] if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"--out {out}: {there} is not a folder that can be written into")


def _sample(arguments: argparse.Namespace) -> None:
    from counterfactuals.sample import write_sample

    _check_out(arguments.out, folder=True)
    print(write_sample(arguments.out, seed=arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
