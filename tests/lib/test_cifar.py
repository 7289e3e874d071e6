"""CIFAR-10 from any source is the published one, to the bit as Chainer reads it, or an error.

The archives here are small ones of random pixels; the last tests are on the real data,
where these are.
"""

import hashlib
import io
import json
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import convnets
from convnets import cli, data, models
from convnets.data import cifar

import chainer
import numpy as np
import pytest
from PIL import Image

ROWS = 20   # in each of six batches; the real ones have 10,000
RNG = np.random.RandomState(0)
ROWS_OF = {batch: RNG.randint(0, 256, (ROWS, 3073)).astype(np.uint8) for batch in cifar.BATCH_MD5}
for rows in ROWS_OF.values():
    rows[:, 0] %= 10   # the label; then 1,024 red, 1,024 green, 1,024 blue pixels
ALL = np.concatenate(list(ROWS_OF.values()))
SOURCES = cifar.SOURCES   # as they are before a test replaces them


def tar(path, contents):
    """Write a tar archive of bytes, or of a link for a str; return its path."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def bins(rows_of=ROWS_OF):
    return {f"cifar-10-batches-bin/{batch}.bin": rows.tobytes() for batch, rows in rows_of.items()}


def png(rows):
    pixels = rows[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def pngs():
    labels = ALL[:, 0].tolist()
    return {**{f"package/{batch}.png": png(rows) for batch, rows in ROWS_OF.items()},
            "package/train_lables.json": json.dumps(labels[:5 * ROWS]).encode(),
            "package/test_lables.json": json.dumps(labels[5 * ROWS:]).encode()}


def source(template, archive, get=None):
    """Return a source for a small archive in place of the real one."""
    content = archive.read_bytes()
    return template._replace(archive=archive.name, size=len(content), get=get or template.get,
                             sha256=hashlib.sha256(content).hexdigest())


def unreachable(address, path, **_):
    raise data.DownloadError(f"{address}: unreachable")


def from_disk(archive):
    def get(address, path, **_):
        path.write_bytes(archive.read_bytes())
        return path
    return get


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder, and small batches taken for the published ones."""
    root = tmp_path / "root"
    md5 = {batch: hashlib.md5(rows.tobytes()).hexdigest() for batch, rows in ROWS_OF.items()}
    monkeypatch.setattr(chainer.dataset.download, "_dataset_root", str(root))
    monkeypatch.setattr(cifar, "BATCH_MD5", md5)
    monkeypatch.setattr(cifar, "ROWS", ROWS)
    monkeypatch.setattr(cifar, "SOURCES", ())
    return root


@pytest.fixture
def archives(root, tmp_path):
    return (tar(tmp_path / "bins.tar.gz", bins()), tar(tmp_path / "pngs.tgz", pngs()))


@pytest.fixture
def fetched(root, archives, monkeypatch):
    """The path of the cache, filled."""
    get = from_disk(archives[0])
    monkeypatch.setattr(cifar, "SOURCES", [source(SOURCES[0], archives[0], get)])
    return data.fetch_cifar10(progress=False)


def check_examples(datasets):
    x, t = (np.concatenate(columns) for columns in zip(
        *(chainer.dataset.concat_examples(part[:]) for part in datasets), strict=True))
    assert (x.dtype, t.dtype) == (np.float32, np.int32)
    assert np.array_equal(x, ALL[:, 1:].reshape(-1, 3, 32, 32) * np.float32(1 / 255))
    assert np.array_equal(t, ALL[:, 0])


@pytest.mark.parametrize("i", [0, 1])
def test_each_source_gives_the_same_and_chainers_loader_reads_it(
        i, root, archives, monkeypatch):
    get = from_disk(archives[i])
    monkeypatch.setattr(cifar, "SOURCES", [source(SOURCES[i], archives[i], get)])
    path = data.fetch_cifar10(progress=False)
    assert path == root / "pfnet/chainer/cifar/cifar-10.npz"
    assert {p.suffix for p in path.parent.iterdir()} <= {".npz", ".lock"}
    check_examples(data.cifar10())
    check_examples(chainer.datasets.get_cifar10())


def test_over_http(root, archives, monkeypatch):
    handler = partial(SimpleHTTPRequestHandler, directory=archives[0].parent)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/bins.tar.gz"
        monkeypatch.setattr(
            cifar, "SOURCES", [source(SOURCES[0], archives[0])._replace(address=url)])
        data.fetch_cifar10(progress=False)
        server.shutdown()
        thread.join()
    check_examples(data.cifar10())


