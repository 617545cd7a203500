/*
 * mime.c - octets to text, see mime.h
 */
#define _POSIX_C_SOURCE 200809L

#include <iconv.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "mime.h"

struct out { char *ptr; size_t len, cap; };	/* cap: without the final NUL */

static int
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct mime_span
trim(struct mime_span s)
{
	while (s.len > 0 && is_blank(*s.ptr))
		s.ptr++, s.len--;
	while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
		s.len--;
	return s;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

int
mime_is(struct mime_span name, const char *want)
{
	return strlen(want) == name.len && strncasecmp(name.ptr, want, name.len) == 0;
}

/* ---- UTF-8 ---- */

/* The length of the well-formed character at p, or 0. RFC 3629 4. */
static size_t
utf8_char(const unsigned char *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	if (p[0] < 0xe0)
		return n >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
	if (p[0] < 0xf0)
		return n >= 3 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 &&
		    (p[0] != 0xe0 || p[1] >= 0xa0) && (p[0] != 0xed || p[1] < 0xa0) ? 3 : 0;
	return n >= 4 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80 &&
	    (p[0] != 0xf0 || p[1] >= 0x90) && (p[0] != 0xf4 || p[1] < 0x90) ? 4 : 0;
}

static void
put(struct out *o, const char *p, size_t n)
{
	size_t room = o->cap - o->len;

	if (n > room) {			/* full: cut between characters, and take no more */
		for (n = room; n > 0 && (p[n] & 0xc0) == 0x80; n--)
			;
		memcpy(o->ptr + o->len, p, n);
		o->len += n;
		o->cap = o->len;
		return;
	}
	memcpy(o->ptr + o->len, p, n);
	o->len += n;
}

static void
put_code(struct out *o, unsigned c)
{
	char b[4];

	if (c == 0)
		return;
	if (c < 0x80) {
		b[0] = (char)c;
		put(o, b, 1);
	} else if (c < 0x800) {
		b[0] = (char)(0xc0 | c >> 6), b[1] = (char)(0x80 | (c & 63));
		put(o, b, 2);
	} else {
		b[0] = (char)(0xe0 | c >> 12), b[1] = (char)(0x80 | (c >> 6 & 63));
		b[2] = (char)(0x80 | (c & 63));
		put(o, b, 3);
	}
}

/* ---- charsets ---- */

/* Labels as browsers read them (WHATWG Encoding Standard), and iconv's name for what is meant. */
static const struct { const char *labels, *name; } charsets[] = {
	{ " utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 x-unicode20utf8 utf_8 ", "UTF-8" },
	{ " iso-8859-1 iso8859-1 iso88591 iso_8859-1 latin1 l1 cp819 ibm819 csisolatin1 iso-ir-100"
	  " windows-1252 cp1252 x-cp1252 iso_8859-1:1987 ", "" },
	{ " us-ascii ascii ansi_x3.4-1968 us_ascii usascii ", NULL },
	{ " iso-8859-2 iso8859-2 iso88592 latin2 l2 ", "ISO-8859-2" },
	{ " iso-8859-3 latin3 l3 ", "ISO-8859-3" }, { " iso-8859-4 latin4 l4 ", "ISO-8859-4" },
	{ " iso-8859-5 cyrillic ", "ISO-8859-5" },
	{ " iso-8859-6 arabic asmo-708 iso-8859-6-e iso-8859-6-i ", "ISO-8859-6" },
	{ " iso-8859-7 greek ecma-118 elot_928 ", "ISO-8859-7" },
	{ " iso-8859-8 iso-8859-8-i iso-8859-8-e hebrew visual logical ", "ISO-8859-8" },
	{ " iso-8859-9 latin5 l5 windows-1254 cp1254 ", "CP1254" },
	{ " iso-8859-10 latin6 ", "ISO-8859-10" }, { " iso-8859-13 ", "ISO-8859-13" },
	{ " iso-8859-14 ", "ISO-8859-14" }, { " iso-8859-15 latin9 l9 ", "ISO-8859-15" },
	{ " iso-8859-16 ", "ISO-8859-16" },
	{ " tis-620 windows-874 dos-874 iso-8859-11 ", "CP874" },
	{ " windows-1250 cp1250 ", "CP1250" }, { " windows-1251 cp1251 ", "CP1251" },
	{ " windows-1253 cp1253 ", "CP1253" }, { " windows-1255 cp1255 ", "CP1255" },
	{ " windows-1256 cp1256 ", "CP1256" }, { " windows-1257 cp1257 ", "CP1257" },
	{ " windows-1258 cp1258 ", "CP1258" },
	{ " koi8-r koi8 koi koi8_r cskoi8r ", "KOI8-R" }, { " koi8-u koi8-ru ", "KOI8-U" },
	{ " gb2312 gbk gb18030 gb_2312-80 chinese x-gbk cp936 gb-2312 euc-cn ", "GB18030" },
	{ " big5 big5-hkscs cn-big5 csbig5 x-x-big5 ", "BIG5-HKSCS" },
	{ " shift_jis shift-jis sjis x-sjis ms_kanji windows-31j ms932 cp932 ", "CP932" },
	{ " euc-jp x-euc-jp ", "EUC-JP" }, { " iso-2022-jp csiso2022jp ", "ISO-2022-JP" },
	{ " euc-kr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 korean windows-949 cp949 ms949 uhc ",
	  "CP949" },
	{ " utf-16 utf-16le unicode ucs-2 iso-10646-ucs-2 csunicode ", "UTF-16LE" },
	{ " utf-16be unicodefffe ", "UTF-16BE" }, { " hz-gb-2312 ", "HZ" },
	{ " macintosh mac x-mac-roman ", "MACINTOSH" }, { " ibm866 cp866 ", "CP866" },
};

static const unsigned short cp1252[32] = {
	0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039,
	0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
	0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
};

enum kind { GUESS, UTF8, CP1252, ICONV };

struct conv {
	enum kind kind;
	iconv_t cd;
	char hold[16];			/* a character that is not whole yet */
	size_t held;
	int invalid;			/* octets that were no UTF-8 */
	struct out *o;			/* NULL: only look */
};

static void
conv_open(struct conv *c, const char *label, struct out *o)
{
	char want[80];
	const char *name = label;
	size_t i, n = strlen(label);

	memset(c, 0, sizeof(*c));
	c->o = o;
	if (n == 0 || n > sizeof(want) - 3)
		return;
	want[0] = ' ';
	memcpy(want + 1, label, n);
	memcpy(want + 1 + n, " ", 2);
	for (i = 0; i < sizeof(charsets) / sizeof(*charsets); i++)
		if (strstr(charsets[i].labels, want)) {
			name = charsets[i].name;
			break;
		}
	if (name == NULL)
		return;
	if (*name == '\0' || strcmp(name, "UTF-8") == 0) {
		c->kind = *name ? UTF8 : CP1252;
		return;
	}
	c->cd = iconv_open("UTF-8", name);
	c->kind = c->cd == (iconv_t)-1 ? GUESS : ICONV;
}

static void
conv_utf8(struct conv *c, const char *p, size_t n)
{
	size_t i = 0, from = 0, k;
	uint64_t w;

	while (i < n) {
		while (n - i >= 8 && (memcpy(&w, p + i, 8), !(w & UINT64_C(0x8080808080808080)) &&
		    !((w - UINT64_C(0x0101010101010101)) & ~w & UINT64_C(0x8080808080808080))))
			i += 8;
		if (i == n)
			break;
		if (p[i] != '\0' && (k = utf8_char((const unsigned char *)p + i, n - i)) > 0) {
			i += k;
			continue;
		}
		if (c->o)
			put(c->o, p + from, i - from);
		/* A character cut off by the end of the piece waits for the next one. */
		if ((unsigned char)p[i] >= 0xc2 && n - i < 4 && c->held == 0) {
			static const char fill[2][4] = { { (char)0x80, (char)0x80, (char)0x80, 0 },
			    { (char)0xa0, (char)0x80, (char)0x80, 0 } };
			unsigned char t[4];
			int f;

			for (f = 0; f < 2; f++) {
				memcpy(t, p + i, n - i);
				memcpy(t + (n - i), fill[f], 4 - (n - i));
				if (utf8_char(t, 4) > n - i) {
					memcpy(c->hold, p + i, n - i);
					c->held = n - i;
					return;
				}
			}
		}
		if (p[i] != '\0') {
			c->invalid = 1;
			if (c->o)
				put(c->o, "\xef\xbf\xbd", 3);
		}
		from = ++i;
	}
	if (c->o)
		put(c->o, p + from, n - from);
}

static void
conv_iconv(struct conv *c, const char *p, size_t n)
{
	char buf[1024], *out, *z;
	size_t left, len;

	while (n > 0) {
		out = buf;
		left = sizeof(buf);
		if (iconv(c->cd, (void *)&p, &n, &out, &left) != (size_t)-1)
			n = 0;
		len = sizeof(buf) - left;
		for (out = buf; (z = memchr(out, '\0', len)) != NULL; out = z + 1) {
			put(c->o, out, (size_t)(z - out));
			len -= (size_t)(z - out) + 1;
		}
		put(c->o, out, len);
		if (n > 0 && left >= 16) {
			if (n < sizeof(c->hold)) {	/* perhaps only cut off */
				memcpy(c->hold, p, n);
				c->held = n;
				return;
			}
			put(c->o, "\xef\xbf\xbd", 3);
			p++, n--;
		}
	}
}

/* Converts a piece; what it ends with may have to wait for the next. */
static void
conv_add(struct conv *c, const char *p, size_t n)
{
	char join[sizeof(c->hold) + 4096];
	size_t k;

	while (c->held > 0 && n > 0) {
		k = n < 4096 ? n : 4096;
		memcpy(join, c->hold, c->held);
		memcpy(join + c->held, p, k);
		k += c->held;
		n -= k - c->held;
		p += k - c->held;
		c->held = 0;
		conv_add(c, join, k);
	}
	if (n == 0)
		return;
	if (c->kind == ICONV)
		conv_iconv(c, p, n);
	else if (c->kind == CP1252)
		for (; n > 0; p++, n--) {
			unsigned char u = (unsigned char)*p;

			put_code(c->o, u >= 0x80 && u < 0xa0 ? cp1252[u - 0x80] : u);
		}
	else
		conv_utf8(c, p, n);
}

static void
conv_end(struct conv *c)
{
	char hold[16];
	size_t i, n = c->held;

	memcpy(hold, c->hold, n);
	for (i = 0; i < n; i++) {
		c->invalid = 1;
		c->held = 0;
		if (c->kind == ICONV && i > 0)
			conv_add(c, hold + i, n - i);
		else if (c->o)
			put(c->o, "\xef\xbf\xbd", 3);
		if (c->kind == ICONV && i > 0 && c->held == 0)
			break;
	}
	c->held = 0;
	if (c->kind == ICONV)
		iconv_close(c->cd);
}

static size_t
finish(struct out *o)
{
	o->ptr[o->len] = '\0';
	return o->len;
}

/* Octets of one charset; unlabelled ones are UTF-8 where that is valid, else windows-1252. */
static void
convert(const char *label, const char *p, size_t n, struct out *o)
{
	struct conv c;

	conv_open(&c, label, NULL);
	if (c.kind == GUESS) {
		conv_add(&c, p, n);
		c.kind = c.invalid || c.held ? CP1252 : UTF8;
		c.held = 0;
	}
	c.o = o;
	conv_add(&c, p, n);
	conv_end(&c);
}

size_t
mime_utf8(struct mime_span octets, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1 };

	convert("", octets.ptr, octets.len, &o);
	return finish(&o);
}

