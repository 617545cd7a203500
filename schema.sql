-- schema.sql: the table smtpd writes to and the application reads.
--
--	mariadb mail < schema.sql	(or: mysql mail < schema.sql)
--
-- The names and the order of the columns are those published with the PHP
-- script; the types are wide enough that no part of a mail is lost. To be
-- loaded as often as wanted: an empty database gets the table, a table of the
-- published definition is widened with its rows kept, and a table that is
-- already so stays untouched. MariaDB 10.2 and MySQL 5.7 or later.
--
-- purge.sql beside it deletes what has become old. Widening a large table copies
-- and locks it: the README has a way without that.

SET NAMES utf8mb4;
-- Strict: what cannot be kept stops the upgrade instead of being cut. No more
-- than that, or a zero date of long ago would stop it too.
SET SESSION sql_mode = 'STRICT_ALL_TABLES';

CREATE TABLE IF NOT EXISTS `new_mail` (
  `mail_id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `date` datetime NOT NULL,
  `from` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `to` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `subject` text NOT NULL,
  `body` mediumtext NOT NULL,
  `charset` varchar(64) NOT NULL,
  `mail` longblob NOT NULL,
  `spam_score` float NOT NULL,
  `hash` char(32) CHARACTER SET ascii NOT NULL,
  `content_type` varchar(128) NOT NULL,
  `recipient` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`mail_id`),
  KEY `to` (`to`),
  KEY `hash` (`hash`),
  KEY `date` (`date`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- Another engine has no transactions, so a 250 could not mean "committed", and
-- an older row format has no room for these keys. Asked first, because saying
-- it again would copy the whole table.
SET @make = (SELECT IF(ENGINE = 'InnoDB' AND ROW_FORMAT IN ('Dynamic', 'Compressed'),
    'DO 0', 'ALTER TABLE `new_mail` ENGINE=InnoDB ROW_FORMAT=DYNAMIC')
  FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'new_mail');
PREPARE make FROM @make;
EXECUTE make;
DEALLOCATE PREPARE make;

-- Changes nothing, at once, where the table was made by the statement above.
ALTER TABLE `new_mail`
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci,
  MODIFY `mail_id` bigint unsigned NOT NULL AUTO_INCREMENT,
  MODIFY `from` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  MODIFY `to` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  MODIFY `subject` text NOT NULL,
  MODIFY `body` mediumtext NOT NULL,
  MODIFY `charset` varchar(64) NOT NULL,
  MODIFY `mail` longblob NOT NULL,
  MODIFY `spam_score` float NOT NULL,
  MODIFY `hash` char(32) CHARACTER SET ascii NOT NULL,
  MODIFY `content_type` varchar(128) NOT NULL,
  MODIFY `recipient` varchar(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL;
