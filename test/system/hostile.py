#!/usr/bin/env python3
"""Hostile clients: none of them costs anybody else the banner, a reply, or the server.

Each test lets some loose on a server of its own with small limits, in bounded number and time.
Meanwhile a bystander from another address talks to it and delivers mails: no reply to it takes
longer than LIMIT, none is missing. The workers' memory stays within its bound, and afterwards the
server has no session and no octet left of it. Arguments choose tests by parts of their names.
"""
import contextlib
import multiprocessing
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time

os.environ.setdefault("SMTPD_TEST_PORTS", "2800-2999")
sys.dont_write_bytecode = True
from live import (DIR, ROOT, BINARY, Client, Database, Server, Stopwatch, cpu, deliver_once, memory,
                  ok, run_tests, same, session, start, test, wait)

# Seconds that a bystander may wait, less what the machine takes; and as much again as that, for
# what nobody counts: the network's own work waits for a processor too, and memory is slower.
LIMIT = 0.1
MB = 1 << 20
ENVELOPE = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n"


# -- the bystander: a process of its own, so that this one's threads do not make it wait

def bystand(port, pids, pipe, mails):
    """Talks until told to stop, then says how it went."""
    worst, failed, delivered = (0.0, "", 0.0), [], 0
    while not pipe.poll(0.02):
        try:
            watch, c = Stopwatch(pids), Client(port, source="127.0.0.9")
            steps = [("banner", 220, None), ("EHLO", 250, b"EHLO bystander.example"),
                     ("NOOP", 250, b"NOOP"), ("MAIL", 250, b"MAIL FROM:<x@bystander.example>"),
                     ("RCPT", 250, b"RCPT TO:<b@test.example>"), ("DATA", 354, b"DATA"),
                     ("mail", 250, b"To: b@test.example\r\nSubject: bystander\r\n\r\nx\r\n."), ("QUIT", 221, b"QUIT")]
            for name, want, line in steps if mails else steps[:5] + steps[7:]:
                if line:
                    watch = Stopwatch(pids)
                code, text = c.command(line) if line else c.banner
                if name != "mail":      # that one waits for the disk
                    machine = watch.machine()
                    worst = max(worst, (watch.all() - 2 * machine, name, machine))
                if code != want:
                    failed.append("%s: %d %s" % (name, code, text))
                    break
                delivered += name == "mail"
            c.close()
        except OSError as e:
            failed.append(repr(e))
    pipe.send((worst, failed, delivered))


def burn():
    """The time of a piece of work that is always the same."""
    began = time.monotonic()
    for _ in range(100000):
        pass
    return time.monotonic() - began


QUICKEST = min(burn() for _ in range(20))


class Bystander:
    def __init__(self, server, mails=True):
        self.mails = mails
        Stopwatch()             # so that what it needs is there before the process is
        self.pipe, far = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=bystand, daemon=True,
                                               args=(server.port, server.workers(), far, mails))
        self.process.start()

    def end(self, what, more=0.0):
        self.pipe.send(None)
        worst, failed, delivered = self.pipe.recv()
        self.process.join()
        # As long as it is on this machine when nobody else works on it.
        slower = max(1.0, sorted(burn() for _ in range(15))[7] / QUICKEST)
        ok("%s: a bystander waits at most %.0f ms" % (what, (LIMIT + more) * 1000),
           worst[0] <= (LIMIT + more) * slower, (worst, slower))
        if "-v" in sys.argv:
            print("     %s: at most %.0f ms for %s, and %.0f ms of the machine's" % (
                what, worst[0] * 1000, worst[1], worst[2] * 1000))
        ok(what + ": a bystander gets every answer", not failed, (len(failed), failed[:3]))
        ok(what + ": a bystander's mails are taken", delivered or not self.mails, delivered)


# -- what the server is like

def together(server):
    """The memory of all workers, MB."""
    total = 0
    for pid in server.workers():
        with contextlib.suppress(OSError, StopIteration):	# it ends
            total += memory(pid, "RssAnon")
    return total / MB


