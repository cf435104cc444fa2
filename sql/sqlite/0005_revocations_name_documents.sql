-- The document that a revocation concerns, so that a socket looks up only its permissions on that document. NULL: it
-- may concern each document. Nodes of an earlier version write NULL, and look up all permissions.
ALTER TABLE revocations ADD COLUMN collection TEXT;
ALTER TABLE revocations ADD COLUMN doc TEXT;
