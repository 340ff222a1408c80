//! The data: a text as symbols of a small vocabulary, split into a training and a validation part.

use std::{collections::HashMap, collections::HashSet, io, path::PathBuf};

/// The largest size of a vocabulary. The number of a symbol fits in a byte.
pub const MAX_SYMBOLS: usize = 128;

/// The symbol of all characters that are too rare for their own symbol.
pub const RARE: char = '\u{fffd}';

/// The value of an unused slot in [`Vocabulary::slots`].
const EMPTY: i64 = -1;

/// The symbols of a model: at most [`MAX_SYMBOLS`] characters, in the order of their code points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    characters: Vec<char>,
}

impl Vocabulary {
    /// The vocabulary of a text: all its characters, or the most frequent and [`RARE`] if there are more than
    /// [`MAX_SYMBOLS`].
    pub fn of(text: &str) -> Self {
        let mut counts: HashMap<char, usize> = HashMap::new();
        for character in text.chars() {
            *counts.entry(character).or_default() += 1;
        }
        let mut characters: Vec<(char, usize)> = counts.into_iter().collect();
        if characters.len() > MAX_SYMBOLS {
            characters.retain(|(character, _)| *character != RARE);
            characters.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
            characters.truncate(MAX_SYMBOLS - 1);
            characters.push((RARE, 0));
        }
        let mut characters: Vec<char> = characters.into_iter().map(|(character, _)| character).collect();
        characters.sort_unstable();
        Self { characters }
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        self.characters.len()
    }

    /// Whether there are no symbols.
    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// The symbol of a character, or of [`RARE`]; `None` if the vocabulary has neither.
    pub fn symbol(&self, character: char) -> Option<u8> {
        let find = |character| self.characters.binary_search(&character).ok();
        find(character).or_else(|| find(RARE)).and_then(|symbol| u8::try_from(symbol).ok())
    }

    /// The character of a symbol.
    pub fn character(&self, symbol: u8) -> char {
        self.characters.get(usize::from(symbol)).copied().unwrap_or(RARE)
    }

    /// The vocabulary as a tensor of the state: one code point per slot, −1 in unused slots.
    pub fn slots(&self) -> [i64; MAX_SYMBOLS] {
        let mut slots = [EMPTY; MAX_SYMBOLS];
        for (slot, character) in slots.iter_mut().zip(&self.characters) {
            *slot = i64::from(u32::from(*character));
        }
        slots
    }

    /// The vocabulary of such a tensor; `None` if [`slots`](Self::slots) cannot have written it.
    pub fn from_slots(slots: &[i64; MAX_SYMBOLS]) -> Option<Self> {
        let used = slots.iter().take_while(|slot| **slot != EMPTY);
        let characters = used
            .map(|slot| u32::try_from(*slot).ok().and_then(char::from_u32))
            .collect::<Option<Vec<char>>>()?;
        let vocabulary = Self { characters };
        let sound = vocabulary.characters.is_sorted_by(|a, b| a < b) && vocabulary.slots() == *slots;
        (sound && !vocabulary.is_empty()).then_some(vocabulary)
    }
}

/// A text to train on.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its symbols.
    pub vocabulary: Vocabulary,
    /// The training part.
    pub training: Vec<u8>,
    /// The validation part, from the end of the text.
    pub validation: Vec<u8>,
}

/// A text that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Not the path or the URI of a local file.
    #[error("text = {0:?} is not a local file; give a path or a file:// URI")]
    NotAFile(String),
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the text {path:?}; it must be a UTF-8 file that every worker can read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too little text for the model's context.
    #[error(
        "the {part} text has {found} characters and a sample takes {needed} (context + 1); \
         give a longer text, a smaller context or another validation_fraction"
    )]
    TooShort {
        /// `training` or `validation`.
        part: &'static str,
        /// Its length in characters.
        found: usize,
        /// The length of a sample.
        needed: usize,
    },
}

