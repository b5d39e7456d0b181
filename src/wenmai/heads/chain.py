"""Sums over all paths through a linear chain of tags, forwards and backwards in one loop over the tokens.

Shape letters beside those of all heads: W tokens of the longest chain, 2 the directions (from the first token on, from
the last token back). A path scores as in :mod:`wenmai.heads.viterbi`, whose layout the transitions have.

Two forms of one recursion. Shares: probabilities of float64, scaled anew at every token (Rabiner 1989), a product of
matrices a step and a gradient that is written down; 3 to 5 times faster. Logarithms: for scores so far apart that
shares would vanish, and where the gradient of a gradient is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wenmai.heads.head import IGNORE

WIDEST = 100.0
"""Differences of scores, in nats a token, up to which shares are exact: float64 holds exp(-700), and to leave one tag
for another takes two or three steps even where the rules forbid the direct one."""


@dataclass(frozen=True)
class Chain:
    """The tokens of each row that have a tag, to the left and in order; scores in float64.

    Args:
        logits_BWL: 0 outside the chain.
        transitions: (L + 2, L).
        tags_BW: gold tags, 0 outside the chain.
        inside_BW: which tokens belong to the chain.
        length_B: how many do.
        last_B1: the index of the last one, 0 for an empty chain.
        before_BW: the tag before, L at the start.
        enters_BW: 1 where the step into the token counts, 0 where the gold tags break the rules.
        leaves_B1: the same for stopping after the last token.
        wide: whether scores lie further apart than ``WIDEST``.
    """

    logits_BWL: Tensor
    transitions: Tensor
    tags_BW: Tensor
    inside_BW: Tensor
    length_B: Tensor
    last_B1: Tensor
    before_BW: Tensor
    enters_BW: Tensor
    leaves_B1: Tensor
    wide: bool

    @property
    def ends(self) -> Tensor:
        """(B, L): score of stopping after each tag."""
        return self.leaves_B1 * self.transitions[-1]

    def at_last(self, values_BWL: Tensor) -> Tensor:
        """(B, L): of each row's last token."""
        index = self.last_B1[..., None].expand(-1, 1, values_BWL.size(-1))
        return values_BWL.gather(1, index).squeeze(1)

    def reversed(self, values_BWL: Tensor) -> Tensor:
        """Each row's chain from its last token to its first; what follows the chain is of no meaning."""
        at_W = torch.arange(values_BWL.size(1), device=values_BWL.device)
        index_BW = (self.last_B1 - at_W).clamp(min=0)
        return values_BWL.gather(1, index_BW[..., None].expand_as(values_BWL))


def chain_of(logits_BTL: Tensor, transitions: Tensor, tags_BT: Tensor, allowed: Tensor) -> Chain:
    """The chain through the tokens whose tag is not IGNORE.

    Args:
        logits_BTL: score of every tag at every token.
        transitions: (L + 2, L), layout of :mod:`wenmai.heads.viterbi`.
        tags_BT: gold tags.
        allowed: booleans (L + 2, L).
    """
    labels = logits_BTL.size(-1)
    logits_BTL, transitions = logits_BTL.double(), transitions.double()
    inside_BT = tags_BT != IGNORE
    length_B = inside_BT.sum(dim=1)
    range_BT = (logits_BTL.amax(dim=-1) - logits_BTL.amin(dim=-1)).masked_fill(~inside_BT, 0.0)
    apart = range_BT.max() + 2 * transitions.masked_fill(~allowed, 0.0).abs().max()
    # both numbers at once: on a GPU every look at one waits for all that was asked for before
    longest, widest = torch.stack([length_B.max().double(), apart.detach()]).tolist()
    width = max(1, int(longest))

    order_BW = (~inside_BT).int().argsort(dim=1, stable=True)[:, :width]
    inside_BW = torch.arange(width, device=tags_BT.device) < length_B[:, None]
    logits_BWL = logits_BTL.gather(1, order_BW[..., None].expand(-1, -1, labels))
    tags_BW = tags_BT.gather(1, order_BW).clamp(min=0)
    last_B1 = (length_B - 1).clamp(min=0)[:, None]
    before_BW = torch.cat([torch.full_like(last_B1, labels), tags_BW[:, :-1]], dim=1)
    return Chain(
        # padding may hold anything, and NaN times 0 is NaN
        logits_BWL=logits_BWL.masked_fill(~inside_BW[..., None], 0.0),
        transitions=transitions,
        tags_BW=tags_BW,
        inside_BW=inside_BW,
        length_B=length_B,
        last_B1=last_B1,
        before_BW=before_BW,
        enters_BW=allowed[before_BW, tags_BW].double(),
        leaves_B1=allowed[-1][tags_BW.gather(1, last_B1)].double(),
        wide=widest > WIDEST,
    )


