#!/usr/bin/env python3
"""Every command of the README does what it says there, in the order in which it stands.

It is taken from the README to the letter; only folders, the port and the database server are this
script's own. A command that stands in the README and is tried neither here nor by the suite that
ELSEWHERE names is a failure, and so is one here that the README does not have.
"""
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
from live import (DIR, KEPT, ROOT, Database, alive, children, deliver, done, gone, listening, ok, port,
                  run, same, session, start, started, stop, wait)

with open(os.path.join(ROOT, "README"), encoding="utf-8") as f:
    README = f.read()
BLOCK = re.compile(r"(?:^    .*\n)+", re.M)
COMMAND = re.compile(r"    (sh|make|mysql|nohup|cp|install|kill|setcap|sed|systemctl|curl|smtpd|awk)( |$)")
ELSEWHERE = {
    "sh test/run": "commands", "sh test/check": "the check itself", "make torture": "torture",
    "make test-cluster": "make test-cluster", "make fuzz": "make fuzz", "make bench": "make bench",
    "make ports": "make ports", "sh test/bench/": "make bench", "sh test/ports": "make ports",
    "smtpd [-p port]": "e2e", "smtpd.php ": "a table, no command", "make simulate": "simulate",
}
used = set()
where = port()
usr, etc, var = (os.path.join(DIR, name) for name in ("usr", "etc", "var"))
for name in usr, etc, var, os.path.join(DIR, "bin"):
    shutil.rmtree(name, ignore_errors=True)
for name in (etc + "/systemd/system", etc + "/logrotate.d", var + "/log", var + "/run", DIR + "/bin"):
    os.makedirs(name)
FOLDERS = [("/usr/local", usr), ("/etc/", etc + "/"), ("/var/log/", var + "/log/"),
           ("/run/smtpd.pid", var + "/run/smtpd.pid"), ("smtp://127.0.0.1", "smtp://127.0.0.1:%d" % where)]


def readme(text):
    """The README says so: as lines of a block, to the letter."""
    lines = "".join("    %s\n" % l if l else "\n" for l in text.splitlines())
    ok("the README has: %.60s" % text, lines in README, text)
    used.update(lines.splitlines())
    return text


def moved(text):
    for a, b in FOLDERS:
        text = text.replace(a, b)
    return text


def shell(text, **env):
    """A command of the README, typed."""
    return run(["sh", "-c", moved(readme(text))], cwd=ROOT, env=dict(env0, **env))


def works(text, **env):
    code, said = shell(text, **env)
    return ok("it works: %.60s" % text, code == 0, (code, said)) and said


