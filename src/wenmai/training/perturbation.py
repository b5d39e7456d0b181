"""Gradients of a step whose weights, or whose embedded words, are moved to where the loss is higher.

Each class is called with a :class:`~wenmai.training.gradients.Step` in place of ``step.run()``, on parameters without
gradients, and leaves its gradients there as sums over this process's loss terms, as ``step.run()`` does. What a move
depends on is either a sum over the whole step (all micro-batches, all processes) or belongs to one row, so the cut
into micro-batches never shows. It depends on directions only: a loss that is scaled for fp16 changes nothing.

Where a gradient is 0 or not finite, nothing moves. A gradient that is not finite stays among those that are left, so
that the loss scaler or the loop decides about the step.

Shape letters: B rows, T tokens, E width of the word embeddings; P perturbations of N numbers each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wenmai.backbones.dropout import name_salt, noise, token_keys
from wenmai.data.rows import Batch
from wenmai.training.gradients import Step
from wenmai.training.parallel import Parallel

START = name_salt("wenmai.training.perturbation.start")
"""Keeps FreeLB's start apart from the dropout, which is keyed by the row as well."""


PIECE = 1024
"""How many numbers a norm sums up at once."""


@dataclass(frozen=True)
class MovedWeights:
    """Clean gradients plus those at the worst weights nearby: FGM, PGD and AWP.

    Every group of weights w has a perturbation r of its own, from 0. With g the gradient of the whole step at w + r::

        r <- r + step_size * scale * g / ||g||      and if ||r|| > epsilon * scale, r is shortened to that norm

    ``steps`` times; ``scale`` is 1, or ||w|| if ``relative``. The gradients at the last w + r are added to the clean
    ones; those on the way only point uphill and are thrown away. The weights come back bit for bit.

    * FGM (Miyato et al. 2017): the word embeddings, one step of length epsilon. 2 passes.
    * PGD (Madry et al. 2018): the same in several shorter steps. 1 + steps passes.
    * AWP (Wu et al. 2020): every matrix a group, relative. 1 + steps passes. The paper puts the gradients at the
      moved weights in the place of the clean ones; here they are added as with FGM, the usual practice with texts.

    Args:
        groups: the weights that move; a group's norms are those of all its tensors as one vector.
        everything: all parameters of the model.
        epsilon: how far a group moves at most.
        step_size: how far one step goes.
        steps: how many steps uphill, at least 1.
        relative: epsilon and step_size are shares of the norm of the group's weights.
    """

    groups: Sequence[Sequence[nn.Parameter]]
    everything: Sequence[nn.Parameter]
    epsilon: float
    step_size: float
    steps: int
    relative: bool = False

    def __call__(self, step: Step) -> tuple[float, int]:
        """Adds clean and adversarial gradients to the parameters.

        Weights that do not train yet (gradual unfreezing) do not move either; while none of the groups trains, the
        clean gradients are all there is.

        Returns:
            the sum of the CLEAN loss terms and their number, of this process.
        """
        clean = step.run()
        groups = [kept for group in self.groups if (kept := [p for p in group if p.requires_grad])]
        if not groups:
            return clean
        originals = [_flat(group).clone() for group in groups]
        moves = [original.new_zeros(1, 1) for original in originals]
        scales = [_norm(original) if self.relative else 1.0 for original in originals]
        uphill = _uphill(groups, step.parallel)
        try:
            for number in range(self.steps):
                if number:
                    with _gradients_set_aside(self.everything):
                        step.run()
                        uphill = _uphill(groups, step.parallel)
                for at, (group, scale) in enumerate(zip(groups, scales, strict=True)):
                    moves[at] = climbed(
                        moves[at], uphill[at], step=self.step_size * scale, limit=self.epsilon * scale
                    )
                    _write(group, originals[at], moves[at])
            step.run()
        finally:
            for group, original in zip(groups, originals, strict=True):
                _write(group, original)
        return clean


