//! Where objects are kept.
