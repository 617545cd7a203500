.POSIX:

# Any of these may be given on the command line: make CC=clang CFLAGS='-O2 -g'
CC = cc
CFLAGS = -O2
LDFLAGS =
LIBS =
PREFIX = /usr/local
DESTDIR =

# The client library, MariaDB's or Oracle's: the shell asks whoever knows.
MYSQL_CFLAGS = `{ mariadb_config --include || mysql_config --include || \
	pkg-config --cflags libmariadb || pkg-config --cflags mysqlclient; } 2>/dev/null`
MYSQL_LIBS = `{ mariadb_config --libs || mysql_config --libs || \
	pkg-config --libs libmariadb || pkg-config --libs mysqlclient; } 2>/dev/null`

all: smtpd

smtpd: smtpd.o mime.o db.o iconv.libs
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ smtpd.o mime.o db.o \
		$(MYSQL_LIBS) `cat iconv.libs` $(LIBS)

# The same program with STARTTLS, dated so old that a plain make afterwards links anew.
tls: smtpd-tls.o tls.o mime.o db.o iconv.libs
	$(CC) $(CFLAGS) $(LDFLAGS) -o smtpd smtpd-tls.o tls.o mime.o db.o \
		$(MYSQL_LIBS) `cat iconv.libs` -lssl -lcrypto $(LIBS)
	touch -t 200001010000 smtpd

smtpd.o: smtpd.c mime.h db.h tls.h
	$(CC) $(CFLAGS) -c smtpd.c

smtpd-tls.o: smtpd.c mime.h db.h tls.h
	$(CC) $(CFLAGS) -DTLS -c -o $@ smtpd.c

tls.o: tls.c tls.h
	$(CC) $(CFLAGS) -DTLS -c tls.c

mime.o: mime.c mime.h
	$(CC) $(CFLAGS) -c mime.c

db.o: db.c db.h
	@echo '#include <mysql.h>' | $(CC) $(MYSQL_CFLAGS) -E - >/dev/null 2>&1 || { \
		echo 'mysql.h not found. Install libmariadb-dev (Debian, Ubuntu), mariadb-dev (Alpine),'; \
		echo 'mariadb-connector-c-devel (Fedora), mariadb-connector-c (FreeBSD, Homebrew) or'; \
		echo 'libmysqlclient-dev, or say where it is: make MYSQL_CFLAGS=-I... MYSQL_LIBS=...'; \
		exit 1; } >&2
	$(CC) $(CFLAGS) $(MYSQL_CFLAGS) -c db.c

# Whether iconv() needs -liconv, found by linking; the answer stays in the file.
iconv.libs:
	@echo '#include <iconv.h>' >iconv-try.c
	@echo 'int main(void) { return iconv_open("UTF-8", "UTF-8") == (iconv_t)-1; }' >>iconv-try.c
	@for lib in '' -liconv; do \
		if $(CC) $(CFLAGS) $(LDFLAGS) -o iconv-try iconv-try.c $$lib $(LIBS) 2>/dev/null; \
		then echo "$$lib" >$@; break; fi; done; rm -f iconv-try iconv-try.c iconv-try.o
	@test -f $@ || { echo 'no iconv() to be linked: install libiconv, set CFLAGS and LDFLAGS' >&2; exit 1; }

run:
	@sh test/run

check:
	@sh test/check

bench:
	@sh test/bench/run

fuzz:
	@sh test/fuzz

ports:
	@sh test/ports

simulate:
	@sh test/simulate

torture:
	@sh test/torture

test-cluster:
	@sh test/cluster

# What was built last, plain or with TLS; removed first, for it may be running. What
# an operator changes (etc/) goes beside schema.sql, to be copied, and stays his.
SHARE = $(DESTDIR)$(PREFIX)/share
install:
	@test -f smtpd || $(MAKE) smtpd
	mkdir -p $(DESTDIR)$(PREFIX)/sbin $(SHARE)/man/man8 $(SHARE)/smtpd
	rm -f $(DESTDIR)$(PREFIX)/sbin/smtpd
	cp smtpd $(DESTDIR)$(PREFIX)/sbin/smtpd
	cp smtpd.8 $(SHARE)/man/man8/smtpd.8
	cp schema.sql etc/purge.sql etc/smtpd.conf etc/smtpd.logrotate $(SHARE)/smtpd
	sed 's|/usr/local/sbin/|$(PREFIX)/sbin/|' etc/smtpd.service >$(SHARE)/smtpd/smtpd.service
	chmod 755 $(DESTDIR)$(PREFIX)/sbin/smtpd
	chmod 644 $(SHARE)/man/man8/smtpd.8 $(SHARE)/smtpd/*

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/smtpd $(SHARE)/man/man8/smtpd.8
	rm -rf $(SHARE)/smtpd

clean:
	rm -rf smtpd *.o iconv.libs
