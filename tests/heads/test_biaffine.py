"""The biaffine scorers against their formulas, word by word, and the loss as a probability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wenmai.heads.biaffine import ArcScorer, DependencyHead, RelationScorer
from wenmai.heads.head import IGNORE

H, D, R, Q, P, T = 6, 4, 3, 2, 5, 7


@pytest.fixture
def hidden() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(T, H, dtype=torch.float64)


def noisy(module: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double().eval()


def test_arcs_by_the_formula(hidden: Tensor) -> None:
    scorer = ArcScorer(H, D, 0.5)
    noisy(scorer)
    with torch.no_grad():
        found_TT = scorer(hidden[None])[0]
        for i in range(T):
            dependent_D = scorer.dependent(hidden[i])
            for j in range(T):
                head_D = scorer.head(hidden[j])
                score = dependent_D @ scorer.pair @ head_D + scorer.prior @ head_D
                if i == j:
                    score = scorer.root.weight[0] @ dependent_D + scorer.root.bias[0]
                torch.testing.assert_close(found_TT[i, j], score)


def test_relations_by_the_formula(hidden: Tensor) -> None:
    scorer = RelationScorer(H, D, R, Q, 0.5)
    noisy(scorer)
    with torch.no_grad():
        best_TT = scorer(hidden[None])[0]
        for i in range(T):
            head_T = torch.full((1, T), IGNORE)
            dependent_D = scorer.dependent(hidden[i])
            root_Q = scorer.root.weight @ dependent_D + scorer.root.bias
            for j in range(T):
                head_D = scorer.head(hidden[j])
                expected_R = torch.stack(
                    [
                        dependent_D @ scorer.pair[r] @ head_D
                        + scorer.of_dependent.weight[r] @ dependent_D
                        + scorer.of_dependent.bias[r]
                        + scorer.of_head[r] @ head_D
                        for r in range(R)
                    ]
                )
                head_T[0, i] = j
                known_TR, root_TQ = (scores[0] for scores in scorer.of_arcs(hidden[None], head_T))
                torch.testing.assert_close(known_TR[i], expected_R)
                torch.testing.assert_close(root_TQ[i], root_Q)
                assert not known_TR[[k for k in range(T) if k != i]].any()
                wanted = root_Q.argmax() if i == j else expected_R.argmax()
                assert int(best_TT[i, j]) == int(wanted)


def test_the_loss_is_the_probability_of_the_whole_analysis(hidden: Tensor) -> None:
    """Three words of 1, 2 and 2 tokens between two special ones; the second is the root."""
    head = DependencyHead(
        H, words=True, upos=P, relations=R, root_relations=Q, arc_size=D, relation_size=D, dropout=0.0
    )
    noisy(head)
    ends, heads = [1, 3, 5], {1: 3, 3: 3, 5: 1}
    begins = {2: 1, 3: 0, 4: 1, 5: 0}
    upos, relations = {1: 4, 3: 0, 5: 2}, {1: 2, 3: 1, 5: 0}

    def target(values: dict[int, int]) -> Tensor:
        return torch.tensor([[values.get(t, IGNORE) for t in range(T)]])

    batch = {
        "attention_mask": torch.ones(1, T),
        "ends": target(dict.fromkeys(ends, 1)),
        "begins": target(begins),
        "upos": target(upos),
        "heads": target(heads),
        "relations": target(relations),
    }
    hidden_BTH = hidden[None]
    assert head.relations is not None
    with torch.no_grad():
        loss, count = head.loss(head.training_outputs(hidden_BTH, batch["attention_mask"], batch), batch)
        outputs = {
            name: value[0].numpy() for name, value in head(hidden_BTH, batch["attention_mask"]).items()
        }
        relation_scores = head.relations.of_arcs(hidden_BTH, batch["heads"])
    of_words, of_roots = (scores[0].numpy() for scores in relation_scores)

    def share(scores: np.ndarray, at: int) -> float:
        return float(np.exp(scores[at]) / np.exp(scores).sum())

    probability = 1.0
    for token, border in begins.items():
        yes = 1 / (1 + np.exp(-outputs["begins"][token]))
        probability *= yes if border else 1 - yes
    for end in ends:
        probability *= share(outputs["upos"][end], upos[end])
        probability *= share(outputs["arcs"][end, ends], ends.index(heads[end]))
        kind = of_roots if heads[end] == end else of_words
        probability *= share(kind[end], relations[end])
    assert count == 3
    assert loss.item() == pytest.approx(-np.log(probability))


def test_what_is_left_out_has_no_weights() -> None:
    sizes = {"arc_size": D, "relation_size": D, "dropout": 0.0}
    alone = DependencyHead(H, words=True, upos=0, relations=0, root_relations=0, **sizes)
    assert {name.split(".")[0] for name, _ in alone.named_parameters()} == {"begins"}
    tags = DependencyHead(H, words=False, upos=P, relations=0, root_relations=0, **sizes)
    assert {name.split(".")[0] for name, _ in tags.named_parameters()} == {"upos"}
