#!/usr/bin/env python3
"""What a client says is data: in the log, in the SQL, in the row, in the trace fields.

Control octets, forged lines, format directives, quotes, backslashes and invalid UTF-8 go into every
field a client controls. The log must show them escaped on the one line they belong to, the row must
hold them as sent, the table must still be there.
"""
import os
import re
import sys

os.environ.setdefault("SMTPD_TEST_PORTS", "2800-2999")
sys.dont_write_bytecode = True
from live import Client, Database, Server, deliver, done, ok, same, session, stop, wait

db = Database()
server = Server(db, GSMTP_VERBOSE="1", GSMTP_MAX_ERRORS="1000")

FORGED = b"2026-11-23T00:00:00.000Z 1 1 stored hash=0 from=<forged@a.example> code=250"
PRINTABLE = (b"'", b"''", b'"', b"\\", b"\\'", b"'\\", b"\\\\'", b"`", b"%n%s%x%1000000d", b"%",
             b"${x}", b"');DROP TABLE new_mail;--", b"' OR '1'='1", b"/*", b"*/", b"-- ", b"#",
             b";", b"$(reboot)", b"@m", b"_binary'", b"0x41", b"code=250", FORGED)
CONTROL = (b"\0", b"\r", b"\n", b"\t", b"\b", b"\x1b[2J", b"\x7f", b"\x1a", b"\n" + FORGED,
           b"\r" + FORGED, b"x\0y")
EIGHT_BIT = (b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x80",
             b"\xf0\x9f\x92", b"\xbf\x27", b"\xbf\x5c\x27", b"\x81\x5c")
UTF8 = tuple(t.encode() for t in ("\u00e9", "\U0001f44b", "\u202e", "\ufeff", "\u2028", "\x85"))
ALL = PRINTABLE + CONTROL + EIGHT_BIT + UTF8
sent = 0


def lines():
    """The log's lines; each must be what log_line() makes."""
    with open(server.log_file, "rb") as f:
        return f.read().split(b"\n")[:-1]


def unescaped(text):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), text)


def logged(what, words):
    """One line of the log holds exactly this, and nothing else of it is a line."""
    found = wait(lambda: [l for l in lines() if words in unescaped(l)], 3)
    ok(what + ": in one line of the log, escaped",
       found and all(re.fullmatch(rb"[ -~]*", l) for l in found), found)


class Printable(Client):
    """None of its replies holds a control octet."""

    def reply(self):
        code, text = super().reply()
        ok("no control octet in a reply", re.fullmatch("[ -~\x80-\xff\n]*", text), text)
        return code, text


def transaction(sender=b"a@client.example", rcpt=b"b@test.example", mail=b"\r\n",
                helo=b"client.example"):
    """The code that ends it, in a session of its own."""
    global sent
    with Printable(server.port) as c:
        code = deliver(c, mail, [rcpt], sender, b"EHLO " + helo)[0]
        sent += code == 250
        return code


def row(what):
    rows = db.mails()
    db.empty()
    return rows[0] if same(what + ": one row", len(rows), 1) else None


def trace(what, r):
    """Return-Path and Received are whole lines of their own, with nothing that could add one."""
    text = r["trace"]
    ok(what + ": trace fields are two fields of printable text", re.fullmatch(
        rb"Return-Path: <[^\r\n\0]*>\r\n"
        rb"Received: [^\0-\x1f\x7f]*(\r\n\t[^\0-\x1f\x7f]*)*\r\n", text), text)


# -- commands: the verb, its argument, the host name, parameters

for p in ALL:
    for before, after in ((b"", b""), (b"NOOP ", b""), (b"HELO ", b""), (b"EHLO ", b""),
                          (b"VRFY ", b""), (b"MAIL FROM:<a@b.example> ", b""),
                          (b"MAIL FROM:<", b">"), (b"RCPT TO:<", b"@test.example>"),
                          (b"BDAT ", b"")):
        if p == b"\n" or before + p in (b"", b"#"):
            continue
        what = "%r" % (before + p + after)
        with session(server.port) as c:
            code, text = c.command(before + p + after)
            ok(what + ": an answer", code != 0, text)
            ok(what + ": no control octet in it", re.fullmatch("[ -~\x80-\xff\n]*", text), text)
            if any(o < 32 or o == 127 for o in p):
                same(what + ": a control octet is refused", code, 500)
        if not any(o < 32 or o == 127 for o in p) and len(p) > 3:
            logged(what, b"command " + (before + p + after).rstrip())
db.empty()

# -- the envelope, as far as it is taken: the row, the trace fields, the line of the log

