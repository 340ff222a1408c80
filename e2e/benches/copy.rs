//! `whimbrel checkpoint copy` compared with `rclone copy`: the same servers, the same objects.
//!
//! `cargo bench -p whimbrel-e2e --bench copy [-- MEBIBYTES [ROUNDS]]` makes a run of MEBIBYTES (4096) MiB in packs of
//! 64 MiB. Both programs copy it from an S3 server to an Azure server, from S3 to a folder, and from a folder to S3.
//! Each route has new servers, and each copy has a new destination. The programs alternate in going first. The table
//! shows the best of ROUNDS (2). The last rows copy a quarter of the size, to show whether memory use depends on the
//! size.
//!
//! A copy to a folder ends when the data is on the disk: Whimbrel syncs by itself, for rclone the benchmark runs `sync`
//! within the measured time.
//!
//! Before each copy the benchmark fills the free memory with cached file pages, as on a machine that has been in use. A
//! virtual machine may return free memory to its host. The first write to such a page can then take ten times as long,
//! and the program that happens to write it would look slower.
//!
//! The servers, radosgw and azurite, share this machine's processors: compare the ratios, not the absolute numbers.
//! rclone is Debian's, with `--transfers 8`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints its table, and panics on errors"
)]

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use whimbrel_e2e::programs;
use whimbrel_state::{Layout, Manifest, TensorSpec, manifest::FORMAT};
use whimbrel_store::{HostedBy, Limits, Record, Stopped, commit, open_run, save_slice};
use whimbrel_testbed::{Azurite, BUCKET, Radosgw, Server};

const RUN: &str = "bench-copy";
const PROGRAMS: [&str; 2] = ["whimbrel", "rclone"];
/// Bytes of memory that stay free.
const LEFT_FREE: u64 = 256 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, uri, mebibytes] = arguments.as_slice()
        && word == "make"
    {
        return make(uri, mebibytes.parse().unwrap());
    }
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let mebibytes = numbers.first().copied().unwrap_or(4096);
    let rounds = numbers.get(1).copied().unwrap_or(2);
    if Command::new("rclone").arg("version").stdout(Stdio::null()).status().is_err() {
        println!("rclone is not installed: apt-get install rclone");
        return;
    }
    println!(
        "{:<14}{:>8}  {:<9}{:>8}{:>9}{:>11}{:>10}{:>8}",
        "", "MiB", "", "s", "MB/s", "CPU s/GiB", "peak MiB", "faster"
    );
    for size in [mebibytes, mebibytes / 4] {
        let s3 = |name: &str| Location::S3(name.to_owned());
        compare("s3 to azure", size, rounds, |_| (s3("source"), Location::Azure("copy".to_owned())));
        compare("s3 to folder", size, rounds, |folder| (s3("source"), Location::Folder(folder.join("copy"))));
        compare("folder to s3", size, rounds, |folder| (Location::Folder(folder.join("source")), s3("copy")));
    }
}

