"""A backbone for a while as transformers runs it, module by module, so that hooks see everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wenmai.backbones.load import Backbone


@contextmanager
def module_by_module(backbone: Backbone, *, eager_attention: bool = False) -> Iterator[bool]:
    """Inside, every layer's own modules do its work, and hooks on them are called; after it all is as it was.

    Args:
        eager_attention: attention computes its probabilities as a tensor, which its module gives beside its
            output. The fused kernels never have them as a whole; results differ in the last bits.

    Yields:
        whether the probabilities are given: not every architecture can.
    """
    padding_free, attention = backbone.padding_free, backbone.config._attn_implementation
    backbone.padding_free = False
    eager = False
    try:
        if eager_attention:
            eager = _set_attention(backbone, "eager")
        yield eager
    finally:
        if eager:
            _set_attention(backbone, attention)
        backbone.padding_free = padding_free


def _set_attention(backbone: Backbone, name: str) -> bool:
    if getattr(backbone.config, "sparse_attention", None) or backbone.prefix is not None:
        return False  # transformers' own attention would look everywhere, or past the prefix
    try:
        backbone.model.set_attn_implementation(name)
    except (AttributeError, ValueError):
        return False
    return True
