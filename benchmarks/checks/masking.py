"""What is hidden in masked language modelling: how much, whole words, anew each epoch, the same after resuming."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, DataCollatorForLanguageModeling
from transformers.utils import logging

from checks.material import records, tiny_encoder
from wenmai.backbones.load import load_folder
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.data.batching import BatchMaker, measure
from wenmai.data.features import features_in_memory
from wenmai.data.rows import IGNORE
from wenmai.samples import sample_records
from wenmai.tasks.masked_lm import MaskedLM, MaskedLMConfig, MaskedLMExample
from wenmai.text.sentences import split_sentences
from wenmai.text.words import segment_words

SHARES = (0.15, 0.4)
BATCH = 32
POINTS = 0.005
"""So far may the share of hidden tokens stray."""

Hidden = list[NDArray[np.bool_]]
"""Of each sentence, which of its tokens are hidden; special tokens left out."""


Ranges = list[tuple[int, int]]
"""Characters ``[start, end)``."""


def masking_rows(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Both maskings of transformers' collator beside ours, and those that only we have."""
    logging.set_verbosity_error()
    encoder = tiny_encoder(folder, "bert", records(200))
    _, tokenizer = load_folder(encoder)
    texts = sentences(500 if quick else 10_000)
    words = [segment_words(text, segmenter="rjieba") for text in texts]
    our_tokens = [tokenizer.encode(text).offsets for text in texts]
    reader = AutoTokenizer.from_pretrained(encoder)
    their_tokens = [
        reader(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for text in texts
    ]
    count = f"{len(texts):,} sentences"
    rows: list[dict[str, Any]] = []
    for masking in ("token", "whole_word", "ngram", "span"):
        known = masking in ("token", "whole_word")
        for share in SHARES:
            ours = our_hidden(texts, tokenizer, masking, share)
            theirs = their_hidden(encoder, texts, masking, share) if known else None
            name = f"{masking} masking, {share:.0%} wanted, {count}"
            found = share_of(ours)
            # 500 sentences are too few for half a point
            rows.append(
                {
                    "row": f"share of the tokens that are hidden: {name}",
                    "ours": round(found, 4),
                    "trainer": theirs and round(share_of(theirs), 4),
                    "ours_exact": abs(found - share) <= POINTS * (4 if quick else 1),
                }
            )
            if masking != "token":
                cut = cut_words(words, our_tokens, ours)
                rows.append(
                    {
                        "row": f"words of the segmenter that are hidden in part: {name}",
                        "ours": cut,
                        "trainer": theirs and cut_words(words, their_tokens, theirs),
                        "ours_exact": cut == 0,
                    }
                )
            if masking == "whole_word":
                whole = all_or_nothing(ours)
                rows.append(
                    {
                        "row": f"sentences of 20 or more tokens hidden as a whole or not at all: {name}",
                        "ours": round(whole, 4),
                        "trainer": theirs and round(all_or_nothing(theirs), 4),
                        "ours_exact": whole < 0.01,
                    }
                )
    return rows + repeated_rows(encoder, texts, tokenizer)


def repeated_rows(encoder: Path, texts: list[str], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Masks of two epochs, and of the second half of an epoch with and without a stop before it."""
    share, half = SHARES[0], len(texts) // BATCH // 2 * BATCH
    count = f"token masking, {share:.0%}, {len(texts):,} sentences"
    ours, again = (our_hidden(texts, tokenizer, "token", share, epoch=epoch) for epoch in (0, 1))
    resumed = our_hidden(texts, tokenizer, "token", share, start=half)
    both = their_hidden(encoder, texts * 2, "token", share)
    theirs, theirs_again = both[: len(texts)], both[len(texts) :]
    theirs_resumed = their_hidden(encoder, texts[half:], "token", share)
    changed, lost = differing(ours, again), differing(ours[half:], resumed)
    return [
        {
            "row": f"sentences whose mask is another in the next epoch: {count}",
            "ours": round(changed, 4),
            "trainer": round(differing(theirs, theirs_again), 4),
            # of a sentence of a few tokens nothing is hidden in either epoch
            "ours_exact": changed > 0.8,
        },
        {
            "row": f"sentences of the epoch's second half whose mask is another when the run goes on there: {count}",
            "ours": round(lost, 4),
            "trainer": round(differing(theirs[half:], theirs_resumed), 4),
            "ours_exact": lost == 0,
        },
    ]


def sentences(count: int) -> list[str]:
    """Sentences of any length that fits a row."""
    found: list[str] = []
    for sample in sample_records("peoples_daily", "train"):
        text = sample.data["text"]
        found += [text[start:end] for start, end in split_sentences(text) if 0 < end - start <= 120]
        if len(found) >= count:
            break
    return found[:count]


def our_hidden(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    masking: str,
    share: float,
    *,
    epoch: int = 0,
    start: int = 0,
) -> Hidden:
    """Of the sentences from ``start`` on, as workers make the batches of training."""
    config = MaskedLMConfig.model_validate({"masking": masking, "mask_share": share, "max_length": 128})
    task = MaskedLM(config, [])
    features = features_in_memory(texts, lambda text: task.featurize(MaskedLMExample(text=text), tokenizer))
    units = measure(features, rows_stay_together=False)
    maker = BatchMaker(features, units, partial(task.augment, tokenizer=tokenizer), tokenizer.pad_id, seed=1)
    before, after = len(tokenizer.single.before), len(tokenizer.single.after)
    hidden: Hidden = []
    for at in range(start, len(units), BATCH):
        part = np.arange(at, min(at + BATCH, len(units)))
        batch = maker(part, epoch)
        for row, length in zip(batch["original"].numpy(), units.longest_N[part].tolist(), strict=True):
            hidden.append(row[before : length - after] != IGNORE)
    return hidden


def their_hidden(encoder: Path, texts: Sequence[str], masking: str, share: float) -> Hidden:
    """One collator with a seed, from the first sentence to the last; one at a time for whole words, as it doesn't pad
    the offsets that it finds words by."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    collator = DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=masking == "whole_word", mlm_probability=share, seed=1
    )
    hidden: Hidden = []
    batch = 1 if masking == "whole_word" else BATCH
    for at in range(0, len(texts), batch):
        encoded = [
            dict(
                tokenizer(
                    text,
                    return_offsets_mapping=masking == "whole_word",
                    return_special_tokens_mask=True,
                )
            )
            for text in texts[at : at + batch]
        ]
        special = [np.array(row["special_tokens_mask"]) for row in encoded]
        labels = collator(encoded)["labels"].numpy()
        for row, mask in zip(labels, special, strict=True):
            hidden.append((row[: len(mask)] != IGNORE)[mask == 0])
    return hidden


def cut_words(words: Sequence[Ranges], tokens: Sequence[Ranges], hidden: Hidden) -> int:
    """Words of which some tokens are hidden and some not."""
    count = 0
    for ranges, offsets, hit in zip(words, tokens, hidden, strict=True):
        place = {start: i for i, (start, _) in enumerate(offsets)}
        for start, end in ranges:
            own = {bool(hit[place[i]]) for i in range(start, end) if i in place}
            count += len(own) == 2
    return count


def share_of(hidden: Hidden) -> float:
    return float(np.concatenate(hidden).mean())


def all_or_nothing(hidden: Hidden) -> float:
    return float(np.mean([hit.all() or not hit.any() for hit in hidden if len(hit) >= 20]))


def differing(first: Hidden, second: Hidden) -> float:
    return float(np.mean([not np.array_equal(*pair) for pair in zip(first, second, strict=True)]))