def test_the_second_source_stands_in_for_the_first(root, archives, monkeypatch, capsys):
    monkeypatch.setattr(cifar, "SOURCES", [
        source(SOURCES[0], archives[0], unreachable),
        source(SOURCES[1], archives[1], from_disk(archives[1]))])
    assert cli.main(["data", "--fetch", "cifar10"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"cifar10: {root}/pfnet/chainer/cifar/cifar-10.npz"
    assert "cifar-10-binary.tar.gz: unreachable" in err
    check_examples(data.cifar10())


def test_offline_it_says_what_to_put_where(root, archives, monkeypatch, capsys):
    monkeypatch.setattr(cifar, "SOURCES", [
        source(SOURCES[i], archive, unreachable) for i, archive in enumerate(archives)])
    assert cli.main(["data", "--fetch", "cifar10"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("convnets: error: CIFAR-10 could not be fetched. ")
    for wanted in ("unreachable", "put bins.tar.gz (", "pngs.tgz (", cifar.SOURCES[1].sha256,
                   f"into {root}/pfnet/chainer/cifar and run `convnets data --fetch cifar10`"):
        assert wanted in error


@pytest.mark.parametrize("i", [0, 1])
def test_an_archive_put_there_by_hand_needs_no_network(i, root, archives, monkeypatch):
    def no_get(*args, **kwargs):
        raise AssertionError("the network was asked")
    monkeypatch.setattr("urllib.request.urlopen", no_get)
    monkeypatch.setattr("subprocess.run", no_get)
    monkeypatch.setattr(cifar, "SOURCES", [
        source(SOURCES[i], archive) for i, archive in enumerate(archives)])
    folder = root / "pfnet/chainer/cifar"
    folder.mkdir(parents=True)
    (folder / archives[i].name).write_bytes(archives[i].read_bytes())
    data.fetch_cifar10(progress=False)
    check_examples(data.cifar10())


def test_what_is_there_is_not_fetched_again(fetched, monkeypatch):
    monkeypatch.setattr(cifar, "SOURCES", ())
    before = fetched.stat()
    assert data.fetch_cifar10() == fetched
    assert fetched.stat() == before


def test_not_fetched(root, capsys):
    with pytest.raises(data.DataError, match=r"cifar-10\.npz is not there.*"
                                             r"convnets data --fetch cifar10$"):
        data.cifar10()
    assert not root.exists()


def without_a_name(path):
    np.savez(path, train_x=ALL[:100, 1:], train_y=ALL[:100, 0], test_x=ALL[100:, 1:])


def of_another(path, change):
    arrays = dict(np.load(path))
    arrays = {name: change(name, array) for name, array in arrays.items()}
    np.savez(path, **arrays)


def one_label(name, array):
    if name == "train_y":
        array[37] = (array[37] + 1) % 10
    return array


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [
    without_a_name, flip_a_byte,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: path.write_bytes(pickle.dumps(ALL)),
    partial(of_another, change=one_label),
    partial(of_another, change=lambda _, array: array[:-1]),
    partial(of_another, change=lambda _, array: array.astype(np.float32)),
    partial(of_another, change=lambda _, array: array.astype(object)),
])
def test_a_damaged_cache_is_refused_and_replaced(damage, fetched):
    damage(fetched)
    with pytest.raises(data.DataError, match=r"is damaged \(.*Replace it: convnets data --fetch"):
        data.cifar10()
    data.fetch_cifar10(progress=False)
    check_examples(data.cifar10())


def other_pixels():
    rows_of = {batch: rows.copy() for batch, rows in ROWS_OF.items()}
    rows_of["data_batch_3"][5, 7] ^= 1
    return rows_of


def two_sizes():
    pictures = pngs()
    pictures["package/data_batch_2.png"] = png(ROWS_OF["data_batch_2"][:-1])
    return pictures


@pytest.mark.parametrize(("i", "contents", "message"), [
    (0, bins(other_pixels()), "data_batch_3 is not CIFAR-10's: got 61,460 bytes with md5"),
    (0, {**bins(), "cifar-10-batches-bin/test_batch.bin": b""}, "test_batch is not .* got 0 bytes"),
    (0, {**bins(), "cifar-10-batches-bin/test_batch.bin": bytes(20 * 3073 + 1)},
     r"no file .*test_batch\.bin of at most 61,460 bytes"),
    (0, {**bins(), "cifar-10-batches-bin/test_batch.bin": "/etc/passwd"}, r"no file .*test_batch"),
    (0, {"../" + name: content for name, content in bins().items()}, r"no file .*data_batch_1"),
    (1, {**pngs(), "package/data_batch_2.png": png(ROWS_OF["data_batch_1"])},
     "data_batch_2 is not CIFAR-10's"),
    (1, two_sizes(), r"a picture has the shape \(19, 1024, 3\), expected \(20, 1024, 3\)"),
])
def test_a_wrong_archive(i, contents, message, root, tmp_path, monkeypatch):
    archive = tar(tmp_path / "wrong.tgz", contents)
    monkeypatch.setattr(cifar, "SOURCES", [source(SOURCES[i], archive, from_disk(archive))])
    with pytest.raises(data.DownloadError, match=message):
        data.fetch_cifar10(progress=False)
    assert not cifar.cache_path().exists()


def test_a_part_is_the_beginning_of_the_whole(fetched):
    train, test = data.cifar10(7, 3)
    assert (len(train), len(test)) == (7, 3)
    for part, whole in zip((train, test), data.cifar10(), strict=True):
        assert all(np.array_equal(a, b) and s == t
                   for (a, s), (b, t) in zip(part, whole[:len(part)], strict=True))


@pytest.mark.parametrize("n", [0, -1, 101])
def test_a_part_larger_than_the_whole(n, fetched):
    with pytest.raises(ValueError, match=r"n_train must be in 1\.\.100 for cifar10"):
        data.cifar10(n)


# Augmentation

IMAGE = np.arange(1, 2 * 4 * 5 + 1, dtype=np.float32).reshape(2, 4, 5)   # (C, H, W), no zero


def variants(image, pad, flip):
    """Return the bytes of all images that augmentation may give, written pixel by pixel."""
    height, width = image.shape[1:]
    found = set()
    for dy in range(-pad, pad + 1):
        for dx in range(-pad, pad + 1):
            out = np.zeros_like(image)
            for i in range(height):
                for j in range(width):
                    if 0 <= i + dy < height and 0 <= j + dx < width:
                        out[:, i, j] = image[:, i + dy, j + dx]
            found |= {out.tobytes(), out[:, :, ::-1].tobytes()} if flip else {out.tobytes()}
    return found


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_augmentation_gives_every_move_and_nothing_else(pad, flip):
    np.random.seed(0)
    dataset = data.augment([(IMAGE, 3)], pad, flip)
    seen = {dataset[0][0].tobytes() for _ in range(1000)}
    assert seen == variants(IMAGE, pad, flip)
    assert len(seen) == (2 * pad + 1) ** 2 * (1 + flip)


def test_augmentation_keeps_types_labels_and_the_original():
    original = IMAGE.copy()
    np.random.seed(0)
    dataset = data.augment(chainer.datasets.TupleDataset(IMAGE[None], np.array([3], np.int32)))
    x, t = chainer.dataset.concat_examples(dataset[:])
    assert (x.shape, x.dtype, t.dtype, t[0]) == ((1, 2, 4, 5), np.float32, np.int32, 3)
    assert len(dataset) == 1 and np.array_equal(IMAGE, original)


def test_half_of_the_images_are_mirrored():
    np.random.seed(0)
    dataset = data.augment([(IMAGE, 0)], pad=0)
    mirrored = sum(not np.array_equal(dataset[0][0], IMAGE) for _ in range(1000))
    assert 450 < mirrored < 550   # three standard deviations are 47


@pytest.mark.parametrize("pad", [-1, 0.5])
def test_augmentation_refuses(pad):
    with pytest.raises(ValueError, match="pad must be a whole number of at least 0"):
        data.augment([], pad)


def test_a_resumed_run_sees_the_same_images(tmp_path):
    def run(seed, **options):
        np.random.seed(seed)
        model = models.LeNet5()
        train_set, test_set = data.mnist(200, 50)
        trainer = convnets.trainer(model, data.augment(train_set, pad=2), test_set, epochs=2,
                                   batch=50, seed=1, **options)
        return model, trainer

    def stop(trainer):
        if trainer.updater.iteration == 6:
            raise KeyboardInterrupt
    whole, trainer = run(0)
    trainer.run()
    _, trainer = run(0, out=tmp_path)
    trainer.extend(stop, trigger=(1, "iteration"))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed, trainer = run(99, out=tmp_path, resume=True)
    assert trainer.updater.iteration == 4
    trainer.run()
    for a, b in zip(whole.params(), resumed.params(), strict=True):
        assert np.array_equal(a.array, b.array), a.name


# The real data, where they are

real = pytest.mark.skipif(not cifar.cache_path().exists(),
                          reason="CIFAR-10 is not there: convnets data --fetch cifar10")


@real
def test_real_data_are_chainers_to_the_bit():
    for ours, theirs, n in zip(data.cifar10(2000, 1000), chainer.datasets.get_cifar10(),
                               (2000, 1000), strict=True):
        a, b = (chainer.dataset.concat_examples(part[:n]) for part in (ours, theirs))
        assert all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(a, b, strict=True))


@real
def test_real_data_have_every_class_alike():
    arrays = cifar._load(cifar.cache_path())   # checks the md5 sums of all six files
    assert np.bincount(arrays["train_y"]).tolist() == [5000] * 10
    assert np.bincount(arrays["test_y"]).tolist() == [1000] * 10
    first = arrays["test_x"][0].reshape(3, 32, 32)
    assert data.CIFAR10_LABELS[arrays["test_y"][0]] == "cat"
    assert first[:, 0, 0].tolist() == [158, 112, 49]
