"""Published corpora, from their files as they are: as many records and labels as their page counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wenmai.data.readers import read_records, scan_records
from wenmai.data.records import Rejected
from wenmai.data.sources import Source

PAIR = {"text": 0, "text_pair": 1, "label": 2}
TABLE: dict[str, Any] = {"format": "tsv", "columns": PAIR}
TITLE = {"delimiter": "\t", "columns": {"text": 0, "label": 1}}
SENTENCES = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
WEIBO = "weibo_ner/weiboNER_2nd_conll"

CASES: list[tuple[str, dict[str, Any], int, int | None]] = [
    # file, options, records, entities or different labels
    ("cluener/train.json", {"format": "cluener"}, 10_748, 23_972),
    ("cluener/dev.json", {"format": "cluener"}, 1_343, 3_072),
    (f"{WEIBO}.train", {"format": "conll"}, 1_350, 1_895),
    (f"{WEIBO}.dev", {"format": "conll"}, 270, 389),
    (f"{WEIBO}.test", {"format": "conll"}, 270, 418),
    ("resume_ner/train.char.bmes", {}, 3_821, 13_440),
    ("resume_ner/dev.char.bmes", {}, 463, 1_497),
    ("resume_ner/test.char.bmes", {}, 477, 1_630),
    ("msra_ner/dh_msra.first12000.txt", {"format": "conll"}, 12_000, 7_004 + 4_506 + 3_862),
    ("literature_ner/validation.txt", {"format": "conll"}, 1_895, 10_571),
    ("literature_ner/test.txt", {"format": "conll"}, 2_837, 16_186),
    ("literature_re_brat/Training", {"discontinuous": "cover"}, 30, 4_580),
    ("thucnews_titles/dev.txt", TITLE, 10_000, 10),
    ("thucnews_titles/test.txt", TITLE, 10_000, 10),
    ("waimai_10k/waimai_10k.csv", {"columns": {"text": "review", "label": "label"}}, 11_987, 2),
    (
        "online_shopping_10_cats/online_shopping_9_cats.every3rd.csv",
        {"columns": {"text": "review", "label": "cat"}},
        17_592,
        9,
    ),
    ("csl_category/train.tsv", {"columns": {"text": 1, "label": 2}}, 8_000, 13),
    ("sougou_mini/test.csv", {"columns": {"text": "content", "label": "label"}}, 495, 5),
    ("lcqmc/dev.txt", TABLE, 8_802, 2),
    ("lcqmc/test.txt", TABLE, 12_500, 2),
    ("afqmc/train.txt", TABLE, 34_334, 2),
    ("afqmc/dev.txt", TABLE, 4_316, 2),
    ("afqmc/test.txt", {"format": "tsv", "columns": {"text": 0, "text_pair": 1}}, 3_861, None),
    ("stsb_zh/sts-b-train.txt", TABLE, 5_231, 6),
    ("stsb_zh/sts-b-dev.txt", TABLE, 1_458, 6),
    ("stsb_zh/sts-b-test.txt", TABLE, 1_361, 6),
    ("ocnli/dev.txt", TABLE, 2_950, 3),
    ("pawsx_zh/dev_2k.tsv", {"columns": SENTENCES}, 2_000, 2),
    ("fewclue/tnews/test_public.json", {"columns": {"text": "sentence", "label": "label_desc"}}, 2_010, 15),
    ("fewclue/tnews/train_few_all.json", {"columns": {"text": "sentence", "label": "label_desc"}}, 1_185, 15),
    ("fewclue/iflytek/test_public.json", {"columns": {"text": "sentence", "label": "label_des"}}, 1_749, 98),
    ("fewclue/eprstmt/test_public.json", {"columns": {"text": "sentence", "label": "label"}}, 610, 2),
    ("fewclue/bustm/test_public.json", {"columns": SENTENCES}, 1_772, 2),
    ("fewclue/ocnli/test_public.json", {"columns": SENTENCES}, 2_520, 3),
    ("smp2019_slu/train.json", {"columns": {"text": "text", "label": "domain"}}, 2_579, 29),
    ("cmed/dev_triples.json", {"format": "triple_list"}, 3_585, None),
    ("semeval2010_task8/train.tsv", {"columns": {"text": 1, "label": 0}}, 8_000, 19),
    ("sanwen/test.txt", {"format": "tsv", "columns": {"label": 2, "text": 3}}, 2_220, 10),
    ("tatoeba_zh_en/cmn.txt", {"format": "tsv", "columns": {"source": 0, "target": 1}}, 22_075, None),
    ("crows_pairs/crows_pairs_anonymized.csv", {}, 1_508, None),
    ("raw_text/classical_modern/xuxiake.modern.txt", {"text_unit": "document"}, 155, None),
    ("raw_text/chinese_poetry/poet.tang.0.json", {}, 1_000, None),
]


@pytest.mark.parametrize(("file", "options", "count", "labels"), CASES, ids=[f"{c[0]}" for c in CASES])
def test_counts(
    shared_data: Path, file: str, options: dict[str, Any], count: int, labels: int | None
) -> None:
    records = [record.data for record in read_records(Source(path=str(shared_data / file), **options))]
    assert len(records) == count
    entities = [entity for record in records for entity in record.get("entities", ())]
    if entities:
        assert len(entities) == labels
        texts = [record["text"] for record in records]
        assert all(
            0 <= entity["start"] < entity["end"] <= len(text)
            for text, record in zip(texts, records, strict=True)
            for entity in record["entities"]
        )
    elif labels is not None:
        assert len({record["label"] for record in records}) == labels


def test_label_names_and_values(shared_data: Path) -> None:
    names = str(shared_data / "thucnews_titles/class.txt")
    source = Source(path=str(shared_data / "thucnews_titles/dev.txt"), label_names=names, **TITLE)
    records = [record.data for record in read_records(source)]
    assert records[0] == {"text": "体验2D巅峰 倚天屠龙记十大创新概览", "label": "game"}
    assert set(Counter(record["label"] for record in records).values()) == {1_000}
    waimai = Source(
        path=str(shared_data / "waimai_10k/waimai_10k.csv"),
        columns={"text": "review", "label": "label"},
        label_map={"1": "positive", "0": "negative"},
    )
    assert Counter(r.data["label"] for r in read_records(waimai)) == {"positive": 4_000, "negative": 7_987}


def test_rows_divide_a_file_of_one_split(shared_data: Path) -> None:
    path = str(shared_data / "resume_ner/dev.char.bmes")
    whole, train, test = (
        [record.data for record in read_records(Source(path=path, rows=rows))]
        for rows in (None, (0, 400), (400, None))
    )
    assert (len(train), len(test)) == (400, 63)
    assert train + test == whole


def test_weibo_entities_read_as_names(shared_data: Path) -> None:
    source = Source(path=str(shared_data / f"{WEIBO}.train"), format="conll")
    names = Counter(
        record.data["text"][entity["start"] : entity["end"]]
        for record in read_records(source)
        for entity in record.data["entities"]
        if entity["label"] == "GPE.NAM"
    )
    assert [name for name, _ in names.most_common(3)] == ["上海", "中国", "美国"]


def test_surrogate_bytes_of_the_first_weibo_version_cost_two_sentences(shared_data: Path) -> None:
    source = Source(path=str(shared_data / "weibo_ner/weiboNER.conll.train"), format="conll")
    items = list(scan_records(source))
    bad = [item for item in items if isinstance(item, Rejected)]
    assert (len(items), [item.line for item in bad]) == (1_350, [5_873, 10_875])
    assert all("half of a surrogate pair" in item.problem.message for item in bad)


def test_the_brat_document_whose_annotation_is_wrong(shared_data: Path) -> None:
    source = Source(path=str(shared_data / "literature_re_brat/Testing"), discontinuous="cover")
    items = list(scan_records(source))
    bad = [item for item in items if isinstance(item, Rejected)]
    assert len(items) == 10
    assert [Path(item.path).name for item in bad] == ["41.ann"]
