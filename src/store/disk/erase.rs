//! Erasing customers from the disk: every row that a named id leads to, in every file, and every other row of those customers.
//!
//! It is done when it cannot be undone: each file is written through to the disk. Where that fails the whole file is removed.

use std::collections::{BTreeSet, HashSet};

use tracing::warn;

use super::{
    Disk,
    generation::{Change, Failed, View},
};
use crate::store::{
    erased::{Erased, Order},
    names::{self, IdName, Name, ScopeName, Table},
    rows::{Answer, Customer, Input, Member},
};

/// One erasure under way.
struct Erasing<'a> {
    disk: &'a Disk,
    lookup: u8,
    views: Vec<View>,
    rows: BTreeSet<(Table, Vec<u8>)>,
    customers: Vec<(IdName, ScopeName)>,
    met: HashSet<Name>,
    erased: Erased,
}

impl Disk {
    /// Erases everything that these ids lead to.
    pub(super) fn erase(&self, order: &Order) -> Result<Erased, Failed> {
        let half = order.whose.as_ref().map(|who| names::credential_name(&self.seal, who));
        let mut erasing = Erasing {
            disk: self,
            lookup: order.lookup,
            views: self.views()?,
            rows: BTreeSet::new(),
            customers: Vec::new(),
            met: HashSet::new(),
            erased: Erased::default(),
        };
        for id in &*order.ids {
            let mut beginning = names::id_name(&self.seal, order.lookup, id).to_vec();
            beginning.extend(half.iter().flatten());
            erasing.id(&beginning)?;
        }
        while let Some((customer, scope)) = erasing.customers.pop() {
            erasing.customer(&customer, &scope)?;
        }
        let Erasing { rows, mut erased, .. } = erasing;
        self.remove_rows(&rows);
        erased.tidy();
        Ok(erased)
    }

    /// Removes rows from every file that has them.
    fn remove_rows(&self, rows: &BTreeSet<(Table, Vec<u8>)>) {
        for file in self.files().iter().rev() {
            let there = |view: &View| {
                let mut there = Vec::new();
                for (table, name) in rows {
                    if view.get(*table, name)?.is_some() {
                        there.push(Change { table: *table, name: name.clone(), value: None });
                    }
                }
                Ok(there)
            };
            let changes = file.generation.view().and_then(|view| there(&view));
            let removed = changes.and_then(|changes| match changes.is_empty() {
                true => Ok(()),
                false => self.commit(file, changes),
            });
            if let Err(error) = removed {
                warn!(%error, "stored answers cannot be erased one by one: the file that they are in is removed");
                let number = file.generation.number;
                // And what is older, too, because it might come to light.
                self.remove(|file| file.generation.number <= number);
            }
        }
    }

    /// Erases everything. Returns how many keys and customers that were.
    pub(super) fn erase_all(&self) -> (u64, u64) {
        let (mut keys, mut customers) = (0, 0);
        for view in self.views().unwrap_or_default() {
            keys += view.count(Table::Answers).unwrap_or_default();
            customers += view.count(Table::Customers).unwrap_or_default();
        }
        self.remove(|_| true);
        (keys, customers)
    }
}

impl Erasing<'_> {
    /// Everything that an id leads to whose names begin so.
    fn id(&mut self, beginning: &[u8]) -> Result<(), Failed> {
        for at in 0..self.views.len() {
            for (name, sealed) in self.views[at].alike(Table::Answers, beginning)? {
                let plain = self.disk.unseal(Table::Answers, &name, &sealed)?;
                let scope = scope_of(&name).ok_or(Failed::Damaged)?;
                self.answer(&name, &plain, &scope);
            }
            for (name, _) in self.views[at].alike(Table::Customers, beginning)? {
                let (Some(customer), Some(scope)) = (name.first_chunk::<16>(), scope_of(&name)) else {
                    return Err(Failed::Damaged);
                };
                self.customers.push((*customer, scope));
            }
            for (name, _) in self.views[at].alike(Table::Links, beginning)? {
                let (Some(customer), Some(scope)) = (name.last_chunk::<16>(), scope_of(&name)) else {
                    return Err(Failed::Damaged);
                };
                self.customers.push((*customer, scope));
                self.rows.insert((Table::Links, name));
            }
        }
        Ok(())
    }

    fn answer(&mut self, name: &[u8], plain: &[u8], scope: &ScopeName) {
        self.rows.insert((Table::Answers, name.to_vec()));
        // A row without content says that nothing is known.
        let Some(answer) = names::content(plain).and_then(|content| Answer::read(&mut Input(content))) else { return };
        if let Ok(name) = name.try_into() {
            self.erased.keys.insert(name);
        }
        for member in answer.members {
            match member {
                Member::Named(customer) => self.customers.push((customer, *scope)),
                Member::Whole(customer) => self.erased.ids.extend(customer.ids),
            }
        }
    }

    /// A customer, in every version that is there, with every row that leads to it.
    fn customer(&mut self, customer: &IdName, scope: &ScopeName) -> Result<(), Failed> {
        let name = names::name(customer, scope);
        if !self.met.insert(name) {
            return Ok(());
        }
        for at in 0..self.views.len() {
            let Some(sealed) = self.views[at].get(Table::Customers, &name)? else { continue };
            let plain = self.disk.unseal(Table::Customers, &name, &sealed)?;
            self.rows.insert((Table::Customers, name.to_vec()));
            let row = names::content(&plain).and_then(|content| Customer::read(&mut Input(content)));
            let Some(row) = row else { continue };
            self.erased.customers.insert(name);
            for id in &row.ids {
                let id_name = names::name(&names::id_name(&self.disk.seal, self.lookup, id), scope);
                self.rows.insert((Table::Links, names::link(&id_name, customer)));
                self.reached(&id_name)?;
            }
            self.erased.ids.extend(row.ids);
        }
        Ok(())
    }

    /// A key that reaches a customer who is erased.
    fn reached(&mut self, name: &Name) -> Result<(), Failed> {
        for view in &self.views {
            if view.get(Table::Answers, name)?.is_some() {
                self.rows.insert((Table::Answers, name.to_vec()));
                self.erased.keys.insert(*name);
            }
        }
        Ok(())
    }
}

fn scope_of(name: &[u8]) -> Option<ScopeName> {
    name.get(16..32)?.try_into().ok()
}
