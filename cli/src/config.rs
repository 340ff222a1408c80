//! The settings files. They apply where neither a flag nor a variable is given.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use whimbrel_client::Address;

use crate::{
    args::{agent::NodeSettings, coordinator::ServerSettings},
    paths,
};

/// The file looked for in the working directory.
const LOCAL: &str = "whimbrel.toml";

/// The settings.
///
/// They come from the file given with `--config`; or else from `whimbrel.toml` in the working directory and, for keys that it
/// does not have, from `config.toml` in the user's configuration directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// For `whimbrel coordinator`.
    pub(crate) coordinator: ServerSettings,
    /// For `whimbrel agent`.
    pub(crate) agent: NodeSettings,
    /// For all other commands.
    pub(crate) client: ClientConfig,
    /// The price of data that leaves a store, in US dollars per GB: by provider (`aws`) or by bucket (`s3://lab`).
    pub(crate) egress: BTreeMap<String, f64>,
}

/// The section `[client]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientConfig {
    /// Where the coordinator listens.
    pub(crate) coordinator: Option<Address>,
    /// The file that holds its token.
    pub(crate) token_file: Option<PathBuf>,
    /// The store of runs.
    pub(crate) store: Option<String>,
}

/// Settings that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML, or holds unknown keys or wrong values.
    #[error("the settings file {} has a mistake: {}", path.display(), source.to_string().trim_end())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads the files. `chosen` is the one given with `--config`, which must exist.
    pub(crate) fn load(chosen: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(chosen) = chosen else {
            let personal = paths::config().map(|folder| folder.join("config.toml"));
            let files: Vec<PathBuf> = personal.into_iter().chain([LOCAL.into()]).collect();
            return Self::layered(&files);
        };
        match Self::read(chosen)? {
            Some(config) => Ok(config),
            None => {
                Err(ConfigError::Read { path: chosen.to_owned(), source: io::ErrorKind::NotFound.into() })
            }
        }
    }

    /// The settings of those of `files` that exist. A later file overrides an earlier one, key by key.
    fn layered(files: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut merged = Self::default();
        for path in files {
            if let Some(config) = Self::read(path)? {
                merged = config.over(merged);
            }
        }
        Ok(merged)
    }

    /// Reads one file; `None` if it does not exist.
    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let content = |source| ConfigError::Content { path: path.to_owned(), source: Box::new(source) };
        toml::from_str(&text).map(Some).map_err(content)
    }

    /// These settings, completed by those of `below`.
    fn over(self, mut below: Self) -> Self {
        below.egress.extend(self.egress);
        Self {
            coordinator: self.coordinator.over(below.coordinator),
            agent: self.agent.over(below.agent),
            client: ClientConfig {
                coordinator: self.client.coordinator.or(below.client.coordinator),
                token_file: self.client.token_file.or(below.client.token_file),
                store: self.client.store.or(below.client.store),
            },
            egress: below.egress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: usize| folder.path().join(format!("{index}.toml"));
        for (index, text) in texts.iter().enumerate() {
            fs::write(path(index), text).unwrap();
        }
        let paths = (0..texts.len()).map(path).collect();
        (folder, paths)
    }

    #[test]
    fn a_later_file_overrides_key_by_key() {
        let (_folder, paths) = files(&[
            "[client]\ncoordinator = \"a:1\"\nstore = \"below\"\n[agent]\nslots = 2\nspot = true\n",
            "[client]\ncoordinator = \"b:2\"\n[agent]\nspot = false\n",
        ]);
        let config = Config::layered(&paths).unwrap();
        assert_eq!(config.client.coordinator.unwrap().to_string(), "b:2");
        assert_eq!(config.client.store.as_deref(), Some("below"));
        assert_eq!((config.agent.slots.map(u32::from), config.agent.spot), (Some(2), Some(false)));
    }

    #[test]
    fn a_missing_file_is_no_mistake_unless_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent.toml");
        assert!(Config::layered(std::slice::from_ref(&absent)).unwrap().client.store.is_none());
        let error = Config::load(Some(&absent)).unwrap_err().to_string();
        assert!(error.contains("absent.toml"), "{error}");
    }

    #[test]
    fn mistakes_are_reported_with_file_and_line() {
        for (text, parts) in [
            ("[client]\nstor = \"runs\"\n", ["0.toml", "line 2", "unknown field `stor`"]),
            ("\n[cleint]\n", ["0.toml", "line 2", "unknown field `cleint`"]),
            ("[agent]\nslots = 0\n", ["0.toml", "line 2", "slots"]),
            ("[client]\ncoordinator = \"nowhere\"\n", ["0.toml", "line 2", "is not HOST:PORT"]),
            ("[client\n", ["0.toml", "line 1", "[client"]),
        ] {
            let (_folder, paths) = files(&[text]);
            let error = Config::load(Some(&paths[0])).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
