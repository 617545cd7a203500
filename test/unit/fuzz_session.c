/*
 * fuzz_session.c - arbitrary octets in arbitrary slices through smtpd.c's own loop
 *
 * smtpd.c is included whole. Only what it asks of the system is replaced:
 * sockets, select(), the clock, and db.c by a stub that stores, refuses, loses
 * and dawdles. An input is
 *
 *	1 octet		which configuration, and what goes wrong: enum how
 *	1 octet		what the database does, two bits a mail
 *	16 octets	the most that is read or written at a turn, in a circle;
 *			0: nothing is ready; 128 and more: all there is
 *	the rest	what the clients send, FF FF between one and the next
 *
 * TLS is a stub as well: an octet 22 is the handshake, what follows is as it is.
 *
 * Beyond what the sanitizers see, these must hold for every input:
 *   - replies are lines of at most 512 octets that hold no control octet;
 *   - so are lines of the log, which are ASCII as well;
 *   - columns are UTF-8 without NUL; the trace fields are whole lines;
 *   - no more mails than ends of data and BDATs (nothing smuggled);
 *   - nothing that came before a handshake runs after it;
 *   - the memory that is accounted for is what the sessions hold, at every turn;
 *   - no session waits for nothing: each is read, written to, or at the database;
 *   - every descriptor is closed once, all memory is given back, the loop ends;
 *   - however the octets are sliced, replies and mails are the same; but for
 *     STARTTLS, where what comes in one read with it is dropped.
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined test/unit/fuzz_session.c mime.c
 *	cc -DSTANDALONE -g -fsanitize=address,undefined test/unit/fuzz_session.c mime.c; ./a.out FILE...
 */
#define _DEFAULT_SOURCE 1
#define _FILE_OFFSET_BITS 64	/* as smtpd.c, which is included below */
#define _TIME_BITS 64

#include <sys/select.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int	fuzz_accept(struct sockaddr *, socklen_t *);
static ssize_t	fuzz_read(int, void *, size_t);
static ssize_t	fuzz_write(int, const void *, size_t);
static int	fuzz_close(int);
static int	fuzz_shutdown(int);
static int	fuzz_fcntl(void);
static int	fuzz_pselect(fd_set *, fd_set *, const struct timespec *);
static int	fuzz_clock(struct timespec *);
static time_t	fuzz_time(void);

#define accept(fd, sa, len) fuzz_accept(sa, len)
#define read(fd, p, n) fuzz_read(fd, p, n)
#define write(fd, p, n) fuzz_write(fd, p, n)
#define close(fd) fuzz_close(fd)
#define shutdown(fd, how) fuzz_shutdown(fd)
#define fcntl(fd, cmd, arg) fuzz_fcntl()
#define pselect(n, r, w, e, ts, mask) fuzz_pselect(r, w, ts)
#define clock_gettime(id, ts) fuzz_clock(ts)
#define time(t) fuzz_time()
#undef CHECKED
#define CHECKED		/* with or without -DCHECKED */
#define main smtpd_main
#define TLS
#include "../../smtpd.c"
#undef main
#undef read
#undef close

#include "fuzz.h"

enum { CLIENTS = 4, LISTENER = 10, FIRST = 20, SLICES = 16, HEAD = 2 + SLICES };

/* From SLOW on the slicing makes a difference, so nothing is compared. */
enum how { CHECK = 1, PRIMARY = 2, FROM_PROXY = 4, VERBOSE = 8, SLOW = 16, STOP = 32, TIGHT = 64,
	AT_ONCE = 128 };

struct bytes { char *p; size_t len, cap; };

static struct client {
	const char *in;
	size_t len, at;
	size_t stop[2];			/* no read goes across these; 0: none */
	size_t gate;			/* what follows is sent only once there is TLS; 0: no gate */
	int open, shut;
	struct tls *tls;
	size_t stored;
	struct bytes out, mails;
} clients[CLIENTS];

static struct {
	unsigned how, answers;
	const unsigned char *slice;	/* NULL: everything at once */
	unsigned slice_at, limit, turns;
	size_t nclients, accepted;
	long long ms;
	int starttls;			/* what came in one read with it has been dropped */
	int in_line;			/* the log's last line is not whole yet */
} world;

