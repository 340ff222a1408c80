//! The store server of a whole-system test.

use whimbrel_testbed::{Moto, Radosgw, Server, available, required};

/// An S3 server: Ceph's, or moto where that cannot be had; nothing, saying so, where neither can.
///
/// # Panics
/// With `WHIMBREL_TESTBED=required` in the environment, if Ceph's cannot be had.
pub fn s3() -> Option<Box<dyn Server>> {
    match Radosgw::start() {
        Ok(server) => Some(Box::new(server)),
        // What must be tested with Ceph is not to pass without it.
        Err(unavailable) if required() => available(Err(unavailable)),
        Err(unavailable) => {
            eprintln!("{unavailable}; moto instead");
            available(Moto::start()).map(|server| -> Box<dyn Server> { Box::new(server) })
        }
    }
}
