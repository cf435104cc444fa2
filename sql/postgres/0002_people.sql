-- People: who they are, where they are signed in, and what they may do with which document. The same tables as SQLite's,
-- but for the count of the revocations, which SQLite's one writer has for nothing.
--
-- A subject is whoever may hold a right: a user of ours, a user of the application whose tokens we take, or a share
-- link. Subjects, and what people sign in by, come from requests and may be asked for with a NUL in them: they are kept
-- as their bytes. Times are milliseconds since 1970 by this server's clock.
CREATE TABLE users (
  id bytea PRIMARY KEY,                     -- drawn at random, never used again
  tenant text COLLATE "C" NOT NULL,
  login bytea NOT NULL UNIQUE,              -- in lower case
  name bytea NOT NULL,
  password text NOT NULL,                   -- Argon2id, in the PHC form
  role bigint NOT NULL DEFAULT 0,           -- on every document of the tenant; 0: none
  created_at_ms bigint NOT NULL
);

-- Who may make an account where not everybody may. Used once.
CREATE TABLE invitations (
  code bytea PRIMARY KEY,                   -- SHA-256 of the code
  tenant text COLLATE "C" NOT NULL,
  role bigint NOT NULL,
  expires_at_ms bigint NOT NULL
);
CREATE INDEX invitations_expire ON invitations (expires_at_ms);

-- A session is one sign-in on one device, with the family of its refresh tokens. Ended, it is deleted.
CREATE TABLE sessions (
  id text COLLATE "C" PRIMARY KEY,
  user_id bytea NOT NULL REFERENCES users (id),
  refresh bytea NOT NULL,                   -- SHA-256 of the newest refresh token,
  previous bytea,                           -- and of the one before: good for a moment, for a second tab
  renewed_at_ms bigint NOT NULL,
  expires_at_ms bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_of ON sessions (user_id);
CREATE INDEX sessions_expire ON sessions (expires_at_ms);

-- What a subject may do with a document. A document without an owner belongs to its tenant.
CREATE TABLE grants (
  collection text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  subject bytea NOT NULL,
  role bigint NOT NULL CHECK (role BETWEEN 1 AND 4),
  PRIMARY KEY (collection, id, subject)
);
CREATE INDEX grants_of ON grants (subject, collection, id);

-- One owner each, whoever asks at the same moment.
CREATE UNIQUE INDEX grants_owner ON grants (collection, id) WHERE role = 4;

CREATE TABLE links (
  id bytea PRIMARY KEY,                     -- names it to the owner; opens nothing
  collection text COLLATE "C" NOT NULL,
  doc text COLLATE "C" NOT NULL,
  role bigint NOT NULL CHECK (role BETWEEN 1 AND 3),
  secret bytea NOT NULL UNIQUE,             -- SHA-256 of what the address says
  password text,                            -- Argon2id, in the PHC form
  expires_at_ms bigint,
  created_at_ms bigint NOT NULL
);
CREATE INDEX links_of ON links (collection, doc);

-- Whose rights to look up anew, and whose sockets to close: every node reads on from the sequence it knows.
CREATE TABLE revocations (
  sequence bigint PRIMARY KEY,
  at_ms bigint NOT NULL,
  subject bytea NOT NULL,
  session text COLLATE "C",                 -- only this one of the subject's sessions
  ends boolean NOT NULL                     -- close the sockets; otherwise look up the rights
);
CREATE INDEX revocations_age ON revocations (at_ms);

-- The newest revocation's sequence, one row. Whoever revokes locks it until its commit, so the sequence is in the order
-- of the commits: a node that has read one has missed none before it. An identity's numbers would be drawn in one order
-- and become visible in another.
CREATE TABLE revocation_count (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  sequence bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO revocation_count (sequence) VALUES (0);

-- What was changed about people and rights, by whom. Kept for ever.
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
