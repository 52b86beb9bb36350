//! One form for every spelling: examples by hand, then spellings at random.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const BASE: &str = "/api/open";
const DETAIL: &str = "/api/audience/detail";
const TAGS: &str = "/api/audience/user/tag/batchList";

fn router() -> Router {
    Router::new(BASE, [DETAIL, TAGS]).expect("the paths have a normal form")
}

fn post(path: &str) -> Route {
    router().route(&Method::POST, &path.parse().expect(path))
}

/// Canonical form and what goes upstream.
fn forms(path: &str) -> Result<(String, String), &'static str> {
    Path::normalise(path, BASE).map(|path| (path.canonical, path.forward))
}

#[test]
fn every_spelling_of_a_lookup_path_is_the_lookup() {
    for path in [
        "/api/audience/detail",
        "/api/open/api/audience/detail",
        "/api/audience/detail/",
        "/api/audience/detail?x=1",
        "/api/audience/detail//",
        "/api/audience/detail/.",
        "/API/Open/api/AUDIENCE/Detail",
        "/api/%61udience/detai%6C",
        "//api///audience/./detail",
        "/x/../api/audience/detail",
        "/api/audience/detail/x/..",
        "/api/audience;v=1/detail;jsessionid=1/",
        "/api/audience/detail%3bv=1",
        "/;x/api/;/audience/detail",
        "/api%2faudience%2Fdetail",
        "/api/x/..;y/audience/%2e/y/%2E%2e/detail",
        "http://elsewhere/api/audience/detail",
    ] {
        assert_eq!(post(path), Route::Lookup(0), "{path}");
        let get = router().route(&Method::GET, &path.parse().expect(path));
        assert!(matches!(get, Route::MethodNotAllowed(_)), "{path}");
    }
    // The Kelvin sign and the long s.
    assert_eq!(post("/api/audience/user/tag/batchLi%C5%BFt"), Route::Lookup(1));
    assert_eq!(forms("/%E2%84%AA").expect("safe").0, "/k");
}

#[test]
fn what_is_no_lookup_passes_in_the_callers_spelling() {
    for (path, canonical, forward) in [
        ("/", "/", "/"),
        ("/api/open", "/", ""),
        ("/api/open/", "/", "/"),
        ("/api/opening/x", "/api/opening/x", "/api/opening/x"),
        ("/api/open/api/open/x", "/api/open/x", "/api/open/x"),
        ("/A/%7Eb;p=1/C%20d/", "/a/~b/c d", "/A/%7Eb;p=1/C%20d/"),
        ("/api;v=1/%6Fpen/X", "/x", "/X"),
        ("//a//b", "/a/b", "/a/b"),
        ("/a/b/..", "/a", "/a/"),
        ("/a/b/../c/./d", "/a/c/d", "/a/c/d"),
        ("/a/;x/../b", "/b", "/b"),
        ("/;jsessionid=1", "/", "/;jsessionid=1"),
        ("/api/audience/detail/more", "/api/audience/detail/more", "/api/audience/detail/more"),
        ("/100%25", "/100%", "/100%25"),
        ("/A%2Fb/c", "/a/b/c", "/A%2Fb/c"),
    ] {
        assert_eq!(forms(path), Ok((canonical.to_owned(), forward.to_owned())), "{path}");
    }
}

#[test]
fn a_path_without_one_safe_form_is_refused() {
    for path in [
        "",
        "*",
        "host:443",
        "x",
        "/%",
        "/%4",
        "/%4g",
        "/%%41",
        "/a%2f..",
        "/%2e%2e%2fa",
        "/a%2f",
        "/a%2f%2fb",
        "/a;x%2fb",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0a",
        "/a%7f",
        "/a%c2%85",
        "/%ff",
        "/%c0%af",
        "/..",
        "/a/../..",
        "/%2e%2e/a",
        "/..;x/a",
        "/%2561",
        "/%252f",
        "/%2525",
        "/%252e%252e/a",
    ] {
        assert!(forms(path).is_err(), "{path}");
    }
}

#[test]
fn a_prefix_covers_whole_segments_in_any_spelling() {
    let path = |raw| Path::normalise(raw, "").expect(raw);
    for (below, prefix) in [("/api/x", "/api/x"), ("/API/%78/y", "/api/x/"), ("/anything", "/"), ("/", "/")] {
        assert!(path(below).is_under(&path(prefix)), "{below} {prefix}");
    }
    for (beside, prefix) in [("/api/xy", "/api/x"), ("/api", "/api/x"), ("/b/api/x", "/api/x"), ("/", "/a")] {
        assert!(!path(beside).is_under(&path(prefix)), "{beside} {prefix}");
    }
}

#[test]
fn a_lookup_below_a_base_path_of_the_same_name_has_one_meaning() {
    let router = Router::new("/api", ["/api/x"]).expect("paths");
    let route = |path: &'static str| router.route(&Method::POST, &Uri::from_static(path));
    assert_eq!(route("/api/api/x"), Route::Lookup(0));
    assert_eq!(route("/api/api/x/"), Route::Lookup(0));
    // Upstream both of these are `/api/x`, which is another path.
    assert!(matches!(route("/api/x"), Route::Passthrough(_)));
    assert!(matches!(route("/api/x/"), Route::Passthrough(_)));
}

#[test]
fn a_path_shows_nothing_of_itself() {
    let route = post("/customers/13800138000");
    assert_eq!(format!("{route:?}"), "Passthrough(Path(..))");
}