/* ---- fields ---- */

/* The length of the line at p, with its end. */
static size_t
line_len(const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);

	return lf ? (size_t)(lf - p) + 1 : n;
}

/* The length of a field's name, if a line is the first of a field. */
static size_t
name_len(const char *p, size_t n)
{
	size_t i = 0, k;

	while (i < n && p[i] > ' ' && p[i] != ':' && p[i] != 127)
		i++;
	for (k = i; k < n && (p[k] == ' ' || p[k] == '\t'); k++)
		;
	return i > 0 && k < n && p[k] == ':' ? i : 0;
}

struct mime_span
mime_header(const char *msg, size_t len)
{
	struct mime_span h = { msg, 0 };
	size_t n;

	while (h.len < len) {
		const char *p = msg + h.len;

		n = line_len(p, len - h.len);
		if (*p == '\n' || (n == 2 && *p == '\r' && p[1] == '\n'))
			break;
		if (h.len == 0 && n > 5 && memcmp(p, "From ", 5) == 0)
			;
		else if (!((*p == ' ' || *p == '\t') && h.len > 0) && name_len(p, n) == 0)
			break;
		h.len += n;
	}
	return h;
}

/* What follows a header: the empty line belongs to neither. */
static struct mime_span
after_header(struct mime_span header, const char *msg, size_t len)
{
	struct mime_span b = { msg + header.len, len - header.len };

	if (b.len >= 2 && b.ptr[0] == '\r' && b.ptr[1] == '\n')
		b.ptr += 2, b.len -= 2;
	else if (b.len >= 1 && b.ptr[0] == '\n')
		b.ptr++, b.len--;
	return b;
}

