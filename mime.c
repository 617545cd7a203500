/*
 * mime.c - octets to text, see mime.h
 *
 * From small to large: UTF-8, charsets, transfer-encodings, fields, parameters,
 * encoded-words, addresses, parts. Everything here takes any octets and time in
 * proportion to their number; what a message means is taken from the RFCs, and
 * where mailers do otherwise, from what most parsers make of it.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <iconv.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "mime.h"

#define PIECE 4096			/* octets decoded at a time */
#define SLICE 64			/* ... where what comes before was invalid */
#define LABEL_MAX 64			/* a charset's name; longer ones are nobody's */
#define PARAM_MAX 65536			/* octets of a value in which parameters are looked for */
#define COMMENT_MAX 1024		/* octets in which a comment ends, or it is none */
#define SECTIONS_MAX 20			/* of a parameter in pieces, RFC 2231 3; each is looked for anew */
#define META_MAX 1024			/* octets of HTML that may name its charset, as browsers look */

/* Where text goes: into ptr, or, where that is NULL, nowhere, only to see whether it is blank. */
struct out {
	char *ptr;
	size_t len, cap;		/* cap: without the final NUL */
	int line;			/* unfold: no CR, no LF, blanks for tabs */
	int full;			/* takes no more: there is no room, or something was seen */
};

static int
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