class Peak:
    """The most memory the workers have while it runs."""

    def __init__(self, server):
        self.server, self.most, self.ending = server, together(server), threading.Event()
        self.before = self.most
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.ending.wait(0.02):
            self.most = max(self.most, together(self.server))

    def end(self, what, bound):
        self.ending.set()
        self.thread.join()
        ok("%s: memory grows by %d MB at most" % (what, bound),
           self.most - self.before <= bound, "%.1f MB" % (self.most - self.before))
        if "-v" in sys.argv:
            print("     %s: memory %.1f MB, at most %.1f" % (what, self.before, self.most))


def recovered(what, server, seconds=5):
    """No session is left, no octet is held, a mail is taken at once."""
    clean = wait(lambda: (lambda c: c["clients"] == "0" and c["held"] == "0" and c)(
        server.counters()), seconds)
    ok(what + ": no session, no octet left", clean, server.counters())
    same(what + ": a mail is taken", deliver_once(
        server, mail=b"To: b@test.example\r\n\r\nafter\r\n", at_once=True), 250)
    same(what + ": all workers are there", len(server.workers()), int(server.config["GSMTP_WORKERS"]))
    ok(what + ": none of them has died", "worker-died" not in server.log())


def crowd(n, f, *args):
    """f in n threads; their values."""
    values = [None] * n

    def run(i):
        values[i] = f(i, *args)
    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(600)
    return values


def push(sock, octets, times, seconds=20):
    """Sends as fast as it is taken and drops all that comes back; how much went."""
    sock.setblocking(False)
    watch, sent, got, view = Stopwatch(), 0, b"", memoryview(octets)
    total, at = len(octets) * times, 0
    try:
        while sent < total and not watch.over(seconds):
            r, w, _ = select.select([sock], [sock], [], 0.5)
            if r:
                piece = sock.recv(1 << 16)
                got = (got + piece)[-400:]
                if not piece:
                    break
            if w:
                n = sock.send(view[at:])
                sent, at = sent + n, (at + n) % len(octets)
    except OSError:
        pass
    sock.settimeout(60)
    return sent, got


# -- the tests

@test
def endless_line(db):
    server = Server(db, GSMTP_TIMEOUT="3")
    peak, by = Peak(server), Bystander(server)

    def one(i):
        with session(server.port) as c:
            watch = Stopwatch()
            sent, got = push(c.sock, b"x" * 65536, 1600)
            return sent, watch.took(), got
    for sent, took, got in crowd(4, one):
        # Either all of it has been swallowed, or the line took longer than GSMTP_TIMEOUT.
        ok("endless line: ends", sent == 1600 * 65536 or (took < 8 and b"421 4.4.2" in got),
           (sent, took, got))
    by.end("endless line")
    peak.end("endless line", 8)
    c = session(server.port)
    c.send(b"x" * 5000000 + b"\r\nNOOP\r\n")
    same("long line: one 500, and on", [c.reply()[0], c.reply()[0]], [500, 250])
    c.close()
    recovered("endless line", server)
    server.stop()


@test
def endless_header(db):
    server = Server(db, GSMTP_MAX_SIZE="2000000")
    peak, by = Peak(server), Bystander(server)

    def one(i):
        with session(server.port) as c:
            c.send(ENVELOPE)
            [c.reply() for _ in range(3)]
            push(c.sock, (b"Subject: " if i % 2 else b"X-%d: y\r\n" % i) * 8192, 500)
            c.send(b"\r\n.\r\nNOOP\r\n")
            return [c.reply()[0], c.reply()[0]]
    for codes in crowd(6, one):
        same("endless header: 552, and the session goes on", codes, [552, 250])
    by.end("endless header")
    peak.end("endless header", 30)
    recovered("endless header", server)
    server.stop()


