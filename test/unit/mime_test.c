/*
 * What mime.c makes of octets, rule by rule. Each case is run three times: with
 * room to spare, with outputs that fit exactly, and with one octet too few,
 * which must give the same text cut between characters.
 */
#include <iconv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../mime.h"

static int passed, failed;

static struct mime_span
span(const char *s)
{
	struct mime_span v = { s, strlen(s) };

	return v;
}

static void
report(int good, const char *what, const char *in, const char *got, const char *want)
{
	if (good) {
		passed++;
		return;
	}
	failed++;
	printf("FAIL %s\n  of   %.300s\n  got  %s\n  want %s\n", what, in, got, want);
}

/* Does this machine's iconv know a charset? musl's lacks some. */
static int
has(const char *charset)
{
	iconv_t cd = iconv_open("UTF-8", charset);

	return cd != (iconv_t)-1 && iconv_close(cd) == 0;
}

/* ---- functions from text to text ---- */

enum how { WORDS, ADDRESS, ADDRESSES, PARAM, OCTETS, SUBJECT, FROM, BODY, TYPE, CHARSET, TEXT };

/* BODY and what follows take a message; a leading "\n" in the case stands for its header's end. */
static size_t
run(enum how how, struct mime_span in, const char *arg, char *dst, size_t cap)
{
	struct mime_span v = { "", 0 };
	static struct mime_body found;
	char one[512];
	size_t n = 0;

	*dst = '\0';
	switch (how) {
	case WORDS:
		return mime_words(in, "", dst, cap);
	case OCTETS:
		return mime_utf8(in, dst, cap);
	case PARAM:
		return mime_param(in, arg, dst, cap);
	case ADDRESS:
		mime_address(&in, dst, cap);
		return strlen(dst);
	case ADDRESSES:
		while (mime_address(&in, one, sizeof(one))) {
			if (n + strlen(one) + 2 > cap)
				break;
			n += (size_t)sprintf(dst + n, "%s|", one);
		}
		return n;
	case SUBJECT:
	case FROM:
		mime_field(mime_header(in.ptr, in.len), how == FROM ? "from" : "subject", &v);
		mime_body(in.ptr, in.len, &found);
		return how == FROM ? (mime_address(&v, dst, cap), strlen(dst)) :
		    mime_words(v, found.first.charset, dst, cap);
	case TYPE:
	case CHARSET:
		mime_body(in.ptr, in.len, &found);
		v = span(how == TYPE ? found.first.type : found.first.charset);
		return mime_utf8(v, dst, cap);
	default:
		mime_body(in.ptr, in.len, &found);
		return mime_body_text(&found, dst, cap);
	}
}

static void
check(enum how how, const char *what, struct mime_span in, const char *arg, const char *want)
{
	char big[20000], *dst;
	size_t n = run(how, in, arg, big, sizeof(big)), k, len = strlen(want);

	report(n == len && memcmp(big, want, len + 1) == 0, what, in.ptr, big, want);
	if (n != len || how == ADDRESSES)
		return;
	dst = malloc(len + 1);		/* blocks of their own: the sanitizers see one octet more */
	report(run(how, in, arg, dst, len + 1) == len && memcmp(dst, want, len + 1) == 0,
	    "the same, fitting exactly", in.ptr, dst, want);
	free(dst);
	if (len == 0)
		return;
	dst = malloc(len);
	n = run(how, in, arg, dst, len);
	for (k = len - 1; k > 0 && (want[k] & 0xc0) == 0x80; k--)
		;
	/* A subject that is cut may lose blanks at the cut as well. */
	report(n <= k && k - n < 8 && memcmp(dst, want, n) == 0 && dst[n] == '\0',
	    "the same, an octet too small", in.ptr, dst, want);
	free(dst);
}

