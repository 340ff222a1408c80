//! A Ceph cluster of one monitor and one disk, all on the loopback address: its files, and its tools.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    install::find,
    process::{Process, finished, free_ports},
};

/// The longest that a program of the cluster may take to start or to finish. Starting takes 10 to 15 s on two idle
/// cores.
pub(super) const DEADLINE: Duration = Duration::from_secs(180);

/// The cluster's files and ports.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) folder: TempDir,
    /// A UUID.
    pub(super) disk_id: String,
    /// Of the monitor's two protocols, and of the gateway.
    ports: [u16; 3],
}

impl Cluster {
    /// Writes the settings, the keys and the first files of the monitor and the disk, in a new folder. Starts nothing.
    pub(super) fn create() -> Result<Self, String> {
        let failed = |error: io::Error| error.to_string();
        let folder = TempDir::with_prefix("whimbrel-radosgw-").map_err(failed)?;
        let cluster = Self { folder, disk_id: uuid().map_err(failed)?, ports: free_ports().map_err(failed)? };
        cluster.write_settings().map_err(failed)?;
        cluster.make_keys()?;
        Ok(cluster)
    }

    pub(super) fn gateway_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[2]).into()
    }

    fn monitor(&self) -> String {
        let [new, old, _] = self.ports;
        format!("[v2:127.0.0.1:{new},v1:127.0.0.1:{old}]")
    }

    fn write_settings(&self) -> io::Result<()> {
        let folder = self.folder.path();
        for part in ["mon", "osd", "rgw", "run"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let at = folder.display();
        let (monitor, gateway) = (self.monitor(), self.ports[2]);
        // With one disk there is one copy of each object. Ceph must start in spite of that, and on a file system that
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
            cluster = uuid()?,
        );
        fs::write(folder.join("ceph.conf"), settings)
    }

    /// Creates the keys, the monitor's map, and the first files of the monitor and the disk. The monitor's keyring
    /// includes the disk's key, so that the disk needs no registration later.
    fn make_keys(&self) -> Result<(), String> {
        let path = |name: &str| self.folder.path().join(name).to_string_lossy().into_owned();
        let (keys, disk_key, map) = (path("keyring"), path("osd/keyring"), path("monmap"));
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
        let make_disk =
            ["-i", "0", "--mkfs", "--osd-uuid", &self.disk_id, "--monmap", &map, "--no-mon-config"];
        self.run("ceph-osd", &make_disk).map(|_| ())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let settings = self.folder.path().join("ceph.conf");
        let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
        command.env("CEPH_CONF", &settings).args(arguments);
        command
    }

    /// Runs a tool of the cluster to its end, and returns its output.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        finished(&mut self.command(program, arguments), DEADLINE)
    }

    /// Starts a server of the cluster.
    pub(super) fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Process, String> {
        let spawned = Process::spawn(program, &self.command(program, arguments), self.folder.path());
        spawned.map_err(|error| format!("cannot start {program}: {error}"))
    }
}

fn uuid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}
