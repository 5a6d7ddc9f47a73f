-- The first schema of the lead store. What it must hold by itself, whatever the code does:
--   I1  queue_entry (lead_id, batch_no, copy): a lead stands once in a batch's queue, in one lot,
--       and a lot belongs to one delivery; goes_nowhere_twice: a redelivery takes no lead that is
--       elsewhere in this batch or, unless a person said so, at its destination
--   I2  settle_adds_up: a delivery is settled only when its counts add up
--   I3  never_changes on file
--   I4  confirmed_has_receipt and receipt_stays on dispatch, one_way on the destinations of a way
--   I8  never_changes on audit
-- and every change of state is one of state_move.

CREATE TYPE delivery_state AS ENUM ('claimed', 'rendered', 'delivered', 'partial', 'held', 'failed', 'skipped');
CREATE TYPE delivery_kind AS ENUM ('departure', 'early_copy', 'test', 'redelivery');
CREATE TYPE file_kind AS ENUM ('leads', 'checksum', 'manifest', 'done', 'variant', 'chart');
CREATE TYPE dispatch_state AS ENUM ('ready', 'sending', 'confirmed', 'failed', 'unknown', 'skipped');
CREATE TYPE request_state AS ENUM ('sending', 'answered', 'open', 'unknown');
CREATE TYPE answer AS ENUM ('accepted', 'rejected', 'duplicate', 'incomplete', 'retry');

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

-- Ids and times rise together, so this one costs next to nothing and finds the leads of some days among years.
CREATE INDEX lead_received ON lead USING brin (received_at) WITH (autosummarize = on);

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
    received_from timestamptz,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_no, flow)
);

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
    on_hold boolean NOT NULL DEFAULT false,
    departs_at timestamptz NOT NULL,
    window_from timestamptz,
    window_to timestamptz NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    lease_until timestamptz NOT NULL,
    included integer NOT NULL DEFAULT 0,
    withheld integer NOT NULL DEFAULT 0,
    lead_order text NOT NULL DEFAULT 'oldest' CHECK (lead_order IN ('oldest', 'newest', 'random')),
    kind delivery_kind NOT NULL DEFAULT 'departure',
    params jsonb NOT NULL DEFAULT '{}',
    unit_price numeric,
    revenue numeric,
    left_waiting integer NOT NULL DEFAULT 0,
    left_reason text,
    UNIQUE (batch_no, number)
);
-- What a cap counts: the departures of a batch in a period.
CREATE INDEX delivery_in_time ON delivery (batch_no, window_to);
-- A retried task finds its delivery again; a run that is cleared after its delivery failed makes a new one.
CREATE UNIQUE INDEX delivery_of_run ON delivery (batch_no, run_id) WHERE state NOT IN ('failed', 'skipped');
-- What people ask for: the newest deliveries of a batch, with a configuration, of some days.
CREATE INDEX delivery_of_batch ON delivery (batch_no, id);
CREATE INDEX delivery_of_config ON delivery (config_id, id);
CREATE INDEX delivery_departed ON delivery (departs_at);
CREATE INDEX delivery_open ON delivery (lease_until) WHERE state IN ('claimed', 'rendered');
CREATE INDEX delivery_needs_attention ON delivery (id) WHERE state IN ('claimed', 'rendered', 'held', 'partial');
CREATE INDEX delivery_held ON delivery (settled_at) WHERE state = 'held';
CREATE INDEX delivery_in_order ON delivery (batch_no, departs_at);
CREATE INDEX delivery_by_day ON delivery (departs_at);

-- A batch's queue is a set of lots; claiming leads gives their lot to a delivery, giving them back takes it away again.
-- So the price of both does not grow with the number of leads.
CREATE TABLE lot (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_no integer NOT NULL REFERENCES batch,
    delivery_id bigint REFERENCES delivery,
    newest_received_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    returns boolean NOT NULL DEFAULT true,
    returned_from bigint REFERENCES delivery
);
CREATE INDEX lot_waiting ON lot (batch_no) WHERE delivery_id IS NULL;
CREATE INDEX ix_lot_delivery_id ON lot (delivery_id);

-- No foreign keys here: a check per row would double the price of routing; leads and lots with leads are never deleted.
CREATE TABLE queue_entry (
    batch_no integer NOT NULL,
    lead_id bigint NOT NULL,
    copy smallint NOT NULL DEFAULT 0,
    lot_id bigint NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (lead_id, batch_no, copy)
);
CREATE INDEX ix_queue_entry_lot_id ON queue_entry (lot_id);

CREATE TABLE withheld (
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (delivery_id, lead_id)
);

