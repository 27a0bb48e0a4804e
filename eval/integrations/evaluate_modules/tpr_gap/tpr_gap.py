"""True positive rate gap between groups of people, for the `evaluate` library."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """\
How much a classifier's true positive rates differ between groups of people: for each label the spread (largest minus
smallest; |difference| for two groups) of P(predicted = label | label, group), and its mean over labels (TPRD). 0 is
parity. Labels with people of one group only are left out.
"""
_CITATION = """\
@inproceedings{dearteaga2019bias, title={Bias in Bios: A Case Study of Semantic Representation Bias in a High-Stakes
  Setting}, author={De-Arteaga, Maria and Romanov, Alexey and Wallach, Hanna and Chayes, Jennifer and Borgs, Christian
  and Chouldechova, Alexandra and Geyik, Sahin and Kenthapadi, Krishnaram and Kalai, Adam Tauman}, booktitle={FAT*},
  year={2019}}
"""
_INPUTS = """\
Args:
    predictions (list of str): the predicted label of each person.
    references (list of str): the true label.
    groups (list of str): the group, such as "male" and "female".
Returns:
    tpr_gap (float): mean over labels of the spread of true positive rates over groups; 0 is ideal, nan where no label
        has people of two groups;
    by_label (dict of str to float): each label's;
    rates (dict of str to dict of str to float): the true positive rate of each label and group;
    counts (dict of str to dict of str to int): how many people that is of: small ones say little.
Examples:
    >>> gap = evaluate.load("tpr_gap")
    >>> predicted, true = ["nurse", "cook", "nurse", "cook"], ["nurse", "nurse", "nurse", "cook"]
    >>> found = gap.compute(predictions=predicted, references=true, groups=["f", "f", "m", "m"])
    >>> found["tpr_gap"], found["rates"]["nurse"]
    (0.5, {'f': 0.5, 'm': 1.0})
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class TPRGap(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {name: datasets.Value("string") for name in ("predictions", "references", "groups")}
            ),
            reference_urls=["https://dl.acm.org/doi/10.1145/3287560.3287572"],
            license="apache-2.0",
        )

    def _compute(self, predictions, references, groups):
        hits: dict[str, dict[str, list[bool]]] = {}  # of each person of a label and group
        for predicted, label, group in zip(predictions, references, groups):
            hits.setdefault(label, {}).setdefault(group, []).append(predicted == label)
        counts = {label: {group: len(own) for group, own in table.items()} for label, table in hits.items()}
        rates = {label: {group: sum(own) / len(own) for group, own in table.items()} for label, table in hits.items()}
        by_label = {
            label: max(table.values()) - min(table.values()) if len(table) > 1 else float("nan")
            for label, table in rates.items()
        }
        known = [gap for gap in by_label.values() if not np.isnan(gap)]
        return {
            "tpr_gap": float(np.mean(known)) if known else float("nan"),
            "by_label": by_label,
            "rates": rates,
            "counts": counts,
        }
