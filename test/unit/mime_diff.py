#!/usr/bin/env python3
"""Compares mime.c with Python's email package, on messages of our own making.

mime_diff.py [seed]. Messages in many languages, charsets and shapes are made with that package's
generator, then changed in ways that leave their meaning; what mime_json.c prints of each must be
what Python's parser reads in it, and that must be what was put in. A check for each field.
"""
import base64
import email
import email.charset
import email.header
import email.message
import email.policy
import email.utils
import json
import os
import quopri
import random
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TEST = os.path.dirname(HERE)
ROOT = os.path.dirname(TEST)
WORK = os.environ.get("SMTPD_TEST_DIR") or os.path.join(TEST, ".run", "mime_diff")
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 5322
ROUNDS = 1			# of what is there for each charset; the rest comes as often as it says
POLICY = email.policy.SMTP.clone(max_line_length=76)
FIELDS = "subject", "from", "body", "charset", "content_type"

# A language: something to say in it, and the charsets that can.
#
# Left out, for Python or iconv() reads them otherwise: windows-1258 (iconv composes its letters
# and marks), 0x80 to 0x9f of ISO-8859-1 (mime.c takes it for windows-1252, as browsers do), and
# the few Japanese and Korean signs that Unix and Windows map to different characters (the wave
# dash, the long dash, the won), which is why the texts below have none.
LANGUAGES = {
    "English": ("The quick answer: 7 apples, 3 pears & no plums; is that all?",
                "us-ascii utf-8 iso-8859-1 utf-7 windows-1252 iso-2022-jp koi8-r"),
    "German": ("Größere Mühlen mahlen übrigens auch für zwölf Jäger süßes Öl",
               "utf-8 iso-8859-1 iso-8859-15 windows-1252 utf-7 iso-8859-9 macintosh cp850"),
    "French": ("Où êtes-vous ? Là-bas, à côté du garçon, près de la forêt",
               "utf-8 iso-8859-1 windows-1252 iso-8859-15 latin1"),
    "euro": ("Der Preis beträgt 12 € für œufs – „gut“", "utf-8 windows-1252 cp1252"),
    "Spanish": ("¿Dónde está el niño? ¡Mañana vendrá también!", "utf-8 iso-8859-1 iso8859-1"),
    "Polish": ("Żółty słoń idzie spać, a mała gęś śpiewa źle",
               "utf-8 iso-8859-2 windows-1250 latin2 iso-8859-16"),
    "Czech": ("Příliš mnoho řek teče žlutým údolím, říká kůň", "utf-8 iso-8859-2 windows-1250"),
    "Turkish": ("Ağaçların gölgesinde İstanbul'lu ışıklı şarkı", "utf-8 iso-8859-9 windows-1254"),
    "Esperanto": ("Ĉu ĝi estas ĵurnalo aŭ ŝipo, ĥoro?", "utf-8 iso-8859-3"),
    "Lithuanian": ("Žąsys, įdomūs ūkai ir šešėliai", "utf-8 iso-8859-13 windows-1257 iso-8859-4"),
    "Welsh": ("Mae ŵy yn y tŷ, a dŵr", "utf-8 iso-8859-14"),
    "Icelandic": ("Þórður á ekki að sjá ísbjörninn", "utf-8 iso-8859-10 iso-8859-1"),
    "Russian": ("Завтра поезд придёт в семь, а не в восемь часов",
                "utf-8 koi8-r windows-1251 iso-8859-5 ibm866 cp866 gb18030 euc-jp utf-16"),
    "Ukrainian": ("Їжак і ґава п'ють каву біля річки, чи є чай?", "utf-8 koi8-u windows-1251"),
    "Greek": ("Αύριο θα βρέξει στην πόλη, είπε ο γέρος ψαράς",
              "utf-8 iso-8859-7 windows-1253 utf-16be"),
    "Arabic": ("غدا نذهب إلى السوق ونشتري الخبز", "utf-8 iso-8859-6 windows-1256"),
    "Hebrew": ("מחר נלך לשוק ונקנה לחם טרי", "utf-8 iso-8859-8 windows-1255"),
    "Thai": ("พรุ่งนี้เราจะไปตลาด", "utf-8 tis-620 iso-8859-11 cp874"),
    "Hindi": ("कल हम बाज़ार जाएँगे", "utf-8 gb18030 utf-7"),
    "simplified": ("明天我们去市场买面包和水果", "utf-8 gb2312 gbk gb18030 hz-gb-2312 utf-16le"),
    "traditional": ("明天我們去市場買麵包和水果", "utf-8 big5 gb18030 cp950 utf-32"),
    "Japanese": ("明日は市場でパンと果物を買います。カタカナも",
                 "utf-8 iso-2022-jp shift_jis euc-jp cp932 gb18030"),
    "Korean": ("내일 시장에 가서 빵과 과일을 삽니다",
               "utf-8 euc-kr iso-2022-kr ks_c_5601-1987 cp949 gb18030"),
    "emoji": ("Party 🎉 at 8 👩‍👩‍👧 bring 🍕🍰", "utf-8 gb18030 utf-7 utf-16"),
}
SEVEN_BIT = "us-ascii", "utf-7", "iso-2022-jp", "iso-2022-kr", "hz-gb-2312"
WIDE = "utf-16", "utf-16le", "utf-16be", "utf-32"	# base64 only: a line's end is no octet there
ASCII = "us-ascii"
CODECS = {"macintosh": "mac_roman", "hz-gb-2312": "hz", "ks_c_5601-1987": "cp949",
          "windows-874": "cp874", "iso-8859-11": "cp874"}
