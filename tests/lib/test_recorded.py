"""Recorded steps on the processor: Chainer's results, what is refused, and what goes on."""

import os
import subprocess
import sys
import threading

from convnets import cli, cuda_graphs, data, fused, losses, models, recorded, training
from rechainer import onednn

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

OPTIMIZERS = {
    # With its usual eps of 1e-8 Adam makes of a gradient that is rounding alone a step like others.
    "adam": lambda: chainer.optimizers.Adam(alpha=0.002, eps=1e-4),
    "momentum": lambda: chainer.optimizers.MomentumSGD(lr=0.02),
    "sgd": lambda: chainer.optimizers.SGD(lr=0.05),
}

needs_onednn = pytest.mark.skipif(not onednn.is_usable(), reason="oneDNN is not installed")


@pytest.fixture(autouse=True)
def with_onednn():
    with chainer.using_config("use_ideep", "auto"):
        yield


class Residual(models.base.ImageClassifier, chainer.Chain):
    """Convolutions with and without bias, normalizations, an addition and a mean over maps."""

    activation = staticmethod(F.relu)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 8, 3, 4, 1, nobias=True)
            self.bn1 = L.BatchNormalization(8)
            self.conv2 = L.Convolution2D(8, 8, 3, 1, 1, nobias=True)
            self.bn2 = L.BatchNormalization(8, use_gamma=False)
            self.conv3 = L.Convolution2D(8, 24, 1)
            self.fc = L.Linear(24, 10)

    def logits(self, x):
        h = self.activation(self.bn1(self.conv1(x)))                # (N, 8, 7, 7)
        h = self.activation(self.bn2(self.conv2(h)) + h)
        h = F.average_pooling_2d(F.max_pooling_2d(self.conv3(h), 2), 2)
        return self.fc(F.mean(F.elu(h), axis=(2, 3)))


class Smooth(Residual):
    """The same without corners."""

    activation = staticmethod(F.sigmoid)


class Dropped(models.base.ImageClassifier, chainer.Chain):
    """Dropout among maps and vectors, maps made vectors and parts put together."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 5, 2)
            self.fc1 = L.Linear(4 * 12 * 12, 20)
            self.fc2 = L.Linear(40, 10)

    def logits(self, x):
        h = F.dropout(F.elu(self.conv(x)), 0.3)
        h = self.fc1(h)
        return self.fc2(F.concat([F.relu(h), F.dropout(F.tanh(h))]))


#: Name -> network, how far results may be apart, and after how many steps: where activations are
#: on either side of a ReLU's corner, in float32, gradients are soon different in earnest.
NETWORKS = {"lenet5": (models.LeNet5, 1e-5, 20), "smooth": (Smooth, 1e-4, 20),
            "residual": (Residual, 1e-4, 3), "dropped": (Dropped, 1e-5, 20)}


def batches(sizes, seed=1):
    rng = np.random.RandomState(seed)
    return [(rng.rand(n, 1, 28, 28).astype("f"), rng.randint(0, 10, n).astype("i"))
            for n in sizes]


def prepared(model, optimizer="adam"):
    np.random.seed(0)
    return OPTIMIZERS[optimizer]().setup(losses.Classifier(model()))


def step_of(optimizer):
    return recorded.RecordedStep(fused.Fused(optimizer), optimizer.target.device)


def reports(optimizer, update, minibatches):
    """Return what each step reports; random numbers begin at the same place each time."""
    reporter, found = chainer.Reporter(), []
    reporter.add_observer("main", optimizer.target)
    np.random.seed(3)
    with reporter:
        for batch in minibatches:
            with reporter.scope({}):
                update(optimizer.target, *batch)
                found.append({k: float(chainer.as_array(v))
                              for k, v in reporter.observation.items()})
    return found


def everything(optimizer):
    """Return copies of parameters, gradients, statistics and the optimizer's state, by name."""
    found = chainer.serializers.DictionarySerializer()
    optimizer.serialize(found)
    optimizer.target.serialize(found["model"])
    gradients = {f"gradient of {name}": p.grad.copy()
                 for name, p in optimizer.target.namedparams() if p.update_rule.enabled}
    return {k: np.array(v) for k, v in found.target.items()} | gradients


