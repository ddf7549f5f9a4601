"""The candidate's attention over interests, against plain loops."""

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
    made = Aggregation(d, (K, K), units=5).double()
    groups = [torch.randn(B, K, d).double() for _ in range(2)]
    candidates = torch.randn(B, M, d).double()
    expected = torch.zeros(B, M, d).double()
    for b in range(B):
        for m in range(M):
            for interests, net in zip(groups, made.attention, strict=True):
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
    torch.testing.assert_close(made(groups, candidates), expected)


def test_a_candidate_does_not_attend_over_interests_that_are_not_there() -> None:
    made = Aggregation(3, (4,), units=5)
    interests = torch.randn(2, 2, 3)
    padded = torch.cat([interests, torch.zeros(2, 2, 3)], dim=1)
    candidates = torch.randn(2, 3, 3)
    torch.testing.assert_close(made([padded], candidates), made([interests], candidates))
    assert torch.all(made([torch.zeros(2, 4, 3)], candidates) == 0)


def test_a_group_of_one_interest_has_weight_one() -> None:
    made = Aggregation(3, (1,), units=5)
    interest = torch.randn(2, 1, 3)
    torch.testing.assert_close(made([interest], torch.randn(2, 4, 3)), interest.expand(2, 4, 3))
    assert not list(made.parameters())
