"""The demo from nothing to its table, at a size for tests, and once more: nothing is done twice."""

import re
from pathlib import Path
from typing import Any

import pytest

from commands import demo_settings
from commands.demo_settings import DemoSettings
from pipeline.features import vgg
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import ImageSettings
from pipeline.shards.schema import Modality
from tests.support.commands import Command
from tests.support.tiny_vgg import TinyVgg
from trainer.jobs import plan
from trainer.settings.presets import preset_values
from trainer.settings.recommended import recommended
from trainer.training.run_folder import Run


def stamps(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_demo_ends_in_its_table_and_does_nothing_twice(
    mmssl: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = DemoSettings(
        categories=3,
        objects=3,
        views=1,
        splits=(0, 1),
        images=ImageSettings(size=32),
        features=FeatureSettings(labelled=0.5, epochs=0),
    )
    whole = preset_values
    short = {"epochs": 2, "batch_size": 8, "labelled_batch_size": 8, "iterations": 3}

    def shortened(preset: str, model: str) -> dict[str, Any]:
        return whole(preset, model) | (short if preset == "sample" else {})

    def shortly(model: str, rows: int, modalities: tuple[Modality, ...], complete: float) -> dict[str, Any]:
        return recommended(model, rows, modalities, complete) | short

    monkeypatch.setattr(demo_settings, "DEMO", tiny)
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)
    monkeypatch.setattr(plan, "preset_values", shortened)
    monkeypatch.setattr(plan, "recommended", shortly)
    first = mmssl("demo", "--device", "cpu")
    assert first.code == 0, first.err
    steps = [line for line in first.out.splitlines() if re.match(r"\d/4  ", line)]
    assert [line[0] for line in steps] == ["1", "2", "3", "4"]
    assert all("For real: mmssl " in line for line in steps)
    assert "RANDOM weights" in steps[2]
    assert "come from random weights" in first.out
    setting, ways = "", set()
    for line in (line for line in first.out.splitlines() if line.startswith("│")):
        name, cameras, completion, accuracy = (cell.strip() for cell in line.strip("│").split("│"))
        assert 0 <= float(accuracy) <= 100
        setting = name or setting
        ways.add((setting, cameras.split(" ")[0], completion))
    references = {"logistic regression", "LS+SVC"}
    assert {way for way in ways if way[0] in references} == {
        (setting, camera, "-") for setting in references for camera in ("both", "RGB", "depth")
    }
    ways = {way for way in ways if way[0] not in references}
    sshmvae, kl, best = (
        "SS-HMVAE, the paper's",
        "SS-HMVAE-kl, the paper's",
        "SS-HMVAE-kl, recommended",
    )
    assert ways == {
        (sshmvae, "both", "-"),
        (sshmvae, "RGB", "zeros"),
        (sshmvae, "RGB", "iterative sampling"),
        (sshmvae, "depth", "zeros"),
        (sshmvae, "depth", "iterative sampling"),
    } | {
        (setting, camera, completion)
        for setting in (kl, best)
        for camera, completion in (("both", "-"), ("RGB", "encoders"), ("depth", "encoders"))
    }
    root = tmp_path / "workspace"
    served = re.fullmatch(r"to try the first model in a browser: mmssl serve (\S+)", first.out.splitlines()[-1])
    assert served is not None
    assert Run.open(Path(served[1])).settings.model == "sshmvae-kl"
    before = stamps(root)
    assert len(list((root / "shards").glob("demo-split-*.h5"))) == 2
    assert len([path for path in before if path.endswith("result.json")]) == 6

    second = mmssl("demo", "--device", "cpu")
    assert second.code == 0, second.err
    assert second.out == first.out
    again = stamps(root)
    assert again.keys() == before.keys()
    assert not {path for path in before if again[path] != before[path]}
