"""Adam on the rows that a step touches, beside torch's own."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfn.training.rowwise import RowwiseAdam, coalesced

ROWS, WIDTH = 12, 3


def sparse(rows: list[int], seed: int) -> torch.Tensor:
    values = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, (ROWS, WIDTH))


@hypothesis.settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=8), min_size=1, max_size=6))
def test_it_goes_where_torchs_sparse_adam_goes(steps: list[list[int]]) -> None:
    """Rows come in any order, more than once, or not at all."""
    start = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    own, reference = RowwiseAdam([ours], lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)
    for seed, rows in enumerate(steps):
        ours.grad, theirs.grad = sparse(rows, seed), sparse(rows, seed)
        own.step()
        reference.step()
        torch.testing.assert_close(ours, theirs)
    touched = {row for rows in steps for row in rows}
    for row in set(range(ROWS)) - touched:
        assert torch.equal(ours[row], start[row])
        assert not own.state[ours]["exp_avg"][row].any()
    assert set(own.state[ours]) == set(reference.state[theirs])


def test_a_dense_gradient_is_refused() -> None:
    table = torch.nn.Parameter(torch.zeros(ROWS, WIDTH))
    table.grad = torch.ones(ROWS, WIDTH)
    with pytest.raises(ValueError, match="expected a sparse one, got a dense one"):
        RowwiseAdam([table], lr=0.1).step()


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
