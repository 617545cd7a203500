"""What a user of Python would build: aiosmtpd, the email package and a MySQL client, the INSERTs
in threads, 250 after the commit, the same columns. peer.py port socket database"""
import asyncio
import concurrent.futures
import email
import email.policy
import email.utils
import hashlib
import sys
import threading

import MySQLdb
from aiosmtpd.controller import UnthreadedController

port, sock, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
INSERT = ("INSERT INTO new_mail (`date`,`from`,`to`,subject,body,charset,mail,spam_score,hash,"
          "content_type,recipient) VALUES (UTC_TIMESTAMP(),%s,%s,%s,%s,%s,%s,0,%s,%s,%s)")
local = threading.local()


def store(envelope):
    db = getattr(local, "db", None)
    if db is None:
        db = local.db = MySQLdb.connect(unix_socket=sock, user="root", db=name, charset="utf8mb4",
                                        autocommit=True)
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    part = message.get_body(("html", "plain"))
    body = part.get_content() if part else ""
    sender = email.utils.parseaddr(str(message["from"]))[1] or envelope.mail_from
    subject = str(message["subject"] or "")
    for to in envelope.rcpt_tos:
        digest = hashlib.md5((to + sender + subject + body).encode()).hexdigest()
        db.cursor().execute(INSERT, (sender, to, subject, body, "", envelope.content, digest,
                                     part.get_content_type() if part else "", to))


class Handler:
    pool = concurrent.futures.ThreadPoolExecutor(10)

    async def handle_DATA(self, server, session, envelope):
        await asyncio.get_running_loop().run_in_executor(self.pool, store, envelope)
        return "250 OK"


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
controller = UnthreadedController(Handler(), hostname="127.0.0.1", port=port, loop=loop,
                                  data_size_limit=10485760)
controller.begin()
loop.run_forever()
