#!/usr/bin/env python3
"""What is in etc/: the settings and their defaults, the unit, logrotate, the purge.

They are tried with what reads them: smtpd -t, systemd-analyze, logrotate, MariaDB. smtpd runs with
the capabilities that the unit leaves it, and no others, where this is root on Linux.
"""
import os
import re
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
from live import (BINARY, DIR, ROOT, Database, Server, deliver_once, done, ok, run, same,
                  session, start, stop, wait)

ETC = os.path.join(ROOT, "etc")
MAIL = b"To: b@test.example\r\nSubject: %d\r\n\r\nx\r\n"


def read(name):
    with open(os.path.join(ETC, name)) as f:
        return f.read()


def put(name, text, mode=0o644):
    name = os.path.join(DIR, name)
    with open(name, "w") as f:
        f.write(text)
    os.chmod(name, mode)
    return name


def settings(text):
    """Of a file or of -t: name and value, in order."""
    return re.findall(r"^([A-Z_]+)=(.*)$", text, re.M)


db = Database()
binary = os.path.join(ROOT, BINARY)

# -- smtpd.conf

conf = read("smtpd.conf")
lines = re.findall(r"^#([A-Z_]+)=(.*)$", conf, re.M)
bare = {"PATH": os.environ["PATH"]}


def test_of(text, mode=0o600):
    return run([binary, "-t", "-c", put("etc.conf", text, mode)], env=bare, cwd=DIR)


least = "GM_ALLOWED_HOSTS=test.example\n"
code, said = test_of(least)
used = dict(settings(said))
same("smtpd.conf: every setting of -t, each once", sorted(n for n, _ in lines), sorted(used))
own = ("GM_ALLOWED_HOSTS", "GSMTP_HOST_NAME", "GSMTP_MAX_CLIENTS_PER_IP", "GSMTP_WORKERS")
for name, value in lines:
    if name not in own:
        same("smtpd.conf: the default of " + name, value, used.get(name))
    comment = re.search(r"((?:^# .*\n)+)(?:#[A-Z_]+=.*\n)*#%s=" % name, conf, re.M)
    ok("smtpd.conf: a line about " + name, comment, name)
for name in own[1:]:
    ok("smtpd.conf: %s is worked out where it is empty" % name,
       (name, "") in lines and used.get(name), used.get(name))
whole = re.sub(r"(?m)^#(?=[A-Z_]+=)", "", conf)
wanted = {n: v or used.get(n) for n, v in lines}
code, said = test_of(whole)
same("smtpd.conf: all lines uncommented: the same settings", dict(settings(said)), wanted)
ok("smtpd.conf: all lines uncommented: no warning", "warning" not in said, said)
for name, value in lines:
    code, said = test_of((least if name != own[0] else "") + "%s=%s\n" % (name, value))
    same("smtpd.conf: %s alone, uncommented" % name, dict(settings(said)).get(name), wanted[name])
ok("smtpd.conf: lines fit a terminal", max(map(len, conf.splitlines())) <= 80)
code, said = test_of(conf)
ok("smtpd.conf as it is says what must be set", code == 1 and "GM_ALLOWED_HOSTS" in said, said)

# -- smtpd.service

installed = os.path.join(DIR, "smtpd")
shutil.copy(binary, installed)
unit = put("smtpd.service", read("smtpd.service").replace("/usr/local/sbin/smtpd", installed))
code, said = run(["systemd-analyze", "verify", "--man=no", unit])
same("smtpd.service: systemd-analyze verify", (code, [l for l in said.splitlines() if "smtpd" in l]), (0, []))
code, said = run(["systemd-analyze", "security", "--offline=yes", "--threshold=29", unit])
ok("smtpd.service: exposure below 3", code == 0, said.splitlines()[-1:])
print("    " + re.sub("[^ -~]+", "", said.strip().splitlines()[-1]))

config = {"GM_ALLOWED_HOSTS": "test.example", "GSMTP_CHECK_HEADER": "0", "GSMTP_WORKERS": "2",
          "MYSQL_HOST": db.socket, "MYSQL_USER": "root", "MYSQL_DB": db.name}
allowed = re.search("(?m)^CapabilityBoundingSet=(.*)", read("smtpd.service"))[1].lower()
setpriv = ["setpriv", "--no-new-privs", "--bounding-set",
           "-all,+" + ",+".join(c[4:] for c in allowed.split())]


class Limited(Server):
    """As systemd starts it: on port 25 of an address of its own, with a file of mode 600."""

    def __init__(self, **more):
        self.host = "127.0.25.%d" % (os.getpid() % 250 + 1)
        self.port = 25
        self.config = dict(config, GSMTP_LISTEN=self.host, **more)
        self.binary, self.file = installed, os.path.join(DIR, "unit.conf")
        self.log_file = os.path.join(DIR, "unit.log")
        self.write()
        os.chmod(self.file, 0o600)
        self.start()

    def start(self):
        self.process = start(setpriv + [installed, "-c", self.file, "-l", self.log_file],
                             self.log_file[:-3] + "err", cwd=DIR)
        ok("smtpd.service: starts with its capabilities", self.serves(), self.log())


limited = Limited()
same("smtpd.service: a mail", deliver_once(limited, mail=MAIL % 1), 250)
with open("/proc/%d/status" % limited.workers()[0]) as f:
    uid = re.search(r"(?m)^Uid:\s+(\d+)", f.read())[1]
