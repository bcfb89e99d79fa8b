//! The Annulus operator: reconciles a `KeyValueCluster` into a `StatefulSet` of nodes, and hands them the ring.
//!
//! One round reads as a sentence: [`observe`] the objects, the pods and what every node says of itself; [`validate`]
//! the spec; [`build`] the objects it stands for; [`plan`] at most one next action; [`apply`] it; report the
//! [`status`]. `plan`, `build`, `validate` and `status` are pure. All that must outlive a round is in the objects, so
//! an operator that dies at any moment is replaced by one that goes on.
#![forbid(unsafe_code)]

pub mod apply;
pub mod build;
pub mod check;
pub mod controller;
pub mod crd;
pub mod duration;
pub mod events;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod nodes;
pub mod observe;
pub mod plan;
pub mod quantity;
pub mod status;
pub mod validate;
