#!/usr/bin/env python3
"""End to end: real clients, a real MariaDB, and each row compared column by column.

Also what an operator does: options, configuration errors, signals, dead workers. Arguments that do
not start with a dash choose the tests whose names contain one of them.
"""
import base64
import errno
import hashlib
import os
import re
import select
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from live import (BINARY, DIR, ROOT, SLOW, Client, Database, Server, Stopwatch, deliver, deliver_once,
                  gone, listening, ok, port, run, run_tests, same, session, smtpd, start, stop, test,
                  wait)


def crlf(text):
    return text.replace("\n", "\r\n").encode()


def md5(*parts):
    return hashlib.md5(b"".join(parts)).hexdigest().encode()


# -- the row

MAIL = (crlf("""\
From: =?utf-8?Q?Zo=C3=AB?= <Zoe@Example.ORG>
To: B <b@test.example>, C <c@test.example>
Date: Sun, 22 Nov 2026 12:00:00 +0000
Message-ID: <1@example.org>
Subject: =?utf-8?B?%s?=
 =?iso-8859-1?Q?_gr=FC=DFe?=
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=x

--x
Content-Type: text/plain; charset=US-ASCII

.not this one
--x
Content-Type: text/html; charset=KOI8-R
Content-Transfer-Encoding: base64

""" % base64.b64encode("日本語".encode()).decode())
        + base64.b64encode("<p>Привет, мир</p>\r\n".encode("koi8-r")) + b"\r\n--x--\r\n")
COLUMNS = {"from": b"zoe@example.org", "subject": "日本語 grüße".encode(),
           "body": "<p>Привет, мир</p>\r\n".encode(), "charset": b"koi8-r",
           "content_type": b"text/html"}


def check_row(what, row, recipient, mail=MAIL, sender=b"a@b.example", columns=COLUMNS):
    for name, value in columns.items():
        same("%s: %s" % (what, name), row[name], value)
    same(what + ": recipient", row["recipient"], recipient)
    same(what + ": to", row["to"], recipient)
    same(what + ": hash", row["hash"], md5(row["body"], row["from"], row["subject"], recipient))
    same(what + ": mail, octet by octet", row["mail"], mail)
    ok(what + ": Return-Path and Received", re.fullmatch(
        rb"Return-Path: <%s>\r\nReceived: from \S+ \(\[127\.0\.0\.1\]\)\r\n\tby mx\.test\.example "
        rb"with (?:UTF8|E)?SMTP id \S+(\r\n\tfor <\S+>)?;\r\n\t"
        rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
        % re.escape(sender), row["trace"]), row["trace"])


def clients(where):
    """What each client is called with for the mail in the file `name'; None: smtplib."""
    to = ["b@test.example", "c@test.example"]
    name = os.path.join(DIR, "mail.eml")
    with open(name, "wb") as f:         # swaks makes CRLF of LF, and adds one at the end
        f.write(MAIL[:-2].replace(b"\r\n", b"\n"))
    with open(name + ".crlf", "wb") as f:
        f.write(MAIL)
    return {
        "swaks": ["swaks", "--silent", "2", "--server", "127.0.0.1", "--port", str(where),
                  "--helo", "client.example", "--from", "a@b.example", "--to", ",".join(to),
                  "--suppress-data", "--data", "@" + name],
        "msmtp": ["msmtp", "--host=127.0.0.1", "--port=%d" % where, "--from=a@b.example",
                  "--auth=off", "--tls=off", "--domain=client.example"] + to,
        "curl": ["curl", "-sS", "smtp://127.0.0.1:%d/client.example" % where, "--mail-from",
                 "a@b.example", "--mail-rcpt", to[0], "--mail-rcpt", to[1], "-T", name + ".crlf"],
        "smtplib": None,
    }


@test
def row_by_every_client(db):
    server = Server(db)
    for name, argv in clients(server.port).items():
        before = time.time()
        if argv is None:
            with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.example") as c:
                c.sendmail("a@b.example", ["b@test.example", "c@test.example"], MAIL)
        else:
            status, said = run(argv, MAIL.replace(b"\r\n", b"\n"))
            ok(name + " is content", status == 0, said)
        rows = db.mails()
        if same(name + ": two recipients, two rows", len(rows), 2):
            check_row(name, rows[0], b"b@test.example")
            check_row(name, rows[1], b"c@test.example")
        dates = db.sql("SELECT UNIX_TIMESTAMP(CONVERT_TZ(date, '+00:00', @@session.time_zone)), "
                       "spam_score FROM new_mail").split()
        ok(name + ": date is now, in UTC", before - 2 < float(dates[0]) < time.time() + 2, dates)
        same(name + ": spam_score", dates[1], b"0")
        db.empty()
    server.stop()


