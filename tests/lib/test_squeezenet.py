"""SqueezeNet 1.1 and its weights, which travel with the package, on real photographs."""

import convnets
from convnets import data, models
from convnets.inspect import summary

import chainer
import numpy as np
import pytest


def test_size_and_work():
    s = summary(models.SqueezeNet(), (1, 3, 224, 224))
    assert s.params == 1_235_496
    assert f"{s.macs / 1e9:.3f}" == "0.349"


def test_stages_and_classes():
    net = models.SqueezeNet(n_class=7)
    x = np.zeros((2, 3, 64, 64), np.float32)
    assert net.features(x, "fire9").shape == (2, 512, 3, 3)
    assert net.logits(x).shape == (2, 7)


def test_photographs_are_colour_images():
    for photo in data.photos().values():
        assert photo.mode == "RGB"
        assert min(photo.size) >= 227


@pytest.mark.filterwarnings("error")
def test_the_stored_weights_name_what_the_photographs_show():
    net = convnets.pretrained.load("squeezenet")
    for name, photo in data.photos().items():
        if (label := data.PHOTOS[name]) is None:
            continue
        x = net.preprocessing.batch(photo)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            (p,) = net(x).array
        assert p.argmax() == label, name
        assert p[label] > 0.6
        pixels = x + np.float32([103.939, 116.779, 123.68])[:, None, None]    # BGR 0..255
        assert np.allclose(net.predict(pixels[:, ::-1] / 255), p, atol=1e-5)  # takes RGB 0..1
