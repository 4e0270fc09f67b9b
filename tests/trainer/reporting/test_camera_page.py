"""The page of what cameras saw: everything is on it, nothing is taken for markup, nothing comes from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from trainer.reporting.camera_page import Answer, CameraImage, CameraPage, Classifier, Example, Gallery, View, html

NASTY = '<b>&"'
RGB = "data:image/png;base64,AAAA"
DEPTH = "data:image/png;base64,BBBB"
HEADINGS = ("h1", "h2", "h3")


def example(sample: str, label: str, *lines: tuple[Answer, ...], reason: str = "") -> Example:
    images = (CameraImage(RGB, f"{label} in colours"), CameraImage(DEPTH, f"{label} in depths"))
    return Example(sample, label, images, lines, reason)


def line(*labels: str, truth: str) -> tuple[Answer, ...]:
    return tuple(Answer(label, 0.25 + 0.25 * k, label == truth) for k, label in enumerate(labels))


PAGE = CameraPage(
    title=f"When {NASTY} fails",
    summary=f"What {NASTY} sees.",
    caveat=f"Nothing of {NASTY}.",
    cameras=("RGB", f"depth {NASTY}"),
    views=(View("both", None), View(f"no depth {NASTY}", 1), View("no RGB", 0)),
    classifiers=(
        Classifier("first", "zeros", (81.25, 12.5, 40.0)),
        Classifier("first", "sampling", (81.25, 33.3, 50.0)),
        Classifier(f"second {NASTY}", "encoders", (70.0, 60.0, 65.0)),
    ),
    measured=f"demo {NASTY}",
    chance=12.5,
    legend=((f"zeros {NASTY}", f"none {NASTY}"),),
    galleries=(
        Gallery(
            f"Each {NASTY}",
            f"By a rule {NASTY}.",
            (
                example(
                    "cup_1_1",
                    "cup",
                    line("cup", "cap", "cap", truth="cup"),
                    line("cup", "cup", "cap", truth="cup"),
                    line("cap", "cup", "cup", truth="cup"),
                ),
                example(
                    f"{NASTY}_1_1",
                    NASTY,
                    line(NASTY, "cup", NASTY, truth=NASTY),
                    line(NASTY, NASTY, "cup", truth=NASTY),
                    line("cap", "cap", "cap", truth=NASTY),
                ),
            ),
        ),
        Gallery(
            "Picked",
            "By another.",
            (
                example(
                    "cap_3_2",
                    "cap",
                    *(line("cap", "cap", "cap", truth="cap"),) * 3,
                    reason=f"With {NASTY} covered.",
                ),
            ),
        ),
    ),
)


class Read(HTMLParser):
    """A page's elements in order, its text, and the text of its cells by class."""

    VOID = ("meta", "link", "img", "rect", "circle", "path", "use")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.headings: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append((attributes.get("class") or "", ""))
        if tag in HEADINGS:
            self.headings.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        for where, texts in (("td", self.cells), *((tag, self.headings) for tag in HEADINGS)):
            if where in self.open:
                texts[-1] = (texts[-1][0], texts[-1][1] + data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def read() -> Read:
    return Read(html(PAGE))


def test_equal_records_give_equal_bytes_and_others_do_not() -> None:
    assert html(PAGE) == html(replace(PAGE))
    assert html(PAGE) != html(replace(PAGE, chance=10.0))


def test_nothing_is_taken_for_markup(read: Read) -> None:
    assert not read.all("b")
    texts = (PAGE.title, PAGE.summary, PAGE.caveat, PAGE.measured, *PAGE.legend[0], PAGE.views[1].title)
    gallery = PAGE.galleries[0]
    for text in (*texts, gallery.title, gallery.rule, PAGE.classifiers[2].model, PAGE.galleries[1].examples[0].reason):
        assert text in read.text
    assert f"True class: {NASTY}" in read.text
    assert f"✗ {NASTY}" not in read.text
    assert f"✓ {NASTY}" in read.text


def test_nothing_comes_from_elsewhere(read: Read) -> None:
    assert not read.all("script")
    addresses = [
        value or "" for _, attributes in read.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|url\(|@import", html(PAGE))


def test_links_within_the_page_lead_somewhere(read: Read) -> None:
    names = [element["id"] for _, element in read.elements if "id" in element]
    assert len(names) == len(set(names))
    linked = {str(element["href"])[1:] for tag in ("a", "use") for element in read.all(tag)}
    named = {str(element["aria-labelledby"]) for _, element in read.elements if "aria-labelledby" in element}
    assert linked | named <= set(names)


def test_images_are_described_once_and_covered_cameras_are_drawn_and_named(read: Read) -> None:
    images = read.all("img")
    assert [image["src"] for image in images] == [RGB, DEPTH, RGB, DEPTH] * 3  # both, RGB alone, depth alone
    assert [image["alt"] for image in images[:4]] == ["cup in colours", "cup in depths", "", ""]
    drawn = [image["aria-label"] for image in read.all("svg") if image.get("role") == "img"]
    assert drawn == [f"depth {NASTY} camera: covered", "RGB camera: covered"] * 3


def test_all_examples_and_models_are_shown_under_headings(read: Read) -> None:
    levels = [level for level, _ in read.headings]
    assert levels == ["h1", "h2", "h2", "h3", "h3", "h2", "h3"]
    assert [text.split(": ")[1] for level, text in read.headings if level == "h3"] == ["cup", NASTY, "cap"]
    groups = [cell for cell in read.all("th") if cell.get("scope") == "rowgroup"]
    assert len(groups) == 3 * len(PAGE.classifiers)
    assert read.text.count(PAGE.classifiers[2].model) == 1 + 3
    assert all(cell.get("scope") for cell in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table")) == 1 + 3


def test_accuracies_and_answers_stand_in_their_cells(read: Read) -> None:
    cells = [(kind, " ".join(text.split())) for kind, text in read.cells]
    assert cells[:9] == [
        ("", "81.2"), ("", "12.5"), ("", "40.0"),
        ("same", "as above"), ("", "33.3"), ("", "50.0"),
        ("", "70.0"), ("", "60.0"), ("", "65.0"),
    ]  # fmt: skip
    assert cells[9:18] == [
        ("right", "✓ cupright, 25 %"), ("wrong", "✗ capwrong, 50 %"), ("wrong", "✗ capwrong, 75 %"),
        ("same", "as above"), ("right", "✓ cupright, 50 %"), ("wrong", "✗ capwrong, 75 %"),
        ("wrong", "✗ capwrong, 25 %"), ("right", "✓ cupright, 50 %"), ("right", "✓ cupright, 75 %"),
    ]  # fmt: skip
    assert "chance, 12 %" in read.text
