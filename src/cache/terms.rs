//! The policy that is in force: one that may be replaced while answers are judged by it.

use super::Policy;
use crate::live::Time;

/// A policy that may change; its clones are the same one.
#[derive(Clone)]
pub(super) struct Terms {
    ttl: Time,
    negative_ttl: Time,
    stale_while_revalidate: Time,
    stale_if_error: Time,
}

impl Terms {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            ttl: Time::new(policy.ttl),
            negative_ttl: Time::new(policy.negative_ttl),
            stale_while_revalidate: Time::new(policy.stale_while_revalidate),
            stale_if_error: Time::new(policy.stale_if_error),
        }
    }

    pub(super) fn now(&self) -> Policy {
        Policy {
            ttl: self.ttl.now(),
            negative_ttl: self.negative_ttl.now(),
            stale_while_revalidate: self.stale_while_revalidate.now(),
            stale_if_error: self.stale_if_error.now(),
        }
    }

    pub(super) fn set(&self, policy: &Policy) {
        self.ttl.set(policy.ttl);
        self.negative_ttl.set(policy.negative_ttl);
        self.stale_while_revalidate.set(policy.stale_while_revalidate);
        self.stale_if_error.set(policy.stale_if_error);
    }
}
