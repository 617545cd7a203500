/*
 * db_test - db.c against a real server: db_test socket [name...]
 *
 * The server is this test's own (test/db_test.sh starts it). A second, plain
 * connection looks at what was stored and makes the trouble.
 */
#define _POSIX_C_SOURCE 200809L

#include <mysql.h>

#include <signal.h>
#include <stdint.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "../db.h"

#define MAILS 256

static const char *socket_path;
static MYSQL *admin;
static struct db_config conf;
static struct db *db;
static struct db_mail mails[MAILS];
static int passed, failed, answered;
static long long longest;	/* call to db_run() or db_add(), ms */

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

static MYSQL *
login(void)
{
	MYSQL *my = mysql_init(NULL);

	if (!my || !mysql_real_connect(my, NULL, "root", NULL, "mail", 0, socket_path, 0)) {
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

/* The first column of the first row; "" where there is none. */
static const char *
ask(const char *fmt, ...)
{
	static char text[65536], answer[65536];
	va_list ap;
	MYSQL_RES *res;
	MYSQL_ROW row;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	answer[0] = '\0';
	if (mysql_query(admin, text) != 0 || (res = mysql_store_result(admin)) == NULL) {
		printf("# %s: %s\n", text, mysql_error(admin));
		return answer;
	}
	if ((row = mysql_fetch_row(res)) != NULL && row[0])
		snprintf(answer, sizeof(answer), "%s", row[0]);
	mysql_free_result(res);
	return answer;
}

static void
run(void)
{
	long long t = ms();
	struct db_mail *m;
	const char *news;

	db_run(db);
	if (ms() - t > longest)
		longest = ms() - t;
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
	int fd;

	for (run(); answered < n && ms() < end; run()) {
		FD_ZERO(&r);
		FD_ZERO(&w);
		if ((fd = db_fd(db)) != -1) {
			if (db_wants(db) & DB_READ)
				FD_SET(fd, &r);
			if (db_wants(db) & DB_WRITE)
				FD_SET(fd, &w);
		}
		wait = db_timeout(db);
		if (wait < 0 || wait > end - ms())
			wait = end > ms() ? (long)(end - ms()) : 0;
		tv.tv_sec = wait / 1000;
		tv.tv_usec = wait % 1000 * 1000;
		select(fd + 1, &r, &w, NULL, &tv);
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
	struct db_columns c;
	struct db_row row;
	enum db_status status;
	long long t = ms();

	c.date = 1700000000;
	c.from = text("from@example.org");
	c.subject = text("subject");
	c.body = body;
	c.charset = text("utf-8");
	c.content_type = text("text/plain");
	c.mail = mail;
	row.to = row.recipient = text(rcpt);
	row.hash = text("0123456789abcdef0123456789abcdef");
	c.row = &row;
	c.rows = 1;
	status = db_add(db, &mails[i], &c);
	if (ms() - t > longest)
		longest = ms() - t;
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
	ok(strcmp(ask("SELECT recipient FROM new_mail"), "one@example.com") == 0, "as a row");
	stop();
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "one", test_one },
};

int
main(int argc, char **argv)
{
	size_t i;
	int j;

	if (argc < 2) {
		fprintf(stderr, "usage: db_test socket [name...]\n");
		return 2;
	}
	socket_path = argv[1];
	admin = login();
	conf.hosts = socket_path;
	conf.user = "root";
	conf.pass = "";
	conf.name = "mail";
	conf.table = "new_mail";
	conf.max_size = 10485760;
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		for (j = 2; j < argc && strcmp(argv[j], tests[i].name) != 0; j++)
			;
		if (argc > 2 && j == argc)
			continue;
		empty();
		printf("# %s\n", tests[i].name);
		tests[i].run();
	}
	mysql_close(admin);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
