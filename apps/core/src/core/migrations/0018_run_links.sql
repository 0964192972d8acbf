-- Run links: sets of tests that somebody puts together for others to run. The routes of both generations work on these
-- tables, so that a link made with one is there for the other.

CREATE TABLE oonirun_links (
    link_id bigint GENERATED ALWAYS AS IDENTITY (START WITH 10000 MINVALUE 10000) PRIMARY KEY,
    creator_account_id text NOT NULL,
    created_at timestamptz(3) NOT NULL,
    expires_at timestamptz(3) NOT NULL
);
COMMENT ON COLUMN oonirun_links.expires_at IS
    'From then on the link is expired, which the older routes call archived. Links of the older routes: the year 9999.';
CREATE INDEX oonirun_links_creator ON oonirun_links (creator_account_id, link_id);

CREATE TABLE oonirun_revisions (
    link_id bigint NOT NULL REFERENCES oonirun_links,
    revision integer NOT NULL CHECK (revision > 0),
    content json NOT NULL,
    content_bytes integer NOT NULL,
    created_at timestamptz(3) NOT NULL,
    edited_at timestamptz(3) NOT NULL CHECK (edited_at >= created_at),
    PRIMARY KEY (link_id, revision),
    UNIQUE (link_id, created_at)
);
COMMENT ON COLUMN oonirun_revisions.content IS 'What the link says and runs, see run_link_fields of the API. No e-mail address.';
COMMENT ON COLUMN oonirun_revisions.content_bytes IS 'Size of content, so that lists can be bounded without reading it.';
COMMENT ON COLUMN oonirun_revisions.edited_at IS 'When the texts were last changed: translations make no revision.';
