"""Training one run: this project, a bare loop, the usual Lightning, skorch and scikit-learn, on the same rows.

Part of benchmark.py: python scripts/benchmark.py steps
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORKS = {  # columns, hidden widths, batch size
    "SEED 16-8-4-2, batch 32": (16, [8, 4], 32),
    "MID 28-64-64-2, batch 256": (28, [64, 64], 256),
    "BIG 28-256-256-2, batch 1024": (28, [256, 256], 1024),
}


def named(nets: Sequence[str]) -> list[str]:
    return [name for name in WORKS if name.split()[0] in nets]


def words(work: str, rows: int, epochs: int, validation: float) -> list[str]:
    """Of a run with so many training rows, and a share of that for validation."""
    columns, hidden, batch_size = WORKS[work]
    total = round(rows * (1 + validation) / 0.99)
    found = ["data=clusters", f"data.read.num_features={columns}", f"data.read.num_rows={total}", "head=softmax"]
    found += [f"data.split.validation_fraction={rows * validation / total}", "data.split.test_fraction=0.01"]
    found += [f"model.hidden={hidden}", f"data.batch_size={batch_size}", f"trainer.max_epochs={epochs}", "mode=min"]
    return [*found, "callbacks.early_stopping=null", "trainer.threads=1", "test=false"]


@cache
def composed(*words: str) -> Any:
    from hydra import compose, initialize_config_dir

    from classify.errors import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


def configured(words: list[str], folder: str, rate: float = 0.01) -> dict[str, Any]:
    from omegaconf import OmegaConf

    cfg = composed(*words).copy()
    cfg.folder, cfg.optimizer.lr = f"{folder}/{time.monotonic_ns()}", rate
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


class Work:
    """One work's data, and a method for each way to train on it: it gives the seconds of its training alone."""

    def __init__(self, name: str, folder: str, rows: int, epochs: int) -> None:
        from classify import build

        self.epochs = epochs
        self.num_steps = self.epochs * -(-rows // WORKS[name][2])
        self.columns, self.hidden, self.batch_size = WORKS[name]
        self.configs = {
            share: lambda share=share: configured(words(name, rows, self.epochs, share), folder)
            for share in (0.01, 0.25)
        }
        self.data = {share: build.data(make()) for share, make in self.configs.items()}
        table = self.data[0.01]
        self.rows, self.labels = table.rows[table.index["train"]], table.labels[table.index["train"]]
        self.standardised = (self.rows - self.rows.mean(0)) / self.rows.std(0)

    def net(self) -> nn.Sequential:
        from classify.nets import mlp

        torch.manual_seed(0)
        return mlp(self.columns, 2, self.hidden)

    def bare(self) -> float:
        net = self.net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        start = time.perf_counter()
        for _ in range(self.epochs):
            for batch in torch.randperm(len(self.standardised)).split(self.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(net(self.standardised[batch]), self.labels[batch]).backward()
                optimizer.step()
        return time.perf_counter() - start

    def ours(self, validation: float = 0.01) -> float:
        """As `classify.train` trains: validation, metrics, both checkpoints and a row of the log in each epoch."""
        from classify import build

        config, data = self.configs[validation](), self.data[validation]
        assert data.schema
        classifier = build.classifier(config, data.schema)
        saved = {"config": config, "schema": data.schema.plain(), "record": {}}
        trainer = build.trainer(config, saved)
        start = time.perf_counter()
        trainer.fit(classifier, data)
        return time.perf_counter() - start

    def validated(self) -> float:
        return self.ours(0.25)

    def usual(self) -> float:
        """Lightning as templates usually write it."""
        import lightning
        from torch.utils.data import DataLoader, TensorDataset
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        class Usual(lightning.LightningModule):
            def __init__(self, net: nn.Module) -> None:
                super().__init__()
                self.net, self.accuracy, self.loss = net, MulticlassAccuracy(2), MeanMetric()

            def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
                rows, labels = batch
                scores = self.net(rows)
                loss = F.cross_entropy(scores, labels)
                self.loss(loss)
                self.accuracy(scores, labels)
                self.log("train/loss", self.loss, on_step=False, on_epoch=True)
                self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
                return loss

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        loader = DataLoader(TensorDataset(self.standardised, self.labels), self.batch_size, shuffle=True)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(max_epochs=self.epochs, enable_model_summary=False, accelerator="cpu", **quiet)  # type: ignore[arg-type]
        start = time.perf_counter()
        trainer.fit(Usual(self.net()), loader)
        return time.perf_counter() - start

    def skorch(self) -> float:
        from skorch import NeuralNetClassifier

        options = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "train_split": None, "verbose": 0}
        model = NeuralNetClassifier(
            self.net(),
            criterion=nn.CrossEntropyLoss,
            lr=0.01,
            batch_size=self.batch_size,
            max_epochs=self.epochs,
            iterator_train__shuffle=True,
            **options,
        )
        rows, labels = self.standardised.numpy(), self.labels.numpy()
        start = time.perf_counter()
        model.fit(rows, labels)
        return time.perf_counter() - start

    def sklearn(self) -> float:
        from sklearn.neural_network import MLPClassifier

        options = {
            "solver": "sgd",
            "learning_rate_init": 0.01,
            "momentum": 0.9,
            "nesterovs_momentum": False,
            "alpha": 0,
        }
        model = MLPClassifier(
            self.hidden,
            batch_size=self.batch_size,
            max_iter=self.epochs,
            n_iter_no_change=self.epochs,
            tol=0,
            **options,
        )
        rows, labels = self.standardised.numpy(), self.labels.numpy()
        start = time.perf_counter()
        model.fit(rows, labels)
        return time.perf_counter() - start


WAYS: dict[str, Callable[[Work], float]] = {
    "bare loop": Work.bare,
    "ours": Work.ours,
    "ours, 25 % validation": Work.validated,
    "usual Lightning": Work.usual,
    "skorch": Work.skorch,
    "MLPClassifier": Work.sklearn,
}


def table(
    rows: Sequence[int] = (64_000,),
    repeats: int = 5,
    epochs: int = 2,
    nets: Sequence[str] = ("SEED", "MID", "BIG"),
    without: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """For each work and number of threads: each way's time over the bare loop's, the median of alternating runs."""
    from threadpoolctl import threadpool_limits

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # skorch's, scikit-learn's and Lightning's advice
    ways = {way: run for way, run in WAYS.items() if way not in without}
    found = []
    for name, num_rows in product(named(nets), rows):
        with tempfile.TemporaryDirectory() as folder:
            work = Work(name, folder, num_rows, epochs)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                with threadpool_limits(threads):
                    runs = [{way: run(work) for way, run in ways.items()} for _ in range(repeats + 1)][
                        1:
                    ]  # one to warm up
                row: dict[str, Any] = {"net": name, "threads": threads}
                row["bare loop, us a step"] = median(run["bare loop"] for run in runs) / work.num_steps * 1e6
                found.append(row | {way: median(run[way] / run["bare loop"] for run in runs) for way in ways})
                del found[-1]["bare loop"]
    return found
