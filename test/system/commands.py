#!/usr/bin/env python3
"""What the README tells a newcomer to type, where it is easy and where it is not.

sh test/run in a folder with an odd name, on a full or read-only disk, without a network, without
root, beside a copy of itself, and interrupted at any moment: it works, or says in one sentence what
is wrong, and leaves nothing behind. Arguments choose the tests whose names contain one of them.
"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from live import (DIR, KEPT, ROOT, alive, checked, debootstrap, listening, ok, port, run_tests, same,
                  test, wait)

NOBODY = 65534
# In a chroot / is no mount, whose propagation could be set; what is mounted is unmounted below.
MOUNTS = ("unshare", "-m", "--propagation", "unchanged")


def tree(name, built=True):
    """A copy of the sources, as who unpacks them has it."""
    where = os.path.join(DIR, name)
    shutil.rmtree(where, ignore_errors=True)
    shutil.copytree(ROOT, where, ignore=lambda d, names: [
        n for n in names if n in (".git", ".run", "__pycache__")])
    if not built:
        subprocess.run(["make", "-s", "clean"], cwd=where, check=True)
    return where


def begin(where, *argv, user=0, wrap=(), **env):
    """Starts a script in a session of its own, as at a terminal."""
    def prepare():
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
    env = dict({k: v for k, v in os.environ.items() if not k.startswith("SMTPD_TEST")}, **env)
    return subprocess.Popen(list(wrap) + ["sh"] + list(argv), cwd=where, env=env,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, preexec_fn=prepare)


def end(p, seconds=300):
    out = p.communicate(timeout=seconds)[0]
    return p.returncode, out.decode("utf-8", "replace")


def run(*argv, **more):
    return end(begin(*argv, **more))


def left(where):
    """Processes and sockets that belong to a folder."""
    found = []
    for name in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(name, "rb") as f:
                line = f.read().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if where + "/" in line and ("smtpd" in line or "mariadb" in line):
            found.append(line)
    for name in glob.glob("/tmp/smtpd-db.*"):
        try:
            with open(name + "/of") as f:
                of = f.read()
        except OSError:
            of = ""
        if of.startswith(where + "/"):
            found.append(name)
    return found


def says(what, result, sentence, where=None):
    """It failed with this as its last words, and nothing goes on running."""
    status, text = result
    last = (text.strip().splitlines() or [""])[-1]
    ok(what + ": fails", status not in (0, None) and status < 128, (status, text))
    ok(what + ": says why", re.search(sentence, last), text)
    if where:
        same(what + ": nothing is left", left(where), [])


def serves(what, where, number, **more):
    status, text = run(where, "test/run", PORT=str(number), **more)
    ok(what + ": runs", status == 0 and "Subject: Добрый день" in text, text)
    return listening(number)


@test
def as_the_readme_says(_):
    where, number = tree("plain", built=False), port()
    serves("first", where, number)
    with open(where + "/test/.run/demo/smtpd.pid") as f:
        first = int(f.read())
    serves("again", where, number)
    ok("the first smtpd has ended", not alive(first), first)
    shown = run(where, "test/show", "3")[1]
    ok("subject", re.search("^Subject: .*こんにちは.*مرحبا.*👋", shown, re.M), shown)
    ok("body", re.search("^Русский: съешь", shown, re.M), shown)
    same("two mails", len(re.findall("^Subject", shown, re.M)), 2)
    same("stop", run(where, "test/run", "stop")[0], 0)
    same("nothing is left", left(where), [])
    ok("show says so", run(where, "test/show")[0] != 0)


@test
def odd_names(_):
    """mariadb-install-db would give the first half of such a path to who runs it."""
    half = os.path.join(DIR, "it's")
    shutil.rmtree(half, ignore_errors=True)
    with open(half, "w"):
        pass
    os.chown(half, NOBODY, NOBODY)
    for name in "it's a  tree", "it's/$(touch x) `touch y` \"&; *":
        if os.path.isfile(half) and "/" in name:
            os.unlink(half)
        where, number = tree(name), port()
        ok(name + ": serves", serves(name, where, number))
        status, text = run(where, "test/show", "1")
        ok(name + ": show", status == 0 and "Добрый день" in text, text)
        ok(name + ": nothing but its folder was touched", not os.path.exists(half)
           or os.path.isdir(half) or os.stat(half).st_uid == NOBODY)
        same(name + ": stop", run(where, "test/run", "stop")[0], 0)
        says(name + ": check", run(where, "test/check"), "move it to a folder")
        same(name + ": nothing is left", left(where), [])
    ok("no command in a name was run", not glob.glob(DIR + "/*/[xy]") + glob.glob(DIR + "/[xy]"))


@test
def wrong_port(_):
    where = tree("port", built=False)
    for value in "abc", "0", "65536", "-1", "2525x", " 2525", "99999999999999999999", "1.5":
        says("PORT=" + value, run(where, "test/run", PORT=value), "PORT=.* is no port", where)
    ok("nothing was built for that", not os.path.exists(where + "/smtpd"))
    says("an unknown word", run(where, "test/run", "start"), "usage: ", where)


@test
def port_is_taken(_):
    import socket
    where, number = tree("taken"), port()
    with socket.create_server(("127.0.0.1", number)):
        says("a port in use", run(where, "test/run", PORT=str(number)),
             "port %d is taken" % number, where)


@test
def full_or_read_only(_):
    """On file systems of their own, which only these commands see."""
    where = tree("disk")
    small = DIR + "/small"
    os.makedirs(small, exist_ok=True)
    mount = "mount --make-rprivate / 2>/dev/null; trap 'cd /; umount " + small + "' EXIT; " \
        "mount -t tmpfs -o size=%s none '" + small + "' && cp -R '" + where + "'/. '" + small + \
        "' && cd '" + small + "' && "
    for what, size, before, sentence in (
            ("no room for a database", "30m", "", r"has only \d+ MB free, 200 MB are needed"),
            ("no room at all", "30m", "{ head -c 40m /dev/zero >x; true; } 2>/dev/null; ",
             r"has only \d+ MB free|cannot be written to"),
            ("read-only", "30m", "mount -o remount,ro '%s' && " % small, "cannot be written to")):
        number = str(port())
        result = end(begin(DIR, "-c", mount % size + before + "sh test/run",
                           wrap=MOUNTS, PORT=number))
        says(what, result, sentence, small)
    # It fills while it runs: a database that is there already, but has no room to start.
    number = str(port())
    script = (mount % "400m" + "sh test/run >/dev/null && sh test/run stop && "
              "{ head -c 500m /dev/zero >x; : >y; dd if=/dev/null of=x bs=1M "
              "seek=$(($(stat -c %s x) / 1048576 - 6)); } 2>/dev/null; sh test/run")
    says("6 MB left", end(begin(DIR, "-c", script, wrap=MOUNTS, PORT=number)),
         "could not|cannot|does not start|failed|was not taken|free", small)


@test
def other_user(_):
    where, number = tree("users"), port()
    os.chmod(DIR, 0o755)
    ok("root's: serves", serves("root's", where, number))
    says("then a user, whose folder it is not", run(where, "test/run", user=NOBODY,
                                                    PORT=str(port())), "was made by root")
    subprocess.run(["chown", "-R", "%d:%d" % (NOBODY, NOBODY), where], check=True)
    subprocess.run(["chown", "-R", "0:0", where + "/test/.run"], check=True)
    says("then a user, whose folder it is", run(where, "test/run", user=NOBODY, PORT=str(port())),
         "was made by root")
    says("who would stop it", run(where, "test/run", "stop", user=NOBODY), "was made by root")
    ok("it goes on", listening(number))
    same("root stops it", run(where, "test/run", "stop")[0], 0)
    shutil.rmtree(where + "/test/.run")
    ok("the user's own: serves", serves("the user's own", where, number, user=NOBODY))
    says("then root", run(where, "test/run", PORT=str(port())), "was made by nobody")
    ok("the user's goes on", listening(number))
    same("the user stops it", run(where, "test/run", "stop", user=NOBODY)[0], 0)
    same("nothing is left", left(where), [])
    shutil.rmtree(where + "/test/.run")
    subprocess.run(["chown", "-R", "0:0", where], check=True)
    says("not to be written to", run(where, "test/run", user=NOBODY, PORT=str(port())),
         "cannot be written to", where)


@test
def second_copy(_):
    where, number, other = tree("copy"), port(), port()
    ok("serves", serves("first", where, number))
    second = where + ".second"
    shutil.rmtree(second, ignore_errors=True)
    subprocess.run(["cp", "-R", where, second], check=True)
    result = run(second, "test/run", PORT=str(number))
    says("the second on the same port", result, "port %d is taken" % number, second)
    ok("and nothing of what the first replied", "OK" not in result[1], result[1])
    ok("the first goes on", listening(number))
    ok("the second on another: serves", serves("second", second, other))
    ok("the first goes on", listening(number))
    same("the second stops", run(second, "test/run", "stop")[0], 0)
    same("nothing is left of it", left(second), [])
    ok("the first goes on", listening(number))
    status, text = run(where, "test/show", "1")
    ok("with its database", status == 0 and "Добрый день" in text, text)
    same("the first stops", run(where, "test/run", "stop")[0], 0)
    same("nothing is left", left(where), [])


@test
def interrupted(_):
    """Ctrl-C goes to all processes of the terminal, kill to one."""
    where = tree("timed")
    for _ in range(2):                  # the second does not build any more
        shutil.rmtree(where + "/test/.run", ignore_errors=True)
        began = time.monotonic()
        run(where, "test/run", PORT=str(port()))
        whole = time.monotonic() - began
        run(where, "test/run", "stop")
    where = tree("interrupted")
    came = 0
    for sig, to_all, parts in ((signal.SIGINT, True, (0.01, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1)),
                               (signal.SIGTERM, False, (0.05, 0.35, 0.75)),
                               (signal.SIGHUP, True, (0.3, 0.6))):
        for delay in [part * whole for part in parts]:
            shutil.rmtree(where + "/test/.run", ignore_errors=True)
            p = begin(where, "test/run", PORT=str(port()))
            time.sleep(delay)
            (os.killpg if to_all else os.kill)(p.pid, sig)
            status, text = end(p)
            what = "%s after %.2f s" % (sig.name, delay)
            if status == 0 and "Stop both" in text:     # it was faster
                run(where, "test/run", "stop")
                continue
            came += 1
            ok(what + ": fails", status != 0, text)
            same(what + ": nothing is left", left(where), [])
            ok(what + ": no half-made database", not os.path.exists(where + "/test/.run/demo/data")
               or os.path.exists(where + "/test/.run/demo/data/mysql"))
    ok("often in time", came >= 5, came)
    number = port()
    ok("and it runs after all that", serves("after all", where, number))
    run(where, "test/run", "stop")


# -- a machine that has nothing: a minimal system in namespaces of its own

def sh(script, *argv):
    return checked(["sh", "-ec", script, "sh"] + list(argv), seconds=90)


def minimal():
    """Unpacked by debootstrap once; a copy of that."""
    where, kept = os.path.join(DIR, "minimal"), os.path.join(KEPT, "minimal.tar")
    if not os.path.exists(kept):
        os.makedirs(KEPT, exist_ok=True)
        shutil.rmtree(where, ignore_errors=True)
        debootstrap(where)
        sh('tar -C "$1" -cf "$2.new" .; mv "$2.new" "$2"', where, kept)
    sh('rm -rf "$1"; mkdir -p "$1"; tar -C "$1" -xf "$2"; cp /etc/resolv.conf "$1/etc/"; '
       'rm -rf "$1/smtpd"; cp -R "$3" "$1/smtpd"', where, kept, tree("fresh", built=False))
    return where


def inside(root, command, *unshare, user=0):
    """A shell in it, the first of the processes it sees; last it tells which are left."""
    become = "setpriv --reuid=%d --regid=%d --clear-groups " % (user, user) if user else ""
    return begin(root, "-c", 'mount --make-rprivate / 2>/dev/null; mount -t proc proc proc; '
                 'chroot . env -i HOME=/tmp '
                 'PATH=/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin ' + become + 'sh -c "$0"; '
                 'status=$?; trap "" INT TERM HUP; for p in proc/[0-9]*; do '
                 '[ "$p" = proc/1 ] || tr "\\0" " " <"$p/cmdline"; done 2>/dev/null; '
                 'umount -l proc; exit $status',
                 command, wrap=MOUNTS + ("-p", "-f") + unshare)


OFF = "exec sh /smtpd/test/run"


@test
def machine_that_has_nothing(_):
    root = minimal()
    policy = root + "/usr/sbin/policy-rc.d"
    left_behind = ("#!/bin/sh\n"
                   "# made by test/lib.sh of smtpd, for as long as this process is there: 999999\n"
                   "kill -0 999999 2>/dev/null || exit 0\nexit 101\n")

    def put(text):
        with open(policy, "w") as f:
            f.write(text)
        os.chmod(policy, 0o755)

    sh('chown -R %d:%d "$1/smtpd"' % (NOBODY, NOBODY), root)
    result = end(inside(root, OFF, user=NOBODY))
    says("not root, no sudo", result, "please run once, as root: sh /smtpd/test/run install$")
    says("no network", end(inside(root, OFF, "-n")), "could not be installed:.*network")
    ok("no policy-rc.d stays", not os.path.exists(policy))

    p = inside(root, OFF)
    ok("it downloads", wait(lambda: glob.glob(root + "/tmp/smtpd-install.*"), 60))
    time.sleep(1)
    os.killpg(p.pid, signal.SIGINT)
    status, text = end(p)
    ok("Ctrl-C while it downloads", status != 0 and not os.path.exists(policy), (status, text))

    put(left_behind)
    same("one that was left has no effect", sh('chroot "$1" /usr/sbin/policy-rc.d; echo $?', root),
         "0\n")
    p = inside(root, OFF)
    ok("it is taken away", wait(lambda: not os.path.exists(policy), 60))
    if not ok("another while packages are installed", wait(lambda: os.path.exists(policy), 300)):
        p.kill()
    time.sleep(2)
    os.killpg(p.pid, signal.SIGINT)
    status, text = end(p)
    ok("Ctrl-C then", status == 130 and "as soon as the package manager has" in text,
       (status, text))
    ok("no policy-rc.d stays", not os.path.exists(policy))
    same("no package is half installed", sh('chroot "$1" dpkg --audit', root), "")

    put("#!/bin/sh\n# not ours\nexit 101\n")
    sh('chroot "$1" apt-get install -qq -y --no-install-recommends sudo', root)
    sh('chroot "$1" mv /usr/bin/curl /usr/bin/curl.away', root)
    result = end(inside(root, "cd /smtpd; exec sh test/run", user=NOBODY))
    says("not root, sudo wants a password", result, "please run once: sudo sh test/run install$")
    sh('chroot "$1" mv /usr/bin/curl.away /usr/bin/curl', root)
    status, text = end(inside(root, "sh /smtpd/test/run install", user=0))
    same("installed by root", (status, text.strip().splitlines()[-1]),
         (0, "== All that sh /smtpd/test/run needs is here"))
    # On another port: who follows the README has one of these on the usual port.
    status, text = end(inside(root, "PORT=%d sh /smtpd/test/run && sh /smtpd/test/run stop" % port(),
                              user=NOBODY))
    ok("a user runs and stops it", status == 0 and "Добрый день" in text, text)
    same("nothing is left", text.strip().splitlines()[-1],
         "== Stopped. The mails stay in /smtpd/test/.run/demo/data.")
    with open(policy) as f:
        ok("who has a policy-rc.d keeps it", "not ours" in f.read())
    shutil.rmtree(root)


def main():
    os.makedirs(DIR, exist_ok=True)
    run_tests(None)


main()