def tool(name, text):
    """A program that stands in the way of the real one, to lead it to this script's own."""
    with open(os.path.join(DIR, "bin", name), "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(f.name, 0o755)


db = Database()
db.sql("DROP DATABASE IF EXISTS mail; DROP USER IF EXISTS smtpd@localhost, reader@localhost")
tool("mysql", 'exec mariadb --no-defaults --user=root --socket=%s "$@"\n' % db.socket)
tool("systemctl", 'echo "$*" >>%s/systemctl\n' % DIR)
env0 = {"PATH": "%s/bin:%s/sbin:%s" % (DIR, usr, os.environ["PATH"]), "HOME": DIR, "LC_ALL": "C.UTF-8",
        "GSMTP_LISTEN": "127.0.0.1:%d" % where}

# -- Production, step by step

works("make")
code, said = run(["make", "-s", "-C", ROOT, readme("make install").split()[1], "PREFIX=" + usr])
ok("it works: make install", code == 0, said)
works("install -m 600 /usr/local/share/smtpd/smtpd.conf /etc/smtpd.conf")
settings = readme("GM_ALLOWED_HOSTS=example.org,*.example.org\nGSMTP_CHECK_HEADER=0\nMYSQL_USER=smtpd\n"
                  "MYSQL_PASS=secret")
with open(etc + "/smtpd.conf") as f:
    text = f.read()
for line in settings.splitlines():
    text = re.sub(r"(?m)^#%s=.*" % line.split("=")[0], line, text)
text = text.replace("#MYSQL_HOST=localhost", "MYSQL_HOST=" + db.socket)
with open(etc + "/smtpd.conf", "w") as f:
    f.write(text)
same("the mode of smtpd.conf", os.stat(etc + "/smtpd.conf").st_mode & 0o777, 0o600)
works('mysql -e "CREATE DATABASE mail CHARACTER SET utf8mb4"')
works("mysql mail < /usr/local/share/smtpd/schema.sql")
works("mysql -e \"CREATE USER smtpd@localhost IDENTIFIED BY 'secret'\"")
works('mysql -e "GRANT INSERT, SELECT ON mail.new_mail TO smtpd@localhost"')
# /etc/smtpd.conf is what smtpd reads without -c: where that is another here, -c stands for it.
readme("smtpd -t")
conf = ["-c", etc + "/smtpd.conf"]
code, said = run(["smtpd", "-t"] + conf, env=env0)
ok("smtpd -t: ok is its last word", code == 0 and said.endswith("# ok\n"), said)
ok("smtpd -t: no warning", "warning" not in said, said)
works("mysql mail < /usr/local/share/smtpd/purge.sql")
works("cp /usr/local/share/smtpd/smtpd.service /etc/systemd/system/")
works("systemctl enable --now smtpd")
ok("the unit is where systemd looks for that name", os.path.exists(etc + "/systemd/system/smtpd.service"))
works("cp /usr/local/share/smtpd/smtpd.logrotate /etc/logrotate.d/smtpd")
works("mysql -e \"CREATE USER reader@localhost IDENTIFIED BY 'secret'\"")
works('mysql -e "GRANT SELECT ON mail.new_mail TO reader@localhost"')
nohup = readme("nohup smtpd -l /var/log/smtpd.log & echo $! >/run/smtpd.pid")
nohup = moved(nohup).replace("smtpd -l", "smtpd %s -l" % " ".join(conf), 1)
pid = None


def up(text=nohup):
    global pid
    # As its child, so that it can be waited for; nohup's & and $! are the shell's own.
    subprocess.run(["sh", "-c", text], env=env0, cwd=DIR, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ok("smtpd listens", wait(lambda: listening(where)))
    with open(var + "/run/smtpd.pid") as f:
        pid = int(f.read())


class Detached:
    """What live.py ends at the latest."""

    def __init__(self):
        self.pid = pid

    def poll(self):
        return None if alive(pid) else 0

    def send_signal(self, sig):
        os.kill(pid, sig)

    def wait(self, seconds=None):
        if not gone([pid], seconds or 30):
            raise subprocess.TimeoutExpired("smtpd", seconds)
        return 0

    def kill(self):
        os.kill(pid, 9)


up()
started.append(Detached())
with open("/proc/%d/cmdline" % pid, "rb") as f:
    ok("$! is smtpd, nohup became it", b"smtpd" in f.read().split(b"\0")[0])
works("curl smtp://127.0.0.1 --mail-from me@example.org --mail-rcpt you@example.org -T test/demo.eml")
same("its row", db.sql("SELECT COUNT(*) FROM new_mail", "mail"), b"1\n")
db.sql("UPDATE new_mail SET `to`='you@example.org'", "mail")
for host in "bücher.example", "xn--bcher-kva.example":
    ok("the README has " + host, host in README)
for line in re.findall(r"(?m)^GM_ALLOWED_HOSTS.*", text):
    with open(etc + "/idn.conf", "w") as f:
        f.write(text.replace(line, "GM_ALLOWED_HOSTS=bücher.example"))
os.chmod(etc + "/idn.conf", 0o600)
idn = port()
p = start(["smtpd", "-c", etc + "/idn.conf", "-l", var + "/log/idn"],
          env=dict(env0, GSMTP_LISTEN="127.0.0.1:%d" % idn), cwd=DIR)
wait(lambda: listening(idn))
c = session(idn, "MAIL FROM:<a@b.example> SMTPUTF8")
same("bücher.example means both", c.codes("RCPT TO:<a@xn--bcher-kva.example>", "RCPT TO:<a@bücher.example>"),
     [250, 250])
c.close()
stop(p)

# -- the log, and what watches it

counters = ('kill -USR1 $(cat /run/smtpd.pid); sleep 1\n'
            "awk '/ counters / { n = split($0, f) } END { for (i = 5; i <= n; i++) {\n"
            '    split(f[i], v, "="); print "smtpd_" v[1], v[2] + 0 } }\' /var/log/smtpd.log')
said = works(counters) or ""
ok("Prometheus: lines of name and number", re.fullmatch(r"(smtpd_[a-z_]+ \d+(\.\d+)?\n)+", said), said)
found = dict(l.split() for l in said.splitlines())
ok("Prometheus: a mail has been counted", found.get("smtpd_mails") == "1", said)
alarms = re.search(r"What is worth an alarm:\n\n((?:    .*\n)+)", README)[1]
for name in re.findall(r"(?m)^    (\w+) (?:grows|jumps|stands|near|falls)", alarms):
    ok("what to alarm on is counted: " + name, "smtpd_" + name in found, said)
for name in set(re.findall(r"\b(GSMTP_[A-Z_]+|MYSQL_[A-Z_]+|MAX_SMTP_CLIENTS|GM_[A-Z_]+)\b", README)) - {
        "MYSQL_CFLAGS", "MYSQL_LIBS", "GSMTP_VERIFY_USERS"}:
    ok("a setting that there is: " + name, re.search(r"(?m)^#%s=|^%s=" % (name, name), text), name)

# -- the applications

EXAMPLES = {"php": "<?php", "node": "const mysql", "python": "import sys, pymysql"}
blocks = re.findall(r"(?:^    .*\n)+", README, re.M)
for name, first in EXAMPLES.items():
    code = next(b for b in blocks if b.startswith("    " + first))
    code = re.sub("(?m)^    ", "", code)
    ok(name + ": some ten lines", len(code.splitlines()) <= 11)
    code = code.replace("host=localhost", "unix_socket=" + db.socket)
    code = code.replace("host: 'localhost'", "socketPath: '%s'" % db.socket)
    code = code.replace('host="localhost"', 'unix_socket="%s"' % db.socket)
    file = os.path.join(DIR, "newest-" + name)
    with open(file, "w") as f:
        f.write(code)
    runner = {"php": ["php"], "node": ["node"], "python": ["/usr/bin/python3"]}[name]
    said = run(runner + [file, "You@Example.ORG"], env=dict(env0, NODE_PATH=KEPT + "/mysql2/node_modules"))
    ok(name + ": finds the mail", said[0] == 0 and len(said[1].splitlines()) == 1, said)
    subject = db.sql("SELECT subject FROM new_mail", "mail").decode().strip()
    ok(name + ": its subject, in UTF-8", subject in said[1], (said, subject))
    date = db.sql("SELECT DATE_FORMAT(date, '%Y-%m-%d~%H:%i:%s') FROM new_mail", "mail").decode().strip()
    ok(name + ": its date, in UTC", date in said[1].replace(" ", "~", 1).replace("T", "~", 1), (said, date))

# -- test/show -f

shown = os.path.join(DIR, "shown")
if os.path.exists(shown):
    os.unlink(shown)
p = start(["sh", os.path.join(ROOT, "test", "show"), "-f", "1", "--no-defaults", "--user=root",
           "--socket=" + db.socket, "mail"], stdout=shown, env=env0, start_new_session=True)


def says(words):
    with open(shown, encoding="utf-8") as f:
        return f.read().count(words)


ok("test/show -f: the newest", wait(lambda: says("Subject:") == 1))
for n in range(3):
    db.sql("INSERT INTO new_mail SELECT NULL, UTC_TIMESTAMP(), '', '', 'new %d', 'text', '', 'x', 0, '',"
           " 'text/plain', 'r'" % n, "mail")
    ok("test/show -f: what comes", wait(lambda: says("Subject: new %d" % n) == 1, 15))
late = db.hold("USE mail; BEGIN; INSERT INTO new_mail SELECT NULL, UTC_TIMESTAMP(), '', '', 'late', 'text',"
               " '', 'x', 0, '', 'text/plain', 'r';")
db.sql("INSERT INTO new_mail SELECT NULL, UTC_TIMESTAMP(), '', '', 'next', 'text', '', 'x', 0, '',"
       " 'text/plain', 'r'", "mail")
ok("test/show -f: what comes beside a transaction", wait(lambda: says("Subject: next") == 1, 15))
db.release(late, "COMMIT;")
ok("test/show -f: what was committed later", wait(lambda: says("Subject: late") == 1, 15))
same("test/show -f: each once", says("Subject:"), 6)
pids = children(p.pid)
os.killpg(p.pid, 2)     # as Ctrl-C does
same("test/show -f: ends with Ctrl-C", wait(lambda: p.poll() is not None, 5), True)
ok("test/show -f: nothing goes on", pids and gone(pids), pids)

# -- a table that is there already, changed over while mail comes

db.sql("DROP EVENT purge_mail; ALTER TABLE new_mail MODIFY subject varchar(255) NOT NULL", "mail")
c = session(where)
codes = []


def mail():
    codes.append(deliver(c, b"Subject: over\r\n\r\nx\r\n", ["b@example.org"])[0])


db.sql("ALTER TABLE new_mail MODIFY subject text NOT NULL", "mail")
for command in ("sed s/new_mail/next_mail/g /usr/local/share/smtpd/schema.sql | mysql mail",
                'mysql mail -e "ALTER TABLE next_mail AUTO_INCREMENT=1000000000"',
                'mysql mail -e "RENAME TABLE new_mail TO old_mail, next_mail TO new_mail"'):
    mail()
    works(command)
    mail()
same("changing tables over: every mail is taken at once", codes, [250] * 6)
same("changing tables over: every row is in one of them", db.sql(
    "SELECT SUM(subject='over') FROM (SELECT subject FROM new_mail UNION ALL SELECT subject FROM old_mail) x",
    "mail"), b"6\n")
same("changing tables over: ids go on", db.sql("SELECT MIN(mail_id) FROM new_mail", "mail"), b"1000000000\n")
c.close()

# -- haproxy, and a user that is not root

servers = readme("server mx1 10.0.1.1:25 check send-proxy\nserver mx2 10.0.1.2:25 check send-proxy")
with open(os.path.join(DIR, "haproxy.cfg"), "w") as f:
    f.write("defaults\n timeout connect 5s\n timeout client 5m\n timeout server 5m\nlisten smtp\n"
            " bind 127.0.0.1:%d\n mode tcp\n" % port() + servers + "\n")
code, said = run(["haproxy", "-c", "-f", f.name])
ok("haproxy takes its two lines", code == 0, said)
if os.getuid() == 0:
    works("setcap cap_net_bind_service=+ep /usr/local/sbin/smtpd")
    own = os.path.join(DIR, "own")
    os.makedirs(own, exist_ok=True)
    os.chmod(own, 0o777)
    address = "127.0.26.%d" % (os.getpid() % 250 + 1)
    env = dict(env0, GSMTP_LISTEN=address, MYSQL_HOST=db.socket, GM_ALLOWED_HOSTS="example.org", MYSQL_USER="smtpd",
               MYSQL_PASS="secret")
    p = start(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", usr + "/sbin/smtpd", "-c", "/dev/null",
               "-l", own + "/log"], env=env, cwd=own)
    ok("setcap: port 25 without root", wait(lambda: listening(25, address)), open(own + "/log").read()
       if os.path.exists(own + "/log") else "")
    same("setcap: ends", stop(p), 0)

# -- TLS to the database, by the option file

secret = os.path.join(DIR, "secret")
os.makedirs(secret, exist_ok=True)
option = readme("[smtpd]\nssl-ca=/etc/ssl/certs/database.pem\nssl-verify-server-cert")
run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext",
     "subjectAltName=DNS:localhost,IP:127.0.0.1", "-newkey", "rsa:2048", "-keyout", secret + "/key",
     "-out", secret + "/cert"])
