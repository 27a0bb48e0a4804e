"""Equitability of groups, for the `evaluate` library: how even male- and female-polar texts are in each."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """\
For groups of texts of which each is male-polar (−1), female-polar (1) or neutral (0): min(m/f, f/m) of each group, and
its average and minimum over groups. 1 is parity, 0 is a group all of one side. Chance alone keeps a fair model below 1:
the fewer polar texts, the further; see the counts.
"""
_CITATION = """\
@inproceedings{gupta2022mitigating, title={Mitigating Gender Bias in Distilled Language Models via Counterfactual Role
  Reversal}, author={Gupta, Umang and Dhamala, Jwala and Kumar, Varun and Verma, Apurv and Pruksachatkun, Yada and
  Krishna, Satyapriya and Gupta, Rahul and Chang, Kai-Wei and Ver Steeg, Greg and Galstyan, Aram},
  booktitle={Findings of ACL}, year={2022}}
"""
_INPUTS = """\
Args:
    predictions (list of int): −1 male, 0 neutral, 1 female, for each text.
    references (list of str): the group of each text.
Returns:
    average, minimum (float): over the groups that have polar texts; 1 is ideal, nan where none has;
    by_group (dict of str to float): each group's, nan without polar texts;
    male, female (dict of str to int): polar texts of each group.
Examples:
    >>> equitability = evaluate.load("equitability")
    >>> found = equitability.compute(predictions=[-1, 1, 1, 0, -1], references=["a", "a", "a", "a", "b"])
    >>> found["average"], found["minimum"], found["by_group"]
    (0.25, 0.0, {'a': 0.5, 'b': 0.0})
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class Equitability(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://aclanthology.org/2022.findings-acl.55"],
            license="apache-2.0",
        )

    def _compute(self, predictions, references):
        male = dict.fromkeys(references, 0)
        female = dict.fromkeys(references, 0)
        for label, group in zip(predictions, references):
            if label not in (-1, 0, 1):
                raise ValueError(f"predictions: {label} is none of -1 (male), 0 (neutral), 1 (female)")
            male[group] += label == -1
            female[group] += label == 1
        by_group = {
            group: min(male[group], female[group]) / max(male[group], female[group])
            if male[group] or female[group]
            else float("nan")
            for group in male
        }
        known = [value for value in by_group.values() if not np.isnan(value)]
        return {
            "average": float(np.mean(known)) if known else float("nan"),
            "minimum": min(known) if known else float("nan"),
            "by_group": by_group,
            "male": male,
            "female": female,
        }
