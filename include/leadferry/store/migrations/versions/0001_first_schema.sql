-- The first schema of the lead store. What it must hold by itself, whatever the code does:
--   I1  delivery_lead (lead_id, batch_no, live_copy): a lead is in one live delivery of a batch
--   I2  settle_adds_up: a delivery is settled only when its counts add up
--   I3  never_changes on file
--   I4  confirmed_has_receipt on dispatch
--   I8  never_changes on audit
-- and every change of state is one of state_move.

CREATE TYPE delivery_state AS ENUM ('claimed', 'rendered', 'delivered', 'partial', 'held', 'failed', 'skipped');
CREATE TYPE lead_outcome AS ENUM ('included', 'withheld', 'rejected', 'released');
CREATE TYPE dispatch_state AS ENUM ('ready', 'sending', 'confirmed', 'failed', 'unknown');

CREATE TABLE lead_import (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow text NOT NULL,
    file_name text NOT NULL,
    sha256 text NOT NULL,
    rows integer NOT NULL,
    rejected integer NOT NULL,
    duplicates integer NOT NULL DEFAULT 0,
    imported_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (flow, sha256)
);

CREATE TABLE lead (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow text NOT NULL CHECK (flow <> ''),
    external_id text,
    received_at timestamptz NOT NULL DEFAULT now(),
    fields jsonb NOT NULL CHECK (jsonb_typeof(fields) = 'object'),
    import_id bigint REFERENCES lead_import
);
CREATE UNIQUE INDEX lead_external_id ON lead (flow, external_id) WHERE external_id IS NOT NULL;

CREATE TABLE arrival (
    lead_id bigint NOT NULL,
    flow text NOT NULL,
    received_at timestamptz NOT NULL
);

CREATE TABLE batch (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    last_number integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE subscription (
    batch_no integer NOT NULL REFERENCES batch,
    flow text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_no, flow)
);

-- No foreign key to lead: a check per row would double the price of routing; leads are never deleted (below).
CREATE TABLE pending (
    batch_no integer NOT NULL REFERENCES batch,
    lead_id bigint NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (batch_no, lead_id)
);
CREATE INDEX pending_order ON pending (batch_no, received_at, lead_id);
-- Rows come and go all the time; vacuum early, so that the claim never wades through dead ones.
ALTER TABLE pending SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE arrival SET (autovacuum_vacuum_scale_factor = 0.02);

CREATE TABLE batch_config (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_no integer NOT NULL REFERENCES batch,
    sha256 text NOT NULL,
    config jsonb NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (batch_no, sha256)
);

CREATE TABLE delivery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_no integer NOT NULL REFERENCES batch,
    config_id bigint NOT NULL REFERENCES batch_config,
    number integer,
    run_id text NOT NULL,
    state delivery_state NOT NULL,
    reason text,
    departs_at timestamptz NOT NULL,
    window_from timestamptz,
    window_to timestamptz NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    lease_until timestamptz NOT NULL,
    included integer NOT NULL DEFAULT 0,
    withheld integer NOT NULL DEFAULT 0,
    keeps_queue boolean NOT NULL DEFAULT false,
    params jsonb NOT NULL DEFAULT '{}',
    UNIQUE (batch_no, number)
);
-- A retried task finds its delivery again; a run that is cleared after its delivery failed makes a new one.
CREATE UNIQUE INDEX delivery_of_run ON delivery (batch_no, run_id) WHERE state NOT IN ('failed', 'skipped');
CREATE INDEX delivery_open ON delivery (lease_until) WHERE state IN ('claimed', 'rendered');

CREATE TABLE delivery_lead (
    delivery_id bigint NOT NULL REFERENCES delivery,
    position integer NOT NULL,
    lead_id bigint NOT NULL,
    batch_no integer NOT NULL,
    live_copy smallint,
    outcome lead_outcome NOT NULL,
    reason text,
    PRIMARY KEY (delivery_id, position),
    UNIQUE (lead_id, batch_no, live_copy),
    CHECK (live_copy IS NULL OR outcome = 'included'),
    CHECK (outcome <> 'withheld' OR reason IS NOT NULL)
);

CREATE TABLE file (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery,
    key text NOT NULL,
    part integer NOT NULL DEFAULT 1,
    name text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    rows integer NOT NULL,
    media_type text NOT NULL,
    archive_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (delivery_id, key, part)
);

CREATE TABLE dispatch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery,
    file_id bigint NOT NULL REFERENCES file,
    destination text NOT NULL,
    addressee text NOT NULL DEFAULT '',
    parcel_key text NOT NULL,
    state dispatch_state NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    receipt jsonb,
    error_code text,
    error text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (file_id, destination, addressee),
    CONSTRAINT confirmed_has_receipt CHECK ((state = 'confirmed') = (receipt IS NOT NULL))
);
CREATE INDEX ix_dispatch_delivery_id ON dispatch (delivery_id);

