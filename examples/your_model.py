"""Distil your own model on your own corpus: configs/distill.yaml with its two lines changed.

    python examples/your_model.py [MODEL [TEXTS [OUTPUT_DIR]]]

MODEL is a folder or a Hub name, TEXTS a jsonl, txt or parquet file. The same from a shell:
accelerate launch train_distill.py --config configs/distill.yaml teacher.model=MODEL data.source=TEXTS
"""

import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import train_distill

CONFIG = Path(train_distill.__file__).with_name("configs") / "distill.yaml"
given = dict(enumerate(sys.argv[1:]))
output = Path(given.get(2) or tempfile.mkdtemp())
more = []
if 0 not in given:  # a tiny model and few texts instead
    import tiny

    given[1] = str(tiny.corpus(output))
    given[0] = str(tiny.model(output / "teacher", Path(given[1])))
    more = ["data.max_length=96", "train.max_steps=4", "train.log_every=2"]

own = [f"teacher.model={given[0]}", f"data.source={given.get(1, 'texts.jsonl')}", f"output_dir={output / 'run'}"]
code = train_distill.main(["--config", str(CONFIG), *own, *more])
assert code == 0

student = AutoModelForCausalLM.from_pretrained(output / "run" / "model")
tokenizer = AutoTokenizer.from_pretrained(output / "run" / "model")
layers = student.config.num_hidden_layers
print(f"{student.num_parameters():,} parameters, {layers} layer(s), in {output / 'run' / 'model'}")