def gold_scores(chain: Chain) -> Tensor:
    """(B,): the score of the gold path; steps that break the rules are scored by the logits alone."""
    emitted_BW = chain.logits_BWL.gather(2, chain.tags_BW[..., None]).squeeze(2)
    moved_BW = chain.enters_BW * chain.transitions[chain.before_BW, chain.tags_BW]
    inner_B = (emitted_BW + moved_BW).masked_fill(~chain.inside_BW, 0.0).sum(dim=1)
    return inner_B + chain.ends.gather(1, chain.tags_BW.gather(1, chain.last_B1)).squeeze(1)


def log_totals(chain: Chain) -> Tensor:
    """(B,): log Σ exp(score) over all paths of each row."""
    if chain.wide:
        return _log_sums(chain)[2]
    total_B: Tensor = _TotalOfShares.apply(chain.logits_BWL, chain.transitions, chain)  # type: ignore[no-untyped-call]
    return total_B


def marginals(chain: Chain) -> Tensor:
    """(B, W, L): the probability of each tag at each token, over all paths; 0 outside the chain.

    Can be differentiated; with its slopes it takes 8 to 20 times as long as :func:`log_totals` with its own, the
    longer the more tags there are.
    """
    before_BWL, after_BWL, total_B = _log_sums(chain)
    log_BWL = before_BWL + after_BWL - chain.logits_BWL - total_B[:, None, None]
    # filled before exp: what stands outside the chain may be so large that its slope is inf
    outside_BW1 = ~chain.inside_BW[..., None]
    return log_BWL.masked_fill(outside_BW1, 0.0).exp().masked_fill(outside_BW1, 0.0)


def _both_ways(chain: Chain, values_BWL: Tensor) -> Tensor:
    """(W, 2, B, L)."""
    return torch.stack([values_BWL, chain.reversed(values_BWL)]).permute(2, 0, 1, 3).contiguous()


def _both_bounds(chain: Chain) -> Tensor:
    """(W, 2, B, 1): whether the step into the token counts; backwards it comes from the token after."""
    backwards_BW1 = chain.reversed(chain.enters_BW[..., None]).roll(1, dims=1)
    return torch.stack([chain.enters_BW[..., None], backwards_BW1]).permute(2, 0, 1, 3).contiguous()


