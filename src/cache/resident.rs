//! What stays in the cache, and what has to go: moka decides, over pages of residents.
//!
//! A *resident* is one customer, or one answer that has no identified customer. An entry of moka costs some 300 bytes, a
//! resident's JSON a few times that; so residents that came at about the same time share a *page*, and a page is what moka
//! weighs, in bytes, and lets go.
//!
//! - **Coming.** A resident comes onto the open page. When that has [`PAGE`] of them, or a [`PAGES`]th of the capacity, it is
//!   sealed: moka has it from then on. A small cache has pages of one.
//! - **Use.** A hit tells moka nothing. It leaves the cache's turn on what it was given: one store, and only if the turn has
//!   changed since. A turn is the time between two steps, and a step is what one upstream request brings.
//! - **Going.** moka lets go of the page that was sealed first. Whatever on it was used in a later turn than that of its
//!   seal comes onto the open page again; the rest is what has gone unused for longest, and leaves. This is the second chance of
//!   CLOCK (Corbató, 1968): the order is that of the least recently used, seen once in a round and not at every hit. In one
//!   step at most [`SPARED_AT_ONCE`] are spared: where everything is in use something must go.
//! - **A newer version** takes the place of the older on its page, which counts as a use. Only where a page has grown by more
//!   than a [`GROWTH`]th, or shrunk by more than a [`SHRINKAGE`]th, is it weighed again, because to moka that is a page that
//!   was just sealed.
//! - **Something smaller** may take the place of what goes unused, once: [packing](super::packing) knows about that.
//!
//! Invariants: what is on a page is accounted once, by what it weighs now, and [`Residents::bytes`] is never over the capacity
//! once a step is [over](Residents::settle); moka is only called by who holds [`State`], never by a hit.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use moka::policy::EvictionPolicy;

use super::{
    entry::{Answer, List},
    index::ENTRY,
};
use crate::record::Record;

/// Residents on one page, at most: moka's share of each is then some ten bytes.
const PAGE: usize = 32;

/// A page holds at most this part of the capacity, so that what goes with it is little.
pub(super) const PAGES: u64 = 256;

/// Residents that get another round in one step, at most: a millisecond's work.
const SPARED_AT_ONCE: usize = 4096;

/// Residents in whose place something smaller stays in one step, at most: a millisecond's work.
const REPLACED_AT_ONCE: usize = 256;

/// By what part a page may grow before it is weighed again.
const GROWTH: u64 = 64;

/// By what part a page may shrink before it is weighed again.
const SHRINKAGE: u64 = 8;

/// Bytes that a page costs besides its residents: moka's entry, the page, and what leads to it.
const PAGE_OVERHEAD: u64 = 480;

/// Bytes that the allocator adds to an allocation, on average.
const ALLOCATION: usize = 16;

/// What stays or goes as one: a customer by itself, an answer without an identified customer with all that is in it.
pub(super) type Resident = Answer;

/// Everything that the cache holds.
pub(super) struct Residents {
    pages: moka::sync::Cache<u32, Arc<Page>>,
    /// What moka has let go, and has not left yet.
    gone: Arc<Mutex<Vec<Arc<Page>>>>,
    state: Mutex<State>,
    /// The turn; see the module's words on use.
    turn: AtomicU32,
    bytes: AtomicU64,
    #[cfg(test)]
    capacity: u64,
    /// A page is full at this many bytes.
    page: u64,
}

/// What becomes of a resident whose page goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was used, and comes onto the open page.
    Stays,
    /// It was not used. Something smaller may take its place.
    Goes,
    /// It was not used, and there is no time for that.
    GoesAtOnce,
}

/// Residents that came at about the same time.
struct Page {
    number: u32,
    /// What it weighed when moka was told last; zero while it is open.
    told: AtomicU32,
    /// Whether moka has let it go.
    is_gone: AtomicBool,
    /// Changed by who holds [`State`] only.
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    residents: Vec<Resident>,
    bytes: u64,
    /// The turn in which it was sealed.
    sealed_in: u32,
}

/// What changes with what is held.
struct State {
    /// Every page on which something is, by its number.
    pages: HashMap<u32, Arc<Page>>,
    open: Arc<Page>,
}

impl Page {
    fn new(number: u32) -> Arc<Self> {
        Arc::new(Self { number, told: AtomicU32::new(0), is_gone: AtomicBool::new(false), content: Mutex::default() })
    }

