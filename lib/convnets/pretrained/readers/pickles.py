"""Pickles as data: a small machine that builds lists, dictionaries and tensors, and calls nothing.

A pickle is a program, and Python's own ``pickle.load`` runs it: a file from the network may then do
anything. Here `pickletools` only decodes the instructions. The machine below knows those that build
plain data, and a global name means what the caller's table says, or is an error.
"""

import pickletools

from ..errors import WeightsError

MOST = 500_000   # instructions; the state dict of a ResNet-152 takes 40,000

PUSHED = frozenset([
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
])
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
IGNORED = frozenset({"PROTO", "FRAME"})
# Instructions that only fetch what the memo holds, or store it there.
GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class Known:
    """What a global name stands for: a function of ours that a pickle may ask for."""

    def __init__(self, function):
        self.function = function


def load(file, known, persistent):
    """Build the object that a pickle describes.

    Parameters
    ----------
    file : binary file
        Stands behind the pickle afterwards.
    known : dict
        What may be named: ``{'module.name': Known(function) or any value}``.
    persistent : callable
        Gets a persistent id, returns what it stands for.

    Raises
    ------
    WeightsError
        If the pickle names something else, or has an instruction that plain data does not need.
    """
    machine = _Machine(known, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count == MOST:
            raise WeightsError(f"the pickle has more than {MOST:,} instructions")
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise WeightsError("the pickle has no end")


def as_dict(pairs=()):
    """Build a dictionary whose keys are plain: a nested tuple may take forever to hash."""
    result = {}
    for key, value in pairs:
        if not isinstance(key, str | int | bytes):
            raise WeightsError(f"a key of a dictionary is a {type(key).__name__}; expected a text "
                               f"or a number")
        result[key] = value
    return result


class _Machine:
    def __init__(self, known, persistent):
        self.known = known
        self.persistent = persistent
        self.stack = []
        self.below = []   # the stacks under the marks
        self.memo = {}

    def step(self, name, argument):
        if name in PUSHED:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in PUT:
            self.memo[argument] = self.stack[-1]
        elif name in GET:
            self.stack.append(self.memo[argument])
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        elif name not in IGNORED:
            raise WeightsError(f"the pickle has the instruction {name}, which no weights need; "
                               f"it was not run")

    def mark(self, _):
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self):
        items, self.stack = self.stack, self.below.pop()
        return items

    def memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def pop(self, _):
        self.stack.pop()

    def pop_mark(self, _):
        self.since_mark()

    def dup(self, _):
        self.stack.append(self.stack[-1])

    def tuple_from_mark(self, _):
        items = tuple(self.since_mark())
        self.stack.append(items)

    def tuple_of(self, count):
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def list_from_mark(self, _):
        items = self.since_mark()
        self.stack.append(items)

    def dict_from_mark(self, _):
        items = self.since_mark()
        self.stack.append(as_dict(_pairs(items)))

    def append(self, _):
        self.extend([self.stack.pop()])

    def appends(self, _):
        self.extend(self.since_mark())

    def extend(self, items):
        _expect(self.stack[-1], list, "a list").extend(items)

    def setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def setitems(self, _):
        self.update(self.since_mark())

    def update(self, items):
        _expect(self.stack[-1], dict, "a dictionary").update(as_dict(_pairs(items)))

    def global_name(self, argument):
        self.stack.append(self.named(argument.replace(" ", ".")))

    def stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(f"{module}.{name}"))

    def named(self, name):
        if name not in self.known:
            raise WeightsError(
                f"the pickle names {name}, which may be code, and is not opened. Weights alone are "
                f"safe: in the program that wrote it, torch.save(model.state_dict(), path)")
        return self.known[name]

    def reduce(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        _expect(function, Known, "a known function")
        self.stack.append(function.function(*_expect(arguments, tuple, "arguments")))

    def build(self, _):
        """Give an object its state: for an array its numbers, for others nothing of weight."""
        state = self.stack.pop()
        if hasattr(self.stack[-1], "set_state"):
            self.stack[-1].set_state(*_expect(state, tuple, "a state"))

    def persistent_id(self, _):
        self.stack.append(self.persistent(self.stack.pop()))


ACTIONS = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    "TUPLE": _Machine.tuple_from_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_from_mark,
    "DICT": _Machine.dict_from_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}


def _pairs(items):
    if len(items) % 2:
        raise WeightsError("a dictionary of the pickle has a key without a value")
    return zip(items[::2], items[1::2], strict=True)


def _expect(value, kind, what):
    if not isinstance(value, kind):
        raise WeightsError(f"the pickle has a {type(value).__name__} where {what} is needed; it is "
                           f"damaged")
    return value
