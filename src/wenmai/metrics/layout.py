"""Scores of pages: entities and the links between them.

An entity is right if its words and its label are those of a gold entity: seqeval's strict F1 on the words' tags, as
entity F1 on FUNSD has been reported since LayoutLM (Xu et al. 2020, arXiv:1912.13318). A link is right if both of its
entities are and they have a link of that direction. FUNSD's entity linking (Jaume et al. 2019, arXiv:1905.13538) is
scored with the gold entities given; that is the same measure on links between those.

Shape letter: L labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wenmai.metrics.classification import LabelCounts, Metrics, all_labels
from wenmai.metrics.scores import TallyScores
from wenmai.metrics.spans import SpanSets
from wenmai.text.spans import Span

Link = tuple[Span, Span]
"""Key and value."""
LinkSets = Sequence[Collection[Link]]


def layout_scores(
    gold: SpanSets,
    predicted: SpanSets | None,
    gold_links: LinkSets,
    *,
    labels: Sequence[str],
    links: LinkSets | None,
    given_links: LinkSets | None,
) -> TallyScores:
    """Micro ``precision``, ``recall``, ``f1`` and macro averages of entities, each label's values; ``link_precision``,
    ``link_recall``, ``link_f1`` of links between predicted entities; ``given_link_`` the same between gold ones.

    Args:
        gold, predicted: the entities of each page; predicted None: they were given, and are not scored.
        gold_links: with the labels of their entities.
        labels: in the order of the report; others in the data follow them, sorted.
        links, given_links: what was predicted between predicted and between gold entities; None: not scored.
    """
    names = all_labels(
        labels, *({span.label for span in spans} for part in (gold, predicted or ()) for spans in part)
    )
    ids = {name: i for i, name in enumerate(names)}
    number = len(names)
    kinds = {"link": links, "given_link": given_links}
    nothing: list[Collection[Span]] = [()] * len(gold)

    def marks() -> Iterator[list[int]]:
        for page, (wanted, found) in enumerate(
            zip(map(set, gold), map(set, nothing if predicted is None else predicted), strict=True)
        ):
            row = [ids[span.label] for span in wanted & found]
            row += [ids[span.label] + number for span in found]
            row += [ids[span.label] + 2 * number for span in wanted]
            for at, sets in enumerate(kinds.values()):
                if sets is None:
                    continue
                right, given = set(gold_links[page]), set(sets[page])
                for column, count in enumerate((len(right & given), len(given), len(right))):
                    row += [3 * number + 3 * at + column] * count
            yield row

    def summary(sums: NDArray[np.float64]) -> Metrics:
        counts = LabelCounts.split(sums, number)
        metrics: Metrics = {}
        if predicted is not None:
            metrics |= {**counts.pooled(), **counts.averages()}
        for at, (kind, sets) in enumerate(kinds.items()):
            if sets is not None:
                own = LabelCounts.split(sums[..., 3 * (number + at) :], 1)
                metrics |= {f"{kind}_{name}": value for name, value in own.pooled().items()}
        return {**metrics, **(counts.by_label(names) if predicted is not None else {})}

    return TallyScores.of(marks(), 3 * (number + len(kinds)), summary)
