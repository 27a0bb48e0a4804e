"""Texts that a teacher writes itself (data.source: self): where a context is neutral, and where it is not.

In running text a name or a pronoun comes before anything neutral can be learnt; here every token is spent where the
bias is, and no corpus brings its own style.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import nlargest
from pathlib import Path
from typing import Any

import torch

from configs import teachers
from configs.load import path_of
from configs.schema import Config, Loss
from counterfactuals.files import write_whole
from counterfactuals.prompts import kind, own_prompts, prompts
from counterfactuals.provenance import model_fingerprint
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.shards import sha256_of_facts
from counterfactuals.tokens.vocabulary import role_tokens
from debias.losses import role_shares
from debias.models import add_lora
from debias.ops import VocabularyRoles, combine

log = logging.getLogger(__name__)

TEXTS = 4096  # unless data.max_texts says otherwise
TOP_P = 0.9
WITH_COUNTERFACTUAL = 0.5  # texts that have a counterfactual, about
BATCH = 256  # texts that are written together, and kept if the writing stops
VERSION = 1  # of what is drawn from the same prompts


def own_texts(config: Config, model: str, reverser: Reverser) -> Path:
    """The file of the teacher's texts below OUTPUT_DIR/self, written if it is not there yet; model: its path or name.

    A killed run goes on with the next batch: batch number and seed alone say what is drawn. Ranks other than the first
    wait for the file. With data.choose_from, the most uneven texts of each kind are kept: the neutral ones have most to
    learn from, the cued ones most to preserve.
    """
    asked, facts = _prompts(config), {"version": VERSION, "teacher": model_fingerprint(model), "top_p": TOP_P}
    facts |= {"length": config.data.max_length, "seed": config.seed, "dtype": config.teacher.dtype}
    if config.data.choose_from > 1:
        facts |= {"chosen by": ["words, by kind", config.loss.op, config.loss.mix, reverser.fingerprint]}
    number = config.data.max_texts or TEXTS
    name = f"texts-{number}-{sha256_of_facts([facts, asked])[:16]}.jsonl"
    path = Path(config.output_dir) / "self" / name
    if int(os.environ.get("RANK", "0")):
        while not path.exists():
            time.sleep(1)
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        done = [line for line in _lines(partial) if line.endswith("\n")]
        done = done[: len(done) // BATCH * BATCH]
        if done:
            write_whole(partial, "".join(done))
        else:
            partial.unlink(missing_ok=True)
        for batch in _written(config, model, reverser, asked, len(done)):
            with partial.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in batch))
        rows = [json.loads(line) for line in _lines(partial)]
        kept = _best(rows, number, config.data.cued_every) if config.data.choose_from > 1 else range(number)
        write_whole(path, "".join(json.dumps(rows[i]) + "\n" for i in kept))
        partial.unlink()
    return path


def _best(rows: list[dict[str, Any]], number: int, cued_every: int) -> list[int]:
    """Indices of the `number` rows to keep: of each kind the most uneven, as many as the first `number` hold."""
    kinds, kept = [kind(i, cued_every) for i in range(len(rows))], []
    for one, room in Counter(kinds[:number]).items():
        of_kind = (i for i in range(len(rows)) if kinds[i] == one)
        kept += nlargest(room, of_kind, key=lambda i: rows[i]["uneven"])
    return sorted(kept)


def set_num_texts(
    whole: Config, runs: dict[str, Config], *, minutes: float | None = None, tokens: int | None = None
) -> None:
    """Set data.max_texts to what fits: into so many tokens, or by this machine's speed into the minutes, in every run.

    All runs of a command get the number that fits the dearest. Where texts lie already, whole or in part, their number
    stays: the texts and the schedule depend on it.
    """
    if not all(0 < given < math.inf for given in (minutes, tokens) if given is not None):
        raise ValueError("--minutes, --tokens: must be a number above 0")
    if minutes and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--minutes: several ranks would measure different speeds; say how much with --tokens")
    configs = list(runs.values())
    if any(config.data.source != "self" for config in configs):
        raise ValueError("--minutes, --tokens: they say how much a teacher writes, with data.source self")
    room = min(int(tokens / (c.data.max_length * _epochs(c))) for c in configs) if tokens else None
    folder = Path(whole.output_dir) / "self"
    begun = sorted(folder.glob("texts-*"), key=lambda path: path.stat().st_mtime)
    if begun:
        texts = int(begun[-1].name.split("-")[1])
        if room not in (None, texts):
            raise ValueError(
                f"--tokens {tokens}: room for {room} texts, but {begun[-1]} was begun for {texts}; give the former "
                "number, delete that file, or choose another output_dir"
            )
    else:
        texts = int(60 * (minutes or 0) / max(map(seconds_a_text, configs))) if room is None else room
        if texts < max(config.train.batch_size for config in configs):
            raise ValueError(f"--minutes, --tokens: room for {texts} texts, fewer than a step has; give more")
    for config in (whole, *configs):
        config.data.max_texts = texts
    log.info("self     %s texts%s", f"{texts:,}", f", as in {folder}" if begun else "")


def seconds_a_text(config: Config) -> float:
    """Seconds in which this machine writes a text and trains on it in all epochs, without the optimizer's steps."""
    from eval.model import Scorer

    model = path_of(config, config.teacher.model or "")
    scorer = Scorer(
        model, dtype=getattr(torch, config.teacher.dtype), trust_remote_code=config.teacher.trust_remote_code
    )
    length, size = config.data.max_length, config.train.micro_batch_size
    ids = scorer.encode(_prompts(config)[:BATCH], bos=True)
    few = 4
    writing = _seconds(lambda: scorer.sample_ids(ids, max_new_tokens=few, batch_size=BATCH)) / (few * len(ids))
    student = scorer.model.train()
    if config.student.lora:
        add_lora(student, **config.student.lora)
    ids_NT = torch.randint(len(scorer.tokenizer), (size, length), device=scorer.device)

    def predict() -> None:  # the teacher's part
        with torch.no_grad():
            student(input_ids=ids_NT)

    def learn() -> None:
        student(input_ids=ids_NT, labels=ids_NT).loss.backward()

    new = length - sum(map(len, ids)) / len(ids)
    writing *= new * config.data.choose_from
    c, reversed_ = config.counterfactual, WITH_COUNTERFACTUAL * (config.counterfactual.max_doubt != 0)
    read = teachers.num_read(config, reversed_)
    trained = 1 + reversed_ * (c.augment == "both")
    return writing + _epochs(config) * (read * _seconds(predict) + trained * _seconds(learn)) / size