int
mime_next_field(struct mime_span *h, struct mime_span *name, struct mime_span *value)
{
	const char *p, *colon;
	size_t n, k;

	while (h->len > 0) {
		p = h->ptr;
		n = line_len(p, h->len);
		k = name_len(p, n);
		while (n < h->len && (p[n] == ' ' || p[n] == '\t'))
			n += line_len(p + n, h->len - n);
		h->ptr += n;
		h->len -= n;
		if (k == 0)
			continue;
		colon = memchr(p + k, ':', n - k);
		name->ptr = p;
		name->len = k;
		value->ptr = colon + 1;
		value->len = n - (size_t)(colon + 1 - p);
		return 1;
	}
	return 0;
}

int
mime_field(struct mime_span header, const char *name, struct mime_span *value)
{
	struct mime_span n;

	while (mime_next_field(&header, &n, value))
		if (mime_is(n, name))
			return 1;
	return 0;
}

/* ---- transfer-encodings ---- */

static int
hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 :
	    c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int
b64(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 :
	    c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' || c == '-' ? 62 :
	    c == '/' || c == '_' ? 63 : -1;
}

/* Takes encoded octets off in, fills dst; gives octets written, 0 at the end. */
struct decode { struct mime_span in; enum mime_encoding encoding; unsigned bits; int have; };

