"""Dynamic routing on a case worked by hand, and MIND and ComiRec-DR against plain loops.

Legend: B requests, N history steps, d width of an item's vector, K interests.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfn.models.comirec_dr import ComiRecDR
from mfn.models.extractor import Extractor, History
from mfn.models.mind import Mind
from mfn.models.routing import route, squash
from mfn.models.settings import ComiRecDRSettings, MindSettings
from tests.models.naive import (
    SHAPES,
    STEPS,
    gradient_of,
    history,
    matvec,
    real,
    routed,
    stirred,
)


def test_routing_worked_by_hand() -> None:
    # Behaviours [2, 0] and [0, 2]; the first leans to the first interest by ln 3, so 3/4 to 1/4.
    # 1st: z = [1.5, 1], [0.5, 1]; |z|² = 3.25, 1.25; |z|/(1+|z|²) = .424183, .496904;
    #      interests [.636274, .424183], [.248452, .496904].
    #      Logits ln 3 + 2(.636274) = 2.371161, .496904 and .848366, .993808.
    # 2nd: shares .866952, .133048 and .463702, .536298; z = [1.733904, .927404],
    #      [.266096, 1.072596]; |z|² = 3.866501, 1.221269.
    votes = torch.tensor([[[[2.0, 0.0], [0.0, 2.0], [9.0, 9.0]]]]).double()
    logits = torch.tensor([[[math.log(3.0), 0.0, 5.0], [0.0, 0.0, 0.0]]]).double()
    mask = torch.tensor([[True, True, False]])
    once = torch.tensor([[[0.636274, 0.424183], [0.248452, 0.496904]]]).double()
    torch.testing.assert_close(route(votes, logits, mask, 1), once, atol=1e-6, rtol=0)
    twice = torch.tensor([[[0.700596, 0.374723], [0.132386, 0.533632]]]).double()
    torch.testing.assert_close(route(votes, logits, mask, 2), twice, atol=3e-6, rtol=0)


def test_squash_keeps_the_direction_and_has_no_gradient_at_zero() -> None:
    # |z| = 2: 4/5 of a unit vector.
    torch.testing.assert_close(squash(torch.tensor([1.2, 1.6])), torch.tensor([0.48, 0.64]))
    zero = torch.zeros(3, requires_grad=True)
    squash(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.tolist() == [0, 0, 0]


def mind(shape: dict, iterations: int = 3, adaptive: bool = False) -> Mind:
    torch.manual_seed(shape["seed"])
    own = MindSettings(interests=shape["K"], iterations=iterations, adaptive=adaptive)
    made = Mind(own, shape["d"], STEPS).double()
    stirred(made)
    return made


def mind_oracle(made: Mind, past: History, adaptive: bool) -> Tensor:
    """Li et al. (2019), Alg. 1, one behaviour and one interest at a time."""
    B, _, d = past.trainable_BNd.shape
    rows = []
    for b in range(B):
        xs, K = real(past, b), made.interests
        there = K
        if adaptive and xs:
            there = max(1, min(K, int(math.log2(len(xs)) + 1e-9)))
        interests = [torch.zeros(d).double()] * K
        if xs:
            votes = [[matvec(made.S.T, x)] * there for x in xs]
            logits = [[float(made.start_NK[t, j]) for j in range(there)] for t in range(len(xs))]
            interests[:there] = routed(votes, logits, made.iterations, d)
        rows.append(torch.stack(interests))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 4), st.booleans())
def test_mind_is_its_paper_s_equations(shape: dict, iterations: int, adaptive: bool) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    past.trainable_BNd.requires_grad_()
    made = mind(shape, iterations, adaptive)
    found, expected = made(past), mind_oracle(made, past, adaptive)
    torch.testing.assert_close(found, expected)
    if any(shape["lengths"]):
        torch.testing.assert_close(gradient_of(found, past), gradient_of(expected, past))


@pytest.mark.parametrize(
    ("behaviours", "interests"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (11, 3)],
)
def test_mind_has_as_many_interests_as_the_history_allows(behaviours: int, interests: int) -> None:
    made = mind({"K": 4, "d": 4, "seed": 1}, adaptive=True)
    found = made(history([behaviours], 4, seed=1))[0]
    assert (found != 0).any(dim=1).tolist() == [j < interests for j in range(4)]
    assert (mind({"K": 4, "d": 4, "seed": 1})(history([behaviours], 4, seed=1)) != 0).all()


def test_mind_s_logits_are_drawn_once_and_its_map_starts_at_the_identity() -> None:
    torch.manual_seed(5)
    made = Mind(MindSettings(), 4, STEPS)
    assert torch.equal(made.S, torch.eye(4))
    assert "start_NK" in made.state_dict()
    assert made.start_NK.shape == (STEPS, 4)
    assert made.start_NK.std() > 0.5
    past = history([5], 4, seed=1)
    past = History(past.trainable_BNd.float(), None, past.mask_BN)
    assert torch.equal(made(past), made(past))


def dr(shape: dict, iterations: int = 3) -> ComiRecDR:
    torch.manual_seed(shape["seed"])
    own = ComiRecDRSettings(interests=shape["K"], iterations=iterations)
    made = ComiRecDR(own, shape["d"], STEPS).double()
    stirred(made)
    return made


def dr_oracle(made: ComiRecDR, past: History) -> Tensor:
    """Cen et al. (2020), section 3.2, one behaviour and one interest at a time."""
    B, _, d = past.trainable_BNd.shape
    rows = []
    for b in range(B):
        xs, K = real(past, b), made.interests
        interests = [torch.zeros(d).double()] * K
        if xs:
            votes = [
                [matvec(made.maps_NKde[t, j].T, x) for j in range(K)] for t, x in enumerate(xs)
            ]
            interests = routed(votes, [[0.0] * K for _ in xs], made.iterations, d)
        rows.append(torch.stack(interests))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 4))
def test_comirec_dr_is_its_paper_s_equations(shape: dict, iterations: int) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    past.trainable_BNd.requires_grad_()
    made = dr(shape, iterations)
    found, expected = made(past), dr_oracle(made, past)
    torch.testing.assert_close(found, expected)
    if any(shape["lengths"]):
        torch.testing.assert_close(gradient_of(found, past), gradient_of(expected, past))


def test_comirec_dr_starts_near_the_identity_with_interests_that_differ() -> None:
    # With all maps the same, all interests and their gradients would be the same for ever.
    torch.manual_seed(5)
    made = ComiRecDR(ComiRecDRSettings(), 16, STEPS)
    away = made.maps_NKde - torch.eye(16)
    assert 0.08 < float(away.detach().square().sum(dim=(2, 3)).mean().sqrt()) / 4 < 0.12
    past = history([6], 16, seed=1)
    interests = made(History(past.trainable_BNd.float(), None, past.mask_BN))[0]
    apart = torch.pdist(interests)
    assert float(apart.detach().min()) > 0.01


@pytest.mark.parametrize("make", [mind, dr])
def test_a_history_longer_than_the_model_was_made_for_is_refused(make: type[Extractor]) -> None:
    made = make({"K": 2, "d": 2, "seed": 1})
    made(history([STEPS], 2, seed=1))
    with pytest.raises(ValueError, match=r"history: expected at most 12 steps, .* got 13"):
        made(history([STEPS + 1], 2, seed=1))
