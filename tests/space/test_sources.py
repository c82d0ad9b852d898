"""Sources: what is read is right, and what cannot be read is one clear line."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tdbench.base.errors import UserError
from tdbench.space.sources import Source, cached_sources, load_source, to_rgb32

RNG = np.random.default_rng(0)


def images(n=6, *shape):
    return RNG.integers(0, 256, (n, *(shape or (32, 32, 3))), dtype=np.uint8)


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return str(path)


def one_line(error):
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# digits


def test_digits_are_all_there_in_grey_and_full_range():
    source = load_source("digits")
    assert source.images.shape == (1797, 32, 32, 3)
    assert source.images.dtype == np.uint8
    assert (source.images == source.images[..., :1]).all()
    assert source.images.min() == 0
    assert source.images.max() == 255
    assert source.label_names == tuple("0123456789")
    assert np.bincount(source.labels).min() > 150


def test_digits_are_the_same_pixels_everywhere():
    digest = hashlib.sha256(load_source("digits").images.tobytes()).hexdigest()
    assert digest == "af435ae07930d9afe6e5d957e72d57aea8ce13bcd63b2d9f47d804f8847cfc48"


@pytest.mark.parametrize(("word", "hint"), [("cifar", "cifar10"), ("digit", "digits"), ("mnist", "known are")])
def test_an_unknown_source_names_the_nearest(word, hint):
    with pytest.raises(UserError, match=hint) as error:
        load_source(word)
    one_line(error)


# shapes


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (28, 28), (8, 8, 1)])
def test_grey_becomes_three_equal_channels(shape):
    rgb = to_rgb32(images(3, *shape))
    assert rgb.shape == (3, 32, 32, 3)
    assert (rgb == rgb[..., :1]).all()


@pytest.mark.parametrize("shape", [(28, 28, 3), (64, 48, 3), (1, 1, 3), (33, 32, 3)])
def test_other_sizes_are_resized_each_image_on_its_own(shape):
    given = images(4, *shape)
    resized = to_rgb32(given)
    assert resized.shape == (4, 32, 32, 3)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized[2:3], to_rgb32(given[2:3]))


@pytest.mark.parametrize("side", [1, 7, 28, 100])
def test_resizing_keeps_a_plain_image_plain(side):
    plain = np.full((1, side, side, 3), (10, 200, 77), dtype=np.uint8)
    assert (to_rgb32(plain) == np.array([10, 200, 77])).all()


def test_images_of_the_right_size_are_kept_as_they_are():
    given = images()
    np.testing.assert_array_equal(to_rgb32(given), given)


# .npz


def test_npz_with_names_is_read(tmp_path):
    pixels, labels = images(), np.array([0, 1, 2, 0, 1, 2])
    path = npz(tmp_path, images=pixels, labels=labels, label_names=np.array(["ship", "frog", "deer"]))
    source = load_source(path)
    assert source.name == "mine"
    np.testing.assert_array_equal(source.images, pixels)
    np.testing.assert_array_equal(source.labels, labels)
    assert source.label_names == ("ship", "frog", "deer")


def test_npz_without_names_numbers_its_classes(tmp_path):
    assert load_source(npz(tmp_path, images=images(3), labels=np.array([0, 2, 0]))).label_names == ("0", "1", "2")


def test_npz_names_may_be_bytes(tmp_path):
    path = npz(tmp_path, images=images(2), labels=np.array([0, 1]), label_names=np.array([b"ship", b"frog"]))
    assert load_source(path).label_names == ("ship", "frog")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_npz_labels_may_be_any_integers(tmp_path, dtype):
    source = load_source(npz(tmp_path, images=images(3), labels=np.array([0, 1, 0], dtype=dtype)))
    assert source.labels.dtype == np.int64


def test_npz_grey_images_become_rgb(tmp_path):
    source = load_source(npz(tmp_path, images=images(3, 28, 28), labels=np.array([0, 1, 0])))
    assert source.images.shape == (3, 32, 32, 3)


GOOD = {"images": images(), "labels": np.zeros(6, dtype=int)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": images().astype(np.float32)}, "float32"),
        ({"images": images().astype(np.int64)}, "int64"),
        ({"images": images(6, 32, 32, 4)}, r"\(6, 32, 32, 4\)"),
        ({"images": images(6, 32)}, r"\(6, 32\)"),
        ({"images": images(0), "labels": np.zeros(0, dtype=int)}, "at least one pixel"),
        ({"images": images(6, 0, 32, 3)}, "at least one pixel"),
        ({"labels": np.zeros(5, dtype=int)}, r"labels with shape \(6,\), but it had shape \(5,\)"),
        ({"labels": np.zeros((6, 1), dtype=int)}, r"labels with shape \(6,\), but it had shape \(6, 1\)"),
        ({"labels": np.zeros(6)}, "float64"),
        ({"labels": np.array(list("abcdef"))}, "<U1"),
        ({"labels": np.array([0, 1, 2, -1, 0, 1])}, "integers from 0"),
        ({"labels": np.array([0, 1, 2, 3, 4, 10**9])}, "number the classes from 0"),
        ({"labels": np.array([0, 0, 0, 0, 0, 2**64 - 1], dtype=np.uint64)}, "number the classes from 0"),
        ({"labels": np.arange(6), "label_names": np.array(["a", "b"])}, "only 2 label_names"),
        ({"label_names": np.array("a")}, "label_names"),
    ],
)
def test_npz_that_is_no_source_is_one_line_that_names_the_file(tmp_path, change, message):
    path = npz(tmp_path, **{key: value for key, value in {**GOOD, **change}.items() if value is not None})
    with pytest.raises(UserError, match=message) as error:
        load_source(path)
    assert "mine.npz" in one_line(error)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["images", "labels", "label_names"])
def test_pickled_objects_in_an_npz_are_never_unpickled(tmp_path, key):
    sprung = tmp_path / "sprung"
    trap = np.empty(6, dtype=object)
    trap[:] = [Trap(sprung)] * 6
    path = npz(tmp_path, **{**GOOD, key: trap})
    with pytest.raises(UserError, match="never loaded") as error:
        load_source(path)
    one_line(error)
    assert not sprung.exists()
    with np.load(path, allow_pickle=True) as archive:  # the trap works
        archive[key]
    assert sprung.exists()


def test_a_bare_pickle_named_npz_is_never_unpickled(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "mine.npz"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UserError) as error:
        load_source(str(path))
    one_line(error)
    assert not sprung.exists()


def truncated(path):
    np.savez(path, **GOOD)
    path.write_bytes(path.read_bytes()[:-500])


def flipped(path):
    np.savez_compressed(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)


def single_array(path):
    with path.open("wb") as file:
        np.save(file, GOOD["images"])


def zip_of_texts(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", "hello")
        archive.writestr("labels", "world")


def torn_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'\n")
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00")


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, single_array, zip_of_texts, torn_header, Path.touch, lambda p: p.write_text("not a zip")],
)
def test_a_damaged_npz_is_one_line_that_names_the_file(tmp_path, damage):
    path = tmp_path / "mine.npz"
    damage(path)
    with pytest.raises(UserError) as error:
        load_source(str(path))
    assert "mine.npz" in one_line(error)


def test_a_missing_npz_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file") as error:
        load_source(str(tmp_path / "mine.npz"))
    one_line(error)


def test_the_real_samples_are_sources(cifar10_sample, cifar100_sample):
    ten, hundred = load_source(str(cifar10_sample)), load_source(str(cifar100_sample))
    assert (ten.images.shape, len(ten.label_names)) == ((1017, 32, 32, 3), 10)
    assert (hundred.images.shape, len(hundred.label_names)) == ((2033, 32, 32, 3), 100)


# CIFAR through torchvision


def batch(path, n, seed, **labels):
    data = np.random.default_rng(seed).integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": data, **labels}))
    return data.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def datasets():
    from tdbench.space.sources import torchvision_datasets

    return torchvision_datasets()


@pytest.fixture
def cifar10(tmp_path, monkeypatch, datasets):
    """A folder in torchvision's layout, with checksums to match, and the images in it."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    pixels = [batch(folder / name, 4, seed, labels=[seed, 1, 2, 9]) for seed, name in enumerate(names)]
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    cls = datasets.CIFAR10
    monkeypatch.setattr(cls, "train_list", [[name, md5(folder / name)] for name in names[:5]])
    monkeypatch.setattr(cls, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / "batches.meta")})
    return tmp_path, np.concatenate(pixels), classes