static void
keep(struct bytes *b, const void *p, size_t n)
{
	if (b->len + n > b->cap) {
		b->cap = 2 * (b->len + n);
		check((b->p = realloc(b->p, b->cap)) != NULL, "memory");
	}
	if (n > 0)
		memcpy(b->p + b->len, p, n);
	b->len += n;
}

static int
equal(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->p, b->p, a->len) == 0);
}

static struct client *
client(int fd)
{
	check(fd >= FIRST && fd < FIRST + CLIENTS && clients[fd - FIRST].open,
	    "a descriptor that is open");
	return &clients[fd - FIRST];
}

/* ---- the system ---- */

static int
fuzz_accept(struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_in v4;

	if (world.accepted == world.nclients) {
		errno = EAGAIN;
		return -1;
	}
	memset(&v4, 0, sizeof(v4));
	v4.sin_family = AF_INET;
	v4.sin_addr.s_addr = htonl(world.how & FROM_PROXY ? 0x7f000001 : 0xc0000201);
	memcpy(sa, &v4, sizeof(v4));
	*len = sizeof(v4);
	clients[world.accepted].open = 1;
	return FIRST + (int)world.accepted++;
}

/* How many octets of a client there are to read now. */
static size_t
readable(const struct client *c)
{
	size_t n = (c->gate && !c->tls ? c->gate : c->len) - c->at;
	int i;

	for (i = 0; i < 2; i++)
		if (c->stop[i] > c->at && c->stop[i] - c->at < n)
			n = c->stop[i] - c->at;
	return n;
}

static ssize_t
fuzz_read(int fd, void *p, size_t n)
{
	struct client *c = client(fd);

	if (n > readable(c))
		n = readable(c);
	if (n > world.limit)
		n = world.limit;
	if (n == 0 && (c->at < c->len || (world.how & SLOW))) {	/* it stays, and says no more */
		errno = EAGAIN;
		return -1;
	}
	if (n > 0)
		memcpy(p, c->in + c->at, n);
	c->at += n;
	return (ssize_t)n;
}

static ssize_t
fuzz_write(int fd, const void *p, size_t n)
{
	const unsigned char *u = p;
	struct client *c;
	size_t i;

	if (fd == STDERR_FILENO) {
		for (i = 0; i < n; i++) {
			check(world.in_line ? u[i] == '\n' || (u[i] >= ' ' && u[i] <= '~') : isdigit(u[i]),
			    "lines of the log are ASCII and begin with a process");
			world.in_line = u[i] != '\n';
		}
		return (ssize_t)n;
	}
	c = client(fd);
	check(!c->shut, "nothing is written after shutdown()");
	if (n > world.limit)
		n = world.limit;
	if (n == 0) {
		errno = EAGAIN;
		return -1;
	}
	keep(&c->out, p, n);
	return (ssize_t)n;
}

static int
fuzz_close(int fd)
{
	client(fd)->open = 0;
	return 0;
}

static int
fuzz_shutdown(int fd)
{
	client(fd)->shut = 1;
	return 0;
}

static int
fuzz_fcntl(void)
{
	return 0;
}

static int
fuzz_clock(struct timespec *ts)
{
	ts->tv_sec = 1800000000 + (time_t)(world.ms / 1000);
	ts->tv_nsec = (long)(world.ms % 1000) * 1000000;
	return 0;
}

static time_t
fuzz_time(void)
{
	return 1800000000;
}

/* ---- TLS ---- */

struct tls { int fd, done; size_t read, written, len, at; char record[64]; };

struct tls *
tls_new(int fd)
{
	struct tls *t = calloc(1, sizeof(*t));

	check(t != NULL && client(fd)->tls == NULL, "one handshake a session");
	t->fd = fd;
	client(fd)->tls = t;
	world.starttls = 1;
	return t;
}

void
tls_free(struct tls *t)
{
	if (t)
		client(t->fd)->tls = NULL;
	free(t);
}

/* 1: done; 0: it waits; -1: it has failed. */
static int
handshake(struct tls *t)
{
	char octet;
	ssize_t n;

	if (t->done)
		return t->done;
	n = fuzz_read(t->fd, &octet, 1);
	if (n == 1)
		t->done = octet == 22 ? 1 : -1;
	errno = n == -1 ? EAGAIN : EPROTO;
	return n == -1 ? 0 : n == 0 ? -1 : t->done;
}

