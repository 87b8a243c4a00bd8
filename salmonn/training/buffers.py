"""Tensors as the pieces of a .safetensors file, without a copy of their bytes.

The library's own `save` copies everything twice while it holds the interpreter's lock, and a training step waits for
that. The format: the header's length in 8 bytes, little-endian; the header, JSON padded with spaces to a multiple of 8;
then the tensors one after another, as the header says (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch

from manifests.errors import Failed

NAMES = {
    torch.uint8: "U8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""In the library's order: tensors of the last come first in a file."""
ORDER = {dtype: -number for number, dtype in enumerate(NAMES)}


def safetensors_pieces(tensors: Mapping[str, torch.Tensor]) -> list[memoryview]:
    """Return the pieces of the file that holds tensors on the CPU: views of their memory, where they are contiguous."""
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise Failed(f"cannot save {name!r}: there is no code for tensors of {tensor.dtype}")
    header: dict[str, object] = {}
    pieces: list[memoryview] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (ORDER[tensors[name].dtype], name)):
        tensor = tensors[name].detach()
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        pieces.append(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *pieces]
