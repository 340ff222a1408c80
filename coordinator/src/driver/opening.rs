//! Runs that come: submitted, resumed, or taken up from the store; and questions about those that are on their way.

use std::{collections::BTreeSet, mem::take};

use tokio::sync::mpsc;
use whimbrel_core::{Event, Start};
use whimbrel_plan::RunId;
use whimbrel_proto::{border, v1, v1::submit_request::What};
use whimbrel_store::{Mode, Sources};

use super::{Driver, has_ended};
use crate::{driver::{hosted_run::HostedRun, input::{Input, Reply}}, open::{facts, take_over::{self, Opened, SubmitError}}, record::{output_writer::OutputWriter, recorder, replication::{Keeping, Replication}}};

/// What is known of the runs in the store, as long as not all is.
#[derive(Debug)]
pub(super) struct Coming {
    /// The store is being looked through: which runs there are is not known yet.
    looking: bool,
    /// Runs that are being taken up, or resumed.
    runs: BTreeSet<RunId>,
    /// Questions that have no answer yet.
    waiting: Vec<Input>,
}

impl Coming {
    pub(super) fn new(submitter: Mode) -> Self {
        Self { looking: submitter == Mode::Service, runs: BTreeSet::new(), waiting: Vec::new() }
    }

    pub(super) fn wait(&mut self, question: Input) {
        self.waiting.push(question);
    }

    pub(super) fn looked_through(&mut self) {
        self.looking = false;
    }
}

impl Driver {
    /// Whether an input is a question, of a client or of who looks through the store, to which there is no answer yet. How a
    /// run stands can be told as soon as its log is read; what is wanted of it can be passed on once it is taken up.
    pub(super) fn has_to_wait(&self, input: &Input) -> bool {
        let Coming { looking, runs, .. } = &self.coming;
        let is_here = |run: &RunId| self.hosted.contains_key(run);
        let is_coming = |run: &RunId| runs.contains(run) || *looking && !is_here(run);
        match input {
            Input::Submit(What::Resume(run), _) => border::run_id(run).is_ok_and(|run| is_coming(&run)),
            // Somebody resumes it, and it may be here in the end.
            Input::TakingUp(status, _) => border::run_id(&status.run).is_ok_and(|run| runs.contains(&run)),
            // A run that is made now is not to be found in the store as one to take up.
            Input::Submit(What::Spec(_), _) | Input::List(_) => *looking,
            Input::Get(run, _) => *looking && !is_here(run) && !self.archive.contains_key(run),
            Input::Cancel(run, _) | Input::Stop(run, _) | Input::Watch(run, _) | Input::Logs(run, _) => {
                is_coming(run)
            }
            _ => false,
        }
    }

    /// Takes the questions that waited; those that still have no answer wait on, and those whose client has gone are
    /// dropped.
    pub(super) fn answer_those_that_waited(&mut self) {
        for input in take(&mut self.coming.waiting) {
            if !input.is_forsaken() {
                self.take(input);
            }
        }
    }

    /// A run was found in the store that goes on. Says whether it is to be taken up: not if it is here already.
    pub(super) fn taking_up(&mut self, status: v1::RunStatus) -> bool {
        match border::run_id(&status.run) {
            Ok(run) if self.shutdown.is_none() && !self.hosted.contains_key(&run) => {
                self.archive.insert(run.clone(), status);
                self.coming.runs.insert(run);
                true
            }
            _ => false,
        }
    }

    /// A run is in the store that nobody here works on, for the time being at least; but for whoever resumes it just now.
    pub(super) fn found(&mut self, status: v1::RunStatus) {
        if let Ok(run) = border::run_id(&status.run)
            && !self.hosted.contains_key(&run)
        {
            self.archive.insert(run, status);
        }
    }

    pub(super) fn not_taken_up(&mut self, status: v1::RunStatus) {
        let run = border::run_id(&status.run).ok();
        self.found(status);
        self.has_come(run);
    }

    /// A run is no longer on its way.
    pub(super) fn has_come(&mut self, run: Option<RunId>) {
        if run.is_some_and(|run| self.coming.runs.remove(&run)) {
            self.answer_those_that_waited();
        }
    }

