"""Places in a text as records tell them: characters ``[start, end)``, and maybe what stands there."""

from __future__ import annotations

from typing import Protocol


class Placed(Protocol):
    """``text``, where the file gives it, must be what stands at these characters."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def text(self) -> str | None: ...


def check_place(place: Placed, text: str, where: str) -> None:
    """Refuses what is no place in the text.

    Args:
        where: the field, for the message.

    Raises:
        ValueError: it is empty, lies outside of the text, or something else stands there.
    """
    start, end = place.start, place.end
    if not 0 <= start < end:
        raise ValueError(
            f"{where}: start {start} and end {end} are no range: need 0 <= start < end, end-exclusive"
        )
    if end > len(text):
        raise ValueError(
            f"{where}: end {end} lies outside the text ({len(text)} characters); "
            "offsets count characters, not bytes or tokens"
        )
    if place.text is not None and place.text != text[start:end]:
        raise ValueError(
            f"{where}: the text at {start}:{end} is {text[start:end]!r}, not {place.text!r}: "
            "correct the offsets (is the end inclusive? set data.end_inclusive)"
        )
