-- Service principals: programs that log in with an id and a secret, and what each may do where.
CREATE TABLE accounts (
    client_id uuid PRIMARY KEY,
    name text NOT NULL,
    secret_hash text NOT NULL,          -- scrypt, with its salt
    created_at timestamptz NOT NULL,
    secret_at timestamptz NOT NULL      -- when the secret was made
);

CREATE TABLE account_roles (
    client_id uuid NOT NULL REFERENCES accounts ON DELETE CASCADE,
    role text NOT NULL,                 -- reader, operator, owner
    scope text NOT NULL,                -- an ARM id in lower case, or '/'
    PRIMARY KEY (client_id, role, scope)
);

-- Keys that sign tokens; a new one takes over while what the last one signed is still valid.
CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    sealed_private_key text NOT NULL,   -- with ROLLCALL_SECRETS_KEY
    public_key text NOT NULL,           -- PEM
    created_at timestamptz NOT NULL
);
