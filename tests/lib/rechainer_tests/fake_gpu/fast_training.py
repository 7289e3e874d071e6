"""`convnets.train` with a recorded step, a fused optimizer and data sent ahead, on the device."""

import collections
import os
import tempfile

import fake_device  # noqa: F401  before Chainer

# isort: split
import convnets
from convnets import cli, cuda_graphs, data, devices, losses, models, precision, training
from convnets.fused import Fused
from convnets.layouts import entering, use_channels_last

import capture
import chainer
import chainer.functions as F
import chainer.links as L
import cudnn as frontend
import cupy
import numpy as np
from chainer.backends import cuda

TRAIN, TEST = data.mnist(70, 20)   # 14 steps of 16 images in three epochs
OPTIONS = {"batch": 16, "epochs": 3, "schedule": "cosine", "weight_decay": 1e-3, "seed": 4,
           "device": "@cupy:0", "shift": 1}
KINDS = [{"optimizer": "adam", "lr": 0.003}, {"optimizer": "momentum", "lr": 0.1},
         {"optimizer": "sgd", "lr": 0.1}, {"optimizer": "momentum", "lr": 0.1,
                                           "precision": "mixed16"}]


class Network(chainer.Chain):
    """All that a recorded step must get right: statistics, random numbers, pooling."""

    def __init__(self):
        super().__init__()
        np.random.seed(0)
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 5, stride=2, nobias=True)
            self.norm = L.BatchNormalization(4)
            self.out = L.Linear(144, 10)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2)
        return self.out(F.dropout(h, 0.4))


def trained(model=None, **options):
    """Return the arrays of a model after a run, and its log."""
    model = model or Network()
    run = convnets.train(model, TRAIN, TEST, **{**OPTIONS, **options})
    return arrays(model), log(run)


def arrays(model):
    found = chainer.serializers.DictionarySerializer()
    model.serialize(found)
    return found.target


def log(run):
    return [{k: v for k, v in entry.items() if k != "elapsed_time"}
            for entry in run.get_extension("LogReport").log]


def close(got, expected, tolerance):
    for name, array in expected[0].items():
        np.testing.assert_allclose(got[0][name], array, rtol=0, atol=tolerance, err_msg=name)
    for entry, right in zip(got[1], expected[1], strict=True):
        assert entry.keys() == right.keys()
        for key, value in right.items():
            np.testing.assert_allclose(entry[key], value, rtol=0, atol=20 * tolerance, err_msg=key)


def tolerance(options):
    # Chainer adds weight decay to gradients in float16, the fused optimizer in float32.
    return 1e-2 if "precision" in options else 2e-5


def a_recorded_step_is_the_plain_one():
    graphs = []
    end = capture.end
    capture.end = lambda: graphs.append(end()) or graphs[-1]
    for options in KINDS:
        expected = trained(**options, fused="precision" in options)
        got = trained(**options, cuda_graph=True)
        close(got, expected, 2e-5)
        again = trained(**options, cuda_graph=True)
        for name, array in got[0].items():
            np.testing.assert_array_equal(again[0][name], array, err_msg=name)
    assert len(graphs) == 2 * len(KINDS)
    assert {graph.launches for graph in graphs} == {14 - cuda_graphs.WARM_UP}


def minibatches_of_another_size_take_the_ordinary_way():
    sizes = [8] * 6 + [3, 8, 5, 8, 8]
    found = []
    for recorded in (False, True):
        target = losses.Classifier(Network())
        target.to_device("@cupy:0")
        step = Fused(chainer.optimizers.Adam().setup(target))
        if recorded:
            step = cuda_graphs.GraphStep(step, chainer.get_device("@cupy:0"))
        devices.seed(chainer.get_device("@cupy:0"), 1)
        seen = list(reported(target, step.update, sizes))
        found.append((arrays(target), seen))
    assert step.recording.graph.launches == 6
    close(*found, 2e-6)


