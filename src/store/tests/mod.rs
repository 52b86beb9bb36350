//! What is kept on a disk and what of it is believed: layout, order, bounds, damage and clocks.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use super::{Answered, KeyFile, OnDisk as Config, Opened, Saving, Store, StoreKey, disk::Disk};
use crate::{
    clock::{self, Instant},
    key::{Id, Kind, Scope, Value},
    metrics::Metrics,
    record::{Parts, Record},
    shape::Shape,
};

const OWNER: &str = "http://upstream";

fn config(folder: &Path) -> Config {
    let max_age = Duration::from_secs(86_400);
    Config { path: folder.join("store"), capacity: 64 << 20, max_age, key_file: None }
}

fn start(config: &Config) -> Store {
    let opened = Opened::on_disk(config, OWNER).expect("it opens");
    Store::start(opened, vec![Arc::new(Shape::audience_detail())], Metrics::new().store(false))
}

fn scope(company: u8) -> Arc<Scope> {
    Arc::new(Scope::new(0, vec![], format!("{{\"companyId\":{company}}}"), ""))
}

fn by_id(number: i64) -> Id {
    Id { kind: Kind(0), value: Value::Int(number) }
}

fn by_third(number: i64) -> Id {
    Id { kind: Kind(1), value: Value::Text(format!("t{number}").into()) }
}

fn by_phone(number: i64) -> Id {
    Id { kind: Kind(2), value: Value::Text(format!("138{number:08}").into()) }
}

/// A customer with an id, a third id and these phones.
fn customer(number: i64, phones: &[i64], fetched_at: Instant) -> Record {
    let ids: Vec<Id> =
        [by_id(number), by_third(number)].into_iter().chain(phones.iter().map(|phone| by_phone(*phone))).collect();
    let json = format!("{{\"audienceUserId\":{number},\"name\":\"{}\"}}", "name ".repeat(100));
    let parts =
        Parts { json: json.as_bytes(), scope: scope(1), ids: &ids, carried: ids.len(), identity: Some(0), fetched_at };
    Record::new(parts)
}

/// What a request brought that asked for `id` at `at`.
fn saving(id: &Id, at: Instant, records: Vec<Record>) -> Saving {
    let answers = vec![(id.clone(), at, records.clone())];
    Saving { scope: scope(1), envelope: bytes::Bytes::from_static(b"{"), records, answers, gone: vec![] }
}

async fn load(store: &Store, id: &Id) -> Option<Answered> {
    load_of(store, 1, id).await
}

async fn load_of(store: &Store, company: u8, id: &Id) -> Option<Answered> {
    let scope = scope(company);
    let loaded = store.load(&scope, &Arc::new(Shape::audience_detail()), vec![id.clone()]).await?;
    loaded.believe(&scope).pop()
}

