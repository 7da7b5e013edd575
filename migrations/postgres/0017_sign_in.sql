-- Passkeys of people, and what was begun at signing in and is not done.

CREATE TABLE passkeys (
    id            UUID PRIMARY KEY,
    principal_id  UUID NOT NULL REFERENCES principals (id),
    credential_id BYTEA NOT NULL UNIQUE,          -- what its authenticator calls it
    name          TEXT NOT NULL,                  -- what its person calls it
    credential    TEXT NOT NULL,                  -- JSON: public key, counter, flags
    created_at    TIMESTAMPTZ NOT NULL,
    last_used_at  TIMESTAMPTZ
);
CREATE INDEX passkeys_by_principal ON passkeys (principal_id);

-- What a browser must answer. A row is taken by the answer, right or wrong, or goes with the time.
CREATE TABLE sign_in_challenges (
    token_hash   BYTEA PRIMARY KEY,               -- SHA-256 of what the browser holds
    purpose      TEXT NOT NULL,
    principal_id UUID REFERENCES principals (id), -- who adds a passkey; nobody at signing in
    state        TEXT NOT NULL,                   -- JSON: what the answer is compared with
    created_at   TIMESTAMPTZ NOT NULL,
    not_after    TIMESTAMPTZ NOT NULL             -- the first instant at which no answer is taken
);
CREATE INDEX sign_in_challenges_by_age ON sign_in_challenges (created_at);
CREATE INDEX sign_in_challenges_by_principal ON sign_in_challenges (principal_id);

-- Who people are at an identity provider, as an admin said.
CREATE TABLE identities (
    principal_id UUID PRIMARY KEY REFERENCES principals (id),
    issuer       TEXT NOT NULL,                   -- to the letter
    subject      TEXT NOT NULL,                   -- the provider's own word for the person
    created_at   TIMESTAMPTZ NOT NULL,
    UNIQUE (issuer, subject)
);