def reported(target, update, sizes):
    x, t = (cupy.asarray(a) for a in chainer.dataset.concat_examples(TRAIN[:]))
    reporter, begin = chainer.Reporter(), 0
    reporter.add_observer("main", target)
    for size in sizes:
        with reporter.scope({}):
            update(target, x[begin:begin + size], t[begin:begin + size])
            yield {key: float(chainer.as_array(v)) for key, v in reporter.observation.items()}
        begin = (begin + size) % 60


def what_is_recorded_without_the_buffer_of_numbers_is_wrong():
    """The device does show it: Chainer's own kernels keep the rates of the recording."""
    class Plain(Fused):
        def recordable(self, lossfun, *args):
            self.backward(lossfun, *args)
            for param in self.optimizer.target.params():
                param.update_rule.update(param)

    options = {"optimizer": "momentum", "lr": 0.1, "weight_decay": 0.0}
    expected = trained(**options)
    training.Fused = Plain
    got = trained(**options, cuda_graph=True)
    assert max(np.abs(got[0][name] - array).max() for name, array in expected[0].items()) > 1e-3


def the_fused_optimizer():
    for options in KINDS:
        cupy.launched.clear()
        expected = trained(**options)
        assert not any(name.startswith("fused") for name in cupy.launched)
        cupy.launched.clear()
        close(trained(**options, fused=True), expected, tolerance(options))
        steps = [name for name in cupy.launched if name.startswith("fused")]
        assert steps == [f"fused_{options['optimizer']}"] * 14, "one kernel a step"


def the_fused_optimizer_aligns_parameters():
    """Of odd sizes, as cuDNN's plans want them: float16 ones, their originals and gradients."""
    for half in (False, True):
        model = Network()
        model.to_device("@cupy:0")
        rule = chainer.optimizers.Adam().setup(model)
        if half:
            precision.Originals(rule)
        flat = Fused(rule).place()
        views = [*(p.array for p in model.params()), *flat.grads,
                 *(rule.state["m"] for rule in (p.update_rule for p in flat.params))]
        assert len({view.size % 8 for view in views}) > 1
        assert {view.data.ptr % 16 for view in views} == {0}


def the_command_line_switches_cudnn():
    """Each switch alone does what it says, for the run only."""
    notes, labels = frontend.numerical_note, collections.Counter()

    def graphs(*switches, model="lenet5", data="mnist"):
        before = len(frontend.built)
        with Labels(labels):
            status = cli.main([
                "train", model, "--data", data, "--n-train", "8", "--n-test", "2", "--quiet",
                "--iterations", "1", "--batch", "4", "--device", "@cupy:0", *switches])
        assert status == 0
        assert not any(getattr(chainer.config, name) for name in cli.SWITCHES)
        return frontend.built[before:]

    # The plans of a training step; those of the evaluation are for other numbers of images.
    assert not any(g.unwanted for g in graphs())
    unwanted = [notes.NONDETERMINISTIC]
    assert sum(g.unwanted == unwanted for g in graphs("--cudnn-deterministic")) == 5
    assert {g.used for g in graphs("--autotune", "--cudnn-deterministic")} == {2}
    half_last = "--precision", "mixed16", "--channels-last"
    graphs(*half_last, model="resnet20", data="cifar10")
    assert labels["NormalizedReLU"] == 0
    graphs(*half_last, "--cudnn-fast-batch-normalization", model="resnet20", data="cifar10")
    assert labels["NormalizedReLU"] == labels["NormalizedReLUGrad"] == 19


def data_sent_ahead():
    for options in KINDS[:2]:
        expected = trained(**options)
        got = trained(**options, prefetch=True)
        for name, array in expected[0].items():
            np.testing.assert_array_equal(got[0][name], array, err_msg=name)
        assert got[1] == expected[1]


def predictions():
    model = Network()
    model.to_device("@cupy:0")
    x, other = (cupy.asarray(np.stack([image for image, _ in part])) for part in
                (TRAIN[:5], TRAIN[5:10]))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        predict = cuda_graphs.record(lambda images: model(images).array, x)
        for images in (other, x):
            np.testing.assert_array_equal(predict(images), model(images).array)
        text = message_of(ValueError, predict, x[:2])
    assert "[(5, 1, 28, 28)], got [(2, 1, 28, 28)]" in text


