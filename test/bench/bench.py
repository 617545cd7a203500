#!/usr/bin/env python3
"""How fast, for how much: smtpd beside its ceilings and what a user would build instead.

bench.py [--quick]. Everything in one run, interleaved, medians of three rounds with the least and
the most; every run ends by counting the rows. Written to result.txt, result.png and result.svg.
"""
import os
import platform
import resource
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
sys.path.insert(0, os.path.join(ROOT, "test"))
sys.dont_write_bytecode = True
import live  # noqa: E402

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 3
COUNT = {"4k one": 6000, "4k kept": 12000, "4k 60": 12000, "mix kept": 3000, "1m": 100, "4k 900": 8000}
if QUICK:
    COUNT = {k: v // 4 for k, v in COUNT.items()}
SLOWER = {"node": 4, "python": 6}		# peers get fewer mails, not to wait for them
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


# ---- the servers

class Db(live.Database):
    SETTINGS = ("innodb_flush_log_at_trx_commit=1", "innodb_buffer_pool_size=1G",
                "innodb_log_file_size=512M", "max_allowed_packet=64M")

    def start(self):
        real = live.start

        def tuned(argv, *more):
            keep = [a for a in argv if "innodb" not in a and "max-allowed" not in a]
            self.process = real(keep + ["--" + s for s in self.SETTINGS], *more)
            return self.process
        live.start = tuned
        try:
            super().start()
        finally:
            live.start = real

    def rows(self):
        return int(self.sql("SELECT COUNT(*) FROM new_mail"))


def peer(argv, port):
    p = live.start(argv, os.path.join(RUN, os.path.basename(argv[-4]) + ".log"))
    if not live.wait(lambda: live.listening(port), 20):
        raise SystemExit("does not start: " + " ".join(argv))
    return p


def servers(db):
    """name: (process, port). smtpd -w1 is smtpd with one worker."""
    smtpd = live.Server(db, MAX_SMTP_CLIENTS="1000", GSMTP_MAX_CLIENTS_PER_IP="1000")
    found = {"smtpd": (smtpd.process, smtpd.port)}
    alone = live.Server(db, GSMTP_WORKERS="1", MAX_SMTP_CLIENTS="900")
    found["smtpd -w1"] = (alone.process, alone.port)
    port = live.port()
    found["smtp-sink"] = (peer(["/usr/sbin/smtp-sink", "-u", "nobody", "127.0.0.1:%d" % port,
                                "1000"], port), port)
    port = live.port()
    found["node"] = (peer(["node", os.path.join(RUN, "peer.js"), str(port), db.socket, db.name],
                          port), port)
    port = live.port()
    found["python"] = (peer(["/usr/bin/python3", os.path.join(HERE, "peer.py"), str(port),
                             db.socket, db.name], port), port)
    return found


# ---- one measurement

class Sample:
    """count mails, in seconds; CPU of server, database and generator; latency in ms."""

    def __init__(self, count, seconds, server, database, generator, p50, p99):
        self.rate = count / seconds
        self.server, self.database, self.generator = (1000 * x / count for x in
                                                       (server, database, generator))
        self.p50, self.p99 = p50, p99


def measure(db, pid, argv, count, stores=True):
    before = db.rows() if stores else 0
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
    p50 = p99 = 0.0
    words = r.stdout.split()
    if len(words) == 5:
        given, seconds, p50, p99 = int(words[0]), *map(float, words[1:4])
    else:
        given = count
    if given != count or stores and db.rows() - before != given:
        raise SystemExit("%d mails, %d given 250, %d rows" % (count, given, db.rows() - before))
    return Sample(count, seconds, server, database, generator, p50, p99)


def mid(samples, what):
    return statistics.median(getattr(s, what) for s in samples)


def main():
    os.makedirs(RUN, exist_ok=True)
    mail = messages()
    mix = ["16*" + mail["3k"], "12*" + mail["15k"], "3*" + mail["60k"], "1*" + mail["300k"]]
    load, ceiling = os.path.join(RUN, "load"), os.path.join(RUN, "ceiling")
    db = Db()
    found = servers(db)
    source = ["/usr/sbin/smtp-source", "-s", "20", "-l", "4096", "-f", "bench@sender.example",
              "-t", "a@test.example"]

    def how(kind, port, n):
        to = [load, "127.0.0.1", str(port)]
        return {"4k one": source + ["-m", str(n), "127.0.0.1:%d" % port],
                "4k 60": source + ["-s", "60", "-d", "-m", str(n), "127.0.0.1:%d" % port],
                "4k kept": source + ["-d", "-m", str(n), "127.0.0.1:%d" % port],
                "mix kept": to + ["20", str(n), "1", "a@test.example"] + mix,
                "1m": to + ["4", str(n), "1", "a@test.example", mail["1m"]],
                "4k 900": to + ["20", str(n), "1", "a@test.example", mail["4k"]]}[kind]

    def best_ceiling(kind, n, each):
        files = mix if kind == "mix kept" else [mail["4k"]]
        return measure(db, None, [ceiling, db.socket, "root", db.name, "new_mail", "2", each,
                                  str(n)] + files, n)

    say("%s, %d processors, %s; MariaDB %s with %s" % (
        time.strftime("%Y-%m-%d"), os.cpu_count(), platform.machine(),
        db.sql("SELECT VERSION()").decode().strip(), ", ".join(db.SETTINGS)))
    say("Medians of %d round%s, least and most in brackets. CPU in milliseconds a mail." % (
        ROUNDS, "" if ROUNDS == 1 else "s"))
    samples = {}
    pid = found["smtpd"][0].pid
    time.sleep(1)
    idle = memory(pid)
    for _ in range(ROUNDS):
        for kind in "4k one", "4k kept", "4k 60", "mix kept", "1m":
            for name, (p, port) in found.items():
                if kind in ("4k 60", "1m") and name in SLOWER:
                    continue
                n = COUNT[kind] // SLOWER.get(name, 1)
                samples.setdefault((kind, name), []).append(
                    measure(db, p.pid, how(kind, port, n), n, name != "smtp-sink"))
                if db.rows() > 200000:
                    db.empty()
            if kind in ("4k kept", "mix kept"):
                for each in "8", "32", "128", "-32":
                    samples.setdefault((kind, "ceiling " + each), []).append(
                        best_ceiling(kind, COUNT[kind], each))
            db.empty()
        # 900 connections that do nothing, and mail beside them; before and after, mail alone
        port = found["smtpd"][1]
        n = COUNT["4k 900"]

        def beside(kind):
            samples.setdefault((kind, "smtpd"), []).append(
                measure(db, pid, how("4k 900", port, n), n))
        beside("4k 20")
        was = memory(pid)
        holder = live.start([load, "127.0.0.1", str(port), "-900", "1", "1", "x", mail["4k"]])
        time.sleep(1.5)
        held = memory(pid)
        beside("4k 900")
        beside("4k 900")
        live.stop(holder)
        time.sleep(0.5)
        beside("4k 20")
        db.empty()
    after = memory(pid)

    say("%-10s %-12s %24s %18s %10s %10s %8s %8s" % (
        "load", "server", "mails/s", "CPU server", "database", "generator", "p50 ms", "p99 ms"))
    for (kind, name), s in samples.items():
        rates, own = [x.rate for x in s], [x.server for x in s]
        if name.startswith("ceiling"):
            own = [x.generator for x in s]
        say("%-10s %-12s %8.0f [%6.0f %6.0f] %6.3f [%.3f %.3f] %9.3f %10s %8.2f %8.2f" % (
            kind, name, statistics.median(rates), min(rates), max(rates), statistics.median(own),
            min(own), max(own), mid(s, "database"),
            "" if name.startswith("ceiling") else "%.3f" % mid(s, "generator"), mid(s, "p50"),
            mid(s, "p99")))
    say("memory of all processes, shared pages once: idle %.1f MB; a held connection %.2f KB; "
        "at the end %.1f MB" % (idle / 1e6, (held - was) / 900 / 1024, after / 1e6))
    bars(samples, idle, (held - was) / 900)
    with open(os.path.join(HERE, "result.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    plot(samples)


def bars(samples, idle, held):
    say()
    cpus = os.cpu_count()

    def bar(text, value, wanted, more=True):
        good = value >= wanted if more else value <= wanted
        say("%-62s %8.2f  wanted %s %-6.2f %s" % (text, value, ">=" if more else "<=", wanted,
                                                  "met" if good else "NOT MET"))
    for kind in "4k one", "4k kept", "mix kept":
        own, sink = samples[kind, "smtpd"], samples[kind, "smtp-sink"]
        rows = "4k kept" if kind == "4k one" else kind
        top = min((samples[rows, "ceiling " + e] for e in ("32", "128")),
                  key=lambda s: mid(s, "generator") + mid(s, "database"))

        def bound_by(top):
            return cpus * 1000 / (mid(own, "generator") + mid(sink, "server") +
                                  mid(top, "generator") + mid(top, "database"))
        bound = bound_by(top)
        say("bound of this machine, %s: %.0f mails a second; with statements prepared: %.0f" % (
            kind, bound, bound_by(samples[rows, "ceiling -32"])))
        bar("%s: mails a second, of that bound" % kind, mid(own, "rate") / bound, 0.85)
        if kind == "4k kept":
            bar("4k, 60 sessions in place of 20: mails a second, of that bound",
                mid(samples["4k 60", "smtpd"], "rate") / bound, 0.85)
        bar("%s: CPU of smtpd, of smtp-sink's and the ceiling's" % kind, mid(own, "server") /
            (mid(sink, "server") + mid(top, "generator")), 1.2, False)
        bar("%s: CPU of mariadbd, of that under the ceiling" % kind,
            mid(own, "database") / mid(top, "database"), 1.15, False)
        if kind == "4k one":
            continue
        # Two connections, eight rows each time.
        statement = 2 * 8 * 1000 / mid(samples[kind, "ceiling 8"], "rate")
        late = samples["4k 20" if kind == "4k kept" else kind, "smtpd"]
        bar("%s: p99 from end of data to 250, of the time of 8 rows" % kind,
            mid(late, "p99") / statement, 3, False)
        peers = max(mid(samples[kind, p], "rate") for p in SLOWER)
        bar("%s: times the faster peer" % kind, mid(own, "rate") / peers,
            3.0 if kind == "4k kept" else 2.2)
    bar("900 held connections: mails a second, of that with 20",
        mid(samples["4k 900", "smtpd"], "rate") / mid(samples["4k 20", "smtpd"], "rate"), 0.9)
    bar("resident memory idle, MB", idle / 1e6, 12, False)
    bar("growth by a held connection, KB", held / 1024, 4, False)


def plot(samples):
    data = os.path.join(RUN, "plot.dat")
    kinds, names = ["4k one", "4k kept", "mix kept"], ["smtpd", "node", "python", "smtp-sink"]
    with open(data, "w") as f:
        for kind in kinds:
            f.write('"%s" %s\n' % (kind, " ".join("%.1f" % mid(samples[kind, n], "rate")
                                                  for n in names)))
    for kind, size in ("png", "900,500"), ("svg", "900,500"):
        subprocess.run(["gnuplot"], check=True, input=("""
set terminal %s size %s
set output '%s/result.%s'
set style data histograms
set style fill solid 0.8
set ylabel 'mails a second'
set yrange [0:*]
set grid ytics
set key top right
plot %s
""" % (kind, size, HERE, kind, ", ".join(
            "'%s' using %d:xtic(1) title '%s'" % (data, i + 2, n if n != "smtp-sink" else
                                                 "smtp-sink (stores nothing)")
            for i, n in enumerate(names)))).encode())


main()
