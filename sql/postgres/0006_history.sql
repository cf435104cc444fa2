-- The history of the logs. A database that went back in time (a restored backup, a failover that lost commits) gets a
-- new one; clients and nodes with revisions of the previous history must reload.
CREATE TABLE history (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  generation bigint NOT NULL,               -- how often it was renewed
  id bytea NOT NULL,                        -- 16 random bytes, new with each renewal
  place text NOT NULL DEFAULT ''            -- the server, timeline and tables that nodes last compared it with
);
INSERT INTO history (generation, id) VALUES (0, uuid_send(gen_random_uuid()));