/* char may be unsigned or not: what an octet is less than is asked of unsigned char. */
static int
is_ascii(char c)
{
	return c != '\0' && ((unsigned char)c & 0x80) == 0;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static struct mime_span
span(const char *from, const char *to)
{
	struct mime_span s = { from, (size_t)(to - from) };

	return s;
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

static int
begins(struct mime_span s, const char *with)
{
	size_t n = strlen(with);

	return s.len >= n && strncasecmp(s.ptr, with, n) == 0;
}

/* ---- UTF-8 ---- */

#define REPLACEMENT "\xef\xbf\xbd"	/* U+FFFD */
#define BOM "\xef\xbb\xbf"		/* U+FEFF, a byte-order mark: no text */
#define ONES UINT64_C(0x0101010101010101)

/* The octets from p on that are ASCII without NUL, looked at eight at a time. */
static size_t
ascii_len(const char *p, size_t n)
{
	size_t i = 0;
	uint64_t w;

	for (; n - i >= 8; i += 8) {
		memcpy(&w, p + i, 8);
		if ((w | (w - ONES)) & ONES << 7)	/* an octet >= 0x80, or one of 0 */
			break;
	}
	while (i < n && is_ascii(p[i]))
		i++;
	return i;
}

/*
 * The length of the character at p, RFC 3629 4; 0 where there is none, and -1
 * where there would be one if the octets went on.
 */
static int
utf8_char(const unsigned char *p, size_t n)
{
	int len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 :
	    p[0] < 0xf5 ? 4 : 0, i;

	for (i = 1; i < len; i++) {
		if ((size_t)i == n)
			return -1;
		if ((p[i] & 0xc0) != 0x80 || (i == 1 && ((p[0] == 0xe0 && p[1] < 0xa0) ||
		    (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
		    (p[0] == 0xf4 && p[1] > 0x8f))))
			return 0;
	}
	return len;
}

/* Does text hold more than white space? NBSP, ZWSP, U+3000 and a BOM are that too. */
static int
is_text(const char *p, size_t n)
{
	static const char *const blanks[] = { "\xc2\xa0", "\xe2\x80\x8b", "\xe3\x80\x80", "\xef\xbb\xbf" };
	size_t i, k, len;

	for (i = 0; i < n; ) {
		if (is_blank(p[i])) {
			i++;
			continue;
		}
		for (k = 0; k < 4; k++) {
			len = strlen(blanks[k]);
			if (n - i >= len && memcmp(p + i, blanks[k], len) == 0)
				break;
		}
		if (k == 4)
			return 1;
		i += len;
	}
	return 0;
}

/* Adds whole characters; once they do not fit, no more is taken. */
static void
put_text(struct out *o, const char *p, size_t n)
{
	if (o->full || n == 0)
		return;
	if (o->ptr == NULL) {
		o->full = is_text(p, n);
		return;
	}
	if (n > o->cap - o->len) {
		o->full = 1;
		for (n = o->cap - o->len; n > 0 && (p[n] & 0xc0) == 0x80; n--)
			;
	}
	memcpy(o->ptr + o->len, p, n);
	o->len += n;
}

static void
put(struct out *o, const char *p, size_t n)
{
	size_t k;

	if (o->len == 0 && n >= 3 && memcmp(p, BOM, 3) == 0)
		p += 3, n -= 3;
	while (o->line && n > 0) {
		for (k = 0; k < n && p[k] != '\r' && p[k] != '\n' && p[k] != '\t'; k++)
			;
		put_text(o, p, k);
		if (k < n)
			put_text(o, " ", p[k++] == '\t');
		p += k, n -= k;
	}
	put_text(o, p, n);
}

static size_t
finish(struct out *o)
{
	o->ptr[o->len] = '\0';
	return o->len;
}

/* ---- charsets ---- */

/*
 * What mailers call a charset, between spaces, and what iconv calls what they
 * mean: the labels as browsers read them (WHATWG Encoding Standard 4.2), and
 * some more. Of two names the first is better and not everywhere to be had.
 * One letter before them stands for a seven-bit form, see conv_shift().
 */
static const struct { const char *labels, *name; } charsets[] = {
	{ " utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8 utf_8 utf8mb4 ",
	  "UTF-8" },
	{ " us-ascii ascii ansi_x3.4-1968 ansi_x3.4-1986 iso-ir-6 iso646-us iso_646.irv:1991 646 us "
	  "us_ascii usascii csascii ibm367 cp367 unknown-8bit x-unknown unknown 7bit 8bit binary ",
	  "" },
	{ " iso-8859-1 iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 latin1 latin-1 l1 cp819 ibm819 "
	  "csisolatin1 iso-ir-100 windows-1252 cp1252 x-cp1252 ansi ", "CP1252" },
	{ " iso-8859-2 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 latin2 l2 csisolatin2 iso-ir-101 ",
	  "ISO-8859-2" },
	{ " iso-8859-3 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 latin3 l3 csisolatin3 iso-ir-109 ",
	  "ISO-8859-3" },
	{ " iso-8859-4 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 latin4 l4 csisolatin4 iso-ir-110 ",
	  "ISO-8859-4" },
	{ " iso-8859-5 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988 cyrillic csisolatincyrillic "
	  "iso-ir-144 ", "ISO-8859-5" },
	{ " iso-8859-6 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987 iso-8859-6-e iso-8859-6-i arabic "
	  "asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-ir-127 ", "ISO-8859-6" },
	{ " iso-8859-7 iso8859-7 iso88597 iso_8859-7 iso_8859-7:1987 greek greek8 csisolatingreek "
	  "ecma-118 elot_928 iso-ir-126 sun_eu_greek ", "ISO-8859-7" },
	{ " iso-8859-8 iso8859-8 iso88598 iso_8859-8 iso_8859-8:1988 iso-8859-8-e iso-8859-8-i hebrew "
	  "visual logical csiso88598e csiso88598i csisolatinhebrew iso-ir-138 ", "ISO-8859-8" },
	{ " iso-8859-9 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 latin5 l5 csisolatin5 iso-ir-148 "
	  "windows-1254 cp1254 x-cp1254 ", "CP1254" },
	{ " iso-8859-10 iso8859-10 iso885910 latin6 l6 csisolatin6 iso-ir-157 ", "ISO-8859-10" },
	{ " iso-8859-11 iso8859-11 iso885911 tis-620 tis620 windows-874 dos-874 cp874 ", "CP874 ISO-8859-11" },
	{ " iso-8859-13 iso8859-13 iso885913 ", "ISO-8859-13" },
	{ " iso-8859-14 iso8859-14 iso885914 ", "ISO-8859-14" },
	{ " iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9 latin9 csisolatin9 ", "ISO-8859-15" },
	{ " iso-8859-16 iso8859-16 iso885916 ", "ISO-8859-16" },
	{ " windows-1250 cp1250 x-cp1250 ", "CP1250" }, { " windows-1251 cp1251 x-cp1251 ", "CP1251" },
	{ " windows-1253 cp1253 x-cp1253 ", "CP1253" }, { " windows-1255 cp1255 x-cp1255 ", "CP1255" },
	{ " windows-1256 cp1256 x-cp1256 ", "CP1256" }, { " windows-1257 cp1257 x-cp1257 ", "CP1257" },
	{ " windows-1258 cp1258 x-cp1258 ", "CP1258" },
	{ " koi8-r koi8_r koi8 koi cskoi8r ", "KOI8-R" }, { " koi8-u koi8-ru ", "KOI8-U" },
	{ " ibm866 cp866 866 csibm866 ", "CP866" }, { " ibm850 cp850 850 ", "CP850 IBM850" },
	{ " macintosh mac x-mac-roman csmacintosh ", "MACINTOSH" },
	{ " x-mac-cyrillic x-mac-ukrainian ", "MAC-CYRILLIC MacCyrillic" },
	{ " gb2312 gb_2312 gb_2312-80 gb-2312 gbk gb18030 x-gbk chinese csgb2312 csiso58gb231280 "
	  "iso-ir-58 cp936 windows-936 ms936 euc-cn ", "GB18030" },
	{ " big5 big5-hkscs cn-big5 csbig5 x-x-big5 cp950 big-5 ", "BIG5-HKSCS BIG5" },
	{ " shift_jis shift-jis sjis x-sjis ms_kanji csshiftjis windows-31j ms932 cp932 ",
	  "CP932 SHIFT_JIS" },
	{ " euc-jp x-euc-jp eucjp cseucpkdfmtjapanese ", "EUC-JP-MS EUC-JP" },
	{ " iso-2022-jp csiso2022jp ", "J EUC-JP-MS EUC-JP" },
	{ " euc-kr euckr cseuckr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 csksc56011987 korean "
	  "iso-ir-149 windows-949 cp949 ms949 uhc ", "CP949 EUC-KR" },
	{ " iso-2022-kr csiso2022kr ", "K CP949 EUC-KR" }, { " hz-gb-2312 hz ", "H GB18030" },
	{ " utf-7 unicode-1-1-utf-7 csunicode11utf7 x-unicode-2-0-utf-7 ", "UTF-7" },
	{ " utf-16 unicode ucs-2 iso-10646-ucs-2 csunicode utf-16le ", "UTF-16LE" },
	{ " utf-16be unicodefffe ", "UTF-16BE" },
	{ " utf-32 utf-32le ucs-4 iso-10646-ucs-4 ", "UTF-32LE" }, { " utf-32be ", "UTF-32BE" },
};

/* windows-1252 from 0x80 to 0x9f; the five that it leaves open are C1 controls, as in browsers. */
static const char *const cp1252[32] = {
	"\xe2\x82\xac", "\xc2\x81", "\xe2\x80\x9a", "\xc6\x92", "\xe2\x80\x9e", "\xe2\x80\xa6",
	"\xe2\x80\xa0", "\xe2\x80\xa1", "\xcb\x86", "\xe2\x80\xb0", "\xc5\xa0", "\xe2\x80\xb9",
	"\xc5\x92", "\xc2\x8d", "\xc5\xbd", "\xc2\x8f", "\xc2\x90", "\xe2\x80\x98", "\xe2\x80\x99",
	"\xe2\x80\x9c", "\xe2\x80\x9d", "\xe2\x80\xa2", "\xe2\x80\x93", "\xe2\x80\x94", "\xcb\x9c",
	"\xe2\x84\xa2", "\xc5\xa1", "\xe2\x80\xba", "\xc5\x93", "\xc2\x9d", "\xc5\xbe", "\xc5\xb8"
};

/* GUESS: no label, or one that says nothing: UTF-8 if all of it is that, else windows-1252. */
enum kind { GUESS, UTF8, CP1252, ICONV };

/* A conversion, fed with pieces. */
struct conv {
	enum kind kind;
	iconv_t cd;
	struct out *o, before;		/* before: what o was, where UTF-8 is a guess */
	int guess;
	char hold[16];			/* a character that is not whole yet */
	size_t held;
	int invalid;
	char shift, set, third;		/* which seven-bit form, and what it has shifted to */
	char esc[4];			/* an escape sequence that is not whole yet */
	size_t escaped;
};

/* The label without quotes, blanks and what follows them; "" where it cannot be one. */
static void
clean_label(const char *label, size_t n, char dst[LABEL_MAX])
{
	size_t i = 0, k = 0;

	while (i < n && (is_blank(label[i]) || strchr("\"'", label[i])))
		i++;
	for (; i < n && is_ascii(label[i]) && label[i] > ' ' && !strchr("\"';,*?", label[i]); i++) {
		if (k == LABEL_MAX - 1 || strchr("/\\", label[i])) {
			k = 0;
			break;
		}
		dst[k++] = lower(label[i]);
	}
	dst[k] = '\0';
}

static void
conv_utf8(struct conv *c, const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t i = 0, from = 0;
	int k;

	for (;;) {
		i += ascii_len(p + i, n - i);
		if (i == n)
			break;
		for (; n - i >= 2 && u[i] >= 0xc2 && u[i] < 0xe0 && (u[i + 1] & 0xc0) == 0x80; i += 2)
			;		/* most letters that are not ASCII */
		if (i == n || is_ascii(p[i]))
			continue;
		k = p[i] ? utf8_char(u + i, n - i) : 0;
		if (k > 0) {
			i += (size_t)k;
			continue;
		}
		put(c->o, p + from, i - from);
		if (k < 0) {
			c->held = n - i;
			memcpy(c->hold, p + i, c->held);
			return;
		}
		if (p[i] != '\0') {
			c->invalid = 1;
			put(c->o, REPLACEMENT, 3);
		}
		from = ++i;
	}
	put(c->o, p + from, n - from);
}

static void
conv_cp1252(struct conv *c, const char *p, size_t n)
{
	size_t i = 0, k;
	char two[2];

	while (i < n && !c->o->full) {
		unsigned char u;

		k = ascii_len(p + i, n - i);
		put(c->o, p + i, k);
		if ((i += k) == n)
			break;
		u = (unsigned char)p[i++];
		two[0] = (char)(0xc0 | u >> 6);
		two[1] = (char)(0x80 | (u & 0x3f));
		if (u >= 0xa0)
			put(c->o, two, 2);
		else if (u != 0)
			put(c->o, cp1252[u - 0x80], strlen(cp1252[u - 0x80]));
	}
}

/*
 * Text from iconv(), which makes more than characters of some charsets (UCS-4).
 * In a field it may have several marks: one in each encoded-word of UTF-16.
 */
static void
put_converted(struct out *o, const char *p, size_t n)
{
	struct conv c = { .kind = UTF8, .o = o };
	size_t i;

	for (i = 0; o->line && i + 3 <= n; i++)
		if (p[i] == *BOM && memcmp(p + i, BOM, 3) == 0) {
			conv_utf8(&c, p, i);
			p += i + 3, n -= i + 3;
			i = (size_t)-1;
		}
	conv_utf8(&c, p, n);
	if (c.held > 0)
		put(o, REPLACEMENT, 3);
}

/*
 * After an invalid octet iconv() is given little: glibc's converts all that it is
 * given in one step before the next one may find the first character invalid.
 */
static void
conv_iconv(struct conv *c, const char *p, size_t n)
{
	char buf[PIECE], *dst;
	size_t room, done, slice = PIECE, left;

	while (n > 0 && !c->o->full) {
		dst = buf;
		room = sizeof(buf);
		left = n < slice ? n : slice;
		n -= left;
		errno = 0;
		done = iconv(c->cd, (void *)&p, &left, &dst, &room);
		put_converted(c->o, buf, sizeof(buf) - room);
		if (done == (size_t)-1 && errno == EINVAL && n == 0 && left < sizeof(c->hold)) {
			memcpy(c->hold, p, left);
			c->held = left;
			return;
		}
		if (done == (size_t)-1 && errno != E2BIG && (errno != EINVAL || n == 0 || left >= SLICE)) {
			put(c->o, REPLACEMENT, 3);
			p++, left--;
			slice = SLICE;
		} else if (slice < PIECE)
			slice *= 2;
		n += left;
	}
}

/* Converts octets; a character that their end cuts off waits for the next. */
static void
conv_octets(struct conv *c, const char *p, size_t n)
{
	char join[2 * sizeof(c->hold)];
	size_t k, had;

	while (c->held > 0 && n > 0) {
		/* Just enough to make it whole, so that a piece is never copied. */
		had = c->held;
		k = n < sizeof(c->hold) - had ? n : sizeof(c->hold) - had;
		if (c->kind != ICONV)
			k = 1;
		memcpy(join, c->hold, had);
		memcpy(join + had, p, k);
		p += k, n -= k;
		c->held = 0;
		if (c->kind == ICONV)
			conv_iconv(c, join, had + k);
		else
			conv_utf8(c, join, had + k);
	}
	if (n == 0)
		return;
	if (c->kind == ICONV)
		conv_iconv(c, p, n);
	else if (c->kind == CP1252)
		conv_cp1252(c, p, n);
	else
		conv_utf8(c, p, n);
}

/* An escape sequence's next octet: 1 where it is whole now, with its effect on set. */
static int
take_escape(struct conv *c, char u)
{
	static const struct { char shift, set; const char *esc; } known[] = {
		{ 'J', 0, "\033(B" }, { 'J', 0, "\033(J" }, { 'J', 0, "\033(H" }, { 'J', 'k', "\033(I" },
		{ 'J', 'd', "\033$@" }, { 'J', 'd', "\033$B" }, { 'J', 'd', "\033$(B" },
		{ 'J', 's', "\033$(D" }, { 'K', 0, "\033$)C" },
		{ 'H', 'd', "~{" }, { 'H', 0, "~}" }, { 'H', 0, "~\n" }
	};
	size_t i;

	c->esc[c->escaped++] = u;
	for (i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i].shift == c->shift && strlen(known[i].esc) == c->escaped &&
		    memcmp(known[i].esc, c->esc, c->escaped) == 0) {
			c->set = known[i].set;
			return 1;
		}
	return c->escaped == sizeof(c->esc) || (c->shift == 'H' && c->escaped == 2);
}

/*
 * ISO-2022-JP (RFC 1468), ISO-2022-KR (RFC 1557) and HZ (RFC 1843) are the EUC
 * charsets of their countries with shifts in place of the eighth bit. iconv()
 * is given the latter: it knows more characters, and no state is lost between
 * two encoded-words. Each line begins in ASCII.
 */
static void
conv_shift(struct conv *c, const char *p, size_t n)
{
	char buf[PIECE];
	size_t i, k = 0;
	int shifted;

	for (i = 0; i < n; i++) {
		char u = p[i];

		if (k > sizeof(buf) - 4) {
			conv_octets(c, buf, k);
			k = 0;
		}
		if (c->escaped > 0 || u == (c->shift == 'H' ? '~' : '\033')) {
			if (take_escape(c, u)) {
				c->escaped = 0;
				if (c->esc[0] == '~' && u == '~')
					buf[k++] = '~';
			}
			continue;
		}
		if (c->shift == 'K' && (u == '\016' || u == '\017')) {
			c->set = u == '\016' ? 'd' : 0;
			continue;
		}
		if (u == '\n')
			c->set = 0;
		shifted = c->set && is_ascii(u) && u > ' ';
		if (shifted && c->set == 'k')
			buf[k++] = (char)0x8e;
		if (shifted && c->set == 's' && !c->third)
			buf[k++] = (char)0x8f;
		c->third = shifted && c->set == 's' && !c->third;
		buf[k++] = shifted ? (char)(u | 0x80) : u;
	}
	conv_octets(c, buf, k);
}

/* Converts a piece of text. */
static void
conv_add(struct conv *c, const char *p, size_t n)
{
	if (c->shift && c->kind == ICONV)
		conv_shift(c, p, n);
	else
		conv_octets(c, p, n);
}

/* The end of a text: what is still held is no character. */
static void
conv_end(struct conv *c)
{
	char buf[64], *dst = buf;
	size_t room = sizeof(buf);

	for (; c->held > 0; c->held--)
		put(c->o, REPLACEMENT, 3);
	if (c->kind != ICONV)
		return;
	if (iconv(c->cd, NULL, NULL, &dst, &room) != (size_t)-1)
		put_converted(c->o, buf, sizeof(buf) - room);
	iconv_close(c->cd);
}

/* ---- transfer-encodings, RFC 2045 6 ---- */

struct decoder {
	struct mime_span in;
	enum mime_encoding encoding;
	int words;			/* Q of RFC 2047 4.2: "_" is a space */
	unsigned bits;			/* base64: what is not an octet yet */
	int have;
	const char *eol;		/* quoted-printable: where the line's text ends */
	int begun;			/* uuencode: "begin" has been seen */
};

#define HEX 16

/* HEX + the value of a hexadecimal digit, or 0. */
static int
hex(char c)
{
	static const unsigned char digits[256] = {
		['0'] = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, ['A'] = 26, 27, 28, 29, 30, 31,
		['a'] = 26, 27, 28, 29, 30, 31
	};

	return digits[(unsigned char)c];
}

/* Base64's alphabet; 64 is "=", 65 what is passed over (6.8). */
static const unsigned char b64[256] = {
#define N8 65, 65, 65, 65, 65, 65, 65, 65
	N8, N8, N8, N8, N8, 65, 65, 65, 62, 65, 65, 65, 63,
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 65, 65, 65, 64, 65, 65,
	65, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 65, 65, 65, 65, 65,
	65, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 65, 65, 65, 65, 65,
	N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8, N8
};

static size_t
decode_base64(struct decoder *d, char *dst, size_t cap)
{
	const unsigned char *p = (const unsigned char *)d->in.ptr, *end = p + d->in.len;
	unsigned a, b, c, e, bits = d->bits;
	char *q = dst;
	int have = d->have;

	while (p < end && cap - (size_t)(q - dst) >= 3) {
		if (have == 0 && end - p >= 4 && ((a = b64[p[0]]) | (b = b64[p[1]]) |
		    (c = b64[p[2]]) | (e = b64[p[3]])) < 64) {
			q[0] = (char)(a << 2 | b >> 4);
			q[1] = (char)(b << 4 | c >> 2);
			q[2] = (char)(c << 6 | e);
			q += 3, p += 4;
			continue;
		}
		a = b64[*p++];
		if (a == 64)		/* padding: what follows begins anew */
			have = 0;
		else if (a < 64) {
			bits = bits << 6 | a;
			if ((have += 6) >= 8)
				*q++ = (char)(bits >> (have -= 8));
		}
	}
	d->bits = bits;
	d->have = have;
	d->in = span((const char *)p, d->in.ptr + d->in.len);
	return (size_t)(q - dst);
}

/* The end of the line's text at p: before its CRLF and the white space that transport added. */
static const char *
qp_eol(const char *p, const char *end)
{
	const char *e = memchr(p, '\n', (size_t)(end - p));

	if (e == NULL)
		e = end;
	else if (e > p && e[-1] == '\r')
		e--;
	while (e > p && (e[-1] == ' ' || e[-1] == '\t'))
		e--;
	return e;
}

/* RFC 2045 6.7. An "=" that neither encodes nor ends a line stays as it is. */
static size_t
decode_qp(struct decoder *d, char *dst, size_t cap)
{
	const char *p = d->in.ptr, *end = p + d->in.len, *eol = d->eol, *stop, *lf;
	char *q = dst, *full = dst + cap;
	const int words = d->words;
	uint64_t w, x;
	int hi, lo;

	while (p < end && q < full) {
		if (eol == NULL || p > eol)
			eol = words ? end : qp_eol(p, end);
		stop = eol - p < full - q ? eol : p + (full - q);	/* it never gets longer */
		while (p < stop) {
			if (*p == '=' && eol - p >= 3 && (hi = hex(p[1])) & (lo = hex(p[2])) & HEX) {
				*q++ = (char)(hi << 4 | (lo & 15));
				p += 3;
				continue;
			}
			if (*p == '=' && p + 1 == eol && !words)
				break;
			*q++ = words && *p == '_' ? ' ' : *p;
			p++;
			if (words)
				continue;
			for (; stop - p >= 8; p += 8, q += 8) {		/* eight without "=" */
				memcpy(&w, p, 8);
				x = w ^ ONES * '=';
				if ((x - ONES) & ~x & ONES << 7)
					break;
				memcpy(q, &w, 8);
			}
			while (p < stop && *p != '=')
				*q++ = *p++;
		}
		if (p < stop) {			/* a soft line break */
			lf = memchr(p, '\n', (size_t)(end - p));
			p = lf ? lf + 1 : end;
			eol = NULL;
		} else if (p == eol) {		/* the line's end, without the blanks before it */
			if (full - q < 2)
				break;
			if ((lf = memchr(p, '\n', (size_t)(end - p))) == NULL)
				p = end;
			else {
				if (lf > p && lf[-1] == '\r')
					*q++ = '\r';
				*q++ = '\n';
				p = lf + 1;
			}
		}
	}
	d->eol = eol;
	d->in = span(p, end);
	return (size_t)(q - dst);
}

/* "begin mode name", lines of a length and so many octets as sets of four, "end". */
static size_t
decode_uu(struct decoder *d, char *dst, size_t cap)
{
	const char *p = d->in.ptr, *end = p + d->in.len, *next, *lf;
	size_t n = 0;
	int len, i, u[4];

	for (; p < end && cap - n >= 63; p = next) {
		lf = memchr(p, '\n', (size_t)(end - p));
		next = lf ? lf + 1 : end;
		if (!d->begun) {
			d->begun = begins(span(p, next), "begin ");
			continue;
		}
		if (begins(span(p, next), "end") || !is_ascii(*p) || *p < ' ' || *p > '`') {
			next = end;
			continue;
		}
		for (len = (*p++ - ' ') & 63; len > 0 && p < next; len -= 3, p += 4) {
			for (i = 0; i < 4; i++)
				u[i] = p + i < next && is_ascii(p[i]) && p[i] >= ' ' ? (p[i] - ' ') & 63 : 0;
			dst[n++] = (char)(u[0] << 2 | u[1] >> 4);
			if (len > 1)
				dst[n++] = (char)(u[1] << 4 | u[2] >> 2);
			if (len > 2)
				dst[n++] = (char)(u[2] << 6 | u[3]);
		}
	}
	d->in = span(p, end);
	return n;
}

/* Takes octets off the input and gives at most PIECE decoded ones; 0 is the end. */
static size_t
decode(struct decoder *d, char dst[PIECE])
{
	size_t n = 0;

	while (n == 0 && d->in.len > 0)
		n = d->encoding == MIME_BASE64 ? decode_base64(d, dst, PIECE) :
		    d->encoding == MIME_QP ? decode_qp(d, dst, PIECE) : decode_uu(d, dst, PIECE);
	return n;
}

/* Gets ready for a charset; the octets that its text starts with tell UTF-16's order. */
static void
conv_open(struct conv *c, const char *charset, size_t len, struct decoder d, struct out *o)
{
	char label[LABEL_MAX], want[LABEL_MAX + 2], name[32], first[PIECE];
	const char *names = label, *sp;
	size_t i, k;

	memset(c, 0, sizeof(*c));
	c->o = o;
	clean_label(charset, len, label);
	k = strlen(label);
	want[0] = ' ';
	memcpy(want + 1, label, k);
	memcpy(want + 1 + k, " ", 2);
	for (i = 0; k > 0 && i < sizeof(charsets) / sizeof(*charsets); i++)
		if (strstr(charsets[i].labels, want)) {
			names = charsets[i].name;
			break;
		}
	if (strncmp(names, "UTF-16", 6) == 0 || strncmp(names, "UTF-32", 6) == 0) {
		memset(first, 0, 4);
		if (d.encoding != MIME_IDENTITY)
			decode(&d, first);
		else
			memcpy(first, d.in.ptr, d.in.len < 4 ? d.in.len : 4);
		if (names[4] == '3')
			names = memcmp(first, "\0\0\xfe\xff", 4) == 0 ? "UTF-32BE" : names;
		else
			names = memcmp(first, "\xfe\xff", 2) == 0 ? "UTF-16BE" :
			    memcmp(first, "\xff\xfe", 2) == 0 ? "UTF-16LE" : names;
	}
	if (*names && names[1] == ' ') {
		c->shift = *names;
		names += 2;
	}
	if (strcmp(names, "UTF-8") == 0)
		c->kind = UTF8;
	else if (strcmp(names, "CP1252") == 0)
		c->kind = CP1252;
	while (*names && c->kind == GUESS) {
		sp = strchr(names, ' ');
		k = sp ? (size_t)(sp - names) : strlen(names);
		if (k >= sizeof(name))
			break;
		memcpy(name, names, k);
		name[k] = '\0';
		names += k + (sp != NULL);
		if ((c->cd = iconv_open("UTF-8", name)) != (iconv_t)-1)
			c->kind = ICONV;
	}	if (c->kind == GUESS) {
		c->kind = UTF8;
		c->guess = 1;
		c->before = *o;
	}
}

/* All of the text has been guessed to be UTF-8: 1 where it is not, and has to be fed again. */
static int
guessed_wrong(struct conv *c)
{
	if (!c->guess || (!c->invalid && c->held == 0))
		return 0;
	c->guess = 0;
	c->held = 0;
	c->kind = CP1252;
	*c->o = c->before;
	return 1;
}

/* Is more text wanted? Where it is guessed all of it counts, not only what there is room for. */
static int
wants_more(const struct conv *c)
{
	return c->guess && c->o->ptr ? !c->invalid : !c->o->full;
}

/* Feeds all that a decoder gives to a conversion, or the octets as they are. */
static void
convert_all(struct conv *c, struct decoder d)
{
	char piece[PIECE];
	size_t n;

	if (d.encoding == MIME_IDENTITY) {
		conv_add(c, d.in.ptr, d.in.len);
		return;
	}
	while (wants_more(c) && (n = decode(&d, piece)) > 0)
		conv_add(c, piece, n);
}

/* From octets to text: transfer-encoding, charset. */
static void
convert(struct decoder d, const char *charset, size_t len, struct out *o)
{
	struct conv c;

	conv_open(&c, charset, len, d, o);
	convert_all(&c, d);
	if (guessed_wrong(&c))
		convert_all(&c, d);
	conv_end(&c);
}

static void
convert_octets(const char *p, size_t n, struct out *o)
{
	struct decoder d = { { p, n }, MIME_IDENTITY, 0, 0, 0, NULL, 0 };

	if (n > 0)
		convert(d, "", 0, o);
}

size_t
mime_utf8(struct mime_span octets, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0 };

	convert_octets(octets.ptr, octets.len, &o);
	return finish(&o);
}

/* ---- fields, RFC 5322 2.2 ---- */

/* The length of the line at p, with its end. */
static size_t
line_len(const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);

	return lf ? (size_t)(lf - p) + 1 : n;
}

