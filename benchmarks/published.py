"""What full-size models reach on these data sets, as published; quoted for orientation.

Most were trained on the whole official training set, which is not always at hand here, and tested on all of the
official test set.
"""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """``value`` is of the metric that the benchmark reports, unless ``what`` says otherwise."""

    value: str
    what: str
    source: str


MEMORY = "from memory"
"""Known from the paper, not looked up again."""

PUBLISHED: dict[str, Figure] = {
    "atis": Figure("0.882", "BERT-base; slot F1 0.956, intents 0.979", "README of monologg/JointBERT"),
    "snips": Figure("0.930", "BERT-base; slot F1 0.969, intents 0.991", "README of monologg/JointBERT"),
    "cmed": Figure(
        "0.476",
        "CasRel on BERT-base, full training set",
        "README of longlongman/CasRel-pytorch-reimplement",
    ),
    "webnlg": Figure("0.910", "OneRel on BERT-base", f"OneRel paper (AAAI 2022), {MEMORY}"),
    "webnlg_star": Figure(
        "0.918",
        "CasRel on BERT-base, full training set (ten times as long as ours)",
        f"CasRel paper (ACL 2020), {MEMORY}",
    ),
    "semeval2010_task8": Figure(
        "0.893", "R-BERT; 0.883 in a reimplementation", f"paper, {MEMORY}; README of monologg/R-BERT"
    ),
    "sanwen": Figure(
        "0.656", "MG-Lattice, no pretrained encoder; F1 of its own scorer", f"Li et al. (ACL 2019), {MEMORY}"
    ),
    "people_relation": Figure(
        "0.796",
        "accuracy, not F1, of BERT-wwm-ext on an earlier test set of 592",
        "README of percent4/people_relation_extract",
    ),
    "cmrc2018": Figure(
        "0.845",
        "BERT-base; exact match 0.655; full training set (ten times as long as ours)",
        f"README of ymcui/Chinese-BERT-wwm, {MEMORY}",
    ),
    "drcd": Figure(
        "0.892",
        "BERT-base; exact match 0.822; full training set (eight times as long as ours)",
        f"README of ymcui/Chinese-BERT-wwm, {MEMORY}",
    ),
    "ud_zh_gsdsimp": Figure(
        "0.838",
        "UDify on UD_Chinese-GSD with gold words; full training set (eight times as long as ours)",
        f"UDify paper (EMNLP 2019), {MEMORY}",
    ),
    "ud_en_ewt": Figure(
        "0.885",
        "UDify with gold words; full training set (three times as long as ours)",
        f"UDify paper (EMNLP 2019), {MEMORY}",
    ),
    "funsd": Figure(
        "0.787", "LayoutLM-base, text and layout; BERT-base 0.603", f"LayoutLM paper (KDD 2020), {MEMORY}"
    ),
    "stsb_zh": Figure("0.793", "BERT-base with CoSENT", "README of shibing624/text2vec"),
    "lcqmc_embedding": Figure(
        "0.787",
        "Spearman, not average precision, of BERT-base with CoSENT; full training set (27 times as long as ours)",
        "README of shibing624/text2vec",
    ),
    "afqmc_embedding": Figure(
        "0.737",
        "accuracy, not average precision, of BERT-base on pairs read together, official test set",
        f"CLUE, {MEMORY}",
    ),
    "chid": Figure(
        "0.150",
        "RoBERTa-base fine-tuned on 42 texts; 0.613 with prompts (PET), 0.576 without training",
        "README of CLUEbenchmark/FewCLUE",
    ),
    "lcqmc": Figure(
        "0.869",
        "BERT-base; full training set (27 times as long as ours)",
        f"README of ymcui/Chinese-BERT-wwm, {MEMORY}",
    ),
    "afqmc": Figure("0.737", "BERT-base on the official test set", f"CLUE, {MEMORY}"),
    "pawsx_zh": Figure(
        "0.600",
        "Spearman, not average precision, of BERT-base with CoSENT; full training set (31 times as long as ours)",
        "README of shibing624/text2vec",
    ),
    "ocnli": Figure(
        "0.722",
        "BERT-base on the official test set; full training set (17 times as long as ours)",
        f"CLUE, {MEMORY}",
    ),
    "cluener": Figure("0.788", "BERT-base on the official test set", "README of CLUEbenchmark/CLUENER2020"),
    "weibo_ner": Figure("0.682", "BERT-base", f"FLAT paper (ACL 2020), {MEMORY}"),
    "resume_ner": Figure("0.955", "BERT-base", f"FLAT paper (ACL 2020), {MEMORY}"),
    "msra_ner": Figure("0.948 to 0.950", "BERT-base on the official split", MEMORY),
    "thucnews_titles": Figure(
        "0.948",
        "BERT-base; full training set (18 times as long as ours)",
        "README of 649453932/Bert-Chinese-Text-Classification-Pytorch",
    ),
}
"""Data sets without an entry have no published figure that we know to be of the same measure."""
