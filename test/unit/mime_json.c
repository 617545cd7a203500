/*
 * mime_json - what smtpd would store of a message, as one JSON object
 *
 *	mime_json <message
 *
 * from, subject, body, content_type and charset, as mime.c alone makes them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../mime.h"

#define MAX (1 << 26)

static void
member(const char *name, const char *p, size_t n, const char *after)
{
	const char *end = p + n;

	printf("\"%s\":\"", name);
	for (; p < end; p++)
		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if ((unsigned char)*p < ' ' || *p == 127)
			printf("\\u%04x", (unsigned)*p);
		else
			putchar(*p);
	printf("\"%s", after);
}

int
main(void)
{
	char *msg = malloc(MAX), *body = malloc(MAX), from[4096] = "", subject[70000] = "", *c;
	struct mime_span header, value;
	static struct mime_body found;
	size_t n, len = 0;

	if (msg == NULL || body == NULL)
		return 1;
	n = fread(msg, 1, MAX, stdin);
	header = mime_header(msg, n);
	if (mime_field(header, "From", &value))
		mime_address(&value, from, sizeof(from));
	for (c = from; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + 32);
	mime_body(msg, n, &found);
	if (mime_field(header, "Subject", &value))
		len = mime_words(value, found.first.charset, subject, sizeof(subject));
	putchar('{');
	member("from", from, strlen(from), ",");
	member("subject", subject, len, ",");
	member("body", body, mime_body_text(&found, body, MAX), ",");
	member("content_type", found.first.type, strlen(found.first.type), ",");
	member("charset", found.first.charset, strlen(found.first.charset), "}\n");
	free(msg);
	free(body);
	return 0;
}
