"""Application: the command that trains what a template's `build` makes of its config, once or as a sweep."""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write

from tabrun.cli.check import FIRST_PROCESS, Guard, check_values, in_sweep
from tabrun.cli.errors import at_home, errors_that_end, one_line_errors, shown
from tabrun.cli.keys import composing
from tabrun.runs.build import Build, conf, num_members, resolved
from tabrun.runs.folder import STARTED, clear, lock, note_error, read_metrics, unlock, write_json
from tabrun.runs.resume import compared, continued, goes_on, said

log = logging.getLogger(__name__)


def application(build: Build) -> Callable[[], None]:
    """Makes the `main` of a template's train.py; launchers find `build` at the task function, Hydra in Guard."""

    def job(cfg: DictConfig) -> float:
        if in_sweep():
            return run_job(build, cfg)  # Hydra goes on with the other jobs and then raises what this one raises
        with errors_that_end():
            try:
                return run_job(build, cfg)
            except Exception:
                if not FIRST_PROCESS:
                    time.sleep(10)  # what fails in all is said by the first, which then ends the others
                elif cfg.resume is None and not Path(cfg.folder, "checkpoints").exists():
                    Path(cfg.folder, STARTED).unlink(missing_ok=True)  # or resume=latest would take it for a cut one
                raise

    job.build = Guard.build = build  # type: ignore[attr-defined]
    decorated = hydra.main(version_base="1.3", config_path=str(conf(build)), config_name="config")(job)
    return lambda: main(build, decorated)


def main(build: Build, app: Callable[[], Any]) -> None:
    if not FIRST_PROCESS and sys.platform == "linux":  # it ends with the process that has started it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.kill(int(os.environ.get("FIRST_PROCESS", 0)), 0)  # OSError: that has ended before
    sys.argv[1:] = sorted(
        map(at_home, sys.argv[1:]), key=lambda word: word not in ("-m", "--multirun")
    )  # which Hydra wants first
    logging.raiseExceptions = False  # a closed pipe ends no training
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise where it would print
    with one_line_errors(), composing(build):
        app()


def run_job(build: Build, cfg: DictConfig) -> float:
    """Trains one run, or one job of a sweep that is not stacked; gives the monitored metric."""
    from tabrun.runs.run import describe
    from tabrun.stack.ensemble import train_ensemble
    from tabrun.training.train import train

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    environment = dict(os.environ)
    try:
        if in_sweep():
            check_values(cfg, settings.runtime.choices, build)
            if (folder / "metrics.json").exists():
                return read_metrics(folder, cfg.monitor)[cfg.monitor]
            lock(folder)  # by the process that writes it, which may be joblib's
        config, start = config_of(build, cfg, settings)
        share(config, settings)
        metrics = (train_ensemble if num_members(config) else train)(build, config, start)
    except Exception as error:
        if in_sweep():
            note_error(folder, error)
        raise
    finally:
        os.environ.clear()  # trainer=ddp leaves its ranks there, and the next job of a sweep would take itself for one
        os.environ.update(environment)
        if in_sweep():
            unlock(folder)
    if FIRST_PROCESS:
        better = getattr(build, "BETTER", "")
        if better and own_table(config) and not (in_sweep() or num_members(config) or start or cfg.rerun):
            log.info(better)
        log.info("%s\n%s", describe(metrics), shown(config["folder"]))
        if cfg.rerun:
            log.info(compared(Path(cfg.rerun), Path(config["folder"]), build))
    return metrics[config["monitor"]]


def own_table(config: dict[str, Any]) -> bool:
    return config["data"]["read"]["_target_"].startswith("tabrun.read_")


def share(config: dict[str, Any], settings: Any) -> None:
    """Has the processes that trainer=ddp starts with this command line join this one job, in this folder."""
    quoted = config["folder"].replace("'", "\\'")
    sys.argv[1:] = [f"resume='{quoted}'", "trust=true", "hydra.mode=RUN"]
    with read_write(settings):
        settings.run.dir = config["folder"]
    os.environ["FIRST_PROCESS"] = str(os.getpid())


def config_of(build: Build, cfg: DictConfig, settings: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The resolved config, the command's own or that of the run which goes on or is repeated, and where it starts."""
    from tabrun.runs.run import Run
    from tabrun.runs.trust import recorded

    config, start = resolved(build, cfg, settings.runtime.output_dir, test=cfg.test and not in_sweep()), None
    if cfg.rerun:
        own = recorded(Run.open(cfg.rerun, build, trust=cfg.trust).trainable(), config["folder"], cfg.trust)
        config = own | {"test": own["test"] and cfg.test}
    elif cfg.resume:
        config, start = continued(build, config, said(settings.overrides.task) - {"resume", "trust"}, cfg.trust)
    elif in_sweep():
        start = goes_on(config)
    if start is None and FIRST_PROCESS:
        clear(Path(config["folder"]))  # what an attempt has left that was cut before its first checkpoint
        Path(config["folder"], STARTED).parent.mkdir(exist_ok=True)  # as Hydra may be told to make none
        write_json(Path(config["folder"], STARTED), config)
    return config, start
