/*
 * smtpd - receives mail by SMTP, stores it in MySQL, does nothing else
 *
 * It follows RFC 5321 (SMTP), 1870 (SIZE), 2034 (enhanced status codes), 2920
 * (PIPELINING), 3030 (CHUNKING, BINARYMIME), 6152 (8BITMIME), 6531 (SMTPUTF8)
 * and, built by "make tls", 3207 (STARTTLS). It never relays, bounces, looks up
 * a name, or judges a mail.
 *
 * Reading order: the sections below go from small to large, main() is last.
 * mime.c turns octets into text, db.c alone knows MySQL. A mail's way: data()
 * collects it, save_email() parses it and hands it to db.c, answer() sends the
 * 250 once its rows are committed.
 */
#define _DEFAULT_SOURCE 1	/* glibc, musl: setgroups(), MAP_ANONYMOUS beside POSIX.1-2008 */
#define __EXTENSIONS__ 1	/* the same on illumos; the BSDs show them unasked */
#define _FILE_OFFSET_BITS 64	/* a log over 2 GB, and a date after 2038, on 32 bits too */
#define _TIME_BITS 64		/* for db.h's time_t, in all that include it */

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>

#ifndef CHECKED
#define NDEBUG 1		/* the fuzzers' builds check what is asserted */
#endif
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "db.h"
#include "mime.h"
#include "tls.h"

#define VERSION "3.0"

enum {
	LINE_MAX_IN = 2048,	/* a command with CRLF; RFC 5321 4.5.3.1.4 asks for 512 */
	REPLY_MAX = 512,	/* a reply line with CRLF, 4.5.3.1.5 */
	TRACE_MAX = 2176,	/* of what is put before a message: Return-Path and Received */
	PATH_MAX_IN = 320,	/* local-part@domain, 64 + 1 + 255, 4.5.3.1.1 and .2; a column */
	HASH_LEN = 32,		/* MD5 in hexadecimal */
	BODY_MAX = 16777215,	/* what a mediumtext holds */
	SUBJECT_MAX = 65535,	/* what a text holds */
	READ_MAX = 131072,	/* octets of a message taken from one client at once */
	COMMANDS_MAX = 512,	/* octets of commands: who pipelines must not make others wait */
	OUT_MAX = 8192,		/* replies waiting for a client before it is read no further */
	RCPT_FREE = 8192,	/* octets of recipients that room() is not asked for */
	OWN_MAX = 1048576,	/* larger pieces of memory go back to the system one by one */
	SPARE_FDS = 22,		/* descriptors of a worker that are not clients */
	/* A line of the log, without its time: a pipe takes so much whole. */
	LOG_LINE = PIPE_BUF < 2080 ? PIPE_BUF - 32 : 2048,
	LOG_MS = 10,		/* lines of a worker that wait for others to be sent with */
	CHECK_MS = 3000,	/* for the database to answer at start and reload */
	PAUSE_MAX = 30000,	/* before the next start of a worker, where they die at once */
	FDS = FD_SETSIZE < 1024 ? FD_SETSIZE : 1024,	/* of a worker: what select() can watch */
	SLOTS = 512,		/* workers, those that drain among them */
	MESSAGES_MS = 10,	/* for messages before commands have their turn again */
	FEW_SESSIONS = 64,	/* up to so many, select() looks at all of them each time */
	HOT_MS = 500,
	COLD_MS = 2,		/* what an idle session's first word may wait beside busy ones, */
	COLD_MAX = 16,		/* or this, where none has spoken lately */
	RATE = 500,		/* octets a second that a message must bring on average, */
	BUSY_RATE = 10000,	/* or this, while most connections or most memory is in use, */
	BUSY_TIMEOUT = 10,	/* and seconds for a command then */
	LINGER = 2,		/* seconds to let a client read why it was cut off */
	DB_CONNECTIONS = 32,	/* to the database, of all workers, where these are not more */
	CALL_MS = 2000,		/* for what has arrived, once TERM has come, */
	DB_MS = 10000,		/* then for mails at the database, */
	STOP_MS = 14000	/* and a worker that takes longer is killed */
};

/* ---- types ---- */

enum name {
	GM_ALLOWED_HOSTS, GM_PRIMARY_MAIL_HOST, GM_MAIL_TABLE, GSMTP_HOST_NAME, GSMTP_LISTEN,
	GSMTP_MAX_SIZE, MAX_SMTP_CLIENTS, GSMTP_MAX_CLIENTS_PER_IP, GSMTP_MAX_RCPT,
	GSMTP_MAX_ERRORS, GSMTP_MAX_MEMORY, GSMTP_TIMEOUT, GSMTP_WORKERS, GSMTP_USER,
	GSMTP_CHECK_HEADER, GSMTP_LOG_FILE, GSMTP_VERBOSE, GSMTP_PROXY_FROM, GSMTP_TLS_CERT,
	GSMTP_TLS_KEY, MYSQL_HOST, MYSQL_USER, MYSQL_PASS, MYSQL_DB, MYSQL_TIMEOUT, NAMES
};

/* What a value is; up to SERVERS it is a list, with commas between its items. */
enum kind {
	DOMAINS, LISTENERS, NETWORKS, SERVERS, DOMAIN, NUMBER, SWITCH, WORD, LINE, SECRET
};

/* "" as a default: none, or worked out in config_finish(). Numbers have a min and a max. */
static const struct {
	const char *name;
	enum kind kind;
	const char *value;
	long min, max;
} settings[NAMES] = {
	[GM_ALLOWED_HOSTS] = { "GM_ALLOWED_HOSTS", DOMAINS, "", 0, 0 },
	[GM_PRIMARY_MAIL_HOST] = { "GM_PRIMARY_MAIL_HOST", DOMAIN, "", 0, 0 },
	[GM_MAIL_TABLE] = { "GM_MAIL_TABLE", WORD, "new_mail", 0, 0 },
	[GSMTP_HOST_NAME] = { "GSMTP_HOST_NAME", DOMAIN, "", 0, 0 },
	[GSMTP_LISTEN] = { "GSMTP_LISTEN", LISTENERS, "*", 0, 0 },
	[GSMTP_MAX_SIZE] = { "GSMTP_MAX_SIZE", NUMBER, "10485760", 1024, 1073741824 },
	[MAX_SMTP_CLIENTS] = { "MAX_SMTP_CLIENTS", NUMBER, "1000", 1, 100000 },
	[GSMTP_MAX_CLIENTS_PER_IP] = { "GSMTP_MAX_CLIENTS_PER_IP", NUMBER, "", 1, 100000 },
	[GSMTP_MAX_RCPT] = { "GSMTP_MAX_RCPT", NUMBER, "100", 1, 10000 },
	[GSMTP_MAX_ERRORS] = { "GSMTP_MAX_ERRORS", NUMBER, "10", 1, 1000000 },
	[GSMTP_MAX_MEMORY] = { "GSMTP_MAX_MEMORY", NUMBER, "268435456", 65536, LONG_MAX },
	[GSMTP_TIMEOUT] = { "GSMTP_TIMEOUT", NUMBER, "300", 1, 86400 },
	[GSMTP_WORKERS] = { "GSMTP_WORKERS", NUMBER, "", 1, SLOTS / 2 },
	[GSMTP_USER] = { "GSMTP_USER", WORD, "nobody", 0, 0 },
	[GSMTP_CHECK_HEADER] = { "GSMTP_CHECK_HEADER", SWITCH, "1", 0, 1 },
	[GSMTP_LOG_FILE] = { "GSMTP_LOG_FILE", LINE, "", 0, 0 },
	[GSMTP_VERBOSE] = { "GSMTP_VERBOSE", SWITCH, "0", 0, 1 },
	[GSMTP_PROXY_FROM] = { "GSMTP_PROXY_FROM", NETWORKS, "", 0, 0 },
	[GSMTP_TLS_CERT] = { "GSMTP_TLS_CERT", LINE, "", 0, 0 },
	[GSMTP_TLS_KEY] = { "GSMTP_TLS_KEY", LINE, "", 0, 0 },
	[MYSQL_HOST] = { "MYSQL_HOST", SERVERS, "localhost", 0, 0 },
	[MYSQL_USER] = { "MYSQL_USER", LINE, "", 0, 0 },
	[MYSQL_PASS] = { "MYSQL_PASS", SECRET, "", 0, 0 },
	[MYSQL_DB] = { "MYSQL_DB", WORD, "mail", 0, 0 },
	[MYSQL_TIMEOUT] = { "MYSQL_TIMEOUT", NUMBER, "60", 1, 3600 },
};

struct config {
	char *text[NAMES];
	long num[NAMES];
	char *source[NAMES];		/* where the value came from, for -t */
	/* What prepare() got for it: */
	struct passwd user;
	struct listeners { struct listener { int fd; char name[64]; } list[FDS]; int n; } listen;
	char tls[1024];			/* the certificate, or "" */
	int away;			/* the database did not answer */
};

struct buffer { char *ptr; size_t len, cap; };

/* The order counts: CHUNKED to STORING have a message, before STORING input runs. */
enum state { PROXY, NEW, GREETED, MAIL, RCPT, CHUNKED, DATA, CHUNK, STORING, CLOSING };
#define IN(state) (1u << (state))

/* How far the octets just taken have come towards CRLF "." CRLF, RFC 5321 4.5.2. */
enum eod { TEXT, CR, CRLF, DOT, DOTCR };

/* What RSET, EHLO and the end of data empty, RFC 5321 3.3. */
struct transaction {
	char *from;			/* reverse-path without its <>, "" for the null one */
	struct buffer rcpt;		/* forward-paths, each with its NUL */
	size_t rcpts;
	/* Both are freed by mail_free(): when it fails, or ends in transaction_reset(). */
	struct buffer mail;		/* trace fields, then the message */
	struct buffer columns;		/* of make_columns(): the decoded body, rows, text */
	size_t trace;			/* where the message starts */
	uint64_t size;			/* octets of the message seen, stored or not */
	int fail;			/* its first failure: what the end of data will answer */
	int utf8, binary;		/* parameters of MAIL */
};

/*
 * What holds whenever the loop leaves a session; session_check() asserts what it can see:
 *   - without a connection it is STORING: its mail is at the database, all else is given back;
 *   - there is a message only from DATA or BDAT on, columns of it only in STORING; from STORING
 *     to its answer all that struct db_mail points to is db.c's to read, and does not change;
 *   - input is kept where it must wait: for replies to be read, for the database, for others'
 *     turns, or for the rest of a command, which is all that is kept then (partial);
 *   - nothing is kept behind STARTTLS, and nothing runs once it is CLOSING.
 */
struct session {
	int fd;				/* -1: gone while its mail is at the database */
	enum state state;
	enum eod eod;
	unsigned char esmtp;		/* greeted with EHLO */
	unsigned char skip;		/* within a line that is too long */
	unsigned char told;		/* a refused address is in the log */
	unsigned char starttls;		/* the 220 is on its way, the handshake follows */
	unsigned char abrupt, shut;	/* CLOSING: close() at once; or shutdown() has been done */
	int errors;
	unsigned long id;		/* in the log */
	long long since;		/* ms: when it began to wait for what it waits for */
	uint64_t key;			/* its address, as GSMTP_MAX_CLIENTS_PER_IP counts */
	char peer[INET6_ADDRSTRLEN];
	char *helo;
	struct buffer in, out;		/* not yet run, not yet written; both empty when idle */
	size_t in_at;			/* what of it has run already */
	unsigned char partial;		/* the rest of it is a piece of a command */
	uint64_t chunk;			/* BDAT: octets still to come */
	int last;			/* BDAT: ... of the last chunk */
	struct transaction tx;
	struct db_mail mail;		/* at the database, in STORING */
	struct tls *tls;		/* NULL: in the clear */
};

/* What is counted, as the line of USR1 names it. */
enum count {
	N_CLIENTS, N_HELD,		/* now: connections, octets in memory; the rest only grow */
	N_CONNECTIONS, N_MAILS, N_ROWS, N_OCTETS, N_DEFERRED, N_REFUSED, N_REFUSED_RCPT,
	N_STATEMENTS, COUNTS
};
static const char *const count_names[COUNTS] = {
	"clients", "held", "connections", "mails", "rows", "octets", "deferred", "refused",
	"refused_rcpt", "statements"
};

/*
 * The board is shared memory, a slot a worker, for the master's whole life. A worker
 * writes its own slot alone. Its siblings read it, and trust it, for the limits that all
 * share; the master reads it for the log and trusts nothing. A slot that is nobody's is zero.
 */
struct board {
	int used;			/* how many of them have ever been somebody's */
	struct slot {
		uint64_t n[COUNTS];
		uint64_t key[FDS];	/* of its clients' addresses, by descriptor; 0: none */
	} slot[SLOTS];
};

/* What the master alone knows of a worker, by its slot on the board. */
struct child {
	pid_t pid;			/* 0: the slot is free */
	int draining;			/* since a HUP: not replaced when it ends */
	long long started;		/* ms */
};

extern char **environ;
/* Of every process: the settings, and what the command line said. */
static struct config conf;
static struct {
	const char *port, *file;	/* -p, -c */
	const char *set[NAMES];		/* settings that -l and -v stand for */
	int test;			/* -t */
} cli = { .port = "25" };

static volatile struct board *board;	/* made by the master */
static sigset_t unblocked;		/* while a loop sleeps */
/* What each process was told by signals. */
static volatile sig_atomic_t got_stop, got_hup, got_usr1, got_drain;

static long long now;			/* ms, monotonic, of this turn of the loop */

/* A worker's own, from fork() to exit: the master's functions do not name it. */
static struct {
	enum life {
		SERVING,
		DRAINING,		/* HUP: no new client, GSMTP_TIMEOUT for those there are */
		LAST_CALL,		/* TERM: what has arrived whole is taken */
		LEAVING			/* mails at the database get answers, all else 421 */
	} life;
	long long until;		/* ms: when that ends at the latest, but for SERVING */
	pid_t master;
	volatile struct slot *slot;	/* its slot on the board */
	struct db *db;
	int npending;			/* mails there */
	struct session *session[FDS];	/* by descriptor */
	long long active[FDS];		/* ms: when watch() last had to do with it */
	int top;			/* the largest descriptor of them, -1: there is none */
	int nsessions, max_sessions;
	unsigned long next_id;
	long long accept_at;		/* ms: no client is accepted before */
	size_t held, held_before;	/* octets for sessions: now, and a second ago */
	struct watched { fd_set r, w; } all, hot;	/* by all sessions; by the active ones */
	long long look_at;		/* ms: when to look at all of them again, look_at_all() */
	long long woken;		/* ms: when an idle one last spoke */
	const char *envelope;		/* the MAIL or RCPT that runs */
} worker = { .top = -1 };

/* ---- the log ---- */

/*
 * The master alone writes the log; workers send it their lines by a pipe that they share.
 * So they are whole and in the order of their times, which the master gives them. Nobody
 * ever waits: a line that finds no room is dropped and counted, and the count is told when
 * lines go again. No line is longer than what a pipe takes whole.
 */
static struct {
	int fd;				/* a file; -1: standard error, -2: not known yet; a pipe */
	int is_worker;
	long pid;			/* getpid() is a system call */
	char buf[32768];		/* whole lines; of the first a part may have gone */
	size_t len;
	int refused;			/* by a full disk, or a reader that is gone */
	long long since;		/* ms: when buf was empty and got a line */
	unsigned long dropped;
} journal = { .fd = -2 };

