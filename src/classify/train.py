"""Train: one run, or with -m a sweep.

python -m classify.train data=wine optimizer.lr=0.01
python -m classify.train -m optimizer.lr=0.001,0.01,0.1
"""

from classify import build
from tabrun.cli.application import application

main = application(build)

if __name__ == "__main__":
    main()
