#!/usr/bin/env python3
"""Real senders: each delivers five kinds of mail through its own queue, and the rows are checked.

Postfix, Exim, OpenSMTPD and nullmailer exclude one another, so they are installed one after the
other in a chroot of their own (debootstrap, as root, kept in test/.run for the next time); nothing
of the host is touched. `senders.py exim curl' runs these alone.
"""
import os
import shutil
import smtplib
import sys

sys.dont_write_bytecode = True
from live import (DIR, KEPT, Database, Server, checked, chosen, debootstrap, done, ok, same, start, stop,
                  wait)

ROOT = os.path.join(KEPT, "root")
FROM = "sender@client.example"


def inside(*argv, stdin=b"", user=None):
    return checked(["chroot"] + (["--userspec=" + user] if user else []) + [ROOT] + list(argv), stdin,
                   seconds=180, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                     "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"})


def install(*packages):
    inside("apt-get", "install", "-y", "-qq", "--no-install-recommends",
           "-o", "Dpkg::Options::=--force-confnew", *packages)


def put(file, text, mode=0o644):
    os.makedirs(os.path.dirname(ROOT + file), exist_ok=True)
    with open(ROOT + file, "w") as f:
        f.write(text)
    os.chmod(ROOT + file, mode)


def get(file):
    try:
        with open(ROOT + file, errors="replace") as f:
            return f.read()[-3000:]
    except OSError as e:
        return str(e)


