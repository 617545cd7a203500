/*
 * db.c - the only file that knows MySQL
 *
 * struct db is the queue of mails that wait, with what is known of the servers;
 * struct conn is one connection, with at most one statement in flight. A
 * connection that is free takes what has collected, as one INSERT. While a
 * statement is young the mails that come collect for the next, so that they share
 * its commit. When it has run for half the time that statements took lately,
 * another connection sends the mails that wait: so hardly a mail waits for the
 * commit of others and then for its own. Where commits are quick the next
 * statement waits a moment for more mails, as long as mails do come together: a
 * statement for one row costs the server more than that.
 * The first connection is opened at the start, more when mails need them; each is
 * closed when it has had nothing to do for a minute.
 *
 * The states of a connection, what can be known in each, and what ends it:
 *
 *   CLOSED      Nothing. conn_open() ends it.
 *   CONNECTING  The server may be there. Its answer.
 *   SETTING     It let us in. Its answer: the session is as set_up() wants it.
 *   ASKING      As before. The answer is max_allowed_packet. These three end after
 *               CONNECT_TIME in all.
 *   IDLE        All that was sent is answered, no mail is here. A mail, IDLE_TIME, or
 *               the server, which may hang up: that is no trouble.
 *   PREPARING   Mails are here, nothing of them is at the server.
 *   LARGE       A mail is being sent in pieces, within a transaction: nothing of it
 *               is stored before COMMIT, whatever happens.
 *   STORING     An INSERT, or that COMMIT. An OK outside a transaction: its rows are
 *               stored. An error of the server: they are not. Until then, and when
 *               the connection ends without either, nobody knows: DB_LOST, for a
 *               duplicate beats a loss (RFC 5321 6.1). But 2006 of the library: the
 *               statement had not left whole, so it is sent again.
 *
 * PREPARING and LARGE end after HUNG_TIME (or MYSQL_TIMEOUT, if that is less) without an
 * answer, or at their mails' deadline; the mails go back to the queue. STORING ends when
 * both are over. Where all connections hang and mails wait, the oldest ends at once.
 *
 * Rows travel as parameters of prepared statements, one for each number of rows:
 * the server then neither parses nor unescapes them, which is half of what text
 * costs it. Text statements are the fallback, and carry large mails in pieces.
 *
 * To read: the queue, statements, the client libraries, connecting, sending,
 * answers, db_run(), the check at start.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64			/* db.h's time_t, as smtpd.c has it */

#ifndef CHECKED			/* test/simulate has what must be true looked at */
#define NDEBUG 1
#endif

#include <mysql.h>

#include <assert.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "db.h"

#define BATCH_ROWS 32			/* rows of a statement: more would not be cheaper */
#define BATCH_BYTES ((size_t)1 << 20)	/* octets of it */
#define LARGE_ROWS 200			/* rows of a statement that makes them from variables, */
#define LARGE_BYTES ((size_t)8 << 20)	/* and octets: none shall take long */
#define PIECE ((size_t)1 << 19)		/* octets of a large mail sent at once, before escaping */
#define PACKET_MIN ((size_t)1 << 20)	/* least max_allowed_packet, taken for granted */
#define SLACK ((size_t)1024)		/* octets of a statement besides its rows, at most */
#define ROW_SLACK 128			/* octets of a row besides its columns, at most */
#define CONNS 8				/* connections, */
#define SHARERS 4			/* of which so many share the work while none hangs */

/* Times are in microseconds. */
#define MS 1000LL
#define SECOND (1000 * MS)
#define SHARE_TIME (3 * MS)		/* a younger statement collects for the next one, */
#define SHARE_PART 2			/* or than this part of what statements took lately */
#define PAUSE_MAX 2000LL		/* the pause after a quick one, in thousandths of it */
#define HUNG_TIME (10 * SECOND)		/* a statement older than this hangs */
#define CONNECT_TIME (5 * SECOND)	/* one host, from CONNECTING to IDLE */
#define IDLE_TIME (60 * SECOND)
#define FRESH_TIME (5 * SECOND)		/* what the server said lately is believed */
#define BACKOFF (100 * MS)		/* doubled for each round of all hosts, up to */
#define BACKOFF_MAX SECOND
#define NEWS_TIME (60 * SECOND)		/* the same trouble is told once a minute */

/* The columns' widths in schema.sql. */
#define ADDRESS_CHARS 320
#define CHARSET_CHARS 64
#define TYPE_CHARS 128
#define HASH_CHARS 32
#define NAME_CHARS 64			/* of a table */
#define SUBJECT_BYTES 65535
#define BODY_BYTES 16777215

#define COLUMNS "`date`,`from`,`to`,`subject`,`body`,`charset`,`mail`,`spam_score`,`hash`," \
	"`content_type`,`recipient`"
#define INTO "INSERT INTO "
#define VALUES "VALUES "
#define MARKS "(?,?,?,?,?,?,?,0,?,?,?),"

#define PARAMS 10		/* columns that are written, but spam_score */
#define HASH 7			/* which of them is hash: spam_score comes before it */

enum state { CLOSED, CONNECTING, SETTING, ASKING, IDLE, PREPARING, LARGE, STORING };

/* What of a large mail is sent next. */
enum part { P_NONE, P_BEGIN, P_MAIL, P_BODY, P_ROWS, P_CLEAR, P_COMMIT };

enum call { NONE, CONNECT, QUERY, RESULT, PREPARE, EXECUTE };

/* What is ready, or waited for. */
#ifdef MARIADB_PACKAGE_VERSION_ID
#define DB_READ MYSQL_WAIT_READ
#define DB_WRITE MYSQL_WAIT_WRITE
#else
#define DB_READ 1
#define DB_WRITE 2
#endif

struct host {
	char text[80];		/* as the log calls it */
	char *name, *socket;
	unsigned port;
	unsigned error;		/* last told of it, and when */
	long long error_at;
	int hopeless;		/* until an operator mends it */
};

struct queue { struct db_mail *first, **end; };

/*
 * A mail is in one queue: that of the mails that wait, that of the connection whose
 * statement it is in, or that of the mails that have their answers. What else holds
 * whenever db_run() returns is asserted in conn_check().
 */
struct conn {
	struct db *db;
	struct host *host;
	enum state state;
	long long since, until;	/* when its state began, or its statement; when it ends of itself */
	long long up_at;	/* connected */
	size_t packet;		/* max_allowed_packet */

	MYSQL *my;
	unsigned long id;	/* the session's: another one has other variables */
	enum call call;
	int waits;		/* for DB_READ, DB_WRITE or both; 0: the call has not begun */
	int failed;
	const char *sql;
	size_t sql_len;
	MYSQL_RES *result;

	struct queue mails;	/* in its statement, */
	size_t sent, rows, size;	/* so many; its rows, their octets */
	size_t most;		/* mails of the next: fewer while one to blame is searched for */
	enum part part;		/* of a large mail: what is sent next, */
	size_t from;		/* from which octet or row on */
	char *text;		/* the statement, where it is text */
	size_t text_cap;

	int plain;		/* statements are not prepared here */
	MYSQL_STMT *stmt[BATCH_ROWS + 1], *used;	/* used: by the call under way, or NULL */
	MYSQL_BIND bind[BATCH_ROWS * PARAMS];
};

struct db {
	struct db_config conf;
	char *hosts, *insert;	/* the list cut up; the words before VALUES */
	size_t insert_len, table_len;
	struct host *host;
	size_t nhosts, at;	/* which one is next */
	char set_up[320];
	int may_wait;		/* db_check() has the time */

	long long now;
	struct queue waiting, done;
	struct conn *conn;	/* [nconns] */
	size_t nconns;

	/* Of the servers: */
	size_t packet;		/* max_allowed_packet of who was asked last, 0: nobody yet, */
	long long packet_at;	/* and when */
	unsigned failures;	/* connections that failed since a mail was stored */
	long long failing_since;	/* no connection is of use, 0: one was when last tried */
	long long open_at;	/* not before then is the next one tried */
	int trouble;		/* with storing, told of, so that its end is told too */
	const struct host *was;	/* connected to, as last told */

