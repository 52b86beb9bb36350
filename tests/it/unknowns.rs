//! unknowns