data, number = os.path.join(DIR, "tls"), port()
shutil.rmtree(data, ignore_errors=True)
run(["mariadb-install-db", "--no-defaults", "--force", "--user=root", "--datadir=" + data, "--skip-test-db",
     "--auth-root-authentication-method=normal"])
place = "/tmp/smtpd-tls-%d.sock" % os.getpid()
server = start(["mariadbd", "--no-defaults", "--user=root", "--datadir=" + data, "--socket=" + place, "--port=%d" % number,
                "--bind-address=127.0.0.1", "--ssl-cert=" + secret + "/cert", "--ssl-key=" + secret + "/key",
                "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"], os.path.join(DIR, "tls.err"))
wait(lambda: listening(number), 60)
with open(os.path.join(ROOT, "schema.sql")) as f:
    schema = f.read()
subprocess.run(["mariadb", "--no-defaults", "--user=root", "--socket=" + place], check=True, input=(
    "CREATE DATABASE mail; USE mail; " + schema + "CREATE USER smtpd@'%' IDENTIFIED BY 'secret' REQUIRE SSL;"
    "GRANT INSERT, SELECT ON mail.new_mail TO smtpd@'%';").encode())


def tls(options):
    with open(os.path.join(DIR, ".my.cnf"), "w") as f:
        f.write(options)
    code, said = run(["smtpd", "-t"] + conf, env=dict(env0, MYSQL_HOST="127.0.0.1:%d" % number))
    return code, said.splitlines()[-1:]


