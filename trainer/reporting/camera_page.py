"""A page that shows what cameras saw of some objects, and what classifiers take them for with one of them covered.

Records in, one HTML file out: it needs no other file, no network and no script; equal records give equal bytes.
"""

from dataclasses import dataclass

from trainer.reporting.template_environment import template_environment


@dataclass(frozen=True)
class View:
    """A column of the page: the camera that is covered, by its place in `CameraPage.cameras`, or None for none."""

    title: str
    covered: int | None


@dataclass(frozen=True)
class Classifier:
    """A row of the page: one way to classify.

    Attributes:
        model: neighbours of one name are one model with another completion, the same where no camera is covered.
        completion: what stands in for a camera that is covered.
        accuracies: one a view, in per cent.
    """

    model: str
    completion: str
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class CameraImage:
    """What a camera saw: the image's address, which holds the image itself, and the image in words."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Answer:
    """The class that a classifier finds most probable, the probability it gives it, and whether that is right."""

    label: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One object in front of all cameras.

    Attributes:
        sample: the name of the images.
        label: the true class.
        images: one a camera.
        answers: by classifier, one a view.
        reason: why it is shown, where it was chosen for what the answers are; empty where it was not.
    """

    sample: str
    label: str
    images: tuple[CameraImage, ...]
    answers: tuple[tuple[Answer, ...], ...]
    reason: str = ""


@dataclass(frozen=True)
class Gallery:
    """Examples that were chosen by one rule, and that rule."""

    title: str
    rule: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class CameraPage:
    """All that is shown.

    Attributes:
        summary: one sentence of what there is to see.
        caveat: what the numbers do not say.
        measured: what all accuracies have in common.
        chance: the accuracy of guessing, in per cent.
        legend: terms of the table, each with what it means.
    """

    title: str
    summary: str
    caveat: str
    cameras: tuple[str, ...]
    views: tuple[View, ...]
    classifiers: tuple[Classifier, ...]
    measured: str
    chance: float
    legend: tuple[tuple[str, str], ...]
    galleries: tuple[Gallery, ...]

    def repeats(self, classifier: int, view: int) -> bool:
        """Whether an answer is that of the row above: the same model, and no camera is covered."""
        return (
            classifier > 0
            and self.views[view].covered is None
            and self.classifiers[classifier].model == self.classifiers[classifier - 1].model
        )


def html(page: CameraPage) -> str:
    """The page as one HTML file."""
    return template_environment(escape=True).get_template("cameras.html.jinja").render(page=page)
