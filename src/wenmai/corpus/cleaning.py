"""The steps of ``wenmai corpus clean``: mend what can be mended, then leave out what is no good text."""

from __future__ import annotations

from functools import partial

from wenmai.corpus.boilerplate import tidy, without_boilerplate, without_markup
from wenmai.corpus.documents import Document, Rejection, Step
from wenmai.corpus.encodings import repair
from wenmai.corpus.repetition import repetitive
from wenmai.corpus.scripts import chinese_share, script_counts, symbol_share
from wenmai.corpus.settings import CleanConfig
from wenmai.text.normalize import normalize


def cleaning_steps(config: CleanConfig) -> list[Step]:
    """The steps in their order, all but the classifier's."""
    mending: list[Step] = [partial(_repaired, config=config), partial(_normalized, config=config)]
    if config.markup:
        mending.append(_unmarked)
    if config.boilerplate:
        mending.append(_without_boilerplate)
    return [
        *mending,
        _tidied,
        partial(_of_fitting_length, config=config),
        partial(_of_fitting_characters, config=config),
        partial(_unrepetitive, config=config),
    ]


def _repaired(document: Document, *, config: CleanConfig) -> Document | Rejection:
    if "\ufffd" in document.text:
        broken = document.text.count("\ufffd")
        if broken * 50 > len(document.text):
            return Rejection("damaged", f"{broken} characters were lost")
    return document.changed(repair(document.text), "repaired") if config.repair else document


def _normalized(document: Document, *, config: CleanConfig) -> Document:
    text = document.text
    if config.compatibility or config.simplify or not text.isprintable():
        text = normalize(text, compatibility=config.compatibility, simplify=config.simplify).text
    return document.changed(text, "normalized")


def _unmarked(document: Document) -> Document:
    return document.changed(without_markup(document.text), "markup_removed")


def _without_boilerplate(document: Document) -> Document:
    return document.changed(without_boilerplate(document.text), "lines_removed")


def _tidied(document: Document) -> Document:
    return document.changed(tidy(document.text), "spaces_removed")


def _of_fitting_length(document: Document, *, config: CleanConfig) -> Document | Rejection:
    length = len(document.text)
    if not length:
        return Rejection("empty", "nothing is left of it")
    if length < config.min_characters:
        return Rejection("too_short", f"{length} characters")
    if length > config.max_characters:
        return Rejection("too_long", f"{length} characters")
    return document


def _of_fitting_characters(document: Document, *, config: CleanConfig) -> Document | Rejection:
    counts = script_counts(document.text)
    chinese, symbols = chinese_share(counts), symbol_share(counts)
    if chinese < config.min_chinese:
        return Rejection("not_chinese", f"{chinese:.2f} of its letters are Chinese")
    if symbols > config.max_symbols:
        return Rejection("symbols", f"{symbols:.2f} of it are punctuation and symbols")
    digits = int(counts[5]) / max(1, int(counts[:8].sum()))
    if digits > config.max_digits:
        return Rejection("digits", f"{digits:.2f} of it are digits")
    return document


def _unrepetitive(document: Document, *, config: CleanConfig) -> Document | Rejection:
    return repetitive(document.text, config.repetition) or document