	unsigned long statements;
	long long ended;	/* the last INSERT did */
	long long took;		/* what one took lately, on average, */
	long long shared;	/* and by how many mails more than one it was shared, in 1/1000 */
	int news_new;
	char news[512];
};

/*
 * What errors mean, the server's and some of the library's: nothing was stored. DEFER: the
 * mails are DB_LOST at once. ELSEWHERE: they go back to the queue, the connection is closed.
 * SEARCH, REFUSE: one mail may be to blame and is searched for; found, it is DB_LOST or
 * DB_REFUSED.
 */
enum verdict { DEFER, ELSEWHERE, SEARCH, REFUSE };

/* In a hint %d is the database, %t the table, %a the account. */
#define DISK "the server's disk or tablespace is full"
#define LOGIN "check MYSQL_USER and MYSQL_PASS"
#define GRANT "GRANT INSERT, SELECT ON %d.%t TO %a, or check MYSQL_DB and GM_MAIL_TABLE"
#define SCHEMA "mariadb %d < schema.sql"
#define USED_UP "ALTER TABLE %t MODIFY mail_id bigint unsigned NOT NULL AUTO_INCREMENT"

static const struct known {
	unsigned error;
	enum verdict verdict;
	const char *hint;	/* an operator must mend it: how */
} known[] = {
	{ 1021, DEFER, DISK }, { 1030, DEFER, DISK }, { 1114, DEFER, DISK },
	{ 13, DEFER, "GSMTP_USER has no right to open this socket" },
	{ 1044, DEFER, GRANT }, { 1045, DEFER, LOGIN }, { 1698, DEFER, LOGIN },
	{ 1130, DEFER, "the server does not let this host in: " LOGIN },
	{ 1049, DEFER, "CREATE DATABASE %d, or check MYSQL_DB" },
	{ 1046, DEFER, "check MYSQL_DB" },
	/* Oracle's library, connecting without blocking, for 1044, 1045, 1049 and their like. */
	{ 2000, DEFER, "check MYSQL_USER, MYSQL_PASS, MYSQL_DB, the GRANT, the server's limits" },
	{ 2059, DEFER, "the client library lacks what the account's authentication plugin needs" },
	{ 1146, DEFER, SCHEMA ", or check GM_MAIL_TABLE" },
	{ 1142, DEFER, GRANT }, { 1143, DEFER, GRANT },
	{ 1048, DEFER, SCHEMA }, { 1054, DEFER, SCHEMA }, { 1136, DEFER, SCHEMA },
	{ 1364, DEFER, "give the column a DEFAULT: only the twelve of schema.sql are written" },
	{ 167, DEFER, USED_UP }, { 1467, DEFER, USED_UP },
	{ 1205, DEFER, "" },	/* a lock, for as long as set_up allows */
	{ 1118, SEARCH, "a larger innodb_log_file_size, or ROW_FORMAT=DYNAMIC" },
	{ 1213, ELSEWHERE, "" },	/* deadlock; Galera: a conflict with another node */
	{ 1206, ELSEWHERE, "" },	/* no memory for locks */
	{ 1317, ELSEWHERE, "" },	/* KILL QUERY */
	{ 1412, ELSEWHERE, "" },	/* the table was altered meanwhile */
	{ 1637, ELSEWHERE, "" },	/* too many transactions */
	{ 1969, ELSEWHERE, "" }, { 3024, ELSEWHERE, "" },	/* the server's limit of time */
	{ 3101, ELSEWHERE, "" },	/* rolled back by Group Replication */
	{ 1040, ELSEWHERE, "" }, { 1203, ELSEWHERE, "" }, { 1226, ELSEWHERE, "" }, /* too many */
	{ 1047, ELSEWHERE, "" },	/* a Galera node without a quorum */
	{ 1053, ELSEWHERE, "" },	/* shutting down */
	{ 1290, ELSEWHERE, "" }, { 1792, ELSEWHERE, "" }, { 1836, ELSEWHERE, "" }, /* read only */
	{ 1927, ELSEWHERE, "" },	/* KILL CONNECTION */
	{ 1243, ELSEWHERE, "" }, { 1615, ELSEWHERE, "" },	/* what was prepared is of no use */
	{ 3100, ELSEWHERE, "" },	/* Group Replication without its group */
	{ 2006, ELSEWHERE, "" },	/* gone before the statement was sent whole */
	{ 1644, REFUSE, "" }, { 3819, REFUSE, "" }, { 4025, REFUSE, "" },	/* SIGNAL, CHECK */
};

static long long
clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* What an error means by its number, else by its SQLSTATE. */
static const struct known *
judge(unsigned error, const char *state, const char *text)
{
	static const struct known unknown = { 0, SEARCH, "" }, refused = { 0, REFUSE, "" },
	    narrow = { 0, SEARCH, SCHEMA };
	size_t i, len = strlen(text);

	if (strncmp(state, "45", 2) == 0)
		return &refused;	/* a trigger's SIGNAL */
	if (error == 1062 && len > 8 && strcmp(text + len - 8, "PRIMARY'") == 0)
		error = 1467;
	if (error == 2002 && strstr(text, "(13"))
		error = 13;		/* EACCES, everywhere */
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].error == error)
			return &known[i];
	if (error == 1366 || strncmp(state, "22", 2) == 0)
		return &narrow;		/* all text was made to fit: the table is at fault */
	return strncmp(state, "23", 2) == 0 ? &refused : &unknown;
}

static char *
put(char *d, const char *s)
{
	size_t n = strlen(s);

	memcpy(d, s, n);
	return d + n;
}

/* "'user'@'host'" as the server's text names it, without the quotes where SQL needs none. */
static void
account(const char *text, char *to, size_t cap)
{
	static const char bare[] = "abcdefghijklmnopqrstuvwxyz" "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789_.'@";
	const char *p = strstr(text, "user '");
	size_t n = p ? strcspn(p += 5, " ") : 0, i = 0;
	int plain = n > 0 && strspn(p, bare) >= n;

	for (; n > 0 && i + 1 < cap; n--, p++)
		if (!plain || *p != '\'')
			to[i++] = *p;
	to[i] = '\0';
	if (i == 0)
		snprintf(to, cap, "MYSQL_USER");
}

/* "host: error text: hint". The server may quote a mail: nothing but plain ASCII. */
static void
say(const struct db *db, char *line, size_t cap, const struct host *h, unsigned error,
    const char *text, const char *hint)
{
	char who[256], part[2] = "";
	size_t n;

	account(text, who, sizeof(who));
	n = (size_t)snprintf(line, cap, error ? "%s: %u %s" : "%s: %.0u%s", h->text, error, text);
	if (*hint && n < cap)
		n += (size_t)snprintf(line + n, cap - n, ": ");
	for (; *hint && n + 1 < cap; hint++) {
		part[0] = *hint;
		if (*hint == '%')
			hint++;
		n += (size_t)snprintf(line + n, cap - n, "%s", *part != '%' ? part :
		    *hint == 't' ? db->conf.table : *hint == 'a' ? who :
		    db->conf.name ? db->conf.name : "MYSQL_DB");
	}
	for (; *line; line++)
		if (*line < ' ' || *line > '~')
			*line = '?';
}

#define EVENT "database "

/* A line for the log; an error once a minute for each host. 1: it will be told. */
static int
news(struct db *db, struct host *h, unsigned error, const char *text, const char *hint)
{
	unsigned kind = error >= 2000 && error < 3000 ? 2013 : error;	/* 2006 comes with it */

	if (kind != 0) {
		if (db->news_new || (kind == h->error && db->now - h->error_at < NEWS_TIME))
			return 0;	/* an error that waits to be read comes first */
		h->error = kind;
		h->error_at = db->now;
	}
	say(db, put(db->news, EVENT), sizeof(db->news) - strlen(EVENT), h, error, text, hint);
	db->news_new = 1;
	return 1;
}

