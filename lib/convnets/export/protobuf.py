"""Protobuf messages for writing: lists of pieces, so that no tensor is copied on its way to a file.

The other direction is `convnets.pretrained.readers.protobuf`.
"""

from ..pretrained.readers.protobuf import I32, LEN, VARINT


def varint(number):
    """Return a number of up to 64 bits as bytes, 7 bits in each, the lowest first."""
    number %= 1 << 64      # negative ones as two's complement
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def integer(field, number):
    """Return a field with a whole number."""
    return [varint(field << 3 | VARINT) + varint(number)]


def four_bytes(field, data):
    """Return a field of a fixed size, such as a float32."""
    return [varint(field << 3 | I32) + data]


def message(field, pieces):
    """Return a field with a message, made of pieces of bytes."""
    return [varint(field << 3 | LEN) + varint(size(pieces)), *pieces]


def text(field, string):
    """Return a field with text."""
    return message(field, [string.encode()])


def size(pieces):
    """Return the bytes of a list of pieces."""
    return sum(map(len, pieces))
