"""The reference pages of the command line and of the settings, from the objects themselves.

python -m scripts.reference [--check]
"""

import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer import Typer
from typer.models import ArgumentInfo, OptionInfo

from scripts.committed import write_or_check

CLI, SETTINGS = "docs/reference/cli.md", "docs/reference/settings.md"
MADE = "<!-- Made by python -m scripts.reference: edit the source, not this page. -->"
PANELS = ("Arguments", "Data", "Model", "Objective", "Schedule", "Compute", "Output")  # any other comes after these
_PRESET_GIVES = ("labels", "epochs", "batch_size", "learning_rate", "networks", "k_best")
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def main() -> int:
    return write_or_check(pages(), "scripts.reference")


def pages() -> dict[str, str]:
    """Both pages, by their names."""
    return {CLI: cli_page(), SETTINGS: settings_page()}


# --- the command line


def cli_page() -> str:
    """Every command with its arguments and options."""
    import cli

    parts = [
        MADE,
        "# The command line",
        "Every command takes `--help`. `mmssl --version` prints the version. Exit codes: 0 done, 1 failed, "
        "2 wrong usage, 75 interrupted and resumable.",
    ]
    commands = sorted(_commands(cli.app, "mmssl"), key=lambda command: command[0])
    parts.append("\n".join(f"- [`{name}`](#{_anchor(name)}): {_first(words)}" for name, words, _ in commands))
    for name, words, parameters in commands:
        parts += [f"## {name}", words, *_parameters(parameters)]
    return "\n\n".join(parts) + "\n"


def _commands(app: Typer, path: str) -> Iterator[tuple[str, str, Mapping[str, inspect.Parameter]]]:
    for command in app.registered_commands:
        function = command.callback
        assert function is not None
        name = command.name or function.__name__.replace("_", "-")
        signature = inspect.signature(function, eval_str=True)
        yield f"{path} {name}", inspect.cleandoc(command.help or function.__doc__ or ""), signature.parameters
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, f"{path} {group.name}")


