"""Photographs as the published networks want them: resized, cropped, in their order and scale."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC}
CHANNELS = (1, 3, 4)    # grey, colour, colour and alpha


@dataclass(frozen=True)
class Preprocessing:
    """The way from a photograph to the input of a network.

    Resize, cut out the middle, then ``(pixels * scale - mean) / std`` with pixels in 0..255.

    Attributes
    ----------
    size : int or None
        Height and width of what is cut out; None keeps all of it.
    resize : int, (int, int) or None
        With ``aspect="keep"`` the shorter side after resizing, with ``"squash"`` both sides;
        a pair of width and height, as Pillow counts them, is for ``"squash"`` only.
        None keeps the size of the photograph.
    aspect : str
        ``"keep"`` or ``"squash"``. Chainer's ``VGG16Layers`` and ``ResNet50Layers`` squash.
    interpolation : str
        ``"nearest"``, ``"bilinear"`` or ``"bicubic"``, with antialiasing as Pillow does it.
    order : str
        ``"rgb"`` or ``"bgr"``, the order of the channels.
    scale : float
        Factor of the pixels.
    mean, std : tuple of 3 floats
        One number a channel, in the order of `order`.

    Raises
    ------
    ValueError
        If an option is unknown, or the crop is larger than the resized photograph.
    """

    size: int | None = 224
    resize: int | tuple | None = 256
    aspect: str = "keep"
    interpolation: str = "bilinear"
    order: str = "rgb"
    scale: float = 1 / 255
    mean: tuple = (0.485, 0.456, 0.406)
    std: tuple = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for option, known in (("aspect", ("keep", "squash")), ("order", ("rgb", "bgr")),
                              ("interpolation", FILTERS)):
            if getattr(self, option) not in known:
                raise ValueError(f"unknown {option} {getattr(self, option)!r}; "
                                 f"there are: {', '.join(known)}")
        if isinstance(self.resize, tuple) and self.aspect == "keep":
            raise ValueError(f"resize={self.resize} fixes both sides, which does not keep the "
                             f"aspect: give one number, or aspect='squash'")
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        if min(sides) < 1 or (self.size is not None and self.size < 1):
            raise ValueError(f"size and resize must be at least 1 pixel, got size={self.size} "
                             f"and resize={self.resize}")
        if self.size and self.resize and min(sides) < self.size:
            raise ValueError(f"cannot cut out {self.size} pixels of an image resized to "
                             f"{self.resize}")

    def at(self, size):
        """Return the same settings for another crop size, with `resize` in proportion.

        Parameters
        ----------
        size : int

        Returns
        -------
        Preprocessing
        """
        return replace(self, size=size, resize=round(size * self.resize / self.size))

    def prepare(self, image):
        """Return one photograph as the network's input.

        Parameters
        ----------
        image : PIL.Image.Image, path or array
            An image of any mode; its EXIF orientation is applied, transparent parts become
            white. An array is (H, W), (H, W, C) or (C, H, W) with C = 1, 3 (RGB) or 4 (RGBA),
            ``uint8`` 0..255, ``uint16`` 0..65535, or floats 0..1.

        Returns
        -------
        numpy.ndarray, shape (3, size, size), float32

        Raises
        ------
        ValueError
            If an array is no image, or the photograph is too small to cut out `size`.
        OSError
            If a file is missing or no image.
        """
        return self._of_pixels(self._centre(self._resized(image)))

    def batch(self, images, oversample=False):
        """Return photographs as a minibatch.

        Parameters
        ----------
        images : image or iterable of images
            Each as `prepare` takes it. An array of up to three axes is one image.
        oversample : bool
            Take ten crops of each: four corners and the middle, then the same mirrored.

        Returns
        -------
        numpy.ndarray, shape (N, 3, size, size) or (10 N, 3, size, size), float32

        Raises
        ------
        ValueError
            If there are no images, or they come out in different sizes.
        """
        if oversample and self.size is None:
            raise ValueError("ten crops need a size to cut out; size is None")
        crops = [self._of_pixels(crop) for image in as_list(images)
                 for crop in self._crops(self._resized(image), oversample)]
        if len({crop.shape for crop in crops}) > 1:
            sizes = sorted({crop.shape[1:] for crop in crops})
            raise ValueError(f"images of different sizes make no batch: {sizes}. Set size.")
        return np.stack(crops)

    def _resized(self, image):
        """Return pixels (H, W, 3), float32 in 0..255."""
        channels = _channels(image)
        width, height = self._target(*channels[0].size)
        if (width, height) != channels[0].size:
            channels = [c.resize((width, height), FILTERS[self.interpolation]) for c in channels]
        pixels = np.stack([np.asarray(c, np.float32) for c in channels], axis=2)
        return pixels.clip(0, 255)      # bicubic filters overshoot

    def _target(self, width, height):
        if self.resize is None:
            return width, height
        if self.aspect == "squash":
            return self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        short, long = sorted((width, height))
        longer = int(self.resize * long / short)
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def _crops(self, pixels, oversample):
        if not oversample:
            return [self._centre(pixels)]
        down, right = self._room(pixels)
        corners = [self._crop(pixels, top, left) for top in (0, down) for left in (0, right)]
        five = [*corners, self._crop(pixels, down // 2, right // 2)]
        return five + [crop[:, ::-1] for crop in five]

    def _centre(self, pixels):
        if self.size is None:
            return pixels
        down, right = self._room(pixels)
        return self._crop(pixels, round(down / 2), round(right / 2))

    def _crop(self, pixels, top, left):
        return pixels[top:top + self.size, left:left + self.size]

    def _room(self, pixels):
        """Return how far a crop can move down and to the right."""
        height, width = pixels.shape[:2]
        if min(height, width) < self.size:
            raise ValueError(f"the image is {height} x {width} pixels, too small to cut out "
                             f"{self.size} x {self.size}. Set resize.")
        return height - self.size, width - self.size

    def normalise(self, images):
        """Return images of the right size as the network's input.

        Parameters
        ----------
        images : array, shape (N, 3, H, W), float
            RGB in 0..1.

        Returns
        -------
        array, shape (N, 3, H, W), float32
        """
        return self._normalised(images, 255 * self.scale)

    def _of_pixels(self, pixels):
        """Return the input for pixels (H, W, 3) in 0..255."""
        return self._normalised(pixels.transpose(2, 0, 1), self.scale)

    def _normalised(self, x, factor):
        """Return RGB values (..., 3, H, W) in the network's order, times a factor, normalised."""
        if self.order == "bgr":
            x = x[..., ::-1, :, :]
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return np.ascontiguousarray((x * np.float32(factor) - mean) / std)


