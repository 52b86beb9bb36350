//! Whose request it is that brings an answer, and how the others hear of one's own.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{batch::Batch, worker::Asking};
use crate::{
    key::Kind,
    replicas::{Message, Post, Sent, Taken, Token},
    upstream::verdict::Verdict,
};

/// Whose request it is.
pub(super) enum Origin {
    /// This gateway's own.
    Own,
    /// This gateway's, in a slot that it was granted among several.
    Granted(Token),
    /// Another gateway's: where the keys of the batch stand among so many that were asked, and of which kinds.
    Elsewhere { positions: Vec<usize>, asked: usize, kinds: Vec<Kind> },
}

/// Tells everybody that a request is on the wire.
pub(super) struct Announcement {
    pub(super) taken: Taken,
    pub(super) post: Post,
    pub(super) domain: Box<str>,
    pub(super) hold: Duration,
}

impl Announcement {
    /// The grant.
    pub(super) fn token(&self) -> &Token {
        &self.taken.token
    }

    /// How long the request may take until then.
    pub(super) fn hold(&self) -> Duration {
        self.hold
    }

    /// It is: the slot opens again after this.
    pub(super) fn send(mut self, gap: Duration) {
        self.taken.gap = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let token = self.taken.token.clone();
        let message = Message::Taken(self.taken).write(&self.domain);
        self.post.send(Sent { token, gap, message: Some(message) });
    }
}

/// Asks, and gives up if the request is not on the wire in time: later, the slot is somebody else's.
pub(super) async fn within(asking: Asking, is_wired: oneshot::Receiver<()>, hold: Option<Duration>) -> Verdict {
    let Some(hold) = hold else { return asking.await };
    let too_late = async {
        if tokio::time::timeout(hold, is_wired).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // The time first: a process that stood still must not go on as if nothing had happened.
        biased;
        // Nothing has been sent, and nothing will be.
        () = too_late => Verdict::Unavailable("there was no connection in time".into(), None),
        verdict = asking => verdict,
    }
}

impl Origin {
    /// How many keys the whole request had, and their kinds.
    pub(super) fn request(self, batch: &Batch) -> (usize, Vec<Kind>) {
        if let Self::Elsewhere { kinds, asked, .. } = self {
            return (asked, kinds);
        }
        let mut kinds: Vec<_> = batch.ask.ids.iter().map(|id| id.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        (batch.ask.ids.len(), kinds)
    }

    /// Of a verdict on all keys of a request, that on those of the batch; none if it does not fit.
    pub(super) fn project(&self, mut verdict: Verdict, lists: usize) -> Option<Verdict> {
        if let (Self::Elsewhere { positions, asked, .. }, Verdict::Success(success)) = (self, &mut verdict) {
            let ids = success.records.iter().flat_map(|record| &record.ids);
            if success.of.len() != *asked
                || success.exclusive.len() != lists
                || ids.into_iter().any(|id| id.kind.index() >= lists)
            {
                return None;
            }
            success.of = positions.iter().map(|&position| success.of[position].clone()).collect();
        }
        Some(verdict)
    }
}
