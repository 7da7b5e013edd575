-- People, targets, grants, sessions, recordings, events. JSON is kept as text: the program reads it, SQL does not.

CREATE TABLE principals (
    id            BLOB PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    organisation  TEXT,
    roles         TEXT NOT NULL,                 -- comma-separated, never empty
    password_hash TEXT,                          -- argon2id, PHC string
    created_at    TEXT NOT NULL,
    disabled_at   TEXT,
    CHECK (roles <> '')
);

CREATE TABLE principal_keys (
    fingerprint  TEXT PRIMARY KEY,               -- SHA256:…; a key belongs to one person
    principal_id BLOB NOT NULL REFERENCES principals (id),
    public_key   TEXT NOT NULL,                  -- algorithm and base64
    comment      TEXT NOT NULL,
    added_at     TEXT NOT NULL,
    last_used_at TEXT
);
CREATE INDEX principal_keys_by_principal ON principal_keys (principal_id);

-- Second factors: codes that change with time (RFC 6238).
CREATE TABLE second_factors (
    principal_id  BLOB PRIMARY KEY REFERENCES principals (id),
    sealed        BLOB NOT NULL,                 -- the shared secret, sealed with the master key
    created_at    TEXT NOT NULL,
    confirmed_at  TEXT,                          -- a first code was shown; only from then on it counts
    last_step     INTEGER,                       -- the time step of the last code that was taken: none up to it is taken again
    failures      INTEGER NOT NULL DEFAULT 0,    -- tries since failing_since that did not succeed
    failing_since TEXT,
    locked_until  TEXT                           -- no code is looked at until then
);

CREATE TABLE recovery_codes (
    principal_id BLOB NOT NULL REFERENCES principals (id),
    code_hash    BLOB NOT NULL,                 -- SHA-256; a code has 80 random bits
    used_at      TEXT,
    PRIMARY KEY (principal_id, code_hash)
);

CREATE TABLE api_tokens (
    id           BLOB PRIMARY KEY,
    principal_id BLOB NOT NULL REFERENCES principals (id),
    label        TEXT NOT NULL,
    token_hash   BLOB NOT NULL UNIQUE,          -- SHA-256 of the token
    created_at   TEXT NOT NULL,
    not_after    TEXT,
    last_used_at TEXT,
    revoked_at   TEXT
);

CREATE TABLE targets (
    id          BLOB PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    address     TEXT NOT NULL,
    jump_id     BLOB REFERENCES targets (id),
    logins      TEXT NOT NULL,                   -- JSON: [{"login":…,"credential":…}]
    labels      TEXT NOT NULL,                   -- JSON object
    host_keys   TEXT NOT NULL,                   -- JSON: [{"trust":…,"public_key":…}]
    created_at  TEXT NOT NULL,
    disabled_at TEXT
);

-- Every name and alias of every target, so that none belongs to two.
CREATE TABLE target_names (
    name      TEXT PRIMARY KEY,
    target_id BLOB NOT NULL REFERENCES targets (id),
    is_alias  BOOLEAN NOT NULL
);
CREATE INDEX target_names_by_target ON target_names (target_id);

-- Secrets that the bastion logs in with, sealed with the master key.
CREATE TABLE target_secrets (
    target_id BLOB NOT NULL REFERENCES targets (id),
    login     TEXT NOT NULL,
    sealed    BLOB NOT NULL,
    set_at    TEXT NOT NULL,
    PRIMARY KEY (target_id, login)
);

CREATE TABLE grants (
    id            BLOB PRIMARY KEY,
    terms         TEXT NOT NULL,                 -- JSON: targets, logins, capabilities, networks, sessions
    not_before    TEXT NOT NULL,
    not_after     TEXT NOT NULL,
    reason        TEXT NOT NULL,
    ticket        TEXT,
    created_by    BLOB REFERENCES principals (id),
    created_at    TEXT NOT NULL,
    revoked_at    TEXT,
    revoked_by    BLOB REFERENCES principals (id),
    revoke_reason TEXT,
    CHECK (not_before < not_after),
    CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
);
CREATE INDEX grants_by_end ON grants (not_after);

CREATE TABLE grant_people (
    grant_id     BLOB NOT NULL REFERENCES grants (id),
    principal_id BLOB NOT NULL REFERENCES principals (id),
    PRIMARY KEY (grant_id, principal_id)
);
CREATE INDEX grant_people_by_principal ON grant_people (principal_id);

