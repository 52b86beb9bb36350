//! What was written: customers that were changed or created, company by company.
//!
//! A write belongs to a company, like the customers it changes: every token and instance that looks at that company sees it.
//! Each write gives the customer a new version, so that its record differs from the one before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::customers::{self, Customer, FIRST_WRITTEN, Population};

/// Customers that may be changed or created in all: what one process can hold without harm.
const MAX_WRITTEN: usize = 1_000_000;

/// A customer as it is since it was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Its keys now.
    pub(super) customer: Customer,
    /// How often it was written, plus one.
    pub(super) version: u64,
    /// Its other fields that were written, as JSON text, in the order in which they first were.
    pub(super) fields: Vec<(String, String)>,
}

/// One item of a write: what it names, and what it sets.
#[derive(Clone, Default, Debug)]
pub(super) struct Item {
    /// `audienceUserId`.
    pub(super) id: Option<i64>,
    /// `thirdId`.
    pub(super) third_id: Option<String>,
    /// `phone`.
    pub(super) phone: Option<String>,
    /// All other fields as JSON text.
    pub(super) fields: Vec<(String, String)>,
}

/// What was written in one company.
#[derive(Default, Debug)]
pub(super) struct Changes {
    written: BTreeMap<u64, Written>,
    by_third_id: HashMap<String, BTreeSet<u64>>,
    by_phone: HashMap<String, BTreeSet<u64>>,
    created: u64,
}

/// The customers of one company: those it was born with, and what was written since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    /// Those it was born with.
    pub(super) born: Population,
    /// What was written, if anything was.
    pub(super) changes: Option<&'a Changes>,
    /// Versions by customer that changed in every company.
    pub(super) touched: &'a HashMap<u64, u64>,
}

impl Directory<'_> {
    /// The customer as it is now.
    pub(super) fn customer(&self, index: u64) -> Customer {
        self.written(index).map_or_else(|| self.born.customer(index), |written| written.customer.clone())
    }

    /// The version of the customer's record, from 1.
    pub(super) fn version(&self, index: u64) -> u64 {
        self.touched.get(&index).copied().unwrap_or(0) + self.written(index).map_or(1, |written| written.version)
    }

    /// The fields that were written over the customer's own.
    pub(super) fn fields(&self, index: u64) -> &[(String, String)] {
        self.written(index).map_or(&[], |written| &written.fields)
    }

    /// The customer with this id.
    pub(super) fn by_id(&self, id: i64) -> Option<u64> {
        let written = || customers::first_after(id).checked_sub(1).filter(|index| self.customer(*index).id == id);
        self.born.by_id(id).or_else(|| written().filter(|index| self.written(*index).is_some()))
    }

    /// The customers with this third id, ascending.
    pub(super) fn by_third_id(&self, third_id: &str) -> Vec<u64> {
        let later = self.changes.and_then(|changes| changes.by_third_id.get(third_id));
        self.carriers(self.born.by_third_id(third_id), later, |customer| customer.third_id.as_deref() == Some(third_id))
    }

    /// The customers with this phone, ascending.
    pub(super) fn by_phone(&self, phone: &str) -> Vec<u64> {
        let later = self.changes.and_then(|changes| changes.by_phone.get(phone));
        self.carriers(self.born.by_phone(phone), later, |customer| customer.phones.iter().any(|own| own == phone))
    }

    /// The customers whose ids are greater, ascending.
    pub(super) fn after(&self, id: i64) -> impl Iterator<Item = u64> {
        let first = customers::first_after(id);
        let later = self
            .changes
            .into_iter()
            .flat_map(move |changes| changes.written.range(first.max(FIRST_WRITTEN)..).map(|(index, _)| *index));
        (first..self.born.size).chain(later)
    }

    fn written(&self, index: u64) -> Option<&Written> {
        self.changes.and_then(|changes| changes.written.get(&index))
    }

    /// Those of the candidates that still carry what they were found by.
    fn carriers(
        &self,
        born: impl IntoIterator<Item = u64>,
        later: Option<&BTreeSet<u64>>,
        carries: impl Fn(&Customer) -> bool,
    ) -> Vec<u64> {
        let mut found: BTreeSet<u64> = born.into_iter().chain(later.into_iter().flatten().copied()).collect();
        found.retain(|index| carries(&self.customer(*index)));
        found.into_iter().collect()
    }
}

/// Whom an item means: by id, else by third id, else by phone; nobody means a new customer.
pub(super) fn matching(directory: &Directory<'_>, item: &Item) -> Option<u64> {
    item.id.and_then(|id| directory.by_id(id)).or_else(|| {
        let by_third_id = item.third_id.iter().flat_map(|third_id| directory.by_third_id(third_id)).next();
        by_third_id.or_else(|| item.phone.iter().flat_map(|phone| directory.by_phone(phone)).next())
    })
}

impl Changes {
    /// Writes an item onto a customer, or creates one; `None` when no more can be held.
    pub(super) fn write(&mut self, current: Option<Customer>, item: &Item) -> Option<u64> {
        if self.written.len() >= MAX_WRITTEN {
            return None;
        }
        let customer = current.unwrap_or_else(|| {
            let index = FIRST_WRITTEN + self.created;
            self.created += 1;
            Customer { index, id: customers::id_of(index), third_id: None, phones: Vec::new() }
        });
        let index = customer.index;
        let written = self.written.entry(index).or_insert(Written { customer, version: 1, fields: Vec::new() });
        written.version += 1;
        if let Some(third_id) = &item.third_id {
            written.customer.third_id = Some(third_id.clone());
            self.by_third_id.entry(third_id.clone()).or_default().insert(index);
        }
        if let Some(phone) = &item.phone {
            if !written.customer.phones.contains(phone) {
                written.customer.phones.splice(..1.min(written.customer.phones.len()), [phone.clone()]);
            }
            self.by_phone.entry(phone.clone()).or_default().insert(index);
        }
        for (name, value) in &item.fields {
            match written.fields.iter_mut().find(|(field, _)| field == name) {
                Some((_, old)) => old.clone_from(value),
                None => written.fields.push((name.clone(), value.clone())),
            }
        }
        Some(index)
    }
}
