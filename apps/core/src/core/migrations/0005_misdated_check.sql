-- The check for misdated rows took about as long as the insertion itself. Most rows start on the very day that both of their
-- identifiers name, which is cheap to see; only the others are looked at in full. And a row without a report id is not
-- misdated for that: nobody looks it up by one. What else counts as misdated is unchanged.
CREATE OR REPLACE TRIGGER fastpath_note_misdated AFTER INSERT ON fastpath FOR EACH ROW
WHEN ((
    left(NEW.measurement_uid, 8) = to_char(NEW.measurement_start_time, 'YYYYMMDD')
    AND (NEW.report_id = '' OR left(NEW.report_id, 8) = to_char(NEW.measurement_start_time, 'YYYYMMDD'))
) IS NOT TRUE AND (
    NEW.measurement_start_time >= fastpath_window_start(NEW.measurement_uid)
    AND NEW.measurement_start_time < fastpath_window_start(NEW.measurement_uid) + interval '34 days'
    AND (NEW.report_id = '' OR (
        NEW.measurement_start_time >= fastpath_window_start(NEW.report_id)
        AND NEW.measurement_start_time < fastpath_window_start(NEW.report_id) + interval '34 days'
    ))
) IS NOT TRUE)
EXECUTE FUNCTION fastpath_note_misdated();
