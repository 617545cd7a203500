"""A live smtpd with a live MariaDB behind it, for the test scripts in Python.

Everything is private: a directory under test/.run (or $SMTPD_TEST_DIR), ports
found free on loopback, and processes that are ended by their own id. Who has a
MariaDB already says where in $SMTPD_TEST_MYSQL (a socket, user root); another
smtpd than the one built here is $SMTPD_TEST_BINARY.
"""
import atexit
import base64
import contextlib
import glob
import mmap
import os
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TEST = os.path.dirname(HERE)
ROOT = os.path.dirname(TEST)
NAME = os.path.splitext(os.path.basename(sys.argv[0]))[0]
KEPT = os.path.join(TEST, ".run", "kept")	# what is unpacked once and used again
DIR = os.environ.get("SMTPD_TEST_DIR") or os.path.join(TEST, ".run", NAME)
BINARY = os.environ.get("SMTPD_TEST_BINARY", "smtpd")   # beside the Makefile, or a path
PORTS = os.environ.get("SMTPD_TEST_PORTS", "3000-3199")
SLOW = float(os.environ.get("SMTPD_TEST_SLOW", "1"))	# under valgrind everything takes longer

passed = failed = 0
tests = []


def ok(what, good, detail=""):
    """One expectation. Only what fails is told in full."""
    global passed, failed
    if good:
        passed += 1
        if "-v" in sys.argv:
            print("ok  ", what)
    else:
        failed += 1
        print("FAIL", what, "-", repr(detail)[:600])
    sys.stdout.flush()
    return good


def same(what, got, want):
    return ok(what, got == want, "got %.280r, want %.280r" % (got, want))


def done():
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


def test(f):
    """One of the script's tests, for run_tests()."""
    tests.append(f)
    return f


def chosen(name):
    """By the arguments, each a part of a name; without any, all are."""
    wanted = [a for a in sys.argv[1:] if a[0] != "-"]
    return not wanted or any(w in name for w in wanted)


def run_test(t, subject, undo=None):
    """One that breaks off has failed, and undo() takes away what it left to the next."""
    began = time.monotonic()
    try:
        t(subject)
    except Exception as e:
        traceback.print_exc(file=sys.stdout)
        ok(t.__name__ + " to its end", False, e)
        if undo:
            undo()
    print("# %-45s %5.1f s" % (t.__name__, time.monotonic() - began), flush=True)


def run_tests(subject, undo=None):
    """Those of the script's tests that the arguments choose: each is given the subject."""
    for t in tests:
        if chosen(t.__name__):
            run_test(t, subject, undo)
    done()


def port():
    """A free port of ours."""
    low, high = map(int, PORTS.split("-"))
    with port.lock:
        port.last = getattr(port, "last", low + os.getpid() % (high - low + 1))
        for _ in range(high - low + 1):
            port.last = port.last + 1 if port.last < high else low
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port.last))
                    return port.last
                except OSError:
                    pass
    raise RuntimeError("no free port in " + PORTS)


port.lock = threading.Lock()


# -- time, on a machine that may be busy with other things: no test fails because of those

class Idle:
    """A client and a server with nothing else to do: by how much they are late, in all.

    Every 10 ms the one sends an octet, and the other writes a line into a file, as smtpd does,
    and sends it back. They run beside what is measured, so what they wait for is the machine.
    """
    PERIOD, USUAL = 0.01, 0.002

    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0))
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.shared = mmap.mmap(-1, 16)         # when the last round began; how late all were
        self.note(time.monotonic(), 0.0)
        parent = os.getpid()
        for mine, run in (far, self.echo), (near, lambda s: self.beat(s, parent)):
            if os.fork() == 0:
                try:
                    os.dup2(mine.fileno(), 3)
                    os.closerange(4, 65536)     # or what the script closes would stay open here
                    run(socket.socket(fileno=3))
                finally:
                    os._exit(0)
        for s in listener, near, far:
            s.close()

    def note(self, *values):
        self.shared[:] = struct.pack("dd", *values)

    @staticmethod
    def echo(s):
        with tempfile.TemporaryFile(buffering=0) as f:
            while s.recv(1):
                f.write(b"a line\n")
                s.send(b".")

    def beat(self, s, parent):
        late = 0.0
        while os.getppid() == parent:
            began = time.monotonic()
            self.note(began, late)
            time.sleep(self.PERIOD)
            s.send(b".")
            s.recv(1)
            late += max(0.0, time.monotonic() - began - self.PERIOD - self.USUAL)

    def late(self):
        """Seconds since the start, the round that is not over included."""
        began, late = struct.unpack("dd", self.shared[:])
        return late + max(0.0, time.monotonic() - began - self.PERIOD - self.USUAL)


