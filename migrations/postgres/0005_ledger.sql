-- The ledger: events get a place in a Merkle tree, for ever. What is written here is never changed, so the triggers below
-- refuse it, and the application's role needs no right to it (see docs/operate.md).

ALTER TABLE events ADD COLUMN entry BYTEA;       -- the canonical bytes that are hashed; none for events before this version

-- Events that have no place yet. Filled by a trigger, so that a node of the version before fills it too.
CREATE TABLE ledger_pending (
    seq BIGINT PRIMARY KEY                       -- events.seq
);
INSERT INTO ledger_pending (seq) SELECT seq FROM events;

CREATE TABLE ledger_order (
    idx  BIGINT PRIMARY KEY,                     -- the event's place, from 0, without gaps
    seq  BIGINT NOT NULL UNIQUE,                 -- events.seq
    leaf BYTEA NOT NULL,                         -- SHA-256(0x00 || entry)
    CHECK (idx >= 0 AND length(leaf) = 32)
);

-- Full tiles only (C2SP tlog-tiles): what is at the right edge is in ledger_order and in the roots of the level below.
CREATE TABLE ledger_tiles (
    level  INTEGER NOT NULL,
    idx    BIGINT NOT NULL,
    hashes BYTEA NOT NULL,                       -- 256 of 32 bytes
    root   BYTEA NOT NULL,                       -- the one hash above them
    PRIMARY KEY (level, idx),
    CHECK (length(hashes) = 8192 AND length(root) = 32)
);

CREATE TABLE ledger_checkpoints (
    size BIGINT PRIMARY KEY,                     -- how many events it stands for
    note TEXT NOT NULL,                          -- C2SP signed note
    at   TIMESTAMPTZ NOT NULL
);

CREATE TABLE ledger_keys (
    id         UUID PRIMARY KEY,
    slot       INTEGER NOT NULL DEFAULT 1 CHECK (slot = 1),
    name       TEXT NOT NULL,                    -- the ledger's name, its origin
    vkey       TEXT NOT NULL,                    -- the public key
    sealed     BYTEA NOT NULL,                   -- the private key, sealed with the master key
    created_at TIMESTAMPTZ NOT NULL,
    retired_at TIMESTAMPTZ,
    last_size  BIGINT,                           -- the largest tree that a retired key may have signed
    CHECK ((retired_at IS NULL) = (last_size IS NULL))
);
-- Two nodes that start at once on an empty database must agree on one.
CREATE UNIQUE INDEX ledger_keys_in_use ON ledger_keys (slot) WHERE retired_at IS NULL;

-- A copy that was put back on purpose: anchors up to a size are no more what this database holds.
CREATE TABLE ledger_rollbacks (
    size     BIGINT NOT NULL,                    -- what was there when it was accepted
    anchored BIGINT NOT NULL,                    -- what the newest anchor said
    at       TIMESTAMPTZ NOT NULL
);

CREATE FUNCTION ledger_pend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger_pending (seq) VALUES (NEW.seq);
    RETURN NULL;
END $$;
CREATE TRIGGER events_pend AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION ledger_pend();

CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_order_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_order
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_tiles_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_tiles
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_checkpoints_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
CREATE TRIGGER ledger_rollbacks_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_rollbacks
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();
