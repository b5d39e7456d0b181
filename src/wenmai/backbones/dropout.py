"""Dropout that is a function of the row, not of the batch: the same masks in any batch, packed or padded, anywhere.

A mask is a hash of (the row's key, the dropout module, the token's place in its row, the feature). Nothing is drawn
from a stream, so micro-batches, padding, order, processes and devices cannot change it, and activations that are
computed again (gradient checkpointing) meet the same mask. It is also faster than PyTorch's dropout on a CPU, which
draws its numbers one by one: here are a dozen vectorised integer operations on half as many words as elements.

Shape letters: B rows, T tokens of a padded row, N real tokens of all rows, A heads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as torch_dropout

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 divided by the golden ratio, as int64: multiples of it are spread evenly (Knuth)."""
STAFFORD = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
LOWBIAS = (0x7FEB352D, 0x846CA68B - (1 << 32))
WHOLE_ROW = -1
"""The place in the row that a vector of the whole row has."""


def mixed(keys: Tensor) -> Tensor:
    """A bijection of int64 after which every bit depends on every bit (finaliser of SplitMix64, Stafford's mix 13)."""
    keys = (keys ^ ((keys >> 30) & ((1 << 34) - 1))) * STAFFORD[0]
    keys = (keys ^ ((keys >> 27) & ((1 << 37) - 1))) * STAFFORD[1]
    return keys ^ ((keys >> 31) & ((1 << 33) - 1))


def name_salt(name: str) -> int:
    """An int64 for the name of a module, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def token_keys(row_key_B: Tensor, place: Tensor) -> Tensor:
    """Keys of tokens: of the row's key and the place in the row, which broadcast against each other."""
    return mixed(row_key_B + (place + 2) * GOLDEN)