static const struct { enum how how; const char *what, *in, *arg, *want; } cases[] = {
	/* RFC 5322 2.2: fields */
	{ SUBJECT, "unfolded", "Subject: a\r\n b\r\n\tc\r\n\r\nx", 0, "a b c" },
	{ SUBJECT, "blanks before the colon", "Subject \t: a\r\n\r\n", 0, "a" },
	{ SUBJECT, "mixed case", "sUBJECT:a\r\n\r\n", 0, "a" },
	{ SUBJECT, "the first of two", "Subject: a\r\nSubject: b\r\n\r\n", 0, "a" },
	{ SUBJECT, "bare LF", "X: y\nSubject: a\n b\n\nbody", 0, "a b" },
	{ SUBJECT, "not below the header", "X: y\r\n\r\nSubject: a\r\n", 0, "" },
	{ SUBJECT, "header only", "Subject: a", 0, "a" },
	{ SUBJECT, "an mbox line before it", "From x Mon Nov 23\r\nSubject: a\r\n\r\n", 0, "a" },
	{ SUBJECT, "a broken line within the header", "X: y\r\nbroken line\r\nSubject: a\r\n\r\n", 0, "a" },
	{ SUBJECT, "8-bit that is UTF-8", "Subject: \xc3\xbc\r\n\r\n", 0, "\xc3\xbc" },
	{ SUBJECT, "8-bit that is not", "Subject: \xfc \x80\r\n\r\n", 0, "\xc3\xbc \xe2\x82\xac" },
	{ BODY, "the separator is missing", "Subject: a\r\nthis is text\r\nmore", 0, "this is text\r\nmore" },
	{ BODY, "empty message", "", 0, "" },
	{ BODY, "no header", "\r\nbody", 0, "body" },
	{ BODY, "only LF", "A: b\n\nbody\n", 0, "body\n" },

	/* RFC 2047: encoded-words */
	{ WORDS, "plain", "  a b ", 0, "a b" },
	{ WORDS, "Q", "=?iso-8859-1?Q?a=E4_=3F?=", 0, "a\xc3\xa4 ?" },
	{ WORDS, "B", "=?UTF-8?B?w6Q=?=", 0, "\xc3\xa4" },
	{ WORDS, "B without padding", "=?utf-8?b?w6Q?=", 0, "\xc3\xa4" },
	{ WORDS, "adjacent ones are joined (6.2)", "=?utf-8?q?a?=\r\n =?utf-8?q?b?= c", 0, "ab c" },
	{ WORDS, "of other charsets too", "=?utf-8?q?a?= =?iso-8859-1?q?=E4?=", 0, "a\xc3\xa4" },
	{ WORDS, "a character split across two", "=?utf-8?q?=C3?= =?utf-8?q?=A4?=", 0, "\xc3\xa4" },
	{ WORDS, "a shift state split across two",
	  "=?ISO-2022-JP?B?GyRCJCI=?= =?ISO-2022-JP?B?JCQbKEI=?=", 0, "\xe3\x81\x82\xe3\x81\x84" },
	{ WORDS, "GB18030 split across two", "=?gb2312?Q?=C4?= =?gb2312?Q?=E3?=", 0, "\xe4\xbd\xa0" },
	{ WORDS, "with a language (RFC 2231 5)", "=?us-ascii*en-us?Q?hi?=", 0, "hi" },
	{ WORDS, "within a word", "a=?utf-8?q?b?=c", 0, "abc" },
	{ WORDS, "within quotes", "\"=?utf-8?q?b?=\"", 0, "\"b\"" },
	{ WORDS, "Q with blanks and a fold", "=?utf-8?Q?a b\r\n c?=", 0, "a b c" },
	{ WORDS, "Q with a bare =", "=?utf-8?Q?a=b=?=", 0, "a=b=" },
	{ WORDS, "Q with a ? that is not encoded", "=?utf-8?Q?a?=3F?=", 0, "a??" },
	{ WORDS, "lower-case hex", "=?utf-8?Q?=c3=a4?=", 0, "\xc3\xa4" },
	{ WORDS, "unknown charset, UTF-8", "=?nobody?Q?=C3=A4?=", 0, "\xc3\xa4" },
	{ WORDS, "unknown charset, not UTF-8", "=?nobody?Q?=E4?=", 0, "\xc3\xa4" },
	{ WORDS, "never closed", "=?utf-8?Q?abc", 0, "=?utf-8?Q?abc" },
	{ WORDS, "closed by half", "=?utf-8?Q?abc?", 0, "=?utf-8?Q?abc?" },
	{ WORDS, "no such encoding", "=?utf-8?X?abc?=", 0, "=?utf-8?X?abc?=" },
	{ WORDS, "empty", "=?utf-8?Q?\?= a", 0, " a" },
	{ WORDS, "a newline in it is not one outside", "=?utf-8?Q?a=0D=0Ab?=", 0, "ab" },
	{ WORDS, "a NUL in it", "=?utf-8?Q?a=00b?=", 0, "ab" },
	{ WORDS, "invalid octets", "=?utf-8?Q?a=FFb?=", 0, "a\xef\xbf\xbd" "b" },
	{ WORDS, "a byte-order mark in each", "=?utf-16?B?//4wBDAE?= =?utf-16?B?//4gAEIE?=", 0,
	  "\xd0\xb0\xd0\xb0 \xd1\x82" },
	{ WORDS, "big-endian by its mark", "=?utf-16?B?/v8AYQBi?=", 0, "ab" },
	{ WORDS, "U+FEFF within is text", "a\xef\xbb\xbf=?utf-8?Q?=EF=BB=BFb?=", 0,
	  "a\xef\xbb\xbf\xef\xbb\xbf" "b" },
	{ WORDS, "U+FF01 is no mark", "=?utf-8?Q?=EF=BC=81?=", 0, "\xef\xbc\x81" },
	{ WORDS, "koi8-r", "=?koi8-r?B?8NLJ18XU?=", 0,
	  "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82" },

	/* RFC 5322 3.4 and 4.4: addresses */
	{ ADDRESS, "bare", " a@b.c ", 0, "a@b.c" },
	{ ADDRESS, "with a name", "A B <a@b.c>", 0, "a@b.c" },
	{ ADDRESS, "with a quoted name", "\"B, A <x@y>\" <a@b.c>", 0, "a@b.c" },
	{ ADDRESS, "comments", "(x (y)) a@b.c (A B)", 0, "a@b.c" },
	{ ADDRESS, "quoted local part", "<\"a@b, c\"@d.e>", 0, "\"a@b, c\"@d.e" },
	{ ADDRESS, "quoted pair in it", "\"a\\\"b\"@d.e", 0, "\"a\\\"b\"@d.e" },
	{ ADDRESS, "a route", "<@x,@y:a@b.c>", 0, "a@b.c" },
	{ ADDRESS, "blanks around @ and .", "a . x @ b . c", 0, "a.x@b.c" },
	{ ADDRESS, "domain literal", "a@[IPv6:::1]", 0, "a@[IPv6:::1]" },
	{ ADDRESS, "doubled brackets", "<<a@b.c>>", 0, "a@b.c" },
	{ ADDRESS, "no closing bracket", "A <a@b.c", 0, "a@b.c" },
	{ ADDRESS, "a name in place of quotes", "a@b.c <d@e.f>", 0, "d@e.f" },
	{ ADDRESS, "two without a comma", "a@b.c d@e.f", 0, "a@b.c" },
	{ ADDRESS, "a quote never closed", "\"A B <a@b.c>", 0, "a@b.c" },
	{ ADDRESS, "a comment never closed", "A (B <a@b.c>", 0, "a@b.c" },
	{ ADDRESS, "IDN", "<\xc3\xa4@b\xc3\xbc.c>", 0, "\xc3\xa4@b\xc3\xbc.c" },
	{ ADDRESS, "folded", "A\r\n B\r\n <a@b.c>", 0, "a@b.c" },
	{ ADDRESSES, "several", "a@b, C <d@e>,, f@g", 0, "a@b|d@e|f@g|" },
	{ ADDRESSES, "a group", "Friends: a@b, <c@d>; e@f", 0, "a@b|c@d|e@f|" },
	{ ADDRESSES, "an empty group", "undisclosed-recipients:;", 0, "" },
	{ ADDRESSES, "nothing", " , ,", 0, "" },
	{ FROM, "folded field", "From:\r\n A <a@b.c>\r\n\r\n", 0, "a@b.c" },

	/* RFC 2045 5.1, RFC 2231: parameters */
	{ PARAM, "token", "text/plain; charset=utf-8", "charset", "utf-8" },
	{ PARAM, "quoted", "a/b; x=\"c;d\"; Charset = \"utf\\-8\"", "charset", "utf-8" },
	{ PARAM, "the first counts", "a/b; c=1; c=2", "c", "1" },
	{ PARAM, "a comment", "a/b; c=1 (comment); d=2", "c", "1" },
	{ PARAM, "a comment before it", "a/b; (x;c=3) c=1", "c", "1" },
	{ PARAM, "folded", "a/b;\r\n\tc=1", "c", "1" },
	{ PARAM, "a stray ;", "a/b;; c=1;", "c", "1" },
	{ PARAM, "a quote never closed", "a/b; c=\"1", "c", "1" },
	{ PARAM, "blanks in a token", "a/b; name=a b.txt; x=y", "name", "a b.txt" },
	{ PARAM, "at the end", "a/b; name=a b", "name", "a b" },
	{ PARAM, "not another's end", "a/b; xc=1; c=2", "c", "2" },
	{ PARAM, "none", "a/b", "c", "" },
	{ PARAM, "continued (RFC 2231 3)", "a/b; c*0=ab; c*1=cd", "c", "abcd" },
	{ PARAM, "in any order", "a/b; c*1=cd; c*0=ab", "c", "abcd" },
	{ PARAM, "not in a comment", "a/b (no; c=1); c=2", "c", "2" },
	{ PARAM, "what is no comment", "a/b; d=( ; c=2", "c", "2" },
	{ PARAM, "with a charset (4)", "a/b; c*=iso-8859-1'de'%E4x", "c", "\xc3\xa4x" },
	{ PARAM, "both (4.1)", "a/b; c*0*=utf-8''%C3; c*1*=%A4; c*2=\"%\"", "c", "\xc3\xa4%" },

	/* RFC 2046: parts, and the rule for the body */
	{ BODY, "not MIME", "Subject: a\r\n\r\nbody\r\n", 0, "body\r\n" },
	{ BODY, "HTML before plain text", "Content-Type: multipart/alternative; boundary=b\r\n\r\n"
	  "--b\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--b--\r\n", 0, "<p>html" },
	{ BODY, "blank HTML does not count", "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	  "--b\r\nContent-Type: text/html\r\n\r\n \xc2\xa0\r\n--b\r\n\r\nplain\r\n--b--", 0, "plain" },
	{ BODY, "nor does an attachment", "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	  "--b\r\nContent-Disposition: ATTACHMENT\r\n\r\nno\r\n--b\r\n\r\nyes\r\n--b--", 0, "yes" },
	{ BODY, "an inline one does", "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	  "--b\r\nContent-Disposition: inline; filename=x\r\n\r\nyes\r\n--b--", 0, "yes" },
	{ BODY, "nor does a forwarded message", "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	  "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nno\r\n--b\r\n\r\nyes\r\n--b--", 0,
	  "yes" },
	{ BODY, "none", "Content-Type: image/png\r\n\r\nx", 0, "" },
	{ BODY, "preamble and epilogue", "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\npre\r\n"
	  "--b\r\n\r\nyes\r\n--b--\r\npost", 0, "yes" },
	{ BODY, "nested", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
	  "Content-Type: multipart/related; boundary=i\r\n\r\n--i\r\nContent-Type: text/html\r\n\r\nyes\r\n"
	  "--i--\r\n--o\r\nContent-Type: text/html\r\n\r\nno\r\n--o--\r\n", 0, "yes" },
	{ BODY, "the inner one is never closed", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
	  "Content-Type: multipart/related; boundary=i\r\n\r\n--i\r\n\r\nplain\r\n--o\r\n"
	  "\r\nmore\r\n--o--\r\n", 0, "plain\r\n\r\nmore" },
	{ BODY, "boundaries that begin alike", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	  "Content-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\none\r\n--bb--\r\n--b--\r\n", 0, "one" },
	{ BODY, "blanks after a boundary", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b \t\r\n\r\n"
	  "yes\r\n--b--  \r\n", 0, "yes" },
	{ BODY, "no last boundary", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nyes\r\n", 0,
	  "yes\r\n" },
	{ BODY, "LF only", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nyes\n--b--\n", 0, "yes" },
	{ BODY, "no header in a part", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nyes\r\n--b--",
	  0, "yes" },
	{ BODY, "the first Content-Type counts", "Content-Type: text/html\r\nContent-Type: image/png\r\n\r\n<p>",
	  0, "<p>" },
	{ TYPE, "lower case", "Content-Type: TEXT/HTML; x=y\r\n\r\n<p>", 0, "text/html" },
	{ TYPE, "none (RFC 2045 5.2)", "A: b\r\n\r\nx", 0, "text/plain" },
	{ TYPE, "not one", "Content-Type: text\r\n\r\nx", 0, "text/plain" },
	{ TYPE, "a comment after it", "Content-Type: text/html(x); a=b\r\n\r\nx", 0, "text/html" },
	{ CHARSET, "as labelled", "Content-Type: text/plain; charset=\"KOI8-R\"\r\n\r\nx", 0, "koi8-r" },

	/* RFC 2045 6: transfer-encodings */
	{ BODY, "base64 with noise", "Content-Transfer-Encoding: BASE64\r\n\r\nYW\r\n-Jj!\r\n", 0, "abc" },
	{ BODY, "padded blocks", "Content-Transfer-Encoding: base64\r\n\r\nYQ==YmM=ZA==\r\n", 0, "abcd" },
	{ BODY, "no padding", "Content-Transfer-Encoding: base64\r\n\r\nYWI", 0, "ab" },
	{ BODY, "base64;", "Content-Transfer-Encoding: base64;\r\n\r\nYWI=", 0, "ab" },
	{ BODY, "quoted-printable", "Content-Transfer-Encoding: Quoted-Printable\r\n\r\na=3Db=3d=\r\nc \r\nd",
	  0, "a=b=c\r\nd" },
	{ BODY, "blanks after a soft break", "Content-Transfer-Encoding: quoted-printable\r\n\r\na= \t\r\nb", 0,
	  "ab" },
	{ BODY, "a soft break at the end", "Content-Transfer-Encoding: quoted-printable\r\n\r\na=", 0, "a" },
	{ BODY, "a bare = stays", "Content-Transfer-Encoding: quoted-printable\r\n\r\na=b=XY=4", 0, "a=b=XY=4" },
	{ BODY, "LF only", "Content-Transfer-Encoding: quoted-printable\n\na=\nb\nc", 0, "ab\nc" },
	{ BODY, "Base-64", "Content-Transfer-Encoding: Base-64\r\n\r\nYWI=\r\n", 0, "ab" },
	{ BODY, "base 64", "Content-Transfer-Encoding: base 64\r\n\r\nYWI=\r\n", 0, "ab" },
	{ BODY, "<base64>", "Content-Transfer-Encoding: <base64>\r\n\r\nYWI=\r\n", 0, "ab" },
	{ BODY, "x-base64", "Content-Transfer-Encoding: x-base64\r\n\r\nYWI=\r\n", 0, "ab" },
	{ BODY, "quoted_printable", "Content-Transfer-Encoding: quoted_printable\r\n\r\na=62\r\n", 0, "ab\r\n" },
	{ BODY, "x-quoted-printable", "Content-Transfer-Encoding: x-quoted-printable\r\n\r\na=62\r\n", 0, "ab\r\n" },
	{ BODY, "multipart without a subtype", "Content-Type: multipart; boundary=\"b\"\r\n\r\n--b\r\n\r\nyes\r\n--b--\r\n", 0,
	  "yes" },
	{ BODY, "x-uuencode", "Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 f\r\n#86)C\r\n`\r\nend\r\n", 0,
	  "abc" },
	{ BODY, "8bit", "Content-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4", 0, "\xc3\xa4" },

	/* Charsets */
	{ OCTETS, "UTF-8", "\xc3\xa4\xf0\x9f\x98\x80", 0, "\xc3\xa4\xf0\x9f\x98\x80" },
	{ OCTETS, "not UTF-8", "\xe4\x80", 0, "\xc3\xa4\xe2\x82\xac" },
	{ OCTETS, "surrogates are not (RFC 3629 3)", "\xed\xa0\x80", 0, "\xc3\xad\xc2\xa0\xe2\x82\xac" },
	{ OCTETS, "overlong is not", "\xc0\xaf", 0, "\xc3\x80\xc2\xaf" },
#define T(label) "Content-Type: text/plain; charset=" label "\r\n\r\n"
	{ BODY, "iso-8859-1 is windows-1252", T("iso-8859-1") "\x93\xe4\x94", 0,
	  "\xe2\x80\x9c\xc3\xa4\xe2\x80\x9d" },
	{ BODY, "us-ascii with UTF-8", T("us-ascii") "\xc3\xa4", 0, "\xc3\xa4" },
	{ BODY, "us-ascii with something else", T("us-ascii") "\xe4", 0, "\xc3\xa4" },
	{ BODY, "unknown", T("nobody") "\xe4", 0, "\xc3\xa4" },
	{ BODY, "quotes and a ;", T("\"'utf-8';\"") "\xc3\xa4", 0, "\xc3\xa4" },
	{ BODY, "invalid octets one by one", T("utf-8") "a\xff\xfe" "b\xe4", 0,
	  "a\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd" },
	{ BODY, "a byte-order mark", T("utf-8") "\xef\xbb\xbf" "a", 0, "a" },
	{ BODY, "iso-8859-2", T("iso-8859-2") "\xb1", 0, "\xc4\x85" },
	{ BODY, "iso-8859-9 is windows-1254", T("iso-8859-9") "\xf0\x80", 0, "\xc4\x9f\xe2\x82\xac" },
	{ BODY, "tis-620 is windows-874", T("tis-620") "\xa1\x80", "CP874", "\xe0\xb8\x81\xe2\x82\xac" },
	{ BODY, "iso-8859-8-i", T("iso-8859-8-i") "\xf9", 0, "\xd7\xa9" },
	{ BODY, "a blank boundary is none", "Content-Type: multipart/mixed; boundary=\" \"\r\n\r\n"
	  "--\r\n\r\nx", 0, "--\r\n\r\nx" },
	{ BODY, "koi8-u", T("koi8-u") "\xa4", 0, "\xd1\x94" },
	{ BODY, "windows-1251", T("windows-1251") "\xcf", 0, "\xd0\x9f" },
	{ BODY, "gb2312 is GB18030", T("gb2312") "\xc4\xe3\x81\x30\x81\x30", 0, "\xe4\xbd\xa0\xc2\x80" },
	{ BODY, "big5", T("big5") "\xa7\x41", 0, "\xe4\xbd\xa0" },
	{ BODY, "shift_jis is CP932", T("shift_jis") "\x87\x40\x82\xa0", "CP932", "\xe2\x91\xa0\xe3\x81\x82" },
	{ BODY, "euc-jp", T("euc-jp") "\xa4\xa2", 0, "\xe3\x81\x82" },
	{ BODY, "iso-2022-jp", T("iso-2022-jp") "\x1b$B$\"\x1b(B!", 0, "\xe3\x81\x82!" },
	{ BODY, "ks_c_5601-1987 is CP949", T("ks_c_5601-1987") "\xb0\xa1\x81\x41", 0,
	  "\xea\xb0\x80\xea\xb0\x82" },
	{ BODY, "iso-2022-kr", T("iso-2022-kr") "\x1b$)C\x0e\x30\x21\x0f!", 0, "\xea\xb0\x80!" },
	{ BODY, "hz-gb-2312", T("hz-gb-2312") "~{Dc~}!", 0, "\xe4\xbd\xa0!" },
	{ BODY, "utf-7", T("utf-7") "a+AOQ-b", 0, "a\xc3\xa4" "b" },
	{ BODY, "a bad octet stops nothing", T("gb2312") "a\xff" "b\xc4\xe3", 0, "a\xef\xbf\xbd" "b\xe4\xbd\xa0" },
	{ BODY, "HTML names its charset", "Content-Type: text/html\r\n\r\n<meta charset=koi8-r>\xc1", 0,
	  "<meta charset=koi8-r>\xd0\xb0" },
	{ BODY, "the old way", "Content-Type: text/html\r\n\r\n<META http-equiv=Content-Type "
	  "content=\"text/html; charset=windows-1251\">\xcf", 0, "<META http-equiv=Content-Type "
	  "content=\"text/html; charset=windows-1251\">\xd0\x9f" },
	{ BODY, "the label counts first", "Content-Type: text/html; charset=utf-8\r\n\r\n"
	  "<meta charset=koi8-r>\xc3\xa4", 0, "<meta charset=koi8-r>\xc3\xa4" },
	/* From: what is a name and what is an address */
	{ FROM, "a comma in a name", "From: Oak, Ann <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "a semicolon", "From: Oak; Ann of Elm <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "several", "From: Oak, Elm, Ash & Sons, Inc. <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "before a bare address", "From: Oak, ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "before a word in brackets", "From: Oak, Ann <root>\n\n", 0, "root" },
	{ FROM, "a name alone", "From: Ann of the Oaks\n\n", 0, "" },
	{ FROM, "in quotes", "From: \"Ann Oak\"\n\n", 0, "" },
	{ FROM, "one word in quotes", "From: \"Ann\"\n\n", 0, "" },
	{ FROM, "with a comma", "From: Oak, Ann\n\n", 0, "" },
	{ FROM, "with a dot", "From: Dr. Oak\n\n", 0, "" },
	{ FROM, "with empty brackets", "From: Ann <>\n\n", 0, "" },
	{ FROM, "in brackets", "From: <Ann Oak>\n\n", 0, "" },
	{ FROM, "one word", "From: root\n\n", 0, "root" },
	{ FROM, "one word with a comment", "From: root (Cron Daemon)\n\n", 0, "root" },
	{ FROM, "one word in brackets", "From: Cron Daemon <root>\n\n", 0, "root" },
	{ FROM, "an encoded name alone", "From: =?utf-8?B?QW5uIE9haw==?=\n\n", 0, "" },
	{ FROM, "in Q, with a comma", "From: =?utf-8?Q?Oak,_Ann?=\n\n", 0, "" },
	{ FROM, "all of it encoded", "From: =?utf-8?B?QW5uIDxhbm5Ab2FrLmV4YW1wbGU+?=\n\n", 0,
	  "ann@oak.example" },
	{ FROM, "in two words", "From: =?utf-8?Q?Ann_=3Cann?=\n =?utf-8?Q?=40oak.example=3E?=\n\n", 0,
	  "ann@oak.example" },
	{ FROM, "the brackets only", "From: Ann <=?utf-8?Q?ann=40oak.example?=>\n\n", 0, "ann@oak.example" },
	{ FROM, "an address as an encoded name", "From: =?utf-8?Q?=3Celm=40x.example=3E?= <ann@oak.example>\n\n",
	  0, "ann@oak.example" },
	{ FROM, "two in brackets", "From: Ann <ann@oak.example> <bob@elm.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "the first of them a name", "From: <Ann> <bob@elm.example>\n\n", 0, "bob@elm.example" },
	{ FROM, "a name in brackets behind", "From: ann@oak.example <Ann>\n\n", 0, "ann@oak.example" },
	{ FROM, "square brackets", "From: Oak [ann@oak.example]\n\n", 0, "ann@oak.example" },
	{ FROM, "around a name", "From: [Oak] Ann <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "a quote right behind a word", "From: Ann\"Oak\" <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "no address in them", "From: Ann [Sales]\n\n", 0, "" },
	{ FROM, "beside a literal", "From: [ann@[192.0.2.1]]\n\n", 0, "ann@[192.0.2.1]" },
	{ FROM, "no opening bracket", "From: Ann ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "a comment not closed, and one that is", "From: Ann (a <ann@oak.example> (b)\n\n", 0, "ann@oak.example" },
	{ FROM, "the outer one not closed", "From: ((Ann) ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "a raw name in ISO-2022-JP", "From: \033$BEl5~\033(B (\033$B3t\033(B) <ann@oak.example> (a)\n\n", 0,
	  "ann@oak.example" },
	{ FROM, "one with < and @ in a comment", "From: ann@oak.example (\033$B%j!<%@!<\033(B)\n\n", 0, "ann@oak.example" },
	{ FROM, "one before brackets", "From: \033$B%j!<%@!<,;:\"(\033(B <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "one in quotes", "From: \"\033$B!<\"%@%\\\033(B\" <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "one alone", "From: \033$B@P0f\033(B\n\n", 0, "" },
	{ FROM, "one that does not end", "From: \033$B;3ED ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "... but another way", "From: Ann \033$B;3\033$@;3 ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "cut off", "From: ann@oak.example \033$", 0, "ann@oak.example" },
	{ FROM, "its end alone", "From: Ann (\033(B) ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "cut off later", "From: ann@oak.example \033$B;3\033(", 0, "ann@oak.example" },
	{ FROM, "a comment in sixteen", "From: a ((((((((((((((((b@c.d)))))))))))))))) <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "more than that, not closed", "From: (((((((((((((((((ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "a ) without (", "From: Ann) ann@oak.example)\n\n", 0, "ann@oak.example" },
	{ FROM, "a ( within the address", "From: <ann(@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "quoted pairs in a comment", "From: (\\) \\( b@c.d \\\\) ann@oak.example (\\)\n\n", 0, "ann@oak.example" },
	{ FROM, "an @ in a name", "From: Jobs @ Oak, Inc. <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "before the firm", "From: Ann @Elm Ltd, Oak <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "nothing better behind it", "From: ann @oak, bob @oak, Ann\n\n", 0, "ann@oak" },
	{ FROM, "better, but far away", "From: Oak @ Elm,,a,b,c, d <ann@oak.example>\n\n", 0, "Oak@Elm" },
	{ FROM, "... and not so far", "From: Oak @ Elm,,a,b, c <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "blanks at a dot", "From: ann . oak@localhost, <bob@elm.example>\n\n", 0, "ann.oak@localhost" },
	{ FROM, "quotes at the @", "From: \"ann\"@localhost, <bob@elm.example>\n\n", 0, "\"ann\"@localhost" },
	{ FROM, "one without brackets behind it", "From: ann @oak, bob@elm.example\n\n", 0, "ann@oak" },
	{ ADDRESSES, "none is lost", "a @b, c@d.e, f @g", 0, "a@b|c@d.e|f@g|" },
	{ FROM, "no dot, but no blank", "From: root@oak, Ann <ann@oak.example>\n\n", 0, "root@oak" },
	{ FROM, "alone", "From: root @ oak,\n\n", 0, "root@oak" },
	{ FROM, "in brackets", "From: Oak <root @ oak>, Ann <ann@oak.example>\n\n", 0, "root@oak" },
	{ FROM, "no closing bracket, two", "From: Ann <ann@oak.example, bob@elm.example\n\n", 0,
	  "ann@oak.example" },
	{ FROM, "a quoted comma in it", "From: <\"oak, ann\"@oak.example>\n\n", 0, "\"oak, ann\"@oak.example" },
	{ ADDRESSES, "names between addresses", "Oak, Ann <a@b>, Elm, Bob <c@d>; root", 0, "a@b|c@d|root|" },
	{ ADDRESSES, "a route", "Ann <@x.example,@y.example:a@b>, <:c@d>", 0, "a@b|c@d|" },

	/* Labels as people write them */
#define L(label, in, out) { BODY, "label " label, T(label) in, 0, out }
#define NEEDS(charset, label, in, out) { BODY, "label " label, T(label) in, charset, out }
	L("l9", "\xa4", "\xe2\x82\xac"), L("sun_eu_greek", "\xe1", "\xce\xb1"),
	L("visual", "\xe0", "\xd7\x90"), L("logical", "\xe0", "\xd7\x90"),
	L("latin3", "\xa1", "\xc4\xa6"), L("cyrillic", "\xd0", "\xd0\xb0"),
	L("cp-1251", "\xcf", "\xd0\x9f"), L("windows1251", "\xcf", "\xd0\x9f"), L("win-1251", "\xcf", "\xd0\x9f"),
	L("WIN1251", "\xcf", "\xd0\x9f"), L("x-cp-1251", "\xcf", "\xd0\x9f"), L("ibm-850", "\x81", "\xc3\xbc"),
	L("\"windows 1251\"", "\xcf", "\xd0\x9f"), L("cp-850", "\x81", "\xc3\xbc"), L("850", "\x81", "\xc3\xbc"),
	L("cp-866", "\x80", "\xd0\x90"), L("csibm866", "\x80", "\xd0\x90"), L("iso8859_2", "\xb1", "\xc4\x85"),
	L("\"ISO 8859-2\"", "\xb1", "\xc4\x85"), L("8859-2", "\xb1", "\xc4\x85"), L("iso_8859-2:1987", "\xb1", "\xc4\x85"),
	L("csisolatin2", "\xb1", "\xc4\x85"), L("latin-2", "\xb1", "\xc4\x85"), L("iso-8859-1:1987", "\x80", "\xe2\x82\xac"),
	L("iso885915", "\xa4", "\xe2\x82\xac"), L("iso-ir-101", "\xb1", "\xc4\x85"), L("csiso88596e", "\xc7", "\xd8\xa7"),
	L("euc_jp", "\xa4\xa2", "\xe3\x81\x82"), L("x-euc-jp", "\xa4\xa2", "\xe3\x81\x82"),
	L("windows-932", "\x82\xa0", "\xe3\x81\x82"), L("x-ms-cp932", "\x82\xa0", "\xe3\x81\x82"),
	L("x-windows-949", "\xb0\xa1", "\xea\xb0\x80"), L("ks_c_5601", "\xb0\xa1", "\xea\xb0\x80"),
	L("x-euc-cn", "\xc4\xe3", "\xe4\xbd\xa0"), L("gb_2312-80", "\xc4\xe3", "\xe4\xbd\xa0"),
	L("csiso58gb231280", "\xc4\xe3", "\xe4\xbd\xa0"), L("x-x-big5", "\xa7\x41", "\xe4\xbd\xa0"),
	L("big_5", "\xa7\x41", "\xe4\xbd\xa0"), L("UTF8", "\xc3\xa4", "\xc3\xa4"), L("x-unicode-2-0-utf-7", "+AOQ-", "\xc3\xa4"),
	L("cp65000", "+AOQ-", "\xc3\xa4"), L("utf-8//translit", "\xc3\xa4\xff", "\xc3\xa4\xef\xbf\xbd"),
	L("koi", "\xc1", "\xd0\xb0"), L("ms-ansi", "\x80", "\xe2\x82\xac"), L("l1", "\x80", "\xe2\x82\xac"),
	L("codepage-1251", "\xcf", "\xd0\x9f"), L("CP00437", "\x81", "\xc3\xbc"), L("ccsid 00850", "\x81", "\xc3\xbc"),
	L("x-cp037", "\xc1", "A"), L("ccsid 00037", "\xc1", "A"),
	L("cp65001", "\xc3\xa4\xff", "\xc3\xa4\xef\xbf\xbd"), L("cp20866", "\xc1", "\xd0\xb0"), L("cp21866", "\xa4", "\xd1\x94"),
	L("GB18030-2000", "\xc4\xe3", "\xe4\xbd\xa0"), L("x-cp20936", "\xc4\xe3", "\xe4\xbd\xa0"), L("Big5-ETEN", "\xa7\x41", "\xe4\xbd\xa0"),
	L("JIS", "\033$B$\"\033(B", "\xe3\x81\x82"), L("_iso-2022-jp$ESC", "\033$B$\"\033(B", "\xe3\x81\x82"),
	L("ks_x_1001", "\xb0\xa1", "\xea\xb0\x80"), L("x-cp20949", "\xb0\xa1", "\xea\xb0\x80"), L("tis620-2533", "\xa1", "\xe0\xb8\x81"),
	/* What is none: UTF-8, or else windows-1252 */
	L("wchar_t", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"), L("w-char-t", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"),
	L("char", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"), L("\"\"", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"),
	L("\"  \"", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"), L("--", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"),
	L("x-", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"), L("//", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"),
	L("iso-8859-99", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"), L("cp0", "\xe4\x80", "\xc3\xa4\xe2\x82\xac"),
	L("utf-8-of-a-name-that-is-longer-than-any-charset-has-ever-been-called", "\xe4", "\xc3\xa4"),

	/* Pairs */
	L("big5", "\xa4\xe9\xb4\xc1\xa1\xfe\xae\xc9\xb6\xa1", "\xe6\x97\xa5\xe6\x9c\x9f\xef\xbc\x8f\xe6\x99\x82\xe9\x96\x93"),
	L("big5", "\xa2\x40\xa1\xc2\xa1\xe3", "\xef\xbc\xbc\xc2\xaf\xef\xbd\x9e"),
	L("big5", "\xc6\xa1\xc6\xe8\xc7\xf3", "\xe2\x91\xa0\xe3\x81\x82\xd0\x90"),
	L("big5-hkscs", "\xfc\xf9\xa7\x41\x88\x62", "\xe6\xb9\x90\xe4\xbd\xa0\xc3\x8a\xcc\x84"),
	NEEDS("CP932", "iso-2022-jp", "\033$B|b66\033(B", "\xe9\xab\x99\xe6\xa9\x8b"),
	NEEDS("CP932", "iso-2022-jp-ms", "\033$B|b66\033(B", "\xe9\xab\x99\xe6\xa9\x8b"),
	NEEDS("CP932", "cp50220", "\033$B|b66\033(B", "\xe9\xab\x99\xe6\xa9\x8b"),
	NEEDS("CP932", "cp50221", "\033$By!\033(B!", "\xe7\xba\x8a!"), NEEDS("CP932", "cp50222", "\033$B|n\033(Ba", "\xe9\xbb\x91" "a"),
	NEEDS("EUC-JP-MS", "iso-2022-jp-1", "\033$(Dm?\033(B", "\xe9\xbd\x81"), NEEDS("CP932", "iso-2022-jp-2004", "\033$(Q|b\033(B", "\xe9\xab\x99"),
	NEEDS("CP932", "euc-jp", "\xfc\xe2\xb6\xb6", "\xe9\xab\x99\xe6\xa9\x8b"), NEEDS("CP932", "euc-jp", "a\xb6\xb6\xf9\xa1\n", "a\xe6\xa9\x8b\xe7\xba\x8a\n"),
	L("euc-jp", "\xa9\xa1\xc3\xed\xca\xb8", "\xef\xbf\xbd\xe6\xb3\xa8\xe6\x96\x87"),
	L("euc-jp", "\xa4" "a\xa4\xa2", "\xef\xbf\xbd" "a\xe3\x81\x82"), L("euc-jp", "\x8f\xa1\xa1\xa4\xa2", "\xef\xbf\xbd\xe3\x81\x82"),
	L("big5", "\xc6\xcf\xc6\xd3\xc6\xd5\xc6\xd7\xc6\xde\xc6\xdf\xa7\x41", "\xe5\xbb\xb4\xe6\x97\xa0"
	  "\xe7\x99\xb6\xe9\x9a\xb6\xe3\x80\x83\xe4\xbb\x9d\xe4\xbd\xa0"),
	L("euc-kr", "<\xa2\xe8\"AB>", "<\xe3\x89\xbe\"AB>"), L("cp949", "\xa2\xe8\xb0\xa1", "\xe3\x89\xbe\xea\xb0\x80"),
	L("iso-2022-kr", "\x0e\"h0!\x0f" "a", "\xe3\x89\xbe\xea\xb0\x80" "a"),
	L("x-euc", "\xfc\xe2", "\xe9\xab\x99"), L("gb18030-2022", "\xd6\xd0", "\xe4\xb8\xad"),
	L("jis7", "\x1b$B$3\x1b(B", "\xe3\x81\x93"),
	L("ujis", "\xfc\xe2", "\xe9\xab\x99"), L("eucjp-win", "\xfc\xe2", "\xe9\xab\x99"),
	L("x-mac-japanese", "\x93\xfa", "\xe6\x97\xa5"), L("x-mac-centraleurroman", "\xec", "\xc5\xbe"),
	L("euc-kr", "\xc9\xa1\"ab\"", "\xef\xbf\xbd\"ab\""), L("euc-kr", "\xc9\xa1\xb0\xa1", "\xef\xbf\xbd\xea\xb0\x80"),
	L("shift_jis", "\x85\x9f\x82\xa0", "\xef\xbf\xbd\xe3\x81\x82"), L("shift_jis", "\xfd\x82\xa0", "\xef\xbf\xbd\xe3\x81\x82"),
	L("big5", "\xa3\xfe\xa7\x41", "\xef\xbf\xbd\xe4\xbd\xa0"), L("gbk", "\xff\xc4\xe3", "\xef\xbf\xbd\xe4\xbd\xa0"),
	L("gb2312", "\x80" "5", "\xe2\x82\xac" "5"), L("gbk", "\xc4\xe3\x80\xc4\xe3", "\xe4\xbd\xa0\xe2\x82\xac\xe4\xbd\xa0"),
	L("gb18030", "\x80", "\xe2\x82\xac"), L("iso-2022-jp", "\033$B)!$\"", "\xef\xbf\xbd\xe3\x81\x82"),
	L("\"koi8-r x\"", "\xc1", "\xd0\xb0"), L("euc-jp", "\x8e\xe0\xa4\xa2", "\xef\xbf\xbd\xe3\x81\x82"),
	L("iso-2022-jp", "\033xab\033$B$\"\033\nc", "\033xab\xe3\x81\x82\033\nc"), L("iso-2022-jp", "\033(Ja\\b", "a\xc2\xa5" "b"),
	L("iso-2022-jp", "\033(I1\033(B", "\xef\xbd\xb1"), L("hz", "~~a~{Dc~}", "~a\xe4\xbd\xa0"), L("hz", "~{Dc\nDc~}", "\xe4\xbd\xa0\nDc"),
	/* musl, which has no CP932, makes characters of what GB18030 leaves open. */
	NEEDS("CP932", "gb18030", "\xfe\x39\xfe\x39\xc4\xe3", "\xef\xbf\xbd\xe4\xbd\xa0"),
	L("iso-2022-kr", "\033$)C\x0e\x30\x21\x0f\x0e\x49\x21\x0f" "a", "\xea\xb0\x80\xef\xbf\xbd" "a"),
	L("big5", "\xa7\x41\xa7", "\xe4\xbd\xa0\xef\xbf\xbd"), L("utf-16le", "a", "a"),
	L("shift_jis", "\xa0\x82\xa0\x80", "\xef\xbf\xbd\xe3\x81\x82\xef\xbf\xbd"), L("windows-1253", "\xaa\xe1", "\xef\xbf\xbd\xce\xb1"),
	L("euc-jp", "\xa4\xa2\xa4", "\xe3\x81\x82\xef\xbf\xbd"),

	/* Seven-bit charsets */
	L("iso-2022-jp", "\xc3\xa4\xe6\xa9\x8b", "\xc3\xa4\xe6\xa9\x8b"), L("utf-7", "\xc3\xa4+", "\xc3\xa4+"),
	L("iso-2022-kr", "\xc3\xa4", "\xc3\xa4"), L("hz-gb-2312", "\xe6\xa9\x8b~", "\xe6\xa9\x8b~"),
	L("iso-2022-jp-2", "\xc3\xa4", "\xc3\xa4"), L("iso-2022-jp", "\033(J\\~\\100\033(B\\", "\xc2\xa5\xe2\x80\xbe\xc2\xa5" "100\\"),
	L("utf-7", "C++ and more", "C++ and more"), L("utf-7", "1+1=2, a+b", "1+1=2, a+b"), L("utf-7", "+- a+-b +", "+ a+b +"),
	L("utf-7", "ann+news@oak, x+y-z", "ann+news@oak, x+y-z"), L("utf-7", "+2D3eAA!+AOQA5A-+AOQ", "\xf0\x9f\x98\x80!\xc3\xa4\xc3\xa4\xc3\xa4"),
	L("utf-7", "+AOQA5ADkAOQA5ADk-", "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"),

	/* What begins an escape sequence and is none is text; SO and SI; no label */
	L("iso-2022-jp", "a\033[1mb", "a\033[1mb"), L("iso-2022-jp", "\033$B$\"\033(\r\nb", "\xe3\x81\x82\033\xef\xbf\xbd\r\nb"),
	L("iso-2022-jp", "\033\033$B$\"\033(B", "\033\xe3\x81\x82"), L("iso-2022-jp", "a\033", "a\033"), L("iso-2022-jp", "a\033$", "a\033$"),
	L("iso-2022-jp", "\033$(((B", "\033$(((B"), L("iso-2022-kr", "\033xa", "\033xa"), L("iso-2022-jp", "\033$\177a", "\033$\177a"),
	L("hz", "~user/~", "~user/~"), L("hz", "a~\nb~\r\nc~\rd", "abc~\rd"), L("hz", "~{Dc~\r\nDc~}", "\xe4\xbd\xa0" "Dc"),
	L("cp50222", "\033(J\016\x31\x32\017a\033(B", "\xef\xbd\xb1\xef\xbd\xb2" "a"),
	L("iso-2022-jp", "\033$B$\"\016\x31\017$\"\017$\"", "\xe3\x81\x82\xef\xbd\xb1\xe3\x81\x82\xe3\x81\x82"),
	L("iso-2022-jp", "\033$B$\"\016\x31\n\033(I\x31\017a", "\xe3\x81\x82\xef\xbd\xb1\n\xef\xbd\xb1" "a"),
	L("iso-2022-jp", "\033$B$\"$\016\016\x31", "\xe3\x81\x82\xef\xbf\xbd\xef\xbd\xb1"),
	L("utf-8", "a \033$B$\"\033(B", "a \xe3\x81\x82"), L("us-ascii", "\033$@$\"\033(J", "\xe3\x81\x82"), L("iso-8859-1", "\033$B$\"\033(B", "\xe3\x81\x82"),
	L("nobody", "\033[m\033$B$\"\033(Ba", "\033[m\xe3\x81\x82" "a"),
	L("utf-8", "\033$B$\"\033(B\xc3\xa4", "\033$B$\"\033(B\xc3\xa4"), L("us-ascii", "ESC \033$B is a \033[m b", "ESC \033$B is a \033[m b"),
	L("utf-8", "\033$B$\" \033", "\033$B$\" \033"), L("utf-8", "\033$B a", "\033$B a"), L("utf-8", "\033$B$\"\033(A", "\033$B$\"\033(A"), L("utf-8", "\033[1m\033$A", "\033[1m\033$A"), L("koi8-r", "\033$B$\"\033(B", "\xe3\x81\x82"),
	L("shift_jis", "a\033$B$\"\033(B", "a\xe3\x81\x82"), L("euc-jp", "\033$B$\"\033(J\\", "\xe3\x81\x82\xc2\xa5"),
	L("big5", "\033$B$\"\033(B\xa7\x41", "\033$B$\"\033(B\xe4\xbd\xa0"), L("koi8-r", "\033$B a", "\033$B a"),
	L("iso-2022-jp", "\033$B$\"\033(Qa", "\xe3\x81\x82" "a"),
	L("johab", "\033$B$\"\033(B\xf5\xff", "\033$B$\"\033(B\xef\xbf\xbd"),
	/* Text that is no UTF-16 */
	L("utf-16", "plain", "plain"), L("utf-16be", "\xc3\xa4 b", "\xc3\xa4 b"), L("utf-32", "plain text", "plain text"),
	L("iso-10646", "plain \xc3\xa4", "plain \xc3\xa4"), L("iso-10646", "\x80", "\xe2\x82\xac"), L("ucs-2be", "\xe4\xbd\x4f\x60", "\xee\x92\xbd\xe4\xbd\xa0"),
	L("unicodeBig", "\xe4\xbd\x4f\x60", "\xee\x92\xbd\xe4\xbd\xa0"), L("ucs-2le", "\xbd\xe4\x60\x4f", "\xee\x92\xbd\xe4\xbd\xa0"),
	L("utf-16be", "\xe4\xbd\x4f\x60", "\xee\x92\xbd\xe4\xbd\xa0"), L("ucs-2", "\033$B$\"\033(B", "\xe3\x81\x82"),
	{ WORDS, "a word is UTF-16", "=?utf-16be?B?TmBOYQ==?=", 0, "\xe4\xb9\xa0\xe4\xb9\xa1" },

	/* Byte-order marks */
	L("koi8-r", "\xef\xbb\xbf\xc3\xa4", "\xc3\xa4"), L("iso-8859-1", "\xef\xbb\xbf\xc3\xa4\xff", "\xc3\xa4\xef\xbf\xbd"),
	L("iso-2022-jp", "\xef\xbb\xbf\xc3\xa4", "\xc3\xa4"), L("utf-16", "\xef\xbb\xbf\xc3\xa4", "\xc3\xa4"),
	{ SUBJECT, "raw, in the body's charset", "Subject: \xcf\xf0\nContent-Type: text/plain; charset=windows-1251\n\nx",
	  0, "\xd0\x9f\xd1\x80" },
	{ SUBJECT, "raw, that is UTF-8", "Subject: \xc3\xa4\nContent-Type: text/plain; charset=koi8-r\n\nx", 0, "\xc3\xa4" },
	{ SUBJECT, "raw, no label", "Subject: \xe4\n\nx", 0, "\xc3\xa4" },
	{ SUBJECT, "raw, where the body is UTF-8", "Subject: \xe4\nContent-Type: text/plain; charset=utf-8\n\nx", 0, "\xc3\xa4" },
	{ SUBJECT, "raw, where it is UTF-16", "Subject: \xe4 a\nContent-Type: text/plain; charset=utf-16\n\nx", 0, "\xc3\xa4 a" },
	{ SUBJECT, "raw, a pair", "Subject: \xc4\xe3 a\nContent-Type: text/plain; charset=gb2312\n\nx", 0, "\xe4\xbd\xa0 a" },
	{ SUBJECT, "raw ISO-2022-JP", "Subject: \033$B|b66\033(B\nContent-Type: text/plain; charset=iso-2022-jp\n\nx", "CP932",
	  "\xe9\xab\x99\xe6\xa9\x8b" },
	{ SUBJECT, "a + where the body is UTF-7", "Subject: a+AOQ-b\nContent-Type: text/plain; charset=utf-7\n\nx", 0, "a+AOQ-b" },
	{ SUBJECT, "beside encoded-words", "Subject: \xcf =?utf-8?Q?=C3=A4?= \xcf\nContent-Type: text/plain; charset=cp1251\n\nx",
	  0, "\xd0\x9f \xc3\xa4 \xd0\x9f" },

#define HEAD "Content-Type: text/html\n\n"
	/* Types and parameters */
	{ TYPE, "a comma after it", "Content-Type: text/html, charset=utf-8\n\nx", 0, "text/html" },
	{ CHARSET, "a comma before it", "Content-Type: text/html, charset=utf-8\n\nx", 0, "utf-8" },
	{ TYPE, "a slash after it", "Content-Type: text/html/\n\nx", 0, "text/html" },
	{ TYPE, "in quotes", "Content-Type: \"text/html\"; charset=utf-8\n\nx", 0, "text/html" },
	{ TYPE, "plain text in quotes", "Content-Type: \"Text/Plain\"; charset=utf-8\n\nx", 0, "text/plain" },
	{ TYPE, "blanks at the slash", "Content-Type: text / html\n\nx", 0, "text/html" },
	{ TYPE, "two slashes", "Content-Type: text//html\n\nx", 0, "text/html" },
	{ TYPE, "a backslash", "Content-Type: text\\html; a=b\n\nx", 0, "text/html" },
	{ TYPE, "half of it", "Content-Type: HTML\n\nx", 0, "text/html" },
	{ TYPE, "the other half", "Content-Type: text/; x=html\n\nx", 0, "text/plain" },
	{ TYPE, "nothing before the slash", "Content-Type: /plain\n\nx", 0, "text/plain" },
	{ TYPE, "nothing", "Content-Type: ; charset=koi8-r\n\nx", 0, "text/plain" },
	{ TYPE, "8-bit", "Content-Type: t\xe4xt/html\n\nx", 0, "text/html" },
	{ BODY, "of no type", "Content-Type: \xff; charset=koi8-r\n\n\xc1", 0, "\xd0\xb0" },
	{ CHARSET, "no semicolon", "Content-Type: text/plain charset=koi8-r\n\nx", 0, "koi8-r" },
	{ CHARSET, "a fold and no semicolon", "Content-Type: text/plain\n charset=koi8-r; x=y\n\nx", 0, "koi8-r" },
	{ TYPE, "no semicolon", "Content-Type: text/html charset=koi8-r\n\nx", 0, "text/html" },
	{ BODY, "a boundary without semicolon", "Content-Type: multipart/mixed boundary=\"b c\"\n\n--b c\n\nyes\n--b c--", 0,
	  "yes" },
	{ CHARSET, "a quote at its end", "Content-Type: text/plain; charset=utf-8\"\n\nx", 0, "utf-8" },
	{ CHARSET, "a comma behind it", "Content-Type: text/plain; charset=utf-8, text/html\n\nx", 0, "utf-8" },
	{ CHARSET, "a quote at its beginning", "Content-Type: text/plain; charset=\"utf-8\n\nx", 0, "utf-8" },
	{ CHARSET, "a comment before =", "Content-Type: text/plain; charset (really) = utf-8\n\nx", 0, "utf-8" },
	{ CHARSET, "comments all about", "Content-Type: text/plain (a); (b) charset (c) = (d) koi8-r (e)\n\nx", 0, "koi8-r" },
	{ PARAM, "a name without value", "a/b; x; c=1", "c", "1" },
	{ PARAM, "a quoted pair in a comment", "a/b (\\); c=2); c=1", "c", "1" },
	{ PARAM, "a quoted pair at the end", "a/b; c=\"a\\\"b", "c", "a\"b" },
	{ PARAM, "a section that is no number", "a/b; c*x=2; c*0=1", "c", "1" },
	{ PARAM, "a section too far", "a/b; c*1000=2; c*0=1", "c", "1" },
	{ PARAM, "a fold in quotes", "a/b; c=\"1\r\n 2\"", "c", "1 2" },
	{ BODY, "meta closed", HEAD "<meta x><p charset=koi8-r>\xc3\xa4", 0, "<meta x><p charset=koi8-r>\xc3\xa4" },
	{ BODY, "UTF-16 cannot be meant", HEAD "<meta charset='utf-16'>\xc3\xa4", 0, "<meta charset='utf-16'>\xc3\xa4" },
	{ BODY, "quoted-printable, long", "Content-Transfer-Encoding: quoted-printable\n\nabcdefghijklmnopqrstuvwxyz=3D0 ",
	  0, "abcdefghijklmnopqrstuvwxyz=0" },
	{ BODY, "base64 in quotes", "Content-Transfer-Encoding: \"base64\"\n\nYWI=", 0, "ab" },
	{ BODY, "quoted-printable in quotes", "Content-Transfer-Encoding: \"Quoted-Printable\"\n\n=41", 0, "A" },
	{ BODY, "an attachment in quotes", "Content-Type: multipart/mixed; boundary=b\n\n--b\n"
	  "Content-Disposition: \"attachment\"\n\nno\n--b\n\nyes\n--b--", 0, "yes" },

	/* Headers that are broken, and other lines */
#define M(subtype) "Content-Type: multipart/" subtype "; boundary=b\n\n"
#define HTML "Content-Type: text/html\n"
	{ BODY, "an unindented continuation", M("mixed") "--b\nContent-Type: text/html;\ncharset=koi8-r\n"
	  "Content-Transfer-Encoding: base64\n\nPHA+\n--b--", 0, "<p>" },
	{ BODY, "its charset", "Content-Type: text/html; \r\ncharset=koi8-r\r\n\r\n\xc1", 0, "\xd0\xb0" },
	{ BODY, "before its semicolon", "Content-Type: text/html\r\n; charset=koi8-r\r\n\r\n\xc1", 0, "\xd0\xb0" },
	{ CHARSET, "behind =", "Content-Type: text/html; charset=\r\n\"koi8-r\"\r\n\r\nx", 0, "koi8-r" },
	{ CHARSET, "two of them", "Content-Type: text/plain;\nformat=flowed;\ncharset=koi8-r\n\nx", 0, "koi8-r" },
	{ FROM, "only of MIME's fields", "From: ann@oak;\nelm.example\nTo: x\n\n", 0, "ann@oak" },
	{ SUBJECT, "a field behind one that ends in ;", "To: a;\nSubject: b;\n\nx", 0, "b;" },
	{ BODY, "as the last line", M("mixed") "--b\nContent-Transfer-Encoding: base64\nContent-Type: text/html;\n"
	  "charset=utf-8\n\nPHA+\n--b--", 0, "<p>" },
	{ BODY, "what is no boundary", M("mixed") "--b\n" HTML "--not-a-boundary\nContent-Transfer-Encoding: base64\n\n"
	  "PHA+\n--b--", 0, "<p>" },
	{ BODY, "as the first line", M("mixed") "--b\n--not\n" HTML "Content-Transfer-Encoding: base64\n\nPHA+\n--b--", 0, "<p>" },
	{ BODY, "a line and the next boundary", M("mixed") "--b\n" HTML "text\n--b--", 0, "text" },
	{ BODY, "a first line that is indented", M("mixed") "--b\n\t " HTML "Content-Transfer-Encoding: base64\n\nPHA+\n--b--", 0, "<p>" },
	{ BODY, "blanks to the end", M("mixed") "--b\n ", 0, " " },
	{ BODY, "text that begins as a message does", M("mixed") "--b\n From: me\nyes\n--b--", 0, " From: me\nyes" },
	{ BODY, "a first line that is blank", M("mixed") "--b\n \n" HTML "Content-Transfer-Encoding: base64\n\nPHA+\n--b--", 0, "<p>" },
	{ BODY, "text that is indented", M("mixed") "--b\n a: b\n\nyes\n--b--", 0, " a: b\n\nyes" },
	{ BODY, "text at once", M("mixed") "--b\ntext\n\nmore\n--b--", 0, "text\n\nmore" },
	{ BODY, "a part that is a header", M("mixed") "--b\n" HTML "--b\n\nyes\n--b--", 0, "yes" },
	{ SUBJECT, "lines that end in CR", "From: a@b\rSubject: one\r two\r\rtext\r\n", 0, "one two" },
	{ BODY, "lines that end in CR", "From: a@b\rSubject: one\r\rtext\rmore\r\n", 0, "text\rmore\r" },
	{ SUBJECT, "behind a relay's", "Received: x\r\n\ty\r\nFrom: a@b\rSubject: one\r\rtext\r\n", 0, "one" },
	{ BODY, "behind a relay's", "Received: x\r\n\ty\r\nFrom: a@b\rSubject: one\r\rtext\rmore\r\n", 0, "text\rmore\r" },
	{ BODY, "a CR in the last line", "A: b\r\n\r\na\rb\r\n", 0, "a\rb\r\n" },
	{ FROM, "a CR within the last field", "Subject: x\r\nFrom: Ann\r<ann@oak.example>\r\n", 0, "ann@oak.example" },
	{ FROM, "CR CR LF behind it", "Subject: x\r\nFrom: ann@oak.example\r\r\n", 0, "ann@oak.example" },
	{ SUBJECT, "folded", "Received: x\r\nFrom: a@b\rSubject: a\r b\r\rtext\r\n", 0, "a b" },
	{ BODY, "no empty line", "Subject: x\n \nhello\nlast 1%\r\r2%\n", 0, "hello\nlast 1%\r\r2%\n" },
	{ SUBJECT, "a CR before what looks like a field", "From: a@b.c\r\nSubject: x\ry: z\r\n", 0, "xy: z" },
	{ SUBJECT, "a CR within a field", "Subject: a\rb: c\r\nD: e\r\n", 0, "ab: c" },
	{ BODY, "parts of them", "Content-Type: multipart/mixed; boundary=b\r\r--b\r\rone\r--b\r\rtwo\r--b--\r\n", 0,
	  "one\r\n\r\ntwo" },
	{ BODY, "quoted-printable of them", "Content-Transfer-Encoding: quoted-printable\r\ra=\rb=41 \rc\r\n", 0, "abA\rc\r" },
	{ SUBJECT, "a CR in a line", "From: a@b\r\nSubject: one\rtwo\r\nTo: x\r\n\r\ntext\r\n", 0, "onetwo" },

	/* The body: attachments, alternatives, several texts, other text */
	{ BODY, "HTML in an attached multipart", M("mixed") "--b\n\nyes\n--b\nContent-Type: multipart/related; boundary=i\n"
	  "Content-Disposition: attachment\n\n--i\n" HTML "\nno\n--i--\n--b--", 0, "yes" },
	{ BODY, "text behind it is not attached", M("mixed") "--b\nContent-Type: multipart/alternative; boundary=i\n"
	  "Content-Disposition: attachment\n\n--i\n\nno\n--i\n" HTML "\nno\n--i--\n--b\n\nyes\n--b--", 0, "yes" },
	{ BODY, "a footer in HTML", M("mixed") "--b\n\nyes\n--b\n" HTML "\nno\n--b--", 0, "yes" },
	{ TYPE, "a footer in HTML", M("mixed") "--b\n\nyes\n--b\n" HTML "\nno\n--b--", 0, "text/plain" },
	{ BODY, "a footer behind the alternatives", M("mixed") "--b\nContent-Type: multipart/alternative; boundary=i\n\n"
	  "--i\n\nplain\n--i--\n--b\n" HTML "\nno\n--b--", 0, "plain" },
	{ BODY, "HTML below an alternative", M("alternative") "--b\n\nplain\n--b\nContent-Type: multipart/related; boundary=i\n\n"
	  "--i\n" HTML "\nyes\n--i--\n--b--", 0, "yes" },
	{ BODY, "plain text below one", M("alternative") "--b\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nplain\n--i\n"
	  "\nmore\n--i--\n--b\n" HTML "\nyes\n--b--", 0, "yes" },
	{ BODY, "both below the same", M("alternative") "--b\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nplain\n--i\n"
	  HTML "\nno\n--i--\n--b--", 0, "plain" },
	{ BODY, "HTML first", M("mixed") "--b\n" HTML "\nyes\n--b\n\nno\n--b--", 0, "yes" },
	{ BODY, "text, then alternatives", M("mixed") "--b\n\none\n--b\nContent-Type: multipart/alternative; boundary=i\n\n"
	  "--i\n\ntwo\n--i\n" HTML "\nno\n--i--\n--b--", 0, "one\r\n\r\ntwo" },
	{ BODY, "pictures between", M("mixed") "--b\n\none\n--b\nContent-Type: image/png\n\nx\n--b\n\ntwo\n--b\n\n \n--b\n"
	  "Content-Disposition: attachment\n\nno\n--b\n\nthree\n--b--", 0, "one\r\n\r\ntwo\r\n\r\nthree" },
	{ BODY, "each of its charset", M("mixed") "--b\nContent-Type: text/plain; charset=koi8-r\n\n\xc1\n--b\n"
	  "Content-Type: text/plain; charset=utf-8\n\n\xef\xbb\xbf\xc3\xa4\n--b\nContent-Type: text/plain; charset=big5\n"
	  "Content-Transfer-Encoding: base64\n\np0E=\n--b--", 0, "\xd0\xb0\r\n\r\n\xc3\xa4\r\n\r\n\xe4\xbd\xa0" },
	{ CHARSET, "that of the first", M("mixed") "--b\nContent-Type: text/plain; charset=koi8-r\n\n\xc1\n--b\n"
	  "Content-Type: text/plain; charset=utf-8\n\n\xc3\xa4\n--b--", 0, "koi8-r" },
	{ BODY, "a calendar", "Content-Type: text/calendar\n\nBEGIN", 0, "BEGIN" },
	{ TYPE, "a calendar", "Content-Type: text/calendar\n\nBEGIN", 0, "text/calendar" },
	{ BODY, "beside text", M("mixed") "--b\nContent-Type: text/calendar\n\nno\n--b\n\nyes\n--b--", 0, "yes" },
	{ BODY, "beside blank text", M("mixed") "--b\n\n \n--b\nContent-Type: text/markdown\n\nyes\n--b--", 0, "yes" },
	{ BODY, "attached text alone", M("mixed") "--b\nContent-Type: image/png\n\nx\n--b\nContent-Disposition: attachment\n"
	  "\nyes\n--b--", 0, "yes" },
	{ BODY, "attached alternatives", M("mixed") "--b\nContent-Disposition: attachment\nContent-Type: multipart/alternative;"
	  " boundary=i\n\n--i\n\nno\n--i\n" HTML "\nyes\n--i--\n--b--", 0, "yes" },
#define RFC822 "Content-Type: message/rfc822\n\n"
	{ BODY, "a message alone", RFC822 "Subject: x\n\nyes", 0, "yes" },
	{ BODY, "within a message", RFC822 RFC822 RFC822 "yes", 0, "yes" },
	{ BODY, "attached", M("mixed") "--b\nContent-Disposition: attachment\n" RFC822 "Content-Type: multipart/alternative;"
	  " boundary=i\n\n--i\n\nno\n--i\n" HTML "\nyes\n--i--\n--b--", 0, "yes" },
	{ BODY, "text comes before its", M("mixed") "--b\n" RFC822 "\nno\n--b\nContent-Type: text/x-y\n\nyes\n--b--", 0, "yes" },
	{ BODY, "and does not go on in it", M("mixed") "--b\n\nyes\n--b\n" RFC822 "\nno\n--b--", 0, "yes" },
	{ BODY, "nor from one to the next", M("digest") "--b\n\nA: b\n\nyes\n--b\n\nA: b\n\nno\n--b--", 0, "yes" },
	{ BODY, "its attachment is not first", RFC822 M("mixed") "--b\nContent-Disposition: attachment\n\nno\n--b\n\nyes\n--b--", 0,
	  "yes" },
	{ BODY, "no boundary", "Content-Type: multipart/mixed\n\ntext\n", 0, "text\n" },
	{ BODY, "it never comes", "Content-Type: multipart/mixed; boundary=b\n\ntext\n--c\n", 0, "text\n--c\n" },
	{ BODY, "only the last", "Content-Type: multipart/mixed; boundary=b\n\ntext\n--b--\n", 0, "text\n--b--\n" },
	/* A boundary that is damaged: the first line that looks like one */
#define BAD(head, line) "Content-Type: multipart/mixed" head "\n\npre\n--\n--no\n" line "\nContent-Type: text/html\n\nyes\n" line "--"
	{ BODY, "two quotes on each side", BAD("; boundary=\"\"b\"\"", "--b"), 0, "yes" },
	{ BODY, "two before it", BAD("; boundary=\"\"b\"", "--b"), 0, "yes" },
	{ BODY, "an unindented boundary", BAD(";\nboundary=\"b\"", "--b"), 0, "yes" },
	{ BODY, "a boundary and half its quotes", BAD("; boundary=b\"", "--b"), 0, "yes" },
	{ BODY, "in apostrophes", BAD("; boundary='b'", "--b"), 0, "yes" },
	{ BODY, "a semicolon in it", BAD("; boundary=b;x", "--b;x"), 0, "yes" },
	{ BODY, "brackets in it", BAD("; boundary=(x)y", "--(x)y"), 0, "yes" },
#define X60 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	{ BODY, "too long a line", "Content-Type: multipart/mixed; boundary=c\n\n--" X60 X60 X60 X60 X60 "\nContent-Type: a/b\n--\n"
	  "Content-Type: a/b\n--b\nContent-Type: text/plain\n\nyes\n--b--", 0, "yes" },
#define IN(line) "Content-Type: multipart/mixed; boundary=c\n\n" line "\n"
	{ BODY, "of the fourth level", IN("--1") IN("--2") IN("--3") IN("--4") "Content-Type: text/plain\n\nyes", 0, "yes" },
	{ BODY, "not of the fifth", IN("--1") IN("--2") IN("--3") IN("--4") IN("--5") "Content-Type: text/plain\n\nx", 0,
	  "--5\nContent-Type: text/plain\n\nx" },
	{ BODY, "no field behind it", "Content-Type: multipart/mixed; boundary=b\n\na\n--c\nContent-wise\nContent-wise: b\n", 0,
	  "a\n--c\nContent-wise\nContent-wise: b\n" },
	{ BODY, "another one", BAD("; boundary=c", "--b"), 0, "yes" },
	{ BODY, "the first part has no header", "Content-Type: multipart/mixed; boundary=c\n\n--b\n\none\n--b\nContent-Type: text/plain\n\ntwo\n--b--",
	  0, "one\r\n\r\ntwo" },
	{ BODY, "but not the one around it", M("mixed") "--b\nContent-Type: multipart/mixed; boundary=c\n\nyes\n--b\nContent-Type: image/png\n\nx\n--b--",
	  0, "yes" },
	{ BODY, "and then that is seen again", M("mixed") "--b\nContent-Type: multipart/mixed; boundary=c\n\n--i\nContent-Type: text/plain\n\none\n--i--\n"
	  "--b\n\ntwo\n--b--", 0, "one\r\n\r\ntwo" },
	{ BODY, "within another", M("mixed") "--b\nContent-Type: multipart/mixed; boundary=i\n\ntext\n--b--", 0, "text" },
	{ BODY, "but for a part", M("mixed") "text\n--b\nContent-Type: image/png\n\nx\n--b--", 0, "" },
	{ BODY, "all blank", M("mixed") "--b\n\n \n--b\n" HTML "\n\n--b--", 0, " " },
	{ TYPE, "all blank", M("mixed") "--b\n" HTML "\n\n--b\n\n \n--b--", 0, "text/html" },
	{ BODY, "padding, and more on its line", "Content-Transfer-Encoding: base64\n\nYQ== said\nYg==", 0, "ab" },
	/* What is seldom met */
	{ WORDS, "two never closed", "=?utf-8?Q?a =?utf-8?Q?b", 0, "=?utf-8?Q?a =?utf-8?Q?b" },
	{ WORDS, "only a charset", "=?iso-8859-1", 0, "=?iso-8859-1" },
	{ WORDS, "a charset and an encoding", "=?utf-8?Q", 0, "=?utf-8?Q" },
	{ WORDS, "no charset", "=?\?Q?abc?=", 0, "=?\?Q?abc?=" },
	{ WORDS, "blanks in it", "is it =? why ?q? no idea ?= ok", 0, "is it =? why ?q? no idea ?= ok" },
	{ WORDS, "raw ISO-2022-JP", "a \033$B$\"\033(B =?utf-8?Q?b?= \033$B$\"\033(B", "CP932", "a \xe3\x81\x82 b \xe3\x81\x82" },
	{ WORDS, "in a word that says UTF-8", "=?utf-8?B?GyRCJCIbKEI=?=", "CP932", "\xe3\x81\x82" },
	{ WORDS, "Q with a ?", "=?utf-8?Q?a?b?=", 0, "a?b" },
	{ WORDS, "Q with a ?, and text in hex behind it", "=?utf-8?Q?a?=3Fbc", 0, "a3Fbc" },
	{ WORDS, "U+FF01 in UTF-16 is no mark", "=?utf-16be?B?/wEAYQ==?=", 0, "\xef\xbc\x81" "a" },
	{ FROM, "an address that is an encoded-word", "From: =?utf-8?Q?ann@oak.example?=\n\n", 0, "" },
	{ FROM, "a title before it", "From: Dr. ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "an abbreviation", "From: Ann Oak Jr. ann@oak.example\n\n", 0, "ann@oak.example" },
	{ TYPE, "the wrong way round", "Content-Type: plain/text; charset=utf-8\n\na", 0, "text/plain" },
	{ BODY, "the wrong way round", "Content-Type: plain/text; charset=koi8-r\n\n\xc1", 0, "\xd0\xb0" },
	{ TYPE, "html and text", "Content-Type: html/text\n\na", 0, "text/html" },
	{ TYPE, "an asterisk", "Content-Type: image/*\n\na", 0, "text/plain" },
	{ BODY, "an asterisk", "Content-Type: image/*\n\na", 0, "" },
	{ TYPE, "in apostrophes", "Content-Type: 'text/html'; charset=utf-8\n\na", 0, "text/html" },
	{ BODY, "an encoding in apostrophes", "Content-Transfer-Encoding: 'base64'\n\nYQ==", 0, "a" },
	{ FROM, "apostrophes around it", "From: 'ann@oak.example'\n\n", 0, "ann@oak.example" },
	{ FROM, "within the brackets", "From: 'Ann' <'ann@oak.example'>\n\n", 0, "ann@oak.example" },
	{ FROM, "apostrophes of the name", "From: Ann O'Oak <'o'oak@oak.example>\n\n", 0, "'o'oak@oak.example" },
	{ FROM, "one behind it", "From: ann@oak.example'\n\n", 0, "ann@oak.example" },
	{ FROM, "only that", "From: ann@', bob@elm.example\n\n", 0, "ann@'" },
	{ FROM, "one within it", "From: <ann@oak.example'.elm.example>\n\n", 0, "ann@oak.example'.elm.example" },
	{ FROM, "a name and an address in brackets", "From: <\"bob@elm.example\" ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "a name that is an address", "From: \"bob@elm.example\" <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "escaped for HTML", "From: Ann &lt;ann@oak.example&gt;\n\n", 0, "ann@oak.example" },
	{ FROM, "an & within it", "From: ann@a&gt.example\n\n", 0, "ann@a&gt.example" },
	{ FROM, "only an & behind", "From: ann@&gt; bob@elm.example\n\n", 0, "ann@&gt" },
	{ FROM, "ISO-2022-JP in it", "From: <\"\033$B$$\033(B\"@oak.example>\n\n", 0, "\"\033$B$$\033(B\"@oak.example" },
	{ FROM, "apostrophes in both", "From: &lt;'ann@oak.example'&gt;\n\n", 0, "ann@oak.example" },
	{ FROM, "no local part", "From: '@oak.example'\n\n", 0, "'@oak.example" },
	{ FROM, "an encoded-word that another closes", "From: =?utf-8?Q?Ann <ann@oak.example>, =?utf-8?Q?Bob?= <bob@elm.example>\n\n", 0,
	  "ann@oak.example" },
	{ FROM, "an encoded name never closed", "From: =?utf-8?Q?Bob_<ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ CHARSET, "behind a parameter without one", "Content-Type: text/plain; format=flowed charset=koi8-r\n\nx", 0, "koi8-r" },
	{ CHARSET, "with backslashes", "Content-Type: text/plain; charset=\\\"KOI8-R\\\"\n\nx", 0, "koi8-r" },
	{ CHARSET, "in apostrophes", "Content-Type: text/plain; charset='KOI8-R'\n\nx", 0, "koi8-r" },
	{ CHARSET, "in apostrophes and quotes", "Content-Type: text/plain; charset=\"'utf-8';\"\n\nx", 0, "utf-8" },
	{ FROM, "no domain", "From: nobody@\n\n", 0, "" },
	{ FROM, "none in brackets", "From: Ann <ann@>\n\n", 0, "" },
	{ FROM, "a backslash ends the name", "From: \"OAK\\\" <ann@oak.example>\n\n", 0, "ann@oak.example" },
	{ FROM, "and a literal behind", "From: \"OAK\\\" <ann@[192.0.2.1]>\n\n", 0, "ann@[192.0.2.1]" },
	{ FROM, "a word behind empty brackets", "From: Ann <> Oak\n\n", 0, "" },
	{ FROM, "a word behind one in brackets", "From: Cron <root> Daemon\n\n", 0, "root" },
	{ FROM, "right behind the name", "From: \"Ann\"ann@oak.example\n\n", 0, "ann@oak.example" },
	{ FROM, "a backslash ends it", "From: (a b\\", 0, "" },
	{ PARAM, "no value", "a/b; c=", "c", "" },
	{ PARAM, "a ( within a value", "a/b; c=a(b)", "c", "a(b)" },
	{ PARAM, "a backslash ends it", "a/b; c=\"a\\\"b\\", "c", "a\"b\\" },
	{ PARAM, "no charset (RFC 2231 4)", "a/b; c*=%41b", "c", "Ab" },
	{ PARAM, "no language", "a/b; c*=utf-8'%41", "c", "utf-8'A" },
	{ PARAM, "% without a number", "a/b; c*=utf-8''%4x%x4", "c", "%4x%x4" },
	{ PARAM, "a section too many", "a/b; c*0=a; c*1=b; c*2=c; c*3=d; c*4=e; c*5=f; c*6=g; c*7=h; c*8=i; c*9=j; c*10=k; "
	  "c*11=l; c*12=m; c*13=n; c*14=o; c*15=p; c*16=q; c*17=r; c*18=s; c*19=t; c*20=u", "c", "abcdefghijklmnopqrst" },
	{ TYPE, "DEL", "Content-Type: text/html\177\n\nx", 0, "text/html" },
	{ BODY, "a name of no charset in HTML", HEAD "<meta charset=koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r>"
	  "\xe4", 0, "<meta charset=koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r-koi8-r>\xc3\xa4" },
	{ SUBJECT, "one line", "Subject: a\r\n", 0, "a" },
	{ BODY, "CR CR LF", "A: b\r\r\n\r\r\nyes\r\r\nTo: x\r\r\n", 0, "yes\r\r\nTo: x\r\r\n" },
	{ BODY, "CR CR LF in parts", "Content-Type: multipart/mixed; boundary=b\r\r\n\r\r\n--b\r\r\n" HTML "\r\r\nyes\r\n--b--\r\r\n", 0,
	  "yes" },
	{ BODY, "a line that begins with CR", "A: b\n\ra\n\nyes", 0, "yes" },
	{ BODY, "a longer one", "A: b\n\rab\n\nyes", 0, "yes" },
	{ BODY, "short lines that begin as a boundary", "Content-Type: multipart/mixed; boundary=bb\n\n--bb\n\na\n--b\n--bc\n--bb--", 0,
	  "a\n--b\n--bc" },
	{ BODY, "in a message within", M("mixed") "--b\n" RFC822 "\n--\n----\nyes\n--b--", 0, "--\n----\nyes" },
	{ BODY, "white space of all kinds", M("mixed") "--b\n\n\f\v\xe2\x80\x8b\xe3\x80\x80\xef\xbb\xbf\n--b\n\nyes\n--b--", 0, "yes" },
	{ BODY, "a letter of NBSP's first octet", M("mixed") "--b\n\n\xc2\xa9\n--b--", 0, "\xc2\xa9" },
	{ BODY, "blank text of no known type", "Content-Type: text/calendar\n\n \n", 0, "" },
	{ BODY, "a calendar, then no text", M("mixed") "--b\nContent-Type: text/calendar\n\nyes\n--b\nContent-Type: image/png\n\nno\n--b--",
	  0, "yes" },
	{ BODY, "two attachments in HTML", M("mixed") "--b\nContent-Disposition: attachment\n" HTML "\nyes\n--b\n"
	  "Content-Disposition: attachment\n" HTML "\nno\n--b--", 0, "yes" },
	L("euc-kr", "\xa2\xae", "\xc2\xa1"),
	{ FROM, "a dot in brackets", "From: Oak <a. b@oak.example>\n\n", 0, "a.b@oak.example" },
	{ ADDRESS, "a dot and a blank in a domain", "a@b. c", 0, "a@b.c" },
#define UU "Content-Transfer-Encoding: x-uuencode\n\nbegin 644 f\n"
	{ BODY, "a line shorter than it says", UU "M86)C\n#9&5F\nend\n", 0, "abcdef" },
	{ BODY, "a line that begins with END", "Content-Type: text/plain; charset=iso-8859-1\n" UU "END%X>'AX>'AX>'AX>'AX>'AX>'AX>'AX>'AX>'AX>'AX>'AX>   \nend\n", 0,
	  "\xc2\xba" "Axxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" },
	{ BODY, "a line of no length ends it", UU "#86)C\n\ta\n#9&5F\nend\n", 0, "abc\ta\n#9&5F\nend\n" },
	{ BODY, "text around it, and an empty line", "Content-Transfer-Encoding: x-uuencode\n\none\nbegin\nbegin x\nbegin 644 f\n#86)C\n\nend\ntwo\n"
	  "begin 600 g\n#9&5F\n`\nend\n", 0, "one\nbegin\nbegin x\nabctwo\ndef" },
	{ BODY, "a begin that ends it", "Content-Transfer-Encoding: x-uuencode\n\nbegin ", 0, "begin " },
	{ BODY, "text that only says so", "Content-Transfer-Encoding: x-uuencode\n\none\n\ntwo", 0, "one\n\ntwo" },
	NEEDS("CP932", "gb18030", "\x84\x31\x41\x41", "\xef\xbf\xbd" "1AA"), L("euc-kr", "a\xff", "a\xef\xbf\xbd"), L("euc-kr", "\x80\xb0\xa1", "\xef\xbf\xbd\xea\xb0\x80"),
	L("euc-kr", "\xff" "a\xb0\xa1\xb0\xa1\xb0\xa1\xb0\xa1\xb0\xa1\xb0\xa1\xb0\xa1\xb0\xa1", "\xef\xbf\xbd" "a\xea\xb0\x80"
	  "\xea\xb0\x80\xea\xb0\x80\xea\xb0\x80\xea\xb0\x80\xea\xb0\x80\xea\xb0\x80\xea\xb0\x80"),
	L("euc-jp", "\x8f\xa1" "a\xa4\xa2", "\xef\xbf\xbd" "a\xe3\x81\x82"), L("euc-jp", "\x8f" "a\xa4\xa2", "\xef\xbf\xbd" "a\xe3\x81\x82"),
	L("iso-2022-jp", "\033$Zab", "ab"),
	L("gb2312", "\xc4\xe3\xc4" "5\n", "\xe4\xbd\xa0\xef\xbf\xbd" "5\n"), L("gb18030", "\x81\x30\x81", "\xef\xbf\xbd"),
	/* HZ: a pair may end in "~"; a shift or a line's end in the middle of a pair costs only it. */
	L("hz", "~{0~~}, ~{7~Dc~}~~", "\xe5\x89\xa5, \xe6\x9c\x8d\xe4\xbd\xa0~"), L("hz", "~{D\nc~{Dc~}", "\xef\xbf\xbd\nc\xe4\xbd\xa0"),
	L("iso-2022-kr", "\x0e" "0!0\x0f" "abc\x0e" "0!\x0f", "\xea\xb0\x80\xef\xbf\xbd" "abc\xea\xb0\x80"),
	L("iso-2022-kr", "\x0e" "0\x0f\x0e" "0!\x0f", "\xef\xbf\xbd\xea\xb0\x80"), L("iso-2022-kr", "\x0e" "0 0!\n0", "\xef\xbf\xbd \xea\xb0\x80\n0"),
	L("iso-2022-kr", "\x0e" "0!0\x0f", "\xea\xb0\x80\xef\xbf\xbd"),
};

/* ---- what does not fit into a table ---- */

static void
check_utf16(void)
{
	static const char be[] = T("utf-16") "\xfe\xff\0a\0\xe4", le[] = T("utf-16") "a\0\xe4\0";
	static const char *const b64 = "Content-Type: text/plain; charset=utf-16\r\n"
	    "Content-Transfer-Encoding: base64\r\n\r\n/v8AYQDk";
	static const char marked[] = T("utf-8") "\xff\xfe" "a\0\xe4\0";
	static const char lone[] = T("utf-16le") "a\0\0\xd8" "b\0\0\xdc" "c\0";
	static const char utf32[] = T("utf-32le") "\0\0\x11\0b\0\0\0";
	static const char utf32be[] = T("utf-32") "\0\0\xfe\xff\0\0\0b";
	static const char nul[] = "Subject: a\0b\r\n\r\nc\0d";

	check(BODY, "UTF-16, big end first by its mark", (struct mime_span){ be, sizeof(be) - 1 }, 0,
	    "a\xc3\xa4");
	check(BODY, "UTF-16 without a mark", (struct mime_span){ le, sizeof(le) - 1 }, 0, "a\xc3\xa4");
	check(BODY, "UTF-16 in base64", span(b64), 0, "a\xc3\xa4");
	check(BODY, "UTF-16 by its mark, labelled utf-8", (struct mime_span){ marked, sizeof(marked) - 1 }, 0,
	    "a\xc3\xa4");
	check(BODY, "a lone surrogate costs its unit", (struct mime_span){ lone, sizeof(lone) - 1 }, 0,
	    "a\xef\xbf\xbd" "b\xef\xbf\xbd" "c");
	check(BODY, "no character of UTF-32 costs its four", (struct mime_span){ utf32, sizeof(utf32) - 1 }, 0,
	    "\xef\xbf\xbd" "b");
	check(BODY, "UTF-32, big end first", (struct mime_span){ utf32be, sizeof(utf32be) - 1 }, 0, "b");
	check(BODY, "NUL in the text", (struct mime_span){ nul, sizeof(nul) - 1 }, 0, "cd");
	check(SUBJECT, "NUL in a field", (struct mime_span){ nul, sizeof(nul) - 1 }, 0, "ab");
}

/* What stands behind a piece, or right at its end, and is no beginning of anything. */
static void
check_behind(void)
{
	static const struct { const char *what, *head, *tail; size_t bad, plain; } ways[] = {
		{ "ISO-2022-JP where a charset was given up", T("gb2312"), "\033$B0l\033(B\n", 2025, 2100 },
		{ "uuencode in the middle of a line", "Content-Transfer-Encoding: x-uuencode\n\n",
		  "begin 6 y\nABC\n", 0, 4096 }
	};
	static char msg[5000], got[20000];
	static struct mime_body found;
	size_t i, n, behind;

	for (i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		n = (size_t)sprintf(msg, "%s", ways[i].head);
		memset(msg + n, 0xff, ways[i].bad);
		memset(msg + n + ways[i].bad, 'a', ways[i].plain);
		n += ways[i].bad + ways[i].plain;
		n += (size_t)sprintf(msg + n, "%s", ways[i].tail);
		mime_body(msg, n, &found);
		n = mime_body_text(&found, got, sizeof(got));
		behind = 3 * ways[i].bad + ways[i].plain;	/* U+FFFD for each that is bad */
		report(n == behind + strlen(ways[i].tail) && strcmp(got + behind, ways[i].tail) == 0,
		    ways[i].what, ways[i].head, got, ways[i].tail);
	}
}

/* A text much longer than the pieces it is decoded in, at every offset to them. */
static void
check_pieces(void)
{
	static const struct { const char *charset, *encoding, *in, *between, *text; } ways[] = {
		{ "utf-8", "quoted-printable", "=E4=BD=A0", "=\r\n", "\xe4\xbd\xa0" },
		{ "gb18030", "quoted-printable", "=C4=E3", "=\r\n", "\xe4\xbd\xa0" },
		{ "utf-8", "8bit", "\xe4\xbd\xa0", "", "\xe4\xbd\xa0" }, { "big5", "8bit", "\xa7\x41", "", "\xe4\xbd\xa0" },
		{ "utf-8", "quoted-printable", "abc", "", "abc" }, { "koi8-r", "base64", "wcHB", "\r\n", "\xd0\xb0\xd0\xb0\xd0\xb0" },
		{ "iso-2022-jp", "7bit", "\033$B$\"\033(B", "", "\xe3\x81\x82" }, { "utf-7", "7bit", "+T2A-", "", "\xe4\xbd\xa0" },
		{ "utf-8", "x-uuencode", "abc", "", "abc" }, { "utf-7", "7bit", "1+1=2", "", "1+1=2" }, { "iso-8859-1", "8bit", "\xe4", "", "\xc3\xa4" },
		{ "euc-jp", "8bit", "\xa9\xa1\xa4\xa2", "", "\xef\xbf\xbd\xe3\x81\x82" },
		{ "big5", "8bit", "\x91\x5f", "", "\xe4\xb0\x8e" }, { "euc-kr", "8bit", "\xc9\xa1\xb0\xa1", "", "\xef\xbf\xbd\xea\xb0\x80" }
	};
	static char msg[200000], want[100000], got[100000];
	static struct mime_body found;
	size_t n, w, i, k, shift;

	for (k = 0; k < sizeof(ways) / sizeof(*ways); k++) {
		int good = 1;

		for (shift = 0; shift < 8; shift += strcmp(ways[k].encoding, "base64") == 0 ? 4 : 1) {
			n = (size_t)sprintf(msg, "Content-Type: text/plain; charset=%s\r\n"
			    "Content-Transfer-Encoding: %s\r\n\r\n", ways[k].charset, ways[k].encoding);
			w = (size_t)sprintf(want, "%.*s", (int)(strcmp(ways[k].encoding, "base64") ? shift : shift / 4 * 3),
			    "xxxxxxxx");
			n += (size_t)sprintf(msg + n, "%.*s", (int)shift, w == shift ? "xxxxxxxx" : "eHh4eHh4");
			for (i = 0; i < 6000; i++) {
				n += (size_t)sprintf(msg + n, "%s%s", ways[k].in, i % 9 ? "" : ways[k].between);
				w += (size_t)sprintf(want + w, "%s", ways[k].text);
			}
			mime_body(msg, n, &found);
			good &= mime_body_text(&found, got, sizeof(got)) == w && memcmp(got, want, w) == 0;
		}
		report(good, "characters across pieces", ways[k].charset, "something else", "the same");
	}
}

/*
 * What is mostly no characters is in another charset than its label says, and
 * UTF-8 comes out; that some are none, or in another charset's rows, is no sign.
 */
static void
check_mislabelled(void)
{
	static const struct { const char *charset, *in, *text, *needs; int last; } ways[] = {
		{ "euc-kr", "\xc9\xa1", "\xc9\xa1", "CP949", 1 },
		{ "iso-8859-8", "\xc3\xa9", "\xc3\xa9", "ISO-8859-8", 1 },
		{ "euc-kr", "\xc9\xa1" "ab", "\xef\xbf\xbd" "ab", "CP949", 0 },
		{ "big5", "\x87\x6a", "\xe3\xb7\xb4", "BIG5-HKSCS", 0 },
		{ "euc-jp", "\xfc\xe2", "\xe9\xab\x99", "CP932", 0 }
	};
	static char in[40000], got[100000];
	struct mime_part part;
	size_t i, k, n;

	for (i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		size_t len = strlen(ways[i].in), text = strlen(ways[i].text);

		if (!has(ways[i].needs))
			continue;
		memset(&part, 0, sizeof(part));
		strcpy(part.type, "text/plain");
		strcpy(part.charset, ways[i].charset);
		for (n = 0; n + len <= sizeof(in); n += len)
			memcpy(in + n, ways[i].in, len);
		part.body = (struct mime_span){ in, n };
		n = mime_text(&part, got, sizeof(got));
		for (k = ways[i].last ? n - text : 0; k + text <= n; k += text)
			if (memcmp(got + k, ways[i].text, text) != 0)
				break;
		report(n > 0 && k == n, "40,000 octets of", ways[i].charset, "something else", ways[i].text);
	}
}

/* A value, a line and a field longer than is looked at. */
static void
check_long(void)
{
	static char in[80000], got[200];
	struct mime_span s = { in, 0 }, name, value;

	s.len = (size_t)sprintf(in, "a/b; x=%070000d; c=1", 0);
	report(mime_param(s, "c", got, sizeof(got)) == 0, "a parameter past PARAM_MAX", "70,000 digits", got, "");
	s = (struct mime_span){ in, 0 };
	s.len = (size_t)sprintf(in, "A: %0996d\r\nB: 2\r\n", 0);
	mime_next_field(&s, &name, &value);
	report(mime_next_field(&s, &name, &value) == 1 && mime_is(name, "B"), "CR as the 1000th octet", in, "no field B",
	    "B");
	s = (struct mime_span){ in, 0 };
	s.len = (size_t)sprintf(in, "A: %02000d\r\nB: 2\r\n", 0);
	mime_next_field(&s, &name, &value);
	report(mime_next_field(&s, &name, &value) == 1 && mime_is(name, "B"), "a line of 2000", in, "no field B", "B");
	sprintf(in, "(%01500d) ann@oak.example", 0);
	s = span(in);
	report(mime_address(&s, got, sizeof(got)) == 1 && strcmp(got, "ann@oak.example") == 0, "what is too long for a comment",
	    in, got, "ann@oak.example");
	sprintf(in, "%01500d@oak.example", 0);
	s = span(in);
	report(mime_address(&s, got, sizeof(got)) == 1 && strlen(got) == sizeof(got) - 1, "an address of 1500", in, got,
	    "the first of it");
}

/* Nesting deeper than is taken apart is opaque, and takes no longer for it. */
static void
check_depth(void)
{
	static char msg[400000];
	static struct mime_walk walk;
	static struct mime_body found;
	struct mime_part part;
	char got[64];
	size_t n = 0;
	int i, parts = 0, depth = 0;

	for (i = 0; i < 1000; i++)
		n += (size_t)sprintf(msg + n, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i);
	n += (size_t)sprintf(msg + n, "\r\ndeep\r\n");
	for (mime_start(&walk, msg, n); mime_next(&walk, &part); parts++)
		depth = part.depth > depth ? part.depth : depth;
	sprintf(got, "%d parts, depth %d", parts, depth);
	report(parts == MIME_DEPTH + 1 && depth == MIME_DEPTH, "1000 deep", "", got, "101 parts, depth 100");
	n = 0;
	for (i = 0; i < 99; i++)
		n += (size_t)sprintf(msg + n, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i);
	n += (size_t)sprintf(msg + n, "\r\ndeep\r\n--b50--\r\n");
	mime_body(msg, n, &found);
	mime_body_text(&found, got, sizeof(got));
	report(strcmp(got, "deep") == 0, "99 deep", "", got, "deep");
}

/* Charsets of which iconv makes what is no UTF-8: beyond U+10FFFF, surrogates. */
static void
check_iconv(void)
{
	static const char *const labels[] = { "csucs4", "ucs4", "ucs-4be", "ucs-4le", "wchar_t",
	    "osf00010104", "osf05010001", "iso-ir-193", "utf-32", "utf-16be", "utf-7" };
	static const char octets[] = "aaaa\0\0\xd8\0\xf4\x90\x80\x80\0\0\xdf\xff\xed\xa0\x80\xf9\x80\x80\x80\x80";
	char msg[200], got[400], again[400];
	static struct mime_body found;
	size_t i, n;

	for (i = 0; i < sizeof(labels) / sizeof(*labels); i++) {
		n = (size_t)sprintf(msg, "Content-Type: text/plain; charset=%s\r\n\r\n", labels[i]);
		memcpy(msg + n, octets, sizeof(octets));
		mime_body(msg, n + sizeof(octets), &found);
		n = mime_body_text(&found, got, sizeof(got));
		report(n > 0 && mime_utf8((struct mime_span){ got, n }, again, sizeof(again)) == n &&
		    memcmp(got, again, n) == 0, "valid UTF-8 from iconv", labels[i], got, again);
	}
}

/* What makes iconv load charsets again and again is bounded; past it, text is text. */
static void
check_limits(void)
{
	static const char *const words[] = { "=?koi8-r?Q?=C1?= ", "=?iso-8859-2?Q?=B1?= " };
	static char msg[200000], got[200000];
	struct mime_walk walk;
	struct mime_part part;
	size_t n = 0, len;
	int i, parts = 0;

	for (i = 0; i < MIME_RUNS + 2; i++)
		n += (size_t)sprintf(msg + n, "%s", words[i % 2]);
	len = mime_words((struct mime_span){ msg, n }, "", got, sizeof(got));
	report(strncmp(got, "\xd0\xb0\xc4\x85\xd0\xb0", 6) == 0 && len > 2 * MIME_RUNS &&
	    strcmp(got + 2 * MIME_RUNS, "=?koi8-r?Q?=C1?= =?iso-8859-2?Q?=B1?=") == 0,
	    "MIME_RUNS", "alternating charsets", got + 2 * MIME_RUNS, "the rest as it is");
	n = (size_t)sprintf(msg, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
	for (i = 0; i < MIME_PARTS + 5; i++)
		n += (size_t)sprintf(msg + n, "--b\r\n\r\n%d\r\n", i);
	for (mime_start(&walk, msg, n); mime_next(&walk, &part); )
		parts++;
	sprintf(got, "%d", parts);
	report(parts == MIME_PARTS, "MIME_PARTS", "many parts", got, "1000");
}

/* A charset of glibc's that makes twelve octets of one: nothing of a body may be cut. */
static void
check_expansion(void)
{
	static const char octets[] = "Content-Type: text/plain; charset=tscii\r\n\r\n\x82\x8c\x82\x8c";
	static struct mime_body found;
	char got[100], whole[100];
	size_t n;

	mime_body(octets, sizeof(octets) - 1, &found);
	n = mime_body_text(&found, whole, sizeof(whole));
	report(mime_body_text(&found, got, found.octets * MIME_EXPANSION + 1) == n && n > 0, "MIME_EXPANSION",
	    "tscii", got, whole);
	if (has("TSCII"))
		report(n == 48, "twelve octets of one", "tscii", whole, "four times twelve");
}

static void
check_walk(void)
{
	static const char msg[] = "Content-Type: multipart/digest; boundary=b\r\n\r\npre\r\n--b\r\n\r\n"
	    "Subject: x\r\n\r\n1\r\n--b\r\nContent-Type: text/plain\r\n\r\n2\r\n--b--\r\npost\r\n";
	static const char *const want[] = { "0 multipart/digest", "1 message/rfc822", "2 text/plain",
	    "1 text/plain" };
	struct mime_walk walk;
	struct mime_part part;
	char got[200];
	int i;

	mime_start(&walk, msg, sizeof(msg) - 1);
	for (i = 0; mime_next(&walk, &part) && i < 4; i++) {
		sprintf(got, "%d %s", part.depth, part.type);
		report(strcmp(got, want[i]) == 0, "a part (RFC 2046 5.1.5)", msg, got, want[i]);
	}
	report(i == 4 && part.body.len == 1 && *part.body.ptr == '2', "four parts", msg, "others", "four");
}

int
main(void)
{
	size_t i;

	/* What is no parameter's name is a charset that the case needs. */
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (cases[i].how == PARAM || cases[i].arg == NULL || has(cases[i].arg))
			check(cases[i].how, cases[i].what, span(cases[i].in), cases[i].arg, cases[i].want);
	check_utf16();
	check_behind();
	check_pieces();
	check_mislabelled();
	check_long();
	check_depth();
	check_iconv();
	check_limits();
	check_expansion();
	check_walk();
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
