#!/usr/bin/env python3
"""The same mails to two builds of smtpd: every column must be the same.

SMTPD_TEST_BINARY is the one that is compared with the native build; test/ports calls this. With the
argument 2040 it only sends a mail to a build that is told so of the year.
"""
import glob
import os
import re
import sys

sys.dont_write_bytecode = True
from live import BINARY, ROOT, TEST, Database, Server, deliver, done, ok, same, session
from e2e import MAIL


def mails():
    yield "e2e", MAIL, ["b@test.example", "C@Test.Example", '"a b"@test.example']
    for name in sorted(glob.glob(os.path.join(TEST, "*.eml")) +
                       glob.glob(os.path.join(TEST, "unit", "seeds-mime", "*"))):
        with open(name, "rb") as f:
            mail = f.read()
        if name.endswith(".eml"):
            mail = mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if not mail.endswith(b"\r\n"):
            mail += b"\r\n"
        yield os.path.basename(name), mail, ["b@test.example"]
    every = bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"")
    for charset in "iso-8859-1", "windows-1251", "koi8-r", "utf-8", "us-ascii", "x-unknown":
        head = "Subject: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\n\r\n"
        yield "octets in " + charset, (head % (charset, charset)).encode() + every + b"\r\n", \
            ["b@test.example"]
    yield "large", b"Subject: large\r\n\r\n" + every * 8000 + b"\r\n", ["b@test.example"]
    yield "many", MAIL + every * 100 + b"\r\n", ["r%d@test.example" % i for i in range(100)]


def rows(db, binary):
    server = Server(db, binary, GM_PRIMARY_MAIL_HOST="main.example")
    c = session(server.port)
    replies = []
    for name, mail, to in mails():
        code, text = deliver(c, mail, to)
        replies.append((name, code, text))
    c.close()
    server.stop()
    found = db.mails()
    db.empty()
    return replies, found


def compare(db):
    replies, native = rows(db, os.path.join(ROOT, "smtpd"))
    other_replies, other = rows(db, BINARY)
    for a, b in zip(replies, other_replies):
        same(a[0] + ": its reply", b, a)
        same(a[0] + ": taken", a[1], 250)
    names = [name for name, mail, to in mails() for _ in to]
    same("as many rows", (len(native), len(other)), (len(names), len(names)))
    for name, a, b in zip(names, native, other):
        for column in a:
            if column == "trace":
                a[column], b[column] = (re.sub(rb"id \S+|\w\w\w, .*", b"-", r[column])
                                        for r in (a, b))
            same("%s: %s" % (name, column), b[column], a[column])


def year(db):
    server = Server(db, BINARY)
    c = session(server.port)
    same("taken", deliver(c, MAIL)[0], 250)
    c.close()
    server.stop()
    same("column date", db.sql("SELECT YEAR(date) FROM new_mail"), b"2040\n")
    ok("Received", b" 2040 " in db.mails()[0]["trace"], db.mails()[0]["trace"])
    ok("the log", re.search("(?m)^2040-", server.log()), server.log())


if __name__ == "__main__":
    database = Database()
    if "2040" in sys.argv:
        year(database)
    else:
        compare(database)
    done()
