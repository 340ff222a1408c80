//! Writes a spec as TOML: the form in which it is stored with its run.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::{
    every::Every,
    quote,
    spec::{Keep, RunSpec},
    time,
};

impl RunSpec {
    /// The spec as TOML, with every key that has a value, defaults and overrides included. [`RunSpec::parse`] reads an
    /// equal spec from it, even in a later version with other defaults. A null in the settings is left out: TOML has no
    /// null, and `parse` never makes one.
    pub fn to_toml(&self) -> String {
        let Self { name, setup, try_next, command, train, evaluate, workers, checkpoint, reduction } = self;
        let mut text = Text::default();
        text.entry("name", quote::string(name));
        if let Some(setup) = setup {
            text.entry("setup", quote::string(setup));
        }
        text.entry("command", array(command.iter().map(|word| quote::string(word))));
        if let Some(try_next) = try_next {
            text.entry("try_next", quote::string(try_next));
        }

        text.table("train");
        text.entry("steps", train.steps);
        text.entry("global_batch", train.global_batch);
        text.entry("shards", train.shards);
        text.entry("seed", train.seed);
        if !train.settings.is_empty() {
            text.table("train.settings");
            for (key, value) in without_nulls(&train.settings) {
                text.entry(&quote::key(key), json(value));
            }
        }

        if let Some(steps) = evaluate.every {
            text.table("evaluate");
            text.entry("every", quote::string(&Every::Steps(steps).to_string()));
        }

        text.table("workers");
        text.entry("local", workers.local);
        text.entry("min", workers.min);
        text.entry("max", workers.max);
        text.entry("threads", workers.threads);
        text.entry("max_failures", workers.max_failures);
        text.entry("step_timeout", quote::string(&time::write(workers.step_timeout).to_string()));
        text.entry("leave_timeout", quote::string(&time::write(workers.leave_timeout).to_string()));
        if !workers.environment.is_empty() {
            text.table("workers.environment");
            for (key, value) in &workers.environment {
                text.entry(&quote::key(key), quote::string(value));
            }
        }

        text.table("checkpoint");
        if let Some(store) = &checkpoint.store {
            text.entry("store", quote::string(store));
        }
        if !checkpoint.replicas.is_empty() {
            text.entry("replicas", array(checkpoint.replicas.iter().map(|uri| quote::string(uri))));
        }
        text.entry("every", quote::string(&checkpoint.every.to_string()));
        let Keep { last, every } = checkpoint.keep;
        match every {
            None => text.entry("keep", last),
            Some(every) => {
                let every = quote::string(&every.to_string());
                text.entry("keep", format!("{{ last = {last}, every = {every} }}"));
            }
        }
        if let Some(bandwidth) = checkpoint.bandwidth {
            text.entry("bandwidth", quote::string(&bandwidth.to_string()));
        }

        text.table("reduction");
        text.entry("mode", quote::string(reduction.mode.as_str()));
        text.entry("on_nonfinite", quote::string(reduction.on_nonfinite.as_str()));
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn table(&mut self, name: &str) {
        self.0 += &format!("\n[{name}]\n");
    }

    fn entry(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key} = {value}\n");
    }
}

/// JSON as a TOML value on one line. Both write numbers in the same way.
fn json(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(boolean) => boolean.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quote::string(text),
        Value::Array(values) => array(values.iter().filter(|value| !value.is_null()).map(json)),
        Value::Object(map) => {
            let entry = |(key, value): (&String, _)| format!("{} = {}", quote::key(key), json(value));
            let entries: Vec<String> = without_nulls(map).map(entry).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}

fn without_nulls(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.iter().filter(|(_, value)| !value.is_null())
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}
