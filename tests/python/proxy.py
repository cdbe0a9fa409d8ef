"""A tcp proxy that tests can cut: between a client and a daemon."""

import contextlib
import select
import socket
import threading
import time


class Proxy:
    """Passes bytes on, and counts them: passed to the daemon, returned by it.

    cut_after: bytes from clients, of all connections together, behind which everything is cut once.
    pause_s: after every 64 KiB of a connection, so that it is slow.
    """

    def __init__(self, port, cut_after=None, on_cut=None, pause_s=0):
        self.port = port
        self.passed = 0
        self.returned = 0
        self.cuts = 0
        self._cut_after = cut_after
        self._on_cut = on_cut
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._pairs = set()
        self._closed = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                daemon = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.add((client, daemon))
            threading.Thread(target=self._pass, args=(client, daemon), daemon=True).start()

    def _take(self, data):
        """What of it goes on, and whether that was the last."""
        with self._lock:
            if self._cut_after is not None and self.passed + len(data) >= self._cut_after:
                data, self._cut_after = data[: self._cut_after - self.passed], None
                self.passed += len(data)
                return data, True
            self.passed += len(data)
            return data, False

    def _pass(self, client, daemon):
        other = {client: daemon, daemon: client}
        with contextlib.suppress(OSError, ValueError):
            while True:
                for source in select.select(list(other), [], [])[0]:
                    data, cuts = source.recv(65536), False
                    if not data:
                        return self._drop((client, daemon))
                    if source is client:
                        data, cuts = self._take(data)
                    else:
                        with self._lock:
                            self.returned += len(data)
                    other[source].sendall(data)
                    time.sleep(self._pause_s)
                    if cuts:
                        self.cut()
                        return None
        return self._drop((client, daemon))

    def _drop(self, pair):
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self):
        """Ends all connections; new ones are possible."""
        with self._lock:
            pairs = list(self._pairs)
            self.cuts += 1
        for pair in pairs:
            self._drop(pair)
        if self._on_cut:
            self._on_cut()

    def close(self):
        self._server.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._drop(pair)
