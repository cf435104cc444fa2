-- migration: long, works with 3
-- Accounts that are closed for a while or for good, passwords that are forgotten, what a tenant uses, and who did what
-- in it. The same tables as SQLite's.
ALTER TABLE users ADD COLUMN disabled boolean NOT NULL DEFAULT false;  -- may not sign in

-- Owners of a tenant are shown those who belong to it.
CREATE INDEX users_of ON users (tenant, login);

-- An invitation is valid while its maker may invite. One without a maker is invalid.
DELETE FROM invitations;
ALTER TABLE invitations ADD COLUMN id bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) UNIQUE; -- names it to owners of the tenant; opens nothing
ALTER TABLE invitations ADD COLUMN maker bytea NOT NULL DEFAULT ''; -- must own the tenant still when it is used
CREATE INDEX invitations_of ON invitations (tenant, expires_at_ms);

-- Who may choose a new password. Used once; the newest is the only one.
CREATE TABLE resets (
  user_id bytea PRIMARY KEY REFERENCES users (id),
  code bytea NOT NULL UNIQUE,               -- SHA-256 of the code
  maker bytea NOT NULL,                     -- must own the tenant still when it is used
  expires_at_ms bigint NOT NULL
);

-- The tokens of another application that are no good though they have not expired.
CREATE TABLE ended_tokens (
  subject bytea PRIMARY KEY,
  issued_until bigint NOT NULL              -- those issued up to this, in seconds since 1970
);

-- What each tenant has taken of what it may.
CREATE TABLE usage (
  tenant text COLLATE "C" PRIMARY KEY,
  documents bigint NOT NULL,                -- made here, also those that were deleted: their logs are kept
  bytes bigint NOT NULL                     -- of ops, roughly: counted where they come in
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
