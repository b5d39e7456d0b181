"""Models that come with the package: found by their exact name, by every way that opens a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import wenmai
from tiny import tiny_backbone_folder
from wenmai.backbones.load import load_backbone
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.shipped import no_hub_needed, shipped_folder, shipped_models
from wenmai.errors import UserError
from wenmai.training.info import model_info

SHIPPED = shipped_models()


def test_an_exact_name_finds_the_folder(tmp_path: Path) -> None:
    tiny_backbone_folder(tmp_path / "wenmai-tiny-zh")
    (tmp_path / "notes").mkdir()
    assert shipped_models(root=tmp_path) == ["wenmai-tiny-zh"]
    for name in ("wenmai-tiny-zh", Path("wenmai-tiny-zh")):
        assert shipped_folder(name, root=tmp_path) == tmp_path / "wenmai-tiny-zh"
    for name in ("notes", "wenmai-tiny", "other/wenmai-tiny-zh", tmp_path / "wenmai-tiny-zh", "", ".."):
        assert shipped_folder(name, root=tmp_path) is None
    assert no_hub_needed("wenmai-tiny-hz", root=tmp_path).endswith("did you mean 'wenmai-tiny-zh'?")
    assert no_hub_needed("bert", root=tmp_path) == "wenmai-tiny-zh or e5-small, which need no hub"


def test_errors_name_what_needs_no_hub() -> None:
    with pytest.raises(UserError, match=r"e5-small, which needs? no hub; did you mean 'e5-small'\?"):
        load_backbone(BackboneConfig(model="e5-smal"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_opens_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder of the same name does not stand in its way
    backbone, _ = load_backbone(BackboneConfig(model=name))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="is of one version"):
        load_backbone(BackboneConfig(model=name, revision="main"))
    text = "今天[MASK]气很好。"
    (mask,) = wenmai.load(name)(text)["masks"]
    assert text[mask["start"] : mask["end"]] == "[MASK]"
    assert wenmai.pipeline("fill-mask", model=name)(text)["masks"] == [mask]
    assert model_info(name).task == "masked_lm"
    assert len(wenmai.pipeline("feature-extraction", model=name).vectors(["今天"])) == 1
