"""Another attribute than gender: one YAML file. Training takes it with counterfactual.lexicon=age.yaml."""

import tempfile
from pathlib import Path

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser

path = Path(tempfile.mkdtemp()) / "age.yaml"
path.write_text(
    """
name: age
version: 1
licence: CC0-1.0
source: an example
groups: [young, old]
pairs:
  people: [youngster oldster, youngsters oldsters, boyhood senescence]
  words: [young old, younger older, youngest oldest, youth age]
""",
    encoding="utf-8",
)
reverser = Reverser(load_lexicon(path))
for text in ("The youngest of the workers asked the old man.", "YOUNG and old, in youth and in age."):
    reversal = reverser(text)
    print(f"{text}\n→ {reversal.reversed}")
    assert reverser(reversal.reversed).reversed == text
