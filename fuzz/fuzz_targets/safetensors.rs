//! Fuzzes the header of a safetensors file. The first eight bytes of the input are the length of the data after it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_store::interop::Header;

fuzz_target!(|data: &[u8]| {
    let Some((length, text)) = data.split_first_chunk() else { return };
    let length = u64::from_le_bytes(*length);
    if let Ok(header) = Header::parse(text, length) {
        for tensor in &header.tensors {
            let file = 8 + text.len() as u64;
            assert!(tensor.range.start >= file && tensor.range.end <= length.saturating_add(file));
        }
    }
});
