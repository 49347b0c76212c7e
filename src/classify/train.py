"""Train: one run, or with -m a sweep.

python -m classify.train data=wine optimizer.lr=0.01
python -m classify.train -m optimizer.lr=0.001,0.01,0.1
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write

from tabrun.cli.check import FIRST_PROCESS, check_values, in_sweep
from tabrun.runs.earlier import said
from tabrun.cli.errors import at_home, one_line_errors
from tabrun.runs.folder import clear, lock, read_metrics, release, shown, unlock, write_json
from tabrun.cli.keys import CONF

log = logging.getLogger(__name__)

DIVERGED = "the training loss ends at %.4g, above %.4g of the class shares: did it diverge? lower optimizer.lr"


def train(config: dict[str, Any]) -> dict[str, float]:
    """Trains what a resolved config describes, writes its folder, and returns the metrics of its best weights.

    With `resume`, its folder's last.ckpt is where it starts, or, where there is none yet, the beginning.
    ValueError: the data, the head and the rest of the config do not fit together.
    """
    import lightning

    from classify import build
    from tabrun.runs.resume import cut, renew, take_weights
    from tabrun.runs.checkpoint_file import read_checkpoint
    from tabrun.runs.pace import set_threads
    from tabrun.runs.run import Run, chance, record

    folder, resumed = Path(config["folder"]), cut(config)
    lightning.seed_everything(config["seed"], verbose=False)
    data = build.data(config)
    assert data.schema
    if resumed and resumed.record["data_sha256"] != data.sha256:
        raise ValueError(f"resume={shown(folder)}: {data.path} has changed since: its rows have another hash")
    classifier = build.classifier(config, data.schema)
    set_threads(config, classifier.net)
    if config["init_from"] and not resumed:
        log.info(take_weights(classifier.net, Run.open(config["init_from"])))
    identity: dict[str, Any] = {}
    saved = {"config": config | {"resume": None}, "schema": data.schema.plain(), "record": identity}
    trainer = build.trainer(config, saved)
    identity |= record(data, trainer.strategy.root_device.type)
    if resumed and FIRST_PROCESS:
        if read_checkpoint(resumed.path)["state_dict"].keys() != classifier.state_dict().keys():
            raise ValueError(f"{resumed.path}: its weights do not fit its config")
        renew(resumed, saved["config"])
        (folder / "metrics.json").unlink(missing_ok=True)  # of fewer epochs
    try:
        with said_on_interrupt(folder):
            trainer.fit(classifier, data, ckpt_path=resumed.path if resumed else None, weights_only=True)
            loss, least = getattr(trainer.checkpoint_callback, "train_loss", 0.0), chance(config, data.schema)
            if FIRST_PROCESS and loss > least:
                log.warning(DIVERGED, loss, least)
            return finish(trainer, classifier, data, config, identity)
    finally:
        end_others(trainer.strategy.launcher)


def end_others(launcher: Any) -> None:
    """Ends the other processes of trainer=ddp."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    others = getattr(launcher, "procs", [])
    while others:
        others.pop().kill()  # off the list first, or Lightning, which watches it, would kill this process too


def finish(
    trainer: Any, classifier: Any, data: Any, config: dict[str, Any], record: dict[str, Any]
) -> dict[str, float]:
    """Measures the best weights on the validation rows and, with `test`, on the test rows; writes what was found."""
    folder = Path(config["folder"])
    metrics: dict[str, float] = {}
    seen = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    seen |= {"train/loss": getattr(trainer.checkpoint_callback, "train_loss", None)}
    for measure in [trainer.validate, trainer.test] if config["test"] else [trainer.validate]:
        best = folder / "checkpoints" / "best.ckpt"
        measure(classifier, ckpt_path=best, weights_only=True, verbose=False, datamodule=data)
        metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        write_json(folder / "run.json", record | seen)
        write_json(folder / "metrics.json", metrics)
    return metrics


