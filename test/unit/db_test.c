/*
 * db_test - db.c against a real server: db_test socket pid [name...]
 *
 * The server is this test's own: test/unit/db_test.sh starts it. A second, plain
 * connection looks at what was stored and makes the trouble.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64			/* db.h's time_t, as smtpd.c has it */

#include <mysql.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../db.h"

#define MAILS 256
#define LARGE 17000000

static const char *socket_path, *relay_path;
static MYSQL *admin;
static struct db_config conf;
static struct db *db;
static struct db_mail mails[MAILS];
static struct db_row rows[MAILS];	/* theirs, where each has one */
static char *large;		/* LARGE octets of noise */
static pid_t server, relay;
static int passed, failed, answered;
static long long longest;	/* wait in a call to db_run() or db_add(), ms */

static void
ok(int good, const char *fmt, ...)
{
	va_list ap;

	good ? passed++ : failed++;
	printf("%sok %d - ", good ? "" : "not ", passed + failed);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

static long long
ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/*
 * The same without what this process computes, and where Linux tells, without what it waits for
 * a processor: what passes while it waits for somebody else.
 */
static long long
waited(void)
{
	static int fd = -2;
	struct timespec t;
	char text[100] = "";
	long long queued = 0;

	if (fd == -2)
		fd = open("/proc/self/schedstat", O_RDONLY);
	if (fd != -1 && pread(fd, text, sizeof(text) - 1, 0) > 0)
		sscanf(text, "%*s %lld", &queued);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return ms() - ((long long)t.tv_sec * 1000 + t.tv_nsec / 1000000) - queued / 1000000;
}

static MYSQL *
login(void)
{
	MYSQL *my = mysql_init(NULL);

	if (!my || !mysql_real_connect(my, NULL, "dbtest", NULL, "mail", 0, socket_path, 0)) {
		fprintf(stderr, "db_test: %s\n", my ? mysql_error(my) : "no memory");
		exit(2);
	}
	mysql_set_character_set(my, "utf8mb4");
	return my;
}

static void
sql(const char *fmt, ...)
{
	static char text[65536];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (mysql_query(admin, text) != 0)
		printf("# %s: %s\n", text, mysql_error(admin));
}

static volatile sig_atomic_t got_signal;

static void
on_signal(int sig)
{
	got_signal = sig;
}

static int
unix_socket(const char *path, int listening)
{
	struct sockaddr_un sun;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(&sun, 0, sizeof(sun));
	sun.sun_family = AF_UNIX;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (listening)
		unlink(path);
	if ((listening ? bind(fd, (void *)&sun, sizeof(sun)) == -1 || listen(fd, 100) == -1 :
	    connect(fd, (void *)&sun, sizeof(sun)) == -1)) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * What may stand between us and the server, as a proxy does: SIGUSR1 has it begin a
 * transaction in every session, SIGUSR2 has it hang up; stopped it is a network that is cut.
 */
static void
relay_loop(int listener)
{
	static const char begin[] = "\x12\0\0\0\x03START TRANSACTION";
	char buf[65536];
	int peer[FD_SETSIZE], fd, n, is_server[FD_SETSIZE];
	sigset_t unblocked;
	ssize_t len;
	fd_set r;

	sigemptyset(&unblocked);
	for (fd = 0; fd < FD_SETSIZE; fd++)
		peer[fd] = -1;
	for (;;) {
		FD_ZERO(&r);
		FD_SET(listener, &r);
		for (fd = 0; fd < FD_SETSIZE; fd++)
			if (peer[fd] != -1)
				FD_SET(fd, &r);
		n = pselect(FD_SETSIZE, &r, NULL, NULL, NULL, &unblocked);
		for (fd = 0; n == -1 && got_signal && fd < FD_SETSIZE; fd++)
			if (peer[fd] == -1 || !is_server[fd])
				continue;
			else if (got_signal == SIGUSR1) {
				if (write(fd, begin, sizeof(begin) - 1) == -1 || read(fd, buf, sizeof(buf)) < 7)
					_exit(1);
			} else {
				close(fd);
				close(peer[fd]);
				peer[peer[fd]] = -1;
				peer[fd] = -1;
			}
		got_signal = 0;
		if (n == -1)
			continue;
		for (fd = 0; fd < FD_SETSIZE; fd++)
			if (peer[fd] != -1 && FD_ISSET(fd, &r)) {
				len = read(fd, buf, sizeof(buf));
				if (len > 0 && write(peer[fd], buf, (size_t)len) == len)
					continue;
				close(fd);
				close(peer[fd]);
				peer[peer[fd]] = -1;
				peer[fd] = -1;
			}
		if (FD_ISSET(listener, &r) && (fd = accept(listener, NULL, NULL)) != -1) {
			if ((n = unix_socket(socket_path, 0)) == -1)
				close(fd);
			else
				peer[fd] = n, peer[n] = fd, is_server[n] = 1, is_server[fd] = 0;
		}
	}
}

/* Connections go through it from here on. */
static void
relay_start(void)
{
	static char path[200];
	struct sigaction sa;
	sigset_t usr;
	int fd;

	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	sigaddset(&usr, SIGUSR2);
	snprintf(path, sizeof(path), "%s.relay", socket_path);
	relay_path = path;
	fd = unix_socket(path, 1);
	if ((relay = fork()) == 0) {
		sigprocmask(SIG_BLOCK, &usr, NULL);	/* but in pselect() */
		memset(&sa, 0, sizeof(sa));
		sa.sa_handler = on_signal;
		sigaction(SIGUSR1, &sa, NULL);
		sigaction(SIGUSR2, &sa, NULL);
		signal(SIGPIPE, SIG_IGN);
		relay_loop(fd);
	}
	close(fd);
	conf.hosts = path;
}

static void
relay_stop(void)
{
	kill(relay, SIGKILL);
	waitpid(relay, NULL, 0);
	unlink(relay_path);
	conf.hosts = socket_path;
}

static void
relay_signal(int sig)
{
	struct timespec t = { 0, 50000000 };

	kill(relay, sig);
	nanosleep(&t, NULL);
}

/* The last column of the first row; "" where there is none. */
static const char *
ask(const char *fmt, ...)
{
	static char text[65536], answer[65536];
	va_list ap;
	MYSQL_RES *res;
	MYSQL_ROW row;
	unsigned last;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	answer[0] = '\0';
	if (mysql_query(admin, text) != 0 || (res = mysql_store_result(admin)) == NULL) {
		printf("# %s: %s\n", text, mysql_error(admin));
		return answer;
	}
	last = mysql_num_fields(res) - 1;
	if ((row = mysql_fetch_row(res)) != NULL && row[last])
		snprintf(answer, sizeof(answer), "%s", row[last]);
	mysql_free_result(res);
	return answer;
}

/* Kills the connection that is tested, if there is one. */
static void
cut_off(void)
{
	const char *id = ask("SELECT ID FROM information_schema.PROCESSLIST WHERE DB='mail' AND "
	    "ID<>CONNECTION_ID()");

	if (*id)
		sql("KILL CONNECTION %s", id);
}

/* Stops the server; on a busy machine its threads run on for a moment after kill(). */
static void
server_stop(void)
{
	struct timespec t = { 0, 1000000 };
	char command[64];
	FILE *ps;
	int i, state = 0;

	kill(server, SIGSTOP);
	snprintf(command, sizeof(command), "ps -o state= -p %ld", (long)server);
	for (i = 0; state != 'T' && i < 1000; i++) {
		nanosleep(&t, NULL);
		if ((ps = popen(command, "r")) == NULL)
			continue;
		state = fgetc(ps);
		pclose(ps);
	}
	ok(state == 'T', "the server is stopped");
}

static void
run(const fd_set *r, const fd_set *w)
{
	long long t = waited();
	struct db_mail *m;
	const char *news;

	db_run(db, r, w);
	if (waited() - t > longest)
		longest = waited() - t;
	while ((m = db_done(db)) != NULL)
		answered++;
	if ((news = db_news(db)) != NULL)
		printf("# %lld %s\n", ms() % 100000, news);
}

/* The caller's loop, as smtpd.c has it, until n mails are answered or so many ms are over. */
static void
loop(int n, long long limit)
{
	long long end = ms() + limit;
	struct timeval tv;
	fd_set r, w;
	long wait;
	int max, ready;

	for (run(NULL, NULL); answered < n && ms() < end; run(ready ? &r : NULL, &w)) {
		FD_ZERO(&r);
		FD_ZERO(&w);
		max = -1;
		db_watch(db, &r, &w, &max);
		wait = db_timeout(db);
		if (wait < 0 || wait > end - ms())
			wait = end > ms() ? (long)(end - ms()) : 0;
		tv.tv_sec = wait / 1000;
		tv.tv_usec = wait % 1000 * 1000;
		ready = select(max + 1, &r, &w, NULL, &tv) > 0;
	}
}

static struct db_text
text(const char *s)
{
	struct db_text t;

	t.ptr = s;
	t.len = strlen(s);
	return t;
}

/* Mail i for a recipient; everything else of it is the same. */
static enum db_status
add(int i, const char *rcpt, struct db_text body, struct db_text mail)
{
	static char names[MAILS][80];
	struct db_columns *c = &mails[i].col;
	struct db_row *row = &rows[i];
	enum db_status status;
	long long t = waited();

	snprintf(names[i], sizeof(names[i]), "%s", rcpt);
	c->date = 1700000000;
	c->from = text("from@example.org");
	c->subject = text("subject");
	c->body = body;
	c->charset = text("utf-8");
	c->content_type = text("text/plain");
	c->mail = mail;
	row->to = row->recipient = text(names[i]);
	row->hash = text("0123456789abcdef0123456789abcdef");
	c->row = row;
	c->rows = 1;
	status = db_add(db, &mails[i]);
	if (waited() - t > longest)
		longest = waited() - t;
	return status;
}

static int
simple(int i, const char *rcpt)
{
	return add(i, rcpt, text("body"), text("Subject: x\r\n\r\nbody\r\n")) == DB_PENDING;
}

static void
start(int timeout)
{
	conf.timeout = timeout;
	db = db_new(&conf);
	memset(mails, 0, sizeof(mails));
	answered = 0;
	longest = 0;
	loop(1, 50);
}

static void
stop(void)
{
	db_free(db);
	db = NULL;
}

static void
empty(void)
{
	sql("DELETE FROM new_mail");
}

static void
test_one(void)
{
	start(10);
	ok(simple(0, "one@example.com"), "a mail is taken");
	loop(1, 5000);
	ok(mails[0].status == DB_STORED, "and stored");
	ok(strcmp(ask("SELECT CONCAT_WS('|',date,`from`,`to`,subject,body,charset,mail,spam_score,"
	    "hash,content_type,recipient) FROM new_mail"), "2023-11-14 22:13:20|from@example.org|"
	    "one@example.com|subject|body|utf-8|Subject: x\r\n\r\nbody\r\n|0|"
	    "0123456789abcdef0123456789abcdef|text/plain|one@example.com") == 0,
	    "every column is what was given");
	ok(db_held(db) == 0, "nothing is held afterwards");
	stop();
}

/* Compares a column of the only row with octets. */
static int
same(const char *column, struct db_text want)
{
	char text_[200];
	MYSQL_RES *res;
	MYSQL_ROW row;
	unsigned long *len;
	int is = 0;

	snprintf(text_, sizeof(text_), "SELECT `%s` FROM new_mail", column);
	if (mysql_query(admin, text_) == 0 && (res = mysql_store_result(admin)) != NULL) {
		if (mysql_num_rows(res) == 1 && (row = mysql_fetch_row(res)) != NULL) {
			len = mysql_fetch_lengths(res);
			is = row[0] && len[0] == want.len &&
			    memcmp(row[0], want.ptr, want.len) == 0;
			if (!is)
				printf("# %s: %lu octets, not %zu\n", column, len[0], want.len);
		}
		mysql_free_result(res);
	}
	return is;
}

/* A mail whose text columns are all t (but the hash), and whose mail is m. */
static int
stores(struct db_text t, struct db_text m)
{
	struct db_columns *c = &mails[0].col;
	struct db_row row;
	int is;

	empty();
	c->date = 1700000000;
	c->from = c->subject = c->body = c->charset = c->content_type = t;
	c->mail = m;
	row.to = row.recipient = t;
	row.hash = t;
	for (row.hash.len = 0; row.hash.len < t.len && row.hash.len < 32; row.hash.len++)
		if (t.ptr[row.hash.len] & 0x80)
			break;		/* the column is ASCII */
	c->row = &row;
	c->rows = 1;
	answered = 0;
	mails[0].status = DB_PENDING;
	if (db_add(db, &mails[0]) != DB_PENDING)
		return 0;
	loop(1, 5000);
	is = mails[0].status == DB_STORED && same("from", t) && same("to", t) &&
	    same("recipient", t) && same("subject", t) && same("body", t) && same("charset", t) &&
	    same("content_type", t) && same("hash", row.hash) && same("mail", m);
	return is;
}

static unsigned
random_(unsigned below)
{
	static uint32_t x = 2463534242U;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x % below;
}

static void
test_octets(void)
{
	static const char *const pieces[] = { "'", "\\", "''", "\\'", "\"", "`", "%s", "\n", "\r\n",
	    "\t", "\x1a", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\\\\",
	    "'),(", "--" };
	char all[256 * 9], t[70], *m;
	size_t i, j, n;
	int good = 1;

	start(10);
	for (i = 0; i < sizeof(all); i++)
		all[i] = (char)(i < 256 ? i : i % 9 == 0 ? '\'' : i / 9);
	for (i = 0; i < 127; i++)
		t[i % 64] = (char)i;
	ok(stores((struct db_text){ t, 63 }, (struct db_text){ all, sizeof(all) }),
	    "all 256 octets in the mail, control characters in the text");
	for (i = 0; i < 64; i++)
		t[i] = (char)i;
	ok(stores((struct db_text){ t, 32 }, (struct db_text){ all, 0 }), "an empty mail");
	t[0] = '\0';
	ok(stores((struct db_text){ t, 1 }, (struct db_text){ all, 1 }), "a NUL alone");
	ok(stores((struct db_text){ t, 0 }, (struct db_text){ all, 1 }), "empty text");
	ok(stores(text("'); DROP TABLE new_mail; -- \\"), text("\\")), "an injection is text");
	for (i = 0; i < 24 && good; i++)
		for (j = 0; j < 20 && good; j++) {
			memset(t, 'x', sizeof(t));
			t[j] = "'\\"[i & 1];
			good = stores((struct db_text){ t, 20 }, (struct db_text){ t, i });
		}
	ok(good, "a quote or backslash at every place, every length");
	for (good = 1, i = 0; i < 300 && good; i++) {
		for (t[0] = '\0', n = 0; n < 20; n += strlen(pieces[j])) {
			j = random_(sizeof(pieces) / sizeof(pieces[0]));
			strcpy(t + n, pieces[j]);
		}
		n = random_(3000);
		m = malloc(n + 1);
		for (j = 0; j < n; j++)
			m[j] = (char)(i & 1 ? random_(256) : (unsigned)"\\'ab"[random_(4)]);
		good = stores(text(t), (struct db_text){ m, n });
		free(m);
	}
	ok(good, "300 mails of noise");
	stop();
}

static void
test_cut(void)
{
	struct db_columns *c = &mails[0].col;
	struct db_row row;
	size_t i, n = 17000000;
	char *t = malloc(n + 1);

	/* 4-octet characters after one of 1: no limit in octets falls between two. */
	start(20);
	t[0] = 'x';
	for (i = 1; i < n; i++)
		t[i] = "\xf0\x9f\x98\x80"[(i - 1) % 4];
	n -= (n - 1) % 4;
	c->date = 0;
	c->from = c->charset = c->content_type = row.to = row.recipient = (struct db_text){ t, n };
	c->subject = (struct db_text){ t, n };
	c->body = (struct db_text){ t, n };
	c->mail = text("mail");
	row.hash = text("hash longer than thirty-two characters");
	c->row = &row;
	c->rows = 1;
	ok(db_add(db, &mails[0]) == DB_PENDING, "text wider than every column is taken");
	loop(1, 15000);
	ok(mails[0].status == DB_STORED, "and stored");
	ok(strcmp(ask("SELECT CONCAT_WS(' ',CHAR_LENGTH(`from`),CHAR_LENGTH(`to`),"
	    "CHAR_LENGTH(recipient),CHAR_LENGTH(charset),CHAR_LENGTH(content_type),hash,"
	    "LENGTH(subject),LENGTH(body)>15000000,LENGTH(body)%%4,date) FROM new_mail"),
	    "320 320 320 64 128 hash longer than thirty-two char 65533 1 1 1970-01-01 00:00:00")
	    == 0,
	    "cut between characters: %s", ask("SELECT LENGTH(body) FROM new_mail"));
	free(t);
	stop();
}

static void
test_batch(void)
{
	int i, all = 1;
	unsigned long before;

	start(10);
	before = db_statements(db);
	simple(0, "first@example.com");
	run(NULL, NULL);
	for (i = 1; i <= 100; i++) {
		char rcpt[40];

		sprintf(rcpt, "batch-%d@example.com", i);
		simple(i, rcpt);
	}
	ok(answered <= 1, "a statement is at the server, or was");
	loop(101, 5000);
	for (i = 0; i <= 100; i++)
		all &= mails[i].status == DB_STORED;
	ok(all && answered == 101, "101 mails stored");
	ok(db_statements(db) - before <= 5, "the 100 that came meanwhile by four statements");
	ok(atoi(ask("SELECT COUNT(DISTINCT recipient) FROM new_mail")) == 101, "101 rows");
	for (i = 0; i < 200; i++)
		simple(i, "many@example.com");
	loop(301, 5000);
	ok(answered == 301 && db_statements(db) - before <= 12, "200 at once by seven");
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	stop();
}

/* n mails, those in bad poisoned: each of the others stored once, those refused. */
static void
poison(int n, const char *bad, const char *what)
{
	char rcpt[40], key[16];
	int i, is, good = 1, refused = 0;

	empty();
	answered = 0;
	for (i = 0; i < n; i++) {
		sprintf(key, ",%d,", i);
		is = strstr(bad, key) != NULL;
		sprintf(rcpt, "%s-%d@example.com", is ? "poison" : "fine", i);
		simple(i, rcpt);
	}
	loop(n, 8000);
	for (i = 0; i < n; i++) {
		sprintf(key, ",%d,", i);
		is = strstr(bad, key) != NULL;
		refused += is;
		good &= mails[i].status == (is ? DB_REFUSED : DB_STORED);
	}
	ok(good && answered == n, "%s: the guilty refused, the others stored", what);
	ok(atoi(ask("SELECT COUNT(*) FROM new_mail")) == n - refused &&
	    atoi(ask("SELECT COUNT(DISTINCT recipient) FROM new_mail WHERE recipient LIKE "
	    "'fine%%'")) == n - refused, "%s: each exactly once", what);
}

static void
test_poison(void)
{
	sql("CREATE TRIGGER poison BEFORE INSERT ON new_mail FOR EACH ROW IF NEW.recipient LIKE "
	    "'poison%%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='poison'; END IF");
	start(10);
	poison(50, ",0,", "the first of 50");
	poison(50, ",24,", "one of 50");
	poison(50, ",49,", "the last of 50");
	poison(50, ",3,4,30,", "three of 50");
	poison(50, ",", "none of 50");
	poison(3, ",0,1,2,", "three of three");
	poison(1, ",0,", "the only one");
	poison(128, ",7,8,9,63,64,65,127,", "seven of 128");
	stop();
	sql("DROP TRIGGER poison");
	sql("ALTER TABLE new_mail ADD CONSTRAINT checked CHECK (recipient NOT LIKE 'poison%%')");
	start(10);
	poison(20, ",11,", "a CHECK constraint");
	sql("ALTER TABLE new_mail DROP CONSTRAINT checked, ADD UNIQUE KEY u (recipient)");
	simple(0, "fine-3@example.com");
	loop(21, 3000);
	poison(20, ",", "a unique key");
	simple(0, "fine-3@example.com");
	answered = 0;
	loop(1, 3000);
	ok(mails[0].status == DB_REFUSED, "a duplicate of a unique key is refused");
	sql("ALTER TABLE new_mail DROP KEY u");
	stop();
}

static void
test_kill(void)
{
	int i, j, stored = 0, lost = 0;
	char rcpt[40];

	start(20);
	cut_off();
	loop(1, 100);
	simple(0, "after@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "killed while idle: connected again, stored");

	sql("LOCK TABLES new_mail WRITE");
	answered = 0;
	simple(1, "locked@example.com");
	loop(1, 300);
	simple(2, "behind@example.com");
	cut_off();
	loop(1, 300);
	sql("UNLOCK TABLES");
	loop(2, 5000);
	ok(mails[2].status == DB_STORED && atoi(ask("SELECT COUNT(*) FROM new_mail WHERE "
	    "recipient='behind@example.com'")) == 1,
	    "killed in flight: the one behind is stored once");
	ok(mails[1].status == DB_LOST || (mails[1].status == DB_STORED && atoi(ask("SELECT "
	    "COUNT(*) FROM new_mail WHERE recipient='locked@example.com'")) > 0),
	    "the other not refused");

	for (i = 0; i < 40; i++) {
		answered = 0;
		for (j = 0; j < 4; j++) {
			sprintf(rcpt, "kill-%d-%d@example.com", i, j);
			mails[j].status = DB_PENDING;
			simple(j, rcpt);
			run(NULL, NULL);
		}
		cut_off();
		loop(4, 5000);
		for (j = 0; j < 4; j++) {
			lost += mails[j].status == DB_LOST;
			if (mails[j].status == DB_STORED) {
				sprintf(rcpt, "kill-%d-%d@example.com", i, j);
				stored += atoi(ask("SELECT COUNT(*)>0 FROM new_mail WHERE "
				    "recipient='%s'", rcpt));
			}
		}
	}
	ok(stored + lost == 160, "40 kills: %d stored, %d lost, none stored only in words", stored,
	    lost);
	stop();
}

static void
test_locked(void)
{
	start(20);
	sql("LOCK TABLES new_mail WRITE");
	simple(0, "wait@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_PENDING, "LOCK TABLES: the mail waits");
	sql("UNLOCK TABLES");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "and is stored after");
	stop();
	start(3);
	sql("LOCK TABLES new_mail WRITE");
	simple(0, "toolong@example.com");
	loop(1, 8000);
	ok(mails[0].status == DB_LOST, "locked for longer than that: lost");
	sql("UNLOCK TABLES");
	loop(2, 1000);
	ok(atoi(ask("SELECT COUNT(*) FROM new_mail WHERE recipient LIKE 'toolong%%'")) == 0,
	    "and not stored behind our back");
	answered = 0;
	simple(0, "after@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "the next one is stored");
	stop();
}

static void
test_hung(void)
{
	long long t;
	int i;

	start(2);
	server_stop();
	t = ms();
	simple(0, "hung@example.com");
	loop(1, 200);
	for (i = 1; i < 30; i++)
		simple(i, "behind@example.com");
	loop(30, 6000);
	ok(answered == 30, "server stopped: every mail has its answer after %lld ms", ms() - t);
	for (i = 0; i < 30 && mails[i].status == DB_LOST; i++)
		;
	ok(i == 30, "DB_LOST");
	ok(ms() - t < 4000, "soon after the timeout of 2 s");
	loop(31, 2500);
	if (simple(30, "later@example.com"))	/* the attempt to connect is not over yet */
		loop(31, 6000);
	ok(!simple(30, "later@example.com"), "away for longer: refused at once");
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	kill(server, SIGCONT);
	answered = 0;
	loop(1, 6000);
	simple(0, "after@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "server goes on: stored again");
	server_stop();
	simple(1, "free@example.com");
	loop(2, 100);
	t = waited();
	stop();
	ok(waited() - t < 100, "db_free() does not wait for it: %lld ms", waited() - t);
	kill(server, SIGCONT);
	start(5);
	server_stop();
	add(0, "large@example.com", text(""), (struct db_text){ large, 8000000 });
	loop(1, 300);
	ok(longest < 100, "8 MB to a stopped server: no call waited 100 ms: %lld", longest);
	t = waited();
	stop();
	ok(waited() - t < 100, "nor db_free() then: %lld ms", waited() - t);
	kill(server, SIGCONT);
}

static void
test_large(void)
{
	struct db_columns *c = &mails[0].col;
	struct db_row row[100];
	char rcpt[100][40];
	size_t i;
	int good = 1;

	start(60);
	for (i = 0; i < 15000000; i++)
		large[i] = (char)random_(256);
	ok(stores(text("1 MB"), (struct db_text){ large, 1000000 }), "1 MB");
	/* First, for what the server said is believed for five seconds. */
	ok(add(0, "x", text("y"), (struct db_text){ large, db_max_mail(db) + 1 }) == DB_TOO_BIG,
	    "%zu octets are too many", db_max_mail(db) + 1);
	ok(stores(text("15 MB"), (struct db_text){ large, 15000000 }), "15 MB of noise");
	memset(large, '\'', 9000000);
	ok(stores(text("quotes"), (struct db_text){ large, 9000000 }), "9 MB of quotes");
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	ok(stores(text("max"), (struct db_text){ large, db_max_mail(db) }), "one less is not");
	for (i = 0; i < 4; i++)
		good &= stores(text("edge"), (struct db_text){ large, 8387584 - 2 + i });
	ok(good, "around the length where a mail is taken apart");
	/* The variables hold the mail before; they must not be stored again, nor kept. */
	ok(stores(text("small"), text("small")), "a small one after it");

	empty();
	c->date = 1700000000;
	c->from = c->subject = c->charset = c->content_type = text("it's");
	c->body = (struct db_text){ large, 100000 };
	c->mail = (struct db_text){ large, 5000000 };
	for (i = 0; i < 100; i++) {
		sprintf(rcpt[i], "'rcpt'-%zu@example.com", i);
		row[i].to = row[i].recipient = text(rcpt[i]);
		row[i].hash = text(rcpt[i] + 6);
	}
	c->row = row;
	c->rows = 100;
	answered = 0;
	longest = 0;
	ok(db_add(db, &mails[0]) == DB_PENDING, "5 MB for 100 recipients");
	simple(1, "behind@example.com");
	loop(2, 60000);
	ok(mails[0].status == DB_STORED && mails[1].status == DB_STORED, "stored");
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	ok(strcmp(ask("SELECT CONCAT_WS(' ',COUNT(*),COUNT(DISTINCT recipient),MIN(LENGTH(mail)),"
	    "MAX(LENGTH(mail)),COUNT(DISTINCT CRC32(mail)),MIN(LENGTH(body)),MAX(LENGTH(body)),"
	    "COUNT(DISTINCT hash)) FROM new_mail WHERE recipient<>'behind@example.com'"),
	    "100 100 5000000 5000000 1 100000 100000 100") == 0, "100 rows, all whole");
	ok(atoi(ask("SELECT COUNT(*) FROM new_mail WHERE recipient='\\'rcpt\\'-7@example.com' AND "
	    "`from`='it\\'s' AND subject='it\\'s' AND hash='-7@example.com'")) == 1,
	    "each with its own columns");
	empty();
	for (i = 0; i < 20; i++) {
		c->mail.len = 60000;
		c->body.len = 100;
		answered = 0;
		c->rows = 1 + i * 5;
		db_add(db, &mails[0]);
		loop(1, 10000);
		good &= mails[0].status == DB_STORED;
	}
	ok(good && atoi(ask("SELECT COUNT(*) FROM new_mail WHERE LENGTH(mail)=60000")) == 970,
	    "60 KB for 1 to 96 recipients");
	stop();
}

static void
test_large_killed(void)
{
	int i, stored = 0, lost = 0, rows, whole;

	start(30);
	for (i = 0; i < 30; i++) {
		answered = 0;
		mails[0].status = DB_PENDING;
		add(0, "large@example.com", text("b"), (struct db_text){ large, 15000000 });
		loop(1, 3 + i * 4);
		cut_off();
		loop(1, 20000);
		stored += mails[0].status == DB_STORED;
		lost += mails[0].status == DB_LOST;
	}
	rows = atoi(ask("SELECT COUNT(*) FROM new_mail"));
	whole = atoi(ask("SELECT COUNT(*) FROM new_mail WHERE LENGTH(mail)=15000000 AND body='b'"));
	ok(stored + lost == 30 && rows >= stored && rows == whole,
	    "15 MB, killed on the way: %d stored, %d lost, %d rows, %d whole", stored, lost, rows,
	    whole);
	stop();
}

static void
test_dropped(void)
{
	char create[4096], *p;
	MYSQL_RES *res;
	MYSQL_ROW row;

	mysql_query(admin, "SHOW CREATE TABLE new_mail");
	res = mysql_store_result(admin);
	row = mysql_fetch_row(res);
	snprintf(create, sizeof(create), "%s", row[1]);
	mysql_free_result(res);
	for (p = create; (p = strchr(p, '%')) != NULL; p++)
		*p = ' ';
	start(20);
	sql("DROP TABLE new_mail");
	simple(0, "no-table@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_LOST, "table dropped: lost at once");
	mysql_query(admin, create);
	answered = 0;
	simple(0, "table@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "table made again: stored");
	/* The published widths: text that does not fit must not be refused for good. */
	empty();
	sql("ALTER TABLE new_mail MODIFY recipient varchar(8) NOT NULL");
	answered = 0;
	simple(0, "x@y.zz");
	simple(1, "longer@example.com");
	simple(2, "z@y.xx");
	loop(3, 3000);
	ok(mails[0].status == DB_STORED && mails[1].status == DB_LOST &&
	    mails[2].status == DB_STORED,
	    "a column too narrow: that mail is lost, not refused, the others stored");
	sql("DROP TABLE new_mail");
	mysql_query(admin, create);
	stop();
}

static void
test_full(void)
{
	start(20);
	sql("ALTER TABLE new_mail AUTO_INCREMENT=2147483646, MODIFY mail_id int NOT NULL "
	    "AUTO_INCREMENT");
	simple(0, "a@b");
	loop(1, 3000);
	answered = 0;
	simple(1, "b@b");
	simple(2, "c@b");
	loop(2, 3000);
	ok(mails[0].status == DB_STORED && mails[1].status == DB_LOST && mails[2].status == DB_LOST,
	    "mail_id used up: lost, not refused");
	empty();
	sql("ALTER TABLE new_mail AUTO_INCREMENT=1, MODIFY mail_id bigint unsigned NOT NULL "
	    "AUTO_INCREMENT");
	stop();
}

static void
test_read_only(void)
{
	conf.user = "smtpd";
	conf.pass = "se'cret";
	start(3);
	simple(0, "x@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "INSERT and SELECT on the one table are enough");
	sql("SET GLOBAL read_only=1");
	answered = 0;
	simple(0, "x@example.com");
	loop(1, 1500);
	ok(mails[0].status == DB_PENDING, "read_only: the mail waits");
	sql("SET GLOBAL read_only=0");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "until it is off");
	sql("SET GLOBAL read_only=1");
	answered = 0;
	simple(0, "x@example.com");
	loop(1, 6000);
	ok(mails[0].status == DB_LOST, "on for longer: lost");
	sql("SET GLOBAL read_only=0");
	stop();

	start(5);
	sql("ALTER USER smtpd@localhost IDENTIFIED BY 'other'");
	cut_off();
	loop(1, 300);
	simple(0, "x@example.com");
	loop(1, 300);
	ok(mails[0].status == DB_LOST, "password changed: lost at once");
	ok(!simple(0, "x@example.com"), "and the next before it is taken");
	sql("ALTER USER smtpd@localhost IDENTIFIED BY 'se''cret'");
	answered = 0;
	loop(1, 2000);
	answered = 0;
	simple(0, "x@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "changed back: stored");
	sql("REVOKE INSERT ON mail.new_mail FROM smtpd@localhost");
	answered = 0;
	simple(0, "x@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_LOST, "INSERT revoked: lost at once");
	sql("GRANT INSERT ON mail.new_mail TO smtpd@localhost");
	answered = 0;
	simple(0, "x@example.com");
	loop(1, 3000);
	ok(mails[0].status == DB_STORED, "granted: stored");
	stop();
	conf.user = "dbtest";
	conf.pass = "";
}

/* An OK of the server counts only outside a transaction. */
static void
test_transaction(void)
{
	int i;

	conf.user = "smtpd";	/* init_connect is not for administrators */
	conf.pass = "se'cret";
	for (i = 0; i < 3; i++) {
		empty();
		sql("SET GLOBAL init_connect='%s'", i == 0 ? "START TRANSACTION" : i == 1 ?
		    "SET autocommit=0" : "SET autocommit=0; SELECT COUNT(*) FROM mail.new_mail");
		start(3);
		simple(0, "x@example.com");
		add(1, "y@example.com", text("b"), (struct db_text){ large, 9000000 });
		loop(2, 5000);
		ok(mails[0].status == DB_STORED && mails[1].status == DB_STORED &&
		    atoi(ask("SELECT COUNT(*) FROM new_mail")) == 2,
		    "init_connect %d: stored and committed", i);
		stop();
		ok(atoi(ask("SELECT COUNT(*) FROM new_mail")) == 2, "and still there");
	}
	sql("SET GLOBAL init_connect=''");
	conf.user = "dbtest";
	conf.pass = "";

	relay_start();
	for (i = 0; i < 2; i++) {
		empty();
		start(3);
		simple(0, "x@example.com");
		loop(1, 3000);
		relay_signal(SIGUSR1);
		answered = 0;
		add(1, "y@example.com", text("b"), (struct db_text){ large, i ? 9000000 : 9 });
		loop(1, 3000);
		ok(mails[1].status == (i ? DB_STORED : DB_LOST),
		    "a transaction that a proxy began: %s", i ? "a large mail has its own" : "lost");
		stop();
		ok(atoi(ask("SELECT COUNT(*) FROM new_mail")) == 1 + i, "as the table says");
	}
	relay_stop();
}

static void
test_packet(void)
{
	int i, good = 1;

	start(20);
	memset(large, 'a', LARGE);
	sql("LOCK TABLES new_mail WRITE");
	simple(0, "first@example.com");
	run(NULL, NULL);
	for (i = 1; i < 11; i++)
		add(i, "x@example.com", text("b"), (struct db_text){ large, 100000 });
	for (i = 11; i < 14; i++)
		add(i, "x@example.com", text("b"), (struct db_text){ large, 900000 });
	add(14, "x@example.com", text("b"), (struct db_text){ large, 2000000 });
	sql("SET GLOBAL max_allowed_packet=1048576");
	cut_off();
	loop(1, 100);
	sql("UNLOCK TABLES");
	loop(15, 10000);
	for (i = 1; i < 14; i++)
		good &= mails[i].status == DB_STORED;
	ok(good, "max_allowed_packet shrinks: batches are sent in parts");
	ok(mails[14].status == DB_TOO_BIG && db_max_mail(db) < 1048576, "a mail too large is told so");
	ok(add(14, "x", text("b"), (struct db_text){ large, 2000000 }) == DB_TOO_BIG,
	    "and too big from then on");
	answered = 0;
	add(0, "x", (struct db_text){ large, 900000 }, (struct db_text){ large, 900000 });
	loop(1, 5000);
	ok(mails[0].status == DB_STORED, "but one that just fits is taken apart");
	sql("SET GLOBAL max_allowed_packet=16777216");
	stop();
}

static void
test_hosts(void)
{
	static char hosts[300];
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int silent = socket(AF_INET, SOCK_STREAM, 0), full[4], i;
	long long t = ms();

	memset(&sa, 0, sizeof(sa));
	sa.sin_family = AF_INET;
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bind(silent, (struct sockaddr *)&sa, sizeof(sa));
	listen(silent, 1);
	getsockname(silent, (struct sockaddr *)&sa, &len);
	snprintf(hosts, sizeof(hosts), "/nowhere/at/all, 127.0.0.1:1,127.0.0.1:%d , %s",
	    ntohs(sa.sin_port), socket_path);
	conf.hosts = hosts;
	start(20);
	simple(0, "x@example.com");
	loop(1, 12000);
	ok(mails[0].status == DB_STORED, "past three dead hosts after %lld ms", ms() - t);
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	stop();
	/* Nobody accepts: once the backlog is full not even the kernel answers. */
	for (i = 0; i < 4; i++) {
		full[i] = socket(AF_INET, SOCK_STREAM, 0);
		fcntl(full[i], F_SETFL, O_NONBLOCK);
		connect(full[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	t = ms();
	start(20);
	simple(0, "x@example.com");
	loop(1, 12000);
	ok(mails[0].status == DB_STORED, "past a host that drops packets after %lld ms", ms() - t);
	stop();
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	t = ms();
	start(20);
	stop();
	ok(ms() - t < 150, "freed while it connects: %lld ms", ms() - t);
	for (i = 0; i < 4; i++)
		close(full[i]);
	conf.hosts = "127.0.0.1:1,/nowhere";
	start(2);
	simple(0, "x@example.com");
	loop(1, 4000);
	ok(mails[0].status == DB_LOST, "no host at all: lost");
	ok(!simple(0, "x@example.com"), "then at once");
	stop();
	conf.hosts = socket_path;
	close(silent);
}

/* What db_check() says of the table after a statement. */
static void
check(int want, const char *words, const char *before, const char *after)
{
	char why[2048];
	int is;

	if (*before)
		sql("%s", before);
	is = db_check(&conf, why, sizeof(why));
	if (*after)
		sql("%s", after);
	ok(is == want && strstr(why, words) && strlen(why) + 1 < sizeof(why) && !strchr(why, '\n'),
	    "check %d: %s", is, why);
}

static void
test_check(void)
{
	check(0, "`new_mail`", "", "");
	conf.hosts = "/nowhere,127.0.0.1:1";
	check(1, "200", "", "");
	conf.hosts = socket_path;
	conf.hosts = "localhost:1";
	check(1, "localhost:1: 200", "", "");		/* TCP, not the library's socket */
	conf.hosts = " , localhost,";
	check(1, "localhost: 2", "", "");
	conf.hosts = "127.0.0.1:1,";
	check(1, "127.0.0.1:1: 200", "", "");		/* and no other */
	conf.hosts = socket_path;
	conf.user = "smtpd";
	check(-1, "MYSQL_PASS", "", "");
	conf.pass = "se'cret";
	check(0, "`new_mail`", "", "");
	check(-1, "GRANT INSERT, SELECT ON mail.new_mail TO smtpd@localhost", "REVOKE INSERT ON mail.new_mail FROM smtpd@localhost",
	    "GRANT INSERT ON mail.new_mail TO smtpd@localhost");
	check(1, "read-only", "SET GLOBAL read_only=1", "SET GLOBAL read_only=0");
	conf.name = "nosuch";
	check(-1, "check MYSQL_DB and GM_MAIL_TABLE", "", "");
	conf.user = "dbtest";
	conf.pass = "";
	check(-1, "MYSQL_DB", "", "");
	conf.name = "mail";
	conf.table = "no`such";
	check(-1, "schema.sql", "", "");
	conf.table = "published";
	sql("DROP TABLE IF EXISTS published");
	check(-1, "`from`, `to`, `subject`, `body`, `charset`, `content_type`, `recipient`", "CREATE TABLE published ("
	    "mail_id int(11) NOT NULL AUTO_INCREMENT, `date` datetime NOT NULL, "
	    "`from` varchar(128) CHARACTER SET latin1 NOT NULL, "
	    "`to` varchar(128) CHARACTER SET latin1 NOT NULL, subject varchar(255) NOT NULL, "
	    "body text NOT NULL, charset varchar(32) CHARACTER SET latin1 NOT NULL, "
	    "mail longblob NOT NULL, spam_score float NOT NULL, "
	    "hash char(32) CHARACTER SET latin1 NOT NULL, "
	    "content_type varchar(64) CHARACTER SET latin1 NOT NULL, "
	    "recipient varchar(128) CHARACTER SET latin1 NOT NULL, PRIMARY KEY (mail_id), "
	    "KEY `to` (`to`), KEY hash (hash), KEY `date` (`date`)) "
	    "ENGINE=InnoDB DEFAULT CHARSET=utf8 ROW_FORMAT=DYNAMIC", "");
	sql("ALTER TABLE published MODIFY `from` varchar(320) CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY `to` varchar(320) CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY subject text CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY body mediumtext CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY charset varchar(64) CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY content_type varchar(128) CHARACTER SET utf8mb4 NOT NULL, "
	    "MODIFY recipient varchar(320) CHARACTER SET utf8mb4 NOT NULL");
	check(0, "", "", "");
	check(-1, "ENGINE=InnoDB", "ALTER TABLE published DROP KEY `to`, ENGINE=MyISAM",
	    "ALTER TABLE published ENGINE=InnoDB");
	check(-1, "`mail`", "ALTER TABLE published MODIFY mail longtext NOT NULL", "");
	check(-1, "`mail`", "ALTER TABLE published MODIFY mail blob NOT NULL", "");
	check(0, "", "ALTER TABLE published MODIFY mail mediumblob NOT NULL", "");
	check(-1, "`body`", "ALTER TABLE published MODIFY body mediumtext CHARACTER SET "
	    "utf8 NOT NULL", "ALTER TABLE published MODIFY body longtext CHARACTER SET utf8mb4");
	check(-1, "'hash'", "ALTER TABLE published DROP hash",
	    "ALTER TABLE published ADD hash char(32) NOT NULL");
	check(-1, "`extra`", "ALTER TABLE published ADD extra int NOT NULL",
	    "ALTER TABLE published MODIFY extra int");
	check(0, "", "", "");
	check(-1, "`mail_id`", "ALTER TABLE published MODIFY mail_id int NOT NULL", "");
	check(-1, "`mail_id`", "ALTER TABLE published DROP mail_id",
	    "ALTER TABLE published ADD mail_id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY");
	check(0, "", "", "");
	conf.table = "seen";
	check(-1, "`seen` is a view", "CREATE VIEW seen AS SELECT * FROM published",
	    "DROP VIEW seen");
	conf.table = "published";
	check(-1, "SET GLOBAL max_allowed_packet", "SET GLOBAL max_allowed_packet=65536",
	    "SET GLOBAL max_allowed_packet=16777216");
	sql("DROP TABLE published");
	conf.table = "new_mail";
	sql("LOCK TABLES new_mail WRITE");
	conf.timeout = 2;
	check(1, "1205", "", "UNLOCK TABLES");
	server_stop();
	check(1, ": 2013 ", "", "");
	kill(server, SIGCONT);
}

/* A server, or what is in front of it, that hangs up while nothing is under way. */
static void
test_idle(void)
{
	int i, good = 1;

	conf.user = "smtpd";
	conf.pass = "se'cret";
	sql("SET GLOBAL wait_timeout=1");
	start(2);
	for (i = 0; i < 4; i++) {
		answered = 0;
		loop(1, 1300);
		simple(0, "x@example.com");
		loop(1, 3000);
		good &= mails[0].status == DB_STORED;
		mails[0].status = DB_PENDING;
	}
	ok(good, "wait_timeout=1: a mail every 1.3 s is stored");
	stop();
	sql("SET GLOBAL wait_timeout=28800");
	conf.user = "dbtest";
	conf.pass = "";
	relay_start();
	start(10);
	for (i = 0; i < 4; i++) {
		relay_signal(SIGUSR2);
		answered = 0;
		loop(1, 50);
		simple(0, "x@example.com");
		loop(1, 3000);
		good &= mails[0].status == DB_STORED;
		mails[0].status = DB_PENDING;
	}
	ok(good, "hung up four times while idle: the next mail is stored");
	stop();
	relay_stop();
}

static int
connections(void)
{
	return atoi(ask("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB='mail' AND "
	    "ID<>CONNECTION_ID()"));
}

/* One connection hangs, the others do not; none is opened for nothing. */
static void
test_several(void)
{
	struct timespec t = { 0, 20000000 };
	long long from;
	int i, good = 1, most = 0;

	relay_start();
	start(30);
	simple(0, "hangs@example.com");
	sql("LOCK TABLES new_mail WRITE");
	loop(1, 100);
	ok(connections() == 1, "one mail: one connection");
	for (i = 1; i < 40; i++) {
		simple(i, "behind@example.com");
		loop(40, 4);
		most = connections() > most ? connections() : most;
	}
	ok(most > 1 && most <= 4, "%d connections while the first does not answer", most);
	sql("UNLOCK TABLES");
	loop(40, 5000);
	for (i = 0; i < 40; i++)
		good &= mails[i].status == DB_STORED;
	ok(good, "all are stored once it does");

	/* The network is cut without a word, and comes back. */
	kill(relay, SIGSTOP);
	for (i = 0; i < 100; i++) {
		simple(i, "cut@example.com");
		loop(1000, 120);
	}
	kill(relay, SIGCONT);
	from = ms();
	answered = 0;
	mails[200].status = DB_PENDING;
	simple(200, "after@example.com");
	while (mails[200].status == DB_PENDING && ms() - from < 20000) {
		answered = 0;
		loop(1, 20);
	}
	ok(mails[200].status == DB_STORED && ms() - from < 5000,
	    "cut off for 12 s: a mail is stored %lld ms after the end of that", ms() - from);
	stop();
	relay_stop();
	nanosleep(&t, NULL);
	conf.connections = 1;
	start(10);
	for (i = 0; i < 100; i++)
		simple(i, "x@example.com");
	sql("LOCK TABLES new_mail WRITE");
	loop(100, 100);
	ok(connections() <= 1, "one where one is allowed");
	sql("UNLOCK TABLES");
	loop(100, 3000);
	ok(answered == 100, "and it stores all");
	stop();
	conf.connections = 8;
}

/* A connection hangs while no other can be made. Once it answers, mails are taken again. */
static void
test_recovered(void)
{
	conf.user = "smtpd";
	conf.pass = "se'cret";
	start(30);
	simple(0, "first@example.com");
	loop(1, 3000);
	sql("ALTER USER smtpd@localhost IDENTIFIED BY 'other'");
	sql("LOCK TABLES new_mail WRITE");
	simple(1, "hangs@example.com");
	loop(2, 100);
	simple(2, "behind@example.com");
	loop(3, 12000);
	ok(mails[1].status == DB_PENDING && mails[2].status == DB_LOST,
	    "a statement hangs, and nobody else is let in: the next mail is lost");
	sql("UNLOCK TABLES");
	loop(3, 3000);
	ok(mails[1].status == DB_STORED, "the statement has its answer");
	answered = 0;
	ok(simple(3, "after@example.com"), "its connection is of use: a mail is taken");
	loop(1, 3000);
	ok(mails[3].status == DB_STORED, "and stored");
	stop();
	sql("ALTER USER smtpd@localhost IDENTIFIED BY 'se''cret'");
	conf.user = "dbtest";
	conf.pass = "";
}

/* Errors of no known class: the mail is found, deferred, and stops no other. */
static void
test_unknown(void)
{
	char rcpt[40];
	int i, good = 1;

	sql("CREATE TABLE two (x int)");
	sql("INSERT INTO two VALUES (1),(2)");
	sql("CREATE TRIGGER odd BEFORE INSERT ON new_mail FOR EACH ROW BEGIN DECLARE y int; "
	    "IF NEW.recipient LIKE 'odd%%' THEN SELECT x INTO y FROM two; END IF; END");
	start(10);
	for (i = 0; i < 50; i++) {
		sprintf(rcpt, "%s-%d@example.com", i == 17 || i == 40 ? "odd" : "fine", i);
		simple(i, rcpt);
	}
	loop(50, 5000);
	for (i = 0; i < 50; i++)
		good &= mails[i].status == (i == 17 || i == 40 ? DB_LOST : DB_STORED);
	ok(good, "1172 of a trigger: two mails are deferred, 48 stored");
	ok(atoi(ask("SELECT COUNT(DISTINCT recipient) FROM new_mail")) == 48, "each of these once");
	add(0, "odd@example.com", text("b"), (struct db_text){ large, 3000000 });
	add(1, "fine@example.com", text("b"), (struct db_text){ large, 3000000 });
	answered = 0;
	loop(2, 5000);
	ok(mails[0].status == DB_LOST && mails[1].status == DB_STORED, "large ones as well");
	stop();
	sql("DROP TRIGGER odd");
	sql("DROP TABLE two");
}

/* max_allowed_packet is raised while connections are open. */
static void
test_raised(void)
{
	sql("SET GLOBAL max_allowed_packet=1048576");
	start(20);
	ok(add(0, "x", text("b"), (struct db_text){ large, 3000000 }) == DB_TOO_BIG,
	    "3 MB are too big for a server that takes 1 MB");
	sql("SET GLOBAL max_allowed_packet=16777216");
	answered = 0;
	loop(1, 5500);
	ok(add(0, "x", text("b"), (struct db_text){ large, 3000000 }) == DB_PENDING,
	    "seconds later it is asked again");
	loop(1, 5000);
	ok(mails[0].status == DB_STORED && db_max_mail(db) > 16000000, "and it takes them");
	ok(add(0, "x", text("b"), (struct db_text){ large, 17000000 }) == DB_TOO_BIG,
	    "17 MB are too big still");
	stop();
}

/* More rows than one statement holds. */
static void
test_many_rows(void)
{
	static struct db_row many[10000];
	static char name[10000][160];
	struct db_columns *c = &mails[0].col;
	int i;

	sql("SET GLOBAL max_allowed_packet=1048576");
	start(60);
	simple(0, "x@example.com");
	loop(1, 3000);
	empty();
	for (i = 0; i < 10000; i++) {
		snprintf(name[i], sizeof(name[i]), "%0150d", i);
		many[i].to = many[i].recipient = text(name[i]);
		many[i].hash = text("0123456789abcdef0123456789abcdef");
	}
	c->mail = (struct db_text){ large, 500 };
	c->row = many;
	c->rows = 10000;
	answered = 0;
	mails[0].status = DB_PENDING;
	db_add(db, &mails[0]);
	loop(1, 60000);
	ok(mails[0].status == DB_STORED && atoi(ask("SELECT COUNT(DISTINCT `to`) FROM new_mail")) ==
	    10000, "10,000 recipients and max_allowed_packet of 1 MB");
	ok(longest < 100, "no call waited 100 ms: %lld", longest);
	sql("SET GLOBAL max_allowed_packet=16777216");
	stop();
}

/* More than a batch holds: nothing of it is copied but what is on its way. */
static void
test_queue(void)
{
	static char body[20000];
	int i, good = 1;

	memset(body, 'q', sizeof(body));
	start(10);
	for (i = 0; i < MAILS; i++)
		good &= add(i, "queue@example.com", (struct db_text){ body, sizeof(body) },
		    (struct db_text){ body, sizeof(body) }) == DB_PENDING;
	run(NULL, NULL);
	ok(good && db_held(db) < 3000000, "10 MB wait, %zu octets are held for them", db_held(db));
	loop(MAILS, 5000);
	for (i = 0; i < MAILS; i++)
		good &= mails[i].status == DB_STORED;
	ok(good && db_held(db) == 0, "and none when they are stored");
	stop();
}

/* A server where nothing can be prepared: the rows travel as text. */
static void
test_plain(void)
{
	void (*const again[])(void) = { test_one, test_octets, test_cut, test_batch, test_poison,
	    test_kill, test_dropped };
	size_t i;

	sql("SET GLOBAL max_prepared_stmt_count=0");
	for (i = 0; i < sizeof(again) / sizeof(again[0]); i++) {
		empty();
		again[i]();
	}
	ok(strcmp(ask("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'"), "0") == 0,
	    "nothing was prepared");
	sql("SET GLOBAL max_prepared_stmt_count=16382");
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "one", test_one },
	{ "octets", test_octets },
	{ "cut", test_cut },
	{ "batch", test_batch },
	{ "queue", test_queue },
	{ "poison", test_poison },
	{ "unknown", test_unknown },
	{ "idle", test_idle },
	{ "several", test_several },
	{ "recovered", test_recovered },
	{ "raised", test_raised },
	{ "many_rows", test_many_rows },
	{ "kill", test_kill },
	{ "locked", test_locked },
	{ "hung", test_hung },
	{ "large", test_large },
	{ "large_killed", test_large_killed },
	{ "dropped", test_dropped },
	{ "full", test_full },
	{ "read_only", test_read_only },
	{ "transaction", test_transaction },
	{ "packet", test_packet },
	{ "hosts", test_hosts },
	{ "check", test_check },
	{ "plain", test_plain },
};

int
main(int argc, char **argv)
{
	size_t i;
	int j;

	if (argc < 3) {
		fprintf(stderr, "usage: db_test socket pid [name...]\n");
		return 2;
	}
	socket_path = argv[1];
	server = (pid_t)atoi(argv[2]);
	if (server <= 1 || kill(server, 0) == -1 || (large = malloc(LARGE)) == NULL)
		return 2;
	memset(large, 'l', LARGE);
	admin = login();
	conf.hosts = socket_path;
	conf.user = "dbtest";
	conf.pass = "";
	conf.name = "mail";
	conf.table = "new_mail";
	conf.max_size = 10485760;
	conf.connections = 8;
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		for (j = 3; j < argc && strcmp(argv[j], tests[i].name) != 0; j++)
			;
		if (argc > 3 && j == argc)
			continue;
		empty();
		printf("# %s\n", tests[i].name);
		tests[i].run();
	}
	mysql_close(admin);
	free(large);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
