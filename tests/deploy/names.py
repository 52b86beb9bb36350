"""A server for names that knows one name, which is this machine's: what a cluster's does for its services."""

import contextlib
import random
import socket
import struct
import threading

# Where a server for names is asked, and nowhere else.
PORT = 53


def bound():
    """A socket at that port of an address of this machine that nobody else has."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _attempt in range(20):
        with contextlib.suppress(OSError):
            server.bind((f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}", PORT))
            server.settimeout(0.1)
            return server
    raise AssertionError(f"no address of this machine can be had at port {PORT}")


@contextlib.contextmanager
def answering(server, name):
    """Answers for as long as it is needed."""
    ended = threading.Event()
    thread = threading.Thread(target=serve, args=(server, name, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        server.close()


def serve(server, name, ended):
    """An A record for the name, no other record of it, and no other name."""
    wanted = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    while not ended.is_set():
        try:
            query, caller = server.recvfrom(512)
        except TimeoutError:
            continue
        asked = query[12 : query.index(b"\0", 12) + 5]
        known = asked[:-4].lower() == wanted
        address = known and struct.unpack("!H", asked[-4:-2])[0] == 1
        header = query[:2] + struct.pack("!5H", 0x8580 | (0 if known else 3), 1, int(address), 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton("127.0.0.1")
        server.sendto(header + asked + (record if address else b""), caller)
