//! `cargo run -p whimbrel-testbed -- radosgw|moto|azurite|gcs|lying-s3`: starts a server, prints the environment
//! variables that reach it, and stops it when standard input ends or the program is interrupted.

use std::{error::Error, io};

use whimbrel_testbed::{Azurite, GcsServer, LyingS3, Moto, Radosgw, Server};

#[expect(clippy::print_stdout, reason = "the output is the purpose of this program")]
fn main() -> Result<(), Box<dyn Error>> {
    let server: Box<dyn Server> = match std::env::args().nth(1).as_deref() {
        Some("radosgw") => Box::new(Radosgw::start()?),
        Some("moto") => Box::new(Moto::start()?),
        Some("azurite") => Box::new(Azurite::start()?),
        Some("gcs") => Box::new(GcsServer::start()?),
        Some("lying-s3") => Box::new(LyingS3::start()?),
        _ => return Err("which server? Give one of radosgw, moto, azurite, gcs or lying-s3".into()),
    };
    for (variable, value) in server.environment() {
        println!("export {variable}='{value}'");
    }
    for pid in server.pids() {
        println!("# process: {pid}");
    }
    if let Some(folder) = server.data() {
        println!("# data: {}", folder.display());
    }
    println!("# {} is ready: {}; it stops when standard input ends", server.name(), server.store_uri("runs"));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