/* ---- the queue ---- */

static void
push(struct queue *q, struct db_mail *m)
{
	m->next = NULL;
	*(q->first ? q->end : &q->first) = m;
	q->end = &m->next;
}

static struct db_mail *
pop(struct queue *q)
{
	struct db_mail *m = q->first;

	if (m)
		q->first = m->next;
	return m;
}

/* The first n mails of a queue have their answer. */
static void
settle(struct db *db, struct queue *q, size_t n, enum db_status status)
{
	struct db_mail *m;

	while (n-- > 0 && (m = pop(q)) != NULL) {
		m->status = status;
		push(&db->done, m);
	}
}

/* The octets of the first n characters at most, and of n octets where bytes is set. */
static size_t
cut(struct db_text t, size_t n, int bytes)
{
	size_t i = 0;

	if (t.len <= n)		/* a character has at least one octet */
		return t.len;
	if (!bytes)
		for (; i < t.len && n > 0; n--)
			do
				i++;
			while (i < t.len && (t.ptr[i] & 0xc0) == 0x80);
	else
		for (i = n; i > 0 && (t.ptr[i] & 0xc0) == 0x80; i--)
			;
	return i;
}

/* What a mail takes in a statement that does not escape; twice as much in one that does. */
static uint64_t
wire_size(const struct db_columns *c)
{
	uint64_t shared = c->from.len + c->subject.len + c->body.len + c->charset.len +
	    c->content_type.len + (uint64_t)c->mail.len + ROW_SLACK, size = 0;
	size_t i;

	for (i = 0; i < c->rows; i++)
		size += shared + c->row[i].to.len + c->row[i].hash.len + c->row[i].recipient.len;
	return size;
}

/* A network heals by itself; a wrong password at every host does not while mails wait. */
static int
hopeless(const struct db *db)
{
	size_t i;

	for (i = 0; i < db->nhosts && db->host[i].hopeless; i++)
		;
	return i == db->nhosts && db->failing_since;
}

enum db_status
db_add(struct db *db, struct db_mail *m)
{
	struct db_columns *c = &m->col;
	struct tm tm;
	size_t i;

	db->now = clock_us();
	if (c->rows == 0 || hopeless(db) || (db->failing_since &&
	    db->now - db->failing_since > db->conf.timeout * SECOND))
		return DB_LOST;
	if (db_too_big(db, c->mail.len + c->spare))
		return DB_TOO_BIG;
	if (gmtime_r(&c->date, &tm) == NULL ||
	    strftime(m->date, sizeof(m->date), "%Y-%m-%d %H:%M:%S", &tm) == 0)
		strcpy(m->date, "1970-01-01 00:00:00");
	c->from.len = cut(c->from, ADDRESS_CHARS, 0);
	c->subject.len = cut(c->subject, SUBJECT_BYTES, 1);
	c->body.len = cut(c->body, db_max_mail(db) < BODY_BYTES ? db_max_mail(db) : BODY_BYTES, 1);
	c->charset.len = cut(c->charset, CHARSET_CHARS, 0);
	c->content_type.len = cut(c->content_type, TYPE_CHARS, 0);
	for (i = 0; i < c->rows; i++) {
		c->row[i].to.len = cut(c->row[i].to, ADDRESS_CHARS, 0);
		c->row[i].hash.len = cut(c->row[i].hash, HASH_CHARS, 0);
		c->row[i].recipient.len = cut(c->row[i].recipient, ADDRESS_CHARS, 0);
	}
	m->size = wire_size(c);
	m->status = DB_PENDING;
	m->deadline = db->now + db->conf.timeout * SECOND;
	push(&db->waiting, m);
	return DB_PENDING;
}

/* A connection's mails wait again, before all others: they are the oldest. */
static void
give_back(struct conn *c)
{
	struct queue *q = &c->db->waiting;

	if (c->mails.first == NULL)
		return;
	*c->mails.end = q->first;
	if (q->first == NULL)
		q->end = c->mails.end;
	q->first = c->mails.first;
	c->mails.first = NULL;
}

/* ---- statements ---- */

/*
 * n octets between quotes. The session's set-up makes them octets and no characters, so
 * quote and backslash are all that need escaping. Eight at a time:
 * x - 0x01.. & ~x & 0x80.. is not 0 where an octet of x is.
 */
#define ONES 0x0101010101010101U
#define HAS_ZERO(x) (((x) - ONES) & ~(x) & (ONES << 7))

static char *
escape(char *d, const char *s, size_t n)
{
	const char *end = s + n, *stop;
	uint64_t w;

	while (s < end) {
		for (; end - s >= 8; s += 8, d += 8) {
			memcpy(&w, s, 8);
			if (HAS_ZERO(w ^ ONES * '\'') | HAS_ZERO(w ^ ONES * '\\'))
				break;
			memcpy(d, &w, 8);
		}
		for (stop = end - s > 8 ? s + 8 : end; s < stop; *d++ = *s++)
			if (*s == '\'' || *s == '\\')
				*d++ = '\\';
	}
	return d;
}

static char *
put_text(char *d, const char *before, const struct db_text *t)
{
	return put(escape(put(d, before), t->ptr, t->len), "'");
}

static void
text_free(struct conn *c)
{
	free(c->text);
	c->text = NULL;
	c->text_cap = 0;
}

/* Room for a statement of n octets. */
static int
text_reserve(struct conn *c, size_t n)
{
	text_free(c);
	c->text = malloc(n);
	c->text_cap = c->text ? n : 0;
	return c->text ? 0 : -1;
}

/* Octets of rows that a statement may have: if each is escaped they still fit. */
static size_t
limit(const struct conn *c)
{
	size_t n = c->packet / 2 - SLACK;

	return n < BATCH_BYTES ? n : BATCH_BYTES;
}

static int
is_large(const struct conn *c, const struct db_mail *m)
{
	return m->col.rows > BATCH_ROWS || m->size > limit(c);
}

/* The columns of a row in the order of COLUMNS, but spam_score. */
static void
row_of(const struct db_mail *m, size_t row, struct db_text f[PARAMS])
{
	const struct db_columns *c = &m->col;
	const struct db_row *r = &c->row[row];

	f[0] = (struct db_text){ m->date, strlen(m->date) };
	f[1] = c->from, f[2] = r->to, f[3] = c->subject, f[4] = c->body, f[5] = c->charset;
	f[6] = c->mail, f[HASH] = r->hash, f[8] = c->content_type, f[9] = r->recipient;
}

/* The rows of the mails sent as text; its length, or 0 where there is no memory. */
static size_t
text_rows(struct conn *c)
{
	struct db_mail *m = c->mails.first;
	struct db_text f[PARAMS];
	size_t i, k, n;
	char *d;

	if (text_reserve(c, 2 * c->size + SLACK) == -1)
		return 0;
	d = put(c->text, c->db->insert);
	for (n = c->sent; n > 0; n--, m = m->next)
		for (i = 0; i < m->col.rows; i++) {
			row_of(m, i, f);
			*d++ = '(';
			for (k = 0; k < PARAMS; k++)
				d = put_text(d, k == HASH ? ",0,'" : k ? ",'" : "'", &f[k]);
			d = put(d, "),");
		}
	return (size_t)(d - c->text) - 1;
}

/* The next part of a large mail, from its beginning. */
static void
next_part(struct conn *c)
{
	c->part++;
	c->from = 0;
}

static size_t
text_words(struct conn *c, const char *words)
{
	if (text_reserve(c, SLACK) == -1)
		return 0;
	next_part(c);
	return (size_t)(put(c->text, words) - c->text);
}

