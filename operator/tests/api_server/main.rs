//! The operator against a real API server and its StatefulSet, garbage and disruption controllers, without kubelets: these
//! tests give pods their addresses, and answer for their nodes over gRPC.
//!
//! They need `KUBECONFIG` to name an API server with the CRD applied, and no other operator that looks after the same
//! namespace, and are therefore not run by default: `make e2e` runs them, before it lets the installed operator act, by
//! `cargo test -p annulus-operator --test api_server -- --ignored --test-threads=1`
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod deaths;
mod fate;
mod kubelet;
mod life;
mod rounds;
mod stage;
mod transitions;
#[path = "../world/mod.rs"]
mod world;
