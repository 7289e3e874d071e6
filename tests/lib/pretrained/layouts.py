"""The files of each family, written from parameters that have torchvision's names.

Written again from the frameworks' documentation, without a look at `convnets.pretrained`.
"""

import string

import h5py
import numpy as np
from safetensors.numpy import save_file


def bottlenecks(blocks):
    """Pairs of torchvision's prefix and (stage 1.., block 0..)."""
    return [(f"layer{s}.{i}", s, i) for s, n in enumerate(blocks, 1) for i in range(n)]


INNER = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("downsample.0", "downsample.1"))


def renamed(params, table):
    """Rename the layers of parameters; `table` has torchvision's layer: the new one."""
    return {f"{table[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
            for name, value in params.items()}


def save_torchvision(path, params, blocks):
    counters = {name.replace("running_var", "num_batches_tracked"): np.array(7)
                for name in params if name.endswith("running_var")}
    save_file(params | counters, path)


def save_huggingface(path, params, blocks):
    table = {"conv1": "resnet.embedder.embedder.convolution",
             "bn1": "resnet.embedder.embedder.normalization", "fc": "classifier.1"}
    for prefix, s, i in bottlenecks(blocks):
        at = f"resnet.encoder.stages.{s - 1}.layers.{i}"
        for c, (conv, bn) in enumerate(INNER):
            inner = "shortcut" if c == 3 else f"layer.{c}"
            table[f"{prefix}.{conv}"] = f"{at}.{inner}.convolution"
            table[f"{prefix}.{bn}"] = f"{at}.{inner}.normalization"
    save_file(renamed(params, table), path)


def keras_names(blocks):
    table = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": "predictions"}
    for prefix, s, i in bottlenecks(blocks):
        for number, (conv, bn) in zip((1, 2, 3, 0), INNER, strict=True):
            table[f"{prefix}.{conv}"] = f"conv{s + 1}_block{i + 1}_{number}_conv"
            table[f"{prefix}.{bn}"] = f"conv{s + 1}_block{i + 1}_{number}_bn"
    return table


KERAS_BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
            "running_var": "moving_variance"}


def save_keras(path, params, blocks):
    write_keras(path, renamed(params, keras_names(blocks)))


def write_keras(path, params, flattened=None):
    """Keras 2: one group a layer. `flattened`: (layer, (C, H, W)) of a map read as (H, W, C)."""
    layers = {}
    for name, value in params.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and value.ndim == 4:
            layers.setdefault(layer, {})["kernel"] = value.transpose(2, 3, 1, 0)
        elif kind == "weight" and value.ndim == 2:
            if flattened and layer == flattened[0]:
                value = value.reshape(-1, *flattened[1]).transpose(0, 2, 3, 1)
            layers.setdefault(layer, {})["kernel"] = value.reshape(len(value), -1).T
        else:
            bn = f"{layer}.running_var" in params
            layers.setdefault(layer, {})[KERAS_BN[kind] if bn else kind] = value
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/{name}:0" for name in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, weights.values(), strict=True):
                group.create_dataset(name, data=value)


def save_chainer(path, params, blocks):
    """As `L.ResNet50Layers` saves itself."""
    table = {"conv1": "conv1", "bn1": "bn1", "fc": "fc6"}
    for prefix, s, i in bottlenecks(blocks):
        for number, (conv, bn) in enumerate(INNER, 1):
            at = f"res{s + 1}/{f'b{i}' if i else 'a'}"
            table[f"{prefix}.{conv}"] = f"{at}/conv{number}"
            table[f"{prefix}.{bn}"] = f"{at}/bn{number}"
    write_chainer(path, renamed(params, table))


def save_chainercv(path, params, blocks):
    table = {"conv1": "conv1/conv", "bn1": "conv1/bn", "fc": "fc6"}
    for prefix, s, i in bottlenecks(blocks):
        for number, (conv, bn) in enumerate(INNER, 1):
            at = f"res{s + 1}/{f'b{i}' if i else 'a'}/"
            at += "residual_conv" if number == 4 else f"conv{number}"
            table |= {f"{prefix}.{conv}": f"{at}/conv", f"{prefix}.{bn}": f"{at}/bn"}
    write_chainer(path, renamed(params, table))


def save_chainercv2(path, params, blocks):
    table = {"conv1": "features/init_block/conv/conv", "bn1": "features/init_block/conv/bn",
             "fc": "output/fc"}
    for prefix, s, i in bottlenecks(blocks):
        for number, (conv, bn) in enumerate(INNER, 1):
            at = f"features/stage{s}/unit{i + 1}"
            at += "/identity_conv" if number == 4 else f"/body/conv{number}"
            table |= {f"{prefix}.{conv}": f"{at}/conv", f"{prefix}.{bn}": f"{at}/bn"}
    write_chainer(path, renamed(params, table))


CHAINER_BN = {"weight": "gamma", "bias": "beta", "running_mean": "avg_mean",
              "running_var": "avg_var"}


