-- Keys follow one another.

-- The signed word of the key before, for this one (docs/formats.md, "Key changes"); none for a ledger's first key.
ALTER TABLE ledger_keys ADD COLUMN change TEXT;

-- Master keys, by their ids (which say nothing about them). One seals; the one before it opens until all is sealed anew.
CREATE TABLE master_keys (
    id          TEXT PRIMARY KEY,                -- 16 hexadecimal digits
    slot        INTEGER NOT NULL DEFAULT 1 CHECK (slot = 1),
    since       TIMESTAMPTZ NOT NULL,
    replaced_at TIMESTAMPTZ,                            -- seals nothing from then on
    retired_at  TIMESTAMPTZ,                            -- nothing is sealed with it any more
    CHECK (retired_at IS NULL OR replaced_at IS NOT NULL)
);
CREATE UNIQUE INDEX master_keys_in_use ON master_keys (slot) WHERE replaced_at IS NULL;

-- Which nodes have which master keys: one that not all of them can open must not seal.
CREATE TABLE master_key_holders (
    node   TEXT NOT NULL,
    key_id TEXT NOT NULL,
    seals  BOOLEAN NOT NULL,                     -- the node seals with it
    at     TIMESTAMPTZ NOT NULL,                 -- when the node last said so
    PRIMARY KEY (node, key_id)
);

-- The key that the bastion logs in to a target with, on its way to another one. Both are kept until the old one is proved dead: the one
-- that is not here is in target_secrets.
CREATE TABLE credential_rotations (
    target_id  UUID NOT NULL REFERENCES targets (id),
    login      TEXT NOT NULL,
    switched   BOOLEAN NOT NULL DEFAULT FALSE,   -- `sealed` is the old key; before that, the new one
    sealed     BYTEA NOT NULL,
    file       TEXT NOT NULL,                    -- the account's authorized_keys
    begun_at   TIMESTAMPTZ NOT NULL,
    held_until TIMESTAMPTZ,                       -- somebody is at it until then
    PRIMARY KEY (target_id, login)
);

CREATE TABLE credential_schedules (
    target_id  UUID NOT NULL REFERENCES targets (id),
    login      TEXT NOT NULL,
    every_s    BIGINT NOT NULL CHECK (every_s > 0),
    file       TEXT NOT NULL,
    next_at    TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (target_id, login)
);

-- Authorities that are to be trusted, and do not sign yet; and until when those were to be trusted that do not sign any more.
CREATE TABLE bastion_keys_staged (
    purpose    TEXT PRIMARY KEY,
    id         UUID NOT NULL,
    public_key TEXT NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
ALTER TABLE bastion_keys ADD COLUMN withdrawn_at TIMESTAMPTZ;
