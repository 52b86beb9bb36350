//! Passthrough.

/// What may pass through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Whether anything but lookups is answered at all.
    pub enabled: bool,
    /// Path prefixes that may pass, in the upstream's spelling without the base path; each starts with `/`.
    pub allow: Vec<String>,
}
