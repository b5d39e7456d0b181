"""Every shipped recipe loads, and those for the corpora beside the checkout read their files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from wenmai.check.doctor import labels_of
from wenmai.config import SPLITS, RunConfig, load_config
from wenmai.data.examples import Examples, read_examples
from wenmai.data.sources import Source
from wenmai.tasks import TASKS
from wenmai.tasks.task import Example

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPES = sorted((CHECKOUT / "recipes").rglob("*.yaml"))
RECIPES = [path for path in RECIPES if path.stem != "corpus"]  # of no run: tests/corpus/test_corpus_cli.py
CORPORA = [path for path in RECIPES if path.parent.name == "corpora"]
SEMEVAL = (
    *("Cause-Effect", "Instrument-Agency", "Product-Producer", "Content-Container", "Entity-Origin"),
    *("Entity-Destination", "Component-Whole", "Member-Collection", "Message-Topic"),
)
COUNTS = {
    "afqmc": {"train": 34_334, "test": 4_316},
    "afqmc_embedding": {"train": 34_334, "test": 4_316},
    "atis": {"train": 4_478, "dev": 500, "test": 893},
    "bustm": {"train": 160, "dev": 160, "test": 1_772},
    "chid": {"train": 202, "dev": 202, "test": 2_002},
    "cluener": {"train": 10_748, "test": 1_343},
    "cmrc2018": {"train": 1_002, "test": 3_219},
    "drcd": {"train": 3_524, "test": 3_493},
    "cmed": {"train": 3_000, "test": 585},
    "csl_category": {"train": 8_000, "dev": 1_000, "test": 1_000},
    "csldcp": {"train": 2_036, "dev": 2_068, "test": 1_784},
    "eprstmt": {"train": 160, "dev": 160, "test": 610},
    "fewclue_ocnli": {"train": 160, "dev": 160, "test": 2_520},
    "iflytek": {"train": 3_024, "dev": 690, "test": 1_749},
    "fewclue_bustm": {"train": 32, "dev": 32, "test": 1_772},
    "fewclue_eprstmt": {"train": 32, "dev": 32, "test": 610},
    "fewclue_tnews": {"train": 240, "dev": 240, "test": 2_010},
    "lcqmc": {"train": 8_802, "test": 12_500},
    "lcqmc_embedding": {"train": 8_802, "test": 12_500},
    "funsd": {"train": 149, "test": 50},
    "literature_re_brat": {"train": 30, "test": 9},
    "literature_relations": {"train": 30, "test": 9},
    "msra_ner": {"train": 10_000, "test": 2_000},
    "ocnli": {"train": 2_950},
    "online_shopping_10_cats": {"train": 17_592},
    "pawsx_zh": {"train": 2_000, "test": 2_000},
    "people_relation": {"train": 3_087, "test": 772},
    "resume_ner": {"train": 3_821, "dev": 463, "test": 477},
    "sanwen": {"train": 17_227, "dev": 1_793, "test": 2_220},
    "semeval2010_task8": {"train": 8_000, "test": 2_717},
    "smp2019_slu": {"train": 2_579},
    "snips": {"train": 13_084, "dev": 700, "test": 700},
    "sougou_mini": {"train": 495},
    "stsb_zh": {"train": 5_231, "dev": 1_458, "test": 1_361},
    "thucnews_titles": {"train": 10_000, "test": 10_000},
    "tnews": {"train": 1_185, "dev": 1_098, "test": 2_010},
    "ud_en_ewt": {"train": 3_889, "dev": 2_001, "test": 2_077},
    "ud_zh_gsdsimp": {"train": 500, "test": 500},
    "waimai_10k": {"train": 11_987},
    "webnlg": {"train": 5_019, "dev": 500, "test": 703},
    "webnlg_star": {"train": 500, "test": 703},
    "weibo_ner": {"train": 1_350, "dev": 270, "test": 270},
}
"""Records a file, as counted when the corpora were collected."""
LABELS = {
    "afqmc": {"same", "different"},
    "bustm": {"same", "different"},
    "eprstmt": {"Positive", "Negative"},
    "fewclue_ocnli": {"entailment", "neutral", "contradiction"},
    "fewclue_bustm": {"0", "1"},
    "fewclue_eprstmt": {"Positive", "Negative"},
    "literature_re_brat": {"Abstract", "Location", "Metric", "Organization", "Person", "Thing", "Time"},
    "funsd": {"header", "question", "answer"},
    "msra_ner": {"PER", "LOC", "ORG"},
    "ocnli": {"entailment", "neutral", "contradiction"},
    "resume_ner": {"NAME", "ORG", "TITLE", "EDU", "PRO", "CONT", "RACE", "LOC"},
    "sanwen": {"unknown", "Create", "Use", "Near", "Social", "Located", "Ownership", "General-Special"}
    | {"Family", "Part-Whole"},
    "semeval2010_task8": {f"{name}({pair})" for name in SEMEVAL for pair in ("e1,e2", "e2,e1")} | {"Other"},
    "waimai_10k": {"positive", "negative"},
    "weibo_ner": {f"{kind}.{form}" for kind in ("PER", "ORG", "GPE", "LOC") for form in ("NAM", "NOM")},
}


def sources(config: RunConfig) -> dict[str, Source]:
    found = {name: config.data.source(name) for name in SPLITS}
    return {name: source for name, source in found.items() if source is not None}


def read(config: RunConfig, source: Source) -> Examples[Example]:
    example = TASKS[config.task.name].Example
    return read_examples(source, example, on_error=config.data.on_error, require_labels=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_explains_itself(path: Path) -> None:
    config = load_config(path)
    assert Path(config.output).parts[0] == "runs" and Path(config.output).name == path.stem
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert config.has_dev, "the best model is chosen on dev"


def test_every_task_has_a_recipe() -> None:
    assert {load_config(CHECKOUT / "recipes" / f"{task}.yaml").task.name for task in TASKS} == set(TASKS)


def test_the_recipe_of_several_tasks_reads_its_files(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    parts = load_config(CHECKOUT / "recipes" / "multi_task.yaml").parts
    assert [part.task.name for part in parts.values()] == [
        "ner",
        "text_classification",
        "text_classification",
    ]
    for part in parts.values():
        source = part.data.source("train")
        assert source is not None
        first = source.model_copy(update={"rows": (0, 50)})
        assert len(read_examples(first, TASKS[part.task.name].Example, require_labels=True)) == 50


def test_the_corpora_are_those_that_were_counted() -> None:
    assert {path.stem for path in CORPORA} == set(COUNTS)


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.stem)
def test_corpora_are_read_as_they_are(path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    config = load_config(path)
    labels: set[str] = set()
    for name, source in sources(config).items():
        first = source.model_copy(update={"rows": first_rows(source, 200)})
        examples = read(config, first)
        skipped = len(examples.rejects)
        assert min(200, COUNTS[path.stem][name]) in (len(examples), len(examples) + skipped)
        labels |= {label for example in examples for label in labels_of(example.model_dump())}
    assert labels <= LABELS.get(path.stem, labels)


def first_rows(source: Source, count: int) -> tuple[int, int]:
    start = source.rows[0] if source.rows else 0
    return (start, start + count)


@pytest.mark.slow
@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.stem)
def test_corpora_hold_what_was_counted(
    path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    config = load_config(path)
    labels: set[str] = set()
    for name, source in sources(config).items():
        examples = read(config, source)
        assert len(examples) == COUNTS[path.stem][name]
        labels |= {label for example in examples for label in labels_of(example.model_dump())}
    assert labels == LABELS.get(path.stem, labels)