CREATE TABLE access_requests (
    id           BLOB PRIMARY KEY,
    principal_id BLOB NOT NULL REFERENCES principals (id),
    wish         TEXT NOT NULL,                  -- JSON: access to what, or more time on which grant
    reason       TEXT NOT NULL,
    ticket       TEXT,
    created_at   TEXT NOT NULL,
    expires_at   TEXT NOT NULL,
    state        TEXT NOT NULL,                  -- open, approved, denied, withdrawn, expired
    answer       TEXT,                           -- JSON: the state with what belongs to it; none while it is open
    CHECK (created_at < expires_at),
    CHECK ((state = 'open') = (answer IS NULL))
);
CREATE INDEX access_requests_by_principal ON access_requests (principal_id, created_at);
CREATE INDEX access_requests_open ON access_requests (expires_at) WHERE state = 'open';

-- One row. Its number grows with every change that could turn a yes into a no; live sessions watch it.
CREATE TABLE policy_version (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);
INSERT INTO policy_version (id, version) VALUES (1, 0);

-- Keys that the bastion signs with, sealed with the master key: host keys, user CA, host CA.
CREATE TABLE bastion_keys (
    id         BLOB PRIMARY KEY,
    purpose    TEXT NOT NULL,                    -- host_key, user_ca, host_ca, target_keys
    public_key TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at TEXT NOT NULL,
    retired_at TEXT
);
-- Two nodes that start at once on an empty database must agree on one key of each purpose.
CREATE UNIQUE INDEX bastion_keys_in_use ON bastion_keys (purpose) WHERE retired_at IS NULL;

CREATE TABLE sessions (
    id             BLOB PRIMARY KEY,
    principal_id   BLOB NOT NULL REFERENCES principals (id),
    principal_name TEXT NOT NULL,                -- as it was
    target_id      BLOB NOT NULL REFERENCES targets (id),
    target_name    TEXT NOT NULL,                -- as it was
    login          TEXT NOT NULL,
    grant_id       BLOB NOT NULL REFERENCES grants (id),
    terms          TEXT NOT NULL,                -- JSON: the grant's terms as they stood
    node           TEXT NOT NULL,                -- which node serves it
    client_address TEXT NOT NULL,
    client_version TEXT NOT NULL,
    started_at     TEXT NOT NULL,
    ended_at       TEXT,
    ending         TEXT,                         -- JSON: how it ended
    cut_requested  TEXT,                         -- JSON: an admin wants it cut, on whichever node it is
    CHECK ((ended_at IS NULL) = (ending IS NULL))
);
CREATE INDEX sessions_live ON sessions (node) WHERE ended_at IS NULL;
CREATE INDEX sessions_live_by_grant ON sessions (grant_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_start ON sessions (started_at, id);

CREATE TABLE recordings (
    id          BLOB PRIMARY KEY,
    session_id  BLOB NOT NULL REFERENCES sessions (id),
    channel     INTEGER NOT NULL,                -- counts the session's channels from 1
    program     TEXT NOT NULL,                   -- JSON: shell, exec with its command, subsystem with its name
    term        TEXT,                            -- TERM, if there was a terminal
    cols        INTEGER,
    rows        INTEGER,
    started_at  TEXT NOT NULL,
    ended_at    TEXT,
    duration_us INTEGER NOT NULL DEFAULT 0,
    segments    INTEGER NOT NULL DEFAULT 0,
    chain       BLOB NOT NULL,                  -- the head of the hash chain
    bytes_in    INTEGER NOT NULL DEFAULT 0,
    bytes_out   INTEGER NOT NULL DEFAULT 0,       -- stdout and stderr
    gaps        INTEGER NOT NULL DEFAULT 0,
    exit        TEXT,                            -- JSON: status or signal
    resume      TEXT,                            -- JSON: where the journal is sealed up to, for a restart
    UNIQUE (session_id, channel)
);

CREATE TABLE segments (
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    number       INTEGER NOT NULL,               -- from 0
    start_us     INTEGER NOT NULL,
    end_us       INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,                -- before compression
    stored_bytes INTEGER NOT NULL,
    sha256       BLOB NOT NULL,                 -- of the stored bytes
    chain        BLOB NOT NULL,
    object       TEXT NOT NULL,                  -- the key in the object store
    PRIMARY KEY (recording_id, number)
);

-- The tail of a live recording that no segment holds yet: frames, masked, in runs of at most a second.
CREATE TABLE live_tail (
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    number       INTEGER NOT NULL,                -- counts runs over the whole recording, from 0
    segment      INTEGER NOT NULL,               -- the segment that these frames will be in
    frames       BLOB NOT NULL,
    PRIMARY KEY (recording_id, number)
);

CREATE TABLE events (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB NOT NULL UNIQUE,
    at         TEXT NOT NULL,
    actor      TEXT NOT NULL,                    -- JSON
    act        TEXT NOT NULL,                    -- JSON
    kind       TEXT NOT NULL,                    -- the act's name, for filters
    session_id BLOB                              -- for filters
);
CREATE INDEX events_by_session ON events (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX events_by_kind ON events (kind, seq);
