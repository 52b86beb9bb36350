//! One typed value: read from TOML or from a variable's text, checked against its range, and written back.
//!
//! A value in the file has TOML's own type; a variable is always text, and the key decides what it is read as. Every
//! reader answers with the value or with a sentence that follows the key and never quotes what was written.

use std::{net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use bytesize::ByteSize;

use crate::{clients::Rate, dispatch::Share};

/// A value as it was given.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// In the file, with a type.
    File(&'a toml::Value),
    /// In an environment variable, as text.
    Variable(&'a str),
}

impl<'a> Given<'a> {
    /// The value as a string.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::File(value) => value.as_str(),
            Self::Variable(text) => Some(text.trim()),
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Self::File(value) => value.as_integer(),
            Self::Variable(text) => text.trim().parse().ok(),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            // A whole number needs no point.
            Self::File(value) => value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)),
            Self::Variable(text) => text.trim().parse().ok(),
        }
    }

    fn boolean(self) -> Option<bool> {
        match self {
            Self::File(value) => value.as_bool(),
            Self::Variable(text) => text.trim().parse().ok(),
        }
    }

    /// The members of an array: in a variable either a TOML array or words between commas.
    pub(super) fn members(self) -> Option<Vec<toml::Value>> {
        match self {
            Self::File(value) => value.as_array().cloned(),
            Self::Variable(text) if text.trim_start().starts_with('[') => {
                toml::Value::from_str(text.trim()).ok()?.as_array().cloned()
            }
            Self::Variable(text) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Some(words.map(toml::Value::from).collect())
            }
        }
    }
}

/// A value, or the sentence that says why it is none.
pub(super) type Read<T> = Result<T, String>;

/// A duration such as `"250ms"` within a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(Given<'_>) -> Read<Duration> {
    move |given| {
        let parsed = given.text().and_then(|text| humantime::parse_duration(text).ok());
        let value = parsed.ok_or(r#"must be a duration such as "250ms", "1s" or "10m""#)?;
        within(&range, value, format_duration)
    }
}

/// A size such as `"64KiB"` within a range of bytes.
pub(super) fn size<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(Given<'_>) -> Read<T> {
    move |given| {
        let parsed = given.text().and_then(|text| text.parse::<ByteSize>().ok());
        let value = parsed.ok_or(r#"must be a size such as "64KiB" or "1GiB""#)?;
        let value = within(&range, value.as_u64(), format_size)?;
        T::try_from(value).or(Err("is more than this machine can address".to_owned()))
    }
}

/// A whole number within a range.
pub(super) fn count(range: RangeInclusive<usize>) -> impl Fn(Given<'_>) -> Read<usize> {
    move |given| {
        let value = given.integer().ok_or("must be a whole number")?;
        // Below zero is below every range.
        let value = usize::try_from(value).unwrap_or(0);
        within(&range, value, |value| value.to_string())
    }
}

/// A part of all slots: a number from 0, nothing, to 1, everything.
pub(super) fn share(given: Given<'_>) -> Read<Share> {
    let part = given.number().filter(|part| (0.0..=1.0).contains(part));
    part.map(Share::new).ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// Requests per second.
pub(super) fn rate(given: Given<'_>) -> Read<Rate> {
    let rate = given.number().and_then(Rate::new);
    rate.ok_or_else(|| format!("must be a number from {} to {}", Rate::LEAST, Rate::MOST))
}

/// `true` or `false`.
pub(super) fn flag(given: Given<'_>) -> Read<bool> {
    given.boolean().ok_or_else(|| "must be true or false".to_owned())
}

/// An address to listen on.
pub(super) fn address(given: Given<'_>) -> Read<SocketAddr> {
    let parsed = given.text().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| r#"must be an IP address and a port such as "127.0.0.1:8080""#.to_owned())
}

/// A string that some rule accepts.
pub(super) fn string<T>(rule: impl Fn(&str) -> Read<T>) -> impl Fn(Given<'_>) -> Read<T> {
    move |given| match given.text() {
        None => Err("must be a string".to_owned()),
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => rule(text),
    }
}

/// One of several words.
pub(super) fn choice<T: Copy>(options: &[(&str, T)]) -> impl Fn(Given<'_>) -> Read<T> {
    move |given| {
        let text = given.text();
        let found = options.iter().find(|(name, _)| text == Some(*name)).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<String> = options.iter().map(|(name, _)| format!("{name:?}")).collect();
            format!("must be one of {}", names.join(", "))
        })
    }
}