def _parameters(parameters: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    """A table per panel."""
    rows: dict[str, list[Sequence[str]]] = {panel: [] for panel in PANELS}
    for name, parameter in parameters.items():
        kind, info = _split(parameter.annotation)
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            several = "..." if get_origin(_without_none(kind)) is list else ""
            flag, panel = f"`{name.upper()}`{several}", "Arguments"
        else:
            assert isinstance(info, OptionInfo), name
            flag, panel = _flags(name, kind, info), info.rich_help_panel or "Output"
        default = "required" if required else _default(info, parameter.default)
        rows.setdefault(str(panel), []).append((flag, _words_of(kind, info), default, _help(info)))
    for panel, panel_rows in rows.items():
        if panel_rows:
            yield f"**{panel}**\n\n" + _table(("", "value", "default", ""), panel_rows)


def _split(annotation: Any) -> tuple[Any, Any]:
    assert get_origin(annotation) is Annotated, annotation
    kind, *rest = get_args(annotation)
    return kind, rest[-1]


def _flags(name: str, kind: Any, info: OptionInfo) -> str:
    """The names of an option; typer keeps the first one that an annotation declares where a default would be."""
    first = (info.default,) if isinstance(info.default, str) else ()
    declared = [*first, *(info.param_decls or ())]
    if not declared:
        flag = f"--{name.replace('_', '-')}"
        declared = [flag, f"--no-{flag[2:]}"] if kind is bool else [flag]
    return ", ".join(f"`{word}`" for text in declared for word in text.split("/"))


def _words_of(kind: Any, info: OptionInfo | ArgumentInfo) -> str:
    kind = _without_none(kind)
    if get_origin(kind) is list:
        return _words_of(get_args(kind)[0], info)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    words = {bool: "", int: "integer", float: "number", str: "text", Path: "path"}[kind]
    return f"{words} >= {info.min:g}" if info.min is not None else words


def _default(info: OptionInfo | ArgumentInfo, value: Any) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    if value is None or value is False:
        return ""
    if value is True:
        return "on"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _help(info: OptionInfo | ArgumentInfo) -> str:
    variable = f" Environment: `{info.envvar}`." if info.envvar else ""
    return f"{info.help or ''}{variable}"


def _first(words: str) -> str:
    return words.split("\n\n")[0].replace("\n", " ")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


# --- the settings


def settings_page() -> str:
    """Every setting with its type, default and bounds, and what the presets say."""
    from trainer.settings.run_settings import BEYOND, CoTraining, Settings

    descriptions = attributes(Settings)
    paper = [name for name in Settings.model_fields if name not in BEYOND]
    beyond = [name for name in Settings.model_fields if name in BEYOND]
    parts = [
        MADE,
        "# Settings",
        "One object, `trainer.settings.run_settings.Settings`, decides the result of a run. "
        "`mmssl train MODEL --dry-run` prints it, "
        "`settings.json` in the run's folder keeps it. Values come, in this order, from the preset, a "
        "`--config FILE.toml`, `--set NAME=VALUE`, and the options of their own that some settings have "
        "([cli.md](cli.md)). An unknown name is an error. How to use them: [training](../guide/training.md).",
        "## The run and the paper's objective",
        _fields(Settings, descriptions, paper),
        "## Beyond the paper",
        "The defaults are the paper's. What each term is: [training](../guide/training.md#beyond-the-paper).",
        _fields(Settings, descriptions, beyond),
        "## `[cotraining]`",
        "For `ct-svm` and `cotraining` alone ([co-training](../models/cotraining.md)); set in a `--config` file.",
        _fields(CoTraining, attributes(CoTraining), list(CoTraining.model_fields)),
        *_presets(),
    ]
    return "\n\n".join(parts) + "\n"


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """What a docstring says of each attribute, as one line."""
    descriptions: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(model.__doc__ or "").splitlines():
        new = re.match(r"    (\w+): (.*)", line)
        if new:
            name, descriptions[new[1]] = new[1], new[2]
        elif line.startswith("        ") and name:
            descriptions[name] += f" {line.strip()}"
        elif line.strip():
            name = ""
    return descriptions


def _fields(model: type[BaseModel], descriptions: Mapping[str, str], names: Sequence[str]) -> str:
    hints = get_type_hints(model, include_extras=True)
    rows = []
    for name in names:
        field = model.model_fields[name]
        given = "the preset's" if name in _PRESET_GIVES else "required"
        default = given if field.is_required() else _value(field.default)
        rows.append((f"`{name}`", type_in_words(hints[name]), default, descriptions[name]))
    return _table(("setting", "value", "default", ""), rows)


def type_in_words(kind: Any) -> str:
    """`integer >= 1, or none`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(bound, attribute):g}"
            for info in inner[1:]
            if isinstance(info, FieldInfo)
            for bound in info.metadata
            for attribute, sign in _BOUNDS.items()
            if getattr(bound, attribute, None) is not None
        ]
        return f"{type_in_words(inner[0])} {' and '.join(bounds)}".strip()
    if origin in (Union, types.UnionType):
        return ", or ".join(map(type_in_words, inner))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return "list of texts"
    if origin is dict:
        return "table of texts"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[`[{kind.__name__.lower()}]`](#{kind.__name__.lower()})"
    return {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "none"}[kind]


def _value(value: Any) -> str:
    if value is None or value in ("", ()):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _presets() -> Iterator[str]:
    from trainer.models.registry import cards
    from trainer.settings.presets import PRESETS, preset_values
    from trainer.settings.recommended import terms
    from trainer.settings.run_settings import CoTraining, Settings

    def values(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """By preset, what it sets for all of these models alike, apart from networks."""
        by_preset: dict[str, dict[str, Any]] = {}
        for preset in PRESETS:
            each = [_flat(preset_values(preset, name)) for name in names]
            by_preset[preset] = {
                key: value for key, value in each[0].items() if all(other.get(key) == value for other in each)
            }
        return by_preset

    trained = values([card.name for card in cards() if card.is_generative])
    svm: dict[str, dict[str, Any]] = {preset: _flat(preset_values(preset, "ct-svm")) for preset in PRESETS}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    defaults |= {f"cotraining.{name}": field.default for name, field in CoTraining.model_fields.items()}
    yield "## Presets"
    yield (
        "`--preset paper` is the one of these that fits the shard, and the default on the paper's own data. `mnist` "
        "and `rgbd` are the paper's; `digits` and `sample`, for the bundled digits and the rendered sample, are the "
        "same with steps and batches for little data. Each also sets the networks of the model "
        "([models](../models/README.md))."
    )
    yield _columns(trained, [key for key in defaults if any(key in preset for preset in trained.values())], defaults)
    yield "The co-trained systems take these instead (`cotraining.cost`: `ct-svm` alone):"
    keys = [
        "epochs",
        *(key for key in defaults if key.startswith("cotraining.") and any(key in of for of in svm.values())),
    ]
    yield _columns(svm, keys, defaults)
    yield (
        "`--preset recommended`, the default on all other data, sizes networks, batches and steps to the data "
        "(`trainer/settings/recommended.py`; `--dry-run` prints them). A model with a classifier gets these terms:"
    )
    both, single = terms("sshmvae-kl", 2), terms("sshmvae-kl", 1)
    names = list(dict.fromkeys((*both, *single)))
    yield _table(
        ("", "several modalities", "one modality"),
        [(f"`{name}`", *(_value(of[name]) if name in of else "" for of in (both, single))) for name in names],
    )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in values.items() if key not in ("networks", "cotraining")}
    return flat | {f"cotraining.{key}": value for key, value in (values.get("cotraining") or {}).items()}


def _columns(by_preset: Mapping[str, Mapping[str, Any]], keys: Sequence[str], defaults: Mapping[str, Any]) -> str:
    rows = [(f"`{key}`", *(_value(of.get(key, defaults[key])) for of in by_preset.values())) for key in keys]
    return _table(("", *(f"`{preset}`" for preset in by_preset)), rows)


# --- both


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (member for member in get_args(kind) if member is not type(None))
    return kind


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
