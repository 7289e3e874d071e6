"""Write the small weight files beside this script, each with the library that owns its format.

    python make.py     needs torch, keras, h5py, onnx, safetensors, chainer and rechainer

The tests need none of these: they compare what the readers return with ``expected.npz``, which
holds the same arrays under ``<file>:<name>``, saved by NumPy.
"""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import rechainer  # noqa: F401

import chainer
import chainer.links as L
import h5py
import keras
import numpy as np
import onnx
import safetensors.numpy
import torch
from chainer.links.caffe.protobuf3 import caffe_pb2
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SEED = 20260101
expected = {}


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 2)


def uniform(*shape):
    return uniform.generator.uniform(0.5, 1.5, shape).astype("f4")


uniform.generator = np.random.default_rng(SEED)


def expect(file, arrays):
    expected.update({f"{file}:{name}": np.asarray(array) for name, array in arrays.items()})


def torch_files():
    model = Tiny()
    with torch.no_grad():
        for tensor in (*model.parameters(), model.bn.running_mean, model.bn.running_var):
            tensor.copy_(torch.from_numpy(uniform(*tensor.shape)))
    state = model.state_dict()
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    old = {"_use_new_zipfile_serialization": False}
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()},
               "optimizer": torch.optim.Adam(model.parameters()).state_dict()}
    for name, obj, options in [("torch_zip.pth", state, {}), ("torch_legacy.pth", state, old),
                               ("torch_wrapped.pth", wrapped, {}),
                               ("torch_wrapped_legacy.pth", wrapped, old)]:
        torch.save(obj, HERE / name, **options)
        expect(name, arrays)
    torch.save(model, HERE / "torch_module.pth")   # holds code: refused
    torch_types()
    torch_of_2017()


def torch_types():
    """Tensors of all kinds: types, views of one storage, a parameter, NumPy arrays beside them."""
    base = torch.arange(24, dtype=torch.float32)
    state = {
        "transposed": base.reshape(4, 6).t(), "part": base[6:18:3], "repeated": base[:1].expand(3),
        "parameter": torch.nn.Parameter(base[:6].reshape(2, 3)), "none": torch.empty(0, 3),
        "scalar": torch.tensor(7), "half": base[:3].half(), "bfloat16": base[:5].bfloat16() / 3,
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16), "bool": base[:4] > 1,
        "complex": torch.complex(base[:2], base[2:4]), "double": base[:2].double() / 3,
    }
    arrays = {name: (t.float() if name == "bfloat16" else t).detach().numpy()
              for name, t in state.items()}
    arrays["numpy"] = np.arange(6, dtype=">f8").reshape(2, 3).astype("<f8")
    arrays["fortran"] = np.asfortranarray(arrays["numpy"])
    state |= {"numpy": arrays["numpy"].astype(">f8"), "fortran": arrays["fortran"],
              "accuracy": np.float64(0.5), "note": "text"}
    for name, options in [("torch_types.pth", {}),
                          ("torch_types_4.pth", {"pickle_protocol": 4})]:
        torch.save(state, HERE / name, **options)
        expect(name, arrays)