static void	log_line(unsigned long session, const char *fmt, ...);

static long long
clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Writes what goes without waiting. What does not go stays: the loop tries again. */
static void
log_flush(void)
{
	struct pollfd to = { journal.fd == -1 ? STDERR_FILENO : journal.fd, POLLOUT, 0 };
	struct pollfd console = { STDOUT_FILENO, POLLOUT, 0 };
	unsigned long dropped;
	size_t n;
	ssize_t done;

	while (journal.len > 0 && poll(&to, 1, 0) == 1) {
		n = journal.len < PIPE_BUF ? journal.len : PIPE_BUF;	/* so much goes whole */
		while (journal.buf[n - 1] != '\n')
			n--;
		done = write(to.fd, journal.buf, n);
		journal.refused = done == -1 && errno != EAGAIN;
		if (done <= 0)
			return;
		if (conf.num[GSMTP_VERBOSE] && journal.fd != -1 && !journal.is_worker &&
		    poll(&console, 1, 0) == 1 && write(console.fd, journal.buf, (size_t)done) == -1)
			console.fd = -1;	/* nobody looks: the log has it */
		journal.len -= (size_t)done;
		memmove(journal.buf, journal.buf + done, journal.len);
		if ((dropped = journal.dropped) > 0) {
			journal.dropped = 0;
			log_line(0, "log-dropped lines=%lu", dropped);
		}
	}
}

/* Adds a whole line; it is the master who gives it its time. */
static void
log_add(const char *line, size_t n)
{
	struct timespec t;
	struct tm tm;

	if (n + 32 > sizeof(journal.buf) - journal.len)
		log_flush();
	if (n + 32 > sizeof(journal.buf) - journal.len) {
		journal.dropped++;
		return;
	}
	if (journal.len == 0)
		journal.since = now;
	if (!journal.is_worker) {
		clock_gettime(CLOCK_REALTIME, &t);
		gmtime_r(&t.tv_sec, &tm);
		journal.len += strftime(journal.buf + journal.len, 24, "%Y-%m-%dT%H:%M:%S", &tm);
		journal.len += (size_t)snprintf(journal.buf + journal.len, 8, ".%03dZ ",
		    (int)(t.tv_nsec / 1000000));
	}
	memcpy(journal.buf + journal.len, line, n);
	journal.len += n;
}

/*
 * One line, "time pid session event key=value ..."; session 0 is the server
 * itself. Every octet that is not printable ASCII is shown as \xHH here, in the
 * one place that all text of clients and servers passes on its way to the log.
 * With -t it is a comment among the settings.
 */
static void
log_line(unsigned long session, const char *fmt, ...)
{
	char text[LOG_LINE], line[LOG_LINE];
	va_list ap;
	size_t i, len;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (cli.test) {
		printf("# %s\n", text);
		return;
	}
	len = (size_t)snprintf(line, sizeof(line), "%ld %lu ", journal.pid, session);
	for (i = 0; text[i] && len + 6 < sizeof(line); i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= ' ' && c < 127 && c != '\\')
			line[len++] = (char)c;
		else
			len += (size_t)snprintf(line + len, 5, "\\x%02x", c);
	}
	line[len++] = '\n';
	log_add(line, len);
}

/* Text as a value in the log: whatever it is, it does not end the value. */
static const char *
log_value(const char *text, char dst[PATH_MAX_IN + 1])
{
	size_t i;

	for (i = 0; i < PATH_MAX_IN && text[i]; i++)
		dst[i] = strchr(" <>", text[i]) ? '_' : text[i];
	dst[i] = '\0';
	return dst;
}

/* To a file, or "": to standard error. -1 with errno; the old one stays in use then. */
static int
log_open(const char *path)
{
	int fd = -1;

	if (*path && (fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK,
	    0640)) == -1)
		return -1;
	if (journal.fd >= 0) {		/* what was said before there is one goes into it */
		log_flush();
		close(journal.fd);
	}
	journal.fd = fd;
	return 0;
}

/* Ends the process: at its start, or where there is no memory for its settings. */
static void
die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	if (journal.fd == -2)
		journal.fd = -1;
	log_flush();
	fputs("smtpd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void *
must(void *p)
{
	if (p == NULL)
		die("out of memory");
	return p;
}

/* ---- buffers ---- */

static void
buf_free(struct buffer *b)
{
	free(b->ptr);
	*b = (struct buffer){ NULL, 0, 0 };
}

/* What it grows to for n octets more: twice, and by a quarter where twice would be a lot. */
static size_t
buf_need(const struct buffer *b, size_t n)
{
	size_t cap = b->cap == 0 ? 256 : b->cap + (b->cap < 1048576 ? b->cap : b->cap / 4);

	return n <= b->cap - b->len ? b->cap : cap < b->len + n ? b->len + n : cap;
}

static int
buf_add(struct buffer *b, const char *p, size_t n)
{
	size_t cap = buf_need(b, n);
	char *ptr;

	if (cap > b->cap) {
		if ((ptr = realloc(b->ptr, cap)) == NULL)
			return -1;
		b->ptr = ptr;
		b->cap = cap;
	}
	assert(b->ptr != NULL);
	memcpy(b->ptr + b->len, p, n);
	b->len += n;
	return 0;
}

/* ---- the account of all memory that clients can make us hold: GSMTP_MAX_MEMORY ---- */

/* One count of all workers together. */
static uint64_t
board_sum(enum count what)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < board->used && i < SLOTS; i++)
		sum += board->slot[i].n[what];
	return sum;
}

/* What this worker holds is for its siblings to see: they may ask for room meanwhile. */
static void
show_held(void)
{
	worker.slot->n[N_HELD] = worker.held + db_held(worker.db);
}

/*
 * May n octets more be held? Asked before messages, columns and many recipients take
 * memory. Commands, replies, a few recipients and the rest of a read are counted, but not
 * asked for: they are some kilobytes a connection. The session itself is not counted.
 */
static int
room(size_t n)
{
	show_held();
	return board_sum(N_HELD) + n <= (uint64_t)conf.num[GSMTP_MAX_MEMORY];
}

/* buf_add() and buf_free() for what belongs to a session. */
static int
hold(struct buffer *b, const char *p, size_t n)
{
	size_t before = b->cap;
	int status = buf_add(b, p, n);

	worker.held += b->cap - before;
	return status;
}

static void
let_go(struct buffer *b)
{
	worker.held -= b->cap;
	buf_free(b);
}

/* ---- replies ---- */

static void	transaction_reset(struct session *);

/* Octets on their way to the client; flush() writes them. */
static void
out(struct session *s, const char *p, size_t n)
{
	if (s->fd != -1 && hold(&s->out, p, n) == -1)
		s->state = CLOSING;
}

/*
 * Every reply but EHLO's leaves through here: one line of at most 512 octets
 * of printable ASCII (RFC 5321 4.5.3.1.5, RFC 2034). status
 * is NULL where RFC 2034 3 has none. 421 and 221 end the session.
 */
