-- migration: online, works with 4
-- Finds the line of the audit log that a repeated action is added to. Older databases lack this index.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_repeated ON audit (actor, deed, number);
