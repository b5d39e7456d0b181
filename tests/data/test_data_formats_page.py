"""Every file, option and message on docs/data-formats.md is read as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import yaml

from wenmai.data.readers import read_records
from wenmai.data.sources import DataConfig, Format, Reading
from wenmai.data.split import load_splits
from wenmai.errors import DataError
from wenmai.tasks.text_classification import TextClassificationExample

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-formats.md"
BLOCK = re.compile(r"^```(?P<info>[^\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    info: str
    body: str


def sections() -> dict[str, list[Block]]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        title: [Block(m["info"], m["body"]) for m in BLOCK.finditer(body)]
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


SECTIONS = {title: blocks for title, blocks in sections().items() if blocks}


@pytest.mark.parametrize("title", SECTIONS)
def test_section_does_what_it_says(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if title == "What errors look like":  # goes on with a file of the first section
        _write_files(SECTIONS["jsonl: an object a line"])
    _write_files(SECTIONS[title])
    config: DataConfig | None = None
    checked = 0
    for info, body in SECTIONS[title]:
        if info == "python":
            environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "hf")}
            subprocess.run([sys.executable, "-c", body], check=True, env=environment)
        elif info == "yaml":
            config = DataConfig(**yaml.safe_load(body))
        elif info == "json records":
            assert config is not None
            sources = [source for name in ("train", "dev") if (source := config.source(name)) is not None]
            found = [record.data for source in sources for record in read_records(source)]
            assert found == [json.loads(line) for line in body.splitlines()]
            checked += 1
        elif info == "text error":
            assert config is not None
            with pytest.raises(DataError) as error:
                load_splits(config, TextClassificationExample, cache=None, output=None)
            assert [str(problem) for problem in error.value.problems] == body.splitlines()
            checked += 1
        else:
            assert " file=" in info, f"a block that no test runs: {info}"
    assert checked


def _write_files(blocks: list[Block]) -> None:
    for info, body in blocks:
        if " file=" in info:
            path = Path(info.split(" file=")[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8", newline="")


def test_the_sketch_is_a_data_section() -> None:
    sketch = PAGE.read_text(encoding="utf-8").split("```yaml sketch\n")[1].split("```")[0]
    config = DataConfig(**yaml.safe_load(sketch)["data"])
    train, test = config.source("train"), config.source("test")
    assert train is not None and test is not None
    assert (train.path, train.format) == ("corpora/reviews/train.csv", "csv")
    assert (test.path, test.format) == ("corpora/reviews/extra/test.jsonl", "jsonl")


def test_page_names_every_option_and_format() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in Reading.model_fields if f"| `{name}` |" not in page] == []
    titles = " ".join(SECTIONS)
    assert [name for name in get_args(Format) if name != "auto" and name not in titles] == []
