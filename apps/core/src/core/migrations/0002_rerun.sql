-- Reruns of the scorer: what each has done, so that an interrupted one goes on and several hosts share one range.

CREATE TABLE rerun (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parameters json NOT NULL,
    parameters_digest text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    objects bigint,
    measurements bigint
);
COMMENT ON TABLE rerun IS 'One row per rerun; an unfinished one is continued by the same command.';
CREATE UNIQUE INDEX rerun_unfinished ON rerun (parameters_digest) WHERE finished_at IS NULL;

CREATE TABLE rerun_day (
    run_id bigint NOT NULL REFERENCES rerun ON DELETE CASCADE,
    day date NOT NULL,
    objects bigint NOT NULL,
    bytes bigint NOT NULL,
    bytes_done bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, day)
);
COMMENT ON TABLE rerun_day IS 'The days of a rerun whose objects are listed in rerun_progress.';

CREATE TABLE rerun_progress (
    run_id bigint NOT NULL REFERENCES rerun ON DELETE CASCADE,
    day date NOT NULL,
    object_key text NOT NULL,
    kind text NOT NULL,
    bytes bigint NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'claimed', 'done', 'failed')),
    owner integer,
    measurements bigint NOT NULL DEFAULT 0,
    error text,
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, object_key)
);
COMMENT ON TABLE rerun_progress IS 'The objects of unfinished reruns; those of finished ones are deleted.';
COMMENT ON COLUMN rerun_progress.owner IS
    'The process at work on it, which holds the advisory lock of that number for as long as it lives.';
CREATE INDEX rerun_progress_open ON rerun_progress (run_id, day, object_key) WHERE state = 'pending';
CREATE INDEX rerun_progress_claimed ON rerun_progress (run_id, owner) WHERE state IN ('claimed', 'failed');

-- Numbers of processes; an advisory lock takes 32 bits.
CREATE SEQUENCE rerun_owner AS integer CYCLE;

-- All lines of an object at once, for reruns and for whoever removes an object.
CREATE INDEX jsonl_s3path ON jsonl (s3path);
