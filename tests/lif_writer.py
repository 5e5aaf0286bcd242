"""A small writer of Leica's LIF, version 2: a header, XML, and a memory block for each image."""

import struct
from xml.sax.saxutils import quoteattr

import numpy as np

DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5, "A": 6, "M": 10}
STEPS = {"X": 1.5e-7, "Y": 2e-7, "Z": -4e-7, "T": 2.5, "λ": 5e-9, "A": 1.0, "M": 1.0}
"""Metres, seconds and degrees from one to the next; stacks may be recorded downwards."""


def _attributes(**values):
    return " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items())


def image(name, data, axes, *, fill_rows=1, extra="", children=""):
    """Describe an image: its XML, its name, and its bytes.

    Axes are in the order of the file; C lies where it says, S are colours, blue first.
    """
    strides, stride = {}, data.itemsize
    for axis, n in reversed(list(zip(axes, data.shape, strict=True))):
        strides[axis] = stride
        stride *= n
        if axis == "X":
            filled = -(-stride // fill_rows) * fill_rows
            rows = data.reshape(-1, stride // data.itemsize)
            padding = (filled - stride) // data.itemsize
            content = np.pad(rows, ((0, 0), (0, padding)), constant_values=9).tobytes()
            stride = filled
    n_channels = {a: data.shape[axes.index(a)] for a in "CS" if a in axes}
    channels = "".join(
        "<ChannelDescription {}/>".format(
            _attributes(
                DataType=int(data.dtype.kind == "f"), ChannelTag=3 - s if "S" in axes else 0,
                Resolution=data.itemsize * 8, NameOfMeasuredQuantity="", Min=0, Max=1, Unit="",
                LUTName="Green", IsLUTInverted=0,
                BytesInc=c * strides.get("C", 0) + s * strides.get("S", 0), BitInc=0,
            )
        )
        for c in range(n_channels.get("C", 1))
        for s in range(n_channels.get("S", 1))
    )  # fmt: skip
    dimensions = "".join(
        "<DimensionDescription {}/>".format(
            _attributes(
                DimID=DIMENSIONS[axis], NumberOfElements=n, Origin=1e-6 if axis in "XYZ" else 0,
                Length=STEPS[axis] * (n - 1), Unit={"T": "s", "M": ""}.get(axis, "m"),
                BitInc=0, BytesInc=strides[axis],
            )
        )
        for axis, n in reversed(list(zip(axes, data.shape, strict=True)))
        if axis in DIMENSIONS
    )  # fmt: skip
    block = f"MemBlock_{name}"
    xml = (
        f"<Element {_attributes(Name=name)}><Data><Image><ImageDescription>"
        f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription>"
        f"{extra}</Image></Data><Memory {_attributes(Size=len(content), MemoryBlockID=block)}/>"
        f"<Children>{children}</Children></Element>"
    )
    return xml, block, content


def write_lif(path, images, *, xml=None):
    """Write images, as `image` describes them."""
    if xml is None:
        inside = "".join(each for each, _, _ in images)
        xml = (
            '<LMSDataContainerHeader Version="2"><Element Name="a"><Data/><Children>'
            f"{inside}</Children></Element></LMSDataContainerHeader>"
        )
    with path.open("wb") as file:
        file.write(struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)))
        file.write(xml.encode("utf-16-le"))
        for _, block, content in images:
            head = struct.pack("<BQBI", 0x2A, len(content), 0x2A, len(block))
            file.write(struct.pack("<II", 0x70, len(head) + 2 * len(block)) + head)
            file.write(block.encode("utf-16-le") + content)


def write_lof(path, described):
    """Write the one image of a LOF: its pixels come first, without a name."""
    xml, _, content = described
    name, xml = (
        "LMS_Object_File",
        f'<LMSDataContainerHeader Version="2">{xml}</LMSDataContainerHeader>',
    )
    with path.open("wb") as file:
        file.write(struct.pack("<IIBI", 0x70, 2 * len(name) + 5, 0x2A, len(name)))
        file.write(name.encode("utf-16-le"))
        file.write(struct.pack("<BIBI", 0x2A, 2, 0x2A, 0))
        file.write(struct.pack("<BQ", 0x2A, len(content)) + content)
        file.write(struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)))
        file.write(xml.encode("utf-16-le"))
