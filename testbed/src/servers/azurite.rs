//! azurite, Microsoft's emulator of Azure Blob Storage.

use std::{net::SocketAddr, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use super::{
    server::{BUCKET, Server, Unavailable},
    signed,
    single_process::SingleProcess,
};
use crate::install::{find, from_npm};

const NAME: &str = "azurite";

/// The account and the key of every emulator of the service, as Microsoft documents them.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azurite: Azure Blob Storage over a folder. It checks shared keys and SAS.
#[derive(Debug)]
pub struct Azurite {
    server: SingleProcess,
}

/// A shared access signature for the container.
#[derive(Clone, Debug)]
pub struct Sas(String);

impl Azurite {
    /// Starts it, and creates the container. Installs it from npm first if it is missing.
    pub fn start() -> Result<Self, Unavailable> {
        let unavailable = |reason| Unavailable { server: NAME, reason };
        let program = match find("azurite-blob") {
            Some(program) => program,
            None => {
                let folder = from_npm("azurite", "3.37.0").map_err(unavailable)?;
                folder.join("node_modules/.bin/azurite-blob")
            }
        };
        let command = |port: u16, folder: &Path| {
            let mut command = Command::new(&program);
            command.args([
                "--silent",
                "--disableTelemetry",
                "--skipApiVersionCheck",
                "--blobHost",
                "127.0.0.1",
            ]);
            command.args(["--blobPort", &port.to_string(), "--location"]).arg(folder);
            command
        };
        let set_up = |address| {
            let container = format!("http://{address}/{ACCOUNT}/{BUCKET}?restype=container");
            signed::azure(Method::PUT, &container, ACCOUNT, KEY).map_err(|error| error.to_string())
        };
        let server = SingleProcess::start(NAME, command, set_up).map_err(unavailable)?;
        Ok(Self { server })
    }

    /// A signature that grants `rights` in the container for an hour. `rights` are letters, in the order of Azure's
    /// documentation: `r`ead, `a`dd, `c`reate, `w`rite, `d`elete, `l`ist.
    pub fn sas(&self, rights: &str) -> Sas {
        let end = Utc::now() + TimeDelta::hours(1);
        let end = end.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (version, protocols) = ("2018-11-09", "https,http");
        // Rights, start, end, resource, identifier, addresses, protocols, version, kind, snapshot, and five headers.
        let signed =
            format!("{rights}\n\n{end}\n/blob/{ACCOUNT}/{BUCKET}\n\n\n{protocols}\n{version}\nc\n\n\n\n\n\n");
        let key = BASE64_STANDARD.decode(KEY).unwrap_or_default();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let signature = BASE64_STANDARD.encode(signature);
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (end, protocols, signature) = (encoded(&end), encoded(protocols), encoded(&signature));
        Sas(format!("sv={version}&sr=c&sp={rights}&se={end}&spr={protocols}&sig={signature}"))
    }

    /// The container's URL with the signature in it, for programs that have no option for an emulator.
    pub fn url_with(&self, sas: &Sas) -> String {
        format!("http://{}/{ACCOUNT}/{BUCKET}?{}", self.server.address, sas.0)
    }

    /// The environment variables of a program that has a signature and no key.
    pub fn environment_with(&self, sas: &Sas) -> Vec<(&'static str, String)> {
        let mut environment = self.environment();
        environment.retain(|(variable, _)| *variable != "AZURE_STORAGE_ACCOUNT_KEY");
        environment.push(("AZURE_STORAGE_SAS_TOKEN", sas.0.clone()));
        environment
    }
}

impl Server for Azurite {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("az://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ENDPOINT", format!("http://{address}/{ACCOUNT}")),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
        ]
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.server.process.pid()]
    }

    fn data(&self) -> Option<&Path> {
        Some(self.server.folder.path())
    }

    fn kill(&mut self) {
        self.server.process.kill();
    }
}
