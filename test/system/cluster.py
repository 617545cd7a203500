#!/usr/bin/env python3
"""The ledger of torture.py against three Galera nodes, all of them in MYSQL_HOST.

	python3 test/system/cluster.py [--short] [-v]

Nodes are killed, stopped and restarted one after the other under load; in the
end every node has exactly the mails that were acknowledged.
"""
import atexit
import getpass
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import torture		# first: it says which ports
from torture import live, ok, same, seconds

NODES = 3
USER = "mysql" if os.geteuid() == 0 else getpass.getuser()
GAP = 15		# seconds that no mail may be acknowledged, at most


class Node(torture.Mariadb):
    """One of them; everything but its ports is as alike as can be."""

    def __init__(self, place, number, ports, provider):
        self.number, self.ports, self.provider = number, ports, provider
        self.port, self.group = ports[number][:2]
        self.data = "%s/node%d" % (place, number)
        self.log = os.path.join(live.DIR, "node%d.log" % number)
        self.name = "mail"
        self.socket = self.data + ".sock"
        self.process = None
        os.mkdir(self.data + ".tmp")
        if USER == "mysql":
            shutil.chown(self.data + ".tmp", USER)
        # Its own: a mariadbd that starts deletes what others have in theirs.
        self.environment = dict(os.environ, TMPDIR=self.data + ".tmp")
        with open(self.log, "wb") as out:
            subprocess.run(
                ["mariadb-install-db", "--no-defaults", "--force", "--user=" + USER, "--datadir=" + self.data,
                 "--auth-root-authentication-method=normal", "--skip-test-db"],
                stdout=out, stderr=out, check=True, env=self.environment)

    def up(self, *options):
        port, group, ist, sst = self.ports[self.number]
        peers = ",".join("127.0.0.1:%d" % p[1] for p in self.ports)
        self.options = options
        self.process = live.start(
            ["mariadbd", "--no-defaults", "--user=" + USER, "--datadir=" + self.data,
             "--socket=" + self.socket, "--pid-file=" + self.data + "/pid",
             "--bind-address=127.0.0.1", "--port=%d" % port, "--skip-name-resolve",
             "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M",
             "--max-allowed-packet=64M", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
             "--wsrep-on=ON", "--wsrep-provider=" + self.provider,
             "--wsrep-cluster-name=smtpd", "--wsrep-cluster-address=gcomm://" + peers,
             "--wsrep-node-name=node%d" % self.number,
             "--wsrep-node-address=127.0.0.1:%d" % group,
             "--wsrep-sst-method=rsync", "--wsrep-sst-receive-address=127.0.0.1:%d" % sst,
             "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:%d;"
             "ist.recv_addr=127.0.0.1:%d;pc.recovery=false;evs.keepalive_period=PT0.5S;"
             "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S;evs.install_timeout=PT5S"
             % (group, ist)] + list(options), self.log, env=self.environment)

    def view(self):
        """The number of the cluster's composition it knows, where it can be used; else None."""
        try:
            out = self.sql("SHOW STATUS WHERE Variable_name IN ('wsrep_local_state_comment',"
                           "'wsrep_ready','wsrep_cluster_conf_id')", "mysql").decode()
        except RuntimeError:
            return None
        values = dict(line.split("\t") for line in out.splitlines())
        return values.get("wsrep_cluster_conf_id") if values.get("wsrep_ready") == "ON" and \
            values.get("wsrep_local_state_comment") == "Synced" else None

    def wait(self):
        for _ in range(3):	# Galera fails to start a thread now and then
            live.wait(lambda: self.view() or self.process.poll() is not None, 120)
            if self.process.poll() is None:
                break
            self.down()
            self.up(*self.options)
        if not self.view():
            raise SystemExit("node does not join, see " + self.log)

    def in_use(self):
        try:
            return int(self.sql("SELECT COUNT(*) FROM information_schema.PROCESSLIST "
                                "WHERE USER='smtpd'", "mysql"))
        except RuntimeError:
            return 0


