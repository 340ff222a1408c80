//! Runs that are submitted, resumed or adopted, from the question to the hosted run; and questions that must wait for them.

use std::{collections::BTreeSet, mem::take};

use tokio::sync::mpsc;
use whimbrel_core::{Event, Start};
use whimbrel_plan::RunId;
use whimbrel_proto::{border, v1, v1::submit_request::What};
use whimbrel_store::{HostedBy, Sources};

use super::{
    Driver,
    hosted_run::HostedRun,
    input::{Input, Reply, Submitted},
    tasks::RECORDER,
};
use crate::{
    events,
    open::{OpenedRun, adopt::Discovery, facts, resume::resume, submit::submit, submit_error::SubmitError},
    panics,
    record::{
        output_writer::OutputWriter,
        recorder::Recorder,
        replication::{ReplicaConfig, Replication},
        report::Reporter,
    },
};

/// The runs that are being opened, and the questions that wait for them.
#[derive(Debug)]
pub(super) struct Openings {
    /// Adoption still reads the logs in the store: which runs there are is not known yet.
    is_reading_logs: bool,
    /// Runs that are being adopted or resumed.
    runs: BTreeSet<RunId>,
    deferred: Vec<Input>,
}

impl Openings {
    pub(super) fn new(hosted_by: HostedBy) -> Self {
        Self { is_reading_logs: hosted_by == HostedBy::Service, runs: BTreeSet::new(), deferred: Vec::new() }
    }

    /// Notes that a run is being opened; returns false if it was already.
    pub(super) fn begin(&mut self, run: &RunId) -> bool {
        self.runs.insert(run.clone())
    }

    /// Keeps a question until it can be answered.
    pub(super) fn defer(&mut self, question: Input) {
        self.deferred.push(question);
    }
}

impl Driver {
    /// Whether an input is a question that cannot be answered yet:
    ///
    /// | the question | waits until |
    /// | --- | --- |
    /// | list the runs, submit a new one | every log is read; a new run must not be found as one to adopt |
    /// | get a run's status | every log is read, or the run is known |
    /// | resume, cancel, stop, watch a run, read its output | every log is read, and the run is not being opened |
    /// | adopt a run | the run is not being resumed |
    pub(super) fn must_wait(&self, input: &Input) -> bool {
        let Openings { is_reading_logs, runs, .. } = &self.openings;
        let is_hosted = |run: &RunId| self.hosted.contains_key(run);
        let is_opening = |run: &RunId| runs.contains(run) || *is_reading_logs && !is_hosted(run);
        match input {
            Input::Submit(What::Resume(run), _) => border::run_id(run).is_ok_and(|run| is_opening(&run)),
            Input::Discovered(Discovery::Adoptable(status, _)) => {
                border::run_id(&status.run).is_ok_and(|run| runs.contains(&run))
            }
            Input::Submit(What::Spec(_), _) | Input::List(_) => *is_reading_logs,
            Input::Get(run, _) => *is_reading_logs && !is_hosted(run) && !self.archive.contains_key(run),
            Input::Cancel(run, _) | Input::Stop(run, _) | Input::Watch(run, _) | Input::Logs(run, _) => {
                is_opening(run)
            }
            _ => false,
        }
    }

    /// Takes the deferred questions again. Those that must still wait are deferred once more; those whose caller has gone are
    /// dropped.
    fn retry_deferred(&mut self) {
        for input in take(&mut self.openings.deferred) {
            if !input.is_abandoned() {
                self.take(input);
            }
        }
    }

    /// Takes what adoption found or did.
    pub(super) fn discovered(&mut self, discovery: Discovery) {
        match discovery {
            Discovery::LogsRead => {
                self.openings.is_reading_logs = false;
                self.retry_deferred();
            }
            Discovery::Adoptable(status, reply) => {
                let run = border::run_id(&status.run).ok();
                // Not a run that a client has resumed meanwhile.
                let run = run.filter(|run| self.shutdown.is_none() && !self.hosted.contains_key(run));
                reply.send(run.is_some()).ok();
                if let Some(run) = run {
                    self.archive.insert(run.clone(), *status);
                    self.openings.runs.insert(run);
                }
            }
            Discovery::Archived(status) => self.archive(*status),
            Discovery::AdoptionFailed(run, reason) => {
                if let Some(status) = self.archive.get_mut(&run) {
                    (status.phase, status.detail) = (v1::Phase::Stopped.into(), reason);
                }
                self.opening_ended(Some(run));
            }
            Discovery::Adopted(run, opened) => {
                if let Err(error) = self.host(*opened) {
                    tracing::debug!(%run, %error, "an adopted run is not hosted");
                }
                self.opening_ended(Some(run));
            }
        }
    }

    /// Keeps the status of a run that is not hosted here.
    fn archive(&mut self, status: v1::RunStatus) {
        if let Ok(run) = border::run_id(&status.run)
            && !self.hosted.contains_key(&run)
        {
            self.archive.insert(run, status);
        }
    }

