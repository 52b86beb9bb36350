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
    dating::{Dating, Moment},
    names::{self, IdName, Name, Named, Table},
    rows::{Answer, Customer, Input, Member},
    seal::Seal,
};
use crate::{
    clock::Instant,
    codec::{Dictionary, DictionaryId},
    key::{Id, Scope},
    record::Record,
    shape::Shape,
};

/// Where rows come from.
pub(super) trait Rows {
    /// Why it is not known whether there is a row.
    type Lack;

    /// The newest row of this name.
    fn row(&mut self, table: Table, name: &Name) -> Result<Option<Vec<u8>>, Self::Lack>;

    /// Who carries an id that several may carry, and since when that is known.
    fn links(&mut self, id: &Name) -> Result<Vec<(IdName, Moment)>, Self::Lack>;

    /// What records were packed with.
    fn dictionary(&mut self, id: DictionaryId) -> Result<Option<Arc<Dictionary>>, Self::Lack>;
}

/// An answer that was read.
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) fetched_at: Instant,
    pub(super) records: Vec<Record>,
}

/// One reading of some keys of a scope.
pub(super) struct Reading<'a, R> {
    pub(super) rows: R,
    seal: &'a Seal,
    dating: Dating,
    max_age: Duration,
    scope: &'a Arc<Scope>,
    pub(super) named: Named,
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

impl<'a, R: Rows> Reading<'a, R> {
    /// Nothing is read yet; what is older than `max_age` at `now` is not believed.
    pub(super) fn new(
        rows: R,
        (scope, shape): (&'a Arc<Scope>, &'a Shape),
        (seal, dating): (&'a Seal, Dating),
        (max_age, now): (Duration, Instant),
    ) -> Self {
        Self {
            rows,
            seal,
            dating,
            max_age,
            scope,
            named: Named::new(seal, scope),
            shape,
            now: dating.moment(now),
            answers: HashMap::new(),
            customers: HashMap::new(),
        }
    }

    /// What may be believed of a key. Where rows are lacking it can be asked again when they are there.
    pub(super) fn find(&mut self, id: &Id) -> Result<Option<Found>, R::Lack> {
        let Some(answer) = self.answer(id)? else { return Ok(None) };
        let Some(fetched_at) = self.dating.instant(answer.fetched_at) else { return Ok(None) };
        if !self.is_believed(answer.fetched_at) {
            return Ok(None);
        }
        let named = answer.members.iter().filter_map(|member| match member {
            Member::Named(name) => Some(name),
            Member::Whole(_) => None,
        });
        self.read_all(named, Self::customer)?;
        let mut records = Vec::with_capacity(answer.members.len());
        for member in &answer.members {
            let record = match member {
                Member::Named(name) => self
                    .customer(name)?
                    .filter(|known| known.row.fetched_at >= answer.fetched_at && known.row.has(id))
                    .map(|known| known.record.clone()),
                Member::Whole(customer) => self.record(customer)?,
            };
            let Some(record) = record else { return Ok(None) };
            records.push(record);
        }
        let is_whole = self.shape.list(id.kind).unique || self.is_whole(id, &answer)?;
        Ok(is_whole.then(|| Found { id: id.clone(), fetched_at, records }))
    }

    /// Whether what was asked for then may be given at all.
    fn is_believed(&self, fetched_at: Moment) -> bool {
        fetched_at.age(self.now).is_some_and(|age| age <= self.max_age)
    }

    /// Reads all of these, so that everything that lacks is known at once.
    fn read_all<'i, I: 'i, T>(
        &mut self,
        all: impl Iterator<Item = &'i I>,
        read: impl Fn(&mut Self, &'i I) -> Result<T, R::Lack>,
    ) -> Result<(), R::Lack> {
        all.map(|one| read(self, one).map(drop)).fold(Ok(()), Result::and)
    }

    fn id_name(&self, id: &Id) -> IdName {
        names::id_name(self.seal, self.scope.lookup, id)
    }

    fn answer(&mut self, id: &Id) -> Result<Option<Arc<Answer>>, R::Lack> {
        let name = names::name(&self.id_name(id), &self.named.name);
        if let Some(known) = self.answers.get(&name) {
            return Ok(known.clone());
        }
        let row = self.rows.row(Table::Answers, &name)?;
        // The name is a hash; the row says what it is of.
        let content = row.as_deref().and_then(|row| row.strip_prefix(&*self.named.row(id)));
        let answer = content.and_then(|content| Answer::read(&mut Input(content))).map(Arc::new);
        self.answers.insert(name, answer.clone());
        Ok(answer)
    }

    /// The customer of this name, unless it has changed since.
    fn customer(&mut self, name: &IdName) -> Result<Option<Arc<Known>>, R::Lack> {
        if let Some(known) = self.customers.get(name) {
            return Ok(known.clone());
        }
        let known = self.read_customer(name)?.map(Arc::new);
        self.customers.insert(*name, known.clone());
        Ok(known)
    }

    fn read_customer(&mut self, name: &IdName) -> Result<Option<Known>, R::Lack> {
        let row = self.rows.row(Table::Customers, &names::name(name, &self.named.name))?;
        let content = row.as_deref().and_then(|row| self.named.content(row));
        let Some(row) = content.and_then(|content| Customer::read(&mut Input(content))) else { return Ok(None) };
        if !self.is_believed(row.fetched_at) {
            return Ok(None);
        }
        self.read_all(row.ids.iter(), Self::answer)?;
        for id in &row.ids {
            let later = self.answer(id)?.filter(|answer| answer.fetched_at > row.fetched_at);
            if later.is_some_and(|later| !later.names(name)) {
                return Ok(None);
            }
        }
        Ok(self.record(&row)?.map(|record| Known { row, record }))
    }

    fn record(&mut self, row: &Customer) -> Result<Option<Record>, R::Lack> {
        let Some(fetched_at) = self.dating.instant(row.fetched_at) else { return Ok(None) };
        let dictionary = match row.dictionary() {
            Some(id) => self.rows.dictionary(id)?,
            None => None,
        };
        Ok(row.record(self.scope, fetched_at, dictionary.as_deref()))
    }

    /// Whether nobody came after the answer who carries the id, too.
    fn is_whole(&mut self, id: &Id, answer: &Answer) -> Result<bool, R::Lack> {
        let name = names::name(&self.id_name(id), &self.named.name);
        let links = self.rows.links(&name)?.into_iter();
        let later = links.filter(|(customer, at)| *at > answer.fetched_at && !answer.names(customer));
        let later: Vec<IdName> = later.map(|(customer, _)| customer).collect();
        self.read_all(later.iter(), Self::customer)?;
        for customer in &later {
            if self.customer(customer)?.is_some_and(|known| known.row.has(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