_BGR = {"order": "bgr", "scale": 1.0, "std": (1.0, 1.0, 1.0)}

# Where the mean of a family is that of whole images, the originals subtract it as one colour,
# and so does Chainer.
SETTINGS = {
    # torchvision.models.*_Weights.IMAGENET1K_V1, also chainercv2
    "torchvision": Preprocessing(),
    # IMAGENET1K_V2 of the ResNets
    "torchvision-v2": Preprocessing(resize=232),
    # preprocessor_config.json of microsoft/resnet-50: crop_pct 0.875, resample 3
    "huggingface": Preprocessing(interpolation="bicubic"),
    # pretrained_cfg of timm's a1 weights: crop_pct 1 at the test size
    "timm-a1": Preprocessing(size=288, resize=288, interpolation="bicubic"),
    # keras.applications.imagenet_utils, mode "caffe"
    "keras": Preprocessing(**_BGR, mean=(103.939, 116.779, 123.68)),
    # the training set's mean, given with the models of Simonyan and Zisserman
    "oxford": Preprocessing(**_BGR, mean=(103.939, 116.779, 123.68)),
    # the mean over ResNet_mean.binaryproto, as Chainer rounds it
    "msra": Preprocessing(**_BGR, mean=(103.063, 115.903, 123.152)),
    # deploy.prototxt of SqueezeNet 1.1
    "squeezenet": Preprocessing(**_BGR, size=227, mean=(103.939, 116.779, 123.68)),
    # chainercv keeps RGB: the same means, turned round
    "chainercv-vgg": Preprocessing(scale=1.0, mean=(123.68, 116.779, 103.939), std=(1.0,) * 3),
    "chainercv-resnet": Preprocessing(scale=1.0, mean=(123.15163084, 115.90288257, 103.0626238),
                                      std=(1.0,) * 3),
}


