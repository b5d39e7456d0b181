"""Tables of tokenizers: a text in pieces, what a vocabulary holds, how it does on texts, new tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wenmai.backbones.new_tokens import Added
from wenmai.backbones.tokenizer_use import Contents, Pieces, Usage

SHOWN = 50
"""New tokens and lengths that a table names one by one."""


def cut_text(found: Pieces, text: str) -> RenderableType:
    """A row a token, and a line on what is lost."""
    table = Table("token", "id", "characters", "text", "", box=box.SIMPLE)
    for piece in found.pieces:
        table.add_row(
            _plain(piece.token),
            str(piece.id),
            f"{piece.start}:{piece.end}",
            _plain(repr(piece.text)[1:-1]),
            Text("unknown", style="bold red") if piece.unknown else "",
        )
    unknown = sum(piece.unknown for piece in found.pieces)
    parts: list[RenderableType] = [
        table,
        _plain(f"{len(text)} characters, {len(found.pieces)} tokens, {unknown} of them unknown"),
    ]
    if found.lost:
        lost = ", ".join(f"{start}:{end} {text[start:end]!r}" for start, end in found.lost)
        parts.append(Text(f"no token stands for {lost}", style="yellow"))
    return Group(*parts)


def tokenizer_summary(name: str, held: Contents, used: Usage | None) -> RenderableType:
    """What the vocabulary holds, and how it does on texts."""
    scripts = Table("tokens of", "number", "share", box=box.SIMPLE)
    for script, count in held.scripts.items():
        scripts.add_row(script, f"{count:,}", f"{count / held.tokens:.1%}")
    lengths = Table("characters a token", "tokens", box=box.SIMPLE)
    for length, count in list(held.lengths.items())[:SHOWN]:
        lengths.add_row(str(length), f"{count:,}")
    parts: list[RenderableType] = [_plain(f"{name}: {held.tokens:,} tokens"), scripts, lengths]
    return Group(*parts, *([] if used is None else _usage(used)))


def _usage(used: Usage) -> list[RenderableType]:
    table = Table("on texts", "", box=box.SIMPLE)
    table.add_row("lines", f"{used.lines:,}")
    table.add_row("characters without blanks", f"{used.characters:,}")
    table.add_row("tokens", f"{used.tokens:,}")
    table.add_row("characters a token", f"{used.characters_per_token:.3f}")
    table.add_row("tokens a word (fertility)", f"{used.tokens_per_word:.3f}")
    table.add_row("unknown tokens", f"{used.unknown_share:.4%}")
    table.add_row("characters covered", f"{used.covered:.4%}")
    parts: list[RenderableType] = [table]
    if used.most_unknown:
        shown = "  ".join(f"{repr(one)[1:-1]} {count}" for one, count in used.most_unknown)
        parts.append(_plain(f"most often unknown or lost: {shown}"))
    return parts


def added_tokens(added: Sequence[Added]) -> RenderableType:
    """The new tokens with what their rows are the mean of."""
    table = Table("token", "id", "row from", box=box.SIMPLE)
    for one in added[:SHOWN]:
        table.add_row(_plain(one.text), str(one.id), _plain(" ".join(one.pieces) or "the mean of all tokens"))
    more = len(added) - SHOWN
    return Group(table, _plain(f"... and {more:,} more")) if more > 0 else table


def _plain(text: str) -> Text:
    """Tokens such as ``[CLS]`` are no markup."""
    return Text(text)
