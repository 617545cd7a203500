#!/usr/bin/env python3
"""The PROXY protocol, versions 1 and 2: by hand, and with haproxy and nginx in front."""
import glob
import http.server
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from live import (DIR, KEPT, Client, Database, Server, Stopwatch, deliver, done, listening, ok, port,
                  run, same, start, stop, wait)

PROXY = "127.0.0.2"		# the network that is believed; 127.0.0.1 is anybody
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAIL = b"Subject: proxied\r\n\r\nbody\r\n"
HELLO = "EHLO client.example"


def v1(client):
    six = ":" in client
    return ("PROXY %s %s %s 40000 25\r\n" % ("TCP6" if six else "TCP4", client,
                                             "2001:db8::1" if six else "192.0.2.1")).encode()


def v2(client=None, command=1, family=None, tlv=b"", version=2, length=None):
    if client is None:
        kind, body = 0, b""
    elif ":" in client:
        kind, body = 0x21, socket.inet_pton(socket.AF_INET6, client) + bytes(16)
        body += struct.pack("!HH", 40000, 25)
    else:
        kind, body = 0x11, socket.inet_aton(client) + bytes(4) + struct.pack("!HH", 40000, 25)
    body += tlv
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, kind if family is None
                                   else family, len(body) if length is None else length) + body


def through(header, where=None):
    """A client that the proxy at PROXY has announced."""
    c = Client(where or server.port, source=PROXY, greet=False)
    c.send(header)
    c.banner = c.reply()
    return c


def received(trace):
    """The address in the Received field."""
    return trace.split(b"[", 1)[1].split(b"]")[0].decode().replace("IPv6:", "")


db = Database()
server = Server(db, listen=("127.0.0.1",), GSMTP_PROXY_FROM=PROXY + "/32,192.0.2.0/24,2001:db8::/32",
                GSMTP_TIMEOUT="3", GSMTP_MAX_CLIENTS_PER_IP="3", MAX_SMTP_CLIENTS="100")

# -- headers that are good