impl Text {
    /// Reads a text from a path or a `file://` URI, or takes the built-in one, and splits off the last
    /// `validation_fraction` of it. Each part has at least `context + 1` characters, except that the validation part
    /// may be empty.
    pub fn load(source: Option<&str>, context: usize, validation_fraction: f64) -> Result<Self, TextError> {
        let text = match source {
            Some(source) => read(source)?,
            None => licences(),
        };
        let vocabulary = Vocabulary::of(&text);
        let mut training: Vec<u8> =
            text.chars().filter_map(|character| vocabulary.symbol(character)).collect();
        let validation =
            training.split_off(training.len() - (training.len() as f64 * validation_fraction) as usize);
        let needed = context + 1;
        let too_short = |part, found| Err(TextError::TooShort { part, found, needed });
        if training.len() < needed {
            return too_short("training", training.len());
        }
        if validation_fraction > 0.0 && validation.len() < needed {
            return too_short("validation", validation.len());
        }
        Ok(Self { vocabulary, training, validation })
    }
}

fn read(file: &str) -> Result<String, TextError> {
    let path = if file.contains("://") {
        let url = url::Url::parse(file).ok().filter(|url| url.scheme() == "file");
        let path = url.and_then(|url| url.to_file_path().ok());
        path.ok_or_else(|| TextError::NotAFile(file.to_owned()))?
    } else {
        PathBuf::from(file)
    };
    std::fs::read_to_string(&path).map_err(|source| TextError::Read { path, source })
}

/// The texts of all licences that SPDX lists, in the order of their identifiers, without duplicates: some megabytes of
/// English that need no download.
pub fn licences() -> String {
    let mut seen = HashSet::new();
    let texts = spdx::text::LICENSE_TEXTS.iter().map(|(_, text)| *text);
    let unique: Vec<&str> = texts.filter(|text| seen.insert(*text)).collect();
    unique.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_characters_share_a_symbol() {
        // 200 characters, 100 of them twice: the vocabulary keeps those that occur twice and the first of the others.
        let text: String = ('\u{4e00}'..).take(200).chain(('\u{4e64}'..).take(100)).collect();
        let vocabulary = Vocabulary::of(&text);
        assert_eq!(vocabulary.len(), MAX_SYMBOLS);
        assert_eq!(vocabulary.symbol('\u{4e63}'), vocabulary.symbol(RARE));
        let common = vocabulary.symbol('\u{4ec7}').unwrap();
        assert_eq!(vocabulary.character(common), '\u{4ec7}');
        assert_eq!(Vocabulary::of("abba").symbol('c'), None);
    }

    #[test]
    fn a_vocabulary_is_read_back_from_its_tensor_and_damage_is_detected() {
        let vocabulary = Vocabulary::of("hello, ✈");
        let slots = vocabulary.slots();
        assert_eq!(Vocabulary::from_slots(&slots), Some(vocabulary));
        let damaged = |at: usize, value: i64| {
            let mut slots = slots;
            slots[at] = value;
            Vocabulary::from_slots(&slots)
        };
        assert_eq!(damaged(0, 0xd800), None, "not a character");
        assert_eq!(damaged(1, slots[0]), None, "a duplicate");
        assert_eq!(damaged(100, 65), None, "a symbol after the end");
        assert_eq!(damaged(0, EMPTY), None, "no symbols");
    }

    #[test]
    fn a_file_is_read_by_path_or_uri_and_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some text.txt");
        std::fs::write(&path, "ab".repeat(50)).unwrap();
        let uri = url::Url::from_file_path(&path).unwrap();
        for file in [path.to_str().unwrap(), uri.as_str()] {
            let text = Text::load(Some(file), 8, 0.1).unwrap();
            assert_eq!((text.vocabulary.len(), text.training.len(), text.validation.len()), (2, 90, 10));
        }
        let load = |file: &str, context, fraction| Text::load(Some(file), context, fraction).unwrap_err();
        let file = path.to_str().unwrap();
        assert!(matches!(
            load(file, 90, 0.1),
            TextError::TooShort { part: "training", found: 90, needed: 91 }
        ));
        assert!(matches!(load(file, 10, 0.1), TextError::TooShort { part: "validation", .. }));
        assert!(matches!(load("s3://bucket/text", 8, 0.1), TextError::NotAFile(_)));
        assert!(matches!(load("no such file", 8, 0.1), TextError::Read { .. }));
    }

    #[test]
    fn the_built_in_text_is_large_enough() {
        let text = Text::load(None, 64, 0.1).unwrap();
        assert!(text.training.len() > 1_000_000 && text.vocabulary.len() > 90);
    }
}
