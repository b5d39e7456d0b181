"""The verbs on the command line: the recipe, the tables, the errors, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from corpus.texts import GOOD, made_up, texts_in
from wenmai.cli import main
from wenmai.config.corpus import load_corpus_config
from wenmai.corpus.settings import CorpusConfig, QualityConfig
from wenmai.errors import ConfigError

RECIPE = Path(__file__).resolve().parent.parent.parent / "recipes" / "corpus.yaml"
VERBS = ("clean", "dedup", "decontaminate", "mix", "stats")


def test_the_recipe_holds_every_key_with_its_default() -> None:
    assert load_corpus_config(RECIPE) == CorpusConfig()
    lines = RECIPE.read_text(encoding="utf-8").splitlines()
    given = yaml.safe_load("\n".join(lines))
    commented = yaml.safe_load(
        "\n".join(line.replace("# ", "", 1) for line in lines if line.startswith("  # "))
    )

    def keys(tree: object) -> object:
        return {k: keys(v) for k, v in tree.items()} if isinstance(tree, dict) else None

    assert keys(given) | {"clean": keys({**given["clean"], "quality": None})} == keys(
        json.loads(CorpusConfig().model_dump_json())
    ) | {"clean": keys({**given["clean"], "quality": None})}
    assert QualityConfig(**commented["quality"]) == QualityConfig(good=["good.jsonl"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", verb, "--help"]) == 0
    assert f"Usage: wenmai corpus {verb}" in capsys.readouterr().out


def test_from_raw_text_to_a_mixture_without_torch(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("\n".join([*made_up(30), "太短", GOOD, GOOD]), encoding="utf-8")
    (tmp_path / "test.txt").write_text(made_up(30)[3], encoding="utf-8")
    verbs = [
        "corpus clean raw.txt --output clean.jsonl --rejects rejects.jsonl --test-set test.txt",
        "corpus dedup clean.jsonl --output unique.jsonl --processes 2",
        "corpus stats unique.jsonl --json",
        "corpus mix a=unique.jsonl:1 b=clean.jsonl:1 --output mix.jsonl --characters 1000",
    ]
    code = (
        "import sys, shlex; from wenmai.cli import main\n"
        f"codes = [main(shlex.split(line)) for line in {verbs!r}]\n"
        "sys.exit(any(codes) or 3 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(texts_in(tmp_path / "clean.jsonl")) == 31 and len(texts_in(tmp_path / "unique.jsonl")) == 30
    assert {json.loads(line)["reason"] for line in (tmp_path / "rejects.jsonl").read_text().splitlines()} == {
        "too_short",
        "contaminated",
    }
    assert "left out because" in done.stdout and '"distinct_characters"' in done.stdout
    assert "epochs" in done.stdout and "unique.jsonl holds what was kept" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "no.txt", "--output", "a.jsonl"], "no.txt: does not exist"),
        (["clean", "raw.txt", "--output", "a.csv"], "a.csv: an output ends in .jsonl"),
        (["clean", "raw.txt", "--output", "a.jsonl", "--set", "clean.min_charcters=5"],
         "command line: clean.min_charcters: unknown key; did you mean 'min_characters'?"),
        (["clean", "raw.txt", "--output", "a.jsonl", "--set", "clean.min_chinese=2"], "clean.min_chinese: "),
        (["clean", "raw.txt", "--output", "a.jsonl", "--set", "min"], "expected key=value"),
        (["decontaminate", "raw.txt", "--output", "a.jsonl"], "no test sets are named: --test-set FILE"),
        (["mix", "--output", "a.jsonl"], "no sources are named"),
        (["mix", "a", "--output", "a.jsonl"], "a: expected NAME=PATH"),
        (["mix", "a=raw.txt:much", "--output", "a.jsonl"], "the weight behind the colon, 'much', is no number"),
    ],
)  # fmt: skip
def test_errors_are_one_paragraph(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw.txt").write_text(GOOD, encoding="utf-8")
    assert main(["corpus", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err and not printed.out


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text("clean: {min_characters: -1}\ndedub: {}\nmix: {sources: 5}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_corpus_config(path)
    text = str(error.value)
    assert len(error.value.problems) == 3
    assert "clean.min_characters" in text and "did you mean 'dedup'" in text and "mix.sources" in text