class Photos(chainer.datasets.TupleDataset):
    """Coloured noise of ten classes."""

    def __init__(self, n, shape=(3, 36, 36)):
        rng = np.random.RandomState(5)
        super().__init__(rng.rand(n, *shape).astype("f"), rng.randint(0, 10, n).astype("i"))


def residual():
    np.random.seed(1)
    return models.ResNet([1, 1, 1, 1], 10, width=1 / 16)


def channels_last():
    options = {**OPTIONS, "optimizer": "momentum", "lr": 0.02, "batch": 8, "shift": 0}
    found, used = [], []
    for way in ({}, {"channels_last": True}, {"channels_last": True, "cuda_graph": True}):
        model, before = residual(), len(frontend.built)
        run = convnets.train(model, Photos(20), Photos(10), **options, **way)
        found.append((arrays(model), log(run)))
        used.append(sum(is_channels_last(t) for g in frontend.built[before:] for t in g.tensors))
    assert used[0] == 0 < used[1], used
    assert used[2] == 0, "the plans are kept"
    close(found[1], found[0], 2e-4)
    close(found[2], found[1], 2e-5)


FAST = "cudnn_fast_batch_normalization"
#: Networks small enough, and the shape of their images. All train with the channels last.
SMALL = {
    "residual": (residual, (3, 36, 36)),
    "residual with a bias": (
        lambda: models.ResNet([1, 1, 1, 1], 10, width=1 / 16, stem_bias=True), (3, 36, 36)),
    "CIFAR": (lambda: models.CifarResNet(8, width=1 / 2), (3, 12, 12)),
    "plain": (lambda: models.CifarResNet(8, residual=False, width=1 / 4), (3, 12, 12)),
    "VGG": (lambda: models.VGG(((4, 2), (8, 1), (4, 3)), 10, (3, 20, 20), hidden=16), (3, 20, 20)),
}


def one_step(build, shape, way, fast=False):
    """Return the outputs and gradients of a step, and how many functions have which label."""
    device = chainer.get_device("@cupy:0")
    np.random.seed(2)
    model = build()
    model.to_device(device)
    devices.seed(device, 3)      # of dropout
    if "last" in way:
        use_channels_last(model, device)
    x = np.random.rand(6, *shape).astype("e" if "half" in way else "f")
    if "half" in way:
        precision.half(model)
    labels = collections.Counter()
    with chainer.using_config(FAST, fast), Labels(labels):
        y = model(device.send(x))
        model.cleargrads()
        F.sum(y * y).backward(loss_scale=64)
    grads = {name: cuda.to_cpu(p.grad) for name, p in model.namedparams()}
    return {"y": cuda.to_cpu(y.array), **grads}, labels


class Labels(chainer.FunctionHook):
    """Counts functions, forward and backward, by label."""

    name = "Labels"

    def __init__(self, counts):
        self.counts = counts

    def forward_postprocess(self, function, in_data):
        self.counts[function.label] += 1


def channels_last_changes_no_gradient():
    for name, (build, shape) in SMALL.items():
        before = len(frontend.built)
        expected, _ = one_step(build, shape, "plain")
        between = len(frontend.built)
        got, _ = one_step(build, shape, "channels last")
        if "bias" in name:      # in front of a normalization a bias has none, but for rounding
            assert abs(got.pop("/conv1/b")).max() < 1e-3
            del expected["/conv1/b"]
        used = [sum(is_channels_last(t) for g in part for t in g.tensors) for part in (
            frontend.built[before:between], frontend.built[between:])]
        assert used[0] == 0 < used[1], (name, used)
        near(got, expected, 2e-5, name)


