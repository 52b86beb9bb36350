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
            let piece = mem::take(&mut self.piece);
            self.pieces.spawn(async move { wake(piece) });
        }
    }

    /// There are no more for now.
    pub(super) fn flush(&mut self) {
        wake(mem::take(&mut self.piece));
        while self.pieces.try_join_next().is_some() {}
    }
}

/// Tells everybody, each of whom may have gone meanwhile.
pub(super) fn wake(finished: Vec<Finished<Waker>>) {
    for Finished { waker, outcomes } in finished {
        let _gone = waker.send(outcomes);
    }
}
