//! The life of a step, and of an evaluation, between the program and the group.

use std::time::Instant;

use whimbrel_proto::v1::{self, worker_message::Message};

use crate::{
    control::settings::OnNonfinite,
    member::{Member, Phase, Summed, Todo},
    note::{self, BadNote, StepNote},
    session::{
        Session, SessionError,
        work::{Part, Update},
    },
    trainer::Shard,
};

impl Session {
    pub(crate) fn shard(&mut self) -> Option<(Shard<'_>, &mut [f32])> {
        let member = self.member.as_mut()?;
        let Phase::Step(computing) = &mut member.phase else { return None };
        if self.link.calls_off(member.generation.number) {
            return None;
        }
        let index = computing.next()?;
        if computing.samples.is_empty() {
            computing.samples = self.sampler.shard(member.step, index);
        }
        let shard = Shard { step: member.step, index, samples: &computing.samples };
        Some((shard, self.accumulator.next()))
    }

    pub(crate) fn push_shard(&mut self, loss: f64) {
        let Some(Phase::Step(computing)) = self.member.as_mut().map(|member| &mut member.phase) else {
            return;
        };
        // Without samples no shard was handed out, and what the buffer holds is no gradient.
        if computing.samples.is_empty() {
            computing.misused = true;
            return;
        }
        self.accumulator.push();
        computing.losses.push(loss);
        computing.samples.clear();
    }

