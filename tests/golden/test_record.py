"""Recordings leave out what may differ, keep everything else, and a comparison shows it. No command runs here."""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.golden import compare, digests, record

PLACES = {"/data/of/mine/workspace": "<workspace>"}


def test_renamed_keys_are_called_by_their_new_names_in_both_checkouts() -> None:
    before = {"label": "exact", "cotraining": {"additions": 5}, "scores": [{"means": "zeros"}]}
    after = {"label_estimator": "exact", "cotraining": {"k_best": 5}, "scores": [{"completion": "zeros"}]}
    expected = {"label_estimator": "exact", "cotraining.k_best": 5, "scores[0].completion": "zeros"}
    assert digests.of_json(before, {}) == digests.of_json(after, {}) == expected


def test_a_dotted_name_is_renamed_in_its_group_alone() -> None:
    assert digests.of_json({"additions": 5}, {}) == {"additions": 5}


def test_an_object_with_both_names_of_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="both means and completion"):
        digests.of_json([{"means": "zeros", "completion": "zeros"}], {})


def test_json_is_kept_without_what_changes_from_time_to_time() -> None:
    value = {
        "host": "somewhere",
        "versions": {"torch": "2.6"},
        "shard": "/data/of/mine/workspace/shards/a.h5",
        "runs": ["a-m2-seed-0-0123abcd"],
        "mean": 0.5,
        "split": None,
        "empty": {},
    }
    assert digests.of_json(value, PLACES) == {
        "shard": "<workspace>/shards/a.h5",
        "runs[0]": "a-m2-seed-0",
        "mean": 0.5,
        "split": None,
        "empty": {},
    }


@pytest.mark.parametrize(("one", "other"), [("a" * 300, "a" * 299 + "b"), ([1.0] * 99, [1.0] * 98 + [2.0])])
def test_what_is_long_becomes_a_short_digest(one: Any, other: Any) -> None:
    (short,) = digests.of_json({"key": one}, {}).values()
    assert len(short) < 60
    assert digests.of_json({"key": one}, {}) != digests.of_json({"key": other}, {})


def _write_shard(path: Path, version: str, names: list[str], last: float) -> digests.Table:
    arrays = {"x": np.array([1.0, last], np.float32), "id": np.array([b"a", b"b"])}
    with h5py.File(path, "w") as file:
        file.attrs["provenance"] = json.dumps({"versions": version, "images": {"size": 64}})
        file.attrs["split"] = 0
        for name in names:
            file.create_dataset(f"train/{name}", data=arrays[name])
    return digests.of_file(path, {})


def test_hdf5_is_its_data_sets_and_attributes_in_whatever_order(tmp_path: Path) -> None:
    table = _write_shard(tmp_path / "a.h5", "1", ["x", "id"], 2.0)
    assert table == _write_shard(tmp_path / "b.h5", "2", ["id", "x"], 2.0)
    assert table.keys() == {"@provenance.images.size", "@split", "train/id", "train/x"}
    changed = _write_shard(tmp_path / "c.h5", "1", ["x", "id"], 3.0)
    assert [key for key in table if table[key] != changed[key]] == ["train/x"]


def test_safetensors_are_their_tensors_without_the_metadata(tmp_path: Path) -> None:
    tensors: dict[str, NDArray[Any]] = {"b": np.zeros((2, 3), np.float32), "a": np.ones(2, np.int64)}
    tables = []
    for name in ("one", "two"):
        save_file(tensors, tmp_path / f"{name}.safetensors", {"mmssl": json.dumps({"settings": name})})
        tables.append(digests.of_file(tmp_path / f"{name}.safetensors", {}))
    assert tables[0] == tables[1]
    assert tables[0]["b"].startswith("float32 [2, 3] sha256:")
    save_file(tensors, tmp_path / "bad.safetensors", {"mmssl": "{"})
    with pytest.raises(json.JSONDecodeError):
        digests.of_file(tmp_path / "bad.safetensors", {})


def test_arrays_columns_lines_and_other_bytes_are_told_apart(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", made=np.zeros(3))
    assert list(digests.of_file(tmp_path / "a.npz", {})) == ["made"]
    (tmp_path / "a.csv").write_text("epoch,accuracy x+w\n1,0.5\n2,0.75\n")
    assert digests.of_file(tmp_path / "a.csv", {}) == {"epoch": "1 2", "accuracy x+w": "0.5 0.75"}
    (tmp_path / "a.md").write_text("# Results\nMade 2025-01-01 10:00 UTC with mmssl 0.1.0.\n| a-seed-1-00000000 |\n")
    assert digests.of_file(tmp_path / "a.md", {}) == {"line 1": "# Results", "line 2": "| a-seed-1 |"}
    for name, text in (("a.txt", "text"), ("a.svg", "bytes")):
        (tmp_path / name).write_text(name)
        assert list(digests.of_file(tmp_path / name, {})) == [text]


def test_a_comparison_shows_old_and_new() -> None:
    before = {"result.json": {"scores[2].nll": 1, "scores[10].nll": 0.5}, "gone.json": {}}
    after = {"result.json": {"scores[2].nll": 1.0, "scores[10].nll": 0.25, "more": "x"}, "come.json": {}}
    assert compare.differences(before, before) == {}
    assert compare.differences(before, after) == {
        "come.json": ["only after"],
        "gone.json": ["only before"],
        "result.json": ['more: absent -> "x"', "scores[2].nll: 1 -> 1.0", "scores[10].nll: 0.5 -> 0.25"],
    }


def test_what_was_added_on_purpose_is_no_difference_but_its_loss_is() -> None:
    before: dict[str, digests.Table] = {"a.h5": {"@split": 0}}
    after: dict[str, digests.Table] = {"a.h5": {"@split": 0, "@preset": "digits"}}
    assert compare.differences(before, after) == {}
    assert compare.differences(after, before) == {"a.h5": ['@preset: "digits" -> absent']}
    other: dict[str, digests.Table] = {"a.h5": {"@split": 0, "@preset": "sample"}}
    assert compare.differences(after, other) == {"a.h5": ['@preset: "digits" -> "sample"']}


@pytest.mark.parametrize(("accuracy", "code"), [(0.5, 0), (0.75, 1)])
def test_the_exit_code_says_whether_recordings_differ(
    accuracy: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[str] = []
    for value in (0.5, accuracy):
        paths.append(str(tmp_path / f"{len(paths)}.json"))
        recording = {"about": {"cpu": "a", "torch": "2"}, "outputs": {"result.json": {"accuracy": value}}}
        Path(paths[-1]).write_text(json.dumps(recording))
    monkeypatch.setattr(sys, "argv", ["compare.py", *paths])
    with pytest.raises(SystemExit) as exit_:
        compare.main()
    assert exit_.value.code == code
    assert ("accuracy: 0.5 -> 0.75" in capsys.readouterr().out) == bool(code)


def test_commands_give_a_setting_the_name_that_the_checkout_knows() -> None:
    before, after = ({"cotraining": {name: 5}} for name in ("additions", "k_best"))
    names = [record.known_as("cotraining.additions", settings) for settings in (before, after)]
    assert [record.assignment(name, "8") for name in names] == ["cotraining={additions=8}", "cotraining={k_best=8}"]
    assert record.assignment("label", "exact") == "label=exact"
    with pytest.raises(KeyError, match="has no setting label"):
        record.known_as("label", before)
