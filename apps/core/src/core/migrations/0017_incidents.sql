-- Findings that people write, which interfaces call incidents, and what people think of measurements. Their authors are
-- known by account, never by e-mail address. Moments are UTC.

CREATE TABLE incidents (
    incident_id bigint PRIMARY KEY CHECK (incident_id > 0),
    revision integer NOT NULL DEFAULT 1,
    creator_account_id text NOT NULL,
    create_time timestamp(0) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    update_time timestamp(0) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    published boolean NOT NULL DEFAULT false,
    deleted boolean NOT NULL DEFAULT false,
    slug text UNIQUE CHECK (slug ~ '^[a-z0-9-]{1,64}$' AND slug !~ '^[0-9]+$'),
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 300),
    short_description text NOT NULL DEFAULT '',
    body text NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 65536),
    event_type text NOT NULL DEFAULT '',
    reported_by text NOT NULL DEFAULT '',
    start_time timestamp(0) NOT NULL,
    end_time timestamp(0) CHECK (end_time >= start_time),
    ccs text[] NOT NULL DEFAULT '{}',
    asns bigint[] NOT NULL DEFAULT '{}',
    domains text[] NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    test_names text[] NOT NULL DEFAULT '{}',
    links text[] NOT NULL DEFAULT '{}',
    themes text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE incidents IS 'Findings. What is not published is seen by its author and by admins.';
COMMENT ON COLUMN incidents.revision IS 'Raised by each change, so that who edits an older one is told.';
COMMENT ON COLUMN incidents.update_time IS 'Later with each revision, by a second at least.';
COMMENT ON COLUMN incidents.deleted IS 'Shown to nobody any more; its slug stays taken.';
COMMENT ON COLUMN incidents.slug IS 'Name in links, beside the number.';
COMMENT ON COLUMN incidents.body IS 'Markdown as it was written; called text on the wire.';
CREATE INDEX incidents_creator ON incidents (creator_account_id);

CREATE TABLE msmt_feedback (
    measurement_uid text NOT NULL CHECK (char_length(measurement_uid) <= 100),
    account_id text NOT NULL,
    status text NOT NULL CHECK (status ~ '^[a-z_.]{1,60}$'),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (measurement_uid, account_id)
);
COMMENT ON TABLE msmt_feedback IS 'What signed-in people say that a measurement shows; one answer each, the last one.';
