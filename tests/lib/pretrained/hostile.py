"""Weight files made to do harm: pickles that would run, archives that would fill the memory."""

import io
import pickle
import struct
import zipfile

import numpy as np

LEGACY = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02M\xe9\x03.",
          b"\x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s.")


def call(name, *arguments, protocol=2):
    """Return a pickle that calls something when it is loaded."""
    module, function = name.rsplit(".", 1)
    head = b"\x80" + bytes([protocol])
    if protocol < 4:
        head += f"c{module}\n{function}\n".encode()
    else:
        names = (b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, function))
        head += b"".join(names) + b"\x93"
    return head + pickle.dumps(arguments, 2)[2:-1] + b"R."


CALLS = [
    ("os.system", "touch HARM"), ("posix.system", "touch HARM"), ("nt.system", "echo"),
    ("subprocess.Popen", ["touch", "HARM"]), ("subprocess.check_output", ["touch", "HARM"]),
    ("builtins.eval", "open('HARM', 'w')"), ("builtins.exec", "open('HARM', 'w')"),
    ("__builtin__.eval", "open('HARM', 'w')"), ("builtins.__import__", "antigravity"),
    ("builtins.open", "HARM", "w"), ("builtins.getattr", [], "append"), ("builtins.print", "harm"),
    ("builtins.compile", "1", "f", "eval"), ("builtins.breakpoint",), ("builtins.globals",),
    ("operator.attrgetter", "__class__"), ("operator.methodcaller", "system", "touch HARM"),
    ("functools.partial", "f"), ("functools.reduce", "f", []), ("types.FunctionType", "f", {}),
    ("types.CodeType",), ("importlib.import_module", "antigravity"), ("runpy.run_path", "x.py"),
    ("runpy._run_code", "1", {}), ("webbrowser.open", "x"), ("timeit.timeit", "open('HARM','w')"),
    ("pty.spawn", "sh"), ("shutil.rmtree", "x"), ("pathlib.Path.unlink", "x"), ("socket.socket",),
    ("ctypes.CDLL", "libc.so.6"), ("marshal.loads", b"x"), ("pickle.loads", b"N."),
    ("code.InteractiveInterpreter",), ("pdb.run", "1"), ("cProfile.run", "1"), ("asyncio.run", 1),
    ("torch.load", "x"), ("torch.hub.load", "x", "y"), ("torch.storage._load_from_bytes", b"N."),
    ("torch._dynamo.guards.GuardBuilder.get", "x"), ("torch.jit.load", "x"),
    ("torch.utils.collect_env.run", "touch HARM"), ("numpy.load", "x"), ("numpy.fromfile", "x"),
    ("numpy.testing._private.utils.runstring", "open('HARM','w')", {}),
    ("numpy.f2py.capi_maps.getinit", "x"), ("collections.Counter", "aab"),
    ("collections.OrderedDict.__init__.__globals__",), ("torch._utils._rebuild_qtensor",),
    ("torch._utils._rebuild_tensor_v2.__globals__",), ("_codecs.encode.__self__",),
    ("__main__.Net",), ("os.path.join", "a"), ("chainer.Variable",), ("convnets.cli.main",),
]

