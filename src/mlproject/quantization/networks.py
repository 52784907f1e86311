"""Networks of versions in int8 and float16, made from their float32 networks in ONNX."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlproject.versions.engines import Images

INT8, FLOAT16 = "int8", "float16"
PRECISIONS = (INT8, FLOAT16)


def write(precision: str, network: Path, images: Images, out: Path) -> None:
    """Writes a network with the same inputs and outputs, and lower precision inside.

    Preprocessing and softmax stay float32: they take little time, and accuracy needs them.

    Args:
        precision: One of `PRECISIONS`.
        network: The float32 network: uint8 images (N, S, S, 3) -> probabilities (N, K).
        images: Images whose activations give the ranges of int8; float16 needs none.
        out: The file to write.
    """
    if precision == INT8:
        _write_int8(network, images, out)
    else:
        _write_float16(network, out)


def _write_int8(network: Path, images: Images, out: Path) -> None:
    """Writes it with 8-bit weights, by output channel, and 8-bit activations.

    In the format QDQ each quantization is an operation of its own, which ONNX Runtime fuses with
    its neighbours where it has a kernel. Source: ONNX Runtime, Quantize ONNX Models.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_name("prepared.onnx")
    # Folds what is constant, and batch norms. Its symbolic shapes need sympy, and change nothing.
    quant_pre_process(network, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    quantize_static(
        prepared,
        out,
        _reader(graph.input[0].name, images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_float32_nodes(graph),
    )
    prepared.unlink()


def _write_float16(network: Path, out: Path) -> None:
    """Writes it with float16 weights and activations."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(network)
    kept = _float32_nodes(model.graph)
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    # It casts to float16 and back between two nodes that are kept, and before the output, which
    # rounds: probabilities then sum to more than 1. Source: onnxruntime 1.32, transformers.float16.
    maker = {output: node for node in converted.graph.node for output in node.output}
    for node in converted.graph.node:
        source = maker.get(node.input[0]) if _casts_to(onnx.TensorProto.FLOAT, node) else None
        if source is not None and _casts_to(onnx.TensorProto.FLOAT16, source):
            node.op_type, node.input[0] = "Identity", source.input[0]
            del node.attribute[:]
    onnx.save(converted, out)


def _casts_to(kind: int, node: Any) -> bool:
    return bool(node.op_type == "Cast" and node.attribute[0].i == kind)


def _float32_nodes(graph: Any) -> list[str]:
    """The names of the nodes before the first convolution, and of each softmax."""
    maker = {output: node for node in graph.node for output in node.output}
    names = [node.name for node in graph.node if node.op_type == "Softmax"]
    inputs = [node.input[0] for node in graph.node if node.op_type == "Conv"][:1]
    while inputs:
        node = maker.get(inputs.pop())
        if node is not None:
            names.append(node.name)
            inputs += node.input
    return names


def _reader(name: str, images: Images) -> Any:
    """The images for calibration, as ONNX Runtime reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    # One at a time: 256 images take 6 s and 0.3 GB, in batches of 8 they take 8 s and 1.0 GB.
    batches: Iterator[dict[str, Images]] = ({name: image[np.newaxis]} for image in images)

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types here
        def get_next(self) -> dict[str, Images] | None:
            return next(batches, None)

    return Reader()