    /// For one step, which no panic interrupts.
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Residents {
    /// Room for so many bytes, in so many pages or more.
    pub(super) fn new(capacity: u64, pages: u64) -> Self {
        let page = capacity / pages;
        let gone = Arc::new(Mutex::<Vec<Arc<Page>>>::default());
        let entries = moka::sync::Cache::builder()
            // What the open page may hold and what pages may have grown by is kept free. With a capacity of zero moka drops
            // what it is given without a word to the listener.
            .max_capacity((capacity - page - capacity / GROWTH).max(1))
            .weigher(|_number: &u32, page: &Arc<Page>| page.told.load(Relaxed))
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let gone = Arc::clone(&gone);
                move |_number, page: Arc<Page>, cause| {
                    if cause.was_evicted() {
                        page.is_gone.store(true, Relaxed);
                        lock(&gone).push(page);
                    }
                }
            })
            .build();
        let open = Page::new(1);
        let state = State { pages: HashMap::from([(1, Arc::clone(&open))]), open };
        Self {
            pages: entries,
            gone,
            state: Mutex::new(state),
            turn: AtomicU32::new(1),
            bytes: AtomicU64::new(0),
            #[cfg(test)]
            capacity,
            page,
        }
    }

    /// Which turn it is.
    pub(super) fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many residents there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).pages.values().map(|page| page.content().residents.len()).sum()
    }

    /// Takes one in, in the place of another if that one is held.
    pub(super) fn put(&self, new: Resident, old: Option<&Resident>) {
        let mut state = lock(&self.state);
        new.marks().used(self.turn());
        if new.marks().page().is_some() {
            return; // It is here already.
        }
        match old.and_then(|old| state.place_of(old)) {
            Some((page, position)) => {
                let mut content = page.content();
                let (added, old) = (weigh(&new), mem::replace(&mut content.residents[position], new));
                old.marks().move_to(0);
                content.residents[position].marks().move_to(page.number);
                self.account(&mut content, added, weigh(&old));
                drop(content);
                self.weigh_again(&mut state, &page);
            }
            None => {
                let bytes = weigh(&new);
                self.add(&mut state, new, bytes);
            }
        }
    }

    /// Lets one go that is not to be given any more, if it is held.
    pub(super) fn remove(&self, resident: &Resident) {
        let mut state = lock(&self.state);
        let Some((page, position)) = state.place_of(resident) else { return };
        let mut content = page.content();
        let old = content.residents.swap_remove(position);
        old.marks().move_to(0);
        self.account(&mut content, 0, weigh(&old));
        drop(content);
        self.weigh_again(&mut state, &page);
    }

    /// Lets everything go.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        for page in mem::take(&mut state.pages).into_values() {
            let residents = mem::take(&mut page.content().residents);
            residents.iter().for_each(|resident| resident.marks().move_to(0));
        }
        self.pages.invalidate_all();
        self.pages.run_pending_tasks();
        lock(&self.gone).clear();
        state.open_next();
        self.bytes.store(0, Relaxed);
    }

    /// Ends a step: what has no room any more leaves, or something takes its place.
    pub(super) fn settle(&self, mut decide: impl FnMut(Resident, Fate) -> Option<Resident>) {
        let mut state = lock(&self.state);
        let (mut to_spare, mut to_replace) = (SPARED_AT_ONCE, REPLACED_AT_ONCE);
        loop {
            self.pages.run_pending_tasks();
            let gone = mem::take(&mut *lock(&self.gone));
            if gone.is_empty() {
                break;
            }
            for page in gone {
                let Content { residents, bytes, sealed_in } = mem::take(&mut *page.content());
                state.pages.remove(&page.number);
                self.bytes.fetch_sub(bytes + PAGE_OVERHEAD, Relaxed);
                for resident in residents {
                    resident.marks().move_to(0);
                    // Turns are compared around their end.
                    let is_used = (resident.marks().used_in().wrapping_sub(sealed_in) as i32) > 0;
                    let fate = match is_used && to_spare > 0 {
                        true => Fate::Stays,
                        false if to_replace > 0 => Fate::Goes,
                        false => Fate::GoesAtOnce,
                    };
                    if let Some(resident) = decide(resident, fate) {
                        match fate {
                            Fate::Stays => to_spare -= 1,
                            Fate::Goes => to_replace -= 1,
                            Fate::GoesAtOnce => {}
                        }
                        let bytes = weigh(&resident);
                        self.add(&mut state, resident, bytes);
                    }
                }
            }
        }
        // What is used from now on is used after everything that was sealed in this step. Numbers come again after four
        // billion turns.
        self.turn.fetch_add(1, Relaxed);
    }

    /// Brings one onto the open page.
    fn add(&self, state: &mut State, resident: Resident, bytes: u64) {
        let open = Arc::clone(&state.open);
        resident.marks().move_to(open.number);
        let mut content = open.content();
        if content.residents.is_empty() {
            self.bytes.fetch_add(PAGE_OVERHEAD, Relaxed);
        }
        content.residents.push(resident);
        self.account(&mut content, bytes, 0);
        if content.residents.len() >= PAGE || content.bytes + PAGE_OVERHEAD >= self.page {
            content.residents.shrink_to_fit();
            content.sealed_in = self.turn();
            let told = weight(content.bytes);
            drop(content);
            self.tell(&open, told);
            state.open_next();
        }
    }

    /// What is on a page has changed: moka is told if that is worth it.
    fn weigh_again(&self, state: &mut State, page: &Arc<Page>) {
        if page.is_gone.load(Relaxed) {
            return; // It leaves when the step is over.
        }
        let content = page.content();
        let (is_empty, bytes) = (content.residents.is_empty(), content.bytes);
        let told = u64::from(page.told.load(Relaxed));
        drop(content);
        if is_empty {
            self.bytes.fetch_sub(PAGE_OVERHEAD, Relaxed);
            if told > 0 {
                state.pages.remove(&page.number);
                self.pages.invalidate(&page.number);
            }
        } else if told > 0 {
            let now = bytes + PAGE_OVERHEAD;
            if now > told + told / GROWTH || now < told - told / SHRINKAGE {
                page.content().sealed_in = self.turn();
                self.tell(page, weight(bytes));
            }
        }
    }

    fn tell(&self, page: &Arc<Page>, weight: u32) {
        page.told.store(weight, Relaxed);
        self.pages.insert(page.number, Arc::clone(page));
    }

    fn account(&self, content: &mut Content, added: u64, taken: u64) {
        content.bytes = content.bytes + added - taken;
        self.bytes.fetch_add(added, Relaxed);
        self.bytes.fetch_sub(taken, Relaxed);
    }
}