/// Copies with both programs on new servers, alternating which goes first, and prints the best round of each.
fn compare(route: &str, mebibytes: usize, rounds: usize, locations: impl Fn(&Path) -> (Location, Location)) {
    let bench = Bench { s3: Radosgw::start().unwrap(), azure: Azurite::start().unwrap() };
    let folder = tempfile::tempdir().unwrap();
    let memory = tempfile::tempdir().unwrap();
    let (from, to) = locations(folder.path());
    bench.make(&from, mebibytes);
    let mut best: [Option<Cost>; 2] = [None; 2];
    for round in 0..rounds {
        for turn in 0..2 {
            let program = (round + turn) % 2;
            let to = to.for_copy(PROGRAMS[program], round);
            let command = if program == 0 { bench.whimbrel(&from, &to) } else { bench.rclone(&from, &to) };
            fill(memory.path());
            let taken = timed(command, &to);
            if best[program].is_none_or(|best| taken.seconds < best.seconds) {
                best[program] = Some(taken);
            }
            if let Location::Folder(path) = to {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
    let slowest = best[1].map_or(f64::NAN, |rclone| rclone.seconds);
    for (program, taken) in PROGRAMS.into_iter().zip(best) {
        let Some(taken) = taken else { continue };
        println!(
            "{route:<14}{mebibytes:>8}  {program:<9}{:>8.1}{:>9.0}{:>11.2}{:>10.0}{:>7.2}x",
            taken.seconds,
            mebibytes as f64 * 1.048_576 / taken.seconds,
            taken.cpu / (mebibytes as f64 / 1024.0),
            taken.peak_mib,
            slowest / taken.seconds,
        );
    }
}

/// A store.
#[derive(Clone)]
enum Location {
    S3(String),
    Azure(String),
    Folder(PathBuf),
}

impl Location {
    /// Another location for each copy.
    fn for_copy(&self, program: &str, round: usize) -> Self {
        let name = |prefix: &str| format!("{prefix}-{program}-{round}");
        match self {
            Self::S3(prefix) => Self::S3(name(prefix)),
            Self::Azure(prefix) => Self::Azure(name(prefix)),
            Self::Folder(path) => Self::Folder(name(&path.display().to_string()).into()),
        }
    }
}

struct Bench {
    s3: Radosgw,
    azure: Azurite,
}

impl Bench {
    /// The run's URI for `whimbrel`.
    fn uri(&self, location: &Location) -> String {
        match location {
            Location::S3(prefix) => format!("{}/{RUN}", self.s3.store_uri(prefix)),
            Location::Azure(prefix) => format!("{}/{RUN}", self.azure.store_uri(prefix)),
            Location::Folder(path) => format!("{}/{RUN}", path.display()),
        }
    }

    /// The run's path for `rclone`.
    fn remote(location: &Location) -> String {
        match location {
            Location::S3(prefix) => format!("s3:{BUCKET}/{prefix}/{RUN}"),
            Location::Azure(prefix) => format!("azure:{BUCKET}/{prefix}/{RUN}"),
            Location::Folder(path) => format!("{}/{RUN}", path.display()),
        }
    }

    fn whimbrel(&self, from: &Location, to: &Location) -> Command {
        let mut command = Command::new(programs::whimbrel());
        command.args(["checkpoint", "copy", "--yes", "--json", &self.uri(from), &self.uri(to)]);
        command.envs(self.s3.environment()).envs(self.azure.environment());
        command
    }

    fn rclone(&self, from: &Location, to: &Location) -> Command {
        let s3 = self.s3.environment();
        let value = |variable: &str| {
            let found = s3.iter().find(|(name, _)| *name == variable);
            found.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("no {variable}"))
        };
        let mut command = Command::new("rclone");
        command.args(["copy", "--transfers", "8", "--checkers", "8", &Self::remote(from), &Self::remote(to)]);
        // rclone fails if this variable is set.
        command.env_remove("AWS_CA_BUNDLE").envs([
            ("RCLONE_CONFIG", "/dev/null".to_owned()),
            ("RCLONE_CONFIG_S3_TYPE", "s3".to_owned()),
            ("RCLONE_CONFIG_S3_PROVIDER", "Ceph".to_owned()),
            ("RCLONE_CONFIG_S3_ENDPOINT", format!("http://{}", self.s3.address())),
            ("RCLONE_CONFIG_S3_ACCESS_KEY_ID", value("AWS_ACCESS_KEY_ID")),
            ("RCLONE_CONFIG_S3_SECRET_ACCESS_KEY", value("AWS_SECRET_ACCESS_KEY")),
            ("RCLONE_CONFIG_AZURE_TYPE", "azureblob".to_owned()),
            // With account and key, rclone only reaches hosts that are named after the account.
            ("RCLONE_CONFIG_AZURE_SAS_URL", self.azure.url_with(&self.azure.sas("rcwdl"))),
        ]);
        command
    }

    /// Makes the run, in a child process with the server's environment variables.
    fn make(&self, location: &Location, mebibytes: usize) {
        if let Location::Folder(path) = location {
            fs::create_dir_all(path).unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["make", &self.uri(location), &mebibytes.to_string()]).envs(self.s3.environment());
        assert!(command.status().unwrap().success(), "the run could not be made");
    }
}

/// Makes a run with one checkpoint of `mebibytes` MiB of noise, slice by slice.
fn make(uri: &str, mebibytes: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (run, _) = open_run(uri).unwrap();
        run.create("name = \"bench\"\n", HostedBy::Embedded).await.unwrap();
        let mut term = run.start_term("the benchmark").await.unwrap();
        let layout = Layout::new(vec![TensorSpec::f32("noise", [mebibytes << 18])]).unwrap();
        let mut random = fastrand::Rng::with_seed(mebibytes as u64);
        let mut packs = Vec::new();
        let slices = mebibytes.div_ceil(256);
        for slice in 0..slices {
            let range = layout.slice(slice, slices);
            let mut bytes = vec![0; range.len()];
            random.fill(&mut bytes);
            let saved = save_slice(&run, &layout, range, Bytes::from(bytes), &Limits::default()).await;
            packs.extend(saved.unwrap());
        }
        let manifest = Manifest {
            format: FORMAT,
            run: RUN.into(),
            step: 1,
            generation: 1,
            samples: 1,
            fingerprint: Default::default(),
            layout,
            packs,
        };
        commit(&mut term, &manifest, None).await.unwrap();
        term.append(Record::Stopped(Stopped { step: 1, reason: "made".into() })).await.unwrap();
    });
}

/// The cost of one copy.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

/// Fills the free memory with cached pages of a new file in a folder.
fn fill(folder: &Path) {
    let known = fs::read_to_string("/proc/meminfo").unwrap();
    let free = known.lines().find_map(|line| line.strip_prefix("MemFree:")).unwrap();
    let free: u64 = free.trim().trim_end_matches(" kB").parse().unwrap();
    let path = folder.join(fs::read_dir(folder).unwrap().count().to_string());
    // A sparse file: it takes no space on the disk, and as many cached pages as any file of its size.
    File::create(&path).unwrap().set_len((free << 10).saturating_sub(LEFT_FREE)).unwrap();
    io::copy(&mut File::open(&path).unwrap(), &mut io::sink()).unwrap();
}

/// Runs a program, waits until its data is on the disk, and measures what it used.
fn timed(mut command: Command, to: &Location) -> Cost {
    let (start, before) = (Instant::now(), children_seconds());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0_f64;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        // The high-water mark is sampled, so growth after the last sample is missed.
        thread::park_timeout(Duration::from_millis(20));
    };
    assert!(ended.success(), "{command:?}: {ended}");
    if let Location::Folder(path) = to {
        assert!(Command::new("sync").arg("-f").arg(path).status().unwrap().success());
    }
    Cost { seconds: start.elapsed().as_secs_f64(), cpu: children_seconds() - before, peak_mib: peak }
}

/// User and system time of ended children, in seconds, from `/proc` (fields 16 and 17, in hundredths of a second).
fn children_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks = after_name.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}
