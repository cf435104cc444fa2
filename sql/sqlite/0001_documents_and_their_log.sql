-- Documents and their logs.
--
-- Each append reads the fence in `documents`, but only claims, creates, deletes, renames and the deferred update of
-- `updated_at_ms` (about once a second) write to it: an append does not dirty its pages.
CREATE TABLE documents (
  number INTEGER PRIMARY KEY,               -- stands for (collection, id) in the other tables
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,         -- the fence: incremented by each claim
  token BLOB NOT NULL DEFAULT x'',          -- 16 random bytes, new with each claim
  live INTEGER NOT NULL DEFAULT 0,          -- 1 from a create to the next delete, in the append's own transaction
  title TEXT NOT NULL DEFAULT '',
  title_folded TEXT NOT NULL DEFAULT '',    -- in lower case by Unicode's rules, which LIKE does not implement
  created_at_ms INTEGER,                    -- of the first create; NULL before it
  updated_at_ms INTEGER NOT NULL DEFAULT 0, -- of the last entry; lags behind the log
  UNIQUE (collection, id)
) STRICT;

-- The index of the list, newest edit first, without deleted documents.
CREATE INDEX documents_listed ON documents (collection, updated_at_ms, id) WHERE live = 1;

-- Never deleted. Clustered by (doc, revision): an append to a document dirties one page, and a load reads few pages.
-- Integers have 64 bits; counters from zero to 2^64 become negative in the upper half.
CREATE TABLE entries (
  doc INTEGER NOT NULL REFERENCES documents (number),
  revision INTEGER NOT NULL CHECK (revision > 0),
  epoch INTEGER NOT NULL,
  author TEXT NOT NULL,
  client TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  payload BLOB NOT NULL,                    -- written by `Change::encode`
  checksum INTEGER NOT NULL,                -- XXH3 of all columns except `doc`; detects damage
  PRIMARY KEY (doc, revision)
) STRICT, WITHOUT ROWID;

-- There is no unique index over (doc, client, seq, author). The sequencer recognises a duplicate among the entries over
-- which it is transformed. An index would make each op dirty a second page, and a client that repeats an old op on a
-- new base could make each append of its document fail.

-- Snapshots shorten a load. A damaged one is skipped: the log has the same content.
CREATE TABLE snapshots (
  doc INTEGER NOT NULL REFERENCES documents (number),
  revision INTEGER NOT NULL CHECK (revision > 0),
  epoch INTEGER NOT NULL,
  data BLOB NOT NULL,                       -- a format byte, a checksum, LZ4 or zstd
  PRIMARY KEY (doc, revision)
) STRICT;

-- Secrets of this store.
CREATE TABLE secrets (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
