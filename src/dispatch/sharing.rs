//! The worker as one of several with one slot and one queue: it offers, asks, and boards what was chosen for all.
//!
//! A request of another gateway is a flight like any other, whose verdict is published instead of read: the cache is written
//! first, then everybody who waits here is woken. What fails goes the way that it would go with one gateway, and a winner
//! of which nothing is heard is a request that was never made.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Failure,
    batch::Batch,
    entry::Lane,
    handle::{State, UNSHARED},
    merge::{fits, merge_offers},
    offers::{Offered, Shown, has_room},
    origin::{Announcement, Origin},
    seat::{APART, Link, Seat, Sharing},
    spare::Spare,
    ticket::Finished,
    worker::{Fetched, UnderWay, Worker},
};
use crate::{
    clock::{Instant, now},
    key::{Id, Kind},
    link::Lost,
    replicas::{
        Done, Event, Found, Grant, LaneOffer, Message, Reply, Sent, Taken, Token, Turn, WhenDown, Wish, domain_name,
    },
    upstream::verdict::Verdict,
};

/// A lane of halves, which nobody else can read.
const EXACT: &str = "exact";

/// The next thing that is heard; never, for a gateway that is alone.
pub(super) async fn heard(seat: &mut Option<Seat>) -> Event {
    match seat {
        Some(seat) => seat.replica.next().await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// Makes it one of several that share a slot.
    #[must_use]
    pub fn shared_with(mut self, sharing: Option<Sharing>) -> Self {
        self.sharing = sharing;
        self
    }

    /// Takes its seat, once it is known whose keys it asks for.
    pub(super) fn sit_down(&mut self) {
        let Some(sharing) = self.sharing.take() else { return };
        let domain = domain_name(&sharing.upstream, &self.shape, &self.credential);
        let replica = sharing.replicas.join(domain);
        self.seat = Some(Seat::new(sharing, replica, now()));
    }

    /// Offers and asks for what may be sent now. Returns when to look again, if that is known.
    pub(super) fn send_shared(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        let seat = self.seat.as_mut()?;
        let tend_at = seat.tend(&self.cache, now);
        let next = match seat.link {
            Link::Up(_) => self.offer_and_ask(state, now),
            Link::Down(since, _) if now < since + APART => Some(since + APART),
            Link::Down(_, true) => self.send_apart(state, now),
            Link::Down(since, false) => {
                seat.link = Link::Down(since, true);
                self.part(state, now);
                self.send_apart(state, now)
            }
        };
        Some(next.map_or(tend_at, |next| next.min(tend_at)))
    }

    /// The exchange has been away for too long.
    fn part(&mut self, state: &mut State, now: Instant) {
        match self.seat.as_ref().map(|seat| seat.sharing.replicas.when_down()) {
            Some(WhenDown::Stale) => {
                warn!(lookup = %self.shape.path, "without redis nothing is asked: only what is cached is answered");
                state.unshared = true;
                self.teller.flush(state.queue.fail(None, &Failure::Unshared(UNSHARED), now));
            }
            Some(WhenDown::Share) => {
                let parts = self.seat.as_ref().map_or(1, |seat| seat.sharing.replicas.max_replicas());
                warn!(lookup = %self.shape.path, parts, "without redis this gateway keeps to its part of the rate");
                state.pacer.share(parts);
                state.pacer.silence(now);
            }
            None => {}
        }
    }

    fn send_apart(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        if state.unshared { None } else { self.send_alone(state, now) }
    }

    fn offer_and_ask(&mut self, state: &mut State, now: Instant) -> Option<Instant> {
        let seat = self.seat.as_mut()?;
        if seat.asking {
            return None; // The answer wakes the worker.
        }
        let (can, gap, floor) = (self.can_send(state), state.pacer.gap(), state.pacer.ready_at());
        let seat = self.seat.as_mut()?;
        let Some(since) = state.queue.work_since() else {
            if seat.standing.take().is_some() {
                seat.ask(Default::default(), (false, false), gap, now);
                return None;
            }
            return self.ask_for_idle_slot(state, floor, now);
        };
        if let Some(unused) = seat.grant.take() {
            seat.give_back(unused, gap); // It was for an idle slot, and the slot is idle no more.
        }
        let ready_at = since + state.config.linger;
        if now < ready_at {
            return Some(ready_at);
        }
        let ask_at = seat.ask_at(now).max(floor);
        let renew_at = seat.renew_at(state.queue.stamp(), now);
        let next = if can { ask_at.min(renew_at) } else { renew_at };
        if now < next {
            return Some(next);
        }
        let offer = self.offer(state, now);
        let seat = self.seat.as_mut()?;
        seat.standing = Some(state.queue.stamp());
        // It is one of those who would use the next slot, even while its own pace would not let it yet.
        let can = can && floor <= seat.opens_at(now);
        seat.ask(offer, (can, false), gap, now);
        None
    }

    /// While the upstream fails, one request at a time finds out whether it is back.
    fn can_send(&self, state: &State) -> bool {
        let at_once = if state.pacer.is_probing() { 1 } else { state.config.max_in_flight };
        self.fetches.len() < at_once && !state.pacer.is_starting()
    }

    fn ask_for_idle_slot(&mut self, state: &mut State, floor: Instant, now: Instant) -> Option<Instant> {
        let ask_at = self.seat.as_ref()?.ask_at(now).max(floor);
        if now < ask_at && self.seat.as_ref()?.grant.is_none() {
            return Some(ask_at);
        }
        let next = self.use_idle_slot(state, now);
        let (gap, seat) = (state.pacer.gap(), self.seat.as_mut()?);
        if let Some(unused) = seat.grant.take() {
            seat.give_back(unused, gap);
        }
        if std::mem::take(&mut seat.idle) {
            seat.ask(Default::default(), (true, true), gap, now);
            return None;
        }
        next
    }

    fn offer(&mut self, state: &mut State, now: Instant) -> (Vec<Turn>, Vec<u8>) {
        let (mut turns, mut lanes) = (Vec::new(), Vec::new());
        let Some(seat) = self.seat.as_ref() else { return Default::default() };
        let shown = Shown(now, seat.replica.replicas().micros(now));
        let mut offers = state.queue.offers(shown);
        if self.catch_up(state, &offers, now) {
            offers = state.queue.offers(shown);
        }
        let Some(seat) = self.seat.as_mut() else { return Default::default() };
        for offered in offers {
            let lane = match offered.exact {
                true => format!("{}:{EXACT}", seat.replica.gateway()),
                false => format!("{}:{}", seat.name_of(&offered.scope), offered.lane.tag()),
            };
            turns.push(Turn { lane: lane.clone(), background: offered.background, waited: offered.waited });
            let Offered { room, demands, behind, .. } = offered;
            lanes.push(LaneOffer { lane, room, demands, behind });
        }
        (turns, serde_json::to_vec(&lanes).unwrap_or_default())
    }

    /// Lets who waits wait for what is under way elsewhere since before anybody asked for that scope here; whether there was
    /// something.
    fn catch_up(&mut self, state: &mut State, offers: &[Offered], now: Instant) -> bool {
        let Some(seat) = self.seat.as_mut() else { return false };
        let late: Vec<Taken> = offers.iter().flat_map(|offered| seat.recall(&offered.scope)).collect();
        let is_late = !late.is_empty();
        for taken in late {
            self.board(state, taken, now);
        }
        is_late
    }

    /// Acts on what was heard.
    pub(super) fn hear(&mut self, event: Event) {
        // What a hundred gateways offer takes a while to read: nobody is kept from the queue meanwhile.
        let wishes = match &event {
            Event::Told(_, Ok(Reply::Granted(grant))) => self.wishes(grant),
            _ => Vec::new(),
        };
        let (shared, now) = (Arc::clone(&self.shared), now());
        let mut state = shared.state();
        let Some(seat) = self.seat.as_mut() else { return };
        match event {
            Event::Up(run) => {
                seat.up(run);
                if std::mem::take(&mut state.unshared) {
                    warn!(lookup = %self.shape.path, "redis is back: the upstream is asked again");
                }
                state.pacer.share(1);
                state.pacer.silence(now);
            }
            Event::Down => seat.down(now),
            Event::Told(asked_at, reply) => self.told(&mut state, asked_at, (reply, &wishes), now),
            Event::Heard(Message::Taken(taken)) => self.taken(&mut state, taken, now),
            Event::Heard(Message::Done(done)) => self.done(&mut state, done, now),
            Event::Looked(token, Ok(Found::Verdict(message))) => {
                let message = message.iter().position(|byte| *byte == b' ').map(|at| &message[at + 1..]);
                match message.and_then(Message::read) {
                    Some(Message::Done(done)) => self.done(&mut state, done, now),
                    Some(Message::Taken(_)) | None => seat.miss(&token),
                }
            }
            Event::Looked(token, Ok(Found::Alive)) => seat.is_alive(&token),
            Event::Looked(token, Ok(Found::Nothing) | Err(Lost(_))) => seat.miss(&token),
        }
    }

    fn told(
        &mut self,
        state: &mut State,
        asked_at: Instant,
        (reply, wishes): (Result<Reply, Lost>, &[Wish]),
        now: Instant,
    ) {
        let Some(seat) = self.seat.as_mut() else { return };
        match reply {
            Ok(Reply::Wait { wait, held, lead }) => seat.told(Some((wait, held, lead)), now),
            Ok(Reply::Granted(grant)) => {
                let gap = state.pacer.gap();
                seat.told(Some((gap, false, true)), now);
                seat.standing = None;
                let late = Seat::is_late(asked_at, gap, now) || matches!(seat.link, Link::Down(..));
                if late || !self.can_send(state) || now < state.pacer.ready_at() {
                    if let Some(seat) = self.seat.as_mut() {
                        seat.give_back(grant, gap);
                    }
                    return;
                }
                self.granted(state, grant, wishes, now);
            }
            Err(Lost(_)) => seat.told(None, now),
        }
    }

    /// Seals what the slot is for, and sends it.
    fn granted(&mut self, state: &mut State, grant: Grant, wishes: &[Wish], now: Instant) {
        let Some(lane) = grant.lane.clone() else {
            if let Some(seat) = self.seat.as_mut() {
                seat.grant = Some(grant);
            }
            return; // The idle slot is used at once, by the worker's turn.
        };
        let batch = self.chosen(state, &lane, wishes, now);
        let Some(seat) = self.seat.as_mut() else { return };
        let Some(mut batch) = batch else { return seat.give_back(grant, state.pacer.gap()) };
        if state.pacer.start(now).is_err() {
            state.queue.put_back(batch.id, now);
            return seat.give_back(grant, state.pacer.gap());
        }
        seat.grant = Some(grant);
        if has_room(&lane) {
            state.queue.shared_slot(batch.waits.len());
        }
        state.count_idle_slots(now, &self.shared.metrics);
        self.fill_up(state, &mut batch, now);
        self.start(state, batch, Spare::Ride, now);
    }

    /// Whose keys are to be asked for, of what all gateways offer of the lane that the slot is for.
    fn wishes(&self, grant: &Grant) -> Vec<Wish> {
        let mut wishes = merge_offers(grant);
        wishes.retain(|wish| fits(wish, &self.shape));
        wishes
    }

    fn chosen(&self, state: &mut State, lane: &str, wishes: &[Wish], now: Instant) -> Option<Batch> {
        let (scope, tag) = lane.split_once(':')?;
        if tag == EXACT {
            return state.queue.seal(now);
        }
        let scope = self.seat.as_ref()?.scope(scope)?;
        state.queue.seal_chosen((&scope, Lane::of_tag(tag)?), wishes, None, now)
    }

    /// What everybody will be told of a batch once it is on the wire, if it goes in a granted slot.
    pub(super) fn announce(&mut self, state: &State, batch: &Batch, now: Instant) -> Option<Announcement> {
        let seat = self.seat.as_mut()?;
        let grant = seat.grant.take()?;
        seat.start(grant.token.clone(), now);
        seat.replica.replicas().metrics().used.inc();
        let keep = state.queue.kept(batch.id);
        let wish = |(id, keep): (&Id, bool)| Wish { id: id.clone(), keep };
        let scope = crate::replicas::scope_name(&batch.ask.scope);
        let taken = Taken {
            token: grant.token,
            from: seat.replica.gateway().into(),
            granted: grant.micros,
            gap: 0,
            lane: format!("{scope}:{}", state.queue.lane_of(batch.id)?.tag()),
            wishes: batch.ask.ids.iter().zip(keep).map(wish).collect(),
        };
        let (post, domain) = (seat.replica.post(), seat.replica.domain().into());
        Some(Announcement { taken, post, domain, hold: seat.sharing.hold })
    }

    /// Somebody's request is on the wire.
    fn taken(&mut self, state: &mut State, taken: Taken, now: Instant) {
        let Some(seat) = self.seat.as_mut() else { return };
        seat.opens_in(Duration::from_micros(taken.gap), now);
        state.pacer.heard(now);
        if *taken.from == *seat.replica.gateway() || taken.wishes.iter().any(|wish| !fits(wish, &self.shape)) {
            return;
        }
        let has_room = has_room(&taken.lane);
        let went = self.board(state, taken, now);
        if has_room {
            state.queue.shared_slot(went);
        }
    }

    /// Whoever waits for one of its keys waits for that request. Returns how many of them are waited for.
    fn board(&mut self, state: &mut State, taken: Taken, now: Instant) -> usize {
        let Some(seat) = self.seat.as_mut() else { return 0 };
        let Some((scope, tag)) = taken.lane.split_once(':') else { return 0 };
        let Some(scope) = seat.scope(scope) else {
            seat.remember(taken);
            return 0;
        };
        let (Some(lane), Some(started)) = (Lane::of_tag(tag), seat.started(taken.granted, now)) else { return 0 };
        let Some(batch) = state.queue.seal_chosen((&scope, lane), &taken.wishes, Some(started), now) else { return 0 };
        let went = batch.waits.len();
        let position = |id: &Id| taken.wishes.iter().position(|wish| wish.id == *id);
        let positions = batch.ask.ids.iter().filter_map(position).collect();
        let kinds: BTreeSet<Kind> = taken.wishes.iter().map(|wish| wish.id.kind).collect();
        let origin = Origin::Elsewhere { positions, asked: taken.wishes.len(), kinds: kinds.into_iter().collect() };
        let (verdict, lease) = (seat.wait_for(taken.token, now), seat.sharing.lease);
        let fetch = self.cache.open(&scope, started);
        let task = self.fetches.spawn(async move {
            // The winner's word, unless it has died or takes for ever.
            let done = tokio::time::timeout(lease, verdict).await.ok().and_then(Result::ok);
            Fetched { verdict: done.and_then(Done::verdict) }
        });
        self.under_way.insert(task.id(), UnderWay { batch, fetch, spare: Spare::Elsewhere, onward: None, origin });
        state.in_flight = self.fetches.len();
        went
    }

    /// Somebody's request is over.
    fn done(&mut self, state: &mut State, done: Done, now: Instant) {
        let Some(seat) = self.seat.as_mut() else { return };
        if *done.from == *seat.replica.gateway() {
            return;
        }
        // Who waits for none of its keys learns all the same that the pace is too fast.
        if let Some(Verdict::Throttled(retry_after)) = seat.deliver(done).and_then(Done::verdict) {
            state.pacer.throttled(now, retry_after);
        }
    }

    /// Tells everybody what became of this gateway's request.
    pub(super) fn publish(&mut self, state: &State, message: Done, delayed: bool, now: Instant) {
        let Some(seat) = self.seat.as_mut() else { return };
        let token = message.token.clone();
        seat.end(&token);
        let wait = state.pacer.ready_at().saturating_duration_since(now);
        let delay = if delayed { wait } else { Duration::ZERO };
        let message = Message::Done(message).write(seat.replica.domain());
        seat.replica.publish(Sent { token, gap: state.pacer.gap(), message: Some(message) }, delay);
    }

    /// What everybody is to be told of a verdict, and whether the slot opens later because of it.
    pub(super) fn news(&self, token: Token, verdict: &Verdict) -> Option<(Done, bool)> {
        let from = self.seat.as_ref()?.replica.gateway().into();
        let delayed = matches!(verdict, Verdict::Throttled(_) | Verdict::Unavailable(..));
        Some((Done::new(token, from, verdict), delayed))
    }

    /// Nobody says what became of a request: its keys go again.
    pub(super) fn lose(&self, state: &mut State, batch: &Batch, now: Instant) -> Vec<Finished<super::handle::Waker>> {
        if let Some(seat) = &self.seat {
            seat.sharing.replicas.metrics().lost.inc();
        }
        state.queue.put_back(batch.id, now);
        Vec::new()
    }
}
