"""Six modalities, 63 subsets: what `train`, `evaluate`, `runs`, `report` and `compare` show of them."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from pipeline.shards.shard import Modality
from tests.support.commands import Command
from tests.support.small_networks import SSHMVAE_KL, as_assignment
from tests.support.training import make_shard

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
SHOWN = [*VIEWS, *(f"all but {view}" for view in reversed(VIEWS)), "all 6"]
ALL = {"+".join(subset) for size in range(1, 7) for subset in combinations(VIEWS, size)}
OTHERS = "50 other subsets of the modalities"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return make_shard(tmp_path / "views.h5", [Modality(view, 3, "gaussian") for view in VIEWS]).path


def rows(out: str) -> list[list[str]]:
    """The cells of the tables that a command printed."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def columns(page: str, of: str) -> list[str]:
    """The heads of the columns of the table on an HTML page that lies in a frame of this label."""
    table = page.split(f'aria-label="{of}"', 1)[1].split("</table>", 1)[0]
    return re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', table)


def test_six_modalities_are_readable_everywhere_and_whole_in_json(mmssl: Command, shard: Path) -> None:
    command = ("train", "sshmvae-kl", "--data", shard, "--labels", 6, "--epochs", 2, "--seeds", "0..1", "--alpha",
               "1,2", "--preset", "mnist", "--set", as_assignment(SSHMVAE_KL), "--batch-size", 8)  # fmt: skip
    done = mmssl(*command)
    assert done.code == 0, done.err
    shown, _, below = done.out.partition("paired over")
    assert [row[1] for row in rows(shown)] == 2 * SHOWN
    assert f"{OTHERS}: --json" in done.out.splitlines()
    differences, _, references = below.partition("for reference")
    assert [row[1] for row in rows(differences)] == [*VIEWS, "all 6"]
    assert [row[1] for row in rows(references)] == 2 * [*VIEWS, "all 6"]
    runs = [line for line in done.out.splitlines() if line.startswith("/")]

    evaluated = mmssl("evaluate", runs[0])
    assert [row[0] for row in rows(evaluated.out.partition("ELBO")[0])] == SHOWN
    assert f"{OTHERS}: --json" in evaluated.out.splitlines()
    (whole,) = mmssl("evaluate", runs[0], "--json").json
    assert {score["given"] for score in whole["scores"]} == ALL
    listed = mmssl("runs")
    assert "all but fou " in listed.out
    assert f"{OTHERS}: --json" in listed.out.splitlines()

    reported = mmssl("report", "--html", "r.html", "--markdown", "r.md", "--json", "r.json")
    assert reported.code == 0, reported.err
    page = Path("r.html").read_text()
    assert len(page) < 2_000_000
    heads = ["setting", "completion", *(f"given {subset}" for subset in SHOWN), "runs"]
    assert columns(page, "accuracy on clusters") == heads
    assert f"<summary>{OTHERS}</summary>" in page
    folded = page.split(f"<summary>{OTHERS}</summary>", 1)[1].split("</details>", 1)[0]
    assert re.findall(r"<td>any (\d)</td><td>(\d+)</td>", folded) == 2 * [("2", "15"), ("3", "20"), ("4", "15")]
    assert page.count("for each modality alone, all but one, and all") == 1  # the curves
    text = Path("r.md").read_text()
    assert f"| {' | '.join(heads)} |" in text
    assert f"{OTHERS} are in the JSON" in text
    content = json.loads(Path("r.json").read_text())
    assert {row["given"] for row in content["tables"][0]["rows"]} == ALL
    assert {score["given"] for score in content["runs"][0]["result"]["scores"]} == ALL


def test_a_comparison_names_all_modalities_in_short(mmssl: Command, shard: Path) -> None:
    done = mmssl(
        "compare", shard, "--labels", 6, "--seeds", "0", "--rivals", "logistic-regression", "--presets", "mnist",
        "--set", as_assignment(SSHMVAE_KL), "--set", "epochs=1", "--out", "compared",
    )  # fmt: skip
    assert done.code == 0, done.err
    head = next(line for line in done.out.splitlines() if "system" in line)
    assert [cell.strip() for cell in head.split("┃")[1:-1]][:8] == ["system", *VIEWS, "all 6"]
    assert "+".join(VIEWS) not in done.out