def torch_of_2017():
    """The form of the first published files: parameters around tensors of the first version."""
    class Storage:
        pass

    class Pickler(pickle._Pickler):
        dispatch = pickle._Pickler.dispatch.copy()

        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                return ("storage", Name("torch", "FloatStorage"), "94", "cpu", 6, None)

        def save(self, obj, **options):
            if isinstance(obj, Name):
                return self.write(f"c{obj.module}\n{obj.name}\n".encode())
            return super().save(obj, **options)

    class Name:
        def __init__(self, module, name):
            self.module, self.name = module, name

        def __call__(self):
            raise NotImplementedError

    class Parameter:
        def __reduce__(self):
            state = (True, False, OrderedDict())
            return Name("torch.nn.parameter", "Parameter"), (Tensor(),), state

    class Tensor:
        def __reduce__(self):
            return Name("torch._utils", "_rebuild_tensor"), (Storage(), 0, (2, 3), (3, 1))

    array = uniform(2, 3)
    with (HERE / "torch_2017.pth").open("wb") as file:
        for value in (0x1950a86a20f9469cfc6c, 1001,
                      {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
                      OrderedDict([("fc.weight", Parameter())]), ["94"]):
            Pickler(file, 2).dump(value)
        file.write(struct.pack("<q", 6) + array.tobytes())
    loaded = torch.load(HERE / "torch_2017.pth")["fc.weight"]   # PyTorch reads it too
    assert (loaded.detach().numpy() == array).all()
    expect("torch_2017.pth", {"fc.weight": array})


def safetensors_file():
    import ml_dtypes
    arrays = {"fc.weight": uniform(2, 4), "fc.bias": uniform(2), "none": np.empty((0, 3), "f4"),
              "half": uniform(3).astype("f2"), "bfloat16": uniform(3).astype(ml_dtypes.bfloat16),
              "scalar": np.array(7), "bool": np.array([True, False])}
    safetensors.numpy.save_file(arrays, HERE / "tiny.safetensors", metadata={"format": "np"})
    expect("tiny.safetensors", arrays | {"bfloat16": arrays["bfloat16"].astype("f4")})


def npz_files():
    model = chainer.Chain()
    with model.init_scope():
        model.conv1 = L.Convolution2D(3, 4, 3)
        model.bn1 = L.BatchNormalization(4)
    for compressed in (False, True):
        name = "chainer_compressed.npz" if compressed else "chainer.npz"
        chainer.serializers.save_npz(HERE / name, model, compression=compressed)
        expect(name, dict(np.load(HERE / name)))
    arrays = {"fortran": np.asfortranarray(uniform(2, 3)), "big_endian": uniform(2).astype(">f4")}
    np.savez(HERE / "numpy.npz", **arrays)
    expect("numpy.npz", arrays)


def keras_files():
    layers = keras.layers
    image = x = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.Conv2D(4, 3, use_bias=False, name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(2, name="fc")(x), name="tiny")
    model.set_weights([uniform(*w.shape) for w in model.get_weights()])
    arrays = {f"{layer.name}/{w.name}": w.numpy() for layer in model.layers for w in layer.weights}
    model.save_weights(HERE / "keras3.weights.h5")
    model.save(HERE / "keras3.keras")
    model.save(HERE / "keras2_model.h5")
    for name in ("keras3.weights.h5", "keras3.keras", "keras2_model.h5"):
        expect(name, arrays)
    nameless(arrays)
    keras_1_and_2(arrays)


def nameless(arrays):
    """The first versions of Keras 3 did not write the layers' names."""
    path = HERE / "keras3_nameless.weights.h5"
    path.write_bytes((HERE / "keras3.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            group["vars"].attrs.pop("name")
    groups = {"conv1": "conv2d", "conv2": "conv2d_1", "bn1": "batch_normalization", "fc": "dense"}
    expect(path.name,
           {f"{groups[name.split('/')[0]]}/{name.split('/')[1]}": a for name, a in arrays.items()})
    with zipfile.ZipFile(HERE / "keras3.keras") as old:
        config = old.read("config.json")
    with zipfile.ZipFile(HERE / "keras3_nameless.keras", "w") as new:
        new.writestr("config.json", config)
        new.writestr("model.weights.h5", path.read_bytes())
    expect("keras3_nameless.keras", arrays)


def keras_1_and_2(arrays):
    """Older layouts, which today's Keras reads but does not write: texts of a fixed length."""
    kinds = {"kernel": "W", "bias": "b", "moving_mean": "running_mean",
             "moving_variance": "running_std"}
    names = {1: lambda layer, kind: f"{layer}_{kinds.get(kind, kind)}_1:0",
             2: lambda layer, kind: f"{layer}/{kind}:0"}
    for generation, weight_name in names.items():
        path = HERE / f"keras{generation}_weights.h5"
        with h5py.File(path, "w") as file:
            layers = list(dict.fromkeys(name.split("/")[0] for name in arrays))
            # Generation 2 cuts long lists of names into numbered ones.
            key = "layer_names" if generation == 1 else "layer_names0"
            file.attrs[key] = [layer.encode() for layer in layers]
            for layer in layers:
                group = file.create_group(layer)
                mine = {weight_name(layer, name.split("/")[1]): array
                        for name, array in arrays.items() if name.split("/")[0] == layer}
                group.attrs["weight_names"] = [name.encode() for name in mine]
                for name, array in mine.items():
                    group[name] = array
        expect(path.name, arrays)


def onnx_files():
    weight, bias = uniform(4, 3, 3, 3), uniform(4)
    nodes = [helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(bias, "inner")),
             helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv1")]
    raw = [numpy_helper.from_array(weight, "w"),
           numpy_helper.from_array(np.array(3, "i8"), "scalar")]
    typed = [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel()),
             helper.make_tensor("i64", TensorProto.INT64, [3], [1, -1, 2**62]),
             helper.make_tensor("u64", TensorProto.UINT64, [2], [2**64 - 1, 1]),
             helper.make_tensor("i8", TensorProto.INT8, [2], [-3, 4]),
             helper.make_tensor("half", TensorProto.FLOAT16, [3], [1.5, -2, 0.1]),
             helper.make_tensor("bfloat16", TensorProto.BFLOAT16, [2], [1.5, -2]),
             helper.make_tensor("double", TensorProto.DOUBLE, [2], [0.1, 0.2]),
             helper.make_tensor("complex", TensorProto.COMPLEX64, [2], [1 + 2j, 3]),
             helper.make_tensor("bool", TensorProto.BOOL, [2], [True, False])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy"]
    for name, tensors, options in [
            ("raw.onnx", raw, {}), ("typed.onnx", typed, {}),
            ("external.onnx", raw, {"save_as_external_data": True, "size_threshold": 0,
                                    "location": "external.data"})]:
        (HERE / "external.data").unlink(missing_ok=True)   # it is appended to
        graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], tensors)
        arrays = {t.name: numpy_helper.to_array(t) for t in tensors} | {"b": bias}
        onnx.save(helper.make_model(graph, producer_name="make.py"), HERE / name, **options)
        expect(name, {n: a.astype("f4") if n == "bfloat16" else a for n, a in arrays.items()})


def caffe_files():
    weight, bias, matrix, vector = uniform(4, 3, 3, 3), uniform(4), uniform(2, 4), uniform(2)
    arrays = {"conv1/0": weight, "conv1/1": bias, "fc/0": matrix, "fc/1": vector}
    for generation in (0, 1, 2):
        net = caffe_pb2.NetParameter(name="tiny")
        kinds = [("conv", "innerproduct"), (4, 14), ("Convolution", "InnerProduct")][generation]
        for name, kind in zip(("conv1", "fc"), kinds, strict=True):
            layer = net.layer.add() if generation == 2 else net.layers.add()
            layer = layer.layer if generation == 0 else layer
            layer.name, layer.type = name, kind
            for index in (0, 1):
                _blob(layer.blobs.add(), arrays[f"{name}/{index}"], legacy=generation < 2)
        file = f"v{generation}.caffemodel"
        (HERE / file).write_bytes(net.SerializeToString())
        expect(file, arrays)


def _blob(blob, array, legacy):
    if legacy:
        shape = (1,) * (4 - array.ndim) + array.shape
        blob.num, blob.channels, blob.height, blob.width = shape
    else:
        blob.shape.dim.extend(array.shape)
    blob.data.extend(array.ravel().tolist())


if __name__ == "__main__":
    for make in (torch_files, safetensors_file, npz_files, keras_files, onnx_files, caffe_files):
        make()
    np.savez_compressed(HERE / "expected.npz", **expected)
