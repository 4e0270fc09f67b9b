"""`mmssl generate` and `mmssl report`, and the report in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import Command
from tests.support.small_networks import SSHMVAE_KL, SSMVAE, as_toml

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TABLE = {
    "name": "table4", "title": "Table 4: one modality missing", "reduced": ["1 epoch instead of 500"],
    "blocks": [{
        "title": "hm-mnist", "columns": ["x, the left half", "w, the right half", "x+w, both halves of the digit"],
        "rows": [
            {"name": name, "cells": [
                {
                    "printed": {"mean": 90.75},
                    "measured": {"mean": 91.0, "std": 0.42, "values": [90.7, 91.3], "runs": ["r", "s"]},
                }
            ] * 3}
            for name in ("SS-MVAE", "SS-HMVAE (iterative)", "SS-HMVAE-kl, beta 0.1")
        ],
    }],
}  # fmt: skip

# Measures the page within its frame, and tells the frame's owner.
MEASURE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  width: innerWidth,
  needed: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  ground: getComputedStyle(document.body).backgroundColor,
  tables: [...document.querySelectorAll("table")].filter(e => e.closest("details") === null && e.offsetHeight).length,
  scrolling: [...document.querySelectorAll("section > .scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
  pictures: document.images.length,
  broken: [...document.images].filter(e => !e.naturalWidth).length,
}), "*"))</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser makes of the page, and what it complains about."""

    facts: dict[str, object]
    complaints: list[str]


def look(page: Path, width: int, *, dark: bool = False) -> Seen:
    """Opens the page in a frame of this width: a browser's own window cannot be as narrow as a phone."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium here, so nobody looks at the report: apt-get install chromium")
    folder = page.parent
    (folder / "measured.html").write_text(page.read_text().replace("</body>", f"{MEASURE}</body>"))
    (folder / "frame.html").write_text(
        f'<!doctype html><iframe src="measured.html" style="border:0;width:{width}px;height:800px"></iframe><script>'
        'addEventListener("message", e => document.documentElement.setAttribute("data-seen", e.data))</script>'
    )
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
            "--window-size=1400,900", f"--blink-settings=preferredColorScheme={int(not dark)}", "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    measured = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert measured, done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(measured[1].replace("&quot;", '"')), complaints)


@pytest.fixture
def trained(mmssl: Command) -> list[str]:
    """Folders of a run of ssmvae and one of sshmvae-kl on the bundled digits."""
    folders = []
    for model, networks in (("ssmvae", SSMVAE), ("sshmvae-kl", SSHMVAE_KL)):
        Path(f"{model}.toml").write_text(as_toml(networks))
        (run,) = mmssl("train", model, "--config", f"{model}.toml", "--epochs", 1, "--json").json
        folders.append(run["folder"])
    return folders


def test_generate_draws_or_writes_one_modality_from_the_other(mmssl: Command, trained: list[str]) -> None:
    done = mmssl("generate", *trained, "--from", "x", "--to", "w", "--examples", 12)
    assert Path(done.out.strip()) == Path("w-from-x.png").resolve()
    assert Path("w-from-x.png").read_bytes().startswith(b"\x89PNG")
    assert mmssl("generate", *trained, "--from", "w", "--to", "x", "--out", "x.npz").code == 0
    with np.load("x.npz") as numbers:
        assert numbers["methods"].tolist() == ["SS-MVAE", "SS-HMVAE-kl"]
        assert numbers["made"].shape == (2, 10, 32)
        assert numbers["label"].tolist() == list(range(10))
    same = mmssl("generate", trained[0], "--from", "x", "--to", "x")
    assert (same.code, same.sentence) == (2, "error: x from x: choose another modality to generate it from")
    assert mmssl("generate", trained[0], "--from", "x", "--to", "w", "--out", "w.gif").code == 2
    assert mmssl("generate", "nowhere", "--from", "x", "--to", "w").code == 1


def test_report_makes_one_page_that_a_browser_shows_on_a_phone_light_and_dark(
    mmssl: Command, trained: list[str]
) -> None:
    assert trained
    Path("results").mkdir()
    Path("results/table4.json").write_text(json.dumps(TABLE))
    done = mmssl("report", "results", "workspace/runs", "--html", "out.html", "--markdown", "out.md", "--json", "out.json")  # fmt: skip  # noqa: E501
    assert [Path(line).name for line in done.out.split()] == ["out.html", "out.md", "out.json"]
    content = json.loads(Path("out.json").read_text())
    assert {run["settings"]["model"] for run in content["runs"]} == {"ssmvae", "sshmvae-kl"}
    assert content["outcomes"][0]["name"] == "table4"
    text = Path("out.md").read_text()
    assert "91.00 ± 3.81 / 90.75 (+0.25)" in text
    assert "1 epoch instead of 500" in text
    page = Path("out.html").resolve()
    phone = look(page, 360)
    assert phone.complaints == []
    assert phone.facts == {
        "width": 360, "needed": 360, "dark": False, "ground": "rgb(251, 251, 250)", "tables": 2, "scrolling": 2,
        "pictures": 8, "broken": 0,
    }  # fmt: skip
    dark = look(page, 1280, dark=True)
    assert dark.complaints == []
    assert dark.facts == phone.facts | {
        "width": 1280, "needed": 1280, "dark": True, "ground": "rgb(18, 22, 27)", "scrolling": 0
    }  # fmt: skip


def test_report_without_arguments_takes_the_workspaces_runs(mmssl: Command) -> None:
    refused = mmssl("report")
    assert (refused.code, "train a run: mmssl train sshmvae-kl" in refused.err) == (1, True)
    Path("ssmvae.toml").write_text(as_toml(SSMVAE))
    mmssl("train", "ssmvae", "--config", "ssmvae.toml", "--epochs", 1)
    done = mmssl("report", "--no-models")
    assert Path(done.out.strip()) == Path("report.html").resolve()
    assert "Runs on hm-digits" in Path("report.html").read_text()