-- Single leads that must not go, to one batch or, with batch_no 0, to any. A held one may be released.
CREATE TABLE lead_stop (
    lead_id bigint NOT NULL REFERENCES lead,
    batch_no integer NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (lead_id, batch_no, kind)
);

-- What a lead is worth in a delivery, where a cap on revenue reads it from the lead.
CREATE TABLE lead_price (
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    price numeric NOT NULL,
    PRIMARY KEY (delivery_id, lead_id)
);

-- Leads beyond a cap that are for the queue of another batch, from when the delivery is settled.
CREATE TABLE passed_on (
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    batch_no integer NOT NULL REFERENCES batch,
    PRIMARY KEY (delivery_id, lead_id)
);

-- That a cap was nearly or completely used up in a period: said once.
CREATE TABLE cap_level (
    batch_no integer NOT NULL REFERENCES batch,
    cap text NOT NULL,
    period_from timestamptz NOT NULL,
    level text NOT NULL CHECK (level IN ('near', 'reached')),
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_no, cap, period_from, level)
);

-- By what a delivered lead is known again: hashes of normalised values, made when a claim first asks for them.
CREATE TABLE lead_key (
    key uuid NOT NULL,
    batch_no integer NOT NULL,
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    PRIMARY KEY (key, batch_no, delivery_id, lead_id)
);
-- What a recipient was told of a lead, by a batch that delivers changes.
CREATE TABLE lead_version (
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    batch_no integer NOT NULL,
    change text NOT NULL CHECK (change IN ('added', 'changed', 'removed')),
    version uuid NOT NULL,
    PRIMARY KEY (delivery_id, lead_id)
);
CREATE INDEX lead_version_sent ON lead_version (lead_id, batch_no, delivery_id);

CREATE TABLE lead_key_made (
    delivery_id bigint NOT NULL,
    kind text NOT NULL,
    PRIMARY KEY (delivery_id, kind)
);

-- A delivery made by hand of chosen leads, or of a stored file, to one destination.
CREATE TABLE redelivery (
    delivery_id bigint PRIMARY KEY REFERENCES delivery,
    destination text NOT NULL,
    ways text[] NOT NULL,
    original_id bigint REFERENCES delivery,
    file_id bigint,
    mark text NOT NULL DEFAULT '',
    include_delivered boolean NOT NULL,
    skip_rules boolean NOT NULL,
    seed bigint,
    reason text,
    actor text NOT NULL
);
CREATE INDEX redelivery_of ON redelivery (original_id);

-- Which rule a redelivered lead did not meet, where a person said that it goes all the same.
CREATE TABLE skipped_rule (
    delivery_id bigint NOT NULL,
    lead_id bigint NOT NULL,
    rule text NOT NULL,
    PRIMARY KEY (delivery_id, lead_id)
);

-- A version of a lead: what a person changed of its fields, for good or for one delivery.
CREATE TABLE lead_edit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_id bigint NOT NULL REFERENCES lead,
    delivery_id bigint REFERENCES delivery,
    persisted boolean NOT NULL,
    before jsonb NOT NULL,
    changes jsonb NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX lead_edit_of_delivery ON lead_edit (delivery_id, lead_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX ix_lead_edit_lead_id ON lead_edit (lead_id);

-- What waits, in the words of the glossary.
CREATE VIEW pending AS
    SELECT e.batch_no, e.lead_id, e.received_at
    FROM lot JOIN queue_entry e ON e.lot_id = lot.id
    WHERE lot.delivery_id IS NULL;

CREATE TABLE file (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery,
    kind file_kind NOT NULL DEFAULT 'leads',
    key text NOT NULL,
    part integer NOT NULL DEFAULT 1,
    name text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    rows integer NOT NULL,
    segment text NOT NULL DEFAULT '',
    members jsonb NOT NULL DEFAULT '[]',
    media_type text NOT NULL,
    archive_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (delivery_id, kind, key, part)
);
CREATE INDEX file_by_age ON file (created_at);
CREATE INDEX file_by_archive_key ON file (archive_key);

CREATE INDEX file_name ON file (name);

CREATE TABLE dispatch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery,
    file_id bigint NOT NULL REFERENCES file,
    destination text NOT NULL,
    way text NOT NULL,
    addressee text NOT NULL DEFAULT '',
    parcel_key text NOT NULL,
    sent_as text,
    remedy text NOT NULL DEFAULT '',
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
CREATE INDEX dispatch_in_doubt ON dispatch (delivery_id) WHERE state IN ('sending', 'unknown');

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

-- What goes to a buyer's API: which leads went in which request, and what the buyer said to each of them over time.
CREATE TABLE request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dispatch_id bigint NOT NULL REFERENCES dispatch,
    number integer NOT NULL,
    lead_ids bigint[] NOT NULL,
    idempotency_key text NOT NULL,
    state request_state NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    status_code integer,
    latency_ms integer,
    body text,
    error_code text,
    sent_at timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    UNIQUE (dispatch_id, number)
);

