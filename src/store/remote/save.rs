//! Writing answers, by who has heard of every erasure.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use super::{Place, Remote, bound, not_understood};
use crate::{
    clock,
    codec::{Codec, Dictionary, DictionaryId},
    link::Lost,
    shape::Shape,
    store::{Saving, names::Table, save::Writing},
};

/// Times that a row is written while others erase.
const ATTEMPTS: usize = 3;

/// What is written at once.
struct Writes {
    keys: Vec<Vec<u8>>,
    positions: HashMap<Vec<u8>, usize>,
    args: Vec<Vec<u8>>,
}

impl Writes {
    /// Writes a row; takes one away if it is empty.
    fn put(&mut self, shelf: Vec<u8>, place: Place, row: Vec<u8>) {
        let next = self.keys.len();
        let position = *self.positions.entry(shelf).or_insert_with_key(|shelf| {
            self.keys.push(shelf.clone());
            next
        });
        self.args.extend([(position + 1).to_string().into_bytes(), place, row]);
    }
}

impl Remote {
    /// Writes what one upstream request brought, when the erasures up to `heard` had been heard of.
    pub(super) async fn save(
        &self,
        (shapes, codec): (&[Arc<Shape>], &Codec),
        mut saving: Saving,
        mut heard: u64,
    ) -> Result<(), Lost> {
        // Dictionaries that were there and are no longer.
        let mut anew = HashSet::new();
        for _attempt in 0..ATTEMPTS {
            let epoch = self.epoch()?;
            let generation = self.known().generation();
            if self.is_outdated(&saving, heard, generation) {
                saving.let_go();
            }
            heard = generation;
            let (writes, dictionaries) = self.writes((&epoch, generation), (shapes, codec), &saving, &anew)?;
            let args: Vec<&[u8]> = writes.args.iter().map(Vec::as_slice).collect();
            let answer = self.link.call(&self.scripts.save, &writes.keys, &args).await?;
            if answer.first().is_some_and(|word| word == b"behind") {
                // It was told before this answer came.
                continue;
            }
            let gone = self.checked(answer)?;
            if gone.is_empty() {
                dictionaries.iter().for_each(|dictionary| self.keep_dictionary(dictionary));
                return Ok(());
            }
            anew.extend(dictionaries.iter().map(|dictionary| dictionary.id().0));
        }
        Err(Lost("others erase too often".to_owned()))
    }

    fn writes(
        &self,
        (epoch, generation): (&str, u64),
        (shapes, codec): (&[Arc<Shape>], &Codec),
        saving: &Saving,
        anew: &HashSet<[u8; 16]>,
    ) -> Result<(Writes, Vec<Arc<Dictionary>>), Lost> {
        let dating = self.writing().ok_or_else(not_understood)?;
        let mut writing = Writing::new(&self.seal, dating, shapes, codec);
        writing.save(saving);
        let state = self.state();
        let args = [epoch.to_owned(), generation.to_string(), self.max_age.as_millis().to_string()];
        let mut writes = Writes {
            positions: HashMap::from([(state.clone(), 0)]),
            keys: vec![state],
            args: args.map(String::into_bytes).into(),
        };
        let now = dating.moment(clock::now());
        for row in writing.rows {
            if row.table == Table::About {
                let value = self.sealed(&row.name, now, &row.plain.unwrap_or_default());
                writes.put(self.about(epoch), row.name, value);
            } else if let Some((id, place)) = super::place(row.table, &row.name) {
                let value = row.plain.map(|plain| self.sealed(&bound(&id, &place), row.moment, &plain));
                writes.put(self.shelf(epoch, &id), place, value.unwrap_or_default());
            }
        }
        for dictionary in writing.dictionaries.values() {
            let (id, place) = (dictionary.id(), b"d".to_vec());
            let is_there = self.kept_dictionary(id).is_some() && !anew.contains(&id.0);
            let row = match is_there {
                true => b"=".to_vec(),
                false => self.sealed(&bound(&id.0, &place), now, dictionary.as_bytes()),
            };
            writes.put(self.dictionary_shelf(epoch, id), place, row);
            writes.put(self.about(epoch), LAST_DICTIONARY.to_vec(), self.sealed(LAST_DICTIONARY, now, &id.0));
        }
        Ok((writes, writing.dictionaries.into_values().collect()))
    }

    /// The envelopes that came last, and the dictionary that was used last.
    pub(super) async fn about_all(&self) -> Result<(Vec<(u8, Vec<u8>)>, Option<Arc<Dictionary>>), Lost> {
        let epoch = self.epoch()?;
        let rows = self.read(&epoch, &[self.about(&epoch)], b"").await?.into_iter().flatten();
        let (mut envelopes, mut last) = (Vec::new(), None);
        for (place, row) in rows {
            let Some(plain) = self.unsealed(&place, &row) else { continue };
            match &place[..] {
                [b'e', b'/', lookup] => envelopes.push((*lookup, plain)),
                LAST_DICTIONARY => last = plain.try_into().ok().map(DictionaryId),
                _ => {}
            }
        }
        let dictionary = match last {
            Some(id) => self.dictionary(&epoch, id).await?,
            None => None,
        };
        Ok((envelopes, dictionary))
    }

    /// Whether something that was told since `heard` is about what is to be written.
    fn is_outdated(&self, saving: &Saving, heard: u64, generation: u64) -> bool {
        generation != heard && self.known().is_about(&self.seal, saving, heard)
    }

    /// Dictionaries are made of pieces of records.
    pub(super) fn forget_dictionaries(&self) {
        self.dictionaries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Where it stands which dictionary was used last.
const LAST_DICTIONARY: &[u8] = b"d";