static int
is_empty_line(const char *p, size_t n)
{
	return *p == '\n' || (n == 2 && *p == '\r' && p[1] == '\n');
}

/* The length of a field's name, if a line begins with one; blanks before the colon are seen. */
static size_t
name_len(const char *p, size_t n)
{
	size_t i = 0, k;

	while (i < n && (unsigned char)p[i] > ' ' && p[i] != ':' && p[i] != 127)
		i++;
	for (k = i; k < n && (p[k] == ' ' || p[k] == '\t'); k++)
		;
	return i > 0 && k < n && p[k] == ':' ? i : 0;
}

int
mime_is(struct mime_span name, const char *want)
{
	return strlen(want) == name.len && strncasecmp(name.ptr, want, name.len) == 0;
}

/* A field that headers have, and that text seldom quotes with no empty line before it. */
static int
is_known(const char *p, size_t n)
{
	static const char *const known[] = { "From", "To", "Subject", "Date", "Message-ID",
	    "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Received" };
	struct mime_span name = { p, name_len(p, n) };
	size_t i;

	for (i = 0; name.len > 0 && i < sizeof(known) / sizeof(*known); i++)
		if (mime_is(name, known[i]))
			return 1;
	return 0;
}

/*
 * The header ends before the empty line, or, where that is missing, before the
 * first line that is no field. Relays break fields into such lines as well, so
 * one that a known field follows is still the header's. A boundary never is.
 */
