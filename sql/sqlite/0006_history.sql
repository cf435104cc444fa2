-- Which history of the logs this database holds. A database that went back in time (a backup was restored) gets a new
-- history: clients and processes that hold revisions of the one before are told so, instead of being resumed.
CREATE TABLE history (
  single INTEGER PRIMARY KEY CHECK (single = 1),
  generation INTEGER NOT NULL,              -- how often it was renewed
  id BLOB NOT NULL,                         -- 16 random bytes, drawn at each renewal
  writes INTEGER NOT NULL DEFAULT 0,        -- grows by one about every second in which something is appended
  file TEXT NOT NULL DEFAULT ''             -- the identity of the database's file; a copied file has another
) STRICT;
INSERT INTO history (single, generation, id) VALUES (1, 0, randomblob(16));
