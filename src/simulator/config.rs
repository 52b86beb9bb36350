//! What the pretend upstream does: its limit, its weather, and one switch for each thing that nobody knows about the real one.
//!
//! Every field is a flag of `simulate`; the defaults stand once, in the flags. The defaults are the honest upstream of the
//! interface document. Tests change switches while it runs, through `Simulator::reconfigure`.

use std::time::Duration;

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum, value_parser};
use humantime::parse_duration;

use super::faults::Fault;

/// What the limiter counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LimitCounts {
    /// Accepted requests: the interval runs from the last one that was let through.
    Accepted,
    /// Every arrival, refused ones too: each restarts the interval.
    Arrivals,
    /// Accepted requests in fixed windows, counted from the moment the simulator started.
    Window,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LimitPer {
    /// Everybody's.
    All,
    /// Those of one credential.
    Token,
    /// Those for one company.
    Company,
    /// Those from one address (one connection, where there are no addresses).
    Address,
}

/// What several non-empty lists in one request mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MixedLists {
    /// The customers that any list reaches.
    Union,
    /// Only the first non-empty list counts.
    First,
    /// The customers that every non-empty list reaches.
    Intersection,
}

/// The order of `data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DataOrder {
    /// As the keys were asked.
    Asked,
    /// The other way round.
    Reversed,
    /// Any, from the seed.
    Shuffled,
}

/// How `audienceUserId` is written in records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum IdSpelling {
    /// As a number, as the interface document says.
    Number,
    /// As a string, as the vendor's sibling pages show it.
    String,
}

/// How a phone number is written in records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PhoneSpelling {
    /// As it is stored, which is how it has to be asked.
    Stored,
    /// `+8613…`.
    Prefixed,
    /// `138 0013 8000`.
    Spaced,
    /// `138****8000`.
    Masked,
}

/// How `data` is given when no customer was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EmptyData {
    /// `[]`.
    Array,
    /// `null`.
    Null,
    /// Left out.
    Absent,
}

/// How the envelope of a success is spelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EnvelopeSpelling {
    /// `"200"`, `SUCCESS`, `ok`.
    Success,
    /// `"200"`, `"0"`, `操作成功`, with `data` second: as the sibling pages show it.
    Sibling,
    /// `"28930"` and a generated `msg`: the example of the interface document.
    Example,
}

