"""The page of `mmssl serve` in a real browser: its numbers are those of `mmssl predict`, and everybody can use it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from tests.support.browser import DESKTOP, PHONE, chromium, drop, focused, page_at
from tests.support.commands import Command
from tests.support.served import CLASSES, PictureModel, make_picture_model, serving, tiny_networks

CLOSE = 2e-6  # the page's numbers have six digits
REFUSAL = "Failed to load resource: the server responded with a status of 422"  # the browser's own line


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def model(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PictureModel]:  # noqa: ARG001
    """Made only where there is a browser."""
    with tiny_networks():
        yield make_picture_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def address(model: PictureModel) -> Iterator[str]:
    with serving(model.server().application()) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with page_at(browser, address) as opened:
        yield opened


def answered(page: Any) -> None:
    page.wait_for_selector("#said:not([hidden])")
    page.wait_for_selector("body:not(.busy)")


def probabilities(page: Any, column: str) -> dict[str, float]:
    """What the page shows in one column, by class; each number as it is written, and to six digits."""
    head, rows = page.evaluate(
        """() => [[...document.querySelectorAll("#classes thead th")].map((cell) => cell.innerText),
          [...document.querySelectorAll("#classes tbody tr")].map((row) => [row.querySelector("th").innerText,
            [...row.querySelectorAll("data")].map((data) => [data.value, data.innerText])])]"""
    )
    found = {}
    for name, cells in rows:
        value, written = cells[head.index(column) - 1]
        assert written == f"{100 * float(value):.1f} %"
        found[name] = float(value)
    return found


def predicted(mmssl: Command, model: PictureModel, **pictures: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What `mmssl predict` says of the same files."""
    given = [word for camera, path in pictures.items() for word in (f"--{camera}", path)]
    done = mmssl("predict", model.bundle, *given, "--probabilities", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["predictions"]
    return row, {name: row[f"p({name})"] for name in CLASSES}


def verdict(page: Any) -> tuple[str, str]:
    return page.locator("#label").inner_text(), page.locator("#probability").inner_text()


def test_dropped_pictures_are_answered_as_predict_answers_them(page: Any, model: PictureModel, mmssl: Command) -> None:
    files = {camera: model.picture(1, camera) for camera in ("rgb", "depth")}
    named = {camera: path.rename(path.with_name(f"{camera}-1.png")) for camera, path in files.items()}
    drop(page, "#m-1", [named["depth"], named["rgb"]])  # both at once: their names say which is which
    answered(page)
    row, both = predicted(mmssl, model, **named)
    assert probabilities(page, "together") == pytest.approx(both, abs=CLOSE)
    assert verdict(page) == (row["label"], f"{100 * row['probability']:.1f} %")
    assert f"than {row['unlikeness']:.1f} %" in page.locator("#unlike").inner_text()
    assert page.locator(".modality img").count() == 2
    for camera, switch in (("RGB", "depth"), ("depth", "RGB")):
        page.get_by_role("switch", name=f"{switch} in use").click()
        row, alone = predicted(mmssl, model, **{camera.lower(): named[camera.lower()]})
        assert probabilities(page, f"{camera} alone") == pytest.approx(alone, abs=CLOSE)
        assert verdict(page) == (row["label"], f"{100 * row['probability']:.1f} %")
        assert "switched off" in page.get_by_role("group", name=switch, exact=True).inner_text()
        page.get_by_role("switch", name=f"{switch} in use").click()
    for path in named.values():
        path.rename(path.with_name("0001.png"))


def test_one_picture_after_the_other_and_one_taken_away(page: Any, model: PictureModel, mmssl: Command) -> None:
    page.get_by_label("choose picture for RGB").set_input_files(model.picture(2, "rgb"))
    answered(page)
    row, alone = predicted(mmssl, model, rgb=model.picture(2, "rgb"))
    assert verdict(page)[0] == row["label"]
    assert probabilities(page, "RGB") == pytest.approx(alone, abs=CLOSE)
    drop(page, "body", [model.picture(2, "depth")])  # beside the boxes: where one is free
    page.wait_for_selector("#m-1 img")
    answered(page)
    both = predicted(mmssl, model, rgb=model.picture(2, "rgb"), depth=model.picture(2, "depth"))[1]
    assert probabilities(page, "together") == pytest.approx(both, abs=CLOSE)
    page.get_by_role("button", name="remove depth").click()
    page.wait_for_selector("#m-1 img", state="detached")
    answered(page)
    assert probabilities(page, "RGB") == pytest.approx(alone, abs=CLOSE)


def test_a_file_that_is_refused_leaves_what_was_there(page: Any, model: PictureModel, tmp_path: Path) -> None:
    page.get_by_label("choose picture for RGB").set_input_files(model.picture(3, "rgb"))
    answered(page)
    before = verdict(page)
    (tmp_path / "notes.txt").write_text("no picture")
    drop(page, "#m-1", [tmp_path / "notes.txt"])
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "notes.txt: not a readable picture" in problem.inner_text()
    assert verdict(page) == before
    assert page.locator(".modality img").count() == 1
    assert len(page.console_lines) == 1
    assert page.console_lines.pop().startswith(REFUSAL)
    drop(page, "#m-0", [tmp_path / "notes.txt"] * 3)
    assert "These are 3 files, and a row has RGB + depth." in problem.inner_text()
    page.get_by_label("choose picture for depth").set_input_files(model.picture(3, "depth"))
    page.wait_for_selector("#m-1 img")
    assert problem.count() == 0


def test_a_camera_stays_off_from_example_to_example_and_a_threshold_can_be_moved(page: Any) -> None:
    examples = page.locator("#examples").get_by_role("button")
    examples.first.click()
    answered(page)
    off = page.get_by_role("switch", name="depth in use")
    off.click()
    examples.nth(4).click()
    answered(page)
    page.wait_for_selector("#m-0 img")
    assert off.get_attribute("aria-checked") == "false"
    assert examples.nth(4).get_attribute("aria-pressed") == "true"
    assert page.locator("#nearest li").count() == 4
    assert page.locator("#behind-title").inner_text() == "What depth would have seen"
    now = page.locator("#coverage tr.now").inner_text()
    assert now.startswith("RGB (now)")
    page.locator("#threshold").press("Home")
    assert "It answers" in page.locator("#stance").inner_text() or "right on" in page.locator("#stance").inner_text()
    page.locator("#threshold").press("End")
    assert "would rather not answer" in page.locator("#stance").inner_text()
    page.get_by_role("button", name="the model’s own thresholds").click()
    assert page.locator("#coverage tr.now").inner_text() == now
    page.get_by_role("switch", name="RGB in use").click()
    assert "Everything is switched off" in page.locator("#nothing").inner_text()
    examples.nth(2).click()  # which switches everything on again
    answered(page)
    assert off.get_attribute("aria-checked") == "true"


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Any) -> None:
    page.wait_for_selector(".example")
    walked = []
    for _ in range(60):
        page.keyboard.press("Tab")
        where = focused(page)
        if where is None:
            break
        walked.append(where)
    names = [name for name, _ in walked]
    wanted = ["To the answer", "For programs", "choose picture for RGB", "choose picture for depth"]
    assert [name for name in names if name in wanted] == wanted
    assert sum("frame" in name for name in names) == 9  # the examples
    assert any(name.startswith("Answer only if") for name in names)
    assert min(width for _, width in walked) >= 2, walked
    page.keyboard.press("Tab")
    while "frame" not in (focused(page) or ("",))[0]:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    answered(page)
    while focused(page) != ("RGB in use", 3.0):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert page.get_by_role("switch", name="RGB in use").get_attribute("aria-checked") == "false"
    assert page.locator("#live").text_content().startswith("depth: ")


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, True), (PHONE, False)], ids=["desktop, dark", "phone, light"])
def test_roles_labels_and_contrast(browser: Any, address: str, size: dict[str, int], dark: bool) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="the extra `browser` (axe-playwright-python) is not installed"
    ).Axe()
    with page_at(browser, address, size, dark) as page:
        page.locator("#examples").get_by_role("button").first.click()
        answered(page)
        page.get_by_role("switch", name="depth in use").click()
        found = axe.run(page).response
        assert not found["violations"], [(one["id"], one["nodes"]) for one in found["violations"]]
        assert "color-contrast" in {one["id"] for one in found["passes"]}
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.goto(f"{address}/api")
        assert not axe.run(page).response["violations"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_a_server_that_went_away_is_said_and_can_be_asked_again(browser: Any, model: PictureModel) -> None:
    app = model.server().application()
    with serving(app) as address, page_at(browser, address) as page:
        page.wait_for_selector(".example")
        page.route("**/examples/*", lambda route: route.abort())
        page.locator("#examples").get_by_role("button").first.click()
        alert = page.get_by_role("alert")
        alert.wait_for()
        assert "The server does not answer" in alert.inner_text()
        page.unroute("**/examples/*")
        page.get_by_role("button", name="try again").click()
        answered(page)
        assert alert.count() == 0
        page.console_lines.clear()  # the browser's line about the request that failed


def test_a_browser_gives_its_token_once(browser: Any, model: PictureModel) -> None:
    with serving(model.server(token="opensesame").application()) as address, page_at(browser, address) as page:
        for token, heading in (("wrong", "This server needs its token"), ("opensesame", "mine")):
            page.get_by_role("textbox", name="Token").fill(token)
            page.get_by_role("button", name="Continue").click()
            page.get_by_role("heading", level=1, name=heading).wait_for()
        assert "token" not in page.url
        page.locator("#examples").get_by_role("button").first.click()
        answered(page)
        assert all("401" in line for line in page.console_lines), page.console_lines
        page.console_lines.clear()
