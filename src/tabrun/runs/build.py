"""Build: what the template's module `build` makes of a config, and what the library adds to it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tabrun.cli.errors import UserError

if TYPE_CHECKING:
    from lightning import Callback, LightningModule, Trainer
    from lightning.pytorch.loggers import Logger
    from omegaconf import DictConfig
    from torch import nn

    from tabrun.cli.roles import Role
    from tabrun.tables.data import TabularData
    from tabrun.tables.schema import Schema

MOST_MEMBERS = 50  # of an ensemble of runs, as so many rounds select them
Config = dict[str, Any]  # the composed config, resolved, as plain values


class Build(Protocol):
    """The template's module `build`, the only reader of the template's keys; it imports nothing heavy at its top.

    RANGES: the least and the most of a key. CHOICES: the words that a key may be. MEANT: keys by what else they are
    called. ROLES: what the nodes at these keys may name. MORE: what a finished run may be given more of. BESIDE: what
    else may be another when a run goes on. It may also have ADDED: keys that a run may lack, as older ones do; and
    BETTER: what is said after a run of one net on a table of one's own.
    """

    __name__: str
    __package__: str | None
    __file__: str | None
    RANGES: Mapping[str, tuple[float, float]]
    CHOICES: Mapping[str, tuple[str | None, ...]]
    MEANT: Mapping[str, str]
    ROLES: Mapping[str, Role]
    MORE: Sequence[str]
    BESIDE: Sequence[str]

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises UserError for values that do not go together, before anything is imported."""

    def check_more(self, before: Config, after: Config, num_epochs: int) -> None:
        """Raises UserError where a run of the config `before`, in this epoch, cannot go on with that of `after`."""

    def data(self, config: Config) -> Any:
        """Gives a function (schema) -> TabularData."""

    def net(self, config: Config, schema: Schema, most: float = ...) -> nn.Sequential:
        """Gives a Sequential of encode, body and head, rows -> scores (rows, classes), of at most so many weights."""

    def measures(self, config: Config, schema: Schema) -> Any:
        """Gives what is updated with (scores, labels), and computes {"part/name": value} for a part."""

    def classifier(self, config: Config, schema: Schema, measures: Any = None) -> LightningModule:
        """Gives a fresh module that trains `net`, with these measures or its own."""

    def callbacks(self, config: Config) -> list[Callback]: ...

    def loggers(self, config: Config) -> list[Logger]: ...

    def trainer(self, config: Config, callbacks: list[Callback], loggers: list[Logger], **more: Any) -> Trainer: ...

    def better(self, config: Mapping[str, Any]) -> str:
        """Says what is better for the monitored metric, min or max."""

    def alike(self, config: Config) -> Any:
        """Gives, as plain values, what runs that train as one have in common and their modules do not show."""


def package_of(build: Build) -> str:
    return build.__name__.partition(".")[0]


def conf(build: Build) -> Path:
    """Where the template's configs are: at the top of its tree, or in its package where that is installed."""
    package = Path(str(build.__file__)).parent
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


def resolved(build: Build, cfg: DictConfig, folder: Path | str, test: bool) -> Config:
    """The composed config as plain values, for a run in this folder."""
    from omegaconf import OmegaConf

    from tabrun.runs.resume import absolute

    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    absolute(cfg)
    cfg.folder, cfg.test = str(folder), test
    cfg.mode = build.better({str(key): value for key, value in cfg.items()})
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return {key: value for key, value in config.items() if key != "name"}  # a word of the folder's, such as the date


def set_up(build: Build, config: Config, schema: Schema | None = None) -> TabularData:
    """The data, set up; with a finished run's schema the table is read as that run read it."""
    folds = ensemble(config)["folds"]
    table: TabularData = build.data(config)(schema=schema, **({"ensemble_folds": folds} if folds else {}))
    table.setup()
    if str(config["data"]["target"]) == "-1":
        config["data"]["target"] = table.target  # the last column's name
    return table


def ensemble(config: Mapping[str, Any]) -> dict[str, Any]:
    """How many folds or seeds the run is an ensemble of, one of the two, and what its members have otherwise."""
    return {"folds": None, "seeds": None, "vary": None, **(config.get("ensemble") or {})}


def num_members(config: Mapping[str, Any]) -> int:
    """Of an ensemble; 0 for a run of one net."""
    own = ensemble(config)
    return own["folds"] or own["seeds"] or 0


def varied(config: Config, number: int) -> Config:
    """The config of a member of an ensemble, with what `vary` says, in turn.

    UserError for a key that says what is called: this stands in the config itself, where it is looked at.
    """
    made = copy.deepcopy(config)
    vary = ensemble(config)["vary"] or [{}]
    for key, value in vary[number % len(vary)].items():
        *groups, last = key.split(".")
        group: Any = made
        for name in groups:
            group = group.get(name) if isinstance(group, dict) else None
        if last.startswith("_") or not isinstance(group, dict):
            raise UserError(f"ensemble.vary: {key[:80]} is no key that members may differ in")
        group[last] = value
    return made


def check_ensemble(config: Mapping[str, Any]) -> None:
    """Raises UserError for an ensemble that cannot be."""
    own, data = ensemble(config), config["data"]
    if own["folds"] and own["seeds"]:
        raise UserError("ensemble.folds and ensemble.seeds: say one of the two")
    if own["vary"] and not num_members(config):
        hint = "say ensemble.folds or ensemble.seeds too, or ensemble.vary=null"
        raise UserError(f"ensemble.vary is of the members of an ensemble: {hint}")
    if len(own["vary"] or []) > max(1, num_members(config)):
        raise UserError(f"ensemble.vary lists {len(own['vary'])} members, and there are {num_members(config)}")
    if own["folds"] and data.get("num_folds"):
        raise UserError("ensemble.folds trains on every fold: leave out data.num_folds, or say ensemble.seeds")
    if own["folds"] and (data.get("split") or {}).get("time") is not None:
        raise UserError(
            "ensemble.folds would learn from rows after those that it judges, and data.split.time is for "
            "what that is wrong for: say ensemble.seeds"
        )
    if config["seed"] + (own["seeds"] or 0) > 2**32:
        raise UserError(f"ensemble.seeds={own['seeds']} from seed={config['seed']}: seeds end at {2**32 - 1}")


def net_of(build: Build, config: Config, schema: Schema, most: int, chosen: Sequence[dict[str, Any]] = ()) -> nn.Module:
    """The net of a run, of at most so many weights: the template's, or for an ensemble the mean of several.

    chosen: of an ensemble of runs, the config and the weight of each.
    """
    members = num_members(config)
    if not (members or chosen):
        return build.net(config, schema, most)
    from tabrun.runs.mean import Mean

    if not (chosen or 2 <= members <= most):
        raise UserError(f"no ensemble of {members} nets has {most} weights")
    configs = [own["config"] for own in chosen] or [varied(config, number) for number in range(members)]
    nets: list[nn.Module] = []
    for own in configs:
        nets.append(net_of(build, own, schema, most) if chosen else build.net(own, schema, most))
        most -= sum(weight.numel() for weight in nets[-1].state_dict().values())
    return Mean(nets, [own["weight"] for own in chosen] or None)
