-- The truth: documents, and the log of each. The same tables as SQLite's, but for the fence, which has its own.
--
-- Texts that may hold a NUL are kept as their bytes. Integers are of 64 bits; those that count from zero to 2^64 wrap
-- around into the negative. Nothing is ever deleted from `documents` and `heads`: a fence must not come again.
CREATE TABLE documents (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- stands for (collection, id) in the other tables
  collection text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  live boolean NOT NULL DEFAULT false,      -- from a create to the next delete, in the append's own transaction
  title bytea NOT NULL DEFAULT '',
  title_folded bytea NOT NULL DEFAULT '',   -- in lower case by Unicode's rules
  created_at_ms bigint,                     -- of the first create; NULL before it
  updated_at_ms bigint NOT NULL DEFAULT 0,  -- of the last entry, but for the last second or so
  UNIQUE (collection, id)
) WITH (fillfactor = 90);

-- The list, newest edit first, without a sort and without a look at deleted documents.
CREATE INDEX documents_listed ON documents (collection, updated_at_ms, id) WHERE live;

-- The fence, one narrow row a document: share-locked by appends, which leave no dead row behind, and written by claims
-- alone. No append waits for it: a row that somebody claims is passed over.
CREATE TABLE heads (
  doc bigint PRIMARY KEY REFERENCES documents (number),
  epoch bigint NOT NULL,                    -- grows by one at every claim,
  token bytea NOT NULL,                     -- and has 16 random bytes of its own
  owner bigint NOT NULL,                    -- the node that claimed it last,
  owner_name bytea NOT NULL,                -- and what people call it
  claimed_at timestamptz NOT NULL           -- for people
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Kept for ever. No foreign key: it would lock a row of `documents` for each entry, and the fence has proven it.
CREATE TABLE entries (
  doc bigint NOT NULL,
  revision bigint NOT NULL CHECK (revision > 0),
  epoch bigint NOT NULL,
  author bytea NOT NULL,
  client text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  at_ms bigint NOT NULL,
  payload bytea NOT NULL,                   -- what `Change::encode` writes; never parsed in here
  checksum bigint NOT NULL,                 -- XXH3 of all columns but `doc`: a flipped bit is an error, never another text
  PRIMARY KEY (doc, revision)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- There is no unique index over (doc, client, seq, author), as in SQLite and for its reasons.

-- Shortcuts into the log: whatever is wrong with one, the log without it says the same.
CREATE TABLE snapshots (
  doc bigint NOT NULL,
  revision bigint NOT NULL CHECK (revision > 0),
  epoch bigint NOT NULL,
  data bytea NOT NULL,                      -- packed: a format byte, a checksum, LZ4
  PRIMARY KEY (doc, revision)
);
-- They are compressed already.
ALTER TABLE snapshots ALTER COLUMN data SET STORAGE EXTERNAL;

-- Who said "I live", and when by this server's clock. A row is a node's incarnation.
CREATE TABLE nodes (
  id bigint PRIMARY KEY,
  name bytea NOT NULL,
  takes_part boolean NOT NULL,
  beat_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What all nodes of this store share and nobody else may know.
CREATE TABLE secrets (
  name text PRIMARY KEY,
  value bytea NOT NULL
);
