-- People: who they are, where they are signed in, and what they may do with which document.
--
-- A subject is whoever may hold a right: a user of ours, a user of the application whose tokens we take, or a share
-- link. Times are milliseconds since 1970 by this store's clock.
CREATE TABLE users (
  id TEXT PRIMARY KEY,                      -- drawn at random, never used again
  tenant TEXT NOT NULL,
  login TEXT NOT NULL UNIQUE,               -- in lower case
  name TEXT NOT NULL,
  password TEXT NOT NULL,                   -- Argon2id, in the PHC form
  role INTEGER NOT NULL DEFAULT 0,          -- on every document of the tenant; 0: none
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may make an account where not everybody may. Used once.
CREATE TABLE invitations (
  code BLOB PRIMARY KEY,                    -- SHA-256 of the code
  tenant TEXT NOT NULL,
  role INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A session is one sign-in on one device, with the family of its refresh tokens. Ended, it is deleted.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id),
  refresh BLOB NOT NULL,                    -- SHA-256 of the newest refresh token,
  previous BLOB,                            -- and of the one before: good for a moment, for a second tab
  renewed_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of ON sessions (user_id);
CREATE INDEX sessions_expire ON sessions (expires_at_ms);

-- What a subject may do with a document. One owner each; a document without any belongs to its tenant.
CREATE TABLE grants (
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  subject TEXT NOT NULL,
  role INTEGER NOT NULL CHECK (role BETWEEN 1 AND 4),
  PRIMARY KEY (collection, id, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_of ON grants (subject, collection, id);

CREATE TABLE links (
  id TEXT PRIMARY KEY,                      -- names it to the owner; opens nothing
  collection TEXT NOT NULL,
  doc TEXT NOT NULL,
  role INTEGER NOT NULL CHECK (role BETWEEN 1 AND 3),
  secret BLOB NOT NULL UNIQUE,              -- SHA-256 of what the address says
  password TEXT,                            -- Argon2id, in the PHC form
  expires_at_ms INTEGER,
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX links_of ON links (collection, doc);

-- Whose rights to look up anew, and whose sockets to close: every node reads on from the sequence it knows. A store with
-- more than one writer must give the sequence in the order of the commits.
CREATE TABLE revocations (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  subject TEXT NOT NULL,
  session TEXT,                             -- only this one of the subject's sessions
  ends INTEGER NOT NULL                     -- 1: close the sockets; 0: look up the rights
) STRICT;
CREATE INDEX revocations_age ON revocations (at_ms);

-- What was changed about people and rights, by whom. Kept for ever.
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
