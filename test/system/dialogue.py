#!/usr/bin/env python3
"""Plays test/system/dialogue/*.smtp three ways: turn by turn, in one write, one octet a write.

The replies and the mails stored must be those written down, whichever way. In a file:

    == name of a dialogue
    @ NAME=value        configuration from here on; a lone @ is the default again
    > line              sent with CRLF; Python's escapes; {x*9} is nine times x
    >> octets           sent as they are
    < reply             a line of the reply begins so; %h: the hash of a mail
    <+ 250              a reply of as many lines as it has
    = octets            a mail that is stored, in this order

At its end the server must have closed the connection. An argument names a file or a part of a
dialogue's name: only these are played.
"""
import glob
import os
import re
import sys

sys.dont_write_bytecode = True
from live import HERE, Client, Database, Server, chosen, done, ok

WAYS = "turn by turn", "in one write", "one octet a write"
CONFIG = {"GM_ALLOWED_HOSTS": "test.example,*.sub.example", "GSMTP_MAX_SIZE": "20000",
          "GSMTP_MAX_RCPT": "3"}


def octets(text):
    text = re.sub(r"\{(.+?)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    return text.encode().decode("unicode_escape").encode("latin-1")


def read(name):
    """The dialogues of a file: name, configuration, turns of (sent, expected), mails."""
    config, found = {}, []
    for n, line in enumerate(open(name, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        mark, _, rest = line.partition(" ")
        if mark == "==":
            turns, mails = [[b"", []]], []
            found.append((os.path.basename(name)[:-5] + ": " + rest, dict(config), turns, mails))
        elif mark == "@":
            config.update([rest.split("=", 1)]) if rest else config.clear()
        elif mark in (">", ">>"):
            if turns[-1][1]:
                turns.append([b"", []])
            turns[-1][0] += octets(rest) + (b"\r\n" if mark == ">" else b"")
        elif mark in ("<", "<+"):
            turns[-1][1].append((mark, rest))
        elif mark == "=":
            mails.append(octets(rest))
        elif line and mark[0] != "#":
            raise SystemExit("%s:%d: what is this?" % (name, n))
    return found


def matches(line, expected):
    pattern = re.escape(expected).replace("%h", "[0-9a-f]{32}")
    return re.match(pattern.encode(), line) is not None


class Conversation(Client):
    def line(self):
        try:
            return super().line()
        except EOFError:
            return None

    def hear(self, expected):
        """What is wrong with the next reply, or None."""
        mark, text = expected
        while True:
            line = self.line()
            if line is None:
                return "want %r, got the end" % text
            if not matches(line, text) or len(line) > 510:
                return "want %r, got %r" % (text, line[:600])
            if mark == "<" or line[3:4] == b" ":
                return None

    def play(self, turns, way):
        if way == WAYS[0]:
            for sent, expected in turns:
                self.sock.sendall(sent)
                for e in expected:
                    wrong = self.hear(e)
                    if wrong:
                        return wrong
        else:
            everything = b"".join(sent for sent, _ in turns)
            step = len(everything) if way == WAYS[1] else 1
            for i in range(0, len(everything), step):
                try:
                    self.sock.send(everything[i:i + step])
                except OSError:         # the server may end it before we do
                    break
            for e in (e for _, expected in turns for e in expected):
                wrong = self.hear(e)
                if wrong:
                    return wrong
        line = self.line()
        return None if line is None else "want the end, got %r" % line


def play(dialogue, way, port, db):
    name, _, turns, mails = dialogue
    c = Conversation(port, greet=False)
    try:
        wrong = c.play(turns, way)
    except OSError as e:
        wrong = repr(e)
    c.close()
    ok("%s, %s" % (name, way), not wrong, wrong)
    stored = [row["mail"] for row in db.mails()]
    ok("%s, %s: mails stored" % (name, way), stored == mails, (stored, mails))
    if stored:
        db.empty()


def main():
    db = Database()
    config = server = None
    for name in sorted(glob.glob(os.path.join(HERE, "dialogue", "*.smtp"))):
        for dialogue in read(name):
            if not chosen(dialogue[0]):
                continue
            if dialogue[1] != config:
                if server:
                    server.stop()
                config = dialogue[1]
                server = Server(db, **dict(CONFIG, **config))
            for way in WAYS:
                play(dialogue, way, server.port, db)
    server.stop()
    done()


main()
