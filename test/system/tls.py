#!/usr/bin/env python3
"""STARTTLS (RFC 3207): a `make tls' of its own, with the clients there are."""
import os
import re
import select
import shutil
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from live import (DIR, Client, Database, Postfix, Server, Stopwatch, build, certificate, context,
                  deliver, done, ok, run, same, secure, session, smtpd, starttls, wait)

MAIL = b"From: a@client.example\r\nTo: b@test.example\r\nSubject: tls\r\n\r\nbody\r\n"


def greeted(where, version=None):
    """A client that is past STARTTLS, and has said EHLO again."""
    c = starttls(where, version)
    same("EHLO after STARTTLS", c.command("EHLO client.example")[0], 250)
    return c


def taken(c, mail=MAIL, to=("b@test.example",)):
    """Of a mail whose commands come in one write."""
    return deliver(c, mail, to, "a@client.example", at_once=True)[0]


def served_cn(where):
    c = starttls(where)
    der = c.sock.getpeercert(True)
    c.close()
    return run(["openssl", "x509", "-inform", "DER", "-noout", "-subject"], der)[1].strip()[-20:]


db = Database()

# -- a plain build knows nothing of it

plain = build(["smtpd"], os.path.join(DIR, "plain"))
# What the client library itself loads does not count: only what smtpd is linked with.
ok("plain: libssl is not linked", "libssl" not in run(["readelf", "-d", plain])[1])
ok("plain: nothing of OpenSSL is in it", "SSL_" not in run(["nm", "-u", plain])[1])
server = Server(db, binary=plain)
c = Client(server.port)
ok("plain: STARTTLS is not offered", "STARTTLS" not in c.command("EHLO client.example")[1])
ok("plain: STARTTLS is no command", c.command("STARTTLS")[0] in (500, 502, 503))
same("plain: the session goes on", c.command("NOOP")[0], 250)
c.close()
server.stop()

# -- what an operator may get wrong

secret = os.path.join(DIR, "secret")
shutil.rmtree(secret, ignore_errors=True)
os.makedirs(secret, 0o700)
cert, key = certificate(secret, "one", "one.example")
cert2, key2 = certificate(secret, "two", "two.example", "-newkey", "ec", "-pkeyopt",
                          "ec_paramgen_curve:P-256")
spare = certificate(secret, "three", "three.example")
tls = build(["tls"], os.path.join(DIR, "tls"))
ok("tls: libssl is linked", "libssl" in run(["readelf", "-d", tls])[1])


locked = [key + ".locked", key + ".old"]
for name, form in zip(locked, ([], ["-traditional"])):
    same("openssl " + name, run(["openssl", "rsa", "-in", key, "-aes128", "-passout", "pass:word",
                                 "-out", name] + form)[0], 0)
expired = os.path.join(secret, "past.pem")
same("openssl " + expired, run(["openssl", "x509", "-in", cert, "-signkey", key, "-days", "-1",
                                "-out", expired])[0], 0)
both = os.path.join(secret, "both.pem")
with open(both, "w") as f:
    f.writelines(open(name).read() for name in (cert, key))


for what, binary, a, b, status, words in (
        ("good", tls, cert, key, 0, "valid until"),
        ("both in one file", tls, both, "", 0, "valid until"),
        ("no key in that file", tls, cert, "", 1, "no private key"),
        ("expired", tls, expired, key, 0, "EXPIRED on"),
        ("plain build", plain, cert, key, 1, "make tls"),
        ("no certificate file", tls, "/nonexistent.pem", key, 1, "/nonexistent.pem"),
        ("no key file", tls, cert, "/nonexistent.key", 1, "/nonexistent.key"),
        ("key of another certificate", tls, cert, key2, 1, key2),
        ("key with a passphrase", tls, cert, locked[0], 1, "passphrase"),
        ("key with a passphrase, as of old", tls, cert, locked[1], 1, "passphrase"),
        ("certificate that is none", tls, "/etc/passwd", key, 1, "/etc/passwd")):
    code, text = smtpd(db, "-t", binary=binary, GSMTP_TLS_CERT=a, GSMTP_TLS_KEY=b)
    ok("-t, " + what, code == status and words in text, (code, text))