struct mime_span
mime_header(const char *msg, size_t len)
{
	size_t at, next, n;

	for (at = 0; at < len; at += n) {
		n = line_len(msg + at, len - at);
		if (is_empty_line(msg + at, n))
			break;
		if (name_len(msg + at, n) > 0 || (at > 0 && (msg[at] == ' ' || msg[at] == '\t')) ||
		    (at == 0 && begins(span(msg, msg + n), "From ")))
			continue;
		for (next = at; ; ) {
			if (next >= len)
				return span(msg, msg + at);
			n = line_len(msg + next, len - next);
			if (is_empty_line(msg + next, n) || begins(span(msg + next, msg + next + n), "--"))
				return span(msg, msg + at);
			if (is_known(msg + next, n))
				break;
			next += n;
		}
		at = next;
	}
	return span(msg, msg + at);
}

/* What follows a header and its empty line. */
static struct mime_span
after_header(struct mime_span header, const char *end)
{
	const char *p = header.ptr + header.len;

	if (end - p >= 2 && p[0] == '\r' && p[1] == '\n')
		p += 2;
	else if (p < end && *p == '\n')
		p++;
	return span(p, end);
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
		*name = span(p, p + k);
		*value = span(colon + 1, p + n);
		return 1;
	}
	return 0;
}

