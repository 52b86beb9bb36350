//! Tells the program which revision it was built from, for the metric `build_info`.

use std::process::Command;

fn main() {
    // The reflog grows with every commit and checkout, also in a worktree, where `.git` is a file.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-env-changed=GATEWAY_REVISION");
    let given = std::env::var("GATEWAY_REVISION").ok();
    let revision = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GATEWAY_REVISION={revision}");
}

/// What git says, where there is a checkout and a git.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