fn within<T: PartialOrd + Copy>(range: &RangeInclusive<T>, value: T, show: impl Fn(T) -> String) -> Read<T> {
    if value < *range.start() {
        Err(format!("must be at least {}", show(*range.start())))
    } else if value > *range.end() {
        Err(format!("must be at most {}", show(*range.end())))
    } else {
        Ok(value)
    }
}

/// A duration as [`duration`] reads it. humantime's own display counts in its average months of 30.44 days.
pub(super) fn format_duration(value: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut rest = value.as_nanos();
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A size as [`size`] reads it, in the largest unit that loses nothing.
pub(super) fn format_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_read_back_as_it_was_written(nanoseconds in 0..=365 * 86_400 * 1_000_000_000_u64) {
            let value = Duration::from_nanos(nanoseconds);
            let read = duration(Duration::ZERO..=Duration::MAX)(Given::Variable(&format_duration(value)));
            prop_assert_eq!(read, Ok(value));
        }

        #[test]
        fn a_size_is_read_back_as_it_was_written(bytes: u64, shift in 0..64) {
            let value = bytes >> shift;
            let read = size::<u64>(0..=u64::MAX)(Given::Variable(&format_size(value)));
            prop_assert_eq!(read, Ok(value));
        }
    }

    #[test]
    fn a_variable_is_read_by_the_type_of_its_key() {
        assert_eq!(count(1..=10)(Given::Variable(" 7 ")), Ok(7));
        assert_eq!(flag(Given::Variable("true")), Ok(true));
        assert_eq!(share(Given::Variable("0.25")), Ok(Share::new(0.25)));
        assert_eq!(share(Given::File(&1.into())), Ok(Share::new(1.0)));
        for outside in ["-0.1", "1.1", "NaN", "inf", "half"] {
            assert!(share(Given::Variable(outside)).is_err(), "{outside}");
        }
        assert_eq!(size(0..=u64::MAX)(Given::Variable("64KiB")), Ok(65_536_usize));
        let members = |text| Given::Variable(text).members().expect("an array");
        assert_eq!(members("/a, /b"), members(r#"["/a", "/b"]"#));
        assert_eq!(members(""), members("[]"));
        assert!(Given::Variable("[1").members().is_none());
    }

    #[test]
    fn a_file_value_of_another_type_is_refused() {
        assert!(count(1..=10)(Given::File(&"7".into())).is_err());
        assert!(flag(Given::File(&"true".into())).is_err());
        assert!(duration(Duration::ZERO..=Duration::MAX)(Given::File(&7.into())).is_err());
        assert!(size::<u64>(0..=9)(Given::File(&7.into())).is_err());
        assert!(string(|text| Ok(text.to_owned()))(Given::File(&7.into())).is_err());
    }

    #[test]
    fn a_value_outside_its_range_is_told_the_limit() {
        assert_eq!(count(1..=10)(Given::Variable("-3")), Err("must be at least 1".to_owned()));
        assert_eq!(count(1..=10)(Given::Variable("11")), Err("must be at most 10".to_owned()));
        let second = duration(Duration::from_millis(1)..=Duration::from_secs(1));
        assert_eq!(second(Given::Variable("0s")), Err("must be at least 1ms".to_owned()));
        assert_eq!(second(Given::Variable("2s")), Err("must be at most 1s".to_owned()));
        assert_eq!(size::<u64>(1..=1024)(Given::Variable("2KiB")), Err("must be at most 1KiB".to_owned()));
    }
}