class Cluster:
    """What torture.Rig wants of a database."""

    def __init__(self):
        self.socket = "127.0.0.1:0"	# never used: MYSQL_HOST is given
        self.name = "mail"
        provider = (glob.glob("/usr/lib*/galera*/libgalera_smm.so") +
                    glob.glob("/usr/lib/*/galera*/libgalera_smm.so") + [""])[0]
        if not provider:
            raise SystemExit("libgalera_smm.so not found: install galera-4")
        ports = [[live.port() for _ in range(4)] for _ in range(NODES)]
        os.makedirs(live.DIR, exist_ok=True)
        # Not under a home that others cannot enter: rsync, which brings a node up to date, is
        # nobody where it is started by root, so the nodes are mysql instead.
        self.place = tempfile.mkdtemp(prefix="smtpd-cluster-")
        atexit.register(shutil.rmtree, self.place, True)
        atexit.register(live.stop_all)	# before it: what is registered last comes first
        if USER == "mysql":
            shutil.chown(self.place, USER)
        os.chmod(self.place, 0o755)
        self.nodes = [Node(self.place, n, ports, provider) for n in range(NODES)]
        self.nodes[0].up("--wsrep-new-cluster")
        self.nodes[0].wait()
        self.nodes[0].options = ()
        for node in self.nodes[1:]:
            node.up()
            node.wait()
        self.sql("CREATE DATABASE mail; CREATE USER smtpd@127.0.0.1 IDENTIFIED BY 'secret'",
                 "mysql")
        with open(os.path.join(live.ROOT, "schema.sql"), "rb") as f:
            self.nodes[0].client(self.name, f.read())
        self.sql("GRANT INSERT, SELECT ON mail.new_mail TO smtpd@127.0.0.1")
        self.hosts = ",".join("127.0.0.1:%d" % node.port for node in self.nodes)

    def sql(self, text, database=None):
        return self.nodes[0].sql(text, database)

    def pings(self):
        return True

    def whole(self):
        """All are there, and all know it: one that was stopped does not at first."""
        return len({node.view() or node for node in self.nodes}) == 1

    def empty(self):
        self.sql("TRUNCATE new_mail")

    def busiest(self):
        return max(self.nodes, key=Node.in_use)

    def end(self):
        for node in self.nodes:
            node.down()


# ---- faults ----

def nothing(rig):
    time.sleep(seconds(2, 10))


def kill_node(rig):
    """kill -9 the one in use, twice."""
    for _ in range(2):
        node = rig.db.busiest()
        node.down(signal.SIGKILL)
        time.sleep(seconds(4, 15))
        node.up()
        node.wait()


def sigstop_node(rig):
    """The one in use hangs; the others put it out of the cluster, later it comes back."""
    node = rig.db.busiest()
    node.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds(10, 20))
    finally:
        node.process.send_signal(signal.SIGCONT)
    live.wait(lambda: rig.db.whole() or node.process.poll() is not None, 60)
    if node.process.poll() is not None:	# it may give up on catching up; systemd would do this
        print("     the node ended when it came back, and is started again")
        node.down()
        node.up()
        node.wait()


def rolling_restart(rig):
    for node in rig.db.nodes:
        node.down()
        time.sleep(seconds(1, 3))
        node.up()
        node.wait()
        time.sleep(seconds(1, 3))


def alike(rig):
    """All nodes have the same, before it is compared with the ledger."""
    ok("all nodes are back", live.wait(rig.db.whole, 60))
    sums = [node.sql("SET wsrep_sync_wait=15; SELECT COUNT(*), BIT_XOR(CAST(CONV(LEFT(SHA1(CONCAT("
                     "mail_id, recipient, mail)), 16), 16, 10) AS UNSIGNED)) FROM new_mail")
            for node in rig.db.nodes]
    same("all nodes have the same", len(set(sums)), 1)


def main():
    rig = torture.Rig()
    rig.db = Cluster()
    rig.start_server(MYSQL_HOST=rig.db.hosts)
    print(torture.Rig.HEAD + "  longest without a 250")
    for name, fault in (("cluster, no fault", nothing), ("kill -9 node, twice", kill_node),
                        ("SIGSTOP node", sigstop_node), ("rolling restart", rolling_restart)):
        began = time.monotonic()
        rig.run(name, fault, alike, sizes=[1000, 4000, 4000, 20000, 100000])
        times = sorted([began] + rig.load.acks)
        gap = max(b - a for a, b in zip(times, times[1:]))
        print("%110.1f s" % gap)
        ok(name + ": 451 at worst for seconds", gap < GAP, gap)
    rig.server.stop()
    rig.db.end()
    live.done()


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