@pytest.fixture
def cifar100(tmp_path, monkeypatch, datasets):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = [batch(folder / name, 5, s, fine_labels=[0, 99, 7, 7, s]) for s, name in enumerate(("train", "test"))]
    classes = [f"class {i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": classes}))
    cls = datasets.CIFAR100
    monkeypatch.setattr(cls, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(cls, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / "meta")})
    return tmp_path, np.concatenate(pixels), classes


def test_cifar10_is_read_from_torchvisions_layout(cifar10):
    folder, pixels, classes = cifar10
    source = load_source("cifar10", folder)
    np.testing.assert_array_equal(source.images, pixels)
    np.testing.assert_array_equal(source.labels, [label for seed in range(6) for label in (seed, 1, 2, 9)])
    assert source.label_names == tuple(classes)


def test_cifar100_is_read_with_its_fine_labels(cifar100):
    folder, pixels, classes = cifar100
    source = load_source("cifar100", folder)
    np.testing.assert_array_equal(source.images, pixels)
    np.testing.assert_array_equal(source.labels, [0, 99, 7, 7, 0, 0, 99, 7, 7, 1])
    assert source.label_names == tuple(classes)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_cifar_folder_names_the_ways_out(tmp_path, name):
    with pytest.raises(UserError, match="download=True") as error:
        load_source(name, tmp_path / "nowhere")
    assert "data_dir" in one_line(error)


