"""The pairs of a corpus made by datatrove: a task for each part, then one that joins them (pip install datatrove).

On a cluster: SlurmPipelineExecutor(pipeline, tasks=64, time="04:00:00", partition=…, depends=…) or RayPipelineExecutor
instead of the local one, and folders that all nodes share. A plain job array does the same: docs/scaling.md.
"""

import tempfile
from pathlib import Path

import tiny
from datatrove.executor import LocalPipelineExecutor

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import build_pairs, build_part
from counterfactuals.tokens.tokenizer import load_tokenizer

folder = Path(tempfile.mkdtemp())
texts = tiny.corpus(folder)  # your own: a file, a folder of files, or a Hub data set
tokenizer = tiny.model(folder / "teacher", texts)  # the folder of your teacher


def made_of(out):
    return Corpus(str(texts)), Reverser(load_lexicon("gender")), load_tokenizer(str(tokenizer)), folder / out


def part(data, rank, world_size):
    build_part(*made_of("pairs"), max_length=96, part=(rank, world_size))


def join(data, rank, world_size):
    build_pairs(*made_of("pairs"), max_length=96)


parts = LocalPipelineExecutor([part], tasks=3, workers=1, logging_dir=str(folder / "logs" / "parts"))
LocalPipelineExecutor([join], tasks=1, workers=1, logging_dir=str(folder / "logs" / "join"), depends=parts).run()

alone = build_pairs(*made_of("alone"), max_length=96)  # what one machine makes
for file in sorted(alone.folder.iterdir()):
    assert file.read_bytes() == (folder / "pairs" / alone.folder.name / file.name).read_bytes()
print(f"{alone.meta['shards']} shards, the same bytes as by one machine; train with data.pairs_dir={folder / 'pairs'}")