# -- the protocol

server = Server(db, binary=tls, GSMTP_TLS_CERT=cert, GSMTP_TLS_KEY=key, GSMTP_TIMEOUT="4",
                MAX_SMTP_CLIENTS="200")
where = server.port
c = session(where)
ok("STARTTLS is offered", "STARTTLS" in c.command("EHLO client.example")[1].splitlines())
same("STARTTLS with an argument", c.command("STARTTLS now")[0], 501)
c.close()
for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
    c = starttls(where, version)
    same(name, c.sock.version(), name)
    same(name + ": EHLO is required again", c.command("MAIL FROM:<a@client.example>")[0], 503)
    code, text = c.command("EHLO client.example")
    ok(name + ": STARTTLS is not offered again", code == 250 and "STARTTLS" not in text, text)
    ok(name + ": the rest is", "CHUNKING" in text and "SIZE" in text, text)
    same(name + ": STARTTLS again", c.command("STARTTLS")[0], 503)
    same(name + ": a mail", taken(c), 250)
    same(name + ": QUIT", c.command("QUIT")[0], 221)
    ok(name + ": closed", c.ended())
    row = db.mails()[-1]
    same(name + ": the row", row["mail"], MAIL)
    ok(name + ": Received", b"with ESMTPS " in row["trace"], row["trace"])
    ok(name + ": Received names version and cipher", re.search(
        name.encode() + rb" (TLS_AES|ECDHE-RSA)[A-Z0-9_-]+\)", row["trace"]), row["trace"])
    ok(name + ": logged", server.logged(name))
for what, how in ("without a word", struct.pack("ii", 0, 0)), ("with RST", struct.pack("ii", 1, 0)):
    c = starttls(where)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
    c.close()
    ok("a client that leaves %s: its session ends" % what, server.empty())
ok("which is no error of TLS", "tls-error" not in server.log(), server.log())
db.empty()
c = session(where)
same("without TLS: still taken", taken(c), 250)
ok("without TLS: with ESMTP", b"with ESMTP " in db.mails()[-1]["trace"], db.mails()[-1]["trace"])
c.close()
c = greeted(where)
c.command("MAIL FROM:<a@client.example> SMTPUTF8")
c.command("RCPT TO:<b@test.example>")
c.command("DATA")
same("SMTPUTF8 over TLS", c.command(MAIL + b".")[0], 250)
ok("SMTPUTF8 over TLS: with UTF8SMTPS", b"with UTF8SMTPS" in db.mails()[-1]["trace"])
c.close()

# CVE-2011-0411: what came in plain text with STARTTLS is gone after it.
db.empty()
c = session(where, hello="EHLO before.example")
c.send(b"STARTTLS\r\nRSET\r\nEHLO injected.example\r\nMAIL FROM:<injected@client.example>\r\n")
same("injection: STARTTLS", c.reply()[0], 220)
secure(c)
ok("injection: no reply to it", c.silent())
same("injection: nothing of before is left",
     c.codes("RCPT TO:<b@test.example>", "DATA", "EHLO client.example", "RCPT TO:<b@test.example>"),
     [503, 503, 250, 503])
same("injection: a mail", taken(c), 250)
trace = db.mails()[-1]["trace"]
ok("injection: not in the mail", b"inject" not in trace and b"before" not in trace, trace)
c.close()

# Records do not respect commands, nor commands records.
db.empty()
c = greeted(where)
pipelined = b"NOOP\r\n" * 2500		# 15,000 octets, one record
c.send(pipelined)
same("a record full of commands", [c.reply()[0] for _ in range(2500)], [250] * 2500)
for octet in b"NOOP\r\n":
    c.send(bytes([octet]))
