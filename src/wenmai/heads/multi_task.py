"""The heads of several tasks over one encoder, each for the rows that are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from wenmai.heads.head import Head, Outputs

WANTED = "wanted/"
"""Before a task's name: the key of a batch whose rows that task is wanted for. A name, not a number: to look at numbers
a GPU would have to be waited for. All rows of a batch have the same keys."""


def wanted(name: str) -> str:
    """The key of a batch, (B,) of anything, whose rows a task is wanted for."""
    return WANTED + name


class MultiTaskHead(Head):
    """Several heads that read the same hidden states.

    Inputs: the batch says with its keys :func:`wanted` which heads answer; in training that is exactly one, because
    heads have different targets. A step of several tasks is several batches.

    Outputs:
        in training those of the one head; otherwise those of all wanted heads, each under ``TASK/NAME``.

    Targets:
        those of the one head.

    Args:
        tasks: the heads by the name of their task; their parameters are ``head.tasks.NAME.*``.
        weights: of their losses beside each other, which the loop applies: it alone sees a whole step.
    """

    def __init__(self, tasks: Mapping[str, Head], weights: Mapping[str, float]):
        super().__init__()
        self.tasks = nn.ModuleDict(tasks)
        self.weights = {name: weights[name] for name in tasks}

    @property
    def heads(self) -> dict[str, Head]:
        """The heads by the name of their task."""
        return {name: head for name, head in self.tasks.items() if isinstance(head, Head)}

    # what is of the class in every other head depends on the heads here
    @property
    def defines_divergence(self) -> bool:  # type: ignore[override]
        return all(head.defines_divergence for head in self.heads.values())

    @property
    def token_axes(self) -> Mapping[str, tuple[int, ...]]:  # type: ignore[override]
        return {
            f"{name}/{output}": axes
            for name, head in self.heads.items()
            for output, axes in head.token_axes.items()
        }

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(name for head in self.heads.values() for name in head.reads)

    def wanted_heads(self, batch: Mapping[str, Tensor]) -> dict[str, Head]:
        """The heads that answer for the rows of a batch."""
        return {name: head for name, head in self.heads.items() if wanted(name) in batch}

    def the_head(self, batch: Mapping[str, Tensor]) -> Head:
        """The one head that learns from a batch."""
        (head,) = self.wanted_heads(batch).values()
        return head

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor, *read: Tensor) -> Outputs:
        """The outputs of all heads for all rows."""
        found: Outputs = {}
        left = list(read)
        for name, head in self.heads.items():
            own, left = left[: len(head.reads)], left[len(head.reads) :]
            found |= _named(name, head(hidden_BTH, mask_BT, *own))
        return found

    def of_batch(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        return self._each(batch, lambda head: head.of_batch(hidden_BTH, mask_BT, batch))

    def evaluation_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        return self._each(batch, lambda head: head.evaluation_outputs(hidden_BTH, mask_BT, batch))

    def training_outputs(self, hidden_BTH: Tensor, mask_BT: Tensor, batch: dict[str, Tensor]) -> Outputs:
        return self.the_head(batch).training_outputs(hidden_BTH, mask_BT, batch)

    def tokens_read(self, batch: dict[str, Tensor], purpose: str) -> Tensor | None:
        """What any of the wanted heads looks at."""
        read_BT: Tensor | None = None
        for head in self.wanted_heads(batch).values():
            own_BT = head.tokens_read(batch, purpose)
            if own_BT is None:
                return None
            read_BT = own_BT if read_BT is None else read_BT | own_BT
        return read_BT

    def loss(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        """The one head's, without its weight."""
        return self.the_head(batch).loss(outputs, batch)

    def divergence(self, first: Outputs, second: Outputs, batch: dict[str, Tensor]) -> Tensor:
        return self.the_head(batch).divergence(first, second, batch)

    def _each(self, batch: dict[str, Tensor], ask: Callable[[Head], Outputs]) -> Outputs:
        found: Outputs = {}
        for name, head in self.wanted_heads(batch).items():
            found |= _named(name, ask(head))
        return found


def _named(task: str, outputs: Outputs) -> Outputs:
    return {f"{task}/{name}": value for name, value in outputs.items()}