CREATE TABLE response (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL REFERENCES request,
    delivery_id bigint NOT NULL REFERENCES delivery,
    lead_id bigint NOT NULL,
    outcome answer NOT NULL,
    status_code integer,
    buyer_id text,
    price numeric,
    message text,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_response_lead_id ON response (lead_id);
-- A lead has one answer that counts in one request, however often it was sent.
CREATE UNIQUE INDEX response_final ON response (request_id, lead_id) WHERE outcome <> 'retry';

-- What became of a lead: a buyer's final answer counts more than that the lead was sent, and a yes more than a no.
CREATE VIEW delivery_lead AS
    SELECT lot.delivery_id, e.lead_id, e.batch_no, e.copy, e.received_at,
           CASE WHEN w.lead_id IS NOT NULL THEN 'withheld' ELSE coalesce(
               (SELECT CASE r.outcome WHEN 'accepted' THEN 'included' ELSE r.outcome::text END FROM response r
                WHERE r.lead_id = e.lead_id AND r.delivery_id = lot.delivery_id AND r.outcome <> 'retry'
                ORDER BY r.outcome, r.id DESC LIMIT 1), 'included') END AS outcome,
           coalesce(w.reason,
               (SELECT r.message FROM response r WHERE r.lead_id = e.lead_id AND r.delivery_id = lot.delivery_id
                ORDER BY r.outcome = 'retry', r.outcome, r.id DESC LIMIT 1)) AS reason
    FROM lot JOIN queue_entry e ON e.lot_id = lot.id
    LEFT JOIN withheld w ON w.delivery_id = lot.delivery_id AND w.lead_id = e.lead_id
    WHERE lot.delivery_id IS NOT NULL;

-- From when to when nothing is sent: to a recipient, for a batch, or to one of its destinations ('' means all).
CREATE TABLE suspension (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL CHECK (scope IN ('recipient', 'batch')),
    name text NOT NULL,
    destination text NOT NULL DEFAULT '',
    cause text NOT NULL CHECK (cause IN ('hold', 'auth', 'failures')),
    reason text NOT NULL CHECK (reason <> ''),
    error_code text,
    delivery_id bigint REFERENCES delivery,
    since timestamptz NOT NULL DEFAULT now(),
    actor text,
    until timestamptz,
    resumed_at timestamptz,
    resumed_by text,
    CONSTRAINT hold_has_actor CHECK (cause <> 'hold' OR actor IS NOT NULL),
    CONSTRAINT resumed_by_somebody CHECK ((resumed_at IS NULL) = (resumed_by IS NULL))
);
CREATE UNIQUE INDEX suspension_active ON suspension (scope, name, destination) WHERE resumed_at IS NULL;

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX audit_of_object ON audit (object, id);
CREATE INDEX audit_of_actor ON audit (actor, id);
CREATE INDEX audit_at ON audit (at);

CREATE TABLE skip_order (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id text NOT NULL,
    departs_at timestamptz NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    actor text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    run_id text,
    UNIQUE (batch_id, departs_at),
    UNIQUE (batch_id, run_id)
);

CREATE TABLE credential (
    connection text PRIMARY KEY,
    fingerprint bytea NOT NULL,
    salt bytea NOT NULL,
    first_seen_at timestamptz NOT NULL
);

CREATE TABLE later_try (
    delivery_id bigint NOT NULL REFERENCES delivery,
    destination text NOT NULL,
    number integer NOT NULL,
    until timestamptz NOT NULL,
    error_code text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (delivery_id, destination, number)
);

CREATE TABLE early_departure (
    batch_no integer NOT NULL REFERENCES batch,
    after_delivery bigint NOT NULL,
    number integer NOT NULL,
    reason text NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_no, after_delivery, number)
);
-- What the watchdog knows of a batch: since when its schedule is as it is, so that nobody is told of a departure
-- that was due before. By its id, since a batch may be watched before it ever departed.
CREATE TABLE watched (
    batch text PRIMARY KEY,
    schedule_sha256 text NOT NULL,
    since timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
);

