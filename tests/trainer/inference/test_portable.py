"""What a bundle holds for programs without mmssl answers every subset of the modalities as `mmssl predict` does."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from commands.encoders import exports_of
from pipeline.runtime.arrays import write_npz
from pipeline.runtime.errors import DataError
from pipeline.runtime.onnx_files import OnnxFile, read_program
from pipeline.shards.schema import Features, Modality
from tests.support.training import CPU, make_settings, make_shard, run_stack
from tests.support.without_mmssl import needs_onnx, run_blocked, run_onnx
from trainer.inference import comparison
from trainer.inference.bundle import CARD, Bundle
from trainer.inference.bundle_reading import read_card
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.card import BundleCard
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel, of_bundle, open_model
from trainer.inference.portable import ONNX, PRESENT, PROGRAM, free_name
from trainer.training.run_folder import Run

needs_onnx()
Runs = Callable[[str], list[Run]]
CLOSE = 1e-4  # measured: 1.2e-7
SIX = tuple(Modality(name, 2, "gaussian") for name in ("a", "b", "probabilities", "left hand", "ü", "z"))
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sshmvae", "ssmvae", "m2", "three", "six")]


@pytest.fixture(scope="module")
def exported(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Bundle, Path]]:
    """A bundle of two seeds of a model and its folder with both kinds of files; `six` has six modalities."""

    @cache
    def make(name: str) -> tuple[Bundle, Path]:
        folder = tmp_path_factory.mktemp(name)
        trained = six_modalities(folder) if name == "six" else runs(name)
        bundle = gather(trained)
        write_bundle(bundle, folder / "model", exports_of(True, True, []))
        return bundle, folder / "model"

    return make


def six_modalities(folder: Path) -> list[Run]:
    shard = make_shard(folder / "shard.h5", SIX)
    return run_stack(folder, [make_settings("sshmvae-kl", shard, epochs=2, pooling="product")], [shard])


def random_rows(model: LoadedModel, rows: int) -> dict[str, Features]:
    """Values of each modality's distribution, not scaled."""
    rng = np.random.default_rng(7)
    values = {m.name: rng.random((rows, m.width), np.float32) for m in model.modalities}
    return {name: v * 6 if name in model.bundle.scaling else v for name, v in values.items()}


def every_pattern(modalities: int, times: int) -> NDArray[np.bool_]:
    """Every subset, several times over, in a mixed order, `[N, M]`."""
    patterns = [p for p in itertools.product([False, True], repeat=modalities) if any(p)]
    return np.random.default_rng(3).permutation(np.array(patterns * times, np.bool_))


@pytest.mark.parametrize("name", ["sshmvae-kl", "sdgm", *SLOW])
def test_every_model_answers_every_subset_as_in_torch(
    name: str, exported: Callable[[str], tuple[Bundle, Path]]
) -> None:
    bundle, folder = exported(name)
    model = of_bundle(bundle, CPU)
    assert {export.file for export in read_card(folder).exports} == {ONNX, PROGRAM}
    assert all(export.greatest_difference < CLOSE for export in read_card(folder).exports)
    has = every_pattern(len(model.modalities), 3)
    x = random_rows(model, len(has))
    wanted = model.predict_proba(x, {m: has[:, k] for k, m in enumerate(x)})
    written = OnnxFile(folder / ONNX)
    assert written.inputs == (*x, PRESENT)
    np.testing.assert_allclose(written([*x.values(), has]), wanted, atol=CLOSE)
    for row in range(min(10, len(has))):
        one = written([*(column[row : row + 1] for column in x.values()), has[row : row + 1]])
        np.testing.assert_allclose(one, wanted[row : row + 1], atol=CLOSE)
    assert written([*(column[:0] for column in x.values()), has[:0]]).shape == (0, len(bundle.card.classes))


def test_rows_of_nan_are_missing_and_rows_that_predict_refuses_get_nan(
    exported: Callable[[str], tuple[Bundle, Path]],
) -> None:
    bundle, folder = exported("sshmvae-kl")
    model, written = of_bundle(bundle, CPU), OnnxFile(folder / ONNX)
    x = random_rows(model, 7)
    wanted = model.predict_proba({"x": x["x"], "w": None})
    x["w"][0] = np.nan
    x["w"][1] = 1e30
    x["w"][2, 0] = np.nan
    x["w"][3] = -1
    x["w"][4, 1] = np.inf
    x["x"][5] = 255
    has = np.ones((7, 2), np.bool_)
    has[1, 1] = has[6, 0] = has[6, 1] = False
    found = written([x["x"], x["w"], has])
    np.testing.assert_allclose(found[:2], wanted[:2], atol=CLOSE)
    assert np.isnan(found[2:]).all()


def test_an_output_gets_another_name_than_every_modality() -> None:
    assert free_name("features", ("features", "features'")) == "features''"
    assert free_name("features", ("x", "w")) == "features"


