/*
 * db.c - the only file that knows MySQL
 *
 * A mail becomes SQL the moment it is added: its rows are appended to the last
 * of a queue of batches, a batch being the octets of one INSERT. While one
 * INSERT is at the server the next batch fills, so the slower the commits the
 * more mails share one. InnoDB makes a statement atomic, so nothing here ever
 * says BEGIN.
 *
 * Whatever goes wrong, a mail is DB_STORED only after the server said so on the
 * connection that sent it. In every other case somebody tries again, and a
 * duplicate beats a loss (RFC 5321 6.1).
 *
 * To read: batches and rows, the client libraries, connecting, sending,
 * answers, db_run(), the check at start.
 */
#define _POSIX_C_SOURCE 200809L

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

#define BATCH_MAILS 128
#define BATCH_BYTES ((size_t)1 << 20)	/* a larger mail has its batch to itself */
#define KEEP_BYTES (2 * BATCH_BYTES)	/* a buffer grown past it is freed */
#define SPARES 2			/* empty batches kept: one fills while one is sent */
#define PACKET_MIN ((size_t)1 << 20)	/* least max_allowed_packet, taken for granted */
#define PACKET_MAX ((size_t)8 << 20)	/* largest piece of a mail sent in pieces, escaped */
#define SLACK 1024			/* octets of a statement around a mail, at most */
#define ROW_SLACK 128			/* octets of a row besides its columns' */
#define CONNECT_MS 5000			/* one host, until it may be written to */
#define FLIGHT_MS 10000			/* a statement's own time, however late its mails */
#define STEADY_MS 10000			/* a connection this old was a good one */
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

enum state {
	AWAY,			/* until retry_at */
	CONNECTING,
	SETTING,		/* the session's variables */
	ASKING,			/* for max_allowed_packet */
	READING,		/* the answer to that */
	IDLE,
	STORING,		/* the first `sent` mails of the oldest batch, or a piece of one */
	CLEARING		/* the variables that held a large mail */
};

enum call { NONE, CONNECT, QUERY, RESULT };

/*
 * In buf: room for the words before VALUES, then the rows of each mail, whose
 * start and len say where. In pieces: statements, each after its length.
 */
struct batch {
	struct batch *next;
	struct db_mail *mail, **end;	/* not yet answered, oldest first */
	size_t mails;
	size_t bad;		/* among the first `bad` at least one is refused */
	size_t pieces, piece, at;	/* how many, the next one, where it is */
	char *buf;
	size_t len, cap;
};

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

	MYSQL *my;
	unsigned long id;	/* the connection's: another one has other variables */
	size_t packet;		/* max_allowed_packet, 0: never connected */
	enum call call;
	int begun, waits, failed;	/* begun: waits is what for, MYSQL_WAIT_* */
	const char *sql;
	size_t sql_len;
	MYSQL_RES *result;
	char setup[256];

	struct batch *first, *last, *spare;
	size_t spares, held, sent, rows;
	int clear;		/* variables of a large mail are still set */
	struct db_mail *done, **done_end;
	unsigned long statements;

	time_t date;
	char date_text[24];
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
	/* Oracle's library, connecting without blocking, for 1044, 1049 and their like. */
	{ 2000, MEND, "check MYSQL_DB, the GRANT to MYSQL_USER, the limits of the server" },
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
		if (*line < ' ' || *line > '~')
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

/* ---- batches and rows ---- */

static void
batch_free(struct db *db, struct batch *b)
{
	if (db->spares < SPARES && b->cap <= KEEP_BYTES) {
		b->next = db->spare;
		db->spare = b;
		db->spares++;
		return;
	}
	free(b->buf);
	free(b);
}

static struct batch *
batch_new(struct db *db)
{
	struct batch *b = db->spare;

	if (b) {
		db->spare = b->next;
		db->spares--;
	} else if ((b = calloc(1, sizeof(*b))) == NULL)
		return NULL;
	b->next = NULL;
	b->mail = NULL;
	b->end = &b->mail;
	b->mails = b->bad = b->pieces = b->piece = b->at = 0;
	b->len = db->insert_len;
	return b;
}

