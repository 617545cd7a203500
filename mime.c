/*
 * mime.c - octets to text, see mime.h
 *
 * From small to large: UTF-8, charsets, transfer-encodings, fields, parameters,
 * encoded-words, addresses, parts. Everything here takes any octets and time in
 * proportion to their number; what a message means is taken from the RFCs, and
 * where mailers do otherwise, from what most parsers make of it.
 */
#define _POSIX_C_SOURCE 200809L

#ifndef CHECKED			/* test/fuzz has what must be true looked at */
#define NDEBUG
#endif

#include <assert.h>
#include <errno.h>
#include <iconv.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "mime.h"

#define PIECE 4096			/* octets decoded at a time */
#define SLICE 16			/* ... where what comes before was invalid */
#define LABEL_MAX 64			/* a charset's name; longer ones are nobody's */
#define PARAM_MAX 65536			/* octets of a value in which parameters are looked for */
#define COMMENT_MAX 16			/* times "(" in a comment; what has more is none */
#define AHEAD_MAX 4			/* elements of a list that a name may be cut into */
#define LINE_OCTETS 1000		/* of a line with its end, RFC 5322 2.1.1 */
#define DIGITS "0123456789"
#define BAD_MAX 1000			/* characters that are none, as any text may have */
#define BAD_RATIO 4			/* ... and beyond that one in so many octets */
#define GUESS_DEPTH 4			/* multiparts inside one another with a guessed boundary */
#define META_MAX 1024			/* octets of HTML that may name its charset */

/* Seen in text: octets that are no UTF-8; what is not ASCII; see has_shift(). */
enum { INVALID = 1, EIGHT = 2, SHIFT = 4 };

