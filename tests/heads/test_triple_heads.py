"""GPLinker and CasRel: decoders against brute force, scores against their formulas, what a cascade can't tell apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from wenmai.heads.casrel import CasRelHead, decode_casrel, nearest_spans, object_scores
from wenmai.heads.gplinker import FEWEST_KEPT, GPLinkerHead, decode_gplinker
from wenmai.heads.head import IGNORE

H, P = 8, 3


def made(head: torch.nn.Module, seed: int, deviation: float = 1.0) -> torch.nn.Module:
    torch.manual_seed(seed)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=deviation)
    return head.double().eval()


def arrays(outputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value[0].detach().numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("above", [0.0, -0.7, 0.7])
@pytest.mark.parametrize("types", [(1, 1), (2, 3)])
def test_gplinker_decodes_what_its_four_scores_say(types: tuple[int, int], above: float) -> None:
    subject_types, object_types = types
    found_any = 0
    for seed in range(40):
        head = made(
            GPLinkerHead(
                H, P, subject_types=subject_types, object_types=object_types, head_size=4, dropout=0.0
            ),
            seed,
        )
        for name in ("entities", "heads", "tails"):
            getattr(head, name).ends.bias.data -= 3.0 if name == "entities" else 0.0
        hidden = torch.randn(1, 6, H, dtype=torch.float64)
        outputs = head(hidden, torch.ones(1, 6))
        logits = {
            "entities": head.entities(hidden, torch.ones(1, 6))["logits"][0].detach().numpy(),
            **{name: both_ways(getattr(head, name), hidden) for name in ("heads", "tails")},
        }
        expected = {}
        spans = [(i, j) for i in range(1, 5) for j in range(i, 5)]
        for (i, j), (k, m), p in itertools.product(spans, spans, range(P)):
            subject = logits["entities"][:subject_types, i, j]
            target = logits["entities"][subject_types:, k, m]
            parts = [
                float(subject.max()),
                float(target.max()),
                float(logits["heads"][p, i, k]),
                float(logits["tails"][p, j, m]),
            ]
            if min(parts) > above:
                expected[i, j, p, k, m, int(subject.argmax()), int(target.argmax())] = min(parts)
        found = decode_gplinker(
            arrays(outputs), 1, 5, subject_types=subject_types, object_types=object_types, above=above
        )
        if len(expected) <= FEWEST_KEPT:
            assert {triple[:7]: pytest.approx(triple.score) for triple in found} == expected
            found_any += len(found)
        else:
            best = sorted(expected.items(), key=lambda item: -item[1])[:FEWEST_KEPT]
            assert {triple[:7] for triple in found} == {key for key, _ in best}
    assert found_any > (100 if above <= 0 else 20)


def both_ways(pointer: torch.nn.Module, hidden: torch.Tensor) -> np.ndarray:
    """(L, T, T) by the formula: the second token may come first."""
    projected = pointer.query_key(hidden)[0]
    query, key = projected.chunk(2, dim=-1)
    first, last = pointer.ends(projected).T.chunk(2)
    scores = query @ key.T / query.size(-1) ** 0.5 + first[:, :, None] + last[:, None, :]
    return scores.detach().numpy()


def brute_spans(scores_TL: np.ndarray, above: float = 0.0) -> set[tuple[int, int, int]]:
    tokens, labels = scores_TL.shape[0], scores_TL.shape[1] // 2
    spans = set()
    for label in range(labels):
        for begin in range(tokens):
            if scores_TL[begin, label] > above:
                ends = [end for end in range(begin, tokens) if scores_TL[end, labels + label] > above]
                spans |= {(begin, min(ends), label)} if ends else set()
    return spans


@pytest.mark.parametrize("above", [0.0, -0.5])
def test_nearest_spans_are_those_of_brute_force(above: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.normal(size=(6, 4))
        found = [*zip(*(column.tolist() for column in nearest_spans(scores, above)), strict=True)]
        assert {span[:3] for span in found} == brute_spans(scores, above) and len(found) == len({*found})
        for begin, end, label, score in found:
            assert score == min(scores[begin, label], scores[end, 2 + label])


@pytest.mark.parametrize("above", [0.0, -0.5])
@pytest.mark.parametrize("conditioning", ["layer_norm", "addition"])
@pytest.mark.parametrize("types", [(1, 0), (2, 2)])
def test_casrel_decodes_every_subject_with_its_objects(
    conditioning: str, types: tuple[int, int], above: float
) -> None:
    found_any = 0
    for seed in range(8):
        head = made(
            CasRelHead(
                H,
                P,
                subject_types=types[0],
                object_types=types[1],
                conditioning=conditioning,  # type: ignore[arg-type]
                head_size=4,
                dropout=0.0,
            ),
            seed,
        )
        head.subjects.bias.data += 1.0
        head.objects.bias.data -= 1.0
        hidden = torch.randn(1, 7, H, dtype=torch.float64)
        outputs = head(hidden, torch.ones(1, 7))
        expected = set()
        subjects = outputs["subjects"][0, 1:6].detach().numpy()
        best: dict[tuple[int, int], tuple[float, int]] = {}
        for begin, end, label in brute_spans(subjects, above):
            score = min(subjects[begin, label], subjects[end, label + types[0]])
            best[begin, end] = max(best.get((begin, end), (score, label)), (score, label))
        for (begin, end), (_, label) in best.items():
            scores = object_scores(outputs, torch.tensor([[begin + 1, end + 1]]))[0, 1:6].detach().numpy()
            for o_begin, o_end, predicate in brute_spans(scores, above):
                kind = 0
                if types[1]:
                    of_types = outputs["types"][0, 1:6].detach().numpy()
                    kind = int(np.argmax(of_types[o_begin, :2] + of_types[o_end, 2:]))
                expected.add((begin + 1, end + 1, predicate, o_begin + 1, o_end + 1, label, kind))
        found = decode_casrel(arrays(outputs), 1, 6, above=above)
        assert {triple[:7] for triple in found} == expected
        found_any += len(found)
    assert found_any > 20


def test_object_scores_by_their_formulas() -> None:
    hidden, subject = torch.randn(1, 5, H, dtype=torch.float64), torch.tensor([[1, 3]])
    head = made(CasRelHead(H, P, conditioning="addition", dropout=0.0), 0)
    expected = head.objects(hidden + (hidden[:, 1] + hidden[:, 3]) / 2)
    torch.testing.assert_close(object_scores(head(hidden, torch.ones(1, 5)), subject), expected)

    head = made(CasRelHead(H, P, head_size=4, dropout=0.0), 0)
    states = layer_norm(head.project(hidden), (8,))
    ends = [1, 3]
    gain, shift = (
        torch.stack([layer(states[:, at]) for at in ends]).mean(dim=0)
        for layer in (head.scale_by, head.shift_by)
    )
    expected = head.objects(states * (1 + gain) + shift)
    torch.testing.assert_close(object_scores(head(hidden, torch.ones(1, 5)), subject), expected)


def test_casrel_loss_by_hand() -> None:
    head = made(CasRelHead(H, P, conditioning="addition", dropout=0.0), 0)
    hidden, mask = torch.randn(2, 4, H, dtype=torch.float64), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    none = [IGNORE] * 7
    batch = {
        "attention_mask": mask,
        "triples": torch.tensor([[[1, 2, 0, 3, 3, 0, 0], [3, 3, 2, 1, 1, 0, 0]], [none, none]]),
        "subject": torch.tensor([[[1, 2]], [[IGNORE, IGNORE]]]),
    }
    loss, count = head.loss(head.training_outputs(hidden, mask, batch), batch)
    subjects = torch.zeros(2, 4, 2)
    subjects[0, [1, 3], 0] = subjects[0, [2, 3], 1] = 1
    objects = torch.zeros(4, 2 * P)
    objects[3, 0] = objects[3, P] = 1
    scores = head(hidden, mask)["subjects"].sigmoid()
    terms = torch.where(subjects == 1, scores, 1 - scores).log()
    given = head.objects(hidden[0] + (hidden[0, 1] + hidden[0, 2]) / 2).sigmoid()
    expected = -terms[mask.bool()].sum() - torch.where(objects == 1, given, 1 - given).log().sum()
    assert count == 7
    torch.testing.assert_close(loss, expected)


def test_addition_can_not_bind_two_objects_to_two_subjects() -> None:
    """Why ``layer_norm`` is the default: the scores of the right and of the crossed answers add up to the same."""
    hidden = torch.randn(1, 6, H, dtype=torch.float64)
    for conditioning, same in (("addition", True), ("layer_norm", False)):
        head = made(CasRelHead(H, P, conditioning=conditioning, head_size=4, dropout=0.0), 1)  # type: ignore[arg-type]
        outputs = head(hidden, torch.ones(1, 6))
        one, other = (object_scores(outputs, torch.tensor([[at, at]]))[0] for at in (1, 2))
        right, crossed = one[3] + other[4], one[4] + other[3]
        assert torch.allclose(right, crossed) is same


def test_limits_keep_the_best() -> None:
    """An untrained model says yes to half of everything: the answer is bounded all the same."""
    head = made(GPLinkerHead(H, P, head_size=4, dropout=0.0), 0)
    outputs = arrays(head(torch.randn(1, 40, H, dtype=torch.float64), torch.ones(1, 40)))
    assert len(decode_gplinker(outputs, 0, 40, subject_types=1, object_types=1)) == FEWEST_KEPT
    cascade = made(CasRelHead(H, P, head_size=4, dropout=0.0), 0)
    outputs = arrays(cascade(torch.randn(1, 40, H, dtype=torch.float64), torch.ones(1, 40)))
    assert len(decode_casrel(outputs, 0, 40)) == FEWEST_KEPT


def test_triples_begin_rare() -> None:
    torch.manual_seed(0)
    hidden, mask = torch.randn(2, 64, H), torch.ones(2, 64, dtype=torch.long)
    linker = GPLinkerHead(H, P, dropout=0.0)
    loss, count = linker.loss(linker(hidden, mask), {"attention_mask": mask, "triples": nothing(7)})
    assert 0.2 < loss.item() / count < 1.5  # log(1 + 64²) where nothing is rare
    casrel = CasRelHead(H, P, dropout=0.0)
    batch = {"attention_mask": mask, "triples": nothing(7), "subject": nothing(2)}
    outputs = casrel.training_outputs(hidden, mask, batch)
    for name in ("subjects", "objects"):
        assert outputs[name].sigmoid().mean().item() == pytest.approx(1 / 64, rel=0.2)


def nothing(columns: int) -> torch.Tensor:
    return torch.full((2, 1, columns), IGNORE)
