//! The spec of a Python script: the table `[tool.whimbrel]` in the script's own header.
//!
//! The header is *inline script metadata* ([PEP 723]), which `uv` and others read too: TOML in comments, between
//! `# /// script` and `# ///`. `[tool.whimbrel]` in it has the keys of a run spec. The script itself gives the name and
//! the command, so these may be missing there.
//!
//! [PEP 723]: https://peps.python.org/pep-0723/

use std::path::Path;

use crate::{
    RunSpec,
    mistake::{Mistake, Mistakes, Problem},
    overrides::Override,
    parse::{self, fit_name},
    position::{Lines, Position},
    tree::{self, Item, Table, Value},
};

/// The line before the header, and the line after it.
const OPENING: &str = "# /// script";
const CLOSING: &str = "# ///";
/// What stands before each line of the header: a `#` and a space.
const MARGIN: usize = 2;
/// The name of a run whose script's name has no letter and no digit.
const NAMELESS: &str = "run";

/// A Python script, with the table `[tool.whimbrel]` of its header.
#[derive(Clone, Debug)]
pub struct Script {
    path: String,
    /// `None`: the script has no such table.
    table: Option<Table>,
}

impl Script {
    /// Reads the header of a script. `path` is the script's path, which messages and the default command name.
    pub fn read(path: &str, text: &str) -> Result<Self, Mistakes> {
        Ok(Self { path: path.to_owned(), table: table(path, text)? })
    }

    /// Whether the script has a table `[tool.whimbrel]`.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the script's table, after `overrides`, says nothing on a top-level key, such as `command`.
    pub fn lacks(&self, key: &str, overrides: &[Override]) -> bool {
        !self.table.as_ref().is_some_and(|table| table.contains_key(key))
            && !overrides.iter().any(|change| change.concerns(key))
    }

    /// The spec. Without a command, `interpreter` runs the script. Either way `arguments` follow.
    pub fn spec(
        self,
        interpreter: &str,
        arguments: &[String],
        overrides: &[Override],
    ) -> Result<RunSpec, Mistakes> {
        let file = Position::File { file: self.path.as_str().into() };
        let at = |value| Item { position: file.clone(), value };
        let mut table = self.table.unwrap_or_default();
        table.entry("name".into()).or_insert_with(|| at(Value::String(name(&self.path))));
        table.entry("command".into()).or_insert_with(|| {
            let words = [interpreter, &self.path].map(|word| at(Value::String(word.to_owned())));
            at(Value::Array(words.into()))
        });
        let mut spec = parse::spec(table, file, overrides).map_err(|mistakes| mistakes.map(in_script))?;
        spec.command.extend_from_slice(arguments);
        Ok(spec)
    }
}

/// A missing key of a script can be given in more than one way.
fn in_script(problem: Problem) -> Problem {
    match problem {
        Problem::Missing { table, example } => Problem::MissingInScript { table, example },
        problem => problem,
    }
}

/// The name of a script's file without its ending, as far as a run's id can begin with it.
fn name(path: &str) -> String {
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let fitting = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(fitting).collect();
    fit_name(name.trim_matches(|c: char| !c.is_ascii_alphanumeric())).unwrap_or(NAMELESS).to_owned()
}

/// `[tool.whimbrel]` of a script's header.
fn table(path: &str, text: &str) -> Result<Option<Table>, Mistakes> {
    let Some(header) = header(path, text)? else { return Ok(None) };
    let lines = Lines::new(path, &header).behind_margin(MARGIN);
    let mut root = tree::parse(&lines, &header).map_err(Mistakes::new)?;
    let take = |key: &str, table: &mut Table| match table.remove(key) {
        None => Ok(None),
        Some(Item { value: Value::Table(inner), .. }) => Ok(Some(inner)),
        Some(Item { position, value }) => {
            let example = "[tool.whimbrel]".to_owned();
            let problem = Problem::WrongType { found: value.describe(), wanted: "a table", example };
            Err(Mistakes::new(vec![Mistake { position, key: key.to_owned(), problem }]))
        }
    };
    let Some(mut tool) = take("tool", &mut root)? else { return Ok(None) };
    take("whimbrel", &mut tool)
}

