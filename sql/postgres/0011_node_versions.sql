-- What each node understands. A row that an older node writes has the defaults: wire version 1, no capability.
ALTER TABLE nodes
  ADD COLUMN wire_oldest smallint NOT NULL DEFAULT 1,   -- the wire versions that the node decodes: from this one
  ADD COLUMN wire_newest smallint NOT NULL DEFAULT 1,   -- to this one
  ADD COLUMN capabilities bigint NOT NULL DEFAULT 0,    -- bits, as `Capabilities` in src/version.rs
  ADD COLUMN program text NOT NULL DEFAULT '',          -- the program's version, for operators
  ADD COLUMN schema integer NOT NULL DEFAULT 10;        -- the newest version of these tables that the program knows
