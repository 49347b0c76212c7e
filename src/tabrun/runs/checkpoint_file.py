"""Checkpoint: one of our files of weights, whoever sent it, looked at before anything in it is used."""

import io
import json
import os
import shutil
import zipfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tabrun.cli.errors import UserError
from tabrun.reading.values import columns_of
from tabrun.runs.build import MOST_MEMBERS
from tabrun.runs.folder import check_owner, part_of, whole, write_whole
from tabrun.tables.plain import fits
from tabrun.tables.schema import Schema

NAME = str | int | None  # of a column
FORMAT = 4  # of what a checkpoint holds and how it is computed; the first edition's had none
KINDS: dict[str, Any] = {
    **{f"config.{key}": str for key in ("folder", "monitor", "mode")},
    "config.data.path": str | list[str],
    **{f"config.data.{key}": dict[str, Any] for key in ("read", "split", "columns")},
    **{f"config.data.split.{key}": NAME for key in ("column", "group", "time")},
    **{"config.data.id": NAME | list[str | int], "config.data.columns.ignore": list[str | int]},
    **{"config.data.read.separator": str | None, "config.data.read.null_values": list[str | int | float] | None},
    **{"config.ensemble": dict[str, int | list[dict[str, Any]] | None] | None, "config.data.drop_missing_target": bool},
    **{"state_dict": dict[str, Tensor], "epoch": range(2**53)},
    **{"record.threads": range(1, 1025), "record.device": str, "record.data_sha256": str},
    **{"record.packages": dict[str, str], "schema": dict[str, Any]},
    **{"loops.fit_loop": dict[str, Any], "callbacks": dict[str, dict[str, Any]]},  # what the Trainer goes on from
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list[dict[str, Any]]),
    **{f"callbacks.Checkpoints.{key}": float | None for key in ("best", "train_loss")},
    "members": list[dict[str, Any]] | None,  # of an ensemble of runs
    **{"log": dict[str, Any] | None, "log.size": int | None, "log.columns": list[str] | None, "rng": Tensor | None},
    **{"callbacks.Epochs.rows": float | None, "callbacks.Epochs.loss": Tensor | None},
}


# in the place of what a Trainer goes on from, of an ensemble, with which none goes on
ENDED: dict[str, Any] = {"loops": {"fit_loop": {}}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}


@dataclass
class Member:
    """One of an ensemble of runs."""

    name: str  # of its folder
    weight: float
    config: dict[str, Any]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of one of our checkpoints, its schema as a Schema; UserError for any other or damaged file.

    Nothing but tensors and plain values is unpickled, and no more of them than the file holds.
    """
    try:
        with zipfile.ZipFile(file) as records:
            # with attributes of a folder torch would read a record as empty
            odd = [one for one in records.infolist() if one.compress_type != zipfile.ZIP_STORED or one.external_attr]
            if odd or sum(record.file_size for record in records.infolist()) > file.stat().st_size:
                raise zipfile.BadZipFile("packed")
            if damaged := records.testzip():  # torch.save keeps a CRC-32 of each, which torch.load does not look at
                raise zipfile.BadZipFile(damaged)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise a dozen kinds for a damaged file, from EOFError to UnpicklingError
        raise UserError(f"{file} is not a whole checkpoint ({type(error).__name__}): take it from a copy") from error
    try:
        check_content(content, file.stat().st_size)
        schema = Schema.from_plain(content["schema"])
    except UserError as error:
        raise UserError(f"{file} is not a checkpoint of this project: {error}") from None
    if (found := content.get("format", 1)) != FORMAT:
        known = f"this version reads {FORMAT}: use the one that wrote it"
        raise UserError(f"{file} has format {str(found)[:20]}, and {known}")
    return content | {"schema": schema}


def write_checkpoint(content: dict[str, Any], file: Path) -> None:
    """Writes it whole or not at all; through memory, as torch hides what a disk says."""
    memory = io.BytesIO()
    torch.save(content | {"format": FORMAT}, memory)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, memory.getbuffer())


def alias(file: Path, path: Path) -> None:
    """Gives a file a second name, in the place of what had that name, or copies it where the disk has no hard links."""
    part = part_of(path)
    try:
        check_owner(path)
        os.link(file, part)
        os.replace(part, path)
    except OSError:
        with whole(path) as copy, file.open("rb") as original:
            shutil.copyfileobj(original, copy)
    finally:
        part.unlink(missing_ok=True)  # which is left where both are one file already


def check_content(content: Any, size: int) -> None:
    """Raises UserError where what is read back is of another type, or larger than its file, of `size` bytes."""
    for key, kind in KINDS.items():
        value = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not fits(value, kind):
            raise UserError(f"{key} is missing, or not what a run writes")
    members = content.get("members") or []
    if len(members) > MOST_MEMBERS:
        raise UserError(f"it has more than {MOST_MEMBERS} members")
    if not is_plain([content["config"], content["schema"], content["record"], members], 10 * size):
        raise UserError("its config, schema or record is not plain")
    for member in members:
        if not (fits(member, Member) and 1e-6 < member["weight"] <= 1):
            raise UserError("members is not what an ensemble writes")
        check_content(content | {"config": member["config"], "members": None}, size)
    ids, target = (columns_of(content["config"]["data"].get(key)) for key in ("id", "target"))
    if target != columns_of(content["schema"].get("target")) or len(set(ids)) < len(ids):
        raise UserError("its config and its schema have another target, or an id is twice there")
    weights = content["state_dict"].values()
    dense = all(one.layout == torch.strided and one.device.type == "cpu" for one in weights)
    odd = any(one.is_quantized or one.is_nested for one in weights)
    if odd or not dense or sum(one.nbytes for one in weights) > 2 * size:  # 2: they may be tied
        raise UserError("its weights are not dense, or more than it holds")


def is_plain(values: Any, most: int) -> bool:
    """Whether this is JSON of at most so many words; what holds itself, or one list many times, may have no end."""
    try:
        return sum(1 for _ in islice(json.JSONEncoder().iterencode(values), most + 1)) <= most
    except (TypeError, ValueError, RecursionError):
        return False