/* "SET @m='...'" or "SET @m=CONCAT(@m,'...')" for the next octets of a large mail. */
static size_t
text_piece(struct conn *c, const struct db_text *t, const char *set, const char *append)
{
	size_t n = c->packet / 2 - SLACK;
	char *d;

	if (n > PIECE)
		n = PIECE;
	if (n > t->len - c->from)
		n = t->len - c->from;
	if (text_reserve(c, 2 * n + SLACK) == -1)
		return 0;
	d = escape(put(c->text, c->from ? append : set), t->ptr + c->from, n);
	d = put(d, c->from ? "')" : "'");
	if ((c->from += n) == t->len)
		next_part(c);
	return (size_t)(d - c->text);
}

/*
 * "INSERT ... SELECT" of the next rows of a large mail. Where a variable is not what
 * was sent no row is stored, which the count of rows then tells.
 */
static size_t
text_large_rows(struct conn *c)
{
	const struct db_mail *m = c->mails.first;
	const struct db_columns *col = &m->col;
	const struct db_row *r = &col->row[c->from];
	struct db_text date = { m->date, strlen(m->date) };
	size_t n = SLACK + c->db->insert_len, one, most;
	char *d;

	n += 2 * (col->from.len + col->subject.len + col->charset.len + col->content_type.len);
	most = 1 + LARGE_BYTES / (col->mail.len + col->body.len + LARGE_BYTES / LARGE_ROWS);
	for (c->rows = 0; c->rows < most && c->from + c->rows < col->rows; c->rows++, r++) {
		one = 2 * (r->to.len + r->hash.len + r->recipient.len) + ROW_SLACK;
		if (c->rows > 0 && n + one > limit(c))
			break;
		n += one;
	}
	if (text_reserve(c, n) == -1)
		return 0;
	n = c->db->insert_len - strlen(VALUES);
	d = (char *)memcpy(c->text, c->db->insert, n) + n;
	d = put_text(d, "SELECT '", &date);
	d = put_text(d, ",'", &col->from);
	d = put_text(d, ",v.t,'", &col->subject);
	d = put_text(d, ",@b,'", &col->charset);
	d = put_text(d, ",@m,0,v.h,'", &col->content_type);
	d = put(d, ",v.r FROM (");
	for (r -= c->rows, n = 0; n < c->rows; n++, r++) {
		d = put_text(d, n ? " UNION ALL SELECT '" : "SELECT '", &r->to);
		d = put_text(d, n ? ",'" : " t,'", &r->hash);
		d = put_text(d, n ? ",'" : " h,'", &r->recipient);
		d = put(d, n ? "" : " r");
	}
	d += sprintf(d, ") v WHERE LENGTH(@m)=%zu AND LENGTH(@b)=%zu", col->mail.len,
	    col->body.len);
	if ((c->from += c->rows) == col->rows)
		next_part(c);
	return (size_t)(d - c->text);
}

/*
 * The next statement of a large mail: its octets travel once, in pieces, into
 * variables of the session, from which INSERTs make the rows. Its length, 0: no memory.
 */
static size_t
text_large(struct conn *c)
{
	const struct db_columns *col = &c->mails.first->col;

	c->rows = 0;
	switch (c->part) {
	case P_BEGIN:
		return text_words(c, "START TRANSACTION");
	case P_MAIL:
		return text_piece(c, &col->mail, "SET @m='", "SET @m=CONCAT(@m,'");
	case P_BODY:
		return text_piece(c, &col->body, "SET @b='", "SET @b=CONCAT(@b,'");
	case P_ROWS:
		return text_large_rows(c);
	case P_CLEAR:
		return text_words(c, "SET @m=NULL,@b=NULL");
	default:
		c->state = STORING;
		return text_words(c, "COMMIT");
	}
}

/* ---- the client libraries: one call under way, never one that waits ---- */

static int
descriptor(const struct conn *c)
{
	/* After an error the number may be another descriptor's: none is believed then. */
	if (c->my == NULL || c->failed)
		return -1;
#ifdef MARIADB_PACKAGE_VERSION_ID
	return mysql_get_socket(c->my);
#else
	return c->my->net.vio ? c->my->net.fd : -1;
#endif
}

static void
call(struct conn *c, enum call what)
{
	if (what == QUERY && c->result) {
		mysql_free_result(c->result);
		c->result = NULL;
	}
	c->call = what;
	c->waits = c->failed = 0;
	if (what != PREPARE && what != EXECUTE)
		c->used = NULL;
}

static void
query(struct conn *c, const char *sql, size_t len)
{
	c->sql = sql;
	c->sql_len = len;
	call(c, QUERY);
}

/* The error of the call that failed. */
static unsigned
error_of(const struct conn *c)
{
	return c->used ? mysql_stmt_errno(c->used) : mysql_errno(c->my);
}

#ifdef MARIADB_PACKAGE_VERSION_ID
/* Goes on with the call; ready: MYSQL_WAIT_*. 1: it is over, see failed; 0: it waits. */
static int
step(struct conn *c, int ready)
{
	const struct db_config *conf = &c->db->conf;
	const struct host *h = c->host;
	MYSQL *my = c->my, *connected = NULL;
	int first = c->waits == 0, error = 0;

	if (ready == 0 && !first)
		return 0;
	switch (c->call) {
	case CONNECT:
		c->waits = first ? mysql_real_connect_start(&connected, my, h->name, conf->user,
		    conf->pass, conf->name, h->port, h->socket, 0) :
		    mysql_real_connect_cont(&connected, my, ready);
		error = connected == NULL;
		break;
	case QUERY:
		c->waits = first ? mysql_real_query_start(&error, my, c->sql, c->sql_len) :
		    mysql_real_query_cont(&error, my, ready);
		break;
	case RESULT:
		c->waits = first ? mysql_store_result_start(&c->result, my) :
		    mysql_store_result_cont(&c->result, my, ready);
		error = c->waits == 0 && c->result == NULL;
		break;
	case PREPARE:
		c->waits = first ? mysql_stmt_prepare_start(&error, c->used, c->sql, c->sql_len) :
		    mysql_stmt_prepare_cont(&error, c->used, ready);
		break;
	default:		/* EXECUTE: none is stepped without a call */
		c->waits = first ? mysql_stmt_execute_start(&error, c->used) :
		    mysql_stmt_execute_cont(&error, c->used, ready);
		break;
	}
	if (c->waits)
		return 0;
	c->call = NONE;
	c->failed = error;
	return 1;
}

#define POLL_MS (-1)
#define PLAIN 0

#else
/*
 * Oracle's does not say what it waits for: room, where there is none, else an
 * answer. What that misses a timer finds.
 */
static int
step(struct conn *c, int ready)
{
	const struct db_config *conf = &c->db->conf;
	const struct host *h = c->host;
	enum net_async_status status = NET_ASYNC_COMPLETE;
	struct pollfd p;

	(void)ready;
	switch (c->call) {
	case CONNECT:
		/* Without waiting it often loses what a server said that refuses and hangs up. */
		if (c->db->may_wait)
			status = mysql_real_connect(c->my, h->name, conf->user, conf->pass,
			    conf->name, h->port, h->socket, 0) ? NET_ASYNC_COMPLETE :
			    NET_ASYNC_ERROR;
		else
			status = mysql_real_connect_nonblocking(c->my, h->name, conf->user,
			    conf->pass, conf->name, h->port, h->socket, 0);
		break;
	case QUERY:
		status = mysql_real_query_nonblocking(c->my, c->sql, c->sql_len);
		break;
	case RESULT:
		status = mysql_store_result_nonblocking(c->my, &c->result);
		break;
	default:
		return 1;
	}
	if (status == NET_ASYNC_NOT_READY) {
		p.fd = descriptor(c);
		p.events = POLLOUT;
		c->waits = p.fd != -1 && poll(&p, 1, 0) == 1 ? DB_READ : DB_WRITE;
		return 0;
	}
	c->failed = status == NET_ASYNC_ERROR || (c->call == RESULT && c->result == NULL);
	c->call = NONE;
	c->waits = 0;
	return 1;
}

