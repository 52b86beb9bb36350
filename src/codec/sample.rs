//! What a dictionary is trained on: some of the records that come by, each as likely as any other.
//!
//! Invariant: it holds at most [`MOST`] records and [`MOST_BYTES`], however many come by, and nothing at all once a
//! dictionary has been trained on it.

/// Records in a sample. Twice as many make dictionaries no better.
const MOST: usize = 1024;
/// Bytes in a sample: a few thousand of the usual records.
const MOST_BYTES: usize = 8 << 20;
/// The longest record that is taken: there is no use for more of it than a dictionary holds several times over.
const LONGEST: usize = 128 << 10;

/// Records that came by.
#[derive(Default)]
pub(super) struct Sample {
    records: Vec<Box<[u8]>>,
    bytes: usize,
    /// How many came by.
    seen: usize,
}

impl Sample {
    /// A record comes by (Vitter's algorithm R).
    pub(super) fn see(&mut self, record: &[u8]) {
        self.seen += 1;
        if record.is_empty() || record.len() > LONGEST {
            return;
        }
        let place = if self.records.len() < MOST { self.records.len() } else { fastrand::usize(..self.seen) };
        let replaced = self.records.get(place).map_or(0, |record| record.len());
        let bytes = self.bytes - replaced + record.len();
        if place >= MOST || bytes > MOST_BYTES {
            return;
        }
        self.bytes = bytes;
        match self.records.get_mut(place) {
            Some(old) => *old = record.into(),
            None => self.records.push(record.into()),
        }
    }

    /// How many came by.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// The records, in no order that means anything.
    pub(super) fn into_records(mut self) -> Vec<Box<[u8]>> {
        fastrand::shuffle(&mut self.records);
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_the_last_are_as_likely_as_the_first() {
        let mut sample = Sample::default();
        (0..20_000_u32).for_each(|number| sample.see(&number.to_be_bytes()));
        assert_eq!((sample.seen(), sample.bytes), (20_000, MOST * 4));
        let records = sample.into_records();
        assert_eq!(records.len(), MOST);
        let late = records.iter().filter(|record| ***record >= *10_000_u32.to_be_bytes().as_slice()).count();
        assert!((MOST * 2 / 5..MOST * 3 / 5).contains(&late), "{late} of {MOST}");
    }

    #[test]
    fn large_records_do_not_make_it_large() {
        let mut sample = Sample::default();
        for length in (1..3000).map(|number| number * 61 % (2 * LONGEST)) {
            sample.see(&vec![b'x'; length]);
            assert!(sample.bytes <= MOST_BYTES);
        }
        assert_eq!(sample.bytes, sample.records.iter().map(|record| record.len()).sum::<usize>());
        assert!(sample.bytes > MOST_BYTES / 2);
        assert!(sample.records.iter().all(|record| record.len() <= LONGEST));
    }
}
