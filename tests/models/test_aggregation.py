"""The attention of candidates over interests, compared with plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn.models.aggregation import Aggregation
from mfn.models.extractor import Interests


@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 3), M=st.integers(1, 3), K=st.integers(2, 4), d=st.integers(1, 4),
    seed=st.integers(0, 99), masses=st.booleans(), affinities=st.booleans(),
)  # fmt: skip
def test_a_readout_is_equations_9_to_11(
    B: int, M: int, K: int, d: int, seed: int, masses: bool, affinities: bool
) -> None:
    """With masses or affinities, an interest of twice the mass or affinity has twice the weight."""
    torch.manual_seed(seed)
    aggregation = Aggregation(d, K, units=5).double()
    interests_BKd, candidates_BMd = torch.randn(B, K, d).double(), torch.randn(B, M, d).double()
    mass_BK = torch.rand(B, K).double() + 0.1
    affinity_BMK = torch.rand(B, M, K).double() + 0.1
    net = aggregation.attention
    assert net is not None
    expected = torch.zeros(B, M, d).double()
    for b in range(B):
        for m in range(M):
            weights = []
            i = candidates_BMd[b, m]
            for k, r in enumerate(interests_BKd[b]):
                of_r = net.interest.weight @ r + net.interest.bias
                of_i = net.candidate.weight @ i + net.candidate.bias
                hidden = of_r[:5] + of_i[:5] + of_r[5:] * of_i[5:]
                score = math.exp((net.score.weight[0] @ hidden.clamp(min=0)).item())
                score *= float(mass_BK[b, k]) if masses else 1
                weights.append(score * (float(affinity_BMK[b, m, k]) if affinities else 1))
            for weight, r in zip(weights, interests_BKd[b], strict=True):
                expected[b, m] += weight / sum(weights) * r
    interests = Interests(interests_BKd, mass_BK.log() if masses else None)
    affinity = affinity_BMK.log() if affinities else None
    torch.testing.assert_close(aggregation(interests, candidates_BMd, affinity), expected)


@pytest.mark.parametrize("masses", [True, False])
def test_candidates_do_not_attend_over_interests_that_are_zero(masses: bool) -> None:
    aggregation = Aggregation(3, 4, units=5)
    vectors, zeros = torch.randn(2, 2, 3), torch.zeros(2, 2, 3)
    # Whatever the mass of an interest that is none.
    log_mass = torch.tensor([[0.5, -0.5, 9.0, 99.0]] * 2)

    def interests(vectors: torch.Tensor) -> Interests:
        return Interests(vectors, log_mass[:, : vectors.shape[1]] if masses else None)

    candidates = torch.randn(2, 3, 3)
    padded = interests(torch.cat([vectors, zeros], dim=1))
    torch.testing.assert_close(
        aggregation(padded, candidates), aggregation(interests(vectors), candidates)
    )
    assert torch.all(aggregation(interests(torch.zeros(2, 4, 3)), candidates) == 0)


def test_the_only_interest_of_a_group_has_weight_one() -> None:
    aggregation = Aggregation(3, 1, units=5)
    interest = torch.randn(2, 1, 3)
    torch.testing.assert_close(
        aggregation(Interests(interest), torch.randn(2, 4, 3)), interest.expand(2, 4, 3)
    )
    assert not list(aggregation.parameters())
