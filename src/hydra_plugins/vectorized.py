"""Where Hydra looks for launchers; what this one does is in sweep/launcher.py."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from classify.sweep.launcher import Launcher
from classify.sweep.rates import log_spaced


class VectorizedLauncher(Launcher):
    """The default launcher of a multirun: equal networks are trained as one."""


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, except that no job is composed twice, at 0.1 s each: this launcher checks all before one."""

    def validate_batch_is_legal(self, batch: Any) -> None:
        if not isinstance(self.launcher, Launcher):
            super().validate_batch_is_legal(batch)


store = ConfigStore.instance().store
store(group="hydra/launcher", name="vectorized", node={"_target_": f"{__name__}.VectorizedLauncher"}, provider=__name__)
grid = {"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": None}
store(group="hydra/sweeper", name="grid", node=grid, provider=__name__)
OmegaConf.register_new_resolver("log_spaced", log_spaced, replace=True)  # for conf/debug/lr_range.yaml
