//! The Annulus operator.
#![forbid(unsafe_code)]

pub mod build;
pub mod crd;
pub mod plan;
pub mod quantity;
pub mod validate;
