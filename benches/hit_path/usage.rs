//! What the kernel says of a program: the time that its threads ran for, and its memory.

use std::{fs, iter::Sum, ops::Sub, time::Duration};

/// Ticks of the clock in `/proc/PID/stat` in a second: a constant of Linux's interface.
const TICKS: f64 = 100.0;

/// Processor time of a program.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cpu {
    /// All of it, to the nanosecond.
    pub(crate) total: Duration,
    /// Ticks that the kernel counts as the program's own.
    user: f64,
    /// Ticks that it counts as its own work for the program.
    system: f64,
}

impl Cpu {
    /// The part that is the program's own, as exactly as a hundred ticks a second say.
    pub(crate) fn user_part(&self) -> f64 {
        self.user / (self.user + self.system).max(1.0 / TICKS)
    }

    /// What a process has used so far; nothing if it is no more, as nginx's loader of its cache after a minute.
    fn of(pid: u32) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let ran = |thread: std::io::Result<fs::DirEntry>| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        let total = Duration::from_nanos(threads.filter_map(ran).sum());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in brackets and may hold anything; the third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        Some(Self { total, user: ticks(14), system: ticks(15) })
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let total = self.total.saturating_sub(earlier.total);
        Self { total, user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

impl Sum for Cpu {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            total: sum.total + one.total,
            user: sum.user + one.user,
            system: sum.system + one.system,
        })
    }
}

/// What each of these processes has used so far.
pub(crate) fn cpu(pids: &[u32]) -> Vec<(u32, Cpu)> {
    pids.iter().filter_map(|&pid| Some((pid, Cpu::of(pid)?))).collect()
}

/// What they have used since then.
pub(crate) fn since(then: &[(u32, Cpu)]) -> Cpu {
    then.iter().filter_map(|&(pid, then)| Some(Cpu::of(pid)? - then)).sum()
}

/// The memory of these processes that is resident, in bytes.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let of = |&pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    pids.iter().filter_map(of).sum()
}

/// A process, its children, and theirs.
pub(crate) fn family(of: u32) -> Vec<u32> {
    let children: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((parent, pid))
        })
        .collect();
    let mut family = vec![of];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(children.iter().filter(|(of, _)| *of == parent).map(|(_, pid)| pid));
        next += 1;
    }
    family
}
