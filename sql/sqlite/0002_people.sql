-- Accounts, sessions and permissions on documents.
--
-- A subject is a holder of permissions: a user, a user of another application with its tokens, or a share link. Times
-- are milliseconds since 1970 by this store's clock.
CREATE TABLE users (
  id TEXT PRIMARY KEY,                      -- random, never reused
  tenant TEXT NOT NULL,
  login TEXT NOT NULL UNIQUE,               -- in lower case
  name TEXT NOT NULL,
  password TEXT NOT NULL,                   -- Argon2id, in the PHC form
  role INTEGER NOT NULL DEFAULT 0,          -- on every document of the tenant; 0: none
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Invitations: permit creating an account if that is not open to all. Used once.
CREATE TABLE invitations (
  code BLOB PRIMARY KEY,                    -- SHA-256 of the code
  tenant TEXT NOT NULL,
  role INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A session: one sign-in on one device, with its refresh tokens. The row is deleted at its end.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  refresh BLOB NOT NULL,                    -- SHA-256 of the newest refresh token,
  previous BLOB,                            -- and of the one before, which is valid for a short time for a second tab
  renewed_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of ON sessions (user_id);
CREATE INDEX sessions_expire ON sessions (expires_at_ms);

-- The role of a subject on a document. At most one owner per document; a document without an owner belongs to its
-- tenant.
CREATE TABLE grants (
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  subject TEXT NOT NULL,
  role INTEGER NOT NULL CHECK (role BETWEEN 1 AND 4),
  PRIMARY KEY (collection, id, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_of ON grants (subject, collection, id);

CREATE TABLE links (
  id TEXT PRIMARY KEY,                      -- identifies the link; does not open it
  collection TEXT NOT NULL,
  doc TEXT NOT NULL,
  role INTEGER NOT NULL CHECK (role BETWEEN 1 AND 3),
  secret BLOB NOT NULL UNIQUE,              -- SHA-256 of the secret in the url
  password TEXT,                            -- Argon2id, in the PHC form
  expires_at_ms INTEGER,
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX links_of ON links (collection, doc);

-- Revocations: the subjects of which the permissions must be looked up again, or the sockets closed. They are read
-- after the last sequence that was read; sequences are in the order of the commits.
CREATE TABLE revocations (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  subject TEXT NOT NULL,
  session TEXT,                             -- only this one of the subject's sessions
  ends INTEGER NOT NULL                     -- 1: close the sockets; 0: look up the rights
) STRICT;
CREATE INDEX revocations_age ON revocations (at_ms);

-- The audit log: changes of accounts and permissions, and the subjects that made them. Never deleted.
CREATE TABLE audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  deed TEXT NOT NULL,
  collection TEXT,
  doc TEXT,
  subject TEXT,
  detail TEXT
) STRICT;
CREATE INDEX audit_of ON audit (collection, doc, number);
