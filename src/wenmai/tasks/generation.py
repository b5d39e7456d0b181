"""How a text is written token by token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """Settings of a task that writes.

    Args:
        max_new_tokens: most tokens that are written; the end of the text comes earlier if the model says so.
        temperature: 0 takes the likeliest token; above, a token is drawn from p^(1/temperature), made to sum to 1.
        top_p: of the likeliest tokens that together have this probability (Holtzman et al. 2020).
        seed: of the draws; the text that is continued is the other half of their key.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