idle = None


class Stopwatch:
    """Time less what the machine took: how late an idle pair is meanwhile, and how long this
    process and those it talks to (by default all that it has started) were ready to run and had
    no processor, or the host that this machine is a guest of took one, as far as Linux tells."""

    def __init__(self, pids=None):
        global idle
        idle = idle or Idle()
        self.pids = pids
        self.began, self.late, self.queued = time.monotonic(), idle.late(), self.queue()
        self.stolen = stolen()

    def queue(self):
        pids = family() if self.pids is None else self.pids
        return {pid: queued(pid) for pid in [os.getpid()] + list(pids)}

    def machine(self):
        now = self.queue()
        mine, *others = [max(0.0, now[pid] - self.queued.get(pid, 0.0)) for pid in now]
        return max(0.0, idle.late() - self.late) + mine + max(others, default=0.0) + \
            stolen() - self.stolen

    def took(self):
        return time.monotonic() - self.began - self.machine()

    def all(self):
        """What a clock on the wall says."""
        return time.monotonic() - self.began

    def over(self, seconds):
        """For what waits that long: with an end, however busy the machine is."""
        return self.took() > seconds or self.all() > 10 * seconds + 1


def alive(pid):
    """There, and not only until its parent asks how it ended."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=5):
    """Waits until none of them is alive."""
    return wait(lambda: not any(map(alive, pids)), seconds)


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return sorted(child for child in map(int, f.read().split()) if alive(child))
    except OSError:
        return []


def memory(pid, what="VmRSS"):
    """Resident memory of a process, octets; VmHWM: the most it ever was."""
    with open("/proc/%d/status" % pid) as f:
        return next(int(l.split()[1]) for l in f if l.startswith(what + ":")) * 1024


def cpu(pid):
    """Seconds of processor time."""
    with open("/proc/%d/stat" % pid) as f:
        words = f.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def family():
    """All processes that this script has started, and theirs."""
    mine = [p.pid for p in started if p.poll() is None]
    return mine + [child for pid in mine for child in children(pid)]


def stolen():
    """Seconds that the host of a virtual machine ran others instead."""
    try:
        with open("/proc/stat") as f:
            return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def queued(pid):
    """Seconds that a process was ready to run while the machine ran others."""
    try:
        with open("/proc/%d/schedstat" % pid) as f:
            return int(f.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def wait(true, seconds=10.0):
    """Waits until true() is; its value. The seconds are those that were this script's to use."""
    watch = Stopwatch()
    while True:
        value = true()
        if value or watch.over(seconds):
            return value
        time.sleep(0.02)


def listening(where, host="127.0.0.1"):
    try:
        socket.create_connection((host, where), 1).close()
        return True
    except OSError:
        return False


started = []


def start(argv, log=None, stdout=None, **more):
    """A process that ends with this script at the latest; what it prints goes into files."""
    out = open(log, "ab") if log else subprocess.DEVNULL
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=out,
                         stdout=open(stdout, "ab") if stdout else out, **more)
    started.append(p)
    return p


def stop(p, sig=signal.SIGTERM, seconds=60):
    """Its exit status; a process that does not end in time is killed and is None."""
    if p in started:
        started.remove(p)
    if p.poll() is None:
        p.send_signal(sig)
    try:
        return p.wait(seconds)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return None


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))	# so that what follows is done
signal.signal(signal.SIGINT, signal.default_int_handler)	# what a shell's & ignores, children too


@atexit.register
def stop_all():
    for p in reversed(list(started)):
        stop(p)


