"""Where Hydra looks for launchers; what this one does is in tabrun/sweeps/launcher.py."""

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from tabrun.cli.keys import DEFAULTS
from tabrun.sweeps.grid import Grid
from tabrun.sweeps.launcher import Launcher
from tabrun.sweeps.rates import log_spaced


class VectorizedLauncher(Launcher):
    """The default launcher of a multirun: equal networks are trained as one."""


class GridSweeper(Grid):
    """The default sweeper: every combination of the values that are listed."""


store = ConfigStore.instance().store
store(group="hydra/launcher", name="vectorized", node={"_target_": f"{__name__}.VectorizedLauncher"}, provider=__name__)
grid = {"_target_": f"{__name__}.GridSweeper", "params": None}
store(group="hydra/sweeper", name="grid", node=grid, provider=__name__)
own = {"callbacks": {"guard": {"_target_": "tabrun.Guard"}}, "job": {"name": "train"}}  # Hydra would take our file's
guard = DEFAULTS | {"hydra": own}
store(group="hydra/callbacks", name="tabrun", package="_global_", node=guard, provider=__name__)
OmegaConf.register_new_resolver("log_spaced", log_spaced, replace=True)  # for conf/debug/lr_range.yaml
