-- migration: long, works with 3
-- Disabled and deleted accounts, password resets, usage of tenants, and the audit log of a tenant. The same tables as
-- SQLite's.
ALTER TABLE users ADD COLUMN disabled boolean NOT NULL DEFAULT false;  -- may not sign in

-- For the list of the users of a tenant.
CREATE INDEX users_of ON users (tenant, login);

-- An invitation is valid while the user who made it may invite. One without a maker is invalid.
DELETE FROM invitations;
ALTER TABLE invitations ADD COLUMN id bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) UNIQUE; -- identifies it to owners of the tenant; does not admit
ALTER TABLE invitations ADD COLUMN maker bytea NOT NULL DEFAULT ''; -- must still own the tenant when it is used
CREATE INDEX invitations_of ON invitations (tenant, expires_at_ms);

-- Password resets: permit choosing a new password. Used once; only the newest of an account is valid.
CREATE TABLE resets (
  user_id bytea PRIMARY KEY REFERENCES users (id),
  code bytea NOT NULL UNIQUE,               -- SHA-256 of the code
  maker bytea NOT NULL,                     -- must still own the tenant when it is used
  expires_at_ms bigint NOT NULL
);

-- Revoked tokens of another application that have not expired yet.
CREATE TABLE ended_tokens (
  subject bytea PRIMARY KEY,
  issued_until bigint NOT NULL              -- revokes those that were issued until then, in seconds since 1970
);

-- The usage of each tenant, for its quotas.
CREATE TABLE usage (
  tenant text COLLATE "C" PRIMARY KEY,
  documents bigint NOT NULL,                -- created, including deleted ones: their logs are kept
  bytes bigint NOT NULL                     -- of ops, approximately: counted when they arrive
) WITH (fillfactor = 50);
INSERT INTO usage (tenant, documents, bytes)
SELECT CASE WHEN d.collection LIKE '%:%' THEN split_part(d.collection, ':', 1) ELSE 'home' END,
  count(DISTINCT d.number), coalesce(sum(length(e.payload)), 0)
FROM documents d
LEFT JOIN entries e ON e.doc = d.number
GROUP BY 1;

ALTER TABLE audit ADD COLUMN tenant text COLLATE "C";
UPDATE audit SET tenant = CASE
  WHEN collection LIKE '%:%' THEN split_part(collection, ':', 1)
  WHEN collection IS NOT NULL THEN 'home'
  ELSE (SELECT users.tenant FROM users WHERE users.id = audit.actor)
END;
CREATE INDEX audit_of_tenant ON audit (tenant, number);
