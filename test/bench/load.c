/*
 * load - sends mails as fast as a server takes them, and measures its answers
 *
 *	load host port sessions mails keep rcpt file...
 *
 * Sends the files in turn over so many sessions at once, one mail a connection
 * or (keep 1) many; a name given as "3*file" counts three times. EHLO, MAIL and
 * RCPT wait for their replies one by one, as most senders do. hold: sessions <0
 * opens that many connections and only holds them until it is ended.
 * Prints: mails given 250, seconds, p50 and p99 of end of data to 250 in ms,
 * CPU seconds of its own.
 */
#define _DEFAULT_SOURCE 1

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mail { char *ptr; size_t len; };

enum step { BANNER, EHLO, MAIL, RCPT, DATA, END, QUIT };

struct client {
	int fd;
	enum step step;
	const struct mail *mail;
	size_t sent;			/* of the mail */
	double ended;			/* when the end of data was sent */
	char in[2048];
	size_t have;
};

static struct mail mails[1000];
static int nmails, total, begun, done, bad, keep;
static const char *rcpt;
static struct sockaddr_in server;
static double *latency;

static double
clock_s(void)
{
	struct timeval t;

	gettimeofday(&t, NULL);
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

/* A file as it goes over the wire: dots stuffed, the end of data behind it. */
static void
read_mail(const char *path, struct mail *m)
{
	FILE *f = fopen(path, "rb");
	size_t cap = 1 << 24, n, i;
	char *raw = malloc(cap), *d;

	if (f == NULL)
		fail(path);
	n = fread(raw, 1, cap, f);
	fclose(f);
	d = m->ptr = malloc(2 * n + 8);
	for (i = 0; i < n; i++) {
		if (raw[i] == '.' && (i == 0 || raw[i - 1] == '\n'))
			*d++ = '.';
		*d++ = raw[i];
	}
	memcpy(d, ".\r\n", 3);
	m->len = (size_t)(d - m->ptr) + 3;
	free(raw);
}

static void
say(struct client *c, const char *text)
{
	size_t n = strlen(text);

	if (write(c->fd, text, n) != (ssize_t)n)
		fail("write");
}

static void
open_client(struct client *c)
{
	if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) == -1 ||
	    connect(c->fd, (struct sockaddr *)&server, sizeof(server)) == -1)
		fail("connect");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	c->step = BANNER;
	c->have = 0;
}

static void
quit(struct client *c)
{
	say(c, "QUIT\r\n");
	c->step = QUIT;
}

static void
send_mail(struct client *c)
{
	ssize_t n;

	while (c->sent < c->mail->len) {
		n = write(c->fd, c->mail->ptr + c->sent, c->mail->len - c->sent);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n <= 0)
			fail("write of a mail");
		c->sent += (size_t)n;
	}
	c->ended = clock_s();
	c->step = END;
}

/* One whole reply has come. */
static void
next(struct client *c, int code)
{
	char text[400];

	switch (c->step) {
	case BANNER:
		say(c, "EHLO bench.test.example\r\n");
		c->step = EHLO;
		return;
	case END:
		latency[done++] = clock_s() - c->ended;
		bad += code != 250;
		if (!keep) {
			quit(c);
			return;
		}
		/* FALLTHROUGH */
	case EHLO:
		if (begun == total) {
			quit(c);
			return;
		}
		c->mail = &mails[begun++ % nmails];
		c->sent = 0;
		say(c, "MAIL FROM:<bench@sender.example>\r\n");
		c->step = MAIL;
		return;
	case MAIL:
		snprintf(text, sizeof(text), "RCPT TO:<%s>\r\n", rcpt);
		say(c, text);
		c->step = RCPT;
		return;
	case RCPT:
		say(c, "DATA\r\n");
		c->step = DATA;
		return;
	case DATA:
		if (code != 354) {
			fprintf(stderr, "load: DATA: %d\n", code);
			exit(1);
		}
		send_mail(c);
		return;
	case QUIT:
		close(c->fd);
		c->fd = -1;
		if (!keep && begun < total)
			open_client(c);
		return;
	}
}

