//! The gateway's own token: what is known of it, and when it is renewed.
//!
//! - **Renewed** it is by one task ([`token`](crate::upstream::token)), ahead of time while it is used, and at once when it is
//!   refused. Who needs one meanwhile waits for the outcome of the attempt.
//! - **Not for ever.** A token that is refused although it took the place of a refused one is not renewed for whoever was
//!   refused with it: the upstream means it.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;

use super::{Credentials, NoToken, Token};
use crate::clock::Instant;

/// How long after a token was renewed because of what passes through it is not renewed for that again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// The gateway's own token.
#[derive(Default)]
pub(super) struct Own {
    token: Option<Token>,
    renew_at: Option<Instant>,
    /// Whether the token was used since it came, and whether the upstream took it.
    used: bool,
    taken: bool,
    /// Whether the upstream has refused it.
    refused: bool,
    /// Whether the one before it was refused, so that it is no use to renew it if it never was taken.
    is_second: bool,
    /// When a token was last renewed because of what passes through.
    renewed_aside: Option<Instant>,
    /// Until when no other attempt is made, because the last one failed.
    failed_until: Option<Instant>,
}

/// When the gateway's token is to be renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::upstream) enum Due {
    /// At once.
    Now,
    /// Then.
    At(Instant),
    /// When somebody needs one.
    WhenAsked,
}

impl Credentials {
    pub(super) async fn own_token(&self) -> Result<HeaderValue, NoToken> {
        let mut attempts = self.attempts.subscribe();
        loop {
            if let Some(known) = self.own().usable(crate::clock::now()) {
                return known;
            }
            self.wanted.notify_one();
            attempts.changed().await.or(Err(NoToken))?;
        }
    }

    /// The upstream took the gateway's token.
    pub(in crate::upstream) fn taken(&self, token: &HeaderValue) {
        let mut own = self.own();
        if own.token.as_ref().is_some_and(|current| current.value == *token) {
            own.taken = true;
        }
    }

    /// The upstream refused a token of the gateway's. Whether there is a newer one now, so that it is worth asking again:
    /// where the upstream takes none, they are not renewed over and over.
    pub(super) async fn renew(&self, token: &HeaderValue) -> bool {
        {
            let mut own = self.own();
            if own.token.as_ref().is_some_and(|current| current.value == *token) {
                own.refused = true;
                if own.is_second && !own.taken {
                    return false;
                }
            }
        }
        self.own_token().await.is_ok_and(|newer| newer != *token)
    }

    /// The upstream refused a token of the gateway's to a request that passed through, which is not repeated; whoever comes
    /// next has another one. What passes through may be refused for reasons that no token helps against, so that is done
    /// once in a [while](RENEWAL_PAUSE).
    pub fn refused_aside(&self, token: &HeaderValue, now: Instant) {
        let mut own = self.own();
        let is_current = own.token.as_ref().is_some_and(|current| current.value == *token);
        let is_early = own.renewed_aside.is_some_and(|at| now < at + RENEWAL_PAUSE);
        if is_current && !own.refused && !is_early {
            own.refused = true;
            own.renewed_aside = Some(now);
            drop(own);
            self.wanted.notify_one();
        }
    }

    /// When the keeper should renew the token: now, at a time, or when it is asked to.
    pub(in crate::upstream) fn due(&self, now: Instant, asked: bool) -> Due {
        let own = self.own();
        if let Some(until) = own.failed_until.filter(|until| now < *until) {
            return if own.token.is_some() || asked { Due::At(until) } else { Due::WhenAsked };
        }
        match &own.token {
            Some(token) if !own.refused && now < token.expires_at => match own.renew_at {
                Some(at) if own.used && now >= at => Due::Now,
                Some(at) if now < at => Due::At(at),
                _ => Due::WhenAsked,
            },
            _ if asked => Due::Now,
            _ => Due::WhenAsked,
        }
    }

    /// An attempt to renew the token is over: the token and when to renew it, or until when not to try again.
    pub(in crate::upstream) fn attempted(&self, outcome: Result<(Token, Instant), Instant>) {
        {
            let mut own = self.own();
            match outcome {
                Ok((token, renew_at)) => {
                    let Own { refused: is_second, renewed_aside, .. } = *own;
                    let (token, renew_at) = (Some(token), Some(renew_at));
                    *own = Own { token, renew_at, is_second, renewed_aside, ..Own::default() };
                }
                Err(until) => own.failed_until = Some(until),
            }
        }
        self.attempts.send_modify(|attempts| *attempts += 1);
    }

    /// How long the gateway's own token still holds, nothing once it was refused; none where there is no token.
    #[must_use]
    pub fn expires_in(&self, now: Instant) -> Option<Duration> {
        let own = self.own();
        let left = |token: &Token| token.expires_at.saturating_duration_since(now);
        own.token.as_ref().map(|token| if own.refused { Duration::ZERO } else { left(token) })
    }

    /// For one step: never held across an `.await`.
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    /// The token if it is good, or that there is none to be had now; nothing when one must be waited for.
    fn usable(&mut self, now: Instant) -> Option<Result<HeaderValue, NoToken>> {
        if let Some(token) = self.token.as_ref().filter(|token| !self.refused && now < token.expires_at) {
            self.used = true;
            return Some(Ok(token.value.clone()));
        }
        self.failed_until.is_some_and(|until| now < until).then_some(Err(NoToken))
    }
}
