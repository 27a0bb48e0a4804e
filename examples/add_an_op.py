"""A perturbation of your own: a function of two rows of log-probabilities, and a line in OPS.

To keep it, put the line into debias/ops.py and its name into Op in configs/schema.py; the tests over OPS then check
that it is normalised, finite, and the identity where both rows are equal.
"""

import torch

from debias.ops import OPS, perturb

# the counterpart's prediction wherever it is less sure: min instead of max
OPS["min"] = lambda own, mate, share: torch.minimum(own, mate)

own = torch.tensor([[0.5, 0.1, 0.2, 0.2]]).log()
mate = torch.tensor([[0.1, 0.6, 0.1, 0.2]]).log()
target = perturb("min", own, mate)
print([round(p, 3) for p in target.exp()[0].tolist()])
assert torch.allclose(target.exp().sum(), torch.tensor(1.0))
assert torch.allclose(perturb("min", own, own), own, atol=1e-6)
del OPS["min"]