def kind(name):
    """Return what an array is compared among: itself, all gradients, or all states of a kind."""
    if name.startswith("gradient"):
        return "gradient"
    return name.rpartition("/")[2] if name.endswith(("/m", "/v")) else name


def assert_close(got, expected, tolerance):
    """Arrays are equal within a share of the largest number among their kind."""
    assert got.keys() == expected.keys()
    largest = {}
    for name, array in expected.items():
        largest[kind(name)] = max(largest.get(kind(name), 0), abs(array).max())
    for name, array in expected.items():
        assert abs(got[name] - array).max() <= tolerance * largest[kind(name)], name


@needs_onednn
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_steps_are_those_of_stock_chainer(network, optimizer):
    model, tolerance, n = NETWORKS[network]
    minibatches = batches([4] * n)
    plain, ours = (prepared(model, optimizer) for _ in range(2))
    with chainer.using_config("use_ideep", "never"):
        expected = reports(plain, plain.update, minibatches)
    step = step_of(ours)
    got = reports(ours, step.update, minibatches)
    for one, other in zip(got, expected, strict=True):
        assert one["main/accuracy"] == other["main/accuracy"]
        assert one["main/loss"] == pytest.approx(other["main/loss"], rel=tolerance)
    assert_close(everything(ours), everything(plain), tolerance)
    assert len(onednn.kept_for(step)) == 1


@needs_onednn
def test_small_last_minibatches_are_recorded_too_and_old_shapes_forgotten():
    optimizer, plain = prepared(models.LeNet5), prepared(models.LeNet5)
    step = step_of(optimizer)
    sizes = [8, 8, 3, 1, 8, 3, *range(9, 17), 8]
    got = reports(optimizer, step.update, batches(sizes))
    expected = reports(plain, plain.update, batches(sizes))
    assert [g["main/loss"] for g in got] == pytest.approx(
        [e["main/loss"] for e in expected], rel=1e-5)
    assert_close(everything(optimizer), everything(plain), 1e-5)
    assert len(onednn.kept_for(step)) == recorded.N_PLANS


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def killer(iteration):
    def kill(trainer):
        if trainer.updater.iteration == iteration:
            raise KeyboardInterrupt
    return kill


@needs_onednn
@pytest.mark.parametrize("network", NETWORKS)
def test_a_resumed_run_ends_in_the_same_bits(network, tmp_path):
    """300 examples in minibatches of 64: the last of a pass is smaller."""
    def run(out, resume=False, killed_after=None):
        np.random.seed(0)
        model = NETWORKS[network][0]()
        trainer = training.trainer(model, *data.mnist(300, 100), epochs=3, batch=64, shift=2,
                                   recorded=True, out=tmp_path / out, resume=resume)
        trainer.extend(killer(killed_after), trigger=(1, "iteration"))
        trainer.run()
        return everything(trainer.updater.get_optimizer("main"))

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed_after=8)
    assert same(run("killed", resume=True), whole)


@needs_onednn
def test_layers_are_frozen_and_parameters_replaced_between_steps():
    found = []
    for make in (lambda o: o.update, lambda o: step_of(o).update):
        optimizer = prepared(Residual, "momentum")
        model, update = optimizer.target.predictor, make(optimizer)
        reports(optimizer, update, batches([8] * 2))
        model.conv2.disable_update()
        reports(optimizer, update, batches([8] * 2, 2))
        found.append(everything(optimizer))
        model.conv2.enable_update()
        model.conv3.W.array = model.conv3.W.array * 0.5
        model.bn1.avg_mean = model.bn1.avg_mean + 1
        reports(optimizer, update, batches([8] * 2, 3))
        found.append(everything(optimizer))
    assert_close(found[2], found[0], 1e-4)
    assert_close(found[3], found[1], 1e-4)


