//! Reading answers: what may still be believed of them.
//!
//! Rows are written as answers come and never corrected; so what they say is put together when it is read:
//! - an answer is only as good as its customers: one of whom no row is left, or who is older than the answer, makes it a miss;
//! - a customer's newest row decides: an id that it no longer carries is not answered by it;
//! - **refuted**: a customer who carries an id whose later answer does not name him has changed since, and is not given;
//! - **incomplete**: an answer to an id that several may carry is not whole if somebody came later who carries it.
//!
//! These are the rules of the cache, which knows them for what it holds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    dating::Moment,
    disk::Disk,
    generation::{Failed, View},
    names::{self, Name, Named, Table},
    rows::{Answer, Customer, IdName, Input, Member},
};
use crate::{
    clock::Instant,
    key::{Id, Scope},
    record::Record,
    shape::Shape,
};

/// An answer that was read.
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) fetched_at: Instant,
    pub(super) records: Vec<Record>,
}

/// One reading of some keys of a scope.
struct Reading<'a> {
    disk: &'a Disk,
    views: Vec<View>,
    scope: &'a Arc<Scope>,
    named: Named,
    shape: &'a Shape,
    now: Moment,
    answers: HashMap<Name, Option<Arc<Answer>>>,
    customers: HashMap<IdName, Option<Arc<Known>>>,
}

/// A customer who was read, and the record of it.
struct Known {
    row: Customer,
    record: Record,
}

impl Disk {
    /// What may be believed of these keys.
    pub(super) fn load(
        &self,
        (scope, shape): (&Arc<Scope>, &Shape),
        ids: &[Id],
        now: Instant,
    ) -> Result<Vec<Found>, Failed> {
        let mut reading = Reading {
            disk: self,
            views: self.views()?,
            scope,
            named: Named::new(&self.seal, scope),
            shape,
            now: self.dating.moment(now),
            answers: HashMap::new(),
            customers: HashMap::new(),
        };
        let mut found = Vec::new();
        for id in ids {
            found.extend(reading.find(id)?);
        }
        Ok(found)
    }
}

impl Reading<'_> {
    fn id_name(&self, id: &Id) -> IdName {
        names::id_name(&self.disk.seal, self.scope.lookup, id)
    }

    /// Whether what was asked for then may be given at all.
    fn is_believed(&self, fetched_at: Moment) -> bool {
        fetched_at.age(self.now).is_some_and(|age: Duration| age <= self.disk.max_age)
    }

    fn find(&mut self, id: &Id) -> Result<Option<Found>, Failed> {
        let Some(answer) = self.answer(id)? else { return Ok(None) };
        let Some(fetched_at) = self.disk.dating.instant(answer.fetched_at) else { return Ok(None) };
        if !self.is_believed(answer.fetched_at) {
            return Ok(None);
        }
        let mut records = Vec::with_capacity(answer.members.len());
        for member in &answer.members {
            let record = match member {
                Member::Named(name) => self
                    .customer(name)?
                    .filter(|known| known.row.fetched_at >= answer.fetched_at && known.row.has(id))
                    .map(|known| known.record.clone()),
                Member::Whole(customer) => self.record(customer),
            };
            let Some(record) = record else { return Ok(None) };
            records.push(record);
        }
        let is_whole = self.shape.list(id.kind).unique || self.is_whole(id, &answer)?;
        Ok(is_whole.then(|| Found { id: id.clone(), fetched_at, records }))
    }

    fn answer(&mut self, id: &Id) -> Result<Option<Arc<Answer>>, Failed> {
        let name = names::name(&self.id_name(id), &self.named.name);
        if let Some(known) = self.answers.get(&name) {
            return Ok(known.clone());
        }
        let row = self.disk.row(&self.views, Table::Answers, &name)?;
        // The name is a hash; the row says what it is of.
        let content = row.as_deref().and_then(|row| row.strip_prefix(&*self.named.row(id)));
        let answer = content.and_then(|content| Answer::read(&mut Input(content))).map(Arc::new);
        self.answers.insert(name, answer.clone());
        Ok(answer)
    }

    /// The customer of this name, unless it has changed since.
    fn customer(&mut self, name: &IdName) -> Result<Option<Arc<Known>>, Failed> {
        if let Some(known) = self.customers.get(name) {
            return Ok(known.clone());
        }
        let known = self.read_customer(name)?.map(Arc::new);
        self.customers.insert(*name, known.clone());
        Ok(known)
    }

    fn read_customer(&mut self, name: &IdName) -> Result<Option<Known>, Failed> {
        let row = self.disk.row(&self.views, Table::Customers, &names::name(name, &self.named.name))?;
        let content = row.as_deref().and_then(|row| self.named.content(row));
        let Some(row) = content.and_then(|content| Customer::read(&mut Input(content))) else { return Ok(None) };
        if !self.is_believed(row.fetched_at) {
            return Ok(None);
        }
        for id in &row.ids {
            let later = self.answer(id)?.filter(|answer| answer.fetched_at > row.fetched_at);
            if later.is_some_and(|later| !later.names(name)) {
                return Ok(None);
            }
        }
        Ok(self.record(&row).map(|record| Known { row, record }))
    }

    fn record(&self, row: &Customer) -> Option<Record> {
        let fetched_at = self.disk.dating.instant(row.fetched_at)?;
        row.record(self.scope, fetched_at, |id| self.disk.dictionary(&self.views, id))
    }

    /// Whether nobody came after the answer who carries the id, too.
    fn is_whole(&mut self, id: &Id, answer: &Answer) -> Result<bool, Failed> {
        let name = names::name(&self.id_name(id), &self.named.name);
        let mut later = Vec::new();
        for view in &self.views {
            for (link, sealed) in view.alike(Table::Links, &name)? {
                let plain = self.disk.unseal(Table::Links, &link, &sealed)?;
                let (Some(customer), Some(at)) = (link.last_chunk::<16>(), Input(&plain).number()) else {
                    return Err(Failed::Damaged);
                };
                if Moment(at) > answer.fetched_at && !answer.names(customer) {
                    later.push(*customer);
                }
            }
        }
        for customer in later {
            if self.customer(&customer)?.is_some_and(|known| known.row.has(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
