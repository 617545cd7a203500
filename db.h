/*
 * db.h - mails in, rows out: one connection, one statement in flight
 *
 * db.c alone knows MySQL, and knows nothing of SMTP. Nothing here but
 * db_check() waits: the caller's select() does (db_fd, db_wants, db_timeout),
 * then calls db_run(). Mails added while a statement is at the server make the
 * next one, so that they share its commit.
 */
#ifndef DB_H
#define DB_H

#include <stddef.h>
#include <time.h>

struct db_text { const char *ptr; size_t len; };

struct db_config {
	const char *hosts;	/* comma-separated, tried in order: host, host:port, /socket */
	const char *user, *pass, *name;	/* "": as the client library's option files say */
	const char *table;
	int timeout;		/* seconds a mail may wait */
	size_t max_size;	/* largest mail, octets: the table must hold it */
	/* The hash of a row: of its to, from, subject and body, in 32 hexadecimal digits. */
	void (*hash)(const struct db_text of[4], char hex[32]);
};

enum db_status {
	DB_PENDING,		/* no answer yet */
	DB_STORED,		/* committed, every row of it */
	DB_REFUSED,		/* the server will never take it: 554 */
	DB_LOST,		/* not known to be stored, try again: 451 */
	DB_TOO_BIG		/* beyond what the server accepts: 552 */
};

/*
 * What differs by recipient. Where all rows of a mail take more than 1 MB hash may be
 * empty: db_run() has it made then, one a call, so that nobody waits for all.
 */
struct db_row { struct db_text to, recipient, hash; };
/* The columns; all text is valid UTF-8 but mail, which is any octets. */
struct db_columns {
	time_t date;
	struct db_text from, subject, body, charset, content_type, mail;
	const struct db_row *row;
	size_t rows;
};

/* A mail on its way, in storage of the caller's that stays where it is until db_done(). */
struct db_mail {
	enum db_status status;
	char hash[33];		/* of its first row: set where db_run() makes it */
	struct db_mail *next;	/* the rest is db.c's own */
	struct db_text *field;
	size_t rows, size;
	long long deadline;
};

struct db;

struct db *db_new(const struct db_config *);	/* the strings must outlive it; NULL: no memory */
void	db_free(struct db *);

int	db_fd(const struct db *);	/* -1: nothing to wait on */
#define DB_READ 1
#define DB_WRITE 2
#define DB_SEND 4		/* to db_run(): nothing more is coming, send what there is */
int	db_wants(const struct db *);	/* DB_READ | DB_WRITE */
long	db_timeout(const struct db *);	/* ms until db_run() or db_done() has work; -1: none */
void	db_run(struct db *, int ready);	/* what select() found of that: whatever is due */

/*
 * Puts a mail into the next statement, copying what it needs of the columns.
 * DB_PENDING: db_done() will give it back with its status. Anything else is
 * the answer at once, and the mail was not taken: DB_LOST where the database
 * has been away for longer than the timeout, DB_TOO_BIG.
 */
enum db_status db_add(struct db *, struct db_mail *, const struct db_columns *);

struct db_mail *db_done(struct db *);	/* a mail that has its status, or NULL */

size_t	db_held(const struct db *);	/* octets held for mails not yet answered */
size_t	db_max_mail(const struct db *);	/* largest mail the server takes; SIZE_MAX: not known */
unsigned long db_statements(const struct db *);	/* INSERTs committed */
const char *db_news(struct db *);	/* one line for the log since the last call, or NULL */

/*
 * Connects and looks at the table, waiting as long as that takes (a few
 * seconds a host). 0: mails can be stored. 1: away for now. -1: an operator
 * must mend it. why: one line that says what and how, and on 0 what was found.
 */
int	db_check(const struct db_config *, char *why, size_t cap);

#endif
