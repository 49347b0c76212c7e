"""Export: a finished run as one file that needs none of this code.

python -m classify.export RUN                    # model.onnx: named raw columns in, probabilities out
python -m classify.export RUN --format torch     # model.pt2: a torch.export program of the schema's rows
"""

from classify import build
from tabrun.verbs.export import main

if __name__ == "__main__":
    main(build)
