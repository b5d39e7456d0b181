"""A folder, a shipped or hub name or ``e5-small`` to a backbone and its tokenizer. Never runs a model's own code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers.initialization import no_init_weights

from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.architecture import (
    check_kept_layers,
    differs_by_dropout,
    encoder_layers,
    keep_layers,
    looks_back_only,
    position_limit,
    position_table,
    set_dropout,
)
from wenmai.backbones.boxes import ARGUMENT as BBOX
from wenmai.backbones.boxes import with_boxes
from wenmai.backbones.dropout import RowKeys, batch_keys
from wenmai.backbones.from_scratch import described, fit_tokenizer, random_model
from wenmai.backbones.hub import model_folder
from wenmai.backbones.interface import ARGUMENT, PADDED, Rows, takes_our_attention
from wenmai.backbones.lora import is_lora, merged
from wenmai.backbones.model_files import (
    model_class,
    model_options,
    read_config,
    read_weights,
    refuse_adapters,
    some,
)
from wenmai.backbones.packing import Packing
from wenmai.backbones.padding_free import leaves_padding_out, packed_forward, perturbed, positions
from wenmai.backbones.positions import extend_positions
from wenmai.backbones.reading import load_tokenizer, read_tokenizer
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.sparse import care_for
from wenmai.backbones.tokenizer import Normalization, Tokenizer
from wenmai.backbones.virtual_tokens import Prefix, Prompt
from wenmai.backbones.vocabulary import fit_config, replace_vocabulary
from wenmai.errors import BundleError, UserError

HEAD_PREFIX = "wenmai_head."
"""Weights of a head in the backbone's ``model.safetensors`` begin so; AutoModel skips unknown names."""

ADAPTER_PREFIX = "wenmai_adapter."
"""The same for those of an adapter that stands beside the model or is saved without it."""

INPUTS = ("input_ids", "attention_mask", "global_attention_mask", "token_type_ids", "position_ids", BBOX)
"""What of a batch may be meant for a backbone; the rest are targets."""