/// The TOML of a script's header, on the lines that it has in the script: those before it are empty.
fn header(path: &str, text: &str) -> Result<Option<String>, Mistakes> {
    let lines: Vec<&str> = text.lines().collect();
    let mut openings = lines.iter().enumerate().filter(|(_, line)| **line == OPENING).map(|(at, _)| at);
    let Some(opening) = openings.next() else { return Ok(None) };
    let mistake = |at: usize, problem| {
        let position = Position::Line { file: path.into(), line: at + 1 };
        Mistakes::new(vec![Mistake { position, key: String::new(), problem }])
    };
    let comments = lines[opening + 1..].iter().take_while(|line| **line == "#" || line.starts_with("# "));
    let comments: Vec<&str> = comments.copied().collect();
    // The last such line among the comments, since TOML may hold the others.
    let Some(length) = comments.iter().rposition(|line| *line == CLOSING) else {
        return Err(mistake(opening, Problem::OpenHeader { end: opening + 1 + comments.len() }));
    };
    if let Some(second) = openings.find(|at| *at > opening + length) {
        return Err(mistake(second, Problem::SecondHeader { first: opening + 1 }));
    }
    let content = comments[..length].iter().map(|line| line.get(MARGIN..).unwrap_or_default());
    let before = std::iter::repeat_n("", opening + 1);
    Ok(Some(before.chain(content).collect::<Vec<_>>().join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
#!/usr/bin/env python3
# /// script
# dependencies = [\"torch\"]
#
# [tool.whimbrel]
# setup = \"uv sync\"
#
# [tool.whimbrel.train]
# steps = 500
# global_batch = 48
# ///
import torch
";

    fn spec(script: &str, flags: &[(&str, &str, u64)], arguments: &[&str]) -> Result<RunSpec, String> {
        let overrides: Vec<Override> =
            flags.iter().map(|(flag, key, value)| Override::flag(flag, key, *value).unwrap()).collect();
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let script = Script::read("examples/Train_2 (copy).py", script).map_err(|error| error.to_string())?;
        script.spec("/venv/bin/python", &arguments, &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn a_script_gives_its_name_and_command_and_its_header_the_rest() {
        let read = spec(SCRIPT, &[("--steps", "train.steps", 20)], &["--lr", "0.1"]).unwrap();
        assert_eq!(read.name, "train_2--copy");
        assert_eq!(read.command, ["/venv/bin/python", "examples/Train_2 (copy).py", "--lr", "0.1"]);
        assert_eq!((read.train.steps, read.train.global_batch, read.train.shards), (20, 48, 8));
        assert_eq!(read.setup.as_deref(), Some("uv sync"));

        let own = SCRIPT
            .replace("# setup", "# name = \"gpt\"\n# command = [\"uv\", \"run\", \"train.py\"]\n# setup");
        let read = spec(&own, &[], &["x"]).unwrap();
        assert_eq!((read.name.as_str(), read.command.join(" ").as_str()), ("gpt", "uv run train.py x"));
    }

    #[test]
    fn a_script_without_a_header_is_told_by_flags() {
        let flags = [("--steps", "train.steps", 500), ("--batch", "train.global_batch", 30)];
        let read = spec("import torch\r\n", &flags, &[]).unwrap();
        assert_eq!((read.train.steps, read.train.global_batch, read.train.shards), (500, 30, 6));
        assert!(!Script::read("train.py", "").unwrap().has_table());
        assert_eq!(
            spec("", &flags[1..], &[]).unwrap_err(),
            "examples/Train_2 (copy).py: train.steps: missing; add steps = 2000 under [tool.whimbrel.train] in the \
             script's header, or give `whimbrel run` --steps 2000"
        );
        let uneven = [flags[0], flags[1], ("--shards", "train.shards", 7)];
        let error = spec("", &uneven, &[]).unwrap_err();
        assert!(
            error.starts_with("--shards 7: train.shards: 7 does not divide global_batch (30)"),
            "{error}"
        );
    }

    #[test]
    fn mistakes_in_a_header_have_the_lines_and_columns_of_the_script() {
        for (found, wrong, expected) in [
            ("# steps = 500", "# steps = 5x", "py:9:11: not TOML"),
            (
                "# steps = 500",
                "# stpes = 500",
                "py:9: train.stpes: there is no such key; did you mean train.steps?",
            ),
            (
                "# ///\n",
                "",
                "py:2: the header that begins here does not end: add the line `# ///` after line 10",
            ),
            (
                "import",
                "\n# /// script\n# ///\nimport",
                "py:13: a second header; the first one begins on line 2",
            ),
        ] {
            let error = spec(&SCRIPT.replacen(found, wrong, 1), &[], &[]).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        let not_a_table = "# /// script\n# tool = 3\n# ///\n";
        let error = spec(not_a_table, &[], &[]).unwrap_err();
        assert!(error.contains("py:2: tool: found the number 3, wanted a table"), "{error}");
    }
}
