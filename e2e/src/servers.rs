//! The store server of a whole-system test.

use whimbrel_testbed::{Moto, Radosgw, Server, available};

/// An S3 server: Ceph's, or moto where that cannot be had; nothing, saying so, where neither can.
pub fn s3() -> Option<Box<dyn Server>> {
    match Radosgw::start() {
        Ok(server) => Some(Box::new(server)),
        Err(unavailable) => {
            eprintln!("{unavailable}; moto instead");
            available(Moto::start()).map(|server| -> Box<dyn Server> { Box::new(server) })
        }
    }
}
