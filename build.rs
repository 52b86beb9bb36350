//! Tells the program which revision it was built from, for the metric `build_info`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-env-changed=GATEWAY_REVISION");
    let given = std::env::var("GATEWAY_REVISION").ok();
    let revision = given.or_else(revision).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GATEWAY_REVISION={revision}");
}

/// The commit that is checked out, where there is a checkout.
fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
