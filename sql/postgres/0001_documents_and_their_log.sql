-- Documents and their logs. The same tables as SQLite's, except that the fence has a table of its own.
--
-- Texts that may contain NUL are stored as their bytes. Integers have 64 bits; counters from zero to 2^64 become
-- negative in the upper half. Rows of `documents` and `heads` are never deleted: a fence must not be issued twice.
CREATE TABLE documents (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- stands for (collection, id) in the other tables
  collection text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  live boolean NOT NULL DEFAULT false,      -- from a create to the next delete, in the append's own transaction
  title bytea NOT NULL DEFAULT '',
  title_folded bytea NOT NULL DEFAULT '',   -- in lower case by Unicode's rules
  created_at_ms bigint,                     -- of the first create; NULL before it
  updated_at_ms bigint NOT NULL DEFAULT 0,  -- of the last entry; lags behind the log
  UNIQUE (collection, id)
) WITH (fillfactor = 90);

-- The index of the list, newest edit first, without deleted documents.
CREATE INDEX documents_listed ON documents (collection, updated_at_ms, id) WHERE live;

-- The fence of a document, in a narrow row. Appends take a share lock, which leaves no dead row; only claims write it.
-- An append does not wait for a row that is being claimed: it skips it.
CREATE TABLE heads (
  doc bigint PRIMARY KEY REFERENCES documents (number),
  epoch bigint NOT NULL,                    -- incremented by each claim
  token bytea NOT NULL,                     -- 16 random bytes, new with each claim
  owner bigint NOT NULL,                    -- the node of the last claim,
  owner_name bytea NOT NULL,                -- and its name
  claimed_at timestamptz NOT NULL           -- for operators
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Never deleted. Without a foreign key, because that would lock a row of `documents` for each entry; the fence proves
-- that the document exists.
CREATE TABLE entries (
  doc bigint NOT NULL,
  revision bigint NOT NULL CHECK (revision > 0),
  epoch bigint NOT NULL,
  author bytea NOT NULL,
  client text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  at_ms bigint NOT NULL,
  payload bytea NOT NULL,                   -- written by `Change::encode`
  checksum bigint NOT NULL,                 -- XXH3 of all columns except `doc`; detects damage
  PRIMARY KEY (doc, revision)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- There is no unique index over (doc, client, seq, author), for the reasons that are given in the tables of SQLite.

-- Snapshots shorten a load. A damaged one is skipped: the log has the same content.
CREATE TABLE snapshots (
  doc bigint NOT NULL,
  revision bigint NOT NULL CHECK (revision > 0),
  epoch bigint NOT NULL,
  data bytea NOT NULL,                      -- a format byte, a checksum, LZ4 or zstd
  PRIMARY KEY (doc, revision)
);
-- The data is compressed already.
ALTER TABLE snapshots ALTER COLUMN data SET STORAGE EXTERNAL;

-- The heartbeats of the nodes, by this server's clock. A node has a new id, and so a new row, after each start.
CREATE TABLE nodes (
  id bigint PRIMARY KEY,
  name bytea NOT NULL,
  takes_part boolean NOT NULL,
  beat_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Secrets that all nodes of this store share.
CREATE TABLE secrets (
  name text PRIMARY KEY,
  value bytea NOT NULL
);