/* Where text goes: into ptr, or, where that is NULL, nowhere, only to see whether it is blank. */
struct out {
	char *ptr;
	size_t len, cap;		/* cap: without the final NUL */
	int line;			/* unfold: no CR, no LF, blanks for tabs */
	int full;			/* takes no more: there is no room, or something was seen */
	int seen;			/* INVALID and so on */
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

static int
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

void
mime_lower(char *p, size_t n)
{
	for (; n > 0; p++, n--)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p + 32);
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

#define REPLACEMENT 0xfffd		/* what is no character */
#define NONE '\xff'			/* an octet that begins no character of Shift_JIS */
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
 * The length of the character at p, RFC 3629 4; 0 where there is none or ASCII,
 * and -1 where there would be one if the octets went on.
 */
static int
utf8_char(const unsigned char *p, size_t n)
{
	int len = p[0] < 0xc2 || p[0] > 0xf4 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;

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
	size_t k;

	for (; n > 0; p += k, n -= k) {
		k = is_blank(*p) ? 1 : *p == '\xc2' ? 2 : 3;
		if (n < k || (k > 1 && memcmp(p, "\xc2\xa0", k) != 0 && memcmp(p, BOM, k) != 0 &&
		    memcmp(p, "\xe2\x80\x8b", k) != 0 && memcmp(p, "\xe3\x80\x80", k) != 0))
			return 1;
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
	assert(o->len <= o->cap);
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

/* A character from U+0080 to U+FFFF that is no mark. */
static void
put_char(struct out *o, unsigned u)
{
	char utf8[3] = { (char)(0xe0 | u >> 12), (char)(0x80 | (u >> 6 & 63)),
	    (char)(0x80 | (u & 63)) };

	if (u < 0x800)
		utf8[1] = (char)(0xc0 | u >> 6);
	o->seen |= EIGHT;
	put_text(o, utf8 + (u < 0x800), u < 0x800 ? 2 : 3);
}

static size_t
finish(struct out *o)
{
	o->ptr[o->len] = '\0';
	return o->len;
}

/* ---- charsets ---- */

/* How a charset is built, which tells what an octet that is no character costs. */
enum form {
	UNKNOWN,			/* the label tells nothing: UTF-8, or else windows-1252 */
	UTF8, CP1252,			/* done here; iconv() does the others */
	OCTETS,				/* one octet a character, or not known */
	PAIRS, SJIS, GB, BIG5, UHC,	/* ASCII, and two octets >= 0x81 for most characters */
	EUC_JP, JP, KR, HZ, UTF7,	/* made into others, see shift_octet() */
	UTF16, UTF32
};

/*
 * What mailers call a charset, see find_charset(), and what iconv calls what
 * they mean: labels as browsers read them (WHATWG Encoding Standard 4.2), and
 * some more. Of several names the first is best and not everywhere to be had.
 */
static const struct { const char *labels, *names; enum form form; } charsets[] = {
	{ " utf8 unicode11utf8 unicode20utf8 utf8mb4 65001 ", "", UTF8 },
	{ " usascii ascii ansix341968 ansix341986 ir6 646 646us 646irv us 367 10646 ", "",
	  UNKNOWN },
	{ " 88591 latin1 l1 819 ir100 1252 ansi ", "", CP1252 },
	{ " latin2 l2 ir101 ", "ISO-8859-2", OCTETS },
	{ " latin3 l3 ir109 ", "ISO-8859-3", OCTETS },
	{ " latin4 l4 ir110 ", "ISO-8859-4", OCTETS }, { " 37 ", "CP037", OCTETS },
	{ " cyrillic latincyrillic ir144 ", "ISO-8859-5", OCTETS },
	{ " arabic latinarabic asmo708 ecma114 ir127 ", "ISO-8859-6", OCTETS },
	{ " greek greek8 latingreek ecma118 elot928 ir126 suneugreek ", "ISO-8859-7", OCTETS },
	{ " hebrew latinhebrew visual logical ir138 ", "ISO-8859-8", OCTETS },
	{ " 88599 latin5 l5 ir148 1254 ", "CP1254", OCTETS },
	{ " latin6 l6 ir157 ", "ISO-8859-10", OCTETS }, { " latin9 l9 ", "ISO-8859-15", OCTETS },
	{ " 885911 tis620 tis6202533 874 ", "CP874 ISO-8859-11", OCTETS },
	{ " koi8r koi8 koi 878 20866 ", "KOI8-R", OCTETS },
	{ " koi8u koi8ru 21866 ", "KOI8-U", OCTETS },
	{ " macintosh mac macroman ", "MACINTOSH", OCTETS },
	{ " maccyrillic macukrainian ", "MAC-CYRILLIC MacCyrillic", OCTETS },
	{ " macce maccentraleurope maccentraleurroman ", "MAC-CENTRALEUROPE MacCentralEurope",
	  OCTETS },
	{ " gb2312 gb231280 58gb231280 gbk gb18030 gb180302000 gb180302022 chinese ir58 936 20936 "
	  "54936 euccn ", "GB18030", GB },
	{ " big5 big5eten big5hkscs cnbig5 950 ", "CP950 BIG5", BIG5 },
	{ " shiftjis sjis kanji macjapanese 31j 932 943 ", "CP932 SHIFT_JIS", SJIS },
	{ " eucjp euc eucjpms eucjpwin eucpkdfmtjapanese ujis 51932 ", "CP932 SHIFT_JIS", EUC_JP },
	{ " 2022jp 2022jpms 2022jpesc 2022jp1 2022jp3 2022jp2004 jis jis7 50220 50221 50222 ",
	  "CP932 SHIFT_JIS", JP },
	{ " euckr ksc5601 ksc56011987 ksc56011989 ksx1001 korean ir149 949 20949 51949 uhc ",
	  "CP949 EUC-KR", UHC },
	{ " 2022kr 50225 ", "CP949 EUC-KR", KR }, { " johab 1361 ", "JOHAB", PAIRS },
	{ " hz hzgb2312 52936 ", "GB18030", HZ }, { " euctw ", "EUC-TW", PAIRS },
	{ " utf7 unicode11utf7 unicode20utf7 65000 ", "UTF-16BE", UTF7 },
	{ " utf16 utf16le unicode unicodefeff ucs2 ucs2le 10646ucs2 1200 ", "UTF-16LE", UTF16 },
	{ " utf16be ucs2be unicodefffe unicodebig 1201 ", "UTF-16BE", UTF16 },
	{ " utf32be ucs4be ", "UTF-32BE", UTF32 },
	{ " utf32 utf32le ucs4 ucs4le 10646ucs4 ", "UTF-32LE", UTF32 },
};

/* A conversion, fed with pieces. */
struct conv {
	char names[4 * LABEL_MAX];	/* what iconv may call the charset, "" where nobody knows */
	enum form form;
	iconv_t cd, other;		/* other: for pairs that cd lacks, see put_other() */
	struct out *o;
	int guess;			/* UTF-8 comes first: the label tells nothing, or little */
	int seven;			/* ... for in this charset 8-bit text cannot be */
	size_t fed, bad;		/* octets for iconv, and what was no character */
	char set, third;		/* a seven-bit form: what it has shifted to */
	char before;			/* ... and goes back to at SI */
	char esc[8];			/* an escape sequence, or UTF-7's base64, not whole yet */
	size_t escaped;
	char pair[3];			/* Japanese: a character that is not whole yet */
	size_t paired;			/* its octets; KR, HZ: 1 after half a pair */
	size_t len;			/* of in; below SLICE before a piece is added */
	char in[PIECE];			/* octets of the charset; what was cut off is kept */
};

/* The label without quotes, blanks and what follows them; "" where it cannot be one. */
static void
clean_label(const char *label, size_t n, char dst[LABEL_MAX])
{
	size_t i = 0, k = 0;

	while (i < n && (is_blank(label[i]) || label[i] == '"' || label[i] == '\''))
		i++;
	for (; i < n && k < LABEL_MAX - 1; i++) {
		if (label[i] == ' ' && i + 1 < n && is_digit(label[i + 1]))
			continue;	/* "ISO 8859-1" */
		if (!is_ascii(label[i]) || label[i] <= ' ' || strchr("\"';,*?/\\<>", label[i]))
			break;
		dst[k++] = label[i];
	}
	dst[k] = '\0';
	mime_lower(dst, k);
}

/*
 * Finds a clean label's charset. People and vendors write labels as they like,
 * so they are compared without punctuation and without what stands before the
 * name: x-, cs, iso, or the vendor whose code page's number follows ("win", and
 * then what is left of "windows"; IBM's have five digits).
 */
static void
find_charset(struct conv *c, const char *label)
{
	static const char prefixes[] = " x cs win dows cp ibm ms dos iso code page ccsid 0 ";
	char key[LABEL_MAX + 2] = " ", *name = key + 1;
	const char *p;
	size_t i, n = 0;

	for (p = label; *p && *p != ':'; p++) {
		if (is_digit(*p) || (*p >= 'a' && *p <= 'z'))
			name[n++] = *p;
		memcpy(name + n, " ", 2);
		if (n > 0 && p[1] && strstr(prefixes, key))
			n = 0;
	}
	for (i = 0; n > 0 && i < sizeof(charsets) / sizeof(*charsets); i++)
		if (strstr(charsets[i].labels, key)) {
			strcpy(c->names, charsets[i].names);
			c->form = charsets[i].form;
			return;
		}
	c->form = OCTETS;
	/* Code pages and ISO 8859 have their numbers everywhere; the rest is left to iconv. */
	name[n] = '\0';
	if (n > 4 && memcmp(name, "8859", 4) == 0)
		strncat(strcpy(c->names, "ISO-8859-"), name + 4, strspn(name + 4, DIGITS));
	else if (n > 0 && strspn(name, DIGITS) == n)
		strcat(strcpy(c->names, "CP"), name);
	/* Not what these mean on this machine. */
	if (n > 0 && strcmp(name, "char") != 0 && strcmp(name, "wchart") != 0)
		strcat(strcat(strcat(strcat(c->names, " "), label), " "), name);
}

/* Opens the first of the names between spaces that iconv knows, or gives (iconv_t)-1. */
static iconv_t
open_any(const char *names)
{
	iconv_t cd = (iconv_t)-1;
	char name[LABEL_MAX + 16];
	size_t n;

	for (; *names && cd == (iconv_t)-1; names += n + (names[n] == ' ')) {
		n = strcspn(names, " ");
		memcpy(name, names, n);
		name[n] = '\0';
		if (n > 0)
			cd = iconv_open("UTF-8", name);
	}
	return cd;
}

static void
conv_init(struct conv *c, struct out *o, const char *label)
{
	memset(c, 0, offsetof(struct conv, in));
	c->o = o;
	c->cd = c->other = (iconv_t)-1;
	find_charset(c, label);
}

static void
conv_close(struct conv *c)
{
	if (c->cd != (iconv_t)-1)
		iconv_close(c->cd);
	if (c->other != (iconv_t)-1)
		iconv_close(c->other);
}

/* Begins with the charset that was found: 1, or 0 where nobody knows it. */
static int
conv_start(struct conv *c)
{
	if (c->form >= OCTETS)
		c->cd = open_any(c->names);
	return c->form == UTF8 || c->form == CP1252 || c->cd != (iconv_t)-1;
}

/* Text that is UTF-8: gives how much was taken, all but the beginning of a character. */
static size_t
put_utf8(struct out *o, const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t i = 0, from = 0;
	int k = 1;

	for (;;) {
		i += ascii_len(p + i, n - i);
		if (i == n)
			break;
		/* Most letters that are not ASCII. */
		for (; n - i > 1 && u[i] > 0xc1 && u[i] < 0xe0 && (u[i + 1] & 0xc0) == 0x80; i += 2)
			o->seen |= EIGHT;
		if (i == n || is_ascii(p[i]))
			continue;
		k = utf8_char(u + i, n - i);
		if (k < 0)
			break;
		if (k > 0) {
			o->seen |= EIGHT;
			i += (size_t)k;
			continue;
		}
		put(o, p + from, i - from);
		if (p[i] != '\0') {
			o->seen |= INVALID;
			put_char(o, REPLACEMENT);
		}
		from = ++i;
	}
	put(o, p + from, i - from);
	return i;
}

/* windows-1252; the five that it leaves open are C1 controls, as in browsers. */
static void
put_cp1252(struct out *o, const char *p, size_t n)
{
	static const unsigned short high[32] = {
		0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160,
		0x2039, 0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
		0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178
	};
	size_t i = 0, k;
	unsigned u;

	for (; i < n && !o->full; i++) {
		if ((k = ascii_len(p + i, n - i)) > 0)
			put(o, p + i, k);
		i += k;
		u = i < n ? (unsigned char)p[i] : 0;
		if (u != 0)
			put_char(o, u < 0xa0 ? high[u - 0x80] : u);
	}
}

/*
 * Text from iconv(), which makes more than characters of some charsets (UCS-4).
 * In a field it may have several marks: one in each encoded-word of UTF-16.
 */
static void
put_converted(struct out *o, const char *p, size_t n)
{
	size_t i;

	for (i = 0; o->line && i + 3 <= n; i++)
		if (memcmp(p + i, BOM, 3) == 0) {
			put_utf8(o, p, i);
			p += i + 3, n -= i + 3;
			i = (size_t)-1;
		}
	put_utf8(o, p, n);
}

/*
 * A pair, or three octets, that the charset lacks and another one has: Hong
 * Kong's of Big5, JIS X 0212. 0 where that lacks it, too.
 */
static int
put_other(struct conv *c, const char *p, size_t n)
{
	char text[32], *in = (char *)(uintptr_t)p, *dst = text;
	size_t room = sizeof(text);

	if (c->other == (iconv_t)-1)
		c->other = open_any(c->form == BIG5 ? "BIG5-HKSCS" : "EUC-JP-MS EUC-JP");
	if (c->other == (iconv_t)-1 || iconv(c->other, (void *)&in, &n, &dst, &room) == (size_t)-1)
		return 0;
	if (c->form == BIG5)		/* a letter may wait for its accent */
		iconv(c->other, NULL, NULL, &dst, &room);
	put_converted(c->o, text, sizeof(text) - room);
	return 1;
}

/*
 * Pairs that iconv() lacks: six of Big5's rows of symbols. The postal code mark of KS X 1001
 * it has, but glibc's CP949 takes the octets behind it away.
 */
static unsigned
odd_pair(enum form form, const unsigned char u[2])
{
	static const struct { enum form form; unsigned short pair, character; } odd[] = {
		{ BIG5, 0xc6cf, 0x5ef4 }, { BIG5, 0xc6d3, 0x65e0 }, { BIG5, 0xc6d5, 0x7676 },
		{ BIG5, 0xc6d7, 0x96b6 }, { BIG5, 0xc6de, 0x3003 }, { BIG5, 0xc6df, 0x4edd },
		{ UHC, 0xa2e8, 0x327e }, { KR, 0xa2e8, 0x327e }
	};
	size_t i;

	for (i = 0; i < sizeof(odd) / sizeof(*odd); i++)
		if (odd[i].form == form && odd[i].pair == (u[0] << 8 | u[1]))
			return odd[i].character;
	return 0;
}

/*
 * What is no character costs its own octets and one U+FFFD: a unit of UTF-16, a
 * pair; of a pair whose second octet is ASCII, only the first. 0 where that one
 * is still to come.
 */
static size_t
conv_bad(struct conv *c, const char *p, size_t n)
{
	unsigned char u[4] = { 0, 0, 0, 0 };
	unsigned odd;
	size_t len = 1;

	memcpy(u, p, n < 4 ? n : 4);
	if (c->form >= UTF7)		/* which iconv() gets as UTF-16 */
		len = c->form == UTF32 ? 4 : 2;
	else if (c->form == GB && u[0] == 0x80) {
		put_char(c->o, 0x20ac);		/* windows-936's euro sign */
		return 1;
	} else if (c->form == GB && is_digit((char)u[1]) && u[2] > 0x80 && is_digit((char)u[3]))
		len = 4;
	else if (c->form == EUC_JP || c->form == JP)
		len = *p == NONE ? 1 : 2;	/* whose pairs are whole, see eucjp_octet() */
	else if (c->form != OCTETS && u[0] > 0x80 && u[0] != 0xff &&
	    (c->form != SJIS || (u[0] != 0xa0 && u[0] < 0xfd))) {
		if (n == 1)
			return 0;
		if ((odd = odd_pair(c->form, u)) != 0)
			put_char(c->o, odd);
		if (odd || (c->form == BIG5 && put_other(c, p, 2)))
			return 2;
		len = u[1] & 0x80 ? 2 : 1;
	}
	c->bad++;
	put_char(c->o, REPLACEMENT);
	return len < n ? len : n;
}

/*
 * The octets before what iconv() is not to see, or all: a row of Hong Kong's, which CP950
 * takes for private use, or that mark.
 */
static size_t
before_others(enum form form, const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p, *end = u + n;

	for (; end - u > 1; u += *u & 0x80 ? 2 : 1)
		if (form == BIG5 ? (*u > 0x86 && *u < 0xa1) || (*u > 0xc5 && *u < 0xc9) ||
		    (*u > 0xf9 && *u < 0xff) : *u == 0xa2 && u[1] == 0xe8)
			return (size_t)((const char *)u - p);
	return n;
}

/*
 * After an invalid octet iconv() is given little: glibc's converts all that it is
 * given in one step before the next one may find the first character invalid.
 * What is mostly no characters is in another charset than its label says: the
 * rest is taken as UTF-8, for iconv() costs most where it finds nothing.
 * Gives how much was taken: all but the beginning of a character.
 */
static size_t
conv_iconv(struct conv *c)
{
	char buf[PIECE * MIME_EXPANSION + 64];	/* never full: glibc's TSCII loses its place then */
	char *p = c->in, *dst;
	size_t n = c->len, room, done, slice = PIECE, give, left, k;

	c->fed += n;
	while (n > 0 && !c->o->full) {
		if (c->bad > BAD_MAX + c->fed / BAD_RATIO) {
			c->form = UTF8;
			return c->len - n + put_utf8(c->o, p, n);
		}
		give = n < slice ? n : slice;
		if (c->form == BIG5 || c->form == UHC || c->form == KR)
			give = before_others(c->form, p, give);
		dst = buf;
		room = sizeof(buf);
		left = give;
		errno = EILSEQ;
		done = give ? iconv(c->cd, (void *)&p, &left, &dst, &room) : (size_t)-1;
		put_converted(c->o, buf, sizeof(buf) - room);
		n -= give - left;
		/* Four octets of GB18030 would go on with one that is not ASCII. */
		if (done == (size_t)-1 && (errno != EINVAL || left >= SLICE ||
		    (c->form == GB && left == 3 && is_ascii(p[2])))) {
			if ((k = conv_bad(c, p, n)) == 0)
				return c->len - n;
			p += k, n -= k;
			slice = SLICE;
		} else if (left == n)
			return c->len - n;
		else
			slice *= 2;
	}
	return c->len;
}

/* Converts what is in c->in; a character that its end cuts off waits for the next. */
static void
conv_octets(struct conv *c)
{
	size_t done = c->len;

	if (c->form >= OCTETS)
		done = conv_iconv(c);
	else if (c->form == CP1252)
		put_cp1252(c->o, c->in, c->len);
	else
		done = put_utf8(c->o, c->in, c->len);
	assert(done <= c->len && c->len - done < SLICE);
	c->len -= done;
	memmove(c->in, c->in + done, c->len);
}

/*
 * An octet of an EUC charset. EUC-JP's pairs are converted as Shift_JIS, of which
 * one row is two rows of EUC-JP: CP932 has the rows that vendors added (13, 89 to
 * 92), and iconv's EUC-JP takes some of them for private use.
 */
static void
eucjp_octet(struct conv *c, char u)
{
	unsigned a = (unsigned char)c->pair[0], b = (unsigned char)u;

	if (c->paired == 0 && (b < 0x8e || (b > 0x8f && b < 0xa1) || b == 0xff)) {
		c->in[c->len++] = b < 0x80 ? u : NONE;
		return;
	}
	c->pair[c->paired++] = u;
	if (c->paired == 1 || (c->paired == 2 && a == 0x8f && b > 0x80))
		return;			/* more of it comes */
	if (b < 0xa1 || b == 0xff || (a == 0x8e && b > 0xdf)) {
		c->in[c->len++] = NONE;
		if (b < 0x80)
			c->in[c->len++] = u;
	} else if (a == 0x8f) {		/* JIS X 0212 */
		conv_octets(c);
		if (!put_other(c, c->pair, 3))
			c->in[c->len++] = NONE;
	} else if (a == 0x8e)
		c->in[c->len++] = u;
	else {
		c->in[c->len++] = (char)((a - 0xa1) / 2 + (a < 0xdf ? 0x81 : 0xc1));
		c->in[c->len++] = (char)(a % 2 == 0 ? b - 2 : b - 0x61 + (b > 0xdf));
	}
	c->paired = 0;
}

/*
 * An escape sequence's next octet: 0 where it cannot be that. At the sequence's end it has its
 * effect on set. "~" and one octet in HZ, where a line may go on after "~"; else ESC, one or two
 * of 0x20 to 0x2f, a last one.
 */
static int
take_escape(struct conv *c, char u)
{
	size_t n = c->escaped;
	int hz = c->form == HZ, more, last;

	more = n == 0 || (hz ? n == 1 && u == '\r' : n < 3 && u >= ' ' && u <= '/');
	last = hz ? u == '\n' || (n == 1 && memchr("~{}", u, 3)) : n > 1 && u >= '0' && u <= '~';
	if (!more && !last)
		return 0;
	c->esc[c->escaped++] = u;
	if (more)
		return 1;
	c->escaped = 0;
	c->before = 0;
	if (hz && u == '~')
		c->in[c->len++] = u;
	else if (hz)
		c->set = u == '{' ? 'd' : 0;
	else if (c->form == JP && c->esc[1] == '$' && memchr("@BDOQ", u, 5))
		c->set = u == 'D' ? 's' : 'd';
	else if (c->form == JP && c->esc[1] == '(')
		c->set = u == 'I' ? 'k' : u == 'J' ? 'r' : 0;
	return 1;
}

/*
 * An octet that is no part of an escape sequence. SO and SI go over to Korean, or to the kana of
 * JIS X 0201, and back. Each line begins in ASCII.
 */
static void
set_octet(struct conv *c, char u)
{
	int half = 0, shift = c->form != HZ && (u == '\016' || u == '\017');
	char g1 = c->form == KR ? 'd' : 'k';

	if (u == '\n')
		c->set = 0;
	else if (shift && u == '\016' && c->set != g1) {
		c->before = c->set;
		c->set = g1;
	} else if (shift && u == '\017' && c->set == g1)
		c->set = c->before;
	if (c->set == 'r' && (u == '\\' || u == '~')) {	/* JIS X 0201: yen, overline */
		conv_octets(c);
		put_char(c->o, u == '~' ? 0x203e : 0xa5);
		return;
	}
	if (c->set && c->set != 'r' && is_ascii(u) && u > ' ') {
		half = 1;
		if (c->set == 'k')
			eucjp_octet(c, '\x8e');
		else if (c->set == 's' && (c->third = !c->third))
			eucjp_octet(c, '\x8f');
		u = (char)(u | 0x80);
	}
	if (c->form == JP && !shift) {
		eucjp_octet(c, u);
		return;
	}
	if (c->paired && !half)		/* the other half does not come */
		c->in[c->len++] = NONE;
	c->paired = half && !c->paired;
	if (!shift)
		c->in[c->len++] = u;
}

/* What began as an escape sequence and is none: text. */
static void
no_escape(struct conv *c)
{
	size_t i, n = c->escaped;

	c->escaped = 0;
	for (i = 0; i < n; i++)
		set_octet(c, c->esc[i]);
}

/*
 * ISO-2022-JP (RFC 1468), ISO-2022-KR (RFC 1557) and HZ (RFC 1843) are the EUC
 * charsets of their countries with shifts in place of the eighth bit. iconv()
 * is given the latter: it knows more characters, and no state is lost between
 * two encoded-words.
 */
static void
shift_octet(struct conv *c, char u)
{
	if (c->escaped > 0 && take_escape(c, u))
		return;
	no_escape(c);
	/* HZ: "~" may be the second half of a pair. */
	if (c->form == HZ ? u == '~' && !c->paired : u == '\033')
		take_escape(c, u);
	else
		set_octet(c, u);
}

/* ---- lines ---- */

/*
 * The length of the line at p, with its end: LF, after CR or not; or a bare CR,
 * where no line as RFC 5322 2.1.1 has them ends in LF.
 */
static size_t
line_len(const char *p, size_t n)
{
	size_t k = n < LINE_OCTETS ? n : LINE_OCTETS;
	const char *end = memchr(p, '\n', k);

	if (end == NULL)
		end = memchr(p, '\r', k);
	if (end == NULL)
		end = memchr(p + k, '\n', n - k);
	else if (*end == '\r' && (size_t)(end - p) + 1 < n && end[1] == '\n')
		end++;			/* it is octet 1000 */
	return end ? (size_t)(end - p) + 1 : n;
}

/* CR CR LF ends lines where a script's CRLF was given to a mailer that takes LF. */
static int
is_empty_line(const char *p, size_t n)
{
	return *p == '\n' || (*p == '\r' && (n <= 2 || (n == 3 && p[1] == '\r')));
}

/* ---- transfer-encodings, RFC 2045 6 ---- */

struct decoder {
	struct mime_span in;		/* what is left */
	enum mime_encoding encoding;
	struct mime_span charset;	/* of the text, as labelled */
	struct mime_span rest;		/* what follows an encoded-word */
	int words;			/* Q of RFC 2047 4.2: "_" is a space */
	unsigned bits;			/* base64: what is not an octet yet */
	int have;
	const char *next, *eol;		/* a line's end; quoted-printable: without blanks */
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

#define B64 64

/* B64 + the value of base64's digits, 1 for "=", 0 for what is passed over (6.8). */
static const unsigned char b64[256] = {
	['A'] = 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84,
	85, 86, 87, 88, 89, ['a'] = 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104,
	105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, ['0'] = 116, 117, 118, 119, 120, 121,
	122, 123, 124, 125, ['+'] = 126, ['/'] = 127, ['='] = 1
};

static size_t
decode_base64(struct decoder *d, char *dst, size_t cap)
{
	const unsigned char *p = (const unsigned char *)d->in.ptr, *end = p + d->in.len;
	unsigned a, b, c, e, bits = d->bits;
	char *q = dst, *full = dst + cap - 2;	/* four digits need three octets */
	int have = d->have;

	while (p < end && q < full) {
		if (have == 0 && end - p >= 4 && ((a = b64[p[0]]) & (b = b64[p[1]]) &
		    (c = b64[p[2]]) & (e = b64[p[3]])) & B64) {
			a = (a << 18) + (b << 12) + (c << 6) + e - B64 * 0x1041;
			q[0] = (char)(a >> 16);
			q[1] = (char)(a >> 8);
			q[2] = (char)a;
			q += 3, p += 4;
			continue;
		}
		a = b64[*p++];
		if (a == 1) {		/* padding: what follows begins anew */
			have = 0;
			if (p < end && *p == ' ')
				p += line_len((const char *)p, (size_t)(end - p));
		} else if (a & B64) {
			bits = bits << 6 | (a & 63);
			if ((have += 6) >= 8)
				*q++ = (char)(bits >> (have -= 8));
		}
	}
	d->bits = bits;
	d->have = have;
	d->in = span((const char *)p, d->in.ptr + d->in.len);
	return (size_t)(q - dst);
}

/* RFC 2045 6.7, line by line. An "=" that neither encodes nor ends a line stays as it is. */
static size_t
decode_qp(struct decoder *d, char *dst, size_t cap)
{
	const char *p = d->in.ptr, *end = p + d->in.len, *eol, *stop;
	char *q = dst, *full = dst + cap - 2;	/* a line's end needs two octets */
	size_t n;

	while (p < end && q < full) {
		if (d->next == NULL) {		/* a line; transport added white space at its end */
			d->next = d->words ? end : p + line_len(p, (size_t)(end - p));
			d->eol = d->next;
			while (!d->words && d->eol > p && memchr(" \t\r\n", d->eol[-1], 4))
				d->eol--;
		}
		eol = d->eol;
		for (; eol - p >= 3 && q < full && *p == '=' && hex(p[1]) & hex(p[2]); p += 3)
			*q++ = (char)(hex(p[1]) << 4 | (hex(p[2]) & 15));
		if (p == eol || (p + 1 == eol && *p == '=' && !d->words)) {
			n = p < eol ? 0 : (size_t)(d->next - eol);
			p = d->next;
			d->next = NULL;
			if (n > 0 && (p[-1] == '\r' || p[-1] == '\n')) {
				if (n > 1 && p[-2] == '\r')
					*q++ = '\r';
				*q++ = p[-1];
			}
		} else if (q < full && (d->words || p + 1 == eol || p[1] == '=')) {
			*q++ = d->words && *p == '_' ? ' ' : *p;
			p++;
		} else if (q < full) {
			n = eol - p < full - q ? (size_t)(eol - p) : (size_t)(full - q);
			if ((stop = memchr(p + 1, '=', n - 1)) != NULL)
				n = (size_t)(stop - p);
			memcpy(q, p, n);
			p += n, q += n;
		}
	}
	d->in = span(p, end);
	return (size_t)(q - dst);
}

/* A line of uuencode: so many octets as its first one says, as sets of four digits. */
static size_t
uu_line(const char *p, const char *end, char *dst)
{
	size_t n = 0;
	unsigned bits, u;
	int len = is_empty_line(p, (size_t)(end - p)) ? 0 : (*p++ - ' ') & 63, i;

	for (; len > 0 && p < end; len -= 3, p += 4) {
		for (bits = 0, i = 0; i < 4; i++) {
			u = p + i < end ? (unsigned char)p[i] - 32u : 0;
			bits = bits << 6 | (u < 96 ? u & 63 : 0);
		}
		for (i = 0; i < 3 && i < len; i++)
			dst[n++] = (char)(bits >> (16 - 8 * i));
	}
	return n;
}

/* Such lines stand between "begin mode name" and "end"; lines that cannot be that are text. */
static size_t
decode_uu(struct decoder *d, char *dst, size_t cap)
{
	const char *p = d->in.ptr, *end = p + d->in.len, *next;
	size_t n = 0, k;

	for (; p < end && cap - n >= 63; p = next) {
		next = d->next ? d->next : p + line_len(p, (size_t)(end - p));
		k = (size_t)(next - p);
		if (d->begun && ((*p >= ' ' && *p <= '`') || is_empty_line(p, k))) {
			n += uu_line(p, next, dst + n);
			continue;
		}
		if (d->next == NULL && (d->begun ? begins(span(p, next), "end") :
		    begins(span(p, next), "begin ") && k > 6 && is_digit(p[6]))) {
			d->begun = !d->begun;
			continue;
		}
		d->begun = 0;
		d->next = k > cap - n ? next : NULL;	/* the rest is no line of its own */
		k = k < cap - n ? k : cap - n;
		memcpy(dst + n, p, k);
		next = p + k, n += k;
	}
	d->in = span(p, end);
	return n;
}

/* Takes octets off the input and gives at most cap (64 or more) decoded ones; 0 is the end. */
static size_t
decode(struct decoder *d, char *dst, size_t cap)
{
	size_t n = 0;

	if (d->encoding == MIME_IDENTITY) {
		n = d->in.len < cap ? d->in.len : cap;
		memcpy(dst, d->in.ptr, n);
		d->in = span(d->in.ptr + n, d->in.ptr + d->in.len);
	}
	while (n == 0 && d->in.len > 0)
		n = d->encoding == MIME_BASE64 ? decode_base64(d, dst, cap) :
		    d->encoding == MIME_QP ? decode_qp(d, dst, cap) : decode_uu(d, dst, cap);
	assert(n <= cap);
	return n;
}

/* ---- encoded-words, RFC 2047 ---- */

/*
 * Takes "=?charset?encoding?text?=" at p: 1, or 0 where there is none. The text
 * may hold blanks and folds, as broken mailers send it. none is set once no "?="
 * is left.
 */
static int
encoded_word(const char *p, const char *end, struct decoder *d, int *none)
{
	const char *q, *stop;

	if (*none || end - p < 8 || p[0] != '=' || p[1] != '?')
		return 0;
	for (q = p + 2; q < end && *q != '?' && !is_blank(*q) && q - p < LABEL_MAX; q++)
		;
	if (end - q < 4 || *q != '?' || q == p + 2 || q[2] != '?' || !memchr("bBqQ", q[1], 4))
		return 0;
	*d = (struct decoder){ .charset = span(p + 2, q), .words = 1,
	    .encoding = q[1] == 'b' || q[1] == 'B' ? MIME_BASE64 : MIME_QP };
	q += 3;
	/* "What?=3F?=": a "?" that should have been encoded, before a "=XX". */
	for (stop = q; (stop = memchr(stop, '?', (size_t)(end - stop))) != NULL; stop++)
		if (end - stop > 1 && stop[1] == '=' && !(d->encoding == MIME_QP &&
		    end - stop > 5 && hex(stop[2]) & hex(stop[3]) && !memcmp(stop + 4, "?=", 2)))
			break;
	*none = stop == NULL;
	if (*none)
		return 0;
	d->in = span(q, stop);
	d->rest = span(stop + 2, end);
	return 1;
}

/*
 * Goes on with the next word where it is of the same charset. Adjacent ones are
 * one text, for mailers split characters and the shift states of ISO-2022
 * between them (against RFC 2047 5). White space between two is no text (6.2).
 */
static int
next_word(struct decoder *d)
{
	struct decoder next;
	struct mime_span rest = trim(d->rest);
	int none = 0;

	if (!d->words || !encoded_word(rest.ptr, rest.ptr + rest.len, &next, &none))
		return 0;
	d->rest = rest;
	if (next.charset.len != d->charset.len ||
	    strncasecmp(next.charset.ptr, d->charset.ptr, d->charset.len) != 0)
		return 0;
	*d = next;
	return 1;
}

/* ---- from octets to text ---- */

/*
 * The end of UTF-7's base64, or as much of it as makes whole units of UTF-16.
 * What encodes none is text: "C++", "1+1=2". Gives whether it was base64.
 */
static int
utf7_units(struct conv *c)
{
	size_t i, n = c->escaped, bits = 6 * n;
	uint64_t all = 0;
	int good;

	for (i = 0; i < n; i++)
		all = all << 6 | (b64[(unsigned char)c->esc[i]] & 63);
	good = bits % 16 < 6 && all % (UINT64_C(1) << bits % 16) == 0 && (n > 0 || c->set == 2);
	for (i = 0; good && i < bits / 16 * 2; i++)
		c->in[c->len++] = (char)(all >> (bits - 8 * (i + 1)));
	if (!good && c->set == 1)
		c->in[c->len++] = 0, c->in[c->len++] = '+';
	for (i = 0; !good && i < n; i++)
		c->in[c->len++] = 0, c->in[c->len++] = c->esc[i];
	c->escaped = 0;
	return good || n == 0;
}

/* UTF-7, RFC 2152: ASCII, and UTF-16 in base64 between "+" and "-". set: 1 there, 2 later. */
static void
utf7_octet(struct conv *c, char u)
{
	int ended;

	if (c->set && b64[(unsigned char)u] & B64) {
		c->esc[c->escaped++] = u;
		if (c->escaped == sizeof(c->esc)) {
			utf7_units(c);
			c->set = 2;
		}
		return;
	}
	ended = c->set && utf7_units(c) && u == '-';
	c->set = u == '+';
	if (!c->set && !ended) {
		c->in[c->len++] = 0;
		c->in[c->len++] = u;
	}
}

/* The end of a text: what is still held is no character. */
static void
conv_end(struct conv *c)
{
	char buf[64], *dst = buf;
	size_t room = sizeof(buf);

	if (c->form == UTF7 && c->set)
		utf7_units(c);
	no_escape(c);
	conv_octets(c);
	if (c->form >= OCTETS)
		c->len = c->len + c->paired > 0;
	for (; c->len > 0; c->len--)
		put_char(c->o, REPLACEMENT);
	if (c->cd == (iconv_t)-1)
		return;
	iconv(c->cd, NULL, NULL, &dst, &room);
	put_converted(c->o, buf, sizeof(buf) - room);
	conv_close(c);
}

/*
 * A byte-order mark at the beginning of a text beats its label. UTF-16 and UTF-32 that have no
 * octet of 0 there may be text that only says so.
 */
static void
find_mark(struct conv *c, struct decoder d)
{
	char first[64] = "";
	size_t n = decode(&d, first, sizeof(first));

	if (memcmp(first, BOM, 3) == 0)
		c->form = UTF8;
	else if (c->form == UTF32 && memcmp(first, "\0\0\xfe\xff", 4) == 0)
		strcpy(c->names, "UTF-32BE");
	else if (c->form != UTF32 && (memcmp(first, "\xfe\xff", 2) == 0 ||
	    memcmp(first, "\xff\xfe", 2) == 0)) {
		c->form = UTF16;
		strcpy(c->names, *first == '\xfe' ? "UTF-16BE" : "UTF-16LE");
	} else if (c->form >= UTF16 && !d.words)
		c->guess = memchr(first, 0, n) == NULL;
}

/* An octet, or all from "ESC $" to the end of "ESC ( B": raw ISO-2022-JP has "(", "<" and "@". */
static size_t
octet_len(const char *p, const char *end)
{
	const char *q = p;

	if (*p == '\033' && end - p > 2 && p[1] == '$')
		q = memchr(p + 1, '\033', (size_t)(end - p) - 1);
	return q && *q == '\033' && end - q > 2 && q[1] == '(' ? (size_t)(q - p) + 3 : 1;
}

/* Do octets go over to JIS X 0208, as in ISO-2022-JP, and back with the next escape sequence? */
static int
has_shift(const char *p, const char *end)
{
	size_t n;

	for (; (p = memchr(p, '\033', (size_t)(end - p))) != NULL; p++) {
		n = octet_len(p, end);
		if (n > 3 && memchr("@B", p[2], 2) && memchr("BJ", p[n - 1], 2))
			return 1;
	}
	return 0;
}

/*
 * Feeds all that a decoder gives to a conversion, while more is wanted: of what
 * is only guessed to be UTF-8 all counts, not only what there is room for.
 */
static void
convert_all(struct conv *c, struct decoder *d)
{
	char piece[PIECE / 2 - 2 * SLICE];	/* of which one octet makes two at most */
	const char *p;
	enum form form;
	size_t n, i;
	int octets;

	do {
		if (c->guess && c->o->ptr ? c->o->seen & INVALID : c->o->full)
			return;
		form = c->form;
		octets = form >= EUC_JP && form <= UTF7;
		n = octets ? decode(d, piece, sizeof(piece)) :
		    decode(d, c->in + c->len, sizeof(c->in) - c->len);
		p = octets ? piece : c->in + c->len;
		if (has_shift(p, p + n))
			c->o->seen |= SHIFT;
		c->len += octets ? 0 : n;
		for (i = 0; octets && i < n; i++)
			if (form == EUC_JP)
				eucjp_octet(c, piece[i]);
			else if (form == UTF7)
				utf7_octet(c, piece[i]);
			else
				shift_octet(c, piece[i]);
		assert(c->len <= sizeof(c->in));
		conv_octets(c);
	} while (n > 0 || next_word(d));
}

/*
 * From octets to text: transfer-encoding, charset. raw: text that should have
 * been encoded, and that the label was not written for; it counts where the text
 * is no UTF-8.
 */
static void
convert(struct decoder *d, int raw, struct out *o)
{
	struct conv c;
	struct out before = *o;
	struct decoder again = *d;
	char label[LABEL_MAX];
	enum form form;
	int wrong, shifted;

	if (d->in.len == 0 && !d->words)
		return;
	clean_label(d->charset.ptr, d->charset.len, label);
	conv_init(&c, o, label);
	o->seen = 0;
	if (!raw)
		find_mark(&c, *d);
	c.seven = c.form == JP || c.form == KR || (!raw && (c.form == HZ || c.form == UTF7 ||
	    (c.form == OCTETS && strstr(label, "2022"))));
	if (raw && (c.form >= UTF16 || c.form == UTF8))
		c.form = UNKNOWN;
	form = c.form;
	c.guess = c.guess || raw || c.seven || !conv_start(&c);
	if (c.guess)
		c.form = UTF8;
	convert_all(&c, d);
	/* Guessed wrong: it is no UTF-8, or it is ASCII and may be a seven-bit form. */
	wrong = c.guess && (o->seen & INVALID || c.len > 0 || (c.seven && !(o->seen & EIGHT)));
	shifted = o->seen == SHIFT && (o->line || !raw);	/* but in no address */
	if (wrong) {
		c.form = form;
		c.guess = 0;
		c.len = 0;
	} else if (shifted) {		/* ASCII that should have had this label */
		conv_close(&c);
		conv_init(&c, o, "jis");
	}
	if (wrong || shifted) {
		if (!conv_start(&c))
			c.form = CP1252;
		*o = before;
		*d = again;
		convert_all(&c, d);
	}
	conv_end(&c);
}

/* Octets that have no label of their own. */
static void
convert_raw(const char *p, size_t n, const char *charset, struct out *o)
{
	convert(&(struct decoder){ .in = { p, n }, .charset = { charset, strlen(charset) } }, 1, o);
}

size_t
mime_utf8(struct mime_span octets, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0, 0 };

	convert_raw(octets.ptr, octets.len, "", &o);
	return finish(&o);
}

size_t
mime_words(struct mime_span value, const char *charset, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 1, 0, 0 };
	struct mime_span v = trim(value);
	const char *p = v.ptr, *end = p + v.len, *text = p;
	struct decoder d;
	int none = 0, runs = 0;

	while (!o.full && runs < MIME_RUNS && (p = memchr(p, '=', (size_t)(end - p))) != NULL) {
		if (!encoded_word(p, end, &d, &none)) {
			p++;
			continue;
		}
		runs++;
		convert_raw(text, (size_t)(p - text), charset, &o);
		convert(&d, 0, &o);
		text = p = d.rest.ptr;
	}
	convert_raw(text, (size_t)(end - text), charset, &o);
	while (o.len > 0 && dst[o.len - 1] == ' ')
		o.len--;
	return finish(&o);
}

/* ---- fields, RFC 5322 2.2 ---- */

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

/* Does a line begin with Content-Type or -Transfer-Encoding? */
static int
is_part_field(const char *p, const char *end)
{
	return begins(span(p, end), "Content-") && is_known(p, line_len(p, (size_t)(end - p)));
}

/* The open level whose boundary a line is, the innermost first, or -1. last: no part follows. */
static int
boundary_level(const struct mime_walk *w, const char *p, size_t n, int *last)
{
	int i;

	if (n < 3 || p[0] != '-' || p[1] != '-')
		return -1;
	while (is_blank(p[n - 1]))
		n--;
	for (i = w->depth - 1; i >= 0; i--) {
		size_t len = w->level[i].len;

		*last = n == len + 4 && memcmp(p + 2 + len, "--", 2) == 0;
		if (len > 0 && (*last || n == len + 2) &&
		    memcmp(p + 2, w->level[i].boundary, len) == 0)
			return i;
	}
	return -1;
}

/*
 * The header ends before the empty line, or, where that is missing, before the
 * first line that is no field. Relays break fields into such lines as well, so
 * one that a known field follows is still the header's; and in a part's header
 * (w is not NULL) one that the empty line follows. A boundary never is.
 */
static struct mime_span
find_header(const struct mime_walk *w, const char *msg, size_t len)
{
	const char *p, *end = msg + len, *bad = NULL;	/* since where no field has been seen */
	size_t n;
	int last;

	for (p = msg; p < end; p += n) {
		n = line_len(p, (size_t)(end - p));
		if (is_empty_line(p, n)) {
			if (w && bad != msg)
				bad = NULL;
			break;
		}
		if (bad ? is_known(p, n) : name_len(p, n) > 0 ||
		    (p > msg ? *p == ' ' || *p == '\t' : begins(span(p, p + n), "From "))) {
			bad = NULL;
			continue;
		}
		if (bad == NULL)
			bad = p;
		if (w ? boundary_level(w, p, n, &last) >= 0 : begins(span(p, p + n), "--"))
			break;
	}
	return span(msg, bad ? bad : p);
}

/*
 * Where a message's lines end in CR the LF that the transport puts at its end is not seen.
 * Relays may have put lines that end in LF before them.
 */
static size_t
without_lf(const char *msg, size_t len)
{
	const char *p = msg, *lf, *end = msg + len;
	int first;

	while ((lf = memchr(p, '\n', (size_t)(end - p))) != NULL && lf + 1 < end) {
		if (is_empty_line(p, (size_t)(lf + 1 - p)))
			return len;
		p = lf + 1;
	}
	first = p == msg;
	for (; lf && (p = memchr(p, '\r', (size_t)(lf - p))) != NULL; p++)
		if (p + 1 < lf && (first || is_known(p + 1, (size_t)(lf - p) - 1)))
			return len - 1;
	return len;
}

struct mime_span
mime_header(const char *msg, size_t len)
{
	return find_header(NULL, msg, without_lf(msg, len));
}

/*
 * Does a field go on behind this line of it? What is no field, beside a ";" or behind a "=" of
 * MIME's fields, was an indented line once.
 */
static int
goes_on(const char *field, const char *line, const char *next, const char *end)
{
	const char *p = next;

	if (next == end || *next == ' ' || *next == '\t')
		return next < end;
	while (p > line && is_blank(p[-1]))
		p--;
	return (*next == ';' || (p > line && memchr(";=", p[-1], 2))) &&
	    begins(span(field, next), "Content-") &&
	    name_len(next, line_len(next, (size_t)(end - next))) == 0;
}

int
mime_next_field(struct mime_span *h, struct mime_span *name, struct mime_span *value)
{
	const char *p = h->ptr, *end = p + h->len, *line, *next;
	size_t k = 0;

	for (next = p; k == 0; k = name_len(p, (size_t)(next - p))) {
		if (next == end)
			return 0;
		p = next;
		do {
			line = next;
			next += line_len(next, (size_t)(end - next));
		} while (goes_on(p, line, next, end));
	}
	*h = span(next, end);
	*name = span(p, p + k);
	*value = span((const char *)memchr(p + k, ':', (size_t)(next - p) - k) + 1, next);
	return 1;
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

/*
 * The end of the comment that begins at p, RFC 5322 3.2.2, or NULL: a "(" that is not closed soon
 * is text. Few "(" are passed, so all searches for an end take linear time.
 */
static const char *
comment_end(const char *p, const char *end)
{
	int open = 0, seen = 0, escaped = 0;

	if (end - p > LINE_OCTETS)
		end = p + LINE_OCTETS;
	for (; p < end && seen <= COMMENT_MAX; p += octet_len(p, end)) {
		seen += *p == '(';
		if (escaped || *p == '\\')
			escaped = !escaped;
		else if (*p == '(')
			open++;
		else if (*p == ')' && --open == 0)
			return p + 1;
	}
	return NULL;
}

/* Past white space and comments. */
static const char *
skip_cfws(const char *p, const char *end)
{
	const char *next;

	while (p < end && (next = is_blank(*p) ? p + 1 :
	    *p == '(' ? comment_end(p, end) : NULL) != NULL)
		p = next;
	return p;
}

/* The closing quote of the string that begins at p, or the end; NULL where none begins. */
static const char *
quoted_end(const char *p, const char *end)
{
	if (p == end || *p != '"' || !memchr(p + 1, '"', (size_t)(end - p) - 1))
		return NULL;
	for (p++; p < end && *p != '"'; p += octet_len(p, end))
		if (*p == '\\' && p + 1 < end)
			p++;
	return p;
}

/* The octets of a token, RFC 2045 5.1. */
static size_t
token_len(const char *p, const char *end)
{
	const char *start = p;

	while (p < end && is_ascii(*p) && *p > ' ' && !strchr("()<>@,;:\\\"/[]?=\177'", *p))
		p++;
	return (size_t)(p - start);
}

/* Does a parameter begin here, whose ";" is missing? */
static int
starts_param(const char *p, const char *end)
{
	size_t n = token_len(p, end);

	return n > 0 && p + n < end && p[n] == '=';
}

/* Takes the next "name = value" off; quoted tells whether the value had quotes. 0 at the end. */
static int
next_param(struct mime_span *in, struct mime_span *name, struct mime_span *value, int *quoted)
{
	const char *p = in->ptr, *end = p + in->len, *start;

	for (;; p += *p == ';' || *p == ',') {
		start = p = skip_cfws(p, end);
		while (p < end && !memchr("=;,", *p, 3) && skip_cfws(p, end) == p)
			p++;
		*name = span(start, p);
		p = skip_cfws(p, end);
		if (p == end)
			return 0;
		if (*p == '=')
			break;
	}
	start = skip_cfws(p + 1, end);
	start += end - start > 2 && memcmp(start, "\"\"", 2) == 0 &&
	    !memchr(" \t\r\n;,", start[2], 6);	/* ""b"" */
	p = quoted_end(start, end);
	*quoted = p != NULL;
	start += start < end && *start == '"';	/* which may never be closed */
	for (p = p ? p : start; !*quoted && p < end && *p != ';' && *p != '\r' && *p != '\n' &&
	    !(p > start && is_blank(p[-1]) && (*p == '(' || starts_param(p, end))); p++)
		;
	*value = *quoted ? span(start, p) : trim(span(start, p));
	*in = span(p, end);
	return 1;
}

/* The octets of a value: quoted pairs, folds and, in RFC 2231's form, %XX resolved. */
static size_t
value_octets(struct mime_span v, int quoted, int percent, char *dst, size_t cap)
{
	size_t i, n = 0;

	for (i = 0; i < v.len && n < cap; i++) {
		if (quoted && v.ptr[i] == '\\' && i + 1 < v.len)
			i++;
		else if (percent && v.ptr[i] == '%' && v.len - i > 2 &&
		    hex(v.ptr[i + 1]) & hex(v.ptr[i + 2])) {
			dst[n++] = (char)(hex(v.ptr[i + 1]) << 4 | (hex(v.ptr[i + 2]) & 15));
			i += 2;
			continue;
		}
		if (v.ptr[i] != '\r' && v.ptr[i] != '\n')
			dst[n++] = v.ptr[i];
	}
	return n;
}

size_t
mime_param(struct mime_span value, const char *name, char *dst, size_t cap)
{
	/* RFC 2231 3; each is looked for anew */
	static const char *const sections[] = { "*0", "*1", "*2", "*3", "*4", "*5", "*6", "*7",
	    "*8", "*9", "*10", "*11", "*12", "*13", "*14", "*15", "*16", "*17", "*18", "*19" };
	struct out o = { dst, 0, cap - 1, 0, 0, 0 };
	struct mime_span in, n, v;
	char octets[2048];
	struct decoder d = { .in = { octets, 0 }, .charset = { "", 0 } };
	const char *q, *r, *end;
	int quoted, percent, whole = 0, found = 1;
	size_t at;

	if (value.len > PARAM_MAX)
		value.len = PARAM_MAX;
	for (at = 0; !whole && at < sizeof(sections) / sizeof(*sections); at++) {
		for (in = value, found = 0; !found && next_param(&in, &n, &v, &quoted); ) {
			percent = n.len > 0 && n.ptr[n.len - 1] == '*';
			if (!begins(n, name))
				continue;
			n = span(n.ptr + strlen(name), n.ptr + n.len - percent);
			whole = at == 0 && n.len == 0;
			found = whole || mime_is(n, sections[at]);
		}
		if (!found)
			break;
		end = v.ptr + v.len;
		if (percent && at == 0 && (q = memchr(v.ptr, '\'', v.len)) != NULL &&
		    (r = memchr(q + 1, '\'', (size_t)(end - q) - 1)) != NULL) {
			d.charset = span(v.ptr, q);	/* charset'language'text */
			v = span(r + 1, end);
		}
		d.in.len += value_octets(v, quoted, percent, octets + d.in.len,
		    sizeof(octets) - d.in.len);
	}
	convert(&d, 0, &o);
	return finish(&o);
}

/* ---- addresses, RFC 5322 3.4 and 4.4 ---- */

/* One element of a list: its words as they come, and what may be its address. */
struct mailbox {
	size_t len, best_len;
	int rank;	/* of best, see end_word() */
	int angle;	/* 1: within angle brackets, 2: after them */
	int bare;	/* words without an "@", here or within the brackets */
	int at, phrase;			/* of the word: phrase: it has quotes or blanks */
	int apart;			/* ... blanks beside an "@" */
	int dot;			/* what came last ends in one, as "Dr." */
	char word[1024], best[1024];
};

/*
 * The rank of a word: 4 with an "@", 3 where that may be a name's ("Jobs @ Oak, Inc."), 1
 * without; 1 more within angle brackets.
 */
static void
end_word(struct mailbox *m)
{
	const char *w = m->word + (m->len > 0 && *m->word == '"'), *end = m->word + m->len;
	const char *at = m->at ? memchr(w, '@', (size_t)(end - w)) : NULL;
	int encoded = m->len > 3 && (memcmp(w, "=?", 2) == 0 || *m->word == '\033');
	int rank = !at || encoded ? 1 :
	    m->apart && m->angle != 1 && !memchr(at, '.', (size_t)(end - at)) ? 3 : 4;

	/* Several words without an "@", or one after the brackets, are somebody's name. */
	if (m->len > 0 && rank == 1 && (m->bare++ > 0 || m->phrase || encoded || m->angle == 2)) {
		rank = 0;
		m->rank = m->rank < 3 && m->angle != 2 ? 0 : m->rank;
	}
	rank += rank > 0 && m->angle == 1;
	if (m->len > 0 && *w != '@' && m->word[m->len - 1] != '@' && rank > m->rank) {
		memcpy(m->best, m->word, m->len);
		m->best_len = m->len;
		m->rank = rank;
	}
	m->len = 0;
	m->at = m->phrase = m->apart = 0;
}

/* The end of an atom with its dots and "@", a quoted string or a domain literal, or p. */
static const char *
word_end(const char *p, const char *end)
{
	size_t n = end - p < LINE_OCTETS ? (size_t)(end - p) : LINE_OCTETS;
	const char *q;

	if ((q = *p == '[' ? memchr(p, ']', n) : quoted_end(p, end)) != NULL) {
		while (q == end || (*p == '"' && *q != '"'))
			q--;		/* the last one, that a backslash was before */
		return q + 1;
	}
	for (q = p; q < end && !is_blank(*q) && (q == p || !memchr("()[]", *q, 4)) &&
	    !memchr("\"<>:,;", *q, 6); q += octet_len(q, end))
		;
	return q;
}

/*
 * White space separates words, unless an "@" or "." beside it joins them (4.4). That of
 * "Dr. ann@oak.example" does not: the dot belongs to a name.
 */
static void
add_text(struct mailbox *m, struct mime_span text, int gap)
{
	char before = m->len > 0 ? m->word[m->len - 1] : '.';
	int quoted = *text.ptr == '"', name = m->dot && !m->at && m->angle != 1;

	if (quoted ? before != '.' : (gap || before == '"') && (name || !memchr("@.", before, 2)) &&
	    !memchr("@.", *text.ptr, 2))
		end_word(m);
	m->phrase |= quoted || (gap && m->len > 0);
	m->apart |= gap && m->len > 0 && (before == '@' || *text.ptr == '@');
	m->at |= !quoted && memchr(text.ptr, '@', text.len) != NULL;
	m->dot = text.len > 1 && text.ptr[text.len - 1] == '.';
	m->len += value_octets(text, 0, 0, m->word + m->len, sizeof(m->word) - m->len);
}

/* Takes one element off the list. A comma within angle brackets ends a word only. */
static void
next_mailbox(struct mime_span *list, struct mailbox *m)
{
	const char *p = list->ptr, *end = p + list->len, *q;
	int gap = 0, name;
	char before;

	memset(m, 0, offsetof(struct mailbox, word));
	for (; p < end && (m->angle == 1 || (*p != ',' && *p != ';')); p = q) {
		before = m->len > 0 ? m->word[m->len - 1] : '\0';
		q = skip_cfws(p, end);
		/* No comment, and no domain literal: "Oak [ann@oak.example]". */
		if (q == p && (memchr("()]", *p, 3) || (*p == '[' && before != '@')))
			q++;
		if (q > p) {
			gap = 1;
			continue;
		}
		if ((q = word_end(p, end)) > p) {
			add_text(m, span(p, q), gap);
			gap = 0;
			continue;
		}
		q++;
		name = *p == '<' || (*p == ':' && m->angle != 2);
		if (*p == ':' && name)
			m->len = 0;
		if (*p != '"')
			end_word(m);
		if (name) {		/* that was a name, a group's name or a route */
			m->rank = m->rank < 3 ? 0 : m->rank;
			m->bare = 0;
		}
		if (*p == '<' || (*p == '>' && m->angle))
			m->angle = *p == '<' ? 1 : 2;
	}
	end_word(m);
	while (p < end && (*p == ',' || *p == ';' || is_blank(*p)))
		p++;
	*list = span(p, end);
}

/* Takes off what is not of an address: 'ann@oak.example', and &gt; behind it. */
static void
strip(struct mailbox *m)
{
	char *p = m->best;
	size_t n = m->best_len;

	if (n > 4 && memcmp(p + n - 3, "&gt", 3) == 0 && p[n - 4] != '@')
		n -= 3;
	if (p[n - 1] == '\'' && p[n - 2] != '@') {
		n--;
		if (*p == '\'' && p[1] != '@')
			memmove(p, p + 1, --n);
	}
	m->best_len = n;
}

/*
 * What has no "@" is an address only where no more follows: in brackets, or as
 * the one word of the list. What may be a name is one where none in brackets
 * follows soon.
 */
static int
find_address(struct mime_span *list, struct mailbox *m)
{
	struct mime_span here, maybe = { NULL, 0 };
	int elements = 0, ahead = 0;

	do {
		here = *list;
		next_mailbox(list, m);
		if (m->rank == 3 && maybe.ptr == NULL)
			maybe = here;
		ahead += maybe.ptr != NULL;
		elements++;
	} while (m->rank < 4 && list->len > 0 && ahead < AHEAD_MAX);
	if (m->rank < 5 && maybe.ptr != NULL) {
		*list = maybe;
		next_mailbox(list, m);
	}
	if (m->rank >= 3)
		strip(m);
	return m->rank > 1 || (m->rank == 1 && elements == 1);
}

int
mime_address(struct mime_span *list, char *dst, size_t cap)
{
	struct mime_span all = *list;
	struct mailbox m;
	char text[2048];
	int found = find_address(list, &m);

	if (!found) {			/* the mailer may have encoded all of it */
		all = span(text, text + mime_words(all, "", text, sizeof(text)));
		found = find_address(&all, &m) && m.rank == 5;
	}
	mime_utf8(span(m.best, m.best + (found ? m.best_len : 0)), dst, cap);
	return found;
}

/* ---- parts, RFC 2046 ---- */

static int
is_type(const struct mime_part *p, const char *type)
{
	return strcmp(p->type, type) == 0;
}

/*
 * token/token; what is not, or is the wrong way round, is text/plain (RFC 2045 5.2), or HTML or
 * a multipart where it says so.
 */
static void
parse_type(struct mime_part *part, struct mime_span v)
{
	const char *end = v.ptr + v.len, *p;
	size_t n = token_len(v.ptr, end), k;

	p = skip_cfws(v.ptr + n, end);
	p = p < end && *p == '/' ? skip_cfws(p + 1, end) : end;
	k = token_len(p, end);
	strcpy(part->type, begins(v, "multipart") ? "multipart/mixed" : "text/plain");
	if (n > 0 && k > 0 && n + k + 2 <= sizeof(part->type) && !begins(v, "plain/text") &&
	    !begins(v, "html/text")) {
		memcpy(part->type, v.ptr, n);
		part->type[n] = '/';
		memcpy(part->type + n + 1, p, k);
		part->type[n + 1 + k] = '\0';
		mime_lower(part->type, n + 1 + k);
		return;
	}
	for (p = v.ptr; p < end && *p != ';'; p++)
		if (begins(span(p, end), "html"))
			strcpy(part->type, "text/html");
}

/* What a part's header says of it; the first field of a name counts. */
static void
describe(struct mime_part *p, int digest)
{
	struct mime_span name, v, header = p->header, t;
	int type = 0, disposition = 0, encoding = 0;
	size_t n;

	strcpy(p->type, digest ? "message/rfc822" : "text/plain");	/* RFC 2046 5.1.5 */
	p->charset[0] = '\0';
	p->encoding = MIME_IDENTITY;
	p->attachment = 0;
	while (mime_next_field(&header, &name, &v)) {
		if (name.len < 12 || !begins(name, "Content-"))
			continue;
		t.ptr = skip_cfws(v.ptr, v.ptr + v.len);
		if (t.ptr < v.ptr + v.len && memchr("\"'<", *t.ptr, 3))
			t.ptr++;
		t.len = (size_t)(v.ptr + v.len - t.ptr);
		if (mime_is(name, "Content-Type") && type++ == 0) {
			parse_type(p, t);
			mime_param(v, "charset", p->charset, sizeof(p->charset));
			n = strspn(p->charset, "\\\"'");
			memmove(p->charset, p->charset + n, strlen(p->charset) + 1 - n);
			p->charset[strcspn(p->charset, "\\\",'")] = '\0';
			mime_lower(p->charset, strlen(p->charset));
		} else if (mime_is(name, "Content-Transfer-Encoding") && encoding++ == 0) {
			if (begins(t, "x-"))
				t = span(t.ptr + 2, t.ptr + t.len);
			/* "Base-64", "quoted_printable" */
			p->encoding = begins(t, "base") ? MIME_BASE64 :
			    begins(t, "quoted") ? MIME_QP :
			    begins(t, "uu") ? MIME_UUENCODE : MIME_IDENTITY;
		} else if (mime_is(name, "Content-Disposition") && disposition++ == 0)
			p->attachment = begins(t, "attachment");
	}
}

/* The next line that is a boundary of an open level; its level, or the end and -1. */
static int
find_boundary(const struct mime_walk *w, const char **at, const char *end, int *last)
{
	const char *p = *at;
	int level = -1;

	while (level < 0 && p < end && w->depth > 0) {
		*at = p;
		p += line_len(p, (size_t)(end - p));
		level = boundary_level(w, *at, (size_t)(p - *at), last);
	}
	if (level < 0)
		*at = end;
	return level;
}

void
mime_start(struct mime_walk *w, const char *msg, size_t len)
{
	w->rest = span(msg, msg + without_lf(msg, len));
	w->depth = w->parts = 0;
	w->lowest = MIME_DEPTH;
	w->here = 1;
}

/* Opens a level for what holds parts: a message or a multipart. 0: neither. */
static int
open_level(struct mime_walk *w, const struct mime_part *part)
{
	struct mime_level *l = &w->level[w->depth];
	struct mime_span v;
	int multipart = strncmp(part->type, "multipart/", 10) == 0;
	int message = part->encoding == MIME_IDENTITY &&
	    (is_type(part, "message/rfc822") || is_type(part, "message/global"));

	if (w->depth == MIME_DEPTH || !(message || multipart))
		return 0;
	w->here = message;
	l->len = 0;
	l->digest = is_type(part, "multipart/digest");
	l->alternative = is_type(part, "multipart/alternative");
	l->attachment = part->attachment && multipart;	/* not to the message that it holds */
	l->message = message ? w->depth + 1 : part->message;
	if (multipart && mime_field(part->header, "Content-Type", &v))
		l->len = mime_param(v, "boundary", l->boundary, sizeof(l->boundary));
	while (l->len > 0 && is_blank(l->boundary[l->len - 1]))
		l->len--;
	w->depth++;
	return 1;
}

/*
 * Past the preamble of the multipart that was opened: 1, or 0 where it has no parts. Where no
 * boundary comes that is as its parameter says, it is the first line that looks like one: "--",
 * and a field of a part's header behind it.
 */
static int
first_boundary(struct mime_walk *w, const char **at, const char *end)
{
	struct mime_level *l = &w->level[w->depth - 1];
	const char *start = *at, *p, *next;
	struct mime_span line;
	int last = 0;

	if (find_boundary(w, at, end, &last) == w->depth - 1 && !last)
		return 1;
	for (p = start; l->len > 0 && w->depth <= GUESS_DEPTH && p < *at; p = next) {
		next = p + line_len(p, (size_t)(*at - p));
		line = trim(span(p, next));
		if (begins(span(p, next), "--") && is_part_field(next, *at) &&
		    line.len > 2 && line.len - 2 <= MIME_BOUNDARY) {
			l->len = line.len - 2;
			memcpy(l->boundary, p + 2, l->len);
			*at = start;
			find_boundary(w, at, end, &last);
			return !last;
		}
	}
	return 0;
}

/* A multipart's body is its preamble, a message's all that it holds; their parts come next. */
int
mime_next(struct mime_walk *w, struct mime_part *part)
{
	const char *end = w->rest.ptr + w->rest.len, *p = w->rest.ptr, *first;
	const struct mime_level *up;
	int level, last = 0;
	size_t n;

	if (w->parts++ >= MIME_PARTS)
		return 0;
	for (; !w->here; w->here = !last) {	/* past what is closed, a preamble or an epilogue */
		if ((level = find_boundary(w, &p, end, &last)) == -1)
			return 0;
		assert(level >= 0 && level < w->depth);
		w->depth = level + !last;
		if (level < w->lowest)
			w->lowest = level;
		p += line_len(p, (size_t)(end - p));
	}
	w->here = 0;
	up = w->depth > 0 ? &w->level[w->depth - 1] : NULL;
	part->depth = w->depth;
	part->message = up ? up->message : 0;
	for (first = p; up && first < end && (*first == ' ' || *first == '\t'); first++)
		;
	if (up && is_part_field(first, end))	/* which is indented, by mistake */
		p = first;
	part->header = find_header(w, p, (size_t)(end - p));
	p += part->header.len;
	n = line_len(p, (size_t)(end - p));
	p += n > 0 && is_empty_line(p, n) ? n : 0;
	part->body.ptr = p;
	describe(part, up && up->digest);
	part->attachment |= up && up->attachment;
	part->container = open_level(w, part);
	if (part->container && !w->here && !first_boundary(w, &p, end)) {
		part->container = 0;	/* a multipart without parts is a part */
		w->depth--;
	}
	level = part->container ? -1 : find_boundary(w, &p, end, &last);
	w->rest = span(p, end);
	part->body = span(part->body.ptr, w->here ? end : p);
	if (level >= 0 && part->body.len > 0 && p[-1] == '\n')	/* this CRLF is the boundary's */
		part->body.len--, p--;
	if (level >= 0 && part->body.len > 0 && p[-1] == '\r')
		part->body.len--;
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
	char text[META_MAX];
	size_t i, n = decode(&d, text, sizeof(text));
	const char *p = text;
	int meta = 0;

	label[0] = '\0';
	for (i = 0; i + 8 < n; i++)
		if (strncasecmp(p + i, "<meta", 5) == 0)
			meta = 1;
		else if (p[i] == '>')
			meta = 0;
		else if (meta && strncasecmp(p + i, "charset=", 8) == 0) {
			clean_label(p + i + 8, n - i - 8, label);
			if (strncmp(label, "utf-16", 6) == 0)
				strcpy(label, "utf-8");
			return;
		}
}

static void
part_text(const struct mime_part *p, struct out *o)
{
	struct decoder d = { .in = p->body, .encoding = p->encoding };
	char label[LABEL_MAX] = "";

	if (p->charset[0] == '\0' && is_type(p, "text/html"))
		meta_charset(d, label);
	d.charset.ptr = *label ? label : p->charset;
	d.charset.len = strlen(d.charset.ptr);
	convert(&d, 0, o);
}

size_t
mime_text(const struct mime_part *p, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0, 0 };

	part_text(p, &o);
	return finish(&o);
}

/*
 * What a part is as the body of a message: 5 HTML or plain text that is no
 * attachment, 4 other text, 3 and 2 the same of a message within, 1 what should
 * have had parts, 0 nothing.
 */
static int
rank_of(const struct mime_part *p)
{
	int shown = !p->attachment && (is_type(p, "text/html") || is_type(p, "text/plain"));

	if (strncmp(p->type, "text/", 5) == 0)
		return (p->message ? 2 : 4) + shown;
	return !p->container &&
	    (strncmp(p->type, "multipart/", 10) == 0 || is_type(p, "message/rfc822"));
}

/* Is this plain text that follows such a body, in the same message? */
static int
follows(const struct mime_walk *w, const struct mime_part *p, const struct mime_part *first)
{
	return is_type(first, "text/plain") && is_type(p, "text/plain") && !p->attachment &&
	    p->message == first->message && w->lowest >= p->message;
}

int
mime_body(const char *msg, size_t len, struct mime_body *b)
{
	struct mime_walk w;
	struct mime_part p;
	int found = 0, rank, blank = 0;

	*b = (struct mime_body){ .first = { .body = { msg + len, 0 }, .type = "text/plain" },
	    .msg = { msg, len } };
	mime_start(&w, msg, len);
	while ((found < 5 || is_type(&b->first, "text/plain")) && mime_next(&w, &p)) {
		struct out look = { NULL, 0, 0, 0, 0, 0 };

		rank = rank_of(&p);
		/* Of two alternatives HTML is better. */
		if (rank > found || (found > 0 && rank == found && is_type(&p, "text/html") &&
		    is_type(&b->first, "text/plain") && w.level[w.lowest].alternative)) {
			part_text(&p, &look);
			if (look.full || (found == 0 && rank == 5 && blank++ == 0))
				b->first = p;
			if (look.full) {
				found = rank;
				w.lowest = MIME_DEPTH;
				b->octets = p.body.len;
				b->number = w.parts;
				continue;
			}
		}
		if (found > 0 && follows(&w, &p, &b->first))
			b->octets += p.body.len + 1;
	}
	return found > 0;
}

size_t
mime_body_text(const struct mime_body *b, char *dst, size_t cap)
{
	struct out o = { dst, 0, cap - 1, 0, 0, 0 }, more;
	struct mime_walk w;
	struct mime_part p;
	size_t before;

	part_text(&b->first, &o);
	if (b->octets <= b->first.body.len)
		return finish(&o);
	mime_start(&w, b->msg.ptr, b->msg.len);
	while (!o.full && mime_next(&w, &p)) {
		if (w.parts <= b->number)
			w.lowest = MIME_DEPTH;
		if (w.parts <= b->number || !follows(&w, &p, &b->first))
			continue;
		before = o.len;
		put_text(&o, "\r\n\r\n", 4);
		more = (struct out){ dst + o.len, 0, o.cap - o.len, 0, o.full, 0 };
		part_text(&p, &more);
		o.len = is_text(more.ptr, more.len) ? o.len + more.len : before;
		o.full = more.full;
	}
	return finish(&o);
}