def evil_mails(size):
    """Messages made to keep a parser busy."""
    to = b"To: b@test.example\r\n"

    def fill(piece, before=b"", after=b"\r\n" + to + b"\r\nx\r\n"):
        if piece.endswith(b"\r\n"):
            after = after[2:]
        return (b"" if to in after else to) + before + piece * (size // len(piece)) + after
    yield "fields", fill(b"A: b\r\n")
    yield "one field", fill(b"y", b"Subject: ")
    yield "folded lines", fill(b" y\r\n", b"Subject: x\r\n")
    yield "encoded-words", fill(b"=?utf-8?Q?=C3=A9?= ", b"Subject: ")
    yield "no encoded-words", fill(b"=?", b"Subject: ")
    yield "almost encoded-words", fill(b"=?a?Q?b ", b"Subject: ")
    yield "open comments", fill(b"(", b"To: ")
    yield "closed comments", fill(b"()", b"From: ")
    yield "open quote", fill(b"\\\"", b'To: "')
    yield "addresses", fill(b"a@b.example,", b"To: ")
    yield "brackets", fill(b"<", b"To: ")
    yield "groups", fill(b"a:;,", b"Cc: ")
    yield "commas", fill(b",", b"To: ")
    yield "parameters", fill(b";a=b", b"MIME-Version: 1.0\r\nContent-Type: text/html")
    yield "continued parameters", fill(b"; charset*0=a", b"MIME-Version: 1.0\r\nContent-Type: a/b")
    mime = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    yield "empty parts", fill(b"--x\r\n", mime, b"")
    yield "parts", fill(b"--x\r\n\r\ny\r\n", mime, b"")
    yield "dashes", fill(b"--", mime, b"")
    yield "almost boundaries", fill(b"\r\n--", mime, b"")
    yield "nested", to + mime + b"".join(
        b"--%s\r\nContent-Type: multipart/mixed; boundary=%s\r\n\r\n" % (b"x" * n, b"x" * (n + 1))
        for n in range(1, 2000))
    yield "nested, the same boundary", fill(
        b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n", mime, b"")
    many = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1)
                    for n in range(150))
    yield "no boundary of a hundred", fill(b"--b\r\n", mime.replace(b"=x", b"=b0") + many, b"")
    text = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=%s\r\n" \
        b"Content-Transfer-Encoding: %s\r\n\r\n"
    for charset, encoding, piece in (
            (b"utf-8", b"8bit", b"\xff"), (b"iso-2022-jp", b"8bit", b"\x1b$B"), (b"gb18030", b"8bit", b"\x81"),
            (b"utf-7", b"7bit", b"+"), (b"utf-16", b"base64", b"2AA"), (b"big5", b"8bit", b"\xa4\x40"),
            (b"koi8-r", b"quoted-printable", b"=D0=\r\n"), (b"x", b"quoted-printable", b"="),
            (b"windows-1252", b"base64", b"gICA"), (b"", b"x-uuencode", b"begin 644 x\r\nM\r\n")):
        yield "%r %r" % (charset, encoding), fill(piece, text % (charset, encoding), b"\r\n")


