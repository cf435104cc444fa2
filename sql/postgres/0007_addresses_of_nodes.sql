-- Where other nodes reach a node without a server in between: HOST:PORT. NULL for a node that has no direct links, and for
-- one of an older version.
ALTER TABLE nodes ADD COLUMN address text;