def batch_keys(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The keys of a padded batch's tokens (B, T) and of its rows (B,); nothing where it has no ``key``."""
    if "key" not in batch:
        return ()
    row_B, place_BT = batch["key"], batch["attention_mask"].long().cumsum(dim=1) - 1
    return token_keys(row_B[:, None], place_BT), token_keys(row_B, torch.full_like(row_B, WHOLE_ROW))


@lru_cache(maxsize=64)
def _feature_words(words: int, device: torch.device) -> Tensor:
    feature = torch.arange(1, words + 1, dtype=torch.int64)
    return mixed(feature * GOLDEN).view(torch.int32)[::2].contiguous().to(device)


def noise(keys: Tensor, salt: int, width: int) -> Tensor:
    """Uniform int16 for every key and feature.

    Args:
        keys: int64, of tokens or rows, of any shape (...).
        salt: of the module.
        width: number of features F.

    Returns:
        (..., F), a view of a tensor whose last dimension is even.
    """
    halves = mixed(keys ^ salt).unsqueeze(-1).view(torch.int32)
    word = halves[..., :1] + _feature_words((width + 1) // 2, keys.device)
    # the two rounds of "lowbias32" (Wellons) without its last shift; the shifts keep the sign, which costs a bit of
    # the state and not of the result, since a multiplication comes last. The second half of the key enters between.
    shifted = word >> 16
    word.bitwise_xor_(shifted).mul_(LOWBIAS[0]).add_(halves[..., 1:])
    torch.bitwise_right_shift(word, 15, out=shifted)
    word.bitwise_xor_(shifted).mul_(LOWBIAS[1])
    return word.view(torch.int16)[..., :width]


@dataclass(frozen=True)
class Rate:
    """A dropout rate in the 65,536 steps that the noise has."""

    steps: int

    @classmethod
    def of(cls, rate: float) -> Rate:
        return cls(min(round(rate * 65536), 65535))

    @property
    def scale(self) -> float:
        """What kept elements are multiplied with, so that the expectation is exactly what it was."""
        return 65536 / (65536 - self.steps)

    def kept(self, noise: Tensor, dtype: torch.dtype) -> Tensor:
        """1 where an element is kept, 0 elsewhere, as numbers to multiply with: on a CPU booleans are slow."""
        kept = torch.empty(noise.shape, dtype=dtype, device=noise.device)
        torch.ge(noise, self.steps - 32768, out=kept)
        return kept


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor, rate: Rate) -> Tensor:
        ctx.save_for_backward(noise)
        ctx.rate = rate
        return rate.kept(noise, x.dtype).mul_(x).mul_(rate.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (noise,) = ctx.saved_tensors
        return ctx.rate.kept(noise, grad.dtype).mul_(grad).mul_(ctx.rate.scale), None, None


def dropped(x: Tensor, noise: Tensor, rate: Rate) -> Tensor:
    """``x`` with those elements at 0 whose noise says so, and the others scaled up."""
    found: Tensor = _Dropout.apply(x, noise, rate)  # type: ignore[no-untyped-call]
    return found


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, noise: Tensor, rate: Rate) -> Tensor:
        ctx.save_for_backward(noise)
        ctx.rate, ctx.dtype = rate, x.dtype
        kept = rate.kept(noise, residual.dtype)
        return torch.addcmul(residual, x.to(residual.dtype), kept, value=rate.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (noise,) = ctx.saved_tensors
        dropped = ctx.rate.kept(noise, grad.dtype).mul_(grad).mul_(ctx.rate.scale)
        return dropped.to(ctx.dtype), grad, None, None


class RowKeys:
    """Where the dropout modules of one model find the keys of the batch that is going through it.

    Attributes:
        salts: of every module of the model, by its name: what keeps the masks of two modules apart.
    """

    def __init__(self) -> None:
        # weak, because the modules hold this object: a circle would keep the whole model in memory until Python looks
        # for circles, which it does by the number of objects and not by their size
        self.salts: MutableMapping[nn.Module, int] = WeakKeyDictionary()
        self._keys: dict[tuple[int, ...], Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> RowKeys:
        """For a copy of the model: of the copies of its modules, which a weak dictionary would not make."""
        copied = memo[id(self)] = RowKeys()
        for module, salt in list(self.salts.items()):
            copied.salts[deepcopy(module, memo)] = salt
        copied._keys = deepcopy(self._keys, memo)
        return copied

    @contextmanager
    def of(self, *keys: Tensor) -> Iterator[None]:
        """Inside, activations whose leading dimensions are those of one of ``keys`` get their dropout from it."""
        before, self._keys = self._keys, {tuple(each.shape): each for each in keys}
        try:
            yield
        finally:
            self._keys = before

    def find(self, leading: tuple[int, ...]) -> Tensor | None:
        """The keys (int64) of activations of these leading dimensions, the features left out."""
        if leading in self._keys:
            return self._keys[leading]
        if len(leading) == 3:  # attention probabilities (B, A, T, T)
            tokens = self._keys.get((leading[0], leading[2]))
            return None if tokens is None else head_keys(tokens, leading[1]).transpose(1, 2)
        return None

    def among(self, chosen_N: Tensor) -> AbstractContextManager[None]:
        """Inside, activations are of some of the N packed tokens only: those that the booleans say."""
        tokens = self._keys.get((len(chosen_N),))
        return self.of() if tokens is None else self.of(tokens[chosen_N])

    def remembering(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the keys of now, whenever it is called: activations are computed again much later."""
        keys = tuple(self._keys.values())

        def called(*args: Any, **kwargs: Any) -> Any:
            with self.of(*keys):
                return function(*args, **kwargs)

        return called


def head_keys(token_keys: Tensor, heads: int) -> Tensor:
    """Keys (...) of tokens -> (..., A), of their attention heads."""
    head = torch.arange(1, heads + 1, device=token_keys.device)
    return mixed(token_keys[..., None] + head * GOLDEN)


class KeyedDropout(nn.Dropout):
    """Dropout by the keys of the batch's rows; PyTorch's own where there are none for the shape.

    Args:
        rate: share of the elements that are dropped; exact to 1/131,072.
        keys: the model's.
    """

    def __init__(self, rate: float, keys: RowKeys):
        super().__init__(rate)
        self.keys = keys

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        found = self.keys.find(tuple(input.shape[:-1]))
        if found is None or self not in self.keys.salts:
            return torch_dropout(input, self.p, training=True)
        return dropped(input, noise(found, self.keys.salts[self], input.size(-1)), Rate.of(self.p))

    def add(self, input: Tensor, residual: Tensor) -> Tensor:
        """``self(input) + residual``, in one pass over memory less."""
        found = self.keys.find(tuple(input.shape[:-1])) if self.training and self.p > 0.0 else None
        if found is None or self not in self.keys.salts:
            dropped_alone: Tensor = self(input)
            return dropped_alone + residual
        drawn = noise(found, self.keys.salts[self], input.size(-1))
        added: Tensor = _DropoutAdd.apply(input, residual, drawn, Rate.of(self.p))  # type: ignore[no-untyped-call]
        return added


def key_dropout(model: nn.Module, keys: RowKeys) -> None:
    """Puts a :class:`KeyedDropout` in the place of every ``nn.Dropout`` of a model and tells ``keys`` its modules.

    Parameters and their names stay. Called again, it takes in modules that have come since (adapters).
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, KeyedDropout(child.p, keys).train(child.training))
    keys.salts = WeakKeyDictionary({module: name_salt(name) for name, module in model.named_modules()})
