"""The Python interface of mmssl: write and open shards, train and evaluate models.

    import mmssl

    mmssl.write_shard("mine.h5", dataset="mine", classes=["cup", "bowl"], modalities=[...], train=..., test=...)
    (run,) = mmssl.train("sshmvae-kl", "mine.h5", labels=40)
    for score in mmssl.evaluate(run).scores:
        print(score.given, score.accuracy)

Names are imported when they are first used, so `import mmssl` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runtime.errors import MmsslError
    from pipeline.shards.schema import Modality
    from pipeline.shards.shard import Shard
    from pipeline.shards.writing import PartData, write_shard
    from trainer.evaluation.metrics import Evaluation, Score
    from trainer.jobs.api import evaluate, train
    from trainer.training.run_folder import Run

_MODULES = {
    "Evaluation": "trainer.evaluation.metrics",
    "MmsslError": "pipeline.runtime.errors",
    "Modality": "pipeline.shards.schema",
    "PartData": "pipeline.shards.writing",
    "Run": "trainer.training.run_folder",
    "Score": "trainer.evaluation.metrics",
    "Shard": "pipeline.shards.shard",
    "evaluate": "trainer.jobs.api",
    "train": "trainer.jobs.api",
    "write_shard": "pipeline.shards.writing",
}
__all__ = [
    "Evaluation", "MmsslError", "Modality", "PartData", "Run", "Score", "Shard", "evaluate", "train", "write_shard",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"mmssl has no public name '{name}'; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
