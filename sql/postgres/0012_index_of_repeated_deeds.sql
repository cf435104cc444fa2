-- migration: online, works with 4
-- Finds the line of the audit log that a repeated action adds to. A database that was made before has it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_repeated ON audit (actor, deed, number);
