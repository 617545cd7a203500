# test/lib.sh - what the scripts here and a folder below share; to be sourced by them, in plain sh
#
# Everything they start is private: a MariaDB on a Unix socket with its data
# under test/.run, smtpd on loopback, each ended by its own process id.

root=$(CDPATH= cd "$(dirname "$0")/.." && { [ -f Makefile ] || cd ..; } && pwd) || exit 1
here=$root/test
demo=${SMTPD_TEST_DIR:-$here/.run/demo}	# where test/run keeps its database
case $demo in /*) ;; *) demo=$(pwd)/$demo ;; esac
# Where the ports of FreeBSD, OpenBSD and NetBSD have mariadbd is in no user's PATH.
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin:/usr/local/libexec:/usr/pkg/bin:/usr/pkg/sbin:/usr/pkg/libexec
export PATH

say() { echo "== $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }
trap 'exit 130' INT TERM HUP	# so that what waits for EXIT is done

writable() {	# directory: a file can be made in it
	try_file=$(mktemp "$1/.try.XXXXXX" 2>/dev/null) && rm -f "$try_file"
}

room() {	# directory MB: its file system has so much left
	free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
	[ "${free:-$2}" -ge "$2" ] || die "$1 has only $free MB free, $2 MB are needed"
}

counted() {	# log: what the last line says that says "N passed, N failed", as p and f
	p=0 f=0
	eval "$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/p=\1 f=\2/p' "$1" | tail -n 1)"
}

client_library() {	# --cflags or --libs
	if has mariadb_config; then mariadb_config "$1"
	elif has mysql_config; then mysql_config "$1"
	else pkg-config "$1" libmariadb; fi
}

# Installing what is missing

has() {		# tool
	case $1 in
	mysql.h) has mariadb_config || has mysql_config ||
		pkg-config --exists libmariadb 2>/dev/null || pkg-config --exists mysqlclient 2>/dev/null ;;
	swaks) command -v swaks >/dev/null && perl -MNet::SSLeay -e 1 2>/dev/null ;;
	fuzzer) echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null ;;
	galera) [ -n "$(find /usr/lib* -name libgalera_smm.so 2>/dev/null | head -n 1)" ] ;;
	php) command -v php >/dev/null && php -r 'exit(extension_loaded("pdo_mysql") ? 0 : 1);' ;;
	pymysql) /usr/bin/python3 -c 'import pymysql' 2>/dev/null ;;
	openssl.h) echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

package() {	# manager tool: the packages that bring it
	case $1:$2 in
	apt-get:cc)		echo gcc libc6-dev ;;
	apk:cc)			echo gcc musl-dev ;;
	*:cc)			echo gcc ;;	# the BSDs have one
	apt-get:mysql.h)	echo libmariadb-dev ;;
	apk:mysql.h)		echo mariadb-connector-c-dev ;;
	dnf:mysql.h)		echo mariadb-connector-c-devel ;;
	pkgin:mysql.h|pkg_add:mysql.h) echo mariadb-client ;;
	*:mysql.h)		echo mariadb-connector-c ;;
	apt-get:mariadbd)	apt-cache show mariadb-server-core >/dev/null 2>&1 &&
				    echo mariadb-server-core || echo mariadb-server ;;
	dnf:mariadbd|pkgin:mariadbd|pkg_add:mariadbd) echo mariadb-server ;;
	pkg:mariadbd)		echo mariadb1011-server ;;
	*:mariadbd)		echo mariadb ;;
	apt-get:mariadb)	apt-cache show mariadb-client-core >/dev/null 2>&1 &&
				    echo mariadb-client-core || echo mariadb-client ;;
	apk:mariadb|pkgin:mariadb|pkg_add:mariadb) echo mariadb-client ;;
	pkg:mariadb)		echo mariadb1011-client ;;
	apt-get:galera)		echo galera-4 ;;
	apt-get:wsrep_sst_rsync) echo mariadb-server ;;	# and the user mysql
	apt-get:fuzzer)		echo clang libclang-rt-dev ;;
	*:fuzzer)		echo clang compiler-rt ;;
	apt-get:openssl.h)	echo libssl-dev ;;
	apk:openssl.h|dnf:openssl.h) echo openssl-dev ;;
	*:openssl.h)		echo openssl ;;
	pkgin:python3)		echo python312 ;;
	*:smtp-source)		echo postfix ;;
	*:ps)			echo procps ;;
	*:ip)			echo iproute2 ;;
	*:systemd-analyze)	echo systemd ;;
	*:setpriv)		echo util-linux ;;
	apt-get:php)		echo php-cli php-mysql ;;
	apt-get:pymysql)	echo python3-pymysql ;;
	apt-get:node)		echo nodejs ;;
	apt-get:setcap)		echo libcap2-bin ;;
	apt-get:swaks)		echo swaks libnet-ssleay-perl ;;
	*)			echo "$2" ;;
	esac
}

again=			# what test/run is to be told to do no more than install
need() {	# tool...: installs those that are missing, saying so first
	missing=
	for tool; do
		case "$missing " in *" $tool "*) continue ;; esac
		has "$tool" || missing="$missing $tool"
	done
	manager=
	for m in apt-get apk dnf pkgin pkg_add pkg brew; do has $m && manager=$m && break; done
	as_root=
	[ "$(id -u)" = 0 ] || as_root='sudo -n'
	services_allow
	[ -n "$missing" ] || return 0
	[ -n "$manager" ] || die "please install:$missing"
	if [ $manager = brew ]; then
		as_root=
	elif [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
		how='once, as root: sh'
		! has sudo || how='once: sudo sh'
		die "missing:$missing; only root can install that; please run $how $(quoted "$0")$again"
	fi

	install_log=$(mktemp "${TMPDIR:-/tmp}/smtpd-install.XXXXXX") || exit 1
	case $manager in
	# --no-remove: a mail server that is here stays
	apt-get) set -- apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends \
			--no-remove
		$as_root apt-get update -qq >"$install_log" 2>&1 </dev/null ;;
	apk) set -- apk add ;;
	pkg_add) set -- pkg_add -I ;;
	pkgin) set -- pkgin -y install ;;
	dnf|pkg) set -- $manager install -y ;;
	brew) set -- brew install ;;
	esac
	packages=
	for tool in $missing; do packages="$packages $(package $manager $tool)"; done
	say "Missing:$missing. Installing:$packages"
	if [ $manager = apt-get ]; then
		# While it downloads it may be interrupted.
		$as_root "$@" --download-only $packages >>"$install_log" 2>&1 </dev/null || cannot_install
		echo 'postfix postfix/main_mailer_type select No configuration' >"$install_log.answers"
	fi
	install_quietly "$@" $packages
	for tool in $missing; do has "$tool" || die "still missing: $tool, see $install_log"; done
	rm -f "$install_log" "$install_log.answers"
}

cannot_install() {
	rm -f "$install_log.answers"
	grep '^E:' "$install_log" | tail -n 3
	die "could not be installed:$packages; is there a network? $install_log has all of it"
}

quoted() {	# word: as a shell takes it
	case $1 in
	*[!-A-Za-z0-9_./+:@%]*) printf "'%s'\n" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")" ;;
	*) printf '%s\n' "$1" ;;
	esac
}

# Runs the package manager to its end, whatever the keyboard says meanwhile: one
# that is cut off leaves half of its work. On Debian what is installed for a test
# is not started as a service: policy-rc.d says so, to be removed by who made it.
# It is of no effect without that process, for nobody can clean up after a KILL.
policy=/usr/sbin/policy-rc.d
mark='# made by test/lib.sh of smtpd, for as long as this process is there:'
install_quietly() {	# command...
	interrupted= session=
	! has setsid || session=setsid	# apt-get makes dpkg heed the terminal again
	trap 'interrupted=yes; say "Ending as soon as the package manager has"' INT TERM HUP
	(
		trap '' INT TERM HUP
		$session $as_root env DEBIAN_FRONTEND=noninteractive sh -c '
			policy=$1 mark=$2 answers=$3
			shift 3
			ours=no
			if [ "$1" = apt-get ]; then
				! command -v debconf-set-selections >/dev/null ||
					debconf-set-selections <"$answers"
				if [ ! -e "$policy" ]; then
					ours=yes
					printf "#!/bin/sh\n%s %s\nkill -0 %s 2>/dev/null || exit 0\nexit 101\n" \
						"$mark" $$ $$ >"$policy"
					chmod 755 "$policy"
				fi
			fi
			"$@"
			status=$?
			[ $ours = no ] || rm -f "$policy"
			exit $status' sh "$policy" "$mark" "$install_log.answers" "$@" \
			>>"$install_log" 2>&1 </dev/null
		echo $? >"$install_log.status"
	) &
	manager_job=$!
	until [ -s "$install_log.status" ] || ! kill -0 $manager_job 2>/dev/null; do sleep 0.2; done
	status=$(cat "$install_log.status" 2>/dev/null)
	rm -f "$install_log.status"
	trap 'exit 130' INT TERM HUP
	[ -z "$interrupted" ] || { rm -f "$install_log" "$install_log.answers"; exit 130; }
	[ "$status" = 0 ] || cannot_install
}

services_allow() {	# a policy-rc.d of ours that was left behind is taken away
	maker=$(sed -n "s|^$mark ||p" $policy 2>/dev/null)
	[ -n "$maker" ] && [ ! -d "/proc/$maker" ] || return 0
	$as_root rm -f $policy 2>/dev/null || say "$policy is of no use any more, please remove it"
}

# Processes

alive() {	# pidfile words: the process is there, and is no stranger with its old id
	pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
	case $({ tr '\0' ' ' <"/proc/$pid/cmdline" || ps -ww -o args= -p "$pid" ||
		ps -o args= -p "$pid"; } 2>/dev/null) in
	*"$2"*) ;;
	*) return 1 ;;
	esac
}

# Starts a process that goes on. A signal that comes meanwhile has to wait until
# its id is in the file, and without that (a full disk) it does not start.
background() {	# pidfile output command...
	pidfile=$1 output=$2 caught=
	shift 2
	rm -f "$pidfile"
	trap 'caught=yes' INT TERM HUP
	sh -c 'echo $$ >"$0" && exec "$@"' "$pidfile" "$@" </dev/null >"$output" 2>&1 &
	until [ -s "$pidfile" ] || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
	trap 'exit 130' INT TERM HUP
	[ -z "$caught" ] || exit 130
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

end() {		# pidfile words: TERM, and KILL for what does not heed it
	alive "$1" "$2" || { rm -f "$1"; return 0; }
	kill "$pid"
	wait_for 300 not alive "$1" "$2" || { kill -9 "$pid"; say "Process $pid had to be killed"; }
	rm -f "$1"
}
not() { ! "$@"; }

# A private MariaDB in $1: $1/data, $1/log, $1/pid, and the path of its socket
# in $1/socket. That is a short one in /tmp, for a socket's path has room for
# some hundred octets, and smtpd's workers must be able to walk to it as nobody.
# Beside it is the name of the directory it belongs to: a copy of $1 does not own it.

db_start() {	# directory [option of mariadb-install-db]...
	db=$1
	shift
	db_stop "$db"
	mkdir -p "$db/tmp" || exit 1	# its own, for a mariadbd that starts empties it
	sockets=$(mktemp -d /tmp/smtpd-db.XXXXXX) || exit 1
	chmod 755 "$sockets"
	echo "$sockets/sock" >"$db/socket" && echo "$db" >"$sockets/of" || exit 1
	if [ ! -d "$db/data/mysql" ]; then
		room "$db" 200
		rm -rf "$db/data" "$db/data.new"
		# It cuts a path at a blank, so it gets one without. --rpm: it leaves alone what
		# belongs to the system's own server.
		mkdir "$db/data.new" && ln -s "$db/data.new" "$sockets/data" &&
			ln -s "$db/tmp" "$sockets/tmp" &&
			TMPDIR=$sockets/tmp mariadb-install-db --no-defaults --rpm --force \
			--user="$(id -un)" --datadir="$sockets/data" --skip-test-db "$@" \
			>"$db/install.log" 2>&1 && mv "$db/data.new" "$db/data" ||
			{ tail -n 20 "$db/install.log"; die "mariadb-install-db failed"; }
	fi
	TMPDIR=$db/tmp background "$db/pid" "$db/log" mariadbd --no-defaults \
		--datadir="$db/data" --user="$(id -un)" --skip-networking \
		--socket="$sockets/sock" --pid-file="$db/data/pid" --max-allowed-packet=64M \
		--innodb-buffer-pool-size=128M --innodb-log-file-size=64M
	wait_for 600 db_answers_or_ended "$db"
	db_ready "$db" || { tail -n 20 "$db/log"; die "mariadbd does not start"; }
}

db_alive() { alive "$1/pid" "--datadir=$1/data "; }
db_ready() { db_alive "$1" && db_client "$1" -e 'DO 0' >/dev/null 2>&1; }
db_answers_or_ended() { db_ready "$1" || not db_alive "$1"; }

db_client() {	# directory [option]...: as its administrator, by default who has our name
	directory=$1
	shift
	mariadb --no-defaults --user="${db_admin:-$(id -un)}" --socket="$(cat "$directory/socket")" \
		--default-character-set=utf8mb4 "$@"
}

sockets=
db_stop() {	# directory
	end "$1/pid" "--datadir=$1/data "
	for directory in "$sockets" "$(dirname "$(cat "$1/socket" 2>/dev/null)")"; do
		case $directory in
		/tmp/smtpd-db.*)
			[ -s "$directory/of" ] && [ "$(cat "$directory/of")" != "$1" ] ||
				rm -rf "$directory" ;;
		esac
	done
	sockets=
	rm -f "$1/socket"
}
