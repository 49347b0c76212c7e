"""Test accuracy of the shipped defaults beside scikit-learn's LogisticRegression, on the same split.

python scripts/baseline.py
"""

import tempfile

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify import build
from tabrun.runs.build import conf, set_up
from tabrun.training.train import train

TABLES = ("breast_cancer", "wine", "digits")


def accuracies(table: str) -> tuple[float, float]:
    """Test accuracy of (a default run, logistic regression)."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose("config", [f"data={table}", f"folder={folder}", "mode=min"])
        config = OmegaConf.to_container(cfg, resolve=True)
        ours = train(build, config)["test/accuracy"]
        data = set_up(build, config)
    rows, labels, index = data.rows.numpy(), data.labels.numpy(), data.index
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(rows[index["train"]], labels[index["train"]])
    return ours, regression.score(rows[index["test"]], labels[index["test"]])


if __name__ == "__main__":
    print("| table | default run | LogisticRegression |\n|---|---|---|")
    with initialize_config_dir(str(conf(build)), version_base="1.3"):
        for table in TABLES:
            print("| {} | {:.4f} | {:.4f} |".format(table, *accuracies(table)))
