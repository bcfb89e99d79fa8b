//! What the end-to-end tests and the demo share: a cluster on a real Kubernetes, a workload with a ledger, a verdict.

pub mod kvc;
pub mod ledger;
pub mod workload;
