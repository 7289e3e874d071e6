"""HDF5 in the one layout that Keras has always written: old-style groups, contiguous arrays.

The HDF5 library is not used here: damaged files crash or hang it, and with it the interpreter.
What Keras needs of the format is small, and is read below with every address held against the
file's size. Names follow the HDF5 File Format Specification, version 3.
"""

import math
import struct

import numpy as np

from ..errors import WeightsError
from .bounds import fill, native

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEEPEST = 32        # groups inside each other

DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT = 0x1, 0x2, 0x3, 0x6, 0x7, 0x8
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0xB, 0xC, 0x10, 0x11, 0x15
ELSEWHERE = {   # messages of layouts that Keras does not write
    LINK_INFO: "a new-style group", LINK: "a new-style group", EXTERNAL: "data in another file",
    FILTERS: "compressed or checked data", ATTRIBUTE_INFO: "attributes in a heap of their own",
}
RESAVE = ("which Keras does not write and this reader does not read. Copy the arrays with h5py "
          "into a file opened by h5py.File(path, 'w', libver='earliest')")

# IEEE numbers: offset, precision, exponent's place and size, mantissa's place and size, bias.
FLOATS = {
    (0, 16, 10, 5, 0, 10, 15): "f2",
    (0, 32, 23, 8, 0, 23, 127): "f4",
    (0, 64, 52, 11, 0, 52, 1023): "f8",
}
VLEN = "text of any length"   # in place of a NumPy type; compared by identity


class File:
    """The groups and arrays of an HDF5 file.

    Parameters
    ----------
    file : seekable binary file
    size : int
        Its length in bytes.
    budget : Budget
    """

    def __init__(self, file, size, budget):
        self.file = file
        self.size = size
        self.budget = budget
        self.seen = set()
        self.heaps = {}
        self.root = Object(self, self._root_address(), "", 0)

    def at(self, address, length):
        """Return bytes of the file, all of which must be there."""
        if address + length > self.size:
            raise WeightsError(f"{length:,} bytes should begin at byte {address:,}, but the file "
                               f"has {self.size:,}; fetch or copy it again")
        self.file.seek(address)
        return self.file.read(length)

    def unpack(self, layout, address):
        """Return numbers that begin at an address, by their `struct` layout."""
        return struct.unpack("<" + layout, self.at(address, struct.calcsize("<" + layout)))

    def block(self, signature, layout, address):
        """Return what follows a block's signature."""
        self.once(address)
        found, *values = self.unpack("4s" + layout, address)
        if found != signature:
            raise WeightsError(f"at byte {address:,} is {found!r}, expected {signature!r}; it is "
                               f"damaged")
        return values

    def once(self, address):
        """Note a block's address: a second way to it would be the beginning of a circle."""
        if address in self.seen:
            raise WeightsError(f"two ways lead to byte {address:,}; expected one")
        self.seen.add(address)

    def _root_address(self):
        version, offsets, lengths = self.at(0, 15)[8], *self.at(13, 2)
        if version > 1 or (offsets, lengths) != (8, 8):
            raise WeightsError(f"a superblock of version {version}, {RESAVE}")
        # After version 1's four more bytes: where the numbering begins, and the file's length.
        base, _, end, _, _, root = self.unpack("6Q", 24 + 4 * version)
        if base != 0 or end > self.size:
            raise WeightsError(f"the file should have {end:,} bytes, it has {self.size:,}; fetch "
                               f"or copy it again")
        return root