same("TLS to the database, by the option file", tls(option.replace("/etc/ssl/certs/database.pem", secret + "/cert")),
     (0, ["# ok"]))
ok("TLS to the database: a certificate that nobody vouches for is refused", tls(
    option.replace("/etc/ssl/certs/database.pem", "/etc/ssl/certs/ca-certificates.crt"))[0] == 1)
ok("TLS to the database: without the option file it is refused", tls("[smtpd]\n")[0] == 1)
stop(server)
shutil.rmtree(data, ignore_errors=True)

# -- where to start reading: each function that is named is there

source = {}
for name in "smtpd.c", "db.c", "mime.c":
    with open(os.path.join(ROOT, name)) as f:
        source[name] = set(re.findall(r"^(?:[a-z].*[ \t*])?([a-z_]+)\(", f.read(), re.M))
picture, table = re.search(r"(?s)The way of a mail.*?:\n\n(.*?)\n\nEach worker.*function by function:\n\n(.*?)\n\n",
                           README).groups()
every = set().union(*source.values())
for line in picture.splitlines():
    for name in re.findall(r"[a-z_]+", line[39:]) if "---" not in line else []:
        if name != "after":
            ok("the picture: there is " + name, name in every, line)
for line in table.splitlines()[1:]:
    file = line[49:57].strip() or file
    for name in re.findall(r"[a-z_]+", line[26:49]):
        ok("the table: %s is in %s" % (name, file), name in source[file], line)
for name in "worker_loop", "wait_for_work", "serve", "results", "master_loop", "db_done":
    ok("the README has " + name, re.search(r"\b%s\b" % name, README))
    ok("there is " + name, name in every)

# -- the end

same("TERM ends what nohup started", stop(next(p for p in started if isinstance(p, Detached))), 0)
db.sql("DROP DATABASE mail; DROP USER smtpd@localhost, reader@localhost")
for line in README.splitlines():
    if COMMAND.match(line) and line not in used:
        ok("a command that is tried: " + line.strip(), any(
            line.strip().startswith(e) for e in ELSEWHERE), line)
done()
