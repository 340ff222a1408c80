//! Whether a run was stopped, was resumed or has ended, as a copy records it.

use crate::log::{Ended, Entry, Outcome, Record, RunLog, identity};

/// The record that brings the run outcome in `copy` up to that in `source`; `None` if the copy has the same outcome or
/// a newer one.
///
/// The copy may have been made from another directory of the same run, and have an outcome that this source lacks. The
/// outcome recorded under the later term counts. Under one term a run is resumed first, and stopped or ended last.
///
/// A copy records that the run has finished only once it has the run's last checkpoint. Otherwise the run would be over
/// for everyone who reads the copy, and its result would be nowhere.
pub(super) fn missing(source: &RunLog, copy: &RunLog) -> Option<Record> {
    let terms = source.identities();
    let term_of = |run_log, entry: &Entry| {
        let identity = term_identity(run_log, entry);
        terms.iter().rposition(|&term| Some(term) == identity)
    };
    let in_source = source.last_status_entry()?;
    if let Record::Ended(Ended { outcome: Outcome::Finished, step, .. }) = in_source.record
        && let Some(last) = checkpoint_of(source, step)
        && copy.usable_checkpoint(&last).is_none()
    {
        return None;
    }
    let Some(in_copy) = copy.last_status_entry() else { return Some(in_source.record.clone()) };
    let source_term = term_of(source, in_source)?;
    // If the source does not know the term, the copy's outcome is the newer one.
    let copy_term = term_of(copy, in_copy)?;
    let is_last_of_term = !matches!(in_source.record, Record::Resumed { .. });
    let is_newer = source_term > copy_term
        || (source_term == copy_term && is_last_of_term && in_source.record != in_copy.record);
    is_newer.then(|| in_source.record.clone())
}

/// The manifest of the newest checkpoint of a step, collected or not. The entries of a copy are in no order of age.
fn checkpoint_of(run_log: &RunLog, wanted: u64) -> Option<String> {
    let of_step = |entry: &Entry| match &entry.record {
        Record::Checkpoint { step, manifest, origin, .. } if *step == wanted => {
            let made = origin.map_or((entry.epoch, entry.number), |made| (made.epoch, made.entry));
            Some((made, manifest.clone()))
        }
        _ => None,
    };
    run_log.entries().iter().filter_map(of_step).max().map(|(_, manifest)| manifest)
}

/// The identity of the term under which an entry was written.
fn term_identity<'a>(run_log: &'a RunLog, entry: &Entry) -> Option<&'a str> {
    run_log.terms().take_while(|term| term.number <= entry.number).last().and_then(identity)
}
