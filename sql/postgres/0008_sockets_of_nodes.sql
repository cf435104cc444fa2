-- The number of sockets of a node: nodes with clearly more than the others send some of them away. NULL for a node of
-- an older version.
ALTER TABLE nodes ADD COLUMN sockets bigint;
