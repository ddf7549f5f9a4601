"""Adam, for dense gradients and for sparse gradients of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn


@dataclass
class AdamState:
    """Adam's state of a parameter: steps, and moving means of the gradient and of its square."""

    step: int
    exp_avg: Tensor
    exp_avg_sq: Tensor


class Adam:
    """Adam (Kingma and Ba, 2015, algorithm 1); in tables it updates only rows with a gradient.

    Gradients of tables are sparse. Rows without a gradient keep their values and their moments.
    The equations and the names of the state are those of torch.optim.Adam, which does not support
    sparse gradients. torch.optim.SparseAdam supports them, but takes three times as long. Any
    optimizer of torch loads torch's compiler, which would delay each worker's first step by 3 s.

    Args:
        dense: parameters with dense gradients.
        tables: parameters with sparse gradients.
        multiples: by parameter, a multiple of the learning rate; 1 where none is given.
    """

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        multiples: Mapping[nn.Parameter, float] | None = None,
    ) -> None:
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.dense, self.tables = list(dense), list(tables)
        self.multiples = dict(multiples or {})
        self.state: dict[nn.Parameter, AdamState] = {}

    def zero_grad(self) -> None:
        """Remove all gradients, as before the first backward pass."""
        for parameter in [*self.dense, *self.tables]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises:
            ValueError: the gradient of a table is dense.
        """
        dense = ((parameter, self._update_all) for parameter in self.dense)
        tables = ((table, self._update_rows) for table in self.tables)
        for parameter, update in chain(dense, tables):
            if parameter.grad is None:
                continue
            if parameter not in self.state:
                zeros = (torch.zeros_like(parameter) for _ in range(2))
                self.state[parameter] = AdamState(0, *zeros)
            state = self.state[parameter]
            state.step += 1
            mean_correction, square_correction = (1 - beta**state.step for beta in self.betas)
            # The bias corrections of both moments, put into the step size and eps instead.
            rate = self.learning_rate * self.multiples.get(parameter, 1.0)
            size = rate * math.sqrt(square_correction) / mean_correction
            eps = self.eps * math.sqrt(square_correction)
            update(parameter, parameter.grad, state, size, eps)

    def _update_all(
        self, parameter: nn.Parameter, gradient: Tensor, state: AdamState, size: float, eps: float
    ) -> None:
        mean, square = state.exp_avg, state.exp_avg_sq
        mean.lerp_(gradient, 1 - self.betas[0])
        square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        parameter.addcdiv_(mean, square.sqrt().add_(eps), value=-size)

    def _update_rows(
        self, table_VD: nn.Parameter, gradient: Tensor, state: AdamState, size: float, eps: float
    ) -> None:
        """Update the rows [R] that have a gradient; each row is read and written once."""
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
    """The same gradient with each row once, in ascending order.

    Gradients often have this form already, but autograd does not mark them so. Checking costs far
    less than sorting again.
    """
    rows_R = gradient._indices()[0]
    if bool((rows_R[1:] > rows_R[:-1]).all()):
        return gradient._coalesced_(True)
    return gradient.coalesce()
