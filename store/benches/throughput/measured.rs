//! The cost of a piece of work, and the table of all.

use std::{collections::BTreeMap, fs, io::Write, time::Instant};

use crate::Result;

/// The cost of a piece of work.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// Seconds of wall clock.
    wall: f64,
    /// Seconds of all processors, in this process.
    cpu: f64,
    /// The peak memory beyond that before, in MiB.
    peak: f64,
}

impl Measured {
    pub(crate) async fn of<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Self)> {
        // Writing 5 resets the peak to the present use.
        fs::write("/proc/self/clear_refs", "5")?;
        let (held, start, before) = (status("VmRSS:")?, Instant::now(), cpu_seconds()?);
        let done = work.await?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - before);
        Ok((done, Self { wall, cpu, peak: (status("VmHWM:")? - held).max(0.0) / 1024.0 }))
    }
}

/// A line of `/proc/self/status`, in KiB.
fn status(key: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("/proc has no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// User and system time of this process, from `/proc` (fields 14 and 15, in hundredths of a second).
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(") ").ok_or("/proc/self/stat has no name")?.1;
    let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / 100.0)
}

/// All measurements, each taken once a round.
pub(crate) struct Table {
    bytes: usize,
    rows: BTreeMap<(&'static str, Option<usize>), Vec<Measured>>,
}

impl Table {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, rows: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, at_a_time: Option<usize>, measured: Measured) {
        self.rows.entry((name, at_a_time)).or_default().push(measured);
    }

    /// The median of the rounds.
    fn median(&self, row: (&'static str, Option<usize>), of: impl Fn(&Measured) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rows.get(&row).into_iter().flatten().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// For each round, the wall time of the raw work at the number of transfers whose median is best.
    fn best_raw(&self, name: &'static str) -> Option<(&'static str, Option<usize>)> {
        let numbers = self.rows.keys().copied().filter(|row| row.0 == name);
        numbers.min_by(|a, b| self.median(*a, |m| m.wall).total_cmp(&self.median(*b, |m| m.wall)))
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> Result<()> {
        let heads = ["", "at a time", "MB/s", "cpu s/GB", "peak MiB", "of raw, rounds"];
        writeln!(
            out,
            "{:<9}{:>10}{:>9}{:>10}{:>10}   {}",
            heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
        )?;
        for (name, raw) in [
            ("raw put", "raw put"),
            ("save", "raw put"),
            ("raw get", "raw get"),
            ("restore", "raw get"),
            ("verify", "raw get"),
        ] {
            let best = self.best_raw(raw);
            for (&row, rounds) in self.rows.iter().filter(|(row, _)| row.0 == name) {
                let gigabytes = self.bytes as f64 / 1e9;
                let rate = 1e3 * gigabytes / self.median(row, |measured| measured.wall);
                let cpu = self.median(row, |measured| measured.cpu) / gigabytes;
                let peak = self.median(row, |measured| measured.peak);
                let raw_rounds = best.and_then(|best| self.rows.get(&best)).into_iter().flatten();
                let mut ratios: Vec<f64> =
                    raw_rounds.zip(rounds).map(|(raw, measured)| raw.wall / measured.wall).collect();
                ratios.sort_by(f64::total_cmp);
                let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
                let at_a_time = row.1.map_or(String::new(), |number| number.to_string());
                let marked = if best == Some(row) { "best" } else { "" };
                let ratios = ratios.join(" ");
                writeln!(
                    out,
                    "{name:<9}{at_a_time:>10}{rate:>9.0}{cpu:>10.2}{peak:>10.0}   {ratios} {marked}"
                )?;
            }
        }
        Ok(())
    }
}
