//! A linear regression with momentum: the smallest trainer whose bits show who summed what in which order.

use std::thread::{self, JoinHandle};

use whimbrel_collective::{Accumulator, Reduction};
use whimbrel_plan::Sampler;
use whimbrel_state::{Hash, StateBytes, digest};
use whimbrel_worker::{
    Context, Environment, Program, Session, SessionError, Shard, TensorMut, TensorSpec, Trainer,
    TrainerError, Work,
};

use super::{GLOBAL_BATCH, SEED, SHARDS};

pub const WIDTH: usize = 301;
pub const SAMPLES: u64 = 500;

pub struct Linear {
    weights: Vec<f32>,
    bias: Vec<f32>,
    momentum: Vec<f32>,
    rate: f32,
    /// What happens in the middle of a shard's computation: called with the step, the shard and its gradient.
    pub incident: Incident,
    /// What happens right before an update: called with the step.
    pub before_update: Box<dyn FnMut(u64) + Send>,
}

pub type Incident = Box<dyn FnMut(u64, u32, &mut [f32]) -> Result<(), TrainerError> + Send>;

/// Nothing happens.
pub fn quiet() -> Incident {
    Box::new(|_, _, _| Ok(()))
}

fn noise(number: u64) -> f32 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

impl Linear {
    pub fn new(context: &Context, incident: Incident) -> Result<Self, TrainerError> {
        let rate = context.settings["rate"].as_f64().ok_or("no rate")? as f32;
        Ok(Self::with(context.seed, rate, incident))
    }

    fn with(seed: u64, rate: f32, incident: Incident) -> Self {
        let weights = (0..WIDTH as u64).map(|index| 0.1 * noise(seed << 32 | index)).collect();
        Self {
            weights,
            bias: vec![0.0],
            momentum: vec![0.0; WIDTH + 1],
            rate,
            incident,
            before_update: Box::new(|_| {}),
        }
    }

    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    fn input(sample: u64, index: usize) -> f32 {
        noise(sample * 1000 + index as u64)
    }

    fn error(&self, sample: u64) -> f32 {
        let products =
            self.weights.iter().enumerate().map(|(index, weight)| weight * Self::input(sample, index));
        products.sum::<f32>() + self.bias[0] - noise(sample * 1000 + 999)
    }

    /// BLAKE3 of the state, as after `step` steps.
    pub fn digest(&mut self, step: u64) -> Hash {
        let bytes = StateBytes::new(self.state()).unwrap();
        let Ok(hash) = digest::<std::convert::Infallible>(bytes.layout(), step, |index, sink| {
            sink(bytes.tensor(index));
            Ok(())
        });
        hash
    }

    /// The state after `steps` steps computed by one worker without any disturbance.
    pub fn alone(steps: u64) -> Hash {
        let mut trainer = Self::with(SEED, 0.5, quiet());
        let mut sampler = Sampler::new(SAMPLES, SEED, GLOBAL_BATCH, SHARDS);
        let mut accumulator = Accumulator::new(Reduction::Exact, WIDTH + 1, SHARDS);
        for step in 0..steps {
            accumulator.begin(0..SHARDS);
            for index in 0..SHARDS {
                let samples = sampler.shard(step, index);
                trainer.shard(&Shard { step, index, samples: &samples }, accumulator.next()).unwrap();
                accumulator.push();
            }
            let sum = accumulator.partials().next().unwrap().1.to_vec();
            trainer.apply(step, &sum).unwrap();
        }
        trainer.digest(steps)
    }
}

impl Trainer for Linear {
    fn samples(&self) -> u64 {
        SAMPLES
    }

    fn gradients(&self) -> Vec<TensorSpec> {
        vec![TensorSpec::f32("bias", [1]), TensorSpec::f32("weights", [WIDTH])]
    }

