"""Rivals: the everyday classifiers that people would use instead, on the same labels, training rows and test examples.

Each is used as its library means it, with its defaults, and nothing is chosen on the test examples. Each predicts from
every single modality alone and from all modalities together (side by side). A warning of scikit-learn that an optimiser
stopped at its limit of iterations is not shown: the limit is part of the default.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

from pipeline.runtime.errors import TrainingError
from trainer.baselines.consistency_network import BATCH, EPOCHS, HIDDEN, LEAST_STEPS, consistency_network
from trainer.baselines.rival_task import LEAST_PROBABILITY, LogQ, Size, Subset, Task, joined, log_of, singles_and_all
from trainer.data.selection import Rows
from trainer.evaluation.metrics import Score, score
from trainer.evaluation.probe import logits_of

NEIGHBOURS = 7  # of the graph of label spreading
ITERATIONS = 2000  # at most, of the optimiser of logistic regression

# How many multiplications, about, a fit may take: a second or two, and about ten minutes. A fit's number is estimated
# from the numbers of rows, features and classes alone (`Rival.work`, given all modalities together).
QUICK, PATIENT = 4e9, 4e12
_MATRIX = 0.1  # time of a multiplication in a product of matrices, relative to one in a distance between two rows
_PASSES = 400  # of logistic regression over its rows, forwards and backwards
_MLP_PASSES, _MLP_WIDTH = 600, 100
_ROUNDS = 10  # of self-training
_DUEL = 3e5  # of a support vector machine of two classes: it has one for each pair, whatever their rows


@dataclass(frozen=True)
class Rival:
    """A classifier that people would use instead of ours.

    Attributes:
        name: its name on the command line.
        title: its name in tables.
        predict: the test examples' log-probabilities by given modalities; None if it is trained as a run.
        work: about how many multiplications a fit takes.
        completion: what stands in for missing modalities (`trainer.evaluation.metrics.COMPLETION_TITLES`).
        model: the model of the run, if it is trained as one.
    """

    name: str
    title: str
    predict: Callable[[Task], dict[Subset, LogQ]] | None
    work: Callable[[Size], float]
    completion: str = "views"
    model: str | None = None


@dataclass(frozen=True)
class RivalScores:
    """The scores of a rival, one for each modality alone and one for all, and the seconds it took."""

    scores: tuple[Score, ...]
    seconds: float


def measure(rival: Rival, task: Task) -> RivalScores:
    """Fits a rival and scores it on the test examples.

    Raises:
        TrainingError: it cannot be fitted to these features, or a prediction is not a number.
    """
    assert rival.predict is not None, f"{rival.name} is trained as a run"
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # of an overflow, after which the library refuses the values
        try:
            predictions = rival.predict(task)
        except ValueError as error:
            raise TrainingError(f"{rival.title} cannot be fitted: {str(error).splitlines()[0]}") from error
    seconds = time.perf_counter() - begun
    return RivalScores(
        tuple(
            score(
                "+".join(given),
                rival.completion if given != task.everything else "none",
                log_q[task.counted(given)],
                task.test_labels[task.counted(given)],
            )
            for given, log_q in predictions.items()
            if task.counted(given).any()
        ),
        seconds,
    )


def reason_to_leave_out(rival: Rival, size: Size, most: float) -> str | None:
    """Why a rival is left out, as the end of a sentence; None if it is not.

    Args:
        most: the number of multiplications that it may take, such as `QUICK` or `PATIENT`.
    """
    if rival.model is not None and size.modalities < 2:
        return "it needs two modalities that label examples for each other"
    if rival.model is not None and size.incomplete:
        return f"it needs every modality in every row, and {size.incomplete:,} rows lack one"
    if not size.test:
        return "the data has no test part"
    if not size.labelled:
        return "no training row has a label"
    if rival.work(size) > most:
        patience = "a second or two" if most <= QUICK else "about ten minutes"
        return (
            f"{size.rows:,} training rows of {size.width:,} features in {size.classes:,} classes, {size.labelled:,} of "
            f"them labelled, would take it longer than {patience}"
        )
    return None


def logistic_regression_on(x: NDArray[np.float32], labels: Rows) -> Any:
    """Logistic regression on standardised features `[N, D]` and labels `[N]`."""
    return _logistic_regression().fit(x, labels)


def _logistic_regression() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))


def _by_subset(task: Task, fit: Callable[[NDArray[np.float32]], Any], rows: Rows | None = None) -> dict[Subset, LogQ]:
    """The log-probabilities of one classifier per subset, fitted on the training rows, or on some of them."""
    predictions = {}
    for given in singles_and_all(task.modalities):
        train = joined(task.train, given)
        classifier = fit(train if rows is None else train[rows])
        with np.errstate(divide="ignore", invalid="ignore"):  # label spreading divides 0 by 0 far from all rows
            probabilities = classifier.predict_proba(joined(task.test, given))
        mass = np.nan_to_num(probabilities).sum(1, keepdims=True)
        predictions[given] = log_of(np.where(mass > 0, probabilities, 1 / task.classes))
    return predictions


def _predict_by_logistic_regression(task: Task) -> dict[Subset, LogQ]:
    labels = task.labels[task.labelled]
    return _by_subset(task, lambda x: logistic_regression_on(x, labels), task.labelled)


def _predict_by_mlp(task: Task) -> dict[Subset, LogQ]:
    labels = task.labels[task.labelled]

    def fit(x: NDArray[np.float32]) -> Any:
        return make_pipeline(StandardScaler(), MLPClassifier(random_state=task.seed)).fit(x, labels)

    return _by_subset(task, fit, task.labelled)


def _predict_by_self_training(task: Task) -> dict[Subset, LogQ]:
    def fit(x: NDArray[np.float32]) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="y contains no unlabeled samples")
            return SelfTrainingClassifier(_logistic_regression()).fit(x, task.labels)

    return _by_subset(task, fit)


def _label_spreading(task: Task) -> Any:
    return LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(task.labels)))


def _spread(x: NDArray[np.float32], task: Task) -> Any:
    """Label spreading, fitted on rows `[N, D]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _label_spreading(task).fit(x, task.labels)


def _predict_by_label_spreading(task: Task) -> dict[Subset, LogQ]:
    """A test example whose neighbours have no label at all gets equal probabilities."""
    return _by_subset(task, lambda x: _spread(x, task))


def _predict_by_ls_svc(task: Task) -> dict[Subset, LogQ]:
    """Label spreading over all modalities labels every training row; a support vector machine per subset learns these.

    SVC() has no probabilities: q(y|x) is the softmax of its decision values, which ranks classes as they do and is not
    calibrated. Of two classes it has only the second one's decision value, and the first one's is 0.
    """
    taught = _spread(joined(task.train, task.everything), task).transduction_.astype(np.int64)
    present = np.unique(taught)
    predictions = {}
    for given in singles_and_all(task.modalities):
        test = joined(task.test, given)
        log_q = np.full((len(test), task.classes), np.log(LEAST_PROBABILITY), np.float32)
        if len(present) == 1:
            log_q[:, present] = 0.0
        else:
            machine = SVC().fit(joined(task.train, given), taught)
            logits = torch.from_numpy(logits_of(machine.decision_function(test)))
            log_q[:, present] = np.maximum(logits.log_softmax(-1).numpy(), np.log(LEAST_PROBABILITY))
        predictions[given] = log_q
    return predictions


def _pairs(size: Size) -> float:
    """Every training row is compared with every row."""
    return float(size.rows * (size.rows + size.test) * size.width)


def _pairs_and_duels(size: Size) -> float:
    return _pairs(size) + _DUEL * (size.modalities + 1) * size.classes * (size.classes - 1) / 2


RIVALS = (
    Rival(
        "logistic-regression",
        "logistic regression",
        _predict_by_logistic_regression,
        lambda size: _MATRIX * _PASSES * size.labelled * size.width * size.classes,
    ),
    Rival("ls-svc", "LS+SVC", _predict_by_ls_svc, _pairs_and_duels),
    Rival("label-spreading", "label spreading", _predict_by_label_spreading, _pairs),
    Rival("mlp", "MLP", _predict_by_mlp, lambda size: _MATRIX * _MLP_PASSES * size.labelled * size.width * _MLP_WIDTH),
    Rival(
        "self-training",
        "self-training",
        _predict_by_self_training,
        lambda size: _MATRIX * _ROUNDS * _PASSES * size.rows * size.width * size.classes,
    ),
    Rival("co-training", "CT+SVM", None, lambda _: 0.0, model="ct-svm"),
    Rival(
        "consistency-mlp",
        "consistency MLP",
        consistency_network,
        lambda size: _MATRIX * 7 * max(EPOCHS * size.rows, LEAST_STEPS * BATCH) * (size.width + HIDDEN) * HIDDEN,
        completion="zeros",
    ),
)
REFERENCES = ("logistic-regression", "ls-svc")  # the rivals that every table of results shows


def rival_names() -> list[str]:
    """The names of all rivals, in the order of tables."""
    return [rival.name for rival in RIVALS]


def rival_named(name: str) -> Rival:
    """The rival of that name.

    Raises:
        KeyError: there is none.
    """
    return {rival.name: rival for rival in RIVALS}[name]