#[test]
fn a_letter_has_one_form_in_either_case() {
    for letter in '\0'..=char::MAX {
        let fold = |text: String| normal_form(&text.replace('%', "%25"));
        let Ok(folded) = fold(letter.to_string()) else { continue };
        assert_eq!(fold(letter.to_uppercase().collect()).as_ref(), Ok(&folded), "{letter}");
        assert_eq!(fold(letter.to_lowercase().collect()).as_ref(), Ok(&folded), "{letter}");
        assert_eq!(fold(folded.clone()).as_ref(), Ok(&folded), "{letter}");
    }
}

/// What may be done to a segment's characters.
#[derive(Clone, Debug)]
enum Twist {
    Plain,
    OtherCase,
    Escaped,
    EscapedOtherCase,
}

/// What may be put between two segments.
const JOINTS: [&str; 9] = ["/", "/", "//", "/./", "/%2e/", "/x/../", "/y/z/../%2E./", "/;p=1/", "/.;q/"];
/// What may follow a segment.
const PARAMETERS: [&str; 5] = ["", "", ";", ";v=1", "%3B;x=%20"];
/// What may follow a path.
const ENDS: [&str; 6] = ["", "/", "//", "/.", "/x/..", "/;x"];

fn respell(path: &str, twists: &[Twist], picks: &[Index]) -> String {
    let mut twists = twists.iter().cycle();
    let mut picks = picks.iter().cycle();
    let mut pick = |from: &[&'static str]| *picks.next().expect("a cycle").get(from);
    let mut text = String::new();
    for segment in path.split('/').skip(1) {
        text.push_str(pick(&JOINTS));
        for letter in segment.chars() {
            let flipped = if letter.is_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
            match twists.next().expect("a cycle") {
                Twist::Plain => text.push(letter),
                Twist::OtherCase => text.push(flipped),
                Twist::Escaped => text.push_str(&format!("%{:02x}", u32::from(letter))),
                Twist::EscapedOtherCase => text.push_str(&format!("%{:02X}", u32::from(flipped))),
            }
        }
        text.push_str(pick(&PARAMETERS));
    }
    text + pick(&ENDS)
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![Just(Twist::Plain), Just(Twist::OtherCase), Just(Twist::Escaped), Just(Twist::EscapedOtherCase)]
}

/// What random paths are made of: pieces that matter, so that near misses and odd combinations are common.
const PIECES: [&str; 25] = [
    "/",
    "/",
    "/",
    "api",
    "open",
    "audience",
    "detail",
    "user",
    "tag",
    "batchList",
    ".",
    "..",
    ";",
    "%2e",
    "%25",
    "%41",
    "A",
    "%C5%BF",
    "%E2%84%AA",
    "%CE%A3",
    "ß",
    "%3b",
    "2f",
    "%20",
    "x",
];

fn any_path() -> impl Strategy<Value = String> {
    vec(prop::sample::select(&PIECES[..]), 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn a_respelled_lookup_path_never_slips_by(
        base in any::<bool>(),
        lookup in 0..2_usize,
        twists in vec(twist(), 1..40),
        picks in vec(any::<Index>(), 1..40),
    ) {
        let path = format!("{}{}", if base { BASE } else { "" }, [DETAIL, TAGS][lookup]);
        let spelling = respell(&path, &twists, &picks);
        prop_assert_eq!(post(&spelling), Route::Lookup(lookup), "{}", spelling);
    }

    #[test]
    fn what_goes_upstream_means_what_was_decided(path in any_path()) {
        if let Ok((canonical, forward)) = forms(&path) {
            // Read below the base path, as the upstream reads it; and once more, for nothing is left to be resolved.
            let again = forms(&format!("{BASE}{forward}")).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&again, &(canonical.clone(), forward.clone()));
            prop_assert!(forward.is_empty() || !forward.contains("//"));
            for segment in forward.split('/').skip(1) {
                let name = normal_form(segment).map_err(TestCaseError::fail)?;
                prop_assert!(name != "." && name != "..");
            }
            if !canonical.contains('%') {
                let canonical_again = Path::normalise(&canonical, "").map_err(TestCaseError::fail)?.canonical;
                prop_assert_eq!(canonical_again, canonical);
            }
        }
    }

    #[test]
    fn nothing_but_a_lookup_path_is_a_lookup(path in any_path()) {
        // Read once more, in the most naive way.
        let mut names: Vec<String> = Vec::new();
        for segment in path.split('/') {
            let decoded = percent_decode_str(segment).decode_utf8_lossy().to_uppercase().to_lowercase();
            match decoded.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name.to_owned()),
            }
        }
        let names = format!("/{}", names.join("/"));
        let lookup = [DETAIL, TAGS].iter().position(|lookup| {
            let lookup = lookup.to_lowercase();
            names == lookup || names == format!("{BASE}{lookup}")
        });
        match (router().route(&Method::POST, &path.parse().expect("a URI")), lookup) {
            (Route::Lookup(found), expected) => prop_assert_eq!(Some(found), expected),
            (Route::Passthrough(_), expected) => prop_assert_eq!(None, expected),
            (Route::Unsafe(_), _) => {}
            (Route::MethodNotAllowed(_), _) => prop_assert!(false),
        }
    }

    #[test]
    fn no_path_at_all_makes_it_panic(path in ".*") {
        let _ = forms(&path);
    }
}
