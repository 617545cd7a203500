-- purge.sql: mail is deleted when it is an hour old.
--
--	mysql mail < purge.sql
--
-- To be loaded as often as wanted, by a user who may create routines and events;
-- it is he who deletes, so he needs more than smtpd's user, and never less than
--
--	GRANT SELECT, DELETE ON mail.new_mail TO purge@localhost;
--	GRANT CREATE ROUTINE, ALTER ROUTINE, EXECUTE, EVENT ON mail.* TO purge@localhost;
--
-- The server runs the event where it runs events at all: event_scheduler=ON in
-- its option file (MySQL's default, not MariaDB's). Or DROP EVENT purge_mail, and
-- in a crontab, as a user who has EXECUTE ON PROCEDURE mail.purge_mail alone:
--
--	* * * * *  mysql mail -e 'CALL purge_mail(60)'
--
-- A thousand rows at a time: what others wait for, and what a rollback costs,
-- stay small. It goes on while there is more, so it keeps up with any load that
-- the disk takes: see the README for figures. Only one runs at a time.

DROP EVENT IF EXISTS purge_mail;
DROP PROCEDURE IF EXISTS purge_mail;

DELIMITER //

CREATE PROCEDURE purge_mail(IN minutes INT)
MODIFIES SQL DATA
BEGIN
  DECLARE deleted INT DEFAULT 1000;
  IF GET_LOCK(CONCAT(DATABASE(), '.purge_mail'), 0) = 1 THEN
    WHILE deleted = 1000 DO
      DELETE FROM new_mail WHERE `date` < UTC_TIMESTAMP() - INTERVAL minutes MINUTE
        ORDER BY `date` LIMIT 1000;
      SET deleted = ROW_COUNT();
    END WHILE;
    DO RELEASE_LOCK(CONCAT(DATABASE(), '.purge_mail'));
  END IF;
END //

DELIMITER ;

CREATE EVENT purge_mail ON SCHEDULE EVERY 10 SECOND
  COMMENT 'mail is deleted when it is an hour old'
  DO CALL purge_mail(60);