int
mime_field(struct mime_span header, const char *name, struct mime_span *value)
{
	struct mime_span n, v;

	while (mime_next_field(&header, &n, &v))
		if (mime_is(n, name)) {
			*value = v;
			return 1;
		}
	return 0;
}

/* ---- parameters, RFC 2045 5.1 and RFC 2231 ---- */

/* Does a comment begin here? A "(" that is not closed soon is none. */
static int
is_comment(const char *p, const char *end)
{
	return *p == '(' && memchr(p, ')', end - p < COMMENT_MAX ? (size_t)(end - p) :
	    COMMENT_MAX) != NULL;
}

/* Past white space and comments, RFC 5322 3.2.2. */
static const char *
skip_cfws(const char *p, const char *end)
{
	int depth = 0;

	for (; p < end && (depth > 0 || is_blank(*p) || is_comment(p, end)); p++) {
		if (*p == '\\' && p + 1 < end)
			p++;
		else if (*p == '(')
			depth++;
		else if (*p == ')' && depth > 0)
			depth--;
	}
	return p;
}

/* Takes the next "; name = value" off; quoted tells whether the value had quotes. 0 at the end. */
static int
next_param(struct mime_span *in, struct mime_span *name, struct mime_span *value, int *quoted)
{
	const char *p = in->ptr, *end = p + in->len, *start;

	for (;;) {
		while (p < end && *p != ';')
			p = is_comment(p, end) ? skip_cfws(p, end) : p + 1;
		if (p == end)
			return 0;
		start = p = skip_cfws(p + 1, end);
		while (p < end && *p != '=' && *p != ';')
			p++;
		if (p == end || *p == ';')
			continue;
		*name = trim(span(start, p));
		start = p = skip_cfws(p + 1, end);
		*quoted = p < end && *p == '"' && memchr(p + 1, '"', (size_t)(end - p) - 1) != NULL;
		if (*quoted) {
			for (start = ++p; p < end && *p != '"'; p++)
				if (*p == '\\' && p + 1 < end)
					p++;
			if (p > end)
				p = end;
			*value = span(start, p);
		} else {
			if (p < end && *p == '"')	/* it is never closed */
				start = ++p;
			while (p < end && *p != ';' && *p != '\r' && *p != '\n' &&
			    !(*p == '(' && p > start && is_blank(p[-1])))
				p++;
			*value = trim(span(start, p));
		}
		*in = span(p, end);
		return 1;
	}
}