def _epochs(config: Config) -> float:
    return float(config.train.epochs or 1)


def _seconds(work: Callable[[], Any]) -> float:
    """Of the second time that this work is done."""
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def _prompts(config: Config) -> list[str]:
    lexicon = load_lexicon(config.counterfactual.lexicon)
    own = own_prompts(config.data.prompts, lexicon) if config.data.prompts else []
    number = (config.data.max_texts or TEXTS) * config.data.choose_from
    return prompts(lexicon, number, config.seed, own, cued_every=config.data.cued_every)


class _Uneven:
    """How uneven the groups' words are in each text, noted while it is written: what there is to learn, or to keep.

    `role_shares` of the prediction combined with its own role reversal, and the prediction; summed after the prompt.
    In a neutral text, up to the first token with a role: until there the model is made even. In a cued one, to its end:
    this is what evening it too would destroy. That needs no further run of the model. Given names do not count: many
    of their tokens are other words, too. roles: of the words; ids: the prompts; ends: for each, the tokens after which
    to stop.
    """

    def __init__(
        self, loss: Loss, roles: VocabularyRoles, ids: list[list[int]], ends: list[set[int]], length: int
    ) -> None:
        self.loss, self.token_L, self.ends = loss, roles.token_L, ends
        self.roles = roles.alone()
        self.open = {row: (tokens[-1], length - len(tokens)) for row, tokens in enumerate(ids)}  # last token, room
        self.found = [0.0] * len(ids)

    def __call__(self, logits_BV: torch.Tensor, token_B: torch.Tensor, rows: list[int]) -> None:
        """A `Watch` of eval.sampling."""
        places = [place for place, row in enumerate(rows) if row in self.open]
        context_R = torch.tensor([self.open[rows[place]][0] for place in places], device=logits_BV.device).long()
        own_RL = logits_BV[places].float().log_softmax(-1)[:, self.token_L]
        told: dict[str, Any] = {"context_R": context_R, "turn_R": torch.zeros_like(context_R)}  # no group is named yet
        target_RL = combine(self.loss.op, own_RL, own_RL, mix=self.loss.mix, roles=self.roles, **told)
        shares_R, _ = role_shares(target_RL, own_RL)
        tokens = token_B.tolist()
        for place, share in zip(places, shares_R.tolist()):
            row, token = rows[place], tokens[place]
            self.found[row] += share
            _, room = self.open.pop(row)
            if room > 1 and token not in self.ends[row]:
                self.open[row] = token, room - 1


def _written(
    config: Config, model: str, reverser: Reverser, asked: list[str], done: int
) -> Iterator[list[dict[str, Any]]]:
    """Batches of {"text"}, from prompt number `done` on. Texts are cut to data.max_length tokens.

    With data.choose_from above 1 each row also has "uneven", the score from `_Uneven`.
    """
    from eval.model import Scorer

    options: dict[str, Any] = {"dtype": getattr(torch, config.teacher.dtype), "batch_size": BATCH}
    scorer = Scorer(model, trust_remote_code=config.teacher.trust_remote_code, **options)
    length, began = config.data.max_length - 1, time.perf_counter()  # a token is left for the end of the text
    choosing = config.data.choose_from > 1
    if choosing:
        every_role, words = (
            role_tokens(one, scorer.tokenizer, scorer.vocab_size)
            for one in (reverser, replace(reverser, policy="keep_names"))
        )
        roles = VocabularyRoles.build(words, scorer.device)
        role_or_end = scorer.ends.union(every_role.token_L.tolist())
    encoded = scorer.encode(asked, bos=True)
    longest = max(map(len, encoded))
    if longest >= length:
        raise ValueError(f"data.max_length {config.data.max_length}: a prompt has {longest} tokens; raise it")
    for start in range(done, len(asked), BATCH):
        part, ids = asked[start : start + BATCH], encoded[start : start + BATCH]
        draw: dict[str, Any] = {"top_p": TOP_P, "seed": config.seed + start, "batch_size": BATCH}
        if choosing:
            numbers = range(start, start + len(ids))
            neutral = [kind(number, config.data.cued_every) == "neutral" for number in numbers]
            ends = [role_or_end if is_neutral else scorer.ends for is_neutral in neutral]
            draw["watch"] = watch = _Uneven(config.loss, roles, ids, ends, length)
        new = scorer.sample_ids(ids, max_new_tokens=length - min(map(len, ids)), **draw)
        new = [row[: length - len(prompt)] for prompt, row in zip(ids, new)]
        after = scorer.decode_after([row[-1] for row in ids], new)
        rows: list[dict[str, Any]] = [{"text": text + more} for text, more in zip(part, after)]
        for row, found in zip(rows, watch.found if choosing else ()):
            row["uneven"] = found
        yield rows
        rate = (start + len(part) - done) / (time.perf_counter() - began)
        log.info("self     %s of %s texts, %.0f a second", f"{start + len(part):,}", f"{len(asked):,}", rate)
