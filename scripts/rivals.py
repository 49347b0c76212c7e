"""What people would pick instead: each is fitted on training rows, stopped early on validation rows where it can be.

A rival is a function (Part, Part, threads) -> (frame -> probabilities (rows, classes)), of pandas frames whose columns
are numbers, with NaN where one is missing, or pandas' categories.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ROUNDS, PATIENCE = 500, 50  # of boosting
Predict = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Part:
    """Rows and their classes, 0 to classes - 1, (rows,)."""

    rows: pd.DataFrame
    labels: np.ndarray


def split_by_kind(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The names of the columns that are numbers, and of those that are categories."""
    numbers = list(rows.select_dtypes("number"))
    return numbers, [name for name in rows if name not in numbers]


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Categories as text, in which a missing one is a value of its own."""
    names = split_by_kind(rows)[1]
    return rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "missing") for name in names})


def prepared(model: Any, train: Part, scaled: bool) -> Predict:
    """The model behind medians for missing numbers with indicators beside them, and one-hot categories."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers, categories = split_by_kind(train.rows)
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    columns = make_column_transformer(
        (make_pipeline(imputer, StandardScaler()) if scaled else imputer, numbers),
        (OneHotEncoder(handle_unknown="ignore"), categories),
    )
    whole = make_pipeline(columns, model).fit(filled(train.rows), train.labels)
    return lambda rows: whole.predict_proba(filled(rows))


def logistic_regression(train: Part, val: Part, threads: int) -> Predict:
    from sklearn.linear_model import LogisticRegression

    return prepared(LogisticRegression(max_iter=2000), train, scaled=True)


def random_forest(train: Part, val: Part, threads: int) -> Predict:
    from sklearn.ensemble import RandomForestClassifier

    return prepared(RandomForestClassifier(ROUNDS, n_jobs=threads, random_state=0), train, scaled=False)


def hist_gradient_boosting(train: Part, val: Part, threads: int) -> Predict:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=ROUNDS, early_stopping=True, n_iter_no_change=PATIENCE, random_state=0
    )
    model.fit(train.rows, train.labels, X_val=val.rows, y_val=val.labels)
    best = int(model.validation_score_.argmax())  # to which it does not go back by itself, as the others do
    model.set_params(max_iter=max(1, best), early_stopping=False).fit(train.rows, train.labels)
    return model.predict_proba


def lightgbm(train: Part, val: Part, threads: int) -> Predict:
    from lightgbm import LGBMClassifier, early_stopping

    model = LGBMClassifier(n_estimators=ROUNDS, n_jobs=threads, random_state=0, verbosity=-1)
    stop = [early_stopping(PATIENCE, verbose=False)]
    model.fit(train.rows, train.labels, eval_set=[(val.rows, val.labels)], callbacks=stop)
    return model.predict_proba


def xgboost(train: Part, val: Part, threads: int) -> Predict:
    from xgboost import XGBClassifier

    options = {"n_estimators": ROUNDS, "early_stopping_rounds": PATIENCE, "enable_categorical": True}
    loss = "mlogloss" if train.labels.max() > 1 else "logloss"
    model = XGBClassifier(**options, eval_metric=loss, n_jobs=threads, random_state=0)
    model.fit(train.rows, train.labels, eval_set=[(val.rows, val.labels)], verbose=False)
    return model.predict_proba


def catboost(train: Part, val: Part, threads: int) -> Predict:
    from catboost import CatBoostClassifier

    categories = split_by_kind(train.rows)[1]
    model = CatBoostClassifier(iterations=ROUNDS, thread_count=threads, random_seed=0, allow_writing_files=False)
    model.set_params(od_type="Iter", od_wait=PATIENCE, cat_features=categories)
    model.fit(filled(train.rows), train.labels, eval_set=(filled(val.rows), val.labels), verbose=False)
    return lambda rows: model.predict_proba(filled(rows))


def catboost_of_folds(train: Part, val: Part, threads: int) -> Predict:
    """The mean of as many as `experiment=strong` has members, each stopped on its own fold of the same rows."""
    from sklearn.model_selection import StratifiedKFold

    rows, labels = pd.concat([train.rows, val.rows]), np.concatenate([train.labels, val.labels])
    folds = StratifiedKFold(min(8, np.bincount(labels).min()), shuffle=True, random_state=0)
    pairs = [[Part(rows.iloc[index], labels[index]) for index in fold] for fold in folds.split(rows, labels)]
    members = [catboost(*pair, threads) for pair in pairs]
    return lambda rows: np.mean([member(rows) for member in members], axis=0)


def pytabkit(name: str, train: Part, val: Part, threads: int) -> Predict:
    """RealMLP or TabM with its own defaults; missing numbers as `prepared` fills them, as these take none."""
    import pytabkit
    from sklearn.impute import SimpleImputer

    numbers, _ = split_by_kind(train.rows)
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    imputer.set_output(transform="pandas").fit(train.rows[numbers])

    def whole(rows: pd.DataFrame) -> pd.DataFrame:
        return filled(rows).drop(columns=numbers).join(imputer.transform(rows[numbers]))

    model = getattr(pytabkit, name)(device="cpu", n_threads=threads, random_state=0)
    model.fit(whole(train.rows), train.labels, whole(val.rows), val.labels)
    return lambda rows: model.predict_proba(whole(rows))


def realmlp(train: Part, val: Part, threads: int) -> Predict:
    return pytabkit("RealMLP_TD_Classifier", train, val, threads)


def tabm(train: Part, val: Part, threads: int) -> Predict:
    return pytabkit("TabM_D_Classifier", train, val, threads)


RIVALS = {
    "CatBoost": (catboost, "catboost"),
    "logistic regression": (logistic_regression, "sklearn"),
    "random forest": (random_forest, "sklearn"),
    "HistGradientBoosting": (hist_gradient_boosting, "sklearn"),
    "LightGBM": (lightgbm, "lightgbm"),
    "XGBoost": (xgboost, "xgboost"),
    "CatBoost, 8 folds": (catboost_of_folds, "catboost"),
    "RealMLP": (realmlp, "pytabkit"),
    "TabM": (tabm, "pytabkit"),
}  # and the package of each


def installed() -> dict[str, Callable[[Part, Part, int], Predict]]:
    return {name: fit for name, (fit, package) in RIVALS.items() if importlib.util.find_spec(package)}