def chroot():
    if os.path.exists(ROOT + "/ready"):
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    debootstrap(ROOT)
    # No daemon starts because it is installed.
    put("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    put("/etc/mailname", "client.example\n")
    put("/etc/hosts", "127.0.0.1 client.example localhost\n")
    put("/etc/hostname", "client.example\n")
    put("/ready", "")


# -- the mails

DOTS = b"first\r\n.\r\n..\r\n.x\r\nFrom the start\r\n\r\nQUIT\r\n" + b"a line of 900: " + b"x" * 900 + b"\r\n"


def mail(kind, to, subject, body, sender=FROM, extra=""):
    head = ("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            "Message-ID: <%s@client.example>\r\n%s\r\n" % (sender, to[0], subject, kind, extra))
    return {"kind": kind, "from": sender, "to": to, "head": head.encode(), "body": body,
            "octets": head.encode() + body}


def mails(utf8):
    eight = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\n" \
        "Content-Transfer-Encoding: 8bit\r\n"
    line = b"%07d abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
    yield mail("plain", ["plain@test.example"], "plain", DOTS)
    yield mail("8bit", ["eight@test.example"], "=?iso-8859-1?q?Gr=FC=DFe?=",
               "Grüße aus Köln\r\n".encode("latin-1"), extra=eight % "iso-8859-1")
    if utf8:
        yield mail("utf8", ["müller@test.example", "本@test.example"], "Grüße 🎈",
                   "Grüße aus 東京\r\n".encode(), "jörg@bücher.example", eight % "utf-8")
    else:
        yield mail("utf8", ["utf8@test.example"], "=?utf-8?b?R3LDvMOfZSDwn46I?=",
                   "Grüße aus 東京\r\n".encode(), extra=eight % "utf-8")
    yield mail("large", ["large@test.example"], "large", b"".join(line % n for n in range(82000)))
    yield mail("many", ["many%d@test.example" % n for n in range(25)], "many", b"to many\r\n")


SUBJECTS = {"plain": "plain", "8bit": "Grüße", "utf8": "Grüße 🎈", "large": "large", "many": "many"}
TEXTS = {"8bit": "Grüße aus Köln", "utf8": "Grüße aus 東京", "many": "to many"}


def check(who, m):
    """All rows of it: each recipient once, the octets those that were handed over."""
    name = "%s, %s" % (who, m["kind"])
    same(name + ": recipients", sorted(r["recipient"].decode() for r in db.mails()), sorted(m["to"]))
    for row in db.mails()[:1]:
        same(name + ": from", row["from"].decode(), m["from"])
        same(name + ": subject", row["subject"].decode(), SUBJECTS[m["kind"]])
        head, _, body = row["mail"].partition(b"\r\n\r\n")
        same(name + ": body octets", body, m["body"])
        lost = [l for l in m["head"].split(b"\r\n") if l not in head]
        same(name + ": header lines lost", lost, [])
        if m["kind"] in TEXTS:
            same(name + ": body text", row["body"].decode().strip(), TEXTS[m["kind"]])
        # Some send a domain as an A-label, which is the same domain.
        senders = m["from"], m["from"].replace("bücher", "xn--bcher-kva")
        ok(name + ": Return-Path", any(b"Return-Path: <%s>\r\n" % f.encode() in row["trace"]
                                       for f in senders), row["trace"])


# -- the senders


class Queue:
    """A mail server in the chroot, fed by its sendmail command."""

    utf8 = False
    submit = ["sendmail", "-i"]

    def start(self):
        pass

    def send(self, m):
        inside(*self.submit, "-f", m["from"], *m["to"], stdin=m["octets"].replace(b"\r\n", b"\n"))

    def stop(self):
        pass

    def log(self):
        return ""


class postfix(Queue):
    utf8 = True

    def start(self):
        install("postfix")
        put("/etc/postfix/main.cf", """
compatibility_level = 3.6
relayhost = [127.0.0.1]:%d
mydestination =
myhostname = client.example
inet_interfaces =
inet_protocols = ipv4
maillog_file = /var/log/mail.log
message_size_limit = 50000000
""" % server.port)
        inside("postconf", "-F", "*/*/chroot=n")
        inside("postconf", "-MX", "smtp/inet")
        inside("postfix", "start")

    def stop(self):
        inside("postfix", "stop")

    def log(self):
        return get("/var/log/mail.log")


class exim(Queue):
    utf8 = True

    def start(self):
        install("exim4-daemon-light")
        put("/etc/exim4/exim4.conf", """
primary_hostname = client.example
qualify_domain = client.example
log_file_path = /var/log/exim4/%%slog
message_size_limit = 50M
queue_only
untrusted_set_sender = *
acl_smtp_rcpt = accept
local_from_check = false
keep_environment =
begin routers
smart:
  driver = manualroute
  transport = smtp
  route_list = * 127.0.0.1::%d
  self = send
begin transports
smtp:
  driver = smtp
begin retry
* * F,1m,1s
""" % server.port)

    def send(self, m):
        if m["kind"] == "utf8":		# only SMTP can say SMTPUTF8 to it
            inside("exim", "-bs", stdin="EHLO client.example\r\nMAIL FROM:<{}> SMTPUTF8\r\n{}DATA\r\n"
                   .format(m["from"], "".join("RCPT TO:<%s>\r\n" % t for t in m["to"])).encode()
                   + m["octets"].replace(b"\r\n.", b"\r\n..") + b".\r\nQUIT\r\n")
        else:
            Queue.send(self, m)
        inside("exim", "-qff")

    def log(self):
        return get("/var/log/exim4/mainlog") + get("/var/log/exim4/paniclog")


class opensmtpd(Queue):
    def start(self):
        install("opensmtpd")
        put("/etc/smtpd.conf", """
queue compression
smtp max-message-size 50M
listen on socket
action "out" relay host "smtp://127.0.0.1:%d"
match from any for any action "out"
""" % server.port)
        authorities = ROOT + "/etc/ssl/certs/ca-certificates.crt"
        os.makedirs(os.path.dirname(authorities), exist_ok=True)
        open(authorities, "a").close()  # 7.6 does not start without the file
        self.daemon = start(["chroot", ROOT, "smtpd", "-d"], os.path.join(DIR, "opensmtpd.log"))
        wait(lambda: os.path.exists(ROOT + "/var/run/smtpd.sock"))

    def stop(self):
        stop(self.daemon)

    def log(self):
        with open(os.path.join(DIR, "opensmtpd.log"), errors="replace") as f:
            return f.read()[-3000:]


class nullmailer(Queue):
    def start(self):
        install("nullmailer")
        put("/etc/nullmailer/remotes", "127.0.0.1 smtp --port=%d\n" % server.port)
        put("/etc/nullmailer/me", "client.example\n")
        put("/etc/nullmailer/pausetime", "1\n")
        # What its service would make at boot.
        inside("sh", "-c", "cd /var/spool/nullmailer && mkdir -p queue tmp failed && rm -f queue/* && "
               "{ test -p trigger || mkfifo trigger; } && chown -R mail:mail .")
        self.daemon = start(["chroot", "--userspec=mail", ROOT, "nullmailer-send"],
                            os.path.join(DIR, "nullmailer.log"))

    def stop(self):
        stop(self.daemon)

    def log(self):
        with open(os.path.join(DIR, "nullmailer.log"), errors="replace") as f:
            return f.read()[-3000:]


class msmtp(Queue):
    utf8 = True

    def start(self):
        install("msmtp")
        self.submit = ["msmtp", "--host=127.0.0.1", "--port=%d" % server.port, "-i"]


class swaks(Queue):
    def start(self):
        install("swaks")

    def send(self, m):
        inside("swaks", "-s", "127.0.0.1", "-p", str(server.port), "-f", m["from"], "-t",
               ",".join(m["to"]), "-d", "-", stdin=m["octets"][:-2])	# it adds a line's end


class curl(Queue):
    utf8 = True

    def start(self):
        install("curl")

    def send(self, m):
        inside("curl", "-sS", "smtp://127.0.0.1:%d/client.example" % server.port, "-T", "-",
               "--mail-from", m["from"], *sum((["--mail-rcpt", t] for t in m["to"]), []),
               stdin=m["octets"])


class python(Queue):
    utf8 = True

    def send(self, m):
        with smtplib.SMTP("127.0.0.1", server.port, "client.example", 30) as s:
            s.sendmail(m["from"], m["to"], m["octets"],
                       ["SMTPUTF8", "BODY=8BITMIME"] if m["kind"] == "utf8" else [])


class nodemailer(Queue):
    """npm's where the host has npm, else the system's in the chroot."""

    utf8 = True
    SCRIPT = """
const [port, from, ...to] = process.argv.slice(2);
const raw = require('fs').readFileSync(0);
require('nodemailer').createTransport({ host: '127.0.0.1', port, name: 'client.example', pool: true })
    .sendMail({ envelope: { from, to }, raw })
    .then(info => { if (!/queued as/.test(info.response)) process.exit(2); process.exit(0); },
        e => { console.error(e); process.exit(1); });
"""

    def start(self):
        self.dir = None
        if shutil.which("npm"):
            self.dir = os.path.join(KEPT, "node")
            os.makedirs(self.dir, exist_ok=True)
            if not os.path.exists(self.dir + "/node_modules/nodemailer"):
                checked(["npm", "install", "--no-audit", "--no-fund", "--silent", "nodemailer"],
                        seconds=180, cwd=self.dir)
            with open(self.dir + "/send.js", "w") as f:
                f.write(self.SCRIPT)
        else:
            install("nodejs", "node-nodemailer")
            put("/root/send.js", self.SCRIPT)

    def send(self, m):
        argv = ["send.js", str(server.port), m["from"]] + m["to"]
        if self.dir:
            checked(["node"] + argv, m["octets"], cwd=self.dir)
        else:
            inside("env", "NODE_PATH=/usr/share/nodejs", "node", "/root/" + argv[0], *argv[1:],
                   stdin=m["octets"])


senders = [postfix, exim, opensmtpd, nullmailer, msmtp, swaks, curl, python, nodemailer]
if os.getuid() != 0 or not shutil.which("debootstrap", path="/usr/sbin:" + os.environ["PATH"]):
    raise SystemExit("senders.py: needs root and debootstrap (apt-get install debootstrap)")
db = Database()
chroot()
server = Server(db)
for sender in senders:
    name = sender.__name__
    if not chosen(name):
        continue
    s = sender()
    try:
        s.start()
    except Exception as e:
        ok(name + " runs", False, str(e))
        continue
    for m in mails(s.utf8):
        try:
            s.send(m)
            wait(lambda: len(db.mails()) >= len(m["to"]), 30)
            check(name, m)
        except Exception as e:
            ok("%s, %s" % (name, m["kind"]), False, str(e)[:400] + s.log()[-1500:])
        db.empty()
    s.stop()
server.stop()
done()