-- What went wrong, from when to when; told once when it begins and once when it is over.
CREATE TABLE incident (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('broken', 'missing', 'late', 'doubt', 'held', 'depth', 'age', 'over',
                                       'key_expires', 'key_unusable')),
    since timestamptz NOT NULL,
    noticed_at timestamptz NOT NULL,
    detail text NOT NULL CHECK (detail <> ''),
    told_at timestamptz,
    recovered_at timestamptz,
    recovery_told_at timestamptz
);
CREATE UNIQUE INDEX incident_open ON incident (batch, kind) WHERE recovered_at IS NULL;
CREATE INDEX incident_untold ON incident (id)
    WHERE recovered_at IS NULL OR (told_at IS NOT NULL AND recovery_told_at IS NULL);

-- Bytes that left the archive because they were kept long enough; the row of the file stays.
CREATE TABLE retirement (
    archive_key text NOT NULL,
    action text NOT NULL CHECK (action IN ('moved', 'removed')),
    place text NOT NULL DEFAULT '',
    decided_at timestamptz NOT NULL,
    done_at timestamptz,
    PRIMARY KEY (archive_key, action)
);
CREATE INDEX retirement_undone ON retirement (decided_at) WHERE done_at IS NULL;

CREATE TABLE state_move (
    thing text NOT NULL,
    source text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (thing, source, target)
);
INSERT INTO state_move VALUES
    ('delivery', 'claimed', 'rendered'), ('delivery', 'claimed', 'failed'),
    ('delivery', 'claimed', 'skipped'),
    ('delivery', 'rendered', 'delivered'), ('delivery', 'rendered', 'partial'),
    ('delivery', 'rendered', 'held'), ('delivery', 'rendered', 'failed'),
    ('delivery', 'held', 'delivered'), ('delivery', 'held', 'partial'), ('delivery', 'held', 'failed'),
    ('delivery', 'partial', 'delivered'),
    ('dispatch', 'ready', 'sending'),
    ('dispatch', 'sending', 'confirmed'), ('dispatch', 'sending', 'failed'),
    ('dispatch', 'sending', 'unknown'), ('dispatch', 'sending', 'ready'),
    ('dispatch', 'failed', 'sending'), ('dispatch', 'ready', 'skipped'), ('dispatch', 'failed', 'skipped'),
    ('dispatch', 'unknown', 'confirmed'), ('dispatch', 'unknown', 'failed'),
    ('request', 'sending', 'answered'), ('request', 'sending', 'open'), ('request', 'sending', 'unknown'),
    ('request', 'open', 'sending'),
    ('request', 'unknown', 'answered'), ('request', 'unknown', 'open');

-- Every inserted lead is offered to the queues, whoever inserted it and by whichever client: set by set, not row by row.
CREATE FUNCTION offer_new_leads() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    INSERT INTO arrival SELECT id, flow, received_at FROM new_leads;
    RETURN NULL;
END $$;
CREATE TRIGGER offer_new_leads AFTER INSERT ON lead
    REFERENCING NEW TABLE AS new_leads FOR EACH STATEMENT EXECUTE FUNCTION offer_new_leads();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'leadferry: rows of % are never %', TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'LF001';
END $$;
CREATE TRIGGER never_deleted BEFORE DELETE ON lead FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_moved BEFORE UPDATE OF id, flow, received_at ON lead
    FOR EACH ROW WHEN (OLD.id <> NEW.id OR OLD.flow <> NEW.flow OR OLD.received_at <> NEW.received_at)
    EXECUTE FUNCTION refuse_change('given another id, flow or time');
CREATE TRIGGER never_deleted BEFORE DELETE ON delivery FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_deleted BEFORE DELETE ON dispatch FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_deleted BEFORE DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_deleted BEFORE DELETE ON suspension FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER stopped_for_good BEFORE UPDATE OR DELETE ON lead_stop
    FOR EACH ROW WHEN (OLD.kind <> 'held') EXECUTE FUNCTION refuse_change('taken back, unless they hold');
CREATE TRIGGER receipt_stays BEFORE UPDATE OF receipt ON dispatch
    FOR EACH ROW WHEN (OLD.receipt IS NOT NULL AND OLD.receipt IS DISTINCT FROM NEW.receipt)
    EXECUTE FUNCTION refuse_change('given another receipt');
CREATE TRIGGER stays_where_it_goes BEFORE UPDATE OF delivery_id, file_id, destination, way, addressee, parcel_key ON dispatch
    FOR EACH ROW EXECUTE FUNCTION refuse_change('sent elsewhere');