/* The octets of a value: quoted pairs, folds and, in RFC 2231's form, %XX resolved. */
static size_t
param_octets(struct mime_span v, int quoted, int percent, char *dst, size_t cap)
{
	size_t i, n = 0;

	for (i = 0; i < v.len && n < cap; i++) {
		if (quoted && v.ptr[i] == '\\' && i + 1 < v.len)
			i++;
		else if (percent && v.ptr[i] == '%' && v.len - i > 2 && hex(v.ptr[i + 1]) &&
		    hex(v.ptr[i + 2])) {
			dst[n++] = (char)(hex(v.ptr[i + 1]) << 4 | (hex(v.ptr[i + 2]) & 15));
			i += 2;
			continue;
		}
		if (v.ptr[i] != '\r' && v.ptr[i] != '\n')
			dst[n++] = v.ptr[i];
	}
	return n;
}

/* Is this section number at of the wanted name, or all of it? percent: with a "*" at its end. */
static int
is_section(struct mime_span name, const char *want, int at, int *whole, int *percent)
{
	size_t n = strlen(want);
	int number = 0;
	const char *p = name.ptr + n, *end = name.ptr + name.len;

	if (name.len < n || strncasecmp(name.ptr, want, n) != 0 || (p < end && *p != '*'))
		return 0;
	*percent = p < end && end[-1] == '*';
	*whole = end - p == *percent;
	if (*whole)
		return at == 0;
	for (p++; p < end - *percent; p++) {
		if (*p < '0' || *p > '9' || number > 99)
			return 0;
		number = number * 10 + *p - '0';
	}
	return number == at;
}

size_t
mime_param(struct mime_span value, const char *name, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0 };
	struct mime_span in, n, v;
	char octets[2048], charset[LABEL_MAX] = "";
	struct decoder d = { { octets, 0 }, MIME_IDENTITY, 0, 0, 0, NULL, 0 };
	int quoted, percent, whole = 0, at, found = 1;

	if (value.len > PARAM_MAX)
		value.len = PARAM_MAX;
	for (at = 0; found && !whole && at < SECTIONS_MAX; at++)
		for (in = value, found = 0; !found && next_param(&in, &n, &v, &quoted); ) {
			if (!is_section(n, name, at, &whole, &percent))
				continue;
			found = 1;
			if (percent && at == 0) {	/* charset'language'text */
				const char *q = memchr(v.ptr, '\'', v.len), *r = q == NULL ? NULL :
				    memchr(q + 1, '\'', (size_t)(v.ptr + v.len - q) - 1);

				if (r != NULL) {
					clean_label(v.ptr, (size_t)(q - v.ptr), charset);
					v = span(r + 1, v.ptr + v.len);
				}
			}
			d.in.len += param_octets(v, quoted, percent, octets + d.in.len,
			    sizeof(octets) - d.in.len);
		}
	if (d.in.len > 0)
		convert(d, charset, strlen(charset), &o);
	return finish(&o);
}

/* ---- encoded-words, RFC 2047 ---- */

struct word { struct mime_span charset, text; enum mime_encoding encoding; };

/*
 * "=?charset?encoding?text?=" at p: its length, or 0. The text may hold blanks
 * and folds, as broken mailers send it. none is set once no "?=" is left.
 */
static size_t
encoded_word(const char *p, const char *end, struct word *w, int *none)
{
	const char *q, *stop;

	if (*none || end - p < 8 || p[0] != '=' || p[1] != '?')
		return 0;
	for (q = p + 2; q < end && *q != '?' && !is_blank(*q) && q - p < LABEL_MAX; q++)
		;
	if (end - q < 4 || *q != '?' || q == p + 2 || q[2] != '?' || !strchr("bBqQ", q[1]) || !q[1])
		return 0;
	w->charset = span(p + 2, q);
	w->encoding = lower(q[1]) == 'b' ? MIME_BASE64 : MIME_QP;
	q += 3;
	for (stop = q; (stop = memchr(stop, '?', (size_t)(end - stop))) != NULL; stop++) {
		if (end - stop < 2) {
			stop = NULL;
			break;
		}
		/* "What?=3F?=": a "?" that should have been encoded, before a "=XX". */
		if (stop[1] == '=' && !(w->encoding == MIME_QP && end - stop >= 6 &&
		    hex(stop[2]) && hex(stop[3]) && stop[4] == '?' && stop[5] == '='))
			break;
	}
	if (stop == NULL) {
		*none = 1;
		return 0;
	}
	w->text = span(q, stop);
	return (size_t)(stop + 2 - p);
}

