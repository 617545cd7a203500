/*
 * db.h - mails in, rows out
 *
 * db.c alone knows MySQL, and knows nothing of SMTP. Nothing here but db_check()
 * waits, or the library for a host's name: the caller's select() does (db_watch,
 * db_timeout), then calls db_run(). Mails added while a statement is at the server make the
 * next one, so that they share its commit.
 */
#ifndef DB_H
#define DB_H

#include <sys/select.h>

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct db_text { const char *ptr; size_t len; };

struct db_config {
	const char *hosts;	/* one at least, by commas, in order: host, host:port, /socket */
	const char *user, *pass, *name;	/* "": as the client library's option files say */
	const char *table;
	int timeout;		/* seconds a mail may wait */
	int connections;	/* at most */
	size_t max_size;	/* largest mail, octets: the table must hold it */
};

/*
 * DB_LOST comes from: db_add() and connect_failed(), all hosts hopeless or away too long;
 * send_next(), no memory; statement_failed(), an error that is not the mail's or that makes
 * one mail suspect, or the connection lost before the answer; statement_done(), an answer that
 * cannot be right; late() and db_run(), no answer in time. From no other place.
 */
enum db_status {
	DB_PENDING,		/* no answer yet */
	DB_STORED,		/* committed, every row of it */
	DB_REFUSED,		/* the server will never take it: 554 */
	DB_LOST,		/* not known to be stored, try again: 451 */
	DB_TOO_BIG		/* beyond what the server accepts: 552 */
};

struct db_row { struct db_text to, recipient, hash; };	/* what differs by recipient */
/* All text is valid UTF-8 but mail, which is any octets. */
struct db_columns {
	time_t date;
	struct db_text from, subject, body, charset, content_type, mail;
	size_t spare;		/* octets by which the mail's limit is lower than the server's */
	struct db_row *row;
	size_t rows;
};

/* A mail on its way, in storage of the caller's that stays where it is until db_done(). */
struct db_mail {
	enum db_status status;
	struct db_columns col;	/* what it points to stays as well */
	struct db_mail *next;	/* the rest is db.c's own */
	char date[20];
	uint64_t size;
	long long deadline;
};

struct db;

struct db *db_new(const struct db_config *);	/* the strings must outlive it; NULL: no memory */
void	db_free(struct db *);

/* Adds what it waits for to the sets for select(), and raises *max to its largest descriptor. */
void	db_watch(const struct db *, fd_set *r, fd_set *w, int *max);
long	db_timeout(const struct db *);	/* ms until db_run() or db_done() has work; -1: none */
void	db_run(struct db *, const fd_set *r, const fd_set *w);	/* NULL, NULL: nothing is ready */

/*
 * Puts a mail into the queue. Nothing is copied; text is cut to its column's width.
 * DB_PENDING: db_done() will give the mail back with its status. Anything else is
 * the answer at once, and the mail was not taken: DB_LOST where the database has been
 * away for longer than the timeout or an operator must mend it, DB_TOO_BIG.
 */
enum db_status db_add(struct db *, struct db_mail *);

struct db_mail *db_done(struct db *);	/* a mail that has its status, or NULL */

size_t	db_held(const struct db *);	/* octets of its own for statements on their way */
size_t	db_max_mail(const struct db *);	/* largest mail the server took when asked, or SIZE_MAX */
int	db_too_big(const struct db *, size_t len);	/* for the server as it is now: 552 */
unsigned long db_statements(const struct db *);	/* INSERTs committed */
const char *db_news(struct db *);	/* one line for the log since the last call, or NULL */

/*
 * Connects and looks at the table, waiting as long as that takes (a few
 * seconds a host). 0: mails can be stored. 1: away for now. -1: an operator
 * must mend it. why: one line that says what and how; on 0 what was found.
 */
int	db_check(const struct db_config *, char *why, size_t cap);

#endif
