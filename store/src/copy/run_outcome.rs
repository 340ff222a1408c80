//! Whether a run that is copied goes on, was stopped or has ended.

use crate::log::{
    entry::{Ended, Entry, Outcome, Record},
    lineage::identity,
    run_log::RunLog,
};

/// The record that makes the copy's last word on it the source's; `None` if it is, or if the copy knows more.
///
/// The copy may have been made from another directory of the same run, and know of what this source has not heard yet.
/// So a word counts by the term under which it was spoken; under one term a run is resumed first, and stopped or
/// ended last. That the run has finished a copy says only once it has the checkpoint that it finished with: to whoever
/// reads it the run would be over, and what it came to would be nowhere.
pub(super) fn missing(source: &RunLog, copy: &RunLog) -> Option<Record> {
    let terms = source.identities();
    let place = |run_log, entry: &Entry| {
        let spoken_under = under(run_log, entry);
        terms.iter().rposition(|&term| Some(term) == spoken_under)
    };
    let ours = source.standing_entry()?;
    if let Record::Ended(Ended { outcome: Outcome::Finished, step, .. }) = ours.record
        && let Some(last) = checkpoint_of(source, step)
        && copy.checkpoints().iter().all(|checkpoint| checkpoint.manifest != last)
    {
        return None;
    }
    let Some(theirs) = copy.standing_entry() else { return Some(ours.record.clone()) };
    let ours_under = place(source, ours)?;
    // Spoken under a term that the source has not heard of, theirs is the newer word.
    let theirs_under = place(copy, theirs)?;
    let is_last_word = !matches!(ours.record, Record::Resumed { .. });
    let is_news = ours_under > theirs_under
        || (ours_under == theirs_under && is_last_word && ours.record != theirs.record);
    is_news.then(|| ours.record.clone())
}

/// The manifest of the checkpoint of a step that was made last, collected or not. Copies commit in any order.
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
fn under<'a>(run_log: &'a RunLog, entry: &Entry) -> Option<&'a str> {
    run_log.terms().take_while(|term| term.number <= entry.number).last().and_then(identity)
}
