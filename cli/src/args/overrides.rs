//! `--set` and `--unset`: changes to the keys of a run spec, for the commands that read one.

use whimbrel_spec::Override;

/// Changes to the keys of a run spec.
#[derive(Debug, clap::Args)]
pub(crate) struct OverrideArgs {
    /// Set a key of the spec, e.g. train.steps=40; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Override>,

    /// Unset a key of the spec, e.g. setup, as if the file did not have it; may be repeated. Applied after every --set.
    #[arg(long, value_name = "KEY", value_parser = Override::unset)]
    pub(crate) unset: Vec<Override>,
}

impl OverrideArgs {
    /// All changes, in the order in which they are applied.
    pub(crate) fn all(&self) -> Vec<Override> {
        self.set.iter().chain(&self.unset).cloned().collect()
    }
}
