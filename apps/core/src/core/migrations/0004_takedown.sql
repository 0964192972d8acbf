-- Takedowns: what was removed, why and when; nothing of its content.

CREATE TABLE takedown_audit (
    takedown_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    report_id text NOT NULL,
    measurement_uids text[] NOT NULL,
    reason text NOT NULL,
    host text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE takedown_audit IS 'One row per takedown; an unfinished one is continued by the same command.';
COMMENT ON COLUMN takedown_audit.report_id IS 'The report that was taken down; empty when it was a single measurement.';
COMMENT ON COLUMN takedown_audit.host IS 'Where the command ran; the spools of other hosts are not its business.';

-- Finds measurements of a report that never got a row in fastpath.
CREATE INDEX jsonl_report_id ON jsonl (left(report_id, 200));