/*
 * Adjacent words of one charset are one text, for mailers split characters and
 * the shift states of ISO-2022 between them (against 5). This feeds the run
 * that begins at p to a conversion and gives its end.
 */
static const char *
convert_run(struct conv *c, const char *p, const char *end, int *none)
{
	struct word w, first = { { "", 0 }, { "", 0 }, MIME_IDENTITY };
	const char *q = p, *after = p;
	size_t n;

	while (q < end && (n = encoded_word(q, end, &w, none)) > 0) {
		struct decoder d = { w.text, w.encoding, 1, 0, 0, NULL, 0 };

		if (after == p)
			first = w;
		else if (w.charset.len != first.charset.len ||
		    strncasecmp(w.charset.ptr, first.charset.ptr, w.charset.len) != 0)
			break;
		convert_all(c, d);
		for (q = after = q + n; q < end && is_blank(*q); q++)
			;
	}
	return after;
}

/* One run of encoded-words; the white space between it and a next one is not text (6.2). */
static const char *
put_run(struct out *o, const char *p, const char *end)
{
	struct word w;
	struct conv c;
	const char *q, *after;
	int none = 0;

	(void)encoded_word(p, end, &w, &none);
	conv_open(&c, w.charset.ptr, w.charset.len, (struct decoder){ w.text, w.encoding, 1, 0, 0,
	    NULL, 0 }, o);
	after = convert_run(&c, p, end, &none);
	none = 0;
	if (guessed_wrong(&c))
		convert_run(&c, p, end, &none);
	conv_end(&c);
	for (q = after; q < end && is_blank(*q); q++)
		;
	return q < end && encoded_word(q, end, &w, &none) > 0 ? q : after;
}

size_t
mime_words(struct mime_span value, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 1, 0 };
	struct mime_span v = trim(value);
	const char *p = v.ptr, *end = p + v.len, *text = p;
	struct word w;
	int none = 0, runs = 0;

	while (!o.full && runs < MIME_RUNS && (p = memchr(p, '=', (size_t)(end - p))) != NULL) {
		if (encoded_word(p, end, &w, &none) == 0) {
			p++;
			continue;
		}
		runs++;
		convert_octets(text, (size_t)(p - text), &o);
		text = p = put_run(&o, p, end);
	}
	convert_octets(text, (size_t)(end - text), &o);
	while (o.len > 0 && dst[o.len - 1] == ' ')
		o.len--;
	return finish(&o);
}

/* ---- addresses, RFC 5322 3.4 and 4.4 ---- */

/*
 * One pass over the list, which keeps in text what may be the address: what is
 * in the angle brackets, or the last word before the end. Routes, names of
 * groups, comments and display names are dropped when what follows shows that
 * they were that.
 */
int
mime_address(struct mime_span *list, char *dst, size_t cap)
{
	char text[1024];
	const char *p = list->ptr, *end = p + list->len, *q;
	size_t n = 0;
	int angle = 0, literal = 0, at = 0, gap = 0, over = 0;

	for (; p < end; p++) {
		char c = *p;

		if (is_comment(p, end)) {
			p = skip_cfws(p, end) - 1;
			gap = 1;
			continue;
		}
		if (is_blank(c)) {
			gap = 1;
			continue;
		}
		if (c == '"' && memchr(p + 1, '"', (size_t)(end - p) - 1) != NULL) {
			/* A quoted string is one word, with its quotes; RFC 5322 3.2.4. */
			for (q = p + 1; q < end && *q != '"'; q++)
				if (*q == '\\' && q + 1 < end)
					q++;
			if (q > end)
				q = end;
			if (angle != 2 && !over) {
				if (!(n > 0 && text[n - 1] == '.'))
					n = 0;
				for (; p <= q && p < end; p++)
					if (*p != '\r' && *p != '\n' && n < sizeof(text))
						text[n++] = *p;
			}
			p = q;
			gap = 0;
			continue;
		}
		if (c == '"')
			continue;
		if (c == '<') {
			angle = 1;
			n = 0;
			at = gap = over = literal = 0;
			continue;
		}
		if (c == '>' && angle) {
			angle = 2;
			continue;
		}
		if (angle != 1 && !literal && (c == ',' || c == ';')) {
			if (n > 0)
				break;
			angle = at = gap = over = 0;
			continue;
		}
		if (c == ':' && !literal && angle != 2) {	/* a group's name, or a route */
			n = 0;
			at = gap = over = 0;
			continue;
		}
		if (angle == 2 || over)
			continue;
		/* White space separates words, unless an "@" or "." beside it joins them (4.4). */
		if (gap && n > 0 && c != '@' && c != '.' && text[n - 1] != '@' && text[n - 1] != '.') {
			if (at) {
				over = 1;	/* the address is whole, more words are a comment */
				continue;
			}
			n = 0;
		}
		gap = 0;
		at |= c == '@';
		literal = c == '[' ? 1 : c == ']' ? 0 : literal;
		if (n < sizeof(text))
			text[n++] = c;
	}
	*list = p < end ? span(p + 1, end) : span(end, end);
	mime_utf8(span(text, text + n), dst, cap);
	return n > 0;
}

/* ---- parts, RFC 2046 ---- */

/* What a part's header says of it; the first field of a name counts. */
static void
describe(struct mime_part *p, int digest)
{
	struct mime_span name, v, header = p->header, t;
	const char *c;
	size_t i, type = 0, disposition = 0, encoding = 0;

	strcpy(p->type, digest ? "message/rfc822" : "text/plain");	/* RFC 2046 5.1.5 */
	p->charset[0] = '\0';
	p->encoding = MIME_IDENTITY;
	p->attachment = 0;
	while (mime_next_field(&header, &name, &v)) {
		if (name.len < 12 || !begins(name, "Content-"))
			continue;
		c = skip_cfws(v.ptr, v.ptr + v.len);
		for (t = span(c, c), c = v.ptr + v.len; t.ptr + t.len < c; t.len++)
			if (strchr("; \t\r\n(", t.ptr[t.len]))
				break;
		if (mime_is(name, "Content-Type") && type++ == 0) {
			c = memchr(t.ptr, '/', t.len);
			if (c != NULL && c > t.ptr && c + 1 < t.ptr + t.len && t.len < sizeof(p->type)) {
				for (i = 0; i < t.len; i++)
					p->type[i] = lower(t.ptr[i]);
				p->type[i] = '\0';
				if (mime_utf8(t, p->type, sizeof(p->type)) > 0)
					for (i = 0; p->type[i]; i++)
						p->type[i] = lower(p->type[i]);
			}
			mime_param(v, "charset", p->charset, sizeof(p->charset));
			for (i = 0; p->charset[i]; i++)
				p->charset[i] = lower(p->charset[i]);
		} else if (mime_is(name, "Content-Transfer-Encoding") && encoding++ == 0)
			p->encoding = begins(t, "base64") ? MIME_BASE64 :
			    begins(t, "quoted-printable") ? MIME_QP :
			    begins(t, "x-uu") || begins(t, "uuencode") ? MIME_UUENCODE : MIME_IDENTITY;
		else if (mime_is(name, "Content-Disposition") && disposition++ == 0)
			p->attachment = begins(t, "attachment");
	}
}

