"""A bundle's model for programs without mmssl: files for onnxruntime and for `torch.export.load`.

Every file is read back and compared with `mmssl predict` (`trainer.inference.comparison`) before the bundle gets its
name.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.files import write_atomically
from pipeline.runtime.onnx_files import OnnxFile, export_program, read_program, write_onnx, write_program
from pipeline.shards.schema import Features
from trainer.inference.bundle import Bundle, encoder_file
from trainer.inference.card import RUNNER, ExportCard, encoder_onnx
from trainer.inference.classifier_graph import ClassifierNetwork
from trainer.inference.comparison import Comparison

ONNX, PROGRAM = "model.onnx", "model.pt2"
PRESENT, OUTPUT = "present", "probabilities"  # names of an input and the output
PICTURES, FEATURES = "pictures", "features"  # the same of an encoder

# Writes an encoder's file as ONNX; the features of the same pictures by the encoder and by what was written, `[n, D]`.
WriteEncoder = Callable[[Path, Path], tuple[Features, Features]]


@dataclass(frozen=True)
class Portable:
    """What to write beside a bundle's own files.

    Attributes:
        onnx: whether to write an ONNX file, and the program that runs it.
        program: whether to write what `torch.export` makes.
        runner: the program that runs the ONNX files.
        encoders: the modalities whose encoders become ONNX files too.
        write_encoder: writes one of them.
    """

    onnx: bool
    program: bool
    runner: Path
    encoders: Sequence[str] = ()
    write_encoder: WriteEncoder | None = None

    def __call__(self, bundle: Bundle, folder: Path) -> tuple[ExportCard, ...]:
        """Writes the files into the folder of a bundle, which holds its encoders, and compares them.

        Raises:
            DataError: one cannot be written, or gives other probabilities.
            UsageError: a package is missing.
            StorageError: the disk is full or refuses.
        """
        predictor = bundle.predictor(torch.device("cpu"), str(folder))
        network = ClassifierNetwork(predictor.network, bundle.scaling)
        return tuple(self._write(bundle, folder, Comparison(bundle, predictor), network))

    def _write(
        self, bundle: Bundle, folder: Path, comparison: Comparison, network: ClassifierNetwork
    ) -> Iterator[ExportCard]:
        inputs = (*bundle.card.names, PRESENT)
        output = free_name(OUTPUT, inputs)
        program = export_program(network, comparison.examples, [{0: "rows"}] * len(inputs))
        if self.program:
            write_program(folder / PROGRAM, program)
            difference = comparison.greatest_difference(PROGRAM, _answering(read_program(folder / PROGRAM)))
            yield ExportCard(
                file=PROGRAM, compared_with=f"torch {torch.__version__}", inputs=inputs, output=output,
                greatest_difference=difference,
            )  # fmt: skip
        if not self.onnx:
            return
        facts = {"classes": bundle.card.classes, "modalities": bundle.card.names}
        texts = {name: json.dumps(values, ensure_ascii=False) for name, values in facts.items()}
        write_onnx(folder / ONNX, program, inputs, output, texts)
        classifier = OnnxFile(folder / ONNX)
        yield ExportCard(
            file=ONNX, compared_with=classifier.runtime, inputs=inputs, output=output,
            greatest_difference=comparison.greatest_difference(ONNX, classifier),
        )  # fmt: skip
        for name in self.encoders:
            assert self.write_encoder is not None
            file = encoder_onnx(name)
            usual, written = self.write_encoder(folder / encoder_file(name), folder / file)
            yield ExportCard(
                file=file, compared_with=classifier.runtime, inputs=(PICTURES,), output=FEATURES,
                greatest_difference=comparison.difference_by_encoder(file, name, usual, written, classifier),
            )  # fmt: skip
        write_atomically(folder / RUNNER, self.runner.read_text(encoding="utf-8"))


def free_name(name: str, modalities: Sequence[str]) -> str:
    """The name of an output: primed if a modality is called so. No modality is called `present` (schema)."""
    while name in modalities:
        name += "'"
    return name


def _answering(program: torch.nn.Module) -> Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]:
    def answer(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        with torch.no_grad():
            probabilities: NDArray[np.float32] = program(*map(torch.from_numpy, arrays)).numpy()
        return probabilities

    return answer