# Without a name that could be refused: instructions, sizes and structures.
RAW = {
    "memo of 4 GB": b"\x80\x02Nr\xff\xff\xff\xff.",
    "bytes of 8 EB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"x.",
    "text of 8 EB": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f" + b"x.",
    "frame of 8 EB": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.",
    "key that hashes for ever": b"\x80\x02}(" + b")" + b"q\x00h\x00\x86" * 60 + b"Nu.",
    "key that overflows the stack": b"\x80\x02}(" + b")" + b"\x85" * 100_000 + b"Nu.",
    "lists inside lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "marks without end": b"\x80\x02" + b"](" * 50_000 + b".",
    "number of a million digits": b"L" + b"9" * 100_000 + b"L\n.",
    "endless": b"\x80\x02" + b"N0" * 251_000,
    "no stop": b"\x80\x02N",
    "nothing on the stack": b"\x80\x02.",
    "pop of nothing": b"\x80\x020000.",
    "unknown instruction": b"\x80\x02\xff.",
    "protocol 200": b"\x80\xc8N.",
    "class by INST": b"(S'touch HARM'\nios\nsystem\n.",
    "class by OBJ": b"(cos\nsystem\nS'touch HARM'\no.",
    "class by extension": b"\x80\x02\x82\x01.",
    "persistent id as text": b"Ptouch HARM\n.",
    "buffer from outside": b"\x80\x05\x97.",
    "set": b"\x80\x04\x8f(K\x01\x90.",
    "function from data": b"\x80\x02X\x02\x00\x00\x00os)R.",
    "a name made of lists": b"\x80\x04]]\x93.",
    "dictionary of itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "odd dictionary": b"\x80\x02(K\x01d.",
    "state for a function": b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__dict__Nsb.",
    "state for a list": b"\x80\x02]}X\x09\x00\x00\x00__class__Nsb.",
    "tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "tensor of a number": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))tR.",
    "storage of a function": b"\x80\x02(X\x07\x00\x00\x00storageccollections\nOrderedDict\n"
                             b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
    "storage of -1 numbers": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
                             b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\xfftQ.",
    "storage of 8 EB": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
                       b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x08" + b"\xff" * 7 + b"\x1ftQ.",
    "storage outside": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
                       b"X\x10\x00\x00\x00../../etc/passwdX\x03\x00\x00\x00cpuK\x01tQ.",
    "array of objects": b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR.",
    "array of pointers": b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n"
                         b"(X\x02\x00\x00\x00O8K\x00K\x01tRC\x08abcdefghtR.",
}


def view(size, stride, offset=0, numbers=4):
    """Return a pickle of a state dict with one tensor, a view of a small storage."""
    def tuple_of(values):
        return pickle.dumps(tuple(values), 2)[2:-1]
    return (b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
            + pickle.dumps(numbers, 2)[2:-1] + b"tQ" + pickle.dumps(offset, 2)[2:-1]
            + tuple_of(size) + tuple_of(stride) + b"\x89NtRs.")


VIEWS = {
    "behind the end": view((8,), (1,)), "before the beginning": view((2,), (1,), -4),
    "backwards": view((4,), (-1,), 1), "far away": view((1,), (1,), 2**62),
    "terabytes by repeating": view((2**40,), (0,)), "more than there are": view((2**62, 4), (0, 0)),
    "too many axes": view((1,) * 70, (1,) * 70), "negative": view((-1,), (1,)),
    "of texts": view(("a",), ("b",)), "sizes without strides": view((2, 2), (1,)),
    "storage of another size": view((2,), (1,), 0, 5),
}


def pickles():
    """Yield (what it is, bytes)."""
    for name, *arguments in CALLS:
        for protocol in (2, 4):
            yield f"{name} by protocol {protocol}", call(name, *arguments, protocol=protocol)
    yield from RAW.items()
    yield from ((f"view {name}", data) for name, data in VIEWS.items())
    yield "reduce by Python", pickle.dumps(print)


def torch_zip(pickled, data=b"\0" * 16):
    """Put a pickle where ``torch.save`` has it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", data)
    return file.getvalue()


def torch_legacy(pickled, place=3):
    """Put a pickle into the older container: as its third is the state dict."""
    parts = [*LEGACY, pickled, b"\x80\x02]X\x01\x00\x00\x000a."]
    parts[place] = pickled
    return b"".join(parts) + struct.pack("<q", 4) + b"\0" * 16


def npz(header, data=b"", version=1):
    """Return an npz of one array whose header is written as given."""
    header = header.encode()
    head = b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header
    return zipped({"w.npy": head + data})


def zipped(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _objects():
    file = io.BytesIO()
    np.savez(file, w=np.array([print], dtype=object))
    return file.getvalue()


def _huge_h5(original):
    """Change the shape of every array of four numbers to terabytes, or to more than there are."""
    for head in (b"\1\1\0\0\0\0\0\0", b"\1\1\1\0\0\0\0\0"):   # one axis, fixed or not
        if head + struct.pack("<Q", 4) in original:
            for size in (2**40, 2**62, 2**64 - 1, 0):
                yield original.replace(head + struct.pack("<Q", 4), head + struct.pack("<Q", size))


def nested(levels, field):
    """Return protobuf messages inside each other, by one field."""
    data = b""
    for _ in range(levels):
        size, length = len(data), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        data = bytes([field << 3 | 2]) + length + bytes([size]) + data
    return data


def files(weights):
    """Yield (what it is, bytes) of hostile files; `weights` is the folder of the honest ones."""
    for name, data in pickles():
        yield f"zip: {name}", torch_zip(data)
        yield f"legacy: {name}", torch_legacy(data)
    for place in range(5):
        yield f"legacy: call in place {place}", torch_legacy(call("os.system", "touch HARM"), place)
    zeros = bytes(40_000_000)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"
    yield "npz: objects", _objects()
    yield "npz: terabytes", npz(header % "1099511627776,")
    yield "npz: code as shape", npz(header % "__import__('os').system('touch HARM'),")
    yield "npz: negative", npz(header % "-4,", bytes(16))
    yield "npz: deep header", npz("(" * 9000 + ")" * 9000)
    yield "npz: version 3", npz(header % "1,", bytes(4), 3)
    yield "npz: outside", zipped({"../w.npy": b""})
    yield "npz: bomb", zipped({"w.npy": zeros}, zipfile.ZIP_DEFLATED)
    yield "npz: LZMA bomb", zipped({"w.npy": zeros[:1000]}, zipfile.ZIP_LZMA)
    yield "keras: bomb", zipped({"model.weights.h5": zeros, "config.json": b"{}"}, 8)
    yield "keras: deep JSON", zipped({"model.weights.h5": b"", "config.json": b"[" * 200_000})
    yield "safetensors: deep JSON", struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000
    yield "safetensors: long header", struct.pack("<Q", 2**62) + b"{}"
    for h5 in ("keras2_model.h5", "keras3.weights.h5"):
        for data in _huge_h5((weights / h5).read_bytes()):
            yield f"huge shape in {h5}", data
    yield "onnx: deep graph", b"\x08\x09" + nested(20_000, 7)
    yield "caffe: deep layers", nested(20_000, 2)
    yield "caffe: fields without end", b"\x12\xc2\x84\x3d" + b"\x10\x01" * 500_001
