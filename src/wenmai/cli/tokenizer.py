"""``wenmai tokenizer``: learn one, give a model more tokens, look at what one does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wenmai.cli.app import AsJson, app, note, print_json, print_rich, progress
from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.backbones.new_tokens import NewToken
    from wenmai.backbones.tokenizer import Tokenizer

tokenizer = typer.Typer(
    help="Learn a tokenizer, give a model more tokens, look at what one does.", rich_markup_mode=None
)
app.add_typer(tokenizer, name="tokenizer")

TextFiles = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="text, a line each, or .jsonl with a text field")
]
Field = Annotated[str, typer.Option(help="of .jsonl records, which holds the text")]
Encoding = Annotated[str, typer.Option(help="of the files: utf-8, gb18030, big5 ...")]


@tokenizer.command()
def train(
    files: TextFiles,
    output: Annotated[Path, typer.Option(help="folder to write")],
    size: Annotated[int, typer.Option(min=1, help="tokens, special and extra ones included")],
    kind: Annotated[
        Literal["wordpiece", "bpe", "byte_bpe", "unigram", "character", "word"],
        typer.Option(help="what the tokens are: docs/tokenizers.md"),
    ] = "wordpiece",
    lowercase: Annotated[bool, typer.Option("--lowercase", help="read capitals as small letters")] = False,
    min_frequency: Annotated[int, typer.Option(min=1, help="what is rarer gets no token")] = 2,
    coverage: Annotated[float, typer.Option(help="share of characters that get tokens")] = 0.9999,
    characters: Annotated[int | None, typer.Option(min=1, help="at most so many single characters")] = None,
    special: Annotated[
        str, typer.Option(help="names: padding, unknown, first, last, mask")
    ] = "[PAD],[UNK],[CLS],[SEP],[MASK]",
    extra: Annotated[list[str] | None, typer.Option(help="a token wanted in any case; repeatable")] = None,
    extra_file: Annotated[Path | None, typer.Option(help="more of them, one a line")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="longest input, in tokens")] = 512,
    segmenter: Annotated[
        Literal["script", "rjieba"], typer.Option(help="whose words `word` learns")
    ] = "rjieba",
    sample: Annotated[
        int, typer.Option(min=1, help="characters that teach pieces; bounds the memory")
    ] = 10_000_000,
    hold_out: Annotated[
        int, typer.Option(min=0, help="of so many lines one is for measuring; 0: none")
    ] = 100,
    field: Field = "text",
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Learn a tokenizer from text and write it as a folder that transformers opens too."""
    from wenmai.atomic import writing_folder
    from wenmai.backbones.train_tokenizer import train_tokenizer
    from wenmai.backbones.vocabulary_plan import SpecialTokens, VocabularyPlan
    from wenmai.data.texts import Texts

    if output.exists():
        raise UserError(f"{output}: is there already; choose another folder or remove it")
    if hold_out == 1:
        raise UserError("--hold-out 1: leaves no line to learn from; give 2 or more, or 0 to measure nothing")
    names = special.split(",")
    if len(names) != 5:
        raise UserError(f"--special {special}: expected five names with commas between")
    plan = VocabularyPlan(
        size=size,
        kind=kind,
        lowercase=lowercase,
        min_frequency=min_frequency,
        coverage=coverage,
        characters=characters,
        special=SpecialTokens(*names),
        extra=(*(extra or []), *(_lines(extra_file) if extra_file else [])),
        max_length=max_length,
        segmenter=segmenter,
        sample=sample,
    )
    learned = Texts(files, field=field, encoding=encoding, hold_out=hold_out, part="learned")
    found = train_tokenizer(learned, plan, progress=progress())
    with writing_folder(output) as fresh:
        found.save(fresh)
    if found.vocab_size < size:
        note(
            f"the texts hold no more than {found.vocab_size} of the {size} tokens (--min-frequency, --coverage)"
        )
    measured = None
    if hold_out:
        measured = Texts(files, field=field, encoding=encoding, hold_out=hold_out, part="held out")
    _show(found, str(output), measured, as_json, kind=kind, wanted=size)