same("a record for each octet", c.reply()[0], 250)
big = MAIL + b"0123456789 abcdefghijklmnopqrstuvwxyz\r\n" * 130000
same("5 MB", taken(c, big, ("x@test.example", "y@test.example")), 250)
rows = db.mails()
same("5 MB: two rows, exact", [r["mail"] == big for r in rows], [True, True])
c.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@test.example>\r\nBDAT %d LAST\r\n" % len(MAIL)
       + MAIL + b"QUIT\r\n")
same("BDAT over TLS", [c.reply()[0] for _ in range(4)], [250, 250, 250, 221])
ok("QUIT in the same record closes", c.ended())
db.empty()

# A client that does not read its replies is not read either; nothing of them is lost.
for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
    c = greeted(where, version)
    for buffer in socket.SO_RCVBUF, socket.SO_SNDBUF:
        c.sock.setsockopt(socket.SOL_SOCKET, buffer, 65536)
    c.sock.setblocking(False)
    block, sent = b"HELP\r\n" * 1000, 0
    while sent < 8000000:
        try:
            sent += c.sock.send(block[sent % len(block):])
        except ssl.SSLWantWriteError:
            if not select.select([], [c.sock], [], 1)[1]:
                break
    ok("%s: input stops where output does" % version.name, 0 < sent < 8000000, sent)
    c.sock.settimeout(60)
    same("%s: then every reply comes" % version.name,
         {c.reply()[0] for _ in range(sent // 6)}, {214})
    c.close()

# TLS 1.3 changes keys in the middle of a session when the client asks.
# (It takes a K for that only where it is alone in what it reads: so each line has its effect first.)
said = os.path.join(DIR, "key-updates")
with open(said, "wb") as f:
    p = subprocess.Popen(["openssl", "s_client", "-starttls", "smtp", "-crlf", "-tls1_3", "-connect",
                          "127.0.0.1:%d" % where], stdin=subprocess.PIPE, stdout=f,
                         stderr=subprocess.STDOUT)


def says(what, times=1):
    with open(said, "rb") as f:
        return f.read().count(what) >= times


for line, answer, times in ((b"EHLO client.example", b"250 HELP", 2), (b"K", b"KEYUPDATE", 1),
                            (b"NOOP", b"250 2.0.0", 1), (b"k", b"KEYUPDATE", 2),
                            (b"VRFY someone", b"252 2.1.5", 1), (b"K", b"KEYUPDATE", 3),
                            (b"EXPN someone", b"502 5.5.1", 1)):
    wait(lambda: says(b"Verify return code") or says(b"250 HELP"), 10)
    p.stdin.write(line + b"\n")
    p.stdin.flush()
    wait(lambda: says(answer, times), 5)
p.communicate(b"Q\n", 60)
with open(said, "rb") as f:
    text = f.read()
ok("key updates", text.count(b"KEYUPDATE") == 3 and b"250 2.0.0" in text and b"252 2.1.5" in text
   and b"502 5.5.1" in text, text[-600:])
db.empty()

# What came in the clear behind STARTTLS never runs, whatever waits for the client to read it.
INJECTED = (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<evil@test.example>\r\n"
            b"DATA\r\nSubject: e")
c = session(where)
c.send(b"EHLO x\r\n")
hello = 0		# octets of that reply
while True:
    line = c.line()
    hello += len(line) + 2
    if line[3:4] != b"-":
        break
c.close()
filled = 8192		# smtpd's OUT_MAX: the 220 is the reply that reaches it
for octets in 0, filled - 24, filled - 1, filled + 100:
    before = b"EHLO x\r\n" * (octets // hello) + b"NOOP\r\n" * (octets % hello // len("250 2.0.0 OK\r\n"))
    text = before + b"STARTTLS\r\n" + INJECTED
    ok("that is one read", len(text) < 512, len(text))
    c = session(where)
    c.send(text)
    for _ in range(before.count(b"\n")):
        c.reply()
    same("220 behind %d octets of replies" % octets, c.reply()[0], 220)
    secure(c)
    same("injected behind %d octets of replies: no mail begun" % octets,
         c.codes("RCPT TO:<b@test.example>", "EHLO x"), [503, 250])
    c.close()

# A client that hangs up in the middle of anything leaves the server as it was.
for first in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00", b"EHLO x\r\nMAIL FROM:<>\r\n",
              b"\x80\x2e\x01\x00\x02", bytes(range(256)) * 200):
    c = session(where)
    c.command("STARTTLS")
    c.send(first)
    c.close()
c = greeted(where)
c.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nhalf a mail\r\n")
c.sock.shutdown(socket.SHUT_RDWR)
c.close()
c = session(where)
c.command("STARTTLS")
c.send(b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@test.example>\r\n")
ok("plain text for a handshake: closed", c.ended())
ok("plain text for a handshake: logged", server.logged("wrong version number"))
c = greeted(where)
same("others are served", taken(c), 250)
c.close()
same("no half mail is stored", len(db.mails()), 1)

# Time: a handshake has as long as a command has, whatever trickles in.
watch = Stopwatch()
c = session(where)
c.command("STARTTLS")
ok("a silent handshake is closed", c.ended(9))
ok("a silent handshake: not before its time", watch.all() > 3)
watch = Stopwatch()
c = session(where)
c.command("STARTTLS")
hello = ssl.MemoryBIO()
trickle = context().wrap_bio(ssl.MemoryBIO(), hello)
try:
    trickle.do_handshake()
except ssl.SSLWantReadError:
    pass
closed = None
for octet in hello.read():
    try:
        c.send(bytes([octet]))
        time.sleep(0.2)
    except OSError:
        closed = watch.took()
        break
    if watch.over(12):
        break
ok("a trickling handshake is closed in time", closed and 3 < watch.all() and closed < 9, closed)
c.close()

# Many at once, handshakes interleaved.
many = [session(where) for _ in range(60)]
for c in many:
    c.send(b"STARTTLS\r\n")
for c in many:
    c.reply()
    secure(c)
for c in many:
    c.send(b"EHLO client.example\r\n")
same("60 sessions at once", {c.reply()[0] for c in many}, {250})
same("60 mails", {taken(c) for c in many}, {250})
for c in many:
    c.close()
same("60 rows", len(db.mails()), 61)
db.empty()

# -- clients

at = "127.0.0.1:%d" % where
legacy = ["-cipher", "ALL:@SECLEVEL=0"]
for flag, good in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
    code, text = run(["openssl", "s_client", "-starttls", "smtp", "-connect", at, flag]
                     + (legacy if not good else []), b"QUIT\r\n")
    same("openssl s_client %s" % flag, "BEGIN CERTIFICATE" in text, good)
ok("a refused version is logged", server.logged("unsupported protocol"))
code, text = run(["openssl", "s_client", "-starttls", "smtp", "-connect", at, "-tls1_2",
                  "-cipher", "aNULL:kRSA:@SECLEVEL=0"])
ok("no anonymous cipher and none without forward secrecy", "BEGIN CERT" not in text, text)
code, text = run(["openssl", "s_client", "-starttls", "smtp", "-connect", at, "-tls1_2",
                  "-no_ticket", "-reconnect"])
ok("sessions are not resumed", "Reused" not in text and "New, TLSv1.2" in text, text[-500:])

same("swaks --tls", run(["swaks", "-tls", "-s", "127.0.0.1", "-p", str(where), "-f",
                         "a@client.example", "-t", "swaks@test.example"])[0], 0)
file = os.path.join(DIR, "mail.txt")
with open(file, "wb") as f:
    f.write(MAIL)
code, text = run(["curl", "-sS", "--ssl-reqd", "-k", "smtp://" + at, "--mail-from",
                  "a@client.example", "--mail-rcpt", "curl@test.example", "-T", file])
same("curl --ssl-reqd", (code, text), (0, ""))
with open(file, "rb") as f:
    code, text = run(["msmtp", "-C", "/dev/null", "--host=127.0.0.1", "--port=%d" % where,
                      "--tls=on", "--tls-starttls=on", "--tls-certcheck=off",
                      "--from=a@client.example", "msmtp@test.example"], f.read())
same("msmtp --tls", (code, text), (0, ""))
s = smtplib.SMTP("127.0.0.1", where, "client.example", 10)
s.starttls(context=context())
s.sendmail("a@client.example", ["python@test.example"], MAIL)
s.quit()
postfix = Postfix(where, smtp_tls_security_level="encrypt", smtp_tls_loglevel=1)
for n in range(3):
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example", 10) as s:
        s.sendmail("a@client.example", ["postfix%d@test.example" % n], MAIL)
ok("Postfix delivers", wait(lambda: len(db.mails()) >= 7, 20), postfix.log())
ok("Postfix speaks TLS 1.3", "TLS connection established" in postfix.log()
   and "TLSv1.3" in postfix.log(), postfix.log())
postfix.stop()
rows = {r["recipient"].decode().split("@")[0]: r for r in db.mails()}
same("each has its row", sorted(rows), ["curl", "msmtp", "postfix0", "postfix1", "postfix2",
                                        "python", "swaks"])
for name, row in rows.items():
    ok(name + ": with ESMTPS, or UTF8SMTPS where it asks for SMTPUTF8",
       b"with ESMTPS" in row["trace"] or b"with UTF8SMTPS" in row["trace"], row["trace"])

# -- a new certificate on HUP

same("the certificate", served_cn(where)[-11:], "one.example")
kept = greeted(where)
for name, new in ((cert, cert2), (key, key2)):
    os.replace(new, name)
server.hup()
ok("HUP: the new certificate", wait(lambda: served_cn(where).endswith("two.example"), 10))
same("HUP: a session of before goes on", taken(kept), 250)
kept.close()
with open(cert, "w") as f:
    f.write("no certificate\n")
server.hup()
ok("HUP with a bad certificate: logged", server.logged("no certificate"))
time.sleep(1)
same("HUP with a bad certificate: the old one stays", served_cn(where)[-11:], "two.example")
os.unlink(cert)
server.hup()
ok("HUP without the certificate: logged", server.logged("No such file"))
same("HUP without the certificate: the old one stays", served_cn(where)[-11:], "two.example")
kept = greeted(where)
del server.config["GSMTP_TLS_CERT"], server.config["GSMTP_TLS_KEY"]
server.config["GSMTP_PROXY_FROM"] = "127.0.0.3"
server.write()
server.hup()


def offered():
    with session(where) as c:
        return "STARTTLS" in c.command("EHLO client.example")[1]


ok("HUP: no certificate any more, no STARTTLS", wait(lambda: not offered(), 5))
same("HUP: but a session of before goes on", taken(kept), 250)
kept.close()
for old, new in ((cert, spare[0]), (key, spare[1])):
    shutil.copy(new, old)
server.config.update(GSMTP_TLS_CERT=cert, GSMTP_TLS_KEY=key)
server.write()
server.hup()
ok("HUP: a certificate again", wait(offered, 5))
# For a moment a worker of the old generation may still take a connection.
ok("and the new one", wait(lambda: offered() and served_cn(where)[-13:] == "three.example", 5))

# Behind a proxy: its header in the clear, then TLS with the client.
db.empty()
c = Client(where, source="127.0.0.3", greet=False)
c.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n")
same("behind a proxy", [c.reply()[0], c.command("EHLO client.example")[0],
                        c.command("STARTTLS")[0]], [220, 250, 220])
secure(c)
c.command("EHLO client.example")
same("behind a proxy: a mail", taken(c), 250)
trace = db.mails()[-1]["trace"]
ok("behind a proxy: Received", b"[198.51.100.7]" in trace and b"with ESMTPS" in trace, trace)
c.close()

if os.getuid() == 0:
    workers = run(["ps", "-o", "pid=,uid=", "--ppid", str(server.process.pid)])[1].split()
    ok("workers are not root, the key is root's", workers and "0" not in workers[1::2]
       and os.stat(key).st_uid == 0 and os.stat(key).st_mode & 0o077 == 0, workers)
server.stop()
done()
