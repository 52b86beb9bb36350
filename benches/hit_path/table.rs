//! The figures as Markdown.

use std::{fmt::Write as _, fs};

use crate::{
    customers,
    options::Options,
    rounds::{Case, Row},
};

const HEAD: &str = "\
| server | CPU µs / request | user + system | × floor | × nginx | requests / s | p50 | p99 | p99.9 | p99 × floor | RSS |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// All cases, with what they were measured on.
pub(crate) fn page(options: &Options, cases: &[Case]) -> String {
    let mut page = format!(
        "# What a hit costs\n\n\
         Written by `make bench` ({} rounds of {} s for each server, medians; {} customers of 1.5 KB; latency in \
         microseconds, open loop, from when a request was due) on {}.\n\n\
         `floor` is hyper that reads the body and answers as many fixed bytes; `nginx` and `varnish` keep the answer to each \
         body; `redis` answers GET or MGET of the same records. nginx's cache is files in memory, which its RSS leaves out. \
         A server without a latency cannot keep up with half of what the gateway can.\n",
        options.rounds,
        options.seconds,
        options.customers,
        machine()
    );
    cases.iter().for_each(|case| page.push_str(&table(case)));
    page
}

/// One case.
pub(crate) fn table(case: &Case) -> String {
    let Case { keys, connections, per_second, rows } = case;
    let size = customers::answer_length(keys.count()) as f64 / 1e3;
    let mut table = format!(
        "\n## {}, {size:.1} KB, {connections} connections\n\nLatency at {per_second:.0} requests a second.\n\n{HEAD}",
        keys.name()
    );
    rows.iter().for_each(|row| line(case, row, &mut table));
    table
}

fn line(case: &Case, row: &Row, table: &mut String) {
    let ratio = |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    let [p50, p99, p999] = match row.latency {
        Some(latency) => latency.map(|micros| format!("{micros:.0}")),
        None => ["–"; 3].map(str::to_owned),
    };
    let user = row.cpu * row.user_part;
    writeln!(
        table,
        "| {} | {:.1} | {user:.1} + {:.1} | {} | {} | {:.0} | {p50} | {p99} | {p999} | {} | {:.0} MiB |",
        row.name,
        row.cpu,
        row.cpu - user,
        ratio(case.cpu_ratio(row, "floor")),
        ratio(case.cpu_ratio(row, "nginx")),
        row.per_second,
        ratio(case.p99_ratio(row, "floor")),
        row.resident as f64 / 1_048_576.0,
    )
    .unwrap();
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
