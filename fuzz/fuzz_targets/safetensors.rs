//! The header of a safetensors file. The first eight bytes say how much data follows it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_store::interop::Header;

fuzz_target!(|data: &[u8]| {
    let Some((length, text)) = data.split_first_chunk() else { return };
    let length = u64::from_le_bytes(*length);
    if let Ok(header) = Header::parse(text, length) {
        for tensor in &header.tensors {
            let file = 8 + text.len() as u64;
            assert!(tensor.place.start >= file && tensor.place.end <= length.saturating_add(file));
        }
    }
});
