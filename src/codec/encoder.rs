//! Packs records with one dictionary.
//!
//! An encoder's tables are some hundred KiB; there are as many as have ever packed at the same time, and they go with it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{
    Packed,
    dictionary::{Corrupt, Dictionary},
};

/// Level 6 takes four times as long for a twentieth, level 1 as long as this.
const LEVEL: i32 = 3;
/// A record that does not get smaller by this part of it stays as it is: unpacking costs more than that is worth.
const LEAST_SAVED: usize = 8;

/// What packs with one dictionary.
pub(super) struct Encoder {
    pub(super) dictionary: Arc<Dictionary>,
    /// Those that nobody uses now.
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder(..)")
    }
}

impl Encoder {
    pub(super) fn new(dictionary: Arc<Dictionary>) -> Self {
        Self { dictionary, idle: Mutex::default() }
    }

    /// A record packed, if that saves anything worth it.
    pub(super) fn pack(&self, record: &[u8]) -> Option<Packed> {
        let mut compressor = self.take().ok()?;
        let mut bytes = Vec::with_capacity(record.len() - record.len().div_ceil(LEAST_SAVED));
        // Where it does not fit, it saves nothing.
        let written = compressor.compress_to_buffer(record, &mut bytes);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        written.ok()?;
        Some(Packed { dictionary: Arc::clone(&self.dictionary), bytes })
    }

    fn take(&self) -> Result<Compressor<'static>, Corrupt> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| compressor(self.dictionary.as_bytes()).or(Err(Corrupt)), Ok)
    }
}

fn compressor(dictionary: &[u8]) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::with_dictionary(LEVEL, dictionary)?;
    // A record's dictionary is known by what stands beside it: four bytes less.
    compressor.set_parameter(CParameter::DictIdFlag(false))?;
    Ok(compressor)
}
