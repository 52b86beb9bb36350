//! The results that are kept: a page with a section for each part, of which each run writes those that it measured.

use std::{fs, path::Path};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/fleet.md");
const TITLE: &str = "# Several gateways, one limit\n\nWritten by `make fleet`.\n";

/// Puts a section in the place of the one before.
pub(crate) fn put(title: &str, text: &str) {
    let old = fs::read_to_string(PAGE).unwrap_or_else(|_none_yet| TITLE.to_owned());
    let mut sections: Vec<String> = old.split("\n## ").map(|section| section.trim_end().to_owned()).collect();
    let new = format!("{title}\n\nOn {}. {}", machine(), text.trim_end());
    match sections.iter_mut().skip(1).find(|section| section.lines().next() == Some(title)) {
        Some(section) => *section = new,
        None => sections.push(new),
    }
    fs::create_dir_all(Path::new(PAGE).parent().unwrap()).unwrap();
    fs::write(PAGE, sections.join("\n\n## ") + "\n").unwrap();
}

/// What it was measured on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let release = kernel.split('-').next().unwrap_or_default().trim();
    format!("{cores} cores of {}, Linux {release}", model.map_or("an unnamed processor", |(_, model)| model))
}
