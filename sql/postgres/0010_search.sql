-- Search of titles. The letters, pairs and triples of letters of each title are indexed, so that a text of any length
-- is found inside of words, in each language. No extension is needed.
CREATE TABLE titles (
  doc bigint PRIMARY KEY REFERENCES documents (number),
  collection text COLLATE "C" NOT NULL,
  folded bytea NOT NULL                     -- equal to `documents.title_folded`, if that is not empty
);

-- All sequences of `shortest` to `longest` letters of a text, hashed together with the collection. Empty for a text
-- that is not UTF-8 without NUL.
CREATE FUNCTION copydesk_grams(collection text, folded bytea, shortest integer, longest integer)
RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT coalesce(
    array_agg(DISTINCT hashtextextended(collection || E'\x01' || substr(letters.folded, at, size), 0)), '{}')
  FROM (SELECT convert_from(CASE WHEN position('\x00'::bytea IN $2) = 0 THEN $2 ELSE '' END, 'UTF8') AS folded) AS letters
  CROSS JOIN generate_series($3, $4) AS size
  CROSS JOIN LATERAL generate_series(1, char_length(letters.folded) - size + 1) AS at
$$;

-- Each search reads the pending list of the index, so it is kept short.
CREATE INDEX titles_grams ON titles USING gin (copydesk_grams(collection, folded, 1, 3)) WITH (gin_pending_list_limit = 256);

-- The documents of a collection with titles that may contain a text, at most `most`.
CREATE FUNCTION copydesk_titled(collection text, term bytea, most bigint)
RETURNS bigint[]
LANGUAGE sql STABLE
SET enable_bitmapscan = on
SET enable_seqscan = off
AS $$
  SELECT ARRAY(
    SELECT titles.doc
    FROM titles
    WHERE copydesk_grams(titles.collection, titles.folded, 1, 3) @> copydesk_grams(
      $1, $2, least(3, char_length(convert_from($2, 'UTF8'))), least(3, char_length(convert_from($2, 'UTF8'))))
    LIMIT $3)
$$;

-- Keeps `titles` consistent for each rename, also by nodes of an older version.
CREATE FUNCTION copydesk_title_changed()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF NEW.title_folded = '' THEN
    DELETE FROM titles WHERE doc = NEW.number;
  ELSE
    INSERT INTO titles (doc, collection, folded)
    VALUES (NEW.number, NEW.collection, NEW.title_folded)
    ON CONFLICT (doc) DO UPDATE SET folded = excluded.folded;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER documents_title AFTER UPDATE OF title_folded ON documents
FOR EACH ROW EXECUTE FUNCTION copydesk_title_changed();

-- The progress of indexing titles from before this table existed, which the nodes do in small steps. One row.
CREATE TABLE titles_progress (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  number bigint NOT NULL DEFAULT 0,         -- of the last document that was indexed
  is_complete boolean NOT NULL
);
INSERT INTO titles_progress (is_complete) SELECT NOT EXISTS (SELECT 1 FROM documents);