PEER = "127.0.0.2"
good = [
    ("v1 TCP4", v1("198.51.100.7"), "198.51.100.7"),
    ("v1 TCP6", v1("2001:db8::7"), "2001:db8::7"),
    ("v1 longest", b"PROXY TCP6 " + 2 * b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
     + b"65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n", PEER),
    ("v1 UNKNOWN with the rest", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", PEER),
    ("v2 TCP4", v2("198.51.100.8"), "198.51.100.8"),
    ("v2 TCP6", v2("2001:db8:1::8"), "2001:db8:1::8"),
    ("v2 LOCAL", v2(command=0), PEER),
    ("v2 LOCAL with an address", v2("198.51.100.9", command=0), PEER),
    ("v2 UNSPEC", v2(), PEER),
    ("v2 with TLVs", v2("198.51.100.10", tlv=b"\x04\0\x05noop\n" + b"\x20\x01\x2c" + bytes(300)),
     "198.51.100.10"),
    ("v2 TLVs that read as commands", v2("198.51.100.11", tlv=b"NOOP\r\nQUIT\r\n\r\n.\r\n"),
     "198.51.100.11"),
]
for what, header, client in good:
    c = through(header)
    same(what + ": banner", c.banner[0], 220)
    same(what + ": a mail", deliver(c, MAIL, hello=HELLO)[0], 250)
    rows = db.mails()
    same(what + ": Received", received(rows[0]["trace"]) if rows else None, client)
    ok(what + ": logged", server.logged("client=" + client))
    db.empty()
    c.close()

# An address of IPv4 is one, whatever it is wrapped in.
c = through(v2("::ffff:198.51.100.12"))
same("v2 mapped IPv4: a mail", deliver(c, MAIL, hello=HELLO)[0], 250)
same("v2 mapped IPv4: Received", received(db.mails()[0]["trace"]), "198.51.100.12")
db.empty()
c.close()

# In any slicing; commands may come in the same write.
for what, header in (("v1", v1("198.51.100.7")), ("v2", v2("198.51.100.7", tlv=b"\x04\0\x02xy"))):
    c = Client(server.port, source=PROXY, greet=False)
    for octet in header + b"EHLO client.example\r\nQUIT\r\n":
        c.send(bytes([octet]))
    same(what + " octet by octet", [c.reply()[0] for _ in range(3)], [220, 250, 221])
    c.close()
    c = Client(server.port, source=PROXY, greet=False)
    c.send(header + b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
    same(what + " and commands at once", [c.reply()[0] for _ in range(4)], [220, 250, 250, 221])
    c.close()
    for cut in range(1, len(header)):
        c = Client(server.port, source=PROXY, greet=False)
        c.send(header[:cut])
        time.sleep(0.002)
        c.send(header[cut:])
        if c.reply()[0] != 220:
            ok("%s cut at %d" % (what, cut), False, header)
        c.close()

# -- one header: GHSA-c2c3-pqw5-5p7c

for what, header in (("v1", v1("203.0.113.66")), ("v2", v2("203.0.113.66"))):
    c = through(v1("198.51.100.20"))
    c.send(header + b"\r\n")
    same("a second header, %s, is a bad command" % what, c.reply()[0], 500)
    while not c.silent():
        c.reply()
    same("a second header, %s: a mail" % what, deliver(c, MAIL, hello=HELLO)[0], 250)
    same("a second header, %s: is not believed" % what,
         received(db.mails()[-1]["trace"]), "198.51.100.20")
    c.close()
ok("nowhere in the log as a client", "client=203.0.113.66" not in server.log())
db.empty()

# -- nobody else's is believed

c = Client(server.port)
same("a client that is no proxy is greeted at once", c.banner[0], 220)
code = c.command(v1("203.0.113.67")[:-2])[0]
same("its header is a bad command", code, 500)
same("and its mail", deliver(c, MAIL, hello=HELLO)[0], 250)
same("is its own", received(db.mails()[-1]["trace"]), "127.0.0.1")
c.close()
c = Client(server.port)
c.send(v2("203.0.113.67") + b"EHLO client.example\r\n")
while c.reply()[0] in (500, 502):
    pass
ok("nor in binary", "client=203.0.113.67" not in server.log())
c.close()
db.empty()

# -- headers that are none: the connection ends without a word

bad = [
    b"EHLO client.example\r\n", b"GET / HTTP/1.0\r\n\r\n", b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY\r\n", b"PROXY \r\n", b"PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY TCP4\r\n",
    b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", b"PROXY UNKNOWNS\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
    b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    b"PROXY TCP4 mail.example 1.2.3.4 1 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 " + b"3" * 90 + b"\r\n",
    b"PROXY " + b"x" * 200, b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n", b"\0" * 16, b"\x16\x03\x01\x02\0",
    SIGNATURE[:-1] + b"\r" + bytes(20), v2("1.2.3.4", version=1), v2("1.2.3.4", version=3),
    v2("1.2.3.4", command=2), v2("1.2.3.4", command=15), v2("1.2.3.4", length=11)[:27],
    v2("1.2.3.4", length=4), v2("::1", length=35)[:51], v2("1.2.3.4", family=0x21),
    v2("1.2.3.4", family=0x41), v2("1.2.3.4", length=65535) + bytes(65523),
    b"\r\n" + v1("1.2.3.4"), b" " + v1("1.2.3.4"),
]
for header in bad:
    c, watch = Client(server.port, source=PROXY, greet=False), Stopwatch()
    try:
        c.send(header)
        got = c.sock.recv(100)
    except socket.timeout:
        got = b"(open)"
    except OSError:
        got = b""
    ok("closed: %.60r" % header, got == b"", got)
    ok("closed at once: %.60r" % header, watch.took() < 2, watch.took())
    c.close()
ok("a bad header is logged", server.logged("proxy-error"))

# -- a header that does not come

for what, part in (("none", b""), ("half of v1", b"PROXY TCP4 1.2."),
                   ("half of v2", v2("1.2.3.4")[:20])):
    watch = Stopwatch()
    c = Client(server.port, source=PROXY, greet=False)
    c.send(part)
    ok(what + ": closed", c.ended(8))
    ok(what + ": at GSMTP_TIMEOUT", 2 < watch.all() and watch.took() < 6, watch.took())
    c.close()
watch = Stopwatch()
c = Client(server.port, source=PROXY, greet=False)
try:
    for octet in v1("1.2.3.4") * 3:
        c.send(bytes([octet]))
        time.sleep(0.15)
        if watch.over(8) or octet == 10:
            break
except OSError:
    pass
ok("a trickle: closed at GSMTP_TIMEOUT", 2 < watch.all() and watch.took() < 6, watch.took())
c.close()

# -- the limits count clients, not the proxy

server.empty()
many = [through(v1("198.51.100.%d" % n)) for n in range(1, 31)]
same("30 clients through one proxy", {c.banner[0] for c in many}, {220})
more = [through(v2("198.51.100.30")) for _ in range(2)]
same("two more from one of them", [c.banner[0] for c in more], [220, 220])
c = through(v1("198.51.100.30"))
same("a fourth from one address", c.banner[0], 421)
c.close()
six = [through(v1("2001:db8:5::%x" % n)) for n in range(1, 4)]
same("three of one /64", {c.banner[0] for c in six}, {220})
c = through(v1("2001:db8:5::ffff"))
same("a fourth of the /64", c.banner[0], 421)
c.close()
c = through(v1("2001:db8:6::1"))
same("one of the next /64", c.banner[0], 220)
c.close()
for c in many + more + six:
    c.close()
ok("the limit is lifted when they have gone",
   wait(lambda: through(v1("198.51.100.30")).banner[0] == 220, 3))
server.empty()
held = []
for n in range(130):
    c = Client(server.port, source=PROXY, greet=False)
    c.send(v1("10.0.%d.%d" % (n // 250, n % 250)))
    c.sock.settimeout(3)
    held.append(c)
banners = [c.reply()[0] for c in held]
ok("MAX_SMTP_CLIENTS holds for proxied clients", banners.count(220) <= 100
   and set(banners) <= {220, 421, 0}, banners)
for c in held:
    c.close()
ok("and is lifted", wait(lambda: through(v1("10.1.1.1")).banner[0] == 220, 5))
server.stop()

# -- real proxies; each is told to speak from 127.0.0.2


def program(name):
    """From $PATH, or unpacked from the system's packages; its argv, environment and root."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found:
        return [found], None, ""
    if not shutil.which("apt-get"):
        ok(name, False, "please install " + name)
        done()
    root = os.path.join(KEPT, name)
    os.makedirs(root, exist_ok=True)
    want = [name] + (["libnginx-mod-stream", "libnginx-mod-mail"] if name == "nginx" else [])
    plan = run(["apt-get", "-s", "--no-install-recommends", "install"] + want)[1]
    needed = re.findall(r"^Inst (\S+)", plan, re.M)
    if not os.path.exists(root + "/usr/sbin/" + name):
        subprocess.run(["apt-get", "-qq", "download"] + needed, cwd=root, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for deb in os.listdir(root):
            if deb.endswith(".deb"):
                subprocess.run(["dpkg-deb", "-x", deb, "."], cwd=root, check=True)
                os.unlink(os.path.join(root, deb))
    lib = ":".join(glob.glob(root + "/usr/lib/*-linux-*"))
    return [root + "/usr/sbin/" + name], dict(os.environ, LD_LIBRARY_PATH=lib), root


class Auth(http.server.BaseHTTPRequestHandler):
    back = None

    def do_GET(self):
        self.send_response(200)
        for name, value in (("Auth-Status", "OK"), ("Auth-Server", "127.0.0.1"),
                            ("Auth-Port", str(Auth.back))):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def in_front(what, argv, config, env=None, proxy=PROXY):
    """One proxy: five mails through it, their rows have the address that the client came from."""
    server = Server(db, GSMTP_PROXY_FROM=proxy, GSMTP_TIMEOUT="10")
    Auth.back = server.port
    front = port()
    file = os.path.join(DIR, what.replace(" ", "-") + ".conf")
    with open(file, "w") as f:
        f.write(config % {"front": front, "back": server.port, "dir": DIR, "proxy": proxy})
    p = start([a % {"file": file} for a in argv], os.path.join(DIR, "proxy.log"), env=env)
    if ok(what + " runs", wait(lambda: listening(front) or p.poll() is not None)
          and p.poll() is None, open(os.path.join(DIR, "proxy.log")).read()[-800:]):
        for n in range(5):
            source = "127.0.1.%d" % (n + 1)
            c = Client(front, source=source)
            same("%s: mail %d" % (what, n), deliver(
                c, MAIL, ["%s@test.example" % source], hello=HELLO)[0], 250)
            same("%s: QUIT %d" % (what, n), c.command("QUIT")[0], 221)
            ok("%s: closed %d" % (what, n), c.ended())
            c.close()
        rows = db.mails()
        same(what + ": rows", [(r["recipient"].decode(), received(r["trace"])) for r in rows],
             [("127.0.1.%d@test.example" % n, "127.0.1.%d" % n) for n in range(1, 6)])
    db.empty()
    stop(p)
    server.stop()


HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend smtp
    bind 127.0.0.1:%%(front)d
    default_backend smtpd
backend smtpd
    source %%(proxy)s
    server one 127.0.0.1:%%(back)d %s
"""
argv, env, root = program("haproxy")
for send in "send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,ssl check":
    in_front("haproxy " + send, argv + ["-db", "-f", "%(file)s"], HAPROXY % send, env)

argv, env, root = program("nginx")
modules = root + "/usr/lib/nginx/modules"
NGINX = "pid %%(dir)s/nginx.pid; daemon off; error_log stderr;\n%s%s\n" \
    "events { worker_connections 64; }\n"


def module(name):
    file = "%s/ngx_%s_module.so" % (modules, name)
    return "load_module %s;\n" % file if os.path.exists(file) else ""


in_front("nginx stream", argv + ["-p", DIR, "-c", "%(file)s"], NGINX % (module("stream"), "user root;")
         + """stream { server { listen 127.0.0.1:%(front)d; proxy_bind %(proxy)s;
         proxy_pass 127.0.0.1:%(back)d; proxy_protocol on; } }""", env)

# nginx's mail proxy speaks SMTP itself up to the first RCPT; whose mail goes where it asks by HTTP.


auth = http.server.HTTPServer(("127.0.0.1", port()), Auth)
threading.Thread(target=auth.serve_forever, daemon=True).start()
in_front("nginx mail", argv + ["-p", DIR, "-c", "%(file)s"], NGINX % (module("mail"), "user root;")
         + """mail { server_name mx.test.example; auth_http 127.0.0.1:""" + str(auth.server_port)
         + """/; xclient off; server { listen 127.0.0.1:%(front)d; protocol smtp; smtp_auth none;
         proxy_protocol on; } }""", env=env, proxy="127.0.0.1")
done()