    pub(super) fn open(&mut self, what: What, reply: Reply<Result<v1::SubmitResponse, SubmitError>>) {
        if self.shutdown.is_some() {
            reply.send(Err(SubmitError::ShuttingDown)).ok();
            return;
        }
        let resumed = match &what {
            What::Resume(run) => border::run_id(run).ok(),
            What::Spec(_) => None,
        };
        if let Some(id) = &resumed {
            if self.core.view(id).is_some_and(|view| !has_ended(view.phase)) {
                reply.send(Err(SubmitError::UnderWay(id.clone()))).ok();
                return;
            }
            // Whoever resumes it once more meanwhile waits for what becomes of this.
            self.coming.runs.insert(id.clone());
        }
        let (store, submitter) = (self.store.clone(), self.submitter);
        let (name, inputs) = (self.name.clone(), self.inputs.clone());
        let shutting_down = self.shutting_down.clone();
        self.tasks.spawn(async move {
            let opened = match what {
                // A run that is made is begun, or it would be there and nobody told of it.
                What::Spec(text) => take_over::submit(&store, &text, submitter, &name).await,
                What::Resume(run) => {
                    let resumed =
                        shutting_down.run_until_cancelled(take_over::resume(&store, &run, &name)).await;
                    resumed.unwrap_or(Err(SubmitError::ShuttingDown))
                }
            };
            inputs.send(Input::Opened(resumed, Box::new(opened), Some(reply)));
        });
    }

    pub(super) fn opened(
        &mut self,
        opened: Result<Opened, SubmitError>,
        reply: Option<Reply<Result<v1::SubmitResponse, SubmitError>>>,
    ) {
        let opened = opened.and_then(|opened| self.admit(opened));
        let answer = opened.map(|Opened { dir, spec, term, start, past, replicas, found }| {
            let (id, epoch) = (dir.id().clone(), term.epoch());
            let response =
                v1::SubmitResponse { run: id.to_string(), uri: dir.uri().to_owned(), step: start.step() };
            let (orders, tasks) = mpsc::unbounded_channel();
            let (output, writing) = OutputWriter::new(dir.clone(), epoch);
            self.tasks.spawn(writing);
            let inputs = self.inputs.clone();
            let keeping = Keeping {
                run: dir.clone(),
                epoch,
                who: self.name.clone(),
                retention: facts::retention(&spec),
                limits: facts::limits(&spec),
                inputs: inputs.clone(),
                shutdown: self.shutting_down.clone(),
            };
            let unopened = replicas.iter().filter(|replica| replica.dir.is_none());
            let unopened = unopened.map(|replica| replica.store.clone()).collect();
            let dirs = replicas.iter().filter_map(|replica| replica.dir.clone());
            let sources = dirs.fold(Sources::new(dir), Sources::with_replica);
            let replication = Replication::start(&keeping, term.run_log(), replicas, &mut self.tasks);
            let standings = replication.standings();
            let retention = keeping.retention;
            self.tasks.spawn(recorder::record(
                term,
                sources.clone(),
                unopened,
                retention,
                replication,
                inputs,
                tasks,
            ));
            let facts = facts::run(&spec);
            let checkpoint = matches!(start, Start::Checkpoint { .. }).then(|| start.step());
            self.archive.remove(&id);
            let hosted = HostedRun::new(spec, sources, epoch, output, orders, checkpoint);
            self.hosted.insert(id.clone(), hosted.with_replicas(standings, found));
            tracing::info!(run = %id, epoch, step = start.step(), "term started");
            self.decide(Event::RunOpened { run: id, facts, epoch, start, past });
            response
        });
        if let Some(reply) = reply {
            reply.send(answer).ok();
        }
    }

    /// Turns away a run that was opened too late: the coordinator is about to end, or a later opening has come before.
    fn admit(&self, opened: Opened) -> Result<Opened, SubmitError> {
        let id = opened.dir.id();
        if self.shutdown.is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        match self.hosted.get(id) {
            Some(hosted) if hosted.epoch >= opened.term.epoch() => Err(SubmitError::UnderWay(id.clone())),
            _ => Ok(opened),
        }
    }
}
