#!/usr/bin/env python3
"""How fast, for how much: smtpd beside its ceilings and what a user would build instead.

bench.py [-q] [-d ms] [-b smtpd] [load...], see run. Everything in one run, interleaved, medians of
three rounds with the least and the most; every measurement ends by counting the rows. All of it is
done on the machine's own disk and on one whose flush takes 4 ms longer (slow.c).
"""
import argparse
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RUN = os.path.join(ROOT, "test", ".run", "bench")
os.environ["SMTPD_TEST_DIR"] = RUN
os.environ.setdefault("SMTPD_TEST_PORTS", "2700-2799")
os.environ.pop("SMTPD_TEST_MYSQL", None)
options = argparse.ArgumentParser()
options.add_argument("-q", action="store_true")
options.add_argument("-d", type=float)
options.add_argument("-b")
options.add_argument("load", nargs="*")
options = options.parse_args()
sys.path.insert(0, os.path.join(ROOT, "test", "system"))
sys.dont_write_bytecode = True
import live  # noqa: E402

ALL = not options.load and options.d is None
DISKS = [0.0, 4.0] if options.d is None else [options.d]	# ms that a flush takes longer
ROUNDS = 1 if options.q else 3

# name: in words, mails on the own disk and on the slow one (0: not there)
LOADS = {
    "one-20": ("4 KB, a connection a mail, 20 at once", 6000, 3000),
    "one-100": ("4 KB, a connection a mail, 100 at once", 6000, 8000),
    "kept-20": ("4 KB, 20 kept connections", 12000, 4000),
    "kept-60": ("4 KB, 60 kept connections", 12000, 0),
    "kept-100": ("4 KB, 100 kept connections", 12000, 10000),
    "mix-20": ("3 to 300 KB, 20 kept connections", 3000, 3000),
    "mix-100": ("3 to 300 KB, 100 kept connections", 6000, 6000),
    "1m": ("1 MB, 4 kept connections", 100, 0),
    "held": ("4 KB, 20 kept connections beside 900 silent ones", 8000, 0),
    "before-held": ("4 KB, 20 kept connections, the same minutes", 8000, 0),
}
FEW = "one-20", "kept-20", "mix-20"	# the peers' share
PEERS = {
    "node": ("smtp-server, mailparser, mysql2 (Node.js)", 4),	# and how many times fewer mails
    "python": ("aiosmtpd, email, MySQLdb (Python)", 6),
}
SINK = "smtp-sink"	# Postfix's, stores nothing
NAMES = {"smtpd": "smtpd", SINK: "smtp-sink (Postfix; stores nothing)"}
NAMES.update({k: v[0] for k, v in PEERS.items()})
if options.b:		# ../smtpd-1.0/smtpd is "smtpd-1.0"
    NAMES["before"] = os.path.basename(os.path.dirname(os.path.abspath(options.b)))
lines = []


def say(text=""):
    print(text, flush=True)
    lines.append(text)


# ---- the mails