def write_chainer(path, params):
    arrays = {}
    for name, value in params.items():
        layer, _, kind = name.rpartition(".")
        bn = f"{layer}.running_var" in params
        arrays[f"{layer}/{CHAINER_BN[kind] if bn else {'weight': 'W', 'bias': 'b'}[kind]}"] = value
        if bn:
            arrays[f"{layer}/N"] = np.array(3)
    np.savez(path, **arrays)


def save_caffe(path, params, blocks):
    """As the authors' release: BatchNorm with sums and their factor, then Scale."""
    layers = {"conv1": ("conv1", "bn_conv1", "scale_conv1")}
    for prefix, s, i in bottlenecks(blocks):
        letters = sum(blocks) == 16 or blocks[s - 1] == 3
        block = f"{s + 1}{string.ascii_lowercase[i] if letters else f'b{i}' if i else 'a'}"
        for branch, (conv, _) in zip(("2a", "2b", "2c", "1"), INNER, strict=True):
            layers[f"{prefix}.{conv}"] = tuple(
                f"{kind}{block}_branch{branch}" for kind in ("res", "bn", "scale"))
    net = new_caffe()
    factor = np.float32(0.25)
    for conv, (name, bn, scale) in layers.items():
        if f"{conv}.weight" not in params:
            continue
        at, _, last = conv.rpartition(".")
        norm = f"{at}.{last}".replace("conv", "bn").replace("downsample.0", "downsample.1")
        norm = norm.lstrip(".")
        add_caffe(net, name, "Convolution", params, conv)
        mean, var = params[f"{norm}.running_mean"], params[f"{norm}.running_var"]
        add_blobs(net, bn, "BatchNorm", [mean * factor, var * factor, factor.reshape(1)])
        add_blobs(net, scale, "Scale", [params[f"{norm}.weight"], params[f"{norm}.bias"]])
    add_caffe(net, "fc1000", "InnerProduct", params, "fc")
    path.write_bytes(net.SerializeToString())


def new_caffe():
    from chainer.links.caffe.protobuf3 import caffe_pb2
    return caffe_pb2.NetParameter(name="reference")


def add_caffe(net, name, kind, params, source):
    blobs = [params[f"{source}.{p}"] for p in ("weight", "bias") if f"{source}.{p}" in params]
    add_blobs(net, name, kind, blobs)


def add_blobs(net, name, kind, blobs):
    layer = net.layer.add(name=name, type=kind)
    for value in blobs:
        blob = layer.blobs.add()
        blob.shape.dim.extend(value.shape)
        blob.data.extend(value.ravel().tolist())


def vgg_layers(config):
    """Pairs of torchvision's layer and (block 1.., convolution 1..)."""
    found, t = [], 0
    for b, (_, n_convs) in enumerate(config, 1):
        for c in range(1, n_convs + 1):
            found.append((f"features.{t}", b, c))
            t += 2
        t += 1
    return found


FC = ("classifier.0", "classifier.3", "classifier.6")


def save_vgg_torchvision(path, params, config, map_shape):
    save_file(params, path)


def save_vgg_timm(path, params, config, map_shape):
    table = {layer: layer for layer, *_ in vgg_layers(config)}
    table |= dict(zip(FC, ("pre_logits.fc1", "pre_logits.fc2", "head.fc"), strict=True))
    params = renamed(params, table)
    first, second = "pre_logits.fc1.weight", "pre_logits.fc2.weight"
    params[first] = params[first].reshape(-1, *map_shape)
    params[second] = params[second][:, :, None, None]
    save_file(params, path)


def save_vgg_keras(path, params, config, map_shape):
    table = {layer: f"block{b}_conv{c}" for layer, b, c in vgg_layers(config)}
    table |= dict(zip(FC, ("fc1", "fc2", "predictions"), strict=True))
    write_keras(path, renamed(params, table), ("fc1", map_shape))


def vgg_caffe_names(config):
    table = {layer: f"conv{b}_{c}" for layer, b, c in vgg_layers(config)}
    return table | dict(zip(FC, ("fc6", "fc7", "fc8"), strict=True))


def save_vgg_chainer(path, params, config, map_shape):
    write_chainer(path, renamed(params, vgg_caffe_names(config)))


def save_vgg_caffe(path, params, config, map_shape):
    net = new_caffe()
    for source, name in vgg_caffe_names(config).items():
        kind = "Convolution" if name.startswith("conv") else "InnerProduct"
        add_caffe(net, name, kind, params, source)
    path.write_bytes(net.SerializeToString())


def save_vgg_chainercv(path, params, config, map_shape):
    write_chainer(path, renamed(params, {
        layer: name + "/conv" if name.startswith("conv") else name
        for layer, name in vgg_caffe_names(config).items()}))


def save_vgg_chainercv2(path, params, config, map_shape):
    table = {layer: f"features/stage{b}/unit{c}/conv" for layer, b, c in vgg_layers(config)}
    table |= dict(zip(FC, (f"output/classifier/{n}" for n in ("fc1/fc", "fc2/fc", "fc3")),
                      strict=True))
    write_chainer(path, renamed(params, table))
