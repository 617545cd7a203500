/*
 * Any octets in, valid UTF-8 out: calls all of mime.h on one input and checks
 * what it promises. An entry point for libFuzzer; with -DSTANDALONE a program
 * that takes files, to run a corpus or a finding again.
 */
#include <string.h>

#include "../../mime.h"
#include "fuzz.h"

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

/*
 * Text put in comes out: a message of parts that the input chooses, in charsets,
 * transfer-encodings and multiparts that it chooses, whose body is known.
 */
struct draft {
	const uint8_t *data, *end;	/* choices; 0 where there are no more */
	char msg[65536], want[65536];
	size_t len, want_len;
	char html;			/* the body is HTML, which nothing follows */
	int parts;			/* texts in the body so far */
};

static const struct { const char *charset, *octets, *text; } says[] = {
	{ "utf-8", "\xc3\xa4\xe6\xa9\x8b\xf0\x9f\x98\x80", "\xc3\xa4\xe6\xa9\x8b\xf0\x9f\x98\x80" },
	{ "us-ascii", "a=b", "a=b" }, { "", "\xc3\xa4", "\xc3\xa4" }, { "x-nobody", "\xe4", "\xc3\xa4" },
	{ "ISO-8859-1", "\xe4\x80", "\xc3\xa4\xe2\x82\xac" }, { "koi8-r", "\xc1\xc2", "\xd0\xb0\xd0\xb1" },
	{ "win-1251", "\xcf\xf0", "\xd0\x9f\xd1\x80" }, { "cp-866", "\x80", "\xd0\x90" },
	{ "gb2312", "\xc4\xe3\x80", "\xe4\xbd\xa0\xe2\x82\xac" }, { "big5", "\xa7\x41\xa1\xfe", "\xe4\xbd\xa0\xef\xbc\x8f" },
	{ "euc_jp", "\xfc\xe2\xb6\xb6", "\xe9\xab\x99\xe6\xa9\x8b" },
	{ "cp50221", "\033$B|b66\033(B", "\xe9\xab\x99\xe6\xa9\x8b" },
	{ "iso-2022-jp", "\xe6\xa9\x8b", "\xe6\xa9\x8b" }, { "shift_jis", "\x82\xa0", "\xe3\x81\x82" },
	{ "ks_c_5601-1987", "\xb0\xa1", "\xea\xb0\x80" }, { "iso-2022-kr", "\033$)C\x0e\x30\x21\x0f", "\xea\xb0\x80" },
	{ "hz-gb-2312", "~{Dc~}~~", "\xe4\xbd\xa0~" }, { "utf-7", "+AOQ-1+1", "\xc3\xa4" "1+1" },
};

static unsigned
choose(struct draft *d, unsigned n)
{
	return d->data < d->end ? *d->data++ % n : 0;
}

static void
add(struct draft *d, const char *text)
{
	size_t n = strlen(text);

	if (d->len + n < sizeof(d->msg)) {
		memcpy(d->msg + d->len, text, n);
		d->len += n;
	}
}

static void
add_octets(struct draft *d, const uint8_t *p, size_t n, unsigned encoding)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned width = 1 + choose(d, 80), column = 0;
	char one[8];
	size_t i;

	for (i = 0; i < n; i += encoding == MIME_BASE64 ? 3 : 1) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? p[i + 1] : 0u) << 8 | (i + 2 < n ? p[i + 2] : 0u);

		if (encoding == MIME_BASE64)
			sprintf(one, "%c%c%c%c", digits[v >> 18], digits[v >> 12 & 63],
			    i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '=');
		else if (encoding == MIME_QP && p[i] != '\r' && p[i] != '\n' &&
		    (p[i] < 33 || p[i] > 126 || p[i] == '=' || width % 3 == 0))
			sprintf(one, width % 2 ? "=%02X" : "=%02x", p[i]);
		else
			sprintf(one, "%c", p[i]);
		add(d, one);
		if (encoding != MIME_IDENTITY && ++column % width == 0 && p[i] != '\r')
			add(d, encoding == MIME_QP ? "=\r\n" : "\r\n");
	}
}

