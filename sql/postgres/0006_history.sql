-- Which history of the logs this database holds. A database that went back in time (a backup was restored, a failover
-- lost commits) gets a new history: clients and nodes that hold revisions of the one before are told so, instead of being
-- resumed.
CREATE TABLE history (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  generation bigint NOT NULL,               -- how often it was renewed
  id bytea NOT NULL,                        -- 16 random bytes, drawn at each renewal
  place text NOT NULL DEFAULT ''            -- the server, timeline and tables that nodes last compared it with
);
INSERT INTO history (generation, id) VALUES (0, uuid_send(gen_random_uuid()));
