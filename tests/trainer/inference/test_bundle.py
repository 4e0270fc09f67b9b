"""A bundle stands alone: it is written whole, read anywhere, and refused where it is not what was exported."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.runtime.arrays import read_npz, write_npz
from pipeline.runtime.errors import DataError, StorageError, UsageError
from pipeline.runtime.tensor_files import TensorFile, read_tensor_file, write_tensor_file
from pipeline.shards.schema import Modality
from tests.support.bundles import reseal
from tests.support.training import CPU, clusters, make_settings, make_shard, run_stack, turns
from trainer.inference import bundle_reading
from trainer.inference.bundle import CARD, CHECK, README, WEIGHTS, Bundle, encoder_file, id_hash, verify
from trainer.inference.bundle_reading import encoder_path, read_bundle, read_card
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel, open_model
from trainer.inference.network import read_settings
from trainer.inference.subsets import Abstain, entries
from trainer.training.run_folder import Run

FILES = {CARD, WEIGHTS, CHECK, README}
NOT_THESE = "are .* not|does not hold what its card says|are not those of"
Runs = Callable[[str], list[Run]]


def opened(folder: Path) -> LoadedModel:
    def open_encoder(path: Path, device: str) -> Any:
        assert device == "cpu"
        return lambda pictures: np.full((len(pictures), 6), path.read_bytes()[0] / 255, np.float32)

    return open_model(folder, "cpu", open_encoder, lambda *_: Path())


def test_bundles_before_the_third_format_answer_at_the_mean(runs: Runs) -> None:
    card = gather(runs("three")).card
    assert [read_settings(card.model_copy(update={"format": n}), "it").samples for n in (1, 2, 3)] == [0, 0, 4]


def test_a_bundle_moved_elsewhere_answers_as_before(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    x = {"x": np.random.default_rng(0).random((9, 6), np.float32)}
    before = bundle.predictor(CPU).probabilities(x, np.tile([True, False], (9, 1)))
    moved = Path(shutil.move(folder, tmp_path / "anywhere else"))
    np.testing.assert_array_equal(opened(moved).predict_proba(x), before)


def test_it_names_no_path_and_no_host(folder: Path, runs: Runs) -> None:
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert str(runs("sshmvae-kl")[0].folder).encode() not in content
    assert os.uname().nodename.encode() not in (folder / CARD).read_bytes()
    card = read_card(folder)
    assert card.seeds == (0, 1)
    assert card.provenance["shard"] == runs("sshmvae-kl")[0].settings.digest


def test_equal_runs_give_equal_bytes_and_a_second_export_changes_nothing(bundle: Bundle, folder: Path) -> None:
    write_bundle(bundle, folder.with_name("again"))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in folder.with_name("again").iterdir()} == {
        name: content for name, (content, _) in before.items()
    }
    write_bundle(bundle, folder)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_another_folder_is_never_overwritten(bundle: Bundle, tmp_path: Path, runs: Runs) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    write_bundle(gather(runs("sshmvae-kl")[:1]), tmp_path / "other")
    for name in ("mine", "other", "file"):
        with pytest.raises(DataError, match=f"{name} exists and holds something else"):
            write_bundle(bundle, tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "other", "file"}
    with pytest.raises(StorageError, match="a part of the path is a file"):
        write_bundle(bundle, tmp_path / "file" / "model")


@pytest.mark.parametrize("name", sorted(FILES - {README}))
def test_a_changed_file_is_named(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}"):
        opened(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} was removed|holds neither a bundle"):
        opened(folder)


def test_the_page_may_be_edited(folder: Path) -> None:
    assert "sshmvae-kl" in (folder / README).read_text()
    (folder / README).write_text("mine")
    opened(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(format=4), "written by a newer version of mmssl"),
        (lambda c: c.update(format=0), "written by an older version of mmssl"),
        (lambda c: c.update(format="1"), "is not the card of a bundle"),
        (lambda c: c.pop("classes"), "is not the card of a bundle: classes"),
        (lambda c: c.update(extra=1), "is not the card of a bundle: extra"),
        (lambda c: c.update(classes=["cup"]), "fewer than two classes"),
        (lambda c: c.update(classes=["cup", "bowl"]), NOT_THESE),
        (lambda c: c.update(classes=["cup", "bowl", "a\n"]), "blank at its ends"),
        (lambda c: c["modalities"][0].update(name="../x"), "cannot be named"),
        (lambda c: c["modalities"][0].update(width=7), NOT_THESE),
        (lambda c: c["modalities"][0].update(width=10**12), NOT_THESE),
        (lambda c: c.update(seeds=[0]), NOT_THESE),
        (lambda c: c.update(seeds=list(range(10_000))), NOT_THESE),
        (lambda c: c.update(completion="magic"), "does not complete"),
        (lambda c: c["settings"].update(model="jmvae"), "no classifier of its own|no network|networks"),
        (lambda c: c["settings"].update(model="nothing"), "there is no model 'nothing'"),
        (lambda c: c["settings"].update(epochs=-1), "epochs"),
        (lambda c: c["settings"].update(later=1), "there is no setting 'later'"),
        (lambda c: c["settings"].update(networks={}), "there is no network for"),
        (lambda c: c["settings"]["networks"].update({"q(y|a)": "a-" + "D9-" * 999 + "D8, DK"}), "up to 1000"),
        (lambda c: c["settings"]["networks"].update({"q(y|a)": "(" * 900 + "a" + ")" * 90}), "notation|nested"),
        (lambda c: c["settings"]["networks"].update({"q(y|a)": "a-D99999999999BR, DK"}), "are .* not|only"),
        (lambda c: c["files"].pop(WEIGHTS), "does not name the bundle's model.safetensors"),
    ],
)  # fmt: skip
def test_a_card_that_is_false_but_sealed_is_refused(
    change: Callable[[dict[str, Any]], object], sentence: str, folder: Path
) -> None:
    reseal(folder, change)
    with pytest.raises(DataError, match=sentence) as caught:
        opened(folder)
    assert str(folder) in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def damage_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = read_tensor_file(folder / WEIGHTS)
    change(file.tensors)
    (folder / WEIGHTS).unlink()
    write_tensor_file(folder / WEIGHTS, TensorFile(file.tensors, file.values))
    reseal(folder)


def first(tensors: dict[str, torch.Tensor], start: str) -> str:
    return next(name for name in tensors if name.startswith(start))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(first(t, "model.")), "in one of them only"),
        (lambda t: t.update({"model.more": torch.zeros(2, 3)}), "in one of them only"),
        (lambda t: t[first(t, "model.")].fill_(float("nan")), "are not finite"),
        (lambda t: t["model.q_y.heads.0.weight"].neg_(), "other probabilities than when it was exported"),
        (lambda t: t.update({first(t, "model."): t[first(t, "model.")].double()}), "torch.float64"),
        (lambda t: t.pop("labelled"), "does not hold what its card says"),
        (lambda t: t.update({"scaling.w": torch.ones(2, 4)}), "the scaling of w"),
        (lambda t: t.update({"scaling.w": torch.zeros(2, 3)}), "the scaling of w"),
        (lambda t: t.update({"scaling.w": torch.ones(3)}), "does not hold what its card says"),
        (lambda t: t.update({"unlikeness.2.latents": torch.zeros(2, 30, 9)}), "do not fit together"),
        (lambda t: t.update({"unlikeness.2.latents": torch.zeros(3, 30, 4)}), "wrong shape or values"),
        (lambda t: t.update({"unlikeness.2.distances": torch.zeros(2, 2, 2)}), "wrong shape or values"),
    ],
)  # fmt: skip
def test_weights_that_are_false_but_sealed_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], sentence: str, folder: Path
) -> None:
    damage_weights(folder, change)
    with pytest.raises(DataError, match=sentence) as caught:
        opened(folder)
    assert str(folder) in caught.value.message


def test_a_check_that_is_false_but_sealed_is_refused(folder: Path) -> None:
    arrays = read_npz(folder / CHECK)
    for change, sentence in (
        ({"probabilities": np.roll(arrays["probabilities"], 1, axis=1)}, "other probabilities"),
        ({"x.x": arrays["x.x"][:, :2]}, "does not hold rows of these modalities"),
        ({"present": np.zeros_like(arrays["present"])}, "does not hold rows of these modalities"),
    ):
        write_npz(folder / CHECK, arrays | change)
        reseal(folder)
        with pytest.raises(DataError, match=sentence):
            opened(folder)


def test_links_and_other_places_are_not_read(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(folder / WEIGHTS, outside)
    (folder / WEIGHTS).symlink_to(outside)
    with pytest.raises(DataError, match=r"model\.safetensors is not a plain file"):
        opened(folder)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(DataError, match=r"model\.safetensors is not a plain file"):
        opened(folder)
    (folder / CARD).unlink()
    (folder / CARD).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"model\.json is not a plain file"):
        read_card(folder)


def test_cards_are_small_and_not_nested_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / CARD).write_text('{"format": 1, "settings": ' + "[" * 200_000)
    with pytest.raises(DataError, match=r"cannot read .*model\.json"):
        read_card(folder)
    monkeypatch.setattr(bundle_reading, "MOST_CARD_BYTES", 10)
    with pytest.raises(DataError, match="too large"):
        read_card(folder)


def test_an_encoder_travels_with_the_bundle_and_is_checked_when_it_is_used(bundle: Bundle, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"\x80 an encoder")
    modalities = tuple(
        m.model_copy(update={"encoder": {"backbone": "vgg16", "modality": "rgb"} if m.name == "x" else None})
        for m in bundle.card.modalities
    )
    with_encoder = replace(bundle, card=bundle.card.model_copy(update={"modalities": modalities}), encoders={"x": kept})
    folder = tmp_path / "model"
    card = write_bundle(with_encoder, folder)
    kept.unlink()
    assert "yes (vgg16)" in (folder / README).read_text()
    model = opened(folder)
    np.testing.assert_array_equal(
        model.predict_proba({"x": ["a.png", None], "w": np.ones((2, 3))})[:1],
        model.predict_proba({"x": np.full((1, 6), 128 / 255), "w": np.ones((1, 3))}),
    )
    with pytest.raises(DataError, match="has no encoder for 'w', so it takes features of it and no pictures"):
        encoder_path(folder, card, "w")
    (folder / encoder_file("x")).write_bytes(b"\x81 another one")
    with pytest.raises(DataError, match="was changed or damaged"):
        opened(folder).predict({"x": ["a.png"]})
    (folder / encoder_file("x")).unlink()
    with pytest.raises(DataError, match=r"is not complete: its encoder-x\.safetensors was removed"):
        opened(folder).predict({"x": ["a.png"]})
    assert len(opened(folder).predict({"w": np.ones((2, 3))})) == 2  # vectors need no encoder
    with pytest.raises(DataError, match="there is no encoder"):
        write_bundle(with_encoder, tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))


# --- which runs ------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_more_than_their_seed_are_no_ensemble(runs: Runs, tmp_path: Path) -> None:
    one = runs("sshmvae-kl")[0]
    with pytest.raises(UsageError, match=r"differs from .* in more than its seed: model ssmvae instead of sshmvae-kl"):
        gather([one, runs("ssmvae")[0]])
    with pytest.raises(UsageError, match="are the same run"):
        gather([one, one])
    with pytest.raises(UsageError, match="jmvae has no classifier of its own"):
        gather(runs("jmvae"))
    shard = make_shard(tmp_path / "shard.h5")
    rival = run_stack(tmp_path / "runs", [make_settings("ct-svm", shard)], [shard])
    with pytest.raises(UsageError, match="ct-svm is here to be compared with"):
        gather(rival)
    (rival[0].folder / "result.json").unlink()
    with pytest.raises(DataError, match="is not done"):
        gather(rival)


def test_labelled_rows_are_remembered_by_the_hash_of_their_ids(bundle: Bundle, runs: Runs) -> None:
    ids = {name for run in runs("sshmvae-kl") for name in run.labelled_ids()}
    assert set(bundle.labelled.tolist()) == {id_hash(name) for name in ids}


def test_thresholds_are_given_or_chosen_and_absent_without_a_test_part(runs: Runs) -> None:
    below = gather(runs("ssmvae"), abstain=Abstain(below=0.7)).card
    assert {subset.abstention.threshold for subset in below.subsets if subset.abstention} == {0.7}
    assert below.target_accuracy is None
    never = gather(runs("ssmvae"), abstain=Abstain()).card
    assert all(subset.abstention is None for subset in never.subsets)


def test_many_modalities_keep_the_card_small() -> None:
    two, six, many = (entries([f"m{k}" for k in range(count)]) for count in (2, 6, 40))
    assert [entry.given for entry in two] == [("m0",), ("m1",), ("m0", "m1")]
    assert sum(entry.own for entry in six) == 13
    assert [len(entry.of) for entry in six if not entry.own] == [6, 6, 6]
    assert len(many) == 40 + 37 + 40 + 1
    assert all(list(given) == sorted(given, key=lambda n: int(n[1:])) for entry in many for given in entry.of)


def test_rows_that_lack_modalities_are_compared_with_those_that_have_the_same(tmp_path: Path) -> None:
    """Training itself with rows that lack modalities is the trainer's; here it is what is measured of it."""
    four = tuple(Modality(name, 4, "gaussian") for name in "bcde")
    rng = np.random.default_rng(0)

    def part(name: str, rows: int, seed: int) -> Any:
        data = clusters(name, turns(rows), four, seed)
        there = rng.random((rows, 4)) < 0.7
        there[:, 0] |= ~there.any(1)
        data.present = {m.name: there[:, k] for k, m in enumerate(four)}
        data.features = {m.name: data.features[m.name] * there[:, [k]] for k, m in enumerate(four)}
        return data

    shard = make_shard(tmp_path / "s.h5", four, train=part("train", 200, 0), test=part("test", 120, 1))
    run = run_stack(tmp_path / "runs", [make_settings("sshmvae-kl", shard, epochs=1)], [shard])
    made = gather(run)
    assert [subset.size for subset in made.card.subsets] == [1] * 4 + [2] + [3] * 4 + [4]
    pooled = made.card.subsets[4]
    assert pooled.given == ()
    assert pooled.rows > 120
    assert pooled.known_from == "test"
    write_bundle(made, tmp_path / "model")
    read = read_bundle(tmp_path / "model")
    verify(read, tmp_path / "model")
    assert set(read.references) == {k for k in made.references if made.card.subsets[k].known}
    assert 4 in read.references
    model = opened(tmp_path / "model")
    x = {m.name: shard.test.features(m.name) for m in four}
    found = model.predictions(x, {m.name: shard.test.has(m.name) for m in four})
    assert (found.unlikeness >= 0).all()
    assert json.loads((tmp_path / "model" / CARD).read_text())["subsets"][4]["size"] == 2
