from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from wenmai.heads.head import IGNORE
from wenmai.heads.masked_lm import ASKED, MaskedLMHead

H, V = 6, 11


class TiedModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(V, H)
        self.head = MaskedLMHead(H, self.embeddings)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TiedModel()


@pytest.fixture
def batch():
    return {"original": torch.tensor([[IGNORE, 3, IGNORE, 10], [0, IGNORE, IGNORE, IGNORE]])}


HIDDEN, MASK = torch.randn(2, 4, H, generator=torch.Generator().manual_seed(1)), torch.ones(2, 4)


def test_logits_are_those_of_berts_own_head(model):
    config = BertConfig(hidden_size=H, vocab_size=V, num_attention_heads=2, intermediate_size=4)
    reference = BertLMPredictionHead(config)
    nn.init.normal_(reference.bias)
    reference.decoder.weight, reference.decoder.bias = model.embeddings.weight, reference.bias
    model.head.dense.load_state_dict(reference.transform.dense.state_dict())
    model.head.norm.load_state_dict(reference.transform.LayerNorm.state_dict())
    model.head.bias.data.copy_(reference.bias.data)
    torch.testing.assert_close(model.head(HIDDEN, MASK)["logits"], reference(HIDDEN))


def test_training_outputs_give_the_loss_of_all_logits(model, batch):
    few = model.head.training_outputs(HIDDEN, MASK, batch)
    assert few["logits"].shape == (3, V)
    loss, count = model.head.loss(few, batch)
    full = model.head(HIDDEN, MASK)
    expected = cross_entropy(full["logits"].flatten(0, 1), batch["original"].flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert count == 3
    torch.testing.assert_close(model.head.loss(full, batch)[0], expected)


def test_evaluation_outputs_are_numbers_a_token(model, batch):
    logits = model.head(HIDDEN, MASK)["logits"]
    batch["original"][0, 1] = logits[0, 1].argmax()
    batch["original"][1, 0] = logits[1, 0].argmin()
    outputs = model.head.evaluation_outputs(HIDDEN, MASK, batch)
    assert outputs["counted"].tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]
    assert outputs["right"][0, 1] == 1 and outputs["right"][1, 0] == 0 and outputs["right"].shape == (2, 4)
    expected = cross_entropy(logits.transpose(1, 2), batch["original"], reduction="none")
    torch.testing.assert_close(outputs["loss"], expected)


def test_masks_of_users_get_their_logits_and_no_loss(model, batch):
    original_BT = torch.tensor([[IGNORE, ASKED, 3, ASKED], [ASKED, IGNORE, IGNORE, IGNORE], [IGNORE] * 4])
    hidden_BTH = torch.cat([HIDDEN, HIDDEN[:1]])
    outputs = model.head.evaluation_outputs(hidden_BTH, torch.ones(3, 4), {"original": original_BT})
    logits = model.head(hidden_BTH, torch.ones(3, 4))["logits"]
    assert outputs["asked_logits"].shape == (3, 2, V)  # at masks only
    torch.testing.assert_close(outputs["asked_logits"][0], logits[0, [1, 3]])
    torch.testing.assert_close(outputs["asked_logits"][1, 0], logits[1, 0])
    assert not outputs["asked_logits"][1, 1].any() and not outputs["asked_logits"][2].any()
    assert outputs["counted"].nonzero().tolist() == [[0, 2]] == outputs["loss"].nonzero().tolist()
    assert "asked_logits" not in model.head.evaluation_outputs(HIDDEN, MASK, batch)


def test_nothing_hidden_is_zero_with_a_graph(model):
    batch = {"original": torch.full((2, 4), IGNORE)}
    loss, count = model.head.loss(model.head.training_outputs(HIDDEN, MASK, batch), batch)
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert all(not p.grad.any() for p in model.parameters())
    assert not model.head.evaluation_outputs(HIDDEN, MASK, batch)["loss"].any()


def test_tied_weight_is_one_parameter_trained_from_both_sides(model, batch):
    assert [name for name, _ in model.named_parameters() if "embeddings" in name] == ["embeddings.weight"]
    assert sum(p.numel() for p in model.head.parameters()) == H * H + H + 2 * H + V
    loss, _ = model.head.loss(model.head.training_outputs(HIDDEN, MASK, batch), batch)
    loss.backward()
    assert model.embeddings.weight.grad.abs().sum() > 0
    assert save(model.state_dict())


def test_tie_survives_loading_copying_and_change_of_precision(model):
    other = TiedModel()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.head(HIDDEN, MASK)["logits"], model.head(HIDDEN, MASK)["logits"])
    twin = copy.deepcopy(model).double()
    before = twin.head(HIDDEN.double(), MASK)["logits"]
    with torch.no_grad():
        twin.embeddings.weight.zero_()
    assert not torch.equal(twin.head(HIDDEN.double(), MASK)["logits"], before)
    assert model.embeddings.weight.any()


def test_embeddings_narrower_than_the_hidden_states():
    head = MaskedLMHead(H, nn.Embedding(V, 4))
    assert head(HIDDEN, MASK)["logits"].shape == (2, 4, V)
