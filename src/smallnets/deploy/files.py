"""Exported files opened again: their bytes, the model in them, and the input that it takes."""

from pathlib import Path

import onnx

from smallnets.deploy.exporting import Exported
from smallnets.storage import one_line, user_path

File = str | Path | bytes | Exported


def read(file: File) -> bytes:
    """The bytes of an exported network, from a path, from bytes or from `export_checked`.

    Raises:
        ValueError: there is no such file, or it is something else.
    """
    if isinstance(file, Exported):
        return file.file
    if isinstance(file, str | Path):
        path = user_path(file)
        try:
            file = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({one_line(error)})") from None
    if not isinstance(file, bytes):
        raise ValueError(f"a file must be a path, bytes or Exported; got {type(file).__name__}")
    return file


def parsed(file: File) -> onnx.ModelProto:
    """The model in a file.

    Raises:
        ValueError: as `read`, or it is no ONNX model.
    """
    content = read(file)
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own have no common ancestor
        raise ValueError(f"the file must be a whole ONNX model; {one_line(error)[:300]}") from None
    return model


def input_shape(file: File) -> tuple[int, ...]:
    """One example's shape, as the file states it.

    Raises:
        ValueError: as `parsed`; or it has several inputs, or sizes other than the batch are open.
    """
    return input_of(parsed(file))[1]


def input_of(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, tuple[int, ...]]:
    """The one input of a model, and one example's shape.

    Raises:
        ValueError: it has several, or sizes other than the batch are open.
    """
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    sides = [one.dim_value for one in inputs[0].type.tensor_type.shape.dim[1:]] if inputs else []
    if len(inputs) != 1 or not sides or min(sides) < 1:
        raise ValueError(
            "the file must take one input whose sizes are fixed but for the batch; it takes "
            f"{len(inputs)}" + (f" with sizes {sides}" if len(inputs) == 1 else "")
        )
    return inputs[0], tuple(sides)