/* A record of up to 64 octets at a time: what does not fit into dst is pending. */
ssize_t
tls_read(struct tls *t, void *dst, size_t cap)
{
	ssize_t n;
	int ready = handshake(t);

	if (ready != 1)
		return -1;
	if (t->at == t->len) {
		if ((n = fuzz_read(t->fd, t->record, sizeof(t->record))) <= 0)
			return n;
		t->at = 0;
		t->len = (size_t)n;
	}
	if (cap > t->len - t->at)
		cap = t->len - t->at;
	memcpy(dst, t->record + t->at, cap);
	t->at += cap;
	t->read += cap;
	return (ssize_t)cap;
}

ssize_t
tls_write(struct tls *t, const void *src, size_t len)
{
	ssize_t n;

	if (handshake(t) != 1)
		return -1;
	check(t->read > 0 || t->written > 0 || memcmp(src, "421", 3) == 0,
	    "the client speaks first after a handshake");
	if ((n = fuzz_write(t->fd, src, len)) > 0)
		t->written += (size_t)n;
	return n;
}

int
tls_wants(const struct tls *t, int io)
{
	return t->done ? io : io ? TLS_READ : 0;
}

int
tls_pending(const struct tls *t)
{
	return (int)(t->len - t->at);
}

const char *
tls_describe(const struct tls *t, char *dst, size_t cap)
{
	snprintf(dst, cap, "%s", t->done == 1 ? "TLSv1.3 STUB" : "handshake not finished");
	return dst;
}

int
tls_load(const char *certfile, const char *keyfile, char *why, size_t cap)
{
	(void)certfile, (void)keyfile, (void)cap;
	*why = '\0';
	return 0;
}

void tls_end(struct tls *t) { (void)t; }
void tls_use(void) { }

/* ---- the loop ---- */

static size_t	held_by_departed(void);

static size_t
holds(const struct session *s)
{
	return s->in.cap + s->out.cap + s->tx.rcpt.cap + s->tx.mail.cap + s->tx.columns.cap;
}

/* What must hold whenever the loop goes to sleep. */
static void
check_sessions(const struct timespec *ts)
{
	size_t sum = 0;
	int fd, works = ts && ts->tv_sec == 0 && ts->tv_nsec == 0;

	for (fd = FIRST; fd < FIRST + CLIENTS; fd++) {
		struct session *s = worker.session[fd];

		if (s == NULL)
			continue;
		sum += holds(s);
		check(ts != NULL, "the loop wakes up for timeouts");
		check(s->state == STORING || FD_ISSET(fd, &worker.all.r) || FD_ISSET(fd, &worker.all.w) || works,
		    "no session waits for nothing");
		check(s->state == STORING || s->state == PROXY || s->out.len > 0 || works ||
		    s->in.len == s->in_at || memchr(s->in.ptr + s->in_at, '\n', s->in.len - s->in_at) ==
		    NULL || FD_ISSET(fd, &worker.all.w), "no command waits for nothing");
		check(s->tls == NULL || s->tls->read > 0 || (s->in.len == 0 &&
		    (s->state == NEW || s->state == CLOSING)), "nothing is left of before the handshake");
	}
	check(sum + held_by_departed() == worker.held,
	    "the memory that is accounted for is what sessions hold");
}

/* Who is ready: everybody, as far as the slice goes. At the end TERM comes. */
static int
fuzz_pselect(fd_set *r, fd_set *w, const struct timespec *ts)
{
	fd_set want_r = *r, want_w = *w;
	size_t i, left = world.nclients - world.accepted;
	int n = 0;

	check_sessions(ts);
	FD_ZERO(r);
	FD_ZERO(w);
	check(++world.turns < 1000000, "the loop comes to an end");
	world.limit = world.slice ? world.slice[world.slice_at++ % SLICES] : 128;
	if (world.limit >= 128 || world.turns > 800)
		world.limit = READ_MAX;
	if (world.limit == 0) {
		if (world.how & SLOW)
			world.ms += 1500;
		return 0;
	}
	if (FD_ISSET(LISTENER, &want_r) && left > 0) {
		FD_SET(LISTENER, r);
		n++;
	}
	for (i = 0; i < world.accepted; i++) {
		struct client *c = &clients[i];
		int fd = FIRST + (int)i;

		left += (size_t)c->open;
		check(c->open || (!FD_ISSET(fd, &want_r) && !FD_ISSET(fd, &want_w)),
		    "no closed descriptor is waited for");
		if (FD_ISSET(fd, &want_r) && (readable(c) > 0 || (c->at == c->len &&
		    !(world.how & SLOW)))) {
			FD_SET(fd, r);
			n++;
		}
		if (FD_ISSET(fd, &want_w)) {
			FD_SET(fd, w);
			n++;
		}
	}
	if (left == 0 || ((world.how & STOP) && world.turns > 8)) {
		got_stop = 1;
		world.ms += 10;
	} else if (n == 0)
		world.ms += ts ? ts->tv_sec * 1000 + ts->tv_nsec / 1000000 : 1000;
	return n;
}

