//! What the user may say about a measurement, and what it is by default.

use std::{str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};
use humantime::parse_duration;

/// Measures gateways that share one slot and one queue.
#[derive(Clone, Parser, Debug)]
#[command(name = "fleet")]
pub(crate) struct Options {
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    pub(crate) only: Vec<Part>,
    /// How many gateways in turn; `alone` is one that has no Redis.
    #[arg(long, default_value = "alone,1,2,4,8", value_delimiter = ',', value_name = "N")]
    pub(crate) gateways: Vec<Size>,
    /// How long each number of gateways is measured.
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) lasts: Duration,
    /// How long the load is on before that, from empty caches.
    #[arg(long, default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) lead: Duration,
    /// The interval that the upstream allows under that load.
    #[arg(long, default_value = "250ms", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) interval: Duration,
    /// Lookups in a second, of all gateways together.
    #[arg(long, default_value_t = 150.0, value_name = "N")]
    pub(crate) rate: f64,
    /// Keys in a lookup.
    #[arg(long, default_value_t = 3, value_name = "K")]
    pub(crate) keys: usize,
    /// Customers that are asked for.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub(crate) customers: usize,
    /// The exponent of their popularity.
    #[arg(long, default_value_t = 0.9, value_name = "S")]
    pub(crate) zipf: f64,
    /// How long Redis is away.
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) outage: Duration,
    /// How long gateways are killed for, while they are asked for more than there are slots.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) saturation: Duration,
    /// Between two kills.
    #[arg(long, default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) between_kills: Duration,
    /// Customers for whom somebody waits at every gateway.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(crate) wakes: u64,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// A smoke test, whatever else is said.
    #[arg(long)]
    pub(crate) test: bool,
}

/// One of the questions.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Part {
    /// What it costs to share.
    Scale,
    /// Redis is away.
    Outage,
    /// Gateways are killed.
    Kills,
    /// The same customer is waited for everywhere.
    Wake,
}

/// How many gateways there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// One that knows of no other.
    Alone,
    /// So many that share.
    Shared(usize),
}

impl Options {
    /// Whether this part is to be measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whether the part is measured as it is by default: then its results are kept.
    pub(crate) fn is_whole(&self, part: Part) -> bool {
        let whole = Self::parse_from(["fleet"]);
        let load = (self.interval, self.rate, self.keys, self.customers, self.zipf)
            == (whole.interval, whole.rate, whole.keys, whole.customers, whole.zipf);
        match part {
            Part::Scale => {
                load && (&self.gateways, self.lasts, self.lead) == (&whole.gateways, whole.lasts, whole.lead)
            }
            Part::Outage => load && self.outage == whole.outage,
            Part::Wake => (self.interval, self.wakes) == (whole.interval, whole.wakes),
            Part::Kills => (self.saturation, self.between_kills) == (whole.saturation, whole.between_kills),
        }
    }

    /// What the upstream allows, where gateways keep this interval: the same, except on a machine that does something else
    /// meanwhile, and may notice a request late.
    pub(crate) fn allowed(&self, kept: Duration) -> Duration {
        if self.test { kept / 3 } else { kept }
    }

    /// As small as it may be and still have every part in it.
    pub(crate) fn smoke(self) -> Self {
        let moment = Duration::from_secs(1);
        Self {
            gateways: vec![Size::Shared(2)],
            lasts: moment,
            lead: moment / 2,
            rate: 40.0,
            customers: 300,
            outage: moment,
            saturation: moment * 2,
            between_kills: moment,
            wakes: 2,
            test: true,
            ..self
        }
    }
}

impl Part {
    /// What its results are called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Scale => "What it costs to share",
            Self::Outage => "Redis is away",
            Self::Kills => "Gateways are killed",
            Self::Wake => "The same customer is waited for everywhere",
        }
    }
}

impl Size {
    /// How many processes that is.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Shared(count) => count,
        }
    }

    /// What a table calls it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Alone => "1, without Redis".to_owned(),
            Self::Shared(count) => count.to_string(),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("alone", _) => Ok(Self::Alone),
            (_, Ok(count @ 1..=32)) => Ok(Self::Shared(count)),
            _ => Err("is neither `alone` nor a number from 1 to 32".to_owned()),
        }
    }
}