@needs_onednn
def test_gradients_that_no_one_wants_are_left_out():
    optimizer = prepared(models.LeNet5)
    model, step = optimizer.target.predictor, step_of(optimizer)
    counts = []
    for n, layers in enumerate(([], ["conv1", "conv2"], ["conv1", "conv2", "conv3", "fc4"])):
        for name in layers:
            model[name].disable_update()
        step.update(optimizer.target, *batches([8])[0])
        (recording,) = onednn.kept_for(step).values()
        counts.append(len(recording._program.steps))
        assert sum(p.grad is not None for p in model.params()) == 10 - 2 * len(layers), n
    assert counts == sorted(counts, reverse=True) and counts[2] < counts[0] / 2


@needs_onednn
def test_a_snapshot_goes_from_one_to_the_other(tmp_path):
    plain, ours = prepared(Residual), prepared(Residual)
    reports(plain, plain.update, batches([8] * 4))
    reports(ours, step_of(ours).update, batches([8] * 2))
    chainer.serializers.save_npz(tmp_path / "optimizer.npz", ours)
    chainer.serializers.save_npz(tmp_path / "model.npz", ours.target)
    theirs = prepared(Residual)
    chainer.serializers.load_npz(tmp_path / "model.npz", theirs.target)
    chainer.serializers.load_npz(tmp_path / "optimizer.npz", theirs)
    reports(theirs, theirs.update, batches([8] * 4)[2:])
    assert_close(everything(theirs), everything(plain), 1e-4)


@needs_onednn
def test_gradients_of_a_loss_scale_and_of_weight_decay():
    def scaled():
        optimizer = prepared(models.LeNet5, "momentum")
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
        optimizer.loss_scaling(scale=128)
        return optimizer

    plain, ours = scaled(), scaled()
    reports(plain, plain.update, batches([8] * 4))
    reports(ours, step_of(ours).update, batches([8] * 4))
    assert_close(parameters(ours), parameters(plain), 1e-5)


def parameters(optimizer):
    return {name: p.array.copy() for name, p in optimizer.target.namedparams()}


@needs_onednn
def test_ignored_labels_and_labels_that_are_no_class():
    minibatches = batches([16] * 3)
    for _, t in minibatches[1:]:
        t[::3] = -1
    plain, ours = prepared(models.LeNet5), prepared(models.LeNet5)
    step = step_of(ours)
    expected = reports(plain, plain.update, minibatches)
    got = reports(ours, step.update, minibatches)
    assert [g["main/loss"] for g in got] == pytest.approx(
        [e["main/loss"] for e in expected], rel=1e-5)
    minibatches[0][1][2] = 10
    before = parameters(ours)
    with pytest.raises(ValueError, match=r"labels must lie in 0..9"):
        reports(ours, step.update, minibatches)
    assert same(parameters(ours), before)


class Smoothed(losses.Classifier):
    """A loss that counts labels with NumPy."""

    def __init__(self):
        super().__init__(models.LeNet5(), label_smoothing=0.1)


class Counting(models.LeNet5):
    """A network that does something else in each step."""

    n = 0

    def logits(self, x):
        self.n += 1
        return super().logits(x) * float(self.n)


class Scaling(models.LeNet5):
    """A network whose images NumPy has changed."""

    def logits(self, x):
        return super().logits((x - x.mean()).astype("f"))


class Noisy(models.LeNet5):
    """A network with noise that no function of Chainer draws."""

    def logits(self, x):
        y = super().logits(x)
        return y + np.random.rand(*y.shape).astype("f")