rnd = random.Random(SEED)
passed = failed = 0


def codec(charset):
    return CODECS.get(charset.lower(), charset)


def sentence(language):
    words = LANGUAGES[language][0].split(" ")
    rnd.shuffle(words)
    return " ".join(words)


def text(language):
    """Some lines; now and then an empty one, a long one, blanks at an end, a dot, a From."""
    lines = [sentence(language) for _ in range(rnd.randrange(1, 6))]
    odd = ["", " ".join(sentence(language) for _ in range(9)), sentence(language) + "  ",
           "  " + sentence(language), ".", "From here =3D on", "--", "a=b=", "\tx"]
    for _ in range(rnd.randrange(3)):
        lines.insert(rnd.randrange(len(lines) + 1), rnd.choice(odd))
    return "\r\n".join(lines) + rnd.choice(["", "\r\n", "\r\n\r\n"])


def html(language):
    return "<html><body><p>%s</p>\r\n</body></html>\r\n" % text(language)


# ---- parts

def octets(content, charset):
    return content.encode(codec(charset))


def transferred(data, cte):
    if cte == "base64":
        width = rnd.choice([76, 76, 60, 72, 64, 4, 990])
        line = base64.b64encode(data)
        return b"\r\n".join(line[i:i + width] for i in range(0, len(line), width)) + b"\r\n"
    if cte == "quoted-printable":
        # Python's decoder keeps blanks at the end of a line that transport may have added, so
        # the encoder is told to leave none; a CRLF in the data stays one.
        return b"\r\n".join(quopri.encodestring(line).replace(b"\n", b"\r\n")
                            for line in data.split(b"\r\n"))
    return data


def encodings(charset):
    if charset in WIDE:
        return ["base64"]
    return ["base64", "quoted-printable", "7bit" if charset in SEVEN_BIT else "8bit"]


def leaf(content, subtype="plain", charset="utf-8", cte=None):
    """A text part by hand: EmailMessage.set_content() splits UTF-16 at octets 0x0a."""
    part = email.message.Message(policy=POLICY)
    part["Content-Type"] = 'text/%s; charset=%s' % (subtype, charset)
    cte = cte or rnd.choice(encodings(charset))
    if cte != "7bit" or rnd.random() < .5:
        part["Content-Transfer-Encoding"] = cte
    part.set_payload(transferred(octets(content, charset), cte).decode("ascii", "surrogateescape"))
    return part


def multipart(subtype, *parts, boundary=None):
    whole = email.message.Message(policy=POLICY)
    whole["Content-Type"] = 'multipart/%s; boundary="%s"' % (
        subtype, boundary or rnd.choice(["=_%016x==", "--%016x", "b %012x x", "a'()+_,./:=?%x"])
        % rnd.getrandbits(48))
    whole.set_payload(list(parts))
    if rnd.random() < .3:
        whole.preamble = "This is no part.\r\n"
    if rnd.random() < .3:
        whole.epilogue = "Nor is this.\r\n"
    return whole


