//! Which call a path means.
//!
//! As lenient as a Java servlet may be: `/api/open` may be left out, and letter case, doubled and trailing slashes, dot
//! segments, `;parameters` and percent-escapes make no difference. A gateway that can be walked around by an odd
//! spelling therefore shows up in the log of arrivals as a limited call.

use percent_encoding::percent_decode_str;

use crate::shape::{AUDIENCE_DETAIL, TAG_BATCHLIST};

/// One call of the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// `POST /api/audience/detail`: customers by id, third id or phone.
    Detail,
    /// `POST /api/audience/user/tag/batchlist`: tags by customer id.
    Tags,
    /// `GET /api/audience/user/id/list`: all ids, ascending.
    IdList,
    /// `GET /app/getOrgAccessToken`: a token for an application and its secret.
    Token,
    /// `POST /audience/info/batchAdd`, with or without `/api/integrate`: import or update customers.
    BatchAdd,
    /// `POST /api/audience/getInfoByPhoneAndOpenid`: a customer by phone.
    PhoneInfo,
    /// `GET /api/audience/getTagList`: the company's tags.
    TagList,
    /// `/echo` and below, `/bytes`, `/slow`: for tests of what is passed through.
    Echo,
    /// Anything else.
    Unknown,
}

impl Call {
    /// The call of a request path, without its query.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let plain = plain(path);
        let plain = plain.strip_prefix("/api/open").filter(|rest| rest.starts_with('/')).unwrap_or(&plain);
        match plain {
            AUDIENCE_DETAIL => Self::Detail,
            TAG_BATCHLIST => Self::Tags,
            "/api/audience/user/id/list" => Self::IdList,
            "/app/getorgaccesstoken" => Self::Token,
            "/audience/info/batchadd" | "/api/integrate/audience/info/batchadd" => Self::BatchAdd,
            "/api/audience/getinfobyphoneandopenid" => Self::PhoneInfo,
            "/api/audience/gettaglist" => Self::TagList,
            "/echo" | "/bytes" | "/slow" => Self::Echo,
            other if other.starts_with("/echo/") => Self::Echo,
            _ => Self::Unknown,
        }
    }

    /// The path below the base URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detail => AUDIENCE_DETAIL,
            Self::Tags => TAG_BATCHLIST,
            Self::IdList => "/api/audience/user/id/list",
            Self::Token => "/app/getOrgAccessToken",
            Self::BatchAdd => "/audience/info/batchAdd",
            Self::PhoneInfo => "/api/audience/getInfoByPhoneAndOpenid",
            Self::TagList => "/api/audience/getTagList",
            Self::Echo => "/echo",
            Self::Unknown => "",
        }
    }

    /// Whether the limiter counts it.
    #[must_use]
    pub fn is_limited(self) -> bool {
        matches!(self, Self::Detail | Self::Tags | Self::TagList)
    }

    /// Whether it looks records up by keys: the calls that faults strike.
    #[must_use]
    pub fn is_lookup(self) -> bool {
        matches!(self, Self::Detail | Self::Tags)
    }

    /// The method it has to be called with.
    pub(super) fn method(self) -> Option<http::Method> {
        match self {
            Self::Detail | Self::Tags | Self::BatchAdd | Self::PhoneInfo => Some(http::Method::POST),
            Self::IdList | Self::Token | Self::TagList => Some(http::Method::GET),
            Self::Echo | Self::Unknown => None,
        }
    }
}

/// The path in its plainest form.
pub(super) fn plain(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy().to_lowercase();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.iter().flat_map(|segment| ["/", segment]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_lookup_is_the_lookup() {
        for path in [
            "/api/audience/detail",
            "/api/open/api/audience/detail",
            "/api/audience/detail/",
            "//api//audience/./x/../detail",
            "/API/Audience/%64etail",
            "/api/audience/detail;v=1",
        ] {
            assert_eq!(Call::of(path), Call::Detail, "{path}");
        }
    }

    #[test]
    fn every_call_is_found_under_its_own_name() {
        for call in [Call::Detail, Call::Tags, Call::IdList, Call::Token, Call::BatchAdd, Call::PhoneInfo] {
            assert_eq!(Call::of(call.as_str()), call);
            assert_eq!(Call::of(&format!("/api/open{}", call.as_str())), call);
        }
        assert_eq!(Call::of("/api/openapi/audience/detail"), Call::Unknown);
        assert_eq!(Call::of("/echo/anything"), Call::Echo);
        assert_eq!(Call::of("/"), Call::Unknown);
    }
}
