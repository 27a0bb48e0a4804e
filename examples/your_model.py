"""Distil your own model on your own corpus.

    python examples/your_model.py [MODEL [TEXTS [OUTPUT_DIR]]]

MODEL is a folder or a Hub name, TEXTS a jsonl, txt or parquet file. The same from a shell:
accelerate launch train_distill.py --config configs/distilgpt2_era.yaml teacher=MODEL data=TEXTS output_dir=OUTPUT_DIR
"""

import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import train_distill

given = dict(enumerate(sys.argv[1:]))
output = Path(given.get(2) or tempfile.mkdtemp())
if 0 not in given:
    import tiny

    given[1] = str(tiny.corpus(output))
    given[0] = str(tiny.model(output / "teacher", Path(given[1])))

code = train_distill.main(
    [
        f"teacher={given[0]}",
        f"data={given.get(1, 'sample')}",
        f"output_dir={output / 'run'}",
        "data.max_length=96",
        "loss.op=max",  # combine the teacher's predictions on a text and its counterfactual …
        "loss.vocabulary=reversed",  # … carried through the role reversal
        "counterfactual.augment=true",  # and learn from both texts
        "train.max_steps=4",
        "train.batch_size=16",
        "train.micro_batch_size=8",
        "train.log_every=2",
    ]
)
assert code == 0

student = AutoModelForCausalLM.from_pretrained(output / "run" / "model")
tokenizer = AutoTokenizer.from_pretrained(output / "run" / "model")
print(f"{student.num_parameters():,} parameters, {student.config.n_layer} layer(s), in {output / 'run' / 'model'}")