static size_t
decode(struct decode *d, char *dst, size_t cap)
{
	const char *p = d->in.ptr, *end = p + d->in.len, *q;
	size_t n = 0;
	int v, w;

	if (d->encoding == MIME_IDENTITY) {
		n = d->in.len < cap ? d->in.len : cap;
		memcpy(dst, p, n);
		p += n;
	} else if (d->encoding == MIME_BASE64) {
		while (p < end && n + 1 < cap) {
			if (*p == '=')
				d->have = 0;
			else if ((v = b64(*p)) >= 0) {
				d->bits = d->bits << 6 | (unsigned)v;
				if ((d->have += 6) >= 8) {
					d->have -= 8;
					dst[n++] = (char)(d->bits >> d->have & 255);
				}
			}
			p++;
		}
	} else {
		while (p < end && n + 1 < cap) {
			if (*p == '=') {
				if (end - p > 2 && (v = hex(p[1])) >= 0 && (w = hex(p[2])) >= 0) {
					dst[n++] = (char)(v << 4 | w);
					p += 3;
					continue;
				}
				for (q = p + 1; q < end && (*q == ' ' || *q == '\t'); q++)
					;
				if (q < end && *q == '\r')
					q++;
				if (q >= end || *q == '\n') {
					p = q < end ? q + 1 : end;
					continue;
				}
			} else if (*p == ' ' || *p == '\t') {
				for (q = p; q < end && (*q == ' ' || *q == '\t'); q++)
					;
				if (q < end && (*q == '\n' || (*q == '\r' && q + 1 < end && q[1] == '\n'))) {
					p = q;
					continue;
				}
			}
			dst[n++] = *p++;
		}
	}
	d->in.len -= (size_t)(p - d->in.ptr);
	d->in.ptr = p;
	return n;
}

/* ---- encoded-words ---- */

/* "=?charset?B?text?=" at p: its length and parts, or 0. RFC 2047 2. */
static size_t
encoded_word(const char *p, size_t n, struct mime_span *charset, char *how, struct mime_span *text)
{
	const char *q, *end = p + n;

	if (n < 8 || p[0] != '=' || p[1] != '?')
		return 0;
	for (q = p + 2; q < end && *q != '?' && !is_blank(*q); q++)
		;
	if (end - q < 4 || *q != '?' || q[2] != '?' || strchr("bBqQ", q[1]) == NULL)
		return 0;
	charset->ptr = p + 2;
	charset->len = (size_t)(q - p) - 2;
	*how = lower(q[1]);
	text->ptr = q += 3;
	while (q + 1 < end && !(q[0] == '?' && q[1] == '=') && *q != '\n')
		q++;
	if (q + 1 >= end || *q == '\n')
		return 0;
	text->len = (size_t)(q - text->ptr);
	return (size_t)(q + 2 - p);
}

