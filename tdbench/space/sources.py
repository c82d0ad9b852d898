"""Where images come from: digits, CIFAR through torchvision, or any `.npz`. A source is images and class labels."""

from __future__ import annotations

import contextlib
import http.client
import os
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdbench.base.arguments import number_array, path_text, set_fields, strings, truth
from tdbench.base.environment import cache_folder
from tdbench.base.errors import UserError, echo, nearest, wrong_shape
from tdbench.base.files import read_npz

SIDE = 32
NAMED = ("digits", "cifar10", "cifar100")


@dataclass(frozen=True)
class Source:
    """Images to draw a space from.

    Attributes:
        name: the name it is loaded by; for a file, the name of the file without ``.npz``.
        images: (n, 32, 32, 3) uint8.
        labels: (n,) class indices into `label_names`.
        label_names: one name per class.

    Raises:
        UserError: a field of another type or shape, or a label without a name.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"name must be a string, got {echo(self.name)}")
        set_fields(self, label_names=strings("label_names", self.label_names))
        images, labels = np.asarray(number_array("images", self.images)), number_array("labels", self.labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(f"expected images (n, {SIDE}, {SIDE}, 3) uint8, got {images.shape} {images.dtype}")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise UserError(f"expected labels ({len(images)},) of integers, got {labels.shape} {labels.dtype}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.label_names):
            raise UserError(
                f"labels must be from 0 to {len(self.label_names) - 1}, the last of label_names, "
                f"got {labels.min()} to {labels.max()}"
            )
        set_fields(self, images=images, labels=labels.astype(np.int64, copy=False))


def load_source(
    data: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None, download: bool = False
) -> Source:
    """The source called `data`: ``digits``, ``cifar10``, ``cifar100``, or the path of an `.npz`.

    Args:
        data_dir: folder of the CIFAR sets in torchvision's layout; ``~/.cache/tdbench`` by default.
        download: fetch a missing CIFAR set.

    Raises:
        UserError: unknown source, missing or damaged files, or an `.npz` without proper images and labels.
    """
    data, download = path_text("data", data), truth("download", download)
    folder = default_data_dir() if data_dir is None else Path(path_text("data_dir", data_dir))
    if data == "digits":
        return _digits()
    if data in NAMED:
        return _cifar(data, folder, download)
    if data.endswith(".npz"):
        return _npz(Path(data))
    raise UserError(
        f"unknown data {echo(data)}: expected {', '.join(NAMED)} or the path of an .npz{nearest(data, NAMED)}"
    )


def default_data_dir() -> Path:
    """The folder of the CIFAR sets if `data_dir` is not given."""
    return cache_folder()


def to_rgb32(images: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, 32, 32, 3) uint8 from (n, H, W), (n, H, W, 1) or (n, H, W, 3) uint8; Pillow's bilinear filter.

    Pillow resizes 8-bit images in integer arithmetic, so the pixels are the same on every machine.
    """
    from PIL import Image

    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if images.shape[1:3] == (SIDE, SIDE):
        return np.ascontiguousarray(images)
    resized = [np.asarray(Image.fromarray(im).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for im in images]
    return np.stack(resized) if resized else np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return Source("digits", to_rgb32(grey), digits.target.astype(np.int64), tuple(str(d) for d in range(10)))


def _npz(path: Path) -> Source:
    if not path.is_file():
        raise UserError(f"no such file: {path} (--data takes {', '.join(NAMED)} or the path of an .npz)")
    hint = "; save it with numpy.savez(path, images=..., labels=...)"
    arrays = read_npz(path, ("images", "labels", "label_names"), hint)
    return _checked_npz(path, arrays)


def _checked_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> Source:
    for key in ("images", "labels"):
        if key not in arrays:
            raise UserError(f"{path} has no array {key!r}; a source has images (n, H, W, 3) uint8 and labels (n,)")
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise UserError(f"{path}: {wrong_shape('images', ('n', 'H', 'W', 3), images.shape)}")
    if images.dtype != np.uint8:
        raise UserError(f"{path}: expected images of type uint8, got {images.dtype}")
    if images.size == 0:
        raise UserError(f"{path}: expected at least one pixel in images, but it had shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{path}: {wrong_shape('labels', images.shape[:1], labels.shape)}")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        found = labels.min() if labels.dtype.kind in "iu" else f"type {labels.dtype}"
        raise UserError(f"{path}: expected labels that are integers from 0, got {found}")
    classes = int(labels.max()) + 1
    names = _names(path, arrays["label_names"]) if "label_names" in arrays else ()
    if names and len(names) < classes:
        raise UserError(f"{path}: labels go up to {classes - 1}, but there are only {len(names)} label_names")
    if not names and classes > 10 * len(labels) + 1000:
        raise UserError(f"{path}: labels go up to {classes - 1} for {len(labels)} images; number the classes from 0")
    names = names or tuple(str(c) for c in range(classes))
    stem = path.stem.encode(errors="replace").decode()  # the log and the tables are UTF-8
    return Source(stem, to_rgb32(images), labels.astype(np.int64), names)


def _names(path: Path, array: NDArray[Any]) -> tuple[str, ...]:
    if array.ndim != 1:
        raise UserError(f"{path}: {wrong_shape('label_names', ('k',), array.shape)}")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in array)


def _cifar(name: str, folder: Path, download: bool) -> Source:
    datasets = torchvision_datasets()
    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    try:
        parts = [cls(root=str(folder), train=train, download=download) for train in (True, False)]
    except RuntimeError as error:  # torchvision raises it for "not found or corrupted", and for a failed download
        if download:
            raise UserError(f"{name} could not be downloaded into {folder}: {_first_line(error)}") from error
        hint = f"pass --data-dir if you have it elsewhere, or --download to fetch it into {folder}"
        raise UserError(f"{name} was not found complete and undamaged in {folder}; {hint}") from error
    except (OSError, http.client.HTTPException) as error:  # URLError, a cut connection, a full or read-only disk
        what = "downloaded into" if download else "read from"
        raise UserError(f"{name} could not be {what} {folder}: {_first_line(error)}") from error
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise UserError(
            f"{name} in {folder} is damaged ({_first_line(error)}); remove it and use --download"
        ) from error
    images = np.concatenate([np.asarray(part.data, dtype=np.uint8) for part in parts])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return Source(name, to_rgb32(images), labels, tuple(parts[0].classes))


def torchvision_datasets() -> types.ModuleType:
    """torchvision.datasets, also with a CPU-only torch.

    torchvision's wheels register fake kernels for operators that only their CUDA build has, so with a CPU-only torch
    their import fails. Reading a data set needs none of these operators. So the module that registers them is replaced
    by an empty one while torchvision is imported.
    """
    registrations = "torchvision._meta_registrations"
    try:
        import torchvision.datasets
    except (RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules[registrations] = types.ModuleType(registrations)
        import torchvision.datasets
    return torchvision.datasets  # type: ignore[no-any-return]


def cached_sources(data_dir: str | os.PathLike[str] | None = None) -> Iterator[tuple[str, str]]:
    """(name, state) of every named source, without loading any: for `tdbench doctor`."""
    folder = Path(data_dir) if data_dir is not None else default_data_dir()
    yield "digits", "built in"
    for name, sub in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        with contextlib.suppress(OSError):
            there = (folder / sub).is_dir()
            yield name, f"in {folder / sub}" if there else f"not in {folder} (tdbench run --data {name} --download)"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
