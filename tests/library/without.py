"""Trains with conf/ as it was before it had some keys: python without.py KEY,KEY WORD ..."""

import os
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf

from classify import build
from tabrun.cli.application import application
from tabrun.cli.keys import shipped
from tabrun.runs.build import conf


def take_out(key: str, file: Path) -> bool:
    """Takes a key out of a file; gives whether it was there."""
    cfg = OmegaConf.load(file)
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, group) if group else cfg
    if not OmegaConf.is_dict(node) or name not in node:
        return False
    del node[name]
    file.write_text(OmegaConf.to_yaml(cfg))
    return True


def main(keys: str, *words: str) -> None:
    older = Path("+".join([*words, *keys.split(",")])).absolute() / "conf"
    shutil.copytree(conf(build), older)
    for key in keys.split(","):
        there = [take_out(key, file) for file in (older / "config.yaml", *(older / "data").iterdir())]
        assert any(there), key
    os.chdir(older.parent)
    build.__file__ = str(older.parent / "build.py")
    shipped.cache_clear()
    sys.argv = ["train", *words]
    application(build)()


if __name__ == "__main__":
    main(*sys.argv[1:])
