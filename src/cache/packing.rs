//! Which records are held packed, so that several customers take the space of one.
//!
//! - **All** ([`Compression::Zstd`]): a record is packed when it comes, and unpacked for each answer.
//! - **Those not read lately** ([`Compression::ZstdCold`]): a record is held as it came. When its page goes and it was not used
//!   since it was sealed, its packed twin stays in its place for another round, and leaves at the end of that. One that is used
//!   meanwhile is unpacked again at the end of the round, and is then held as if it had just come.
//!
//! Invariant: a twin takes the place of a record under all its keys and with all that the cache has noted on it, its age
//! included. Nobody who asks can tell.

use std::{mem, sync::Arc};

use super::{Cache, entry::Answer, resident::Resident};
use crate::{codec::Codec, metrics::CacheMetrics, record::Record};

/// Which records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// None.
    #[default]
    Off,
    /// Each.
    Zstd,
    /// Those that were not read lately.
    ZstdCold,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Zstd, Self::ZstdCold];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Zstd => "zstd",
            Self::ZstdCold => "zstd-cold",
        }
    }
}

/// How records are packed.
pub(super) struct Packing {
    codec: Arc<Codec>,
    /// Whether only those are that were not read lately.
    is_cold_only: bool,
    metrics: CacheMetrics,
}

impl Packing {
    pub(super) fn new(compression: Compression, metrics: &CacheMetrics) -> Option<Self> {
        let is_cold_only = match compression {
            Compression::Off => return None,
            Compression::Zstd => false,
            Compression::ZstdCold => true,
        };
        Some(Self { codec: Arc::new(Codec::new()), is_cold_only, metrics: metrics.clone() })
    }

    /// A record comes: as it is to be held.
    pub(super) fn come(&self, record: &Record) -> Record {
        self.codec.see(&record.json());
        let packed = if self.is_cold_only { None } else { self.pack(record) };
        packed.unwrap_or_else(|| record.clone())
    }

    /// Whatever was learned from records is forgotten, too.
    pub(super) fn forget(&self) {
        self.codec.forget();
    }

    fn pack(&self, record: &Record) -> Option<Record> {
        let packed = record.packed(&self.codec)?;
        self.metrics.packed_records.inc();
        self.metrics.bytes_before_packing.inc_by(record.bytes() as u64);
        self.metrics.bytes_after_packing.inc_by(packed.bytes() as u64);
        Some(packed)
    }
}

#[cfg(test)]
impl Packing {
    /// One that has learned already.
    pub(super) fn knowing(compression: Compression, dictionary: Arc<crate::codec::Dictionary>) -> Option<Self> {
        let metrics = crate::metrics::Metrics::new().cache();
        let codec = Arc::new(Codec::knowing(dictionary));
        Self::new(compression, &metrics).map(|packing| Self { codec, ..packing })
    }
}

impl Cache {
    /// Has dictionaries trained whenever it is time to, for ever; over at once if nothing is compressed.
    pub async fn keep_learning(self: Arc<Self>) {
        let Some(packing) = &self.packing else { return };
        loop {
            Arc::clone(&packing.codec).trained_next().await;
            packing.metrics.dictionaries.inc();
        }
    }

    /// A customer stays who was used lately: not packed any more, where only others are.
    pub(super) fn warm(&self, resident: Resident) -> Resident {
        let record = match &resident {
            Answer::Customer(record) if self.packing.as_ref().is_some_and(|packing| packing.is_cold_only) => record,
            _ => return resident,
        };
        let twin = record.unpacked().and_then(|twin| self.replace(record, twin));
        twin.map_or(resident, Answer::Customer)
    }

    /// What takes the place of a customer who was not used lately, if there is anything smaller.
    pub(super) fn cold(&self, resident: &Resident) -> Option<Resident> {
        let packing = self.packing.as_ref().filter(|packing| packing.is_cold_only)?;
        let Answer::Customer(record) = resident else { return None };
        let twin = packing.pack(record)?;
        self.replace(record, twin).map(Answer::Customer)
    }

    /// Lets every key that gives a record give its twin.
    fn replace(&self, old: &Record, twin: Record) -> Option<Record> {
        let answers = || {
            let keys = old.ids().map(|id| old.key(id));
            keys.filter_map(|key| Some((self.index.get(&key)?, key))).filter(|(answer, _)| answer.gives(old))
        };
        // Such an answer is a resident of its own, and holds the record itself: it is rare.
        if answers().any(|(answer, _)| !answer.is_identified()) {
            return None;
        }
        for (answer, key) in answers() {
            let new = match &answer {
                Answer::Customer(_) => Answer::Customer(twin.clone()),
                Answer::List(_) => {
                    let mut records = answer.records().to_vec();
                    let place = records.iter_mut().find(|record| record.is(old));
                    place.map(|place| mem::replace(place, twin.clone()));
                    answer.with(&key, records)
                }
            };
            self.index.replace_if(&key, &answer, new);
        }
        self.carriers.replace(old, &twin);
        Some(twin)
    }
}