static void
reply(struct session *s, int code, const char *status, const char *fmt, ...)
{
	char line[REPLY_MAX + 1], shown[PATH_MAX_IN + 1];
	va_list ap;
	size_t i, n;
	int len;

	/* What a mail or an address is refused for is no error of the dialogue. */
	if (code >= 500 && code != 550 && code != 552 && code != 554 &&
	    ++s->errors > conf.num[GSMTP_MAX_ERRORS]) {
		code = 421;
		status = "4.7.0";
		fmt = "too many errors";
	}
	len = snprintf(line, sizeof(line), status ? "%d %s " : "%d ", code, status);
	n = (size_t)len;
	va_start(ap, fmt);
	len = vsnprintf(line + n, REPLY_MAX - 2 - n, fmt, ap);
	va_end(ap);
	if (len > 0)
		n += (size_t)len < REPLY_MAX - 2 - n ? (size_t)len : REPLY_MAX - 3 - n;
	for (i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ' || (unsigned char)line[i] > '~')
			line[i] = '?';
	if (conf.num[GSMTP_VERBOSE])
		log_line(s->id, "reply %.*s", (int)n, line);
	memcpy(line + n, "\r\n", 3);
	out(s, line, n + 2);
	if (code >= 400 && worker.envelope != NULL) {
		worker.slot->n[N_REFUSED_RCPT]++;
		line[n] = '\0';
		if (!s->told)
			log_line(s->id, "refused-rcpt command=%s client=%s reply=%s",
			    worker.envelope, s->peer, log_value(line, shown));
		s->told = 1;
	}
	if (code == 421 || code == 221) {
		assert(status != NULL);
		transaction_reset(s);
		s->state = CLOSING;
		s->since = now;
		/* QUIT: it knows. Who gets 421, or is a browser, is given time to read why. */
		s->abrupt = code == 221 && strcmp(status, "2.0.0") == 0;
	}
}

/* ---- domains and paths ---- */

/* Octets that are UTF-8 already are what mime_utf8() leaves alone. */
static int
is_utf8(const char *p, size_t n)
{
	char text[PATH_MAX_IN * 3 + 1];

	return mime_utf8((struct mime_span){ p, n }, text, sizeof(text)) == n &&
	    memcmp(p, text, n) == 0;
}

/* Adds a label in UTF-8 in its form for DNS, "xn--" and Punycode (RFC 3492); -1: it has none. */
static int
punycode(struct buffer *to, const char *p, size_t len)
{
	uint32_t c[63], code = 128, delta = 0, bias = 72, next, k, t, q;
	char out[1024];
	size_t i, n, basic, done, o = 0;

	if (len >= 253 || !is_utf8(p, len))
		return -1;
	for (i = n = 0; i < len && n < 63; n++) {
		c[n] = (unsigned char)p[i++];
		if (c[n] < 128)
			out[o++] = (char)c[n];
		else
			c[n] &= c[n] < 0xe0 ? 31 : c[n] < 0xf0 ? 15 : 7;
		for (; i < len && (p[i] & 0xc0) == 0x80; i++)
			c[n] = c[n] << 6 | (p[i] & 63);
	}
	if (i < len)
		return -1;
	mime_lower(out, o);
	if ((basic = done = o) > 0)
		out[o++] = '-';
	for (; done < n; delta++, code++) {
		for (next = UINT32_MAX, i = 0; i < n; i++)
			if (c[i] >= code && c[i] < next)
				next = c[i];
		delta += (next - code) * (uint32_t)(done + 1);
		code = next;
		if (code < 0xc0 || code >> 8 == 0x20 || code >> 4 == 0x300)
			return -1;	/* blanks, and signs that look like nothing */
		for (i = 0; i < n; i++) {
			delta += c[i] < code;
			if (c[i] != code)
				continue;
			for (q = delta, k = 36; ; q = (q - t) / (36 - t), k += 36) {
				t = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
				next = q < t ? q : t + (q - t) % (36 - t);
				out[o++] = (char)(next < 26 ? 'a' + next : '0' + next - 26);
				if (q < t)
					break;
			}
			delta /= done++ == basic ? 700 : 2;
			delta += delta / (uint32_t)done;
			for (k = 0; delta > 455; k += 36)
				delta /= 35;
			bias = k + 36 * delta / (delta + 38);
			delta = 0;
		}
	}
	return buf_add(to, "xn--", 4) == -1 || buf_add(to, out, o) == -1 ? -1 : 0;
}

/* Domains as DNS knows them, in a buffer that lasts until the next call. */
static const char *
to_ascii(const char *p, size_t n)
{
	static struct buffer to;
	const char *end = p + n;

	for (to.len = 0; p < end; p += n) {
		int ascii = 1;

		for (n = 0; p + n < end && !strchr(" \t.,@", p[n]); n++)
			ascii &= (unsigned char)p[n] < 128;
		n += ascii && p + n < end;
		if ((ascii || punycode(&to, p, n) == -1) && buf_add(&to, p, n) == -1)
			break;
	}
	return buf_add(&to, "", 1) == 0 ? to.ptr : "";
}

/* Gives the next item of a comma-separated setting without the blanks around it, or 0. */
static int
next_item(const char **list, struct mime_span *item)
{
	const char *p = *list, *end;

	while (*p == ',' || *p == ' ' || *p == '\t')
		p++;
	end = *list = p + strcspn(p, ",");
	item->ptr = p;
	item->len = (size_t)(end - p);
	while (item->len > 0 && (p[item->len - 1] == ' ' || p[item->len - 1] == '\t'))
		item->len--;
	return item->len > 0;
}

/* Is the domain after an address's last "@" one of GM_ALLOWED_HOSTS? */
static int
serviced(const char *addr, size_t len)
{
	const char *domain = addr + len, *list = conf.text[GM_ALLOWED_HOSTS];
	struct mime_span item;
	size_t n, wild, rest;

	while (domain > addr && domain[-1] != '@')
		domain--;
	if (domain == addr)
		return 0;
	domain = to_ascii(domain, (size_t)(addr + len - domain));
	n = strlen(domain);
	while (next_item(&list, &item)) {
		wild = *item.ptr == '*';	/* "*.example.org": any subdomain; "*": any */
		rest = item.len - wild;
		if ((wild ? n > rest : n == rest) &&
		    strncasecmp(domain + n - rest, item.ptr + wild, rest) == 0)
			return 1;
	}
	return 0;
}

/*
 * Reverse-path or forward-path with its parameters, RFC 5321 4.1.2:
 *   [ "<" ] [ "@" domain *( "," "@" domain ) ":" ] mailbox [ ">" ] *( SP parameter )
 * in place. The mailbox is left at *path, the parameters at *params. Mailers
 * put a space after the colon, people forget the <>; both are taken. A source
 * route is dropped (appendix F.2). -1: not a path.
 */
static int
parse_path(char *arg, char **path, char **params)
{
	char *p = arg + strspn(arg, " "), *end, *rest;
	int angle = *p == '<', quoted = 0;

	if (angle)
		p++;
	if (*p == '@') {
		if ((p = strchr(p, ':')) == NULL)
			return -1;
		p++;
	}
	for (end = p; *end; end++) {
		if (quoted && *end == '\\' && end[1] != '\0')
			end++;
		else if (*end == '"')
			quoted = !quoted;
		else if (!quoted && (*end == ' ' || *end == '<' || *end == '>'))
			break;
	}
	if (quoted || angle != (*end == '>') || (!angle && end == p) || end - p > PATH_MAX_IN)
		return -1;
	rest = end + angle;
	if (*rest != '\0' && *rest != ' ')
		return -1;
	*params = rest + strspn(rest, " ");
	/* One dot behind a domain is DNS's way to say that it is whole. */
	if (end - p > 2 && end[-1] == '.' && strchr(".@", end[-2]) == NULL &&
	    memchr(p, '@', (size_t)(end - p)))
		end--;
	*end = '\0';
	*path = p;
	return 0;
}

/* ---- transactions ---- */

static void
mail_free(struct session *s)
{
	let_go(&s->tx.mail);
	let_go(&s->tx.columns);
}

static void
transaction_reset(struct session *s)
{
	mail_free(s);
	let_go(&s->tx.rcpt);
	free(s->tx.from);
	memset(&s->tx, 0, sizeof(s->tx));
	if (s->state >= GREETED && s->state <= STORING)
		s->state = s->helo ? GREETED : NEW;
}

/* A transaction that has failed swallows what still comes, and answers once. */
static void
transaction_fail(struct session *s, int code)
{
	assert(s->tx.fail == 0);
	s->tx.fail = code;
	mail_free(s);
}

/* The largest message that is taken, as far as is known: EHLO announces it. */
static uint64_t
size_limit(void)
{
	size_t max = db_max_mail(worker.db) - TRACE_MAX;	/* it is never below 3 KB */

	return max < (uint64_t)conf.num[GSMTP_MAX_SIZE] ? max : (uint64_t)conf.num[GSMTP_MAX_SIZE];
}

/* Beyond the server's limit is 552 only where that was just asked; else db.c asks, then says. */
static int
too_big(uint64_t n)
{
	return n > (uint64_t)conf.num[GSMTP_MAX_SIZE] ||
	    db_too_big(worker.db, (size_t)n + TRACE_MAX);
}

/* Adds octets to the mail if anybody is to get it, unless too_big(), within GSMTP_MAX_MEMORY. */
static void
mail_add(struct session *s, const char *p, size_t n)
{
	struct buffer *b = &s->tx.mail;
	size_t more = buf_need(b, n) - b->cap;

	s->tx.size += n;
	if (s->tx.fail || s->tx.rcpts == 0 || n == 0)
		return;
	if (s->tx.trace > 0 && too_big(s->tx.size))
		transaction_fail(s, 552);
	else if ((more > 0 && !room(more)) || hold(b, p, n) == -1)
		transaction_fail(s, 452);
}

/* ---- MD5 (RFC 1321), which the table's hash column has always held ---- */

struct md5 { uint32_t a[4]; uint64_t len; unsigned char block[64]; };
#define MD5_START { { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476 }, 0, { 0 } }

#define F(b, c, d) ((d) ^ ((b) & ((c) ^ (d))))
#define G(b, c, d) ((c) ^ ((d) & ((b) ^ (c))))
#define H(b, c, d) ((b) ^ (c) ^ (d))
#define I(b, c, d) ((c) ^ ((b) | ~(d)))
#define STEP(f, a, b, c, d, i, k, r) \
	((a) += f(b, c, d) + w[(i) & 15] + table[k], (a) = ((a) << (r) | (a) >> (32 - (r))) + (b))
#define FOUR(f, i, by, k, r1, r2, r3, r4) \
	STEP(f, a, b, c, d, i, k, r1), STEP(f, d, a, b, c, (i) + (by), (k) + 1, r2), \
	STEP(f, c, d, a, b, (i) + 2 * (by), (k) + 2, r3), \
	STEP(f, b, c, d, a, (i) + 3 * (by), (k) + 3, r4)
/* Spelled out, for constants are what makes it fast: a third of a mail's work is here. */
#define ROUND(f, i, by, k, r1, r2, r3, r4) \
	FOUR(f, i, by, k, r1, r2, r3, r4), FOUR(f, (i) + 4 * (by), by, (k) + 4, r1, r2, r3, r4), \
	FOUR(f, (i) + 8 * (by), by, (k) + 8, r1, r2, r3, r4), \
	FOUR(f, (i) + 12 * (by), by, (k) + 12, r1, r2, r3, r4)

static void
md5_block(struct md5 *m, const unsigned char *p)
{
	static const uint32_t table[64] = {	/* 2^32 * |sin(i)| */
		0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613,
		0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193,
		0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d,
		0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed,
		0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122,
		0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa,
		0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244,
		0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
		0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb,
		0xeb86d391
	};
	uint32_t w[16], a = m->a[0], b = m->a[1], c = m->a[2], d = m->a[3];
	unsigned i;

	for (i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		    (uint32_t)p[3] << 24;
	ROUND(F, 0, 1, 0, 7, 12, 17, 22);
	ROUND(G, 1, 5, 16, 5, 9, 14, 20);
	ROUND(H, 5, 3, 32, 4, 11, 16, 23);
	ROUND(I, 0, 7, 48, 6, 10, 15, 21);
	m->a[0] += a, m->a[1] += b, m->a[2] += c, m->a[3] += d;
}

static void
md5_add(struct md5 *m, const char *ptr, size_t n)
{
	const unsigned char *p = (const unsigned char *)ptr;
	size_t have = m->len % 64, take;

	m->len += n;
	if (have > 0) {
		take = n < 64 - have ? n : 64 - have;
		memcpy(m->block + have, p, take);
		if (have + take < 64)
			return;
		md5_block(m, m->block);
		p += take, n -= take;
	}
	for (; n >= 64; p += 64, n -= 64)
		md5_block(m, p);
	memcpy(m->block, p, n);
}

/* The state in hexadecimal, once all has been added. */
static void
md5_end(struct md5 *m, char hex[32])
{
	static const char pad[64] = { (char)0x80 }, digit[] = "0123456789abcdef";
	uint64_t bits = m->len * 8;
	char len[8];
	int i;

	for (i = 0; i < 8; i++)
		len[i] = (char)(bits >> 8 * i & 255);
	md5_add(m, pad, 1 + (119 - m->len % 64) % 64);
	md5_add(m, len, 8);
	for (i = 0; i < 32; i++)
		hex[i] = digit[m->a[i / 8] >> (8 * (i / 2 % 4) + (i % 2 ? 0 : 4)) & 15];
}

/* ---- storing ---- */

/* The 4yz or 5yz that a transaction ends with. */
static void
reply_failure(struct session *s, int code)
{
	static const struct failure { int code; const char *status, *text; } failures[] = {
		{ 451, "4.3.0", "cannot be stored now, try again later" },
		{ 452, "4.3.1", "too much mail in memory now, try again later" },
		{ 550, "5.7.1", "no address of a serviced domain in To, Cc or Bcc" },
		{ 552, "5.3.4", "message too big, the limit is %llu octets" },
		{ 554, "5.6.0", "the database refuses this message" },
	};
	const struct failure *f = failures;

	while (f->code != code)
		f++;
	reply(s, code, f->status, f->text, (unsigned long long)size_limit());
}

/*
 * What the database says of a mail as the reply that ends its transaction; 0: nothing yet.
 * Every 451 is made here, of DB_LOST; db.h says where that comes from.
 */
static int
code_of(enum db_status status)
{
	static const int codes[] = {
		[DB_PENDING] = 0, [DB_STORED] = 250, [DB_REFUSED] = 554, [DB_LOST] = 451,
		[DB_TOO_BIG] = 552
	};

	return codes[status];
}

/* The transaction is over: its line in the log, then its reply. */
static void
answer(struct session *s, int code)
{
	const struct db_row *row = s->tx.columns.ptr ? s->mail.col.row : NULL;
	volatile uint64_t *n = worker.slot->n;
	char from[PATH_MAX_IN + 1], to[PATH_MAX_IN + 1], hash[HASH_LEN + 1] = "-", tls[96] = "-";
	char *blank;
	long long wait = s->state == STORING ? clock_ms() - s->since : 0;
	const char *event = code == 250 ? "stored" : code < 500 ? "deferred" : "refused";

	if (row)
		snprintf(hash, sizeof(hash), "%.*s", (int)row->hash.len, row->hash.ptr);
	if (s->tls)
		tls_describe(s->tls, tls, sizeof(tls));
	if ((blank = strchr(tls, ' ')) != NULL)
		*blank = '/';
	if (code == 250)
		n[N_MAILS]++, n[N_ROWS] += s->tx.rcpts, n[N_OCTETS] += s->tx.size;
	else
		n[code < 500 ? N_DEFERRED : N_REFUSED]++;
	/* The addresses last: octets that are shown as \xHH may be more than a line holds. */
	log_line(s->id, "%s hash=%s code=%d client=%s tls=%s rcpts=%lu size=%llu wait=%lldms "
	    "from=<%s> to=<%s>", event, hash, code, s->peer, tls, (unsigned long)s->tx.rcpts,
	    (unsigned long long)s->tx.size, wait, log_value(s->tx.from, from),
	    log_value(s->tx.rcpt.ptr, to));
	transaction_reset(s);
	if (code == 250) {
		s->errors = 0;
		reply(s, 250, "2.0.0", "OK: queued as %s", hash);
	} else
		reply_failure(s, code);
	s->since = now;
}

/* The first address of From, lower case; the reverse-path where there is none. */
static size_t
extract_from_email(struct mime_span value, const char *reverse_path, char *dst, size_t cap)
{
	size_t n;

	if (!mime_address(&value, dst, cap)) {
		n = strlen(reverse_path);
		memcpy(dst, reverse_path, n + 1);
	}
	n = strlen(dst);
	mime_lower(dst, n);
	return n;
}

/* The PHP script's rule: is an address of a serviced domain in this field? */
static int
extract_email(struct mime_span value)
{
	char addr[1024];

	while (mime_address(&value, addr, sizeof(addr)))
		if (serviced(addr, strlen(addr)))
			return 1;
	return 0;
}

/* To, Cc, Bcc and their Resent- forms, RFC 5322 3.6.3 and 3.6.6. */
static int
is_recipient_field(struct mime_span name)
{
	if (name.len > 7 && strncasecmp(name.ptr, "Resent-", 7) == 0)
		name.ptr += 7, name.len -= 7;
	return mime_is(name, "To") || mime_is(name, "Cc") || mime_is(name, "Bcc");
}

/* A text behind the ones before it; where the next one goes. */
static char *
copy_text(struct db_text *t, char *to, const char *ptr, size_t len)
{
	t->ptr = memcpy(to, ptr, len);
	t->len = len;
	return to + len;
}

/*
 * The columns of one recipient: "recipient" is the forward-path, "to" the same or
 * local-part@GM_PRIMARY_MAIL_HOST; "hash" is the MD5 of body, from, subject and to:
 * "to" comes last, so all recipients share the state of what is before it.
 */
static char *
make_row(struct db_row *row, const char *rcpt, struct md5 before_to, char *text)
{
	const char *primary = conf.text[GM_PRIMARY_MAIL_HOST], *at = strrchr(rcpt, '@');
	char *start = text, hex[HASH_LEN];

	text = copy_text(&row->recipient, text, rcpt, strlen(rcpt));
	row->to = row->recipient;
	if (*primary) {
		text = copy_text(&row->to, text, rcpt, at ? (size_t)(at - rcpt) : strlen(rcpt));
		row->to.len += (size_t)sprintf(text, "@%s", primary);
		text += strlen(text);
	}
	mime_lower(start, (size_t)(text - start));
	md5_add(&before_to, row->to.ptr, row->to.len);
	md5_end(&before_to, hex);
	return copy_text(&row->hash, text, hex, sizeof(hex));
}

/*
 * Everything of the row that is not the mail itself goes into one piece of memory: the body
 * first, in more than it takes, of which the rest is given back. Three octets of UTF-8 for one
 * are enough for all charsets but few; MIME_EXPANSION is for those. -1: there is no room.
 */
static int
make_columns(struct session *s, const struct mime_body *found, struct db_columns *c)
{
	struct buffer *b = &s->tx.columns;
	struct md5 hash = MD5_START;
	const char *rcpt = s->tx.rcpt.ptr;
	size_t i, times, cap, len, rest;
	char *text;

	for (times = 3; ; times = MIME_EXPANSION) {
		cap = 16 + (found->octets < BODY_MAX / times ? found->octets * times : BODY_MAX);
		if (!room(cap) || (b->ptr = malloc(cap)) == NULL)
			return -1;
		worker.held += b->cap = cap;
		show_held();
		len = mime_body_text(found, b->ptr, cap);
		if (len + 8 < cap || times == MIME_EXPANSION)
			break;
		let_go(b);
	}
	cap = (len | (sizeof(void *) - 1)) + 1;		/* where the rows begin */
	rest = sizeof(*c->row) + strlen(conf.text[GM_PRIMARY_MAIL_HOST]) + HASH_LEN;
	rest = rest * s->tx.rcpts + 2 * s->tx.rcpt.len + c->from.len + c->subject.len +
	    c->charset.len + c->content_type.len;
	if ((text = realloc(b->ptr, cap + rest)) == NULL)
		return -1;
	b->ptr = text;
	worker.held += cap + rest - b->cap;
	b->cap = cap + rest;
	c->body = (struct db_text){ b->ptr, len };
	c->row = (struct db_row *)(void *)(b->ptr + cap);
	c->rows = s->tx.rcpts;
	text = (char *)(c->row + c->rows);
	text = copy_text(&c->from, text, c->from.ptr, c->from.len);
	text = copy_text(&c->subject, text, c->subject.ptr, c->subject.len);
	text = copy_text(&c->charset, text, c->charset.ptr, c->charset.len);
	text = copy_text(&c->content_type, text, c->content_type.ptr, c->content_type.len);
	md5_add(&hash, c->body.ptr, c->body.len);
	md5_add(&hash, c->from.ptr, c->from.len);
	md5_add(&hash, c->subject.ptr, c->subject.len);
	for (i = 0; i < c->rows; i++, rcpt += strlen(rcpt) + 1)
		text = make_row(&c->row[i], rcpt, hash, text);
	return 0;
}

/*
 * What the message says, in storage that lasts until the next one. 0: no address of a
 * serviced domain is in To, Cc or Bcc, and GSMTP_CHECK_HEADER asks for one.
 */
static int
read_message(const struct session *s, struct mime_body *found, struct db_columns *c)
{
	static char from[PATH_MAX_IN * 4 + 1], subject[SUBJECT_MAX + 1];
	const char *msg = s->tx.mail.ptr + s->tx.trace;
	size_t len = s->tx.mail.len - s->tx.trace;
	struct mime_span header = mime_header(msg, len), name, value, none = { "", 0 };
	struct mime_span from_field = none, subject_field = none;
	int checked = !conf.num[GSMTP_CHECK_HEADER] || strchr(s->tx.rcpt.ptr, '@') == NULL;

	while (mime_next_field(&header, &name, &value)) {
		if (from_field.ptr == none.ptr && mime_is(name, "From"))
			from_field = value;
		else if (subject_field.ptr == none.ptr && mime_is(name, "Subject"))
			subject_field = value;
		else if (!checked && is_recipient_field(name))
			checked = extract_email(value);
	}
	mime_body(msg, len, found);
	c->date = time(NULL);
	c->from.len = extract_from_email(from_field, s->tx.from, from, sizeof(from));
	c->from.ptr = from;
	c->subject.len = mime_words(subject_field, found->first.charset, subject, sizeof(subject));
	c->subject.ptr = subject;
	c->charset = (struct db_text){ found->first.charset, strlen(found->first.charset) };
	c->content_type = (struct db_text){ found->first.type, strlen(found->first.type) };
	c->mail = (struct db_text){ s->tx.mail.ptr, s->tx.mail.len };
	c->spare = TRACE_MAX - s->tx.trace;
	return checked;
}

/*
 * The message is whole: parse it and hand it to the database. The transaction
 * waits in STORING until answer(), or is answered here where it cannot wait. A client that
 * hangs up meanwhile changes nothing: the mail is stored and logged, its reply is dropped.
 */
static void
save_email(struct session *s)
{
	static struct mime_body found;
	struct db_columns *c = &s->mail.col;
	int code;

	memset(c, 0, sizeof(*c));
	s->since = now;
	if (s->tx.fail == 0 && !read_message(s, &found, c))
		transaction_fail(s, 550);
	if (s->tx.fail == 0 && make_columns(s, &found, c) == -1)
		transaction_fail(s, 452);
	code = s->tx.fail ? s->tx.fail : code_of(db_add(worker.db, &s->mail));
	if (code != 0) {
		answer(s, code);
		return;
	}
	s->state = STORING;
	worker.npending++;
}

/* ---- DATA and BDAT: the message's octets ---- */

/* Return-Path and Received, RFC 5321 4.4; the session's own words cannot break a line here. */
static void
add_trace(struct session *s)
{
	static unsigned long count;
	char text[TRACE_MAX], date[40], helo[256], cipher[96], secure[96] = "";
	const char *with = s->tx.utf8 ? "UTF8SMTP" : s->esmtp ? "ESMTP" : "SMTP";
	time_t t = time(NULL);
	struct tm tm;
	size_t i;
	int n;

	if (s->tls)
		snprintf(secure, sizeof(secure), "(%.80s)\r\n\t",
		    tls_describe(s->tls, cipher, sizeof(cipher)));
	gmtime_r(&t, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", &tm);
	for (i = 0; i < sizeof(helo) - 1 && s->helo[i]; i++)
		helo[i] = strchr("()<>\\\"; ,@", s->helo[i]) ? '?' : s->helo[i];
	helo[i] = '\0';
	n = snprintf(text, sizeof(text),
	    "Return-Path: <%s>\r\nReceived: from %s ([%s%s])\r\n\t%sby %s with %s%s id %lx.%lx.%lx",
	    s->tx.from, helo, strchr(s->peer, ':') ? "IPv6:" : "", s->peer, secure,
	    conf.text[GSMTP_HOST_NAME], with, s->tls ? "S" : "", (unsigned long)t,
	    (unsigned long)journal.pid, ++count);
	/* For one recipient alone: a list would show the Bcc'd ones to each other. */
	if (s->tx.rcpts == 1)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n\tfor <%s>", s->tx.rcpt.ptr);
	n += snprintf(text + n, sizeof(text) - (size_t)n, ";\r\n\t%s\r\n", date);
	mail_add(s, text, (size_t)n);
	s->tx.trace = (size_t)n;
	s->tx.size = 0;
}

/*
 * Takes octets of DATA, indifferent to how reads split them, up to the end of
 * data, and gives how many. Only CRLF "." CRLF ends a message (RFC 5321 4.1.1.4;
 * CVE-2023-51764); a "." that starts a line is dropped (4.5.2); all other
 * octets, NUL and bare CR or LF among them, are the message.
 */
static size_t
data(struct session *s, const char *p, size_t n)
{
	size_t i = 0;			/* s->eod tells what came before p[i] */
	const char *dot;

	while (i < n) {
		if (s->eod == DOT && p[i] == '\r') {
			s->eod = DOTCR;
			i++;
			continue;
		}
		if (s->eod == DOTCR && p[i] == '\n') {
			save_email(s);
			return i + 1;
		}
		if (s->eod == DOTCR)
			mail_add(s, "\r", 1);
		if (s->eod >= DOT)
			s->eod = s->eod == DOT ? TEXT : CR;
		/* From p[i] to the next "." at the start of a line is message. */
		for (dot = p + i; (dot = memchr(dot, '.', (size_t)(p + n - dot))) != NULL; dot++) {
			size_t back = (size_t)(dot - p) - i;

			if (back == 0 ? s->eod == CRLF : dot[-1] == '\n' &&
			    (back == 1 ? s->eod == CR : dot[-2] == '\r'))
				break;
		}
		if (dot == NULL) {
			mail_add(s, p + i, n - i);
			s->eod = p[n - 1] == '\r' ? CR : p[n - 1] == '\n' &&
			    (n - i > 1 ? p[n - 2] == '\r' : s->eod == CR) ? CRLF : TEXT;
			return n;
		}
		mail_add(s, p + i, (size_t)(dot - p) - i);
		s->eod = DOT;
		i = (size_t)(dot - p) + 1;
	}
	return n;
}

/* Takes octets of a BDAT chunk, RFC 3030 2; those of a refused one too, so that they never run. */
static size_t
chunk(struct session *s, const char *p, size_t n)
{
	if (n > s->chunk)
		n = (size_t)s->chunk;
	mail_add(s, p, n);
	s->chunk -= n;
	if (s->chunk > 0)
		return n;
	if (s->tx.rcpts == 0) {
		s->since = now;
		transaction_reset(s);
		reply(s, 503, "5.5.1", "RCPT first");
	} else if (s->last)
		save_email(s);
	else {
		s->state = CHUNKED;
		if (s->tx.fail)
			reply_failure(s, s->tx.fail);
		else
			reply(s, 250, "2.0.0", "%llu octets received",
			    (unsigned long long)s->tx.size);
	}
	return n;
}

/* ---- commands, in the order a client sends them ---- */

static int
greet(struct session *s, const char *name, int esmtp)
{
	char *helo;

	if (*name == '\0') {
		reply(s, 501, "5.5.4", "your host name, please");
		return -1;
	}
	if ((helo = strdup(name)) == NULL) {
		reply(s, 421, "4.3.0", "out of memory");
		return -1;
	}
	free(s->helo);
	for (s->helo = helo; *helo; helo++)
		if ((unsigned char)*helo >= 127)
			*helo = '?';
	s->esmtp = (unsigned char)esmtp;
	transaction_reset(s);
	s->state = GREETED;
	return 0;
}

static void
cmd_helo(struct session *s, char *arg)
{
	if (greet(s, arg, 0) == 0)
		reply(s, 250, NULL, "Hello %.200s, I am glad to meet you", s->helo);
}

static void
cmd_ehlo(struct session *s, char *arg)
{
	char text[1024];
	int n;

	if (greet(s, arg, 1) == -1)
		return;
	n = snprintf(text, sizeof(text), "250-%.200s Hello %.200s [%s]\r\n250-SIZE %llu\r\n%s"
	    "250-8BITMIME\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n"
	    "250-CHUNKING\r\n250-BINARYMIME\r\n250 HELP\r\n", conf.text[GSMTP_HOST_NAME], s->helo,
	    s->peer, (unsigned long long)size_limit(),
	    *conf.text[GSMTP_TLS_CERT] && !s->tls ? "250-STARTTLS\r\n" : "");
	out(s, text, (size_t)n);
}

/* RFC 3207. What is pipelined behind it comes in the clear and is dropped (CVE-2011-0411). */
static void
cmd_starttls(struct session *s, char *arg)
{
	if (*conf.text[GSMTP_TLS_CERT] == '\0')
		reply(s, 502, "5.5.1", "no TLS here");
	else if (s->tls)
		reply(s, 503, "5.5.1", "this is TLS already");
	else if (*arg)
		reply(s, 501, "5.5.4", "STARTTLS takes no argument");
	else {
		reply(s, 220, "2.0.0", "ready for TLS");
		s->starttls = 1;
	}
}

/* A decimal number, one that is too large as the largest that fits; -1: it is none. */
static int
parse_number(const char *p, uint64_t *n)
{
	*n = 0;
	if (*p == '\0')
		return -1;
	for (; *p; p++) {
		if (*p < '0' || *p > '9')
			return -1;
		*n = *n > UINT64_MAX / 10 - 1 ? UINT64_MAX : *n * 10 + (uint64_t)(*p - '0');
	}
	return 0;
}

/* One parameter of MAIL, RFC 5321 4.1.2; 0, or it has been refused. */
static int
mail_parameter(struct session *s, const char *p)
{
	uint64_t n;

	if (strncasecmp(p, "SIZE=", 5) == 0) {			/* RFC 1870 */
		if (parse_number(p + 5, &n) == -1)
			reply(s, 501, "5.5.4", "SIZE= takes a number");
		else if (too_big(n))
			reply_failure(s, 552);
		else
			return 0;
	} else if (strncasecmp(p, "BODY=", 5) == 0) {		/* RFC 6152, RFC 3030 3 */
		s->tx.binary = strcasecmp(p + 5, "BINARYMIME") == 0;
		if (s->tx.binary || strcasecmp(p + 5, "7BIT") == 0 ||
		    strcasecmp(p + 5, "8BITMIME") == 0)
			return 0;
		reply(s, 501, "5.5.4", "BODY= takes 7BIT, 8BITMIME or BINARYMIME");
	} else if (strcasecmp(p, "SMTPUTF8") == 0) {		/* RFC 6531 */
		s->tx.utf8 = 1;
		return 0;
	} else if (strncasecmp(p, "AUTH=", 5) == 0)	/* RFC 4954 5; Microsoft's send it */
		return 0;
	else
		reply(s, 555, "5.5.4", "unknown parameter %.100s", p);
	return -1;
}

static void
cmd_mail(struct session *s, char *arg)
{
	char *path, *params, *p;

	transaction_reset(s);
	if (strncasecmp(arg, "FROM:", 5) != 0 || parse_path(arg + 5, &path, &params) == -1) {
		reply(s, 501, "5.1.7", "MAIL FROM:<reverse-path>");
		return;
	}
	if (!is_utf8(path, strlen(path))) {
		reply(s, 553, "5.6.7", "an address is ASCII or UTF-8");
		return;
	}
	for (p = strtok(params, " "); p != NULL; p = strtok(NULL, " "))
		if (mail_parameter(s, p) == -1)
			return;
	if ((s->tx.from = strdup(path)) == NULL) {
		reply_failure(s, 452);
		return;
	}
	s->state = MAIL;
	reply(s, 250, "2.1.0", "sender ok");
}

static void
cmd_rcpt(struct session *s, char *arg)
{
	char *path, *params;

	if (strncasecmp(arg, "TO:", 3) != 0 || parse_path(arg + 3, &path, &params) == -1 ||
	    *path == '\0')
		reply(s, 501, "5.1.3", "RCPT TO:<forward-path>");
	else if (!is_utf8(path, strlen(path)))
		reply(s, 553, "5.6.7", "an address is ASCII or UTF-8");
	else if (*params)
		reply(s, 555, "5.5.4", "unknown parameter %.100s", params);
	/* RFC 5321 4.1.1.3: postmaster without a domain is always taken, in any case. */
	else if (strcasecmp(path, "postmaster") != 0 && !serviced(path, strlen(path)))
		reply(s, 550, "5.7.1", "relay refused");
	else if (s->tx.rcpts >= (size_t)conf.num[GSMTP_MAX_RCPT])
		reply(s, 452, "4.5.3", "too many recipients");
	else if ((s->tx.rcpt.len > RCPT_FREE && !room(s->tx.rcpt.len)) ||
	    hold(&s->tx.rcpt, path, strlen(path) + 1) == -1)
		reply_failure(s, 452);
	else {
		s->tx.rcpts++;
		s->state = RCPT;
		reply(s, 250, "2.1.5", "recipient ok");
	}
}

static void
cmd_data(struct session *s, char *arg)
{
	if (*arg)
		reply(s, 501, "5.5.4", "DATA takes no argument");
	else if (s->tx.binary)		/* RFC 3030 3 */
		reply(s, 503, "5.5.1", "BINARYMIME needs BDAT");
	else {
		add_trace(s);
		s->eod = CRLF;
		s->state = DATA;
		reply(s, 354, NULL, "Enter message, ending with \".\" on a line by itself");
	}
}

/* RFC 3030 2. However wrong it is, the octets it announces are consumed, never run. */
static void
cmd_bdat(struct session *s, char *arg)
{
	char *last = strchr(arg, ' ');

	if (last)
		*last++ = '\0';
	if (parse_number(arg, &s->chunk) == -1 || (last && strcasecmp(last, "LAST") != 0)) {
		/* What follows cannot be told from commands, RFC 3030 4.2. */
		reply(s, 421, "4.5.4", "BDAT takes a number and perhaps LAST");
		return;
	}
	s->last = last != NULL;
	if (s->state == RCPT)
		add_trace(s);
	s->state = CHUNK;
	if (s->chunk == 0)
		chunk(s, "", 0);
}

static void
cmd_rset(struct session *s, char *arg)
{
	(void)arg;
	transaction_reset(s);
	reply(s, 250, "2.0.0", "OK");
}

#define ANY (IN(NEW) | IN(GREETED) | IN(MAIL) | IN(RCPT) | IN(CHUNKED))
/* A browser, made to send mail by some page: nothing that follows may be read as SMTP. */
#define HTTP NULL, ANY, 221, "2.7.0", "this is SMTP, not HTTP"

static const struct command {
	const char *verb;
	void (*run)(struct session *, char *arg);
	unsigned when;			/* states in which it is in sequence */
	int code;			/* the reply, where that is all the work */
	const char *status, *text;
} commands[] = {
	{ "HELO", cmd_helo, ANY, 0, NULL, NULL },
	{ "EHLO", cmd_ehlo, ANY, 0, NULL, NULL },
	{ "STARTTLS", cmd_starttls, IN(GREETED), 0, NULL, NULL },
	{ "MAIL", cmd_mail, IN(GREETED), 0, NULL, NULL },
	{ "RCPT", cmd_rcpt, IN(MAIL) | IN(RCPT), 0, NULL, NULL },
	{ "DATA", cmd_data, IN(RCPT), 0, NULL, NULL },
	{ "BDAT", cmd_bdat, ANY, 0, NULL, NULL },
	{ "RSET", cmd_rset, ANY, 0, NULL, NULL },
	{ "NOOP", NULL, ANY, 250, "2.0.0", "OK" },
	{ "QUIT", NULL, ANY, 221, "2.0.0", "Bye" },
	{ "VRFY", NULL, ANY, 252, "2.1.5", "send some mail, it will be stored if it can be" },
	{ "EXPN", NULL, ANY, 502, "5.5.1", "no lists here" },
	{ "HELP", NULL, ANY, 214, "2.0.0",
	    "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT: see RFC 5321" },
	{ "GET", HTTP }, { "POST", HTTP }, { "PUT", HTTP }, { "HEAD", HTTP }, { "OPTIONS", HTTP },
	{ "CONNECT", HTTP },
};

/* Runs one command; line is its own copy, without CRLF. */
static void
command(struct session *s, char *line)
{
	const struct command *c = commands, *end = c + sizeof(commands) / sizeof(*commands);
	size_t n = strlen(line);
	char shown[PATH_MAX_IN + 1];

	while (n > 0 && line[n - 1] == ' ')
		line[--n] = '\0';
	if (conf.num[GSMTP_VERBOSE])
		log_line(s->id, "command %s", line);
	n = strcspn(line, " ");
	while (c < end && (strlen(c->verb) != n || strncasecmp(c->verb, line, n) != 0))
		c++;
	if (c == end)
		reply(s, 500, "5.5.2", "unknown command");
	else if (!(c->when & IN(s->state)))
		reply(s, 503, "5.5.1", s->state == NEW ? "EHLO or HELO first" :
		    s->state == GREETED ? "MAIL first" : c->when == IN(GREETED) ?
		    "one transaction at a time" : s->state == CHUNKED ?
		    "BDAT or RSET now" : "RCPT first");
	else if (c->run == NULL)
		reply(s, c->code, c->status, "%s", c->text);
	else {
		if (c->run == cmd_mail || c->run == cmd_rcpt)
			worker.envelope = log_value(line, shown);
		c->run(s, line + n + strspn(line + n, " "));
		worker.envelope = NULL;
	}
}

/*
 * Takes a command line off the input and runs it; gives its length, or 0 where
 * it is not whole yet. Only CRLF ends a line (RFC 5321 2.3.8). A bare LF, as a
 * person at netcat sends it, gets an answer, but what it ends is never run.
 */
static size_t
command_line(struct session *s, const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	size_t len = lf ? (size_t)(lf - p) + 1 : n, i;
	char line[LINE_MAX_IN];
	int skip = s->skip, chunked = s->state == CHUNKED;

	if (lf == NULL && len < LINE_MAX_IN)
		return 0;
	s->skip = lf == NULL;
	if (lf == NULL)			/* too long: the rest of it is dropped as it comes */
		return len;
	if (skip || len > LINE_MAX_IN)
		reply(s, 500, "5.5.2", "line too long");
	else if (len < 2 || p[len - 2] != '\r')
		reply(s, 500, "5.5.2", "end each line with CR LF");
	else {
		memcpy(line, p, len -= 2);
		line[len] = '\0';
		for (i = 0; i < len && (unsigned char)line[i] >= ' ' && line[i] != 127; i++)
			;
		if (i < len)
			reply(s, 500, "5.5.2", "control octet in a command");
		else
			command(s, line);
		len += 2;
	}
	if (!chunked || s->state < CHUNKED)	/* or NOOP would hold a message for ever */
		s->since = now;
	return len;
}

/* ---- the PROXY protocol ---- */

/* Both families as one: IPv4 in the form ::ffff:a.b.c.d, RFC 4291 2.5.5.2. */
static void
map_ipv4(unsigned char to[16], const void *addr)
{
	memset(to, 0, 10);
	memset(to + 10, 255, 2);
	memcpy(to + 12, addr, 4);
}

/* Takes a textual address; -1 where it is none. */
static int
parse_address(const char *text, unsigned char to[16])
{
	if (inet_pton(AF_INET6, text, to) == 1)
		return 0;
	map_ipv4(to, "\0\0\0");
	return inet_pton(AF_INET, text, to + 12) == 1 ? 0 : -1;
}

/* Is it in a network such as 192.0.2.0/24? -1: that is no network. */
static int
in_network(struct mime_span item, const unsigned char addr[16])
{
	unsigned char net[16];
	char text[64], *slash;
	uint64_t bits, all, i;

	snprintf(text, sizeof(text), "%.*s", (int)item.len, item.ptr);
	if ((slash = strchr(text, '/')) != NULL)
		*slash++ = '\0';
	bits = all = strchr(text, ':') ? 128 : 32;
	if (item.len >= sizeof(text) || parse_address(text, net) == -1 ||
	    (slash && parse_number(slash, &bits) == -1) || bits > all)
		return -1;
	for (i = 0; i < bits + 128 - all; i++)
		if ((net[i / 8] ^ addr[i / 8]) & 128 >> i % 8)
			return 0;
	return 1;
}

static void	session_start(struct session *, const unsigned char addr[16]);

/* "TCP4 source destination port port" or "UNKNOWN ...": 1 with the source, 0: it is not told. */
static int
proxy_v1(const char *line, unsigned char addr[16])
{
	unsigned char other[16];
	char v[2], from[46], to[46], port_from[6], port_to[6], more;
	uint64_t m, n;

	if (strncmp(line, "UNKNOWN", 7) == 0 && (line[7] == ' ' || line[7] == '\0'))
		return 0;
	if (sscanf(line, "TCP%1[46] %45s %45s %5s %5s%c", v, from, to, port_from, port_to,
	    &more) != 5 || parse_number(port_from, &m) == -1 || m > 65535 ||
	    parse_number(port_to, &n) == -1 || n > 65535)
		return -1;
	return !strchr(from, ':') == (*v == '4') && !strchr(to, ':') == (*v == '4') &&
	    parse_address(from, addr) == 0 && parse_address(to, other) == 0 ? 1 : -1;
}

/* The fixed part has been seen: 1 with the source, 0 where it is not told. */
static int
proxy_v2(const unsigned char *u, size_t len, unsigned char addr[16])
{
	if (u[12] == 0x20 || (u[12] == 0x21 && u[13] >> 4 == 0))	/* LOCAL; UNSPEC */
		return 0;
	if (u[12] == 0x21 && u[13] >> 4 == 1 && len >= 16 + 12)
		map_ipv4(addr, u + 16);
	else if (u[12] == 0x21 && u[13] >> 4 == 2 && len >= 16 + 36)
		memcpy(addr, u + 16, 16);
	else
		return -1;
	return 1;
}

/*
 * Takes the header that a proxy puts before anything else (HAProxy's PROXY
 * protocol, versions 1 and 2): gives its length, 0 where it is not whole yet;
 * an invalid one ends the session without a word. It comes once: from here on
 * the session is the client's.
 */
static size_t
proxy_header(struct session *s, const char *p, size_t n)
{
	static const char sign[] = "\r\n\r\n\0\r\nQUIT\n";
	const unsigned char *u = (const unsigned char *)p;
	unsigned char addr[16];
	const char *lf = memchr(p, '\n', n < 107 ? n : 107);
	char line[108];
	size_t len = 0;
	int told = -1;

	if (memcmp(p, sign, n < 12 ? n : 12) == 0) {
		if (n >= 16)
			len = 16 + ((size_t)u[14] << 8 | u[15]);
		if (n < 16 || (len <= LINE_MAX_IN && n < len))
			return 0;
		if (len <= LINE_MAX_IN)
			told = proxy_v2(u, len, addr);
	} else if (memcmp(p, "PROXY ", n < 6 ? n : 6) == 0) {
		if (lf == NULL && n < 107)
			return 0;
		if (lf != NULL && lf - p > 6 && lf[-1] == '\r') {
			len = (size_t)(lf - p) + 1;
			snprintf(line, sizeof(line), "%.*s", (int)len - 8, p + 6);
			told = proxy_v1(line, addr);
		}
	}
	if (told == -1) {
		log_line(s->id, "proxy-error client=%s", s->peer);
		s->abrupt = 1;
		s->state = CLOSING;
		return n;
	}
	if (told == 0)
		parse_address(s->peer, addr);
	session_start(s, addr);
	return len;
}

/* ---- sessions ---- */

static int
in_message(const struct session *s)
{
	return s->state == DATA || s->state == CHUNK;
}

/*
 * Is its input wanted? Not while it has replies to read, or its mail is at the database: that a
 * client has hung up meanwhile is seen when the answer is written.
 */
static int
may_read(const struct session *s)
{
	return s->state != STORING && s->out.len == 0;
}

/* io: TLS_READ, TLS_WRITE, both, or 0. */
static void
watch_for(int fd, int io, struct watched *set)
{
	if (io & TLS_READ)
		FD_SET(fd, &set->r);
	else
		FD_CLR(fd, &set->r);
	if (io & TLS_WRITE)
		FD_SET(fd, &set->w);
	else
		FD_CLR(fd, &set->w);
}

/*
 * What select() is to watch, from what the session waits for. Of octets that are here
 * already, kept or in TLS, select() tells nothing: the socket is watched until it can be
 * written to, which is at once.
 */
static void
watch(struct session *s)
{
	int here = (s->in.len > s->in_at && !s->partial) || (s->tls && tls_pending(s->tls));
	int io = (may_read(s) ? TLS_READ : 0) | (s->out.len > 0 ? TLS_WRITE : 0);

	if (s->tls)
		io = tls_wants(s->tls, io);
	if (may_read(s) && here)
		io |= TLS_WRITE;
	watch_for(s->fd, io, &worker.all);
	watch_for(s->fd, io, &worker.hot);
	if (now - worker.active[s->fd] >= HOT_MS)
		worker.woken = now;	/* others may follow */
	worker.active[s->fd] = now;
}

static void
session_free(struct session *s)
{
	transaction_reset(s);
	free(s->helo);
	free(s);
}

/* Ends the connection. A session whose mail is at the database goes on until results(). */
static void
session_close(struct session *s)
{
	if (conf.num[GSMTP_VERBOSE])
		log_line(s->id, "disconnect client=%s", s->peer);
	tls_free(s->tls);
	s->tls = NULL;
	watch_for(s->fd, 0, &worker.all);
	watch_for(s->fd, 0, &worker.hot);
	close(s->fd);
	worker.slot->key[s->fd] = 0;
	worker.session[s->fd] = NULL;
	while (worker.top >= 0 && worker.session[worker.top] == NULL)
		worker.top--;
	worker.slot->n[N_CLIENTS] = (uint64_t)--worker.nsessions;
	s->fd = -1;
	let_go(&s->in);
	let_go(&s->out);
	if (s->state != STORING)
		session_free(s);
}

/* The connection failed. Why is worth a line only where it is about TLS. */
static void
session_broken(struct session *s)
{
	char why[256];

	if (s->tls && errno == EPROTO)
		log_line(s->id, "tls-error client=%s why=%s", s->peer,
		    tls_describe(s->tls, why, sizeof(why)));
	session_close(s);
}

/* Writes the replies, as many as go; -1 where the session has been closed. */
static int
flush(struct session *s)
{
	ssize_t n;

	while (s->out.len > 0) {
		n = s->tls ? tls_write(s->tls, s->out.ptr, s->out.len) :
		    write(s->fd, s->out.ptr, s->out.len);
		if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n <= 0) {
			session_broken(s);
			return -1;
		}
		s->out.len -= (size_t)n;
		memmove(s->out.ptr, s->out.ptr + n, s->out.len);
	}
	let_go(&s->out);
	if (s->state == CLOSING && s->abrupt) {
		session_close(s);
		return -1;
	}
	/* close() with octets unread would reset the connection and lose the reply on its way. */
	if (s->state == CLOSING && !s->shut) {
		s->shut = 1;
		if (s->tls)
			tls_end(s->tls);
		shutdown(s->fd, SHUT_WR);
	}
	if (s->starttls) {
		s->starttls = 0;
		free(s->helo);
		s->helo = NULL;
		s->state = NEW;
		if ((s->tls = tls_new(s->fd)) == NULL) {
			session_close(s);
			return -1;
		}
	}
	return 0;
}

/*
 * Runs input by state and gives how many octets are done with. It stops where what follows
 * must wait: for the rest of a command (s->partial), for others to have their turn, for the
 * database (STORING), for the client to read its replies. Behind STARTTLS and what ends the
 * session nothing waits: it is dropped, or it would run after the handshake (CVE-2011-0411).
 */
static size_t
run_input(struct session *s, const char *p, size_t n)
{
	size_t done = 0, k;

	s->partial = 0;
	while (done < n && s->state < STORING && !s->starttls && s->out.len < OUT_MAX &&
	    (in_message(s) || done < COMMANDS_MAX)) {
		k = s->state == PROXY ? proxy_header(s, p + done, n - done) :
		    s->state == DATA ? data(s, p + done, n - done) :
		    s->state == CHUNK ? chunk(s, p + done, n - done) :
		    command_line(s, p + done, n - done);
		if (k == 0) {
			s->partial = 1;
			break;
		}
		done += k;
	}
	return s->starttls || s->state == CLOSING ? n : done;
}

/*
 * The one way of input, once a turn: what was kept runs first; else one read, behind the
 * piece of a command that was kept. What does not run now is kept, and watch() sees to it
 * that its turn comes. ready: there may be something to read. -1: the session is closed.
 */
static int
input(struct session *s, int ready)
{
	static char buf[LINE_MAX_IN + READ_MAX];
	size_t have = s->in.len - s->in_at, max = COMMANDS_MAX;
	ssize_t n;

	if (have > 0 && !s->partial) {
		s->in_at += run_input(s, s->in.ptr + s->in_at, have);
		if (s->in_at == s->in.len) {
			let_go(&s->in);
			s->in_at = 0;
		}
		return 0;
	}
	if (!ready)
		return 0;
	if (have > 0)		/* less than LINE_MAX_IN, or it would not be a piece */
		memcpy(buf, s->in.ptr + s->in_at, have);
	if (in_message(s) && room(READ_MAX))	/* what is behind the message is kept */
		max = READ_MAX;
	n = s->tls ? tls_read(s->tls, buf + have, max) : read(s->fd, buf + have, max);
	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n <= 0) {
		if (n == 0)
			errno = 0;
		session_broken(s);
		return -1;
	}
	let_go(&s->in);
	s->in_at = 0;
	have += (size_t)n;
	max = run_input(s, buf, have);
	if (max < have && hold(&s->in, buf + max, have - max) == -1) {
		session_close(s);
		return -1;
	}
	return 0;
}

static void
session_check(const struct session *s)
{
	size_t kept = s->in.len - s->in_at;

	assert(s->fd != -1 && worker.session[s->fd] == s);
	assert(s->in_at <= s->in.len && (s->in.len > 0 || s->in.ptr == NULL));
	assert(!s->partial || kept < LINE_MAX_IN);
	assert(kept == 0 || !s->starttls);
	assert(s->out.len > 0 || (s->out.ptr == NULL && !s->starttls));
	assert(s->state >= CHUNKED || s->tx.mail.ptr == NULL);
	assert(s->state == STORING || s->tx.columns.ptr == NULL);
	assert(s->tx.rcpts == 0 || (s->helo != NULL && s->tx.from != NULL));
	(void)s, (void)kept;
}

/* Whatever a session waited for is there: it goes on as far as it can. */
static void
go_on(struct session *s, int ready)
{
	if (flush(s) == 0 && (!may_read(s) || input(s, ready) == 0) && flush(s) == 0) {
		session_check(s);
		watch(s);
	}
}

/* How many of the connections of all workers come from this address. */
static long
clients_of(uint64_t key)
{
	long count = 0;
	int i, fd;

	for (i = 0; i < board->used && i < SLOTS; i++)
		for (fd = 0; fd < FDS && board->slot[i].n[N_CLIENTS] > 0; fd++)
			count += board->slot[i].key[fd] == key;
	return count;
}

/* The client's address is known: count it, then greet it or send it away. */
static void
session_start(struct session *s, const unsigned char addr[16])
{
	static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255 };
	int v4 = memcmp(addr, mapped, 12) == 0;
	uint64_t all = board_sum(N_CLIENTS);

	/* One IPv6 host has a /64; IPv4 counts whole. No /64 begins as ::ffff:0:0 does. */
	memcpy(&s->key, v4 ? addr + 8 : addr, 8);
	if (s->key == 0)		/* ::1; 0 is no client */
		s->key = UINT64_MAX;
	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, s->peer, sizeof(s->peer));
	worker.slot->key[s->fd] = s->key;
	s->state = NEW;
	s->since = now;
	if (conf.num[GSMTP_VERBOSE])
		log_line(s->id, "connect client=%s", s->peer);
	if (all > (uint64_t)conf.num[MAX_SMTP_CLIENTS])
		reply(s, 421, "4.7.0", "too many connections");
	else if (all > (uint64_t)conf.num[GSMTP_MAX_CLIENTS_PER_IP] &&
	    clients_of(s->key) > conf.num[GSMTP_MAX_CLIENTS_PER_IP]) {
		log_line(s->id, "limit GSMTP_MAX_CLIENTS_PER_IP client=%s", s->peer);
		reply(s, 421, "4.7.0", "too many connections from your address");
	} else
		reply(s, 220, NULL, "%s ESMTP smtpd", conf.text[GSMTP_HOST_NAME]);
	s->abrupt = s->state == CLOSING;	/* a flood must not hold places while it lingers */
}