CREATE TRIGGER ended_for_good BEFORE UPDATE ON attempt
    FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION refuse_change('changed after their end');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON withheld
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON file FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_deleted BEFORE DELETE ON incident FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_deleted BEFORE DELETE ON retirement FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON response
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON batch_config
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON redelivery
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON skipped_rule
    FOR EACH ROW EXECUTE FUNCTION refuse_change('changed');
CREATE TRIGGER never_deleted BEFORE DELETE ON lead_edit FOR EACH ROW EXECUTE FUNCTION refuse_change('deleted');
-- Values may go when a lead's data is erased; that there was an edit, by whom and why, stays.
CREATE TRIGGER only_erased BEFORE UPDATE ON lead_edit
    FOR EACH ROW WHEN ((NEW.id, NEW.lead_id, NEW.persisted, NEW.reason, NEW.actor, NEW.at, coalesce(NEW.delivery_id, 0))
        <> (OLD.id, OLD.lead_id, OLD.persisted, OLD.reason, OLD.actor, OLD.at, coalesce(OLD.delivery_id, 0))
        OR NEW.before <> '{}' OR NEW.changes <> '{}') EXECUTE FUNCTION refuse_change('changed');
-- Row triggers do not see TRUNCATE.
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON file EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON lead EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON arrival EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON lot EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON queue_entry EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON withheld EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON delivery EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON dispatch EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON attempt EXECUTE FUNCTION refuse_change('emptied');
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON batch_config EXECUTE FUNCTION refuse_change('emptied');

CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
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
CREATE TRIGGER allowed_move BEFORE UPDATE OF state ON request
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION refuse_move();

-- A lot goes from the queue into a delivery and, should that fail, back; never from one delivery into another.
CREATE FUNCTION refuse_theft() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    IF NEW.delivery_id IS NOT NULL
       OR EXISTS (SELECT FROM delivery WHERE id = OLD.delivery_id AND state IN ('delivered', 'partial')) THEN
        RAISE EXCEPTION 'leadferry: lot % belongs to delivery % and cannot be taken from it', OLD.id, OLD.delivery_id
            USING ERRCODE = 'LF002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER belongs_to_one_delivery BEFORE UPDATE OF delivery_id ON lot
    FOR EACH ROW WHEN (OLD.delivery_id IS NOT NULL AND OLD.delivery_id IS DISTINCT FROM NEW.delivery_id)
    EXECUTE FUNCTION refuse_theft();

CREATE FUNCTION refuse_empty_lot() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    IF OLD.delivery_id IS NOT NULL OR EXISTS (SELECT FROM queue_entry WHERE lot_id = OLD.id) THEN
        RAISE EXCEPTION 'leadferry: lot % holds leads or belongs to a delivery and cannot be deleted', OLD.id
            USING ERRCODE = 'LF002';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER only_when_empty BEFORE DELETE ON lot FOR EACH ROW EXECUTE FUNCTION refuse_empty_lot();

-- Leads change lots while they wait or are being claimed, never after their file was rendered.
-- One look for each statement, whatever the number of leads.
CREATE FUNCTION refuse_lead_theft() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT lot_id FROM before) AS touched
               JOIN lot ON lot.id = touched.lot_id JOIN delivery ON delivery.id = lot.delivery_id
               WHERE delivery.state <> 'claimed')
       OR EXISTS (SELECT FROM (SELECT DISTINCT lot_id FROM after) AS touched
                  LEFT JOIN lot ON lot.id = touched.lot_id LEFT JOIN delivery ON delivery.id = lot.delivery_id
                  WHERE lot.id IS NULL OR delivery.state NOT IN ('claimed', 'skipped')) THEN
        RAISE EXCEPTION 'leadferry: leads of a delivery that was rendered stay in it' USING ERRCODE = 'LF002';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER belongs_to_one_delivery AFTER UPDATE ON queue_entry
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION refuse_lead_theft();
CREATE TRIGGER stays_the_same BEFORE UPDATE OF batch_no, lead_id, copy, received_at ON queue_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_change('made to stand for another lead');

-- A lead leaves a queue only with its flow, when the batch no longer listens to it.
CREATE FUNCTION refuse_lead_loss() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT lot_id FROM gone) AS touched
               JOIN lot ON lot.id = touched.lot_id JOIN delivery ON delivery.id = lot.delivery_id
               WHERE delivery.state IN ('delivered', 'partial', 'failed', 'skipped'))
       OR EXISTS (SELECT FROM gone JOIN lead ON lead.id = gone.lead_id
                  JOIN subscription ON subscription.batch_no = gone.batch_no AND subscription.flow = lead.flow) THEN
        RAISE EXCEPTION 'leadferry: a lead leaves a queue only when the batch no longer listens to its flow'
            USING ERRCODE = 'LF002';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER never_lost AFTER DELETE ON queue_entry
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION refuse_lead_loss();

