"""Windows that count every token once, transformers' own perplexity, and texts that go on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from tiny import decoder_folder, tiny_backbone_folder
from toy import ner_records
from wenmai.backbones.load import load_folder
from wenmai.data.packing import packed
from wenmai.data.rows import IGNORE
from wenmai.errors import UserError
from wenmai.inference.engine import predictions
from wenmai.inference.generation import _choose, continuations
from wenmai.tasks.causal_lm import CausalLM, CausalLMConfig, CausalLMExample
from wenmai.tasks.generation import Generation
from wenmai.tasks.model import Model

TEXTS = [record["text"] for record in ner_records()]
LONG = "王小明昨天去了北京开会，然后回家。" * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tiny_backbone_folder(tmp_path_factory.mktemp("tiny"), texts=TEXTS, positions=64))


def model_of(folder: Path, **config: object) -> tuple[CausalLM, Model]:
    task = CausalLM(CausalLMConfig.model_validate({"max_length": 32, **config}), [])
    backbone, _ = load_folder(folder)
    with torch.no_grad():  # else all tokens are about equally likely
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return task, Model(backbone, task.build_head(backbone)).eval()


@pytest.mark.parametrize("context", [0, 1, 20, 31])
@pytest.mark.parametrize("text", ["", "王", LONG[:30], LONG[:31], LONG[:32], LONG])
def test_every_token_counts_once_with_what_stands_before_it(folder: Path, text: str, context: int) -> None:
    tokenizer = load_folder(folder)[1]
    task = CausalLM(CausalLMConfig(max_length=32, context=context), [])
    before, after = tokenizer.document_ends
    ids = [*before, *tokenizer.encode(text).ids, *after]
    said = []
    rows = task.evaluation_rows(CausalLMExample(text=text), tokenizer)
    for number, row in enumerate(rows):
        assert len(row) == len(row.offsets) <= 32
        counted = [i for i, following in enumerate(row.targets["next"]) if following != IGNORE]  # type: ignore[arg-type]
        assert counted == list(range(counted[0], len(row)))
        assert counted[0] == (0 if number == 0 else min(context, len(said)))
        for i in counted:
            said.append(row.targets["next"][i])  # type: ignore[index]
            assert row.inputs["input_ids"][: i + 1] == ids[len(said) - 1 - i : len(said)]
        first, stop = row.content
        assert [text[start:end] for start, end in row.offsets[first:stop]] == list(
            text[row.window : row.window + stop - first]
        )
    assert said == ids[1:]
    training = task.featurize(CausalLMExample(text=text), tokenizer)
    assert sum(map(len, training)) == len(ids) - 1


def test_packed_rows_hold_every_token_and_target_once(folder: Path) -> None:
    tokenizer = load_folder(folder)[1]
    texts = ["王", LONG, "", LONG[:40], "北京"]
    plain, packing_task = (CausalLM(CausalLMConfig(max_length=32, pack=pack), []) for pack in (False, True))
    assert packing_task.packed and not plain.packed
    documents = [packing_task.featurize(CausalLMExample(text=text), tokenizer) for text in texts]
    rows = packed(documents, 32)
    assert [len(row) for row in rows[:-1]] == [32] * (len(rows) - 1) and len(rows[-1]) <= 32
    alone = [row for text in texts for row in plain.featurize(CausalLMExample(text=text), tokenizer)]
    for part, name in (("inputs", "input_ids"), ("targets", "next")):
        joined = [value for row in rows for value in getattr(row, part)[name]]
        assert joined == [value for row in alone for value in getattr(row, part)[name]]
    # what is scored stays text by text
    example = CausalLMExample(text=LONG)
    assert packing_task.evaluation_rows(example, tokenizer) == plain.evaluation_rows(example, tokenizer)


def test_perplexity_is_that_of_gpt2(folder: Path) -> None:
    task, model = model_of(folder, max_length=64)
    tokenizer = load_folder(folder)[1]
    config = GPT2Config.from_pretrained(folder)
    theirs = GPT2LMHeadModel(config).eval()
    theirs.transformer.load_state_dict(model.backbone.model.state_dict())
    examples = [CausalLMExample(text=text) for text in TEXTS[:6]]
    found = list(predictions(model, task, tokenizer, examples, tokens_per_batch=100))
    total, count = 0.0, 0
    for text in TEXTS[:6]:
        ids = tokenizer.pretrained(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            total += float(theirs(input_ids=ids, labels=ids).loss) * (ids.size(1) - 1)
        count += ids.size(1) - 1
    scores = task.score(examples, found).values()
    assert sum(p["tokens"] for p in found) == count
    assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    characters = sum(map(len, TEXTS[:6]))
    assert scores["bits_per_character"] == pytest.approx(total / characters / math.log(2), rel=1e-4)


def test_more_context_changes_what_is_known_not_what_is_counted(folder: Path) -> None:
    tokenizer = load_folder(folder)[1]
    example = CausalLMExample(text=LONG)
    found = {}
    for context in (0, 24):
        task, model = model_of(folder, context=context)
        (found[context],) = predictions(model, task, tokenizer, [example])
    assert found[0]["tokens"] == found[24]["tokens"] == len(LONG) + 1
    assert found[0]["loss"] != pytest.approx(found[24]["loss"], rel=1e-4)


@pytest.mark.parametrize("padding_free", ["on", "off"])
def test_greedy_continuations_are_those_of_transformers(folder: Path, padding_free: str) -> None:
    _, model = model_of(folder)
    model.backbone.set_padding_free(padding_free)  # type: ignore[arg-type]
    tokenizer = load_folder(folder)[1]
    theirs = GPT2LMHeadModel(GPT2Config.from_pretrained(folder)).eval()
    theirs.transformer.load_state_dict(model.backbone.model.state_dict())
    before, after = tokenizer.document_ends
    prompts = [
        [*before, *tokenizer.encode(text).ids] for text in ("", "王小明", "北京", "上海", "王小明昨天去了")
    ]
    found = continuations(model, tokenizer, prompts, Generation(12), tokens_per_batch=60)
    for prompt, ids in zip(prompts, found, strict=True):
        whole = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=after[0], pad_token_id=0
        )[0].tolist()
        assert ids == [token for token in whole[len(prompt) :] if token != after[0]]


def test_a_prompt_without_room_loses_its_beginning(folder: Path) -> None:
    _, model = model_of(folder)
    tokenizer = load_folder(folder)[1]
    ids = tokenizer.encode(LONG).ids
    for new in (10, 63, 1000):
        kept = ids[-max(1, 64 - new) :]
        found = continuations(model, tokenizer, [ids, kept], Generation(new), tokens_per_batch=999)
        assert found[0] == found[1] and len(found[0]) <= 63


def test_draws_belong_to_the_text_and_the_seed(folder: Path) -> None:
    tokenizer = load_folder(folder)[1]
    items = ["王小明", "李建国", "北京", "王小明昨天", ""]
    found = {}
    for seed in (0, 1):
        task, model = model_of(folder, temperature=1.0, max_new_tokens=6, sampling_seed=seed)
        examples = [task.as_example(item) for item in items]
        found[seed] = list(predictions(model, task, tokenizer, examples))
        alone = [next(predictions(model, task, tokenizer, [example])) for example in examples]
        assert alone == found[seed]
        assert [p["text"] for p in found[seed]] == items
    assert found[0] != found[1]
    as_text, as_prompt = (task.as_example({key: "北京", "id": 7}) for key in ("text", "prompt"))
    assert as_text == as_prompt and as_prompt.prompt == "北京" and as_prompt.id == 7


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_draws_have_the_probabilities_that_were_asked_for(temperature: float, top_p: float) -> None:
    p = np.array([0.1, 0.5, 0.05, 0.35])
    logits = torch.tensor(np.log(p)).expand(4000, 4)
    draws = [np.random.default_rng(i) for i in range(4000)]
    chosen = _choose(logits, draws, Generation(1, temperature, top_p))
    expected = p ** (1 / temperature)
    if top_p < 1:
        expected = np.where(p >= 0.35, expected, 0)  # 0.5 alone is less than 0.6
    shares = np.bincount(chosen, minlength=4) / 4000
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)
    assert (shares[expected == 0] == 0).all()


def test_refusals(tmp_path: Path) -> None:
    encoder, _ = load_folder(tiny_backbone_folder(tmp_path))
    with pytest.raises(UserError, match=r"causal_lm needs a decoder .* bert sees what follows"):
        CausalLM(CausalLMConfig(), []).build_head(encoder)
    with pytest.raises(ValidationError, match="context 32 must be below max_length 32"):
        CausalLMConfig(max_length=32, context=32)
    for record in ({}, {"text": "a", "prompt": "b"}):
        with pytest.raises(ValidationError, match="one of both"):
            CausalLMExample(**record)