static void
read_client(struct client *c)
{
	ssize_t n = read(c->fd, c->in + c->have, sizeof(c->in) - c->have - 1);
	char *line, *lf;

	if (n == -1 && errno == EAGAIN)
		return;
	if (n <= 0) {
		fprintf(stderr, "load: connection closed in step %d\n", (int)c->step);
		exit(1);
	}
	c->have += (size_t)n;
	c->in[c->have] = '\0';
	for (line = c->in; c->fd != -1 && (lf = strchr(line, '\n')) != NULL; ) {
		int last = lf - line > 3 && line[3] != '-', code = atoi(line);

		line = lf + 1;
		if (last)
			next(c, code);
	}
	if (c->fd == -1 || c->step == BANNER) {	/* closed, or opened anew */
		c->have = 0;
		return;
	}
	c->have -= (size_t)(line - c->in);
	memmove(c->in, line, c->have);
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	struct rusage u;
	struct client *c;
	struct pollfd *p;
	double start;
	int i, n, k, sessions, times;

	if (argc < 8) {
		fprintf(stderr, "usage: load host port sessions mails keep rcpt file...\n");
		return 1;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons((unsigned short)atoi(argv[2]));
	inet_pton(AF_INET, argv[1], &server.sin_addr);
	sessions = atoi(argv[3]);
	total = atoi(argv[4]);
	keep = atoi(argv[5]);
	rcpt = argv[6];
	for (i = 7; i < argc; i++) {
		char *star = strchr(argv[i], '*');
		struct mail m;

		read_mail(star ? star + 1 : argv[i], &m);
		for (times = star ? atoi(argv[i]) : 1; times > 0; times--)
			mails[nmails++] = m;
	}
	for (i = nmails - 1; i > 0; i--) {	/* the sizes mixed, the same way each time */
		struct mail m = mails[i];

		k = (int)((unsigned)i * 7919u % (unsigned)nmails);
		mails[i] = mails[k];
		mails[k] = m;
	}
	c = calloc((size_t)abs(sessions), sizeof(*c));
	p = calloc((size_t)abs(sessions), sizeof(*p));
	latency = calloc((size_t)total + 1, sizeof(*latency));
	if (sessions < 0) {
		for (i = 0; i < -sessions; i++)
			open_client(&c[i]);
		printf("held\n");
		fflush(stdout);
		for (;;)
			pause();
	}
	start = clock_s();
	for (i = 0; i < sessions; i++)
		open_client(&c[i]);
	while (done < total) {
		for (i = n = 0; i < sessions; i++)
			if (c[i].fd != -1) {
				p[i].fd = c[i].fd;
				p[i].events = c[i].step == DATA && c[i].sent > 0 ? POLLIN | POLLOUT : POLLIN;
				n++;
			} else
				p[i].fd = -1;
		if (n == 0)
			break;
		if (poll(p, (nfds_t)sessions, 60000) <= 0) {
			fprintf(stderr, "load: no answer for a minute\n");
			return 1;
		}
		for (i = 0; i < sessions; i++) {
			if (p[i].fd == -1 || p[i].revents == 0)
				continue;
			if (p[i].revents & POLLOUT)
				send_mail(&c[i]);
			if (c[i].fd != -1 && p[i].revents & (POLLIN | POLLHUP | POLLERR))
				read_client(&c[i]);
		}
	}
	start = clock_s() - start;
	qsort(latency, (size_t)done, sizeof(*latency), by_size);
	getrusage(RUSAGE_SELF, &u);
	printf("%d %.3f %.2f %.2f %.3f\n", done - bad, start, latency[done / 2] * 1000,
	    latency[done * 99 / 100] * 1000, (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	    (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	return bad != 0;
}
