"""Runs listed from their files: what they say, what is left out, and folders of other versions of the program."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.errors import DataError, NewerError
from tests.support.finished_runs import finished
from tests.support.paths import ROOT
from trainer.settings.names import COTRAINING_FIELDS, SETTINGS_FIELDS
from trainer.settings.run_settings import CoTraining, Settings
from trainer.training.run_folder import Run, find
from trainer.training.run_listing import FORMAT, RESULT, SETTINGS, list_runs, read_settings


def rewrite(run: Run, name: str, **changes: object) -> None:
    path = run.folder / name
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_listing_says_what_the_folders_hold(tmp_path: Path) -> None:
    done = finished(tmp_path / "a")
    open_ = finished(tmp_path / "b", "ct-svm", done=False, accuracies=[{"x": 0.5}] * 3, epochs=20)
    first, second = list_runs([tmp_path])
    assert (first.folder, second.folder) == (done.folder, open_.folder)
    assert first.settings == done.settings.model_dump(mode="json")
    assert first.result is not None
    assert [score["accuracy"] for score in first.result["scores"]] == [s.accuracy for s in done.result().scores]
    assert (first.epochs, first.all_epochs) == (1, "1")
    assert (second.epochs, second.all_epochs, second.result) == (3, "20 rounds", None)
    assert list_runs([tmp_path / "a", tmp_path]) == [first, second]  # none twice
    assert list_runs([tmp_path / "nowhere"]) == []


@pytest.mark.parametrize(
    ("found", "words", "hint"),
    [
        (..., f"an older version of mmssl (run format 1; this version reads {FORMAT})", "train again"),
        (1, f"an older version of mmssl (run format 1; this version reads {FORMAT})", "train again"),
        (FORMAT + 1, f"a newer version of mmssl (run format {FORMAT + 1}; this version reads {FORMAT})", "update"),
    ],
)
def test_a_run_of_another_format_is_refused_in_one_sentence(
    found: object, words: str, hint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = finished(tmp_path)
    rewrite(run, SETTINGS, format=found)
    with pytest.raises(DataError) as caught:
        Run.open(run.folder)
    assert caught.value.message == f"{run.folder} was written by {words}"
    assert hint in str(caught.value.hint)
    assert list_runs([tmp_path]) == []
    assert caught.value.message in caplog.text


def cut_settings(run: Run) -> None:
    (run.folder / SETTINGS).write_text("{")


def drop_settings(run: Run) -> None:
    rewrite(run, SETTINGS, epochs=...)


def damage_metrics(run: Run) -> None:
    (run.folder / "metrics.csv").write_text("epoch,J\n2,0\n")


def cut_result(run: Run) -> None:
    (run.folder / RESULT).write_text('{"scores"')


def change_result(run: Run) -> None:
    rewrite(run, RESULT, scores=3)


def change_scores(run: Run) -> None:
    rewrite(run, RESULT, scores=[{"given": "x"}])


DAMAGE = (cut_settings, drop_settings, damage_metrics, cut_result, change_result, change_scores)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_cannot_be_read_is_left_out_with_a_warning(
    damage: Callable[[Run], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    good, bad = finished(tmp_path / "good"), finished(tmp_path / "bad")
    damage(bad)
    assert [run.folder for run in list_runs([tmp_path])] == [good.folder]
    (record,) = caplog.records
    assert str(bad.folder) in record.message


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    run = finished(tmp_path)
    code = (
        "import sys; from pathlib import Path; from trainer.training.run_listing import list_runs\n"
        "print(*(run.folder for run in list_runs([Path(sys.argv[1])])))\n"
        "sys.exit(any(heavy in sys.modules for heavy in ('torch', 'numpy', 'pydantic')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(run.folder)), done.stderr


def foreign(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / SETTINGS).write_text(text)


def test_what_is_none_of_ours_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = finished(tmp_path / "runs")
    foreign(tmp_path / "runs", ".vscode", '{\n  // of an editor\n  "editor.rulers": [120]\n}\n')
    foreign(tmp_path / "runs", "project", '{"editor.rulers": [120]}')
    foreign(tmp_path / "runs", "empty", "")
    foreign(tmp_path / "runs", "binary", "\0")
    (tmp_path / "runs" / "back").symlink_to(tmp_path / "runs")
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(run.folder, tmp_path / "elsewhere" / "linked")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "linked")
    shutil.copytree(run.folder, tmp_path / "runs" / "later")
    rewrite(Run(tmp_path / "runs" / "later", run.settings), SETTINGS, from_the_future=1)
    for listing in (list_runs, find):
        caplog.clear()
        found = [other.folder.name for other in listing([tmp_path / "runs"])]
        assert found == sorted([run.folder.name, "linked"])
        named = [name for name in ("project", "empty", "binary", "later", ".vscode") if f"/{name}" in caplog.text]
        assert named == ["project", "empty", "binary", "later"]


@pytest.mark.parametrize("changes", [{"from_the_future": 1}, {"cotraining": {"from_the_future": 1}}], ids=str)
def test_a_setting_that_is_not_known_is_of_a_newer_version(
    tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = finished(tmp_path)
    rewrite(run, SETTINGS, **changes)
    said = r"was written by a newer version of mmssl \(it has the setting '(cotraining\.)?from_the_future'"
    for read in (Run.open, read_settings):
        with pytest.raises(NewerError, match=said):
            read(run.folder)
    assert list_runs([tmp_path]) == []
    assert re.search(said, caplog.text)


def test_a_score_that_is_not_known_is_of_a_newer_version(tmp_path: Path) -> None:
    run = finished(tmp_path)
    scores = json.loads((run.folder / RESULT).read_text())["scores"]
    rewrite(run, RESULT, scores=[score | {"from_the_future": 1} for score in scores])
    with pytest.raises(NewerError, match="its scores have 'from_the_future'"):
        run.result()


def test_the_names_that_are_read_without_the_settings_object_are_all_of_its_own() -> None:
    assert Settings.model_fields.keys() == SETTINGS_FIELDS
    assert CoTraining.model_fields.keys() == COTRAINING_FIELDS
