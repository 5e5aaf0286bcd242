"""What the picture of a batch says in words: titles of its images, and how to read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpu_patch import ImageStack
from gpu_patch.plots.overview import Overview
from gpu_patch.plots.subject import Subject, not_finite_in
from gpu_patch.words import counted

_BEYOND = {
    "zero": "the patch is zero there",
    "reflect": "the context is mirrored there, as the dimmed margin shows",
    "periodic": "the context repeats the image there, as the dimmed margin shows",
    "wrap": "the context repeats what it has of the image there",
}


def n_not_finite(subject: Subject, overviews: Sequence[Overview]) -> int:
    """Count what is not finite where patches come from, in separate targets too."""
    return sum(
        not_finite_in(images[overview.image_idx], overview.sample_idx)
        for images in (subject.images, subject.targets)
        if images
        for overview in overviews
    )


def explanation(subject: Subject, overviews: Sequence[Overview], n_wrong: int = 0) -> str:
    """Say in a few sentences how to read the picture."""
    sentences = []
    if n_wrong:
        are = "value is" if n_wrong == 1 else "values are"
        sentences.append(
            f"Stripes mark what is not finite: {n_wrong} {are} NaN or infinite where these "
            "patches come from."
        )
    if subject.n_scales > 1:
        sentences.append(
            "Every box around a letter is brought to the size of a patch: the input shows the same "
            "centre with ever more of its surroundings. Thin boxes in it mark the scale before."
        )
    if subject.mixes:
        sentences.append("Targets are unweighted; the input adds them up with their weights.")
    if any(overview.leaves(subject.images[overview.image_idx]) for overview in overviews):
        sentences.append(f"Dashed boxes leave the image: {_BEYOND[subject.padding]}.")
    if any(overview.cuts(subject.images[overview.image_idx]) for overview in overviews):
        sentences.append("Boxes that go far beyond the image are cut off.")
    others = {image.source for image in subject.images}
    others -= {subject.images[overview.image_idx].source for overview in overviews}
    if others:
        sentences.append(f"None of these patches is from {counted(len(others), 'other image')}.")
    return " ".join(sentences)


def cut(text: str, length: int) -> str:
    """Cut a text at its end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _end_of(name: str, length: int) -> str:
    """Cut a name at its beginning: names of one series differ at their end."""
    return name if len(name) <= length else "…" + name[1 - length :]


def names(images: Sequence[ImageStack]) -> list[str]:
    """Return the names of images' files, with their folders where files share a name."""
    paths = {Path(image.source) for image in images}
    shared = {name for name, n in Counter(path.name for path in paths).items() if n > 1}
    return [
        "/".join(path.parts[-2:]) if path.name in shared else path.name
        for path in (Path(image.source) for image in images)
    ]


def title(subject: Subject, overview: Overview, length: int) -> str:
    """Name an image; where there is no room it is its name that is cut."""
    image = subject.images[overview.image_idx]
    height, width = image.data_shape[-2:]
    name = names(subject.images)[overview.image_idx]
    before = ""
    if subject.mode == "independent":
        before = f"structure {subject.structures[overview.image_idx]}: "
    words = [f"{height}×{width}"]
    if image.data_shape[0] > 1:
        words.append(f"sample {overview.sample_idx}")
    if len(image.data_shape) == 5:
        words.append(f"z {image.data_shape[2] // 2}")
    if n := not_finite_in(image, overview.sample_idx):
        words.append(f"{n} not finite")
    after = ", ".join(["", *words])
    room = max(8, length - len(before) - len(after))
    return before + (_end_of(name, room) if before else cut(name, room)) + after
