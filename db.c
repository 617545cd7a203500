/*
 * db.c - the only file that knows MySQL
 *
 * Mails wait in a queue. While one INSERT is at the server the queue grows, so
 * the slower the commits the more mails share one. InnoDB makes a statement
 * atomic, so nothing here ever says BEGIN.
 *
 * Rows travel as parameters of prepared statements, one for each number of rows:
 * the server then neither parses nor unescapes them, which is half of what text
 * costs it. Text is for where that is not to be had, and for large mails.
 *
 * Whatever goes wrong, a mail is DB_STORED only after the server said so on the
 * connection that sent it. In every other case somebody tries again, and a
 * duplicate beats a loss (RFC 5321 6.1).
 *
 * To read: the queue, statements, the client libraries, connecting, sending,
 * answers, db_run(), the check at start.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64			/* db.h's time_t, as smtpd.c has it */

#include <mysql.h>

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
#define BATCH_BYTES ((size_t)1 << 20)	/* octets of it, where it has more than one mail */
#define PACKET_MIN ((size_t)1 << 20)	/* least max_allowed_packet, taken for granted */
#define PACKET_MAX ((size_t)8 << 20)	/* largest piece of a mail sent in pieces, escaped */
#define SLACK 1024			/* octets of a statement besides its rows, at most */
#define ROW_SLACK 128			/* octets of a row besides its columns, at most */
#define CONNECT_MS 5000			/* one host, until it may be written to */
#define FLIGHT_MS 10000			/* a statement's own time, however late its mails */
#define STEADY_MS 10000			/* a connection this old was a good one */
#define DB_READ 1
#define DB_WRITE 2
#define BACKOFF_MS 100			/* doubled for each round of all hosts, up to */
#define BACKOFF_MAX 3000
#define AGAIN_MS 200
#define NEWS_MS 60000			/* the same trouble is told once a minute */

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

enum state {
	AWAY,			/* until retry_at */
	CONNECTING,
	SETTING,		/* the session's variables */
	ASKING,			/* for max_allowed_packet */
	READING,		/* the answer to that */
	IDLE,
	PREPARING,		/* the statement for `rows` rows */
	STORING,		/* the first `sent` mails, or a piece of the first */
	CLEARING		/* the variables that held a large mail */
};

/* What of a large mail is sent next: see text_large(). */
enum part { P_MAIL, P_BODY, P_INSERT, P_NONE };

enum call { NONE, CONNECT, QUERY, RESULT, PREPARE, EXECUTE };

struct host {
	char text[80];		/* as the log calls it */
	char *name, *socket;
	unsigned port;
	unsigned error;		/* last told of it, and when */
	long long error_at;
};

struct db {
	struct db_config conf;
	char *hosts, *insert;	/* the list cut up; the words before VALUES */
	size_t insert_len, table_len;
	struct host *host;
	size_t nhosts, at;	/* which one is next or in use */

	enum state state;
	long long now, retry_at, away_since, up_since, until, again_at;
	unsigned attempts;	/* connects since it last went well */
	int hopeless;		/* until an operator mends it */
	int may_wait;		/* db_check() has the time */

	MYSQL *my;
	unsigned long id;	/* the connection's: another one has other variables */
	size_t packet;		/* max_allowed_packet, 0: never connected */
	enum call call;
	int begun, waits, failed;	/* begun: waits is what for, MYSQL_WAIT_* */
	const char *sql;
	size_t sql_len;
	MYSQL_RES *result;
	char setup[256];

	struct db_mail *first, **end;	/* not yet answered, oldest first */
	size_t mails;		/* how many */
	size_t sent, rows, size;	/* in the statement at the server: mails, rows, octets */
	size_t bad;		/* among the first `bad` mails at least one is refused */
	enum part part;		/* of a large mail: what is sent next */
	size_t at_octet;	/* ... from where on */
	int clear;		/* its variables are still set */
	char *text;		/* the statement, where it is text */
	size_t text_cap;

	int plain;		/* statements are not prepared here */
	MYSQL_STMT *stmt[BATCH_ROWS + 1], *used;	/* used: by the call under way, or NULL */
	MYSQL_BIND bind[BATCH_ROWS * PARAMS];
	struct db_mail *done, **done_end;
	unsigned long statements;

	enum call trouble;	/* told of, so that its end is told too */
	size_t was;		/* the host connected to before */
	int news_new;
	char news[512];
};

/*
 * What the server's errors mean. AGAIN and ELSEWHERE: nothing was stored, the
 * mails stay and are sent again. ROW: find the mail that is to blame. LATER,
 * MEND (by an operator) and all others: the mails are DB_LOST at once.
 */
enum verdict { MEND, LATER, AGAIN, ELSEWHERE, ROW };

#define DISK "the server's disk or tablespace is full"
#define LOGIN "check MYSQL_USER and MYSQL_PASS"
#define GRANT "GRANT INSERT, SELECT ON MYSQL_DB.GM_MAIL_TABLE TO MYSQL_USER"
#define SCHEMA "mariadb MYSQL_DB < schema.sql"
#define USED_UP "ALTER TABLE ... MODIFY mail_id bigint unsigned NOT NULL AUTO_INCREMENT"

