/*
 * data_test.c - the end of data, BDAT and STARTTLS, however reads split them
 *
 * data() gets every string of up to 8 octets over { CR, LF, ".", "a" } in every
 * split, some ten million runs, and is compared with spec(), which knows no
 * splits. Whole dialogues with BDAT and STARTTLS go through the loop of
 * fuzz_session.c, whose stubs these are, in every split into two and three reads.
 *
 *	cc -fsanitize=address,undefined test/unit/data_test.c mime.c; ./a.out
 */
#define _DEFAULT_SOURCE 1
#define _FILE_OFFSET_BITS 64	/* as smtpd.c, which is included below */
#define _TIME_BITS 64

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../../mime.h"

/* The message is whole: save_email() looks at its header first. */
static struct { char text[32]; size_t len; int count; } ended;

static struct mime_span
ended_with(const char *msg, size_t len)
{
	ended.count++;
	ended.len = len;
	if (len <= sizeof(ended.text))
		memcpy(ended.text, msg, len);
	return mime_header(msg, len);
}
#define mime_header(msg, len) ended_with(msg, len)

#include "fuzz_session.c"

static unsigned long passed, failed;

static void
wrong(const char *what, const char *octets, size_t n, unsigned splits)
{
	size_t i;

	if (failed++ > 10)
		return;
	printf("FAIL %s: ", what);
	for (i = 0; i < n; i++)
		printf("%s%s", octets[i] == '\r' ? "CR " : octets[i] == '\n' ? "LF " :
		    (char[]){ octets[i], ' ', 0 }, i + 1 < n && splits >> i & 1 ? "| " : "");
	puts("");
}

/*
 * RFC 5321 4.5.2, of octets that begin at the start of a line: a line that is a
 * single "." is the end, of any other that starts with "." the first is dropped.
 * Gives where the end is, 0 for none. Of octets that break off behind a line's
 * ". CR" the CR is not yet known to be the message's.
 */
static size_t
spec(const char *p, size_t n, char *message, size_t *len)
{
	size_t i = 0;

	*len = 0;
	while (i < n) {
		int line = i == 0 || (i > 1 && p[i - 2] == '\r' && p[i - 1] == '\n');

		if (line && n - i >= 3 && memcmp(p + i, ".\r\n", 3) == 0)
			return i + 3;
		if (line && n - i == 2 && memcmp(p + i, ".\r", 2) == 0)
			return 0;
		if (line && p[i] == '.')
			i++;
		if (i < n)
			message[(*len)++] = p[i++];
	}
	return 0;
}

/* One string in one split; bit i of splits: a read ends behind octet i. */
static void
try(struct session *s, const char *p, size_t n, unsigned splits, size_t end, const char *message,
    size_t len)
{
	size_t i, from, got = 0, used = 0;

	s->eod = CRLF;
	s->state = DATA;
	ended.count = 0;
	for (from = 0, i = 1; i <= n && ended.count == 0; i++)
		if (i == n || splits >> (i - 1) & 1) {
			used += data(s, p + from, i - from);
			from = i;
		}
	if (ended.count == 0) {
		got = s->tx.mail.len;
		if (got <= sizeof(ended.text))
			memcpy(ended.text, s->tx.mail.ptr, got);
		mail_free(s);
	} else
		got = ended.len;
	if (ended.count != (end > 0) || used != (end > 0 ? end : n))
		wrong("where the message ends", p, n, splits);
	else if (got != len || memcmp(ended.text, message, len) != 0)
		wrong("what the message is", p, n, splits);
	else
		passed++;
}

/* As cmd_data() leaves it. */
static void
begin(struct session *s)
{
	if (s->tx.rcpts > 0)
		return;
	let_go(&s->out);
	s->tx.from = strdup("a@b.example");
	hold(&s->tx.rcpt, "b@other.example", 16);
	s->tx.rcpts = 1;
}

