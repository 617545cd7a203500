# test/lib.sh - what the scripts beside it share; to be sourced by them, in plain sh
#
# Everything they start is private: a MariaDB on a Unix socket with its data
# under test/.run, smtpd on loopback, each ended by its own process id.

root=$(CDPATH= cd "$(dirname "$0")/.." && pwd) || exit 1
here=$root/test
demo=${SMTPD_TEST_DIR:-$here/.run/demo}	# where test/run keeps its database
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin

say() { echo "== $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# Installing what is missing

has() {		# tool
	case $1 in
	mysql.h) has mariadb_config || has mysql_config ||
		pkg-config --exists libmariadb 2>/dev/null || pkg-config --exists mysqlclient 2>/dev/null ;;
	swaks) command -v swaks >/dev/null && perl -MNet::SSLeay -e 1 2>/dev/null ;;
	fuzzer) echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null ;;
	galera) [ -n "$(find /usr/lib* -name libgalera_smm.so 2>/dev/null | head -n 1)" ] ;;
	openssl.h) echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

package() {	# manager tool: the packages that bring it
	case $1:$2 in
	apt-get:cc)		echo gcc libc6-dev ;;
	apk:cc)			echo gcc musl-dev ;;
	*:cc)			echo gcc ;;
	apt-get:mysql.h)	echo libmariadb-dev ;;
	apk:mysql.h)		echo mariadb-connector-c-dev ;;
	dnf:mysql.h)		echo mariadb-connector-c-devel ;;
	*:mysql.h)		echo mariadb-connector-c ;;
	apt-get:mariadbd)	apt-cache show mariadb-server-core >/dev/null 2>&1 &&
				    echo mariadb-server-core || echo mariadb-server ;;
	dnf:mariadbd)		echo mariadb-server ;;
	pkg:mariadbd)		echo mariadb1011-server ;;
	*:mariadbd)		echo mariadb ;;
	apt-get:mariadb)	apt-cache show mariadb-client-core >/dev/null 2>&1 &&
				    echo mariadb-client-core || echo mariadb-client ;;
	apk:mariadb)		echo mariadb-client ;;
	pkg:mariadb)		echo mariadb1011-client ;;
	apt-get:galera)		echo galera-4 ;;
	apt-get:fuzzer)		echo clang libclang-rt-dev ;;
	*:fuzzer)		echo clang compiler-rt ;;
	apt-get:openssl.h)	echo libssl-dev ;;
	apk:openssl.h|dnf:openssl.h) echo openssl-dev ;;
	*:openssl.h)		echo openssl ;;
	*:smtp-source)		echo postfix ;;
	*:ps)			echo procps ;;
	*:ip)			echo iproute2 ;;
	apt-get:swaks)		echo swaks libnet-ssleay-perl ;;
	*)			echo "$2" ;;
	esac
}

need() {	# tool...: installs those that are missing, saying so first
	missing=
	for tool; do has "$tool" || missing="$missing $tool"; done
	[ -n "$missing" ] || return 0
	manager=
	for m in apt-get apk dnf pkg brew; do has $m && manager=$m && break; done
	[ -n "$manager" ] || die "please install:$missing"

	as_root=
	if [ $manager != brew ] && [ "$(id -u)" != 0 ]; then
		as_root='sudo -n'
		$as_root true 2>/dev/null || as_root=
	fi
	can=no
	if [ $manager = brew ] || [ "$(id -u)" = 0 ] || [ -n "$as_root" ]; then can=yes; fi
	[ $manager != apt-get ] || [ $can = no ] || $as_root apt-get update -qq

	packages=
	for tool in $missing; do packages="$packages $(package $manager $tool)"; done
	case $manager in
	# --no-remove: a mail server that is here stays
	apt-get) install='apt-get install -qq -y --no-install-recommends --no-remove' ;;
	apk) install='apk add' ;;
	dnf|pkg) install="$manager install -y" ;;
	brew) install='brew install' ;;
	esac
	[ $can = yes ] || die "not root, and sudo wants a password; please run:
	sudo $install$packages"
	say "Missing:$missing. Installing:$packages"
	mkdir -p "$here/.run"
	quiet_services
	[ $manager != apt-get ] || has debconf-set-selections &&
		echo 'postfix postfix/main_mailer_type select No configuration' |
		$as_root debconf-set-selections
	$as_root env DEBIAN_FRONTEND=noninteractive $install $packages \
		>"$here/.run/install.log" 2>&1 </dev/null
	status=$?
	loud_services
	[ $status = 0 ] || { tail -n 20 "$here/.run/install.log"; die "could not be installed:$packages"; }
	for tool in $missing; do has "$tool" || die "still missing: $tool"; done
}

