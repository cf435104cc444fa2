-- How many sockets a node has: nodes with clearly more than the others send some to them. Null: the node's version does not
-- say so.
ALTER TABLE nodes ADD COLUMN sockets bigint;
