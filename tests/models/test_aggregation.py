"""The attention of candidates over interests, compared with plain loops."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn.models.aggregation import Aggregation, InterestAttention


@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 3), M=st.integers(1, 3), K=st.integers(2, 4), d=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_aggregation_is_equations_9_to_11(B: int, M: int, K: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    aggregation = Aggregation(d, (K, K), units=5).double()
    groups = [torch.randn(B, K, d).double() for _ in range(2)]
    candidates = torch.randn(B, M, d).double()
    expected = torch.zeros(B, M, d).double()
    for b in range(B):
        for m in range(M):
            for interests, net in zip(groups, aggregation.attention, strict=True):
                assert isinstance(net, InterestAttention)
                scores = []
                for r in interests[b]:
                    i = candidates[b, m]
                    of_r = net.interest.weight @ r + net.interest.bias
                    of_i = net.candidate.weight @ i + net.candidate.bias
                    hidden = of_r[:5] + of_i[:5] + of_r[5:] * of_i[5:]
                    scores.append(math.exp((net.score.weight[0] @ hidden.clamp(min=0)).item()))
                for weight, r in zip(scores, interests[b], strict=True):
                    expected[b, m] += weight / sum(scores) * r
    torch.testing.assert_close(aggregation(groups, candidates), expected)


def test_candidates_do_not_attend_over_interests_that_are_zero() -> None:
    aggregation = Aggregation(3, (4,), units=5)
    interests = torch.randn(2, 2, 3)
    padded = torch.cat([interests, torch.zeros(2, 2, 3)], dim=1)
    candidates = torch.randn(2, 3, 3)
    torch.testing.assert_close(
        aggregation([padded], candidates), aggregation([interests], candidates)
    )
    assert torch.all(aggregation([torch.zeros(2, 4, 3)], candidates) == 0)


def test_the_only_interest_of_a_group_has_weight_one() -> None:
    aggregation = Aggregation(3, (1,), units=5)
    interest = torch.randn(2, 1, 3)
    torch.testing.assert_close(
        aggregation([interest], torch.randn(2, 4, 3)), interest.expand(2, 4, 3)
    )
    assert not list(aggregation.parameters())
