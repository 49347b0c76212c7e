"""LightningModules as they stand in Lightning's own examples, but for the net and the names of what is logged."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Plain(lightning.LightningModule):
    """Logs each step and the accuracy, and counts its batches in a hook."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[int] = []

    def forward(self, x: Any) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True, on_step=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", F.cross_entropy(self(x), y), prog_bar=True)
        self.log("val/acc", (self(x).argmax(-1) == y).float().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("test/loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


class ByHand(Plain):
    """Manual optimisation with two optimizers: one for the first layer, one for the rest."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        first, rest = self.optimizers()  # type: ignore[misc]
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        for optimizer in (first, rest):
            optimizer.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            rest.step()
        self.log_dict({"train_loss": loss}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        first, *rest = self.net.parameters()
        return torch.optim.SGD([first], lr=0.1), torch.optim.Adam(rest, lr=0.02)


class Closed(Plain):
    """An optimizer that calls its closure more than once, hooks around its step, and a dict for a loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return {"loss": F.cross_entropy(self(x), y), "scores": self(x).detach()}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)

    def configure_optimizers(self) -> Any:
        return {"optimizer": torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)}