def channels_last_stay_last_in_pooling():
    """Maps are turned where a network begins and where it ends, and nowhere between."""
    for name, n_pooling in (("VGG", 3), ("residual", 1)):
        build, shape = SMALL[name]
        _, labels = one_step(build, shape, "channels last")
        n_convolutions = labels["Convolution2DFunction"]
        assert labels["MaxPoolingND"] == labels["MaxPoolingNDGrad"] == n_pooling
        # Each convolution's filters, both ways; images there, the last maps there and back.
        assert labels["Turned"] == 2 * n_convolutions + 3, (name, labels)


def channels_last_in_test_mode():
    """Images are turned once, and nothing in between; the results are plain arrays."""
    for name, (build, shape) in SMALL.items():
        for half in (False, True):
            plain, last = prepared(build, half), prepared(build, half)
            use_channels_last(last, plain.device)
            x = cupy.asarray(np.random.RandomState(7).rand(2, *shape).astype("e" if half else "f"))
            atol = 2e-2 if half else 2e-5
            with chainer.using_config("train", False):
                with chainer.no_backprop_mode():
                    got = last(x).array
                    for pick, _ in plain.stages():
                        np.testing.assert_allclose(
                            last.features(x, pick).array, plain.features(x, pick).array, rtol=atol,
                            atol=atol, err_msg=f"{name} {pick}")
                np.testing.assert_allclose(got, plain(x).array, rtol=0, atol=atol)
                check_turned(last, x, name)
                check_gradients_in_test_mode(plain, last, x, atol)
        # Float32 images for a model in half precision: Chainer's own kernels, as without layouts.
        if name == "CIFAR":
            assert message_of(KeyError, last.predict, cuda.to_cpu(x)) == "'im2col'"
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            on_cpu = cuda.to_cpu(x)
            assert entering(last, on_cpu) is on_cpu
            assert entering(plain, x) is x


def prepared(build, half):
    """Return a model on the device whose normalizations do something."""
    np.random.seed(2)
    model, rng = build(), np.random.RandomState(3)
    for link in model.links():
        if isinstance(link, L.BatchNormalization):
            link.avg_mean[...] = 0.1 * rng.randn(*link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 1.5, link.avg_var.shape)
    if half:
        precision.half(model)
    model.to_device("@cupy:0")
    return model


def check_turned(model, x, name):
    with chainer.no_backprop_mode(), Labels(collections.Counter()) as hook:
        model.logits(x)
    labels = hook.counts
    ways = {"CIFAR": 2 * 2}.get(name, 0)    # two shortcuts there and back
    assert labels["Turned"] == labels["Convolution2DFunction"] + 2 + ways, (name, labels)


def check_gradients_in_test_mode(plain, last, x, atol):
    """Where someone wants gradients it is as before: Chainer's own functions."""
    found = []
    for model in (plain, last):
        v = chainer.Variable(x)
        y = model.logits(v)
        F.sum(y * y).backward()
        found.append(v.grad)
    np.testing.assert_allclose(*found, rtol=0, atol=atol * max(1, float(abs(found[0]).max())))


def near(got, expected, tolerance, message):
    for key, array in expected.items():
        atol = tolerance * max(np.abs(array).max(), 1e-2)
        np.testing.assert_allclose(got[key], array, rtol=0, atol=atol, err_msg=f"{message} {key}")


def fused_normalization_is_as_exact():
    """Of all normalizations of a network that ReLU follows, with a sum or without."""
    for name, (build, shape) in SMALL.items():
        exact, labels = one_step(build, shape, "channels last")
        half, _ = one_step(build, shape, "channels last, half")
        got, fused = one_step(build, shape, "channels last, half", fast=True)
        assert distance(got, exact) < 2 * distance(half, exact), name
        n_relu = labels["ReLU"] * bool(labels["BatchNormalization"])
        assert fused["NormalizedReLU"] == fused["NormalizedReLUGrad"] == n_relu, (name, fused)
        assert labels["BatchNormalization"] == n_relu + fused["BatchNormalization"], (name, fused)
        assert fused["BatchNormalization"] == ("residual" in name) * 4, "those of the shortcuts"


