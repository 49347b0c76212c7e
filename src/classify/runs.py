"""Runs: the runs and sweeps below a folder, or what differs between two runs.

python -m classify.runs
python -m classify.runs outputs lr=0.1 finished
python -m classify.runs RUN OTHER
"""

from classify import build
from tabrun.verbs.runs import main

if __name__ == "__main__":
    main(build)
