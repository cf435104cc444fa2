-- What changed lately: one row for each statement that appends or claims, written in its transaction, so that a node can
-- read on from where it was instead of asking for each of its open documents. Unlogged: writes no WAL. Both tables are empty
-- after a crash, a failover or a restore of files; the nodes notice the missing row of `change_feed` and compare their open
-- documents with the store once.
CREATE UNLOGGED TABLE changes (
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(), -- compared with snapshots, so a transaction that ends late is not missed
  docs bigint[] NOT NULL,
  epochs bigint[],                                -- of each document, if they were claimed
  heads bigint[]                                  -- of each document, if they were appended to
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX changes_xid ON changes (xid);

-- Whether the node's program adds rows to `changes`. While one lives that does not, the others compare their open documents
-- with the store.
ALTER TABLE nodes ADD COLUMN records_changes boolean NOT NULL DEFAULT false;

-- One row. Rows of `changes` that were visible in the snapshot `trimmed` may have been deleted.
CREATE UNLOGGED TABLE change_feed (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),     -- another one after each loss of the tables
  trimmed pg_snapshot NOT NULL DEFAULT '1:1:'
) WITH (fillfactor = 20);