static const struct known {
	unsigned error;
	enum verdict verdict;
	const char *hint;
} known[] = {
	{ 1021, MEND, DISK }, { 1030, MEND, DISK }, { 1114, MEND, DISK },
	{ 1044, MEND, GRANT }, { 1045, MEND, LOGIN }, { 1698, MEND, LOGIN },
	{ 1130, MEND, "the server does not let this host in: " LOGIN },
	{ 1049, MEND, "CREATE DATABASE, or check MYSQL_DB" },
	{ 1046, MEND, "check MYSQL_DB" },
	/* Oracle's library, connecting without blocking, for 1044, 1045, 1049 and their like. */
	{ 2000, MEND, "check MYSQL_USER, MYSQL_PASS, MYSQL_DB, the GRANT, the limits of the server" },
	{ 1146, MEND, SCHEMA ", or check GM_MAIL_TABLE" },
	{ 1142, MEND, GRANT }, { 1143, MEND, GRANT },
	{ 1048, MEND, SCHEMA }, { 1054, MEND, SCHEMA }, { 1136, MEND, SCHEMA },
	{ 1364, MEND, "give the column a DEFAULT: only the twelve of schema.sql are written" },
	{ 167, MEND, USED_UP }, { 1467, MEND, USED_UP },
	{ 1205, LATER, "" },	/* a lock, for as long as set_up() allows */
	{ 1213, AGAIN, "" },	/* deadlock; Galera: a conflict with another node */
	{ 1206, AGAIN, "" },	/* no memory for locks */
	{ 1317, AGAIN, "" },	/* KILL QUERY */
	{ 1412, AGAIN, "" },	/* the table was altered meanwhile */
	{ 1637, AGAIN, "" },	/* too many transactions */
	{ 1969, AGAIN, "" }, { 3024, AGAIN, "" },	/* the server's limit of time */
	{ 3101, AGAIN, "" },	/* rolled back by Group Replication */
	{ 1040, ELSEWHERE, "" }, { 1203, ELSEWHERE, "" }, { 1226, ELSEWHERE, "" }, /* too many */
	{ 1047, ELSEWHERE, "" },	/* a Galera node without a quorum */
	{ 1053, ELSEWHERE, "" },	/* shutting down */
	{ 1290, ELSEWHERE, "" }, { 1792, ELSEWHERE, "" }, { 1836, ELSEWHERE, "" }, /* read only */
	{ 1927, ELSEWHERE, "" },	/* KILL CONNECTION */
	{ 1243, ELSEWHERE, "" },	/* a proxy has forgotten what was prepared */
	{ 3100, ELSEWHERE, "" },	/* Group Replication without its group */
	{ 2006, ELSEWHERE, "" },	/* gone before the statement was sent whole */
	{ 1644, ROW, "" }, { 3819, ROW, "" }, { 4025, ROW, "" },	/* SIGNAL, CHECK */
};

static long long
clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static const struct known *
look_up(unsigned error)
{
	static const struct known none = { 0, MEND, "" };
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].error == error)
			return &known[i];
	return &none;
}

/* One line about the host in use. The server may quote a mail: nothing but plain ASCII. */
static void
say(const struct db *db, char *line, size_t cap, unsigned error, const char *text, const char *hint)
{
	char number[16] = "";

	if (error != 0)
		snprintf(number, sizeof(number), " %u", error);
	snprintf(line, cap, "database %s:%s %s%s%s", db->host[db->at].text, number, text,
	    *hint ? ": " : "", hint);
	for (; *line; line++)
		if ((unsigned char)*line < ' ' || (unsigned char)*line > '~')
			*line = '?';
}

/* The same for the log; an error once a minute for each host. */
static void
news(struct db *db, unsigned error, const char *text, const char *hint)
{
	struct host *h = &db->host[db->at];
	unsigned kind = error >= 2000 && error < 3000 ? 2013 : error;	/* 2006 comes with it */

	if (kind != 0) {
		if (kind == h->error && db->now - h->error_at < NEWS_MS)
			return;
		h->error = kind;
		h->error_at = db->now;
		db->trouble = db->state < IDLE ? CONNECT : QUERY;
	}
	say(db, db->news, sizeof(db->news), error, text, hint);
	db->news_new = 1;
}

/* ---- the queue ---- */

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