-- A way is served when one of its destinations brought all that it had to: everything, or what had not arrived by another.
-- A file arrived by a destination when all its dispatches to it (one for each mail recipient) are confirmed.
CREATE FUNCTION served_ways(of_delivery bigint) RETURNS SETOF text LANGUAGE sql STABLE
    SET search_path = leadferry, pg_temp AS $$
    WITH brought AS (
        SELECT way, destination, file_id, bool_and(state = 'confirmed') AS all_of_it,
               bool_and(state IN ('confirmed', 'skipped')) AS nothing_left
        FROM dispatch WHERE delivery_id = of_delivery GROUP BY way, destination, file_id
    ), missing AS (
        SELECT way FROM brought JOIN file ON file.id = file_id AND kind = 'leads'
        GROUP BY way, file_id HAVING NOT bool_or(all_of_it)
    )
    SELECT DISTINCT way FROM brought GROUP BY way, destination
    HAVING bool_and(all_of_it)
        OR bool_and(nothing_left) AND bool_or(all_of_it) AND way NOT IN (SELECT way FROM missing)
$$;

-- Whether what arrived is enough for the batch's `success`: all ways, or any, or the primary one, with every lead.
CREATE FUNCTION policy_met(of_delivery bigint) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = leadferry, pg_temp AS $$
    WITH served AS MATERIALIZED (
        SELECT way FROM served_ways(of_delivery) AS listed (way)
    ), divided AS (
        SELECT way FROM (SELECT DISTINCT way, file.id, key, rows FROM dispatch JOIN file ON file.id = file_id
                         WHERE dispatch.delivery_id = of_delivery AND kind = 'leads') AS gets
        GROUP BY way, key HAVING sum(rows) <> (SELECT included FROM delivery WHERE id = of_delivery)
    ), enough AS (
        SELECT way FROM served WHERE way NOT IN (SELECT way FROM divided)
    )
    SELECT CASE coalesce(config ->> 'success', 'all')
        WHEN 'any' THEN EXISTS (SELECT FROM enough)
        WHEN 'primary' THEN (
            SELECT one ->> 'id' FROM jsonb_array_elements(config -> 'destinations') WITH ORDINALITY AS listed (one, place)
            WHERE one ->> 'id' IN (SELECT way FROM dispatch WHERE delivery_id = of_delivery)
            ORDER BY coalesce((one ->> 'primary')::boolean, false) DESC, place LIMIT 1
        ) IN (SELECT way FROM enough)
        ELSE EXISTS (SELECT FROM served) AND NOT EXISTS (
            SELECT FROM dispatch WHERE delivery_id = of_delivery AND way NOT IN (SELECT way FROM served))
    END
    FROM delivery JOIN batch_config ON batch_config.id = delivery.config_id WHERE delivery.id = of_delivery
$$;

-- A file goes to a fallback or to what it replaces, never to both: no sending while another destination of the way
-- may be getting something, or has the file.
CREATE FUNCTION refuse_second_way() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
BEGIN
    PERFORM FROM delivery WHERE id = NEW.delivery_id FOR UPDATE;
    IF EXISTS (SELECT FROM dispatch WHERE delivery_id = NEW.delivery_id AND way = NEW.way
               AND destination <> NEW.destination AND state IN ('sending', 'unknown'))
       OR EXISTS (SELECT FROM dispatch JOIN file ON file.id = file_id AND kind = 'leads'
                  WHERE file_id = NEW.file_id AND way = NEW.way AND destination <> NEW.destination
                  GROUP BY destination HAVING bool_and(state = 'confirmed')) THEN
        RAISE EXCEPTION 'leadferry: dispatch % of delivery % is or may be delivered by another destination of its way',
            NEW.id, NEW.delivery_id USING ERRCODE = 'LF002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER one_way BEFORE UPDATE OF state ON dispatch
    FOR EACH ROW WHEN (OLD.state <> 'sending' AND NEW.state = 'sending') EXECUTE FUNCTION refuse_second_way();

CREATE FUNCTION settle_adds_up() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
DECLARE
    included_leads bigint;
    withheld_leads bigint;
