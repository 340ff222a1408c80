//! Fuzzes the run log: each line of the input is the content of an entry, framed with the right hash.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use whimbrel_state::Hash;
use whimbrel_store::{Entry, Retention, Store, relation};

fn framed(content: &[u8]) -> Vec<u8> {
    let hash = Hash::of(content).to_string();
    [b"{\"entry\":", content, b",\"blake3\":\"", hash.as_bytes(), b"\"}\n"].concat()
}

fuzz_target!(|data: &[u8]| {
    let _ = Entry::decode(data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let objects = Arc::new(InMemory::new());
        for (number, content) in data.split(|byte| *byte == b'\n').enumerate().take(64) {
            let entry = framed(content);
            if let Ok(entry) = Entry::decode(&entry) {
                let again = entry.encode().expect("what was read can be written");
                assert_eq!(Entry::decode(&again).expect("what was written can be read"), entry);
            }
            let at = Path::from(format!("r/log/{number:020}.json"));
            objects.put(&at, entry.into()).await.expect("memory takes it");
        }
        let run = Store::with_backend("test://store", objects).run(&"r".parse().expect("a name"));
        if let Ok(run_log) = run.run_log().await {
            run_log.all_checkpoints();
            relation(&run_log, &run_log);
            Retention::default().kept(&run_log);
        }
    });
});
