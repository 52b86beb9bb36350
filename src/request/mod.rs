//! What a caller asks for, read from the body of its request.
//!
//! A lookup and a purge are written in the same way: [`body`] reads the bytes within their limits, [`wire`] makes them a
//! scope and an ordered list of distinct keys, [`canonical`] gives the fields that are no keys one spelling, [`purge`]
//! reads the keys of every lookup path at once.
//!
//! Invariants: a body is read within a size and a time; a refusal quotes nothing that the body holds but names of lists.

pub mod body;
pub mod canonical;
pub mod purge;
pub mod wire;

pub use self::body::Limits;
