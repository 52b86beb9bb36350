//! What the house looks like: imports go down, each library has one home, and lists in the README mirror the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::harness::Setup;

/// Modules of one floor that must not know each other: what callers, operators and the command line reach, and the
/// warm-up.
const STRANGERS: [&str; 5] = ["admin", "lookup", "passthrough", "probe", "warmup"];

/// The files of the program around the library, which may use all of it.
const BINARY: [&str; 6] = ["main.rs", "commands.rs", "hash.rs", "health.rs", "logging.rs", "otlp.rs"];

/// Where each library is used, and nowhere else.
const HOMES: [(&str, &[&str]); 11] = [
    ("moka", &["cache/"]),
    ("redis", &["link/"]),
    ("governor", &["dispatch/pacer", "clients.rs"]),
    ("sha2", &["admin/page.rs", "clients", "codec/dictionary.rs", "key_hash.rs", "replicas/name.rs", "store/seal.rs"]),
    ("hmac", &["key_hash.rs", "store/seal.rs"]),
    ("redb", &["store/disk/generation.rs"]),
    ("chacha20poly1305", &["store/seal.rs"]),
    ("subtle", &["clients"]),
    ("zstd", &["codec/"]),
    ("tower_http", &["lookup/compression.rs"]),
    ("prometheus", &["metrics"]),
];

/// Lines in a file. House style says 300; what is beyond this is two nouns.
const MAX_LINES: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `src`, by its path there, with its text.
pub fn sources() -> Vec<(String, String)> {
    let source = root().join("src");
    let mut folders = vec![source.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let name = |path: &Path| path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
    let sources: Vec<_> = files.iter().map(|path| (name(path), read(path))).collect();
    for module in modules() {
        let of_module = |name: &str| name.strip_prefix(&*module).is_some_and(|rest| rest.starts_with(['/', '.']));
        assert!(sources.iter().any(|(name, _)| of_module(name)), "no file of {module} was found");
    }
    assert!(sources.len() >= 110, "only {} files were read", sources.len());
    sources
}

/// The library's modules in the order of `lib.rs`.
fn modules() -> Vec<String> {
    let library = read("src/lib.rs");
    let modules: Vec<_> = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() >= 15, "lib.rs lists {modules:?}");
    modules.into_iter().map(str::to_owned).collect()
}

/// Every path that a file names outside comments, with its use trees spelled out.
fn paths(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut paths = BTreeSet::new();
    for statement in code.split(';') {
        let starts =
            statement.match_indices("use ").map(|(at, word)| (&statement[..at], &statement[at + word.len()..]));
        for (before, tree) in starts {
            // The end of `because` is no import.
            if !before.ends_with(char::is_alphanumeric) {
                spell_out(String::new(), &tree.split_whitespace().collect::<String>(), &mut paths);
            }
        }
        let words = statement.split(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | ':')));
        paths.extend(words.filter(|word| word.contains("::") && !word.ends_with(':')).map(str::to_owned));
    }
    paths
}

/// Spells a use tree out: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn spell_out(prefix: String, tree: &str, paths: &mut BTreeSet<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        if !tree.is_empty() {
            paths.insert(prefix + tree);
        }
        return;
    };
    let prefix = prefix + head;
    let inside = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spell_out(prefix.clone(), &inside[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Whether a path is the item or something in it.
fn is_within(path: &str, item: &str) -> bool {
    path.strip_prefix(item).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn use_trees_are_spelled_out() {
    let text = "//! crate::no\nuse crate::{a, b::{c, d::e}, f as g};\npub(crate) use x::y;\nlet z = crate::h::i(k); // crate::no\n";
    let found: Vec<_> = paths(text).into_iter().collect();
    assert_eq!(found, ["crate::a", "crate::b::c", "crate::b::d::e", "crate::fasg", "crate::h::i", "d::e", "x::y"]);
}

#[test]
fn imports_go_down() {
    let modules = modules();
    let mut imports = 0;
    let mut upward = Vec::new();
    for (file, text) in sources() {
        let own = file.split(['/', '.']).next().unwrap_or_default();
        if BINARY.contains(&&*file) || own == "lib" {
            continue;
        }
        let floor = |module: &str| modules.iter().position(|known| known == module);
        let own_floor = floor(own).unwrap_or_else(|| panic!("lib.rs does not list {file}"));
        for path in paths(&text) {
            let Some(rest) = path.strip_prefix("crate::") else { continue };
            let module = rest.split("::").next().unwrap_or_default();
            imports += 1;
            let below = floor(module).is_some_and(|floor| floor <= own_floor);
            let stranger = module != own && STRANGERS.contains(&own) && STRANGERS.contains(&module);
            if !below || stranger {
                upward.push(format!("src/{file}: {path}"));
            }
        }
    }
    assert!(imports > 200, "only {imports} imports were seen");
    assert!(upward.is_empty(), "upward:\n{}", upward.join("\n"));
}

#[test]
fn each_library_has_one_home() {
    let sources = sources();
    for (library, homes) in HOMES {
        let users = |(file, text): &(String, String)| {
            paths(text).iter().any(|path| is_within(path, library)).then(|| file.clone())
        };
        let users: Vec<_> = sources.iter().filter_map(users).collect();
        assert!(!users.is_empty(), "{library} is used nowhere");
        let is_home = |file: &String| homes.iter().any(|home| file.starts_with(home));
        assert!(users.iter().all(is_home), "{library} belongs into {homes:?}: {users:?}");
    }
}

#[test]
fn every_file_says_what_it_is_and_is_of_a_readable_length() {
    let mut tests = Vec::new();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        tests.push((path.display().to_string(), read(&path)));
    }
    assert!(tests.len() >= 14);
    let mut problems = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{file} has {lines} lines"));
        }
        tests.push((file, text));
    }
    problems.extend(
        tests
            .iter()
            .filter(|(_, text)| !text.starts_with("//! "))
            .map(|(file, _)| format!("{file} does not say what it is")),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether a text has the word, not just a longer one that contains it.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[tokio::test(start_paused = true)]
async fn the_readme_names_every_metric() {
    let readme = read("README.md");
    let app = Setup::new().start();
    let metrics = app.admin("/metrics").await;
    let names = metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: Vec<_> = names.filter(|name| name.starts_with("gateway_")).collect();
    assert!(names.len() >= 19);
    let missing: Vec<_> = names.into_iter().filter(|name| !has_word(&readme, name)).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
    app.finish().await;
}

#[test]
fn the_readme_names_every_error_code() {
    let readme = read("README.md");
    let text = read("src/error.rs");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let is_name = |word: &&str| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let names: BTreeSet<_> =
        code.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).filter(is_name).collect();
    assert!(names.len() >= 12, "{names:?}");
    let missing: Vec<_> = names.into_iter().filter(|name| !has_word(&readme, name)).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
}

#[test]
fn the_readme_names_every_configuration_key() {
    let readme = read("README.md");
    let config = read("config/gateway.toml");
    // A key that is left out by default is written as `#key = value`, prose as `# words`.
    let key = |line: &str| {
        let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
        key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then(|| key.to_owned())
    };
    let keys: BTreeSet<_> = config.lines().filter_map(key).collect();
    assert!(keys.len() >= 45, "{} keys: {keys:?}", keys.len());
    let missing: Vec<_> = keys.iter().filter(|key| !has_word(&readme, key)).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
}
