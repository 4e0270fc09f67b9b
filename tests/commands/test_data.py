"""`mmssl shards validation`, and training on the part that it divides off."""

from pathlib import Path

from pipeline.datasets.digits import build
from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused


def test_a_shards_validation_part_can_be_trained_on(mmssl: Command, small: Path, tmp_path: Path) -> None:
    base = build("hm-digits", tmp_path, tmp_path / "raw")
    path = Path(mmssl("shards", "validation", base.name).out.strip())
    assert path == tmp_path / "hm-digits-validation.h5"
    moved = Path(mmssl("shards", "validation", base.name, "--out", "elsewhere").out.strip())
    assert moved.read_bytes() == path.read_bytes()
    train = ("train", "ssmvae", "--config", small, "--epochs", 1, "--json")
    (by_file,) = mmssl(*train, "--data", path.name, "--out", "by-file").json
    (by_name,) = mmssl(*train, "--data", "hm-digits-validation").json
    assert by_file["settings"] == by_name["settings"]
    assert by_name["settings"]["data"] == "hm-digits-validation"
    assert Path(by_name["folder"]).name.startswith("hm-digits-validation-")
    assert by_name["result"]["scores"][0]["examples"] == Shard.open(path).test.rows == 287
    refused(mmssl("shards", "validation", path), 1, path.name, "is a validation shard already")
    refused(mmssl("shards", "validation", "absent.h5"), 1, "absent.h5")
