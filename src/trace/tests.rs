//! The recommendation's own examples, and what is almost one.

use super::*;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::try_from(text).expect("a value");
    let lines = lines.iter().map(|(name, text)| (HeaderName::from_static(name), value(text)));
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, value);
    }
    headers
}

fn written(lines: &[(&'static str, &str)]) -> Option<(String, Option<String>)> {
    let context = Context::read(&headers(lines))?;
    let mut written = HeaderMap::new();
    context.write(&mut written);
    let text = |name: &HeaderName| written.get(name).map(|value| value.to_str().expect("text").to_owned());
    Some((text(&TRACEPARENT)?, text(&TRACESTATE)))
}

#[test]
fn a_trace_is_continued_as_it_came() {
    for parent in [GOOD, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", &GOOD.replace("-01", "-ff")] {
        assert_eq!(written(&[("traceparent", parent)]), Some((parent.to_owned(), None)));
    }
    // A later version is continued in the one that is understood.
    for later in ["cc-", "01-"] {
        let parent = GOOD.replacen("00-", later, 1);
        for more in ["", "-", "-what the future will be like"] {
            assert_eq!(written(&[("traceparent", &(parent.clone() + more))]), Some((GOOD.to_owned(), None)));
        }
    }
}

#[test]
fn what_is_malformed_is_no_trace() {
    for parent in [
        "",
        "00",
        "00-",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(written(&[("traceparent", parent), ("tracestate", "a=b")]), None, "{parent}");
    }
    assert_eq!(written(&[("traceparent", GOOD), ("traceparent", GOOD)]), None);
    assert_eq!(written(&[("tracestate", "a=b")]), None);
}

#[test]
fn what_others_say_of_a_trace_goes_with_it_if_it_is_well_formed() {
    let long = format!("a={}", "x".repeat(256));
    let many: String = (0..32).map(|number| format!("k{number}=v,")).collect();
    for state in ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "fw529a3039@dt=FfffS x", "a=b , c=d,,", &long, &many] {
        let expected = Some((GOOD.to_owned(), Some(state.to_owned())));
        assert_eq!(written(&[("traceparent", GOOD), ("tracestate", state)]), expected);
    }
    let lines = [("traceparent", GOOD), ("tracestate", "a=b"), ("tracestate", "c=d")];
    assert_eq!(written(&lines), Some((GOOD.to_owned(), Some("a=b,c=d".to_owned()))));
    let too_long = format!("a={}", "x".repeat(257));
    let too_many = many + "one=more";
    for state in ["", "a", "=b", "a=", "A=b", "a=b,a=c", "a=b=c", "a@=b", "@a=b", "é=b", "a=\t", &too_long, &too_many]
    {
        assert_eq!(written(&[("traceparent", GOOD), ("tracestate", state)]), Some((GOOD.to_owned(), None)), "{state}");
    }
}

fn waiting(trace: &str) -> Arc<Waiting> {
    let parent = GOOD.replace("0af7651916cd43dd8448eb211c80319c", trace);
    let context = Context::read(&headers(&[("traceparent", &parent), ("tracestate", "a=b")])).expect("a trace");
    Arc::new(Waiting { lookup: context.clone(), wait: context })
}

#[test]
fn a_request_upstream_continues_one_trace_and_begins_its_own_for_several() {
    let (one, other) = (waiting(&"1".repeat(32)), waiting(&"2".repeat(32)));
    let of =
        |links: &[&Arc<Waiting>]| Onward::of(links.iter().map(|link| Arc::clone(link)).collect(), &Recorder::default());
    assert!(of(&[]).is_none());
    for links in [&[&one][..], &[&one, &one]] {
        let onward = of(links).expect("a trace");
        assert_eq!((&onward.context, onward.linked()), (&one.wait, None));
    }
    let onward = of(&[&one, &other, &one]).expect("a trace");
    assert!(![one.wait.trace_id, other.wait.trace_id].contains(&onward.context.trace_id));
    assert_eq!(onward.linked(), Some(format!("{},{}", one.wait.trace_id, other.wait.trace_id)));
    assert!(onward.context.is_sampled() && onward.parent.is_none() && onward.context.state.is_none());
    assert!(!format!("{onward:?}").contains("1111"));
}
