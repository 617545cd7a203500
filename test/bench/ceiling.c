/*
 * ceiling - what the database can commit: the same rows, and nothing else to do
 *
 *	ceiling socket user db table connections rows-a-statement mails file...
 *
 * Inserts each file as a row (mail, and its body as text) in multi-row INSERTs
 * of so many rows, or 1 MB, over so many connections, each a process. Prints:
 * rows, seconds, CPU seconds of its own.
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

static struct row { char *sql; size_t len; } rows[1000];
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
	n -= (size_t)(body - raw);
	d = quote(d, body, n > 65536 ? n / 16 : n * 3 / 4);
	d += sprintf(d, "','utf-8',_binary'");
	d = quote(d, raw, strlen(raw));
	d += sprintf(d, "',0,'0123456789abcdef0123456789abcdef','text/html','a@test.example')");
	r->len = (size_t)(d - r->sql);
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
