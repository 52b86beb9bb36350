//! Erasing customers for every gateway: the rows that a named id leads to, and every other row of those customers.
//!
//! Rows are looked for, taken away, and looked for again: what was written between is found then, and afterwards nobody
//! writes any who has not heard of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{LOG, Place, Remote, Rows, SHELVES, bound, letter, peers};
use crate::{
    key::Id,
    link::Lost,
    store::{
        erased::{Erased, Order},
        names::{self, IdName, Name, ScopeName, Table},
        rows::{Answer, Customer, Input, Member},
    },
};

/// Bytes of one that are kept; who was away during a longer one forgets everything.
const LONGEST: usize = 2048;
/// Times that rows are looked for: they are written no more after the first.
const ROUNDS: usize = 4;

/// One erasure under way.
struct Erasing<'a> {
    remote: &'a Remote,
    epoch: &'a str,
    lookup: u8,
    /// What the places begin with that are meant.
    half: Vec<u8>,
    named: Vec<IdName>,
    customers: BTreeSet<(IdName, ScopeName)>,
    rows: BTreeMap<Vec<u8>, BTreeSet<Place>>,
    /// Who is to be forgotten everywhere: everybody who was named or found.
    meant: Vec<Id>,
    erased: Erased,
}

impl Remote {
    /// Erases everything that these ids lead to, and tells everybody.
    pub(super) async fn erase(&self, order: &Order) -> Result<Erased, Lost> {
        let epoch = self.epoch()?;
        let half = order.whose.as_ref().map(|who| names::credential_name(&self.seal, who));
        let mut erasing = Erasing {
            remote: self,
            epoch: &epoch,
            lookup: order.lookup,
            half: half.iter().flatten().copied().collect(),
            named: order.ids.iter().map(|id| names::id_name(&self.seal, order.lookup, id)).collect(),
            customers: BTreeSet::new(),
            rows: BTreeMap::new(),
            meant: order.ids.to_vec(),
            erased: Erased::default(),
        };
        for round in 0..ROUNDS {
            erasing.look().await?;
            if round > 0 && erasing.rows.is_empty() {
                break;
            }
            let said = self.some(order, &erasing.meant);
            let rows: Vec<_> = std::mem::take(&mut erasing.rows).into_iter().collect();
            // Everybody is told once for so many shelves.
            let mut parts = rows.chunks(SHELVES);
            self.take_away(&epoch, &said, parts.next().unwrap_or_default(), None).await?;
            for part in parts {
                self.take_away(&epoch, &said, part, None).await?;
            }
        }
        let mut erased = erasing.erased;
        erased.tidy();
        Ok(erased)
    }

    /// Begins anew, for everybody.
    pub(super) async fn erase_all(&self) -> Result<(), Lost> {
        let fresh = peers::fresh_epoch();
        self.take_away(&self.epoch()?, b"all", &[], Some(&fresh)).await?;
        self.leave();
        Ok(())
    }

    async fn take_away(
        &self,
        epoch: &str,
        said: &[u8],
        rows: &[(Vec<u8>, BTreeSet<Place>)],
        fresh: Option<&str>,
    ) -> Result<(), Lost> {
        let (mut keys, log) = (vec![self.state(), self.log()], LOG.to_string());
        let (tag, said) = (self.tag(), [b" ", said].concat());
        let (all, said) = ([tag.as_bytes(), b" all"].concat(), [tag.as_bytes(), &said].concat());
        let kept = if said.len() > LONGEST { &all } else { &said };
        let positions: Vec<String> = (3..).take(rows.len()).map(|position: usize| position.to_string()).collect();
        let fresh = fresh.unwrap_or_default();
        let mut args: Vec<&[u8]> = vec![epoch.as_bytes(), self.channel.as_bytes(), &said, kept, log.as_bytes()];
        args.push(fresh.as_bytes());
        for ((shelf, places), position) in rows.iter().zip(&positions) {
            keys.push(shelf.clone());
            for place in places {
                args.extend([position.as_bytes(), place]);
            }
        }
        let answer = self.link.call(&self.scripts.erase, &keys, &args).await?;
        self.checked(answer).map(drop)
    }
}

