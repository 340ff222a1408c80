//! Ceph's S3 gateway over a Ceph of one monitor and one disk, all on the loopback address.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use http::Method;
use tempfile::TempDir;

use crate::{
    install::from_debian,
    process::{Process, answers_http, finished, free_ports},
    server::{BUCKET, Server, Unavailable},
    signed,
};

const NAME: &str = "radosgw";
const PROGRAMS: [&str; 7] =
    ["ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "radosgw", "radosgw-admin"];
const PACKAGES: [&str; 4] = ["radosgw", "ceph-mon", "ceph-osd", "ceph-common"];

/// Starting it takes 10 to 15 s on two cores; a machine that compiles meanwhile gets more.
const DEADLINE: Duration = Duration::from_secs(180);

/// Ceph's gateway: a real S3 server, with users, policies and signatures that it checks.
#[derive(Debug)]
pub struct Radosgw {
    /// In the order in which they are stopped.
    gateway: Process,
    disk: Process,
    monitor: Process,
    address: SocketAddr,
    owner: User,
    folder: TempDir,
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
}

impl Radosgw {
    /// Installs it if need be, starts it, and makes the bucket.
    pub fn start() -> Result<Self, Unavailable> {
        let unavailable = |reason| Unavailable { server: NAME, reason };
        from_debian(&PROGRAMS, &PACKAGES).map_err(unavailable)?;
        // The monitor's ports have to be known before it starts; somebody may take one in between.
        Self::launch().or_else(|_| Self::launch()).map_err(unavailable)
    }

    fn launch() -> Result<Self, String> {
        let failed = |error: io::Error| error.to_string();
        let folder = TempDir::with_prefix("whimbrel-radosgw-").map_err(failed)?;
        let at = folder.path();
        let ports = free_ports().map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[2]));
        let cluster = Cluster { folder: at.to_owned(), ports };
        cluster.lay_out().map_err(failed)?;
        cluster.make_keys()?;

        let mut monitor = cluster.spawn("ceph-mon", &["-i", "a", "-f"])?;
        // Answered as soon as the monitor leads itself.
        cluster.run("ceph", &["--connect-timeout", "60", "osd", "new", &cluster.disk_id()?, "0"]).map_err(
            |error| match monitor.wait_until(Duration::ZERO, || false) {
                Err(printed) => format!("{error}\n{printed}"),
                Ok(()) => error,
            },
        )?;
        let disk = cluster.spawn("ceph-osd", &["-i", "0", "-f"])?;
        let mut gateway = cluster.spawn("radosgw", &["-n", "client.admin", "-f"])?;
        gateway.wait_until(DEADLINE, || answers_http(address))?;

        let owner = User::new("owner");
        let started = Self { gateway, disk, monitor, address, owner, folder };
        started.add_user("owner")?;
        let bucket = format!("http://{address}/{BUCKET}");
        signed::s3(Method::PUT, &bucket, "", started.owner.keys()).map_err(|error| error.to_string())?;
        monitor_is_up(&started.monitor)?;
        Ok(started)
    }

    /// Makes another user, who may do nothing in the bucket.
    pub fn add_user(&self, uid: &str) -> Result<User, String> {
        let user = User::new(uid);
        let cluster = Cluster { folder: self.folder.path().to_owned(), ports: [0; 3] };
        let keys = [format!("--access-key={}", user.key_id), format!("--secret-key={}", user.secret_key)];
        let uid = [format!("--uid={uid}"), format!("--display-name={uid}")];
        let arguments = ["user", "create", &uid[0], &uid[1], &keys[0], &keys[1]];
        cluster.run("radosgw-admin", &arguments).map(|_| user)
    }

    /// Lets `user` do what is in `allowed`, `s3:GetObject` for one, in the bucket and with everything in it; nothing else,
    /// and what is in `denied` not even with what is the user's own.
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
        let url = format!("http://{}/{BUCKET}?policy", self.address);
        let put = signed::s3(Method::PUT, &url, &policy.to_string(), self.owner.keys());
        put.map_err(|error| error.to_string())
    }

    /// The user whose the bucket is.
    pub fn owner(&self) -> &User {
        &self.owner
    }

    /// The environment of a program that is `user`.
    pub fn environment_of(&self, user: &User) -> Vec<(&'static str, String)> {
        s3_environment(self.address, &user.key_id, &user.secret_key)
    }
}

impl User {
    fn keys(&self) -> (&str, &str) {
        (&self.key_id, &self.secret_key)
    }
}

/// What a program needs to reach an S3 server.
pub(crate) fn s3_environment(
    address: SocketAddr,
    key_id: &str,
    secret_key: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", key_id.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

fn monitor_is_up(monitor: &Process) -> Result<(), String> {
    match rustix::process::test_kill_process(
        i32::try_from(monitor.pid()).ok().and_then(rustix::process::Pid::from_raw).ok_or("no pid")?,
    ) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("the monitor is gone ({error}); it printed:\n{}", monitor.log_tail())),
    }
}