def attachment(language):
    """With a name in RFC 2231's form; sometimes it is a text, which is not to be shown."""
    part = email.message.EmailMessage(policy=POLICY)
    name = sentence(language).replace("/", "").replace('"', "") + rnd.choice([".txt", ".pdf", ""])
    if rnd.random() < .5:
        part.set_content(sentence(language) + "\n", disposition="attachment", filename=name)
    else:
        part.set_content(rnd.randbytes(rnd.randrange(400)), "application", "octet-stream",
                         disposition="attachment", filename=name, params={"name": name})
    del part["MIME-Version"]
    return part


def image():
    part = email.message.EmailMessage(policy=POLICY)
    part.set_content(rnd.randbytes(100), "image", "png", cid="<%d@x.example>" % rnd.getrandbits(30),
                     disposition="inline")
    del part["MIME-Version"]
    return part


def blank(subtype):
    return leaf(rnd.choice(["", " ", "\r\n", "\t \r\n\r\n", "\u00a0\r\n", "\u3000"]), subtype)


def forwarded(language):
    part = email.message.EmailMessage(policy=POLICY)
    inner = email.message.EmailMessage(policy=POLICY)
    inner["Subject"] = sentence(language)
    inner["From"] = "inner@x.example"
    inner.set_content("not this: " + sentence(language))
    if rnd.random() < .5:
        inner.add_alternative("<p>not this</p>", subtype="html")
    part.set_content(inner)
    del part["MIME-Version"]
    return part


def shapes(language):
    """Names of shapes, what makes each, and the part in it that is the body."""
    def shown(subtype="html"):
        charset = rnd.choice(LANGUAGES[language][1].split())
        content = html(language) if subtype == "html" else text(language)
        return leaf(content, subtype, charset), content
    page, page_text = shown()
    plain, plain_text = shown("plain")
    other, _ = shown(rnd.choice(["html", "plain"]))
    deep = page
    for i in range(rnd.randrange(2, 12)):
        deep = multipart("mixed", deep, boundary="deep" + "x" * i)
    return [
        ("alternative", multipart("alternative", plain, page), page_text),
        ("alternative, HTML first", multipart("alternative", page, plain), page_text),
        ("alternative, blank HTML", multipart("alternative", blank("html"), plain), plain_text),
        ("alternative, blank plain", multipart("alternative", blank("plain"), page), page_text),
        ("mixed", multipart("mixed", plain, attachment(language)), plain_text),
        ("mixed, attachment first", multipart("mixed", attachment(language), page), page_text),
        ("mixed, two of a kind", multipart("mixed", blank("plain"), plain, leaf("x")),
         plain_text + "\r\n\r\nx"),
        ("mixed, HTML is no alternative", multipart("mixed", plain, page), plain_text),
        ("mixed, an alternative follows", multipart("mixed", leaf("x"), multipart(
            "alternative", plain, page)), "x\r\n\r\n" + plain_text),
        ("related", multipart("related", page, image()), page_text),
        ("report", multipart("report", plain, leaf("Action: failed\r\n", "rfc822-headers"),
                             attachment(language)), plain_text),
        ("nested", multipart("mixed", multipart("alternative", plain, multipart(
            "related", page, image())), attachment(language), image()), page_text),
        ("forwarded", multipart("mixed", plain, forwarded(language)), plain_text),
        ("forwarded first", multipart("mixed", forwarded(language), plain, image()), plain_text),
        ("digest", multipart("mixed", plain, multipart("digest", forwarded(language),
                                                      forwarded(language))), plain_text),
        ("deep", deep, page_text),
        ("attachments alone", multipart("mixed", attachment(language), image()), None),
        ("calendar", multipart("alternative", leaf("BEGIN:VCALENDAR\r\n", "calendar"), plain,
                               leaf("x", "richtext")), plain_text),
        ("one part", other, other and None),
    ]


# ---- headers

def local_part():
    return rnd.choice(["anna", "o'neil", "a.b.c", "x+tag", "UPPER", "_", "007", '"john doe"',
                       '"a@b"', '"a,b"', '"<x>"', "very.long." + "part." * 9 + "end"])


