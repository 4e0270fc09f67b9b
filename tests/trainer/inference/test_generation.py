"""One modality from another: whose mean it is, which examples, and how they are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Modality, Shard
from tests.support.tiny_models import ALIKE, TWO, tiny
from tests.support.training import clusters, make_settings, make_shard, run_stack, turns
from trainer.inference.generation import choose_examples, generate
from trainer.inference.image_shapes import image_shape
from trainer.inference.loading import load_runs
from trainer.reporting.generated_images import (
    FAINT,
    draw_panels,
    generation_figure,
    panels,
    write_generated,
)
from trainer.reporting.plots import figure5
from trainer.training.run_folder import Run

EPOCHS = {"jmvae": 1, "jmvae-kl": 1, "m2": 1, "ssmvae": 1, "sshmvae": 1, "sshmvae-kl": 30}
HALVES = (Modality("x", 8, "bernoulli"), Modality("w", 8, "bernoulli"))  # of an image of 4 x 4


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each model that sees two modalities, on halves of images; that of sshmvae-kl has learned something."""
    folder = tmp_path_factory.mktemp("halves")
    shard = make_shard(folder / "shard.h5", HALVES)
    return {
        model: run_stack(folder / model, [make_settings(model, shard, epochs=epochs, learning_rate=3e-2)], [shard])[0]
        for model, epochs in EPOCHS.items()
    }


def shard_of(tmp_path: Path, *modalities: Modality, **changes: Any) -> Shard:
    return make_shard(tmp_path / "own.h5", modalities, **changes)


def test_examples_are_one_of_each_class_in_turn() -> None:
    labels = np.array([2, 2, 0, 1, -1, 0, 1, 2])
    assert choose_examples(labels, 3).tolist() == [2, 3, 0]
    assert choose_examples(labels, 99).tolist() == [2, 3, 0, 5, 6, 1, 7, 4]  # the unknown ones last
    with pytest.raises(UsageError, match="0 examples"):
        choose_examples(labels, 0)


@pytest.mark.parametrize("name", ["jmvae", "sshmvae", "sshmvae-kl", "jmvae-kl"])
def test_models_with_a_shared_latent_decode_its_mean(name: str) -> None:
    subject = tiny(name)
    x = subject.x(5)
    q = subject.model.q_z(**x) if name.startswith("jmvae") else subject.model.q_a(**x)
    latent = {"z" if name.startswith("jmvae") else "a": q.base_dist.loc}
    expected = subject.model.p_x["w"](**latent).base_dist.loc  # of the squared error
    assert torch.equal(subject.model.reconstruct(x, "w"), expected)


def test_ssmvae_takes_the_most_probable_label_and_the_latents_mean_with_it() -> None:
    subject = tiny("ssmvae", modalities=TWO)
    x = subject.x(20)
    reconstructed = subject.model.reconstruct(x, "x")
    label = subject.model.q_y(**x).logits.argmax(-1)
    assert len(label.unique()) > 1
    for r in range(subject.replicas):
        for b in range(20):
            y = torch.zeros(subject.replicas, 20, 3)
            y[..., int(label[r, b])] = 1
            z = subject.model.q_z(**x, y=y).mean
            assert torch.allclose(
                reconstructed[r, b], torch.sigmoid(subject.model.p_x["x"](z=z, y=y).base_dist.logits)[r, b]
            )


def test_m2_gives_its_own_part_of_the_joint_variable() -> None:
    subject = tiny("m2", modalities=ALIKE)
    x = subject.x(4)
    joint = torch.cat([subject.model.reconstruct(x, name) for name in ("x", "w")], dim=-1)
    assert [subject.model.reconstruct(x, name).shape[-1] for name in ("x", "w")] == [2, 1]
    y = torch.eye(3)[subject.model.classify(x).argmax(-1)]
    z = subject.model.q_z(x=torch.cat([x["x"], x["w"]], -1), y=y).mean
    assert torch.allclose(joint, subject.model.p_x(z=z, y=y).mean)


def test_every_completion_of_every_model_makes_the_target_from_the_given_alone(halves: dict[str, Run]) -> None:
    expected = {
        "jmvae": ["zeros", "iterative"], "jmvae-kl": ["encoders"], "m2": ["zeros"], "ssmvae": ["zeros"],
        "sshmvae": ["zeros", "iterative"], "sshmvae-kl": ["encoders"],
    }  # fmt: skip
    for loaded in load_runs(list(halves.values())):
        generated = generate(loaded, ["x"], "w", examples=6)
        assert list(generated.made) == expected[loaded.run.settings.model]
        test = loaded.shard.test
        assert np.array_equal(generated.true, test.features("w")[generated.rows])
        assert np.array_equal(generated.given["x"], test.features("x")[generated.rows])
        for values in generated.made.values():
            assert values.shape == (6, 8)
            assert ((values >= 0) & (values <= 1)).all()
        again = generate(loaded, ["x"], "w", examples=6)
        assert all(np.array_equal(again.made[completion], values) for completion, values in generated.made.items())