/* ---- the database ---- */

struct db { struct db_mail *queue[CLIENTS]; int wait[CLIENTS]; size_t held[CLIENTS]; };
static struct db stub;

/* What sessions hold whose clients have left before their mail was answered. */
static size_t
held_by_departed(void)
{
	size_t sum = 0;
	int i;

	for (i = 0; i < CLIENTS; i++) {
		struct session *s;

		if (stub.queue[i] == NULL)
			continue;
		s = (void *)((char *)stub.queue[i] - offsetof(struct session, mail));
		if (s->fd == -1)
			sum += holds(s);
	}
	return sum;
}

static void
check_text(struct db_text t)
{
	const unsigned char *p = (const unsigned char *)t.ptr, *end = p + t.len;
	unsigned long c;
	int more;

	while (p < end) {
		c = *p++;
		more = c < 0x80 ? 0 : c < 0xc2 || c > 0xf4 ? -1 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		check(more != -1 && end - p >= more && c != 0, "text is UTF-8 without NUL");
		c &= more ? 0x3fu >> more : 0x7f;
		for (int i = 0; i < more; i++, p++) {
			check((*p & 0xc0) == 0x80, "text is UTF-8");
			c = c << 6 | (*p & 0x3f);
		}
		check((more < 2 || c >= (more == 2 ? 0x800ul : 0x10000ul)) && c < 0x110000 &&
		    (c < 0xd800 || c > 0xdfff), "text is UTF-8 at its shortest");
	}
}

static void
keep_text(struct bytes *b, struct db_text t)
{
	check_text(t);
	keep(b, &t.len, sizeof(t.len));
	keep(b, t.ptr, t.len);
}

enum db_status
db_add(struct db *db, struct db_mail *m)
{
	const struct db_columns *c = &m->col;
	struct session *s = (struct session *)(void *)((char *)m - offsetof(struct session, mail));
	struct client *from = client(s->fd);
	struct bytes *b = &from->mails;
	const char *p = c->mail.ptr, *msg = p + s->tx.trace;
	unsigned sum = 0;
	size_t i;
	int what;

	from->stored++;
	check(c->rows > 0 && c->rows <= (size_t)conf.num[GSMTP_MAX_RCPT], "GSMTP_MAX_RCPT");
	check(c->mail.len - s->tx.trace <= (size_t)conf.num[GSMTP_MAX_SIZE], "GSMTP_MAX_SIZE");
	check(s->tx.trace > 14 && memcmp(p, "Return-Path: <", 14) == 0, "Return-Path comes first");
	for (i = 0; i < s->tx.trace; i++)
		check(p[i] == '\r' ? p[i + 1] == '\n' : p[i] == '\n' ? i > 0 && p[i - 1] == '\r' &&
		    (p + i + 1 == msg || p[i + 1] == '\t' ||
		    memcmp(p + i + 1, "Received: ", 10) == 0) :
		    p[i] == '\t' || ((unsigned char)p[i] >= ' ' && p[i] != 127),
		    "trace fields are whole lines");
	keep_text(b, c->from);
	keep_text(b, c->subject);
	keep_text(b, c->body);
	keep_text(b, c->charset);
	keep_text(b, c->content_type);
	for (i = 0; i < c->rows; i++) {
		keep_text(b, c->row[i].to);
		keep_text(b, c->row[i].recipient);
		keep_text(b, c->row[i].hash);
		check(c->row[i].hash.len == 32, "a hash has 32 digits");
	}
	i = c->mail.len - s->tx.trace;
	keep(b, &i, sizeof(i));
	keep(b, msg, i);
	while (i-- > 0)			/* what becomes of it depends on itself alone */
		sum += (unsigned char)msg[i];
	what = (int)(world.answers >> 2 * (sum % 4) & 3);
	if ((world.how & AT_ONCE) && what != 0)
		return what == 1 ? DB_TOO_BIG : DB_LOST;
	i = (size_t)(s->fd - FIRST);
	check(db->queue[i] == NULL, "one mail of a session at a time");
	db->queue[i] = m;
	db->wait[i] = world.slice ? what * 3 : 0;
	db->held[i] = c->mail.len;
	m->status = what == 1 ? DB_REFUSED : what == 2 ? DB_LOST : DB_STORED;
	return DB_PENDING;
}