static void
put_word(struct out *o, struct mime_span charset, char how, struct mime_span text)
{
	char label[64], buf[2048];
	struct decode d = { text, how == 'b' ? MIME_BASE64 : MIME_QP, 0, 0 };
	const char *star = memchr(charset.ptr, '*', charset.len);
	size_t i, n = 0, k;

	if (star)
		charset.len = (size_t)(star - charset.ptr);
	for (i = 0; i < charset.len && i < sizeof(label) - 1; i++)
		label[i] = lower(charset.ptr[i]);
	label[i] = '\0';
	while (d.in.len > 0 && n + 1 < sizeof(buf)) {
		if (how == 'q' && *d.in.ptr == '_') {
			buf[n++] = ' ';
			d.in.ptr++, d.in.len--;
			continue;
		}
		if (how == 'q') {
			struct decode one = d;
			const char *us = memchr(d.in.ptr, '_', d.in.len);

			if (us)
				one.in.len = (size_t)(us - d.in.ptr);
			i = one.in.len;
			k = decode(&one, buf + n, sizeof(buf) - n);
			i -= one.in.len;
			d.in.ptr += i, d.in.len -= i;
		} else
			k = decode(&d, buf + n, sizeof(buf) - n);
		if (k == 0)
			break;
		n += k;
	}
	convert(label, buf, n, o);
}

/* One encoded-word run or a stretch of text at a time. */
static void
words(struct mime_span v, struct out *o)
{
	struct mime_span charset, text;
	size_t i = 0, k, from = 0;
	char how;

	while (i < v.len) {
		if (v.ptr[i] != '=' || (k = encoded_word(v.ptr + i, v.len - i, &charset, &how,
		    &text)) == 0) {
			i++;
			continue;
		}
		convert("", v.ptr + from, i - from, o);
		put_word(o, charset, how, text);
		from = i += k;
		while (i < v.len && is_blank(v.ptr[i]))
			i++;
		if (i < v.len && encoded_word(v.ptr + i, v.len - i, &charset, &how, &text) > 0)
			from = i;
		else
			i = from;
	}
	convert("", v.ptr + from, v.len - from, o);
}

size_t
mime_words(struct mime_span value, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1 };
	size_t i, n = 0;

	words(trim(value), &o);
	for (i = 0; i < o.len; i++)
		if (dst[i] != '\r' && dst[i] != '\n')
			dst[n++] = dst[i] == '\t' ? ' ' : dst[i];
	o.len = n;
	return finish(&o);
}

/* ---- addresses ---- */

int
mime_address(struct mime_span *list, char *dst, size_t cap)
{
	char text[1024];
	const char *p = list->ptr, *end = p + list->len;
	size_t n = 0;
	int depth = 0, quoted = 0, angle = 0;

	for (; p < end; p++) {
		char c = *p;

		if (depth > 0) {
			if (c == '\\' && p + 1 < end)
				p++;
			else
				depth += c == '(' ? 1 : c == ')' ? -1 : 0;
			continue;
		}
		if (c == '\r' || c == '\n')
			continue;
		if (!quoted && c == '(') {
			depth = 1;
			continue;
		}
		if (!quoted && c == '<' && angle == 0) {
			n = 0;
			angle = 1;
			continue;
		}
		if (!quoted && c == '>' && angle == 1) {
			angle = 2;
			continue;
		}
		if (!quoted && angle != 1 && (c == ',' || c == ';' || c == ':')) {
			if (c == ':') {		/* a group's name */
				n = 0;
				continue;
			}
			if (n > 0) {
				p++;
				break;
			}
			continue;
		}
		if (!quoted && angle == 1 && c == ':') {	/* a route */
			n = 0;
			continue;
		}
		if (angle == 2 || (!quoted && (c == ' ' || c == '\t')))
			continue;
		if (c == '"')
			quoted = !quoted;
		if (n < sizeof(text))
			text[n++] = c;
		if (quoted && c == '\\' && p + 1 < end && n < sizeof(text))
			text[n++] = *++p;
	}
	list->ptr = p;
	list->len = (size_t)(end - p);
	if (n == 0) {
		*dst = '\0';
		return 0;
	}
	mime_utf8((struct mime_span){ text, n }, dst, cap);
	return 1;
}