# Debian: what is installed for a test is not started as a service.
policy=/usr/sbin/policy-rc.d
quiet_services() {
	ours=no
	[ $manager = apt-get ] && [ ! -e $policy ] || return 0
	ours=yes
	printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
	$as_root chmod 755 $policy
}
loud_services() { [ $ours = no ] || $as_root rm -f $policy; }

# Processes

alive() {	# pidfile name: the process is there, and is no stranger with its old id
	pid=$(cat "$1" 2>/dev/null) && kill -0 "$pid" 2>/dev/null || return 1
	case $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || ps -o args= -p "$pid") in
	*"$2"*) ;;
	*) return 1 ;;
	esac
}

wait_for() {	# tenths command...: until it succeeds; 1 when it does not in that time
	tenths=$1
	shift
	until "$@" >/dev/null 2>&1; do
		tenths=$((tenths - 1))
		[ $tenths -gt 0 ] || return 1
		sleep 0.1
	done
}

end() {		# pidfile name: TERM, and KILL for what does not heed it
	alive "$1" "$2" || { rm -f "$1"; return 0; }
	kill "$pid"
	wait_for 300 not alive "$1" "$2" || { kill -9 "$pid"; say "$2 had to be killed"; }
	rm -f "$1"
}
not() { ! "$@"; }

# A private MariaDB in $1: $1/data, $1/log, $1/pid, and the path of its socket
# in $1/socket. That is a short one in /tmp, for a socket's path has room for
# some hundred octets, and smtpd's workers must be able to walk to it as nobody.

db_start() {	# directory [option of mariadb-install-db]...
	db=$1
	shift
	db_stop "$db"
	mkdir -p "$db/tmp"	# its own, for a mariadbd that starts empties it
	sockets=$(mktemp -d /tmp/smtpd-db.XXXXXX) || exit 1
	chmod 755 "$sockets"
	echo "$sockets/sock" >"$db/socket"
	if [ ! -d "$db/data/mysql" ]; then
		rm -rf "$db/data"
		TMPDIR=$db/tmp mariadb-install-db --no-defaults --force --user="$(id -un)" \
			--datadir="$db/data" --skip-test-db "$@" >"$db/install.log" 2>&1 ||
			{ tail -n 20 "$db/install.log"; die "mariadb-install-db failed"; }
	fi
	TMPDIR=$db/tmp mariadbd --no-defaults --user="$(id -un)" --datadir="$db/data" --skip-networking \
		--socket="$sockets/sock" --pid-file="$db/data/pid" --max-allowed-packet=64M \
		--innodb-buffer-pool-size=128M --innodb-log-file-size=64M \
		</dev/null >"$db/log" 2>&1 &
	echo $! >"$db/pid"
	wait_for 600 db_ready "$db" || { tail -n 20 "$db/log"; die "mariadbd does not start"; }
}

db_ready() { alive "$1/pid" mariadbd && db_client "$1" -e 'DO 0'; }

db_client() {	# directory [option]...: as its administrator, by default who has our name
	directory=$1
	shift
	mariadb --no-defaults --user="${db_admin:-$(id -un)}" --socket="$(cat "$directory/socket")" \
		--default-character-set=utf8mb4 "$@"
}

db_stop() {	# directory
	end "$1/pid" mariadbd
	[ ! -f "$1/socket" ] || rm -rf "$(dirname "$(cat "$1/socket")")"
	rm -f "$1/socket"
}
