"""Protobuf messages without a schema: the fields of a message are views of the file's bytes.

The protobuf library would copy every tensor into its own memory and once more out of it. Here a
tensor of a hundred megabytes stays where it is until NumPy copies it once. Nothing recurses: a
reader opens the messages it knows, level by level, so that nesting costs nothing.
"""


import contextlib

import numpy as np

from ..errors import WeightsError

VARINT, I64, LEN, I32 = 0, 1, 2, 5   # wire types
FIXED = {I64: 8, I32: 4}             # bytes
MOST = 500_000                       # fields in one message


def fields(buffer):
    """Yield a message's fields as (number, value).

    Parameters
    ----------
    buffer : memoryview

    Yields
    ------
    number : int
    value : int or memoryview
        The number of a varint field, the bytes of any other.
    """
    at = 0
    for _ in range(MOST):
        if at == len(buffer):
            return
        number, wire, begin, end = _field(buffer, at)
        if end > len(buffer):
            raise WeightsError(f"field {number} should have {end - begin:,} bytes, only "
                               f"{len(buffer) - begin:,} follow; fetch or copy it again")
        yield number, _varint(buffer, begin)[0] if wire == VARINT else buffer[begin:end]
        at = end
    raise WeightsError(f"a message of more than {MOST:,} fields")


def outline(start):
    """Return the wire types by field number, as far as the first bytes of a message reach."""
    wires, at = {}, 0
    with contextlib.suppress(WeightsError):
        while at < len(start):
            number, wire, _, at = _field(start, at)
            wires[number] = wire
    return wires


def _field(buffer, at):
    """Return a field's number and wire type, and where its value begins and ends."""
    key, begin = _varint(buffer, at)
    wire = key & 7
    if wire == VARINT:
        return key >> 3, wire, begin, _varint(buffer, begin)[1]
    if wire == LEN:
        size, begin = _varint(buffer, begin)
        return key >> 3, wire, begin, begin + size
    if wire not in FIXED:
        raise WeightsError(f"field {key >> 3} has wire type {wire}; expected 0, 1, 2 or 5")
    return key >> 3, wire, begin, begin + FIXED[wire]


def _varint(buffer, at):
    """Return a number of up to 64 bits, 7 of them in a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(buffer):
            raise WeightsError("ends inside a number; fetch or copy it again")
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WeightsError("a number of more than 64 bits; it is damaged")


def parse(buffer, schema):
    """Return the fields that a schema names; others are skipped.

    Parameters
    ----------
    buffer : memoryview
    schema : dict of int to str

    Returns
    -------
    dict of str to list
        Every name of the schema, with its values in file order.
    """
    found = {name: [] for name in schema.values()}
    for number, value in fields(buffer):
        if number in schema:
            found[schema[number]].append(value)
    return found


def messages(values, schema):
    """Open each value of a repeated message."""
    return [parse(_bytes(value), schema) for value in values]


def texts(values):
    """Return the values of a repeated text."""
    return [str(_bytes(value), "utf-8") for value in values]


def text(values):
    """Return a single text; the last counts, and without one it is empty."""
    return texts(values[-1:])[0] if values else ""


def integers(values):
    """Return the values of a repeated signed number, packed or not."""
    numbers = []
    for value in values:
        numbers += [value] if isinstance(value, int) else _packed(value)
    return [n - (1 << 64) if n >> 63 else n for n in numbers]


def _packed(buffer):
    numbers, at = [], 0
    while at < len(buffer):
        number, at = _varint(buffer, at)
        numbers.append(number)
    return numbers


def floats(values, code="<f4"):
    """Return the values of a repeated float, packed or not, as one new array."""
    parts = [np.frombuffer(_bytes(value), code) for value in values]
    return np.concatenate(parts) if parts else np.empty(0, code)


def _bytes(value):
    if isinstance(value, int):
        raise WeightsError("a number where text, a message or floats are expected; it is damaged")
    return value