enum db_status
db_add(struct db *db, struct db_mail *m)
{
	struct db_columns *c = &m->col;
	struct tm tm;
	size_t i;

	db->now = clock_ms();
	if (c->rows == 0 || db->hopeless || (db->state < IDLE &&
	    db->now - db->away_since > db->conf.timeout * 1000LL))
		return DB_LOST;
	if (c->mail.len > db_max_mail(db))
		return DB_TOO_BIG;
	if (gmtime_r(&c->date, &tm) == NULL || tm.tm_year < 70 || tm.tm_year > 8000 ||
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
	m->deadline = db->now + db->conf.timeout * 1000LL;
	m->next = NULL;
	*db->end = m;
	db->end = &m->next;
	db->mails++;
	return DB_PENDING;
}

/* Some of a large mail is at the server. */
static int
is_begun(const struct db *db)
{
	return db->part != P_MAIL || db->at_octet > 0;
}

static void
begin_anew(struct db *db)
{
	db->part = P_MAIL;
	db->at_octet = 0;
}

/* The first n mails have their answer. */
static void
settle(struct db *db, size_t n, enum db_status status)
{
	struct db_mail *m;

	db->bad = db->bad > n ? db->bad - n : 0;
	db->mails -= n;
	while (n-- > 0) {
		m = db->first;
		if ((db->first = m->next) == NULL)
			db->end = &db->first;
		m->next = NULL;
		m->status = status;
		*db->done_end = m;
		db->done_end = &m->next;
	}
	db->clear |= is_begun(db);
	begin_anew(db);
}

/* ---- statements ---- */

/*
 * n octets between quotes. set_up() makes them octets and no characters, so
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
put(char *d, const char *s)
{
	size_t n = strlen(s);

	memcpy(d, s, n);
	return d + n;
}

static char *
put_text(char *d, const char *before, const struct db_text *t)
{
	return put(escape(put(d, before), t->ptr, t->len), "'");
}

/* Room for a statement of n octets. */
static int
text_reserve(struct db *db, size_t n)
{
	if (db->text_cap >= n)
		return 0;
	free(db->text);
	db->text = malloc(n);
	db->text_cap = db->text ? n : 0;
	return db->text ? 0 : -1;
}

/* Too large for one statement, or for one row a recipient. */
static int
is_large(const struct db *db, const struct db_mail *m)
{
	return m->col.rows > BATCH_ROWS || (m->col.rows > 1 && m->size > BATCH_BYTES) ||
	    m->size > db->packet / 2 - SLACK;
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

/* The rows of the first mails as text; its length, or 0 where there is no memory. */
static size_t
text_rows(struct db *db, size_t mails)
{
	struct db_mail *m = db->first;
	struct db_text f[PARAMS];
	size_t i, k;
	char *d;

	if (text_reserve(db, 2 * db->size + SLACK) == -1)
		return 0;
	d = put(db->text, db->insert);
	for (; mails > 0; mails--, m = m->next)
		for (i = 0; i < m->col.rows; i++) {
			row_of(m, i, f);
			*d++ = '(';
			for (k = 0; k < PARAMS; k++)
				d = put_text(d, k == HASH ? ",0,'" : k ? ",'" : "'", &f[k]);
			d = put(d, "),");
		}
	return (size_t)(d - db->text) - 1;
}

/* "SET @m='...'" or "SET @m=CONCAT(@m,'...')" for the next octets of a large mail. */
static size_t
text_piece(struct db *db, const struct db_text *t, const char *set, const char *append)
{
	size_t packet = db->packet < PACKET_MAX ? db->packet : PACKET_MAX, n = packet / 2 - SLACK;
	char *d;

	if (n > t->len - db->at_octet)
		n = t->len - db->at_octet;
	if (text_reserve(db, 2 * n + SLACK) == -1)
		return 0;
	d = escape(put(db->text, db->at_octet ? append : set), t->ptr + db->at_octet, n);
	d = put(d, db->at_octet ? "')" : "'");
	if ((db->at_octet += n) == t->len) {
		db->part++;
		db->at_octet = 0;
	}
	return (size_t)(d - db->text);
}

/*
 * The next statement of a large mail: its octets travel once, in pieces, into
 * variables of the session, and one INSERT makes the rows from those. It alone
 * commits. Where a variable is not what was sent that INSERT finds no row to
 * store, which the count of rows then tells.
 */
static size_t
text_large(struct db *db)
{
	const struct db_columns *c = &db->first->col;
	struct db_text date = { db->first->date, strlen(db->first->date) };
	size_t i, n = 2 * SLACK + db->insert_len;
	char *d;

	if (db->part == P_MAIL)
		return text_piece(db, &c->mail, "SET @m='", "SET @m=CONCAT(@m,'");
	if (db->part == P_BODY)
		return text_piece(db, &c->body, "SET @b='", "SET @b=CONCAT(@b,'");
	db->part = P_NONE;
	n += 2 * (c->from.len + c->subject.len + c->charset.len + c->content_type.len);
	for (i = 0; i < c->rows; i++)
		n += 2 * (c->row[i].to.len + c->row[i].hash.len + c->row[i].recipient.len) + ROW_SLACK;
	if (text_reserve(db, n) == -1)
		return 0;
	n = db->insert_len - strlen(VALUES);
	d = (char *)memcpy(db->text, db->insert, n) + n;
	d = put_text(d, "SELECT '", &date);
	d = put_text(d, ",'", &c->from);
	d = put_text(d, ",v.t,'", &c->subject);
	d = put_text(d, ",@b,'", &c->charset);
	d = put_text(d, ",@m,0,v.h,'", &c->content_type);
	d = put(d, ",v.r FROM (");
	for (i = 0; i < c->rows; i++) {
		d = put_text(d, i ? " UNION ALL SELECT '" : "SELECT '", &c->row[i].to);
		d = put_text(d, i ? ",'" : " t,'", &c->row[i].hash);
		d = put_text(d, i ? ",'" : " h,'", &c->row[i].recipient);
		d = put(d, i ? "" : " r");
	}
	d += sprintf(d, ") v WHERE LENGTH(@m)=%zu AND LENGTH(@b)=%zu", c->mail.len, c->body.len);
	return (size_t)(d - db->text);
}

/* ---- the client libraries: one call under way, never one that waits ---- */

static int
descriptor(const struct db *db)
{
	/* After an error the number may be another descriptor's: none is believed then. */
	if (db->my == NULL || db->failed)
		return -1;
#ifdef MARIADB_PACKAGE_VERSION_ID
	return mysql_get_socket(db->my);
#else
	return db->my->net.vio ? db->my->net.fd : -1;
#endif
}

static void
call(struct db *db, enum call what)
{
	if (what == QUERY && db->result) {
		mysql_free_result(db->result);
		db->result = NULL;
	}
	db->call = what;
	db->begun = db->failed = 0;
	if (what != PREPARE && what != EXECUTE)
		db->used = NULL;
}

static void
query(struct db *db, const char *sql, size_t len)
{
	db->sql = sql;
	db->sql_len = len;
	call(db, QUERY);
}

/* The error of the call that failed. */
static unsigned
error_of(const struct db *db)
{
	return db->used ? mysql_stmt_errno(db->used) : mysql_errno(db->my);
}

#ifdef MARIADB_PACKAGE_VERSION_ID
/* Goes on with the call; ready: DB_*, or -1 to end it. 1: it is over, see failed; 0: it waits. */
static int
step(struct db *db, int ready)
{
	const struct db_config *c = &db->conf;
	const struct host *h = &db->host[db->at];
	MYSQL *my = db->my, *connected = NULL;
	int first = !db->begun, error = 0;

	if (ready == 0 && db->begun)
		return 0;
	ready = ready == -1 ? MYSQL_WAIT_TIMEOUT : (ready & DB_READ ? MYSQL_WAIT_READ : 0) |
	    (ready & DB_WRITE ? MYSQL_WAIT_WRITE : 0);
	db->begun = 1;
	switch (db->call) {
	case CONNECT:
		db->waits = first ? mysql_real_connect_start(&connected, my, h->name,
		    *c->user ? c->user : NULL, *c->pass ? c->pass : NULL,
		    *c->name ? c->name : NULL, h->port, h->socket, 0) :
		    mysql_real_connect_cont(&connected, my, ready);
		error = connected == NULL;
		break;
	case QUERY:
		db->waits = first ? mysql_real_query_start(&error, my, db->sql, db->sql_len) :
		    mysql_real_query_cont(&error, my, ready);
		break;
	case RESULT:
		db->waits = first ? mysql_store_result_start(&db->result, my) :
		    mysql_store_result_cont(&db->result, my, ready);
		error = db->waits == 0 && db->result == NULL;
		break;
	case PREPARE:
		db->waits = first ? mysql_stmt_prepare_start(&error, db->used, db->sql, db->sql_len) :
		    mysql_stmt_prepare_cont(&error, db->used, ready);
		break;
	case EXECUTE:
		db->waits = first ? mysql_stmt_execute_start(&error, db->used) :
		    mysql_stmt_execute_cont(&error, db->used, ready);
		break;
	case NONE:
		return 1;
	}
	if (db->waits)
		return 0;
	db->call = NONE;
	db->failed = error;
	return 1;
}

static int
wants(const struct db *db)
{
	return (db->waits & MYSQL_WAIT_READ ? DB_READ : 0) |
	    (db->waits & MYSQL_WAIT_WRITE ? DB_WRITE : 0);
}

#define POLL_MS -1
#define PLAIN 0

#else
/*
 * Oracle's does not say what it waits for: room, where there is none, else an
 * answer. What that misses a timer finds.
 */
static int
step(struct db *db, int ready)
{
	const struct host *h = &db->host[db->at];
	const char *user = *db->conf.user ? db->conf.user : NULL;
	const char *pass = *db->conf.pass ? db->conf.pass : NULL;
	const char *name = *db->conf.name ? db->conf.name : NULL;
	enum net_async_status status = NET_ASYNC_COMPLETE;
	struct pollfd p;

	(void)ready;
	db->begun = 1;
	switch (db->call) {
	case CONNECT:
		/* Where it does not wait it often loses what a server said that refuses and hangs up. */
		if (db->may_wait)
			status = mysql_real_connect(db->my, h->name, user, pass, name, h->port, h->socket,
			    0) ? NET_ASYNC_COMPLETE : NET_ASYNC_ERROR;
		else
			status = mysql_real_connect_nonblocking(db->my, h->name, user, pass, name, h->port,
			    h->socket, 0);
		break;
	case QUERY:
		status = mysql_real_query_nonblocking(db->my, db->sql, db->sql_len);
		break;
	case RESULT:
		status = mysql_store_result_nonblocking(db->my, &db->result);
		break;
	default:
		return 1;
	}
	if (status == NET_ASYNC_NOT_READY) {
		p.fd = descriptor(db);
		p.events = POLLOUT;
		db->waits = p.fd != -1 && poll(&p, 1, 0) == 1 ? DB_READ : DB_WRITE;
		return 0;
	}
	db->failed = status == NET_ASYNC_ERROR || (db->call == RESULT && db->result == NULL);
	db->call = NONE;
	return 1;
}

static int
wants(const struct db *db)
{
	return db->waits;
}

#define POLL_MS 20
#define PLAIN 1			/* this library executes what is prepared only while one waits */
#endif

static void
hang_up(struct db *db)
{
	size_t i;
	int fd;

	if (db->my == NULL)
		return;
	if (db->call != NONE && db->begun && (fd = descriptor(db)) != -1)
		shutdown(fd, SHUT_RDWR);	/* so that closing has nothing to wait for */
#ifdef MARIADB_PACKAGE_VERSION_ID
	/* A call that is dropped half-way keeps what it holds, so it has to end. */
	while (db->call != NONE && db->begun && !step(db, -1))
		;
#endif
	mysql_close(db->my);
	db->my = NULL;
	for (i = 0; i <= BATCH_ROWS; i++)	/* after it, so that no statement is told */
		if (db->stmt[i])
			mysql_stmt_close(db->stmt[i]);
	memset(db->stmt, 0, sizeof(db->stmt));
	db->used = NULL;
	db->call = NONE;
	db->failed = 0;
	if (db->result)
		mysql_free_result(db->result);
	db->result = NULL;
}

/* ---- connecting ---- */

/* Back to AWAY, and on to the next host where this one is to blame. */
static void
lose(struct db *db, int next)
{
	hang_up(db);
	if (db->state >= IDLE && db->now - db->up_since > STEADY_MS)
		db->attempts = 0;
	if (db->attempts == 0)
		db->away_since = db->now;
	db->state = AWAY;
	db->again_at = 0;
	db->clear = 0;
	begin_anew(db);
	if (next)
		db->at = (db->at + 1) % db->nhosts;
	db->retry_at = db->now;
	if (db->attempts > 0 && db->attempts % db->nhosts == 0) {
		unsigned round = (unsigned)(db->attempts / db->nhosts) - 1;

		db->retry_at += round < 5 ? BACKOFF_MS << round : BACKOFF_MAX;
	}
}

static void
connect_next(struct db *db)
{
	unsigned off = 0;

	if ((db->my = mysql_init(NULL)) == NULL) {
		db->retry_at = db->now + BACKOFF_MAX;
		return;
	}
#ifdef MARIADB_PACKAGE_VERSION_ID
	mysql_options(db->my, MYSQL_OPT_NONBLOCK, 0);
#else
	unsigned seconds = 2;	/* it waits where the server wants another authentication plugin */

	mysql_options(db->my, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
	mysql_options(db->my, MYSQL_OPT_READ_TIMEOUT, &seconds);
	mysql_options(db->my, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
#endif
	mysql_options(db->my, MYSQL_READ_DEFAULT_GROUP, "smtpd");
	mysql_options(db->my, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	mysql_options(db->my, MYSQL_OPT_LOCAL_INFILE, &off);
	db->attempts++;
	db->state = CONNECTING;
	db->until = db->now + CONNECT_MS;
	call(db, CONNECT);
}

/* The connection could not be made, or not be used. */
static void
connect_failed(struct db *db)
{
	unsigned error = db->failed ? error_of(db) : 2013;
	const struct known *k = look_up(error);

	news(db, error, db->failed ? mysql_error(db->my) : "no answer", k->hint);
	lose(db, 1);
	/* A network heals by itself; a wrong password does not while these mails wait. */
	db->hopeless = *k->hint && k->verdict == MEND && db->attempts % db->nhosts == 0;
	if (db->hopeless)
		settle(db, db->mails, DB_LOST);
}

/* What a session must be like whatever the server's defaults are. */
static void
set_up(struct db *db)
{
	int lock = db->conf.timeout > 6 ? db->conf.timeout - 5 : 1;
	int n;

	/*
	 * Text is valid UTF-8 already; as octets it costs the server a quarter less. autocommit
	 * that goes from 0 to 1 ends a transaction which init_connect has begun. The server
	 * gives up on a lock before we do, so that it does not store later.
	 */
	n = snprintf(db->setup, sizeof(db->setup), "SET NAMES binary,sql_mode='STRICT_ALL_TABLES',"
	    "time_zone='+00:00',autocommit=0,autocommit=1,lock_wait_timeout=%d,"
	    "innodb_lock_wait_timeout=%d", lock, lock);
	db->id = mysql_thread_id(db->my);
	db->state = SETTING;
	query(db, db->setup, (size_t)n);
}

static void
connected(struct db *db)
{
	MYSQL_ROW row = mysql_fetch_row(db->result);

	db->packet = row && row[0] ? strtoul(row[0], NULL, 10) : PACKET_MIN;
	if (db->packet < 4 * SLACK)
		db->packet = 4 * SLACK;
	db->state = IDLE;
	db->plain = PLAIN;
	db->up_since = db->now;
	db->hopeless = 0;
	/* Where it is storing that fails, connecting is no news. */
	if (db->trouble == CONNECT || (db->trouble == NONE && db->was != db->at)) {
		news(db, 0, "connected", mysql_get_server_info(db->my));
		db->trouble = NONE;
	}
	db->was = db->at;
}

/* ---- sending ---- */

#if PLAIN == 0
/* The rows of the first mails as parameters, of a statement that may have to be prepared first. */
static int
send_prepared(struct db *db, size_t mails)
{
	struct db_mail *m = db->first;
	struct db_text f[PARAMS];
	MYSQL_BIND *b = db->bind;
	MYSQL_STMT **stmt = &db->stmt[db->rows];
	size_t i, k;

	if (*stmt == NULL) {
		if ((*stmt = mysql_stmt_init(db->my)) == NULL ||
		    text_reserve(db, db->insert_len + db->rows * strlen(MARKS) + 1) == -1)
			return -1;
		put(db->text, db->insert);
		for (i = 0; i < db->rows; i++)
			put(db->text + db->insert_len + i * strlen(MARKS), MARKS);
		query(db, db->text, db->insert_len + i * strlen(MARKS) - 1);
		call(db, PREPARE);
		db->used = *stmt;
		db->state = PREPARING;
		return 0;
	}
	for (; mails > 0; mails--, m = m->next)
		for (i = 0; i < m->col.rows; i++) {
			row_of(m, i, f);
			for (k = 0; k < PARAMS; k++, b++) {
				b->buffer_type = MYSQL_TYPE_STRING;
				b->buffer = (void *)(uintptr_t)f[k].ptr;
				b->buffer_length = (unsigned long)f[k].len;
				b->length = &b->buffer_length;
			}
		}
	if (mysql_stmt_bind_param(*stmt, db->bind) != 0)
		return -1;
	call(db, EXECUTE);
	db->used = *stmt;
	return 0;
}
#else
static int
send_prepared(struct db *db, size_t mails)
{
	(void)db, (void)mails;
	return -1;
}
#endif

/* Sends what is due on an idle connection; 0: nothing is. */
static int
send_next(struct db *db)
{
	struct db_mail *m = db->first;
	size_t limit = db->packet / 2 - SLACK, n, len;

	db->until = db->now + (db->conf.timeout * 1000LL < FLIGHT_MS ?
	    db->conf.timeout * 1000LL : FLIGHT_MS);
	if (db->clear) {
		db->state = CLEARING;
		query(db, "SET @m=NULL,@b=NULL", 19);
		return 1;
	}
	if (m == NULL || db->now < db->again_at)
		return 0;
	db->rows = db->size = 0;
	if (limit > BATCH_BYTES)
		limit = BATCH_BYTES;
	for (n = 0; m && n < (db->bad ? (db->bad + 1) / 2 : BATCH_ROWS) && !is_large(db, m); n++) {
		if (n > 0 && (db->rows + m->col.rows > BATCH_ROWS || db->size + m->size > limit))
			break;
		db->rows += m->col.rows;
		db->size += (size_t)m->size;
		m = m->next;
	}
	db->state = STORING;
	db->sent = n ? n : 1;
	if (db->until < db->first->deadline)
		db->until = db->first->deadline;
	if (n == 0)
		db->rows = db->first->col.rows;
	else if (!db->plain && send_prepared(db, n) == 0)
		return 1;
	/* A mail that came when the server took more is too large to be made again. */
	len = db->first->col.mail.len > db_max_mail(db) ? db->packet :
	    n ? text_rows(db, n) : text_large(db);
	if (len == 0 || len >= db->packet) {
		news(db, len ? 1153 : 2008, len ? "max_allowed_packet is smaller than a mail that "
		    "waits" : "no memory for a statement", "");
		db->state = IDLE;
		settle(db, db->sent, DB_LOST);
		return send_next(db);
	}
	query(db, db->text, len);
	return 1;
}

/* ---- answers ---- */

static void
statement_failed(struct db *db)
{
	unsigned error = error_of(db);
	const char *text = db->used ? mysql_stmt_error(db->used) : mysql_error(db->my);
	const char *state = db->used ? mysql_stmt_sqlstate(db->used) : mysql_sqlstate(db->my);
	const struct known *k = look_up(error);
	enum verdict verdict = k->verdict;
	enum db_status status = DB_LOST;
	enum call trouble = db->trouble;
	size_t len = strlen(text);

	db->failed = 0;
	db->state = IDLE;
	if (error == 1062 && len > 8 && strcmp(text + len - 8, "PRIMARY'") == 0)
		k = look_up(1467);
	else if (k->error == 0 && (error == 1366 || strncmp(state, "22", 2) == 0)) {
		/* All text was made to fit: where it does not the table is at fault, so no 554. */
		k = look_up(1054);
		verdict = ROW;
	} else if (verdict == ROW || strncmp(state, "45", 2) == 0 ||
	    (k->error == 0 && strncmp(state, "23", 2) == 0)) {
		verdict = ROW;
		status = DB_REFUSED;
	}
	if (verdict == ROW && db->sent > 1) {
		db->bad = db->sent;
		return;
	}
	if (verdict == AGAIN) {
		db->again_at = db->now + AGAIN_MS;
		begin_anew(db);
		return;
	}
	news(db, error, text, status == DB_REFUSED ? "" : k->hint);
	if (status == DB_REFUSED)
		db->trouble = trouble;	/* is the mail's, not the database's */
	if (verdict != ELSEWHERE)
		settle(db, db->sent, status);
	if (verdict == ELSEWHERE || (error >= 2000 && error < 3000))
		lose(db, 1);
}

static void
statement_done(struct db *db)
{
	if (mysql_thread_id(db->my) != db->id) {
		/* A library that reconnected by itself: what it sent where is not known. */
		news(db, 2013, "lost the connection", "");
		settle(db, db->sent, DB_LOST);
		lose(db, 0);
		return;
	}
	if (db->my->server_status & SERVER_STATUS_IN_TRANS) {
		/* An OK without a commit: somebody between us has begun a transaction. */
		news(db, 2027, "a transaction is open, so nothing is committed", "");
		settle(db, db->sent, DB_LOST);
		lose(db, 0);
		return;
	}
	db->state = IDLE;
	if (is_begun(db) && db->part != P_NONE)
		return;
	if ((db->used ? mysql_stmt_affected_rows(db->used) : mysql_affected_rows(db->my)) !=
	    db->rows) {
		news(db, 2027, "stored other rows than were sent", "");
		settle(db, db->sent, DB_LOST);
		return;
	}
	db->statements++;
	db->attempts = 0;
	db->plain = PLAIN;
	if (db->trouble != NONE)
		news(db, 0, "storing again", "");
	db->trouble = NONE;
	settle(db, db->sent, DB_STORED);	/* from here on these mails are safe */
}

/* The call under way is over. */
static void
finished(struct db *db)
{
	static const char packet[] = "SELECT @@max_allowed_packet";

	if (db->failed && db->state < IDLE)
		connect_failed(db);
	else if (db->failed && db->state == STORING)
		statement_failed(db);
	else if (db->failed && db->state == PREPARING && (error_of(db) < 2000 || error_of(db) > 2999)) {
		/* Whatever is wrong, the same as text will tell, or do. */
		db->plain = 1;
		db->state = IDLE;
	} else if (db->failed)
		lose(db, 0);
	else switch (db->state) {
	case CONNECTING:
		set_up(db);
		break;
	case SETTING:
		db->state = ASKING;
		query(db, packet, sizeof(packet) - 1);
		break;
	case ASKING:
		db->state = READING;
		call(db, RESULT);
		break;
	case READING:
		connected(db);
		break;
	case STORING:
		statement_done(db);
		break;
	case CLEARING:
		db->clear = 0;
		db->state = IDLE;
		break;
	default:
		db->state = IDLE;
	}
	if (db->state == IDLE) {
		free(db->text);
		db->text = NULL;
		db->text_cap = 0;
	}
}

/* The call under way takes too long: the server hangs. */
static void
late(struct db *db)
{
	if (db->state < IDLE) {
		connect_failed(db);
		return;
	}
	news(db, 2013, "no answer", "");
	if (db->state == STORING)
		settle(db, db->sent, DB_LOST);
	lose(db, 1);
}

/* ---- what the caller's loop calls ---- */

/* What it waits for, DB_READ | DB_WRITE, and where; 0: for nothing. */
static int
waits_on(const struct db *db, int *fd)
{
#ifndef MARIADB_PACKAGE_VERSION_ID
	if (db->state == CONNECTING)
		return 0;
#endif
	if ((*fd = descriptor(db)) == -1)
		return 0;
	/* Idle: the server may hang up. */
	return db->state == IDLE ? DB_READ : db->call != NONE && db->begun ? wants(db) : 0;
}

void
db_watch(const struct db *db, fd_set *r, fd_set *w, int *max)
{
	int fd, what = waits_on(db, &fd);

	if (what & DB_READ)
		FD_SET(fd, r);
	if (what & DB_WRITE)
		FD_SET(fd, w);
	if (what && fd > *max)
		*max = fd;
}

long
db_timeout(const struct db *db)
{
	long long now = clock_ms(), at;

	if (db->done)
		return 0;	/* db_done() has something */
	if (db->state == AWAY)
		at = db->retry_at;
	else if (db->state == IDLE && !db->clear && db->first == NULL)
		return -1;
	else if (db->state == IDLE)
		at = db->again_at;
	else if (!db->begun)
		at = now;
	else {
		at = db->until;
		if (POLL_MS >= 0 && at > now + POLL_MS)
			at = now + POLL_MS;
	}
	if (db->state < STORING && db->first && db->first->deadline < at)
		at = db->first->deadline;
	return at <= now ? 0 : at - now > INT_MAX ? INT_MAX : (long)(at - now);
}

/* Goes on with what is ready, DB_*, and whatever is due. */
static void
run(struct db *db, int ready)
{
	db->now = clock_ms();
	for (;; ready = 0) {
		while (db->state != STORING && db->first && db->first->deadline <= db->now)
			settle(db, 1, DB_LOST);
		if (db->state == AWAY) {
			if (db->now >= db->retry_at)
				connect_next(db);
			if (db->state == AWAY)
				return;
		} else if (db->state == IDLE) {
			if (ready & DB_READ)	/* unasked: it hangs up */
				lose(db, 0);
			else if (!send_next(db))
				return;
		} else if (step(db, ready))
			finished(db);
		else if (db->now < db->until)
			return;
		else
			late(db);
	}
}

void
db_run(struct db *db, const fd_set *r, const fd_set *w)
{
	int fd, what = waits_on(db, &fd);

	run(db, r == NULL || what == 0 ? 0 : (FD_ISSET(fd, r) ? DB_READ : 0) |
	    (FD_ISSET(fd, w) ? DB_WRITE : 0));
}

struct db_mail *
db_done(struct db *db)
{
	struct db_mail *m = db->done;

	if (m && (db->done = m->next) == NULL)
		db->done_end = &db->done;
	return m;
}

size_t
db_held(const struct db *db)
{
	return db->text_cap + (db->call == EXECUTE ? db->size : 0);	/* the library makes a copy */
}

size_t
db_max_mail(const struct db *db)
{
	return db->packet ? db->packet - SLACK : SIZE_MAX;
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
	snprintf(h->text, sizeof(h->text), "%s", *s ? s : "localhost");
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
	h->name = *s ? s : NULL;
}

struct db *
db_new(const struct db_config *conf)
{
	static const char words[] = INTO "`` (" COLUMNS ") " VALUES;
	struct db *db = calloc(1, sizeof(*db));
	const char *p;
	char *d, *s;

	if (db == NULL)
		return NULL;
	db->conf = *conf;
	db->end = &db->first;
	db->done_end = &db->done;
	db->was = SIZE_MAX;
	db->now = db->away_since = clock_ms();
	for (p = conf->hosts, db->nhosts = 1; *p; p++)
		db->nhosts += *p == ',';
	db->hosts = malloc((size_t)(p - conf->hosts) + 1);
	db->host = malloc(db->nhosts * sizeof(*db->host));
	db->insert = malloc(sizeof(words) + 2 * strlen(conf->table));
	if (db->hosts == NULL || db->host == NULL || db->insert == NULL) {
		db_free(db);
		return NULL;
	}
	memcpy(db->hosts, conf->hosts, (size_t)(p - conf->hosts) + 1);
	for (s = db->hosts, db->nhosts = 0; s; s = d) {
		s += strspn(s, " \t");
		if ((d = strchr(s, ',')) != NULL)
			*d++ = '\0';
		s[strcspn(s, " \t")] = '\0';
		host_parse(&db->host[db->nhosts++], s);
	}
	for (d = put(db->insert, INTO "`"), p = conf->table; *p; *d++ = *p++)
		if (*p == '`')
			*d++ = '`';
	db->table_len = (size_t)(d - db->insert) + 1 - strlen(INTO);
	d = put(d, "` (" COLUMNS ") " VALUES);
	*d = '\0';
	db->insert_len = (size_t)(d - db->insert);
	return db;
}

void
db_free(struct db *db)
{
	if (db == NULL)
		return;
	hang_up(db);
	free(db->text);
	free(db->insert);
	free(db->host);
	free(db->hosts);
	free(db);
}

/* ---- the check at start: here it is right to wait ---- */

/* Each column: what is written to it, how wide, what schema.sql makes it. */
enum kind { NUMBER, DATE, ASCII, LETTERS, OCTETS };
#define UTF8MB4 " CHARACTER SET utf8mb4"

static const struct column {
	const char *name;
	enum kind kind;
	unsigned long chars, octets;	/* that it must hold */
	const char *type;
} columns[] = {
	{ "mail_id", NUMBER, 0, 0, "bigint unsigned NOT NULL AUTO_INCREMENT" },
	{ "date", DATE, 0, 0, "datetime NOT NULL" },
	{ "from", LETTERS, ADDRESS_CHARS, 4 * ADDRESS_CHARS, "varchar(320)" UTF8MB4 " NOT NULL" },
	{ "to", LETTERS, ADDRESS_CHARS, 4 * ADDRESS_CHARS, "varchar(320)" UTF8MB4 " NOT NULL" },
	{ "subject", LETTERS, 0, SUBJECT_BYTES, "text" UTF8MB4 " NOT NULL" },
	{ "body", LETTERS, 0, BODY_BYTES, "mediumtext" UTF8MB4 " NOT NULL" },
	{ "charset", LETTERS, CHARSET_CHARS, 0, "varchar(64)" UTF8MB4 " NOT NULL" },
	{ "mail", OCTETS, 0, 0, "longblob NOT NULL" },
	{ "spam_score", NUMBER, 0, 0, "float NOT NULL" },
	{ "hash", ASCII, HASH_CHARS, 0, "char(32) NOT NULL" },
	{ "content_type", LETTERS, TYPE_CHARS, 0, "varchar(128)" UTF8MB4 " NOT NULL" },
	{ "recipient", LETTERS, ADDRESS_CHARS, 4 * ADDRESS_CHARS,
	    "varchar(320)" UTF8MB4 " NOT NULL" },
};

#define NCOLUMNS (sizeof(columns) / sizeof(columns[0]))

/* What smtpd.c's loop does for this connection: waits, and says what it is ready for. */
static int
wait_ready(struct db *db)
{
	struct pollfd p;
	int want = waits_on(db, &p.fd);
	long ms = db_timeout(db);

	p.events = (short)((want & DB_READ ? POLLIN : 0) | (want & DB_WRITE ? POLLOUT : 0));
	if (poll(&p, want != 0, ms < 0 ? 1000 : (int)ms) != 1)
		return 0;
	return p.revents & (POLLERR | POLLHUP) ? want :
	    (p.revents & POLLIN ? DB_READ : 0) | (p.revents & POLLOUT ? DB_WRITE : 0);
}

/* A statement's answer, into db->result where it has one: 0, or the error. */
static unsigned
ask(struct db *db, const char *sql, int rows)
{
	enum call todo = QUERY;
	int ready = 0;

	db->until = clock_ms() + CONNECT_MS;
	query(db, sql, strlen(sql));
	while (clock_ms() < db->until) {
		if (!step(db, ready)) {
			ready = wait_ready(db);
			continue;
		}
		if (db->failed)
			return mysql_errno(db->my);
		if (todo == RESULT || !rows)
			return 0;
		call(db, todo = RESULT);	/* it may be here already: not to be waited for */
	}
	return 2013;
}

/*
 * Whether the column is as wide as what is written to it. row: DATA_TYPE,
 * CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH, CHARACTER_SET_NAME, EXTRA.
 */
static int
column_holds(const struct column *c, char **row, size_t max_size)
{
	unsigned long chars = row[1] ? strtoul(row[1], NULL, 10) : 0;
	unsigned long octets = row[2] ? strtoul(row[2], NULL, 10) : 0;

	switch (c->kind) {
	case DATE:
		return strcmp(row[0], "datetime") == 0 || strcmp(row[0], "timestamp") == 0;
	case ASCII:
		return row[3] && chars >= c->chars;
	case LETTERS:
		return row[3] && chars >= c->chars && octets >= c->octets &&
		    strcmp(row[3], "utf8mb4") == 0;
	case OCTETS:		/* the trace fields are not counted in max_size */
		return row[3] == NULL && octets >= max_size && octets - max_size >= 65535;
	default:
		return c != columns || strstr(row[4], "auto_increment") != NULL;
	}
}

/* The ALTER TABLE that mends what is wrong with the columns, "" where nothing is. 0 or an error. */
static unsigned
check_columns(struct db *db, const char *table, const char *from, char *why, size_t cap)
{
	char sql[1024], alter[400], what[NCOLUMNS];
	MYSQL_ROW row;
	unsigned error;
	size_t i, len = 0;

	memset(what, 'A', sizeof(what));
	snprintf(sql, sizeof(sql), "SELECT DATA_TYPE,CHARACTER_MAXIMUM_LENGTH,"
	    "CHARACTER_OCTET_LENGTH,CHARACTER_SET_NAME,LOWER(EXTRA),COLUMN_NAME,COLUMN_TYPE,"
	    "IS_NULLABLE='NO' AND COLUMN_DEFAULT IS NULL FROM information_schema.COLUMNS%s", from);
	if ((error = ask(db, sql, 1)) != 0)
		return error;
	why[0] = '\0';
	snprintf(alter, sizeof(alter), "table %s cannot keep every mail:"
	    " ALTER TABLE %s", table, table);
	while ((row = mysql_fetch_row(db->result)) != NULL && len < cap) {
		for (i = 0; i < NCOLUMNS && strcmp(columns[i].name, row[5]) != 0; i++)
			;
		if (i < NCOLUMNS)
			what[i] = column_holds(&columns[i], row, db->conf.max_size) ? '\0' : 'M';
		else if (row[7][0] == '1' && strstr(row[4], "auto_increment") == NULL &&
		    strstr(row[4], "generated") == NULL)
			len += (size_t)snprintf(why + len, cap - len, "%s MODIFY `%s` %s NULL",
			    len ? "," : alter, row[5], row[6]);
	}
	for (i = 0; i < NCOLUMNS && len < cap; i++)
		if (what[i])
			len += (size_t)snprintf(why + len, cap - len, "%s %s `%s` %s%s",
			    len ? "," : alter, what[i] == 'A' ? "ADD" : "MODIFY",
			    columns[i].name, columns[i].type,
			    what[i] == 'A' && i == 0 ? " PRIMARY KEY" : "");
	return 0;
}

/* What db_check() says of a connection that has been tried. */
static int
check(struct db *db, char *why, size_t cap)
{
	static const char nothing[] = "SELECT '1970-01-01','','','','','','',0,'','','' FROM DUAL"
	    " WHERE 1=0";
	char table[2 * NAME_CHARS + 3], from[256], sql[1024], *d;
	MYSQL_ROW row;
	unsigned error;
	size_t n = strlen(db->conf.table), len = db->insert_len - strlen(VALUES);
	const struct known *k;

	if (db->state != IDLE) {
		snprintf(why, cap, "%s", db->news);
		return db->hopeless ? -1 : 1;
	}
	if (n > NAME_CHARS) {
		snprintf(why, cap, "GM_MAIL_TABLE: a name has %d characters at most", NAME_CHARS);
		return -1;
	}
	snprintf(table, sizeof(table), "%.*s", (int)db->table_len, db->insert + strlen(INTO));
	d = put(from, " WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME=_utf8mb4'");
	*put(escape(d, db->conf.table, n), "'") = '\0';
	snprintf(sql, sizeof(sql), "SELECT t.ENGINE,e.TRANSACTIONS FROM information_schema.TABLES t"
	    " LEFT JOIN information_schema.ENGINES e ON e.ENGINE=t.ENGINE%s", from);
	if ((error = ask(db, sql, 1)) != 0)
		goto failed;
	if ((row = mysql_fetch_row(db->result)) != NULL) {
		if (row[1] == NULL || strcmp(row[1], "YES") != 0) {
			snprintf(why, cap, "table %s has no transactions: ALTER TABLE %s"
			    " ENGINE=InnoDB", table, table);
			return -1;
		}
		if ((error = check_columns(db, table, from, why, cap)) != 0)
			goto failed;
		if (*why)
			return -1;
	}
	if (db->packet < PACKET_MIN) {
		snprintf(why, cap, "max_allowed_packet is %zu: SET GLOBAL max_allowed_packet="
		    "16777216, and in the server's configuration", db->packet);
		return -1;
	}
	/* Nothing is stored, but the server checks all that it would check of a row. */
	memcpy(sql, db->insert, len);
	strcpy(sql + len, nothing);
	if ((error = ask(db, sql, 0)) != 0)
		goto failed;
	snprintf(why, cap, "%s %s, table %s, mails of %zu octets at most", db->host[db->at].text,
	    mysql_get_server_info(db->my), table, db_max_mail(db));
	return 0;
failed:
	k = look_up(error);
	say(db, why, cap, error, db->failed ? mysql_error(db->my) : "no answer", k->hint);
	return k->verdict == MEND && error < 2000 ? -1 : 1;
}

int
db_check(const struct db_config *conf, char *why, size_t cap)
{
	struct db *db = db_new(conf);
	int status, ready;

	if (db == NULL) {
		snprintf(why, cap, "no memory");
		return 1;
	}
	db->may_wait = 1;
	for (ready = 0; ; ready = wait_ready(db)) {
		run(db, ready);
		if (db->state == IDLE || (db->state == AWAY && db->attempts >= db->nhosts))
			break;
	}
	status = check(db, why, cap);
	db_free(db);
	return status;
}