struct db_mail *
db_done(struct db *db)
{
	struct db_mail *m;
	int i;

	for (i = 0; i < CLIENTS; i++)
		if ((m = db->queue[i]) != NULL && db->wait[i]-- <= 0) {
			db->queue[i] = NULL;
			db->held[i] = 0;
			return m;
		}
	return NULL;
}

size_t
db_held(const struct db *db)
{
	return db->held[0] + db->held[1] + db->held[2] + db->held[3];
}

long
db_timeout(const struct db *db)
{
	return db_held(db) ? 0 : -1;
}

size_t db_max_mail(const struct db *db) { (void)db; return world.how & TIGHT ? 3000 : SIZE_MAX; }
int	db_too_big(const struct db *db, size_t n) { return n > db_max_mail(db); }
unsigned long db_statements(const struct db *db) { (void)db; return 0; }
void	db_run(struct db *db, const fd_set *r, const fd_set *w) { (void)db, (void)r, (void)w; }
void
db_watch(const struct db *db, fd_set *r, fd_set *w, int *max)
{
	(void)db, (void)r, (void)w, (void)max;
}
const char *db_news(struct db *db) { (void)db; return NULL; }
struct db *db_new(const struct db_config *c) { (void)c; return &stub; }
void	db_free(struct db *db) { (void)db; }
int	db_check(const struct db_config *c, char *w, size_t n) { (void)c, (void)w; return n == 0; }

/* ---- one input ---- */

static void
set(enum name name, const char *value)
{
	check(config_set(&conf, (int)name, value, "fuzz") == 0, reason);
}

/* The first time: what main() and worker_main() prepare. */
static void
set_up(void)
{
	if (board)
		return;
	setenv("GM_ALLOWED_HOSTS", "test.example,*.sub.example", 1);
	setenv("GSMTP_HOST_NAME", "mx.test.example", 1);
	setenv("GSMTP_WORKERS", "1", 1);
	check(config_load(&conf) == 0, reason);
	set(GSMTP_MAX_RCPT, "5");
	set(GSMTP_TIMEOUT, "5");
	set(GSMTP_MAX_SIZE, "5000");
	set(GSMTP_TLS_CERT, "cert.pem");
	set(GSMTP_PROXY_FROM, "127.0.0.0/8");
	check((board = calloc(1, sizeof(*board))) != NULL, "memory");
	board->used = 1;
	worker.slot = &board->slot[0];
	worker.master = getppid();
	journal.is_worker = 1;
	journal.fd = -1;
	worker.db = &stub;
	conf.listen.list[0].fd = LISTENER;
	conf.listen.n = 1;
	worker.max_sessions = CLIENTS;
}

/* A mail whose answer nobody waits for any longer. */
static void
drop(struct db_mail *m)
{
	struct session *s = (void *)((char *)m - offsetof(struct session, mail));

	s->state = CLOSING;
	worker.npending--;
	if (s->fd == -1)
		session_free(s);
}

