//! Whatever is packed is read again, by whatever dictionary it was packed; and what is learned, is learned when it should be.

use std::{collections::HashSet, thread};

use proptest::prelude::*;

use super::*;

const MOST: usize = 1 << 20;

/// A record of a kind: what records of one kind have in common, another kind has not.
fn record(kind: u64, number: u64) -> Vec<u8> {
    let mut own = fastrand::Rng::with_seed(kind * 1_000_003 + number);
    let mut common = fastrand::Rng::with_seed(kind);
    let mut text = String::from("{");
    for field in 0..20 {
        text.push_str(&format!(r#""{:012x}{field}":"{:06x}","#, common.u64(..) >> 16, own.u32(..) >> 8));
    }
    text.push_str(&format!(r#""id":{number}}}"#));
    text.into_bytes()
}

/// A record comes by and is packed.
fn come(codec: &Codec, record: &[u8]) -> Option<Packed> {
    codec.see(record);
    codec.pack(record)
}

fn unpacked(packed: &Packed) -> Vec<u8> {
    let mut into = b"before ".to_vec();
    packed.dictionary.unpack(&packed.bytes, MOST, &mut into).expect("it was packed here");
    assert!(into.starts_with(b"before "));
    into.split_off(b"before ".len())
}

/// Lets records of a kind come by until a dictionary is trained, and gives how many it took.
fn teach(codec: &Codec, kind: u64) -> u64 {
    for number in 0..1_000_000 {
        let _packed = come(codec, &record(kind, number));
        if codec.learn() {
            return number + 1;
        }
    }
    panic!("nothing was learned");
}

#[test]
fn nothing_is_packed_before_a_dictionary_is_there_and_then_everything_is() {
    let codec = Codec::new();
    for number in 0..LESSON as u64 - 1 {
        assert!(come(&codec, &record(1, number)).is_none());
        assert!(!codec.learn());
    }
    assert!(come(&codec, &record(1, 9999)).is_none());
    assert!(codec.learn());
    assert!(!codec.learn(), "it is learned once");
    for number in 10_000..10_500 {
        let record = record(1, number);
        let packed = come(&codec, &record).expect("it has much in common with the others");
        assert!(packed.bytes.len() * 5 < record.len() * 2, "{} of {}", packed.bytes.len(), record.len());
        assert_eq!(length(&packed.bytes), Some(record.len()));
        assert_eq!(unpacked(&packed), record);
    }
}

#[test]
fn a_record_is_read_after_five_more_dictionaries() {
    let codec = Codec::new();
    let mut kept = Vec::new();
    for kind in 1..=6 {
        teach(&codec, kind);
        let record = record(kind, 7_000_000);
        kept.push((come(&codec, &record).expect("it fits"), record));
    }
    assert_eq!(codec.trained(), 6);
    let ids: HashSet<_> = kept.iter().map(|(packed, _)| packed.dictionary.id()).collect();
    assert_eq!(ids.len(), 6);
    for (packed, record) in &kept {
        assert_eq!(unpacked(packed), *record);
    }
}

#[test]
fn it_is_not_trained_again_while_it_fits_nor_too_soon() {
    let codec = Codec::new();
    assert_eq!(teach(&codec, 1), LESSON as u64);
    for number in 0..LEAST_SERVICE + 2 * WINDOW {
        let _packed = come(&codec, &record(1, number));
        assert!(!codec.learn());
    }
    assert!(teach(&codec, 2) < WINDOW + LESSON as u64 + 1);
    let soonest = teach(&codec, 3);
    assert!((LEAST_SERVICE..LEAST_SERVICE + WINDOW + LESSON as u64 + 1).contains(&soonest), "after {soonest}");
}

#[test]
fn while_too_many_dictionaries_are_in_use_the_newest_goes_on() {
    let codec = Codec::new();
    let mut kept = Vec::new();
    for kind in 1..=MOST_ALIVE as u64 {
        teach(&codec, kind);
        kept.push(come(&codec, &record(kind, 0)).expect("it fits"));
    }
    for number in 0..LEAST_SERVICE + 3 * WINDOW {
        let _packed = come(&codec, &record(99, number));
        assert!(!codec.learn());
    }
    // The last record of a dictionary goes, and the dictionary with it.
    drop(kept.remove(0));
    teach(&codec, 99);
    assert_eq!(codec.trained(), MOST_ALIVE as u64 + 1);
}

#[test]
fn records_that_nothing_can_be_learned_from_stay_as_they_are() {
    let codec = Codec::new();
    let mut chance = fastrand::Rng::with_seed(1);
    for _ in 0..3 * LESSON {
        let noise: Vec<u8> = (0..chance.usize(..300)).map(|_| chance.u8(..)).collect();
        assert!(come(&codec, &noise).is_none());
        let _nothing = codec.learn();
    }
    for _ in 0..2 * LESSON {
        assert!(come(&codec, b"").is_none());
        let _nothing = codec.learn();
    }
}

#[test]
fn a_dictionary_that_was_kept_reads_what_was_kept_with_it() {
    let codec = Codec::new();
    teach(&codec, 1);
    let record = record(1, 77);
    let packed = come(&codec, &record).expect("it fits");
    let again = Dictionary::from_bytes(packed.dictionary.as_bytes()).expect("it is one");
    assert_eq!(again.id(), packed.dictionary.id());
    let mut into = Vec::new();
    assert_eq!(again.unpack(&packed.bytes, record.len(), &mut into), Ok(()));
    assert_eq!(into, record);
    assert!(Dictionary::from_bytes(*b"no dictionary at all").is_err());
    assert!(Dictionary::from_bytes(*b"").is_err());
}

#[test]
fn what_is_broken_or_too_long_or_anothers_is_refused() {
    let codec = Codec::new();
    teach(&codec, 1);
    let record = record(1, 77);
    let Packed { dictionary, bytes } = come(&codec, &record).expect("it fits");
    let mut into = b"before".to_vec();
    assert_eq!(dictionary.unpack(&bytes, record.len() - 1, &mut into), Err(Corrupt));
    for cut in 0..bytes.len() {
        assert_eq!(dictionary.unpack(&bytes[..cut], MOST, &mut into), Err(Corrupt));
    }
    teach(&codec, 2);
    let other = codec.pack(&self::record(2, 1)).expect("it fits").dictionary;
    let read = other.unpack(&bytes, MOST, &mut into);
    assert!(read.is_err() || into != [b"before", &*record].concat(), "another dictionary gives something else");
    into.truncate(b"before".len());
    // The largest length that a frame can claim.
    let claim = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 7], &[0x7f, 1, 0, 0]].concat();
    assert_eq!(dictionary.unpack(&claim, MOST, &mut into), Err(Corrupt));
    assert_eq!(into, b"before");
}

#[test]
fn threads_pack_and_unpack_while_another_trains() {
    let codec = Codec::new();
    teach(&codec, 1);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let codec = &codec;
            scope.spawn(move || {
                let mut packed = 0;
                for number in 0..LEAST_SERVICE / 2 {
                    // Half way, what comes by changes.
                    let kind = 1 + number / (LEAST_SERVICE / 4);
                    let record = record(kind, thread << 32 | number);
                    if let Some(one) = come(codec, &record) {
                        packed += 1;
                        assert_eq!(unpacked(&one), record);
                    }
                    if thread == 0 {
                        let _new = codec.learn();
                    }
                }
                assert!(packed > LEAST_SERVICE / 5, "{packed}");
            });
        }
    });
    // Where one of them is still at what went before, there may be one for both.
    assert!((2..=4).contains(&codec.trained()), "{}", codec.trained());
}