def messages():
    """3 KB alternative, 15 KB HTML, 60 KB, 300 KB with an attachment, 1 MB; how often in the mix."""
    def text(n):
        words = "Lorem ipsum dolor sit amet, it's größer und über \"alles\" — 東京 and a \\ too. "
        return (words * (n // len(words.encode()) + 1))[:n]
    from email.message import EmailMessage
    made = {}
    for name, plain, html, attach in (("3k", 700, 1500, 0), ("15k", 2000, 9000, 0),
                                      ("60k", 6000, 40000, 0), ("300k", 2000, 4000, 215000),
                                      ("1m", 2000, 4000, 730000)):
        m = EmailMessage()
        m["From"] = "Benjamin Bär <bench@sender.example>"
        m["To"] = "a@test.example"
        m["Subject"] = "Größe %s, a subject as they are" % name
        m["Message-ID"] = "<%s@sender.example>" % name
        m.set_content(text(plain))
        m.add_alternative("<html><body><p>%s</p></body></html>" % text(html), subtype="html")
        if attach:
            m.add_attachment(bytes(i * 7 % 256 for i in range(attach)), "application", "pdf",
                             filename="a.pdf")
        made[name] = os.path.join(RUN, name + ".eml")
        with open(made[name], "wb") as f:
            f.write(m.as_bytes(policy=m.policy.clone(linesep="\r\n")))
    made["4k"] = os.path.join(RUN, "4k.eml")
    with open(made["4k"], "wb") as f:
        f.write(b"From: <bench@sender.example>\r\nTo: a@test.example\r\nSubject: x\r\n\r\n" +
                (b"X" * 78 + b"\r\n") * 50)
    return made


# ---- processor and memory

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """A process and all that descend from it."""
    kids = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % p) as f:
                kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(p))
        except OSError:
            pass
    found = [pid]
    for p in found:
        found += kids.get(p, [])
    return found


def cpu(pid):
    """Seconds of a process and its descendants, those that have ended included."""
    ticks = 0
    for p in tree(pid):
        try:
            with open("/proc/%d/stat" % p) as f:
                ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            pass
    return ticks / TICK


def memory(pid):
    """Octets in memory, pages shared by several counted once."""
    total = 0
    for p in tree(pid):
        try:
            with open("/proc/%d/smaps_rollup" % p) as f:
                total += sum(int(l.split()[1]) for l in f if l.startswith("Pss:"))
        except OSError:
            pass
    return total * 1024


def processor():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


# ---- the servers

class Db(live.Database):
    SETTINGS = ("innodb_flush_log_at_trx_commit=1", "innodb_buffer_pool_size=1G",
                "innodb_log_file_size=512M", "max_allowed_packet=64M")

    def __init__(self, slower):
        self.slower = slower
        super().__init__()

    def start(self):
        real = live.start
        env = dict(os.environ)
        if self.slower:
            env.update(LD_PRELOAD=os.path.join(RUN, "slow.so"), SLOW_US="%d" % (self.slower * 1000))

        def tuned(argv, *more):
            keep = [a for a in argv if "innodb" not in a and "max-allowed" not in a]
            self.process = real(keep + ["--" + s for s in self.SETTINGS], *more, env=env)
            return self.process
        live.start = tuned
        try:
            super().start()
        finally:
            live.start = real

    def rows(self):
        return int(self.sql("SELECT COUNT(*) FROM new_mail"))

    def statements(self):
        return sum(int(line.split()[1]) for line in self.sql(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_insert','Com_insert_select')"
        ).splitlines())


def peer(argv, port):
    p = live.start(argv, os.path.join(RUN, os.path.basename(argv[-4]) + ".log"))
    if not live.wait(lambda: live.listening(port), 20):
        raise SystemExit("does not start: " + " ".join(argv))
    return p


def servers(db):
    """name: (process, port)"""
    def smtpd(binary):
        s = live.Server(db, binary, MAX_SMTP_CLIENTS="1000", GSMTP_MAX_CLIENTS_PER_IP="1000")
        return s.process, s.port
    found = {"smtpd": smtpd(live.BINARY)}
    if options.b:
        found["before"] = smtpd(os.path.abspath(options.b))
    if not db.slower:
        port = live.port()
        found[SINK] = (peer(["/usr/sbin/smtp-sink", "-u", "nobody", "127.0.0.1:%d" % port, "1000"],
                            port), port)
    if ALL:
        port = live.port()
        found["node"] = (peer(["node", os.path.join(RUN, "peer.js"), str(port), db.socket,
                               db.name], port), port)
        port = live.port()
        found["python"] = (peer(["/usr/bin/python3", os.path.join(HERE, "peer.py"), str(port),
                                 db.socket, db.name], port), port)
    return found


# ---- one measurement