#define POLL_MS 20
#define PLAIN 1			/* this library executes what is prepared only while one waits */
#endif

static void
hang_up(struct conn *c)
{
	size_t i;
	int fd;

	c->state = CLOSED;
	if (c->my == NULL)
		return;
	if (c->waits && (fd = descriptor(c)) != -1)
		shutdown(fd, SHUT_RDWR);	/* so that closing has nothing to wait for */
#ifdef MARIADB_PACKAGE_VERSION_ID
	/* A call that is dropped half-way keeps what it holds, so it has to end. */
	while (c->waits && !step(c, MYSQL_WAIT_TIMEOUT))
		;
#endif
	mysql_close(c->my);
	c->my = NULL;
	for (i = 0; i <= BATCH_ROWS; i++)	/* after it, so that no statement is told */
		if (c->stmt[i])
			mysql_stmt_close(c->stmt[i]);
	memset(c->stmt, 0, sizeof(c->stmt));
	c->used = NULL;
	c->call = NONE;
	c->waits = c->failed = 0;
	if (c->result)
		mysql_free_result(c->result);
	c->result = NULL;
	text_free(c);
}

/* ---- connecting ---- */

/* Is another connection of use? */
static int
others_work(const struct conn *c)
{
	const struct db *db = c->db;
	size_t i;

	for (i = 0; i < db->nconns; i++)
		if (&db->conn[i] != c && db->conn[i].state >= IDLE &&
		    (db->conn[i].state == IDLE || db->now - db->conn[i].since < HUNG_TIME))
			return 1;
	return 0;
}

/*
 * The connection, or the attempt at one, has failed. The mails of its statement get the
 * status; DB_PENDING: they wait again. The next connection is to the next host; after
 * each round of all hosts some time is left.
 */
static void
lose(struct conn *c, enum db_status status)
{
	struct db *db = c->db;
	unsigned round;

	if (status != DB_PENDING)
		settle(db, &c->mails, c->sent, status);
	give_back(c);
	hang_up(c);
	db->at = (size_t)(c->host - db->host + 1) % db->nhosts;
	db->open_at = db->now;
	if (++db->failures % db->nhosts == 0) {
		round = (unsigned)(db->failures / db->nhosts) - 1;
		db->open_at += round < 4 ? BACKOFF << round : BACKOFF_MAX;
	}
	if (db->failing_since == 0 && !others_work(c))
		db->failing_since = db->now;
}

/* The connection could not be made, or not be used. */
static void
connect_failed(struct conn *c)
{
	struct db *db = c->db;
	unsigned error = c->my == NULL ? 2008 : c->failed ? error_of(c) : 2013;
	const char *text = c->my == NULL ? "out of memory" : c->failed ? mysql_error(c->my) :
	    "no answer", *hint = judge(error, "", text)->hint;

	if (news(db, c->host, error, text, hint))
		db->was = NULL;
	c->host->hopeless = *hint != '\0';
	lose(c, DB_PENDING);
	if (hopeless(db))
		settle(db, &db->waiting, SIZE_MAX, DB_LOST);
}