def distance(got, expected):
    """Return |got - expected| / |expected| of all arrays together."""
    return np.sqrt(sum(np.square(got[k].astype("d") - a).sum() for k, a in expected.items())
                   / sum(np.square(a.astype("d")).sum() for a in expected.values()))


def is_channels_last(tensor):
    if "dim" not in tensor.settings:
        return False     # what is between two operations of a graph
    dim, stride = tensor.settings["dim"], tensor.settings["stride"]
    return dim[1] > 1 and dim[2] * dim[3] > 1 and stride[1] == 1


def a_killed_run_continues_bit_for_bit():
    for way in [{}, {"fused": True}, {"prefetch": True}, {"cuda_graph": True, "prefetch": True},
                {"cuda_graph": True, "precision": "mixed16", "optimizer": "momentum"}]:
        continues(Network, TRAIN, TEST, {**OPTIONS, **KINDS[0], **way}, stop_at=7)


def a_killed_run_continues_with_the_channels_last():
    options = {**OPTIONS, "batch": 8, "epochs": 2, "shift": 0, "channels_last": True}
    half = {"optimizer": "momentum", "lr": 0.02, "precision": "mixed16"}
    for name, way, fast in [("residual", {"optimizer": "adam", "lr": 0.003}, False),
                            ("CIFAR", half, True),
                            ("CIFAR", {**half, "cuda_graph": True, "prefetch": True}, True),
                            ("VGG", {**half, "cuda_graph": True}, False)]:
        build, shape = SMALL[name]

        def network(build=build):
            np.random.seed(1)
            return build()

        with chainer.using_config(FAST, fast), Labels(collections.Counter()) as labels:
            continues(network, Photos(40, shape), Photos(10, shape), {**options, **way}, stop_at=7)
        assert bool(labels.counts["NormalizedReLU"]) == fast


def continues(build, train_set, test_set, options, stop_at):
    """Check that a run that is killed ends like another: parameters, optimizer, log."""
    expected, expected_log = finished(training.trainer(build(), train_set, test_set, **options))
    assert any(name.startswith("optimizer/") and name.endswith(("/m", "/v")) for name in expected)
    with tempfile.TemporaryDirectory() as out:
        run = training.trainer(build(), train_set, test_set, **options, out=out)
        run.extend(stop, trigger=(stop_at, "iteration"))
        try:
            run.run()
        except KeyboardInterrupt:
            assert os.listdir(out)
        else:
            raise AssertionError
        np.random.seed(77)
        got, got_log = finished(training.trainer(build(), train_set, test_set, **options, out=out,
                                                 resume=True))
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=f"{options} {name}")
    assert got_log == expected_log, options


def finished(run):
    """Return the arrays of a model and its optimizer after a run, and its log."""
    run.run()
    optimizer = run.updater.get_optimizer("main")
    state = {f"optimizer/{name}": array for name, array in arrays(optimizer).items()}
    return arrays(optimizer.target) | state, log(run)


def stop(trainer):
    raise KeyboardInterrupt


def message_of(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error as raised:
        return str(raised)
    raise AssertionError("nothing was raised")


def errors():
    class Waiting(Network):
        def forward(self, x):
            y = super().forward(x)
            return y * float(y.array.max())

    text = message_of(cuda_graphs.GraphError, trained, Waiting(), cuda_graph=True)
    assert "cannot be recorded" in text
    assert "waits for the GPU" in text
    assert "StreamCaptureUnsupported" in text
    assert capture.calls is None, "the recording was ended"
    smoothed = losses.Classifier(Network(), label_smoothing=0.1)
    smoothed.to_device("@cupy:0")
    step = cuda_graphs.GraphStep(Fused(chainer.optimizers.SGD().setup(smoothed)),
                                 chainer.get_device("@cupy:0"))
    steps = reported(smoothed, step.update, [8] * (cuda_graphs.WARM_UP + 1))
    message_of(cuda_graphs.GraphError, list, steps)
    text = message_of(ValueError, trained, models.LeNet5(), channels_last=True)
    assert "is for residual networks, their plain twins and VGG; LeNet5 has parts" in text
