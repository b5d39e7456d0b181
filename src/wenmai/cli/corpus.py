"""Verbs on raw text: ``wenmai corpus clean | dedup | decontaminate | mix | stats``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wenmai.cli.app import AsJson, app, note, print_json, print_rich, progress
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
Config = Annotated[Path | None, typer.Option(help="YAML file; recipes/corpus.yaml has every key")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="clean.min_characters=5; may come again"),
]
Rejects = Annotated[Path | None, typer.Option(help="write what is left out to this .jsonl, with the reasons")]
TestSets = Annotated[
    list[str] | None, typer.Option("--test-set", help="file or folder to keep out; may come again")
]
Processes = Annotated[int, typer.Option(min=1, help="the result is that of one")]
Resume = Annotated[bool, typer.Option("--resume", help="go on where a stopped run was")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="throw away what an earlier run left there")]


@corpus.command()
def clean(
    inputs: Inputs,
    output: Output,
    config: Config = None,
    changes: Changes = None,
    good: Annotated[
        list[str] | None, typer.Option(help="good text, which a classifier learns from; may come again")
    ] = None,
    test_sets: TestSets = None,
    rejects: Rejects = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Mend encodings, markup and lines; leave out what is too short, not Chinese, repetitive or of low quality."""
    from wenmai.corpus.verbs import clean as run

    settings = _settings(config, changes, {"clean.quality.good": good, "decontaminate.test_sets": test_sets})
    job = _job(inputs, output, settings, rejects, processes, resume, overwrite)
    _tell(run(job, settings), job, as_json)


@corpus.command()
def dedup(
    inputs: Inputs,
    output: Output,
    config: Config = None,
    changes: Changes = None,
    rejects: Rejects = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Keep the first of documents that are the same, or nearly."""
    from wenmai.corpus.dedup import dedup as run

    settings = _settings(config, changes, {})
    job = _job(inputs, output, settings, rejects, processes, resume, overwrite)
    _tell(run(job, settings.dedup), job, as_json)


@corpus.command()
def decontaminate(
    inputs: Inputs,
    output: Output,
    config: Config = None,
    changes: Changes = None,
    test_sets: TestSets = None,
    rejects: Rejects = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Leave out documents, or sentences, in which a test set is met."""
    from wenmai.corpus.verbs import decontaminate as run

    settings = _settings(config, changes, {"decontaminate.test_sets": test_sets})
    if not settings.decontaminate.test_sets:
        raise UserError(
            "no test sets are named: --test-set FILE, or decontaminate.test_sets in the configuration"
        )
    job = _job(inputs, output, settings, rejects, processes, resume, overwrite)
    _tell(run(job, settings), job, as_json)


@corpus.command()
def mix(
    output: Output,
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=PATH[:WEIGHT]...", help="instead of mix.sources")
    ] = None,
    config: Config = None,
    changes: Changes = None,
    characters: Annotated[int | None, typer.Option(help="length of the mixture")] = None,
    processes: Processes = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw so much of each source, shuffled."""
    from wenmai.corpus.mixing import mix as run

    named = dict(_source(text) for text in sources) if sources else None
    settings = _settings(config, changes, {"mix.sources": named, "mix.characters": characters})
    if not settings.mix.sources:
        raise UserError("no sources are named: NAME=PATH[:WEIGHT] ..., or mix.sources in the configuration")
    paths = [source.path for source in settings.mix.sources.values()]
    job = _job(paths, output, settings, None, processes, resume, overwrite)
    report = run(job, settings.mix, settings.seed)
    if as_json:
        print_json(report)
        return
    from wenmai.cli.corpus_tables import mixture_table

    print_rich(mixture_table(report))
    note(f"{output} holds the mixture")


@corpus.command()
def stats(
    inputs: Inputs,
    config: Config = None,
    changes: Changes = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Count documents, lengths, scripts, repetitions."""
    from wenmai.cli.corpus_tables import statistics_tables
    from wenmai.corpus.statistics import statistics

    settings = _settings(config, changes, {})
    found = statistics(inputs, settings.reading, processes=processes, progress=progress())
    if as_json:
        print_json(found)
    else:
        print_rich(statistics_tables(found))


def _settings(path: Path | None, changes: list[str] | None, options: dict[str, Any]) -> CorpusConfig:
    from wenmai.config.corpus import load_corpus_config, override

    given = [override(text) for text in changes or []]
    return load_corpus_config(path, [*given, *((name, value) for name, value in options.items() if value)])


def _job(
    inputs: list[str],
    output: Path,
    settings: CorpusConfig,
    rejects: Path | None,
    processes: int,
    resume: bool,
    overwrite: bool,
) -> Job:
    from wenmai.corpus.running import Job

    return Job(
        inputs,
        output,
        reading=settings.reading,
        rejects=rejects,
        processes=processes,
        resume=resume,
        overwrite=overwrite,
        progress=progress(),
    )


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


def _tell(report: dict[str, Any], job: Job, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    from wenmai.cli.corpus_tables import report_tables
    from wenmai.corpus.parts import report_path

    print_rich(report_tables(report))
    note(f"{job.output} holds what was kept, {report_path(job.output)} the numbers")
