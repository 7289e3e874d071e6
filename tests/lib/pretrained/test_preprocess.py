"""Photographs come out as the frameworks make them, whatever form they have."""

import warnings
from dataclasses import replace
from pathlib import Path

from convnets.pretrained.preprocess import SETTINGS, Preprocessing, as_list

import chainer.links.model.vision.resnet as stock_resnet
import chainer.links.model.vision.vgg as stock_vgg
import numpy as np
import pytest
from chainer.utils import imgproc
from PIL import Image

# The scenes below after torchvision 0.28's preset for classification, resized to 17, cropped to 12.
TORCHVISION = np.load(Path(__file__).with_name("torchvision.npz"))
SMALL = Preprocessing(size=12, resize=17)
PLAIN = Preprocessing(size=None, resize=None, scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))


def scene(height, width):
    """Return a picture with smooth parts and sharp edges, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [127.5 + 127.5 * np.sin(x / 7 + k) * np.cos(y / (5 + k)) for k in range(3)]
    image = np.stack(waves, axis=2)
    image[height // 3:height // 2, width // 4:width // 2] = (255, 0, 30)
    return image.astype(np.uint8)


@pytest.mark.parametrize(("name", "size", "interpolation"), [
    ("landscape", (60, 91), "bilinear"), ("portrait", (97, 64), "bilinear"),
    ("bicubic", (60, 91), "bicubic")])
def test_agrees_with_torchvision(name, size, interpolation):
    x = replace(SMALL, interpolation=interpolation).prepare(scene(*size))
    assert x.shape == TORCHVISION[name].shape == (3, 12, 12) and x.dtype == np.float32
    assert np.abs(x - TORCHVISION[name]).max() < 2e-6
    other = replace(SMALL, interpolation="nearest").prepare(scene(*size))
    assert np.abs(other - TORCHVISION[name]).max() > 0.1


@pytest.mark.parametrize(("settings", "stock"), [("oxford", stock_vgg), ("msra", stock_resnet)])
def test_squashed_as_chainer_does(settings, stock):
    ours = replace(SETTINGS[settings], size=None, resize=(40, 40), aspect="squash",
                   interpolation="bicubic")
    image = Image.fromarray(scene(60, 91))
    assert np.array_equal(ours.prepare(image), stock.prepare(image, (40, 40)))
    wide = replace(ours, resize=(50, 30)).prepare(image)
    assert np.array_equal(wide, stock.prepare(image, (50, 30)))


def test_a_hand_computed_pixel():
    pixel = np.tile(np.uint8([10, 20, 30]), (5, 5, 1))
    rgb = replace(PLAIN, scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    # (5 - 1) / 2, (10 - 2) / 4, (15 - 3) / 8
    assert rgb.prepare(pixel)[:, 2, 2].tolist() == [2.0, 2.0, 1.5]
    bgr = replace(rgb, order="bgr")
    # (15 - 1) / 2, (10 - 2) / 4, (5 - 3) / 8
    assert bgr.prepare(pixel)[:, 2, 2].tolist() == [7.0, 2.0, 0.25]


def test_keeping_the_aspect_or_not():
    """A circle in a wide picture stays one, or becomes narrow."""
    y, x = np.mgrid[:64, :128]
    circle = np.uint8(255 * ((x - 64) ** 2 + (y - 32) ** 2 < 20 ** 2))
    for aspect, ratio in (("keep", 1.0), ("squash", 2.0)):
        p = replace(PLAIN, size=32, resize=32, aspect=aspect)
        (bright,) = np.nonzero(p.prepare(circle)[0].max(axis=0) > 127)
        (tall,) = np.nonzero(p.prepare(circle)[0].max(axis=1) > 127)
        assert abs(np.ptp(tall) + 1 - ratio * (np.ptp(bright) + 1)) <= 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_are_the_same_picture(dtype):
    image = scene(60, 91)
    x = SMALL.prepare((image / 255).astype(dtype))
    assert np.abs(x - SMALL.prepare(image)).max() < 0.03    # a level is 0.017: 8 bits are rounded
    assert np.ptp(stock_vgg.prepare((image / 255).astype(np.float32))) < 25     # Chainer: black


def test_16_bits_are_the_same_picture(tmp_path):
    grey = scene(60, 91)[:, :, 0]
    expected = SMALL.prepare(grey)
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    wide = Image.fromarray(deep.astype(np.int32))       # mode "I", as older Pillow reads it
    for image in (deep, tmp_path / "deep.png", wide, Image.open(tmp_path / "deep.png")):
        assert np.abs(SMALL.prepare(image) - expected).max() < 0.03


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "P", "L", "LA", "1", "F"])
def test_every_mode_of_pillow(mode):
    image = Image.fromarray(scene(60, 91)[:, :, 0])
    if mode == "F":
        converted = Image.fromarray(np.asarray(image, np.float32) / 255)
    else:
        converted = image.convert("RGB").convert(mode)
    x = SMALL.prepare(converted)
    expected = SMALL.prepare(image.convert("1" if mode == "1" else "L"))
    assert x.shape == (3, 12, 12)
    assert np.abs(x - expected).max() < 0.1


def test_axes_of_arrays():
    image = scene(60, 91)
    expected = SMALL.prepare(Image.fromarray(image))
    assert np.array_equal(SMALL.prepare(image), expected)
    assert np.array_equal(SMALL.prepare(image.transpose(2, 0, 1)), expected)
    grey = SMALL.prepare(image[:, :, 0])
    for same in (image[:, :, :1], image[None, :, :, 0], np.repeat(image[:, :, :1], 3, axis=2)):
        assert np.array_equal(SMALL.prepare(same), grey)


def test_transparent_becomes_white():
    for image in (np.zeros((20, 20, 4), np.uint8), np.zeros((20, 20, 4), np.float32)):
        image[:, 10:, 3] = 1 if image.dtype.kind == "f" else 255
        x = PLAIN.prepare(image)
        assert (x[:, :, :10] == 255).all() and (x[:, :, 10:] == 0).all()
    palette = Image.new("P", (20, 20))
    palette.info["transparency"] = 0
    assert (PLAIN.prepare(palette) == 255).all()


def test_exif_orientation(tmp_path):
    image = Image.fromarray(scene(64, 96))
    exif = Image.Exif()
    exif[0x0112] = 6                                    # turn by 90 degrees to show it
    image.save(tmp_path / "turned.png", exif=exif)
    x = SMALL.prepare(tmp_path / "turned.png")
    assert np.array_equal(x, SMALL.prepare(image.transpose(Image.Transpose.ROTATE_270)))
    assert not np.array_equal(x, SMALL.prepare(image))


def test_a_path_as_text(tmp_path):
    Image.fromarray(scene(60, 91)).save(tmp_path / "scene.png")
    assert np.array_equal(SMALL.prepare(str(tmp_path / "scene.png")), SMALL.prepare(scene(60, 91)))


def test_ten_crops_are_chainers():
    ours = replace(PLAIN, size=12, resize=20, aspect="squash")
    images = [scene(60, 91), scene(33, 21)]
    whole = np.stack([replace(ours, size=None).prepare(i) for i in images])
    crops = ours.batch(images, oversample=True)
    assert np.array_equal(crops, imgproc.oversample(whole, (12, 12)))
    assert np.array_equal(ours.batch(images), crops[[4, 14]])


def test_ten_crops_reach_the_corners_of_a_wide_picture():
    image = np.zeros((20, 50, 3), np.uint8)
    image[:, 45:] = 200
    crops = replace(PLAIN, size=16, resize=20).batch(image, oversample=True)
    assert [int(c[0, 0, -1]) for c in crops] == [0, 200, 0, 200, 0, 0, 0, 0, 0, 0]
    assert [int(c[0, 0, 0]) for c in crops] == [0, 0, 0, 0, 0, 0, 200, 0, 200, 0]


def test_one_image_or_many():
    image = scene(60, 91)
    one = SMALL.batch(image)
    assert one.shape == (1, 3, 12, 12)
    for several in ([image], np.stack([image]), iter([Image.fromarray(image)])):
        assert np.array_equal(SMALL.batch(several), one)
    assert np.array_equal(one[0], SMALL.prepare(image))
    assert len(as_list("photo.jpg")) == 1


def test_at_another_size():
    p = SETTINGS["torchvision"].at(112)
    assert (p.size, p.resize) == (112, 128)
    assert p.prepare(scene(300, 200)).shape == (3, 112, 112)


@pytest.mark.parametrize("name", SETTINGS)
def test_published_settings(name):
    p = SETTINGS[name]
    x = p.prepare(scene(300, 400))
    assert x.shape == (3, p.size, p.size) and x.flags.c_contiguous
    white, black = (p.prepare(np.full((300, 300), v, np.uint8))[:, 0, 0] for v in (255, 0))
    green = p.prepare(np.tile(np.uint8([0, 255, 0]), (300, 300, 1)))[:, 0, 0]
    assert np.allclose(green, [black[0], white[1], black[2]])
    blue = p.prepare(np.tile(np.uint8([0, 0, 255]), (300, 300, 1)))[:, 0, 0]
    where = 0 if p.order == "bgr" else 2
    assert np.allclose(blue[where], white[where]) and blue[2 - where] == black[2 - where]
    # Red has the largest mean and blue the smallest, wherever they stand.
    red_last = p.mean[2] > p.mean[1] > p.mean[0]
    assert red_last == (p.order == "bgr")


@pytest.mark.parametrize(("image", "words"), [
    (np.zeros((5, 5, 5), np.uint8), ["(H, W, C) or (C, H, W)", "(5, 5, 5)"]),
    (np.zeros((3, 9, 3), np.uint8), ["(3, 9, 3)", "either end"]),
    (np.zeros((0, 9), np.uint8), ["(0, 9)"]),
    (np.zeros(9, np.uint8), ["(9,)"]),
    (np.zeros((9, 9), np.int64), ["uint8, uint16 or floats", "int64"]),
    (np.full((9, 9), 255.0), ["0..1", "255", "Divide"]),
    (np.full((9, 9), np.nan), ["0..1", "nan"]),
    (Image.fromarray(np.full((9, 9), 99999, np.int32)), ["0..65535", "99999"]),
    (7, ["PIL image, a path or an array", "int"]),
])
def test_what_is_no_image(image, words):
    with warnings.catch_warnings(), pytest.raises(ValueError) as e:
        warnings.simplefilter("error")
        SMALL.prepare(image)
    assert all(word in str(e.value) for word in words), e.value


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(OSError, match=r"no\.png"):
        SMALL.prepare(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(OSError, match=r"cannot identify image file .*text\.png"):
        SMALL.prepare(tmp_path / "text.png")
    Image.fromarray(scene(60, 91)).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:3000])
    with pytest.raises(OSError, match="truncated"):
        SMALL.prepare(tmp_path / "half.png")


def test_a_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(scene(60, 91)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"large\.png: .*decompression bomb"):
        SMALL.prepare(tmp_path / "large.png")


@pytest.mark.parametrize(("options", "words"), [
    ({"aspect": "crop"}, ["aspect", "crop", "keep, squash"]),
    ({"order": "rgba"}, ["order", "rgb, bgr"]),
    ({"interpolation": "lanczos"}, ["nearest, bilinear, bicubic"]),
    ({"size": 224, "resize": 200}, ["224", "200"]),
    ({"resize": (256, 256)}, ["aspect='squash'"]),
    ({"size": 8, "resize": (256, 4), "aspect": "squash"}, ["cut out 8"]),
    ({"size": 0}, ["at least 1 pixel"]),
])
def test_settings_that_make_no_sense(options, words):
    with pytest.raises(ValueError) as e:
        Preprocessing(**options)
    assert all(word in str(e.value) for word in words), e.value


def test_batches_that_make_no_sense():
    with pytest.raises(ValueError, match="at least one image"):
        SMALL.batch([])
    with pytest.raises(ValueError, match=r"different sizes.*\(20, 30\), \(30, 20\)"):
        PLAIN.batch([scene(20, 30), scene(30, 20)])
    with pytest.raises(ValueError, match="20 x 30 pixels, too small to cut out 24 x 24"):
        replace(PLAIN, size=24).prepare(scene(20, 30))
    with pytest.raises(ValueError, match="ten crops need a size"):
        PLAIN.batch(scene(20, 30), oversample=True)
    with pytest.raises(ValueError, match="got int"):
        SMALL.batch(3)
