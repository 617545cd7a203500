// What a user of Node.js would build: smtp-server, mailparser and mysql2, two processes,
// 250 after the commit, the same columns. peer.js port socket database
'use strict'
const cluster = require('cluster')
const crypto = require('crypto')
const [port, socketPath, database] = process.argv.slice(2)

if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork()
  process.on('SIGTERM', () => process.exit(0))
} else {
  const { SMTPServer } = require('smtp-server')
  const { simpleParser } = require('mailparser')
  const pool = require('mysql2').createPool({ socketPath, user: 'root', database, connectionLimit: 10 })
  const insert = 'INSERT INTO new_mail (`date`,`from`,`to`,subject,body,charset,mail,spam_score,' +
    'hash,content_type,recipient) VALUES (UTC_TIMESTAMP(),?,?,?,?,?,?,0,?,?,?)'
  new SMTPServer({
    authOptional: true,
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    size: 10485760,
    onData (stream, session, done) {
      const parts = []
      stream.on('data', part => parts.push(part))
      stream.on('end', async () => {
        try {
          const mail = Buffer.concat(parts)
          const parsed = await simpleParser(mail, { skipImageLinks: true, skipTextToHtml: true, skipHtmlToText: true })
          const from = parsed.from ? parsed.from.value[0].address : session.envelope.mailFrom.address
          const body = parsed.html || parsed.text || ''
          for (const { address } of session.envelope.rcptTo) {
            const hash = crypto.createHash('md5').update(address + from + parsed.subject + body).digest('hex')
            await pool.promise().query(insert, [from, address, parsed.subject || '', body, '', mail, hash,
              parsed.html ? 'text/html' : 'text/plain', address])
          }
          done(null, 'OK')
        } catch (error) {
          done(error)
        }
      })
    }
  }).listen(+port, '127.0.0.1')
}
