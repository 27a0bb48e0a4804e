"""Command line of the text side: `python -m counterfactuals <command> --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from counterfactuals.lexicon import load_lexicon
from counterfactuals.reverse import Reversal, reverse


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 after `error: …` on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m counterfactuals", description="Counterfactual role reversal of text."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser(
        "reverse",
        help="reverse the roles in text, a line in, a line out",
        description="UTF-8 text on stdin, with its roles reversed on stdout, line by line; line endings are kept.",
        epilog='example: echo "She said he knew." | python -m counterfactuals reverse',
    )
    command.add_argument(
        "--lexicon", default="gender", metavar="NAME_OR_PATH", help="built-in name or .yaml file (default: gender)"
    )
    command.add_argument(
        "--direction", default="both", metavar="GROUP", help="replace only this group's words (default: both)"
    )
    command.add_argument(
        "--json",
        action="store_true",
        help='one object a line: {"text", "reversed", "spans": [{"start", "end", "cf_start", "cf_end", "rule"}]}, '
        "offsets in characters, without the line ending",
    )
    command.set_defaults(run=_reverse)

    command = commands.add_parser(
        "sample",
        help="write the built-in sample corpus",
        description="Write the built-in sample corpus into a folder; the same seed gives the same files.",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder to write into; made where it is missing")
    command.add_argument("--seed", type=int, default=0, help="seed of the text (default: 0)")
    command.set_defaults(run=_sample)
    return parser


def _reverse(arguments: argparse.Namespace) -> None:
    lexicon = load_lexicon(arguments.lexicon)
    if arguments.direction != "both":
        lexicon.check_group(arguments.direction)
    out = sys.stdout.buffer
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"stdin, line {number}: not UTF-8 (byte {error.start + 1}); convert it, e.g. with iconv"
            ) from None
        text = line.removesuffix("\n").removesuffix("\r")
        reversal = reverse(text, lexicon, direction=arguments.direction)
        written = _as_json(reversal) + "\n" if arguments.json else reversal.reversed + line[len(text) :]
        out.write(written.encode("utf-8"))
        out.flush()


def _as_json(reversal: Reversal) -> str:
    names = ("start", "end", "cf_start", "cf_end", "rule")
    spans = [{name: getattr(span, name) for name in names} for span in reversal.spans]
    return json.dumps({"text": reversal.text, "reversed": reversal.reversed, "spans": spans}, ensure_ascii=False)


def _sample(arguments: argparse.Namespace) -> None:
    from counterfactuals.sample import write_sample

    print(write_sample(arguments.out, seed=arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
