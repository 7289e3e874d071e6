"""Wrong code that a reader may write and nobody stored: what the report says must still teach."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest


def said(report):
    """The report's text on one line."""
    return " ".join(str(report).split())


def expect(report, *phrases):
    assert report.status == "not yet"
    for phrase in phrases:
        assert phrase in said(report)


# ---- functions of NumPy ---------------------------------------------------------------------

def good_plane(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape)
    return np.einsum("ijuv,uv->ij", windows, w)


def test_a_right_answer_in_another_style_passes(convolution):
    assert convolution.checks["conv_plane"](good_plane).ok


@pytest.mark.parametrize(("wrong", "phrases"), [
    (lambda x, w: good_plane(x, w) * 2, ["Every value is 2 times the right one", "by hand"]),
    (lambda x, w: good_plane(x, w) + 1, ["off by the same amount, +1"]),
    (lambda x, w: -good_plane(x, w), ["wrong sign"]),
    (lambda x, w: good_plane(x, w)[::-1].copy(), ["axis H runs backwards"]),
    (lambda x, w: good_plane(x, w) * 0, ["Every value is 0"]),
    (lambda x, w: good_plane(x, w) / 0, ["infinite or not a number"]),
    (lambda x, w: good_plane(x, w).astype(float), ["dtype float64, expected float32"]),
    (lambda x, w: good_plane(x, w).astype(int), ["integer array cuts"]),
    (lambda x, w: good_plane(x, w).tolist(), ["type list, expected an array", "np.array"]),
    (lambda x, w: good_plane(x, w)[0, 0], ["expected an array", "`return` inside the loop"]),
    (lambda x, w: print(end=""), ["returns None", "`return ...`, missing"]),
    (lambda x, w: good_plane(x, w)[None], ["3 axes, expected 2 (H, W)"]),
    (lambda image: image, ["cannot be called as the exercise asks", "conv_plane(x, w)"]),
])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_conv_plane(convolution, wrong, phrases):
    expect(convolution.checks["conv_plane"](wrong), *phrases)


def test_return_inside_the_loop(convolution):
    def conv_plane(x, w):
        y = np.zeros_like(good_plane(x, w))
        for i, j in np.ndindex(*y.shape):
            y[i, j] = (x[i:i + len(w), j:j + w.shape[1]] * w).sum()
            return y

    expect(convolution.checks["conv_plane"](conv_plane), "right up to [H=0, W=0] and 0 after it")


def test_an_exception_shows_the_readers_own_line(convolution):
    def conv_plane(x, w):
        y = np.zeros_like(good_plane(x, w))
        for i in range(len(x)):
            y[i, 0] = x[i, 0]
        return y

    expect(convolution.checks["conv_plane"](conv_plane), "Your code raised IndexError",
           "in conv_plane: `y[i, 0] = x[i, 0]`", "runs past the end of an axis")


def test_a_changed_argument_is_noticed(convolution):
    def conv_plane(x, w):
        y = good_plane(x, w)
        x[0, 0] = 7
        return y

    expect(convolution.checks["conv_plane"](conv_plane), "changes its argument x", "copy")


def test_results_that_differ_from_call_to_call(convolution):
    calls = []

    def conv_plane(x, w):
        calls.append(1)
        return good_plane(x, w) + len(calls)

    expect(convolution.checks["conv_plane"](conv_plane), "Two equal calls give different results",
           "np.empty")


def test_a_table_of_known_results_fails_the_property(convolution):
    known = {}
    spec_cases = [(6, 3, 2, 1), (28, 5, 1, 0), (5, 3, 1, 1), (6, 3, 2, 0), (8, 3, 3, 1),
                  (224, 7, 2, 3), (3, 3, 1, 0), (10, 2, 4, 2)]
    for size, k, s, p in spec_cases:
        known[size, k, s, p] = (size + 2 * p - k) // s + 1

    def output_size(size, k, s=1, p=0):
        return known.get((size, k, s, p), 0)

    report = convolution.checks["output_size"](output_size)
    expect(report, "every size from k to 29", "leave 1 positions")


def test_one_result_for_every_call(convolution):
    def output_size(size, k, s=1, p=0):
        return 3

    expect(convolution.checks["output_size"](output_size), "Every call gives this same result")


def test_the_result_instead_of_the_function(convolution):
    expect(convolution.checks["output_size"](24), "the number 24, not a function",
           "`check.output_size(output_size)`")


def test_only_the_first_image(convolution):
    right = reference(convolution, "conv2d")

    def conv2d(x, w, b, stride=1, pad=0):
        y = right(x, w, b, stride, pad)
        y[1:] = 0
        return y

    expect(convolution.checks["conv2d"](conv2d), "[N=1, O=0, H=0, W=0]",
           "Index 0 of axis N is right, every other index has errors")


def test_the_padding_forgotten_in_the_size_only(convolution):
    right = reference(convolution, "conv2d")

    def conv2d(x, w, b, stride=1, pad=0):
        y = right(x, w, b, stride, pad)
        size = right(x, w, b, stride).shape
        return y[:, :, :size[2], :size[3]]

    expect(convolution.checks["conv2d"](conv2d), "wrong shape: H is 2 (expected 4)",
           "padding is missing")


