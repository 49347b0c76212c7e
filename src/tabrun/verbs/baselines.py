"""Baselines: the majority class and a logistic regression, fitted on a run's own training rows and their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from tabrun.tables.data import TabularData


def baselines(data: TabularData) -> dict[str, Any]:
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

    def probabilities(model: Any, rows: Any) -> np.ndarray:
        found = np.zeros((len(rows[0]) if isinstance(rows, tuple) else len(rows), schema.num_classes))
        found[:, model.classes_] = model.predict_proba(features(rows))
        return found

    return {name: lambda rows, model=model: probabilities(model, rows) for name, model in fitted.items()}


def hard(labels: Any) -> np.ndarray:
    """Class indices, of labels that may be probabilities."""
    return (labels if labels.dim() == 1 else labels.argmax(-1)).numpy()
