"""Verbs on raw text: ``wenmai corpus clean | dedup | decontaminate | mix | stats``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wenmai.cli.app import AsJson, app, note, print_json, print_rich, progress
from wenmai.cli.shared_options import sharing
from wenmai.errors import UserError

if TYPE_CHECKING:
    from wenmai.corpus.running import Job
    from wenmai.corpus.settings import CorpusConfig

corpus = typer.Typer(
    help="Raw text for pre-training: clean, deduplicate, keep test sets out, mix.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(corpus, name="corpus")

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="files or folders: .txt, .jsonl, also .gz")
]
Output = Annotated[Path, typer.Option(help="file to write: .jsonl or .txt; its report stands beside it")]
Rejects = Annotated[Path | None, typer.Option(help="write what is left out to this .jsonl, with the reasons")]
TestSets = Annotated[
    list[str] | None, typer.Option("--test-set", help="file or folder to keep out; may come again")
]


@dataclass(frozen=True)
class Reading:
    """What all verbs take."""

    config: Annotated[Path | None, typer.Option(help="YAML file; recipes/corpus.yaml has every key")] = None
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="clean.min_characters=5; may come again"),
    ] = None
    processes: Annotated[int, typer.Option(min=1, help="the result is that of one")] = 1
    as_json: AsJson = False

    def settings(self, options: Mapping[str, Any]) -> CorpusConfig:
        """The configuration, with the verb's own options under their keys as far as they are given."""
        from wenmai.config.corpus import load_corpus_config, override

        given = [override(text) for text in self.changes or []]
        own = [(key, value) for key, value in options.items() if value not in (None, [])]
        return load_corpus_config(self.config, [*given, *own])


@dataclass(frozen=True)
class Writing(Reading):
    """What the verbs that write a corpus take."""

    resume: Annotated[bool, typer.Option("--resume", help="go on where a stopped run was")] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="throw away what an earlier run left there")
    ] = False

    def job(
        self, inputs: list[str], output: Path, settings: CorpusConfig, rejects: Path | None = None
    ) -> Job:
        from wenmai.corpus.running import Job

        return Job(
            inputs,
            output,
            reading=settings.reading,
            rejects=rejects,
            processes=self.processes,
            resume=self.resume,
            overwrite=self.overwrite,
            progress=progress(),
        )

    def tell(self, report: dict[str, Any], output: Path) -> None:
        if self.as_json:
            print_json(report)
            return
        from wenmai.cli.corpus_tables import report_tables
        from wenmai.corpus.parts import report_path

        print_rich(report_tables(report))
        note(f"{output} holds what was kept, {report_path(output)} the numbers")


@corpus.command()
@sharing(Writing)
def clean(
    inputs: Inputs,
    output: Output,
    shared: Writing,
    good: Annotated[
        list[str] | None, typer.Option(help="good text, which a classifier learns from; may come again")
    ] = None,
    test_sets: TestSets = None,
    rejects: Rejects = None,
) -> None:
    """Mend encodings, markup and lines; leave out what is too short, not Chinese, repetitive or of low quality."""
    from wenmai.corpus.verbs import clean as run

    settings = shared.settings({"clean.quality.good": good, "decontaminate.test_sets": test_sets})
    shared.tell(run(shared.job(inputs, output, settings, rejects), settings), output)


@corpus.command()
@sharing(Writing)
def dedup(inputs: Inputs, output: Output, shared: Writing, rejects: Rejects = None) -> None:
    """Keep the first of documents that are the same, or nearly."""
    from wenmai.corpus.dedup import dedup as run

    settings = shared.settings({})
    shared.tell(run(shared.job(inputs, output, settings, rejects), settings.dedup), output)


@corpus.command()
@sharing(Writing)
def decontaminate(
    inputs: Inputs, output: Output, shared: Writing, test_sets: TestSets = None, rejects: Rejects = None
) -> None:
    """Leave out documents, or sentences, in which a test set is met."""
    from wenmai.corpus.verbs import decontaminate as run

    settings = shared.settings({"decontaminate.test_sets": test_sets})
    if not settings.decontaminate.test_sets:
        raise UserError(
            "no test sets are named: --test-set FILE, or decontaminate.test_sets in the configuration"
        )
    shared.tell(run(shared.job(inputs, output, settings, rejects), settings), output)


@corpus.command()
@sharing(Writing)
def mix(
    output: Output,
    shared: Writing,
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=PATH[:WEIGHT]...", help="instead of mix.sources")
    ] = None,
    characters: Annotated[int | None, typer.Option(help="length of the mixture")] = None,
) -> None:
    """Draw so much of each source, shuffled."""
    from wenmai.corpus.mixing import mix as run

    settings = shared.settings({"mix.sources": _sources(sources or []), "mix.characters": characters})
    if not settings.mix.sources:
        raise UserError("no sources are named: NAME=PATH[:WEIGHT] ..., or mix.sources in the configuration")
    job = shared.job([source.path for source in settings.mix.sources.values()], output, settings)
    report = run(job, settings.mix, settings.seed)
    if shared.as_json:
        print_json(report)
        return
    from wenmai.cli.corpus_tables import mixture_table

    print_rich(mixture_table(report))
    note(f"{output} holds the mixture")


@corpus.command()
@sharing(Reading)
def stats(inputs: Inputs, shared: Reading) -> None:
    """Count documents, lengths, scripts, repetitions."""
    from wenmai.cli.corpus_tables import statistics_tables
    from wenmai.corpus.statistics import statistics

    found = statistics(inputs, shared.settings({}).reading, processes=shared.processes, progress=progress())
    if shared.as_json:
        print_json(found)
    else:
        print_rich(statistics_tables(found))


def _sources(given: list[str]) -> dict[str, dict[str, Any]] | None:
    """What ``NAME=PATH:WEIGHT`` arguments say.

    Raises:
        UserError: a name is there twice.
    """
    named = [_source(text) for text in given]
    names = [name for name, _ in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{', '.join(twice)}: is the name of several sources; give each a name of its own")
    return dict(named) or None


def _source(text: str) -> tuple[str, dict[str, Any]]:
    """``news=clean/news.jsonl:2`` -> name, path and weight."""
    name, equals, path = text.partition("=")
    path, colon, weight = path.rpartition(":") if ":" in path else (path, "", "")
    if not name or not equals or not path:
        raise UserError(f"{text}: expected NAME=PATH or NAME=PATH:WEIGHT, such as news=clean/news.jsonl:2")
    try:
        return name, {"path": path, **({"weight": float(weight)} if colon else {})}
    except ValueError:
        raise UserError(f"{text}: the weight behind the colon, '{weight}', is no number") from None
