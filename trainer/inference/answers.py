"""What the model of a finished run says of some test examples, for every subset of modalities."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainer.data.interface import Data
from trainer.evaluation.evaluate import evaluating, predictions, ways_to_classify
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.training.precision import precision

# Log-probabilities `[N, K]` by given modalities, `x+w`, and by completion (`Model.completions`, in that order), which
# is `none` where no modality is missing.
Answers = Mapping[str, Mapping[str, NDArray[np.float32]]]


def answers(loaded: LoadedRun, rows: NDArray[np.int64]) -> Answers:
    """The run's predictions for N test examples with every completion that its evaluation has scores of.

    Iterative sampling draws for these examples alone: it is fast where they are few, and its answers are those of the
    evaluation but for chance.

    Args:
        rows: of the test examples whose class is known, as `TrainedModel.predictions` has them.

    Raises:
        UsageError: the model has no latent variable, and with it none of these completions.
    """
    trained, settings = loaded.generative, loaded.run.settings
    (examples,) = loaded.data.examples
    chosen = replace(examples, test=examples.test[rows])
    data: Data = replace(cast(Any, loaded.data), examples=(chosen,))  # every `Data` is a dataclass
    modalities = [modality.name for modality in data.modalities]
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    with precision(settings, data.label.device), evaluating(trained.model, trained.noise):
        for given, completion in ways_to_classify(
            cast(Model, trained.model), modalities, iterative=settings.objective == "bound"
        ):
            ((log_q, _),) = predictions(
                trained.model,
                trained.noise,
                data,
                given,
                completion,
                iterations=settings.iterations,
                samples=settings.samples,
            )
            found.setdefault("+".join(given), {})[completion] = log_q
    return found
