"""Effect size of embedding association tests (WEAT, SEAT, CEAT), for the `evaluate` library."""

import itertools
import math

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """\
Whether the embeddings of two target sets X and Y differ in how close they are to two attribute sets A and B: effect
size (mean s over X − mean s over Y) / std of s over X ∪ Y (ddof 1), s(w) = mean cos(w, a) − mean cos(w, b), and the
one-sided permutation p. 0 is no association; above 0, X goes with A and Y with B.
"""
_CITATION = """\
@article{caliskan2017semantics, title={Semantics derived automatically from language corpora contain human-like
  biases}, author={Caliskan, Aylin and Bryson, Joanna J. and Narayanan, Arvind}, journal={Science}, year={2017}}
@inproceedings{may2019measuring, title={On Measuring Social Biases in Sentence Encoders}, author={May, Chandler and
  Wang, Alex and Bordia, Shikha and Bowman, Samuel R. and Rudinger, Rachel}, booktitle={NAACL}, year={2019}}
"""
_INPUTS = """\
Args:
    predictions (list of list of float): the embeddings of words or sentences.
    references (list of str): which set each belongs to, "X" or "Y" (targets), "A" or "B" (attributes).
    num_samples (int): partitions of X ∪ Y to draw for p where there are more; 100,000. 0: no p.
    seed (int): of that drawing; 0.
Returns:
    effect_size (float): 0 is ideal; nan where all associations are equal;
    p_value (float): share of partitions whose X sums to at least what X does; exact where they are few.
Examples:
    >>> association = evaluate.load("association_effect_size")
    >>> vectors = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.0, 1.0]]
    >>> found = association.compute(predictions=vectors, references=["X", "X", "Y", "Y", "A", "B"])
    >>> round(found["effect_size"], 3), round(found["p_value"], 3)
    (1.729, 0.167)
"""
SETS = ("X", "Y", "A", "B")


def _associations(targets, a, b):
    def unit(vectors):
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)

    return unit(targets) @ (unit(a).mean(0) - unit(b).mean(0))


def _permutation_p(s_x, s_y, num_samples, seed):
    both, size = np.concatenate([s_x, s_y]), len(s_x)
    least = s_x.sum() - 1e-12 * max(1.0, np.abs(both).sum())  # equal up to rounding counts as equal
    if math.comb(len(both), size) <= num_samples:
        sums = np.array([both[list(chosen)].sum() for chosen in itertools.combinations(range(len(both)), size)])
        return float((sums >= least).mean())
    generator = np.random.default_rng(seed)
    hits, left = 1, num_samples - 1  # the partition at hand is one of them, so p is never 0
    while left:
        part = min(left, max(1, 2**21 // len(both)))
        drawn = generator.permuted(np.tile(both, (part, 1)), axis=1)[:, :size].sum(1)
        hits += int((drawn >= least).sum())
        left -= part
    return hits / num_samples


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class AssociationEffectSize(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("string")}
            ),
            reference_urls=["https://aclanthology.org/N19-1063"],
            license="apache-2.0",
        )

    def _compute(self, predictions, references, num_samples=100_000, seed=0):
        for name in dict.fromkeys(references):
            if name not in SETS:
                raise ValueError(f"references: {name!r} is none of {', '.join(SETS)}")
        parts = {
            name: np.array([vector for vector, found in zip(predictions, references) if found == name], float)
            for name in SETS
        }
        for name, part in parts.items():
            if not len(part):
                raise ValueError(f"references: nothing belongs to {name}")
        s_x, s_y = (_associations(parts[name], parts["A"], parts["B"]) for name in ("X", "Y"))
        spread = np.concatenate([s_x, s_y]).std(ddof=1)
        effect = float((s_x.mean() - s_y.mean()) / spread) if spread > 0 else float("nan")
        found = {"effect_size": effect}
        if num_samples:
            found["p_value"] = _permutation_p(s_x, s_y, num_samples, seed)
        return found
