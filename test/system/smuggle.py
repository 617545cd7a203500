#!/usr/bin/env python3
"""SMTP smuggling (CVE-2023-51764 and its kin): only CRLF "." CRLF ends a message.

Each end of data that some server somewhere believes in is sent as data, followed by commands that
would store a second mail. There must be one reply and one row, with every octet as it was sent,
wherever the octets are split on their way. The first line after 354 is as dangerous as the last.
"""
import itertools
import os
import sys
import time

os.environ.setdefault("SMTPD_TEST_PORTS", "2800-2999")
sys.dont_write_bytecode = True
from live import Client, Database, Server, done, ok, same, session

db = Database()
server = Server(db)

ENVELOPE = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n"
SMUGGLED = (b"MAIL FROM:<admin@test.example>\r\nRCPT TO:<victim@test.example>\r\nDATA\r\n"
            b"Subject: smuggled\r\n\r\nsmuggled")
HEAD = b"Subject: honest\r\n\r\nhonest"

BREAKS = (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r", b"\r\0\n", b"\r\n\0", b"\xc2\x85")
DOTS = (b".", b"..", b"\0.", b".\0")


def is_end(octets):
    return b"\r\n.\r\n" in b"\r\n" + octets


def unstuffed(data):
    """The message as a receiver must see it: a dot that starts a line of more is dropped."""
    lines = data.split(b"\r\n")
    return b"\r\n".join(line[1:] if line[:1] == b"." else line for line in lines)


# What comes before the dot, the dot, what comes after; none is the end of data.
VARIANTS = [a + dot + b for a, dot, b in itertools.product((b"",) + BREAKS, DOTS, BREAKS)
            if not is_end(a + dot + b)]


def talk(c, pieces, replies):
    """Sends the pieces in a write each; the codes of as many replies."""
    for n, piece in enumerate(pieces):
        if n:
            time.sleep(0.002)       # so that the server reads them one by one
        c.send(piece)
    return [c.reply() for _ in range(replies)]


def check(what, data, pieces=None):
    """One mail, its end, and NOOP; pieces: how data with its end is split."""
    whole = data + b"\r\n.\r\nNOOP\r\n"
    c = session(server.port)
    got = talk(c, [ENVELOPE], 3)
    got += talk(c, pieces(whole) if pieces else [whole], 2)
    good = [r[0] for r in got] == [250, 250, 354, 250, 250] and \
        got[3][1].startswith("2.0.0 OK: queued") and c.silent(0.005)
    c.close()
    ok(what + ": one reply", good, got)
    expected.append((what, unstuffed(data + b"\r\n")))


def compare(what):
    """The rows so far are these mails, octet by octet."""
    rows = db.mails()
    same(what + ": rows", len(rows), len(expected))
    for (name, mail), row in zip(expected, rows):
        # Not as live.py splits it: a message may begin with a blank.
        same(name + ": the mail", (row["trace"] + row["mail"]).split(b"+0000\r\n", 1)[-1], mail)
    expected.clear()
    db.empty()


expected = []

# -- in the middle, at the beginning and at the end of a message

for v in VARIANTS:
    check("%r within" % v, HEAD + v + SMUGGLED)
    check("%r first" % v, v + SMUGGLED)
    if not is_end(HEAD + v + b"\r\n"):
        check("%r last" % v, HEAD + v)
compare("in one write")

# -- split at every octet, and octet by octet

for v in VARIANTS:
    if v[:1] in b"\r\n" or v[:1] == b".":
        if len(v) < 5:
            for at in range(len(v) + 1):
                check("%r, split at %d" % (v, at), HEAD + v + SMUGGLED,
                      lambda w, n=len(HEAD) + at: [w[:n], w[n:]])
        check("%r first, octet by octet" % v, v + b"NOOP\r\n",
              lambda w: [w[n:n + 1] for n in range(len(w))])
compare("in many writes")

# -- the whole session in one write, split at each octet of the honest end

for v in (b"", b".", b"\n.\n", b"\r\n.\r"):
    mail = HEAD + v + SMUGGLED if v else HEAD
    whole = b"EHLO client.example\r\n" + (ENVELOPE + mail + b"\r\n.\r\n") * 2 + b"QUIT\r\n"
    end = whole.index(b"\r\n.\r\nMAIL FROM:<a@")
    for at in range(end, end + 6):
        c = Client(server.port)
        got = talk(c, [whole[:at], whole[at:]], 10)
        same("two mails in a session, split at end %+d" % (at - end), [r[0] for r in got],
             [250] + [250, 250, 354, 250] * 2 + [221])
        c.close()
        expected += [("pipelined", unstuffed(mail + b"\r\n"))] * 2
compare("pipelined")

# -- BDAT knows no end of data at all: everything is counted octets

for v in (b"\r\n.\r\n",) + tuple(VARIANTS[::17]):
    data = HEAD + v + SMUGGLED
    c = session(server.port)
    got = talk(c, [ENVELOPE[:-6] + b"BDAT %d LAST\r\n" % len(data) + data + b"NOOP\r\n"], 4)
    same("%r in a chunk" % v, [r[0] for r in got], [250] * 4)
    ok("%r in a chunk: nothing else ran" % v, c.silent(0.005))
    c.close()
    expected.append(("%r in a chunk" % v, data))
compare("BDAT")

# -- after what is refused

c = session(server.port)
got = talk(c, [b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@relay.example>\r\nDATA\r\n"
               b"NOOP\r\n.\r\n"], 5)
same("after a refused DATA its lines are commands", [r[0] for r in got], [250, 550, 503, 250, 500])
c.close()
c = session(server.port)
big = (HEAD + b"\n.\n" + SMUGGLED + b"\r\n") * 90000
got = talk(c, [ENVELOPE, big + b".\r\nNOOP\r\n"], 5)
same("what is too big is read to its end, and is no command",
     [r[0] for r in got], [250, 250, 354, 552, 250])
c.close()
compare("refused")

# -- commands: a bare LF or CR ends none, and none is run that holds one

for v in (b"\n", b"\r", b"\n\n", b"\r\r", b"\n\r", b"\0"):
    c = session(server.port)
    c.send(b"NOOP" + v + ENVELOPE[:30] + b"NOOP\r\n")
    got = [c.reply()[0]]
    while got[-1] and not c.silent(0.05):
        got.append(c.reply()[0])
    ok("%r in a command" % v, got[0] == 500 and 221 not in got, got)
    c.close()
compare("commands")
server.stop()
done()