/* ---- parameters ---- */

size_t
mime_param(struct mime_span value, const char *name, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1 };
	const char *p = memchr(value.ptr, ';', value.len), *end = value.ptr + value.len;
	size_t want = strlen(name), n;

	while (p && p < end) {
		const char *key, *v;

		for (p++; p < end && is_blank(*p); p++)
			;
		for (key = p; p < end && *p != '=' && *p != ';'; p++)
			;
		n = trim((struct mime_span){ key, (size_t)(p - key) }).len;
		if (p == end || *p == ';')
			continue;
		for (p++; p < end && is_blank(*p); p++)
			;
		v = p;
		if (p < end && *p == '"') {
			for (v = ++p; p < end && *p != '"'; p++)
				if (*p == '\\' && p + 1 < end)
					p++;
		} else
			while (p < end && *p != ';')
				p++;
		if (n == want && strncasecmp(key, name, n) == 0) {
			struct mime_span s = { v, (size_t)(p - v) };
			size_t i;

			s = trim(s);
			for (i = 0; i < s.len; i++) {
				if (s.ptr[i] == '\\' && i + 1 < s.len)
					i++;
				if (s.ptr[i] != '\r' && s.ptr[i] != '\n')
					put(&o, s.ptr + i, 1);
			}
			break;
		}
		while (p < end && *p != ';')
			p++;
	}
	return finish(&o);
}

/* ---- parts ---- */

static void
describe(struct mime_part *p, int digest)
{
	struct mime_span v, name, header = p->header;
	char text[64];
	size_t i;

	strcpy(p->type, digest ? "message/rfc822" : "text/plain");
	p->charset[0] = '\0';
	p->encoding = MIME_IDENTITY;
	p->attachment = 0;
	while (mime_next_field(&header, &name, &v)) {
		if (mime_is(name, "Content-Type")) {
			struct mime_span t = trim(v);
			const char *semi = memchr(t.ptr, ';', t.len);

			if (semi)
				t.len = (size_t)(semi - t.ptr);
			t = trim(t);
			if (t.len > 0 && t.len < sizeof(p->type) && memchr(t.ptr, '/', t.len)) {
				for (i = 0; i < t.len; i++)
					p->type[i] = lower(t.ptr[i]);
				p->type[i] = '\0';
			}
			mime_param(v, "charset", p->charset, sizeof(p->charset));
			for (i = 0; p->charset[i]; i++)
				p->charset[i] = lower(p->charset[i]);
		} else if (mime_is(name, "Content-Transfer-Encoding")) {
			struct mime_span t = trim(v);

			p->encoding = t.len >= 6 && strncasecmp(t.ptr, "base64", 6) == 0 ? MIME_BASE64 :
			    t.len >= 16 && strncasecmp(t.ptr, "quoted-printable", 16) == 0 ? MIME_QP :
			    MIME_IDENTITY;
		} else if (mime_is(name, "Content-Disposition")) {
			struct mime_span t = trim(v);

			mime_param(v, "filename", text, sizeof(text));
			p->attachment = t.len >= 10 && strncasecmp(t.ptr, "attachment", 10) == 0;
		}
	}
}

void
mime_start(struct mime_walk *w, const char *msg, size_t len)
{
	w->rest.ptr = msg;
	w->rest.len = len;
	w->depth = -1;
}

/* Is the line at p the boundary of a level? 2: its end. */
static int
is_boundary(const char *p, size_t n, struct mime_span b)
{
	int end = 0;

	if (n < b.len + 2 || p[0] != '-' || p[1] != '-' || memcmp(p + 2, b.ptr, b.len) != 0)
		return 0;
	p += 2 + b.len, n -= 2 + b.len;
	if (n >= 2 && p[0] == '-' && p[1] == '-')
		end = 1, p += 2, n -= 2;
	while (n > 0 && is_blank(*p))
		p++, n--;
	return n == 0 ? 1 + end : 0;
}

