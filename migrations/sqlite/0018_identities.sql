-- Who people are at an identity provider, as an admin said.

CREATE TABLE identities (
    principal_id BLOB PRIMARY KEY REFERENCES principals (id),
    issuer       TEXT NOT NULL,                   -- to the letter
    subject      TEXT NOT NULL,                   -- the provider's own word for the person
    created_at   TEXT NOT NULL,
    UNIQUE (issuer, subject)
);