static void
session_open(int fd, const struct sockaddr *sa)
{
	const struct sockaddr_in *v4 = (const void *)sa;
	const struct sockaddr_in6 *v6 = (const void *)sa;
	const char *list = conf.text[GSMTP_PROXY_FROM];
	struct mime_span item;
	struct session *s;
	unsigned char addr[16];
	int proxy = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (fd >= FDS || (s = calloc(1, sizeof(*s))) == NULL) {
		close(fd);
		return;
	}
	s->fd = fd;
	s->id = ++worker.next_id;
	s->since = now;
	worker.session[fd] = s;
	worker.active[fd] = now;
	if (fd > worker.top)
		worker.top = fd;
	worker.slot->n[N_CLIENTS] = (uint64_t)++worker.nsessions;
	worker.slot->n[N_CONNECTIONS]++;
	if (sa->sa_family == AF_INET6)
		memcpy(addr, &v6->sin6_addr, 16);
	else
		map_ipv4(addr, &v4->sin_addr);
	while (!proxy && next_item(&list, &item))
		proxy = in_network(item, addr);
	if (proxy) {
		inet_ntop(AF_INET6, addr, s->peer, sizeof(s->peer));
		watch(s);
		return;
	}
	session_start(s, addr);
	go_on(s, 0);
}

