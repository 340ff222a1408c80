//! Hostile safetensors files: a malformed file is refused with the reason, and a file that is accepted is accepted by
//! the safetensors crate too.
use std::{fs, path::Path};

use proptest::prelude::*;
use safetensors::SafeTensors;
use whimbrel_store::interop::{Header, Model, Selection};

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; data]].concat()
}

/// The error message for a file with these bytes.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let error = Model::open(&path, &Selection::default()).unwrap_err();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    assert!(message.contains("model.safetensors"), "{message}");
    message
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!("{name:?}:{{\"dtype\":{dtype:?},\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

#[test]
fn malformed_files_are_refused_with_the_reason() {
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
        let message = refused(&bytes);
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn index(folder: &Path, map: &str) {
    fs::write(folder.join("model.safetensors.index.json"), format!("{{\"weight_map\":{map}}}")).unwrap();
}

#[test]
fn a_wrong_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open = || Model::open(path, &Selection::default());
    let message = || open().unwrap_err().to_string();
    assert!(message().contains("holds 0 safetensors files"), "{}", message());
    for name in ["a", "b"] {
        let header = format!("{{{}}}", tensor(name, "U8", "[2]", "[0,2]"));
        fs::write(path.join(format!("{name}.safetensors")), file(&header, 2)).unwrap();
    }
    assert!(message().contains("holds 2 safetensors files and neither"), "{}", message());

    index(path, "{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}");
    assert_eq!(open().unwrap().layout().tensors().len(), 2);
    index(path, "{\"a\":\"a.safetensors\",\"c\":\"b.safetensors\"}");
    assert!(
        message().contains("says that tensor \"c\" is in \"b.safetensors\", and it is not"),
        "{}",
        message()
    );
    for outside in ["../b.safetensors", "/etc/passwd", "", ".", "x/b.safetensors"] {
        index(path, &format!("{{\"a\":{outside:?}}}"));
        assert!(
            message().contains(&format!("names the file {outside:?}, which is not beside it")),
            "{}",
            message()
        );
    }
    index(path, "{\"a\":\"gone.safetensors\"}");
    assert!(message().contains("gone.safetensors"), "{}", message());
    index(path, "[]");
    assert!(message().contains("is not the index of a model"), "{}", message());

    // The same tensor in two files.
    fs::copy(path.join("a.safetensors"), path.join("b.safetensors")).unwrap();
    index(path, "{\"a\":\"a.safetensors\",\"x\":\"b.safetensors\"}");
    assert!(open().is_err());
}

/// A good file.
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
    fn a_file_that_is_accepted_is_accepted_by_the_safetensors_crate(
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
                let range = tensor.range.start as usize..tensor.range.end as usize;
                prop_assert_eq!(&bytes[range], theirs.tensor(&tensor.spec.name).unwrap().data());
            }
        }
    }

    #[test]
    fn arbitrary_headers_do_not_panic(text: Vec<u8>, data: u64) {
        let _ = Header::parse(&text, data);
    }
}