class Sample:
    """count mails, in seconds; CPU of server, database and generator; latency in ms."""

    def __init__(self, count, seconds, server, database, generator, p50, p99, statements):
        self.rate = count / seconds
        self.rows = count / statements if statements else 0	# rows a statement
        self.server, self.database, self.generator = (1000 * x / count for x in
                                                       (server, database, generator))
        self.p50, self.p99 = p50, p99


def measure(db, pid, argv, count, stores=True):
    before = db.rows() if stores else 0
    statements = db.statements()
    was = cpu(pid) if pid else 0.0
    was_db = cpu(db.process.pid)
    was_gen = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    seconds = time.monotonic() - began
    gen = resource.getrusage(resource.RUSAGE_CHILDREN)
    if r.returncode:
        raise SystemExit("%s: %s" % (" ".join(argv[:4]), r.stderr.decode()))
    server = (cpu(pid) - was) if pid else 0.0
    database = cpu(db.process.pid) - was_db
    generator = gen.ru_utime + gen.ru_stime - was_gen.ru_utime - was_gen.ru_stime
    statements = db.statements() - statements
    p50 = p99 = 0.0
    words = r.stdout.split()
    if len(words) == 5:
        given, seconds, p50, p99 = int(words[0]), *map(float, words[1:4])
    else:
        given = count
    if given != count or stores and db.rows() - before != given:
        raise SystemExit("%d mails, %d given 250, %d rows" % (count, given, db.rows() - before))
    if stores and before > 200000:
        db.empty()
    return Sample(count, seconds, server, database, generator, p50, p99, statements)


def flush_ms(db):
    """What a flush takes: the median of 100 in the database's directory, and what slow.c adds."""
    times = []
    with open(os.path.join(RUN, "flush"), "wb", 0) as f:
        for _ in range(100):
            f.write(b"x" * 512)
            began = time.monotonic()
            os.fdatasync(f.fileno())
            times.append(time.monotonic() - began)
    return 1000 * statistics.median(times) + db.slower


