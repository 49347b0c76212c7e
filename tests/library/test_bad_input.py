"""What a person may get wrong: exit code not 0, one line that says what and what to do, and nothing changed."""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import ROOT

from tabrun.cli.errors import explained
from tabrun.reading import sources as tables
from tabrun.runs.folder import lock

# Words: what the one line says, as a regular expression. These are answered before torch is imported.
EARLY = {
    "train optimizer.lrr=0.1": r"no key optimizer.lrr \(did you mean optimizer.lr\?\)",
    "train optimizer.lr=abc": r"optimizer.lr=abc is not a number",
    "train optimizer.lr=-1": r"optimizer.lr=-1 is out of range: it must be at least 0",
    "train optimizer.lr=[1": r"cannot read 'optimizer.lr=\[1'.* with odd text quoted",
    "train trainer.precision=fp16": r"trainer.precision=fp16 is not one of 32-true, 64-true, 16-mixed",
    "train model.hidden=64": r"not a list of whole numbers",
    "train +callbacks.x=5": r"callbacks.x is nothing that can be made: it needs a _target_",
    "train data.split=5": r"data.split=5 is not a group of keys",
    "train speed.threads={a:1}": r"speed.threads=.* is a group of keys, not one value",
    "train ~data.target": r"data.target cannot be left out: say data.target=\.\.\.",
    "train test=maybe": r"test=maybe is not true or false",
    "train monitor=val/acuracy": r"did you mean val/accuracy\?",
    "train data=irs": r"no data=irs \(did you mean iris\?\): there are breast_cancer, clusters, csv, digits",
    "train data=csv": r"data.path has no value: add data.path=\.\.\.",
    "train data=csv data.path=none.csv data.target=y": r"data.path=none.csv: there is no such file",
    "train resume=nowhere": r"resume=nowhere: there is no run's folder of this name",
    "train resume=run": r"resume=run is finished: raise trainer.max_epochs or callbacks.early_stopping.patience",
    "train resume=run optimizer.lr=1": r"takes optimizer.lr from the run itself: leave it out; beside resume there may",
    "train resume=busy": r"folder=.*busy is being written by another process: wait for it",
    "train -m seed=0,1 resume=run": r"resume= is for one run: leave out -m",
    "train rerun=nowhere": r"rerun=nowhere: there is no checkpoint",
    "train rerun=run seed=1": r"takes seed from the run itself: leave it out",
    "train folder=run": r"folder=.*run holds a finished run already: name a new folder",
    "train folder=unfinished": r"holds files already",
    "train -m optimizer.lr=0.1,-1": r"job 1 .*out of range",
    "evaluate": r"the following arguments are required: run: see python -m classify.evaluate --help",
    "evaluate nowhere": r"there is no checkpoint nowhere: name a run's folder or a .ckpt file",
    "evaluate run none.csv": r"there is no file none.csv",
    "evaluate run --threshold 2": r"--threshold 2.0 is not from 0 to 1",
    "evaluate run --threshold high": r"invalid float value: 'high'",
    "evaluate run --tresh 1": r"unrecognized arguments: --tresh",
    "evaluate unfinished": r"there is no checkpoint unfinished/checkpoints/best.ckpt",
    "predict run": r"the following arguments are required: table",
    "predict nowhere new.csv": r"there is no checkpoint nowhere",
    "predict run none.csv": r"there is no file none.csv",
    "predict run new.csv --temperature 0": r"--temperature must be above 0",
    "predict run new.csv -o out.xlsx": r"--out out.xlsx: name a .csv or a .parquet file",
    "predict run new.csv -o out.json": r"--out out.json: name a .csv or a .parquet file",
    "predict run new.csv -o busy": r"--out busy: name a .csv or a .parquet file",
    "predict ~/nowhere new.csv": r"there is no checkpoint /.*/nowhere",
    "evaluate run ~/none.csv": r"there is no file /.*/none.csv",
    "predict run new.csv -o nowhere/out.csv": r"--out nowhere/out.csv: there is no folder",
    "export nowhere": r"there is no checkpoint nowhere",
    "export run --format pickle": r"invalid choice: 'pickle' \(choose from '?onnx'?, '?torch'?\)",
}
MORE = {  # further keys and words that are answered in these ways
    "train lr=0.1": r"did you mean optimizer.lr\?",
    "train optimizer.learning_rate=0.1": r"did you mean optimizer.lr\?",
    "train dataa=iris": r"did you mean data\?",
    "train optimizer.lr=nan": r"optimizer.lr=nan is out of range",
    "train trainer.max_epochs=2.5": r"trainer.max_epochs=2.5 is not a whole number",
    "train trainer.max_epochs=0": r"out of range: it must be at least 1",
    "train speed.threads=1.5": r"speed.threads=1.5 is not a whole number",
    "train speed.chunk=2.5": r"speed.chunk=2.5 is not a whole number",
    "train trainer.limit_val_batches=0": r"trainer.limit_val_batches=0 is out of range",
    "train callbacks.early_stopping.monitor=val/nope": r"early_stopping.monitor=val/nope is not measured: there are",
    "train -m seed=0,1 sweep.max_stack=2.5": r"sweep.max_stack=2.5 is not a whole number",
    "train speed.threads=0": r"speed.threads=0 is out of range",
    "train speed.compile=fast": r"speed.compile=fast is not one of null, default, reduce-overhead",
    "train speed.compile=reduce-overhead trainer.accumulate_grad_batches=2": r"say speed.compile=default",
    "train encode.bins=1": r"encode.bins=1 is out of range: it must be from 2 to 32",
    "train encode.embed=cosine": r"encode.embed=cosine is not one of null, periodic, piecewise",
    "train data.batch_size=0": r"data.batch_size=0 is out of range",
    "train data.split.test_fraction=1.5": r"out of range: it must be from 0.001 to 0.999",
    "train loss.label_smoothing=2": r"out of range: it must be from 0 to 1",
    "train model.hidden=[8,0]": r"out of range",
    "train model.hidden=[100000000,1]": r"out of range: it must be from 1 to 16777216",
    "train data.num_folds=x": r"data.num_folds=x is not a whole number",
    "train model.dropout=1.5": r"out of range",
    "train seed=-1": r"out of range",
    "train seed=abc": r"seed=abc is not a whole number",
    "train trainer.accumulate_grad_batches=0": r"out of range: it must be at least 1",
    "train trainer.profiler=1": r"trainer.profiler=1 is not one of null, simple",
    "train speed.threads=true": r"speed.threads=True is not a whole number",
    "train optimizer.lr={a:1}": r"optimizer.lr=.* is a group of keys, not one value, as in optimizer.lr=0.05",
    "train +scheduler={a:1}": r"scheduler=.* is a group of keys, not one value",
    "train callbacks.early_stopping=5": r"callbacks.early_stopping=5 is not a group of keys",
    "train callbacks.early_stopping.monitor=null": r"callbacks.early_stopping.monitor=None is not measured",
    "train scheduler=reduce_on_plateau scheduler.monitor=x": r"scheduler.monitor=x is not measured",
    "train scheduler=cosine scheduler.interval=x": r"scheduler.interval=x is not one of",
    "train ~data.batch_size": r"data.batch_size cannot be left out",
    "train ~trainer.max_epochs": r"trainer.max_epochs cannot be left out",
    "train ~optimizer._target_": r"optimizer._target_ cannot be left out",
    "train ~seed": r"seed cannot be left out",
    "train ~scheduler": r"scheduler cannot be left out",
    "train -m ~optimizer.lr seed=0,1": r"optimizer.lr cannot be left out",
    "train hydra/sweeper=optuna": r"hydra/sweeper=optuna searches with many runs: add -m",
    "train -m seed=range(0,1e12)": r"seed: a sweep may list 100,000 values or jobs at the most",
    "train -m seed=range(1000) data.seed=range(1000)": r"seed, data.seed: a sweep may list 100,000",
    "train -m hydra/sweeper=optuna seed=range(0,1e12)": r"seed: a sweep may list 100,000",
    "train -m model=glob(x*)": r"model: it holds no value",
    "train -m resume=run,changed": r"resume= is for one run: leave out -m",
    "train -m rerun=run,changed": r"rerun= is for one run: leave out -m",
    "train -m seed=0,1 hydra.sweep.subdir=x": r"hydra.sweep.subdir: the folder of each job is its number: leave it out",
    "train head=tanh": r"head=tanh is not one of auto, sigmoid, softmax",
    "train mode=less": r"mode=less is not one of auto, min, max",
    "train monitor=val/f1 metrics.f1=null": r"monitor=val/f1 is not measured.*there are",
    "train metrics=null": r"metrics cannot be left out as a whole: set metrics.NAME=null",
    "train callbacks.checkpoints=null": r"callbacks.checkpoints cannot be left out",
    "train +metrics.loss={_target_:x}": r"metrics.loss: this name is taken",
    "train model=mpl": r"no model=mpl \(did you mean mlp\?\): there are linear, mlp",
    "train optimizer=sdg": r"did you mean sgd\?",
    "train experiment=none": r"no experiment=none",
    "train data=csv data.path=~/none.csv data.target=y": r"data.path=/.*/none.csv: there is no such file",
    "train data=csv data.path=new.csv data.target=y data.read.head=10000000000": r"data.read.head=10000000000 is out",
    "train data.batch_size=99999999999999999999": r"data.batch_size=99999999999999999999 is out of range",
    "train data.num_folds=[1,2]": r"data.num_folds=.1, 2. is not a whole number",
    "train data.num_folds={a:1}": r"data.num_folds=.* is a group of keys, not one value",
    "train trainer.limit_val_batches=${seed}": r"trainer.limit_val_batches=0 is out of range",
    "train trainer.limit_val_batches=${sed}": r"'sed' not found",
    "train ~trainer.precision": r"trainer.precision cannot be left out",
    "train callbacks.early_stopping=1": r"callbacks.early_stopping=1 is not a group of keys",
    "train monitor=1": r"monitor=1 is not measured: there are val/loss",
    "train folder=a::b": r"folder=.*a::b: a run's path must not hold ::",
    "train -m seed=0,1 folder=a::b": r"folder=.*a::b: a run's path must not hold ::",
    "train resume=text.ckpt": r"resume=text.ckpt: there is no run's folder of this name",
    "train resume=latest": r"resume=latest: there is no unfinished run under outputs/: name its folder",
    "train resume=unfinished": r"resume=unfinished holds nothing to go on from: start the run again",
    "train -m seed=0,1 folder=busy": r"folder=.*busy is being written by another process: wait for it",
    "train folder=busy/2": r"folder=.*busy is being written by another process: wait for it",
    "train -m seed=0,1 folder=part": r"folder=part/0 is being written by another process: wait for it",
    "train data=iris folder=own monitor=1": r"monitor=1 is not measured: there are val/loss",
    "train rerun=unfinished": r"rerun=unfinished: there is no checkpoint",
    "train init_from=nowhere": r"init_from=nowhere: there is no checkpoint",
    "train init_from=unfinished": r"there is no checkpoint unfinished/checkpoints/best.ckpt: name a run's folder",
    "train folder=text.ckpt": r"folder=.*text.ckpt cannot be made: File exists: name a new folder",
    "train folder=/proc/none": r"/proc/none",
    "train -m optimizer.lrr=0.1,0.2": r"no key optimizer.lrr \(did you mean",
    "train -m optimizer.lr=": r"optimizer.lr has no value",
    "train -m optimizer.lr=interval(0.1,1)": r"add hydra/sweeper=optuna",
    "train -m hydra.sweeper.nope=1 seed=0,1": r"there is no key hydra.sweeper.nope",
    "train -m debug=lr_range sweep.rates.least=0": r"sweep.rates from 0 to 10.0, 64 of them",
    "train -m data=iris,irs": r"no data=irs \(did you mean iris\?\)",
    "train -m seed=0,1 folder=run": r"holds a finished run already",
    "train -m seed=0,1 rerun=run": r"rerun= is for one run: leave out -m",
}
BARE = "~optimizer.momentum ~optimizer.nesterov ~optimizer.weight_decay ~optimizer.fused"
# These need the data or the net.
LATE = {
    "train data=iris head=sigmoid": r"head=sigmoid is for 2 classes, the data has 3",
    "train model.hidden=[1000000,1000000]": r"model: 1,000,0\d\d,\d{3},\d{3} weights are too many: there is room for",
    "train model.activation=Rello": r"model.activation=Rello is no activation: say ReLU",
    "train model.activation=Tensor": r"model.activation=Tensor is no activation",
    "train +encode.foo=1": r"encode: .* unexpected keyword argument 'foo'",
    "train +model.width=1": r"model: mlp got an unexpected keyword argument 'width'",
    "train +optimizer.speed=1": r"optimizer: SGD.* got an unexpected keyword argument 'speed'",
    f"train optimizer._target_=torch.optim.LBFGS {BARE}": r"optimizer: LBFGS.step.. missing .*'closure'",
    f"train optimizer._target_=torch.optim.SparseAdam {BARE}": r"SparseAdam does not support dense gradients",
    "train optimizer=adam optimizer.betas=[]": r"optimizer: ",
    "train scheduler=cosine scheduler.total=x": r"scheduler: .*unexpected keyword argument 'x'",
    "train scheduler=one_cycle scheduler.make.max_lr=null": r"scheduler: ",
    "train experiment=net_6_4_1 data=csv data.path=new.csv data.target=diagnosis": r"data.read: read_csv got .*num",
    "train +data.read.shape=1": r"data.read: from_sklearn got an unexpected keyword argument 'shape'",
    "train +data.shape=1": r"data: TabularData got an unexpected keyword argument 'shape'",
    "train loss.class_weights=[1,2,3]": r"say balanced, or one number for each of \['benign', 'malignant'\]",
    "train data.fold=1": r"data.fold=1 needs data.num_folds",
    "train optimizer.betas=[2,2] optimizer=adam": r"Invalid beta parameter",
    "train data.num_folds=5 data.fold=7": r"data.num_folds=5 needs data.fold from 0 to 4",
    "train data.split.test_fraction=0.6 data.split.validation_fraction=0.6": r"leave no rows to train on",
    "train data.columns.ignore=[radius]": r"there is no column radius: data.columns.ignore names it .did you mean",
    "train data.path=titanic": r"data.path=titanic is no table inside scikit-learn: there are breast_cancer, iris",
    "train init_from=run model=linear head=softmax": r"has no weights that fit",
    "train init_from=cut.ckpt": r"cut.ckpt is not a whole checkpoint",
    "train trainer.accelerator=abacus": r"abacus",
    "evaluate cut.ckpt": r"cut.ckpt is not a whole checkpoint",
    "evaluate text.ckpt": r"text.ckpt is not a whole checkpoint",
    "evaluate other.ckpt": r"other.ckpt is not a checkpoint of this project",
    "evaluate changed": r"breast_cancer has changed since changed/checkpoints/best.ckpt was written",
    "evaluate halved": r"halved/metrics.json is not whole JSON",
    "evaluate emptied": r"emptied/metrics.json lacks val/loss",
    "evaluate run quantities.csv": r"quantities.csv: column diagnosis, row 1: .*no class 0.5, only benign",
    "train data=csv data.path=quantities.csv data.target=diagnosis": r"a target is a class, not a quantity",
    "train data=parquet data.path=dates.parquet data.target=diagnosis": r"column day holds dates outside of the",
    "train data=parquet data.path=lists.parquet data.target=diagnosis": r"mean radius holds List.Int64.: leave it",
    "predict run lists.parquet": r"lists.parquet: column mean radius holds List.Int64.: training saw Float64",
    "predict run dates.parquet": r"dates.parquet: column day holds dates outside of the years 1 to 9999",
    "evaluate run unlabelled.csv": r"unlabelled.csv: there is no column diagnosis",
    "predict cut.ckpt new.csv": r"cut.ckpt is not a whole checkpoint",
    "predict run narrow.csv -o new.csv": r"narrow.csv: there is no column mean radius: the classifier was trained with "
    r"it .did you mean 'worst radius'.*: there are mean texture, ",
    "predict run new.csv --temperature 1e-320 -o cold.csv": r"new.csv: row 1: its scores, divided by the temperature",
    "predict run empty.csv": r"empty.csv has no rows to predict",
    "predict run words.csv": r"words.csv: column mean radius, row 3: 'much' is not a number",
    "predict run text.parquet": r"text.parquet is not a Parquet file",
    "export text.ckpt": r"text.ckpt is not a whole checkpoint",
}
SPLIT = "".join(f"{i},{{}},{'ab'[i % 2]},{('train', 'val', 'test')[i // 4]}\n" for i in range(12))  # of x,w,y,s
ROWS = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(30))
LONG = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(100_000))
TABLES: dict[str, tuple[str | bytes, str]] = {  # a CSV with the target y: what is said of it
    "empty": ("", r"empty.csv is empty"),
    "header": ("x,y\n", r"has a header and no rows"),
    "no_target": ("x,z\n" + ROWS, r"no_target.csv: there is no column y"),
    "target_missing": ("x,y\n" + ROWS + "5,\n", r"column y, row 31: the target is missing in 1 rows"),
    "one_class": ("x,y\n" + ROWS.replace("b", "a"), r"one_class.csv: .*one class, a"),
    "few": ("x,y\n" + ROWS + "1,c\n1,c\n", r"few.csv: class c has 2 rows"),
    "constant": ("x,y\n" + re.sub(r"\d+", "1", ROWS), r"constant.csv: every feature column is constant"),
    "duplicate": ("x,x,y\n" + ROWS.replace(",", ",1,"), r"duplicate.csv has two columns called 'x'"),
    "too_many": ("x,y\n" + ROWS + "1,a,7\n", r"too_many.csv: row 31: 3 fields, where the header has 2"),
    "too_few": ("x,z,y\n" + ROWS.replace(",", ",1,") + "1,a\n", r"row 31: 2 fields, where the header has 3"),
    "encoding": (b"x,y\n" + ROWS.encode() + "1,é\n".encode("latin-1"), r"encoding.csv: row 31: not UTF-8"),
    "quote": ("x,t,y\n" + ROWS.replace(",", ",1,") * 3 + '3,5" d,a\n', r"quote.csv: row 91: its quotes"),
    "turns": ("x,y\n" + LONG + "many,a\n", r"turns.csv: column x, row 100001: 'many' is not a number"),
    "beyond": ("x,y\n" + ROWS + "1e300,a\n", r"beyond.csv: column x, row 31"),
    "compressed": (gzip.compress(b"x,y\n1,a\n"), r"compressed.csv: class a has 1 rows: train, val and test"),
    "excel": (b"PK\x03\x04", r"excel.csv is a damaged zip archive: "),
    "no_mark": (
        ("x,y\n" + ROWS).encode("utf-16-le"),
        r"no_mark.csv is no text, or text in UTF-16 without its mark: say data.read.encoding=utf-16-le",
    ),
    "old_ends": (("x,y\n" + ROWS).replace("\n", "\r"), r"old_ends.csv ends its lines with .r alone"),
    "quantity": ("x,y\n" + "".join(f"{i},{i / 7}\n" for i in range(30)), r"a target is a class, not a quantity"),
}
TABLE_WORDS = {  # tables that need more words
    "soft": ("x,p,q\n1,0.5,0.5\n2,0.9,0.2\n", "data.target=[p,q]", r"row 2: columns p, q hold .*but to 1.1"),
    "lacks": ("x,y,s\n1,a,train\n2,b,train\n3,a,val\n4,c,test\n", "data.split.column=s", r"class c is among the test"),
    "strange": ("x,y,s\n1,a,train\n2,b,later\n", "data.split.column=s", r"row 2: 'later' is not train, val or test"),
    "weight_none": (
        "x,w,y\n" + ROWS.replace(",", ",1,"),
        "data.weight=v",
        r"no column v: data.weight names it: there are x, w, y",
    ),
    "weight_missing": (
        "x,w,y\n1,1,a\n2,,b\n" + ROWS.replace(",", ",1,"),
        "data.weight=w",
        r"column w, row 2: None is no w",
    ),
    "weight_negative": (
        "x,w,y\n" + ROWS.replace(",", ",1,") + "1,-0.5,a\n",
        "data.weight=w",
        r"w, row 31: '-0.5' is no",
    ),
    "weight_infinite": (
        "x,w,y\n" + ROWS.replace(",", ",1,") + "1,inf,a\n",
        "data.weight=w",
        r"w, row 31: 'inf' is no weig",
    ),
    "weight_beyond": (
        "x,w,y\n" + ROWS.replace(",", ",1,") + "1,1e300,a\n",
        "data.weight=w",
        r"row 31: '1e300' is no weig",
    ),
    "weight_word": (
        "x,w,y\n" + ROWS.replace(",", ",1,") + "1,much,a\n",
        "data.weight=w",
        r"w, row 31: 'much' is not a nu",
    ),
    "weight_zero": (
        "x,w,y\n" + ROWS.replace(",", ",0,"),
        "data.weight=w",
        r"column w: every weight of the train rows is 0",
    ),
    "weight_train": (
        "x,w,y,s\n" + SPLIT.format(*[0] * 4, *[1] * 8),
        "data.weight=w data.split.column=s",
        r"column w: every weight of the train rows is 0",
    ),
    "weight_target": (
        "x,w,y\n" + ROWS.replace(",", ",1,"),
        "data.weight=y",
        r"data.weight=y is the target: name another",
    ),
    "csv_as_parquet": ("x,y\n" + ROWS, "data=parquet", r"csv_as_parquet.csv is not a Parquet file"),
}


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, an unfinished one, broken ones, and tables to go with them."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("run", "changed", "halved", "emptied"):
        shutil.copytree(finished, folder / name)
    (folder / "unfinished" / ".hydra").mkdir(parents=True)
    (folder / "busy" / ".hydra").mkdir(parents=True)
    (folder / "busy" / ".hydra" / "config.json").touch()
    (folder / "busy" / "sweep.json").write_text('["seed=0,1"]')
    lock(folder / "busy")
    lock(folder / "part" / "0")  # by a process that joblib started, say, and that outlives the sweep
    (folder / "part" / "sweep.json").write_text('["seed=0,1"]')
    (folder / "own" / "log").mkdir(parents=True)  # a folder that no run has made
    for name in ("log/x", "optuna.db", "train.log"):
        (folder / "own" / name).write_text("mine")
    (folder / "halved" / "metrics.json").write_text('{"val/loss": 0.1, "val')
    (folder / "emptied" / "metrics.json").write_text("{}")
    whole = (finished / "checkpoints" / "best.ckpt").read_bytes()
    content = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    content["record"]["data_sha256"] = "0" * 64
    torch.save(content, folder / "changed" / "checkpoints" / "best.ckpt")
    torch.save({"weights": torch.ones(1)}, folder / "other.ckpt")
    (folder / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.ckpt").write_text("not a checkpoint")
    (folder / "text.parquet").write_text("nonsense")
    frame = tables.from_sklearn("breast_cancer", "diagnosis")
    frame.write_csv(folder / "new.csv")
    frame.drop("diagnosis").write_csv(folder / "unlabelled.csv")
    frame.drop("mean radius").write_csv(folder / "narrow.csv")
    frame.head(0).write_csv(folder / "empty.csv")
    much = pl.when(pl.int_range(len(frame)) == 2).then(pl.lit("much")).otherwise(pl.col("mean radius").cast(pl.String))
    frame.with_columns(much.alias("mean radius")).write_csv(folder / "words.csv")
    frame.with_columns(diagnosis=pl.int_range(len(frame)) + 0.5).write_csv(folder / "quantities.csv")
    frame.with_columns(pl.lit([1]).alias("mean radius")).write_parquet(folder / "lists.parquet")
    day = pl.lit(2**31 - 1, dtype=pl.Int32).cast(pl.Date)
    frame.with_columns(day=day).write_parquet(folder / "dates.parquet")
    (folder / "tables").mkdir()
    for name, (text, *_) in {**TABLES, **TABLE_WORDS}.items():
        (folder / "tables" / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def check(cases: dict[str, str], imports: str, folder: Path, python: Path | str = sys.executable) -> None:
    """Runs every case as a process, two at a time."""
    words = [[f"classify.{verb}", *rest] for verb, *rest in (case.split(" ") for case in cases)]
    for i, (module, *rest) in enumerate(words):
        if module == "classify.train" and not re.search("folder=|resume=", " ".join(rest)):
            words[i].append(f"folder={imports}{i}")
    before = contents(folder)
    script = [python, str(ROOT / "tests" / "forked.py"), imports]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, cwd=folder, env=environment, input=json.dumps(words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = []
    for (case, text), (code, out, err, torch_imported) in zip(cases.items(), json.loads(done.stdout), strict=True):
        fine = (
            code in (1, 2) and (out == "" or imports == "heavy") and err.startswith("error: ") and err.count("\n") == 1
        )
        if not fine or not re.search(text, err) or torch_imported != (imports == "heavy"):
            wrong.append(f"{case}: code {code}, torch {torch_imported}\n{out}{err}")
    assert not wrong, "\n".join(wrong)
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    new = after.keys() - before.keys()  # what a later command of the same folder may write over
    assert {name.split("/")[0] for name in new} <= {f"{imports}{i}" for i in range(len(words))} | {"a::b"}
    assert not [name for name in new if re.search("metrics.json|checkpoints", name)]


@pytest.mark.parametrize("cases", [EARLY, pytest.param(MORE, marks=pytest.mark.slow)], ids=["each kind", "more"])
def test_what_is_answered_at_once(cases: dict[str, str], folder: Path) -> None:
    check(cases, "light", folder)


def test_what_data_net_and_checkpoint_show(folder: Path, forking: Path) -> None:
    check(LATE, "heavy", folder, forking)


@pytest.mark.slow
def test_what_a_table_shows(folder: Path, forking: Path) -> None:
    """As test_bad_tables does, here by the command itself."""
    csv = "train data=csv data.path=tables/{}.csv data.target=y"
    cases = {csv.format(name): text for name, (_, text) in TABLES.items()}
    cases |= {f"{csv.format(name)} {more}": text for name, (_, more, text) in TABLE_WORDS.items()}
    check(cases, "heavy", folder, forking)


def test_a_command_as_typed(folder: Path) -> None:
    """One case without the fork."""
    done = subprocess.run(
        [sys.executable, "-m", "classify.train", "lr=1"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no key lr (did you mean optimizer.lr?)\n"


def test_a_closed_pipe_ends_quietly(folder: Path, forking: Path) -> None:
    """As with other tools of Unix, whose exit code is then 128 + SIGPIPE."""
    for words in ("classify.train --cfg all", "classify.predict run new.csv"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{forking} -m {words} | true"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_a_full_disk_may_be_that_of_temporary_files() -> None:
    assert "that of $TMPDIR, is full" in (explained(OSError(errno.ENOSPC, "No space left on device")) or "")