static void
converse(const unsigned char *slices)
{
	size_t i;

	world.slice = slices;
	world.slice_at = world.turns = 0;
	world.accepted = 0;
	world.starttls = 0;
	world.ms = 1000;
	now = 1000;
	worker.life = SERVING;
	conf.listen.n = 1;
	worker.next_id = 0;
	worker.accept_at = 0;
	for (i = 0; i < CLIENTS; i++) {
		clients[i].at = 0;
		clients[i].shut = 0;
		check(clients[i].tls == NULL, "TLS ends with its session");
		clients[i].stored = clients[i].out.len = clients[i].mails.len = 0;
	}
	got_stop = 0;
	worker_loop();
	log_flush();
	check(journal.len > 0 || !world.in_line, "the log is whole lines");
	check(worker.nsessions == 0 || (world.how & (SLOW | STOP)), "every session ends");
	for (i = 0; i < CLIENTS; i++) {	/* what the end of the process would do */
		if (stub.queue[i]) {
			check(world.how & STOP, "every mail is answered");
			drop(stub.queue[i]);
			stub.queue[i] = NULL;
			stub.held[i] = 0;
		}
		if (clients[i].open)
			session_close(worker.session[FIRST + i]);
	}
	check(worker.nsessions == 0 && worker.npending == 0 && worker.held == 0 &&
	    worker.top == -1 && worker.slot->n[N_CLIENTS] == 0,
	    "all is given back");
}

static void
check_replies(const struct client *c)
{
	const char *p = c->out.len ? c->out.p : "", *end = p + c->out.len, *line = p;

	for (; p < end; p++) {
		if (*p == '\n' && p > line && p[-1] == '\r') {
			check(p + 1 - line <= REPLY_MAX, "a reply has 512 octets at most");
			check(p - line > 4 && strchr("2345", line[0]) &&
			    (line[3] == ' ' || line[3] == '-'), "a reply begins with its code");
			line = p + 1;
		} else
			check((unsigned char)*p >= ' ' || p + 1 == end || (*p == '\r' &&
			    p[1] == '\n'), "no control octet in a reply");
	}
	check(line == end || (world.how & (SLOW | STOP)), "replies are whole lines");
}

/* How often the octets occur, overlapping or not. */
static size_t
count(const struct client *c, const char *what, size_t n)
{
	size_t i, found = 0;

	for (i = 0; i + n <= c->len; i++)
		found += (c->in[i] | 32) == (*what | 32) && strncasecmp(c->in + i, what, n) == 0;
	return found;
}

int
LLVMFuzzerTestOneInput(const unsigned char *input, size_t size)
{
	static struct bytes out[CLIENTS], mails[CLIENTS];
	const unsigned char *p = input + HEAD, *end = input + size, *next;
	size_t i;

	set_up();
	if (size < HEAD || size > 100000)
		return -1;
	world.how = input[0];
	world.answers = input[1];
	set(GSMTP_CHECK_HEADER, world.how & CHECK ? "1" : "0");
	set(GM_PRIMARY_MAIL_HOST, world.how & PRIMARY ? "primary.example" : "");
	set(GSMTP_VERBOSE, world.how & VERBOSE ? "1" : "0");
	set(GSMTP_MAX_MEMORY, world.how & TIGHT ? "65536" : "1000000");
	set(MAX_SMTP_CLIENTS, world.how & TIGHT ? "3" : "100");
	set(GSMTP_MAX_CLIENTS_PER_IP, world.how & TIGHT ? "2" : "100");
	for (world.nclients = 0; world.nclients < CLIENTS; p = next + 2) {
		next = p;
		while (next < end && (next[0] != 255 || next + 1 == end || next[1] != 255))
			next++;
		clients[world.nclients].in = (const char *)p;
		clients[world.nclients++].len = (size_t)(next - p);
		if (next == end)
			break;
	}
	converse(input + 2);
	for (i = 0; i < world.nclients; i++) {
		struct client *c = &clients[i];

		check_replies(c);
		check(c->stored <= count(c, "\r\n.\r\n", 5) + count(c, "BDAT", 4),
		    "no more mails than ends of data");
		out[i].len = mails[i].len = 0;
		keep(&out[i], c->out.p, c->out.len);
		keep(&mails[i], c->mails.p, c->mails.len);
	}
	if ((world.how & (SLOW | STOP | TIGHT)) || world.starttls)
		return 0;
	converse(NULL);
	for (i = 0; i < world.nclients; i++) {
		struct client *c = &clients[i];

		check(equal(&c->out, &out[i]), "replies do not depend on slices");
		check(equal(&c->mails, &mails[i]), "mails do not depend on slices");
	}
	return 0;
}