    /// A run is no longer being opened: it is hosted, or could not be opened.
    pub(super) fn opening_ended(&mut self, run: Option<RunId>) {
        if run.is_some_and(|run| self.openings.runs.remove(&run)) {
            self.retry_deferred();
        }
    }

    /// Starts to open a run for a client, in a task of its own, which sends `Input::Opened`.
    pub(super) fn open(&mut self, what: What, reply: Reply<Submitted>) {
        if self.shutdown.is_some() {
            reply.send(Err(SubmitError::ShuttingDown)).ok();
            return;
        }
        let resumed = match &what {
            What::Resume(run) => border::run_id(run).ok(),
            What::Spec(_) => None,
        };
        if let Some(id) = &resumed {
            if self.core.view(id).is_some_and(|view| !view.phase.has_ended()) {
                reply.send(Err(SubmitError::UnderWay(id.clone()))).ok();
                return;
            }
            // A second client that resumes it waits for the first.
            self.openings.runs.insert(id.clone());
        }
        let (store, hosted_by) = (self.store.clone(), self.hosted_by);
        let (name, inputs) = (self.name.clone(), self.inputs.clone());
        let shutting_down = self.shutting_down.clone();
        self.tasks.spawn(async move {
            let opening = async {
                match what {
                    // Not cancelled on shutdown: a run that is created must be reported to the client.
                    What::Spec(text) => submit(&store, &text, hosted_by, &name).await,
                    What::Resume(run) => {
                        let resumed = shutting_down.run_until_cancelled(resume(&store, &run, &name)).await;
                        resumed.unwrap_or(Err(SubmitError::ShuttingDown))
                    }
                }
            };
            let opened = panics::catch(opening).await;
            let opened = opened.unwrap_or_else(|message| Err(SubmitError::Panicked(message)));
            inputs.send(Input::Opened(resumed, Box::new(opened), reply));
        });
    }

    /// Hosts a run that is opened: starts its recorder, replica tasks and output writer, and tells the core. Refuses a run that
    /// was opened too late: during a shutdown, or after a later term was started here.
    pub(super) fn host(&mut self, opened: OpenedRun) -> Submitted {
        let OpenedRun { dir, spec, term, start, past, replicas, warnings } = opened;
        let (id, epoch) = (dir.id().clone(), term.epoch());
        if self.shutdown.is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        if self.hosted.get(&id).is_some_and(|hosted| hosted.epoch >= epoch) {
            return Err(SubmitError::UnderWay(id));
        }
        let response =
            v1::SubmitResponse { run: id.to_string(), uri: dir.uri().to_owned(), step: start.step() };
        let (output, writing) = OutputWriter::new(dir.clone(), epoch);
        self.tasks.spawn_for_term(&id, epoch, "output writer", writing);

        let reporter = Reporter { run: id.clone(), epoch, driver: self.reports.0.clone() };
        let config = ReplicaConfig {
            run: dir.clone(),
            coordinator: self.name.clone(),
            retention: facts::retention(&spec),
            limits: facts::limits(&spec),
            reporter: reporter.clone(),
            shutdown: self.shutting_down.clone(),
        };
        let unopened = replicas.iter().filter(|replica| replica.dir.is_none());
        let unopened = unopened.map(|replica| replica.store.clone()).collect();
        let dirs = replicas.iter().filter_map(|replica| replica.dir.clone());
        let sources = dirs.fold(Sources::new(dir), Sources::with_replica);
        let (replication, replica_tasks) = Replication::new(&config, term.run_log(), replicas);
        for task in replica_tasks {
            self.tasks.spawn_for_term(&id, epoch, "replica task", task.run());
        }
        let statuses = replication.statuses();
        let recorder =
            Recorder::new(term, sources.clone(), unopened, config.retention, replication, reporter);
        let (sender, requests) = mpsc::unbounded_channel();
        self.tasks.spawn_for_term(&id, epoch, RECORDER, recorder.run(requests));

        let run_facts = facts::run_facts(&spec);
        let checkpoint = matches!(start, Start::Checkpoint { .. }).then(|| start.step());
        self.archive.remove(&id);
        let mut hosted = HostedRun::new(spec, sources, epoch, checkpoint, output, sender, statuses);
        if let Some(previous) = self.hosted.remove(&id).filter(|previous| previous.reopening.is_some()) {
            hosted.continue_from(previous);
        }
        let requested = hosted.requested.clone();
        for text in warnings {
            // The take-over has logged them.
            hosted.watchers.send(events::warning(text));
        }
        self.hosted.insert(id.clone(), hosted);
        tracing::info!(run = %id, epoch, step = start.step(), "term started");
        self.decide(Event::RunOpened { run: id.clone(), facts: run_facts, epoch, start, earlier: past });
        if let Some(event) = requested {
            self.run_event(id, event);
        }
        Ok(response)
    }
}