BEGIN
    SELECT count(*) INTO withheld_leads FROM withheld WHERE delivery_id = NEW.id;
    SELECT count(*) - withheld_leads INTO included_leads
        FROM lot JOIN queue_entry e ON e.lot_id = lot.id WHERE lot.delivery_id = NEW.id;
    IF (included_leads, withheld_leads) <> (NEW.included, NEW.withheld) THEN
        RAISE EXCEPTION 'leadferry: delivery % counts % leads and % withheld, but holds % and %',
            NEW.id, NEW.included, NEW.withheld, included_leads, withheld_leads USING ERRCODE = 'LF003';
    END IF;
    IF EXISTS (SELECT FROM file WHERE delivery_id = NEW.id AND kind = 'leads'
               GROUP BY key HAVING sum(rows) <> included_leads)
       OR EXISTS (SELECT FROM file, jsonb_to_recordset(file.members) AS member (key text, rows bigint)
                  WHERE delivery_id = NEW.id
                  GROUP BY file.id, member.key HAVING sum(member.rows) <> included_leads)
       OR (NOT EXISTS (SELECT FROM dispatch WHERE delivery_id = NEW.id AND state = 'confirmed')
           AND NOT EXISTS (SELECT FROM request JOIN dispatch d ON d.id = dispatch_id
                           WHERE d.delivery_id = NEW.id AND request.state = 'answered'))
       OR (NEW.state = 'delivered'
           AND (NOT policy_met(NEW.id)
                OR EXISTS (SELECT FROM dispatch WHERE delivery_id = NEW.id AND state IN ('sending', 'unknown')))) THEN
        RAISE EXCEPTION 'leadferry: delivery % has % leads, which its files or receipts do not add up to',
            NEW.id, included_leads USING ERRCODE = 'LF003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER settle_adds_up BEFORE UPDATE OF state ON delivery
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state IN ('delivered', 'partial'))
    EXECUTE FUNCTION settle_adds_up();

-- Where leads stand with one batch and one of its destinations, given as all that
-- are or were on the same way: the price grows with the leads asked for, not with history.
-- A lead that is in a delivery under way comes first, then one that arrived, then one that waits, then what became of
-- it last. A delivery of which only some parts arrived there counts as arrived: nobody can tell whose leads those were.
CREATE FUNCTION standing(of_batch integer, to_ways text[], of_leads bigint[], besides bigint DEFAULT 0)
    RETURNS TABLE (lead_id bigint, standing text, delivery_id bigint, reason text, waits boolean, in_queue boolean)
    LANGUAGE sql STABLE SET search_path = leadferry, pg_temp AS $$
    WITH entry AS MATERIALIZED (
        SELECT wanted.lead_id, e.lot_id, lot.delivery_id, lot.returned_from, d.state, d.kind
        FROM unnest(of_leads) AS wanted (lead_id)
        LEFT JOIN (queue_entry e JOIN lot ON lot.id = e.lot_id LEFT JOIN delivery d ON d.id = lot.delivery_id)
            ON e.lead_id = wanted.lead_id AND e.batch_no = of_batch AND lot.delivery_id IS DISTINCT FROM besides
    ), brought AS MATERIALIZED (
        SELECT dispatch.delivery_id, bool_or(dispatch.state = 'confirmed') AS arrived,
               bool_or(dispatch.state IN ('sending', 'unknown')) AS in_doubt
        FROM dispatch JOIN file ON file.id = file_id AND file.kind = 'leads'
        WHERE dispatch.delivery_id IN (SELECT DISTINCT entry.delivery_id FROM entry) AND way = ANY (to_ways)
        GROUP BY dispatch.delivery_id
    ), told AS (
        SELECT entry.lead_id, coalesce(entry.delivery_id, entry.returned_from) AS delivery_id, entry.lot_id,
               coalesce(w.reason, said.message) AS reason,
               CASE
                   WHEN entry.lot_id IS NULL THEN 'new'
                   WHEN entry.delivery_id IS NULL THEN 'waiting'
                   WHEN entry.kind = 'test' THEN 'new'
                   WHEN entry.state IN ('claimed', 'rendered', 'held') THEN 'under_way'
                   WHEN w.reason IS NOT NULL THEN 'withheld'
                   WHEN entry.state = 'failed' AND r.destination = ANY (to_ways) THEN 'failed'
                   WHEN entry.state IN ('failed', 'skipped') THEN 'new'
                   WHEN said.outcome = 'accepted' THEN 'delivered'
                   WHEN said.outcome IS NOT NULL THEN said.outcome::text
                   WHEN brought.in_doubt THEN 'under_way'
                   WHEN brought.arrived THEN 'delivered'
                   WHEN brought.delivery_id IS NOT NULL THEN 'failed'
                   ELSE 'new'
               END AS standing
        FROM entry
        LEFT JOIN withheld w ON w.delivery_id = entry.delivery_id AND w.lead_id = entry.lead_id
        LEFT JOIN redelivery r ON r.delivery_id = entry.delivery_id
        LEFT JOIN brought ON brought.delivery_id = entry.delivery_id
        LEFT JOIN LATERAL (
            SELECT response.outcome, response.message FROM response
            JOIN request ON request.id = response.request_id JOIN dispatch ON dispatch.id = request.dispatch_id
            WHERE response.lead_id = entry.lead_id AND response.delivery_id = entry.delivery_id
            AND response.outcome <> 'retry' AND dispatch.way = ANY (to_ways)
            ORDER BY response.outcome, response.id DESC LIMIT 1) AS said ON true
    )
    SELECT DISTINCT ON (told.lead_id) told.lead_id, told.standing, told.delivery_id, told.reason,
           bool_or(told.standing = 'waiting') OVER (PARTITION BY told.lead_id),
           bool_or(told.lot_id IS NOT NULL) OVER (PARTITION BY told.lead_id)
    FROM told
    ORDER BY told.lead_id,
             array_position(ARRAY['under_way', 'delivered', 'waiting', 'other', 'new'],
                 CASE WHEN told.standing IN ('under_way', 'delivered', 'waiting', 'new') THEN told.standing ELSE 'other' END),
             told.delivery_id DESC NULLS LAST