impl Erasing<'_> {
    /// Looks for every row that is there.
    async fn look(&mut self) -> Result<(), Lost> {
        let named = std::mem::take(&mut self.named);
        for (id, rows) in named.iter().zip(self.shelves(&named).await?) {
            for (place, row) in rows {
                self.found(id, place, &row);
            }
        }
        self.named = named;
        let customers: Vec<_> = self.customers.iter().copied().collect();
        let shelves: Vec<_> = customers.iter().map(|(customer, _)| *customer).collect();
        let mut reached = BTreeSet::new();
        for ((customer, scope), rows) in customers.into_iter().zip(self.shelves(&shelves).await?) {
            self.customer((customer, scope), rows, &mut reached);
        }
        self.reached(reached).await
    }

    async fn shelves(&self, ids: &[IdName]) -> Result<Vec<Rows>, Lost> {
        let shelves: Vec<_> = ids.iter().map(|id| self.remote.shelf(self.epoch, id)).collect();
        self.remote.read(self.epoch, &shelves, &self.half).await
    }

    fn take(&mut self, id: &IdName, place: Place) {
        self.rows.entry(self.remote.shelf(self.epoch, id)).or_default().insert(place);
    }

    /// A row of an id that was named.
    fn found(&mut self, id: &IdName, place: Place, row: &[u8]) {
        let Some(scope) = place.get(1..17).and_then(|scope| scope.try_into().ok()) else { return };
        let plain = self.remote.unsealed(&bound(id, &place), row);
        match place[0] {
            kind if kind == letter(Table::Answers) => {
                let answer = plain.as_deref().and_then(names::content);
                let answer = answer.and_then(|content| Answer::read(&mut Input(content)));
                self.erased.keys.insert(names::name(id, &scope));
                for member in answer.into_iter().flat_map(|answer| answer.members) {
                    match member {
                        Member::Named(customer) => {
                            self.customers.insert((customer, scope));
                        }
                        Member::Whole(customer) => self.erased.ids.extend(customer.ids),
                    }
                }
                self.take(id, place);
            }
            kind if kind == letter(Table::Customers) => {
                self.customers.insert((*id, scope));
            }
            _ => {
                self.customers.extend(place.last_chunk().map(|customer| (*customer, scope)));
                self.take(id, place);
            }
        }
    }

    /// What stands at the shelf of a customer, and what else that is said to carry.
    fn customer(
        &mut self,
        (customer, scope): (IdName, ScopeName),
        rows: Rows,
        reached: &mut BTreeSet<(IdName, ScopeName, IdName)>,
    ) {
        let own: Place = [&[letter(Table::Customers)], &scope[..]].concat();
        let Some((place, row)) = rows.into_iter().find(|(place, _)| *place == own) else { return };
        let plain = self.remote.unsealed(&bound(&customer, &place), &row);
        let row = plain.as_deref().and_then(names::content).and_then(|content| Customer::read(&mut Input(content)));
        self.take(&customer, place);
        self.erased.customers.insert(names::name(&customer, &scope));
        let Some(row) = row else { return };
        let name = |id| (names::id_name(&self.remote.seal, self.lookup, id), scope, customer);
        reached.extend(row.ids.iter().map(name));
        self.meant.extend(row.identity().cloned());
        self.erased.ids.extend(row.ids);
    }

    /// Rows of the ids by which a customer is reached who is erased.
    async fn reached(&mut self, reached: BTreeSet<(IdName, ScopeName, IdName)>) -> Result<(), Lost> {
        let ids: Vec<_> = reached.iter().map(|(id, ..)| *id).collect();
        for ((id, scope, customer), rows) in reached.into_iter().zip(self.shelves(&ids).await?) {
            let there: HashSet<Place> = rows.into_iter().map(|(place, _)| place).collect();
            let name: Name = names::name(&id, &scope);
            let (answer, link) =
                (super::place(Table::Answers, &name), super::place(Table::Links, &names::link(&name, &customer)));
            for (_, place) in [answer, link].into_iter().flatten().filter(|(_, place)| there.contains(place)) {
                if place[0] == letter(Table::Answers) {
                    self.erased.keys.insert(name);
                }
                self.take(&id, place);
            }
        }
        Ok(())
    }
}
