"""Rename the template, wherever code, config or a command means it, and nowhere else: not in the library.

make rename NAME=churn
"""

import argparse
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


def check(old: str, new: str) -> None:
    """Raises ValueError when `new` cannot be the package's name, or a rename could not be undone with git."""
    if not new.isidentifier() or new != new.lower() or not new.isascii():
        raise ValueError(f"NAME={new} is not a lower-case Python identifier: say make rename NAME=churn")
    if keyword.iskeyword(new) or keyword.issoftkeyword(new):
        raise ValueError(f"NAME={new} is a word of Python's own")
    if new == old:
        raise ValueError(f"NAME={new} is the name already")
    if new in (path.stem for path in (SOURCE / old).iterdir()):
        raise ValueError(f"NAME={new} is the name of one of the package's own modules")
    if importlib.util.find_spec(new) or new in sys.stdlib_module_names or new in (p.name for p in ROOT.iterdir()):
        raise ValueError(f"NAME={new} is taken by an installed module or a folder here: importing it would find that")
    if git("status", "--porcelain"):
        raise ValueError("there are uncommitted changes: commit or stash them, so that git can undo the rename")


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git {words[0]}: {done.stderr.strip()}: the rename needs a git repository")
    return done.stdout


def patterns(old: str) -> dict[str, list[str]]:
    """Regular expressions for the old name, by file ending; a name counts only where it means the package."""
    modules = "|".join([path.stem for path in (SOURCE / old).iterdir() if not path.name.startswith("_")] + ["load"])
    module = rf"(?<![\w./-]){old}(?=\.(?:(?:{modules})\b|\{{))"  # classify.train, not classify.csv
    imported = rf"(?<=import ){old}\b|(?<=from ){old}(?= import)"
    folder = rf"(?<=src/){old}\b"
    return {
        ".yaml": [rf"(?<=_target_: ){old}(?=\.)", rf"(?<=\(\): ){old}(?=\.)", rf"(?<=python -m ){old}(?=\.)"],
        ".toml": [rf'(?<=^name = "){old}(?=")', rf'(?<="){old}(?=\[|"\]|", "tabrun"|/conf")', folder, module],
        ".md": [module, imported, folder, rf"(?<=^# ){old}$", rf"(?<=_target_: ){old}(?=\.)"],
        "": [module, imported, folder],
    }


def rename(old: str, new: str) -> int:
    """Renames and returns the number of files that changed."""
    changed = 0
    rules = patterns(old)
    for name in git("ls-files", "--", ".", ":!src/tabrun").splitlines():
        path = ROOT / name
        try:
            text = path.read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        renamed = re.sub("|".join(rules.get(path.suffix, rules[""])), new, text, flags=re.M)
        if renamed != text:
            path.write_text(renamed)
            changed += 1
    (SOURCE / old).rename(SOURCE / new)
    shutil.rmtree(SOURCE / f"{old}.egg-info", ignore_errors=True)
    (ROOT / ".venv" / "installed").unlink(missing_ok=True)  # make installs the package anew, under its new name
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(prog="make rename", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="the new name, a Python identifier")
    new = parser.parse_args().name
    old = next(path.parent.name for path in SOURCE.glob("*/train.py"))
    try:
        check(old, new)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"{old} is now {new} in {rename(old, new)} files: look at git diff, run make test, commit")


if __name__ == "__main__":
    main()
