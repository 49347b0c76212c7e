"""Trains with conf/ as it was before it had some keys: python without.py KEY,KEY WORD ..."""

import os
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf

from classify import build
from tabrun.cli.application import application
from tabrun.cli.keys import MISSING, shipped
from tabrun.runs.build import conf


def take_out(key: str, file: Path) -> None:
    cfg = OmegaConf.load(file)
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, group) if group else cfg
    if OmegaConf.is_dict(node) and name in node:
        del node[name]
        file.write_text(OmegaConf.to_yaml(cfg))


def main(keys: str, *words: str) -> None:
    older = Path("+".join(key[:9] for key in keys.split(","))).absolute() / "conf"
    shutil.copytree(conf(build), older)
    for key in keys.split(","):
        assert OmegaConf.select(OmegaConf.load(older / "config.yaml"), key, default=MISSING) is not MISSING, key
        for file in (older / "config.yaml", *(older / "data").iterdir()):
            take_out(key, file)
    os.chdir(older.parent)
    build.__file__ = str(older.parent / "build.py")
    shipped.cache_clear()
    sys.argv = ["train", *words]
    application(build)()


if __name__ == "__main__":
    main(*sys.argv[1:])