/* Room for n octets more: the most that is needed, so that nothing below has to ask. */
static int
batch_reserve(struct batch *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 65536;
	char *p;

	if (n > SIZE_MAX / 4 || b->len > SIZE_MAX / 4)
		return -1;
	while (cap < b->len + n)
		cap *= 2;
	if (cap == b->cap)
		return 0;
	if ((p = realloc(b->buf, cap)) == NULL)
		return -1;
	b->buf = p;
	b->cap = cap;
	return 0;
}

/*
 * n octets between quotes. Under utf8mb4 no octet of a longer character is a
 * quote or a backslash, and _binary'' takes any octets, so these two are all
 * that need escaping. Eight at a time: x - 0x01.. & ~x & 0x80.. is not 0 where
 * an octet of x is.
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

static char *
put(char *d, const char *s)
{
	size_t n = strlen(s);

	memcpy(d, s, n);
	return d + n;
}

static char *
put_text(char *d, const char *before, struct db_text t)
{
	return escape(put(d, before), t.ptr, t.len);
}

static char *
put_chars(char *d, const char *before, struct db_text t, size_t chars)
{
	return escape(put(d, before), t.ptr, cut(t, chars, 0));
}

static void
set_date(struct db *db, time_t t)
{
	struct tm tm;

	if (t == db->date && db->date_text[0])
		return;
	db->date = t;
	if (gmtime_r(&t, &tm) == NULL || tm.tm_year < 70 || tm.tm_year > 8000 ||
	    strftime(db->date_text, sizeof(db->date_text), "%Y-%m-%d %H:%M:%S", &tm) == 0)
		strcpy(db->date_text, "1970-01-01 00:00:00");
}

/*
 * The rows of a mail at the end of a batch that has room for them, at least as
 * long as the words before VALUES: send_next() writes those over answered mails.
 */
static void
add_rows(struct db *db, struct batch *b, struct db_mail *m, const struct db_columns *c)
{
	const struct db_row *row;
	char *start = b->buf + b->len, *d = start;

	for (row = c->row; row < c->row + c->rows; row++) {
		d = put(put(d, "('"), db->date_text);
		d = put_text(d, "','", c->from);
		d = put_chars(d, "','", row->to, ADDRESS_CHARS);
		d = put_text(d, "','", c->subject);
		d = put_text(d, "','", c->body);
		d = put_text(d, "','", c->charset);
		d = put_text(d, "',_binary'", c->mail);
		d = put_chars(d, "',0,'", row->hash, HASH_CHARS);
		d = put_text(d, "','", c->content_type);
		d = put_chars(d, "','", row->recipient, ADDRESS_CHARS);
		d = put(d, "'),");
	}
	while ((size_t)(d - start) < db->insert_len) {
		d[-1] = ' ';
		*d++ = ',';
	}
	m->start = b->len;
	m->len = (size_t)(d - start);
	b->len += m->len;
}

/* One statement of a large mail: words, octets between quotes, words. */
static void
add_piece(struct batch *b, const char *before, const char *ptr, size_t len, const char *after)
{
	char *start = b->buf + b->len, *d = start + sizeof(len);

	d = put(escape(put(d, before), ptr, len), after);
	len = (size_t)(d - start) - sizeof(len);
	memcpy(start, &len, sizeof(len));
	b->len += sizeof(len) + len;
	b->pieces++;
}

/* Octets into a variable; the first statement sets it, the others add to it. */
static void
add_variable(struct batch *b, const char *set, const char *append, struct db_text t, size_t piece,
    int text)
{
	size_t n = text ? cut(t, piece, 1) : t.len < piece ? t.len : piece;

	add_piece(b, set, t.ptr, n, "'");
	while ((t.len -= n) > 0) {
		t.ptr += n;
		n = text ? cut(t, piece, 1) : t.len < piece ? t.len : piece;
		add_piece(b, append, t.ptr, n, "')");
	}
}

/*
 * A mail too large for one statement, or for one row a recipient: its octets
 * travel once, in pieces, into variables of the session, and one INSERT makes
 * the rows from those. It alone commits. Where a variable is not what was sent
 * that INSERT finds no row to store, which the count of rows then tells.
 */
