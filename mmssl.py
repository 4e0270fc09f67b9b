"""The Python interface of mmssl: write and open shards, train and evaluate models, predict.

    import mmssl

    mmssl.load("model").predict_proba({"rgb": ["a.png", "b.png"], "depth": None})
    mmssl.Classifier().fit({"x": x, "w": w}, y).predict({"x": x, "w": None})

    mmssl.write_shard("mine.h5", dataset="mine", classes=["cup", "bowl"], modalities=[...], train=..., test=...)
    (run,) = mmssl.train("sshmvae-kl", "mine.h5", labels=40)
    for score in mmssl.evaluate(run).scores:
        print(score.given, score.accuracy)

Names are imported when they are first used, so `import mmssl` costs nothing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runtime.errors import MmsslError
    from pipeline.shards.schema import Modality
    from pipeline.shards.shard import Shard
    from pipeline.shards.writing import PartData, write_shard
    from trainer.evaluation.metrics import Evaluation, Score
    from trainer.inference.loaded_model import LoadedModel
    from trainer.inference.predictions import Predictions
    from trainer.jobs.api import evaluate, train
    from trainer.jobs.estimator import Classifier
    from trainer.training.run_folder import Run

_ENCODER = "pipeline.features.encoder"
_MODULES = {
    "Classifier": "trainer.jobs.estimator",
    "Evaluation": "trainer.evaluation.metrics",
    "LoadedModel": "trainer.inference.loaded_model",
    "MmsslError": "pipeline.runtime.errors",
    "Modality": "pipeline.shards.schema",
    "PartData": "pipeline.shards.writing",
    "Predictions": "trainer.inference.predictions",
    "Run": "trainer.training.run_folder",
    "Score": "trainer.evaluation.metrics",
    "Shard": "pipeline.shards.shard",
    "evaluate": "trainer.jobs.api",
    "train": "trainer.jobs.api",
    "write_shard": "pipeline.shards.writing",
}
__all__ = [
    "Classifier", "Evaluation", "LoadedModel", "MmsslError", "Modality", "PartData", "Predictions", "Run", "Score",
    "Shard", "evaluate", "load", "train", "write_shard",
]  # fmt: skip


def load(folder: Path | str, *, device: str = "auto") -> "LoadedModel":
    """Opens a bundle, or a finished run, to predict with.

    Raises:
        MmsslError: the folder holds neither, or one that is damaged or newer than this program.
    """
    from trainer.inference.loaded_model import open_model

    return open_model(
        Path(folder),
        device,
        lambda path: import_module(_ENCODER).Encoder.open(path),
        lambda shard, modality: import_module(_ENCODER).locate(shard, modality),
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"mmssl has no public name '{name}'; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
