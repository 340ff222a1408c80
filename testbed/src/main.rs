//! `cargo run -p whimbrel-testbed -- radosgw|moto|azurite|gcs`: starts a server, prints how to reach it, and stops it
//! when its standard input ends or it is interrupted.

use std::{error::Error, io};

use whimbrel_testbed::{Azurite, GcsServer, LyingS3, Moto, Radosgw, Server};

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let server: Box<dyn Server> = match std::env::args().nth(1).as_deref() {
        Some("radosgw") => Box::new(Radosgw::start()?),
        Some("moto") => Box::new(Moto::start()?),
        Some("azurite") => Box::new(Azurite::start()?),
        Some("gcs") => Box::new(GcsServer::start()?),
        Some("lying-s3") => Box::new(LyingS3::start()?),
        _ => return Err("name a server: radosgw, moto, azurite, gcs or lying-s3".into()),
    };
    for (variable, value) in server.environment() {
        println!("export {variable}='{value}'");
    }
    for pid in server.pids() {
        println!("# its process: {pid}");
    }
    if let Some(folder) = server.data() {
        println!("# its data: {}", folder.display());
    }
    println!("# {} is ready: {}; it stops when its input ends", server.name(), server.store_uri("runs"));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
