//! Reading answers: what is lacking is asked for together, until nothing is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Remote, Rows, Tie, bound, letter};
use crate::{
    clock::Instant,
    codec::{Dictionary, DictionaryId},
    key::{Id, Scope},
    link::Lost,
    shape::Shape,
    store::{
        dating::Moment,
        load::{self, Found, Reading},
        names::{IdName, Name, ScopeName, Table},
        rows::Input,
    },
};

/// Times that something is asked for: answers, customers, what else those are said to carry, who else carries that, and what
/// they are packed with.
const ROUNDS: usize = 8;

/// Why a row is not known.
pub(super) enum Lack {
    /// It has not been asked for.
    Missing,
    /// It is not what was written.
    Damaged,
}

/// What has been asked for of one scope.
struct Fetched<'a> {
    remote: &'a Remote,
    scope: ScopeName,
    shelves: HashMap<IdName, HashMap<Vec<u8>, Vec<u8>>>,
    dictionaries: HashMap<[u8; 16], Option<Arc<Dictionary>>>,
    wanted: HashSet<IdName>,
    wanted_dictionaries: HashSet<[u8; 16]>,
}

impl Remote {
    /// Waits until it is known how the process stands with the server. Whether it can be asked.
    pub(in crate::store) async fn settled(&self) -> bool {
        let mut tie = self.tie.subscribe();
        let settled = tie.wait_for(|tie| *tie != Tie::Open).await;
        settled.is_ok_and(|tie| matches!(*tie, Tie::Joined(_)))
    }

    /// What may be believed of these keys.
    pub(in crate::store) async fn load(
        &self,
        (scope, shape): (&Arc<Scope>, &Shape),
        ids: Vec<Id>,
        now: Instant,
    ) -> Result<Vec<Found>, Lost> {
        let epoch = self.epoch()?;
        let Some(dating) = self.reading() else { return Ok(Vec::new()) };
        let rows = Fetched::new(self);
        let mut reading = Reading::new(rows, (scope, shape), (&self.seal, dating), (self.max_age, now));
        reading.rows.scope = reading.named.name;
        let (mut found, mut left) = (Vec::new(), ids);
        for _round in 0..ROUNDS {
            left.retain(|id| match reading.find(id) {
                Ok(answer) => {
                    found.extend(answer);
                    false
                }
                Err(Lack::Missing) => true,
                Err(Lack::Damaged) => false,
            });
            if left.is_empty() {
                break;
            }
            reading.rows.fetch(&epoch).await?;
        }
        Ok(found)
    }
}

impl<'a> Fetched<'a> {
    fn new(remote: &'a Remote) -> Self {
        Self {
            remote,
            scope: ScopeName::default(),
            shelves: HashMap::new(),
            dictionaries: HashMap::new(),
            wanted: HashSet::new(),
            wanted_dictionaries: HashSet::new(),
        }
    }

    /// Asks for everything that was lacking.
    async fn fetch(&mut self, epoch: &str) -> Result<(), Lost> {
        let wanted: Vec<IdName> = self.wanted.drain().collect();
        let shelves: Vec<_> = wanted.iter().map(|id| self.remote.shelf(epoch, id)).collect();
        let read = self.remote.read(epoch, &shelves, &self.scope).await?;
        self.shelves.extend(wanted.into_iter().zip(read.into_iter().map(Rows::into_iter).map(Iterator::collect)));
        for id in std::mem::take(&mut self.wanted_dictionaries) {
            let found = self.remote.dictionary(epoch, DictionaryId(id)).await?;
            self.dictionaries.insert(id, found);
        }
        Ok(())
    }

    fn shelf(&mut self, id: &IdName) -> Result<&HashMap<Vec<u8>, Vec<u8>>, Lack> {
        if !self.shelves.contains_key(id) {
            self.wanted.insert(*id);
        }
        self.shelves.get(id).ok_or(Lack::Missing)
    }
}

impl Remote {
    /// A dictionary, if it is there.
    pub(super) async fn dictionary(&self, epoch: &str, id: DictionaryId) -> Result<Option<Arc<Dictionary>>, Lost> {
        if let Some(found) = self.kept_dictionary(id) {
            return Ok(Some(found));
        }
        let read = self.read(epoch, &[self.dictionary_shelf(epoch, id)], b"").await?;
        let row = read.into_iter().flatten().find(|(place, _)| place == b"d");
        let bytes = row.and_then(|(place, row)| self.unsealed(&bound(&id.0, &place), &row));
        let found = bytes.and_then(|bytes| Dictionary::from_bytes(bytes).ok()).map(Arc::new);
        found.iter().for_each(|found| self.keep_dictionary(found));
        Ok(found)
    }
}

impl load::Rows for Fetched<'_> {
    type Lack = Lack;

    fn row(&mut self, table: Table, name: &Name) -> Result<Option<Vec<u8>>, Lack> {
        let Some((id, place)) = super::place(table, name) else { return Err(Lack::Damaged) };
        let remote = self.remote;
        let Some(row) = self.shelf(&id)?.get(&place) else { return Ok(None) };
        remote.unsealed(&bound(&id, &place), row).map(Some).ok_or(Lack::Damaged)
    }

    fn links(&mut self, name: &Name) -> Result<Vec<(IdName, Moment)>, Lack> {
        let Some((id, beginning)) = super::place(Table::Links, name) else { return Err(Lack::Damaged) };
        let remote = self.remote;
        let shelf = self.shelf(&id)?.iter();
        let links = shelf.filter(|(place, _)| place[0] == letter(Table::Links) && place.starts_with(&beginning));
        let link = |(place, row): (&Vec<u8>, &Vec<u8>)| {
            let plain = remote.unsealed(&bound(&id, place), row)?;
            Some((*place.last_chunk()?, Moment(Input(&plain).number()?)))
        };
        links.map(link).collect::<Option<_>>().ok_or(Lack::Damaged)
    }

    fn dictionary(&mut self, id: DictionaryId) -> Result<Option<Arc<Dictionary>>, Lack> {
        if let Some(known) = self.dictionaries.get(&id.0) {
            return Ok(known.clone());
        }
        if let Some(kept) = self.remote.kept_dictionary(id) {
            return Ok(Some(kept));
        }
        self.wanted_dictionaries.insert(id.0);
        Err(Lack::Missing)
    }
}
