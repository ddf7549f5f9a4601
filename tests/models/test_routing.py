"""Dynamic routing on an example by hand; MIND and ComiRec-DR compared with plain loops.

Legend: B requests, N history steps, d width of an item vector, K interests.
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
    size,
    stirred,
)


def test_routing_on_an_example_by_hand() -> None:
    # Behaviours [2, 0] and [0, 2]. The first has the logit ln 3 for the first interest, so its
    # weights are 3/4 and 1/4.
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


def test_squash_keeps_the_direction_and_its_gradient_at_zero_is_zero() -> None:
    # |z| = 2, so the result has length 4/5.
    torch.testing.assert_close(squash(torch.tensor([1.2, 1.6])), torch.tensor([0.48, 0.64]))
    zero = torch.zeros(3, requires_grad=True)
    squash(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.tolist() == [0, 0, 0]


def mind(shape: dict, iterations: int = 3, adaptive: bool = False) -> Mind:
    torch.manual_seed(shape["seed"])
    config = MindSettings(interests=shape["K"], iterations=iterations, adaptive=adaptive)
    model = Mind(config, size(shape["d"])).double()
    stirred(model)
    return model


def mind_oracle(model: Mind, past: History, adaptive: bool) -> Tensor:
    """Li et al. (2019), Alg. 1, one behaviour and one interest at a time."""
    B, _, d = past.trainable_BNd.shape
    rows = []
    for b in range(B):
        xs, K = real(past, b), model.interests
        count = K
        if adaptive and xs:
            count = max(1, min(K, int(math.log2(len(xs)) + 1e-9)))
        interests = [torch.zeros(d).double()] * K
        if xs:
            votes = [[matvec(model.S.T, x)] * count for x in xs]
            logits = [[float(model.start_NK[t, j]) for j in range(count)] for t in range(len(xs))]
            interests[:count] = routed(votes, logits, model.iterations, d)
        rows.append(torch.stack(interests))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 4), st.booleans())
def test_mind_is_the_equations_of_its_paper(shape: dict, iterations: int, adaptive: bool) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    past.trainable_BNd.requires_grad_()
    model = mind(shape, iterations, adaptive)
    found, expected = model(past).vectors_BKd, mind_oracle(model, past, adaptive)
    torch.testing.assert_close(found, expected)
    if any(shape["lengths"]):
        torch.testing.assert_close(gradient_of(found, past), gradient_of(expected, past))


@pytest.mark.parametrize(
    ("behaviours", "interests"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (11, 3)],
)
def test_mind_has_log2_of_the_history_length_interests(behaviours: int, interests: int) -> None:
    model = mind({"K": 4, "d": 4, "seed": 1}, adaptive=True)
    found = model(history([behaviours], 4, seed=1)).vectors_BKd[0]
    assert (found != 0).any(dim=1).tolist() == [j < interests for j in range(4)]
    every = mind({"K": 4, "d": 4, "seed": 1})(history([behaviours], 4, seed=1))
    assert (every.vectors_BKd != 0).all()


def test_mind_saves_its_random_logits_and_initialises_its_map_with_the_identity() -> None:
    torch.manual_seed(5)
    model = Mind(MindSettings(), size(4))
    assert torch.equal(model.S, torch.eye(4))
    assert "start_NK" in model.state_dict()
    assert model.start_NK.shape == (STEPS, 4)
    assert model.start_NK.std() > 0.5
    past = history([5], 4, seed=1)
    past = History(past.trainable_BNd.float(), None, past.mask_BN)
    assert torch.equal(model(past).vectors_BKd, model(past).vectors_BKd)


def dr(shape: dict, iterations: int = 3) -> ComiRecDR:
    torch.manual_seed(shape["seed"])
    config = ComiRecDRSettings(interests=shape["K"], iterations=iterations)
    model = ComiRecDR(config, size(shape["d"])).double()
    stirred(model)
    return model


def dr_oracle(model: ComiRecDR, past: History) -> Tensor:
    """Cen et al. (2020), section 3.2, one behaviour and one interest at a time."""
    B, _, d = past.trainable_BNd.shape
    rows = []
    for b in range(B):
        xs, K = real(past, b), model.interests
        interests = [torch.zeros(d).double()] * K
        if xs:
            votes = [
                [matvec(model.maps_NKde[t, j].T, x) for j in range(K)] for t, x in enumerate(xs)
            ]
            interests = routed(votes, [[0.0] * K for _ in xs], model.iterations, d)
        rows.append(torch.stack(interests))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(1, 4))
def test_comirec_dr_is_the_equations_of_its_paper(shape: dict, iterations: int) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    past.trainable_BNd.requires_grad_()
    model = dr(shape, iterations)
    found, expected = model(past).vectors_BKd, dr_oracle(model, past)
    torch.testing.assert_close(found, expected)
    if any(shape["lengths"]):
        torch.testing.assert_close(gradient_of(found, past), gradient_of(expected, past))


def test_comirec_dr_initialises_its_maps_near_the_identity_with_distinct_interests() -> None:
    # With equal maps all interests and their gradients would stay equal.
    torch.manual_seed(5)
    model = ComiRecDR(ComiRecDRSettings(), size(16))
    difference = model.maps_NKde - torch.eye(16)
    assert 0.08 < float(difference.detach().square().sum(dim=(2, 3)).mean().sqrt()) / 4 < 0.12
    past = history([6], 16, seed=1)
    interests = model(History(past.trainable_BNd.float(), None, past.mask_BN)).vectors_BKd[0]
    distances = torch.pdist(interests)
    assert float(distances.detach().min()) > 0.01


@pytest.mark.parametrize("make", [mind, dr])
def test_a_history_longer_than_the_model_s_maximum_is_refused(make: type[Extractor]) -> None:
    model = make({"K": 2, "d": 2, "seed": 1})
    model(history([STEPS], 2, seed=1))
    with pytest.raises(ValueError, match=r"history: expected at most 12 steps, .* got 13"):
        model(history([STEPS + 1], 2, seed=1))
