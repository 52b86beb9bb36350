//! The figures as a picture: bars of processor time, a panel for each number of keys, readable on light and on dark.

use std::fmt::Write as _;

use crate::rounds::{Case, Row};

/// Width of the picture, and of the part that the longest bar fills.
const WIDTH: f64 = 860.0;
const LONGEST: f64 = 520.0;
/// Where bars begin, and how far apart they are.
const LEFT: f64 = 110.0;
const STEP: f64 = 24.0;
/// What a panel needs beside its bars.
const PANEL: f64 = 54.0;
const TOP: f64 = 58.0;

const STYLE: &str = "\
text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #24292f } \
.title { font-size: 17px; font-weight: 600 } .panel { font-weight: 600 } .small { fill: #57606a; font-size: 12px } \
.gateway { fill: #1f6feb } .floor { fill: #8c959f } .peer { fill: #d8a657 } line { stroke: #8c959f; stroke-dasharray: 3 3 } \
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9da7b3 } .gateway { fill: #58a6ff } \
.floor { fill: #6e7681 } .peer { fill: #b08800 } }";

/// The cases with the fewest connections.
pub(crate) fn plot(cases: &[Case]) -> String {
    let fewest = cases.iter().map(|case| case.connections).min().unwrap_or_default();
    let shown: Vec<&Case> = cases.iter().filter(|case| case.connections == fewest).collect();
    let height = TOP + shown.iter().map(|case| PANEL + STEP * case.rows.len() as f64).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Processor time of one lookup whose keys are all cached\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"16\" y=\"28\">Processor time of one lookup whose keys are all cached</text>\n\
         <text class=\"small\" x=\"16\" y=\"47\">µs, user and system, of the server's one core; {fewest} connections; × is \
         by the floor: hyper that answers as many fixed bytes</text>\n"
    );
    let mut top = TOP;
    for case in shown {
        panel(case, top, &mut svg);
        top += PANEL + STEP * case.rows.len() as f64;
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(case: &Case, top: f64, svg: &mut String) {
    let longest = case.rows.iter().map(|row| row.cpu).fold(1.0, f64::max);
    let scale = LONGEST / longest;
    writeln!(svg, "<text class=\"panel\" x=\"16\" y=\"{:.0}\">{}</text>", top + 26.0, case.keys.name()).unwrap();
    let first = top + 38.0;
    for (number, row) in case.rows.iter().enumerate() {
        bar(case, row, (first + STEP * number as f64, scale), svg);
    }
    if let Some(floor) = case.rows.iter().find(|row| row.name == "floor") {
        let x = LEFT + floor.cpu * scale;
        let bottom = first + STEP * case.rows.len() as f64 - 6.0;
        writeln!(svg, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{first:.1}\" y2=\"{bottom:.1}\"/>").unwrap();
    }
}

fn bar(case: &Case, row: &Row, (top, scale): (f64, f64), svg: &mut String) {
    let class = match &*row.name {
        "gateway" | "floor" => &row.name,
        _ => "peer",
    };
    let (width, base) = (row.cpu * scale, top + 13.0);
    let ratio = case.cpu_ratio(row, "floor").map_or(String::new(), |ratio| format!("  {ratio:.2} ×"));
    writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"18\" rx=\"3\"/>\
         <text x=\"{:.1}\" y=\"{base:.0}\">{:.1} µs<tspan class=\"small\">{ratio}</tspan></text>",
        LEFT - 8.0,
        row.name,
        LEFT + width + 8.0,
        row.cpu
    )
    .unwrap();
}
