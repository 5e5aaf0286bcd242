"""The store that a prediction is written to, as its options ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_patch.images.version import version
from gpu_patch.predict.outputs.apart import check_apart, files_of
from gpu_patch.predict.outputs.array import ArrayStore
from gpu_patch.predict.outputs.base import Store
from gpu_patch.predict.outputs.files import NpyStore
from gpu_patch.predict.outputs.ome_zarr import ZarrStore
from gpu_patch.predict.outputs.options import OutputOptions, Shard
from gpu_patch.predict.outputs.tiff import TiffStore


def open_store(
    options: OutputOptions,
    shard: Shard,
    sources: Sequence[str | Path],
    *,
    variants: Sequence[str] = ("",),
    fingerprint: Callable[[], str] = str,
    versions: Callable[[], Sequence[str]] | None = None,
    files: Sequence[Sequence[Path]] = (),
) -> Store:
    """Return where a prediction goes.

    Parameters
    ----------
    options : OutputOptions
        Where and how.
    shard : Shard
        Which of the processes this is.
    sources : sequence of str or Path
        Where each image comes from: the results are named after them.
    variants : sequence of str, default ("",)
        What is appended to the names: one result for each.
    fingerprint : callable, default str
        Returns what two runs must have in common for one to go on with the other, beside the files
        that the images come from. Called where the format can be resumed.
    versions : callable or None, default None
        Returns what tells each image from others that its file has held, or holds; called likewise.
        None tells name, size and date of the file as it is now.
    files : sequence of sequence of Path, default ()
        Every file or folder that each image is in; none are those that its source names.
    """
    options.check_shard(shard)
    results = options.results_of(sources, variants)
    if results.folder is None:
        return ArrayStore(results.names)
    images = [
        (str(source), tuple(files[i] if i < len(files) else ()) or files_of(source))
        for i, source in enumerate(sources)
    ]
    check_apart(results.paths, images)
    if options.kind == "ome-zarr":
        told = [version(source) for source in sources] if versions is None else versions()
        return ZarrStore(results, options, shard, fingerprint=fingerprint(), versions=told)
    kind = TiffStore if options.kind == "ome-tiff" else NpyStore
    return kind(results, options)