/// The pretend upstream's limit, weather and switches.
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Config {
    /// Time between two lookups that the limit allows.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// The span in which ten tag lookups are allowed.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub tags_window: Duration,
    /// Time between two `getTagList` calls that the limit allows.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub tag_list_interval: Duration,
    /// How many customers every company has.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u64).range(..=1_000_000_000))]
    pub customers: u64,
    /// How long an answer takes.
    #[arg(long, value_name = "DURATION", default_value = "80ms", value_parser = parse_duration)]
    pub latency: Duration,
    /// How much shorter or longer it may take.
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = parse_duration)]
    pub jitter: Duration,
    /// How much later than it arrived a request may meet the limiter.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub arrival_jitter: Duration,
    /// Where all customers and all chance come from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// What the limiter counts.
    #[arg(long, value_enum, default_value_t = LimitCounts::Arrivals)]
    pub limit_counts: LimitCounts,
    /// Whose requests the limiter counts together.
    #[arg(long, value_enum, default_value_t = LimitPer::All)]
    pub limit_per: LimitPer,
    /// HTTP status of a refusal by the limiter.
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = value_parser!(u16).range(200..600))]
    pub refusal_status: u16,
    /// `code` and `errorCode` of a refusal by the limiter.
    #[arg(long, value_name = "CODE", default_value = "100500")]
    pub refusal_code: String,
    /// `Retry-After` of a refusal by the limiter; none when not given.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub retry_after: Option<Duration>,

    /// HTTP status of a business error, such as too many keys or a bad one.
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = value_parser!(u16).range(200..600))]
    pub rejection_status: u16,
    /// `code` of a request that carries a bad key.
    #[arg(long, value_name = "CODE", default_value = "400001")]
    pub rejection_code: String,
    /// Keys that one lookup may carry; more are refused with code 400003.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub max_keys: usize,
    /// A key that fails the whole request; may be given more than once.
    #[arg(long = "bad-key", value_name = "VALUE")]
    pub bad_keys: Vec<String>,
    /// What several lists in one request mean.
    #[arg(long, value_enum, default_value_t = MixedLists::Union)]
    pub mixed_lists: MixedLists,
    /// The order of `data`.
    #[arg(long, value_enum, default_value_t = DataOrder::Asked)]
    pub data_order: DataOrder,
    /// Repeat a customer that several keys reach.
    #[arg(long)]
    pub repeat_matches: bool,
    /// Add a record that nobody asked for.
    #[arg(long)]
    pub unasked: bool,
    /// How `data` is given when no customer was found.
    #[arg(long, value_enum, default_value_t = EmptyData::Array)]
    pub empty_data: EmptyData,
    /// How `audienceUserId` is written in records.
    #[arg(long, value_enum, default_value_t = IdSpelling::Number)]
    pub id_spelling: IdSpelling,
    /// How a phone number is written in records.
    #[arg(long, value_enum, default_value_t = PhoneSpelling::Stored)]
    pub phone_spelling: PhoneSpelling,
    /// Find a phone however it is asked: with `+86`, spaces or dashes.
    #[arg(long)]
    pub lenient_phones: bool,
    /// How the envelope of a success is spelled.
    #[arg(long, value_enum, default_value_t = EnvelopeSpelling::Success)]
    pub envelope: EnvelopeSpelling,

    /// Refuse calls without an `X-Token` header (code 100200).
    #[arg(long)]
    pub require_token: bool,
    /// Accept any `X-Token` that is not empty; `false`: only those that the token call issued.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub accept_any_token: bool,
    /// How long an issued token lives.
    #[arg(long, value_name = "DURATION", default_value = "7200s", value_parser = parse_duration)]
    pub token_ttl: Duration,
    /// Say `"expire":0` in the token call's answer.
    #[arg(long)]
    pub token_expire_zero: bool,
    /// The `instanceSecrect` that the token call accepts, for any `instanceAppid`; without it any that is not empty.
    #[arg(long, value_name = "SECRET")]
    pub instance_secret: Option<String>,

    /// What goes wrong with lookups that the limiter let through.
    #[arg(long, value_enum, default_value_t = Fault::None)]
    pub fault: Fault,
    /// The share of lookups that it goes wrong with, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub fault_rate: f64,
    /// How many of the next lookups it goes wrong with in any case.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub fault_count: u32,
    /// Bytes of an answer under the fault `huge`.
    #[arg(long, value_name = "N", default_value_t = 64 << 20)]
    pub huge_bytes: u64,
}

impl Config {
    /// Whether the token call accepts this secret.
    pub(super) fn knows_secret(&self, secret: &str) -> bool {
        self.instance_secret.as_ref().map_or(!secret.is_empty(), |known| known == secret)
    }
}

impl Default for Config {
    fn default() -> Self {
        let parsed = Self::augment_args(Command::new("defaults").no_binary_name(true))
            .try_get_matches_from(std::iter::empty::<&str>())
            .and_then(|matches: ArgMatches| Self::from_arg_matches(&matches));
        parsed.expect("this holds because every flag has a default that parses")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_is_a_flag_with_a_help_text() {
        let command = Config::augment_args(Command::new("simulate"));
        let flags: Vec<_> = command.get_arguments().collect();
        assert_eq!(flags.len(), 35);
        for flag in flags {
            assert!(flag.get_long().is_some(), "{}", flag.get_id());
            assert!(flag.get_help().is_some(), "{}", flag.get_id());
        }
    }

    #[test]
    fn flags_change_what_they_name_and_nothing_else() {
        let matches = Config::augment_args(Command::new("simulate"))
            .try_get_matches_from(["simulate", "--interval", "250ms", "--limit-counts", "window", "--bad-key", "x"])
            .expect("valid flags");
        let config = Config::from_arg_matches(&matches).expect("valid flags");
        let expected = Config {
            interval: Duration::from_millis(250),
            limit_counts: LimitCounts::Window,
            bad_keys: vec!["x".to_owned()],
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert_eq!(Config::default().interval, Duration::from_secs(1));
        assert!(Config::default().accept_any_token);
    }
}
