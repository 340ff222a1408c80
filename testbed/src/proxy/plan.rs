//! What the proxy was told to do, and what it saw.

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

/// What becomes of an operation after the test was called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes its way.
    Pass,
    /// Its connection is cut.
    Cut,
}

/// When the test is called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the request goes to the server.
    Before,
    /// When the server has answered.
    After,
}

pub(super) type Wanted = Box<dyn Fn(&Operation, &Bytes) -> bool + Send>;
pub(super) type Action = Box<dyn FnOnce(&Operation) -> Then + Send>;

/// A call back to the test, made once.
pub(super) struct Hook {
    pub(super) moment: Moment,
    pub(super) wanted: Wanted,
    pub(super) action: Action,
}

/// The plan and the record, shared by the test and the proxy's connections.
#[derive(Clone, Debug)]
pub(super) struct Plan(Arc<Mutex<State>>);

struct State {
    /// How often the record has begun anew.
    term: usize,
    recognizer: Recognizer,
    faults: HashMap<Operation, Fault>,
    outages: HashMap<Operation, Fault>,
    outage: Option<Fault>,
    hooks: Vec<Hook>,
    seen: Vec<Seen>,
    happened: usize,
    listings: HashMap<String, Bytes>,
    late: Vec<(request::Parts, Bytes)>,
}

impl State {
    fn new(root: &str) -> Self {
        Self {
            term: 0,
            recognizer: Recognizer::new(root),
            faults: HashMap::new(),
            outages: HashMap::new(),
            outage: None,
            hooks: Vec::new(),
            seen: Vec::new(),
            happened: 0,
            listings: HashMap::new(),
            late: Vec::new(),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("State");
        told.field("faults", &self.faults).field("outage", &self.outage).field("seen", &self.seen);
        told.finish_non_exhaustive()
    }
}

/// A place in the record of a term.
#[derive(Clone, Copy)]
pub(super) struct Place {
    term: usize,
    index: usize,
}

/// A request that was recognised: its place in the record, and what is to happen to it.
pub(super) struct Verdict {
    pub(super) operation: Operation,
    pub(super) place: Place,
    pub(super) fault: Option<Fault>,
}

impl Plan {
    pub(super) fn new(root: &str) -> Self {
        Self(Arc::new(Mutex::new(State::new(root))))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// Forgets everything, and names operations relative to another root from here on.
    pub(super) fn begin(&self, root: &str) {
        self.with(|state| *state = State { term: state.term + 1, ..State::new(root) });
    }

    pub(super) fn fail_at(&self, operation: Operation, fault: Fault) {
        self.with(|state| state.faults.insert(operation, fault));
    }

    pub(super) fn fail_from(&self, operation: Operation, fault: Fault) {
        self.with(|state| state.outages.insert(operation, fault));
    }

    pub(super) fn outage(&self, fault: Option<Fault>) {
        self.with(|state| state.outage = fault);
    }

    pub(super) fn hook(&self, hook: Hook) {
        self.with(|state| state.hooks.push(hook));
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.clone())
    }

    pub(super) fn happened(&self) -> usize {
        self.with(|state| state.happened)
    }

    /// Recognises a request, records it, and says what is to happen to it.
    pub(super) fn judge(&self, request: &request::Parts, body: &Bytes) -> Verdict {
        self.with(|state| {
            let operation = state.recognizer.recognize(request);
            let place = Place { term: state.term, index: state.seen.len() };
            let seen = Seen { operation: operation.clone(), sent: body.len(), answered: 0, status: None };
            state.seen.push(seen);
            if let Some(fault) = state.outages.remove(&operation) {
                state.outage = Some(fault);
            }
            let fault = state.faults.remove(&operation).or(state.outage);
            state.happened += usize::from(fault.is_some());
            Verdict { operation, place, fault }
        })
    }

    /// The call back that is due, if one is.
    pub(super) fn due(&self, moment: Moment, operation: &Operation, body: &Bytes) -> Option<Action> {
        self.with(|state| {
            let is_due = |hook: &Hook| hook.moment == moment && (hook.wanted)(operation, body);
            let place = state.hooks.iter().position(is_due)?;
            state.happened += 1;
            Some(state.hooks.remove(place).action)
        })
    }

    /// Completes the record of an operation that the server answered.
    pub(super) fn answered(&self, place: Place, status: u16, bytes: usize) {
        self.with(|state| {
            // The record may have begun anew while the server was at it.
            if place.term == state.term {
                let seen = &mut state.seen[place.index];
                (seen.status, seen.answered) = (Some(status), bytes);
            }
        });
    }

    /// Remembers a listing, and returns the one before it.
    pub(super) fn listing(&self, name: &str, body: Bytes) -> Option<Bytes> {
        self.with(|state| state.listings.insert(name.to_owned(), body))
    }

    /// Keeps a request until it is to arrive.
    pub(super) fn delay(&self, head: request::Parts, body: Bytes) {
        self.with(|state| state.late.push((head, body)));
    }

    /// The requests that were kept.
    pub(super) fn delayed(&self) -> Vec<(request::Parts, Bytes)> {
        self.with(|state| std::mem::take(&mut state.late))
    }
}
