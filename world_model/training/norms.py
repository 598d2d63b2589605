"""Batch norms with statistics over the samples of all processes, on CPUs and GPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_mpc.processes import mean_over_processes, num_processes


class SharedBatchNorm(nn.BatchNorm1d):
    """A batch norm over the batch of all processes; weights and names are those of the plain one.

    mean, variance: over the rows of all processes, each process with the same number of rows
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows `(G, D)`; G must be equal on all processes."""
        if not self.training or num_processes() == 1:
            return super().forward(x)
        rows = x if x.dtype == torch.float64 else x.float()
        mean = mean_over_processes(rows.mean(dim=0))
        variance = mean_over_processes((rows - mean).square().mean(dim=0))
        self._note(mean.detach(), variance.detach(), len(x) * num_processes())
        scaled = (rows - mean) * torch.rsqrt(variance + self.eps)
        return (scaled if self.weight is None else scaled * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_((variance * count / max(count - 1, 1)).to(self.running_var.dtype), step)


def share_norms(module: nn.Module) -> None:
    """Replace every batch norm in a module by a synchronised one; parameters and buffers stay the same objects."""
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SharedBatchNorm