class Shifted(models.LeNet5):
    """A network with noise that has not the shape of a minibatch."""

    def logits(self, x):
        return super().logits(x) * np.random.rand(10).astype("f")


class Masked(models.LeNet5):
    """A network whose dropout is given its mask."""

    def logits(self, x):
        return F.dropout(super().logits(x), mask=np.random.rand(len(x), 10).astype("f"))


class Drawing(models.LeNet5):
    """A network that draws a number for nothing."""

    def logits(self, x):
        np.random.rand()
        return super().logits(x)


class Finetuned(Residual):
    """A normalization that counts its steps."""

    def logits(self, x):
        self.bn1(self.conv1(x), finetune=True)
        return super().logits(x)


class Halved(models.LeNet5):
    """Half precision inside."""

    def logits(self, x):
        return F.cast(F.cast(super().logits(x), "e"), "f")


class Weighted(losses.Classifier):
    """A loss with weights for classes."""

    def _loss(self, y, t):
        return F.softmax_cross_entropy(y, t, class_weight=np.ones(10, "f"))


class Best(losses.Classifier):
    """Reports a number."""

    def __init__(self):
        super().__init__(models.LeNet5(), top_k=(3,))


REFUSED = {
    "smoothed": (Smoothed, r"gets an array of shape \(8,\) that no function of Chainer"),
    "counting": (lambda: losses.Classifier(Counting()), "with other images gives another"),
    "scaling": (lambda: losses.Classifier(Scaling()), r"gets an array of shape \(8, 1, 28, 28\)"),
    "noisy": (lambda: losses.Classifier(Noisy()), r"_ \+ _ gets an array of shape \(8, 10\)"),
    "shifted": (lambda: losses.Classifier(Shifted()), "with other images gives another"),
    "masked": (lambda: losses.Classifier(Masked()), r"gets an array of shape \(8, 10\)"),
    "drawing": (lambda: losses.Classifier(Drawing()), "another state of np.random"),
    "finetuned": (lambda: losses.Classifier(Finetuned()), "gives another .*bn1/N"),
    "halved": (lambda: losses.Classifier(Halved()), "Cast returns float16"),
    "weighted": (lambda: Weighted(models.LeNet5()), "without class weights"),
    "top 3": (Best, "main/accuracy_top3 is not what a function of Chainer returned"),
}


@needs_onednn
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_that_nothing_has_changed_then(name):
    make, message = REFUSED[name]
    np.random.seed(0)
    optimizer = chainer.optimizers.Adam().setup(make())
    before = parameters(optimizer)
    random = np.random.get_state()[1].copy()
    with pytest.raises(cuda_graphs.GraphError, match=message) as caught, reporter_of(optimizer):
        step_of(optimizer).update(optimizer.target, *batches([8])[0])
    assert "Go without recorded=True (--recorded)" in str(caught.value)
    assert same(parameters(optimizer), before) and optimizer.t == 0
    np.testing.assert_array_equal(np.random.get_state()[1], random)


def reporter_of(optimizer):
    reporter = chainer.Reporter()
    reporter.add_observer("main", optimizer.target)
    return reporter


@pytest.mark.parametrize("config", [{"use_ideep": "never"}, {"debug": True}])
def test_an_ordinary_step_where_nothing_can_be_recorded(config):
    plain, ours = prepared(Dropped), prepared(Dropped)
    step = step_of(ours)
    with chainer.using_config(*next(iter(config.items()))):
        assert (reports(ours, step.update, batches([8] * 3))
                == reports(plain, plain.update, batches([8] * 3)))
    assert same(everything(ours), everything(plain))
    assert not onednn.kept_for(step)


def test_hooks_see_the_functions_of_a_step():
    optimizer = prepared(models.LeNet5)
    with chainer.function_hooks.TimerHook() as hook:
        step_of(optimizer).update(optimizer.target, *batches([8])[0])
    assert "Convolution2DFunction" in hook.summary()


