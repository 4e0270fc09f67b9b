"""What a report shows of runs that are unlike the rest: co-trained systems, and data that are streamed."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Part
from tests.support.training import CPU, clusters, make_settings, make_shard, run_stack, turns
from trainer.data.streaming import Streamed
from trainer.evaluation.metrics import Score
from trainer.inference.generation import features_of, generate
from trainer.inference.loading import load_runs
from trainer.reporting.diagnostics import latents, predict
from trainer.reporting.generated_images import write_generated
from trainer.reporting.page import compose
from trainer.reporting.page_figures import draw_models
from trainer.reporting.render import as_json, html, markdown
from trainer.training.run_folder import Run

HALVES = (Modality("x", 8, "bernoulli"), Modality("w", 8, "bernoulli"))  # of an image of 4 x 4
APART = "CT+SVM and co-training: classifiers without a generative model"


def first_accuracies(scores: tuple[Score, ...]) -> dict[str, float]:
    accuracies: dict[str, float] = {}
    for score in scores:
        accuracies.setdefault(score.given, score.accuracy)
    return accuracies


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and not turned into files, which takes longer."""
    monkeypatch.setattr("trainer.reporting.page_figures.render", lambda *_: b"<svg/>")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run of either co-trained system, of ssmvae, and of sdgm on x alone."""
    folder = tmp_path_factory.mktemp("unlike")
    shard = make_shard(folder / "shard.h5", HALVES)
    models = ("ct-svm", "cotraining", "ssmvae", "sdgm")
    return [run_stack(folder / name, [make_settings(name, shard)], [shard])[0] for name in models]


def test_a_report_of_co_trained_systems_says_what_they_do_not_have(runs: list[Run]) -> None:
    page = compose([], runs[:2], CPU)
    (data_set,) = page.data_sets
    assert data_set.missing == ()
    assert [picture.title for picture in data_set.pictures] == ["Co-training on clusters"]
    assert [closer.title for closer in data_set.closer] == ["CT+SVM", "co-training"]
    for closer, run in zip(data_set.closer, runs, strict=False):
        assert [picture.title for picture in closer.pictures] == [
            "Confusion matrices (% of the true class)",
            "Reliability",
        ]
        assert "no latent space" in closer.about
        accuracy = first_accuracies(run.result().scores)["x+w"]
        assert f"{100 * accuracy:.1f} % given x+w" in closer.pictures[0].alt
    for form in (html(page), markdown(page)):
        assert APART in form.replace("\\", "")
        assert "could not be drawn" not in form
    assert len(json.loads(as_json(page))["runs"]) == 2


@pytest.mark.usefixtures("unrendered")
def test_a_mixture_shows_what_each_has(runs: list[Run]) -> None:
    page = compose([], runs, CPU)
    (data_set,) = page.data_sets
    assert [picture.title for picture in data_set.pictures] == [
        "Training on clusters", "Co-training on clusters", "One modality generated from the other"
    ]  # fmt: skip
    assert [closer.title for closer in data_set.closer] == [
        "SDGM on x",
        "SS-MVAE",
        "CT+SVM",
        "co-training",
    ]  # the paper's order
    assert [line.split(":")[0] for line in data_set.apart] == ["CT+SVM and co-training", "SDGM on x"]
    text = html(page)
    order = [text.index(f'rowspan="1">{name}') for name in ("SDGM", "SS-MVAE", "CT+SVM", "co-training")]
    assert order == sorted(order)


def test_no_one_generates_with_a_co_trained_system(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds ct-svm, which has no latent variable and generates nothing"):
        write_generated(runs[:1], tmp_path / "w.png", given=["x"], target="w")


@pytest.mark.usefixtures("unrendered")
def test_features_that_are_no_images_are_said_to_be_so(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (Modality("x", 5, "nonnegative"), Modality("w", 4, "gaussian")))
    look = draw_models(run_stack(tmp_path, [make_settings("sshmvae", shard)], [shard]), CPU)
    assert look.generated == ()
    assert [line.split(",")[0] for line in look.apart] == ["The values of these modalities are not images"]


@pytest.mark.usefixtures("unrendered")
def test_a_streamed_runs_pictures_are_those_of_the_same_run_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (clusters(name, turns(rows), HALVES, seed=rows) for name, rows in (("train", 300), ("test", 90)))
    shard = make_shard(tmp_path / "shard.h5", HALVES, train=train, test=test)
    (run,) = run_stack(tmp_path, [make_settings("sshmvae-kl", shard, window=100)], [shard])
    (whole,) = load_runs([Run(run.folder, run.settings.model_copy(update={"window": None}))])

    read = []
    pieces = Part.pieces

    def counted(part: Part, names, rows):  # type: ignore[no-untyped-def]
        for piece in pieces(part, names, rows):
            read.append(max(len(values) for values in piece.values()))
            yield piece

    monkeypatch.setattr(Part, "pieces", counted)
    monkeypatch.setattr(Part, "features", None)  # nobody asks for all of a modality
    (loaded,) = load_runs([run])
    assert isinstance(loaded.data, Streamed)
    assert len(loaded.data.label) < shard.train.rows
    given, expected = predict(loaded), predict(whole)
    assert given.keys() == expected.keys() == {"x", "w", "x+w"}
    for name, (log_q, label) in given.items():
        assert np.allclose(log_q, expected[name][0], atol=1e-5)
        assert label.tolist() == shard.test.labels.tolist()
    found = latents(loaded, points=70)
    for name, (expected_points, _) in latents(whole, points=70).items():
        points, label = found[name]
        assert np.allclose(points, expected_points, atol=1e-5)
        assert label.tolist() == shard.test.labels[:70].tolist()
    generated, same = (generate(source, ["x"], "w", examples=7) for source in (loaded, whole))
    assert generated.rows.tolist() == same.rows.tolist()
    assert np.allclose(generated.made["encoders"], same.made["encoders"], atol=1e-5)
    assert max(read) <= 25  # rows at a time: a quarter of a window
    look = draw_models([run], CPU)
    assert [picture.title for picture in look.closer[0].pictures] == [
        "Latent space", "Confusion matrices (% of the true class)", "Reliability"
    ]  # fmt: skip
    assert (len(look.generated), look.missing) == (1, ())


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    test = make_shard(tmp_path / "shard.h5").test
    rows = np.array([7, 0, 11, 3])
    features = features_of(test, ["w", "x"], rows)
    assert {name: values.tolist() for name, values in features.items()} == {
        name: test.features(name)[rows].tolist() for name in ("w", "x")
    }