def address(language):
    """A mailbox in one of the ways to write one; the address that is in it."""
    spec = "%s@%s" % (local_part(), rnd.choice(["x.example", "mail.sub.Example", "[192.0.2.1]",
                                                "xn--bcher-kva.example"]))
    name = sentence(language)
    word = email.header.Header(name, rnd.choice([charset_object("utf-8", way) for way in "qb"]),
                               maxlinelen=70).encode(linesep="\r\n")
    return rnd.choice([
        spec, "<%s>" % spec, "Anna <%s>" % spec, '"Doe, Jane" <%s>' % spec,
        '"say \\"x\\" <no@x.example>" <%s>' % spec, "%s <%s>" % (word, spec),
        "%s (a comment (in a comment), with no@x.example)" % spec, "J. R. Doe <%s>" % spec,
        "(before) Doe <%s> (after)" % spec,
        "(\\) no@x.example) %s" % spec, "Anna\r\n <%s>" % spec, "Doe <%s>" % spec]), spec


def address_list(language):
    """Several, some in a group; the first that is there."""
    found = [address(language) for _ in range(rnd.randrange(1, 5))]
    form = rnd.randrange(4)
    listed = ",\r\n ".join(a for a, _ in found)
    if form == 0:
        listed = "friends: %s;" % listed
    elif form == 1:
        listed = "nobody:;, " + listed
    elif form == 2:
        listed = '"a: b, c":;,\r\n us: %s;, last@x.example' % listed
    return listed, found[0][1]


def parsed(raw):
    return email.message_from_bytes(raw, policy=email.policy.default)


def charset_object(charset, way):
    made = email.charset.Charset(charset)
    made.header_encoding = email.charset.QP if way == "q" else email.charset.BASE64
    return made


def subject(language, charset):
    """Subject as Python would write it in that charset, or in words of ours; what it says."""
    said = sentence(language)
    if rnd.random() < .3:
        said += " " + sentence(language) + " " + sentence(language)
    if charset == ASCII:
        return said.replace(" ", "\r\n ", 1), said
    form = rnd.randrange(3)
    if form == 1:
        made = email.message.EmailMessage(policy=POLICY)
        made["Subject"] = said
        line = made.as_bytes().decode().split("\r\n\r\n")[0][len("Subject: "):]
        # Its folding loses the blank between a plain word and an encoded one now and then.
        if parsed(b"Subject: %s\r\n\r\n" % line.encode())["Subject"] == said:
            return line, said
    # Header has labels of its own for some (eucgb2312_cn, big5_tw), and may cut a word where its
    # text is shifted.
    if form != 2 or charset in SEVEN_BIT + WIDE + ("gb2312", "big5") or charset in CODECS:
        words = said.split(" ")
        line = [encoded_word((" " if i else "") + w, charset) for i, w in enumerate(words)]
        return "\r\n ".join(line), said
    return email.header.Header(said, charset_object(charset, rnd.choice("qb")), maxlinelen=70,
                               header_name="Subject").encode(linesep="\r\n"), said


def encoded_word(content, charset):
    data = octets(content, charset)
    name = rnd.choice([charset, charset.upper(), charset + "*en"])
    if rnd.random() < .5 or charset in WIDE:
        return "=?%s?%s?%s?=" % (name, rnd.choice("bB"), base64.b64encode(data).decode())
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-!*+/"
    return "=?%s?%s?%s?=" % (name, rnd.choice("qQ"), "".join(
        "_" if c == 32 else chr(c) if c in safe else rnd.choice(["=%02X", "=%02x"]) % c
        for c in data))


def message(part, language, charset):
    """A part with the fields of a message before its own; what Subject and From say."""
    head, said = subject(language, charset)
    sender, first = address_list(language)
    recipients, _ = address_list(language)
    fields = [("Received",
               "from a.example (b [192.0.2.7])\r\n\tby c.example; 1 Jan 2030 00:00:00 +0000"),
              ("From", sender), ("To", recipients), ("Subject", head),
              ("Date", email.utils.formatdate(rnd.randrange(2000000000))),
              ("Message-ID", "<%d@x.example>" % rnd.getrandbits(40)),
              ("X-Folded", "one\r\n two\r\n\tthree"), ("MIME-Version", "1.0"), ("X-Empty", "")]
    rnd.shuffle(fields)
    raw = part.as_bytes(policy=POLICY.clone(max_line_length=0, cte_type="8bit", mangle_from_=False))
    return "".join("%s: %s\r\n" % f for f in fields).encode() + raw, said, first


# ---- changes that leave the meaning

def head_of(raw):
    at = raw.index(b"\r\n\r\n") + 2	# so LF alone must be the last change
    return raw[:at], raw[at:]


def names_in_other_case(raw):
    head, rest = head_of(raw)
    return re.sub(rb"(?m)^[A-Za-z-]+:", lambda m: rnd.choice([m[0].lower(), m[0].upper()]),
                  head) + rest


