"""A tiny causal and a tiny masked language model by our recipes, beside transformers' own models in a plain loop.

    python benchmarks/language_models.py --json benchmarks/results/language-models.json
    python benchmarks/language_models.py --quick

Both sides begin with equal weights (transformers' GPT2LMHeadModel and BertForMaskedLM, whose backbone our run loads),
see the same texts as the same token ids for the same number of steps, and learn by AdamW with the same rate, warm-up
and decay. Texts are joined to rows of equal length by one rule, each side by code of its own: for the causal model
[CLS] before every text and [SEP] as what follows its last token; for the masked model [SEP] between texts, [CLS] and
[SEP] around a row. With ``--join stream`` the reference joins as run_clm and run_mlm do: [CLS] and [SEP] around every
text, all of them read and predicted, rows cut anywhere. What is each side's own: the order of rows, the loss, dropout's
draws, and for the masked model the masks (DataCollatorForLanguageModeling on their side). The masked model's head is
fresh on both sides: a transform of random weights on the shared word embeddings. Scored on the same held-out texts: the
causal model on every token, by each side's own code, and ours again by theirs; the masked model on the masks of our
evaluation, the same for both.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    get_linear_schedule_with_warmup,
)

from wenmai.atomic import write_text
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.config import RunConfig, load_config
from wenmai.data.rows import IGNORE, collate
from wenmai.evaluation.evaluate import evaluate
from wenmai.inference.predictor import load
from wenmai.samples import sample_records
from wenmai.training.trainer import train

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
LENGTH, ROWS, RATE, WARMUP = 64, 16, 1e-3, 0.1
KINDS = ("causal_lm", "masked_lm")
TOLERANCE = 0.01


def texts(split: str, count: int) -> list[str]:
    """Newspaper sentences of 10 to 60 characters."""
    found = (sample.data["text"] for sample in sample_records("peoples_daily", split))
    return list(islice((text for text in found if 10 <= len(text) <= 60), count))


def write_model(folder: Path, kind: str, seed: int, vocabulary: Sequence[str]) -> Any:
    """transformers' model of random weights, its backbone and tokenizer in the folder."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = {piece: i for i, piece in enumerate([*special, *vocabulary])}
    BertTokenizer(vocab=pieces, do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    if kind == "causal_lm":
        config: Any = GPT2Config(
            vocab_size=len(pieces), n_embd=96, n_layer=2, n_head=4, n_positions=LENGTH, **ids
        )
        model: Any = GPT2LMHeadModel(config)
        model.transformer.save_pretrained(folder)
        return model
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=LENGTH,
        pad_token_id=0,
    )
    model = BertForMaskedLM(config)
    model.bert.save_pretrained(folder)
    return model


def configuration(kind: str, folder: Path, seed: int, steps: int, fine: Sequence[str]) -> RunConfig:
    """The shipped recipe, cut down to this size."""
    more = ["task.masking=token"] if kind == "masked_lm" else ["task.context=0", "backbone.dropout=null"]
    return load_config(
        RECIPES / f"{kind}.yaml",
        [
            f"task.max_length={LENGTH}",
            "task.pack=true",
            f"backbone={{model: {folder / 'model'}}}",
            f"data={{train: {folder / 'train.txt'}, dev: {folder / 'dev.txt'}, format: text, text_unit: line}}",
            f"train.max_steps={steps}",
            "train.epochs=1000",  # the steps end it
            "train.tokens_per_step=null",
            "train.tokens_per_micro_batch=null",
            f"train.examples_per_step={ROWS}",
            f"train.learning_rate={RATE}",
            f"train.head_learning_rate={RATE}",
            "train.schedule=linear",
            f"train.warmup_steps={WARMUP}",
            "train.weight_decay=0.01",
            f"train.eval_steps={steps}",
            f"train.save_steps={steps}",
            "precision=fp32",
            "device=cpu",
            "trackers=[]",
            f"seed={seed}",
            f"output={folder / 'run'}",
            *more,
            *fine,
        ],
    )


def joined(tokenizer: Tokenizer, texts: Sequence[str], kind: str, join: str) -> list[dict[str, list[int]]]:
    """The reference's rows of equal length; ``next``: what follows each token, where it isn't the one beside it."""
    (first,), (last,) = tokenizer.single.before, tokenizer.single.after
    encoded = [tokenizer.encode(text).ids for text in texts]
    if join == "stream":
        stream = [i for ids in encoded for i in (first, *ids, last)]
        return [{"input_ids": stream[at : at + LENGTH]} for at in range(0, len(stream) - LENGTH + 1, LENGTH)]
    if kind == "causal_lm":
        stream = [i for ids in encoded for i in (first, *ids)]
        following = [i for ids in encoded for i in (*ids, last)]
        return [
            {"input_ids": stream[at : at + LENGTH], "next": following[at : at + LENGTH]}
            for at in range(0, len(stream) - LENGTH + 1, LENGTH)
        ]
    room = LENGTH - 2
    stream = [i for ids in encoded for i in (last, *ids)][1:]
    cuts = range(0, len(stream) - room + 1, room)
    return [{"input_ids": [first, *stream[at : at + room], last]} for at in cuts]


