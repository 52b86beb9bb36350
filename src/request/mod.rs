//! What a caller asks for, read from the body of its request.
//!
//! A lookup and a purge are written in the same way: [`body`] reads the bytes within their limits, [`wire`] makes them a
//! scope and an ordered list of distinct keys, [`canonical`] gives the fields that are no keys one spelling.
//!
//! Invariants: no limit, no body; nothing that the body holds is quoted in a refusal.

pub mod body;
pub mod canonical;
pub mod wire;

pub use self::body::Limits;
