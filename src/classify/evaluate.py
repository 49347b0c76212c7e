"""Evaluate: measure a finished run's best weights, on its own test rows or on another table.

python -m classify.evaluate RUN
python -m classify.evaluate RUN TABLE --threshold 0.3
"""

from classify import build
from tabrun.verbs.evaluate import main

if __name__ == "__main__":
    main(build)