static void
conn_open(struct conn *c)
{
	struct db *db = c->db;
	unsigned off = 0;
	int bad = 0;

	c->host = &db->host[db->at];
	c->part = P_NONE;
	c->sent = 0;
	c->most = BATCH_ROWS;
	c->plain = PLAIN;
	c->since = db->now;
	c->until = db->now + CONNECT_TIME;
	c->state = CONNECTING;
	if ((c->my = mysql_init(NULL)) == NULL) {
		connect_failed(c);
		return;
	}
#ifdef MARIADB_PACKAGE_VERSION_ID
	bad |= mysql_options(c->my, MYSQL_OPT_NONBLOCK, 0);
#else
	unsigned seconds = 2;	/* it waits where the server wants another authentication plugin */

	bad |= mysql_options(c->my, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
	bad |= mysql_options(c->my, MYSQL_OPT_READ_TIMEOUT, &seconds);
	bad |= mysql_options(c->my, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
#endif
	bad |= mysql_options(c->my, MYSQL_READ_DEFAULT_GROUP, "smtpd");
	bad |= mysql_options(c->my, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	bad |= mysql_options(c->my, MYSQL_OPT_LOCAL_INFILE, &off);
	if (c->host->port) {	/* "localhost" alone is the library's socket */
		unsigned tcp = MYSQL_PROTOCOL_TCP;

		bad |= mysql_options(c->my, MYSQL_OPT_PROTOCOL, &tcp);
	}
	if (bad) {
		mysql_close(c->my);
		c->my = NULL;
		connect_failed(c);
		return;
	}
	call(c, CONNECT);
}

static void
connected(struct conn *c)
{
	struct db *db = c->db;
	MYSQL_ROW row = mysql_fetch_row(c->result);

	c->packet = row && row[0] ? strtoul(row[0], NULL, 10) : PACKET_MIN;
	if (c->packet < 4 * SLACK)
		c->packet = 4 * SLACK;
	db->packet = c->packet;
	db->packet_at = c->up_at = db->now;
	c->host->hopeless = 0;
	if (db->was != c->host) {
		news(db, c->host, 0, "connected", mysql_get_server_info(c->my));
		db->was = c->host;
	}
}

/* ---- sending ---- */

/* The rows of the mails sent as parameters, of a statement that may have to be prepared first. */
static int
send_prepared(struct conn *c)
{
	struct db_mail *m = c->mails.first;
	struct db_text f[PARAMS];
	MYSQL_BIND *b = c->bind;
	MYSQL_STMT **stmt = &c->stmt[c->rows];
	size_t i, k, insert_len = c->db->insert_len;

	if (*stmt == NULL) {
		if ((*stmt = mysql_stmt_init(c->my)) == NULL ||
		    text_reserve(c, insert_len + c->rows * strlen(MARKS) + 1) == -1)
			return -1;
		put(c->text, c->db->insert);
		for (i = 0; i < c->rows; i++)
			put(c->text + insert_len + i * strlen(MARKS), MARKS);
		c->sql = c->text;
		c->sql_len = insert_len + i * strlen(MARKS) - 1;
		call(c, PREPARE);
		c->used = *stmt;
		c->state = PREPARING;
		return 0;
	}
	for (k = c->sent; k > 0; k--, m = m->next)
		for (i = 0; i < m->col.rows; i++) {
			size_t j;

			row_of(m, i, f);
			for (j = 0; j < PARAMS; j++, b++) {
				b->buffer_type = MYSQL_TYPE_STRING;
				b->buffer = (void *)(uintptr_t)f[j].ptr;
				b->buffer_length = (unsigned long)f[j].len;
				b->length = &b->buffer_length;
			}
		}
	if (mysql_stmt_bind_param(*stmt, c->bind) != 0)
		return -1;
	call(c, EXECUTE);
	c->used = *stmt;
	return 0;
}

/* Nothing is on its way: the connection is free, and of use, whatever its last answer was. */
static void
rest(struct conn *c)
{
	c->db->failing_since = 0;
	text_free(c);
	c->sent = c->size = 0;
	c->failed = 0;
	c->part = P_NONE;
	c->state = IDLE;
	c->since = c->db->now;
	c->until = c->since + IDLE_TIME;
}

/* Sends the next statement for mails that are here. */
static void
send_next(struct conn *c)
{
	struct db *db = c->db;
	const struct db_mail *m = c->mails.first;
	size_t len;

	c->state = c->part ? LARGE : STORING;
	if (c->part)
		len = text_large(c);
	else
		len = !c->plain && send_prepared(c) == 0 ? SIZE_MAX : text_rows(c);
	c->since = db->now;
	c->until = db->conf.timeout * SECOND < HUNG_TIME ?
	    c->since + db->conf.timeout * SECOND : c->since + HUNG_TIME;
	if (c->state == STORING ? m->deadline > c->until : m->deadline < c->until)
		c->until = m->deadline;
	if (len == 0 || (len >= c->packet && len != SIZE_MAX)) {
		news(db, c->host, len ? 1153 : 2008, len ? "max_allowed_packet is smaller than a "
		    "row without its mail" : "no memory for a statement", "");
		settle(db, &c->mails, c->sent, len ? DB_TOO_BIG : DB_LOST);
		give_back(c);
		hang_up(c);
	} else if (len != SIZE_MAX)
		query(c, c->text, len);
}

/* Chooses what of the mails that wait goes into the next statement. */
static void
take(struct conn *c)
{
	struct db *db = c->db;
	const struct db_mail *m = db->waiting.first;
	size_t n;

	rest(c);
	if (m->col.mail.len + m->col.spare > c->packet - SLACK) {
		/* Too large for good only if the server said so lately. */
		if (db->now - c->up_at < FRESH_TIME)
			settle(db, &db->waiting, 1, DB_TOO_BIG);
		else
			hang_up(c);
		return;
	}
	for (c->rows = 0; m && c->sent < c->most && !is_large(c, m); m = m->next) {
		if (c->rows + m->col.rows > BATCH_ROWS || c->size + m->size > limit(c))
			break;
		c->sent++;
		c->rows += m->col.rows;
		c->size += (size_t)m->size;
	}
	if (c->sent == 0) {
		c->sent = 1;
		c->part = P_BEGIN;
	}
	for (n = c->sent; n > 0; n--)
		push(&c->mails, pop(&db->waiting));
	send_next(c);
}

/* ---- answers ---- */

static void
statement_failed(struct conn *c)
{
	struct db *db = c->db;
	unsigned error = error_of(c);
	const char *text = c->used ? mysql_stmt_error(c->used) : mysql_error(c->my);
	const char *state = c->used ? mysql_stmt_sqlstate(c->used) : mysql_sqlstate(c->my);
	const struct known *k = judge(error, state, text);
	/* A statement without rows: none is to blame. */
	enum verdict verdict = c->state == LARGE && c->rows == 0 ? ELSEWHERE : k->verdict;
	int gone = error >= 2000 && error < 3000;

	if (!gone && verdict >= SEARCH && c->sent > 1) {
		c->most = (c->sent + 1) / 2;
		give_back(c);
		take(c);
		return;
	}
	if (news(db, c->host, error, text, k->hint) && verdict != REFUSE)
		db->trouble = 1;
	if (verdict == ELSEWHERE || (gone && c->state != STORING))
		lose(c, DB_PENDING);
	else if (gone)
		lose(c, DB_LOST);
	else {
		settle(db, &c->mails, c->sent, verdict == REFUSE ? DB_REFUSED : DB_LOST);
		if (c->part)
			hang_up(c);	/* and so ends the transaction */
		else
			rest(c);
	}
}

static void
statement_done(struct conn *c)
{
	struct db *db = c->db;
	int open = (c->my->server_status & SERVER_STATUS_IN_TRANS) != 0;
	uint64_t rows = c->used ? mysql_stmt_affected_rows(c->used) : mysql_affected_rows(c->my);
	const char *wrong = NULL;

	/* A library may have reconnected by itself, a proxy have begun a transaction. */
	if (mysql_thread_id(c->my) != c->id)
		wrong = "lost the connection";
	else if (open != (c->state == LARGE))
		wrong = open ? "a transaction is open, so nothing is committed" :
		    "a transaction has ended too early";
	else if (rows != c->rows)
		wrong = "stored other rows than were sent";
	if (wrong) {
		if (news(db, c->host, 2027, wrong, ""))
			db->trouble = 1;
		lose(c, c->state == LARGE ? DB_PENDING : DB_LOST);
	} else if (c->state == LARGE)
		send_next(c);
	else {
		db->statements++;
		db->ended = db->now;
		db->took += (db->now - c->since - db->took) / 8;
		db->shared += ((long long)(c->sent - 1) * 1000 - db->shared) / 8;
		db->failures = 0;
		if (db->trouble)
			news(db, c->host, 0, "storing again", "");
		db->trouble = 0;
		c->most = BATCH_ROWS;
		/* From here on these mails are safe. */
		settle(db, &c->mails, c->sent, DB_STORED);
		rest(c);
	}
}

/* The call under way is over. */
static void
finished(struct conn *c)
{
	static const char packet[] = "SELECT @@max_allowed_packet";

	if (c->failed && c->state < IDLE)
		connect_failed(c);
	else if (c->failed && c->state == PREPARING && (error_of(c) < 2000 || error_of(c) > 2999)) {
		/* Whatever is wrong, the same as text will tell, or do. */
		c->plain = 1;
		send_next(c);
	} else if (c->failed)
		statement_failed(c);
	else if (c->state == CONNECTING) {
		c->id = mysql_thread_id(c->my);
		c->state = SETTING;
		query(c, c->db->set_up, strlen(c->db->set_up));
	} else if (c->state == SETTING) {
		c->state = ASKING;
		query(c, packet, sizeof(packet) - 1);
	} else if (c->state == ASKING && c->result == NULL)
		call(c, RESULT);
	else if (c->state == ASKING) {
		connected(c);
		rest(c);
	} else if (c->state == PREPARING)
		send_next(c);
	else
		statement_done(c);
}

/* The state's time is over. */
static void
late(struct conn *c)
{
	if (c->state < IDLE)
		connect_failed(c);
	else if (c->state == IDLE)
		hang_up(c);
	else {
		if (news(c->db, c->host, 2013, "no answer", ""))
			c->db->trouble = 1;
		lose(c, c->state == STORING ? DB_LOST : DB_PENDING);
	}
}

/* ---- what the caller's loop calls ---- */

static void
conn_check(const struct conn *c)
{
	const struct db_mail *m;
	size_t mails = 0;

	for (m = c->mails.first; m != NULL; m = m->next, mails++)
		assert(m->status == DB_PENDING);
	assert(mails == (c->state > IDLE ? c->sent : 0) && (mails > 0) == (c->state > IDLE));
	assert((c->state == CLOSED) == (c->my == NULL));
	assert((c->state == CLOSED || c->state == IDLE) == (c->call == NONE));
	assert(c->call == NONE || c->waits != 0);
	assert(c->state > IDLE || c->text == NULL);
	assert(c->state != LARGE || (mails == 1 && c->part != P_NONE));
	(void)mails;
}

/* What a connection waits for, DB_READ | DB_WRITE, and where; 0: for nothing. */
static int
waits_on(const struct conn *c, int *fd)
{
#ifndef MARIADB_PACKAGE_VERSION_ID
	if (c->state == CONNECTING)
		return 0;
#endif
	if ((*fd = descriptor(c)) == -1)
		return 0;
	/* Idle: the server may hang up. */
	return c->state == IDLE ? DB_READ : c->waits;
}

void
db_watch(const struct db *db, fd_set *r, fd_set *w, int *max)
{
	size_t i;
	int fd, what;

	for (i = 0; i < db->nconns; i++) {
		what = waits_on(&db->conn[i], &fd);
		if (what & DB_READ)
			FD_SET(fd, r);
		if (what & DB_WRITE)
			FD_SET(fd, w);
		if (what && fd > *max)
			*max = fd;
	}
}

/* What all connections do now. */
struct view {
	struct conn *idle, *closed, *oldest;	/* one each, or NULL; oldest: statement */
	long long turn;		/* from when on one of them is used */
};

/*
 * One more connection is opened when mails wait, none is idle or opening, and the youngest
 * statement is as old as SHARE_TIME and SHARE_PART say; the first of all is opened unasked, for
 * max_allowed_packet.
 */
static struct view
look(const struct db *db)
{
	struct view v = { NULL, NULL, NULL, LLONG_MAX };
	const struct db_mail *m;
	long long youngest = 0, n = 0;
	size_t i, busy = 0;
	int opening = 0;

	for (i = db->nconns; i-- > 0; ) {
		struct conn *c = &db->conn[i];

		if (c->state == CLOSED)
			v.closed = c;
		else if (c->state < IDLE)
			opening = 1;
		else if (c->state == IDLE)
			v.idle = c;
		else {
			busy++;
			if (c->since > youngest)
				youngest = c->since;
			if (v.oldest == NULL || c->since < v.oldest->since)
				v.oldest = c;
		}
	}
	/* Mails want a connection, and so does who must see that the server is back. */
	if (db->waiting.first == NULL && (busy > 0 || v.idle || (db->packet && !db->failing_since)))
		return v;
	if (opening && v.idle == NULL)
		return v;
	v.turn = 0;
	/* As many as usual wait: no more come before these have their answers. */
	for (m = db->waiting.first; m != NULL && n <= db->shared; m = m->next)
		n += 1000;
	if (busy == 0 && db->took < SHARE_TIME && n <= db->shared)
		v.turn = db->ended + (db->shared < PAUSE_MAX ? db->shared : PAUSE_MAX) *
		    db->took / 1000;
	if (busy > 0)
		v.turn = youngest + (busy >= SHARERS || busy >= db->nconns ? HUNG_TIME :
		    db->took / SHARE_PART > SHARE_TIME ? db->took / SHARE_PART : SHARE_TIME);
	if (v.idle == NULL && v.turn < db->open_at)
		v.turn = db->open_at;
	return v;
}

/* Finds a connection for the mails that wait. 1: something was done. */
static int
dispatch(struct db *db)
{
	struct view v = look(db);

	if (db->now < v.turn)
		return 0;
	if (v.idle)
		take(v.idle);
	else if (v.closed)
		conn_open(v.closed);
	else {
		assert(v.oldest != NULL);
		late(v.oldest);		/* they hang, all: the place of one is needed */
	}
	return 1;
}

long
db_timeout(const struct db *db)
{
	long long now = clock_us(), at = LLONG_MAX;
	struct view v = look(db);
	size_t i;

	if (db->done.first)
		return 0;	/* db_done() has something */
	for (i = 0; i < db->nconns; i++) {
		const struct conn *c = &db->conn[i];

		if (c->state == CLOSED)
			continue;
		if (c->until < at)
			at = c->until;
		if (POLL_MS >= 0 && c->call != NONE && at > now + POLL_MS * MS)
			at = now + POLL_MS * MS;
	}
	if (db->waiting.first && db->waiting.first->deadline < at)
		at = db->waiting.first->deadline;
	if (v.turn < at)
		at = v.turn;
	if (at == LLONG_MAX)
		return -1;
	return at <= now ? 0 : (long)((at - now + MS - 1) / MS);
}

/* Goes on with a connection as far as it goes; ready: DB_*. */
static void
run(struct conn *c, int ready)
{
	for (; c->state != CLOSED; ready = 0) {
		if (c->state == IDLE) {
			if (ready & DB_READ)	/* unasked: the server hangs up */
				hang_up(c);
			else if (c->db->now >= c->until)
				late(c);
			return;
		}
		if (step(c, ready))
			finished(c);
		else if (c->db->now < c->until)
			return;
		else
			late(c);
	}
}

void
db_run(struct db *db, const fd_set *r, const fd_set *w)
{
	size_t i;
	int fd, what, ready;

	db->now = clock_us();
	do {
		for (i = 0; i < db->nconns; i++) {
			what = r ? waits_on(&db->conn[i], &fd) : 0;
			ready = what == 0 ? 0 : (FD_ISSET(fd, r) ? DB_READ : 0) |
			    (FD_ISSET(fd, w) ? DB_WRITE : 0);
			run(&db->conn[i], ready);
			conn_check(&db->conn[i]);
		}
		r = NULL;
		while (db->waiting.first && db->waiting.first->deadline <= db->now)
			settle(db, &db->waiting, 1, DB_LOST);
	} while (dispatch(db));
}

struct db_mail *
db_done(struct db *db)
{
	return pop(&db->done);
}

size_t
db_held(const struct db *db)
{
	size_t i, sum = 0;

	for (i = 0; i < db->nconns; i++)	/* of parameters the library makes a copy */
		sum += db->conn[i].text_cap + (db->conn[i].call == EXECUTE ? db->conn[i].size : 0);
	return sum;
}

size_t
db_max_mail(const struct db *db)
{
	return db->packet ? db->packet - SLACK : SIZE_MAX;
}

int
db_too_big(const struct db *db, size_t len)
{
	return len > db_max_mail(db) && clock_us() - db->packet_at < FRESH_TIME;
}

unsigned long
db_statements(const struct db *db)
{
	return db->statements;
}

const char *
db_news(struct db *db)
{
	int is_new = db->news_new;

	db->news_new = 0;
	return is_new ? db->news : NULL;
}

/* "host", "host:port", "[v6]:port", "/socket"; an address with colons needs the brackets. */
static void
host_parse(struct host *h, char *s)
{
	char *colon = strrchr(s, ':'), *bracket = strchr(s, ']');

	memset(h, 0, sizeof(*h));
	snprintf(h->text, sizeof(h->text), "%s", s);
	if (*s == '/') {
		h->socket = s;
		return;
	}
	if (*s == '[' && bracket) {
		*bracket = '\0';
		s++;
		if (colon < bracket)
			colon = NULL;
	} else if (colon && strchr(s, ':') != colon)
		colon = NULL;
	if (colon) {
		*colon = '\0';
		h->port = (unsigned)strtoul(colon + 1, NULL, 10);
	}
	h->name = s;
}

struct db *
db_new(const struct db_config *conf)
{
	static const char words[] = INTO "`` (" COLUMNS ") " VALUES;
	struct db *db = calloc(1, sizeof(*db));
	int lock = conf->timeout > 6 ? conf->timeout - 5 : 1;
	const char *p;
	char *d, *s;
	size_t i;

	if (db == NULL)
		return NULL;
	db->conf = *conf;
	/* NULL leaves it to the library's option files. */
	db->conf.user = *conf->user ? conf->user : NULL;
	db->conf.pass = *conf->pass ? conf->pass : NULL;
	db->conf.name = *conf->name ? conf->name : NULL;
	db->nconns = conf->connections < 1 ? 1 : conf->connections < CONNS ?
	    (size_t)conf->connections : CONNS;
	for (p = conf->hosts, i = 1; *p; p++)
		i += *p == ',';
	db->conn = calloc(db->nconns, sizeof(*db->conn));
	db->hosts = malloc((size_t)(p - conf->hosts) + 1);
	db->host = malloc(i * sizeof(*db->host));
	db->insert = malloc(sizeof(words) + 2 * strlen(conf->table));
	if (db->conn == NULL || db->hosts == NULL || db->host == NULL || db->insert == NULL) {
		db_free(db);
		return NULL;
	}
	for (i = 0; i < db->nconns; i++)
		db->conn[i].db = db;
	strcpy(db->hosts, conf->hosts);
	for (s = strtok_r(db->hosts, ", \t", &d); s; s = strtok_r(NULL, ", \t", &d))
		host_parse(&db->host[db->nhosts++], s);
	for (d = put(db->insert, INTO "`"), p = conf->table; *p; *d++ = *p++)
		if (*p == '`')
			*d++ = '`';
	db->table_len = (size_t)(d - db->insert) + 1 - strlen(INTO);
	d = put(d, "` (" COLUMNS ") " VALUES);
	*d = '\0';
	db->insert_len = (size_t)(d - db->insert);
	/*
	 * What a session must be like whatever the server's defaults are. Text is valid UTF-8
	 * already; as octets it costs the server a quarter less. autocommit that goes from 0 to 1
	 * ends a transaction which init_connect has begun. The server gives up on a lock before we
	 * do, so that it does not store later.
	 */
	snprintf(db->set_up, sizeof(db->set_up), "SET NAMES binary,sql_mode='STRICT_ALL_TABLES',"
	    "time_zone='+00:00',completion_type=0,autocommit=0,autocommit=1,lock_wait_timeout=%d,"
	    "innodb_lock_wait_timeout=%d", lock, lock);
	return db;
}

void
db_free(struct db *db)
{
	size_t i;

	for (i = 0; db->conn && i < db->nconns; i++)
		hang_up(&db->conn[i]);
	free(db->conn);
	free(db->insert);
	free(db->host);
	free(db->hosts);
	free(db);
}

/* ---- the check at start: here it is right to wait ---- */

/* Waits until the call under way is over: 1, or 0 after CONNECT_TIME. */
static int
await(struct conn *c)
{
	long long until = clock_us() + CONNECT_TIME;
	struct pollfd p;
	int ready;

	for (ready = 0; !step(c, ready); ready = poll(&p, 1, 20) == 1 ? c->waits : 0) {
		if (clock_us() > until)
			return 0;
		p.fd = descriptor(c);
		p.events = (short)((c->waits & DB_READ ? POLLIN : 0) |
		    (c->waits & DB_WRITE ? POLLOUT : 0));
	}
	return 1;
}

/* A statement's answer, into c->result where it has one: 0, or the error. */
static unsigned
ask(struct conn *c, const char *sql, int rows)
{
	query(c, sql, strlen(sql));
	if (!await(c))
		return 2013;
	if (!c->failed && rows) {
		call(c, RESULT);
		if (!await(c))
			return 2013;
	}
	return c->failed ? mysql_errno(c->my) : 0;
}

/* What a column must be to keep what is written to it; any other must do without a value. */
#define LETTERS(octets) "CHARACTER_SET_NAME='utf8mb4' AND CHARACTER_OCTET_LENGTH>=" octets
#define BAD_COLUMNS "SELECT COLUMN_NAME FROM information_schema.COLUMNS%s AND NOT IFNULL(" \
	"CASE LOWER(COLUMN_NAME) WHEN 'mail_id' THEN EXTRA LIKE '%%auto_increment%%'" \
	" WHEN 'date' THEN DATA_TYPE IN ('datetime','timestamp')" \
	" WHEN 'from' THEN " LETTERS("1280") " WHEN 'to' THEN " LETTERS("1280") \
	" WHEN 'subject' THEN " LETTERS("65535") \
	" WHEN 'body' THEN " LETTERS("16777215") " WHEN 'charset' THEN " LETTERS("256") \
	" WHEN 'mail' THEN CHARACTER_SET_NAME IS NULL AND CHARACTER_OCTET_LENGTH>=%zu" \
	" WHEN 'spam_score' THEN 1 WHEN 'hash' THEN CHARACTER_SET_NAME IS NOT NULL AND" \
	" CHARACTER_MAXIMUM_LENGTH>=32 WHEN 'content_type' THEN " LETTERS("512") \
	" WHEN 'recipient' THEN " LETTERS("1280") " ELSE IS_NULLABLE='YES' OR" \
	" COLUMN_DEFAULT IS NOT NULL OR LOWER(EXTRA) REGEXP 'auto_increment|generated' END,0)"

/* The names of the table's columns that cannot keep every mail, into why; 0, or an error. */
static unsigned
check_columns(struct conn *c, const char *table, const char *where, char *why, size_t cap)
{
	char sql[2560];
	MYSQL_ROW row;
	unsigned error;
	size_t len = 0;

	/* The trace fields are not counted in max_size. */
	snprintf(sql, sizeof(sql), BAD_COLUMNS " UNION SELECT 'mail_id' FROM DUAL WHERE NOT EXISTS("
	    "SELECT 1 FROM information_schema.COLUMNS%s AND LOWER(COLUMN_NAME)='mail_id')", where,
	    c->db->conf.max_size + 65535, where);
	if ((error = ask(c, sql, 1)) != 0)
		return error;
	*why = '\0';
	while ((row = mysql_fetch_row(c->result)) != NULL && len < cap)
		len += (size_t)snprintf(why + len, cap - len, "%s`%s`", len ? ", " : "", row[0]);
	if (len > 0 && len < cap)
		snprintf(why + len, cap - len, " of table %s cannot keep every mail: load "
		    "schema.sql; a column that is not in it must do without a value", table);
	return 0;
}

/* What db_check() says of a connection that has been made. */
static int
check(struct conn *c, char *why, size_t cap)
{
	static const char nothing[] = "SELECT '1970-01-01','','','','','','',0,'','','' FROM DUAL"
	    " WHERE 1=0";
	struct db *db = c->db;
	char table[2 * NAME_CHARS + 3], where[256], sql[1024], *d;
	const char *hint;
	MYSQL_ROW row;
	unsigned error;
	int status;
	size_t n = strlen(db->conf.table), len = db->insert_len - strlen(VALUES);

	if (n > NAME_CHARS) {
		snprintf(why, cap, "GM_MAIL_TABLE: a name has %d characters at most", NAME_CHARS);
		return -1;
	}
	snprintf(table, sizeof(table), "%.*s", (int)db->table_len, db->insert + strlen(INTO));
	d = put(where, " WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME=_utf8mb4'");
	*put(escape(d, db->conf.table, n), "'") = '\0';
	snprintf(sql, sizeof(sql), "SELECT t.TABLE_TYPE,e.TRANSACTIONS FROM "
	    "information_schema.TABLES t LEFT JOIN information_schema.ENGINES e "
	    "ON e.ENGINE=t.ENGINE%s", where);
	if ((error = ask(c, sql, 1)) != 0)
		goto failed;
	if ((row = mysql_fetch_row(c->result)) != NULL) {
		if (strstr(row[0], "VIEW"))
			snprintf(why, cap, "GM_MAIL_TABLE: %s is a view; name the table itself",
			    table);
		else if (row[1] == NULL || strcmp(row[1], "YES") != 0)
			snprintf(why, cap, "table %s has no transactions: ALTER TABLE %s"
			    " ENGINE=InnoDB", table, table);
		else if ((error = check_columns(c, table, where, why, cap)) != 0)
			goto failed;
		if (*why)
			return -1;
	}
	if (c->packet < PACKET_MIN) {
		snprintf(why, cap, "max_allowed_packet is %zu: SET GLOBAL max_allowed_packet="
		    "16777216, and in the server's configuration", c->packet);
		return -1;
	}
	/* Nothing is stored, but the server checks all that it would check of a row. */
	memcpy(sql, db->insert, len);
	strcpy(sql + len, nothing);
	if ((error = ask(c, sql, 0)) != 0)
		goto failed;
	snprintf(why, cap, "%s %s, table %s, mails of %zu octets at most", c->host->text,
	    mysql_get_server_info(c->my), table, db_max_mail(db));
	return 0;
failed:
	hint = judge(error, "", "")->hint;
	status = *hint && error < 2000 ? -1 : 1;
	d = status == -1 ? put(why, EVENT) : why;
	say(db, d, cap - (size_t)(d - why), c->host, error,
	    c->failed ? mysql_error(c->my) : "no answer", hint);
	return status;
}

int
db_check(const struct db_config *conf, char *why, size_t cap)
{
	struct db *db = db_new(conf);
	struct conn *c;
	size_t i;
	int status;

	if (db == NULL) {
		snprintf(why, cap, "no memory");
		return 1;
	}
	db->may_wait = 1;
	db->now = clock_us();
	for (c = db->conn, i = 0; i < db->nhosts && c->state == CLOSED; i++)
		for (conn_open(c); c->state > CLOSED && c->state < IDLE; )
			if (await(c))
				finished(c);
			else
				late(c);
	if (c->state == IDLE)
		status = check(c, why, cap);
	else {
		status = hopeless(db) ? -1 : 1;
		snprintf(why, cap, "%s", db->news + (status == 1 ? strlen(EVENT) : 0));
	}
	db_free(db);
	return status;
}
