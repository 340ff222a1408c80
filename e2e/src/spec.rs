//! Run specs that take seconds.

use std::path::Path;

use crate::programs;

/// A small run of the example trainer. Tests change its fields.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `name`.
    pub name: String,
    /// `setup`.
    pub setup: Option<String>,
    /// `command`.
    pub command: Vec<String>,
    /// `train.steps`.
    pub steps: u64,
    /// `[train.settings]`, in TOML.
    pub settings: String,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Further keys of `[checkpoint]`, in TOML.
    pub checkpoint: String,
    /// Further tables, in TOML.
    pub more: String,
}

impl Spec {
    /// The example's model with one small layer: steps of a few milliseconds each.
    pub fn small(steps: u64) -> Self {
        Self {
            name: "small".into(),
            setup: None,
            command: vec![programs::char_lm().display().to_string()],
            steps,
            settings: "layers = 1\nheads = 2\nwidth = 32\ncontext = 32".into(),
            checkpoint_every: 10,
            checkpoint: String::new(),
            more: String::new(),
        }
    }

    /// The trainer that fails as `settings` say.
    pub fn faulty(steps: u64, settings: &str) -> Self {
        Self {
            name: "faulty".into(),
            command: vec![programs::faulty_trainer().display().to_string()],
            settings: settings.into(),
            ..Self::small(steps)
        }
    }

    /// Writes the spec to `run.toml` in a folder.
    pub fn write(&self, folder: &Path) -> std::path::PathBuf {
        let setup = self.setup.as_ref().map(|setup| format!("setup = {setup:?}\n")).unwrap_or_default();
        let text = format!(
            "name = {:?}\n{setup}command = {:?}\n\n\
             [train]\nsteps = {}\nglobal_batch = 32\nshards = 16\nseed = 7\n\n[train.settings]\n{}\n\n\
             [checkpoint]\nevery = \"{} steps\"\nkeep = 3\n{}\n\n{}\n",
            self.name,
            self.command,
            self.steps,
            self.settings,
            self.checkpoint_every,
            self.checkpoint,
            self.more
        );
        let path = folder.join("run.toml");
        std::fs::write(&path, text).unwrap();
        path
    }
}