/* One text part; shown: it belongs to the body, unless that is HTML. */
static void
add_text(struct draft *d, int html, const char *fields, int shown)
{
	static const char *const encodings[] = { "", "quoted-printable", "\"BASE64\"" };
	unsigned k = choose(d, sizeof(says) / sizeof(*says)), encoding = choose(d, 3), n = 1 + choose(d, 30);
	uint8_t octets[2048];
	size_t len = 0;

	add(d, html ? "Content-Type: text/html; charset=" : "content-type: Text/Plain; Charset=");
	add(d, *says[k].charset ? says[k].charset : "\"\"");
	add(d, "\r\nContent-Transfer-Encoding: ");
	add(d, encodings[encoding]);
	add(d, "\r\n");
	add(d, fields);
	add(d, "\r\n");
	if (shown && !d->html) {
		if (html)
			d->want_len = 0;
		else if (d->parts++ > 0)
			d->want_len += (size_t)sprintf(d->want + d->want_len, "\r\n\r\n");
		d->html = (char)html;
	} else
		shown = 0;
	while (n-- > 0) {
		const char *gap = n == 0 ? "." : choose(d, 4) ? " " : "\r\n";

		len += (size_t)sprintf((char *)octets + len, "%s%s", says[k].octets, gap);
		if (shown)
			d->want_len += (size_t)sprintf(d->want + d->want_len, "%s%s", says[k].text, gap);
	}
	add_octets(d, octets, len, encoding);
}

/* The parts of a multipart; what is behind the first alternative counts where it is HTML. */
static void
add_parts(struct draft *d, unsigned depth, int shown)
{
	unsigned n = 1 + choose(d, 4), alternative = choose(d, 2);
	char line[120];

	sprintf(line, "Content-Type: multipart/%s; boundary=\"b%u x\"\r\n%s\r\n", alternative ? "alternative" :
	    "mixed", depth, shown ? "" : "Content-Disposition: attachment\r\n");
	add(d, line);
	sprintf(line, "\r\n--b%u x\r\n", depth);
	if (alternative) {
		int fresh = d->parts == 0;

		add(d, line);
		add_text(d, 0, "", shown);
		add(d, line);
		add_text(d, 1, "", shown && fresh);
		n = 0;
	}
	while (n-- > 0 && d->len < 30000 && d->want_len < 30000) {
		add(d, line);
		switch (choose(d, depth < 5 ? 6 : 5)) {
		case 1:
			add(d, "Content-Type: image/png\r\n\r\nno text");
			break;
		case 2:
			add_text(d, 0, "Content-Disposition: attachment; filename=x\r\n", 0);
			break;
		case 3:
			add(d, "\r\n \t\r\n");
			break;
		case 4:
			add(d, "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nno text of ours");
			break;
		case 5:
			add_parts(d, depth + 1, shown && choose(d, 4) > 0);
			break;
		default:
			add_text(d, 0, "", shown);
		}
	}
	sprintf(line, "\r\n--b%u x--\r\n", depth);
	add(d, line);
}

static void
check_known(const uint8_t *data, size_t len)
{
	static struct draft d;
	static struct mime_body found;
	static char got[sizeof(d.msg) * MIME_EXPANSION];
	size_t n;

	d.data = data;
	d.end = data + len;
	d.len = d.want_len = 0;
	d.parts = d.html = 0;
	add(&d, "From: a@b.example\r\nMIME-Version: 1.0\r\n");
	if (choose(&d, 4) == 0)
		add_text(&d, 0, "", 1);
	else
		add_parts(&d, 0, 1);
	mime_body(d.msg, d.len, &found);
	n = mime_body_text(&found, got, found.octets * MIME_EXPANSION + 1);
	if (d.parts > 0 || d.html)
		check(n == d.want_len && memcmp(got, d.want, n) == 0, "text put in comes out");
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
	check_known(data, len);
	return 0;
}
