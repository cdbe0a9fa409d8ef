"""The protocol by hand (proto/PROTOCOL.md), for peers that do what no client would."""

import socket
import ssl
import struct
import time

HANDSHAKE = b"\0SP\0\0\x30\0\0"
HEADER_MAX, BODY_MAX = 65536, 64 << 20  # a message's


def pack(value) -> bytes:
    """A msgpack value."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):  # text that need not be UTF-8
        return b"\xdb" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(pack, value))
    return b"\xde" + struct.pack(">H", len(value)) + b"".join(pack(key) + pack(each) for key, each in value.items())


def unpack_some(data: bytes, at: int):
    """The value that begins there, and where the next one does: of what the daemon sends."""
    first = data[at]
    if first < 0x80:
        return first, at + 1
    if first < 0x90:
        found, at = {}, at + 1
        for _ in range(first & 0x0F):
            key, at = unpack_some(data, at)
            found[key], at = unpack_some(data, at)
        return found, at
    if 0xA0 <= first < 0xC0 or first in (0xD9, 0xDA, 0xDB):
        width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(first, 0)
        size = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else first & 0x1F
        begin = at + 1 + width
        return data[begin : begin + size].decode(), begin + size
    if first >= 0xE0:
        return first - 256, at + 1
    if first in (0xC2, 0xC3):
        return first == 0xC3, at + 1
    form = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q", 0xCA: ">f",
            0xCB: ">d", 0xDE: ">H"}[first]
    number, begin = struct.unpack_from(form, data, at + 1)[0], at + 1 + struct.calcsize(form)
    if first != 0xDE:
        return number, begin
    found = {}
    for _ in range(number):
        key, begin = unpack_some(data, begin)
        found[key], begin = unpack_some(data, begin)
    return found, begin


def message(operation: str, body: bytes = b"", **fields) -> bytes:
    header = pack({"op": operation, "v": 1, **fields})
    return struct.pack(">I", len(header)) + header + body


def frame(content: bytes, announced_bytes: int = None) -> bytes:
    """announced_bytes: how long the message says that it is, if that is not the truth."""
    return struct.pack(">QI", 4 + (len(content) if announced_bytes is None else announced_bytes), 0x80000001) + content


class Peer:
    """A connection over tcp, or with an authority over TLS."""

    def __init__(self, address, greets=True, authority=None, receive_bytes=None):
        self.socket = socket.socket(socket.AF_INET)
        self.socket.settimeout(30)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(address)
        if authority:
            self.socket = ssl.create_default_context(cafile=authority).wrap_socket(self.socket, server_hostname="localhost")
        if greets:
            self.socket.sendall(HANDSHAKE)
            assert self.take(8) == b"\0SP\0\0\x31\0\0"

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def send(self, operation: str, body: bytes = b"", **fields) -> None:
        self.socket.sendall(frame(message(operation, body, **fields)))

    def hear(self) -> dict:
        """The next answer; its body is `body`."""
        size, _ = struct.unpack(">QI", self.take(12))
        data = self.take(size - 4)
        header_bytes = struct.unpack_from(">I", data)[0]
        fields, _ = unpack_some(data, 4)
        return {**fields, "body": data[4 + header_bytes :]}

    def ask(self, operation: str, body: bytes = b"", **fields) -> dict:
        self.send(operation, body, **fields)
        return self.hear()

    def closes(self, seconds: float) -> bool:
        """Whether the daemon ends it by then, whatever it says before."""
        due = time.monotonic() + seconds
        try:
            while (left := due - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(1 << 20):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()
