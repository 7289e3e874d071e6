"""`convnets.optimize` on the device of `fake_device`, compared with the model itself."""

import collections
import warnings

import fake_device  # noqa: F401  before Chainer

# isort: split
import convnets
from convnets import cuda_graphs, gpu_plan, models
from convnets.layouts import use_channels_last

import capture
import chainer
import chainer.functions as F
import chainer.links as L
import cudnn as frontend
import cupy
import libcudnn
import numpy as np
from chainer.backends import cuda
from fast_training import Labels, message_of, prepared

#: Of all kinds of layers; few channels. How many graphs have a sum, and shape of the images.
MODELS = {
    "LeNet5": (models.LeNet5, 0, (1, 28, 28)),
    "LeNet5List with all": (lambda: models.LeNet5List(sigm5=True, mpool3=True), 0, (1, 28, 28)),
    "VGG": (lambda: models.VGG(((8, 2), (16, 1)), 10, (3, 17, 18), 32), 0, (3, 17, 18)),
    "ResNet": (lambda: models.ResNet((1, 2, 1, 1), 20, width=1 / 16), 5, (3, 33, 36)),
    "ResNet as torch has it": (lambda: models.ResNet(
        (1, 1, 1, 2), 20, width=1 / 8, stride_in="3x3", stem_pool="torch", stem_bias=True), 5,
        (3, 32, 32)),
    "CIFAR": (lambda: models.CifarResNet(8, width=1 / 2), 3, (3, 16, 16)),
    "SqueezeNet": (lambda: models.SqueezeNet(7), 0, (3, 49, 51)),
}
#: |got - expected|, relative to the largest.
NEAR = {None: 2e-5, "mixed16": 1e-2}


def built(name):
    """Return a model on the device, how many sums it has, and images."""
    build, sums, shape = MODELS[name]
    model = prepared(build, half=False)
    model.in_shape = shape
    return model, sums, cupy.asarray(np.random.RandomState(4).rand(3, *shape).astype("f"))


def inferred(function, *arguments):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return function(*arguments)


def difference(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    return float(abs(got - expected).max() / abs(expected).max())


def outputs_are_the_same():
    for name in MODELS:
        model, _, x = built(name)
        for precision, tolerance in NEAR.items():
            for cuda_graph in (False, True):
                before = len(frontend.built)
                fast = convnets.optimize(model, precision=precision, cuda_graph=cuda_graph)
                with chainer.no_backprop_mode(), chainer.using_config("train", False):
                    for n in (3, 1, 2, 3):
                        expected = model.logits(x[:n]).array
                        got = fast.logits(x[:n])
                        assert difference(got.array, expected) < tolerance, (name, precision)
                    assert difference(fast(x).array, model(x).array) < tolerance
                host = cuda.to_cpu(x)
                assert difference(fast.predict(host), model.predict(host)) < tolerance
            used = [g for g in frontend.built[before:] if is_for(g, x[:3], precision)]
            assert all(map(is_last, used)), name


def is_for(graph, x, precision):
    dtype = graph.tensors[0].settings["data_type"]
    return dtype is {None: frontend.data_type.FLOAT, "mixed16": frontend.data_type.HALF}[precision]


def is_last(graph):
    """Tell whether all maps of a graph have their channels next to one another."""
    maps = (t.settings for t in graph.tensors if "dim" in t.settings)
    return all(s["stride"][1] == 1 for s in maps if s["dim"][1] > 1)


def layers_are_one_graph_each():
    """Sums, activations and normalizations are part of the convolutions; nothing is turned."""
    for name in "ResNet", "CIFAR", "VGG":
        model, sums, x = built(name)
        fast = convnets.optimize(model, precision="mixed16")
        inferred(fast.logits, x)
        before, launched = len(frontend.built), len(cupy.launched)
        libcudnn.calls.clear()
        executed = count_executions()
        inferred(fast.logits, x)
        assert len(frontend.built) == before, "plans are kept"
        assert len(cupy.launched) == launched, "no kernel of Chainer's own"
        n_convolutions = sum(isinstance(link, L.Convolution2D) for link in model.links())
        assert executed["graphs"] == n_convolutions
        assert executed["graphs with a sum"] == sums, (name, executed)
        assert executed["graphs with an activation"] == n_convolutions - (
            sum("1x1r" in path for path, _ in model.namedlinks())), (name, executed)
        poolings = {"ResNet": 2, "CIFAR": 1, "VGG": 2}[name]
        functions = [call for call in libcudnn.calls if "Descriptor" not in call]
        assert functions.count("cudnnPoolingForward") == poolings, functions
        # What else there is, is ReLU behind VGG's linear layers.
        assert len(functions) == poolings + 2 * (name == "VGG"), functions


def count_executions():
    """Count how often graphs run from now on, by what they have."""
    counts, run = collections.Counter(), frontend.pygraph._run

    def counted(self, pointers):
        numbers = {t.settings.get("uid") for t in self.tensors}
        counts["graphs"] += 1
        counts["graphs with a sum"] += 5 in numbers
        counts["graphs with an activation"] += self.tensors[-1].settings.get("activation", False)
        run(self, pointers)

    frontend.pygraph._run = counted
    return counts


def features_and_hooks():
    model, _, x = built("ResNet")
    fast = convnets.optimize(model)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for pick, _ in model.stages():
            assert difference(fast.features(x, pick).array, model.features(x, pick).array) < 2e-5
        fast.logits(x)
        with Labels(collections.Counter()) as labels:
            fast.logits(x)
    assert labels.counts == {"Inference": 1}
    use_channels_last(model, model.device)
    again = convnets.optimize(model)     # of a model that was trained so
    assert difference(inferred(again.logits, x).array, inferred(fast.logits, x).array) < 1e-6


def results_are_kept_and_inputs_left_alone():
    for cuda_graph in (False, True):
        model, _, x = built("CIFAR")
        fast, kept = convnets.optimize(model, cuda_graph=cuda_graph), cuda.to_cpu(x)
        first = inferred(fast.logits, x).array
        copy = cuda.to_cpu(first)
        inferred(fast.logits, 1 - x)
        np.testing.assert_array_equal(first, copy)
        np.testing.assert_array_equal(x, kept)
        last = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)   # images that lie so already
        np.testing.assert_array_equal(inferred(fast.logits, last).array, copy)


