-- migration: quick, works with 12
-- Submits that were not committed because of a fault. Their number, bytes and age are bounded by [dead_letters] in
-- config.toml.
CREATE TABLE dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  reason text NOT NULL,                     -- panic, refused
  detail bytea NOT NULL,                    -- the message of the panic; UTF-8
  collection text COLLATE "C" NOT NULL,
  doc text COLLATE "C" NOT NULL,
  author bytea NOT NULL,                    -- the principal; UTF-8
  client text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  base bigint,                              -- the revision that the change was made on; NULL: none was named
  head bigint NOT NULL,                     -- the newest durable revision that the node knew
  node bigint NOT NULL,
  node_name bytea NOT NULL,                 -- UTF-8
  at_ms bigint NOT NULL,
  payload bytea NOT NULL,                   -- the change as JSON, cut off behind a bound
  payload_bytes bigint NOT NULL             -- the size of the whole payload
);

-- A write that is repeated adds no second row. Selects the letters of a document.
CREATE UNIQUE INDEX dead_letters_of_documents ON dead_letters (collection, doc, at_ms, client, seq, reason);

-- The newest panic of each document, and the documents in quarantine.
CREATE TABLE quarantine (
  collection text COLLATE "C" NOT NULL,
  doc text COLLATE "C" NOT NULL,
  panicked_at_ms bigint NOT NULL,
  quarantined_at_ms bigint,                 -- NULL: one panic so far, not in quarantine
  node bigint NOT NULL,                     -- the node of the newest panic
  node_name bytea NOT NULL,                 -- UTF-8
  PRIMARY KEY (collection, doc)
);
