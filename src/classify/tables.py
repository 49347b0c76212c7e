"""Tables: functions (path, options) -> polars frame, one for each place that rows can come from."""

import numpy as np
import polars as pl


def from_sklearn(path: str, target: str) -> pl.DataFrame:
    """One of the tables inside scikit-learn: breast_cancer, iris, wine or digits; the target column holds names."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{path}")()
    frame = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
    return frame.with_columns(pl.Series(target, [str(bunch.target_names[label]) for label in bunch.target]))


def moons(path: str, target: str, num_rows: int, noise: float, seed: int) -> pl.DataFrame:
    """Two interleaving half circles in the plane: no straight line separates them."""
    from sklearn.datasets import make_moons

    rows, labels = make_moons(num_rows, noise=noise, random_state=seed)
    return pl.DataFrame(rows, schema=["x", "y"]).with_columns(pl.Series(target, np.array(["upper", "lower"])[labels]))


def clusters(path: str, target: str, num_rows: int, num_features: int, num_classes: int, seed: int) -> pl.DataFrame:
    """Gaussian clusters at the corners of a cube: any number of features and classes."""
    from sklearn.datasets import make_classification

    rows, labels = make_classification(
        num_rows, num_features, n_informative=num_features // 2, n_classes=num_classes, random_state=seed
    )
    frame = pl.DataFrame(rows, schema=[f"x{i}" for i in range(num_features)])
    return frame.with_columns(pl.Series(target, labels))
