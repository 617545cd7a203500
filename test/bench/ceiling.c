/*
 * ceiling - what the database can commit: the same rows, and nothing else to do
 *
 *	ceiling socket user db table connections rows-a-statement mails file...
 *
 * Inserts each file as a row (mail, and its body as text) in multi-row INSERTs
 * of so many rows, or 1 MB, over so many connections, each a process; as text,
 * or, rows given as -n, as parameters of a prepared statement. Prints: rows,
 * seconds, two zeros, CPU seconds of its own.
 */
#define _DEFAULT_SOURCE 1

#include <mysql.h>

#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct row { char *sql, *body, *mail; size_t len, body_len, mail_len; } rows[1000];
static int nrows;

static double
clock_s(void)
{
	struct timeval t;

	gettimeofday(&t, NULL);
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static char *
quote(char *d, const char *p, size_t n)
{
	for (; n > 0; n--, p++) {
		if (*p == '\'' || *p == '\\')
			*d++ = '\\';
		*d++ = *p;
	}
	return d;
}

static void
read_row(const char *path, struct row *r)
{
	FILE *f = fopen(path, "rb");
	static char raw[1 << 24];
	size_t n;
	char *d, *body;

	if (f == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(raw, 1, sizeof(raw) - 1, f);
	raw[n] = '\0';
	fclose(f);
	body = strstr(raw, "\r\n\r\n");
	d = r->sql = malloc(4 * n + 1000);
	d += sprintf(d, "('2026-01-01 00:00:00','bench@sender.example','a@test.example','a subject','");
	/* About as much body as smtpd stores for the files of the mix. */
	r->mail = strdup(raw);
	r->mail_len = strlen(raw);
	n -= (size_t)(body - raw);
	n = n > 65536 ? n / 16 : n * 3 / 4;
	r->body = r->mail + (body - raw);
	r->body_len = n;
	d = quote(d, body, n);
	d += sprintf(d, "','utf-8',_binary'");
	d = quote(d, raw, strlen(raw));
	d += sprintf(d, "',0,'0123456789abcdef0123456789abcdef','text/html','a@test.example')");
	r->len = (size_t)(d - r->sql);
}

#define PARAMS 10

/* The same rows as parameters. */
static void
insert_prepared(MYSQL *my, const char *table, int from, int step, int each, int total)
{
	static MYSQL_STMT *stmt[129];
	static MYSQL_BIND bind[128 * PARAMS];
	static const char *const same[PARAMS] = { "2026-01-01 00:00:00", "bench@sender.example",
	    "a@test.example", "a subject", NULL, "utf-8", NULL, "0123456789abcdef0123456789abcdef",
	    "text/html", "a@test.example" };
	char sql[8192];
	size_t size;
	int i, k, n;

	if (mysql_query(my, "SET NAMES binary") != 0)
		exit(1);
	for (i = from; i < total; ) {
		MYSQL_BIND *b = bind;

		for (n = 0, size = 0; n < each && i < total && (n == 0 || size < 1 << 20); n++, i += step) {
			const struct row *r = &rows[i % nrows];

			for (k = 0; k < PARAMS; k++, b++) {
				b->buffer_type = MYSQL_TYPE_STRING;
				b->buffer = k == 4 ? r->body : k == 6 ? r->mail : (char *)same[k];
				b->buffer_length = (unsigned long)(k == 4 ? r->body_len :
				    k == 6 ? r->mail_len : strlen(same[k]));
				b->length = &b->buffer_length;
			}
			size += r->body_len + r->mail_len;
		}
		if (stmt[n] == NULL) {
			size = (size_t)sprintf(sql, "INSERT INTO %s (`date`,`from`,`to`,subject,body,"
			    "charset,mail,spam_score,hash,content_type,recipient) VALUES ", table);
			for (k = 0; k < n; k++)
				size += (size_t)sprintf(sql + size, "%s(?,?,?,?,?,?,?,0,?,?,?)", k ? "," : "");
			stmt[n] = mysql_stmt_init(my);
			if (mysql_stmt_prepare(stmt[n], sql, size) != 0)
				size = 0;
		}
		if (size == 0 || mysql_stmt_bind_param(stmt[n], bind) != 0 ||
		    mysql_stmt_execute(stmt[n]) != 0) {
			fprintf(stderr, "ceiling: %s\n", mysql_stmt_error(stmt[n]));
			exit(1);
		}
	}
	exit(0);
}

/* Inserts mails from, from + step, ... below total. */
static void
insert(char **argv, int from, int step, int each, int total)
{
	MYSQL *my = mysql_init(NULL);
	static char sql[1 << 25];
	size_t head, len;
	int i, n;

	mysql_options(my, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	if (!mysql_real_connect(my, NULL, argv[2], NULL, argv[3], 0, argv[1], 0)) {
		fprintf(stderr, "ceiling: %s\n", mysql_error(my));
		exit(1);
	}
	if (each < 0)
		insert_prepared(my, argv[4], from, step, -each, total);
	head = (size_t)sprintf(sql, "INSERT INTO %s (`date`,`from`,`to`,subject,body,charset,mail,"
	    "spam_score,hash,content_type,recipient) VALUES ", argv[4]);
	for (i = from; i < total; ) {
		len = head;
		for (n = 0; n < each && i < total && (n == 0 || len < 1 << 20); n++, i += step) {
			const struct row *r = &rows[i % nrows];

			if (n > 0)
				sql[len++] = ',';
			memcpy(sql + len, r->sql, r->len);
			len += r->len;
		}
		if (mysql_real_query(my, sql, len) != 0) {
			fprintf(stderr, "ceiling: %s\n", mysql_error(my));
			exit(1);
		}
	}
	mysql_close(my);
	exit(0);
}

int
main(int argc, char **argv)
{
	int i, connections, each, total, status, failed = 0;
	struct rusage u;
	double start;

	if (argc < 9) {
		fprintf(stderr, "usage: ceiling socket user db table connections rows mails file...\n");
		return 1;
	}
	connections = atoi(argv[5]);
	each = atoi(argv[6]);
	total = atoi(argv[7]);
	for (i = 8; i < argc; i++) {
		char *star = strchr(argv[i], '*');
		struct row r;
		int times;

		read_row(star ? star + 1 : argv[i], &r);
		for (times = star ? atoi(argv[i]) : 1; times > 0; times--)
			rows[nrows++] = r;
	}
	start = clock_s();
	for (i = 0; i < connections; i++)
		if (fork() == 0)
			insert(argv, i, connections, each, total);
	for (i = 0; i < connections; i++) {
		wait(&status);
		failed |= status;
	}
	start = clock_s() - start;
	getrusage(RUSAGE_CHILDREN, &u);
	printf("%d %.3f 0 0 %.3f\n", failed ? 0 : total, start, (double)(u.ru_utime.tv_sec +
	    u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	return failed != 0;
}