/* Ends a session that takes too long for what it is doing, RFC 5321 4.5.3.2. */
static void
session_timeout(struct session *s, int busy)
{
	long long limit = busy ? BUSY_TIMEOUT : conf.num[GSMTP_TIMEOUT];

	if (limit > conf.num[GSMTP_TIMEOUT])
		limit = conf.num[GSMTP_TIMEOUT];
	if (s->state == STORING)
		return;
	if (s->state == CLOSING)
		limit = LINGER;
	else if (s->state >= CHUNKED)	/* of the whole message, between its chunks too */
		limit += (long long)(s->tx.size / (busy ? BUSY_RATE : RATE));
	if (now - s->since <= limit * 1000)
		return;
	if (s->state != CLOSING && s->state != PROXY && s->out.len == 0) {
		log_line(s->id, "timeout client=%s", s->peer);
		reply(s, 421, "4.4.2", "timeout, closing the connection");
		go_on(s, 0);
	} else
		session_close(s);
}

/* ---- a worker ---- */

/* Mails that have their answer from the database. */
static void
results(void)
{
	struct db_mail *m;
	struct session *s;

	while ((m = db_done(worker.db)) != NULL) {
		s = (struct session *)(void *)((char *)m - offsetof(struct session, mail));
		worker.npending--;
		answer(s, code_of(m->status));
		if (s->fd == -1)
			session_free(s);
		else
			go_on(s, 0);
	}
	worker.slot->n[N_STATEMENTS] = db_statements(worker.db);
}