int
mime_next(struct mime_walk *w, struct mime_part *part)
{
	const char *p, *end = w->rest.ptr + w->rest.len;
	struct mime_span v;
	char text[256];
	size_t n;
	int i, kind, digest = w->depth > 0 && w->level[w->depth - 1].digest;

	if (w->depth == -1)
		w->depth = 0;
	else {			/* on to the next boundary */
		for (p = w->rest.ptr; ; p += n) {
			if (p >= end || w->depth == 0)
				return 0;
			n = line_len(p, (size_t)(end - p));
			for (i = w->depth - 1; i >= 0; i--)
				if ((kind = is_boundary(p, n, w->level[i].boundary)) > 0)
					break;
			if (i < 0)
				continue;
			w->depth = i + (kind == 1);
			if (kind == 1)
				break;
		}
		w->rest.ptr = p + n;
		w->rest.len = (size_t)(end - w->rest.ptr);
		digest = w->level[w->depth - 1].digest;
	}
	part->depth = w->depth;
	part->header = mime_header(w->rest.ptr, w->rest.len);
	part->body = after_header(part->header, w->rest.ptr, w->rest.len);
	describe(part, digest);
	/* Up to the next boundary of any level. */
	for (p = part->body.ptr; p < end && w->depth > 0; p += n) {
		n = line_len(p, (size_t)(end - p));
		for (i = w->depth - 1; i >= 0 && !is_boundary(p, n, w->level[i].boundary); i--)
			;
		if (i >= 0)
			break;
	}
	if (w->depth == 0)
		p = end;
	part->body.len = (size_t)(p - part->body.ptr);
	w->rest.ptr = p;
	w->rest.len = (size_t)(end - p);
	if (w->depth > 0 && p < end && part->body.len > 0) {	/* CRLF before it belongs to it */
		part->body.len--;
		if (part->body.len > 0 && part->body.ptr[part->body.len - 1] == '\r')
			part->body.len--;
	}
	if (strncmp(part->type, "multipart/", 10) == 0 && w->depth < MIME_DEPTH &&
	    mime_field(part->header, "Content-Type", &v) &&
	    (n = mime_param(v, "boundary", text, sizeof(text))) > 0) {
		for (p = v.ptr; p + n <= v.ptr + v.len && memcmp(p, text, n) != 0; p++)
			;
		if (p + n <= v.ptr + v.len) {
			w->level[w->depth].boundary.ptr = p;
			w->level[w->depth].boundary.len = n;
			w->level[w->depth].digest = strcmp(part->type, "multipart/digest") == 0;
			w->depth++;
			w->rest.ptr = part->body.ptr;
			w->rest.len = (size_t)(end - part->body.ptr);
		}
	}
	return 1;
}

size_t
mime_text(const struct mime_part *p, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1 };
	struct decode d = { p->body, p->encoding, 0, 0 };
	struct conv c;
	char buf[4096];
	size_t n;

	conv_open(&c, p->charset, NULL);
	if (c.kind == GUESS) {
		while ((n = decode(&d, buf, sizeof(buf))) > 0)
			conv_add(&c, buf, n);
		c.kind = c.invalid || c.held ? CP1252 : UTF8;
		c.held = 0;
		d = (struct decode){ p->body, p->encoding, 0, 0 };
	}
	c.o = &o;
	while ((n = decode(&d, buf, sizeof(buf))) > 0)
		conv_add(&c, buf, n);
	conv_end(&c);
	return finish(&o);
}

static int
is_empty(const struct mime_part *p)
{
	char text[512];
	size_t i, n = mime_text(p, text, sizeof(text));

	for (i = 0; i < n && (is_blank(text[i]) || text[i] == '\f' || text[i] == '\v'); i++)
		;
	return i == n;
}

int
mime_body(const char *msg, size_t len, struct mime_part *best)
{
	struct mime_walk w;
	struct mime_part p;
	int found = 0;

	memset(best, 0, sizeof(*best));
	best->body.ptr = msg;
	strcpy(best->type, "text/plain");
	mime_start(&w, msg, len);
	while (found < 2 && mime_next(&w, &p)) {
		int rank = p.attachment ? 0 : strcmp(p.type, "text/html") == 0 ? 2 :
		    strcmp(p.type, "text/plain") == 0 ? 1 : 0;

		if (rank > found && !is_empty(&p)) {
			*best = p;
			found = rank;
		}
	}
	return found > 0;
}
