"""Tables about models for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from wenmai.training.info import ModelInfo, ModuleSize

PRECISIONS = {"fp32": "fp32", "mixed": "bf16, fp16"}


def info_tables(info: ModelInfo) -> RenderableType:
    """What a model is: facts, modules, memory, operations."""
    return Group(_facts(info), _modules(info), _memory(info), _notes(info))


def _facts(info: ModelInfo) -> Table:
    found = info.architecture
    dropout = f"{found.hidden_dropout:g}, attention {found.attention_dropout:g}"
    limit = "no limit" if found.positions is None else f"{found.positions:,} tokens"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("model", Text(info.name))
    if info.task is not None:
        labels = f", {info.labels:,} labels" if info.labels else ""
        table.add_row("task", f"{info.task} ({info.head}{labels})")
    table.add_row(
        "architecture",
        f"{found.kind}: {found.layers} layers of {found.hidden_size:,}, inside {found.intermediate_size:,} "
        f"({found.activation}), {found.heads} heads of {found.head_size}",
    )
    table.add_row("dropout", dropout)
    table.add_row("tokenizer", f"{info.tokenizer}, {info.pieces:,} pieces ({found.vocabulary:,} embedded)")
    table.add_row("longest input", limit)
    share = info.trainable / max(1, info.parameters)
    table.add_row("parameters", f"{count_text(info.parameters)}, of which {share:.1%} learn")
    table.add_row("buffers", bytes_text(info.buffers))
    if info.disk is not None:
        table.add_row("weights on disk", bytes_text(info.disk))
    return table


def _modules(info: ModelInfo) -> Table:
    table = Table("module", "kind", box=box.SIMPLE)
    for title in ("parameters", "share", "learning"):
        table.add_column(title, justify="right")
    for depth, part in _lines(info.modules):
        times = f"{part.times} x " if part.times > 1 else ""
        share = part.parameters / max(1, info.parameters)
        learning = f"{part.trainable / part.parameters:.0%}" if part.parameters else ""
        name = Text("  " * depth + (part.name or "all"))
        table.add_row(name, times + part.kind, count_text(part.parameters), f"{share:.1%}", learning)
    return table


def _lines(part: ModuleSize, depth: int = 0) -> Iterator[tuple[int, ModuleSize]]:
    yield depth, part
    for inner in part.parts:
        yield from _lines(inner, depth + 1)


def _memory(info: ModelInfo) -> Table:
    table = Table(
        "precision", "optimizer",
        title=f"memory of a training step, {info.tokens:,} tokens in rows of {info.length}",
        title_justify="left", title_style="", box=box.SIMPLE,
    )  # fmt: skip
    for title in ("weights", "copies", "gradients", "optimizer", "activations", "total", "with EMA or SWA"):
        table.add_column(title, justify="right")
    averaged = {(row.precision, row.optimizer): row.bytes.total for row in info.memory if row.average}
    for row in info.memory:
        if not row.average:
            parts = row.bytes
            numbers = (
                parts.weights, parts.copies, parts.gradients, parts.optimizer, parts.activations, parts.total,
                averaged[row.precision, row.optimizer],
            )  # fmt: skip
            table.add_row(PRECISIONS[row.precision], row.optimizer, *map(bytes_text, numbers))
    return table


def _notes(info: ModelInfo) -> Text:
    plain, mixed = info.checkpointed
    said = info.operations
    text = Text()
    text.append("Activations are an estimate; the other parts are exact. ", style="dim")
    text.append(
        f"With train.gradient_checkpointing they take {bytes_text(plain)} in fp32, {bytes_text(mixed)} in bf16 "
        "or fp16.\n",
        style="dim",
    )
    text.append(
        f"operations a token: {count_text(round(said.forward))} forward ({count_text(round(said.matrices))} in "
        f"matrices, {count_text(round(said.attention))} in attention), {count_text(round(said.training))} in training"
    )
    return text


def inspection_tables(content: Mapping[str, Any]) -> RenderableType:
    """What was seen inside a model: a line a module, dead units, how attention spreads."""
    table = Table("module", box=box.SIMPLE)
    titles = ("mean", "std", "min", "max", "zeros", "non-finite", "gradient", "of weights", "dead units")
    for title in titles:
        table.add_column(title, justify="right")
    for record in content["modules"]:
        seen, units = record["outputs"], record["units"]
        weights = [step["weight_gradient_norm"] for step in record["steps"]]
        table.add_row(
            Text(record["name"]),
            *(number_text(seen[key]) for key in ("mean", "std", "min", "max")),
            "" if seen["zero_share"] is None else f"{seen['zero_share']:.1%}",
            f"{seen['non_finite']:,}",
            number_text(_mean([step["output_gradient_norm"] for step in record["steps"]])),
            number_text(_mean(weights)),
            f"{units['dead']:,} of {units['units']:,}" if units else "",
            style="bold red" if seen["non_finite"] else None,
        )
    parts: list[RenderableType] = [
        Text(f"{content['examples']:,} examples of {content['data']}, {content['tokens']:,} tokens"),
        table,
    ]
    if content["attention"]["share"]:
        heads = Table(
            "attention, share of the most entropy", "lowest head", "mean", "highest", box=box.SIMPLE
        )
        for layer, shares in enumerate(content["attention"]["share"]):
            mean = sum(shares) / len(shares)
            heads.add_row(f"layer {layer}", f"{min(shares):.2f}", f"{mean:.2f}", f"{max(shares):.2f}")
        parts.append(heads)
    return Group(*parts)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def number_text(value: float | None) -> str:
    """Three digits, whatever the size."""
    return "" if value is None else f"{value:.3g}"


def count_text(count: int) -> str:
    """12,345; 35.25 M; 1.20 B; 3.40 T."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:,}"


def bytes_text(count: int) -> str:
    """512 B; 4.0 KiB; 134.5 MiB; 1.43 GiB."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.{2 if power == 3 else 1}f} {unit}"
    return f"{count} B"
