"""MFN's equations against plain loops in float64 and cases worked by hand.

Legend: B requests, N history steps, d width, K interests.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfn.models.extractor import History
from mfn.models.mfn import Combination, MfnExtractor, Similarity, assignment
from mfn.models.settings import MfnSettings

SHAPES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 5), min_size=1, max_size=4),
        "K": st.integers(1, 4),
        "d": st.sampled_from([2, 4, 6]),
        "scale": st.sampled_from([0.1, 1.0, 10.0]),
        "seed": st.integers(0, 1000),
    }
)


def history(lengths: list[int], d: int, seed: int, scale: float = 1.0, pad: int = 0) -> History:
    random = torch.Generator().manual_seed(seed)
    N = max([*lengths, 1]) + pad
    mask_BN = torch.arange(N) < torch.tensor(lengths)[:, None]
    E, trainable = (
        scale * torch.randn(len(lengths), max([*lengths, 1]), d, generator=random).double()
        for _ in range(2)
    )
    garbage = torch.full((len(lengths), pad, d), 7.0).double()
    return History(torch.cat([trainable, garbage], 1), torch.cat([E, garbage], 1), mask_BN)


def softmax(scores: list[float]) -> list[float]:
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def matvec(W: Tensor, x: Tensor) -> Tensor:
    return torch.stack(
        [sum((W[i, j] * x[j] for j in range(len(x))), x.new_zeros(())) for i in range(len(W))]
    )


def similarity_oracle(past: History, C: Tensor, by_mass: bool) -> Tensor:
    """Eq. 4 and 5, one behaviour and one center at a time."""
    assert past.frozen_BNd is not None
    B, N, d = past.trainable_BNd.shape
    R = torch.zeros(B, len(C), d).double()
    for b in range(B):
        mass = [0.0] * len(C)
        for t in range(N):
            if not past.mask_BN[b, t]:
                continue
            P = softmax([float(past.frozen_BNd[b, t] @ c) for c in C])
            for j, share in enumerate(P):
                R[b, j] += share * past.trainable_BNd[b, t]
                mass[j] += share
        if by_mass:
            for j in range(len(C)):
                if mass[j] > 0:
                    R[b, j] /= mass[j]
    return R


def combination_oracle(past: History, branch: Combination) -> Tensor:
    """Eq. 6 and 7, one head, query and key at a time, over the real behaviours alone."""
    attention = branch.attention
    B, _, d = past.trainable_BNd.shape
    K, H = len(branch.W2.weight), attention.heads
    width = d // H
    R = torch.zeros(B, K, d).double()
    for b in range(B):
        xs = [x for x, real in zip(past.trainable_BNd[b], past.mask_BN[b], strict=True) if real]
        if not xs:
            continue
        projected = [matvec(attention.inputs.weight, x) + attention.inputs.bias for x in xs]
        scores_of_steps = []
        for one in projected:
            heads = []
            for head in range(H):
                at = slice(head * width, (head + 1) * width)
                query = one[:d][at]
                weights = softmax(
                    [float(query @ other[d : 2 * d][at]) / math.sqrt(width) for other in projected]
                )
                heads.append(
                    sum(
                        (
                            w * other[2 * d :][at]
                            for w, other in zip(weights, projected, strict=True)
                        ),
                        torch.zeros(width).double(),
                    )
                )
            mixed = matvec(attention.output.weight, torch.cat(heads)) + attention.output.bias
            hidden = matvec(branch.W1.weight, mixed)
            scores_of_steps.append(matvec(branch.W2.weight, hidden / (1 + torch.exp(-hidden))))
        for j in range(K):
            A = softmax([float(scores[j]) for scores in scores_of_steps])
            for share, x in zip(A, xs, strict=True):
                R[b, j] += share * x
    return R


def made_similarity(K: int, d: int, seed: int, scale: str = "mass") -> Similarity:
    branch = Similarity(MfnSettings(interests=K, similarity_scale=scale), d).double()
    branch.centers_Kd.copy_(torch.randn(K, d, generator=torch.Generator().manual_seed(seed)))
    return branch


def made_combination(K: int, d: int, seed: int) -> Combination:
    torch.manual_seed(seed)
    return Combination(MfnSettings(interests=K, heads=2, combination_units=5), d).double()


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(["mass", "sum"]))
def test_similarity_is_equations_4_and_5(shape: dict, scale: str) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"])
    branch = made_similarity(shape["K"], shape["d"], shape["seed"], scale)
    expected = similarity_oracle(past, branch.centers_Kd, scale == "mass")
    torch.testing.assert_close(branch(past), expected)


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_combination_is_equations_6_and_7(shape: dict) -> None:
    past = history(shape["lengths"], shape["d"], shape["seed"], shape["scale"])
    branch = made_combination(shape["K"], shape["d"], shape["seed"])
    torch.testing.assert_close(branch(past), combination_oracle(past, branch))


def test_similarity_worked_by_hand() -> None:
    # Two centers; the first behaviour is as near to both, the second 3 times as near to the first.
    log3 = math.log(3.0)
    past = History(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]).double(),
        torch.tensor([[[0.0, 0.0], [log3, 0.0], [9.0, 9.0]]]).double(),
        torch.tensor([[True, True, False]]),
    )
    branch = Similarity(MfnSettings(interests=2, similarity_scale="sum"), 2).double()
    branch.centers_Kd.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    expected = torch.tensor([[[0.5, 0.75], [0.5, 0.25]]]).double()
    torch.testing.assert_close(branch(past), expected)
    by_mass = made_similarity(2, 2, 0)
    by_mass.centers_Kd.copy_(branch.centers_Kd)
    expected = torch.tensor([[[0.4, 0.6], [2 / 3, 1 / 3]]]).double()
    torch.testing.assert_close(by_mass(past), expected)


def test_one_center_makes_similarity_the_mean_of_the_history() -> None:
    past = history([3], 4, seed=5)
    torch.testing.assert_close(made_similarity(1, 4, 3)(past)[:, 0], past.trainable_BNd.mean(dim=1))


def test_one_behaviour_is_every_combination_interest() -> None:
    past = history([1], 4, seed=2)
    expected = past.trainable_BNd.expand(1, 3, 4)
    torch.testing.assert_close(made_combination(3, 4, 1)(past), expected)


def extractor(d: int, dtype: torch.dtype, K: int = 3) -> MfnExtractor:
    torch.manual_seed(3)
    made = MfnExtractor(MfnSettings(interests=K, heads=2), d)
    made.similarity.centers_Kd.normal_()
    return made.to(dtype)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(1, 3))
def test_padding_never_changes_an_interest(shape: dict, pad: int) -> None:
    made = extractor(shape["d"], torch.float64)
    short = history(shape["lengths"], shape["d"], shape["seed"])
    long = history(shape["lengths"], shape["d"], shape["seed"], pad=pad)
    for one, other in zip(made(short), made(long), strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=20, deadline=None)
@given(SHAPES)
def test_the_order_of_behaviours_changes_nothing(shape: dict) -> None:
    made = extractor(shape["d"], torch.float64)
    past = history([4], shape["d"], shape["seed"])
    assert past.frozen_BNd is not None
    turned = History(past.trainable_BNd.flip(1), past.frozen_BNd.flip(1), past.mask_BN)
    for one, other in zip(made(past), made(turned), strict=True):
        torch.testing.assert_close(one, other)


def test_no_history_gives_zeros() -> None:
    for interests_BKd in extractor(4, torch.float64)(history([0, 2], 4, seed=1, pad=2)):
        assert torch.all(interests_BKd[0] == 0)
        assert torch.any(interests_BKd[1] != 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["usual", "extreme logits"])
def test_gradients_stay_finite_for_empty_and_short_histories(
    dtype: torch.dtype, scale: float
) -> None:
    made = extractor(4, dtype)
    past = history([0, 1, 3], 4, seed=1, pad=2)
    assert past.frozen_BNd is not None
    trainable = (past.trainable_BNd * scale).to(dtype).requires_grad_()
    groups = made(History(trainable, (past.frozen_BNd * scale).to(dtype), past.mask_BN))
    sum(group.float().sum() for group in groups).backward()
    assert all(torch.isfinite(group).all() for group in groups)
    gradients = [trainable.grad, *(p.grad for p in made.parameters())]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert trainable.grad is not None
    assert torch.all(trainable.grad[~past.mask_BN] == 0)


def test_frozen_embedding_gives_weights_and_never_enters_the_output() -> None:
    # All behaviours the same in 𝓔: whatever E says of their weights, every interest is that vector.
    past = history([4], 4, seed=1)
    same = past.trainable_BNd[:, :1].expand_as(past.trainable_BNd)
    R = made_similarity(3, 4, 1)(History(same, past.frozen_BNd, past.mask_BN))
    torch.testing.assert_close(R, same[:, :3])


def test_assignment_gives_padding_to_no_center() -> None:
    past = history([2], 4, seed=1, pad=3)
    assert past.frozen_BNd is not None
    P_BNK = assignment(past.frozen_BNd, torch.randn(3, 4).double(), past.mask_BN)
    torch.testing.assert_close(P_BNK.sum(dim=-1)[0], torch.tensor([1.0, 1, 0, 0, 0]).double())
