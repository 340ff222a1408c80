//! Finds the token of a coordinator.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use whimbrel_coordinator::{Token, TokenError};

use crate::{exit::Failure, paths};

/// The variable that holds the token itself.
const VARIABLE: &str = "WHIMBREL_TOKEN";

/// The default file of a user's token; `None` for a user without a home directory.
pub(crate) fn default_file() -> Option<PathBuf> {
    paths::config().map(|folder| folder.join("token"))
}

/// Finds the token that agents and clients send. In this order: the file given by flag or variable, `WHIMBREL_TOKEN`, the
/// file named in the settings, and [`default_file`] if it exists.
pub(crate) fn find(given: Option<&Path>, configured: Option<&Path>) -> Result<Option<String>, Failure> {
    let secret = |token: Token| Some(token.reveal().to_owned());
    if let Some(path) = given {
        return load(path).map(secret);
    }
    if let Ok(text) = env::var(VARIABLE) {
        return text.trim().parse().map(secret).map_err(Failure::bad_input);
    }
    if let Some(path) = configured {
        return load(path).map(secret);
    }
    let Some(path) = default_file() else { return Ok(None) };
    match Token::load(&path) {
        Ok(token) => Ok(secret(token)),
        Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::bad_input(error)),
    }
}

fn load(path: &Path) -> Result<Token, Failure> {
    let hint = "copy the coordinator's token file here, or put the token in WHIMBREL_TOKEN";
    Token::load(path).map_err(|error| Failure::bad_input(error).hint(hint))
}
