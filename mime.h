/*
 * mime.h - bytes in, answers out
 *
 * RFC 5322 fields and addresses, RFC 2045-2049 and 2231 MIME, and what mailers
 * send instead. No I/O, no globals, no allocation, no callbacks; the message is
 * never modified. Any octets are a message: there is no error to handle. Past a
 * limit (MIME_*, a column's width) the rest is opaque, never a failure; limits
 * also bound how often a mail makes iconv load a charset.
 *
 * Functions with (dst, cap) write UTF-8 that is valid, holds no NUL, ends in a
 * NUL beyond the length, and is cut only between characters; cap counts that
 * NUL and is at least 1. They return the octets written, without the NUL.
 */
#ifndef MIME_H
#define MIME_H

#include <stddef.h>

#define MIME_DEPTH 100		/* multiparts inside one another that are taken apart */
#define MIME_PARTS 1000		/* parts of a message that are found */
#define MIME_RUNS 1000		/* texts in encoded-words of a field that are decoded */
#define MIME_EXPANSION 12	/* octets of text that one octet of a body makes at most */
#define MIME_BOUNDARY 256	/* octets of a boundary; RFC 2046 5.1.1 allows 70 */

struct mime_span { const char *ptr; size_t len; };	/* octets of the message */

enum mime_encoding { MIME_IDENTITY, MIME_QP, MIME_BASE64, MIME_UUENCODE };

struct mime_part {
	struct mime_span header, body;	/* body: still transfer-encoded */
	char type[128];			/* "text/plain", lower case; RFC 2045 5.2 default */
	char charset[64];		/* as labelled, lower case; "" where there is no label */
	enum mime_encoding encoding;	/* RFC 2045 6 */
	int attachment;			/* it, or a multipart that it is in; RFC 2183 */
	int container;			/* a multipart or message whose parts come next */
	int depth;			/* 0: the message itself */
	int message;			/* the message/rfc822 that it is in; 0: none */
};

struct mime_walk {			/* private to mime.c; the caller gives the storage */
	struct mime_span rest;
	int depth, parts;
	int here;			/* a part begins here, not at a boundary */
	int lowest;			/* the level that was gone back to */
	struct mime_level {
		char boundary[MIME_BOUNDARY];
		size_t len;		/* 0: no boundary, as a message's level */
		int digest, alternative, attachment, message;
	} level[MIME_DEPTH];
};

struct mime_body {
	struct mime_part first;		/* whose type and charset are those of the body */
	size_t octets;			/* of all its parts, still transfer-encoded */
	struct mime_span msg;
	int number;			/* of the first, counted from 1 */
};

/* The header of a message, up to the empty line or the first line that is no field. */
struct mime_span mime_header(const char *msg, size_t len);

/*
 * Takes the next field off a header: 1, or 0 at its end. RFC 5322 2.2.
 * value is still folded and starts after the colon.
 */
int	mime_next_field(struct mime_span *header, struct mime_span *name,
	    struct mime_span *value);

/* The first field of that name, in any case: 1 found, 0 not. */
int	mime_field(struct mime_span header, const char *name, struct mime_span *value);

/* 1 where a field's name is that one, in any case. */
int	mime_is(struct mime_span name, const char *want);

/* A parameter of a structured value, RFC 2045 5.1 and RFC 2231; 0 where there is none. */
size_t	mime_param(struct mime_span value, const char *name, char *dst, size_t cap);

/*
 * Unstructured text such as Subject: unfolded, encoded-words decoded (RFC 2047).
 * Other octets are UTF-8, or else of that charset, or windows-1252 where it is "".
 */
size_t	mime_words(struct mime_span value, const char *charset, char *dst, size_t cap);

/*
 * Takes the next mailbox off an address list, RFC 5322 3.4 and 4.4, groups
 * opened: 1 with local-part@domain in dst (no display name, no comment), or 0
 * at the end of the list.
 */
int	mime_address(struct mime_span *list, char *dst, size_t cap);

/* ASCII letters to lower case, in place; other octets stay. */
void	mime_lower(char *p, size_t n);

/* Octets as text: as they are where they are UTF-8, else windows-1252. */
size_t	mime_utf8(struct mime_span octets, char *dst, size_t cap);

/*
 * The parts of a message in order, those of a message within it too: 1, or 0 at
 * the end. A multipart in which no part is found is a part.
 */
void	mime_start(struct mime_walk *, const char *msg, size_t len);
int	mime_next(struct mime_walk *, struct mime_part *);

/* A part's content, transfer-decoded and converted from its charset. */
size_t	mime_text(const struct mime_part *, char *dst, size_t cap);

/*
 * Finds what a person would read: the first text/html or text/plain that is not
 * blank and no attachment. HTML is better only than plain text that it is an
 * alternative of. Where there is none: other text, that of a message within,
 * what should have had parts. 0: there is no text; first is blank then, or empty.
 */
int	mime_body(const char *msg, size_t len, struct mime_body *);

/*
 * The body's text: of first and, where that is text/plain, of the text/plain
 * that follows and is no attachment, an empty line between. It has at most
 * MIME_EXPANSION times body.octets (glibc's TSCII makes 12 of one).
 */
size_t	mime_body_text(const struct mime_body *, char *dst, size_t cap);

#endif
