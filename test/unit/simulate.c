/*
 * simulate - db.c with a stand-in for the client library, in any order there may be
 *
 *	simulate seed		one schedule, told event by event
 *	simulate first count	so many; the first that fails is told at the end
 *
 * Everything is made from the seed: the hosts and what becomes of them, the mails, the
 * delays. The clock is the simulation's own, so a minute costs nothing. Behind the
 * stand-in is a model of a server: sessions with autocommit, transactions and variables,
 * prepared statements, and a table that counts how often each row was committed. db.c is
 * compiled with names that lead here (see test/simulate): malloc(), clock_gettime(),
 * shutdown(), poll().
 *
 * What must be true whatever happens is in fault(): look for its callers.
 */
#define _POSIX_C_SOURCE 200809L

#include <mysql.h>

#include <ctype.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "../../db.h"

#define MS 1000LL			/* of the clock's microseconds */
#define SECOND 1000000LL
#define NEVER LLONG_MAX
#define FLIGHT (10 * SECOND)		/* a statement's own time */
#define CONNECT (5 * SECOND)		/* what a silent host may cost */
#define CONNECTIONS 8			/* of one worker, at most */
#define HOSTS 3
#define MAILS 64
#define ROWS 100
#define CONNS 256
#define FDS 24
#ifndef MOST
#define MOST 20			/* faults that are told */
#endif

typedef long long ll;

/* ---- chance, clock, what is told ---- */

static unsigned long long seed, chance;
static ll now, jumped;			/* jumped: what the caller was late, in sum */
static int telling;
static jmp_buf over;
static char what_failed[400];

