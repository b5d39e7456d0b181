"""What holds for every head: padding and batch mates change nothing, sums add up, precision, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wenmai.data import rows
from wenmai.heads.answer_span import AnswerSpanHead
from wenmai.heads.auxiliary_lm import WithLanguageModel
from wenmai.heads.biaffine import DependencyHead
from wenmai.heads.casrel import CasRelHead
from wenmai.heads.causal_lm import CausalLMHead
from wenmai.heads.choice import ChoiceHead
from wenmai.heads.classification import ClassificationHead, RegressionHead
from wenmai.heads.cloze import ClozeHead
from wenmai.heads.contrastive import ContrastiveHead
from wenmai.heads.crf import CRFHead
from wenmai.heads.global_pointer import MASKED, GlobalPointerHead
from wenmai.heads.gplinker import GPLinkerHead
from wenmai.heads.head import IGNORE, Head
from wenmai.heads.layout import LayoutHead
from wenmai.heads.marked_pair import (
    OBJECT,
    OBJECT_START,
    SUBJECT,
    SUBJECT_START,
    MarkedPairHead,
    Representation,
)
from wenmai.heads.masked_lm import MaskedLMHead
from wenmai.heads.similar_rows import SimilarRowsHead
from wenmai.heads.slot_filling import SlotFillingHead
from wenmai.heads.tagging import TaggingHead

H, L = 8, 3
LENGTHS = [6, 2, 4, 5]
Targets = Callable[[np.random.Generator, int], dict[str, rows.Target]]

BIO = np.ones((L + 2, L), dtype=bool)
BIO[0, 2] = BIO[L, 2] = False


def tags(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """Content between two special tokens; a row of length 2 is an empty text."""
    return {"tags": [IGNORE, *rng.integers(0, 2, length - 2).tolist(), IGNORE]}


def spans(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    ends = np.sort(rng.integers(1, length - 1, (length - 2, 2)), axis=1)
    return {"spans": np.column_stack([ends, rng.integers(0, L, length - 2)])}


def triples(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """One fewer than there are tokens of content; a subject of theirs, none in an empty row."""
    count = max(0, length - 3)
    ends = np.sort(rng.integers(1, max(2, length - 1), (count, 2, 2)), axis=2)
    types = rng.integers(0, 2, (count, 2))
    found = np.column_stack([ends[:, 0], rng.integers(0, L, count), ends[:, 1], types])
    return {"triples": found, "subject": found[-1:, :2] if count else np.zeros((0, 2), dtype=np.int64)}


def label_list(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"labels": rng.permutation(L)[: length % 3].reshape(-1, 1)}


def followers(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"next": [int(i) for i in rng.integers(0, 7, length - 1)] + [IGNORE]}


def originals(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"original": [IGNORE if i % 3 == 0 else int(i) for i in range(length)]}


def pair_marks(rng: np.random.Generator, length: int) -> dict[str, list[int]]:
    """The first entity is a token, the second the rest of the row; rows of 4 tokens lack the first."""
    subject = 0 if length == 4 else SUBJECT | SUBJECT_START
    return {"pair_marks": [subject, OBJECT | OBJECT_START, *[OBJECT] * (length - 2)]}


def gaps(rng: np.random.Generator, length: int) -> dict[str, list[int]]:
    """Two masks at the end of the row."""
    return {"slots": [0] * (length - 2) + [1, 2]}


def nothing_more(rng: np.random.Generator, length: int) -> dict[str, list[int]]:
    return {}


def choice(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """Two groups of two rows, of which one has a right row."""
    return {"chosen": int(length == 4) if length in (2, 4) else IGNORE, "group": int(length in (2, 4))}


def answers(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """Places between the first and the last token; of an empty context there is none but the first token."""
    places = (
        np.sort(rng.integers(1, length - 1, (2, 2)), axis=1) if length > 2 else np.zeros((1, 2), np.int64)
    )
    return {"answers": places, "content": np.array([[1, length - 1]])}


def trees(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """Words between two special tokens, one of them the root; relations of others are of two kinds, as are roots."""
    targets = {name: [IGNORE] * length for name in ("ends", "begins", "upos", "heads", "relations")}
    ends = [at for at in range(1, length - 1) if at == length - 2 or rng.random() < 0.7]
    for at in range(2, length - 1):
        targets["begins"][at] = int(at - 1 in ends)
    for number, at in enumerate(ends):
        targets["ends"][at] = 1
        targets["upos"][at] = int(rng.integers(L))
        targets["heads"][at] = ends[max(0, number - 1)]
        targets["relations"][at] = int(rng.integers(2))
    return dict(targets)


def dependency_head(**parts: int) -> DependencyHead:
    sizes = {"words": 1, "upos": L, "relations": 2, "root_relations": 2, **parts}
    return DependencyHead(
        H,
        words=bool(sizes["words"]),
        upos=sizes["upos"],
        relations=sizes["relations"],
        root_relations=sizes["root_relations"],
        arc_size=4,
        relation_size=3,
        dropout=0.1,
    )


def page(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    """An entity at every second token of the content, linked in a chain; tags at all of them."""
    tokens = list(range(1, length - 1, 2))
    corners = np.sort(rng.integers(0, 1001, (len(tokens), 2, 2)), axis=1).reshape(-1, 4)
    entities = np.column_stack([tokens, rng.integers(0, 2, len(tokens)), corners]).astype(np.int64)
    chain = np.array([(i, i + 1) for i in range(len(tokens) - 1)], dtype=np.int64).reshape(-1, 2)
    return {**tags(rng, length), "entities": entities.reshape(-1, 6), "links": chain}


def layout_head(tags: int, link_size: int) -> LayoutHead:
    return LayoutHead(
        H,
        tags=tags,
        link_size=link_size,
        possible=np.ones((2, 2), dtype=bool),
        link_weight=0.7,
        boxes=0,
        dropout=0.1,
    )


@dataclass(frozen=True)
class Case:
    build: Callable[[], Head]
    targets: Targets
    inputs: Callable[[np.random.Generator, int], dict[str, list[int]]] = nothing_more


def marked(representation: Representation, **options: float) -> Case:
    def build() -> Head:
        return MarkedPairHead(H, L, representation=representation, dropout=0.1, **options)

    return Case(build, label, pair_marks)


def slots(*, several: bool, crf: bool, conditioned: bool) -> Case:
    def build() -> Head:
        return SlotFillingHead(
            H,
            L,
            L,
            pooling="mean",
            several=several,
            crf=crf,
            allowed=BIO if crf else None,
            conditioned=conditioned,
            slot_weight=0.7,
            dropout=0.1,
        )

    def targets(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
        return {**tags(rng, length), **(label_list if several else label)(rng, length)}

    return Case(build, targets)


def label(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"label": int(rng.integers(L))}


def score(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"score": float(rng.normal())}


def pair(rng: np.random.Generator, length: int) -> dict[str, rows.Target]:
    return {"role": int(length in (2, 5)), "group": int(length in (2, 6))}


CASES = {
    "cls": Case(lambda: ClassificationHead(H, L, pooling="cls", dropout=0.1, label_smoothing=0.1), label),
    "mean": Case(lambda: ClassificationHead(H, L, pooling="mean", dropout=0.1, hidden_layer=True), label),
    "max": Case(lambda: ClassificationHead(H, L, pooling="max", dropout=0.1), label),
    "last": Case(lambda: ClassificationHead(H, L, pooling="last", dropout=0.1), label),
    "focal": Case(lambda: ClassificationHead(H, L, pooling="cls", dropout=0.1, focal_gamma=2.0), label),
    "multi_label": Case(
        lambda: ClassificationHead(H, L, pooling="mean", dropout=0.1, multi_label=True), label_list
    ),
    "multi_label_smoothed": Case(
        lambda: ClassificationHead(H, L, pooling="mean", dropout=0.1, multi_label=True, label_smoothing=0.1),
        label_list,
    ),
    "multi_label_focal": Case(
        lambda: ClassificationHead(H, L, pooling="mean", dropout=0.1, multi_label=True, focal_gamma=0.5),
        label_list,
    ),
    "regression": Case(lambda: RegressionHead(H, pooling="mean", dropout=0.1), score),
    "tagging": Case(lambda: TaggingHead(H, L, dropout=0.1), tags),
    "tagging_smoothed": Case(lambda: TaggingHead(H, L, dropout=0.1, label_smoothing=0.1), tags),
    "tagging_focal": Case(lambda: TaggingHead(H, L, dropout=0.1, focal_gamma=2.0), tags),
    "crf": Case(lambda: CRFHead(H, L, dropout=0.1), tags),
    "crf_bio": Case(lambda: CRFHead(H, L, dropout=0.1, allowed=BIO), tags),
    "efficient_pointer": Case(lambda: GlobalPointerHead(H, L, head_size=4, dropout=0.1), spans),
    "full_pointer": Case(lambda: GlobalPointerHead(H, L, head_size=4, efficient=False, dropout=0.1), spans),
    "answer_span": Case(lambda: AnswerSpanHead(H, dropout=0.1), answers),
    "choice": Case(lambda: ChoiceHead(H, pooling="mean", dropout=0.1), choice),
    "dependencies": Case(dependency_head, trees),
    "dependencies_of_given_words": Case(lambda: dependency_head(words=0, upos=0), trees),
    "words_alone": Case(lambda: dependency_head(upos=0, relations=0, root_relations=0), trees),
    "gplinker": Case(
        lambda: GPLinkerHead(H, L, subject_types=2, object_types=2, head_size=4, dropout=0.1), triples
    ),
    "casrel": Case(
        lambda: CasRelHead(H, L, subject_types=2, object_types=2, head_size=4, dropout=0.1), triples
    ),
    "casrel_addition": Case(
        lambda: CasRelHead(H, L, subject_types=2, conditioning="addition", dropout=0.1), triples
    ),
    "contrastive": Case(lambda: ContrastiveHead(pooling="mean", temperature=0.1, projection=(H, 5)), pair),
    "layout": Case(lambda: layout_head(L, 4), page),
    "layout_entities": Case(lambda: layout_head(L, 0), page),
    "layout_links": Case(lambda: layout_head(0, 4), page),
    "cloze": Case(
        lambda: ClozeHead(
            MaskedLMHead(H, nn.Embedding(7, H)),
            words=[[1], [2, 3], [4, 5], [6]],
            label_of_word=[0, 1, 2, 2],
            label_smoothing=0.1,
        ),
        label,
        gaps,
    ),
    "similar_rows": Case(lambda: SimilarRowsHead(H, L, pooling="mean", inverse_regularization=1.0), label),
    "slots": slots(several=False, crf=True, conditioned=False),
    "slots_conditioned": slots(several=False, crf=False, conditioned=True),
    "slots_several": slots(several=True, crf=True, conditioned=True),
    "pair_starts": marked("entity_starts"),
    "pair_means": marked("entity_means", label_smoothing=0.1),
    "pair_r_bert": marked("r_bert", focal_gamma=2.0),
    "pair_cls": marked("cls"),
    "masked_lm": Case(lambda: MaskedLMHead(H, nn.Embedding(7, H)), originals),
    "masked_lm_smoothed": Case(lambda: MaskedLMHead(H, nn.Embedding(7, H), label_smoothing=0.1), originals),
    "auxiliary_lm": Case(
        lambda: WithLanguageModel(
            ClassificationHead(H, L, pooling="last", dropout=0.1),
            CausalLMHead(H, nn.Embedding(7, H), tied=False),
            weight=0.5,
        ),
        label,
    ),
    "auxiliary_lm_regression": Case(
        lambda: WithLanguageModel(
            RegressionHead(H, pooling="last", dropout=0.1),
            CausalLMHead(H, nn.Embedding(7, H), tied=False),
            weight=2,
        ),
        score,
    ),
    "causal_lm": Case(lambda: CausalLMHead(H, nn.Embedding(7, H)), followers),
    "causal_lm_own_matrix": Case(
        lambda: CausalLMHead(H, nn.Embedding(7, 5), tied=False, label_smoothing=0.1), followers
    ),
}
ADDING = [name for name in CASES if name not in ("contrastive", "choice", "similar_rows")]
"""Heads whose loss adds up over rows, rather than over whole examples or steps."""


@dataclass
class Made:
    """A head with sizeable random parameters, and the rows' hidden states and targets."""

    head: Head
    hidden: list[Tensor]
    rows: list[rows.Row]

    def batch(self, chosen: list[int], extra: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The chosen rows, padded by ``extra`` more tokens than needed, with noise where padding is."""
        batch = rows.collate([self.rows[i] for i in chosen], pad_id=0)
        for key, tensor in batch.items():
            if tensor.dim() == 2:
                fill = IGNORE if key in self.rows[0].targets else 0
                batch[key] = nn.functional.pad(tensor, (0, extra), value=fill)
            elif tensor.dim() == 3:
                batch[key] = nn.functional.pad(tensor, (0, 0, 0, extra), value=IGNORE)
        hidden = torch.randn(*batch["attention_mask"].shape, H, dtype=torch.float64) * 50
        for row, i in zip(hidden, chosen, strict=True):
            row[: len(self.hidden[i])] = self.hidden[i]
        return hidden, batch

    def loss(self, chosen: list[int], extra: int = 0) -> tuple[Tensor, int]:
        hidden, batch = self.batch(chosen, extra)
        outputs = self.head.training_outputs(hidden.requires_grad_(), batch["attention_mask"], batch)
        return self.head.loss(outputs, batch)

    def divergence(self, chosen: list[int], extra: int = 0, *, nudge: float = 0.5) -> Tensor:
        """Of a second pass whose hidden states lie ``nudge`` times a row's own noise beside the first's."""
        hidden, batch = self.batch(chosen, extra)
        nudged = hidden.clone()
        for row, i in zip(nudged, chosen, strict=True):
            length = len(self.hidden[i])
            noise = torch.randn(length, H, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            row[:length] += nudge * noise.to(row.dtype)
        passes = (self.head.training_outputs(h, batch["attention_mask"], batch) for h in (hidden, nudged))
        return self.head.divergence(*passes, batch)


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> Made:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    case = CASES[request.param]
    head = case.build().double().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    for part in head.modules():
        if isinstance(part, MaskedLMHead | CausalLMHead):
            part._tied[0].double()
    made_rows = [
        rows.Row(inputs={"input_ids": [1] * n, **case.inputs(rng, n)}, targets=case.targets(rng, n))
        for n in LENGTHS
    ]
    return Made(head, [torch.randn(n, H, dtype=torch.float64) for n in LENGTHS], made_rows)


DIVERGING = [name for name in ADDING if not name.startswith("causal_lm")]
adding = pytest.mark.parametrize("made", ADDING, indirect=True)
diverging = pytest.mark.parametrize("made", DIVERGING, indirect=True)


def real_part(head: Head, name: str, output: Tensor, length: int) -> Tensor:
    """One row's output without what stands at padding."""
    for axis in head.token_axes.get(name, ()):
        output = output.narrow(axis - 1, 0, length)
    return output


def test_ignored_id_is_the_one_that_batches_are_padded_with():
    assert IGNORE == rows.IGNORE


def test_padding_and_batch_mates_change_no_output(made: Made):
    hidden, batch = made.batch([0, 1, 2, 3], extra=3)
    together = made.head.of_batch(hidden, batch["attention_mask"], batch)
    for i, length in enumerate(LENGTHS):
        hidden, batch = made.batch([i])
        alone = made.head.of_batch(hidden, batch["attention_mask"], batch)
        assert alone.keys() == together.keys()
        for name, output in together.items():
            assert len(output) == len(LENGTHS)
            found = real_part(made.head, name, output[i], length)
            torch.testing.assert_close(found, alone[name][0], atol=1e-10, rtol=0)


def test_token_axes_are_all_the_axes_that_grow_with_the_row(made: Made):
    def shapes(extra: int) -> dict[str, torch.Size]:
        hidden, batch = made.batch([0, 1], extra)
        outputs = made.head.of_batch(hidden, batch["attention_mask"], batch)
        return {name: out.shape for name, out in outputs.items()}

    short, long = shapes(0), shapes(7)
    grown = {name: tuple(i for i, n in enumerate(short[name]) if long[name][i] == n + 7) for name in short}
    assert grown == {name: tuple(made.head.token_axes.get(name, ())) for name in short}


def test_padding_changes_neither_loss_nor_gradients(made: Made):
    results = []
    for extra in (0, 4):
        made.head.zero_grad()
        loss, count = made.loss([0, 1, 2, 3], extra)
        loss.backward()
        results.append((loss.item(), count, [p.grad.clone() for p in made.head.parameters()]))
    (loss, count, gradients), (padded_loss, padded_count, padded_gradients) = results
    assert (padded_loss, padded_count) == (pytest.approx(loss, abs=1e-10), count)
    assert loss > 0 and count > 0
    for one, other in zip(gradients, padded_gradients, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


@adding
@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[3, 1, 0], [2]]])
def test_loss_of_a_batch_is_the_sum_over_its_parts(made: Made, parts: list[list[int]]):
    loss, count = made.loss([0, 1, 2, 3])
    pieces = [made.loss(part) for part in parts]
    assert not made.head.needs_whole_step
    torch.testing.assert_close(sum(piece for piece, _ in pieces), loss, atol=1e-10, rtol=0)
    assert sum(number for _, number in pieces) == count


