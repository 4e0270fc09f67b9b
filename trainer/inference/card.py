"""The card of a bundle, `model.json`: everything about a model but its weights (docs/reference/bundle.md)."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.shards.schema import Distribution, Modality

# The format of a bundle is raised when older versions of the program cannot read it: 2 has curves and exports; 3 has
# labels that are no text or integers, and answers by the setting `samples`, where older ones answer at the mean.
FORMAT, OLDEST = 3, 1  # the one that is written, and the oldest that is read
ANSWERS_BY_SAMPLES = 3
QUANTILES = 101  # of the unlikeness of known rows: its percentiles
RUNNER = "run_onnx.py"  # runs a bundle's ONNX files
LabelType = Literal["text", "integer", "real", "boolean"]
LABEL_TYPES: dict[str, LabelType] = {"i": "integer", "u": "integer", "f": "real", "b": "boolean"}  # by NumPy's kind
_AS_LABEL: dict[LabelType, Callable[[str], Any]] = {
    "text": str, "integer": int, "real": float, "boolean": {"False": False, "True": True}.__getitem__,
}  # fmt: skip

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def encoder_onnx(modality: str) -> str:
    """The name of a modality's encoder as ONNX."""
    return f"encoder-{modality}.onnx"


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileCard(_Card):
    """A file of the bundle: its sha256 and its length."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class ModalityCard(_Card):
    """One modality: its name, width and distribution, and the recipe of the encoder that makes it of a picture."""

    name: str
    width: Annotated[int, Field(ge=1)]
    distribution: Distribution
    encoder: dict[str, Any] | None = None

    @property
    def modality(self) -> Modality:
        """As shards have it."""
        return Modality(self.name, self.width, self.distribution)


class AbstentionCard(_Card):
    """When to abstain, and what that gave on the test part.

    Attributes:
        threshold: the least probability with which a row is answered; None if none reaches the target, so that every
            row abstains.
        coverage: the share of test rows that are answered; None if there is no test part.
        accuracy: the share of right answers among these; None if there is none.
    """

    threshold: Share | None
    coverage: Share | None = None
    accuracy: Share | None = None


class SubsetCard(_Card):
    """What was measured where some of the modalities are given.

    Attributes:
        given: the modalities; empty if the numbers are pooled over several subsets of `size` modalities, for those
            that have no entry of their own.
        size: how many modalities are given.
        rows: the number of test rows.
        accuracy, nll, ece: as in `trainer.evaluation.metrics.Score`; None without test rows.
        abstention: None if there is no threshold.
        curve: what other thresholds would have given, ascending; empty without test rows.
        known: the percentiles of the unlikeness of known rows (`trainer.inference.unlikeness`); empty if there were
            too few.
        known_from: the part of the shard that these rows are from.
    """

    given: tuple[str, ...]
    size: Annotated[int, Field(ge=1)]
    rows: Count = 0
    accuracy: Share | None = None
    nll: float | None = None
    ece: Share | None = None
    abstention: AbstentionCard | None = None
    curve: tuple[AbstentionCard, ...] = ()
    known: tuple[float, ...] = ()
    known_from: Literal["train", "test"] | None = None


class ExportCard(_Card):
    """A file of the bundle that runs without mmssl.

    Attributes:
        file: its name.
        inputs: their names, in order: the modalities, and which of them each row has; or an encoder's pictures.
        output: its name.
        compared_with: the program that ran it when it was compared with the bundle's own answers.
        greatest_difference: of a probability.
    """

    file: str
    inputs: tuple[str, ...]
    output: str
    compared_with: str
    greatest_difference: Share


class BundleCard(_Card):
    """The card.

    Attributes:
        program: the version of mmssl that wrote it.
        label_type: what the class names stand for: `labels` has them as that.
        settings: the first replica's settings (docs/reference/settings.md).
        seeds: one per replica.
        completion: how the model completes missing modalities.
        target_accuracy: what thresholds were chosen for; None if they were given, or there are none.
        provenance: digests of the shard and the runs, and versions; no paths.
        exports: the files that run without mmssl; a card of format 1 has none.
        files: by name.
        digest: sha256 of the rest of the card; empty while it is being made.
    """

    format: int = FORMAT
    program: str
    dataset: str
    classes: tuple[str, ...]
    label_type: LabelType = "text"
    modalities: tuple[ModalityCard, ...]
    settings: dict[str, Any]
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    completion: str
    target_accuracy: Share | None = None
    subsets: tuple[SubsetCard, ...] = ()
    provenance: dict[str, Any] = {}
    exports: tuple[ExportCard, ...] = ()
    files: dict[str, FileCard] = {}
    digest: str = ""

    @model_validator(mode="after")
    def _plain(self) -> Self:
        if self.exports and self.format == OLDEST:
            raise ValueError(f"a card of format {OLDEST} has no exports")
        try:
            _ = self.labels
        except (ValueError, KeyError):
            raise ValueError(f"a class is no {self.label_type} label") from None
        return self

    @property
    def labels(self) -> list[Any]:
        """The classes as the labels that were given in training: texts, numbers, or False and True."""
        return [_AS_LABEL[self.label_type](name) for name in self.classes]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.settings.get("model"))

    def subset(self, given: tuple[str, ...]) -> int | None:
        """The number of the entry for these modalities, their own or the pooled one; None if there is none."""
        own = [number for number, subset in enumerate(self.subsets) if subset.given == given]
        pooled = [number for number, subset in enumerate(self.subsets) if not subset.given]
        return next((n for n in own + pooled if self.subsets[n].size == len(given)), None)

    def with_exports(self, exports: tuple[ExportCard, ...]) -> Self:
        """The same card with these files that run without mmssl."""
        return self.model_copy(update={"exports": exports})

    def sealed(self) -> Self:
        """The same card with its digest."""
        return self.model_copy(update={"digest": self.content_digest()})

    def content_digest(self) -> str:
        """sha256 of everything but the digest itself."""
        content = self.content()
        del content["digest"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """The card as plain values, with what its format has."""
        content = self.model_dump(mode="json")
        if self.format == OLDEST:
            del content["exports"]
            for subset in content["subsets"]:
                del subset["curve"]
        return content
