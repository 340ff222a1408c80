//! Safetensors files from anywhere: what is not one is refused in words, and what we take, other readers take.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use proptest::prelude::*;
use safetensors::SafeTensors;
use whimbrel_store::interop::{Header, Model, Selection};

/// A file of this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
}

/// What is said of a file with these bytes.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let error = Model::open(&path, &Selection::default()).unwrap_err();
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    assert!(said.contains("model.safetensors"), "{said}");
    said
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!("{name:?}:{{\"dtype\":{dtype:?},\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

#[test]
fn files_that_are_none_are_refused_in_words() {
    let one = |dtype, shape, offsets| format!("{{{}}}", tensor("w", dtype, shape, offsets));
    let two =
        |a: &str, b: &str| format!("{{{},{}}}", tensor("a", "U8", "[2]", a), tensor("b", "U8", "[2]", b));
    let many = format!("[{}]", ["1"; 65].join(","));
    for (bytes, part) in [
        (Vec::new(), "0 bytes long, too short"),
        (vec![0; 7], "7 bytes long, too short"),
        (u64::MAX.to_le_bytes().to_vec(), "can be 0 at most"),
        (
            [&200_000_000_u64.to_le_bytes()[..], &[b' '; 64]].concat(),
            "200000000 bytes long by its first 8 bytes",
        ),
        (file("{", 0), "its header is not that of a safetensors file"),
        (file("[]", 0), "an object with a key for each tensor"),
        (file("{\"w\":{}}", 0), "missing field `dtype`"),
        (file("{} {}", 0), "trailing characters"),
        (
            file(&one("C64", "[1]", "[0,8]"), 8),
            "tensor \"w\" is of type \"C64\", which a state cannot hold; it holds F64",
        ),
        (file(&one("F32", "[2]", "[0,4]"), 4), "tensor \"w\" of F32[2] does not fit the 4 bytes"),
        (file(&one("F32", "[4294967296,4294967296]", "[0,4]"), 4), "does not fit the 4 bytes"),
        (file(&one("F32", "[-1]", "[0,4]"), 4), "invalid value"),
        (file(&one("F32", &many, "[0,4]"), 4), "at most 64 dimensions"),
        (
            file(&one("F32", "[1]", "[0,4]"), 3),
            "tensor \"w\" is at bytes 0 to 4 of the data, of which there are 3",
        ),
        (file(&one("F32", "[1]", "[4,0]"), 4), "is at bytes 4 to 0"),
        (file(&one("F32", "[1]", "[0,18446744073709551615]"), 4), "is at bytes 0 to 18446744073709551615"),
        (file(&one("F32", "[1]", "[0,4]"), 5), "bytes 4 to 5 of its data belong to no tensor"),
        (file(&two("[0,2]", "[1,3]"), 3), "bytes 1 to 2 of its data belong to more than one tensor"),
        (file(&two("[0,2]", "[3,5]"), 5), "bytes 2 to 3 of its data belong to no tensor"),
        (file("{}", 0), "holds none of the tensors"),
        (file(&format!("{{{0},{0}}}", tensor("w", "U8", "[0]", "[0,0]")), 0), "\"w\" is there twice"),
    ] {
        let said = refused(&bytes);
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

fn index(folder: &Path, map: &str) {
    fs::write(folder.join("model.safetensors.index.json"), format!("{{\"weight_map\":{map}}}")).unwrap();
}

#[test]
fn an_index_is_held_to_its_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open = || Model::open(path, &Selection::default());
    let said = || open().unwrap_err().to_string();
    assert!(said().contains("holds 0 safetensors files"), "{}", said());
    for name in ["a", "b"] {
        let header = format!("{{{}}}", tensor(name, "U8", "[2]", "[0,2]"));
        fs::write(path.join(format!("{name}.safetensors")), file(&header, 2)).unwrap();
    }
    assert!(said().contains("holds 2 safetensors files and neither"), "{}", said());

    index(path, "{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}");
    assert_eq!(open().unwrap().layout().tensors().len(), 2);
    index(path, "{\"a\":\"a.safetensors\",\"c\":\"b.safetensors\"}");
    assert!(said().contains("says that tensor \"c\" is in \"b.safetensors\", and it is not"), "{}", said());
    for outside in ["../b.safetensors", "/etc/passwd", "", ".", "x/b.safetensors"] {
        index(path, &format!("{{\"a\":{outside:?}}}"));
        assert!(
            said().contains(&format!("names the file {outside:?}, which is not beside it")),
            "{}",
            said()
        );
    }
    index(path, "{\"a\":\"gone.safetensors\"}");
    assert!(said().contains("gone.safetensors"), "{}", said());
    index(path, "[]");
    assert!(said().contains("is not the index of a model"), "{}", said());

    // The same tensor in two files.
    fs::copy(path.join("a.safetensors"), path.join("b.safetensors")).unwrap();
    index(path, "{\"a\":\"a.safetensors\",\"x\":\"b.safetensors\"}");
    assert!(open().is_err());
}

/// A good file, to be spoilt.
fn good() -> Vec<u8> {
    let header = format!(
        "{{\"__metadata__\":{{\"format\":\"pt\"}},{},{}}}",
        tensor("a", "F32", "[2,3]", "[0,24]"),
        tensor("b", "BF16", "[5]", "[24,34]")
    );
    file(&header, 34)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_we_take_other_readers_take(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut: Option<prop::sample::Index>,
    ) {
        let mut bytes = good();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        fs::write(&path, &bytes).unwrap();
        if let Ok(ours) = Header::read(&fs::File::open(&path).unwrap()) {
            let theirs = SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(ours.tensors.len(), theirs.len());
            for tensor in ours.tensors {
                let place = tensor.place.start as usize..tensor.place.end as usize;
                prop_assert_eq!(&bytes[place], theirs.tensor(&tensor.spec.name).unwrap().data());
            }
        }
    }

    #[test]
    fn arbitrary_headers_do_no_harm(text: Vec<u8>, data: u64) {
        let _ = Header::parse(&text, data);
    }
}
