-- Repeated actions (opening a link, a wrong password) are one line of the audit log per hour.
ALTER TABLE audit ADD COLUMN times bigint NOT NULL DEFAULT 1;    -- the number of repetitions
ALTER TABLE audit ADD COLUMN last_at_ms bigint;                  -- the time of the last one, if it was repeated
