//! Where the token is that a coordinator asks for.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use whimbrel_coordinator::{Token, TokenError};

use crate::{exit::Failure, paths};

/// The variable that holds the token itself.
const VARIABLE: &str = "WHIMBREL_TOKEN";

/// The file in which a user's token is, unless another is named.
pub(crate) fn usual_file() -> Option<PathBuf> {
    paths::config().map(|folder| folder.join("token"))
}

/// The token that agents and clients show: that of the file given by flag or variable, that in `WHIMBREL_TOKEN`, that
/// of the file named in the settings, or that of the user's own file if there is one.
pub(crate) fn to_show(given: Option<&Path>, configured: Option<&Path>) -> Result<Option<String>, Failure> {
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
    let Some(path) = usual_file() else { return Ok(None) };
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
