#!/usr/bin/env python3
"""CHUNKING and BINARYMIME (RFC 3030), SMTPUTF8 (RFC 6531): dialogues, and the rows after them."""
import sys

sys.dont_write_bytecode = True
from live import Client, Database, Server, done, ok, same, session

MAX = 100000
db = Database()
server = Server(db, GSMTP_MAX_SIZE=str(MAX), GSMTP_TIMEOUT="3", GSMTP_MAX_ERRORS="20",
                GM_ALLOWED_HOSTS="test.example,bücher.example")

FROM = b"MAIL FROM:<a@client.example>\r\n"
RCPT = b"RCPT TO:<b@test.example>\r\n"
HEAD = b"From: a@client.example\r\nTo: b@test.example\r\nSubject: chunk\r\n"


def envelope(param=""):
    return session(server.port, "MAIL FROM:<a@client.example>" + param, "RCPT TO:<b@test.example>")


def bdat(octets, last=False):
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def stored(what, *want):
    """The rows since the last look hold these mails and no other."""
    same(what + ": stored", [row["mail"] for row in db.mails()], list(want))
    db.empty()


def alive(what, c):
    same(what + ": the session goes on", c.command("NOOP")[0], 250)


# -- what is announced

c = Client(server.port)
code, text = c.command("EHLO client.example")
for word in ("CHUNKING", "BINARYMIME", "SMTPUTF8", "8BITMIME", "PIPELINING", "SIZE %d" % MAX):
    ok("EHLO announces " + word, word in text.splitlines(), text)
c.close()

# -- any slicing of one mail

mail = HEAD + b"\r\nline\r\n.\r\n..dots\r\n.leading\r\nQUIT\r\nno end of line"
for size in (1, 2, 3, 7, 50, len(mail) - 1, len(mail)):
    c = envelope()
    for at in range(0, len(mail), size):
        piece = mail[at:at + size]
        c.send(bdat(piece, at + size >= len(mail)))
        code, text = c.reply()
        if code != 250:
            break
    same("chunks of %d: the last reply" % size, code, 250)
    ok("chunks of %d: queued" % size, "queued as" in text, text)
    c.close()
    stored("chunks of %d" % size, mail)

# The same pipelined, in writes that respect no boundary; two mails and QUIT at once.
session_octets = b"EHLO client.example\r\n" + 2 * (
    FROM + RCPT + bdat(mail[:20]) + bdat(b"") + bdat(mail[20:30]) + bdat(mail[30:], True)
) + b"QUIT\r\n"
want = [250] + 2 * [250] * 6 + [221]
for size in (1, 2, 11, 64, 4096):
    c = Client(server.port)
    for at in range(0, len(session_octets), size):
        c.send(session_octets[at:at + size])
    got = [c.reply()[0] for _ in want]
    same("pipelined in writes of %d" % size, got, want)
    ok("pipelined in writes of %d: closed" % size, c.ended())
    stored("pipelined in writes of %d" % size, mail, mail)

c = envelope()
c.send(bdat(mail[:5]) + bdat(mail[5:], True).replace(b"LAST", b"last").replace(b"BDAT", b"bDat"))
same("verb and LAST in any case", [c.reply()[0], c.reply()[0]], [250, 250])
stored("verb and LAST in any case", mail)
c.close()

# -- zero length

c = envelope()
c.send(bdat(mail) + bdat(b"", True))
same("BDAT 0 LAST ends a mail", [c.reply()[0], c.reply()[0]], [250, 250])
alive("BDAT 0 LAST", c)
stored("BDAT 0 LAST", mail)
c.send(FROM + RCPT + bdat(b"", True))
same("a mail of no octets", [c.reply()[0] for _ in range(3)], [250] * 3)
alive("a mail of no octets", c)
stored("a mail of no octets", b"")
c.send(FROM + RCPT + bdat(b"") + bdat(b"") + bdat(mail, True))
same("empty chunks first", [c.reply()[0] for _ in range(5)], [250] * 5)
stored("empty chunks first", mail)
c.close()

# -- octets are octets

binary = HEAD + b"Content-Transfer-Encoding: binary\r\n\r\n" + bytes(range(256)) \
    + b"\n.\n\r.\r\r\n.\r\n\0\n.\r\n.\r\n" + b"x" * 3000 + b"\r"