def test_a_trained_models_encoders_make_the_right_half(halves: dict[str, Run]) -> None:
    (loaded,) = load_runs([halves["sshmvae-kl"]])
    generated = generate(loaded, ["x"], "w", examples=12)
    nearest = np.abs(generated.made["encoders"][:, None] - generated.true[None]).mean(-1).argmin(1)
    labels = loaded.shard.test.labels[generated.rows]
    assert (labels[nearest] == labels).mean() >= 0.75  # chance is a third


def test_what_cannot_be_made_is_refused(halves: dict[str, Run], tmp_path: Path) -> None:
    (loaded,) = load_runs([halves["ssmvae"]])
    for given, target, words in ((["x"], "x", "choose another"), (["x"], "v", "no modality 'v'"), ([], "x", "nothing")):
        with pytest.raises(UsageError, match=words):
            generate(loaded, given, target)
    shard = make_shard(tmp_path / "shard.h5", HALVES)
    (alone,) = load_runs(run_stack(tmp_path, [make_settings("sdgm", shard, epochs=1)], [shard]))
    with pytest.raises(UsageError, match="trained on x alone"):
        generate(alone, ["x"], "w")


def test_the_form_of_an_image(tmp_path: Path) -> None:
    kinds = {"square": (Modality("a", 9, "bernoulli"), Modality("b", 9, "bernoulli")), "halves": HALVES}
    shapes = {}
    for name, modalities in kinds.items():
        shard = make_shard(tmp_path / f"{name}.h5", modalities)
        shapes[name] = [image_shape(shard, m.name) for m in modalities]
    assert shapes == {"square": [(3, 3), (3, 3)], "halves": [(4, 2), (4, 2)]}
    features = (Modality("f", 4, "nonnegative"), Modality("g", 7, "bernoulli"), Modality("h", 6, "gaussian"))
    shard = shard_of(tmp_path, *features, provenance={"shape": {"h": [3, 2]}})
    assert [image_shape(shard, name) for name in "fgh"] == [None, None, (3, 2)]
    wrong = make_shard(tmp_path / "wrong.h5", HALVES, provenance={"shape": {"x": [3, 3]}})
    with pytest.raises(DataError, match="the shape"):
        image_shape(wrong, "x")


def test_the_picture_shows_the_true_half_bright_and_the_given_one_faint(halves: dict[str, Run]) -> None:
    (panel,) = panels([halves["sshmvae"]], given=["w"], target="x", examples=3)
    assert list(panel.made) == ["SS-HMVAE", "SS-HMVAE (iterative)"]
    axis = draw_panels([panel]).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["true x", "SS-HMVAE", "SS-HMVAE (iterative)"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["cup", "bowl", "spoon"]
    image = np.asarray(axis.images[0].get_array())
    test = Shard.open(Path(halves["sshmvae"].provenance()["shard"])).test
    row = panel.rows[1]
    left, right = test.features("x")[row].reshape(4, 2), test.features("w")[row].reshape(4, 2)
    second = image[:4, 5:9]  # four pixels and a gap further
    assert np.allclose(second[..., 0], np.concatenate([left, FAINT[0] * right], axis=1), atol=1e-6)
    assert (image[:4, 4, 3] == 0).all()  # the gap is clear
    iterative = panel.made["SS-HMVAE (iterative)"][1].reshape(4, 2)
    assert np.allclose(image[-4:, 5:7, 0], iterative, atol=1e-6)


def test_figure_5_shows_both_directions_of_every_run(halves: dict[str, Run], tmp_path: Path) -> None:
    runs = [halves[model] for model in ("sshmvae-kl", "ssmvae", "sshmvae")]
    figure = generation_figure(runs)
    assert [axis.get_title() for axis in figure.axes] == ["x from w, clusters", "w from x, clusters"]
    rows = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert rows == ["true x", "SS-MVAE", "SS-HMVAE", "SS-HMVAE (iterative)", "SS-HMVAE-kl"]
    figure5(runs, tmp_path / "figure5.png")
    assert (tmp_path / "figure5.png").read_bytes().startswith(b"\x89PNG")


def test_features_without_a_form_are_written_as_numbers(tmp_path: Path) -> None:
    modalities = (Modality("x", 5, "nonnegative"), Modality("w", 4, "gaussian"))
    shard = shard_of(tmp_path, *modalities, test=clusters("test", turns(12), modalities, seed=1))
    (run,) = run_stack(tmp_path, [make_settings("sshmvae", shard)], [shard])
    with pytest.raises(UsageError, match="are not an image") as refused:
        write_generated([run], tmp_path / "made.png", given=["x"], target="w")
    assert "made.npz" in (refused.value.hint or "")
    assert not (tmp_path / "made.png").exists()
    write_generated([run], tmp_path / "made.npz", given=["x"], target="w", examples=4)
    with np.load(tmp_path / "made.npz", allow_pickle=False) as numbers:
        assert numbers["methods"].tolist() == ["SS-HMVAE", "SS-HMVAE (iterative)"]
        assert numbers["made"].shape == (2, 4, 4)
        assert numbers["from x"].shape == (4, 5)
        assert numbers["label"].tolist() == [0, 1, 2, 0]
        assert numbers["id"].tolist() == ["test-0", "test-1", "test-2", "test-3"]
        assert np.array_equal(numbers["true"], shard.test.features("w")[:4])
    with pytest.raises(UsageError, match="at once"):
        write_generated([run], tmp_path / "both.npz")
