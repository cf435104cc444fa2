-- Submits that were not committed because of a fault. Their number, bytes and age are bounded by [dead_letters] in
-- config.toml.
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,     -- numbers are not used again
  reason TEXT NOT NULL,                     -- panic, refused
  detail BLOB NOT NULL,                     -- the message of the panic; UTF-8
  collection TEXT NOT NULL,
  doc TEXT NOT NULL,
  author BLOB NOT NULL,                     -- the principal; UTF-8
  client TEXT NOT NULL,
  seq INTEGER NOT NULL,
  base INTEGER,                             -- the revision that the change was made on; NULL: none was named
  head INTEGER NOT NULL,                    -- the newest durable revision that the node knew
  node INTEGER NOT NULL,
  node_name BLOB NOT NULL,                  -- UTF-8
  at_ms INTEGER NOT NULL,
  payload BLOB NOT NULL,                    -- the change as JSON, cut off behind a bound
  payload_bytes INTEGER NOT NULL            -- the size of the whole payload
) STRICT;

-- A write that is repeated adds no second row. Selects the letters of a document.
CREATE UNIQUE INDEX dead_letters_of_documents ON dead_letters (collection, doc, at_ms, client, seq, reason);

-- The newest panic of each document, and the documents in quarantine.
CREATE TABLE quarantine (
  collection TEXT NOT NULL,
  doc TEXT NOT NULL,
  panicked_at_ms INTEGER NOT NULL,
  quarantined_at_ms INTEGER,                -- NULL: one panic so far, not in quarantine
  node INTEGER NOT NULL,                    -- the node of the newest panic
  node_name BLOB NOT NULL,                  -- UTF-8
  PRIMARY KEY (collection, doc)
) STRICT, WITHOUT ROWID;