c = envelope(" BODY=BINARYMIME")
c.send(bdat(binary[:300]) + bdat(binary[300:], True))
same("BINARYMIME", [c.reply()[0], c.reply()[0]], [250, 250])
alive("BINARYMIME", c)
stored("BINARYMIME", binary)
same("DATA after BODY=BINARYMIME is refused (RFC 3030 3)",
     c.codes("MAIL FROM:<a@client.example> BODY=BINARYMIME", "RCPT TO:<b@test.example>", "DATA"),
     [250, 250, 503])
c.send(bdat(mail, True))
same("and BDAT still taken", c.reply()[0], 250)
stored("and BDAT still taken", mail)
for body, code in (("7BIT", 250), ("8bitmime", 250), ("binarymime", 250), ("OTHER", 501), ("", 501)):
    same("BODY=%s" % body, c.codes("MAIL FROM:<> BODY=%s" % body, "RSET"), [code, 250])
c.close()

# -- out of order: the octets of a refused chunk never run

poison = b"NOOP\r\nQUIT\r\nHELP\r\n"
c = session(server.port)
c.send(bdat(poison, True))
same("BDAT without MAIL", c.reply()[0], 503)
alive("BDAT without MAIL", c)
c.command("MAIL FROM:<a@client.example>")
c.send(bdat(poison) + b"NOOP\r\n")
same("BDAT without RCPT", [c.reply()[0], c.reply()[0]], [503, 250])
same("RCPT is taken after that", c.codes("RSET", "MAIL FROM:<>", "RCPT TO:<x@other.example>"),
     [250, 250, 550])
c.send(bdat(poison))
ok("BDAT after a refused RCPT", c.reply()[0] in (503, 554))
alive("BDAT after a refused RCPT", c)
c.command("RSET")
c.send(b"BDAT %d ONCE MORE\r\n" % len(poison) + poison)
same("BDAT with an unknown word", c.reply()[0], 421)
ok("BDAT with an unknown word: closed", c.ended())
c.close()
c = Client(server.port)
c.send(bdat(poison, True))
same("BDAT before EHLO", c.reply()[0], 503)
alive("BDAT before EHLO", c)
c.close()

c = envelope()
c.send(bdat(mail[:10]))
same("mixed: the first chunk", c.reply()[0], 250)
same("mixed: DATA, MAIL, RCPT inside a mail of chunks",
     c.codes("DATA", "MAIL FROM:<>", "RCPT TO:<b@test.example>"), [503] * 3)
same("mixed: RSET ends it, then DATA is taken",
     c.codes("RSET", "MAIL FROM:<a@client.example>", "RCPT TO:<b@test.example>", "DATA"),
     [250, 250, 250, 354])