def types_in_other_case(raw):
    return re.sub(rb"(?m)^Content-Type: (text/\w+)", lambda m: m[0].swapcase(), raw)


def charset_in_quotes(raw):
    return re.sub(rb"; charset=([\w-]+)", rb'; charset="\1"', raw)


def charset_in_capitals(raw):
    return re.sub(rb"; charset=([\w-]+)", lambda m: m[0].upper(), raw)


def charset_in_sections(raw):
    return re.sub(rb"; charset=(\w\w)([\w-]+)(?=\r\n)", rb"; charset*0=\1;\r\n charset*1=\2", raw)


def charset_extended(raw):
    return re.sub(rb"; charset=(\w+)-([\w-]+)(?=\r\n)", rb"; charset*=us-ascii'en'\1%2D\2", raw)


def boundary_in_sections(raw):
    return re.sub(rb'boundary="(.{3})(.*)"', rb'boundary*0="\1";\r\n boundary*1="\2"', raw)


def folded_parameters(raw):
    return re.sub(rb"(?m)^(Content-Type: .*?); *", rb"\1;\r\n   ", raw)


def more_parameters(raw):
    return re.sub(rb"; (charset|boundary)=", rb'; x="; \1=no"; format=flowed; \1=', raw)


def comments_in_type(raw):
    return re.sub(rb"(?m)^(Content-Type: [\w/]+);", rb"\1 (a (nested) \\) comment);", raw)


def parameters_in_comments(raw):
    # No boundary: Python looks for that with a parser of its own, which knows no comments.
    return re.sub(rb"(?m)^(Content-Type: [\w/]+);", rb"\1 (not this; charset=no);", raw)


def comments_after_charset(raw):
    return re.sub(rb"(; charset=[\w-]+)(?=\r\n)", rb"\1 (a comment)", raw)


def encodings_in_capitals(raw):
    return re.sub(rb"(?m)^Content-Transfer-Encoding: ([\w-]+)", lambda m: m[0].upper(), raw)


def second_fields(raw):
    head, rest = head_of(raw)
    return head + b"Subject: another\r\nFrom: another@x.example\r\n" + rest


def many_fields(raw):
    return b"".join(b"X-%d: %s\r\n" % (i, b"x" * rnd.randrange(90)) for i in range(50)) + raw


def lf_alone(raw):
    return raw.replace(b"\r\n", b"\n")


def blanks_after_boundaries(raw):
    return re.sub(rb'(?m)^(--(=_|-|b |deep|a\'|=====)[^\r\n]*)(?=\r\n)', rb"\1 \t ", raw)


def no_last_boundary(raw):
    """As when a mail was cut off: what is open ends with the message."""
    return re.sub(rb"\r\n--[^\r\n]+--\r\n\Z", b"", raw)


def envelope_line(raw):
    return b"From anna@x.example Mon Jan  1 00:00:00 2030\r\n" + raw


CHANGES = [names_in_other_case, types_in_other_case, charset_in_quotes, charset_in_capitals,
           charset_in_sections, charset_extended, boundary_in_sections, folded_parameters,
           more_parameters, comments_in_type, comments_after_charset, parameters_in_comments,
           encodings_in_capitals, second_fields, many_fields,
           blanks_after_boundaries, no_last_boundary, envelope_line, lf_alone]


# ---- what Python reads

def parts(msg, above=()):
    """Leaves in order, each with the multiparts it is in. Not walk(): that enters messages."""
    if msg.is_multipart() and msg.get_content_maintype() == "multipart":
        for part in msg.iter_parts():
            yield from parts(part, above + (msg,))
    elif msg.get_content_maintype() != "multipart":
        yield msg, above


def content_type(part):
    """From the parsed field: get_content_type() takes a comment for a part of the type."""
    field = part["Content-Type"]
    return field.content_type if field else part.get_content_type()


def label(part):
    """From the same, for get_content_charset() of Python < 3.12 has no comments either."""
    field = part["Content-Type"]
    return field.params.get("charset", "").lower() if field else ""


def decoded(part):
    data = part.get_payload(decode=True) or b""
    return data.decode(codec(label(part) or ASCII), "replace")