WITHOUT = """
from rechainer import onednn
import chainer, numpy as np
from convnets import data, models, train

chainer.global_config.use_ideep = "auto"
found = []
for recorded in (False, True):
    np.random.seed(0)
    model = models.LeNet5()
    train(model, *data.mnist(64, 10), epochs=1, batch=20, recorded=recorded)
    found.append([p.array for p in model.params()])
assert all(np.array_equal(a, b) for a, b in zip(*found))
print(onednn.is_usable())
"""


def test_without_onednn_the_step_is_chainers():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True,
                          env={**os.environ, "RECHAINER_ONEDNN": ""})
    assert done.stdout.strip() == "False", done.stderr


CHILD = """
import os, sys
import rechainer, chainer, numpy as np
from convnets import fused, losses, models, recorded

chainer.global_config.use_ideep = "auto"
optimizer = chainer.optimizers.Adam().setup(losses.Classifier(models.LeNet5()))
step = recorded.RecordedStep(fused.Fused(optimizer), optimizer.target.device)
batch = np.random.rand(8, 1, 28, 28).astype("f"), np.arange(8, dtype="i")
step.update(optimizer.target, *batch)
child = os.fork()
step.update(optimizer.target, *batch)
total = sum(float(abs(p.array).sum()) for p in optimizer.target.params())
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(f"{total:.6g}")
else:
    print(f"{total:.6g}", flush=True)
    os._exit(0)
"""


@needs_onednn
def test_a_forked_process_records_for_itself():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "2"}, timeout=120)
    numbers = done.stdout.split()
    assert len(numbers) == 2 and len(set(numbers)) == 1, done.stderr


@needs_onednn
def test_a_model_whose_shapes_come_with_the_first_step():
    def lazy():
        return chainer.Sequential(L.Convolution2D(None, 4, 3), F.relu, L.Linear(None, 10))

    plain, ours = prepared(lazy), prepared(lazy)
    step = step_of(ours)
    expected = reports(plain, plain.update, batches([8] * 4))
    got = reports(ours, step.update, batches([8] * 4))
    assert [g["main/loss"] for g in got] == pytest.approx(
        [e["main/loss"] for e in expected], rel=1e-5)
    assert_close(everything(ours), everything(plain), 1e-5)
    assert len(onednn.kept_for(step)) == 1


@needs_onednn
def test_another_thread_records_for_itself():
    alone, shared = prepared(models.LeNet5), prepared(models.LeNet5)
    reports(alone, step_of(alone).update, batches([8] * 4))
    step, errors = step_of(shared), []

    def work():
        try:
            with chainer.using_config("use_ideep", "auto"):
                reports(shared, step.update, batches([8] * 4)[2:])
        except BaseException as error:
            errors.append(error)

    reports(shared, step.update, batches([8] * 4)[:2])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert same(parameters(shared), parameters(alone))


@needs_onednn
def test_the_command_line_records_and_says_what_it_cannot(tmp_path, capsys, monkeypatch):
    found = []
    for flags in ([], ["--recorded"]):
        out = tmp_path / "".join(["run", *flags])
        assert cli.main(["train", "lenet5", "--epochs", "1", "--n-train", "60", "--n-test", "10",
                         "--quiet", "--batch", "16", "--out", str(out), *flags]) == 0
        found.append(cli.read_npz(out / "model.npz"))
    assert_close(*found, 1e-5)
    monkeypatch.setitem(cli.SMALL, "lenet5", Counting)
    assert cli.main(["train", "lenet5", "--n-train", "60", "--n-test", "10", "--quiet",
                     "--recorded"]) == 1
    assert "with other images gives another" in capsys.readouterr().err


def test_a_gpu_is_told_of_graphs():
    with pytest.raises(ValueError, match="is for the processor, got @cupy:0"):
        recorded.RecordedStep(None, FakeDevice())


class FakeDevice:
    name, xp = "@cupy:0", None
