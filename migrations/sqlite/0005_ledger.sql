-- The ledger: events get a place in a Merkle tree, for ever. What is written here is never changed, so the triggers below
-- refuse it.

ALTER TABLE events ADD COLUMN entry BLOB;       -- the canonical bytes that are hashed; none for events before this version

-- Events that have no place yet. Filled by a trigger, so that a node of the version before fills it too.
CREATE TABLE ledger_pending (
    seq INTEGER PRIMARY KEY                       -- events.seq
);
INSERT INTO ledger_pending (seq) SELECT seq FROM events;

CREATE TABLE ledger_order (
    idx  INTEGER PRIMARY KEY,                     -- the event's place, from 0, without gaps
    seq  INTEGER NOT NULL UNIQUE,                 -- events.seq
    leaf BLOB NOT NULL,                         -- SHA-256(0x00 || entry)
    CHECK (idx >= 0 AND length(leaf) = 32)
);

-- Full tiles only (C2SP tlog-tiles): what is at the right edge is in ledger_order and in the roots of the level below.
CREATE TABLE ledger_tiles (
    level  INTEGER NOT NULL,
    idx    INTEGER NOT NULL,
    hashes BLOB NOT NULL,                       -- 256 of 32 bytes
    root   BLOB NOT NULL,                       -- the one hash above them
    PRIMARY KEY (level, idx),
    CHECK (length(hashes) = 8192 AND length(root) = 32)
);

CREATE TABLE ledger_checkpoints (
    size INTEGER PRIMARY KEY,                     -- how many events it stands for
    note TEXT NOT NULL,                          -- C2SP signed note
    at   TEXT NOT NULL
);

CREATE TABLE ledger_keys (
    id         BLOB PRIMARY KEY,
    slot       INTEGER NOT NULL DEFAULT 1 CHECK (slot = 1),
    name       TEXT NOT NULL,                    -- the ledger's name, its origin
    vkey       TEXT NOT NULL,                    -- the public key
    sealed     BLOB NOT NULL,                   -- the private key, sealed with the master key
    created_at TEXT NOT NULL,
    retired_at TEXT,
    last_size  INTEGER,                           -- the largest tree that a retired key may have signed
    CHECK ((retired_at IS NULL) = (last_size IS NULL))
);
-- Two nodes that start at once on an empty database must agree on one.
CREATE UNIQUE INDEX ledger_keys_in_use ON ledger_keys (slot) WHERE retired_at IS NULL;

-- A copy that was put back on purpose: anchors up to a size are no more what this database holds.
CREATE TABLE ledger_rollbacks (
    size     INTEGER NOT NULL,                    -- what was there when it was accepted
    anchored INTEGER NOT NULL,                    -- what the newest anchor said
    at       TEXT NOT NULL
);

CREATE TRIGGER events_pend AFTER INSERT ON events BEGIN
    INSERT INTO ledger_pending (seq) VALUES (NEW.seq);
END;

CREATE TRIGGER events_stay_update BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'rows of events are never changed or removed');
END;
CREATE TRIGGER events_stay_delete BEFORE DELETE ON events BEGIN
    SELECT RAISE(ABORT, 'rows of events are never changed or removed');
END;
CREATE TRIGGER ledger_order_stay_update BEFORE UPDATE ON ledger_order BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_order are never changed or removed');
END;
CREATE TRIGGER ledger_order_stay_delete BEFORE DELETE ON ledger_order BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_order are never changed or removed');
END;
CREATE TRIGGER ledger_tiles_stay_update BEFORE UPDATE ON ledger_tiles BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_tiles are never changed or removed');
END;
CREATE TRIGGER ledger_tiles_stay_delete BEFORE DELETE ON ledger_tiles BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_tiles are never changed or removed');
END;
CREATE TRIGGER ledger_checkpoints_stay_update BEFORE UPDATE ON ledger_checkpoints BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_checkpoints are never changed or removed');
END;
CREATE TRIGGER ledger_checkpoints_stay_delete BEFORE DELETE ON ledger_checkpoints BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_checkpoints are never changed or removed');
END;
CREATE TRIGGER ledger_rollbacks_stay_update BEFORE UPDATE ON ledger_rollbacks BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_rollbacks are never changed or removed');
END;
CREATE TRIGGER ledger_rollbacks_stay_delete BEFORE DELETE ON ledger_rollbacks BEGIN
    SELECT RAISE(ABORT, 'rows of ledger_rollbacks are never changed or removed');
END;
