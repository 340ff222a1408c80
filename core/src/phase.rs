//! What a run is doing, in one word for people.

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for nodes, or for more workers than there are.
    Waiting,
    /// `setup` runs, or workers start.
    Starting,
    /// A generation applies steps.
    Training,
    /// Between two generations.
    Regrouping,
    /// It saves a checkpoint and then stops, or its end is being recorded.
    Stopping,
    /// It stopped and can be resumed.
    Stopped,
    /// Every step is applied.
    Finished,
    /// It could not go on.
    Failed,
    /// A person cancelled it.
    Cancelled,
}

impl Phase {
    /// Whether the run goes no further under this coordinator.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Failed | Self::Cancelled)
    }
}
