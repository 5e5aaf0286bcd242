"""A small writer of Nikon's ND2, version 3: chunks of metadata and of frames, and their map."""

import struct
import zlib

import numpy as np

_MAGIC = 0x0ABECEDA
_NAME_BYTES = 4072
"""What the name of a frame's chunk takes, so that the pixels begin at a page."""


def lite(name, value):
    """Encode a value, or a dict of them, as Nikon's "lite variant"."""
    text = (name + "\0").encode("utf-16-le")
    head = lambda kind: struct.pack("BB", kind, len(name) + 1) + text  # noqa: E731
    if isinstance(value, dict):
        inside = b"".join(lite(key, each) for key, each in value.items())
        length = len(head(11)) + 12 + len(inside)
        return head(11) + struct.pack("<IQ", len(value), length) + inside + bytes(8 * len(value))
    if isinstance(value, bool):
        return head(1) + struct.pack("B", value)
    if isinstance(value, int):
        return head(3) + struct.pack("<I", value)
    if isinstance(value, float):
        return head(6) + struct.pack("<d", value)
    return head(8) + (value + "\0").encode("utf-16-le")


def time_loop(n, *, period=2500.0, measured=2600.0):
    pars = {"uiCount": n, "dStart": 0.0, "dPeriod": period, "dDuration": 0.0,
            "dAvgPeriodDiff": measured}  # fmt: skip
    return {"eType": 1, "uLoopPars": pars}


def z_loop(n, *, step=0.4):
    pars = {"uiCount": n, "dZLow": 0.0, "dZHigh": step * (n - 1), "dZStep": step, "iType": 2}
    return {"eType": 4, "uLoopPars": pars}


def position_loop(names):
    points = {
        f"i{i:010}": {"dPosX": 100.0 * i, "dPosY": -5.0, "dPosZ": 3.0, "pPosName": name}
        for i, name in enumerate(names)
    }
    return {"eType": 2, "uLoopPars": {"bUseZ": True, "Points": points}}


def custom_loop(n):
    return {"eType": 7, "uLoopPars": {"uiCount": n}}


def write_nd2(
    path, frames, loops=(), *, colours=1, recorded=None, compressed=False, lost=(), fill=0
):
    """Write frames (frame, Y, X, component) of nested loops, the outermost first.

    Parameters
    ----------
    colours : int
        Components per channel.
    recorded : int or None
        How many frames the file says to have.
    lost : sequence of int
        Frames that are not written.
    fill : int
        Bytes at the end of each row that are no pixels.
    """
    n, height, width, n_components = frames.shape
    n_channels = n_components // colours
    row = width * n_components * frames.itemsize + fill
    attributes = {
        "uiWidth": width, "uiWidthBytes": row, "uiHeight": height, "uiComp": n_components,
        "uiBpcInMemory": frames.itemsize * 8, "uiBpcSignificant": frames.itemsize * 8,
        "uiSequenceCount": n if recorded is None else recorded,
        "eCompression": 0 if compressed else 2,
    }  # fmt: skip
    plane = {"uiCompCount": colours, "pFluorescentProbe": {"sName": "none"}}
    planes = {f"a{c}": {**plane, "sDescription": f"c{c}"} for c in range(n_channels)}
    metadata = {
        "bCalibrated": True, "dCalibration": 0.15,
        "sPicturePlanes": {"uiCount": n_channels, "sPlaneNew": planes},
    }  # fmt: skip
    experiment = {}
    for loop in reversed(loops):
        experiment = {
            **loop,
            **({"ppNextLevelEx": {"i0000000000": experiment}} if experiment else {}),
        }
    where = {}
    with path.open("wb") as file:

        def chunk(name, content, name_bytes=None):
            where[name] = file.tell(), len(content)
            length = name_bytes or len(name)
            file.write(struct.pack("<IIQ", _MAGIC, length, len(content)))
            file.write(name.ljust(length, b"\0") + content)

        chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"))
        del where[b"ND2 FILE SIGNATURE CHUNK NAME01!"]
        for i, frame in enumerate(frames):
            if i in lost:
                continue
            rows = frame.reshape(height, -1).view(np.uint8)
            pixels = np.pad(rows, ((0, 0), (0, fill)), constant_values=7).tobytes()
            pixels = zlib.compress(pixels) if compressed else pixels
            chunk(b"ImageDataSeq|%d!" % i, struct.pack("<d", 10.0 * i) + pixels, _NAME_BYTES)
        chunk(b"ImageAttributesLV!", lite("SLxImageAttributes", attributes))
        chunk(b"ImageMetadataSeqLV|0!", lite("SLxPictureMetadata", metadata))
        if experiment:
            chunk(b"ImageMetadataLV!", lite("SLxExperiment", experiment))
        at = file.tell()
        signature = b"ND2 CHUNK MAP SIGNATURE 0000001!"
        table = b"".join(name + struct.pack("<QQ", *place) for name, place in where.items())
        chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", table + signature + struct.pack("<Q", at))