@diverging
@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[3, 1, 0], [2]]])
def test_divergence_of_a_batch_is_the_sum_over_its_parts(made: Made, parts: list[list[int]]):
    whole = made.divergence([0, 1, 2, 3], extra=3)
    assert made.head.defines_divergence and whole.item() > 0 and whole.dim() == 0
    pieces = [made.divergence(part) for part in parts]
    torch.testing.assert_close(sum(pieces), whole, atol=1e-10, rtol=1e-10)


@diverging
def test_divergence_of_equal_passes_is_zero_and_level(made: Made):
    found = made.divergence([0, 1, 2, 3], nudge=0.0)
    found.backward()
    assert found.item() == 0.0
    assert not any(p.grad.any() for p in made.head.parameters() if p.grad is not None)


@pytest.mark.parametrize("made", [n for n in DIVERGING if not n.startswith("auxiliary")], indirect=True)
def test_divergence_reaches_every_weight_that_the_loss_reaches(made: Made):
    made.loss([0, 1, 2, 3])[0].backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in made.head.parameters()]
    made.head.zero_grad()
    made.divergence([0, 1, 2, 3]).backward()
    gradients = [p.grad for p in made.head.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
    # of two linear answers the bias cancels
    free = isinstance(made.head, RegressionHead)
    assert [bool(g.any()) for g in gradients] == [
        r and not (free and g.dim() == 1) for r, g in zip(reached, gradients, strict=True)
    ]


@pytest.mark.parametrize("made", ["contrastive", "similar_rows"], indirect=True)
def test_contrastive_loss_is_no_sum_over_parts_and_says_so(made: Made):
    pieces = [made.loss(part)[0] for part in ([0, 1], [2, 3])]
    assert made.head.needs_whole_step
    assert sum(pieces).item() < made.loss([0, 1, 2, 3])[0].item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_outputs_give_a_full_precision_loss(made: Made, dtype: torch.dtype):
    exact = made.loss([0, 1, 2, 3])[0].item()
    made.head.to(dtype)
    for head in made.head.modules():
        if isinstance(head, MaskedLMHead):
            head._tied[0].to(dtype)
    made.hidden = [tensor.to(dtype) for tensor in made.hidden]
    hidden, batch = made.batch([0, 1, 2, 3])
    outputs = made.head.training_outputs(hidden.to(dtype).requires_grad_(), batch["attention_mask"], batch)
    loss, _ = made.head.loss(outputs, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4 if dtype == torch.float32 else 0.2)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.head.parameters())


