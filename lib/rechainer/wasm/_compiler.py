"""Functions written in a small part of Python, compiled to a WebAssembly module.

A kernel is a function of numbers and addresses (of bytes, in memory that it shares with its
caller). It may have ``for`` with ``range`` (steps upwards), ``while``, ``if``, assignments,
``+ - * / // % & | ^ << >>``, one comparison at a time, and calls of other kernels and `BUILTINS`.
A name has the type that it is given first: ``int`` (i32), ``float`` (f32), ``double`` (f64; the
constant is ``double(0.5)``) or ``four`` (v128: four f32 side by side). Integers are signed, so
addresses are added to but not compared; only ``>>`` takes them as bits. Parameters are integers
unless annotated; kernels return nothing.

The encoding is that of the WebAssembly core specification 3.0, chapter 5.
"""

import ast
import struct

TYPES = {"int": 0x7F, "float": 0x7D, "double": 0x7C, "four": 0x7B}
NOTHING = 0x40  # type of a block without a result


def unsigned(number):
    """LEB128 of a number from 0."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + unsigned(number >> 7)


def signed(number):
    """LEB128 of a number of either sign."""
    low, high = number & 127, number >> 7
    if high == -(low >> 6):
        return bytes([low])
    return bytes([low | 128]) + signed(high)


def vector(items):
    """Encoded items with their number before them."""
    return unsigned(len(items)) + b"".join(items)


def sized(content):
    return unsigned(len(content)) + content


def simd(number):
    return b"\xfd" + unsigned(number)


#: (operator, type) -> instruction that takes two values of the type and gives one.
OPERATORS = {
    (ast.Add, "int"): b"\x6a", (ast.Sub, "int"): b"\x6b", (ast.Mult, "int"): b"\x6c",
    (ast.FloorDiv, "int"): b"\x6d",  # towards zero, unlike Python's
    (ast.Mod, "int"): b"\x6f", (ast.BitAnd, "int"): b"\x71", (ast.BitOr, "int"): b"\x72",
    (ast.BitXor, "int"): b"\x73", (ast.LShift, "int"): b"\x74", (ast.RShift, "int"): b"\x76",
    (ast.Add, "float"): b"\x92", (ast.Sub, "float"): b"\x93", (ast.Mult, "float"): b"\x94",
    (ast.Div, "float"): b"\x95",
    (ast.Add, "double"): b"\xa0", (ast.Sub, "double"): b"\xa1", (ast.Mult, "double"): b"\xa2",
    (ast.Div, "double"): b"\xa3",
    (ast.Add, "four"): simd(0xE4), (ast.Sub, "four"): simd(0xE5), (ast.Mult, "four"): simd(0xE6),
    (ast.Div, "four"): simd(0xE7),
}  # fmt: skip
#: (comparison, type) -> instruction that gives an integer, 0 or 1.
COMPARISONS = {
    (ast.Eq, "int"): b"\x46", (ast.NotEq, "int"): b"\x47", (ast.Lt, "int"): b"\x48",
    (ast.Gt, "int"): b"\x4a", (ast.LtE, "int"): b"\x4c", (ast.GtE, "int"): b"\x4e",
    (ast.Eq, "float"): b"\x5b", (ast.NotEq, "float"): b"\x5c", (ast.Lt, "float"): b"\x5d",
    (ast.Gt, "float"): b"\x5e", (ast.Lt, "double"): b"\x63", (ast.Gt, "double"): b"\x64",
}  # fmt: skip
#: Name -> (types of the arguments, type of the result, instruction). An instruction that reads or
#: writes memory ends in the alignment that it may count on; the address comes first.
BUILTINS = {
    "load_int": (["int"], "int", b"\x28\x02"),
    "load": (["int"], "float", b"\x2a\x02"),
    "load4": (["int"], "four", simd(0x00) + b"\x02"),
    "load_same4": (["int"], "four", simd(0x09) + b"\x02"),  # one number, four times
    "store_int": (["int", "int"], None, b"\x36\x02"),
    "store": (["int", "float"], None, b"\x38\x02"),
    "store4": (["int", "four"], None, simd(0x0B) + b"\x02"),
    "to_double": (["int"], "double", b"\xb7"),
    "to_float": (["double"], "float", b"\xb6"),
    "root": (["double"], "double", b"\x9f"),
    "upper_half": (["double"], "int", b"\xbd\x42\x20\x88\xa7"),  # of its 64 bits
    "two_to": (["int"], "double", b"\x41\xff\x07\x6a\xad\x42\x34\x86\xbf"),  # by its bits
    "same4": (["float"], "four", simd(0x13)),
    "min4": (["four", "four"], "four", simd(0xE8)),
    "max4": (["four", "four"], "four", simd(0xE9)),
    "round4": (["four"], "four", simd(0x6A)),
    "to_int4": (["four"], "four", simd(0xF8)),  # as bits of four integers
    "add_int4": (["four", "four"], "four", simd(0xAE)),
    "shift4": (["four", "int"], "four", simd(0xAB)),  # integers, to the left
    "lowest": ([], "float", b"\x43" + struct.pack("<f", float("-inf"))),
    "either": (["int", "int", "int"], "int", b"\x1b"),  # either(yes, no, condition)
}
FUSED = simd(0x105)  # a * b + c, rounded once where the processor can: of "relaxed SIMD"
MEMORY = ("load", "store")  # how the names of those instructions begin


class NotSupported(SyntaxError):
    """Python that has no translation here."""


class Function:
    """Translates one kernel; `index` has the number of each, `fused` is as for `translate`."""

    def __init__(self, node, index, fused):
        self.index, self.fused, self.code = index, fused, bytearray()
        self.types = {arg.arg: getattr(arg.annotation, "id", "int") for arg in node.args.args}
        self.arity = len(self.types)
        self.hidden = 0
        self.body(node.body)

    def body(self, statements):
        for statement in statements:
            method = getattr(self, f"do_{type(statement).__name__}", None)
            if method is None:
                raise self.error(statement)
            method(statement)

    def error(self, node):
        return NotSupported(f"line {node.lineno}: no translation of `{ast.unparse(node)}`")

    def emit(self, *parts):
        for part in parts:
            self.code += part

    def slot(self, name):
        return unsigned(list(self.types).index(name))

    def get(self, name):
        self.emit(b"\x20", self.slot(name))

    def set(self, name, kind, node):
        if self.types.setdefault(name, kind) != kind:
            raise NotSupported(f"line {node.lineno}: `{name}` is {self.types[name]}, not {kind}")
        self.emit(b"\x21", self.slot(name))

    # -- Statements

    def do_Expr(self, node):
        if isinstance(node.value, ast.Constant):  # a docstring
            return
        if self.value(node.value) is not None:
            self.emit(b"\x1a")

    def do_Assign(self, node):
        [target] = node.targets
        if not isinstance(target, ast.Name):
            raise self.error(node)
        self.set(target.id, self.value(node.value), node)

    def do_AugAssign(self, node):
        right = ast.BinOp(node.target, node.op, node.value)
        self.set(node.target.id, self.value(ast.copy_location(right, node)), node)

    def do_If(self, node):
        self.value(node.test)
        self.emit(b"\x04", bytes([NOTHING]))
        self.body(node.body)
        if node.orelse:
            self.emit(b"\x05")
            self.body(node.orelse)
        self.emit(b"\x0b")

    def do_While(self, node):
        self.loop(lambda: self.value(node.test), lambda: self.body(node.body))

    def do_For(self, node):
        if getattr(node.iter, "func", ast.Name("")).id != "range":
            raise self.error(node)
        start, stop, step = ast.Constant(0), *node.iter.args[:1], ast.Constant(1)
        if len(node.iter.args) > 1:
            start, stop, step = [*node.iter.args, step][:3]
        name, self.hidden = node.target.id, self.hidden + 1
        limit = f"{self.hidden} limit"  # a name that no kernel can have
        self.set(limit, self.value(stop), node)
        self.set(name, self.value(start), node)

        def goes_on():
            self.get(name)
            self.get(limit)
            self.emit(COMPARISONS[ast.Lt, "int"])

        def once():
            self.body(node.body)
            self.get(name)
            self.value(step)
            self.emit(OPERATORS[ast.Add, "int"])
            self.set(name, "int", node)

        self.loop(goes_on, once)

    def loop(self, test, body):
        """if test: do body while test; a loop with one jump a turn."""
        test()
        self.emit(b"\x04", bytes([NOTHING]), b"\x03", bytes([NOTHING]))
        body()
        test()
        self.emit(b"\x0d\x00", b"\x0b", b"\x0b")

    # -- Expressions: each leaves its value on the stack and returns its type

    def value(self, node):
        method = getattr(self, f"of_{type(node).__name__}", None)
        if method is None:
            raise self.error(node)
        return method(node)

    def of_Constant(self, node):
        if isinstance(node.value, int):
            self.emit(b"\x41", signed(node.value))
            return "int"
        self.emit(b"\x43", struct.pack("<f", node.value))
        return "float"

    def of_UnaryOp(self, node):
        return self.value(ast.copy_location(ast.Constant(ast.literal_eval(node)), node))

    def of_Name(self, node):
        if node.id not in self.types:
            raise NotSupported(f"line {node.lineno}: `{node.id}` has no value yet")
        self.get(node.id)
        return self.types[node.id]

    def of_BinOp(self, node):
        match node:
            case ast.BinOp(left, ast.Add(), ast.BinOp(a, ast.Mult(), b)) if self.fused:
                if self.is_four(left):
                    for it in a, b, left:
                        self.value(it)
                    self.emit(FUSED)
                    return "four"
        return self.pair(node, node.left, node.right, OPERATORS, type(node.op))

    def is_four(self, node):
        return isinstance(node, ast.Name) and self.types.get(node.id) == "four"

    def of_Compare(self, node):
        if len(node.ops) != 1:
            raise self.error(node)
        self.pair(node, node.left, node.comparators[0], COMPARISONS, type(node.ops[0]))
        return "int"

    def pair(self, node, left, right, table, operator):
        kinds = self.value(left), self.value(right)
        if kinds[0] != kinds[1] or (operator, kinds[0]) not in table:
            raise NotSupported(f"line {node.lineno}: {kinds} in `{ast.unparse(node)}`")
        self.emit(table[operator, kinds[0]])
        return kinds[0]

    def of_Call(self, node):
        name = node.func.id
        if name == "double":
            self.emit(b"\x44", struct.pack("<d", ast.literal_eval(node.args[0])))
            return "double"
        if name in self.index:
            wanted, kind = self.index[name][1], None
            code, offset = b"\x10" + unsigned(self.index[name][0]), b""
        elif name in BUILTINS:
            wanted, kind, code = BUILTINS[name]
            offset = unsigned(self.offset(node)) if name.startswith(MEMORY) else b""
        else:
            raise self.error(node)
        got = [self.value(arg) for arg in node.args]
        if got != wanted:
            raise NotSupported(f"line {node.lineno}: {name} takes {wanted}, got {got}")
        self.emit(code, offset)
        return kind

    def offset(self, node):
        """A constant that is added to an address: part of the instruction, not one of its own."""
        address = node.args[0]
        right = getattr(address, "right", None)
        if not (isinstance(right, ast.Constant) and isinstance(address.op, ast.Add)):
            return 0
        node.args[0] = address.left
        return right.value

    def encoded(self):
        """The function's locals and code, as in the section of codes."""
        own = [TYPES[kind] for kind in list(self.types.values())[self.arity :]]
        return sized(vector([bytes([1, kind]) for kind in own]) + self.code + b"\x0b")


