"""What evaluate sets beside a run: simple models, each as scikit-learn fits it by itself."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import configure
from handed import ensemble_of, open_run, train
from sklearn import metrics as sklearn_metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabrun.verbs import evaluate


def test_the_logistic_baseline_is_the_usual_pipeline(tmp_path: Path) -> None:
    train(configure(tmp_path / "run", "data=wine", "trainer.max_epochs=1"))
    run = open_run(tmp_path / "run")
    result, data = evaluate.evaluate(run, None, None, False), run.data()
    rows, labels = data.rows.numpy(), data.labels.numpy()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(rows[data.index["train"]], labels[data.index["train"]])
    tested = data.index["test"]
    probabilities = pipeline.predict_proba(rows[tested])
    found = result["measures"]["logistic regression"]
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels[tested], probabilities), abs=1e-4)
    one_hot = np.eye(3)[labels[tested]]
    assert found["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(one_hot, probabilities), abs=1e-6
    )


@pytest.mark.parametrize("more", [[], ["ensemble.folds=3"], ["data.weight=w"]])
def test_boosting_is_stopped_on_rows_that_it_does_not_learn_from(more: list[str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, plan = random.normal(size=300), random.choice(["a", "b", "c"], 300)
    yes = random.random(300) < 1 / (1 + np.exp(-2 * x - 2.0 * (plan == "a")))
    x[random.random(300) < 0.1] = np.nan
    frame = {"x": x, "plan": plan, "w": random.integers(1, 4, 300), "y": np.where(yes, "yes", "no")}
    pl.DataFrame(frame, nan_to_null=True).write_csv(tmp_path / "table.csv")
    words = ["data=csv", f"data.path={tmp_path / 'table.csv'}", "data.target=y", "trainer.max_epochs=1", *more]
    (ensemble_of if "ensemble.folds=3" in more else train)(configure(tmp_path / "run", *words))
    run = open_run(tmp_path / "run")
    data, weighted = run.data(), "data.weight=w" in more
    rows = np.hstack([part.numpy() for part in data.rows]) if isinstance(data.rows, tuple) else data.rows.numpy()
    val, test = (data.index[part].numpy() for part in ("fold0" if "fold0" in data.index else "val", "test"))
    training, labels = np.setdiff1d(data.index["train"].numpy(), val), data.labels.numpy()
    shares = frame["w"].astype(float)
    given = {"sample_weight": shares[training], "sample_weight_val": shares[val]} if weighted else {}
    trees = HistGradientBoostingClassifier(
        max_iter=500,
        early_stopping=True,
        n_iter_no_change=20,
        random_state=0,
        categorical_features=[rows.shape[1] - 1],
    ).fit(rows[training], labels[training], X_val=rows[val], y_val=labels[val], **given)
    tested = {"sample_weight": shares[test]} if weighted else {}
    shown = {"sample_weight": shares[val]} if weighted else {}
    losses = [sklearn_metrics.log_loss(labels[val], each, **shown) for each in trees.staged_predict_proba(rows[val])]
    best = [*trees.staged_predict_proba(rows[test])][int(np.argmin(losses))]  # of the rounds
    expected = sklearn_metrics.log_loss(labels[test], best, **tested)
    found = evaluate.evaluate(run, None, None, False)["measures"]["gradient boosting"]
    assert found["log_loss"] == pytest.approx(expected, abs=1e-6)
