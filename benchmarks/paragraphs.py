"""Articles → paragraphs with at least two pronouns of a gender: what a small teacher learns agreement from.

python benchmarks/paragraphs.py ../shared/data/wikipedia_articles.jsonl.gz runs/wikipedia_paragraphs.jsonl
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from counterfactuals.corpus import Corpus, units
from counterfactuals.files import write_whole

PRONOUN = re.compile(r"\b(?:he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    texts = (text for _, text in units(Corpus(sys.argv[1]), paragraphs=True))
    chosen = [text for text in texts if len(text) > 80 and len(PRONOUN.findall(text)) >= 2]
    write_whole(Path(sys.argv[2]), "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen))
    print(f"{sys.argv[2]}: {len(chosen):,} paragraphs, {sum(map(len, chosen)) / 1e6:.1f} M characters")


if __name__ == "__main__":
    main()
