#!/usr/bin/env python3
"""A ledger of mails against faults: what was answered 250 is in the table, exactly.

	python3 test/system/torture.py [--short] [-v] [fault]...

Clients send unique mails as fast as they are answered, try again what was
deferred or cut off, as any sender does, and note every answer. Meanwhile one
fault is injected. In the end the ledger is compared with the table. smtpd's
database user has exactly what the README grants it: INSERT, SELECT, one table.
"""
import base64
import faulthandler
import hashlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

os.environ.setdefault("SMTPD_TEST_PORTS", "2800-2999")
os.environ.pop("SMTPD_TEST_MYSQL", None)	# this one is broken on purpose
import live  # noqa: E402
from live import children, ok, same  # noqa: E402

SHORT = "--short" in sys.argv
CLIENTS = 8
TIMEOUT = 5		# MYSQL_TIMEOUT
NOOP_MS = 100
GRANTED = "GRANT INSERT, SELECT ON %s.new_mail TO smtpd@localhost"


def seconds(short, long):
    """How long a fault lasts."""
    return short if SHORT else long


# ---- the ledger ----

NASTY = (b"'", b'"', b"\\", b"\\'", b"%s%n", b"');DROP TABLE new_mail;--", b"\n.\n", b"\r.\r",
         b"\r\n.", b"\r\n..", b"\r", b"\n", b"\x1a", "\u0444\U0001f44b".encode(), b"\r\n")


