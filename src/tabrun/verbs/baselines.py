"""Baselines: the majority class, a logistic regression and boosted trees, fitted on a run's own rows and weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from tabrun.tables.data import TabularData

ROUNDS, PATIENCE = 500, 20  # of boosting, which the validation rows stop early
MOST_CODES = 255  # of a category that scikit-learn's trees take as one


def baselines(data: TabularData) -> dict[str, Callable[[Any], np.ndarray]]:
    """Fitted on the run's training rows: by name, a function from rows to probabilities."""
    import numpy as np
    from scipy.sparse import csr_array, hstack
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    assert data.schema
    schema, encoder = data.schema, OneHotEncoder(handle_unknown="ignore")
    means, stds = (np.array([getattr(n, name) for n in schema.numbers]) for name in ("mean", "std"))
    indicators = [i for i, number in enumerate(schema.numbers) if number.indicator]

    def features(rows: Any) -> Any:
        numbers, codes = (part.numpy() for part in rows) if isinstance(rows, tuple) else (rows.numpy(), None)
        known = np.nan_to_num((numbers - means) / np.where(stds, stds, 1.0), nan=0.0, posinf=0.0, neginf=0.0)
        dense = np.hstack([known, np.isnan(numbers[:, indicators])])
        return dense if codes is None else hstack([csr_array(dense), encoder.transform(codes)]).tocsr()

    training, labels, *weights = data.part("train")
    if isinstance(training, tuple):
        encoder.fit(training[1].numpy())
    fitted = {"majority class": DummyClassifier(), "logistic regression": LogisticRegression(max_iter=1000)}
    for model in fitted.values():
        model.fit(features(training), hard(labels), *(weight.numpy() for weight in weights))
    found = {name: partial(probabilities, model, features, schema.num_classes) for name, model in fitted.items()}
    return found | {"gradient boosting": partial(probabilities, boosted(data), joined, schema.num_classes)}


def boosted(data: TabularData) -> Any:
    """scikit-learn's HistGradientBoostingClassifier, which knows missing numbers and categories by itself."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from tabrun.runs.mean import of_fold

    assert data.schema
    table = of_fold(data, 0) if "fold0" in data.index else data  # of an ensemble, all of whose rows train
    (rows, labels, *weights), (others, truth, *shares) = table.part("train"), table.part("val")
    sizes = [len(category.codes) for category in data.schema.categories]
    few = [len(data.schema.numbers) + i for i, size in enumerate(sizes) if size < MOST_CODES]
    stopped: Any = {"max_iter": ROUNDS, "early_stopping": True, "n_iter_no_change": PATIENCE, "random_state": 0}
    own = {"sample_weight": weights[0].numpy()} if weights else {}
    given = own | {"X_val": joined(others), "y_val": hard(truth)}
    given |= {"sample_weight_val": shares[0].numpy()} if shares else {}
    trees = HistGradientBoostingClassifier(**stopped, categorical_features=few)
    trees.fit(joined(rows), hard(labels), **given)
    best = int(trees.validation_score_.argmax())  # which scikit-learn does not go back to
    return trees.set_params(max_iter=max(1, best), early_stopping=False).fit(joined(rows), hard(labels), **own)


def probabilities(model: Any, features: Callable[[Any], Any], num_classes: int, rows: Any) -> np.ndarray:
    """Of the model, (rows, classes), with 0 for a class that it was not fitted on."""
    import numpy as np

    found = np.zeros((len(rows[0]) if isinstance(rows, tuple) else len(rows), num_classes))
    found[:, model.classes_] = model.predict_proba(features(rows))
    return found


def joined(rows: Any) -> np.ndarray:
    """Numbers and codes side by side, (rows, features)."""
    import numpy as np

    return np.hstack([part.numpy() for part in rows]) if isinstance(rows, tuple) else rows.numpy()


def hard(labels: Any) -> np.ndarray:
    """Class indices, of labels that may be probabilities."""
    return (labels if labels.dim() == 1 else labels.argmax(-1)).numpy()
