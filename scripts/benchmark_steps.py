"""Training one run: this project, a bare loop, the usual Lightning, skorch and scikit-learn, on the same rows.

Part of benchmark.py: python scripts/benchmark.py steps
"""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise, product
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
    return [*found, "callbacks.early_stopping=null", "speed.threads=1", "test=false"]


@cache
def composed(*words: str) -> Any:
    from hydra import compose, initialize_config_dir

    from classify import build
    from tabrun.runs.build import conf

    with initialize_config_dir(str(conf(build)), version_base="1.3"):
        return compose("config", list(words))


def configured(words: list[str], folder: str, rate: float = 0.01) -> dict[str, Any]:
    from omegaconf import OmegaConf

    cfg = composed(*words).copy()
    cfg.folder, cfg.optimizer.lr = f"{folder}/{time.monotonic_ns()}", rate
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


class Work:
    """One work's data on one device, and a method for each way to train on it: the seconds of its training alone."""

    def __init__(self, name: str, folder: str, rows: int, epochs: int, device: str = "cpu") -> None:
        from classify import build
        from tabrun.runs.build import set_up

        self.name, self.folder, self.num_rows, self.epochs, self.device = name, folder, rows, epochs, device
        self.num_steps = self.epochs * -(-rows // WORKS[name][2])
        self.columns, self.hidden, self.batch_size = WORKS[name]
        self.data = {share: set_up(build, self.config(share)) for share in (0.01, 0.25)}
        table = self.data[0.01]
        self.rows, self.labels = table.rows[table.index["train"]], table.labels[table.index["train"]]
        self.standardised = (self.rows - self.rows.mean(0)) / self.rows.std(0)

    def config(self, validation: float, *more: str) -> dict[str, Any]:
        accelerator = "gpu" if self.device == "cuda" else self.device
        common = words(self.name, self.num_rows, self.epochs, validation)
        return configured([*common, f"trainer.accelerator={accelerator}", *more], self.folder)

    def net(self) -> nn.Sequential:
        from classify.nets import mlp

        torch.manual_seed(0)
        return mlp(self.columns, 2, self.hidden)

    def seconds(self, train: Callable[[], object]) -> float:
        start = time.perf_counter()
        train()
        if self.device == "cuda":  # which is asked for more than it has done
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def bare(self) -> float:
        net, rows, labels = (each.to(self.device) for each in (self.net(), self.standardised, self.labels))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

        def train() -> None:
            for _ in range(self.epochs):
                for batch in torch.randperm(len(rows), device=self.device).split(self.batch_size):
                    optimizer.zero_grad()
                    F.cross_entropy(net(rows[batch]), labels[batch]).backward()
                    optimizer.step()

        return self.seconds(train)

    def bare_stack(self, number: int) -> float:
        """So many nets with rates of their own, by batched products of matrices and nothing else."""
        rates = torch.linspace(0.001, 0.02, number).view(-1, 1, 1)
        sizes = [self.columns, *self.hidden, 2]
        weights = [torch.randn(number, o, i) / i**0.5 for i, o in pairwise(sizes)]
        values = [value.requires_grad_() for w in weights for value in (w, torch.zeros(number, len(w[0]), 1))]
        moves = [torch.zeros_like(value) for value in values]

        def train() -> None:
            for _ in range(self.epochs):
                for batch in torch.randperm(len(self.standardised)).split(self.batch_size):
                    hidden = self.standardised[batch].T.expand(number, -1, -1)
                    for weight, bias in zip(values[::2], values[1::2], strict=True):
                        hidden = torch.baddbmm(bias, weight, hidden.relu() if weight is not values[0] else hidden)
                    labels = self.labels[batch].expand(number, -1)
                    loss = F.cross_entropy(hidden, labels, reduction="none").mean(1).sum()
                    with torch.no_grad():
                        for value, move, gradient in zip(values, moves, torch.autograd.grad(loss, values), strict=True):
                            value.addcmul_(move.mul_(0.9).add_(gradient), rates, value=-1)

        return self.seconds(train)

    def ours(self, validation: float = 0.01) -> float:
        """As `classify.train` trains: validation, metrics, both checkpoints and a row of the log in each epoch."""
        return self.fit(self.config(validation), self.data[validation])

    def fit(self, config: dict[str, Any], data: Any, times: int = 1) -> float:
        """The seconds of the last of so many fits of one classifier."""
        from classify import build
        from tabrun.training.trainer import in_chunks, trainer_of

        classifier = build.classifier(config, data.schema)
        saved = {"config": config, "schema": data.schema.plain(), "record": {}}
        for number in range(times):
            trainer = trainer_of(build, config, saved)
            if number == 0:
                in_chunks(classifier, data, trainer, config["speed"])
            found = self.seconds(lambda trainer=trainer: trainer.fit(classifier, data))  # type: ignore[misc]
        return found

    def validated(self) -> float:
        return self.ours(0.25)

    def compiled(self) -> float:
        """Without the seconds that torch.compile takes, which the first fit has; CUDA graphs are recorded again."""
        mode = "reduce-overhead" if self.device == "cuda" else "default"
        return self.fit(self.config(0.01, f"speed.compile={mode}"), self.data[0.01], times=2)

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
        accelerator = "gpu" if self.device == "cuda" else self.device
        trainer = lightning.Trainer(
            max_epochs=self.epochs,
            enable_model_summary=False,
            accelerator=accelerator,
            **quiet,  # type: ignore[arg-type]
        )
        return self.seconds(lambda: trainer.fit(Usual(self.net()), loader))

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
            device=self.device,
            **options,
        )
        return self.seconds(lambda: model.fit(self.standardised.numpy(), self.labels.numpy()))

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
        return self.seconds(lambda: model.fit(self.standardised.numpy(), self.labels.numpy()))


WAYS: dict[str, Callable[[Work], float]] = {
    "bare loop": Work.bare,
    "ours": Work.ours,
    "ours, 25 % validation": Work.validated,
    "ours, compiled": Work.compiled,
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
    """For each work, number of threads, and GPU if there is one: each way's time over the bare loop's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # skorch's, scikit-learn's and Lightning's advice
    machines = [("cpu", 1), ("cpu", 2), *([("cuda", 1)] if torch.cuda.is_available() else [])]
    absent = () if shutil.which("c++") else ("ours, compiled",)
    ways = {way: run for way, run in WAYS.items() if way not in (*without, *absent)}
    return [
        row(name, num_rows, epochs, device, threads, repeats, ways)
        for name, num_rows, (device, threads) in product(named(nets), rows, machines)
    ]


def row(
    name: str, rows: int, epochs: int, device: str, threads: int, repeats: int, ways: dict[str, Callable[[Work], float]]
) -> dict[str, Any]:
    """The median of alternating runs, after one to warm up."""
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    if device == "cuda":  # scikit-learn has no part there
        ways = {way: run for way, run in ways.items() if run is not Work.sklearn}
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(threads):
        work = Work(name, folder, rows, epochs, device)
        runs = [{way: run(work) for way, run in ways.items()} for _ in range(repeats + 1)][1:]
    bare = median(run["bare loop"] for run in runs) / work.num_steps * 1e6
    machine = torch.cuda.get_device_name() if device == "cuda" else "1 core" if threads == 1 else f"{threads} cores"
    found = {"net": name, "on": machine}
    ratios = {way: median(run[way] / run["bare loop"] for run in runs) for way in ways if way != "bare loop"}
    return found | {"bare loop, us a step": bare} | ratios
