-- What is done again and again (a link that is opened, a password that is wrong) is one line of the audit log an hour.
ALTER TABLE audit ADD COLUMN times bigint NOT NULL DEFAULT 1;    -- how often it was done
ALTER TABLE audit ADD COLUMN last_at_ms bigint;                  -- when last, where more than once