    fn state(&mut self) -> Vec<TensorMut<'_>> {
        vec![
            TensorMut::f32("weights", [WIDTH], &mut self.weights),
            TensorMut::f32("bias", [1], &mut self.bias),
            TensorMut::f32("momentum", [WIDTH + 1], &mut self.momentum),
        ]
    }

    fn shard(&mut self, shard: &Shard<'_>, gradient: &mut [f32]) -> Result<f64, TrainerError> {
        gradient.fill(0.0);
        let mut loss = 0.0;
        for &sample in shard.samples {
            let error = self.error(sample);
            let slope = error / GLOBAL_BATCH as f32;
            gradient[0] += slope;
            for (index, place) in gradient[1..].iter_mut().enumerate() {
                *place += slope * Self::input(sample, index);
            }
            loss += f64::from(error * slope) / 2.0;
        }
        (self.incident)(shard.step, shard.index, gradient)?;
        Ok(loss)
    }

    fn apply(&mut self, step: u64, gradient: &[f32]) -> Result<(), TrainerError> {
        (self.before_update)(step);
        let parameters = self.bias.iter_mut().chain(&mut self.weights);
        for ((parameter, momentum), slope) in parameters.zip(&mut self.momentum).zip(gradient) {
            *momentum = 0.9 * *momentum + slope;
            *parameter -= self.rate / 60.0 * *momentum;
        }
        Ok(())
    }

    fn evaluate(&mut self, part: u32, parts: u32) -> Result<Option<f64>, TrainerError> {
        let squares = (0..64_u64).filter(|sample| (sample % u64::from(parts)) as u32 == part);
        Ok(Some(squares.map(|sample| f64::from(self.error(SAMPLES + sample)).powi(2) / 64.0).sum()))
    }
}

/// How a worker's thread ended.
pub struct Ended {
    pub trainer: Linear,
    pub how: How,
}

#[derive(Debug)]
pub enum How {
    /// The coordinator ended it.
    Left,
    /// The incident ended it, without a word to anybody.
    Died(String),
    /// The session could not go on.
    Failed(SessionError),
}

/// A worker on a thread of its own.
pub fn hire(environment: Environment, incident: Incident) -> JoinHandle<Ended> {
    hire_who(environment, |trainer| trainer.incident = incident)
}

/// A worker on a thread of its own, whose trainer is changed before it is ready.
pub fn hire_who(
    environment: Environment,
    change: impl FnOnce(&mut Linear) + Send + 'static,
) -> JoinHandle<Ended> {
    thread::spawn(move || {
        let joiner = Session::connect(environment).unwrap();
        let mut trainer = Linear::new(joiner.context(), quiet()).unwrap();
        change(&mut trainer);
        let (samples, gradients) = (trainer.samples(), trainer.gradients());
        let program = Program {
            samples,
            fingerprint: Default::default(),
            gradients,
            tokens_per_sample: None,
            numerics: String::new(),
        };
        let mut session = joiner.ready(program, &mut trainer).unwrap();
        let how = match drive(&mut session, &mut trainer) {
            Ok(how) => how,
            Err(error) => {
                session.fail(&error);
                How::Failed(error)
            }
        };
        Ended { trainer, how }
    })
}

fn drive(session: &mut Session, trainer: &mut Linear) -> Result<How, SessionError> {
    let context = session.context().clone();
    while let Some(work) = session.next(trainer)? {
        match work {
            Work::Initialise => {
                let incident = std::mem::replace(&mut trainer.incident, quiet());
                *trainer = Linear::new(&context, incident).unwrap();
            }
            Work::Step(mut step) => {
                while let Some((shard, gradient)) = step.shard() {
                    match trainer.shard(&shard, gradient) {
                        Ok(loss) => step.push(loss),
                        Err(error) => return Ok(How::Died(error.to_string())),
                    }
                }
                if let Some(update) = step.reduce()? {
                    trainer.apply(update.step, update.gradient).unwrap();
                }
            }
            Work::Evaluate(mut evaluation) => {
                while let Some(part) = evaluation.part() {
                    let value = trainer.evaluate(part.index, part.parts).unwrap();
                    evaluation.push(value);
                }
                evaluation.finish()?;
            }
        }
    }
    Ok(How::Left)
}
