-- Recent changes: one row for each statement that appends or claims, written in its transaction, so that a node reads
-- the changes since its last read instead of comparing each of its open documents. Unlogged, so it writes no WAL. Both
-- tables are empty after a crash, a failover or a restore of files; the nodes detect the missing row of `change_feed`
-- and compare their open documents with the store once.
CREATE UNLOGGED TABLE changes (
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(), -- compared with snapshots, so a transaction that ends late is not missed
  docs bigint[] NOT NULL,
  epochs bigint[],                                -- of each document, if they were claimed
  heads bigint[]                                  -- of each document, if they were appended to
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX changes_xid ON changes (xid);

-- Whether the node's program adds rows to `changes`. While a live node does not, the others compare their open
-- documents with the store.
ALTER TABLE nodes ADD COLUMN records_changes boolean NOT NULL DEFAULT false;

-- One row. Rows of `changes` that are visible in the snapshot `trimmed` may have been deleted.
CREATE UNLOGGED TABLE change_feed (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),     -- new after each loss of the tables
  trimmed pg_snapshot NOT NULL DEFAULT '1:1:'
) WITH (fillfactor = 20);
