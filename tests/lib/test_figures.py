"""Figures show the data they were given, and leave matplotlib as it was."""

import io
import math

import convnets
from convnets import figures

import chainer
import chainer.functions as F
import matplotlib
import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(0)
LOG = [
    {
        "epoch": epoch,
        "main/loss": 1 / epoch,
        "main/accuracy": 1 - 0.5 / epoch,
        "validation/main/loss": 1.5 / epoch,
        "validation/main/accuracy": 1 - 0.4 / epoch,
    }
    for epoch in range(1, 6)
]


def panels(figure):
    """The images of a figure, in drawing order."""
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.images]


FIGURES = {
    "digits": lambda: figures.digits(RNG.random((3, 1, 4, 4))),
    "feature_maps": lambda: figures.feature_maps(RNG.random((3, 4, 4))),
    "filters": lambda: figures.filters(RNG.random((2, 1, 3, 3))),
    "learning_curves": lambda: figures.learning_curves(LOG),
    "confusion": lambda: figures.confusion([0, 1], [0, 2]),
    "double_softmax": lambda: figures.double_softmax(),
    "graph": lambda: figures.graph(
        convnets.inspect.graph(convnets.models.BottleNeck(8, 2, 8), (1, 8, 6, 6))
    ),
    "predictions": lambda: figures.predictions(
        [RNG.random((4, 5, 3))], [[(7, "cock, rooster", 0.9), (8, "hen", 0.1)]]
    ),
    "saliency": lambda: figures.saliency(RNG.random((4, 5, 3)), {"gradient": RNG.random((2, 2))}),
    "architecture": lambda: figures.architecture(
        convnets.inspect.summary(convnets.models.LeNet5(), (1, 1, 28, 28)).as_dicts()
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_notebooks_get_a_png_with_alternative_text(name):
    figure = FIGURES[name]()
    data, metadata = figure._repr_mimebundle_()
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.width == pytest.approx(1.5 * metadata["image/png"]["width"], abs=2)
    assert len(metadata["image/png"]["alt"]) > 15
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert data["text/plain"].startswith("<Figure of ") and "0x" not in data["text/plain"]


@pytest.mark.parametrize("name", FIGURES)
def test_no_global_state_is_touched(name):
    matplotlib.get_backend()  # chosen at the first look
    before = matplotlib.rcParams.copy()
    FIGURES[name]().png()
    assert matplotlib.rcParams == before


def test_photographs_are_stored_with_few_colours_and_look_the_same():
    photo = np.linspace(0, 1, 60 * 80 * 3).reshape(60, 80, 3) ** 2
    figure = figures.predictions([photo], [[(0, "tench", 1.0)]])
    small = figure.png()
    figure.photographic = False
    large = figure.png()
    assert len(small) < len(large)
    small, large = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)
                    for png in (small, large))
    assert small.shape == large.shape
    assert abs(small - large).mean() < 2


def test_digits_are_the_images_and_labels():
    images = RNG.random((12, 1, 5, 5))
    figure = figures.digits(images, labels=range(12))
    np.testing.assert_array_equal(panels(figure), images[:, 0])
    assert titles(figure) == [str(i) for i in range(12)]
    assert all(axis.images[0].get_clim() == (0, 1) for axis in figure.axes if axis.images)


def test_a_wrong_prediction_stands_out():
    figure = figures.digits(RNG.random((3, 4, 4)), labels=[1, 2, 3], predictions=[1, 7, 3])
    assert titles(figure) == ["1", "7, not 2", "3"]
    colours = [axis.title.get_color() for axis in figure.axes]
    assert colours[1] == figures.COLOURS[1] and colours[0] == colours[2] != colours[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": np.zeros((2, 3, 4, 4))}, r"got shape \(2, 3, 4, 4\)"),
        ({"images": np.zeros((2, 4, 4)), "labels": [1]}, "2 images but 1 labels"),
        ({"images": np.zeros((0, 4, 4))}, r"got shape \(0, 4, 4\)"),
    ],
)
def test_digits_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        figures.digits(**arguments)


def test_feature_maps_of_a_variable_share_one_scale():
    maps = chainer.Variable(RNG.normal(size=(1, 6, 4, 4)).astype("f"))
    figure = figures.feature_maps(maps)
    np.testing.assert_array_equal(panels(figure)[:6], maps.array[0])
    top = abs(maps.array).max()
    assert {axis.images[0].get_clim() for axis in figure.axes[:6]} == {(-top, top)}


def test_feature_maps_without_negatives_start_at_black():
    figure = figures.feature_maps(np.ones((2, 3, 3)))
    assert figure.axes[0].images[0].get_clim() == (0, 1)


