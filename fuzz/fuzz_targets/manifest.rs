//! Fuzzes manifests: one that passes the check must survive what programs do with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_state::Manifest;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    if manifest.check().is_ok() {
        manifest.stored_bytes();
        for pack in &manifest.packs {
            for index in 0..pack.blocks.len().max(1) {
                assert!(pack.block(index as u64).end <= pack.length);
            }
            for piece in &pack.pieces {
                let range = piece.state_range();
                manifest.layout.pieces(range.start as usize..range.end as usize).for_each(drop);
            }
        }
    }
});