def _log_sums(chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
    """Log sums over beginnings and over endings, (B, W, L), both with the token's own logit, and over paths, (B,)."""
    start_L = chain.transitions[-2]
    steps = chain.transitions[:-2]
    logits_W2BL, bound_W2B1 = _both_ways(chain, chain.logits_BWL), _both_bounds(chain)
    steps_21LL = torch.stack([steps, steps.T])[:, None]
    # sums[t]: over all ways to come to each tag at token t, from either end
    sums = [logits_W2BL[0] + torch.stack([chain.enters_BW[:, :1] * start_L, chain.ends])]
    for logits_2BL, bound_2B1 in zip(logits_W2BL[1:], bound_W2B1[1:], strict=True):
        ways_2BLL = torch.addcmul(sums[-1][..., None], bound_2B1[..., None], steps_21LL)
        sums.append(ways_2BLL.logsumexp(dim=-2) + logits_2BL)
    before_BWL, after_BWL = torch.stack(sums, dim=2).unbind()
    total_B = (chain.at_last(before_BWL) + chain.ends).logsumexp(dim=-1)
    return before_BWL, chain.reversed(after_BWL), total_B


class _TotalOfShares(torch.autograd.Function):
    """:func:`log_totals` by shares; its gradient is the marginals of tags and of steps."""

    @staticmethod
    def forward(ctx: Any, logits_BWL: Tensor, transitions: Tensor, chain: Chain) -> Tensor:
        highest_BW1 = logits_BWL.amax(dim=-1, keepdim=True)
        weight_BWL = (logits_BWL - highest_BW1).exp()
        steps, start_L = transitions[:-2].exp(), transitions[-2]
        ends_BL = chain.ends.exp()

        weight_W2BL, bound_W2B1 = _both_ways(chain, weight_BWL), _both_bounds(chain)
        free_W2B1 = 1 - bound_W2B1
        steps_2LL = torch.stack([steps, steps.T])
        # came[t]: the weight of all ways into each tag at token t, its own logit left out, for shares of token t - 1
        came_W2BL = torch.empty_like(weight_W2BL)
        share_W2BL, scale_W2B1 = torch.empty_like(weight_W2BL), torch.empty_like(bound_W2B1)
        came_W2BL[0] = torch.stack([(chain.enters_BW[:, :1] * start_L).exp(), ends_BL])
        tokens = zip(came_W2BL, share_W2BL, scale_W2B1, weight_W2BL, bound_W2B1, free_W2B1, strict=True)
        before: Tensor | None = None
        for came, share, scale, weight, bound, free in tokens:
            if before is not None:
                # a step that does not count leads from everywhere to everywhere, and shares sum to 1
                torch.bmm(before, steps_2LL, out=came).mul_(bound).add_(free)
            torch.mul(came, weight, out=share)
            torch.sum(share, dim=-1, keepdim=True, out=scale)
            before = share.div_(scale)

        (came_BWL, back_BWL), (share_BWL, _) = (x.permute(1, 2, 0, 3) for x in (came_W2BL, share_W2BL))
        # of everything after a token, with its own logit
        after_BWL = weight_BWL * chain.reversed(back_BWL)
        tag_BWL = came_BWL * after_BWL
        norm_BW1 = tag_BWL.sum(dim=-1, keepdim=True)
        saved = [
            # what follows the chain may have run into a tag that nothing leads out of: 0 / 0
            torch.where(chain.inside_BW[..., None], values_BWL, 0.0)
            for values_BWL in (tag_BWL / norm_BW1, share_BWL, after_BWL / norm_BW1)
        ]
        ctx.save_for_backward(*saved, steps)
        ctx.chain = chain
        scales_BW = (scale_W2B1[:, 0, :, 0].T.log() + highest_BW1.squeeze(-1)).masked_fill(
            ~chain.inside_BW, 0.0
        )
        return scales_BW.sum(dim=1) + (chain.at_last(share_BWL) * ends_BL).sum(dim=-1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_B: Tensor) -> tuple[Tensor, Tensor, None]:
        tag_BWL, share_BWL, after_BWL, steps = ctx.saved_tensors
        chain: Chain = ctx.chain
        slope_B11 = slope_B[:, None, None]
        tag_BWL = tag_BWL * slope_B11
        bound_BWL = after_BWL * slope_B11 * chain.enters_BW[..., None]
        pairs = share_BWL[:, :-1].flatten(0, 1).T @ bound_BWL[:, 1:].flatten(0, 1)
        start_L = (chain.enters_BW[:, :1] * tag_BWL[:, 0]).sum(dim=0)
        stop_L = (chain.leaves_B1 * chain.at_last(tag_BWL)).sum(dim=0)
        return tag_BWL, torch.cat([steps * pairs, start_L[None], stop_L[None]]), None
