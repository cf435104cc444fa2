-- The truth: documents, and the log of each.
--
-- `documents` is read by every append (the fence) but written only by claims, creates, deletes, renames and, about once
-- a second per document, by the keeping of `updated_at_ms`: an append dirties no page of it.
CREATE TABLE documents (
  number INTEGER PRIMARY KEY,               -- stands for (collection, id) in the other tables
  collection TEXT NOT NULL,
  id TEXT NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,         -- the fence: grows by one at every claim,
  token BLOB NOT NULL DEFAULT x'',          -- and has 16 random bytes of its own
  live INTEGER NOT NULL DEFAULT 0,          -- 1 from a create to the next delete, in the append's own transaction
  title TEXT NOT NULL DEFAULT '',
  title_folded TEXT NOT NULL DEFAULT '',    -- in lower case by Unicode's rules, which LIKE does not know
  created_at_ms INTEGER,                    -- of the first create; NULL before it
  updated_at_ms INTEGER NOT NULL DEFAULT 0, -- of the last entry, but for the last second or so
  UNIQUE (collection, id)
) STRICT;

-- The list, newest edit first, without a sort and without a look at deleted documents.
CREATE INDEX documents_listed ON documents (collection, updated_at_ms, id) WHERE live = 1;

-- Kept for ever. Clustered by (doc, revision): an append to one document dirties one page, its neighbours' load reads
-- few. The columns are integers of 64 bits; those that count from zero to 2^64 wrap around into the negative.
CREATE TABLE entries (
  doc INTEGER NOT NULL REFERENCES documents (number),
  revision INTEGER NOT NULL CHECK (revision > 0),
  epoch INTEGER NOT NULL,
  author TEXT NOT NULL,
  client TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  payload BLOB NOT NULL,                    -- what `Change::encode` writes; never parsed in here
  checksum INTEGER NOT NULL,                -- XXH3 of all columns but `doc`: a flipped bit is an error, never another text
  PRIMARY KEY (doc, revision)
) STRICT, WITHOUT ROWID;

-- There is no unique index over (doc, client, seq, author). The sequencer recognises a copy among the entries that it is
-- transformed over; an index would make every op dirty a second page, and a client that repeats an op of long ago on a new
-- base could make every append of its document fail.

-- Shortcuts into the log: whatever is wrong with one, the log without it says the same.
CREATE TABLE snapshots (
  doc INTEGER NOT NULL REFERENCES documents (number),
  revision INTEGER NOT NULL CHECK (revision > 0),
  epoch INTEGER NOT NULL,
  data BLOB NOT NULL,                       -- packed: a format byte, a checksum, LZ4
  PRIMARY KEY (doc, revision)
) STRICT;

-- What all nodes of this store share and nobody else may know.
CREATE TABLE secrets (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
