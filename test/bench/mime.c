/*
 * mime - how fast mime.c decodes
 *
 *	mime make encoding text octets		writes an input of about that size
 *	mime time encoding charset <input	seconds of one mime_text(), octets that it gave
 *
 * encoding: base64 or quoted-printable; text: English, French or Russian.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../mime.h"

static double
clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Words in UTF-8, in lines of up to 76 octets as mailers do; base64's have no CR. */
static void
make(int base64, const char *text, size_t size)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	static const char *const texts[3][12] = {
		{ "octets ", "in ", "any ", "order ", "and ", "some ", "time ", "lines ", "that ",
		  "mean ", "nothing, ", "or\r\n" },
		{ "des ", "octets ", "sans ", "\xc3\xa0 ", "ordre ", "d\xc3\xa9j\xc3\xa0 ", "et ",
		  "lignes ", "qui ", "ne ", "disent ", "rien,\r\n" },
		{ "\xd1\x81\xd0\xbb\xd0\xbe\xd0\xb2\xd0\xb0 ", "\xd0\xb8 ", "\xd0\xb1\xd0\xb5\xd0\xb7 ",
		  "\xd0\xbf\xd0\xbe\xd1\x80\xd1\x8f\xd0\xb4\xd0\xba\xd0\xb0 ", "\xd0\xb2 ", "\xd0\xb0 ",
		  "\xd1\x82\xd0\xbe ", "= ", "\xd0\xb4\xd0\xb0 ", "\xd0\xbd\xd0\xb5 ", "\xd1\x82\xd1\x83\xd1\x82 ",
		  "\xd0\xb3\xd0\xb4\xd0\xb5\r\n" }
	};
	const char *const *words = texts[*text == 'R' ? 2 : *text == 'F'];
	unsigned long seed = 5322;
	unsigned bits = 0;
	int have = 0, column = 0;
	size_t n = 0;

	while (n < size || have || column) {	/* it ends with a line */
		const char *p;

		seed = (seed * 1103515245ul + 12345ul) & 0x7ffffffful;
		for (p = words[(seed >> 16) % 12]; *p; p++) {
			unsigned char c = (unsigned char)*p;

			if (base64) {
				bits = (bits << 8 | c) & 0xffff;
				for (have += 8; have >= 6; n++) {
					have -= 6;
					putchar(digits[bits >> have & 63]);
					if (++column == 76)
						putchar('\n'), n++, column = 0;
				}
			} else if (c == '\n') {
				n += (size_t)printf("\r\n");
				column = 0;
			} else if (c != '\r') {
				if (column > 72)
					n += (size_t)printf("=\r\n"), column = 0;
				if (c == '=' || c > 126) {
					n += (size_t)printf("=%02X", c);
					column += 3;
				} else {
					putchar(c);
					n++, column++;
				}
			}
		}
	}
}

int
main(int argc, char *argv[])
{
	struct mime_part part;
	size_t cap = 1 << 26, n, len;
	char *in, *out;
	double began;

	if (argc == 5 && strcmp(argv[1], "make") == 0) {
		make(strcmp(argv[2], "base64") == 0, argv[3], (size_t)atol(argv[4]));
		return ferror(stdout) || fflush(stdout) == EOF;
	}
	if (argc != 4 || strcmp(argv[1], "time") != 0)
		return 2;
	if ((in = malloc(cap)) == NULL || (out = malloc(cap)) == NULL)
		return 1;
	n = fread(in, 1, cap, stdin);
	memset(out, 0, cap);		/* so that no page is new to the call that is timed */
	memset(&part, 0, sizeof(part));
	strcpy(part.type, "text/plain");
	strncpy(part.charset, argv[3], sizeof(part.charset) - 1);
	part.encoding = strcmp(argv[2], "base64") == 0 ? MIME_BASE64 : MIME_QP;
	part.body.ptr = in;
	part.body.len = n;
	began = clock_s();
	len = mime_text(&part, out, cap);
	printf("%.6f %lu\n", clock_s() - began, (unsigned long)len);
	return 0;
}
