"""Ensemble: the runs of a sweep that are best together, as one run.

python -m classify.ensemble SWEEP
"""

from classify import build
from tabrun.verbs.ensemble import main

if __name__ == "__main__":
    main(build)
