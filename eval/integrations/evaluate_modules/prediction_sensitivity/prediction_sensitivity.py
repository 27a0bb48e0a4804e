"""Accumulated prediction sensitivity, for the `evaluate` library."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """\
How far a classifier's predictions depend on the tokens that give a protected status away: P = wᵀ |J| v of each text, J
being the Jacobian of class probabilities with respect to tokens, w weights of the classes and v weights of the tokens
by how much they say about protected status. 0 is ideal: no such token moves the prediction. The ratio to P for even v
does not depend on the scale of the embeddings: 0 is ideal, too, and 1 says that such tokens move the prediction as
much as the average token.
"""
_CITATION = """\
@inproceedings{krishna2022measuring, title={Measuring Fairness of Text Classifiers via Prediction Sensitivity},
  author={Krishna, Satyapriya and Gupta, Rahul and Verma, Apurv and Dhamala, Jwala and Pruksachatkun, Yada and Chang,
  Kai-Wei}, booktitle={ACL}, year={2022}}
"""
_INPUTS = """\
Args:
    predictions (list of list of list of float): for each text the Jacobian, classes × tokens: how much each token's
        input moves each class probability (with embeddings as input, Σ over their entries of |∂p_k / ∂e_td|).
    references (list of list of float): for each text the tokens' weights v, such as a protected-status classifier's own
        gradients or its attention; they are scaled to sum to 1, and are even where all are 0.
    class_weights (list of float, optional): w, one a class; by default 1 / number of classes each.
Returns:
    prediction_sensitivity (float): mean over texts; 0 is ideal;
    ratio (float): mean over texts of P over its value for even v, texts that nothing moves left out; 0 is ideal, 1 is
        as much as the average token;
    by_text (list of float): P of each text.
Examples:
    >>> sensitivity = evaluate.load("prediction_sensitivity")
    >>> found = sensitivity.compute(predictions=[[[0.5, 0.0, 0.1], [0.5, 0.0, 0.1]]], references=[[0.0, 1.0, 1.0]])
    >>> round(found["prediction_sensitivity"], 3), round(found["ratio"], 3)
    (0.05, 0.25)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class PredictionSensitivity(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://aclanthology.org/2022.acl-long.401"],
            license="apache-2.0",
        )

    def _compute(self, predictions, references, class_weights=None):
        values, ratios = [], []
        for number, (jacobian, weights) in enumerate(zip(predictions, references)):
            jacobian_KT, v_T = np.abs(np.array(jacobian, float)), np.array(weights, float)
            if jacobian_KT.ndim != 2 or jacobian_KT.shape[1] != len(v_T) or not len(v_T):
                raise ValueError(f"text {number}: {len(v_T)} token weights for a Jacobian of shape {jacobian_KT.shape}")
            num_classes = len(jacobian_KT)
            w_K = np.full(num_classes, 1 / num_classes) if class_weights is None else np.array(class_weights, float)
            if len(w_K) != num_classes:
                raise ValueError(f"text {number}: {len(w_K)} class weights for {num_classes} classes")
            even_T = np.full(len(v_T), 1 / len(v_T))
            v_T = v_T / v_T.sum() if v_T.sum() > 0 else even_T
            values.append(float(w_K @ jacobian_KT @ v_T))
            if (even := w_K @ jacobian_KT @ even_T) > 0:
                ratios.append(values[-1] / even)
        return {
            "prediction_sensitivity": float(np.mean(values)) if values else float("nan"),
            "ratio": float(np.mean(ratios)) if ratios else float("nan"),
            "by_text": values,
        }