c.send(mail.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
same("mixed: end of data", c.reply()[0], 250)
stored("mixed", mail + b"\r\n")
c.send(FROM + RCPT + b"DATA\r\nBDAT 5 LAST\r\nhello\r\n.\r\n")
same("BDAT inside DATA is text", [c.reply()[0] for _ in range(4)], [250, 250, 354, 250])
stored("BDAT inside DATA", b"BDAT 5 LAST\r\nhello\r\n")
c.send(FROM + RCPT + bdat(mail[:10]) + b"EHLO client.example\r\n")
same("EHLO ends a mail of chunks", [c.reply()[0] for _ in range(4)], [250] * 4)
c.send(bdat(poison, True))
same("then BDAT is out of order", c.reply()[0], 503)
alive("then BDAT is out of order", c)
c.close()
stored("nothing of these")

# -- lengths

# Where a chunk ends cannot be told then, so no command can be either.
for text in ("", " ", "x", "-1", "+5", "0x5", "5x", "1 1", "1.0"):
    for end in "", " LAST":
        c = envelope()
        c.send(b"BDAT %s%s\r\n" % (text.encode(), end.encode()) + poison)
        same("BDAT %r%s" % (text, end), c.reply()[0], 421)
        same("BDAT %r%s: nothing is run" % (text, end), c.reply()[0], 0)
        c.close()
stored("nothing of bad lengths")

c = envelope()
c.send(bdat(b"x" * (MAX + 1), True))
same("one chunk over the size", c.reply()[0], 552)
alive("one chunk over the size", c)
c.send(FROM + RCPT + bdat(b"y" * 60000) + bdat(b"z" * 60000) + bdat(poison) + bdat(poison, True))
got = [c.reply()[0] for _ in range(6)]
ok("the second chunk over the size", got[:4] == [250, 250, 250, 552] and got[4] in (552, 503)
   and got[5] in (552, 503), got)
alive("the second chunk over the size", c)
c.command("RSET")
c.send(FROM + RCPT + bdat(b"x" * MAX, True))
same("exactly the size", [c.reply()[0] for _ in range(3)], [250] * 3)
stored("exactly the size", b"x" * MAX)
same("SIZE= over the size", c.command("MAIL FROM:<> SIZE=%d" % (MAX + 1))[0], 552)
c.close()

# Lengths that wrap in 32 or 64 bits: what follows is within the chunk for good, so it is
# swallowed or the connection ends. It is never run, and never a mail of five octets.
for length in (2**31, 2**32, 2**32 + 5, 2**63, 2**64, 2**64 + 5, 10**30, 10**300):
    c = envelope()
    c.send(b"BDAT %d LAST\r\nhello" % length + poison)
    got = []
    while not c.silent():
        got.append(c.reply()[0])
        if got[-1] == 0:
            break
    ok("BDAT %.22s: nothing is run" % length, set(got) <= {552, 501, 500, 421, 0}
       and len([g for g in got if g]) <= 2, got)
    c.close()
stored("nothing of endless chunks")

# A chunk that never comes whole is timed out, and the mail is not stored.
c = envelope()
c.send(b"BDAT 1000 LAST\r\nonly this")
same("half a chunk", c.reply()[0], 421)
ok("half a chunk: closed", c.ended())
c = envelope()
c.send(bdat(mail[:30]))
c.reply()
c.close()
stored("nothing of half a chunk")

# -- SMTPUTF8

c = session(server.port)
for what, command, codes in (
        ("SMTPUTF8 sender", "MAIL FROM:<jörg@exämple.example> SMTPUTF8", {250}),
        ("ASCII with SMTPUTF8", "MAIL FROM:<a@client.example> SMTPUTF8 BODY=8BITMIME", {250}),
        ("UTF-8 without SMTPUTF8, as Postfix takes it", "MAIL FROM:<jörg@exämple.example>", {250}),
        ("SMTPUTF8 takes no value", "MAIL FROM:<a@client.example> SMTPUTF8=1", {501, 555}),
        ("bad UTF-8", b"MAIL FROM:<j\xf6rg@client.example> SMTPUTF8", {501, 550, 553}),
        ("half a character", b"MAIL FROM:<j\xc3@client.example> SMTPUTF8", {501, 550, 553}),
        ("overlong form", b"MAIL FROM:<j\xc0\xaf@client.example> SMTPUTF8", {501, 550, 553}),
        ("surrogate", b"MAIL FROM:<j\xed\xa0\x80@client.example> SMTPUTF8", {501, 550, 553})):
    code, text = c.command(command)
    ok(what, code in codes, (code, text))
    c.command("RSET")
c.command("MAIL FROM:<a@client.example>")
same("UTF-8 recipient without SMTPUTF8", c.command("RCPT TO:<müller@test.example>")[0], 250)
c.command("RSET")
got = c.codes("MAIL FROM:<jörg@exämple.example> SMTPUTF8 BODY=8BITMIME",
              "RCPT TO:<müller@test.example>", "RCPT TO:<本@bücher.example>",
              'RCPT TO:<"ß ö"@test.example>', "RCPT TO:<b@test.example>",
              "RCPT TO:<x@bucher.example>", "DATA")
same("SMTPUTF8 recipients", got, [250] * 5 + [550, 354])
text = ("From: Jörg <jörg@exämple.example>\r\nTo: 本 <本@bücher.example>\r\n"
        "Subject: Grüße 🎈\r\n\r\nhallo, wörld\r\n").encode()
c.send(text + b".\r\n")
same("SMTPUTF8 mail", c.reply()[0], 250)
c.close()
rows = db.mails()
same("SMTPUTF8: recipients", [r["recipient"].decode() for r in rows],
     ["müller@test.example", "本@bücher.example", '"ß ö"@test.example', "b@test.example"])
for row in rows[:1]:
    same("SMTPUTF8: from", row["from"].decode(), "jörg@exämple.example")
    same("SMTPUTF8: subject", row["subject"].decode(), "Grüße 🎈")
    same("SMTPUTF8: body", row["body"].decode(), "hallo, wörld\r\n")
    same("SMTPUTF8: mail", row["mail"], text)
    ok("SMTPUTF8: Return-Path", "<jörg@exämple.example>".encode() in row["trace"], row["trace"])
    ok("SMTPUTF8: Received says so (RFC 6531 4.3)", b"with UTF8SMTP" in row["trace"], row["trace"])

server.stop()
done()
