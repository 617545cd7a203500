#!/usr/bin/env python3
"""The settings: what a person gets wrong, and what smtpd says.

Each mistake must stop the start and -t alike, with the place, the name of the setting, and words that
say what to write instead. What is right must start. Arguments that do not start with a dash choose
the tests whose names contain one of them.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from live import (BINARY, DIR, ROOT, SLOW, Database, Server, environment, listening, ok, port,
                  run_tests, same, session, start, stop, test, wait)

SMTPD = os.path.join(ROOT, BINARY)
FILE = os.path.join(DIR, "config.conf")


def run(*argv, env=(), **more):
    """smtpd to its end: status and all that it printed, in that order. One that serves is ended."""
    out = os.path.join(DIR, "config.out")
    p = start([SMTPD] + list(argv), out, env=environment(env), cwd=DIR, **more)

    def said():
        with open(out, encoding="utf-8", errors="replace") as f:
            return f.read()
    wait(lambda: p.poll() is not None or " worker-start " in said(), 10 * SLOW)
    status = p.poll()
    if status is None:
        stop(p)
        status = "serves"
    text = said()
    os.unlink(out)
    return status, text


def write(text, mode=0o600, name=FILE):
    with open(name, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    os.chmod(name, mode)


def basis(db):
    return ("MYSQL_HOST=%s\nMYSQL_USER=root\nMYSQL_DB=%s\nGSMTP_LISTEN=127.0.0.1:%d\n"
            "GSMTP_WORKERS=1\n" % (db.socket, db.name, port()))


def mistake(what, text, *words, line=None, env=(), argv=()):
    """Neither -t nor a start takes it; both say why in one line, and the same."""
    write(text)
    told = []
    for option in ["-t"], []:
        status, said = run("-c", FILE, *option, *argv, env=env)
        last = said.splitlines()[-1] if said else ""
        ok("%s %s: status 1" % (what, option), status == 1, (status, said))
        place = "%s:%d: " % (FILE, line) if line else ""
        ok("%s %s: the last line says why" % (what, option), last.startswith("smtpd: " + place)
           and all(w in last for w in words), last)
        ok("%s %s: in one short line" % (what, option), len(last) < 400 and "\\x" not in last, last)
        told.append(last)
    same(what + ": -t and the start say the same", len(set(told)), 1)
    if "-v" in sys.argv:
        print("    " + told[0])


# What is wrong with one setting, by what the setting is.

DOMAINS = ["example.org # mine", "a.org b.org", "a;b", "me@a.org", "@a.org", ".a.org", "http://a.org",
           "a.org:25", "*a.org", "a..org", "a.org.", "-a.org", "a-.org", "*.*.org", "a.*.org", "**", "*.",
           ",", " , ", "a.org,b.org c.org", "x" * 64 + ".org", "a." * 127 + "org", "a.org/", "<a.org>",
           "\"a.org\",\"b.org\"", "'a.org", "a.org|b.org", "a.org\\", "192.0.2.1", "a.org\tb.org",
           "b\x01.org", b"\xff.org", b"b\xc3.org", "(a.org)", "$DOMAIN", "${DOMAIN}", "a.org, b@c.org",
           "[192.0.2.1", "[192.0.2.1.", "[]", "all domains", "a.org\u00a0", "a\u200b.org", "b\u00fccher .org",
           "me@b\u00fccher.org"]
DOMAIN = ["@x.org", "x.org y.org", "x.org,y.org", "*.x.org", "*", "x..org", "user@x.org", "x.org #x"]
HOSTS = ["mx example", "mx.example.org.", "http://mx", "mx:25", "-mx", "mx,my",
         "x" * 64, "mx/1", "mx # the first"]
LISTENERS = ["::1:2525", "[::1]2525", "[::1", "::1]:25", "300.1.2.3:25", "127.0.0.1:", "127.0.0.1:x",
             "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:99999999999999999999", "localhost:2525", "2525",
             ":2525", "127.0.0.1 127.0.0.2", "127.0.0.1;127.0.0.2", "127.0.0.1:25:25", "[127.0.0.1",
             "eth0", "[::1]:", "[]:25", "*:", "*:*", "0", "127.1", "127.0.0.1/8", "*,x", "tcp://*:25",
             "2001:db8::1:25", "127.0.0.1:2525 # inside", "127.0.0.1:2525\t# inside"]
NETWORKS = ["10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/", "10.0.0.0/8 192.168.0.0/16", "haproxy", "*",
            "10.0.0.0/255.0.0.0", "10.0.0.1:25", "10.0.0.0-10.0.0.9", "[::1]", "10.0.0.0/-1", ",",
            "10.0.0.0/" + "0" * 60 + "8"]
SERVERS = ["localhost:33o6", "localhost:99999", "127.0.0.1:93726", "db:0", "db:", "db.example.org:x",
           "tcp://db", "db1 db2", "db1;db2", "root@db", "::1:3306", "[::1", "[::1]3306", "[::1]:x",
           "192.168.1", "/tmp/my sql.sock", "db,,db:", "db:3306:3307", "db # main", "mysql://root@db/mail"]
NUMBERS = ["0", "10M", "10 MB", "1e6", "0x10", "-1", "+5", "5.0", "5,000", "5_000", "ten", "5 # five",
           "9" * 30, "\u0665", "1/2", "unlimited", "# none"]
SWITCHES = ["yes", "no", "true", "on", "2", "-1", "0 # off", "01x"]
WORDS = ["new mail", "new_mail # the table", "mail.new_mail", "x" * 300, "a\x01b"]

KINDS = [("GM_ALLOWED_HOSTS", DOMAINS, "example.org"), ("GM_PRIMARY_MAIL_HOST", DOMAIN, "host name"),
         ("GSMTP_HOST_NAME", HOSTS, "host name"), ("GSMTP_LISTEN", LISTENERS, "192.0.2.1:2525"),
         ("GSMTP_PROXY_FROM", NETWORKS, "192.0.2.0/24"), ("MYSQL_HOST", SERVERS, "3306"),
         ("GSMTP_CHECK_HEADER", SWITCHES, "0 or 1"), ("GSMTP_VERBOSE", SWITCHES, "0 or 1"),
         ("GM_MAIL_TABLE", WORDS, "name"), ("MYSQL_DB", WORDS, "name"),
         ("GSMTP_USER", ["no body", "nobody # him", "nobody."], "name"),
         ("MYSQL_USER", ["smtpd # him", "a\x07b"], "text"),
         ("GSMTP_LOG_FILE", ["log # here", "a\x07b"], "text")]
KINDS += [(name, NUMBERS, "number") for name in (
    "GSMTP_MAX_SIZE", "MAX_SMTP_CLIENTS", "GSMTP_MAX_CLIENTS_PER_IP", "GSMTP_MAX_RCPT",
    "GSMTP_MAX_ERRORS", "GSMTP_MAX_MEMORY", "GSMTP_TIMEOUT", "GSMTP_WORKERS", "MYSQL_TIMEOUT")]


@test
def values(db):
    for name, wrong, form in KINDS:
        for value in wrong:
            octets = value if isinstance(value, bytes) else value.encode()
            text = b"# mine\nGM_ALLOWED_HOSTS=x.org\n\n" + name.encode() + b"=" + octets + b"\n"
            if name == "GM_ALLOWED_HOSTS":
                text = text.replace(b"GM_ALLOWED_HOSTS=x.org\n", b"\n")
            write(text)
            status, said = run("-t", "-c", FILE)
            last = said.splitlines()[-1] if said else ""
            what = "%s=%.60r" % (name, value)
            words = "a comment needs a line of its own" if re.search("(^|[ \t])#", str(value)) else form
            ok(what, status == 1 and last.startswith("smtpd: %s:4: %s: " % (FILE, name)) and words in last,
               (status, last))
            ok(what + " is one short line", len(last) < 400, last)


@test
def mistakes(db):
    """One of each kind, in a start as well; and what is wrong with a file as a whole."""
    rest = basis(db)
    for text, line, words in (
            ("GM_ALLOWED_HOSTS=example.org # mine\n", 1, ["line of its own"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_LISTEN=::1:2525\n", 2, ["::1:2525", "[2001:db8::1]:2525"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_LISTEN=[::1]2525\n", 2, ["[::1]2525"]),
            ("GM_ALLOWED_HOSTS=a.org\nGM_PRIMARY_MAIL_HOST=@x.org\n", 2, ["@x.org"]),
            ("GM_ALLOWED_HOSTS=a.org\nMYSQL_HOST=db:33o6\n", 2, ["db:33o6"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_MAX_SIZE=10M\n", 2, ["10M", "whole number from 1024 to"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_CHECK_HEADER=no\n", 2, ["no", "0 or 1"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_USER=no-such-user\n", 2, ["no-such-user", "no such user"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_LOG_FILE=/no/such/folder/log\n", 2,
             ["/no/such/folder/log", "No such file"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_LOG_FILE=/\n", 2, ["directory"]),
            ("GM_ALLOWED_HOSTS=a.org\nGSMTP_TLS_KEY=/key.pem\n", 2, ["GSMTP_TLS_CERT"]),
            ("GM_ALLOWED_HOST=a.org\n", 1, ["GM_ALLOWED_HOST", "no setting"]),
            ("gm_allowed_hosts=a.org\n", 1, ["gm_allowed_hosts", "no setting"]),
            ("export GM_ALLOWED_HOSTS=a.org\n", 1, ["export GM_ALLOWED_HOSTS", "no setting"]),
            ("$GM_ALLOWED_HOSTS='a.org';\n", 1, ["$GM_ALLOWED_HOSTS", "no setting"]),
            ("define('GM_ALLOWED_HOSTS', 'a.org');\n", 1, ["NAME=value"]),
            ("GM_ALLOWED_HOSTS: a.org\n", 1, ["NAME=value"]),
            ("GM_ALLOWED_HOSTS a.org\n", 1, ["NAME=value"]),
            ("[smtpd]\n", 1, ["[smtpd]", "NAME=value"]),
            ("; comment\n", 1, ["; comment", "NAME=value"]),
            ("=a.org\n", 1, ["no setting"]),
            ("GM_ALLOWED_HOSTS=a.org\nFORWARD_GMAIL_TO=x\n", 2, ["FORWARD_GMAIL_TO", "no setting"]),
            ("GM_ALLOWED_HOSTS=a.org,\\\nb.org\n", 1, ["\\"]),
            ("GM_ALLOWED_HOSTS=a.org\n" * 3 + "GSMTP_MAX_RCPT=x" + "y" * 100000 + "\n", 4, ["number"]),
            ("GM_ALLOWED_HOSTS=" + ",".join("d%d.example" % i for i in range(9000)) + ",a b\n", 1, ["a b"]),
            ("GM_ALLOWED_HOSTS=a.org\n".encode("utf-16"), 1, ["no setting"]),
            ("GM_ALLOWED_HOSTS=a.org\n".encode("utf-16-be"), 1, ["no setting"])):
        what = text[:60] if isinstance(text, str) else repr(text)[:60]
        mistake(what, text if isinstance(text, bytes) else text + rest, *words, line=line)
    mistake("no GM_ALLOWED_HOSTS", rest, "GM_ALLOWED_HOSTS is not set", "example.org")
    mistake("environment", rest + "GM_ALLOWED_HOSTS=a.org\n", "environment: GSMTP_MAX_RCPT", "none",
            env={"GSMTP_MAX_RCPT": "none"})
    mistake("a name that is too long", rest + "GM_ALLOWED_HOSTS=a.org\nGM_MAIL_TABLE=" + "x" * 65 + "\n",
            "GM_MAIL_TABLE", "64 characters")
    mistake("more addresses than descriptors", rest + "GM_ALLOWED_HOSTS=a.org\n", "environment",
            "GSMTP_LISTEN: too many addresses", env={"GSMTP_LISTEN": ",".join(["127.0.0.1"] * 600)})
    mistake("more addresses than workers can serve so many clients at", rest + "GM_ALLOWED_HOSTS=a.org\n",
            "too many addresses for MAX_SMTP_CLIENTS=100000",
            env={"GSMTP_LISTEN": ",".join(["127.0.0.1"] * 310), "MAX_SMTP_CLIENTS": "100000"})
    mistake("command line", rest + "GM_ALLOWED_HOSTS=a.org\n", "/no/folder/log", "No such file",
            argv=["-l", "/no/folder/log"])
    for argv, words in ((["-p", "0"], "not a port"), (["-p", "x"], "not a port"),
                        (["-p", "65536"], "not a port"), (["-p", "25 "], "not a port"),
                        (["-p", ""], "not a port"), (["-c", "/no/such"], "No such file"),
                        (["-c", "/"], "directory"), (["-x"], "no such option"), (["x"], "no such option"), (["-"], "no such option"),
                        (["--help"], "no such option"), (["-p2525"], "no such option"),
                        (["-c"], "needs an argument"), (["-p"], "needs an argument")):
        for option in [], ["-t"]:
            status, said = run(*option, *argv)
            ok("%s: 1 and why" % argv, status == 1 and words in said.replace("\nusage", " "), said)


@test
def form_of_the_file(db):
    """What editors, shells and people make of NAME=value."""
    name = "GM_ALLOWED_HOSTS=first.example,last.example"
    for what, line in (
            ("a BOM", "\ufeff" + name), ("a BOM and a comment", "\ufeff# x\n" + name),
            ("CR LF", name + "\r"), ("blanks around it", " \t" + name + " \t"),
            ("blanks around =", name.replace("=", " = ")), ("double quotes", name.replace("=", '="') + '"'),
            ("single quotes", name.replace("=", "='") + "'"), ("no LF at the end", None),
            ("an empty line with blanks", " \t\n" + name), ("a comment with =", "  # A=B\n" + name),
            ("a comment that is no UTF-8", "# caf\udce9\n" + name), ("a list with blanks", name.replace(",", " , "))):
        write((basis(db) + name if line is None else line + "\n" + basis(db)).encode(
            "utf-8", "surrogateescape"))
        status, said = run("-t", "-c", FILE)
        ok(what, status == 0 and "last.example" in said, said[-300:])


@test
def nine_thousand_domains(db):
    hosts = ["d%d.%s.example" % (i, "x" * (i % 20 + 1)) for i in range(9000)]
    server = Server(db, GM_ALLOWED_HOSTS=",".join(hosts))
    c = session(server.port, "MAIL FROM:<>")
    began = time.monotonic()
    for host in hosts[0], hosts[4321], hosts[-1]:
        same("takes " + host, c.command("RCPT TO:<a@%s>" % host)[0], 250)
    same("and no other", c.command("RCPT TO:<a@d9000.x.example>")[0], 550)
    took = time.monotonic() - began
    ok("at once", took < 0.2 * SLOW, took)
    c.close()
    server.stop()


@test
def warnings(db):
    """They start; -t and the log say what is doubtful, and where."""
    rest = basis(db) + "GM_ALLOWED_HOSTS=a.org\n"
    db.sql("CREATE USER p%d@localhost IDENTIFIED BY 'a #b'; GRANT SELECT, INSERT ON %s.new_mail "
           "TO p%d@localhost" % (os.getpid(), db.name, os.getpid()))
    for what, text, mode, env, words in (
            ("a setting twice", rest + "GSMTP_MAX_RCPT=7\n\nGSMTP_MAX_RCPT=8\n", 0o600, {},
             [FILE + ":9: GSMTP_MAX_RCPT", FILE + ":7"]),
            ("a password that others can read", rest + "MYSQL_PASS=\n", 0o644, {}, None),
            ("a password that others can read", rest.replace("=root", "=root\nMYSQL_PASS=hush-hush"), 0o644,
             {}, ["MYSQL_PASS", "chmod 600"]),
            ("a password with a comment", rest.replace("=root", "=p%d\nMYSQL_PASS=a #b" % os.getpid()), 0o600,
             {}, [FILE + ":3: MYSQL_PASS", "a comment needs a line of its own"]),
            ("a password that looks like it", rest.replace("=root", "=p%d\nMYSQL_PASS='a #b'" % os.getpid()),
             0o600, {}, None),
            ("root", rest + "GSMTP_USER=root\n", 0o600, {}, ["GSMTP_USER=root"]),
            ("a name that is none", rest, 0o600, {"GSMTP_MAX_SIZ": "1"}, ["environment", "GSMTP_MAX_SIZ"]),
            ("another", rest, 0o600, {"GM_ALLOWED_HOST": "a.org"}, ["environment", "GM_ALLOWED_HOST"]),
            ("larger than memory", rest + "GSMTP_MAX_MEMORY=1000000\n", 0o600, {},
             ["GSMTP_MAX_SIZE=10485760", "GSMTP_MAX_MEMORY=1000000"])):
        write(text, mode)
        for option in ["-t"], []:
            status, said = run("-c", FILE, *option, env=env)
            lines = [l for l in said.splitlines() if "warning" in l]
            if words is None:
                same("%s %s: no warning" % (what, option), lines, [])
                same("%s %s: it starts" % (what, option), status, 0 if option else "serves")
            elif "hush" in text:        # the database does not know it: what counts is the warning
                ok("%s %s: a warning" % (what, option), lines and all(w in lines[0] for w in words), said)
            else:
                ok("%s %s: a warning" % (what, option), len(lines) == 1 and
                   all(w in lines[0] for w in words), said)
                same("%s %s: it starts" % (what, option), status, 0 if option else "serves")
            ok("the password is not shown", "hush-hush" not in said, said)
    db.sql("DROP USER p%d@localhost" % os.getpid())
    write(rest + "GSMTP_MAX_RCPT=7\nGSMTP_MAX_RCPT=8\n")
    ok("the second counts", "\nGSMTP_MAX_RCPT=8\n" in run("-t", "-c", FILE)[1])
    server = Server(db, GSMTP_LOG_FILE="")
    ok("no warning for what is right", "warning" not in server.log(), server.log())
    server.config["GSMTP_MAX_MEMORY"] = "1000000"
    server.write()
    server.hup()
    ok("HUP warns as well", server.logged("warning GSMTP_MAX_MEMORY="), server.log())
    server.stop()


@test
def an_environment_without_equals(db):
    """execve() takes any string as one of the environment; what stands behind it is no value."""
    write(basis(db))
    code = ("import ctypes; strings = lambda *s: (ctypes.c_char_p * (len(s) + 1))(*s, None); "
            "ctypes.CDLL(None).execve(%r, strings(b'smtpd', b'-t', b'-c', %r), "
            "strings(b'GSMTP_MAX_RCPT', b'GM_ALLOWED_HOSTS=a.org'))" % (SMTPD.encode(), FILE.encode()))
    p = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=20 * SLOW)
    ok("it is no setting", p.returncode == 0 and b'warning environment: "GSMTP_MAX_RCPT"' in p.stdout
       and b"\nGSMTP_MAX_RCPT=100\n" in p.stdout, p.stdout)


@test
def t_is_the_truth(db):
    server = Server(db)
    status, said = run("-t", "-c", server.file)
    ok("-t beside the server of the same settings", status == 0 and said.endswith("\n# ok\n") and
       "127.0.0.1:%d is in use" % server.port in said, said)
    status, said = run("-c", server.file)
    ok("a second one does not start, and says why", status == 1 and "in use" in said.lower(), said)
    same("the first one serves on", listening(server.port), True)
    same("GSMTP_LISTEN changed", run("-t", "-c", server.file, env={"GSMTP_LISTEN": "192.0.2.1:25"})[0], 1)
    server.stop()
    log = os.path.join(DIR, "t.log")
    if os.path.exists(log):
        os.unlink(log)
    write(basis(db) + "GM_ALLOWED_HOSTS=a.org,*.b.org\nMYSQL_PASS=\nGSMTP_MAX_SIZE=12345\n"
          "GSMTP_PROXY_FROM=192.0.2.0/24\nGSMTP_LOG_FILE='%s'\nMYSQL_USER=\" root\"\n" % log)
    status, said = run("-t", "-c", FILE, env={"MYSQL_USER": "root"})
    same("-t", status, 0)
    same("-t leaves no log behind", os.path.exists(log), False)
    write("a line\n", name=log)
    run("-t", "-c", FILE, env={"MYSQL_USER": "root"})
    same("nor does it take away one that is there", os.path.exists(log), True)
    os.unlink(log)
    os.symlink(log + ".to-be", log)
    run("-t", "-c", FILE, env={"MYSQL_USER": "root"})
    same("nor a link to one that is to come", os.path.islink(log), True)
    for name in log, log + ".to-be":
        os.unlink(name)
    for memory, warned in ("28000000", True), ("30000000", False):
        text = run("-t", "-c", FILE, env={"GSMTP_MAX_MEMORY": memory, "GSMTP_MAX_SIZE": "10485760"})[1]
        same("GSMTP_MAX_MEMORY=%s: a warning" % memory, "is little for GSMTP_MAX_SIZE" in text, warned)
    values = re.findall("(?m)^[^#].*", said)
    again = os.path.join(DIR, "again.conf")
    write(said, name=again)
    status, said = run("-t", "-c", again)
    same("its output is a file of settings", (status, re.findall("(?m)^[^#].*", said)), (0, values))
    p = start([SMTPD, "-c", again], os.path.join(DIR, "again.out"), cwd=DIR)
    where = int(re.search(r"LISTEN=127.0.0.1:(\d+)", said).group(1))
    ok("to start with", wait(lambda: listening(where)))
    same("and it ends", stop(p), 0)
    for text in "GM_MAIL_TABLE=none\n", "MYSQL_DB=none\n":
        write(re.sub("MYSQL_DB=.*\n", "", basis(db)) + "GM_ALLOWED_HOSTS=a.org\n" +
              (text if "DB" in text else "MYSQL_DB=%s\n%s" % (db.name, text)))
        told = [run("-c", FILE, *option) for option in (["-t"], [])]
        same(text + "neither", [t[0] for t in told], [1, 1])
        same(text + "says the same", len({t[1].splitlines()[-1] for t in told}), 1)


@test
def hup_takes_no_mistake(db):
    server = Server(db)
    for name, value, words in (
            ("GM_ALLOWED_HOSTS", "a.org b.org", "a.org b.org"), ("GSMTP_LISTEN", "::1:2525", "::1:2525"),
            ("GSMTP_LISTEN", "192.0.2.1:25", "no address of this machine"),
            ("GSMTP_MAX_SIZE", "10M", "whole number"), ("GSMTP_USER", "no-such-user", "no such user"),
            ("MYSQL_HOST", "localhost:33o6", "33o6"), ("GSMTP_TLS_KEY", "/key", "GSMTP_TLS_CERT"),
            ("GM_MAIL_TABLE", "none", "none"), ("GSMTP_NONE", "1", "GSMTP_NONE")):
        old = server.config.copy()
        server.config[name] = value
        server.write()
        before = server.log().count("reload-error")
        server.hup()
        ok("%s=%s: logged" % (name, value), wait(lambda: server.log().count("reload-error") > before), server.log())
        line = [l for l in server.log().splitlines() if "reload-error" in l][-1]
        ok("%s=%s: why, and that the old ones stay" % (name, value), words in line and "stays" in line, line)
        c = session(server.port, "MAIL FROM:<>")
        same("%s=%s: the old ones do" % (name, value), c.codes("RCPT TO:<a@test.example>",
                                                           "RCPT TO:<a@a.org>"), [250, 550])
        c.close()
        server.config = old
    server.stop()


@test
def hup_takes_another_log(db):
    """One that can be opened; else nothing of the new settings counts."""
    one, two, out = (os.path.join(DIR, "hup-%s.log" % n) for n in ("one", "two", "out"))

    def logged(name, what):
        if not os.path.exists(name):
            return False
        with open(name) as f:
            return what in f.read()
    for name in one, two, out, os.path.join(DIR, "hup-moved.log"):
        if os.path.exists(name):
            os.unlink(name)
    rest = basis(db)
    where = int(re.search(r"127.0.0.1:(\d+)", rest).group(1))
    write(rest + "GM_ALLOWED_HOSTS=a.org\nGSMTP_LOG_FILE=%s\n" % one)
    p = start([SMTPD, "-c", FILE], out, cwd=DIR)
    ok("it starts", wait(lambda: logged(one, "worker-start")))
    write(rest + "GM_ALLOWED_HOSTS=b.org\nGSMTP_LOG_FILE=/no/folder/log\n")
    p.send_signal(signal.SIGHUP)
    ok("a folder that is none", wait(lambda: logged(one, "reload-error %s:7: GSMTP_LOG_FILE=/no/folder/log: No "
                                                    "such file" % FILE)))
    c = session(where, "MAIL FROM:<>")
    same("the old settings stay", c.codes("RCPT TO:<x@a.org>", "RCPT TO:<x@b.org>"), [250, 550])
    c.close()
    write(rest + "GM_ALLOWED_HOSTS=b.org\nGM_MAIL_TABLE=none\nGSMTP_LOG_FILE=%s\n" % two)
    p.send_signal(signal.SIGHUP)
    ok("another log and a table that is none", wait(lambda: logged(one, "none' doesn't exist")))
    same("that log was not made", os.path.exists(two), False)
    folder = os.path.join(DIR, "hup-folder")
    os.makedirs(folder, exist_ok=True)
    old, moved = os.path.join(folder, "log"), os.path.join(DIR, "hup-moved.log")
    write(rest + "GM_ALLOWED_HOSTS=a.org\nGSMTP_LOG_FILE=%s\n" % old)
    p.send_signal(signal.SIGHUP)
    ok("a log in a folder", wait(lambda: logged(old, " reload ")))
    os.rename(old, moved)
    os.rmdir(folder)
    write(rest + "GM_ALLOWED_HOSTS=b.org\nGM_MAIL_TABLE=none\nGSMTP_LOG_FILE=%s\n" % two)
    p.send_signal(signal.SIGHUP)
    ok("which cannot be opened again stays where nothing is taken",
       wait(lambda: logged(moved, "none' doesn't exist")))
    same("nor was that log made", os.path.exists(two), False)
    write(rest + "GM_ALLOWED_HOSTS=b.org\nGSMTP_LOG_FILE=%s\n" % two)
    p.send_signal(signal.SIGHUP)
    ok("another log", wait(lambda: logged(two, "worker-start")))
    ok("with the reload in it", logged(two, " reload "))
    write(rest + "GM_ALLOWED_HOSTS=b.org\n")
    p.send_signal(signal.SIGHUP)
    ok("none: standard error", wait(lambda: logged(out, " reload ")))
    write(rest + "GM_ALLOWED_HOSTS=b.org\nGM_MAIL_TABLE=none\nGSMTP_LOG_FILE=%s\n" % two)
    p.send_signal(signal.SIGHUP)
    ok("which stays where nothing else is taken", wait(lambda: logged(out, "none' doesn't exist")))
    same("it ends", stop(p), 0)
    ok("and its end", logged(out, " stopped"))


@test
def documented(db):
    """Every setting, with its default, in the README and the man page; no setting that is none."""
    write("GM_ALLOWED_HOSTS=a.org\n")
    names = re.findall("(?m)^([A-Z_]+)=", run("-t", "-c", FILE)[1])
    ok("-t prints them", len(names) == 25, names)
    for name in "README", "smtpd.8", "etc/smtpd.conf":
        where = os.path.join(ROOT, name)
        if name == "etc/smtpd.conf" and not os.path.exists(where):
            continue
        with open(where) as f:
            text = f.read()
        same(name + ": settings left out", [n for n in names if n not in text], [])
        there = set(re.findall(r"\b(?:GSMTP|GM|MYSQL)_[A-Z_]*[A-Z]\b", text))
        same(name + ": no setting", sorted(there - set(names) - {
            "MYSQL_CFLAGS", "MYSQL_LIBS", "GSMTP_VERIFY_USERS", "GM_", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"}), [])


def elsewhere(etc, *argv, host=None, **more):
    """smtpd in a mount and UTS namespace of its own: another /etc/smtpd.conf, another host name."""
    code = "mount --bind '%s' /etc && " % etc if etc else ""
    if host is not None:
        code += "python3 -c 'import socket; socket.sethostname(\"%s\")' && " % host
    p = subprocess.run(["unshare", "-m", "-u", "sh", "-c", code + 'exec "$@"', "sh", SMTPD] + list(argv),
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=DIR, timeout=20 * SLOW,
                       env=environment())
    return p.returncode, p.stdout.decode()


OPENSMTPD = """\
#	$OpenBSD$
table aliases file:/etc/aliases
listen on localhost
action "local" maildir alias <aliases>
match for local action "local"
"""


@test
def etc_smtpd_conf(db):
    etc = os.path.join(DIR, "etc")
    shutil.rmtree(etc, ignore_errors=True)
    shutil.copytree("/etc", etc, symlinks=True)
    conf = os.path.join(etc, "smtpd.conf")
    status, said = elsewhere(etc, "-t")
    ok("none is no mistake", status == 1 and "GM_ALLOWED_HOSTS is not set" in said, said)
    write(basis(db) + "GM_ALLOWED_HOSTS=a.org\n", name=conf)
    status, said = elsewhere(etc, "-t")
    ok("it is read without -c", status == 0 and "# /etc/smtpd.conf:" in said, said)
    ok("-c takes another", "not set" in elsewhere(etc, "-t", "-c", "/dev/null")[1])
    log = os.path.join(DIR, "log.txt")
    if os.path.exists(log):
        os.unlink(log)
    write(basis(db) + "GM_ALLOWED_HOSTS=a.org\nGSMTP_MAX_RCPT=8\nGSMTP_MAX_RCPT=9\n", name=conf)
    p = start(["unshare", "-m", "sh", "-c", "mount --bind '%s' /etc && exec nohup '%s' -l log.txt"
               % (etc, SMTPD)], os.path.join(DIR, "nohup.out"), cwd=DIR)

    def logged(what):
        with open(log) as f:
            return what in f.read()
    ok("nohup ./smtpd -l log.txt &", wait(lambda: os.path.exists(log) and logged("worker-start"), 10))
    ok("with its warnings in the log", logged("warning /etc/smtpd.conf:"))
    same("it ends", stop(p), 0)
    for line in OPENSMTPD.splitlines()[1:] + ['ext_if = "eth0"', "pki mail cert \"/etc/ssl/x.pem\""]:
        write("# theirs\n" + line + "\n" + OPENSMTPD, name=conf)
        for argv in ["-t"], []:
            status, said = elsewhere(etc, *argv)
            ok("OpenSMTPD's is told apart: " + line, status == 1 and "/etc/smtpd.conf:2: " in said and
               line.split(" =")[0] in said and "OpenSMTPD" in said and "-c" in said, said)
    write("X=1\n")
    ok("and not where -c names it", "OpenSMTPD" not in run("-t", "-c", FILE)[1])
    shutil.rmtree(etc)
    ok("-h says so", "/etc/smtpd.conf" in run("-h")[1])


@test
def host_name(db):
    write(basis(db) + "GM_ALLOWED_HOSTS=a.org\n")
    for host, name in (("", "localhost"), ("mx.example", "mx.example"), ("vm_1", "vm_1")):
        status, said = elsewhere(None, "-t", "-c", FILE, host=host)
        ok("host name %r" % host, status == 0 and "\nGSMTP_HOST_NAME=%s\n" % name in said, said)
    status, said = elsewhere(None, "-t", "-c", FILE, host="my mx")
    ok("one that is none", status == 1 and "my mx" in said and "GSMTP_HOST_NAME" in said, said)


RIGHT = [
    ("GM_ALLOWED_HOSTS", ["example.org", "EXAMPLE.org,*.example.org", "*", "*.org", " a.org , b.org ", "a.org,,b.org,",
                          "localhost", "x", "_x.a-b.org", "3com.com", "a.b1", "[192.0.2.1]",
                          "[IPv6:2001:db8::1]", "x" * 63 + ".org", "b\u00fccher.example",
                          "*.\u65e5\u672c.jp", "\u043f\u0440\u0438\u043c\u0435\u0440", "xn--bcher-kva.example",
                          '"a.org,b.org"', "'a.org'"]),
    ("GM_PRIMARY_MAIL_HOST", ["", "x.org", "b\u00fccher.example"]),
    ("GSMTP_HOST_NAME", ["", "mx", "mx.example.org", "my_host", "[192.0.2.1]"]),
    ("GSMTP_LISTEN", ["", "*:%d", "127.0.0.1:%d", "127.0.0.1:%d,127.0.0.2:%d", "127.0.0.1:%d,127.0.0.1:%d",
                      "[::1]:%d", " 127.0.0.1:%d ,\t127.0.0.2:%d\t,", "[127.0.0.1]:%d", "0.0.0.0:%d"]),
    ("GSMTP_PROXY_FROM", ["", "192.0.2.1", "192.0.2.0/24,2001:db8::/32", "::1", "::1:abcd", "0.0.0.0/0",
                          "10.1.2.3/8"]),
    ("GSMTP_MAX_SIZE", ["", "1024", "1073741824", "0010485760"]),
    ("GSMTP_CHECK_HEADER", ["", "0", "1"]), ("GSMTP_VERBOSE", ["", "0"]),
    ("GSMTP_USER", ["", "nobody"]), ("GM_MAIL_TABLE", ["", "new_mail"]),
    ("GSMTP_WORKERS", ["", "3", "40"]), ("GSMTP_LOG_FILE", ["", "a log#1.txt"]), ("MYSQL_PASS", [""])]


@test
def right(db):
    """What must start does, and -t says so."""
    for name, values in RIGHT:
        for value in values:
            where = port()
            text = basis(db) + "GM_ALLOWED_HOSTS=x.org\nGSMTP_WORKERS=1\n"
            text = re.sub("(?m)^%s=.*\n" % name, "", text)
            write(text + "%s=%s\n" % (name, value.replace("%d", str(where))))
            status, said = run("-t", "-c", FILE, "-p", str(where))
            ok("%s=%s: ok" % (name, value), status == 0 and said.endswith("\n# ok\n"), (status, said[-300:]))


@test
def empty_is_the_default(db):
    """As an environment makes of variables that are not set."""
    write(basis(db) + "GM_ALLOWED_HOSTS=x.org\n")
    said = run("-t", "-c", FILE)[1]
    names = [n for n in re.findall("(?m)^([A-Z_]+)=", said) if not n.startswith(("MYSQL_", "GM_ALLOWED",
                                                                             "GSMTP_LISTEN"))]
    ok("-t prints the names", len(names) > 15, names)
    for how in "file", "environment":
        empty = "".join(n + "=\n" for n in names)
        write(basis(db).replace("GSMTP_WORKERS=1\n", "") + "GM_ALLOWED_HOSTS=x.org\n"
              + (empty if how == "file" else ""))
        status, now = run("-t", "-c", FILE, env={n: "" for n in names} if how != "file" else {})
        same(how + ": status", status, 0)
        values = dict(re.findall("(?m)^([A-Z_]+)=(.*)", now))
        for name, value in (("GSMTP_MAX_SIZE", "10485760"), ("GSMTP_CHECK_HEADER", "1"),
                            ("GM_MAIL_TABLE", "new_mail"), ("GSMTP_USER", "nobody"),
                            ("GSMTP_TIMEOUT", "300"), ("GSMTP_MAX_CLIENTS_PER_IP", "500")):
            same("%s: %s" % (how, name), values.get(name), value)
    said = run("-t", "-c", FILE, env={"MYSQL_HOST": "", "MYSQL_DB": "", "MYSQL_USER": ""})[1]
    values = dict(re.findall("(?m)^([A-Z_]+)=(.*)", said))
    same("MYSQL_HOST is a default, the others are for the option files",
         [values.get(n) for n in ("MYSQL_HOST", "MYSQL_DB", "MYSQL_USER")], ["localhost", "", ""])
    status, said = run("-t", "-c", FILE, env={"GM_ALLOWED_HOSTS": ""})
    ok("but GM_ALLOWED_HOSTS must be set", status == 1 and "GM_ALLOWED_HOSTS is not set" in said, said)


@test
def international_domains(db):
    """Written in UTF-8 or as DNS has it, addressed in UTF-8 or as DNS has it: all the same."""
    for unicode in "b\u00fccher.example", "\u65e5\u672c\u8a9e.\u30c6\u30b9\u30c8.example", \
            "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444", "fa\u00df-x.example", \
            "\U0001f600\U0001f600a.example", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629":
        ascii = ".".join(l if l.isascii() else "xn--" + l.encode("punycode").decode()
                         for l in unicode.split("."))
        for written in unicode, ascii, "*." + unicode:
            server = Server(db, GM_ALLOWED_HOSTS="a.example, %s,z.example" % written)
            c = session(server.port, "MAIL FROM:<> SMTPUTF8")
            sub = "sub." if written[0] == "*" else ""
            for domain in unicode, ascii, ascii.upper():
                same("%s takes %s" % (written, sub + domain),
                     c.command("RCPT TO:<a@%s>" % (sub + domain))[0], 250)
            for domain in "x" + unicode, ascii + "x", "no." + ascii + ".example", \
                    "b\u00fccher.example.org":
                same("%s does not take %s" % (written, domain),
                     c.command("RCPT TO:<a@%s>" % domain)[0], 550)
            c.close()
            server.stop()


def main():
    run_tests(Database())


main()