ok("smtpd.service: workers are not root", uid != "0", uid)
before = limited.workers()
limited.hup()
ok("smtpd.service: HUP replaces the workers", wait(lambda: not set(before) & set(limited.workers())))
same("smtpd.service: a mail after it", deliver_once(limited, mail=MAIL % 2), 250)
os.kill(limited.workers()[0], signal.SIGKILL)
ok("smtpd.service: a dead worker is replaced", wait(lambda: len(limited.workers()) == 2))

# -- smtpd.logrotate, with the process id in a file

rotated = os.path.join(DIR, "rotated")
shutil.rmtree(rotated, ignore_errors=True)
os.mkdir(rotated, 0o755)
limited.stop()
limited.log_file = os.path.join(rotated, "smtpd.log")
limited.start()
pid = put("smtpd.pid", "%d\n" % limited.process.pid)
rules = put("logrotate.conf", read("smtpd.logrotate").replace("/var/log/smtpd.log", limited.log_file)
            .replace("/run/smtpd.pid", pid))


def rotate():
    return run(["logrotate", "-f", "-s", os.path.join(DIR, "logrotate.state"), rules])


same("logrotate: a mail", deliver_once(limited, mail=MAIL % 3), 250)
old = session(25, "MAIL FROM:<a@b.example>", host=limited.host)
before = limited.workers()
same("logrotate: runs without a word", rotate(), (0, ""))
ok("logrotate: a new log", wait(lambda: os.path.exists(limited.log_file)))
ok("logrotate: new workers", wait(lambda: set(limited.workers()) - set(before)))
ok("logrotate: a new worker writes to the new log", wait(
    lambda: deliver_once(limited, mail=MAIL % 4) == 250 and " stored " in limited.log()), limited.log())
same("logrotate: a session of before goes on", old.codes("RCPT TO:<b@test.example>", "DATA"), [250, 354])
old.send(MAIL % 5 + b".\r\n")
same("logrotate: and stores its mail", old.reply()[0], 250)
old.close()


def logged():
    text = ""
    for name in os.listdir(rotated):
        text += run(["zcat", "-f", os.path.join(rotated, name)])[1]
    return text.count(" stored ")


rows = db.count("subject >= 3")
ok("logrotate: no line is lost", wait(lambda: logged() == rows), (logged(), rows))
same("logrotate: a second time", rotate(), (0, ""))
ok("logrotate: the log of before the last is compressed", wait(
    lambda: sorted(os.listdir(rotated)) ==
    ["smtpd.err", "smtpd.log", "smtpd.log.1", "smtpd.log.2.gz"]),
   os.listdir(rotated))
same("smtpd ends with 0", stop(limited.process), 0)
same("logrotate: no word while it is stopped", rotate(), (0, ""))
other = subprocess.Popen(["sleep", "60"])
put("smtpd.pid", "%d\n" % other.pid)
put("rotated/smtpd.log", "a line\n")
same("logrotate: no word where the process id is another's", rotate(), (0, ""))
ok("logrotate: who has it is left alone", other.poll() is None)
other.kill()
other.wait()
shutil.rmtree(rotated)
same("logrotate: no word where there is no log", rotate(), (0, ""))

# -- purge.sql, with the rights it asks for

db.empty()
purge = read("purge.sql")
user = "p%d" % os.getpid()
db.sql("SET GLOBAL event_scheduler=ON; CREATE USER %s@localhost" % user)
for grant in re.findall(r"(?m)^--\t(GRANT .*;)$", purge):
    db.sql(grant.replace("purge@localhost", user + "@localhost").replace("mail.", db.name + ".", 1))


def as_purge(text):
    return run(["mariadb", "--no-defaults", "--user=" + user, "--socket=" + db.socket, db.name],
               text.encode())


def fill(n, minutes):
    db.sql("INSERT INTO new_mail SELECT NULL, UTC_TIMESTAMP() - INTERVAL %d MINUTE, '', '', '', '', '',"
           " 'x', 0, '', '', 'r' FROM seq_1_to_%d" % (minutes, n))


fill(2500, 70)
fill(7, 50)
same("purge.sql: loaded with the GRANT it names", as_purge(purge), (0, ""))
ok("purge.sql: the event deletes what is old, and no more", wait(lambda: db.count() == 7, 15), db.count())
same("purge.sql: loaded again", as_purge(purge), (0, ""))
same("purge.sql: without the event", as_purge("DROP EVENT purge_mail"), (0, ""))
cron = re.search(r"mysql mail -e '(.*?)'", purge)[1]
fill(3001, 61)
db.sql("CREATE USER c%s@localhost; GRANT EXECUTE ON PROCEDURE %s.purge_mail TO c%s@localhost"
       % (user, db.name, user))
user, owner = "c" + user, user
same("purge.sql: by cron, as a user who has EXECUTE alone", as_purge(cron), (0, ""))
same("purge.sql: by cron: what is old is gone", db.count(), 7)
ok("purge.sql: who has EXECUTE alone cannot delete", as_purge("DELETE FROM new_mail")[0] != 0)
db.sql("SET GLOBAL event_scheduler=OFF; DROP USER %s@localhost, %s@localhost" % (user, owner))
done()
