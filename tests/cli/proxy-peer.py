# SPDX-License-Identifier: BSD-3-Clause
"""A peer of the proxy that says what well-behaved clients never say.

proxy-peer.py ADDRESS PORT TLS-DIR COMMAND [ARGUMENT...]; prints what came of
it in one line.
"""
import socket
import ssl
import struct
import sys

import nbd

OPTION = 0x49484156454F5054
ERRORS = {1: "ack", 3: "info", 2 ** 31 + 2: "policy", 2 ** 31 + 3: "invalid",
          2 ** 31 + 5: "tls-reqd", 2 ** 31 + 6: "unknown",
          2 ** 31 + 7: "shutdown"}
address, port, tls_dir, command = sys.argv[1], int(sys.argv[2]), *sys.argv[3:5]
arguments = sys.argv[5:]


def handle():
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_tls_certificates(tls_dir)
    h.set_strict_mode(0)
    return h


def opened(name, parked=False):
    h = handle()
    h.set_export_name(name)
    h.set_opt_mode(parked)
    h.add_meta_context("base:allocation")
    h.connect_tcp(address, str(port))
    return h


def plain():
    s = socket.create_connection((address, port), 15)
    assert take(s, 18) == b"NBDMAGICIHAVEOPT\0\3"
    s.sendall(struct.pack(">I", 3))
    return s


def take(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def option(number, data=b""):
    return struct.pack(">QII", OPTION, number, len(data)) + data


def reply(s):
    _, _, kind, n = struct.unpack(">QIII", take(s, 20))
    take(s, n)
    return ERRORS.get(kind, hex(kind))


def secure(s, most=None, cert=True, wait=None):
    s.sendall(option(5))
    assert reply(s) == "ack"
    if wait:
        wait()
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.load_verify_locations(tls_dir + "/ca-cert.pem")
    if cert:
        c.load_cert_chain(tls_dir + "/client-cert.pem",
                          tls_dir + "/client-key.pem")
    if most:
        c.maximum_version = most
    return c.wrap_socket(s)


def closed(s):
    """Nothing more comes: in order, or not."""
    try:
        while s.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return "closed"


def plain_options():
    s, said = plain(), []
    for o in (3, 6, 7, 8, 10, 99):
        s.sendall(option(o))
        said.append(reply(s))
    return " ".join(said)


def plain_export_name():
    s = plain()
    s.sendall(option(1, b"disk"))
    return closed(s)


def plain_many():
    s = plain()
    s.sendall(option(3) * 100)
    return closed(s)


def behind_starttls():
    s = plain()
    s.sendall(option(5) + option(3))
    return closed(s)


def tls12():
    try:
        return "spoke " + secure(plain(), ssl.TLSVersion.TLSv1_2).version()
    except (ssl.SSLError, ConnectionError, EOFError):
        return "refused"


def no_certificate():
    try:
        s = secure(plain(), cert=False)
        s.sendall(option(3))
        return reply(s)
    except (ssl.SSLError, ConnectionError, EOFError):
        return "refused"


def late():
    """Begin TLS, and say nothing until a line comes from standard input."""
    def wait():
        print("waiting", flush=True)
        sys.stdin.readline()

    try:
        s = secure(plain(), wait=wait)
        s.sendall(option(3))
        return "answered " + reply(s)
    except (ssl.SSLError, ConnectionError, EOFError):
        return "refused"


def long_option():
    s = secure(plain())
    s.sendall(struct.pack(">QII", OPTION, 6, 1 << 20))
    return closed(s)


def rubbish():
    s = secure(plain())
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return closed(s)


def silent():
    return closed(plain())


def export_name():
    """NBD_OPT_EXPORT_NAME, then one read with a simple reply."""
    s = secure(plain())
    s.sendall(option(1, arguments[0].encode()))
    try:
        size, flags = struct.unpack(">QH", take(s, 10))
    except (EOFError, ConnectionError, ssl.SSLError):
        return "closed"
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
    magic, error, cookie = struct.unpack(">IIQ", take(s, 16))
    take(s, 512)
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
    return f"{size} {magic:x} {error} {cookie} {closed(s)}"


def bad_request():
    s = secure(plain())
    s.sendall(option(1, b"disk"))
    take(s, 10)
    s.sendall(b"x" * 28)
    return closed(s)


def go():
    """NBD_OPT_GO, or another option of that form; in libnbd the text of a
    refusal is lost."""
    name = arguments[0].encode()
    number = int(arguments[1]) if len(arguments) > 1 else 7
    s = secure(plain())
    s.sendall(option(number, struct.pack(">I", len(name)) + name + b"\0\0"))
    while True:
        _, _, kind, n = struct.unpack(">QIII", take(s, 20))
        text = take(s, n).decode(errors="replace")
        if kind == 1:
            return "granted"
        if kind != 3:
            return f"refused: {ERRORS.get(kind, hex(kind))}: {text}"


def list():
    s, names = secure(plain()), []
    s.sendall(option(3))
    while True:
        _, _, kind, n = struct.unpack(">QIII", take(s, 20))
        data = take(s, n)
        if kind != 2:
            return " ".join(sorted(names))
        names.append(data[4:].decode())


def requests():
    """What each is answered."""
    h, said = opened("disk"), []
    size = h.get_size()
    for what, call in (
            ("unaligned", lambda: h.pread(512, 1)),
            ("beyond", lambda: h.pread(512, size)),
            ("write-beyond", lambda: h.pwrite(bytes(512), size)),
            ("trim-beyond", lambda: h.trim(512, size)),
            ("huge", lambda: h.pread((1 << 25) + 512, 0)),
            ("fast-zero", lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO)),
            ("zero", lambda: h.zero(1 << 20, 0, nbd.CMD_FLAG_NO_HOLE)),
            ("cache", lambda: h.cache(512, 0)),
            ("fua", lambda: h.pwrite(bytes(512), 0, nbd.CMD_FLAG_FUA)),
            ("df", lambda: h.pread_structured(
                512, 0, lambda *a: 0, nbd.CMD_FLAG_DF)),
            ("flush", h.flush)):
        try:
            call()
            said.append(what + "=ok")
        except nbd.Error as e:
            said.append(what + "=" + str(e.errno))
    h.shutdown()
    return " ".join(said)


def generations():
    """A client's generations: each answer, and who is still alive."""
    def ask(g, client="vm"):
        h = opened(f"disk?client={client}&generation={g}", True)
        try:
            h.opt_go()
            return h, "yes"
        except nbd.Error:
            return h, "no"

    def alive(h):
        try:
            h.pread(512, 0)
            return "alive"
        except nbd.Error:
            return "dead"

    said = []
    first, a = ask(5)
    second, b = ask(5)
    said += [a, b, alive(first), alive(second)]
    _, c = ask(4)
    other, d = ask(1, "other")
    said += [c, d, alive(first)]
    third, e = ask(6)
    said += [e, alive(first), alive(second), alive(third), alive(other)]
    return " ".join(said)


def hold():
    """Keep a name open, one read after the other, until it breaks."""
    h = opened(arguments[0])
    print("open", flush=True)
    try:
        while True:
            h.pread(512, 0)
    except nbd.Error as e:
        return f"ended: {e.errno}"


def many():
    """More requests than the proxy takes at once, and every answer."""
    h = opened("disk")
    block = bytes(range(256)) * 16
    cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(block)),
                            i * 4096) for i in range(1000)]
    while cookies:
        h.poll(-1)
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
    good = all(h.pread(4096, i * 4096) == block for i in range(1000))
    h.shutdown()
    return str(good)


print(globals()[command.replace("-", "_")]())
