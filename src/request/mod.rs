//! What a caller asks for, read from the body of its request.
//!
//! A lookup and a purge are written in the same way: [`body`] reads the bytes within their limits, [`wire`] makes them a
//! scope and an ordered list of distinct keys, [`canonical`] gives the fields that are no keys one spelling, [`purge`]
//! reads the keys of every lookup path at once. [`budget`] counts the bytes that all bodies together hold, [`depth`] how deeply
//! one is nested.
//!
//! Invariants: a body is read within a size, a time and a budget; a refusal quotes nothing that the body holds but names of lists.

pub mod body;
pub mod budget;
pub mod canonical;
pub mod depth;
pub mod purge;
pub mod wire;

pub use self::body::Limits;