/*
 * All workers wait on the same listeners. Each takes one client of each a turn: who is at
 * work turns less often, and leaves the next to a sibling.
 */
static void
accept_client(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int client = accept(fd, (struct sockaddr *)&sa, &len);

	if (client != -1 && len == 0)	/* macOS: who has left again has no address */
		close(client);
	else if (client != -1)
		session_open(client, (struct sockaddr *)&sa);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		/* The client waits in the backlog. Any other error: nobody is there, or no more. */
		log_line(0, "accept-error %s", strerror(errno));
		worker.accept_at = now + 1000;
	}
}

/* A worker that is told to stop: mails at the database are answered first, all else gets 421. */
static void
say_goodbye(void)
{
	int fd;

	for (fd = worker.top; fd >= 0; fd--) {
		struct session *s = worker.session[fd];

		if (s == NULL || s->state == STORING || s->state == CLOSING)
			continue;
		if (s->state == PROXY)
			session_close(s);
		else {
			reply(s, 421, "4.3.2", "shutting down");
			s->abrupt = 1;
			go_on(s, 0);
		}
	}
}

/*
 * What select() costs grows with what it is given, and most connections are
 * idle. So where there are many, it is mostly given those that have been active
 * within HOT_MS, and all of them only every COLD_MS, or less often while the idle
 * ones stay silent. 1: all of them, now.
 */
static int
look_at_all(long *ms)
{
	int fd, hot = 0;

	if (worker.nsessions <= FEW_SESSIONS)
		return 1;
	if (now < worker.look_at) {
		if (*ms > worker.look_at - now)
			*ms = (long)(worker.look_at - now);
		return 0;
	}
	FD_ZERO(&worker.hot.r);
	FD_ZERO(&worker.hot.w);
	for (fd = 0; fd <= worker.top; fd++)
		if (worker.session[fd] && now - worker.active[fd] < HOT_MS) {
			hot = 1;
			if (FD_ISSET(fd, &worker.all.r))
				FD_SET(fd, &worker.hot.r);
			if (FD_ISSET(fd, &worker.all.w))
				FD_SET(fd, &worker.hot.w);
		}
	if (hot) {
		worker.look_at = now + (now - worker.woken < HOT_MS ? COLD_MS : COLD_MAX);
		*ms = 0;
	}
	return 1;
}

/* Lets signals in that wait: pselect() that finds descriptors ready does not look for them. */
static void
hear_signals(void)
{
	sigset_t blocked;

	sigprocmask(SIG_SETMASK, &unblocked, &blocked);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Sets what select() waits for and how long, waits, and says how many descriptors are ready. */
static int
wait_for_work(fd_set *r, fd_set *w, int *all)
{
	struct timespec ts;
	long ms = db_timeout(worker.db);
	int i, n, max = worker.top;

	if (ms < 0 || ms > 1000)
		ms = 1000;		/* what tick() does is done once a second */
	*all = look_at_all(&ms);
	*r = *all ? worker.all.r : worker.hot.r;
	*w = *all ? worker.all.w : worker.hot.w;
	if (worker.life == SERVING && worker.accept_at <= now &&
	    worker.nsessions < worker.max_sessions)
		for (i = 0; i < conf.listen.n; i++) {
			FD_SET(conf.listen.list[i].fd, r);
			if (conf.listen.list[i].fd > max)
				max = conf.listen.list[i].fd;
		}
	db_watch(worker.db, r, w, &max);
	if (worker.life == LAST_CALL)
		ms = 0;
	if (now - journal.since >= LOG_MS)
		log_flush();
	if (journal.len > 0 && ms > LOG_MS)
		ms = LOG_MS;
	ts.tv_sec = ms / 1000;
	ts.tv_nsec = ms % 1000 * 1000000;
	n = pselect(max + 1, r, w, NULL, &ts, &unblocked);
	now = clock_ms();
	if (n == -1) {			/* a signal; or a descriptor that is none: cannot happen */
		FD_ZERO(r);
		FD_ZERO(w);
	}
	return n;
}

/*
 * Serves the sessions that are ready, of n descriptors. Commands go first, so that no
 * reply waits for others' messages; messages take turns.
 */
static void
serve(const fd_set *r, const fd_set *w, int n)
{
	static int first;		/* whose message is next */
	int ready[FDS], count = 0, fd, i, again;

	for (fd = 0; fd <= worker.top && count < n; fd++)
		if (worker.session[fd] && (FD_ISSET(fd, r) || FD_ISSET(fd, w)))
			ready[count++] = fd;
	for (i = 0; i < count; i++)
		if (!in_message(worker.session[ready[i]])) {
			go_on(worker.session[ready[i]], 1);
			ready[i] = -1;
		}
	for (again = 0; again < 2; again++)
		for (i = 0; i < count; i++) {
			if ((fd = ready[i]) == -1 || (fd < first) != again)
				continue;
			go_on(worker.session[fd], 1);
			if (clock_ms() - now >= MESSAGES_MS) {
				first = fd + 1;
				return;
			}
		}
}

/* What is done once a second: signals heard, the master missed, timeouts, memory given back. */
static void
tick(void)
{
	static long long last;
	int fd, busy;

	if (now - last < 1000)
		return;
	last = now;
	hear_signals();
	if (getppid() != worker.master)		/* it is gone */
		got_stop = 1;
	busy = board_sum(N_CLIENTS) > (uint64_t)conf.num[MAX_SMTP_CLIENTS] * 3 / 4 ||
	    board_sum(N_HELD) > (uint64_t)conf.num[GSMTP_MAX_MEMORY] / 4 * 3;
	for (fd = worker.top; fd >= 0; fd--)
		if (worker.session[fd])
			session_timeout(worker.session[fd], busy);
#ifdef M_MMAP_THRESHOLD
	/* glibc keeps what is free for itself, unasked for ever. */
	if (worker.held < worker.held_before)
		malloc_trim(OWN_MAX);
#endif
	worker.held_before = worker.held;
}

/* What ends a worker, step by step. quiet: a look at all sessions found nothing ready. */
static void
live(int stop, int drain, int quiet)
{
	int i;

	if (drain && worker.life == SERVING) {
		worker.life = DRAINING;
		worker.until = now + conf.num[GSMTP_TIMEOUT] * 1000;
		for (i = 0; i < conf.listen.n; i++)
			close(conf.listen.list[i].fd);
		conf.listen.n = 0;
	}
	if (worker.life < LAST_CALL && (stop || (worker.life == DRAINING && now >= worker.until))) {
		worker.life = LAST_CALL;
		worker.until = now + CALL_MS;
	} else if (worker.life == LAST_CALL && (quiet || now >= worker.until)) {
		worker.life = LEAVING;
		worker.until = now + DB_MS;
	}
	if (worker.life == LEAVING)
		say_goodbye();
}

/*
 * The loop. Told to drain (HUP), a worker ends with its last session; told to stop
 * (TERM), or without its master, as soon as the mails at the database have answers.
 */
static void
worker_loop(void)
{
	fd_set r, w;
	int i, ready, all;

	while ((worker.life == SERVING || worker.nsessions > 0 || worker.npending > 0) &&
	    (worker.life != LEAVING || now < worker.until)) {
		ready = wait_for_work(&r, &w, &all);
		serve(&r, &w, ready);
		for (i = 0; i < conf.listen.n; i++)
			if (FD_ISSET(conf.listen.list[i].fd, &r))
				accept_client(conf.listen.list[i].fd);
		db_run(worker.db, &r, &w);
		results();
		db_run(worker.db, NULL, NULL);
		for (const char *news; (news = db_news(worker.db)) != NULL; )
			log_line(0, "%s", news);
		tick();
		live(got_stop, got_drain, all && ready <= 0);
		show_held();
	}
}

/* Root ends here: groups, gid, uid, each checked, and no way back. -1 with errno. */
static int
drop_privileges(const struct passwd *pw)
{
	if (geteuid() != 0)
		return 0;
	return setgroups(1, &pw->pw_gid) == -1 || setgid(pw->pw_gid) == -1 ||
	    setuid(pw->pw_uid) == -1 || (pw->pw_uid != 0 && setuid(0) != -1) ? -1 : 0;
}

/*
 * As many descriptors as there may be, but none that select() cannot watch, neither for us
 * nor for a library. Gives how many are left for clients.
 */
static long
limit_descriptors(const struct config *c)
{
	struct rlimit r = { FDS, FDS };

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max < FDS ? r.rlim_max : FDS;
	setrlimit(RLIMIT_NOFILE, &r);
	return (long)r.rlim_cur - SPARE_FDS - c->listen.n;
}

static struct db_config
database(const struct config *c)
{
	struct db_config d = {
		.hosts = c->text[MYSQL_HOST], .user = c->text[MYSQL_USER],
		.pass = c->text[MYSQL_PASS], .name = c->text[MYSQL_DB],
		.table = c->text[GM_MAIL_TABLE], .timeout = (int)c->num[MYSQL_TIMEOUT],
		.connections = (int)(DB_CONNECTIONS / c->num[GSMTP_WORKERS]),
		.max_size = (size_t)c->num[GSMTP_MAX_SIZE]
	};

	return d;
}

/* From fork() to exit. log: a pipe to the master. */
static void
worker_main(int slot, int log)
{
	struct db_config d = database(&conf);
	long fds;

	if (journal.fd != -1)
		close(journal.fd);
	journal.fd = log;
	journal.is_worker = 1;
	journal.len = 0;
	journal.dropped = 0;
	worker.master = (pid_t)journal.pid;
	journal.pid = (long)getpid();
	if (drop_privileges(&conf.user) == -1) {
		log_line(0, "error cannot become GSMTP_USER=%s: %s", conf.text[GSMTP_USER],
		    strerror(errno));
		log_flush();
		exit(1);
	}
#ifdef M_MMAP_THRESHOLD
	mallopt(M_MMAP_THRESHOLD, OWN_MAX);
	mallopt(M_TRIM_THRESHOLD, 4 * OWN_MAX);	/* tick() gives back the rest */
#endif
	got_stop = got_hup = got_usr1 = got_drain = 0;
	fds = limit_descriptors(&conf);
	worker.max_sessions = (int)conf.num[MAX_SMTP_CLIENTS];
	if (worker.max_sessions > fds)
		worker.max_sessions = (int)fds;
	worker.slot = &board->slot[slot];
	worker.db = must(db_new(&d));
	now = clock_ms();
	log_line(0, "worker-start number=%d", slot + 1);
	worker_loop();
	log_line(0, "worker-stop number=%d", slot + 1);
	log_flush();
	db_free(worker.db);
	exit(0);
}

/* ---- configuration ---- */

static char reason[2048];		/* why a configuration cannot be had, in one line */

/* Leaves the reason; gives -1. */
static int
refuse(const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	for (p = reason; *p; p++)
		*p = iscntrl((unsigned char)*p) ? '?' : *p;
	return -1;
}

static void
config_free(struct config *c)
{
	int i;

	for (i = 0; i < NAMES; i++) {
		free(c->text[i]);
		free(c->source[i]);
	}
}

/* Labels of letters, digits, "-" and "_", the last no number; or an address in brackets. */
static int
is_domain(const char *text)
{
	static const char set[] =
	    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	size_t len = strlen(text), n;

	if (*text == '[' && len > 4)
		return strspn(text + 1, "0123456789abcdefABCDEF:.IPv") == len - 2 &&
		    text[len - 1] == ']';
	for (;; text += n + 1) {
		n = strcspn(text, ".");
		if (n < 1 || n > 63 || strspn(text, set) != n || *text == '-' || text[n - 1] == '-')
			return 0;
		if (text[n] == '\0')
			return strspn(text, "0123456789") < n && len <= 255;
	}
}

/*
 * Cuts "host", "host:port", "[v6]", "[v6]:port" or "v6" up; its parts last until the next
 * call. What is an address with a port behind it and without, as ::1:2525, needs the brackets.
 */
static int
cut_address(struct mime_span item, const char **host, const char **service)
{
	static char text[1024];
	unsigned char addr[16];
	uint64_t n;
	char *colon, *end;

	snprintf(text, sizeof(text), "%.*s", (int)item.len, item.ptr);
	*host = text;
	*service = cli.port;
	colon = strrchr(text, ':');
	if (colon != strchr(text, ':') && colon[-1] != ']') {
		*colon = '\0';
		if (parse_address(text, addr) == 0 && parse_number(colon + 1, &n) == 0)
			return -1;
		*colon = ':';
	} else if (colon != NULL) {
		*colon = '\0';
		*service = colon + 1;
	}
	if (*text == '[') {
		end = text + strlen(++*host);
		if (*end != ']')
			return -1;
		*end = '\0';
		if (parse_address(*host, addr) == -1)
			return -1;
	}
	return parse_number(*service, &n) == 0 && n >= 1 && n <= 65535 ? 0 : -1;
}

/* What each kind is, for whom it is told that a value is not. */
static const char *const forms[] = {
	[DOMAINS] = ("a domain: write example.org, *.example.org for its subdomains, * for all, "
	    "with a comma between two"),
	[LISTENERS] = "an address: write *, 192.0.2.1, 192.0.2.1:2525, [2001:db8::1]:2525",
	[NETWORKS] = "a network: write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32",
	[SERVERS] = "a server: write db.example.org, 192.0.2.1:3306, [2001:db8::1]:3306, /a/socket",
	[DOMAIN] = "a host name such as mx.example.org",
	[NUMBER] = "a whole number",
	[SWITCH] = "0 or 1",
	[WORD] = "a name: no blank, no dot, 64 characters at most",
	[LINE] = "plain text"
};

/* Does the setting take this value, or item of a list? */
static int
config_takes(int i, struct mime_span item)
{
	const char *host, *service;
	unsigned char addr[16] = { 0 };
	char text[1024];
	uint64_t n;
	size_t k;
	int is_host = cut_address(item, &host, &service) == 0;

	snprintf(text, sizeof(text), "%.*s", (int)item.len, item.ptr);
	for (k = 0; k < item.len; k++)
		if (k == sizeof(text) - 1 || iscntrl((unsigned char)item.ptr[k]))
			return 0;
	switch (settings[i].kind) {
	case DOMAINS:
		return strcmp(text, "*") == 0 || is_domain(text + (strncmp(text, "*.", 2) ? 0 : 2));
	case DOMAIN:
		return is_domain(text);
	case LISTENERS:
		return is_host && (strcmp(host, "*") == 0 || parse_address(host, addr) == 0);
	case SERVERS:
		if (*text == '/')
			return strpbrk(text, " \t") == NULL;
		return is_host && (is_domain(host) || parse_address(host, addr) == 0);
	case NETWORKS:
		return in_network(item, addr) != -1;
	case NUMBER:
	case SWITCH:
		return parse_number(text, &n) == 0 && n >= (uint64_t)settings[i].min &&
		    n <= (uint64_t)settings[i].max;
	case WORD:
		return strpbrk(text, " .") == NULL && item.len <= 256;
	default:
		return 1;
	}
}

/*
 * Takes one value. An empty one is the default, but an empty MYSQL_DB, as MYSQL_USER and PASS,
 * is what the client library's option files say. 0, or -1 with the reason.
 */
static int
config_set(struct config *c, int i, const char *value, const char *source)
{
	enum kind kind = settings[i].kind;
	struct mime_span item;
	const char *rest;
	char range[80] = "";
	int list = kind <= SERVERS, more;

	if (kind == DOMAINS || kind == DOMAIN)
		value = to_ascii(value, strlen(value));
	if (*value == '\0' && i != MYSQL_DB)
		value = settings[i].value;
	item = (struct mime_span){ rest = value, strlen(value) };
	if (list)
		next_item(&rest, &item);
	if (kind == NUMBER)
		sprintf(range, " from %ld to %ld", settings[i].min, settings[i].max);
	for (more = *value && kind != SECRET; more; more = list && next_item(&rest, &item))
		if (!config_takes(i, item))
			return refuse("%s: %s: \"%.*s\" is not %s%s", source, settings[i].name,
			    item.len < 100 ? (int)item.len : 100, item.ptr, forms[kind], range);
	free(c->text[i]);
	free(c->source[i]);
	c->text[i] = must(strdup(value));
	c->source[i] = must(strdup(source));
	c->num[i] = strtol(value, NULL, 10);
	return 0;
}

/* In place, without the blanks around it. */
static char *
trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	return s + strspn(s, " \t");
}

