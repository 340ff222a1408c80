//! How the directory of a run compares with another directory of the same run.

use serde_json::{Value, json};
use whimbrel_store::Relation;

use crate::output::words::bytes;

/// Which of two directories is ahead, and what the one here lacks.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The URI of the other directory.
    pub(crate) against: String,
    pub(crate) relation: Relation,
    /// What the directory here lacks; `None` where the other is not to be copied here.
    pub(crate) lacks: Option<Lacks>,
}

/// What a directory lacks of another.
#[derive(Debug)]
pub(crate) struct Lacks {
    /// Steps between the newest checkpoint here and there.
    pub(crate) steps: u64,
    /// Checkpoints that are not here and can be copied.
    pub(crate) checkpoints: usize,
    /// Packs to copy.
    pub(crate) packs: usize,
    /// Bytes of these packs.
    pub(crate) bytes: u64,
    /// Checkpoints that are not here and cannot be read there.
    pub(crate) left_out: usize,
}

impl Comparison {
    /// For people.
    pub(super) fn text(&self) -> String {
        let against = &self.against;
        match (self.relation, &self.lacks) {
            (Relation::Ahead, _) => format!("ahead of {against}: the run went on here"),
            (Relation::Diverged, _) => {
                format!("diverged from {against}: the run continued in both, independently")
            }
            (_, None) => format!("the run itself, of which {against} is a copy"),
            (_, Some(Lacks { steps: 0, checkpoints: 0, bytes: 0, left_out: 0, .. })) => {
                format!("up to date with {against}")
            }
            (_, Some(Lacks { steps, checkpoints, bytes: size, left_out, .. })) => {
                let unreadable = match left_out {
                    0 => String::new(),
                    left_out => format!(" and {left_out} that cannot be read there"),
                };
                let size = bytes(*size);
                format!(
                    "{steps} steps behind {against}: lacks {checkpoints} of its checkpoints{unreadable}, {size} to copy"
                )
            }
        }
    }

    /// For programs.
    pub(super) fn value(&self) -> Value {
        let relation = match self.relation {
            Relation::Behind => "behind",
            Relation::Same => "same",
            Relation::Ahead => "ahead",
            Relation::Diverged => "diverged",
        };
        let lacks = self.lacks.as_ref();
        json!({
            "against": self.against,
            "relation": relation,
            "steps": lacks.map(|lacks| lacks.steps),
            "checkpoints": lacks.map(|lacks| lacks.checkpoints),
            "packs": lacks.map(|lacks| lacks.packs),
            "bytes": lacks.map(|lacks| lacks.bytes),
            "left_out": lacks.map(|lacks| lacks.left_out),
        })
    }
}
