"""Adam, beside torch's own, on all of a parameter and on the rows that a step touches."""

from __future__ import annotations

import math
import subprocess
import sys

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfn.engine.adam import Adam, coalesced

ROWS, WIDTH = 12, 3


def drawn(rows: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def sparse(rows: list[int], seed: int, scale: float = 1.0) -> torch.Tensor:
    values = drawn(len(rows), seed, scale)
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), values, (ROWS, WIDTH), check_invariants=True
    )


def two_alike() -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    start = drawn(ROWS, 0)
    return torch.nn.Parameter(start.clone()), torch.nn.Parameter(start)


class OneNumber:
    """Adam of a single number, as algorithm 1 of Kingma and Ba (2015) has it, in double."""

    def __init__(self, value: float) -> None:
        self.value, self.mean, self.square = value, 0.0, 0.0

    def step(self, gradient: float, number: int) -> None:
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**number), self.square / (1 - 0.999**number)
        self.value -= 0.1 * mean / (math.sqrt(square) + 1e-8)


@hypothesis.settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, ROWS - 1), max_size=8), min_size=1, max_size=6),
    st.sampled_from([1.0, 1e-7]),
)
def test_rows_with_a_gradient_take_a_step_and_the_others_stay(
    steps: list[list[int]], scale: float
) -> None:
    """Rows come in any order, more than once, or not at all."""
    table, _ = two_alike()
    start = table.detach().clone()
    expected = [[OneNumber(value) for value in row] for row in start.tolist()]
    optimizer = Adam([], [table], 0.1)
    for number, rows in enumerate(steps, 1):
        table.grad = sparse(rows, number, scale)
        summed = table.grad.to_dense().tolist()
        for row in set(rows):
            for one, gradient in zip(expected[row], summed[row], strict=True):
                one.step(gradient, number)
        optimizer.step()
        torch.testing.assert_close(table, torch.tensor([[n.value for n in r] for r in expected]))
    for row in set(range(ROWS)) - {row for rows in steps for row in rows}:
        assert torch.equal(table[row], start[row])
        assert not optimizer.state[table].exp_avg[row].any()


@hypothesis.settings(deadline=None)
@given(st.lists(st.sampled_from([1.0, 1e-7, 0.0]), min_size=1, max_size=6), st.booleans())
def test_of_whole_gradients_it_goes_where_torchs_adam_goes(
    scales: list[float], as_rows: bool
) -> None:
    """However small they are beside Adam's epsilon, and of all rows as of no row in particular."""
    ours, theirs = two_alike()
    own = Adam([], [ours], 0.1) if as_rows else Adam([ours], [], 0.1)
    reference = torch.optim.Adam([theirs], lr=0.1)
    for seed, scale in enumerate(scales):
        theirs.grad = drawn(ROWS, seed, scale)
        ours.grad = sparse([*range(ROWS)], seed, scale) if as_rows else theirs.grad.clone()
        own.step()
        reference.step()
        torch.testing.assert_close(ours, theirs)
    found, expected = own.state[ours], reference.state[theirs]
    assert found.step == expected["step"]
    torch.testing.assert_close(found.exp_avg, expected["exp_avg"])
    torch.testing.assert_close(found.exp_avg_sq, expected["exp_avg_sq"])


def test_a_dense_gradient_of_a_table_is_refused() -> None:
    table, _ = two_alike()
    table.grad = drawn(ROWS, 1)
    with pytest.raises(ValueError, match="expected a sparse one, got a dense one"):
        Adam([], [table], 0.1).step()


def test_a_parameter_without_gradient_stays_and_takes_no_step() -> None:
    used, unused = two_alike()
    before = unused.detach().clone()
    optimizer = Adam([used, unused], [], 0.1)
    used.grad = drawn(ROWS, 1)
    optimizer.step()
    assert torch.equal(unused, before)
    assert not torch.equal(used, before)
    assert set(optimizer.state) == {used}
    optimizer.zero_grad()
    assert used.grad is None


def test_a_parameter_with_a_multiple_is_trained_at_that_multiple_of_the_rate() -> None:
    faster, plain = two_alike()
    both = Adam([faster, plain], [], 0.1, multiples={faster: 3.0})
    alone, _ = two_alike()
    of_three = Adam([alone], [], 0.1 * 3)
    for seed in range(4):
        for parameter in (faster, plain, alone):
            parameter.grad = drawn(ROWS, seed)
        both.step()
        of_three.step()
    torch.testing.assert_close(faster, alone)
    assert not torch.allclose(faster, plain)


@pytest.mark.process
def test_a_step_loads_nothing_of_torchs_compiler() -> None:
    """Each worker would wait 3 s for it. The control is torch's own Adam."""
    program = """
import sys, torch
from mfn.engine.adam import Adam
parameter = torch.nn.Parameter(torch.ones(2))
parameter.grad = torch.ones(2)
Adam([parameter], [], 0.1).step()
print("torch._dynamo" in sys.modules)
torch.optim.Adam([parameter]).step()
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    "rows",
    [[], [3], [1, 4, 7], [4, 1, 7], [1, 4, 4]],
    ids=["none", "one", "rising", "mixed", "twice"],
)
def test_a_gradient_is_coalesced_whether_or_not_it_is_so_already(rows: list[int]) -> None:
    gradient = sparse(rows, 0)
    dense = gradient.to_dense()
    found = coalesced(gradient)
    assert found.is_coalesced()
    assert found.indices()[0].tolist() == sorted(set(rows))
    torch.testing.assert_close(found.to_dense(), dense)
