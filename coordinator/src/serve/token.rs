//! The token that callers from beyond loopback must send, and the check of it.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use tonic::{Request, Status, service::Interceptor};

/// A shared secret that gives a caller every right. Sent as `authorization: Bearer <token>`.
#[derive(Clone)]
pub struct Token(String);

/// A token cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or created.
    #[error("token file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for a new token: {0}")]
    Random(getrandom::Error),
    /// The text in the file, or given, is not a token.
    #[error("a token is one line of 16 to 256 visible ASCII characters, and {0} is not")]
    Malformed(String),
}

impl Token {
    /// A new token of 32 random bytes, in hexadecimal.
    pub fn random() -> Result<Self, TokenError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
        Ok(Self(blake3::Hash::from_bytes(bytes).to_hex().to_string()))
    }

    /// Reads the token in a file. Agents, clients and coordinators call it for `--token-file`.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text =
            fs::read_to_string(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
        text.trim().parse().map_err(|_| TokenError::Malformed(format!("what {} holds", path.display())))
    }

    /// Reads the token in a file; creates the file, readable for its owner only, if there is none. Returns the token and
    /// whether it is new. A coordinator calls it at its start.
    pub fn load_or_create(path: &Path) -> Result<(Self, bool), TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let token = Self::random()?;
                writeln!(file, "{}", token.0).map_err(failed)?;
                Ok((token, true))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((Self::load(path)?, false)),
            Err(error) => Err(failed(error)),
        }
    }

    /// The secret as text, to send or to print once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Malformed("the one given".into()))
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Refuses calls without the token with UNAUTHENTICATED. Lets every call in if there is no token.
#[derive(Clone, Debug)]
pub(crate) struct TokenInterceptor(pub(crate) Option<Token>);

impl Interceptor for TokenInterceptor {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(Token(expected)) = &self.0 else { return Ok(request) };
        let sent = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let Some(sent) = sent.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(Status::unauthenticated("this coordinator asks for a token: give --token-file"));
        };
        // BLAKE3 hashes are compared in constant time, so the time taken reveals nothing about the token.
        if blake3::hash(sent.as_bytes()) == blake3::hash(expected.as_bytes()) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("the token is not that of this coordinator; check --token-file"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_created_once_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("whimbrel-token-{}", std::process::id()));
        let path = folder.join("deep/token");
        let (made, new) = Token::load_or_create(&path).unwrap();
        let (found, again) = Token::load_or_create(&path).unwrap();
        assert!(new && !again && made.reveal() == found.reveal());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short\n").unwrap();
        assert!(Token::load(&path).unwrap_err().to_string().contains("deep/token"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_calls_with_the_token_are_let_in() {
        let mut interceptor = TokenInterceptor(Some("0123456789abcdef".parse().unwrap()));
        let mut call = |header: Option<&str>| {
            let mut request = Request::new(());
            if let Some(header) = header {
                request.metadata_mut().insert("authorization", header.parse().unwrap());
            }
            interceptor.call(request).map(|_| ()).map_err(|status| status.code())
        };
        assert_eq!(call(Some("Bearer 0123456789abcdef")), Ok(()));
        for wrong in [None, Some("Bearer 0123456789abcdeF"), Some("0123456789abcdef"), Some("Bearer ")] {
            assert_eq!(call(wrong), Err(tonic::Code::Unauthenticated));
        }
    }
}
