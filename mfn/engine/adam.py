"""Adam, for dense gradients and for those of tables of which a step touches few rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn


@dataclass
class AdamState:
    """What Adam keeps of a parameter: its steps, and means of the gradient and its square."""

    step: int
    exp_avg: Tensor
    exp_avg_sq: Tensor


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1); of tables, on the rows that have a gradient.

    Gradients of tables are sparse; rows without one stay as they are, and so do their moments. The
    law, and the names of its state, are those of torch.optim.Adam, which knows no sparse gradients,
    as SparseAdam does in three times the time. Any optimizer of torch's loads torch's compiler, for
    which each worker would wait 3 s before its first step.
    """

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.dense, self.tables = list(dense), list(tables)
        self.state: dict[nn.Parameter, AdamState] = {}

    def zero_grad(self) -> None:
        """As before the first backward."""
        for parameter in [*self.dense, *self.tables]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one, with every parameter that has a gradient.

        Raises:
            ValueError: that of a table is dense.
        """
        with_all = ((parameter, self._with_all) for parameter in self.dense)
        with_rows = ((table, self._with_rows) for table in self.tables)
        for parameter, take in chain(with_all, with_rows):
            if parameter.grad is None:
                continue
            if parameter not in self.state:
                zeros = (torch.zeros_like(parameter) for _ in range(2))
                self.state[parameter] = AdamState(0, *zeros)
            state = self.state[parameter]
            state.step += 1
            of_mean, of_square = (1 - beta**state.step for beta in self.betas)
            # The corrections of both moments, which need not touch these themselves.
            size = self.learning_rate * math.sqrt(of_square) / of_mean
            eps = self.eps * math.sqrt(of_square)
            take(parameter, parameter.grad, state, size, eps)

    def _with_all(
        self, parameter: nn.Parameter, gradient: Tensor, state: AdamState, size: float, eps: float
    ) -> None:
        mean, square = state.exp_avg, state.exp_avg_sq
        mean.lerp_(gradient, 1 - self.betas[0])
        square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        parameter.addcdiv_(mean, square.sqrt().add_(eps), value=-size)

    def _with_rows(
        self, table_VD: nn.Parameter, gradient: Tensor, state: AdamState, size: float, eps: float
    ) -> None:
        """Whole rows are read and written, and each of them once."""
        if not gradient.is_sparse:
            raise ValueError("gradient of a table: expected a sparse one, got a dense one")
        gradient = coalesced(gradient)
        rows_R, gradient_RD = gradient.indices()[0], gradient.values()
        mean_RD = state.exp_avg.index_select(0, rows_R).lerp_(gradient_RD, 1 - self.betas[0])
        square_RD = state.exp_avg_sq.index_select(0, rows_R)
        square_RD.mul_(self.betas[1]).addcmul_(gradient_RD, gradient_RD, value=1 - self.betas[1])
        state.exp_avg[rows_R] = mean_RD
        state.exp_avg_sq[rows_R] = square_RD
        table_VD[rows_R] = table_VD.index_select(0, rows_R).addcdiv_(
            mean_RD, square_RD.sqrt_().add_(eps), value=-size
        )


def coalesced(gradient: Tensor) -> Tensor:
    """The same gradient, each row once and rising.

    Autograd forgets that a gradient is already so, and to look costs far less than to sort again.
    """
    rows_R = gradient._indices()[0]
    if bool((rows_R[1:] > rows_R[:-1]).all()):
        return gradient._coalesced_(True)
    return gradient.coalesce()
