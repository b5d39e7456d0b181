"""Another vocabulary for a model that has learned with one: each new row of the embedding comes from old ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wenmai.backbones.token_surface import Surface, Surfaces
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError
from wenmai.text.words import is_chinese

if TYPE_CHECKING:
    from wenmai.backbones.load import Backbone

ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token", "eos_token")
OTHER_ROLE = {
    "cls_token": "bos_token",
    "sep_token": "eos_token",
    "bos_token": "cls_token",
    "eos_token": "sep_token",
}


@dataclass(frozen=True)
class VocabularyChange:
    """Where the new rows come from, as numbers of tokens.

    Args:
        copied: the old vocabulary has the same token.
        averaged: mean of the old pieces of its text.
        unknown: the old vocabulary knows nothing of it; mean of all ordinary old rows.
    """

    copied: int
    averaged: int
    unknown: int


def replace_vocabulary(backbone: Backbone, old: Tokenizer, new: Tokenizer) -> VocabularyChange:
    """Makes the model one of the new tokenizer, in place. Its other weights stay.

    A row of the new word embedding is, the first that there is:

    * the old row of the special token of the same role (the first and last of a text are ``cls`` or ``bos``, and
      ``sep`` or ``eos``)
    * the old row of the token with the same text. Where one vocabulary tells tokens that begin a word from others
      and has both, the same one; for a Chinese character the one inside words, as Chinese words seldom begin there
    * the mean of the old pieces of its text
    * the mean of all old rows but special ones

    A head that is built on the word embeddings is built afterwards, as it has numbers of its own for each token.

    Args:
        backbone: with weights that belong to ``old``.

    Raises:
        UserError: the model takes positions from the padding's id, and the new one is another.
    """
    embeddings = backbone.word_embeddings
    rows_VE = embeddings.weight.detach()
    sources = _Sources(old, rows_VE)
    special = _special_rows(old, new)
    count = {"copied": 0, "averaged": 0, "unknown": 0}
    new_rows_VE = rows_VE.new_empty(new.vocab_size, rows_VE.size(1))
    surfaces = Surfaces(new.pretrained)
    tokens = new.tokens(range(new.vocab_size))
    for i, token in enumerate(tokens):
        if i in special:
            new_rows_VE[i], how = rows_VE[special[i]], "copied"
        elif i in new.special_ids:
            new_rows_VE[i], how = sources.of(Surface(token, False))
        else:
            same = sources.same(token) if surfaces.marks == sources.surfaces.marks else None
            new_rows_VE[i], how = (same, "copied") if same is not None else sources.of(surfaces.of(token))
        count[how] += 1
    set_word_embeddings(backbone, new_rows_VE, new)
    return VocabularyChange(**count)


def set_word_embeddings(backbone: Backbone, rows_VE: Tensor, tokenizer: Tokenizer) -> None:
    """Gives the model a word embedding of these rows, and its configuration their number and the special ids.

    Args:
        rows_VE: at least one for each token; models often have more.

    Raises:
        UserError: the model takes positions from the padding's id, and the tokenizer's is another.
    """
    check_padding(backbone.model, tokenizer)
    embeddings = backbone.word_embeddings
    # in place, so that whatever shares the module goes on sharing it
    embeddings.weight = nn.Parameter(rows_VE, requires_grad=embeddings.weight.requires_grad)
    embeddings.num_embeddings = len(rows_VE)
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = tokenizer.pad_id
    fit_config(backbone.config, tokenizer)
    backbone.config.vocab_size = len(rows_VE)


def fit_config(config: Any, tokenizer: Tokenizer) -> None:
    """Sets a configuration's vocabulary size and ids of special tokens to those of a tokenizer."""
    config.vocab_size = tokenizer.vocab_size
    known = config.to_dict()
    for role in ROLES:
        name = f"{role}_id"
        if name in known:
            found = getattr(tokenizer.pretrained, name, None)
            if found is None and known.get(name) is not None and role in OTHER_ROLE:
                found = getattr(tokenizer.pretrained, f"{OTHER_ROLE[role]}_id", None)
            setattr(config, name, found)


def check_padding(model: nn.Module, tokenizer: Tokenizer) -> None:
    """Refuses another padding id for models whose positions begin after it.

    Raises:
        UserError: it is another.
    """
    for name, module in model.named_modules():
        if not name.endswith("position_embeddings") or not isinstance(module, nn.Embedding):
            continue
        if module.padding_idx is not None and module.padding_idx != tokenizer.pad_id:
            raise UserError(
                f"the model numbers positions from the id of its padding token ({module.padding_idx}), which the "
                f"new tokenizer has at {tokenizer.pad_id}; give a tokenizer with padding at "
                f"{module.padding_idx}, or a model of another architecture (bert, electra ...)"
            )


def _special_rows(old: Tokenizer, new: Tokenizer) -> dict[int, int]:
    """New id to old id for the special tokens by their roles."""
    found: dict[int, int] = {}
    for role in ROLES:
        i = getattr(new.pretrained, f"{role}_id", None)
        source = getattr(old.pretrained, f"{role}_id", None)
        if source is None and role in OTHER_ROLE:
            source = getattr(old.pretrained, f"{OTHER_ROLE[role]}_id", None)
        if i is not None and source is not None:
            found.setdefault(i, source)
    return found


class _Sources:
    """Rows of an old embedding for texts.

    Args:
        rows_VE: one for each old id, and maybe more.
    """

    def __init__(self, old: Tokenizer, rows_VE: Tensor):
        self.old = old
        self.rows_VE = rows_VE
        self.surfaces = Surfaces(old.pretrained)
        nothing = {*old.special_ids, old.unk_id}
        self.ids = {surface: i for surface, i in self.surfaces.ids().items() if i not in nothing}
        self.nothing = nothing
        self.tokens: dict[str, int] = old.pretrained.get_vocab()
        ordinary = torch.ones(old.vocab_size, dtype=torch.bool)
        ordinary[sorted(old.special_ids)] = False
        self.mean_E = rows_VE[: old.vocab_size][ordinary.to(rows_VE.device)].mean(0)

    def same(self, token: str) -> Tensor | None:
        """The row of the very same ordinary token, if there is one."""
        i = self.tokens.get(token)
        return None if i is None or i in self.nothing else self.rows_VE[i]

    def of(self, surface: Surface) -> tuple[Tensor, str]:
        """A row for a token, and how it was found."""
        text, begins = surface
        if text or begins:
            if len(text) == 1 and is_chinese(text):
                # BERT's vocabularies also hold ## before characters, which nothing ever trains
                begins = self.surfaces.pieces_inside_words
            for same in (Surface(text, begins), Surface(text, not begins)):
                if same in self.ids:
                    return self.rows_VE[self.ids[same]], "copied"
            if ids := [i for i in self.old.encode(text).ids if i not in self.nothing]:
                return self.rows_VE[ids].mean(0), "averaged"
        return self.mean_E, "unknown"