@contextmanager
def said_on_interrupt(folder: Path) -> Iterator[None]:
    """Turns SystemExit, which ends the Trainer on Ctrl-C or SIGTERM, into how to go on."""
    try:
        yield
    except SystemExit as stop:
        kept = (folder / "checkpoints" / "last.ckpt").exists()
        said = f"go on with resume={shown(folder)}" if kept else "nothing was kept"
        raise KeyboardInterrupt(said, 130 if stop.code in (1, 130) else 143) from None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(cfg: DictConfig) -> float:
    if in_sweep():
        return run_job(cfg)  # Hydra goes on with the other jobs and then raises what this one raises
    with one_line_errors():
        try:
            return run_job(cfg)
        except BaseException:
            if FIRST_PROCESS and cfg.resume is None:
                release(Path(cfg.folder))
            if not FIRST_PROCESS:
                time.sleep(10)  # what fails in all is said by the first, which then ends the others
            raise


def run_job(cfg: DictConfig) -> float:
    from tabrun.runs.resume import compared
    from tabrun.runs.run import describe

    settings = HydraConfig.get()
    if in_sweep():
        check_values(cfg, settings.runtime.choices)
        if ((finished := Path(settings.runtime.output_dir)) / "metrics.json").exists():
            return read_metrics(finished, cfg.monitor)[cfg.monitor]
        lock(Path(settings.runtime.output_dir))  # by the process that writes it, which may be joblib's
    config = config_of(cfg, settings)
    # trainer=ddp starts its other processes with this command line: this one job, in this folder
    sys.argv[1:] = [
        *(word for word in settings.overrides.task if not word.startswith("resume=")),
        *([f"resume='{config['folder']}'"] if cfg.resume else []),
        f"folder='{config['folder']}'",
        f"test={config['test']}",
        "hydra.mode=RUN",
    ]
    with read_write(settings):  # type: ignore[arg-type]
        settings.run.dir = config["folder"]
    environment = dict(os.environ)
    os.environ["FIRST_PROCESS"] = str(os.getpid())
    try:
        metrics = train(config)
    finally:
        os.environ.clear()  # trainer=ddp leaves its ranks there, and the next job of a sweep would take itself for one
        os.environ.update(environment)
        if in_sweep():
            unlock(Path(config["folder"]))
    if FIRST_PROCESS:
        log.info("%s\n%s", describe(metrics), shown(config["folder"]))
        if cfg.rerun:
            log.info(compared(Path(cfg.rerun), Path(config["folder"])))
    return metrics[config["monitor"]]


def config_of(cfg: DictConfig, settings: Any) -> dict[str, Any]:
    """The resolved config: the command's own, or that of the run which goes on or is repeated."""
    from tabrun.runs.resume import continued, goes_on, recorded
    from classify.build import resolved
    from tabrun.runs.run import Run

    config = resolved(cfg, settings.runtime.output_dir, test=cfg.test and not in_sweep())
    if cfg.rerun:
        run = Run.open(cfg.rerun, trust=cfg.trust)
        own = recorded(run.trusted(*run.config), config["folder"], cfg.trust)
        config = own | {"test": own["test"] and cfg.test}
    elif cfg.resume:
        config = continued(config, said(settings.overrides.task) - {"resume", "trust"}, cfg.trust)
    elif in_sweep():
        if not goes_on(config):
            clear(Path(config["folder"]))
        config["resume"] = config["folder"]
    return config


def main() -> None:
    if not FIRST_PROCESS and sys.platform == "linux":  # it ends with the process that has started it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.kill(int(os.environ.get("FIRST_PROCESS", 0)), 0)  # OSError: that has ended before
    words = [at_home(word) for word in sys.argv[1:]]
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))  # which Hydra wants first
    logging.raiseExceptions = False  # a closed pipe ends no training
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise where it would print
    with one_line_errors():
        app()


if __name__ == "__main__":
    main()