$$;

-- What could still be sent on a way with one of these leads in it: by the failed task of an earlier delivery.
CREATE FUNCTION still_to_send(of_batch integer, to_ways text[], of_leads bigint[], besides bigint DEFAULT 0)
    RETURNS TABLE (dispatch_id bigint, state dispatch_state)
    LANGUAGE sql STABLE SET search_path = leadferry, pg_temp AS $$
    SELECT DISTINCT dispatch.id, dispatch.state
    FROM unnest(of_leads) AS wanted (lead_id)
    JOIN queue_entry e ON e.lead_id = wanted.lead_id AND e.batch_no = of_batch
    JOIN lot ON lot.id = e.lot_id
    JOIN delivery d ON d.id = lot.delivery_id AND d.state IN ('delivered', 'partial') AND d.id <> besides
    JOIN dispatch ON dispatch.delivery_id = d.id AND dispatch.way = ANY (to_ways)
        AND dispatch.state IN ('ready', 'failed', 'sending', 'unknown')
    WHERE NOT EXISTS (SELECT FROM withheld w WHERE w.delivery_id = d.id AND w.lead_id = e.lead_id)
    AND NOT EXISTS (SELECT FROM response JOIN request ON request.id = response.request_id
                    JOIN dispatch own ON own.id = request.dispatch_id
                    WHERE response.lead_id = e.lead_id AND response.delivery_id = d.id
                    AND response.outcome <> 'retry' AND own.way = ANY (to_ways))
$$;

-- Nothing is sent before it was rendered, so this is the last moment at which a lead could come to travel twice.
CREATE FUNCTION refuse_second_delivery() RETURNS trigger LANGUAGE plpgsql
    SET search_path = leadferry, pg_temp AS $$
DECLARE
    mine redelivery%ROWTYPE;
    leads bigint[];
    twice bigint;
BEGIN
    SELECT * INTO STRICT mine FROM redelivery WHERE delivery_id = NEW.id;
    leads := ARRAY(SELECT e.lead_id FROM lot JOIN queue_entry e ON e.lot_id = lot.id WHERE lot.delivery_id = NEW.id
                   AND NOT EXISTS (SELECT FROM withheld w WHERE w.delivery_id = NEW.id AND w.lead_id = e.lead_id));
    SELECT count(*) INTO twice FROM standing(NEW.batch_no, mine.ways, leads, NEW.id) AS s
        WHERE s.standing IN ('under_way', 'waiting') OR s.standing = 'delivered' AND NOT mine.include_delivered;
    IF twice > 0 OR cardinality(leads) <> (SELECT count(DISTINCT one) FROM unnest(leads) AS one)
       OR EXISTS (SELECT FROM still_to_send(NEW.batch_no, mine.ways, leads, NEW.id)) THEN
        RAISE EXCEPTION 'leadferry: % leads of redelivery % wait, are under way or were delivered there', twice, NEW.id
            USING ERRCODE = 'LF002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER goes_nowhere_twice BEFORE UPDATE OF state ON delivery
    FOR EACH ROW WHEN (NEW.kind = 'redelivery' AND OLD.state <> NEW.state AND NEW.state = 'rendered')
    EXECUTE FUNCTION refuse_second_delivery();