#[tokio::test(start_paused = true)]
async fn it_keeps_itself_trained() {
    let codec = Arc::new(Codec::new());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&codec).trained_next());
    for number in 0..LESSON as u64 {
        assert!(come(&codec, &record(1, number)).is_none());
    }
    while codec.trained() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(come(&codec, &record(1, 7)).is_some());
    tasks.shutdown().await;
}

#[test]
fn nothing_of_a_record_is_printed() {
    let codec = Codec::new();
    teach(&codec, 1);
    let packed = come(&codec, &record(1, 0)).expect("it fits");
    let printed = format!("{codec:?} {packed:?} {:?}", packed.dictionary);
    assert!(!printed.contains('"') && printed.len() < 100, "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(
        any in proptest::collection::vec(any::<u8>(), 0..5000),
        repeated in 0..200usize,
        number in 0..1000u64,
    ) {
        static CODEC: std::sync::LazyLock<Codec> = std::sync::LazyLock::new(|| {
            let codec = Codec::new();
            teach(&codec, 1);
            codec
        });
        let mut bytes = any.repeat(1 + repeated / 50);
        bytes.extend(record(1, number).repeat(repeated % 7));
        // Otherwise it saves nothing.
        if let Some(packed) = CODEC.pack(&bytes) {
            prop_assert!(packed.bytes.len() < bytes.len());
            prop_assert_eq!(unpacked(&packed), bytes);
        }
    }

    #[test]
    fn no_bytes_that_claim_to_be_packed_do_harm(any in proptest::collection::vec(any::<u8>(), 0..300), frame in any::<bool>()) {
        static CODEC: std::sync::LazyLock<Codec> = std::sync::LazyLock::new(|| {
            let codec = Codec::new();
            teach(&codec, 2);
            codec
        });
        let dictionary = CODEC.pack(&record(2, 1)).expect("it fits").dictionary;
        let bytes = if frame { [&[0x28, 0xb5, 0x2f, 0xfd], &*any].concat() } else { any };
        let mut into = b"before".to_vec();
        match dictionary.unpack(&bytes, MOST, &mut into) {
            Ok(()) => prop_assert!(into.starts_with(b"before") && into.len() <= MOST + 6),
            Err(Corrupt) => prop_assert_eq!(into, b"before"),
        }
    }
}
