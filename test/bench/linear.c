/*
 * linear - one call of a public function of mime.h on the worst input known
 *
 *	linear				lists the inputs: number, function, divisor, input
 *	linear number octets...		calls measured() once for each size
 *
 * Inputs are a head, a unit as often as it fits, a tail. To be run under
 * callgrind, which counts the instructions of measured() alone. A divisor makes
 * an input smaller where a limit of mime.h would hide how its cost grows.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../mime.h"

#define MIXED "Content-Type: multipart/mixed; boundary="
#define SECTIONS(name) ";" name "*0=a;" name "*1=a;" name "*2=a;" name "*3=a;" name "*4=a;" \
	name "*5=a;" name "*6=a;" name "*7=a;" name "*8=a;" name "*9=a;" name "*10=a;" \
	name "*11=a;" name "*12=a;" name "*13=a;" name "*14=a;" name "*15=a;" name "*16=a;" \
	name "*17=a;" name "*18=a;" name "*19=a"

enum function { HEADER, NEXT_FIELD, FIELD, IS, PARAM, WORDS, ADDRESS, UTF8, NEXT, BODY, TEXT };

static const char *const functions[] = { "mime_header", "mime_next_field", "mime_field", "mime_is",
    "mime_param", "mime_words", "mime_address", "mime_utf8", "mime_next", "mime_body", "mime_text" };

struct octets { const char *ptr; size_t len; };
#define S(s) { s, sizeof(s) - 1 }

/* How the 100 boundaries of a nested head are made. */
enum nested { FLAT, PREFIXES, LONGEST, SHORT };

