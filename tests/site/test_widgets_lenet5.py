"""The digit to draw in a real browser: each layer's numbers are Chainer's, however it was drawn."""

from pathlib import Path

import convnets
from convnets import widgets

import chainer
import numpy as np
import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

ROOT = Path(__file__).resolve().parents[2]
TRAINED = ROOT / "book/results/lenet5-mnist-shift.npz"
ACTIVATIONS = "document.querySelector('[data-cv]').activations"


@pytest.fixture(scope="module")
def net():
    net = convnets.models.LeNet5()
    chainer.serializers.load_npz(TRAINED, net)
    return net


@pytest.fixture(scope="module")
def digits():
    return chainer.dataset.concat_examples(convnets.data.mnist(1, 4)[1][:])


@pytest.fixture
def page(show, net, digits):
    return show(widgets.lenet5_explorer(net, *digits))


def layer(page, name):
    """What the figure has computed for one layer, flat."""
    return np.array(page.evaluate(f"[...{ACTIVATIONS}.{name}.data]"))


def drawn(page):
    """The image on the pad, (1, 1, 28, 28), from its pixels."""
    pixels = page.evaluate("""() => { const c = document.querySelector('.cv-pad canvas');
      const copy = new OffscreenCanvas(28, 28).getContext('2d', {willReadFrequently: true});
      copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, 28, 28).data]; }""")
    return np.array(pixels, np.float32).reshape(1, 1, 28, 28, 4)[..., 0] / 255


def hidden(net, x):
    """Every layer of the model, computed by Chainer."""
    F = chainer.functions
    h = {"conv1": F.sigmoid(net.conv1(x))}
    h["pool1"] = F.max_pooling_2d(h["conv1"], 2, 2)
    h["conv2"] = F.sigmoid(net.conv2(h["pool1"]))
    h["pool2"] = F.max_pooling_2d(h["conv2"], 2, 2)
    h["conv3"] = F.sigmoid(net.conv3(h["pool2"]))
    h["fc4"] = F.sigmoid(net.fc4(h["conv3"]))
    h["fc5"] = net.fc5(h["fc4"])
    h["prob"] = F.softmax(h["fc5"])
    return {name: it.array.ravel() for name, it in h.items()}


def check_layers(page, net, x):
    for name, expected in hidden(net, x).items():
        got = layer(page, name)
        assert got.shape == expected.shape, name
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_look(check_look, net, digits):
    check_look(widgets.lenet5_explorer(net, *digits, caption="A claim."))


@pytest.mark.parametrize("index", range(4))
def test_stored_digits(page, net, digits, index):
    """All layers as Chainer computes them, to 1e-5; and the answer is right."""
    x, t = digits
    page.get_by_role("button", name=f"stored digit {t[index]}").click()
    check_layers(page, net, x[index:index + 1])
    assert f"LeNet5 reads {t[index]}" in page.locator(".cv-answer").inner_text()
    np.testing.assert_allclose(drawn(page), x[index:index + 1], atol=0.5 / 255)


def test_something_is_shown_before_anybody_touches_it(page, digits):
    assert f"LeNet5 reads {digits[1][0]} (100.0 %)" in page.locator(".cv-answer").inner_text()
    assert page.locator(".cv-bars li").count() == 10


def test_a_one_drawn_with_the_mouse_is_a_one(page, net):
    page.get_by_role("button", name="Clear").click()
    assert drawn(page).max() == 0
    assert "Nothing is drawn" in page.locator(".cv-answer").inner_text()
    area = page.locator(".cv-pad").bounding_box()
    centre, top = area["x"] + area["width"] / 2, area["y"]
    page.mouse.move(centre, top + area["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(centre, top + area["height"] * 0.8, steps=9)
    page.mouse.up()
    assert "LeNet5 reads 1" in page.locator(".cv-answer").inner_text()
    before = drawn(page)
    page.mouse.move(centre + 40, top + 40)     # nothing is pressed
    np.testing.assert_array_equal(drawn(page), before)
    np.testing.assert_allclose(layer(page, "prob").sum(), 1, atol=1e-12)


def draw_by_keys(page, keys):
    """Press keys on an empty pad; return the pad."""
    page.get_by_role("button", name="Clear").click()
    pad = page.get_by_role("application")
    pad.focus()
    for key in keys:
        page.keyboard.press(key)
    return pad


def test_by_keyboard(page, net):
    pad = draw_by_keys(page, ["ArrowUp"] * 7 + ["Space"] + ["Shift+ArrowDown"] * 14)
    assert "LeNet5 reads 1" in page.locator(".cv-answer").inner_text()
    image = drawn(page)[0, 0]
    assert (image[7:22, 14] == 1).all() and image[:5].max() == image[24:].max() == 0
    page.get_by_label("eraser").check()
    pad.focus()
    page.keyboard.press("Space")
    assert drawn(page)[0, 0][21, 14] == 0


def test_centre_moves_the_centre_of_mass_into_the_middle(page, net):
    draw_by_keys(page, ["ArrowLeft"] * 9 + ["Space"] + ["Shift+ArrowUp"] * 10)
    before = drawn(page)
    page.get_by_role("button", name="Centre").click()
    after = drawn(page)[0, 0]
    assert after.sum() == pytest.approx(before.sum(), rel=1e-3)
    row, col = (np.indices((28, 28)) + 0.5).reshape(2, -1) @ after.ravel() / after.sum()
    assert abs(row - 14) <= 0.5 and abs(col - 14) <= 0.5


def test_by_touch(show, net, digits):
    page = show(widgets.lenet5_explorer(net, *digits), width=360, has_touch=True)
    page.get_by_role("button", name="Clear").tap()
    page.locator(".cv-pad").tap()
    assert drawn(page)[0, 0][13:15, 13:15].min() > 0.9
