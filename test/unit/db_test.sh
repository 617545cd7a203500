#!/bin/sh
# test/unit/db_test.sh - db.c against a private MariaDB; the last line is "N passed, N failed"
#
#	sh test/unit/db_test.sh [name...]		all tests or those named
#	CC=clang CFLAGS='-g -fsanitize=address' WRAPPER=valgrind sh test/unit/db_test.sh
. "$(dirname "$0")/../lib.sh"

need cc mysql.h mariadbd mariadb
work=${SMTPD_TEST_DIR:-$here/.run/db_test}
trap 'db_stop "$work"' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$work"
${CC:-cc} ${CFLAGS:--O2} $(client_library --cflags) -o "$work/db_test" \
	"$here/unit/db_test.c" "$root/db.c" $(client_library --libs) || exit 1
db_start "$work"
{
	echo 'CREATE DATABASE IF NOT EXISTS mail; USE mail; DROP TABLE IF EXISTS new_mail;'
	cat "$root/schema.sql"
	echo "CREATE OR REPLACE USER dbtest@localhost IDENTIFIED BY '';"
	echo 'GRANT ALL ON *.* TO dbtest@localhost WITH GRANT OPTION;'
	echo "CREATE OR REPLACE USER smtpd@localhost IDENTIFIED BY 'se''cret';"
	echo 'GRANT INSERT, SELECT ON mail.new_mail TO smtpd@localhost;'
	echo 'SET GLOBAL max_allowed_packet=16777216;'
} | db_client "$work" || die 'the table could not be made'
$WRAPPER "$work/db_test" "$(cat "$work/socket")" "$(cat "$work/pid")" "$@"
