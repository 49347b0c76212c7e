"""Where Hydra looks for sweepers; what this one does is in tabrun/sweeps/search.py."""

from hydra.core.config_store import ConfigStore

from tabrun.sweeps.search import Search


class OptunaSweeper(Search):
    """hydra/sweeper=optuna: a search instead of a grid."""


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="optuna",
    node={
        "_target_": f"{__name__}.OptunaSweeper",
        "_recursive_": False,  # the sampler is made anew for each batch
        "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 0},
        "storage": None,  # a URL of SQLAlchemy's; None: sqlite in the sweep's folder
        "study": None,  # its name in the storage
        "max_batch_size": 16,  # trials that are asked for at once, and trained as one where they can be
        "params": None,
    },
    provider=__name__,
)