def recordings():
    """One for each shape; a launch for each call."""
    graphs, end = [], capture.end
    capture.end = lambda: graphs.append(end()) or graphs[-1]
    model, _, x = built("CIFAR")
    fast = convnets.optimize(model, cuda_graph=True)
    graphs.clear()
    for n in (1, 3, 1, 1):
        inferred(fast.logits, x[:n])
    assert [graph.launches for graph in graphs] == [3, 1]


def recordings_wait_for_the_callers_stream():
    model, _, x = built("CIFAR")
    fast = convnets.optimize(model, cuda_graph=True)
    expected = inferred(fast.logits, x).array
    with cupy.cuda.Stream() as stream:
        np.testing.assert_array_equal(inferred(fast.logits, x).array, expected)
    recording_stream = stream.waited
    assert recording_stream.waited is stream


def autotune_and_other_settings_have_plans_of_their_own():
    model, _, x = built("CIFAR")
    fast = convnets.optimize(model)
    expected = inferred(fast.logits, x).array
    notes = frontend.numerical_note
    for name, value, shows in (("autotune", True, lambda g: g.used == 2),
                               ("use_cudnn_tensor_core", "never",
                                lambda g: notes.TENSOR_CORE in g.unwanted)):
        before = len(frontend.built)
        with chainer.using_config(name, value):
            got = inferred(fast.logits, x).array
        assert difference(got, expected) < 1e-5
        assert [shows(g) for g in frontend.built[before:]] == [True] * len(
            frontend.built[before:]) != []
    with chainer.using_config("use_cudnn", "never"):
        # Chainer's own kernels, which are none of this device's.
        assert message_of(KeyError, inferred, fast.logits, x) == "'bn_fwd'"


def where_cudnn_refuses_sums():
    model, _, x = built("CIFAR")
    expected = inferred(model.logits, x).array

    def refuse(self, **inputs):
        raise RuntimeError("no valid engine configs")

    frontend.pygraph.add = refuse
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = convnets.optimize(model)
        assert difference(inferred(fast.logits, x).array, expected) < 2e-5
    assert "done behind them" in str(caught[0].message)
    assert "convolution (forward + z, relu)" in str(caught[0].message)


def other_layers():
    """A normalization in front, constants, functions of Chainer that are none of a layer's."""
    class Network(models.base.ImageClassifier, chainer.Chain):
        in_shape = (3, 9, 8)

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.norm = L.BatchNormalization(3)
                self.conv = L.Convolution2D(3, 8, 3, pad=1, groups=1, dilate=1)
                self.depthwise = L.Convolution2D(8, 8, 3, stride=2, groups=8)
                self.fc = L.Linear(16 * 4 * 3, 5)
                self.bias = chainer.Parameter(np.arange(8, dtype="f").reshape(1, 8, 1, 1))

        def logits(self, x):
            h = F.tanh(self.conv(self.norm(x))) + F.broadcast_to(self.bias, (len(x), 8, 9, 8))
            h = self.depthwise(h)
            h = F.concat([F.relu(h), F.sigmoid(-h)], axis=1)
            return self.fc(F.relu(h * 2 + 1))

    model = prepared(Network, half=False)
    x = cupy.asarray(np.random.RandomState(4).rand(3, 3, 9, 8).astype("f"))
    expected = inferred(model.logits, x).array
    for precision, tolerance in NEAR.items():
        fast = convnets.optimize(model, precision=precision)
        assert difference(inferred(fast.logits, x).array, expected) < tolerance


def errors():
    model, _, x = built("CIFAR")
    fast = convnets.optimize(model, precision="mixed16")
    text = message_of(ValueError, inferred, fast.logits, x.astype("e"))
    assert "takes float32 images, got float16" in text
    text = message_of(ValueError, inferred, fast.logits, cuda.to_cpu(x))
    assert "was optimized on @cupy:0: send images there" in text
    with chainer.using_config("use_cudnn", "never"):
        text = message_of(ValueError, inferred, fast.logits, x)
        assert "set chainer.config.use_cudnn = 'auto' again" in text
        text = message_of(ValueError, lambda: convnets.optimize(model, cuda_graph=True))
        assert "are for a GPU with cuDNN" in text
    text = message_of(ValueError, lambda: convnets.optimize(model, precision="half"))
    assert "unknown precision 'half'; there are: None, mixed16" in text
    assert gpu_plan.wanted(x)
    assert not gpu_plan.wanted(cuda.to_cpu(x))

    class WaitingFunction(chainer.FunctionNode):
        def forward(self, inputs):
            return inputs[0] + 0 * float(inputs[0].max()),

    class Waiting(models.CifarResNet):
        def logits(self, x):
            return WaitingFunction().apply((super().logits(x),))[0]

    slow = prepared(lambda: Waiting(8, width=1 / 2), half=False)
    slow.in_shape = (3, 16, 16)
    assert type(convnets.optimize(slow)) is type(fast)
    text = message_of(cuda_graphs.GraphError,
                      lambda: convnets.optimize(slow, cuda_graph=True))
    assert "waits for the GPU" in text
    assert capture.calls is None
