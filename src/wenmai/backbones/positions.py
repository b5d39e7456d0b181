"""More positions than a model was trained with: copied, random, or by hierarchical decomposition.

For models that learn a vector for each position (BERT, RoBERTa and kin). The trained rows stay as they are to the bit,
so inputs that fitted before get the hidden states they had. With n trained rows p_1 ... p_n (counted from 1):

* ``copy``: position i takes row ((i - 1) mod n) + 1, as Longformer began (Beltagy et al. 2020, arXiv:2004.05150).
* ``random``: new rows are drawn from N(0, ``initializer_range``), as the model's own once were.
* ``hierarchical``: position (i - 1)·n + j, for i and j in 1 ... n, takes q = α·u_i + (1 - α)·u_j, where
  u_i = (p_i - α·p_1) / (1 - α). Then the first n are q_j = p_j, and each of the n·n places has a vector of its own
  (Su Jianlin 2020, "层次分解位置编码，让BERT可以处理超长文本", https://kexue.fm/archives/7947).

Shape letters: N positions, H width of the embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wenmai.backbones.architecture import position_limit, position_table
from wenmai.backbones.settings import PositionMethod
from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.backbones.load import Backbone
    from wenmai.backbones.tokenizer import Tokenizer

COMPUTED = {
    "roformer": "rotate queries and keys by their place",
    "modernbert": "rotate queries and keys by their place",
    "eurobert": "rotate queries and keys by their place",
    "nomic_bert": "rotate queries and keys by their place",
    "esm": "rotate queries and keys by their place",
    "deberta": "see how far apart tokens are",
    "deberta-v2": "see how far apart tokens are",
    "xlnet": "see how far apart tokens are",
    "funnel": "see how far apart tokens are",
    "mpt": "see how far apart tokens are (ALiBi)",
    "bloom": "see how far apart tokens are (ALiBi)",
}
"""What models do that need no extension, by their ``model_type``."""


def extend_positions(
    backbone: Backbone,
    tokenizer: Tokenizer,
    *,
    to: int,
    method: PositionMethod = "hierarchical",
    alpha: float = 0.4,
    generator: torch.Generator | None = None,
) -> None:
    """Gives the backbone positions for inputs of up to ``to`` tokens, and tells its configuration and the tokenizer.

    Args:
        backbone: whose table of positions is replaced by a longer one.
        tokenizer: of the same model.
        to: tokens of the longest input afterwards, special tokens included.
        method: see the top of this file.
        alpha: of ``hierarchical``: how much the place of the block counts beside the place in it.
        generator: ``random`` draws with it; None: with PyTorch's global random state.

    Raises:
        UserError: the model learns no vectors for positions, has as many already, or has too few for ``hierarchical``.
    """
    model = backbone.model
    table = _table(model)
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    trained_NH = table.weight.detach()[first:]
    have = len(trained_NH)
    _check(have, to, method)
    if method == "copy":
        rows_NH = trained_NH[torch.arange(to, device=trained_NH.device) % have]
    elif method == "hierarchical":
        rows_NH = decomposed(trained_NH, to, alpha)
    else:
        spread = float(getattr(model.config, "initializer_range", 0.02))
        drawn = torch.empty(to - have, trained_NH.size(1)).normal_(0.0, spread, generator=generator)
        rows_NH = torch.cat([trained_NH, drawn.to(trained_NH)])
    _replace(model, table, torch.cat([table.weight.detach()[:first], rows_NH]))
    model.config.max_position_embeddings = first + to
    assert position_limit(model, model.config) == to
    tokenizer.max_length = to
    tokenizer.pretrained.model_max_length = to


def decomposed(trained_NH: Tensor, to: int, alpha: float) -> Tensor:
    """Su Jianlin's hierarchical decomposition.

    Args:
        trained_NH: n trained rows.
        to: rows wanted, at most n·n.
        alpha: between 0 and 1; at 0.5 the places i of block j and j of block i would be the same.

    Returns:
        (to, H), the first n of them those given, to the bit.
    """
    have = len(trained_NH)
    base_NH = (trained_NH - alpha * trained_NH[:1]) / (1 - alpha)
    place = torch.arange(to, device=trained_NH.device)
    rows_NH = alpha * base_NH[place // have] + (1 - alpha) * base_NH[place % have]
    rows_NH[:have] = trained_NH  # the formula gives them but for rounding
    return rows_NH


def _check(have: int, to: int, method: PositionMethod) -> None:
    if to <= have:
        raise UserError(
            f"positions: {to:,} asked for (backbone.positions.to, --to), but the model has {have:,} already: "
            "ask for more, or leave it as it is"
        )
    if method == "hierarchical" and to > have * have:
        raise UserError(
            f"positions: {to:,} asked for (backbone.positions.to, --to), but {have:,} trained ones make "
            f"{have * have:,} at most ({have:,} times {have:,}) by hierarchical decomposition: ask for fewer, or take "
            "method copy"
        )


def _table(model: Any) -> nn.Embedding:
    kind = model.config.model_type
    found = position_table(model)
    if kind in COMPUTED:
        limit = position_limit(model, model.config)
        longest = "inputs of any length" if limit is None else f"up to {limit:,} tokens"
        raise UserError(
            f"positions: {kind} models learn no vector a position, they {COMPUTED[kind]}: there is nothing to "
            f"extend. This one reads {longest} as it is: remove backbone.positions and set task.max_length"
        )
    if found is None or found.num_embeddings != model.config.max_position_embeddings:
        raise UserError(
            f"positions: no table with a trained vector a position was found in this {kind} model: remove "
            "backbone.positions, and have longer texts read in windows"
        )
    return found


def _replace(model: Any, table: nn.Embedding, rows_NH: Tensor) -> None:
    """Puts the rows in the place of the table's, and makes buffers that have an entry a position as long."""
    before = table.num_embeddings
    table.weight = nn.Parameter(rows_NH.contiguous(), requires_grad=table.weight.requires_grad)
    table.num_embeddings = len(rows_NH)
    for module in model.modules():
        for name in ("position_ids", "token_type_ids"):
            buffer = module._buffers.get(name)
            if buffer is None or buffer.size(-1) != before:
                continue
            longer = torch.zeros(1, len(rows_NH), dtype=buffer.dtype, device=buffer.device)
            if name == "position_ids":
                longer[0] = torch.arange(len(rows_NH))
            module._buffers[name] = longer