class Backbone(nn.Module):
    """An encoder of transformers that gives hidden states.

    Args:
        model: an ``AutoModel``.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.keys = RowKeys()
        self.padding_free = False
        self.source: BackboneConfig | None = None
        self.adapter: AdapterConfig | None = None
        self.fingerprint: str | None = None
        self.prompt: Prompt | None = None
        self.prefix: Prefix | None = None
        accepted = inspect.signature(model.forward).parameters
        # keys and values of past tokens are of use in generation only, which asks for them
        self.options = {"use_cache": False} if "use_cache" in accepted else {}
        self.inputs = [name for name in INPUTS if name in accepted]
        if getattr(model.config, "type_vocab_size", 0) < 2 and "token_type_ids" in self.inputs:
            self.inputs.remove("token_type_ids")
        self.care = care_for(model, self.inputs, self.keys)
        if getattr(model.config, "sparse_attention", None):
            model.config._attn_implementation = PADDED  # nothing but ours knows of it

    @classmethod
    def from_config(cls, folder: Path) -> Self:
        """The architecture of the folder's ``config.json``; its weights are left to :meth:`load_state`.

        Raises:
            UserError: the configuration is missing, damaged or of an unknown architecture.
        """
        config = read_config(folder)
        with no_init_weights():
            return cls(model_class(config, folder)._from_config(config, **model_options(config, folder)))

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int | None:
        """The longest input in tokens, special tokens included; None if there is no limit."""
        return position_limit(self.model, self.model.config)

    @property
    def layers(self) -> nn.ModuleList | None:
        """The layers from the input to the output, if the architecture keeps them in a known place."""
        return encoder_layers(self.model)

    @property
    def reads_boxes(self) -> bool:
        """Whether it takes the tokens' boxes on their page (LayoutLM and its kin)."""
        return BBOX in self.inputs

    @cached_property
    def causal(self) -> bool:
        """Whether every token sees only what stands before it (a decoder), found out by trying."""
        return looks_back_only(self.model)

    @cached_property
    def drops_out(self) -> bool:
        """Whether training drops activations at random, found out by trying."""
        return differs_by_dropout(self.model)

    @property
    def ties_embeddings(self) -> bool:
        """Whether the word embeddings are meant to be the output matrix too."""
        tied = getattr(self.config, "tie_word_embeddings", True)
        return bool(tied) and self.word_embeddings.embedding_dim == self.hidden_size

    @property
    def word_embeddings(self) -> nn.Embedding:
        embeddings: nn.Embedding = self.model.get_input_embeddings()
        return embeddings

    def is_adapter(self, parameter: str) -> bool:
        """Whether a parameter of this name is the adapter's and not the encoder's own."""
        return is_lora(parameter) or parameter.startswith(("prompt.", "prefix."))

    def adapter_names(self) -> list[str]:
        """The names of the adapter's parameters; none before there is one."""
        return [name for name, _ in self.named_parameters() if self.is_adapter(name)]

    def set_padding_free(self, choice: Literal["auto", "on", "off"]) -> None:
        """Whether only real tokens are computed; ``auto``: where the architecture can. Speed changes, results do not.

        Raises:
            UserError: ``on``, and the architecture can not.
        """
        can = self.care is None and leaves_padding_out(self.model, self.inputs)
        self.padding_free = choice != "off" and can
        if choice == "on" and not self.padding_free:
            raise UserError(
                f"train.padding_free: on, but {self.config.model_type} models compute tokens of different rows "
                "together, or take no positions; set it to auto or off"
            )

    def positions(self, batch: dict[str, Tensor]) -> int:
        """How many positions of the batch are computed: its tokens, and its padding unless that is left out."""
        mask_BT = batch["attention_mask"]
        return int(mask_BT.sum()) if self.padding_free else mask_BT.numel()

    def enable_gradient_checkpointing(self) -> None:
        """In training, layers' activations are computed again in the backward pass instead of being kept.

        Raises:
            UserError: the architecture's layers can't.
        """

        def again(layer: Any, *args: Any, keys: RowKeys = self.keys) -> Any:  # self would close a circle
            return checkpoint(keys.remembering(layer), *args, use_reentrant=False)

        if not self.model.supports_gradient_checkpointing or not (self.care is None or self.care.recomputes):
            raise UserError(
                f"train.gradient_checkpointing: {self.config.model_type} models can't compute their layers again; "
                "set it to false and make train.tokens_per_micro_batch smaller instead"
            )
        self.model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=again)

    def keyed(self, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, in training, dropout on (B, T, H) and (B, H) goes by the batch's ``key``, if it has one."""
        return self.keys.of(*(batch_keys(batch) if self.training else ()))

    def forward(self, batch: dict[str, Tensor], read_BT: Tensor | None = None) -> Tensor:
        """``input_ids``, ``attention_mask`` and what else of the batch the model reads -> hidden_BTH.

        Args:
            batch: also ``key`` (B,), int64, which decides the dropout, and ``perturbation`` (B, T, H), which is
                added to the word embeddings; both may be missing.
            read_BT: which hidden states anyone will look at; None: all. The others may come as zeros.
        """
        if self.reads_boxes:
            batch = with_boxes(batch)
        if self.prompt is not None:
            count = len(self.prompt)
            read_BT = None if read_BT is None else pad(read_BT.bool(), (count, 0))
            return self._together(self._behind_prompt(self.prompt, batch), read_BT)[:, count:]
        if self.care is None or torch.compiler.is_compiling():
            return self._together(batch, read_BT)
        return self.care(self._together, batch)

    def _behind_prompt(self, prompt: Prompt, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        first_B1 = None
        if "position_ids" in self.inputs and position_table(self.model) is not None:
            position_BT = batch.get("position_ids", positions(self.model, batch["input_ids"]))
            batch, first_B1 = {**batch, "position_ids": position_BT}, position_BT[:, :1]
        return prompt.before(batch, self.word_embeddings, first_B1)

    def _together(self, batch: dict[str, Tensor], read_BT: Tensor | None = None) -> Tensor:
        known: dict[str, Any] = {name: batch[name] for name in self.inputs if name in batch}
        perturbation = batch.get("perturbation")
        prefix = {} if self.prefix is None else self.prefix.pairs()
        if self.padding_free and not torch.compiler.is_compiling():
            return packed_forward(
                self.model,
                known,
                Packing.of(batch["attention_mask"]),
                keys=self.keys,
                row_key_B=batch.get("key") if self.training else None,
                perturbation_BTH=perturbation,
                read_BT=read_BT,
                prefix=prefix,
                options=self.options,
            )
        if prefix or (self.training and "key" in batch and takes_our_attention(self.model)):
            self.config._attn_implementation = PADDED
            known[ARGUMENT] = Rows(self.keys, prefix=prefix)
        with self.keyed(batch), perturbed(self.model, perturbation):
            hidden: Tensor = self.model(**known, **self.options).last_hidden_state
        return hidden

    def step(self, ids_BT: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """The hidden states (B, T, H) of tokens that follow those of earlier steps, and what the next step needs.

        Args:
            ids_BT: without padding.
            past: of the step before; None: there was none.
        """
        found = self.model(input_ids=ids_BT, past_key_values=past, use_cache=True)
        return found.last_hidden_state, found.past_key_values

    def state_for_saving(self) -> dict[str, Tensor]:
        """All weights under the names by which ``AutoModel`` looks for them, with LoRA's changes in them."""
        return {name: tensor.detach().contiguous() for name, tensor in merged(self.model).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the weights of :meth:`state_for_saving`; those of a head (:data:`HEAD_PREFIX`) are skipped.

        Raises:
            BundleError: weights are missing, too many, or of another shape.
        """
        own = {
            name: tensor
            for name, tensor in state.items()
            if not name.startswith((HEAD_PREFIX, ADAPTER_PREFIX))
        }
        try:
            missing, unexpected = self.model.load_state_dict(own, strict=False)
        except RuntimeError as error:
            raise BundleError(f"the weights don't fit the architecture of config.json: {error}") from error
        if missing or unexpected:
            raise BundleError(
                "the weights don't belong to the architecture of config.json: "
                f"{len(missing)} missing ({some(missing)}), {len(unexpected)} unknown ({some(unexpected)})"
            )

    def save(self, folder: Path) -> None:
        """Writes ``config.json`` and ``model.safetensors``, so that ``AutoModel`` opens the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_config(folder)
        save_file(self.state_for_saving(), folder / "model.safetensors", metadata={"format": "pt"})

    def save_config(self, folder: Path) -> None:
        """Writes ``config.json`` only, for a folder whose weights are saved together with a head's."""
        self.config.architectures = [type(self.model).__name__]
        self.config.save_pretrained(folder)


def load_backbone(config: BackboneConfig) -> tuple[Backbone, Tokenizer]:
    """The backbone and tokenizer of a configuration: weights in fp32, attention by PyTorch's fused kernel.

    Random weights and positions are drawn with PyTorch's global random state.

    Raises:
        UserError: the model can't be found, read, built or changed as asked.
    """
    backbone, tokenizer = _from_scratch(config) if config.model is None else _from_folder(config)
    backbone.source, backbone.adapter = config, config.adapter
    return backbone, tokenizer


def _from_folder(config: BackboneConfig) -> tuple[Backbone, Tokenizer]:
    folder = model_folder(config)
    refuse_adapters(folder)
    backbone, tokenizer = _load(
        folder,
        weights=config.weights,
        layers=config.layers,
        dropout=config.dropout,
        vocabulary=None if config.tokenizer is None else load_tokenizer(Path(config.tokenizer).expanduser()),
    )
    if config.positions is not None:
        extend_positions(backbone, tokenizer, **config.positions.model_dump())
    tokenizer.normalize = config.normalize
    return backbone, tokenizer


def _from_scratch(config: BackboneConfig) -> tuple[Backbone, Tokenizer]:
    folder = Path(config.tokenizer or "").expanduser()
    if not folder.is_dir():
        raise UserError(
            f"backbone.tokenizer: {folder}: there is no such folder; give one that holds tokenizer.json"
        )
    pretrained, network = read_tokenizer(folder), described(config.architecture or {})
    fit_tokenizer(network, pretrained)
    if config.dropout is not None:
        set_dropout(network, config.dropout)
    model = random_model(network, model_class(network, folder), model_options(network, folder))
    return put_together(model, pretrained, config.normalize)


def find_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a folder, which may hold nothing else, of a name on the hub, or of a shipped name.

    Raises:
        UserError: it can't be found or read.
    """
    return load_tokenizer(model_folder(BackboneConfig(model=model, weights="random")))


def load_folder(folder: Path) -> tuple[Backbone, Tokenizer]:
    """The backbone and tokenizer of a folder as they are. Weights of a head beside them are skipped.

    Raises:
        UserError: the folder is not there or not whole.
    """
    return _load(folder)


def _load(
    folder: Path,
    *,
    weights: Literal["pretrained", "random"] = "pretrained",
    layers: int | None = None,
    dropout: float | None = None,
    vocabulary: Tokenizer | None = None,
) -> tuple[Backbone, Tokenizer]:
    config = read_config(folder)
    if layers is not None:
        keep_layers(config, layers)
    if dropout is not None:
        set_dropout(config, dropout)
    if vocabulary is not None and weights == "random":
        fit_config(config, vocabulary)
        pretrained = vocabulary.pretrained
    else:
        pretrained = read_tokenizer(folder)
    if weights == "random":
        model = model_class(config, folder)._from_config(config, **model_options(config, folder))
    else:
        model = read_weights(config, folder)
    if layers is not None:
        check_kept_layers(model, layers)
    backbone, tokenizer = put_together(model, pretrained)
    rows = backbone.word_embeddings.num_embeddings
    if len(pretrained) > rows:
        raise UserError(
            f"{folder}: the tokenizer has {len(pretrained):,} pieces, but the model embeds only {rows:,}: "
            "the two don't belong together; take both from the same model"
        )
    if vocabulary is not None and weights == "pretrained":
        replace_vocabulary(backbone, tokenizer, vocabulary)
        vocabulary.max_length = tokenizer.max_length
        tokenizer = vocabulary
    return backbone, tokenizer


def put_together(
    model: Any, pretrained: Any, normalize: Normalization = "none"
) -> tuple[Backbone, Tokenizer]:
    """Backbone and tokenizer from those of transformers."""
    backbone = Backbone(model).eval()
    if "token_type_ids" not in backbone.inputs:
        # a GPT-2 with a BERT vocabulary would take them for words, opened by transformers
        names = [name for name in pretrained.model_input_names if name != "token_type_ids"]
        pretrained.model_input_names = pretrained.init_kwargs["model_input_names"] = names
    limit = int(pretrained.model_max_length) if backbone.max_length is None else backbone.max_length
    return backbone, Tokenizer(pretrained, max_length=limit, normalize=normalize)
