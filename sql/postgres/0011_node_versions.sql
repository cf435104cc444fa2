-- The versions that each node supports. A row of an older node has the defaults: wire version 1, no capability.
ALTER TABLE nodes
  ADD COLUMN wire_oldest smallint NOT NULL DEFAULT 1,   -- the oldest wire version that the node decodes
  ADD COLUMN wire_newest smallint NOT NULL DEFAULT 1,   -- and the newest
  ADD COLUMN capabilities bigint NOT NULL DEFAULT 0,    -- bits, as `Capabilities` in src/version.rs
  ADD COLUMN program text NOT NULL DEFAULT '',          -- the program's version, for operators
  ADD COLUMN schema integer NOT NULL DEFAULT 10;        -- the newest version of these tables that the program knows
