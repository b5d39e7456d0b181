"""How far apart the answers of two passes with different dropout are: what R-Drop adds to the loss.

Liang, Wu et al. (2021) train on ``L1 + L2 + α/2 (KL(p‖q) + KL(q‖p))``, with L1 and L2 the losses of the passes, p and q
what they predict. The loop takes exactly half of it, the mean of the two losses plus α times ``¼ (KL(p‖q) + KL(q‖p))``,
so that the loss keeps the scale of one pass: α is the paper's (1 to 5). The functions here give the quarter.

The two directions together are ``Σ (p - q)(log p - log q)``, which is 0 for equal answers and never below.
"""

from __future__ import annotations

from torch import Tensor

from wenmai.heads.head import widened

QUARTER = 0.25


def softmax_divergence(first_NL: Tensor, second_NL: Tensor) -> Tensor:
    """(N,): a quarter of the two directions between the softmax of each row."""
    first_NL, second_NL = widened(first_NL).log_softmax(dim=-1), widened(second_NL).log_softmax(dim=-1)
    return QUARTER * ((first_NL.exp() - second_NL.exp()) * (first_NL - second_NL)).sum(dim=-1)


def sigmoid_divergence(first: Tensor, second: Tensor) -> Tensor:
    """The same for each logit of a yes or no, in their shape: ``¼ (σ(s1) - σ(s2))(s1 - s2)``."""
    first, second = widened(first), widened(second)
    return QUARTER * (first.sigmoid() - second.sigmoid()) * (first - second)
