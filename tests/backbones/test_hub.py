"""Names on the hub: from its cache without a network, and one clear paragraph when a model can't be had."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from tiny import tiny_backbone_folder
from wenmai.backbones.load import Backbone, load_backbone, load_folder
from wenmai.backbones.settings import BackboneConfig
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import UserError


def load(name: str, revision: str | None = None) -> tuple[Backbone, Tokenizer]:
    return load_backbone(BackboneConfig(model=name, revision=revision))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseHTTPRequestHandler]]:
    """A hub on this machine that answers every request with ``status`` and ``code``."""

    class Hub(BaseHTTPRequestHandler):
        status, code = 404, "RepoNotFound"

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.send_header("X-Error-Code", self.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield Hub
    server.shutdown()
    server.server_close()


class TestHub:
    def cached(self, hub_cache: Path) -> Path:
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = hub_cache / "models--someone--tiny-zh"
        tiny_backbone_folder(repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        return repository / "snapshots" / commit

    def test_a_cached_model_needs_no_network(self, hub_cache: Path) -> None:
        snapshot = self.cached(hub_cache)
        backbone, tokenizer = load("someone/tiny-zh")
        expected, _ = load_folder(snapshot)
        batch = dict(tokenizer.pretrained(["今天", "北京"], padding=True, return_tensors="pt"))
        torch.testing.assert_close(backbone(batch), expected(batch))

    def test_a_cached_model_is_used_when_the_hub_is_down(self, hub_cache: Path, monkeypatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        self.cached(hub_cache)
        assert load("someone/tiny-zh")[0].hidden_size == 32

    def test_offline_and_not_cached(self, hub_cache: Path) -> None:
        with pytest.raises(UserError) as caught:
            load("someone/not-here")
        message = str(caught.value)
        assert "\n" not in message
        for part in ("someone/not-here", "HF_HUB_OFFLINE is set", str(hub_cache), "HF_ENDPOINT", "e5-small"):
            assert part in message

    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (404, "RepoNotFound", "no such public model"),
            (403, "GatedRepo", "it is gated: accept its terms"),
            (404, "RevisionNotFound", "it has no revision 'v9'"),
        ],
    )
    def test_what_the_hub_answers(
        self, hub: type[BaseHTTPRequestHandler], status: int, code: str, message: str
    ) -> None:
        hub.status, hub.code = status, code
        with pytest.raises(UserError, match=message):
            load("someone/not-here", revision="v9")

    def test_a_hub_out_of_reach(self, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"can't be had from the hub http://127.0.0.1:9: Connect"):
            load("someone/not-here")
