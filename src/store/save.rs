//! Writing answers: the rows of what one upstream request brought.

use std::{collections::HashSet, sync::Arc};

use super::{
    Saving,
    disk::{Disk, File},
    generation::{Change, Failed},
    names::{self, Named, Table},
    rows::{self, Answer, Customer, Member},
};
use crate::{
    codec::{Codec, Packed},
    key::Id,
    record::Record,
    shape::Shape,
};

/// What rows are made with.
pub(super) struct Writing<'a> {
    pub(super) disk: &'a Disk,
    pub(super) shapes: &'a [Arc<Shape>],
    pub(super) codec: &'a Codec,
    pub(super) file: &'a File,
    pub(super) changes: Vec<Change>,
    /// The dictionaries that are there, or about to be.
    pub(super) known: HashSet<[u8; 16]>,
}

impl Writing<'_> {
    /// Adds the rows of what one upstream request brought.
    pub(super) fn save(&mut self, saving: &Saving) -> Result<(), Failed> {
        let Some(shape) = self.shapes.get(usize::from(saving.scope.lookup)).map(Arc::clone) else { return Ok(()) };
        let named = Named::new(&self.disk.seal, &saving.scope);
        for id in &saving.gone {
            self.remove(&named, saving.scope.lookup, id);
        }
        for record in &saving.records {
            self.customer(&named, &shape, record)?;
        }
        for (id, fetched_at, records) in &saving.answers {
            let mut members = Vec::with_capacity(records.len());
            for record in records {
                members.push(match record.identity() {
                    Some(identity) => {
                        Member::Named(names::id_name(&self.disk.seal, saving.scope.lookup, &identity.to_owned()))
                    }
                    None => Member::Whole(self.packed(record)?),
                });
            }
            let answer = Answer { fetched_at: self.disk.dating.moment(*fetched_at), members };
            self.answer(&named, saving.scope.lookup, id, &answer);
        }
        self.put(Table::About, envelope_name(saving.scope.lookup), &saving.envelope);
        Ok(())
    }

    fn customer(&mut self, named: &Named, shape: &Shape, record: &Record) -> Result<(), Failed> {
        let Some(identity) = record.identity().map(crate::key::IdRef::to_owned) else { return Ok(()) };
        let lookup = record.scope().lookup;
        let own = names::id_name(&self.disk.seal, lookup, &identity);
        let customer = self.packed(record)?;
        let mut row = named.row(&identity);
        customer.write(&mut row);
        self.put(Table::Customers, names::name(&own, &named.name).into(), &row);
        let answer = Answer { fetched_at: customer.fetched_at, members: vec![Member::Named(own)] };
        for id in &customer.ids {
            if shape.list(id.kind).unique {
                self.answer(named, lookup, id, &answer);
            } else {
                let name = names::name(&names::id_name(&self.disk.seal, lookup, id), &named.name);
                let mut row = Vec::new();
                rows::number(&mut row, customer.fetched_at.0);
                self.put(Table::Links, names::link(&name, &own), &row);
            }
        }
        Ok(())
    }

    fn answer(&mut self, named: &Named, lookup: u8, id: &Id, answer: &Answer) {
        let name = names::name(&names::id_name(&self.disk.seal, lookup, id), &named.name);
        let mut row = named.row(id);
        answer.write(&mut row);
        self.put(Table::Answers, name.into(), &row);
    }

    /// What is kept of a key is not believed any more. In an older file it may be there as well: an answer without
    /// a time says so.
    fn remove(&mut self, named: &Named, lookup: u8, id: &Id) {
        let name = names::name(&names::id_name(&self.disk.seal, lookup, id), &named.name);
        for table in [Table::Answers, Table::Customers] {
            self.put(table, name.into(), &[]);
        }
    }

    fn packed(&mut self, record: &Record) -> Result<Customer, Failed> {
        let json = record.json();
        self.codec.see(&json);
        let packed = self.codec.pack(&json);
        if let Some(Packed { dictionary, .. }) = &packed
            && self.known.insert(dictionary.id().0)
        {
            let changes = self.disk.learn(self.file, dictionary)?;
            self.changes.extend(changes);
        }
        Ok(Customer::of(record, self.disk.dating.moment(record.fetched_at()), packed))
    }

    fn put(&mut self, table: Table, name: Vec<u8>, row: &[u8]) {
        let value = self.disk.sealed(table, &name, row);
        self.changes.push(Change { table, name, value: Some(value) });
    }
}

impl Disk {
    /// The envelope of the last success of a lookup path.
    pub(super) fn envelope(&self, lookup: u8) -> Option<Vec<u8>> {
        self.row(&self.views().ok()?, Table::About, &envelope_name(lookup)).ok()?
    }
}

fn envelope_name(lookup: u8) -> Vec<u8> {
    vec![b'e', b'/', lookup]
}