def read(raw):
    msg = parsed(raw)
    row = {"subject": str(msg["Subject"]), "from": msg["From"].addresses[0].addr_spec.lower(),
           "body": "", "charset": None, "content_type": None}
    texts = []
    for part, above in parts(msg):
        attached = any(p.get_content_disposition() == "attachment" for p in above + (part,))
        content = decoded(part) if content_type(part).startswith("text/") else ""
        if content.strip("\u200b\ufeff \t\r\n\f\v\u00a0\u3000"):
            texts.append((part, above, content, attached))
    shown = [t for t in texts if content_type(t[0]) in ("text/html", "text/plain") and not t[3]]
    if texts:
        part, above, content, _ = (shown or texts)[0]
        if content_type(part) == "text/plain":
            content = "\r\n\r\n".join(t[2] for t in shown if content_type(t[0]) == "text/plain") \
                or content
            for other, there, page, _ in shown:
                shared = [a for a, b in zip(above, there) if a is b]
                if content_type(other) == "text/html" and shared and \
                        content_type(shared[-1]) == "multipart/alternative":
                    part, content = other, page
                    break
        row.update(body=content, charset=label(part), content_type=content_type(part))
    return row


# ---- the comparison

def build():
    """test/unit/mime_json.c with mime.c: under the sanitizers where there are any."""
    os.makedirs(WORK, exist_ok=True)
    program = os.path.join(WORK, "mime_json")
    cc = os.environ.get("CC", "cc")
    made = subprocess.run(["make", "-s", "-f", os.path.join(ROOT, "Makefile"), "iconv.libs"],
                          cwd=WORK)
    libs = open(os.path.join(WORK, "iconv.libs")).read().split() if made.returncode == 0 else []
    flags = os.environ.get("CFLAGS")
    for options in [flags] if flags else ["-O1 -g -fsanitize=address,undefined", "-O2"]:
        command = cc.split() + options.split() + ["-I", ROOT, "-o", program]
        command += [os.path.join(HERE, "mime_json.c"), os.path.join(ROOT, "mime.c")] + libs
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode == 0:
            return program
    sys.exit(done.stdout.decode(errors="replace") + "mime_json.c does not compile")


def fail(name, field, raw, **values):
    global failed
    failed += 1
    path = os.path.join(WORK, "failed-%d.eml" % failed)
    with open(path, "wb") as f:
        f.write(raw)
    print("FAIL %s: %s, see %s" % (name, field, path))
    for who, value in values.items():
        print("    %-7s %r" % (who, value if value is None else value[:300]))


def check(name, raw, said):
    """One message; said: what was put in, where that is known."""
    global passed
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    ran = subprocess.run([PROGRAM], input=raw, env=env, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    try:
        got = json.loads(ran.stdout.decode())
    except ValueError:
        return fail(name, "output", raw, mime=ran.stdout[-200:], stderr=ran.stderr)
    want = read(raw)
    for field in FIELDS:
        python = want[field]
        if python is None and not want["body"]:
            continue		# nothing to be shown: then there is no answer either
        put, mime = said.get(field), got[field]
        if field == "body" and "no last boundary" in name:
            # Python takes the last CRLF for that of the boundary which never comes.
            python, put, mime = (v and v.rstrip("\r\n") for v in (python, put, mime))
        if put is not None and field == "body" and b"\r\n" not in raw:
            put = None		# encoded lines keep their CRLF, others do not
        if python != mime or (put is not None and python != put):
            fail(name, field, raw, python=python, mime=mime, put_in=put)
        else:
            passed += 1


def main():
    for _ in range(ROUNDS):
        for language, (_, charsets) in LANGUAGES.items():
            cases = []
            for charset in charsets.split():
                for cte in encodings(charset):
                    content = text(language) + "."	# never blank
                    cases.append(("%s, %s" % (charset, cte),
                                  leaf(content, "plain", charset, cte), content, charset))
            for name, part, content in shapes(language):
                cases.append((name, part, content, rnd.choice(charsets.split())))
            for name, part, content, charset in cases:
                raw, said, sender = message(part, language, charset)
                put = {"subject": said, "from": sender.lower(), "body": content}
                name = "%s, %s" % (language, name)
                chosen = rnd.sample(CHANGES, rnd.choice([0, 0, 1, 2, 3]))
                for change in sorted(chosen, key=CHANGES.index):
                    raw = change(raw)
                    name += ", " + change.__name__.replace("_", " ")
                check(name, raw, put)
    print("%d passed, %d failed" % (passed, failed))
    return failed > 0 or passed == 0


PROGRAM = build()
sys.exit(main())