def test_a_kernel_that_no_one_stored(convolution):
    check = convolution.checks["vertical_edges"]
    expect(check(lambda: np.array([[0, 0, 0], [1, 0, 0], [0, 0, -2]], float)),
           "a flat image:", "each row must sum to 0")
    expect(check(lambda: np.ones((2, 2))), "(kh=2, kw=2)", "(kh=3, kw=3)")
    assert check(lambda: np.array([[0, 0, 0], [-1, 1, 0], [0, 0, 0]], float)).ok
    assert check(lambda: np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])).ok


def reference(lab, name):
    """The solved notebook's function."""
    namespace = {"np": np, "chainer": chainer, "F": F, "L": L}
    for exercise in lab.exercises.values():
        exec(exercise.solution, namespace)
    return namespace[name]


# ---- networks ---------------------------------------------------------------------------------

@pytest.fixture
def lenet5(loaded):
    return loaded["02_lenet5"]


def test_solution_with_lazy_fc4_passes(lenet5):
    right = reference(lenet5, "LeNet5")

    class LeNet5(right):
        def __init__(self):
            super().__init__()
            del self.fc4
            with self.init_scope():
                self.fc4 = L.Linear(None, 84)

    assert lenet5.checks["layers"](LeNet5).ok
    assert lenet5.checks["forward"](LeNet5).ok


def test_layers_under_other_names(lenet5):
    class LeNet5(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.c1 = L.Convolution2D(1, 6, 5)

    expect(lenet5.checks["layers"](LeNet5), "conv1, conv2, conv3, fc4, fc5", "got c1")


def test_an_instance_instead_of_the_class(lenet5):
    right = reference(lenet5, "LeNet5")
    expect(lenet5.checks["layers"](right()), "the class itself", "`check.layers(LeNet5)`")


def test_two_mistakes_at_once(lenet5):
    right = reference(lenet5, "LeNet5")

    class LeNet5(right):
        def forward(self, x):
            h = F.max_pooling_2d(F.relu(self.conv1(x)), 2)
            return self.fc5(F.max_pooling_2d(self.conv2(h), 2))

    expect(lenet5.checks["forward"](LeNet5), "InvalidType", "256 != 84",
           "`return self.fc5(F.max_pooling_2d(self.conv2(h), 2))`", "'Actual'")


def test_forward_waits_for_the_layers(lenet5):
    class LeNet5(chainer.Chain):
        def __init__(self):
            super().__init__()

        def forward(self, x):
            return x

    expect(lenet5.checks["forward"](LeNet5), "layers are not right yet", "check.layers(LeNet5)")


def test_an_unknown_wrong_forward(lenet5):
    right = reference(lenet5, "LeNet5")

    class LeNet5(right):
        def forward(self, x):
            return 3 * super().forward(x)

    expect(lenet5.checks["forward"](LeNet5), "not LeNet5's logits", "expected", "got",
           "line by line")


def test_classify_with_a_variable(lenet5):
    def classify(model, images):
        x = images[:, None].astype("f") / 255
        with chainer.using_config("train", False):
            return F.argmax(model(x), axis=1)

    expect(lenet5.checks["classify"](classify), "Chainer Variable, expected a NumPy array")


# ---- losses -----------------------------------------------------------------------------------

@pytest.fixture
def phantom(loaded):
    return loaded["03_phantom_gap"]


def test_losses_as_variables(phantom):
    def two_losses(model, x, t):
        with chainer.using_config("train", False):
            return F.softmax_cross_entropy(model(x), t), F.sum(model.logits(x))

    expect(phantom.checks["two_losses"](two_losses), "Chainer Variable, expected a plain number")


def test_an_unknown_second_loss(phantom):
    def two_losses(model, x, t):
        with chainer.using_config("train", False):
            shown = float(F.softmax_cross_entropy(model(x), t).array)
        return shown, 3.0

    expect(phantom.checks["two_losses"](two_losses), "`true` is wrong", "by hand", "ln(sum of exp)")


def test_the_mode_left_changed_is_noticed_and_put_back(phantom):
    right = reference(phantom, "two_losses")

    def two_losses(model, x, t):
        chainer.config.train = False
        return right(model, x, t)

    assert chainer.config.train
    expect(phantom.checks["two_losses"](two_losses), "still in test mode")
    assert chainer.config.train


def test_constants_for_bounds(phantom):
    expect(phantom.checks["bounds"](lambda k: (1.46115, 2.46115)),
           "Every call gives this same result")


def test_the_old_classifier_is_recognised(phantom):
    class HonestClassifier(L.Classifier):
        pass

    expect(phantom.checks["HonestClassifier"](HonestClassifier), "phantom is still there")


def test_the_books_own_classifier_passes(phantom):
    from convnets.losses import Classifier
    assert phantom.checks["HonestClassifier"](Classifier).ok