static void
add_pieces(struct db *db, struct batch *b, const struct db_columns *c, size_t piece)
{
	char *start, *d;
	size_t i;

	b->len = 0;
	add_variable(b, "SET @m=_binary'", "SET @m=CONCAT(@m,_binary'", c->mail, piece, 0);
	add_variable(b, "SET @b='", "SET @b=CONCAT(@b,'", c->body, piece, 1);
	start = b->buf + b->len;
	i = db->insert_len - strlen(VALUES);
	d = (char *)memcpy(start + sizeof(i), db->insert, i) + i;
	d = put_text(put(put(d, "SELECT '"), db->date_text), "','", c->from);
	d = put(put_text(d, "',v.t,'", c->subject), "',@b");
	d = put(put_text(d, ",'", c->charset), "',@m,0,v.h");
	d = put(put_text(d, ",'", c->content_type), "',v.r FROM (SELECT '");
	for (i = 0; i < c->rows; i++) {
		d = put_chars(d, i ? " UNION ALL SELECT '" : "", c->row[i].to, ADDRESS_CHARS);
		d = put_chars(d, i ? "','" : "' t,'", c->row[i].hash, HASH_CHARS);
		d = put_chars(d, i ? "','" : "' h,'", c->row[i].recipient, ADDRESS_CHARS);
		d = put(d, i ? "'" : "' r");
	}
	d += sprintf(d, ") v WHERE LENGTH(@m)=%zu AND LENGTH(@b)=%zu", c->mail.len, c->body.len);
	i = (size_t)(d - start) - sizeof(i);
	memcpy(start, &i, sizeof(i));
	b->len += sizeof(i) + i;
	b->pieces++;
}

enum db_status
db_add(struct db *db, struct db_mail *m, const struct db_columns *given)
{
	struct db_columns c = *given;
	struct batch *b = db->first ? db->last : NULL;
	size_t packet = db->packet ? db->packet : PACKET_MIN, i, room, row, raw, held;
	int large;

	db->now = clock_ms();
	if (c.rows == 0 || db->hopeless || (db->state < IDLE &&
	    db->now - db->away_since > db->conf.timeout * 1000LL))
		return DB_LOST;
	if (c.mail.len > db_max_mail(db))
		return DB_TOO_BIG;
	c.from.len = cut(c.from, ADDRESS_CHARS, 0);
	c.subject.len = cut(c.subject, SUBJECT_BYTES, 1);
	c.body.len = cut(c.body, db_max_mail(db) < BODY_BYTES ? db_max_mail(db) : BODY_BYTES, 1);
	c.charset.len = cut(c.charset, CHARSET_CHARS, 0);
	c.content_type.len = cut(c.content_type, TYPE_CHARS, 0);
	set_date(db, c.date);

	row = ROW_SLACK + c.from.len + c.subject.len + c.charset.len + c.content_type.len;
	raw = row + c.body.len + c.mail.len;
	large = c.rows > 1 && raw > BATCH_BYTES / c.rows;
	raw *= large ? 1 : c.rows;
	for (i = 0; i < c.rows; i++)
		raw += c.row[i].to.len + c.row[i].hash.len + c.row[i].recipient.len +
		    (large ? ROW_SLACK : 0);
	/* Escaping at most doubles. */
	room = raw * 2 + db->insert_len * 2 + SLACK;
	if (room > packet)
		large = 1;
	if (packet > PACKET_MAX)
		packet = PACKET_MAX;
	packet = packet / 2 - SLACK;
	if (large)
		room += (raw / packet + 2) * SLACK;
	if (!b || large || b->pieces || b->mails >= BATCH_MAILS || (b == db->first &&
	    db->state == STORING) || b->len + raw > BATCH_BYTES)
		b = batch_new(db);
	if (b == NULL)
		return DB_LOST;
	if (batch_reserve(b, room) == -1) {
		if (b->mails == 0)
			batch_free(db, b);
		return DB_LOST;
	}
	held = b->mails ? b->len : 0;
	if (large)
		add_pieces(db, b, &c, packet);
	else
		add_rows(db, b, m, &c);
	db->held += b->len - held;
	m->rows = c.rows;
	m->status = DB_PENDING;
	m->deadline = db->now + db->conf.timeout * 1000LL;
	m->next = NULL;
	*b->end = m;
	b->end = &m->next;
	if (b->mails++ > 0)
		return DB_PENDING;
	if (db->first)
		db->last->next = b;
	else
		db->first = b;
	db->last = b;
	return DB_PENDING;
}