impl State {
    /// The page that a resident is on, and where.
    fn place_of(&self, resident: &Resident) -> Option<(Arc<Page>, usize)> {
        let page = self.pages.get(&resident.marks().page()?)?;
        let position = page.content().residents.iter().position(|one| one.is(resident))?;
        Some((Arc::clone(page), position))
    }

    fn open_next(&mut self) {
        // Numbers come again after four billion pages; zero is none.
        let number = self.open.number.checked_add(1).unwrap_or(1);
        self.open = Page::new(number);
        self.pages.insert(number, Arc::clone(&self.open));
    }
}

/// What moka is told that a page weighs, whose residents weigh so much.
fn weight(bytes: u64) -> u32 {
    u32::try_from(bytes + PAGE_OVERHEAD).unwrap_or(u32::MAX)
}

/// Bytes that a resident costs: its JSON, what is known of it, what leads to it, and its share in what the allocator adds.
fn weigh(resident: &Resident) -> u64 {
    let bytes = match resident {
        Resident::Customer(record) => record_bytes(record),
        Resident::List(_) => {
            // Identified customers beside the others are residents of their own.
            let own = resident.records().iter().filter(|record| record.identity().is_none());
            size_of::<List>() + 2 * ALLOCATION + ENTRY + own.map(record_bytes).sum::<usize>()
        }
    };
    (bytes + size_of::<Resident>()) as u64
}

fn record_bytes(record: &Record) -> usize {
    record.bytes() + ALLOCATION + record.ids().count() * ENTRY
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
impl Residents {
    /// That everything is where it says, and is accounted once.
    pub(super) fn check(&self) {
        let state = lock(&self.state);
        let mut bytes = 0;
        for (number, page) in &state.pages {
            let content = page.content();
            let residents: u64 = content.residents.iter().map(weigh).sum();
            assert_eq!(content.bytes, residents);
            assert!(content.residents.iter().all(|resident| resident.marks().page() == Some(*number)));
            let is_open = Arc::ptr_eq(page, &state.open);
            assert!(is_open || !content.residents.is_empty() && self.pages.contains_key(number));
            bytes += residents + if content.residents.is_empty() { 0 } else { PAGE_OVERHEAD };
        }
        assert_eq!(self.bytes(), bytes);
        assert!(bytes <= self.capacity, "{bytes} of {}", self.capacity);
    }
}
