//! `deploy/openapi.yaml` says what the code says: the paths, the lists of a body, and every error word by word.
//!
//! Whether answers are as it describes them is for `make openapi`, which asks a gateway that runs.

use std::{collections::BTreeSet, fs, iter::successors, time::Duration};

use audience_gateway::{error::Refusal, shape::Shape};

use crate::harness::Setup;

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/openapi.yaml")).unwrap()
}

/// One of each. A new one does not compile until it has its place in the row.
fn refusals() -> impl Iterator<Item = Refusal> {
    let wait = Duration::from_secs(3);
    let first = Refusal::InvalidRequest("phoneList must be an array of strings".into());
    successors(Some(first), move |refusal| {
        let next = match refusal {
            Refusal::InvalidRequest(_) | Refusal::UnsafePath(_) => Refusal::Unauthenticated,
            Refusal::Unauthenticated => Refusal::NotFound,
            Refusal::NotFound => Refusal::MethodNotAllowed,
            Refusal::MethodNotAllowed => Refusal::RequestTimeout,
            Refusal::RequestTimeout => Refusal::BodyTooLarge(1 << 20),
            Refusal::BodyTooLarge(_) => Refusal::UriTooLong,
            Refusal::UriTooLong => Refusal::HeadersTooLarge,
            Refusal::HeadersTooLarge => Refusal::UnsupportedMediaType,
            Refusal::UnsupportedMediaType => Refusal::TooFrequent(wait),
            Refusal::TooFrequent(_) => Refusal::UpstreamUnavailable(wait),
            Refusal::UpstreamUnavailable(_) => Refusal::UpstreamTimeout,
            Refusal::UpstreamTimeout => Refusal::ReplicasUnavailable(wait),
            Refusal::ReplicasUnavailable(_) => Refusal::StoreUnavailable,
            Refusal::StoreUnavailable => Refusal::ShuttingDown,
            Refusal::ShuttingDown => Refusal::Overloaded,
            Refusal::Overloaded => Refusal::LookupTimeout(wait),
            Refusal::LookupTimeout(_) => Refusal::NotCached,
            Refusal::NotCached => return None,
        };
        Some(next)
    })
}

/// The lines of a block, by the line above it.
fn block<'a>(document: &'a str, title: &str) -> Vec<&'a str> {
    let mut lines = document.lines().skip_while(|line| *line != title);
    let first = lines.next().unwrap_or_else(|| panic!("no {title:?}"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    lines.take_while(|line| line.is_empty() || indent(line) > indent(first)).collect()
}

#[tokio::test(start_paused = true)]
async fn every_path_is_described_and_no_other() {
    let document = document();
    let of_path = |line: &&str| line.starts_with("  /");
    let described: BTreeSet<_> =
        block(&document, "paths:").into_iter().filter(of_path).map(|line| line.trim().trim_end_matches(':')).collect();
    let app = Setup::new().start();
    // Where there is nothing, the admin listener says what there is.
    let elsewhere = app.admin("/elsewhere").await;
    let admin = elsewhere.text().split([' ', ',', '\n']).filter(|word| word.starts_with('/'));
    let shapes = [Shape::audience_detail(), Shape::tag_batchlist()];
    let expected: BTreeSet<_> = admin.chain(shapes.iter().map(|shape| &*shape.path)).collect();
    assert_eq!(described, expected);
    assert_eq!(described.len(), 10);
    app.finish().await;
}

#[test]
fn every_error_is_an_example_word_by_word() {
    let document = document();
    let plain = document.replace('\'', "");
    for refusal in refusals() {
        let (status, name) = (refusal.status().as_u16(), refusal.as_str());
        let example = format!("{{ code: {status}, errorCode: {name}, msg: {}, data: null }}", refusal.message());
        assert!(plain.contains(&example), "no {example}");
        let of_status = document.lines().filter(|line| line.contains(&format!("code: {{ const: '{status}' }}")));
        assert!(of_status.clone().any(|line| line.contains(name)), "{status} does not name {name}");
    }
    let listed = block(&document, "          enum:").into_iter().map(|line| line.trim_start().trim_start_matches("- "));
    let names: Vec<_> = refusals().map(|refusal| refusal.as_str()).collect();
    assert_eq!(listed.collect::<BTreeSet<_>>(), names.into_iter().collect());
}

#[test]
fn every_response_has_the_headers_of_its_error() {
    let document = document();
    for refusal in refusals() {
        let response = refusal.response();
        let status = format!("code: {{ const: '{}' }}", refusal.status().as_u16());
        let of_status = |line: &&str| line.contains(&status) && line.contains(refusal.as_str());
        let end = document.lines().position(|line| of_status(&line)).unwrap();
        let title = document.lines().take(end).filter(|line| line.starts_with("    ") && !line.starts_with("     "));
        let described = block(&document, title.last().unwrap());
        let named = response.headers().keys().filter(|name| *name != "content-type");
        for name in named {
            let is_named = |line: &&str| line.trim().trim_end_matches(':').eq_ignore_ascii_case(name.as_str());
            assert!(described.iter().any(is_named), "{} does not name {name}", refusal.as_str());
        }
    }
}

#[test]
fn every_list_of_a_lookup_is_described_for_its_body_and_for_a_purge() {
    let document = document();
    let has =
        |schema: &str, list: &str| block(&document, &format!("    {schema}:")).contains(&&*format!("        {list}:"));
    for (shape, schema) in [(Shape::audience_detail(), "DetailRequest"), (Shape::tag_batchlist(), "TagsRequest")] {
        for list in &shape.lists {
            assert!(has(schema, &list.name) && has("PurgeRequest", &list.name), "{schema}: {}", list.name);
        }
    }
}

#[test]
fn it_is_of_this_version() {
    assert!(document().contains(concat!("\n  version: ", env!("CARGO_PKG_VERSION"), "\n")));
}