static const struct input {
	enum function function;
	const char *name;
	struct octets head, unit, tail;
	unsigned divisor;
	enum nested nested;
	enum mime_encoding encoding;	/* TEXT only, and the next */
	const char *charset;
} inputs[] = {
#define I(function, name, head, unit, tail) \
	{ function, name, S(head), S(unit), S(tail), 1, FLAT, MIME_IDENTITY, "" }
#define SMALL(function, name, head, unit, tail, divisor) \
	{ function, name, S(head), S(unit), S(tail), divisor, FLAT, MIME_IDENTITY, "" }
#define NESTED(function, name, nested, unit) \
	{ function, name, S(""), S(unit), S(""), 1, nested, MIME_IDENTITY, "" }
#define T(encoding, charset, name, head, unit, tail) \
	{ TEXT, name, S(head), S(unit), S(tail), 1, FLAT, encoding, charset }

	I(HEADER, "shortest fields", "", "a:\n", ""),
	I(HEADER, "a line that is no field, a known field, again and again", "a:\n", "x\nTo:\n", ""),
	I(HEADER, "lines that are no fields, to the end", "a:\n", "x\n", ""),
	I(HEADER, "lines that are no fields, then a known one", "a:\n", "x\n", "To:\n"),
	I(HEADER, "fields that are almost known", "a:\nx y\n", "Content-Type \n", ""),
	I(HEADER, "unknown fields after a line that is none", "a:\nx y\n", "b:\n", ""),
	I(HEADER, "a name without end", "", "a", ""),
	I(HEADER, "blanks before a colon", "a", " ", ":"),
	I(HEADER, "folds of one blank", "a:\n", " \n", ""),
	I(HEADER, "CR alone", "a:\n", "\r", "\n"),

	I(NEXT_FIELD, "shortest fields", "", "a:\n", ""),
	I(NEXT_FIELD, "lines that are no fields", "", "x\n", "a:\n"),
	I(NEXT_FIELD, "folds of one blank", "a:\n", " \n", ""),
	I(NEXT_FIELD, "folds of no field", "a\n", " \n", ""),
	I(NEXT_FIELD, "blanks before a colon", "a", " ", ":\n"),
	I(NEXT_FIELD, "fields with blanks before the colon", "", "a  :\n", ""),

	I(FIELD, "shortest fields", "", "a:\n", ""),
	I(FIELD, "almost the name", "", "Subjecu:\n", ""),
	I(FIELD, "lines that are no fields", "", "Subject\n", ""),
	I(FIELD, "folds of another field", "a:\n", " \n", ""),

	I(IS, "the longest name, equal", "", "a", ""),

	SMALL(PARAM, "shortest parameters", "x", ";a=b", "", 256),
	SMALL(PARAM, "the name without a value", "x", ";charset", "", 256),
	SMALL(PARAM, "section 0 many times", "x", ";charset*0=a", "", 256),
	SMALL(PARAM, "sections 19 to 0", "x;charset*19=a;charset*18=a;charset*17=a;charset*16=a;"
	    "charset*15=a;charset*14=a;charset*13=a;charset*12=a;charset*11=a;charset*10=a;charset*9=a;"
	    "charset*8=a;charset*7=a;charset*6=a;charset*5=a;charset*4=a;charset*3=a;charset*2=a",
	    ";a=b", ";charset*1=a;charset*0=a", 256),
	SMALL(PARAM, "20 sections after shortest parameters", "x", ";a=b",
	    SECTIONS("charset"), 256),
	SMALL(PARAM, "20 sections after empty comments", "x", ";()", SECTIONS("charset"), 256),
	SMALL(PARAM, "a section of many zeros", "x;charset*", "0", "=a", 256),
	SMALL(PARAM, "comments without end", "x;", "(", "", 256),
	SMALL(PARAM, "comments without end in each", "x", ";a=(", "", 256),
	SMALL(PARAM, "empty comments", "x;", "()", "", 256),
	SMALL(PARAM, "quotes without end", "x", ";a=\"", "", 256),
	SMALL(PARAM, "quotes", "x", ";a=\"\"", "", 256),
	SMALL(PARAM, "quoted quotes", "x;a=\"", "\\\"", "", 256),
	SMALL(PARAM, "a quote far away", "x", ";a=\\", "\"", 256),
	SMALL(PARAM, "%41", "x;charset*=utf-8''", "%41", "", 256),
	SMALL(PARAM, "apostrophes", "x;charset*=", "'", "", 256),
	SMALL(PARAM, "words of a value", "x;a=", " b", "", 256),
	SMALL(PARAM, "semicolons", "x", ";", "", 256),
	I(PARAM, "beyond 65536 octets", "x", ";a=b", ""),

	I(WORDS, "=", "", "=", ""),
	I(WORDS, "=?", "", "=?", ""),
	I(WORDS, "?=", "", "?=", ""),
	I(WORDS, "=? and a long charset", "",
	    "=?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""),
	I(WORDS, "words without end", "", "=?a?Q?b ", ""),
	I(WORDS, "words without end, question marks", "", "=?a?Q????", ""),
	I(WORDS, "words without end, one that ends", "", "=?a?Q?b ", "=?a?Q?b?="),
	I(WORDS, "a word, then words without end", "=?a?Q?b?=", "=?a?Q?b ", ""),
	I(WORDS, "a word with a long charset each", "", "=?utf-8?q?a?=", " "),
	I(WORDS, "one charset", "", "=?utf-8?Q?a?= ", ""),
	I(WORDS, "one charset, invalid octets", "", "=?utf-8?Q?=ff?= ", ""),
	I(WORDS, "one charset of iconv()", "", "=?koi8-r?Q?=c1?= ", ""),
	I(WORDS, "one charset of iconv(), half characters", "", "=?big5?Q?=a4?= =?big5?Q?=40?= ", ""),
	I(WORDS, "one charset of iconv(), invalid octets", "", "=?shift_jis?Q?=fd?=", ""),
	I(WORDS, "one unknown charset", "", "=?nobody?Q?=c1?= ", ""),
	I(WORDS, "empty words", "", "=?utf-8?Q?\?=", ""),
	I(WORDS, "empty words of base64", "", "=?utf-8?B?\?=", ""),
	I(WORDS, "a word, then blanks", "=?a?Q?b?=", " ", "x"),
	I(WORDS, "two words and blanks between", "=?a?Q?b?=", " ", "=?c?Q?d?="),
	I(WORDS, "words and text", "", "=?a?Q?b?=x", ""),
	SMALL(WORDS, "words and text, up to 1000", "", "=?a?Q?b?=x", "", 1024),
	SMALL(WORDS, "alternating charsets", "", "=?a?Q?b?= =?c?Q?d?= ", "", 1024),
	I(WORDS, "alternating charsets, beyond 1000", "", "=?a?Q?b?= =?c?Q?d?= ", ""),
	SMALL(WORDS, "alternating charsets of iconv()", "", "=?koi8-r?Q?=C1?= =?big5?Q?=A4@?= ", "", 1024),
	SMALL(WORDS, "alternating encodings", "", "=?a?Q?b?= =?a?B?YQ==?= ", "", 1024),
	SMALL(WORDS, "words before a chain of ?=3F", "", "=?a?Q?b?=x", "=?a?Q?\?=3F?=3F?=3F?=3F", 1024),
	I(WORDS, "one word, underscores", "=?a?Q?", "_", "?="),
	I(WORDS, "one word, letters and underscores", "=?a?Q?", "a_", "?="),
	I(WORDS, "one word, letters", "=?a?Q?", "a", "?="),
	I(WORDS, "one word, = that encodes nothing", "=?a?Q?", "=", "?="),
	I(WORDS, "one word, letters and =", "=?a?Q?", "a=", "?="),
	I(WORDS, "one word, ?=3F", "=?a?Q?", "?=3F", "?="),
	I(WORDS, "one word, ?=3F without end", "=?a?Q?", "?=3F", ""),
	I(WORDS, "one word, question marks", "=?a?Q?", "?", "?="),
	I(WORDS, "one word of base64, padding", "=?utf-8?B?", "=", "?="),
	I(WORDS, "one word of base64, noise", "=?utf-8?B?", "!", "?="),
	I(WORDS, "folds", "a", "\r\n ", "b"),
	I(WORDS, "tabs", "a", "\t", "b"),
	I(WORDS, "blanks at the end", "a=?a?Q?", "_", "?="),

	I(ADDRESS, "shortest addresses", "", "a,", ""),
	I(ADDRESS, "commas", "", ",", ""),
	I(ADDRESS, "<", "", "<", ""),
	I(ADDRESS, "<>", "", "<>", ""),
	I(ADDRESS, "(", "", "(", ""),
	I(ADDRESS, "()", "", "()", ""),
	I(ADDRESS, "quoted (", "", "\\(", ""),
	I(ADDRESS, "comments in one without end", "", "(()", ""),
	I(ADDRESS, "words, and ( at the end", "(", "a ", ")"),
	I(ADDRESS, "addresses and comments without end", "", "a,(", ""),
	I(ADDRESS, "addresses and comments, ended once", "", "a,(", ")"),
	I(ADDRESS, "addresses and empty comments", "", "a,()", ""),
	I(ADDRESS, "\"", "", "\"", ""),
	I(ADDRESS, "addresses and quotes", "", "a,\"", ""),
	I(ADDRESS, "quoted quotes", "\"", "\\\"", ""),
	I(ADDRESS, "addresses and quoted quotes", "", "a,\"\\\"\",", ""),
	I(ADDRESS, "[", "", "[", ""),
	I(ADDRESS, "addresses and [", "", "a,[", ""),
	I(ADDRESS, "colons", "", "a:", ""),
	I(ADDRESS, "words", "", "a ", ""),
	I(ADDRESS, "dots and blanks", "", ". ", ""),
	I(ADDRESS, "@ and blanks", "", "@ ", ""),
	I(ADDRESS, "blanks beside the @ of each", "", "a @b,", ""),
	I(ADDRESS, "literals without end behind the @ of each", "", "a@[ ", ""),
	I(ADDRESS, "a list of literals without end", "a @b,a @b,a @b,", "a,@)[", ""),
	I(ADDRESS, "ESC $", "", "\033$", ""),
	I(ADDRESS, "ESC $ in comments", "", "(\033$", ""),
	I(ADDRESS, "invalid octets", "", "\xff,", ""),
	I(ADDRESS, "semicolons in brackets", "<", ";,", ""),

	I(UTF8, "ASCII", "", "a", ""),
	I(UTF8, "Cyrillic", "", "\xd0\xb0", ""),
	I(UTF8, "invalid at the end only", "", "\xd0\xb0", "\xff"),
	I(UTF8, "windows-1252", "", "\x80", ""),
	I(UTF8, "starts of characters", "", "\xf0\x9f\x98", ""),
	I(UTF8, "NUL", "", "\0", ""),
	I(UTF8, "NUL and letters", "", "a\0", ""),

	I(NEXT, "one part", "\n", "a\n", ""),
	I(NEXT, "empty lines", "\n", "\n", ""),
	I(NEXT, "-- lines without multipart", "\n", "--\n", ""),
	SMALL(NEXT, "parts", MIXED "b\n\n", "--b\n\n", "", 4096),
	I(NEXT, "parts beyond 1000", MIXED "b\n\n", "--b\n\n", ""),
	I(NEXT, "-- lines", MIXED "b\n\n", "--\n", ""),
	I(NEXT, "lines that are almost a boundary", MIXED "b\n\n", "--bx\n", ""),
	I(NEXT, "a boundary, blanks, a letter", MIXED "b\n\n--b", " ", "x\n"),
	I(NEXT, "boundaries that look like fields", MIXED "\"b:\"\n\n--b:\n", "--b:\n", ""),
	I(NEXT, "guesses of a boundary", MIXED "c\n\n", "--b\n" MIXED "c\n\n", ""),
	I(NEXT, "guesses of other ones", MIXED "c\n\n--b\n" MIXED "c\n\n--d\n" MIXED "c\n\n--e\n" MIXED "c\n\n",
	    "--f\n" MIXED "c\n\n", ""),
	I(NEXT, "a line that would go on", "A: ;\n", "\f\f\f\n", ""),
	I(NEXT, "lines that go on before ;", "Content-Type: a\n", ";\n", ""),
	I(NEXT, "CR in lines of a header", "", "a:\rb\n", ""),
	I(NEXT, "closing boundaries", MIXED "b\n\n", "--b--\n", ""),
	SMALL(NEXT, "headers that are long", MIXED "b\n\n--b\n", "Content-Type: text/plain\n", "", 1),
	SMALL(NEXT, "fields with comments without end", MIXED "b\n\n--b\n", "Content-Type:((\n", "", 1),
	SMALL(NEXT, "one field with comments without end", MIXED "b\n\n--b\nContent-Type:", "(", "\n", 1),
	SMALL(NEXT, "one field with a type without end", MIXED "b\n\n--b\nContent-Type: a/", "b", "\n", 1),
	SMALL(NEXT, "parts without header or end", MIXED "b\n\n", "--b\nx\n", "", 4096),
	SMALL(NEXT, "a multipart with 20 sections after shortest parameters", "Content-Type: multipart/x",
	    ";a=b",
	    SECTIONS("charset") SECTIONS("boundary") "\n\n", 256),
	SMALL(NEXT, "parts with parameters in sections", MIXED "b\n\n",
	    "--b\nContent-Type: text/plain;charset*0=a;a=a;a=a;a=a;a=a;a=a;a=a;a=a;charset*1=b\n\n", "", 256),
	NESTED(NEXT, "100 levels, -- lines", SHORT, "--\n"),
	NESTED(NEXT, "100 levels, lines with one letter", SHORT, "--x\n"),
	NESTED(NEXT, "100 prefixes, one line that nearly matches", PREFIXES, "x"),
	NESTED(NEXT, "100 prefixes, lines of a match and a letter", PREFIXES, "--aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax\n"),
	NESTED(NEXT, "100 prefixes, lines of a letter, blanks, a letter", PREFIXES,
	    "--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	    "aaaaaaaaax                                                                                  "
	    "                                                                                            "
	    "                                                                                            "
	    "                                                                                            "
	    "                                                                                            "
	    "                                                                                          \n"),
	NESTED(NEXT, "100 boundaries of 255, differing at their ends", LONGEST,
	    "--bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbyy\n"),

	I(BODY, "one part, blank", "\n", " ", ""),
	I(BODY, "one part, blank, UTF-8", "\n", "\xe3\x80\x80", ""),
	SMALL(BODY, "blank parts", MIXED "b\n\n", "--b\n\n\n", "", 4096),
	SMALL(BODY, "blank parts of HTML that is base64",  MIXED "b\n\n",
	    "--b\nContent-Type:text/html\nContent-Transfer-Encoding:base64\n\n!\n", "", 256),
	SMALL(BODY, "blank parts of charsets of iconv()", MIXED "b\n\n",
	    "--b\nContent-Type:text/html;charset=big5\n\n\n"
	    "--b\nContent-Type:text/html;charset=koi8-r\n\n\n", "", 256),
	SMALL(BODY, "blank parts of unknown charsets", MIXED "b\n\n",
	    "--b\nContent-Type:text/html;charset=nobody\n\n\n"
	    "--b\nContent-Type:text/html;charset=none\n\n\n", "", 256),
	I(BODY, "blank HTML, noise in base64",
	    "Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n", "!", ""),
	NESTED(BODY, "100 levels, blank lines", SHORT, " \n"),

	T(MIME_IDENTITY, "", "ASCII", "", "a", ""),
	T(MIME_IDENTITY, "", "octets >= 0x80", "", "\x80", ""),
	T(MIME_IDENTITY, "utf-8", "invalid octets", "", "\xf0\x9f", ""),
	T(MIME_IDENTITY, "nobody", "unknown", "", "\xe4", ""),
	T(MIME_BASE64, "us-ascii", "text", "", "YWFh", ""),
	T(MIME_BASE64, "us-ascii", "lines of 76", "",
	    "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh\r\n", ""),
	T(MIME_BASE64, "us-ascii", "noise", "", "!", ""),
	T(MIME_BASE64, "utf-8", "noise", "", "!", ""),
	T(MIME_BASE64, "utf-8", "padding", "", "=", ""),
	T(MIME_BASE64, "utf-8", "an octet and padding", "", "YQ==", ""),
	T(MIME_BASE64, "utf-8", "noise between", "", "Y!", ""),
	T(MIME_QP, "us-ascii", "one line of letters", "", "a", ""),
	T(MIME_QP, "us-ascii", "lines of 76", "",
	    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=\r\n", ""),
	T(MIME_QP, "us-ascii", "=", "", "=", ""),
	T(MIME_QP, "us-ascii", "letters and =", "", "a=", ""),
	T(MIME_QP, "us-ascii", "=3D", "", "=3D", ""),
	T(MIME_QP, "us-ascii", "soft breaks", "", "=\n", ""),
	T(MIME_QP, "us-ascii", "soft breaks and blanks", "", "= \t\r\n", ""),
	T(MIME_QP, "us-ascii", "a soft break of one line of blanks", "a=", " ", "\nb"),
	T(MIME_QP, "us-ascii", "blanks at the end", "a", " ", ""),
	T(MIME_QP, "us-ascii", "blanks before a letter", "a", " ", "b"),
	T(MIME_QP, "us-ascii", "empty lines", "", "\n", ""),
	T(MIME_QP, "us-ascii", "a blank in each line", "", " \n", ""),
	T(MIME_QP, "us-ascii", "CR", "", "\r", ""),
	T(MIME_UUENCODE, "us-ascii", "lines that do not begin", "", "a\n", ""),
	T(MIME_UUENCODE, "us-ascii", "one line that does not begin", "", "a", ""),
	T(MIME_UUENCODE, "us-ascii", "lines", "begin 644 a\n",
	    "M86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A86%A\n", ""),
	T(MIME_UUENCODE, "us-ascii", "lengths alone", "begin 644 a\n", "M\n", ""),
	T(MIME_UUENCODE, "us-ascii", "empty lines of a length of 0", "begin 644 a\n", "`\n", ""),
	T(MIME_UUENCODE, "us-ascii", "one line", "begin 644 a\n", "M", ""),
	T(MIME_IDENTITY, "koi8-r", "letters", "", "\xc1", ""),
	T(MIME_IDENTITY, "iso-8859-8", "invalid octets", "", "\xa1", ""),
	T(MIME_IDENTITY, "big5", "half characters", "", "\xa4\x0a", ""),
	T(MIME_IDENTITY, "big5", "characters that wait for the next", "", "\x88\x66", ""),
	T(MIME_IDENTITY, "big5", "one pair in two is Hong Kong's", "", "\x88\x66\xa4\xe9", ""),
	T(MIME_IDENTITY, "euc-jp", "one pair in two is no character", "", "\xa9\xa1\xa4\xa2", ""),
	T(MIME_IDENTITY, "euc-jp", "a pair of NEC's in three octets", "", "\xfc\xe2" "a", ""),
	T(MIME_IDENTITY, "euc-kr", "one pair in three octets is no character", "", "\xc9\xa1" "a", ""),
	T(MIME_IDENTITY, "iso-8859-8", "one octet in three is no character", "", "aa\xa1", ""),
	T(MIME_IDENTITY, "iso-2022-jp", "JIS X 0201's yen signs", "\033(J", "a\\", ""),
	T(MIME_IDENTITY, "gb18030", "three quarters of characters", "", "\x81\x30\x81", ""),
	T(MIME_IDENTITY, "gb18030", "surrogates", "", "\x83\x36\xc7\x39", ""),
	T(MIME_IDENTITY, "gb18030", "octets of no character", "", "\xff", ""),
	T(MIME_IDENTITY, "shift_jis", "half characters", "", "\x81\n", ""),
	T(MIME_IDENTITY, "euc-jp", "third of characters", "", "\x8f\xa1", ""),
	T(MIME_IDENTITY, "euc-kr", "half characters", "", "\xc0\n", ""),
	T(MIME_IDENTITY, "iso-2022-jp", "shifts", "", "\033$B\033(B", ""),
	T(MIME_IDENTITY, "iso-2022-jp", "ESC", "", "\033", ""),
	T(MIME_IDENTITY, "iso-2022-jp", "half characters", "", "\033$B!\n", ""),
	T(MIME_IDENTITY, "iso-2022-jp", "octets of no character", "\033$B", "\x7f", ""),
	T(MIME_IDENTITY, "iso-2022-kr", "shifts", "", "\016\017", ""),
	T(MIME_IDENTITY, "hz-gb-2312", "shifts", "", "~{~}", ""),
	T(MIME_IDENTITY, "hz-gb-2312", "~", "", "~", ""),
	T(MIME_IDENTITY, "utf-7", "shifts", "", "+", ""),
	T(MIME_IDENTITY, "utf-7", "surrogates", "+", "2AA", ""),
	T(MIME_IDENTITY, "utf-7", "octets >= 0x80", "", "\x80", ""),
	T(MIME_IDENTITY, "utf-16", "surrogates", "", "\0\xd8", ""),
	T(MIME_IDENTITY, "utf-16", "low surrogates", "", "\0\xdc", ""),
	T(MIME_IDENTITY, "utf-16be", "NUL", "", "\0", ""),
	T(MIME_IDENTITY, "utf-32", "too large", "", "\xff", ""),
	T(MIME_IDENTITY, "utf-32", "surrogates", "", "\0\xd8\0\0", ""),
	T(MIME_IDENTITY, "ucs-4be", "surrogates, which a later step refuses", "", "\0\0\xd8\0", ""),
	T(MIME_IDENTITY, "wchar_t", "surrogates", "", "\0\xd8\0\0", ""),
	T(MIME_IDENTITY, "windows-1255", "letters that wait for the next", "", "\xe0", ""),
	T(MIME_IDENTITY, "windows-1258", "letters and marks", "", "a\xcc", ""),
	T(MIME_BASE64, "gb18030", "octets of no character", "", "////", ""),
	T(MIME_BASE64, "utf-7", "a shift each", "", "Ky0r", ""),
	T(MIME_QP, "big5", "half characters and soft breaks", "", "=a4=\n", ""),
	{ TEXT, "HTML, <meta", S(""), S("<meta"), S(""), 1, FLAT, MIME_QP, NULL },
	{ TEXT, "HTML, charset=", S("<meta "), S("charset="), S(""), 1, FLAT, MIME_BASE64, NULL },
	{ TEXT, "HTML, base64 of nothing", S(""), S("!"), S(""), 1, FLAT, MIME_BASE64, NULL },
};

void	measured(const struct input *, char *, size_t, char *, size_t);

static volatile size_t sink;

/* What callgrind counts; not static, for its name is given there. */
void
measured(const struct input *in, char *msg, size_t len, char *dst, size_t cap)
{
	struct mime_span s = { msg, len }, name, value;
	static struct mime_body found;
	struct mime_part part;
	static struct mime_walk walk;
	size_t n = 0;

	switch (in->function) {
	case HEADER:
		n = mime_header(msg, len).len;
		break;
	case NEXT_FIELD:
		while (mime_next_field(&s, &name, &value))
			n++;
		break;
	case FIELD:
		n = (size_t)mime_field(s, "Subject", &value);
		break;
	case IS:
		n = (size_t)mime_is(s, msg);
		break;
	case PARAM:
		n = mime_param(s, "charset", dst, cap);
		break;
	case WORDS:
		n = mime_words(s, "", dst, cap);
		break;
	case ADDRESS:
		while (mime_address(&s, dst, cap))
			n++;
		break;
	case UTF8:
		n = mime_utf8(s, dst, cap);
		break;
	case NEXT:
		for (mime_start(&walk, msg, len); mime_next(&walk, &part); )
			n++;
		break;
	case BODY:
		n = (size_t)mime_body(msg, len, &found);
		n += mime_body_text(&found, dst, cap);
		break;
	case TEXT:
		memset(&part, 0, sizeof(part));
		part.body = s;
		part.encoding = in->encoding;
		strcpy(part.type, in->charset ? "text/plain" : "text/html");
		strcpy(part.charset, in->charset ? in->charset : "");
		n = mime_text(&part, dst, cap);
		break;
	}
	sink = n;
}

static size_t
add(char *p, size_t at, size_t cap, const char *s, size_t len)
{
	if (len > cap - at)
		len = cap - at;
	memcpy(p + at, s, len);
	return at + len;
}

/* 100 multiparts inside one another, the boundaries as it is said. */
static size_t
nest(char *p, enum nested how, size_t cap)
{
	char boundary[MIME_BOUNDARY] = "", field[2 * MIME_BOUNDARY];
	size_t n = 0;
	int i, len;

	for (i = 0; i < MIME_DEPTH; i++) {
		if (i > 0) {
			len = snprintf(field, sizeof(field), "--%s\n", boundary);
			n = add(p, n, cap, field, (size_t)len);
		}
		memset(boundary, how == PREFIXES ? 'a' : 'b', sizeof(boundary));
		boundary[how == PREFIXES ? i + 1 : how == SHORT ? 1 : MIME_BOUNDARY - 1] = '\0';
		if (how == LONGEST)
			boundary[MIME_BOUNDARY - 2] = (char)(i < 50 ? 'A' + i % 26 : 'a' + i % 26);
		if (how == SHORT)
			boundary[0] = (char)('!' + i % 5);
		len = snprintf(field, sizeof(field), MIXED "\"%s\"\n\n", boundary);
		n = add(p, n, cap, field, (size_t)len);
	}
	if (how == PREFIXES)
		n = add(p, n, cap, "--", 2);
	return n;
}

static void
list(size_t i)
{
	static const char *const encodings[] = { "", " in quoted-printable", " in base64", " in uuencode" };
	const struct input *in = &inputs[i];

	printf("%d\t%s\t%u\t", (int)i, functions[in->function], in->divisor);
	if (in->function == TEXT)
		printf("%s%s: ", in->charset && *in->charset ? in->charset : "no charset",
		    encodings[in->encoding]);
	printf("%s\n", in->name);
}

int
main(int argc, char *argv[])
{
	size_t count = sizeof(inputs) / sizeof(*inputs), i, n, size, cap;
	const struct input *in;
	char *msg, *dst;
	int arg;

	if (argc < 3) {
		for (i = 0; i < count; i++)
			list(i);
		return 0;
	}
	i = (size_t)atoi(argv[1]);
	if (i >= count)
		return 2;
	in = &inputs[i];
	for (arg = 2; arg < argc; arg++) {
		size = (size_t)atol(argv[arg]) / in->divisor;
		cap = 4 * size + 4096;
		msg = malloc(size + 1);
		dst = malloc(cap);
		if (msg == NULL || dst == NULL)
			return 1;
		n = in->nested == FLAT ? add(msg, 0, size, in->head.ptr, in->head.len) :
		    nest(msg, in->nested, size);
		while (n + in->unit.len + in->tail.len <= size)
			n = add(msg, n, size, in->unit.ptr, in->unit.len);
		n = add(msg, n, size, in->tail.ptr, in->tail.len);
		msg[n] = '\0';		/* for mime_is() alone */
		measured(in, msg, n, dst, cap);
		free(msg);
		free(dst);
	}
	return 0;
}
