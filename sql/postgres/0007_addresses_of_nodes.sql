-- The address for direct links to a node: HOST:PORT. NULL for a node without direct links or of an older version.
ALTER TABLE nodes ADD COLUMN address text;
