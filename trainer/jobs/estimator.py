"""`mmssl.Classifier`: training and prediction on one's own vectors, as one of scikit-learn's estimators."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import UsageError
from pipeline.shards.schema import Distribution, Features
from pipeline.shards.writing import PartData, write_shard
from trainer.inference.bundle_reading import read_bundle
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.inputs import Inputs, Present
from trainer.inference.loaded_model import of_bundle
from trainer.jobs.own_arrays import (
    ONE,
    Columns,
    InputError,
    as_numbers,
    class_names,
    divided,
    fingerprint,
    lacking,
    prepared,
    read_labels,
)
from trainer.jobs.plan import plan
from trainer.jobs.train import train_all
from trainer.settings.run_settings import Settings
from trainer.training.progress import Silent

LEAST_ROWS = 4  # of a training set: batches of two, and one to compare


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that learns from few labels and many unlabelled rows, and takes rows with modalities missing.

    `X` maps each modality to an array `[N, D]`, in which a row of NaN is missing (or the whole array is None, in
    `predict`). One array alone is one modality; with `columns` it is several side by side, which is what
    scikit-learn's `GridSearchCV` and `cross_val_score` can divide.
    `y` holds a label per row; -1, None, NaN or an empty text stands for "unlabelled".

    Args:
        model: the model's name.
        preset: settings to start from; None for the recommended ones.
        seed: decides the initial weights, the batches and the noise.
        device: auto, cpu or cuda.
        epochs: None for the preset's.
        columns: by modality, its first column in the array and the one behind its last.
        distributions: by modality, bernoulli, nonnegative or gaussian; others are chosen by their values.
        workspace: a folder to keep the shards and the runs in, which any number of fits may share; None to keep none.
        settings: any other setting by name (docs/reference/settings.md).

    Attributes:
        classes_: the labels, sorted, `[K]`.
        model_: the trained model, an `mmssl.LoadedModel`.
        n_features_in_: the number of columns, if one array was given.
    """

    def __init__(
        self,
        model: str = "sshmvae-kl",
        *,
        preset: str | None = None,
        seed: int = 0,
        device: str = "auto",
        epochs: int | None = None,
        columns: Columns | None = None,
        distributions: Mapping[str, Distribution] | None = None,
        workspace: Path | str | None = None,
        **settings: Any,
    ) -> None:
        self.model = model
        self.preset = preset
        self.seed = seed
        self.device = device
        self.epochs = epochs
        self.columns = columns
        self.distributions = distributions
        self.workspace = workspace
        for name, value in settings.items():  # `fit` checks them, as scikit-learn wants it
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, with those settings that were given."""
        parameters: dict[str, Any] = super().get_params(deep)
        return parameters | self._extra()

    def set_params(self, **params: Any) -> Self:
        """Sets parameters and settings; `fit` says if there is no such setting."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on the rows, labelled or not.

        Raises:
            InputError: rows or labels cannot be used; a class has no label.
            UsageError: a setting is unknown or invalid.
            TrainingError: training cannot continue.
        """
        x, present = self._arrays(X, y, reset=True)
        rows = len(next(iter(x.values())))
        self.classes_, labels = read_labels(y, rows)
        modalities, scaling, values = prepared(x, present, self.distributions or {})
        names, label_type = class_names(self.classes_)
        with tempfile.TemporaryDirectory(prefix="mmssl-") as temporary:
            folder = Path(temporary if self.workspace is None else self.workspace)
            shard = write_shard(
                folder / "shards" / f"classifier-{fingerprint(x, self.classes_, labels, modalities)}.h5",
                dataset="classifier",
                classes=names,
                modalities=modalities,
                train=PartData(values, labels, [f"row-{row}" for row in range(rows)], present=lacking(present)),
                scaling=scaling,
            )
            device = choose_device(self.device)
            (job,) = plan(self.model, [shard], preset=self.preset, values=self._settings(), seeds=(self.seed,))
            (run,) = train_all([job], [folder / "runs" / job.settings.name()], device, Silent())
            bundle = gather([run], shard=shard, label_type=label_type, device=device)
        self.model_ = of_bundle(bundle, device)
        return self

    def predict_proba(self, X: Any, present: Present = None) -> NDArray[np.float64]:
        """The probability of each class, `[N, K]`.

        Raises:
            InputError: rows cannot be used.
        """
        found = self._ask(X, present).astype(np.float64)
        sums: NDArray[np.float64] = found.sum(-1, keepdims=True)
        probabilities: NDArray[np.float64] = found / sums
        return probabilities

    def predict(self, X: Any, present: Present = None) -> NDArray[Any]:
        """The most probable class, `[N]`."""
        check_is_fitted(self)
        best: NDArray[Any] = self.classes_[self._ask(X, present).argmax(-1)]
        return best

    def save(self, folder: Path | str) -> None:
        """Writes the trained model as a bundle, which `load`, `mmssl.load` and `mmssl predict` open.

        Raises:
            DataError: the folder holds something else.
        """
        check_is_fitted(self)
        write_bundle(self.model_.bundle, Path(folder))

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> Self:
        """A trained classifier from a bundle; its settings are the model's, for `fit` to be called again.

        Only the labels are not: `fit` takes all that `y` has. A bundle of several seeds gives the first one. A bundle
        does not know `columns`: set it to fit one array.

        Raises:
            DataError: the folder holds no bundle, or one that was changed or is newer.
        """
        chosen = choose_device(device)
        loaded = of_bundle(read_bundle(Path(folder)), chosen)
        settings = loaded.predictor.network.settings
        others = {name: getattr(settings, name) for name in sorted(_SETTINGS - _OF_ROWS)}
        estimator = cls(
            settings.model,
            seed=settings.seed,
            device=device,
            epochs=settings.epochs,
            distributions={m.name: m.distribution for m in loaded.modalities},
            **others,
        )
        estimator.classes_, estimator.model_ = loaded.classes_, loaded
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.columns is not None
        tags.non_deterministic = False
        return tags

    def _extra(self) -> dict[str, Any]:
        """What was given beyond the parameters that have a name of their own."""
        parameters = BaseEstimator.get_params(self, deep=False)
        return {name: value for name, value in vars(self).items() if name not in parameters and not _is_fitted(name)}

    def _settings(self) -> dict[str, Any]:
        """The settings to train with: all labels that there are, unless other settings say otherwise."""
        chosen = self._extra()
        _check_known(chosen.keys())
        epochs = {} if self.epochs is None else {"epochs": self.epochs}
        return {"labels": "all"} | epochs | chosen

    def _ask(self, X: Any, present: Present) -> NDArray[np.float32]:
        check_is_fitted(self)
        if _is_mapping(X):
            self._check_columns(X, reset=False)
        inputs: Inputs = X if _is_mapping(X) else self._arrays(X, None, reset=False)[0]
        try:
            return self.model_.predict_proba(inputs, present)
        except UsageError as error:
            raise InputError(error.message, error.hint) from None

    def _check_columns(self, X: Mapping[str, Any], reset: bool) -> None:
        """Keeps the names of the columns of data frames, or checks that they come in the same order again."""
        names = {str(name): [str(c) for c in frame.columns] for name, frame in X.items() if hasattr(frame, "columns")}
        if reset:
            self._columns_of = names
        for name, columns in names.items() if not reset else ():
            known = getattr(self, "_columns_of", {}).get(name, columns)
            if columns != known:
                place = next((k for k, pair in enumerate(zip(columns, known, strict=False)) if pair[0] != pair[1]), 0)
                raise InputError(
                    f"the columns of {name} are not those of fit, in their order: column {place} is {columns[place]!r}",
                    f"give X['{name}'][the columns of fit]",
                )

    def _arrays(self, X: Any, y: Any, reset: bool) -> tuple[dict[str, Features], dict[str, NDArray[np.bool_]]]:
        """The arrays by modality, and which rows have them."""
        if _is_mapping(X):
            self._check_columns(X, reset)
            x = {str(name): as_numbers(str(name), values) for name, values in X.items() if values is not None}
        else:
            finite: bool | str = True if self.columns is None else "allow-nan"
            target = "no_validation" if y is None else y
            if reset and y is None:
                raise InputError("requires y to be passed, but the target y is None")
            checked = validate_data(
                self, X, target if isinstance(target, str) else "no_validation", reset=reset, ensure_all_finite=finite,
                ensure_min_samples=LEAST_ROWS if reset else 1,
            )  # fmt: skip
            x = divided(as_numbers(ONE, checked), self.columns)
        if not x:
            raise InputError(
                "X holds no modality", "give a mapping from modality to array, such as {'x': ..., 'w': ...}"
            )
        if len({len(values) for values in x.values()}) > 1:
            raise InputError("the modalities have different numbers of rows")
        present = {name: np.asarray(~np.isnan(values).all(1), np.bool_) for name, values in x.items()}
        for name, values in x.items():
            wrong = np.flatnonzero(present[name] & ~np.isfinite(values).all(1))
            if wrong.size:
                raise InputError(
                    f"Input X contains NaN or infinity: row {wrong[0]} of {name}",
                    "a missing modality is NaN throughout",
                )
        nothing = np.flatnonzero(~np.logical_or.reduce(list(present.values())))
        if nothing.size:
            raise InputError(f"row {nothing[0]} has no modality at all", "leave it out")
        return x, present


_OWN = frozenset(("model", "seed", "epochs", "data", "digest", "split", "modalities"))
_SETTINGS = frozenset(Settings.model_fields) - _OWN
_OF_ROWS = frozenset(("labels", "answers", "held_out"))  # settings about the rows of one data set


def _check_known(names: Iterable[str]) -> None:
    for name in sorted(names):
        if name not in _SETTINGS:
            raise UsageError(f"Classifier has no parameter '{name}'", f"settings: {', '.join(sorted(_SETTINGS))}")


def _is_fitted(name: str) -> bool:
    """Whether an attribute is one that `fit` sets."""
    return name.endswith("_") or name.startswith("_")


def _is_mapping(X: object) -> bool:
    """Whether X maps modalities to arrays; one of SciPy's sparse matrices is a dictionary too."""
    return isinstance(X, Mapping) and not issparse(X)