static void
every_string(void)
{
	static const char octets[4] = { '\r', '\n', '.', 'a' };
	static struct session s;
	char text[16], message[16];
	size_t n, i, end, len;
	unsigned long k, count;
	unsigned splits;

	clients[0].open = 1;
	s.fd = FIRST;
	worker.session[FIRST] = &s;
	set(GSMTP_CHECK_HEADER, "1");	/* no To: the end is answered with 550, and no database */
	for (n = 1, count = 4; n <= 8; n++, count *= 4)
		for (k = 0; k < count; k++) {
			for (i = 0; i < n; i++)
				text[i] = octets[k >> 2 * i & 3];
			end = spec(text, n, message, &len);
			for (splits = 0; splits < 1u << (n - 1); splits++) {
				begin(&s);
				try(&s, text, n, splits, end, message, len);
			}
		}
	log_flush();
	transaction_reset(&s);
	let_go(&s.out);
	worker.session[FIRST] = NULL;
	clients[0].open = 0;
}

/* ---- dialogues ---- */

#define HELLO "EHLO x\r\n"
#define TO "MAIL FROM:<a@b.example>\r\nRCPT TO:<b@test.example>\r\n"

/* A dialogue in one split: the codes of its replies, and its mails one after the other. */
static void
converse_split(const char *text, size_t len, size_t gate, size_t first, size_t second, char *codes,
    size_t cap)
{
	struct client *c = &clients[0];
	const char *line, *end;

	world.how = 0;
	world.answers = 0;
	world.nclients = 1;
	c->in = text;
	c->len = len;
	c->gate = gate;
	c->stop[0] = first;
	c->stop[1] = second;
	converse(NULL);
	check_replies(c);
	*codes = '\0';
	for (line = c->out.p; line < c->out.p + c->out.len; line = end + 1) {
		end = memchr(line, '\n', (size_t)(c->out.p + c->out.len - line));
		if (line[3] == ' ' && strlen(codes) + 5 < cap)
			sprintf(codes + strlen(codes), "%.3s ", line);
	}
}

/*
 * Whatever the split, the replies are those of want, and the mails those of the dialogue in one
 * read. mails: how many. Where octets stand between STARTTLS and the gate and a read ends among
 * them, they are no handshake: cut is then what is right as well.
 */
static void
every_split(const char *what, const char *text, size_t len, size_t gate, const char *want,
    size_t mails, const char *cut)
{
	static struct bytes whole;
	char codes[2000];
	size_t a, b, step = len > 400 ? 7 : 1;	/* of three reads; two are always all */

	converse_split(text, len, gate, 0, 0, codes, sizeof(codes));
	whole.len = 0;
	keep(&whole, clients[0].mails.p, clients[0].mails.len);
	if (strcmp(codes, want) != 0 || clients[0].stored != mails)
		printf("FAIL %s: %s, not %s; %zu mails\n", what, codes, want, clients[0].stored), failed++;
	for (a = 1; a < len; a++)
		for (b = a; b < len; b = b == a ? a + 1 + a % step : b + step) {
			converse_split(text, len, gate, a, b == a ? 0 : b, codes, sizeof(codes));
			if ((strcmp(codes, want) == 0 && equal(&clients[0].mails, &whole)) ||
			    (cut && strcmp(codes, cut) == 0 && clients[0].stored == 0))
				passed++;
			else if (failed++ < 10)
				printf("FAIL %s, split at %zu and %zu: %s, not %s; %zu mails\n", what, a, b,
				    codes, want, clients[0].stored);
		}
	clients[0].gate = clients[0].stop[0] = clients[0].stop[1] = 0;
}

static void
dialogue(const char *what, const char *text, const char *want, size_t mails)
{
	every_split(what, text, strlen(text), 0, want, mails, NULL);
}

/* before comes in the clear, after it follows octet 22, which stands for a handshake. */
static void
starttls(const char *what, const char *before, const char *after, const char *want, size_t mails,
    const char *cut)
{
	static char text[4000];
	int len = snprintf(text, sizeof(text), "%s\026%s", before, after);

	every_split(what, text, (size_t)len, strlen(before), want, mails, cut);
}

#define INJECTED "EHLO e\r\nMAIL FROM:<e@b.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nX: "