@dataclass(frozen=True)
class MovedWords:
    """Gradients at the worst embedded words near those of each text: FreeLB (Zhu et al. 2020).

    Every row has a perturbation d (T, E) of its own, which is added to its embedded words: special tokens too, padding
    never. It starts at random, each of its n numbers from U(-epsilon, epsilon) / sqrt(n). There are ``steps`` passes,
    and after each, with g the gradient of the loss at d::

        d <- d + step_size * g / ||g||              and if ||d|| > epsilon, d is shortened to that norm

    The gradients that are left are the mean of those of all passes: none is lost on the search, and none is clean.

    The start is drawn from the row's ``key``, and all norms are those of one row, so neither padding nor the rows
    beside it change what becomes of a row.

    Args:
        words: the word embeddings; they need not train.
        epsilon: how far a row moves at most.
        step_size: how far one step goes.
        steps: how many passes, at least 1.
    """

    words: nn.Embedding
    epsilon: float
    step_size: float
    steps: int

    def __call__(self, step: Step) -> tuple[float, int]:
        """Adds the mean gradients of all passes to the parameters.

        Returns:
            the sum of the loss terms, as the mean of all passes, and the number of terms, of this process.
        """
        moves = [self._start(batch) for batch in step.batches]
        total, terms = 0.0, 0
        for number in range(self.steps):
            for move in moves:
                move.requires_grad_()
            batches = [
                batch | {"perturbation": move} for batch, move in zip(step.batches, moves, strict=True)
            ]
            loss, terms = replace(step, batches=batches).run(1 / self.steps)
            total += loss
            if number + 1 < self.steps:
                moves = [self._next(move) for move in moves]
        return total / self.steps, terms

    def _start(self, batch: Batch) -> Tensor:
        place_BT = batch["attention_mask"].cumsum(dim=1) - 1
        draws_BTE = noise(token_keys(batch["key"][:, None], place_BT), START, self.words.embedding_dim)
        mask_BT1 = batch["attention_mask"][:, :, None].to(self.words.weight)
        uniform_BTE = (draws_BTE.to(mask_BT1) + 0.5) / 32768
        numbers_B11 = mask_BT1.sum(dim=1, keepdim=True).clamp(min=1) * self.words.embedding_dim
        return uniform_BTE * mask_BT1 * self.epsilon / numbers_B11.sqrt()

    def _next(self, move_BTE: Tensor) -> Tensor:
        if move_BTE.grad is None:
            return move_BTE.detach()
        moved = climbed(
            move_BTE.detach().flatten(1), move_BTE.grad.flatten(1), step=self.step_size, limit=self.epsilon
        )
        return moved.view_as(move_BTE)


def climbed(move_PN: Tensor, uphill_PN: Tensor, *, step: float | Tensor, limit: float | Tensor) -> Tensor:
    """Each of P perturbations after a step of the given length uphill, shortened to the limit.

    In place, because on a CPU fresh memory for the gradient of all word embeddings costs more than the arithmetic.

    Args:
        move_PN: where they are; broadcast.
        uphill_PN: gradients of any length, overwritten by the result. Where one is 0 or not finite, its
            perturbation stays.
        step, limit: numbers, or (P, 1).
    """
    norm_P1 = _norm(uphill_PN)
    usable_P1 = torch.isfinite(norm_P1) & (norm_P1 > 0)
    # infinity times 0 is not 0: what is not usable is taken out before it is scaled
    moved_PN = uphill_PN.masked_fill_(~usable_P1, 0.0)
    moved_PN.mul_(torch.where(usable_P1, step / norm_P1, 0.0)).add_(move_PN)
    smallest = torch.finfo(moved_PN.dtype).tiny
    return moved_PN.mul_((limit / _norm(moved_PN).clamp(min=smallest)).clamp(max=1.0))


def _norm(vectors_PN: Tensor) -> Tensor:
    """(P, 1). In two stages: a sum over millions of fp32 numbers at once is off in the fourth digit."""
    pieces, rest = divmod(vectors_PN.size(1), PIECE)
    in_pieces, left = vectors_PN.split_with_sizes([pieces * PIECE, rest], dim=1)
    of_pieces = torch.linalg.vector_norm(in_pieces.reshape(len(vectors_PN), pieces, PIECE), dim=2)
    norm: Tensor = torch.linalg.vector_norm(torch.cat([of_pieces, left], dim=1), dim=1, keepdim=True)
    return norm


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    """The tensors as one vector, (1, N); of a single tensor a view."""
    flat = [tensor.detach().flatten() for tensor in tensors]
    return (flat[0] if len(flat) == 1 else torch.cat(flat))[None]


def _uphill(groups: Iterable[Iterable[nn.Parameter]], parallel: Parallel) -> list[Tensor]:
    """Copies of each group's gradient of the whole step, (1, N); a process without an example has none, which is 0."""
    return [
        parallel.summed(_flat(p.grad if p.grad is not None else torch.zeros_like(p) for p in group))
        for group in groups
    ]


@torch.no_grad()
def _write(group: Sequence[nn.Parameter], original_1N: Tensor, move_1N: Tensor | None = None) -> None:
    sizes = [p.numel() for p in group]
    for p, original in zip(group, original_1N[0].split_with_sizes(sizes), strict=True):
        p.copy_(original.view_as(p))
    if move_1N is not None:
        for p, move in zip(group, move_1N[0].split_with_sizes(sizes), strict=True):
            p.add_(move.view_as(p))


@contextmanager
def _gradients_set_aside(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, gradients begin empty; afterwards they are the earlier ones again."""
    kept = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in zip(parameters, kept, strict=True):
            p.grad = gradient
