//! radosgw, Ceph's S3 gateway, with its users and policies. `cluster.rs` has the Ceph cluster behind it.

mod cluster;

use std::{net::SocketAddr, path::Path};

use http::Method;

use self::cluster::{Cluster, DEADLINE};
use super::{
    s3,
    server::{BUCKET, Server, Unavailable},
    signed,
};
use crate::{
    install::from_debian,
    process::{Process, answers_http},
};

const NAME: &str = "radosgw";
const PROGRAMS: [&str; 7] =
    ["ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "radosgw", "radosgw-admin"];
const PACKAGES: [&str; 4] = ["radosgw", "ceph-mon", "ceph-osd", "ceph-common"];

/// Ceph's gateway: a real S3 server, which checks users, policies and signatures.
#[derive(Debug)]
pub struct Radosgw {
    // The fields are dropped in this order: the processes stop before the folder goes.
    gateway: Process,
    disk: Process,
    monitor: Process,
    owner: User,
    cluster: Cluster,
}

/// A user of the gateway.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub uid: String,
    /// `AWS_ACCESS_KEY_ID`.
    pub key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: String,
}

impl User {
    fn new(uid: &str) -> Self {
        Self { uid: uid.into(), key_id: format!("{uid}-key"), secret_key: format!("{uid}-secret") }
    }

    fn keys(&self) -> (&str, &str) {
        (&self.key_id, &self.secret_key)
    }
}

impl Radosgw {
    /// Starts it, and creates the bucket. Installs Debian's packages first if they are missing.
    pub fn start() -> Result<Self, Unavailable> {
        let unavailable = |reason| Unavailable { server: NAME, reason };
        from_debian(&PROGRAMS, &PACKAGES).map_err(unavailable)?;
        // The ports are chosen before the programs listen on them. Another program may take one, so try twice.
        Self::launch().or_else(|_| Self::launch()).map_err(unavailable)
    }

    fn launch() -> Result<Self, String> {
        let cluster = Cluster::create()?;
        let mut monitor = cluster.spawn("ceph-mon", &["-i", "a", "-f"])?;
        // The monitor answers as soon as it leads itself.
        if let Err(error) =
            cluster.run("ceph", &["--connect-timeout", "60", "osd", "new", &cluster.disk_id, "0"])
        {
            monitor.check_running()?;
            return Err(error);
        }
        let disk = cluster.spawn("ceph-osd", &["-i", "0", "-f"])?;
        let mut gateway = cluster.spawn("radosgw", &["-n", "client.admin", "-f"])?;
        let address = cluster.gateway_address();
        gateway.wait_until(DEADLINE, || answers_http(address))?;

        let owner = User::new("owner");
        let mut started = Self { gateway, disk, monitor, owner, cluster };
        started.add_user("owner")?;
        s3::create_bucket(address, started.owner.keys())?;
        started.monitor.check_running()?;
        Ok(started)
    }

    /// Creates another user, who has no permissions in the bucket.
    pub fn add_user(&self, uid: &str) -> Result<User, String> {
        let user = User::new(uid);
        let keys = [format!("--access-key={}", user.key_id), format!("--secret-key={}", user.secret_key)];
        let uid = [format!("--uid={uid}"), format!("--display-name={uid}")];
        let arguments = ["user", "create", &uid[0], &uid[1], &keys[0], &keys[1]];
        self.cluster.run("radosgw-admin", &arguments).map(|_| user)
    }

    /// Allows `user` the actions `allowed`, such as `s3:GetObject`, on the bucket and every object in it, and denies
    /// the actions `denied` even on the user's own objects. All other actions stay forbidden.
    pub fn permit(&self, user: &User, allowed: &[&str], denied: &[&str]) -> Result<(), String> {
        let statement = |effect: &str, actions: &[&str]| {
            serde_json::json!({
                "Effect": effect,
                "Principal": { "AWS": [format!("arn:aws:iam:::user/{}", user.uid)] },
                "Action": actions,
                "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")],
            })
        };
        let statements = [("Allow", allowed), ("Deny", denied)];
        let given = statements.into_iter().filter(|(_, actions)| !actions.is_empty());
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": given.map(|(effect, actions)| statement(effect, actions)).collect::<Vec<_>>(),
        });
        let url = format!("http://{}/{BUCKET}?policy", self.address());
        let put = signed::s3(Method::PUT, &url, &policy.to_string(), self.owner.keys());
        put.map_err(|error| error.to_string())
    }

    /// The owner of the bucket.
    pub fn owner(&self) -> &User {
        &self.owner
    }

    /// The environment variables with which a program reaches the server as `user`.
    pub fn environment_of(&self, user: &User) -> Vec<(&'static str, String)> {
        s3::environment(self.address(), &user.key_id, &user.secret_key)
    }
}

impl Server for Radosgw {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.cluster.gateway_address()
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        s3::environment(address, &self.owner.key_id, &self.owner.secret_key)
    }

    fn pids(&self) -> Vec<u32> {
        [&self.gateway, &self.disk, &self.monitor].map(Process::pid).to_vec()
    }

    fn data(&self) -> Option<&Path> {
        Some(self.cluster.folder.path())
    }

    fn kill(&mut self) {
        for process in [&mut self.gateway, &mut self.disk, &mut self.monitor] {
            process.kill();
        }
    }
}