def test_filters_are_laid_out_by_output_and_input_channel():
    weights = RNG.normal(size=(3, 2, 5, 5))
    figure = figures.filters(weights)
    np.testing.assert_array_equal(panels(figure)[:6], weights.reshape(6, 5, 5))
    assert titles(figure)[:6] == ["0, 0", "0, 1", "1, 0", "1, 1", "2, 0", "2, 1"]
    with pytest.raises(ValueError, match=r"got shape \(3, 2\)"):
        figures.filters(weights[:, :, 0, 0])


def test_learning_curves_hold_the_log():
    figure = figures.learning_curves(LOG, ("loss", "accuracy", "error"))
    loss, accuracy, error = figure.axes
    for axis, key, scale in [
        (loss, "loss", lambda v: v),
        (accuracy, "accuracy", lambda v: 100 * v),
        (error, "accuracy", lambda v: 100 - 100 * v),
    ]:
        for line, prefix in zip(axis.lines, ("main", "validation/main"), strict=True):
            np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4, 5])
            np.testing.assert_allclose(
                line.get_ydata(), [scale(entry[f"{prefix}/{key}"]) for entry in LOG]
            )
    assert error.get_yscale() == "log"
    assert "92.00 % after epoch 5" in figure.alt


def test_learning_curves_of_several_runs():
    figure = figures.learning_curves({"plain": LOG, "shifted": {"curve": LOG[:2]}})
    lines = figure.axes[1].lines
    labels = ["plain training", "plain test", "shifted training", "shifted test"]
    assert [line.get_label() for line in lines] == labels
    assert [len(line.get_xdata()) for line in lines] == [5, 5, 2, 2]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    with pytest.raises(ValueError, match="no entry"):
        figures.learning_curves({"empty": []})


def test_training_without_tests_has_no_test_curve():
    log = [{"epoch": 1, "main/loss": 2.0, "main/accuracy": 0.5}]
    figure = figures.learning_curves(log)
    assert len(figure.axes[0].lines[1].get_xdata()) == 0
    assert "no test after epoch 1" in figure.alt


def test_confusion_counts():
    labels = RNG.integers(0, 4, 200)
    predictions = np.where(RNG.random(200) < 0.8, labels, RNG.integers(0, 4, 200))
    figure = figures.confusion(labels, predictions, n_class=4)
    shown = {t.get_position(): int(t.get_text() or 0) for t in figure.axes[0].texts}
    for true in range(4):
        for predicted in range(4):
            expected = np.sum((labels == true) & (predictions == predicted))
            assert shown[predicted, true] == expected
    assert f"{np.sum(labels == predictions)} of 200 right" in figure.alt