def test_the_runner_needs_neither_mmssl_nor_torch(
    exported: Callable[[str], tuple[Bundle, Path]], tmp_path: Path
) -> None:
    bundle, folder = exported("sshmvae-kl")
    model = of_bundle(bundle, CPU)
    x = random_rows(model, 5)
    x["w"][2] = np.nan
    for name, values in x.items():
        np.save(tmp_path / f"{name}.npy", values)
    for names in (("x", "w"), ("x",)):
        given = {name: x[name] for name in names}
        wanted = model.predictions(given)
        lines = run_onnx(folder, [f"{name}={name}.npy" for name in names], tmp_path)
        assert [line[0] for line in lines] == [bundle.card.classes[k] for k in wanted.label]
        np.testing.assert_allclose([line[1] for line in lines], wanted.probability, atol=1e-4)


@pytest.mark.slow
def test_the_program_of_torch_export_needs_torch_alone(
    exported: Callable[[str], tuple[Bundle, Path]], tmp_path: Path
) -> None:
    bundle, folder = exported("sshmvae-kl")
    model = of_bundle(bundle, CPU)
    x, has = random_rows(model, 6), every_pattern(2, 2)
    write_npz(tmp_path / "rows.npz", {**x, "has": has})
    code = (
        "import numpy, torch\nrows = numpy.load('rows.npz')\nprogram = torch.export.load(sys.argv[1]).module()\n"
        "given = [torch.from_numpy(rows[name]) for name in ('x', 'w', 'has')]\n"
        "with torch.no_grad():\n    numpy.save('found.npy', program(*given).numpy())\n"
        "    assert program(*(one[:1] for one in given)).shape == (1, 3)\n"
    )
    run_blocked(code, [folder / PROGRAM], tmp_path, ("onnx", "onnxruntime"))
    wanted = model.predict_proba(x, {"x": has[:, 0], "w": has[:, 1]})
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), wanted, atol=CLOSE)


def test_the_files_are_the_same_again_and_name_no_path_of_this_machine(
    exported: Callable[[str], tuple[Bundle, Path]],
) -> None:
    bundle, folder = exported("sdgm")
    write_bundle(bundle, folder, exports_of(True, True, []))  # leaves it as it is, being the same
    content = (folder / ONNX).read_bytes() + (folder / PROGRAM).read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b".py" not in (folder / ONNX).read_bytes()
    assert b"model.p_x" not in (folder / ONNX).read_bytes()  # no decoder
    page = (folder / "README.md").read_text()
    assert "python run_onnx.py x=x.npy" in page
    assert PROGRAM in page


def test_a_changed_file_matters_to_who_uses_it(exported: Callable[[str], tuple[Bundle, Path]], tmp_path: Path) -> None:
    bundle, _ = exported("sdgm")
    folder = tmp_path / "model"
    write_bundle(bundle, folder, exports_of(True, False, []))
    assert {one.file for one in read_card(folder).exports} == {ONNX}
    (folder / ONNX).write_bytes((folder / ONNX).read_bytes()[:-1])
    open_model(folder, "cpu", lambda *_: lambda _: np.empty((0, 6), np.float32), lambda *_: Path())  # does not use it
    with pytest.raises(DataError, match="exists and holds something else"):
        write_bundle(bundle, folder, exports_of(True, False, []))


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_files_that_differ_too_much_are_refused_and_nothing_is_left(
    limit: float, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MOST_DIFFERENT", limit)
    with pytest.raises(DataError, match="would give other probabilities than mmssl predict"):
        write_bundle(gather(runs("sdgm")[:1]), tmp_path / "model", exports_of(False, True, []))
    assert not list(tmp_path.iterdir())


def test_a_card_of_the_first_format_is_read_and_has_neither_exports_nor_curves(
    exported: Callable[[str], tuple[Bundle, Path]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported("sdgm")[1], tmp_path / "old"))
    values = json.loads((folder / CARD).read_text())
    assert values["format"] == 3
    with pytest.raises(ValueError, match="a card of format 1 has no exports"):
        BundleCard.model_validate(values | {"format": 1})
    subsets = [subset | {"curve": []} for subset in values["subsets"]]
    old = BundleCard.model_validate(values | {"format": 1, "exports": [], "subsets": subsets}).sealed()
    content = old.content()
    assert "exports" not in content
    assert not any("curve" in subset for subset in content["subsets"])
    (folder / CARD).write_text(json.dumps(content))
    assert read_card(folder) == old


def test_a_file_that_is_no_onnx_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ONNX).write_bytes(b"no")
    with pytest.raises(DataError, match="onnxruntime cannot read it"):
        OnnxFile(tmp_path / ONNX)
    with pytest.raises(DataError, match="torch cannot read it"):
        read_program(tmp_path / ONNX)


def test_rows_to_compare_are_of_every_subset_even_where_the_check_lacks_a_modality(runs: Runs) -> None:
    bundle = gather(runs("three"))
    nothing = bundle.check.present.copy()
    nothing[:, 0] = False
    nothing[:, 1] = True
    bundle = replace(bundle, check=replace(bundle.check, present=nothing))
    rows = comparison.Comparison(bundle, bundle.predictor(CPU))
    assert rows.rows == 7 * (len(nothing) + comparison.RANDOM_ROWS)
    assert len(comparison._subsets(12)) == 12 * comparison.SUBSETS_PER_SIZE