impl Server for Radosgw {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn store_uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        s3_environment(address, &self.owner.key_id, &self.owner.secret_key)
    }

    fn pids(&self) -> Vec<u32> {
        [&self.gateway, &self.disk, &self.monitor].map(Process::pid).to_vec()
    }

    fn data(&self) -> Option<&Path> {
        Some(self.folder.path())
    }

    fn kill(&mut self) {
        for process in [&mut self.gateway, &mut self.disk, &mut self.monitor] {
            process.kill();
        }
    }
}

/// The files of a Ceph, and its tools.
struct Cluster {
    folder: PathBuf,
    /// The monitor's two protocols, and the gateway.
    ports: [u16; 3],
}

impl Cluster {
    fn monitor(&self) -> String {
        let [new, old, _] = self.ports;
        format!("[v2:127.0.0.1:{new},v1:127.0.0.1:{old}]")
    }

    fn disk_id(&self) -> Result<String, String> {
        let path = self.folder.join("disk-id");
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn lay_out(&self) -> io::Result<()> {
        for folder in ["mon", "osd", "rgw", "run"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let disk_id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        fs::write(self.folder.join("disk-id"), disk_id.trim())?;
        let at = self.folder.display();
        let (monitor, gateway) = (self.monitor(), self.ports[2]);
        // One disk, so one copy. What Ceph warns about then is not to keep it from starting, nor is a file system that
        // is nearly full: one percent of a large one is many times what a test writes.
        let settings = format!(
            "[global]\n\
             fsid = {cluster}\n\
             mon_host = {monitor}\n\
             keyring = {at}/keyring\n\
             public_addr = 127.0.0.1\n\
             cluster_addr = 127.0.0.1\n\
             ms_bind_ipv6 = false\n\
             auth_allow_insecure_global_id_reclaim = false\n\
             osd_pool_default_size = 1\n\
             osd_pool_default_min_size = 1\n\
             osd_pool_default_pg_num = 8\n\
             mon_allow_pool_size_one = true\n\
             mon_max_pg_per_osd = 1000\n\
             mon_data_avail_crit = -1\n\
             osd_crush_chooseleaf_type = 0\n\
             osd_crush_initial_weight = 1\n\
             osd_objectstore = bluestore\n\
             bluestore_block_size = 34359738368\n\
             bluestore_fsck_on_mount = false\n\
             osd_memory_target = 1073741824\n\
             run_dir = {at}/run\n\
             admin_socket = {at}/run/$name.asok\n\
             log_file = {at}/run/$name.log\n\
             mon_data = {at}/mon\n\
             osd_data = {at}/osd\n\
             rgw_data = {at}/rgw\n\
             rgw_frontends = beast endpoint=127.0.0.1:{gateway}\n\
             rgw_enable_apis = s3\n\
             rgw_gc_obj_min_wait = 5\n\
             rgw_gc_processor_period = 10\n\
             [osd.0]\n\
             keyring = {at}/osd/keyring\n",
            cluster = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim(),
        );
        fs::write(self.folder.join("ceph.conf"), settings)
    }

    /// Makes the keys, the map of the one monitor, and its and the disk's first files. The monitor learns the disk's
    /// key here, so that nobody has to tell it later.
    fn make_keys(&self) -> Result<(), String> {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let (keys, disk_key, map) = (path("keyring"), path("osd/keyring"), path("monmap"));
        let disk_id = self.disk_id()?;
        let steps: [(&str, &[&str]); 6] = [
            ("monmaptool", &["--create", "--addv", "a", &self.monitor(), &map]),
            (
                "ceph-authtool",
                &["--create-keyring", &keys, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"],
            ),
            (
                "ceph-authtool",
                &[
                    &keys,
                    "--gen-key",
                    "-n",
                    "client.admin",
                    "--cap",
                    "mds",
                    "allow *",
                    "--cap",
                    "mon",
                    "allow *",
                    "--cap",
                    "osd",
                    "allow *",
                    "--cap",
                    "mgr",
                    "allow *",
                ],
            ),
            (
                "ceph-authtool",
                &[
                    "--create-keyring",
                    &disk_key,
                    "--gen-key",
                    "-n",
                    "osd.0",
                    "--cap",
                    "mon",
                    "allow profile osd",
                    "--cap",
                    "osd",
                    "allow *",
                ],
            ),
            ("ceph-authtool", &[&keys, "--import-keyring", &disk_key]),
            ("ceph-mon", &["-i", "a", "--mkfs", "--monmap", &map, "--keyring", &keys]),
        ];
        for (program, arguments) in steps {
            self.run(program, arguments)?;
        }
        let make_disk = ["-i", "0", "--mkfs", "--osd-uuid", &disk_id, "--monmap", &map, "--no-mon-config"];
        self.run("ceph-osd", &make_disk).map(|_| ())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let settings = self.folder.join("ceph.conf");
        let mut command = Command::new(crate::install::find(program).unwrap_or_else(|| program.into()));
        command.env("CEPH_CONF", &settings).args(arguments);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        finished(&mut self.command(program, arguments), DEADLINE)
    }

    fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Process, String> {
        let spawned = Process::spawn(program, &self.command(program, arguments), &self.folder);
        spawned.map_err(|error| format!("cannot start {program}: {error}"))
    }
}
