-- migration: long, works with 3
-- Accounts that are closed for a while or for good, passwords that are forgotten, what a tenant uses, and who did what
-- in it.
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;  -- 1: may not sign in

-- An invitation is valid while its maker may invite. One without a maker is invalid.
DELETE FROM invitations;
ALTER TABLE invitations ADD COLUMN id TEXT NOT NULL DEFAULT '';    -- names it to owners of the tenant; opens nothing
ALTER TABLE invitations ADD COLUMN maker TEXT NOT NULL DEFAULT ''; -- must own the tenant still when it is used
CREATE UNIQUE INDEX invitations_id ON invitations (id);

-- Who may choose a new password. Used once; the newest is the only one.
CREATE TABLE resets (
  user_id TEXT PRIMARY KEY REFERENCES users (id),
  code BLOB NOT NULL UNIQUE,                -- SHA-256 of the code
  maker TEXT NOT NULL,                      -- must own the tenant still when it is used
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The tokens of another application that are no good though they have not expired.
CREATE TABLE ended_tokens (
  subject TEXT PRIMARY KEY,
  issued_until INTEGER NOT NULL             -- those issued up to this, in seconds since 1970
) STRICT, WITHOUT ROWID;

-- What each tenant has taken of what it may.
CREATE TABLE usage (
  tenant TEXT PRIMARY KEY,
  documents INTEGER NOT NULL,               -- made here, also those that were deleted: their logs are kept
  bytes INTEGER NOT NULL                    -- of ops, roughly: counted where they come in
) STRICT, WITHOUT ROWID;
INSERT INTO usage (tenant, documents, bytes)
SELECT CASE instr(d.collection, ':') WHEN 0 THEN 'home' ELSE substr(d.collection, 1, instr(d.collection, ':') - 1) END,
  count(*), coalesce(sum((SELECT sum(length(payload)) FROM entries WHERE doc = d.number)), 0)
FROM documents d
GROUP BY 1;

ALTER TABLE audit ADD COLUMN tenant TEXT;
UPDATE audit SET tenant = CASE
  WHEN instr(collection, ':') > 0 THEN substr(collection, 1, instr(collection, ':') - 1)
  WHEN collection IS NOT NULL THEN 'home'
  ELSE (SELECT tenant FROM users WHERE users.id = audit.actor)
END;
CREATE INDEX audit_of_tenant ON audit (tenant, number);
