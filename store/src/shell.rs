//! Quoting for a POSIX shell: for commands that are printed to be pasted.

use std::borrow::Cow;

/// `text` as one word of a POSIX shell: unchanged if possible, otherwise quoted. Without quotes a shell would read the
/// options of a store's URI, `?endpoint=…&region=…`, as a pattern and a background command.
///
/// ```
/// # use whimbrel_store::shell;
/// assert_eq!(shell::word("s3://lab/runs/r-1@7"), "s3://lab/runs/r-1@7");
/// assert_eq!(shell::word("s3://lab/r-1?region=a&profile=b"), "'s3://lab/r-1?region=a&profile=b'");
/// ```
pub fn word(text: &str) -> Cow<'_, str> {
    // Only a null character cannot be quoted, and no program argument contains one.
    shlex::try_quote(text).unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in [
            "runs/r-1@7",
            "file:///tmp/a%20b/r-1",
            "s3://lab/runs/r-1?endpoint=http://127.0.0.1:9000&region=us-east-1",
            "it's $HOME, `pwd` and a \"folder\"; * ~ \\ !",
            "~/runs",
            "",
        ] {
            let command = format!("printf '<%s>' {}", word(text));
            let said = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("<{text}>"), "{command}");
        }
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        for text in ["runs/r-1", "file:///srv/runs/r-1", "az://labwest/runs/r-1@400", "r-1", "../run.toml"] {
            assert_eq!(word(text), text);
        }
    }
}