class Object:
    """A group or an array, with its attributes.

    Attributes
    ----------
    name : str
        The path inside the file.
    """

    def __init__(self, file, address, name, depth):
        if depth > DEEPEST:
            raise WeightsError(f"groups lie more than {DEEPEST} deep; it is damaged")
        self.file = file
        self.name = name
        self.depth = depth
        file.once(address)
        self.messages = list(self._messages(address))

    def _messages(self, address):
        """Yield the object's header messages as (kind, bytes)."""
        version, _, count, _, length = self.file.unpack("BBHII", address)
        if version != 1:
            raise WeightsError(f"{self.name!r} has a header of version {version}, {RESAVE}")
        blocks = [(address + 16, length)]
        for begin, length in blocks:   # grows on the way
            data = self.file.at(begin, length)
            at = 0
            while at + 8 <= length and count:
                kind, size, flags = struct.unpack_from("<HHB", data, at)
                body = data[at + 8 : at + 8 + size]
                if len(body) != size or flags & 2:
                    raise WeightsError(f"{self.name!r} has a header message of {size} bytes and "
                                       f"flags {flags}; it is damaged")
                if kind == CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", body))
                if kind in ELSEWHERE:
                    raise WeightsError(f"{self.name!r} has {ELSEWHERE[kind]}, {RESAVE}")
                yield kind, body
                at, count = at + 8 + size, count - 1
        if count:
            raise WeightsError(f"{self.name!r} lacks {count} header messages; it is damaged")

    def message(self, kind):
        """Return the one message of a kind, or None."""
        found = [body for k, body in self.messages if k == kind]
        if len(found) > 1:
            raise WeightsError(f"{self.name!r} has {len(found)} messages of kind {kind}")
        return found[0] if found else None

    @property
    def is_group(self):
        return self.message(SYMBOL_TABLE) is not None

    def __getitem__(self, name):
        """Return the member of a name, which may be a path."""
        here = self
        for part in name.split("/"):
            members = here.members()
            if part not in members:
                raise WeightsError(f"{here.name or '/'!r} has no member {part!r}")
            here = members[part]
        return here

    def members(self):
        """Return a group's members by name."""
        if not self.is_group:
            raise WeightsError(f"{self.name!r} is an array; expected a group")
        if not hasattr(self, "_members"):
            self._members = dict(self._links())
        return self._members

    def _links(self):
        tree, heap = struct.unpack_from("<QQ", self.message(SYMBOL_TABLE))
        _, length, _, segment = self.file.block(b"HEAP", "IQQQ", heap)
        names = self.file.at(segment, length)
        for node in self._leaves(tree, 0):
            for place, address, cache in self._entries(node):
                end = names.find(b"\0", place)
                name = names[place:end].decode()
                if not name or end < 0 or cache == 2:
                    raise WeightsError(f"{self.name!r} has a link, or a member without a name; "
                                       f"expected groups and arrays")
                yield name, Object(self.file, address, f"{self.name}/{name}".lstrip("/"),
                                   self.depth + 1)

    def _leaves(self, address, depth):
        """Yield the addresses of a group's symbol-table nodes: the leaves of its B-tree."""
        kind, level, count, _, _ = self.file.block(b"TREE", "BBHQQ", address)
        if kind != 0 or depth > DEEPEST:
            raise WeightsError(f"{self.name!r} has an index of kind {kind}; it is damaged")
        children = self.file.unpack(f"{2 * count}Q", address + 24)[1::2]   # between keys
        for child in children:
            yield from self._leaves(child, depth + 1) if level else [child]

    def _entries(self, node):
        _, _, count = self.file.block(b"SNOD", "BBH", node)
        for entry in range(count):
            yield self.file.unpack("QQI", node + 8 + 40 * entry)

    def attribute(self, name):
        """Return the texts of an attribute as a list, or None if there is no such attribute."""
        for kind, data in self.messages:
            if kind == ATTRIBUTE:
                found, rest = self._named(data)
                if found == name:
                    return self._texts(*rest)
        return None

    def _named(self, data):
        """Return an attribute's name; its type, its shape and its bytes, still packed."""
        version, *sizes = struct.unpack_from("<BxHHH", data)
        if version not in (1, 2, 3):
            raise WeightsError(f"{self.name!r} has an attribute of version {version}; it is "
                               f"damaged")
        at = 9 if version == 3 else 8   # version 3 tells how its name is written
        parts = []
        for size in sizes:
            parts.append(data[at : at + size])
            at += -(-size // 8) * 8 if version == 1 else size
        return parts[0].rstrip(b"\0").decode(), (*parts[1:], data[at:])

    def _texts(self, dtype, shape, data):
        """Decode the texts of an attribute; those of any length lie in the file's global heaps."""
        dtype, count = _dtype(dtype), math.prod(_shape(shape))
        if count == 0:
            return []
        if dtype is not VLEN:
            if dtype.kind != "S":
                raise WeightsError(f"{self.name!r} has {dtype} where texts are expected")
            texts = np.frombuffer(data, dtype, count).tolist()
        else:
            if len(data) < 16 * count:
                raise WeightsError(f"{self.name!r} has an attribute cut short; it is damaged")
            texts = [self._heap(heap)[index][:length] if length else b""
                     for length, heap, index in struct.iter_unpack("<IQI", data[: 16 * count])]
        return [text.rstrip(b"\0").decode() for text in texts]

    def _heap(self, address):
        """Return the objects of a global heap by their index."""
        if address not in self.file.heaps:
            _, length = self.file.block(b"GCOL", "IQ", address)
            data, at, objects = self.file.at(address, length), 16, {}
            while at + 16 <= length:
                index, size = struct.unpack_from("<H6xQ", data, at)
                if index == 0:   # the free space at the end
                    break
                objects[index] = data[at + 16 : at + 16 + size]
                at += 16 + -(-size // 8) * 8
            self.file.heaps[address] = objects
        return self.file.heaps[address]

    def array(self):
        """Read the numbers of an array."""
        shape, dtype, layout = (self.message(kind) for kind in (DATASPACE, DATATYPE, LAYOUT))
        if None in (shape, dtype, layout):
            raise WeightsError(f"{self.name!r} is a group; expected an array")
        shape, dtype = _shape(shape), _dtype(dtype)
        if dtype is VLEN or dtype.kind not in "iuf":
            raise WeightsError(f"{self.name!r} holds {dtype}; expected numbers")
        address = self._contiguous(layout, shape, dtype)
        array = np.empty(shape, dtype)
        if array.size:
            self.file.file.seek(address)
            fill(array, self.file.file, self.name)
        return native(array)

    def _contiguous(self, layout, shape, dtype):
        """Return where the numbers begin, after a look at how many there must be."""
        nbytes = self.file.budget.take(shape, dtype, self.name)
        version, kind = layout[:2]
        if (version, kind) != (3, 1):
            raise WeightsError(f"{self.name!r} has a data layout of version {version} and class "
                               f"{kind}, {RESAVE}")
        address, size = struct.unpack_from("<QQ", layout, 2)
        if size != nbytes or (nbytes and address + size > self.file.size):
            raise WeightsError(f"{self.name!r} of shape {shape} and {dtype} needs {nbytes:,} "
                               f"bytes, but has {size:,} at byte {address:,} of "
                               f"{self.file.size:,}; fetch or copy it again")
        return address


def _shape(data):
    """Return the shape in a dataspace message."""
    version, rank, _, null = struct.unpack_from("<BBBB", data)
    if version not in (1, 2) or (version == 2 and null == 2):
        raise WeightsError(f"a dataspace of version {version} without numbers; it is damaged")
    return struct.unpack_from(f"<{rank}Q", data, 8 if version == 1 else 4)


def _dtype(data):
    """Return the NumPy type in a datatype message, or `VLEN`."""
    head, bits, size = struct.unpack_from("<BB2xI", data)
    order = "<>"[bits & 1]
    kind = head & 15
    if kind == 0 and size in (1, 2, 4, 8):
        offset, precision = struct.unpack_from("<HH", data, 8)
        if (offset, precision) == (0, 8 * size):
            return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 1:
        code = FLOATS.get(struct.unpack_from("<HHBBBBI", data, 8))
        if code and size == int(code[1]) and not bits & 64:   # 64: a VAX's order
            return np.dtype(order + code)
    if kind == 3 and size:
        return np.dtype(f"S{size}")
    if kind == 9 and bits & 15 == 1 and size == 16:
        return VLEN
    raise WeightsError(f"a number or text of class {kind} and {size} bytes; expected integers, "
                       f"IEEE floats or texts")
