//! The faults and callbacks that a test has set, and the record of operations. The test and the proxy share it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hyper::http::request;

use super::{
    fault::Fault,
    operation::{Operation, Recognizer, Seen},
};

/// What happens to an operation after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It continues.
    Pass,
    /// Its connection ends.
    Cut,
}

/// The moment of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the request is sent to the server.
    Before,
    /// After the server has answered.
    After,
}

pub(super) type Wanted = Box<dyn Fn(&Operation, &Bytes) -> bool + Send>;
pub(super) type Action = Box<dyn FnOnce(&Operation) -> Then + Send>;

/// A callback of the test, made once.
pub(super) struct Callback {
    pub(super) moment: Moment,
    pub(super) wanted: Wanted,
    pub(super) action: Action,
}

/// The plan and the record, shared by the test and the proxy's connections.
#[derive(Clone, Debug)]
pub(super) struct Plan(Arc<Mutex<State>>);

struct State {
    /// How often the test has reset the plan.
    resets: usize,
    recognizer: Recognizer,
    faults: HashMap<Operation, Fault>,
    callbacks: Vec<Callback>,
    seen: Vec<Seen>,
    happened: usize,
    listings: HashMap<String, Bytes>,
    late: Vec<(request::Parts, Bytes)>,
}

impl State {
    fn new(root: &str) -> Self {
        Self {
            resets: 0,
            recognizer: Recognizer::new(root),
            faults: HashMap::new(),
            callbacks: Vec::new(),
            seen: Vec::new(),
            happened: 0,
            listings: HashMap::new(),
            late: Vec::new(),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("faults", &self.faults)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// The index of an operation in the record, valid until the next reset.
#[derive(Clone, Copy)]
pub(super) struct RecordIndex {
    resets: usize,
    index: usize,
}

/// A recognised request: its operation, its index in the record, and the fault to inject.
pub(super) struct Recognized {
    pub(super) operation: Operation,
    pub(super) index: RecordIndex,
    pub(super) fault: Option<Fault>,
}

impl Plan {
    pub(super) fn new(root: &str) -> Self {
        Self(Arc::new(Mutex::new(State::new(root))))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// Forgets all faults, callbacks and records. Later operations are named relative to `root`.
    pub(super) fn begin(&self, root: &str) {
        self.with(|state| *state = State { resets: state.resets + 1, ..State::new(root) });
    }

    pub(super) fn fail_at(&self, operation: Operation, fault: Fault) {
        self.with(|state| state.faults.insert(operation, fault));
    }

    pub(super) fn call_back(&self, callback: Callback) {
        self.with(|state| state.callbacks.push(callback));
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.clone())
    }

    pub(super) fn happened(&self) -> usize {
        self.with(|state| state.happened)
    }

    /// Recognises a request and records it.
    pub(super) fn recognize(&self, request: &request::Parts, body: &Bytes) -> Recognized {
        self.with(|state| {
            let operation = state.recognizer.recognize(request);
            let index = RecordIndex { resets: state.resets, index: state.seen.len() };
            let seen = Seen { operation: operation.clone(), sent: body.len(), answered: 0, status: None };
            state.seen.push(seen);
            let fault = state.faults.remove(&operation);
            state.happened += usize::from(fault.is_some());
            Recognized { operation, index, fault }
        })
    }

    /// Takes the callback that is due at this moment of an operation, if there is one.
    pub(super) fn due(&self, moment: Moment, operation: &Operation, body: &Bytes) -> Option<Action> {
        self.with(|state| {
            let is_due =
                |callback: &Callback| callback.moment == moment && (callback.wanted)(operation, body);
            let index = state.callbacks.iter().position(is_due)?;
            state.happened += 1;
            Some(state.callbacks.remove(index).action)
        })
    }

    /// Adds the server's answer to the record of an operation.
    pub(super) fn answered(&self, at: RecordIndex, status: u16, bytes: usize) {
        self.with(|state| {
            // The test may have reset the plan while the server was working.
            if at.resets == state.resets {
                let seen = &mut state.seen[at.index];
                (seen.status, seen.answered) = (Some(status), bytes);
            }
        });
    }

    /// Stores a listing, and returns the previous one of the same name.
    pub(super) fn listing(&self, name: &str, body: Bytes) -> Option<Bytes> {
        self.with(|state| state.listings.insert(name.to_owned(), body))
    }

    /// Keeps a request for [`FaultProxy::deliver_late`](super::FaultProxy::deliver_late).
    pub(super) fn delay(&self, head: request::Parts, body: Bytes) {
        self.with(|state| state.late.push((head, body)));
    }

    /// Takes the requests that were kept.
    pub(super) fn delayed(&self) -> Vec<(request::Parts, Bytes)> {
        self.with(|state| std::mem::take(&mut state.late))
    }
}
