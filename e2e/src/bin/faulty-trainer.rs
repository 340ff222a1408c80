//! A trainer of a small linear model that fails as its settings say: by a panic, an error, a hang or a NaN at a step.

use std::process::ExitCode;

use whimbrel_worker::{Context, Shard, TensorMut, TensorSpec, Trainer, TrainerError, train};

const SIZE: usize = 256;

struct Faulty {
    settings: serde_json::Value,
    weights: Vec<f32>,
    /// State without a gradient, of `ballast_mib` MiB. Every step changes some of it.
    ballast: Vec<f32>,
    batch: f32,
}

impl Faulty {
    fn new(context: &Context) -> Result<Self, TrainerError> {
        let settings = context.settings.clone();
        if settings["panic_at_start"] == true {
            panic_on_purpose("the trainer cannot be built");
        }
        let ballast = vec![1.0; (settings["ballast_mib"].as_u64().unwrap_or(0) as usize) << 18];
        Ok(Self { settings, weights: vec![0.0; SIZE], ballast, batch: context.global_batch as f32 })
    }

    fn due(&self, what: &str, step: u64) -> bool {
        self.settings[what].as_u64() == Some(step)
    }
}

#[expect(clippy::panic, reason = "the tests need a program that panics")]
fn panic_on_purpose(why: &str) -> ! {
    panic!("{why}, on purpose")
}

impl Trainer for Faulty {
    fn samples(&self) -> u64 {
        1000
    }

    fn gradients(&self) -> Vec<TensorSpec> {
        vec![TensorSpec::f32("left", [SIZE / 2]), TensorSpec::f32("right", [SIZE / 2])]
    }

    fn state(&mut self) -> Vec<TensorMut<'_>> {
        let weights = TensorMut::f32("weights", [SIZE], &mut self.weights);
        let ballast = TensorMut::f32("ballast", [self.ballast.len()], &mut self.ballast);
        if ballast.spec.shape == [0] { vec![weights] } else { vec![weights, ballast] }
    }

    fn shard(&mut self, shard: &Shard<'_>, gradient: &mut [f32]) -> Result<f64, TrainerError> {
        if self.due("panic_at", shard.step) {
            panic_on_purpose("a shard went wrong");
        }
        if self.due("error_at", shard.step) {
            return Err("the data of this step are no good, on purpose".into());
        }
        if self.due("hang_at", shard.step) {
            std::thread::park();
        }
        gradient.fill(0.0);
        let mut loss = 0.0;
        for &sample in shard.samples {
            let index = (sample as usize) % SIZE;
            let error = self.weights[index] - (sample as f32 / 1000.0);
            gradient[index] += error / self.batch;
            loss += f64::from(error * error) / 2.0 / f64::from(self.batch);
        }
        if self.due("nan_at", shard.step) {
            gradient[SIZE - 3] = f32::NAN;
        }
        Ok(loss)
    }

    fn apply(&mut self, _: u64, gradient: &[f32]) -> Result<(), TrainerError> {
        for (weight, gradient) in self.weights.iter_mut().zip(gradient) {
            *weight -= 0.5 * gradient;
        }
        // One value in each pack changes, so that every pack must be saved again.
        self.ballast.iter_mut().step_by(1 << 20).for_each(|value| *value += 1.0);
        Ok(())
    }
}

fn main() -> ExitCode {
    train(Faulty::new)
}
