/*
 * tls.h - STARTTLS (RFC 3207) for a select() loop, compiled by `make tls' only
 *
 * tls.c alone knows OpenSSL (1.1.1 or 3), and knows nothing of SMTP. Nothing
 * here waits but tls_load(), which reads two files. SIGPIPE must be ignored.
 *
 * A session's life: send the 220, and when it has left, throw away whatever
 * else the client has sent meanwhile (CVE-2011-0411) and forget EHLO; then
 * tls_new(), and from there tls_read() and tls_write() take the place of read()
 * and write(). The handshake happens inside tls_read(), under the session's own
 * timeout. In the loop:
 *
 *	io = (may read ? TLS_READ : 0) | (has output ? TLS_WRITE : 0);
 *	io = tls_wants(tls, io);	-- what to ask select() for
 *	if (may read && tls_pending(tls))
 *		do not sleep: these octets have left the socket already;
 *		or wait for the socket to be writable, which it is
 *	whatever select() reports: do both, tls_read() if it may read and
 *		tls_write() if it has output; one that must wait says EAGAIN
 */
#ifndef TLS_H
#define TLS_H

#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#define TLS_READ 1
#define TLS_WRITE 2

struct tls;			/* one connection */

#ifdef TLS

/*
 * Reads certificate (the server's first, then its chain) and private key, both
 * PEM; a keyfile of "" means that the key is in certfile; a certfile of "" means
 * no TLS. The master calls this as root, at start and on HUP, and workers never
 * open the files. Nothing changes before tls_use().
 * 0: why says what was loaded and until when it is valid. -1: why names file
 * and reason. One line either way.
 */
int	tls_load(const char *certfile, const char *keyfile, char *why, size_t cap);

/* What was loaded last serves this process, and what it forks, from now on. */
void	tls_use(void);

/* The server's side of a session on a non-blocking descriptor; NULL: no memory. */
struct tls *tls_new(int fd);
void	tls_end(struct tls *);		/* nothing more is written: close_notify, unless it waits */
void	tls_free(struct tls *);		/* tls_end() too; fd stays open */

/*
 * As read() and write(), for 1 to INT_MAX octets: those done, 0 at the end of the connection, or -1
 * with errno, EAGAIN where it must wait and EPROTO where TLS has failed for
 * good. After EAGAIN tls_write() must be called with the same octets again;
 * they may have moved, and more may follow them.
 */
ssize_t	tls_read(struct tls *, void *dst, size_t cap);
ssize_t	tls_write(struct tls *, const void *src, size_t len);

/* For a session that would TLS_READ, TLS_WRITE or both: what select() must wait for. */
int	tls_wants(const struct tls *, int io);

/* Octets decrypted and not yet read: select() knows nothing of them. */
int	tls_pending(const struct tls *);

/* "TLSv1.3 TLS_AES_256_GCM_SHA384", or why it failed; never an octet of the client's. */
const char *tls_describe(const struct tls *, char *dst, size_t cap);

#else	/* a plain build: a certificate is refused at start, so the rest is never reached */

static inline int
tls_load(const char *certfile, const char *keyfile, char *why, size_t cap)
{
	(void)keyfile;
	if (*certfile == '\0')
		return 0;
	snprintf(why, cap, "%s: this smtpd was built without TLS, use `make tls'", certfile);
	return -1;
}

static inline void tls_use(void) { }
static inline struct tls *tls_new(int fd) { (void)fd; return NULL; }
static inline void tls_free(struct tls *t) { (void)t; }
static inline ssize_t tls_read(struct tls *t, void *d, size_t n)
{ (void)t; (void)d; (void)n; return -1; }
static inline ssize_t tls_write(struct tls *t, const void *s, size_t n)
{ (void)t; (void)s; (void)n; return -1; }
static inline int tls_wants(const struct tls *t, int io) { (void)t; return io; }
static inline int tls_pending(const struct tls *t) { (void)t; return 0; }
static inline void tls_end(struct tls *t) { (void)t; }
static inline const char *tls_describe(const struct tls *t, char *d, size_t n)
{ (void)t; (void)d; (void)n; return ""; }

#endif
#endif
