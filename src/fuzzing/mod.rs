//! What must hold of whatever a stranger sends: one property for each fuzz target (`fuzz/`, `make fuzz`).
//!
//! A property reads the bytes a second time, in the plainest way there is and without the code it judges, and panics where
//! the two readings differ. The same functions run over the seeds and over everything that was ever found, in an ordinary
//! test below. None of it is compiled into the program.

mod directives;
mod json;
mod path;
mod request;
mod shapes;
mod upstream;
mod write;

pub use self::{directives::directives, path::path, request::request, upstream::upstream, write::write};
pub use crate::server::fuzzing::framing;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    type Property = fn(&[u8]);

    /// Each target, what must hold of it, and how many seeds it has at least.
    const TARGETS: [(&str, Property, usize); 6] = [
        ("directives", super::directives, 30),
        ("framing", super::framing, 30),
        ("path", super::path, 30),
        ("request", super::request, 30),
        ("upstream", super::upstream, 30),
        ("write", super::write, 24),
    ];

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    /// The files below a folder of one target, in order; none where it has no such folder.
    fn files(kind: &str, target: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(root().join(kind).join(target)) else { return Vec::new() };
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
        files.sort();
        files
    }

    fn run(property: Property, files: &[PathBuf]) {
        for file in files {
            let bytes = fs::read(file).expect("a readable file");
            let verdict = std::panic::catch_unwind(|| property(&bytes));
            assert!(verdict.is_ok(), "{}", file.display());
        }
    }

    #[test]
    fn every_seed_holds_what_its_target_promises() {
        for (target, property, least) in TARGETS {
            let seeds = files("corpus", target);
            assert!(seeds.len() >= least, "{target}: only {} seeds were read", seeds.len());
            run(property, &seeds);
        }
    }

    #[test]
    fn nothing_that_was_found_once_is_found_again() {
        let mut findings = 0;
        for (target, property, _) in TARGETS {
            let files = files("regressions", target);
            findings += files.len();
            run(property, &files);
        }
        assert!(findings >= 1, "{findings} findings were read");
    }

    #[test]
    fn every_target_is_built_and_run() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
        let makefile = fs::read_to_string(root().join("../Makefile")).expect("a makefile");
        let built: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")).collect();
        assert_eq!(built.len(), TARGETS.len(), "{built:?}");
        let fuzzed = makefile.lines().find_map(|line| line.strip_prefix("TARGETS ?= ")).expect("a list of targets");
        let fuzzed: Vec<_> = fuzzed.split(' ').collect();
        assert_eq!(fuzzed, TARGETS.map(|(target, ..)| target));
        for (target, ..) in TARGETS {
            assert!(built.contains(&&*format!("{target}.rs\"")), "{target} is not built");
        }
    }
}