class Mail:
    """One unique mail. Its octets go once it is stored, their digests stay."""

    def __init__(self, rng, number, sizes, poison=None):
        self.id = "%08x-%06d" % (rng.getrandbits(32), number)
        self.sender = "from-%s@client.example" % self.id
        self.rcpts = ["r%02d@test.example" % n
                      for n in rng.sample(range(40), rng.choice((1, 1, 1, 1, 2, 3, 10)))]
        if poison:
            self.rcpts.insert(rng.randrange(len(self.rcpts) + 1), poison)
        self.subject = "%s it's \\ \"%d\" \u043f\u043e\u0447\u0442\u0430" % (self.id, number)
        self.text = rng.random() < 0.5	# UTF-8, so that column body can be compared too
        want = rng.choice(sizes)
        want = rng.randrange(want // 2, want + 1)
        parts = [b"Mail %s begins\r\n" % self.id.encode()]
        size = len(parts[0])
        while size < want:
            some = rng.choice(NASTY) if rng.random() < 0.6 else \
                rng.randbytes(rng.randrange(1, 2000))
            if self.text:
                some = some.decode("latin-1").replace("\0", "0").encode()
            parts.append(some)
            size += len(some)
        parts.append(b"\r\nMail %s ends\r\n" % self.id.encode())
        body = b"".join(parts)
        header = ("X-Ledger: %s\r\nFrom: <%s>\r\nTo: <%s>\r\nSubject: %s\r\n"
                  "Content-Type: text/plain; charset=utf-8\r\n"
                  "Content-Transfer-Encoding: 8bit\r\n\r\n" %
                  (self.id, self.sender, self.rcpts[0], self.subject)).encode()
        self.data = header + body
        self.size = len(self.data)
        self.digest = hashlib.sha256(self.data).hexdigest()
        self.body = hashlib.sha256(body).hexdigest()
        self.answers = []
        self.unsure = 0		# times the end of data got no answer, or one that says "try again"
        self.stored = self.refused = self.poisoned = self.too_big = False


class Load:
    """Clients that send until told to stop, then until all they have begun is answered."""

    def __init__(self, port, seed, sizes=None, poison=None, clients=CLIENTS, pause=0.01):
        self.port = port
        self.sizes = sizes or [1000] * 4 + [4000] * 8 + [20000] * 6 + [100000] * 2 + [1048576]
        self.poison = poison
        self.largest = 10485760		# octets of a mail that must be taken
        self.pause = pause
        self.mails = []
        self.acks = []			# when each 250 came
        self.cut = []			# connections refused or lost, and 421
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.give_up = time.monotonic() + 600
        self.threads = [threading.Thread(target=self.client, args=(seed * 1000 + n,), daemon=True)
                        for n in range(clients)]
        for t in self.threads:
            t.start()

    def client(self, seed):
        rng = random.Random(seed)
        connection, left, number = None, 0, 0
        while not self.ending.is_set():
            poison = self.poison if self.poison and rng.random() < 0.1 else None
            mail = Mail(rng, number, self.sizes, poison)
            mail.poisoned = poison is not None
            number += 1
            with self.lock:
                self.mails.append(mail)
            while not mail.stored and not mail.refused and time.monotonic() < self.give_up:
                if connection is None:
                    connection, left = self.connect(), rng.randrange(1, 20)
                if connection is None:
                    time.sleep(0.1)
                    continue
                code, final = self.deliver(connection, mail, rng)
                mail.answers.append(code)
                if final and code // 100 != 2 and code // 100 != 5:
                    mail.unsure += 1
                if final and code == 250:
                    mail.stored, mail.data = True, None
                    self.acks.append(time.monotonic())
                elif code == 552 and mail.size > self.largest:
                    mail.refused = mail.too_big = True
                elif code // 100 == 5:
                    mail.refused = True
                left -= 1
                if code in (0, 421) or left == 0:
                    if code in (0, 421):
                        self.cut.append((time.monotonic(), code))
                    else:
                        connection.send(b"QUIT\r\n")
                    connection.close()
                    connection = None
                elif code != 250:
                    connection.command("RSET")
                time.sleep(0.2 if code != 250 else self.pause)
        if connection:
            connection.close()

    def connect(self):
        try:
            c = live.Client(self.port, timeout=60)
            if c.banner[0] == 220 and c.command("EHLO client.example")[0] == 250:
                return c
            self.cut.append((time.monotonic(), c.banner))
        except OSError as e:
            self.cut.append((time.monotonic(), repr(e)))
        return None

    @staticmethod
    def deliver(c, mail, rng):
        """The decisive code (0: connection lost), and whether the end of data was sent."""
        size = " SIZE=%d" % mail.size if rng.random() < 0.5 else ""
        lines = ["MAIL FROM:<%s>%s" % (mail.sender, size)] + ["RCPT TO:<%s>" % r for r in mail.rcpts]
        chunked = rng.random() < 0.3
        final = False
        try:
            if not chunked:
                lines.append("DATA")
            c.send("".join(line + "\r\n" for line in lines).encode())
            codes = [c.reply()[0] for _ in lines]
            bad = [code for code in codes if code // 100 not in (2, 3)]
            if bad:
                if codes[-1] == 354:
                    c.send(b".\r\n")
                    c.reply()
                return bad[0], False
            if not chunked:
                stuffed = mail.data.replace(b"\r\n.", b"\r\n..")
                c.send(stuffed[:-1])
                final = True
                c.send(stuffed[-1:] + b".\r\n")
                return c.reply()[0], True
            at = rng.randrange(len(mail.data))
            c.send(b"BDAT %d\r\n" % at + mail.data[:at])
            code = c.reply()[0]
            if code != 250:
                return code, False
            final = True
            c.send(b"BDAT %d LAST\r\n" % (len(mail.data) - at) + mail.data[at:])
            return c.reply()[0], True
        except OSError:
            return 0, final

    def end(self, patience=40):
        self.ending.set()
        self.give_up = time.monotonic() + patience
        for t in self.threads:
            t.join(patience + 65)


def compare(db, load):
    """What the table has, against the ledger."""
    rows = {}
    corrupt = []
    known = {m.id: m for m in load.mails}
    out = db.sql(
        "SELECT recipient, `to`, `from`, TO_BASE64(subject), SHA2(body, 256), "
        "SHA2(SUBSTRING(mail, LOCATE('X-Ledger: ', mail)), 256), "
        "TO_BASE64(LEFT(mail, LOCATE('X-Ledger: ', mail) - 1)), "
        "SUBSTRING(mail, LOCATE('X-Ledger: ', mail) + 10, 15) FROM new_mail "
        "WHERE recipient <> 'filler'").decode()
    for line in out.splitlines():
        recipient, to, sender, subject, body, digest, trace, name = line.split("\t")
        m = known.get(name)
        trace = base64.b64decode(trace.replace("\\n", ""))
        if m is None or digest != m.digest or recipient not in m.rcpts or to != recipient or \
                sender != m.sender or \
                base64.b64decode(subject.replace("\\n", "")).decode() != m.subject or \
                (m.text and body != m.body) or \
                not re.fullmatch(b"Return-Path: <%s>\r\nReceived: (.*\r\n[ \t])*.*\r\n"
                                 % m.sender.encode(), trace):
            corrupt.append((name, recipient))
            continue
        rows.setdefault(name, {}).setdefault(recipient, 0)
        rows[name][recipient] += 1
    r = {"acknowledged": 0, "lost": 0, "corrupt": len(corrupt), "duplicates": 0, "refused": 0,
         "partly": 0, "unexplained": 0, "undelivered": 0, "poisoned": 0,
         "too big": 0}
    for m in load.mails:
        counts = [rows.get(m.id, {}).get(recipient, 0) for recipient in m.rcpts]
        r["acknowledged"] += m.stored
        r["lost"] += m.stored and min(counts) == 0
        r["partly"] += min(counts) != max(counts)
        extra = max(counts) - m.stored
        r["duplicates"] += max(0, max(counts) - 1)
        r["unexplained"] += extra > m.unsure
        if m.too_big:
            r["too big"] += max(counts) == 0
        elif m.poisoned:
            r["poisoned"] += m.refused and max(counts) == 0 and m.answers[-1] == 554
            r["undelivered"] += not m.refused
        else:
            r["refused"] += m.refused
            r["undelivered"] += not m.stored and not m.refused
    return r


# ---- how long others wait ----

def probe(port, master, pipe):
    """Sessions in a process of their own, that give a command every so often and wait.

    How long the longest waited, in ms, and less what the machine took, which is
    busy with the other parts of this rig at least.
    """
    longest = net = 0.0
    lost = count = 0
    sessions = []

    def timed(run):
        nonlocal longest, net
        watch = live.Stopwatch(children(master))
        try:
            return run()
        finally:
            longest = max(longest, watch.all() * 1000)
            net = max(net, (watch.all() - 2 * watch.machine()) * 1000)	# as in hostile.py

    while not pipe.poll(0.02):
        count += 1
        try:
            while len(sessions) < 6:
                sessions.append(live.session(port, timeout=30))
        except (OSError, RuntimeError):
            pass		# not there at the moment
        for s in list(sessions):
            try:
                code = timed(lambda: s.command("NOOP")[0])
            except OSError:
                code = 0
            if code != 250:
                sessions.remove(s)
                s.close()
                lost += 1
        if count % 5:
            continue
        try:
            c = timed(lambda: live.Client(port, timeout=30))
            if c.banner[0] == 220:
                for line in ("EHLO probe.example", "MAIL FROM:<>", "RCPT TO:<p@test.example>",
                             "RSET", "QUIT"):
                    if timed(lambda: c.command(line)[0]) // 100 != 2:
                        break
            c.close()
        except OSError:
            pass
    pipe.send((longest, net, lost))


class Probe:
    def __init__(self, port, master):
        self.pipe, far = multiprocessing.Pipe()
        live.Stopwatch()	# so that what it needs is there before the process is
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()	# so that it ends with this process, however that ends
            try:
                probe(port, master, far)
            finally:
                os._exit(0)
        far.close()

    def end(self):
        self.pipe.send(None)
        value = self.pipe.recv() if self.pipe.poll(60) else (60000.0, 60000.0, -1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return value


# ---- the database ----

class Mariadb(live.Database):
    """A private one that can be ended and come back."""

    REDO = 32 << 20		# octets of its redo log
    OPTIONS = live.Database.OPTIONS + ["--innodb-log-file-size=%d" % REDO]

    def __init__(self):
        super().__init__()
        self.sql("CREATE USER smtpd@localhost IDENTIFIED BY 'secret'")
        self.sql("CREATE USER filler@localhost")
        self.sql(GRANTED % self.name)

    def up(self):
        super().up(restore_signals=False)	# SIGXFSZ stays ignored, as it is in Python

    def down(self, sig=signal.SIGTERM):
        live.stop(self.process, sig, 60)

    def end(self):
        self.down()
        shutil.rmtree(self.data, ignore_errors=True)


# ---- faults: each returns once it has ended ----

def restart(rig):
    rig.db.down()
    time.sleep(seconds(1, 5))
    rig.db.up()


def kill(rig):
    rig.db.down(signal.SIGKILL)
    time.sleep(seconds(0.5, 5))
    rig.db.up()


def sigstop(rig):
    rig.db.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds(6.5, 20))
    rig.db.process.send_signal(signal.SIGCONT)


def lock_tables(rig):
    p = rig.db.hold("LOCK TABLES new_mail WRITE;")
    time.sleep(seconds(6.5, 15))
    rig.db.release(p)


def kill_connection(rig):
    end = time.monotonic() + seconds(3, 15)
    while time.monotonic() < end:
        rig.db.sql("KILL USER smtpd")
        time.sleep(0.05)


def read_only(rig):
    rig.db.sql("SET GLOBAL read_only=1")
    time.sleep(seconds(3, 10))
    rig.db.sql("SET GLOBAL read_only=0")


def max_connections(rig):
    admin = rig.db.hold("SET GLOBAL max_connections=10; KILL USER smtpd;", until=False)
    held = [rig.db.hold("", "filler", until=False) for _ in range(14)]
    end = time.monotonic() + seconds(3, 10)
    while time.monotonic() < end:
        admin.stdin.write(b"KILL USER smtpd;\n")
        admin.stdin.flush()
        time.sleep(0.5)
    admin.stdin.write(b"SET GLOBAL max_connections=151;\n")
    for p in held + [admin]:
        rig.db.release(p)
    ok("there were too many", rig.server.logged("1040"), rig.server.log())


def disk_full(rig):
    """No file may grow beyond what the redo log has already; the table's is filled up to there."""
    table = os.path.join(rig.db.data, rig.db.name, "new_mail.ibd")
    limit = rig.db.REDO + (8 << 20)
    while os.path.getsize(table) < limit - (8 << 20):
        rig.db.sql("INSERT INTO new_mail SELECT NULL,NOW(),'','','','','',REPEAT('x',1000000),0,"
                   "'','','filler' FROM seq_1_to_4")
    before = os.path.getsize(rig.db.log)

    def was_full():	# an error for smtpd, or InnoDB tries for ever, or it gives up
        with open(rig.db.log, "rb") as f:
            f.seek(before)
            return b"IO Error: 27" in f.read(65536) or " 1114 " in rig.server.log() or \
                rig.db.process.poll() is not None
    resource.prlimit(rig.db.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    ok("the disk was full", live.wait(was_full, 60))
    time.sleep(seconds(4, 15))
    if rig.db.process.poll() is None:
        resource.prlimit(rig.db.process.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:		# InnoDB gives up where there is no room to roll back
        print("     mariadbd died of its full disk")
        rig.db.down()
        rig.db.up()


def table_gone(rig):
    rig.db.sql("RENAME TABLE new_mail TO old_mail")
    time.sleep(seconds(3, 10))
    with open(os.path.join(live.ROOT, "schema.sql"), "rb") as f:
        rig.db.client(rig.db.name, f.read())


def table_back(rig):
    columns = "`date`,`from`,`to`,subject,body,charset,mail,spam_score,hash,content_type,recipient"
    rig.db.sql("INSERT INTO new_mail (%s) SELECT %s FROM old_mail; DROP TABLE old_mail"
               % (columns, columns))


def small_packet(rig):
    """Smaller than some mails: these get 552, at MAIL where SIZE= tells; all others are stored."""
    rig.load.largest = 1 << 20
    rig.db.sql("SET GLOBAL max_allowed_packet=%d; KILL USER smtpd" % rig.load.largest)
    rig.load.largest -= 4096	# for the lines we add and the words of the statement
    rig.load.sizes = rig.load.sizes + [2 << 20]
    time.sleep(seconds(4, 15))
    ok("some were too big", live.wait(lambda: any(m.too_big for m in rig.load.mails), 20))
    rig.db.sql("SET GLOBAL max_allowed_packet=67108864; KILL USER smtpd")


def lock_wait(rig):
    rig.db.sql("SET GLOBAL innodb_lock_wait_timeout=1; KILL USER smtpd")
    p = rig.db.hold("BEGIN; SELECT COUNT(*) FROM new_mail FOR UPDATE;", until=False)
    time.sleep(seconds(4, 15))
    rig.db.release(p)


def deadlock(rig):
    """A transaction waits for rows of a statement that waits for it, and has more to roll back."""
    asked = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS " \
        "WHERE VARIABLE_NAME='Innodb_deadlocks'"
    rig.db.sql("CREATE TABLE IF NOT EXISTS weight (x int)")
    before = int(rig.db.sql(asked))
    end = time.monotonic() + seconds(4, 15)
    while time.monotonic() < end:
        p = rig.db.hold("BEGIN; INSERT INTO weight SELECT seq FROM seq_1_to_200;"
                        "SELECT COUNT(*) FROM new_mail WHERE `to`='r%02d@test.example' FOR UPDATE;"
                        "DO SLEEP(0.2); SELECT COUNT(*) FROM new_mail FOR UPDATE; ROLLBACK;"
                        % random.randrange(40))
        rig.db.release(p)
    after = int(rig.db.sql(asked))
    ok("there were deadlocks", after > before, (before, after))


def password(rig):
    rig.db.sql("SET PASSWORD FOR smtpd@localhost=PASSWORD('other'); KILL USER smtpd")
    time.sleep(seconds(3, 15))
    rig.db.sql("SET PASSWORD FOR smtpd@localhost=PASSWORD('secret')")


def poisoned(rig):
    rig.db.sql("DELIMITER //\nCREATE TRIGGER refuse BEFORE INSERT ON new_mail FOR EACH ROW "
               "IF NEW.recipient = 'poison@test.example' THEN "
               "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF//\n")
    rig.load.poison = "poison@test.example"
    time.sleep(seconds(5, 20))
    rig.load.poison = None
    ok("some were poisoned", any(m.poisoned for m in rig.load.mails))


def cured(rig):
    rig.db.sql("DROP TRIGGER refuse")


def kill_worker(rig):
    for _ in range(seconds(2, 5)):
        pids = children(rig.server.process.pid)
        if pids:
            os.kill(random.choice(pids), signal.SIGKILL)
        time.sleep(2)


def kill_master(rig):
    pids = children(rig.server.process.pid)
    live.stop(rig.server.process, signal.SIGKILL)
    ok("workers end when their master is gone", live.gone(pids, 15), pids)
    rig.start_server()
    rig.server_dies = True


def sigterm(rig):
    watch = live.Stopwatch()
    same("TERM under load: exit status", live.stop(rig.server.process), 0)
    ok("TERM under load: ends within 15 s", watch.took() < 15, watch.took())
    rig.start_server()
    rig.server_dies = True


def sighup(rig):
    before = len(rig.load.cut)
    for _ in range(seconds(5, 20)):
        rig.server.hup()
        time.sleep(0.7)
    same("HUP under load: no connection refused or cut", rig.load.cut[before:], [])
    rig.uncut = True


def log_removed(rig):
    os.unlink(rig.server.log_file)
    time.sleep(1)
    ok("the log removed: not made again before HUP", not os.path.exists(rig.server.log_file))
    rig.server.hup()
    ok("the log removed: made again at HUP",
       live.wait(lambda: os.path.exists(rig.server.log_file), 5))


def nothing(rig):
    time.sleep(seconds(2, 10))


# ---- the rig ----

class Rig:
    def __init__(self):
        self.db = self.server = self.load = None
        self.table = []

    def start_server(self, **config):
        """Where one ran before: the same port and configuration."""
        if self.server and not config:
            s = self.server
            s.process = live.start([s.binary, "-c", s.file, "-l", s.log_file],
                                   s.log_file[:-3] + "err", cwd=live.DIR)
            ok("smtpd is there again", live.wait(lambda: live.listening(s.port), 10), s.log())
            return
        self.server = live.Server(self.db, MYSQL_USER="smtpd", MYSQL_PASS="secret",
                                  MYSQL_TIMEOUT=TIMEOUT, GSMTP_WORKERS=2, **config)

    def run(self, name, fault, before_compare=None, **load):
        self.uncut = self.server_dies = False
        if self.db.pings():
            self.db.empty()
        self.load = Load(self.server.port, len(self.table) + 1, **load)
        watch = Probe(self.server.port, self.server.process.pid)
        time.sleep(1)
        fault(self)
        ended, since = time.monotonic(), live.Stopwatch()
        back = live.wait(lambda: next((t for t in self.load.acks if t > ended), None), 60)
        recovered = since.took()
        time.sleep(seconds(0.5, 3))
        self.load.end()
        longest, net, cut = watch.end()
        if before_compare:
            before_compare(self)
        r = compare(self.db, self.load)
        r["name"], r["recover"] = name, back - ended if back else None
        r["noop"], r["net"] = longest, net
        self.table.append(r)
        print(self.line(r))
        ok(name + ": mails were acknowledged", r["acknowledged"] > 5, r)
        for what in "lost", "corrupt", "partly", "refused", "unexplained", "undelivered":
            same("%s: %s" % (name, what), r[what], 0)
        ok(name + ": recovers", back and recovered < 15, r)
        same(name + ": poisoned mails get 554", r["poisoned"],
             sum(m.poisoned for m in self.load.mails))
        same(name + ": too big, so not stored", r["too big"],
             sum(m.too_big for m in self.load.mails))
        if not self.server_dies:
            ok(name + ": nobody else waits", net <= NOOP_MS, r)
        if self.uncut:
            same(name + ": idle sessions stay", cut, 0)

    HEAD = "%-20s %6s %5s %8s %11s %12s %10s %8s %6s" % (
        "fault", "acked", "lost", "corrupt", "duplicates", "refused 5yz", "recover s", "NOOP ms",
        "(net)")

    @staticmethod
    def line(r):
        return "%-20s %6d %5d %8d %11d %12d %10s %8.0f %6.0f" % (
            r["name"], r["acknowledged"], r["lost"], r["corrupt"], r["duplicates"],
            r["refused"] + r["poisoned"] + r["too big"], "%.1f" % r["recover"] if r["recover"] else "never",
            r["noop"], r["net"])


def log_full(rig):
    """The log on a disk without room."""
    s = rig.server
    os.rename(s.log_file, s.log_file + ".1")
    os.symlink("/dev/full", s.log_file)
    s.hup()
    time.sleep(seconds(3, 10))
    os.unlink(s.log_file)
    s.hup()
    ok("the log is written again", s.logged(" stored "), s.log())


def away_at_start(rig):
    """The database comes after smtpd: it starts, says so, answers 451, recovers without help."""
    old, rig.server = rig.server, None
    rig.db.empty()
    rig.db.down()
    rig.start_server()
    ok("away at start: logged", rig.server.logged("database-away"), rig.server.log())
    c = live.session(rig.server.port, "MAIL FROM:<a@b.example>", "RCPT TO:<r@test.example>")
    same("away at start: mail is deferred",
         c.codes("DATA", "Subject: x\r\n\r\ny\r\n.", "NOOP"), [354, 451, 250])
    c.close()

    def comes(rig):
        time.sleep(seconds(4, 15))
        rig.db.up()

    rig.run("away at start", comes)
    rig.server.stop()
    rig.server = old


def mended_first(rig):
    """What only an operator can mend stops the start with one line that says what to do."""
    port = live.port()
    base = {"GM_ALLOWED_HOSTS": "test.example", "GSMTP_LISTEN": "127.0.0.1:%d" % port,
            "MYSQL_HOST": rig.db.socket, "MYSQL_USER": "smtpd", "MYSQL_PASS": "secret",
            "MYSQL_DB": rig.db.name, "PATH": os.environ["PATH"]}
    rig.db.sql("CREATE TABLE narrow LIKE new_mail; ALTER TABLE narrow DROP COLUMN charset;"
               "CREATE TABLE short LIKE new_mail; ALTER TABLE short MODIFY mail blob NOT NULL;"
               "GRANT INSERT, SELECT ON narrow TO smtpd@localhost;"
               "GRANT INSERT, SELECT ON short TO smtpd@localhost;"
               "CREATE TABLE foreigners LIKE new_mail")
    for what, change, says in (
            ("wrong password", {"MYSQL_PASS": "wrong"}, "MYSQL_PASS"),
            ("no such user", {"MYSQL_USER": "stranger"}, "MYSQL_USER"),
            ("no such database", {"MYSQL_DB": "none"}, "none"),
            ("no such table", {"GM_MAIL_TABLE": "none"}, "none"),
            ("a table without the grant", {"GM_MAIL_TABLE": "foreigners"}, "GRANT"),
            ("a column missing", {"GM_MAIL_TABLE": "narrow"}, "schema.sql"),
            ("a column too narrow", {"GM_MAIL_TABLE": "short"}, "`mail` of table `short`")):
        r = subprocess.run([rig.server.binary], env=dict(base, **change), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, cwd=live.DIR)
        same("start with %s: exit status" % what, r.returncode, 1)
        ok("start with %s: one line that says what to do" % what,
           r.stdout.count(b"\n") == 1 and says.encode() in r.stdout, r.stdout)


FAULTS = [
    ("none", nothing),
    ("restart", restart),
    ("kill -9", kill),
    ("SIGSTOP", sigstop),
    ("LOCK TABLES", lock_tables),
    ("KILL CONNECTION", kill_connection),
    ("read_only", read_only),
    ("max_connections", max_connections),
    ("disk full", disk_full),
    ("table dropped", table_gone),
    ("max_allowed_packet", small_packet),
    ("lock wait timeout", lock_wait),
    ("deadlocks", deadlock),
    ("password changed", password),
    ("poisoned rows", poisoned),
    ("kill -9 worker", kill_worker),
    ("kill -9 master", kill_master),
    ("TERM", sigterm),
    ("HUP", sighup),
    ("log removed", log_removed),
    ("full disk of the log", log_full),
]


def main():
    faulthandler.register(signal.SIGUSR2)
    rig = Rig()
    rig.db = Mariadb()
    rig.start_server()
    print(Rig.HEAD)
    for name, fault in FAULTS:
        if live.chosen(name):
            rig.run(name, fault, {table_gone: table_back, poisoned: cured}.get(fault))
    if live.chosen("away at start"):
        away_at_start(rig)
    if live.chosen("mended first"):
        mended_first(rig)
    rig.db.end()
    print()
    print(Rig.HEAD)
    for r in rig.table:
        print(rig.line(r))
    live.done()


if __name__ == "__main__":
    main()
