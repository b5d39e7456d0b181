"""Templates that make a question of a text: literal words around the text and a gap for the label's word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wenmai.backbones.tokenizer import Encoding, Tokenizer
from wenmai.backbones.written_tokens import MASK
from wenmai.data.rows import Row
from wenmai.errors import UserError
from wenmai.tasks.text_matching import kept_of_pair
from wenmai.tasks.windows import overlap_in, room_of, window_bounds

TEXT, PAIR = "{text}", "{text_pair}"
SLOT = re.compile(f"({re.escape(MASK)}|{re.escape(TEXT)}|{re.escape(PAIR)})")


def check_template(template: str) -> None:
    """Makes sure that a template has its slots.

    Raises:
        ValueError: with what is missing or too much.
    """
    found = SLOT.findall(template)
    if found.count(MASK) != 1 or found.count(TEXT) != 1 or found.count(PAIR) > 1:
        raise ValueError(
            f"{template!r}: write {TEXT} once, {MASK} once where the label's word belongs (also for words of several "
            f"characters), and for pairs {PAIR} once"
        )


@dataclass(frozen=True)
class Filled:
    """A template as tokens.

    Args:
        parts: its literal words as ids, and its slots by their names, in order.
        masks: how many tokens its gap has.
    """

    parts: tuple[list[int] | str, ...]
    masks: int

    @classmethod
    def of(cls, template: str, masks: int, tokenizer: Tokenizer) -> Filled:
        written = [part for part in SLOT.split(template) if part]
        parts = [part if SLOT.fullmatch(part) else tokenizer.encode(part).ids for part in written]
        return cls(tuple(parts), masks)

    @property
    def takes_pairs(self) -> bool:
        return PAIR in self.parts

    def room(self, tokenizer: Tokenizer, max_length: int) -> int:
        """Tokens that are left for the text, or for both texts.

        Raises:
            UserError: none.
        """
        literal = sum(len(part) for part in self.parts if not isinstance(part, str))
        room = room_of(tokenizer, max_length) - literal - self.masks
        if room < 2:
            raise UserError(
                f"task.templates: a template takes {literal} tokens and {self.masks} masks, which leaves "
                f"{max(0, room)} of task.max_length {max_length} for the text: shorten it or raise task.max_length"
            )
        return room

    def rows(
        self, text: Encoding, pair: Encoding | None, tokenizer: Tokenizer, *, max_length: int, overlap: int
    ) -> list[Row]:
        """One row a window of the text; a pair is one row, its longer text cut first.

        ``content``, ``offsets`` and ``window`` are those of the text, the input ``slots`` is what
        :class:`wenmai.heads.cloze.ClozeHead` reads.
        """
        room = self.room(tokenizer, max_length)
        if pair is None:
            bounds = window_bounds(len(text), room, overlap_in(room, overlap))
            return [self._row(text.slice(*bound), bound[0], Encoding([], []), tokenizer) for bound in bounds]
        first, second = kept_of_pair(len(text), len(pair), room)
        return [self._row(text.slice(0, first), 0, pair.slice(0, second), tokenizer)]

    def _row(self, text: Encoding, window: int, pair: Encoding, tokenizer: Tokenizer) -> Row:
        template = tokenizer.single
        assert tokenizer.mask_id is not None, "the task refuses tokenizers without a mask"
        ids, slots = list(template.before), [0] * len(template.before)
        offsets = [(0, 0)] * len(ids)
        start = 0
        for part in self.parts:
            if part == MASK:
                new = Encoding([tokenizer.mask_id] * self.masks, [(0, 0)] * self.masks)
                slots += range(1, self.masks + 1)
            elif part == TEXT:
                new, start = text, len(ids)
            elif part == PAIR:
                new = Encoding(pair.ids, [(0, 0)] * len(pair))
            else:
                new = Encoding(list(part), [(0, 0)] * len(part))  # type: ignore[arg-type]
            ids += new.ids
            offsets += new.offsets
            slots += [0] * (len(ids) - len(slots))
        ids += template.after
        return Row(
            inputs={
                "input_ids": ids,
                "token_type_ids": [template.types[1]] * len(ids),
                "slots": slots + [0] * len(template.after),
            },
            offsets=offsets + [(0, 0)] * len(template.after),
            content=(start, start + len(text)),
            window=window,
        )


def word_pieces(word: str, label: str, tokenizer: Tokenizer) -> list[int]:
    """The pieces of a label's word.

    Raises:
        UserError: it has none, or a piece that the vocabulary does not know.
    """
    ids = tokenizer.encode(word).ids
    if not ids or any(token in tokenizer.special_ids for token in ids):
        raise UserError(
            f"task.verbalizer: {word!r} for label {label!r} is not written with this model's vocabulary: "
            f"give other words: verbalizer: {{{label}: ...}}"
        )
    return ids


def distinct(words: Sequence[tuple[str, str, list[int]]]) -> None:
    """Makes sure that no two labels have the same word.

    Args:
        words: label, word and pieces of each.

    Raises:
        UserError: two have.
    """
    seen: dict[tuple[int, ...], tuple[str, str]] = {}
    for label, word, ids in words:
        other, earlier = seen.setdefault(tuple(ids), (label, word))
        if (other, earlier) != (label, word):
            raise UserError(
                f"task.verbalizer: {earlier!r} for label {other!r} and {word!r} for label {label!r} are the same "
                "tokens: give each label words of its own"
            )