/* Is this, without the blanks at its end, a boundary? 1: a part follows, 2: the last one. 5.1.1 */
static int
is_boundary(const char *p, size_t n, const char *boundary, size_t len)
{
	if (n < len + 2 || memcmp(p + 2, boundary, len) != 0)
		return 0;
	return n == len + 2 ? 1 : n == len + 4 && memcmp(p + 2 + len, "--", 2) == 0 ? 2 : 0;
}

/* The next line that is a boundary of an open level, the innermost first; its level, or -1. */
static int
find_boundary(const struct mime_walk *w, const char **at, const char *end, size_t *len, int *kind)
{
	const char *p = *at;
	size_t n;
	int i;

	for (; p < end && w->depth > 0; p += *len) {
		*len = line_len(p, (size_t)(end - p));
		if (p[0] != '-' || *len < 3 || p[1] != '-')
			continue;
		for (n = *len; is_blank(p[n - 1]); n--)
			;
		for (i = w->depth - 1; i >= 0; i--)
			if ((*kind = is_boundary(p, n, w->level[i].boundary, w->level[i].len)) > 0) {
				*at = p;
				return i;
			}
	}
	*at = end;
	return -1;
}

void
mime_start(struct mime_walk *w, const char *msg, size_t len)
{
	w->rest = span(msg, msg + len);
	w->depth = -1;
	w->parts = 0;
}

int
mime_next(struct mime_walk *w, struct mime_part *part)
{
	const char *end = w->rest.ptr + w->rest.len, *p = w->rest.ptr;
	struct mime_span v;
	size_t n;
	int i, kind = 0;

	if (w->parts++ == MIME_PARTS)
		return 0;
	if (w->depth == -1)
		w->depth = 0;
	else {
		do {			/* past what is closed, and a preamble or an epilogue */
			if ((i = find_boundary(w, &p, end, &n, &kind)) == -1)
				return 0;
			w->depth = i + (kind == 1);
			p += n;
		} while (kind == 2);
	}
	part->depth = w->depth;
	part->header = mime_header(p, (size_t)(end - p));
	part->body = after_header(part->header, end);
	describe(part, w->depth > 0 && w->level[w->depth - 1].digest);
	w->rest = part->body;
	n = 0;
	if (strncmp(part->type, "multipart/", 10) == 0 && w->depth < MIME_DEPTH &&
	    mime_field(part->header, "Content-Type", &v))
		n = mime_param(v, "boundary", w->level[w->depth].boundary, MIME_BOUNDARY);
	while (n > 0 && is_blank(w->level[w->depth].boundary[n - 1]))
		n--;
	if (n > 0) {
		w->level[w->depth].len = n;
		w->level[w->depth].digest = strcmp(part->type, "multipart/digest") == 0;
		w->depth++;
		return 1;
	}
	p = part->body.ptr;
	if (find_boundary(w, &p, end, &n, &kind) >= 0) {
		w->rest = span(p, end);
		if (p > part->body.ptr)		/* the CRLF before a boundary is the boundary's */
			p--;
		if (p > part->body.ptr && p[-1] == '\r')
			p--;
	} else
		w->rest = span(end, end);
	part->body = span(part->body.ptr, p);
	return 1;
}

/*
 * The charset that an HTML document names itself, as in
 *   <meta charset=x> or <meta http-equiv=Content-Type content="text/html; charset=x">
 * found as browsers do, in its first octets. UTF-16 cannot be meant there.
 */
static void
meta_charset(struct decoder d, char label[LABEL_MAX])
{
	char text[PIECE];
	size_t i, n = d.encoding == MIME_IDENTITY ? d.in.len : decode(&d, text);
	const char *p = d.encoding == MIME_IDENTITY ? d.in.ptr : text;
	int meta = 0;

	label[0] = '\0';
	if (n > META_MAX)
		n = META_MAX;
	for (i = 0; i + 8 < n; i++)
		if (strncasecmp(p + i, "<meta", 5) == 0)
			meta = 1;
		else if (p[i] == '>')
			meta = 0;
		else if (meta && strncasecmp(p + i, "charset=", 8) == 0) {
			size_t len = n - i - 8, k;

			for (k = p[i + 8] == '"' || p[i + 8] == '\''; k < len; k++)
				if (strchr("\"' >/;", p[i + 8 + k]))
					break;
			clean_label(p + i + 8, k, label);
			if (strncmp(label, "utf-16", 6) == 0)
				strcpy(label, "utf-8");
			return;
		}
}

static void
part_text(const struct mime_part *p, struct out *o)
{
	struct decoder d = { p->body, p->encoding, 0, 0, 0, NULL, 0 };
	char label[LABEL_MAX] = "";

	if (p->body.len == 0)
		return;
	if (p->charset[0] == '\0' && strcmp(p->type, "text/html") == 0)
		meta_charset(d, label);
	if (*label)
		convert(d, label, strlen(label), o);
	else
		convert(d, p->charset, strlen(p->charset), o);
}

size_t
mime_text(const struct mime_part *p, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0 };

	part_text(p, &o);
	return finish(&o);
}

int
mime_body(const char *msg, size_t len, struct mime_part *best)
{
	struct mime_walk w;
	struct mime_part p;
	int found = 0, rank;

	memset(best, 0, sizeof(*best));
	best->body = span(msg + len, msg + len);
	strcpy(best->type, "text/plain");
	mime_start(&w, msg, len);
	/* Rank: 4 HTML with text, 3 plain with text, 2 blank HTML, 1 blank plain, 0 none. */
	while (found < 4 && mime_next(&w, &p)) {
		struct out look = { NULL, 0, 0, 0, 0 };

		rank = p.attachment ? 0 : strcmp(p.type, "text/html") == 0 ? 2 :
		    strcmp(p.type, "text/plain") == 0 ? 1 : 0;
		if (rank > 0 && rank + 2 > found) {
			part_text(&p, &look);
			rank += look.full ? 2 : 0;
		}
		if (rank > found) {
			*best = p;
			found = rank;
		}
	}
	return found > 0;
}
