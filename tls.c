/*
 * tls.c - STARTTLS (RFC 3207) with OpenSSL 1.1.1 or 3
 *
 * Opportunistic: it keeps mail from being read on the way, and proves nothing
 * about either end, so there are no client certificates, no sessions to resume
 * and no state beyond the connection's own. TLS 1.2 and 1.3 only (RFC 8996).
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tls.h"

struct tls {
	SSL *ssl;
	int reading, writing;	/* what the last SSL_read, SSL_write waits for */
	int broken;		/* nothing more may be said */
	unsigned long error;	/* OpenSSL's code for why */
};

static SSL_CTX *context;	/* the one thing shared by all connections */
static SSL_CTX *loaded;		/* what takes its place at tls_use() */

/* The first error in the queue is the cause; later ones are its consequences. */
static unsigned long
first_error(void)
{
	unsigned long code = ERR_get_error();

	ERR_clear_error();
	return code;
}

static const char *
reason(unsigned long code)
{
	const char *text = ERR_GET_LIB(code) == ERR_LIB_SYS ?
	    strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);

	return text != NULL ? text : "failed";
}

/* A key with a passphrase must not stop a daemon at a prompt; arg notes that it has one. */
static int
no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf, (void)size, (void)writing;
	*(int *)arg = 1;
	return 0;
}

static SSL_CTX *
new_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (ctx == NULL)
		return NULL;
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION |
	    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF
	/* Many clients just hang up after QUIT. What a cut connection leaves out cannot
	 * harm: a message ends with its dot or not at all. */
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
#endif
	/* Resuming would save a signature, at the price of a cache in each worker or
	 * of a ticket key that opens every session since the last HUP. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	/* A record without data goes back to the loop: no client holds a worker inside
	 * SSL_read() with records it need only send fast enough. */
	SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	/* Forward secrecy without DHE, whose work a client can make us do for nothing. */
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+HIGH:!aNULL") != 1) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

/* "valid until 2027-11-23" of the server's certificate. */
static void
describe_certificate(const SSL_CTX *ctx, const char *file, char *dst, size_t cap)
{
	const ASN1_TIME *end = X509_get0_notAfter(SSL_CTX_get0_certificate(ctx));
	char date[32] = "?";
	struct tm tm;

	if (ASN1_TIME_to_tm(end, &tm) == 1)
		strftime(date, sizeof(date), "%Y-%m-%d", &tm);
	snprintf(dst, cap, "%s: %s %s", file,
	    X509_cmp_current_time(end) < 0 ? "EXPIRED on" : "valid until", date);
}

int
tls_load(const char *certfile, const char *keyfile, char *why, size_t cap)
{
	SSL_CTX *ctx = NULL;
	int passphrase = 0;

	*why = '\0';
	if (*certfile == '\0')
		goto done;
	if (*keyfile == '\0')
		keyfile = certfile;
	ERR_clear_error();
	if ((ctx = new_context()) == NULL) {
		snprintf(why, cap, "OpenSSL: %s", reason(first_error()));
		return -1;
	}
	SSL_CTX_set_default_passwd_cb_userdata(ctx, &passphrase);
	if (SSL_CTX_use_certificate_chain_file(ctx, certfile) != 1) {
		snprintf(why, cap, "%s: no certificate: %s", certfile, reason(first_error()));
		goto fail;
	}
	if (SSL_CTX_use_PrivateKey_file(ctx, keyfile, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1) {
		snprintf(why, cap, "%s: no private key for the certificate in %s: %s", keyfile,
		    certfile, passphrase ? "it has a passphrase, which nobody can type here: "
		    "`openssl pkey' writes it without" : reason(first_error()));
		goto fail;
	}
	describe_certificate(ctx, certfile, why, cap);
done:
	SSL_CTX_free(loaded);
	loaded = ctx;
	return 0;
fail:
	SSL_CTX_free(ctx);
	return -1;
}

void
tls_use(void)
{
	SSL_CTX_free(context);		/* sessions of before keep their reference */
	context = loaded;
	loaded = NULL;
}

struct tls *
tls_new(int fd)
{
	struct tls *t = calloc(1, sizeof *t);

	if (t == NULL)
		return NULL;
	t->reading = TLS_READ;
	t->writing = TLS_WRITE;
	if ((t->ssl = SSL_new(context)) == NULL || SSL_set_fd(t->ssl, fd) != 1) {
		SSL_free(t->ssl);
		free(t);
		ERR_clear_error();
		return NULL;
	}
	SSL_set_accept_state(t->ssl);
	return t;
}

void
tls_end(struct tls *t)
{
	if (!t->broken && SSL_is_init_finished(t->ssl))
		SSL_shutdown(t->ssl);
	t->broken = 1;
	ERR_clear_error();
}

void
tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	tls_end(t);
	SSL_free(t->ssl);
	free(t);
	ERR_clear_error();
}

/* What an SSL_read or SSL_write that returned n means to a caller of read() or write(). */
static ssize_t
result(struct tls *t, int n, int *waits, int usual)
{
	int saved = errno;

	*waits = usual;
	if (n > 0)
		return n;
	switch (SSL_get_error(t->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		*waits = TLS_READ;
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_WANT_WRITE:
		*waits = TLS_WRITE;
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:	/* close_notify: it may still read our reply */
		return 0;
	case SSL_ERROR_SYSCALL:
		t->broken = 1;
		errno = saved;
		return saved == 0 ? 0 : -1;
	default:
		t->broken = 1;
		t->error = first_error();
		errno = EPROTO;
		return -1;
	}
}

ssize_t
tls_read(struct tls *t, void *dst, size_t cap)
{
	ERR_clear_error();
	errno = 0;
	return result(t, SSL_read(t->ssl, dst, (int)cap), &t->reading, TLS_READ);
}

ssize_t
tls_write(struct tls *t, const void *src, size_t len)
{
	ERR_clear_error();
	errno = 0;
	return result(t, SSL_write(t->ssl, src, (int)len), &t->writing, TLS_WRITE);
}

int
tls_wants(const struct tls *t, int io)
{
	return (io & TLS_READ ? t->reading : 0) | (io & TLS_WRITE ? t->writing : 0);
}

int
tls_pending(const struct tls *t)
{
	return SSL_pending(t->ssl);
}

const char *
tls_describe(const struct tls *t, char *dst, size_t cap)
{
	if (t->error != 0)
		snprintf(dst, cap, "%s", reason(t->error));
	else
		snprintf(dst, cap, "%s %s", SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl));
	return dst;
}
