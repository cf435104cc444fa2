-- The history of the logs. A database that went back in time (a restored backup) gets a new one; clients and nodes with
-- revisions of the previous history must reload.
CREATE TABLE history (
  single INTEGER PRIMARY KEY CHECK (single = 1),
  generation INTEGER NOT NULL,              -- how often it was renewed
  id BLOB NOT NULL,                         -- 16 random bytes, new with each renewal
  writes INTEGER NOT NULL DEFAULT 0,        -- grows by one about every second in which something is appended
  file TEXT NOT NULL DEFAULT ''             -- the identity of the database's file; a copied file has another
) STRICT;
INSERT INTO history (single, generation, id) VALUES (1, 0, randomblob(16));
