//! The store server of a whole-system test.

use whimbrel_testbed::{Moto, Radosgw, Server, available, required};

/// An S3 server: radosgw, or moto if radosgw is not available. If neither is, prints `SKIPPED:` and returns `None`.
///
/// # Panics
/// If radosgw is not available and `WHIMBREL_TESTBED=required`.
pub fn s3() -> Option<Box<dyn Server>> {
    match Radosgw::start() {
        Ok(server) => Some(Box::new(server)),
        Err(unavailable) if required() => available(Err(unavailable)),
        Err(unavailable) => {
            eprintln!("{unavailable}; moto is used instead");
            available(Moto::start()).map(|server| -> Box<dyn Server> { Box::new(server) })
        }
    }
}