def as_list(images):
    """Return one image or several as a list, which has at least one.

    Parameters
    ----------
    images : image or iterable of images
        An array of up to three axes is one image.

    Returns
    -------
    list

    Raises
    ------
    ValueError
        If there is none.
    """
    one = isinstance(images, (str, Path, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim <= 3)
    if not one and not isinstance(images, Iterable):
        raise ValueError(f"expected an image or several, got {type(images).__name__}")
    images = [images] if one else list(images)
    if not images:
        raise ValueError("expected at least one image, got none")
    return images


def _channels(image):
    """Return red, green and blue as three Pillow images of 0..255.

    Their mode is "L" for 8-bit sources, so that resizing rounds as everywhere else, and "F" for
    floats and 16 bits, which lose nothing.
    """
    if isinstance(image, (str, Path)):
        return _of_file(image)
    if isinstance(image, Image.Image):
        return _of_pil(image)
    if isinstance(image, np.ndarray):
        return _of_array(image)
    raise ValueError(f"expected a PIL image, a path or an array, got {type(image).__name__}")


def _of_file(path):
    try:
        with Image.open(path) as image:
            return _of_pil(image)
    except Image.DecompressionBombError as e:
        raise ValueError(f"{path}: {e}") from e


def _of_pil(image):
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):                      # 16 bits; Pillow clips them in convert
        return _of_array(_as_uint16(np.asarray(image)))
    if image.mode == "F":
        return _of_array(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return list(image.convert("RGB").split())


def _as_uint16(pixels):
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"an image of whole numbers must lie in 0..65535, got values from "
                         f"{pixels.min()} to {pixels.max()}")
    return pixels.astype(np.uint16)


def _of_array(array):
    x = _channels_last(array)
    if x.dtype == np.uint8:
        return _of_pil(Image.fromarray(np.ascontiguousarray(x[:, :, 0] if x.shape[2] == 1 else x)))
    x = _in_255(x)
    if x.shape[2] == 4:
        alpha = x[:, :, 3:] / 255
        x = x[:, :, :3] * alpha + 255 * (1 - alpha)
    planes = [Image.fromarray(np.ascontiguousarray(x[:, :, c])) for c in range(x.shape[2])]
    return planes * 3 if len(planes) == 1 else planes


def _channels_last(array):
    """Return (H, W, C) of (H, W), (H, W, C) or (C, H, W)."""
    shape = array.shape
    if array.ndim == 2 and array.size:
        return array[:, :, None]
    last, first = (array.ndim == 3 and array.size and shape[axis] in CHANNELS
                   for axis in (-1, 0))
    if first and last:
        raise ValueError(f"an array of shape {shape} has its channels at either end: give an "
                         f"image larger than {max(CHANNELS)} pixels")
    if not first and not last:
        raise ValueError(f"expected an image of shape (H, W), (H, W, C) or (C, H, W) with C one "
                         f"of {CHANNELS}, got {shape}")
    return array if last else array.transpose(1, 2, 0)


def _in_255(x):
    """Return the values of 16 bits or of floats in 0..1 as float32 in 0..255."""
    if x.dtype == np.uint16:
        return x.astype(np.float32) / np.float32(257)
    if x.dtype.kind != "f":
        raise ValueError(f"expected pixels of uint8, uint16 or floats, got {x.dtype}")
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"floating-point pixels must lie in 0..1, got values from {x.min():g} to "
                         f"{x.max():g}. Divide by 255, or pass uint8.")
    return x.astype(np.float32) * np.float32(255)