def test_autocast_gives_finite_losses(made: Made):
    made.head.float().train()
    for head in made.head.modules():
        if isinstance(head, MaskedLMHead):
            head._tied[0].float()
    hidden, batch = made.batch([0, 1, 2, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = made.head.training_outputs(hidden.float().requires_grad_(), batch["attention_mask"], batch)
        loss, _ = made.head.loss(outputs, batch)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


class AsArguments(nn.Module):
    """torch.export names dynamic axes per argument."""

    def __init__(self, head: Head):
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, mask: Tensor, *more: Tensor) -> dict[str, Tensor]:
        return self.head(hidden, mask, *more)


def test_export_is_exact_for_other_sizes(made: Made):
    def arguments(chosen: list[int], extra: int) -> tuple[Tensor, ...]:
        hidden, batch = made.batch(chosen, extra)
        return hidden, batch["attention_mask"], *(batch[name] for name in made.head.reads)

    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    shapes = (free, free, tuple(free for _ in made.head.reads))[: 2 + bool(made.head.reads)]
    program = torch.export.export(
        AsArguments(made.head), arguments([0, 1], 0), dynamic_shapes=shapes, strict=False
    ).module()
    given = arguments([0, 1, 2], 5)
    expected = made.head(*given)
    for name, output in program(*given).items():
        torch.testing.assert_close(output, expected[name], atol=1e-10, rtol=0)


def test_masked_scores_survive_half_precision():
    assert torch.tensor(MASKED, dtype=torch.float16).isfinite() and np.exp(MASKED) == 0.0
