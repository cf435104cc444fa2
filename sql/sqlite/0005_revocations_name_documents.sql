-- A revocation names the document that it is about, so that a socket looks only that document's rights up anew. NULL: it
-- may be about every document. Nodes of an earlier version write NULL, and look everything up.
ALTER TABLE revocations ADD COLUMN collection TEXT;
ALTER TABLE revocations ADD COLUMN doc TEXT;
