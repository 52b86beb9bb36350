//! Writing answers: the rows of what one upstream request brought.

use std::{collections::HashMap, sync::Arc};

use super::{
    Saving,
    dating::{Dating, Moment},
    names::{self, Named, Table},
    rows::{self, Answer, Customer, Member},
    seal::Seal,
};
use crate::{
    codec::{Codec, Dictionary, Packed},
    key::Id,
    record::Record,
    shape::Shape,
};

/// A row that is to be written.
pub(super) struct Row {
    pub(super) table: Table,
    pub(super) name: Vec<u8>,
    /// When what it says was asked for.
    pub(super) moment: Moment,
    /// What it says; none where nothing is known any more.
    pub(super) plain: Option<Vec<u8>>,
}

/// What rows are made with, and those that are made.
pub(super) struct Writing<'a> {
    seal: &'a Seal,
    dating: Dating,
    shapes: &'a [Arc<Shape>],
    codec: &'a Codec,
    pub(super) rows: Vec<Row>,
    /// What they are packed with.
    pub(super) dictionaries: HashMap<[u8; 16], Arc<Dictionary>>,
}

impl<'a> Writing<'a> {
    /// No rows yet.
    pub(super) fn new(seal: &'a Seal, dating: Dating, shapes: &'a [Arc<Shape>], codec: &'a Codec) -> Self {
        Self { seal, dating, shapes, codec, rows: Vec::new(), dictionaries: HashMap::new() }
    }

    /// Adds the rows of what one upstream request brought.
    pub(super) fn save(&mut self, saving: &Saving) {
        let Some(shape) = self.shapes.get(usize::from(saving.scope.lookup)).map(Arc::clone) else { return };
        let named = Named::new(self.seal, &saving.scope);
        for id in &saving.gone {
            self.remove(&named, saving.scope.lookup, id);
        }
        for record in &saving.records {
            self.customer(&named, &shape, record);
        }
        for (id, fetched_at, records) in &saving.answers {
            let mut members = Vec::with_capacity(records.len());
            for record in records {
                members.push(match record.identity() {
                    Some(identity) => {
                        Member::Named(names::id_name(self.seal, saving.scope.lookup, &identity.to_owned()))
                    }
                    None => Member::Whole(self.packed(record)),
                });
            }
            let answer = Answer { fetched_at: self.dating.moment(*fetched_at), members };
            self.answer(&named, saving.scope.lookup, id, &answer);
        }
        let plain = Some(saving.envelope.to_vec());
        let name = envelope_name(saving.scope.lookup);
        self.rows.push(Row { table: Table::About, name, moment: Moment::default(), plain });
    }

    fn customer(&mut self, named: &Named, shape: &Shape, record: &Record) {
        let Some(identity) = record.identity().map(crate::key::IdRef::to_owned) else { return };
        let lookup = record.scope().lookup;
        let own = names::id_name(self.seal, lookup, &identity);
        let customer = self.packed(record);
        let moment = customer.fetched_at;
        let mut row = named.row(&identity);
        customer.write(&mut row);
        self.put(Table::Customers, names::name(&own, &named.name).into(), moment, row);
        let answer = Answer { fetched_at: moment, members: vec![Member::Named(own)] };
        for id in &customer.ids {
            if shape.list(id.kind).unique {
                self.answer(named, lookup, id, &answer);
            } else {
                let name = names::name(&names::id_name(self.seal, lookup, id), &named.name);
                let mut row = Vec::new();
                rows::number(&mut row, moment.0);
                self.put(Table::Links, names::link(&name, &own), moment, row);
            }
        }
    }

    fn answer(&mut self, named: &Named, lookup: u8, id: &Id, answer: &Answer) {
        let name = names::name(&names::id_name(self.seal, lookup, id), &named.name);
        let mut row = named.row(id);
        answer.write(&mut row);
        self.put(Table::Answers, name.into(), answer.fetched_at, row);
    }

    /// What is kept of a key is not believed any more.
    fn remove(&mut self, named: &Named, lookup: u8, id: &Id) {
        let name = names::name(&names::id_name(self.seal, lookup, id), &named.name);
        for table in [Table::Answers, Table::Customers] {
            self.rows.push(Row { table, name: name.into(), moment: Moment::default(), plain: None });
        }
    }

    fn packed(&mut self, record: &Record) -> Customer {
        let json = record.json();
        self.codec.see(&json);
        let packed = self.codec.pack(&json);
        if let Some(Packed { dictionary, .. }) = &packed {
            self.dictionaries.entry(dictionary.id().0).or_insert_with(|| Arc::clone(dictionary));
        }
        Customer::of(record, self.dating.moment(record.fetched_at()), packed)
    }

    fn put(&mut self, table: Table, name: Vec<u8>, moment: Moment, plain: Vec<u8>) {
        self.rows.push(Row { table, name, moment, plain: Some(plain) });
    }
}

/// Where the envelope of a lookup path stands.
pub(super) fn envelope_name(lookup: u8) -> Vec<u8> {
    vec![b'e', b'/', lookup]
}
