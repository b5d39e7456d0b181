"""Folders, hub names and what can be wrong with them; what is loaded is what transformers would load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
)

from tiny import tiny_backbone_folder
from wenmai.backbones.load import HEAD_PREFIX, Backbone, load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import BundleError, UserError

TEXTS = ["中国人民银行今天在北京发布报告", "好", "wenmai 文脉 2026"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_backbone_folder(tmp_path / "model", texts=TEXTS, layers=3)


def load(path: Path | str, **keys: object) -> tuple[Backbone, Tokenizer]:
    return load_backbone(BackboneConfig.model_validate({"model": str(path), **keys}))


def batch_of(tokenizer: Tokenizer, texts: list[str] = TEXTS) -> dict[str, torch.Tensor]:
    return dict(tokenizer.pretrained(texts, padding=True, return_tensors="pt"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("vocabulary", ["wordpiece", "unigram"])
def test_gives_the_hidden_states_of_transformers(tmp_path: Path, vocabulary: str) -> None:
    path = tiny_backbone_folder(tmp_path, vocabulary=vocabulary)
    backbone, tokenizer = load(path)
    batch = batch_of(tokenizer)
    expected = AutoModel.from_pretrained(path).eval()(**batch).last_hidden_state
    torch.testing.assert_close(backbone(batch), expected)
    assert backbone.config._attn_implementation == "sdpa"
    assert not backbone.training
    assert tokenizer.max_length == 512


def test_padding_changes_nothing_at_real_positions(folder: Path) -> None:
    backbone, tokenizer = load(folder)
    together = backbone(batch_of(tokenizer))
    for i, text in enumerate(TEXTS):
        alone = backbone(batch_of(tokenizer, [text]))[0]
        torch.testing.assert_close(together[i, : len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_targets_in_the_batch_do_not_reach_the_model(folder: Path) -> None:
    backbone, tokenizer = load(folder)
    batch = batch_of(tokenizer)
    torch.testing.assert_close(
        backbone({**batch, "labels": torch.zeros(3), "tags": torch.ones(3)}), backbone(batch)
    )


def test_weights_are_fp32_whatever_the_file_holds(folder: Path) -> None:
    half = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", dtype="float16")
    backbone, _ = load(folder)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_keeps_the_first_layers(folder: Path) -> None:
    whole, tokenizer = load(folder)
    cut, _ = load(folder, layers=2)
    batch = batch_of(tokenizer)
    expected = whole.model(**batch, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(cut(batch), expected)
    assert cut.config.num_hidden_layers == 2
    assert cut.layers is not None and len(cut.layers) == 2


def test_too_many_layers_are_refused_with_the_number_there_is(folder: Path) -> None:
    with pytest.raises(UserError, match=r"backbone.layers: 4 given, but the model has 3 layers"):
        load(folder, layers=4)


def test_layers_of_an_architecture_that_shares_them_are_not_cut(folder: Path) -> None:
    config = AlbertConfig(
        vocab_size=4000, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=8
    )
    AlbertModel(config, add_pooling_layer=False).save_pretrained(folder)
    with pytest.raises(UserError, match="can't cut a AlbertModel"):
        load(folder, layers=2)
    assert load(folder)[0].layers is None


def test_random_weights_follow_the_global_seed_and_need_no_file(folder: Path) -> None:
    trained = load(folder)[0].word_embeddings.weight
    (folder / "model.safetensors").unlink()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(load(folder, weights="random")[0].word_embeddings.weight)
    torch.testing.assert_close(drawn[0], drawn[1], atol=0, rtol=0)
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], trained)


def test_dropout_replaces_the_rates_of_the_model(folder: Path) -> None:
    backbone, _ = load(folder, dropout=0.35)
    rates = {module.p for module in backbone.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.35}
    assert backbone.config.attention_probs_dropout_prob == 0.35


def test_roberta_counts_positions_from_behind_its_padding_id(folder: Path) -> None:
    config = RobertaConfig(
        vocab_size=4000,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=8,
        max_position_embeddings=34,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(folder)
    backbone, tokenizer = load(folder)
    assert tokenizer.max_length == 32
    ids = torch.full((1, 32), 7)
    assert backbone({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).shape == (1, 32, 16)
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        backbone({"input_ids": torch.full((1, 33), 7)})


def test_models_without_token_types_do_not_get_them(folder: Path) -> None:
    config = DistilBertConfig(vocab_size=4000, dim=16, n_heads=2, n_layers=2, hidden_dim=8)
    DistilBertModel(config).save_pretrained(folder)
    backbone, tokenizer = load(folder, layers=1, dropout=0.0)
    batch = batch_of(tokenizer)
    assert "token_type_ids" not in batch  # nor does transformers, when it opens what we save
    batch["token_type_ids"] = torch.ones_like(batch["input_ids"])
    assert backbone(batch).shape == (*batch["input_ids"].shape, 16)
    assert backbone.layers is not None and len(backbone.layers) == 1


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_reads_masked_language_models_of_the_hub(folder: Path, file: str) -> None:
    config = BertConfig.from_pretrained(folder)
    model = BertForMaskedLM(config)
    model.save_pretrained(folder)
    if file == "pytorch_model.bin":
        # as Chinese BERT was published: pickled, and layer norms by their TensorFlow names
        (folder / "model.safetensors").unlink()
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in model.state_dict().items()
        }
        torch.save(old, folder / file)
    backbone, tokenizer = load(folder)
    batch = batch_of(tokenizer)
    torch.testing.assert_close(backbone(batch), model.eval().bert(**batch).last_hidden_state)


def test_one_file_for_backbone_and_head_opens_with_transformers(folder: Path, tmp_path: Path) -> None:
    backbone, tokenizer = load(folder, layers=2)
    out = tmp_path / "bundle"
    out.mkdir()
    backbone.save_config(out)
    tokenizer.save(out)
    head = {
        f"{HEAD_PREFIX}classifier.weight": torch.randn(3, 32),
        f"{HEAD_PREFIX}encoder.layer.0.bias": torch.ones(2),
    }
    save_file({**backbone.state_for_saving(), **head}, out / "model.safetensors", metadata={"format": "pt"})
    batch = dict(AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt"))
    expected = backbone(batch)
    torch.testing.assert_close(AutoModel.from_pretrained(out).eval()(**batch).last_hidden_state, expected)
    torch.testing.assert_close(load_folder(out)[0](batch), expected)
    empty = Backbone.from_config(out)
    empty.load_state(load_file(out / "model.safetensors"))
    torch.testing.assert_close(empty.eval()(batch), expected)


def test_save_writes_a_whole_model_folder(folder: Path, tmp_path: Path) -> None:
    backbone, tokenizer = load(folder)
    backbone.save(tmp_path / "saved")
    model, report = AutoModel.from_pretrained(
        tmp_path / "saved", add_pooling_layer=False, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    batch = batch_of(tokenizer)
    torch.testing.assert_close(model.eval()(**batch).last_hidden_state, backbone(batch))
    assert json.loads((tmp_path / "saved/config.json").read_text())["architectures"] == ["BertModel"]


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    backbone = Backbone.from_config(folder)
    state = backbone.state_for_saving()
    state["stray.weight"] = state.pop("encoder.layer.2.output.dense.bias")
    with pytest.raises(
        BundleError, match=r"1 missing \(encoder.layer.2.output.dense.bias\), 1 unknown \(stray.weight\)"
    ):
        backbone.load_state(state)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    backbone = Backbone.from_config(folder)
    state = {**backbone.state_for_saving(), "encoder.layer.0.output.dense.bias": torch.zeros(5)}
    with pytest.raises(BundleError, match=r"encoder.layer.0.output.dense.bias.*\[5\]"):
        backbone.load_state(state)


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    capfd.readouterr()
    load(folder, layers=1)
    assert capfd.readouterr() == ("", "")


class TestWrongFolders:
    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no such folder"):
            load(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("removed", "message"),
        [
            ("config.json", "no config.json"),
            ("tokenizer.json", r"no tokenizer \(looked for tokenizer.json"),
            ("model.safetensors", r"no weights \(looked for model.safetensors.*weights: random"),
        ],
    )
    def test_missing_file(self, folder: Path, removed: str, message: str) -> None:
        (folder / removed).unlink()
        with pytest.raises(UserError, match=message):
            load(folder)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("config.json", "config.json"),
            ("tokenizer.json", "tokenizer can't be read"),
            ("model.safetensors", "weights can't be read"),
        ],
    )
    def test_cut_off_file(self, folder: Path, name: str, message: str) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(UserError, match=message):
            load(folder)

    def test_pickles_that_would_run_code_are_not_opened(self, folder: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.mkdir, (Path(folder / "harm"),)

        (folder / "model.safetensors").unlink()
        torch.save({"embeddings.word_embeddings.weight": Harm()}, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match="weights can't be read"):
            load(folder)
        assert not (folder / "harm").exists()

    def test_weights_that_lack_a_part_of_the_encoder(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state["encoder.layer.1.output.dense.weight"]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            UserError, match=r"1 weights of the bert encoder are not in the file .encoder.layer.1"
        ):
            load(folder)

    def test_weights_of_another_size(self, folder: Path) -> None:
        edit(folder / "config.json", intermediate_size=48)
        with pytest.raises(UserError, match="weights can't be read"):
            load(folder)

    def test_tokenizer_of_a_larger_model(self, folder: Path, tmp_path: Path) -> None:
        larger = tiny_backbone_folder(tmp_path / "larger", texts=[chr(0x20000 + i) for i in range(50)])
        (folder / "tokenizer.json").write_bytes((larger / "tokenizer.json").read_bytes())
        with pytest.raises(UserError, match=r"tokenizer has .* pieces, but the model embeds only"):
            load(folder)

    def test_code_in_the_folder_is_never_run(self, folder: Path) -> None:
        edit(
            folder / "config.json",
            model_type="home_made",
            auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"},
        )
        (folder / "code.py").write_text("raise SystemExit('remote code ran')")
        with pytest.raises(UserError, match="Python code of its own, which wenmai never runs"):
            load(folder)

    def test_unknown_architecture(self, folder: Path) -> None:
        edit(folder / "config.json", model_type="home_made")
        with pytest.raises(UserError, match="home_made"):
            load(folder)

    def test_tokenizer_that_finds_no_vocabulary(self, folder: Path) -> None:
        """Chinese ALBERTs of the hub: a BERT vocabulary where transformers looks for another."""
        pieces = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        (folder / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.get)))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        config = AlbertConfig(
            vocab_size=4000, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=8
        )
        AlbertModel(config, add_pooling_layer=False).save_pretrained(folder)
        with pytest.raises(UserError, match="AlbertTokenizer found no vocabulary"):
            load(folder)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        tokenizer = load(folder)[1]
        assert tokenizer.tokens(tokenizer.encode("中国").ids) == ["中", "国"]

    def test_encoder_with_a_decoder(self, folder: Path) -> None:
        T5Config(vocab_size=4000).save_pretrained(folder)
        with pytest.raises(UserError, match="t5 is an encoder with a decoder"):
            load(folder)

    def test_revision_of_a_folder(self, folder: Path) -> None:
        for model in (folder, "e5-small"):
            with pytest.raises(UserError, match=r"backbone\.revision: 'main' given"):
                load(model, revision="main")