CREATE TABLE attempt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dispatch_id bigint NOT NULL REFERENCES dispatch,
    number integer NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    outcome dispatch_state,
    error_code text,
    error text,
    UNIQUE (dispatch_id, number)
);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE state_move (
    thing text NOT NULL,
    source text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (thing, source, target)
);
INSERT INTO state_move VALUES
    ('delivery', 'claimed', 'rendered'), ('delivery', 'claimed', 'failed'),
    ('delivery', 'rendered', 'delivered'), ('delivery', 'rendered', 'partial'),
    ('delivery', 'rendered', 'held'), ('delivery', 'rendered', 'failed'),
    ('delivery', 'held', 'delivered'), ('delivery', 'held', 'partial'), ('delivery', 'held', 'failed'),
    ('delivery', 'partial', 'delivered'),
    ('delivery_lead', 'included', 'withheld'), ('delivery_lead', 'included', 'rejected'),
    ('delivery_lead', 'included', 'released'),
    ('dispatch', 'ready', 'sending'),
    ('dispatch', 'sending', 'confirmed'), ('dispatch', 'sending', 'failed'),
    ('dispatch', 'sending', 'unknown'), ('dispatch', 'sending', 'ready'),
    ('dispatch', 'failed', 'sending'),
    ('dispatch', 'unknown', 'confirmed'), ('dispatch', 'unknown', 'failed');

-- Every inserted lead is offered to the queues, whoever inserted it and by whichever client: set by set, not row by row.
CREATE FUNCTION offer_new_leads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO arrival SELECT id, flow, received_at FROM new_leads;
    RETURN NULL;
END $$;
CREATE TRIGGER offer_new_leads AFTER INSERT ON lead
    REFERENCING NEW TABLE AS new_leads FOR EACH STATEMENT EXECUTE FUNCTION offer_new_leads();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'leadferry: rows of % are never %', TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'LF001';
END $$;
CREATE TRIGGER never_deleted BEFORE DELETE ON lead FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_moved BEFORE UPDATE OF id, flow, received_at ON lead
    FOR EACH ROW WHEN (OLD.id <> NEW.id OR OLD.flow <> NEW.flow OR OLD.received_at <> NEW.received_at)
    EXECUTE FUNCTION refuse_change('given another id, flow or time');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON file FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON batch_config
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');

CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM state_move
                   WHERE thing = TG_TABLE_NAME AND source = OLD.state::text AND target = NEW.state::text) THEN
        RAISE EXCEPTION 'leadferry: a % does not go from % to %', TG_TABLE_NAME, OLD.state, NEW.state
            USING ERRCODE = 'LF002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER allowed_move BEFORE UPDATE OF state ON delivery
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION refuse_move();
CREATE TRIGGER allowed_move BEFORE UPDATE OF state ON dispatch
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION refuse_move();

-- Statement by statement: giving back a million leads must not call a function a million times.
CREATE FUNCTION refuse_outcome_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM old_rows o JOIN new_rows n USING (delivery_id, position)
               WHERE o.outcome <> n.outcome
                 AND NOT EXISTS (SELECT FROM state_move WHERE thing = 'delivery_lead'
                                 AND source = o.outcome::text AND target = n.outcome::text)) THEN
        RAISE EXCEPTION 'leadferry: a lead''s outcome was about to change in a way that is not allowed'
            USING ERRCODE = 'LF002';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER allowed_move AFTER UPDATE ON delivery_lead
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_outcome_move();

CREATE FUNCTION settle_adds_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    included_leads bigint;
BEGIN
    SELECT count(*) INTO included_leads FROM delivery_lead WHERE delivery_id = NEW.id AND outcome = 'included';
    IF included_leads <> NEW.included THEN
        RAISE EXCEPTION 'leadferry: delivery % counts % leads but holds %', NEW.id, NEW.included, included_leads
            USING ERRCODE = 'LF003';
    END IF;
    IF EXISTS (SELECT FROM file WHERE delivery_id = NEW.id GROUP BY key HAVING sum(rows) <> included_leads)
       OR NOT EXISTS (SELECT FROM dispatch WHERE delivery_id = NEW.id AND state = 'confirmed') THEN
        RAISE EXCEPTION 'leadferry: delivery % has % leads, which its files or receipts do not add up to',
            NEW.id, included_leads USING ERRCODE = 'LF003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER settle_adds_up BEFORE UPDATE OF state ON delivery
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state IN ('delivered', 'partial'))
    EXECUTE FUNCTION settle_adds_up();