def translate(source, fused=False):
    """Compile all functions of a Python source.

    Parameters
    ----------
    source : str
        Python whose functions are kernels; of everything else only docstrings and imports may
        be there, which say nothing.
    fused : bool
        Whether ``c + a * b`` of four numbers, c a name, may be one instruction of WebAssembly 3.0.

    Returns
    -------
    bytes
        A WebAssembly module that imports its memory as ``env.memory`` and exports each function
        whose name does not begin with an underscore.

    Raises
    ------
    NotSupported
        For Python that has no translation; the text says which line.
    """
    nodes = [it for it in ast.parse(source).body if isinstance(it, ast.FunctionDef)]
    index = {}
    for number, node in enumerate(nodes):
        index[node.name] = number, [getattr(a.annotation, "id", "int") for a in node.args.args]
    signatures = [
        b"\x60" + vector([bytes([TYPES[kind]]) for kind in kinds]) + b"\0"
        for _, kinds in index.values()
    ]
    exports = [
        sized(name.encode()) + b"\0" + unsigned(number)
        for name, (number, _) in index.items()
        if not name.startswith("_")
    ]
    memory = sized(b"env") + sized(b"memory") + b"\x02\0\x01"
    sections = {
        1: signatures,
        2: [memory],
        3: [unsigned(number) for number in range(len(nodes))],
        7: exports,
        10: [Function(node, index, fused).encoded() for node in nodes],
    }
    encoded = [bytes([name]) + sized(vector(items)) for name, items in sections.items()]
    return b"\0asm\x01\0\0\0" + b"".join(encoded)
