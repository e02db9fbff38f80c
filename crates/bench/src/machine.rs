//! The machine, and the resources a process uses.

use std::{fs, process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// CPU model, number of cores and instruction set, in one line.
pub(crate) fn description() -> &'static str {
    static LINE: OnceLock<String> = OnceLock::new();
    LINE.get_or_init(|| {
        let model = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        format!("{model}, {} cores, {}", cores(), kernels::simd::Cpu::detect().level().name())
    })
}

/// The number of cores this process may use.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The checked-out commit, with `+` if there are uncommitted changes; `unknown` outside a repository.
pub(crate) fn revision() -> &'static str {
    static REVISION: OnceLock<String> = OnceLock::new();
    REVISION.get_or_init(|| {
        output("git", &["describe", "--always", "--dirty=+", "--exclude=*"])
            .unwrap_or_else(|| "unknown".to_owned())
    })
}

/// Today's date, UTC.
pub(crate) fn today() -> String {
    output("date", &["-u", "+%F"]).unwrap_or_else(|| "unknown date".to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A guard that pins the calling thread to certain cores until it is dropped. Threads and processes started
/// meanwhile inherit the pinning and keep it.
#[derive(Debug)]
pub(crate) struct CorePin(());

impl CorePin {
    /// Pins the calling thread to `core`.
    pub(crate) fn to_core(core: usize) -> Result<CorePin> {
        CorePin::to_cores(&[core])
    }

    /// Pins the calling thread to `cores`.
    pub(crate) fn to_cores(cores: &[usize]) -> Result<CorePin> {
        set_affinity(cores).map(|()| CorePin(()))
    }
}

impl Drop for CorePin {
    fn drop(&mut self) {
        if let Err(error) = set_affinity(&(0..cores()).collect::<Vec<_>>()) {
            eprintln!("{error:#}");
        }
    }
}

fn set_affinity(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("pin this thread to cores {cores:?}"))
}

/// Resident memory of a process in MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .with_context(|| format!("no VmRSS in {path}"))?;
    Ok(kib / 1024.0)
}

/// CPU seconds (user and system) a process has used so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is the program's name in parentheses and may contain spaces; utime and
    // stime are fields 14 and 15.
    let ticks = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().skip(11).take(2))
        .and_then(|fields| fields.map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>())
        .with_context(|| format!("no times in {path}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time the calling thread has used so far, user and system.
pub(crate) fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// CPU time all threads of this process have used so far, user and system.
pub(crate) fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::try_from(time).expect("CPU time is never negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_memory_and_cpu_time_of_this_process() {
        let pid = std::process::id();
        assert!(rss_mib(pid).unwrap() > 0.5);
        let before = cpu_seconds(pid).unwrap();
        let mut sum = 0u64;
        let (thread, process) = (thread_cpu(), process_cpu());
        while cpu_seconds(pid).unwrap() < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_seconds(pid).unwrap() > before);
        assert!(thread_cpu() > thread);
        assert!(process_cpu() >= process + Duration::from_millis(10));
    }
}
