"""Networks as files that run without this program: ONNX, and what `torch.export` writes.

Both are written of the same exported program, whose first axes are of any length. Equal networks give equal bytes, and
the files name no path of this machine: where each operation stands in our code is left out.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.runtime.files import atomic_path

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20  # of ONNX
MOST_BYTES = 2**31 - 2**20  # of one ONNX file: a protocol buffer holds no more than 2 GiB
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
Axes = Mapping[int, str]


def require_onnx() -> None:
    """Checks that what writes and runs ONNX files is installed.

    Raises:
        UsageError: it is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX files need {missing[0]}, which is not installed", 'pip install "mmssl[onnx]"')


def export_program(network: nn.Module, examples: Sequence[Tensor], axes: Sequence[Axes]) -> ExportedProgram:
    """The operations of a network, once and for all.

    Args:
        examples: inputs of the forward method, of which no axis that is free has length 0 or 1.
        axes: of each input, its free axes by number; those of the same name have the same length.

    Raises:
        DataError: the network cannot be exported.
    """
    free = {name: Dim(name, min=1) for of_input in axes for name in of_input.values()}
    shapes: list[Any] = [{axis: free[name] for axis, name in of_input.items()} for of_input in axes]
    with _quiet(), torch.no_grad(), _in_one_sentence("PyTorch cannot export this network"):
        program = torch.export.export(network.eval(), tuple(examples), dynamic_shapes=_as_taken(network, shapes))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None
    return program


def write_program(path: Path, program: ExportedProgram) -> None:
    """Writes a program for `torch.export.load`; nothing in the file is pickled.

    Raises:
        StorageError: the disk is full or refuses.
    """
    with atomic_path(path) as temporary, _quiet(), temporary.open("wb") as file:
        torch.export.save(program, file)


def read_program(path: Path) -> nn.Module:
    """A program that `write_program` has just written; it is not for files of strangers.

    Raises:
        DataError: torch cannot read it.
    """
    with _quiet(), _in_one_sentence(f"{path}: torch cannot read it"):
        return torch.export.load(path).module()


def write_onnx(
    path: Path, program: ExportedProgram, inputs: Sequence[str], output: str, facts: Mapping[str, str]
) -> None:
    """Writes a program as one ONNX file.

    Args:
        inputs, output: their names in the file.
        facts: what the file says of itself, by name.

    Raises:
        DataError: ONNX has no such operation, or the file would be too large for it.
        StorageError: the disk is full or refuses.
    """
    require_onnx()
    onnx = import_module("onnx")
    with _quiet(), _in_one_sentence("this network cannot be written as ONNX"):
        made = torch.onnx.export(
            program, (), dynamo=True, input_names=list(inputs), output_names=[output], opset_version=OPSET,
            external_data=False, verbose=False,
        )  # fmt: skip
    assert made is not None
    _leave_out_origins(made.model)
    size = sum(value.const_value.nbytes for value in made.model.graph.initializers.values() if value.const_value)
    if size > MOST_BYTES:
        raise DataError(f"{path.name} would have {size:,} bytes, and an ONNX file holds no more than {MOST_BYTES:,}")
    proto = made.model_proto
    onnx.helper.set_model_props(proto, dict(facts))
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


class OnnxFile:
    """An ONNX file, ready to compute with onnxruntime on the CPU.

    Raises:
        DataError: onnxruntime cannot read it.
    """

    def __init__(self, path: Path) -> None:
        require_onnx()
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        with _in_one_sentence(f"{path}: onnxruntime cannot read it"):
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.runtime = f"onnxruntime {runtime.__version__}"

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The output for the inputs, in the file's order."""
        (result,) = self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        values: NDArray[np.float32] = result
        return values


def _leave_out_origins(model: Any) -> None:
    """Removes where each operation and value comes from: paths and names of our code, larger than small networks."""
    model.metadata_props.clear()
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _as_taken(network: nn.Module, shapes: list[Any]) -> Any:
    """Free axes as torch wants them: those of `*inputs` are one argument."""
    variadic = any(p.kind is p.VAR_POSITIONAL for p in signature(network.forward).parameters.values())
    return (tuple(shapes),) if variadic else tuple(shapes)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def _in_one_sentence(what: str) -> Iterator[None]:
    """Says what cannot be done, and the first line of why: torch and onnxruntime raise very many kinds of errors."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        raise DataError(f"{what}: {_first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the exporters' notes about themselves."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