def test_looking_for_cifar_makes_no_folder(tmp_path):
    with pytest.raises(UserError):
        load_source("cifar10", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_or_missing_cifar_file_is_one_line(cifar10, name):
    folder, _, _ = cifar10
    file = folder / "cifar-10-batches-py" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="undamaged") as damaged:
        load_source("cifar10", folder)
    one_line(damaged)
    file.unlink()
    with pytest.raises(UserError, match="undamaged") as missing:
        load_source("cifar10", folder)
    one_line(missing)


def test_a_damaged_cifar_file_is_not_unpickled(cifar10):
    folder, _, _ = cifar10
    sprung = folder / "sprung"
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UserError):
        load_source("cifar10", folder)
    assert not sprung.exists()


@pytest.mark.parametrize("failure", [urllib.error.URLError("no route to host"), ConnectionResetError("reset")])
@pytest.mark.filterwarnings("ignore")  # torchvision's own words about the retry
def test_no_network_for_a_download_is_one_line(tmp_path, monkeypatch, datasets, failure):
    def refuse(*_, **__):
        raise failure

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(UserError, match="could not be downloaded") as error:
        load_source("cifar10", tmp_path, download=True)
    one_line(error)


def test_a_download_into_a_folder_that_cannot_be_made_is_one_line(tmp_path, datasets):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be downloaded") as error:
        load_source("cifar10", tmp_path / "file" / "below", download=True)
    one_line(error)


def test_torchvision_is_imported_in_a_fresh_process_beside_this_torch():
    code = "from tdbench.space.sources import torchvision_datasets as d; print(d().CIFAR100.__name__, d() is d())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("CIFAR100 True", 0), done.stderr


def test_the_default_source_does_not_import_torchvision():
    code = (
        "import sys; from tdbench.space.sources import load_source;"
        "load_source('digits'); print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_cache_tells_which_sets_are_there(cifar10):
    states = dict(cached_sources(cifar10[0]))
    assert states["digits"] == "built in"
    assert states["cifar10"].startswith("in ")
    assert "--download" in states["cifar100"]


def test_a_source_of_ones_own_keeps_its_arrays():
    from tdbench import TaskSpace

    pixels, labels = images(8), np.array([0, 1] * 4)
    before = pixels.copy(), labels.copy()
    space = TaskSpace(Source("mine", pixels, labels, ("a", "b")), n=8, ratio=1)
    assert space.reference_tasks
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert pixels.flags.writeable
    assert labels.flags.writeable
