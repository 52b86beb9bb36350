//! The table as Markdown, its columns as wide as they must be.

use std::io::{self, Write};

use crate::measure::Row;

/// The columns' names; `main.rs` says what they mean.
const NAMES: [&str; 16] = [
    "policy",
    "hits",
    "hot fresh",
    "requests",
    "keys each",
    "slots used while waiting",
    "of all",
    "wait p50",
    "p90",
    "p99",
    "max",
    "refused",
    "timed out",
    "fairness",
    "promise off p50",
    "p95",
];

/// Prints the rows under their names.
pub(crate) fn print(rows: &[(&str, Row)], to: &mut impl Write) -> io::Result<()> {
    let rows: Vec<_> = rows.iter().map(|(policy, row)| cells(policy, row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(NAMES[column].len());
    let widths: [usize; NAMES.len()] = std::array::from_fn(width);
    let line = |cells: [&str; NAMES.len()]| {
        let cells = cells.iter().zip(widths).enumerate();
        // Words to the left, numbers to the right.
        let cells = cells.map(
            |(column, (cell, width))| {
                if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") }
            },
        );
        cells.collect::<String>() + "|"
    };
    writeln!(to, "{}", line(NAMES))?;
    let rules = widths.iter().enumerate();
    let rules =
        rules.map(|(column, width)| format!("|{}{}", "-".repeat(width + 1), if column == 0 { "-" } else { ":" }));
    writeln!(to, "{}|", rules.collect::<String>())?;
    rows.iter().try_for_each(|row| writeln!(to, "{}", line(std::array::from_fn(|column| &*row[column]))))
}

fn cells(policy: &str, row: &Row) -> [String; NAMES.len()] {
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    let seconds = |seconds: f64| format!("{seconds:.1} s");
    let [p50, p90, p99, max] = row.waits.map(seconds);
    let [off_p50, off_p95] = row.promise_off;
    [
        policy.to_owned(),
        percent(row.hits),
        percent(row.hot_fresh),
        row.requests.to_string(),
        format!("{:.1}", row.keys_per_request),
        percent(row.used_while_waiting),
        percent(row.used),
        p50,
        p90,
        p99,
        max,
        percent(row.refused),
        percent(row.timed_out),
        format!("{:.2}", row.fairness),
        format!("{off_p50:.2}"),
        format!("{off_p95:.2}"),
    ]
}
