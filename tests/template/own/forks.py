"""What a fork may edit, one class or function each: see test_forks.py."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from classify.classifier import Classifier


class Penalised(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + 0.01 * sum(p.abs().sum() for p in self.net.parameters())


class Doubled(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return 2 * super().training_step(batch, batch_idx)


class Mixup(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rows, labels = batch
        order, share = torch.randperm(len(labels)), torch.rand(())
        scores = self(share * rows + (1 - share) * rows[order])
        return share * self.loss(scores, labels) + (1 - share) * self.loss(scores, labels[order])


class Mirrored(Classifier):
    """Mixup that draws nothing: with the batch from its end."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rows, labels = batch
        scores = self(0.7 * rows + 0.3 * rows.flip(0))
        return 0.7 * self.loss(scores, labels) + 0.3 * self.loss(scores, labels.flip(0))


class LaterDoubled(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (2 if self.current_epoch >= 2 else 1)


class LaterByCount(Classifier):
    """As a step may notice by itself that it is in its third epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.count = getattr(self, "count", 0) + 1
        return super().training_step(batch, batch_idx) * (2 if self.count > 8 else 1)


class Alternating(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + batch_idx % 2)


class Logging(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/seen", loss)
        return loss


class Raising(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise ValueError("as a fork may write it")


class EpochHook(Classifier):
    def on_train_epoch_start(self) -> None:
        self.measures.loss.reset()


class OwnValidation(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val/margin", self(batch[0]).topk(2).values.diff().abs().mean())


class Groups(Classifier):
    def configure_optimizers(self) -> Optimizer:
        weights = [p for p in self.net.parameters() if p.dim() > 1]
        rest = [p for p in self.net.parameters() if p.dim() < 2]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.optimizer.keywords["lr"])


class Frozen(Classifier):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.net.body[0].requires_grad_(False)


class Residual(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(in_features, in_features), nn.Linear(in_features, out_features)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(rows + self.layer(rows).relu())


class Scaled(nn.Linear):
    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, 2 * self.weight, self.bias)


class Dropping(nn.Module):
    """Dropout by a function, under a name of its own."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, rows: Tensor) -> Tensor:
        return F.dropout(rows, self.drop, self.training)


def hidden(layer: nn.Module, in_features: int, out_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_features, 8), layer, nn.Tanh(), nn.Linear(8, out_features))


def scaled(in_features: int, out_features: int) -> nn.Module:
    return hidden(Scaled(8, 8), in_features, out_features)


def layer_norm(in_features: int, out_features: int) -> nn.Module:
    return hidden(nn.LayerNorm(8), in_features, out_features)


def batch_norm(in_features: int, out_features: int) -> nn.Module:
    return hidden(nn.BatchNorm1d(8), in_features, out_features)


def dropping(in_features: int, out_features: int, drop: float) -> nn.Module:
    return hidden(Dropping(drop), in_features, out_features)


def shared_layer(in_features: int, out_features: int) -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(in_features, 8), layer, nn.Tanh(), layer, nn.Linear(8, out_features))


def tied_weights(in_features: int, out_features: int) -> nn.Module:
    one, two = nn.Linear(8, 8), nn.Linear(8, 8)
    two.weight = one.weight
    return nn.Sequential(nn.Linear(in_features, 8), one, nn.Tanh(), two, nn.Linear(8, out_features))


class Focal(nn.Module):
    """Lin et al., 2017, arXiv:1708.02002."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(scores, labels, reduction="none")
        return ((1 - (-losses).exp()) ** self.gamma * losses).mean()


class Signed(Optimizer):
    """Steps by the sign of the gradient, which is linear in the rate."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad.sign(), alpha=-group["lr"])


class Relative(Signed):
    """Steps in proportion to the size of the weights, as no stack plays it."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad * p.norm(), alpha=-group["lr"])


class Halved(LRScheduler):
    def get_lr(self) -> list[float]:
        return [rate / 2**self.last_epoch for rate in self.base_lrs]


class DecayGrows(Halved):
    """Moves the weight decay too, from the fifth step on: what three steps of a proof do not see."""

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.1 * (self.last_epoch > 4)


class Patient(EarlyStopping):
    """Waits twice as long."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch % 2:
            super().on_train_epoch_end(trainer, pl_module)