@test
def evil_messages(db):
    """A worker decodes a mail in one go, so a bystander may wait for that; it is no longer than
    so many times a plain mail of that size takes, here and now."""
    size, plain = 9 * MB, None
    server = Server(db, GSMTP_CHECK_HEADER="1", GM_ALLOWED_HOSTS="test.example")
    text = b"To: b@test.example\r\n\r\n" + b"x" * 76 + b"\r\n"
    for name, mail in [("none", text * (size // len(text)))] + list(evil_mails(size)):
        what = "evil message, " + name
        by = Bystander(server)
        c = session(server.port, timeout=300)
        c.send(ENVELOPE)
        [c.reply() for _ in range(3)]
        c.send(mail.replace(b"\r\n.", b"\r\n.."))
        time.sleep(0.2)         # so that what is timed is not the way there
        watch = Stopwatch()
        c.send(b"\r\n.\r\n")
        code = c.reply()[0]
        took = watch.took()
        plain = plain or max(took, 0.01)
        same(what + ": taken", code, 250)
        ok(what + ": takes no longer than 100 plain ones", took <= 100 * plain, (took, plain))
        if "-v" in sys.argv:
            print("     %s: %d after %.2f s" % (what, code, took))
        c.close()
        by.end(what, max(0.0, took))
    db.empty()
    recovered("evil messages", server)
    server.stop()


@test
def noop_flood(db):
    server = Server(db)
    peak, by = Peak(server), Bystander(server)

    def one(i):
        with session(server.port) as c:
            watch, total, got = Stopwatch(), 0, b""
            while total <= 100000 and not watch.over(30):
                sent, got = push(c.sock, b"NOOP\r\n" * 4096, 10000, 3)
                total += sent
            return total, got[-28:]
    for sent, got in crowd(6, one):
        ok("NOOP flood: answered", sent > 100000 and b"250 2.0.0 OK\r\n" in got, (sent, got))
    by.end("NOOP flood")
    peak.end("NOOP flood", 8)
    recovered("NOOP flood", server)
    server.stop()


@test
def trickle(db):
    server = Server(db, GSMTP_TIMEOUT="2")
    by = Bystander(server)

    def one(i):
        first = Stopwatch()
        c = session(server.port)
        if i % 2:
            c.send(ENVELOPE)
            [c.reply() for _ in range(3)]
        watch = Stopwatch()
        try:
            while not watch.over(10) and not select.select([c.sock], [], [], 0.2)[0]:
                c.send(b"N")
        except OSError:
            pass
        code, text = c.reply()
        took = first.all(), watch.took()
        c.close()
        return code, text[:5], took
    for code, text, took in crowd(10, one):
        same("a trickle gets 421 4.4.2", (code, text), (421, "4.4.2"))
        ok("a trickle ends with GSMTP_TIMEOUT", 1.5 < took[0] and took[1] < 5, took)
    by.end("trickle")
    recovered("trickle", server)
    server.stop()


@test
def never_reading(db):
    server = Server(db, GSMTP_TIMEOUT="4", MAX_SMTP_CLIENTS="600", GSMTP_MAX_CLIENTS_PER_IP="500")
    peak, by = Peak(server), Bystander(server)
    socks = []
    for i in range(300):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", server.port))
        s.setblocking(False)
        socks.append(s)
    flood = b"EHLO x\r\n" + b"HELP\r\n" * 5000
    end, sent = time.monotonic() + 3, [0] * len(socks)
    while time.monotonic() < end:
        for i, s in enumerate(socks):
            try:
                sent[i] += s.send(flood)
            except OSError:
                pass
        time.sleep(0.05)
    ok("never reading: the server stops reading them", max(sent) < 20 * MB, max(sent))
    by.end("never reading")
    peak.end("never reading", 16)
    ok("never reading: cut off with GSMTP_TIMEOUT",
       wait(lambda: server.counters()["clients"] == "0", 12), server.counters())
    for s in socks:
        s.close()
    recovered("never reading", server)
    server.stop()


def reset(sock):
    """Closes with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@test
def half_open(db):
    server = Server(db, GSMTP_TIMEOUT="5", MAX_SMTP_CLIENTS="1500", GSMTP_MAX_CLIENTS_PER_IP="1400",
                    GSMTP_WORKERS="3")
    peak, by = Peak(server), Bystander(server)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
    same("1,000 silent connections are there", wait(
        lambda: int(server.counters()["connections"]) >= 1000, 5), True)
    random.seed(1)
    for n, s in enumerate(silent):
        try:
            s.sendall((b"", b"EH", b"EHLO x\r\n", b"EHLO x\r\n" + ENVELOPE,
                       b"EHLO x\r\n" + ENVELOPE + b"half a mail\r\n.",
                       b"EHLO x\r\n" + ENVELOPE + b"whole\r\n.\r\n")[n % 6])
        except OSError:
            pass
    for s in silent[:500]:
        reset(s)
    for _ in range(500):        # gone before they are accepted
        reset(socket.create_connection(("127.0.0.1", server.port)))
    by.end("half-open and reset")
    peak.end("half-open and reset", 30)
    ok("half-open: cut off with GSMTP_TIMEOUT",
       wait(lambda: server.counters()["clients"] == "0", 12), server.counters())
    for s in silent[500:]:
        s.close()
    recovered("half-open and reset", server)
    db.empty()
    server.stop()


@test
def not_smtp(db):
    db.empty()
    server = Server(db, GSMTP_TIMEOUT="3")
    by = Bystander(server)
    for verb in ("GET / HTTP/1.1", "POST /x HTTP/1.0", "HEAD / HTTP/1.1", "PUT / HTTP/1.1",
                 "OPTIONS * HTTP/1.1", "CONNECT mx:25 HTTP/1.1", "get / http/1.1"):
        c = Client(server.port)
        c.send(verb.encode() + b"\r\nHost: x\r\nContent-Length: 200\r\n\r\nEHLO x\r\n" + ENVELOPE +
               b"from a browser\r\n.\r\nQUIT\r\n")
        code = c.reply()[0]
        same(verb + " is cut off at once", [code, c.reply()[0]], [221, 0])
        c.close()
    hello = bytes.fromhex("16030100c2010000be0303") + bytes(range(184)) + b"\r\n" * 3
    random.seed(2)
    for name, octets in ([("TLS ClientHello", hello), ("SSH", b"SSH-2.0-x\r\n"), ("NULs", bytes(100000)),
                          ("SOCKS", b"\5\1\0"), ("SMB", b"\0\0\0\x85\xffSMBr"), ("LFs", b"\n" * 100000)] +
                         [("noise %d" % n, random.randbytes(n * 9999)) for n in range(1, 12)]):
        with Client(server.port) as c:
            push(c.sock, octets, 1, 5)
            ok(name + ": the session ends", c.ended(8))
    c = Client(server.port, greet=False)
    c.send(b"EHLO early\r\n" + ENVELOPE + b"talker\r\n.\r\nQUIT\r\n")
    same("an early talker is answered in order", [c.reply()[0] for _ in range(7)],
         [220, 250, 250, 250, 354, 250, 221])
    c.close()
    by.end("not SMTP")
    same("nothing is stored but the early talker's", db.count("subject <> 'bystander'"), 1)
    db.empty()
    recovered("not SMTP", server)
    server.stop()


def banners(socks, greeted=None, seconds=2):
    """The code each has been greeted with after a while, and when as many are; None: it waits."""
    time.sleep(seconds)
    wait(lambda: len(select.select(socks, [], [], 0)[0]) >= (greeted or 0))
    codes = []
    for s in socks:
        s.setblocking(False)
        try:
            codes.append(int(s.recv(100)[:3] or 0))
        except BlockingIOError:
            codes.append(None)
        except (OSError, ValueError):
            codes.append(0)
    return codes


@test
def floods(db):
    server = Server(db, MAX_SMTP_CLIENTS="60", GSMTP_MAX_CLIENTS_PER_IP="50")
    socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    codes = banners(socks, 50)
    same("GSMTP_MAX_CLIENTS_PER_IP are greeted", codes.count(220), 50)
    ok("the others get 421 or wait", set(codes) <= {220, 421, None}, set(codes))
    by = Bystander(server)
    time.sleep(1)
    by.end("a flood from one address")
    others = [socket.create_connection(("127.0.0.1", server.port), 5, ("127.0.0.%d" % (20 + n // 5), 0))
              for n in range(100)]
    codes = banners(others)
    ok("MAX_SMTP_CLIENTS are greeted, all workers together", codes.count(220) <= 10, codes.count(220))
    ok("more of them get 421 or wait", set(codes) <= {220, 421, None}, set(codes))
    for s in socks + others:
        s.close()
    recovered("floods", server)
    server.stop()


@test
def few_descriptors(db):
    wrapper = os.path.join(DIR, "few")
    for n in 64, 26, 20:
        with open(wrapper, "w") as f:
            f.write("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n" % (n, os.path.join(ROOT, BINARY)))
        os.chmod(wrapper, 0o755)
        if n == 20:
            err = os.path.join(DIR, "few.err")
            if os.path.exists(err):
                os.unlink(err)
            p = start([wrapper, "-p", "2999"], err, env=dict(os.environ, **server.config))
            same("ulimit -n 20 is too few: exit 1", p.wait(60), 1)
            with open(err) as f:
                said = f.read()
            ok("ulimit -n 20 is too few: one line that names it",
               said.count("\n") == 1 and "ulimit -n" in said, said)
            return
        server = Server(db, binary=wrapper, MAX_SMTP_CLIENTS="1000", GSMTP_TIMEOUT="4",
                        GSMTP_MAX_CLIENTS_PER_IP="1000")
        ok("ulimit -n %d: said in the log" % n, server.logged("ulimit -n is %d" % n), server.log())
        socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
        codes = banners(socks, 1)
        ok("ulimit -n %d: some are greeted, the others wait" % n,
           1 <= codes.count(220) <= 2 * n and set(codes) <= {220, 421, None}, set(codes))
        before = sum(map(cpu, server.workers()))
        began = time.monotonic()
        time.sleep(1)
        slept = time.monotonic() - began
        busy = sum(map(cpu, server.workers())) - before
        ok("ulimit -n %d: nobody spins meanwhile" % n, busy < 0.3 * slept, (busy, slept))
        for s in socks:
            s.close()
        recovered("ulimit -n %d" % n, server, 15)
        server.stop()


def big_mail(server, size, rcpts=1, timeout=300):
    """One large mail; the code that decides."""
    try:
        c = session(server.port, timeout=timeout)
        c.send(b"MAIL FROM:<a@client.example>\r\n" +
               b"".join(b"RCPT TO:<b%d@test.example>\r\n" % n for n in range(rcpts)) + b"DATA\r\n")
        codes = [c.reply()[0] for _ in range(rcpts + 2)]
        if codes[-1] != 354:
            c.close()
            return next(code for code in codes if code >= 400)
        line = b"'\\" * 38 + b"\r\n"             # the worst there is to escape
        c.send(line * (size // len(line)) + b".\r\n")
        code = c.reply()[0]
        c.close()
        return code
    except (OSError, RuntimeError) as e:
        return repr(e)


@test
def five_thousand(db):
    """Held open, more than one select() can watch: each is greeted, mail goes on beside them."""
    n, config = 5000, {"MAX_SMTP_CLIENTS": "7000", "GSMTP_MAX_CLIENTS_PER_IP": "7000", "GSMTP_TIMEOUT": "600"}
    server = Server(db, **config)
    server.config["GSMTP_WORKERS"] = server.counters()["workers"]
    by, before, held = Bystander(server), together(server), []
    for i in range(n):
        held.append(socket.create_connection(("127.0.0.1", server.port), 60, ("127.0.1.%d" % (i % 250 + 1), 0)))
    greeted = sum(s.recv(512).startswith(b"220 ") for s in held)
    same("5,000 connections: all are greeted", greeted, n)
    for s in held:
        s.sendall(b"NOOP\r\n")
    same("5,000 connections: all are answered", sum(s.recv(512).startswith(b"250 ") for s in held), n)
    each = (together(server) - before) * 1024 / n
    ok("5,000 connections: at most 4 KB for each", each <= 4, "%.2f KB" % each)
    if "-v" in sys.argv:
        print("     5,000 connections: %.2f KB each, %s workers" % (each, server.config["GSMTP_WORKERS"]))
    c = session(server.port)
    codes = [c.command(line)[0] for _ in range(200) for line in
             (b"MAIL FROM:<a@client.example>", b"RCPT TO:<b@test.example>", b"DATA",
              b"To: b@test.example\r\nSubject: beside\r\n\r\nx\r\n.")]
    same("5,000 connections: 200 mails beside them", codes, [250, 250, 354, 250] * 200)
    same("5,000 connections: and their rows", db.count("subject='beside'"), 200)
    same("5,000 connections: counted", int(server.counters()["clients"]) // 10 * 10, n)
    c.close()
    by.end("5,000 connections")
    for s in held:
        s.close()
    recovered("5,000 connections", server)
    server.stop()
    db.empty()


@test
def max_memory(db):
    bound = 64
    server = Server(db, GSMTP_MAX_MEMORY=str(bound * MB))
    peak, by = Peak(server), Bystander(server, mails=False)
    codes = crowd(40, lambda i: big_mail(server, 9 * MB))
    ok("memory: some mails are taken, the others get 452", set(codes) == {250, 452}, codes)
    by.end("memory")
    peak.end("memory", 2 * bound + 60)
    recovered("memory", server)
    server.stop()
    db.empty()
    server = Server(db, GSMTP_MAX_MEMORY=str(bound * MB), MYSQL_TIMEOUT="6")
    # The same while nothing can be stored: what waits for the database counts too.
    lock = db.hold("LOCK TABLES new_mail WRITE;")
    peak, by = Peak(server), Bystander(server, mails=False)
    codes = crowd(40, lambda i: big_mail(server, (9 * MB, MB // 2, 20000)[i % 3], (1, 100, 100)[i % 3]))
    ok("memory, the table locked: 451 and 452, nothing else", set(codes) == {451, 452}, codes)
    by.end("memory, the table locked")
    peak.end("memory, the table locked", 2 * bound + 60)
    db.release(lock)
    recovered("memory, the table locked", server, 15)
    wait(lambda: together(server) < 40, 5)
    ok("memory: given back", together(server) < 60, together(server))
    server.stop()


def main():
    limit = max(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    run_tests(Database())


if __name__ == "__main__":
    main()