class Disk:
    """All measurements with one database: samples[load, server]."""

    def __init__(self, slower, mail):
        self.slower, self.mail, self.samples = slower, mail, {}
        self.mix = ["16*" + mail["3k"], "12*" + mail["15k"], "3*" + mail["60k"],
                    "1*" + mail["300k"]]
        self.db = Db(slower)
        self.servers = servers(self.db)
        self.flush = flush_ms(self.db)
        self.version = self.db.sql("SELECT VERSION()").decode().strip()
        self.loads = [k for k, v in LOADS.items() if v[2 if slower else 1] and
                      (not options.load or any(l in k for l in options.load))]
        self.idle = self.growth = 0.0
        time.sleep(1)
        self.idle = memory(self.servers["smtpd"][0].pid)
        for i in range(ROUNDS):
            print("flush of %.1f ms, round %d of %d" % (self.flush, i + 1, ROUNDS),
                  file=sys.stderr)
            self.round()
        for p in reversed(list(live.started)):
            live.stop(p)

    def count(self, load):
        return LOADS[load][2 if self.slower else 1] // (4 if options.q else 1)

    def generator(self, load, port, n):
        """Postfix's where the disk is the machine's own, ours where the delay counts as well."""
        sessions = load.split("-")[-1]
        if not self.slower and load.split("-")[0] in ("one", "kept"):
            return ["/usr/sbin/smtp-source", "-l", "4096", "-f", "bench@sender.example", "-t",
                    "a@test.example", "-s", sessions] + ["-d"] * load.startswith("kept") + [
                        "-m", str(n), "127.0.0.1:%d" % port]
        files = self.mix if "mix" in load else [self.mail["1m" if load == "1m" else "4k"]]
        if not sessions.isdigit():
            sessions = "4" if load == "1m" else "20"
        return [os.path.join(RUN, "load"), "127.0.0.1", str(port), sessions, str(n),
                "0" if load.startswith("one") else "1", "a@test.example"] + files

    def add(self, load, name, sample):
        self.samples.setdefault((load, name), []).append(sample)

    def ceiling(self, rows, n, shape):
        """shape: connections, rows a statement, -rows where they are prepared"""
        files = self.mix if rows == "mix" else [self.mail["4k"]]
        return measure(self.db, None, [os.path.join(RUN, "ceiling"), self.db.socket, "root",
                                       self.db.name, "new_mail", str(shape[0]), str(shape[1]),
                                       str(n)] + files, n)

    def shapes(self, load):
        """What the ceiling is tried with, for all loads of the same mails and sessions."""
        if not self.slower:
            return [(2, 8), (2, 32), (2, -32)] if load.endswith("20") else []
        n = int(load.split("-")[1])
        return [(c, -n // c) for c in (1, 2, 4, 10)] + [(1, -1)] * (n == 20)

    def round(self):
        self.db.empty()
        self.ceiling("4k", 1000, (2, -32))	# a table that has its first pages
        smtpd, port = self.servers["smtpd"]
        seen = set()
        for load in self.loads:
            if "held" in load:
                continue
            n = self.count(load)
            for name, (p, at) in self.servers.items():
                if name in PEERS and load not in FEW or name == SINK and load not in FEW + (
                        "kept-60",):
                    continue
                few = n // PEERS[name][1] if name in PEERS else n
                self.add(load, name, measure(self.db, p.pid, self.generator(load, at, few), few,
                                             name != SINK))
            if load == "1m":
                continue
            mails, sessions = load.split("-")
            mails = "mix" if mails == "mix" else "4k"
            if (mails, sessions) in seen:
                continue
            seen.add((mails, sessions))
            for shape in self.shapes(load):
                few = n // 20 if shape == (1, -1) else n // (2 if self.slower else 1)
                self.add(mails + "-" + sessions, "ceiling %dx%d" % shape,
                         self.ceiling(mails, few, shape))
        if "held" not in self.loads:
            return
        # 900 connections that do nothing, and mail beside them; before and after, mail alone
        n = self.count("held")

        def beside(load):
            self.add(load, "smtpd", measure(self.db, smtpd.pid, self.generator(load, port, n), n))
        beside("before-held")
        was = memory(smtpd.pid)
        holder = live.start([os.path.join(RUN, "load"), "127.0.0.1", str(port), "-900", "1", "1",
                             "x", self.mail["4k"]])
        time.sleep(1.5)
        self.growth = (memory(smtpd.pid) - was) / 900
        beside("held")
        beside("held")
        live.stop(holder)
        time.sleep(0.5)
        beside("before-held")

    # ---- what is told of it

    def mid(self, load, name, what="rate"):
        return statistics.median(getattr(s, what) for s in self.samples[load, name])

    def table(self):
        say()
        say("A flush takes %.1f ms. rows: of an INSERT, on average." % self.flush)
        say("%-50s %-42s %23s %18s %9s %9s %7s %7s %7s" % (
            "mails", "server", "mails/s", "CPU server", "database", "sender", "p50 ms", "p99 ms",
            "rows"))
        for (load, name), s in self.samples.items():
            rates = [x.rate for x in s]
            bare = name.startswith("ceiling")
            own = [x.generator if bare else x.server for x in s]
            words = LOADS[load][0] if not bare else "rows of %s" % (
                LOADS[("mix-20" if "mix" in load else "kept-20")][0].split(",")[0])
            if bare:
                c, rows = map(int, name.split()[1].split("x"))
                text = "ceiling: %d connection%s x %d row%s%s" % (
                    c, "s" * (c > 1), abs(rows), "s" * (abs(rows) > 1),
                    ", text" * (rows > 0))
            else:
                text = NAMES[name]
            say("%-50s %-42s %7.0f [%6.0f %6.0f] %6.3f [%.3f %.3f] %8.3f %9s %7s %7s %7.1f" % (
                words, text, statistics.median(rates), min(rates), max(rates),
                statistics.median(own), min(own), max(own), self.mid(load, name, "database"),
                "" if bare else "%.3f" % self.mid(load, name, "generator"),
                *("%.2f" % self.mid(load, name, p) if s[0].p99 else "" for p in ("p50", "p99")),
                self.mid(load, name, "rows")))

    def busy(self, load):
        return "the processors are %.0f %% busy" % (self.mid(load, "smtpd") * sum(
            self.mid(load, "smtpd", w) for w in ("server", "database", "generator")) /
            os.cpu_count() / 10)

    def outstanding(self, load):
        """Little's law; the median stands for the mean."""
        return "on average %.1f of %s mails are between end of data and 250; %s" % (
            self.mid(load, "smtpd") * self.mid(load, "smtpd", "p50") / 1000, load.split("-")[1],
            self.busy(load))

    def have(self, *pairs):
        return all(p in self.samples for p in pairs)

    def bars_slow(self):
        for load in self.loads:
            mails = "mix" if "mix" in load else "4k"
            rows = mails + "-" + load.split("-")[1]
            top = max((n for l, n in self.samples if l == rows and n.startswith("ceiling")),
                      key=lambda n: self.mid(rows, n))
            bar("%s: of the ceiling, %s" % (LOADS[load][0], top.split()[1].replace("-", "")),
                self.mid(load, "smtpd") / self.mid(rows, top), 0.85, why=self.outstanding(load))
            if self.have((mails + "-20", "ceiling 1x-1")):
                commit = 1000 / self.mid(mails + "-20", "ceiling 1x-1")
                bar("%s: p99 of the answer, in commits of %.1f ms" % (LOADS[load][0], commit),
                    self.mid(load, "smtpd", "p99") / commit, 3, False,
                    "the median is %.1f commits; %s" % (self.mid(load, "smtpd", "p50") / commit,
                                                        self.outstanding(load)))

    def bars_fast(self):
        cpus = os.cpu_count()
        for load in self.loads:
            rows = "mix-20" if "mix" in load else "4k-20"
            if not self.have((load, SINK), (rows, "ceiling 2x32")):
                continue
            own = self.mid(load, "smtpd", "generator") + self.mid(load, SINK, "server")

            def cost(name):
                return self.mid(rows, name, "generator") + self.mid(rows, name, "database")
            bound = cpus * 1000 / (own + cost("ceiling 2x32"))
            words = LOADS[load][0]
            bar("%s: of what the processors could, %.0f a second" % (words, bound),
                self.mid(load, "smtpd") / bound, 0.85, why=self.busy(load))
            bar("%s: CPU of smtpd, of smtp-sink's and the ceiling's" % words,
                self.mid(load, "smtpd", "server") / (
                    self.mid(load, SINK, "server") + self.mid(rows, "ceiling 2x32", "generator")),
                1.2, False)
            bar("%s: CPU of mariadbd, of that under the ceiling" % words,
                self.mid(load, "smtpd", "database") / self.mid(rows, "ceiling 2x32", "database"),
                1.15, False, "an INSERT has %.1f rows" % self.mid(load, "smtpd", "rows"))
            # Two connections, eight rows each time.
            late = "before-held" if load == "kept-20" else load
            if self.have((late, "smtpd")) and self.mid(late, "smtpd", "p99"):
                bar("%s: p99 of the answer, of the time of 8 rows" % words,
                    self.mid(late, "smtpd", "p99") * self.mid(rows, "ceiling 2x8") / 16000, 3,
                    False, "the median is %.1f ms; %s" % (self.mid(late, "smtpd", "p50"),
                                                          self.busy(late)))
        if self.have(("held", "smtpd")):
            bar("900 silent connections: mails a second, of that without",
                self.mid("held", "smtpd") / self.mid("before-held", "smtpd"), 0.9)
            bar("resident memory idle, MB", self.idle / 1e6, 12, False)
            bar("growth by a silent connection, KB", self.growth / 1024, 4, False)

    def bars(self):
        say()
        (self.bars_slow if self.slower else self.bars_fast)()
        for load in FEW:
            if self.have((load, "node"), (load, "python")):
                peers = max(self.mid(load, p) for p in PEERS)
                bar("%s: times the faster peer" % LOADS[load][0],
                    self.mid(load, "smtpd") / peers, 2.2 if "mix" in load else 3)
        for load in self.loads:
            if self.have((load, "before")):
                say("%-90s %8.2f" % ("%s: times %s" % (LOADS[load][0], NAMES["before"]),
                                     self.mid(load, "smtpd") / self.mid(load, "before")))
        for load in "kept-60", "kept-100":
            if self.have((load, "before")) and not self.slower:
                bar("%s: CPU of mariadbd, of that under %s" % (LOADS[load][0], NAMES["before"]),
                    self.mid(load, "smtpd", "database") / self.mid(load, "before", "database"),
                    1.05, False, "an INSERT has %.1f rows, and had %.1f" % (
                        self.mid(load, "smtpd", "rows"), self.mid(load, "before", "rows")))


def bar(text, value, wanted, more=True, why=""):
    """why: what stands in the way, where it is not met"""
    good = value >= wanted if more else value <= wanted
    say("%-90s %8.2f  wanted %s %-6.2f %s" % (text, value, ">=" if more else "<=", wanted,
                                              "met" if good else "NOT MET"))
    if not good and why:
        say("    " + why)


def plot(disks, where):
    data = os.path.join(RUN, "plot.dat")
    names = ["smtpd"] + ["before"] * bool(options.b) + list(PEERS)
    with open(data, "w") as f:
        for d in disks:
            for load in FEW:
                f.write('"%s" %s\n' % (LOADS[load][0].replace(", ", "\\n"), " ".join(
                    "%.1f" % d.mid(load, n) for n in names)))
            f.write("\n\n")
    charts = "\n".join("""
set title 'a flush of the disk takes %.1f ms'
set yrange [0:%f]
plot %s
""" % (d.flush, 1.4 * max(d.mid(load, n) for load in FEW for n in names), ", ".join(
        "'%s' index %d using %d:xtic(1) title '%s' linecolor rgb '%s'" % (
            data, i, k + 2, NAMES[n], colour)
        for k, (n, colour) in enumerate(zip(names, ("#1f4e79", "#8fb4d9", "#5b8c3a", "#e0a030")))))
                       for i, d in enumerate(disks))
    for kind in "png", "svg":
        subprocess.run(["gnuplot"], check=True, input=("""
set terminal %s size 1000,1000 noenhanced
set output '%s/result.%s'
set style data histograms
set style histogram clustered gap 1
set style fill solid 1 noborder
set ylabel 'mails stored a second'
set grid ytics
set bmargin 5
set key top right
set multiplot layout %d,1 title '%s'
%s
""" % (kind, where, kind, len(disks), lines[0], charts)).encode())


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))	# what was started ends as well
    os.makedirs(RUN, exist_ok=True)
    mail = messages()
    say("smtpd and what one would build instead: %s, %d processors (%s)" % (
        time.strftime("%Y-%m-%d"), os.cpu_count(), processor()))
    disks = [Disk(d, mail) for d in DISKS]
    say("MariaDB %s with %s" % (disks[0].version, ", ".join(Db.SETTINGS)))
    say("Medians of %d round%s, least and most in brackets. CPU in milliseconds a mail." % (
        ROUNDS, "" if ROUNDS == 1 else "s"))
    for d in disks:
        d.table()
        d.bars()
    if ALL:
        where = RUN if options.q else HERE
        with open(os.path.join(where, "result.txt"), "w") as f:
            f.write("\n".join(lines) + "\n")
        plot(disks, where)


main()
