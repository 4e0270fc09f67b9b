"""Every setting, with any value: a file, `--set` and the setting's option take it alike, or refuse it alike."""

import json
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.commands import Command, CommandResult, refused
from tests.support.training import make_shard
from trainer.settings.run_settings import CoTraining, Settings

OPTIONS = {  # the settings that `mmssl train` has an option for
    "data": "--data", "split": "--split", "modalities": "--modality", "labels": "--labels", "seed": "--seeds",
    "alpha": "--alpha", "beta": "--beta", "label_estimator": "--label-estimator", "epochs": "--epochs",
    "batch_size": "--batch-size", "learning_rate": "--lr", "iterations": "--iterations",
    "memory_limit": "--memory-limit",
}  # fmt: skip
WORDS = ["x", "w", "x,w", "all", "shard", "gumbel", "exact", "cosine", "classifier", "soft", "0..2", "1GB", "-", "ü"]
ODD = st.one_of(
    st.integers(-2, 10**20), st.floats(width=32), st.booleans(), st.sampled_from(WORDS), st.just(""),
    st.lists(st.sampled_from(["x", "w", "depth"]), max_size=3), st.lists(st.floats(0, 1), max_size=3),
)  # fmt: skip
Plans = Callable[[str, str, Any], list[Any]]  # of a model, a setting and its value: what comes of each way
MODELS = ("ssmvae", "sshmvae-kl", "ct-svm")


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a setting's type, among which are some that are out of its range."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_of(parts[0])
    if origin in (Union, UnionType):
        return st.one_of([values_of(part) for part in parts if part is not type(None)])
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        each = [values_of(part) for part in parts if part is not ...]
        return st.lists(each[0], max_size=3) if ... in parts else st.tuples(*each).map(list)
    if origin is dict:
        return st.dictionaries(st.sampled_from(["q(y|X)", "q(z|X,y)"]), st.just("(X, y)-D5BR, D4"), max_size=1)
    if annotation is CoTraining:
        return st.fixed_dictionaries(
            {}, optional={n: values_of(f.annotation) for n, f in annotation.model_fields.items()}
        )
    plain = {bool: st.booleans(), int: st.integers(-1, 300), float: st.floats(-0.5, 3), str: st.sampled_from(WORDS)}
    return plain[annotation]


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {as_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def as_option(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(as_option, value))
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def outcome(result: CommandResult) -> Any:
    """The planned settings, or None if the command refused in a sentence."""
    if result.code:
        refused(result, result.code)
        assert result.code in (1, 2)
        return None
    return [run["settings"] for run in result.json]


def says_nothing(name: str, value: Any) -> bool:
    """Whether a file may hold it and an option has no use for it: no names, or the beta of a model that has none."""
    return (name == "modalities" and value == []) or (name == "beta" and value == Settings.model_fields[name].default)


@pytest.fixture
def plans(mmssl: Command, tmp_path: Path) -> Plans:
    """What comes of a setting that is given in each of the ways."""
    shard = str(make_shard(tmp_path / "clusters.h5").path)

    def ask(model: str, name: str, value: Any) -> list[Any]:
        Path("mine.toml").write_text(f"{name} = {as_toml(value)}\n")
        ways: list[tuple[str, ...]] = [("--config", "mine.toml"), ("--set", f"{name}={as_toml(value)}")]
        if name in OPTIONS and not says_nothing(name, value):
            ways.append((f"{OPTIONS[name]}={as_option(value)}",))
        data = () if name == "data" else ("--data", shard)
        return [outcome(mmssl("train", model, *data, "--dry-run", *way)) for way in ways]

    return ask


def ask_all(name: str, plans: Plans, draw: Callable[..., Any]) -> None:
    field = Settings.model_fields.get(name)
    value = draw((values_of(field.annotation) if field else st.sampled_from(["1GB", "3kB", "x"])) | ODD)
    first, *others = plans(draw(st.sampled_from(MODELS)), name, value)
    for other in others:
        assert other == first, (name, value)


@pytest.mark.parametrize("name", ["memory_limit", *Settings.model_fields])
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_three_ways_are_one(name: str, plans: Plans, data: st.DataObject) -> None:
    ask_all(name, plans, data.draw)


@pytest.mark.parametrize(("value", "weights"), [([1, 2.5], [1, 2.5]), ("0..2", [0, 1, 2]), (3, [3])])
def test_several_weights_are_several_runs(value: Any, weights: list[float], plans: Plans, mmssl: Command) -> None:
    for name in ("alpha", "beta"):
        for runs in plans("sshmvae-kl", name, value):
            assert [run[name] for run in runs] == weights
    refused(mmssl("train", "ssmvae", "--dry-run", "--data", "clusters.h5", "--set", "alpha=[1, 1]"), 2, "occurs twice")


def test_no_name_is_no_name_of_data(mmssl: Command) -> None:
    for way in (("--data", ""), ("--set", 'data=""')):
        refused(mmssl("train", "ssmvae", "--dry-run", *way), 2, "there is no data set ''")
