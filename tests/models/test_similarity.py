"""Similarity interests against plain loops and a case worked by hand; centers that are trained.

Legend: B requests, N history steps, d width, K interests.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfn.models.entropies import assignment
from mfn.models.extractor import Candidates, History
from mfn.models.settings import MfnSettings, MfnWithRandomCentersSettings
from mfn.models.similarity import LEAST_MASS, PretrainedCenters, RandomCenters
from tests.models.naive import SHAPES, history, size, softmax


def oracle(past: History, C: Tensor, by_mass: bool) -> tuple[Tensor, Tensor]:
    """Eq. 4 and 5, and the logarithm of the masses, one behaviour and one center at a time."""
    assert past.frozen_BNe is not None
    B, N, d = past.trainable_BNd.shape
    R = torch.zeros(B, len(C), d).double()
    log_mass = torch.zeros(B, len(C)).double()
    for b in range(B):
        mass = [0.0] * len(C)
        for t in range(N):
            if not past.mask_BN[b, t]:
                continue
            P = softmax([past.frozen_BNe[b, t] @ c for c in C])
            for j, share in enumerate(P):
                R[b, j] += share * past.trainable_BNd[b, t]
                mass[j] += share
        for j in range(len(C)):
            log_mass[b, j] = math.log(max(mass[j], LEAST_MASS))
            if by_mass:
                R[b, j] = R[b, j] / mass[j] if mass[j] >= LEAST_MASS else 0.0
    return R, log_mass


def made(K: int, d: int, seed: int, scale: str = "mass") -> PretrainedCenters:
    own = MfnSettings(similarity_interests=K, similarity_scale=scale)
    branch = PretrainedCenters(own, size(d)).double()
    branch.load(torch.randn(K, d, generator=torch.Generator().manual_seed(seed)))
    return branch


def set_centers(branch: PretrainedCenters, rows: list[list[float]]) -> None:
    branch.load(torch.tensor(rows))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(["mass", "sum"]))
def test_similarity_is_equations_4_and_5(shape: dict, scale: str) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"], pad=1)
    branch = made(shape["K"], shape["d"], shape["seed"], scale)
    found = branch(past)
    R, log_mass = oracle(past, branch.centers_Ke, scale == "mass")
    torch.testing.assert_close(found.vectors_BKd, R)
    torch.testing.assert_close(found.log_mass_BK, log_mass)


def test_a_candidate_is_as_near_to_an_interest_as_its_own_assignment_says() -> None:
    """P of eq. 4 for each candidate by hand; none where the model does not ask for it, or no E."""
    frozen_BMe = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3)).double()
    branch = made(5, 4, seed=1)
    found = branch.log_affinity(Candidates(torch.zeros(2, 3, 4), frozen_BMe))
    assert found is not None
    for b in range(2):
        for m in range(3):
            P = softmax([frozen_BMe[b, m] @ c for c in branch.centers_Ke])
            assert found[b, m].exp().tolist() == pytest.approx(P)
    assert branch.log_affinity(Candidates(torch.zeros(2, 3, 4), None)) is None
    without = PretrainedCenters(MfnSettings(assignment_in_attention=False), size(4))
    assert without.log_affinity(Candidates(torch.zeros(2, 3, 4), frozen_BMe)) is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("K", [1, 8])
@pytest.mark.parametrize("hard", [1.0, 1e3])
def test_a_large_gradient_is_finite_where_an_interest_has_no_mass(
    K: int, hard: float, seed: int
) -> None:
    """As of an empty history, and of a center from which all behaviours are far away."""
    torch.manual_seed(seed)
    past = history([0, 3, 1], d=4, seed=1, scale=hard, pad=1)
    assert past.frozen_BNe is not None
    trainable_BNd = past.trainable_BNd.float().requires_grad_()
    branch = RandomCenters(MfnWithRandomCentersSettings(similarity_interests=K), size(4))
    R_BKd = branch(History(trainable_BNd, past.frozen_BNe.float(), past.mask_BN)).vectors_BKd
    R_BKd.backward(torch.full_like(R_BKd, 1e6))
    assert trainable_BNd.grad is not None
    assert trainable_BNd.grad.isfinite().all()
    assert branch.centers_Ke.grad is not None
    assert branch.centers_Ke.grad.isfinite().all()
    assert trainable_BNd.grad[0].eq(0).all()
    # What comes back to the behaviours of an interest is a mean of it, if it has mass: the only
    # one of the last request has all of it. Of next to no mass, there is none.
    frozen_BNe = past.frozen_BNe.float()
    mass_K = branch.P(History(trainable_BNd, frozen_BNe, past.mask_BN))[2, 0].detach()
    expected = sum(float(mass) >= LEAST_MASS for mass in mass_K)
    assert float(trainable_BNd.grad[2, 0, 0]) == pytest.approx(1e6 * expected, rel=1e-3)


def test_similarity_worked_by_hand() -> None:
    # Two centers; the first behaviour is as near to both, the second 3 times as near to the first.
    log3 = math.log(3.0)
    past = History(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]).double(),
        torch.tensor([[[0.0, 0.0], [log3, 0.0], [9.0, 9.0]]]).double(),
        torch.tensor([[True, True, False]]),
    )
    as_sum, by_mass = made(2, 2, 0, "sum"), made(2, 2, 0)
    for branch in (as_sum, by_mass):
        set_centers(branch, [[1.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[[0.5, 0.75], [0.5, 0.25]]]).double()
    torch.testing.assert_close(as_sum(past).vectors_BKd, expected)
    expected = torch.tensor([[[0.4, 0.6], [2 / 3, 1 / 3]]]).double()
    torch.testing.assert_close(by_mass(past).vectors_BKd, expected)
    log_masses = torch.tensor([[math.log(1.25), math.log(0.75)]]).double()
    torch.testing.assert_close(by_mass(past).log_mass_BK, log_masses)


@pytest.mark.parametrize(
    ("mass", "length"), [(0.5, 1.0), (1e-3, 1.0), (2e-6, 1.0), (0.5e-6, 0.0), (1e-14, 0.0)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_interest_of_little_mass_is_as_long_as_one_of_much(
    mass: float, length: float, dtype: torch.dtype
) -> None:
    """It is a mean of behaviours down to a mass of 1e-6; below, there is no such interest."""
    # Of what the first of two centers has, a quarter comes from the first behaviour.
    past = History(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=dtype),
        torch.tensor(
            [[[math.log(m / (1 - m)), 0.0] for m in (mass / 4, 3 * mass / 4)]], dtype=dtype
        ),
        torch.tensor([[True, True]]),
    )
    branch = made(2, 2, 0).to(dtype)
    set_centers(branch, [[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(branch.P(past).sum(dim=1)[0, 0].item(), mass, rtol=1e-4, atol=0)
    expected = length * torch.tensor([0.25, 0.75], dtype=dtype)
    torch.testing.assert_close(branch(past).vectors_BKd[0, 0], expected, rtol=1e-4, atol=0)


def test_one_center_makes_similarity_the_mean_of_the_history() -> None:
    past = history([3], 4, seed=5)
    torch.testing.assert_close(
        made(1, 4, 3)(past).vectors_BKd[:, 0], past.trainable_BNd.mean(dim=1)
    )


def test_frozen_embedding_gives_weights_and_never_enters_the_output() -> None:
    # All behaviours the same in 𝓔: whatever E says of their weights, every interest is that vector.
    past = history([4], 4, seed=1)
    same = past.trainable_BNd[:, :1].expand_as(past.trainable_BNd)
    R = made(3, 4, 1)(History(same, past.frozen_BNe, past.mask_BN)).vectors_BKd
    torch.testing.assert_close(R, same[:, :3])


def test_assignment_gives_padding_to_no_center() -> None:
    past = history([2], 4, seed=1, pad=3)
    assert past.frozen_BNe is not None
    P_BNK = assignment(past.frozen_BNe, torch.randn(3, 4).double(), past.mask_BN)
    torch.testing.assert_close(P_BNK.sum(dim=-1)[0], torch.tensor([1.0, 1, 0, 0, 0]).double())


def trained(weight: float, K: int = 3, d: int = 4) -> RandomCenters:
    torch.manual_seed(2)
    own = MfnWithRandomCentersSettings(similarity_interests=K, auxiliary_weight=weight)
    return RandomCenters(own, size(d)).double()


def test_random_centers_give_the_same_interests_as_pretrained_ones_would() -> None:
    past = history([4, 0, 2], 4, seed=1)
    branch = trained(0.0)
    R, _ = oracle(past, branch.centers_Ke, by_mass=True)
    torch.testing.assert_close(branch(past).vectors_BKd, R)


def test_e_may_have_another_width_than_the_trainable_embedding() -> None:
    past = history([4, 2], 4, seed=1)
    assert past.frozen_BNe is not None
    wide = History(past.trainable_BNd, past.frozen_BNe.repeat(1, 1, 2), past.mask_BN)
    branch = PretrainedCenters(MfnSettings(similarity_interests=3), size(4, e=8)).double()
    # Each half of a center in the wide E counts a half.
    half = torch.randn(3, 4)
    branch.load(torch.cat([half, half], dim=1) / 2)
    narrow = made(3, 4, 0)
    narrow.load(half)
    torch.testing.assert_close(branch(wide).vectors_BKd, narrow(past).vectors_BKd)


@pytest.mark.parametrize("rate", [0.0, 3.0])
def test_centers_are_trained_at_their_rate_or_not_at_all(rate: float) -> None:
    branch = PretrainedCenters(MfnSettings(centers_rate=rate), size(4))
    assert branch.centers_Ke.requires_grad is (rate > 0)
    assert branch.learning_rates() == ({"centers_Ke": rate} if rate else {})


def test_measures_say_how_hard_P_is_and_how_far_the_centers_moved() -> None:
    past = history([3, 0, 2], 4, seed=1, pad=1)
    branch = made(3, 4, seed=5)
    assert past.frozen_BNe is not None
    started = branch.centers_Ke.detach().clone()
    with torch.no_grad():
        branch.centers_Ke[0] += torch.tensor([3.0, 0.0, 4.0, 0.0])
    found = branch.measures(past.frozen_BNe, past.mask_BN)
    rows = [past.frozen_BNe[b, t] for b, n in ((0, 3), (2, 2)) for t in range(n)]
    length = sum(float(row.norm()) for row in rows) / len(rows)
    largest = [max(softmax([row @ c for c in branch.centers_Ke])) for row in rows]
    assert found == {
        "centers_norm": pytest.approx(float(branch.centers_Ke.norm(dim=1).mean()) / length),
        "centers_largest_share": pytest.approx(sum(largest) / len(largest)),
        "centers_moved": pytest.approx(5 / 3 / float(started.norm(dim=1).mean())),
    }
    assert branch.measures(past.frozen_BNe, torch.zeros_like(past.mask_BN)) == {}


def test_random_centers_start_as_far_from_zero_as_the_frozen_embedding_is() -> None:
    centers_Ke = trained(0.0, K=500, d=16).centers_Ke
    # A vector of E is of d standardised numbers times d^(-1/4).
    assert float(centers_Ke.detach().square().mean().sqrt()) == pytest.approx(16**-0.25, rel=0.03)


def test_the_auxiliary_loss_is_equation_3_times_its_weight() -> None:
    past = history([3, 2], 4, seed=1, pad=2)
    branch = trained(0.5)
    assert past.frozen_BNe is not None
    L_E = 0.0
    for b, n in enumerate([3, 2]):
        P = [softmax([past.frozen_BNe[b, t] @ c for c in branch.centers_Ke]) for t in range(n)]
        L_SE = -sum(p * math.log(p) for row in P for p in row) / (3 * n)
        q = [sum(row[j] for row in P) / n for j in range(3)]
        L_ME = -sum(p * math.log(p) for p in q) / 3
        L_E += (L_SE - L_ME) / 2
    assert float(branch.auxiliary_loss(past).detach()) == pytest.approx(0.5 * L_E)
    assert float(trained(0.0).auxiliary_loss(past)) == 0
    empty = branch.auxiliary_loss(history([0, 0], 4, seed=1))
    empty.backward()
    assert branch.centers_Ke.grad is not None
    assert torch.isfinite(branch.centers_Ke.grad).all()
