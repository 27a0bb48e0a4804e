"""Evenhand: distil language models without distilling their bias, and measure it.

    >>> import evenhand
    >>> evenhand.reverse("He gave her his book.").reversed
    'She gave him her book.'

Nothing heavy is imported before it is used. Every name has its own help, e.g. `help(evenhand.DistillTask)`.

Text
    reverse                 a text with its roles exchanged
    Reverser                the same for many texts, with one lexicon and one set of options
    load_lexicon            the word table of an attribute, by name or path
    make_pairs              texts → aligned pairs of tokens
    collate                 pairs → a batch
    role_tokens             the tokens that carry a role, for VocabularyRoles

Distillation
    DistillTask             a student that learns from a teacher: batch → loss
    distillation_loss       the loss alone, chunk by chunk, for a loop of your own
    perturb                 a prediction combined with its counterpart's
    VocabularyRoles         the reversed vocabulary, for perturb and DistillTask
    load_model              a causal language model, checked
    student_from_layers     a student made of some of its teacher's layers

Evaluation
    evaluate                models × tasks → results, with intervals
    Scorer                  log-probabilities, hidden states and samples of a model
    Task                    a benchmark
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAMES = {  # name: the module that defines it
    "Reverser": "counterfactuals.text.reverse",
    "load_lexicon": "counterfactuals.text.lexicon",
    "make_pairs": "counterfactuals.tokens.pairs",
    "collate": "counterfactuals.tokens.batch",
    "role_tokens": "counterfactuals.tokens.vocabulary",
    "DistillTask": "debias.task",
    "distillation_loss": "debias.losses",
    "perturb": "debias.ops",
    "VocabularyRoles": "debias.ops",
    "load_model": "eval.loading",
    "student_from_layers": "debias.models",
    "evaluate": "eval.run",
    "Scorer": "eval.model",
    "Task": "eval.task",
}
__all__ = ["reverse", *NAMES]

COMMANDS = {  # name: (module, whether `main` wants the name as its first argument, meaning)
    "reverse": ("counterfactuals.__main__", True, "reverse the roles in text, a line in, a line out"),
    "audit": ("counterfactuals.__main__", True, "a page that shows how well your texts are reversed"),
    "round_trip": ("counterfactuals.__main__", True, "reverse texts twice: what does not come back, and why"),
    "build": ("counterfactuals.__main__", True, "prepare the pairs of a corpus"),
    "sample": ("counterfactuals.__main__", True, "write the built-in sample corpus"),
    "cache": ("debias.__main__", True, "store a teacher's predictions once, for any number of runs"),
    "debias": ("train_distill", False, "make a model fairer with texts that it writes itself, and measure it"),
    "train": ("train_distill", False, "train and evaluate what a configuration describes"),
    "federated": ("federated.__main__", False, "the same, with the texts at clients: in process, or with Flower"),
    "eval": ("eval.__main__", False, "measure any causal language model"),
    "report": ("eval.__main__", True, "a page that compares runs and evaluations"),
    "gate": ("eval.__main__", True, "may this model be released? judged against a reference, by rules"),
    "record": ("eval.__main__", True, "an audit record of a model: audit.json and a page to print"),
    "correlate": ("eval.__main__", True, "how measures agree over models"),
    "privacy": ("privacy.__main__", False, "plant canaries in a corpus; audit what a model gives away"),
    "dashboard": ("debias.__main__", True, "a Weights & Biases workspace for a configuration"),
    "learn_pronouns": ("counterfactuals.__main__", True, "fit the pronoun classifier on plain text"),
    "learn_names": ("counterfactuals.__main__", True, "fit the models that tell who is a person"),
    "learn_doubts": ("counterfactuals.__main__", True, "fit the doubts on marked passages"),
    "names": ("counterfactuals.__main__", True, "make the table of given names from a census list"),
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"evenhand has no {name!r}{_near(name, __all__)}")
    found = globals()[name] = getattr(import_module(NAMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})


def reverse(text: str, lexicon: str = "gender", **options: Any) -> Any:
    """`text` with its roles exchanged: a Reversal with text, reversed, spans, cue and flags.

    lexicon: name or path of a word table. options: of Reverser (direction, policy, protected, seed).

        >>> evenhand.reverse("The queen thanked him.", protected=["queen"]).reversed
        'The queen thanked her.'
    """
    if (words := options.get("protected")) is not None:
        options["protected"] = (words,) if isinstance(words, str) else tuple(words)
    return _reverser(lexicon, **options)(text)


@lru_cache(maxsize=16)
def _reverser(lexicon: str, **options: Any) -> Any:
    return __getattr__("Reverser")(__getattr__("load_lexicon")(lexicon), **options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: hand on to the module that does the work; its exit code, or 2 for an unknown command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print(f"error: no command {name!r}{_near(name, COMMANDS)}; evenhand --help lists them", file=sys.stderr)
        return 2
    module, is_named, _ = COMMANDS[name]
    if name == "debias":
        rest = _debias(rest)
    try:
        return import_module(module).main([name, *rest] if is_named else rest)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _debias(words: Sequence[str]) -> list[str]:
    """Arguments of `train_distill.py` for `evenhand debias`: configs/debias.yaml and what is given here."""
    about = "Make a causal language model fairer with texts that it writes itself, and measure it before and after."
    parser = argparse.ArgumentParser(prog="evenhand debias", description=about)
    parser.add_argument("model", help="a model folder, a Hub name or a GGUF file")
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="the model, its card and report.html go here"
    )
    parser.add_argument(
        "--minutes", metavar="N", help="write texts and train for about so long, measuring not included"
    )
    parser.add_argument(
        "--tokens", metavar="N", help="train on about so many tokens; four times as many are written to choose from"
    )
    parser.add_argument("--lexicon", metavar="NAME", help="gender (the default), race, or a YAML file of your own")
    parser.add_argument("--prompts", metavar="FILE", help="your own neutral beginnings of texts, one a line")
    parser.add_argument("--dry_run", action="store_true", help="check everything, say what it would cost, and stop")
    parser.add_argument("override", nargs="*", metavar="key.sub=value", help="any setting of `evenhand train`")
    given = parser.parse_intermixed_args(words)
    settings = {"teacher.model": given.model, "output_dir": given.output_dir, "data.prompts": given.prompts}
    settings["counterfactual.lexicon"] = given.lexicon
    bounds = {"--minutes": given.minutes, "--tokens": given.tokens}
    found = [
        "--config",
        str(Path(import_module("configs").__path__[0]) / "debias.yaml"),
        *["--dry_run"] * given.dry_run,
    ]
    found += [word for flag, value in bounds.items() if value for word in (flag, value)]
    if given.lexicon not in (None, "gender"):  # the preset's other measures are of gender
        found.append("eval.tasks={perplexity: {mode: documents, file: heldout.jsonl}}")
    return [*found, *(f"{key}={value}" for key, value in settings.items() if value), *given.override]


def _usage() -> str:
    meaning = "Distil language models without distilling their bias, and measure it."
    lines = ["usage: evenhand COMMAND …", "", meaning, ""]
    lines += [f"  {name:<15} {does}" for name, (_, _, does) in COMMANDS.items()]
    return "\n".join([*lines, "", "evenhand COMMAND --help says more; evenhand --version; import evenhand in Python."])


def _version() -> str:
    try:
        return version("evenhand")
    except PackageNotFoundError:
        return "not installed"


def _near(word: str, known: Iterable[str]) -> str:
    return str(import_module("counterfactuals.files").near(word, known))


if __name__ == "__main__":
    sys.exit(main())
