#!/usr/bin/env python3
"""Where two mechanisms meet: input and TLS, memory and the database, generations and limits, the
check and the workers, the log and who reads it.

Each situation was found by a hostile reading, with a real server, database and signals, and is
tested here in several forms. Arguments choose the tests whose names contain one of them. Tests
run side by side, those that measure time or load run alone.
"""
import contextlib
import ctypes
import fcntl
import os
import pty
import queue
import re
import resource
import select
import selectors
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tty

sys.dont_write_bytecode = True
from live import (DIR, ROOT, SLOW, Client, Database, Server, Stopwatch, build, certificate, children,
                  chosen, cpu, deliver, deliver_once, done, gone, listening, memory, ok, port, run,
                  run_test, same, secure, session, smtpd, start, started, starttls, stop, test, tests,
                  wait)

MB = 1000000
PROGRAM = 10 * MB       # what a worker takes without a mail: text, libraries, its buffers


def alone(f):
    f.alone = True
    return test(f)


class Table(Database):
    """A database of its own for each test, in the MariaDB that is there."""

    def __init__(self, server, name):
        self.socket, self.name = server.socket, "%s_%s" % (server.name, name)
        self.sql("CREATE DATABASE " + self.name, "mysql")
        with open(os.path.join(ROOT, "schema.sql"), "rb") as f:
            self.client(self.name, f.read())

    def drop(self):
        self.sql("DROP DATABASE " + self.name, "mysql")

    @contextlib.contextmanager
    def hung(self, end=""):
        """No INSERT is answered meanwhile; end: a statement after which none succeeds."""
        p = self.hold("LOCK TABLES new_mail WRITE;")
        try:
            yield
        finally:
            self.release(p, end)


class Odd(Server):
    """A server started in an odd way: by a program before it, with other files as 1 and 2."""

    def __init__(self, db, under=(), options=None, out=None, err=None, **config):
        self.under, self.options, self.out, self.err = list(under), options, out, err
        super().__init__(db, **config)

    def launch(self):
        options = ["-l", self.log_file] if self.options is None else self.options
        argv = self.under + [self.binary, "-c", self.file] + options
        if self.out is None and self.err is None:
            self.process = start(argv, self.log_file[:-3] + "err", self.log_file[:-3] + "out",
                                 cwd=DIR)
            return
        start_log = open(self.log_file[:-3] + "err", "ab")
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=start_log if self.out is None else self.out,
            stderr=start_log if self.err is None else self.err, cwd=DIR)
        started.append(self.process)
        start_log.close()

    def workers(self):
        return super().workers() if self.options is None else children(self.process.pid)


def pump(clients, octets, seconds=20, until=None):
    """Sends octets to each and reads all that comes, until until(answers): answers by client."""
    answers = {c: bytearray(c.buffer) for c in clients}
    rest = {c: memoryview(octets) for c in clients}
    end = time.monotonic() + seconds * SLOW
    with selectors.DefaultSelector() as s:
        for c in clients:
            c.buffer = b""
            c.sock.setblocking(False)
            s.register(c.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if octets else 0), c)
        while time.monotonic() < end and s.get_map() and not (until and until(answers)):
            for key, event in s.select(0.2):
                c = key.data
                try:
                    if event & selectors.EVENT_WRITE:
                        rest[c] = rest[c][c.sock.send(rest[c][:65536]):]
                        if not rest[c]:
                            s.modify(c.sock, selectors.EVENT_READ, c)
                    if event & selectors.EVENT_READ:
                        got = c.sock.recv(65536)
                        answers[c] += got
                        if not got:
                            s.unregister(c.sock)
                except BlockingIOError:
                    pass
                except OSError:
                    s.unregister(c.sock)
    for c in clients:
        c.sock.settimeout(10)
    return answers


def in_data(server, count, **more):
    return [session(server.port, "MAIL FROM:<a@b.example>", "RCPT TO:<b@test.example>", "DATA",
                    **more) for _ in range(count)]


def safe(f):
    try:
        return f()
    except (OSError, RuntimeError) as e:
        return repr(e)


def close(clients):
    for c in clients:
        c.close()


def with_tls(db, **config):
    return Server(db, binary=tls_binary, GSMTP_TLS_CERT=CERT, GSMTP_TLS_KEY=KEY, **config)


# -- 1: what is read in the clear behind STARTTLS

INJECTED = (b"EHLO e\r\nMAIL FROM:<e@e>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nSubject: e\r\n")


def injected(what, c, octets, may_fail=False):
    """Sends octets that hold STARTTLS and more, then looks whether the more has run."""
    sender = threading.Thread(target=safe, args=(lambda: c.send(octets),))
    sender.start()
    code = text = None
    while code != 0 and not (code == 220 and "TLS" in text):
        code, text = c.reply()
    sender.join()
    if code == 0 and may_fail:          # cut off: nothing has run
        return ok(what + ": it ends", c.ended())
    same(what + ": STARTTLS is answered", code, 220)
    same(what + ": and nothing behind it", c.buffer, b"")
    try:
        secure(c)
        replies = [c.command(line) for line in ("NOOP", "MAIL FROM:<v@v.example>", "XYZZY",
                                                "EHLO victim.example")]
    except OSError as e:
        return ok(what + ": the handshake", may_fail, e)
    return ok(what + ": the session is a new one", [r[0] for r in replies] == [250, 503, 500, 250]
              and replies[3][1].startswith("mx.test.example Hello victim.example"), replies)


