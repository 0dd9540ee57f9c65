"""How long the tensors of a reply have to be, by what the reply says of them."""

from __future__ import annotations

from math import prod
from typing import Any

# Bytes of an element. BYTES have none: each is as long as it is.
ITEM_SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip


def tensor_size(datatype: Any, shape: Any) -> int | None:
    """Bytes of a tensor; None where they do not follow: BYTES, a datatype that is not known, a shape that is none."""
    item = ITEM_SIZES.get(datatype) if isinstance(datatype, str) else None
    if item is None or not isinstance(shape, list) or not all(isinstance(dim, int) and dim >= 0 for dim in shape):
        return None
    return item * prod(shape)


def size_problem(name: str, there: int, told: int | None) -> str | None:
    """What to say of a tensor of `there` bytes; None where it is as long as it says, or does not say."""
    if told is None or there == told:
        return None
    return f"malformed reply: {there} bytes of output {name[:60]}, and its shape tells of {told}"