for p in PRINTABLE + UTF8:
    what = "%r in an address" % p
    local = b'"%s"' % p.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    code = transaction(local + b"@client.example", local + b"@test.example", b"Subject: x\r\n\r\n")
    if not same(what + ": taken", code, 250):
        continue
    r = row(what)
    lower = re.sub(rb"[A-Z]", lambda m: m[0].lower(), local)
    same(what + ": recipient", r["recipient"], lower + b"@test.example")
    same(what + ": to", r["to"], lower + b"@test.example")
    same(what + ": from", r["from"], lower + b"@client.example")
    trace(what, r)
    ok(what + ": Return-Path",
       r["trace"].startswith(b"Return-Path: <%s@client.example>\r\n" % local), r)
for p in EIGHT_BIT:
    same("%r in a reverse-path is refused" % p, transaction(b"x%s@a.example" % p), 553)
    same("%r in a forward-path is refused" % p, transaction(rcpt=b"x%s@test.example" % p), 553)
for p in PRINTABLE + UTF8 + EIGHT_BIT:
    what = "%r as a host name" % p
    same(what + ": taken", transaction(helo=p), 250)
    trace(what, row(what))

# -- addresses of which the line of the log cannot show all: what else it says is whole

long_one = "\u00e9".encode() * 153 + b"@test.example"
same("addresses of 319 octets: taken",
     transaction(long_one, long_one, b"Subject: x\r\n\r\n"), 250)
same("addresses of 319 octets: recipient", row("addresses of 319 octets")["recipient"], long_one)
cut = [l for l in lines() if re.search(rb" stored .* code=250 client=127\.0\.0\.1 .*(\\xc3\\xa9){9}", l)]
same("addresses of 319 octets: a line with code and client", len(cut), 1)

# -- the message: header fields, labels, bodies

for p in ALL:
    what = "%r in a message" % p
    name = p.replace(b"\r", b"").replace(b"\n", b"")
    mail = (b"From: \"" + p + b"\" <\"" + name + b"\"@From.example>\r\nTo: " + p +
            b"\r\nSubject: <" + p + b">\r\nMIME-Version: 1.0\r\nX-" + p + b": " + p +
            b"\r\nContent-Type: text/html; charset=\"" + p + b"\"\r\n\r\n" + p + b"\r\n")
    if not same(what + ": taken", transaction(mail=mail), 250):
        continue
    r = row(what)
    same(what + ": every octet", r["mail"], mail)
    for column in "subject", "body", "from", "charset", "content_type":
        try:
            r[column].decode()
        except UnicodeDecodeError:
            ok(what + ": UTF-8 in column " + column, False, r[column])
        if column not in ("body", "subject"):
            ok(what + ": one line in column " + column,
               not re.search(rb"[\r\n\0]", r[column]), r[column])
    if p in PRINTABLE + UTF8:
        same(what + ": subject", r["subject"], b"<" + p + b">")
        same(what + ": body", r["body"], p.replace("\ufeff".encode(), b"") + b"\r\n")
for label in ALL:
    mail = b"MIME-Version: 1.0\r\nContent-Type: text/" + label + b"; charset=x\r\n" + \
        b"Content-Transfer-Encoding: " + label + b"\r\n\r\nx\r\n"
    what = "%r as a label" % label
    if same(what + ": taken", transaction(mail=mail), 250):
        same(what + ": every octet", row(what)["mail"], mail)

# -- the log as a whole, and the table

wait(lambda: sum(re.match(rb"\S+ \d+ \d+ stored ", l) is not None for l in lines()) >= sent, 5)
bad = [l for l in lines() if not re.fullmatch(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ \d+ [a-z][a-z-]*( [ -~]*)?", l)]
same("the log: each line has its time, process, session, event", bad, [])
same("the log: a line for each mail stored, none forged",
     len([l for l in lines() if re.match(rb"\S+ \d+ \d+ stored ", l)]), sent)
for l in lines():
    if re.match(rb"\S+ \d+ \d+ stored ", l) and l not in cut:
        ok("the log: values stay within their <>", re.fullmatch(
            rb"\S+ \d+ \d+ stored hash=[0-9a-f]{32} code=250 client=127\.0\.0\.1 tls=- rcpts=1 "
            rb"size=\d+ wait=\d+ms from=<[^ <>]*> to=<[^ <>]*>", l), l)
same("the table is there, and empty", db.count(), 0)
with open(server.log_file[:-3] + "err", "rb") as f:
    ok("the console shows nothing but printable text", re.fullmatch(rb"[ -~\n]*", f.read()))
same("smtpd ends with 0", stop(server.process), 0)
done()