    pub(crate) fn reduce(&mut self) -> Result<Option<Update<'_>>, SessionError> {
        // Whatever goes wrong from here on, the member is gone, and its connections with it.
        let Some(mut member) = self.member.take() else { return Ok(None) };
        let number = member.generation.number;
        let Phase::Step(computing) = &mut member.phase else {
            return Err(misuse("a reduction without a step"));
        };
        if self.link.calls_off(number) {
            self.member = Some(member);
            return Ok(None);
        }
        if computing.misused || computing.next().is_some() {
            let (pushed, shards) = (computing.losses.len(), &computing.shards);
            return Err(misuse(&format!("{pushed} losses pushed one by one for shards {shards:?}")));
        }
        let asked = self.link.asked_of(number);
        let losses = std::mem::take(&mut computing.losses);
        let (checkpoint, busy) = (asked.checkpoints > member.asks_met, self.saver.is_busy());
        let own = StepNote { halt: asked.halt, checkpoint, busy, losses };
        let computed_in = computing.began.elapsed();
        let computed = Instant::now();
        let reduced = member.group.all_reduce(member.step, &self.accumulator, &own.encode(), &mut self.sum);
        let notes = match reduced {
            Ok(notes) => notes,
            Err(error) => return self.break_off(member, &error).map(|()| None),
        };
        let reduced_in = computed.elapsed();
        let agreed = match note::agree(&member.generation, member.step, &notes) {
            Ok(agreed) => agreed,
            Err(bad) => return Ok(self.break_on_note(member, bad)),
        };
        let step = member.step;
        let skipped = match self.gradients.first_nonfinite(&self.sum) {
            None => None,
            Some(found) if self.terms.on_nonfinite == OnNonfinite::Skip => Some(found.tensor),
            Some(found) => {
                let (tensor, element, value) = (found.tensor, found.element, found.value);
                return Err(SessionError::Nonfinite { step, tensor, element, value });
            }
        };
        let apply = skipped.is_none();
        let due = agreed.checkpoint || self.terms.saves_at(step + 1) || member.save_postponed;
        // Training does not wait for a store: while somebody still uploads, all go on and save when nobody does. The
        // last state of a run, or of a generation, is worth the wait.
        let checkpoint = due && (!agreed.busy || agreed.halt || step + 1 == self.terms.context.steps);
        member.save_postponed = due && !checkpoint;
        let todo = Todo { checkpoint, evaluate: self.terms.evaluates_at(step + 1), halt: agreed.halt };
        member.phase = Phase::Applying(Summed { todo, loss: agreed.loss, computed_in, reduced_in, skipped });
        self.member = Some(member);
        Ok(apply.then_some(Update { step, gradient: &self.sum }))
    }

    /// The program has applied the sum that it was handed, or there was none to apply: the state is that after `step`
    /// steps. Returns what is to be done at the boundary.
    pub(crate) fn applied(&mut self, generation: u64, rank: usize, step: u64, summed: Summed) -> Todo {
        self.hold(generation, Some(step));
        self.loss = Some(summed.loss);
        if rank == 0 {
            self.link.outbox().send(Message::StepApplied(v1::StepApplied {
                generation,
                step,
                loss: summed.loss,
                compute_seconds: summed.computed_in.as_secs_f64(),
                reduce_seconds: summed.reduced_in.as_secs_f64(),
                skipped: summed.skipped,
            }));
        }
        summed.todo
    }

    /// Reports a step of an earlier generation. The coordinator takes no notice where it has heard of it.
    pub(crate) fn report_step(&self, generation: u64, step: u64, loss: f64) {
        let (compute_seconds, reduce_seconds, skipped) = (0.0, 0.0, None);
        self.link.outbox().send(Message::StepApplied(v1::StepApplied {
            generation,
            step,
            loss,
            compute_seconds,
            reduce_seconds,
            skipped,
        }));
    }

    pub(crate) fn part(&mut self) -> Option<Part> {
        let member = self.member.as_ref()?;
        let Phase::Evaluating(evaluating, _) = &member.phase else { return None };
        if self.link.calls_off(member.generation.number) {
            return None;
        }
        let index = evaluating.parts.clone().nth(evaluating.values.len())?;
        Some(Part { index, parts: member.generation.shards })
    }

    pub(crate) fn push_part(&mut self, value: Option<f64>) {
        if let Some(Phase::Evaluating(evaluating, _)) = self.member.as_mut().map(|member| &mut member.phase) {
            evaluating.values.push(value);
        }
    }

    pub(crate) fn finish_evaluation(&mut self) -> Result<(), SessionError> {
        let Some(mut member) = self.member.take() else { return Ok(()) };
        let number = member.generation.number;
        let Phase::Evaluating(evaluating, todo) = &member.phase else {
            return Err(misuse("the end of an evaluation that was not begun"));
        };
        if self.link.calls_off(number) {
            self.member = Some(member);
            return Ok(());
        }
        let (todo, values, parts) = (*todo, &evaluating.values, &evaluating.parts);
        if values.len() != parts.len() {
            return Err(misuse(&format!("{} values for the parts {parts:?} of an evaluation", values.len())));
        }
        let notes = match member.group.exchange(member.step, &note::encode_parts(values)) {
            Ok(notes) => notes,
            Err(error) => return self.break_off(member, &error),
        };
        match note::sum_parts(&member.generation, member.step, &notes) {
            Ok(val_loss) => self.evaluated(&member, val_loss),
            Err(bad) => {
                self.break_on_note::<()>(member, bad);
                return Ok(());
            }
        }
        member.phase = Phase::Boundary(todo);
        self.member = Some(member);
        Ok(())
    }

    fn evaluated(&mut self, member: &Member, val_loss: Option<f64>) {
        self.val_loss = val_loss;
        if let Some(val_loss) = val_loss.filter(|_| member.rank == 0) {
            let (generation, step) = (member.generation.number, member.step);
            self.link.outbox().send(Message::Evaluated(v1::Evaluated { generation, step, val_loss }));
        }
    }

    fn break_on_note<T>(&mut self, member: Member, BadNote(rank): BadNote) -> Option<T> {
        let suspect = member.generation.members[rank].worker;
        let reason = format!("the note of {suspect} makes no sense; are all workers of one version?");
        self.leave_broken(member, reason, Some(suspect));
        None
    }
}

fn misuse(what: &str) -> SessionError {
    SessionError::Misuse(what.to_owned())
}