@test
def row_of_simple_mails(db):
    server = Server(db)
    c = session(server.port)
    plain = {"from": b"a@b.example", "subject": b"", "body": b"", "charset": b"",
             "content_type": b"text/plain"}
    for what, mail, columns in (
            ("no MIME", b"Subject: hello\r\n\r\nline 1\r\n..line 2\r\n",
             {"subject": b"hello", "body": b"line 1\r\n..line 2\r\n"}),
            ("no header", b"\r\nbody\r\n", {"body": b"body\r\n"}),
            ("no body", b"Subject: only\r\n", {"subject": b"only"}),
            ("nothing", b"", {}),
            ("8-bit header", "Subject: grüße\r\nFrom: X@Y.Example (Z)\r\n\r\n".encode(),
             {"subject": "grüße".encode(), "from": b"x@y.example"}),
            ("latin-1 header", "Subject: grüße\r\n\r\n".encode("latin-1"),
             {"subject": "grüße".encode()}),
            ("for SQL", b"Subject: '; DROP TABLE new_mail; -- \\\r\n\r\n\\' \" \x00 \x1a\r\n",
             {"subject": b"'; DROP TABLE new_mail; -- \\"})):
        code, text = deliver(c, mail)
        same(what + ": taken", code, 250)
        rows = db.mails()
        if same(what + ": one row", len(rows), 1):
            want = dict(plain, **columns)
            if what == "for SQL":
                del want["body"]
            check_row(what, rows[0], b"b@test.example", mail, columns=want)
            ok(what + ": its hash in the reply", rows[0]["hash"].decode() in text, text)
        db.empty()
    c.close()
    server.stop()


@test
def envelope_columns(db):
    server = Server(db, GM_PRIMARY_MAIL_HOST="main.example", GM_ALLOWED_HOSTS="*")
    c = session(server.port)
    same("taken", deliver(c, b"Subject: x\r\n\r\n", ["Some.One@Host.Example", "PostMaster"],
                          "")[0], 250)
    rows = db.mails()
    same("recipient, lower case", [r["recipient"] for r in rows],
         [b"some.one@host.example", b"postmaster"])
    same("to with GM_PRIMARY_MAIL_HOST", [r["to"] for r in rows],
         [b"some.one@main.example", b"postmaster@main.example"])
    same("from where there is neither", [r["from"] for r in rows], [b"", b""])
    c.close()
    server.stop()
    db.empty()


@test
def received_one_recipient_only(db):
    server = Server(db)
    c = session(server.port)
    deliver(c)
    deliver(c, to=("b@test.example", "secret@test.example"))
    c.command("HELO old.example")
    deliver(c)
    traces = [r["trace"] for r in db.mails()]
    ok("for <...>", b"for <b@test.example>" in traces[0], traces)
    ok("no word of the others", not any(b"for <" in t for t in traces[1:3]), traces)
    ok("with ESMTP, with SMTP", b"with ESMTP " in traces[0] and b"with SMTP " in traces[3]
       and b"from old.example " in traces[3], traces)
    c.close()
    server.stop()
    db.empty()