@test
def t01_starttls_with_full_output(db):
    server = with_tls(db, GSMTP_WORKERS="1")
    c = Client(server.port)
    before = len(c.buffer)
    c.send(b"EHLO a\r\nNOOP\r\n")
    text = b""
    while not text.endswith(b"OK\r\n"):
        text += c.sock.recv(65536)
    c.close()
    ehlo = len(text) - len(b"250 2.0.0 OK\r\n") + before
    fills = {(n, 0) for n in range(1, 44, 3)}
    for size in range(8192 - 70, 8192 + 40, 12):        # where an output of 8 kB is full
        n = size // ehlo
        fills.add((n, (size - n * ehlo) // 14))
    victims = 0
    for n, noops in sorted(fills):
        octets = b"EHLO a\r\n" * n + b"NOOP\r\n" * noops + b"STARTTLS\r\n" + INJECTED
        if len(octets) > 512:
            continue
        c = Client(server.port, timeout=3)
        if injected("%d EHLO, %d NOOP" % (n, noops), c, octets):
            code, text = deliver(c, b"Subject: victim\r\n\r\nv\r\n", sender="v@v.example")
            victims += same("its mail is taken", code, 250)
        c.close()
    rows = db.mails()
    same("each mail is the victim's alone", {(r["from"], r["mail"]) for r in rows},
         {(b"v@v.example", b"Subject: victim\r\n\r\nv\r\n")})
    same("and there", len(rows), victims)
    server.stop()


@test
def t01_starttls_behind_unread_replies(db):
    """The client reads nothing until all is sent: the 220 waits in the server, or what follows."""
    server = with_tls(db, GSMTP_WORKERS="1")
    for n in (1, 80, 81, 200, 1000, 5000, 20000, 20001, 20037, 60000, 60011):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        c = Client(server.port, sock=sock, timeout=3)
        octets = b"EHLO x\r\n" + b"HELP\r\n" * n + b"STARTTLS\r\n" + INJECTED * 3
        sender = threading.Thread(target=safe, args=(lambda: c.send(octets),))
        sender.start()
        sender.join(0.3)
        injected("%d HELP unread" % n, c, b"", may_fail=True)
        c.close()
        sender.join()
    same("nothing stored", db.count(), 0)
    server.stop()


@test
def t01_starttls_behind_a_mail(db):
    server = with_tls(db)
    mail = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n"
    bdat = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n"
    for what, before in (("behind a dot", mail), ("behind BDAT", bdat),
                         ("behind two mails", mail + bdat), ("behind the dot and commands",
                                                             mail + b"NOOP\r\n" * 40)):
        for slow in False, True:
            db.empty()
            c = session(server.port, timeout=15)
            if slow:
                with db.hung():
                    sender = threading.Thread(target=injected, args=(
                        what + ", slow", c, before + b"STARTTLS\r\n" + INJECTED))
                    sender.start()
                    time.sleep(0.3)
                sender.join()
            else:
                injected(what, c, before + b"STARTTLS\r\n" + INJECTED)
            c.close()
            same(what + ": what came before is stored", db.count(), 2 if "two" in what else 1)
            same(what + ": and it alone", {r["from"] for r in db.mails()}, {b"a@b.example"})
    server.stop()


# -- 2: many commands behind a dot

def greeted(server, count):
    return [session(server.port) for _ in range(count)]


def longest_wait(server, begin, octets, hung=None, count=200):
    """What a NOOP waits at most while many others, in a process of their own, send octets at once;
    hung: their mails are answered only when all of it is there."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            clients = begin(server, count)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            replies = octets.count(b"NOOP") + (begin is not greeted)
            answers = pump(clients, octets, 30, lambda a: all(
                v.count(b"\n") >= replies for v in a.values()))
            status = 0 if all(v.count(b"250 2.0.0 O") == replies for v in answers.values()) else 2
        finally:
            os._exit(status)
    os.close(ready[1])
    os.read(ready[0], 1)
    c = session(server.port)
    waits, end = [], 0
    with hung or contextlib.nullcontext():
        os.write(go[1], b"x")
        time.sleep(1.5 if hung else 0)
    while not end:
        began = time.monotonic()
        c.command("NOOP")
        waits.append(time.monotonic() - began)
        end, status = os.waitpid(pid, os.WNOHANG)
    c.close()
    for fd in ready[0], go[0], go[1]:
        os.close(fd)
    same("every command of the others is answered", status, 0)
    return max(waits)


@alone
def t02_commands_behind_the_dot(db):
    server = Server(db, GSMTP_WORKERS="1")
    mail = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\n"
    commands = b"NOOP\r\n" * 10000

    def in_chunk(server, count):
        clients = [session(server.port) for _ in range(count)]
        for c in clients:
            c.send(mail)
        for c in clients:
            c.reply(), c.reply(), c.send(b"BDAT 3 LAST\r\n")
        return clients

    usual = [longest_wait(server, greeted, commands) for _ in range(2)]
    for what, begin, first in (("a dot", in_data, b"x\r\n.\r\n"),
                               ("BDAT LAST", in_chunk, b"x\r\n")):
        waits, most = [], 2 * max(usual) + 0.01
        while len(waits) < 6 and min(waits, default=most) >= most:     # a busy disk may be slow
            waits.append(longest_wait(server, begin, first + commands, db.hung()))
        ok("200 times 60 kB of commands behind %s: others wait as where they come alone" % what,
           min(waits) < most, (waits, usual))
    server.stop()


# -- 3, 4: memory

@test
def t03_input_kept_for_later(db):
    server = Server(db, GSMTP_WORKERS="1", GSMTP_MAX_MEMORY="1000000")
    pid, = server.workers()
    behind = b"NOOP\r\n" * 12500
    clients = in_data(server, 300)
    before = memory(pid)
    with db.hung():
        answers = pump(clients, b"x\r\n.\r\n" + behind, 3)
        grown = memory(pid, "VmHWM") - before
    ok("300 mails of three octets with 75 kB behind each: 1 MB and 10 %, and 5 MB of tables",
       grown < 1.1 * MB + 5 * MB, grown)
    for c, got in answers.items():
        c.buffer = bytes(got)
    rest = pump(clients, b"", 30, lambda a: all(v.count(b"\n") > 12500 for v in a.values()))
    same("all that is behind is run", {v.count(b"\n") for v in rest.values()}, {12501})
    first = [int(v[:3]) for v in rest.values()]
    ok("the mails: 250 or 452", set(first) <= {250, 452} and 250 in first, set(first))
    same("a row for each 250", db.count(), first.count(250))
    close(clients)
    server.stop()


def bodies(size):
    """Kinds of mails, by what their body becomes in UTF-8."""
    head = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\n\r\n"
    for charset, line in ((b"tscii", b"\xaa\x82\x87\xb5" * 19 + b"\r\n"),
                          (b"windows-1252", b"\x80\x85\x95\xe4" * 19 + b"\r\n"),
                          (b"utf-8", b"x" * 76 + b"\r\n")):
        yield charset.decode(), head % charset + line * (size // 78)


def hold(db, what, server, mails, limit, end="", code=250):
    """Mails that arrive while the database hangs: what the workers hold of them, at most."""
    pids = server.workers()
    clients = in_data(server, len(mails))
    together, over = [0], threading.Event()     # the most of one has been given back as another grows

    def look():
        while not over.wait(0.005):
            together[0] = max(together[0], sum(memory(p) for p in pids))
    looking = threading.Thread(target=look)
    looking.start()
    with db.hung(end):
        threads = [threading.Thread(target=c.send, args=(m + b".\r\n",))
                   for c, m in zip(clients, mails)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        time.sleep(1)
        server.process.send_signal(signal.SIGUSR1)
        held = server.logged("counters")
    answers = pump(clients, b"", 60, lambda a: all(a.values()))
    codes = [int(answers[c][:3] or 0) for c in clients]
    over.set()
    looking.join()
    most = together[0] if len(pids) > 1 else memory(pids[0], "VmHWM")
    ok("%s: held within the limit, 10 %% and %d MB a process" % (what, PROGRAM / MB),
       most < 1.1 * limit + len(pids) * PROGRAM, (most, held))
    ok(what + ": %d or 452" % code, set(codes) <= {code, 452} and code in codes, codes)
    if code == 250:
        same(what + ": a row for each 250", db.count(), codes.count(250))
    ok(what + ": given back", wait(lambda: all(memory(p) < 10 * MB for p in pids), 2 * SLOW),
       [memory(p) for p in pids])
    ok(what + ": held=0", wait(lambda: held_now(server) == 0, 3), held_now(server))
    close(clients)
    return codes


def held_now(server, what="held"):
    before = server.log().count("counters")
    server.process.send_signal(signal.SIGUSR1)
    wait(lambda: server.log().count("counters") > before, 3)
    found = re.findall(r"counters .*\b%s=(\d+)" % what, server.log())
    return int(found[-1]) if found else None


@alone
def t04_bodies_and_the_queue(db):
    for count in 1, 2:
        for charset, mail in list(bodies(MB))[:4 - count]:
            server = Server(db, GSMTP_WORKERS=str(count), GSMTP_MAX_MEMORY=str(16 * MB))
            what = "15 mails of 1 MB, %s, %d workers" % (charset, count)
            hold(db, what, server, [mail] * 15, 16 * MB)
            server.stop()
            db.empty()


@alone
def t04_large_mails_under_the_default(db):
    kinds = [mail for _, mail in bodies(8 * MB)]
    server = Server(db, GSMTP_WORKERS="2")
    hold(db, "20 mails of 8 MB", server, [kinds[i % 3] for i in range(20)], 268435456,
         "DROP TABLE new_mail;", 451)   # half a gigabyte of rows would take minutes
    server.stop()


@alone
def t04_large_mails_that_are_stored_at_once(db):
    server = Server(db, GSMTP_WORKERS="1", GSMTP_MAX_MEMORY=str(64 * MB))
    pid, = server.workers()
    mail = next(bodies(8 * MB))[1]
    clients = in_data(server, 6)
    answers = pump(clients, mail + b".\r\n", 60, lambda a: all(a.values()))
    codes = [int(v[:3] or 0) for v in answers.values()]
    ok("stored, or to come again", set(codes) <= {250, 452} and 250 in codes, codes)
    most = memory(pid, "VmHWM")
    ok("held within the limit, 10 %% and %d MB" % (PROGRAM / MB), most < 1.1 * 64 * MB + PROGRAM, most)
    ok("given back", wait(lambda: memory(pid) < 10 * MB, 2 * SLOW), memory(pid))
    same("a row for each 250", db.count(), codes.count(250))
    close(clients)
    server.stop()


@test
def t04_a_message_in_chunks_has_its_time(db):
    """What is between its chunks does not keep it in memory, be it NOOP or a chunk of one octet."""
    server = Server(db, GSMTP_TIMEOUT="3")
    for say in ("NOOP", "BDAT 3\r\nx"):
        c = session(server.port)
        for line in ("MAIL FROM:<a@test.example>", "RCPT TO:<b@test.example>", "BDAT 5\r\nabc"):
            same(line.split()[0], c.command(line)[0], 250)
        began = time.monotonic()
        last = (250, "")
        while last[0] == 250 and time.monotonic() - began < 12 * SLOW:
            time.sleep(0.3)
            last = c.command(say)
        took = time.monotonic() - began
        ok(say[:4] + ": 421 after GSMTP_TIMEOUT", last[0] == 421 and 2 < took < 3 + 3 * SLOW, (last, took))
    c = session(server.port)
    for line in ("MAIL FROM:<a@test.example>", "RCPT TO:<b@test.example>", "BDAT 5\r\nabc"):
        c.command(line)
    time.sleep(2)
    same("RSET gives a session its time again", c.command("RSET")[0], 250)
    time.sleep(2)
    same("which it has", c.command("NOOP")[0], 250)
    server.stop()


@test
def t04_slow_messages_while_memory_is_short(db):
    """Messages that do not go on: they stay while there is memory, and go while most is in use."""
    server = Server(db, GSMTP_TIMEOUT="1", GSMTP_MAX_MEMORY="1000000")

    def begin():
        c = session(server.port)
        for line in ("MAIL FROM:<a@test.example>", "RCPT TO:<b@test.example>", "DATA"):
            c.command(line)
        c.send(b"Subject: slow\r\n" * 2600)        # 39,000 octets
        return c

    first, clients = begin(), []
    time.sleep(5)
    ok("one that has 1 + 78 s is there after 5", not select.select([first.sock], [], [], 0)[0])
    clients = [begin() for _ in range(20)]
    ok("memory is short", wait(lambda: int(server.counters()["held"]) > 750000, 5))
    ok("not for long: 1 + 4 s", wait(lambda: int(server.counters()["held"]) <= 750000, 6 + 3 * SLOW))
    ready = select.select([c.sock for c in clients + [first]], [], [], 0)[0]
    cut_off = [c for c in clients + [first] if c.sock in ready]
    same("who was too slow has 421", {safe(lambda c=c: c.reply()[0]) for c in cut_off}, {421})
    close(clients + [first])
    server.stop()


# -- 5: a body that grows

@test
def t05_bodies_that_grow_most(db):
    server = Server(db, GSMTP_MAX_ERRORS="1000")
    c = session(server.port)
    wanted = []
    for charset, octets in [("TSCII", bytes([i])) for i in range(0x80, 256)] + [
            ("BIG5-HKSCS", b"\x88\x62"), ("BIG5-HKSCS", b"\x88\xa5"), ("EUC-JISX0213", b"\xab\xc4"),
            ("windows-1258", b"\xd2"), ("TCVN5712-1", b"\x01"), ("MAC-CENTRALEUROPE", b"\x80"),
            ("UTF-7", b"+AAAAAAA-"), ("ARMSCII-8", b"\xfe")]:
        for n in (1, 3, 600):           # 12 octets of one: the buffer of glibc 2.41's iconv(1)
            body = octets * n           # has 8 KB, and TSCII's next character is wrong there
            code, text = run(["iconv", "-f", charset, "-t", "UTF-8"], body)
            if code == 0:
                mail = (b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\n\r\n"
                        % charset.encode())
                wanted.append((charset, octets, n, text.encode() + b"\r\n"))
                same("taken", deliver(c, mail + body + b"\r\n")[0], 250)
    rows = db.mails()
    ok("iconv knows TSCII", len(wanted) > 300, len(wanted))
    for (charset, octets, n, text), row in zip(wanted, rows):
        same("%s: %r times %d" % (charset, octets, n), (len(row["body"]), row["body"]),
             (len(text), text))
    c.close()
    server.stop()


# -- 6: the size that EHLO announces

def announced(c):
    return int(re.search(r"^SIZE (\d+)$", c.command("EHLO client.example")[1], re.M).group(1))


@alone
def t06_the_announced_size(db):
    before = db.sql("SELECT @@global.max_allowed_packet").decode().strip()
    try:
        for packet, size in ((1048576, 10485760), (4194304, 10485760), (1048576, 1048000),
                             (4194304, 100000)):
            db.sql("SET GLOBAL max_allowed_packet=%d" % packet)
            server = Server(db, GSMTP_MAX_SIZE=str(size), GSMTP_WORKERS="1", GM_ALLOWED_HOSTS="*",
                            GSMTP_MAX_RCPT="200")
            what = "packet %d, GSMTP_MAX_SIZE %d" % (packet, size)
            deliver_once(server)        # its connections are there
            db.empty()
            c = session(server.port, timeout=30)
            most = announced(c)
            ok(what + ": most of it", most > min(packet, size) * 0.9, most)
            local = "b" * 60
            domain = ".".join(["d" * 60] * 3)
            long = "%s@%s" % (local, domain)
            for kind, fill, sender, to in (
                    ("x", b"x", "a@b.example", ["b@test.example"]),
                    ("quotes", b"'", "a@b.example", ["b@test.example"]),
                    ("zeros", b"\0", long, [long]),
                    ("long addresses", b"\\", long, ["%d%s" % (i, long[2:]) for i in range(3)])):
                head = b"Subject: %s\r\n\r\n" % kind.encode()
                mail = head + fill * (most - len(head) - 2) + b"\r\n"
                same("%s, %s: exactly so much" % (what, kind), deliver(c, mail, to, sender)[0], 250)
                db.sql("SET GLOBAL max_allowed_packet=" + before)       # TO_BASE64() needs it
                rows = db.mails()
                db.sql("SET GLOBAL max_allowed_packet=%d" % packet)
                ok("%s, %s: and whole" % (what, kind), [r["mail"] == mail for r in rows] ==
                   [True] * len(to), len(rows))
                db.empty()
                code, text = deliver(c, b"x" + mail, to, sender)
                ok("%s, %s: one more: 552 with that number" % (what, kind),
                   code == 552 and re.search(r"\b%d\b" % most, text), (code, text))
            same(what + ": SIZE=", c.command("MAIL FROM:<a@b.example> SIZE=%d" % most)[0], 250)
            c.command("RSET")
            code, text = c.command("MAIL FROM:<a@b.example> SIZE=%d" % (most + 1))
            ok(what + ": SIZE= one more", code == 552 and re.search(r"\b%d\b" % most, text),
               (code, text))
            for extra, want in ((0, 250), (1, 552)):
                c.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nBDAT %d LAST\r\n"
                       % (most + extra) + b"y" * (most + extra))
                code, text = [c.reply() for _ in range(3)][-1]
                same("%s: BDAT and %d" % (what, extra), code, want)
                if want == 552:
                    ok(what + ": BDAT: that number", re.search(r"\b%d\b" % most, text), text)
            same(what + ": nothing but the BDAT", db.count(), 1)
            c.close()
            server.stop()
            db.empty()
    finally:
        db.sql("SET GLOBAL max_allowed_packet=" + before)


# -- 7: the end of TLS

@test
def t07_close_notify(db):
    server = with_tls(db, GSMTP_TIMEOUT="2", GSMTP_MAX_ERRORS="3")
    data = [b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n"]
    waiting = []
    for what, lines, want in (
            ("QUIT", [b"QUIT\r\n"], 221), ("HTTP", [b"GET / HTTP/1.1\r\n"], 221),
            ("too many errors", [b"XYZZY\r\n"] * 4, 421), ("BDAT", [b"EHLO x\r\n", b"BDAT x\r\n"], 421),
            ("idle", [], 421), ("idle after EHLO", [b"EHLO x\r\n"], 421),
            ("idle in DATA", [b"EHLO x\r\n"] + data, 421)):
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            c = session(server.port)
            c.command("STARTTLS")
            secure(c, version, suppress_ragged_eofs=False)
            for line in lines:
                c.send(line)
            waiting.append((what + " " + version.name, c, want))
    for what, c, want in waiting:
        notified(what, c, want)
    held = [starttls(server.port, suppress_ragged_eofs=False) for _ in range(5)]
    held[0].command("EHLO client.example")
    server.process.send_signal(signal.SIGTERM)
    for c in held:
        notified("TERM", c, 421)
    server.stop()


def notified(what, c, want):
    """The session ends with that reply and with TLS's own goodbye."""
    code = -1
    while code not in (0, want):
        code = c.reply()[0]
    same(what + ": the last reply", code, want)
    try:
        same(what + ": close_notify", c.sock.recv(1), b"")
    except (ssl.SSLError, OSError) as e:
        ok(what + ": close_notify", False, e)
    c.close()


# -- 8, 9: what is said, and what is taken

@test
def t08_replies_are_printable_ascii(db):
    server = Server(db, GSMTP_MAX_ERRORS="10000")
    c = session(server.port)
    strange = [bytes([i]) * 3 for i in range(0x80, 0x100)] + [
        "\u0085 \u009b31m \u2028 \u202e".encode(), "bücher.example".encode(), "日本.example".encode(),
        b"\xff\xfe", b"a" * 300 + b"\xe2\x82"]
    lines = (b"HELO %s", b"EHLO %s", b"MAIL FROM:<a@b.example> X=%s", b"MAIL FROM:<%s>",
             b"MAIL FROM:<%s@b.example> SMTPUTF8", b"RSET", b"%s", b"NOOP %s", b"VRFY %s",
             b"HELP %s", b"STARTTLS %s", b"RSET", b"MAIL FROM:<a@b.example>",
             b"RCPT TO:<b@test.example> X=%s", b"RCPT TO:<%s@test.example>", b"RCPT TO:<a@%s>",
             b"DATA %s", b"RSET")
    bad = {line: [] for line in lines}
    for text in strange:
        for line in lines:
            c.send((line % text if b"%s" in line else line) + b"\r\n")
            got = [c.line()]
            while got[-1][3:4] == b"-":
                got.append(c.line())
            bad[line] += [g for g in got if re.search(rb"[^ -~]", g) or len(g) > 510]
    for line in lines:
        same("replies to %s" % line.decode(), bad[line], [])
    same("the session goes on", c.command("NOOP")[0], 250)
    c.close()
    server.stop()


@test
def t09_auth_and_a_last_dot(db):
    server = Server(db, GSMTP_MAX_ERRORS="1000", GM_ALLOWED_HOSTS="test.example,*.sub.example")
    c = session(server.port)
    for params in ("AUTH=<>", "auth=<>", "AUTH=a@b.example", "AUTH=e+3Dmc2@example.com",
                   "SIZE=100 AUTH=<>", "AUTH=<> SIZE=100 BODY=8BITMIME", "BODY=8BITMIME AUTH=<>"):
        for sender in ("<>", "<a@b.example>"):
            code, text = c.command("MAIL FROM:%s %s" % (sender, params))
            same("MAIL FROM:%s %s" % (sender, params), code, 250)
            c.command("RSET")
    same("AUTHX= is none", c.command("MAIL FROM:<> AUTHX=<>")[0], 555)
    for given, kept in (("b@test.example.", "b@test.example"), ("B@Test.Example.", "b@test.example"),
                        ("b@x.sub.example.", "b@x.sub.example"),
                        ("a..b@test.example", "a..b@test.example"),
                        (".a@test.example", ".a@test.example"),
                        ("a.@test.example", "a.@test.example"),
                        ("a.@test.example.", "a.@test.example"),
                        ("postmaster@test.example.", "postmaster@test.example")):
        c.command("RSET")
        code, text = deliver(c, b"Subject: x\r\n\r\n", [given])
        same("RCPT TO:<%s>" % given, code, 250)
        rows = db.mails()
        same("RCPT TO:<%s>: recipient, to" % given, [(r["recipient"], r["to"]) for r in rows],
             [(kept.encode(), kept.encode())])
        if rows and b"for <" in rows[0]["trace"]:
            ok("RCPT TO:<%s>: Received" % given, b"@test.example.>" not in rows[0]["trace"].lower(),
               rows[0]["trace"])
        db.empty()
    c.command("RSET")
    c.command("MAIL FROM:<>")
    for refused in ("b@test.example..", "b@.", "b@other.example.", "b@test.example.x"):
        code, text = c.command("RCPT TO:<%s>" % refused)
        ok("RCPT TO:<%s>" % refused, code // 10 == 55 or code == 501, (code, text))
    c.close()
    server.stop()


# -- 10: generations

def worker_of(server, c):
    """The process that serves a client: it logs the client's words in a verbose log."""
    word = "W%x" % time.monotonic_ns()
    c.command("NOOP " + word)
    line = server.logged("command NOOP " + word)
    return int(line.split()[1]) if line else None


@test
def t10_restart_and_hup(db):
    """A worker that waits for its restart when HUP comes is not born beside the new ones."""
    for deaths in 1, 2:
        server = Server(db, GSMTP_WORKERS="2", GSMTP_MAX_RCPT="1")
        for n in range(deaths):         # each is longer than the one before
            wait(lambda: len(server.workers()) == 2)
            os.kill(server.workers()[0], signal.SIGKILL)
            ok("it waits", wait(lambda: server.log().count("worker-died") > n))
        server.config["GSMTP_MAX_RCPT"] = "2"
        server.write()
        server.hup()
        server.logged("reload")
        wait(lambda: False, 2.5 * deaths)
        same("after %d deaths and HUP: two workers" % deaths, len(server.workers()), 2)
        two = ("b@test.example", "c@test.example")
        same("all know the new limit", {deliver_once(server, to=two) for _ in range(10)}, {250})
        server.stop()


@test
def t10_limits_over_generations(db):
    server = Server(db, MAX_SMTP_CLIENTS="8", GSMTP_MAX_CLIENTS_PER_IP="8")
    held = [session(server.port, source="127.0.0.%d" % (2 + i)) for i in range(8)]
    before = server.workers()
    server.hup()
    wait(lambda: set(server.workers()) - set(before))
    time.sleep(0.5 * SLOW)
    c = Client(server.port, timeout=1)
    ok("MAX_SMTP_CLIENTS: a ninth gets 421, or waits", c.banner[0] in (0, 421), c.banner)
    c.close()
    close(held[:4])
    ok("and room is room", wait(lambda: deliver_once(server) == 250, 5))
    close(held)
    server.stop()
    db.empty()

    server = Server(db, MAX_SMTP_CLIENTS="100", GSMTP_MAX_CLIENTS_PER_IP="4")
    for hups in range(3):
        held = [session(server.port, source="127.0.0.2") for i in range(4)]
        for _ in range(hups):
            before = server.workers()
            server.hup()
            ok("other workers", wait(lambda: len(set(server.workers()) - set(before)) == 2))
        time.sleep(0.3 * SLOW)
        c = Client(server.port, source="127.0.0.2")
        ok("GSMTP_MAX_CLIENTS_PER_IP after %d HUPs" % hups, c.banner[0] == 421, c.banner)
        c.close()
        close(held)
        wait(lambda: held_now(server, "clients") == 0)
    server.stop()

    server = Server(db, GSMTP_MAX_MEMORY=str(9 * MB // 2), GSMTP_MAX_SIZE=str(3 * MB))
    large = (b"MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\r\n"   # no body
             + b"x\r\n" * 350000)
    old = in_data(server, 3)
    for c in old:
        c.send(large)
    wait(lambda: (held_now(server) or 0) > 3 * MB)
    before = server.workers()
    server.hup()
    wait(lambda: set(server.workers()) - set(before))
    time.sleep(0.3 * SLOW)
    c = session(server.port)
    same("GSMTP_MAX_MEMORY: what the old generation holds counts",
         deliver(c, large * 2)[0], 452)
    ok("held= tells of it", (held_now(server) or 0) > 3 * MB, held_now(server))
    for o in old:
        o.send(b".\r\n")
    codes = {o.reply()[0] for o in old}
    ok("the old ones are stored, as far as there is room for their columns", 250 in codes and
       codes <= {250, 452}, codes)
    close(old)
    ok("then there is room", wait(lambda: deliver(c, large * 2)[0] == 250, 3))
    c.close()
    server.stop()


@test
def t10_draining_ends(db):
    """A worker that drains ends after GSMTP_TIMEOUT, whatever its clients say."""
    server = Server(db, GSMTP_TIMEOUT="3")
    talks, mute = session(server.port), session(server.port)
    trickles, = in_data(server, 1)
    before = server.workers()
    server.hup()
    began = time.monotonic()
    last = None
    while time.monotonic() - began < 12 * SLOW and (last is None or last[0] == 250):
        last = talks.command("NOOP")
        with contextlib.suppress(OSError):
            trickles.send(b"x\r\n")
        time.sleep(0.2)
    took = time.monotonic() - began
    ok("a client that talks: 421 4.3.2 after GSMTP_TIMEOUT", last[0] == 421 and
       last[1].startswith("4.3.2") and 2 < took < 3 + 3 * SLOW, (last, took))
    ok("and closed", talks.ended())
    same("a mute one: 421", mute.reply()[0], 421)
    same("one in DATA: 421", trickles.reply()[0], 421)
    ok("the old workers are gone", gone(before, 3), server.workers())
    same("the new ones serve", deliver_once(server), 250)
    same("two of them", len(server.workers()), 2)
    same("half a mail is none", db.count(), 1)
    server.stop()


@test
def t10_dropped_addresses_close_at_once(db):
    server = Server(db, listen=("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    held = [session(server.port, source="127.0.0.1") for _ in range(4)]
    at2 = Client(server.port, sock=socket.create_connection(("127.0.0.2", server.port), 5))
    server.config["GSMTP_LISTEN"] = "127.0.0.1:%d,127.0.0.3:%d" % (server.port, server.port)
    server.write()
    server.hup()
    ok("closed", wait(lambda: not listening(server.port, "127.0.0.2"), 5))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.2", server.port))
            s.listen()
            ok("and free for another", True)
        except OSError as e:
            ok("and free for another", False, e)
    ok("the others stay", all(listening(server.port, "127.0.0." + n) for n in "13"))
    same("and who came by it", at2.command("NOOP")[0], 250)
    same("and all sessions", {c.command("NOOP")[0] for c in held}, {250})
    close(held + [at2])
    server.stop()


@test
def t10_crash_of_a_draining_worker(db):
    server = Server(db)
    held = [session(server.port) for _ in range(6)]
    before = server.workers()
    server.hup()
    wait(lambda: len(set(server.workers()) - set(before)) == 2)
    old = [p for p in before if p in server.workers()]
    ok("old workers drain", old, before)
    for pid, sig in zip(old, (signal.SIGSEGV, signal.SIGKILL)):
        os.kill(pid, sig)
        line = server.logged("pid=%d" % pid)
        ok("its crash is logged", line and "signal=%d" % sig in line and "worker-died" in line, line)
    wait(lambda: False, 1.5)
    same("and it is not replaced", len(server.workers()), 2)
    same("the others serve", deliver_once(server), 250)
    close(held)
    server.stop()


@test
def t10_addresses_of_a_dead_worker(db):
    server = Server(db, GSMTP_MAX_CLIENTS_PER_IP="2", MAX_SMTP_CLIENTS="100", GSMTP_VERBOSE="1")
    for when in "once", "twice":
        wait(lambda: len(server.workers()) == 2)
        time.sleep(0.2)
        a, b = server.workers()
        os.kill(b, signal.SIGSTOP)
        victims = [session(server.port, source="127.0.0.2") for _ in range(2)]
        os.kill(b, signal.SIGCONT)
        same("one worker has both", {worker_of(server, c) for c in victims}, {a})
        os.kill(a, signal.SIGKILL)
        ok("it is dead", server.logged("worker-died number=1 pid=%d" % a) or
           server.logged("pid=%d" % a))
        others = [session(server.port, source="127.0.0.%d" % n) for n in (3, 3, 4, 4)]
        codes = [Client(server.port, source="127.0.0.2").banner[0] for _ in range(2)]
        same("dead %s: its clients come again at once" % when, codes, [220, 220])
        close(others + victims)
    server.stop()


def shared(pid):
    """The pages that a process shares with its kin."""
    with open("/proc/%d/maps" % pid) as f:
        for line in f:
            words = line.split()
            if words[1].startswith("rw") and words[1].endswith("s"):
                first, last = (int(n, 16) for n in words[0].split("-"))
                yield first, last - first


@test
def t10_the_master_believes_no_worker(db):
    server = Server(db, MAX_SMTP_CLIENTS="50")
    for octet in 0x7f, 0xff, 0x01, 0x80:
        what = "the shared pages full of 0x%02x" % octet
        ok(what + ": two workers", wait(lambda: len(server.workers()) == 2, 15), server.workers())
        before = server.workers()
        held = [session(server.port) for _ in range(2)]
        pages = list(shared(before[0]))
        ok(what + ": there are such", pages)
        os.kill(before[0], signal.SIGSTOP)
        with open("/proc/%d/mem" % before[0], "r+b", 0) as f:
            for start_at, size in pages:
                f.seek(start_at)
                f.write(bytes([octet]) * size)
        server.process.send_signal(signal.SIGUSR1)
        os.kill(before[0], signal.SIGKILL)
        time.sleep(0.3)
        if not ok(what + ": the master lives", server.process.poll() is None, server.log()[-500:]):
            return
        ok(what + ": it replaces the worker", wait(
            lambda: len(server.workers()) == 2 and before[0] not in server.workers(), 40))
        ok(what + ": mail is taken", wait(lambda: deliver_once(server) == 250, 5), server.log()[-500:])
        other = before[1]
        if other in server.workers():
            os.kill(other, signal.SIGKILL)
        ok(what + ": and the other", wait(
            lambda: len(server.workers()) == 2 and other not in server.workers(), 40))
        ok(what + ": mail is taken by new ones", wait(lambda: deliver_once(server) == 250, 5))
        same(what + ": counters", server.process.send_signal(signal.SIGUSR1), None)
        before = server.workers()
        server.hup()
        ok(what + ": HUP", wait(lambda: deliver_once(server) == 250, 5))
        close(held)
        ok(what + ": the old ones end", wait(lambda: not set(before) & set(server.workers()), 15))
    server.stop()


# -- 11: HUP takes all or nothing

@test
def t11_the_same_address_twice(db):
    server = Server(db, listen=("127.0.0.1", "127.0.0.2"))
    p = server.port
    for twice in ("127.0.0.2:%d,127.0.0.2:%d" % (p, p), "127.0.0.2:%d,127.0.0.1:%d,127.0.0.2:%d" % (p, p, p),
                  "127.0.0.2:%d,127.0.0.2:%d,127.0.0.2:%d" % (p, p, p)):
        for listen in ("127.0.0.1:%d,%s" % (p, twice), "127.0.0.1:%d" % p,
                       "127.0.0.1:%d,127.0.0.2:%d" % (p, p)):
            server.config["GSMTP_LISTEN"] = listen
            server.write()
            before = server.log().count("reload")
            server.hup()
            wait(lambda: server.log().count("reload") > before or server.process.poll() is not None)
            if not ok("HUP to %s: the master lives" % listen, server.process.poll() is None):
                return
            same("HUP to %s: served" % listen, deliver_once(server), 250)
    same("both listen in the end", [listening(p, "127.0.0." + n) for n in "12"], [True, True])
    server.stop()
    status, text = smtpd(db, seconds=2, GSMTP_LISTEN="127.0.0.1:%d,127.0.0.1:%d" % (p, p))
    ok("at start: one listener, or 1 and why", status in (None, 0, 1) and (status != 1 or str(p) in text),
       (status, text))


def offers(server):
    """STARTTLS is offered, and is more than an offer; or neither."""
    with session(server.port) as c:
        if "STARTTLS" not in c.command("EHLO client.example")[1]:
            return None
        if c.command("STARTTLS")[0] != 220:
            return "not what is offered"
        try:
            secure(c)
            der = c.sock.getpeercert(True)
            return run(["openssl", "x509", "-inform", "DER", "-noout", "-subject"], der)[1].strip()[-11:]
        except (ssl.SSLError, OSError) as e:
            return repr(e)


@test
def t11_a_refused_hup_changes_nothing(db):
    def refused(what, config, want, **first):
        server = Server(db, binary=tls_binary, GSMTP_MAX_RCPT="7", **first)
        second = port()
        bad = {"GSMTP_LISTEN": "127.0.0.1:%d,127.0.0.1:%d,192.0.2.77:%d" % (server.port, second, second)}
        server.config.update(bad if config.pop("listen", None) else {}, GSMTP_MAX_RCPT="1", **config)
        server.write()
        server.hup()
        ok(what + ": refused", server.logged("reload-error"), server.log()[-400:])
        old = server.workers()
        os.kill(old[0], signal.SIGKILL)         # what starts now knows only what counts
        ok(what + ": a new worker", wait(lambda: len(server.workers()) == 2, 10), server.workers())
        os.kill(old[1], signal.SIGSTOP)
        same(what + ": TLS as before", safe(lambda: offers(server)), want)
        same(what + ": no other listener", listening(second), False)
        same(what + ": as many recipients, in the same table",
             deliver_once(server, to=["r%d@test.example" % i for i in range(7)]), 250)
        os.kill(old[1], signal.SIGCONT)
        server.stop()

    one = {"GSMTP_TLS_CERT": CERT, "GSMTP_TLS_KEY": KEY}
    two = {"GSMTP_TLS_CERT": CERT2, "GSMTP_TLS_KEY": KEY2}
    none = {"GSMTP_TLS_CERT": "", "GSMTP_TLS_KEY": ""}
    user = {"GSMTP_USER": "no-such-user"}
    for what, config, want, first in (
            ("no certificate, a bad address", dict(none, listen=1), "one.example", one),
            ("another certificate, a bad address", dict(two, listen=1), "one.example", one),
            ("another certificate, a bad user", dict(two, **user), "one.example", one),
            ("another certificate without its key", dict(two, GSMTP_TLS_KEY="/no/such"),
             "one.example", one),
            ("another certificate, a bad table", dict(two, GM_MAIL_TABLE="no_such"), "one.example",
             one),
            ("a certificate, a bad address", dict(one, listen=1), None, {}),
            ("a certificate, a bad table", dict(one, GM_MAIL_TABLE="no_such"), None, {})):
        refused(what, config, want, **first)


@test
def t11_from_an_address_to_all(db):
    server = Server(db)
    for listen in "*:%d", "0.0.0.0:%d", "127.0.0.1:%d,*:%d":
        server.config["GSMTP_LISTEN"] = listen.replace("%d", str(server.port))
        server.write()
        errors = server.log().count("reload-error")
        server.hup()
        ok(listen + ": refused, or done", wait(lambda: server.log().count("reload-error") > errors
                                                 or server.log().count(" reload ") > 0))
        line = [l for l in server.log().splitlines() if "reload-error" in l][-1:]
        if line:
            ok(listen + ": the line names the port, smtpd itself and what to do",
               str(server.port) in line[0] and "another server" not in line[0]
               and re.search("restart|stop", line[0]), line)
        same(listen + ": served", deliver_once(server), 250)
    server.stop()


# -- 12: the check of what workers need

@contextlib.contextmanager
def account(db, name, how):
    db.sql("CREATE OR REPLACE USER %s@localhost %s; GRANT SELECT, INSERT ON %s.new_mail TO "
           "%s@localhost" % (name, how, db.name, name))
    try:
        yield
    finally:
        db.sql("DROP USER %s@localhost" % name)


@test
def t11_more_addresses_than_descriptors(db):
    """A HUP to more addresses than ulimit -n allows for is refused; the master lives on."""
    server = Odd(db, under=["sh", "-c", "ulimit -n 30 && exec \"$@\"", "sh"], GSMTP_WORKERS="1")
    server.config["GSMTP_LISTEN"] = ",".join("127.0.0.%d:%d" % (n, server.port) for n in range(1, 11))
    server.write()
    server.hup()
    line = server.logged("reload-error", 5)
    ok("it is refused", line and "ulimit -n" in line, server.log()[-300:])
    same("mail as before", deliver_once(server), 250)
    same("the new addresses are closed", listening(server.port, "127.0.0.2"), False)
    same("-t says it as well", smtpd(db, "-t", under=server.under,
                                     GSMTP_LISTEN=server.config["GSMTP_LISTEN"])[0], 1)
    server.stop()


@test
def t12_an_account_of_the_workers(db):
    with account(db, "nobody", "IDENTIFIED VIA unix_socket"):
        status, text = smtpd(db, "-t", MYSQL_USER="nobody")
        ok("-t with a unix_socket account of the workers' user", status == 0, (status, text))
        status, text = smtpd(db, "-t", MYSQL_USER="nobody", GSMTP_USER="daemon")
        ok("-t with one of another user", status == 1 and "nobody" in text, (status, text))
        status, text = smtpd(db, seconds=5, MYSQL_USER="nobody", GSMTP_USER="daemon")
        ok("a start with one of another user", status == 1 and "nobody" in text, (status, text))
        try:
            server = Server(db, MYSQL_USER="nobody")
        except RuntimeError as e:
            ok("a start with a unix_socket account", False, e)
        else:
            same("mail is stored", deliver_once(server), 250)
            server.config["GSMTP_MAX_RCPT"] = "7"
            server.write()
            server.hup()
            ok("HUP", server.logged(" reload "), server.log())
            server.config["GSMTP_USER"] = "daemon"
            server.write()
            server.hup()
            ok("HUP to another user is refused", server.logged("reload-error"), server.log())
            same("mail is stored as before", {deliver_once(server) for _ in range(4)}, {250})
            server.stop()


def closed_socket(db):
    """The database's socket, where root alone can walk to."""
    closed = os.path.join(DIR, "closed")
    os.makedirs(closed, exist_ok=True)
    os.chmod(closed, 0o700)
    link = os.path.join(closed, "sock")
    new = "%s.%d" % (link, threading.get_ident())
    os.symlink(db.socket, new)
    os.replace(new, link)       # at once: another test may be using the one that is there
    return link


@test
def t12_files_of_the_workers(db):
    home = os.path.join(DIR, "home")
    os.makedirs(home, exist_ok=True)
    os.chmod(home, 0o755)
    name = os.path.join(home, ".my.cnf")
    with account(db, "t12", "IDENTIFIED BY 'in a file'"):
        with open(name, "w") as f:
            f.write("[smtpd]\nuser=t12\npassword=in a file\n")
        for mode, want in ((0o600, 1), (0o644, 0)):
            os.chmod(name, mode)
            status, text = smtpd(db, "-t", env={"HOME": home}, MYSQL_USER=None)
            same("-t with an option file of mode %o" % mode, status, want)
            if want:
                status, text = smtpd(db, seconds=5, env={"HOME": home}, MYSQL_USER=None)
                ok("a start with one: 1 and why", status == 1 and text, (status, text))
    link = closed_socket(db)
    for option in ["-t"], []:
        status, text = smtpd(db, *option, seconds=5, MYSQL_HOST=link)
        ok("%s with a socket that workers cannot walk to: 1 and why" % option,
           status == 1 and link in text and "GSMTP_USER has no right" in text, (status, text))
    status, text = smtpd(db, "-t", MYSQL_HOST=link, GSMTP_USER="root")
    same("-t where they are root", status, 0)


def spoiled(db):
    """Tables that cannot hold a mail: what is wrong with each, and its configuration."""
    for name, change in (("narrow", "MODIFY body text"), ("latin", "MODIFY subject text CHARACTER SET latin1"),
                         ("dropped", "DROP COLUMN recipient"),
                         ("strict", "ADD COLUMN extra int NOT NULL"),
                         ("small", "MODIFY mail blob")):
        db.sql("CREATE TABLE %s LIKE new_mail; ALTER TABLE %s %s" % (name, name, change))
        yield change, {"GM_MAIL_TABLE": name}
    yield "no such table", {"GM_MAIL_TABLE": "no_such_table"}
    yield "no such database", {"MYSQL_DB": "no_such_database"}
    yield "wrong password", {"MYSQL_USER": "t12h", "MYSQL_PASS": "wrong"}
    yield "no right to", {"MYSQL_USER": "t12h", "MYSQL_PASS": "right", "GM_MAIL_TABLE": "other"}
    yield "a socket of root's", {"MYSQL_HOST": closed_socket(db)}


@test
def t12_hup_to_a_table_that_cannot_hold_mail(db):
    db.sql("CREATE TABLE other LIKE new_mail; CREATE TABLE good LIKE new_mail")
    server = Server(db)
    with account(db, "t12h", "IDENTIFIED BY 'right'"):
        for what, config in spoiled(db):
            before = dict(server.config)
            status, text = smtpd(db, "-t", **config)
            same(what + ": -t", status, 1)
            pids = server.workers()
            errors = server.log().count("reload-error")
            server.config.update(config)
            server.write()
            server.hup()
            ok(what + ": HUP is refused", wait(lambda: server.log().count("reload-error") > errors,
                                               5), server.log()[-300:])
            same(what + ": with the workers there were", server.workers(), pids)
            db.empty()
            same(what + ": mail as before", {deliver_once(server) for _ in range(4)}, {250})
            same(what + ": where it was", db.count(), 4)
            server.config = before
        db.empty()
        server.config["GM_MAIL_TABLE"] = "good"
        server.write()
        pids = server.workers()
        server.hup()
        ok("a good one is taken", wait(lambda: not set(server.workers()) & set(pids), 5))
        same("mail is stored", deliver_once(server), 250)
        same("in it", db.sql("SELECT COUNT(*) FROM good").strip(), b"1")
    server.stop()


@test
def t12_more_workers_than_slots(db):
    """Where too many drain still, a HUP is refused: new ones could not begin."""
    server = Server(db, GSMTP_WORKERS="256", MYSQL_HOST="127.0.0.1:1")  # it need not have so many
    first = server.workers()
    same("workers", len(first), 256)
    os.kill(first[0], signal.SIGSTOP)
    server.hup()
    ok("a HUP is taken", server.logged(" reload ", 20 * SLOW))
    ok("new workers serve, one of the old is left",
       wait(lambda: first[0] in server.workers() and len(server.workers()) == 257, 20 * SLOW))
    server.hup()
    line = server.logged("reload-error", 20 * SLOW)
    ok("another one is refused, and why", line and "257 workers serve or drain" in line, line)
    same("clients are served", session(server.port).banner[0], 220)
    os.kill(first[0], signal.SIGCONT)
    ok("the old one ends", wait(lambda: len(server.workers()) == 256, 10 * SLOW))
    reloads = server.log().count(" reload ")
    server.hup()
    ok("then a HUP is taken", wait(lambda: server.log().count(" reload ") > reloads, 20 * SLOW))
    server.stop()


class Mute:
    """Hosts that take a connection and never say a word."""

    def __init__(self, count=3):
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=100) for _ in range(count)]
        self.hosts = ",".join("127.0.0.1:%d" % s.getsockname()[1] for s in self.sockets)

    def close(self):
        for s in self.sockets:
            s.close()


@test
def t12_hosts_that_hang(db):
    mute = Mute()
    for sig, after in ((signal.SIGTERM, 0.3), (signal.SIGINT, 1), (signal.SIGTERM, 3)):
        server = Server(db, MYSQL_HOST=mute.hosts)
        time.sleep(after)
        if sig == signal.SIGTERM:
            c = safe(lambda: Client(server.port, timeout=3 * SLOW))
            ok("at start: a client gets its banner, or cannot connect", isinstance(c, str) or
               c.banner[0] == 220, c if isinstance(c, str) else c.banner)
            if not isinstance(c, str):
                same("and its replies", c.codes("EHLO x", "NOOP"), [250, 250])
                c.close()
        pids = children(server.process.pid)
        began = time.monotonic()
        same("%s %.1f s after the start: 0" % (sig.name, after), stop(server.process, sig, 40), 0)
        took = time.monotonic() - began
        ok("within 2 s", took < 2 * SLOW, took)
        ok("nobody is left", gone(pids, 1), pids)
    server = Server(db, MYSQL_HOST=mute.hosts)
    away = server.logged("database-away", 10 * SLOW) or ""
    ok("a start that goes on without it names it", "MYSQL_HOST=" + mute.hosts in away, away)
    stop(server.process, signal.SIGTERM, 40)
    status, text = smtpd(db, "-t", seconds=60, MYSQL_HOST=mute.hosts)
    ok("-t tells", status == 1 and "127.0.0.1" in text, (status, text))
    server = Server(db)
    usual = noop(server)
    server.config["MYSQL_HOST"] = mute.hosts
    server.write()
    server.hup()
    began, waits = time.monotonic(), []
    while time.monotonic() - began < 2:
        waits.append(noop(server))
    ok("HUP to hosts that hang: sessions are served meanwhile", max(waits) < usual + 1 * SLOW,
       (max(waits), usual))
    server.hup()                        # once more while the first one is looked at
    server.process.send_signal(signal.SIGUSR1)
    ok("USR1 is heard", server.logged("counters", 2))
    began = time.monotonic()
    same("TERM is heard", stop(server.process, signal.SIGTERM, 40), 0)
    took = time.monotonic() - began
    ok("within 2 s", took < 2 * SLOW, took)
    mute.close()


def looking(db):
    """A database that hangs, a server that HUP has look at it just now, its workers."""
    mute, server = Mute(), Server(db)
    pids = server.workers()
    server.config["MYSQL_HOST"] = mute.hosts
    server.write()
    server.hup()
    wait(lambda: len(children(server.process.pid)) > len(pids))
    return mute, server, pids


@test
def t12_a_check_that_is_killed(db):
    """A HUP whose look at the database is killed has seen nothing: it is refused, and says why."""
    mute, server, pids = looking(db)
    time.sleep(0.2)                     # or it is another that has just begun to be one
    for pid in set(children(server.process.pid)) - set(pids):
        os.kill(pid, signal.SIGKILL)
    line = server.logged("reload-error", 2)
    ok("it is refused, with the signal", line and "signal 9" in line, server.log()[-300:])
    same("with the workers there were", server.workers(), pids)
    same("mail as before", deliver_once(server), 250)
    mute.close()
    server.stop()


@test
def t12_a_check_that_term_ends(db):
    """TERM while HUP, or -t, looks at the database: what has not been seen is not told or taken."""
    mute, server, pids = looking(db)
    same("TERM is heard", stop(server.process, signal.SIGTERM, 40), 0)
    log = server.log()
    same("nothing new is taken", log.count(" reload version="), 0)
    same("nobody says that the database is away", log.count("database-away"), 0)
    same("no worker is started", log.count("worker-start"), len(pids))
    p = start([server.binary, "-t", "-c", server.file], os.path.join(DIR, "ended.err"))
    ok("-t looks", wait(lambda: children(p.pid)))
    same("-t that is ended has not found all well", stop(p, signal.SIGTERM, 40), 1)
    mute.close()


def noop(server):
    began = time.monotonic()
    with session(server.port) as c:
        c.command("NOOP")
    return time.monotonic() - began


# -- 13: the edges of a start and of a stop

@alone
def t13_mails_that_have_arrived_at_term(db):
    """More sessions than are looked at each time; the mails arrive in the same moment as TERM."""
    for count, size, late in ((100, 10, 5), (300, 10, 50), (100, 10, 1), (65, 10, 65), (30, 10, 5),
                              (100, 60000, 100)):
        db.empty()
        server = Server(db, GSMTP_WORKERS="1")
        clients = in_data(server, late)
        idle = [session(server.port) for _ in range(count - late)]
        busy = session(server.port)
        began = time.monotonic()
        while time.monotonic() - began < 0.7:   # the others are idle by now
            busy.command("NOOP")
        for c in clients:
            c.send(b"x" * size + b"\r\n.\r\n")
        server.process.send_signal(signal.SIGTERM)
        codes = [c.reply()[0] for c in clients]
        what = "%d sessions, of which %d have sent %d octets" % (count, late, size)
        same(what, {k: codes.count(k) for k in set(codes)}, {250: late})
        same(what + ": rows", db.count(), late)
        same(what + ": the others", {c.reply()[0] for c in idle}, {421} if idle else set())
        close(clients + idle + [busy])
        server.stop()


@test
def t13_the_master_does_not_spin(db):
    server = Server(db, MYSQL_TIMEOUT="60", GSMTP_VERBOSE="1")
    both = server.workers()
    clients = in_data(server, 6)
    wait(lambda: server.log().count(" connect ") == 6)
    serve = [int(l.split()[1]) for l in server.log().splitlines() if " connect " in l]
    with db.hung():
        for c in clients:
            c.send(b".\r\n")
        time.sleep(0.3)
        os.kill(min(both, key=serve.count), signal.SIGKILL)     # waits for its restart when TERM comes
        server.logged("worker-died")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        used = cpu(server.process.pid)
        time.sleep(2)
        used = cpu(server.process.pid) - used
        ok("one has ended, another waits: the master sleeps", used < 0.4, used)
    ok("and ends", server.process.wait(20) == 0)
    codes = [c.reply()[0] for c in clients]
    ok("whose worker lives, has its answer", 250 in codes and set(codes) <= {250, 0}, codes)
    same("and its row", db.count() >= codes.count(250), True)
    close(clients)
    server.stop()


UNDER = [sys.executable, "-c"]
@test
def t13_answers_after_term(db):
    """A mail that is at the database when TERM comes: its 250, then 421, then the end."""
    for workers_wanted in "1", "2":
        server = Server(db, GSMTP_WORKERS=workers_wanted)
        began = time.monotonic()
        clients = in_data(server, 4) + [session(server.port) for _ in range(2)]
        with db.hung():
            for c in clients[:4]:
                c.send(b".\r\n")
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            same("an idle one", [c.reply()[0] for c in clients[4:]], [421] * 2)
            time.sleep(0.5)
        same("the mails", [c.reply()[0] for c in clients[:4]], [250] * 4)
        same("and then", [c.reply()[0] for c in clients[:4]], [421] * 4)
        ok("closed", all(c.ended(3 * SLOW) for c in clients))
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(3 * SLOW)
        ok("and smtpd ends", server.process.poll() == 0, time.monotonic() - began)
        close(clients)
        server.stop()


@test
def t13_who_has_gone_before_the_answer(db):
    """Its mail has arrived whole, so it is stored, though nobody is there for the replies."""
    server = Server(db, GSMTP_WORKERS="1")
    for mails, what in (1, "served on"), (2, "TERM"):
        c, (worker,) = session(server.port), server.workers()
        with db.hung():
            os.kill(worker, signal.SIGSTOP)
            c.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n\r\n.\r\n")
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()                           # with RST: what it sent is there, no reply goes
            os.kill(worker, signal.SIGCONT)
            ok(what + ": the session ends", server.empty())
            if what == "TERM":
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                ok("TERM: the mail is waited for", worker in server.workers())
        ok(what + ": the mail is stored", wait(lambda: server.log().count(" stored ") == mails))
    same("TERM: it ends", server.process.wait(5 * SLOW), 0)
    same("a row for each", db.count(), 2)
    server.stop()


MASKED = UNDER + ["import os, signal, sys\n"
                  "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
                  "os.execv(sys.argv[1], sys.argv[1:])"]
IGNORED = UNDER + ["import os, signal, sys\n"
                   "for s in 'HUP INT TERM USR1 USR2 CHLD PIPE ALRM'.split():\n"
                   "    signal.signal(getattr(signal, 'SIG' + s), signal.SIG_IGN)\n"
                   "os.execv(sys.argv[1], sys.argv[1:])"]
CLOSED = UNDER + ["import os, sys\n"
                  "for fd in sys.argv[1].split(','):\n    os.close(int(fd))\n"
                  "os.execv(sys.argv[2], sys.argv[2:])"]
NAMELESS = UNDER + ["import ctypes, os, sys\n"
                    "libc = ctypes.CDLL(None, use_errno=True)\n"
                    "name = sys.argv[1].encode()\n"
                    "if libc.unshare(0x04000000) or libc.sethostname(name, len(name)):\n"
                    "    sys.exit('unshare: %d' % ctypes.get_errno())\n"
                    "os.execv(sys.argv[2], sys.argv[2:])"]


@test
def t13_signals_of_a_supervisor(db):
    for what, under in (("blocked", MASKED), ("ignored", IGNORED)):
        server = Odd(db, under)
        same(what + ": mail", deliver_once(server), 250)
        server.process.send_signal(signal.SIGUSR1)
        ok(what + ": USR1", server.logged("counters"))
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        ok(what + ": a dead worker", server.logged("worker-died"))
        ok(what + ": is replaced", wait(lambda: len(server.workers()) == 2))
        server.hup()
        ok(what + ": HUP", wait(lambda: not set(before) & set(server.workers())), server.workers())
        same(what + ": mail again", deliver_once(server), 250)
        began = time.monotonic()
        for sig in (signal.SIGTERM,):
            server.process.send_signal(sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(5)
        ok(what + ": TERM", server.process.poll() == 0, time.monotonic() - began)
        if server.process.poll() is None:
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            stop(server.process, signal.SIGKILL)
        else:
            server.stop()


@test
def t13_started_with_closed_descriptors(db):
    for closed in "2", "1,2", "0,1,2", "0", "0,2", "0,1":
        for options in [], ["-v"], None:
            db.empty()
            what = "without %s, %s" % (closed, options)
            try:
                server = Odd(db, CLOSED + [closed], options, GSMTP_VERBOSE="1")
            except RuntimeError as e:
                ok(what, False, e)
                continue
            def talk():
                with session(server.port) as c:
                    return (c.codes("NOOP", "XYZZY", "VRFY x"), deliver(c)[0],
                            c.codes("NOOP", "QUIT"), c.buffer)

            same(what + ": nothing but replies", [safe(talk) for _ in range(4)],
                 [([250, 500, 252], 250, [250, 221], b"")] * 4)
            same(what + ": the mails", {(r["mail"], r["from"]) for r in db.mails()},
                 {(b"Subject: x\r\n\r\nx\r\n", b"a@b.example")})
            server.hup()
            ok(what + ": HUP", wait(lambda: deliver_once(server) == 250))
            same(what + ": ends with 0", stop(server.process), 0)


NUMBERS = ("GSMTP_MAX_SIZE", "MAX_SMTP_CLIENTS", "GSMTP_MAX_CLIENTS_PER_IP", "GSMTP_MAX_RCPT",
           "GSMTP_MAX_ERRORS", "GSMTP_MAX_MEMORY", "GSMTP_TIMEOUT", "GSMTP_WORKERS",
           "GSMTP_CHECK_HEADER", "GSMTP_VERBOSE", "MYSQL_TIMEOUT")


@test
def t13_an_empty_number_is_the_default(db):
    def values(text):
        return dict(re.findall(r"^(\w+)=([^\t]*?)\s*(?:#.*)?$", text, re.M))

    usual = values(smtpd(db, "-t")[1])
    ok("-t prints them", set(NUMBERS) <= set(usual), usual)
    for how in "file", "environment":
        for name in NUMBERS:
            status, text = smtpd(db, "-t", **({name: ""} if how == "file" else {"env": {name: ""}}))
            same("%s= in the %s" % (name, how), (status, values(text).get(name)), (0, usual.get(name)))
    status, text = smtpd(db, "-t", **{n: "" for n in NUMBERS})
    same("all of them", {n: values(text).get(n) for n in NUMBERS}, {n: usual.get(n) for n in NUMBERS})
    server = Server(db, **{n: "" for n in NUMBERS if n != "GSMTP_CHECK_HEADER"})
    same("and it serves", deliver_once(server), 250)
    server.stop()


@test
def t13_addresses_to_listen_on(db):
    for item in ("[::1]2525", "[::1]x", "[::1]:", "[::1]:x", "[::1]:25x", "[::1", "::1]", "[::1]]:25",
                 "[]:25", "[127.0.0.1]2525", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1x", "127.0.0.1:70000",
                 "[::1]: 25", "localhost", "*:", "*x", "[*]25"):
        status, text = smtpd(db, "-t", GSMTP_LISTEN=item)
        ok("%s: 1 and why" % item, status == 1 and item in text, (status, text))
    for item in "[::1]:2525", "[::1]", "::1", "127.0.0.1", "127.0.0.1:25", "*", "*:25", "[::]:25":
        status, text = smtpd(db, "-t", GSMTP_LISTEN=item)
        same("%s: 0" % item, status, 0)


@test
def t13_addresses_that_begin_with_zeros(db):
    server = Server(db, GSMTP_MAX_CLIENTS_PER_IP="2", MAX_SMTP_CLIENTS="100",
                    GSMTP_PROXY_FROM="127.0.0.9")
    filler = [session(server.port, source="127.0.0.%d" % n) for n in (2, 2, 3, 3)]

    def proxied(address):
        c = Client(server.port, source="127.0.0.9", greet=False)
        c.send(("PROXY TCP6 %s 2001:db8::1 40000 25\r\n" % address).encode())
        c.banner = c.reply()
        return c

    for block in (["::1", "::2", "::3"], ["::", "::1", "::"], ["::102:304", "::5", "::1"],
                  ["2001:db8::1", "2001:db8::2", "2001:db8::3"], ["0:0:0:0:1::", "::1", "::2"]):
        clients = [proxied(a) for a in block]
        same("%s: two are served" % block, [c.banner[0] for c in clients], [220, 220, 421])
        close(clients)
        time.sleep(0.3 * SLOW)
    mapped = [proxied("::ffff:198.51.100.%d" % n) for n in (1, 1, 1, 2)]
    same("IPv4 in IPv6 counts as IPv4", [c.banner[0] for c in mapped], [220, 220, 421, 220])
    close(mapped + filler)
    server.stop()


@test
def t13_a_machine_without_a_name(db):
    for name in "", " ", "a b":
        for host in "", None:
            try:
                server = Odd(db, NAMELESS + [name], GSMTP_HOST_NAME="")
            except RuntimeError as e:
                ok("name %r: it says why it does not start" % name, "HOST_NAME" in str(e) and
                   "unshare" not in str(e), e)
                continue
            c = Client(server.port)
            ok("name %r: the banner" % name, re.fullmatch(r"[\w.-]+ ESMTP \S.*", c.banner[1]),
               c.banner)
            said = c.command("EHLO client.example")[1].split("\n")[0]
            ok("name %r: EHLO" % name, re.match(r"[\w.-]+ Hello client.example", said), said)
            same("name %r: a mail" % name, deliver(c)[0], 250)
            trace = db.mails()[-1]["trace"]
            ok("name %r: Received" % name, re.search(rb"\tby [\w.-]+ with ", trace), trace)
            c.close()
            server.stop()


# -- 14: descriptors

class Relay(threading.Thread):
    """Between smtpd and MariaDB: it can hang, and it can cut what there is."""

    def __init__(self, path, address="127.0.0.1"):
        super().__init__(daemon=True)
        self.path, self.hangs, self.ends = path, False, False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.server = socket.create_server((address, port()), family=family, backlog=100)
        self.address = self.server.getsockname()
        self.host = ("[%s]:%d" if ":" in address else "%s:%d") % self.address[:2]
        self.other = {}
        self.start()

    def run(self):
        while not self.ends:
            look = ([self.server] if self.server else []) + ([] if self.hangs else list(self.other))
            ready = select.poll()       # select() would not know these descriptors
            for s in look:
                ready.register(s, select.POLLIN)
            found = {fd for fd, _ in ready.poll(50)}
            for s in [s for s in look if s.fileno() in found]:
                if s is self.server:
                    a, b = self.server.accept()[0], socket.socket(socket.AF_UNIX)
                    b.connect(self.path)
                    self.other[a], self.other[b] = b, a
                elif s in self.other:
                    try:
                        got = s.recv(65536)
                        if got:
                            self.other[s].sendall(got)
                    except OSError:
                        got = b""
                    if not got:
                        self.drop(s)

    def drop(self, s):
        for x in (s, self.other.get(s)):
            if x:
                self.other.pop(x, None)
                x.close()

    def cut(self):
        for s in list(self.other):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def away(self):
        server, self.server = self.server, None
        time.sleep(0.1)
        server.close()
        self.cut()

    def back(self):
        self.server = socket.create_server(self.address, backlog=100)

    def end(self):
        self.ends = True
        self.join()
        for s in list(self.other):
            s.close()
        self.server.close()


@test
def t14_a_database_at_an_ipv6_address(db):
    """Without brackets all of it is the address, and the port the usual one."""
    relay = Relay(db.socket, "::1")
    for hosts in relay.host, "::1," + relay.host, relay.host + ",127.0.0.1:1":
        server = Server(db, GSMTP_WORKERS="1", MYSQL_HOST=hosts)
        same("MYSQL_HOST=" + hosts, wait(lambda: deliver_once(server) == 250, 10), True)
        ok("it is what is connected to", server.logged("database %s: connected" % relay.host), server.log())
        server.stop()
    relay.end()


@alone
def t14_more_descriptors_than_select_knows(db):
    binary = build(["smtpd"], os.path.join(DIR, "fortified"), "-O2 -g -D_FORTIFY_SOURCE=2")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    for limit, workers_wanted in ((4096, 2),):
        what = "ulimit -n %d, %d workers" % (limit, workers_wanted)
        relay = Relay(db.socket)
        where = port()
        server = Odd(db, ["prlimit", "--nofile=%d:%d" % (min(limit, hard), min(limit, hard))],
                     binary=binary, GSMTP_WORKERS=str(workers_wanted), MYSQL_HOST=relay.host,
                     MAX_SMTP_CLIENTS="1000" if workers_wanted == 1 else "1010",
                     GSMTP_MAX_CLIENTS_PER_IP="1010", MYSQL_TIMEOUT="3",
                     listen=["127.0.0.1"] + ["127.0.1.%d" % i for i in range(1, 40)])
        same(what + ": stored", deliver_once(server), 250)
        pids = server.workers()
        if len(pids) > 1:               # all clients come to one
            os.kill(pids[1], signal.SIGSTOP)
        socks = []
        for i in range(1010):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.1.%d" % (1 + i % 39), server.port))
            socks.append(s)
        clients = [Client(server.port, sock=s, greet=False) for s in socks]
        answers = pump(clients, b"", 4, lambda a: all(a.values()))
        served = [c for c in clients if answers[c].startswith(b"220 ")]
        ok(what + ": as many as fit are served", len(served) > 1024 - 40 - 60, len(served))
        same(what + ": no other is closed without a word", [
            c for c in clients if not answers[c] and c.sock.fileno() != -1 and ended_now(c)], [])
        relay.away()                    # its descriptors are free, and clients take them
        more = []
        for i in range(30):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.1.%d" % (1 + i), server.port))
            more.append(Client(server.port, sock=s, greet=False))
        pump(more, b"", 0.5)
        relay.hangs = True
        relay.back()                    # each connection comes again, and none is answered
        time.sleep(2)
        told = pump(served, b"EHLO x\r\n", 10, lambda a: all(b"250 HELP" in v for v in a.values()))
        same(what + ": each is answered", sum(b"250 HELP" in v for v in told.values()), len(served))
        some = served[:5] + served[-5:]
        told = pump(some, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n.\r\n", 20,
                    lambda a: all(v.count(b"\n") >= 4 for v in a.values()))
        same(what + ": the database hangs: 451", {bytes(v).split(b"\n")[-2:-1][0][:3] if v else b""
                                                  for v in told.values()}, {b"451"})
        relay.hangs = False
        relay.cut()
        told = pump(served[:1], b"NOOP\r\n", 5, lambda a: all(a.values()))
        ok(what + ": it answers again: stored", wait(lambda: safe(
            lambda: deliver(served[0])[0]) == 250, 20))
        if len(pids) > 1:
            os.kill(pids[1], signal.SIGCONT)
        close(clients + more)
        ok(what + ": then all is as before", wait(lambda: deliver_once(server) == 250, 10))
        ok(what + ": no worker died", "worker-died" not in server.log(), server.log()[-600:])
        server.stop()
        relay.end()


def ended_now(c):
    c.sock.setblocking(False)
    try:
        return c.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- 15: the log

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ \d+ [ -~]+")
PIPE_SIZE = 1031        # F_SETPIPE_SZ, which Python knows from 3.10 on
TOLD = re.compile(rb"(?:dropped|lost)\D{0,9}(\d+)")


def read_all(fd):
    """What is in a pipe now."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
    got = b""
    while True:
        try:
            more = os.read(fd, 65536)
        except BlockingIOError:
            return got
        if not more:
            return got
        got += more


def on_standard_error(db, reader, writer):
    """A server whose log goes to the descriptor `writer', which is its alone; and the reader."""
    server = Odd(db, options=[], err=writer)
    os.close(writer)
    return server, reader


def unread(db, what, open_log):
    """500 mails, with a log that nobody reads; then it is read again."""
    server, fd = open_log()
    codes = []
    threads = [threading.Thread(target=lambda: codes.extend(some_mails(server, 100)))
               for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    same(what + ": 500 mails", {k: codes.count(k) for k in set(codes)}, {250: 500})
    before = server.workers()
    time.sleep(0.2)                     # lines of the last 10 ms die with their worker
    os.kill(before[0], signal.SIGKILL)
    ok(what + ": a dead worker is replaced", wait(
        lambda: len(server.workers()) == 2 and before[0] not in server.workers(), 5))
    server.hup()
    ok(what + ": HUP is heard", wait(lambda: not set(before) & set(server.workers()), 5))
    got = read_all(fd)
    for _ in range(4):
        same(what + ": mail while it is read again", deliver_once(server), 250)
        time.sleep(0.2)
        got += read_all(fd)

    def read():
        """Whether as much has come as there is to tell, whole lines of it."""
        nonlocal got
        got += read_all(fd)
        told = sum(map(int, TOLD.findall(got)))
        return got.endswith(b"\n") and told + got.count(b" stored ") > 500
    wait(read)
    quiet = Stopwatch()
    while quiet.took() < 0.5:           # nor has anything come for that long
        more = read_all(fd)
        got += more
        quiet = Stopwatch() if more else quiet
        time.sleep(0.02)
    lines = got.split(b"\n")
    same(what + ": the last line is whole", lines.pop(), b"")
    bad = [l for l in lines if not LINE.fullmatch(l)]
    same(what + ": every line is whole", bad, [])
    told = sum(map(int, TOLD.findall(got)))
    stored = sum(b" stored " in l for l in lines)
    ok(what + ": those not written are told", told > 0 and 500 < stored + told < 560,
       (stored, told, lines[-8:]))
    some_mails(server, 400)             # full again
    watch = Stopwatch()
    same(what + ": TERM is heard", stop(server.process), 0)
    ok(what + ": in time", watch.took() < 10, watch.took())
    os.close(fd)
    db.empty()


def some_mails(server, count):
    codes = []
    try:
        with session(server.port, timeout=30) as c:
            for _ in range(count):
                codes.append(deliver(c)[0])
                if codes[-1] != 250:
                    break
    except (OSError, RuntimeError) as e:
        codes.append(repr(e))
    return codes


@test
def t15_standard_error_that_nobody_reads(db):
    def open_log():
        r, w = os.pipe()
        fcntl.fcntl(w, PIPE_SIZE, 4096)
        return on_standard_error(db, r, w)
    unread(db, "standard error", open_log)


@test
def t15_a_socket_as_standard_error(db):
    def open_log():
        a, b = socket.socketpair()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return on_standard_error(db, a.detach(), b.detach())
    unread(db, "a socket", open_log)


@test
def t15_a_terminal_that_nobody_reads(db):
    """One that is stopped with control-S, or whose ssh hangs."""
    def open_log():
        master, slave = pty.openpty()
        tty.setraw(slave)
        return on_standard_error(db, master, slave)
    unread(db, "a terminal", open_log)


@test
def t15_a_terminal_with_little_room(db):
    """It takes a part of what is written, and what is left must not keep the master."""
    for size in 8192, 8704, 9216, 10240:
        master, slave = pty.openpty()
        tty.setraw(slave)
        filler = os.open(os.ttyname(slave), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        server, fd = on_standard_error(db, master, slave)
        said = [b""]
        ok("%d: it starts" % size, wait(lambda: said.append(said[-1] + read_all(fd)) or
                                        said[-1].count(b" connected: ") == 2))
        server.process.send_signal(signal.SIGSTOP)
        os.write(filler, b"." * size)
        same("%d: 60 mails" % size, some_mails(server, 60), [250] * 60)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        same("%d: TERM is heard" % size, stop(server.process, seconds=5), 0)
        os.close(filler)
        os.close(fd)


@test
def t15_a_fifo_that_nobody_reads(db):
    def open_log():
        name = os.path.join(DIR, "log.fifo")
        if os.path.exists(name):
            os.unlink(name)
        os.mkfifo(name)
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(fd, PIPE_SIZE, 4096)
        return Odd(db, options=["-l", name]), fd
    unread(db, "-l to a fifo", open_log)


@test
def t15_a_fifo_without_a_reader(db):
    name = os.path.join(DIR, "unread.fifo")
    if os.path.exists(name):
        os.unlink(name)
    os.mkfifo(name)
    where = port()
    status, text = smtpd(db, "-l", name, seconds=3, GSMTP_LISTEN="127.0.0.1:%d" % where)
    ok("it does not start and says why, or serves and ends at TERM", status in (None, 0, 1) and
       (status != 1 or name in text), (status, text))
    os.unlink(name)
    os.mkfifo(name)
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    server = Odd(db, options=["-l", name])
    session(server.port).close()        # who greets has opened its log
    os.close(fd)
    same("its reader goes away: mail", some_mails(server, 20), [250] * 20)
    server.hup()
    wait(lambda: False, 0.5)
    same("HUP without a reader: mail", some_mails(server, 20), [250] * 20)
    server.process.send_signal(signal.SIGUSR1)
    same("ends with 0", stop(server.process, seconds=10), 0)


@test
def t15_a_console_that_nobody_reads(db):
    r, w = os.pipe()
    server = Odd(db, options=["-v", "-l", os.path.join(DIR, "console.log")], out=w)
    os.close(w)
    same("-v: 200 mails", some_mails(server, 200), [250] * 200)
    same("-v: TERM is heard", stop(server.process, seconds=10), 0)
    with open(os.path.join(DIR, "console.log"), "rb") as f:
        text = f.read()
    os.unlink(os.path.join(DIR, "console.log"))
    same("-v: the file has every line", text.count(b" stored "), 200)
    ok("-v: the console has what went", LINE.match(read_all(r)))
    os.close(r)


@test
def t15_a_console_that_is_gone(db):
    """Who looked has closed the window, or was `| head': the file has each line, and has it once."""
    r, w = os.pipe()
    name = os.path.join(DIR, "gone.log")
    server = Odd(db, options=["-v", "-l", name], out=w)
    os.close(w)
    os.close(r)
    same("20 mails", some_mails(server, 20), [250] * 20)
    same("TERM is heard", stop(server.process, seconds=2), 0)
    with open(name, "rb") as f:
        text = f.read(1 << 20)
    os.unlink(name)
    same("each line once", text.count(b" stored "), 20)


@test
def t15_a_full_disk(db):
    """A line goes in part, the next not at all: the master waits for more room without work."""
    small = os.path.join(DIR, "small")
    os.makedirs(small, exist_ok=True)
    name = os.path.join(small, "log")
    server = Odd(db, under=["unshare", "-m", "--propagation", "unchanged", "sh", "-c",
                            "mount --make-rprivate / 2>/dev/null; mount -t tmpfs -o size=8k none '%s' "
                            "&& exec \"$@\"" % small, "sh"], options=["-l", name])
    name = "/proc/%d/root%s" % (server.process.pid, name)
    wait(lambda: os.path.exists(name))

    def grow():
        server.process.send_signal(signal.SIGUSR1)
        return os.path.getsize(name) == 8192

    def last():
        with open(name, "rb") as f:
            return f.read().splitlines(True)[-1]
    ok("it fills", wait(grow, 20))
    if last().endswith(b"\n"):          # as it happens the line had just the room it needs
        os.truncate(name, 8190)
        wait(grow)
    grow()
    ok("with a line that has gone in part", not last().endswith(b"\n"), last())
    before = cpu(server.process.pid)
    wait(lambda: False, 1)
    took = cpu(server.process.pid) - before
    ok("the master is at rest", took < 0.2, took)
    same("mail is taken", deliver_once(server), 250)
    os.truncate(name, 0)
    server.process.send_signal(signal.SIGUSR1)

    def lines():
        with open(name, "rb") as f:
            return f.read().splitlines()
    ok("once there is room the log has what came meanwhile",
       wait(lambda: sum(b" stored " in l or b" counters " in l for l in lines()) > 1), lines())
    same("all lines but the first are whole", [l for l in lines()[1:] if not LINE.fullmatch(l)], [])
    same("TERM is heard", stop(server.process), 0)


@test
def t15_lines_of_several_workers(db):
    r, w = os.pipe()
    server = Odd(db, options=[], err=w, GSMTP_WORKERS="4", GM_ALLOWED_HOSTS="*")
    os.close(w)
    got = bytearray()

    def reader():
        while True:
            more = os.read(r, 65536)
            if not more:
                return
            got.extend(more)

    t = threading.Thread(target=reader, daemon=True)    # a test that breaks off leaves it
    t.start()
    p = subprocess.run(["smtp-source", "-s", "20", "-m", "2000", "-f", "a@b.example", "-t",
                        "b@test.example", "127.0.0.1:%d" % server.port], timeout=60 * SLOW)
    same("smtp-source is content", p.returncode, 0)
    same("ends with 0", stop(server.process), 0)
    t.join()
    os.close(r)
    lines = bytes(got).split(b"\n")
    same("the last is whole", lines.pop(), b"")
    same("every line is whole", [l for l in lines if not LINE.fullmatch(l)], [])
    same("each mail has its line", sum(b" stored " in l for l in lines), 2000)
    latest, late = b"", 0
    for l in lines:
        late += l[:24] < latest
        latest = max(latest, l[:24])
    ok("in the order of time", late <= len(lines) // 100, "%d of %d are late" % (late, len(lines)))


# -- 16: what a second reading found

@test
def t16_hup_to_every_process(db):
    """As pkill -HUP sends it; the new configuration is a bad one."""
    server = Server(db, GSMTP_TIMEOUT="20")
    held = [session(server.port) for _ in range(8)]
    pids = server.workers()
    server.config["GSMTP_LISTEN"] = "nonsense"
    server.write()
    for pid in pids + [server.process.pid]:
        os.kill(pid, signal.SIGHUP)
    ok("refused", server.logged("reload-error"))
    time.sleep(0.5)
    c = Client(server.port, timeout=3 * SLOW)
    same("a new client is served as before", c.banner[0], 220)
    c.close()
    same("by the same workers", server.workers(), pids)
    same("and the old ones", {c.command("NOOP")[0] for c in held}, {250})
    close(held)
    server.stop()


def pipe_to_master(worker):
    """A descriptor of our own for the pipe by which a worker sends its lines."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = libc.syscall(434, worker, 0)              # pidfd_open()
    pipes = [int(fd) for fd in os.listdir("/proc/%d/fd" % worker) if int(fd) > 2
             and os.readlink("/proc/%d/fd/%s" % (worker, fd)).startswith("pipe:")]
    same("it has a pipe to the master", len(pipes), 1)
    fd = libc.syscall(438, process, pipes[0], 0)        # pidfd_getfd()
    os.close(process)
    return fd


@test
def t16_a_worker_that_writes_without_end(db):
    """The master believes nothing of a worker: not that its lines will come to an end either."""
    server = Server(db)
    pid = server.workers()[0]
    to_master = open(pipe_to_master(pid), "wb", buffering=0)
    writer = subprocess.Popen([sys.executable, "-c", "import os\n"
                               "while True:\n    try: os.write(0, b'\\n' * 65536)\n"
                               "    except BlockingIOError: pass"],
                              stdin=to_master, stderr=subprocess.DEVNULL)
    to_master.close()
    time.sleep(0.5)
    same("mail is stored", deliver_once(server), 250)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(3 * SLOW)
    ok("TERM is heard", set(server.workers()) <= {pid}, server.workers())
    writer.kill()
    writer.wait()
    same("and smtpd ends", stop(server.process), 0)
    for name in server.log_file, server.log_file[:-3] + "err":
        if os.path.exists(name):
            os.unlink(name)                             # hundreds of megabytes


@test
def t16_a_worker_whose_lines_are_too_long(db):
    """None of ours is longer than a pipe takes whole; the master lets such a line fall."""
    server = Server(db)
    to_master = pipe_to_master(server.workers()[0])
    for size in 2047, 2048, 4095, 4096, 5000, 20000, 32767, 32768, 40000:
        os.write(to_master, b"y" * size + b"\n")
        time.sleep(0.05)
    os.write(to_master, b"a line of ours\n")
    os.close(to_master)
    ok("a line behind them is logged", server.logged("a line of ours"))
    ok("they are not", "y" * 4096 not in server.log())
    same("the master lives", server.process.poll(), None)
    same("mail is stored", deliver_once(server), 250)
    same("and smtpd ends", stop(server.process), 0)


def main():
    global tls_binary, CERT, KEY, CERT2, KEY2
    whole = Database()
    tls_binary = build(["tls"], os.path.join(DIR, "tls"))
    secret = os.path.join(DIR, "secret")
    os.makedirs(secret, 0o700, exist_ok=True)
    CERT, KEY = certificate(secret, "one", "one.example")
    CERT2, KEY2 = certificate(secret, "two", "two.example")
    together, apart = [], []
    for t in tests:
        if chosen(t.__name__):
            (apart if hasattr(t, "alone") else together).append(t)

    def one(t):
        db = Table(whole, t.__name__)
        run_test(t, db)
        db.drop()

    waiting = queue.SimpleQueue()
    for t in together:
        waiting.put(t)

    def some():
        with contextlib.suppress(queue.Empty):
            while True:
                one(waiting.get_nowait())

    threads = [threading.Thread(target=some) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for t in apart:
        one(t)
    done()


main()
