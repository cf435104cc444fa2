-- migration: long, works with 3
-- Disabled and deleted accounts, password resets, usage of tenants, and the audit log of a tenant.
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;  -- 1: may not sign in

-- An invitation is valid while the user who made it may invite. One without a maker is invalid.
DELETE FROM invitations;
ALTER TABLE invitations ADD COLUMN id TEXT NOT NULL DEFAULT '';    -- identifies it to owners of the tenant; does not admit
ALTER TABLE invitations ADD COLUMN maker TEXT NOT NULL DEFAULT ''; -- must still own the tenant when it is used
CREATE UNIQUE INDEX invitations_id ON invitations (id);

-- Password resets: permit choosing a new password. Used once; only the newest of an account is valid.
CREATE TABLE resets (
  user_id TEXT PRIMARY KEY REFERENCES users (id),
  code BLOB NOT NULL UNIQUE,                -- SHA-256 of the code
  maker TEXT NOT NULL,                      -- must still own the tenant when it is used
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Revoked tokens of another application that have not expired yet.
CREATE TABLE ended_tokens (
  subject TEXT PRIMARY KEY,
  issued_until INTEGER NOT NULL             -- revokes those that were issued until then, in seconds since 1970
) STRICT, WITHOUT ROWID;

-- The usage of each tenant, for its quotas.
CREATE TABLE usage (
  tenant TEXT PRIMARY KEY,
  documents INTEGER NOT NULL,               -- created, including deleted ones: their logs are kept
  bytes INTEGER NOT NULL                    -- of ops, approximately: counted when they arrive
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
