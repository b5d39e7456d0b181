"""Verbs around embeddings: hard negatives, whitening."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wenmai.cli.app import AsJson, app, note, print_json, progress
from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.tasks.embedding_example import TextEmbeddingConfig

Encoder = Annotated[
    str, typer.Argument(metavar="MODEL", help="a run, a bundle, a model folder, a hub name or e5-small")
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="records of text_embedding, labelled or not")]
ReadAs = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="how to read it: format=tsv columns={text: 0}")
]
PoolingOption = Annotated[
    Literal["mean", "cls", "max", "last", "weighted_mean"] | None,
    typer.Option(
        help="tokens to one vector; default: mean. Of an encoder; a text_embedding model has its own"
    ),
]
PrefixOption = Annotated[str | None, typer.Option(help="put before every text ('query: '); of an encoder")]
LengthOption = Annotated[
    int | None, typer.Option(min=8, help="tokens of a text that are read; default: 128. Of an encoder")
]


@app.command()
def mine_negatives(
    model: Encoder,
    data: Data,
    reading: ReadAs = None,
    output: Annotated[Path | None, typer.Option(help="write to this file; default: print")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="file of texts to search; default: all texts of DATA")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="negatives an anchor, at most")] = 5,
    ranks: Annotated[str, typer.Option(help="FIRST:LAST of the texts that are left, nearest first")] = "1:50",
    margin: Annotated[
        float, typer.Option(help="negatives are less similar than the positive by more than this")
    ] = 0.0,
    choice: Annotated[
        Literal["nearest", "random"], typer.Option(help="the first of the ranks, or any of them")
    ] = "nearest",
    positive_score: Annotated[float, typer.Option(help="pairs of at least this score belong together")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of what is drawn")] = 42,
    pooling: PoolingOption = None,
    prefix: PrefixOption = None,
    max_length: LengthOption = None,
) -> None:
    """Find hard negatives: texts that a model takes for similar and that do not belong together.

    Writes each anchor and positive with its negatives, one JSON line each, ready to train text_embedding on.
    """
    from wenmai.atomic import writing
    from wenmai.config import load_source
    from wenmai.data.examples import read_examples
    from wenmai.inference.embedder import open_embedder
    from wenmai.inference.output import json_line
    from wenmai.search.mining import Mining, mine_negatives
    from wenmai.tasks.embedding_example import TextEmbeddingExample

    first, last = _ranks(ranks)
    settings = Mining(
        count=count,
        first_rank=first,
        last_rank=last,
        margin=margin,
        choice=choice,
        positive_score=positive_score,
        seed=seed,
    )
    examples = read_examples(load_source(data, reading or []), TextEmbeddingExample)
    searched = None if corpus is None else read_examples(load_source(corpus, []), TextEmbeddingExample)
    embedder = open_embedder(model, _settings(pooling, prefix, max_length))
    texts = None if searched is None else (text for example in searched for text in example.texts)
    mined = mine_negatives(embedder, examples, texts, settings, progress=progress())
    if output is None:
        for record in mined:
            print(json_line(record), end="")
        return
    records = negatives = without = 0
    with writing(output) as target:
        for record in mined:
            target.write(json_line(record))
            records += 1
            negatives += len(record["negatives"])
            without += not record["negatives"]
    note(f"{output}: {records} anchors with {negatives} negatives; {without} have none")


@app.command()
def whiten(
    model: Encoder,
    data: Data,
    reading: ReadAs = None,
    output: Annotated[Path, typer.Option(help="the new bundle; must not exist")] = Path("whitened"),
    width: Annotated[
        int | None, typer.Option(min=1, help="numbers of the new vectors; default: about as many as before")
    ] = None,
    evaluate_on: Annotated[
        Literal["retrieval", "similarity", "pairs"] | None,
        typer.Option(help="how the bundle is scored; default: similarity. Of an encoder"),
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="labelled pairs, read like DATA, to choose the threshold on; for pairs")
    ] = None,
    pooling: PoolingOption = None,
    prefix: PrefixOption = None,
    max_length: LengthOption = None,
    as_json: AsJson = False,
) -> None:
    """Make an encoder's vectors fit for cosines without training, or narrower: whitening.

    Mean and covariance are those of the texts of DATA, whose labels are not looked at. Writes a bundle of
    text_embedding, for predict, evaluate and mine-negatives.
    """
    from wenmai.config import load_source
    from wenmai.data.examples import read_examples
    from wenmai.inference.embedder import open_embedder
    from wenmai.inference.whitening import choose_threshold, different, fit_whitening, save_embedder
    from wenmai.tasks.embedding_example import TextEmbeddingExample, UnlabelledTexts

    if output.exists():
        raise UserError(f"{output}: is there already; choose another folder or remove it")
    examples = read_examples(load_source(data, reading or []), UnlabelledTexts)
    pairs = None if dev is None else read_examples(load_source(dev, reading or []), TextEmbeddingExample)
    chosen = _settings(pooling, prefix, max_length, evaluate_on=evaluate_on)
    embedder = open_embedder(model, chosen)
    texts = different(text for example in examples for text in example.texts)
    count = fit_whitening(embedder, texts, width=width, progress=progress())
    if pairs is not None:
        choose_threshold(embedder, pairs)
    save_embedder(embedder, output)
    if as_json:
        print_json({"model": model, "output": str(output), "texts": count, "width": embedder.width})
    else:
        print(f"{output}: vectors of {embedder.width} numbers, whitened with {count} texts")


def _settings(
    pooling: str | None, prefix: str | None, max_length: int | None, **more: Any
) -> TextEmbeddingConfig | None:
    """The options of an encoder; None if there are none."""
    from wenmai.tasks.embedding_example import TextEmbeddingConfig

    options = {"pooling": pooling, "prefix": prefix, "max_length": max_length, **more}
    given = {name: value for name, value in options.items() if value is not None}
    return TextEmbeddingConfig.model_validate(given) if given else None


def _ranks(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise UserError(f"--ranks {text}: expected FIRST:LAST, like 1:50")
    return int(first), int(last)