static int
config_find(const char *name, size_t len)
{
	int i;

	for (i = 0; i < NAMES; i++)
		if (strncmp(name, settings[i].name, len) == 0 && settings[i].name[len] == '\0')
			break;
	return i;
}

/* A line of the file. A pair of quotes around the value is dropped, as systemd does. */
static int
config_line(struct config *c, char *line, const char *source)
{
	char *name = trim(line), *value = strchr(name, '=');
	size_t len;
	int i = NAMES;

	if (*name == '\0' || *name == '#')
		return 0;
	if (value != NULL) {
		*value++ = '\0';
		name = trim(name);
		i = config_find(name, strlen(name));
	}
	if (i == NAMES)
		return refuse("%s: \"%.100s\" %s%s", source, name, value ?
		    "is no setting; smtpd(8) lists them" : "is not of the form NAME=value",
		    cli.file ? "" : " (OpenSMTPD has a file of this name: -c names another)");
	value = trim(value);
	len = strlen(value);
	if (len >= 2 && (*value == '"' || *value == '\'') && value[len - 1] == *value) {
		value[len - 1] = '\0';
		value++;
	} else if (*value == '#' || strstr(value, " #") || strstr(value, "\t#")) {
		refuse("%s: %s: a comment needs a line of its own, and a value with \" #\" quotes",
		    source, name);
		if (settings[i].kind != SECRET)
			return -1;
		log_line(0, "warning %s", reason);
	}
	if (strcmp(c->source[i], "default") != 0)
		log_line(0, "warning %s: %s is set again: this counts, %s does not", source, name,
		    c->source[i]);
	return config_set(c, i, value, source);
}

static int
config_read(struct config *c, const char *path)
{
	char source[1024], *line = NULL;
	size_t room = 0;
	ssize_t len;
	struct stat st;
	FILE *f = fopen(path, "r");
	int bom, number = 0, status = 0;

	if (f == NULL)
		return cli.file == NULL && errno == ENOENT ? 0 :
		    refuse("%s: %s", path, strerror(errno));
	while (status == 0 && (len = getline(&line, &room, f)) != -1) {
		while (len-- > 0)
			line[len] = line[len] ? line[len] : '?';	/* of UTF-16 */
		snprintf(source, sizeof(source), "%.1000s:%d", path, ++number);
		/* Windows begins a file in UTF-8 with U+FEFF. */
		bom = number == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
		status = config_line(c, line + bom, source);
	}
	if (ferror(f))
		status = refuse("%s: %s", path, strerror(errno));
	if (*c->text[MYSQL_PASS] && fstat(fileno(f), &st) == 0 && (st.st_mode & S_IROTH))
		log_line(0, "warning %s: every user can read MYSQL_PASS in it: chmod 600", path);
	free(line);
	fclose(f);
	return status;
}

/* A number that nobody set. */
static void
config_number(struct config *c, int i, long n, const char *source)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", n);
	config_set(c, i, text, source);
}

/* What comes from the machine and from other settings, and what they say together. */
static int
config_finish(struct config *c)
{
	char name[256] = "";
	const char *list = c->text[GSMTP_LISTEN];
	struct mime_span item;
	long cpus = 1, need, fds = FDS - SPARE_FDS, size = c->num[GSMTP_MAX_SIZE];

	while (next_item(&list, &item))
		fds -= 2;
	need = fds < 1 ? SLOTS : (c->num[MAX_SMTP_CLIENTS] + fds - 1) / fds;
	if (need > SLOTS / 2)
		return refuse("%s: GSMTP_LISTEN: too many addresses for MAX_SMTP_CLIENTS=%ld",
		    c->source[GSMTP_LISTEN], c->num[MAX_SMTP_CLIENTS]);
	if (*c->text[GM_ALLOWED_HOSTS] == '\0')
		return refuse("GM_ALLOWED_HOSTS is not set: it names the domains to take mail for, "
		    "as in GM_ALLOWED_HOSTS=example.org,*.example.org");
	if (*c->text[GSMTP_TLS_KEY] && !*c->text[GSMTP_TLS_CERT])
		return refuse("%s: GSMTP_TLS_KEY needs GSMTP_TLS_CERT beside it",
		    c->source[GSMTP_TLS_KEY]);
	if (*c->text[GSMTP_HOST_NAME] == '\0') {
		if (gethostname(name, sizeof(name) - 1) == -1 || *name == '\0')
			strcpy(name, "localhost");
		if (config_set(c, GSMTP_HOST_NAME, name, "gethostname()") == -1)
			return -1;
	}
	if (*c->text[GSMTP_MAX_CLIENTS_PER_IP] == '\0')
		config_number(c, GSMTP_MAX_CLIENTS_PER_IP, (c->num[MAX_SMTP_CLIENTS] + 1) / 2,
		    "half of MAX_SMTP_CLIENTS");
#ifdef _SC_NPROCESSORS_ONLN
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
#endif
	if (*c->text[GSMTP_WORKERS] == '\0')
		config_number(c, GSMTP_WORKERS, cpus < 1 ? 1 : cpus > SLOTS / 2 ? SLOTS / 2 : cpus,
		    "processors online");
	if (c->num[GSMTP_WORKERS] < need)
		config_number(c, GSMTP_WORKERS, need, "raised for MAX_SMTP_CLIENTS");
	/* The message, by a quarter larger while it grows, and room for its text. */
	size += size / 4 + (size < BODY_MAX / 3 ? 3 * size : BODY_MAX);
	if (size > c->num[GSMTP_MAX_MEMORY])
		log_line(0, "warning GSMTP_MAX_MEMORY=%s is little for GSMTP_MAX_SIZE=%s: large "
		    "mail gets 452", c->text[GSMTP_MAX_MEMORY], c->text[GSMTP_MAX_SIZE]);
	return 0;
}

/* Command line, environment, file, default: in that order. */
static int
config_load(struct config *c)
{
	size_t len;
	char **e;
	int i, status;

	memset(c, 0, sizeof(*c));
	for (i = 0; i < NAMES; i++)
		config_set(c, i, settings[i].value, "default");
	status = config_read(c, cli.file ? cli.file : "/etc/smtpd.conf");
	for (e = environ; status == 0 && *e; e++) {
		len = strcspn(*e, "=");
		i = (*e)[len] ? config_find(*e, len) : NAMES;
		if (i < NAMES)
			status = config_set(c, i, *e + len + 1, "environment");
		else if (strncmp(*e, "GM_", 3) == 0 || strncmp(*e, "GSMTP_", 6) == 0)
			log_line(0, "warning environment: \"%.100s\" is no setting", *e);
	}
	for (i = 0; status == 0 && i < NAMES; i++)
		if (cli.set[i])
			status = config_set(c, i, cli.set[i], "command line");
	return status == 0 ? config_finish(c) : -1;
}

/* As a file for -c, but for the password. */
static void
config_print(const struct config *c)
{
	int i;

	for (i = 0; i < NAMES; i++) {
		const char *value = c->text[i], *quote = strpbrk(value, " #\"'") ? "\"" : "";

		if (settings[i].kind == SECRET && *value)
			printf("# %s: set, not shown\n#%s=\n", c->source[i], settings[i].name);
		else
			printf("# %s\n%s=%s%s%s\n", c->source[i], settings[i].name, quote, value,
			    quote);
	}
}

/* ---- listeners ---- */

/* The one of that name, as "192.0.2.1:25" or "[2001:db8::1]:25". */
static const struct listener *
listen_find(const struct listeners *in, const char *name)
{
	int i;

	for (i = 0; i < in->n; i++)
		if (strcmp(in->list[i].name, name) == 0)
			return &in->list[i];
	return NULL;
}

/* Why an address cannot be had, and what to do. */
static int
listen_error(const char *name)
{
	const struct listener *l = conf.listen.list;
	int error = errno, i;

	for (i = 0; error == EADDRINUSE && i < conf.listen.n; i++, l++)
		if (strcmp(strrchr(l->name, ':'), strrchr(name, ':')) == 0)
			return refuse("cannot listen on %s while this smtpd listens on %s: that "
			    "change needs a restart", name, l->name);
	return refuse("cannot listen on %s: %s%s", name, strerror(error),
	    error == EACCES ? " (ports below 1024 need root)" : error == EADDRNOTAVAIL ?
	    " (GSMTP_LISTEN: no address of this machine)" : error == EADDRINUSE ?
	    " (another server has this port; -p takes another)" : "");
}

/*
 * One address to listen on; one that is open already is kept, so that nothing in its backlog
 * is lost. 0; 1 where its family is not to be had; or -1.
 */
static int
listen_on(const struct addrinfo *a, struct listeners *to)
{
	const struct listener *old;
	struct listener *l = &to->list[to->n];
	char host[INET6_ADDRSTRLEN], service[8];
	int one = 1, is6 = a->ai_family == AF_INET6, none;

	getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), service, sizeof(service),
	    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(l->name, sizeof(l->name), is6 ? "[%s]:%s" : "%s:%s", host, service);
	if (listen_find(to, l->name))
		return 0;
	to->n++;
	if ((old = listen_find(&conf.listen, l->name)) != NULL) {
		*l = *old;
		return 0;
	}
	if ((l->fd = socket(a->ai_family, SOCK_STREAM, 0)) != -1) {
		setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		/* Accepted sockets inherit it: a reply never waits for the last one's ACK. */
		setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (is6)
			setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
		if (bind(l->fd, a->ai_addr, a->ai_addrlen) == 0 && (cli.test ||
		    (listen(l->fd, SOMAXCONN) == 0 && fcntl(l->fd, F_SETFL, O_NONBLOCK) == 0)))
			return 0;
		if (cli.test && errno == EADDRINUSE) {
			printf("# %s is in use, by this smtpd or by another server\n", l->name);
			return 0;
		}
	}
	none = errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || (is6 && errno == EADDRNOTAVAIL);
	listen_error(l->name);
	close(l->fd);
	to->n--;
	return none ? 1 : -1;
}

/* Closes those of one list that the other does not have too. */
static void
listen_drop(const struct listeners *from, const struct listeners *keep)
{
	int i;

	for (i = 0; i < from->n; i++)
		if (!listen_find(keep, from->list[i].name))
			close(from->list[i].fd);
}

/* Opens what GSMTP_LISTEN names; what is open already is in both lists. -1: none of it is. */
static int
listen_all(struct config *c)
{
	struct addrinfo ask, *found, *a;
	const char *list = c->text[GSMTP_LISTEN], *host, *service;
	struct mime_span item;
	int error = 0, had;

	memset(&ask, 0, sizeof(ask));
	ask.ai_socktype = SOCK_STREAM;
	ask.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
	while (error == 0 && next_item(&list, &item)) {
		(void)cut_address(item, &host, &service);
		if (getaddrinfo(strcmp(host, "*") ? host : NULL, service, &ask, &found) != 0)
			found = NULL;
		/* "*" is one of either family: one that is not to be had does no harm. */
		for (error = 1, a = found; a != NULL && error != -1; a = a->ai_next)
			if ((had = listen_on(a, &c->listen)) != 1)
				error = had;
		if (found != NULL)
			freeaddrinfo(found);
	}
	if (error != 0)
		listen_drop(&c->listen, &conf.listen);
	return error == 0 ? 0 : -1;
}

/* ---- the master ---- */

static struct {
	struct child child[SLOTS];
	int nchildren, used;		/* now; and slots that have ever been somebody's */
	int log[2];			/* the pipe that workers write their log to */
	uint64_t gone[COUNTS];		/* counted by workers that have ended */
	long long started;		/* ms */
	long long start_at, pause;	/* ms: the next worker is not started before */
	long long stop_at;		/* ms: workers are killed then; 0: no TERM has come */
} master;

static void
on_signal(int sig)
{
	if (sig == SIGTERM || sig == SIGINT)
		got_stop = 1;
	else if (sig == SIGHUP)
		got_hup = 1;
	else if (sig == SIGUSR1)
		got_usr1 = 1;
	else if (sig == SIGUSR2)	/* from the master to its workers */
		got_drain = 1;
}

/* What is nobody's is zero, whatever a worker that went mad has written. */
static void
board_clear(void)
{
	int i;

	for (i = 0; i < master.used; i++)
		if (master.child[i].pid == 0)
			memset((void *)(uintptr_t)&board->slot[i], 0, sizeof(board->slot[i]));
	board->used = master.used;
}