def reference(
    model: Any, kind: str, folder: Path, train_texts: Sequence[str], seed: int, steps: int, join: str
) -> float:
    """transformers' model, collator, AdamW and schedule in a plain loop; seconds."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm=kind == "masked_lm", mlm_probability=0.15 if kind == "masked_lm" else None
    )
    rows = joined(load_folder(folder / "model")[1], train_texts, kind, join)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=RATE
    )
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    waiting: list[int] = []
    model.train()
    started = time.perf_counter()
    for _ in range(steps):
        while len(waiting) < ROWS:
            waiting += order.permutation(len(rows)).tolist()
        chosen, waiting = waiting[:ROWS], waiting[ROWS:]
        if "next" in rows[0]:
            read, following = (torch.tensor([rows[i][key] for i in chosen]) for key in ("input_ids", "next"))
            loss = cross_entropy(model(input_ids=read).logits.flatten(0, 1), following.flatten())
        else:
            batch = collator([rows[i] for i in chosen])
            loss = model(**{key: batch[key] for key in ("input_ids", "attention_mask", "labels")}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return time.perf_counter() - started


@torch.inference_mode()
def perplexity(
    logits_of: Callable[[dict[str, Tensor]], Tensor], batches: Sequence[dict[str, Tensor]]
) -> float:
    """e^loss over the counted tokens of batches with ``target`` (B, T)."""
    total, count = 0.0, 0
    for batch in batches:
        known = batch["target"] != IGNORE
        logits = logits_of(batch)[known].double()
        total += float(cross_entropy(logits, batch["target"][known], reduction="sum"))
        count += int(known.sum())
    return math.exp(total / count)


def scored_batches(kind: str, folder: Path, dev_texts: Sequence[str]) -> list[dict[str, Tensor]]:
    """The held-out rows as our evaluation makes them, with its targets."""
    predictor = load(folder / "run")
    rows = [
        row
        for text in dev_texts
        for row in predictor.task.evaluation_rows(
            predictor.task.Example.model_validate({"text": text}), predictor.tokenizer
        )
    ]
    name = "next" if kind == "causal_lm" else "original"
    batches = [collate(rows[i : i + 32], predictor.tokenizer.pad_id) for i in range(0, len(rows), 32)]
    return [
        {"input_ids": b["input_ids"], "attention_mask": b["attention_mask"], "target": b[name]}
        for b in batches
    ]


def run(kind: str, seed: int, steps: int, counts: tuple[int, int], join: str) -> dict[str, Any]:
    train_texts, dev_texts = texts("train", counts[0]), texts("test", counts[1])
    vocabulary = sorted({character for text in train_texts for character in text})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, lines in (("train", train_texts), ("dev", dev_texts)):
            (folder / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        theirs = write_model(folder / "model", kind, seed, vocabulary)
        started = time.perf_counter()
        train(configuration(kind, folder, seed, steps, []))
        seconds = time.perf_counter() - started
        ours = evaluate(
            folder / "run",
            [load(folder / "run").task.Example.model_validate({"text": text}) for text in dev_texts],
            output=folder / "evaluation",
            resamples=2,
        )
        batches = scored_batches(kind, folder, dev_texts)
        their_seconds = reference(theirs, kind, folder, train_texts, seed, steps, join)

        def logits_of(batch: dict[str, Tensor]) -> Tensor:
            logits: Tensor = theirs(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
            return logits

        found = perplexity(logits_of, batches)
        again = None
        if kind == "causal_lm":
            # our weights in their model: transformers opens the bundle
            theirs = GPT2LMHeadModel.from_pretrained(folder / "run" / "bundle").eval()
            again = perplexity(logits_of, batches)
    return {
        "task": kind,
        "seed": seed,
        "steps": steps,
        "ours": ours["perplexity"],
        "ours_by_transformers": again,
        "transformers": found,
        "ratio": ours["perplexity"] / found,
        "seconds": round(seconds, 1),
        "transformers_seconds": round(their_seconds, 1),
    }


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a task: mean perplexities (geometric) and their ratio over seeds."""
    rows = []
    for kind in dict.fromkeys(one["task"] for one in runs):
        own = [one for one in runs if one["task"] == kind]
        logs = np.log([[one["ours"], one["transformers"]] for one in own])
        ratio = float(np.exp((logs[:, 0] - logs[:, 1]).mean()))
        rows.append(
            {
                "task": kind,
                "seeds": len(own),
                "steps": own[0]["steps"],
                "ours": float(np.exp(logs[:, 0].mean())),
                "transformers": float(np.exp(logs[:, 1].mean())),
                "ratio": ratio,
                "ratios": [round(one["ratio"], 4) for one in own],
                "within": abs(ratio - 1) <= TOLERANCE,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| task | perplexity, wenmai | perplexity, transformers | ratio | of each seed | steps |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        each = ", ".join(f"{ratio:.4f}" for ratio in row["ratios"])
        lines.append(
            f"| {row['task']} | {row['ours']:.3f} | {row['transformers']:.3f} | {row['ratio']:.4f} | {each} "
            f"| {row['steps']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--texts", type=int, default=4000, help="training texts")
    parser.add_argument("--join", choices=("rows", "stream"), default="rows", help="the reference's rows")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: under a minute")
    options = parser.parse_args()
    seeds, steps, counts = options.seeds, options.steps, (options.texts, 1000)
    if options.quick:
        seeds, steps, counts = [1], 20, (400, 100)
    page: dict[str, Any] = {
        "benchmark": "language_models",
        "date": time.strftime("%Y-%m-%d"),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("wenmai", "torch", "transformers", "snownlp")},
        "texts": counts,
        "join": options.join,
        "runs": [],
    }
    for seed in seeds:
        for kind in options.tasks:
            found = run(kind, seed, steps, counts, options.join)
            page["runs"].append(found)
            print(json.dumps(found), flush=True)
            page["rows"] = summary(page["runs"])
            if options.json:
                write_text(options.json, json.dumps(page, ensure_ascii=False, indent=1) + "\n")
    print(table(page["rows"]))


if __name__ == "__main__":
    main()