@tokenizer.command()
def extend(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="bundle, model folder, hub name or e5-small")],
    output: Annotated[Path, typer.Option(help="folder to write")],
    tokens: Annotated[list[str] | None, typer.Argument(metavar="TOKEN", help="new tokens")] = None,
    file: Annotated[
        Path | None, typer.Option(help="more of them, a line each: token, or token<TAB>like<TAB>like")
    ] = None,
    special: Annotated[bool, typer.Option("--special", help="left out of decoded text: markers")] = False,
    whole_words: Annotated[
        bool, typer.Option("--whole-words", help="not where a letter, digit or Chinese character touches it")
    ] = False,
    texts: Annotated[Path | None, typer.Option(help="texts to compare before and after")] = None,
    field: Field = "text",
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Give a model more tokens; what it says of texts without them stays the same, which is checked."""
    from wenmai.backbones.new_tokens_folder import extend_model
    from wenmai.bundle import MANIFEST, bundle_folder
    from wenmai.data.texts import Texts

    wanted = [(token, ()) for token in tokens or []] + (_new_tokens(file) if file else [])
    if not wanted:
        raise UserError("no new token is given: name some after MODEL, or a file with --file")
    if (Path(model) / "bundle" / MANIFEST).is_file():
        model = str(bundle_folder(Path(model)))
    done = extend_model(
        model,
        [_new(text, like, special=special, whole_word=whole_words) for text, like in wanted],
        output,
        texts=Texts([texts], field=field, encoding=encoding) if texts else [],
        progress=progress(),
    )
    added = {one.text for one in done.added}
    if known := [text for text, _ in wanted if text not in added]:
        note(f"in the vocabulary already, and left as they are: {', '.join(known)}")
    if as_json:
        shown = asdict(done)
        for one in shown["added"]:
            del one["sources"]
        print_json({"output": str(output), **shown})
        return
    from wenmai.cli.tokenizer_tables import added_tokens

    print_rich(added_tokens(done.added))
    print(
        f"{output}: {done.tokens:,} tokens. Of {done.checked.texts:,} texts {done.checked.same:,} have the same tokens "
        f"as before ({done.checked.run:,} of them were run: the same hidden states to the last bit); "
        f"{done.checked.changed:,} hold new tokens."
    )


@tokenizer.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="tokenizer, model or run folder, hub name or e5-small")
    ],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="to be cut into tokens")] = None,
    files: Annotated[list[Path] | None, typer.Option("--file", help="text to count over; repeatable")] = None,
    characters: Annotated[
        bool, typer.Option("--characters", help="one token a character, as span tasks read")
    ] = False,
    field: Field = "text",
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Show how a tokenizer cuts a text, what its vocabulary holds, and how it does on files."""
    from wenmai.data.texts import Texts

    if text is not None and files:
        raise UserError("TEXT and --file are two questions: ask one at a time")
    opened = _opened(model)
    if text is None:
        _show(opened, model, Texts(files, field=field, encoding=encoding) if files else None, as_json)
        return
    from wenmai.backbones.tokenizer_use import cut

    found = cut(opened, text, characters=characters)
    if as_json:
        print_json({"text": text, **asdict(found)})
    else:
        from wenmai.cli.tokenizer_tables import cut_text

        print_rich(cut_text(found, text))


def _show(found: Tokenizer, name: str, texts: Any, as_json: bool, **about: object) -> None:
    from wenmai.backbones.tokenizer_use import contents, usage

    held = contents(found)
    used = usage(found, texts, progress=progress()) if texts is not None else None
    if as_json:
        shares = None
        if used is not None:
            names = ("characters_per_token", "tokens_per_word", "unknown_share")
            shares = {**asdict(used), **{name: getattr(used, name) for name in names}}
        print_json({"tokenizer": name, **about, "vocabulary": asdict(held), "usage": shares})
        return
    from wenmai.cli.tokenizer_tables import tokenizer_summary

    print_rich(tokenizer_summary(name, held, used))


def _opened(model: str) -> Tokenizer:
    from wenmai.backbones.load import find_tokenizer
    from wenmai.bundle import MANIFEST, bundle_folder

    inside = Path(model) / "bundle"
    return find_tokenizer(str(bundle_folder(Path(model))) if (inside / MANIFEST).is_file() else model)


def _lines(path: Path) -> list[str]:
    from wenmai.data.texts import Texts

    return list(Texts([path]))


def _new_tokens(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    rows = [line.split("\t") for line in _lines(path)]
    return [(token, tuple(filter(None, like))) for token, *like in rows]


def _new(text: str, like: tuple[str, ...], *, special: bool, whole_word: bool) -> NewToken:
    from wenmai.backbones.new_tokens import NewToken

    return NewToken(text, like=like, special=special, whole_word=whole_word)