@pytest.mark.parametrize(
    "labels, predictions, message",
    [([0, 1], [0], "shapes"), ([0, 10], [0, 1], "must be 0 to 9; got 0 to 10")],
)
def test_confusion_refuses(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        figures.confusion(labels, predictions)


def test_double_softmax_is_what_chainer_computes():
    margins = np.array([-8.0, -1.0, 0.0, 2.5, 9.0])
    true, shown = figures.double_softmax_losses(margins)
    logits = np.full((5, 10), -1000, "f")
    logits[:, 0], logits[:, 1] = margins, 0
    for row, once, twice in zip(logits[:, None], true, shown, strict=True):
        label = np.zeros(1, "i")
        assert float(F.softmax_cross_entropy(row, label).array) == pytest.approx(once, abs=1e-5)
        probabilities = F.softmax(row)
        assert float(F.softmax_cross_entropy(probabilities, label).array) == pytest.approx(
            twice, abs=1e-5
        )


@pytest.mark.parametrize("n_class", [10, 1000])
def test_loss_bounds_are_reached_by_certainty(n_class):
    low, high = figures.loss_bounds(n_class)
    certain = np.eye(n_class, dtype="f")[:1]
    for label, bound in [(0, low), (1, high)]:
        loss = F.softmax_cross_entropy(certain, np.array([label], "i"))
        assert float(loss.array) == pytest.approx(bound, abs=2e-6 * bound)
    assert high - low == 1
    assert math.isclose(low, {10: 1.4612, 1000: 5.9095}[n_class], abs_tol=5e-5)


def test_double_softmax_curve_stays_in_its_band():
    axis = figures.double_softmax().axes[0]
    true, shown = (line.get_ydata() for line in axis.lines)
    low, high = figures.loss_bounds()
    assert low < shown.min() < low + 1e-3 and high - 1e-3 < shown.max() < high
    assert true.min() < 1e-4 and true.max() > 9


def test_architecture_has_a_box_for_each_layer():
    rows = convnets.inspect.summary(convnets.models.LeNet5(), (1, 1, 28, 28)).as_dicts()
    figure = figures.architecture(rows)
    texts = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    assert texts[::2] == [
        "input", "conv1", "max pooling", "conv2", "max pooling", "conv3", "fc4", "fc5",
    ]  # fmt: skip
    assert texts[1::2] == [
        "1×28×28", "6×24×24", "6×12×12", "16×8×8", "16×4×4", "120×1×1", "84", "10",
    ]  # fmt: skip
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[0] > heights[1] > heights[2] > heights[3] > heights[4] > heights[5]
    with pytest.raises(ValueError, match="no row"):
        figures.architecture([])


def test_graph_draws_each_function_and_each_edge_once():
    nodes = convnets.inspect.graph(convnets.models.BottleNeck(4, 2, 8, 2, proj=True), (1, 4, 6, 6))
    figure = figures.graph(nodes)
    (axis,) = figure.axes
    boxes = [text for text in axis.texts if text.get_text()]
    assert [text.get_text().split("\n")[0] for text in boxes] == [
        f"{node.name}: {node.kind}" if node.name else node.kind for node in nodes]
    arrows = [text for text in axis.texts if not text.get_text()]
    assert len(arrows) == sum(len(node.sources) for node in nodes)
    assert len({text.get_position() for text in boxes}) == len(nodes)  # none on another
    assert {text.get_position()[0] for text in boxes} == {0, 1}        # the shortcut stands beside
    assert "sum of bn_r: batch normalization and bn_c: batch normalization" in figure.alt


TOPS = [[(2, "great white shark, white shark", 0.7), (0, "tench", 0.2)], [(5, "ray", 0.55)]]


def test_predictions_show_photographs_and_bars_and_mark_what_is_right():
    photos = [Image.fromarray(RNG.integers(0, 256, (6, 8, 3)).astype("u1")), RNG.random((5, 4, 3))]
    figure = figures.predictions(photos, TOPS, titles=["fish", "flat"], labels=[0, None])
    (left, right), (below, last) = np.reshape(figure.axes, (2, 2))
    for axis, photo in ((left, photos[0]), (below, photos[1])):
        np.testing.assert_array_equal(axis.images[0].get_array(), np.asarray(photo))
    assert (left.get_title(), below.get_title()) == ("fish", "flat")
    assert [bar.get_width() for axis in (right, last) for bar in axis.patches] == [0.7, 0.2, 0.55]
    assert [text.get_text() for text in right.texts] == [
        "70.0 %", "great white shark", "20.0 %", "tench"]
    wrong, correct = (bar.get_facecolor() for bar in right.patches)
    assert matplotlib.colors.to_hex(correct).upper() == figures.COLOURS[2]
    assert last.patches[0].get_facecolor() == wrong != correct
    assert figure.alt == "fish: great white shark 70 %, tench 20 %; flat: ray 55 %"


def test_predictions_without_titles_or_labels():
    figure = figures.predictions([RNG.random((4, 4, 3))], TOPS[1:])
    assert figure.alt == "ray 55 %"


@pytest.mark.parametrize("images, more", [
    ([], {}), (np.zeros((1, 4, 4, 3)), {}), (np.zeros((2, 4, 4, 3)), {"titles": ["one"]}),
    (np.zeros((2, 4, 4, 3)), {"labels": [1]})])  # fmt: skip
def test_predictions_refuses_other_numbers(images, more):
    with pytest.raises(ValueError, match=f"{len(images)} images, 2 lists"):
        figures.predictions(images, TOPS, **more)


def test_saliency_stretches_each_map_over_the_photograph():
    photo, small = RNG.random((6, 9, 3)), np.zeros((2, 3), "f")
    small[0, 2] = 4
    figure = figures.saliency(photo, {"map": small, "even": chainer.Variable(np.ones((6, 9), "f"))})
    first, one, two = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array(), photo)
    grey, heat = one.images
    np.testing.assert_allclose(grey.get_array(), photo.mean(axis=2))
    np.testing.assert_array_equal(heat.get_array(), small)
    assert list(heat.get_extent()) == list(grey.get_extent())
    assert heat.get_alpha()[0, 2] == 1 and heat.get_alpha().sum() == 1
    assert "map, centred at 83 % from the left and 25 % from the top" in figure.alt
    assert figure.alt.endswith("even, centred at 50 % from the left and 50 % from the top")
    assert (one.get_title(), two.get_title()) == ("map", "even")


@pytest.mark.parametrize("heat, message", [
    (np.zeros((1, 2, 2)), r"'g'; got shape \(1, 2, 2\)"),
    (-np.ones((2, 2)), "'g' has negative values, down to -1"),
])  # fmt: skip
def test_saliency_refuses(heat, message):
    with pytest.raises(ValueError, match=message):
        figures.saliency(np.zeros((2, 2, 3)), {"g": heat})


def test_saliency_of_nothing_draws_nothing():
    figure = figures.saliency(np.zeros((4, 4, 3)), {"zero": np.zeros((2, 2))})
    assert not figure.axes[1].images[1].get_alpha().any()
    figure.png()
