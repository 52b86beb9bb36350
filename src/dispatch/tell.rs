//! Tells callers what became of their keys.
//!
//! Thousands may wait for one batch. Each that is told is a task that can go on, and for each a runtime may wake a thread that
//! sleeps. One by one, that thread takes the one task that there is, sleeps again, and is woken for the next: where the
//! kernel lets both threads share a core, the one that tells stands still meanwhile. So they are told in pieces, each by a
//! task of its own, which any thread may take, and with it enough to do.

use std::mem;

use tokio::task::JoinSet;

use super::{handle::Waker, ticket::Finished};

/// Callers told by one task: some 0.2 ms of work, which is ten times what waking a thread costs.
const PIECE: usize = 512;

/// Tells some while others are still being settled.
#[derive(Default)]
pub(super) struct Teller {
    piece: Vec<Finished<Waker>>,
    pieces: JoinSet<()>,
}

impl Teller {
    /// This one is to be told.
    pub(super) fn push(&mut self, finished: Finished<Waker>) {
        self.piece.push(finished);
        if self.piece.len() == PIECE {
            self.send();
        }
    }

    /// There are no more than these for now.
    pub(super) fn flush(&mut self, finished: Vec<Finished<Waker>>) {
        finished.into_iter().for_each(|one| self.push(one));
        while self.pieces.try_join_next().is_some() {}
        if self.pieces.is_empty() {
            wake(mem::take(&mut self.piece));
        } else {
            // After those who came before them.
            self.send();
        }
    }

    fn send(&mut self) {
        let piece = mem::take(&mut self.piece);
        self.pieces.spawn(async move { wake(piece) });
    }
}

/// Tells everybody, each of whom may have gone meanwhile.
fn wake(finished: Vec<Finished<Waker>>) {
    for Finished { waker, outcomes } in finished {
        let _gone = waker.send(outcomes);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::dispatch::ticket::Outcomes;

    #[tokio::test]
    async fn however_many_are_told_each_is_told_and_who_came_first_goes_on_first() {
        for count in [0, 1, PIECE, 2 * PIECE + 7] {
            let (mut teller, mut waiting, mut finished) = (Teller::default(), JoinSet::new(), Vec::new());
            for number in 0..count {
                let (waker, told) = oneshot::channel();
                finished.push(Finished { waker, outcomes: Outcomes::new() });
                waiting.spawn(async move { told.await.map(|_| number) });
            }
            // Everybody waits before anybody is told.
            tokio::task::yield_now().await;
            teller.flush(finished);
            let mut order = Vec::new();
            while let Some(went_on) = waiting.join_next().await {
                order.push(went_on.unwrap().unwrap());
            }
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }
}
