//! The example's model in a paced trainer, for the overhead benchmark: as a Whimbrel worker, or with the arguments
//! `bare CONTEXT`, a JSON object, in a loop without Whimbrel. The setting `pace` is the benchmark's socket.

use std::{env, path::PathBuf, process::ExitCode};

use char_lm::{CharLm, bare::Bare};
use serde_json::Value;
use whimbrel_e2e::paced::Paced;
use whimbrel_worker::{Context, TrainerError};

/// Takes the setting `pace` out of the settings and connects the example's trainer to it.
fn paced(context: &Context) -> Result<Paced<CharLm>, TrainerError> {
    let mut context = context.clone();
    let settings = context.settings.as_object_mut().ok_or("the settings are not a table")?;
    let pace = settings.remove("pace").ok_or("there is no setting pace")?;
    let pace: PathBuf = serde_json::from_value(pace)?;
    Ok(Paced::connect(CharLm::new(&context)?, &pace)?)
}

/// Trains every step of a context without Whimbrel.
fn bare(context: &str) -> Result<(), TrainerError> {
    let json: Value = serde_json::from_str(context)?;
    let number = |key: &str| json[key].as_u64().ok_or_else(|| format!("{key} is not a number"));
    let context = Context {
        seed: number("seed")?,
        global_batch: number("global_batch")?.try_into()?,
        shards: number("shards")?.try_into()?,
        steps: number("steps")?,
        threads: 1,
        settings: json["settings"].clone(),
    };
    let mut training = Bare::new(&context, paced(&context)?);
    for _ in 0..context.steps {
        training.step()?;
    }
    Ok(())
}

fn main() -> Result<ExitCode, TrainerError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [mode, context] if mode == "bare" => bare(context).map(|()| ExitCode::SUCCESS),
        _ => Ok(whimbrel_worker::train(paced)),
    }
}
