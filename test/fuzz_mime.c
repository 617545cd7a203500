/*
 * Any octets in, valid UTF-8 out: calls all of mime.h on one input and checks
 * what it promises. An entry point for libFuzzer; with -DSTANDALONE a program
 * that takes files, to run a corpus or a finding again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../mime.h"

int	LLVMFuzzerTestOneInput(const uint8_t *, size_t);

static void
check(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "broken promise: %s\n", what);
		abort();
	}
}

/* Valid UTF-8 without NUL, by RFC 3629's table, and written independently of mime.c. */
static void
check_text(const char *dst, size_t n, size_t cap)
{
	const unsigned char *p = (const unsigned char *)dst, *end = p + n;

	check(n < cap && dst[n] == '\0', "within cap, and terminated");
	while (p < end) {
		unsigned c = *p++, more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3, k;
		static const unsigned least[4] = { 1, 0x80, 0x800, 0x10000 };

		check(c < 0x80 || (c >= 0xc2 && c < 0xf5), "a first octet");
		c &= more == 0 ? 0x7f : 0x3fu >> more;
		for (k = 0; k < more; k++) {
			check(p < end && (*p & 0xc0) == 0x80, "a whole character");
			c = c << 6 | (*p++ & 0x3f);
		}
		check(c >= least[more] && c < 0x110000 && (c < 0xd800 || c > 0xdfff), "a character");
	}
}

static void
check_inside(struct mime_span s, const char *msg, size_t len)
{
	check(s.ptr >= msg && s.ptr <= msg + len && s.len <= len - (size_t)(s.ptr - msg),
	    "a span of the message");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[] = { "boundary", "charset", "filename" },
	    *const labels[] = { "", "koi8-r", "iso-2022-jp" };
	static struct mime_walk walk;
	static struct mime_body found;
	struct mime_part part;
	struct mime_span header, name, value, list;
	/* The first octet gives the room for output, so that every cut is tried. */
	size_t cap = len ? 1 + data[0] % 64 * (data[0] & 64 ? 1u : 997u) : 1, n, i;
	char *dst = malloc(cap), *msg = malloc(len ? len : 1);
	int count = 0;

	memcpy(msg, data, len);		/* a block of its own: reading past its end shows */
	header = mime_header(msg, len);
	check_inside(header, msg, len);
	while (mime_next_field(&header, &name, &value)) {
		check_inside(name, msg, len);
		check_inside(value, msg, len);
		n = mime_words(value, labels[len % 3], dst, cap);
		check_text(dst, n, cap);
		check(memchr(dst, '\n', n) == NULL && memchr(dst, '\r', n) == NULL, "one line");
		n = mime_utf8(value, dst, cap);
		check_text(dst, n, cap);
		for (i = 0; i < 3; i++)
			check_text(dst, mime_param(value, names[i], dst, cap), cap);
		list = value;
		while (mime_address(&list, dst, cap)) {
			check_inside(list, msg, len);
			check_text(dst, strlen(dst), cap);
		}
	}
	mime_start(&walk, msg, len);
	while (count++ < 200 && mime_next(&walk, &part)) {
		check_inside(part.header, msg, len);
		check_inside(part.body, msg, len);
		check_text(part.type, strlen(part.type), sizeof(part.type));
		check_text(part.charset, strlen(part.charset), sizeof(part.charset));
		check(part.depth >= 0 && part.depth <= MIME_DEPTH, "a depth");
		check_text(dst, mime_text(&part, dst, cap), cap);
	}
	mime_body(msg, len, &found);
	check_inside(found.first.body, msg, len);
	check_text(dst, mime_body_text(&found, dst, cap), cap);
	free(msg);
	free(dst);
	return 0;
}

#ifdef STANDALONE
int
main(int argc, char **argv)
{
	static uint8_t data[1 << 24];
	int i;

	for (i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");

		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof(data), f));
		fclose(f);
	}
	printf("%d passed, 0 failed\n", argc - 1);
	return 0;
}
#endif
