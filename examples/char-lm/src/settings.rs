//! The settings of this trainer: the keys of `[train.settings]` in the run spec.

use serde::{Deserialize, Serialize};

use crate::parameters::Config;

/// The settings. The number at the end of each description is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Transformer blocks. 4.
    pub layers: usize,
    /// Attention heads per block; divides `width`. 4.
    pub heads: usize,
    /// The length of a character's vector. 128.
    pub width: usize,
    /// The number of characters that the model sees at once. 64.
    pub context: usize,
    /// The highest learning rate. It falls along a cosine, to a tenth at the end of the run. 0.006.
    pub learning_rate: f64,
    /// The number of steps over which the learning rate rises from 0. 100.
    pub warmup: u64,
    /// Weight decay: each step reduces each weight by this times the learning rate. 0.1.
    pub weight_decay: f64,
    /// The text to train on: the path or the `file://` URI of a UTF-8 file that every worker can read. Default: the
    /// licence texts that are built into the program.
    pub text: Option<String>,
    /// The fraction of the text, at its end, that is used for validation; 0 for none. 0.1.
    pub validation_fraction: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            layers: 4,
            heads: 4,
            width: 128,
            context: 64,
            learning_rate: 6e-3,
            warmup: 100,
            weight_decay: 0.1,
            text: None,
            validation_fraction: 0.1,
        }
    }
}

/// Invalid settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A size that is 0 or too large.
    #[error("{name} = {value} in [train.settings]; it must be from 1 to {highest}")]
    Size {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The highest it may be.
        highest: usize,
    },
    /// The width is not a multiple of the heads.
    #[error("width = {width} in [train.settings] is not a multiple of heads = {heads}; make it one")]
    Heads {
        /// The width.
        width: usize,
        /// The number of heads.
        heads: usize,
    },
    /// A number outside its range.
    #[error("{name} = {value} in [train.settings]; it must be {range}")]
    Number {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range, in words.
        range: &'static str,
    },
}

impl Settings {
    /// Checks each setting and the settings together.
    pub fn check(&self) -> Result<(), SettingsError> {
        let sizes = [
            ("layers", self.layers, 1000),
            ("heads", self.heads, 1000),
            ("width", self.width, 16_384),
            ("context", self.context, 16_384),
        ];
        for (name, value, highest) in sizes {
            if !(1..=highest).contains(&value) {
                return Err(SettingsError::Size { name, value, highest });
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(SettingsError::Heads { width: self.width, heads: self.heads });
        }
        let number = |name, value: f64, good: bool, range| {
            if good { Ok(()) } else { Err(SettingsError::Number { name, value, range }) }
        };
        let (rate, decay, fraction) = (self.learning_rate, self.weight_decay, self.validation_fraction);
        number("learning_rate", rate, rate > 0.0 && rate <= 1.0, "above 0 and at most 1")?;
        number("weight_decay", decay, (0.0..=10.0).contains(&decay), "from 0 to 10")?;
        number("validation_fraction", fraction, (0.0..=0.9).contains(&fraction), "from 0 to 0.9")
    }

    /// The sizes of the model for a vocabulary of `vocabulary` symbols.
    pub fn config(&self, vocabulary: usize) -> Config {
        let Self { layers, heads, width, context, .. } = *self;
        Config { layers, heads, width, context, vocabulary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(settings: Settings) -> String {
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn invalid_settings_are_refused() {
        assert_eq!(Settings::default().check(), Ok(()));
        let settings = Settings::default;
        assert!(error(Settings { heads: 3, ..settings() }).contains("width = 128"));
        assert!(error(Settings { layers: 0, ..settings() }).contains("layers = 0"));
        assert!(error(Settings { context: usize::MAX, ..settings() }).contains("from 1 to 16384"));
        assert!(error(Settings { learning_rate: f64::NAN, ..settings() }).contains("learning_rate = NaN"));
        assert!(error(Settings { weight_decay: -0.1, ..settings() }).contains("weight_decay = -0.1"));
        assert!(error(Settings { validation_fraction: 1.0, ..settings() }).contains("from 0 to 0.9"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<Settings>(r#"{"layer": 4}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `layer`"), "{error}");
    }
}