class Database:
    """A private MariaDB, or one table of one that is there."""

    def __init__(self):
        os.makedirs(DIR, exist_ok=True)
        os.chmod(DIR, 0o755)
        for old in glob.glob(os.path.join(DIR, "smtpd-*")):
            os.unlink(old)
        self.name = "test_%s_%d" % (NAME, os.getpid())
        self.socket = os.environ.get("SMTPD_TEST_MYSQL")
        if not self.socket:
            self.start()
        self.sql("CREATE DATABASE " + self.name, "mysql")
        with open(os.path.join(ROOT, "schema.sql"), "rb") as f:
            self.client(self.name, f.read())
        if os.environ.get("SMTPD_TEST_MYSQL"):
            atexit.register(self.sql, "DROP DATABASE " + self.name, "mysql")

    OPTIONS = ["--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=64M",
               "--max-allowed-packet=64M"]

    def start(self):
        self.data = os.path.join(DIR, "mysql")
        self.log = self.data + ".log"
        # A socket's path has room for some hundred octets only.
        self.socket = "/tmp/smtpd-%s-%d.sock" % (NAME, os.getpid())
        shutil.rmtree(self.data, ignore_errors=True)
        # Its own: a mariadbd that starts deletes what others have in theirs.
        os.makedirs(os.path.join(DIR, "tmp"), exist_ok=True)
        os.environ["TMPDIR"] = os.path.join(DIR, "tmp")
        with open(self.log, "wb") as out:
            subprocess.run(
                ["mariadb-install-db", "--no-defaults", "--force", "--user=root",
                 "--datadir=" + self.data, "--auth-root-authentication-method=normal",
                 "--skip-test-db"], stdout=out, stderr=out, check=True)
        atexit.register(lambda: shutil.rmtree(self.data, ignore_errors=True))
        self.up()

    def up(self, **more):
        self.process = start(
            ["mariadbd", "--no-defaults", "--user=root", "--datadir=" + self.data,
             "--socket=" + self.socket, "--pid-file=" + self.data + "/pid"] + self.OPTIONS,
            self.log, **more)
        if not wait(self.pings, 60):
            raise SystemExit("mariadbd does not start, see " + self.log)

    def pings(self):
        try:
            return self.sql("SELECT 1", "mysql") == b"1\n"
        except RuntimeError:
            return False

    def client(self, database, text):
        r = subprocess.run(
            ["mariadb", "--no-defaults", "--user=root", "--socket=" + self.socket,
             "--batch", "--skip-column-names", "--max-allowed-packet=512M",
             "--default-character-set=utf8mb4", database],
            input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if r.returncode:
            raise RuntimeError(r.stderr.decode())
        return r.stdout

    def sql(self, text, database=None):
        return self.client(database or self.name, text.encode())

    def hold(self, text, user="root", until=True):
        """Statements in a session of their own, which goes on; until: they have been answered."""
        p = subprocess.Popen(
            ["mariadb", "--no-defaults", "--user=" + user, "--socket=" + self.socket, "--force",
             "--unbuffered", "--batch"] + ([self.name] if user == "root" else []),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.append(p)
        with contextlib.suppress(BrokenPipeError):      # where there are too many already
            p.stdin.write(text.encode() + b"\nSELECT 'held';\n")
            p.stdin.flush()
        while until and p.stdout.readline() not in (b"held\n", b""):
            pass
        return p

    @staticmethod
    def release(p, text=""):
        """Such a session ends, with these statements last."""
        with contextlib.suppress(BrokenPipeError):
            p.stdin.write(text.encode())
            p.stdin.close()
        wait(lambda: p.poll() is not None)
        stop(p)
        p.stdout.close()

    COLUMNS = ("from", "to", "recipient", "subject", "body", "charset", "content_type",
               "hash", "mail")

    def mails(self, where="1"):
        """Rows, oldest first: dictionaries of octets, `mail' without the lines we add."""
        fields = ",".join("TO_BASE64(`%s`)" % c for c in self.COLUMNS)
        rows = self.sql("SELECT %s FROM new_mail WHERE %s ORDER BY mail_id" % (fields, where))
        found = []
        for line in rows.decode().splitlines():
            values = [base64.b64decode(v.replace("\\n", "")) for v in line.split("\t")]
            row = dict(zip(self.COLUMNS, values))
            row["trace"], row["mail"] = split_trace(row["mail"])
            found.append(row)
        return found

    def count(self, where="1"):
        return int(self.sql("SELECT COUNT(*) FROM new_mail WHERE " + where))

    def empty(self):
        self.sql("TRUNCATE new_mail")


def split_trace(mail):
    """Return-Path and Received, which smtpd adds, and the mail as it was sent."""
    end = mail.find(b"\r\n", mail.find(b"Received:"))
    while mail[end + 2:end + 3] in (b" ", b"\t"):
        end = mail.find(b"\r\n", end + 2)
    return mail[:end + 2], mail[end + 2:]


class Server:
    """smtpd, by default taking mail for test.example on a port of its own."""

    host = "127.0.0.1"
    known = frozenset()         # the workers whose start its log tells of

    def __init__(self, db, binary=BINARY, listen=("127.0.0.1",), **config):
        self.port = port()
        self.binary = os.path.join(ROOT, binary)
        self.config = {
            "GM_ALLOWED_HOSTS": "test.example",
            "GSMTP_HOST_NAME": "mx.test.example",
            "GSMTP_LISTEN": ",".join("%s:%d" % (a, self.port) for a in listen),
            "GSMTP_CHECK_HEADER": "0",
            "GSMTP_WORKERS": "2",
            "MYSQL_HOST": db.socket,
            "MYSQL_USER": "root",
            "MYSQL_DB": db.name,
        }
        self.config.update(config)
        self.file = os.path.join(DIR, "smtpd-%d.conf" % self.port)
        self.log_file = os.path.join(DIR, "smtpd-%d.log" % self.port)
        for kind in "log", "err", "out":        # of one that had this port before
            if os.path.exists(self.log_file[:-3] + kind):
                os.unlink(self.log_file[:-3] + kind)
        self.write()
        self.launch()
        if not self.serves():
            raise RuntimeError("smtpd does not serve: " + self.log())

    def launch(self):
        self.process = start([self.binary, "-c", self.file, "-l", self.log_file],
                             os.path.join(DIR, "smtpd-%d.err" % self.port),
                             os.path.join(DIR, "smtpd-%d.out" % self.port), cwd=DIR)

    def write(self):
        with open(self.file, "w") as f:
            for name, value in self.config.items():
                f.write("%s=%s\n" % (name, value))

    def log(self):
        text = b""
        for name in self.log_file, self.log_file[:-3] + "err":
            if os.path.exists(name):
                with open(name, "rb") as f:
                    text += f.read()
        return text.decode("latin-1")

    def logged(self, text, seconds=5):
        """Waits for a line of the log with this in it: the line, or None."""
        return wait(lambda: next((l for l in self.log().splitlines() if text in l), None), seconds)

    def hup(self):
        self.process.send_signal(signal.SIGHUP)

    def workers(self):
        """Those that have started. The log has no such line of a child that looks at the database."""
        there = children(self.process.pid)
        if not self.known.issuperset(there):
            self.known |= set(map(int, re.findall(r" (\d+) 0 worker-start ", self.log())))
        return [pid for pid in there if pid in self.known]

    def serves(self):
        """Waits until it listens, for that comes first, and its workers are all its children."""
        count = int(self.config["GSMTP_WORKERS"] or 1)
        wait(lambda: self.process.poll() is not None or (
            len(self.workers()) >= count and self.workers() == children(self.process.pid)))
        return len(self.workers()) >= count

    def counters(self):
        """The line that USR1 makes, as a dictionary."""
        before = self.log().count(" counters ")
        self.process.send_signal(signal.SIGUSR1)
        wait(lambda: self.log().count(" counters ") > before)
        line = [l for l in self.log().splitlines() if " counters " in l][-1]
        return dict(w.split("=") for w in line.split() if "=" in w)

    def empty(self):
        """Waits until it has noticed that all clients are gone."""
        return wait(lambda: self.counters()["clients"] == "0")

    def stop(self):
        same("smtpd on port %d ends with 0" % self.port, stop(self.process), 0)
        with open(self.log_file[:-3] + "err") as f:	# where sanitizers complain
            same("smtpd on port %d has nothing on standard error" % self.port, f.read(), "")


class Postfix:
    """A private Postfix that relays everything it is given on its port to smtpd's."""

    MASTER = """
%(port)d inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
    MAIN = """
compatibility_level = 3.6
queue_directory = %(dir)s/queue
data_directory = %(dir)s/data
myhostname = postfix.example
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:%(to)d
maillog_file = %(dir)s/log
maillog_file_prefixes = %(dir)s
message_size_limit = 50000000
smtputf8_enable = yes
minimal_backoff_time = 5s
queue_run_delay = 5s
"""

    def __init__(self, to, **main):
        self.port = port()
        # In /tmp: postfix's own user must be able to walk to the queue.
        self.dir = "/tmp/postfix-%d-%d" % (os.getpid(), self.port)
        for name in "conf", "queue", "data":
            os.makedirs(os.path.join(self.dir, name))
        shutil.chown(self.dir + "/data", "postfix")
        values = {"dir": self.dir, "port": self.port, "to": to}
        with open(self.dir + "/conf/master.cf", "w") as f:
            f.write(self.MASTER % values)
        with open(self.dir + "/conf/main.cf", "w") as f:
            f.write(self.MAIN % values)
            for name, value in main.items():
                f.write("%s = %s\n" % (name, value))
        atexit.register(self.stop)
        subprocess.run(["postfix", "-c", self.dir + "/conf", "start"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not wait(lambda: listening(self.port)):
            raise SystemExit("postfix does not start: " + self.log())

    def log(self):
        try:
            with open(self.dir + "/log") as f:
                return f.read()
        except OSError:
            return ""

    def stop(self):
        if os.path.isdir(self.dir):
            subprocess.run(["postfix", "-c", self.dir + "/conf", "stop"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            shutil.rmtree(self.dir, ignore_errors=True)


def octets(text):
    return text.encode() if isinstance(text, str) else text


class Client:
    """SMTP by hand. Replies are (code, text of all lines)."""

    def __init__(self, port, source=None, timeout=60, sock=None, greet=True, host="127.0.0.1"):
        self.timeout = timeout          # for what must come; a busy machine may need it
        self.sock = sock or socket.create_connection(
            (host, port), timeout, (source, 0) if source else None)
        self.sock.settimeout(timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.banner = self.reply() if greet else None

    def send(self, octets):
        self.sock.sendall(octets)

    def line(self):
        while b"\r\n" not in self.buffer:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError(self.buffer)
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def reply(self):
        """(0, why) where the connection ends instead."""
        lines = []
        try:
            while True:
                line = self.line()
                lines.append(line[4:].decode("latin-1"))
                if line[3:4] != b"-":
                    return int(line[:3]), "\n".join(lines)
        except (EOFError, OSError, ValueError) as e:
            return 0, repr(e)

    def command(self, text):
        self.send(octets(text) + b"\r\n")
        return self.reply()

    def codes(self, *commands):
        """The code of each reply, up to the end of the connection."""
        codes = []
        for c in commands:
            codes.append(self.command(c)[0])
            if codes[-1] == 0:
                break
        return codes

    def silent(self, seconds=0.3):
        """Nothing more comes: neither a reply nor the end."""
        if self.buffer:
            return False
        self.sock.settimeout(seconds)
        try:
            self.buffer += self.sock.recv(65536)
            return False
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(self.timeout)

    def ended(self, seconds=5):
        """The connection ends within that time; what came first is skipped."""
        def end():
            try:
                while select.select([self.sock], [], [], 0)[0]:
                    if not self.sock.recv(65536):
                        return True
            except socket.timeout:
                pass
            except OSError:
                return True
            return False
        return wait(end, seconds)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def session(port, *commands, hello="EHLO client.example", **more):
    """A greeted client that has given these commands, each taken."""
    c = Client(port, **more)
    if c.banner and c.banner[0] != 220:
        raise RuntimeError("greeting: %d %s" % c.banner)
    for command in (hello,) + commands:
        code, text = c.command(command)
        if code // 100 not in (2, 3):
            raise RuntimeError("%s: %d %s" % (command, code, text))
    return c


def deliver(c, mail=b"Subject: x\r\n\r\nx\r\n", to=("b@test.example",), sender="a@b.example",
            hello=None, at_once=False):
    """One transaction in a session, its envelope at_once where that is to be; the last reply, or
    the first that is none of success."""
    lines = [octets(hello)] if hello else []
    lines += [b"MAIL FROM:<%s>" % octets(sender)] + [b"RCPT TO:<%s>" % octets(t) for t in to]
    lines.append(b"DATA")
    if at_once:
        c.send(b"\r\n".join(lines) + b"\r\n")
    for line in lines:
        code, text = c.reply() if at_once else c.command(line)
        if code != (354 if line == b"DATA" else 250):
            return code, text
    c.send(b"\r\n".join(b"." + l if l[:1] == b"." else l for l in mail.split(b"\r\n")) + b".\r\n")
    return c.reply()


def deliver_once(server, **more):
    """In a session of its own: the code, or why there is none."""
    try:
        with session(server.port, host=server.host) as c:
            return deliver(c, **more)[0]
    except (RuntimeError, OSError) as e:
        return repr(e)


def run(argv, stdin=b"", seconds=30, **more):
    """A program to its end: its status and all that it printed."""
    r = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=10 * seconds * SLOW, **more)
    return r.returncode, r.stdout.decode("utf-8", "replace")


def checked(argv, stdin=b"", seconds=30, **more):
    """What it printed; RuntimeError where it fails."""
    code, text = run(argv, stdin, seconds, **more)
    if code:
        raise RuntimeError("%s: %d %s" % (" ".join(argv)[:200], code, text[-1500:]))
    return text


def debootstrap(into):
    """A minimal system, of the release that this machine has."""
    targets = checked(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)",
                       "Created-By: Packages", "Component: main"]).split("\n")
    mirror, codename = next(t.split() for t in targets if t and "security" not in t)
    checked(["debootstrap", "--variant=minbase", codename, into, mirror], seconds=90)


def environment(env=()):
    """Ours without any setting of smtpd, but with those of env."""
    bare = {k: v for k, v in os.environ.items() if not re.match("G?SMTP_|GM_|MYSQL_|MAX_SMTP", k)}
    return dict(bare, **dict(env))


def smtpd(db, *argv, binary=BINARY, under=(), env=(), seconds=60, **config):
    """Run to its end with a file of settings (None: not in it): its status, None where it does not
    end, and what it printed."""
    where = port()
    values = {"GM_ALLOWED_HOSTS": "test.example", "GSMTP_LISTEN": "127.0.0.1:%d" % where,
              "MYSQL_HOST": db.socket, "MYSQL_USER": "root", "MYSQL_DB": db.name}
    values.update(config)
    name = os.path.join(DIR, "check-%d.conf" % where)
    with open(name, "w") as f:
        f.writelines("%s=%s\n" % item for item in values.items() if item[1] is not None)
    p = subprocess.Popen(list(under) + [os.path.join(ROOT, binary), "-c", name] + list(argv),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=environment(env), cwd=DIR)
    try:
        text, status = p.communicate(timeout=seconds * SLOW)[0], p.returncode
    except subprocess.TimeoutExpired:
        p.terminate()
        text, status = p.communicate()[0], None
    return status, text.decode("utf-8", "replace")


def build(target, into, flags=os.environ.get("CFLAGS")):
    """The sources, copied and built apart: ROOT keeps the build it has."""
    shutil.rmtree(into, ignore_errors=True)
    os.makedirs(into)
    for name in os.listdir(ROOT):
        if name.endswith((".c", ".h")) or name == "Makefile":
            shutil.copy(os.path.join(ROOT, name), into)
    code, text = run(["make", "-s", "-C", into] + (["CFLAGS=" + flags] if flags else []) + target,
                     seconds=120)
    if not ok("make " + " ".join(target), code == 0, text[-2000:]):
        done()
    return os.path.join(into, "smtpd")


def certificate(where, name, cn, *key):
    """A self-signed one in the directory `where', mode 0600: cert and key files."""
    cert, private = (os.path.join(where, name + end) for end in (".pem", ".key"))
    run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=" + cn,
         "-keyout", private, "-out", cert] + list(key or ("-newkey", "rsa:2048")))
    os.chmod(private, 0o600)
    return cert, private


def context(version=None):
    """Of a TLS client that takes any certificate."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    return c


def secure(c, version=None, **more):
    """The client goes on in TLS; its 220 has been read."""
    c.sock = context(version).wrap_socket(c.sock, **more)
    return c


def starttls(where, version=None, **more):
    """A client that is past STARTTLS."""
    return secure(session(where, "STARTTLS"), version, **more)
