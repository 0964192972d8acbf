-- What people want changed in the test lists, until the maintainers of the lists have taken it or refused it.

CREATE TABLE test_list_proposals (
    account_id text PRIMARY KEY REFERENCES accounts,
    state text NOT NULL DEFAULT 'CLEAN' CHECK (state IN ('CLEAN', 'IN_PROGRESS', 'PR_OPEN')),
    branch text CHECK (octet_length(branch) <= 100),
    proposal_id text CHECK (octet_length(proposal_id) <= 2000),
    page_url text CHECK (octet_length(page_url) <= 2000),
    attempt integer NOT NULL DEFAULT 0,
    submitting_until timestamptz NOT NULL DEFAULT '-infinity',
    looked_at timestamptz NOT NULL DEFAULT '-infinity',
    CHECK (state <> 'PR_OPEN' OR (branch IS NOT NULL AND proposal_id IS NOT NULL))
);
COMMENT ON TABLE test_list_proposals IS 'One line per account that ever changed a test list; locked while its changes are worked on.';
COMMENT ON COLUMN test_list_proposals.branch IS 'Where the changes are, or may be, in the repository of the proposals.';
COMMENT ON COLUMN test_list_proposals.proposal_id IS 'Address of the pull request; the branch where there is no forge.';
COMMENT ON COLUMN test_list_proposals.attempt IS 'Raised by each submission and withdrawal, so that one that was given up does not end a later one.';
COMMENT ON COLUMN test_list_proposals.submitting_until IS 'A submission or withdrawal is under way until then, unless it was cut off.';
COMMENT ON COLUMN test_list_proposals.looked_at IS 'When it was last looked whether the proposal is still open.';

CREATE TABLE test_list_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL REFERENCES test_list_proposals,
    position integer NOT NULL,
    cc text NOT NULL CHECK (cc ~ '^([a-z]{2}|global)$'),
    action text NOT NULL CHECK (action IN ('add', 'delete', 'edit')),
    old_entry jsonb,
    new_entry jsonb,
    comment text NOT NULL DEFAULT '' CHECK (char_length(comment) <= 1000),
    base_commit text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((old_entry IS NULL) = (action = 'add')),
    CHECK ((new_entry IS NULL) = (action = 'delete')),
    UNIQUE (account_id, position)
);
COMMENT ON TABLE test_list_changes IS 'Changes of an account to entries of the test lists that are not in the lists yet.';
COMMENT ON COLUMN test_list_changes.cc IS 'The list: a country in lower case, or global.';
COMMENT ON COLUMN test_list_changes.old_entry IS 'The entry as it was in the list: url, category_code, date_added, source, notes.';
COMMENT ON COLUMN test_list_changes.base_commit IS 'Commit of the lists that the change was made against.';
