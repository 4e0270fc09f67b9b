"""Class names from all of Unicode, through whole commands: imported, trained on, listed, drawn, exported, predicted."""

import base64
import csv
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.runtime.text import visible
from tests.support.commands import Command, CommandResult
from tests.support.small_networks import SSMVAE, as_assignment
from trainer.reporting.panel_layout import shortened

NASTY = (
    "$x_1^$ 100 % [a]", "*b* _c_ `d` | e", "<b>&amp;</b>", "{{ x }}", "a\nb\r\nc\rd", "tab\tx", "ספל", "カップ",
    "e\u0301cole", "\x1b[2J\x07", "a\u202eb\u2028c\x85d", "\U0001f37a\u200d\U0001f37a", "=1+1",
    '"quoted", and; more', "\\n", "None",
)  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.lists(
    st.text(LETTERS, min_size=1, max_size=12) | st.text(st.sampled_from("$%_[]\n\r\t\x1b\x7f\u202eש7-"), min_size=1),
    min_size=2, max_size=6,
)  # fmt: skip
ROWS = 4  # of each class, the last of which is for testing
QUICK = ("--labels", "all", "--epochs", 1, "--iterations", 1, "--no-reference", "--device", "cpu")
GENERATED = 10  # examples in a picture of generated modalities
TINY = (as_assignment(SSMVAE).replace("D16", "D4"), "batch_size=64", "labelled_batch_size=64")


def classes_of(names: Sequence[str]) -> list[str]:
    """What an import makes of names: composed, without spaces around them, each once, in their order."""
    composed = {unicodedata.normalize("NFC", name.strip()) for name in names}
    number = re.compile(r"-?\d+(\.0*)?")
    return sorted(name for name in composed if not number.fullmatch(name) and name.casefold() not in ("", "_", "nan"))


def write_table(path: Path, classes: Sequence[str]) -> None:
    """A table of two modalities of four values each."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", *(f"{m}.{k}" for m in "xw" for k in range(4)), "split"])
        for row in range(ROWS):
            for name in classes:
                table.writerow([name, *rng.random(8).round(3), "test" if row == ROWS - 1 else "train"])


def texts_of(svg: bytes) -> set[str]:
    return {
        "".join(text.itertext()) for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }  # it is ours


def done(result: CommandResult) -> CommandResult:
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) < 20, result.err  # no storm
    assert result.err.count("no installed font has") <= 1
    return result


@settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
@example(list(NASTY))
def test_a_name_stays_what_it_is(
    mmssl: Command, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    classes = classes_of(names)
    assume(len(classes) > 1)
    monkeypatch.chdir(tmp_path_factory.mktemp("names"))
    monkeypatch.setenv("MMSSL_ROOT", "workspace")
    write_table(Path("mine.csv"), names)
    done(mmssl("data", "import", "mine.csv", "--name", "mine"))
    shard = done(mmssl("shards", "inspect", "workspace/shards/mine.h5", "--json")).json
    assert sorted(found["name"] for found in shard["classes"]) == classes
    shown = done(mmssl("shards", "inspect", "workspace/shards/mine.h5")).out
    assert all(f"│ {visible(name)} " in shown for name in classes)

    tiny = [word for text in TINY for word in ("--set", text)]
    (run,) = done(mmssl("train", "ssmvae", "--data", "mine", *QUICK, *tiny, "--json")).json
    done(mmssl("generate", run["folder"], "--from", "x", "--to", "w", "--out", "made.svg"))
    drawn = texts_of(Path("made.svg").read_bytes())
    assert len({shortened(name) for name in classes} & drawn) == min(len(classes), GENERATED)
    done(mmssl("report", "--html", "page.html"))
    pictures = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", Path("page.html").read_text())
    assert {shortened(name) for name in classes} <= set().union(*(texts_of(base64.b64decode(p)) for p in pictures))

    done(mmssl("export", run["folder"], "--out", "model"))
    assert sorted(json.loads(Path("model/model.json").read_text())["classes"]) == classes
    done(mmssl("predict", "model", "mine.csv", "--out", "answers.csv"))
    with open("answers.csv", encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert {row["label"] for row in answers} <= set(classes)
    assert sorted({row["known_label"] for row in answers}) == classes