/* A worker of the present configuration, in a slot that is free; -1: it cannot be had. */
static int
child_start(int slot)
{
	struct child *c = &master.child[slot];

	if (master.used <= slot)
		master.used = slot + 1;
	board_clear();
	if ((c->pid = fork()) == -1) {
		log_line(0, "fork-error %s", strerror(errno));
		c->pid = 0;
		return -1;
	}
	if (c->pid == 0) {
		close(master.log[0]);
		worker_main(slot, master.log[1]);
	}
	c->draining = 0;
	c->started = now;
	master.nchildren++;
	return 0;
}

static void
signal_children(int sig)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		if (master.child[i].pid > 0)
			kill(master.child[i].pid, sig);
}

/* Takes what workers have sent to the log. */
static void
log_collect(void)
{
	static char part[32768];	/* what has not come whole is kept */
	static size_t len;
	char *p, *lf;
	ssize_t n;
	int i;

	/* So much a turn: a worker that writes without end must not make the master deaf. */
	for (i = 0; i < 16 && (n = read(master.log[0], part + len, sizeof(part) - len)) > 0; i++) {
		len += (size_t)n;
		for (p = part; (lf = memchr(p, '\n', len)) != NULL; p = lf + 1) {
			if (lf - p < LOG_LINE)	/* else it is no line of ours */
				log_add(p, (size_t)(lf - p) + 1);
			len -= (size_t)(lf - p) + 1;
		}
		memmove(part, p, len);
		if (len >= LOG_LINE)
			len = 0;
	}
}

/*
 * A worker has ended, and gives its slot back. Where it was to go on, the next starts at
 * once, or, where it died within seconds of its start, after a pause that grows with each
 * such death.
 */
static void
child_ended(int slot, int status)
{
	struct child *c = &master.child[slot];
	int i, expected = c->draining || master.stop_at, killed = WIFSIGNALED(status);
	long long lived = now - c->started;
	char restart[24] = "no";

	log_collect();		/* its last words */
	for (i = N_HELD + 1; i < COUNTS; i++)
		master.gone[i] += board->slot[slot].n[i];
	if (!expected) {
		master.pause = lived > 10000 ? 0 : master.pause ? master.pause * 2 : 1000;
		if (master.pause > PAUSE_MAX)
			master.pause = PAUSE_MAX;
		master.start_at = now + master.pause;
		snprintf(restart, sizeof(restart), "%llds", master.pause / 1000);
	}
	if (!expected || status != 0)
		log_line(0, "worker-died number=%d pid=%ld %s=%d restart=%s", slot + 1,
		    (long)c->pid, killed ? "signal" : "exit",
		    killed ? WTERMSIG(status) : WEXITSTATUS(status), restart);
	c->pid = 0;
	master.nchildren--;
	board_clear();
}

/* Waits for signals, children that end, lines for the log, or that time. */
static void
master_wait(long long until)
{
	long long ms = until > now ? until - now : 0;
	struct timespec ts = { (time_t)(ms / 1000), (long)(ms % 1000 * 1000000) };
	int i, status, out = journal.fd == -1 ? STDERR_FILENO : journal.fd, in = master.log[0];
	fd_set r, w;

	log_flush();
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(in, &r);
	if (journal.len > 0 && !journal.refused && out != -2)
		FD_SET(out, &w);
	pselect((in > out ? in : out) + 1, &r, &w, NULL, &ts, &unblocked);
	hear_signals();
	now = clock_ms();
	log_collect();
	for (i = 0; i < SLOTS; i++)
		if (master.child[i].pid > 0 && waitpid(master.child[i].pid, &status, WNOHANG) > 0)
			child_ended(i, status);
}

static void
counters(void)
{
	char line[1024];
	unsigned long long n;
	int i, len = 0;

	for (i = 0; i < COUNTS; i++) {
		n = master.gone[i] + board_sum((enum count)i);
		len += snprintf(line + len, sizeof(line) - (size_t)len, " %s=%llu",
		    count_names[i], n);
	}
	log_line(0, "counters uptime=%llds workers=%d%s", (now - master.started) / 1000,
	    master.nchildren, line);
}

/* GSMTP_USER, where there is a root to give up. */
static int
find_user(struct config *c)
{
	struct passwd *found;

	if (geteuid() != 0)
		return 0;
	errno = 0;
	if ((found = getpwnam(c->text[GSMTP_USER])) == NULL)
		return refuse("%s: GSMTP_USER=%s: %s", c->source[GSMTP_USER], c->text[GSMTP_USER],
		    errno ? strerror(errno) : "no such user");
	if (found->pw_uid == 0)
		log_line(0, "warning %s: GSMTP_USER=%s: the workers stay root",
		    c->source[GSMTP_USER], c->text[GSMTP_USER]);
	c->user = *found;
	return 0;
}

/*
 * Looks at the database as a worker will, with its rights, in a child that has CHECK_MS, ten
 * times that for -t: 0 mails can be stored, 1 it is away, -1 an operator must mend it.
 * The reason is what was found or what is wrong.
 */
static int
check_database(const struct config *c)
{
	struct db_config d = database(c);
	long ms = cli.test ? 10 * CHECK_MS : CHECK_MS;
	long long until = clock_ms() + ms;
	ssize_t n;
	int fd[2], status;
	pid_t pid, ended;

	if (pipe(fd) == -1)
		return refuse("pipe: %s", strerror(errno));
	if ((pid = fork()) == -1) {
		close(fd[0]);
		close(fd[1]);
		return refuse("fork: %s", strerror(errno));
	}
	if (pid == 0) {
		status = drop_privileges(&c->user) == -1 ?
		    refuse("cannot become GSMTP_USER: %s", strerror(errno)) :
		    db_check(&d, reason, sizeof(reason));
		n = write(fd[1], reason, strlen(reason));
		_exit(n == -1 ? 2 : status + 1);
	}
	close(fd[1]);
	now = clock_ms();
	while ((ended = waitpid(pid, &status, WNOHANG)) == 0 && now < until && !got_stop)
		master_wait(until);
	if (ended == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		refuse("no answer within %ld s from MYSQL_HOST=%s (it hangs, the address is wrong, "
		    "or its name cannot be looked up)", ms / 1000, c->text[MYSQL_HOST]);
		status = got_stop ? refuse("told to stop") : 1;
	} else if (WIFSIGNALED(status))
		status = refuse("the check of MYSQL_HOST was ended by signal %d", WTERMSIG(status));
	else {
		n = read(fd[0], reason, sizeof(reason) - 1);
		reason[n > 0 ? n : 0] = '\0';
		status = WEXITSTATUS(status) - 1;
	}
	close(fd[0]);
	return status;
}

/* All that workers need of a configuration; nothing but the log is in use yet. 0, -1: why. */
static int
prepare(struct config *c)
{
	const char *log = c->text[GSMTP_LOG_FILE];
	struct stat st;
	int fresh;
	long room;

	if (master.nchildren + c->num[GSMTP_WORKERS] > SLOTS)
		return refuse("%d workers serve or drain, and GSMTP_WORKERS=%ld more are too many: "
		    "send HUP again later", master.nchildren, c->num[GSMTP_WORKERS]);
	if (tls_load(c->text[GSMTP_TLS_CERT], c->text[GSMTP_TLS_KEY], c->tls, sizeof(c->tls)) == -1)
		return refuse("%s", c->tls);
	if (find_user(c) == -1 || listen_all(c) == -1)
		return -1;
	if ((room = limit_descriptors(c)) < 1)
		c->away = refuse("ulimit -n leaves no descriptor for clients: %d are needed",
		    SPARE_FDS + c->listen.n + 1);
	else
		c->away = check_database(c);
	/* Last of all, for it is in use from here on. */
	fresh = lstat(log, &st) == -1;
	if (c->away != -1 && log_open(log) == -1)
		c->away = refuse("%s: GSMTP_LOG_FILE=%.900s: %s", c->source[GSMTP_LOG_FILE], log,
		    strerror(errno));
	if (cli.test && fresh)
		unlink(log);
	if (c->away == -1) {
		listen_drop(&c->listen, &conf.listen);
		return -1;
	}
	if (room * c->num[GSMTP_WORKERS] < c->num[MAX_SMTP_CLIENTS])
		log_line(0, "warning ulimit -n is %ld: a worker serves only %ld clients at once, "
		    "MAX_SMTP_CLIENTS=%ld takes ulimit -n %d", room + SPARE_FDS + c->listen.n,
		    room, c->num[MAX_SMTP_CLIENTS], FDS);
	return 0;
}

/*
 * Start, HUP and -t: all of a configuration is taken, and workers that are started from now on
 * have it; or none of it, -1 with the reason.
 */
static int
configure(const char *event)
{
	struct config c;
	int status = config_load(&c);

	if (status == 0 && cli.test)
		config_print(&c);
	if (status == -1 || prepare(&c) == -1) {
		config_free(&c);
		return -1;
	}
	listen_drop(&conf.listen, &c.listen);
	tls_use();
	config_free(&conf);
	conf = c;
	log_line(0, "%s version=%s host=%s listen=%s port=%s workers=%ld tls=%s", event, VERSION,
	    conf.text[GSMTP_HOST_NAME], conf.text[GSMTP_LISTEN], cli.port, conf.num[GSMTP_WORKERS],
	    *conf.tls ? conf.tls : "-");
	if (conf.away && !cli.test)
		log_line(0, "database-away %s: mail gets 451 until it is back", reason);
	return 0;
}

/* HUP: the log anew, the configuration anew, new workers; a bad one changes nothing. */
static void
reload(void)
{
	int i;

	if (configure("reload") == -1) {
		log_open(conf.text[GSMTP_LOG_FILE]);	/* the one of before, anew */
		log_line(0, "reload-error %s: the old configuration stays", reason);
		return;
	}
	/* Not by HUP, which `pkill -HUP smtpd' sends to workers as well. */
	signal_children(SIGUSR2);
	for (i = 0; i < SLOTS; i++)
		master.child[i].draining = 1;
	master.start_at = now;
	master.pause = 0;
}

/* Starts the workers that are missing; the time when more are to be started. */
static long long
replace(void)
{
	int i, missing = (int)conf.num[GSMTP_WORKERS];

	for (i = 0; i < master.used; i++)
		missing -= master.child[i].pid > 0 && !master.child[i].draining;
	for (i = 0; i < SLOTS && missing > 0 && now >= master.start_at; i++) {
		if (master.child[i].pid != 0)
			continue;
		if (child_start(i) == -1)
			break;
		missing--;
	}
	if (missing > 0 && now >= master.start_at)
		master.start_at = now + 1000;
	return missing > 0 ? master.start_at : now + 86400000;
}

/* Watches the workers until it is told to stop; then gives them time to finish. */
static void
master_loop(void)
{
	master.started = now = clock_ms();
	for (;;) {
		master_wait(master.stop_at ? master.stop_at : replace());
		if (got_usr1) {
			got_usr1 = 0;
			counters();
		}
		if (got_stop && !master.stop_at) {
			log_line(0, "stop");
			master.stop_at = now + STOP_MS;
			signal_children(SIGTERM);
		}
		if (master.stop_at) {
			if (master.nchildren == 0)
				break;
			if (now >= master.stop_at) {
				signal_children(SIGKILL);
				master.stop_at = now + 1000;
			}
		} else if (got_hup) {
			got_hup = 0;
			reload();
		}
	}
	counters();
	log_line(0, "stopped");
	log_flush();
}

/* ---- the command line ---- */

/* Told what is wrong it ends with 1, else with 0. */
static void
usage(const char *arg, const char *wrong)
{
	if (wrong != NULL)
		fprintf(stderr, "smtpd: %s: %s\n", arg, wrong);
	fputs("usage: smtpd [-p port] [-l [file]] [-v] [-c file] [-t] [-h] [-V]\n"
	    "  -p port    listen on this port where GSMTP_LISTEN names none (25)\n"
	    "  -l [file]  append the log to file (./log.txt)\n"
	    "  -v         more of it, and on the console too\n"
	    "  -c file    settings, as NAME=value lines (/etc/smtpd.conf, where there is one)\n"
	    "  -t         check all that a start needs, print settings, then ok or what to mend\n"
	    "  -h, -V     this text; the version\n"
	    "Settings come from the command line, the environment, the file, in that order.\n"
	    "GM_ALLOWED_HOSTS must be set. See smtpd(8) or the README.\n", wrong ? stderr : stdout);
	exit(wrong != NULL);
}

/* By hand: getopt() knows no option whose argument may be left out, as -l's. */
static void
parse_options(char **argv)
{
	while (*++argv != NULL) {
		char *arg = *argv, *next = argv[1];
		char opt = arg[0] == '-' && arg[1] && !arg[2] ? arg[1] : 0;

		if (opt == 'v')
			cli.set[GSMTP_VERBOSE] = "1";
		else if (opt == 't')
			cli.test = 1;
		else if (opt == 'l')
			cli.set[GSMTP_LOG_FILE] = next && *next != '-' ? *++argv : "log.txt";
		else if (opt == 'h')
			usage(NULL, NULL);
		else if (opt == 'V') {
			puts("smtpd " VERSION);
			exit(0);
		} else if (opt != 'p' && opt != 'c')
			usage(arg, "no such option");
		else if (next == NULL)
			usage(arg, "needs an argument");
		else
			*(opt == 'p' ? &cli.port : &cli.file) = *++argv;
	}
}

/* Signals are heard while a loop sleeps and at no other time, whatever a supervisor had blocked. */
static void
catch_signals(void)
{
	static const int heard[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD };
	struct sigaction sa;
	size_t i;

	memset(&sa, 0, sizeof(sa));
	sigemptyset(&sa.sa_mask);
	sigemptyset(&unblocked);
	sa.sa_handler = on_signal;
	for (i = 0; i < sizeof(heard) / sizeof(*heard); i++) {
		sigaddset(&sa.sa_mask, heard[i]);
		sigaction(heard[i], &sa, NULL);
	}
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	sigprocmask(SIG_SETMASK, &sa.sa_mask, NULL);
}

int
main(int argc, char **argv)
{
	const char *tty;
	uint64_t n;
	int i, fd;

	/* Where 0 to 2 were closed, no other descriptor may take their place. */
	while ((i = open("/dev/null", O_RDWR)) != -1 && i <= STDERR_FILENO)
		;
	close(i);
	(void)argc;
	parse_options(argv);
	journal.pid = (long)getpid();
	if (parse_number(cli.port, &n) == -1 || n < 1 || n > 65535)
		die("-p %s: not a port", cli.port);
	/* A terminal that has room for a part of a write must not keep us until it has for all. */
	for (fd = STDOUT_FILENO; fd <= STDERR_FILENO && !cli.test; fd++)
		if ((tty = ttyname(fd)) != NULL &&
		    (i = open(tty, O_WRONLY | O_NOCTTY | O_NONBLOCK)) != -1) {
			dup2(i, fd);
			close(i);
		}
	catch_signals();
	if (pipe(master.log) == -1 || fcntl(master.log[0], F_SETFL, O_NONBLOCK) == -1 ||
	    fcntl(master.log[1], F_SETFL, O_NONBLOCK) == -1)
		die("pipe: %s", strerror(errno));
	i = configure(cli.test ? "check" : "start");
	if (got_stop && !cli.test)
		exit(0);	/* with all in use still, for those who look for leaks */
	if (i == -1)
		die("%s", reason);
	if (cli.test && conf.away)
		die("database %s (a start goes on, and mail gets 451 until it is back)", reason);
	if (cli.test) {
		printf("# database: %s\n# ok\n", reason);
		exit(0);
	}
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	if (board == MAP_FAILED)
		die("shared memory: %s", strerror(errno));
	master_loop();
	return 0;
}