/* So many replies that the output is full just where STARTTLS is answered. */
static void
full_output(void)
{
	char text[1024], cut[1024], want[1024], codes[100];
	size_t room, size, i;

	converse_split(HELLO, strlen(HELLO), 0, 0, 0, codes, sizeof(codes));
	size = clients[0].out.len - strlen("220 mx.test.example ESMTP smtpd\r\n");
	for (room = 0; room < 42; room += 6) {
		*text = '\0';
		strcpy(cut, "220 ");
		for (i = 0; i < (OUT_MAX - room) / size; i++)
			strcat(text, HELLO), strcat(cut, "250 ");
		for (i = 0; i < (OUT_MAX - room) % size / 14; i++)
			strcat(text, "NOOP\r\n"), strcat(cut, "250 ");
		strcat(text, "STARTTLS\r\n" INJECTED);
		sprintf(want, "%s220 250 221 ", cut);
		strcat(cut, "220 ");
		starttls("a full output", text, "EHLO y\r\nQUIT\r\n", want, 0, cut);
	}
}

static void
every_dialogue(void)
{
	set(GSMTP_CHECK_HEADER, "0");
	dialogue("two chunks", HELLO TO "BDAT 4\r\n.\r\nx" "BDAT 9 LAST\r\n\r\n.\r\nQUIT" "NOOP\r\nQUIT\r\n",
	    "220 250 250 250 250 250 250 221 ", 1);
	dialogue("chunks that look like commands", HELLO TO "BDAT 8\r\nRSET\r\nQ\n" "BDAT 6\r\nDATA\r\n"
	    "BDAT 0 LAST\r\n" "QUIT\r\n", "220 250 250 250 250 250 250 221 ", 1);
	dialogue("two mails", HELLO TO "BDAT 3 LAST\r\na\r\n" TO "DATA\r\nb\r\n.\r\n" TO
	    "BDAT 1 LAST\r\ncQUIT\r\n", "220 250 250 250 250 250 250 354 250 250 250 250 221 ", 3);
	dialogue("a chunk that nobody asked for", HELLO "BDAT 24 LAST\r\nMAIL FROM:<a@b.example>\n"
	    "NOOP\r\nBDAT 6\r\nQUIT\r\n" "QUIT\r\n", "220 250 503 250 503 221 ", 0);
	dialogue("DATA between chunks", HELLO TO "BDAT 2\r\n\r\nDATA\r\nBDAT 2 LAST\r\n\r\nRSET\r\nQUIT\r\n",
	    "220 250 250 250 250 503 250 250 221 ", 1);
	dialogue("RSET between chunks", HELLO TO "BDAT 3\r\na\r\nRSET\r\n" TO "BDAT 3 LAST\r\nb\r\nQUIT\r\n",
	    "220 250 250 250 250 250 250 250 250 221 ", 1);
	dialogue("no number", HELLO TO "BDAT x LAST\r\nMAIL FROM:<e@b.example>\r\nQUIT\r\n",
	    "220 250 250 250 421 ", 0);

	starttls("STARTTLS", HELLO "STARTTLS\r\n", "EHLO y\r\n" TO "DATA\r\nx\r\n.\r\nQUIT\r\n",
	    "220 250 220 250 250 250 354 250 221 ", 1, NULL);
	starttls("EHLO is wanted again", HELLO TO "RSET\r\nSTARTTLS\r\n", "MAIL FROM:<>\r\nRCPT TO:<b@x>\r\n"
	    "DATA\r\nEHLO y\r\nSTARTTLS\r\nQUIT\r\n",
	    "220 250 250 250 250 220 503 503 503 250 503 221 ", 0, NULL);
	starttls("behind a mail", HELLO TO "DATA\r\nx\r\n.\r\nSTARTTLS\r\n", "EHLO y\r\nQUIT\r\n",
	    "220 250 250 250 354 250 220 250 221 ", 1, NULL);
	starttls("injected", HELLO "STARTTLS\r\n" INJECTED, "EHLO y\r\n" TO "DATA\r\nx\r\n.\r\nQUIT\r\n",
	    "220 250 220 250 250 250 354 250 221 ", 1, "220 250 220 ");
	starttls("half a command", HELLO "STARTTLS\r\nRSET", "\r\nEHLO y\r\nQUIT\r\n",
	    "220 250 220 500 250 221 ", 0, "220 250 220 ");
	full_output();
}

int
main(void)
{
	set_up();
	every_string();
	every_dialogue();
	printf("%lu passed, %lu failed\n", passed, failed);
	return failed > 0;
}