@test
def long_texts_are_cut_at_a_character(db):
    server = Server(db, GSMTP_MAX_SIZE="20000000")
    c = session(server.port)
    mail = ("From: <%s@x.example>\r\nSubject: x%s\r\n\r\n" % ("é" * 200, "é" * 40000)).encode() + "x".encode() + "€".encode() * 6000000
    mail += b"\r\n"
    same("taken", deliver(c, mail)[0], 250)
    row = db.mails()[0]
    same("subject", row["subject"].decode(), "x" + "é" * 32767)
    same("an address of fewer characters than octets", row["from"].decode(), "é" * 200 + "@x.example")
    same("body", hashlib.md5(row["body"]).digest(),
         hashlib.md5(b"x" + "€".encode() * ((16777215 - 1) // 3)).digest())
    ok("mail whole", row["mail"] == mail, len(row["mail"]))
    c.close()
    server.stop()
    db.empty()


# -- load

@test
def thousand_by_smtp_source(db):
    server = Server(db, GM_ALLOWED_HOSTS="*")
    for option in [], ["-d"]:
        status, said = run(["smtp-source"] + option + [
            "-s", "20", "-l", "4096", "-m", "1000", "-f", "a@b.example", "-t", "b@test.example",
            "127.0.0.1:%d" % server.port], seconds=120)
        what = " ".join(["smtp-source"] + option)
        ok(what + " is content", status == 0 and not said, said)
        same(what + ": 1000 mails, 1000 rows", db.count(), 1000)
        same(what + ": each another one, and whole",
             db.sql("SELECT COUNT(DISTINCT mail), MIN(LENGTH(mail)) > 4096 FROM new_mail").split(),
             [b"1000", b"1"])
        db.empty()
    server.stop()


@test
def many_recipients(db):
    server = Server(db)
    c = session(server.port)
    to = ["r%d@test.example" % i for i in range(100)]
    same("taken", deliver(c, MAIL, to)[0], 250)
    same("a row each", [r["recipient"].decode() for r in db.mails()], to)
    db.empty()
    large = b"Subject: large\r\n\r\n" + b"x" * 500000 + b"\r\n"
    same("half a megabyte taken", deliver(c, large, to)[0], 250)
    rows = db.mails()
    same("a row each", [r["recipient"].decode() for r in rows], to)
    same("each with its hash", [r["hash"] for r in rows], [
        md5(r["body"], r["from"], r["subject"], r["recipient"]) for r in rows])
    c.close()
    server.stop()
    db.empty()


@test
def large_mails(db):
    server = Server(db)
    c = session(server.port)
    mail = b"Subject: large\r\n\r\n" + b"".join(
        base64.b64encode(os.urandom(57)) + b"\r\n" for _ in range(130000))
    code, text = deliver(c, mail)
    same("%d octets taken" % len(mail), code, 250)
    ok("stored whole", [r["mail"] for r in db.mails()] == [mail])
    ok("its hash in the reply", text.endswith(db.mails()[0]["hash"].decode()), text)
    mail += b"x" * (10485760 - len(mail) - 2) + b"\r\n"
    same("the largest", deliver(c, mail)[0], 250)
    same("one octet more", deliver(c, b"x" + mail)[0], 552)
    same("and a small one after it", deliver(c)[0], 250)
    c.close()
    server.stop()
    db.empty()


# -- limits and time

@test
def timeouts(db):
    server = Server(db, GSMTP_TIMEOUT="2")
    mute, slow, idle = Client(server.port), Client(server.port), session(server.port)
    data = session(server.port, "MAIL FROM:<a@b.example>", "RCPT TO:<b@test.example>", "DATA")
    watch = Stopwatch()
    for _ in range(8):          # an octet now and then is no command
        if not select.select([slow.sock], [], [], 0.3)[0]:
            slow.send(b"N")
    for what, c in ("mute", mute), ("a trickle", slow), ("idle", idle), ("DATA", data):
        code, text = c.reply()
        ok(what + ": 421 4.4.2", code == 421 and text.startswith("4.4.2"), (code, text))
        ok(what + ": closed", c.ended())
    ok("in time", watch.took() < 6, watch.took())
    alive = session(server.port)
    for _ in range(4):          # commands in time are no time-out
        watch = Stopwatch()
        time.sleep(0.9)
        late = watch.all() > 1.5        # a machine so busy that it was not in time
        if alive.command("NOOP")[0] != 250:
            ok("NOOP", late)
            alive = session(server.port)
    server.stop()
    same("nothing stored", db.count(), 0)


@test
def too_many_connections(db):
    server = Server(db, MAX_SMTP_CLIENTS="8", GSMTP_MAX_CLIENTS_PER_IP="4", GSMTP_WORKERS="2")
    first = [Client(server.port, source="127.0.0.2") for _ in range(4)]
    same("four from one address", [c.banner[0] for c in first], [220] * 4)
    refused = Client(server.port, source="127.0.0.2")
    ok("not a fifth", refused.banner[0] == 421 and refused.banner[1].startswith("4.7.0")
       and refused.ended(), refused.banner)
    refused.close()
    second = []
    for _ in range(4):          # the server may not have seen yet that the one refused has gone
        c = wait(lambda: (lambda c: c.banner[0] == 220 and c)(Client(server.port, source="127.0.0.3")))
        ok("four from another", c)
        second.append(c)
    late = Client(server.port, source="127.0.0.4", timeout=1)
    ok("a ninth: 421, or it waits", late.banner[0] in (0, 421), late.banner)
    late.close()
    for c in first + second:
        c.close()
    ok("then all is as before", wait(lambda: deliver_once(server) == 250, 10))
    server.stop()
    db.empty()


@test
def ten_seconds_when_nearly_full(db):
    server = Server(db, MAX_SMTP_CLIENTS="8", GSMTP_MAX_CLIENTS_PER_IP="8")
    first = Stopwatch()
    held = [session(server.port, timeout=300) for _ in range(7)]
    watch = Stopwatch()
    code, text = held[0].reply()
    took = first.all(), watch.took()
    ok("7 of 8 in use: 421 4.4.2 after ten seconds, not 300",
       code == 421 and text.startswith("4.4.2") and 9 < took[0] and took[1] < 15, (code, text, took))
    for c in held:
        c.close()
    server.stop()


@test
def memory_is_bounded(db):
    # The last mail of each worker, 1 MB, counts while the other asks for the 2.7 MB that a body can
    # become: with 4 MB both may be refused.
    server = Server(db, GSMTP_MAX_MEMORY="8000000", GSMTP_MAX_SIZE="1000000")
    held = [session(server.port, "MAIL FROM:<a@b.example>", "RCPT TO:<b@test.example>", "DATA")
            for _ in range(20)]
    for c in held:
        c.send(b"x" * 900000)
    for c in held:
        c.send(b"\r\n.\r\n")
    codes = [c.reply()[0] for c in held]
    same("some are stored, the others told to come again", set(codes), {250, 452})
    for c in held:
        c.close()
    same("then all is as before", deliver_once(server), 250)
    same("a row for each 250", db.count(), codes.count(250) + 1)
    server.stop()
    db.empty()


@test
def recipients_count_as_memory(db):
    """Past some kilobytes a list of recipients asks for room, as a message does."""
    server = Server(db, GSMTP_WORKERS="1", GSMTP_MAX_MEMORY="65536", GSMTP_MAX_RCPT="10000")
    c = session(server.port, "MAIL FROM:<a@b.example>")
    replies = [c.command("RCPT TO:<%s%d@test.example>" % ("x" * 250, i)) for i in range(400)]
    taken = [code for code, _ in replies].count(250)
    ok("some are taken", 8192 // 270 < taken < 65536 // 250, taken)
    same("the others are told to come again", {(r[0], r[1][:5]) for r in replies[taken:]}, {(452, "4.3.1")})
    same("RSET gives the room back", [c.command(line)[0] for line in (
        "RSET", "MAIL FROM:<a@b.example>", "RCPT TO:<b@test.example>")], [250] * 3)
    c.close()
    server.stop()


@test
def others_never_wait(db):
    """A client that sends no end, and one that never reads, stop nobody."""
    server = Server(db, GSMTP_WORKERS="1")
    half = session(server.port, "MAIL FROM:<a@b.example>", "RCPT TO:<b@test.example>", "DATA")
    half.send(b"x" * 100000)
    deaf = Client(server.port)
    deaf.sock.setblocking(False)
    try:
        for _ in range(2000):
            deaf.sock.send(b"HELP\r\n" * 1000)
    except BlockingIOError:
        pass
    watch = Stopwatch()
    same("a third is served", deliver_once(server), 250)
    ok("at once", watch.took() < 1 * SLOW, watch.took())
    half.close()
    deaf.close()
    server.stop()
    same("and the mail without end is not stored", db.count(), 1)
    db.empty()


# -- the operator

@test
def option_t(db):
    status, text = smtpd(db, "-t")
    ok("-t: 0 where all is well", status == 0, (status, text))
    for word in ("GSMTP_MAX_SIZE", "10485760", "MAX_SMTP_CLIENTS", "GM_ALLOWED_HOSTS",
                 "test.example"):
        ok("-t prints " + word, word in text, text)
    status, text = smtpd(db, "-t", env={"GSMTP_MAX_RCPT": "77"}, GSMTP_MAX_RCPT="55")
    ok("the environment beats the file", status == 0 and re.search("GSMTP_MAX_RCPT.*77", text), text)
    status, text = smtpd(db, "-t", "-p", "2999")
    ok("-p", status == 0 and "2999" in text, text)
    for what, config, word in (
            ("no such database", {"MYSQL_DB": "no_such_db"}, "no_such_db"),
            ("no such table", {"GM_MAIL_TABLE": "no_such_table"}, "no_such_table"),
            ("wrong password", {"MYSQL_USER": "nobody", "MYSQL_PASS": "secret-word"}, "nobody")):
        for argv in ["-t"], []:
            status, text = smtpd(db, *argv, **config)
            ok("%s %s: 1 and why" % (what, argv), status == 1 and word in text, (status, text))
            ok("%s %s: no password shown" % (what, argv), "secret-word" not in text, text)
    status, text = smtpd(db, "-t", MYSQL_HOST="/no/such/socket")
    ok("-t, database away: 1 and why", status == 1 and "/no/such/socket" in text, (status, text))


@test
def configuration_errors(db):
    for what, config, words in (
            ("unknown name", {"GSMTP_NO_SUCH": "1"}, [".conf:6: ", "GSMTP_NO_SUCH"]),
            ("not a number", {"GSMTP_MAX_SIZE": "ten"}, [".conf:6: ", "GSMTP_MAX_SIZE"]),
            ("negative", {"GSMTP_TIMEOUT": "-1"}, [".conf:6: ", "GSMTP_TIMEOUT"]),
            ("overflow", {"GSMTP_MAX_RCPT": "9" * 30}, [".conf:6: ", "GSMTP_MAX_RCPT"]),
            ("bad address", {"GSMTP_LISTEN": "300.1.2.3:25"}, ["300.1.2.3"]),
            ("no such user", {"GSMTP_USER": "no-such-user"}, ["no-such-user"])):
        status, text = smtpd(db, "-t", **config)
        ok("%s: 1, file, line and reason" % what, status == 1 and all(w in text for w in words),
           (status, text))
    status, text = smtpd(db, "-t", GM_ALLOWED_HOSTS=None)
    ok("GM_ALLOWED_HOSTS must be set", status == 1 and "GM_ALLOWED_HOSTS" in text, text)
    status, text = smtpd(db, "-t", env={"GSMTP_MAX_RCPT": "none"})
    ok("a bad environment", status == 1 and "GSMTP_MAX_RCPT" in text, text)
    for argv in ["-c", "/no/such/file"], ["-x"], ["-p", "notaport"], ["-p", "70000"]:
        status, text = run([os.path.join(ROOT, BINARY)] + argv, cwd=DIR)
        ok(" ".join(argv) + ": 1 and why", status == 1 and text, (status, text))
    status, text = run([os.path.join(ROOT, BINARY), "-h"])
    ok("-h", status == 0 and "-c" in text and "-t" in text, text)
    status, text = run([os.path.join(ROOT, BINARY), "-V"])
    ok("-V", status == 0 and re.search(r"\d", text), text)


@test
def comments_in_the_configuration(db):
    name = os.path.join(DIR, "comments.conf")
    with open(name, "w") as f:
        f.write("# a comment\n\n  # another\nGM_ALLOWED_HOSTS=test.example\nGSMTP_MAX_RCPT=42\n"
                "MYSQL_HOST=%s\nMYSQL_USER=root\nMYSQL_DB=%s\n" % (db.socket, db.name))
    status, text = run([os.path.join(ROOT, BINARY), "-t", "-c", name])
    ok("comments and empty lines", status == 0 and re.search("GSMTP_MAX_RCPT.*42", text), text)


@test
def log_alone_means_log_txt(db):
    where = os.path.join(DIR, "cwd")
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(where)
    server = Server(db)         # for its configuration
    server.stop()
    p = start([server.binary, "-c", server.file, "-l"], os.path.join(DIR, "console"), cwd=where)
    log = os.path.join(where, "log.txt")
    ok("-l alone: ./log.txt", wait(lambda: os.path.exists(log) and os.path.getsize(log) > 0, 10))
    ok("and it serves", wait(lambda: deliver_once(server) == 250, 10))
    same("ends", stop(p), 0)
    db.empty()
    p = start([server.binary, "-c", server.file, "-v", "-p", "1", "-l"],
              os.path.join(DIR, "console"), cwd=where)
    ok("-v and -l together", wait(lambda: deliver_once(server) == 250, 10))
    same("ends", stop(p), 0)
    with open(os.path.join(DIR, "console")) as f:
        ok("-v: to the console too", "RCPT TO" in f.read())
    db.empty()


@test
def database_away_at_start(db):
    server = Server(db, MYSQL_HOST="/no/such/socket", MYSQL_TIMEOUT="2")
    same("451", deliver_once(server), 451)
    same("451 at once", deliver_once(server), 451)
    ok("the log says so", server.logged("/no/such/socket"), server.log())
    server.stop()
    same("and which mails they were", len(re.findall("deferred hash=[0-9a-f]{32} ", server.log())), 2)


@test
def privileges(db):
    if os.getuid() != 0:
        return
    server = Server(db, GSMTP_USER="nobody")
    same("mail is stored", deliver_once(server), 250)
    for pid in server.workers():
        with open("/proc/%d/status" % pid) as f:
            status = dict(l.rstrip("\n").split(":\t", 1) for l in f if ":\t" in l)
        import pwd
        who = pwd.getpwnam("nobody")
        same("uid", set(status["Uid"].split()), {str(who.pw_uid)})
        same("gid", set(status["Gid"].split()), {str(who.pw_gid)})
        ok("no other groups", set(status["Groups"].split()) <= {str(who.pw_gid)}, status["Groups"])
        same("no capability left", int(status["CapEff"], 16), 0)
    server.stop()
    db.empty()


@test
def least_grant(db):
    """The database user of the README: INSERT and SELECT on one table."""
    user = "u%d" % os.getpid()
    db.sql("CREATE USER %s@localhost IDENTIFIED BY 'it''s %% \"#\\\\'; "
           "GRANT SELECT, INSERT ON %s.new_mail TO %s@localhost" % (user, db.name, user))
    server = Server(db, MYSQL_USER=user, MYSQL_PASS="it's % \"#\\")
    same("mail is stored", deliver_once(server), 250)
    server.stop()
    db.sql("DROP USER %s@localhost" % user)
    db.empty()


@test
def schema_widens_the_published_table(db):
    old = db.name + "_old"
    with open(os.path.join(ROOT, "schema.sql"), "rb") as f:
        schema = f.read()
    db.sql("""CREATE DATABASE %s; USE %s; CREATE TABLE new_mail (
        mail_id int NOT NULL auto_increment, date datetime NOT NULL,
        `from` varchar(128) CHARACTER SET latin1 NOT NULL,
        `to` varchar(128) CHARACTER SET latin1 NOT NULL, subject text NOT NULL, body text NOT NULL,
        charset varchar(32) CHARACTER SET latin1 NOT NULL, mail longblob NOT NULL,
        spam_score float NOT NULL, hash varchar(32) CHARACTER SET latin1 NOT NULL,
        content_type varchar(64) CHARACTER SET latin1 NOT NULL,
        recipient varchar(128) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (mail_id),
        KEY `to` (`to`), KEY hash (hash), KEY date (date)) ENGINE=InnoDB DEFAULT CHARSET=utf8;
        INSERT INTO new_mail VALUES (7, '2009-01-02 03:04:05', 'a@b.example', 'c@test.example',
        'grüße', 'Привет', 'utf-8', x'000dff0a', 1.5, 'd41d8cd98f00b204e9800998ecf8427e',
        'text/html', 'c@test.example')""" % (old, old))
    look = ("SELECT mail_id, date, `from`, `to`, subject, body, charset, HEX(mail), spam_score, hash, "
            "content_type, recipient FROM new_mail")
    columns = "SHOW FULL COLUMNS FROM new_mail"
    before = db.sql(look, old)
    for what in "once", "twice":
        db.client(old, schema)
        same("schema.sql %s: every row as it was" % what, db.sql(look, old), before)
        same("schema.sql %s: the columns of a new table" % what, db.sql(columns, old),
             db.sql(columns))
    db.client(db.name, schema)
    server = Server(db, MYSQL_DB=old)
    same("mail is stored in it", deliver_once(server), 250)
    server.stop()
    same("after the old one", db.sql("SELECT mail_id FROM new_mail", old).split(), [b"7", b"8"])
    db.sql("DROP DATABASE " + old)


@test
def option_file_of_the_client_library(db):
    user = "f%d" % os.getpid()
    db.sql("CREATE USER %s@localhost IDENTIFIED BY 'in a file'; "
           "GRANT SELECT, INSERT ON %s.new_mail TO %s@localhost" % (user, db.name, user))
    with open(os.path.join(DIR, ".my.cnf"), "w") as f:
        f.write("[smtpd]\nuser=%s\npassword=in a file\n" % user)
    status, text = smtpd(db, "-t", env={"HOME": DIR}, MYSQL_USER=None)
    ok("user and password from [smtpd]", status == 0, text)
    os.unlink(os.path.join(DIR, ".my.cnf"))
    db.sql("DROP USER %s@localhost" % user)


# -- signals

@test
def term_loses_nothing(db):
    """TERM while mail pours in: what got 250 is there, once; no process is left."""
    server = Server(db, GM_ALLOWED_HOSTS="*")
    pids = server.workers() + [server.process.pid]
    acknowledged, lock = set(), threading.Lock()

    def sender(n):
        for i in range(100000):
            name = "%d-%d" % (n, i)
            try:
                c = session(server.port)
                code = deliver(c, b"Subject: %s\r\n\r\n" % name.encode())[0]
                c.close()
            except (RuntimeError, OSError):
                return
            if code != 250:
                return
            with lock:
                acknowledged.add(name)

    idle = session(server.port)
    threads = [threading.Thread(target=sender, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    wait(lambda: len(acknowledged) > 100, 20)
    watch = Stopwatch()
    server.stop()
    ok("within 15 s", watch.took() < 15, watch.took())
    for t in threads:
        t.join()
    code, text = idle.reply()
    ok("421 4.3.2 to the others", code == 421 and text.startswith("4.3.2"), (code, text))
    ok("no process is left", gone(pids))
    stored = [r["subject"].decode() for r in db.mails()]
    same("acknowledged and not stored", sorted(acknowledged - set(stored)), [])
    same("stored twice", len(stored) - len(set(stored)), 0)
    db.empty()
    same("nobody listens", listening(server.port), False)


@test
def hup_reads_the_configuration_again(db):
    server = Server(db, GSMTP_MAX_RCPT="1")
    old = session(server.port)
    before = server.workers()
    server.config["GSMTP_MAX_RCPT"] = "2"
    server.write()
    os.rename(server.log_file, server.log_file + ".1")
    server.hup()
    ok("other workers", wait(lambda: set(server.workers()) - set(before), 10))
    two = ("b@test.example", "c@test.example")
    ok("the new limit", wait(lambda: deliver_once(server, to=two) == 250, 10))
    ok("the log is opened again", wait(lambda: os.path.exists(server.log_file), 5))
    same("a session of before goes on", deliver(old)[0], 250)
    old.command("QUIT")
    old.close()
    ok("and the old workers end", wait(lambda: not set(before) & set(server.workers()), 10))
    server.config["GSMTP_MAX_RCPT"] = "many"
    server.write()
    server.hup()
    ok("a bad one: logged", server.logged("GSMTP_MAX_RCPT"), server.log())
    same("and the one before stays", deliver_once(server, to=two), 250)
    server.stop()
    db.empty()


@test
def hup_takes_all_or_nothing(db):
    server = Server(db)
    here, there, free = "127.0.0.1:%d" % server.port, "127.0.0.6:%d" % server.port, port()

    def hup(listen, log, times=1):
        server.config["GSMTP_LISTEN"] = listen
        server.write()
        server.hup()
        return ok("%s: %s" % (listen, log), wait(lambda: server.log().count(log) >= times, 10), server.log())

    for turn in range(3):       # the same address twice, then without it
        hup(here + "," + there + ", " + there, " reload ", 2 * turn + 1)
        ok("both", listening(server.port, "127.0.0.6"))
        hup(here, " reload ", 2 * turn + 2)
        ok("one", wait(lambda: not listening(server.port, "127.0.0.6"), 5))
        same("and mail is taken", deliver_once(server), 250)
    hup("*:%d" % server.port, "this smtpd listens on 127.0.0.1:%d: that change needs a restart" % server.port)
    hup("127.0.0.1:%d,192.0.2.1:%d" % (free, free), "cannot listen on 192.0.2.1")
    same("what a refused one opened is closed", listening(free), False)
    same("and the old configuration stays", deliver_once(server), 250)
    server.stop()
    db.empty()


@test
def hup_under_load(db):
    server = Server(db, GM_ALLOWED_HOSTS="*")
    p = start(["smtp-source", "-s", "10", "-l", "1000", "-m", "3000", "-t", "b@test.example",
               "127.0.0.1:%d" % server.port], os.path.join(DIR, "source"))
    for _ in range(5):
        server.hup()
        time.sleep(0.3)
    try:
        same("not one connection refused or cut", p.wait(600 * SLOW), 0)
    except subprocess.TimeoutExpired:
        ok("smtp-source ends", False)
    same("3000 mails, 3000 rows", db.count(), 3000)
    server.stop()
    db.empty()


@test
def usr1_counts(db):
    server = Server(db)
    for _ in range(3):
        deliver_once(server)
    server.process.send_signal(signal.SIGUSR1)
    line = server.logged("counters")
    ok("one line with the mails of all workers", line and "mails=3" in line, line)
    server.stop()
    db.empty()


@test
def refused_addresses_are_told(db):
    server = Server(db, GSMTP_MAX_RCPT="1")
    with session(server.port, "MAIL FROM:<a@b.example>") as c:
        same("refused", c.codes("RCPT TO:<x y@other.example>", "RCPT TO:<b@other.example>", "NOOP",
                                "RCPT TO:<b@test.example>", "RCPT TO:<c@test.example>", "RSET",
                                "MAIL FROM:<a@b.example> SIZE=99999999999", "VRFY x"),
             [501, 550, 250, 250, 452, 250, 552, 252])
    with session(server.port, "MAIL FROM:<a@b.example>") as c:
        same("refused", c.codes("RCPT TO:<b@other.example>"), [550])
    ok("one line a session, with the address and why",
       server.logged("refused-rcpt command=RCPT_TO:_b@other.example_ client=127.0.0.1 "
                     "reply=550_5.7.1_relay_refused"), server.log())
    same("one line a session", server.log().count(" refused-rcpt "), 2)
    server.process.send_signal(signal.SIGUSR1)
    ok("and counted", server.logged(" refused_rcpt=5 "), server.log())
    server.stop()


@test
def dead_worker_is_replaced(db):
    server = Server(db)
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    ok("one is new", wait(lambda: len(server.workers()) == 2 and server.workers() != before, 10),
       server.workers())
    ok("the log says so", server.logged("worker-died"), server.log())
    same("mail is taken", deliver_once(server), 250)
    server.stop()
    db.empty()


@test
def dead_master_leaves_no_worker(db):
    server = Server(db)
    pids = server.workers()
    stop(server.process, signal.SIGKILL)
    ok("workers end by themselves", len(pids) == 2 and gone(pids, 15), pids)


@test
def worker_that_does_not_end_is_killed(db):
    server = Server(db)
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)
    watch = Stopwatch()
    server.process.send_signal(signal.SIGTERM)
    same("it ends with 0", server.process.wait(30), 0)
    ok("within 15 s", watch.took() < 15, watch.took())
    ok("the log says whom it killed", server.log().count(" signal=9 restart=no") == 2, server.log())
    server.stop()


@test
def nothing_unescaped_in_the_log(db):
    server = Server(db, GSMTP_VERBOSE="1")
    c = session(server.port)
    for line in (b"NOOP \xff\xfe %s%n", b"NOOP \r2026 forged", b"NOOP \x1b[31m", b"NOOP \x7f"):
        c.command(line)
    deliver(c, b"Subject: \x1b[31m\r\nFrom: \x1b@x\r\n\r\n", sender='"a b\\"@b.example')
    c.close()
    server.stop()
    with open(server.log_file, "rb") as f:
        text = f.read()
    ok("printable ASCII only", not re.search(rb"[^\n -~]", text), text)
    ok("no forged line", not any(l.startswith(b"2026 forged") for l in text.split(b"\n")), text)
    db.empty()


@test
def addresses_to_listen_on(db):
    hosts = ["127.0.0.1", "127.0.0.5"]
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        hosts.append("[::1]")
    except OSError:
        pass                    # no IPv6 here
    server = Server(db, listen=hosts)
    for host in hosts:
        ok("listens on " + host, listening(server.port, host.strip("[]")))
    same("and nowhere else", listening(server.port, "127.0.0.6"), False)
    status, text = smtpd(db, GSMTP_LISTEN="127.0.0.5:%d" % server.port)
    ok("an address in use: 1 and why", status == 1 and str(server.port) in text, (status, text))
    server.stop()
    server.config["GSMTP_LISTEN"] = "*"
    server.write()
    p = start([server.binary, "-c", server.file, "-p", str(server.port)], cwd=DIR)
    for host in hosts:
        ok("* is also " + host, wait(lambda: listening(server.port, host.strip("[]"))))
    same("ends", stop(p), 0)


# Systems differ in what they say of a family that is not there and of a client that has left.
ODD_SOCKETS = r"""
#define _GNU_SOURCE 1
#include <sys/socket.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int
socket(int family, int type, int protocol)
{
	int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");

	if (family == AF_INET6) {
		errno = atoi(getenv("ODD_SOCKET"));
		return -1;
	}
	return real(family, type, protocol);
}

int
accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	int (*real)(int, struct sockaddr *, socklen_t *) =
	    (int (*)(int, struct sockaddr *, socklen_t *))dlsym(RTLD_NEXT, "accept");
	int client = real(fd, sa, len), odd = atoi(getenv("ODD_ACCEPT"));
	static int n;

	if (client == -1 || n++ % 2)
		return client;
	if (odd == 0) {
		*len = 0;
		return client;
	}
	close(client);
	errno = odd;
	return -1;
}
"""


@test
def odd_sockets(db):
    source = os.path.join(DIR, "odd.c")
    with open(source, "w") as f:
        f.write(ODD_SOCKETS)
    status, text = run(["cc", "-shared", "-fPIC", "-o", source + ".so", source, "-ldl"])
    same("built", (status, text), (0, ""))
    server = Server(db)
    server.stop()
    server.config.update(GSMTP_LISTEN="*:%d" % server.port, GSMTP_WORKERS="1")
    server.write()
    for family, left in (("EAFNOSUPPORT", "EPROTO"), ("EPROTONOSUPPORT", "ECONNABORTED"),
                         ("EPROTONOSUPPORT", "EHOSTUNREACH"), ("EAFNOSUPPORT", None)):
        os.environ.update(LD_PRELOAD=source + ".so", ODD_SOCKET=str(getattr(errno, family)),
                          ODD_ACCEPT=str(getattr(errno, left) if left else 0))
        asan = os.environ.get("ASAN_OPTIONS", "")
        os.environ["ASAN_OPTIONS"] = asan + ":verify_asan_link_order=0"
        server.launch()
        del os.environ["LD_PRELOAD"]
        os.environ["ASAN_OPTIONS"] = asan
        what = "%s, %s: " % (family, left or "no address")
        ok(what + "* is IPv4 then", wait(lambda: listening(server.port) or
                                         server.process.poll() is not None), server.log())
        began = time.monotonic()
        gone = 0
        for _ in range(6):              # two at least are such that have left
            try:
                c = session(server.port)
                same(what + "the next is served", deliver(c)[0], 250)
                c.close()
            except (OSError, RuntimeError):
                gone += 1
        took = time.monotonic() - began
        ok(what + "some were gone", gone >= 2, gone)
        ok(what + "no pause for it", took < 0.9 * SLOW, took)
        ok(what + "not a word", "accept-error" not in server.log(), server.log())
        same(what + "ends", stop(server.process), 0)
    db.empty()


def main():
    db = Database()
    run_tests(db, undo=db.empty)


if __name__ == "__main__":
    main()
