-- Accounts, sessions and permissions on documents. The same tables as SQLite's, except for the count of the
-- revocations.
--
-- A subject is a holder of permissions: a user, a user of another application with its tokens, or a share link. Ids of
-- subjects and logins may come from requests with a NUL in them, so they are stored as their bytes. Times are
-- milliseconds since 1970 by this server's clock.
CREATE TABLE users (
  id bytea PRIMARY KEY,                     -- random, never reused
  tenant text COLLATE "C" NOT NULL,
  login bytea NOT NULL UNIQUE,              -- in lower case
  name bytea NOT NULL,
  password text NOT NULL,                   -- Argon2id, in the PHC form
  role bigint NOT NULL DEFAULT 0,           -- on every document of the tenant; 0: none
  created_at_ms bigint NOT NULL
);

-- Invitations: permit creating an account if that is not open to all. Used once.
CREATE TABLE invitations (
  code bytea PRIMARY KEY,                   -- SHA-256 of the code
  tenant text COLLATE "C" NOT NULL,
  role bigint NOT NULL,
  expires_at_ms bigint NOT NULL
);
CREATE INDEX invitations_expire ON invitations (expires_at_ms);

-- A session: one sign-in on one device, with its refresh tokens. The row is deleted at its end.
CREATE TABLE sessions (
  id text COLLATE "C" PRIMARY KEY,
  user_id bytea NOT NULL REFERENCES users (id),
  refresh bytea NOT NULL,                   -- SHA-256 of the newest refresh token,
  previous bytea,                           -- and of the one before, which is valid for a short time for a second tab
  renewed_at_ms bigint NOT NULL,
  expires_at_ms bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_of ON sessions (user_id);
CREATE INDEX sessions_expire ON sessions (expires_at_ms);

-- The role of a subject on a document. A document without an owner belongs to its tenant.
CREATE TABLE grants (
  collection text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  subject bytea NOT NULL,
  role bigint NOT NULL CHECK (role BETWEEN 1 AND 4),
  PRIMARY KEY (collection, id, subject)
);
CREATE INDEX grants_of ON grants (subject, collection, id);

-- At most one owner per document, also with concurrent requests.
CREATE UNIQUE INDEX grants_owner ON grants (collection, id) WHERE role = 4;

CREATE TABLE links (
  id bytea PRIMARY KEY,                     -- identifies the link; does not open it
  collection text COLLATE "C" NOT NULL,
  doc text COLLATE "C" NOT NULL,
  role bigint NOT NULL CHECK (role BETWEEN 1 AND 3),
  secret bytea NOT NULL UNIQUE,             -- SHA-256 of the secret in the url
  password text,                            -- Argon2id, in the PHC form
  expires_at_ms bigint,
  created_at_ms bigint NOT NULL
);
CREATE INDEX links_of ON links (collection, doc);

-- Revocations: the subjects of which each node must look up the permissions again, or close the sockets. Each node
-- reads the rows after the last sequence that it has read.
CREATE TABLE revocations (
  sequence bigint PRIMARY KEY,
  at_ms bigint NOT NULL,
  subject bytea NOT NULL,
  session text COLLATE "C",                 -- only this one of the subject's sessions
  ends boolean NOT NULL                     -- close the sockets; otherwise look up the rights
);
CREATE INDEX revocations_age ON revocations (at_ms);

-- The sequence of the newest revocation, one row. It is locked until the commit of a revocation, so sequences are in
-- the order of the commits: a node that has read one has missed none before it. Values of an identity column would
-- become visible in another order than they are assigned.
CREATE TABLE revocation_count (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  sequence bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO revocation_count (sequence) VALUES (0);

-- The audit log: changes of accounts and permissions, and the subjects that made them. Never deleted.
CREATE TABLE audit (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at_ms bigint NOT NULL,
  actor bytea NOT NULL,
  deed text NOT NULL,
  collection text COLLATE "C",
  doc text COLLATE "C",
  subject bytea,
  detail text
);
CREATE INDEX audit_of ON audit (collection, doc, number);