async fn names(store: &Store, id: &Id) -> Option<usize> {
    load(store, id).await.map(|answered| answered.records.len())
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart_under_every_key_and_as_old_as_it_is() {
    let folder = TempDir::new().expect("a directory");
    let config = config(folder.path());
    let at = clock::now();
    let kept = customer(7, &[1], at);
    {
        let store = start(&config);
        store.save(saving(&by_phone(1), at, vec![kept.clone()]));
        store.save(saving(&by_id(9), at, vec![]));
        store.flush().await;
    }
    let store = start(&config);
    for id in [by_id(7), by_third(7), by_phone(1)] {
        let answered = load(&store, &id).await.expect("it is there");
        let record = &answered.records[0];
        assert_eq!(record.json(), kept.json());
        assert_eq!(record.identity(), kept.identity());
        assert!(record.ids().eq(kept.ids()));
        // The two processes have read the wall clock at moments of their own.
        assert!(answered.fetched_at.saturating_duration_since(at) < Duration::from_secs(1));
    }
    assert_eq!(names(&store, &by_id(9)).await, Some(0), "that there is no such customer is kept, too");
    assert_eq!(names(&store, &by_id(8)).await, None);
    assert!(load_of(&store, 2, &by_id(7)).await.is_none(), "another company's answer is nobody's");
    assert_eq!(store.envelope(0).as_deref(), Some(&b"{"[..]));
}

#[tokio::test]
async fn a_key_that_the_newest_version_does_not_carry_gives_nothing() {
    let folder = TempDir::new().expect("a directory");
    let store = start(&config(folder.path()));
    let (first, second) = (clock::now(), clock::now() + Duration::from_millis(1));
    store.save(saving(&by_phone(1), first, vec![customer(7, &[1], first)]));
    store.flush().await;
    assert_eq!(names(&store, &by_phone(1)).await, Some(1));
    store.save(saving(&by_id(7), second, vec![customer(7, &[2], second)]));
    store.flush().await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(names(&store, &by_phone(1)).await, None);
    assert_eq!(names(&store, &by_third(7)).await, Some(1));
    assert_eq!(names(&store, &by_phone(2)).await, None, "nobody has asked who else carries it");
}

#[tokio::test]
async fn later_answers_refute_and_complete_earlier_ones() {
    let folder = TempDir::new().expect("a directory");
    let store = start(&config(folder.path()));
    let at = |millis| clock::now() - Duration::from_secs(1) + Duration::from_millis(millis);
    let (first, second, third) = (at(0), at(1), at(2));
    store.save(saving(&by_phone(1), first, vec![customer(7, &[1], first)]));
    store.save(saving(&by_id(8), second, vec![customer(8, &[1], second)]));
    store.flush().await;
    assert_eq!(names(&store, &by_phone(1)).await, None, "another carries it since");
    assert_eq!(names(&store, &by_id(7)).await, Some(1));
    store.save(saving(&by_phone(1), third, vec![customer(8, &[1], third)]));
    store.flush().await;
    assert_eq!(names(&store, &by_phone(1)).await, Some(1));
    assert_eq!(names(&store, &by_id(7)).await, None, "he has changed: he does not carry it any more");
    store.save(saving(&by_third(8), at(3), vec![]));
    store.flush().await;
    assert_eq!(names(&store, &by_id(8)).await, None, "his third id leads nowhere");
}

#[tokio::test]
async fn what_is_erased_is_gone_with_every_key_whoever_asked() {
    let folder = TempDir::new().expect("a directory");
    let config = config(folder.path());
    let store = start(&config);
    let at = clock::now();
    for number in 0..20 {
        store.save(saving(&by_id(number), at, vec![customer(number, &[number / 2], at)]));
    }
    let erased = store.erase(store.begin_erasure(), 0, None, (&[by_phone(3)], true)).await.expect("it is done");
    assert_eq!((erased.keys.len(), erased.customers.len()), (4, 2), "an id and a third id of two customers");
    assert!([by_id(6), by_third(7), by_phone(3)].iter().all(|id| erased.ids.contains(id)));
    drop(store);
    let store = start(&config);
    for number in 0..20 {
        let is_there = ![6, 7].contains(&number);
        for id in [by_id(number), by_third(number)] {
            assert_eq!(load(&store, &id).await.is_some(), is_there, "{number}");
        }
    }
    let other = crate::key::Credential::Gateway;
    let erased = store.erase(store.begin_erasure(), 0, Some(&other), (&[by_id(1)], true)).await.expect("it is done");
    assert!(erased.customers.is_empty(), "it is another credential's");
    let (keys, customers) = store.erase_all(store.begin_erasure()).await.expect("it is done");
    assert_eq!((keys, customers), (36, 18));
    assert!(load(&store, &by_id(1)).await.is_none());
}

#[tokio::test]
async fn what_was_saved_or_erased_while_it_was_read_is_not_believed() {
    let folder = TempDir::new().expect("a directory");
    let store = start(&config(folder.path()));
    let (scope, shape, at) = (scope(1), Arc::new(Shape::audience_detail()), clock::now());
    for number in [1, 2] {
        store.save(saving(&by_id(number), at, vec![customer(number, &[], at)]));
    }
    store.flush().await;
    let ids = vec![by_third(1), by_third(2)];
    let loaded = store.load(&scope, &shape, ids.clone()).await.expect("it is read");
    store.save(saving(&by_id(1), clock::now(), vec![customer(1, &[5], clock::now())]));
    store.flush().await;
    let believed = loaded.believe(&scope);
    assert!(believed.len() == 1 && believed[0].id == by_third(2), "there is a newer version of the other");
    let loaded = store.load(&scope, &shape, ids).await.expect("it is read");
    let erased = store.erase(store.begin_erasure(), 0, None, (&[by_id(77)], true)).await;
    assert!(erased.is_ok() && loaded.believe(&scope).is_empty());
    let erasing = store.begin_erasure();
    assert!(load(&store, &by_id(2)).await.is_none(), "nothing is read while something is erased");
    drop(erasing);
    assert!(load(&store, &by_id(2)).await.is_some());
}

#[tokio::test]
async fn the_capacity_is_kept_and_the_oldest_goes() {
    let folder = TempDir::new().expect("a directory");
    let config = Config { capacity: 4 << 20, ..config(folder.path()) };
    let store = start(&config);
    for number in 0..5000 {
        store.save(saving(&by_id(number), clock::now(), vec![customer(number, &[number], clock::now())]));
        if number % 50 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    let files = fs::read_dir(&config.path).expect("a directory").flatten();
    let bytes: u64 = files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum();
    assert!((1 << 20..=4 << 20).contains(&bytes), "{bytes}");
    assert!(load(&store, &by_id(0)).await.is_none() && load(&store, &by_id(4999)).await.is_some());
}

#[test]
fn a_clock_that_went_back_and_a_key_that_changed_leave_nothing_and_an_age_is_an_age() {
    let folder = TempDir::new().expect("a directory");
    let config = config(folder.path());
    let key = |byte: &str| Some(KeyFile { path: "key".into(), key: StoreKey::parse(&byte.repeat(32)).expect("a key") });
    let config = Config { key_file: key("aa"), ..config };
    // A little later than whatever is saved below.
    let wall = SystemTime::now() + Duration::from_secs(30);
    let count = |config: &Config, owner: &str, wall| {
        let disk = Disk::open_at(config, owner, wall).expect("it opens");
        let found = disk.load((&scope(1), &Shape::audience_detail()), &[by_id(1)], clock::now()).expect("it is read");
        found.len()
    };
    let fill = || {
        let store = start(&config);
        store.save(saving(&by_id(1), clock::now(), vec![customer(1, &[], clock::now())]));
    };
    fill();
    assert_eq!(count(&config, OWNER, wall + Duration::from_secs(3600)), 1);
    assert_eq!(count(&config, OWNER, wall + Duration::from_secs(86_500)), 0, "older than it may be");
    assert_eq!(count(&config, OWNER, wall), 1, "it was not written to meanwhile");
    assert_eq!(count(&config, OWNER, wall - Duration::from_secs(60)), 0, "the clock went back");
    assert_eq!(count(&config, OWNER, wall + Duration::from_secs(60)), 0, "and it stays away");
    fs::remove_dir_all(&config.path).expect("it is there");
    fill();
    assert_eq!(count(&config, "http://other", wall), 0);
    assert_eq!(count(&config, OWNER, wall), 0, "another upstream's store is begun anew");
    fs::remove_dir_all(&config.path).expect("it is there");
    fill();
    assert_eq!(count(&Config { key_file: key("bb"), ..config.clone() }, OWNER, wall), 0);
    let aside = |name: &str| name.contains(".set-aside-");
    let names = fs::read_dir(&config.path).expect("a directory").flatten();
    assert!(names.filter_map(|file| file.file_name().into_string().ok()).any(|name| aside(&name)));
}

#[test]
fn whatever_is_done_to_a_file_the_store_opens_and_gives_nothing_wrong() {
    let folder = TempDir::new().expect("a directory");
    let config = config(folder.path());
    let expected = customer(1, &[], clock::now()).json().into_owned();
    let mut chance = fastrand::Rng::with_seed(8);
    for round in 0..24 {
        let _fresh = fs::remove_dir_all(&config.path);
        let store = start(&config);
        for number in 0..30 {
            store.save(saving(&by_id(number), clock::now(), vec![customer(number, &[number], clock::now())]));
        }
        drop(store);
        let path = config.path.join("0000000001.rows");
        let mut bytes = fs::read(&path).expect("a file");
        match round % 4 {
            0 => bytes.truncate(chance.usize(..bytes.len())),
            1 => bytes = vec![b'x'; chance.usize(1..9000)],
            _ => (0..1 + round).for_each(|_| {
                let at = chance.usize(..bytes.len());
                bytes[at] ^= 1 << chance.u8(..8);
            }),
        }
        fs::write(&path, &bytes).expect("it is written");
        let disk = Disk::open(&config, OWNER).expect("it opens");
        let read = disk.load((&scope(1), &Shape::audience_detail()), &[by_id(1)], clock::now());
        for found in read.into_iter().flatten() {
            assert_eq!(found.records[0].json(), expected);
        }
    }
}

#[test]
fn a_directory_belongs_to_one_process_and_to_the_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a directory");
    let config = config(folder.path());
    let first = Opened::on_disk(&config, OWNER).expect("it opens");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&config.path), 0o700);
    assert!(fs::read_dir(&config.path).expect("a directory").flatten().all(|file| mode(&file.path()) == 0o600));
    let refused = Opened::on_disk(&config, OWNER).err().expect("it is locked");
    assert!(refused.ends_with("is in use by another process"), "{refused}");
    drop(first);
    assert!(Opened::on_disk(&config, OWNER).is_ok());
    let crowded = folder.path().join("crowded");
    fs::create_dir(&crowded).expect("a directory");
    fs::write(crowded.join("letter"), "dear").expect("a file");
    fs::set_permissions(&crowded, fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert!(Opened::on_disk(&Config { path: crowded.clone(), ..config.clone() }, OWNER).is_err());
    let file = Config { path: crowded.join("letter"), ..config };
    assert!(Opened::on_disk(&file, OWNER).is_ok(), "a file in its place is set aside");
}