/* The first n mails of the oldest batch have their answer. */
static void
settle(struct db *db, size_t n, enum db_status status)
{
	struct batch *b = db->first;
	struct db_mail *m;

	b->bad = b->bad > n ? b->bad - n : 0;
	b->mails -= n;
	while (n-- > 0) {
		m = b->mail;
		b->mail = m->next;
		m->next = NULL;
		m->status = status;
		*db->done_end = m;
		db->done_end = &m->next;
	}
	if (b->mail)
		return;
	db->clear |= b->piece > 0;
	db->first = b->next;
	db->held -= b->len;
	batch_free(db, b);
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
}

static void
query(struct db *db, const char *sql, size_t len)
{
	db->sql = sql;
	db->sql_len = len;
	call(db, QUERY);
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

#else
/*
 * Oracle's does not say what it waits for: room, where there is none, else an
 * answer. What that misses a timer finds.
 */
static int
step(struct db *db, int ready)
{
	const struct db_config *c = &db->conf;
	const struct host *h = &db->host[db->at];
	enum net_async_status status = NET_ASYNC_COMPLETE;
	struct pollfd p;

	(void)ready;
	db->begun = 1;
	switch (db->call) {
	case CONNECT:
		status = mysql_real_connect_nonblocking(db->my, h->name,
		    *c->user ? c->user : NULL, *c->pass ? c->pass : NULL,
		    *c->name ? c->name : NULL, h->port, h->socket, 0);
		break;
	case QUERY:
		status = mysql_real_query_nonblocking(db->my, db->sql, db->sql_len);
		break;
	case RESULT:
		status = mysql_store_result_nonblocking(db->my, &db->result);
		break;
	case NONE:
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
#endif

static void
hang_up(struct db *db)
{
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
	if (db->first)
		db->first->piece = db->first->at = 0;
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
	unsigned error = db->failed ? mysql_errno(db->my) : 2013;
	const struct known *k = look_up(error);

	news(db, error, db->failed ? mysql_error(db->my) : "no answer", k->hint);
	lose(db, 1);
	/* A network heals by itself; a wrong password does not while these mails wait. */
	db->hopeless = *k->hint && k->verdict == MEND && db->attempts % db->nhosts == 0;
	while (db->hopeless && db->first)
		settle(db, db->first->mails, DB_LOST);
}

/* What a session must be like whatever the server's defaults are. */
static void
set_up(struct db *db)
{
	int lock = db->conf.timeout > 6 ? db->conf.timeout - 5 : 1;
	int n;

	/* The server gives up on a lock before we do, so that it does not store later. */
	n = snprintf(db->setup, sizeof(db->setup), "SET NAMES utf8mb4,sql_mode='STRICT_ALL_TABLES',"
	    "time_zone='+00:00',autocommit=1,lock_wait_timeout=%d,innodb_lock_wait_timeout=%d",
	    lock, lock);
	db->id = mysql_thread_id(db->my);
	db->state = SETTING;
	query(db, db->setup, (size_t)n);
}

static void
connected(struct db *db)
{
	MYSQL_ROW row = mysql_fetch_row(db->result);

	db->packet = row && row[0] ? strtoul(row[0], NULL, 10) : PACKET_MIN;
	db->state = IDLE;
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

/* Sends what is due on an idle connection; 0: nothing is. */
static int
send_next(struct db *db)
{
	struct batch *b = db->first;
	struct db_mail *m;
	size_t n, i, len;
	char *start;

	db->until = db->now + (db->conf.timeout * 1000LL < FLIGHT_MS ?
	    db->conf.timeout * 1000LL : FLIGHT_MS);
	if (db->clear) {
		db->state = CLEARING;
		query(db, "SET @m=NULL,@b=NULL", 19);
		return 1;
	}
	if (b == NULL || db->now < db->again_at)
		return 0;
	if (b->pieces) {
		start = b->buf + b->at;
		memcpy(&len, start, sizeof(len));
		start += sizeof(len);
		db->sent = 1;
		db->rows = b->mail->rows;
	} else {
		n = b->bad ? (b->bad + 1) / 2 : b->mails;
		for (;;) {
			db->rows = 0;
			for (m = b->mail, i = 1; ; m = m->next, i++) {
				db->rows += m->rows;
				if (i == n)
					break;
			}
			start = b->buf + b->mail->start - db->insert_len;
			len = m->start + m->len - 1 - b->mail->start + db->insert_len;
			if (n == 1 || len < db->packet)
				break;
			n /= 2;
		}
		memcpy(start, db->insert, db->insert_len);
		db->sent = n;
	}
	if (len >= db->packet) {	/* made for a server that took more */
		news(db, 1153, "max_allowed_packet is smaller than a mail that waits", "");
		settle(db, db->sent, DB_LOST);
		return send_next(db);
	}
	db->state = STORING;
	if (db->until < b->mail->deadline)
		db->until = b->mail->deadline;
	query(db, start, len);
	return 1;
}

/* ---- answers ---- */

static void
statement_failed(struct db *db)
{
	unsigned error = mysql_errno(db->my);
	const char *text = mysql_error(db->my), *state = mysql_sqlstate(db->my);
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
		db->first->bad = db->sent;
		return;
	}
	if (verdict == AGAIN) {
		db->again_at = db->now + AGAIN_MS;
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
	struct batch *b = db->first;

	if (mysql_thread_id(db->my) != db->id) {
		/* A library that reconnected by itself: what it sent where is not known. */
		news(db, 2013, "lost the connection", "");
		settle(db, db->sent, DB_LOST);
		lose(db, 0);
		return;
	}
	db->state = IDLE;
	if (b->pieces > 0) {
		b->at += sizeof(db->sql_len) + db->sql_len;
		if (++b->piece < b->pieces)
			return;
	}
	if (mysql_affected_rows(db->my) != db->rows) {
		news(db, 2027, "stored other rows than were sent", "");
		settle(db, db->sent, DB_LOST);
		return;
	}
	db->statements++;
	db->attempts = 0;
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
	else if (db->failed)
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
	default:
		db->clear = 0;
		db->state = IDLE;
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

int
db_fd(const struct db *db)
{
#ifndef MARIADB_PACKAGE_VERSION_ID
	if (db->state == CONNECTING)
		return -1;
#endif
	return descriptor(db);
}

int
db_wants(const struct db *db)
{
	if (db->state == IDLE)
		return DB_READ;		/* the server hangs up */
	return db->call != NONE && db->begun ? wants(db) : 0;
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
	if (db->state < STORING && db->first && db->first->mail->deadline < at)
		at = db->first->mail->deadline;
	return at <= now ? 0 : at - now > INT_MAX ? INT_MAX : (long)(at - now);
}

void
db_run(struct db *db, int ready)
{
	db->now = clock_ms();
	for (;; ready = 0) {
		while (db->state != STORING && db->first && db->first->mail->deadline <= db->now)
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
	return db->held;
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
	db->insert_len = (size_t)(d - db->insert);
	return db;
}

void
db_free(struct db *db)
{
	struct batch *b;

	if (db == NULL)
		return;
	hang_up(db);
	db->spares = SPARES;	/* none is kept now */
	while ((b = db->first ? db->first : db->spare) != NULL) {
		if (b == db->first)
			db->first = b->next;
		else
			db->spare = b->next;
		batch_free(db, b);
	}
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
	int want = db_wants(db);
	long ms = db_timeout(db);
	struct pollfd p;

	p.fd = db_fd(db);
	p.events = (short)((want & DB_READ ? POLLIN : 0) | (want & DB_WRITE ? POLLOUT : 0));
	if (poll(&p, p.fd != -1, ms < 0 ? 1000 : (int)ms) != 1)
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
	d = put(from, " WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME='");
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
	for (ready = 0; ; ready = wait_ready(db)) {
		db_run(db, ready);
		if (db->state == IDLE || (db->state == AWAY && db->attempts >= db->nhosts))
			break;
	}
	status = check(db, why, cap);
	db_free(db);
	return status;
}
