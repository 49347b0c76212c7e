"""Predict: the classes of a table's rows.

python -m classify.predict RUN TABLE -o predictions.csv
"""

from classify import build
from tabrun.verbs.predict import main

if __name__ == "__main__":
    main(build)