static unsigned long long
draw(void)
{
	unsigned long long z = chance += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static int
below(int n)
{
	return (int)(draw() % (unsigned)n);
}

static int
percent(int n)
{
	return below(100) < n;
}

/* A time up to this: small ones are as frequent as large ones. */
static ll
up_to(ll t)
{
	return (ll)(draw() % (unsigned long long)((t >> below(8)) + 1) + 1);
}

static void
tell(const char *fmt, ...)
{
	va_list ap;

	if (!telling)
		return;
	printf("%10.3f  ", (double)now / 1e6);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void
fault(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what_failed, sizeof(what_failed), fmt, ap);
	va_end(ap);
	tell("FAULT: %s", what_failed);
	longjmp(over, 1);
}

/* How often what this is about has happened, over all schedules. */
enum { SCHEDULES, STORED, REFUSED, LOST, TOO_BIG, PREPARED, TEXT, PIECES, COMMITS, ANSWERS_LOST,
    TWICE, ERRORS, HANGUPS, RECONNECTS_DONE, NO_MEMORY, SEVERAL, NSEEN };
static const char *const seen_names[NSEEN] = { "schedules", "stored", "refused", "lost", "too big",
    "prepared", "text", "large mails in pieces", "commits", "answers lost", "stored twice",
    "errors", "hang-ups", "reconnects", "no memory", "several connections" };
static unsigned long seen[NSEEN];

/* ---- memory: counted, and not always to be had ---- */

static int memory_fails;		/* in so many of 1,000 */
static long blocks;

static int
no_memory(void)
{
	if (memory_fails == 0 || below(1000) >= memory_fails)
		return 0;
	seen[NO_MEMORY]++;
	tell("no memory");
	return 1;
}

void *sim_malloc(size_t);
void *sim_calloc(size_t, size_t);
void *sim_realloc(void *, size_t);
void sim_free(void *);
int sim_clock_gettime(clockid_t, struct timespec *);
int sim_shutdown(int, int);
int sim_poll(struct pollfd *, nfds_t, int);

void *
sim_malloc(size_t n)
{
	void *p = no_memory() ? NULL : malloc(n ? n : 1);

	blocks += p != NULL;
	return p;
}

void *
sim_calloc(size_t n, size_t size)
{
	void *p = no_memory() ? NULL : calloc(n, size);

	blocks += p != NULL;
	return p;
}

void *
sim_realloc(void *old, size_t n)
{
	void *p = no_memory() ? NULL : realloc(old, n ? n : 1);

	blocks += p != NULL && old == NULL;
	return p;
}

void
sim_free(void *p)
{
	blocks -= p != NULL;
	free(p);
}

int
sim_clock_gettime(clockid_t id, struct timespec *t)
{
	ll at = now + (id == CLOCK_MONOTONIC ? 1000 * SECOND : 1700000000 * SECOND);

	t->tv_sec = (time_t)(at / SECOND);
	t->tv_nsec = (long)(at % SECOND * 1000);
	return 0;
}

/* ---- mails: what was added, and what the model's table has of it ---- */

/* An error: SQLSTATE as the server gives it. */
struct error { unsigned number; const char *state, *text; };

/* Of one mail: REFUSED may only be for the first, the others are deferred. */
static const struct error bad_rows[] = {
	{ 1644, "45000", "SIGNAL of a trigger" }, { 4025, "23000", "CONSTRAINT failed" },
	{ 3819, "HY000", "Check constraint is violated" }, { 1452, "23000", "foreign key" },
	{ 1172, "42000", "Result consisted of more than one row" },
	{ 1118, "42000", "Row size too large" }, { 1366, "22007", "Incorrect string value" },
	{ 1406, "22001", "Data too long" }, { 9999, "HY000", "an error of next year's" },
};
#define REFUSABLE 4
#define BAD_ROWS ((int)(sizeof(bad_rows) / sizeof(bad_rows[0])))

enum column { C_DATE, C_FROM, C_TO, C_SUBJECT, C_BODY, C_CHARSET, C_MAIL, C_SPAM, C_HASH, C_TYPE,
    C_RECIPIENT, NCOLUMNS };
static const char *const column_names[NCOLUMNS] = { "date", "from", "to", "subject", "body",
    "charset", "mail", "spam_score", "hash", "content_type", "recipient" };

struct text { const char *ptr; size_t len; };

struct mail {
	struct db_mail *m;		/* NULL: answered */
	struct db_row *row;
	char *given;			/* the texts as db.c has them, overwritten once answered */
	enum db_status status;
	int rows, bad;			/* bad: in bad_rows, or -1 */
	size_t size;
	ll added, answered, jumped;
	struct text column[NCOLUMNS], to[ROWS], hash[ROWS], recipient[ROWS];	/* our copy */
	unsigned char count[ROWS];	/* how often each row was committed */
	int told, untold;		/* commits whose OK db.c has, or has not */
	int unsure;			/* a statement with it ended and nobody knows how */
	int excused, odd;		/* got an error of the server's that is an operator's, or any */
	int waits;			/* was sent to a host that was not normal */
};

static struct mail mails[MAILS];
static int nmails;
static char *arena, noise[1 << 17];	/* noise: all that an escape could get wrong */
static size_t arena_used;
#define ARENA ((size_t)16 << 20)

/* ---- hosts ---- */

enum mode {
	NORMAL, SLOW,
	FLAKY,				/* errors that pass */
	ELSEWHERE,			/* takes no writes */
	BROKEN,				/* an operator must mend it */
	HANGS,				/* is there, and does not answer */
	CUT,				/* the network is: nothing arrives, nothing is told */
	DOWN, LOGIN, FULL,		/* no connection */
	DYING,				/* hangs up in the midst */
	RECONNECTS,			/* the library does, behind db.c's back */
	BEGINS,				/* somebody between begins transactions */
	FORGETS,			/* a proxy forgets what was prepared */
	ODD,				/* any error to any statement */
	MODES
};
static const char *const mode_names[MODES] = { "normal", "slow", "flaky", "read only", "broken",
    "hangs", "cut off", "down", "refuses the login", "full", "dying", "reconnects", "begins",
    "forgets", "odd" };

struct host {
	enum mode mode;
	ll since, next;			/* the next change of mode */
	unsigned error;			/* of BROKEN */
	int init_transaction, autocommit, plain;
	ll idle;			/* wait_timeout */
	size_t packet, packet_later;
	ll packet_at, packet_small;	/* small: until when it was the smaller one */
};

static struct db *db;
static struct db_config conf;
static struct host hosts[HOSTS];
static int nhosts, steady, timeout_s;	/* steady: this host is normal throughout, or -1 */
static ll calm_at;			/* from here on nothing changes */
static enum mode calm_mode;
static size_t smallest_packet, largest;	/* largest: mail or body */

static const struct error
    again[] = { { 1213, "40001", "Deadlock found" }, { 1317, "70100", "interrupted" },
	{ 1412, "HY000", "Table definition has changed" }, { 1637, "HY000", "Too many transactions" },
	{ 1969, "70100", "max_statement_time exceeded" }, { 3024, "HY000", "maximum time exceeded" },
	{ 3101, "40000", "rolled back by a plugin" }, { 1615, "HY000", "needs to be re-prepared" },
	{ 1206, "HY000", "lock table size" } },
    elsewhere[] = { { 1047, "08S01", "WSREP has not yet prepared node" },
	{ 1290, "HY000", "running with the --read-only option" }, { 1792, "25006", "READ ONLY" },
	{ 1836, "HY000", "Running in read-only mode" }, { 1053, "08S01", "shutdown in progress" },
	{ 3100, "HY000", "hook failed" }, { 1927, "70100", "Connection was killed" } },
    mend[] = { { 1114, "HY000", "The table is full" }, { 1146, "42S02", "Table doesn't exist" },
	{ 1142, "42000", "INSERT command denied" }, { 1054, "42S22", "Unknown column" },
	{ 1364, "HY000", "no default value" }, { 1021, "HY000", "Disk full" },
	{ 1205, "HY000", "Lock wait timeout exceeded" },
	{ 1062, "23000", "Duplicate entry '7' for key 'PRIMARY'" } },
    login[] = { { 1045, "28000", "Access denied" }, { 1044, "42000", "Access denied" },
	{ 1049, "42000", "Unknown database" }, { 1698, "28000", "Access denied" },
	{ 2059, "HY000", "Authentication plugin cannot be loaded" } },
    full[] = { { 1040, "08004", "Too many connections" }, { 1203, "42000", "max_user_connections" },
	{ 1226, "42000", "exceeded" } };
#define PICK(list) (&(list)[below((int)(sizeof(list) / sizeof((list)[0])))])

/* ---- connections: the client's MYSQL, and what the server has of it ---- */

enum under_way { NOTHING, CONNECTING, QUERY, RESULT, PREPARE, EXECUTE };
static const char *const call_names[] = { "nothing", "connect", "query", "result", "prepare",
    "execute" };

enum verb { V_SET, V_SELECT, V_INSERT, V_BEGIN, V_COMMIT, V_ROLLBACK, V_PREPARE };

struct row { short mail, row; };

struct request {
	enum verb verb;
	struct row row[4 * ROWS];
	int rows;
	int from_variables;		/* its mail and body are @m and @b ... */
	size_t want_m, want_b;		/* ... where these are their lengths */
	struct { char name; int append; char *ptr; size_t len; } set;	/* @m, @b */
	int clears;			/* @m and @b become NULL */
	int autocommit[4], autocommits;	/* in this order */
	char select[8][32];
	int selects;
};

struct statement {
	MYSQL_STMT public;		/* first */
	struct conn *c;			/* NULL: its connection was closed */
	unsigned long serial;		/* of that */
	int rows;
	struct { short row, column; } *mark;	/* what each ? is */
	int marks;
	MYSQL_BIND *bind;
};

struct conn {
	struct client { MYSQL public; struct conn *c; } *client;	/* NULL: closed by db.c */
	int used, nonblock, fd;
	unsigned long serial, number;	/* the same; number is what is told */
	unsigned long id, was_id;	/* was_id: when it was made */
	struct host *host;
	/* the call */
	enum under_way call;
	struct statement *stmt;
	const char *sql;
	size_t sql_len;
	ll write_at, exec_at, answer_at, eof_at;
	int written, executed;
	int eof_idle, eof_known;	/* of wait_timeout; db.c's select() has seen it */
	struct request req;
	/* the answer */
	struct error error;
	unsigned long long affected;
	unsigned status;		/* SERVER_STATUS_* */
	int hangs_up;			/* after the answer */
	int has_result;
	unsigned long long committed;	/* mails, a bit each */
	unsigned long long undone;	/* ... whose rows were undone, since BEGIN */
	/* the session */
	int autocommit, in_transaction, foreign;	/* foreign: of somebody else's making */
	size_t packet;
	struct { char *ptr; size_t len, cap; } m, b;
	struct row pending[8 * ROWS];
	int npending;
	ll idle_since;
};

static struct conn conns[CONNS], *conns_end;	/* behind the last one in use */
static int open_results, open_statements, open_clients;
static unsigned long last_id, last_serial;
static struct conn *fd_owner[FDS];
static char fd_foreign[FDS];		/* somebody else's by now */

static int
fd_new(struct conn *c)
{
	int i;

	for (i = 5; i < FDS; i++)
		if (fd_owner[i] == NULL && (!fd_foreign[i] || percent(30))) {
			fd_foreign[i] = 0;
			fd_owner[i] = c;
			return i;
		}
	fault("%d descriptors are open", FDS);
	return -1;
}

static void
fd_close(struct conn *c)
{
	if (c->fd == -1)
		return;
	fd_owner[c->fd] = NULL;
	fd_foreign[c->fd] = (char)percent(30);
	c->fd = -1;
}

static struct conn *
conn_of(MYSQL *my)
{
	return ((struct client *)(void *)my)->c;
}

/* ---- the server: SQL as far as db.c speaks it ---- */

enum { T_END, T_STRING, T_WORD, T_NUMBER, T_SIGN };

struct lexer {
	const char *p, *end;
	int type;
	struct text text;		/* a string without its escapes */
};

static char scratch[1 << 21];
static size_t scratch_used;

static void
lex(struct lexer *x)
{
	const char *p = x->p, *start;

	while (p < x->end && (*p == ' ' || *p == '\n' || *p == '\t'))
		p++;
	start = p;
	x->text.ptr = p;
	if (p == x->end)
		x->type = T_END;
	else if (*p == '\'') {
		char *d = scratch + scratch_used;

		x->text.ptr = d;
		for (p++; p < x->end && *p != '\''; p++) {
			if (*p == '\\' && ++p == x->end)
				break;
			*d++ = *p;
		}
		if (p == x->end)
			fault("a string of the statement does not end");
		p++;
		x->type = T_STRING;
		x->text.len = (size_t)(d - x->text.ptr);
		scratch_used += x->text.len;
		x->p = p;
		return;
	} else if (*p == '`') {
		while (++p < x->end && *p != '`')
			;
		x->type = T_WORD;
		x->text.ptr = start + 1;
		x->text.len = (size_t)(p - start) - 1;
		x->p = p + 1;
		return;
	} else if (isdigit((unsigned char)*p)) {
		while (p < x->end && isdigit((unsigned char)*p))
			p++;
		x->type = T_NUMBER;
	} else if (isalpha((unsigned char)*p) || *p == '_' || *p == '@') {
		while (p < x->end && (isalnum((unsigned char)*p) || *p == '_' || *p == '@' || *p == '.'))
			p++;
		x->type = T_WORD;
	} else {
		p++;
		x->type = T_SIGN;
	}
	x->text.len = (size_t)(p - start);
	x->p = p;
}

static int
is(const struct lexer *x, const char *word)
{
	size_t i, n = strlen(word);

	if (x->type == T_STRING || x->type == T_END || x->text.len != n)
		return 0;
	for (i = 0; i < n; i++)
		if (toupper((unsigned char)x->text.ptr[i]) != word[i])
			return 0;
	return 1;
}

static void
expect(struct lexer *x, const char *word)
{
	if (!is(x, word))
		fault("%s expected in a statement, and not %.*s", word, (int)x->text.len, x->text.ptr);
	lex(x);
}

static size_t
characters(struct text t)
{
	size_t i, n = 0;

	for (i = 0; i < t.len; i++)
		n += (t.ptr[i] & 0xc0) != 0x80;
	return n;
}

/* What arrived is what was given, or as much of it as the column's width takes. */
static void
same(int mail, enum column column, struct text got, struct text given)
{
	size_t width = column == C_FROM || column == C_TO || column == C_RECIPIENT ? 320 :
	    column == C_CHARSET ? 64 : column == C_TYPE ? 128 : 0;

	if (got.len > given.len || memcmp(got.ptr, given.ptr, got.len) != 0 ||
	    (got.len < given.len && characters(got) != width &&
	    (column != C_BODY || got.len + 2048 < smallest_packet)))
		fault("mail %d: column %s is not as it was given: %zu octets, and not %zu", mail,
		    column_names[column], got.len, given.len);
}

/* The columns of a row that has arrived; skip: those that are not in it. */
static struct row
check_row(const struct text column[NCOLUMNS], unsigned skip)
{
	struct row r = { -1, -1 };
	const struct mail *m;
	char name[32];
	int mail, row, i;
	size_t n = column[C_RECIPIENT].len;

	snprintf(name, sizeof(name), "%.*s", (int)(n < sizeof(name) ? n : sizeof(name) - 1),
	    column[C_RECIPIENT].ptr);
	if (sscanf(name, "m%dr%d@", &mail, &row) != 2 || mail < 0 || mail >= nmails || row < 0 ||
	    row >= mails[mail].rows)
		fault("a row of a mail that was never added: '%s'", name);
	m = &mails[mail];
	for (i = 0; i < NCOLUMNS; i++)
		if (!(skip & 1u << i))
			same(mail, (enum column)i, column[i], i == C_TO ? m->to[row] : i == C_HASH ?
			    m->hash[row] : i == C_RECIPIENT ? m->recipient[row] : m->column[i]);
	r.mail = (short)mail;
	r.row = (short)row;
	return r;
}

/* "(`date`,...)": what the columns are, in the order of the statement. */
static int
column_list(struct lexer *x, enum column list[NCOLUMNS])
{
	int n = 0, i;

	expect(x, "(");
	for (;;) {
		for (i = 0; i < NCOLUMNS; i++)
			if (x->text.len == strlen(column_names[i]) &&
			    memcmp(x->text.ptr, column_names[i], x->text.len) == 0)
				break;
		if (i == NCOLUMNS || n == NCOLUMNS)
			fault("no column: %.*s", (int)x->text.len, x->text.ptr);
		list[n++] = (enum column)i;
		lex(x);
		if (is(x, ")"))
			break;
		expect(x, ",");
	}
	lex(x);
	if (n != NCOLUMNS)
		fault("%d columns are written, and not %d", n, NCOLUMNS);
	return n;
}

static void
add_row(struct request *q, struct row r)
{
	if (q->rows == 4 * ROWS)
		fault("more than %d rows in a statement", 4 * ROWS);
	q->row[q->rows++] = r;
}

/*
 * SELECT 'date','from',v.t,... FROM (SELECT 'to' t,'hash' h,'recipient' r UNION ALL ...) v
 * WHERE LENGTH(@m)=n AND LENGTH(@b)=n
 */
static void
insert_select(struct lexer *x, const enum column list[NCOLUMNS], struct request *q)
{
	struct text column[NCOLUMNS], alias[NCOLUMNS], name[8], value;
	unsigned skip = 0;
	int i, n, names = 0, first;

	memset(alias, 0, sizeof(alias));
	for (i = 0; i < NCOLUMNS; i++) {
		if (is(x, "@M") || is(x, "@B")) {
			if (list[i] != (is(x, "@M") ? C_MAIL : C_BODY))
				fault("a large mail's variable is in another column");
			skip |= 1u << list[i];
		} else if (x->type == T_WORD)
			alias[list[i]] = x->text;
		else
			column[list[i]] = x->text;
		lex(x);
		if (i < NCOLUMNS - 1)
			expect(x, ",");
	}
	q->from_variables = 1;
	expect(x, "FROM");
	expect(x, "(");
	for (first = 1; ; first = 0) {
		expect(x, "SELECT");
		for (n = 0; ; n++) {
			value = x->text;
			lex(x);
			if (first) {
				if (n == 8)
					fault("too many columns in v");
				name[names++] = x->text;
				lex(x);
			}
			for (i = 0; i < NCOLUMNS; i++)
				if (alias[i].ptr && alias[i].len == name[n].len + 2 &&
				    memcmp(alias[i].ptr + 2, name[n].ptr, name[n].len) == 0)
					column[i] = value;
			if (!is(x, ","))
				break;
			lex(x);
		}
		add_row(q, check_row(column, skip));
		if (!is(x, "UNION"))
			break;
		lex(x);
		expect(x, "ALL");
	}
	expect(x, ")");
	expect(x, "V");
	q->want_m = q->want_b = SIZE_MAX;
	if (is(x, "WHERE"))
		do {
			int is_m;

			lex(x);
			expect(x, "LENGTH");
			expect(x, "(");
			is_m = is(x, "@M");
			lex(x);
			expect(x, ")");
			expect(x, "=");
			*(is_m ? &q->want_m : &q->want_b) = strtoul(x->text.ptr, NULL, 10);
			lex(x);
		} while (is(x, "AND"));
}

/* INSERT as text, or (stmt) with marks. */
static void
insert_parse(struct lexer *x, struct request *q, struct statement *stmt)
{
	enum column list[NCOLUMNS];
	struct text column[NCOLUMNS];
	int i;

	q->verb = V_INSERT;
	expect(x, "INTO");
	lex(x);
	column_list(x, list);
	if (is(x, "SELECT")) {
		lex(x);
		insert_select(x, list, q);
		return;
	}
	expect(x, "VALUES");
	for (;;) {
		expect(x, "(");
		for (i = 0; i < NCOLUMNS; i++) {
			if (is(x, "?") && stmt) {
				stmt->mark = realloc(stmt->mark, (size_t)(stmt->marks + 1) *
				    sizeof(*stmt->mark));
				stmt->mark[stmt->marks].row = (short)stmt->rows;
				stmt->mark[stmt->marks++].column = (short)list[i];
			} else if (x->type != T_STRING && x->type != T_NUMBER)
				fault("a value expected, and not %.*s", (int)x->text.len, x->text.ptr);
			column[list[i]] = x->text;
			lex(x);
			if (i < NCOLUMNS - 1)
				expect(x, ",");
		}
		if (stmt)
			stmt->rows++;
		else
			add_row(q, check_row(column, 0));
		expect(x, ")");
		if (!is(x, ","))
			break;
		lex(x);
	}
}

static void
set_parse(struct lexer *x, struct request *q)
{
	q->verb = V_SET;
	for (;;) {
		struct text name = x->text;

		lex(x);
		if (name.len == 5 && strncmp(name.ptr, "NAMES", 5) == 0) {
			lex(x);
		} else if (*name.ptr == '@' && name.len == 2) {
			expect(x, "=");
			if (is(x, "NULL"))
				q->clears = 1;
			else {
				q->set.name = name.ptr[1];
				if (is(x, "CONCAT")) {
					q->set.append = 1;
					lex(x);
					expect(x, "(");
					if (x->text.len != 2 || x->text.ptr[1] != name.ptr[1])
						fault("a piece is put behind another variable");
					lex(x);
					expect(x, ",");
				}
				if (x->type != T_STRING)
					fault("a piece of a mail is no string");
				free(q->set.ptr);
				q->set.ptr = malloc(x->text.len + 1);
				memcpy(q->set.ptr, x->text.ptr, x->text.len);
				q->set.len = x->text.len;
				if (q->set.append) {
					lex(x);
					if (!is(x, ")"))
						fault("CONCAT does not end");
				}
			}
			lex(x);
		} else {
			expect(x, "=");
			if (name.len == 10 && memcmp(name.ptr, "autocommit", 10) == 0 &&
			    q->autocommits < 4)
				q->autocommit[q->autocommits++] = x->text.ptr[0] == '1';
			lex(x);
		}
		if (x->type == T_END)
			return;
		expect(x, ",");
	}
}

/* What the server understands of a statement that has arrived whole. */
static void
parse(struct conn *c, const char *sql, size_t len, struct statement *stmt)
{
	struct request *q = &c->req;
	struct lexer x;
	char *old = q->set.ptr;

	free(old);
	memset(q, 0, offsetof(struct request, row));
	q->rows = q->from_variables = q->clears = q->autocommits = q->selects = 0;
	memset(&q->set, 0, sizeof(q->set));
	scratch_used = 0;
	x.p = sql;
	x.end = sql + len;
	lex(&x);
	if (is(&x, "INSERT")) {
		lex(&x);
		insert_parse(&x, q, stmt);
	} else if (is(&x, "SET")) {
		lex(&x);
		set_parse(&x, q);
	} else if (is(&x, "SELECT")) {
		q->verb = V_SELECT;
		do {
			lex(&x);
			if (q->selects == 8)
				fault("selects too much");
			snprintf(q->select[q->selects++], 32, "%.*s", (int)x.text.len, x.text.ptr);
			lex(&x);
		} while (is(&x, ","));
	} else if (is(&x, "BEGIN") || is(&x, "START")) {
		q->verb = V_BEGIN;
		if (is(&x, "START")) {
			lex(&x);
			if (!is(&x, "TRANSACTION"))
				fault("START what?");
		}
		lex(&x);
	} else if (is(&x, "COMMIT")) {
		q->verb = V_COMMIT;
		lex(&x);
	} else if (is(&x, "ROLLBACK")) {
		q->verb = V_ROLLBACK;
		lex(&x);
	} else
		fault("a statement that the model does not know: %.60s", sql);
	if (x.type != T_END)
		fault("more behind a statement: %.60s", x.text.ptr);
}

/* ---- the server: what it does ---- */

static void
commit(struct conn *c, const struct row *r, int n)
{
	int i, k;

	for (i = 0; i < n; i++) {
		struct mail *m = &mails[r[i].mail];

		if (m->count[r[i].row] < 255)
			m->count[r[i].row]++;
		c->committed |= 1ULL << r[i].mail;
	}
	for (k = 0; k < nmails; k++) {
		struct mail *m = &mails[k];

		for (i = 0; i < n && r[i].mail != k; i++)
			;
		if (i == n)
			continue;
		for (i = 1; i < m->rows; i++)
			if (m->count[i] != m->count[0])
				fault("mail %d: %d of row 0 are stored, %d of row %d", k, m->count[0],
				    m->count[i], i);
		if (m->told)
			fault("mail %d: stored again, though its OK was given", k);
		m->untold++;
		if (m->untold > 1)
			seen[TWICE]++;
		tell("  server: mail %d is committed by connection %lu", k, c->number);
	}
	if (n > 0)
		seen[COMMITS]++;
}

static void
rollback(struct conn *c)
{
	int i;

	for (i = 0; i < c->npending; i++)
		c->undone |= 1ULL << c->pending[i].mail;
	c->npending = 0;
	c->in_transaction = c->foreign = 0;
}

static void
end_transaction(struct conn *c)
{
	commit(c, c->pending, c->npending);
	rollback(c);
}

static void
session_new(struct conn *c)
{
	rollback(c);
	c->autocommit = c->host->autocommit;
	c->in_transaction = c->host->init_transaction;
	c->packet = c->host->packet;
	c->m.len = c->b.len = SIZE_MAX;		/* NULL */
	c->id = ++last_id;
}

static void
set_error(struct conn *c, const struct error *e)
{
	c->error = *e;
	seen[ERRORS]++;
	if (e->number == 1213 || e->number == 1927 || e->number == 3101)
		rollback(c);
	if (e->number == 1927 || e->number == 1053)
		c->hangs_up = 1;
}

/* A variable gets its piece; the model's own memory. */
static void
set_variable(struct conn *c, struct request *q)
{
	size_t at;

	if (q->set.name == 'm' || q->set.name == 'b') {
		char **ptr = q->set.name == 'm' ? &c->m.ptr : &c->b.ptr;
		size_t *len = q->set.name == 'm' ? &c->m.len : &c->b.len;

		if (q->set.append && *len == SIZE_MAX)
			return;		/* CONCAT(NULL, ...) */
		at = q->set.append ? *len : 0;
		*ptr = realloc(*ptr, at + q->set.len + 1);
		memcpy(*ptr + at, q->set.ptr, q->set.len);
		*len = at + q->set.len;
		seen[PIECES]++;
	} else
		fault("a variable that the model does not know: @%c", q->set.name);
}

static void
insert_rows(struct conn *c)
{
	struct request *q = &c->req;
	int i, bad = -1;

	for (i = 0; i < q->rows; i++)
		if (mails[q->row[i].mail].bad != -1)
			bad = mails[q->row[i].mail].bad;
	if (bad != -1) {
		set_error(c, &bad_rows[bad]);
		return;
	}
	if (q->from_variables) {
		struct text m, b;

		if (c->m.len != q->want_m || c->b.len != q->want_b)
			return;		/* SELECT finds nothing */
		m.ptr = c->m.ptr, m.len = c->m.len, b.ptr = c->b.ptr, b.len = c->b.len;
		for (i = 0; i < q->rows; i++) {
			same(q->row[i].mail, C_MAIL, m, mails[q->row[i].mail].column[C_MAIL]);
			same(q->row[i].mail, C_BODY, b, mails[q->row[i].mail].column[C_BODY]);
		}
	}
	c->affected = (unsigned long long)q->rows;
	if (c->autocommit && !c->in_transaction) {
		commit(c, q->row, q->rows);
		return;
	}
	c->in_transaction = 1;
	for (i = 0; i < q->rows; i++) {
		if (c->npending == 8 * ROWS)
			fault("a transaction of more than %d rows", 8 * ROWS);
		c->pending[c->npending++] = q->row[i];
	}
}

/* The mails that depend on the statement under way, a bit each. */
static unsigned long long
concerned(const struct conn *c)
{
	unsigned long long of = c->committed | (c->req.verb == V_COMMIT ? c->undone : 0);
	int i;

	for (i = 0; i < c->req.rows && c->req.verb == V_INSERT; i++)
		of |= 1ULL << c->req.row[i].mail;
	for (i = 0; i < c->npending && c->req.verb != V_ROLLBACK; i++)
		of |= 1ULL << c->pending[i].mail;
	return of;
}

/* The statement has reached the server at this moment; what the host does with it. */
static void
execute(struct conn *c)
{
	struct request *q = &c->req;
	enum mode mode = c->host->mode;
	unsigned long long of = concerned(c);
	int i, silent = 0;

	c->exec_at = NEVER;
	if (mode == CUT || (mode == HANGS && percent(50))) {
		tell("  server: the statement of connection %lu gets lost", c->number);
		return;			/* until the host comes back */
	}
	if (mode == DYING && percent(25)) {
		tell("  server: hangs up on connection %lu before its statement", c->number);
		seen[HANGUPS]++;
		c->eof_at = now;
		rollback(c);
		return;
	}
	c->executed = 1;
	if (mode == BEGINS && percent(20))
		c->in_transaction = c->foreign = 1;
	if (mode == FLAKY && (q->verb == V_INSERT || q->verb == V_COMMIT) && percent(40))
		set_error(c, PICK(again));
	else if (mode == ELSEWHERE && q->verb == V_INSERT)
		set_error(c, PICK(elsewhere));
	else if (mode == BROKEN && (q->verb == V_INSERT || q->verb == V_PREPARE)) {
		set_error(c, &mend[c->host->error]);
		for (i = 0; i < nmails; i++)
			mails[i].excused |= (of >> i & 1) != 0;
	} else if (mode == FORGETS && c->call == EXECUTE && percent(50)) {
		static const struct error e = { 1243, "HY000", "Unknown prepared statement handler" };

		set_error(c, &e);
	} else if (mode == ODD && percent(30)) {
		struct error e = { 0, "HY000", "odd" };

		e.number = percent(50) ? 1000u + (unsigned)below(1000) : 3000u + (unsigned)below(1200);
		set_error(c, &e);
		for (i = 0; i < nmails; i++)	/* BEGIN may be for any */
			mails[i].odd |= q->verb == V_BEGIN || (of >> i & 1) != 0;
	} else if (c->host->plain && q->verb == V_PREPARE) {
		static const struct error e = { 1295, "HY000", "not supported in prepared statements" };

		set_error(c, &e);
	} else switch (q->verb) {
	case V_SET:
		for (i = 0; i < q->autocommits; i++) {
			if (q->autocommit[i] && !c->autocommit)
				end_transaction(c);
			c->autocommit = q->autocommit[i];
		}
		if (q->clears)
			c->m.len = c->b.len = SIZE_MAX;
		if (q->set.ptr)
			set_variable(c, q);
		break;
	case V_SELECT:
		c->has_result = 1;
		break;
	case V_INSERT:
		insert_rows(c);
		break;
	case V_BEGIN:
		end_transaction(c);
		c->undone = 0;
		c->in_transaction = 1;
		break;
	case V_COMMIT:
		end_transaction(c);
		break;
	case V_ROLLBACK:
		rollback(c);
		break;
	case V_PREPARE:
		break;
	}
	/* Its answer says what was true when the statement was done. */
	c->status = (unsigned)((c->in_transaction ? SERVER_STATUS_IN_TRANS : 0) |
	    (c->autocommit ? SERVER_STATUS_AUTOCOMMIT : 0));
	if (mode == HANGS)
		silent = 1;
	if (mode == DYING && percent(40)) {
		tell("  server: hangs up on connection %lu after its statement", c->number);
		seen[HANGUPS]++;
		c->eof_at = now + up_to(50 * MS);
		rollback(c);
		silent = percent(70);
	}
	c->answer_at = silent ? NEVER : now + up_to(20 * MS);
	if (c->hangs_up && c->eof_at == NEVER)
		c->eof_at = c->answer_at;
	if (c->client == NULL)		/* the statement was the session's last */
		rollback(c);
	if (c->error.number)
		tell("  server: error %u on connection %lu", c->error.number, c->number);
}

/* ---- what happens by itself ---- */

static void
host_changes(struct host *h)
{
	enum mode was = h->mode;
	struct conn *c;
	int number = (int)(h - hosts);

	if (now >= calm_at || number == steady) {
		h->mode = number == steady ? NORMAL : calm_mode;
		h->next = NEVER;
	} else {
		h->mode = percent(45) ? NORMAL : (enum mode)below(MODES);
		h->next = now + up_to(percent(50) ? 60 * SECOND : 4 * SECOND);
		if (h->next > calm_at)
			h->next = calm_at;
		h->error = (unsigned)below((int)(sizeof(mend) / sizeof(mend[0])));
	}
	if (h->mode == was)
		return;
	h->since = now;
	tell("  host %d: %s", number, mode_names[h->mode]);
	for (c = conns; c < conns_end; c++) {
		if (!c->used || c->host != h)
			continue;
		if (h->mode == DOWN) {
			c->eof_at = now;
			c->exec_at = NEVER;
			if (c->answer_at > now)
				c->answer_at = NEVER;
			rollback(c);
		} else if (h->mode == CUT || h->mode == HANGS) {
			if (c->answer_at > now)
				c->answer_at = NEVER;
		} else if (was == CUT || was == HANGS) {
			/* Some come back as if nothing had been, some are dead, some nobody knows of. */
			int how = below(3);

			if (c->call == CONNECTING && !c->written)
				c->write_at = now + up_to(3 * SECOND);	/* SYN once more */
			else if (c->call == CONNECTING && how == 0 && c->answer_at == NEVER)
				c->answer_at = now + up_to(SECOND);
			else if (how == 0 && c->written && !c->executed && c->exec_at == NEVER &&
			    c->eof_at == NEVER)
				c->exec_at = now + up_to(SECOND);
			else if (how == 0 && c->executed && c->answer_at == NEVER)
				c->answer_at = now + up_to(SECOND);
			else if (how == 1 && c->eof_at == NEVER) {
				c->eof_at = now + up_to(SECOND);
				c->exec_at = NEVER;
				rollback(c);
			}
		}
	}
}

/* The clock goes on to t, and all that is due until then happens in its order. */
static void
advance(ll t)
{
	for (;;) {
		struct conn *c, *first = NULL;
		struct host *h, *change = NULL;
		ll at = t;

		for (c = conns; c < conns_end; c++)
			if (c->used && c->exec_at <= at && c->exec_at != NEVER) {
				at = c->exec_at;
				first = c;
			}
		for (h = hosts; h < hosts + nhosts; h++) {
			if (h->packet_at <= at) {
				h->packet_small = h->packet_at;
				h->packet = h->packet_later;
				h->packet_at = NEVER;
			}
			if (h->next <= at && h->next != NEVER) {
				at = h->next;
				change = h;
			}
		}
		if (at > now)
			now = at;
		if (change)
			host_changes(change);
		else if (first)
			execute(first);
		else
			return;
	}
}

/* When the next of it is due, or what a descriptor waits for. */
static ll
next_event(void)
{
	struct conn *c;
	struct host *h;
	ll at = NEVER, t[4];
	int i;

	for (c = conns; c < conns_end; c++) {
		if (!c->used)
			continue;
		t[0] = c->exec_at, t[1] = c->answer_at, t[2] = c->eof_at, t[3] = c->write_at;
		for (i = 0; i < 4; i++)
			if (t[i] > now && t[i] < at)
				at = t[i];
	}
	for (h = hosts; h < hosts + nhosts; h++)
		if (h->next < at)
			at = h->next;
	return at;
}

/* The server has hung up, and that has arrived. */
static int
ended(const struct conn *c)
{
	return c->eof_at <= now && c->host->mode != CUT;
}

static int
readable(const struct conn *c)
{
	return ended(c) || (c->call != NOTHING && c->written && c->answer_at <= now);
}

static int
writable(const struct conn *c)
{
	if (c->call == CONNECTING && !c->written)
		return c->host->mode == DOWN || (c->write_at <= now && c->host->mode != CUT);
	return ended(c) || c->call == NOTHING || c->written || c->write_at <= now;
}

/* ---- the client library ---- */

static void
free_conn(struct conn *c)
{
	free(c->m.ptr);
	free(c->b.ptr);
	free(c->req.set.ptr);
	memset(c, 0, sizeof(*c));
}

MYSQL *STDCALL
mysql_init(MYSQL *my)
{
	struct conn *c;
	struct client *client;

	if (my)
		fault("mysql_init() of storage of the caller's");
	if (no_memory())
		return NULL;
	/* What db.c has closed lives on at the server until its statement is done. */
	for (c = conns; c < conns_end && c->used; c++)
		if (c->client == NULL && c->exec_at == NEVER) {
			free_conn(c);
			break;
		}
	if (c == conns + CONNS)
		fault("more than %d connections", CONNS);
	if (c == conns_end)
		conns_end++;
	client = calloc(1, sizeof(*client));
	c->used = 1;
	c->serial = c->number = ++last_serial;
	c->fd = -1;
	c->write_at = c->exec_at = c->answer_at = c->eof_at = NEVER;
	c->client = client;
	client->c = c;
	if (++open_clients > conf.connections)
		fault("%d connections at once, and %d are allowed", open_clients, conf.connections);
	if (open_clients > 1)
		seen[SEVERAL]++;
	return &client->public;
}

static void
idle_or_fault(struct conn *c, const char *what)
{
	if (c->call != NOTHING)
		fault("%s while a %s is under way", what, call_names[c->call]);
}

int STDCALL
mysql_options(MYSQL *my, enum mysql_option option, const void *arg)
{
	(void)arg;
	if (no_memory())
		return 1;
	if (option == MYSQL_OPT_NONBLOCK)
		conn_of(my)->nonblock = 1;
	return 0;
}

/* What db.c had sent, and now cannot know the end of. */
static void
answer_is_lost(struct conn *c)
{
	unsigned long long of = concerned(c);
	int i;

	if (!c->written || c->eof_known)
		return;
	for (i = 0; i < nmails; i++)
		if (of & 1ULL << i) {
			mails[i].unsure = 1;
			seen[ANSWERS_LOST]++;
		}
}

void STDCALL
mysql_close(MYSQL *my)
{
	struct conn *c = conn_of(my);

	idle_or_fault(c, "mysql_close()");
	tell("db.c closes connection %lu", c->number);
	fd_close(c);
	c->client = NULL;
	free(my);
	open_clients--;
	if (c->exec_at == NEVER)
		free_conn(c);
}

my_socket STDCALL
mysql_get_socket(MYSQL *my)
{
	return conn_of(my)->fd;
}

static const struct error gone = { 2006, "HY000", "Server has gone away" },
    lost = { 2013, "HY000", "Lost connection to server during query" },
    refused = { 2002, "HY000", "Can't connect" };

/* The call fails in the client, and its socket is closed. */
static int
fails(struct conn *c, const struct error *e)
{
	NET *net = &c->client->public.net;

	net->last_errno = e->number;
	snprintf(net->sqlstate, sizeof(net->sqlstate), "%s", e->state);
	snprintf(net->last_error, sizeof(net->last_error), "%s", e->text);
	if (c->stmt) {
		MYSQL_STMT *s = &c->stmt->public;

		s->last_errno = e->number;
		snprintf(s->sqlstate, sizeof(s->sqlstate), "%s", e->state);
		snprintf(s->last_error, sizeof(s->last_error), "%s", e->text);
	}
	tell("connection %lu: %s fails: %u %s", c->number, call_names[c->call], e->number, e->text);
	if (e->number >= 2000 && e->number < 3000) {
		if (c->call != CONNECTING && e->number != 2006)
			answer_is_lost(c);
		fd_close(c);
	} else if (c->call == CONNECTING)
		fd_close(c);
	c->call = NOTHING;
	c->idle_since = now;
	return -1;
}

/* A statement starts its way, or a connection. */
static void
under_way(struct conn *c, enum under_way call, struct statement *stmt)
{
	idle_or_fault(c, "another call");
	if (!c->nonblock)
		fault("a call of the non-blocking kind without MYSQL_OPT_NONBLOCK");
	if (call != CONNECTING && c->id == 0)
		fault("%s without a connection", call_names[call]);
	c->call = call;
	c->stmt = stmt;
	c->written = c->executed = c->hangs_up = 0;
	c->has_result = 0;
	c->affected = 0;
	memset(&c->error, 0, sizeof(c->error));
	c->committed = 0;
	c->exec_at = c->answer_at = NEVER;
	c->write_at = now;
	if (percent(15))		/* the socket is full */
		c->write_at += up_to(30 * MS);
}

/* Goes as far as it can: 1: done, -1: failed, 0: it waits. */
static int
go_on(struct conn *c)
{
	struct host *h = c->host;
	ll delay;
	int i;

	if (!c->written) {
		if (c->write_at > now && !ended(c))
			return 0;
		if (ended(c) && percent(50))
			return fails(c, &gone);
		c->written = 1;
		if (c->eof_idle && !ended(c))
			c->eof_at = NEVER;	/* no longer idle */
		c->eof_idle = 0;
		if (h->mode == RECONNECTS && !ended(c) && percent(25)) {
			seen[RECONNECTS_DONE]++;
			tell("  library: connects anew behind connection %lu", c->number);
			fd_close(c);
			c->fd = fd_new(c);
			session_new(c);
			if (c->call == EXECUTE) {
				static const struct error e = { 1243, "HY000", "Unknown prepared statement" };

				c->error = e;
			}
		}
		if (c->call == QUERY) {
			parse(c, c->sql, c->sql_len, NULL);
			if (c->sql_len + 2 > c->packet)
				fault("a statement of %zu octets, and max_allowed_packet is %zu", c->sql_len,
				    c->packet);
		}
		delay = percent(70) ? up_to(5 * MS) : up_to(100 * MS);
		if (h->mode == SLOW)
			delay = percent(80) ? up_to(9 * SECOND) : up_to(25 * SECOND);
		for (i = 0; i < nmails && h->mode != NORMAL; i++)
			mails[i].waits |= (concerned(c) >> i & 1) != 0;
		if (c->error.number)
			c->answer_at = now + delay;
		else if (c->eof_at == NEVER)	/* a session that ends does nothing more */
			c->exec_at = now + delay;
	}
	if (c->answer_at <= now) {
		struct client *client = c->client;

		client->public.server_status = c->status;
		client->public.thread_id = c->id;
		if (c->stmt)
			c->stmt->public.upsert_status.server_status = client->public.server_status;
		if (c->error.number)
			return fails(c, &c->error);
		if (c->id != c->was_id) {
			answer_is_lost(c);
			for (i = 0; i < nmails && c->req.verb != V_INSERT; i++)
				mails[i].unsure = 1;	/* whichever it was for */
		}
		for (i = 0; i < nmails && c->foreign; i++)
			mails[i].unsure |= (concerned(c) >> i & 1) != 0;
		for (i = 0; i < nmails; i++)
			if (c->committed & 1ULL << i && c->id == c->was_id) {
				mails[i].untold--;
				if (++mails[i].told > 1)
					fault("mail %d: stored twice, and both times db.c was told", i);
			}
		client->public.affected_rows = c->affected;
		if (c->stmt)
			c->stmt->public.upsert_status.affected_rows = c->affected;
		tell("connection %lu: %s done%s", c->number, call_names[c->call],
		    c->status & SERVER_STATUS_IN_TRANS ? ", in a transaction" : "");
		c->call = NOTHING;
		c->idle_since = now;
		if (h->idle && c->eof_at == NEVER) {
			c->eof_at = now + h->idle;
			c->eof_idle = 1;
		}
		return 1;
	}
	if (ended(c)) {
		c->exec_at = NEVER;
		return fails(c, percent(90) ? &lost : &gone);
	}
	return 0;
}

/* Connecting: the TCP connection, then the handshake. */
static int
go_on_connecting(struct conn *c)
{
	struct host *h = c->host;

	if (h->mode == DOWN || ended(c))
		return fails(c, &refused);
	if (!c->written) {
		if (c->write_at > now || h->mode == CUT)
			return 0;
		c->written = 1;
		c->answer_at = h->mode == HANGS && percent(50) ? NEVER : now + up_to(30 * MS);
	}
	if (c->answer_at > now)
		return 0;
	if (h->mode == LOGIN)
		return fails(c, PICK(login));
	if (h->mode == FULL)
		return fails(c, PICK(full));
	if (h->mode == DYING && percent(20))
		return fails(c, &lost);
	session_new(c);
	c->was_id = c->id;
	c->client->public.thread_id = c->id;
	tell("connection %lu: to host %d, with descriptor %d", c->number, (int)(h - hosts), c->fd);
	c->call = NOTHING;
	c->idle_since = now;
	if (h->idle) {
		c->eof_at = now + h->idle;
		c->eof_idle = 1;
	}
	return 1;
}

/* What the call waits for; it goes on where that has come, and fails where db.c gives it up. */
static int
turn(struct conn *c, int ready, int *failed)
{
	int how;

	*failed = 0;
	if (ready & MYSQL_WAIT_TIMEOUT) {
		if (c->call == CONNECTING && percent(20)) {
			fd_close(c);	/* another address of the same name */
			c->fd = fd_new(c);
			return MYSQL_WAIT_WRITE;
		}
		how = fails(c, &lost);
		c->answer_at = NEVER;
	} else
		how = c->call == CONNECTING ? go_on_connecting(c) : go_on(c);
	if (how == 0)
		return c->written ? MYSQL_WAIT_READ : MYSQL_WAIT_WRITE;
	*failed = how == -1;
	if (how == -1 && c->error.number >= 2000)
		c->exec_at = NEVER;
	return 0;
}

int STDCALL
mysql_real_connect_start(MYSQL **ret, MYSQL *my, const char *host, const char *user,
    const char *passwd, const char *name, unsigned port, const char *path, unsigned long flags)
{
	struct conn *c = conn_of(my);
	const char *digit = strpbrk(path ? path : host ? host : "", "012");
	int failed, waits;

	(void)user, (void)passwd, (void)name, (void)port, (void)flags;
	if (digit == NULL || *digit - '0' >= nhosts)
		fault("a host that was not named: %s", host ? host : path ? path : "NULL");
	c->host = &hosts[*digit - '0'];
	under_way(c, CONNECTING, NULL);
	c->fd = fd_new(c);
	tell("db.c: connection %lu goes to host %d", c->number, *digit - '0');
	waits = turn(c, 0, &failed);
	*ret = failed || waits ? NULL : my;
	return waits;
}

static void
cont(struct conn *c, enum under_way call)
{
	if (c->call != call)
		fault("%s is gone on with, and %s is under way", call_names[call], call_names[c->call]);
}

int STDCALL
mysql_real_connect_cont(MYSQL **ret, MYSQL *my, int ready)
{
	int failed, waits;

	cont(conn_of(my), CONNECTING);
	waits = turn(conn_of(my), ready, &failed);
	*ret = failed || waits ? NULL : my;
	return waits;
}

int STDCALL
mysql_real_query_start(int *ret, MYSQL *my, const char *sql, unsigned long len)
{
	struct conn *c = conn_of(my);
	char start[70];
	size_t i;

	under_way(c, QUERY, NULL);
	c->sql = sql;
	c->sql_len = len;
	for (i = 0; i < len && i < sizeof(start) - 1; i++) {
		start[i] = sql[i];
		if (start[i] < ' ' || start[i] > '~')
			start[i] = '.';
	}
	start[i] = '\0';
	tell("db.c: connection %lu: %s%s", c->number, start, i < len ? "..." : "");
	seen[TEXT] += strncmp(sql, "INSERT", 6) == 0;
	return turn(c, 0, ret);
}

int STDCALL
mysql_real_query_cont(int *ret, MYSQL *my, int ready)
{
	cont(conn_of(my), QUERY);
	return turn(conn_of(my), ready, ret);
}

/* A result of one row. */
struct result {
	MYSQL_RES public;
	char *row[8], text[8][32];
	int fetched;
};

static void
take_result(struct conn *c, MYSQL_RES **ret)
{
	struct request *q = &c->req;
	struct result *r = calloc(1, sizeof(*r));
	int i;

	for (i = 0; i < q->selects; i++) {
		r->row[i] = r->text[i];
		if (strstr(q->select[i], "max_allowed_packet"))
			snprintf(r->text[i], sizeof(r->text[i]), "%zu", c->packet);
		else if (strstr(q->select[i], "autocommit"))
			snprintf(r->text[i], sizeof(r->text[i]), "%d", c->autocommit);
		else if (strstr(q->select[i], "in_transaction"))
			snprintf(r->text[i], sizeof(r->text[i]), "%d", c->in_transaction);
		else
			fault("a question that the model does not know: %s", q->select[i]);
	}
	c->has_result = 0;
	open_results++;
	*ret = &r->public;
}

int STDCALL
mysql_store_result_start(MYSQL_RES **ret, MYSQL *my)
{
	struct conn *c = conn_of(my);

	idle_or_fault(c, "mysql_store_result()");
	*ret = NULL;
	if (!c->has_result || c->fd == -1)
		return 0;
	if (no_memory()) {
		static const struct error e = { 2008, "HY000", "Client run out of memory" };

		c->stmt = NULL;
		c->has_result = 0;
		fails(c, &e);
		return 0;
	}
	if (percent(20)) {		/* its rows are not here yet */
		c->call = RESULT;
		c->answer_at = now + up_to(20 * MS);
		return MYSQL_WAIT_READ;
	}
	take_result(c, ret);
	return 0;
}

int STDCALL
mysql_store_result_cont(MYSQL_RES **ret, MYSQL *my, int ready)
{
	struct conn *c = conn_of(my);

	cont(c, RESULT);
	*ret = NULL;
	if (ready & MYSQL_WAIT_TIMEOUT || ended(c)) {
		fails(c, &lost);
		return 0;
	}
	if (c->answer_at > now)
		return MYSQL_WAIT_READ;
	c->call = NOTHING;
	c->idle_since = now;
	take_result(c, ret);
	return 0;
}

void STDCALL
mysql_free_result(MYSQL_RES *r)
{
	if (r)
		open_results--;
	free(r);
}

MYSQL_ROW STDCALL
mysql_fetch_row(MYSQL_RES *r)
{
	struct result *res = (struct result *)(void *)r;

	return res->fetched++ ? NULL : res->row;
}

unsigned STDCALL
mysql_errno(MYSQL *my)
{
	return my->net.last_errno;
}

const char *STDCALL
mysql_error(MYSQL *my)
{
	return my->net.last_error;
}

const char *STDCALL
mysql_sqlstate(MYSQL *my)
{
	return my->net.sqlstate;
}

unsigned long STDCALL
mysql_thread_id(MYSQL *my)
{
	return my->thread_id;
}

my_ulonglong STDCALL
mysql_affected_rows(MYSQL *my)
{
	return my->affected_rows;
}

char *STDCALL
mysql_get_server_info(MYSQL *my)
{
	static char version[] = "10.11.0-simulated";

	(void)my;
	return version;
}

/* Statements that are prepared. */

static struct statement *
statement_of(MYSQL_STMT *s)
{
	struct statement *stmt = (struct statement *)(void *)s;

	if (stmt->c && (stmt->c->client == NULL || stmt->c->serial != stmt->serial))
		stmt->c = NULL;
	return stmt;
}

MYSQL_STMT *STDCALL
mysql_stmt_init(MYSQL *my)
{
	struct statement *stmt;

	idle_or_fault(conn_of(my), "mysql_stmt_init()");
	if (no_memory())
		return NULL;
	stmt = calloc(1, sizeof(*stmt));
	stmt->c = conn_of(my);
	stmt->serial = stmt->c->serial;
	stmt->public.mysql = my;
	open_statements++;
	return &stmt->public;
}

int STDCALL
mysql_stmt_prepare_start(int *ret, MYSQL_STMT *s, const char *sql, unsigned long len)
{
	struct statement *stmt = statement_of(s);

	under_way(stmt->c, PREPARE, stmt);
	tell("db.c: connection %lu prepares a statement of %lu octets", stmt->c->number, len);
	free(stmt->mark);
	stmt->mark = NULL;
	stmt->marks = stmt->rows = 0;
	parse(stmt->c, sql, len, stmt);
	stmt->c->req.verb = V_PREPARE;
	return turn(stmt->c, 0, ret);
}

int STDCALL
mysql_stmt_prepare_cont(int *ret, MYSQL_STMT *s, int ready)
{
	struct statement *stmt = statement_of(s);
	int waits;

	cont(stmt->c, PREPARE);
	waits = turn(stmt->c, ready, ret);
	return waits;
}

my_bool STDCALL
mysql_stmt_bind_param(MYSQL_STMT *s, MYSQL_BIND *bind)
{
	struct statement *stmt = statement_of(s);

	if (no_memory()) {
		s->last_errno = 2008;
		return 1;
	}
	free(stmt->bind);
	stmt->bind = malloc((size_t)(stmt->marks + 1) * sizeof(*bind));
	memcpy(stmt->bind, bind, (size_t)stmt->marks * sizeof(*bind));
	for (int i = 0; i < stmt->marks; i++)
		if (bind[i].length == &bind[i].buffer_length)
			stmt->bind[i].length = &stmt->bind[i].buffer_length;
	return 0;
}

/* The request is copied here, as the library does. */
int STDCALL
mysql_stmt_execute_start(int *ret, MYSQL_STMT *s)
{
	struct statement *stmt = statement_of(s);
	struct conn *c = stmt->c;
	struct request *q = &c->req;
	struct text column[NCOLUMNS];
	static const struct text zero = { "0", 1 };
	size_t total = 0;
	int i;

	under_way(c, EXECUTE, stmt);
	if (stmt->bind == NULL)
		fault("nothing is bound");
	q->verb = V_INSERT;
	q->rows = q->from_variables = 0;
	column[C_SPAM] = zero;
	for (i = 0; i < stmt->marks; i++) {
		MYSQL_BIND *b = &stmt->bind[i];

		column[stmt->mark[i].column].ptr = b->buffer;
		column[stmt->mark[i].column].len = *b->length;
		total += *b->length + 9;
		if (i + 1 == stmt->marks || stmt->mark[i + 1].row != stmt->mark[i].row)
			add_row(q, check_row(column, 0));
	}
	if (total > c->packet)
		fault("parameters of %zu octets, and max_allowed_packet is %zu", total, c->packet);
	tell("db.c: connection %lu executes: %d rows, of mail %d first", c->number, q->rows,
	    q->row[0].mail);
	seen[PREPARED]++;
	return turn(c, 0, ret);
}

int STDCALL
mysql_stmt_execute_cont(int *ret, MYSQL_STMT *s, int ready)
{
	cont(statement_of(s)->c, EXECUTE);
	return turn(statement_of(s)->c, ready, ret);
}

my_bool STDCALL
mysql_stmt_close(MYSQL_STMT *s)
{
	struct statement *stmt = statement_of(s);

	if (stmt->c)
		idle_or_fault(stmt->c, "mysql_stmt_close()");
	free(stmt->mark);
	free(stmt->bind);
	free(stmt);
	open_statements--;
	return 0;
}

unsigned STDCALL
mysql_stmt_errno(MYSQL_STMT *s)
{
	return s->last_errno;
}

const char *STDCALL
mysql_stmt_error(MYSQL_STMT *s)
{
	return s->last_error;
}

const char *STDCALL
mysql_stmt_sqlstate(MYSQL_STMT *s)
{
	return s->sqlstate;
}

my_ulonglong STDCALL
mysql_stmt_affected_rows(MYSQL_STMT *s)
{
	return s->upsert_status.affected_rows;
}

int
sim_shutdown(int fd, int how)
{
	(void)how;
	if (fd < 0 || fd >= FDS || fd_owner[fd] == NULL)
		fault("shutdown() of descriptor %d, which is closed or somebody else's", fd);
	return 0;
}

int
sim_poll(struct pollfd *p, nfds_t n, int ms)
{
	(void)p, (void)n;
	if (ms != 0)
		fault("poll() waits");
	return 0;
}

/* ---- the caller: what smtpd.c's loop does ---- */

static struct text
arena_text(const char *p, size_t n)
{
	struct text t;

	if (arena_used + n > ARENA)
		fault("the mails of a schedule are larger than %zu octets", ARENA);
	t.ptr = memcpy(arena + arena_used, p, n);
	t.len = n;
	arena_used += n;
	return t;
}

static struct text
arena_noise(size_t n)
{
	struct text t = arena_text(noise + draw() % (sizeof(noise) / 2), n);

	if (n > 40 && percent(50))
		arena[arena_used - n / 2] = '\0';
	return t;
}

static struct text
arena_print(const char *fmt, ...)
{
	char line[700];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return arena_text(line, (size_t)n);
}

/* db.c's copy of a text. */
static struct db_text
give(char **d, struct text t)
{
	struct db_text given;

	memcpy(*d, t.ptr, t.len);
	given.ptr = *d;
	given.len = t.len;
	*d += t.len;
	return given;
}

static void
mail_make(struct mail *m, int number)
{
	size_t n = 0, i;
	int width;			/* of recipients */
	struct tm tm;
	time_t date = 1000000000 + number;
	char *d, text[32];
	struct db_columns *col;

	memset(m, 0, sizeof(*m));
	m->bad = percent(4) ? below(BAD_ROWS) : -1;
	m->rows = percent(80) ? 1 : percent(80) ? 1 + below(5) : 1 + below(ROWS);
	gmtime_r(&date, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	m->column[C_DATE] = arena_print("%s", text);
	m->column[C_FROM] = percent(95) ? arena_print("f%d'@\\x", number) : arena_noise(400);
	m->column[C_SUBJECT] = arena_noise((size_t)below(60));
	m->column[C_BODY] = arena_noise(percent(90) ? (size_t)below(300) :
	    (size_t)draw() % (largest + 1));
	m->column[C_CHARSET] = arena_print("utf-8");
	m->column[C_MAIL] = arena_noise(percent(85) ? (size_t)below(500) :
	    (size_t)draw() % (largest + 1));
	m->column[C_SPAM] = arena_print("0");
	m->column[C_TYPE] = arena_print("text/plain");
	width = percent(90) ? 0 : below(300);
	for (i = 0; i < (size_t)m->rows; i++) {
		m->to[i] = arena_print("t%zu'@x", i);
		m->hash[i] = arena_print("%016llx%016llx", draw(), draw());
		m->recipient[i] = arena_print("m%dr%zu@%0*d", number, i, width, 0);
		n += m->to[i].len + m->hash[i].len + m->recipient[i].len;
	}
	for (i = 0; i < NCOLUMNS; i++)
		n += m->column[i].len;
	m->m = calloc(1, sizeof(*m->m));
	m->row = calloc((size_t)m->rows, sizeof(*m->row));
	m->given = d = malloc(n + 1);
	m->size = n;
	col = &m->m->col;
	col->date = date;
	col->from = give(&d, m->column[C_FROM]);
	col->subject = give(&d, m->column[C_SUBJECT]);
	col->body = give(&d, m->column[C_BODY]);
	col->charset = give(&d, m->column[C_CHARSET]);
	col->content_type = give(&d, m->column[C_TYPE]);
	col->mail = give(&d, m->column[C_MAIL]);
	for (i = 0; i < (size_t)m->rows; i++) {
		m->row[i].to = give(&d, m->to[i]);
		m->row[i].recipient = give(&d, m->recipient[i]);
		m->row[i].hash = give(&d, m->hash[i]);
	}
	col->row = m->row;
	col->rows = (size_t)m->rows;
	m->size = n;
}

/* Some host has been normal since then. */
static int
some_host_normal(ll then)
{
	int i;

	for (i = 0; i < nhosts; i++)
		if (hosts[i].mode == NORMAL && hosts[i].since <= then)
			return 1;
	return 0;
}

/* Since when all hosts have been normal: NEVER where they are not. */
static ll
all_normal_since(void)
{
	ll since = -1000 * SECOND;
	int i;

	for (i = 0; i < nhosts; i++) {
		if (hosts[i].mode != NORMAL)
			return NEVER;
		if (hosts[i].since > since)
			since = hosts[i].since;
	}
	return since;
}

/* What db.c needs at most to find a host that is normal. */
static ll
search_time(void)
{
	return nhosts * CONNECT + FLIGHT + 4 * SECOND;
}

static void
answered(int number, enum db_status status)
{
	static const char *const names[] = { "PENDING", "STORED", "REFUSED", "LOST", "TOO_BIG" };
	struct mail *m = &mails[number];
	ll late = jumped - m->jumped, normal = all_normal_since();
	int usual = m->bad == -1 && !m->unsure && !m->excused && !m->odd && !memory_fails, i;

	tell("mail %d: %s after %.3f s", number, names[status], (double)(now - m->added) / 1e6);
	m->status = status;
	m->answered = now;
	switch (status) {
	case DB_STORED:
		seen[STORED]++;
		for (i = 0; i < m->rows; i++)
			if (m->count[i] == 0)
				fault("mail %d: STORED, and row %d of it is not", number, i);
		break;
	case DB_REFUSED:
		seen[REFUSED]++;
		if (!m->odd && (m->bad == -1 || m->bad >= REFUSABLE))
			fault("mail %d: REFUSED, and nothing is wrong with it", number);
		break;
	case DB_TOO_BIG:
		seen[TOO_BIG]++;
		for (i = 0; i < nhosts; i++)
			if (m->size + 4096 > hosts[i].packet || (hosts[i].packet_small != -1 &&
			    now - late - hosts[i].packet_small < FLIGHT))
				break;
		if (i == nhosts)
			fault("mail %d: TOO_BIG with %zu octets, and no server says that", number, m->size);
		break;
	case DB_LOST:
		seen[LOST]++;
		if (m->told)
			fault("mail %d: LOST, though the OK of its statement was given", number);
		if (usual && timeout_s * SECOND > search_time() &&
		    some_host_normal(m->added - search_time() - late))
			fault("mail %d: LOST, and a host was normal all the time", number);
		break;
	default:
		fault("mail %d: answered with %d", number, (int)status);
	}
	if (status != DB_STORED && m->told)
		fault("mail %d: not STORED, though the OK of its statement was given", number);
	if (usual && !m->waits && normal != NEVER && now - late - (m->added > normal ? m->added : normal) >
	    (normal < m->added - FLIGHT ? 5 * SECOND : FLIGHT + 2 * SECOND))
		fault("mail %d: waited %.3f s, and all hosts were normal", number,
		    (double)(now - m->added) / 1e6);
	memset(m->given, 0xdd, m->size);
	memset(m->row, 0xdd, (size_t)m->rows * sizeof(*m->row));
	free(m->given);
	free(m->row);
	memset(m->m, 0xdd, sizeof(*m->m));
	free(m->m);
	m->m = NULL;
}

static void
mail_add(void)
{
	int number = nmails;
	struct mail *m = &mails[nmails++];
	enum db_status status;

	mail_make(m, number);
	m->added = now;
	m->jumped = jumped;
	tell("mail %d: %d rows, %zu octets%s", number, m->rows, m->size, m->bad == -1 ? "" :
	    ", and the server does not like it");
	status = db_add(db, m->m);
	if (status != DB_PENDING)
		answered(number, status);
}

static void
collect(void)
{
	struct db_mail *m;
	const char *line, *p;
	int i;

	while ((m = db_done(db)) != NULL) {
		for (i = 0; i < nmails && mails[i].m != m; i++)
			;
		if (i == nmails)
			fault("db_done() gives back a mail that is not with it");
		answered(i, m->status);
	}
	if ((line = db_news(db)) != NULL) {
		tell("log: %s", line);
		for (p = line; *p; p++)
			if (*p < ' ' || *p > '~')
				fault("the log's line has octet %d in it", *p);
	}
}

static int
pending(void)
{
	int i, n = 0;

	for (i = 0; i < nmails; i++)
		n += mails[i].m != NULL;
	return n;
}

/* The clock goes on until a descriptor up to max is ready, or the time is t at the latest. */
static void
wait_for(fd_set *r, fd_set *w, int max, ll t)
{
	int fd, ready;
	struct conn *c;
	ll at;

	for (;;) {
		for (ready = 0, fd = 0; fd <= max; fd++)
			if ((c = fd_owner[fd]) != NULL)
				ready |= (FD_ISSET(fd, r) && readable(c)) || (FD_ISSET(fd, w) && writable(c));
		if (ready || now >= t)
			break;
		at = next_event();
		advance(at < t ? at : t);
	}
	for (fd = 0; fd <= max; fd++) {
		c = fd_owner[fd];
		if (FD_ISSET(fd, r) && !readable(c))
			FD_CLR(fd, r);
		if (FD_ISSET(fd, w) && !writable(c))
			FD_CLR(fd, w);
	}
	for (c = conns; c < conns_end; c++)
		if (c->client && c->host && c->call == NOTHING && ended(c))
			c->eof_known = 1;
}

/* What db.c watches is its own: the largest descriptor. */
static int
watch(fd_set *r, fd_set *w)
{
	int max = -1, fd;

	FD_ZERO(r);
	FD_ZERO(w);
	db_watch(db, r, w, &max);
	for (fd = 0; fd <= max; fd++)
		if (FD_ISSET(fd, r) || FD_ISSET(fd, w)) {
			if (fd >= FDS || fd_owner[fd] == NULL)
				fault("descriptor %d is watched, which is closed or somebody else's", fd);
		}
	for (fd = 0; fd < FDS; fd++)
		if (fd > max && (FD_ISSET(fd, r) || FD_ISSET(fd, w)))
			fault("descriptor %d is watched, and max is %d", fd, max);
	return max;
}

/* One turn of the loop; until: when the caller has other work, to add a mail where adding. */
static void
loop_turn(ll until, int adding)
{
	static int turns;
	fd_set r, w;
	long ms = db_timeout(db);
	ll t = ms < 0 ? NEVER : now + ms * MS, was = now;
	int i, max;

	if (ms < -1)
		fault("db_timeout() is %ld", ms);
	max = watch(&r, &w);
	if (t > until)
		t = until;
	if (t == NEVER && next_event() == NEVER && pending())
		fault("waits for ever");
	wait_for(&r, &w, max, t == NEVER ? now + 1000 * SECOND : t);
	turns = now == was ? turns + 1 : 0;
	if (turns > 1000) {
		turns = 0;
		fault("1000 turns of the loop, and nothing happens");
	}
	if (percent(2)) {		/* others had to be served first */
		ll late = up_to(percent(90) ? 200 * MS : 3 * SECOND);

		jumped += late;
		advance(now + late);
	}
	if (adding && now >= until && percent(50)) {
		mail_add();
		adding = 0;
	}
	for (i = 0; i <= max && !FD_ISSET(i, &r) && !FD_ISSET(i, &w); i++)
		;
	db_run(db, i <= max ? &r : NULL, i <= max ? &w : NULL);
	collect();
	if (adding && now >= until)
		mail_add();
	if (percent(50))
		db_run(db, NULL, NULL);
	for (i = 0; i < nmails; i++)
		if (mails[i].m && now - mails[i].added - (jumped - mails[i].jumped) >
		    timeout_s * SECOND + FLIGHT + SECOND)
			fault("mail %d: no answer by its deadline", i);
}

/* ---- a schedule ---- */

static void
hosts_make(void)
{
	static const size_t packets[] = { 16 << 20, 1 << 20, 1 << 20, 65536, 20000, 8192 };
	struct host *h;
	int simple = percent(30);

	nhosts = 1 + below(HOSTS);
	steady = percent(40) ? below(nhosts) : -1;
	calm_at = percent(20) ? 0 : up_to(120 * SECOND);
	calm_mode = percent(95) ? NORMAL : percent(50) ? DOWN : CUT;
	smallest_packet = SIZE_MAX;
	for (h = hosts; h < hosts + HOSTS; h++) {
		memset(h, 0, sizeof(*h));
		h->since = -1000 * SECOND;
		h->autocommit = simple || percent(80);
		h->init_transaction = !simple && percent(15);
		h->plain = percent(15);
		h->idle = percent(70) ? 0 : up_to(20 * SECOND) + 20 * MS;
		h->packet = packets[below(sizeof(packets) / sizeof(packets[0]))];
		h->packet_at = NEVER;
		h->packet_small = -1;
		if (percent(10)) {
			h->packet_later = h->packet * 4;
			h->packet_at = up_to(60 * SECOND);
		}
		if (h < hosts + nhosts && h->packet < smallest_packet)
			smallest_packet = h->packet;
	}
	largest = percent(80) ? 2000 : smallest_packet > 30000 ? 60000 : 2 * smallest_packet;
	for (h = hosts; h < hosts + nhosts; h++) {
		h->mode = MODES;
		host_changes(h);
		h->since = -1000 * SECOND;
	}
}

static void
schedule(void)
{
	static const int timeouts[] = { 60, 60, 60, 40, 20, 5, 1 };
	static const char *const names[] = { "h0", "h0,h1:3307", "h0, /s1 ,h2" };
	ll until, gap;
	int n, burst, i, dies;

	chance = seed;
	for (i = 0; i < 4; i++)
		draw();
	now = jumped = 0;
	last_id = last_serial = 0;
	timeout_s = timeouts[below((int)(sizeof(timeouts) / sizeof(timeouts[0])))];
	memory_fails = percent(10) ? 1 + below(60) : 0;
	hosts_make();
	memset(&conf, 0, sizeof(conf));
	conf.hosts = names[nhosts - 1];
	conf.user = conf.pass = conf.name = "";
	conf.table = "new_mail";
	conf.timeout = timeout_s;
	conf.connections = percent(30) ? 1 : 1 + below(CONNECTIONS);
	conf.max_size = 1 << 20;
	n = 1 + below(percent(50) ? 10 : MAILS);
	gap = up_to(percent(50) ? 20 * SECOND : 200 * MS);
	dies = percent(3) ? below(n) : -1;
	tell("%d host%s (%s), MYSQL_TIMEOUT %d, %d mails%s", nhosts, nhosts > 1 ? "s" : "",
	    conf.hosts, timeout_s, n, memory_fails ? ", memory is short" : "");
	if ((db = db_new(&conf)) == NULL) {
		if (!memory_fails)
			fault("db_new() fails");
		goto ended;
	}
	while (nmails < n) {
		until = now + (percent(70) ? up_to(gap) : up_to(2 * MS));
		burst = nmails;
		while (nmails == burst)
			loop_turn(until, 1);
		if (nmails - 1 == dies)
			goto freed;
		for (burst = percent(20) ? below(20) : 0; burst > 0 && nmails < n; burst--)
			mail_add();
	}
	while (pending())
		loop_turn(NEVER, 0);
	/* Nothing more comes: further connections are given back. */
	memory_fails = 0;
	for (until = now + 75 * SECOND; now < until; )
		loop_turn(until, 0);
	if (open_clients > 1)
		fault("%d connections are kept open for nothing", open_clients);
	if (db_held(db) != 0)
		fault("db_held() is %zu, and nothing is held", db_held(db));
freed:
	db_free(db);
ended:
	if (blocks != 0 || open_clients || open_results || open_statements)
		fault("not given back: %ld blocks, %d connections, %d results, %d statements", blocks,
		    open_clients, open_results, open_statements);
	for (i = 0; i < FDS; i++)
		if (fd_owner[i])
			fault("descriptor %d is left open", i);
	advance(now + 60 * SECOND);		/* what the servers have still to do */
	seen[SCHEDULES]++;
}

static void
clean(void)
{
	int i;

	for (i = 0; i < nmails; i++)
		if (mails[i].m) {
			free(mails[i].given);
			free(mails[i].row);
			free(mails[i].m);
		}
	for (; conns_end > conns; conns_end--)
		if (conns_end[-1].used) {
			free(conns_end[-1].client);
			free_conn(conns_end - 1);
		}
	memset(fd_owner, 0, sizeof(fd_owner));
	memset(fd_foreign, 0, sizeof(fd_foreign));
	nmails = open_results = open_statements = open_clients = 0;
	blocks = 0;
	arena_used = 0;
	conns_end = conns;
}

/* 1: all that must be true was. */
static int
run(unsigned long long number)
{
	int failed;

	seed = number;
	if ((failed = setjmp(over)) == 0)
		schedule();
	clean();
	return !failed;
}

static void
crashed(int sig)
{
	char line[80];
	int n = snprintf(line, sizeof(line), "FAIL seed %llu: signal %d\n", seed, sig);

	if (write(1, line, (size_t)n) == n)
		_exit(2);
	_exit(3);
}

int
main(int argc, char **argv)
{
	unsigned long long first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, i;
	unsigned long long count = argc > 2 ? strtoull(argv[2], NULL, 10) : 0, failed = 0, worst = 0;

	if ((arena = malloc(ARENA)) == NULL)
		return 1;
	conns_end = conns;
	for (i = 0; i < sizeof(noise); i++)
		noise[i] = "abc'\\\"\n\r%_;`()?,@"[draw() % 17];
	if (count == 0) {
		telling = 1;
		return !run(first);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGSEGV, crashed);
	signal(SIGABRT, crashed);
	signal(SIGFPE, crashed);
	for (i = first; i < first + count && failed < MOST; i++)
		if (!run(i)) {
			printf("FAIL seed %llu: %s\n", i, what_failed);
			if (failed++ == 0)
				worst = i;
		}
	for (i = 0; i < NSEEN; i++)
		printf("%s%s %lu", i ? ", " : "", seen_names[i], seen[i]);
	printf("\n");
	if (failed) {
		telling = 1;
		printf("seed %llu, event by event:\n", worst);
		run(worst);
	}
	for (i = 0; i < NSEEN && count >= 10000; i++)
		if (seen[i] == 0) {
			printf("FAIL never happened: %s\n", seen_names[i]);
			failed++;
		}
	printf("%llu passed, %llu failed\n", seen[SCHEDULES] ? (unsigned long long)seen[SCHEDULES] : 0,
	    failed);
	return failed != 0;
}
