-- People who sign in, what ends their sessions, and what they did. No e-mail address is in any table: an account is known
-- by a keyed hash of it (column account_id everywhere).

CREATE TABLE accounts (
    account_id text PRIMARY KEY CHECK (account_id ~ '^[0-9a-f]{32}$'),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    session_generation integer NOT NULL DEFAULT 0,
    links_valid_from timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE accounts IS 'Who signed in at least once, or was given a role.';
COMMENT ON COLUMN accounts.session_generation IS
    'Sessions carry the number that was current when they began; raising it ends all of them.';
COMMENT ON COLUMN accounts.links_valid_from IS 'Login links made before this moment do not work any more.';

CREATE TABLE ended_sessions (
    session_id text PRIMARY KEY,
    account_id text NOT NULL,
    forget_at timestamptz NOT NULL
);
COMMENT ON TABLE ended_sessions IS 'Sessions that were logged out of; forgotten when their tokens would have expired.';

CREATE TABLE used_login_links (
    link_id text PRIMARY KEY,
    used_at timestamptz NOT NULL DEFAULT now(),
    forget_at timestamptz NOT NULL
);
COMMENT ON TABLE used_login_links IS 'Login links that somebody followed; forgotten when they would have expired.';

CREATE TABLE login_mails (
    account_id text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE login_mails IS 'When links were mailed lately, so that nobody is flooded with them.';
CREATE INDEX login_mails_account ON login_mails (account_id, sent_at);
CREATE INDEX login_mails_sent ON login_mails (sent_at);
CREATE INDEX ended_sessions_forget ON ended_sessions (forget_at);
CREATE INDEX used_login_links_forget ON used_login_links (forget_at);

CREATE TABLE access_tokens (
    token_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    scope text NOT NULL CHECK (scope IN ('read', 'write')),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_on date
);
COMMENT ON TABLE access_tokens IS 'Tokens of programs that work for an account, as SHA-256 of the token.';
CREATE INDEX access_tokens_account ON access_tokens (account_id);

CREATE TABLE audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    account_id text NOT NULL,
    role text NOT NULL,
    via text NOT NULL CHECK (via IN ('session', 'token', 'command')),
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE audit_log IS 'Every write by a person, in the transaction of that write.';
COMMENT ON COLUMN audit_log.action IS 'What was done, as noun.verb: incident.publish.';
COMMENT ON COLUMN audit_log.subject IS 'Identifier of what it was done to.';
CREATE INDEX audit_log_account ON audit_log (account_id, audit_id);
CREATE INDEX audit_log_subject ON audit_log (subject, audit_id);
