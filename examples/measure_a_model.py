"""Measure models you have, side by side, as an auditor would: no training, any causal language model.

    python examples/measure_a_model.py [MODEL …]

The same from a shell: evenhand eval --model MODEL --tasks next_word,perplexity --data_dir DATA
"""

import sys
import tempfile
from pathlib import Path

from eval.report.page import Study, write_page
from eval.run import evaluate

folder = Path(tempfile.mkdtemp())
import tiny  # noqa: E402

texts = tiny.corpus(folder)
models = {Path(name).name: name for name in sys.argv[1:]} or {
    "one": tiny.model(folder / "one", texts),
    "two": tiny.model(folder / "two", texts, layers=1),
}
results = evaluate(
    models,
    {"next_word": {}, "perplexity@heldout": {"mode": "documents", "file": "heldout.jsonl"}},
    data_dir=folder / "sample",
    output_dir=folder / "audit",
    limit=100,  # a quick look; leave it out for a result
)
for row in results["rows"]:
    figure = row["tasks"]["next_word"]["equitability_avg"]
    print(f"{row['model']}: equitability {figure['value']:.3f} (95 %: {figure['low']:.3f} to {figure['high']:.3f})")
print(write_page([Study.load(folder / "audit")], folder / "audit" / "report.html", title="Audit"))
