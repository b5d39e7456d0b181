"""The auxiliary language model of tasks that decide about a row (:mod:`wenmai.heads.auxiliary_lm`)."""

from __future__ import annotations

from wenmai.backbones.load import Backbone
from wenmai.errors import UserError
from wenmai.heads.auxiliary_lm import WithLanguageModel
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.classification import ClassificationHead, RegressionHead
from wenmai.heads.head import Head

DESCRIPTION = "decoders: weight of a second loss, how badly the text itself is foretold (0.5 in GPT-1)"


def with_language_model(
    decision: ClassificationHead | RegressionHead, backbone: Backbone, weight: float
) -> Head:
    """The head with the second loss, or as it is where the weight is 0.

    Raises:
        UserError: the backbone is no decoder: it would see what it is to foretell.
    """
    if not weight:
        return decision
    if not backbone.causal:
        raise UserError(
            f"task.auxiliary_lm: {weight:g} given, but a {backbone.config.model_type} sees what follows, so there is "
            "nothing to foretell; take a decoder (gpt2, llama, qwen3 ...) or remove it"
        )
    language_model = CausalLMHead(
        backbone.hidden_size, backbone.word_embeddings, tied=backbone.ties_embeddings
    )
    return WithLanguageModel(decision, language_model, weight=weight)
