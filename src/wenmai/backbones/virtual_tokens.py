"""Vectors that no word has, in front of the text: prompts at the input, prefixes in every layer.

* prompt tuning (Lester et al. 2021, arXiv:2104.08691): P vectors before the embedded text, learned as they are
* P-tuning (Liu et al. 2021, arXiv:2103.10385): the same, made by a small LSTM or MLP from vectors that are learned
* prefix tuning (Li & Liang 2021, arXiv:2101.00190): P keys and values before those of the text in every layer, made by
  an MLP from vectors that are learned
* P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): the same, learned as they are

The text keeps the positions that it was pre-trained with: prompts share the first one, prefixes have none. So a text
may be as long as before, and padded and packed batches see the same. (peft shifts the text by P positions.)

Shape letters: B rows, T tokens, P virtual tokens, E width of word embeddings, L attention modules, A heads of keys and
values, D numbers a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wenmai.backbones.adapter_settings import Reparameterization

SMALL = 0.02
"""Standard deviation of vectors that are learned as they are, at the start."""

Batch = dict[str, Tensor]


class Vectors(nn.Module):
    """P vectors of a width, learned, or made of such.

    Args:
        count: P.
        width: of each.
        inner: width of the learned vectors where something makes others of them.
        encoder: what does; none: the vectors are learned as they are.
        hidden: width inside of it.
    """

    def __init__(self, count: int, width: int, *, inner: int, encoder: Reparameterization, hidden: int):
        super().__init__()
        direct = encoder == "none"
        self.vectors = nn.Parameter(
            torch.randn(count, width if direct else inner) * (SMALL if direct else 1.0)
        )
        self.lstm: nn.LSTM | None = None
        self.mlp: nn.Sequential | None = None
        if encoder == "mlp":
            self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.Tanh(), nn.Linear(hidden, width))
        elif encoder == "lstm":
            self.lstm = nn.LSTM(inner, hidden, num_layers=2, bidirectional=True, batch_first=True)
            self.mlp = nn.Sequential(
                nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width)
            )

    def forward(self) -> Tensor:
        """(P, width)."""
        found: Tensor = self.vectors
        if self.lstm is not None:
            found = self.lstm(found[None])[0][0]
        return found if self.mlp is None else self.mlp(found)


class Prompt(nn.Module):
    """Vectors before the embedded text of every row.

    Args:
        vectors: of the word embeddings' width.
        placeholder: an ordinary id, which stands where they come in.
    """

    def __init__(self, vectors: Vectors, placeholder: int):
        super().__init__()
        self.vectors = vectors
        self.placeholder = placeholder

    def __len__(self) -> int:
        return len(self.vectors.vectors)

    def before(self, batch: Batch, words: nn.Embedding, first_B1: Tensor | None) -> Batch:
        """The batch with P placeholders before each row, and in ``perturbation`` what makes prompts of them.

        Args:
            batch: ``input_ids``, ``attention_mask`` and more of (B, T, ...); ``key`` (B,) stays as it is.
            words: the word embeddings.
            first_B1: the position of each row's first token; None: the model counts for itself.
        """
        rows, count = len(batch["input_ids"]), len(self)
        longer = {name: _with_zeros(value, count) for name, value in batch.items() if value.dim() > 1}
        longer["attention_mask"][:, :count] = 1
        longer["input_ids"][:, :count] = self.placeholder
        if first_B1 is not None:
            longer["position_ids"][:, :count] = first_B1
        # as a difference to the placeholder's own embedding: every forward, packed or padded, can add to embedded words
        there_PE = words(longer["input_ids"][:1, :count])[0]
        prompt_BPE = (self.vectors() - there_PE).expand(rows, -1, -1)
        own = batch.get("perturbation")
        text_BTE = (
            prompt_BPE.new_zeros(rows, batch["input_ids"].size(1), prompt_BPE.size(2)) if own is None else own
        )
        longer["perturbation"] = torch.cat([prompt_BPE, text_BTE], dim=1)
        return {**batch, **longer}


class Prefix(nn.Module):
    """Keys and values that stand before those of the text, in every attention module.

    Args:
        vectors: each of 2 L A D numbers.
        modules: the attention modules, L, in the order in which they work.
        heads: A.
    """

    def __init__(self, vectors: Vectors, modules: list[nn.Module], heads: int):
        super().__init__()
        self.vectors = vectors
        self.heads = heads
        self._place = {module: place for place, module in enumerate(modules)}

    def __len__(self) -> int:
        return len(self.vectors.vectors)

    def pairs(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Of every attention module its keys and values, (A, P, D) each."""
        flat = self.vectors().view(len(self), len(self._place), 2, self.heads, -1)
        of_module = flat.permute(1, 2, 3, 0, 4)
        return {module: (of_module[at, 0], of_module[at, 1]) for module, at in self._place.items()}


def _with_zeros(value: Tensor, count: int) -> Tensor:
    """(B, T, ...) -> (B, count + T, ...)."""
    return torch.cat([value.new_zeros(len(value), count, *value.shape[2:]), value], dim=1)


def start_from_words(vectors: Vectors, words: nn.Embedding, ids: list[int]) -> None:
    """Makes the learned vectors the embeddings of these words, from the first again where there are too few.

    Args:
        ids: empty: words drawn from the middle of the vocabulary, special tokens being at its ends (Lester et al. 2021
            found such starts better than noise).
    """
    count, total = len(vectors.vectors), words.num_embeddings
    if not ids:
        ids = torch.randint(total // 4, max(total // 4 + 1, total * 3 // 4), (count,)).tolist()
    chosen = torch.tensor([ids[i % len(ids)] for i in range(count)], device=words.weight.device)
    with torch.no_grad():
        vectors.vectors.copy_(words.weight[chosen])
