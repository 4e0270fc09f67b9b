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

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
    model: LoadedModel = _import_ours("trainer.inference.loaded_model").open_model(
        Path(folder),
        device,
        lambda path, device: _import_ours(_ENCODER).Encoder.open(path, device),
        lambda shard, modality: _import_ours(_ENCODER).locate(shard, modality),
    )
    return model


def main() -> NoReturn:
    """The `mmssl` command. It is loaded by its place: others have a module named `cli` too."""
    spec = spec_from_file_location("cli", Path(__file__).with_name("cli.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["cli"] = cli = module_from_spec(spec)
    spec.loader.exec_module(cli)
    cli.main()
    raise SystemExit


def _import_ours(module: str) -> Any:
    """Imports one of our modules, by its full name.

    Raises:
        ImportError: another package of that name comes before ours on the path.
    """
    package = module.split(".")[0]
    spec = find_spec(package)
    origin = Path(spec.origin).resolve().parent if spec is not None and spec.origin is not None else None
    ours = Path(__file__).resolve().parent / package
    if origin != ours:
        raise ImportError(
            f"mmssl's package '{package}' ({ours}) is hidden by another of that name ({origin}): put {ours.parent} "
            "first on PYTHONPATH, or rename the other"
        )
    return import_module(module)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"mmssl has no public name '{name}'; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(_import_ours(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
